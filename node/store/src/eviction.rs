//! Which key to give up when memory is short: policies, unbiased sampling, and the pool of the best candidates.
//!
//! As in Valkey, exact LRU or LFU order is not kept: a few keys are drawn at random (`maxmemory-samples`), the best
//! of all that were drawn so far wait in a small pool, and the best of these is evicted. A key that was used since
//! it came into the pool is passed over.
//!
//! Keys are spread over 16384 slots, so a key is drawn in two steps: a slot by its number of keys, from the counts of
//! a moment ago ([`Weights`]), then one of its keys. One slot is locked at a time, and for one draw only.
//!
//! Pure: the time (as an [`AccessClock`]) and the random numbers are arguments.

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::slot::{SLOT_COUNT, Slot};
use keyward_proto::time::Monotonic;
use parking_lot::Mutex;
use rand::Rng;

use super::access::AccessClock;
use super::entry::Entry;
use super::table::Table;
use super::{DbIndex, Keyspace};

/// `maxmemory-policy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    #[default]
    NoEviction,
    AllKeys(Order),
    /// Only keys with an expiry.
    Volatile(Order),
}

/// By what keys are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Lru,
    Lfu,
    Random,
    /// The one that expires next.
    Ttl,
}

impl Policy {
    pub fn is_lru(self) -> bool {
        matches!(self, Policy::AllKeys(Order::Lru) | Policy::Volatile(Order::Lru))
    }

    pub fn is_lfu(self) -> bool {
        matches!(self, Policy::AllKeys(Order::Lfu) | Policy::Volatile(Order::Lfu))
    }

    /// Which keys may be evicted in which order; `None`: no key may.
    pub fn order(self) -> Option<(Eligible, Order)> {
        match self {
            Policy::NoEviction => None,
            Policy::AllKeys(order) => Some((Eligible::All, order)),
            Policy::Volatile(order) => Some((Eligible::WithExpiry, order)),
        }
    }
}

/// The keys among which one is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligible {
    All,
    WithExpiry,
}

/// The larger, the better it is to evict the entry.
pub fn score(entry: &Entry, order: Order, clock: &AccessClock) -> u64 {
    match order {
        Order::Lru => u64::from(clock.idle_seconds(entry.access())),
        Order::Lfu => 255 - u64::from(clock.frequency(entry.access())),
        Order::Ttl => u64::MAX - entry.expire_at().unwrap_or(i64::MAX).unsigned_abs(),
        Order::Random => 0,
    }
}

/// How many keys each slot had when they were counted, as running sums, to draw a slot by its number of keys. Small: it
/// is needed when memory is short.
#[derive(Debug)]
pub struct Weights {
    places: Vec<(Slot, DbIndex)>,
    /// Keys up to and including each place.
    sums: Vec<u32>,
}

