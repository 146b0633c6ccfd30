//! A simulated node: the real core, log, gate, keyspace, executor and engine, and around them what the shells of
//! `keyward-node` do with tasks, threads and sockets: carry out actions, apply entries, send the log, keep time.

mod core;
mod log;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keyward_node::clock::{self, VirtualClock};
use keyward_node::config::Config;
use keyward_node::engine::KeyspaceEngine;
use keyward_node::execute::{Executor, Moment};
use keyward_node::io::session::Session;
use keyward_node::replication::Engine;
use keyward_node::replication::applying::Applying;
use keyward_node::server::Server;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, Term};
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_proto::topology::{Detection, Topology};
use keyward_replication::core::Config as ReplicationConfig;
use keyward_replication::core::clock_watch::Clocks;
use keyward_replication::core::full_sync::SnapshotSender;
use keyward_replication::core::messages::SnapshotPart;
use keyward_replication::core::messages::{Event, LinkId, Request, RequestId, UplinkId};
use keyward_replication::core::node_core::NodeCore;
use keyward_replication::core::requests::{PendingRequest, RETRY, Rotation};
use keyward_replication::core::stream::LogStream;
use keyward_replication::gate::{Gate, GateState};
use keyward_replication::log::WriteLog;
use keyward_replication::recorder::Recorder;
use parking_lot::MutexGuard;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::clients::ConnectionId;
use super::clocks::Clock;
use super::connection::Connection;
use super::disk::{Disk, Persistence, Recovered, Writer};
use super::messages::Message;
use super::network::Endpoint;
use super::recordings;
use super::story::tell;
use super::world::{SimEvent, World};
use super::{Nanos, SENTINELS, ms, network};
use log::EXPIRE_PAUSE;

/// Milliseconds since the Unix epoch at the begin of every run.
const WALL_CLOCK_BEGIN: i64 = 1_700_000_000_000;
/// A registration without an answer is repeated.
const REGISTER_AGAIN: Nanos = RETRY.as_nanos() as Nanos;
#[derive(Debug)]
pub(super) enum Sender {
    /// With the parts of large slots that are still to be sent.
    Snapshot(Box<SnapshotSender>, Option<Vec<SnapshotPart>>),
    Log(LogStream),
}

/// A process that has registered.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) run: u64,
    clock: Arc<VirtualClock>,
    pub(super) core: NodeCore,
    pub(super) recorder: Option<Recorder>,
    /// With the log, the gate and the keyspace.
    pub(super) server: Arc<Server>,
    pub(super) executor: Executor,
    pub(super) engine: KeyspaceEngine,
    pub(super) applying: Applying,
    pub(super) incarnation: Incarnation,
    /// By the numbers of the operations.
    pub(super) connections: BTreeMap<u64, Connection>,
    /// Of connections on which nothing runs.
    pub(super) sessions: BTreeMap<ConnectionId, Session>,
    /// The generation and the ended terms of which connections have been told.
    pub(super) woken_in: u64,
    pub(super) told_of_terms: u64,
    pub(super) senders: BTreeMap<LinkId, Sender>,
    /// When each replica was last heard.
    heard: BTreeMap<LinkId, Monotonic>,
    pub(super) links: BTreeMap<LinkId, usize>,
    pub(super) uplinks: BTreeMap<UplinkId, usize>,
    pub(super) writer: Option<Writer>,
    /// How the gate was when it was last open: what a late command has seen.
    pub(super) open: Moment,
    /// When the command ends that has begun last before the gate was closed.
    pub(super) commands_until: Nanos,
    /// How it was when the node last was a replica: what a late read has seen.
    pub(super) followed: Moment,
    /// The earliest tick that is scheduled.
    wake_at: Nanos,
    steps: u64,
    /// Up to where the invariants have seen the log.
    pub(super) checked: Position,
    pub(super) checked_term: Term,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(recorder) = &self.recorder {
            recordings::keep(recorder.node(), recorder);
        }
    }
}

/// A process that has loaded its data and asks the sentinels for its incarnation.
pub(super) struct Starting {
    pub(super) run: u64,
    recovered: Recovered,
    /// The incarnation that it takes itself to follow.
    follows: Incarnation,
}

pub(super) enum Power {
    On(Box<Process>),
    Starting(Box<Starting>),
    Off { has_power: bool },
}

/// A request to the sentinels that is not settled.
pub(super) struct Asked {
    request: Request,
    pending: PendingRequest,
}

