//! 16384 slots, each with its tables behind a small lock of its own, and what few slots have beside them: numbered
//! databases, watched keys, clients that wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::ids::LogIndex;
use keyward_proto::slot::{SLOT_COUNT, Slot};
use parking_lot::{Mutex, MutexGuard};

use crate::counts::{Count, Counts};
use crate::entry::{Entry, ValueType};
use crate::patience::may_wait_for_command;
use crate::prefetch::prefetch;
use crate::rdb;
use crate::snapshot::CopyOnWrite;
use crate::table::{self, Table};
use crate::tracking::{Changed, ReadKeys, Readers, TrackingCounts};
use crate::world::wait_for;

/// A numbered database.
pub type DbIndex = u16;

/// A key of a database.
pub type DbKey = (DbIndex, Box<[u8]>);

/// A client that waits for a key. What it waits to execute is known to whoever put it here.
pub trait Waiter: std::any::Any + std::fmt::Debug + Send + Sync {}

/// What a slot's lock guards.
#[derive(Debug, Default)]
pub struct SlotState {
    /// Database 0, the only one of most installations.
    db0: Table<Entry>,
    /// Index of the last entry of the write log that wrote to this slot: what a read of it waits for.
    pub last_write: LogIndex,
    /// No key of this slot, nor a field, expires before this; zero: none has an expiry.
    pub next_expiry: i64,
    rare: Option<Box<Rare>>,
}

/// Flags of the clients whose transactions watch a key, by the clients' numbers.
type Watchers = BTreeMap<u64, Arc<AtomicBool>>;

/// What few slots have.
#[derive(Debug, Default)]
struct Rare {
    other_dbs: BTreeMap<DbIndex, Table<Entry>>,
    /// Keys with an expiry.
    expires: PerDb,
    /// Keys whose fields have times.
    volatile: PerDb,
    /// Who watches a key.
    watched: BTreeMap<DbIndex, BTreeMap<Box<[u8]>, Watchers>>,
    /// Clients that wait for a key, first come first served.
    waiters: BTreeMap<DbKey, VecDeque<Arc<dyn Waiter>>>,
    /// Keys that clients have read who want to hear of their changes.
    read: ReadKeys,
}

/// A number for each database of a slot, of which there are few: sorted, without zeros.
#[derive(Debug, Default)]
struct PerDb(Vec<(DbIndex, u32)>);

impl PerDb {
    fn of(&self, db: DbIndex) -> usize {
        self.0.binary_search_by_key(&db, |(of, _)| *of).map_or(0, |at| self.0[at].1 as usize)
    }

    fn set(&mut self, db: DbIndex, number: u32) {
        match (self.0.binary_search_by_key(&db, |(of, _)| *of), number) {
            (Ok(at), 0) => drop(self.0.remove(at)),
            (Ok(at), _) => self.0[at].1 = number,
            (Err(_), 0) => {}
            (Err(at), _) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (db, number));
            }
        }
    }

    fn add(&mut self, db: DbIndex, change: i32) {
        self.set(db, u32::try_from(self.of(db)).unwrap_or(u32::MAX).saturating_add_signed(change));
    }

    fn swap(&mut self, a: DbIndex, b: DbIndex) {
        let [of_a, of_b] = [a, b].map(|db| u32::try_from(self.of(db)).unwrap_or(u32::MAX));
        self.set(a, of_b);
        self.set(b, of_a);
    }
}

impl SlotState {
    pub fn table(&self, db: DbIndex) -> Option<&Table<Entry>> {
        if db == 0 { Some(&self.db0) } else { self.rare.as_ref()?.other_dbs.get(&db) }
    }

    /// Whoever puts an entry into it gives it the current mark, and changes or removes none that a running snapshot
    /// has not saved: see [`snapshot`].
    pub(crate) fn table_mut(&mut self, db: DbIndex) -> &mut Table<Entry> {
        if db == 0 { &mut self.db0 } else { self.rare().other_dbs.entry(db).or_default() }
    }

