//! Answers in, decision out.

use keyward_proto::topology::{FastFailover, Shape};

use super::*;
use crate::rules::formation::Arrivals;
use crate::rules::placement;
use crate::rules::topology::{InSyncChange, Outcome, Registration, TopologyCommand, apply};

pub(crate) fn id(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

fn set(nodes: &[u8]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(id).collect()
}

fn restart(topology: &mut Topology, index: u64, n: u8, last: Position) {
    let follows = topology.nodes[&id(n)].incarnation;
    apply(topology, index, registration(n, 2, last, follows)).unwrap();
}

fn registration(n: u8, nonce: u64, last: Position, follows: Incarnation) -> TopologyCommand {
    TopologyCommand::RegisterNode(Registration {
        start_nonce: nonce,
        follows,
        host: "127.0.0.1".into(),
        port: 7000,
        bus_port: 17000,
        zone: "a".into(),
        last,
        ..Registration::new(id(n))
    })
}

/// One shard, primary 1, nodes 2 and 3 in sync.
pub(crate) fn topology() -> Topology {
    let mut topology = Topology { shape: Shape::default(), ..Topology::default() };
    let mut index = 0;
    let mut run = |topology: &mut Topology, command| {
        index += 1;
        apply(topology, index, command).unwrap()
    };
    for n in 1..=3 {
        let outcome = run(&mut topology, registration(n, 1, Position::ZERO, Incarnation::ZERO));
        let Outcome::Registered { incarnation } = outcome else { panic!("{outcome:?}") };
        let command =
            placement::next(&topology, &BTreeSet::new(), Arrivals::Over, || ShardId::from_random([9; 20]))
                .unwrap();
        run(&mut topology, command);
        let shard = topology.shards.values().next().unwrap().clone();
        if n == 1 {
            continue;
        }
        let change = TopologyCommand::ChangeInSync {
            shard: shard.id,
            primary: id(1),
            term: shard.term,
            in_sync_version: shard.in_sync_version,
            change: InSyncChange::Add { node: id(n), incarnation },
            committed: Position::ZERO,
        };
        run(&mut topology, change);
    }
    topology
}

fn state(topology: &Topology, n: u8, role: Role, last: u64, leases: &[u8]) -> (NodeId, Answer) {
    let state = NodeState {
        incarnation: topology.nodes[&id(n)].incarnation,
        role,
        term: Term::new(1),
        last: Position::new(1, last),
        usable: true,
        leases: set(leases),
        cut_off: false,
    };
    (id(n), Answer::Status(state))
}

fn decide(topology: &Topology, trigger: &Trigger, answers: &[(NodeId, Answer)]) -> Decision {
    let shard = topology.shards.values().next().unwrap();
    let case = Case::open(topology, &shard.id, shard.term, trigger).unwrap();
    case.decide(&answers.iter().cloned().collect())
}

fn replaced(decision: Decision) -> PrimaryChange {
    match decision {
        Decision::Replace(change) => change,
        other => panic!("{other:?}"),
    }
}

const COMPLAINT_OF_2: fn() -> Trigger = || Trigger::Complaint { reporter: id(2) };

#[test]
fn the_furthest_replica_follows_a_dead_primary() {
    let t = topology();
    let answers = [
        (id(1), Answer::Refused),
        state(&t, 2, Role::Replica, 10, &[]),
        state(&t, 3, Role::Replica, 12, &[]),
    ];
    let change = replaced(decide(&t, &COMPLAINT_OF_2(), &answers));
    assert_eq!((change.node, change.in_sync), (id(3), set(&[2, 3])));
}

#[test]
fn silence_does_not_prove_death() {
    let t = topology();
    let answers =
        [(id(1), Answer::Silent), state(&t, 2, Role::Replica, 10, &[]), state(&t, 3, Role::Replica, 10, &[])];
    let change = replaced(decide(&t, &COMPLAINT_OF_2(), &answers));
    assert_eq!(change.node, id(2), "of equals, the first");
    assert!(!change.previous_primary_gone);
    assert!(!change.in_sync.contains(&id(1)));
    assert!(matches!(decide(&t, &Trigger::Watchdog, &answers), Decision::Keep { .. }));
}

#[test]
fn that_the_last_primary_is_gone_says_nothing_about_the_one_before() {
    let mut t = topology();
    restart(&mut t, 50, 1, Position::ZERO);
    for served in [false, true] {
        t.shards.values_mut().next().unwrap().previous_primary_gone = served;
        let answers = [state(&t, 2, Role::Replica, 1, &[]), state(&t, 3, Role::Replica, 1, &[])];
        let change = replaced(decide(&t, &Trigger::Watchdog, &answers));
        assert_eq!((change.predecessor_gone, change.previous_primary_gone), (true, served));
    }
}

/// What a refusal proves, by what the nodes were told: the primary's health, and whether a complaint waits for more.
fn refusal(words: [FastFailover; 3]) -> (bool, bool) {
    let mut t = topology();
    for (n, word) in (1..).zip(words) {
        t.nodes.get_mut(&id(n)).unwrap().detection.fast_failover = word;
    }
    let answers = [(id(1), Answer::Refused), state(&t, 2, Role::Replica, 10, &[])];
    let (trigger, shard) = (COMPLAINT_OF_2(), t.shards.values().next().unwrap());
    let case = Case::open(&t, &shard.id, shard.term, &trigger).unwrap();
    let answers: Answers = answers.into_iter().collect();
    let change = replaced(case.decide(&answers));
    assert_eq!(change.previous_primary_gone, change.predecessor_gone);
    (case.is_decidable(&answers), change.predecessor_gone)
}

#[test]
fn a_refusal_saves_waiting_for_silence_and_is_a_death_only_where_all_nodes_trust_it() {
    use FastFailover::{No, Trusted, Yes};
    assert_eq!(refusal([Trusted; 3]), (true, true));
    assert_eq!(refusal([Trusted, Trusted, Yes]), (true, false));
    assert_eq!(refusal([Yes; 3]), (true, false));
    assert_eq!(refusal([Yes, No, Trusted]), (false, false));
}

#[test]
fn a_refusal_that_nobody_complains_about_moves_nothing_while_a_replica_hears_the_primary() {
    let t = topology();
    let cut_off = |n: u8, cut_off: bool| {
        let (node, mut answer) = state(&t, n, Role::Replica, 10, &[]);
        if let Answer::Status(state) = &mut answer {
            state.cut_off = cut_off;
        }
        (node, answer)
    };
    let decide = |two, three| decide(&t, &Trigger::Watchdog, &[(id(1), Answer::Refused), two, three]);
    assert!(matches!(decide(cut_off(2, true), cut_off(3, false)), Decision::Keep { .. }));
    let change = replaced(decide(cut_off(2, true), cut_off(3, true)));
    assert!(!change.predecessor_gone, "it may serve those who reach it");
}

#[test]
fn an_earlier_process_at_the_address_proves_nothing() {
    let mut t = topology();
    let before = state(&t, 1, Role::Primary, 10, &[2, 3]);
    t.nodes.get_mut(&id(1)).unwrap().incarnation = Incarnation::new(70);
    let answers = [before, state(&t, 2, Role::Replica, 10, &[])];
    assert!(!replaced(decide(&t, &COMPLAINT_OF_2(), &answers)).predecessor_gone);
}

#[test]
fn a_primary_that_others_hear_stays() {
    let t = topology();
    let replicas = [state(&t, 2, Role::Replica, 10, &[]), state(&t, 3, Role::Replica, 10, &[])];
    let with = |leases: &[u8]| [vec![state(&t, 1, Role::Primary, 10, leases)], replicas.to_vec()].concat();
    assert!(matches!(decide(&t, &COMPLAINT_OF_2(), &with(&[3])), Decision::Keep { .. }));
    assert!(matches!(decide(&t, &COMPLAINT_OF_2(), &with(&[2])), Decision::Keep { .. }));
    let change = replaced(decide(&t, &COMPLAINT_OF_2(), &with(&[])));
    assert!(!change.previous_primary_gone && !change.in_sync.contains(&id(1)));
    let forced = Trigger::Force { reporter: id(3) };
    assert_eq!(replaced(decide(&t, &forced, &with(&[2, 3]))).node, id(3));
    let without_3: Vec<_> = with(&[2, 3]).into_iter().filter(|(node, _)| *node != id(3)).collect();
    let silent = decide(&t, &forced, &without_3);
    assert!(matches!(silent, Decision::Wait { .. }), "its process may have ended, with what it held");
}

#[test]
fn another_incarnation_at_the_address_is_a_death() {
    let t = topology();
    let (primary, mut answer) = state(&t, 1, Role::None, 0, &[]);
    if let Answer::Status(state) = &mut answer {
        state.incarnation = Incarnation::new(77);
    }
    let answers = [(primary, answer), state(&t, 2, Role::Replica, 10, &[]), (id(3), Answer::Refused)];
    let change = replaced(decide(&t, &Trigger::Watchdog, &answers));
    assert!(change.previous_primary_gone);
    assert_eq!(change.in_sync, set(&[2]), "node 3 is down");
}

#[test]
fn a_candidate_that_restarted_unregistered_is_no_candidate() {
    let t = topology();
    let (node, mut answer) = state(&t, 2, Role::Replica, 99, &[]);
    if let Answer::Status(state) = &mut answer {
        state.incarnation = Incarnation::new(77);
    }
    let answers = [(id(1), Answer::Refused), (node, answer), state(&t, 3, Role::Replica, 10, &[])];
    let change = replaced(decide(&t, &COMPLAINT_OF_2(), &answers));
    assert_eq!((change.node, change.in_sync), (id(3), set(&[3])));
}

#[test]
fn priority_decides_between_equals_and_zero_never_wins() {
    let mut t = topology();
    let answers = |t: &Topology| {
        [(id(1), Answer::Refused), state(t, 2, Role::Replica, 5, &[]), state(t, 3, Role::Replica, 5, &[])]
    };
    t.nodes.get_mut(&id(3)).unwrap().replica_priority = 10;
    assert_eq!(replaced(decide(&t, &COMPLAINT_OF_2(), &answers(&t))).node, id(3));
    t.nodes.get_mut(&id(3)).unwrap().replica_priority = 0;
    assert_eq!(replaced(decide(&t, &COMPLAINT_OF_2(), &answers(&t))).node, id(2));
}

#[test]
fn a_straggler_stays_in_sync_and_does_not_delay() {
    let t = topology();
    let shard = t.shards.values().next().unwrap();
    let trigger = COMPLAINT_OF_2();
    let case = Case::open(&t, &shard.id, shard.term, &trigger).unwrap();
    let mut answers = Answers::from([state(&t, 2, Role::Replica, 10, &[])]);
    assert!(!case.is_decidable(&answers), "the primary is not known to be dead");
    answers.insert(id(1), Answer::Refused);
    assert!(case.is_decidable(&answers) && !case.is_complete(&answers));
    assert_eq!(replaced(case.decide(&answers)).in_sync, set(&[2, 3]));
}

#[test]
fn a_shard_waits_for_a_member_that_may_hold_more() {
    let mut t = topology();
    restart(&mut t, 50, 1, Position::new(1, 4));
    restart(&mut t, 51, 2, Position::new(1, 6));
    let up = |t: &Topology| [state(t, 1, Role::None, 4, &[]), state(t, 2, Role::None, 6, &[])];
    let answers = [up(&t).to_vec(), vec![(id(3), Answer::Refused)]].concat();
    assert!(matches!(decide(&t, &Trigger::Watchdog, &answers), Decision::Wait { .. }));
    let takeover = replaced(decide(&t, &Trigger::Takeover { reporter: id(1) }, &answers));
    assert!(takeover.takeover && takeover.node == id(1));

    restart(&mut t, 52, 3, Position::ZERO);
    let change = replaced(decide(&t, &Trigger::Watchdog, &up(&t)));
    assert_eq!((change.node, change.in_sync), (id(2), set(&[2])));
}

#[test]
fn requests_about_another_term_or_shard_are_refused() {
    let t = topology();
    let shard = t.shards.values().next().unwrap();
    let open = |term, trigger: Trigger| Case::open(&t, &shard.id, Term::new(term), &trigger).map(|_| ());
    assert_eq!(open(7, COMPLAINT_OF_2()), Err(Refusal::StaleTerm { current: Term::new(1) }));
    assert_eq!(open(1, Trigger::Force { reporter: id(8) }), Err(Refusal::UnknownNode(id(8))));
    assert_eq!(open(1, Trigger::Force { reporter: id(1) }), Err(Refusal::AlreadyPrimary(id(1))));
}

#[test]
fn a_hand_off_keeps_the_whole_set() {
    let mut t = topology();
    let shard = &t.shards.keys().next().unwrap().clone();
    t.shards.get_mut(shard).unwrap().previous_primary_gone = false;
    let last = Position::new(1, 20);
    let from = |n: u8| Handoff {
        shard: shard.clone(),
        primary: id(n),
        term: Term::new(1),
        target: id(3),
        last,
        in_sync_version: t.shards[shard].in_sync_version,
    };
    let change = hand_off(&t, &from(1)).unwrap();
    assert!(change.previous_primary_gone, "whoever hands over has waited for the leases before its own");
    assert_eq!((change.node, change.in_sync, change.handoff_position), (id(3), set(&[1, 2, 3]), last));
    assert_eq!(hand_off(&t, &from(2)), Err(Refusal::NotThePrimary(id(2))));
    let given_up = Handoff { in_sync_version: 1, ..from(1) };
    assert!(matches!(hand_off(&t, &given_up), Err(Refusal::StaleInSync { .. })));
}

/// Who left a set that can commit nothing holds everything; but it gives the primary no lease.
#[test]
fn an_eligible_node_leads_once_the_primary_is_gone() {
    let mut t = topology();
    let shard = t.shards.values_mut().next().unwrap();
    shard.in_sync = set(&[1]);
    shard.absent.min_in_sync = Some(2);
    shard.absent.eligible = set(&[2, 3]);
    let up = |t: &Topology| [state(t, 2, Role::Replica, 7, &[]), state(t, 3, Role::Replica, 9, &[])].to_vec();
    let alive = [up(&t), vec![(id(1), Answer::Silent)]].concat();
    let waits = decide(&t, &Trigger::Operator { target: None }, &alive);
    assert!(
        matches!(waits, Decision::Wait { ref reason } if reason.contains("waits for its primary")),
        "{waits:?}"
    );
    restart(&mut t, 50, 1, Position::ZERO);
    let back = [up(&t), vec![state(&t, 1, Role::None, 0, &[])]].concat();
    let change = replaced(decide(&t, &Trigger::Watchdog, &back));
    assert_eq!((change.node, change.in_sync), (id(3), set(&[3])));
    let down = [state(&t, 1, Role::None, 0, &[]), (id(2), Answer::Refused), (id(3), Answer::Silent)];
    let Decision::Wait { reason } = decide(&t, &Trigger::Watchdog, &down) else { panic!("1 is empty") };
    assert!(reason.contains(&format!("{}, which is down", id(2))) && reason.contains("TAKEOVER"), "{reason}");
}

/// Two of two, and one was enough to commit: what it acknowledged alone is lost with it, but not what the other has.
#[test]
fn when_the_last_member_came_back_with_less_the_furthest_of_all_goes_on() {
    let mut t = topology();
    let shard = t.shards.values_mut().next().unwrap();
    shard.in_sync = set(&[1]);
    shard.absent.stood_at = [(id(2), Position::new(1, 5)), (id(3), Position::new(1, 4))].into();
    restart(&mut t, 50, 1, Position::ZERO);
    let own = state(&t, 1, Role::None, 0, &[]);
    let Decision::Wait { reason } = decide(&t, &Trigger::Watchdog, &[own.clone(), (id(2), Answer::Silent)])
    else {
        panic!("node 2 holds more")
    };
    assert!(reason.contains(&format!("{}, which does not answer", id(2))), "{reason}");
    let answers = [own, state(&t, 2, Role::Replica, 6, &[]), state(&t, 3, Role::Replica, 4, &[])];
    let change = replaced(decide(&t, &Trigger::Watchdog, &answers));
    assert_eq!((change.node.clone(), change.in_sync.clone()), (id(2), set(&[2])));
    apply(&mut t, 60, TopologyCommand::ReplacePrimary(change)).unwrap();
}
