//! The sentinels: simulated processes that do what the shells of `keyward-sentinel` do, with its real rules
//! (`failover`, `health`), and commit through the one [`super::register::Register`].
//!
//! They are worse than real ones. Each answers requests by itself, with a view of the topology that may be old; in
//! reality only Raft's leader does, with what it has applied. Several may believe that they lead, so that failovers run
//! at the same time; a request may be carried out twice; each crashes, pauses, is cut off, and sees stale health. All of
//! that must be harmless, as every change is compared with the topology when it takes effect.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use keyward_node::replication::messages::{Outcome as Answered, Request, RequestId};
use keyward_node::replication::node_core::RoleStatus;
use keyward_proto::ids::{Incarnation, NodeId, Position, Term};
use keyward_proto::topology::{Shard, Topology};
use keyward_sentinel::failover::removal::{self, Contact, Removal};
use keyward_sentinel::failover::{self, Answer, Answers, Case, Decision, NodeState, Role, Trigger};
use keyward_sentinel::health::Health;
use keyward_sentinel::topology::{InSyncChange, Outcome, Refusal, TopologyCommand};
use rand::Rng;

use super::clients::{Operation, Reply};
use super::clocks::Clock;
use super::network::{self, Endpoint};
use super::node::{Machine, Power};
use super::story::{detail, tell};
use super::world::{Happening, World};
use super::{FAULTS_END, NODES, Nanos, SENTINELS, ms, register};

/// As in `keyward_sentinel::control::failover`.
const ANSWER_LIMIT: Nanos = ms(150);
const STRAGGLER_LIMIT: Nanos = ms(15);
const ATTEMPTS_MAX: u32 = 3;
/// A proposal without an answer is given up.
const PROPOSAL_LIMIT: Nanos = ms(2000);
/// The watchdog: how often it looks, and in every how many looks it asks all nodes.
const WATCHDOG: Nanos = ms(100);
const PROBE_EVERY: u64 = 5;
const DOWN_AFTER: Duration = Duration::from_millis(1000);
/// The topology is sent again after so long without a change.
const KEEPALIVE_LOOKS: u64 = 5;
/// The question of the watchdog.
const PROBE: u64 = 0;

/// What goes over the network on its own.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Register {
        node: usize,
        run: u64,
        last: Position,
    },
    Registered {
        run: u64,
        incarnation: Incarnation,
        topology: Arc<Topology>,
    },
    Topology(Arc<Topology>),
    Ask {
        node: usize,
        run: u64,
        id: RequestId,
        request: Request,
        challenge: u64,
    },
    /// Nothing was done: the request is to be sent again with this number.
    Challenge {
        node: usize,
        run: u64,
        id: RequestId,
        request: Request,
        challenge: u64,
    },
    Answered {
        run: u64,
        id: RequestId,
        outcome: Answered,
        topology: Option<Arc<Topology>>,
    },
    Demand {
        reporter: NodeId,
    },
    /// A sentinel asks a node for its state.
    Question {
        run: u64,
        task: u64,
    },
    State {
        run: u64,
        task: u64,
        node: usize,
        answer: Answer,
        cut_off: bool,
    },
    Command {
        client: usize,
        number: u64,
        slot: usize,
        operation: Operation,
    },
    Reply {
        number: u64,
        reply: Reply,
    },
}

/// Whom a proposal's result concerns.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Registration {
        node: usize,
        run: u64,
    },
    Change {
        node: usize,
        run: u64,
        id: RequestId,
    },
    Failover {
        task: u64,
    },
    /// Carried out twice: nobody waits for the second answer.
    Again,
}

/// A command on its way into the register.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) sentinel: usize,
    run: u64,
    command: TopologyCommand,
    purpose: Purpose,
}

#[derive(Debug)]
struct Failover {
    term: Term,
    trigger: Trigger,
    attempts: u32,
    /// As it was when the members were asked.
    topology: Arc<Topology>,
    settled: bool,
    answers: Answers,
    is_decidable: bool,
    is_proposed: bool,
    /// Who waits for the answer.
    origin: Option<Call>,
}

impl Failover {
    fn shard(&self) -> &Shard {
        self.topology.shards.values().next().expect("the only shard")
    }

    fn case(&self) -> Case<'_> {
        Case { topology: &self.topology, shard: self.shard(), trigger: &self.trigger, settled: self.settled }
    }
}

/// A request of a node's process.
type Call = (usize, u64, RequestId);

