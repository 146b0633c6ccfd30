//! Invariant 9: every client that waits is served, or its wait ends with the term in which it began.

use super::super::keyspace::contents;
use super::super::node::Machine;

/// Whoever waits does so in the present generation of its node.
pub(super) fn check(node: usize, machine: &Machine) {
    let Some(process) = machine.running() else { return };
    let generation = process.gate().generation();
    for since in process.connections.values().filter_map(|connection| connection.waits_since()) {
        assert!(
            since == generation,
            "invariant 9: a client waits at node {node} since generation {since}, which is over"
        );
    }
}

/// At the end: nobody waits for what is there, nor at a node that cannot serve it.
pub(super) fn check_final(node: usize, machine: &Machine) {
    check(node, machine);
    let process = machine.running().expect("every node is up");
    let held = contents(&process.server);
    for connection in process.connections.values().filter(|c| c.waits_since().is_some()) {
        assert!(
            held[connection.slot()].queue.is_empty(),
            "invariant 9: a client waits at node {node} for what is there"
        );
    }
}
