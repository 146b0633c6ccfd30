//! The gRPC service `Control`: what nodes and operators ask of the sentinels.
//!
//! Any sentinel takes any request; what changes the topology runs at the Raft leader, to which a follower forwards.
//! - [`failover`]: asks a shard's nodes, has the rules decide, commits
//! - [`watchdog`]: looks after nodes and sentinels without being asked, and places new nodes
//! - [`admin`]: what operators ask
#![allow(clippy::disallowed_methods, reason = "shell: serves gRPC")]

pub mod admin;
pub mod failover;
pub mod watchdog;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::join_all;
use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::topology::Shard;
use keyward_proto::topology::names::host_port;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::clock::now;
use crate::failover::removal::{self, Contact, Removal};
use crate::failover::{Answer, Handoff, Trigger};
use crate::indirect;
use crate::publication;
use crate::sentinel::{REQUEST_LIMIT, Sentinel};
use crate::topology::{InSyncChange, Outcome, Refusal, Registration, TopologyCommand};

/// Marks a request that has been forwarded once: it is not forwarded again.
const FORWARDED: &str = "keyward-forwarded";
/// An empty update is sent after so long without a change, so that a dead stream is noticed.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// A planned failover waits for the primary to hold writes and the replica to catch up.
pub const ADMIN_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub struct ControlService {
    pub sentinel: Arc<Sentinel>,
}

fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

fn node_id(text: &str) -> Result<NodeId, Status> {
    NodeId::parse(text).ok_or_else(|| Status::invalid_argument(format!("`{text}` is not a node ID")))
}

fn shard_id(text: &str) -> Result<ShardId, Status> {
    ShardId::parse(text).ok_or_else(|| Status::invalid_argument(format!("`{text}` is not a shard ID")))
}

fn port(number: u32) -> Result<u16, Status> {
    u16::try_from(number).map_err(|_| Status::invalid_argument(format!("{number} is not a port")))
}

