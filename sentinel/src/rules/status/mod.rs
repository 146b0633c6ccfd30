//! What `status` shows: the report that a sentinel sends, or that is put together from what nodes say while no
//! sentinel answers; what is wrong in it; and the table for people.
//!
//! Pure: [`crate::shell::control::admin`] makes a sentinel's report, [`crate::shell::cli`] asks and prints.

mod shown;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use keyward_proto::ids::Position;
use keyward_proto::peer::Trouble;
use keyward_proto::rpc;
use keyward_proto::slot::SLOT_COUNT;
use serde::{Deserialize, Serialize};

pub use shown::Printed;
pub(crate) use shown::{Form, Shown};
pub(crate) use survey::{Survey, members};

use crate::rules::health::{another_password, passwords_differ};
use crate::rules::topology::RaftId;

/// Also the JSON of `status --json`: fields may be added, not changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    pub version: u64,
    pub sentinels: Vec<SentinelStatus>,
    pub shards: Vec<ShardStatus>,
    /// Nodes without a shard.
    pub spares: Vec<NodeStatus>,
    /// Why no shard forms, if an operator has to decide that.
    #[serde(default)]
    pub obstacle: Option<String>,
    /// Why spares join no shard.
    #[serde(default)]
    pub held_back: Vec<String>,
    /// The sentinels have a leader: what is said here is what they agree on, and a primary that fails is replaced.
    #[serde(default)]
    pub majority: bool,
    /// No sentinel has answered: this is what the nodes say.
    #[serde(default)]
    pub from_nodes: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SentinelStatus {
    pub id: RaftId,
    pub name: String,
    pub run_id: String,
    pub address: String,
    pub bus_address: String,
    pub leader: bool,
    pub up: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShardStatus {
    pub id: String,
    pub name: String,
    pub slots: Vec<String>,
    pub term: u64,
    pub in_sync_version: u64,
    pub primary: Option<String>,
    /// What a shard that nobody can serve waits for, and what else would help.
    #[serde(default)]
    pub waits: String,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub id: String,
    pub address: String,
    /// For sentinels and other nodes.
    #[serde(default)]
    pub bus_address: String,
    pub zone: String,
    pub incarnation: u64,
    /// As the topology has it: "primary", "replica" or "spare".
    pub role: String,
    pub in_sync: bool,
    pub restarted: bool,
    /// "up", "loading", "down" (nobody listens) or "silent".
    pub state: String,
    pub last: String,
    pub commit_index: u64,
    /// Entries that the primary has and this node has not; absent when either did not answer.
    pub lag: Option<u64>,
    pub keys: u64,
    /// See [`rpc::NodeStatus`].
    #[serde(default)]
    pub password_mark: u32,
}

/// How a cluster is, and the exit code of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Everything serves and is in sync.
    Well = 0,
    /// Everything is served, but not by as many processes as there should be.
    Degraded = 3,
    /// Something is not served, or would not be replaced if it failed.
    Failing = 4,
}

/// What the operator calls the nodes, by their bus addresses.
pub(crate) type Names = BTreeMap<String, String>;

impl NodeStatus {
    fn name<'a>(&'a self, names: &'a Names) -> &'a str {
        names.get(&self.bus_address).unwrap_or(&self.address)
    }
}

