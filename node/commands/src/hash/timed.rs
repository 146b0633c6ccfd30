//! Fields and their times at once: HSETEX and HGETEX.

use keyward_proto::resp::Args;

use super::times::{times_removed, times_set};
use super::{Fields, number_of_fields};
use crate::expiry::ExpiryOption;
use crate::spec::{ACCESS, DENYOOM, FAST, INSERT, RW, UPDATE};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, write};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Keys};
use keyward_store::types::Before;

/// The argument at which options begin.
const FIRST_OPTION: usize = 2;

/// What must be there or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    /// NX, or FNX of any field
    Missing,
    /// XX, or FXX of all fields
    Present,
}

impl Condition {
    /// It may be repeated.
    fn set(&mut self, new: Condition) -> Result<(), CommandError> {
        if *self != Condition::Always && *self != new {
            return Err(CommandError::Syntax);
        }
        *self = new;
        Ok(())
    }
}

/// `HSETEX key [NX | XX] [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds |
/// PXAT unix-time-milliseconds | KEEPTTL] FIELDS numfields field value [field value ...]`
pub(super) const HSETEX: DataCommand =
    write("hsetex", hsetex, -6, DENYOOM | FAST, "9.0.0").key(1, RW | INSERT);
fn hsetex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let fields = Fields::find(args, FIRST_OPTION).ok_or_else(number_of_fields)?;
    let (mut key_is, mut fields_are, mut expiry) =
        (Condition::Always, Condition::Always, ExpiryOption::Unspecified);
    let mut rest = Cursor::within(args, FIRST_OPTION..fields.at);
    while !rest.is_at_end() {
        if rest.word("nx") {
            key_is.set(Condition::Missing)?;
        } else if rest.word("xx") {
            key_is.set(Condition::Present)?;
        } else if rest.word("fnx") {
            fields_are.set(Condition::Missing)?;
        } else if rest.word("fxx") {
            fields_are.set(Condition::Present)?;
        } else if rest.word("keepttl") {
            expiry.set(ExpiryOption::Keep)?;
        } else {
            expiry.set(ExpiryOption::time(&mut rest)?)?;
        }
    }
    let pairs = Pairs { args, first: fields.check(args, 2)?.first };
    let key = args.at(1);
    let exists = ctx.keys.hash_mut(key)?.is_some();
    let key_holds = match key_is {
        Condition::Always => true,
        Condition::Missing => !exists,
        Condition::Present => exists,
    };
    if !key_holds {
        ctx.out.integer(0);
        return Ok(Outcome::Reply);
    }
    let expiry = match expiry {
        ExpiryOption::Keep => Expiry::Keep,
        ExpiryOption::Time(time) => Expiry::At(time.not_negative_millis(ctx.keys.now, ctx.spec.name)?),
        ExpiryOption::Unspecified | ExpiryOption::Persist => Expiry::None,
    };
    let hash = ctx.keys.hash_mut(key)?;
    let mut names = pairs.names();
    let fields_hold = match (fields_are, &hash) {
        (Condition::Always, _) | (Condition::Missing, None) => true,
        (Condition::Present, None) => false,
        (Condition::Missing, Some(hash)) => !names.any(|name| hash.contains(name)),
        (Condition::Present, Some(hash)) => names.all(|name| hash.contains(name)),
    };
    if fields_hold {
        match expiry {
            Expiry::At(at) if ctx.keys.is_past(at) => set_in_the_past(ctx.keys, key, pairs)?,
            Expiry::At(_) | Expiry::Keep | Expiry::None => set(ctx.keys, key, pairs, expiry)?,
        }
    }
    ctx.out.integer(i64::from(fields_hold));
    Ok(Outcome::Reply)
}

/// Fields and values in turn.
#[derive(Debug, Clone, Copy)]
struct Pairs<'a> {
    args: Args<'a>,
    first: usize,
}

impl<'a> Pairs<'a> {
    fn len(self) -> usize {
        (self.args.len() - self.first) / 2
    }

    fn words(self) -> impl Iterator<Item = &'a [u8]> {
        self.args.iter().skip(self.first)
    }

    fn names(self) -> impl Iterator<Item = &'a [u8]> {
        self.words().step_by(2)
    }

    fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.names().zip(self.words().skip(1).step_by(2))
    }
}

