//! Ranges of scores and of names, as ZRANGE BYSCORE and BYLEX mean them.

use std::ops::Bound;

/// Scores between two bounds; none is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRange {
    pub min: Bound<f64>,
    pub max: Bound<f64>,
}

impl ScoreRange {
    #[inline]
    pub(super) fn is_above_min(&self, score: f64) -> bool {
        match self.min {
            Bound::Included(min) => min <= score,
            Bound::Excluded(min) => min < score,
            Bound::Unbounded => true,
        }
    }

    #[inline]
    pub(super) fn is_below_max(&self, score: f64) -> bool {
        match self.max {
            Bound::Included(max) => score <= max,
            Bound::Excluded(max) => score < max,
            Bound::Unbounded => true,
        }
    }
}

/// An end of a range of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Below every name.
    Lowest,
    Included(&'a [u8]),
    Excluded(&'a [u8]),
    /// Above every name.
    Highest,
}

/// Names between two bounds; meaningful if all scores are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LexRange<'a> {
    pub min: LexBound<'a>,
    pub max: LexBound<'a>,
}

impl LexRange<'_> {
    #[inline]
    pub(super) fn is_above_min(&self, name: &[u8]) -> bool {
        match self.min {
            LexBound::Lowest => true,
            LexBound::Included(min) => min <= name,
            LexBound::Excluded(min) => min < name,
            LexBound::Highest => false,
        }
    }

    #[inline]
    pub(super) fn is_below_max(&self, name: &[u8]) -> bool {
        match self.max {
            LexBound::Lowest => false,
            LexBound::Included(max) => name <= max,
            LexBound::Excluded(max) => name < max,
            LexBound::Highest => true,
        }
    }

    /// Whether no name at all can be in the range.
    pub(super) fn is_empty(&self) -> bool {
        match (self.min, self.max) {
            (LexBound::Highest, _) | (_, LexBound::Lowest) => true,
            (LexBound::Lowest, _) | (_, LexBound::Highest) => false,
            (LexBound::Included(min), LexBound::Included(max)) => max < min,
            (
                LexBound::Included(min) | LexBound::Excluded(min),
                LexBound::Included(max) | LexBound::Excluded(max),
            ) => max <= min,
        }
    }
}
