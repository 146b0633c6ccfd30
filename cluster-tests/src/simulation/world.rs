//! The simulated world: what is in it, and the queue of what happens next.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::{NodeId, Term};
use keyward_proto::topology::{Detection, FastFailover, Topology};
use keyward_replication::core::Config;
use keyward_replication::core::messages::{Event, Hello, RequestId, UplinkId};
use keyward_replication::core::requests::{self, Rotation};
use keyward_replication::core::stream::APPEND_BYTES;
use keyward_sentinel::rules::topology::{Outcome as Committed, Refusal};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::{Client, Record};
use super::clocks::Clock;
use super::disk::{Disk, Persistence};
use super::history;
use super::invariants::{Invariants, is_settled};
use super::messages::Message;
use super::network::{Endpoint, Network, Towards};
use super::node::{Machine, Mode, Power};
use super::register::Register;
use super::sentinel::{Confirmation, Proposal, Purpose, Sentinel};
use super::standing::Standing;
use super::story::{self, tell};
use super::{CLIENTS, CLIENTS_END, END, NODES, Nanos, Outcome as Summary, SENTINELS, SETTLED, ms};

#[derive(Debug)]
pub(super) enum SimEvent {
    NodeEvent {
        node: usize,
        run: u64,
        event: Event,
    },
    Apply {
        node: usize,
        run: u64,
    },
    /// Keys whose time has passed are looked for.
    Expire {
        node: usize,
        run: u64,
    },
    Write {
        node: usize,
        run: u64,
    },
    Start {
        node: usize,
    },
    Register {
        node: usize,
        run: u64,
    },
    /// Time alone changes something for a request.
    RequestTick {
        node: usize,
        run: u64,
        id: RequestId,
    },
    Connect {
        node: usize,
        run: u64,
        uplink: UplinkId,
        to: usize,
        hello: Box<Hello>,
    },
    Pump {
        stream: usize,
        towards: Towards,
    },
    Deliver {
        from: Endpoint,
        to: Endpoint,
        message: Box<Message>,
    },
    /// A command takes effect.
    Commit(Box<Proposal>),
    Committed {
        sentinel: usize,
        run: u64,
        purpose: Purpose,
        result: Result<Committed, Refusal>,
    },
    /// The others say that a sentinel leads, or not.
    Confirmed(Box<Confirmation>),
    /// A sentinel learns what was committed.
    Applied {
        sentinel: usize,
        topology: Arc<Topology>,
    },
    Watchdog {
        sentinel: usize,
    },
    SentinelStarts {
        sentinel: usize,
    },
    SentinelCrashes {
        sentinel: usize,
    },
    /// Time alone changes something for a sentinel.
    SentinelTick {
        sentinel: usize,
        run: u64,
    },
    Kill {
        node: usize,
    },
    Deafen {
        node: usize,
    },
    /// This node is to be the primary again.
    HandBack {
        node: usize,
    },
    /// A machine that was halted goes on.
    GoOn {
        node: usize,
    },
    /// It stands still for a moment, and again before `until`.
    Stutter {
        node: usize,
        until: Nanos,
    },
    /// The primary of this term has hung for long enough.
    HungForLong {
        term: Term,
    },
    Client {
        client: usize,
    },
    /// A request that could not be executed is tried again.
    Retry {
        node: usize,
        run: u64,
        number: u64,
    },
    /// A write that was admitted before the gate closed.
    LateWrite {
        node: usize,
        run: u64,
    },
    /// A read that was admitted before the node's role changed.
    LateRead {
        node: usize,
        run: u64,
    },
    /// Somebody reads at a node that was the primary.
    CuriousRead {
        node: usize,
        run: u64,
    },
    /// A client has waited long enough for a key.
    WaitTimeout {
        node: usize,
        run: u64,
        number: u64,
    },
    ClientTimeout {
        client: usize,
        number: u64,
    },
    Fault,
    /// An operator looks after a shard that the sentinels have forgotten.
    Operator,
}

/// Something in the queue; what was queued first comes first at the same time.
#[derive(Debug)]
struct Scheduled {
    at: Nanos,
    sequence: u64,
    happening: SimEvent,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) reads_anywhere: u64,
    /// Terms that began after the first one.
    pub(super) later_terms: u64,
    pub(super) full_syncs: u64,
    pub(super) resumed: u64,
    pub(super) last_reply_at: Nanos,
    steps: u64,
}

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) now: Nanos,
    sequence: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pub(super) persistence: Persistence,
    pub(super) mode: Mode,
    /// Between two faults at most.
    pub(super) fault_pause: Nanos,
    pub(super) no_fault_before: Nanos,
    /// What streams between nodes take longer than other messages, at most: the nodes are far apart.
    pub(super) distance: Nanos,
    /// Of entries in one message between nodes, at most.
    pub(super) append_bytes: usize,
    /// How long a node waits for a sentinel.
    pub(super) request_limit: Duration,
    pub(super) machines: Vec<Machine>,
    pub(super) network: Network,
    pub(super) register: Register,
    /// No command takes effect before.
    pub(super) register_frozen_until: Nanos,
    pub(super) sentinels: Vec<Sentinel>,
    pub(super) clients: Vec<Client>,
    pub(super) history: Vec<Record>,
    pub(super) invariants: Invariants,
    pub(super) asks_under_way: u64,
    pub(super) proposals_under_way: u64,
    /// How many of them take so long that nobody waits for the answer any more.
    pub(super) slow_proposals: f64,
    pub(super) next_run: u64,
    pub(super) next_token: u64,
    pub(super) counts: Counts,
    /// The one fault of this run, if it is not one after another.
    pub(super) standing: Option<Standing>,
}

