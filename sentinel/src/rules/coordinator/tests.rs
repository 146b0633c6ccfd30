//! Requests, answers and results in; questions, proposals and settlements out.

use keyward_proto::ids::{NodeId, Position};
use keyward_proto::topology::SentinelAddress;

use super::super::failover::{NodeState, Role};
use super::super::inquiry::Route;
use super::super::topology::{TopologyCommand, apply};
use super::*;
use crate::rules::failover::tests::{id, topology};

/// A sentinel that is asked about one shard, with nodes 1 (the primary), 2 and 3.
struct Group {
    coordinator: Coordinator,
    topology: Arc<Topology>,
    health: Health,
    now: Monotonic,
    index: u64,
}

impl Group {
    fn new() -> Group {
        let mut group = Group {
            coordinator: Coordinator::default(),
            topology: Arc::new(topology()),
            health: Health::default(),
            now: Monotonic::from_nanos(1),
            index: 100,
        };
        for sentinel in 1..=2 {
            let address = SentinelAddress {
                name: format!("s{sentinel}"),
                host: String::new(),
                port: 1,
                bus_port: 2,
                tls_port: 0,
            };
            group.commit(TopologyCommand::AnnounceSentinel { id: sentinel, address }).unwrap();
        }
        group
    }

    fn commit(&mut self, command: TopologyCommand) -> Result<(), Refusal> {
        self.index += 1;
        apply(Arc::make_mut(&mut self.topology), self.index, command).map(|_| ())
    }

    fn shard(&self) -> &ShardId {
        self.topology.shards.keys().next().unwrap()
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let view = Observed { me: 1, topology: &self.topology, health: &self.health };
        self.coordinator.step(self.now, view, event, &mut out);
        self.coordinator.check_invariants();
        out
    }

    /// The clock goes on until the next deadline.
    fn wait(&mut self) -> (Duration, Vec<Action>) {
        let before = self.now;
        self.now = self.coordinator.next_deadline().expect("something is under way");
        (self.now.since(before), self.step(Event::Tick))
    }

    fn complain(&mut self, ticket: u64, reporter: u8) -> Vec<Action> {
        self.request(ticket, Trigger::Complaint { reporter: id(reporter) })
    }

    fn request(&mut self, ticket: u64, trigger: Trigger) -> Vec<Action> {
        let (shard, term) = (self.shard().clone(), self.topology.shards[self.shard()].term);
        self.step(Event::Requested(Ticket(ticket), Request::Failover { shard, term, trigger }))
    }

    fn answer(&mut self, question: &Question, answer: Answer) -> Vec<Action> {
        let shard = self.shard().clone();
        self.step(Event::Answered(shard, question.clone(), answer))
    }

    /// A replica's state.
    fn well(&self, n: u8) -> Answer {
        Answer::Status(NodeState {
            incarnation: self.topology.nodes[&id(n)].incarnation,
            role: Role::Replica,
            term: Term::new(1),
            last: Position::new(1, u64::from(n)),
            usable: true,
            leases: BTreeSet::new(),
            cut_off: true,
        })
    }

    /// The primary is dead, and the replicas answer.
    fn answer_all(&mut self, questions: &[Question]) -> Vec<Action> {
        let mut out = Vec::new();
        for question in questions {
            let n = (1..=3).find(|n| id(*n) == question.node).unwrap();
            let answer = if n == 1 { Answer::Refused } else { self.well(n) };
            out.extend(self.answer(question, answer));
        }
        out
    }

    fn decide(&mut self, proposal: ProposalId, result: Result<(), Refusal>) -> Vec<Action> {
        let shard = self.shard().clone();
        self.step(Event::Decided(shard, proposal, result))
    }
}

fn questions(actions: &[Action]) -> Vec<Question> {
    let question = |action: &Action| match action {
        Action::Ask(_, question) => Some(question.clone()),
        Action::Propose(_) | Action::AskAgain(..) | Action::Settle(..) => None,
    };
    actions.iter().filter_map(question).collect()
}

fn proposal(actions: &[Action]) -> (ProposalId, NodeId) {
    let [Action::Propose(proposal)] = actions else { panic!("{actions:?}") };
    (proposal.id, proposal.change.node.clone())
}

fn settlement(actions: &[Action], ticket: u64) -> &Settlement {
    let is_meant = |action: &&Action| matches!(action, Action::Settle(t, _) if *t == Ticket(ticket));
    let Some(Action::Settle(_, settlement)) = actions.iter().find(is_meant) else { panic!("{actions:?}") };
    settlement
}

