//! What goes wrong: one fault after another, at random, several at a time.
//!
//! **Which data may be lost.** The promise is that an acknowledged write is lost only if every machine has lost it of
//! those that were members when it was acknowledged and have held all since: members, and nodes that left a set which
//! could commit nothing any more. So the simulation keeps one of these *intact*: a crash that takes with it what the
//! node holds (memory without persistence, an emptied disk, a power failure with unsynced entries, a crash after a
//! failed sync) happens only while another one has everything and no change is under way; otherwise the node is killed without loss, or stands
//! still for a while. All processes at once may be killed at any time, and with `appendfsync always` all machines may
//! lose their power.

use std::sync::Arc;

use keyward_proto::ids::{NodeId, ShardId, Term};
use keyward_proto::topology::FastFailover;
use keyward_replication::core::messages::{Event, HandoffToken, Outcome};
use keyward_replication::disk_log::Step;
use keyward_sentinel::rules::formation;
use rand::Rng;

use super::disk::Persistence;
use super::messages::Message;
use super::network;
use super::node::{Machine, Power, serves};
use super::sentinel::Purpose;
use super::story::tell;
use super::world::{SimEvent, World};
use super::{CLIENTS, FAULTS_END, NODES, Nanos, SENTINELS, ms};

const DAY_MICROS: i64 = 86_400_000_000;
/// A node that stutters stands still so long, so often.
const STUTTER_STILL: Nanos = ms(130);
const STUTTER_PERIOD: Nanos = ms(400);
/// How long a primary hangs while the others stutter, and by when it has to be replaced.
const HANGS: Nanos = ms(2500);
const HUNG_AT_MOST: Nanos = ms(2000);

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// kill -9: its kernel goes on, what is written stays.
    Kill,
    PowerFailure,
    /// And the base was not on the disk, or an older one was.
    BaseLost,
    /// And the disk is empty afterwards.
    DiskLost,
}

impl World {
    pub(super) fn fault(&mut self) {
        if FAULTS_END <= self.now {
            return self.end_faults();
        }
        if self.standing.is_some() {
            return self.stand();
        }
        let delay = self.rng.random_range(ms(5)..self.fault_pause);
        self.at(delay, SimEvent::Fault);
        if self.now < self.no_fault_before {
            return;
        }
        let node = self.rng.random_range(0..NODES);
        let sentinel = self.rng.random_range(0..SENTINELS);
        match self.rng.random_range(0..48) {
            0..=2 => self.crash(node, End::Kill),
            3 => self.crash(node, End::PowerFailure),
            4 if self.rng.random_bool(0.5) => self.crash(node, End::BaseLost),
            4 => self.crash(node, End::DiskLost),
            5 if self.rng.random_bool(0.3) => self.crash_all(),
            5..=7 => {
                let leader = self.leader().filter(|_| self.rng.random_bool(0.6));
                let pause = if self.rng.random_bool(0.5) { ms(300)..ms(700) } else { ms(5)..ms(1500) };
                let pause = self.rng.random_range(pause);
                self.pause_node(leader.unwrap_or(node), pause);
            }
            8 => {
                let pause = self.rng.random_range(ms(10)..ms(1500));
                tell!("FAULT sentinel {sentinel} stands still for {} ms", pause / ms(1));
                self.sentinels[sentinel].paused_until = self.now + pause;
            }
            9 => self.crash_sentinel(sentinel),
            10 | 11 => self.partition(),
            12 => {
                tell!("FAULT the connections of node {node} break");
                self.break_streams(node);
            }
            13 => {
                self.network.loss_percent = self.rng.random_range(1..=30);
                tell!("FAULT {} % of the messages are lost", self.network.loss_percent);
            }
            14..=16 => {
                let target = self.rng.random_range(0..NODES);
                let target = self.rng.random_bool(0.5).then(|| self.machines[target].id.clone());
                self.request_handoff(target);
            }
            17 => {
                tell!("FAULT the clock of node {node} jumps");
                let now = self.now;
                let World { machines, rng, .. } = self;
                let shortest = machines.iter().map(|machine| machine.config.lease).min().unwrap_or_default();
                machines[node].clock.jump(now, shortest.as_nanos() as Nanos / 12, rng);
            }
            18 if self.persistence != Persistence::Memory => {
                let stall = self.rng.random_range(ms(10)..ms(1500));
                tell!("FAULT the disk of node {node} stalls for {} ms", stall / ms(1));
                self.machines[node].disk.stalled_until = self.now + stall;
            }
            19 => self.fail_disk(node),
            20 => {
                let other = self.rng.random_range(0..SENTINELS);
                tell!("FAULT sentinels {sentinel} and {other} believe that they lead");
                for s in [sentinel, other] {
                    self.sentinels[s].leads = self.sentinels[s].is_up;
                }
            }
            21 => {
                let pause = self.rng.random_range(ms(50)..ms(800));
                tell!("FAULT the sentinels commit nothing for {} ms", pause / ms(1));
                self.register_frozen_until = self.now + pause;
            }
            22..=25 => self.unlucky_handoff(),
            26 | 40 => self.force_failover(),
            27 => self.disputed_handoff(),
            28..=30 if self.register.topology.fast_failover() != FastFailover::Trusted => {
                self.refuse_connections();
            }
            31 => self.halt(node),
            32 => {
                let jump = self.rng.random_range(-DAY_MICROS..DAY_MICROS);
                tell!("FAULT the wall clock of node {node} is set by {} s", jump / 1_000_000);
                self.machines[node].wall_clock_set += jump;
            }
            33 => {
                tell!("FAULT node {node} stutters");
                let lasts = self.rng.random_range(ms(500)..ms(3000));
                self.stutter(node, self.now + lasts);
            }
            34 | 36 => self.hang_while_the_others_stutter(),
            35 if self.rng.random_bool(0.15) => self.lose_sentinels(),
            37 | 38 => self.forsake(),
            44..=47 => self.replace_and_return(),
            39 => {
                tell!("FAULT the connections of node {node} are dead, and nobody is told");
                self.deaden_streams(node);
            }
            _ => {
                tell!("the network is whole");
                self.network.heal();
            }
        }
    }