#[derive(Debug)]
struct PendingRemoval {
    origin: Call,
    request: Request,
    primary: NodeId,
    contacts: BTreeMap<NodeId, Contact>,
}

#[derive(Debug)]
pub(super) struct Sentinel {
    /// Grows with each start; messages to an earlier process are lost.
    pub(super) run: u64,
    pub(super) is_up: bool,
    pub(super) leads: bool,
    pub(super) paused_until: Nanos,
    pub(super) clock: Clock,
    view: Arc<Topology>,
    health: Health,
    /// What the watchdog has heard since it last asked.
    probed: BTreeMap<NodeId, Answer>,
    /// The failover that runs, and those that wait for it.
    running: Option<(u64, Failover)>,
    waiting: VecDeque<(Term, Trigger, Option<Call>)>,
    /// Requests of nodes that have no answer yet: node, process, request.
    calls: Vec<Call>,
    /// Removals before which those concerned are asked.
    removals: BTreeMap<u64, PendingRemoval>,
    next_task: u64,
    looks: u64,
    /// No proposal of this sentinel arrives before.
    proposals_until: Nanos,
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
            running: None,
            waiting: VecDeque::new(),
            calls: Vec::new(),
            removals: BTreeMap::new(),
            next_task: PROBE,
            looks: 0,
            proposals_until: 0,
        }
    }

    /// Nothing is being decided or waits to be.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty() && self.removals.is_empty()
    }

    /// The process ends: what it has applied is on its disk, the rest is gone. Returns whose calls break off.
    pub(super) fn crash(&mut self) -> Vec<Call> {
        self.run += 1;
        self.is_up = false;
        self.leads = false;
        self.health = Health::default();
        self.probed.clear();
        self.running = None;
        self.waiting.clear();
        self.removals.clear();
        std::mem::take(&mut self.calls)
    }

    fn see(&mut self, now: Nanos, topology: &Arc<Topology>) {
        if self.view.version < topology.version {
            self.view = Arc::clone(topology);
        }
        self.health.note_topology(self.clock.read(now), &self.view);
    }
}

/// A change that was committed but whose answer was lost is asked for again; as in `keyward_sentinel::control`.
fn is_carried_out(shard: &Shard, term: Term, version: u64, change: &InSyncChange) -> bool {
    shard.term == term
        && shard.in_sync_version == version + 1
        && match change {
            InSyncChange::Remove(nodes) => nodes.is_disjoint(&shard.in_sync),
            InSyncChange::Add { node, .. } => shard.in_sync.contains(node) && !shard.restarted.contains(node),
        }
}

/// What a node answers; as `wire::node_status` and `probe::report` translate it.
fn state_of(machine: &Machine, now: Nanos) -> Option<NodeState> {
    let process = machine.running()?;
    let status = process.core.status(machine.clock.read(now), &process.log);
    let (role, leases) = match status.role {
        RoleStatus::None => (Role::None, Default::default()),
        RoleStatus::Primary { leases, .. } => (Role::Primary, leases.into_iter().collect()),
        RoleStatus::Replica { .. } => (Role::Replica, Default::default()),
    };
    Some(NodeState {
        incarnation: process.incarnation,
        role,
        term: status.term,
        last: status.last,
        usable: status.consistent,
        leases,
    })
}

impl World {
    // ------------------------------------------------------------------ messages

    pub(super) fn send_message(&mut self, from: Endpoint, to: Endpoint, message: Message) {
        if self.network.is_cut(from, to) || self.is_lost() {
            return self.note_lost(&message);
        }
        let delay = self.latency();
        self.at(delay, Happening::Deliver { from, to, message: Box::new(message) });
    }

    /// Requests that may change who is in sync are counted while they are under way.
    fn note_lost(&mut self, message: &Message) {
        if let Message::Ask { .. } | Message::Demand { .. } = message {
            self.asks_under_way -= 1;
        }
    }

