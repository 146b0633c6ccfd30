//! Applying, writing and sending the log.

use keyward_node::log::frames;
use keyward_node::replication::messages::Event;
use keyward_node::replication::stream::LogStream;
use keyward_proto::ids::LogIndex;
use rand::Rng;

use super::{Power, Process, Sender, commit_at_once};
use crate::simulation::keyspace::SlotsReader;
use crate::simulation::ms;
use crate::simulation::network::{Towards, Wire};
use crate::simulation::story::tell;
use crate::simulation::world::{Happening, World};

impl World {
    pub(in crate::simulation) fn apply(&mut self, node: usize, run: u64, epoch: u64, target: LogIndex) {
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
    pub(super) fn send_log(&mut self, node: usize) {
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
    pub(in crate::simulation) fn watch(&mut self, node: usize) {
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
