//! One test per rule: commands in, topology or refusal out.

use keyward_proto::topology::Shape;

use super::*;
use crate::rules::formation::Arrivals;
use crate::rules::placement;

fn id(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

fn shard_id(n: u8) -> ShardId {
    ShardId::from_random([n; 20])
}

fn set(nodes: &[u8]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(id).collect()
}

fn registration(n: u8, nonce: u64, last: Position) -> Registration {
    Registration {
        start_nonce: nonce,
        host: "127.0.0.1".into(),
        port: 7000 + u16::from(n),
        bus_port: 17000 + u16::from(n),
        zone: format!("zone-{}", n % 2),
        last,
        ..Registration::new(id(n))
    }
}

/// Applies one command per Raft index.
struct Group {
    topology: Topology,
    index: u64,
}

impl Group {
    fn new(shards: u32, replicas_per_shard: u32) -> Self {
        let mut group = Group { topology: Topology::default(), index: 0 };
        let shape = Shape { shards, replicas_per_shard, ..Shape::default() };
        group.apply(TopologyCommand::SetShape { shape }).unwrap();
        group
    }

    /// One shard of nodes 1 to 3, all in sync, primary 1.
    fn three_in_sync() -> Self {
        let mut group = Group::new(1, 2);
        for n in 1..=3 {
            group.start(n, 1);
        }
        group.add(2).unwrap();
        group.add(3).unwrap();
        group
    }

    fn apply(&mut self, command: TopologyCommand) -> Result<Outcome, Refusal> {
        self.index += 1;
        apply(&mut self.topology, self.index, command)
    }

    /// Registers a start of a node and places it.
    fn start(&mut self, n: u8, nonce: u64) -> Incarnation {
        self.start_with(n, nonce, Position::ZERO)
    }

    fn start_with(&mut self, n: u8, nonce: u64, last: Position) -> Incarnation {
        let follows = self.topology.nodes.get(&id(n)).map_or(Incarnation::ZERO, |node| node.incarnation);
        let registration = Registration { follows, ..registration(n, nonce, last) };
        let outcome = self.apply(TopologyCommand::RegisterNode(registration)).unwrap();
        let mut shards = 100;
        while let Some(command) = placement::next(&self.topology, &BTreeSet::new(), Arrivals::Over, || {
            shards += 1;
            shard_id(shards)
        }) {
            self.apply(command).unwrap();
        }
        let Outcome::Registered { incarnation } = outcome else { panic!("{outcome:?}") };
        incarnation
    }

    fn shard(&self) -> &Shard {
        self.topology.shards.values().next().unwrap()
    }

    fn change(&mut self, change: InSyncChange) -> Result<Outcome, Refusal> {
        let shard = self.shard().clone();
        self.apply(TopologyCommand::ChangeInSync {
            shard: shard.id,
            primary: shard.primary.unwrap_or(id(99)),
            term: shard.term,
            in_sync_version: shard.in_sync_version,
            change,
            committed: Position::new(1, 10),
        })
    }

    fn add(&mut self, n: u8) -> Result<Outcome, Refusal> {
        let incarnation = self.topology.nodes[&id(n)].incarnation;
        self.change(InSyncChange::Add { node: id(n), incarnation })
    }

    fn replacement(&self, node: u8, in_sync: &[u8]) -> PrimaryChange {
        PrimaryChange {
            shard: self.shard().id.clone(),
            expected_term: self.shard().term,
            node: id(node),
            in_sync: set(in_sync),
            previous_primary_gone: false,
            predecessor_gone: false,
            handoff_position: Position::ZERO,
            expected_in_sync_version: None,
            takeover: false,
            witnesses: BTreeMap::new(),
        }
    }

    fn replace(&mut self, change: PrimaryChange) -> Result<(), Refusal> {
        let outcome = self.apply(TopologyCommand::ReplacePrimary(change))?;
        assert_eq!(outcome, Outcome::Changed);
        Ok(())
    }
}

/// Otherwise the next failovers would all wait for leases that have long ended.
#[test]
fn a_primary_that_adds_a_member_has_served_so_no_earlier_one_can() {
    let mut group = Group::three_in_sync();
    let change = group.replacement(2, &[2, 3]);
    group.replace(change).unwrap();
    assert!(!group.shard().previous_primary_gone);
    group.add(1).unwrap();
    assert!(group.shard().previous_primary_gone);
}

#[test]
fn the_first_node_becomes_primary_and_replicas_join_through_it() {
    let mut group = Group::new(1, 2);
    group.start(1, 1);
    assert_eq!(group.shard().primary, Some(id(1)));
    assert_eq!(group.shard().term, Term::new(1));
    assert_eq!(group.shard().in_sync, set(&[1]));
    group.start(2, 1);
    group.start(3, 1);
    group.start(4, 1);
    assert_eq!(group.topology.members(&group.shard().id).count(), 3);
    assert_eq!(group.topology.nodes[&id(4)].shard, None, "beyond the shape: a spare");
    assert_eq!(group.shard().in_sync, set(&[1]));
    group.add(2).unwrap();
    assert_eq!(group.shard().in_sync, set(&[1, 2]));
}

#[test]
fn several_shards_form_at_once_and_fill_evenly_across_zones() {
    let mut group = Group::new(3, 1);
    group.start(1, 1);
    group.start(2, 1);
    assert!(group.topology.shards.is_empty());
    for n in 3..=6 {
        group.start(n, 1);
    }
    assert_eq!(group.topology.shards.len(), 3);
    for shard in group.topology.shards.values() {
        let zones: BTreeSet<_> = group.topology.members(&shard.id).map(|n| n.zone.clone()).collect();
        assert_eq!(zones.len(), 2, "one member in each zone");
    }
}

#[test]
fn a_spare_stands_in_for_a_lost_member() {
    let mut group = Group::three_in_sync();
    group.start(4, 1);
    let command = placement::next(&group.topology, &set(&[3]), Arrivals::Over, || shard_id(9)).unwrap();
    assert_eq!(command, TopologyCommand::AssignNode { node: id(4), shard: group.shard().id.clone() });
}

#[test]
fn registering_again_keeps_the_incarnation_of_a_start() {
    let mut group = Group::three_in_sync();
    let first = group.topology.nodes[&id(2)].incarnation;
    assert_eq!(group.start(2, 1), first);
    assert!(group.shard().restarted.is_empty());
    assert!(first < group.start(2, 2));
    assert_eq!(group.shard().restarted, set(&[2]));
}

/// A sentinel that stood still may pass a registration on when its process is long gone.
#[test]
fn a_late_registration_of_an_earlier_start_changes_nothing() {
    let mut group = Group::three_in_sync();
    let first = group.topology.nodes[&id(2)].incarnation;
    let late = Registration { follows: first, ..registration(2, 2, Position::ZERO) };
    let third = group.start(2, 3);
    let before = group.topology.clone();
    let refused = group.apply(TopologyCommand::RegisterNode(late));
    assert_eq!(refused, Err(Refusal::StaleIncarnation { current: third }));
    assert_eq!(group.topology, before);
}

#[test]
fn a_restarted_replica_returns_only_by_removal_and_addition() {
    let mut group = Group::three_in_sync();
    group.start(2, 2);
    assert_eq!(group.add(2), Err(Refusal::Restarted(id(2))));
    assert_eq!(group.replace(group.replacement(2, &[2, 3])), Err(Refusal::Restarted(id(2))));
    assert_eq!(group.replace(group.replacement(3, &[2, 3])), Err(Refusal::Restarted(id(2))));
    group.change(InSyncChange::Remove(set(&[2]))).unwrap();
    assert!(group.shard().restarted.is_empty());
    let old = InSyncChange::Add { node: id(2), incarnation: Incarnation::new(1) };
    assert!(matches!(group.change(old), Err(Refusal::StaleIncarnation { .. })));
    group.add(2).unwrap();
    assert_eq!(group.shard().in_sync, set(&[1, 2, 3]));
}

#[test]
fn a_restarted_primary_leaves_the_shard_without_one() {
    let mut group = Group::three_in_sync();
    let term = group.shard().term;
    group.start(1, 2);
    assert_eq!((group.shard().primary.clone(), group.shard().term), (None, term));
    assert_eq!(group.shard().restarted, set(&[1]));
    group.replace(group.replacement(3, &[2, 3])).unwrap();
    assert_eq!(group.shard().term, term.next());
    assert_eq!(group.shard().in_sync, set(&[2, 3]));
}

#[test]
fn when_all_have_restarted_the_furthest_goes_on_alone() {
    let mut group = Group::three_in_sync();
    group.start_with(1, 2, Position::new(1, 10));
    group.start_with(2, 2, Position::new(1, 12));
    assert_eq!(
        group.replace(group.replacement(2, &[2])),
        Err(Refusal::Restarted(id(2))),
        "node 3 may hold more"
    );
    group.start_with(3, 2, Position::new(1, 11));
    assert!(all_restarted(group.shard()));
    assert_eq!(group.replace(group.replacement(3, &[3])), Err(Refusal::NotTheFurthest(id(3))));
    assert_eq!(group.replace(group.replacement(2, &[1, 2])), Err(Refusal::NotASubset));
    group.replace(group.replacement(2, &[2])).unwrap();
    assert_eq!((group.shard().in_sync.clone(), group.shard().restarted.len()), (set(&[2]), 0));
}

#[test]
fn one_of_two_competing_replacements_wins() {
    let mut group = Group::three_in_sync();
    let (first, second) = (group.replacement(2, &[2, 3]), group.replacement(3, &[2, 3]));
    group.replace(first).unwrap();
    let version = group.topology.version;
    assert_eq!(group.replace(second), Err(Refusal::StaleTerm { current: Term::new(2) }));
    assert_eq!(group.topology.version, version, "a refused command is no change");
}

#[test]
fn a_replacement_is_an_in_sync_member_unless_the_operator_takes_over() {
    let mut group = Group::three_in_sync();
    group.change(InSyncChange::Remove(set(&[3]))).unwrap();
    assert_eq!(group.replace(group.replacement(3, &[3])), Err(Refusal::NotInSync(id(3))));
    assert_eq!(group.replace(group.replacement(2, &[2, 3])), Err(Refusal::NotASubset));
    assert_eq!(group.replace(group.replacement(2, &[1])), Err(Refusal::NotASubset));
    group.replace(PrimaryChange { takeover: true, ..group.replacement(3, &[3]) }).unwrap();
    assert_eq!(group.shard().primary, Some(id(3)));
}

#[test]
fn in_sync_changes_compare_term_version_and_sender() {
    let mut group = Group::three_in_sync();
    let shard = group.shard().clone();
    let command = |primary, term, in_sync_version| TopologyCommand::ChangeInSync {
        shard: shard.id.clone(),
        primary: id(primary),
        term: Term::new(term),
        in_sync_version,
        change: InSyncChange::Remove(set(&[2])),
        committed: Position::ZERO,
    };
    let version = shard.in_sync_version;
    assert_eq!(group.apply(command(1, 9, version)), Err(Refusal::StaleTerm { current: Term::new(1) }));
    assert_eq!(group.apply(command(2, 1, version)), Err(Refusal::NotThePrimary(id(2))));
    assert_eq!(group.apply(command(1, 1, version - 1)), Err(Refusal::StaleInSync { current: version }));
    assert_eq!(group.change(InSyncChange::Remove(set(&[1]))), Err(Refusal::PrimaryCannotLeave));
    assert_eq!(group.change(InSyncChange::Remove(set(&[7]))), Err(Refusal::NotInSync(id(7))));
    assert_eq!(group.change(InSyncChange::Remove(set(&[]))), Err(Refusal::EmptyChange));
    group.apply(command(1, 1, version)).unwrap();
    assert_eq!(group.shard().in_sync_version, version + 1);
}

#[test]
fn forgetting_a_node_is_refused_while_it_matters() {
    let mut group = Group::three_in_sync();
    assert_eq!(group.apply(TopologyCommand::ForgetNode { node: id(1) }), Err(Refusal::StillPrimary(id(1))));
    group.apply(TopologyCommand::ForgetNode { node: id(3) }).unwrap();
    assert_eq!(group.shard().in_sync, set(&[1, 2]));
    group.start(1, 2);
    assert_eq!(group.apply(TopologyCommand::ForgetNode { node: id(2) }), Err(Refusal::LastCandidate(id(2))));
}

#[test]
fn commands_survive_json() {
    let group = Group::three_in_sync();
    let command = TopologyCommand::ReplacePrimary(group.replacement(2, &[2, 3]));
    let text = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<TopologyCommand>(&text).unwrap(), command);
    let text = serde_json::to_string(&group.topology).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), group.topology);
}

