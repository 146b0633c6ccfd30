//! Expiry of keys, and of fields of hashes: setting it, and deleting what has expired.
//!
//! An entry or field expires when its time lies before now; where effects are applied nothing expires. Nobody compares
//! but [`Expiration`], and a hash with what that says.
//!
//! A key that has expired is deleted by who meets it. A field is only hidden, as in Valkey, until it is set again or
//! active expiry comes to it: so looking at a hash does not change it.

use keyward_proto::mutation::{self, Mutation};
use keyward_proto::slot::Slot;

use super::{Held, Keys, Mode};
use crate::counts::Count;
use crate::entry::Entry;
use crate::events::EventClass;
use crate::lazyfree::Cause;
use crate::rdb::VERSION_FIELD_TIMES;
use crate::table::{ScanPosition, hash_of};
use crate::types::hash::{ALWAYS, VolatileTable};
use crate::{DbIndex, DbKey};

/// What SET does to an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    Keep,
    None,
    /// Milliseconds since the Unix epoch.
    At(i64),
}

/// How far a search for expired keys has come in a slot; the default is its begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpiryWalk {
    db: DbIndex,
    position: ScanPosition,
}

/// What has expired, as one mode sees it at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expiration {
    pub(super) mode: Mode,
    /// Milliseconds since the Unix epoch.
    pub(super) now: i64,
}

impl Expiration {
    /// Fields with a time before this have expired.
    #[inline]
    fn since(self) -> i64 {
        if self.mode == Mode::Apply { ALWAYS } else { self.now }
    }

    #[inline]
    pub(super) fn has_expired(self, expire_at: Option<i64>) -> bool {
        expire_at.is_some_and(|at| at < self.now) && self.mode != Mode::Apply
    }
}