impl StatusReport {
    /// What is wrong, one line each.
    pub(crate) fn problems(&self, names: &Names) -> Vec<(Verdict, String)> {
        let mut problems = Vec::new();
        if self.from_nodes {
            let text =
                "no sentinel answers: what is served goes on, but a primary that fails is not replaced";
            problems.push((Verdict::Failing, text.to_owned()));
        } else if !self.majority {
            let (up, all) = (self.sentinels.iter().filter(|s| s.up).count(), self.sentinels.len());
            let text = format!(
                "no majority: {up} of {all} sentinels are up or reached, {} are needed; a primary that fails is not \
                 replaced, and what is said here may be old",
                all / 2 + 1
            );
            problems.push((Verdict::Failing, text));
        }
        for sentinel in self.sentinels.iter().filter(|s| !s.up && !self.from_nodes) {
            problems.push((Verdict::Degraded, format!("the sentinel {} is down", sentinel.name)));
        }
        if self.shards.is_empty() && !self.from_nodes {
            let text = match &self.obstacle {
                Some(obstacle) => format!("no shard forms: {obstacle}"),
                None => "no shards yet: they form as soon as there is a node for each".to_owned(),
            };
            problems.push((Verdict::Failing, text));
        }
        problems.extend(self.held_back.iter().map(|text| (Verdict::Degraded, text.clone())));
        for shard in &self.shards {
            shard.problems(names, &mut problems);
        }
        let owned: u32 = self.shards.iter().flat_map(|s| &s.slots).map(|range| slots_in(range)).sum();
        let nobodys = u32::from(SLOT_COUNT).saturating_sub(owned);
        if nobodys > 0 && !self.shards.is_empty() && !self.from_nodes {
            problems.push((Verdict::Failing, format!("{nobodys} slots belong to no shard")));
        }
        for spare in self.spares.iter().filter(|n| n.state != "up") {
            let text = format!("{} (no shard) is {}", spare.name(names), said(&spare.state));
            problems.push((Verdict::Degraded, text));
        }
        problems
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

impl ShardStatus {
    fn title(&self) -> String {
        if self.name.is_empty() {
            format!("shard {}", self.id.get(..8).unwrap_or(&self.id))
        } else {
            self.name.clone()
        }
    }

    fn problems(&self, names: &Names, problems: &mut Vec<(Verdict, String)>) {
        let title = self.title();
        let slots = if self.slots.is_empty() {
            "its slots".to_owned()
        } else {
            format!("slots {}", self.slots.join(" "))
        };
        let primary = self.primary.as_ref().and_then(|id| self.nodes.iter().find(|n| n.id == *id));
        match primary {
            None => {
                let missing = self.nodes.iter().filter(|n| n.in_sync && n.state != "up");
                let missing: Vec<&str> = missing.map(|n| n.name(names)).collect();
                let waits = match missing[..] {
                    _ if !self.waits.is_empty() => format!("; {}", self.waits),
                    [] => String::new(),
                    _ => format!("; it waits for {}", missing.join(" ")),
                };
                problems.push((
                    Verdict::Failing,
                    format!("{title} has no primary: {slots} are not served{waits}"),
                ));
            }
            Some(node) if node.state != "up" => {
                let waits = if self.waits.is_empty() { String::new() } else { format!("; {}", self.waits) };
                let text =
                    format!("the primary of {title}, {}, is {}{waits}", node.name(names), said(&node.state));
                problems.push((Verdict::Failing, text));
            }
            Some(_) => {}
        }
        for node in self
            .nodes
            .iter()
            .filter(|n| primary.is_some_and(|p| passwords_differ(p.password_mark, n.password_mark)))
        {
            let text = format!("{} ({title}) has {}", node.name(names), another_password("the primary"));
            problems.push((Verdict::Degraded, text));
        }
        for node in self.nodes.iter().filter(|n| Some(&n.id) != self.primary.as_ref()) {
            let name = node.name(names);
            if node.state != "up" {
                problems.push((Verdict::Degraded, format!("{name} ({title}) is {}", said(&node.state))));
            } else if (!node.in_sync || node.restarted) && self.primary.is_some() {
                problems.push((Verdict::Degraded, format!("{name} ({title}) is not in sync")));
            }
        }
    }
}

/// The worst of them.
pub(crate) fn verdict(problems: &[(Verdict, String)]) -> Verdict {
    problems.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::Well)
}

// ---------------------------------------------------------------- without sentinels

/// A node that was asked: what it is called, its bus address, and what it said.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub name: Option<String>,
    pub bus_address: String,
    pub answer: Result<rpc::NodeStatus, Trouble>,
}

