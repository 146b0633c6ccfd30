//! Asks a node for its state over a connection of its own.
//!
//! A new connection each time, because what matters is whether somebody listens there *now*: a refused connection
//! is proof of death, an old connection that has gone quiet is not.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId, Term};
use keyward_proto::rpc;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use keyward_proto::topology::{Node, Topology};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::channel::{endpoint, is_refused, join_host_port};
use crate::failover::{Answer, NodeState, Role};

/// What a node answered, in the words of the wire too: for the Sentinel API and `status`.
#[derive(Debug, Clone)]
pub struct Report {
    pub answer: Answer,
    pub status: Option<rpc::NodeStatus>,
}

/// Connects to a node's bus port.
///
/// # Errors
/// The answer that the failed connection amounts to.
pub async fn connect(node: &Node) -> Result<NodeControlClient<Channel>, Answer> {
    let Some(endpoint) = endpoint(&join_host_port(&node.host, node.bus_port)) else {
        return Err(Answer::Silent);
    };
    match endpoint.connect().await {
        Ok(channel) => Ok(NodeControlClient::new(channel)),
        Err(e) if is_refused(&e) => Err(Answer::Refused),
        Err(_) => Err(Answer::Silent),
    }
}

/// One question, one answer, within `limit`.
pub async fn ask(topology: &Topology, node: &Node, limit: Duration) -> Report {
    let shard = node.shard.as_ref();
    let term = shard.and_then(|id| topology.shards.get(id)).map_or(Term::ZERO, |s| s.term);
    let request = rpc::StatusRequest {
        shard_id: shard.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        term: term.get(),
    };
    let answer = timeout(limit, async {
        let mut client = match connect(node).await {
            Ok(client) => client,
            Err(answer) => return Report { answer, status: None },
        };
        match client.status(request).await {
            Ok(reply) => report(&node.id, reply.into_inner()),
            Err(_) => Report { answer: Answer::Silent, status: None },
        }
    });
    answer.await.unwrap_or(Report { answer: Answer::Silent, status: None })
}

/// Another node at the address counts as nobody there: its process is not the one that we know.
fn report(expected: &NodeId, status: rpc::NodeStatus) -> Report {
    if status.node_id != expected.as_str() {
        return Report { answer: Answer::Refused, status: None };
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
    };
    Report { answer: Answer::Status(state), status: Some(status) }
}
