//! The invariants of ARCHITECTURE.md ("The invariants"), as far as recordings show them. What no process has recorded is not missed.

use std::collections::BTreeMap;

use keyward_proto::flight::Recorded;
use keyward_proto::ids::{LogIndex, NodeId, Position, ShardId, Term};
use keyward_replication::core::ReplicationAck;
use keyward_replication::gate::GateState;
use keyward_replication::recorder::{Record, ShardPart, ShardView};
use keyward_sentinel::rules::recorder::Record as SentinelRecord;
use keyward_sentinel::rules::topology::{Batch, Outcome, TopologyCommand, apply};

use super::{Flight, Incident};
use crate::simulation::invariants::in_sync_changes;

/// Which invariants were broken, a line each.
pub fn violations(incident: &Incident) -> Vec<String> {
    let mut found = Vec::new();
    let mut terms = Terms::default();
    for flight in &incident.sentinels {
        agreed(flight, &mut terms, &mut found);
    }
    for flight in &incident.nodes {
        Process::follow(incident, flight, &mut terms, &mut found);
    }
    terms.check(incident, &mut found);
    found.sort();
    found.dedup();
    found
}

/// What is known of a shard's terms.
#[derive(Debug, Default)]
struct Terms {
    /// Whom the sentinels have named, and who has said so.
    named: BTreeMap<(ShardId, Term), BTreeMap<NodeId, String>>,
    /// Who was a primary, and where its log ended when it began.
    primaries: BTreeMap<(ShardId, Term), BTreeMap<NodeId, Position>>,
    /// The last entry that a primary of this term has committed.
    committed: BTreeMap<(ShardId, Term), LogIndex>,
    /// An operator has accepted losses.
    takeovers: Vec<(ShardId, Term)>,
    /// From when to when a node served, by the clock of all.
    served: Vec<Served>,
    /// What each entry of Raft's log was.
    entries: BTreeMap<u64, (String, Batch)>,
}

#[derive(Debug)]
struct Served {
    shard: ShardId,
    node: NodeId,
    from: i128,
    to: i128,
}

impl Terms {
    fn check(&self, incident: &Incident, found: &mut Vec<String>) {
        for ((shard, term), named) in self.named.iter().filter(|(_, named)| 1 < named.len()) {
            let said = named.iter().map(|(id, by)| format!("{} says {}", by, incident.name(id)));
            let said = said.collect::<Vec<_>>().join(", ");
            found.push(format!(
                "one owner: who leads term {term} of {}? {said}",
                incident.name_of(shard.as_str())
            ));
        }
        for ((shard, term), primaries) in &self.primaries {
            let names: Vec<&str> = primaries.keys().map(|id| incident.name(id)).collect();
            if 1 < names.len() {
                found.push(format!("one primary: {} were primaries of term {term}", names.join(" and ")));
            }
            if self.takeovers.iter().any(|(of, at)| of == shard && at <= term) {
                continue;
            }
            let earlier = self.committed.iter().filter(|((of, at), _)| of == shard && at < term);
            for ((_, at), committed) in earlier {
                for (id, began) in primaries.iter().filter(|(_, began)| began.index < *committed) {
                    found.push(format!(
                        "committed survives: {} began term {term} with {began}, but {committed} was committed in term {at}",
                        incident.name(id)
                    ));
                }
            }
        }
        if incident.one_clock() {
            self.leases_apart(incident, found);
        }
    }

    fn leases_apart(&self, incident: &Incident, found: &mut Vec<String>) {
        for (at, one) in self.served.iter().enumerate() {
            for other in &self.served[at + 1..] {
                let both = one.to.min(other.to) - one.from.max(other.from);
                if one.shard == other.shard && one.node != other.node && 0 < both {
                    found.push(format!(
                        "leases apart: {} and {} served at once for {:.3} ms",
                        incident.name(&one.node),
                        incident.name(&other.node),
                        both as f64 / 1e6
                    ));
                }
            }
        }
    }
}

/// What all sentinels have agreed on: the same, and only what may follow.
fn agreed(flight: &Flight<SentinelRecord>, terms: &mut Terms, found: &mut Vec<String>) {
    let mut topology = None;
    for recorded in &flight.records {
        match &recorded.record {
            SentinelRecord::Knows(known) => topology = Some((**known).clone()),
            SentinelRecord::Applied { raft_index, batch } => {
                let name = &flight.header.name;
                let known = terms.entries.entry(*raft_index).or_insert_with(|| (name.clone(), batch.clone()));
                if known.1 != *batch {
                    found.push(format!("{} and {name} have different entries {raft_index}", known.0));
                }
                let Some(topology) = &mut topology else { continue };
                for command in &batch.commands {
                    let before = topology.clone();
                    let outcome = apply(topology, *raft_index, command.clone());
                    if !matches!(outcome, Ok(Outcome::Changed | Outcome::Registered { .. })) {
                        continue;
                    }
                    if let Err(broken) = in_sync_changes::check(&before, topology, command) {
                        found.push(format!("entry {raft_index}: {broken}"));
                    }
                    if let TopologyCommand::ReplacePrimary(change) = command
                        && change.takeover
                    {
                        terms.takeovers.push((change.shard.clone(), change.expected_term.next()));
                    }
                    for shard in topology.shards.values() {
                        let Some(primary) = &shard.primary else { continue };
                        let named = terms.named.entry((shard.id.clone(), shard.term)).or_default();
                        named.entry(primary.clone()).or_insert_with(|| name.clone());
                    }
                }
            }
            SentinelRecord::Leader { .. } | SentinelRecord::Heard(_) | SentinelRecord::Did(_) => {}
        }
    }
}

