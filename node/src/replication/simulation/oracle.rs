//! What the outside world may see. Each slot is a list that only grows by writes; so a history is linearizable if
//! every list that is read extends every list that was seen before the read began, and contains every write that was
//! acknowledged before.

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{LogIndex, Position, Term};

#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// By (term, index): the entry before and the payload. Invariant 4.
    entries: BTreeMap<Position, (Position, Vec<u8>)>,
    /// The term of every committed entry.
    committed: Vec<Term>,
    /// Longest list seen per slot.
    seen: BTreeMap<u16, Vec<u64>>,
    acknowledged: BTreeMap<u16, BTreeSet<u64>>,
}

/// What a read that begins now has to contain.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    slot: u16,
    prefix: Vec<u64>,
    contained: BTreeSet<u64>,
}

impl Oracle {
    pub(super) fn appended(&mut self, position: Position, previous: Position, payload: &[u8]) {
        let entry = (previous, payload.to_vec());
        let known = self.entries.entry(position).or_insert_with(|| entry.clone());
        assert_eq!(*known, entry, "two histories share {position}");
    }

    /// A primary's commit index covers entry `index`.
    pub(super) fn committed(&mut self, index: LogIndex, term: Term) {
        let at = index.get() as usize - 1;
        if at < self.committed.len() {
            assert_eq!(self.committed[at], term, "entry {index} was committed with another term");
        } else {
            assert_eq!(at, self.committed.len());
            self.committed.push(term);
        }
    }

    pub(super) fn committed_len(&self) -> usize {
        self.committed.len()
    }

    pub(super) fn committed_terms(&self) -> &[Term] {
        &self.committed
    }

    pub(super) fn expectation(&self, slot: u16) -> Expectation {
        Expectation {
            slot,
            prefix: self.seen.get(&slot).cloned().unwrap_or_default(),
            contained: self.acknowledged.get(&slot).cloned().unwrap_or_default(),
        }
    }

    /// The reply of a read leaves.
    pub(super) fn read(&mut self, expected: &Expectation, list: &[u64]) {
        assert!(list.starts_with(&expected.prefix), "stale read of slot {}", expected.slot);
        assert!(
            expected.contained.iter().all(|op| list.contains(op)),
            "lost write in slot {}",
            expected.slot
        );
        let seen = self.seen.entry(expected.slot).or_default();
        if list.len() > seen.len() {
            assert!(list.starts_with(seen), "slot {} has two histories", expected.slot);
            *seen = list.to_vec();
        } else {
            assert!(seen.starts_with(list), "slot {} has two histories", expected.slot);
        }
    }

    /// The reply of a write leaves.
    pub(super) fn acknowledge(&mut self, slot: u16, op: u64) {
        self.acknowledged.entry(slot).or_default().insert(op);
    }
}
