//! The keyspace: 16384 slot tables, each behind a small lock of its own.
//!
//! - [`entry`]: a key with its value in one allocation
//! - [`access`]: when and how often a key was used; [`eviction`]: which key to give up when memory is short
//! - [`table`]: the hash table of a slot
//! - [`types`]: the value types
//! - [`keys`]: what a command sees of the keyspace while it holds the locks of its slots
//! - [`prefetch`]: loads cache lines ahead of their use (with `entry` the only modules with `unsafe`)
//! - [`rebuild`]: a value as the commands that build it anew
//! - [`size_class`]: the sizes in which the allocator gives memory
//! - [`snapshot`]: all entries as they were at one moment, while they go on changing
//! - [`usage`]: what a key takes; [`garbage`]: what takes long to drop
//! - [`world`]: stopping the world for what concerns the whole keyspace
//!
//! Architecture invariant: nothing in here does I/O, reads a clock or awaits.

pub mod access;
pub mod entry;
pub mod eviction;
pub mod garbage;
pub mod keys;
pub mod prefetch;
pub mod rebuild;
pub mod size_class;
pub mod snapshot;
pub mod table;
pub mod types;
pub mod usage;
pub mod world;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keyward_proto::slot::{SLOT_COUNT, Slot};
use parking_lot::{Mutex, MutexGuard};

use crate::blocking::Waiter;
use entry::Entry;
use snapshot::CopyOnWrite;
use table::Table;

/// A numbered database.
pub type DbIndex = u16;

/// A key of a database.
pub type DbKey = (DbIndex, Box<[u8]>);

/// What a slot's lock guards.
#[derive(Debug, Default)]
pub struct SlotState {
    /// Database 0, the only one of most installations.
    db0: Table<Entry>,
    /// Index of the last entry of the write log that wrote to this slot: what a read of it waits for.
    pub last_write: u64,
    /// No key of this slot expires before this; zero: none has an expiry.
    pub next_expiry: i64,
    rare: Option<Box<Rare>>,
}

/// What few slots have.
#[derive(Debug, Default)]
struct Rare {
    other_dbs: BTreeMap<DbIndex, Table<Entry>>,
    /// Keys with an expiry.
    expires: BTreeMap<DbIndex, usize>,
    /// Flags of the transactions that watch a key.
    watched: BTreeMap<DbKey, Vec<Arc<AtomicBool>>>,
    /// Clients that wait for a key, first come first served.
    waiters: BTreeMap<DbKey, VecDeque<Arc<Waiter>>>,
}

impl SlotState {
    pub fn table(&self, db: DbIndex) -> Option<&Table<Entry>> {
        if db == 0 { Some(&self.db0) } else { self.rare.as_ref()?.other_dbs.get(&db) }
    }

    /// Whoever puts an entry into it gives it the current epoch, and changes or removes none that a running snapshot
    /// has not saved: see [`snapshot`].
    fn table_mut(&mut self, db: DbIndex) -> &mut Table<Entry> {
        if db == 0 { &mut self.db0 } else { self.rare().other_dbs.entry(db).or_default() }
    }

    /// The first database from `db` on that holds keys.
    fn next_table_mut(&mut self, db: DbIndex) -> Option<(DbIndex, &mut Table<Entry>)> {
        if db == 0 && !self.db0.is_empty() {
            return Some((0, &mut self.db0));
        }
        let others = self.rare.as_mut()?.other_dbs.range_mut(db..);
        others.map(|(db, table)| (*db, table)).find(|(_, table)| !table.is_empty())
    }

    /// Databases of this slot that hold keys.
    pub fn dbs(&self) -> impl Iterator<Item = (DbIndex, &Table<Entry>)> {
        let others = self.rare.iter().flat_map(|r| r.other_dbs.iter().map(|(db, t)| (*db, t)));
        std::iter::once((0, &self.db0)).chain(others).filter(|(_, t)| !t.is_empty())
    }

    pub fn key_count(&self, db: DbIndex) -> usize {
        self.table(db).map_or(0, Table::len)
    }

    pub fn expires_count(&self, db: DbIndex) -> usize {
        self.rare.as_ref().and_then(|r| r.expires.get(&db)).copied().unwrap_or(0)
    }

    /// Adds a key that was loaded, of the current epoch; false if it is there already.
    pub fn insert_loaded(&mut self, db: DbIndex, hash: u64, entry: Entry) -> bool {
        let expire_at = entry.expire_at();
        let table = self.table_mut(db);
        if table.get(hash, entry.key()).is_some() {
            return false;
        }
        table.insert_new(hash, entry);
        if expire_at.is_some() {
            self.count_expiry(db, None, expire_at);
        }
        true
    }

    /// Makes room for so many keys in the first database.
    pub fn reserve(&mut self, keys: usize) {
        self.db0.reserve(keys);
    }

