//! A node's connection to the sentinels: registration, the topology as it changes, and requests for changes.
//!
//! Any one address suffices; names are resolved at each connection. While no sentinel answers, the node goes on with
//! what it knows: only changes have to wait.
//!
//! **Requests.** Which sentinel is asked, and when the next one, is decided by [`requests`].
//!
//! **The topology** is followed at a majority of the sentinels: one of them is always with those that decide, so a new
//! primary does not learn late of its role because a sentinel was cut off.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, abortable, join_all};
use futures::stream::FuturesUnordered;
use keyward_net::bus::Bus;
use keyward_net::reach::Reach;
use keyward_proto::format::{self, FORMAT};
use keyward_proto::ids::{Incarnation, NodeId, Position};
use keyward_proto::rpc;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::delta::{Delta, Key};
use keyward_proto::topology::{Detection, FastFailover, Holding, Topology};
use keyward_replication::core::messages::{Event, Outcome};
use keyward_replication::core::requests::{self, Action, Basis, Kind, PendingRequest, Rotation};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::clock;
use crate::replication::task::{Input, send};
use crate::replication::wire::ControlRequest;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Without news for so long another sentinel is watched: this one may be gone.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(5);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What a sentinel is called in the log.
const WHO: &str = "the sentinel";
const TOPOLOGY_BYTES_MAX: usize = 64 << 20;

/// How this node presents itself.
#[derive(Debug, Clone)]
pub struct Announce {
    pub node_id: NodeId,
    /// Empty: the address that the sentinel sees.
    pub host: String,
    pub port: u16,
    pub bus_port: u16,
    /// Zero: none.
    pub tls_port: u16,
    pub hostname: String,
    pub zone: String,
    pub replica_priority: u32,
    pub cluster_enabled: bool,
    pub version: String,
    pub databases: u16,
    pub detection: Detection,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Sentinels {
    /// `host:bus_port`
    addresses: Vec<String>,
    bus: Bus,
    /// Who is asked. Held for a line at a time.
    rotation: Mutex<Rotation>,
    /// Open connections. Held only to look one up.
    channels: Mutex<BTreeMap<usize, Channel>>,
    /// The newest topology: what sentinels tell is relative to it.
    latest: Mutex<Option<Arc<Topology>>>,
    /// Whose topology is followed.
    watched: Mutex<BTreeSet<usize>>,
    reach: Arc<Reach>,
    /// When one of those last told anything, in nanoseconds as of [`Monotonic`]; zero: never.
    heard_at: AtomicU64,
}

impl Sentinels {
    /// Addresses as `host:bus_port`.
    pub fn new(addresses: Vec<String>, bus: Bus) -> Arc<Sentinels> {
        assert!(!addresses.is_empty(), "a node without sentinels runs alone");
        Arc::new(Sentinels {
            rotation: Mutex::new(Rotation::new(addresses.len())),
            addresses,
            reach: Arc::new(Reach::new(bus.clone())),
            bus,
            channels: Mutex::default(),
            latest: Mutex::default(),
            watched: Mutex::default(),
            heard_at: AtomicU64::new(0),
        })
    }

    /// When the topology was last confirmed, by an update or by word that there is none.
    pub(crate) fn heard_at(&self) -> Option<Monotonic> {
        let nanos = self.heard_at.load(Ordering::Relaxed);
        (nanos != 0).then(|| Monotonic::from_nanos(nanos))
    }

    fn current(&self) -> usize {
        self.rotation.lock().current()
    }

    /// Sentinel `at` has not done what was asked; `status` is what it said of that, if anything. The next one is asked
    /// from now on.
    fn failed(&self, at: usize, status: Option<tonic::Status>) {
        self.reach.failed(WHO, &self.addresses[at], status);
        self.leave(at);
    }

    fn answered(&self, at: usize) {
        self.reach.answered(WHO, &self.addresses[at]);
    }

    fn leave(&self, at: usize) {
        self.channels.lock().remove(&at);
        self.rotation.lock().leave(at);
    }