fn reason(actions: &[Action], ticket: u64) -> &str {
    match settlement(actions, ticket) {
        Settlement::Refused { reason } | Settlement::Kept { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_are_asked_and_the_furthest_is_proposed() {
    let mut group = Group::new();
    let asked = group.complain(1, 2);
    assert_eq!(questions(&asked).iter().map(|q| q.node.clone()).collect::<Vec<_>>(), [1, 2, 3].map(id));
    let (proposed, node) = proposal(&group.answer_all(&questions(&asked)));
    assert_eq!(node, id(3));
    let settled = group.decide(proposed, Ok(()));
    assert!(matches!(settlement(&settled, 1), Settlement::Replaced(_)));
    assert!(group.coordinator.is_idle() && group.coordinator.next_deadline().is_none());
}

#[test]
fn stragglers_are_waited_for_only_a_moment_once_the_choice_is_safe() {
    let mut group = Group::new();
    let asked = questions(&group.complain(1, 2));
    assert_eq!(group.answer_all(&asked[..2]), []);
    let (waited, out) = group.wait();
    assert_eq!((waited, proposal(&out).1), (STRAGGLER_LIMIT, id(2)));
}

#[test]
fn a_silent_primary_is_waited_for_until_the_limit() {
    let mut group = Group::new();
    let asked = questions(&group.complain(1, 2));
    assert_eq!(group.answer_all(&asked[1..]), []);
    let (_, through_others) = group.wait();
    assert_eq!(questions(&through_others)[0].route, Route::Through(2));
    assert_eq!(questions(&through_others).len(), 1, "who has answered is not asked again");
    let (_, out) = group.wait();
    assert_eq!(proposal(&out).1, id(3));
    assert_eq!(group.now.since(Monotonic::from_nanos(1)), ANSWER_LIMIT);
}

#[test]
fn a_change_that_is_refused_has_everybody_asked_again_a_few_times() {
    let mut group = Group::new();
    let mut asked = questions(&group.complain(1, 2));
    for attempt in 1..=ATTEMPTS_MAX {
        let late = asked[0].clone();
        let (proposed, _) = proposal(&group.answer_all(&asked));
        let out = group.decide(proposed, Err(Refusal::Restarted(id(3))));
        if attempt == ATTEMPTS_MAX {
            assert_eq!(reason(&out, 1), "the shard keeps changing: try again");
            return;
        }
        assert!(matches!(out[0], Action::AskAgain(..)));
        asked = questions(&out);
        assert_eq!(group.answer(&late, Answer::Refused), [], "an answer to an earlier question");
    }
}

#[test]
fn another_term_ends_it() {
    let mut group = Group::new();
    let asked = questions(&group.complain(1, 2));
    let (proposed, _) = proposal(&group.answer_all(&asked));
    let current = Term::new(9);
    let out = group.decide(proposed, Err(Refusal::StaleTerm { current }));
    assert_eq!(reason(&out, 1), "the shard is at term 9");
}

#[test]
fn requests_wait_for_each_other_and_see_what_the_one_before_has_changed() {
    let mut group = Group::new();
    let asked = questions(&group.complain(1, 2));
    assert_eq!(group.complain(2, 3), []);
    let out = group.answer_all(&asked);
    let [Action::Propose(proposed)] = &out[..] else { panic!("{out:?}") };
    group.commit(TopologyCommand::ReplacePrimary(proposed.change.clone())).unwrap();
    let out = group.decide(proposed.id, Ok(()));
    assert!(matches!(settlement(&out, 1), Settlement::Replaced(_)));
    assert_eq!(reason(&out, 2), "the shard is at term 2");
}

#[test]
fn the_watchdog_does_not_wait() {
    let mut group = Group::new();
    group.complain(1, 2);
    assert_eq!(group.request(2, Trigger::Watchdog), [Action::Settle(Ticket(2), Settlement::Busy)]);
}

#[test]
fn a_proposal_without_an_answer_is_given_up() {
    let mut group = Group::new();
    let asked = questions(&group.complain(1, 2));
    let (proposed, _) = proposal(&group.answer_all(&asked));
    let (waited, out) = group.wait();
    assert_eq!(waited, PROPOSAL_LIMIT);
    assert_eq!(out, [Action::Settle(Ticket(1), Settlement::Unknown)]);
    assert_eq!(group.decide(proposed, Ok(())), [], "too late");
}

#[test]
fn a_hand_off_asks_nobody_and_may_be_repeated() {
    let mut group = Group::new();
    let shard = &group.topology.shards[group.shard()];
    let handoff = Handoff {
        shard: shard.id.clone(),
        primary: id(1),
        term: shard.term,
        target: id(2),
        last: Position::new(1, 5),
        in_sync_version: shard.in_sync_version,
    };
    let request = Request::Handoff(handoff);
    let out = group.step(Event::Requested(Ticket(1), request.clone()));
    let [Action::Propose(proposed)] = &out[..] else { panic!("{out:?}") };
    group.commit(TopologyCommand::ReplacePrimary(proposed.change.clone())).unwrap();
    let out = group.step(Event::Undecided(group.shard().clone(), proposed.id));
    assert_eq!(settlement(&out, 1), &Settlement::Unknown);
    let out = group.step(Event::Requested(Ticket(2), request));
    assert_eq!(settlement(&out, 2), &Settlement::CarriedOut);
}

#[test]
fn requests_are_bounded_and_may_be_withdrawn() {
    let mut group = Group::new();
    group.complain(0, 2);
    for ticket in 1..=WAITING_MAX as u64 {
        assert_eq!(group.complain(ticket, 3), []);
    }
    assert_eq!(reason(&group.complain(99, 3), 99), "too many requests wait for the shard: try again");
    let shard = group.shard().clone();
    group.coordinator.withdraw(&shard, |ticket| ticket != Ticket(7));
    assert_eq!(group.complain(99, 3), []);
}

#[test]
fn a_shard_that_does_not_exist_leaves_nothing_behind() {
    let mut group = Group::new();
    let (shard, term) = (ShardId::from_random([1; 20]), Term::new(1));
    let request = Request::Failover { shard, term, trigger: Trigger::Watchdog };
    reason(&group.step(Event::Requested(Ticket(1), request)), 1);
    assert!(group.coordinator.shards.is_empty());
}