    /// Empties one database, or all; returns the tables, to be given to [`CopyOnWrite::keep_taken`].
    pub fn take_tables(&mut self, db: Option<DbIndex>) -> Vec<(DbIndex, Table<Entry>)> {
        let mut taken = Vec::new();
        if db.is_none_or(|db| db == 0) && !self.db0.is_empty() {
            taken.push((0, std::mem::take(&mut self.db0)));
        }
        if let Some(rare) = &mut self.rare {
            match db {
                Some(db) => {
                    rare.expires.remove(&db);
                    taken.extend(rare.other_dbs.remove(&db).map(|table| (db, table)));
                }
                None => {
                    rare.expires.clear();
                    taken.extend(std::mem::take(&mut rare.other_dbs));
                }
            }
        }
        taken
    }

    pub fn swap_dbs(&mut self, a: DbIndex, b: DbIndex) {
        if self.rare.is_none() && (self.db0.is_empty() || (a != 0 && b != 0)) {
            return;
        }
        let (table_a, table_b) = (std::mem::take(self.table_mut(a)), std::mem::take(self.table_mut(b)));
        *self.table_mut(a) = table_b;
        *self.table_mut(b) = table_a;
        let rare = self.rare();
        let (expires_a, expires_b) = (rare.expires.remove(&a), rare.expires.remove(&b));
        rare.expires.extend(expires_b.map(|n| (a, n)));
        rare.expires.extend(expires_a.map(|n| (b, n)));
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Bookkeeping for a key that got (`added`) or lost an expiry.
    fn count_expiry(&mut self, db: DbIndex, before: Option<i64>, after: Option<i64>) {
        if let Some(at) = after
            && (self.next_expiry == 0 || at < self.next_expiry)
        {
            self.next_expiry = at.max(1);
        }
        match (before.is_some(), after.is_some()) {
            (false, true) => *self.rare().expires.entry(db).or_default() += 1,
            (true, false) => {
                let count = self.rare().expires.entry(db).or_default();
                *count = count.saturating_sub(1);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Sets `flag` when the key is modified, until [`SlotState::unwatch`].
    pub fn watch(&mut self, key: DbKey, flag: Arc<AtomicBool>) {
        self.rare().watched.entry(key).or_default().push(flag);
    }

    pub fn unwatch(&mut self, key: &DbKey, flag: &Arc<AtomicBool>) {
        let Some(rare) = &mut self.rare else { return };
        if let Some(flags) = rare.watched.get_mut(key) {
            flags.retain(|f| !Arc::ptr_eq(f, flag));
            if flags.is_empty() {
                rare.watched.remove(key);
            }
        }
    }

    /// Transactions that watch this key, or any key of the slot, will fail.
    pub fn mark_watchers(&mut self, db: DbIndex, key: Option<&[u8]>) {
        let Some(rare) = &mut self.rare else { return };
        if rare.watched.is_empty() {
            return;
        }
        for ((watched_db, watched_key), flags) in &rare.watched {
            if *watched_db == db && key.is_none_or(|k| **watched_key == *k) {
                for flag in flags {
                    flag.store(true, std::sync::atomic::Ordering::Release);
                }
            }
        }
    }

    /// Transactions that watch a key that exists, in a database of which `affected` is true, will fail: the database
    /// is about to be emptied or swapped.
    pub fn mark_watchers_of_existing(&self, affected: impl Fn(DbIndex) -> bool) {
        let Some(rare) = &self.rare else { return };
        for ((db, key), flags) in &rare.watched {
            let exists = self.table(*db).is_some_and(|t| t.get(table::hash_of(key), key).is_some());
            if affected(*db) && exists {
                flags.iter().for_each(|flag| flag.store(true, std::sync::atomic::Ordering::Release));
            }
        }
    }

    /// Keys of this slot for which clients wait.
    pub fn waiting_keys(&self) -> impl Iterator<Item = &DbKey> {
        self.rare.iter().flat_map(|r| r.waiters.keys())
    }

    /// Whether somebody watches a key of this slot.
    pub fn is_watched(&self) -> bool {
        self.rare.as_ref().is_some_and(|r| !r.watched.is_empty())
    }

    pub fn add_waiter(&mut self, key: DbKey, waiter: Arc<Waiter>) {
        self.rare().waiters.entry(key).or_default().push_back(waiter);
    }

    pub fn remove_waiter(&mut self, key: &DbKey, waiter: &Arc<Waiter>) {
        let Some(rare) = &mut self.rare else { return };
        if let Some(queue) = rare.waiters.get_mut(key) {
            queue.retain(|w| !Arc::ptr_eq(w, waiter));
            if queue.is_empty() {
                rare.waiters.remove(key);
            }
        }
    }

    /// Clients that wait for this key, in their order.
    pub fn waiters(&self, key: &DbKey) -> Vec<Arc<Waiter>> {
        let queue = self.rare.as_ref().and_then(|r| r.waiters.get(key));
        queue.map_or_else(Vec::new, |q| q.iter().cloned().collect())
    }

    pub fn has_waiters(&self) -> bool {
        self.rare.as_ref().is_some_and(|r| !r.waiters.is_empty())
    }
}

/// One slot, alone in its cache line so that threads do not disturb each other.
#[repr(align(64))]
#[derive(Debug, Default)]
struct SlotCell(Mutex<SlotState>);

/// All slots.
#[derive(Debug)]
pub struct Keyspace {
    slots: Box<[SlotCell]>,
    /// Where the buckets of each slot's first database probably are, to prefetch them without the slot's lock. Brought
    /// up to date by whoever holds the lock and finds the hint wrong.
    hints: Box<[BucketsHint]>,
    /// What a running snapshot needs of whoever changes the keyspace.
    pub cow: CopyOnWrite,
}

/// Address and number of buckets of a table in one word: they are aligned to 64 bytes, so 42 bits of the address are
/// left, and 22 for the number. Zero: not known, or too many.
#[derive(Debug, Default)]
struct BucketsHint(AtomicU64);

impl BucketsHint {
    const LEN_BITS: u32 = 22;

    fn store(&self, address: usize, buckets: usize) {
        let fits = buckets >> Self::LEN_BITS == 0 && address >> 48 == 0;
        let hint = if fits { (address as u64 >> 6) << Self::LEN_BITS | buckets as u64 } else { 0 };
        if self.0.load(Ordering::Relaxed) != hint {
            self.0.store(hint, Ordering::Relaxed);
        }
    }

    #[inline]
    fn load(&self) -> (usize, usize) {
        let hint = self.0.load(Ordering::Relaxed);
        let address = (hint >> Self::LEN_BITS) << 6;
        (address as usize, (hint & ((1 << Self::LEN_BITS) - 1)) as usize)
    }
}

impl Default for Keyspace {
    fn default() -> Self {
        let len = usize::from(SLOT_COUNT);
        Keyspace {
            slots: std::iter::repeat_with(SlotCell::default).take(len).collect(),
            hints: std::iter::repeat_with(BucketsHint::default).take(len).collect(),
            cow: CopyOnWrite::default(),
        }
    }
}

impl Keyspace {
    #[inline]
    pub fn lock(&self, slot: Slot) -> MutexGuard<'_, SlotState> {
        self.slots[slot.index()].0.lock()
    }

    /// Has the slot's state and, in the first database, the bucket of this hash loaded.
    #[inline]
    pub fn prefetch_bucket(&self, slot: Slot, hash: u64) {
        prefetch::prefetch(std::ptr::from_ref(&self.slots[slot.index()]).cast());
        let (address, buckets) = self.hints[slot.index()].load();
        let bucket = address + table::bucket_offset(hash, buckets);
        prefetch::prefetch(std::ptr::without_provenance(bucket));
    }

    /// Has the bucket loaded into which a key of this hash is about to be inserted.
    pub fn prefetch_insertion(&self, slot: Slot, db: DbIndex, hash: u64) {
        let Some(state) = self.slots[slot.index()].0.try_lock() else { return };
        if let Some((address, buckets)) = state.table(db).map(Table::buckets) {
            drop(state);
            let bucket = address + table::bucket_offset(hash, buckets);
            prefetch::prefetch(std::ptr::without_provenance(bucket));
        }
    }

    /// Has the entry loaded that probably has this hash, unless another thread is working in the slot.
    #[inline]
    pub fn prefetch_entry(&self, slot: Slot, db: DbIndex, hash: u64) {
        let Some(state) = self.slots[slot.index()].0.try_lock() else { return };
        let (address, buckets) = state.db0.buckets();
        self.hints[slot.index()].store(address, buckets);
        if let Some(entry) = state.table(db).and_then(|table| table.candidate(hash)) {
            // A small entry has two lines.
            prefetch::prefetch(entry.address());
            prefetch::prefetch(entry.address().wrapping_add(64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!(size_of::<SlotCell>(), 64);
    }

    #[test]
    fn a_hint_keeps_address_and_number() {
        let hint = BucketsHint::default();
        for (address, buckets, found) in [
            (0x7f12_3456_7fc0, 19, (0x7f12_3456_7fc0, 19)),
            (0x7f12_3456_7fc0, 1 << 22, (0, 0)),
            (1 << 48, 1, (0, 0)),
            (0xffff_ffff_ffc0, (1 << 22) - 1, (0xffff_ffff_ffc0, (1 << 22) - 1)),
        ] {
            hint.store(address, buckets);
            assert_eq!(hint.load(), found);
        }
    }
}
