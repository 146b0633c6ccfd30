//! The buckets of a table: one cache line each, full ones pass elements on to those behind them, but not far: where
//! [`REACH`] buckets in a row are full, an element lies in the table's crowd (see [`super`]) and is counted as passed
//! on by all of them.
//!
//! Whoever searches or changes sees them through [`View`] and [`ViewMut`]: a row of `len` buckets of which only the
//! first ones may have been made yet; the others are empty. That is how a large table gets its next buckets
//! ([`Growing`]): not all at once, but while its elements move to them.

use super::{Keyed, Order};

/// Elements of a bucket.
pub(super) const BUCKET_LEN: usize = 7;

/// Buckets in which an element may lie, its own one included. Where hashes are spread evenly one element in some
/// thousands finds no room in so many, and that only just before the table grows.
pub(super) const REACH: usize = 32;

#[repr(align(64))]
pub(super) struct Bucket<T> {
    /// Byte `i` is the tag of entry `i`, zero if there is none; the last byte counts those that were passed on.
    tags: u64,
    pub(super) entries: [Option<T>; BUCKET_LEN],
}

impl<T> Default for Bucket<T> {
    fn default() -> Self {
        Bucket { tags: 0, entries: [const { None }; BUCKET_LEN] }
    }
}

#[inline]
pub(super) fn tag_of(hash: u64) -> u64 {
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

/// The bucket of a hash among so many.
#[inline]
pub(super) fn index_of(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

impl<T> Bucket<T> {
    /// How many elements lie behind this bucket because it was full.
    #[inline]
    pub(super) fn passed_on(&self) -> u64 {
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

    #[inline]
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

    /// Where elements with this tag may be: the first match of the mask is one, others may be false.
    #[inline]
    fn matches(&self, tag: u64) -> u64 {
        zero_bytes(self.tags ^ (tag * LOW))
    }

    #[cfg(test)]
    pub(super) fn tag(&self, place: usize) -> u64 {
        self.tags >> (8 * place) & 0xff
    }
}

impl<T: Keyed> Bucket<T> {
    #[inline]
    fn position(&self, tag: u64, key: &[u8]) -> Option<usize> {
        let mut matches = self.matches(tag);
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

/// The bucket behind another one; the first comes behind the last.
#[inline]
fn behind(index: usize, len: usize) -> usize {
    if index + 1 == len { 0 } else { index + 1 }
}

/// A row of `len` buckets, for reading. Those that are not in `made` are empty. Hashes are those of the table's order.
pub(super) struct View<'a, T> {
    pub(super) made: &'a [Bucket<T>],
    pub(super) len: usize,
}

/// Whether an element was found, or may lie in the crowd.
pub(super) enum Found {
    At(usize, usize),
    Nowhere,
    PerhapsInCrowd,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    #[inline]
    pub(super) fn home(self, hash: u64) -> usize {
        index_of(hash, self.len)
    }

    /// The buckets in which elements of the bucket `home` may lie.
    #[inline]
    pub(super) fn chain(self, home: usize) -> impl Iterator<Item = usize> + 'a {
        let mut next = (home < self.made.len()).then_some(home);
        // Each one once, even if all of them have passed on elements.
        (0..self.made.len().min(REACH)).map_while(move |_| {
            let index = next?;
            next = (self.made[index].passed_on() > 0).then(|| behind(index, self.len));
            Some(index)
        })
    }

    /// The first element whose tag matches, for a prefetch hint.
    #[inline]
    pub(super) fn candidate(self, hash: u64) -> Option<&'a T> {
        let index = self.home(hash);
        let mut bucket = self.made.get(index)?;
        let mut matches = bucket.matches(tag_of(hash));
        if matches == 0 && bucket.passed_on() > 0 {
            bucket = self.made.get(behind(index, self.len))?;
            matches = bucket.matches(tag_of(hash));
        }
        bucket.entries.get((matches.trailing_zeros() / 8) as usize)?.as_ref()
    }
}

impl<'a, T: Keyed> View<'a, T> {
    /// Bucket and place of an element.
    #[inline]
    pub(super) fn find(self, hash: u64, key: &[u8]) -> Found {
        let tag = tag_of(hash);
        let mut index = self.home(hash);
        for _ in 0..self.len.min(REACH) {
            super::count_step();
            let Some(bucket) = self.made.get(index) else { return Found::Nowhere };
            if let Some(place) = bucket.position(tag, key) {
                return Found::At(index, place);
            }
            if bucket.passed_on() == 0 {
                return Found::Nowhere;
            }
            index = behind(index, self.len);
        }
        Found::PerhapsInCrowd
    }

    /// Visits the elements of the bucket `home` but those in the crowd.
    pub(super) fn visit(self, home: usize, order: Order, visit: &mut dyn FnMut(&'a T)) {
        let before = if home == 0 { self.len - 1 } else { home - 1 };
        let alone = self.made.get(before).is_none_or(|bucket| bucket.passed_on() == 0);
        for index in self.chain(home) {
            for element in self.made[index].entries.iter().flatten() {
                // Without guests from before, what lies in a bucket belongs there.
                if alone && index == home || self.home(order.hash_of(element)) == home {
                    visit(element);
                }
            }
        }
    }
}

/// As [`View`], for changing the elements.
pub(super) struct ViewMut<'a, T> {
    pub(super) made: &'a mut [Bucket<T>],
    pub(super) len: usize,
}

impl<'a, T: Keyed> ViewMut<'a, T> {
    #[inline]
    pub(super) fn view(&self) -> View<'_, T> {
        View { made: self.made, len: self.len }
    }

    /// All buckets are made. An element for which there is no room within reach comes back.
    pub(super) fn insert(&mut self, hash: u64, element: T) -> Result<(), T> {
        let mut index = index_of(hash, self.len);
        for _ in 0..self.len.min(REACH) {
            super::count_step();
            let bucket = &mut self.made[index];
            if let Some(place) = bucket.free_place() {
                bucket.put(place, tag_of(hash), element);
                return Ok(());
            }
            bucket.pass_on();
            index = behind(index, self.len);
        }
        Err(element)
    }

    /// Takes an element of the bucket `home` out of the bucket in which it lies.
    pub(super) fn take(&mut self, home: usize, found: usize, place: usize) -> Option<T> {
        let mut index = home;
        while index != found {
            self.made[index].take_back();
            index = behind(index, self.len);
        }
        self.made[found].take(place)
    }

    /// An element of the bucket `home` has been taken out of the crowd.
    pub(super) fn take_back_all(&mut self, home: usize) {
        let mut index = home;
        for _ in 0..self.len.min(REACH) {
            self.made[index].take_back();
            index = behind(index, self.len);
        }
    }

    /// Takes out the elements of the bucket `home` but those in the crowd.
    pub(super) fn drain(&mut self, home: usize, order: Order, put: &mut dyn FnMut(u64, T)) {
        let chain: Vec<usize> = self.view().chain(home).collect();
        for index in chain {
            for place in 0..BUCKET_LEN {
                let Some(element) = &self.made[index].entries[place] else { continue };
                let hash = order.hash_of(element);
                if index_of(hash, self.len) == home
                    && let Some(element) = self.take(home, index, place)
                {
                    put(hash, element);
                }
            }
        }
    }
}

/// The next buckets of a table whose elements move to them one bucket after the other. Memory for all is there from
/// the beginning, but it is touched only as the elements come: making many buckets at once takes milliseconds.
pub(super) struct Growing<T> {
    made: Vec<Bucket<T>>,
    len: usize,
    /// Old buckets below this have been moved.
    pub(super) moved: usize,
}

impl<T> Growing<T> {
    pub(super) fn new(len: usize) -> Self {
        Growing { made: Vec::with_capacity(len), len, moved: 0 }
    }

    #[inline]
    pub(super) fn view(&self) -> View<'_, T> {
        View { made: &self.made, len: self.len }
    }

    #[inline]
    pub(super) fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { made: &mut self.made, len: self.len }
    }

    /// As [`ViewMut::insert`].
    pub(super) fn insert(&mut self, hash: u64, element: T) -> Result<(), T>
    where
        T: Keyed,
    {
        let last = index_of(hash, self.len) + REACH;
        self.make(if last <= self.len { last } else { self.len });
        self.view_mut().insert(hash, element)
    }

    fn make(&mut self, len: usize) {
        if self.made.len() < len {
            self.made.resize_with(len, Bucket::default);
        }
    }

    /// All elements are here.
    pub(super) fn finish(mut self) -> Box<[Bucket<T>]> {
        self.make(self.len);
        self.made.into_boxed_slice()
    }
}
