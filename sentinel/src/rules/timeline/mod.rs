//! The latest changes of shards' primaries, with how long each phase of them took: for `status` and the page.
//!
//! Every sentinel sees in the topology that a shard is led by another node in a later term. Why, and how long it took,
//! knows only the one that led the change; when the new primary began to serve, the new primary. Sentinels tell each
//! other what they remember ([`Timeline::merge`] comes to the same in whichever order), so that a change of their leader
//! or a restart of one loses nothing. Nothing of it is agreed upon, stored, or needed for safety.

mod tally;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use keyward_proto::ids::{NodeId, ShardId, Term};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Shard, Topology};
use serde::{Deserialize, Serialize};

pub(crate) use tally::{BOUNDS_MICROS, Tally};

use super::coordinator::{Replaced, Request};
use super::failover::Trigger;
use super::health::Health;
use super::topology::RaftId;

/// Older changes are forgotten.
pub(crate) const CHANGES_MAX: usize = 200;
/// Records of other sentinels with longer texts are not taken.
const TEXT_BYTES_MAX: usize = 300;
/// Complaints that nothing has come of yet; beyond that they are forgotten.
const COMPLAINTS_MAX: usize = 4096;

/// What happened to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) enum Kind {
    /// It has another primary; of whoever knows why nothing has been heard yet.
    Change,
    /// It has its first primary.
    Formed,
    /// The primary was replaced.
    Failover,
    /// The primary handed its role over.
    Handoff,
}

/// A part of a change, in the order in which they follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) enum Phase {
    /// From the last that was heard of the old primary until a sentinel was told so.
    Noticing,
    /// A hand-off: until the primary had stopped, and its successor held everything.
    CatchingUp,
    /// Until the shard's nodes had answered how far they are.
    Asking,
    /// Until a majority of the sentinels had it.
    Commit,
    /// Until the new primary served: it waits for the leases that others still hold.
    Leases,
    /// Of a later program.
    Other,
}

/// A shard is led by another node. Also JSON that travels between sentinels: fields may be added, not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub shard: String,
    /// What clients call it.
    pub shard_name: String,
    /// The new one.
    pub term: u64,
    pub kind: Kind,
    /// By the wall clock of the sentinel that tells it.
    pub at_millis: u64,
    /// As people call them; empty: there was none.
    #[serde(default)]
    pub from: String,
    #[serde(default)]
    pub to: String,
    /// The ID of the new primary.
    #[serde(default)]
    pub to_id: String,
    #[serde(default)]
    pub reason: String,
    /// Microseconds, of those that are known.
    #[serde(default)]
    pub phases: BTreeMap<Phase, u64>,
}

impl Change {
    /// One record of both. Whose record says why tells the rest, too; of two equals the earlier one.
    fn merged(self, other: Change) -> Change {
        let worth = |change: &Change| (change.kind.is_explained(), Reverse(change.at_millis));
        let is_better = worth(&other) > worth(&self);
        let (mut best, lesser) = if is_better { (other, self) } else { (self, other) };
        for (phase, micros) in lesser.phases {
            let known = best.phases.entry(phase).or_default();
            *known = micros.max(*known);
        }
        best
    }

    fn is_sound(&self) -> bool {
        ShardId::parse(&self.shard).is_some()
            && (self.to_id.is_empty() || NodeId::parse(&self.to_id).is_some())
            && [&self.shard_name, &self.from, &self.to, &self.reason]
                .iter()
                .all(|text| text.len() <= TEXT_BYTES_MAX)
    }
}

type Key = (String, u64);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    changes: BTreeMap<Key, Change>,
    /// Each shard as it was last seen: its term, and who led it.
    seen: Option<BTreeMap<ShardId, (Term, String)>>,
    /// How long whoever complains of its primary has not heard it.
    complaints: BTreeMap<(ShardId, NodeId), (Term, Duration)>,
    /// Hand-offs that this sentinel has asked for.
    wanted: BTreeMap<ShardId, (Term, Monotonic)>,
    tally: Tally,
    /// Computed when somebody asks for it after a change.
    mark: Option<u64>,
    /// What the other sentinels had when they were last asked.
    marks: BTreeMap<RaftId, u64>,
}

