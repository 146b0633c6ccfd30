//! Members with scores, ordered by score and then by bytes; each member is there once.
//!
//! A small set is a listpack (`packed`). A large one is a table that finds a member by its name (`Table`) and a
//! tree that keeps the members in order and counts them (`tree`); both point to the same members (`Member`). A
//! large set stays large, as in Valkey, but for results of commands. Scores are never NaN.

mod collection;
mod keys;
mod packed;
mod range;
pub(crate) mod rdb;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use range::{LexBound, LexRange, ScoreRange};

use super::listpack::{self, ListpackRef};
use super::{Element, fits_compact};
use crate::entry::thin::Member;
use crate::entry::{Compact, Entry, Value, ValueRef};
use crate::table::{ScanPosition, Table, hash_of};
use crate::types::buffer::Buffer;
use crate::types::tree::{self, Ordered, Target, Tree};
use packed::Packed;

/// `zset-max-listpack-entries` and `-value`: larger sorted sets are not listpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortedSetLimits {
    pub entries: usize,
    pub value: usize,
}

impl Default for SortedSetLimits {
    fn default() -> Self {
        SortedSetLimits { entries: 128, value: 64 }
    }
}

impl SortedSetLimits {
    /// Whether a listpack of so many members and bytes, with members of at most this length, may be a sorted set.
    pub fn allow_listpack(&self, count: usize, longest: usize, bytes: usize) -> bool {
        count <= self.entries && longest <= self.value && fits_compact(bytes, 0)
    }
}

/// A large sorted set. Named as Valkey names what serves there in its place.
#[derive(Debug)]
pub struct Skiplist {
    by_name: Table<Member>,
    in_order: Tree<Item>,
}

/// A member and a copy of its score, so that a descent reads names only where scores are equal.
#[derive(Debug, Clone)]
struct Item {
    score: f64,
    member: Member,
}

impl From<Member> for Item {
    fn from(member: Member) -> Self {
        Item { score: member.score(), member }
    }
}

impl Ordered for Item {
    #[inline]
    fn is_before(&self, other: &Item) -> bool {
        self.score < other.score || self.score == other.score && self.member.name() < other.member.name()
    }
}

impl Default for Skiplist {
    fn default() -> Self {
        Skiplist { by_name: Table::with_own_order(), in_order: Tree::default() }
    }
}

impl Skiplist {
    /// The members in no order, to save them; they are changed by the methods of this type only.
    pub(crate) fn members(&self) -> &Table<Member> {
        &self.by_name
    }

    pub(crate) fn members_mut(&mut self) -> &mut Table<Member> {
        &mut self.by_name
    }

    fn insert_new(&mut self, hash: u64, member: Member) {
        self.by_name.insert_new(hash, member.clone());
        self.in_order.insert(member.into());
    }

    /// Adds a member, or gives it another score. Whether it is new.
    fn insert(&mut self, member: &[u8], score: f64) -> bool {
        let hash = hash_of(member);
        let Some(found) = self.by_name.get_mut(hash, member) else {
            self.insert_new(hash, Member::new(member, score));
            return true;
        };
        if found.score() != score {
            let new = Member::new(member, score);
            let old = std::mem::replace(found, new.clone());
            self.in_order.remove(Target::Element(&old.into()));
            self.in_order.insert(new.into());
        }
        false
    }
}

impl Clone for Skiplist {
    fn clone(&self) -> Self {
        let mut copy = Skiplist::default();
        copy.by_name.reserve(self.by_name.len());
        for item in self.in_order.range(0..self.in_order.len()) {
            let name = item.member.name();
            copy.insert_new(hash_of(name), Member::new(name, item.score));
        }
        copy
    }
}

/// Where a range of names is entered: it matters only where scores differ, when Valkey's result depends on it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Reverse,
}

