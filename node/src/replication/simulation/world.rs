//! The simulated world: processes, network, clocks and faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, Term};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::oracle::{Expectation, Oracle};
use super::register::{Candidate, Register};
use crate::gate::{Gate, GateState, Released};
use crate::log::{WriteLog, frames};
use crate::replication::full_sync::{SlotReader, SnapshotSender};
use crate::replication::messages::{
    Ack, Action, Append, Chunk, Closed, Event, HandoffToken, Hello, LinkId, Outcome, Request, RequestId,
    SnapshotPart, Start, SyncKind, UplinkId,
};
use crate::replication::node_core::NodeCore;
use crate::replication::stream::LogStream;
use crate::replication::{Config, RoleStatus, SlotSnapshot, SnapshotEnded};

const NODES: usize = 3;
const SLOTS: u16 = 3;
const FAULTS_END_MS: u64 = 4000;
const CLIENTS_END_MS: u64 = 7500;
const END_MS: u64 = 9000;

fn ms(ms: u64) -> u64 {
    ms * 1_000_000
}

/// What the engine of a simulated node holds: the operations that each slot has seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Keyspace {
    slots: BTreeMap<u16, Vec<u64>>,
    written: BTreeMap<u16, LogIndex>,
}

impl Keyspace {
    fn apply(&mut self, index: LogIndex, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let slot = u16::from_le_bytes([payload[0], payload[1]]);
        let op = u64::from_le_bytes(payload[2..10].try_into().unwrap());
        self.slots.entry(slot).or_default().push(op);
        self.written.insert(slot, index);
    }
}

fn payload(slot: u16, op: u64) -> Vec<u8> {
    let mut bytes = slot.to_le_bytes().to_vec();
    bytes.extend_from_slice(&op.to_le_bytes());
    bytes
}

/// The slots of a primary; some count as too large to be read at once.
struct Slots<'a> {
    keyspace: &'a Keyspace,
    index: LogIndex,
    large: &'a mut Option<Vec<SnapshotPart>>,
}

