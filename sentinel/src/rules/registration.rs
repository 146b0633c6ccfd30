//! Who may register: a process that agrees with the others, and that is the only one with its identity.
//!
//! A node that became primary with other settings than those before it would take commands that the others refuse, or
//! refuse what they took: keys of slots that are another shard's, databases that it does not have. So what has to agree
//! is compared when it registers, and whoever does not agree is refused, in words, and serves nothing.
//!
//! Only nodes that answer have to be agreed with: who wants to change a setting stops all of them. The mode is another
//! matter: members of a shard keep it.
//!
//! Architecture invariant: no clock, no socket.

use std::fmt;

use keyward_proto::ids::NodeId;
use keyward_proto::topology::{Node, Topology};
use serde::{Deserialize, Serialize};

use super::failover::Answer;
use super::topology::{Refusal, Registration};

/// Which other node a newcomer does not agree with, and on what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disagreement {
    /// `cluster-enabled`
    Mode {
        cluster_enabled: bool,
        other: NodeId,
    },
    Databases {
        own: u16,
        others: u16,
        other: NodeId,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |yes: bool| if yes { "yes" } else { "no" };
        match self {
            Disagreement::Mode { cluster_enabled, other } => write!(
                f,
                "this node has cluster-enabled {}, but {other} has {}: all nodes of a cluster have the same",
                word(*cluster_enabled),
                word(!*cluster_enabled)
            ),
            Disagreement::Databases { own, others, other } => write!(
                f,
                "this node has {own} databases, but {other} has {others}: give all nodes the same number (databases, or \
                 cluster-databases); to change it, stop all of them first"
            ),
        }
    }
}

/// Why a process may not take part.
pub(super) fn disagreement(topology: &Topology, new: &Registration) -> Option<Disagreement> {
    let others = || topology.nodes.values().filter(|node| node.id != new.id);
    let counts = |node: &&Node| !new.absent.contains(&node.id);
    let mut in_another_mode = others().filter(|node| node.cluster_enabled != new.cluster_enabled);
    if let Some(other) = in_another_mode.find(|node| node.shard.is_some() || counts(node)) {
        let (cluster_enabled, other) = (new.cluster_enabled, other.id.clone());
        return Some(Disagreement::Mode { cluster_enabled, other });
    }
    let own = new.databases?;
    let (others, other) =
        others().filter(counts).find_map(|node| Some((node.databases.filter(|n| *n != own)?, node)))?;
    Some(Disagreement::Databases { own, others, other: other.id.clone() })
}

/// Whether the process that is registered has to be asked first: this one is another.
pub(crate) fn predecessor<'a>(topology: &'a Topology, new: &Registration) -> Option<&'a Node> {
    topology.nodes.get(&new.id).filter(|known| known.start_nonce != new.start_nonce)
}

/// A newcomer with the identity of a process that lives works on a copy of its data folder. What it holds may be old, so
/// it must not take the other's place.
pub(crate) fn objection(predecessor: &Node, answer: &Answer) -> Option<Refusal> {
    let lives = matches!(answer, Answer::Status(state) if state.incarnation == predecessor.incarnation);
    lives.then(|| Refusal::StillRuns(predecessor.id.clone()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use keyward_proto::ids::{Incarnation, Position, Term};

    use super::*;
    use crate::rules::failover::tests::{id, topology};
    use crate::rules::failover::{NodeState, Role};

    fn newcomer(n: u8, cluster_enabled: bool, databases: Option<u16>) -> Registration {
        Registration {
            start_nonce: 77,
            host: "h".into(),
            port: 1,
            bus_port: 2,
            cluster_enabled,
            databases,
            ..Registration::new(id(n))
        }
    }

    #[test]
    fn who_does_not_agree_is_refused() {
        // Members 1 to 3 have cluster-enabled no and 16 databases.
        let mut members = topology();
        members.nodes.values_mut().for_each(|node| node.databases = Some(16));
        let mode = |n: u8| Some(Disagreement::Mode { cluster_enabled: true, other: id(n) });
        let databases = |n: u8| Some(Disagreement::Databases { own: 32, others: 16, other: id(n) });
        // Who comes, with what, who does not answer, and what is said.
        let cases = [
            (9, false, Some(16), [].as_slice(), None),
            (9, false, None, &[], None),
            (9, true, Some(16), &[], mode(1)),
            (1, true, Some(16), &[2, 3], mode(2)),
            (9, false, Some(32), &[], databases(1)),
            (1, false, Some(32), &[], databases(2)),
            (1, false, Some(32), &[2], databases(3)),
            (1, false, Some(32), &[2, 3], None),
        ];
        for (n, cluster_enabled, own, absent, expected) in cases {
            let absent = absent.iter().copied().map(id).collect();
            let new = Registration { absent, ..newcomer(n, cluster_enabled, own) };
            assert_eq!(disagreement(&members, &new), expected, "{new:?}");
        }
    }

    #[test]
    fn a_second_process_on_a_copied_folder_is_refused_while_the_first_one_lives() {
        let members = topology();
        let node = &members.nodes[&id(1)];
        let state = |incarnation| {
            Answer::Status(NodeState {
                incarnation,
                role: Role::Primary,
                term: Term::new(1),
                last: Position::ZERO,
                usable: true,
                leases: BTreeSet::new(),
                cut_off: false,
            })
        };
        let refused = Some(Refusal::StillRuns(id(1)));
        assert_eq!(objection(node, &state(node.incarnation)), refused);
        assert_eq!(objection(node, &state(Incarnation::ZERO)), None);
        assert_eq!(objection(node, &Answer::Refused), None);
        assert_eq!(objection(node, &Answer::Silent), None);
        let same = Registration { start_nonce: node.start_nonce, ..newcomer(1, false, None) };
        assert_eq!(predecessor(&members, &same), None);
        assert_eq!(predecessor(&members, &newcomer(1, false, None)), Some(node));
    }
}
