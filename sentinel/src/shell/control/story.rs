//! The story of each change of a primary, for the log.

use keyward_proto::ids::{NodeId, Position, ShardId};
use keyward_proto::topology::{Node, Shard, Topology};
use tracing::{info, warn};

use crate::rules::coordinator::{Proposal, Replaced, Request, Settlement};
use crate::rules::failover::{Answer, Answers, Handoff, Trigger};
use crate::rules::topology::{PrimaryChange, Refusal, no_holder_left};

pub(super) fn tell_proposal(proposal: &Proposal) {
    let Proposal { change, topology, answers, .. } = proposal;
    let Some(shard) = topology.shards.get(&change.shard).filter(|_| !answers.is_empty()) else { return };
    tell_answers(topology, shard, answers);
    warn_of_losses(topology, shard, change);
}

fn tell_answers(topology: &Topology, shard: &Shard, answers: &Answers) {
    let name = topology.shard_name(&shard.id);
    for id in shard.in_sync.iter().chain(answers.keys().filter(|id| !shard.in_sync.contains(*id))) {
        let role = if shard.primary.as_ref() == Some(id) { "the primary" } else { "the replica" };
        let address = topology.node_name(id);
        match answers.get(id) {
            Some(Answer::Status(state)) => {
                let leases = topology.node_names(&state.leases);
                info!(last = %state.last, incarnation = %state.incarnation, leases,
                    "asked {role} {address} of {name}: it answers");
            }
            Some(Answer::Refused) => info!("asked {role} {address} of {name}: nobody listens there"),
            Some(Answer::Silent) => info!("asked {role} {address} of {name}: no answer in time"),
            None => info!("asked {role} {address} of {name}: not waited for"),
        }
    }
}

fn warn_of_losses(topology: &Topology, shard: &Shard, change: &PrimaryChange) {
    let registered = topology.nodes.get(&change.node).map(|n| n.registered_last).unwrap_or_default();
    let held = change.witnesses.get(&change.node).map_or(registered, |witness| witness.held);
    let (name, address) = (topology.shard_name(&shard.id), topology.node_name(&change.node));
    if change.takeover {
        warn!("{name}: TAKEOVER of {address} by the operator: acknowledged writes may be lost");
    } else if no_holder_left(shard) && held == Position::ZERO {
        warn!(
            "{name}: EVERY member of the in-sync set has restarted and came back with nothing, and no other node holds \
             anything: the shard continues EMPTY, with {address}"
        );
    } else if no_holder_left(shard) {
        warn!(
            "{name}: every member of the in-sync set has restarted: {address} continues, which holds most (up to {held})"
        );
    } else if shard.absent.eligible.contains(&change.node) {
        info!(
            "{name}: {address} was not in sync any more, but nothing was committed since it left: it holds everything"
        );
    }
}

/// An operator wants a hand-off.
pub(super) fn wanted(topology: &Topology, shard: &Shard, primary: &Node, target: Option<&NodeId>) -> String {
    let (address, name) = (primary.address(), topology.shard_name(&shard.id));
    let wanted = target.map_or(String::new(), |id| format!(" to {}", topology.node_name(id)));
    format!("an operator asks {address}, the primary of {name}, to hand over{wanted}")
}

pub(super) fn not_reached(topology: &Topology, shard: &Shard, primary: &Node, reason: &str) -> String {
    let (address, name) = (primary.address(), topology.shard_name(&shard.id));
    format!("the primary of {name}, {address}, cannot be reached ({reason}): replacing it")
}

pub(super) fn asking_again(topology: &Topology, shard: &ShardId, refusal: &Refusal) -> String {
    let reason = topology.with_names(&refusal.to_string());
    format!("{} has changed meanwhile ({reason}): asking again", topology.shard_name(shard))
}

pub(super) fn tell_settlement(topology: &Topology, request: &Request, settlement: &Settlement) {
    match (request, settlement) {
        (Request::Failover { trigger, .. }, Settlement::Replaced(replaced)) => {
            tell_failover(trigger, replaced);
        }
        (Request::Handoff(handoff), Settlement::Replaced(replaced)) => {
            let Handoff { shard, primary, term, target, last, .. } = handoff;
            let topology = &replaced.topology;
            info!(term = %term.next(), %last, committed = ?replaced.total,
                "primary handed over: {} is led by {} now, before by {}",
                topology.shard_name(shard), topology.node_name(target), topology.node_name(primary));
        }
        (Request::Failover { shard, term, .. }, Settlement::Kept { reason, asked }) => {
            info!(%term, ?asked, "the primary of {} stays: {}", topology.shard_name(shard), topology.with_names(reason));
        }
        (Request::Handoff(Handoff { shard, primary, term, target, .. }), Settlement::Refused { reason }) => {
            info!(%term, "{}: no hand-off from {} to {}: {}", topology.shard_name(shard),
                topology.node_name(primary), topology.node_name(target), topology.with_names(reason));
        }
        _ => {}
    }
}

fn tell_failover(trigger: &Trigger, replaced: &Replaced) {
    let Replaced { topology, change, asked, total } = replaced;
    let name = topology.shard_name(&change.shard);
    let (to, in_sync) = (topology.node_name(&change.node), topology.node_names(&change.in_sync));
    let before = topology.shards.get(&change.shard).and_then(|shard| shard.primary.as_ref());
    let from = before.map_or("none".into(), |id| topology.node_name(id));
    let gone =
        if change.predecessor_gone { "is gone" } else { "may still run, so its leases are waited for" };
    info!(
        term = %change.expected_term.next(), ?asked, committed = ?total.saturating_sub(*asked), ?total,
        "primary replaced: {name} is led by {to} now, before by {from}, which {gone}; in sync: {in_sync}; {}",
        trigger.reason(topology)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::{id, topology};

    #[test]
    fn an_operators_hand_off_is_told_by_names() {
        let mut topology = topology();
        topology.nodes.get_mut(&id(2)).unwrap().port = 7002;
        let (shard, primary) = (topology.shards.values().next().unwrap(), &topology.nodes[&id(1)]);
        let asks = "an operator asks 127.0.0.1:7000, the primary of mymaster, to hand over";
        assert_eq!(wanted(&topology, shard, primary, None), asks);
        assert_eq!(wanted(&topology, shard, primary, Some(&id(2))), format!("{asks} to 127.0.0.1:7002"));
        assert_eq!(
            not_reached(&topology, shard, primary, "no answer in time"),
            "the primary of mymaster, 127.0.0.1:7000, cannot be reached (no answer in time): replacing it"
        );
        assert_eq!(
            asking_again(&topology, &shard.id, &Refusal::NotInSync(id(2))),
            "mymaster has changed meanwhile (node 127.0.0.1:7002 is not in the in-sync set): asking again"
        );
    }
}
