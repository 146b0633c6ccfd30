//! Commands of the group hash: reading and writing fields.
//!
//! - [`increment`]: HINCRBY and HINCRBYFLOAT
//! - [`walk`]: HSCAN and HRANDFIELD
//! - [`times`]: HEXPIRE, HTTL and their like, HPERSIST
//! - [`timed`]: HSETEX and HGETEX
//!
//! A field that has expired is hidden; only HLEN counts it. Where a write meets one, its effect is what has come about,
//! not the request: where effects are applied nothing has expired.

mod increment;
#[cfg(test)]
mod tests;
mod timed;
mod times;
mod walk;

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, Group, INSERT, RO, RW, UPDATE, family};
use crate::{
    CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, parse_i64_arg, read, write,
};
use increment::{HINCRBY, HINCRBYFLOAT};
use keyward_store::events::EventClass;
use keyward_store::keys::Expiry;
use keyward_store::types::{Before, HashRef};
use timed::{HGETEX, HSETEX};
use times::{HEXPIRE, HEXPIREAT, HEXPIRETIME, HPERSIST, HPEXPIRE, HPEXPIREAT, HPEXPIRETIME, HPTTL, HTTL};
use walk::{HRANDFIELD, HSCAN};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 28] = family(Group::Hash, [
    HDEL, HEXISTS, HEXPIRE, HEXPIREAT, HEXPIRETIME, HGET, HGETALL, HGETDEL, HGETEX, HINCRBY, HINCRBYFLOAT,
    HKEYS, HLEN, HMGET, HMSET, HPERSIST, HPEXPIRE, HPEXPIREAT, HPEXPIRETIME, HPTTL, HRANDFIELD, HSCAN, HSET,
    HSETEX, HSETNX, HSTRLEN, HTTL, HVALS,
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
    let (mut created, mut expired) = (0, 0);
    for at in (2..args.len()).step_by(2) {
        let before = hash.put(args.at(at), args.at(at + 1), Expiry::None);
        created += usize::from(before != Before::Present);
        expired += usize::from(before == Before::Expired);
    }
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.note_expired_fields(EventClass::Hash, key, expired);
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
    let before = hash.put(field, args.at(3), Expiry::None);
    ctx.keys.modified(key);
    propagate_result(ctx, args, before, args.at(3));
    ctx.keys.notify(EventClass::Hash, "hset", key);
    ctx.out.integer(1);
    Ok(Outcome::Reply)
}

/// Leaves the effect of a request `command key field ...` that depends on what the field was: a field that had expired
/// is set to its result.
fn propagate_result(ctx: &mut DataContext<'_, '_>, args: Args<'_>, before: Before, result: &[u8]) {
    let (key, field) = (args.at(1), args.at(2));
    if before == Before::Expired {
        ctx.keys.propagate_as(key, &[b"HSET", key, field, result]);
        ctx.keys.note_expired_fields(EventClass::Hash, key, 1);
    } else {
        ctx.keys.propagate(key, args);
    }
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
    ctx.out.array(hash.map_or(0, HashRef::live_len));
    hash.into_iter().flat_map(HashRef::iter).for_each(|(name, _)| ctx.out.bulk(&name));
    Ok(Outcome::Reply)
}

/// `HVALS key`
const HVALS: DataCommand =
    read("hvals", hvals, 2, 0, "2.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn hvals(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.array(hash.map_or(0, HashRef::live_len));
    hash.into_iter().flat_map(HashRef::iter).for_each(|(_, value)| ctx.out.bulk(&value));
    Ok(Outcome::Reply)
}

/// `HGETALL key`
const HGETALL: DataCommand =
    read("hgetall", hgetall, 2, 0, "2.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn hgetall(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.map(hash.map_or(0, HashRef::live_len));
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
    let hidden = hash.as_ref().hidden_len();
    let removed: Vec<&[u8]> = args.iter().skip(2).filter(|field| hash.remove(field).is_some()).collect();
    ctx.out.len(removed.len());
    if removed.is_empty() {
        return Ok(Outcome::Reply);
    }
    if hidden == 0 {
        ctx.keys.propagate(key, args);
    } else {
        ctx.keys.propagate_as(key, &[&[b"HDEL", key], &removed[..]].concat());
    }
    fields_removed(ctx, key);
    Ok(Outcome::Reply)
}

/// `HGETDEL key FIELDS numfields field [field ...]`
const HGETDEL: DataCommand = write("hgetdel", hgetdel, -5, FAST, "9.1.0").key(1, RW | ACCESS | DELETE);
fn hgetdel(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let first = Fields::second(args)?.check(args, 1)?.first;
    let mut removed: Vec<&[u8]> = vec![b"HDEL", key];
    let mut hash = ctx.keys.hash_mut(key)?;
    ctx.out.array(args.len() - first);
    for field in args.iter().skip(first) {
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

/// Where `FIELDS numfields field ...` is in a request.
#[derive(Debug, Clone, Copy)]
struct Fields {
    /// The argument `FIELDS`.
    at: usize,
    /// The first field.
    first: usize,
}

impl Fields {
    /// The first `FIELDS` from argument `first` on that is not the last argument.
    fn find(args: Args<'_>, first: usize) -> Option<Fields> {
        let at = (first..args.len() - 1).find(|at| ascii_eq(args.at(*at), "fields"))?;
        Some(Fields { at, first: at + 2 })
    }

    /// `FIELDS` has to be argument 2.
    fn second(args: Args<'_>) -> Result<Fields, CommandError> {
        if ascii_eq(args.at(2), "fields") {
            Ok(Fields { at: 2, first: 4 })
        } else {
            Err(CommandError::Syntax)
        }
    }

    /// The number that is stated has to be that of the fields, of `words` arguments each.
    fn check(self, args: Args<'_>, words: usize) -> Result<Fields, CommandError> {
        let stated = parse_i64_arg(args.at(self.at + 1))?;
        let stated = usize::try_from(stated).ok().filter(|stated| 0 < *stated);
        let is_right = stated.and_then(|stated| stated.checked_mul(words)) == Some(args.len() - self.first);
        if is_right { Ok(self) } else { Err(number_of_fields()) }
    }
}

fn number_of_fields() -> CommandError {
    CommandError::err("numfields should be greater than 0 and match the provided number of fields")
}
