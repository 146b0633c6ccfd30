//! The shell of [`crate::rules::coordinator`]: one task owns it, asks nodes, commits, and logs the story.
#![allow(clippy::disallowed_methods, reason = "shell: asks nodes and waits")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use keyward_net::clock::monotonic as now;
use keyward_proto::ids::{NodeId, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::topology::{Node, Shard, Topology};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tracing::info;

use super::story::{self, tell_proposal, tell_settlement};
use crate::rules::coordinator::{
    Action, Coordinator, Event, Observed, Outcome, Proposal, Request, Settlement, Ticket,
};
use crate::rules::failover::{Handoff, Trigger};
use crate::rules::inquiry::ANSWER_LIMIT;
use crate::rules::topology::TopologyCommand;
use crate::shell::sentinel::{Sentinel, wall_millis};
use crate::shell::{probe, questions};

/// How long a primary may take to hand its role over.
const HANDOFF_LIMIT: Duration = Duration::from_secs(10);
/// Requests on their way to the task; further ones wait for their place.
pub(crate) const REQUESTS_MAX: usize = 1024;

/// A request and who waits for the outcome.
pub(crate) type Asked = (Request, oneshot::Sender<Settlement>);

/// Has the shard's primary changed, when it is this request's turn.
///
/// # Errors
/// `Unavailable` when this sentinel is stopping.
pub(crate) async fn request(sentinel: &Sentinel, request: Request) -> Result<Settlement, Status> {
    let stopping = || Status::unavailable("this sentinel is stopping");
    let (reply, settlement) = oneshot::channel();
    sentinel.primary_changes.send((request, reply)).await.map_err(|_| stopping())?;
    settlement.await.map_err(|_| stopping())
}

/// Handles one request. The inner error is the reason why the primary stays.
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub(crate) async fn fail_over(
    sentinel: &Sentinel,
    shard: &ShardId,
    term: Term,
    trigger: Trigger,
) -> Result<Result<(), String>, Status> {
    settled(sentinel, Request::Failover { shard: shard.clone(), term, trigger }).await
}

/// Commits what a stopped primary and its target have agreed on.
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub(crate) async fn hand_off(sentinel: &Sentinel, handoff: Handoff) -> Result<Result<(), String>, Status> {
    settled(sentinel, Request::Handoff(handoff)).await
}

/// What whoever has asked from outside is told.
async fn settled(sentinel: &Sentinel, asked: Request) -> Result<Result<(), String>, Status> {
    let (before, shard) = (sentinel.current(), asked.shard().clone());
    let settlement = request(sentinel, asked).await?;
    if settlement.needs_leadership() {
        sentinel.confirm(&before, &shard).await?;
    }
    match settlement.outcome() {
        Outcome::Done => Ok(Ok(())),
        Outcome::Refused(reason) => Ok(Err(reason)),
        Outcome::Unknown(reason) => Err(Status::unavailable(reason)),
    }
}

/// Runs the coordinator until nobody can ask any more.
pub(crate) async fn coordinate(sentinel: Arc<Sentinel>, mut requests: mpsc::Receiver<Asked>) {
    let mut driver = Driver {
        sentinel: &sentinel,
        coordinator: Coordinator::default(),
        waiting: BTreeMap::new(),
        tickets: 0,
        under_way: FuturesUnordered::new(),
    };
    loop {
        let deadline = driver.coordinator.next_deadline();
        let event = tokio::select! {
            biased;
            Some(event) = driver.under_way.next() => event,
            () = sleep(deadline.map_or(Duration::ZERO, |at| at.since(now()))), if deadline.is_some() => Event::Tick,
            asked = requests.recv() => match asked {
                Some(asked) => driver.take(asked),
                None => return,
            },
        };
        driver.step(event);
        sentinel.changes_primary.store(!driver.coordinator.is_idle(), Ordering::Relaxed);
    }
}

struct Driver<'a> {
    sentinel: &'a Sentinel,
    coordinator: Coordinator,
    /// Requests without an outcome.
    waiting: BTreeMap<Ticket, Asked>,
    tickets: u64,
    /// Questions and proposals.
    under_way: FuturesUnordered<BoxFuture<'a, Event>>,
}

