//! The commit tracker: how far each member of the in-sync set is, and what follows for the commit index.
//!
//! Invariants (ARCHITECTURE.md, invariant 3):
//! - commit <= what every counted member holds, at the moment when commit moves; commit never falls;
//! - counted are the members of the in-sync set *and* a node that is being added, from before the proposal leaves
//!   until its outcome is known: otherwise an entry could be committed without a node that becomes electable;
//! - nothing is committed while the in-sync set is *short*: fewer members than `min-in-sync`. What is acknowledged is on
//!   so many nodes at that moment; and who leaves a short set holds all that is committed, until it is whole again;
//! - what a node held counts only for the process (incarnation) that acknowledged it, and no more once the node is
//!   known to have restarted or to be emptied for a full sync.
//!
//! Entries of earlier terms need no extra rule: every later primary is a member, and the members hold them all.

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{Incarnation, LogIndex, NodeId};
use keyward_proto::mutation::{self, Mutation};

use super::config::ReplicationAck;

#[derive(Debug, Clone, Copy)]
struct Held {
    incarnation: Incarnation,
    index: LogIndex,
}

/// Held by the primary, for one term.
#[derive(Debug)]
pub(crate) struct Progress {
    ack: ReplicationAck,
    /// Without the primary itself.
    in_sync: BTreeSet<NodeId>,
    joining: Option<NodeId>,
    is_short: bool,
    held: BTreeMap<NodeId, Held>,
    commit: LogIndex,
}

impl Progress {
    pub(crate) fn new(ack: ReplicationAck, commit: LogIndex) -> Self {
        Progress {
            ack,
            in_sync: BTreeSet::new(),
            joining: None,
            is_short: false,
            held: BTreeMap::new(),
            commit,
        }
    }

    pub(crate) fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The in-sync set, as the sentinels have committed it, without the primary.
    pub(crate) fn set_in_sync(&mut self, others: BTreeSet<NodeId>) {
        self.in_sync = others;
    }

    pub(crate) fn in_sync(&self) -> &BTreeSet<NodeId> {
        &self.in_sync
    }

    /// There are `members`, the primary among them: nothing is committed as long as they are fewer than `minimum`.
    pub(crate) fn require(&mut self, minimum: usize, members: usize) {
        self.is_short = members < minimum && !mutation::is_on(Mutation::CommitBelowMinimum);
    }

    /// Entries wait for members that there are not.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short && self.ack == ReplicationAck::InSync
    }

    /// From now on `node` has to hold what is committed. `None`: the outcome of the proposal is known, or none was sent.
    pub(crate) fn set_joining(&mut self, node: Option<NodeId>) {
        self.joining = node.filter(|_| !mutation::is_on(Mutation::JoiningNotCounted));
    }

    /// The nodes beside the primary whose acknowledgement and lease are needed.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &NodeId> {
        self.in_sync.iter().chain(self.joining.iter().filter(|j| !self.in_sync.contains(*j)))
    }

    /// No other node has to hold an entry.
    pub(crate) fn auto_commits(&self) -> bool {
        self.ack == ReplicationAck::Async || !self.is_short && self.counted().next().is_none()
    }

    /// `node` holds everything up to `index` of this term's history.
    pub(crate) fn acknowledge(&mut self, node: &NodeId, incarnation: Incarnation, index: LogIndex) {
        match self.held.get_mut(node) {
            Some(held) if held.incarnation == incarnation => held.index = held.index.max(index),
            Some(held) if held.incarnation > incarnation => {}
            Some(_) | None => {
                self.held.insert(node.clone(), Held { incarnation, index });
            }
        }
    }

    /// `node` may have lost what it held.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.held.remove(node);
    }

    /// Zero if nothing is known.
    pub(crate) fn held(&self, node: &NodeId) -> LogIndex {
        self.held.get(node).map_or(LogIndex::ZERO, |h| h.index)
    }

    /// Moves the commit index to what everybody counted holds, the primary itself up to `own`.
    pub(crate) fn advance(&mut self, own: LogIndex) -> LogIndex {
        let all = match self.ack {
            ReplicationAck::InSync if mutation::is_on(Mutation::CommitByMajority) => self.majority(own),
            ReplicationAck::Async => own,
            ReplicationAck::InSync if self.is_short => self.commit,
            ReplicationAck::InSync => self.counted().map(|n| self.held(n)).fold(own, LogIndex::min),
        };
        self.commit = self.commit.max(all);
        self.commit
    }

    /// What PacificA must not do: [`Mutation::CommitByMajority`].
    fn majority(&self, own: LogIndex) -> LogIndex {
        let mut held: Vec<LogIndex> = self.counted().map(|n| self.held(n)).chain([own]).collect();
        held.sort_unstable();
        held[(held.len() - 1) / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Incarnation = Incarnation::new(1);

    fn node(n: u8) -> NodeId {
        NodeId::from_random([n; 20])
    }

    fn index(i: u64) -> LogIndex {
        LogIndex::new(i)
    }

    #[test]
    fn everybody_counted_must_hold_an_entry() {
        let mut progress = Progress::new(ReplicationAck::InSync, index(3));
        progress.set_in_sync([node(1), node(2)].into());
        assert_eq!(progress.advance(index(10)), index(3), "nothing is acknowledged");
        progress.acknowledge(&node(1), FIRST, index(9));
        progress.acknowledge(&node(2), FIRST, index(7));
        assert_eq!(progress.advance(index(10)), index(7));
        progress.set_in_sync([node(1)].into());
        assert_eq!(progress.advance(index(10)), index(9));
        progress.set_in_sync([].into());
        assert!(progress.auto_commits());
        assert_eq!(progress.advance(index(10)), index(10));
    }

    #[test]
    fn nothing_is_committed_with_too_few_members() {
        let mut progress = Progress::new(ReplicationAck::InSync, index(3));
        progress.require(2, 1);
        assert!(!progress.auto_commits());
        assert_eq!(progress.advance(index(10)), index(3));
        progress.set_in_sync([node(1)].into());
        progress.acknowledge(&node(1), FIRST, index(9));
        assert_eq!(progress.advance(index(10)), index(3), "a third is missing");
        progress.require(2, 2);
        assert_eq!(progress.advance(index(10)), index(9));
        let mut progress = Progress::new(ReplicationAck::Async, index(3));
        progress.require(2, 1);
        assert!(progress.auto_commits() && !progress.is_short());
    }

    #[test]
    fn a_proposed_member_counts() {
        let mut progress = Progress::new(ReplicationAck::InSync, index(0));
        progress.acknowledge(&node(1), FIRST, index(4));
        progress.set_joining(Some(node(1)));
        assert!(!progress.auto_commits());
        assert_eq!(progress.advance(index(10)), index(4));
        progress.set_in_sync([node(1)].into());
        assert_eq!(progress.counted().count(), 1, "not counted twice");
    }

    #[test]
    fn what_an_earlier_process_held_is_forgotten() {
        let mut progress = Progress::new(ReplicationAck::InSync, index(0));
        progress.set_in_sync([node(1)].into());
        progress.acknowledge(&node(1), FIRST, index(8));
        progress.acknowledge(&node(1), FIRST.next(), index(2));
        assert_eq!(progress.advance(index(10)), index(2));
        progress.acknowledge(&node(1), FIRST, index(9));
        assert_eq!(progress.advance(index(10)), index(2), "a late acknowledgement of the process that ended");
        progress.forget(&node(1));
        assert_eq!(progress.advance(index(10)), index(2), "commit never falls");
    }
}
