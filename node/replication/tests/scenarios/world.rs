//! The nodes, the network between them, and the steps of the cores. Whatever can happen at once does, in a fixed order,
//! unless the script holds it up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::LogIndex;
use keyward_proto::ids::ShardId;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Detection, Shard, Topology};
use keyward_replication::core::Config;
use keyward_replication::core::full_sync::SnapshotSender;
use keyward_replication::core::messages::{
    Ack, Action, Append, Chunk, Closed, Event, Hello, LinkId, Outcome, Request, Start, SyncKind, UplinkId,
};
use keyward_replication::core::stream::{APPEND_BYTES, LogStream};
use keyward_replication::disk_log::{self, Conditions, Fsync, Note};
use keyward_replication::log::Rewind;

use crate::node::{Host, Process, Sender, Slots};
use crate::show;

/// The clock of a scenario moves by this.
const TICK: Duration = Duration::from_millis(5);

/// A message between a replica and its primary.
#[derive(Debug)]
pub(crate) enum Wire {
    Hello(Box<Hello>),
    Ack(Ack),
    Start(Start),
    Append(Append),
    Chunk(Chunk),
    Reject,
    End,
}

/// A replica's stream.
pub(crate) struct Stream {
    pub(crate) replica: usize,
    pub(crate) uplink: UplinkId,
    pub(crate) primary: usize,
    link: Option<LinkId>,
    pub(crate) to_primary: VecDeque<Wire>,
    pub(crate) to_replica: VecDeque<Wire>,
    /// It carries nothing, and nobody knows.
    pub(crate) is_dead: bool,
}

pub(crate) struct World {
    pub(crate) now: Monotonic,
    pub(crate) config: Config,
    /// Of nodes that have another lease than the rest.
    pub(crate) leases: BTreeMap<String, Duration>,
    /// What nodes say of themselves when they register.
    pub(crate) detection: Detection,
    pub(crate) fsync: Option<Fsync>,
    pub(crate) ring_bytes: usize,
    pub(crate) hosts: Vec<Host>,
    /// As the sentinels have it.
    pub(crate) topology: Topology,
    /// The shard that the sentinels have forgotten.
    pub(crate) forgotten: Option<Shard>,
    pub(crate) shard: ShardId,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// Messages from the one to the other wait.
    pub(crate) held: BTreeSet<(usize, usize)>,
    /// The sentinels do not answer.
    pub(crate) sentinels_down: bool,
    /// Messages are shown.
    pub(crate) shows_messages: bool,
    events: VecDeque<(usize, u64, Event)>,
    next_stream: u64,
    pub(crate) next_run: u64,
    pub(crate) next_token: u64,
    pub(crate) out: Vec<String>,
    /// When the command began.
    began: Monotonic,
    shown: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn new() -> World {
        let now = Monotonic::from_nanos(1_000_000_000_000);
        World {
            now,
            config: Config { lease: Duration::from_millis(400), ..Config::default() },
            leases: BTreeMap::new(),
            detection: Detection::default(),
            fsync: None,
            ring_bytes: 1 << 20,
            hosts: Vec::new(),
            topology: Topology { history: 1, ..Topology::default() },
            forgotten: None,
            shard: ShardId::from_random([9; 20]),
            streams: BTreeMap::new(),
            held: BTreeSet::new(),
            sentinels_down: false,
            shows_messages: false,
            events: VecDeque::new(),
            next_stream: 0,
            next_run: 0,
            next_token: 0,
            out: Vec::new(),
            began: now,
            shown: BTreeMap::new(),
        }
    }

    /// What has happened since the last call, and the nodes whose state is another one now.
    pub(crate) fn take_output(&mut self) -> Vec<String> {
        let mut out: Vec<String> = self.out.drain(..).map(|line| format!("  {line}")).collect();
        for host in &self.hosts {
            let state = show::state(host, self);
            if self.shown.insert(host.name.clone(), state.clone()).as_ref() != Some(&state) {
                out.push(format!("{}  {state}", host.name));
            }
        }
        self.began = self.now;
        out
    }

    /// Something that a reader of the scenario should see.
    pub(crate) fn tell(&mut self, line: String) {
        let after = self.now.since(self.began).as_millis();
        self.out.push(if after == 0 { line } else { format!("+{after} ms  {line}") });
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.hosts[node].name
    }

