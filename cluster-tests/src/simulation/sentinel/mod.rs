//! The sentinels: simulated processes that do what the shells of `keyward-sentinel` do, with its real rules
//! (`coordinator`, `inquiry`, `in_sync`, `failover`, `health`), and commit through the one [`super::register::Register`].
//!
//! They are worse than real ones. Each answers requests by itself, with a view of the topology that may be old; in
//! reality only Raft's leader does, with what it has applied. Several may believe that they lead, so that failovers run
//! at the same time; a request may be carried out twice; each crashes, pauses, is cut off, and sees stale health. All of
//! that must be harmless, as every change is compared with the topology when it takes effect.

mod coordinator;
mod proposals;
mod questions;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId, ShardId};
use keyward_proto::topology::Topology;
use keyward_replication::core::messages::{Outcome as Answered, RequestId};
use keyward_sentinel::rules::coordinator::{Coordinator, Request, Ticket};
use keyward_sentinel::rules::failover::{Answer, Trigger};
use keyward_sentinel::rules::formation::Arrivals;
use keyward_sentinel::rules::health::Health;
use keyward_sentinel::rules::inquiry::{self, Route};
use keyward_sentinel::rules::placement;
use keyward_sentinel::rules::topology::RaftId;
use rand::Rng;

use super::clocks::Clock;
use super::messages::{Asking, Message};
use super::world::{SimEvent, World};
use super::{NODES, Nanos, SENTINELS, ms, network};
pub(super) use proposals::{Confirmation, Proposal, Purpose};
use requests::PendingRemoval;

/// The watchdog: how often it looks, and in every how many looks it asks all nodes.
const WATCHDOG: Nanos = ms(100);
const PROBE_EVERY: u64 = 5;
const DOWN_AFTER: Duration = Duration::from_millis(1000);
/// The topology is sent again after so long without a change.
const KEEPALIVE_LOOKS: u64 = 5;

/// What the sentinels are to Raft.
pub(super) fn raft_id(sentinel: usize) -> RaftId {
    sentinel as RaftId + 1
}

/// A request of a node's process.
type Call = (usize, u64, RequestId);

#[derive(Debug)]
pub(super) struct Sentinel {
    /// Grows with each start; messages to an earlier process are lost.
    pub(super) run: u64,
    pub(super) is_up: bool,
    pub(super) leads: bool,
    pub(super) paused_until: Nanos,
    pub(super) clock: Clock,
    pub(super) view: Arc<Topology>,
    health: Health,
    /// What the watchdog has heard since it last asked.
    probed: BTreeMap<NodeId, Answer>,
    coordinator: Coordinator,
    tickets: u64,
    /// Who waits for another primary.
    waiting: BTreeMap<Ticket, Call>,
    /// Requests of nodes that have no answer yet: node, process, request.
    calls: Vec<Call>,
    /// Removals before which those concerned are asked.
    removals: BTreeMap<u64, PendingRemoval>,
    next_removal: u64,
    /// The earliest tick that is scheduled.
    wake_at: Nanos,
    looks: u64,
    /// No proposal of this sentinel arrives before.
    pub(super) proposals_until: Nanos,
}

impl Sentinel {
    pub(super) fn new(clock: Clock, view: Arc<Topology>) -> Sentinel {
        Sentinel {
            run: 0,
            is_up: true,
            leads: false,
            paused_until: 0,
            clock,
            view,
            health: Health::default(),
            probed: BTreeMap::new(),
            coordinator: Coordinator::default(),
            tickets: 0,
            waiting: BTreeMap::new(),
            calls: Vec::new(),
            removals: BTreeMap::new(),
            next_removal: 0,
            wake_at: Nanos::MAX,
            looks: 0,
            proposals_until: 0,
        }
    }

    /// Nothing is being decided or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.coordinator.is_idle() && self.removals.is_empty()
    }

    /// The process ends: what it has applied is on its disk, the rest is gone. Returns whose calls break off.
    pub(super) fn crash(&mut self) -> Vec<Call> {
        self.run += 1;
        self.is_up = false;
        self.leads = false;
        self.health = Health::default();
        self.probed.clear();
        self.coordinator = Coordinator::default();
        self.waiting.clear();
        self.wake_at = Nanos::MAX;
        self.removals.clear();
        std::mem::take(&mut self.calls)
    }

    /// It has lost its directory.
    pub(super) fn forget(&mut self, topology: &Arc<Topology>) {
        self.view = Arc::clone(topology);
    }

    fn see(&mut self, topology: &Arc<Topology>) {
        if self.view.version < topology.version {
            self.view = Arc::clone(topology);
        }
        self.health.note_topology(&self.view);
    }
}

