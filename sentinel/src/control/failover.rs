//! The shell of a failover: asks a shard's nodes, has [`crate::failover`] decide, commits, and logs the story.
//!
//! Failovers of one shard run one after another; those of different shards at once, and what they decide shares Raft
//! entries (see [`crate::proposals`]).
#![allow(clippy::disallowed_methods, reason = "shell: asks nodes and measures phases")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keyward_proto::ids::{NodeId, Position, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Shard, Topology};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tracing::{info, warn};

use crate::clock::now;
use crate::failover::{self, Answer, Answers, Case, Decision, Handoff, Trigger};
use crate::sentinel::Sentinel;
use crate::topology::{PrimaryChange, Refusal, TopologyCommand, all_restarted};
use crate::{indirect, probe};

/// How long a node may take to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(150);
/// Once a safe choice is there, how long to wait for a better one.
const STRAGGLER_LIMIT: Duration = Duration::from_millis(15);
/// A member may restart between its answer and the commit; then everybody is asked again.
const ATTEMPTS_MAX: usize = 3;
/// How long a primary may take to hand its role over.
const HANDOFF_LIMIT: Duration = Duration::from_secs(10);

async fn commit(sentinel: &Sentinel, change: PrimaryChange) -> Result<Result<(), Refusal>, Status> {
    let result = sentinel.propose(TopologyCommand::ReplacePrimary(change)).await?;
    Ok(result.map(|_| ()))
}

fn shard_lock(sentinel: &Sentinel, shard: &ShardId) -> Arc<tokio::sync::Mutex<()>> {
    sentinel.failovers.lock().entry(shard.clone()).or_default().clone()
}

/// Held while a failover of the shard is under way; `None` if one is already.
pub fn try_begin(sentinel: &Sentinel, shard: &ShardId) -> Option<OwnedMutexGuard<()>> {
    shard_lock(sentinel, shard).try_lock_owned().ok()
}

/// Handles one request. The inner error is the reason why the primary stays.
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub async fn fail_over(
    sentinel: &Sentinel,
    shard: &ShardId,
    term: Term,
    trigger: Trigger,
) -> Result<Result<(), String>, Status> {
    let _one_at_a_time = shard_lock(sentinel, shard).lock_owned().await;
    fail_over_locked(sentinel, shard, term, trigger).await
}

/// As [`fail_over`], for a caller that holds the guard of [`try_begin`].
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub async fn fail_over_locked(
    sentinel: &Sentinel,
    shard: &ShardId,
    term: Term,
    trigger: Trigger,
) -> Result<Result<(), String>, Status> {
    for _ in 0..ATTEMPTS_MAX {
        let started = Instant::now();
        let topology = sentinel.current();
        let name = topology.shard_name(shard);
        let settled = match topology.shards.get(shard) {
            Some(shard) => sentinel.health.lock().is_settled(now(), shard),
            None => false,
        };
        let case = match Case::open(&topology, shard, term, &trigger, settled) {
            Ok(case) => case,
            Err(refusal) => return Ok(Err(refusal.to_string())),
        };
        let answers = ask_members(sentinel, &case).await;
        let asked = started.elapsed();
        let change = match case.decide(&answers) {
            Decision::Replace(change) => change,
            Decision::Keep { reason } => {
                info!(%term, ?asked, "the primary of {name} stays: {}", topology.with_names(&reason));
                return Ok(Err(reason));
            }
            Decision::Wait { reason } => return Ok(Err(reason)),
        };
        tell_answers(&topology, case.shard, &answers);
        warn_of_losses(&topology, case.shard, &change);
        let (to, in_sync) = (topology.node_name(&change.node), topology.node_names(&change.in_sync));
        let from = case.shard.primary.as_ref().map_or("none".into(), |id| topology.node_name(id));
        let gone = if change.previous_primary_gone {
            "is gone"
        } else {
            "may still run, so its leases are waited for"
        };
        match commit(sentinel, change).await? {
            Ok(()) => {
                let total = started.elapsed();
                info!(
                    term = %term.next(), ?asked, committed = ?total.saturating_sub(asked), ?total,
                    "primary replaced: {name} is led by {to} now, before by {from}, which {gone}; in sync: {in_sync}; {}",
                    trigger.reason(&topology)
                );
                return Ok(Ok(()));
            }
            Err(refusal @ Refusal::StaleTerm { .. }) => return Ok(Err(refusal.to_string())),
            Err(refusal) => {
                let reason = topology.with_names(&refusal.to_string());
                info!(%term, "{name} has changed meanwhile ({reason}): asking again");
            }
        }
    }
    Ok(Err("the shard keeps changing: try again".into()))
}

