//! Commands of the group list: adding, reading and changing elements in place.
//!
//! - [`pop`]: taking elements off an end, also waiting for them
//! - [`transfer`]: from one list to another, also waiting
//! - [`position`]: where elements are (LPOS)

mod pop;
mod position;
#[cfg(test)]
mod tests;
mod transfer;

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, Group, INSERT, RO, RW, UPDATE, family};
use crate::{
    CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, index_range, read, write,
};
use crate::{parse_i64_arg, parse_signed_count};
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::types::{End, ListRef, Side};
use pop::{BLMPOP, BLPOP, BRPOP, LMPOP, LPOP, RPOP};
use position::LPOS;
use transfer::{BLMOVE, BRPOPLPUSH, LMOVE, RPOPLPUSH};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 22] = family(Group::List, [
    BLMOVE, BLMPOP, BLPOP, BRPOP, BRPOPLPUSH, LINDEX, LINSERT, LLEN, LMOVE, LMPOP, LPOP, LPOS, LPUSH,
    LPUSHX, LRANGE, LREM, LSET, LTRIM, RPOP, RPOPLPUSH, RPUSH, RPUSHX,
]);

/// `LPUSH key element [element ...]`
const LPUSH: DataCommand = write("lpush", lpush, -3, DENYOOM | FAST, "1.0.0").key(1, RW | INSERT);
fn lpush(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    push(ctx, args, End::Left)
}

/// `RPUSH key element [element ...]`
const RPUSH: DataCommand = write("rpush", rpush, -3, DENYOOM | FAST, "1.0.0").key(1, RW | INSERT);
fn rpush(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    push(ctx, args, End::Right)
}

/// `LPUSHX key element [element ...]`
const LPUSHX: DataCommand = write("lpushx", lpushx, -3, DENYOOM | FAST, "2.2.0").key(1, RW | INSERT);
fn lpushx(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    push_existing(ctx, args, End::Left)
}

/// `RPUSHX key element [element ...]`
const RPUSHX: DataCommand = write("rpushx", rpushx, -3, DENYOOM | FAST, "2.2.0").key(1, RW | INSERT);
fn rpushx(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    push_existing(ctx, args, End::Right)
}

fn push_existing(ctx: &mut DataContext<'_, '_>, args: Args<'_>, end: End) -> CommandResult {
    if ctx.keys.list_mut(args.at(1))?.is_none() {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    }
    push(ctx, args, end)
}

fn push(ctx: &mut DataContext<'_, '_>, args: Args<'_>, end: End) -> CommandResult {
    let key = args.at(1);
    let mut list = ctx.keys.list_or_new(key)?;
    list.prepare(args.iter().skip(2));
    args.iter().skip(2).for_each(|element| list.push(end, element));
    let len = list.len();
    ctx.keys.modified(key);
    ctx.keys.signal_ready(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::List, pushed_event(end), key);
    ctx.out.len(len);
    Ok(Outcome::Reply)
}

/// `LINSERT key BEFORE|AFTER pivot element`
const LINSERT: DataCommand = write("linsert", linsert, 5, DENYOOM, "2.2.0").key(1, RW | INSERT);
fn linsert(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, pivot) = (args.at(1), args.at(3));
    let side = match args.at(2) {
        word if ascii_eq(word, "before") => Side::Before,
        word if ascii_eq(word, "after") => Side::After,
        _ => return Err(CommandError::Syntax),
    };
    let Some(mut list) = ctx.keys.list_mut(key)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    // As in Valkey, even if there is no pivot.
    list.prepare(std::iter::once(args.at(4)));
    let Some(index) = list.as_ref().iter().position(|e| *e == *pivot) else {
        ctx.out.integer(-1);
        return Ok(Outcome::Reply);
    };
    list.insert(index, side, args.at(4));
    let len = list.len();
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::List, "linsert", key);
    ctx.out.len(len);
    Ok(Outcome::Reply)
}

/// `LLEN key`
const LLEN: DataCommand = read("llen", llen, 2, FAST, "1.0.0").key(1, RO);
fn llen(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.len(ctx.keys.list(args.at(1))?.map_or(0, ListRef::len));
    Ok(Outcome::Reply)
}

