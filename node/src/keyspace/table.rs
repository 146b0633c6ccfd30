//! A hash table whose order is the order of the hashes: the dictionary of a slot and of large hashes and sets.
//!
//! A bucket is one cache line: six elements, a tag byte of each one's hash, and a pointer to an overflow bucket.
//! The bucket of a hash is `hash * buckets / 2^32`, so walking the buckets walks the hashes in ascending order
//! whatever the number of buckets is. A SCAN cursor is therefore just a position among the hashes, and SCAN's
//! guarantee (an element present during the whole scan is returned) holds across any resize.
//!
//! A large table is resized step by step: elements below a boundary in hash order live in the new buckets, the
//! others still in the old ones, and each insertion moves the boundary on.

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

const BUCKET_LEN: usize = 6;
/// Tables of at least this many buckets are resized step by step.
const INCREMENTAL_MIN: usize = 1024;

#[repr(align(64))]
struct Bucket<T> {
    /// Byte `i` is the tag of entry `i`, zero if there is none.
    tags: u64,
    entries: [Option<T>; BUCKET_LEN],
    next: Option<Box<Bucket<T>>>,
}

impl<T> Default for Bucket<T> {
    fn default() -> Self {
        Bucket { tags: 0, entries: [const { None }; BUCKET_LEN], next: None }
    }
}

#[inline]
fn tag_of(hash: u64) -> u64 {
    (hash & 0xff).max(1)
}

const LOW: u64 = 0x0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080;

/// A mask with the high bit of each byte of `tags` that is zero; may have false positives above a true one.
#[inline]
fn zero_bytes(tags: u64) -> u64 {
    tags.wrapping_sub(LOW) & !tags & HIGH
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

    fn insert(&mut self, tag: u64, element: T) {
        let mut bucket = self;
        loop {
            if let Some(i) = bucket.entries.iter().position(Option::is_none) {
                bucket.tags |= tag << (8 * i);
                bucket.entries[i] = Some(element);
                return;
            }
            bucket = bucket.next.get_or_insert_with(Box::default);
        }
    }

    fn take(&mut self, i: usize) -> Option<T> {
        self.tags &= !(0xff << (8 * i));
        self.entries[i].take()
    }

    fn chain(&self) -> impl Iterator<Item = &Bucket<T>> {
        std::iter::successors(Some(self), |b| b.next.as_deref())
    }

    fn elements(&self) -> impl Iterator<Item = &T> {
        self.chain().flat_map(|b| b.entries.iter().flatten())
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut T)) {
        let mut bucket = Some(self);
        while let Some(b) = bucket {
            b.entries.iter_mut().flatten().for_each(&mut *visit);
            bucket = b.next.as_deref_mut();
        }
    }
}

/// The old buckets of a table that is being resized; those below `moved` are empty.
struct Old<T> {
    buckets: Box<[Bucket<T>]>,
    moved: usize,
}

/// See the module documentation.
pub struct Table<T> {
    buckets: Box<[Bucket<T>]>,
    len: usize,
    old: Option<Box<Old<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { buckets: Box::default(), len: 0, old: None }
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

impl<T: Keyed> Table<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn bucket(&self, hash: u64) -> Option<&Bucket<T>> {
        if let Some(old) = &self.old {
            let index = index_of(hash, old.buckets.len());
            if index >= old.moved {
                return old.buckets.get(index);
            }
        }
        self.buckets.get(index_of(hash, self.buckets.len()))
    }

