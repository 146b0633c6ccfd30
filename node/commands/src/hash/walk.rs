//! Fields in no order: HSCAN and HRANDFIELD.

use keyward_proto::resp::{Args, ReplyWriter};
use rand::RngCore;

use crate::scan::{self, ScanOptions, Scanned, Walk};
use crate::spec::{ACCESS, RO};
use crate::{
    CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, parse_signed_count, read,
};
use keyward_store::types::Pair;

/// `HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]`
pub(super) const HSCAN: DataCommand =
    read("hscan", hscan, -3, 0, "2.8.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn hscan(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let cursor = scan::parse_cursor(args.at(2))?;
    let Some(hash) = ctx.keys.hash(args.at(1))? else {
        scan::reply::<&[u8]>(&mut ctx.out, 0, &[]);
        return Ok(Outcome::Reply);
    };
    let options = ScanOptions::parse(args, 3, Scanned::Hash)?;
    let mut found = Vec::new();
    let walk = if hash.is_compact() { Walk::WHOLE } else { Walk::from(cursor, &options) };
    let next = walk.run(|position, visited| {
        hash.scan(position, visited, &mut |(name, value)| {
            if options.matches(&name) {
                found.push(name);
                if !options.no_values {
                    found.push(value);
                }
            }
        })
    });
    scan::reply(&mut ctx.out, next, &found);
    Ok(Outcome::Reply)
}

/// `HRANDFIELD key [count [WITHVALUES]]`
pub(super) const HRANDFIELD: DataCommand =
    read("hrandfield", hrandfield, -2, 0, "6.2.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn hrandfield(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let Some(count) = args.get(2) else {
        let field = ctx.keys.hash(key)?.and_then(|hash| hash.random(|| ctx.rng.next_u64()));
        ctx.out.optional_bulk(field.as_ref().map(|(name, _)| &**name));
        return Ok(Outcome::Reply);
    };
    let count = parse_signed_count(count)?;
    let values = match args.get(3) {
        None => Values::Without,
        Some(word) if ascii_eq(word, "withvalues") && args.len() == 4 => Values::With,
        Some(_) => return Err(CommandError::Syntax),
    };
    if values == Values::With && i64::MAX / 2 < count.abs() {
        return Err(CommandError::err("value is out of range"));
    }
    let Some(hash) = ctx.keys.hash(key)?.filter(|hash| 0 < hash.live_len()) else {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    let distance = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if 0 <= count {
        let fields = hash.sample(distance, || ctx.rng.next_u64());
        values.write_header(&mut ctx.out, fields.len());
        fields.into_iter().for_each(|field| values.write(&mut ctx.out, field));
        return Ok(Outcome::Reply);
    }
    scan::check_repeated_len(distance)?;
    values.write_header(&mut ctx.out, distance);
    let rng = &mut *ctx.rng;
    let fields = hash.repeated(distance, || rng.next_u64());
    scan::write_repeated(&mut ctx.out, fields, |out, field| values.write(out, field))?;
    Ok(Outcome::Reply)
}

/// Whether fields are returned with their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    With,
    Without,
}

impl Values {
    /// In RESP3 a field with its value is an array of its own.
    fn write_header(self, out: &mut ReplyWriter<'_>, len: usize) {
        out.array(if self == Values::With && !out.is_resp3() { len * 2 } else { len });
    }

    fn write(self, out: &mut ReplyWriter<'_>, (name, value): Pair<'_>) {
        if self == Values::With && out.is_resp3() {
            out.array(2);
        }
        out.bulk(&name);
        if self == Values::With {
            out.bulk(&value);
        }
    }
}
