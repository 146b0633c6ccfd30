//! A simulated node: the real core, log and gate, and around them what the shells of `keyward-node` do with tasks,
//! threads and sockets: carry out actions, apply entries, send the log, hold replies.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyward_node::gate::{Gate, GateState};
use keyward_node::log::{WriteLog, frames};
use keyward_node::replication::SnapshotPart;
use keyward_node::replication::full_sync::SnapshotSender;
use keyward_node::replication::messages::{Action, Event, LinkId, Outcome, SyncKind, UplinkId};
use keyward_node::replication::node_core::NodeCore;
use keyward_node::replication::stream::LogStream;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, Term};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use rand::Rng;

use super::clients::Held;
use super::clocks::Clock;
use super::disk::{Disk, Persistence, Recovered, Writer};
use super::keyspace::{Keyspace, SlotsReader};
use super::network::{Towards, Wire};
use super::sentinel::Message;
use super::story::{detail, tell};
use super::world::{Happening, World};
use super::{NODES, Nanos, ms, network};

/// A registration without an answer is repeated.
const REGISTER_AGAIN: Nanos = ms(200);
/// The whole log is looked through once in so many steps.
const CHECK_LOG_EVERY: u64 = 64;

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
    pub(super) core: NodeCore,
    pub(super) log: WriteLog,
    pub(super) gate: Gate,
    pub(super) incarnation: Incarnation,
    pub(super) keyspace: Keyspace,
    pub(super) applied: LogIndex,
    epoch: u64,
    indexes: Option<Arc<[LogIndex]>>,
    pub(super) held: Vec<Held>,
    pub(super) senders: BTreeMap<LinkId, Sender>,
    /// When each replica was last heard.
    heard: BTreeMap<LinkId, Monotonic>,
    pub(super) links: BTreeMap<LinkId, usize>,
    pub(super) uplinks: BTreeMap<UplinkId, usize>,
    pub(super) writer: Option<Writer>,
    /// The generation in which the gate was last open: what a late command has seen.
    pub(super) open_generation: u64,
    /// The earliest tick that is scheduled.
    wake_at: Nanos,
    steps: u64,
    /// Up to where the invariants have seen the log.
    pub(super) checked: Position,
    pub(super) checked_term: Term,
}

/// A process that has loaded its data and asks the sentinels for its incarnation.
pub(super) struct Starting {
    pub(super) run: u64,
    recovered: Recovered,
}

pub(super) enum Power {
    On(Box<Process>),
    Starting(Box<Starting>),
    Off { has_power: bool },
}

/// A host with its disk and its clock.
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) power: Power,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) paused_until: Nanos,
    /// The sentinel that it talks to.
    pub(super) watched: usize,
    pub(super) heard_of_sentinel: Nanos,
    /// It has not lost anything that it held since it was last taken into the in-sync set.
    pub(super) intact: bool,
}

