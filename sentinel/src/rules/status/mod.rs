//! What `status` shows: the report that a sentinel sends, or that is put together from what nodes say while no
//! sentinel answers; what is wrong in it; and the table for people.
//!
//! Pure: [`crate::shell::control::admin`] makes a sentinel's report, [`crate::shell::cli`] asks and prints.

mod nodes;
mod problems;
mod shown;
mod survey;
mod table;
pub(crate) mod watched;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use nodes::{Asked, from_nodes};
pub(crate) use problems::{Problem, Verdict, verdict};
pub use shown::Printed;
pub(crate) use shown::{Form, Shown};
pub(crate) use survey::{Survey, Told, members};
pub(crate) use table::table;

use crate::rules::timeline::Change;
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
    /// The sentinel whose words these are, and when it said them by its wall clock.
    #[serde(default)]
    pub teller: String,
    #[serde(default)]
    pub told_at_millis: u64,
    /// "well", "degraded" or "failing".
    #[serde(default)]
    pub verdict: Verdict,
    /// What is wrong, and what to do about it.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// The latest changes of primaries, newest first.
    #[serde(default)]
    pub timeline: Vec<Change>,
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
    /// Bytes that are allocated; absent if it did not answer, or its program does not say.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// What `maxmemory` is set to; 0: no bound.
    #[serde(default)]
    pub memory_max_bytes: u64,
    /// Over the last seconds.
    #[serde(default)]
    pub commands_per_second: Option<u64>,
}

/// What the operator calls the nodes, by their bus addresses.
pub(crate) type Names = BTreeMap<String, String>;

impl NodeStatus {
    fn name<'a>(&'a self, names: &'a Names) -> &'a str {
        names.get(&self.bus_address).unwrap_or(&self.address)
    }
}

impl StatusReport {
    /// With what is wrong in it, as its reader is told.
    pub(crate) fn judged(mut self) -> StatusReport {
        self.problems = self.find_problems(&Names::new());
        self.verdict = verdict(&self.problems);
        self
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain values are valid JSON")
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
}

#[cfg(test)]
mod tests {
    use keyward_proto::peer::Trouble;
    use keyward_proto::rpc;

    use super::*;

    pub(super) fn node(n: u8, role: &str) -> NodeStatus {
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
            memory_bytes: Some(3 << 20),
            memory_max_bytes: 4 << 20,
            commands_per_second: Some(1200),
        }
    }

    pub(super) fn report() -> StatusReport {
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
            ..StatusReport::default()
        }
    }

    fn check(change: impl FnOnce(&mut StatusReport), expected: Verdict, lines: &[&str]) {
        let mut report = report();
        change(&mut report);
        let names = Names::from([("10.0.0.2:16379".into(), "n2".into())]);
        let problems = report.find_problems(&names);
        let said: Vec<&str> = problems.iter().map(|p| p.text.as_str()).collect();
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
    fn without_a_leader_a_majority_has_to_wait_and_whatever_is_wrong_has_something_to_do() {
        let mut report = report();
        report.majority = false;
        report.sentinels[0].up = false;
        report.shards[0].nodes[1].state = "silent".into();
        let problems = report.judged().problems;
        assert!(problems[0].text.starts_with("no leader of the sentinels is reached"), "{problems:?}");
        assert_eq!(problems.len(), 3);
        assert!(problems.iter().all(|problem| !problem.todo.is_empty()), "{problems:?}");
        assert!(problems[2].todo.contains("keyward-sentinel remove-node 10.0.0.2:6379"), "{problems:?}");
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