impl Driver<'_> {
    fn take(&mut self, asked: Asked) -> Event {
        self.tickets += 1;
        let (ticket, request) = (Ticket(self.tickets), asked.0.clone());
        let waiting = &self.waiting;
        let is_withdrawn = |ticket| waiting.get(&ticket).is_none_or(|(_, reply)| reply.is_closed());
        self.coordinator.withdraw(request.shard(), is_withdrawn);
        self.waiting.insert(ticket, asked);
        Event::Requested(ticket, request)
    }

    fn step(&mut self, event: Event) {
        let Driver { sentinel, coordinator, .. } = self;
        let (topology, mut actions) = (sentinel.current(), Vec::new());
        sentinel.flight.heard(&event);
        {
            let health = sentinel.health.lock();
            let view = Observed { me: sentinel.id(), topology: &topology, health: &health };
            coordinator.step(now(), view, event, &mut actions);
        }
        sentinel.flight.did(&actions);
        for action in actions {
            self.act(&topology, action);
        }
    }

    fn act(&mut self, topology: &Arc<Topology>, action: Action) {
        let sentinel = self.sentinel;
        match action {
            Action::Ask(shard, question) => {
                let topology = Arc::clone(topology);
                self.under_way.push(Box::pin(async move {
                    let answer = questions::put(sentinel, &topology, &question).await;
                    Event::Answered(shard, question, answer)
                }));
            }
            Action::Propose(proposal) => {
                tell_proposal(&proposal);
                let Proposal { id, change, .. } = proposal;
                self.under_way.push(Box::pin(async move {
                    let shard = change.shard.clone();
                    match sentinel.propose(TopologyCommand::ReplacePrimary(change)).await {
                        Ok(result) => Event::Decided(shard, id, result.map(|_| ())),
                        Err(status) => {
                            info!("{}", status.message());
                            Event::Undecided(shard, id)
                        }
                    }
                }));
            }
            Action::AskAgain(shard, refusal) => {
                info!("{}", story::asking_again(topology, &shard, &refusal));
            }
            Action::Settle(ticket, settlement) => {
                let Some((request, reply)) = self.waiting.remove(&ticket) else { return };
                tell_settlement(topology, &request, &settlement);
                if let Settlement::Replaced(replaced) = &settlement {
                    let health = sentinel.health.lock();
                    sentinel.remember(|t| t.led(now(), wall_millis(), &health, &request, replaced));
                }
                // Whoever asked may have given up.
                drop(reply.send(settlement));
            }
        }
    }
}

// ---------------------------------------------------------------- an operator's failover

/// An operator's failover: asks the primary to hand over; if it cannot be reached, replaces it.
///
/// # Errors
/// `Unavailable` when the change could not be committed here.
pub(crate) async fn planned(
    sentinel: &Sentinel,
    shard: &Shard,
    target: Option<&NodeId>,
) -> Result<Result<(), String>, Status> {
    let topology = sentinel.current();
    let trigger = || Trigger::Operator { target: target.cloned() };
    let Some(primary) = shard.primary.as_ref().and_then(|id| topology.nodes.get(id)) else {
        return fail_over(sentinel, &shard.id, shard.term, trigger()).await;
    };
    info!(term = %shard.term, "{}", story::wanted(&topology, shard, primary, target));
    sentinel.timeline.lock().wants_handoff(now(), shard);
    match start_handoff(sentinel, &topology, primary, shard, target).await {
        Ok(reply) if reply.accepted => Ok(Ok(())),
        Ok(reply) => Ok(Err(format!("the primary refused: {}", reply.reason))),
        Err(reason) => {
            info!("{}", story::not_reached(&topology, shard, primary, reason));
            fail_over(sentinel, &shard.id, shard.term, trigger()).await
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
        return Err(report.answer.why_not_used());
    };
    match timeout(HANDOFF_LIMIT, client.start_handoff(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(_)) => Err("it failed during the hand-off"),
        Err(_) => Err("it did not finish the hand-off in time"),
    }
}