    /// The first database from `db` on that holds keys.
    pub(crate) fn next_table_mut(&mut self, db: DbIndex) -> Option<(DbIndex, &mut Table<Entry>)> {
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
        self.rare.as_ref().map_or(0, |rare| rare.expires.of(db))
    }

    /// Keys whose fields have times.
    pub fn volatile_count(&self, db: DbIndex) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.volatile.of(db))
    }

    /// Adds a key that is not there, with the current mark; returns what has changed.
    #[inline]
    pub(crate) fn insert_new(&mut self, db: DbIndex, hash: u64, mut entry: Entry) -> Count {
        let expire_at = entry.expire_at();
        let volatile = match entry.volatile() {
            Some(_) => self.count_recounted(db, entry.recount_volatile()),
            None => 0,
        };
        let table = self.table_mut(db);
        let bytes_before = table.buckets_len_bytes();
        table.insert_new(hash, entry);
        let bucket_bytes = difference(table.buckets_len_bytes(), bytes_before);
        let expires = if expire_at.is_some() { self.count_expiry(db, None, expire_at) } else { 0 };
        Count { keys: 1, expires, volatile, bucket_bytes }
    }

    /// Removes a key; returns what has changed, too.
    #[inline]
    pub(crate) fn remove(&mut self, db: DbIndex, hash: u64, key: &[u8]) -> Option<(Entry, Count)> {
        let table = self.table_mut(db);
        let bytes_before = table.buckets_len_bytes();
        let mut entry = table.remove(hash, key)?;
        let bucket_bytes = difference(table.buckets_len_bytes(), bytes_before);
        let expire_at = entry.expire_at();
        let expires = if expire_at.is_some() { self.count_expiry(db, expire_at, None) } else { 0 };
        // It is counted where it is put.
        let volatile = if entry.forget_volatile() { self.count_volatile(db, -1) } else { 0 };
        Some((entry, Count { keys: -1, expires, volatile, bucket_bytes }))
    }

    /// The times of a key's fields may have changed; returns how many more keys have such.
    pub(crate) fn recount_volatile(&mut self, db: DbIndex, hash: u64, key: &[u8]) -> i64 {
        match self.table_mut(db).get_mut(hash, key).map(Entry::recount_volatile) {
            Some(recounted) => self.count_recounted(db, recounted),
            None => 0,
        }
    }

    fn count_recounted(&mut self, db: DbIndex, (was_counted, next): (bool, Option<i64>)) -> i64 {
        if let Some(at) = next {
            self.expires_by(at);
        }
        match (was_counted, next.is_some()) {
            (false, true) => self.count_volatile(db, 1),
            (true, false) => self.count_volatile(db, -1),
            (true, true) | (false, false) => 0,
        }
    }

    /// Counts a key whose fields have times, or one less; returns the change.
    pub(crate) fn count_volatile(&mut self, db: DbIndex, change: i32) -> i64 {
        self.rare().volatile.add(db, change);
        change.into()
    }

    /// Something of the slot expires at this time.
    pub(crate) fn expires_by(&mut self, at: i64) {
        if self.next_expiry == 0 || at < self.next_expiry {
            self.next_expiry = at.max(1);
        }
    }

    /// What it has of a database.
    fn count(&self, db: DbIndex) -> Count {
        let table = self.table(db);
        Count {
            keys: difference(table.map_or(0, Table::len), 0),
            expires: difference(self.expires_count(db), 0),
            volatile: difference(self.volatile_count(db), 0),
            bucket_bytes: difference(table.map_or(0, Table::buckets_len_bytes), 0),
        }
    }

    /// Empties one database, or all; returns the tables, to be given to [`CopyOnWrite::keep_taken`].
    pub fn take_tables(
        &mut self,
        slot: Slot,
        db: Option<DbIndex>,
        counts: &Counts,
    ) -> Vec<(DbIndex, Table<Entry>)> {
        let dbs: Vec<DbIndex> =
            self.dbs().map(|(db, _)| db).filter(|found| db.is_none_or(|db| db == *found)).collect();
        dbs.iter().for_each(|db| counts.add(*db, -self.count(*db)));
        let mut taken = Vec::new();
        if db.is_none_or(|db| db == 0) && !self.db0.is_empty() {
            taken.push((0, std::mem::take(&mut self.db0)));
            counts.set_slot(slot, 0);
        }
        if let Some(rare) = &mut self.rare {
            match db {
                Some(db) => {
                    rare.expires.set(db, 0);
                    rare.volatile.set(db, 0);
                    taken.extend(rare.other_dbs.remove(&db).map(|table| (db, table)));
                }
                None => {
                    (rare.expires, rare.volatile) = Default::default();
                    taken.extend(std::mem::take(&mut rare.other_dbs));
                }
            }
        }
        taken
    }

    pub fn swap_dbs(&mut self, slot: Slot, a: DbIndex, b: DbIndex, counts: &Counts) {
        if self.rare.is_none() && (self.db0.is_empty() || (a != 0 && b != 0)) {
            return;
        }
        let (count_a, count_b) = (self.count(a), self.count(b));
        for (db, before, after) in [(a, count_a, count_b), (b, count_b, count_a)] {
            counts.add(db, -before);
            counts.add(db, after);
        }
        let (table_a, table_b) = (std::mem::take(self.table_mut(a)), std::mem::take(self.table_mut(b)));
        *self.table_mut(a) = table_b;
        *self.table_mut(b) = table_a;
        counts.set_slot(slot, self.db0.len());
        let rare = self.rare();
        rare.expires.swap(a, b);
        rare.volatile.swap(a, b);
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Bookkeeping for a key that got or lost an expiry; returns how many more keys have one.
    pub(crate) fn count_expiry(&mut self, db: DbIndex, before: Option<i64>, after: Option<i64>) -> i64 {
        if let Some(at) = after {
            self.expires_by(at);
        }
        match (before.is_some(), after.is_some()) {
            (false, true) => {
                self.rare().expires.add(db, 1);
                1
            }
            (true, false) => {
                self.rare().expires.add(db, -1);
                -1
            }
            (true, true) | (false, false) => 0,
        }
    }

    /// Sets `flag` when the key is modified, until [`SlotState::unwatch`].
    pub fn watch(&mut self, (db, key): DbKey, client_id: u64, flag: Arc<AtomicBool>) {
        self.rare().watched.entry(db).or_default().entry(key).or_default().insert(client_id, flag);
    }

    pub fn unwatch(&mut self, (db, key): &DbKey, client_id: u64) {
        let Some(rare) = &mut self.rare else { return };
        let Some(keys) = rare.watched.get_mut(db) else { return };
        let Some(flags) = keys.get_mut(key) else { return };
        flags.remove(&client_id);
        if flags.is_empty() {
            keys.remove(key);
        }
        if keys.is_empty() {
            rare.watched.remove(db);
        }
    }

    /// Transactions that watch this key will fail.
    pub fn mark_watchers(&mut self, db: DbIndex, key: &[u8]) {
        let flags = self.rare.as_ref().and_then(|rare| rare.watched.get(&db)?.get(key));
        flags.into_iter().flat_map(BTreeMap::values).for_each(|flag| flag.store(true, Ordering::Release));
    }

    /// Transactions that watch a key that exists, in a database of which `affected` is true, will fail: the database
    /// is about to be emptied or swapped.
    pub fn mark_watchers_of_existing(&self, affected: impl Fn(DbIndex) -> bool) {
        let Some(rare) = &self.rare else { return };
        for (db, keys) in rare.watched.iter().filter(|(db, _)| affected(**db)) {
            let Some(table) = self.table(*db) else { continue };
            for (key, flags) in keys {
                if table.get(table::hash_of(key), key).is_some() {
                    flags.values().for_each(|flag| flag.store(true, Ordering::Release));
                }
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

    /// A client has read this key, and wants to hear of its next change.
    pub fn note_reader(&mut self, key: &[u8], client_id: u64, counts: &TrackingCounts) {
        self.rare().read.add(key, client_id, counts);
    }

    /// Whether clients have read keys of this slot who want to hear of their changes.
    #[inline]
    pub fn has_readers(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.read.is_empty())
    }

    pub(crate) fn take_readers(&mut self, key: &[u8], counts: &TrackingCounts) -> Readers {
        self.rare.as_mut().map_or_else(Readers::new, |rare| rare.read.take(key, counts))
    }

    /// Forgets the readers of one key, and returns them.
    pub fn take_read_key(&mut self, counts: &TrackingCounts) -> Option<Changed> {
        self.rare.as_mut()?.read.take_one(counts)
    }

    /// Nobody is known to have read anything of this slot.
    pub fn forget_readers(&mut self, counts: &TrackingCounts) {
        if let Some(rare) = &mut self.rare {
            rare.read.clear(counts);
        }
    }

    pub fn add_waiter(&mut self, key: DbKey, waiter: Arc<dyn Waiter>) {
        self.rare().waiters.entry(key).or_default().push_back(waiter);
    }

    pub fn remove_waiter<W: Waiter>(&mut self, key: &DbKey, waiter: &Arc<W>) {
        let Some(rare) = &mut self.rare else { return };
        if let Some(queue) = rare.waiters.get_mut(key) {
            queue.retain(|w| !std::ptr::addr_eq(Arc::as_ptr(w), Arc::as_ptr(waiter)));
            if queue.is_empty() {
                rare.waiters.remove(key);
            }
        }
    }

    /// Clients that wait for this key, in their order.
    pub fn waiters(&self, key: &DbKey) -> Vec<Arc<dyn Waiter>> {
        let queue = self.rare.as_ref().and_then(|r| r.waiters.get(key));
        queue.map_or_else(Vec::new, |q| q.iter().cloned().collect())
    }

    pub fn has_waiters(&self) -> bool {
        self.rare.as_ref().is_some_and(|r| !r.waiters.is_empty())
    }
}

/// `after - before`, of lengths.
fn difference(after: usize, before: usize) -> i64 {
    after.wrapping_sub(before) as i64
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
    pub counts: Counts,
    /// Of clients that want to hear of changes of keys.
    pub tracking: TrackingCounts,
    /// The version of RDB that what it has held needs.
    rdb_version: AtomicU32,
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
            counts: Counts::default(),
            tracking: TrackingCounts::default(),
            rdb_version: AtomicU32::new(rdb::VERSION),
        }
    }
}

