//! A member with its score, shared by the table that finds it by name and the tree that keeps it in order.
//!
//! One allocation holds reference count, score and name; what is stored of it is a pointer. A member never changes:
//! a new score is a new member.

use std::fmt;

use triomphe::ThinArc;

use crate::keyspace::table::Keyed;

/// See the module documentation.
#[derive(Clone)]
pub(super) struct Member(ThinArc<f64, u8>);

impl Member {
    pub(super) fn new(name: &[u8], score: f64) -> Self {
        debug_assert!(!score.is_nan());
        Member(ThinArc::from_header_and_slice(score, name))
    }

    #[inline]
    pub(super) fn name(&self) -> &[u8] {
        &self.0.slice
    }

    #[inline]
    pub(super) fn score(&self) -> f64 {
        self.0.header.header
    }
}

impl Keyed for Member {
    #[inline]
    fn key(&self) -> &[u8] {
        self.name()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.score(), String::from_utf8_lossy(self.name()))
    }
}