impl Timeline {
    /// The topology as it is now. What it shows at first is no news. Whether something has been added.
    pub(crate) fn observe(&mut self, topology: &Topology, at_millis: u64) -> Novelty {
        let is_first = self.seen.is_none();
        let seen = self.seen.get_or_insert_default();
        let mut news = Vec::new();
        for shard in topology.shards.values() {
            let Some(primary) = &shard.primary else { continue };
            let now = (shard.term, topology.node_name(primary));
            let before = seen.insert(shard.id.clone(), now);
            if is_first || before.as_ref().is_some_and(|(term, _)| *term == shard.term) {
                continue;
            }
            let kind = if before.is_none() { Kind::Formed } else { Kind::Change };
            let from = before.map(|(_, from)| from).unwrap_or_default();
            news.push(Change { kind, from, ..change(topology, shard, shard.term, primary, at_millis) });
        }
        seen.retain(|id, _| topology.shards.contains_key(id));
        self.add(news)
    }

    /// A replica asks for another primary, after such a silence; zero: it does not say.
    pub(crate) fn complained(&mut self, shard: ShardId, term: Term, reporter: NodeId, silence: Duration) {
        if COMPLAINTS_MAX <= self.complaints.len() {
            self.complaints.clear();
        }
        if !silence.is_zero() {
            self.complaints.insert((shard, reporter), (term, silence));
        }
    }

    /// An operator wants a hand-off.
    pub(crate) fn wants_handoff(&mut self, now: Monotonic, shard: &Shard) {
        self.wanted.insert(shard.id.clone(), (shard.term, now));
    }

    /// A change that this sentinel has led took effect.
    pub(crate) fn led(
        &mut self,
        now: Monotonic,
        at_millis: u64,
        health: &Health,
        request: &Request,
        replaced: &Replaced,
    ) -> Novelty {
        let Replaced { topology, change: decided, asked, total } = replaced;
        let Some(shard) = topology.shards.get(&decided.shard) else { return Novelty::Nothing };
        let mut phases = BTreeMap::from([(Phase::Commit, micros(total.saturating_sub(*asked)))]);
        let (kind, reason) = match request {
            Request::Failover { trigger, .. } => {
                phases.insert(Phase::Asking, micros(*asked));
                let noticing = self.noticing(now, *total, shard, trigger, health);
                phases.extend(noticing.map(|time| (Phase::Noticing, micros(time))));
                (Kind::Failover, reason(trigger, topology))
            }
            Request::Handoff(_) => {
                let wanted = self.wanted.get(&shard.id).filter(|(term, _)| *term == shard.term);
                let time = wanted.map(|(_, since)| now.since(*since).saturating_sub(*total));
                phases.extend(time.map(|time| (Phase::CatchingUp, micros(time))));
                let reason =
                    if wanted.is_some() { "an operator asked for it" } else { "the primary gave it away" };
                (Kind::Handoff, reason.to_owned())
            }
        };
        self.wanted.remove(&shard.id);
        self.complaints.retain(|(id, _), _| *id != shard.id);
        let before = shard.primary.as_ref().map(|id| topology.node_name(id));
        let last = || self.seen.as_ref()?.get(&shard.id).filter(|(term, _)| *term == shard.term);
        let from = before.or_else(|| last().map(|(_, name)| name.clone())).unwrap_or_default();
        let term = decided.expected_term.next();
        let led = change(topology, shard, term, &decided.node, at_millis);
        self.tally.count(kind, &phases);
        self.tally.awaits(kind, (led.shard.clone(), led.term));
        self.add(vec![Change { kind, from, reason, phases, ..led }])
    }

    /// How long the old primary had not been heard when the change began, which has taken `total` by now.
    fn noticing(
        &self,
        now: Monotonic,
        total: Duration,
        shard: &Shard,
        trigger: &Trigger,
        health: &Health,
    ) -> Option<Duration> {
        match trigger {
            Trigger::Complaint { reporter } => {
                let told = self.complaints.get(&(shard.id.clone(), reporter.clone()));
                told.filter(|(term, _)| *term == shard.term).map(|(_, silence)| *silence)
            }
            Trigger::Watchdog => {
                let primary = shard.primary.as_ref().and_then(|id| health.nodes.get(id));
                primary.map(|node| now.since(node.answered_at).saturating_sub(total))
            }
            Trigger::Force { .. } | Trigger::Takeover { .. } | Trigger::Operator { .. } => None,
        }
    }

