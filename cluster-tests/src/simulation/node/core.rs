//! The core: events in, actions carried out.

use std::sync::Arc;

use keyward_node::gate::GateState;
use keyward_node::replication::full_sync::SnapshotSender;
use keyward_node::replication::messages::{Action, Event, Outcome, Request, RequestId, SyncKind, Urgency};
use keyward_node::replication::stream::LogStream;
use keyward_proto::ids::LogIndex;
use keyward_proto::topology::Topology;
use rand::Rng;

use super::{Asked, Sender};
use crate::simulation::keyspace::Keyspace;
use crate::simulation::messages::Message;
use crate::simulation::network::{Towards, Wire};
use crate::simulation::story::{detail, tell};
use crate::simulation::world::{Happening, World};
use crate::simulation::{NODES, Nanos, SENTINELS, ms, network};

/// The whole log is looked through once in so many steps.
const CHECK_LOG_EVERY: u64 = 64;

/// As in `keyward_node::sentinels`.
const NEXT_AFTER: Nanos = ms(200);

impl World {
    /// Runs something at a node, or later if its process stands still.
    pub(in crate::simulation) fn step(&mut self, node: usize, run: u64, event: Event) {
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
    pub(in crate::simulation) fn after_step(&mut self, node: usize) {
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
                let first = self.machines[node].watched;
                let urgency = match &request {
                    Request::Failover { .. } => Some(Urgency::Complaint),
                    Request::Handoff { .. } => Some(Urgency::Handoff),
                    Request::Add { .. } | Request::Remove { .. } => None,
                };
                if let Some(urgency) = urgency {
                    let asked = Asked { urgency, first, begun: 1, open: 1 };
                    self.machines[node].asked.insert(id, asked);
                    self.at(NEXT_AFTER, Happening::AskNext { node, run, id, request: request.clone() });
                }
                self.ask(node, run, id, request, first);
                self.at(self.request_timeout, Happening::AskTimeout { node, run, id });
            }
            Action::HandoffEnded(_, result) => tell!("node {node}: the hand-off ended: {result:?}"),
            Action::Superseded => panic!("node {node} is superseded, though there is no other process of it"),
        }
    }

    fn ask(&mut self, node: usize, run: u64, id: RequestId, request: Request, sentinel: usize) {
        self.asks_under_way += 1;
        let message = Message::Ask { node, run, id, request, challenge: 0 };
        self.send_message(node, network::sentinel(sentinel), message);
    }

    /// There is no answer yet that settles it.
    pub(in crate::simulation) fn ask_next(&mut self, node: usize, run: u64, id: RequestId, request: Request) {
        let machine = &mut self.machines[node];
        let is_running = machine.run() == Some(run);
        let Some(asked) = machine.asked.get_mut(&id).filter(|a| is_running && a.begun < SENTINELS) else {
            return;
        };
        let sentinel = (asked.first + asked.begun) % SENTINELS;
        asked.begun += 1;
        asked.open += 1;
        self.ask(node, run, id, request.clone(), sentinel);
        self.at(NEXT_AFTER, Happening::AskNext { node, run, id, request });
    }

    /// An attempt has an answer; as `Sentinels::ask_in_turn` takes it.
    pub(in crate::simulation) fn answered(
        &mut self,
        node: usize,
        run: u64,
        id: RequestId,
        outcome: Outcome,
        topology: Option<Arc<Topology>>,
    ) {
        let machine = &mut self.machines[node];
        if machine.run() != Some(run) {
            return;
        }
        if let Some(asked) = machine.asked.get_mut(&id) {
            asked.open -= 1;
            let is_settled = match outcome {
                Outcome::Accepted => asked.urgency.is_settled_by(true, asked.begun),
                Outcome::Refused(_) => asked.urgency.is_settled_by(false, asked.begun),
                Outcome::Unknown => false,
            };
            if !is_settled {
                if asked.open == 0 && asked.begun == SENTINELS {
                    self.settled(node, run, id, Outcome::Unknown, None);
                }
                return;
            }
        }
        self.settled(node, run, id, outcome, topology);
    }

    pub(in crate::simulation) fn settled(
        &mut self,
        node: usize,
        run: u64,
        id: RequestId,
        outcome: Outcome,
        topology: Option<Arc<Topology>>,
    ) {
        self.machines[node].asked.remove(&id);
        if outcome == Outcome::Unknown {
            self.machines[node].watched = self.rng.random_range(0..SENTINELS);
        }
        if let Some(topology) = topology {
            self.step(node, run, Event::TopologyChanged(topology));
        }
        self.step(node, run, Event::RequestAnswered(id, outcome));
    }
}
