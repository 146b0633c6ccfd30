//! Setting and reading expiries. The effect is always an absolute time, without conditions.

use keyward_proto::resp::Args;

use crate::expiry::{Base, Conditions, TimeArgument, Unit, rounded_seconds};
use crate::spec::{ACCESS, FAST, RO, RW, UPDATE};
use crate::{CommandResult, DataCommand, DataContext, Outcome, read, write};
use keyward_store::events::EventClass;

/// `EXPIRE key seconds [NX | XX | GT | LT]`
pub(super) const EXPIRE: DataCommand = write("expire", expire, -3, FAST, "1.0.0").key(1, RW | UPDATE);
fn expire(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_expiry(ctx, args, Unit::Seconds, Base::Now)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
pub(super) const PEXPIRE: DataCommand = write("pexpire", pexpire, -3, FAST, "2.6.0").key(1, RW | UPDATE);
fn pexpire(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_expiry(ctx, args, Unit::Milliseconds, Base::Now)
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`
pub(super) const EXPIREAT: DataCommand = write("expireat", expireat, -3, FAST, "1.2.0").key(1, RW | UPDATE);
fn expireat(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_expiry(ctx, args, Unit::Seconds, Base::Epoch)
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`
pub(super) const PEXPIREAT: DataCommand =
    write("pexpireat", pexpireat, -3, FAST, "2.6.0").key(1, RW | UPDATE);
fn pexpireat(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_expiry(ctx, args, Unit::Milliseconds, Base::Epoch)
}

/// A time that has passed deletes the key.
fn set_expiry(ctx: &mut DataContext<'_, '_>, args: Args<'_>, unit: Unit, base: Base) -> CommandResult {
    let key = args.at(1);
    let conditions = Conditions::parse(args.iter().skip(3))?;
    let at = TimeArgument { unit, base, text: args.at(2) }.any_millis(ctx.keys.now, ctx.spec.name)?;
    let keys = &mut *ctx.keys;
    let set = keys.get_mut(key).is_some_and(|entry| conditions.hold(entry.expire_at(), at));
    if set && keys.is_past(at) {
        keys.expire_now(key);
    } else if set {
        keys.set_expire_at(key, Some(at));
        keys.modified(key);
        keys.propagate_as(key, &[b"PEXPIREAT", key, itoa::Buffer::new().format(at).as_bytes()]);
        keys.notify(EventClass::Generic, "expire", key);
    }
    ctx.out.integer(i64::from(set));
    Ok(Outcome::Reply)
}

/// `PERSIST key`
pub(super) const PERSIST: DataCommand = write("persist", persist, 2, FAST, "2.2.0").key(1, RW | UPDATE);
fn persist(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let had = ctx.keys.get_mut(key).is_some_and(|entry| entry.expire_at().is_some());
    if had {
        ctx.keys.set_expire_at(key, None);
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::Generic, "persist", key);
    }
    ctx.out.integer(i64::from(had));
    Ok(Outcome::Reply)
}

/// `TTL key`
pub(super) const TTL: DataCommand =
    read("ttl", ttl, 2, FAST, "1.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn ttl(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let now = ctx.keys.now;
    read_expiry(ctx, args, |at| rounded_seconds((at - now).max(0)))
}

/// `PTTL key`
pub(super) const PTTL: DataCommand =
    read("pttl", pttl, 2, FAST, "2.6.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn pttl(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let now = ctx.keys.now;
    read_expiry(ctx, args, |at| at - now)
}

/// `EXPIRETIME key`
pub(super) const EXPIRETIME: DataCommand =
    read("expiretime", expiretime, 2, FAST, "7.0.0").key(1, RO | ACCESS);
fn expiretime(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    read_expiry(ctx, args, rounded_seconds)
}

/// `PEXPIRETIME key`
pub(super) const PEXPIRETIME: DataCommand =
    read("pexpiretime", pexpiretime, 2, FAST, "7.0.0").key(1, RO | ACCESS);
fn pexpiretime(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    read_expiry(ctx, args, |at| at)
}

/// -2: there is no such key; -1: it has no expiry.
fn read_expiry(ctx: &mut DataContext<'_, '_>, args: Args<'_>, value: impl Fn(i64) -> i64) -> CommandResult {
    ctx.out.integer(match ctx.keys.peek(args.at(1)) {
        None => -2,
        Some(entry) => entry.expire_at().map_or(-1, |at| value(at).max(0)),
    });
    Ok(Outcome::Reply)
}
