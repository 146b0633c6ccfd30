//! The gRPC service `Control`: what nodes and operators ask of the sentinels.
//!
//! Any sentinel takes any request; what changes the topology runs at the Raft leader, to which a follower forwards.
//! - [`failover`]: asks a shard's nodes, has the rules decide, commits
//! - [`watchdog`]: looks after nodes and sentinels without being asked, and places new nodes
//! - [`admin`]: what operators ask
//! - `wire`: what nodes send, as the rules understand it; `story`: the log of each change of a primary
#![allow(clippy::disallowed_methods, reason = "shell: serves gRPC")]

pub(crate) mod admin;
pub(crate) mod failover;
mod story;
pub(crate) mod watchdog;
mod wire;

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use keyward_net::bus::{Caller, caller_of, denied};
use keyward_net::clock::monotonic as now;
use keyward_proto::format::FORMAT;
use keyward_proto::ids::Term;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::topology::Topology;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::rules::failover::Trigger;
use crate::rules::in_sync::Verdict;
use crate::rules::inquiry::ANSWER_LIMIT;
use crate::rules::leadership::Hop;
use crate::rules::publication::{self, KEEPALIVE};
use crate::rules::registration;
use crate::rules::topology::{Refusal, Registration, TopologyCommand};
use crate::shell::sentinel::{REQUEST_LIMIT, Sentinel};
use crate::shell::{probe, questions};

/// Marks a request that has been forwarded once: it is not forwarded again.
const FORWARDED: &str = "keyward-forwarded";
/// How long the process that a newcomer is to supersede has to say that it lives.
const PREDECESSOR_LIMIT: Duration = Duration::from_millis(100);
/// A planned failover waits for the primary to hold writes and the replica to catch up.
pub(crate) const ADMIN_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub(crate) struct ControlService {
    pub sentinel: Arc<Sentinel>,
}

fn hop<T>(request: &Request<T>) -> Hop {
    if request.metadata().contains_key(FORWARDED) { Hop::Forwarded } else { Hop::First }
}

fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// Without a host it is where the connection comes from.
fn name_host(host: &mut String, address: SocketAddr) {
    if host.is_empty() {
        *host = address.ip().to_canonical().to_string();
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    caller_of(request.extensions()).cloned()
}

/// Forwards a unary request unless this sentinel leads.
macro_rules! on_leader {
    ($self:ident, $limit:expr, $hop:expr, $message:ident, $method:ident, $here:expr) => {{
        let message = &$message;
        $self
            .sentinel
            .on_leader(
                $limit,
                $hop,
                || $here,
                |mut client| async move {
                    client.$method(forwarded(message.clone())).await.map(Response::into_inner)
                },
            )
            .await
            .map(Response::new)
    }};
}

impl ControlService {
    /// To somebody who knows the topology `known`.
    fn reply(&self, result: Result<(), impl Display>, known: Option<&rpc::TopologyKey>) -> rpc::ChangeReply {
        let reason = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let reason = self.sentinel.current().with_names(&reason);
        let (update, _) = self.sentinel.update_for(publication::known(known).as_ref());
        rpc::ChangeReply { accepted: result.is_ok(), reason, update: Some(update), challenge: 0 }
    }

    async fn register_here(&self, request: &rpc::RegisterRequest) -> Result<rpc::RegisterReply, Status> {
        let mut registration = wire::registration(request)?;
        registration.absent = self.sentinel.health.lock().absent();
        let line = registration.describe();
        let topology = self.sentinel.current();
        let outcome = match self.predecessor(&topology, &registration).await {
            Some(refusal) => Err(refusal),
            None => self.sentinel.propose(TopologyCommand::RegisterNode(registration)).await?,
        };
        if let Err(refusal @ (Refusal::Disagrees(_) | Refusal::StillRuns(_))) = &outcome {
            let words = topology.with_names(&refusal.to_string());
            info!(node = %request.node_id, "a node is refused: {words}");
            return Err(Status::failed_precondition(words));
        }
        let incarnation = match wire::registered(outcome)? {
            wire::Registered::As(incarnation) => incarnation,
            wire::Registered::Otherwise(current) => {
                let known_incarnation = current.get();
                return Ok(rpc::RegisterReply { known_incarnation, format: FORMAT, ..Default::default() });
            }
        };
        info!(node = %request.node_id, %incarnation, "{line}");
        watchdog::place(&self.sentinel).await;
        let (whole, _) = self.sentinel.update_for(None);
        Ok(rpc::RegisterReply {
            incarnation: incarnation.get(),
            topology: whole.topology,
            known_incarnation: incarnation.get(),
            format: FORMAT,
        })
    }

    /// Why a process must not supersede the one that is registered.
    async fn predecessor(&self, topology: &Topology, new: &Registration) -> Option<Refusal> {
        let known = registration::predecessor(topology, new)?;
        let report = probe::ask(&self.sentinel.connections, topology, known, PREDECESSOR_LIMIT).await;
        registration::objection(known, &report.answer)
    }

    async fn announce_loading_here(&self, request: &rpc::LoadingRequest) -> Result<rpc::ChangeReply, Status> {
        let command = wire::loading(request)?;
        let line = command.describe(&self.sentinel.current());
        let result = self.sentinel.propose(command).await?;
        info!(node = %request.node_id, "{line}");
        Ok(rpc::ChangeReply {
            accepted: result.is_ok(),
            reason: result.err().map(|refusal| refusal.to_string()).unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn change_in_sync_here(
        &self,
        message: &rpc::ChangeInSyncRequest,
    ) -> Result<rpc::ChangeReply, Status> {
        let request = wire::in_sync_request(message)?;
        let topology = self.sentinel.current();
        match request.judge(now(), &topology) {
            Verdict::CarriedOut => return Ok(self.reply(Ok::<(), Status>(()), message.known.as_ref())),
            Verdict::Challenge(challenge) => {
                let reason = "the primary has to show that it hears the sentinels";
                let reply = self.reply(Err::<(), _>(reason), message.known.as_ref());
                return Ok(rpc::ChangeReply { challenge, ..reply });
            }
            Verdict::Ask(nodes) => {
                let answers = questions::ask(&self.sentinel, &topology, nodes, ANSWER_LIMIT).await;
                if let Some(reason) = request.objection(&topology, &answers) {
                    self.sentinel.confirm(&topology, &request.shard).await?;
                    info!(term = %request.term, "{}", request.kept(&topology, &reason));
                    return Ok(self.reply(Err::<(), _>(reason), message.known.as_ref()));
                }
            }
            Verdict::Propose => {}
        }
        let result = self.sentinel.propose(request.command()).await?;
        info!(term = %request.term, "{}", request.told(&topology, &self.sentinel.current(), &result));
        Ok(self.reply(result.map(|_| ()), message.known.as_ref()))
    }

    async fn request_failover_here(
        &self,
        request: &rpc::FailoverRequest,
    ) -> Result<rpc::ChangeReply, Status> {
        let trigger = wire::trigger(request)?;
        let (shard, term) = (wire::shard_id(&request.shard_id)?, Term::new(request.term));
        let line = trigger.asked(&self.sentinel.current(), &shard);
        let dead = if request.primary_dead { " (nobody listens there any more)" } else { "" };
        info!(%term, "{line}{dead}");
        if let (Some(reporter), Trigger::Complaint { .. }) = (trigger.reporter(), &trigger) {
            let silence = Duration::from_nanos(request.silent_nanos);
            self.sentinel.timeline.lock().complained(shard.clone(), term, reporter.clone(), silence);
        }
        let result = failover::fail_over(&self.sentinel, &shard, term, trigger).await?;
        Ok(self.reply(result, request.known.as_ref()))
    }

    async fn handoff_here(&self, request: &rpc::HandoffRequest) -> Result<rpc::ChangeReply, Status> {
        let result = failover::hand_off(&self.sentinel, wire::handoff(request)?).await?;
        Ok(self.reply(result, request.known.as_ref()))
    }
}

#[tonic::async_trait]
impl rpc::control_server::Control for ControlService {
    async fn register(
        &self,
        request: Request<rpc::RegisterRequest>,
    ) -> Result<Response<rpc::RegisterReply>, Status> {
        let (hop, caller) = (hop(&request), caller(&request)?);
        let mut message = request.into_inner();
        caller.peer.speaks_for(&message.node_id, "a registration").map_err(|e| denied(&e))?;
        name_host(&mut message.host, caller.address);
        on_leader!(self, REQUEST_LIMIT, hop, message, register, self.register_here(&message))
    }

    async fn announce_loading(
        &self,
        request: Request<rpc::LoadingRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let (hop, caller) = (hop(&request), caller(&request)?);
        let mut message = request.into_inner();
        caller.peer.speaks_for(&message.node_id, "a registration").map_err(|e| denied(&e))?;
        name_host(&mut message.host, caller.address);
        on_leader!(self, REQUEST_LIMIT, hop, message, announce_loading, self.announce_loading_here(&message))
    }

    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<rpc::TopologyUpdate, Status>> + Send>>;

    async fn watch_topology(
        &self,
        request: Request<rpc::WatchRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        let sentinel = self.sentinel.clone();
        let mut known = publication::known(request.into_inner().known.as_ref());
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(async move {
            let mut topology = sentinel.topology.clone();
            loop {
                topology.mark_unchanged();
                // A sentinel that has not heard of a leader yet may have an old topology.
                if sentinel.leader().is_some() {
                    let (update, key) = sentinel.update_for(known.as_ref());
                    known = key;
                    if sender.send(Ok(update)).await.is_err() {
                        return;
                    }
                }
                let wait = if sentinel.leader().is_some() { KEEPALIVE } else { Duration::from_millis(50) };
                tokio::select! {
                    changed = timeout(wait, topology.changed()) => if let Ok(Err(_)) = changed { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report_status(
        &self,
        request: Request<Streaming<rpc::NodeStatus>>,
    ) -> Result<Response<rpc::ReportReply>, Status> {
        let peer = caller(&request)?.peer;
        let mut reports = request.into_inner();
        while let Some(report) = reports.next().await {
            let report = report?;
            peer.speaks_for(&report.node_id, "a status").map_err(|e| denied(&e))?;
            let id = wire::node_id(&report.node_id)?;
            self.sentinel.health.lock().note_report(now(), &id, report);
        }
        Ok(Response::new(rpc::ReportReply {}))
    }

    async fn change_in_sync(
        &self,
        request: Request<rpc::ChangeInSyncRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let (hop, peer) = (hop(&request), caller(&request)?.peer);
        let message = request.into_inner();
        peer.speaks_for(&message.primary, "a change of the in-sync set").map_err(|e| denied(&e))?;
        on_leader!(self, REQUEST_LIMIT, hop, message, change_in_sync, self.change_in_sync_here(&message))
    }

    async fn request_failover(
        &self,
        request: Request<rpc::FailoverRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let (hop, peer) = (hop(&request), caller(&request)?.peer);
        let message = request.into_inner();
        peer.speaks_for(&message.reporter, "a failover").map_err(|e| denied(&e))?;
        on_leader!(self, REQUEST_LIMIT, hop, message, request_failover, self.request_failover_here(&message))
    }

    async fn handoff(
        &self,
        request: Request<rpc::HandoffRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let (hop, peer) = (hop(&request), caller(&request)?.peer);
        let message = request.into_inner();
        peer.speaks_for(&message.primary, "a hand-off").map_err(|e| denied(&e))?;
        on_leader!(self, REQUEST_LIMIT, hop, message, handoff, self.handoff_here(&message))
    }

    async fn admin(&self, request: Request<rpc::AdminRequest>) -> Result<Response<rpc::AdminReply>, Status> {
        let (hop, peer) = (hop(&request), caller(&request)?.peer);
        let message = request.into_inner();
        match &message.command {
            Some(Command::Join(_) | Command::Announce(_)) if !peer.is_sentinel() => {
                return Err(Status::permission_denied("only a sentinel may join, or say where it is"));
            }
            Some(Command::Identity(_)) => return admin::identity(&self.sentinel).await.map(Response::new),
            Some(Command::Timeline(_)) => return Ok(Response::new(admin::timeline(&self.sentinel))),
            Some(Command::Status(command)) if hop == Hop::First => {
                return Ok(Response::new(admin::status_anywhere(&self.sentinel, *command).await));
            }
            _ => {}
        }
        on_leader!(self, ADMIN_LIMIT, hop, message, admin, admin::execute(&self.sentinel, &message))
    }

    async fn ask_node(
        &self,
        request: Request<rpc::AskNodeRequest>,
    ) -> Result<Response<rpc::AskNodeReply>, Status> {
        let message = request.into_inner();
        let node = wire::node_id(&message.node_id)?;
        Ok(Response::new(questions::pass_on(&self.sentinel, &node, &message).await))
    }
}