    async fn client(&self, at: usize) -> Result<ControlClient<Channel>, tonic::Status> {
        let known = self.channels.lock().get(&at).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = self.connect(at).await.map_err(not_connected)?;
                self.channels.lock().insert(at, channel.clone());
                channel
            }
        };
        Ok(ControlClient::new(channel)
            .max_decoding_message_size(TOPOLOGY_BYTES_MAX)
            .max_encoding_message_size(TOPOLOGY_BYTES_MAX))
    }

    async fn connect(&self, at: usize) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addresses[at]))?;
        self.bus.connect(&endpoint.connect_timeout(CONNECT_TIMEOUT)).await
    }

    fn latest(&self) -> Option<Arc<Topology>> {
        self.latest.lock().clone()
    }

    /// What the node knows after an update that is relative to `base`; `None` if it cannot be understood, or does not
    /// fit.
    fn receive(&self, base: Option<&Arc<Topology>>, update: &rpc::TopologyUpdate) -> Option<Arc<Topology>> {
        let topology = if !update.topology.is_empty() {
            parse(&update.topology).map(Arc::new)
        } else if update.delta.is_empty() {
            return base.cloned();
        } else {
            let delta: Delta = parse(&update.delta)?;
            delta.apply(base?).map(Arc::new)
        }?;
        let mut latest = self.latest.lock();
        if latest.as_ref().is_none_or(|known| known.version <= topology.version) {
            *latest = Some(Arc::clone(&topology));
        }
        Some(topology)
    }

    /// The topology that came with the answer is at least as new as the outcome.
    pub(crate) async fn ask(&self, kind: Kind, request: ControlRequest) -> (Outcome, Option<Arc<Topology>>) {
        let base = self.latest();
        let request = request.with_known(base.as_deref().and_then(key));
        let (mut attempts, mut handles) = (FuturesUnordered::new(), BTreeMap::new());
        let (mut actions, mut update, mut answered_by) = (Vec::new(), None, None);
        let limit = requests::ANSWER_LIMIT;
        let rotation = self.rotation.lock().clone();
        let mut pending = PendingRequest::begin(clock::monotonic(), kind, &rotation, limit, &mut actions);
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Ask(at) => {
                        let (attempt, handle) = abortable(self.attempt(at, request.clone()));
                        attempts.push(attempt);
                        handles.insert(at, handle);
                    }
                    Action::GiveUp(at) => {
                        handles.remove(&at).inspect(AbortHandle::abort);
                        self.failed(at, None);
                    }
                    Action::Settle(Outcome::Unknown) => return (Outcome::Unknown, None),
                    Action::Settle(outcome) => {
                        answered_by.inspect(|at| self.rotation.lock().prefer(*at));
                        return (outcome, update);
                    }
                }
            }
            let wait = pending.next_deadline().map_or(limit, |at| at.since(clock::monotonic()));
            let event = tokio::select! {
                biased;
                Some(attempt) = attempts.next() => {
                    // One that was given up ends without a word.
                    let Ok((at, outcome, news)) = attempt else { continue };
                    update = news.and_then(|news| self.receive(base.as_ref(), &news));
                    answered_by = Some(at);
                    requests::Event::Answered(at, self.weigh(at, outcome, update.as_deref()))
                }
                () = tokio::time::sleep(wait) => requests::Event::Tick,
            };
            pending.step(clock::monotonic(), event, &mut actions);
        }
    }

    /// What an answer is worth that came with a topology.
    fn weigh(&self, at: usize, answered: Outcome, topology: Option<&Topology>) -> Outcome {
        let known = self.latest().map(|known| known.version);
        let outcome = Basis::of(topology.map(|t| t.version), known).weigh(answered.clone());
        if outcome == Outcome::Unknown && answered != outcome {
            tracing::info!(
                "the sentinel at {} has an older topology: its refusal does not count",
                self.addresses[at]
            );
            self.leave(at);
        }
        outcome
    }

    /// Asks one sentinel: what it answers, and what it tells of the topology.
    async fn attempt(
        &self,
        at: usize,
        request: ControlRequest,
    ) -> (usize, Outcome, Option<rpc::TopologyUpdate>) {
        match self.ask_one(at, request).await {
            Ok(reply) => {
                self.answered(at);
                let refused = || Outcome::Refused(reply.reason);
                (at, if reply.accepted { Outcome::Accepted } else { refused() }, reply.update)
            }
            Err(status) => {
                self.failed(at, Some(status));
                (at, Outcome::Unknown, None)
            }
        }
    }

    async fn ask_one(&self, at: usize, request: ControlRequest) -> Result<rpc::ChangeReply, tonic::Status> {
        let mut client = self.client(at).await?;
        let reply = match request {
            ControlRequest::ChangeInSync(request) => change_in_sync(&mut client, request).await,
            ControlRequest::Failover(request) => client.request_failover(request).await,
            ControlRequest::Handoff(request) => client.handoff(request).await,
        };
        Ok(reply?.into_inner())
    }

    /// Says that this process will register with data; tries until somebody has heard it.
    pub(crate) async fn announce_loading(&self, announce: &Announce) {
        let request = rpc::LoadingRequest {
            node_id: announce.node_id.to_string(),
            host: announce.host.clone(),
            port: u32::from(announce.port),
        };
        loop {
            let at = self.current();
            let attempt = async { self.client(at).await?.announce_loading(request.clone()).await };
            match tokio::time::timeout(requests::ANSWER_LIMIT, attempt).await {
                Ok(Ok(_)) => return self.answered(at),
                // It does not know that yet.
                Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => return,
                Ok(Err(status)) => self.reach.failed(WHO, &self.addresses[at], Some(status)),
                Err(_) => self.reach.failed(WHO, &self.addresses[at], None),
            }
            self.leave(at);
            tokio::time::sleep(requests::RETRY).await;
        }
    }

    /// Registers this process; tries for ever.
    pub(crate) async fn register(
        &self,
        announce: &Announce,
        last: Position,
        holding: &Holding,
        start_nonce: u64,
    ) -> (Incarnation, Arc<Topology>) {
        let mut request = rpc::RegisterRequest {
            node_id: announce.node_id.to_string(),
            host: announce.host.clone(),
            port: u32::from(announce.port),
            bus_port: u32::from(announce.bus_port),
            tls_port: u32::from(announce.tls_port),
            hostname: announce.hostname.clone(),
            zone: announce.zone.clone(),
            replica_priority: announce.replica_priority,
            last: Some(last.into()),
            cluster_enabled: announce.cluster_enabled,
            version: announce.version.clone(),
            start_nonce,
            known_incarnation: 0,
            databases: u32::from(announce.databases),
            lease_millis: announce.detection.lease_millis,
            fast_failover: word_of(announce.detection.fast_failover).into(),
            holding: Some(rpc::Holding {
                shard_id: holding.shard.as_ref().map(ToString::to_string).unwrap_or_default(),
                slots: holding.slots.map(|range| rpc::SlotSpan {
                    first: u32::from(range.first.number()),
                    last: u32::from(range.last.number()),
                }),
            }),
            format: FORMAT,
        };
        loop {
            let at = self.current();
            let attempt = async { self.client(at).await?.register(request.clone()).await };
            match tokio::time::timeout(requests::ANSWER_LIMIT, attempt).await {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    if let Err(foreign) = format::agree(reply.format) {
                        let words = tonic::Status::failed_precondition(foreign.to_string());
                        self.reach.failed(WHO, &self.addresses[at], Some(words));
                        tokio::time::sleep(requests::RETRY).await;
                        continue;
                    }
                    if reply.incarnation == 0 && reply.known_incarnation != request.known_incarnation {
                        // That is how it is known to this start which one it follows.
                        request.known_incarnation = reply.known_incarnation;
                        continue;
                    }
                    let update = rpc::TopologyUpdate { topology: reply.topology, ..Default::default() };
                    self.answered(at);
                    if let Some(topology) = self.receive(None, &update) {
                        tracing::info!(
                            incarnation = reply.incarnation,
                            version = topology.version,
                            "this node has joined, by the sentinel at {}",
                            self.addresses[at]
                        );
                        return (Incarnation::new(reply.incarnation), topology);
                    }
                }
                Ok(Err(status)) => self.reach.failed(WHO, &self.addresses[at], Some(status)),
                Err(_) => self.reach.failed(WHO, &self.addresses[at], None),
            }
            self.leave(at);
            tokio::time::sleep(requests::RETRY).await;
        }
    }

    /// Feeds every topology that the sentinels announce to the replication task, for ever.
    pub(crate) async fn watch(&self, me: NodeId, incarnation: Incarnation, inputs: mpsc::Sender<Input>) {
        let majority = self.addresses.len() / 2 + 1;
        join_all((0..majority).map(|_| self.keep_watching(&me, incarnation, &inputs))).await;
    }

    /// Follows one sentinel after another.
    async fn keep_watching(&self, me: &NodeId, incarnation: Incarnation, inputs: &mpsc::Sender<Input>) {
        let mut next = self.current();
        while !inputs.is_closed() {
            let at = self.begin_watch(next);
            if let Err(status) = self.watch_one(at, me, incarnation, inputs).await {
                self.reach.failed(WHO, &self.addresses[at], status);
            }
            self.watched.lock().remove(&at);
            self.leave(at);
            next = at + 1;
            tokio::time::sleep(requests::RETRY).await;
        }
    }

    /// The first sentinel from `from` on that is not followed yet: there are more of them than followers.
    fn begin_watch(&self, from: usize) -> usize {
        let count = self.addresses.len();
        let mut watched = self.watched.lock();
        let mut candidates = (0..count).map(|step| (from + step) % count);
        let at = candidates.find(|at| watched.insert(*at));
        at.expect("fewer than all are followed")
    }

    /// Its error is what the sentinel said; `None`: nothing for too long.
    async fn watch_one(
        &self,
        at: usize,
        me: &NodeId,
        incarnation: Incarnation,
        inputs: &mpsc::Sender<Input>,
    ) -> Result<(), Option<tonic::Status>> {
        let mut base = self.latest();
        let known = base.as_deref().and_then(key);
        let request = rpc::WatchRequest { node_id: me.to_string(), incarnation: incarnation.get(), known };
        let open = async { self.client(at).await?.watch_topology(request).await };
        let opened = tokio::time::timeout(requests::ANSWER_LIMIT, open).await.map_err(|_| None)?;
        let mut updates = opened.map_err(Some)?.into_inner();
        loop {
            let update =
                tokio::time::timeout(WATCH_SILENCE_MAX, updates.message()).await.map_err(|_| None)?;
            let Some(update) = update.map_err(Some)? else { return Ok(()) };
            self.answered(at);
            self.heard_at.store(clock::monotonic().as_nanos(), Ordering::Relaxed);
            base = self.receive(base.as_ref(), &update);
            let Some(topology) = &base else {
                // The next stream begins with the whole topology.
                *self.latest.lock() = None;
                return Err(Some(tonic::Status::data_loss("it sent an update that does not fit")));
            };
            send(inputs, Event::TopologyChanged(Arc::clone(topology))).await;
        }
    }

    /// Reports this node's state about every second, for what the sentinels show to others.
    pub(crate) async fn report(&self, inputs: mpsc::Sender<Input>) {
        while !inputs.is_closed() {
            let (statuses, receiver) = mpsc::channel(1);
            let at = self.current();
            let call = async {
                let mut client = self.client(at).await?;
                client.report_status(ReceiverStream::new(receiver)).await
            };
            tokio::select! {
                result = call => if let Err(status) = result {
                    tracing::debug!(sentinel = self.addresses[at], %status, "status reports end");
                },
                () = feed(statuses, &inputs) => {}
            }
            tokio::time::sleep(REPORT_INTERVAL).await;
        }
    }
}

