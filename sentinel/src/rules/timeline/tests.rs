//! What is remembered of changes, and that all sentinels come to remember the same.

use std::sync::Arc;

use keyward_proto::rpc;

use super::*;
use crate::rules::failover::Answer;
use crate::rules::failover::tests::{id, topology};
use crate::rules::topology::PrimaryChange;

fn at(millis: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_millis(millis)
}

/// Node 2 takes over in the next term.
fn next(before: &Topology) -> (Topology, PrimaryChange) {
    let mut after = before.clone();
    let shard = after.shards.values_mut().next().unwrap();
    let decided = PrimaryChange {
        shard: shard.id.clone(),
        expected_term: shard.term,
        node: id(2),
        in_sync: shard.in_sync.clone(),
        previous_primary_gone: true,
        predecessor_gone: true,
        handoff_position: Default::default(),
        expected_in_sync_version: None,
        takeover: false,
        witnesses: BTreeMap::new(),
    };
    shard.term = shard.term.next();
    shard.primary = Some(id(2));
    (after, decided)
}

fn complaint(shard: &Shard) -> Request {
    let trigger = Trigger::Complaint { reporter: id(2) };
    Request::Failover { shard: shard.id.clone(), term: shard.term, trigger }
}

fn replaced(before: &Topology, change: PrimaryChange) -> Replaced {
    let [asked, total] = [2, 5].map(Duration::from_millis);
    Replaced { topology: Arc::new(before.clone()), change, asked, total }
}

fn named() -> Topology {
    let mut topology = topology();
    (1..=3).for_each(|n| topology.nodes.get_mut(&id(n)).unwrap().port = 7000 + u16::from(n));
    topology
}

#[test]
fn a_failover_is_told_with_its_phases() {
    let (before, mut leader, mut health) = (named(), Timeline::default(), Health::default());
    let shard = before.shards.values().next().unwrap();
    assert_eq!(leader.observe(&before, 1000), Novelty::Nothing, "what is there at first is no news");
    leader.complained(shard.id.clone(), shard.term, id(2), Duration::from_millis(123));
    let (after, decided) = next(&before);
    assert_eq!(leader.observe(&after, 2000), Novelty::Something);
    assert_eq!(leader.observe(&after, 2001), Novelty::Nothing);
    leader.led(at(50), 2001, &health, &complaint(shard), &replaced(&before, decided));
    let new = after.shards.values().next().unwrap();
    let status = rpc::NodeStatus {
        node_id: id(2).to_string(),
        shard_id: new.id.to_string(),
        term: new.term.get(),
        role: "primary".into(),
        ..Default::default()
    };
    let mut say = |leader: &mut Timeline, takeover_nanos| {
        let status = rpc::NodeStatus { takeover_nanos, ..status.clone() };
        health.note_node(at(60), Duration::ZERO, &id(2), Answer::Silent, Some(status));
        leader.served(&health)
    };
    assert_eq!(say(&mut leader, None), Novelty::Nothing);
    assert_eq!(say(&mut leader, Some(7_000_000)), Novelty::Something);
    assert_eq!(say(&mut leader, Some(8_000_000)), Novelty::Nothing);
    let [change] = &leader.latest()[..] else { panic!() };
    let phases: Vec<(&str, u64)> = change.phases.iter().map(|(p, micros)| (p.word(), *micros)).collect();
    let expected = [("noticing", 123_000), ("asking", 2_000), ("commit", 3_000), ("leases", 7_000)];
    assert_eq!(phases, expected);
    assert_eq!(
        (change.kind, change.from.as_str(), change.to.as_str(), change.reason.as_str()),
        (Kind::Failover, "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7002 lost its primary")
    );
    assert_eq!(leader.tally().led(), [(Kind::Failover, 1), (Kind::Handoff, 0)]);
    let sums: Vec<u64> = leader.tally().times().map(|(_, _, times)| times.sum_micros).collect();
    assert_eq!(sums, [123_000, 2_000, 3_000, 7_000, 0, 0, 0]);
    assert!(
        leader
            .tally()
            .times()
            .all(|(kind, _, t)| t.counts.iter().sum::<u64>() == u64::from(kind == Kind::Failover))
    );
}

