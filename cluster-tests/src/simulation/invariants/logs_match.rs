//! Invariant 4: if two nodes have an entry with the same term and index, everything before it is the same.
//!
//! So an entry stands for a whole history, and what a node knew of a slot is told by where its log ended. The entries that
//! were ever appended are kept here, as a tree of histories.

use std::collections::BTreeMap;

use keyward_proto::ids::Position;

use super::super::Nanos;
use super::super::keyspace::{Change, SLOTS, changes};

/// The last entry of a history that changed a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: Position,
    /// How many entries have changed the slot up to this one.
    pub(super) depth: usize,
}

/// An entry of some node's log.
#[derive(Debug)]
pub(in crate::simulation) struct Entry {
    previous: Position,
    payload: Box<[u8]>,
    /// Of each slot, with this entry.
    heads: [Head; SLOTS],
    pub(in crate::simulation) changes: Vec<Change>,
    pub(in crate::simulation) appended_at: Nanos,
    /// Of the operation that has appended it; `None` if the node did that by itself.
    pub(in crate::simulation) operation: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct LogsMatch {
    entries: BTreeMap<Position, Entry>,
    /// Of operations, just appended, and not said of which.
    unclaimed: Vec<Position>,
}

impl LogsMatch {
    pub(super) fn appended(
        &mut self,
        now: Nanos,
        node: usize,
        position: Position,
        previous: Position,
        payload: &[u8],
    ) {
        if let Some(known) = self.entries.get(&position) {
            assert!(
                known.previous == previous && *known.payload == *payload,
                "invariant 4: node {node} has another entry {position} than somebody else"
            );
            return;
        }
        let mut heads = self.heads(previous);
        let (slot, changes) = changes(payload).unwrap_or_default();
        if !changes.is_empty() {
            heads[slot] = Head { position, depth: heads[slot].depth + 1 };
        }
        if changes.iter().any(|change| *change != Change::Expire) {
            self.unclaimed.push(position);
        }
        let payload = payload.into();
        let entry = Entry { previous, payload, heads, changes, appended_at: now, operation: None };
        self.entries.insert(position, entry);
    }

    /// An operation has appended this entry.
    pub(super) fn belongs_to(&mut self, position: Position, operation: u64) {
        self.entries.get_mut(&position).expect("it was appended").operation = Some(operation);
        self.unclaimed.retain(|p| *p != position);
    }

    /// An operation has appended what is not of others.
    pub(super) fn rest_belongs_to(&mut self, operation: u64) {
        for position in std::mem::take(&mut self.unclaimed) {
            self.belongs_to(position, operation);
        }
    }

    fn heads(&self, position: Position) -> [Head; SLOTS] {
        self.entries.get(&position).map_or_else(Default::default, |entry| entry.heads)
    }

    /// The slot's history up to an entry.
    pub(super) fn head(&self, position: Position, slot: usize) -> Head {
        self.heads(position)[slot]
    }

    /// The one before a head.
    pub(super) fn before(&self, head: Head, slot: usize) -> Head {
        let entry = self.entries.get(&head.position).expect("it was appended");
        self.heads(entry.previous)[slot]
    }

    /// The entries that make up a slot's history up to an entry.
    pub(super) fn history(&self, position: Position, slot: usize) -> Vec<&Entry> {
        let mut head = self.head(position, slot);
        let mut found = Vec::new();
        while 0 < head.depth {
            found.push(&self.entries[&head.position]);
            head = self.before(head, slot);
        }
        found.reverse();
        found
    }
}