    #[inline]
    fn bucket_mut(&mut self, hash: u64) -> Option<&mut Bucket<T>> {
        if let Some(old) = &mut self.old {
            let index = index_of(hash, old.buckets.len());
            if index >= old.moved {
                return old.buckets.get_mut(index);
            }
        }
        let index = index_of(hash, self.buckets.len());
        self.buckets.get_mut(index)
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let tag = tag_of(hash);
        let mut bucket = self.bucket(hash)?;
        loop {
            if let Some(i) = bucket.position(tag, key) {
                return bucket.entries[i].as_ref();
            }
            bucket = bucket.next.as_deref()?;
        }
    }

    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        let tag = tag_of(hash);
        let mut bucket = self.bucket_mut(hash)?;
        loop {
            if let Some(i) = bucket.position(tag, key) {
                return bucket.entries[i].as_mut();
            }
            bucket = bucket.next.as_deref_mut()?;
        }
    }

    /// Adds an element whose key is not in the table.
    pub fn insert_new(&mut self, hash: u64, element: T) {
        debug_assert!(self.get(hash, element.key()).is_none());
        self.make_room();
        self.len += 1;
        self.bucket_mut(hash).expect("make_room leaves at least one bucket").insert(tag_of(hash), element);
    }

    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        let tag = tag_of(hash);
        let mut bucket = self.bucket_mut(hash)?;
        let removed = loop {
            if let Some(i) = bucket.position(tag, key) {
                break bucket.take(i);
            }
            bucket = bucket.next.as_deref_mut()?;
        };
        self.len -= 1;
        self.give_room();
        removed
    }

    /// Every element, in the order of the hashes (roughly: within a bucket in no order).
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let old = self.old.iter().flat_map(|o| o.buckets[o.moved..].iter());
        self.buckets.iter().chain(old).flat_map(Bucket::elements)
    }

    /// Visits the elements of at least one bucket from `position` on; returns where to go on, `None` at the end.
    pub fn scan<'a>(&'a self, position: ScanPosition, visit: &mut dyn FnMut(&'a T)) -> Option<ScanPosition> {
        if self.buckets.is_empty() {
            return None;
        }
        let position = u64::from(position);
        let (bucket, start, end) = match &self.old {
            Some(old) if index_of(position << 32, old.buckets.len()) >= old.moved => {
                let (i, n) = (index_of(position << 32, old.buckets.len()), old.buckets.len());
                (&old.buckets[i], bucket_start(i, n), bucket_start(i + 1, n))
            }
            old => {
                let (i, n) = (index_of(position << 32, self.buckets.len()), self.buckets.len());
                let boundary = old.as_ref().map_or(1 << 32, |o| bucket_start(o.moved, o.buckets.len()));
                (&self.buckets[i], bucket_start(i, n), bucket_start(i + 1, n).min(boundary))
            }
        };
        for element in bucket.elements() {
            if position == start || hash_of(element.key()) >> 32 >= position {
                visit(element);
            }
        }
        u32::try_from(end).ok()
    }

    /// As [`Table::scan`], for changing elements in place (never their keys). May visit elements before `position`.
    pub fn scan_mut(
        &mut self,
        position: ScanPosition,
        visit: &mut dyn FnMut(&mut T),
    ) -> Option<ScanPosition> {
        let hash = u64::from(position) << 32;
        let end = match &self.old {
            _ if self.buckets.is_empty() => return None,
            Some(old) if index_of(hash, old.buckets.len()) >= old.moved => {
                let n = old.buckets.len();
                bucket_start(index_of(hash, n) + 1, n)
            }
            old => {
                let n = self.buckets.len();
                let boundary = old.as_ref().map_or(1 << 32, |o| bucket_start(o.moved, o.buckets.len()));
                bucket_start(index_of(hash, n) + 1, n).min(boundary)
            }
        };
        self.bucket_mut(hash)?.visit_mut(visit);
        u32::try_from(end).ok()
    }

    /// An element chosen by a random number, nearly uniformly: a bucket is drawn, then one of its elements.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        // Drawing (bucket, place) pairs until one is taken is uniform; the bound covers very sparse tables.
        for _ in 0..256 {
            let bucket = self.bucket(random())?;
            let chain = bucket.chain().count();
            let place = (random() >> 33) as usize % (BUCKET_LEN * chain.max(2));
            let element =
                bucket.chain().nth(place / BUCKET_LEN).and_then(|b| b.entries[place % BUCKET_LEN].as_ref());
            if element.is_some() {
                return element;
            }
        }
        self.iter().nth((random() >> 33) as usize % self.len)
    }

    /// Address and number of the buckets, for a prefetch hint.
    #[inline]
    pub fn buckets(&self) -> (usize, usize) {
        (self.buckets.as_ptr().addr(), self.buckets.len())
    }

    /// The first element whose tag matches, for a prefetch hint.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<&T> {
        let bucket = self.bucket(hash)?;
        let matches = zero_bytes(bucket.tags ^ (tag_of(hash) * LOW));
        bucket.entries.get((matches.trailing_zeros() / 8) as usize)?.as_ref()
    }

    /// Bytes of all buckets.
    pub fn buckets_len_bytes(&self) -> usize {
        let old = self.old.as_ref().map_or(0, |o| o.buckets.len());
        (self.buckets.len() + old) * size_of::<Bucket<T>>()
    }

    fn make_room(&mut self) {
        if self.old.is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if self.len < buckets * 9 / 2 {
            return;
        }
        self.resize(match buckets {
            0 => 1,
            1..=3 => buckets + 1,
            _ => buckets + buckets / 2,
        });
    }

    fn give_room(&mut self) {
        if self.old.is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if self.len == 0 {
            self.buckets = Box::default();
        } else if buckets > 4 && self.len < buckets {
            self.resize(buckets / 2);
        }
    }

    fn resize(&mut self, buckets: usize) {
        let new = std::iter::repeat_with(Bucket::default).take(buckets).collect();
        let old = std::mem::replace(&mut self.buckets, new);
        let incremental = INCREMENTAL_MIN <= old.len();
        self.old = (!old.is_empty()).then(|| Box::new(Old { buckets: old, moved: 0 }));
        if !incremental {
            while self.old.is_some() {
                self.move_some();
            }
        }
    }

    /// Moves the elements of a few old buckets to the new ones.
    fn move_some(&mut self) {
        let Some(old) = &mut self.old else { return };
        for _ in 0..8 {
            let Some(bucket) = old.buckets.get_mut(old.moved) else { break };
            old.moved += 1;
            let mut bucket = Some(Box::new(std::mem::take(bucket)));
            while let Some(mut b) = bucket {
                for element in b.entries.iter_mut().filter_map(Option::take) {
                    let hash = hash_of(element.key());
                    self.buckets[index_of(hash, self.buckets.len())].insert(tag_of(hash), element);
                }
                bucket = b.next.take();
            }
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
