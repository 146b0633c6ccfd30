//! What is wrong in a report, in plain words, and what to do about it.

use keyward_proto::slot::SLOT_COUNT;
use serde::{Deserialize, Serialize};

use super::{Names, NodeStatus, ShardStatus, StatusReport};
use crate::rules::health::{another_password, passwords_differ};

/// How a cluster is, and the exit code of `status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Everything serves and is in sync.
    #[default]
    Well = 0,
    /// Everything is served, but not by as many processes as there should be.
    Degraded = 3,
    /// Something is not served, or would not be replaced if it failed.
    Failing = 4,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub verdict: Verdict,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub todo: String,
}

fn failing(text: impl Into<String>, todo: impl Into<String>) -> Problem {
    Problem { verdict: Verdict::Failing, text: text.into(), todo: todo.into() }
}

fn degraded(text: impl Into<String>, todo: impl Into<String>) -> Problem {
    Problem { verdict: Verdict::Degraded, text: text.into(), todo: todo.into() }
}

/// The worst of them.
pub(crate) fn verdict(problems: &[Problem]) -> Verdict {
    problems.iter().map(|problem| problem.verdict).max().unwrap_or(Verdict::Well)
}

impl StatusReport {
    /// Each with what to do.
    pub(crate) fn find_problems(&self, names: &Names) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.of_sentinels(&mut problems);
        // Without a leader nobody knows.
        if self.shards.is_empty() && self.majority && !self.from_nodes {
            problems.push(match &self.obstacle {
                Some(obstacle) => failing(
                    format!("no shard forms: {obstacle}"),
                    "wait for the nodes that are missing; if none is, `keyward-sentinel adopt` goes on with what the \
                     nodes hold",
                ),
                None => failing(
                    "no shards yet: they form as soon as there is a node for each",
                    "start nodes with the addresses of these sentinels (`sentinels`), or wait for those that load; if \
                     these sentinels have lost their directories, what nodes serve goes on: restart all nodes at once, \
                     and when they are all here, `keyward-sentinel adopt` goes on with what they hold",
                ),
            });
        }
        let held_back = self.held_back.iter().map(|text| {
            degraded(text, "keep a copy of its data folder if it may have something that the shards have not")
        });
        problems.extend(held_back);
        for shard in &self.shards {
            shard.find_problems(names, &mut problems);
        }
        let owned: u32 = self.shards.iter().flat_map(|s| &s.slots).map(|range| slots_in(range)).sum();
        let nobodys = u32::from(SLOT_COUNT).saturating_sub(owned);
        if nobodys > 0 && !self.shards.is_empty() && !self.from_nodes {
            let todo = "shards form once, with all slots: keep copies of the sentinels' directories, and look at their logs";
            problems.push(failing(format!("{nobodys} slots belong to no shard"), todo));
        }
        for spare in self.spares.iter().filter(|n| n.state != "up") {
            let name = spare.name(names);
            let text = format!("{name} (no shard) is {}", said(&spare.state));
            problems.push(degraded(text, bring_back(spare)));
        }
        problems
    }

    fn of_sentinels(&self, problems: &mut Vec<Problem>) {
        let (up, all) = (self.sentinels.iter().filter(|s| s.up).count(), self.sentinels.len());
        if self.from_nodes {
            problems.push(failing(
                "no sentinel answers: what is served goes on, but a primary that fails is not replaced",
                "start the sentinels, at least more than half of them, with their directories",
            ));
        } else if !self.majority {
            problems.push(if up <= all / 2 {
                let text = format!(
                    "no majority: {up} of {all} sentinels are up or reached, {} are needed; a primary that fails is \
                     not replaced, and what is said here may be old",
                    all / 2 + 1
                );
                let todo =
                    "start the sentinels that are down, with their directories, or mend the network between them";
                failing(text, todo)
            } else {
                failing(
                    "no leader of the sentinels is reached: until there is one a primary that fails is not replaced, \
                     and what is said here may be old",
                    "wait a moment, they choose one within a second or two; if this stays, look at the sentinels' logs",
                )
            });
        }
        for sentinel in self.sentinels.iter().filter(|s| !s.up && !self.from_nodes) {
            problems.push(degraded(
                format!("the sentinel {} is down", sentinel.name),
                format!(
                    "start it; if its machine is lost, start one with the name {} and an empty directory",
                    sentinel.name
                ),
            ));
        }
    }
}

