//! A hash table whose order is the order of the hashes: the dictionary of a slot and of large hashes and sets.
//!
//! A bucket is one cache line: seven elements, a tag byte of each one's hash, and a byte that counts the elements for
//! which it had no room and which lie in the buckets behind it. So nearly every bucket of the table can be full, no
//! element needs a place outside, and most searches end in the first bucket.
//!
//! The bucket of a hash is `hash * buckets / 2^32`, so walking the buckets walks the hashes in ascending order
//! whatever the number of buckets is. A SCAN cursor is therefore just a position among the hashes, and SCAN's
//! guarantee (an element present during the whole scan is returned) holds across any resize.
//!
//! A large table is resized step by step: elements below a boundary in hash order live in the new buckets, the
//! others still in the old ones, and each insertion moves the boundary on.
//!
//! Invariants, checked by the tests: an element lies in the bucket of its hash or behind it, and each bucket that was
//! passed over counts it (a count of 255 means many, and stays); there is always a free place.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

/// What a table stores: something that knows its own key.
pub trait Keyed {
    fn key(&self) -> &[u8];
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The hash of a key, seeded per process.
#[inline]
pub fn hash_of(key: &[u8]) -> u64 {
    // Keys are hashed alone: they need no length prefix to keep them apart from a neighbour.
    let mut hasher = HASHER.build_hasher();
    hasher.write(key);
    hasher.finish()
}

const BUCKET_LEN: usize = 7;
/// Elements per bucket beyond which the table grows.
const FULL: usize = 6;
/// Tables up to this many buckets give room back in small steps.
const SMALL: usize = 12;
/// Tables of at least this many buckets are resized step by step.
const INCREMENTAL_MIN: usize = 1024;

#[repr(align(64))]
struct Bucket<T> {
    /// Byte `i` is the tag of entry `i`, zero if there is none; the last byte counts those that were passed on.
    tags: u64,
    entries: [Option<T>; BUCKET_LEN],
}

impl<T> Default for Bucket<T> {
    fn default() -> Self {
        Bucket { tags: 0, entries: [const { None }; BUCKET_LEN] }
    }
}

#[inline]
fn tag_of(hash: u64) -> u64 {
    (hash & 0xff).max(1)
}

const LOW: u64 = 0x01_0101_0101_0101;
const HIGH: u64 = 0x80_8080_8080_8080;
const PASSED_ON: u32 = 56;

/// A mask with the high bit of each byte of `tags` that is zero; may have false positives above a true one.
#[inline]
fn zero_bytes(tags: u64) -> u64 {
    tags.wrapping_sub(LOW) & !tags & HIGH
}

impl<T> Bucket<T> {
    /// How many elements lie behind this bucket because it was full.
    #[inline]
    fn passed_on(&self) -> u64 {
        self.tags >> PASSED_ON
    }

    fn pass_on(&mut self) {
        if self.passed_on() < 0xff {
            self.tags += 1 << PASSED_ON;
        }
    }

    /// One of those that were passed on is gone.
    fn take_back(&mut self) {
        if self.passed_on() < 0xff {
            self.tags -= 1 << PASSED_ON;
        }
    }

    fn free_place(&self) -> Option<usize> {
        self.entries.iter().position(Option::is_none)
    }

    fn put(&mut self, place: usize, tag: u64, element: T) {
        self.tags |= tag << (8 * place);
        self.entries[place] = Some(element);
    }

    fn take(&mut self, place: usize) -> Option<T> {
        self.tags &= !(0xff << (8 * place));
        self.entries[place].take()
    }
}

impl<T: Keyed> Bucket<T> {
    #[inline]
    fn position(&self, tag: u64, key: &[u8]) -> Option<usize> {
        let mut matches = zero_bytes(self.tags ^ (tag * LOW));
        while matches != 0 {
            let i = (matches.trailing_zeros() / 8) as usize;
            if self.entries[i].as_ref().is_some_and(|e| e.key() == key) {
                return Some(i);
            }
            matches &= matches - 1;
        }
        None
    }
}

/// All buckets of a table.
struct Buckets<T>(Box<[Bucket<T>]>);

impl<T> Default for Buckets<T> {
    fn default() -> Self {
        Buckets(Box::default())
    }
}

impl<T> Buckets<T> {
    fn with_len(len: usize) -> Self {
        Buckets(std::iter::repeat_with(Bucket::default).take(len).collect())
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        index_of(hash, self.0.len())
    }

