//! A small sorted set: a listpack of members and scores in turn, in order. As in Valkey the negative zero is not
//! kept.

use std::ops::Range;

use keyward_proto::resp::number::{parse_f64_unbounded, push_double};

use crate::types::Element;
use crate::types::buffer::Buffer;
use crate::types::listpack::{self, ListpackRef, Stored};

/// See the module documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a>(pub(super) ListpackRef<'a>);

fn score_of(stored: Stored<'_>) -> f64 {
    match stored {
        Stored::Integer(score) => score as f64,
        Stored::Bytes(text) => parse_f64_unbounded(text).unwrap_or_default(),
    }
}

impl<'a> Packed<'a> {
    pub(super) fn len(self) -> usize {
        self.0.len() / 2
    }

    pub(super) fn iter(self) -> Iter<'a> {
        Iter(self.0.iter())
    }

    /// The members of these indexes, which are at most `len`.
    pub(super) fn range(self, range: Range<usize>) -> Iter<'a> {
        Iter(self.0.range(2 * range.start, 2 * range.end))
    }

    /// Index and score of a member.
    pub(super) fn find(self, name: &[u8]) -> Option<(usize, f64)> {
        let (index, at) = self.0.find(name, 2)?;
        Some((index, score_of(self.0.stored_at(self.0.next(at)))))
    }

    /// Offset of the first member that is behind this one, or of the end.
    fn place(self, name: &[u8], score: f64) -> usize {
        let mut at = self.0.offset(0);
        for (n, s) in self.iter() {
            if score < s || score == s && *name < *n {
                return at;
            }
            at = self.0.next(self.0.next(at));
        }
        at
    }
}

/// Adds a member that is not in the set.
pub(super) fn insert_new(buffer: &mut impl Buffer, name: &[u8], score: f64) {
    let score = score + 0.0;
    let at = Packed(ListpackRef::trusted(buffer.bytes())).place(name, score);
    let mut text = String::with_capacity(24);
    push_double(&mut text, score);
    listpack::insert(buffer, at, [name, text.as_bytes()]);
}

/// Removes the members of these indexes.
pub(super) fn remove(buffer: &mut impl Buffer, range: Range<usize>) {
    let at = ListpackRef::trusted(buffer.bytes()).offset(2 * range.start);
    listpack::remove(buffer, at, 2 * range.len());
}

/// Members with their scores, from both ends.
#[derive(Debug, Clone)]
pub(super) struct Iter<'a>(listpack::Iter<'a>);

impl<'a> Iterator for Iter<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.next()?;
        Some((name, score_of(self.0.next_stored()?)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.0.len() / 2;
        (len, Some(len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let score = score_of(self.0.next_back_stored()?);
        Some((self.0.next_back()?, score))
    }
}

impl ExactSizeIterator for Iter<'_> {}