impl Keyspace {
    #[inline]
    pub fn lock(&self, slot: Slot) -> MutexGuard<'_, SlotState> {
        may_wait_for_command();
        self.slots[slot.index()].0.lock()
    }

    /// As [`Keyspace::lock`], unless somebody else has the slot for so long.
    pub fn try_lock_for(&self, slot: Slot, patience: Duration) -> Option<MutexGuard<'_, SlotState>> {
        may_wait_for_command();
        self.slots[slot.index()].0.try_lock_for(patience)
    }

    /// As [`Keyspace::lock`], unless `gives_up` says meanwhile that who has the slot is not to be waited for.
    #[inline]
    pub fn lock_unless(&self, slot: Slot, gives_up: impl Fn() -> bool) -> Option<MutexGuard<'_, SlotState>> {
        may_wait_for_command();
        let lock = &self.slots[slot.index()].0;
        lock.try_lock().or_else(|| wait_for(|patience| lock.try_lock_for(patience), gives_up))
    }

    /// The slot holds what entries up to this one have written, though they were not applied here: a file or another
    /// node had it. Reads wait until it is committed.
    pub fn note_written(&self, slot: Slot, index: LogIndex) {
        let mut state = self.lock(slot);
        state.last_write = state.last_write.max(index);
    }

    /// A value comes into the keyspace that files can have only from a version on.
    #[inline]
    pub(crate) fn note_value(&self, entry: &Entry) {
        if entry.value_type() == ValueType::Stream {
            self.note_version(rdb::VERSION_STREAMS);
        } else if entry.volatile().is_some() {
            self.note_version(rdb::VERSION_FIELD_TIMES);
        }
    }

    pub(crate) fn note_version(&self, version: u32) {
        self.rdb_version.fetch_max(version, Ordering::Relaxed);
    }

    /// The version of RDB in which all that the keyspace may hold can be written. To be asked with the world stopped, or
    /// behind what is to be saved.
    pub fn rdb_version(&self) -> u32 {
        self.rdb_version.load(Ordering::Relaxed)
    }

    /// Makes room for so many keys in the first database of a slot.
    pub fn reserve(&self, slot: Slot, keys: usize) {
        let mut state = self.lock(slot);
        let before = state.count(0);
        state.db0.reserve(keys);
        let bucket_bytes = state.count(0).bucket_bytes - before.bucket_bytes;
        self.counts.add(0, Count { bucket_bytes, ..Count::default() });
    }

    /// Adds a key that was loaded, of the current mark; false if it is there already.
    pub fn insert_loaded(&self, slot: Slot, db: DbIndex, hash: u64, entry: Entry) -> bool {
        self.note_value(&entry);
        let mut state = self.lock(slot);
        if state.table(db).is_some_and(|table| table.get(hash, entry.key()).is_some()) {
            return false;
        }
        let change = state.insert_new(db, hash, entry);
        self.counts.add(db, change);
        self.counts.set_slot(slot, state.db0.len());
        true
    }

    /// Drops a key in whose place another entry is loaded.
    pub fn remove_unlogged(&self, slot: Slot, db: DbIndex, hash: u64, key: &[u8]) {
        let mut state = self.lock(slot);
        if let Some((mut entry, change)) = state.remove(db, hash, key) {
            if entry.mark() != self.cow.mark() {
                self.cow.save_old(slot, db, &mut entry);
            }
            self.counts.add(db, change);
            self.counts.set_slot(slot, state.db0.len());
        }
    }

    /// Panics if what was counted is not what the slots have. Nobody changes them.
    #[cfg(test)]
    pub(crate) fn check_counts(&self) {
        let mut found: BTreeMap<DbIndex, Count> = BTreeMap::new();
        for slot in Slot::all() {
            let state = self.lock(slot);
            for (db, table) in state.dbs() {
                *found.entry(db).or_default() += state.count(db);
                let volatile: Vec<i64> =
                    table.iter().filter_map(|entry| entry.volatile()?.next_due()).collect();
                assert_eq!(state.volatile_count(db), volatile.len());
                assert!(volatile.iter().all(|at| state.next_expiry != 0 && state.next_expiry <= *at));
            }
            assert_eq!(self.counts.of_slot(slot), state.db0.len());
        }
        assert_eq!(self.counts.all(), found);
        assert!(found.iter().all(|(db, count)| self.counts.of(*db) == *count));
    }

    /// Has the slot's state and, in the first database, the bucket of this hash loaded.
    #[inline]
    pub fn prefetch_bucket(&self, slot: Slot, hash: u64) {
        prefetch(std::ptr::from_ref(&self.slots[slot.index()]).cast());
        let (address, buckets) = self.hints[slot.index()].load();
        let bucket = address + table::bucket_offset(hash, buckets);
        prefetch(std::ptr::without_provenance(bucket));
    }

    /// Has the bucket loaded into which a key of this hash is about to be inserted.
    pub fn prefetch_insertion(&self, slot: Slot, db: DbIndex, hash: u64) {
        let Some(state) = self.slots[slot.index()].0.try_lock() else { return };
        if let Some((address, buckets)) = state.table(db).map(Table::buckets) {
            drop(state);
            let bucket = address + table::bucket_offset(hash, buckets);
            prefetch(std::ptr::without_provenance(bucket));
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
            prefetch(entry.address());
            prefetch(entry.address().wrapping_add(64));
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
