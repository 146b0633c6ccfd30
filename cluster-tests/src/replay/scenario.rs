//! An incident as a scenario of `node/replication/testdata`: the commands that bring the cores into the same situation.
//!
//! What the network and the machines did is guessed from what the nodes saw: a refused connection is a process that ended,
//! a broken stream one that broke. The scenario is a draft: whoever keeps it reads it first.

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{LogIndex, NodeId, Position, Term};
use keyward_replication::recorder::{Record, ShardPart, ShardView};
use keyward_sentinel::rules::recorder::Record as SentinelRecord;
use keyward_sentinel::rules::topology::{PrimaryChange, TopologyCommand};

use super::Incident;

/// Shorter pauses are left out: what follows at once in a scenario does so in a fixed order.
const PAUSE_MIN_MS: i128 = 5;

/// Something that the script has to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Ended(NodeId),
    Broke(NodeId, NodeId),
    Started(NodeId),
    Promoted { to: NodeId, without: BTreeSet<NodeId>, gone: &'static str },
    HandsOver(NodeId, Option<NodeId>),
    CannotApply(NodeId),
    Wrote(NodeId, LogIndex),
}

/// The script of the shard that changed its primary last.
///
/// # Errors
/// Why there is none.
pub fn scenario(incident: &Incident) -> Result<String, String> {
    let first = first_shard(incident).ok_or("no node has recorded which shard it belongs to")?;
    let letters = letters(&first);
    let name = |id: &NodeId| letters.get(id).cloned().unwrap_or_else(|| "x".to_owned());
    let mut steps = steps(incident, &first);
    steps.sort();
    // A process ends once, however many see it.
    let (mut down, mut written) = (BTreeSet::new(), LogIndex::ZERO);
    steps.retain(|(_, step)| match step {
        Step::Ended(id) => down.insert(id.clone()),
        Step::Started(id) => down.remove(id),
        Step::Broke(one, other) => !down.contains(one) && !down.contains(other),
        Step::Wrote(_, index) => {
            let is_new = written < *index;
            written = written.max(*index);
            is_new
        }
        _ => true,
    });
    let mut text = String::from("# From recordings. What was it that went wrong?\n\n> shard");
    let primary = first.primary.as_ref();
    let others = first.nodes.keys().filter(|id| Some(*id) != primary);
    primary.into_iter().chain(others).for_each(|id| text.push_str(&format!(" {}", name(id))));
    text.push('\n');
    // A stream that is opened again and breaks again is one that broke.
    steps.dedup_by(|(_, one), (_, before)| matches!(one, Step::Broke(..)) && one == before);
    let mut before = steps.first().map(|(at, _)| *at).unwrap_or_default();
    let mut writes = 0;
    for (at, step) in steps {
        let pause = (at - before) / 1_000_000;
        if PAUSE_MIN_MS <= pause {
            text.push_str(&format!("> wait {}\n", (pause + 4) / 5 * 5));
            before = at;
        }
        let line = match step {
            Step::Ended(id) => format!("kill {}", name(&id)),
            Step::Started(id) => format!("start {}", name(&id)),
            Step::Broke(one, other) => format!("break {} {}", name(&one), name(&other)),
            Step::Promoted { to, without, gone } => {
                let without: String = without.iter().map(|id| format!(" without {}", name(id))).collect();
                format!("promote {}{without}{gone}", name(&to))
            }
            Step::HandsOver(id, None) => format!("handoff {}", name(&id)),
            Step::HandsOver(id, Some(to)) => format!("handoff {} {}", name(&id), name(&to)),
            Step::CannotApply(id) => format!("inapplicable {}", name(&id)),
            Step::Wrote(id, _) => {
                writes += 1;
                format!("write {} w{writes}", name(&id))
            }
        };
        text.push_str(&format!("> {line}\n"));
    }
    text.push_str("> wait 1000\n");
    Ok(text)
}

