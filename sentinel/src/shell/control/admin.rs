//! What operators and other sentinels ask for.
#![allow(clippy::disallowed_methods, reason = "shell: asks nodes")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use keyward_proto::ids::{NodeId, ShardId};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::topology::{SentinelAddress, Topology};
use openraft::BasicNode;
use tonic::Status;
use tracing::{info, warn};

use super::{failover, forwarded, watchdog};
use crate::rules::admin::{self, changed, done, failed_over, line, meant, reply, request};
use crate::rules::formation;
use crate::rules::founding::{Admission, admit, member};
use crate::rules::leadership::Hop;
use crate::rules::lookup::{find_loading, find_node};
use crate::rules::node_report::Report;
use crate::rules::status::{StatusReport, Survey, Told, members};
use crate::rules::topology::{Refusal, TopologyCommand};
use crate::shell::probe;
use crate::shell::raft::RaftId;
use crate::shell::sentinel::{Sentinel, wall_millis};

const ANSWER_LIMIT: Duration = Duration::from_millis(400);
/// In a report that is sent about once a second; `/timeline` of the page has all.
const RECENT_CHANGES: usize = 20;
/// An election is over by then, if there is a majority.
const LEADER_LIMIT: Duration = Duration::from_secs(2);

/// What this sentinel answers for itself.
///
/// # Errors
/// `Unavailable` while it does not know.
pub(crate) async fn identity(sentinel: &Sentinel) -> Result<rpc::AdminReply, Status> {
    let (holds, _) = sentinel.group().await?;
    let mark = sentinel.timeline.lock().mark();
    Ok(admin::identity(&sentinel.config.options.name, sentinel.id(), holds, mark))
}

/// What this sentinel remembers of changes of primaries.
pub(crate) fn timeline(sentinel: &Sentinel) -> rpc::AdminReply {
    admin::timeline(&sentinel.timeline.lock().latest())
}

/// What the leader says; if none is found soon, what is known here.
pub(crate) async fn status_anywhere(sentinel: &Sentinel, command: rpc::StatusCommand) -> rpc::AdminReply {
    match at_leader(sentinel, Command::Status(command), LEADER_LIMIT).await {
        Ok(reply) => reply,
        Err(_) => status_reply(sentinel, command).await,
    }
}

async fn status_reply(sentinel: &Sentinel, command: rpc::StatusCommand) -> rpc::AdminReply {
    let report = if command.recent { recent_status(sentinel) } else { status(sentinel).await };
    reply(Outcome::Status(Bytes::from(report.json())))
}

/// Runs a command at the leader. What is wrong with the request is a reply, too.
///
/// # Errors
/// `Unavailable` when this is not the leader after all.
pub(crate) async fn execute(
    sentinel: &Sentinel,
    request: &rpc::AdminRequest,
) -> Result<rpc::AdminReply, Status> {
    match &request.command {
        Some(Command::Identity(_)) => identity(sentinel).await,
        Some(Command::Status(command)) => Ok(status_reply(sentinel, *command).await),
        Some(Command::Timeline(_)) => Ok(timeline(sentinel)),
        Some(Command::Failover(command)) => fail_over(sentinel, command).await,
        Some(Command::RemoveNode(command)) => remove_node(sentinel, &command.node).await,
        Some(Command::Adopt(_)) => adopt(sentinel).await,
        Some(Command::MinInSync(command)) => set_min_in_sync(sentinel, command.nodes).await,
        Some(Command::Announce(command)) => {
            let (_, members) = sentinel.group().await?;
            match admin::announced(command, &members) {
                Ok(command) => change(sentinel, command).await,
                Err(reason) => Ok(line(Err(reason))),
            }
        }
        Some(Command::Join(command)) => join(sentinel, command).await,
        None => Ok(line(Err("this sentinel does not know the command: is it older?".into()))),
    }
}

async fn change(sentinel: &Sentinel, command: TopologyCommand) -> Result<rpc::AdminReply, Status> {
    let result = sentinel.propose(command).await?;
    Ok(changed(&sentinel.current(), result.map(|_| ())))
}

/// Publishes this sentinel's address, wherever the leader is.
///
/// # Errors
/// When there is no leader, or it refuses.
pub(crate) async fn announce(sentinel: &Sentinel, address: SentinelAddress) -> Result<(), Status> {
    let command = admin::announce(sentinel.id(), address);
    let reply = at_leader(sentinel, command, Duration::from_secs(1)).await?;
    done(reply).map(|_| ()).map_err(Status::failed_precondition)
}

/// Runs a command at the leader, from any sentinel.
///
/// # Errors
/// When there is no leader within `limit`.
pub(crate) async fn at_leader(
    sentinel: &Sentinel,
    command: Command,
    limit: Duration,
) -> Result<rpc::AdminReply, Status> {
    let request = &request(command);
    sentinel
        .on_leader(
            limit,
            Hop::First,
            || execute(sentinel, request),
            |mut client| async move {
                client.admin(forwarded(request.clone())).await.map(tonic::Response::into_inner)
            },
        )
        .await
}

// ---------------------------------------------------------------- operators

async fn fail_over(sentinel: &Sentinel, command: &rpc::FailoverCommand) -> Result<rpc::AdminReply, Status> {
    let topology = sentinel.current();
    let (shard, target) = match meant(&topology, command) {
        Ok(meant) => meant,
        Err(reason) => return Ok(line(Err(reason))),
    };
    let result = failover::planned(sentinel, shard, target).await?;
    Ok(failed_over(&sentinel.current(), &shard.id, result))
}