/// How the nodes detect failures: mostly all in the same way, as by default.
fn detection(rng: &mut StdRng) -> (Vec<Config>, FastFailover) {
    let fast_failover = match rng.random_range(0..10) {
        0..=2 => FastFailover::Trusted,
        3..=7 => FastFailover::Yes,
        _ => FastFailover::No,
    };
    let is_mixed = rng.random_bool(0.2);
    let is_slow_to_apply = rng.random_bool(0.3);
    let leases = [50, 100, 200, 400].map(Duration::from_millis);
    let same = if rng.random_bool(0.5) { leases[3] } else { leases[1] };
    let configs = (0..NODES).map(|_| Config {
        lease: if is_mixed { leases[rng.random_range(0..leases.len())] } else { same },
        handoff_timeout: Duration::from_millis(300),
        unapplied_bytes_max: if is_slow_to_apply { 200 } else { 1 << 20 },
        ..Config::default()
    });
    (configs.collect(), fast_failover)
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids: Vec<NodeId> = (1..).take(NODES).map(|n| NodeId::from_random([n; 20])).collect();
        let (configs, fast_failover) = detection(&mut rng);
        let detections = configs.iter().map(|config| Detection {
            lease_millis: u64::try_from(config.longest_lease().as_millis()).expect("a short lease"),
            fast_failover,
        });
        let detections: Vec<Detection> = detections.collect();
        let nodes: Vec<(NodeId, Detection)> = ids.into_iter().zip(detections).collect();
        let register = Register::new(&nodes);
        let persistence = match rng.random_range(0..5) {
            0 | 1 => Persistence::Memory,
            2 => Persistence::Always,
            3 => Persistence::EverySecond,
            _ => Persistence::Never,
        };
        let standing = Standing::of(seed);
        let persistence = standing.as_ref().map_or(persistence, |s| s.persistence(persistence));
        let machines = nodes.into_iter().zip(configs).map(|((id, detection), config)| Machine {
            id,
            config,
            detection,
            power: Power::Off { has_power: true },
            disk: Disk::default(),
            clock: Clock::new(&mut rng),
            wall_clock_offset: rng.random_range(0..60),
            wall_clock_set: 0,
            paused_until: 0,
            rotation: Rotation::starting_at(rng.random_range(0..SENTINELS), SENTINELS),
            asked: BTreeMap::new(),
            heard_of_sentinel: 0,
            intact: true,
        });
        let machines: Vec<Machine> = machines.collect();
        let view = &register.topology;
        let sentinels =
            (0..SENTINELS).map(|_| Sentinel::new(Clock::new(&mut rng), Arc::clone(view))).collect();
        let leases: Vec<Duration> = machines.iter().map(|machine| machine.config.lease).collect();
        let mode = if rng.random_bool(0.7) { Mode::Cluster } else { Mode::Sentinels };
        tell!("{persistence:?}, fast failover: {fast_failover:?}, leases {leases:?}, {mode:?}");
        let slow_proposals = if rng.random_bool(0.2) { 0.6 } else { 0.1 };
        let mut world = World {
            fault_pause: [ms(60), ms(250), ms(250), ms(700)][rng.random_range(0..4)],
            no_fault_before: 0,
            distance: if rng.random_bool(0.15) { rng.random_range(ms(15)..ms(50)) } else { 0 },
            append_bytes: [80, 500, APPEND_BYTES][rng.random_range(0..3)],
            request_limit: if rng.random_bool(0.5) {
                Duration::from_millis(300)
            } else {
                requests::ANSWER_LIMIT
            },
            rng,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            persistence,
            mode,
            machines,
            network: Network::default(),
            register,
            register_frozen_until: 0,
            sentinels,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            history: Vec::new(),
            invariants: Invariants::default(),
            asks_under_way: 0,
            proposals_under_way: 0,
            slow_proposals,
            next_run: 0,
            next_token: 0,
            counts: Counts::default(),
            standing,
        };
        world.begin();
        world
    }

    /// The nodes that the shard was formed of are running: process 0 of each was registered with it.
    fn begin(&mut self) {
        self.sentinels[0].leads = true;
        for node in 0..NODES {
            self.start(node);
        }
        for sentinel in 0..SENTINELS {
            self.at(ms(10), SimEvent::Watchdog { sentinel });
        }
        for client in 0..CLIENTS {
            self.at(ms(600), SimEvent::Client { client });
        }
        self.at(ms(900), SimEvent::Fault);
        if self.standing.is_some() {
            self.prepare();
        }
    }

    pub(super) fn at(&mut self, delay: Nanos, happening: SimEvent) {
        self.sequence += 1;
        let (at, sequence) = (self.now + delay, self.sequence);
        self.queue.push(Reverse(Scheduled { at, sequence, happening }));
    }

    /// Lets everything happen. Panics when a promise is broken.
    pub(super) fn run(mut self) -> Summary {
        while let Some(Reverse(Scheduled { at, happening, .. })) = self.queue.pop() {
            if SETTLED < at || END < at && is_settled(self.now, &self.machines) {
                break;
            }
            self.now = at;
            self.counts.steps += 1;
            story::set_now(at);
            self.machines.iter().for_each(|machine| machine.set_clock(at));
            self.happen(happening);
        }
        self.finish()
    }

    /// A shard that the sentinels have forgotten may wait for an operator until the end: nobody has lost anything.
    fn check_end(&self) -> history::Checked {
        if self.register.shard().is_none() {
            return history::Checked::default();
        }
        let journals = self.invariants.converged(self.now, &self.machines, &self.register);
        assert!(
            CLIENTS_END - ms(200) < self.counts.last_reply_at,
            "invariant 9: clients are not served any more though all faults are over"
        );
        history::check(&self.history, &journals)
    }

    fn finish(self) -> Summary {
        let checked = self.check_end();
        Summary {
            writes: self.counts.writes,
            reads: self.counts.reads,
            reads_anywhere: self.counts.reads_anywhere,
            terms: 1 + self.counts.later_terms,
            full_syncs: self.counts.full_syncs,
            resumed: self.counts.resumed,
            steps: self.counts.steps,
            calls: checked.calls as u64,
            undecided: checked.undecided as u64,
        }
    }

    fn happen(&mut self, happening: SimEvent) {
        match happening {
            SimEvent::NodeEvent { node, run, event } => self.step(node, run, event),
            SimEvent::Apply { node, run } => self.apply(node, run),
            SimEvent::Expire { node, run } => self.expire(node, run),
            SimEvent::Retry { node, run, number } => self.retry(node, run, number),
            SimEvent::WaitTimeout { node, run, number } => self.wait_timeout(node, run, number),
            SimEvent::CuriousRead { node, run } => self.curious_read(node, run),
            SimEvent::LateRead { node, run } => self.late_read(node, run),
            SimEvent::LateWrite { node, run } => self.late_write(node, run),
            SimEvent::Write { node, run } => self.write(node, run),
            SimEvent::Start { node } => self.start(node),
            SimEvent::Register { node, run } => self.register(node, run),
            SimEvent::RequestTick { node, run, id } => {
                self.request_step(node, run, id, requests::Event::Tick, None);
            }
            SimEvent::Connect { node, run, uplink, to, hello } => self.connect(node, run, uplink, to, hello),
            SimEvent::Pump { stream, towards } => self.pump(stream, towards),
            SimEvent::Deliver { from, to, message } => self.deliver(from, to, message),
            SimEvent::Commit(proposal) => self.commit(*proposal),
            SimEvent::Committed { sentinel, run, purpose, result } => {
                self.proposal_answered(sentinel, run, purpose, result);
            }
            SimEvent::Confirmed(confirmation) => self.confirmed(*confirmation),
            SimEvent::Applied { sentinel, topology } => self.applied(sentinel, &topology),
            SimEvent::Watchdog { sentinel } => self.watchdog(sentinel),
            SimEvent::SentinelStarts { sentinel } => self.sentinel_starts(sentinel),
            SimEvent::SentinelCrashes { sentinel } => self.crash_sentinel(sentinel),
            SimEvent::SentinelTick { sentinel, run } => self.sentinel_tick(sentinel, run),
            SimEvent::Kill { node } => self.kill(node),
            SimEvent::Deafen { node } => self.deafen(node),
            SimEvent::HandBack { node } => self.hand_back(node),
            SimEvent::GoOn { node } => self.go_on(node),
            SimEvent::Stutter { node, until } => self.stutter(node, until),
            SimEvent::HungForLong { term } => self.hung_for_long(term),
            SimEvent::Client { client } => self.client(client),
            SimEvent::ClientTimeout { client, number } => self.client_timeout(client, number),
            SimEvent::Fault => self.fault(),
            SimEvent::Operator => self.operate(),
        }
    }
}