    pub(super) fn deliver(&mut self, from: Endpoint, to: Endpoint, message: Box<Message>) {
        if self.network.is_cut(from, to) {
            return self.note_lost(&message);
        }
        let paused_until = match to {
            node if node < NODES => self.machines[node].paused_until,
            other if other < NODES + SENTINELS => self.sentinels[other - NODES].paused_until,
            _ => 0,
        };
        if self.now < paused_until {
            return self.at(paused_until - self.now, Happening::Deliver { from, to, message });
        }
        match *message {
            Message::Registered { run, incarnation, topology } => {
                self.registered(to, run, incarnation, topology)
            }
            Message::Topology(topology) => {
                self.machines[to].heard_of_sentinel = self.now;
                if let Some(run) = self.machines[to].run() {
                    self.step(to, run, keyward_node::replication::messages::Event::TopologyChanged(topology));
                }
            }
            Message::Answered { run, id, outcome, topology } => self.answered(to, run, id, outcome, topology),
            Message::Question { run, task } => self.asked_for_state(from, to, run, task),
            Message::Command { client, number, slot, operation } => {
                self.command(to, client, number, slot, operation)
            }
            Message::Reply { number, reply } => self.replied(to - network::client(0), number, reply),
            Message::Register { node, run, last } => self.register_asked(to - NODES, node, run, last),
            Message::Ask { node, run, id, request, challenge } => {
                self.asks_under_way -= 1;
                self.asked(to - NODES, node, run, id, request, challenge);
            }
            Message::Challenge { node, run, id, request, challenge } => {
                if self.machines[node].run() == Some(run) {
                    self.asks_under_way += 1;
                    self.send_message(node, from, Message::Ask { node, run, id, request, challenge });
                }
            }
            Message::Demand { reporter } => {
                self.asks_under_way -= 1;
                self.demanded(to - NODES, reporter);
            }
            Message::State { run, task, node, answer, cut_off } => {
                self.told(to - NODES, run, task, node, answer, cut_off);
            }
        }
    }

    fn asked_for_state(&mut self, from: Endpoint, node: usize, run: u64, task: u64) {
        let machine = &self.machines[node];
        let answer = match &machine.power {
            Power::On(_) => state_of(machine, self.now).map(Answer::Status),
            Power::Off { has_power: true } => Some(Answer::Refused),
            Power::Starting(_) | Power::Off { has_power: false } => None,
        };
        if let Some(answer) = answer {
            let cut_off = machine.running().is_some_and(|p| {
                let status = p.core.status(machine.clock.read(self.now), &p.log);
                matches!(status.role, RoleStatus::Replica { cut_off: true, .. })
            });
            self.send_message(node, from, Message::State { run, task, node, answer, cut_off });
        }
    }

    // ------------------------------------------------------------------ proposals

    /// A sentinel proposes a command. It takes effect later, or never.
    fn propose(&mut self, sentinel: usize, command: TopologyCommand, purpose: Purpose) {
        let isolated = (0..SENTINELS)
            .filter(|&other| other != sentinel)
            .all(|other| self.network.is_cut(network::sentinel(sentinel), network::sentinel(other)));
        if self.rng.random_bool(if isolated { 0.8 } else { 0.03 }) && self.now < FAULTS_END {
            return;
        }
        let slow = if self.rng.random_bool(0.1) { self.rng.random_range(0..ms(400)) } else { 0 };
        let twice = self.rng.random_bool(0.03);
        let arrival = (self.now + self.latency() + self.latency() + slow)
            .max(self.sentinels[sentinel].proposals_until)
            .max(self.register_frozen_until);
        self.sentinels[sentinel].proposals_until = arrival;
        let run = self.sentinels[sentinel].run;
        let delay = arrival - self.now;
        self.proposals_under_way += 1;
        if twice {
            self.proposals_under_way += 1;
            let again = Proposal { sentinel, run, command: command.clone(), purpose: Purpose::Again };
            let later = delay + self.rng.random_range(0..ms(300));
            self.at(later, Happening::Commit(Box::new(again)));
        }
        let proposal = Proposal { sentinel, run, command, purpose };
        self.at(delay, Happening::Commit(Box::new(proposal)));
    }

    /// A command takes effect.
    pub(super) fn commit(&mut self, proposal: Proposal) {
        self.proposals_under_way -= 1;
        let Proposal { sentinel, run, command, purpose } = proposal;
        if let TopologyCommand::RegisterNode(registration) = &command {
            // A call whose caller is gone is dropped with its connection.
            let is_current =
                |m: &Machine| m.id != registration.id || m.run() == Some(registration.start_nonce);
            if !self.machines.iter().all(is_current) {
                return;
            }
        }
        let before = Arc::clone(&self.register.topology);
        let result = self.register.commit(command.clone());
        if before.version < self.register.topology.version {
            self.committed(&before, &command);
        }
        let delay = self.latency();
        self.at(delay, Happening::Committed { sentinel, run, purpose, result });
        for other in 0..SENTINELS {
            self.spread_to(other);
        }
    }

