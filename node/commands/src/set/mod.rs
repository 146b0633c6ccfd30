//! Commands of the group set: members one by one.
//!
//! - [`algebra`]: intersection, union and difference
//! - [`random`]: SPOP and SRANDMEMBER

mod algebra;
mod random;
#[cfg(test)]
mod tests;

use keyward_proto::resp::Args;

use crate::scan::{self, ScanOptions, Scanned, Walk};
use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, Group, INSERT, RO, RW, family};
use crate::{CommandResult, DataCommand, DataContext, Outcome, read, write};
use algebra::{SDIFF, SDIFFSTORE, SINTER, SINTERCARD, SINTERSTORE, SUNION, SUNIONSTORE};
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::types::SetRef;
use random::{SPOP, SRANDMEMBER};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 17] = family(Group::Set, [
    SADD, SCARD, SDIFF, SDIFFSTORE, SINTER, SINTERCARD, SINTERSTORE, SISMEMBER, SMEMBERS, SMISMEMBER,
    SMOVE, SPOP, SRANDMEMBER, SREM, SSCAN, SUNION, SUNIONSTORE,
]);

/// `SADD key member [member ...]`
const SADD: DataCommand = write("sadd", sadd, -3, DENYOOM | FAST, "1.0.0").key(1, RW | INSERT);
fn sadd(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let mut set = ctx.keys.set_or_new(key)?;
    set.prepare(args.at(2), args.len() - 2);
    let added = args.iter().skip(2).filter(|member| set.insert(member)).count();
    if added > 0 {
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::Set, "sadd", key);
    }
    ctx.out.len(added);
    Ok(Outcome::Reply)
}

/// `SREM key member [member ...]`
const SREM: DataCommand = write("srem", srem, -3, FAST, "1.0.0").key(1, RW | DELETE);
fn srem(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let Some(mut set) = ctx.keys.set_mut(key)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let removed = args.iter().skip(2).filter(|member| set.remove(member)).count();
    if removed > 0 {
        ctx.keys.propagate(key, args);
        members_removed(ctx.keys, key, "srem");
    }
    ctx.out.len(removed);
    Ok(Outcome::Reply)
}

/// `SMOVE source destination member`
const SMOVE: DataCommand =
    write("smove", smove, 4, FAST, "1.0.0").key(1, RW | ACCESS | DELETE).key(2, RW | INSERT);
fn smove(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (source, destination, member) = (args.at(1), args.at(2), args.at(3));
    let keys = &mut *ctx.keys;
    // Without a source the type of the destination does not matter.
    let Some(set) = keys.set_mut(source)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let found = set.contains(member);
    keys.set_mut(destination)?;
    ctx.out.integer(i64::from(found));
    if !found || source == destination {
        return Ok(Outcome::Reply);
    }
    if let Some(mut set) = keys.set_mut(source)? {
        set.remove(member);
    }
    members_removed(keys, source, "srem");
    let mut set = keys.set_or_new(destination)?;
    if set.is_empty() {
        set.prepare(member, 1);
    }
    let added = set.insert(member);
    if keys.same_slot(source, destination) {
        keys.propagate(source, args);
    } else {
        keys.propagate_as(source, &[b"SREM", source, member]);
        if added {
            keys.propagate_as(destination, &[b"SADD", destination, member]);
        }
    }
    if added {
        keys.modified(destination);
        keys.notify(EventClass::Set, "sadd", destination);
    }
    Ok(Outcome::Reply)
}

/// `SISMEMBER key member`
const SISMEMBER: DataCommand = read("sismember", sismember, 3, FAST, "1.0.0").key(1, RO);
fn sismember(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let found = ctx.keys.set(args.at(1))?.is_some_and(|set| set.contains(args.at(2)));
    ctx.out.integer(i64::from(found));
    Ok(Outcome::Reply)
}

/// `SMISMEMBER key member [member ...]`
const SMISMEMBER: DataCommand = read("smismember", smismember, -3, FAST, "6.2.0").key(1, RO | ACCESS);
fn smismember(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let set = ctx.keys.set(args.at(1))?;
    ctx.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        ctx.out.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(Outcome::Reply)
}

/// `SCARD key`
const SCARD: DataCommand = read("scard", scard, 2, FAST, "1.0.0").key(1, RO);
fn scard(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.len(ctx.keys.set(args.at(1))?.map_or(0, SetRef::len));
    Ok(Outcome::Reply)
}

/// `SMEMBERS key`
const SMEMBERS: DataCommand =
    read("smembers", smembers, 2, 0, "1.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn smembers(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let set = ctx.keys.set(args.at(1))?;
    ctx.out.set(set.map_or(0, SetRef::len));
    set.into_iter().flat_map(SetRef::iter).for_each(|member| ctx.out.bulk(&member));
    Ok(Outcome::Reply)
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`
const SSCAN: DataCommand =
    read("sscan", sscan, -3, 0, "2.8.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn sscan(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let cursor = scan::parse_cursor(args.at(2))?;
    let Some(set) = ctx.keys.set(args.at(1))? else {
        scan::reply::<&[u8]>(&mut ctx.out, 0, &[]);
        return Ok(Outcome::Reply);
    };
    let options = ScanOptions::parse(args, 3, Scanned::Other)?;
    let mut found = Vec::new();
    let walk = if set.is_compact() { Walk::WHOLE } else { Walk::from(cursor, &options) };
    let next = walk.run(|position, visited| {
        set.scan(position, &mut |member| {
            *visited += 1;
            if options.matches(&member) {
                found.push(member);
            }
        })
    });
    scan::reply(&mut ctx.out, next, &found);
    Ok(Outcome::Reply)
}

/// What follows the removal of members, but the effect: an empty set is deleted.
fn members_removed(keys: &mut Keys<'_>, key: &[u8], event: &'static str) {
    keys.notify(EventClass::Set, event, key);
    if !keys.remove_if_empty(key) {
        keys.modified(key);
    }
}
