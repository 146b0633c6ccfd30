//! Members with scores, ordered by score and then by bytes; each member is there once.
//!
//! A small set is one buffer (`packed`). A large one is a table that finds a member by its name (`Table`) and a
//! tree that keeps the members in order and counts them (`tree`); both point to the same members (`member`). A
//! large set stays large, as in Valkey. Scores are never NaN.

mod member;
mod packed;
mod range;
#[cfg(test)]
mod tests;
mod tree;

use std::ops::Range;

pub use range::{LexBound, LexRange, ScoreRange};

use crate::keyspace::table::{ScanPosition, Table, hash_of};
use member::Member;
use packed::Packed;
use tree::{Target, Tree};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct SortedSet(Representation);

#[derive(Debug)]
enum Representation {
    Packed(Packed),
    Large(Box<Large>),
}

impl Default for Representation {
    fn default() -> Self {
        Representation::Packed(Packed::default())
    }
}

#[derive(Debug, Default)]
struct Large {
    by_name: Table<Member>,
    in_order: Tree,
}

impl Large {
    fn insert_new(&mut self, hash: u64, member: Member) {
        self.by_name.insert_new(hash, member.clone());
        self.in_order.insert(member);
    }
}

/// Where a range of names is entered: it matters only where scores differ, when Valkey's result depends on it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Reverse,
}

impl SortedSet {
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Representation::Packed(packed) => packed.len(),
            Representation::Large(large) => large.in_order.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is the small representation.
    pub fn is_packed(&self) -> bool {
        matches!(self.0, Representation::Packed(_))
    }

    /// Whether the set is large only because it once was: OBJECT ENCODING goes on calling it `skiplist`.
    pub fn has_shrunk(&self) -> bool {
        !self.is_packed()
            && self.len() <= packed::LEN_MAX
            && self.iter().all(|(member, _)| member.len() <= packed::NAME_BYTES_MAX)
    }

