//! Commands of the group stream: adding and trimming entries.
//!
//! - [`delete`]: deleting entries by their IDs
//! - [`ids`]: the IDs of entries
//! - [`range`]: reading entries by their IDs
//! - [`read`]: reading what comes after an ID, also waiting for it, and for groups
//! - [`group`]: groups and their consumers
//! - [`pending`]: what consumers have not acknowledged; [`claim`]: giving it to others
//! - [`idempotence`]: what producers send twice is added once (XADD IDMP)
//! - [`info`]: what is known of a stream (XINFO)
//!
//! What is pending has one effect, XCLAIM with all that it decides in words: for whom, since when, how often delivered,
//! and when the consumer was seen. Where effects are applied it takes what it is told ([`claim`]).

mod claim;
mod delete;
mod group;
mod idempotence;
mod ids;
mod info;
mod pending;
mod range;
mod read;
#[cfg(test)]
mod tests;

use keyward_proto::resp::Args;
use keyward_store::events::EventClass;
use keyward_store::keys::{Keys, Mode};
use keyward_store::types::stream::{Keep, NODE_BYTES_MAX, Precision, Stream};
use keyward_store::types::{StreamId, StreamLimits};

use crate::spec::{DELETE, DENYOOM, FAST, Group, RO, RW, UPDATE, family};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read, write,
};
use claim::{XAUTOCLAIM, XCLAIM};
use delete::{XACKDEL, XDEL, XDELEX};
use group::{
    XACK, XGROUP, XGROUP_CREATE, XGROUP_CREATECONSUMER, XGROUP_DELCONSUMER, XGROUP_DESTROY, XGROUP_HELP,
    XGROUP_SETID,
};
use idempotence::{Origin, XCFGSET};
use ids::{Given, IdText, parse_given, parse_id, write_id};
use info::{XINFO, XINFO_CONSUMERS, XINFO_GROUPS, XINFO_HELP, XINFO_STREAM};
use pending::XPENDING;
use range::{XRANGE, XREVRANGE};
use read::{XREAD, XREADGROUP};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 28] = family(Group::Stream, [
    XACK, XACKDEL, XADD, XAUTOCLAIM, XCFGSET, XCLAIM, XDEL, XDELEX, XGROUP, XINFO, XLEN, XPENDING, XRANGE, XREAD, XREADGROUP, XREVRANGE, XSETID,
    XTRIM, XGROUP_CREATE, XGROUP_CREATECONSUMER, XGROUP_DELCONSUMER, XGROUP_DESTROY, XGROUP_HELP, XGROUP_SETID,
    XINFO_CONSUMERS, XINFO_GROUPS, XINFO_HELP, XINFO_STREAM,
]);

/// What XADD and XTRIM are asked to remove.
#[derive(Debug, Clone, Copy)]
struct Trim {
    keep: Keep,
    precision: Precision,
}

/// The options before the ID of XADD, or all of XTRIM's.
#[derive(Debug, Default)]
struct Options {
    keep: Option<Keep>,
    is_approximate: bool,
    limit: Option<u64>,
    no_mkstream: bool,
}

impl Options {
    /// Reads one option, if one comes next.
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, CommandError> {
        let keep = if let Some(next) = cursor.value_of("maxlen") {
            let len = parse_i64_arg(self.threshold(next, cursor)?)?;
            Keep::Last(
                u64::try_from(len).map_err(|_| CommandError::err("The MAXLEN argument must be >= 0."))?,
            )
        } else if let Some(next) = cursor.value_of("minid") {
            Keep::From(parse_id(self.threshold(next, cursor)?)?)
        } else if let Some(limit) = cursor.value_of("limit") {
            let limit = u64::try_from(parse_i64_arg(limit)?);
            self.limit = Some(limit.map_err(|_| CommandError::err("The LIMIT argument must be >= 0."))?);
            return Ok(true);
        } else {
            return Ok(false);
        };
        self.keep = Some(keep);
        Ok(true)
    }