    pub(crate) fn push(&mut self, node: usize, event: Event) {
        if let Some(process) = &self.hosts[node].process {
            self.events.push_back((node, process.run, event));
        }
    }

    /// Time passes; whatever is due happens.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + TICK);
            for node in 0..self.hosts.len() {
                self.answer_quiesces(node);
                self.push(node, Event::Tick);
            }
            self.settle();
        }
    }

    fn answer_quiesces(&mut self, node: usize) {
        let now = self.now;
        let due: Vec<_> = self.hosts[node].quiet.extract_if(.., |(until, _)| *until <= now).collect();
        due.into_iter().for_each(|(_, id)| self.push(node, Event::Quiesced(id)));
    }

    /// Until nothing can happen any more at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let ready = self.events.iter().position(|(node, ..)| !self.hosts[*node].is_paused);
            if let Some(at) = ready {
                let (node, run, event) = self.events.remove(at).unwrap();
                self.step(node, run, event);
                continue;
            }
            if (0..self.hosts.len()).any(|node| self.send(node)) {
                continue;
            }
            if !self.deliver_one() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn step(&mut self, node: usize, run: u64, event: Event) {
        let now = self.now;
        let Some(process) = self.hosts[node].process.as_mut().filter(|p| p.run == run) else { return };
        if let Event::AckReceived(link, _) = &event {
            process.heard.insert(*link, now);
        }
        let mut actions = Vec::new();
        process.core.step(now, event, &mut process.log, &mut actions);
        let view = process.core.view(&process.log);
        process.gate.set_auto_commit(&view);
        process.gate.publish(&view, now);
        process.core.check_invariants(&process.log);
        process.log.check_invariants();
        actions.into_iter().for_each(|action| self.act(node, action));
        self.after_step(node);
    }

    /// Replies leave, and the disk gets on.
    pub(crate) fn after_step(&mut self, node: usize) {
        let (now, host) = (self.now, &mut self.hosts[node]);
        let mut left = Vec::new();
        if let Some(process) = &mut host.process {
            process.release_replies(now, &mut left, &host.name);
        }
        left.into_iter().for_each(|line| self.tell(line));
        if !self.hosts[node].is_disk_stopped {
            while self.disk_step(node) {}
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let name = self.name(node).to_owned();
        let now = self.now;
        let Some(process) = &mut self.hosts[node].process else { return };
        match action {
            Action::Quiesce(id) => {
                let until = self.hosts[node].command_until;
                self.hosts[node].quiet.push((until, id));
                self.answer_quiesces(node);
            }
            Action::ApplyUpTo { index, .. } => {
                process.apply(index);
                let event = Event::Applied { epoch: process.epoch, index };
                self.push(node, event);
            }
            Action::ClearKeyspace { epoch } => {
                process.epoch = epoch;
                process.keys.clear();
                (process.applied, process.indexes) = (LogIndex::ZERO, None);
                self.tell(format!("{name}: the keyspace is emptied for a full sync"));
            }
            Action::KeepSlots(kept) => {
                if !kept.contains(keyward_proto::slot::Slot::new(0).unwrap()) {
                    process.keys.clear();
                }
                self.tell(format!("{name}: a full sync goes on"));
            }
            Action::ApplySnapshot(parts) => process.apply_parts(&parts),
            Action::FinishSnapshot { from, indexes } => {
                (process.applied, process.indexes) = (from, Some(indexes));
                let event = Event::Applied { epoch: process.epoch, index: from };
                self.push(node, event);
            }
            Action::ForgetSlotIndexes => {
                process.indexes = None;
                self.tell(format!("{name}: the full sync is complete"));
            }
            Action::Connect { uplink, port, hello, .. } => {
                self.connect(node, uplink, usize::from(port), hello)
            }
            Action::SendAck(uplink, ack) => {
                if let Some(stream) = process.uplinks.get(&uplink) {
                    let stream = self.streams.get_mut(stream).unwrap();
                    stream.to_primary.push_back(Wire::Ack(ack));
                }
            }
            Action::Disconnect(uplink) => {
                if let Some(stream) = process.uplinks.remove(&uplink) {
                    self.streams.get_mut(&stream).unwrap().to_primary.push_back(Wire::End);
                }
            }
            Action::StartLink(link, start, resume) => {
                let beacon = self.config.beacon_interval();
                let sender = match (start.sync, resume) {
                    (SyncKind::Partial(from), _) => {
                        Sender::Log(LogStream::new(start.term, from.index, beacon, APPEND_BYTES))
                    }
                    (_, Some(resume)) => {
                        Sender::Snapshot(Box::new(SnapshotSender::resume(start.term, resume)))
                    }
                    (_, None) => {
                        Sender::Snapshot(Box::new(SnapshotSender::new(start.term, process.log.last())))
                    }
                };
                if let Some(stream) = process.links.get(&link) {
                    process.senders.insert(link, sender);
                    process.heard.insert(link, now);
                    let replica = self.streams[stream].replica;
                    self.streams.get_mut(stream).unwrap().to_replica.push_back(Wire::Start(start));
                    let what = show::sync(start.sync);
                    self.tell(format!("{name}: {} gets {what}", self.name(replica)));
                }
            }
            Action::Reject { link, reason, .. } => {
                if let Some(stream) = process.links.remove(&link) {
                    let stream = self.streams.get_mut(&stream).unwrap();
                    stream.to_replica.push_back(Wire::Reject);
                    let replica = stream.replica;
                    self.tell(format!("{name}: {} is rejected: {reason}", self.name(replica)));
                }
            }
            Action::CloseLink(link) => {
                process.senders.remove(&link);
                if let Some(stream) = process.links.remove(&link) {
                    self.streams.get_mut(&stream).unwrap().to_replica.push_back(Wire::End);
                }
            }
            Action::Ask(id, Request::Minimum { nodes, .. }) if !self.sentinels_down => {
                let shard = self.topology.shards.get_mut(&self.shard).unwrap();
                if shard.absent.min_in_sync.replace(nodes) != Some(nodes) {
                    shard.in_sync_version += 1;
                    self.announce();
                }
                self.push(node, Event::RequestAnswered(id, Outcome::Accepted));
            }
            Action::Ask(id, request) => {
                process.requests.push((id, request.clone()));
                let what = show::request(&request, self);
                self.tell(format!("{name} asks: {what}"));
            }
            Action::Suspects(id, suspicion) => {
                let suspect = self.hosts.iter().position(|host| host.id == id).unwrap();
                let suspect = self.name(suspect);
                self.tell(format!("{name} goes on without {suspect}: {suspicion}"));
            }
            Action::HoldsUp(id, held_up) => {
                let laggard = self.hosts.iter().position(|host| host.id == id).unwrap();
                let (laggard, held_up) = (self.name(laggard), held_up.as_millis());
                self.tell(format!("{name}: {laggard} has held clients up for {held_up} ms"));
            }
            Action::HandoffEnded(_, Ok(())) => self.tell(format!("{name}: the hand-off has succeeded")),
            Action::HandoffEnded(_, Err(error)) => self.tell(format!("{name}: no hand-off: {error}")),
            Action::Forgotten => self.tell(format!("{name}: the sentinels do not know its shard any more")),
            Action::LeftBehind => {
                self.tell(format!("{name}: its shard goes on in another history, it serves no more"));
            }
            Action::Superseded => self.tell(format!("{name}: a later process has its identity, it ends")),
        }
    }

    // ------------------------------------------------------------------ the network

    fn connect(&mut self, node: usize, uplink: UplinkId, primary: usize, hello: Box<Hello>) {
        let is_refused = self.hosts[primary].process.is_none() && !self.hosts[primary].is_gone;
        if is_refused && !self.held.contains(&(node, primary)) && !self.held.contains(&(primary, node)) {
            return self.push(node, Event::UplinkClosed(uplink, Closed::Refused));
        }
        self.next_stream += 1;
        let to_primary = VecDeque::from([Wire::Hello(hello)]);
        let stream = Stream {
            replica: node,
            uplink,
            primary,
            link: None,
            to_primary,
            to_replica: VecDeque::new(),
            is_dead: false,
        };
        self.streams.insert(self.next_stream, stream);
        self.hosts[node].process().uplinks.insert(uplink, self.next_stream);
    }

    /// What the streams of a primary have to say; whether there was anything.
    fn send(&mut self, node: usize) -> bool {
        let now = self.now;
        let beacon = self.config.beacon_interval();
        if self.hosts[node].is_paused {
            return false;
        }
        let Some(process) = &mut self.hosts[node].process else { return false };
        let Process { senders, heard, log, keys, gate, links, core, .. } = process;
        let sending_term = core.view(log).sending_term;
        let (mut sent, mut trimmed) = (Vec::new(), Vec::new());
        for (link, sender) in senders.iter_mut() {
            match sender {
                Sender::Snapshot(snapshot) => {
                    let mut slots = Slots { keys, last: log.last().index };
                    let Some(chunk) = snapshot.next_chunk(now, &mut slots).unwrap() else { continue };
                    let (from, is_last) = (chunk.from.index, chunk.end.is_some());
                    sent.push((links[link], Wire::Chunk(chunk)));
                    if is_last {
                        *sender = Sender::Log(LogStream::new(sending_term, from, beacon, APPEND_BYTES));
                    }
                }
                Sender::Log(stream) => {
                    stream.heard(heard.get(link).copied().unwrap_or(now));
                    stream.ask_for_lease(core.lease());
                    match stream.next_append(now, log, gate.commit_index()) {
                        Ok(Some(append)) => sent.push((links[link], Wire::Append(append))),
                        Ok(None) => {}
                        Err(_) => trimmed.push(*link),
                    }
                }
            }
        }
        let has_sent = !sent.is_empty();
        for (stream, wire) in sent {
            self.streams.get_mut(&stream).unwrap().to_replica.push_back(wire);
        }
        for link in trimmed {
            self.close_link(node, link);
        }
        has_sent
    }

    fn close_link(&mut self, node: usize, link: LinkId) {
        let process = self.hosts[node].process();
        process.senders.remove(&link);
        if let Some(stream) = process.links.remove(&link) {
            self.streams.get_mut(&stream).unwrap().to_replica.push_back(Wire::End);
        }
        self.push(node, Event::LinkClosed(link));
    }

    fn deliver_one(&mut self) -> bool {
        let is_open = |from: usize, to: usize| {
            !self.held.contains(&(from, to)) && !self.hosts[to].is_gone && !self.hosts[to].is_paused
        };
        let found = self.streams.iter().filter(|(_, stream)| !stream.is_dead).find_map(|(id, stream)| {
            let Stream { replica, primary, .. } = *stream;
            let to_primary = !stream.to_primary.is_empty() && is_open(replica, primary);
            let to_replica = !stream.to_replica.is_empty() && is_open(primary, replica);
            (to_primary || to_replica).then_some((*id, to_primary))
        });
        let Some((id, to_primary)) = found else { return false };
        self.deliver(id, to_primary);
        true
    }

    /// The first message of a stream arrives.
    pub(crate) fn deliver(&mut self, id: u64, to_primary: bool) {
        let stream = self.streams.get_mut(&id).unwrap();
        let queue = if to_primary { &mut stream.to_primary } else { &mut stream.to_replica };
        let wire = queue.pop_front().unwrap();
        let Stream { replica, primary, uplink, link, .. } = *stream;
        let (from, to) = if to_primary { (replica, primary) } else { (primary, replica) };
        if self.shows_messages
            || !matches!(wire, Wire::Ack(_) | Wire::Append(_) | Wire::Chunk(_) | Wire::Start(_))
        {
            let (from, to) = (self.name(from), self.name(to));
            if let Some(what) = show::wire(&wire) {
                let line = format!("{from} -> {to}: {what}");
                self.tell(line);
            }
        }
        if to_primary {
            self.arrive(id, primary, link, wire)
        } else {
            self.come_back(id, replica, uplink, wire)
        }
    }

    fn arrive(&mut self, id: u64, primary: usize, link: Option<LinkId>, wire: Wire) {
        let Some(process) = &mut self.hosts[primary].process else {
            return self.streams.get_mut(&id).unwrap().to_replica.push_back(Wire::End);
        };
        match (wire, link) {
            (Wire::Hello(hello), _) => {
                let link = LinkId(id);
                process.links.insert(link, id);
                self.streams.get_mut(&id).unwrap().link = Some(link);
                self.push(primary, Event::HelloReceived(link, *hello));
            }
            (Wire::Ack(ack), Some(link)) => self.push(primary, Event::AckReceived(link, ack)),
            (Wire::End, Some(link)) => {
                process.senders.remove(&link);
                if process.links.remove(&link).is_some() {
                    self.push(primary, Event::LinkClosed(link));
                }
            }
            (_, _) => {}
        }
    }

    fn come_back(&mut self, id: u64, replica: usize, uplink: UplinkId, wire: Wire) {
        let Some(process) = &mut self.hosts[replica].process else { return };
        if process.uplinks.get(&uplink) != Some(&id) {
            return;
        }
        let event = match wire {
            Wire::Start(start) => Event::StartReceived(uplink, start),
            Wire::Append(append) => Event::AppendReceived(uplink, append),
            Wire::Chunk(chunk) => Event::ChunkReceived(uplink, chunk),
            Wire::Reject => Event::RejectReceived(uplink),
            Wire::End => {
                process.uplinks.remove(&uplink);
                Event::UplinkClosed(uplink, Closed::Broken)
            }
            Wire::Hello(_) | Wire::Ack(_) => return,
        };
        self.push(replica, event);
    }

    /// The streams of a node end; the other sides notice if the host is there to say so.
    pub(crate) fn end_streams(&mut self, node: usize, other: Option<usize>) {
        let ends = |stream: &Stream| {
            let both = [stream.replica, stream.primary];
            both.contains(&node) && other.is_none_or(|other| both.contains(&other))
        };
        let ids: Vec<u64> = self.streams.iter().filter(|(_, s)| ends(s)).map(|(id, _)| *id).collect();
        for id in ids {
            let stream = self.streams.get_mut(&id).unwrap();
            stream.to_primary.clear();
            stream.to_replica.clear();
            stream.to_primary.push_back(Wire::End);
            stream.to_replica.push_back(Wire::End);
        }
    }

    // ------------------------------------------------------------------ the sentinels

    /// The topology has changed: whoever hears the sentinels is told.
    pub(crate) fn announce(&mut self) {
        self.topology.version += 1;
        self.topology.check_invariants();
        let topology = Arc::new(self.topology.clone());
        for node in 0..self.hosts.len() {
            if self.hosts[node].hears_sentinels {
                self.push(node, Event::TopologyChanged(Arc::clone(&topology)));
            }
        }
    }

    // ------------------------------------------------------------------ the disk

    pub(crate) fn conditions(&self, node: usize) -> Option<Conditions> {
        let (fsync, process) = (self.hosts[node].fsync?, self.hosts[node].process.as_ref()?);
        Some(Conditions { fsync, commit: process.gate.commit_index(), is_standalone: false })
    }

    /// The next thing that the disk does; whether there was one.
    pub(crate) fn disk_step(&mut self, node: usize) -> bool {
        let Some(conditions) = self.conditions(node) else { return false };
        let (now, mut notes) = (self.now, Vec::new());
        let host = &mut self.hosts[node];
        let Some(process) = &mut host.process else { return false };
        let Process { disk: Some(core), log, rewrite, .. } = process else { return false };
        let before = log.durable();
        let action = core.next(now, log, &conditions, &mut notes);
        let current = core.file().number();
        match &action {
            disk_log::Action::StartSync(file) => {
                let records = host.platter.records(*file);
                let result = host.platter.end_sync(*file, records);
                core.sync_ended(now, result, log, &mut notes);
            }
            action => {
                let base = |id| rewrite.take_if(|(of, _)| *of == id).unwrap().1;
                if let Some(result) = host.platter.perform(current, action, base) {
                    core.completed(now, result, log, &conditions, &mut notes);
                }
            }
        }
        core.check_invariants(log);
        let has_news = log.durable() != before;
        let is_idle = matches!(action, disk_log::Action::Wait(_) | disk_log::Action::End);
        if self.hosts[node].is_disk_stopped {
            let line = format!("{}'s disk: {}", self.name(node), show::disk_action(&action));
            self.tell(line);
        }
        notes.into_iter().for_each(|note| self.note(node, note));
        if has_news {
            self.hosts[node].process().commit_at_once();
            self.push(node, Event::DurableAdvanced);
        }
        !is_idle
    }

    fn note(&mut self, node: usize, note: Note) {
        let what = match note {
            Note::Published { .. } => return,
            Note::TurnedBack(Rewind::To(index)) => format!("what follows {index} is gone"),
            Note::TurnedBack(Rewind::All) => "the log begins anew".into(),
            Note::NeedsBase => "nothing counts until there is a base".into(),
            Note::Failing => "writing fails".into(),
            Note::Recovered => "writing works again".into(),
            Note::EntriesLost => "entries are lost".into(),
            Note::RewriteGivenUp(_) => "the rewrite is given up".into(),
            Note::RewriteDone(_) => "the base is in place".into(),
        };
        let line = format!("{}'s disk: {what}", self.name(node));
        self.tell(line);
    }
}
