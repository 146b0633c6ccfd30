//! Numbers in strings: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, LongDouble};

use super::get_set::propagate_set;
use crate::spec::{ACCESS, DENYOOM, FAST, RW, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, parse_i64_arg, write};
use keyward_store::entry::{NewValue, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::Expiry;

/// `INCR key`
pub(super) const INCR: DataCommand =
    write("incr", incr, 2, DENYOOM | FAST, "1.0.0").key(1, RW | ACCESS | UPDATE);
fn incr(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    increment(ctx, args, 1)
}

/// `DECR key`
pub(super) const DECR: DataCommand =
    write("decr", decr, 2, DENYOOM | FAST, "1.0.0").key(1, RW | ACCESS | UPDATE);
fn decr(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    increment(ctx, args, -1)
}

/// `INCRBY key increment`
pub(super) const INCRBY: DataCommand =
    write("incrby", incrby, 3, DENYOOM | FAST, "1.0.0").key(1, RW | ACCESS | UPDATE);
fn incrby(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let by = parse_i64_arg(args.at(2))?;
    increment(ctx, args, by)
}

/// `DECRBY key decrement`
pub(super) const DECRBY: DataCommand =
    write("decrby", decrby, 3, DENYOOM | FAST, "1.0.0").key(1, RW | ACCESS | UPDATE);
fn decrby(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let by = parse_i64_arg(args.at(2))?;
    let by = by.checked_neg().ok_or_else(|| CommandError::err("decrement would overflow"))?;
    increment(ctx, args, by)
}

fn increment(ctx: &mut DataContext<'_, '_>, args: Args<'_>, by: i64) -> CommandResult {
    let key = args.at(1);
    let mut text = itoa::Buffer::new();
    let new = match ctx.keys.get_mut(key) {
        None => {
            ctx.keys.insert(key, NewValue::Bytes(text.format(by).as_bytes()), Expiry::None);
            by
        }
        Some(entry) => {
            let ValueRef::String(old) = entry.value() else { return Err(CommandError::WrongType) };
            let old = parse_i64(old).ok_or(CommandError::NotInteger)?;
            let new = old.checked_add(by);
            let new = new.ok_or_else(|| CommandError::err("increment or decrement would overflow"))?;
            entry.set_bytes(text.format(new).as_bytes());
            new
        }
    };
    ctx.keys.modified(key);
    ctx.keys.propagate(key, args);
    ctx.keys.notify(EventClass::String, "incrby", key);
    ctx.out.integer(new);
    Ok(Outcome::Reply)
}

/// `INCRBYFLOAT key increment`: the effect is the sum.
pub(super) const INCRBYFLOAT: DataCommand =
    write("incrbyfloat", incrbyfloat, 3, DENYOOM | FAST, "2.6.0").key(1, RW | ACCESS | UPDATE);
fn incrbyfloat(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let old = match ctx.keys.get_mut(key).map(|e| e.value()) {
        None => LongDouble::ZERO,
        Some(ValueRef::String(old)) => LongDouble::parse(old).ok_or(CommandError::NotFloat)?,
        Some(_) => return Err(CommandError::WrongType),
    };
    let by = LongDouble::parse(args.at(2)).ok_or(CommandError::NotFloat)?;
    let sum = old
        .checked_add(by)
        .ok_or_else(|| CommandError::err("increment would produce NaN or Infinity"))?
        .to_string();
    ctx.keys.insert(key, NewValue::Bytes(sum.as_bytes()), Expiry::Keep);
    if let Some(entry) = ctx.keys.get_mut(key) {
        entry.set_not_integer();
    }
    ctx.keys.modified(key);
    propagate_set(ctx.keys, key, sum.as_bytes(), Expiry::Keep);
    ctx.keys.notify(EventClass::String, "incrbyfloat", key);
    ctx.out.bulk_str(&sum);
    Ok(Outcome::Reply)
}
