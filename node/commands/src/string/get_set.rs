//! GET, SET and their variants on one key.
//!
//! The effect of a conditional SET is the unconditional one: a replica must not depend on what it finds.

use keyward_proto::resp::Args;

use super::options::{Condition, Digest, Optioned, Options};
use crate::expiry::{Base, ExpiryOption, TimeArgument, Unit};
use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, INSERT, OW, RM, RO, RW, UPDATE, VARIABLE_FLAGS};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, read, write};
use keyward_store::entry::{NewValue, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Keys};

/// `GET key`
pub(super) const GET: DataCommand = read("get", get, 2, FAST, "1.0.0").key(1, RO | ACCESS);
fn get(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.optional_bulk(ctx.keys.string(args.at(1))?);
    Ok(Outcome::Reply)
}

/// `GETDEL key`
pub(super) const GETDEL: DataCommand = write("getdel", getdel, 2, FAST, "6.2.0").key(1, RW | ACCESS | DELETE);
fn getdel(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let Some(value) = ctx.keys.string(key)? else {
        ctx.out.null();
        return Ok(Outcome::Reply);
    };
    ctx.out.bulk(value);
    delete(ctx.keys, key);
    Ok(Outcome::Reply)
}

/// `DELIFEQ key value`
pub(super) const DELIFEQ: DataCommand = write("delifeq", delifeq, 3, FAST, "9.0.0").key(1, RM | DELETE);
fn delifeq(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    delete_if(ctx, args.at(1), Condition::Equal(args.at(2)))
}

/// `DELEX key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]`, of Valkey 9.2 and Redis 8.4. Without a condition
/// it deletes a key of any type.
pub(super) const DELEX: DataCommand =
    write("delex", delex, -2, FAST, "9.2.0").key(1, RW | DELETE | VARIABLE_FLAGS);
fn delex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let mut rest = Cursor::new(args, 2);
    let condition = Condition::read(&mut rest)?.unwrap_or(Condition::Always);
    if !rest.is_at_end() {
        return Err(CommandError::Syntax);
    }
    delete_if(ctx, args.at(1), condition)
}

fn delete_if(ctx: &mut DataContext<'_, '_>, key: &[u8], condition: Condition<'_>) -> CommandResult {
    let is_deleted = holds(ctx.keys, key, condition)? && delete(ctx.keys, key);
    ctx.out.integer(i64::from(is_deleted));
    Ok(Outcome::Reply)
}

/// `DIGEST key`: of Redis 8.4. The digest of a string, for IFDEQ and IFDNE.
pub(super) const DIGEST: DataCommand = read("digest", digest, 2, FAST, "9.2.0").key(1, RO | ACCESS);
fn digest(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.string(args.at(1))? {
        Some(value) => {
            let digest = Digest::of(value).to_string();
            ctx.out.bulk(digest.as_bytes());
        }
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// Whether it was there.
fn delete(keys: &mut Keys<'_>, key: &[u8]) -> bool {
    let is_deleted = keys.remove(key).is_some();
    if is_deleted {
        keys.propagate_as(key, &[b"DEL", key]);
        keys.notify(EventClass::Generic, "del", key);
    }
    is_deleted
}

/// `GETEX key [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | PERSIST]`
pub(super) const GETEX: DataCommand = write("getex", getex, -2, FAST, "6.2.0").key(1, RW | ACCESS | UPDATE);
fn getex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let options = Options::parse(args, 2, Optioned::GetEx)?;
    let expire_at = match options.expiry {
        ExpiryOption::Time(time) => Some(time.positive_millis(ctx.keys.now, ctx.spec.name)?),
        ExpiryOption::Unspecified | ExpiryOption::Keep | ExpiryOption::Persist => None,
    };
    let Some(value) = ctx.keys.string(key)? else {
        ctx.out.null();
        return Ok(Outcome::Reply);
    };
    ctx.out.bulk(value);
    let keys = &mut *ctx.keys;
    match expire_at {
        Some(at) if keys.is_past(at) => keys.expire_now(key),
        Some(at) => {
            keys.set_expire_at(key, Some(at));
            keys.modified(key);
            propagate_expire_at(keys, key, at);
            keys.notify(EventClass::Generic, "expire", key);
        }
        None if options.expiry == ExpiryOption::Persist
            && keys.get(key).is_some_and(|e| e.expire_at().is_some()) =>
        {
            keys.set_expire_at(key, None);
            keys.modified(key);
            keys.propagate_as(key, &[b"PERSIST", key]);
            keys.notify(EventClass::Generic, "persist", key);
        }
        None => {}
    }
    Ok(Outcome::Reply)
}

fn propagate_expire_at(keys: &mut Keys<'_>, key: &[u8], at: i64) {
    keys.propagate_as(key, &[b"PEXPIREAT", key, itoa::Buffer::new().format(at).as_bytes()]);
}

/// `GETSET key value`
pub(super) const GETSET: DataCommand =
    write("getset", getset, 3, DENYOOM | FAST, "1.0.0").key(1, RW | ACCESS | UPDATE);
fn getset(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.optional_bulk(ctx.keys.string(args.at(1))?);
    store(ctx.keys, args.at(1), args.at(2), Expiry::None);
    Ok(Outcome::Reply)
}

/// `SET key value [NX | XX | IFEQ value | IFNE value | IFDEQ digest | IFDNE digest] [GET] [EX seconds | PX milliseconds |
/// EXAT seconds | PXAT milliseconds | KEEPTTL]`. IFNE and the digests are of Redis 8.4.
pub(super) const SET: DataCommand =
    write("set", set, -3, DENYOOM, "1.0.0").key(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS);
fn set(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, value) = (args.at(1), args.at(2));
    if args.len() == 3 {
        ctx.keys.insert(key, NewValue::Bytes(value), Expiry::None);
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::String, "set", key);
        ctx.out.ok();
        return Ok(Outcome::Reply);
    }
    let options = Options::parse(args, 3, Optioned::Set)?;
    let expiry = match options.expiry {
        ExpiryOption::Time(time) => Expiry::At(time.positive_millis(ctx.keys.now, ctx.spec.name)?),
        ExpiryOption::Keep => Expiry::Keep,
        ExpiryOption::Unspecified | ExpiryOption::Persist => Expiry::None,
    };
    set_with(ctx, key, value, options, expiry)
}

