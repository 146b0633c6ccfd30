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
//! others still in the old ones, and each insertion moves the boundary on. New buckets are made as the boundary comes
//! to them ([`buckets`]), so that no step is long. How a large table is saved while it changes: [`saving`].
//!
//! # Elements that do not come at random
//!
//! Whoever reads a table reads it in the order of its hashes. What fills another table from it would fill that one from
//! one end to the other if the two had the same order: nearly all elements would want the same few buckets. Therefore
//! every collection has an order of its own ([`Table::with_own_order`]), a permutation of the hashes that is chosen when
//! the table is made. The tables of slots do without (the order of their hashes is known to who prefetches buckets).
//!
//! Elements may be spread unevenly nevertheless: a client that removes what SSCAN shows leaves the upper end of the
//! hashes, a slot is filled with what a SCAN of another database found there, and somebody may choose elements on
//! purpose. So no element lies farther than [`buckets::REACH`] buckets from its own. One that finds no room so near
//! lies in the *crowd*, a search tree in the order of the hashes, until the table is resized. Where hashes are spread
//! evenly there is none; whatever the spread is, a step costs no more than these buckets and a search in the tree.
//!
//! Invariants, checked by the tests: an element lies in the bucket of its hash, within reach behind it, or in the
//! crowd; each bucket that was passed over counts it (a count of 255 means many, and stays); there is always a free
//! place.

mod buckets;
pub mod saving;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use foldhash::quality::RandomState;

use buckets::{BUCKET_LEN, Bucket, Found, Growing, View, ViewMut, index_of};
use saving::Saving;

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

/// Elements per bucket beyond which the table grows.
const FULL: usize = 6;
/// Tables up to this many buckets give room back in small steps.
const SMALL: usize = 12;
/// Tables of at least this many buckets are resized step by step.
const INCREMENTAL_MIN: usize = 1024;
/// Old buckets that an insertion or removal empties.
const MOVED_AT_ONCE: usize = 8;

/// By what a table orders its elements: their hashes times an odd number. One of them leaves hashes as they are.
#[derive(Debug, Clone, Copy)]
struct Order(u64);

impl Order {
    #[inline]
    fn of(self, hash: u64) -> u64 {
        hash.wrapping_mul(self.0)
    }

    #[inline]
    fn hash_of(self, element: &impl Keyed) -> u64 {
        self.of(hash_of(element.key()))
    }
}

/// Seeds of orders are given out in turn, so that a table and one that is filled from it have different ones.
static NEXT_SEED: AtomicU16 = AtomicU16::new(1);

/// Even, so that no factor is a multiple of another one: the hashes in the order of one table are in no order to any
/// other.
const SEED_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15 << 1;
const LEN_BITS: u32 = 48;

/// Elements without room near their bucket, in the table's order; those of one hash are numbered.
type Crowd<T> = BTreeMap<(u64, u32), T>;

/// What few tables have, for a while.
struct Extra<T> {
    growing: Option<Growing<T>>,
    saving: Option<Saving<T>>,
    crowd: Crowd<T>,
}

/// See the module documentation.
pub struct Table<T> {
    /// The old ones while the table is being resized.
    buckets: Box<[Bucket<T>]>,
    /// The number of elements in the lower bits, the seed of the order in the upper ones: the state of a slot is one
    /// cache line.
    sized: u64,
    extra: Option<Box<Extra<T>>>,
}

/// Its order is that of [`hash_of`].
impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { buckets: Box::default(), sized: 0, extra: None }
    }
}

/// The copy has an order of its own.
impl<T: Keyed + Clone> Clone for Table<T> {
    fn clone(&self) -> Self {
        let mut copy = Table::with_own_order();
        copy.reserve(self.len());
        self.iter().for_each(|element| copy.insert_new(hash_of(element.key()), element.clone()));
        copy
    }
}

/// For the tests: buckets looked at.
#[inline]
fn count_step() {
    #[cfg(test)]
    tests::STEPS.with(|steps| steps.set(steps.get() + 1));
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table of {} in {} buckets", self.len(), self.buckets.len())
    }
}

/// A position among the hashes, for SCAN. Zero is the start.
pub type ScanPosition = u32;

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

impl<T> Table<T> {
    /// An empty table with an order of its own: for what may be filled with the elements of another one.
    pub fn with_own_order() -> Self {
        let seed = NEXT_SEED.fetch_add(1, Ordering::Relaxed).max(1);
        Table { buckets: Box::default(), sized: u64::from(seed) << LEN_BITS, extra: None }
    }

