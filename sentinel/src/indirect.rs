//! Asks a node also through the other sentinels, when it does not answer this one (as SWIM does).
//!
//! The network may be cut in part: the leading sentinel reaches the primary alone, say, while the replicas reach the
//! other sentinels. Without their answers it would have the replicas removed, and could choose none of them.
//!
//! Only a node's *status* counts when it comes this way, of the process that the topology has. It is an answer that is
//! a little older, and whatever is decided on answers is compared with the topology when it takes effect. That a
//! connection was refused elsewhere is no proof of death, nor is another process there: the other sentinel may have an
//! older topology, with an address where the node no longer is, or another route. A primary's leases are held to be
//! over on such a proof, so this sentinel's own new connection has to give it. Silence on all ways remains silence.
//!
//! A question is passed on once: whoever gets it asks the node and nobody else.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use keyward_proto::ids::NodeId;
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Topology};
use tokio::time::{Instant, timeout, timeout_at};

use crate::failover::Answer;
use crate::probe::{self, Report};
use crate::raft::RaftId;
use crate::sentinel::Sentinel;

/// How long the node's own answer is waited for before the others are asked.
const DIRECT_LIMIT: Duration = Duration::from_millis(40);
/// Whoever passes a question on has no reason to wait longer.
const PASSED_ON_LIMIT: Duration = Duration::from_millis(500);

/// One question, one answer, within `limit`: the first that is not silence.
pub async fn ask(sentinel: &Sentinel, topology: &Topology, node: &Node, limit: Duration) -> Report {
    let deadline = Instant::now() + limit;
    let mut direct = pin!(probe::ask(&sentinel.connections, topology, node, limit));
    let through_others = pin!(ask_others(sentinel, topology, node, deadline));
    match timeout(DIRECT_LIMIT, &mut direct).await {
        Ok(report) if report.answer != Answer::Silent => return report,
        Ok(silent) => return through_others.await.unwrap_or(silent),
        Err(_) => {}
    }
    match select(direct, through_others).await {
        Either::Left((report, others)) if report.answer == Answer::Silent => others.await.unwrap_or(report),
        Either::Left((report, _)) | Either::Right((Some(report), _)) => report,
        Either::Right((None, direct)) => direct.await,
    }
}

/// The node's status from the first sentinel that has it.
async fn ask_others(
    sentinel: &Sentinel,
    topology: &Topology,
    node: &Node,
    deadline: Instant,
) -> Option<Report> {
    let request = rpc::AskNodeRequest {
        node_id: node.id.as_str().to_owned(),
        incarnation: node.incarnation.get(),
        limit_nanos: u64::try_from(deadline.duration_since(Instant::now()).as_nanos()).unwrap_or(u64::MAX),
    };
    let others = topology.sentinels.keys().filter(|id| **id != sentinel.id());
    let mut asked: FuturesUnordered<_> =
        others.map(|other| ask_through(sentinel, *other, node, request.clone())).collect();
    while let Ok(Some(report)) = timeout_at(deadline, asked.next()).await {
        if report.is_some() {
            return report;
        }
    }
    None
}

async fn ask_through(
    sentinel: &Sentinel,
    other: RaftId,
    node: &Node,
    request: rpc::AskNodeRequest,
) -> Option<Report> {
    let mut client = sentinel.control_client(&sentinel.address_of(other)?)?;
    let status = client.ask_node(request).await.ok()?.into_inner().status?;
    Some(probe::report(&node.id, status)).filter(|report| report.is_of(node))
}

/// Asks a node on behalf of another sentinel, if it is known here as it is there. The answer is empty when the node
/// gives none, whatever the reason.
pub async fn pass_on(sentinel: &Sentinel, node: &NodeId, request: &rpc::AskNodeRequest) -> rpc::AskNodeReply {
    let topology = sentinel.current();
    let known = topology.nodes.get(node).filter(|node| node.incarnation.get() == request.incarnation);
    let Some(node) = known else { return rpc::AskNodeReply::default() };
    let limit = Duration::from_nanos(request.limit_nanos).min(PASSED_ON_LIMIT);
    let report = probe::ask(&sentinel.connections, &topology, node, limit).await;
    let status = report.is_of(node).then_some(report.status).flatten();
    rpc::AskNodeReply { status }
}
