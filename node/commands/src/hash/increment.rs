//! Fields as numbers: HINCRBY and HINCRBYFLOAT.

use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, LongDouble};

use super::propagate_result;
use crate::spec::{ACCESS, DENYOOM, FAST, RW, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, parse_i64_arg, write};
use keyward_store::events::EventClass;
use keyward_store::keys::Expiry;
use keyward_store::types::Before;

/// `HINCRBY key field increment`
pub(super) const HINCRBY: DataCommand =
    write("hincrby", hincrby, 4, DENYOOM | FAST, "2.0.0").key(1, RW | ACCESS | UPDATE);
fn hincrby(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, field) = (args.at(1), args.at(2));
    let increment = parse_i64_arg(args.at(3))?;
    let old = match ctx.keys.hash_mut(key)?.as_ref().and_then(|hash| hash.get(field)) {
        None => 0,
        Some(text) => parse_i64(&text).ok_or_else(|| CommandError::err("hash value is not an integer"))?,
    };
    let new = old
        .checked_add(increment)
        .ok_or_else(|| CommandError::err("increment or decrement would overflow"))?;
    let mut text = itoa::Buffer::new();
    let text = text.format(new).as_bytes();
    let before = ctx.keys.hash_or_new(key)?.put(field, text, Expiry::Keep);
    ctx.keys.modified(key);
    propagate_result(ctx, args, before, text);
    ctx.keys.notify(EventClass::Hash, "hincrby", key);
    ctx.out.integer(new);
    Ok(Outcome::Reply)
}

/// `HINCRBYFLOAT key field increment`
///
/// Its effect sets the result: the text of a sum is the same everywhere, but only here it is calculated.
pub(super) const HINCRBYFLOAT: DataCommand =
    write("hincrbyfloat", hincrbyfloat, 4, DENYOOM | FAST, "2.6.0").key(1, RW | ACCESS | UPDATE);
fn hincrbyfloat(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, field) = (args.at(1), args.at(2));
    let increment = LongDouble::parse(args.at(3)).ok_or(CommandError::NotFloat)?;
    if increment.is_infinite() {
        return Err(CommandError::err("value is NaN or Infinity"));
    }
    let old = match ctx.keys.hash_mut(key)?.as_ref().and_then(|hash| hash.get(field)) {
        None => LongDouble::ZERO,
        Some(text) => {
            LongDouble::parse(&text).ok_or_else(|| CommandError::err("hash value is not a float"))?
        }
    };
    let new = old
        .checked_add(increment)
        .ok_or_else(|| CommandError::err("increment would produce NaN or Infinity"))?
        .to_string();
    let mut hash = ctx.keys.hash_or_new(key)?;
    let before = hash.put(field, new.as_bytes(), Expiry::Keep);
    let has_time = hash.as_ref().expire_at(field).flatten().is_some();
    ctx.keys.modified(key);
    if has_time {
        let effect = [b"HSETEX", key, b"KEEPTTL", b"FIELDS", b"1", field, new.as_bytes()];
        ctx.keys.propagate_as(key, &effect);
    } else {
        ctx.keys.propagate_as(key, &[b"HSET", key, field, new.as_bytes()]);
    }
    ctx.keys.note_expired_fields(EventClass::Hash, key, usize::from(before == Before::Expired));
    ctx.keys.notify(EventClass::Hash, "hincrbyfloat", key);
    ctx.out.bulk_str(&new);
    Ok(Outcome::Reply)
}
