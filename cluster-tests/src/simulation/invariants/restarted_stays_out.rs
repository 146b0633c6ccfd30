//! Invariant 8: a node that has restarted is not electable until it has caught up in its new incarnation, and who is
//! taken into the in-sync set holds everything that is committed.

use keyward_proto::ids::LogIndex;
use keyward_proto::topology::Topology;
use keyward_sentinel::rules::topology::{InSyncChange, TopologyCommand};

use super::super::node::Machine;
use super::super::register::Register;

pub(super) fn check(
    before: &Topology,
    register: &Register,
    command: &TopologyCommand,
    machines: &[Machine],
    committed: LogIndex,
) {
    let Some(shard) = register.shard() else { return };
    match command {
        TopologyCommand::RegisterNode(registration) => {
            let id = &registration.id;
            let known = before.nodes.get(id);
            let is_new = known.is_none_or(|n| n.incarnation < register.incarnation(id));
            let is_electable = shard.whole_members().any(|m| m == id) || shard.absent.eligible.contains(id);
            assert!(
                !is_new || !is_electable,
                "invariant 8: {:?} stays electable though it has restarted",
                registration.id
            );
        }
        TopologyCommand::ChangeInSync { change: InSyncChange::Add { node, incarnation }, .. } => {
            let machine = machines.iter().find(|m| m.id == *node).expect("a node of this world");
            let Some(process) = machine.running().filter(|p| p.incarnation == *incarnation) else { return };
            let held = process.log().last().index;
            assert!(
                process.core.is_consistent() && committed <= held,
                "invariant 8: {node:?} joins with {held}, but {committed} is committed"
            );
        }
        _ => {}
    }
}