/// As the earliest record knows it that has a primary.
fn first_shard(incident: &Incident) -> Option<ShardPart> {
    let views = incident.nodes.iter().flat_map(|flight| {
        flight.records.iter().filter_map(|recorded| match &recorded.record {
            Record::Topology(ShardView { shard: Some(shard), .. }) if shard.primary.is_some() => Some(shard),
            _ => None,
        })
    });
    let latest = views.clone().max_by_key(|shard| shard.term)?.id.clone();
    let of_shard = views.filter(|shard| shard.id == latest);
    // Members come one after the other: of the first term the last word, before something happened.
    let first = of_shard.clone().map(|shard| shard.term).min()?;
    of_shard
        .filter(|shard| shard.term == first)
        .max_by_key(|shard| (shard.nodes.len(), shard.in_sync.len()))
        .cloned()
}

fn letters(shard: &ShardPart) -> BTreeMap<NodeId, String> {
    let primary = shard.primary.iter();
    let ordered = primary.chain(shard.nodes.keys().filter(|id| Some(*id) != shard.primary.as_ref()));
    ordered.zip('a'..='z').map(|(id, letter)| (id.clone(), letter.to_string())).collect()
}

fn steps(incident: &Incident, first: &ShardPart) -> Vec<(i128, Step)> {
    let mut steps = Vec::new();
    for flight in &incident.nodes {
        let Some(me) = NodeId::parse(&flight.header.id).filter(|id| first.nodes.contains_key(id)) else {
            continue;
        };
        let (mut primary, mut last, mut starts) = (first.primary.clone(), Position::ZERO, 0);
        for recorded in &flight.records {
            let at = incident.time(&flight.header, recorded.at);
            match &recorded.record {
                Record::Started { .. } => {
                    starts += 1;
                    if 1 < starts || 0 < flight.header.dropped {
                        steps.push((at, Step::Ended(me.clone())));
                        steps.push((at, Step::Started(me.clone())));
                    }
                }
                Record::Topology(ShardView { shard, .. }) => {
                    primary = shard.as_ref().and_then(|shard| shard.primary.clone());
                }
                Record::Progress { last: now, .. } => {
                    let grew = last.term == now.term && last.index < now.index;
                    // Its replicas know what it wrote, too.
                    if grew && let Some(primary) = &primary {
                        steps.push((at, Step::Wrote(primary.clone(), now.index)));
                    }
                    last = *now;
                }
                Record::Heard(words) => {
                    let of_primary = primary.clone().filter(|id| *id != me);
                    if words.starts_with("UplinkClosed") {
                        let refused = words.ends_with("Refused)");
                        steps.extend(of_primary.map(|id| match refused {
                            true => (at, Step::Ended(id)),
                            false => (at, Step::Broke(me.clone(), id)),
                        }));
                    } else if words.starts_with("HandoffRequested") {
                        let target = first.nodes.keys().find(|id| words.contains(&id.as_str()[..8]));
                        steps.push((at, Step::HandsOver(me.clone(), target.cloned())));
                    } else if words == "ApplyFailed" {
                        steps.push((at, Step::CannotApply(me.clone())));
                    }
                }
                _ => {}
            }
        }
    }
    steps.extend(promotions(incident, first));
    steps
}

/// Of the sentinel that remembers most; the same entry is the same change.
fn promotions(incident: &Incident, first: &ShardPart) -> Vec<(i128, Step)> {
    let mut known: BTreeMap<Term, (i128, PrimaryChange)> = BTreeMap::new();
    for flight in &incident.sentinels {
        for recorded in &flight.records {
            let SentinelRecord::Applied { batch, .. } = &recorded.record else { continue };
            let at = incident.time(&flight.header, recorded.at);
            for command in &batch.commands {
                let TopologyCommand::ReplacePrimary(change) = command else { continue };
                if change.shard == first.id && change.handoff_position == Position::ZERO {
                    let earliest = known.entry(change.expected_term).or_insert_with(|| (at, change.clone()));
                    earliest.0 = earliest.0.min(at);
                }
            }
        }
    }
    let mut in_sync = first.in_sync.clone();
    let promoted = known.into_values().map(|(at, change)| {
        let without = in_sync.difference(&change.in_sync).cloned().collect();
        in_sync.clone_from(&change.in_sync);
        let gone = match (change.previous_primary_gone, change.predecessor_gone) {
            (true, _) => " gone",
            (false, true) => " last-gone",
            (false, false) => "",
        };
        (at, Step::Promoted { to: change.node, without, gone })
    });
    promoted.collect()
}