#[test]
fn commands_of_one_entry_see_each_other_and_are_refused_alone() {
    let mut group = Group::three_in_sync();
    let (to_2, to_3) = (group.replacement(2, &[2, 3]), group.replacement(3, &[2, 3]));
    let commands = vec![TopologyCommand::ReplacePrimary(to_2), TopologyCommand::ReplacePrimary(to_3)];
    group.index += 1;
    let results = apply_batch(&mut group.topology, group.index, Batch { commands });
    assert_eq!(results, [Ok(Outcome::Changed), Err(Refusal::StaleTerm { current: Term::new(2) })]);
    assert_eq!(group.shard().primary, Some(id(2)));
    assert_eq!(group.topology.version, group.index);
}

#[test]
fn of_two_starts_of_a_node_in_one_entry_the_second_has_to_ask_again() {
    let mut group = Group::three_in_sync();
    let follows = group.topology.nodes[&id(3)].incarnation;
    let start = |nonce| {
        TopologyCommand::RegisterNode(Registration { follows, ..registration(3, nonce, Position::ZERO) })
    };
    group.index += 1;
    let results =
        apply_batch(&mut group.topology, group.index, Batch { commands: vec![start(7), start(8), start(7)] });
    let incarnation = group.topology.nodes[&id(3)].incarnation;
    assert!(follows < incarnation);
    let registered = Ok(Outcome::Registered { incarnation });
    let refused = Err(Refusal::StaleIncarnation { current: incarnation });
    assert_eq!(results, [registered.clone(), refused, registered]);
    assert!(incarnation < group.start(3, 8), "the next start is later");
}