impl Machine {
    pub(super) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.power {
            Power::On(process) => Some(process),
            Power::Starting(_) | Power::Off { .. } => None,
        }
    }

    pub(super) fn running(&self) -> Option<&Process> {
        match &self.power {
            Power::On(process) => Some(process),
            Power::Starting(_) | Power::Off { .. } => None,
        }
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
        let recovered = machine.disk.recover(capacity);
        self.next_run += 1;
        let run = self.next_run;
        tell!("node {node} starts as process {run} with the log up to {}", recovered.log.last());
        machine.power = Power::Starting(Box::new(Starting { run, recovered }));
        self.register(node, run);
    }

    pub(super) fn register(&mut self, node: usize, run: u64) {
        let machine = &self.machines[node];
        let Power::Starting(starting) = &machine.power else { return };
        if starting.run != run {
            return;
        }
        let (watched, last) = (machine.watched, starting.recovered.log.last());
        self.send_message(node, network::sentinel(watched), Message::Register { node, run, last });
        self.machines[node].watched = self.rng.random_range(0..super::SENTINELS);
        self.at(REGISTER_AGAIN, Happening::Register { node, run });
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
        let Recovered { mut log, keyspace, applied } = starting.recovered;
        let clock = machine.clock.read(now);
        let writer =
            (self.persistence != Persistence::Memory).then(|| Writer::new(now, self.persistence, &mut log));
        let core = NodeCore::new(self.config.clone(), machine.id.clone(), incarnation, &log, applied, clock);
        tell!("node {node} is registered: incarnation {incarnation}");
        let process = Process {
            run,
            core,
            gate: Gate::replicated(),
            incarnation,
            keyspace,
            applied,
            epoch: 0,
            indexes: None,
            held: Vec::new(),
            senders: BTreeMap::new(),
            heard: BTreeMap::new(),
            links: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            writer,
            open_generation: 0,
            wake_at: Nanos::MAX,
            steps: 0,
            checked: Position { term: Term::ZERO, index: LogIndex::ZERO },
            checked_term: Term::ZERO,
            log,
        };
        machine.power = Power::On(Box::new(process));
        machine.heard_of_sentinel = now;
        if self.persistence != Persistence::Memory {
            self.at(ms(1), Happening::Write { node, run });
        }
        self.step(node, run, Event::TopologyChanged(topology));
    }

    // ------------------------------------------------------------------ the core

    /// Runs something at a node, or later if its process stands still.
    pub(super) fn step(&mut self, node: usize, run: u64, event: Event) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        let clock = machine.clock.read(now);
        let Some(process) = machine.process().filter(|p| p.run == run) else { return };
        if now < paused_until {
            return self.at(paused_until - now, Happening::NodeEvent { node, run, event });
        }
        if matches!(event, Event::Tick) {
            process.wake_at = Nanos::MAX;
        } else {
            detail!("node {node} <- {event:?}");
        }
        if let Event::AckReceived(link, _) = &event {
            process.heard.insert(*link, clock);
        }
        let before = (process.gate.state(), process.gate.term(), process.core.topology().version);
        let mut actions = Vec::new();
        process.core.step(clock, event, &mut process.log, &mut actions);
        let view = process.core.view(&process.log);
        if process.gate.state() == GateState::Primary {
            process.open_generation = process.gate.generation();
        }
        process.gate.set_auto_commit(view.auto_commit);
        process.gate.publish(&view, clock);
        process.core.check_invariants(&process.log);
        process.steps += 1;
        if process.steps.is_multiple_of(CHECK_LOG_EVERY) {
            process.log.check_invariants();
        }
        let after = (process.gate.state(), view.term, process.core.topology().version);
        if (before.0, before.2) != (after.0, after.2) {
            let (state, term, version) = after;
            tell!(
                "node {node}: {state:?}, term {term}, last {}, commit {}, topology {version}",
                process.log.last(),
                view.commit
            );
        }
        let deadline = process.core.next_deadline(clock);
        let wait = Nanos::try_from(deadline.since(clock).as_nanos()).expect("soon").max(ms(1) / 5);
        if now + wait < process.wake_at {
            process.wake_at = now + wait;
            self.at(wait, Happening::NodeEvent { node, run, event: Event::Tick });
        }
        self.watch(node);
        for action in actions {
            detail!("node {node}    -> {action:?}");
            self.act(node, run, action);
        }
        self.after_step(node);
    }

    /// What follows whatever has happened at a node: streams send, replies leave, and the invariants hold.
    pub(super) fn after_step(&mut self, node: usize) {
        self.send_log(node);
        self.release_replies(node);
        self.invariants.check(self.now, &self.machines, &self.register);
    }

    fn act(&mut self, node: usize, run: u64, action: Action) {
        let clock = self.machines[node].clock.read(self.now);
        let Some(process) = self.machines[node].process().filter(|p| p.run == run) else { return };
        match action {
            Action::Quiesce => {
                if self.rng.random_bool(0.5) {
                    self.late_write(node);
                }
                let delay = self.rng.random_range(0..ms(3));
                self.at(delay, Happening::NodeEvent { node, run, event: Event::Quiesced });
            }
            Action::ApplyUpTo { index, .. } => {
                let epoch = process.epoch;
                let delay = self.latency();
                self.at(delay, Happening::Apply { node, run, epoch, target: index });
            }
            Action::ClearKeyspace { epoch } => {
                tell!("node {node}: a full sync begins");
                self.counts.full_syncs += 1;
                process.keyspace = Keyspace::default();
                process.epoch = epoch;
                process.applied = LogIndex::ZERO;
                process.indexes = None;
            }
            Action::KeepSlots(kept) => {
                process.keyspace.keep(|slot| kept.contains(slot));
                self.counts.resumed += 1;
            }
            Action::ApplySnapshot(parts) => parts.iter().for_each(|p| process.keyspace.apply_part(p)),
            Action::FinishSnapshot { from, indexes } => {
                process.applied = from;
                process.indexes = Some(indexes);
                let event = Event::Applied { epoch: process.epoch, index: from };
                self.at(0, Happening::NodeEvent { node, run, event });
            }
            Action::ForgetSlotIndexes => {
                tell!("node {node}: the full sync is complete");
                process.indexes = None;
            }
            Action::Connect { uplink, port, hello, .. } => {
                let to = usize::from(port) % NODES;
                let delay = self.latency();
                self.at(delay, Happening::Connect { node, run, uplink, to, hello });
            }
            Action::SendAck(uplink, ack) => {
                if let Some(&stream) = process.uplinks.get(&uplink) {
                    self.transmit(stream, Towards::Primary, Wire::Ack(ack));
                }
            }
            Action::Disconnect(uplink) => {
                if let Some(stream) = process.uplinks.remove(&uplink) {
                    self.transmit(stream, Towards::Primary, Wire::End);
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
                if let Some(&stream) = process.links.get(&link) {
                    process.senders.insert(link, sender);
                    process.heard.insert(link, clock);
                    self.transmit(stream, Towards::Replica, Wire::Start(start));
                }
            }
            Action::Reject { link, .. } => {
                if let Some(stream) = process.links.remove(&link) {
                    self.transmit(stream, Towards::Replica, Wire::Reject);
                }
            }
            Action::CloseLink(link) => {
                process.senders.remove(&link);
                if let Some(stream) = process.links.remove(&link) {
                    self.transmit(stream, Towards::Replica, Wire::End);
                }
            }
            Action::Ask(id, request) => {
                tell!("node {node} asks the sentinels: {request:?}");
                let to = network::sentinel(self.machines[node].watched);
                self.asks_under_way += 1;
                self.send_message(node, to, Message::Ask { node, run, id, request, challenge: 0 });
                self.at(self.request_timeout, Happening::AskTimeout { node, run, id });
            }
            Action::HandoffEnded(_, result) => tell!("node {node}: the hand-off ended: {result:?}"),
            Action::Superseded => panic!("node {node} is superseded, though there is no other process of it"),
        }
    }

    pub(super) fn answered(
        &mut self,
        node: usize,
        run: u64,
        id: keyward_node::replication::messages::RequestId,
        outcome: Outcome,
        topology: Option<Arc<Topology>>,
    ) {
        if outcome == Outcome::Unknown {
            self.machines[node].watched = self.rng.random_range(0..super::SENTINELS);
        }
        if let Some(topology) = topology {
            self.step(node, run, Event::TopologyChanged(topology));
        }
        self.step(node, run, Event::RequestAnswered(id, outcome));
    }

    // ------------------------------------------------------------------ applying, writing, sending

    pub(super) fn apply(&mut self, node: usize, run: u64, epoch: u64, target: LogIndex) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        let Some(process) = machine.process().filter(|p| p.run == run && p.epoch == epoch) else { return };
        if now < paused_until {
            return self.at(paused_until - now, Happening::Apply { node, run, epoch, target });
        }
        apply_log(process, target);
        self.step(node, run, Event::Applied { epoch, index: target });
    }

    /// The writer of the log looks after itself.
    pub(super) fn write(&mut self, node: usize, run: u64) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Power::On(process) = &mut machine.power else { return };
        if process.run != run {
            return;
        }
        let wait = machine.paused_until.max(machine.disk.stalled_until).saturating_sub(now);
        let pause = if 0 < wait { wait } else { self.rng.random_range(ms(1) / 5..ms(4)) };
        if wait == 0 {
            let Process { writer, log, gate, keyspace, applied, indexes, core, .. } = &mut **process;
            let Some(writer) = writer else { return };
            let is_whole = core.is_consistent() && indexes.is_none();
            let snapshot = is_whole.then_some((&*keyspace, *applied));
            let has_news =
                writer.step(now, &mut machine.disk, log, gate.commit_index(), snapshot, &mut self.rng);
            if has_news {
                commit_at_once(process);
                self.step(node, run, Event::DurableAdvanced);
            }
        }
        self.at(pause, Happening::Write { node, run });
    }

    /// Sends whatever the streams of a primary have to say.
    fn send_log(&mut self, node: usize) {
        let clock = self.machines[node].clock.read(self.now);
        let Some(process) = self.machines[node].process() else { return };
        if process.senders.is_empty() {
            return;
        }
        let run = process.run;
        let mut messages = Vec::new();
        let mut trimmed = Vec::new();
        let Process { senders, heard, log, keyspace, gate, links, core, .. } = process;
        let sending_term = core.view(log).sending_term;
        for (link, sender) in senders.iter_mut() {
            match sender {
                Sender::Snapshot(snapshot, large) => {
                    let mut slots = SlotsReader { keyspace, last: log.last().index, large };
                    // A chunk per step, so that writes come in between.
                    let chunk = snapshot.next_chunk(clock, &mut slots).expect("large slots are there");
                    let Some(chunk) = chunk else { continue };
                    let (end, from) = (chunk.end, chunk.from);
                    messages.push((links[link], Wire::Chunk(chunk)));
                    if end.is_some() {
                        let beacon = self.config.beacon_interval();
                        *sender = Sender::Log(LogStream::new(sending_term, from.index, beacon));
                    }
                }
                Sender::Log(stream) => {
                    stream.heard(heard.get(link).copied().unwrap_or(clock));
                    match stream.next_append(clock, log, gate.commit_index()) {
                        Ok(Some(append)) => messages.push((links[link], Wire::Append(append))),
                        Ok(None) => {}
                        Err(_) => trimmed.push(*link),
                    }
                }
            }
        }
        for (stream, wire) in messages {
            self.transmit(stream, Towards::Replica, wire);
        }
        for link in trimmed {
            tell!("node {node}: a replica is too far behind, its stream ends");
            let process = self.machines[node].process().expect("on");
            process.senders.remove(&link);
            let stream = process.links.remove(&link).expect("a live link");
            self.transmit(stream, Towards::Replica, Wire::End);
            self.at(0, Happening::NodeEvent { node, run, event: Event::LinkClosed(link) });
        }
    }

    /// Shows the invariants what is new in a node's log.
    pub(super) fn watch(&mut self, node: usize) {
        if let Power::On(process) = &mut self.machines[node].power {
            self.invariants.watch(node, process);
        }
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
            let slot = payload.first().map(|slot| usize::from(*slot));
            let is_contained =
                slot.is_some_and(|slot| process.indexes.as_ref().is_some_and(|i| index <= i[slot]));
            if !is_contained {
                process.keyspace.apply(index, payload);
            }
            process.applied = index;
        }
    }
}

/// As `Shared::commit_at_once`: nobody else has to hold the entries.
pub(super) fn commit_at_once(process: &mut Process) {
    if process.gate.auto_commits() {
        process.gate.advance_commit(process.log.last().index.min(process.log.durable()));
    }
}

/// For the invariants: what a node serves now.
pub(super) fn serves(machine: &Machine, now: Nanos) -> bool {
    let clock: Monotonic = machine.clock.read(now);
    machine.running().is_some_and(|p| p.gate.state() == GateState::Primary && p.gate.lease_valid(clock))
}
