//! Starting replication, and what the rest of the node asks of it.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use keyward_net::bus::Bus;
use keyward_net::flight::{Flights, Keeping, Subject};
use keyward_net::tls::TlsOptions;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{Holding, SlotRange, Topology};
use keyward_replication::core::messages::{Event, HandoffError, Outcome};
use keyward_replication::core::node_core::{RoleStatus, Status};
use keyward_replication::core::requests::Kind;
use keyward_replication::core::{Config, ConfigError};
use keyward_replication::recorder::Recorder;
use parking_lot::Mutex;
use rand::Rng;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::link::{self, Deliver};
use super::shared::{Engine, Shared};
use super::task::{Input, Parts, Recording, Shown, Task, send};
use super::wire::ControlRequest;
use crate::sentinels::{Announce, Sentinels};

/// Events that may wait for the task; a full queue stops the streams that fill it.
const INPUTS_LEN: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// What replication needs to know at its start.
#[derive(Debug)]
pub struct Options {
    /// Who this node is to the others.
    pub bus: Bus,
    pub config: Config,
    pub announce: Announce,
    /// `host:bus_port` of the sentinels.
    pub sentinels: Vec<String>,
    /// Up to where the keyspace contains the log that this node's disk remembers.
    pub applied: LogIndex,
    /// The first and the last slot with a key.
    pub held_slots: Option<SlotRange>,
    /// What the flight recorder writes.
    pub keeping: Keeping,
}

/// A failover that an operator demands of a replica (CLUSTER FAILOVER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The primary hands over; nothing is lost.
    Handoff,
    /// The sentinels replace the primary without asking it (FORCE).
    Force,
    /// Even if an acknowledged write may be lost (TAKEOVER).
    Takeover,
}

/// The handle: cheap to share, answers from what the task shows.
#[derive(Debug)]
pub struct Replication {
    me: NodeId,
    incarnation: Arc<OnceLock<Incarnation>>,
    inputs: mpsc::Sender<Input>,
    shown: Arc<Shown>,
    sentinels: Arc<Sentinels>,
    bus: Bus,
    flights: Arc<Flights>,
}