    /// The bucket behind another one; the first comes behind the last.
    #[inline]
    fn behind(&self, index: usize) -> usize {
        if index + 1 == self.0.len() { 0 } else { index + 1 }
    }

    /// The buckets in which elements of the bucket `home` may lie.
    #[inline]
    fn chain(&self, home: usize) -> impl Iterator<Item = usize> {
        let mut next = (home < self.0.len()).then_some(home);
        // Each one once, even if all of them have passed on elements.
        (0..self.0.len()).map_while(move |_| {
            let index = next?;
            next = (self.0[index].passed_on() > 0).then(|| self.behind(index));
            Some(index)
        })
    }
}

impl<T: Keyed> Buckets<T> {
    /// Bucket and place of an element.
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<(usize, usize)> {
        let tag = tag_of(hash);
        let mut index = self.home(hash);
        let mut left = self.0.len();
        loop {
            let bucket = self.0.get(index)?;
            if let Some(place) = bucket.position(tag, key) {
                return Some((index, place));
            }
            left -= 1;
            if bucket.passed_on() == 0 || left == 0 {
                return None;
            }
            index = self.behind(index);
        }
    }

    fn insert(&mut self, hash: u64, element: T) {
        let mut index = self.home(hash);
        loop {
            let bucket = &mut self.0[index];
            if let Some(place) = bucket.free_place() {
                return bucket.put(place, tag_of(hash), element);
            }
            bucket.pass_on();
            index = self.behind(index);
        }
    }

    fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        let (found, place) = self.find(hash, key)?;
        self.take(self.home(hash), found, place)
    }

    /// Takes an element of the bucket `home` out of the bucket in which it lies.
    fn take(&mut self, home: usize, found: usize, place: usize) -> Option<T> {
        let mut index = home;
        while index != found {
            self.0[index].take_back();
            index = self.behind(index);
        }
        self.0[found].take(place)
    }

    /// Visits the elements of the bucket `home` with their hash, as far as it had to be computed.
    fn visit<'a>(&'a self, home: usize, visit: &mut dyn FnMut(&'a T)) {
        let before = if home == 0 { self.0.len() - 1 } else { home - 1 };
        let alone = self.0[before].passed_on() == 0;
        for index in self.chain(home) {
            for element in self.0[index].entries.iter().flatten() {
                // Without guests from before, what lies in a bucket belongs there.
                if alone && index == home || self.home(hash_of(element.key())) == home {
                    visit(element);
                }
            }
        }
    }

    /// Takes out the elements of the bucket `home`.
    fn drain(&mut self, home: usize, put: &mut dyn FnMut(u64, T)) {
        let chain: Vec<usize> = self.chain(home).collect();
        for index in chain {
            for place in 0..BUCKET_LEN {
                let Some(element) = &self.0[index].entries[place] else { continue };
                let hash = hash_of(element.key());
                if self.home(hash) == home
                    && let Some(element) = self.take(home, index, place)
                {
                    put(hash, element);
                }
            }
        }
    }

    fn elements(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|b| b.entries.iter().flatten())
    }
}

/// The old buckets of a table that is being resized; elements of those below `moved` are in the new ones.
struct Old<T> {
    buckets: Buckets<T>,
    moved: usize,
}

/// See the module documentation.
pub struct Table<T> {
    buckets: Buckets<T>,
    len: usize,
    old: Option<Box<Old<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { buckets: Buckets::default(), len: 0, old: None }
    }
}

