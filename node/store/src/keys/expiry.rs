//! Expiry: setting it, and deleting what has expired.
//!
//! An entry expires when its time lies before now; where effects are applied nothing expires. Nobody compares but
//! [`Expiration::has_expired`].

use keyward_proto::mutation::{self, Mutation};
use keyward_proto::slot::Slot;

use super::{Held, Keys, Mode};
use crate::counts::Count;
use crate::events::EventClass;
use crate::lazyfree::Cause;
use crate::table::ScanPosition;
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

    /// Deletes expired keys among some `len` entries of the one locked slot, from where `walk` is; returns where to go
    /// on. At the end of a walk the slot knows again when its next key expires.
    ///
    /// While a walk is under way keys that get an expiry lower `next_expiry`, and each step does for those that it
    /// passes: at the end it is right whatever happened between the steps.
    pub fn expire_step(&mut self, walk: ExpiryWalk, len: usize) -> Option<ExpiryWalk> {
        let expiration = self.expiration();
        let Held::One(_, state) = &mut self.held else { panic!("expire_step works on one slot") };
        if walk == ExpiryWalk::default() {
            state.next_expiry = i64::MAX;
        }
        let (mut due, mut next, mut seen): (Vec<DbKey>, i64, usize) = (Vec::new(), i64::MAX, 0);
        let mut stopped_at = None;
        let dbs: Vec<DbIndex> = state.dbs().map(|(db, _)| db).filter(|db| walk.db <= *db).collect();
        'walk: for db in dbs {
            if state.expires_count(db) == 0 {
                continue;
            }
            let mut position = if db == walk.db { walk.position } else { 0 };
            while let Some(table) = state.table(db) {
                if len <= seen {
                    stopped_at = Some(ExpiryWalk { db, position });
                    break 'walk;
                }
                let scanned = table.scan(position, &mut |entry| {
                    seen += 1;
                    match entry.expire_at() {
                        expire_at if expiration.has_expired(expire_at) => due.push((db, entry.key().into())),
                        Some(at) => next = next.min(at.max(1)),
                        None => {}
                    }
                });
                match scanned {
                    Some(at) => position = at,
                    None => break,
                }
            }
        }
        state.next_expiry = state.next_expiry.min(next);
        if stopped_at.is_none() && state.next_expiry == i64::MAX {
            state.next_expiry = 0;
        }
        for (db, key) in due {
            self.db = db;
            self.expire_now(&key);
        }
        stopped_at
    }
}
