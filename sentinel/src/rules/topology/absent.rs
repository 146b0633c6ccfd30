//! Nodes outside the in-sync set: what is remembered of them, and which of them may lead.
//!
//! A primary commits nothing while fewer members than `min-in-sync` are in sync (its promise: [`Absent::min_in_sync`]).
//! So whoever leaves such a set, or leaves a set that becomes one by that, holds all that was committed, and goes on to
//! do so until the set is whole again: it is *eligible* (after Kafka's eligible leader replicas, KIP-966). Why that is
//! safe: a primary acts on one topology at a time. By one in which the node was a member it has counted it for each
//! commit; by a later one it has committed nothing. A process that ends may lose what it held, so who restarts is not
//! eligible any more; and before a full sync empties a node the primary has it removed here.
//!
//! Whole members and eligible nodes together are the *holders*: any of them may lead. But an eligible one gives the
//! primary no lease, so it leads only if that one is known to be gone. If no holder is left, all members have restarted,
//! and the node leads that holds most of all the shard's nodes: of a member what it registered with, of another node
//! what it answers, or if it does not what it stood at when it left.

use std::collections::BTreeMap;

use keyward_proto::ids::{NodeId, Position};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::topology::{Absent, Shard, Topology};

use super::command::{PrimaryChange, Refusal, Witness};

/// Every member has lost its memory since it was in sync, and is back, and nobody is eligible.
pub(crate) fn no_holder_left(shard: &Shard) -> bool {
    super::all_restarted(shard) && shard.absent.eligible.is_empty()
}

/// After each change of a set: nobody is eligible beside one that can commit.
pub(super) fn settle(shard: &mut Shard) {
    let keeps = shard.is_short();
    if !keeps {
        shard.absent.eligible.clear();
    }
    for id in shard.in_sync.iter().chain(&shard.restarted) {
        shard.absent.stood_at.remove(id);
    }
}

/// These nodes, members until now, have left. `registered`: what those that have restarted came back with.
pub(super) fn note_left<'a>(
    shard: &mut Shard,
    left: impl Iterator<Item = &'a NodeId>,
    registered: &BTreeMap<NodeId, Position>,
) {
    for id in left {
        let held = registered.get(id).copied();
        if held.is_none() {
            shard.absent.eligible.insert(id.clone());
        }
        shard.absent.stood_at.insert(id.clone(), held.unwrap_or(shard.absent.committed));
    }
}

/// A node outside the set has restarted with this.
pub(super) fn note_restart(absent: &mut Absent, id: &NodeId, held: Position) {
    if !mutation::is_on(Mutation::RestartedStaysEligible) {
        absent.eligible.remove(id);
    }
    if let Some(stood_at) = absent.stood_at.get_mut(id) {
        *stood_at = held;
    }
}

/// No holder is left: a node leads only as the furthest of all.
pub(super) fn validate_furthest(
    topology: &Topology,
    shard: &Shard,
    change: &PrimaryChange,
) -> Result<(), Refusal> {
    if mutation::is_on(Mutation::AnyoneLeadsAfterRestart) {
        return Ok(());
    }
    let is_member = shard.restarted.contains(&change.node);
    let witness = |id: &NodeId| change.witnesses.get(id).copied();
    let own = match (is_member, witness(&change.node)) {
        (true, _) => topology.nodes.get(&change.node).map(|n| n.registered_last),
        (false, Some(witness)) if is_current(topology, &change.node, witness) => Some(witness.held),
        (false, _) => None,
    };
    let Some(own) = own else { return Err(Refusal::NotInSync(change.node.clone())) };
    let further = known(topology, shard, witness).any(|(id, held)| *id != change.node && own < held);
    if further { Err(Refusal::NotTheFurthest(change.node.clone())) } else { Ok(()) }
}

/// What each node of the shard holds, or has held, as far as it can be known.
pub(crate) fn known<'a>(
    topology: &'a Topology,
    shard: &'a Shard,
    witness: impl Fn(&NodeId) -> Option<Witness>,
) -> impl Iterator<Item = (&'a NodeId, Position)> {
    topology.members(&shard.id).map(move |node| {
        let id = &node.id;
        let answered = witness(id).filter(|w| is_current(topology, id, *w));
        let held = if shard.in_sync.contains(id) {
            node.registered_last
        } else if let Some(witness) = answered {
            witness.held
        } else {
            shard.absent.stood_at.get(id).copied().unwrap_or_default()
        };
        (id, held)
    })
}

fn is_current(topology: &Topology, id: &NodeId, witness: Witness) -> bool {
    topology.nodes.get(id).is_some_and(|n| n.incarnation == witness.incarnation)
}