impl Weights {
    /// Counts, locking one slot after the other.
    pub fn count(space: &Keyspace, eligible: Eligible) -> Weights {
        let (mut places, mut sums, mut sum) = (Vec::new(), Vec::new(), 0_u32);
        places.reserve_exact(usize::from(SLOT_COUNT));
        sums.reserve_exact(usize::from(SLOT_COUNT));
        for slot in Slot::all() {
            let state = space.lock(slot);
            for (db, table) in state.dbs() {
                let count = match eligible {
                    Eligible::All => table.len(),
                    Eligible::WithExpiry => state.expires_count(db),
                };
                if count > 0 {
                    // Beyond four thousand million keys the last slots are never drawn.
                    sum = sum.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
                    places.push((slot, db));
                    sums.push(sum);
                }
            }
        }
        Weights { places, sums }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A slot and database in which there were eligible keys, by their number.
    pub fn pick(&self, rng: &mut impl Rng) -> Option<(Slot, DbIndex)> {
        let drawn = rng.random_range(0..*self.sums.last()?);
        self.places.get(self.sums.partition_point(|sum| *sum <= drawn)).copied()
    }
}

/// The last counts, for all threads that evict.
#[derive(Debug, Default)]
pub struct SharedWeights(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    eligible: Eligible,
    at: Monotonic,
    weights: Arc<Weights>,
}

impl SharedWeights {
    /// Counts of these keys that are less than `age_max` old at the time `now`, and when they were taken.
    /// Only one thread counts, the others wait for it; no slot may be locked by the caller.
    pub fn get(
        &self,
        space: &Keyspace,
        eligible: Eligible,
        now: Monotonic,
        age_max: Duration,
    ) -> (Monotonic, Arc<Weights>) {
        let mut last = self.0.lock();
        match &*last {
            Some(counted) if counted.eligible == eligible && now.since(counted.at) < age_max => {
                (counted.at, Arc::clone(&counted.weights))
            }
            Some(_) | None => {
                // Not two of them at a time, when memory is short.
                *last = None;
                let weights = Arc::new(Weights::count(space, eligible));
                *last = Some(Counted { eligible, at: now, weights: Arc::clone(&weights) });
                (now, weights)
            }
        }
    }
}

/// Entries of a table that are looked at to find one with an expiry before the next draw.
const LOOKED_AT_MAX: usize = 512;

/// One of the eligible entries, drawn at random. `None` may also mean that few are eligible and none was met.
pub fn draw<'a>(table: &'a Table<Entry>, eligible: Eligible, rng: &mut impl Rng) -> Option<&'a Entry> {
    match eligible {
        Eligible::All => table.random(|| rng.random()),
        Eligible::WithExpiry => {
            let (mut position, mut looked_at, mut found) = (rng.random(), 0, None);
            // From a random bucket on, once around; in a bucket each one may be it.
            let (mut wrapped, mut met) = (false, 0);
            while found.is_none() && looked_at < LOOKED_AT_MAX {
                let next = table.scan(position, &mut |entry| {
                    looked_at += 1;
                    if entry.expire_at().is_some() {
                        met += 1;
                        if rng.random_range(0..met) == 0 {
                            found = Some(entry);
                        }
                    }
                });
                match next {
                    Some(next) => position = next,
                    None if wrapped => break,
                    None => (position, wrapped) = (0, true),
                }
            }
            found
        }
    }
}

/// Candidates that the pool holds.
const POOL_LEN: usize = 16;

/// A key that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub score: u64,
    pub slot: Slot,
    pub db: DbIndex,
    pub key: Box<[u8]>,
}

/// The best candidates of all draws, worst first.
#[derive(Debug, Default)]
pub struct Pool(Vec<Candidate>);

impl Pool {
    /// Whether a candidate with this score would stay.
    pub fn takes(&self, score: u64) -> bool {
        self.0.len() < POOL_LEN || self.0.first().is_some_and(|worst| worst.score < score)
    }

    pub fn offer(&mut self, candidate: Candidate) {
        if !self.takes(candidate.score) {
            return;
        }
        if self.0.len() == POOL_LEN {
            self.0.remove(0);
        }
        let at = self.0.partition_point(|c| c.score < candidate.score);
        self.0.insert(at, candidate);
    }

    /// The best one.
    pub fn take(&mut self) -> Option<Candidate> {
        self.0.pop()
    }

