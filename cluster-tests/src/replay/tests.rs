//! Whether the checks find what they look for, and nothing else.

use keyward_proto::flight::{FORMAT, Header, Recorded, Recording};
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::mutation::Mutation;
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_replication::core::ReplicationAck;
use keyward_replication::gate::GateState;
use keyward_replication::recorder::{Record, ShardPart, ShardView, Times, Writable};

use super::{Incident, scenario, violations};
use crate::simulation::{self, Settings};

fn id(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

fn ms(ms: u64) -> Monotonic {
    Monotonic::from_nanos(ms * 1_000_000)
}

/// A node's recording that can be added to.
struct Node(Recording<Record>);

impl Node {
    fn new(n: u8) -> Node {
        let header = Header {
            keyward_flight: FORMAT,
            program: "node".into(),
            version: String::new(),
            id: id(n).to_string(),
            name: format!("n{n}"),
            boot: "one".into(),
            at: ms(0),
            wall: UnixMillis(0),
            why: "asked".into(),
            dropped: 0,
        };
        let times = Times {
            lease: std::time::Duration::from_millis(100),
            grace: std::time::Duration::from_millis(500),
            replication_ack: ReplicationAck::InSync,
        };
        let started = Record::Started {
            node: id(n),
            incarnation: Incarnation::new(1),
            last: Position::ZERO,
            applied: LogIndex::ZERO,
            config: times,
        };
        Node(Recording { header, records: Vec::new() }).at(0, started)
    }

    fn at(mut self, time: u64, record: Record) -> Node {
        self.0.records.push(Recorded { at: ms(time), until: ms(time), record });
        self
    }

    /// It hears of a term.
    fn term(self, time: u64, term: u64, primary: u8) -> Node {
        let shard = ShardPart {
            id: ShardId::from_random([9; 20]),
            name: "mymaster".into(),
            term: Term::new(term),
            primary: Some(id(primary)),
            in_sync: [id(1), id(2)].into(),
            restarted: Default::default(),
            in_sync_version: term,
            nodes: (1..=2).map(|n| (id(n), format!("n{n}"))).collect(),
        };
        self.at(time, Record::Topology(ShardView { version: term, history: 1, shard: Some(shard) }))
    }

    fn is(self, time: u64, state: GateState, term: u64) -> Node {
        self.at(time, Record::State { state, term: Term::new(term), writable: Writable::Yes })
    }

    fn log(self, time: u64, (term, last): (u64, u64), commit: u64, lease_until: u64) -> Node {
        let last = Position { term: Term::new(term), index: LogIndex::new(last) };
        let commit = LogIndex::new(commit);
        self.at(time, Record::Progress { last, commit, lease_until: ms(lease_until), steps: 1 })
    }
}

fn broken(nodes: impl IntoIterator<Item = Node>) -> Vec<String> {
    violations(&Incident::new(nodes.into_iter().map(|node| node.0).collect(), Vec::new()))
}

/// The primary of term 1, with 7 committed, until it hears of term 2.
fn first() -> Node {
    Node::new(1).term(10, 1, 1).is(10, GateState::Primary, 1).log(20, (1, 7), 7, 150).term(200, 2, 2).is(
        200,
        GateState::Replica,
        2,
    )
}

/// Its replica, which leads term 2.
fn second(serves_at: u64, log: u64) -> Node {
    Node::new(2)
        .term(10, 1, 1)
        .is(10, GateState::Replica, 1)
        .log(20, (1, log), log, 0)
        .term(140, 2, 2)
        .is(140, GateState::Holding, 2)
        .log(140, (2, log + 1), log, 0)
        .is(serves_at, GateState::Primary, 2)
        .log(serves_at, (2, log + 1), log + 1, serves_at + 100)
}

#[test]
fn a_failover_that_kept_the_invariants() {
    assert_eq!(broken([first(), second(160, 7)]), [""; 0]);
}

#[test]
fn who_serves_too_early_is_found() {
    assert_eq!(broken([first(), second(145, 7)]), ["leases apart: n1 and n2 served at once for 5.000 ms"]);
}

#[test]
fn who_begins_without_what_was_committed_is_found() {
    let expected = "committed survives: n2 began term 2 with 1.6, but 7 was committed in term 1";
    assert_eq!(broken([first(), second(160, 6)]), [expected]);
}

#[test]
fn two_primaries_and_two_words_of_one_term_are_found() {
    let other = Node::new(2).term(10, 1, 2).is(10, GateState::Primary, 1).log(160, (1, 7), 7, 170);
    let found = broken([first(), other]);
    let expected = [
        "one owner: who leads term 1 of mymaster? n1 says n1, n2 says n2",
        "one primary: n1 and n2 were primaries of term 1",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_goes_back_is_found() {
    let node = Node::new(1).term(10, 2, 1).is(10, GateState::Primary, 2).log(20, (2, 7), 7, 150);
    let node = node.log(30, (2, 7), 5, 150).is(40, GateState::Replica, 1);
    assert_eq!(broken([node]), ["n1 had committed 7 and then 5", "n1 went back from term 2 to 1"]);
}

#[test]
fn a_draft_of_a_scenario_has_the_same_course() {
    let closed = Record::Heard("UplinkClosed(UplinkId(1), Refused)".into());
    let mut second = second(160, 7).at(130, closed);
    second.0.records.sort_by_key(|recorded| recorded.at);
    let incident = Incident::new(vec![first().0, second.0], Vec::new());
    let script = scenario(&incident).unwrap();
    let commands: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    assert_eq!(commands, ["shard a b", "kill a", "wait 1000"], "{script}");
}

#[test]
fn simulated_incidents_are_judged_as_the_simulation_judges_them() {
    for seed in 0..30 {
        let (result, incident) = simulation::run_recorded(seed, Settings::default());
        result.unwrap();
        assert!(incident.nodes.iter().any(|node| 20 < node.records.len()));
        assert_eq!(violations(&incident), [""; 0], "seed {seed}");
    }
}

/// Recordings show less than the simulation sees: of a bug that loses what was committed they show it in some runs.
#[test]
fn a_bug_that_loses_what_was_committed_is_seen_in_recordings() {
    let settings = Settings { mutation: Some(Mutation::RemovalBeforeCommit), ..Settings::default() };
    let failed =
        (0..400).map(|seed| simulation::run_recorded(seed, settings)).filter(|(result, _)| result.is_err());
    let mut found = failed.flat_map(|(_, incident)| violations(&incident));
    assert!(found.any(|line| line.starts_with("committed survives")));
}