fn set(keys: &mut Keys<'_>, key: &[u8], pairs: Pairs<'_>, expiry: Expiry) -> Result<(), CommandError> {
    let mut hash = match expiry {
        Expiry::At(_) => keys.volatile_hash_or_new(key)?,
        Expiry::Keep | Expiry::None => keys.hash_or_new(key)?,
    };
    hash.prepare(pairs.words());
    let befores = pairs.iter().map(|(name, value)| hash.put(name, value, expiry));
    let expired = befores.filter(|before| *before == Before::Expired).count();
    // A time that had passed is not kept, so what is left of KEEPTTL needs no clock.
    let has_time = |name: &[u8]| expiry != Expiry::None && hash.as_ref().expire_at(name).flatten().is_some();
    let (timed, plain): (Vec<_>, Vec<_>) = pairs.iter().partition(|(name, _)| has_time(name));
    let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    let mut head: Vec<&[u8]> = vec![b"HSETEX", key];
    match expiry {
        Expiry::At(at) => head.extend([b"PXAT", time.format(at).as_bytes()]),
        Expiry::Keep | Expiry::None => head.push(b"KEEPTTL"),
    }
    head.extend([b"FIELDS", count.format(timed.len()).as_bytes()]);
    propagate_pairs(keys, key, &head, &timed);
    propagate_pairs(keys, key, &[b"HSET", key], &plain);
    keys.modified(key);
    keys.note_expired_fields(EventClass::Hash, key, expired);
    keys.notify(EventClass::Hash, "hset", key);
    if matches!(expiry, Expiry::At(_)) {
        keys.notify(EventClass::Hash, "hexpire", key);
    }
    Ok(())
}

fn propagate_pairs(keys: &mut Keys<'_>, key: &[u8], head: &[&[u8]], pairs: &[(&[u8], &[u8])]) {
    if !pairs.is_empty() {
        let words = pairs.iter().flat_map(|(name, value)| [*name, *value]);
        keys.propagate_as(key, &head.iter().copied().chain(words).collect::<Vec<_>>());
    }
}

/// As if the fields were set and expired at once.
fn set_in_the_past(keys: &mut Keys<'_>, key: &[u8], pairs: Pairs<'_>) -> Result<(), CommandError> {
    let mut removed: Vec<&[u8]> = Vec::new();
    let hash = keys.hash_mut(key)?;
    let is_new = hash.is_none();
    if let Some(mut hash) = hash {
        removed.extend(pairs.names().filter(|name| hash.remove_stored(name).is_some()));
    }
    if is_new {
        keys.notify(EventClass::New, "new", key);
    }
    keys.notify(EventClass::Hash, "hset", key);
    keys.notify(EventClass::Hash, "hexpire", key);
    keys.note_expired_fields(EventClass::Hash, key, pairs.len());
    if is_new {
        keys.notify(EventClass::Generic, "del", key);
    }
    keys.fields_deleted(key, &removed);
    Ok(())
}

/// `HGETEX key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]
/// FIELDS numfields field [field ...]`
///
/// A time that has passed deletes the fields.
pub(super) const HGETEX: DataCommand =
    write("hgetex", hgetex, -5, FAST, "9.0.0").key(1, RW | ACCESS | UPDATE);
fn hgetex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let fields = Fields::find(args, FIRST_OPTION).ok_or_else(number_of_fields)?;
    let mut expiry = ExpiryOption::Unspecified;
    let mut rest = Cursor::within(args, FIRST_OPTION..fields.at);
    while !rest.is_at_end() {
        let persist = rest.word("persist");
        expiry.set(if persist { ExpiryOption::Persist } else { ExpiryOption::time(&mut rest)? })?;
    }
    let first = fields.check(args, 1)?.first;
    let key = args.at(1);
    ctx.keys.hash_mut(key)?;
    let at = match expiry {
        ExpiryOption::Time(time) => Some(time.not_negative_millis(ctx.keys.now, ctx.spec.name)?),
        ExpiryOption::Unspecified | ExpiryOption::Keep | ExpiryOption::Persist => None,
    };
    let is_past = at.is_some_and(|at| ctx.keys.is_past(at));
    let mut hash = ctx.keys.volatile_hash_mut(key)?;
    let mut changed: Vec<&[u8]> = Vec::new();
    ctx.out.array(args.len() - first);
    for field in args.iter().skip(first) {
        let found = hash.as_ref().and_then(|hash| hash.get(field));
        ctx.out.optional_bulk(found.as_deref());
        let (true, Some(hash)) = (found.is_some(), hash.as_mut()) else { continue };
        let had_time = hash.as_ref().expire_at(field).flatten().is_some();
        match (expiry, at) {
            (ExpiryOption::Time(_), _) if is_past => drop(hash.remove(field)),
            (ExpiryOption::Time(_), at) => hash.set_time(field, at),
            (ExpiryOption::Persist, _) if had_time => hash.set_time(field, None),
            _ => continue,
        }
        changed.push(field);
    }
    match at {
        _ if changed.is_empty() => {}
        Some(_) if is_past => {
            ctx.keys.note_expired_fields(EventClass::Hash, key, changed.len());
            ctx.keys.fields_deleted(key, &changed);
        }
        Some(at) => times_set(ctx.keys, key, at, &changed),
        None => times_removed(ctx.keys, key, &changed),
    }
    Ok(Outcome::Reply)
}
