//! A replica applies only what is committed: else it could not give it up when another history prevails. What the slots
//! of a full sync may contain already is applied before.

use keyward_proto::ids::LogIndex;
use keyward_proto::time::Monotonic;
use keyward_replication::core::node_core::RoleStatus;

use crate::simulation::node::Process;

/// A node is about to apply its log up to an entry.
pub(super) fn check(now: Monotonic, node: usize, process: &Process, index: LogIndex) {
    let status = process.core.status(now, &process.log());
    let is_replica = matches!(status.role, RoleStatus::Replica { .. }) && status.consistent;
    assert!(
        !is_replica || index <= status.commit,
        "invariant 1: replica {node} applies up to {index}, but {} is committed",
        status.commit
    );
}
