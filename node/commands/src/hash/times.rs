//! The times of fields: HEXPIRE and its like, HTTL and its like, HPERSIST. The effect is always an absolute time, without
//! conditions.

use keyward_proto::resp::Args;

use super::{Fields, number_of_fields};
use crate::expiry::{Base, Conditions, TimeArgument, Unit, rounded_seconds};
use crate::spec::{ACCESS, FAST, RO, RW, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, read, write};
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;

// What is replied of a field.
const NO_FIELD: i64 = -2;
const NO_TIME: i64 = -1;
const CONDITION_FAILED: i64 = 0;
const DONE: i64 = 1;
const DELETED: i64 = 2;

/// `HEXPIRE key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
pub(super) const HEXPIRE: DataCommand = write("hexpire", hexpire, -6, FAST, "9.0.0").key(1, RW | UPDATE);
fn hexpire(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_times(ctx, args, Unit::Seconds, Base::Now)
}

/// `HPEXPIRE key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
pub(super) const HPEXPIRE: DataCommand = write("hpexpire", hpexpire, -6, FAST, "9.0.0").key(1, RW | UPDATE);
fn hpexpire(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_times(ctx, args, Unit::Milliseconds, Base::Now)
}

/// `HEXPIREAT key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
pub(super) const HEXPIREAT: DataCommand =
    write("hexpireat", hexpireat, -6, FAST, "9.0.0").key(1, RW | UPDATE);
fn hexpireat(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_times(ctx, args, Unit::Seconds, Base::Epoch)
}

/// `HPEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
pub(super) const HPEXPIREAT: DataCommand =
    write("hpexpireat", hpexpireat, -6, FAST, "9.0.0").key(1, RW | UPDATE);
fn hpexpireat(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    set_times(ctx, args, Unit::Milliseconds, Base::Epoch)
}

/// A time that has passed deletes the fields.
fn set_times(ctx: &mut DataContext<'_, '_>, args: Args<'_>, unit: Unit, base: Base) -> CommandResult {
    const FIRST_OPTION: usize = 3;
    let key = args.at(1);
    let fields = Fields::find(args, FIRST_OPTION).ok_or_else(number_of_fields)?;
    let conditions = Conditions::parse(args.iter().take(fields.at).skip(FIRST_OPTION))?;
    let fields = fields.check(args, 1)?;
    let time = TimeArgument { unit, base, text: args.at(2) };
    let at = time.not_negative_millis(ctx.keys.now, ctx.spec.name)?;
    let is_past = ctx.keys.is_past(at);
    let mut changed: Vec<&[u8]> = Vec::new();
    let mut hash = ctx.keys.volatile_hash_mut(key)?;
    ctx.out.array(args.len() - fields.first);
    for field in args.iter().skip(fields.first) {
        let reply = match hash.as_mut().and_then(|hash| Some((hash.as_ref().expire_at(field)?, hash))) {
            None => NO_FIELD,
            Some((old, _)) if !conditions.hold(old, at) => CONDITION_FAILED,
            Some((_, hash)) => {
                changed.push(field);
                if is_past {
                    hash.remove(field);
                    DELETED
                } else {
                    hash.set_time(field, Some(at));
                    DONE
                }
            }
        };
        ctx.out.integer(reply);
    }
    if changed.is_empty() {
        return Ok(Outcome::Reply);
    }
    if is_past {
        ctx.keys.note_expired_fields(EventClass::Hash, key, changed.len());
        ctx.keys.fields_deleted(key, &changed);
    } else {
        times_set(ctx.keys, key, at, &changed);
    }
    Ok(Outcome::Reply)
}

/// What follows when fields have got a time.
pub(super) fn times_set(keys: &mut Keys<'_>, key: &[u8], at: i64, fields: &[&[u8]]) {
    let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    let head: [&[u8]; 5] =
        [b"HPEXPIREAT", key, time.format(at).as_bytes(), b"FIELDS", count.format(fields.len()).as_bytes()];
    keys.propagate_as(key, &[&head, fields].concat());
    keys.modified(key);
    keys.notify(EventClass::Hash, "hexpire", key);
}

/// `HPERSIST key FIELDS numfields field [field ...]`
pub(super) const HPERSIST: DataCommand = write("hpersist", hpersist, -5, FAST, "9.0.0").key(1, RW | UPDATE);
fn hpersist(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let first = Fields::second(args)?.check(args, 1)?.first;
    let mut changed: Vec<&[u8]> = Vec::new();
    let mut hash = ctx.keys.hash_mut(key)?;
    ctx.out.array(args.len() - first);
    for field in args.iter().skip(first) {
        let reply = match hash.as_mut().and_then(|hash| Some((hash.as_ref().expire_at(field)?, hash))) {
            None => NO_FIELD,
            Some((None, _)) => NO_TIME,
            Some((Some(_), hash)) => {
                hash.set_time(field, None);
                changed.push(field);
                DONE
            }
        };
        ctx.out.integer(reply);
    }
    if !changed.is_empty() {
        times_removed(ctx.keys, key, &changed);
    }
    Ok(Outcome::Reply)
}

/// What follows when fields have lost their times.
pub(super) fn times_removed(keys: &mut Keys<'_>, key: &[u8], fields: &[&[u8]]) {
    let mut count = itoa::Buffer::new();
    let head: [&[u8]; 4] = [b"HPERSIST", key, b"FIELDS", count.format(fields.len()).as_bytes()];
    keys.propagate_as(key, &[&head, fields].concat());
    keys.modified(key);
    keys.notify(EventClass::Hash, "hpersist", key);
}

/// `HTTL key FIELDS numfields field [field ...]`
pub(super) const HTTL: DataCommand = read("httl", httl, -5, FAST, "9.0.0").key(1, RO | ACCESS);
fn httl(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let now = ctx.keys.now;
    read_times(ctx, args, |at| rounded_seconds(at.saturating_sub(now).max(0)))
}

/// `HPTTL key FIELDS numfields field [field ...]`
pub(super) const HPTTL: DataCommand = read("hpttl", hpttl, -5, FAST, "9.0.0").key(1, RO | ACCESS);
fn hpttl(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let now = ctx.keys.now;
    read_times(ctx, args, |at| at.saturating_sub(now).max(0))
}

/// `HEXPIRETIME key FIELDS numfields field [field ...]`
pub(super) const HEXPIRETIME: DataCommand =
    read("hexpiretime", hexpiretime, -5, FAST, "9.0.0").key(1, RO | ACCESS);
fn hexpiretime(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    read_times(ctx, args, rounded_seconds)
}

/// `HPEXPIRETIME key FIELDS numfields field [field ...]`
pub(super) const HPEXPIRETIME: DataCommand =
    read("hpexpiretime", hpexpiretime, -5, FAST, "9.0.0").key(1, RO | ACCESS);
fn hpexpiretime(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    read_times(ctx, args, |at| at)
}

fn read_times(ctx: &mut DataContext<'_, '_>, args: Args<'_>, value: impl Fn(i64) -> i64) -> CommandResult {
    let fields = Fields::second(args)?.check(args, 1).map_err(|error| match error {
        CommandError::NotInteger => error,
        _ => CommandError::Syntax,
    })?;
    let hash = ctx.keys.hash(args.at(1))?;
    ctx.out.array(args.len() - fields.first);
    for field in args.iter().skip(fields.first) {
        ctx.out.integer(match hash.and_then(|hash| hash.expire_at(field)) {
            None => NO_FIELD,
            Some(at) => at.map_or(NO_TIME, &value),
        });
    }
    Ok(Outcome::Reply)
}