// ------------------------------------------------------------------ nodes outside the in-sync set

impl Group {
    fn eligible(&self) -> BTreeSet<NodeId> {
        self.shard().absent.eligible.clone()
    }

    /// Three nodes whose primary commits nothing with fewer than two, of which only it is in sync.
    fn primary_alone() -> Self {
        let mut group = Group::three_in_sync();
        group.change(InSyncChange::Minimum(2)).unwrap();
        group.change(InSyncChange::Remove(set(&[2, 3]))).unwrap();
        group
    }

    fn witness(&self, n: u8, held: Position) -> (NodeId, Witness) {
        (id(n), Witness { incarnation: self.topology.nodes[&id(n)].incarnation, held })
    }
}

/// The primary was killed and came back with nothing; the other two had stood still for a moment, and were emptied.
#[test]
fn who_left_a_set_that_cannot_commit_leads_before_an_emptied_primary() {
    let mut group = Group::primary_alone();
    assert_eq!(group.eligible(), set(&[2, 3]));
    assert_eq!(group.replace(group.replacement(2, &[2])), Err(Refusal::PrimaryMayServe(id(2))));
    group.start(1, 2);
    assert_eq!(group.replace(group.replacement(1, &[1])), Err(Refusal::Restarted(id(1))));
    assert_eq!(group.replace(group.replacement(2, &[1, 2])), Err(Refusal::NotASubset));
    group.replace(group.replacement(2, &[2])).unwrap();
    assert_eq!((group.shard().primary.clone(), group.eligible()), (Some(id(2)), set(&[3])));
    assert!(!group.shard().absent.gave_no_lease);
}

