//! Placement: the commands that bring the topology closer to the wanted shape.
//!
//! The leader asks after each change and proposes the answers; nothing here is needed for the topology to be
//! consistent, so two sentinels of different versions may place differently.

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{NodeId, ShardId};
use keyward_proto::topology::{Node, Shape, Topology};

use super::formation::{self, Arrivals};
use super::topology::{Outcome, Refusal, TopologyCommand, apply};

/// Before there are shards, the leader's options are the wanted shape: the command that says so, if that is news.
pub(crate) fn shape(topology: &Topology, wanted: Shape) -> Option<TopologyCommand> {
    let is_open = topology.shards.is_empty() && topology.shape != wanted;
    is_open.then_some(TopologyCommand::SetShape { shape: wanted })
}

/// For the log: what became of a step; the outer error says why it could not be proposed.
pub(crate) fn told(
    topology: &Topology,
    step: &TopologyCommand,
    result: &Result<Result<Outcome, Refusal>, String>,
) -> String {
    let what = step.describe(topology);
    match result {
        Ok(Ok(_)) => what,
        Ok(Err(refusal)) => format!("not done: {what}: {refusal}"),
        Err(reason) => format!("cannot be done now: {what}: {reason}"),
    }
}

/// The next steps, `max` at most: each for the topology that the ones before it lead to.
pub fn all(
    topology: &Topology,
    lost: &BTreeSet<NodeId>,
    arrivals: Arrivals,
    mut new_shard_id: impl FnMut() -> ShardId,
    max: usize,
) -> Vec<TopologyCommand> {
    let (mut topology, mut commands) = (topology.clone(), Vec::new());
    while commands.len() < max
        && let Some(command) = next(&topology, lost, arrivals, &mut new_shard_id)
    {
        let version = topology.version + 1;
        if apply(&mut topology, version, command.clone()).is_err() {
            break;
        }
        commands.push(command);
    }
    commands
}

/// The next step, or `None` when there is nothing to do.
///
/// `lost` are nodes that have not answered for so long that a spare should stand in for them.
/// `new_shard_id` gives random IDs.
pub fn next(
    topology: &Topology,
    lost: &BTreeSet<NodeId>,
    arrivals: Arrivals,
    new_shard_id: impl FnMut() -> ShardId,
) -> Option<TopologyCommand> {
    if topology.shards.is_empty() {
        formation::form(topology, arrivals, new_shard_id)
    } else {
        assign(topology, lost)
    }
}

/// Nodes that have not answered for very long, and are replaced: their shard has a primary, and as many others in sync as
/// it should have nodes. Never one that may hold what nobody else has.
pub fn to_forget(topology: &Topology, long_lost: &BTreeSet<NodeId>) -> Vec<TopologyCommand> {
    let wanted = topology.shape.nodes_per_shard();
    let is_replaced = |node: &&Node| {
        let Some(shard) = topology.shard_of(&node.id).filter(|shard| shard.primary.is_some()) else {
            return false;
        };
        let others = shard.whole_members().filter(|id| !long_lost.contains(*id)).count();
        let may_lead = shard.in_sync.contains(&node.id) || shard.absent.eligible.contains(&node.id);
        !may_lead && wanted <= others
    };
    let lost = topology.nodes.values().filter(|node| long_lost.contains(&node.id));
    lost.filter(is_replaced).map(|node| TopologyCommand::ForgetNode { node: node.id.clone() }).collect()
}

/// The first spare that may join a shard that is short of members.
fn assign(topology: &Topology, lost: &BTreeSet<NodeId>) -> Option<TopologyCommand> {
    let mut spares: Vec<&Node> =
        topology.nodes.values().filter(|n| n.shard.is_none() && !lost.contains(&n.id)).collect();
    spares.sort_by_key(|n| n.incarnation);
    spares.into_iter().find_map(|spare| assign_one(topology, lost, spare))
}

/// A spare goes to the shard that is short of most members, rather to one without a node in its zone.
fn assign_one(topology: &Topology, lost: &BTreeSet<NodeId>, spare: &Node) -> Option<TopologyCommand> {
    let wanted = topology.shape.nodes_per_shard();
    // Members, and those in the zone of the spare.
    let mut loads: BTreeMap<&ShardId, (usize, usize)> = BTreeMap::new();
    for node in topology.nodes.values().filter(|n| !lost.contains(&n.id)) {
        if let Some(shard) = &node.shard {
            let (members, same_zone) = loads.entry(shard).or_default();
            *members += 1;
            *same_zone += usize::from(node.zone == spare.zone);
        }
    }
    let (shard, _) = topology
        .shards
        .values()
        .filter(|shard| formation::may_join(topology, spare, &shard.id))
        .map(|shard| (shard, loads.get(&shard.id).copied().unwrap_or_default()))
        .filter(|(_, (members, _))| *members < wanted)
        .min_by_key(|(shard, load)| (*load, shard.slots.first().map(|range| range.first)))?;
    Some(TopologyCommand::AssignNode { node: spare.id.clone(), shard: shard.id.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::{id, topology};

    #[test]
    fn the_shape_is_settled_until_there_are_shards() {
        let wanted = Shape { shards: 3, ..Shape::default() };
        let command = TopologyCommand::SetShape { shape: wanted.clone() };
        assert_eq!(shape(&Topology::default(), wanted.clone()), Some(command));
        assert_eq!(shape(&Topology::default(), Shape::default()), None);
        assert_eq!(shape(&topology(), wanted), None);
    }

    #[test]
    fn what_became_of_a_step_is_one_line() {
        let topology = topology();
        let shard = topology.shards.keys().next().unwrap().clone();
        let step = TopologyCommand::AssignNode { node: id(2), shard };
        let what = "127.0.0.1:7000 becomes a member of mymaster";
        let results = [
            (Ok(Ok(Outcome::Changed)), what.to_owned()),
            (Ok(Err(Refusal::EmptyChange)), format!("not done: {what}: nothing to change")),
            (Err("no majority".into()), format!("cannot be done now: {what}: no majority")),
        ];
        for (result, expected) in results {
            assert_eq!(told(&topology, &step, &result), expected);
        }
    }
}