/// The report that the nodes' own words amount to. `sentinels` are the addresses at which none has answered.
pub(crate) fn from_nodes(sentinels: &[String], asked: &[Asked]) -> StatusReport {
    let status = |a: &Asked| a.answer.as_ref().ok().filter(|s| !s.node_id.is_empty()).cloned();
    let ids: BTreeSet<String> =
        asked.iter().filter_map(status).map(|s| s.shard_id).filter(|id| !id.is_empty()).collect();
    let shards = ids.into_iter().map(|id| {
        let members: Vec<(&Asked, rpc::NodeStatus)> =
            asked.iter().filter_map(|a| Some((a, status(a)?))).filter(|(_, s)| s.shard_id == id).collect();
        let primary = members.iter().filter(|(_, s)| s.role == "primary").max_by_key(|(_, s)| s.term);
        let primary = primary.map(|(_, s)| s);
        let nodes = members.iter().map(|(a, s)| own_words(a, s, primary)).collect();
        let term = members.iter().map(|(_, s)| s.term).max().unwrap_or_default();
        let primary = primary.map(|s| s.node_id.clone());
        ShardStatus {
            id,
            name: String::new(),
            slots: Vec::new(),
            term,
            in_sync_version: 0,
            primary,
            waits: String::new(),
            nodes,
        }
    });
    let sentinel = |address: &String| SentinelStatus {
        id: 0,
        name: "-".into(),
        run_id: String::new(),
        address: "-".into(),
        bus_address: address.clone(),
        leader: false,
        up: false,
    };
    let others = asked.iter().filter(|a| status(a).is_none_or(|s| s.shard_id.is_empty()));
    let spares = others.map(|a| own_words(a, &status(a).unwrap_or_default(), None)).collect();
    StatusReport {
        version: 0,
        sentinels: sentinels.iter().map(sentinel).collect(),
        shards: shards.collect(),
        spares,
        obstacle: None,
        held_back: Vec::new(),
        majority: false,
        from_nodes: true,
    }
}

fn own_words(asked: &Asked, status: &rpc::NodeStatus, primary: Option<&rpc::NodeStatus>) -> NodeStatus {
    let last_of = |s: &rpc::NodeStatus| Position::from(s.last.unwrap_or_default());
    let is_primary = primary.is_some_and(|p| p.node_id == status.node_id);
    let state = match &asked.answer {
        Ok(status) if status.loading && !is_primary => "loading",
        Ok(_) => "up",
        Err(Trouble::Refused) => "down",
        Err(_) => "silent",
    };
    NodeStatus {
        id: status.node_id.clone(),
        address: "-".into(),
        bus_address: asked.bus_address.clone(),
        zone: String::new(),
        incarnation: status.incarnation,
        role: if status.role.is_empty() { "-".into() } else { status.role.clone() },
        // A primary holds leases of its in-sync set.
        in_sync: is_primary || primary.is_some_and(|p| p.leases.contains(&status.node_id)),
        restarted: false,
        state: state.into(),
        last: status.last.map(|_| last_of(status).to_string()).unwrap_or_default(),
        commit_index: status.commit_index,
        lag: primary.map(|p| last_of(p).index.get().saturating_sub(last_of(status).index.get())),
        keys: status.keys,
        password_mark: status.password_mark,
    }
}

// ---------------------------------------------------------------- for people

const LEGEND: &str = "LAST: the newest entry of the write log that a node holds, as term.index.\n\
    LAG: how many entries it lacks of those that its primary has.\n";

/// The report for people.
pub(crate) fn table(report: &StatusReport, names: &Names) -> String {
    let mut out = String::new();
    let mut rows = vec![["SENTINEL", "ID", "ADDRESS", "BUS", "STATE"].map(String::from).to_vec()];
    for s in &report.sentinels {
        let state = match (s.leader, s.up) {
            (true, _) => "leader",
            (false, true) => "up",
            (false, false) => "down",
        };
        rows.push(vec![
            s.name.clone(),
            s.id.to_string(),
            s.address.clone(),
            s.bus_address.clone(),
            state.into(),
        ]);
    }
    // Without sentinels there is nothing to tell of them but why, which is told before.
    if !report.from_nodes {
        write_rows(&mut out, &rows);
    }
    for shard in &report.shards {
        let slots =
            if shard.slots.is_empty() { String::new() } else { format!(", slots {}", shard.slots.join(" ")) };
        let none = if shard.primary.is_none() { ", NO PRIMARY" } else { "" };
        let title =
            if shard.name.is_empty() { shard.id.clone() } else { format!("{} ({})", shard.name, shard.id) };
        out.push_str(&format!("\nshard {title}{slots}, term {}{none}\n", shard.term));
        write_nodes(&mut out, &shard.nodes, names);
    }
    if !report.spares.is_empty() {
        out.push_str(if report.from_nodes { "\nnodes without a shard\n" } else { "\nspare nodes\n" });
        write_nodes(&mut out, &report.spares, names);
    }
    if !(report.shards.is_empty() && report.spares.is_empty()) {
        out.push('\n');
        out.push_str(LEGEND);
    }
    out.push('\n');
    let problems = report.problems(names);
    out.push_str(match verdict(&problems) {
        Verdict::Well => "OK: everything serves and is in sync\n",
        Verdict::Degraded => "DEGRADED: everything is served, but\n",
        Verdict::Failing => "FAILING:\n",
    });
    problems.iter().for_each(|(_, line)| out.push_str(&format!("- {line}\n")));
    out
}

