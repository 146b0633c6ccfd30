//! Asks a node for its state.
//!
//! What matters is whether somebody listens there *now*: only a refused *new* connection says that nobody does, an old
//! one that has gone quiet or was reset does not. So a connection that was kept (see [`crate::shell::connections`]) saves making one
//! while all is well, and it can only say that the process we know is there and how it is. Whatever else becomes of
//! it, a new connection is made, and what becomes of that is the answer: at once when the kept one fails, as it does
//! when the process at its other end is killed, and soon when it stays quiet, for it may be stuck since a partition.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use keyward_proto::ids::{NodeId, Term};
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Topology};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::rules::failover::Answer;
use crate::rules::node_report::Report;
use crate::shell::connections::{Connections, NodeClient};

/// A kept connection is quiet for too long after this part of the time that the node has for its answer.
const QUIET_PART: u32 = 8;

/// How many nodes are asked at a time when all are: half of the connections that may be under way, the other half is
/// for questions that matter more.
const QUESTIONS_MAX: usize = 256;

/// One question, one answer, within `limit`.
pub async fn ask(connections: &Connections, topology: &Topology, node: &Node, limit: Duration) -> Report {
    let (report, _) = reach(connections, topology, node, limit).await;
    report
}

/// All nodes, so many at a time that the answers do not wait for each other.
pub(crate) async fn ask_all(
    connections: &Connections,
    topology: &Topology,
    limit: Duration,
) -> BTreeMap<NodeId, Report> {
    let turns = &Semaphore::new(QUESTIONS_MAX);
    let questions = topology.nodes.values().map(|node| async move {
        let _turn = turns.acquire().await.expect("the semaphore is never closed");
        (node.id.clone(), ask(connections, topology, node, limit).await)
    });
    join_all(questions).await.into_iter().collect()
}

/// As [`ask`], with the connection over which the process that we know has answered just now.
pub async fn reach(
    connections: &Connections,
    topology: &Topology,
    node: &Node,
    limit: Duration,
) -> (Report, Option<NodeClient>) {
    let shard = node.shard.as_ref();
    let term = shard.and_then(|id| topology.shards.get(id)).map_or(Term::ZERO, |s| s.term);
    let request = rpc::StatusRequest {
        shard_id: shard.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        term: term.get(),
    };
    let asked = timeout(limit, over_kept_or_new(connections, node, request, limit / QUIET_PART)).await;
    let (report, client) = asked.unwrap_or((Report::without_status(Answer::Silent), None));
    if let Some(client) = &client {
        connections.keep(node, client.clone());
    }
    (report, client)
}

async fn over_kept_or_new(
    connections: &Connections,
    node: &Node,
    request: rpc::StatusRequest,
    quiet: Duration,
) -> (Report, Option<NodeClient>) {
    let new = over_new(connections, node, request.clone());
    let Some(client) = connections.take(node) else { return new.await };
    let mut kept = pin!(over_kept(client, node, request));
    match timeout(quiet, &mut kept).await {
        Ok(Some((report, client))) => (report, Some(client)),
        Ok(None) => new.await,
        Err(_) => tokio::select! {
            Some((report, client)) = kept => (report, Some(client)),
            answered = new => answered,
        },
    }
}

/// `None` unless the process that we know answers.
async fn over_kept(
    mut client: NodeClient,
    node: &Node,
    request: rpc::StatusRequest,
) -> Option<(Report, NodeClient)> {
    let report = Report::of(&node.id, client.status(request).await.ok()?.into_inner());
    report.is_of(node).then_some((report, client))
}

async fn over_new(
    connections: &Connections,
    node: &Node,
    request: rpc::StatusRequest,
) -> (Report, Option<NodeClient>) {
    let mut client = match connections.connect(node).await {
        Ok(client) => client,
        Err(answer) => return (Report::without_status(answer), None),
    };
    match client.status(request).await {
        Ok(reply) => {
            let report = Report::of(&node.id, reply.into_inner());
            let is_known = report.is_of(node);
            (report, is_known.then_some(client))
        }
        Err(_) => (Report::without_status(Answer::Silent), None),
    }
}