impl World {
    /// A sentinel learns what was committed, some time.
    pub(super) fn spread_to(&mut self, sentinel: usize) {
        let slow = if self.rng.random_bool(0.1) { self.rng.random_range(0..ms(200)) } else { 0 };
        let delay = self.latency() + slow;
        let topology = Arc::clone(&self.register.topology);
        self.at(delay, SimEvent::Applied { sentinel, topology });
    }

    pub(super) fn applied(&mut self, sentinel: usize, topology: &Arc<Topology>) {
        let isolated = (0..SENTINELS)
            .filter(|&other| other != sentinel)
            .all(|other| self.network.is_cut(network::sentinel(other), network::sentinel(sentinel)));
        let s = &mut self.sentinels[sentinel];
        if isolated || !s.is_up || self.now < s.paused_until || topology.version <= s.view.version {
            return;
        }
        s.see(topology);
        self.announce(sentinel);
    }

    /// Tells the nodes that listen to this sentinel.
    pub(super) fn announce(&mut self, sentinel: usize) {
        let view = Arc::clone(&self.sentinels[sentinel].view);
        for node in 0..NODES {
            let machine = &self.machines[node];
            if let Some(run) = machine.run().filter(|_| machine.watches(sentinel)) {
                let message = Message::Topology { run, topology: Arc::clone(&view) };
                self.send_message(network::sentinel(sentinel), node, message);
            }
        }
    }
    pub(super) fn answer(&mut self, sentinel: usize, (node, run, id): Call, outcome: Answered) {
        self.sentinels[sentinel].calls.retain(|call| *call != (node, run, id));
        let topology = Some(Arc::clone(&self.sentinels[sentinel].view));
        let message = Message::Answered { run, id, outcome, topology };
        self.send_message(network::sentinel(sentinel), node, message);
    }

    pub(super) fn watchdog(&mut self, sentinel: usize) {
        self.at(WATCHDOG, SimEvent::Watchdog { sentinel });
        let now = self.now;
        let s = &mut self.sentinels[sentinel];
        if !s.is_up || now < s.paused_until {
            return;
        }
        s.looks += 1;
        let clock = s.clock.read(now);
        if s.looks.is_multiple_of(PROBE_EVERY) {
            let probed = std::mem::take(&mut s.probed);
            for id in self.register.topology.nodes.keys() {
                let answer = probed.get(id).cloned().unwrap_or(Answer::Silent);
                s.health.note_node(clock, DOWN_AFTER, id, answer, None);
            }
            for node in 0..NODES {
                let (id, round, until) = (self.machines[node].id.clone(), 0, clock);
                // Not passed on, so that it does not matter which process is meant.
                let incarnation = Incarnation::ZERO;
                let question =
                    inquiry::Question { round, node: id, incarnation, route: Route::Direct, until };
                self.put(sentinel, Asking::Probe, question);
            }
        }
        self.spread_to(sentinel);
        let s = &mut self.sentinels[sentinel];
        s.health.note_topology(&s.view);
        if s.looks.is_multiple_of(KEEPALIVE_LOOKS) {
            self.announce(sentinel);
        }
        let s = &mut self.sentinels[sentinel];
        if !s.leads {
            return;
        }
        let (view, random) = (Arc::clone(&s.view), ShardId::from_random(self.rng.random()));
        if let Some(command) = placement::next(&view, &BTreeSet::new(), Arrivals::Expected, || random.clone())
        {
            self.propose(sentinel, command, Purpose::Again);
        }
        let s = &mut self.sentinels[sentinel];
        let Some(shard) = s.view.shards.values().next() else { return };
        if s.health.needs_primary(&s.view, shard) {
            let (shard, term, trigger) = (shard.id.clone(), shard.term, Trigger::Watchdog);
            self.request_primary(sentinel, Request::Failover { shard, term, trigger }, None);
        }
    }
}