#[test]
fn a_hand_off_that_an_operator_wants_has_the_time_until_the_replica_had_caught_up() {
    let (before, mut leader) = (named(), Timeline::default());
    leader.observe(&before, 0);
    let shard = before.shards.values().next().unwrap();
    let (_, decided) = next(&before);
    let handoff = super::super::failover::Handoff {
        shard: shard.id.clone(),
        primary: id(1),
        term: shard.term,
        target: id(2),
        last: Default::default(),
        in_sync_version: 1,
    };
    leader.wants_handoff(at(100), shard);
    leader.led(at(140), 9, &Health::default(), &Request::Handoff(handoff), &replaced(&before, decided));
    let change = &leader.latest()[0];
    assert_eq!((change.kind, change.phases[&Phase::CatchingUp]), (Kind::Handoff, 35_000));
}

/// In whichever order they tell each other, and whatever is told twice.
#[test]
fn sentinels_come_to_remember_the_same() {
    let (before, mut leader, mut follower) = (named(), Timeline::default(), Timeline::default());
    let (after, decided) = next(&before);
    let shard = before.shards.values().next().unwrap();
    // The clock of the follower is behind.
    for (timeline, millis) in [(&mut leader, 5000), (&mut follower, 100)] {
        timeline.observe(&before, 0);
        timeline.observe(&after, millis);
    }
    leader.led(at(50), 5001, &Health::default(), &complaint(shard), &replaced(&before, decided));
    // A sentinel that has come later takes what it is sent first for the beginning.
    let mut late = Timeline::default();
    late.observe(&Topology::default(), 0);
    late.observe(&after, 9000);
    assert_eq!(late.latest()[0].kind, Kind::Formed);
    let [l, f, n] = [&leader, &follower, &late].map(Timeline::latest);
    late.merge(f.clone());
    assert_eq!(
        (late.latest(), late.mark()),
        (f.clone(), follower.mark()),
        "the follower knows what was before"
    );
    for orders in [[&l, &f, &n], [&n, &l, &f], [&f, &n, &l], [&n, &f, &l]] {
        let mut timeline = Timeline::default();
        orders.into_iter().chain([&f]).for_each(|changes| _ = timeline.merge(changes.clone()));
        assert_eq!((timeline.latest(), timeline.mark()), (l.clone(), leader.mark()));
        assert_eq!(timeline.merge(l.clone()), Novelty::Nothing);
    }
}

#[test]
fn old_changes_are_forgotten_and_nonsense_is_not_taken() {
    let (after, _) = next(&named());
    let shard = after.shards.values().next().unwrap();
    let made = |term: u64| change(&after, shard, Term::new(term), &id(2), term);
    let mut timeline = Timeline::default();
    (1..=3 * CHANGES_MAX as u64).for_each(|term| _ = timeline.merge(vec![made(term)]));
    let kept = timeline.latest();
    assert_eq!((kept.len(), kept[0].term, kept[CHANGES_MAX - 1].term), (CHANGES_MAX, 600, 401));
    let nonsense = [
        Change { shard: "x".into(), ..made(1000) },
        Change { to_id: "<b>".into(), ..made(1000) },
        Change { reason: "x".repeat(1000), ..made(1000) },
    ];
    assert_eq!(timeline.merge(nonsense.into()), Novelty::Nothing);
    let later = r#"{"shard":"a","shard_name":"b","term":1,"kind":"moved","at_millis":1,"phases":{"copying":5},"new":1}"#;
    let later: Change = serde_json::from_str(later).unwrap();
    assert_eq!((later.kind, later.phases), (Kind::Change, BTreeMap::from([(Phase::Other, 5)])));
}
