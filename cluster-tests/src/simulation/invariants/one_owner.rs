//! Invariant 7: a slot has one owner, and only the owner of a term executes in it. That no two shards have a slot in
//! common is checked by the topology itself with every change.

use std::collections::BTreeMap;

use keyward_proto::ids::{NodeId, Term};
use keyward_proto::topology::Shard;

#[derive(Debug, Default)]
pub(super) struct OneOwner {
    primaries: BTreeMap<Term, NodeId>,
}

impl OneOwner {
    pub(super) fn note(&mut self, shard: &Shard) {
        if let Some(primary) = &shard.primary {
            let first = self.primaries.entry(shard.term).or_insert_with(|| primary.clone());
            assert!(first == primary, "invariant 7: two owners in term {}", shard.term);
        }
    }

    pub(super) fn reply_leaves(&self, id: &NodeId, term: Term) {
        // The first term is not committed by a change: it comes with the shard.
        let owner = self.primaries.get(&term);
        assert!(owner.is_none_or(|o| o == id), "invariant 7: {id:?} replies in the term of {owner:?}");
    }
}
