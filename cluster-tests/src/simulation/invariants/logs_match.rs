//! Invariant 4: if two nodes have an entry with the same term and index, everything before it is the same.

use std::collections::BTreeMap;

use keyward_proto::ids::Position;

#[derive(Debug, Default)]
pub(super) struct LogsMatch {
    /// The entry before each, and its payload.
    entries: BTreeMap<Position, (Position, Box<[u8]>)>,
}

impl LogsMatch {
    pub(super) fn appended(&mut self, node: usize, position: Position, previous: Position, payload: &[u8]) {
        let known = self.entries.entry(position).or_insert_with(|| (previous, payload.into()));
        assert!(
            known.0 == previous && *known.1 == *payload,
            "invariant 4: node {node} has another entry {position} than somebody else"
        );
    }
}
