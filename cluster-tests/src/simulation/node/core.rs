//! The core: events in, actions carried out.

use std::sync::Arc;

use keyward_node::replication::applying::ApplierRequest;
use keyward_node::routing::Routing;
use keyward_proto::ids::Term;
use keyward_replication::core::full_sync::SnapshotSender;
use keyward_replication::core::messages::{Action, Event, SyncKind};
use keyward_replication::core::stream::LogStream;
use keyward_replication::gate::GateState;
use keyward_replication::recorder::Standing;
use rand::Rng;

use super::Sender;
use crate::simulation::invariants::Invariants;
use crate::simulation::network::{Towards, Wire};
use crate::simulation::story::{detail, tell};
use crate::simulation::world::{SimEvent, World};
use crate::simulation::{NODES, Nanos, WAIT_MIN, ms};

/// The whole log is looked through once in so many steps.
const CHECK_LOG_EVERY: u64 = 64;

impl World {
    /// Runs something at a node, or later if its process stands still.
    pub(in crate::simulation) fn step(&mut self, node: usize, run: u64, event: Event) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        let (clocks, id) = (machine.clocks(now), machine.id.clone());
        let clock = clocks.monotonic;
        let Some(process) = machine.process().filter(|p| p.run == run) else { return };
        if now < paused_until {
            return self.at(paused_until - now, SimEvent::NodeEvent { node, run, event });
        }
        if matches!(event, Event::Tick) {
            process.wake_at = Nanos::MAX;
        } else {
            detail!("node {node} <- {event:?}");
        }
        if let Event::AckReceived(link, _) = &event {
            process.heard.insert(*link, clock);
        }
        let shared = Arc::clone(&process.server.shared);
        let (gate, mut log) = (&shared.gate, shared.log.lock());
        let before = (gate.state(), gate.term(), process.core.topology().version);
        if before.0 == GateState::Primary {
            process.open = process.executor.moment();
        } else if before.0 == GateState::Replica {
            process.followed = process.executor.moment();
        }
        if let Some(apart) = process.core.read_clocks(clocks) {
            tell!("node {node}: its clocks have moved apart by {} ms", apart.as_millis());
        }
        if let Some(recorder) = &mut process.recorder {
            recorder.heard(clock, &event);
        }
        let mut actions = Vec::new();
        let ended_terms = gate.ended_terms();
        process.core.step(clock, event, &mut log, &mut actions);
        let view = process.core.view(&log);
        gate.set_auto_commit(&view);
        gate.publish(&view, clock);
        process.core.check_invariants(&log);
        process.steps += 1;
        if process.steps.is_multiple_of(CHECK_LOG_EVERY) {
            log.check_invariants();
        }
        let last = log.last();
        drop(log);
        if let Some(recorder) = &mut process.recorder {
            recorder.did(clock, Standing { core: &process.core, view: &view, last }, &actions);
        }
        let after = (gate.state(), view.term, process.core.topology().version);
        if (before.0, before.2) != (after.0, after.2) {
            let (state, term, version) = after;
            tell!(
                "node {node}: {state:?}, term {term}, last {}, commit {}, topology {version}",
                last,
                view.commit
            );
        }
        if before.0 == GateState::Replica && view.sending_term > Term::ZERO && self.rng.random_bool(0.7) {
            let delay = self.rng.random_range(0..ms(30));
            self.at(delay, SimEvent::LateRead { node, run });
        }
        if ended_terms < view.ended_terms {
            for _ in 0..3 {
                let delay = self.rng.random_range(0..ms(40));
                self.at(delay, SimEvent::CuriousRead { node, run });
            }
        }
        if before.0 == GateState::Primary && after.0 != GateState::Primary {
            self.closed_gate(node, run);
        }
        let process = self.machines[node].process().expect("it runs");
        if before.2 != after.2 {
            let topology = Arc::clone(process.core.topology());
            process.server.set_routing(Routing::new(topology, id));
        }
        let deadline = process.core.next_deadline(clock);
        let wait = Nanos::try_from(deadline.since(clock).as_nanos()).expect("soon").max(WAIT_MIN);
        if now + wait < process.wake_at {
            process.wake_at = now + wait;
            self.at(wait, SimEvent::NodeEvent { node, run, event: Event::Tick });
        }
        self.watch(node);
        for action in actions {
            detail!("node {node}    -> {action:?}");
            self.act(node, run, action);
        }
        self.after_step(node);
    }

    /// I/O threads may be inside a command yet, and now and then one takes long.
    fn closed_gate(&mut self, node: usize, run: u64) {
        if self.rng.random_bool(0.5) {
            let longest = if self.rng.random_bool(0.2) { ms(100) } else { ms(3) };
            let delay = self.rng.random_range(0..longest);
            self.machines[node].process().expect("it runs").commands_until = self.now + delay;
            self.at(delay, SimEvent::LateWrite { node, run });
        }
    }

    /// What follows whatever has happened at a node: streams send, replies leave, and the invariants hold.
    pub(in crate::simulation) fn after_step(&mut self, node: usize) {
        self.send_log(node);
        self.release_replies(node);
        self.invariants.check(self.now, &self.machines, &self.register);
        Invariants::check_waits(node, &self.machines[node]);
    }

    fn act(&mut self, node: usize, run: u64, action: Action) {
        let clock = self.machines[node].clock.read(self.now);
        let (beacon, append_bytes) = (self.machines[node].beacon_interval(), self.append_bytes);
        let Some(process) = self.machines[node].process().filter(|p| p.run == run) else { return };
        match action {
            Action::Quiesce(id) => {
                let last_command = process.commands_until.saturating_sub(self.now);
                let delay = last_command + self.rng.random_range(1..ms(3));
                self.at(delay, SimEvent::NodeEvent { node, run, event: Event::Quiesced(id) });
            }
            Action::ApplyUpTo { after, index } => {
                Invariants::check_applies(clock, node, process, index);
                process.applying.apply_up_to(after, index);
                let delay = self.latency();
                self.at(delay, SimEvent::Apply { node, run });
            }
            Action::ClearKeyspace { epoch } => {
                tell!("node {node}: a full sync begins");
                self.counts.full_syncs += 1;
                self.request(node, run, ApplierRequest::Clear { epoch });
            }
            Action::KeepSlots(kept) => {
                self.counts.resumed += 1;
                self.request(node, run, ApplierRequest::KeepSlots(kept));
            }
            Action::ApplySnapshot(parts) => self.request(node, run, ApplierRequest::Snapshot(parts)),
            Action::FinishSnapshot { from, indexes } => {
                self.request(node, run, ApplierRequest::Finish { from, indexes });
            }
            Action::ForgetSlotIndexes => {
                tell!("node {node}: the full sync is complete");
                self.request(node, run, ApplierRequest::ForgetSlotIndexes);
            }
            Action::Connect { uplink, port, hello, .. } => {
                let to = usize::from(port) % NODES;
                let delay = self.latency();
                self.at(delay, SimEvent::Connect { node, run, uplink, to, hello });
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
                        Sender::Log(LogStream::new(start.term, from.index, beacon, append_bytes))
                    }
                    SyncKind::Full | SyncKind::Resume(_) => {
                        let sender = match resume {
                            Some(resume) => SnapshotSender::resume(start.term, resume),
                            None => SnapshotSender::new(start.term, process.log().last()),
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
                self.begin_request(node, run, id, request);
            }
            Action::Suspects(suspect, suspicion) => {
                tell!("node {node}: {suspect} is to be removed: {suspicion}");
            }
            Action::HoldsUp(laggard, held_up) => {
                tell!("node {node}: {laggard} has held clients up for {} ms", held_up.as_millis());
            }
            Action::HandoffEnded(_, result) => tell!("node {node}: the hand-off ended: {result:?}"),
            Action::Forgotten => tell!("node {node}: the sentinels have forgotten its shard"),
            Action::LeftBehind => panic!("node {node}: its shard was adopted before it had registered"),
            Action::Superseded => panic!("node {node} is superseded, though there is no other process of it"),
        }
    }

    /// Gives the thread that applies something to do.
    fn request(&mut self, node: usize, run: u64, request: ApplierRequest) {
        if let Some(process) = self.machines[node].process() {
            process.applying.request(request);
            self.at(0, SimEvent::Apply { node, run });
        }
    }
}