/// A node, as its records go on.
#[derive(Debug)]
struct Process<'a> {
    incident: &'a Incident,
    node: NodeId,
    ack: ReplicationAck,
    shard: Option<ShardPart>,
    state: (GateState, Term),
    last: Position,
    commit: LogIndex,
}

impl Process<'_> {
    fn follow(incident: &Incident, flight: &Flight<Record>, terms: &mut Terms, found: &mut Vec<String>) {
        let Some(node) = NodeId::parse(&flight.header.id) else { return };
        let mut process = Process {
            incident,
            node,
            ack: ReplicationAck::InSync,
            shard: None,
            state: (GateState::NoPrimary, Term::ZERO),
            last: Position::ZERO,
            commit: LogIndex::ZERO,
        };
        for (at, recorded) in flight.records.iter().enumerate() {
            // What it may serve ends with its lease, and with the state.
            let next =
                flight.records[at + 1..].iter().find(|next| matches!(next.record, Record::State { .. }));
            let until = |to: &Recorded<Record>| incident.time(&flight.header, to.at);
            let until = next.map_or(i128::MAX, until);
            let time = |at| incident.time(&flight.header, at);
            process.step(recorded, until, &time, terms, found);
        }
    }

    fn step(
        &mut self,
        recorded: &Recorded<Record>,
        until: i128,
        time: &dyn Fn(keyward_proto::time::Monotonic) -> i128,
        terms: &mut Terms,
        found: &mut Vec<String>,
    ) {
        let name = self.incident.name(&self.node);
        match &recorded.record {
            Record::Started { last, applied, config, .. } => {
                self.ack = config.replication_ack;
                (self.shard, self.state) = (None, (GateState::NoPrimary, Term::ZERO));
                (self.last, self.commit) = (*last, LogIndex::ZERO);
                if last.index < *applied {
                    found.push(format!("{name} has applied {applied}, but its log ends at {last}"));
                }
            }
            Record::Topology(ShardView { shard, .. }) => {
                if let Some((shard, primary)) = shard.as_ref().and_then(|s| Some((s, s.primary.as_ref()?))) {
                    let named = terms.named.entry((shard.id.clone(), shard.term)).or_default();
                    named.entry(primary.clone()).or_insert_with(|| name.to_owned());
                    if !shard.in_sync.contains(primary) {
                        found.push(format!("the primary of term {} is not in sync", shard.term));
                    }
                }
                self.shard.clone_from(shard);
            }
            Record::State { state, term, .. } => {
                if *term < self.state.1 && self.shard.is_some() {
                    found.push(format!("{name} went back from term {} to {term}", self.state.1));
                }
                let is_primary = |state| matches!(state, GateState::Primary | GateState::Holding);
                if is_primary(*state)
                    && (!is_primary(self.state.0) || self.state.1 != *term)
                    && let Some(shard) = &self.shard
                {
                    let began = terms.primaries.entry((shard.id.clone(), *term)).or_default();
                    began.entry(self.node.clone()).or_insert(self.last);
                }
                self.state = (*state, *term);
            }
            Record::Progress { last, commit, lease_until, .. } => {
                // A full sync begins anew.
                if *commit < self.commit && self.state.0 == GateState::Primary {
                    found.push(format!("{name} had committed {} and then {commit}", self.commit));
                }
                if last.index < *commit && self.state.0 != GateState::Replica {
                    found.push(format!("{name} has committed {commit}, but its log ends at {last}"));
                }
                (self.last, self.commit) = (*last, *commit);
                let Some(shard) = &self.shard else { return };
                if self.state.0 == GateState::Primary {
                    let (shard, node) = (shard.id.clone(), self.node.clone());
                    if self.ack == ReplicationAck::InSync {
                        let known = terms.committed.entry((shard.clone(), self.state.1)).or_default();
                        *known = (*known).max(*commit);
                    }
                    let to = time(*lease_until).min(until);
                    terms.served.push(Served { shard, node, from: time(recorded.at), to });
                }
            }
            _ => {}
        }
    }
}
