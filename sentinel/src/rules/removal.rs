//! Whether a primary may have members removed from its in-sync set.
//!
//! The primary's word is enough for the removal of a member that it does not hear: only the primary knows. But a
//! removed member cannot be elected any more, so a primary that is itself the one with the problem must not take its
//! successors away:
//!
//! - It has to show that it hears the sentinels, by sending back a number that was sent to it a moment ago. One that
//!   can send but not receive would have everybody removed, never learn of it, and leave the shard without anybody who
//!   could serve.
//! - It may not shrink the set below half of the shard's nodes (what writes need by default) while as many others say
//!   that they are well and have lost contact with it: they will complain, and one of them goes on with the others.
//!
//! A matter of liveness alone: a refused removal leaves everything as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyward_proto::ids::NodeId;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Shard, Topology};

/// How long a number may be on its way, there and back.
const CHALLENGE_LIFE: Duration = Duration::from_secs(1);

/// The number for a primary to send back. It tells its own time, by the clock of whoever sent it; if the group's
/// leader changes meanwhile, the other's clock may take it for valid or not, and there is no harm in either.
pub(crate) fn challenge(now: Monotonic) -> u64 {
    now.as_nanos().max(1)
}

/// Whether the number was sent a moment ago.
pub(crate) fn is_met(challenge: u64, now: Monotonic) -> bool {
    let sent_at = Monotonic::from_nanos(challenge);
    challenge != 0 && sent_at <= now && now.since(sent_at) < CHALLENGE_LIFE
}

/// What a member that is to be removed says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contact {
    /// It could become primary.
    pub usable: bool,
    /// It has lost contact with its primary.
    pub cut_off: bool,
}

/// A request to remove members.
#[derive(Debug)]
pub(crate) struct Removal<'a> {
    shard: &'a Shard,
    nodes: &'a BTreeSet<NodeId>,
    /// Half of the shard's nodes.
    needed: usize,
}

impl<'a> Removal<'a> {
    pub(crate) fn new(topology: &Topology, shard: &'a Shard, nodes: &'a BTreeSet<NodeId>) -> Self {
        Removal { shard, nodes, needed: topology.default_min_in_sync(&shard.id) }
    }

    fn electable(&self) -> impl Iterator<Item = &'a NodeId> {
        let shard = self.shard;
        shard.in_sync.difference(&shard.restarted)
    }

    /// Those whose answer matters: empty if enough members remain anyway.
    pub(crate) fn questions(&self) -> Vec<&'a NodeId> {
        let remaining = self.electable().filter(|id| !self.nodes.contains(*id)).count();
        if self.needed <= remaining {
            return Vec::new();
        }
        self.electable().filter(|id| self.nodes.contains(*id)).collect()
    }

    /// Why the members stay, if they should.
    pub(crate) fn objection(&self, contacts: &BTreeMap<NodeId, Contact>) -> Option<String> {
        let cut_off = |id: &&&NodeId| contacts.get(**id).is_some_and(|c| c.usable && c.cut_off);
        let others = self.questions().iter().filter(cut_off).count();
        (0 < others && self.needed <= others)
            .then(|| format!("{others} members of the shard are well and have lost contact with the primary"))
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::{Position, ShardId, Term};
    use keyward_proto::topology::Node;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_random([n; 20])
    }

    fn set(nodes: &[u8]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(id).collect()
    }

    /// A shard of so many nodes, of which these are in sync; node 1 is the primary.
    fn shard(count: u8, in_sync: &[u8]) -> (Topology, Shard) {
        let shard = Shard {
            id: ShardId::from_random([9; 20]),
            slots: Vec::new(),
            term: Term::new(1),
            primary: Some(id(1)),
            in_sync: set(in_sync),
            restarted: BTreeSet::new(),
            in_sync_version: 1,
            previous_primary_gone: true,
            predecessor_gone: true,
            handoff_position: Position::ZERO,
            absent: Default::default(),
        };
        let mut topology = Topology::default();
        for n in 1..=count {
            let node = Node { shard: Some(shard.id.clone()), cluster_enabled: true, ..Node::new(id(n)) };
            topology.nodes.insert(node.id.clone(), node);
        }
        topology.shards.insert(shard.id.clone(), shard.clone());
        (topology, shard)
    }

    /// Whether the removal of some members is refused, given who answers that it is cut off, and who that it is not.
    fn is_refused(nodes: (u8, &[u8]), remove: &[u8], cut_off: &[u8], in_contact: &[u8]) -> bool {
        let (topology, shard) = shard(nodes.0, nodes.1);
        let contact = |cut_off| move |n: &u8| (id(*n), Contact { usable: true, cut_off });
        let contacts =
            cut_off.iter().map(contact(true)).chain(in_contact.iter().map(contact(false))).collect();
        Removal::new(&topology, &shard, &set(remove)).objection(&contacts).is_some()
    }

    #[test]
    fn a_primary_cut_off_from_a_majority_keeps_its_successors() {
        assert!(is_refused((3, &[1, 2, 3]), &[2, 3], &[2, 3], &[]));
        assert!(!is_refused((3, &[1, 2, 3]), &[2, 3], &[2], &[]), "the third does not answer");
        assert!(!is_refused((3, &[1, 2, 3]), &[2, 3], &[2], &[3]), "the third has another problem: its disk");
        assert!(!is_refused((3, &[1, 2]), &[2], &[2], &[]), "one is not more than the primary alone");
    }

    #[test]
    fn nobody_is_asked_if_enough_members_remain() {
        let (topology, three) = shard(3, &[1, 2, 3]);
        assert!(Removal::new(&topology, &three, &set(&[3])).questions().is_empty());
        assert_eq!(Removal::new(&topology, &three, &set(&[2, 3])).questions().len(), 2);
        let (topology, two) = shard(2, &[1, 2]);
        assert!(Removal::new(&topology, &two, &set(&[2])).questions().is_empty());
    }

    #[test]
    fn a_restarted_member_is_no_successor() {
        let (topology, mut shard) = shard(3, &[1, 2, 3]);
        shard.restarted = set(&[3]);
        let contacts = [2, 3].map(|n| (id(n), Contact { usable: true, cut_off: true })).into();
        assert_eq!(Removal::new(&topology, &shard, &set(&[2, 3])).objection(&contacts), None);
    }

    #[test]
    fn only_a_recent_number_is_an_answer() {
        let sent_at = Monotonic::from_nanos(5_000_000_000);
        let number = challenge(sent_at);
        assert!(is_met(number, sent_at + Duration::from_millis(900)));
        assert!(!is_met(number, sent_at + Duration::from_secs(2)));
        assert!(!is_met(number, sent_at - Duration::from_secs(1)), "from somebody else's future");
        assert!(!is_met(0, Monotonic::ZERO));
    }
}