/// Asks all members at once and stops waiting as soon as the rules allow.
async fn ask_members(sentinel: &Sentinel, case: &Case<'_>) -> Answers {
    let mut pending: FuturesUnordered<_> = case
        .questions()
        .map(|node| async move {
            let asked = indirect::ask(sentinel, case.topology, node, ANSWER_LIMIT);
            (node.id.clone(), asked.await.answer)
        })
        .collect();
    let mut answers = Answers::new();
    let mut deadline = Instant::now() + ANSWER_LIMIT * 2;
    let mut decidable = false;
    while let Ok(Some((id, answer))) = timeout_at(deadline, pending.next()).await {
        answers.insert(id, answer);
        if !decidable && case.is_decidable(&answers) {
            decidable = true;
            deadline = deadline.min(Instant::now() + STRAGGLER_LIMIT);
        }
    }
    answers
}

fn tell_answers(topology: &Topology, shard: &Shard, answers: &Answers) {
    let name = topology.shard_name(&shard.id);
    for id in &shard.in_sync {
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
    let held = topology.nodes.get(&change.node).map(|n| n.registered_last).unwrap_or_default();
    let (name, address) = (topology.shard_name(&shard.id), topology.node_name(&change.node));
    if change.takeover {
        warn!("{name}: TAKEOVER of {address} by the operator: acknowledged writes may be lost");
    } else if all_restarted(shard) && held == Position::ZERO {
        warn!(
            "{name}: EVERY member of the in-sync set has restarted and came back with nothing: the shard continues \
             EMPTY, with {address}"
        );
    } else if all_restarted(shard) {
        warn!(
            "{name}: every member of the in-sync set has restarted: {address} continues, which holds most (up to {held})"
        );
    }
}

/// Commits what a stopped primary and its target have agreed on.
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub async fn hand_off(sentinel: &Sentinel, handoff: Handoff) -> Result<Result<(), String>, Status> {
    let started = Instant::now();
    let Handoff { shard, primary, term, target, last, .. } = handoff.clone();
    let _one_at_a_time = shard_lock(sentinel, &shard).lock_owned().await;
    let topology = sentinel.current();
    if let Some(known) = topology.shards.get(&shard)
        && known.term == term.next()
        && known.primary.as_ref() == Some(&target)
        && known.handoff_position == last
    {
        return Ok(Ok(()));
    }
    let name = topology.shard_name(&shard);
    let (from, to) = (topology.node_name(&primary), topology.node_name(&target));
    let change = match failover::hand_off(&topology, &handoff) {
        Ok(change) => change,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let result = commit(sentinel, change).await?;
    match &result {
        Ok(()) => info!(term = %term.next(), %last, committed = ?started.elapsed(),
            "primary handed over: {name} is led by {to} now, before by {from}"),
        Err(refusal) => info!(%term, "{name}: no hand-off from {from} to {to}: {refusal}"),
    }
    Ok(result.map_err(|refusal| refusal.to_string()))
}

/// An operator's failover: asks the primary to hand over; if it cannot be reached, replaces it.
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub async fn planned(
    sentinel: &Sentinel,
    shard: &Shard,
    target: Option<&NodeId>,
) -> Result<Result<(), String>, Status> {
    let topology = sentinel.current();
    let Some(primary) = shard.primary.as_ref().and_then(|id| topology.nodes.get(id)) else {
        return fail_over(sentinel, &shard.id, shard.term, Trigger::Operator { target: target.cloned() })
            .await;
    };
    let name = topology.shard_name(&shard.id);
    let wanted = target.map_or(String::new(), |id| format!(" to {}", topology.node_name(id)));
    info!(term = %shard.term, "an operator asks {}, the primary of {name}, to hand over{wanted}", primary.address());
    match start_handoff(sentinel, &topology, primary, shard, target).await {
        Ok(reply) if reply.accepted => Ok(Ok(())),
        Ok(reply) => Ok(Err(format!("the primary refused: {}", reply.reason))),
        Err(reason) => {
            info!("the primary of {name}, {}, cannot be reached ({reason}): replacing it", primary.address());
            fail_over(sentinel, &shard.id, shard.term, Trigger::Operator { target: target.cloned() }).await
        }
    }
}

/// Over a connection on which the primary has answered just now: the request itself is not sent twice.
async fn start_handoff(
    sentinel: &Sentinel,
    topology: &Topology,
    primary: &Node,
    shard: &Shard,
    target: Option<&NodeId>,
) -> Result<rpc::ChangeReply, &'static str> {
    let request = rpc::StartHandoffRequest {
        shard_id: shard.id.as_str().into(),
        term: shard.term.get(),
        target: target.map(|id| id.as_str().to_owned()).unwrap_or_default(),
    };
    let (report, client) = probe::reach(&sentinel.connections, topology, primary, ANSWER_LIMIT * 2).await;
    let Some(mut client) = client else {
        return Err(match report.answer {
            Answer::Refused => "nobody listens there",
            Answer::Status(_) => "it has restarted",
            Answer::Silent => "no answer in time",
        });
    };
    match timeout(HANDOFF_LIMIT, client.start_handoff(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(_)) => Err("it failed during the hand-off"),
        Err(_) => Err("it did not finish the hand-off in time"),
    }
}
