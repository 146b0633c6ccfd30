//! Changing keys. What a running snapshot has not saved is saved first.

use keyward_proto::slot::Slot;

use super::{Expiry, Keys, Mode, WrongType};
use crate::DbKey;
use crate::access::next_random;
use crate::counts::Count;
use crate::entry::{Compact, Entry, NewValue, ValueRef, ValueType};
use crate::events::EventClass;
use crate::lazyfree::{Cause, LazyFree, is_large};
use crate::snapshot::large::saving_id;
use crate::table::hash_of;
use crate::tracking::{Changed, Changes};
use crate::types::Collection;

impl Keys<'_> {
    /// The entry of a key for changing it, unless it has expired.
    #[inline]
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let hash = self.key_hash(key);
        let (expiration, db) = (self.expiration(), self.db);
        let entry = self.state(key).table(db)?.get(hash, key)?;
        if expiration.has_expired(entry.expire_at()) {
            self.expire_if_due(key);
            return None;
        }
        self.touch(entry);
        if entry.volatile().is_some() {
            self.note_volatile(key);
        }
        let is_saved = entry.mark() == self.mark;
        if !is_saved {
            self.save_old(hash, key);
        }
        self.state_mut(key).table_mut(db).get_mut(hash, key)
    }

    /// Saves an entry for the running snapshot, before its first change.
    #[cold]
    fn save_old(&mut self, hash: u64, key: &[u8]) {
        let (space, db, slot) = (self.space, self.db, self.slot_of(key));
        if let Some(entry) = self.state_mut(key).table_mut(db).get_mut(hash, key) {
            space.cow.save_old(slot, db, entry);
        }
    }

    /// The entry of a key that holds a value of this type.
    ///
    /// # Errors
    /// It is of another type.
    #[inline]
    pub(crate) fn typed_mut(
        &mut self,
        key: &[u8],
        value_type: ValueType,
    ) -> Result<Option<&mut Entry>, WrongType> {
        match self.get_mut(key) {
            Some(entry) if entry.value_type() != value_type => Err(WrongType),
            found => Ok(found),
        }
    }

    /// An empty collection must not stay: see [`Keys::remove_if_empty`].
    pub(crate) fn create_if_missing(&mut self, key: &[u8], form: Compact) {
        if self.get_mut(key).is_none() {
            self.insert_new(key, NewValue::Empty(form), None);
        }
    }

    pub(crate) fn insert_new(&mut self, key: &[u8], value: NewValue<'_>, expire_at: Option<i64>) {
        let (db, access) = (self.db, self.access);
        let mut entry = Entry::new(key, value, expire_at, access);
        entry.set_mark(self.mark);
        let hash = self.key_hash(key);
        let change = self.state_mut(key).insert_new(db, hash, entry);
        self.pending.add(db, change);
        self.notify(EventClass::New, "new", key);
    }

    /// Sets a key to a value of any type, whatever it held before.
    pub fn insert(&mut self, key: &[u8], value: NewValue<'_>, expiry: Expiry) {
        let (db, mode, access) = (self.db, self.mode, self.access);
        let expiration = self.expiration();
        let (space, mark) = (self.space, self.mark);
        let lfu = self.clock.is_lfu().then(|| (self.clock, next_random(&self.random_state)));
        let new_expiry = match expiry {
            Expiry::At(at) => Some(at),
            Expiry::Keep | Expiry::None => None,
        };
        let hash = self.key_hash(key);
        let state = self.state_mut(key);
        let Some(entry) = state.table_mut(db).get_mut(hash, key) else {
            return self.insert_new(key, value, new_expiry);
        };
        let before = entry.expire_at();
        let live = !expiration.has_expired(before);
        if !live && mode == Mode::Primary {
            // With an effect of its own: else KEEPTTL would keep the old expiry on a replica.
            self.expire_now(key);
            return self.insert_new(key, value, new_expiry);
        }
        if entry.mark() != mark {
            space.cow.save_old(Slot::of(key), db, entry);
        }
        let access = lfu.map_or(access, |(clock, random)| clock.touched(entry.access(), random));
        let was_stream = entry.value_type() == ValueType::Stream;
        let was_volatile = entry.forget_volatile();
        let (mut replaced, mut change) = (None, Count::default());
        if is_large(entry) || saving_id(entry).is_some() {
            let mut new = Entry::new(key, value, before, access);
            new.set_mark(mark);
            replaced = Some(std::mem::replace(entry, new));
        } else {
            entry.set_value(value);
            entry.set_access(access);
        }
        let is_volatile = entry.volatile().is_some();
        let after = if expiry == Expiry::Keep && live { before } else { new_expiry };
        if before != after {
            entry.set_expire_at(after);
            change.expires = state.count_expiry(db, before, after);
        }
        if was_volatile {
            change.volatile = state.count_volatile(db, -1);
        }
        if change != Count::default() {
            self.pending.add(db, change);
        }
        if is_volatile {
            self.note_volatile(key);
        }
        if let Some(replaced) = replaced {
            self.discard(replaced, Cause::Replaced);
        }
        if was_stream {
            // Who waits for a group hears that it is gone.
            self.signal_ready(key);
        }
    }

    /// Puts an entry under a key that does not exist: RENAME, MOVE, COPY, RESTORE.
    pub fn insert_entry(&mut self, mut entry: Entry) {
        entry.set_mark(self.mark);
        if let Some(replaced) = self.remove(entry.key()) {
            self.discard(replaced, Cause::Replaced);
        }
        self.space.note_value(&entry);
        let (db, hash) = (self.db, hash_of(entry.key()));
        let key: Box<[u8]> = entry.key().into();
        if let Some(id) = saving_id(&entry) {
            self.space.cow.note_moved(id, Slot::of(&key), db, &key);
        }
        let change = self.state_mut(&key).insert_new(db, hash, entry);
        self.pending.add(db, change);
        self.notify(EventClass::New, "new", &key);
    }

    /// Deletes a key, expired or not. The caller emits the effect, and gives what this returns to [`Keys::discard`] or
    /// [`Keys::insert_entry`], unless it is a string.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let db = self.db;
        let hash = self.key_hash(key);
        let (mut entry, change) = self.state_mut(key).remove(db, hash, key)?;
        self.pending.add(db, change);
        if entry.mark() != self.mark {
            self.space.cow.save_old(Slot::of(key), db, &mut entry);
        }
        self.modified(key);
        // Some clients wait for a key that exists.
        self.signal_ready(key);
        Some(entry)
    }

    /// Deletes a key unless it has expired (then it is expired instead); the caller emits the effect.
    pub fn remove_live(&mut self, key: &[u8]) -> Option<Entry> {
        self.get_mut(key)?;
        self.remove(key)
    }

    /// Deletes the collection at a key if it has become empty; whether it did. The same effect that emptied it
    /// empties it on a replica, so this is not an effect of its own.
    pub fn remove_if_empty(&mut self, key: &[u8]) -> bool {
        let value = self.get(key).map(Entry::value);
        let empty = value.as_ref().and_then(ValueRef::collection).is_some_and(Collection::is_empty);
        if empty {
            if let Some(entry) = self.remove(key) {
                self.discard(entry, Cause::Deleted);
            }
            self.notify(EventClass::Generic, "del", key);
        }
        empty
    }

    /// Drops an entry that is not in the keyspace any more; if that takes long, after the command.
    pub fn discard(&mut self, entry: Entry, cause: Cause) {
        // What a snapshot is still saving is its own now.
        let entry = match saving_id(&entry) {
            Some(id) => self.space.cow.keep_entry(id, entry),
            None => Some(entry),
        };
        let Some(entry) = entry else { return };
        if is_large(&entry) {
            self.lazyfree.push(LazyFree { entry, cause });
        }
    }

    /// Large values that are to be dropped now that no slot is locked.
    pub fn take_lazyfree(&mut self) -> Vec<LazyFree> {
        std::mem::take(&mut self.lazyfree)
    }

    #[inline]
    pub fn has_lazyfree(&self) -> bool {
        !self.lazyfree.is_empty()
    }

    /// A key changed: transactions that watch it fail.
    #[inline]
    pub fn modified(&mut self, key: &[u8]) {
        self.dirty += 1;
        let (db, broadcasts) = (self.db, self.space.tracking.broadcasts());
        let state = self.state_mut(key);
        if state.is_watched() {
            state.mark_watchers(db, key);
        }
        if broadcasts || state.has_readers() {
            self.note_changed(key);
        }
    }

    /// For clients that keep values themselves.
    #[cold]
    fn note_changed(&mut self, key: &[u8]) {
        let (space, broadcasts) = (self.space, self.space.tracking.broadcasts());
        let readers = self.state_mut(key).take_readers(key, &space.tracking);
        if broadcasts || !readers.is_empty() {
            self.changes.keys.push(Changed { key: key.into(), readers });
        }
    }

    /// A client reads a key whose slot is locked, and wants to hear of its next change.
    pub fn note_reader(&mut self, key: &[u8], client_id: u64) {
        let counts = &self.space.tracking;
        self.with_slot(Slot::of(key), |state| state.note_reader(key, client_id, counts));
    }

    /// A database was emptied. All slots are locked.
    pub fn note_flushed(&mut self) {
        let counts = &self.space.tracking;
        if counts.keys() != 0 {
            Slot::all().for_each(|slot| self.with_slot(slot, |state| state.forget_readers(counts)));
        }
        self.changes.flushed = true;
    }

    /// Whether there is something to tell of to clients that keep values themselves.
    #[inline]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Something changed beside what transactions watch: as in Valkey, the groups of a stream.
    pub fn modified_aside(&mut self) {
        self.dirty += 1;
    }

    /// A value received elements, or went: clients that wait for the key are served after the command, or after the
    /// effect, by who applies it.
    #[inline]
    pub fn signal_ready(&mut self, key: &[u8]) {
        if self.state(key).has_waiters() {
            let ready = (self.db, key.into());
            if !self.ready.contains(&ready) {
                self.ready.push(ready);
            }
        }
    }

    /// Keys on which clients wait and that received data.
    pub fn take_ready(&mut self) -> Vec<DbKey> {
        std::mem::take(&mut self.ready)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}
