//! The commands of scenarios. Nodes are named by words, times are milliseconds.
//!
//! - `config KEY VALUE`, before the shard: `appendfsync always|everysec|no` (without it the log is in memory only),
//!   `replication-ack async`, `min-in-sync N`, `fast-failover trusted|yes|no`, `lease N`, `lease a=N`, `handoff-timeout N`, `ring BYTES` (what is kept of the
//!   log in memory)
//! - `shard a b c [learner d]`: nodes start; a is the primary of term 1, all but the learners are in sync
//! - `write a x`, `read a`: a client; its reply leaves when the gate lets it
//! - `wait N`; `status a`: what a node serves, and its leases
//! - `cut a b`, `hold a b` (in that direction only), `heal [a b]`: messages wait; `deliver a b`: one of them arrives after
//!   all; `break a b`: streams between them end; `lose a b`: they carry nothing any more, and nobody is told;
//!   `messages on|off`: show those that arrive
//! - `kill a` (its kernel goes on), `vanish a` (host and network are gone), `power a` (and what is not synced is lost),
//!   `start a [empty]`: the next process registers; `pause a`, `resume a`; `inapplicable a`: it cannot apply an entry
//! - `sentinels lose a`, `sentinels find a`: whether it hears of the topology; `sentinels down`, `sentinels up`: whether
//!   they confirm at once, and without a line, below how many members nothing is committed
//! - `sentinels forget`: they lose what they have agreed on; `sentinels adopt b`: they go on with what it holds
//! - `accept a`: what it has asked for happens, and it is told; `commit a`: it is not told; `refuse a WHY`, `unanswered a`:
//!   the answer to its last request
//! - `promote b [without a ...] [gone|last-gone]`: the sentinels choose; `gone`: they know that none before can serve,
//!   `last-gone`: that the last one cannot;
//!   `register a`: a later process of this node has registered
//! - `found a`: the sentinels have lost all that they knew, and a new shard forms around this node
//! - `handoff a [b]`; `command a MS`: a command runs for so long
//! - `disk a stop|go|step`, `disk a fail write|sync`: the next one; `rewrite a`, `base a`: a snapshot begins, is written;
//!   `disk a loses base empty|older`

use std::collections::BTreeSet;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::topology::{FastFailover, Node, Shard, Topology};
use keyward_replication::core::messages::{Event, HandoffToken, Outcome, Request, RequestId};
use keyward_replication::core::node_core::{NodeCore, RoleStatus};
use keyward_replication::core::{Config, ReplicationAck};
use keyward_replication::disk_log::platter::{BaseFault, Platter};
use keyward_replication::disk_log::{DiskLog, Fsync, RewriteId, Stamp, Step};
use keyward_replication::gate::Gate;
use keyward_replication::log::WriteLog;
use keyward_replication::reply::Read;

use crate::node::{Host, Process};
use crate::world::{Stream, World};

/// Of a batch on disk.
const BATCH_BYTES: usize = 64;