/// Of `0-5460`.
fn slots_in(range: &str) -> u32 {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u32>(), last.parse::<u32>()) {
        (Ok(first), Ok(last)) => (last + 1).saturating_sub(first),
        _ => 0,
    }
}

fn said(state: &str) -> &str {
    match state {
        "silent" => "not answering",
        other => other,
    }
}

/// What to do about a node that does not answer.
fn bring_back(node: &NodeStatus) -> String {
    // What an operator calls it is known to the program that shows the report, and not to the sentinels.
    let name = if node.address == "-" { node.id.get(..8).unwrap_or("ID") } else { &node.address };
    match node.state.as_str() {
        "loading" => {
            "wait until it has loaded its data; INFO persistence on it says how far it is".to_owned()
        }
        "silent" => format!(
            "look whether its machine and the network are well; `keyward-sentinel remove-node {name}` forgets it"
        ),
        _ => format!("start it; if it will not come back, `keyward-sentinel remove-node {name}` forgets it"),
    }
}

impl ShardStatus {
    fn find_problems(&self, names: &Names, problems: &mut Vec<Problem>) {
        let title = self.title();
        let primary = self.primary.as_ref().and_then(|id| self.nodes.iter().find(|n| n.id == *id));
        match primary {
            None => problems.push(self.without_primary(names)),
            Some(node) if node.state != "up" => {
                let waits = if self.waits.is_empty() { String::new() } else { format!("; {}", self.waits) };
                let text =
                    format!("the primary of {title}, {}, is {}{waits}", node.name(names), said(&node.state));
                let is_replaceable = self
                    .nodes
                    .iter()
                    .any(|n| n.id != node.id && n.in_sync && !n.restarted && n.state == "up");
                let todo = if is_replaceable {
                    "wait a moment: a replica that is in sync takes over; if not, look at the sentinels' logs"
                        .into()
                } else {
                    format!("start {}, or a node that the shard waits for", node.name(names))
                };
                problems.push(failing(text, todo));
            }
            Some(_) => {}
        }
        for node in self
            .nodes
            .iter()
            .filter(|n| primary.is_some_and(|p| passwords_differ(p.password_mark, n.password_mark)))
        {
            let text = format!("{} ({title}) has {}", node.name(names), another_password("the primary"));
            let todo = "CONFIG SET requirepass on it to what the primary has, and in its conf file";
            problems.push(degraded(text, todo));
        }
        for node in self.nodes.iter().filter(|n| Some(&n.id) != self.primary.as_ref()) {
            let name = node.name(names);
            if node.state != "up" {
                let text = format!("{name} ({title}) is {}", said(&node.state));
                problems.push(degraded(text, bring_back(node)));
            } else if (!node.in_sync || node.restarted) && self.primary.is_some() {
                let text = format!("{name} ({title}) is not in sync");
                let todo = "wait while its lag falls: it joins by itself; if it does not, its log says what keeps it";
                problems.push(degraded(text, todo));
            }
        }
    }

    fn without_primary(&self, names: &Names) -> Problem {
        let slots = match &self.slots[..] {
            [] => "its slots".to_owned(),
            slots => format!("slots {}", slots.join(" ")),
        };
        let missing = self.nodes.iter().filter(|n| n.in_sync && n.state != "up");
        let missing: Vec<&str> = missing.map(|n| n.name(names)).collect();
        let waits = match missing[..] {
            _ if !self.waits.is_empty() => format!("; {}", self.waits),
            [] => String::new(),
            _ => format!("; it waits for {}", missing.join(" ")),
        };
        let todo = match missing[..] {
            [] => "wait a moment; if this stays, look at the sentinels' logs".to_owned(),
            _ => format!("start {}; its data is needed", missing.join(" ")),
        };
        failing(format!("{} has no primary: {slots} are not served{waits}", self.title()), todo)
    }
}
