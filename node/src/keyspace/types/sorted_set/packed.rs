//! A small sorted set: its members one behind the other in a single buffer, in order.
//!
//! An element is `[score f64 LE][name length u8][name][name length u8]`, so that it can be walked from both ends.
//! Everything is a walk over the buffer, which for so few elements is as fast as anything, and takes the least
//! memory. As in Valkey's listpack the negative zero is not kept.

use std::ops::Range;

pub(super) const LEN_MAX: usize = 128;
pub(super) const NAME_BYTES_MAX: usize = 64;

const SCORE_BYTES: usize = 8;
const EXTRA_BYTES: usize = SCORE_BYTES + 2;

/// See the module documentation.
#[derive(Debug, Default, Clone)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    len: usize,
}

impl Packed {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a new member of this name still belongs into a small set.
    pub(super) fn has_room(&self, name: &[u8]) -> bool {
        self.len < LEN_MAX && name.len() <= NAME_BYTES_MAX
    }

    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { bytes: &self.bytes, len: self.len }
    }

    /// The elements of these indexes, which are below `len`.
    pub(super) fn range(&self, range: Range<usize>) -> Iter<'_> {
        let mut iter = self.iter();
        for _ in 0..range.start {
            iter.next();
        }
        if range.end < self.len {
            let from = iter.bytes;
            for _ in range.clone() {
                iter.next();
            }
            iter.bytes = &from[..from.len() - iter.bytes.len()];
        }
        iter.len = range.len();
        iter
    }

    /// Index and score of a member.
    pub(super) fn find(&self, name: &[u8]) -> Option<(usize, f64)> {
        self.iter().enumerate().find(|(_, (n, _))| *n == name).map(|(i, (_, score))| (i, score))
    }

    /// Adds a member that is not in the set and for which there is room.
    pub(super) fn insert_new(&mut self, name: &[u8], score: f64) {
        debug_assert!(self.has_room(name));
        let score = score + 0.0;
        let mut iter = self.iter();
        let mut at = self.bytes.len();
        while let Some((n, s)) = iter.next() {
            if score < s || score == s && name < n {
                at = self.bytes.len() - iter.bytes.len() - n.len() - EXTRA_BYTES;
                break;
            }
        }
        let name_len = u8::try_from(name.len()).expect("NAME_BYTES_MAX is below 256");
        let mut element = [0; EXTRA_BYTES + NAME_BYTES_MAX];
        let (score_bytes, rest) = element.split_at_mut(SCORE_BYTES);
        score_bytes.copy_from_slice(&score.to_le_bytes());
        rest[0] = name_len;
        rest[1..=name.len()].copy_from_slice(name);
        rest[name.len() + 1] = name_len;
        let element = &element[..EXTRA_BYTES + name.len()];
        self.bytes.reserve_exact(element.len());
        self.bytes.splice(at..at, element.iter().copied());
        self.len += 1;
    }

    /// Removes the elements of these indexes.
    pub(super) fn remove(&mut self, range: Range<usize>) {
        let len_bytes =
            |elements: Iter<'_>| -> usize { elements.map(|(name, _)| name.len() + EXTRA_BYTES).sum() };
        let start = len_bytes(self.range(0..range.start));
        let end = start + len_bytes(self.range(range.clone()));
        self.bytes.drain(start..end);
        self.len -= range.len();
    }
}

/// Members with their scores, from both ends.
#[derive(Debug, Clone)]
pub(super) struct Iter<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (score, rest) = self.bytes.split_first_chunk::<SCORE_BYTES>()?;
        let name_len = rest[0] as usize;
        let name = &rest[1..=name_len];
        self.bytes = &rest[name_len + 2..];
        self.len -= 1;
        Some((name, f64::from_le_bytes(*score)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let (name_len, rest) = self.bytes.split_last()?;
        let (rest, name) = rest.split_at(rest.len() - *name_len as usize);
        let rest = &rest[..rest.len() - 1];
        let (rest, score) = rest.split_last_chunk::<SCORE_BYTES>()?;
        self.bytes = rest;
        self.len -= 1;
        Some((name, f64::from_le_bytes(*score)))
    }
}

impl ExactSizeIterator for Iter<'_> {}
