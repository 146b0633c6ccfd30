//! What nodes hold in, who leads or what is in the way out.

use keyward_proto::ids::Incarnation;
use keyward_proto::slot::Slot;
use keyward_proto::topology::{Holding, Shape};

use super::*;
use crate::rules::placement;
use crate::rules::topology::{Outcome, Registration, apply};

fn id(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

fn shard_id(n: u8) -> ShardId {
    ShardId::from_random([n; 20])
}

fn range(first: u16, last: u16) -> SlotRange {
    SlotRange { first: Slot::new(first).unwrap(), last: Slot::new(last).unwrap() }
}

/// What the node with this number comes with.
#[derive(Debug, Clone, Copy)]
enum Comes {
    Empty(u8),
    /// With a log, and keys in these slots.
    With(u8, (u64, u64), Option<u8>, (u16, u16)),
    /// An older program, which says only how much it has.
    Older(u8, (u64, u64)),
    Loading(u8),
}

use Comes::{Empty, Loading, Older, With};

type Formed<'a> = (u32, &'a [Comes], &'a [u8], &'a [u8]);
type Adopted<'a> = (u32, &'a [Comes], Result<(&'a [u8], &'a [u8]), Obstacle>);

const ALL: (u16, u16) = (0, 16383);

struct Sentinels {
    topology: Topology,
    index: u64,
}

impl Sentinels {
    fn new(shards: u32, comes: &[Comes]) -> Sentinels {
        let shape = Shape { shards, replicas_per_shard: 2, ..Shape::default() };
        let mut sentinels = Sentinels { topology: Topology { shape, ..Topology::default() }, index: 0 };
        comes.iter().for_each(|comes| sentinels.come(*comes));
        sentinels
    }

    fn apply(&mut self, command: TopologyCommand) -> Result<Outcome, Refusal> {
        self.index += 1;
        apply(&mut self.topology, self.index, command)
    }

    fn come(&mut self, comes: Comes) {
        let (n, last, holding) = match comes {
            Empty(n) => (n, Position::ZERO, Some(Holding::default())),
            With(n, (term, index), shard, (first, last)) => {
                let holding = Holding { shard: shard.map(shard_id), slots: Some(range(first, last)) };
                (n, Position::new(term, index), Some(holding))
            }
            Older(n, (term, index)) => (n, Position::new(term, index), None),
            Loading(n) => {
                let command = TopologyCommand::AnnounceLoading { node: id(n), host: "h".into(), port: 1 };
                self.apply(command).unwrap();
                return;
            }
        };
        let follows = self.topology.nodes.get(&id(n)).map_or(Incarnation::ZERO, |n| n.incarnation);
        let registration = Registration {
            start_nonce: self.index,
            follows,
            host: format!("n{n}"),
            port: 6379,
            bus_port: 16379,
            cluster_enabled: true,
            last,
            holding,
            ..Registration::new(id(n))
        };
        self.apply(TopologyCommand::RegisterNode(registration)).unwrap();
    }

    /// All that placement does.
    fn place(&mut self, arrivals: Arrivals) {
        let mut next = 100;
        while let Some(command) = placement::next(&self.topology, &BTreeSet::new(), arrivals, || {
            next += 1;
            shard_id(next)
        }) {
            self.apply(command).unwrap();
        }
    }

    /// Who leads each shard, in the order of their slots, and who is a member of none.
    fn result(&self) -> (Vec<u8>, Vec<u8>) {
        let number = |node: &NodeId| (1..=9).find(|n| id(*n) == *node).unwrap();
        let named = self.topology.named_shards();
        let leaders = named.iter().map(|(_, s)| number(s.primary.as_ref().unwrap())).collect();
        let spares = self.topology.nodes.values().filter(|n| n.shard.is_none()).map(|n| number(&n.id));
        (leaders, spares.collect())
    }
}

