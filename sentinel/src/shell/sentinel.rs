//! One running sentinel: what its services and tasks share, and how a request reaches the Raft leader.
#![allow(clippy::disallowed_methods, reason = "shell: waits with deadlines")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyward_net::bus::Bus;
use keyward_net::clock::unix_millis;
use keyward_net::reach::Reach;
use keyward_proto::ids::ShardId;
use keyward_proto::rpc;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::topology::delta::Key;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{SentinelAddress, Topology};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use crate::config::Config;
use crate::rules::coordinator::PROPOSAL_LIMIT;
use crate::rules::events::Event;
use crate::rules::founding::{self, Holds, Members};
use crate::rules::health::Health;
use crate::rules::leadership::{Hop, Place, is_current, place};
use crate::rules::publication::Publications;
use crate::rules::timeline::{Novelty, Timeline};
use crate::rules::topology::TopologyCommand;
use crate::shell::channel::endpoint;
use crate::shell::connections::Connections;
use crate::shell::control::failover;
use crate::shell::flight::Flight;
use crate::shell::proposals::{self, Proposal};
use crate::shell::raft::service::RaftCell;
use crate::shell::raft::{self, Metrics, Raft, RaftId};

/// How long a request waits for a leader and its answer.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_millis(2000);
/// A majority that is well confirms within a few milliseconds that somebody leads.
const CONFIRM_LIMIT: Duration = Duration::from_millis(500);
/// Between two attempts while there is no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// Milliseconds since the Unix epoch, for what people read.
pub(crate) fn wall_millis() -> u64 {
    u64::try_from(unix_millis().0).unwrap_or_default()
}

/// Shared by everything in the process.
#[derive(Debug)]
pub struct Sentinel {
    pub config: Config,
    /// Drawn when the directory was made.
    pub id: OnceLock<RaftId>,
    pub raft: RaftCell,
    /// What happened lately.
    pub flight: Arc<Flight>,
    /// As applied here; a follower may be behind.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// Held for a few lines at a time.
    pub health: Mutex<Health>,
    pub events: broadcast::Sender<Event>,
    /// Commands for Raft.
    pub proposals: mpsc::Sender<Proposal>,
    /// Requests for other primaries, and whether one is being changed.
    pub primary_changes: mpsc::Sender<failover::Asked>,
    pub changes_primary: AtomicBool,
    /// Placement proposes one step after another.
    pub placement: tokio::sync::Mutex<()>,
    /// Newcomers are taken in one after another.
    pub joining: tokio::sync::Mutex<()>,
    /// What was last told of what an operator has to decide. Held for a few lines at a time.
    pub undecided: Mutex<Vec<String>>,
    /// The latest changes of primaries, and that there is something new among them. Held for a few lines at a time.
    pub(crate) timeline: Mutex<Timeline>,
    pub(crate) remembered: watch::Sender<()>,
    /// The watchdog has news.
    pub probed: Notify,
    /// How it reaches the other processes.
    pub bus: Bus,
    /// To the nodes.
    pub connections: Connections,
    /// What was said of sentinels that do not answer.
    pub reach: Arc<Reach>,
    channels: Mutex<BTreeMap<String, Channel>>,
    publications: Mutex<Publications>,
}

impl Sentinel {
    pub fn new(
        config: Config,
        bus: Bus,
        flight: Arc<Flight>,
        topology: watch::Receiver<Arc<Topology>>,
        proposals: mpsc::Sender<Proposal>,
        primary_changes: mpsc::Sender<failover::Asked>,
    ) -> Self {
        Sentinel {
            config,
            id: OnceLock::new(),
            raft: RaftCell::default(),
            flight,
            topology,
            health: Mutex::default(),
            events: broadcast::Sender::new(1024),
            proposals,
            primary_changes,
            changes_primary: AtomicBool::new(false),
            placement: tokio::sync::Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            undecided: Mutex::default(),
            timeline: Mutex::default(),
            remembered: watch::Sender::new(()),
            probed: Notify::new(),
            connections: Connections::new(bus.clone()),
            reach: Arc::new(Reach::new(bus.clone())),
            bus,
            channels: Mutex::default(),
            publications: Mutex::default(),
        }
    }

    /// Something happens to what is remembered of changes.
    pub(crate) fn remember(&self, happen: impl FnOnce(&mut Timeline) -> Novelty) {
        let mut timeline = self.timeline.lock();
        if happen(&mut timeline) == Novelty::Something {
            self.remembered.send_replace(());
        }
    }

    /// Zero before the sentinel takes part.
    pub fn id(&self) -> RaftId {
        self.id.get().copied().unwrap_or_default()
    }

    pub fn raft(&self) -> Result<&Raft, Status> {
        self.raft.get().ok_or_else(|| Status::unavailable("this sentinel is still starting"))
    }