/// A host with its disk and its clock.
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) config: ReplicationConfig,
    /// What it says of itself when it registers.
    pub(super) detection: Detection,
    pub(super) power: Power,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    /// Milliseconds that its wall clock is ahead.
    pub(super) wall_clock_offset: i64,
    /// Microseconds by which it was set, for who compares it with the other clock: expiry is about something else.
    pub(super) wall_clock_set: i64,
    pub(super) paused_until: Nanos,
    /// Whom it asks first.
    pub(super) rotation: Rotation,
    pub(super) asked: BTreeMap<RequestId, Asked>,
    pub(super) heard_of_sentinel: Nanos,
    /// It has not lost anything that it held since it was last taken into the in-sync set.
    pub(super) intact: bool,
}

impl Starting {
    fn registration(&self, node: usize) -> Message {
        let log = &self.recovered.log;
        let (last, log_shard) = (log.last(), log.shard().cloned());
        Message::Register { node, run: self.run, last, log_shard, follows: self.follows }
    }
}

impl Machine {
    pub(super) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.power {
            Power::On(process) => Some(process),
            Power::Starting(_) | Power::Off { .. } => None,
        }
    }

    /// Shows its processes the time.
    pub(super) fn set_clock(&self, now: Nanos) {
        if let Some(process) = self.running() {
            process.clock.set(self.clock.read(now), self.wall_clock(now));
        }
    }

    fn wall_clock(&self, now: Nanos) -> UnixMillis {
        let millis = i64::try_from(now / ms(1)).expect("a short run");
        UnixMillis(WALL_CLOCK_BEGIN + self.wall_clock_offset + millis)
    }

    /// Both clocks at one moment.
    fn clocks(&self, now: Nanos) -> Clocks {
        let micros = i64::try_from(now / 1000).expect("a short run");
        let wall_micros = (WALL_CLOCK_BEGIN + self.wall_clock_offset) * 1000 + micros + self.wall_clock_set;
        Clocks { monotonic: self.clock.read(now), wall_micros }
    }

    /// The beacons of its streams as a primary.
    pub(super) fn beacon_interval(&self) -> Duration {
        self.config.beacon_interval()
    }

    pub(super) fn running(&self) -> Option<&Process> {
        match &self.power {
            Power::On(process) => Some(process),
            Power::Starting(_) | Power::Off { .. } => None,
        }
    }

    /// Whether it follows what this sentinel announces, as it does at a majority of them.
    pub(super) fn watches(&self, sentinel: usize) -> bool {
        (0..=SENTINELS / 2).any(|next| (self.rotation.current() + next) % SENTINELS == sentinel)
    }

    pub(super) fn has_power(&self) -> bool {
        !matches!(self.power, Power::Off { has_power: false })
    }

    /// The number of the process, registered or not.
    pub(super) fn run(&self) -> Option<u64> {
        match &self.power {
            Power::On(process) => Some(process.run),
            Power::Starting(starting) => Some(starting.run),
            Power::Off { .. } => None,
        }
    }
}

impl World {
    // ------------------------------------------------------------------ starting

    /// A process starts: it loads what the disk has, and registers.
    pub(super) fn start(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.run().is_some() {
            return;
        }
        let capacity = if self.rng.random_bool(0.3) { 4 << 10 } else { 1 << 20 };
        let recovered = machine.disk.recover(capacity).unwrap_or_else(|breach| {
            tell!("node {node} does not start: {breach}; its operator deletes what its disk has");
            machine.disk.empty();
            machine.disk.recover(capacity).expect("an empty disk")
        });
        self.next_run += 1;
        let run = self.next_run;
        tell!("node {node} starts as process {run} with the log up to {}", recovered.log.last());
        machine.power = Power::Starting(Box::new(Starting { run, recovered, follows: Incarnation::ZERO }));
        self.register(node, run);
    }

    pub(super) fn register(&mut self, node: usize, run: u64) {
        let machine = &self.machines[node];
        let Power::Starting(starting) = &machine.power else { return };
        if starting.run != run {
            return;
        }
        let (sentinel, message) = (machine.rotation.current(), starting.registration(node));
        self.send_message(node, network::sentinel(sentinel), message);
        // It is the next one's turn if there is no answer.
        self.machines[node].rotation.leave(sentinel);
        self.at(REGISTER_AGAIN, SimEvent::Register { node, run });
    }

    pub(super) fn register_again(&mut self, node: usize, sentinel: Endpoint, run: u64, known: Incarnation) {
        let Power::Starting(starting) = &mut self.machines[node].power else { return };
        if starting.run == run {
            starting.follows = known;
            let message = starting.registration(node);
            self.send_message(node, sentinel, message);
        }
    }