#[test]
fn the_first_shards_form_around_the_nodes_that_hold_data() {
    // The number of shards, who comes, who leads, and who joins none.
    let cases: [Formed<'_>; 11] = [
        (1, &[Empty(1), Empty(2), Empty(3)], &[1], &[]),
        (1, &[Empty(1), Empty(2), With(3, (0, 9), None, ALL)], &[3], &[]),
        // An import is small or large, but whose log it is nobody doubts.
        (1, &[Empty(1), With(2, (0, 1), None, (5, 5))], &[2], &[]),
        (1, &[Empty(1), Empty(2), Loading(3)], &[], &[1, 2]),
        // Loaded.
        (1, &[Empty(1), Loading(3), With(3, (0, 9), None, ALL)], &[3], &[]),
        // Two imports.
        (1, &[With(1, (0, 9), None, ALL), With(2, (0, 9), None, (1, 1)), Empty(3)], &[], &[1, 2, 3]),
        // The log of a shard, of one node or of all.
        (1, &[Empty(1), With(2, (4, 9), Some(7), ALL)], &[], &[1, 2]),
        (1, &[With(1, (4, 9), Some(7), ALL), With(2, (4, 9), Some(7), ALL)], &[], &[1, 2]),
        // Each import leads its slots.
        (2, &[Empty(1), With(2, (0, 9), None, (9000, 9001)), With(3, (0, 9), None, (7, 8))], &[3, 2], &[]),
        (2, &[Empty(1), With(2, (0, 9), None, ALL)], &[], &[1, 2]),
        (1, &[Empty(1), Older(2, (3, 9))], &[2], &[]),
    ];
    for (shards, comes, leaders, spares) in cases {
        let mut sentinels = Sentinels::new(shards, comes);
        sentinels.place(Arrivals::Over);
        assert_eq!(sentinels.result(), (leaders.to_vec(), spares.to_vec()), "{comes:?}");
        assert_eq!(obstacle(&sentinels.topology).is_some(), leaders.is_empty(), "{comes:?}");
    }
}

#[test]
fn nodes_that_are_missing_are_waited_for() {
    let mut sentinels = Sentinels::new(1, &[Empty(1), Empty(2)]);
    sentinels.place(Arrivals::Expected);
    assert_eq!(sentinels.result(), (vec![], vec![1, 2]));
    sentinels.come(With(3, (0, 9), None, ALL));
    sentinels.place(Arrivals::Expected);
    assert_eq!(sentinels.result(), (vec![3], vec![]));
}

#[test]
fn who_holds_something_else_joins_no_shard_and_is_told_of() {
    let mut sentinels = Sentinels::new(1, &[Empty(1), Empty(2)]);
    sentinels.place(Arrivals::Over);
    sentinels.come(With(3, (0, 9), None, ALL));
    sentinels.come(With(4, (5, 9), Some(7), ALL));
    sentinels.place(Arrivals::Over);
    assert_eq!(sentinels.result(), (vec![1], vec![3, 4]));
    let told = held_back(&sentinels.topology);
    assert_eq!(told.iter().map(|(node, _)| node.clone()).collect::<Vec<_>>(), [id(3), id(4)]);
    assert!(told[0].1.contains("data that is not of this cluster"), "{told:?}");
    let shard = sentinels.topology.shards.keys().next().unwrap().clone();
    let assigned = sentinels.apply(TopologyCommand::AssignNode { node: id(3), shard: shard.clone() });
    assert_eq!(assigned, Err(Refusal::HoldsOther(id(3))));
    // Emptied, it is as any other.
    sentinels.come(Empty(3));
    sentinels.place(Arrivals::Over);
    assert_eq!(sentinels.result(), (vec![1], vec![4]));
    assert_eq!(sentinels.topology.shards[&shard].primary, Some(id(1)));
}

