//! Entries by their IDs: XRANGE, XREVRANGE.

use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::types::stream::Entry;

use super::ids::{parse_end, parse_start};
use super::write_id;
use crate::spec::{ACCESS, RO};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read};

/// `XRANGE key start end [COUNT count]`
pub(super) const XRANGE: DataCommand = read("xrange", xrange, -4, 0, "5.0.0").key(1, RO | ACCESS);
fn xrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (parse_start(args.at(2))?, parse_end(args.at(3))?);
    let count = parse_count_option(args)?;
    match ctx.keys.stream(args.at(1))? {
        Some(_) if count == 0 => ctx.out.null_array(),
        Some(stream) => write_entries(&mut ctx.out, stream.range(start, end).take(count)),
        None => ctx.out.array(0),
    }
    Ok(Outcome::Reply)
}

/// `XREVRANGE key end start [COUNT count]`
pub(super) const XREVRANGE: DataCommand = read("xrevrange", xrevrange, -4, 0, "5.0.0").key(1, RO | ACCESS);
fn xrevrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (parse_start(args.at(3))?, parse_end(args.at(2))?);
    let count = parse_count_option(args)?;
    match ctx.keys.stream(args.at(1))? {
        Some(_) if count == 0 => ctx.out.null_array(),
        Some(stream) => write_entries(&mut ctx.out, stream.range_backwards(start, end).take(count)),
        None => ctx.out.array(0),
    }
    Ok(Outcome::Reply)
}

/// How many entries are wanted; a negative number is none.
fn parse_count_option(args: Args<'_>) -> Result<usize, CommandError> {
    let (mut count, mut options) = (usize::MAX, Cursor::new(args, 4));
    while !options.is_at_end() {
        let value = options.value_of("count").ok_or(CommandError::Syntax)?;
        count = usize::try_from(parse_i64_arg(value)?.max(0)).unwrap_or(usize::MAX);
    }
    Ok(count)
}

/// Writes entries as an array.
pub(super) fn write_entries<'a>(out: &mut ReplyWriter<'_>, entries: impl Iterator<Item = Entry<'a>>) {
    let start = out.deferred();
    let mut len = 0;
    for entry in entries {
        if out.is_full() {
            break;
        }
        write_entry(out, &entry);
        len += 1;
    }
    out.finish_array(start, len);
}

/// Writes an entry: its ID, its names and values.
pub(super) fn write_entry(out: &mut ReplyWriter<'_>, entry: &Entry<'_>) {
    out.array(2);
    write_fields(out, entry);
}

/// As [`write_entry`], with how long ago it was delivered, in milliseconds, and how often before.
pub(super) fn write_delivered(out: &mut ReplyWriter<'_>, entry: &Entry<'_>, idle: i64, deliveries: u64) {
    out.array(4);
    write_fields(out, entry);
    out.integer(idle);
    out.integer(deliveries.cast_signed());
}

fn write_fields(out: &mut ReplyWriter<'_>, entry: &Entry<'_>) {
    write_id(out, entry.id);
    out.array(2 * entry.len());
    for (name, value) in entry.fields() {
        out.bulk(&name);
        out.bulk(&value);
    }
}
