//! Strings under several keys: MGET, MSET, MSETNX, MSETEX.

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;

use super::get_set::propagate_set;
use super::options::{Condition, Optioned, Options};
use crate::expiry::ExpiryOption;
use crate::spec::{ACCESS, DENYOOM, FAST, INSERT, OW, RO, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, read, write};
use keyward_store::entry::{Entry, NewValue, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Keys};

/// `MGET key [key ...]`: a key of another type counts as missing.
pub(super) const MGET: DataCommand =
    read("mget", mget, -2, FAST, "1.0.0").keys(1, -1, 1, RO | ACCESS).tips(&["request_policy:multi_shard"]);
fn mget(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.array(args.len() - 1);
    for key in args.iter().skip(1) {
        match ctx.keys.read(key).map(Entry::value) {
            Some(ValueRef::String(value)) => ctx.out.bulk(value),
            Some(_) | None => ctx.out.null(),
        }
    }
    Ok(Outcome::Reply)
}

/// Keys and values that follow one another.
#[derive(Clone, Copy)]
struct Pairs<'a> {
    args: Args<'a>,
    first: usize,
    end: usize,
}

impl<'a> Pairs<'a> {
    /// All arguments behind the command's name.
    fn all(args: Args<'a>, command: &'static str) -> Result<Self, CommandError> {
        if args.len().is_multiple_of(2) {
            return Err(CommandError::WrongArity(command.into()));
        }
        Ok(Pairs { args, first: 1, end: args.len() })
    }

    fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        (self.first..self.end).step_by(2).map(move |at| (self.args.at(at), self.args.at(at + 1)))
    }

    /// No more than the first key that is missing is looked at.
    fn all_exist(self, keys: &mut Keys<'_>) -> bool {
        self.iter().all(|(key, _)| keys.get_mut(key).is_some())
    }

    /// No more than the first key that exists is looked at.
    fn none_exists(self, keys: &mut Keys<'_>) -> bool {
        self.iter().all(|(key, _)| keys.get_mut(key).is_none())
    }
}

/// `MSET key value [key value ...]`
pub(super) const MSET: DataCommand = write("mset", mset, -3, DENYOOM, "1.0.1")
    .keys(1, -1, 2, OW | UPDATE)
    .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]);
fn mset(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let pairs = Pairs::all(args, ctx.spec.name)?;
    store_all(ctx.keys, pairs);
    if ctx.keys.is_one_slot() {
        ctx.keys.propagate(args.at(1), args);
    } else {
        propagate_each(ctx.keys, pairs, Expiry::None);
    }
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// `MSETNX key value [key value ...]`: all or nothing.
pub(super) const MSETNX: DataCommand =
    write("msetnx", msetnx, -3, DENYOOM, "1.0.1").keys(1, -1, 2, OW | INSERT);
fn msetnx(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let pairs = Pairs::all(args, ctx.spec.name)?;
    let stored = pairs.none_exists(ctx.keys);
    if stored {
        store_all(ctx.keys, pairs);
        propagate_each(ctx.keys, pairs, Expiry::None);
    }
    ctx.out.integer(i64::from(stored));
    Ok(Outcome::Reply)
}

fn store_all(keys: &mut Keys<'_>, pairs: Pairs<'_>) {
    for (key, value) in pairs.iter() {
        keys.insert(key, NewValue::Bytes(value), Expiry::None);
        keys.modified(key);
        keys.notify(EventClass::String, "set", key);
    }
}

/// An effect of its own for each key: their slots may differ.
fn propagate_each(keys: &mut Keys<'_>, pairs: Pairs<'_>, expiry: Expiry) {
    pairs.iter().for_each(|(key, value)| propagate_set(keys, key, value, expiry));
}

/// `MSETEX numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds | EXAT seconds | PXAT
/// milliseconds | KEEPTTL]`: all or nothing. A time that has passed stores values that have expired.
pub(super) const MSETEX: DataCommand = write("msetex", msetex, -4, DENYOOM, "9.1.0")
    .counted_keys(1, 2, OW | UPDATE)
    .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]);
fn msetex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let count = parse_i64(args.at(1)).and_then(|n| i32::try_from(n).ok()).filter(|n| 0 < *n);
    let count = count.ok_or_else(|| CommandError::err("invalid numkeys value or out of range"))?;
    let end = 2 + count.unsigned_abs() as usize * 2;
    if args.len() < end {
        return Err(CommandError::Syntax);
    }
    let pairs = Pairs { args, first: 2, end };
    let options = Options::parse(args, end, Optioned::MSetEx)?;
    let expiry = match options.expiry {
        ExpiryOption::Time(time) => Expiry::At(time.positive_millis(ctx.keys.now, ctx.spec.name)?),
        ExpiryOption::Keep => Expiry::Keep,
        ExpiryOption::Unspecified | ExpiryOption::Persist => Expiry::None,
    };
    let stored = match options.condition {
        Condition::Missing => pairs.none_exists(ctx.keys),
        Condition::Present => pairs.all_exist(ctx.keys),
        // It has no conditions on values.
        Condition::Always
        | Condition::Equal(_)
        | Condition::NotEqual(_)
        | Condition::DigestEqual(_)
        | Condition::DigestNotEqual(_) => true,
    };
    if stored {
        for (key, value) in pairs.iter() {
            ctx.keys.insert(key, NewValue::Bytes(value), expiry);
            ctx.keys.modified(key);
            propagate_set(ctx.keys, key, value, expiry);
            ctx.keys.notify(EventClass::String, "set", key);
            if matches!(expiry, Expiry::At(_)) {
                ctx.keys.notify(EventClass::Generic, "expire", key);
            }
        }
    }
    ctx.out.integer(i64::from(stored));
    Ok(Outcome::Reply)
}
