//! Invariant 9: some time after the last fault the shard serves, all its nodes are in sync, and they hold the same.

use keyward_node::gate::GateState;
use keyward_node::replication::RoleStatus;

use super::super::clients::Connection;
use super::super::keyspace::{SLOTS, Write};
use super::super::node::Machine;
use super::super::register::Register;
use super::super::{NODES, Nanos};

/// Returns the journals on which all agree.
pub(super) fn check<'a>(now: Nanos, machines: &'a [Machine], register: &Register) -> [&'a [Write]; SLOTS] {
    let shard = register.shard();
    let primary = shard.primary.clone().expect("invariant 9: the shard has a primary");
    assert!(
        shard.in_sync.len() == NODES && shard.restarted.is_empty(),
        "invariant 9: not all nodes are in sync again: {shard:?}"
    );
    let mut journals = None;
    for (node, machine) in machines.iter().enumerate() {
        let process = machine.running().expect("invariant 9: every node is up");
        let clock = machine.clock.read(now);
        let status = process.core.status(clock, &process.log);
        let is_primary = matches!(status.role, RoleStatus::Primary { .. });
        assert!(
            is_primary == (machine.id == primary),
            "invariant 9: node {node} has another role: {status:?}"
        );
        if is_primary {
            let serves = process.gate.state() == GateState::Primary
                && process.gate.lease_valid(clock)
                && process.gate.writable();
            assert!(serves, "invariant 9: the primary does not serve");
            assert!(process.connections.values().all(Connection::is_idle), "invariant 9: replies still wait");
        }
        assert!(
            (status.commit, status.applied) == (status.last.index, status.last.index),
            "invariant 9: node {node} has not caught up: {status:?}"
        );
        let own = process.keyspace.journals();
        assert!(*journals.get_or_insert(own) == own, "invariant 9: node {node} holds something else");
    }
    journals.expect("there are nodes")
}