    pub(super) fn registered(
        &mut self,
        node: usize,
        run: u64,
        incarnation: Incarnation,
        topology: Arc<Topology>,
    ) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if !matches!(&machine.power, Power::Starting(s) if s.run == run) {
            return;
        }
        let Power::Starting(starting) = std::mem::replace(&mut machine.power, Power::Off { has_power: true })
        else {
            return;
        };
        let Recovered { mut log, base, entries, applied, file } = starting.recovered;
        let clock = machine.clock.read(now);
        let writer = (self.persistence != Persistence::Memory)
            .then(|| Writer::new(now, self.persistence, &mut log, applied, file));
        let core =
            NodeCore::new(machine.config.clone(), machine.id.clone(), incarnation, &log, applied, clock);
        let virtual_clock = Arc::new(VirtualClock::default());
        virtual_clock.set(clock, machine.wall_clock(now));
        let server = new_server(&virtual_clock, self.mode);
        *server.shared.log.lock() = log;
        let rng = || SmallRng::seed_from_u64(run);
        let engine = KeyspaceEngine::new(Arc::clone(&server), rng());
        base.load(&engine);
        for (index, payload) in &entries {
            engine.apply(*index, payload).expect("all effects are known");
        }
        server.note_loaded(applied);
        let mut executor = Executor::new(Arc::clone(&server), rng());
        tell!("node {node} is registered: incarnation {incarnation}");
        let process = Process {
            run,
            recorder: recordings::are_wanted().then(|| {
                let (me, log) = (machine.id.clone(), server.shared.log.lock());
                Recorder::new(clock, (me, incarnation), &machine.config, (log.last(), applied))
            }),
            core,
            open: executor.moment(),
            commands_until: 0,
            followed: executor.moment(),
            server,
            executor,
            engine,
            applying: Applying::new(applied),
            clock: virtual_clock,
            incarnation,
            connections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            woken_in: 0,
            told_of_terms: 0,
            senders: BTreeMap::new(),
            heard: BTreeMap::new(),
            links: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            writer,
            wake_at: Nanos::MAX,
            steps: 0,
            checked: Position { term: Term::ZERO, index: LogIndex::ZERO },
            checked_term: Term::ZERO,
        };
        machine.power = Power::On(Box::new(process));
        machine.heard_of_sentinel = now;
        if self.persistence != Persistence::Memory {
            self.at(ms(1), SimEvent::Write { node, run });
        }
        let pause = self.rng.random_range(0..EXPIRE_PAUSE);
        self.at(pause, SimEvent::Expire { node, run });
        self.step(node, run, Event::TopologyChanged(topology));
    }
}

impl Process {
    pub(super) fn log(&self) -> MutexGuard<'_, WriteLog> {
        self.server.shared.log.lock()
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.server.shared.gate
    }
}

/// How clients find the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are redirected.
    Cluster,
    /// By the sentinels, and the role that a node says it has when they connect.
    Sentinels,
}

/// What the threads of a node share, with the settings of a node of a cluster.
fn new_server(clock: &Arc<VirtualClock>, mode: Mode) -> Arc<Server> {
    fn config(cluster_enabled: &str) -> Config {
        let arguments =
            ["--sentinels", "sentinel:1", "--cluster-enabled", cluster_enabled].map(str::to_owned);
        Config::from_arguments(&arguments).expect("such directives exist")
    }
    thread_local! {
        static IN_CLUSTER: Config = config("yes");
        static WITH_SENTINELS: Config = config("no");
    }
    let config = match mode {
        Mode::Cluster => &IN_CLUSTER,
        Mode::Sentinels => &WITH_SENTINELS,
    };
    let clock = clock::Clock::Virtual(Arc::clone(clock));
    let (now, started_at) = (clock.unix_millis(), clock.monotonic());
    config
        .with(|config| Server::new(config.clone(), clock, now, started_at, "0".repeat(40)))
        .expect("the directives do not contradict each other")
}

/// For the invariants: what a node serves now. One that is halted serves nobody before it has read its clocks.
pub(super) fn serves(machine: &Machine, now: Nanos) -> bool {
    if machine.clock.is_halted() {
        return false;
    }
    let clock: Monotonic = machine.clock.read(now);
    machine.running().is_some_and(|p| p.gate().state() == GateState::Primary && p.gate().lease_valid(clock))
}