    /// The invariants and the world take note of a change.
    fn committed(&mut self, before: &Topology, command: &TopologyCommand) {
        self.invariants.committed(before, command, &self.register, &self.machines);
        let added = match command {
            TopologyCommand::ChangeInSync { change: InSyncChange::Add { node, .. }, .. } => Some(node),
            // After a full restart the history is what the chosen one has.
            TopologyCommand::ReplacePrimary(change) => Some(&change.node),
            _ => None,
        };
        if let Some(machine) = self.machines.iter_mut().find(|m| Some(&m.id) == added) {
            // A process that has died meanwhile has taken with it what it was added for.
            let incarnation = self.register.incarnation(&machine.id);
            machine.intact |= machine.running().is_some_and(|p| p.incarnation == incarnation);
        }
    }

    /// A sentinel learns what was committed, some time.
    fn spread_to(&mut self, sentinel: usize) {
        let slow = if self.rng.random_bool(0.1) { self.rng.random_range(0..ms(200)) } else { 0 };
        let delay = self.latency() + slow;
        let topology = Arc::clone(&self.register.topology);
        self.at(delay, Happening::Applied { sentinel, topology });
    }

    pub(super) fn applied(&mut self, sentinel: usize, topology: &Arc<Topology>) {
        let isolated = (0..SENTINELS)
            .filter(|&other| other != sentinel)
            .all(|other| self.network.is_cut(network::sentinel(other), network::sentinel(sentinel)));
        let s = &mut self.sentinels[sentinel];
        if isolated || !s.is_up || self.now < s.paused_until || topology.version <= s.view.version {
            return;
        }
        s.see(self.now, topology);
        self.announce(sentinel);
    }

    /// Tells the nodes that listen to this sentinel.
    fn announce(&mut self, sentinel: usize) {
        let view = Arc::clone(&self.sentinels[sentinel].view);
        for node in (0..NODES).filter(|n| self.machines[*n].watched == sentinel).collect::<Vec<_>>() {
            self.send_message(network::sentinel(sentinel), node, Message::Topology(Arc::clone(&view)));
        }
    }

    pub(super) fn proposal_answered(
        &mut self,
        sentinel: usize,
        run: u64,
        purpose: Purpose,
        result: Result<Outcome, Refusal>,
    ) {
        let topology = Arc::clone(&self.register.topology);
        let (now, s) = (self.now, &mut self.sentinels[sentinel]);
        if s.run != run || !s.is_up {
            return;
        }
        if now < s.paused_until {
            let wait = s.paused_until - now;
            return self.at(wait, Happening::Committed { sentinel, run, purpose, result });
        }
        s.see(now, &topology);
        match purpose {
            Purpose::Again => {}
            Purpose::Registration { node, run } => {
                let Ok(Outcome::Registered { incarnation }) = result else { unreachable!("a registration") };
                let message = Message::Registered { run, incarnation, topology };
                self.send_message(network::sentinel(sentinel), node, message);
            }
            Purpose::Change { node, run, id } => {
                let refusal = result.err();
                let outcome = refusal.map_or(Answered::Accepted, |r| Answered::Refused(r.to_string()));
                self.answer(sentinel, (node, run, id), outcome);
            }
            Purpose::Failover { task } => self.failover_answered(sentinel, task, result),
        }
    }

    fn answer(&mut self, sentinel: usize, (node, run, id): Call, outcome: Answered) {
        self.sentinels[sentinel].calls.retain(|call| *call != (node, run, id));
        let topology = Some(Arc::clone(&self.sentinels[sentinel].view));
        let message = Message::Answered { run, id, outcome, topology };
        self.send_message(network::sentinel(sentinel), node, message);
    }

    // ------------------------------------------------------------------ requests of nodes

    fn register_asked(&mut self, sentinel: usize, node: usize, run: u64, last: Position) {
        if self.sentinels[sentinel].is_up && self.machines[node].run() == Some(run) {
            let command = register::registration(node, &self.machines[node].id, run, last);
            self.propose(sentinel, command, Purpose::Registration { node, run });
        }
    }