/// A status that says by its source that it is not the sentinel's word.
fn not_connected(error: tonic::transport::Error) -> tonic::Status {
    let mut status = tonic::Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status
}

/// Sends a challenge back at once: nothing was done before that.
async fn change_in_sync(
    client: &mut ControlClient<Channel>,
    request: rpc::ChangeInSyncRequest,
) -> Result<tonic::Response<rpc::ChangeReply>, tonic::Status> {
    let reply = client.change_in_sync(request.clone()).await?;
    match reply.get_ref().challenge {
        0 => Ok(reply),
        challenge => client.change_in_sync(rpc::ChangeInSyncRequest { challenge, ..request }).await,
    }
}

async fn feed(statuses: mpsc::Sender<rpc::NodeStatus>, inputs: &mpsc::Sender<Input>) {
    loop {
        let (answer, status) = oneshot::channel();
        if inputs.send(Input::NodeStatus(answer)).await.is_err() {
            return;
        }
        let Ok(status) = status.await else { return };
        if statuses.send(status).await.is_err() {
            return;
        }
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}

fn word_of(fast_failover: FastFailover) -> rpc::FastFailover {
    match fast_failover {
        FastFailover::No => rpc::FastFailover::No,
        FastFailover::Yes => rpc::FastFailover::Yes,
        FastFailover::Trusted => rpc::FastFailover::Trusted,
    }
}

fn key(topology: &Topology) -> Option<rpc::TopologyKey> {
    let Key { version, shard, history } = topology.key()?;
    Some(rpc::TopologyKey { version, shard_id: shard.to_string(), history })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "a sentinel sent a topology that this program does not understand");
            None
        }
    }
}