impl<T: Keyed + Clone> Clone for Table<T> {
    fn clone(&self) -> Self {
        let mut copy = Table::default();
        self.iter().for_each(|element| copy.insert_new(hash_of(element.key()), element.clone()));
        copy
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table of {} in {} buckets", self.len, self.buckets.len())
    }
}

/// A position among the hashes, for SCAN. Zero is the start.
pub type ScanPosition = u32;

#[inline]
fn index_of(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

/// How far behind the first of so many buckets the bucket of a hash lies, in bytes.
#[inline]
pub fn bucket_offset(hash: u64, buckets: usize) -> usize {
    index_of(hash, buckets) * size_of::<Bucket<Box<u8>>>()
}

/// The first hash position of bucket `index`, 2^32 behind the last.
fn bucket_start(index: usize, buckets: usize) -> u64 {
    ((index as u64) << 32).div_ceil(buckets as u64)
}

/// The next larger number of buckets that is a power of two, or one and a half. These are also sizes in which the
/// allocator gives memory.
fn larger(buckets: usize) -> usize {
    let more = buckets + 1;
    let power = more.next_power_of_two();
    let between = power / 4 * 3;
    if more <= between { between } else { power }
}

/// The size before that: the inverse of [`larger`].
fn smaller(buckets: usize) -> usize {
    if buckets.is_power_of_two() { (buckets / 4 * 3).max(1) } else { buckets / 3 * 2 }
}

impl<T: Keyed> Table<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buckets in which an element with this hash is, or would be put.
    #[inline]
    fn buckets_of(&self, hash: u64) -> &Buckets<T> {
        match &self.old {
            Some(old) if old.moved <= old.buckets.home(hash) => &old.buckets,
            _ => &self.buckets,
        }
    }

    #[inline]
    fn buckets_of_mut(&mut self, hash: u64) -> &mut Buckets<T> {
        match &mut self.old {
            Some(old) if old.moved <= old.buckets.home(hash) => &mut old.buckets,
            _ => &mut self.buckets,
        }
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let buckets = self.buckets_of(hash);
        let (index, place) = buckets.find(hash, key)?;
        buckets.0[index].entries[place].as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        let buckets = self.buckets_of_mut(hash);
        let (index, place) = buckets.find(hash, key)?;
        buckets.0[index].entries[place].as_mut()
    }

    /// Adds an element whose key is not in the table.
    pub fn insert_new(&mut self, hash: u64, element: T) {
        debug_assert!(self.get(hash, element.key()).is_none());
        self.make_room();
        self.len += 1;
        self.buckets_of_mut(hash).insert(hash, element);
    }

    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        let removed = self.buckets_of_mut(hash).remove(hash, key)?;
        self.len -= 1;
        self.give_room();
        Some(removed)
    }

    /// Every element, in the order of the hashes (roughly).
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.elements().chain(self.old.iter().flat_map(|old| old.buckets.elements()))
    }

    /// The bucket at a position among the hashes, and the positions where it starts and ends.
    fn bucket_at(&self, position: u64) -> Option<(&Buckets<T>, usize, u64, u64)> {
        let hash = position << 32;
        let (buckets, boundary) = match &self.old {
            _ if self.buckets.len() == 0 => return None,
            Some(old) if old.moved <= old.buckets.home(hash) => (&old.buckets, 1 << 32),
            Some(old) => (&self.buckets, bucket_start(old.moved, old.buckets.len())),
            None => (&self.buckets, 1 << 32),
        };
        let (index, len) = (buckets.home(hash), buckets.len());
        Some((buckets, index, bucket_start(index, len), bucket_start(index + 1, len).min(boundary)))
    }

    /// Visits the elements of at least one bucket from `position` on; returns where to go on, `None` at the end.
    pub fn scan<'a>(&'a self, position: ScanPosition, visit: &mut dyn FnMut(&'a T)) -> Option<ScanPosition> {
        let position = u64::from(position);
        let (buckets, index, start, end) = self.bucket_at(position)?;
        buckets.visit(index, &mut |element| {
            if position <= start || hash_of(element.key()) >> 32 >= position {
                visit(element);
            }
        });
        u32::try_from(end).ok()
    }

    /// As [`Table::scan`], for changing elements in place (never their keys). May visit elements that lie elsewhere
    /// among the hashes, too.
    pub fn scan_mut(
        &mut self,
        position: ScanPosition,
        visit: &mut dyn FnMut(&mut T),
    ) -> Option<ScanPosition> {
        let (buckets, index, _, end) = self.bucket_at(u64::from(position))?;
        let chain: Vec<usize> = buckets.chain(index).collect();
        let buckets = self.buckets_of_mut(u64::from(position) << 32);
        for index in chain {
            buckets.0[index].entries.iter_mut().flatten().for_each(&mut *visit);
        }
        u32::try_from(end).ok()
    }

    /// An element chosen by a random number, each as likely as any other unless the table is very sparse.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        let old: &[Bucket<T>] = self.old.as_ref().map_or(&[], |old| &old.buckets.0);
        let places = (self.buckets.len() + old.len()) * BUCKET_LEN;
        // Drawing places until one is taken is fair; the bound covers very sparse tables.
        for _ in 0..256 {
            let place = (random() >> 8) as usize % places;
            let (index, place) = (place / BUCKET_LEN, place % BUCKET_LEN);
            let bucket = self.buckets.0.get(index).or_else(|| old.get(index - self.buckets.len()))?;
            if let Some(element) = &bucket.entries[place] {
                return Some(element);
            }
        }
        self.iter().nth((random() >> 33) as usize % self.len)
    }

    /// Address and number of the buckets, for a prefetch hint.
    #[inline]
    pub fn buckets(&self) -> (usize, usize) {
        (self.buckets.0.as_ptr().addr(), self.buckets.len())
    }

    /// The first element whose tag matches, for a prefetch hint.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<&T> {
        let buckets = self.buckets_of(hash);
        let mut index = buckets.home(hash);
        let mut bucket = buckets.0.get(index)?;
        let mut matches = zero_bytes(bucket.tags ^ (tag_of(hash) * LOW));
        if matches == 0 && bucket.passed_on() > 0 {
            index = buckets.behind(index);
            bucket = &buckets.0[index];
            matches = zero_bytes(bucket.tags ^ (tag_of(hash) * LOW));
        }
        bucket.entries.get((matches.trailing_zeros() / 8) as usize)?.as_ref()
    }

    /// Bytes of all buckets.
    pub fn buckets_len_bytes(&self) -> usize {
        let old = self.old.as_ref().map_or(0, |o| o.buckets.len());
        (self.buckets.len() + old) * size_of::<Bucket<T>>()
    }

    /// Makes room for so many elements in an empty table.
    pub fn reserve(&mut self, len: usize) {
        let buckets = len.div_ceil(FULL);
        if self.len == 0 && self.old.is_none() && self.buckets.len() < buckets {
            self.buckets = Buckets::with_len(buckets);
        }
    }

    fn make_room(&mut self) {
        if self.old.is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if buckets * FULL <= self.len {
            self.resize(larger(buckets));
        }
    }

    fn give_room(&mut self) {
        if self.old.is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if self.len == 0 {
            self.buckets = Buckets::default();
        } else if buckets > 3 && self.len < buckets * 3 / 2 {
            self.resize(buckets / 2);
        } else if (2..=SMALL).contains(&buckets) && self.len <= smaller(buckets) * FULL * 2 / 3 {
            // Most tables are small, and many of them would otherwise keep the size that they once needed.
            self.resize(smaller(buckets));
        }
    }

    fn resize(&mut self, buckets: usize) {
        let old = std::mem::replace(&mut self.buckets, Buckets::with_len(buckets));
        let incremental = INCREMENTAL_MIN <= old.len();
        if incremental {
            self.old = Some(Box::new(Old { buckets: old, moved: 0 }));
            return;
        }
        for mut bucket in old.0 {
            for element in bucket.entries.iter_mut().filter_map(Option::take) {
                self.buckets.insert(hash_of(element.key()), element);
            }
        }
    }

    /// Moves the elements of a few old buckets to the new ones.
    fn move_some(&mut self) {
        let Some(old) = &mut self.old else { return };
        for _ in 0..8 {
            if old.moved == old.buckets.len() {
                break;
            }
            old.buckets.drain(old.moved, &mut |hash, element| self.buckets.insert(hash, element));
            old.moved += 1;
        }
        if old.moved == old.buckets.len() {
            self.old = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    impl Keyed for Box<[u8]> {
        fn key(&self) -> &[u8] {
            self
        }
    }

    fn key(i: u32) -> Box<[u8]> {
        format!("key:{i}").into_bytes().into()
    }

    fn insert(table: &mut Table<Box<[u8]>>, i: u32) {
        table.insert_new(hash_of(&key(i)), key(i));
    }

    fn scan_all(
        table: &mut Table<Box<[u8]>>,
        mut between: impl FnMut(&mut Table<Box<[u8]>>),
    ) -> BTreeSet<Box<[u8]>> {
        let (mut seen, mut position) = (BTreeSet::new(), Some(0));
        while let Some(p) = position {
            position = table.scan(p, &mut |e| {
                seen.insert(e.clone());
            });
            between(table);
        }
        seen
    }

    #[test]
    fn holds_what_was_inserted_at_every_size() {
        let mut table = Table::default();
        for i in 0..30_000 {
            insert(&mut table, i);
            assert!(table.get(hash_of(&key(i / 2)), &key(i / 2)).is_some());
        }
        assert_eq!(table.iter().count(), 30_000);
        for i in (0..30_000).filter(|i| i % 7 != 0) {
            assert!(table.remove(hash_of(&key(i)), &key(i)).is_some());
            assert!(table.remove(hash_of(&key(i)), &key(i)).is_none());
        }
        assert_eq!(table.len(), table.iter().count());
        assert!((0..30_000).all(|i| table.get(hash_of(&key(i)), &key(i)).is_some() == (i % 7 == 0)));
    }

    #[test]
    fn scan_returns_what_is_there_throughout_while_the_table_grows_and_shrinks() {
        let mut table = Table::default();
        (0..5_000).for_each(|i| insert(&mut table, i));
        let mut next = 5_000;
        let seen = scan_all(&mut table, |t| {
            if next < 20_000 {
                (next..next + 50).for_each(|i| insert(t, i));
                next += 50;
            }
        });
        assert!((0..5_000).all(|i| seen.contains(&key(i))));
        let mut gone = 100;
        let seen = scan_all(&mut table, |t| {
            if gone < 20_000 {
                (gone..gone + 100).for_each(|i| drop(t.remove(hash_of(&key(i)), &key(i))));
                gone += 100;
            }
        });
        assert!((0..100).all(|i| seen.contains(&key(i))));
    }

    #[test]
    fn scan_mut_reaches_every_element_of_a_growing_table() {
        let mut table = Table::default();
        (0..5_000).for_each(|i| insert(&mut table, i));
        let (mut seen, mut position, mut next) = (BTreeSet::new(), Some(0), 5_000);
        while let Some(p) = position {
            position = table.scan_mut(p, &mut |e| {
                seen.insert(e.clone());
            });
            if next < 20_000 {
                (next..next + 50).for_each(|i| insert(&mut table, i));
                next += 50;
            }
        }
        assert!((0..5_000).all(|i| seen.contains(&key(i))));
    }

    /// Panics if an element lies where it is not looked for, or a bucket counts wrongly.
    fn check(table: &Table<Box<[u8]>>) {
        let mut len = 0;
        for buckets in
            [Some(&table.buckets), table.old.as_ref().map(|old| &old.buckets)].into_iter().flatten()
        {
            let mut passed_on = vec![0u64; buckets.len()];
            for (index, bucket) in buckets.0.iter().enumerate() {
                for (place, element) in bucket.entries.iter().enumerate() {
                    let tag = bucket.tags >> (8 * place) & 0xff;
                    let Some(element) = element else {
                        assert_eq!(tag, 0);
                        continue;
                    };
                    len += 1;
                    let hash = hash_of(element);
                    assert_eq!(tag, tag_of(hash));
                    let mut passed = buckets.home(hash);
                    while passed != index {
                        passed_on[passed] += 1;
                        passed = buckets.behind(passed);
                    }
                }
            }
            for (bucket, passed_on) in buckets.0.iter().zip(passed_on) {
                assert!(bucket.passed_on() == passed_on || bucket.passed_on() == 0xff);
            }
        }
        assert_eq!(len, table.len());
    }

    #[test]
    fn behaves_as_a_set_under_random_edits() {
        let (mut state, mut present) = (9u64, BTreeSet::new());
        let mut table = Table::default();
        for step in 0..200_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Phases of growing and of shrinking, through sizes at which resizing is done step by step.
            let (i, growing) = ((state >> 40) as u32 % 20_000, step / 50_000 % 2 == 0);
            let (hash, key) = (hash_of(&key(i)), key(i));
            if (state >> 30) % 4 > 0 && growing {
                if present.insert(i) {
                    table.insert_new(hash, key);
                }
            } else {
                assert_eq!(table.remove(hash, &key).is_some(), present.remove(&i));
            }
            if step % 5_000 == 0 {
                check(&table);
                assert_eq!(table.iter().count(), present.len());
                assert!(present.iter().all(|i| table.get(hash_of(&self::key(*i)), &self::key(*i)).is_some()));
                assert_eq!(scan_all(&mut table, |_| ()).len(), present.len());
            }
        }
    }

    #[test]
    fn a_crowd_with_one_hash_is_found_and_removed() {
        let mut table = Table::default();
        let hash = |i: u32| if i < 400 { 5 << 32 | 7 } else { hash_of(&key(i)) };
        // Only as many as fit before the table grows: it would hash the keys itself.
        table.resize(100);
        (0..550).for_each(|i| table.insert_new(hash(i), key(i)));
        assert!((0..550).all(|i| table.get(hash(i), &key(i)).is_some()));
        assert!(table.get(5 << 32 | 7, b"missing").is_none());
        (0..400).for_each(|i| assert!(table.remove(hash(i), &key(i)).is_some()));
        assert!((400..550).all(|i| table.get(hash(i), &key(i)).is_some()) && table.len() == 150);
    }

    #[test]
    fn every_number_of_buckets_has_a_larger_one() {
        for (buckets, next) in
            [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (5, 6), (6, 8), (7, 8), (11, 12), (12, 16)]
        {
            assert_eq!(larger(buckets), next);
        }
        assert!((0..10_000).all(|buckets| buckets < larger(buckets)));
    }

    #[test]
    fn a_small_table_does_not_keep_the_size_that_it_once_needed() {
        let sizes: Vec<usize> = std::iter::successors(Some(1), |n| Some(larger(*n))).take(9).collect();
        assert!(sizes.windows(2).all(|pair| smaller(pair[1]) == pair[0]), "{sizes:?}");
        let mut table = Table::default();
        (0..40).for_each(|i| insert(&mut table, i));
        let grown = table.buckets().1;
        (4..40).for_each(|i| drop(table.remove(hash_of(&key(i)), &key(i))));
        assert_eq!((grown, table.buckets().1), (8, 1));
        assert!((0..4).all(|i| table.get(hash_of(&key(i)), &key(i)).is_some()));
    }

    #[test]
    fn random_elements_are_spread() {
        let mut table = Table::default();
        (0..100).for_each(|i| insert(&mut table, i));
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state ^ (state >> 29)
        };
        let seen: BTreeSet<_> = (0..5_000).filter_map(|_| table.random(&mut random).cloned()).collect();
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn a_bucket_of_pointers_is_a_cache_line() {
        assert_eq!(size_of::<Bucket<Box<u8>>>(), 64);
    }
}
