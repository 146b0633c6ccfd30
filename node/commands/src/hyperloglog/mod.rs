//! Commands of the group hyperloglog: how many different elements there were, from 16384 registers in a string.
//!
//! The string is a key's value like any other, and clients may read and write it: its bytes are Valkey's.
//!
//! - [`registers`]: the string's bytes; [`sparse`]: those of the form for few elements
//! - [`hash`]: which register an element raises; [`estimate`]: from the registers to a number
//! - [`debug`]: PFDEBUG and PFSELFTEST

mod debug;
mod estimate;
mod hash;
mod registers;
mod sparse;

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DENYOOM, FAST, Group, INSERT, MAY_REPLICATE, RO, RW, family};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, read, write};
use debug::{PFDEBUG, PFSELFTEST};
use estimate::estimate;
use keyward_store::entry::{NewValue, Value, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Keys, Mode};
use registers::{Corrupt, Form, LEN, Registers};

/// The commands of the group.
pub(super) const COMMANDS: [DataCommand; 5] =
    family(Group::HyperLogLog, [PFADD, PFCOUNT, PFDEBUG, PFMERGE, PFSELFTEST]);

impl From<Corrupt> for CommandError {
    fn from(Corrupt: Corrupt) -> Self {
        CommandError::coded("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// A HyperLogLog, by its header: its registers may be damaged.
fn checked(value: Option<ValueRef<'_>>) -> Result<Option<&[u8]>, CommandError> {
    match value {
        None => Ok(None),
        Some(ValueRef::String(bytes)) if registers::form_of(bytes).is_some() => Ok(Some(bytes)),
        Some(ValueRef::String(_)) => {
            Err(CommandError::coded("WRONGTYPE Key is not a valid HyperLogLog string value."))
        }
        Some(_) => Err(CommandError::WrongType),
    }
}

fn reading<'k>(keys: &'k Keys<'_>, key: &[u8]) -> Result<Option<&'k [u8]>, CommandError> {
    checked(keys.read(key).map(|entry| entry.value()))
}

/// A copy, so that one that turns out to be damaged stays as it is.
fn copied(keys: &mut Keys<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, CommandError> {
    Ok(checked(keys.get_mut(key).map(|entry| entry.value()))?.map(<[u8]>::to_vec))
}

fn put(keys: &mut Keys<'_>, key: &[u8], bytes: Vec<u8>) {
    keys.insert(key, NewValue::Value(Value::raw(bytes)), Expiry::Keep);
    keys.modified(key);
}

/// `PFADD key [element ...]`: whether a register has changed, or the key is new.
///
/// Differs from Valkey: if the registers turn out to be damaged no element is added; there those before the damage was
/// met are, and replicas do not hear of them.
pub(super) const PFADD: DataCommand = write("pfadd", pfadd, -2, DENYOOM | FAST, "2.8.9").key(1, RW | INSERT);
fn pfadd(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let stored = checked(ctx.keys.get_mut(key).map(|entry| entry.value()))?;
    let is_new = stored.is_none();
    if stored.and_then(registers::form_of) == Some(Form::Dense) {
        return add_to_dense(ctx, args);
    }
    let (mut bytes, room) = (copied(ctx.keys, key)?.unwrap_or_else(registers::empty), sparse_room(ctx));
    let mut changed = is_new;
    for element in args.iter().skip(2) {
        changed |= add(&mut bytes, element, room)?;
    }
    if !changed {
        return added(ctx, args, 0);
    }
    registers::forget_estimate(&mut bytes);
    let form = registers::form_of(&bytes);
    put(ctx.keys, key, bytes);
    let done = added(ctx, args, 1);
    propagate_form(ctx.keys, key, form);
    done
}

/// Up to where the sparse form is kept. Where effects are applied the primary has decided, by its configuration: it says
/// so when one has become dense ([`propagate_form`]).
fn sparse_room(ctx: &DataContext<'_, '_>) -> usize {
    if ctx.keys.mode() == Mode::Apply { usize::MAX } else { ctx.limits.hll_sparse_bytes_max }
}

/// One that was sparse before is dense now for whoever applies the effects, too.
fn propagate_form(keys: &mut Keys<'_>, key: &[u8], form: Option<Form>) {
    if form == Some(Form::Dense) {
        keys.propagate_as(key, &[b"PFDEBUG", b"TODENSE", key]);
    }
}

/// In place: nothing of it can be damaged.
fn add_to_dense(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let entry = ctx.keys.get_mut(key).expect("it is there, under the same lock");
    let (bytes, mut changed) = (entry.raw_mut(), false);
    for element in args.iter().skip(2) {
        changed |= add(bytes, element, 0)?;
    }
    if changed {
        registers::forget_estimate(bytes);
        ctx.keys.modified(key);
    }
    added(ctx, args, changed.into())
}

fn add(bytes: &mut Vec<u8>, element: &[u8], sparse_bytes_max: usize) -> Result<bool, Corrupt> {
    let (index, rank) = registers::register_of(hash::hash(element));
    registers::raise(bytes, index, rank, sparse_bytes_max)
}

fn added(ctx: &mut DataContext<'_, '_>, args: Args<'_>, changed: i64) -> CommandResult {
    if changed != 0 {
        ctx.keys.propagate(args.at(1), args);
        ctx.keys.notify(EventClass::String, "pfadd", args.at(1));
    }
    ctx.out.integer(changed);
    Ok(Outcome::Reply)
}

/// `PFCOUNT key [key ...]`: how many different elements were added to any of them.
pub(super) const PFCOUNT: DataCommand =
    read("pfcount", pfcount, -2, MAY_REPLICATE, "2.8.9").keys(1, -1, 1, RW | ACCESS);
fn pfcount(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let count = if args.len() == 2 {
        count_one(ctx.keys, args.at(1))?
    } else {
        let (merged, _) = merged(ctx.keys, args)?;
        estimate(&registers::histogram_of(&merged))
    };
    ctx.out.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(Outcome::Reply)
}

/// The estimate is kept in the value, as clients of Valkey see it, and is an effect: a later read finds it on a replica.
fn count_one(keys: &mut Keys<'_>, key: &[u8]) -> Result<u64, CommandError> {
    let Some(bytes) = reading(keys, key)? else { return Ok(0) };
    if let Some(known) = registers::known_estimate(bytes) {
        return Ok(known);
    }
    let count = estimate(&registers::histogram(bytes)?);
    if keys.mode() != Mode::Replica
        && let Some(entry) = keys.get_mut(key)
    {
        let (at, kept) = registers::kept_estimate(count);
        entry.raw_mut()[at..at + kept.len()].copy_from_slice(&kept);
        keys.modified(key);
        keys.propagate_as(key, &[b"SETRANGE", key, b"8", &kept]);
    }
    Ok(count)
}

/// The registers of all keys together, and whether one of them is dense.
fn merged(keys: &Keys<'_>, args: Args<'_>) -> Result<(Box<Registers>, bool), CommandError> {
    let (mut merged, mut any_dense) = (Box::new([0; LEN]), false);
    for key in args.iter().skip(1) {
        let Some(bytes) = reading(keys, key)? else { continue };
        any_dense |= registers::form_of(bytes) == Some(Form::Dense);
        registers::merge(&mut merged, bytes)?;
    }
    Ok((merged, any_dense))
}

/// `PFMERGE destkey [sourcekey ...]`
pub(super) const PFMERGE: DataCommand =
    write("pfmerge", pfmerge, -2, DENYOOM, "2.8.9").key(1, RW | ACCESS | INSERT).keys(2, -1, 1, RO | ACCESS);
fn pfmerge(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let room = sparse_room(ctx);
    let (key, keys) = (args.at(1), &mut *ctx.keys);
    let (merged, any_dense) = merged(keys, args)?;
    let mut bytes = copied(keys, key)?.unwrap_or_else(registers::empty);
    if any_dense {
        registers::make_dense(&mut bytes)?;
        registers::set_all_dense(&mut bytes, &merged);
    } else {
        for (index, value) in merged.iter().enumerate().filter(|(_, value)| **value != 0) {
            registers::raise(&mut bytes, index, *value, room)?;
        }
    }
    registers::forget_estimate(&mut bytes);
    if args.iter().skip(2).all(|source| keys.same_slot(key, source)) {
        keys.propagate(key, args);
        propagate_form(keys, key, registers::form_of(&bytes).filter(|_| !any_dense));
    } else {
        keys.propagate_as(key, &[b"SET", key, &bytes, b"KEEPTTL"]);
    }
    put(keys, key, bytes);
    keys.notify(EventClass::String, "pfadd", key);
    ctx.out.ok();
    Ok(Outcome::Reply)
}

#[cfg(test)]
mod tests;
