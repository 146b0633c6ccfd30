//! What committed entries make of the state that the store keeps: pure, so that a sentinel that starts anew and one
//! that was sent a snapshot come to the same.

use std::ops::{Bound, RangeBounds};

use keyward_proto::topology::Topology;
use openraft::{BasicNode, EntryPayload, SnapshotMeta, StoredMembership};
use serde::{Deserialize, Serialize};

use super::{Applied, LogId, RaftId, TypeConfig};
use crate::rules::topology::apply_batch;

type Entry = openraft::Entry<TypeConfig>;

/// The state machine's whole state; its JSON is the snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) last_applied: Option<LogId>,
    pub(super) membership: StoredMembership<RaftId, BasicNode>,
    pub(super) topology: Topology,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredSnapshot {
    pub(super) meta: SnapshotMeta<RaftId, BasicNode>,
    pub(super) state: State,
}

impl State {
    /// One result per entry.
    pub(super) fn apply(&mut self, entries: impl IntoIterator<Item = Entry>) -> Vec<Applied> {
        entries.into_iter().map(|entry| Applied { results: self.apply_one(entry) }).collect()
    }

    fn apply_one(&mut self, entry: Entry) -> Vec<super::CommandResult> {
        self.last_applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(batch) => apply_batch(&mut self.topology, entry.log_id.index, batch),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Vec::new()
            }
        }
    }

    /// What a snapshot of this state is called. Two of the same position are the same.
    pub(super) fn meta(&self) -> SnapshotMeta<RaftId, BasicNode> {
        let position =
            self.last_applied.map_or_else(|| "0".into(), |id| format!("{}-{}", id.leader_id, id.index));
        SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
            snapshot_id: position,
        }
    }
}

/// The first index of a range, and the first one behind it.
pub(super) fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

#[cfg(test)]
mod tests {
    use keyward_proto::topology::SentinelAddress;
    use openraft::{CommittedLeaderId, Membership};

    use super::*;
    use crate::rules::topology::{Batch, Outcome, TopologyCommand};

    fn entry(index: u64, payload: EntryPayload<TypeConfig>) -> Entry {
        Entry { log_id: LogId::new(CommittedLeaderId::new(2, 1), index), payload }
    }

    #[test]
    fn entries_change_the_topology_and_the_membership() {
        let mut state = State::default();
        assert_eq!(state.meta().snapshot_id, "0");
        let address =
            SentinelAddress { name: "a".into(), host: "h".into(), port: 1, bus_port: 2, tls_port: 0 };
        let command = TopologyCommand::AnnounceSentinel { id: 7, address };
        let batch = Batch { commands: vec![command.clone(), command] };
        let members = Membership::new(vec![[7].into()], None);
        let applied = state.apply([
            entry(1, EntryPayload::Membership(members)),
            entry(2, EntryPayload::Blank),
            entry(3, EntryPayload::Normal(batch)),
        ]);
        let counts: Vec<usize> = applied.iter().map(|a| a.results.len()).collect();
        assert_eq!(counts, [0, 0, 2]);
        assert_eq!(applied[2].results, [Ok(Outcome::Changed), Ok(Outcome::Unchanged)]);
        assert_eq!((state.topology.version, state.last_applied.unwrap().index), (3, 3));
        assert_eq!(state.membership.membership().voter_ids().collect::<Vec<_>>(), [7]);
        assert!(state.meta().snapshot_id.ends_with("-3"), "{:?}", state.meta());
    }

    #[test]
    fn a_range_has_a_first_index_and_one_behind_it() {
        assert_eq!(bounds(&(3..5)), (3, 5));
        assert_eq!(bounds(&(3..=5)), (3, 6));
        assert_eq!(bounds(&(..)), (0, u64::MAX));
        assert_eq!(bounds(&(Bound::Excluded(3), Bound::Unbounded)), (4, u64::MAX));
    }
}