impl Slots<'_> {
    fn payload(ops: &[u64]) -> Bytes {
        Bytes::from(ops.iter().flat_map(|op| op.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn ops(&self, slot: Slot) -> &[u64] {
        self.keyspace.slots.get(&slot.number()).map_or(&[], |ops| ops)
    }
}

impl SlotReader for Slots<'_> {
    fn read(&mut self, slot: Slot) -> Option<SlotSnapshot> {
        let is_large = self.ops(slot).len() > 3 && slot.number().is_multiple_of(2);
        (!is_large).then(|| SlotSnapshot { index: self.index, payload: Self::payload(self.ops(slot)) })
    }

    fn read_large(&mut self, slots: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
        if self.large.is_none() {
            let mut parts = Vec::new();
            for &slot in slots {
                let ops = self.ops(slot);
                let (first, second) = ops.split_at(ops.len() / 2);
                let part = |ops, is_last| SnapshotPart {
                    slot,
                    index: self.index,
                    payload: Self::payload(ops),
                    is_last,
                };
                parts.extend([part(second, true), part(first, false)]);
            }
            *self.large = Some(parts);
        }
        Ok(self.large.as_mut().and_then(Vec::pop).into_iter().collect())
    }

    fn last_index(&self) -> LogIndex {
        self.index
    }
}

/// A reply that waits for its entries.
#[derive(Debug)]
struct Held {
    generation: u64,
    index: LogIndex,
    kind: HeldKind,
}

#[derive(Debug)]
enum HeldKind {
    Write { slot: u16, op: u64 },
    Read { expected: Expectation, list: Vec<u64> },
}

#[derive(Debug)]
enum Sender {
    /// With the parts of large slots that are still to be sent.
    Snapshot(Box<SnapshotSender>, Option<Vec<SnapshotPart>>),
    Log(LogStream),
}

#[derive(Debug)]
struct Process {
    core: NodeCore,
    log: WriteLog,
    gate: Gate,
    incarnation: Incarnation,
    keyspace: Keyspace,
    applied: LogIndex,
    epoch: u64,
    indexes: Option<Arc<[LogIndex]>>,
    held: Vec<Held>,
    senders: BTreeMap<LinkId, Sender>,
    links: BTreeMap<LinkId, usize>,
    uplinks: BTreeMap<UplinkId, usize>,
    checked_last: Position,
    checked_term: Term,
    /// The generation in which the gate was last open: what a late command has seen.
    open_generation: u64,
}

#[derive(Debug)]
enum Power {
    On(Box<Process>),
    /// What the disk kept.
    Off(Option<Box<(WriteLog, Keyspace)>>),
}

#[derive(Debug)]
struct Machine {
    id: NodeId,
    power: Power,
    paused_until: u64,
    /// Its clock's speed, in thousandths, and its start.
    rate: u64,
    offset: u64,
    /// Cut off from the machine with that number; [`NODES`] stands for the register.
    cut: [bool; NODES + 1],
}

impl Machine {
    fn clock(&self, now: u64) -> Monotonic {
        Monotonic::from_nanos(self.offset + now / 1000 * self.rate)
    }

    fn process(&mut self) -> Option<&mut Process> {
        match &mut self.power {
            Power::On(process) => Some(process),
            Power::Off(_) => None,
        }
    }
}

#[derive(Debug)]
enum Wire {
    Hello(Box<Hello>),
    Ack(Ack),
    Start(Start),
    Append(Append),
    Chunk(Chunk),
    Reject,
    /// The other side has closed, or its kernel says that it is gone.
    End,
}

/// One stream between a replica and a primary.
#[derive(Debug)]
struct Conn {
    replica: (usize, Incarnation, UplinkId),
    primary: (usize, Incarnation, LinkId),
    open: bool,
    to_primary: VecDeque<(u64, Wire)>,
    to_replica: VecDeque<(u64, Wire)>,
}

#[derive(Debug)]
enum Happening {
    Wake(usize, Incarnation),
    Step(usize, Incarnation, Event),
    ApplySome(usize, Incarnation, u64, LogIndex),
    Pump {
        conn: usize,
        to_primary: bool,
    },
    Connect {
        from: usize,
        incarnation: Incarnation,
        uplink: UplinkId,
        to: usize,
        hello: Box<Hello>,
    },
    Asked {
        from: usize,
        incarnation: Incarnation,
        id: RequestId,
        request: Request,
    },
    DecideFailover {
        from: usize,
        incarnation: Incarnation,
        id: RequestId,
        term: Term,
        candidates: Vec<Candidate>,
        primary_gone: bool,
    },
    RegisterWatch,
    Client,
    Fault,
    Restart(usize),
}

#[derive(Debug)]
pub(super) struct World {
    rng: StdRng,
    now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<(u64, u64), Happening>,
    machines: Vec<Machine>,
    conns: Vec<Conn>,
    register: Register,
    oracle: Oracle,
    config: Config,
    next_op: u64,
    next_link: u64,
    next_token: u64,
    /// Print what happens.
    trace: bool,
    counts: [usize; 5],
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids: Vec<NodeId> = (0..NODES).map(|n| NodeId::from_random([n as u8 + 1; 20])).collect();
        let register = Register::new(&ids);
        let machines = ids.iter().map(|id| Machine {
            id: id.clone(),
            power: Power::Off(None),
            paused_until: 0,
            rate: rng.random_range(960..1040),
            offset: rng.random_range(1..1u64 << 40),
            cut: [false; NODES + 1],
        });
        let machines = machines.collect();
        let config = Config { handoff_timeout: Duration::from_millis(300), ..Config::default() };
        let mut world = World {
            rng,
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            machines,
            conns: Vec::new(),
            register,
            oracle: Oracle::default(),
            config,
            next_op: 0,
            next_link: 0,
            next_token: 0,
            trace: std::env::var_os("KEYWARD_TRACE").is_some(),
            counts: [0; 5],
        };
        for n in 0..NODES {
            world.start(n, Incarnation::new(1), None);
        }
        world.at(0, Happening::RegisterWatch);
        world.at(0, Happening::Client);
        world.at(ms(300), Happening::Fault);
        world
    }

    fn at(&mut self, delay: u64, happening: Happening) {
        self.seq += 1;
        let key = (self.now + delay, self.seq);
        self.queue.push(Reverse(key));
        self.happenings.insert(key, happening);
    }

    fn latency(&mut self) -> u64 {
        let micros = if self.rng.random_bool(0.02) { 20_000 } else { 500 };
        self.rng.random_range(20..micros) * 1000
    }

    pub(super) fn run(mut self) -> [usize; 5] {
        while let Some(Reverse(key)) = self.queue.pop() {
            if key.0 > ms(END_MS) {
                break;
            }
            self.now = key.0;
            let happening = self.happenings.remove(&key).expect("queued");
            self.happen(happening);
        }
        self.check_converged();
        self.counts[2] = self.register.shard().term.get() as usize;
        self.counts
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(n, incarnation) => self.step(n, incarnation, Event::Tick),
            Happening::Step(n, incarnation, event) => self.step(n, incarnation, event),
            Happening::ApplySome(n, incarnation, epoch, target) => {
                self.apply_some(n, incarnation, epoch, target)
            }
            Happening::Pump { conn, to_primary } => self.pump(conn, to_primary),
            Happening::Connect { from, incarnation, uplink, to, hello } => {
                self.connect(from, incarnation, uplink, to, hello);
            }
            Happening::Asked { from, incarnation, id, request } => self.asked(from, incarnation, id, request),
            Happening::DecideFailover { from, incarnation, id, term, candidates, primary_gone } => {
                // Memory is lost only while enough other members are known: a candidate that died since it was asked
                // must not become the only member.
                let alive = |c: &Candidate| {
                    self.machines.iter().any(|m| m.id == c.node && matches!(m.power, Power::On(_)))
                };
                let candidates: Vec<Candidate> = candidates.into_iter().filter(alive).collect();
                let done = self.register.replace_primary(term, &candidates, primary_gone);
                let outcome = if done { Outcome::Accepted } else { Outcome::Refused("nobody fits".into()) };
                self.answer(from, incarnation, id, outcome);
            }
            Happening::RegisterWatch => self.register_watch(),
            Happening::Client => self.client(),
            Happening::Fault => self.fault(),
            Happening::Restart(n) => self.restart(n),
        }
    }

    // ------------------------------------------------------------------ processes

    fn start(&mut self, n: usize, incarnation: Incarnation, disk: Option<(WriteLog, Keyspace)>) {
        let capacity = if self.rng.random_bool(0.3) { 4 << 10 } else { 1 << 20 };
        let (mut log, keyspace) = disk.unwrap_or_else(|| (WriteLog::new(capacity), Keyspace::default()));
        log.set_capacity_bytes(capacity);
        let machine = &mut self.machines[n];
        let now = machine.clock(self.now);
        let applied = log.last().index;
        let core = NodeCore::new(self.config.clone(), machine.id.clone(), incarnation, &log, applied, now);
        let process = Process {
            core,
            applied: log.last().index,
            checked_last: log.last(),
            log,
            gate: Gate::replicated(),
            incarnation,
            keyspace,
            epoch: 0,
            indexes: None,
            held: Vec::new(),
            senders: BTreeMap::new(),
            links: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            checked_term: Term::ZERO,
            open_generation: 0,
        };
        machine.power = Power::On(Box::new(process));
        let topology = self.register.snapshot();
        self.step(n, incarnation, Event::TopologyChanged(topology));
        self.at(ms(1), Happening::Wake(n, incarnation));
    }

    fn step(&mut self, n: usize, incarnation: Incarnation, event: Event) {
        let now = self.now;
        let machine = &mut self.machines[n];
        if machine.process().is_none_or(|p| p.incarnation != incarnation) {
            return;
        }
        if now < machine.paused_until {
            let delay = machine.paused_until - now;
            self.at(delay, Happening::Step(n, incarnation, event));
            return;
        }
        let is_tick = matches!(event, Event::Tick);
        let clock = machine.clock(now);
        let process = machine.process().expect("checked");
        let mut actions = Vec::new();
        let traced =
            self.trace && !matches!(event, Event::Tick | Event::AckReceived(..) | Event::AppendReceived(..));
        if traced {
            let text = format!("{event:?}");
            eprintln!("{:.3} node {n}.{incarnation} {:.400}", now as f64 / 1e6, text);
        }
        process.core.step(clock, event, &mut process.log, &mut actions);
        let view = process.core.view(&process.log);
        if process.gate.state() == GateState::Primary {
            process.open_generation = process.gate.generation();
        }
        process.gate.set_auto_commit(view.auto_commit);
        process.gate.publish(&view, clock);
        process.core.check_invariants(&process.log);
        process.log.check_invariants();
        let deadline = process.core.next_deadline(clock);
        if is_tick {
            let delay = u64::try_from(deadline.since(clock).as_nanos()).unwrap().max(ms(1));
            self.at(delay, Happening::Wake(n, incarnation));
        }
        self.watch_log(n);
        for action in actions {
            if self.trace && !matches!(action, Action::SendAck(..) | Action::ApplyUpTo { .. }) {
                eprintln!(
                    "{:.3} node {n}.{incarnation}   -> {:.300}",
                    now as f64 / 1e6,
                    format!("{action:?}")
                );
            }
            self.act(n, incarnation, action);
        }
        self.send(n);
        self.release_replies(n);
        self.check_world();
    }

    fn act(&mut self, n: usize, incarnation: Incarnation, action: Action) {
        let now = self.now;
        let machine = &mut self.machines[n];
        let Some(process) = machine.process() else { return };
        match action {
            Action::Quiesce => {
                if self.rng.random_bool(0.5) {
                    self.late_write(n);
                }
                let delay = self.rng.random_range(0..ms(3));
                self.at(delay, Happening::Step(n, incarnation, Event::Quiesced));
            }
            Action::ApplyUpTo { index, .. } => {
                let epoch = process.epoch;
                let delay = self.latency();
                self.at(delay, Happening::ApplySome(n, incarnation, epoch, index));
            }
            Action::ClearKeyspace { epoch } => {
                self.counts[3] += 1;
                process.keyspace = Keyspace::default();
                process.epoch = epoch;
                process.applied = LogIndex::ZERO;
                process.indexes = None;
            }
            Action::KeepSlots(kept) => {
                let is_kept = |number: &u16| kept.contains(Slot::new(*number).unwrap());
                process.keyspace.slots.retain(|slot, _| is_kept(slot));
                process.keyspace.written.retain(|slot, _| is_kept(slot));
                self.counts[4] += 1;
            }
            Action::ApplySnapshot(parts) => {
                for part in parts {
                    for op in part.payload.chunks(8) {
                        let op = u64::from_le_bytes(op.try_into().unwrap());
                        process.keyspace.slots.entry(part.slot.number()).or_default().push(op);
                        process.keyspace.written.insert(part.slot.number(), part.index);
                    }
                }
            }
            Action::FinishSnapshot { from, indexes } => {
                process.applied = from;
                process.indexes = Some(indexes);
                let epoch = process.epoch;
                self.at(0, Happening::Step(n, incarnation, Event::Applied { epoch, index: from }));
            }
            Action::ForgetSlotIndexes => process.indexes = None,
            Action::Connect { uplink, hello, .. } => {
                let primary = process.core.topology().shard_of(&hello.node).and_then(|s| s.primary.clone());
                let to =
                    self.machines.iter().position(|m| Some(&m.id) == primary.as_ref()).expect("a known node");
                let delay = self.latency();
                self.at(delay, Happening::Connect { from: n, incarnation, uplink, to, hello });
            }
            Action::SendAck(uplink, ack) => {
                if let Some(&conn) = process.uplinks.get(&uplink) {
                    self.transmit(conn, true, Wire::Ack(ack));
                }
            }
            Action::Disconnect(uplink) => {
                if let Some(conn) = process.uplinks.remove(&uplink) {
                    self.transmit(conn, true, Wire::End);
                }
            }
            Action::StartLink(link, start, resume) => {
                let sender = match start.sync {
                    SyncKind::Partial(from) => {
                        Sender::Log(LogStream::new(start.term, from.index, self.config.beacon_interval()))
                    }
                    SyncKind::Full | SyncKind::Resume(_) => {
                        let sender = match resume {
                            Some(resume) => SnapshotSender::resume(start.term, resume),
                            None => SnapshotSender::new(start.term, process.log.last()),
                        };
                        Sender::Snapshot(Box::new(sender), None)
                    }
                };
                process.senders.insert(link, sender);
                let conn = process.links[&link];
                self.transmit(conn, false, Wire::Start(start));
            }
            Action::Reject { link, .. } => {
                if let Some(conn) = process.links.remove(&link) {
                    self.transmit(conn, false, Wire::Reject);
                }
            }
            Action::CloseLink(link) => {
                process.senders.remove(&link);
                if let Some(conn) = process.links.remove(&link) {
                    self.transmit(conn, false, Wire::End);
                }
            }
            Action::Ask(id, request) => {
                let delay = if self.rng.random_bool(0.1) {
                    ms(self.rng.random_range(50..800))
                } else {
                    self.latency()
                };
                let lost = now < ms(FAULTS_END_MS) && self.rng.random_bool(0.1);
                if !lost {
                    self.at(delay, Happening::Asked { from: n, incarnation, id, request });
                }
                let timeout = Event::RequestAnswered(id, Outcome::Unknown);
                self.at(ms(200), Happening::Step(n, incarnation, timeout));
            }
            Action::HandoffEnded(..) => {}
            Action::Superseded => self.crash(n, false),
        }
    }

    fn apply_some(&mut self, n: usize, incarnation: Incarnation, epoch: u64, target: LogIndex) {
        let now = self.now;
        let paused_until = self.machines[n].paused_until;
        if now < paused_until {
            self.at(paused_until - now, Happening::ApplySome(n, incarnation, epoch, target));
            return;
        }
        let Some(process) = self.machines[n].process() else { return };
        if process.incarnation != incarnation || process.epoch != epoch {
            return;
        }
        apply_log(process, target);
        self.step(n, incarnation, Event::Applied { epoch, index: target });
    }

    /// Sends whatever the streams of a primary have to say.
    fn send(&mut self, n: usize) {
        let clock = self.machines[n].clock(self.now);
        let Some(process) = self.machines[n].process() else { return };
        let mut messages = Vec::new();
        let mut trimmed = Vec::new();
        let Process { senders, log, keyspace, gate, links, core, .. } = process;
        let sending_term = core.view(log).sending_term;
        for (link, sender) in senders.iter_mut() {
            if let Sender::Snapshot(snapshot, large) = sender {
                let mut slots = Slots { keyspace, index: log.last().index, large };
                // A chunk per step, so that writes come in between.
                let chunk = snapshot.next_chunk(clock, &mut slots).expect("large slots are there");
                let Some(chunk) = chunk else { continue };
                let (end, from) = (chunk.end, chunk.from);
                messages.push((links[link], Wire::Chunk(chunk)));
                if end.is_some() {
                    let beacon = self.config.beacon_interval();
                    *sender = Sender::Log(LogStream::new(sending_term, from.index, beacon));
                }
                continue;
            }
            if let Sender::Log(stream) = sender {
                match stream.next_append(clock, log, gate.commit_index()) {
                    Ok(Some(append)) => messages.push((links[link], Wire::Append(append))),
                    Ok(None) => {}
                    Err(_) => trimmed.push(*link),
                }
            }
        }
        let incarnation = process.incarnation;
        for (conn, wire) in messages {
            self.transmit(conn, false, wire);
        }
        for link in trimmed {
            let process = self.machines[n].process().expect("on");
            process.senders.remove(&link);
            let conn = process.links.remove(&link).expect("a live link");
            self.transmit(conn, false, Wire::End);
            self.at(0, Happening::Step(n, incarnation, Event::LinkClosed(link)));
        }
    }

    // ------------------------------------------------------------------ network

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.machines.get(a).is_some_and(|m| m.cut[b]) || self.machines.get(b).is_some_and(|m| m.cut[a])
    }

    fn connect(
        &mut self,
        from: usize,
        incarnation: Incarnation,
        uplink: UplinkId,
        to: usize,
        hello: Box<Hello>,
    ) {
        let cut = self.is_cut(from, to);
        if self.machines[from].process().is_none_or(|p| p.incarnation != incarnation) {
            return;
        }
        if cut {
            self.at(ms(100), Happening::Step(from, incarnation, Event::UplinkClosed(uplink, Closed::Broken)));
            return;
        }
        let Some(target) = self.machines[to].process() else {
            let delay = self.latency();
            self.at(delay, Happening::Step(from, incarnation, Event::UplinkClosed(uplink, Closed::Refused)));
            return;
        };
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let conn = self.conns.len();
        let primary = (to, target.incarnation, link);
        target.links.insert(link, conn);
        self.conns.push(Conn {
            replica: (from, incarnation, uplink),
            primary,
            open: true,
            to_primary: VecDeque::new(),
            to_replica: VecDeque::new(),
        });
        self.machines[from].process().expect("checked").uplinks.insert(uplink, conn);
        self.transmit(conn, true, Wire::Hello(hello));
    }

    fn transmit(&mut self, conn: usize, to_primary: bool, wire: Wire) {
        let arrival = self.now + self.latency();
        let c = &mut self.conns[conn];
        let queue = if to_primary { &mut c.to_primary } else { &mut c.to_replica };
        let arrival = queue.back().map_or(arrival, |(at, _)| arrival.max(*at));
        queue.push_back((arrival, wire));
        self.at(arrival - self.now, Happening::Pump { conn, to_primary });
    }

    fn pump(&mut self, conn: usize, to_primary: bool) {
        let c = &self.conns[conn];
        let (replica, primary) = (c.replica, c.primary);
        if self.is_cut(replica.0, primary.0) {
            self.at(ms(5), Happening::Pump { conn, to_primary });
            return;
        }
        let receiver = if to_primary { primary.0 } else { replica.0 };
        let paused_until = self.machines[receiver].paused_until;
        if self.now < paused_until {
            self.at(paused_until - self.now, Happening::Pump { conn, to_primary });
            return;
        }
        let c = &mut self.conns[conn];
        let queue = if to_primary { &mut c.to_primary } else { &mut c.to_replica };
        let due = queue.front().is_some_and(|(at, _)| *at <= self.now);
        let Some((_, wire)) = queue.pop_front().filter(|_| due) else { return };
        let (n, incarnation) = if to_primary { (primary.0, primary.1) } else { (replica.0, replica.1) };
        let (link, uplink) = (primary.2, replica.2);
        let receiver = self.machines[n].process().filter(|p| p.incarnation == incarnation);
        let Some(process) = receiver else {
            // Its kernel answers for it.
            if !matches!(wire, Wire::End) {
                self.transmit(conn, !to_primary, Wire::End);
            }
            return;
        };
        let event = match wire {
            Wire::Hello(hello) => Event::HelloReceived(link, *hello),
            Wire::Ack(ack) => Event::AckReceived(link, ack),
            Wire::Start(start) => Event::StartReceived(uplink, start),
            Wire::Append(append) => Event::AppendReceived(uplink, append),
            Wire::Chunk(chunk) => Event::ChunkReceived(uplink, chunk),
            Wire::Reject => Event::RejectReceived(uplink),
            Wire::End if to_primary => {
                process.links.remove(&link);
                process.senders.remove(&link);
                Event::LinkClosed(link)
            }
            Wire::End => {
                process.uplinks.remove(&uplink);
                Event::UplinkClosed(uplink, Closed::Broken)
            }
        };
        self.step(n, incarnation, event);
    }

    // ------------------------------------------------------------------ sentinels

    fn asked(&mut self, from: usize, incarnation: Incarnation, id: RequestId, request: Request) {
        // What a process that is gone has asked for is lost with it: otherwise the last member could be removed, and
        // this world has no disks to survive that.
        let gone = self.machines[from].process().is_none_or(|p| p.incarnation != incarnation);
        if gone || (self.is_cut(from, NODES) && self.rng.random_bool(0.5)) {
            return;
        }
        let Request::Failover { term, .. } = request else {
            let who = self.machines[from].id.clone();
            let outcome = self.register.change_in_sync(&who, &request);
            self.answer(from, incarnation, id, outcome);
            return;
        };
        if self.register.shard().term != term {
            self.answer(from, incarnation, id, Outcome::Refused("stale".into()));
            return;
        }
        self.consider_failover(from, incarnation, id, term);
    }

    fn consider_failover(&mut self, from: usize, incarnation: Incarnation, id: RequestId, term: Term) {
        let primary = self.register.shard().primary.clone();
        let at = self.machines.iter().position(|m| Some(&m.id) == primary.as_ref());
        let now = self.now;
        let reachable = |world: &World, n: usize| {
            !world.is_cut(n, NODES)
                && world.machines[n].paused_until <= now
                && matches!(world.machines[n].power, Power::On(_))
        };
        let others = (0..NODES).filter(|&n| Some(n) != at && n != from);
        let heard_by_others =
            at.is_some_and(|p| others.clone().any(|n| reachable(self, n) && !self.is_cut(p, n)));
        if at.is_some_and(|p| reachable(self, p)) && heard_by_others {
            let who = self.machines[from].id.clone();
            self.register.remove_complainer(&who, term);
            self.answer(from, incarnation, id, Outcome::Refused("the primary answers".into()));
            return;
        }
        let primary_gone = at.is_none_or(|p| matches!(self.machines[p].power, Power::Off(_)));
        let mut candidates = Vec::new();
        for n in (0..NODES).filter(|&n| Some(n) != at) {
            if !reachable(self, n) {
                continue;
            }
            let clock = self.machines[n].clock(now);
            let node = self.machines[n].id.clone();
            let process = self.machines[n].process().expect("reachable");
            let status = process.core.status(clock, &process.log);
            if status.consistent {
                candidates.push(Candidate { node, incarnation: process.incarnation, last: status.last });
            }
        }
        let delay = self.rng.random_range(ms(1)..ms(30));
        self.at(delay, Happening::DecideFailover { from, incarnation, id, term, candidates, primary_gone });
    }

    fn answer(&mut self, to: usize, incarnation: Incarnation, id: RequestId, outcome: Outcome) {
        let delay = self.latency();
        if self.is_cut(to, NODES) || self.rng.random_bool(0.05) {
            return;
        }
        let topology = self.register.snapshot();
        self.at(delay, Happening::Step(to, incarnation, Event::TopologyChanged(topology)));
        self.at(delay, Happening::Step(to, incarnation, Event::RequestAnswered(id, outcome)));
    }

    /// Pushes the topology to everybody, and looks for a primary if there is none.
    fn register_watch(&mut self) {
        for n in 0..NODES {
            if self.is_cut(n, NODES) || self.rng.random_bool(0.3) {
                continue;
            }
            let delay = self.latency();
            let topology: Arc<Topology> = self.register.snapshot();
            if let Some(process) = self.machines[n].process() {
                let incarnation = process.incarnation;
                self.at(delay, Happening::Step(n, incarnation, Event::TopologyChanged(topology)));
            }
        }
        if self.register.shard().primary.is_none() {
            let term = self.register.shard().term;
            self.consider_failover(0, Incarnation::ZERO, RequestId(0), term);
        }
        self.at(ms(10), Happening::RegisterWatch);
    }

    // ------------------------------------------------------------------ clients

    fn client(&mut self) {
        if ms(CLIENTS_END_MS) < self.now {
            return;
        }
        let n = self.rng.random_range(0..NODES);
        let slot = self.rng.random_range(0..SLOTS);
        let expected = self.oracle.expectation(slot);
        let write = self.rng.random_bool(0.5);
        let op = self.next_op;
        let now = self.now;
        let machine = &mut self.machines[n];
        let clock = machine.clock(now);
        let paused = now < machine.paused_until;
        if let Some(process) = machine.process().filter(|_| !paused)
            && process.gate.state() == GateState::Primary
            && process.gate.lease_valid(clock)
        {
            let generation = process.gate.generation();
            if !write {
                let list = process.keyspace.slots.get(&slot).cloned().unwrap_or_default();
                let index = process.keyspace.written.get(&slot).copied().unwrap_or_default();
                process.held.push(Held { generation, index, kind: HeldKind::Read { expected, list } });
            } else if process.gate.writable() {
                execute_write(process, generation, slot, op);
                self.next_op += 1;
            }
            self.watch_log(n);
            self.send(n);
            self.release_replies(n);
        }
        let delay = self.rng.random_range(ms(1) / 5..ms(4));
        self.at(delay, Happening::Client);
    }

    /// A command that saw the gate open before it closed.
    fn late_write(&mut self, n: usize) {
        let op = self.next_op;
        let Some(process) = self.machines[n].process() else { return };
        assert_ne!(
            process.gate.state(),
            GateState::Primary,
            "the gate is closed before the threads are waited for"
        );
        if process.log.last().term == process.gate.term() {
            self.next_op += 1;
            execute_write(process, process.open_generation, 0, op);
            self.watch_log(n);
        }
    }

    fn release_replies(&mut self, n: usize) {
        let Some(process) = self.machines[n].process() else { return };
        let Process { held, gate, .. } = process;
        let mut leaving = Vec::new();
        let mut waiting = Vec::new();
        for reply in held.drain(..) {
            match gate.released(reply.generation) {
                Released::UpTo(index) | Released::Ended(index) if reply.index <= index => leaving.push(reply),
                Released::UpTo(_) => waiting.push(reply),
                Released::Ended(_) => {}
            }
        }
        *held = waiting;
        for reply in leaving {
            match reply.kind {
                HeldKind::Write { slot, op } => {
                    self.counts[0] += 1;
                    self.oracle.acknowledge(slot, op);
                }
                HeldKind::Read { expected, list } => {
                    self.counts[1] += 1;
                    self.oracle.read(&expected, &list);
                }
            }
        }
    }

    // ------------------------------------------------------------------ faults

    fn fault(&mut self) {
        if self.now >= ms(FAULTS_END_MS) {
            for machine in &mut self.machines {
                machine.cut = [false; NODES + 1];
                machine.paused_until = machine.paused_until.min(self.now);
            }
            return;
        }
        let n = self.rng.random_range(0..NODES);
        let other = self.rng.random_range(0..=NODES);
        match self.rng.random_range(0..9) {
            0 | 8 => self.crash(n, true),
            1 => self.machines[n].paused_until = self.now + ms(self.rng.random_range(10..1200)),
            2 if n != other => self.machines[n].cut[other] = true,
            3 => self.machines[n].cut = std::array::from_fn(|m| m != n),
            4 => self.break_conns(n),
            5 => {
                let target = self.rng.random_bool(0.5).then(|| self.machines[other % NODES].id.clone());
                self.next_token += 1;
                let token = HandoffToken(self.next_token);
                if let Some(process) = self.machines[n].process() {
                    let incarnation = process.incarnation;
                    self.step(n, incarnation, Event::HandoffRequested(token, target));
                }
            }
            _ => self.machines.iter_mut().for_each(|m| m.cut = [false; NODES + 1]),
        }
        let delay = ms(self.rng.random_range(5..250));
        self.at(delay, Happening::Fault);
    }

    fn break_conns(&mut self, n: usize) {
        for conn in 0..self.conns.len() {
            let c = &self.conns[conn];
            if c.open && (c.replica.0 == n || c.primary.0 == n) {
                self.conns[conn].open = false;
                self.transmit(conn, true, Wire::End);
                self.transmit(conn, false, Wire::End);
            }
        }
    }

    /// Ends a process. Only what the shard can bear without its memory: the last member keeps its disk.
    fn crash(&mut self, n: usize, may_lose_memory: bool) {
        if matches!(self.machines[n].power, Power::Off(_)) {
            return;
        }
        if self.trace {
            eprintln!("{:.3} node {n} crashes", self.now as f64 / 1e6);
        }
        let shard = self.register.shard();
        let survivor = shard.in_sync.difference(&shard.restarted).any(|id| {
            let m = self.machines.iter().position(|m| m.id == *id).expect("known");
            m != n && matches!(self.machines[m].power, Power::On(_))
        });
        // With a second member left, a removal of that member may be on its way: then this one is the last.
        let safe = survivor && shard.in_sync.difference(&shard.restarted).count() == NODES;
        let lose = may_lose_memory && safe && self.rng.random_bool(0.7);
        let machine = &mut self.machines[n];
        let Power::On(process) = std::mem::replace(&mut machine.power, Power::Off(None)) else { return };
        machine.paused_until = 0;
        let open: Vec<(usize, bool)> = process
            .links
            .values()
            .map(|c| (*c, false))
            .chain(process.uplinks.values().map(|c| (*c, true)))
            .collect();
        let whole = process.core.status(Monotonic::ZERO, &process.log).consistent;
        if !lose && whole {
            let mut process = process;
            // At its start a node replays its whole log.
            let last = process.log.last().index;
            apply_log(&mut process, last);
            machine.power = Power::Off(Some(Box::new((process.log, process.keyspace))));
        }
        for (conn, to_primary) in open {
            self.transmit(conn, to_primary, Wire::End);
        }
        let delay = ms(self.rng.random_range(10..500));
        self.at(delay, Happening::Restart(n));
    }

    fn restart(&mut self, n: usize) {
        if self.is_cut(n, NODES) {
            self.at(ms(50), Happening::Restart(n));
            return;
        }
        let machine = &mut self.machines[n];
        let Power::Off(disk) = &mut machine.power else { return };
        let disk = disk.take().map(|disk| *disk);
        let incarnation = self.register.register(&self.machines[n].id.clone());
        self.start(n, incarnation, disk);
    }

    // ------------------------------------------------------------------ invariants

    /// Invariants 4 and 5, and what is committed.
    fn watch_log(&mut self, n: usize) {
        let Some(process) = self.machines[n].process() else { return };
        let Process { log, gate, core, checked_last, checked_term, .. } = process;
        let before_first = LogIndex::new(log.first_index().get() - 1);
        let mut next = checked_last.index.min(log.last().index).max(before_first).next();
        while next <= log.last().index {
            let slice = log.read_from(next, 1 << 20).expect("held");
            let mut previous = slice.previous;
            for payload in frames(&slice.bytes) {
                let position = Position { term: slice.term, index: next };
                self.oracle.appended(position, previous, payload);
                previous = position;
                next = next.next();
            }
        }
        *checked_last = log.last();
        let term = core.view(log).sending_term;
        if term == Term::ZERO {
            return;
        }
        if *checked_term != term {
            *checked_term = term;
            // Whoever learns late that it was elected may find that a later primary has committed meanwhile.
            let earlier = self.oracle.committed_terms().iter().take_while(|t| **t < term);
            for (i, committed) in earlier.enumerate() {
                let index = LogIndex::new(i as u64 + 1);
                assert!(index <= log.last().index, "a later primary ends before committed entry {index}");
                let same = log.term_at(index).is_none_or(|held| held == *committed);
                assert!(same, "a later primary lacks committed entry {index}");
            }
        }
        for index in self.oracle.committed_len() as u64 + 1..=gate.commit_index().get() {
            let index = LogIndex::new(index);
            self.oracle.committed(index, log.term_at(index).expect("within the log"));
        }
    }

    /// Invariants 2 and 3.
    fn check_world(&mut self) {
        let now = self.now;
        let mut serving = Vec::new();
        for (n, machine) in self.machines.iter().enumerate() {
            if let Power::On(process) = &machine.power
                && process.gate.state() == GateState::Primary
                && process.gate.lease_valid(machine.clock(now))
            {
                serving.push(n);
            }
        }
        assert!(serving.len() <= 1, "two primaries serve at {now}: {serving:?}");
        let shard = self.register.shard();
        let of = |id: &NodeId| self.machines.iter().find(|m| m.id == *id);
        let on = |id: &NodeId| match of(id).map(|m| &m.power) {
            Some(Power::On(process))
                if self.register.topology.nodes[id].incarnation == process.incarnation =>
            {
                Some(process)
            }
            Some(Power::On(_) | Power::Off(_)) | None => None,
        };
        let Some(primary) = shard.primary.as_ref().and_then(on) else { return };
        let view = primary.core.view(&primary.log);
        if view.sending_term != shard.term {
            return;
        }
        for id in shard.in_sync.difference(&shard.restarted) {
            if let Some(member) = on(id) {
                let (held, commit) = (member.log.last().index, primary.gate.commit_index());
                assert!(commit <= held, "{commit} is committed at {now}, but member {id:?} holds {held}");
                let status = member.core.status(Monotonic::ZERO, &member.log);
                assert!(status.consistent, "member {id:?} is not consistent");
            }
        }
    }

    /// Invariant 9.
    fn check_converged(&mut self) {
        let shard = self.register.shard().clone();
        let primary = shard.primary.clone().expect("the shard has a primary");
        assert_eq!(shard.in_sync.len(), NODES, "{shard:?}");
        assert!(shard.restarted.is_empty());
        let mut keyspaces = Vec::new();
        for machine in &mut self.machines {
            let clock = machine.clock(ms(END_MS));
            let is_primary = machine.id == primary;
            let process = machine.process().expect("everything is up");
            let status = process.core.status(clock, &process.log);
            assert_eq!(matches!(status.role, RoleStatus::Primary { .. }), is_primary);
            if is_primary {
                assert_eq!(process.gate.state(), GateState::Primary);
                assert!(process.gate.lease_valid(clock) && process.gate.writable());
                assert!(process.held.is_empty(), "replies still wait");
            }
            assert_eq!((status.commit, status.applied), (status.last.index, status.last.index));
            keyspaces.push(process.keyspace.slots.clone());
        }
        assert!(keyspaces.windows(2).all(|w| w[0] == w[1]), "the keyspaces differ");
    }
}

fn apply_log(process: &mut Process, target: LogIndex) {
    while process.applied < target {
        let slice =
            process.log.read_from(process.applied.next(), 1 << 16).expect("unapplied entries are kept");
        assert!(slice.count > 0, "told to apply beyond the log");
        for payload in frames(&slice.bytes) {
            let index = process.applied.next();
            if index > target {
                break;
            }
            let filtered = payload.first_chunk::<2>().is_some_and(|slot| {
                let slot = usize::from(u16::from_le_bytes(*slot));
                process.indexes.as_ref().is_some_and(|i| index <= i[slot])
            });
            if !filtered {
                process.keyspace.apply(index, payload);
            }
            process.applied = index;
        }
    }
}

fn execute_write(process: &mut Process, generation: u64, slot: u16, op: u64) {
    let payload = payload(slot, op);
    let index = process.log.append(process.gate.term(), &payload);
    process.keyspace.apply(index, &payload);
    process.applied = index;
    process.held.push(Held { generation, index, kind: HeldKind::Write { slot, op } });
    if process.gate.auto_commits() {
        process.gate.advance_commit(index);
    }
}
