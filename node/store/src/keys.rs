//! What a command sees of the keyspace while it holds the locks of its slots, and where it leaves its effects.
//!
//! Expiry: an expired key is hidden from every access. On a primary it is also deleted, with an effect: at once if
//! the access is a write, at the end of the command if it was a read. A replica only hides; while it applies
//! effects, expiry does not exist (DESIGN section 4: replaying reads no clock).
//!
//! A write command that changed something calls [`Keys::modified`] for each key and [`Keys::propagate`] or
//! [`Keys::propagate_as`] for each effect. An effect touches keys of one slot only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use bytes::BytesMut;
use keyward_proto::resp::Args;
use keyward_proto::resp::reply::write_command;
use keyward_proto::slot::{SLOT_COUNT, Slot};
use parking_lot::MutexGuard;
use rand::Rng;

use super::access::AccessClock;
use super::counts::{Count, Pending};
use super::entry::{Compact, Entry, Epoch, NewValue, ValueRef, ValueType};
use super::garbage::{Cause, Garbage, is_large};
use super::rebuild::rebuild_as;
use super::snapshot::large::saving_id;
use super::table::{ScanPosition, hash_of};
use super::types::{HashMut, HashRef, Limits, ListMut, ListRef, SetMut, SetRef, SortedSetMut, SortedSetRef};
use super::{DbIndex, DbKey, Keyspace, SlotState};
use crate::effects::{ENTRY_BYTES_MAX, EffectBuffer, TooLong};
use crate::events::{Event, EventClass, EventClasses};
use crate::rdb::record::Access;

/// On whose behalf the keyspace is accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A client of a primary.
    Primary,
    /// A client of a replica: it reads, and expired keys stay.
    Replica,
    /// Effects from a log: no expiry, no effects.
    Apply,
}