/// A sorted set for reading.
#[derive(Debug, Clone, Copy)]
pub enum SortedSetRef<'a> {
    /// Members and scores in turn, in order.
    Listpack(ListpackRef<'a>),
    Skiplist(&'a Skiplist),
}

impl<'a> SortedSetRef<'a> {
    #[inline]
    pub fn len(self) -> usize {
        match self {
            SortedSetRef::Listpack(list) => Packed(list).len(),
            SortedSetRef::Skiplist(large) => large.in_order.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is in its compact form.
    pub fn is_compact(self) -> bool {
        matches!(self, SortedSetRef::Listpack(_))
    }

    /// All members with their scores, in ascending order.
    pub fn iter(self) -> Iter<'a> {
        self.range(0..self.len())
    }

    /// The members of these indexes, which must be at most `len`, in ascending order.
    pub fn range(self, range: Range<usize>) -> Iter<'a> {
        match self {
            SortedSetRef::Listpack(list) => Iter(IterOf::Packed(Packed(list).range(range))),
            SortedSetRef::Skiplist(large) => Iter(IterOf::Large(large.in_order.range(range))),
        }
    }

    /// The member at an index of the ascending order.
    pub fn get(self, index: usize) -> Option<(Element<'a>, f64)> {
        if self.len() <= index { None } else { self.range(index..index + 1).next() }
    }

    #[inline]
    pub fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            SortedSetRef::Listpack(list) => Packed(list).find(member).map(|(_, score)| score),
            SortedSetRef::Skiplist(large) => large.by_name.get(hash_of(member), member).map(Member::score),
        }
    }

    /// The index of a member in ascending order, and its score.
    pub fn rank(self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            SortedSetRef::Listpack(list) => Packed(list).find(member),
            SortedSetRef::Skiplist(large) => {
                let score = large.by_name.get(hash_of(member), member)?.score();
                let is_before =
                    |item: &Item| item.score < score || item.score == score && item.member.name() < member;
                Some((large.in_order.partition_point(is_before), score))
            }
        }
    }

    /// The indexes of the members whose scores are in a range.
    pub fn score_range(self, range: &ScoreRange) -> Range<usize> {
        let (start, end) = match self {
            SortedSetRef::Listpack(list) => {
                let scores = || Packed(list).iter().map(|(_, score)| score);
                (
                    scores().take_while(|score| !range.is_above_min(*score)).count(),
                    scores().take_while(|score| range.is_below_max(*score)).count(),
                )
            }
            SortedSetRef::Skiplist(large) => (
                large.in_order.partition_point(|item| !range.is_above_min(item.score)),
                large.in_order.partition_point(|item| range.is_below_max(item.score)),
            ),
        };
        start..end.max(start)
    }

    /// The indexes of the members whose names are in a range, without the first `skipped` of them in this direction.
    /// All scores should be the same.
    pub fn lex_range(self, range: &LexRange<'_>, direction: Direction, skipped: usize) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        match self {
            SortedSetRef::Listpack(list) => packed_lex_range(Packed(list), range, direction, skipped),
            SortedSetRef::Skiplist(large) => {
                let tree = &large.in_order;
                let start = tree.partition_point(|item| !range.is_above_min(item.member.name()));
                let end = tree.partition_point(|item| range.is_below_max(item.member.name()));
                let skipped = skipped.min(end.saturating_sub(start));
                match direction {
                    Direction::Forward => start + skipped..end.max(start),
                    Direction::Reverse => start..end.max(start) - skipped,
                }
            }
        }
    }

    /// One step of ZSCAN: visits members in no order, returns where to go on. A compact set is one step.
    pub fn scan(self, position: ScanPosition, visit: &mut dyn FnMut(&[u8], f64)) -> Option<ScanPosition> {
        match self {
            SortedSetRef::Listpack(list) => {
                Packed(list).iter().for_each(|(name, score)| visit(&name, score));
                None
            }
            SortedSetRef::Skiplist(large) => {
                large.by_name.scan(position, &mut |m| visit(m.name(), m.score()))
            }
        }
    }
}

/// A sorted set for changing it.
#[derive(Debug)]
pub struct SortedSetMut<'a> {
    entry: &'a mut Entry,
    limits: SortedSetLimits,
}

impl<'a> SortedSetMut<'a> {
    /// The entry holds a sorted set.
    pub(crate) fn new(entry: &'a mut Entry, limits: SortedSetLimits) -> Self {
        SortedSetMut { entry, limits }
    }

    pub fn as_ref(&self) -> SortedSetRef<'_> {
        match self.entry.value() {
            ValueRef::SortedSet(set) => set,
            other => unreachable!("a sorted set is expected, not {other:?}"),
        }
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    /// Makes it large if a command is about to add more members, or a longer one, than a compact one may have.
    pub fn prepare(&mut self, count: usize, longest: usize) {
        if self.limits.entries < count || self.limits.value < longest {
            self.skiplist();
        }
    }