    /// The policy has changed: scores mean something else.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Draws `samples` keys into the pool.
pub fn fill_pool(
    space: &Keyspace,
    weights: &Weights,
    (eligible, order): (Eligible, Order),
    samples: usize,
    clock: &AccessClock,
    rng: &mut impl Rng,
    pool: &mut Pool,
) {
    for _ in 0..samples {
        let Some((slot, db)) = weights.pick(rng) else { return };
        let state = space.lock(slot);
        let Some(entry) = state.table(db).and_then(|table| draw(table, eligible, rng)) else { continue };
        let score = score(entry, order, clock);
        if pool.takes(score) {
            pool.offer(Candidate { score, slot, db, key: entry.key().into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::NewValue;
    use crate::keys::{Expiry, KeySettings, Keys, Logging, Now};
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use std::collections::BTreeMap;

    /// Keys `a0`, `a1` ... in one slot by their hash tag, and single ones elsewhere.
    fn space(names: impl Iterator<Item = (String, Expiry)>) -> Keyspace {
        let space = Keyspace::default();
        let mut keys = Keys::primary(&space, &KeySettings::default(), Now::at(0), Logging::Off);
        for (name, expiry) in names {
            keys.lock_one(Slot::of(name.as_bytes()));
            keys.insert(name.as_bytes(), NewValue::Bytes(b"v"), expiry);
            keys.unlock();
        }
        drop(keys);
        space
    }

    fn candidate(score: u64) -> Candidate {
        Candidate { score, slot: Slot::of(b"k"), db: 0, key: Box::default() }
    }

    #[test]
    fn the_pool_keeps_the_best() {
        let mut pool = Pool::default();
        (0..100).for_each(|i| pool.offer(candidate(i * 37 % 100)));
        let taken: Vec<u64> = std::iter::from_fn(|| pool.take()).map(|c| c.score).collect();
        assert_eq!(taken, (84..100).rev().collect::<Vec<_>>());
    }

    #[test]
    fn every_key_is_drawn_as_often_as_any_other() {
        // Half of the keys are in one slot, the others alone in theirs.
        let names = (0..100).map(|i| if i < 50 { format!("{{t}}{i}") } else { i.to_string() });
        let space = space(names.map(|name| (name, Expiry::None)));
        let weights = Weights::count(&space, Eligible::All);
        let mut rng = SmallRng::seed_from_u64(7);
        let mut drawn: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for _ in 0..50_000 {
            let (slot, db) = weights.pick(&mut rng).unwrap();
            let state = space.lock(slot);
            let entry = draw(state.table(db).unwrap(), Eligible::All, &mut rng).unwrap();
            *drawn.entry(entry.key().to_vec()).or_default() += 1;
        }
        assert_eq!(drawn.len(), 100);
        assert!(drawn.values().all(|n| (350..650).contains(n)), "{drawn:?}");
    }

    #[test]
    fn few_keys_with_an_expiry_are_found() {
        let expiry = |i| if i % 500 == 7 { Expiry::At(i64::from(i) + 1) } else { Expiry::None };
        let space = space((0..2000).map(|i| (format!("{{t}}{i}"), expiry(i))));
        let weights = Weights::count(&space, Eligible::WithExpiry);
        let (mut rng, mut pool) = (SmallRng::seed_from_u64(7), Pool::default());
        let clock = AccessClock::default();
        // One that comes soon after another in the order of hashes, which is new in each process, is seldom drawn.
        let samples = 100_000;
        fill_pool(&space, &weights, (Eligible::WithExpiry, Order::Ttl), samples, &clock, &mut rng, &mut pool);
        assert_eq!(&*pool.take().unwrap().key, b"{t}7");
        assert!(Weights::count(&Keyspace::default(), Eligible::All).is_empty());
    }

    #[test]
    fn scores_follow_the_order() {
        let clock = AccessClock::new(Monotonic::from_nanos(100_000_000_000), None);
        let entry = |access, expire_at| Entry::new(b"k", NewValue::Bytes(b""), expire_at, access);
        let score = |entry: &Entry, order| super::score(entry, order, &clock);
        assert!(score(&entry(90, None), Order::Lru) > score(&entry(95, None), Order::Lru));
        let used = |often| entry(clock.from_frequency(often), None);
        assert!(score(&used(10), Order::Lfu) > score(&used(20), Order::Lfu));
        assert!(score(&entry(0, Some(5)), Order::Ttl) > score(&entry(0, Some(6)), Order::Ttl));
    }
}