    /// The sentinel that a hand-off goes through crashes meanwhile, or the primary does not hear of the outcome.
    fn unlucky_handoff(&mut self) {
        let Some(node) = self.leader() else { return };
        self.network.heal();
        let sentinel = self.machines[node].rotation.current();
        let crash = self.rng.random_range(ms(1)..ms(30));
        if self.rng.random_bool(0.6) {
            self.register_frozen_until = self.now + ms(30);
            self.at(crash, SimEvent::SentinelCrashes { sentinel });
        }
        if self.rng.random_bool(0.6) {
            self.at(crash + ms(2), SimEvent::Deafen { node });
        }
        self.request_handoff(None);
    }

    /// The sentinel that a hand-off goes through is slow; the next one, cut off from the others, refuses.
    fn disputed_handoff(&mut self) {
        let Some(node) = self.leader() else { return };
        self.network.heal();
        let slow = self.machines[node].rotation.current();
        let outdated = (slow + 1) % SENTINELS;
        tell!("FAULT sentinel {slow} is slow, sentinel {outdated} is cut off with an old view");
        self.sentinels[slow].proposals_until = self.now + self.rng.random_range(ms(220)..ms(500));
        self.sentinels[outdated].view = Arc::clone(&self.register.earlier);
        (0..SENTINELS)
            .filter(|other| *other != outdated)
            .for_each(|other| self.network.cut_both(network::sentinel(outdated), network::sentinel(other)));
        if self.rng.random_bool(0.6) {
            // What the primary has heard by then is the refusal.
            self.at(ms(220), SimEvent::Deafen { node });
        }
        self.request_handoff(None);
    }

    /// A node does not hear the sentinels any more, and perhaps nobody, though it is heard.
    pub(super) fn deafen(&mut self, node: usize) {
        if self.now < FAULTS_END {
            let hears_nodes = self.rng.random_bool(0.5);
            tell!("FAULT node {node} hears {}", if hears_nodes { "no sentinel" } else { "nobody" });
            let from = if hears_nodes { NODES } else { 0 };
            (from..NODES + SENTINELS).for_each(|other| self.network.cut(other, node));
        }
    }

    /// All others stand still for long enough to leave the in-sync set; then the primary ends.
    fn forsake(&mut self) {
        let Some(primary) = self.leader() else { return };
        self.network.heal();
        for other in (0..NODES).filter(|n| *n != primary) {
            let pause = self.rng.random_range(ms(250)..ms(900));
            self.pause_node(other, pause);
        }
        let delay = self.rng.random_range(ms(230)..ms(900));
        self.at(delay, SimEvent::Kill { node: primary });
    }

