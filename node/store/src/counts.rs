//! How many keys each database has, and each slot of the first one, known without a look at the slots: for DBSIZE and
//! INFO, and for who looks for slots that have keys.
//!
//! A thread adds what its commands have changed to a part of its own, so that counting shares no cache line; whoever
//! wants a figure adds the parts up. A part alone means nothing (keys come through one thread and go through another);
//! the sum is right whenever no change is under way.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::{AddAssign, Neg};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

use keyward_proto::slot::{SLOT_COUNT, Slot};
use parking_lot::Mutex;

use super::DbIndex;

/// More threads than this share parts.
const PARTS: usize = 64;

/// What a database has, or what has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub keys: i64,
    /// Keys with an expiry.
    pub expires: i64,
    /// Keys whose fields have times.
    pub volatile: i64,
    /// Bytes of the tables' buckets.
    pub bucket_bytes: i64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.keys += other.keys;
        self.expires += other.expires;
        self.volatile += other.volatile;
        self.bucket_bytes += other.bucket_bytes;
    }
}

impl Neg for Count {
    type Output = Count;

    fn neg(self) -> Count {
        let Count { keys, expires, volatile, bucket_bytes } = self;
        Count { keys: -keys, expires: -expires, volatile: -volatile, bucket_bytes: -bucket_bytes }
    }
}

/// What came through some threads.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Part {
    /// Of the first database, as in [`Count`].
    first: [AtomicI64; 4],
    others: Mutex<BTreeMap<DbIndex, Count>>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Counts {
    parts: Box<[Part]>,
    /// Keys of each slot in the first database. Whoever has changed it writes it before the slot's lock is given back.
    slots: Box<[AtomicU32]>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            parts: std::iter::repeat_with(Part::default).take(PARTS).collect(),
            slots: std::iter::repeat_with(AtomicU32::default).take(usize::from(SLOT_COUNT)).collect(),
        }
    }
}

/// The number of the calling thread.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(Some(new));
            new
        })
    })
}

impl Counts {
    /// A change under the locks of the slots that it concerns, after its effect was appended to the write log: who
    /// reads this count and then the log's last index has what the count depends on.
    #[inline]
    pub fn add(&self, db: DbIndex, change: Count) {
        let part = &self.parts[thread_number() % PARTS];
        if db != 0 {
            *part.others.lock().entry(db).or_default() += change;
            return;
        }
        let Count { keys, expires, volatile, bucket_bytes } = change;
        for (counter, change) in part.first.iter().zip([keys, expires, volatile, bucket_bytes]) {
            if change != 0 {
                counter.fetch_add(change, Ordering::Release);
            }
        }
    }

    /// A slot that is locked has so many keys in the first database.
    #[inline]
    pub fn set_slot(&self, slot: Slot, keys: usize) {
        self.slots[slot.index()].store(u32::try_from(keys).unwrap_or(u32::MAX), Ordering::Release);
    }

    /// How many keys a slot has in the first database, the changes of commands that are running left out.
    #[inline]
    pub fn of_slot(&self, slot: Slot) -> usize {
        self.slots[slot.index()].load(Ordering::Acquire) as usize
    }

    /// What a database has. While others change it, and without what is pending, it may even be negative.
    pub fn of(&self, db: DbIndex) -> Count {
        let mut sum = Count::default();
        for part in &self.parts {
            sum += match db {
                0 => part.first(),
                _ => part.others.lock().get(&db).copied().unwrap_or_default(),
            };
        }
        sum
    }

    /// The databases that have keys.
    pub fn all(&self) -> BTreeMap<DbIndex, Count> {
        self.all_with(&Pending::default())
    }

    /// As if the pending changes were counted already.
    pub fn all_with(&self, pending: &Pending) -> BTreeMap<DbIndex, Count> {
        let mut sums: BTreeMap<DbIndex, Count> = BTreeMap::new();
        for (db, change) in pending.changes() {
            *sums.entry(db).or_default() += change;
        }
        for part in &self.parts {
            *sums.entry(0).or_default() += part.first();
            for (db, count) in part.others.lock().iter() {
                *sums.entry(*db).or_default() += *count;
            }
        }
        sums.retain(|_, count| count.keys > 0);
        sums.into_iter().map(|(db, count)| (db, count.not_negative())).collect()
    }

    /// Keys of all databases.
    pub fn keys(&self) -> usize {
        self.all().values().map(|count| count.keys()).sum()
    }
}

impl Part {
    fn first(&self) -> Count {
        let [keys, expires, volatile, bucket_bytes] =
            self.first.each_ref().map(|n| n.load(Ordering::Acquire));
        Count { keys, expires, volatile, bucket_bytes }
    }
}

impl Count {
    fn not_negative(self) -> Count {
        let Count { keys, expires, volatile, bucket_bytes } = self;
        Count {
            keys: keys.max(0),
            expires: expires.max(0),
            volatile: volatile.max(0),
            bucket_bytes: bucket_bytes.max(0),
        }
    }

    pub fn keys(&self) -> usize {
        usize::try_from(self.keys).unwrap_or(0)
    }
}

/// What the running command has changed; most of them change one database.
#[derive(Debug, Default)]
pub struct Pending {
    /// Something has changed, be it that a key has come in one slot and another one gone elsewhere.
    any: bool,
    db: DbIndex,
    change: Count,
    others: Vec<(DbIndex, Count)>,
}

impl Pending {
    #[inline]
    pub fn add(&mut self, db: DbIndex, change: Count) {
        self.any = true;
        if self.db == db || self.change == Count::default() {
            self.db = db;
            self.change += change;
        } else {
            self.others.push((db, change));
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    pub fn publish(&mut self, counts: &Counts) {
        self.any = false;
        if self.change != Count::default() {
            counts.add(self.db, std::mem::take(&mut self.change));
        }
        self.others.drain(..).for_each(|(db, change)| counts.add(db, change));
    }

    fn changes(&self) -> impl Iterator<Item = (DbIndex, Count)> {
        std::iter::once((self.db, self.change)).chain(self.others.iter().copied())
    }

    /// What is not in the counts yet.
    pub fn keys(&self, db: DbIndex) -> i64 {
        self.changes().filter(|(other, _)| *other == db).map(|(_, change)| change.keys).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_threads_add_up() {
        let counts = Counts::default();
        let change = |keys| Count { keys, expires: 1, volatile: 3, bucket_bytes: 64 };
        #[allow(clippy::disallowed_methods, reason = "threads that count at once are what is tested")]
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..1000 {
                        counts.add(i % 3, change(2));
                    }
                    counts.add(7, change(1));
                    counts.add(7, -change(1));
                });
            }
        });
        let of_0 =
            Count { keys: 4 * 668, expires: 4 * 334, volatile: 4 * 334 * 3, bucket_bytes: 4 * 334 * 64 };
        assert_eq!(counts.of(0), of_0);
        assert_eq!(counts.all().keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(counts.keys(), 8000);
    }

    #[test]
    fn what_is_pending_is_published_once() {
        let (counts, mut pending) = (Counts::default(), Pending::default());
        let one = Count { keys: 1, ..Count::default() };
        for (db, change) in [(3, one), (3, one), (0, one), (3, -one), (0, one)] {
            pending.add(db, change);
        }
        assert_eq!((pending.keys(3), pending.keys(0), pending.keys(1)), (1, 2, 0));
        for _ in 0..2 {
            pending.publish(&counts);
            assert_eq!((counts.of(3).keys, counts.of(0).keys, pending.keys(3)), (1, 2, 0));
        }
    }
}