    /// What new primaries say of how long they have waited until they served.
    pub(crate) fn served(&mut self, health: &Health) -> Novelty {
        let mut found = Vec::new();
        for change in self.changes.values().filter(|c| !c.phases.contains_key(&Phase::Leases)) {
            let status = NodeId::parse(&change.to_id).and_then(|id| health.nodes.get(&id)?.status.as_ref());
            let of_term = status.filter(|s| s.shard_id == change.shard && s.term == change.term);
            if let Some(nanos) = of_term.filter(|s| s.role == "primary").and_then(|s| s.takeover_nanos) {
                found.push(((change.shard.clone(), change.term), nanos / 1000));
            }
        }
        if found.is_empty() {
            return Novelty::Nothing;
        }
        for (key, micros) in found {
            if let Some(change) = self.changes.get_mut(&key) {
                change.phases.insert(Phase::Leases, micros);
            }
            self.tally.served(&key, micros);
        }
        self.mark = None;
        Novelty::Something
    }

    /// Whether another sentinel with this mark may remember what this one does not.
    pub(crate) fn is_news(&mut self, id: RaftId, mark: u64) -> bool {
        mark != self.mark() && self.marks.get(&id) != Some(&mark)
    }

    /// What another sentinel has said that it remembers.
    pub(crate) fn learned(&mut self, id: RaftId, mark: u64, changes: Vec<Change>) -> Novelty {
        // Those that have left are few, but the map has a bound.
        if CHANGES_MAX <= self.marks.len() {
            self.marks.clear();
        }
        self.marks.insert(id, mark);
        self.merge(changes)
    }

    fn merge(&mut self, others: Vec<Change>) -> Novelty {
        self.add(others.into_iter().filter(Change::is_sound).take(CHANGES_MAX).collect())
    }

    fn add(&mut self, news: Vec<Change>) -> Novelty {
        let mut novelty = Novelty::Nothing;
        for change in news {
            let key = (change.shard.clone(), change.term);
            let known = self.changes.get(&key).cloned();
            let merged = match known.clone() {
                Some(known) => known.merged(change),
                None => change,
            };
            if known.as_ref() != Some(&merged) {
                // Another sentinel may have heard first that the new primary serves.
                if let Some(micros) = merged.phases.get(&Phase::Leases) {
                    self.tally.served(&key, *micros);
                }
                self.changes.insert(key, merged);
                (novelty, self.mark) = (Novelty::Something, None);
            }
        }
        while CHANGES_MAX < self.changes.len() {
            let oldest = self.changes.iter().min_by_key(|(key, change)| (change.at_millis, *key));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            self.changes.remove(&key);
        }
        novelty
    }

    /// The same number at another sentinel: it remembers the same. FNV-1a of what is remembered; never zero.
    pub(crate) fn mark(&mut self) -> u64 {
        if let Some(mark) = self.mark {
            return mark;
        }
        let bytes = serde_json::to_vec(&self.latest()).unwrap_or_default();
        let hash = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        let mark = bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash).max(1);
        self.mark = Some(mark);
        mark
    }

    /// The latest first.
    pub(crate) fn latest(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.changes.values().cloned().collect();
        changes.sort_by(|a, b| (b.at_millis, b.term, &b.shard).cmp(&(a.at_millis, a.term, &a.shard)));
        changes
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// Whether what is remembered has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Novelty {
    Something,
    Nothing,
}

fn change(topology: &Topology, shard: &Shard, term: Term, to: &NodeId, at_millis: u64) -> Change {
    Change {
        shard: shard.id.to_string(),
        shard_name: topology.shard_name(&shard.id),
        term: term.get(),
        kind: Kind::Change,
        at_millis,
        from: String::new(),
        to: topology.node_name(to),
        to_id: to.to_string(),
        reason: String::new(),
        phases: BTreeMap::new(),
    }
}

/// For people who read it later, each by itself.
fn reason(trigger: &Trigger, topology: &Topology) -> String {
    match trigger {
        Trigger::Complaint { reporter } => format!("{} lost its primary", topology.node_name(reporter)),
        Trigger::Force { reporter } => {
            format!("CLUSTER FAILOVER FORCE at {}", topology.node_name(reporter))
        }
        Trigger::Takeover { reporter } => {
            format!("CLUSTER FAILOVER TAKEOVER at {}", topology.node_name(reporter))
        }
        Trigger::Watchdog => "nobody listened at the primary's address, or there was none".to_owned(),
        Trigger::Operator { .. } => "an operator asked for it, and the primary did not answer".to_owned(),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
