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
//! Invariants, checked by the tests: an element lies in the bucket of its hash or behind it, and each bucket that was
//! passed over counts it (a count of 255 means many, and stays); there is always a free place.

mod buckets;
pub mod saving;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

use buckets::{BUCKET_LEN, Bucket, Growing, View, ViewMut, index_of};
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

/// What few tables have, for a while.
struct Extra<T> {
    growing: Option<Growing<T>>,
    saving: Option<Saving<T>>,
}

/// See the module documentation.
pub struct Table<T> {
    /// The old ones while the table is being resized.
    buckets: Box<[Bucket<T>]>,
    len: usize,
    extra: Option<Box<Extra<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { buckets: Box::default(), len: 0, extra: None }
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

    fn view(&self) -> View<'_, T> {
        View { made: &self.buckets, len: self.buckets.len() }
    }

    fn growing(&self) -> Option<&Growing<T>> {
        self.extra.as_ref()?.growing.as_ref()
    }

    fn extra(&mut self) -> &mut Extra<T> {
        self.extra.get_or_insert_with(|| Box::new(Extra { growing: None, saving: None }))
    }

    fn drop_extra_if_unused(&mut self) {
        self.extra.take_if(|extra| extra.growing.is_none() && extra.saving.is_none());
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
        self.view_of(hash).get(hash, key)
    }

    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        if self.extra.is_some() {
            self.note_change(hash, key);
        }
        self.view_of_mut(hash).get_mut(hash, key)
    }

    /// Adds an element whose key is not in the table.
    pub fn insert_new(&mut self, hash: u64, element: T) {
        debug_assert!(self.get(hash, element.key()).is_none());
        if self.extra.is_some() {
            self.note_insertion(hash, element.key());
        }
        self.make_room();
        self.len += 1;
        let len = self.buckets.len();
        if let Some(extra) = &mut self.extra
            && let Some(growing) = &mut extra.growing
            && index_of(hash, len) < growing.moved
        {
            return growing.insert(hash, element);
        }
        ViewMut { made: &mut self.buckets, len }.insert(hash, element);
    }

    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        if self.extra.is_some() {
            self.note_change(hash, key);
        }
        let removed = self.view_of_mut(hash).remove(hash, key)?;
        self.len -= 1;
        self.give_room();
        Some(removed)
    }

    /// Every element, in the order of the hashes (roughly).
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let grown = self.growing().map_or(&[][..], |growing| growing.view().made);
        grown.iter().chain(&self.buckets).flat_map(|bucket| bucket.entries.iter().flatten())
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
        let (view, index, start, end) = self.bucket_at(position)?;
        view.visit(index, &mut |element| {
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
        debug_assert!(self.saving().is_none(), "changes of a table that is saved are noted");
        let (view, index, _, end) = self.bucket_at(u64::from(position))?;
        let chain: Vec<usize> = view.chain(index).collect();
        let view = self.view_of_mut(u64::from(position) << 32);
        for index in chain {
            view.made[index].entries.iter_mut().flatten().for_each(&mut *visit);
        }
        u32::try_from(end).ok()
    }

    /// An element chosen by a random number, each as likely as any other unless the table is very sparse.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        let grown = self.growing().map_or(&[][..], |growing| growing.view().made);
        let places = (self.buckets.len() + grown.len()) * BUCKET_LEN;
        // Drawing places until one is taken is fair; the bound covers very sparse tables.
        for _ in 0..256 {
            let place = (random() >> 8) as usize % places;
            let (index, place) = (place / BUCKET_LEN, place % BUCKET_LEN);
            let bucket = self.buckets.get(index).or_else(|| grown.get(index - self.buckets.len()))?;
            if let Some(element) = &bucket.entries[place] {
                return Some(element);
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
        self.view_of(hash).candidate(hash)
    }

    /// Bytes of all buckets.
    pub fn buckets_len_bytes(&self) -> usize {
        let grown = self.growing().map_or(0, |growing| growing.view().made.len());
        (self.buckets.len() + grown) * size_of::<Bucket<T>>()
    }

    /// Makes room for so many elements in an empty table.
    pub fn reserve(&mut self, len: usize) {
        let buckets = len.div_ceil(FULL);
        if self.len == 0 && self.growing().is_none() && self.buckets.len() < buckets {
            self.buckets = empty(buckets);
        }
    }

    fn make_room(&mut self) {
        if self.growing().is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if buckets * FULL <= self.len {
            self.resize(larger(buckets));
        }
    }

    fn give_room(&mut self) {
        if self.growing().is_some() {
            return self.move_some();
        }
        let buckets = self.buckets.len();
        if self.len == 0 {
            self.buckets = Box::default();
        } else if buckets > 3 && self.len < buckets * 3 / 2 {
            self.resize(buckets / 2);
        } else if (2..=SMALL).contains(&buckets) && self.len <= smaller(buckets) * FULL * 2 / 3 {
            // Most tables are small, and many of them would otherwise keep the size that they once needed.
            self.resize(smaller(buckets));
        }
    }

    fn resize(&mut self, buckets: usize) {
        if INCREMENTAL_MIN <= self.buckets.len() {
            self.extra().growing = Some(Growing::new(buckets));
            return;
        }
        let old = std::mem::replace(&mut self.buckets, empty(buckets));
        let mut view = ViewMut { made: &mut self.buckets, len: buckets };
        for mut bucket in old {
            for element in bucket.entries.iter_mut().filter_map(Option::take) {
                view.insert(hash_of(element.key()), element);
            }
        }
    }

    /// Moves the elements of a few old buckets to the new ones.
    fn move_some(&mut self) {
        let len = self.buckets.len();
        let mut old = ViewMut { made: &mut self.buckets, len };
        let Some(extra) = &mut self.extra else { return };
        let Some(growing) = &mut extra.growing else { return };
        for _ in 0..MOVED_AT_ONCE {
            if growing.moved == len {
                break;
            }
            old.drain(growing.moved, &mut |hash, element| growing.insert(hash, element));
            growing.moved += 1;
        }
        if growing.moved == len
            && let Some(growing) = extra.growing.take()
        {
            self.buckets = growing.finish();
            self.drop_extra_if_unused();
        }
    }
}

fn empty<T>(buckets: usize) -> Box<[Bucket<T>]> {
    std::iter::repeat_with(Bucket::default).take(buckets).collect()
}