    /// All members with their scores, in ascending order.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// The members of these indexes, which must be below `len`, in ascending order.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        match &self.0 {
            Representation::Packed(packed) => Iter(IterOf::Packed(packed.range(range))),
            Representation::Large(large) => Iter(IterOf::Large(large.in_order.range(range))),
        }
    }

    /// The member at an index of the ascending order.
    pub fn get(&self, index: usize) -> Option<(&[u8], f64)> {
        if self.len() <= index { None } else { self.range(index..index + 1).next() }
    }

    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Representation::Packed(packed) => packed.find(member).map(|(_, score)| score),
            Representation::Large(large) => large.by_name.get(hash_of(member), member).map(Member::score),
        }
    }

    /// The index of a member in ascending order, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match &self.0 {
            Representation::Packed(packed) => packed.find(member),
            Representation::Large(large) => {
                let score = large.by_name.get(hash_of(member), member)?.score();
                Some((large.in_order.index_of(score, member), score))
            }
        }
    }

    /// Adds a member, or gives it another score. Whether it is new. The score must not be NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> bool {
        debug_assert!(!score.is_nan());
        if let Representation::Packed(packed) = &mut self.0 {
            let found = packed.find(member);
            if let Some((index, old)) = found {
                if old != score {
                    packed.remove(index..index + 1);
                    packed.insert_new(member, score);
                }
                return false;
            }
            if packed.has_room(member) {
                packed.insert_new(member, score);
                return true;
            }
        }
        let large = self.enlarge();
        let hash = hash_of(member);
        let Some(found) = large.by_name.get_mut(hash, member) else {
            large.insert_new(hash, Member::new(member, score));
            return true;
        };
        let old = found.score();
        if old != score {
            *found = Member::new(member, score);
            let new = found.clone();
            large.in_order.remove(Target::Member(old, member));
            large.in_order.insert(new);
        }
        false
    }

    /// The large representation; the small one is converted.
    fn enlarge(&mut self) -> &mut Large {
        if let Representation::Packed(packed) = &self.0 {
            let mut large = Box::<Large>::default();
            for (name, score) in packed.iter() {
                large.insert_new(hash_of(name), Member::new(name, score));
            }
            self.0 = Representation::Large(large);
        }
        match &mut self.0 {
            Representation::Large(large) => large,
            Representation::Packed(_) => unreachable!("it was just converted"),
        }
    }

    /// Removes a member; its score if it was there.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Representation::Packed(packed) => {
                let (index, score) = packed.find(member)?;
                packed.remove(index..index + 1);
                Some(score)
            }
            Representation::Large(large) => {
                let score = large.by_name.remove(hash_of(member), member)?.score();
                large.in_order.remove(Target::Member(score, member));
                Some(score)
            }
        }
    }

    /// Removes the members of these indexes, which must be below `len`.
    pub fn remove_range(&mut self, range: Range<usize>) {
        match &mut self.0 {
            Representation::Packed(packed) => packed.remove(range),
            // One after the other from the end: the tree levels itself on the way.
            Representation::Large(large) => {
                for index in range.rev() {
                    let member = large.in_order.remove(Target::At(index));
                    large.by_name.remove(hash_of(member.name()), member.name());
                }
            }
        }
    }

    /// The indexes of the members whose scores are in a range.
    pub fn score_range(&self, range: &ScoreRange) -> Range<usize> {
        let (start, end) = match &self.0 {
            Representation::Packed(packed) => (
                packed.iter().take_while(|(_, score)| !range.is_above_min(*score)).count(),
                packed.iter().take_while(|(_, score)| range.is_below_max(*score)).count(),
            ),
            Representation::Large(large) => (
                large.in_order.partition_point(|item| !range.is_above_min(item.score)),
                large.in_order.partition_point(|item| range.is_below_max(item.score)),
            ),
        };
        start..end.max(start)
    }

    /// The indexes of the members whose names are in a range, without the first `skipped` of them in this direction.
    /// All scores should be the same.
    pub fn lex_range(&self, range: &LexRange<'_>, direction: Direction, skipped: usize) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        match &self.0 {
            Representation::Packed(packed) => packed_lex_range(packed, range, direction, skipped),
            Representation::Large(large) => {
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

    /// One step of ZSCAN: visits members in no order, returns where to go on. A small set is one step.
    pub fn scan(&self, position: ScanPosition, visit: &mut dyn FnMut(&[u8], f64)) -> Option<ScanPosition> {
        match &self.0 {
            Representation::Packed(packed) => {
                packed.iter().for_each(|(name, score)| visit(name, score));
                None
            }
            Representation::Large(large) => large.by_name.scan(position, &mut |m| visit(m.name(), m.score())),
        }
    }
}

/// Walks from one end to the first member in the range, over those to be skipped, then on to the last: what a walk
/// over Valkey's listpack gives where scores differ.
fn packed_lex_range(
    packed: &Packed,
    range: &LexRange<'_>,
    direction: Direction,
    skipped: usize,
) -> Range<usize> {
    let (Some((first, _)), Some((last, _))) = (packed.iter().next(), packed.iter().next_back()) else {
        return 0..0;
    };
    if !range.is_above_min(last) || !range.is_below_max(first) {
        return 0..0;
    }
    let len = packed.len();
    match direction {
        Direction::Forward => {
            let before = packed.iter().take_while(|(name, _)| !range.is_above_min(name)).count();
            if !packed.iter().nth(before).is_some_and(|(name, _)| range.is_below_max(name)) {
                return 0..0;
            }
            let start = before.saturating_add(skipped).min(len);
            let count = packed.iter().skip(start).take_while(|(name, _)| range.is_below_max(name)).count();
            start..start + count
        }
        Direction::Reverse => {
            let behind = packed.iter().rev().take_while(|(name, _)| !range.is_below_max(name)).count();
            if !packed.iter().nth_back(behind).is_some_and(|(name, _)| range.is_above_min(name)) {
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
    Large(tree::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterOf::Packed(iter) => iter.next(),
            IterOf::Large(iter) => iter.next().map(|item| (item.member.name(), item.score)),
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
            IterOf::Large(iter) => iter.next_back().map(|item| (item.member.name(), item.score)),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}