    /// An operator wants another primary, whatever the present one does; who becomes it may die at once, and be there
    /// again before the lease of the one before has ended.
    fn force_failover(&mut self) {
        let Some(primary) = self.leader() else { return };
        let reporter = (primary + self.rng.random_range(1..NODES)) % NODES;
        let sentinel = self.rng.random_range(0..SENTINELS);
        if self.rng.random_bool(0.6) {
            tell!("FAULT node {primary} is cut off from the sentinels");
            (0..SENTINELS).for_each(|s| self.network.cut_both(network::sentinel(s), primary));
        }
        if self.rng.random_bool(0.6) {
            let delay = self.rng.random_range(ms(2)..ms(200));
            self.at(delay, SimEvent::Kill { node: reporter });
            if self.rng.random_bool(0.5) {
                self.at(delay + ms(5), SimEvent::Start { node: reporter });
            }
        }
        if self.machines[reporter].running().is_none() {
            return;
        }
        tell!("node {reporter} is told to take over");
        let id = self.machines[reporter].id.clone();
        self.asks_under_way += 1;
        self.send_message(reporter, network::sentinel(sentinel), Message::Demand { reporter: id });
    }

    pub(super) fn kill(&mut self, node: usize) {
        if self.now < FAULTS_END {
            self.crash(node, End::Kill);
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let primary = self.register.shard()?.primary.as_ref()?;
        self.machines.iter().position(|m| m.id == *primary)
    }

    /// The hypervisor halts a machine; its clock stands still, and its wall clock is right again when it goes on.
    fn halt(&mut self, random: usize) {
        let node = self.leader().filter(|_| self.rng.random_bool(0.8)).unwrap_or(random);
        let pause = self.rng.random_range(ms(100)..ms(1500));
        tell!("FAULT the machine of node {node} is halted for {} ms", pause / ms(1));
        let now = self.now;
        self.machines[node].clock.halt(now);
        // Before anything that waits for it.
        self.at(pause, SimEvent::GoOn { node });
        self.machines[node].paused_until = now + pause;
    }

    pub(super) fn go_on(&mut self, node: usize) {
        let now = self.now;
        if !self.machines[node].clock.is_halted() {
            return;
        }
        self.machines[node].clock.go_on(now);
        self.machines[node].paused_until = now;
        if let Some(run) = self.machines[node].run() {
            self.step(node, run, Event::Tick);
        }
    }

    pub(super) fn stutter(&mut self, node: usize, until: Nanos) {
        if until.min(FAULTS_END) <= self.now {
            return;
        }
        let machine = &mut self.machines[node];
        machine.paused_until = machine.paused_until.max(self.now + STUTTER_STILL);
        if let Some(run) = machine.run() {
            self.at(STUTTER_STILL, SimEvent::NodeEvent { node, run, event: Event::Tick });
        }
        self.at(STUTTER_PERIOD, SimEvent::Stutter { node, until });
    }

    /// A standing fault that leaves a majority connected: the primary hangs, and all others stutter. Nothing else goes
    /// wrong until it is over.
    fn hang_while_the_others_stutter(&mut self) {
        let Some(primary) = self.leader().filter(|node| serves(&self.machines[*node], self.now)) else {
            return;
        };
        let Some(shard) = self.register.shard() else { return };
        let follows = |m: &Machine| {
            shard.in_sync.contains(&m.id)
                && !shard.restarted.contains(&m.id)
                && m.running().is_some_and(|p| {
                    p.core.is_consistent() && p.incarnation == self.register.incarnation(&m.id)
                })
        };
        let is_whole = self.machines.iter().all(follows) && self.sentinels.iter().all(|s| s.is_up);
        if !is_whole || FAULTS_END < self.now + HANGS {
            return;
        }
        let term = shard.term;
        tell!("FAULT node {primary} hangs while all others stutter");
        self.end_pauses();
        for node in (0..NODES).filter(|node| *node != primary) {
            let begin = self.rng.random_range(0..STUTTER_PERIOD);
            let until = self.now + HANGS;
            self.at(begin, SimEvent::Stutter { node, until });
        }
        self.pause_node(primary, HANGS);
        self.at(HUNG_AT_MOST, SimEvent::HungForLong { term });
        self.no_fault_before = self.now + HANGS;
    }

    pub(super) fn hung_for_long(&self, term: Term) {
        let Some(shard) = self.register.shard() else { return };
        // Those that it had asked to remove before, and that were, cannot prove that it is gone, nor who has died since.
        let is_alone = shard.in_sync.difference(&shard.restarted).count() <= 1;
        assert!(is_alone || term < shard.term, "invariant 10: a hung primary is not replaced");
    }

    pub(super) fn pause_node(&mut self, node: usize, pause: Nanos) {
        // A longer pause goes on.
        if self.machines[node].clock.is_halted() || self.now + pause < self.machines[node].paused_until {
            return;
        }
        tell!("FAULT node {node} stands still for {} ms", pause / ms(1));
        self.machines[node].paused_until = self.now + pause;
        if let Some(run) = self.machines[node].run() {
            self.at(pause, SimEvent::NodeEvent { node, run, event: Event::Tick });
        }
    }

    fn partition(&mut self) {
        let node =
            self.leader().filter(|_| self.rng.random_bool(0.5)).unwrap_or(self.rng.random_range(0..NODES));
        let other = self.rng.random_range(0..NODES);
        let sentinels = NODES..NODES + SENTINELS;
        let one_way = self.rng.random_bool(0.4);
        let mut cut = |a, b| if one_way { self.network.cut(a, b) } else { self.network.cut_both(a, b) };
        let what = match self.rng.random_range(0..8) {
            0 => {
                (0..network::ENDPOINTS).for_each(|to| cut(node, to));
                "is isolated"
            }
            1 => {
                (0..NODES).for_each(|to| cut(node, to));
                "is cut off from the other nodes"
            }
            2 => {
                sentinels.for_each(|to| cut(node, to));
                "is cut off from the sentinels"
            }
            3 => {
                (0..CLIENTS).filter(|c| c % 2 == 0).for_each(|c| cut(network::client(c), node));
                "is cut off from some clients"
            }
            4 => {
                let alone = NODES + other % SENTINELS;
                (0..NODES + SENTINELS).filter(|to| *to != alone && *to != node).for_each(|to| {
                    cut(node, to);
                    cut(alone, to);
                });
                "is cut off together with a sentinel"
            }
            5 => {
                let alone = NODES + other % SENTINELS;
                sentinels.for_each(|to| cut(alone, to));
                "is well, but a sentinel is cut off from the others"
            }
            6 => {
                let alone = NODES + other % SENTINELS;
                (0..NODES).filter(|to| *to != node).for_each(|to| {
                    cut(node, to);
                    cut(alone, to);
                });
                "is cut off from the other nodes, as is a sentinel"
            }
            _ => {
                cut(node, other);
                "is cut off from another node"
            }
        };
        tell!("FAULT node {node} {what}{}", if one_way { ", in one direction" } else { "" });
    }

    /// New connections to the bus port of a node that lives and serves are refused. Perhaps the sentinels do not reach it
    /// otherwise, and perhaps the refusals end the connections that there are.
    fn refuse_connections(&mut self) {
        let random = self.rng.random_range(0..NODES);
        let node = self.leader().filter(|_| self.rng.random_bool(0.8)).unwrap_or(random);
        let (from, whose) = match self.rng.random_range(0..4) {
            0 | 1 => (NODES..NODES + SENTINELS, "sentinels"),
            2 => (0..NODES, "nodes"),
            _ => (0..NODES + SENTINELS, "nodes and sentinels"),
        };
        tell!("FAULT node {node} lives, but new connections of {whose} to it are refused");
        from.for_each(|other| self.network.refuse(other, node));
        if self.rng.random_bool(0.6) {
            tell!("FAULT node {node} is cut off from the sentinels");
            (0..SENTINELS).for_each(|s| self.network.cut_both(network::sentinel(s), node));
        }
        match self.rng.random_range(0..3) {
            0 => self.break_streams(node),
            1 => {
                let other = (node + self.rng.random_range(1..NODES)) % NODES;
                self.network.cut(node, other);
            }
            _ => {}
        }
    }

    /// The primary hands over, perhaps needs a full sync, and is the primary again: what has outlived both terms meets that.
    fn replace_and_return(&mut self) {
        let Some(node) = self.leader() else { return };
        self.network.heal();
        self.request_handoff(None);
        let delay = self.rng.random_range(ms(100)..ms(1000));
        if self.rng.random_bool(0.7) {
            self.at(ms(50), SimEvent::Deafen { node });
        }
        self.at(delay, SimEvent::HandBack { node });
    }

    pub(super) fn hand_back(&mut self, node: usize) {
        if FAULTS_END <= self.now || self.leader() == Some(node) {
            return;
        }
        self.network.heal();
        let id = self.machines[node].id.clone();
        if self.register.shard().is_some_and(|shard| shard.in_sync.contains(&id)) {
            self.request_handoff(Some(id));
        } else {
            self.at(ms(50), SimEvent::HandBack { node });
        }
    }

    pub(super) fn request_handoff(&mut self, target: Option<NodeId>) {
        let Some(node) = self.leader() else { return };
        self.next_token += 1;
        let token = HandoffToken(self.next_token);
        if let Some(run) = self.machines[node].run() {
            tell!("node {node} shall hand over to {target:?}");
            self.step(node, run, Event::HandoffRequested(token, target));
        }
    }

    fn fail_disk(&mut self, node: usize) {
        let step = if self.rng.random_bool(0.7) { Step::Sync } else { Step::Write };
        tell!("FAULT the next {step:?} of node {node}'s disk fails");
        self.machines[node].disk.platter.failing = Some(step);
    }

    pub(super) fn crash_sentinel(&mut self, sentinel: usize) {
        if !self.sentinels[sentinel].is_up || FAULTS_END <= self.now {
            return;
        }
        tell!("FAULT sentinel {sentinel} crashes");
        for (node, run, id) in self.sentinels[sentinel].crash() {
            // Its kernel ends the connections.
            let message = Message::Answered { run, id, outcome: Outcome::Unknown, topology: None };
            self.send_message(network::sentinel(sentinel), node, message);
        }
        let delay = self.rng.random_range(ms(10)..ms(1500));
        self.at(delay, SimEvent::SentinelStarts { sentinel });
    }

    pub(super) fn sentinel_starts(&mut self, sentinel: usize) {
        self.sentinels[sentinel].is_up = true;
        self.elect_if_needed();
    }

    /// Somebody leads, as soon as somebody can.
    fn elect_if_needed(&mut self) {
        if self.sentinels.iter().all(|s| !s.leads)
            && let Some(first) = self.sentinels.iter_mut().find(|s| s.is_up)
        {
            first.leads = true;
        }
    }

    // ------------------------------------------------------------------ sentinels that lose everything

    /// All sentinels lose their directories. An operator restarts the nodes, and lets the sentinels go on with what they
    /// hold.
    fn lose_sentinels(&mut self) {
        if self.persistence == Persistence::Memory || self.register.shard().is_none() {
            return;
        }
        tell!("FAULT all sentinels lose their directories");
        (0..SENTINELS).for_each(|sentinel| self.crash_sentinel(sentinel));
        self.register.forget();
        self.invariants.sentinels_forgot();
        let topology = Arc::clone(&self.register.topology);
        self.sentinels.iter_mut().for_each(|sentinel| sentinel.forget(&topology));
        let delay = self.rng.random_range(ms(50)..ms(1000));
        self.at(delay, SimEvent::Operator);
    }

    pub(super) fn operate(&mut self) {
        if self.register.shard().is_some() {
            return;
        }
        self.at(ms(50), SimEvent::Operator);
        let history = self.register.topology.history;
        for node in 0..NODES {
            if self.machines[node].running().is_some_and(|p| p.core.topology().history != history) {
                self.crash(node, End::Kill);
            }
        }
        let is_there =
            |m: &Machine| m.running().is_some_and(|p| p.incarnation == self.register.incarnation(&m.id));
        let leader = self.sentinels.iter().position(|s| s.leads);
        let Some(sentinel) = leader.filter(|_| self.machines.iter().all(is_there)) else { return };
        let random = ShardId::from_random(self.rng.random());
        match formation::adopt(&self.register.topology, || random.clone()) {
            Ok(command) => self.propose(sentinel, command, Purpose::Again),
            Err(refusal) => tell!("the operator cannot adopt anything: {refusal}"),
        }
    }

    // ------------------------------------------------------------------ crashes

    /// Whether another node that may lead would still have everything if this node lost what it holds.
    fn may_lose(&self, node: usize) -> bool {
        // Who was in sync is not known any more: nobody may lose anything.
        let Some(shard) = self.register.shard() else { return false };
        let decided = self.asks_under_way == 0
            && self.proposals_under_way == 0
            && self.sentinels.iter().all(super::sentinel::Sentinel::is_idle);
        let has_everything = |m: &Machine| {
            let is_member = shard.in_sync.contains(&m.id) || shard.absent.eligible.contains(&m.id);
            let in_memory = m.running().is_some_and(|p| {
                p.incarnation == self.register.incarnation(&m.id) && !shard.restarted.contains(&m.id)
            });
            m.intact && is_member && (in_memory || self.persistence != Persistence::Memory)
        };
        decided && self.machines.iter().enumerate().any(|(other, m)| other != node && has_everything(m))
    }

    fn crash(&mut self, node: usize, wanted: End) {
        if self.machines[node].run().is_none() {
            return;
        }
        let end = [wanted, End::Kill].into_iter().find(|end| !self.loses(node, *end) || self.may_lose(node));
        match end {
            Some(end) => self.end_process(node, end),
            None => self.pause_node(node, ms(300)),
        }
    }

    /// Whether the node would forget something that it has said that it holds.
    fn loses(&self, node: usize, end: End) -> bool {
        let Machine { power, disk, .. } = &self.machines[node];
        let writer = match power {
            Power::On(process) => process.writer.as_ref(),
            Power::Starting(_) | Power::Off { .. } => None,
        };
        match (self.persistence, end) {
            (Persistence::Memory, _) | (_, End::DiskLost) => true,
            (Persistence::EverySecond | Persistence::Never, End::PowerFailure | End::BaseLost)
                if disk.platter.has_unsynced() =>
            {
                true
            }
            (_, End::BaseLost) if disk.platter.has_base() => true,
            (_, End::PowerFailure | End::BaseLost | End::Kill) => writer.is_some_and(|w| w.is_behind(disk)),
        }
    }

    fn crash_all(&mut self) {
        if self.persistence == Persistence::Memory {
            return;
        }
        let power = self.persistence == Persistence::Always && self.rng.random_bool(0.5);
        for node in 0..NODES {
            self.crash(node, if power { End::PowerFailure } else { End::Kill });
        }
    }

    fn end_process(&mut self, node: usize, end: End) {
        let loses = self.loses(node, end);
        tell!("FAULT node {node} ends: {end:?}{}", if loses { ", with what it held" } else { "" });
        let World { machines, rng, persistence, .. } = self;
        let machine = &mut machines[node];
        match end {
            End::Kill => {}
            End::PowerFailure => machine.disk.lose_power(*persistence, rng),
            End::BaseLost => machine.disk.lose_base(*persistence, rng),
            End::DiskLost => machine.disk.empty(),
        }
        machine.intact &= !loses;
        machine.clock.go_on(self.now);
        machine.asked.clear();
        machine.paused_until = 0;
        let has_power = end == End::Kill;
        let power = std::mem::replace(&mut machine.power, Power::Off { has_power });
        if let (Power::On(process), true) = (power, has_power) {
            // Its kernel tells the others.
            for stream in process.links.values() {
                self.reset(*stream, network::Towards::Replica);
            }
            for stream in process.uplinks.values() {
                self.reset(*stream, network::Towards::Primary);
            }
        }
        let delay = self.rng.random_range(ms(10)..ms(600));
        self.at(delay, SimEvent::Start { node });
    }

    fn end_faults(&mut self) {
        self.check_who_gave_way();
        tell!("the faults end");
        self.end_pauses();
        self.elect_if_needed();
    }

    /// Everything goes on, and is connected.
    fn end_pauses(&mut self) {
        self.network.heal();
        self.register_frozen_until = self.register_frozen_until.min(self.now);
        (0..NODES).for_each(|node| self.go_on(node));
        for machine in &mut self.machines {
            machine.paused_until = machine.paused_until.min(self.now);
            machine.disk.stalled_until = machine.disk.stalled_until.min(self.now);
            machine.disk.pace = 0;
            machine.disk.platter.failing = None;
        }
        for sentinel in &mut self.sentinels {
            sentinel.paused_until = sentinel.paused_until.min(self.now);
            sentinel.proposals_until = sentinel.proposals_until.min(self.now);
        }
    }
}