/// Which slots are locked for the running command.
#[derive(Debug, Default)]
enum Held<'a> {
    #[default]
    None,
    One(Slot, MutexGuard<'a, SlotState>),
    /// In slot order.
    Many(Vec<(Slot, MutexGuard<'a, SlotState>)>),
}

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

/// See the module documentation.
#[derive(Debug)]
pub struct Keys<'a> {
    space: &'a Keyspace,
    held: Held<'a>,
    /// Empty; their memory serves the next command with several slots.
    spare_slots: Vec<Slot>,
    spare_states: Vec<(Slot, MutexGuard<'a, SlotState>)>,
    pub db: DbIndex,
    /// Milliseconds since the Unix epoch, the same throughout a command.
    pub now: i64,
    /// The access field of keys that are created, and without an LFU policy of keys that are used.
    pub access: u32,
    clock: AccessClock,
    /// For LFU counters.
    dice: Cell<u32>,
    /// The name of the running command for effects, if the client knows it by another.
    pub command: Option<&'static str>,
    /// CLIENT NO-TOUCH: reads leave the access clock of a key alone.
    pub no_touch: bool,
    /// Up to where collections are compact.
    pub limits: Limits,
    mode: Mode,
    /// The current one: an entry that has the other is saved for the running snapshot before it changes. It changes
    /// only while the world is stopped, so it holds for a batch.
    epoch: Epoch,
    /// Whether somebody reads the write log.
    logging: bool,
    effects: EffectBuffer,
    /// [`ENTRY_BYTES_MAX`], unless a test has other wishes.
    entry_bytes_max: usize,
    encoded: BytesMut,
    /// Number of modifications by the running command (or transaction).
    dirty: u64,
    expired: RefCell<Vec<DbKey>>,
    /// Large values, to be dropped without locks.
    garbage: Vec<Garbage>,
    ready: Vec<DbKey>,
    notify: EventClasses,
    events: RefCell<Vec<Event>>,
    hits: Cell<u64>,
    misses: Cell<u64>,
    expired_count: u64,
    /// Largest index of the last writes to slots that the running command walked over.
    walked: u64,
    /// The running command has read what depends on all that was written.
    counted: bool,
    /// What the running command has changed in the keyspace's counts.
    pending: Pending,
    /// Address, length and hash of the running command's key, computed before. The key lies in the receive buffer,
    /// which outlives this: no other key has its address.
    known: (usize, usize, u64),
}

/// The key holds a value of another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key holds another type of value")]
pub struct WrongType;

/// A linear congruential generator: its upper bits are good enough to throw a coin with.
fn throw(dice: &Cell<u32>) -> u32 {
    dice.set(dice.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    dice.get()
}

impl<'a> Keys<'a> {
    pub fn new(
        space: &'a Keyspace,
        mode: Mode,
        logging: bool,
        now: i64,
        clock: AccessClock,
        notify: EventClasses,
    ) -> Self {
        Keys {
            space,
            held: Held::None,
            spare_slots: Vec::new(),
            spare_states: Vec::new(),
            db: 0,
            now,
            access: clock.of_new_key(),
            clock,
            dice: Cell::new(0),
            command: None,
            no_touch: false,
            limits: Limits::default(),
            mode,
            epoch: space.cow.epoch(),
            logging,
            effects: EffectBuffer::default(),
            entry_bytes_max: ENTRY_BYTES_MAX,
            encoded: BytesMut::new(),
            dirty: 0,
            expired: RefCell::default(),
            garbage: Vec::new(),
            ready: Vec::new(),
            notify,
            events: RefCell::default(),
            hits: Cell::new(0),
            misses: Cell::new(0),
            expired_count: 0,
            walked: 0,
            counted: false,
            pending: Pending::default(),
            known: (0, 0, 0),
        }
    }

    /// Whether effects are kept for the write log.
    #[inline]
    pub fn is_logging(&self) -> bool {
        self.logging
    }

    pub fn set_logging(&mut self, logging: bool) {
        self.logging = logging;
    }

    // ------------------------------------------------------------------ locks: used by command execution

    /// Locks the one slot of a command.
    #[inline]
    pub fn lock_one(&mut self, slot: Slot) {
        debug_assert!(matches!(self.held, Held::None));
        self.held = Held::One(slot, self.space.lock(slot));
    }

    /// Locks several slots, in ascending order whatever the order of `slots` is.
    pub fn lock_many(&mut self, slots: impl IntoIterator<Item = Slot>) {
        self.lock_visited(|visit| slots.into_iter().for_each(visit));
    }

    /// Locks the slots that `visit_all` names. What this needs is kept for the next command of the batch.
    pub fn lock_visited(&mut self, visit_all: impl FnOnce(&mut dyn FnMut(Slot))) {
        debug_assert!(matches!(self.held, Held::None));
        let mut slots = std::mem::take(&mut self.spare_slots);
        visit_all(&mut |slot| slots.push(slot));
        slots.sort_unstable();
        slots.dedup();
        self.held = match slots[..] {
            [slot] => Held::One(slot, self.space.lock(slot)),
            _ => {
                let mut states = std::mem::take(&mut self.spare_states);
                states.extend(slots.iter().map(|s| (*s, self.space.lock(*s))));
                Held::Many(states)
            }
        };
        slots.clear();
        self.spare_slots = slots;
    }

    /// Locks all slots; the world is stopped.
    pub fn lock_all(&mut self) {
        debug_assert!(matches!(self.held, Held::None));
        // Another thread may have stopped the world before this one did.
        self.epoch = self.space.cow.epoch();
        self.held = Held::Many(Slot::all().map(|s| (s, self.space.lock(s))).collect());
    }

    #[inline]
    pub fn unlock(&mut self) {
        if !self.pending.is_empty() {
            self.publish_counts();
        }
        if let Held::Many(mut states) = std::mem::take(&mut self.held) {
            states.clear();
            self.spare_states = states;
        }
        self.walked = 0;
    }

    /// Hits, misses and expired keys since the last call.
    pub fn take_counts(&mut self) -> (u64, u64, u64) {
        (self.hits.take(), self.misses.take(), std::mem::take(&mut self.expired_count))
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

    /// Runs `append` with the finished command's effects, if it has any, and remembers the index that it returns
    /// in every slot that is locked and written.
    #[inline]
    pub fn commit_effects(&mut self, append: impl FnOnce(&mut EffectBuffer) -> u64) -> Option<u64> {
        if self.effects.is_empty() {
            return None;
        }
        if let Held::One(_, state) = &mut self.held {
            state.last_write = append(&mut self.effects);
            self.effects.clear();
            return Some(state.last_write);
        }
        let mut whole = false;
        let effects = keyward_proto::entry::effects(self.effects.as_payload());
        let mut written: Vec<Slot> = effects
            .filter_map(|e| {
                whole |= e.slot.is_none();
                e.slot
            })
            .collect();
        written.sort_unstable();
        written.dedup();
        let index = append(&mut self.effects);
        if let Held::Many(states) = &mut self.held {
            for (slot, state) in states {
                if whole || written.binary_search(slot).is_ok() {
                    state.last_write = index;
                }
            }
        }
        self.effects.clear();
        Some(index)
    }

    /// Largest index of the last writes to the locked slots: what a read of them depends on.
    #[inline]
    pub fn last_write(&self) -> u64 {
        let held = match &self.held {
            Held::None => 0,
            Held::One(_, state) => state.last_write,
            Held::Many(states) => states.iter().map(|(_, s)| s.last_write).max().unwrap_or(0),
        };
        held.max(self.walked)
    }

    fn publish_counts(&mut self) {
        let counts = &self.space.counts;
        match &self.held {
            Held::None => {}
            Held::One(slot, state) => counts.set_slot(*slot, state.key_count(0)),
            Held::Many(states) => {
                states.iter().for_each(|(slot, state)| counts.set_slot(*slot, state.key_count(0)));
            }
        }
        self.pending.publish(counts);
    }

    /// Whether it is known without a look at the slot that it has no key of the database.
    fn is_empty_slot(&mut self, slot: Slot) -> bool {
        // What the running transaction has changed is counted later.
        let known = self.db == 0 && matches!(self.held, Held::None);
        let empty = known && self.space.counts.of_slot(slot) == 0;
        // The last key's deletion may not be committed yet.
        self.counted |= empty;
        empty
    }

    /// Whether the running command has read a count of keys, which depends on all that was written before.
    pub fn take_counted(&mut self) -> bool {
        std::mem::take(&mut self.counted)
    }

    /// Marks the locked slots as written at this index.
    pub fn set_last_write(&mut self, index: u64) {
        match &mut self.held {
            Held::None => {}
            Held::One(_, state) => state.last_write = index,
            Held::Many(states) => states.iter_mut().for_each(|(_, s)| s.last_write = index),
        }
    }

    /// Keys on which clients wait and that received data.
    pub fn take_ready(&mut self) -> Vec<DbKey> {
        std::mem::take(&mut self.ready)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Which events are wanted from now on.
    pub fn set_event_classes(&mut self, classes: EventClasses) {
        self.notify = classes;
    }

    #[inline]
    pub fn has_events(&mut self) -> bool {
        !self.events.get_mut().is_empty()
    }

    /// Keyspace events of the finished command.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(self.events.get_mut())
    }

    pub fn take_dirty(&mut self) -> u64 {
        std::mem::take(&mut self.dirty)
    }

    pub fn dirty(&self) -> u64 {
        self.dirty
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    // ------------------------------------------------------------------ slots

    /// Tells the hash of a key of the batch's receive buffer, so that it is not computed again.
    #[inline]
    pub fn set_known_hash(&mut self, key: &[u8], hash: u64) {
        debug_assert_eq!(hash, hash_of(key));
        self.known = (key.as_ptr().addr(), key.len(), hash);
    }

    #[inline]
    fn key_hash(&self, key: &[u8]) -> u64 {
        let (address, len, hash) = self.known;
        if key.as_ptr().addr() == address && key.len() == len { hash } else { hash_of(key) }
    }

    fn slot_of(&self, key: &[u8]) -> Slot {
        match &self.held {
            Held::One(slot, _) => {
                debug_assert_eq!(*slot, Slot::of(key), "a command touches a key outside its slot");
                *slot
            }
            Held::None | Held::Many(_) => Slot::of(key),
        }
    }

    /// Panics if the key's slot is not locked: the command's key positions are wrong.
    #[inline]
    fn state(&self, key: &[u8]) -> &SlotState {
        match &self.held {
            Held::One(_, state) => state,
            Held::Many(states) => {
                let slot = Slot::of(key);
                let at = states.binary_search_by_key(&slot, |(s, _)| *s).expect("the key's slot is locked");
                &states[at].1
            }
            Held::None => panic!("access to a key without its slot's lock"),
        }
    }

    #[inline]
    fn state_mut(&mut self, key: &[u8]) -> &mut SlotState {
        match &mut self.held {
            Held::One(_, state) => state,
            Held::Many(states) => {
                let slot = Slot::of(key);
                let at = states.binary_search_by_key(&slot, |(s, _)| *s).expect("the key's slot is locked");
                &mut states[at].1
            }
            Held::None => panic!("access to a key without its slot's lock"),
        }
    }

    /// Whether all keys of the command are in one slot, so that the request may be its own effect.
    pub fn is_one_slot(&self) -> bool {
        matches!(self.held, Held::One(..))
    }

    /// Whether two keys share a slot, so that one effect may touch both.
    pub fn same_slot(&self, a: &[u8], b: &[u8]) -> bool {
        matches!(self.held, Held::One(..)) || Slot::of(a) == Slot::of(b)
    }

    /// Runs `f` on a slot's state, for commands that walk the keyspace without holding it (SCAN, DBSIZE): the lock
    /// is taken for the call unless the running transaction holds it already.
    pub fn with_slot<R>(&mut self, slot: Slot, f: impl FnOnce(&mut SlotState) -> R) -> R {
        let walked = &mut self.walked;
        let f = |state: &mut SlotState| {
            *walked = state.last_write.max(*walked);
            f(state)
        };
        match &mut self.held {
            Held::One(held, state) if *held == slot => f(state),
            Held::Many(states) => match states.binary_search_by_key(&slot, |(s, _)| *s) {
                Ok(at) => f(&mut states[at].1),
                Err(_) => f(&mut self.space.lock(slot)),
            },
            Held::None | Held::One(..) => f(&mut self.space.lock(slot)),
        }
    }

    // ------------------------------------------------------------------ reading

    fn is_expired(&self, entry: &Entry) -> bool {
        self.mode != Mode::Apply && entry.expire_at().is_some_and(|at| at < self.now)
    }

    /// Whether an entry seen in a walk over the keyspace is hidden because it has expired.
    pub fn is_hidden(&self, entry: &Entry) -> bool {
        self.is_expired(entry)
    }

    /// The entry of a key, unless it has expired. Several may be borrowed at once.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.state(key).table(self.db)?.get(self.key_hash(key), key)?;
        if entry.expire_at().is_some() && self.is_expired(entry) {
            if self.mode == Mode::Primary {
                self.expired.borrow_mut().push((self.db, key.into()));
            }
            return None;
        }
        Some(entry)
    }

    /// As [`Keys::get`], counted in `keyspace_hits` and `keyspace_misses`: for commands that only read.
    #[inline]
    pub fn read(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.peek(key)?;
        if !self.no_touch {
            self.touch(entry);
        }
        Some(entry)
    }

    /// Notes that a key is used.
    #[inline]
    pub fn touch(&self, entry: &Entry) {
        if self.clock.is_lfu() {
            entry.set_access(self.clock.touched(entry.access(), throw(&self.dice)));
        } else {
            entry.set_access(self.access);
        }
    }

    /// For LFU counters.
    pub fn set_dice(&mut self, seed: u32) {
        self.dice.set(seed);
    }

    pub fn set_access_clock(&mut self, clock: AccessClock) {
        self.clock = clock;
    }

    /// By which access fields are read and written.
    pub fn access_clock(&self) -> AccessClock {
        self.clock
    }

    /// As [`Keys::read`], for commands that look at a key without using it: its access clock stays.
    #[inline]
    pub fn peek(&self, key: &[u8]) -> Option<&Entry> {
        let entry = self.get(key);
        let counter = if entry.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        if entry.is_none() && self.notify.contains(EventClass::KeyMiss) {
            let (class, event) = (EventClass::KeyMiss, "keymiss");
            self.events.borrow_mut().push(Event { class, event, db: self.db, key: key.into() });
        }
        entry
    }

    pub fn exists(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// The string at a key. `Err` if it holds another type. Counted as a hit or a miss, as the other typed reads.
    #[inline]
    pub fn string(&self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(ValueRef::String(v)) => Ok(Some(v)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn list(&self, key: &[u8]) -> Result<Option<ListRef<'_>>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(ValueRef::List(v)) => Ok(Some(v)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn set(&self, key: &[u8]) -> Result<Option<SetRef<'_>>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(ValueRef::Set(v)) => Ok(Some(v)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn hash(&self, key: &[u8]) -> Result<Option<HashRef<'_>>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(ValueRef::Hash(v)) => Ok(Some(v)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn sorted_set(&self, key: &[u8]) -> Result<Option<SortedSetRef<'_>>, WrongType> {
        match self.read(key).map(Entry::value) {
            None => Ok(None),
            Some(ValueRef::SortedSet(v)) => Ok(Some(v)),
            Some(_) => Err(WrongType),
        }
    }

    // ------------------------------------------------------------------ writing

    /// Deletes the key if it has expired, with its effect.
    pub fn expire_if_due(&mut self, key: &[u8]) {
        if self.mode != Mode::Primary {
            return;
        }
        let hash = self.key_hash(key);
        let due =
            self.state(key).table(self.db).and_then(|t| t.get(hash, key)).is_some_and(|e| self.is_expired(e));
        if due {
            self.expire_now(key);
        }
    }

    /// Deletes a key because its time has passed, with its effect.
    pub fn expire_now(&mut self, key: &[u8]) {
        if let Some(entry) = self.remove(key) {
            self.discard(entry, Cause::Expired);
            self.expired_count += 1;
            self.propagate_as(key, &[b"DEL", key]);
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

    /// Drops an entry that is not in the keyspace any more; if that takes long, after the command.
    pub fn discard(&mut self, entry: Entry, cause: Cause) {
        // What a snapshot is still saving is its own now.
        let entry = match saving_id(&entry) {
            Some(id) => self.space.cow.keep_entry(id, entry),
            None => Some(entry),
        };
        let Some(entry) = entry else { return };
        if is_large(&entry) {
            self.garbage.push(Garbage { entry, cause });
        }
    }

    /// Large values that are to be dropped now that no slot is locked.
    pub fn take_garbage(&mut self) -> Vec<Garbage> {
        std::mem::take(&mut self.garbage)
    }

    #[inline]
    pub fn has_garbage(&self) -> bool {
        !self.garbage.is_empty()
    }

    /// The keyspace, for those who hold no lock.
    pub fn space(&self) -> &'a Keyspace {
        self.space
    }

    /// The entry of a key, expired or not.
    pub fn stored(&self, key: &[u8]) -> Option<&Entry> {
        self.state(key).table(self.db)?.get(self.key_hash(key), key)
    }

    /// Whether an expiry that is about to be set has passed already, so that the key is deleted instead. Never
    /// where effects are applied: the primary has decided.
    pub fn is_past(&self, expire_at: i64) -> bool {
        self.mode == Mode::Primary && expire_at <= self.now
    }

    /// The entry of a key for changing it, unless it has expired.
    #[inline]
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let hash = self.key_hash(key);
        let (mode, now, db) = (self.mode, self.now, self.db);
        let entry = self.state(key).table(db)?.get(hash, key)?;
        if mode != Mode::Apply && entry.expire_at().is_some_and(|at| at < now) {
            self.expire_if_due(key);
            return None;
        }
        self.touch(entry);
        let is_saved = entry.epoch() == self.epoch;
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

    pub fn list_mut(&mut self, key: &[u8]) -> Result<Option<ListMut<'_>>, WrongType> {
        let limits = self.limits.list;
        match self.get_mut(key) {
            None => Ok(None),
            Some(entry) if entry.value_type() == ValueType::List => Ok(Some(ListMut::new(entry, limits))),
            Some(_) => Err(WrongType),
        }
    }

    pub fn set_mut(&mut self, key: &[u8]) -> Result<Option<SetMut<'_>>, WrongType> {
        let limits = self.limits.set;
        match self.get_mut(key) {
            None => Ok(None),
            Some(entry) if entry.value_type() == ValueType::Set => Ok(Some(SetMut::new(entry, limits))),
            Some(_) => Err(WrongType),
        }
    }

    pub fn hash_mut(&mut self, key: &[u8]) -> Result<Option<HashMut<'_>>, WrongType> {
        let limits = self.limits.hash;
        match self.get_mut(key) {
            None => Ok(None),
            Some(entry) if entry.value_type() == ValueType::Hash => Ok(Some(HashMut::new(entry, limits))),
            Some(_) => Err(WrongType),
        }
    }

    pub fn sorted_set_mut(&mut self, key: &[u8]) -> Result<Option<SortedSetMut<'_>>, WrongType> {
        let limits = self.limits.sorted_set;
        match self.get_mut(key) {
            None => Ok(None),
            Some(entry) if entry.value_type() == ValueType::SortedSet => {
                Ok(Some(SortedSetMut::new(entry, limits)))
            }
            Some(_) => Err(WrongType),
        }
    }

    /// The list at a key; an empty one is created. An empty one must not stay: see [`Keys::remove_if_empty`].
    pub fn list_or_new(&mut self, key: &[u8]) -> Result<ListMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::List);
        Ok(self.list_mut(key)?.expect("it was just created"))
    }

    pub fn set_or_new(&mut self, key: &[u8]) -> Result<SetMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::Intset);
        Ok(self.set_mut(key)?.expect("it was just created"))
    }

    pub fn hash_or_new(&mut self, key: &[u8]) -> Result<HashMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::Hash);
        Ok(self.hash_mut(key)?.expect("it was just created"))
    }

    pub fn sorted_set_or_new(&mut self, key: &[u8]) -> Result<SortedSetMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::SortedSet);
        Ok(self.sorted_set_mut(key)?.expect("it was just created"))
    }

    fn create_if_missing(&mut self, key: &[u8], form: Compact) {
        if self.get_mut(key).is_none() {
            self.insert_new(key, NewValue::Empty(form), None);
        }
    }

    /// The access clock of a key that comes from elsewhere; that of a key used now if nothing is known.
    pub fn access_of(&self, access: Option<Access>) -> u32 {
        match access {
            Some(Access::IdleSeconds(seconds)) if !self.clock.is_lfu() => {
                self.clock.from_idle_seconds(seconds)
            }
            Some(Access::Frequency(counter)) if self.clock.is_lfu() => self.clock.from_frequency(counter),
            Some(_) | None => self.access,
        }
    }

    fn insert_new(&mut self, key: &[u8], value: NewValue<'_>, expire_at: Option<i64>) {
        let (db, access) = (self.db, self.access);
        let mut entry = Entry::new(key, value, expire_at, access);
        entry.set_epoch(self.epoch);
        let hash = self.key_hash(key);
        let change = self.state_mut(key).insert_new(db, hash, entry);
        self.pending.add(db, change);
        self.notify(EventClass::New, "new", key);
    }

    /// Sets a key to a value of any type, whatever it held before.
    pub fn insert(&mut self, key: &[u8], value: NewValue<'_>, expiry: Expiry) {
        let (db, now, mode, access) = (self.db, self.now, self.mode, self.access);
        let (space, epoch) = (self.space, self.epoch);
        let lfu = self.clock.is_lfu().then(|| (self.clock, throw(&self.dice)));
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
        let live = mode == Mode::Apply || before.is_none_or(|at| now <= at);
        if !live && mode == Mode::Primary {
            // With an effect of its own: else KEEPTTL would keep the old expiry on a replica.
            self.expire_now(key);
            return self.insert_new(key, value, new_expiry);
        }
        if entry.epoch() != epoch {
            space.cow.save_old(Slot::of(key), db, entry);
        }
        let access = lfu.map_or(access, |(clock, random)| clock.touched(entry.access(), random));
        let mut replaced = None;
        if is_large(entry) || saving_id(entry).is_some() {
            let mut new = Entry::new(key, value, before, access);
            new.set_epoch(epoch);
            replaced = Some(std::mem::replace(entry, new));
        } else {
            entry.set_value(value);
            entry.set_access(access);
        }
        let after = if expiry == Expiry::Keep && live { before } else { new_expiry };
        if before != after {
            entry.set_expire_at(after);
            let expires = state.count_expiry(db, before, after);
            self.pending.add(db, Count { expires, ..Count::default() });
        }
        if let Some(replaced) = replaced {
            self.discard(replaced, Cause::Replaced);
        }
    }

    /// Puts an entry under a key that does not exist: RENAME, MOVE, COPY, RESTORE.
    pub fn insert_entry(&mut self, mut entry: Entry) {
        entry.set_epoch(self.epoch);
        if let Some(replaced) = self.remove(entry.key()) {
            self.discard(replaced, Cause::Replaced);
        }
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
        if entry.epoch() != self.epoch {
            self.space.cow.save_old(Slot::of(key), db, &mut entry);
        }
        self.modified(key);
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
        let empty = match self.get(key).map(Entry::value) {
            None | Some(ValueRef::String(_)) => false,
            Some(ValueRef::List(v)) => v.is_empty(),
            Some(ValueRef::Set(v)) => v.is_empty(),
            Some(ValueRef::Hash(v)) => v.is_empty(),
            Some(ValueRef::SortedSet(v)) => v.is_empty(),
        };
        if empty {
            if let Some(entry) = self.remove(key) {
                self.discard(entry, Cause::Deleted);
            }
            self.notify(EventClass::Generic, "del", key);
        }
        empty
    }

    /// Sets or removes the expiry of an existing key.
    pub fn set_expire_at(&mut self, key: &[u8], expire_at: Option<i64>) {
        let (space, db, epoch) = (self.space, self.db, self.epoch);
        let hash = self.key_hash(key);
        let state = self.state_mut(key);
        let Some(entry) = state.table_mut(db).get_mut(hash, key) else { return };
        if entry.epoch() != epoch {
            space.cow.save_old(Slot::of(key), db, entry);
        }
        let before = entry.expire_at();
        entry.set_expire_at(expire_at);
        let expires = state.count_expiry(db, before, expire_at);
        self.pending.add(db, Count { expires, ..Count::default() });
    }

    /// Deletes expired keys among some `len` entries of the one locked slot, from where `walk` is; returns where to go
    /// on. At the end of a walk the slot knows again when its next key expires.
    ///
    /// While a walk is under way keys that get an expiry lower `next_expiry`, and each step does for those that it
    /// passes: at the end it is right whatever happened between the steps.
    pub fn expire_step(&mut self, walk: ExpiryWalk, len: usize) -> Option<ExpiryWalk> {
        let now = self.now;
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
                        Some(at) if at < now => due.push((db, entry.key().into())),
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

    // ------------------------------------------------------------------ after a change

    /// A key changed: transactions that watch it fail.
    #[inline]
    pub fn modified(&mut self, key: &[u8]) {
        self.dirty += 1;
        let db = self.db;
        let state = self.state_mut(key);
        if state.is_watched() {
            state.mark_watchers(db, key);
        }
    }

    /// A list or sorted set received elements: clients that wait for it are served after the command.
    #[inline]
    pub fn signal_ready(&mut self, key: &[u8]) {
        if self.mode != Mode::Apply && self.state(key).has_waiters() {
            let ready = (self.db, key.into());
            if !self.ready.contains(&ready) {
                self.ready.push(ready);
            }
        }
    }

    /// The request itself is an effect on the slot of `key`.
    #[inline]
    pub fn propagate(&mut self, key: &[u8], args: Args<'_>) {
        if !self.logging {
            return;
        }
        // What the command saw as expired must not be there either when its effect is applied.
        self.finish();
        if let Some(name) = self.command {
            let args: Vec<&[u8]> = std::iter::once(name.as_bytes()).chain(args.iter().skip(1)).collect();
            return self.propagate_as(key, &args);
        }
        let slot = self.slot_of(key);
        match args.raw() {
            Some(raw) => self.effects.push(Some(slot), self.db, raw),
            None => {
                let args: Vec<&[u8]> = args.iter().collect();
                self.propagate_as(key, &args);
            }
        }
    }

    /// A command with the same effect as the request, deterministic and on the slot of `key` only.
    #[inline]
    pub fn propagate_as(&mut self, key: &[u8], command: &[&[u8]]) {
        if !self.logging {
            return;
        }
        self.finish();
        let slot = self.slot_of(key);
        self.encoded.clear();
        write_command(&mut self.encoded, command);
        self.effects.push(Some(slot), self.db, &self.encoded);
    }

    /// The effects that put a value under `key` in the current database, in place of another one if it `replaces` one: called before
    /// anything has changed.
    ///
    /// # Errors
    /// They would be too long for the write log.
    pub fn propagate_value(
        &mut self,
        key: &[u8],
        replaces: bool,
        value: ValueRef<'_>,
        expire_at: Option<i64>,
    ) -> Result<(), TooLong> {
        if !self.logging {
            return Ok(());
        }
        self.finish();
        let (slot, db) = (self.slot_of(key), self.db);
        self.effects.push_value(slot, db, key, replaces, self.entry_bytes_max, |emit| {
            rebuild_as(key, value, expire_at, emit);
        })
    }

    /// As [`Keys::propagate_value`], with the value and the expiry of another key, and without that key if it `moves`.
    ///
    /// # Errors
    /// They would be too long for the write log.
    pub fn propagate_copy(
        &mut self,
        source: &[u8],
        key: &[u8],
        (source_db, db): (DbIndex, DbIndex),
        replaces: bool,
        moves: bool,
    ) -> Result<(), TooLong> {
        if !self.logging {
            return Ok(());
        }
        self.finish();
        let mut effects = std::mem::take(&mut self.effects);
        let (len, slot) = (effects.len(), self.slot_of(key));
        if moves {
            self.encoded.clear();
            write_command(&mut self.encoded, &[b"DEL", source]);
            effects.push(Some(self.slot_of(source)), source_db, &self.encoded);
        }
        let pushed = match self.get(source) {
            Some(entry) => effects.push_value(slot, db, key, replaces, self.entry_bytes_max, |emit| {
                rebuild_as(key, entry.value(), entry.expire_at(), emit);
            }),
            None => Ok(()),
        };
        if pushed.is_err() && moves {
            effects.truncate(len);
        }
        self.effects = effects;
        pushed
    }

    /// Checks, before anything has changed, that effects of about so many bytes may still be added.
    ///
    /// # Errors
    /// They would be too long for the write log.
    #[inline]
    pub fn check_entry(&self, effect_bytes: impl FnOnce() -> usize) -> Result<(), TooLong> {
        match self.entry_room() {
            Some(room) if room < effect_bytes() => Err(TooLong),
            Some(_) | None => Ok(()),
        }
    }

    /// How many bytes of effects may still be added; `None`: nobody reads the log.
    #[inline]
    pub fn entry_room(&self) -> Option<usize> {
        self.logging.then(|| self.entry_bytes_max.saturating_sub(self.effects.len()))
    }

    /// An effect on the whole keyspace; the world is stopped.
    pub fn propagate_whole(&mut self, command: &[&[u8]]) {
        if self.logging {
            self.encoded.clear();
            write_command(&mut self.encoded, command);
            self.effects.push(None, self.db, &self.encoded);
        }
        self.dirty += 1;
    }

    /// A keyspace event, published after the command if `notify-keyspace-events` asks for it.
    #[inline]
    pub fn notify(&mut self, class: EventClass, event: &'static str, key: &[u8]) {
        if self.mode != Mode::Apply && self.notify.contains(class) {
            self.events.get_mut().push(Event { class, event, db: self.db, key: key.into() });
        }
    }

    // ------------------------------------------------------------------ walks

    /// Number of keys of a database, expired ones that still take memory included.
    pub fn len(&mut self, db: DbIndex) -> usize {
        self.counted = true;
        let len = self.space.counts.of(db).keys + self.pending.keys(db);
        usize::try_from(len).unwrap_or(0)
    }

    /// What each database has, with what the running transaction has changed.
    pub fn counts_of_all(&self) -> BTreeMap<DbIndex, Count> {
        self.space.counts.all_with(&self.pending)
    }

    pub fn is_empty(&mut self, db: DbIndex) -> bool {
        self.len(db) == 0
    }

    /// A key of the database that has not expired, nearly every one as likely as any other: slots are drawn, and one
    /// of them by its number of keys. Where that finds too few keys, all slots take part.
    pub fn random_key(&mut self, rng: &mut impl Rng) -> Option<Box<[u8]>> {
        const DRAWN: usize = 32;
        const ATTEMPTS: usize = 100;
        let db = self.db;
        let drawn: Vec<Slot> =
            (0..DRAWN).filter_map(|_| Slot::new(rng.random_range(0..SLOT_COUNT))).collect();
        let mut counts = self.counts(drawn.into_iter());
        if counts.len() < DRAWN / 2 {
            counts = self.counts(Slot::all());
        }
        let total: usize = counts.iter().map(|(_, n)| n).sum();
        if total == 0 {
            return None;
        }
        let (now, mode) = (self.now, self.mode);
        let live = |e: &&Entry| mode == Mode::Apply || e.expire_at().is_none_or(|at| now <= at);
        for _ in 0..ATTEMPTS {
            let mut place = rng.random_range(0..total);
            let (slot, _) = counts.iter().find(|(_, n)| {
                let here = place < *n;
                place = place.saturating_sub(*n);
                here
            })?;
            let key = self.with_slot(*slot, |state| {
                let entry = state.table(db)?.random(|| rng.random())?;
                live(&entry).then(|| Box::from(entry.key()))
            });
            if key.is_some() {
                return key;
            }
        }
        // Most keys have expired: the first live one will do.
        Slot::all().find_map(|slot| {
            self.with_slot(slot, |state| state.table(db)?.iter().find(live).map(|e| e.key().into()))
        })
    }

    /// The slots among these that hold keys, and how many.
    fn counts(&mut self, slots: impl Iterator<Item = Slot>) -> Vec<(Slot, usize)> {
        let db = self.db;
        let mut counts = Vec::new();
        for slot in slots {
            if !self.is_empty_slot(slot) {
                let len = self.with_slot(slot, |state| state.key_count(db));
                counts.extend((len > 0).then_some((slot, len)));
            }
        }
        counts
    }

    /// One step of a SCAN of a database: visits a bucket, or passes over empty slots. `None` at the end.
    pub fn scan(&mut self, cursor: u64, visit: &mut dyn FnMut(&Entry)) -> Option<u64> {
        let (mut number, position) = ((cursor >> 32) as u16, cursor as ScanPosition);
        let mut position = Some(position);
        let db = self.db;
        while number < SLOT_COUNT {
            let slot = Slot::new(number)?;
            if let Some(at) = position.filter(|_| !self.is_empty_slot(slot)) {
                let next = self.with_slot(slot, |state| match state.table(db) {
                    Some(table) if !table.is_empty() => (true, table.scan(at, visit)),
                    Some(_) | None => (false, None),
                });
                if let (_, Some(next)) = next {
                    return Some(u64::from(number) << 32 | u64::from(next));
                }
                if next.0 {
                    let next = number + 1;
                    return (next < SLOT_COUNT).then(|| u64::from(next) << 32);
                }
            }
            number += 1;
            position = Some(0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyward_proto::entry::effects;

    /// Effects and value of a command that runs on a key which has expired but was not deleted yet.
    fn run(command: impl FnOnce(&mut Keys<'_>)) -> Vec<String> {
        let space = Keyspace::default();
        let mut keys =
            Keys::new(&space, Mode::Primary, true, 100, AccessClock::default(), EventClasses::default());
        keys.lock_one(Slot::of(b"k"));
        keys.insert(b"k", NewValue::Bytes(b"old"), Expiry::At(50));
        command(&mut keys);
        keys.finish();
        let mut found = Vec::new();
        keys.commit_effects(|buffer| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", " ");
            found.extend(effects(buffer.as_payload()).map(|e| text(e.command)));
            1
        });
        found
    }

    #[test]
    fn what_a_command_saw_as_expired_is_deleted_before_its_effect() {
        let effects = run(|keys| {
            assert!(!keys.exists(b"k"));
            keys.propagate_as(b"{k}2", &[b"X"]);
        });
        assert_eq!(effects, ["*2 $3 DEL $1 k ", "*1 $1 X "]);
        assert_eq!(run(|keys| assert!(keys.read(b"k").is_none())), ["*2 $3 DEL $1 k "]);
    }

    #[test]
    fn what_would_be_too_long_for_an_entry_is_refused_before_it_changes_anything() {
        let space = Keyspace::default();
        let mut keys =
            Keys::new(&space, Mode::Primary, true, 0, AccessClock::default(), EventClasses::default());
        keys.entry_bytes_max = 1000;
        keys.lock_many([Slot::of(b"a"), Slot::of(b"b")]);
        keys.insert(b"a", NewValue::Bytes(&[b'x'; 300]), Expiry::None);
        keys.propagate_as(b"b", &[b"X"]);
        for (copies, ok) in [(1, true), (2, true), (3, false)] {
            let copied = keys.propagate_copy(b"a", b"b", (0, 0), false, false);
            assert_eq!(copied.is_ok(), ok, "{copies}");
            keys.propagate_as(b"b", &[b"X"]);
        }
        assert!(keys.propagate_copy(b"a", b"b", (0, 0), true, true).is_err());
        assert!(keys.check_entry(|| 100).is_ok());
        assert!(keys.check_entry(|| 1000).is_err());
        let mut names = Vec::new();
        keys.commit_effects(|buffer| {
            let text = |command: &[u8]| String::from_utf8_lossy(command).into_owned();
            names.extend(
                effects(buffer.as_payload())
                    .filter_map(|e| text(e.command).split("\r\n").nth(2).map(str::to_owned)),
            );
            1
        });
        assert_eq!(names, ["X", "SET", "X", "SET", "X", "X"]);
    }

    #[test]
    fn an_expired_value_leaves_no_expiry_to_keep() {
        let effects = run(|keys| {
            keys.insert(b"k", NewValue::Bytes(b"new"), Expiry::Keep);
            keys.propagate_as(b"k", &[b"X"]);
            assert_eq!(keys.get(b"k").and_then(Entry::expire_at), None);
        });
        assert_eq!(effects, ["*2 $3 DEL $1 k ", "*1 $1 X "]);
    }
}
