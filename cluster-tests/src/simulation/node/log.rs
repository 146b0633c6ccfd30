//! Applying, writing and sending the log.

use std::time::Duration;

use keyward_node::execute::ExpiryCycle;
use keyward_node::replication::applying::Applied;
use keyward_replication::core::messages::Event;
use keyward_replication::core::stream::LogStream;
use keyward_replication::gate::GateState;
use rand::Rng;

use super::{Power, Process, Sender};
use crate::simulation::keyspace::{Image, SlotsReader};
use crate::simulation::network::{Towards, Wire};
use crate::simulation::story::tell;
use crate::simulation::world::{SimEvent, World};
use crate::simulation::{Nanos, ms};

/// Between two searches for keys whose time has passed.
pub(super) const EXPIRE_PAUSE: Nanos = ms(1500);

/// Until it is looked again for a clearing that has to come, as `applier.rs` does.
const STUCK_PAUSE: Nanos = ms(10);

impl World {
    /// The thread that applies has its turn.
    pub(in crate::simulation) fn apply(&mut self, node: usize, run: u64) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        let Some(process) = machine.process().filter(|p| p.run == run) else { return };
        if now < paused_until {
            return self.at(paused_until - now, SimEvent::Apply { node, run });
        }
        let before = process.applying.applied();
        while let Some(work) = process.applying.next_work() {
            let applied = work
                .carry_out(process.applying.applied(), &process.server.shared, &process.engine)
                .expect("all effects are known");
            if !process.applying.done(applied) {
                self.at(STUCK_PAUSE, SimEvent::Apply { node, run });
                break;
            }
        }
        let Some(process) = self.machines[node].process() else { return };
        let Applied { epoch, index } = process.applying.applied();
        if before != (Applied { epoch, index }) {
            self.step(node, run, Event::Applied { epoch, index });
        }
    }

    /// Keys whose time has passed are deleted, as the program does from time to time.
    pub(in crate::simulation) fn expire(&mut self, node: usize, run: u64) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        let Some(process) = machine.process().filter(|p| p.run == run) else { return };
        if now < paused_until {
            return self.at(paused_until - now, SimEvent::Expire { node, run });
        }
        if process.gate().state() == GateState::Primary {
            let cycle = process.executor.expire_cycle(Duration::from_secs(1));
            assert_eq!(cycle, ExpiryCycle::Complete, "no time passes");
            self.watch(node);
            self.after_step(node);
        }
        self.at(EXPIRE_PAUSE, SimEvent::Expire { node, run });
    }

    /// The writer of the log looks after itself.
    pub(in crate::simulation) fn write(&mut self, node: usize, run: u64) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Power::On(process) = &mut machine.power else { return };
        if process.run != run {
            return;
        }
        let wait = machine.paused_until.max(machine.disk.stalled_until).saturating_sub(now);
        let pause = if 0 < wait { wait } else { self.rng.random_range(ms(1) / 5..ms(4)) };
        if wait == 0 {
            let Process { writer, server, engine, core, .. } = &mut **process;
            let Some(writer) = writer else { return };
            let is_whole = core.is_consistent() && server.is_complete();
            let snapshot = (is_whole && writer.wants_snapshot(&mut self.rng))
                .then(|| (Image::of(engine, &server.shared), server.executed_position().index));
            let commit = server.shared.gate.commit_index();
            let mut log = server.shared.log.lock();
            let has_news = writer.step(now, &mut machine.disk, &mut log, commit, snapshot, &mut self.rng);
            drop(log);
            if has_news {
                server.shared.durable_advanced();
                self.step(node, run, Event::DurableAdvanced);
            }
        }
        self.at(pause, SimEvent::Write { node, run });
    }

    /// Sends whatever the streams of a primary have to say.
    pub(in crate::simulation) fn send_log(&mut self, node: usize) {
        let clock = self.machines[node].clock.read(self.now);
        let beacon = self.machines[node].beacon_interval();
        let Some(process) = self.machines[node].process() else { return };
        if process.senders.is_empty() {
            return;
        }
        let run = process.run;
        let mut messages = Vec::new();
        let mut trimmed = Vec::new();
        let Process { senders, heard, server, engine, links, core, .. } = process;
        let (network, append_bytes) = (&self.network, self.append_bytes);
        let shared = &server.shared;
        let sending_term = core.view(&shared.log.lock()).sending_term;
        for (link, sender) in senders.iter_mut().filter(|(link, _)| network.has_room(links[link])) {
            match sender {
                Sender::Snapshot(snapshot, large) => {
                    let mut slots = SlotsReader { engine, shared, large };
                    // A chunk per step, so that writes come in between.
                    let chunk = snapshot.next_chunk(clock, &mut slots).expect("large slots are there");
                    let Some(chunk) = chunk else { continue };
                    let (end, from) = (chunk.end, chunk.from);
                    messages.push((links[link], Wire::Chunk(chunk)));
                    if end.is_some() {
                        *sender = Sender::Log(LogStream::new(sending_term, from.index, beacon, append_bytes));
                    }
                }
                Sender::Log(stream) => {
                    stream.ask_for_lease(core.lease());
                    stream.heard(heard.get(link).copied().unwrap_or(clock));
                    let commit = shared.gate.commit_index();
                    match stream.next_append(clock, &mut shared.log.lock(), commit) {
                        Ok(Some(append)) => messages.push((links[link], Wire::Append(append))),
                        Ok(None) => {}
                        Err(_) => trimmed.push(*link),
                    }
                    // On narrow lines one after the other.
                    while network.bytes_per_second.is_none()
                        && let Some(part) = stream.next_part(clock, commit)
                    {
                        messages.push((links[link], Wire::Append(part)));
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
            self.at(0, SimEvent::NodeEvent { node, run, event: Event::LinkClosed(link) });
        }
    }

    /// Shows the invariants what is new in a node's log.
    pub(in crate::simulation) fn watch(&mut self, node: usize) {
        if let Power::On(process) = &mut self.machines[node].power {
            self.invariants.watch(self.now, node, process);
        }
    }
}
