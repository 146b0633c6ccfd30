//! Asks a node for its state.
//!
//! What matters is whether somebody listens there *now*: a refused *new* connection is proof of death, an old one that
//! has gone quiet or was reset is not. So a connection that was kept (see [`crate::shell::connections`]) saves making one
//! while all is well, and it can only say that the process we know is there and how it is. Whatever else becomes of
//! it, a new connection is made, and what becomes of that is the answer: at once when the kept one fails, as it does
//! when the process at its other end is killed, and soon when it stays quiet, for it may be stuck since a partition.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use keyward_proto::ids::{Incarnation, NodeId, Term};
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Topology};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::rules::failover::{Answer, NodeState, Role};
use crate::shell::connections::{Connections, NodeClient};

/// A kept connection is quiet for too long after this part of the time that the node has for its answer.
const QUIET_PART: u32 = 8;

/// How many nodes are asked at a time when all are: half of the connections that may be under way, the other half is
/// for questions that matter more.
const QUESTIONS_MAX: usize = 256;

/// What a node answered, in the words of the wire too: for the Sentinel API and `status`.
#[derive(Debug, Clone)]
pub struct Report {
    pub answer: Answer,
    pub status: Option<rpc::NodeStatus>,
}

impl Report {
    fn without_status(answer: Answer) -> Self {
        Report { answer, status: None }
    }

    /// The start of its process that we know has answered.
    pub fn is_of(&self, node: &Node) -> bool {
        matches!(&self.answer, Answer::Status(state) if state.incarnation == node.incarnation)
    }
}

/// One question, one answer, within `limit`.
pub async fn ask(connections: &Connections, topology: &Topology, node: &Node, limit: Duration) -> Report {
    let (report, _) = reach(connections, topology, node, limit).await;
    report
}

/// All nodes, so many at a time that the answers do not wait for each other.
pub async fn ask_all(
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
    let report = report(&node.id, client.status(request).await.ok()?.into_inner());
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
            let report = report(&node.id, reply.into_inner());
            let is_known = report.is_of(node);
            (report, is_known.then_some(client))
        }
        Err(_) => (Report::without_status(Answer::Silent), None),
    }
}

/// Another node at the address counts as nobody there: its process is not the one that we know.
pub fn report(expected: &NodeId, status: rpc::NodeStatus) -> Report {
    if status.node_id != expected.as_str() {
        return Report::without_status(Answer::Refused);
    }
    let role = match status.role.as_str() {
        "primary" => Role::Primary,
        "replica" => Role::Replica,
        _ => Role::None,
    };
    let state = NodeState {
        incarnation: Incarnation::new(status.incarnation),
        role,
        term: Term::new(status.term),
        last: status.last.unwrap_or_default().into(),
        usable: !status.loading && (status.consistent || role != Role::Replica),
        leases: status.leases.iter().filter_map(|id| NodeId::parse(id)).collect(),
        cut_off: status.cut_off,
    };
    Report { answer: Answer::Status(state), status: Some(status) }
}
