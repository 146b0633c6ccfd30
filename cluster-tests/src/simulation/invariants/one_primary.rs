//! Invariant 1: at most one node has replies leave for a given term.

use std::collections::BTreeMap;

use keyward_proto::ids::Term;

#[derive(Debug, Default)]
pub(super) struct OnePrimary {
    nodes: BTreeMap<Term, usize>,
}

impl OnePrimary {
    pub(super) fn reply_leaves(&mut self, node: usize, term: Term) {
        let first = *self.nodes.entry(term).or_insert(node);
        assert!(
            first == node,
            "invariant 1: node {node} replies in term {term}, in which node {first} is the primary"
        );
    }
}
