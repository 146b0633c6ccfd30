//! Where a request runs, and what the log says of who leads.
//!
//! Any sentinel takes any request; what changes the topology, and what is said in the group's name, runs at Raft's
//! leader. A request is passed on once.
//!
//! A leader does not notice at once that it leads nobody any more. What it commits nevertheless cannot take effect; what
//! it *refuses* would, so it makes sure first that a majority still follows it ([`is_current`]).
//!
//! Architecture invariant: no clock, no socket; the shell is [`crate::shell::sentinel`].

use keyward_proto::ids::ShardId;
use keyward_proto::topology::Topology;

use super::topology::RaftId;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// From whoever wants it.
    First,
    /// From another sentinel, which held this one for the leader.
    Forwarded,
}

/// Where a request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    At(RaftId),
    /// Nobody is known to lead: soon, perhaps.
    Nowhere,
    /// Whoever sent it has to look again.
    NotHere,
}

pub(crate) fn place(me: RaftId, leader: Option<RaftId>, hop: Hop) -> Place {
    match (leader, hop) {
        (Some(leader), _) if leader == me => Place::Here,
        (_, Hop::Forwarded) => Place::NotHere,
        (Some(leader), Hop::First) => Place::At(leader),
        (None, Hop::First) => Place::Nowhere,
    }
}

/// Whether a refusal stands that rests on a shard as it was `before`; `confirmed` is the topology when a majority had
/// confirmed that this sentinel leads.
pub fn is_current(before: &Topology, confirmed: &Topology, shard: &ShardId) -> bool {
    before.shards.get(shard) == confirmed.shards.get(shard)
}

/// Tells each change of the leader once.
#[derive(Debug, Default)]
pub(crate) struct LeaderStory {
    told: Option<RaftId>,
}

impl LeaderStory {
    pub(crate) fn step(
        &mut self,
        me: RaftId,
        leader: Option<RaftId>,
        name: impl FnOnce(RaftId) -> String,
    ) -> Option<String> {
        if std::mem::replace(&mut self.told, leader) == leader {
            return None;
        }
        Some(match leader {
            Some(id) if id == me => "this sentinel leads the group".into(),
            Some(id) => format!("the sentinel {} leads the group", name(id)),
            None => "the group has no leader at the moment".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::topology;

    #[test]
    fn a_request_runs_at_the_leader_and_is_passed_on_once() {
        let table = [
            (Some(1), Hop::First, Place::Here),
            (Some(1), Hop::Forwarded, Place::Here),
            (Some(2), Hop::First, Place::At(2)),
            (Some(2), Hop::Forwarded, Place::NotHere),
            (None, Hop::First, Place::Nowhere),
            (None, Hop::Forwarded, Place::NotHere),
        ];
        for (leader, hop, expected) in table {
            assert_eq!(place(1, leader, hop), expected, "{leader:?} {hop:?}");
        }
    }

    #[test]
    fn a_refusal_stands_if_the_shard_is_what_it_was() {
        let before = topology();
        let shard = before.shards.keys().next().unwrap();
        let mut confirmed = before.clone();
        confirmed.version += 1;
        assert!(is_current(&before, &confirmed, shard));
        confirmed.shards.get_mut(shard).unwrap().in_sync_version += 1;
        assert!(!is_current(&before, &confirmed, shard));
        assert!(!is_current(&before, &Topology::default(), shard));
    }

    #[test]
    fn each_leader_is_told_once() {
        let mut story = LeaderStory::default();
        let leaders = [None, Some(1), Some(1), Some(2), None, None, Some(2)];
        let told: Vec<String> =
            leaders.into_iter().filter_map(|leader| story.step(1, leader, |id| format!("s{id}"))).collect();
        let (other, none) = ("the sentinel s2 leads the group", "the group has no leader at the moment");
        assert_eq!(told, ["this sentinel leads the group", other, none, other]);
    }
}