    fn asked(
        &mut self,
        sentinel: usize,
        node: usize,
        run: u64,
        id: RequestId,
        request: Request,
        challenge: u64,
    ) {
        let origin = (node, run, id);
        if !self.sentinels[sentinel].is_up {
            let message = Message::Answered { run, id, outcome: Answered::Unknown, topology: None };
            return self.send_message(network::sentinel(sentinel), node, message);
        }
        self.sentinels[sentinel].calls.push(origin);
        let me = self.machines[node].id.clone();
        let view = Arc::clone(&self.sentinels[sentinel].view);
        let (shard, term, version, change) = match request.clone() {
            Request::Remove { shard, term, version, nodes } => {
                (shard, term, version, InSyncChange::Remove(nodes))
            }
            Request::Add { shard, term, version, node, incarnation } => {
                (shard, term, version, InSyncChange::Add { node, incarnation })
            }
            Request::Failover { term, .. } => {
                let trigger = Trigger::Complaint { reporter: me };
                self.sentinels[sentinel].waiting.push_back((term, trigger, Some(origin)));
                return self.next_failover(sentinel);
            }
            Request::Handoff { shard, term, version, target, last } => {
                let known = &view.shards[&shard];
                if known.term == term.next()
                    && known.primary.as_ref() == Some(&target)
                    && known.handoff_position == last
                {
                    return self.answer(sentinel, origin, Answered::Accepted);
                }
                let handoff =
                    failover::Handoff { shard, primary: me, term, target, last, in_sync_version: version };
                match failover::hand_off(&view, &handoff) {
                    Ok(change) => {
                        let command = TopologyCommand::ReplacePrimary(change);
                        self.propose(sentinel, command, Purpose::Change { node, run, id });
                    }
                    Err(refusal) => self.answer(sentinel, origin, Answered::Refused(refusal.to_string())),
                }
                return;
            }
        };
        if is_carried_out(&view.shards[&shard], term, version, &change) {
            return self.answer(sentinel, origin, Answered::Accepted);
        }
        if let InSyncChange::Remove(nodes) = &change {
            let clock = self.sentinels[sentinel].clock.read(self.now);
            if !removal::is_met(challenge, clock) {
                let challenge = removal::challenge(clock);
                let message = Message::Challenge { node, run, id, request, challenge };
                return self.send_message(network::sentinel(sentinel), node, message);
            }
            let known = view.shards[&shard].term == term;
            let questions: Vec<NodeId> = if known {
                Removal::new(&view, &view.shards[&shard], nodes).questions().into_iter().cloned().collect()
            } else {
                Vec::new()
            };
            if !questions.is_empty() {
                return self.begin_removal(sentinel, origin, request, me, questions);
            }
        }
        let command =
            TopologyCommand::ChangeInSync { shard, primary: me, term, in_sync_version: version, change };
        self.propose(sentinel, command, Purpose::Change { node, run, id });
    }

    /// Those who are to be removed are asked first.
    fn begin_removal(
        &mut self,
        sentinel: usize,
        origin: Call,
        request: Request,
        primary: NodeId,
        questions: Vec<NodeId>,
    ) {
        let s = &mut self.sentinels[sentinel];
        s.next_task += 1;
        let (run, task) = (s.run, s.next_task);
        s.removals.insert(task, PendingRemoval { origin, request, primary, contacts: BTreeMap::new() });
        for node in (0..NODES).filter(|n| questions.contains(&self.machines[*n].id)).collect::<Vec<_>>() {
            self.send_message(network::sentinel(sentinel), node, Message::Question { run, task });
        }
        self.at(ANSWER_LIMIT, Happening::RemovalDue { sentinel, run, task });
    }

    /// Whoever answers in time has been heard.
    pub(super) fn removal_due(&mut self, sentinel: usize, run: u64, task: u64) {
        let s = &mut self.sentinels[sentinel];
        let Some(pending) = s.removals.remove(&task).filter(|_| s.run == run) else { return };
        let view = Arc::clone(&s.view);
        let PendingRemoval { origin, request, primary, contacts } = pending;
        let Request::Remove { shard, term, version, nodes } = request else { return };
        if let Some(reason) = Removal::new(&view, &view.shards[&shard], &nodes).objection(&contacts) {
            tell!("sentinel {sentinel} refuses a removal: {reason}");
            return self.answer(sentinel, origin, Answered::Refused(reason));
        }
        let change = InSyncChange::Remove(nodes);
        let command =
            TopologyCommand::ChangeInSync { shard, primary, term, in_sync_version: version, change };
        let (node, run, id) = origin;
        self.propose(sentinel, command, Purpose::Change { node, run, id });
    }