    pub fn current(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    /// For a node that knows `known`, with the key of what it will know then.
    pub(crate) fn update_for(&self, known: Option<&Key>) -> (rpc::TopologyUpdate, Option<Key>) {
        let topology = self.current();
        (self.publications.lock().update(known, &topology), topology.key())
    }

    /// How clients and the other sentinels reach this one.
    pub(crate) fn own_address(&self) -> SentinelAddress {
        SentinelAddress {
            name: self.config.options.name.clone(),
            host: self.config.announce_host.clone(),
            port: self.config.main_port(),
            bus_port: self.config.bus_port,
            tls_port: self.config.options.tls_port,
        }
    }

    pub(crate) fn metrics(&self) -> Option<Metrics> {
        self.raft.get().map(|raft| raft.metrics().borrow().clone())
    }

    pub fn leader(&self) -> Option<RaftId> {
        self.raft.get().and_then(|raft| raft.metrics().borrow().current_leader)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leader().is_some_and(|leader| leader == self.id())
    }

    /// What this sentinel has of its group.
    ///
    /// # Errors
    /// `Unavailable` while it is not known yet.
    pub(crate) async fn group(&self) -> Result<(Holds, Members), Status> {
        let state = self.raft()?.with_raft_state(|state| {
            let effective = state.membership_state.effective();
            let holds = if effective.log_id().is_some() { Holds::Group } else { Holds::Nothing };
            (holds, raft::members(effective.membership()))
        });
        state.await.map_err(|e| Status::unavailable(e.to_string()))
    }

    fn member(&self, id: RaftId) -> Option<String> {
        let metrics = self.metrics()?;
        metrics.membership_config.membership().get_node(&id).map(|node| node.addr.clone())
    }

    /// The bus address of a sentinel: what it announced, else what the operator listed.
    pub fn address_of(&self, id: RaftId) -> Option<String> {
        let announced = self.topology.borrow().sentinels.get(&id).map(|s| host_port(&s.host, s.bus_port));
        let of_member = || self.member(id).map(|member| founding::address(&member, &self.config.founders));
        announced.or_else(of_member).or_else(|| self.config.initial_addresses().remove(&id))
    }

    /// What an operator calls a sentinel.
    pub fn name_of(&self, id: RaftId) -> String {
        let announced = self.topology.borrow().sentinels.get(&id).map(|s| s.name.clone());
        let of_member = || founding::name_and_address(&self.member(id)?).0.map(str::to_owned);
        let listed = || self.config.founders.iter().find(|f| f.id == id).map(|f| f.name.clone());
        announced.or_else(of_member).or_else(listed).unwrap_or_else(|| id.to_string())
    }

    /// A client of another sentinel; connections are kept.
    pub fn control_client(&self, address: &str) -> Option<ControlClient<Channel>> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.bus.connect_lazy(&endpoint(address)?);
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        let limit = crate::shell::raft::network::MESSAGE_BYTES_MAX;
        Some(ControlClient::new(channel).max_decoding_message_size(limit))
    }

    fn client_at(&self, place: Place) -> Option<ControlClient<Channel>> {
        let Place::At(id) = place else { return None };
        self.control_client(&self.address_of(id)?)
    }

    /// Whether what was found out about a shard `before` still holds, in the name of the group.
    ///
    /// # Errors
    /// `Unavailable` when this sentinel does not lead any more, or the shard has changed.
    pub(crate) async fn confirm(&self, before: &Topology, shard: &ShardId) -> Result<(), Status> {
        let lost = || Status::unavailable("no majority of the sentinels confirms that this one leads");
        let confirmed = timeout(CONFIRM_LIMIT, self.raft()?.ensure_linearizable()).await;
        confirmed.map_err(|_| lost())?.map_err(|_| lost())?;
        let stands = is_current(before, &self.current(), shard);
        stands.then_some(()).ok_or_else(|| Status::unavailable("the shard has changed meanwhile"))
    }

    /// Commits a command, if this is the leader.
    ///
    /// # Errors
    /// `Unavailable` when it is not, or when there is no quorum; the outcome is unknown then.
    pub async fn propose(&self, command: TopologyCommand) -> proposals::Answer {
        let (proposal, answer) = Proposal::new(command);
        let stopping = || Status::unavailable("this sentinel is stopping");
        let committed = async {
            self.proposals.send(proposal).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        };
        let late = |_| Status::unavailable("no majority of the sentinels answers");
        timeout(PROPOSAL_LIMIT, committed).await.map_err(late)?
    }

    /// Runs a request where it must run: here if this is the leader, else at the leader.
    ///
    /// `Unavailable` from either means "not the leader (any more)": it is tried again until `limit`.
    ///
    /// # Errors
    /// The request's own error, or `Unavailable` when no leader was found in time.
    pub(crate) async fn on_leader<T, Here, HereFuture, There, ThereFuture>(
        &self,
        limit: Duration,
        hop: Hop,
        here: Here,
        there: There,
    ) -> Result<T, Status>
    where
        Here: Fn() -> HereFuture,
        HereFuture: Future<Output = Result<T, Status>>,
        There: Fn(ControlClient<Channel>) -> ThereFuture,
        ThereFuture: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + limit;
        let mut last = Status::unavailable("the sentinels have no leader: is a majority of them running?");
        while Instant::now() < deadline {
            let place = place(self.id(), self.leader(), hop);
            let attempt = match (place, self.client_at(place)) {
                (Place::Here, _) => timeout_at(deadline, here()).await,
                (Place::NotHere, _) => return Err(Status::unavailable("this sentinel is not the leader")),
                (Place::At(_), Some(client)) => timeout_at(deadline, there(client)).await,
                (Place::At(_) | Place::Nowhere, _) => {
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            match attempt {
                Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                    last = status;
                    sleep(RETRY_PAUSE).await;
                }
                Ok(result) => return result,
                Err(_) => break,
            }
        }
        Err(Status::unavailable(last.message().to_owned()))
    }
}
