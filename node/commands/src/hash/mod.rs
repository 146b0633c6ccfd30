//! Commands of the group hash: reading and writing fields.
//!
//! - [`increment`]: HINCRBY and HINCRBYFLOAT
//! - [`walk`]: HSCAN and HRANDFIELD

mod increment;
#[cfg(test)]
mod tests;
mod walk;

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, Group, INSERT, RO, RW, UPDATE, family};
use crate::{
    CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, parse_i64_arg, read, write,
};
use increment::{HINCRBY, HINCRBYFLOAT};
use keyward_store::events::EventClass;
use keyward_store::types::HashRef;
use walk::{HRANDFIELD, HSCAN};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 17] = family(Group::Hash, [
    HDEL, HEXISTS, HGET, HGETALL, HGETDEL, HINCRBY, HINCRBYFLOAT, HKEYS, HLEN, HMGET, HMSET, HRANDFIELD,
    HSCAN, HSET, HSETNX, HSTRLEN, HVALS,
]);

/// `HSET key field value [field value ...]`
const HSET: DataCommand = write("hset", hset, -4, DENYOOM | FAST, "2.0.0").key(1, RW | UPDATE);
fn hset(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let created = set_fields(ctx, args)?;
    ctx.out.len(created);
    Ok(Outcome::Reply)
}

/// `HMSET key field value [field value ...]`
const HMSET: DataCommand = write("hmset", hmset, -4, DENYOOM | FAST, "2.0.0").key(1, RW | UPDATE);
fn hmset(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_fields(ctx, args)?;
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// Returns how many fields are new.
fn set_fields(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> Result<usize, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(ctx.spec.name.into()));
    }
    let key = args.at(1);
    let mut hash = ctx.keys.hash_or_new(key)?;
    hash.prepare(args.iter().skip(2));
    let pairs = (2..args.len()).step_by(2);
    let created = pairs.filter(|at| hash.set(args.at(*at), args.at(at + 1))).count();
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::Hash, "hset", key);
    Ok(created)
}

/// `HSETNX key field value`
const HSETNX: DataCommand = write("hsetnx", hsetnx, 4, DENYOOM | FAST, "2.0.0").key(1, RW | INSERT);
fn hsetnx(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, field) = (args.at(1), args.at(2));
    let mut hash = ctx.keys.hash_or_new(key)?;
    if hash.contains(field) {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    }
    hash.prepare(args.iter().skip(2));
    hash.set(field, args.at(3));
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::Hash, "hset", key);
    ctx.out.integer(1);
    Ok(Outcome::Reply)
}

/// `HGET key field`
const HGET: DataCommand = read("hget", hget, 3, FAST, "2.0.0").key(1, RO | ACCESS);
fn hget(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let value = ctx.keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    ctx.out.optional_bulk(value.as_deref());
    Ok(Outcome::Reply)
}

/// `HMGET key field [field ...]`
const HMGET: DataCommand = read("hmget", hmget, -3, FAST, "2.0.0").key(1, RO | ACCESS);
fn hmget(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.array(args.len() - 2);
    for field in args.iter().skip(2) {
        ctx.out.optional_bulk(hash.and_then(|hash| hash.get(field)).as_deref());
    }
    Ok(Outcome::Reply)
}

/// `HEXISTS key field`
const HEXISTS: DataCommand = read("hexists", hexists, 3, FAST, "2.0.0").key(1, RO);
fn hexists(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let found = ctx.keys.hash(args.at(1))?.is_some_and(|hash| hash.contains(args.at(2)));
    ctx.out.integer(i64::from(found));
    Ok(Outcome::Reply)
}

/// `HLEN key`
const HLEN: DataCommand = read("hlen", hlen, 2, FAST, "2.0.0").key(1, RO);
fn hlen(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.len(ctx.keys.hash(args.at(1))?.map_or(0, HashRef::len));
    Ok(Outcome::Reply)
}

/// `HSTRLEN key field`
const HSTRLEN: DataCommand = read("hstrlen", hstrlen, 3, FAST, "3.2.0").key(1, RO);
fn hstrlen(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let value = ctx.keys.hash(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    ctx.out.len(value.map_or(0, |value| value.len()));
    Ok(Outcome::Reply)
}

/// `HKEYS key`
const HKEYS: DataCommand =
    read("hkeys", hkeys, 2, 0, "2.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn hkeys(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.array(hash.map_or(0, HashRef::len));
    hash.into_iter().flat_map(HashRef::iter).for_each(|(name, _)| ctx.out.bulk(&name));
    Ok(Outcome::Reply)
}

/// `HVALS key`
const HVALS: DataCommand =
    read("hvals", hvals, 2, 0, "2.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn hvals(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.array(hash.map_or(0, HashRef::len));
    hash.into_iter().flat_map(HashRef::iter).for_each(|(_, value)| ctx.out.bulk(&value));
    Ok(Outcome::Reply)
}

/// `HGETALL key`
const HGETALL: DataCommand =
    read("hgetall", hgetall, 2, 0, "2.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn hgetall(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.map(hash.map_or(0, HashRef::len));
    for (name, value) in hash.into_iter().flat_map(HashRef::iter) {
        ctx.out.bulk(&name);
        ctx.out.bulk(&value);
    }
    Ok(Outcome::Reply)
}

/// `HDEL key field [field ...]`
const HDEL: DataCommand = write("hdel", hdel, -3, FAST, "2.0.0").key(1, RW | DELETE);
fn hdel(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let Some(mut hash) = ctx.keys.hash_mut(key)? else {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    };
    let removed = args.iter().skip(2).filter(|field| hash.remove(field).is_some()).count();
    if removed > 0 {
        ctx.keys.propagate(key, args);
        fields_removed(ctx, key);
    }
    ctx.out.len(removed);
    Ok(Outcome::Reply)
}

/// `HGETDEL key FIELDS numfields field [field ...]`
const HGETDEL: DataCommand = write("hgetdel", hgetdel, -5, FAST, "9.1.0").key(1, RW | ACCESS | DELETE);
fn hgetdel(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    const FIRST_FIELD: usize = 4;
    let key = args.at(1);
    if !ascii_eq(args.at(2), "fields") {
        return Err(CommandError::Syntax);
    }
    let count = args.len() - FIRST_FIELD;
    let stated = parse_i64_arg(args.at(3))?;
    if usize::try_from(stated) != Ok(count) {
        return Err(CommandError::err(
            "numfields should be greater than 0 and match the provided number of fields",
        ));
    }
    let fields = args.iter().skip(FIRST_FIELD);
    let mut removed: Vec<&[u8]> = vec![b"HDEL", key];
    let mut hash = ctx.keys.hash_mut(key)?;
    ctx.out.array(count);
    for field in fields {
        let value = hash.as_mut().and_then(|hash| hash.remove(field));
        ctx.out.optional_bulk(value.as_deref());
        if value.is_some() {
            removed.push(field);
        }
    }
    if removed.len() > 2 {
        ctx.keys.propagate_as(key, &removed);
        fields_removed(ctx, key);
    }
    Ok(Outcome::Reply)
}

/// What follows the removal of fields, but the effect: an empty hash is deleted.
fn fields_removed(ctx: &mut DataContext<'_, '_>, key: &[u8]) {
    ctx.keys.notify(EventClass::Hash, "hdel", key);
    if !ctx.keys.remove_if_empty(key) {
        ctx.keys.modified(key);
    }
}