    /// An operator's demand (CLUSTER FAILOVER FORCE), passed on by a replica.
    fn demanded(&mut self, sentinel: usize, reporter: NodeId) {
        let s = &mut self.sentinels[sentinel];
        if s.is_up {
            let term = s.view.shards.values().next().expect("the only shard").term;
            s.waiting.push_back((term, Trigger::Force { reporter }, None));
            self.next_failover(sentinel);
        }
    }

    // ------------------------------------------------------------------ failovers

    /// One failover after another.
    fn next_failover(&mut self, sentinel: usize) {
        while self.sentinels[sentinel].running.is_none() {
            let Some((term, trigger, origin)) = self.sentinels[sentinel].waiting.pop_front() else { return };
            self.sentinels[sentinel].next_task += 1;
            let task = self.sentinels[sentinel].next_task;
            let topology = Arc::clone(&self.sentinels[sentinel].view);
            let failover = Failover {
                term,
                trigger,
                attempts: 0,
                topology,
                settled: false,
                answers: Answers::new(),
                is_decidable: false,
                is_proposed: false,
                origin,
            };
            self.sentinels[sentinel].running = Some((task, failover));
            self.ask_members(sentinel);
        }
    }

    fn end_failover(&mut self, sentinel: usize, outcome: Option<Answered>) {
        let Some((_, failover)) = self.sentinels[sentinel].running.take() else { return };
        if let (Some(origin), Some(outcome)) = (failover.origin, outcome) {
            self.answer(sentinel, origin, outcome);
        }
        self.next_failover(sentinel);
    }

    /// An attempt begins.
    fn ask_members(&mut self, sentinel: usize) {
        let (now, s) = (self.now, &mut self.sentinels[sentinel]);
        let run = s.run;
        let Some((task, failover)) = &mut s.running else { return };
        let task = *task;
        failover.attempts += 1;
        failover.topology = Arc::clone(&s.view);
        failover.settled = s.health.is_settled(s.clock.read(now), failover.shard());
        failover.answers.clear();
        (failover.is_decidable, failover.is_proposed) = (false, false);
        let shard = failover.shard().id.clone();
        let opened =
            Case::open(&failover.topology, &shard, failover.term, &failover.trigger, failover.settled);
        let members: Vec<NodeId> = match opened {
            Ok(case) => case.questions().map(|n| n.id.clone()).collect(),
            Err(refusal) => return self.end_failover(sentinel, Some(Answered::Refused(refusal.to_string()))),
        };
        detail!("sentinel {sentinel} asks {members:?} because of {:?}", failover.trigger);
        let attempt = failover.attempts;
        for node in (0..NODES).filter(|n| members.contains(&self.machines[*n].id)).collect::<Vec<_>>() {
            self.send_message(network::sentinel(sentinel), node, Message::Question { run, task });
        }
        self.at(ANSWER_LIMIT, Happening::AnswersDue { sentinel, run, task, attempt });
    }

    fn told(&mut self, sentinel: usize, run: u64, task: u64, node: usize, answer: Answer, cut_off: bool) {
        let id = self.machines[node].id.clone();
        let s = &mut self.sentinels[sentinel];
        if s.run != run || !s.is_up {
            return;
        }
        if task == PROBE {
            s.probed.insert(id, answer);
            return;
        }
        if let (Some(removal), Answer::Status(state)) = (s.removals.get_mut(&task), &answer) {
            let is_current = s.view.nodes[&id].incarnation == state.incarnation;
            removal.contacts.insert(id, Contact { usable: state.usable && is_current, cut_off });
            return;
        }
        let Some((_, failover)) =
            s.running.as_mut().filter(|(running, f)| *running == task && !f.is_proposed)
        else {
            return;
        };
        failover.answers.entry(id).or_insert(answer);
        let (attempt, case) = (failover.attempts, failover.case());
        if case.is_complete(&failover.answers) {
            return self.decide(sentinel);
        }
        if !failover.is_decidable && case.is_decidable(&failover.answers) {
            failover.is_decidable = true;
            self.at(STRAGGLER_LIMIT, Happening::Decide { sentinel, run, task, attempt });
        }
    }

