//! The same value under another key or in another database: COPY, MOVE, RENAME.
//!
//! Within a slot the command is its own effect. Across slots the effects delete the old keys and rebuild the value
//! in pieces, each effect on its own slot.

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, INSERT, OW, RO, RW, UPDATE};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i32_arg, write};
use keyward_store::DbIndex;
use keyward_store::effects::{Original, Place};
use keyward_store::entry::Entry;
use keyward_store::events::EventClass;
use keyward_store::keys::{Keys, Mode};
use keyward_store::rebuild::copied;

/// `RENAME key newkey`
pub(super) const RENAME: DataCommand =
    write("rename", rename, 3, 0, "1.0.0").key(1, RW | ACCESS | DELETE).key(2, OW | UPDATE);
fn rename(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    rename_unless(ctx.keys, args, |_| false)?;
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// `RENAMENX key newkey`
pub(super) const RENAMENX: DataCommand =
    write("renamenx", renamenx, 3, FAST, "1.0.0").key(1, RW | ACCESS | DELETE).key(2, OW | INSERT);
fn renamenx(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let renamed = rename_unless(ctx.keys, args, |place| place == Place::Occupied)?;
    ctx.out.integer(i64::from(renamed));
    Ok(Outcome::Reply)
}

/// Whether the key was renamed; a key that is renamed to itself counts as a target that exists.
fn rename_unless(
    keys: &mut Keys<'_>,
    args: Args<'_>,
    refused: impl Fn(Place) -> bool,
) -> Result<bool, CommandError> {
    let (source, target) = (args.at(1), args.at(2));
    if keys.get_mut(source).is_none() {
        return Err(CommandError::NoSuchKey);
    }
    let place = Place::of(keys.get_mut(target));
    if refused(place) || source == target {
        return Ok(false);
    }
    if keys.same_slot(source, target) {
        keys.propagate_as(source, &[b"RENAME", source, target]);
    } else {
        keys.propagate_copy(source, target, (keys.db, keys.db), place, Original::Moves)?;
    }
    let entry = keys.remove(source).expect("it was found under the same lock").renamed(target);
    put(keys, entry);
    keys.notify(EventClass::Generic, "rename_from", source);
    keys.notify(EventClass::Generic, "rename_to", target);
    Ok(true)
}

/// Stores an entry in the current database, in place of another one.
fn put(keys: &mut Keys<'_>, entry: Entry) {
    let key: Box<[u8]> = entry.key().into();
    keys.insert_entry(entry);
    keys.modified(&key);
    keys.signal_ready(&key);
}

fn parse_db(ctx: &DataContext<'_, '_>, argument: &[u8]) -> Result<DbIndex, CommandError> {
    let number = parse_i32_arg(argument)?;
    // An effect is applied whatever this node's settings are.
    let is_effect = ctx.keys.mode() == Mode::Apply;
    let db = DbIndex::try_from(number).ok().filter(|db| is_effect || *db < ctx.limits.databases);
    db.ok_or_else(|| CommandError::err("DB index is out of range"))
}

fn same_objects() -> CommandError {
    CommandError::err("source and destination objects are the same")
}

/// Runs `f` in another database.
fn in_db<R>(keys: &mut Keys<'_>, db: DbIndex, f: impl FnOnce(&mut Keys<'_>) -> R) -> R {
    let before = std::mem::replace(&mut keys.db, db);
    let result = f(keys);
    keys.db = before;
    result
}

/// `MOVE key db`
pub(super) const MOVE: DataCommand = write("move", move_, 3, FAST, "1.0.0").key(1, RW | ACCESS | UPDATE);
fn move_(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let db = parse_db(ctx, args.at(2))?;
    if db == ctx.keys.db {
        return Err(same_objects());
    }
    let keys = &mut *ctx.keys;
    let moves = keys.get_mut(key).is_some() && in_db(keys, db, |keys| keys.get_mut(key).is_none());
    if moves {
        let entry = keys.remove(key).expect("it was found under the same lock");
        keys.propagate(key, args);
        in_db(keys, db, |keys| put(keys, entry));
        keys.notify(EventClass::Generic, "move_from", key);
        in_db(keys, db, |keys| keys.notify(EventClass::Generic, "move_to", key));
    }
    ctx.out.integer(i64::from(moves));
    Ok(Outcome::Reply)
}

/// `COPY source destination [DB destination-db] [REPLACE]`
///
/// Differs from Valkey: fields of a hash that have expired and are still there are copied, too, until active expiry comes.
pub(super) const COPY: DataCommand =
    write("copy", copy, -3, DENYOOM, "6.2.0").key(1, RO | ACCESS).key(2, OW | UPDATE);
fn copy(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (source, target) = (args.at(1), args.at(2));
    let (mut db, mut existing) = (ctx.keys.db, Existing::Stays);
    let mut options = Cursor::new(args, 3);
    while !options.is_at_end() {
        if options.word("replace") {
            existing = Existing::IsReplaced;
        } else if let Some(number) = options.value_of("db") {
            db = parse_db(ctx, number)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if source == target && db == ctx.keys.db {
        return Err(same_objects());
    }
    let copies = ctx.keys.read(source).is_some() && copy_to(ctx.keys, source, target, db, existing)?;
    ctx.out.integer(i64::from(copies));
    Ok(Outcome::Reply)
}

/// What COPY does with a value that the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Stays,
    /// REPLACE
    IsReplaced,
}

/// Whether the copy of an existing key was stored: it replaces nothing unless it may.
fn copy_to(
    keys: &mut Keys<'_>,
    source: &[u8],
    target: &[u8],
    db: DbIndex,
    existing: Existing,
) -> Result<bool, CommandError> {
    let place = in_db(keys, db, |keys| Place::of(keys.get_mut(target)));
    if place == Place::Occupied && existing == Existing::Stays {
        return Ok(false);
    }
    if keys.same_slot(source, target) {
        let mut number = itoa::Buffer::new();
        let db = number.format(db).as_bytes();
        keys.propagate_as(target, &[b"COPY", source, target, b"DB", db, b"REPLACE"]);
    } else {
        keys.propagate_copy(source, target, (keys.db, db), place, Original::Stays)?;
    }
    let access = keys.access;
    let copy_of = |source: &Entry| Entry::new(target, copied(source), source.expire_at(), access);
    let entry = keys.get(source).map(copy_of).expect("it was found under the same lock");
    in_db(keys, db, |keys| {
        put(keys, entry);
        keys.notify(EventClass::Generic, "copy_to", target);
    });
    Ok(true)
}