#[test]
fn an_operator_goes_on_with_what_is_furthest() {
    let logs = [With(1, (4, 9), Some(7), ALL), With(2, (5, 3), Some(7), ALL), Empty(3), Empty(4)];
    let mut sentinels = Sentinels::new(1, &logs);
    sentinels.place(Arrivals::Over);
    let command = adopt(&sentinels.topology, || shard_id(50)).unwrap();
    // Nobody but the furthest may lead, whatever was proposed.
    let TopologyCommand::FormShards { mut shards, consent, history } = command.clone() else { panic!() };
    shards[0].primary = id(1);
    let other = TopologyCommand::FormShards { shards, consent, history };
    assert_eq!(sentinels.apply(other), Err(Refusal::NotTheFurthest(id(1))));
    sentinels.apply(command).unwrap();
    sentinels.place(Arrivals::Over);
    assert_eq!(sentinels.result(), (vec![2], vec![4]));
    let shard = &sentinels.topology.shards[&shard_id(7)];
    let later = sentinels.topology.history % TERMS_SKIPPED;
    assert_eq!((shard.term, shard.previous_primary_gone), (Term::new(6 + later), false));
    assert_ne!(sentinels.topology.history, 0);
}

/// The first time the shard went on in a term of which no log has anything.
#[test]
fn no_term_comes_twice_although_sentinels_forget_twice() {
    let terms: BTreeSet<Term> = (50..60)
        .map(|random| {
            let sentinels = Sentinels::new(1, &[With(1, (4, 9), Some(7), ALL)]);
            let command = adopt(&sentinels.topology, || shard_id(random)).unwrap();
            let TopologyCommand::FormShards { shards, .. } = command else { panic!() };
            shards[0].term
        })
        .collect();
    assert_eq!((terms.len(), terms.first().is_some_and(|term| Term::new(4) < *term)), (10, true));
}

#[test]
fn what_is_adopted_leaves_out_what_differs() {
    // Who comes, who leads, and who is left out; or why not.
    let cases: [Adopted<'_>; 5] = [
        (1, &[With(1, (0, 9), None, ALL), With(2, (0, 8), None, ALL), Empty(3)], Ok((&[1], &[2]))),
        (
            2,
            &[With(1, (3, 9), Some(7), (9000, 9001)), With(2, (2, 8), Some(8), (1, 2)), Empty(3)],
            Ok((&[2, 1], &[])),
        ),
        (1, &[Empty(1), Empty(2)], Err(Obstacle::NothingToAdopt)),
        (2, &[With(1, (3, 9), Some(7), ALL)], Err(Obstacle::Spread(id(1), range(0, 16383)))),
        (2, &[With(1, (3, 9), Some(7), (1, 1))], Err(Obstacle::TooFew { wanted: 2 })),
    ];
    for (shards, comes, expected) in cases {
        let mut sentinels = Sentinels::new(shards, comes);
        match (adopt(&sentinels.topology, || shard_id(50)), expected) {
            (Ok(command), Ok((leaders, spares))) => {
                sentinels.apply(command).unwrap();
                sentinels.place(Arrivals::Over);
                assert_eq!(sentinels.result(), (leaders.to_vec(), spares.to_vec()), "{comes:?}");
            }
            (adopted, expected) => {
                assert_eq!(adopted.err(), expected.err().map(Refusal::Formation), "{comes:?}");
            }
        }
    }
}

#[test]
fn nobody_is_adopted_while_a_node_loads_unless_it_is_removed() {
    let mut sentinels = Sentinels::new(1, &[With(1, (4, 9), Some(7), ALL), Loading(2)]);
    let refused = adopt(&sentinels.topology, || shard_id(50));
    assert!(matches!(refused, Err(Refusal::Formation(Obstacle::Loading(_)))), "{refused:?}");
    sentinels.apply(TopologyCommand::ForgetNode { node: id(2) }).unwrap();
    let command = adopt(&sentinels.topology, || shard_id(50)).unwrap();
    sentinels.apply(command).unwrap();
    assert_eq!(sentinels.result(), (vec![1], vec![]));
}

#[test]
fn a_member_with_the_log_of_another_shard_holds_nothing_of_its_own() {
    let mut sentinels = Sentinels::new(1, &[Empty(1), Empty(2)]);
    sentinels.place(Arrivals::Over);
    sentinels.come(With(2, (9, 99), Some(7), ALL));
    assert_eq!(sentinels.topology.nodes[&id(2)].registered_last, Position::ZERO);
    sentinels.come(With(2, (9, 99), Some(102), ALL));
    assert_eq!(sentinels.topology.nodes[&id(2)].registered_last, Position::new(9, 99));
}