    /// What follows `MAXLEN` or `MINID`, after `~` or `=` if something is behind these.
    fn threshold<'a>(&mut self, next: &'a [u8], cursor: &mut Cursor<'a>) -> Result<&'a [u8], CommandError> {
        if self.keep.is_some() {
            return Err(CommandError::err(
                "syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        self.is_approximate = next == b"~" && !cursor.is_at_end();
        let has_sign = self.is_approximate || next == b"=";
        Ok(if has_sign { cursor.take().unwrap_or(next) } else { next })
    }

    fn trim(&self, keys: &Keys<'_>) -> Result<Option<Trim>, CommandError> {
        let is_limited = self.limit.is_some_and(|limit| limit != 0);
        if is_limited && self.keep.is_none() {
            return Err(CommandError::err(
                "syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        let obeys = keys.mode() == Mode::Apply;
        if self.limit.is_some() && !self.is_approximate && !obeys {
            return Err(CommandError::err("syntax error, LIMIT cannot be used without the special ~ option"));
        }
        let precision = match self.limit {
            _ if !self.is_approximate => Precision::Exact,
            _ if obeys => Precision::Nodes(0),
            Some(limit) => Precision::Nodes(limit),
            None => Precision::Nodes(default_limit(keys.limits().stream)),
        };
        Ok(self.keep.map(|keep| Trim { keep, precision }))
    }
}

/// How many entries are removed at most where that need not be exact.
fn default_limit(limits: StreamLimits) -> u64 {
    const LIMIT_MAX: u64 = 1_000_000;
    match limits.node_entries {
        0 => 10_000,
        entries => entries.saturating_mul(100).min(LIMIT_MAX),
    }
}

/// `XADD key [NOMKSTREAM] [IDMP producer iid | IDMPAUTO producer] [MAXLEN|MINID [=|~] threshold [LIMIT count]] *|id
/// field value [field value ...]`
const XADD: DataCommand =
    write("xadd", xadd, -5, DENYOOM | FAST, "5.0.0").key(1, RW | UPDATE).tips(&["nondeterministic_output"]);
fn xadd(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (mut options, mut cursor) = (Options::default(), Cursor::new(args, 2));
    let (mut given, mut origin) = (None, None);
    while let Some(next) = cursor.peek() {
        if next == b"*" {
            break;
        }
        if options.read(&mut cursor)? {
            continue;
        }
        if cursor.word("nomkstream") {
            options.no_mkstream = true;
            continue;
        }
        if let Some(read) = Origin::read(&mut cursor)? {
            if origin.replace(read).is_some() {
                return Err(CommandError::Syntax);
            }
            continue;
        }
        given = Some(parse_given(next)?);
        break;
    }
    let trim = options.trim(ctx.keys)?;
    let fields: Vec<&[u8]> = args.iter().skip(cursor.position() + 1).collect();
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(ctx.spec.name.into()));
    }
    if origin.is_some() && given.is_some() {
        return Err(CommandError::err(
            "IDMP and IDMPAUTO can be used only with an ID that is generated: '*'",
        ));
    }
    if given == Some(Given::Whole(StreamId::ZERO)) {
        return Err(CommandError::err("The ID specified in XADD must be greater than 0-0"));
    }
    let key = args.at(1);
    let last = ctx.keys.stream_mut(key)?.map(|stream| stream.last_id());
    if last.is_none() && options.no_mkstream {
        ctx.out.null();
        return Ok(Outcome::Reply);
    }
    let produced = origin.map(|origin| origin.of_entry(&fields));
    if let Some(produced) = &produced
        && let Some(original) = produced.original(ctx.keys, key)?
    {
        write_id(&mut ctx.out, original);
        return Ok(Outcome::Reply);
    }
    let id = next_id(given, last.unwrap_or_default(), ctx.keys.now)?;
    if NODE_BYTES_MAX < fields.iter().map(|text| text.len()).sum() {
        return Err(CommandError::err("Elements are too large to be stored"));
    }
    let limits = ctx.keys.limits().stream;
    let stream = ctx.keys.stream_or_new(key)?;
    stream.append(id, &fields, limits);
    let trimmed = trim.map(|trim| (stream.trim(trim.keep, trim.precision), stream.len()));
    let mut text = IdText::default();
    propagate_add(ctx.keys, key, text.of(id), &fields, trimmed);
    if let Some(produced) = &produced {
        produced.remember(ctx.keys, key, id)?;
    }
    let id = text.of(id);
    ctx.keys.modified(key);
    ctx.keys.signal_ready(key);
    ctx.keys.notify(EventClass::Stream, "xadd", key);
    if trimmed.is_some_and(|(removed, _)| removed > 0) {
        ctx.keys.notify(EventClass::Stream, "xtrim", key);
    }
    ctx.out.bulk(id);
    Ok(Outcome::Reply)
}

/// The ID of a new entry behind `last`.
fn next_id(given: Option<Given>, last: StreamId, now: i64) -> Result<StreamId, CommandError> {
    if last == StreamId::MAX {
        return Err(CommandError::err(
            "The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = match given {
        Some(Given::Whole(id)) => Some(id),
        // Within the same millisecond only, as the time was asked for.
        Some(Given::AnySeq(ms)) if ms == last.ms => last.next().filter(|id| id.ms == ms),
        Some(Given::AnySeq(ms)) => Some(StreamId::new(ms, 0)),
        None => match u64::try_from(now).unwrap_or(0) {
            now if last.ms < now => Some(StreamId::new(now, 0)),
            _ => last.next(),
        },
    };
    id.filter(|id| last < *id).ok_or_else(|| {
        CommandError::err("The ID specified in XADD is equal or smaller than the target stream top item")
    })
}

/// With the ID that was chosen, and trimmed to the length that was left.
fn propagate_add(keys: &mut Keys<'_>, key: &[u8], id: &[u8], fields: &[&[u8]], trimmed: Option<(u64, u64)>) {
    if !keys.is_logging() {
        return;
    }
    let mut number = itoa::Buffer::new();
    let mut command: Vec<&[u8]> = vec![b"XADD", key];
    if let Some((1.., len)) = trimmed {
        command.extend([&b"MAXLEN"[..], b"=", number.format(len).as_bytes()]);
    }
    command.push(id);
    command.extend(fields);
    keys.propagate_as(key, &command);
}

/// `XTRIM key MAXLEN|MINID [=|~] threshold [LIMIT count]`
const XTRIM: DataCommand =
    write("xtrim", xtrim, -4, 0, "5.0.0").key(1, RW | DELETE).tips(&["nondeterministic_output"]);
fn xtrim(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (mut options, mut cursor) = (Options::default(), Cursor::new(args, 2));
    while !cursor.is_at_end() {
        if !options.read(&mut cursor)? {
            return Err(CommandError::Syntax);
        }
    }
    let trim = options.trim(ctx.keys)?.ok_or_else(|| {
        CommandError::err("syntax error, LIMIT cannot be used without the special ~ option")
    })?;
    let key = args.at(1);
    let Some(stream) = ctx.keys.stream_mut(key)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let removed = stream.trim(trim.keep, trim.precision);
    if removed > 0 {
        let len = stream.len().to_string();
        ctx.keys.modified(key);
        ctx.keys.propagate_as(key, &[b"XTRIM", key, b"MAXLEN", b"=", len.as_bytes()]);
        ctx.keys.notify(EventClass::Stream, "xtrim", key);
    }
    ctx.out.integer(removed.cast_signed());
    Ok(Outcome::Reply)
}

/// `XLEN key`
const XLEN: DataCommand = read("xlen", xlen, 2, FAST, "5.0.0").key(1, RO);
fn xlen(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let len = ctx.keys.stream(args.at(1))?.map_or(0, Stream::len);
    ctx.out.integer(len.cast_signed());
    Ok(Outcome::Reply)
}

/// `XSETID key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]`
const XSETID: DataCommand = write("xsetid", xsetid, -3, DENYOOM | FAST, "5.0.0").key(1, RW | UPDATE);
fn xsetid(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, id) = (args.at(1), parse_id(args.at(2))?);
    let (mut added, mut max_deleted) = (None, StreamId::ZERO);
    let mut options = Cursor::new(args, 3);
    while !options.is_at_end() {
        if let Some(count) = options.value_of("entriesadded") {
            let count = u64::try_from(parse_i64_arg(count)?);
            added = Some(count.map_err(|_| CommandError::err("entries_added must be positive"))?);
        } else if let Some(deleted) = options.value_of("maxdeletedid") {
            max_deleted = parse_id(deleted)?;
            if id < max_deleted {
                return Err(CommandError::err(
                    "The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let obeys = ctx.keys.mode() == Mode::Apply;
    let stream = ctx.keys.stream_mut(key)?.ok_or(CommandError::NoSuchKey)?;
    if !obeys {
        check_ids(stream, id, added)?;
    }
    stream.set_ids(id, added, Some(max_deleted).filter(|id| *id != StreamId::ZERO));
    ctx.keys.modified_aside();
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::Stream, "xsetid", key);
    ctx.out.ok();
    Ok(Outcome::Reply)
}

fn check_ids(stream: &Stream, id: StreamId, added: Option<u64>) -> Result<(), CommandError> {
    if id < stream.max_deleted_id() {
        return Err(CommandError::err(
            "The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    let Some(last) = stream.last() else { return Ok(()) };
    if id < last.id {
        return Err(CommandError::err(
            "The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if added.is_some_and(|added| added < stream.len()) {
        return Err(CommandError::err(
            "The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    Ok(())
}