/// Forwards a unary request unless this sentinel leads.
macro_rules! on_leader {
    ($self:ident, $limit:expr, $is_forwarded:expr, $message:ident, $method:ident, $here:expr) => {{
        let message = &$message;
        $self
            .sentinel
            .on_leader(
                $limit,
                $is_forwarded,
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
        let registration = Registration {
            id: node_id(&request.node_id)?,
            start_nonce: request.start_nonce,
            host: request.host.clone(),
            port: port(request.port)?,
            bus_port: port(request.bus_port)?,
            hostname: request.hostname.clone(),
            zone: request.zone.clone(),
            replica_priority: request.replica_priority,
            cluster_enabled: request.cluster_enabled,
            program_version: request.version.clone(),
            last: request.last.unwrap_or_default().into(),
            follows: Incarnation::new(request.known_incarnation),
        };
        let outcome = self.sentinel.propose(TopologyCommand::RegisterNode(registration)).await?;
        let incarnation = match outcome {
            Ok(Outcome::Registered { incarnation }) => incarnation,
            Ok(Outcome::Changed | Outcome::Unchanged) => Incarnation::ZERO,
            Err(Refusal::StaleIncarnation { current }) => {
                let known_incarnation = current.get();
                return Ok(rpc::RegisterReply { known_incarnation, ..Default::default() });
            }
            Err(refusal) => return Err(Status::failed_precondition(refusal.to_string())),
        };
        let last: Position = request.last.unwrap_or_default().into();
        let address = host_port(&request.host, port(request.port)?);
        info!(node = %request.node_id, %incarnation, holds = %last, "the node {address} has joined");
        watchdog::place(&self.sentinel).await;
        let (whole, _) = self.sentinel.update_for(None);
        Ok(rpc::RegisterReply {
            incarnation: incarnation.get(),
            topology: whole.topology,
            known_incarnation: incarnation.get(),
        })
    }

    async fn change_in_sync_here(
        &self,
        request: &rpc::ChangeInSyncRequest,
    ) -> Result<rpc::ChangeReply, Status> {
        let shard = shard_id(&request.shard_id)?;
        let primary = node_id(&request.primary)?;
        let change = if request.add.is_empty() {
            let nodes: Result<BTreeSet<NodeId>, Status> =
                request.remove.iter().map(|id| node_id(id)).collect();
            InSyncChange::Remove(nodes?)
        } else if request.remove.is_empty() {
            let incarnation = Incarnation::new(request.add_incarnation);
            InSyncChange::Add { node: node_id(&request.add)?, incarnation }
        } else {
            return Err(Status::invalid_argument("a change either removes nodes or adds one"));
        };
        let term = Term::new(request.term);
        if let Some(known) = self.sentinel.current().shards.get(&shard)
            && known.term == term
            && known.in_sync_version == request.in_sync_version + 1
            && is_carried_out(known, &change)
        {
            return Ok(self.reply(Ok::<(), Status>(()), request.known.as_ref()));
        }
        let topology = self.sentinel.current();
        if let InSyncChange::Remove(nodes) = &change {
            if !removal::is_met(request.challenge, now()) {
                let reason = "the primary has to show that it hears the sentinels";
                let reply = self.reply(Err::<(), _>(reason), request.known.as_ref());
                return Ok(rpc::ChangeReply { challenge: removal::challenge(now()), ..reply });
            }
            if let Some(reason) = self.objection(&shard, term, nodes).await {
                info!(
                    %term,
                    "the in-sync set of {} stays as it is, not without {}: {}",
                    topology.shard_name(&shard),
                    topology.node_names(nodes),
                    topology.with_names(&reason)
                );
                return Ok(self.reply(Err::<(), _>(reason), request.known.as_ref()));
            }
        }
        let command = TopologyCommand::ChangeInSync {
            shard: shard.clone(),
            primary: primary.clone(),
            term,
            in_sync_version: request.in_sync_version,
            change: change.clone(),
        };
        let result = self.sentinel.propose(command).await?;
        match &result {
            Ok(_) => info!(
                %term,
                "{} goes on {}; in sync: {}",
                topology.shard_name(&shard),
                change.describe(&topology),
                self.sentinel.in_sync_names(&shard)
            ),
            Err(refusal) => info!(
                %term,
                "{} does not go on {}: {}",
                topology.shard_name(&shard),
                change.describe(&topology),
                topology.with_names(&refusal.to_string())
            ),
        }
        Ok(self.reply(result.map(|_| ()), request.known.as_ref()))
    }

    /// Why these members should stay. They are asked only if that matters.
    async fn objection(&self, shard: &ShardId, term: Term, nodes: &BTreeSet<NodeId>) -> Option<String> {
        let topology = self.sentinel.current();
        let shard = topology.shards.get(shard).filter(|shard| shard.term == term)?;
        let removal = Removal::new(&topology, shard, nodes);
        let questions = removal.questions().into_iter().filter_map(|id| topology.nodes.get(id));
        let answers = questions.map(|node| async {
            let report = indirect::ask(&self.sentinel, &topology, node, failover::ANSWER_LIMIT).await;
            let contact = match (&report.answer, &report.status) {
                (Answer::Status(state), Some(status)) => Some(Contact {
                    usable: state.usable && state.incarnation == node.incarnation,
                    cut_off: status.cut_off,
                }),
                (Answer::Status(_) | Answer::Refused | Answer::Silent, _) => None,
            };
            contact.map(|contact| (node.id.clone(), contact))
        });
        removal.objection(&join_all(answers).await.into_iter().flatten().collect())
    }

    async fn request_failover_here(
        &self,
        request: &rpc::FailoverRequest,
    ) -> Result<rpc::ChangeReply, Status> {
        let reporter = node_id(&request.reporter)?;
        let trigger = match (request.takeover, request.force) {
            (true, _) => Trigger::Takeover { reporter },
            (false, true) => Trigger::Force { reporter },
            (false, false) => Trigger::Complaint { reporter },
        };
        let (shard, term) = (shard_id(&request.shard_id)?, Term::new(request.term));
        let topology = self.sentinel.current();
        let dead = if request.primary_dead { " (nobody listens there any more)" } else { "" };
        info!(
            %term,
            "{} is to have another primary: {}{dead}",
            topology.shard_name(&shard),
            trigger.reason(&topology)
        );
        let result = failover::fail_over(&self.sentinel, &shard, term, trigger).await?;
        Ok(self.reply(result, request.known.as_ref()))
    }

    async fn handoff_here(&self, request: &rpc::HandoffRequest) -> Result<rpc::ChangeReply, Status> {
        let handoff = Handoff {
            shard: shard_id(&request.shard_id)?,
            primary: node_id(&request.primary)?,
            term: Term::new(request.term),
            target: node_id(&request.target)?,
            last: request.last.unwrap_or_default().into(),
            in_sync_version: request.in_sync_version,
        };
        let result = failover::hand_off(&self.sentinel, handoff).await?;
        Ok(self.reply(result, request.known.as_ref()))
    }
}

/// A change that was committed but whose answer was lost is asked for again.
fn is_carried_out(shard: &Shard, change: &InSyncChange) -> bool {
    match change {
        InSyncChange::Remove(nodes) => nodes.is_disjoint(&shard.in_sync),
        InSyncChange::Add { node, .. } => shard.in_sync.contains(node) && !shard.restarted.contains(node),
    }
}

#[tonic::async_trait]
impl rpc::control_server::Control for ControlService {
    async fn register(
        &self,
        request: Request<rpc::RegisterRequest>,
    ) -> Result<Response<rpc::RegisterReply>, Status> {
        let (is_forwarded, peer) = (is_forwarded(&request), request.remote_addr());
        let mut message = request.into_inner();
        if message.host.is_empty() {
            let ip = peer.map(|peer: SocketAddr| peer.ip().to_canonical());
            message.host = ip.ok_or_else(|| Status::invalid_argument("the host is missing"))?.to_string();
        }
        on_leader!(self, REQUEST_LIMIT, is_forwarded, message, register, self.register_here(&message))
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
        let mut reports = request.into_inner();
        while let Some(report) = reports.next().await {
            let report = report?;
            let id = node_id(&report.node_id)?;
            let mut health = self.sentinel.health.lock();
            if let Some(node) = health.nodes.get_mut(&id) {
                if node.role != report.role {
                    node.role.clone_from(&report.role);
                    node.role_since = now();
                }
                node.status = Some(report);
            }
        }
        Ok(Response::new(rpc::ReportReply {}))
    }

    async fn change_in_sync(
        &self,
        request: Request<rpc::ChangeInSyncRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let is_forwarded = is_forwarded(&request);
        let message = request.into_inner();
        on_leader!(
            self,
            REQUEST_LIMIT,
            is_forwarded,
            message,
            change_in_sync,
            self.change_in_sync_here(&message)
        )
    }

    async fn request_failover(
        &self,
        request: Request<rpc::FailoverRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let is_forwarded = is_forwarded(&request);
        let message = request.into_inner();
        on_leader!(
            self,
            REQUEST_LIMIT,
            is_forwarded,
            message,
            request_failover,
            self.request_failover_here(&message)
        )
    }

    async fn handoff(
        &self,
        request: Request<rpc::HandoffRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let is_forwarded = is_forwarded(&request);
        let message = request.into_inner();
        on_leader!(self, REQUEST_LIMIT, is_forwarded, message, handoff, self.handoff_here(&message))
    }

    async fn admin(&self, request: Request<rpc::AdminRequest>) -> Result<Response<rpc::AdminReply>, Status> {
        let is_forwarded = is_forwarded(&request);
        let message = request.into_inner();
        if message.command == admin::IDENTITY {
            return Ok(Response::new(admin::identity(&self.sentinel)));
        }
        if message.command == admin::STATUS && !is_forwarded {
            return Ok(Response::new(admin::status_anywhere(&self.sentinel).await));
        }
        on_leader!(
            self,
            ADMIN_LIMIT,
            is_forwarded,
            message,
            admin,
            admin::execute(&self.sentinel, &message.command, &message.arguments)
        )
    }

    async fn ask_node(
        &self,
        request: Request<rpc::AskNodeRequest>,
    ) -> Result<Response<rpc::AskNodeReply>, Status> {
        let message = request.into_inner();
        let node = node_id(&message.node_id)?;
        Ok(Response::new(indirect::pass_on(&self.sentinel, &node, &message).await))
    }
}