impl Keys<'_> {
    /// Whether an expiry that is about to be set has passed already, so that the key is deleted instead. Never
    /// where effects are applied: the primary has decided.
    pub fn is_past(&self, expire_at: i64) -> bool {
        self.mode == Mode::Primary && expire_at <= self.now
    }

    /// Sets or removes the expiry of an existing key.
    pub fn set_expire_at(&mut self, key: &[u8], expire_at: Option<i64>) {
        let (space, db, mark) = (self.space, self.db, self.mark);
        let hash = self.key_hash(key);
        let state = self.state_mut(key);
        let Some(entry) = state.table_mut(db).get_mut(hash, key) else { return };
        if entry.mark() != mark {
            space.cow.save_old(Slot::of(key), db, entry);
        }
        let before = entry.expire_at();
        entry.set_expire_at(expire_at);
        let expires = state.count_expiry(db, before, expire_at);
        self.pending.add(db, Count { expires, ..Count::default() });
    }

    /// Finishes a command (or transaction): deletes what turned out to be expired.
    #[inline]
    pub fn finish(&mut self) {
        if !self.expired.get_mut().is_empty() {
            self.expire_seen();
        }
    }

    fn expire_seen(&mut self) {
        let db = self.db;
        for (key_db, key) in std::mem::take(self.expired.get_mut()) {
            self.db = key_db;
            self.expire_if_due(&key);
        }
        self.db = db;
    }

    /// Deletes the key if it has expired, with its effect.
    pub fn expire_if_due(&mut self, key: &[u8]) {
        if self.mode != Mode::Primary {
            return;
        }
        let hash = self.key_hash(key);
        let expiration = self.expiration();
        let entry = self.state(key).table(self.db).and_then(|t| t.get(hash, key));
        let due = entry.is_some_and(|entry| expiration.has_expired(entry.expire_at()));
        if due {
            self.expire_now(key);
        }
    }

    /// Deletes a key because its time has passed, with its effect.
    pub fn expire_now(&mut self, key: &[u8]) {
        if let Some(entry) = self.remove(key) {
            self.discard(entry, Cause::Expired);
            self.expired_count += 1;
            if !mutation::is_on(Mutation::ExpiryNotLogged) {
                self.propagate_as(key, &[b"DEL", key]);
            }
            self.notify(EventClass::Expired, "expired", key);
        }
    }

    /// Deletes a key because memory is short, with its effect.
    pub fn evict(&mut self, key: &[u8]) {
        if let Some(entry) = self.remove(key) {
            self.discard(entry, Cause::Evicted);
            self.propagate_as(key, &[b"UNLINK", key]);
            self.notify(EventClass::Evicted, "evicted", key);
        }
    }

    /// Fields with a time before this, in milliseconds since the Unix epoch, are not seen.
    #[inline]
    pub(crate) fn since(&self) -> i64 {
        self.expiration().since()
    }

    /// The hash at this key may get or lose fields with times, or does not exist.
    pub(crate) fn note_volatile(&self, key: &[u8]) {
        self.volatile.borrow_mut().note(self.db, key);
    }

    /// Tells the slots what has become of hashes that the command has changed: at its end, and before the databases
    /// change places.
    #[cold]
    pub fn recount_volatile(&mut self) {
        std::mem::take(self.volatile.get_mut()).each(|db, key| {
            let hash = hash_of(key);
            let state = self.state_mut(key);
            let volatile = state.recount_volatile(db, hash, key);
            if 0 < volatile {
                self.space.note_version(VERSION_FIELD_TIMES);
            }
            if volatile != 0 {
                self.pending.add(db, Count { volatile, ..Count::default() });
            }
        });
    }

    /// Fields have expired; who sets fields hears of it in the class of hashes.
    pub fn note_expired_fields(&mut self, class: EventClass, key: &[u8], count: usize) {
        if 0 < count {
            self.expired_fields += count as u64;
            self.notify(class, "hexpired", key);
        }
    }

    /// These fields were deleted because their time has passed: leaves the effect, and deletes the hash if none is left.
    pub fn fields_deleted(&mut self, key: &[u8], fields: &[&[u8]]) {
        if fields.is_empty() {
            return;
        }
        if !mutation::is_on(Mutation::ExpiryNotLogged) {
            self.propagate_as(key, &[&[b"HDEL", key], fields].concat());
        }
        if !self.remove_if_empty(key) {
            self.modified(key);
        }
    }

    /// Deletes fields whose time has passed, at most `count`.
    pub fn expire_fields(&mut self, key: &[u8], count: usize) {
        let access = self.stored(key).map(Entry::access);
        let Ok(Some(mut hash)) = self.hash_mut(key) else { return };
        let due = hash.remove_due(count);
        if let (Some(entry), Some(access)) = (self.stored(key), access) {
            // Nobody has used it.
            entry.set_access(access);
        }
        self.note_expired_fields(EventClass::Expired, key, due.len());
        self.fields_deleted(key, &due.iter().map(|name| &**name).collect::<Vec<_>>());
    }

    /// Deletes expired keys and fields among some `len` entries and fields of the one locked slot, from where `walk` is;
    /// returns where to go on. At the end of a walk the slot knows again when its next key or field expires.
    ///
    /// While a walk is under way keys that get an expiry lower `next_expiry`, and each step does for those that it
    /// passes: at the end it is right whatever happened between the steps.
    pub fn expire_step(&mut self, walk: ExpiryWalk, len: usize) -> Option<ExpiryWalk> {
        let expiration = self.expiration();
        let Held::One(_, state) = &mut self.held else { panic!("expire_step works on one slot") };
        if walk == ExpiryWalk::default() {
            state.next_expiry = i64::MAX;
        }
        let (mut due, mut next, mut seen): (Vec<(DbKey, Due)>, i64, usize) = (Vec::new(), i64::MAX, 0);
        let mut stopped_at = None;
        let dbs: Vec<DbIndex> = state.dbs().map(|(db, _)| db).filter(|db| walk.db <= *db).collect();
        'walk: for db in dbs {
            if state.expires_count(db) == 0 && state.volatile_count(db) == 0 {
                continue;
            }
            let mut position = if db == walk.db { walk.position } else { 0 };
            while let Some(table) = state.table(db) {
                if len <= seen {
                    stopped_at = Some(ExpiryWalk { db, position });
                    break 'walk;
                }
                let mut is_left = false;
                let scanned = table.scan(position, &mut |entry| {
                    seen += 1;
                    let what = Due::of(entry, expiration);
                    if let Due::Fields(fields) = what {
                        seen += fields;
                        is_left |= len < fields;
                    }
                    match what {
                        Due::Key => due.push(((db, entry.key().into()), what)),
                        // When the others are due is known when these are gone.
                        Due::Fields(_) => {
                            due.push(((db, entry.key().into()), what));
                            next = next.min(entry.expire_at().unwrap_or(i64::MAX).max(1));
                        }
                        Due::Later(at) => next = next.min(at.max(1)),
                    }
                });
                match scanned {
                    // A large hash is come back to until no field of it is due.
                    _ if is_left => {}
                    Some(at) => position = at,
                    None => break,
                }
            }
        }
        state.next_expiry = state.next_expiry.min(next);
        if stopped_at.is_none() && state.next_expiry == i64::MAX {
            state.next_expiry = 0;
        }
        for ((db, key), what) in due {
            self.db = db;
            match what {
                Due::Key => self.expire_now(&key),
                Due::Fields(_) => self.expire_fields(&key, len),
                Due::Later(_) => {}
            }
        }
        stopped_at
    }
}

/// What is due of an entry.
#[derive(Debug, Clone, Copy)]
enum Due {
    Key,
    /// So many fields, and perhaps others later.
    Fields(usize),
    /// Nothing before this.
    Later(i64),
}

impl Due {
    fn of(entry: &Entry, expiration: Expiration) -> Due {
        let expire_at = entry.expire_at();
        if expiration.has_expired(expire_at) {
            return Due::Key;
        }
        let volatile = entry.volatile();
        match volatile.map_or(0, |volatile| volatile.due_len(expiration.since())) {
            0 => {
                let fields = volatile.and_then(VolatileTable::next_due);
                Due::Later(expire_at.unwrap_or(i64::MAX).min(fields.unwrap_or(i64::MAX)))
            }
            due => Due::Fields(due),
        }
    }
}
