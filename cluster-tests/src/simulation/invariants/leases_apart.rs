//! Invariant 2: between two primaries of a shard every lease of the first has ended before the second serves.

use super::super::Nanos;
use super::super::node::{Machine, serves};

pub(super) fn check(now: Nanos, machines: &[Machine]) {
    let serving = machines.iter().filter(|m| serves(m, now)).count();
    assert!(serving <= 1, "invariant 2: {serving} nodes serve at once");
}