fn write_nodes(out: &mut String, nodes: &[NodeStatus], names: &Names) {
    let header = ["NODE", "ID", "ADDRESS", "ROLE", "STATE", "IN-SYNC", "LAST", "LAG", "KEYS", "ZONE"];
    let mut rows = vec![header.map(String::from).to_vec()];
    let mut nodes: Vec<&NodeStatus> = nodes.iter().collect();
    nodes.sort_by_key(|node| node.name(names));
    for node in nodes {
        let in_sync = match (node.in_sync, node.restarted) {
            (true, true) => "restarted",
            (true, false) => "yes",
            (false, _) => "no",
        };
        let address =
            if node.address == "-" { format!("{} (bus)", node.bus_address) } else { node.address.clone() };
        rows.push(vec![
            names.get(&node.bus_address).cloned().unwrap_or_else(|| "-".into()),
            node.id.get(..8).unwrap_or("-").to_owned(),
            address,
            node.role.clone(),
            node.state.clone(),
            in_sync.into(),
            if node.last.is_empty() { "-".into() } else { node.last.clone() },
            node.lag.map(|lag| lag.to_string()).unwrap_or_else(|| "-".into()),
            node.keys.to_string(),
            node.zone.clone(),
        ]);
    }
    // Only operators who have given names see a column of them.
    if names.is_empty() {
        rows.iter_mut().for_each(|row| drop(row.remove(0)));
        if let Some(id) = rows.first_mut().and_then(|row| row.first_mut()) {
            *id = "NODE".into();
        }
    }
    write_rows(out, &rows);
}