    /// Who has not answered counts as silent.
    pub(super) fn answers_due(&mut self, sentinel: usize, run: u64, task: u64, attempt: u32) {
        if !self.is_under_way(sentinel, run, task, attempt) {
            return;
        }
        if let Some((_, failover)) = &mut self.sentinels[sentinel].running {
            let asked: Vec<NodeId> = failover.case().questions().map(|n| n.id.clone()).collect();
            for id in asked {
                failover.answers.entry(id).or_insert(Answer::Silent);
            }
        }
        self.decide(sentinel);
    }

    pub(super) fn straggler_limit(&mut self, sentinel: usize, run: u64, task: u64, attempt: u32) {
        if self.is_under_way(sentinel, run, task, attempt) {
            self.decide(sentinel);
        }
    }

    fn is_under_way(&self, sentinel: usize, run: u64, task: u64, attempt: u32) -> bool {
        let s = &self.sentinels[sentinel];
        s.run == run
            && s.running
                .as_ref()
                .is_some_and(|(running, f)| *running == task && f.attempts == attempt && !f.is_proposed)
    }

    fn decide(&mut self, sentinel: usize) {
        let s = &mut self.sentinels[sentinel];
        let run = s.run;
        let Some((task, failover)) = &mut s.running else { return };
        let (task, attempt) = (*task, failover.attempts);
        let decision = failover.case().decide(&failover.answers);
        tell!("sentinel {sentinel} decides on {:?}: {decision:?}", failover.answers);
        match decision {
            Decision::Replace(change) => {
                failover.is_proposed = true;
                let command = TopologyCommand::ReplacePrimary(change);
                self.propose(sentinel, command, Purpose::Failover { task });
                self.at(PROPOSAL_LIMIT, Happening::GiveUp { sentinel, run, task, attempt });
            }
            Decision::Keep { reason } | Decision::Wait { reason } => {
                self.end_failover(sentinel, Some(Answered::Refused(reason)));
            }
        }
    }

    fn failover_answered(&mut self, sentinel: usize, task: u64, result: Result<Outcome, Refusal>) {
        let s = &mut self.sentinels[sentinel];
        let Some((_, failover)) = s.running.as_mut().filter(|(running, _)| *running == task) else { return };
        match result.err() {
            None => self.end_failover(sentinel, Some(Answered::Accepted)),
            Some(refusal @ Refusal::StaleTerm { .. }) => {
                self.end_failover(sentinel, Some(Answered::Refused(refusal.to_string())));
            }
            Some(_) if failover.attempts < ATTEMPTS_MAX => self.ask_members(sentinel),
            Some(_) => {
                let reason = "the shard keeps changing: try again".to_owned();
                self.end_failover(sentinel, Some(Answered::Refused(reason)));
            }
        }
    }

    /// No answer to a proposal: whoever waits for it finds out by itself.
    pub(super) fn give_up(&mut self, sentinel: usize, run: u64, task: u64, attempt: u32) {
        let s = &self.sentinels[sentinel];
        let waits = s.run == run
            && s.running.as_ref().is_some_and(|(running, f)| *running == task && f.attempts == attempt);
        if waits {
            self.end_failover(sentinel, None);
        }
    }

    // ------------------------------------------------------------------ the watchdog

    pub(super) fn watchdog(&mut self, sentinel: usize) {
        self.at(WATCHDOG, Happening::Watchdog { sentinel });
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
            let run = s.run;
            for node in 0..NODES {
                self.send_message(network::sentinel(sentinel), node, Message::Question { run, task: PROBE });
            }
        }
        self.spread_to(sentinel);
        let s = &mut self.sentinels[sentinel];
        s.health.note_topology(clock, &s.view);
        if s.looks.is_multiple_of(KEEPALIVE_LOOKS) {
            self.announce(sentinel);
        }
        let s = &mut self.sentinels[sentinel];
        let shard = s.view.shards.values().next().expect("the only shard");
        if s.leads && s.is_idle() && needs_primary(&s.health, &s.view, shard) {
            let term = shard.term;
            s.waiting.push_back((term, Trigger::Watchdog, None));
            self.next_failover(sentinel);
        }
    }
}

/// No primary, or nobody listens at its address any more; as in `keyward_sentinel::control::watchdog`.
fn needs_primary(health: &Health, topology: &Topology, shard: &Shard) -> bool {
    let Some(primary) = &shard.primary else { return true };
    match health.nodes.get(primary).map(|n| &n.answer) {
        Some(Answer::Refused) => true,
        Some(Answer::Status(state)) => topology.nodes[primary].incarnation < state.incarnation,
        Some(Answer::Silent) | None => false,
    }
}
