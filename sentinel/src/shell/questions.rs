//! Puts questions to nodes, directly and through the other sentinels: the shell of [`crate::rules::inquiry`].
//!
//! A question is passed on once: whoever gets it asks the node and nobody else.
#![allow(clippy::disallowed_methods, reason = "shell: asks over the network")]

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keyward_net::clock::monotonic as now;
use keyward_proto::ids::{Incarnation, NodeId};
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Topology};
use tokio::time::{sleep, timeout};

use crate::rules::failover::{Answer, Answers};
use crate::rules::inquiry::{Event, Inquiry, Question, Route, other_sentinels, to_pass_on};
use crate::rules::node_report::Report;
use crate::rules::topology::RaftId;
use crate::shell::probe;
use crate::shell::sentinel::Sentinel;

/// Whoever passes a question on has no reason to wait longer.
const PASSED_ON_LIMIT: Duration = Duration::from_millis(500);

/// One round of questions: what has been answered within `limit`.
pub async fn ask<'a>(
    sentinel: &Sentinel,
    topology: &Topology,
    nodes: impl IntoIterator<Item = &'a Node>,
    limit: Duration,
) -> Answers {
    let (mut inquiry, mut questions) = (Inquiry::default(), Vec::new());
    let others = other_sentinels(topology, sentinel.id());
    inquiry.begin(now(), limit, nodes, others, &mut questions);
    let mut asked = FuturesUnordered::new();
    while let Some(deadline) = inquiry.next_deadline() {
        asked.extend(questions.drain(..).map(|question| async move {
            let answer = put(sentinel, topology, &question).await;
            Event::Answered(question, answer)
        }));
        let event = tokio::select! {
            biased;
            Some(answered) = asked.next() => answered,
            () = sleep(deadline.since(now())) => Event::Tick,
        };
        inquiry.step(now(), event, &mut questions);
    }
    inquiry.answers().clone()
}

/// Puts one question.
pub async fn put(sentinel: &Sentinel, topology: &Topology, question: &Question) -> Answer {
    let limit = question.until.since(now());
    match question.route {
        Route::Direct => match topology.nodes.get(&question.node) {
            Some(node) => probe::ask(&sentinel.connections, topology, node, limit).await.answer,
            None => Answer::Silent,
        },
        Route::Through(other) => {
            let asked = timeout(limit, put_through(sentinel, other, question, limit)).await;
            asked.ok().flatten().unwrap_or(Answer::Silent)
        }
    }
}

async fn put_through(
    sentinel: &Sentinel,
    other: RaftId,
    question: &Question,
    limit: Duration,
) -> Option<Answer> {
    let request = rpc::AskNodeRequest {
        node_id: question.node.as_str().to_owned(),
        incarnation: question.incarnation.get(),
        limit_nanos: u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX),
    };
    let mut client = sentinel.control_client(&sentinel.address_of(other)?)?;
    let status = client.ask_node(request).await.ok()?.into_inner().status?;
    Some(Report::of(&question.node, status).answer)
}

/// Asks a node on behalf of another sentinel. The answer is empty when the node gives none, whatever the reason.
pub async fn pass_on(sentinel: &Sentinel, node: &NodeId, request: &rpc::AskNodeRequest) -> rpc::AskNodeReply {
    let topology = sentinel.current();
    let incarnation = Incarnation::new(request.incarnation);
    let Some(node) = to_pass_on(&topology, node, incarnation) else { return rpc::AskNodeReply::default() };
    let limit = Duration::from_nanos(request.limit_nanos).min(PASSED_ON_LIMIT);
    let report = probe::ask(&sentinel.connections, &topology, node, limit).await;
    rpc::AskNodeReply { status: report.status }
}