fn write_rows(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("writing to a String cannot fail");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8, role: &str) -> NodeStatus {
        NodeStatus {
            id: format!("{n:02x}").repeat(20),
            address: format!("10.0.0.{n}:6379"),
            bus_address: format!("10.0.0.{n}:16379"),
            zone: String::new(),
            incarnation: 1,
            role: role.into(),
            in_sync: true,
            restarted: false,
            state: "up".into(),
            last: "1.7".into(),
            commit_index: 7,
            lag: Some(0),
            keys: 3,
            password_mark: 1,
        }
    }

    fn report() -> StatusReport {
        let sentinel = |id: u64| SentinelStatus {
            id,
            name: format!("s{id}"),
            run_id: String::new(),
            address: format!("10.0.1.{id}:26379"),
            bus_address: format!("10.0.1.{id}:36379"),
            leader: id == 1,
            up: true,
        };
        let nodes = vec![node(1, "primary"), node(2, "replica")];
        let shard = ShardStatus {
            id: "ab".repeat(20),
            name: "mymaster".into(),
            slots: vec!["0-16383".into()],
            term: 1,
            in_sync_version: 1,
            waits: String::new(),
            primary: Some(nodes[0].id.clone()),
            nodes,
        };
        StatusReport {
            version: 9,
            sentinels: (1..=3).map(sentinel).collect(),
            shards: vec![shard],
            spares: Vec::new(),
            obstacle: None,
            held_back: Vec::new(),
            majority: true,
            from_nodes: false,
        }
    }

    fn check(change: impl FnOnce(&mut StatusReport), expected: Verdict, lines: &[&str]) {
        let mut report = report();
        change(&mut report);
        let names = Names::from([("10.0.0.2:16379".into(), "n2".into())]);
        let problems = report.problems(&names);
        let said: Vec<&str> = problems.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(said, lines);
        assert_eq!(verdict(&problems), expected);
        let table = table(&report, &names);
        assert!(lines.iter().all(|line| table.contains(line)), "{table}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        use Verdict::{Degraded, Failing, Well};
        check(|_| {}, Well, &[]);
        check(|r| r.shards[0].nodes[1].state = "down".into(), Degraded, &["n2 (mymaster) is down"]);
        check(|r| r.shards[0].nodes[1].in_sync = false, Degraded, &["n2 (mymaster) is not in sync"]);
        check(
            |r| r.shards[0].nodes[1].password_mark = 7,
            Degraded,
            &[
                "n2 (mymaster) has another password (requirepass) than the primary: after a failover it would refuse the \
               shard's clients",
            ],
        );
        check(|r| r.shards[0].nodes[1].password_mark = 0, Well, &[]);
        check(|r| r.sentinels[2].up = false, Degraded, &["the sentinel s3 is down"]);
        check(
            |r| r.shards[0].nodes[0].state = "silent".into(),
            Failing,
            &["the primary of mymaster, 10.0.0.1:6379, is not answering"],
        );
        check(
            |r| {
                r.shards[0].primary = None;
                r.shards[0].nodes[1].state = "down".into();
            },
            Failing,
            &[
                "mymaster has no primary: slots 0-16383 are not served; it waits for n2",
                "n2 (mymaster) is down",
            ],
        );
        check(
            |r| r.shards[0].slots = vec!["0-9".into(), "12".into()],
            Failing,
            &["16373 slots belong to no shard"],
        );
        check(
            |r| r.shards.clear(),
            Failing,
            &["no shards yet: they form as soon as there is a node for each"],
        );
        check(
            |r| {
                r.majority = false;
                r.sentinels.iter_mut().skip(1).for_each(|s| s.up = false);
            },
            Failing,
            &[
                "no majority: 1 of 3 sentinels are up or reached, 2 are needed; a primary that fails is not replaced, \
                 and what is said here may be old",
                "the sentinel s2 is down",
                "the sentinel s3 is down",
            ],
        );
    }

    #[test]
    fn nodes_tell_who_leads_while_no_sentinel_answers() {
        let (id, shard) = (|n: u8| format!("{n:02x}").repeat(20), "ab".repeat(20));
        let said = |n: u8, role: &str, index| rpc::NodeStatus {
            node_id: id(n),
            shard_id: shard.clone(),
            role: role.into(),
            term: 2,
            last: Some(rpc::Position { term: 2, index }),
            leases: if role == "primary" { vec![id(2)] } else { Vec::new() },
            ..Default::default()
        };
        let asked = |n: u8, answer| Asked {
            name: Some(format!("n{n}")),
            bus_address: format!("10.0.0.{n}:16379"),
            answer,
        };
        let nodes = [
            asked(1, Ok(said(1, "primary", 9))),
            asked(2, Ok(said(2, "replica", 7))),
            asked(3, Err(Trouble::Refused)),
        ];
        let report = from_nodes(&["10.0.1.1:36379".into()], &nodes);
        let [shard] = &report.shards[..] else { panic!("{report:?}") };
        assert_eq!(shard.primary, Some(id(1)));
        let seen: Vec<_> = shard.nodes.iter().map(|n| (n.in_sync, n.lag, n.last.as_str())).collect();
        assert_eq!(seen, [(true, Some(0), "2.9"), (true, Some(2), "2.7")]);
        assert_eq!(report.spares[0].state, "down");
        let names = nodes.iter().map(|a| (a.bus_address.clone(), a.name.clone().unwrap())).collect();
        let table = table(&report, &names);
        assert!(table.contains("no sentinel answers") && table.contains("n3 (no shard) is down"), "{table}");
        assert!(!table.contains("NO PRIMARY"), "{table}");
    }

    #[test]
    fn a_report_of_an_older_sentinel_is_read() {
        let report: StatusReport =
            serde_json::from_str(r#"{"version":1,"sentinels":[],"shards":[],"spares":[]}"#).unwrap();
        assert!(!report.from_nodes);
    }
}