async fn remove_node(sentinel: &Sentinel, node: &str) -> Result<rpc::AdminReply, Status> {
    let topology = sentinel.current();
    let found = find_node(&topology, node).map(|node| (node.id.clone(), node.address()));
    let (id, address) = match found.or_else(|reason| find_loading(&topology, node).ok_or(reason)) {
        Ok(found) => found,
        Err(reason) => return Ok(line(Err(reason))),
    };
    let reply = change(sentinel, TopologyCommand::ForgetNode { node: id.clone() }).await?;
    match &reply.outcome {
        Some(Outcome::Refused(reason)) => {
            info!("an operator wants to remove the node {address}: {reason}");
        }
        _ => info!(node = %id, "an operator has removed the node {address}"),
    }
    Ok(reply)
}

async fn set_min_in_sync(sentinel: &Sentinel, nodes: u32) -> Result<rpc::AdminReply, Status> {
    let nodes = (nodes > 0).then_some(nodes);
    let reply = change(sentinel, TopologyCommand::SetMinInSync { nodes }).await?;
    if !matches!(reply.outcome, Some(Outcome::Refused(_))) {
        warn!(?nodes, "an operator has set min-in-sync for all shards");
    }
    Ok(reply)
}

/// Shards are formed of what the nodes hold, as an operator wants it.
async fn adopt(sentinel: &Sentinel) -> Result<rpc::AdminReply, Status> {
    let _one_at_a_time = sentinel.placement.lock().await;
    let topology = sentinel.current();
    let words = |refusal: Refusal| topology.with_names(&refusal.to_string());
    let command = match formation::adopt(&topology, || ShardId::from_random(rand::random())) {
        Ok(command) => command,
        Err(refusal) => return Ok(line(Err(words(refusal)))),
    };
    let what = command.describe(&topology);
    let result = sentinel.propose(command).await?.map_err(words);
    match &result {
        Ok(_) => warn!("an operator goes on with what the nodes hold: {what}"),
        Err(reason) => info!("an operator wants to go on with what the nodes hold: {reason}"),
    }
    Ok(line(result.map(|_| format!("OK, {what}"))))
}

// ---------------------------------------------------------------- replacing a sentinel

/// Takes a newcomer in: first it gets the log, then it votes, in the place of those that had its name.
async fn join(sentinel: &Sentinel, command: &rpc::JoinCommand) -> Result<rpc::AdminReply, Status> {
    let rpc::JoinCommand { name, address, sentinel_id: id } = command;
    let _one_at_a_time = sentinel.joining.lock().await;
    let raft = sentinel.raft()?;
    let failed = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
    loop {
        let (_, members) = sentinel.group().await?;
        let names = sentinel.current().sentinels.iter().map(|(id, s)| (*id, s.name.clone())).collect();
        match admit(&members, &names, *id, name) {
            Ok(Admission::Member) => return Ok(line(Ok("OK".into()))),
            Ok(Admission::Learn) => {
                info!(id, "the sentinel {name} at {address} holds nothing of the group: it gets the log");
                let node = BasicNode::new(member(name, address));
                raft.add_learner(*id, node, true).await.map_err(|e| failed(&e))?;
            }
            Ok(Admission::Vote { voters, replaced }) => {
                let voters: BTreeSet<RaftId> = voters.into_iter().collect();
                raft.change_membership(voters, false).await.map_err(|e| failed(&e))?;
                warn!(
                    id,
                    ?replaced,
                    "the sentinel {name} votes, in the place of whoever had its name before"
                );
            }
            Err(reason) => return Ok(line(Err(reason))),
        }
    }
}

// ---------------------------------------------------------------- status

/// As this sentinel sees it, having asked everybody; if it leads a majority, it is what all agree on.
async fn status(sentinel: &Sentinel) -> StatusReport {
    let topology = &sentinel.current();
    let reports = probe::ask_all(&sentinel.connections, topology, ANSWER_LIMIT).await;
    let members = members(topology, &sentinel.config.founders);
    // Not as they were half a second ago.
    let asked = members.iter().map(|(id, member)| async {
        let is_self = member.name == sentinel.config.options.name;
        (is_self || watchdog::sentinel_answers(sentinel, *id).await).then_some(*id)
    });
    let answering = join_all(asked).await.into_iter().flatten().collect();
    report(sentinel, topology, &reports, &answering)
}

/// The same, of what everybody has said in the last round of questions: it costs nobody anything.
pub(crate) fn recent_status(sentinel: &Sentinel) -> StatusReport {
    let topology = &sentinel.current();
    let (reports, mut answering) = {
        let health = sentinel.health.lock();
        (health.reports(), health.answering())
    };
    answering.insert(sentinel.id());
    let mut report = report(sentinel, topology, &reports, &answering);
    report.timeline.truncate(RECENT_CHANGES);
    report
}

fn report(
    sentinel: &Sentinel,
    topology: &Topology,
    reports: &BTreeMap<NodeId, Report>,
    answering: &BTreeSet<RaftId>,
) -> StatusReport {
    let timeline = sentinel.timeline.lock().latest();
    let members = &members(topology, &sentinel.config.founders);
    let (me, leader) = (sentinel.id(), sentinel.leader());
    let told = Told { teller: sentinel.config.options.name.clone(), at_millis: wall_millis(), timeline };
    Survey { topology, reports, members, answering, me, leader }.report(told)
}