    /// Adds a member, or gives it another score. Whether it is new. The score must not be NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> bool {
        debug_assert!(!score.is_nan());
        let limits = self.limits;
        if let Some(mut tail) = self.entry.compact_mut(Compact::SortedSet) {
            let packed = Packed(ListpackRef::trusted(tail.bytes()));
            if let Some((index, old)) = packed.find(member) {
                if old != score {
                    packed::remove(&mut tail, index..index + 1);
                    packed::insert_new(&mut tail, member, score);
                }
                return false;
            }
            if packed.len() < limits.entries
                && member.len() <= limits.value
                && fits_compact(tail.bytes().len(), member.len())
            {
                packed::insert_new(&mut tail, member, score);
                return true;
            }
        }
        self.skiplist().insert(member, score)
    }

    /// The large representation; a compact set is converted.
    fn skiplist(&mut self) -> &mut Skiplist {
        if let SortedSetRef::Listpack(list) = self.as_ref() {
            let mut large = Box::<Skiplist>::default();
            for (name, score) in Packed(list).iter() {
                large.insert_new(hash_of(&name), Member::new(&name, score));
            }
            self.entry.set_boxed(large);
        }
        self.entry.boxed_mut().expect("it is a large set")
    }

    /// Removes a member; its score if it was there.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        if let Some(mut tail) = self.entry.compact_mut(Compact::SortedSet) {
            let (index, score) = Packed(ListpackRef::trusted(tail.bytes())).find(member)?;
            packed::remove(&mut tail, index..index + 1);
            return Some(score);
        }
        let large = self.skiplist();
        let removed = large.by_name.remove(hash_of(member), member)?;
        let score = removed.score();
        large.in_order.remove(Target::Element(&removed.into()));
        Some(score)
    }

    /// Removes the members of these indexes, which must be at most `len`.
    pub fn remove_range(&mut self, range: Range<usize>) {
        if let Some(mut tail) = self.entry.compact_mut(Compact::SortedSet) {
            return packed::remove(&mut tail, range);
        }
        let large = self.skiplist();
        // One after the other from the end: the tree levels itself on the way.
        for index in range.rev() {
            let Item { member, .. } = large.in_order.remove(Target::At(index));
            large.by_name.remove(hash_of(member.name()), member.name());
        }
    }
}

/// A sorted set that has no key yet.
#[derive(Debug)]
pub struct SortedSet {
    value: Value,
    limits: SortedSetLimits,
}

impl Default for SortedSet {
    fn default() -> Self {
        SortedSet::new(SortedSetLimits::default())
    }
}

impl SortedSet {
    pub fn new(limits: SortedSetLimits) -> Self {
        SortedSet { value: Value::compact(Compact::SortedSet, &listpack::EMPTY), limits }
    }

    pub fn as_mut(&mut self) -> SortedSetMut<'_> {
        SortedSetMut::new(self.value.entry(), self.limits)
    }

    pub fn as_ref(&self) -> SortedSetRef<'_> {
        match self.value.as_ref() {
            ValueRef::SortedSet(set) => set,
            other => unreachable!("a sorted set is expected, not {other:?}"),
        }
    }

    /// Adds a member, or gives it another score. Whether it is new. The score must not be NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> bool {
        self.as_mut().insert(member, score)
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }
}

impl From<SortedSet> for Value {
    fn from(set: SortedSet) -> Self {
        set.value
    }
}

/// Walks from one end to the first member in the range, over those to be skipped, then on to the last: what a walk
/// over Valkey's listpack gives where scores differ.
fn packed_lex_range(
    packed: Packed<'_>,
    range: &LexRange<'_>,
    direction: Direction,
    skipped: usize,
) -> Range<usize> {
    let (Some((first, _)), Some((last, _))) = (packed.iter().next(), packed.iter().next_back()) else {
        return 0..0;
    };
    if !range.is_above_min(&last) || !range.is_below_max(&first) {
        return 0..0;
    }
    let len = packed.len();
    match direction {
        Direction::Forward => {
            let before = packed.iter().take_while(|(name, _)| !range.is_above_min(name)).count();
            if !packed.iter().nth(before).is_some_and(|(name, _)| range.is_below_max(&name)) {
                return 0..0;
            }
            let start = before.saturating_add(skipped).min(len);
            let count = packed.iter().skip(start).take_while(|(name, _)| range.is_below_max(name)).count();
            start..start + count
        }
        Direction::Reverse => {
            let behind = packed.iter().rev().take_while(|(name, _)| !range.is_below_max(name)).count();
            if !packed.iter().nth_back(behind).is_some_and(|(name, _)| range.is_above_min(&name)) {
                return 0..0;
            }
            let behind = behind.saturating_add(skipped).min(len);
            let inside = packed.iter().rev().skip(behind);
            let count = inside.take_while(|(name, _)| range.is_above_min(name)).count();
            len - behind - count..len - behind
        }
    }
}

/// Members with their scores in ascending order, from both ends.
#[derive(Debug, Clone)]
pub struct Iter<'a>(IterOf<'a>);

#[derive(Debug, Clone)]
enum IterOf<'a> {
    Packed(packed::Iter<'a>),
    Large(tree::Iter<'a, Item>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterOf::Packed(iter) => iter.next(),
            IterOf::Large(iter) => iter.next().map(|item| (item.member.name().into(), item.score)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            IterOf::Packed(iter) => iter.len(),
            IterOf::Large(iter) => iter.len(),
        };
        (len, Some(len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterOf::Packed(iter) => iter.next_back(),
            IterOf::Large(iter) => iter.next_back().map(|item| (item.member.name().into(), item.score)),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}