    #[inline]
    pub fn len(&self) -> usize {
        (self.sized & ((1 << LEN_BITS) - 1)) as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn order(&self) -> Order {
        Order((self.sized >> LEN_BITS).wrapping_mul(SEED_FACTOR) | 1)
    }
}

impl<T: Keyed> Table<T> {
    fn view(&self) -> View<'_, T> {
        View { made: &self.buckets, len: self.buckets.len() }
    }

    fn growing(&self) -> Option<&Growing<T>> {
        self.extra.as_ref()?.growing.as_ref()
    }

    fn extra(&mut self) -> &mut Extra<T> {
        self.extra.get_or_insert_with(|| Box::new(Extra { growing: None, saving: None, crowd: Crowd::new() }))
    }

    fn drop_extra_if_unused(&mut self) {
        self.extra
            .take_if(|extra| extra.growing.is_none() && extra.saving.is_none() && extra.crowd.is_empty());
    }

    fn crowd_len(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.crowd.len())
    }

    /// Where an element of the crowd is; the hash is in the table's order.
    #[cold]
    fn find_in_crowd(&self, hash: u64, key: &[u8]) -> Option<(u64, u32)> {
        let mut same = self.extra.as_ref()?.crowd.range((hash, 0)..=(hash, u32::MAX));
        same.find(|(_, element)| element.key() == key).map(|(at, _)| *at)
    }

    /// The buckets in which an element with this hash is, or would be put.
    #[inline]
    fn view_of(&self, hash: u64) -> View<'_, T> {
        let view = self.view();
        match &self.extra {
            Some(extra) => match &extra.growing {
                Some(growing) if view.home(hash) < growing.moved => growing.view(),
                Some(_) | None => view,
            },
            None => view,
        }
    }

    #[inline]
    fn view_of_mut(&mut self, hash: u64) -> ViewMut<'_, T> {
        let len = self.buckets.len();
        match &mut self.extra {
            Some(extra) => match &mut extra.growing {
                Some(growing) if index_of(hash, len) < growing.moved => growing.view_mut(),
                Some(_) | None => ViewMut { made: &mut self.buckets, len },
            },
            None => ViewMut { made: &mut self.buckets, len },
        }
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let hash = self.order().of(hash);
        let view = self.view_of(hash);
        match view.find(hash, key) {
            Found::At(index, place) => view.made[index].entries[place].as_ref(),
            Found::Nowhere => None,
            Found::PerhapsInCrowd => {
                let at = self.find_in_crowd(hash, key)?;
                self.extra.as_ref()?.crowd.get(&at)
            }
        }
    }

    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        if self.extra.is_some() {
            self.note_change(hash, key);
        }
        let hash = self.order().of(hash);
        match self.view_of(hash).find(hash, key) {
            Found::At(index, place) => self.view_of_mut(hash).made[index].entries[place].as_mut(),
            Found::Nowhere => None,
            Found::PerhapsInCrowd => {
                let at = self.find_in_crowd(hash, key)?;
                self.extra.as_mut()?.crowd.get_mut(&at)
            }
        }
    }

    /// Adds an element whose key is not in the table.
    pub fn insert_new(&mut self, hash: u64, element: T) {
        debug_assert!(self.get(hash, element.key()).is_none());
        if self.extra.is_some() {
            self.note_insertion(hash, element.key());
        }
        self.grow_if_due();
        self.sized += 1;
        self.put(self.order().of(hash), element);
    }

    /// Puts an element where its hash, in the table's order, belongs.
    fn put(&mut self, hash: u64, element: T) {
        let len = self.buckets.len();
        let result = if let Some(extra) = &mut self.extra
            && let Some(growing) = &mut extra.growing
            && index_of(hash, len) < growing.moved
        {
            growing.insert(hash, element)
        } else {
            ViewMut { made: &mut self.buckets, len }.insert(hash, element)
        };
        if let Err(element) = result {
            put_into_crowd(&mut self.extra().crowd, hash, element);
        }
    }

    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        if self.extra.is_some() {
            self.note_change(hash, key);
        }
        let hash = self.order().of(hash);
        let removed = match self.view_of(hash).find(hash, key) {
            Found::At(index, place) => {
                let mut view = self.view_of_mut(hash);
                view.take(index_of(hash, view.len), index, place)
            }
            Found::Nowhere => None,
            Found::PerhapsInCrowd => {
                let at = self.find_in_crowd(hash, key)?;
                let removed = self.extra.as_mut()?.crowd.remove(&at);
                let mut view = self.view_of_mut(hash);
                view.take_back_all(index_of(hash, view.len));
                self.drop_extra_if_unused();
                removed
            }
        }?;
        self.sized -= 1;
        self.shrink_if_due();
        Some(removed)
    }

    /// Every element, in the order of the hashes (roughly).
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let grown = self.growing().map_or(&[][..], |growing| growing.view().made);
        let crowd = self.extra.iter().flat_map(|extra| extra.crowd.values());
        grown.iter().chain(&self.buckets).flat_map(|bucket| bucket.entries.iter().flatten()).chain(crowd)
    }

    /// The bucket at a position among the hashes, and the positions where it starts and ends.
    fn bucket_at(&self, position: u64) -> Option<(View<'_, T>, usize, u64, u64)> {
        let len = self.buckets.len();
        if len == 0 {
            return None;
        }
        let hash = position << 32;
        let (view, boundary) = match self.growing() {
            Some(growing) if index_of(hash, len) < growing.moved => {
                (growing.view(), bucket_start(growing.moved, len))
            }
            Some(_) | None => (self.view(), 1 << 32),
        };
        let index = view.home(hash);
        Some((view, index, bucket_start(index, view.len), bucket_start(index + 1, view.len).min(boundary)))
    }

    /// Visits the elements of at least one bucket from `position` on; returns where to go on, `None` at the end.
    pub fn scan<'a>(&'a self, position: ScanPosition, visit: &mut dyn FnMut(&'a T)) -> Option<ScanPosition> {
        let position = u64::from(position);
        let order = self.order();
        let (view, index, start, end) = self.bucket_at(position)?;
        view.visit(index, order, &mut |element| {
            if position <= start || order.hash_of(element) >> 32 >= position {
                visit(element);
            }
        });
        if let Some(extra) = &self.extra
            && !extra.crowd.is_empty()
        {
            let from = start.max(position);
            extra.crowd.range(positions(from, end)).for_each(|(_, element)| visit(element));
        }
        u32::try_from(end).ok()
    }

    /// As [`Table::scan`], for changing elements in place (never their keys). May visit elements that lie elsewhere
    /// among the hashes, too.
    pub fn scan_mut(
        &mut self,
        position: ScanPosition,
        visit: &mut dyn FnMut(&mut T),
    ) -> Option<ScanPosition> {
        debug_assert!(self.saving().is_none(), "changes of a table that is saved are noted");
        let (view, index, start, end) = self.bucket_at(u64::from(position))?;
        let chain: Vec<usize> = view.chain(index).collect();
        let view = self.view_of_mut(u64::from(position) << 32);
        for index in chain {
            view.made[index].entries.iter_mut().flatten().for_each(&mut *visit);
        }
        if let Some(extra) = &mut self.extra {
            extra.crowd.range_mut(positions(start, end)).for_each(|(_, element)| visit(element));
        }
        u32::try_from(end).ok()
    }

    /// An element chosen by a random number, each as likely as any other unless the table is very sparse, and about so
    /// in the crowd.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        let grown = self.growing().map_or(&[][..], |growing| growing.view().made);
        let in_buckets = (self.buckets.len() + grown.len()) * BUCKET_LEN;
        let places = in_buckets + self.crowd_len();
        // Drawing places until one is taken is fair; the bound covers very sparse tables.
        for _ in 0..256 {
            let place = (random() >> 8) as usize % places;
            if in_buckets <= place {
                return self.random_of_crowd(random);
            }
            let (index, place) = (place / BUCKET_LEN, place % BUCKET_LEN);
            let bucket = self.buckets.get(index).or_else(|| grown.get(index - self.buckets.len()))?;
            if let Some(element) = &bucket.entries[place] {
                return Some(element);
            }
        }
        self.iter().nth((random() >> 33) as usize % self.len())
    }

    /// Some steps behind a random hash: gaps between hashes matter little then.
    #[cold]
    fn random_of_crowd(&self, mut random: impl FnMut() -> u64) -> Option<&T> {
        const STEPS_MAX: usize = 32;
        let crowd = &self.extra.as_ref()?.crowd;
        let ((first, _), (last, _)) = (*crowd.first_key_value()?.0, *crowd.last_key_value()?.0);
        // Not over all 64 bits: the span of the hashes is never that long.
        let at = first + random() % (last - first).max(1);
        let from_there = crowd.range((at, 0)..).chain(crowd.iter());
        let steps = (random() >> 33) as usize % STEPS_MAX.min(crowd.len());
        from_there.map(|(_, element)| element).nth(steps)
    }

    /// Address and number of the buckets, for a prefetch hint.
    #[inline]
    pub fn buckets(&self) -> (usize, usize) {
        (self.buckets.as_ptr().addr(), self.buckets.len())
    }

    /// The first element whose tag matches, for a prefetch hint.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<&T> {
        let hash = self.order().of(hash);
        self.view_of(hash).candidate(hash)
    }

    /// Bytes of all buckets.
    pub fn buckets_len_bytes(&self) -> usize {
        let grown = self.growing().map_or(0, |growing| growing.view().made.len());
        let crowd = self.crowd_len() * size_of::<((u64, u32), T)>();
        (self.buckets.len() + grown) * size_of::<Bucket<T>>() + crowd
    }

    /// Makes room for so many elements in an empty table.
    pub fn reserve(&mut self, len: usize) {
        let buckets = len.div_ceil(FULL);
        if self.is_empty() && self.growing().is_none() && self.buckets.len() < buckets {
            self.buckets = empty(buckets);
        }
    }

    fn grow_if_due(&mut self) {
        if self.growing().is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if buckets * FULL <= self.len() {
            self.resize(larger(buckets));
        }
    }

    fn shrink_if_due(&mut self) {
        if self.growing().is_some() {
            return self.move_some();
        }
        let (buckets, len) = (self.buckets.len(), self.len());
        if len == 0 {
            self.buckets = Box::default();
        } else if buckets > 3 && len < buckets * 3 / 2 {
            self.resize(buckets / 2);
        } else if (2..=SMALL).contains(&buckets) && len <= smaller(buckets) * FULL * 2 / 3 {
            // Most tables are small, and many of them would otherwise keep the size that they once needed.
            self.resize(smaller(buckets));
        }
    }

    fn resize(&mut self, buckets: usize) {
        if INCREMENTAL_MIN <= self.buckets.len() {
            self.extra().growing = Some(Growing::new(buckets));
            return;
        }
        let order = self.order();
        let old = std::mem::replace(&mut self.buckets, empty(buckets));
        let crowd = self.extra.as_mut().map(|extra| std::mem::take(&mut extra.crowd));
        for mut bucket in old {
            for element in bucket.entries.iter_mut().filter_map(Option::take) {
                self.put(order.hash_of(&element), element);
            }
        }
        for ((hash, _), element) in crowd.into_iter().flatten() {
            self.put(hash, element);
        }
        self.drop_extra_if_unused();
    }

    /// Moves the elements of a few old buckets to the new ones.
    fn move_some(&mut self) {
        let (len, order) = (self.buckets.len(), self.order());
        let mut old = ViewMut { made: &mut self.buckets, len };
        let Some(extra) = &mut self.extra else { return };
        let Some(growing) = &mut extra.growing else { return };
        let mut moved = Vec::new();
        for _ in 0..MOVED_AT_ONCE {
            if growing.moved == len {
                break;
            }
            let home = growing.moved;
            old.drain(home, order, &mut |hash, element| moved.push((hash, element)));
            let range = positions(bucket_start(home, len), bucket_start(home + 1, len));
            while let Some((&at, _)) = extra.crowd.range(range.clone()).next() {
                moved.extend(extra.crowd.remove(&at).map(|element| (at.0, element)));
                old.take_back_all(home);
            }
            growing.moved += 1;
            for (hash, element) in moved.drain(..) {
                if let Err(element) = growing.insert(hash, element) {
                    put_into_crowd(&mut extra.crowd, hash, element);
                }
            }
        }
        if growing.moved == len
            && let Some(growing) = extra.growing.take()
        {
            self.buckets = growing.finish();
            self.drop_extra_if_unused();
        }
    }
}

/// What lies from one position among the hashes to another one, as a range of the crowd.
fn positions(from: u64, to: u64) -> std::ops::RangeInclusive<(u64, u32)> {
    // Behind the last position the shift gives zero.
    (from << 32, 0)..=((to << 32).wrapping_sub(1), u32::MAX)
}

#[cold]
fn put_into_crowd<T>(crowd: &mut Crowd<T>, hash: u64, element: T) {
    let last = crowd.range((hash, 0)..=(hash, u32::MAX)).next_back();
    let number = last.map_or(0, |((_, number), _)| number + 1);
    crowd.insert((hash, number), element);
}

fn empty<T>(buckets: usize) -> Box<[Bucket<T>]> {
    std::iter::repeat_with(Bucket::default).take(buckets).collect()
}