impl World {
    pub(crate) fn command(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["config", key, value] => self.configure(key, value),
            ["shard", names @ ..] => self.form_shard(names),
            ["write", node, what] => self.write(node, what),
            ["read", node] => self.read(node),
            ["wait", ms] => self.wait(Duration::from_millis(ms.parse().unwrap())),
            ["status", node] => self.status(node),
            ["cut", a, b] => self.hold(&[(a, b), (b, a)]),
            ["hold", a, b] => self.hold(&[(a, b)]),
            ["heal"] => self.held.clear(),
            ["heal", a, b] => {
                let (a, b) = (self.node(a), self.node(b));
                self.held.retain(|pair| *pair != (a, b) && *pair != (b, a));
            }
            ["deliver", from, to] => self.deliver_held(from, to),
            ["break", a, b] => {
                let (a, b) = (self.node(a), self.node(b));
                self.end_streams(a, Some(b));
            }
            ["lose", a, b] => {
                let pair = [self.node(a), self.node(b)];
                let between = |s: &&mut Stream| pair.contains(&s.replica) && pair.contains(&s.primary);
                self.streams.values_mut().filter(between).for_each(|stream| stream.is_dead = true);
            }
            ["messages", on] => self.shows_messages = *on == "on",
            ["kill", node] => self.kill(node),
            ["vanish", node] => {
                let node = self.node(node);
                (self.hosts[node].process, self.hosts[node].is_gone) = (None, true);
                self.lose_sent(node);
            }
            ["power", node] => {
                self.kill(node);
                let node = self.node(node);
                self.hosts[node].platter.lose_power(|_| 0);
            }
            ["start", node] => self.restart(node),
            ["start", node, "empty"] => {
                let at = self.node(node);
                self.hosts[at].platter = Platter::default();
                self.restart(node);
            }
            ["pause", node] => self.host(node).is_paused = true,
            ["inapplicable", node] => {
                let node = self.node(node);
                self.push(node, Event::ApplyFailed);
            }
            ["resume", node] => {
                self.host(node).is_paused = false;
                let node = self.node(node);
                self.push(node, Event::Tick);
            }
            ["sentinels", "down"] => self.sentinels_down = true,
            ["sentinels", "up"] => self.sentinels_down = false,
            ["sentinels", "lose", node] => self.host(node).hears_sentinels = false,
            ["sentinels", "find", node] => {
                self.host(node).hears_sentinels = true;
                self.announce();
            }
            ["sentinels", "forget"] => {
                self.forgotten = self.topology.shards.remove(&self.shard);
                self.topology.nodes.values_mut().for_each(|node| node.shard = None);
                (self.topology.history, self.topology.version) = (self.topology.history + 1, 0);
                self.announce();
            }
            ["sentinels", "adopt", node] => self.adopt(node),
            ["operator", "min-in-sync", nodes] => {
                self.topology.min_in_sync = nodes.parse().ok().filter(|nodes| *nodes > 0);
                self.announce();
            }
            ["accept", node] => {
                let id = self.carry_out(node);
                self.answer(node, id, Outcome::Accepted);
            }
            ["refuse", node, why @ ..] => {
                let id = self.last_request(node);
                self.answer(node, id, Outcome::Refused(why.join(" ")));
            }
            ["unanswered", node] => {
                let id = self.last_request(node);
                self.answer(node, id, Outcome::Unknown);
            }
            ["commit", node] => {
                self.carry_out(node);
            }
            ["register", node] => {
                let id = self.host(node).id.clone();
                let node = self.topology.nodes.get_mut(&id).unwrap();
                node.incarnation = node.incarnation.next();
                self.announce();
            }
            ["promote", node, rest @ ..] => self.promote(node, rest),
            ["found", node] => self.found_shard(node),
            ["command", node, time] => {
                let end = self.now + Duration::from_millis(time.parse().unwrap());
                self.host(node).command_until = end;
            }
            ["handoff", node] => self.hand_over(node, None),
            ["handoff", node, target] => {
                let target = self.hosts[self.node(target)].id.clone();
                self.hand_over(node, Some(target));
            }
            ["disk", node, "fail", step] => {
                let step = if *step == "sync" { Step::Sync } else { Step::Write };
                self.host(node).platter.failing = Some(step);
            }
            ["disk", node, "loses", "base", how] => {
                let fault = if *how == "empty" { BaseFault::Empty } else { BaseFault::Older };
                self.host(node).platter.lose_base(fault);
            }
            ["disk", node, what] => self.disk(node, what),
            ["rewrite", node] => self.rewrite(node),
            ["base", node] => self.base(node),
            other => panic!("no such command: {other:?}"),
        }
        self.settle();
    }

    fn node(&self, name: &str) -> usize {
        let found = self.hosts.iter().position(|host| host.name == name);
        found.unwrap_or_else(|| panic!("no node is called {name}"))
    }

    fn host(&mut self, name: &str) -> &mut Host {
        let node = self.node(name);
        &mut self.hosts[node]
    }

    // ------------------------------------------------------------------ nodes

    fn configure(&mut self, key: &str, value: &str) {
        match key {
            "replication-ack" => self.config.replication_ack = ReplicationAck::Async,
            "ring" => self.ring_bytes = value.parse().unwrap(),
            "min-in-sync" => self.config.min_in_sync = value.parse().ok(),
            "fast-failover" => {
                self.detection.fast_failover = match value {
                    "trusted" => FastFailover::Trusted,
                    "yes" => FastFailover::Yes,
                    _ => FastFailover::No,
                };
            }
            "lease" => match value.split_once('=') {
                Some((node, ms)) => {
                    let lease = Duration::from_millis(ms.parse().unwrap());
                    self.leases.insert(node.to_owned(), lease);
                }
                None => self.config.lease = Duration::from_millis(value.parse().unwrap()),
            },
            "handoff-timeout" => {
                self.config.handoff_timeout = Duration::from_millis(value.parse().unwrap());
            }
            "appendfsync" => {
                self.fsync = Some(match value {
                    "always" => Fsync::Always,
                    "everysec" => Fsync::EverySecond,
                    _ => Fsync::No,
                });
            }
            other => panic!("no such setting: {other}"),
        }
    }

    fn form_shard(&mut self, names: &[&str]) {
        let members: Vec<&str> = names.iter().copied().take_while(|n| *n != "learner").collect();
        let all = names.iter().copied().filter(|n| *n != "learner");
        for (number, name) in all.enumerate() {
            let id = NodeId::from_random([u8::try_from(number).unwrap() + 1; 20]);
            self.hosts.push(Host {
                name: name.to_owned(),
                id: id.clone(),
                incarnation: Incarnation::ZERO,
                process: None,
                is_gone: false,
                fsync: self.fsync,
                platter: Platter::default(),
                is_disk_stopped: false,
                hears_sentinels: true,
                is_paused: false,
                command_until: self.now,
                quiet: Vec::new(),
            });
            let node = Node {
                bus_port: u16::try_from(number).unwrap(),
                shard: Some(self.shard.clone()),
                detection: self.detection,
                ..Node::new(id.clone())
            };
            self.topology.nodes.insert(id, node);
        }
        let in_sync = members.iter().map(|name| self.hosts[self.node(name)].id.clone());
        let shard = Shard {
            id: self.shard.clone(),
            slots: Topology::even_ranges(1),
            term: Term::new(1),
            primary: Some(self.hosts[0].id.clone()),
            in_sync: in_sync.collect(),
            restarted: BTreeSet::new(),
            in_sync_version: 1,
            previous_primary_gone: true,
            predecessor_gone: true,
            handoff_position: Position::ZERO,
            absent: Default::default(),
        };
        self.topology.shards.insert(self.shard.clone(), shard);
        let default = self.topology.default_min_in_sync(&self.shard);
        let minimum = match self.config.replication_ack {
            ReplicationAck::InSync => self.config.min_in_sync.unwrap_or(default),
            ReplicationAck::Async => 0,
        };
        let shard = self.topology.shards.get_mut(&self.shard).unwrap();
        shard.absent.min_in_sync = Some(u32::try_from(minimum).unwrap());
        (0..self.hosts.len()).for_each(|node| self.start(node));
        self.announce();
    }

    /// A process with what its disk has.
    fn start(&mut self, node: usize) {
        self.next_run += 1;
        let (run, now, config) = (self.next_run, self.now, self.config.clone());
        let ring_bytes = self.ring_bytes;
        let host = &mut self.hosts[node];
        let lease = self.leases.get(&host.name).copied().unwrap_or(config.lease);
        let config = Config { lease, grace: config.grace.max(lease * 5 / 4), ..config };
        host.incarnation = host.incarnation.next();
        (host.is_gone, host.is_paused) = (false, false);
        let (mut log, mut keys, mut applied, mut disk) =
            (WriteLog::new(ring_bytes), Vec::new(), LogIndex::ZERO, None);
        if host.fsync.is_some() {
            let loaded = match host.platter.load(ring_bytes) {
                Ok(loaded) => loaded,
                Err(breach) => {
                    let line = format!("{} does not start: {breach}", host.name);
                    return self.tell(line);
                }
            };
            (log, keys, applied) = (loaded.log, loaded.base, loaded.applied);
            let texts =
                loaded.entries.iter().map(|(_, payload)| String::from_utf8_lossy(payload).into_owned());
            keys.extend(texts.filter(|text| !text.is_empty()));
            log.attach_disk();
            disk = Some(DiskLog::new(now, BATCH_BYTES, loaded.file, applied, log.shard().cloned()));
        }
        let core = NodeCore::new(config, host.id.clone(), host.incarnation, &log, applied, now);
        host.process = Some(Process {
            run,
            core,
            log,
            gate: Gate::replicated(),
            keys,
            applied,
            written: applied,
            epoch: 0,
            indexes: None,
            held: Vec::new(),
            senders: Default::default(),
            heard: Default::default(),
            links: Default::default(),
            uplinks: Default::default(),
            requests: Vec::new(),
            disk,
            rewrite: None,
            next_rewrite: 0,
        });
        let (id, incarnation) = (host.id.clone(), host.incarnation);
        self.topology.nodes.get_mut(&id).unwrap().incarnation = incarnation;
    }

    /// As the sentinels see it: a member that starts again may have lost what it held, and leads no more.
    fn restart(&mut self, name: &str) {
        let node = self.node(name);
        self.start(node);
        let id = self.hosts[node].id.clone();
        let known = self.topology.shards.get_mut(&self.shard);
        if let Some(shard) = known {
            if shard.in_sync.contains(&id) {
                shard.in_sync_version += 1;
                shard.restarted.insert(id.clone());
            }
            if shard.primary.as_ref() == Some(&id) {
                shard.primary = None;
            }
        }
        self.announce();
    }

    fn adopt(&mut self, name: &str) {
        let node = self.node(name);
        let (id, term) = (self.hosts[node].id.clone(), self.hosts[node].process().log.last().term.next());
        let shard = self.forgotten.take().expect("it was forgotten");
        self.topology.nodes.values_mut().for_each(|node| node.shard = Some(shard.id.clone()));
        let (in_sync, primary) = (BTreeSet::from([id.clone()]), Some(id));
        let shard = Shard { term, primary, in_sync, restarted: BTreeSet::new(), ..shard };
        self.topology.shards.insert(shard.id.clone(), Shard { previous_primary_gone: false, ..shard });
        self.announce();
    }

    fn kill(&mut self, name: &str) {
        let node = self.node(name);
        self.end_streams(node, None);
        self.hosts[node].process = None;
    }

    fn status(&mut self, name: &str) {
        let now = self.now;
        let process = self.host(name).process();
        let keys = process.keys.join(" ");
        let mut line = format!("{name} has [{keys}]");
        if let RoleStatus::Primary { leases, .. } = process.core.status(now, &process.log).role {
            let until = process.core.view(&process.log).lease_until.since(now);
            let names: Vec<String> =
                self.hosts.iter().filter(|h| leases.contains(&h.id)).map(|h| h.name.clone()).collect();
            let time = if until > Duration::from_secs(3600) {
                "ever".into()
            } else {
                format!("{} ms", until.as_millis())
            };
            line += &format!(", leases of [{}], may serve for {time}", names.join(" "));
        }
        self.tell(line);
    }

    // ------------------------------------------------------------------ clients

    fn write(&mut self, name: &str, what: &str) {
        let node = self.node(name);
        let now = self.now;
        let process = self.hosts[node].process();
        let writable = process.gate.writable();
        let objection = process.objection(now).or_else(|| (!writable).then(|| "too few in sync".into()));
        if let Some(objection) = objection {
            return self.tell(format!("{name}: {what} is not executed: {objection}"));
        }
        let index = process.log.append(process.gate.term(), what.as_bytes());
        process.keys.push(what.to_owned());
        (process.applied, process.written) = (index, index);
        process.hold(what.to_owned(), now, |condition| condition.wrote(index));
        process.commit_at_once();
        self.after_step(node);
    }

    fn read(&mut self, name: &str) {
        let node = self.node(name);
        let now = self.now;
        let process = self.hosts[node].process();
        if let Some(objection) = process.objection(now) {
            return self.tell(format!("{name}: the read is not executed: {objection}"));
        }
        let what = format!("a read of [{}]", process.keys.join(" "));
        let (written, last) = (process.written, process.log.last().index);
        process.hold(what, now, |condition| condition.read(Read::Slots(written), || last));
        self.after_step(node);
    }

    // ------------------------------------------------------------------ the network

    fn hold(&mut self, pairs: &[(&str, &str)]) {
        for (from, to) in pairs {
            let pair = (self.node(from), self.node(to));
            self.held.insert(pair);
        }
    }

    /// What a node has sent and nobody has received is lost with it.
    fn lose_sent(&mut self, node: usize) {
        for stream in self.streams.values_mut() {
            if stream.replica == node {
                stream.to_primary.clear();
            }
            if stream.primary == node {
                stream.to_replica.clear();
            }
        }
    }

    fn deliver_held(&mut self, from: &str, to: &str) {
        let (from, to) = (self.node(from), self.node(to));
        let found = self.streams.iter().find_map(|(id, stream)| {
            let to_primary = (stream.replica, stream.primary) == (from, to) && !stream.to_primary.is_empty();
            let to_replica = (stream.primary, stream.replica) == (from, to) && !stream.to_replica.is_empty();
            (to_primary || to_replica).then_some((*id, to_primary))
        });
        let (id, to_primary) = found.expect("a message waits");
        let shows = std::mem::replace(&mut self.shows_messages, true);
        self.deliver(id, to_primary);
        self.shows_messages = shows;
    }

    // ------------------------------------------------------------------ the sentinels

    fn last_request(&mut self, name: &str) -> RequestId {
        self.host(name).process().requests.last().expect("a request").0
    }

    fn answer(&mut self, name: &str, id: RequestId, outcome: Outcome) {
        let node = self.node(name);
        self.hosts[node].process().requests.retain(|(request, _)| *request != id);
        self.push(node, Event::RequestAnswered(id, outcome));
    }

    /// What a node has asked for is committed, if it fits what is there: the set's version, or the term.
    fn carry_out(&mut self, name: &str) -> RequestId {
        let shard = &self.topology.shards[&self.shard];
        let (now, term) = (shard.in_sync_version, shard.term);
        let requests = &self.host(name).process().requests;
        let fits = |request: &Request| match request {
            Request::Remove { version, .. }
            | Request::Minimum { version, .. }
            | Request::Add { version, .. }
            | Request::Handoff { version, .. } => *version == now,
            Request::Failover { term: of, .. } => *of == term,
        };
        let found = requests.iter().find(|(_, request)| fits(request)).cloned();
        let (id, request) = found.expect("a request that the sentinels would not refuse");
        let reporter = self.host(name).id.clone();
        let shard = self.topology.shards.get_mut(&self.shard).unwrap();
        match request {
            Request::Remove { nodes, .. } => {
                shard.in_sync.retain(|id| !nodes.contains(id));
                shard.restarted.retain(|id| !nodes.contains(id));
                shard.in_sync_version += 1;
            }
            Request::Minimum { nodes, .. } => {
                let before = shard.absent.min_in_sync.replace(nodes);
                shard.in_sync_version += u64::from(before != Some(nodes));
            }
            Request::Add { node, .. } => {
                shard.in_sync.insert(node);
                shard.in_sync_version += 1;
            }
            Request::Handoff { target, last, .. } => {
                shard.primary = Some(target);
                shard.term = shard.term.next();
                (shard.previous_primary_gone, shard.predecessor_gone) = (true, true);
                shard.handoff_position = last;
                shard.in_sync_version += 1;
            }
            Request::Failover { .. } => {
                let old = shard.primary.replace(reporter);
                shard.in_sync.retain(|id| Some(id) != old.as_ref());
                shard.restarted.retain(|id| Some(id) != old.as_ref());
                shard.term = shard.term.next();
                (shard.previous_primary_gone, shard.predecessor_gone) = (false, false);
                shard.in_sync_version += 1;
            }
        }
        self.announce();
        id
    }

    fn promote(&mut self, name: &str, rest: &[&str]) {
        let id = self.host(name).id.clone();
        let is_gone = rest.contains(&"gone");
        let without = rest.iter().filter(|word| !["without", "gone", "last-gone"].contains(word));
        let without: Vec<NodeId> = without.map(|name| self.hosts[self.node(name)].id.clone()).collect();
        let shard = self.topology.shards.get_mut(&self.shard).unwrap();
        shard.primary = Some(id.clone());
        shard.in_sync.insert(id.clone());
        shard.in_sync.retain(|id| !without.contains(id));
        let in_sync = shard.in_sync.clone();
        shard.restarted.retain(|node| in_sync.contains(node) && *node != id);
        shard.term = shard.term.next();
        shard.previous_primary_gone = is_gone;
        shard.predecessor_gone = is_gone || rest.contains(&"last-gone");
        shard.in_sync_version += 1;
        self.announce();
    }

    fn found_shard(&mut self, name: &str) {
        let id = self.host(name).id.clone();
        let (_, mut shard) = self.topology.shards.pop_first().unwrap();
        self.shard = ShardId::from_random([77; 20]);
        shard.id = self.shard.clone();
        (shard.primary, shard.in_sync, shard.restarted) = (Some(id.clone()), [id].into(), BTreeSet::new());
        (shard.term, shard.in_sync_version, shard.previous_primary_gone) = (Term::new(1), 1, true);
        shard.predecessor_gone = true;
        self.topology.shards.insert(self.shard.clone(), shard);
        self.topology.nodes.values_mut().for_each(|node| node.shard = Some(self.shard.clone()));
        self.announce();
    }

    fn hand_over(&mut self, name: &str, target: Option<NodeId>) {
        self.next_token += 1;
        let (node, token) = (self.node(name), HandoffToken(self.next_token));
        self.push(node, Event::HandoffRequested(token, target));
    }

    // ------------------------------------------------------------------ the disk

    fn disk(&mut self, name: &str, what: &str) {
        let node = self.node(name);
        match what {
            "stop" => self.hosts[node].is_disk_stopped = true,
            "go" => {
                self.hosts[node].is_disk_stopped = false;
                while self.disk_step(node) {}
            }
            "step" => {
                self.disk_step(node);
            }
            other => panic!("a disk does not {other}"),
        }
    }

    fn rewrite(&mut self, name: &str) {
        let node = self.node(name);
        let process = self.hosts[node].process();
        let id = RewriteId(process.next_rewrite);
        process.next_rewrite += 1;
        process.rewrite = Some((id, process.keys.clone()));
        let index = process.applied;
        let at = Position { term: process.log.term_at(index).unwrap(), index };
        DiskLog::keep_for_rewrite(&mut process.log, index);
        let mut notes = Vec::new();
        let stamp = Stamp { at, shard: process.log.shard().cloned() };
        process.disk.as_mut().unwrap().begin_rewrite(id, stamp, &mut process.log, &mut notes);
        self.tell(format!("{name}: a snapshot begins at {at}"));
        self.after_step(node);
    }

    fn base(&mut self, name: &str) {
        let node = self.node(name);
        let process = self.hosts[node].process();
        let id = process.rewrite.as_ref().unwrap().0;
        let mut notes = Vec::new();
        process.disk.as_mut().unwrap().base_written(id, &mut notes);
        self.after_step(node);
    }
}
