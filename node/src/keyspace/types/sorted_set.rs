//! Members ordered by score, then by bytes.

use std::collections::BTreeMap;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct SortedSet {
    scores: BTreeMap<Box<[u8]>, f64>,
}

impl SortedSet {
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> + ExactSizeIterator {
        self.scores.iter().map(|(m, s)| (&**m, *s))
    }

    pub fn insert(&mut self, member: &[u8], score: f64) -> bool {
        self.scores.insert(member.into(), score).is_none()
    }
}