#[test]
fn nobody_is_eligible_who_left_a_set_that_could_commit_or_has_restarted() {
    let mut group = Group::three_in_sync();
    group.change(InSyncChange::Remove(set(&[3]))).unwrap();
    assert_eq!(group.eligible(), set(&[]), "no primary has promised anything");
    group.change(InSyncChange::Minimum(2)).unwrap();
    group.change(InSyncChange::Remove(set(&[2]))).unwrap();
    assert_eq!(group.eligible(), set(&[2]), "3 left before");
    group.start(2, 2);
    assert_eq!(group.eligible(), set(&[]));

    let mut group = Group::primary_alone();
    group.add(2).unwrap();
    assert_eq!(group.eligible(), set(&[]), "two commit again");
    let mut group = Group::primary_alone();
    group.change(InSyncChange::Minimum(1)).unwrap();
    assert_eq!(group.eligible(), set(&[]), "so does one from now on");
    let mut group = Group::primary_alone();
    group.change(InSyncChange::Remove(set(&[2]))).unwrap();
    assert_eq!(group.eligible(), set(&[3]), "a full sync empties 2");
}

#[test]
fn a_failover_leaves_those_eligible_that_held_everything() {
    let mut group = Group::three_in_sync();
    group.change(InSyncChange::Minimum(2)).unwrap();
    group.replace(group.replacement(2, &[2])).unwrap();
    assert_eq!(group.eligible(), set(&[1, 3]));
    group.replace(PrimaryChange { takeover: true, ..group.replacement(1, &[1]) }).unwrap();
    assert_eq!(group.eligible(), set(&[]), "another history");
}

