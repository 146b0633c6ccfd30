//! Promise P1, seen from inside: the replies that leave reveal one history per slot. A command that is executed sees all
//! that any reply has revealed before: no acknowledged write is lost, no read is stale.
//!
//! This is more than clients can find out (they only see values, and only when replies arrive), and it is checked at once;
//! what they see is checked at the end (`history.rs`).

use keyward_proto::ids::Position;

use super::super::keyspace::SLOTS;
use super::committed_survives::Committed;
use super::logs_match::LogsMatch;

#[derive(Debug, Default)]
pub(super) struct Visible {
    /// The longest history that a reply has revealed: the entries that changed the slot.
    revealed: [Vec<Position>; SLOTS],
}

/// How long the history at least is that a command has to see.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulation) struct Expectation(usize);

impl Visible {
    pub(super) fn expectation(&self, slot: usize) -> Expectation {
        Expectation(self.revealed[slot].len())
    }

    /// `seen`: where the log ended when the command was executed.
    pub(super) fn reply_leaves(
        &mut self,
        logs: &LogsMatch,
        slot: usize,
        expected: Expectation,
        seen: Position,
    ) {
        let mut head = logs.head(seen, slot);
        assert!(
            expected.0 <= head.depth,
            "P1: a reply about slot {slot} has seen {} writes, but {} were visible before: lost write or stale read",
            head.depth,
            expected.0
        );
        let revealed = &mut self.revealed[slot];
        let mut new = Vec::new();
        while revealed.len() < head.depth {
            new.push(head.position);
            head = logs.before(head, slot);
        }
        let known = head.depth.checked_sub(1).map(|last| revealed[last]);
        assert!(known.is_none_or(|known| known == head.position), "P1: slot {slot} has two histories");
        revealed.extend(new.into_iter().rev());
    }

    /// What anybody reads has been committed.
    pub(super) fn read_leaves(
        logs: &LogsMatch,
        committed: &Committed,
        node: usize,
        slot: usize,
        seen: Position,
    ) {
        let head = logs.head(seen, slot).position;
        assert!(
            committed.contains(head),
            "invariant 9: node {node} shows a reader entry {head} of slot {slot}, which is not committed"
        );
    }

    pub(super) fn check_final(&self, logs: &LogsMatch, end: Position) {
        for (slot, revealed) in self.revealed.iter().enumerate() {
            let Some(last) = revealed.last() else { continue };
            let mut head = logs.head(end, slot);
            while revealed.len() < head.depth {
                head = logs.before(head, slot);
            }
            assert!(head.position == *last, "P1: what was visible of slot {slot} is lost");
        }
    }
}
