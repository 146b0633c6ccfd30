//! The sentinels' Raft group: openraft with a durable store and gRPC between the members.
//!
//! - `bounds`: what another sentinel may say
//! - [`store`]: vote, log and snapshot on disk; the state machine in memory
//! - `state`: what entries make of the state machine
//! - [`network`]: sends openraft's messages to the other sentinels
//! - [`service`]: receives them
//!
//! The state machine is [`crate::rules::topology`]; nothing in here knows what a shard is.

mod bounds;
pub(crate) mod network;
pub(crate) mod service;
mod state;
pub(crate) mod store;

use std::io::Cursor;

use serde::{Deserialize, Serialize};

use crate::rules::founding::Members;
pub(crate) use crate::rules::topology::RaftId;
use crate::rules::topology::{Batch, Outcome, Refusal};

openraft::declare_raft_types!(
    /// What openraft needs to know about us.
    pub TypeConfig:
        D = Batch,
        R = Applied,
        NodeId = RaftId,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type LogId = openraft::LogId<RaftId>;
pub(crate) type Metrics = openraft::RaftMetrics<RaftId, openraft::BasicNode>;

pub(crate) type CommandResult = Result<Outcome, Refusal>;

/// What a committed entry did: one result per command of its batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    pub results: Vec<CommandResult>,
}

/// Timing of the group: followers stand for election after 450 to 600 ms without a heartbeat
/// (openraft adds the election timeout to the leader's lease, which is its maximum).
pub(crate) fn config() -> openraft::Config {
    openraft::Config {
        cluster_name: "keyward".into(),
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        install_snapshot_timeout: 2000,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(500),
        max_in_snapshot_log_to_keep: 200,
        replication_lag_threshold: 1000,
        ..openraft::Config::default()
    }
}

/// As the rules have them.
pub(crate) fn members(membership: &openraft::Membership<RaftId, openraft::BasicNode>) -> Members {
    let nodes = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
    Members { voters: membership.voter_ids().collect(), nodes }
}