#[test]
fn when_nobody_is_left_who_held_everything_the_furthest_of_all_leads() {
    let mut group = Group::three_in_sync();
    group.change(InSyncChange::Remove(set(&[2, 3]))).unwrap();
    assert_eq!(group.shard().absent.stood_at[&id(2)], Position::new(1, 10));
    group.start_with(1, 2, Position::new(1, 4));
    assert!(no_holder_left(group.shard()));
    let refused = Err(Refusal::NotTheFurthest(id(1)));
    assert_eq!(group.replace(group.replacement(1, &[1])), refused, "2 and 3 held more when they left");

    let lost = group.witness(2, Position::ZERO);
    let further = group.witness(3, Position::new(1, 7));
    let change = PrimaryChange { witnesses: [lost.clone(), further].into(), ..group.replacement(1, &[1]) };
    assert_eq!(group.replace(change.clone()), refused, "3 says so itself");
    let late = PrimaryChange { node: id(3), in_sync: set(&[3]), ..change.clone() };
    let mut other = Group { topology: group.topology.clone(), index: group.index };
    other.replace(late).unwrap();
    assert!(other.shard().absent.gave_no_lease, "so it waits for those of others");
    other.topology.check_invariants();

    let behind = group.witness(3, Position::new(1, 3));
    let change = PrimaryChange { witnesses: [lost, behind].into(), ..change };
    group.replace(change).unwrap();
    assert_eq!(group.eligible(), set(&[]));
}

#[test]
fn a_node_that_may_hold_the_only_copy_is_not_forgotten() {
    let mut group = Group::primary_alone();
    group.start(1, 2);
    let forget = |n| TopologyCommand::ForgetNode { node: id(n) };
    assert_eq!(group.apply(forget(2)), Err(Refusal::LastCandidate(id(2))));
    group.replace(group.replacement(2, &[2])).unwrap();
    group.apply(forget(3)).unwrap();
    assert_eq!(group.eligible(), set(&[]));
}

#[test]
fn replaced_nodes_are_forgotten_and_do_not_count() {
    let mut group = Group::three_in_sync();
    group.change(InSyncChange::Minimum(2)).unwrap();
    for (lost, new) in [(3, 4), (4, 5), (5, 6), (6, 7)] {
        group.change(InSyncChange::Remove(set(&[lost]))).unwrap();
        group.start(new, 1);
        let shard = group.shard().id.clone();
        group.apply(TopologyCommand::AssignNode { node: id(new), shard }).unwrap();
        group.add(new).unwrap();
    }
    let shard = group.shard().id.clone();
    assert_eq!(group.topology.members(&shard).count(), 7);
    assert_eq!(group.topology.default_min_in_sync(&shard), 2);
    let forgotten = placement::to_forget(&group.topology, &set(&[3, 4, 5]));
    assert_eq!(forgotten, [3, 4, 5].map(|n| TopologyCommand::ForgetNode { node: id(n) }));
    assert_eq!(placement::to_forget(&group.topology, &set(&[3, 7])), [], "7 is in sync, but lost itself");
    group.change(InSyncChange::Remove(set(&[7]))).unwrap();
    assert_eq!(placement::to_forget(&group.topology, &set(&[3])), [], "one is missing");
}

#[test]
fn an_operators_minimum_is_for_all_shards_and_not_more_than_they_have_nodes() {
    let mut group = Group::three_in_sync();
    let set = |group: &mut Group, nodes| group.apply(TopologyCommand::SetMinInSync { nodes });
    assert_eq!(set(&mut group, Some(1)), Ok(Outcome::Changed));
    assert_eq!(set(&mut group, Some(1)), Ok(Outcome::Unchanged));
    assert_eq!(group.topology.min_in_sync, Some(1));
    for nodes in [0, 4, u32::MAX] {
        assert!(matches!(set(&mut group, Some(nodes)), Err(Refusal::Invalid(_))), "{nodes}");
    }
    assert_eq!((set(&mut group, None), group.topology.min_in_sync), (Ok(Outcome::Changed), None));
}
