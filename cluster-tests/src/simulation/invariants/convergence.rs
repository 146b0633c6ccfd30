//! Invariant 11: some time after the last fault the shard serves, all its nodes are in sync, and they hold the same: what
//! the entries of the log come to.

use keyward_proto::ids::Position;
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::gate::GateState;

use super::super::connection::Connection;
use super::super::keyspace::{SLOTS, Values, contents};
use super::super::node::Machine;
use super::super::register::Register;
use super::super::{NODES, Nanos};
use super::Entry;

/// Whether no entry is under way: all logs end at the same one, and everybody has applied it.
pub(in crate::simulation) fn is_settled(now: Nanos, machines: &[Machine]) -> bool {
    let mut end = None;
    machines.iter().all(|machine| {
        machine.running().is_some_and(|process| {
            let status = process.core.status(machine.clock.read(now), &process.log());
            status.applied == status.last.index
                && status.commit == status.last.index
                && *end.get_or_insert(status.last) == status.last
        })
    })
}

/// Returns where all logs end.
pub(super) fn check(now: Nanos, machines: &[Machine], register: &Register) -> Position {
    let shard = register.shard().expect("invariant 9: there is a shard");
    let primary = shard.primary.clone().expect("invariant 9: the shard has a primary");
    assert!(
        shard.in_sync.len() == NODES && shard.restarted.is_empty(),
        "invariant 9: not all nodes are in sync again: {shard:?}"
    );
    let mut end = None;
    for (node, machine) in machines.iter().enumerate() {
        let process = machine.running().expect("invariant 9: every node is up");
        let clock = machine.clock.read(now);
        let status = process.core.status(clock, &process.log());
        let is_primary = matches!(status.role, RoleStatus::Primary { .. });
        assert!(
            is_primary == (machine.id == primary),
            "invariant 9: node {node} has another role: {status:?}"
        );
        if is_primary {
            let serves = process.gate().state() == GateState::Primary
                && process.gate().lease_valid(clock)
                && process.gate().writable();
            assert!(serves, "invariant 9: the primary does not serve");
            assert!(process.connections.values().all(Connection::is_idle), "invariant 9: replies still wait");
        }
        assert!(
            (status.commit, status.applied) == (status.last.index, status.last.index),
            "invariant 9: node {node} has not caught up: {status:?}"
        );
        let own = process.log().last();
        assert!(*end.get_or_insert(own) == own, "invariant 9: node {node} ends elsewhere");
    }
    end.expect("there are nodes")
}

pub(super) fn check_contents(machines: &[Machine], histories: &[Vec<&Entry>; SLOTS]) {
    let expected: [Values; SLOTS] = std::array::from_fn(|slot| {
        let mut values = Values::default();
        histories[slot].iter().flat_map(|entry| &entry.changes).for_each(|change| values.apply(*change));
        values
    });
    for (node, machine) in machines.iter().enumerate() {
        let held = contents(&machine.running().expect("every node is up").server);
        assert!(held == expected, "invariant 9: node {node} holds {held:?} instead of {expected:?}");
    }
}