fn set_with(
    ctx: &mut DataContext<'_, '_>,
    key: &[u8],
    value: &[u8],
    options: Options<'_>,
    expiry: Expiry,
) -> CommandResult {
    if options.get {
        ctx.out.optional_bulk(ctx.keys.string(key)?);
    }
    if !holds(ctx.keys, key, options.condition)? {
        if !options.get {
            ctx.out.null();
        }
        return Ok(Outcome::Reply);
    }
    store(ctx.keys, key, value, expiry);
    if !options.get {
        ctx.out.ok();
    }
    Ok(Outcome::Reply)
}

fn holds(keys: &mut Keys<'_>, key: &[u8], condition: Condition<'_>) -> Result<bool, CommandError> {
    match (condition, keys.get_mut(key).map(|e| e.value())) {
        (_, None) => Ok(condition.holds_for(None)),
        (_, Some(ValueRef::String(value))) => Ok(condition.holds_for(Some(value))),
        (Condition::Always | Condition::Present, Some(_)) => Ok(true),
        (Condition::Missing, Some(_)) => Ok(false),
        (_, Some(_)) => Err(CommandError::WrongType),
    }
}

/// Stores a string, with its effect and events. One that has expired already deletes the key instead.
fn store(keys: &mut Keys<'_>, key: &[u8], value: &[u8], expiry: Expiry) {
    if let Expiry::At(at) = expiry
        && keys.is_past(at)
    {
        return keys.expire_now(key);
    }
    keys.insert(key, NewValue::Bytes(value), expiry);
    keys.modified(key);
    propagate_set(keys, key, value, expiry);
    keys.notify(EventClass::String, "set", key);
    if matches!(expiry, Expiry::At(_)) {
        keys.notify(EventClass::Generic, "expire", key);
    }
}

/// The effect of storing a string.
pub(super) fn propagate_set(keys: &mut Keys<'_>, key: &[u8], value: &[u8], expiry: Expiry) {
    match expiry {
        Expiry::None => keys.propagate_as(key, &[b"SET", key, value]),
        Expiry::Keep => keys.propagate_as(key, &[b"SET", key, value, b"KEEPTTL"]),
        Expiry::At(at) => {
            let mut number = itoa::Buffer::new();
            keys.propagate_as(key, &[b"SET", key, value, b"PXAT", number.format(at).as_bytes()]);
        }
    }
}

/// `SETNX key value`
pub(super) const SETNX: DataCommand = write("setnx", setnx, 3, DENYOOM | FAST, "1.0.0").key(1, OW | INSERT);
fn setnx(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let missing = ctx.keys.get_mut(args.at(1)).is_none();
    if missing {
        store(ctx.keys, args.at(1), args.at(2), Expiry::None);
    }
    ctx.out.integer(i64::from(missing));
    Ok(Outcome::Reply)
}

/// `SETEX key seconds value`
pub(super) const SETEX: DataCommand = write("setex", setex, 4, DENYOOM, "2.0.0").key(1, OW | UPDATE);
fn setex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_for(ctx, args, Unit::Seconds)
}

/// `PSETEX key milliseconds value`
pub(super) const PSETEX: DataCommand = write("psetex", psetex, 4, DENYOOM, "2.6.0").key(1, OW | UPDATE);
fn psetex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_for(ctx, args, Unit::Milliseconds)
}

fn set_for(ctx: &mut DataContext<'_, '_>, args: Args<'_>, unit: Unit) -> CommandResult {
    let time = TimeArgument { unit, base: Base::Now, text: args.at(2) };
    let at = time.positive_millis(ctx.keys.now, ctx.spec.name)?;
    store(ctx.keys, args.at(1), args.at(3), Expiry::At(at));
    ctx.out.ok();
    Ok(Outcome::Reply)
}
