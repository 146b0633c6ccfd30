//! Promise P1, seen from inside: the replies that leave reveal one history per slot. A command that arrives sees all
//! that any reply has revealed before: no acknowledged write is lost, no read is stale.
//!
//! This is more than clients can find out (they only see values, and only when replies arrive), and it is checked at once;
//! what they see is checked at the end (`history.rs`).

use super::super::keyspace::{SLOTS, Write};

#[derive(Debug, Default)]
pub(super) struct Visible {
    /// The longest journal that a reply has revealed.
    revealed: [Vec<Write>; SLOTS],
}

/// How long the journal at least is that a command has to see.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulation) struct Expectation(usize);

impl Visible {
    pub(super) fn expectation(&self, slot: usize) -> Expectation {
        Expectation(self.revealed[slot].len())
    }

    pub(super) fn reply_leaves(&mut self, slot: usize, expected: Expectation, journal: &[Write]) {
        let revealed = &mut self.revealed[slot];
        let common = revealed.len().min(journal.len());
        assert!(
            expected.0 <= journal.len(),
            "P1: a reply about slot {slot} has seen {} writes, but {} were visible before: lost write or stale read",
            journal.len(),
            expected.0
        );
        assert!(revealed[..common] == journal[..common], "P1: slot {slot} has two histories");
        revealed.extend_from_slice(&journal[common..]);
    }

    pub(super) fn check_final(&self, journals: [&[Write]; SLOTS]) {
        for (slot, revealed) in self.revealed.iter().enumerate() {
            assert!(journals[slot].starts_with(revealed), "P1: what was visible of slot {slot} is lost");
        }
    }
}