impl Replication {
    /// Serves the bus port, registers with the sentinels (for as long as that takes) and replicates from then on.
    /// Call it within the runtime that is to do it. `deliver` gets the messages that other nodes publish.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn start(
        options: Options,
        listener: TcpListener,
        shared: Arc<Shared>,
        engine: Arc<dyn Engine>,
        deliver: Deliver,
    ) -> Result<Arc<Replication>, ConfigError> {
        let Options { bus, config, announce, sentinels, applied, held_slots, keeping } = options;
        config.check()?;
        assert!(!shared.gate.is_standalone(), "a node with sentinels has a gate that they control");
        let sentinels = Sentinels::new(sentinels, bus.clone());
        let (inputs, receiver) = mpsc::channel(INPUTS_LEN);
        let initial = Status {
            role: RoleStatus::None,
            term: Term::ZERO,
            last: shared.log.lock().last(),
            commit: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            consistent: false,
            topology_version: 0,
        };
        let shown = Arc::new(Shown {
            topology: watch::Sender::new(Arc::new(Topology::default())),
            status: watch::Sender::new(Arc::new(initial)),
            held: Mutex::new(Vec::new()),
            acks: watch::Sender::new(0),
        });
        let recorder = Recording::default();
        let flights = Flights::new(
            &keeping,
            subject(&announce).made_of(Arc::clone(&recorder), |recorder: &Option<Recorder>, header| {
                Some(recorder.as_ref()?.recording(header))
            }),
        );
        tokio::spawn(Arc::clone(&flights).keep());
        let replication = Arc::new(Replication {
            me: announce.node_id.clone(),
            incarnation: Arc::new(OnceLock::new()),
            inputs: inputs.clone(),
            shown: Arc::clone(&shown),
            sentinels: Arc::clone(&sentinels),
            bus: bus.clone(),
            flights: Arc::clone(&flights),
        });
        let (served, events) = (bus.clone(), inputs.clone());
        tokio::spawn(async move {
            if let Err(error) = link::serve((&served, listener), events, deliver).await {
                tracing::error!(%error, "the bus port is not served any more");
            }
        });
        let registered = Arc::clone(&replication.incarnation);
        tokio::spawn(async move {
            let (last, shard) = held(&shared);
            let holding = Holding { shard, slots: held_slots };
            let nonce = rand::rng().random();
            let (incarnation, topology) = sentinels.register(&announce, last, &holding, nonce).await;
            registered.get_or_init(|| incarnation);
            let me = announce.node_id.clone();
            let parts = Parts {
                bus,
                config,
                me: me.clone(),
                incarnation,
                shared,
                engine,
                sentinels: Arc::clone(&sentinels),
                inputs: inputs.clone(),
                shown,
                applied,
                recorder,
                flights,
            };
            let task = match Task::new(parts) {
                Ok(task) => task,
                Err(error) => {
                    tracing::error!(%error, "can't start the thread that applies entries");
                    return;
                }
            };
            tokio::spawn(task.run(receiver));
            send(&inputs, Event::TopologyChanged(topology)).await;
            let (watching, reporting) = (Arc::clone(&sentinels), inputs.clone());
            tokio::spawn(async move { watching.watch(me, incarnation, inputs).await });
            sentinels.report(reporting).await;
        });
        Ok(replication)
    }

    /// New connections to other processes are made with what these options name, if they are encrypted.
    pub fn use_tls(&self, options: TlsOptions) {
        self.bus.use_tls(options);
    }

    /// What happened lately.
    pub fn flights(&self) -> &Arc<Flights> {
        &self.flights
    }

    /// `None` until the node has registered.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.get().copied()
    }

    /// The newest topology; version 0 until the first is known.
    pub fn topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.shown.topology.subscribe()
    }

    /// When a sentinel last confirmed the topology.
    pub fn sentinels_heard_at(&self) -> Option<Monotonic> {
        self.sentinels.heard_at()
    }

    /// As of the last tick (a tenth of a lease) or change of the topology.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.shown.status.borrow())
    }

    /// How many replicas hold everything up to `index`.
    pub fn acked_replicas(&self, index: LogIndex) -> usize {
        self.shown.held.lock().iter().filter(|held| index <= **held).count()
    }

    /// Changes whenever a replica has acknowledged something: for WAIT.
    pub fn acks(&self) -> watch::Receiver<u64> {
        self.shown.acks.subscribe()
    }

    /// Gives the role of the primary away, to `target` or whoever is fit best.
    ///
    /// # Errors
    /// Why this node is still what it was, or that another node became primary than was wanted.
    pub async fn handoff(&self, target: Option<NodeId>) -> Result<(), HandoffError> {
        let (answer, result) = oneshot::channel();
        let input = Input::Handoff { term: None, target, answer };
        self.inputs.send(input).await.map_err(|_| HandoffError::Stopped)?;
        result.await.unwrap_or(Err(HandoffError::Stopped))
    }

    /// CLUSTER FAILOVER on a replica.
    ///
    /// # Errors
    /// One line for the operator.
    pub async fn request_failover(&self, demand: Demand) -> Result<(), String> {
        let topology = Arc::clone(&self.shown.topology.borrow());
        let shard = topology.shard_of(&self.me).ok_or("this node belongs to no shard")?;
        if shard.primary.as_ref() == Some(&self.me) {
            return Err("You should send CLUSTER FAILOVER to a replica".into());
        }
        if demand == Demand::Handoff {
            let primary = shard.primary.as_ref().and_then(|id| topology.nodes.get(id));
            let primary = primary.ok_or("the shard has no primary")?;
            let request = rpc::StartHandoffRequest {
                shard_id: shard.id.to_string(),
                term: shard.term.get(),
                target: self.me.to_string(),
            };
            return ask_primary(&self.bus, &primary.host, primary.bus_port, request).await;
        }
        let request = rpc::FailoverRequest {
            shard_id: shard.id.to_string(),
            term: shard.term.get(),
            reporter: self.me.to_string(),
            primary_dead: false,
            force: true,
            takeover: demand == Demand::Takeover,
            ..Default::default()
        };
        let (outcome, changed) = self.sentinels.ask(Kind::Complaint, ControlRequest::Failover(request)).await;
        if let Some(changed) = changed {
            send(&self.inputs, Event::TopologyChanged(changed)).await;
        }
        match outcome {
            Outcome::Accepted => Ok(()),
            Outcome::Refused(reason) => Err(reason),
            Outcome::Unknown => Err("no sentinel answered".into()),
        }
    }
}

async fn ask_primary(
    bus: &Bus,
    host: &str,
    port: u16,
    request: rpc::StartHandoffRequest,
) -> Result<(), String> {
    let unreachable = |e: tonic::transport::Error| format!("can't reach the primary: {e}");
    let endpoint = link::endpoint(host, port, CONNECT_TIMEOUT).map_err(unreachable)?;
    let mut client = NodeControlClient::new(bus.connect(&endpoint).await.map_err(unreachable)?);
    let reply = client.start_handoff(request).await.map_err(|s| s.message().to_owned())?.into_inner();
    if reply.accepted { Ok(()) } else { Err(reply.reason) }
}

/// Whose recordings this node makes.
fn subject(announce: &Announce) -> Subject {
    Subject {
        program: "node",
        version: env!("CARGO_PKG_VERSION"),
        id: announce.node_id.to_string(),
        name: host_port(&announce.host, announce.port),
    }
}

/// How far its log is, and whose it is.
fn held(shared: &Shared) -> (Position, Option<ShardId>) {
    let log = shared.log.lock();
    (log.last(), log.shard().cloned())
}