/// `LINDEX key index`
const LINDEX: DataCommand = read("lindex", lindex, 3, 0, "1.0.0").key(1, RO | ACCESS);
fn lindex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let element = match ctx.keys.list(args.at(1))? {
        None => None,
        Some(list) => element_index(parse_i64_arg(args.at(2))?, list.len()).and_then(|i| list.get(i)),
    };
    ctx.out.optional_bulk(element.as_deref());
    Ok(Outcome::Reply)
}

/// `LSET key index element`
const LSET: DataCommand = write("lset", lset, 4, DENYOOM, "1.0.0").key(1, RW | UPDATE);
fn lset(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let mut list = ctx.keys.list_mut(key)?.ok_or(CommandError::NoSuchKey)?;
    let index = element_index(parse_i64_arg(args.at(2))?, list.len());
    // As in Valkey, even if there is no such element.
    list.prepare(std::iter::once(args.at(3)));
    let index = index.filter(|i| *i < list.len()).ok_or(CommandError::IndexOutOfRange)?;
    list.set(index, args.at(3));
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::List, "lset", key);
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// The place that an index means, negative ones counted from the end. It may lie beyond the end.
fn element_index(index: i64, len: usize) -> Option<usize> {
    let distance = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 { len.checked_sub(distance) } else { Some(distance) }
}

/// `LRANGE key start stop`
const LRANGE: DataCommand = read("lrange", lrange, 4, 0, "1.0.0").key(1, RO | ACCESS);
fn lrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (start, end) = (parse_i64_arg(args.at(2))?, parse_i64_arg(args.at(3))?);
    let Some(list) = ctx.keys.list(args.at(1))? else {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    let range = index_range(start, end, list.len());
    ctx.out.array(range.len());
    list.range(range.start, range.end).for_each(|element| ctx.out.bulk(&element));
    Ok(Outcome::Reply)
}

/// `LTRIM key start stop`
const LTRIM: DataCommand = write("ltrim", ltrim, 4, 0, "1.0.0").key(1, RW | DELETE);
fn ltrim(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let (start, end) = (parse_i64_arg(args.at(2))?, parse_i64_arg(args.at(3))?);
    let Some(mut list) = ctx.keys.list_mut(key)? else {
        ctx.out.ok();
        return Ok(Outcome::Reply);
    };
    let len = list.len();
    let range = index_range(start, end, len);
    let changed = range.len() < len;
    list.drop_at_end(End::Right, len - range.end);
    list.drop_at_end(End::Left, range.start);
    if changed {
        ctx.keys.propagate(key, args);
    }
    elements_removed(ctx.keys, key, "ltrim");
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// `LREM key count element`
const LREM: DataCommand = write("lrem", lrem, 4, 0, "1.0.0").key(1, RW | DELETE);
fn lrem(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let count = parse_signed_count(args.at(2))?;
    let Some(mut list) = ctx.keys.list_mut(key)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let end = if count < 0 { End::Right } else { End::Left };
    let count_max = match count {
        0 => usize::MAX,
        _ => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
    };
    let removed = list.remove_equal(end, args.at(3), count_max);
    if removed > 0 {
        ctx.keys.propagate(key, args);
        elements_removed(ctx.keys, key, "lrem");
    }
    ctx.out.len(removed);
    Ok(Outcome::Reply)
}

/// What follows the removal of elements, but the effect: an empty list is deleted, a short one becomes compact.
fn elements_removed(keys: &mut Keys<'_>, key: &[u8], event: &'static str) {
    keys.notify(EventClass::List, event, key);
    if keys.remove_if_empty(key) {
        return;
    }
    if let Ok(Some(mut list)) = keys.list_mut(key) {
        list.shrink();
    }
    keys.modified(key);
}

fn pushed_event(end: End) -> &'static str {
    match end {
        End::Left => "lpush",
        End::Right => "rpush",
    }
}

fn popped_event(end: End) -> &'static str {
    match end {
        End::Left => "lpop",
        End::Right => "rpop",
    }
}

/// `LEFT|RIGHT`
fn parse_end(argument: &[u8]) -> Result<End, CommandError> {
    match argument {
        word if ascii_eq(word, "left") => Ok(End::Left),
        word if ascii_eq(word, "right") => Ok(End::Right),
        _ => Err(CommandError::Syntax),
    }
}
