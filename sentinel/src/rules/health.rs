//! What this sentinel has seen of the nodes and the other sentinels: for its leader's decisions, and for clients.
//!
//! Nothing of it is agreed upon, stored, or needed for safety.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use keyward_proto::ids::NodeId;
use keyward_proto::rpc;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{FastFailover, Node, Shard, Topology};

use crate::rules::failover::Answer;
use crate::rules::topology::RaftId;

/// A spare node stands in for one that has not answered for so long.
const LOST_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub struct Health {
    pub nodes: BTreeMap<NodeId, NodeHealth>,
    /// Whether the other sentinels answer.
    pub sentinels: BTreeMap<RaftId, SentinelHealth>,
}

#[derive(Debug, Clone)]
pub struct NodeHealth {
    pub answer: Answer,
    /// When it last answered; when it was first asked, if never.
    pub answered_at: Monotonic,
    pub status: Option<rpc::NodeStatus>,
    /// Subjectively down, in Sentinel's words.
    pub is_down: bool,
    /// What its host name resolves to.
    pub address: Option<IpAddr>,
    /// When its role last changed, and what it was then.
    pub role_since: Monotonic,
    pub role: String,
}

#[derive(Debug, Clone, Copy)]
pub struct SentinelHealth {
    pub answers: bool,
    pub answered_at: Monotonic,
}

impl Health {
    /// Notes an answer; `Some(is_down)` if that changed.
    pub fn note_node(
        &mut self,
        now: Monotonic,
        down_after: Duration,
        id: &NodeId,
        answer: Answer,
        status: Option<rpc::NodeStatus>,
    ) -> Option<bool> {
        let node = self.nodes.entry(id.clone()).or_insert_with(|| NodeHealth {
            answer: Answer::Silent,
            answered_at: now,
            status: None,
            is_down: false,
            address: None,
            role_since: now,
            role: String::new(),
        });
        node.answer = answer;
        let is_down = match &node.answer {
            Answer::Status(_) => {
                node.answered_at = now;
                false
            }
            Answer::Refused => true,
            Answer::Silent => down_after <= now.since(node.answered_at),
        };
        if let Some(status) = status {
            if status.role != node.role {
                node.role.clone_from(&status.role);
                node.role_since = now;
            }
            node.status = Some(status);
        }
        (std::mem::replace(&mut node.is_down, is_down) != is_down).then_some(is_down)
    }

    /// Follows the topology: nodes that are no more.
    pub fn note_topology(&mut self, topology: &Topology) {
        self.nodes.retain(|id, _| topology.nodes.contains_key(id));
    }

    /// There is no primary, or nobody listens at its address any more, if that counts.
    pub fn needs_primary(&self, topology: &Topology, shard: &Shard) -> bool {
        let Some(primary) = &shard.primary else { return true };
        let Some(node) = topology.nodes.get(primary) else { return false };
        match self.nodes.get(primary).map(|n| &n.answer) {
            Some(Answer::Refused) => topology.fast_failover() != FastFailover::No,
            Some(Answer::Status(state)) => node.incarnation < state.incarnation,
            Some(Answer::Silent) | None => false,
        }
    }

    /// See [`LOST_AFTER`].
    pub fn lost(&self, now: Monotonic) -> BTreeSet<NodeId> {
        let is_lost = |node: &NodeHealth| LOST_AFTER <= now.since(node.answered_at);
        self.nodes.iter().filter(|(_, node)| is_lost(node)).map(|(id, _)| id.clone()).collect()
    }

    pub fn is_down(&self, id: &NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.is_down)
    }

    /// The address that clients are told: an IP where one is known.
    pub(crate) fn client_host(&self, node: &Node, announce_hostnames: bool) -> String {
        if announce_hostnames && !node.hostname.is_empty() {
            return node.hostname.clone();
        }
        let resolved = self.nodes.get(&node.id).and_then(|n| n.address).filter(|_| !announce_hostnames);
        resolved.map_or_else(|| node.host.clone(), |ip| ip.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_after_a_while_and_refusal_at_once() {
        let (mut health, id) = (Health::default(), NodeId::from_random([1; 20]));
        let after = Duration::from_secs(1);
        let mut note = |seconds, answer| {
            health.note_node(Monotonic::ZERO + Duration::from_millis(seconds), after, &id, answer, None)
        };
        assert_eq!(note(0, Answer::Silent), None);
        assert_eq!(note(900, Answer::Silent), None);
        assert_eq!(note(1100, Answer::Silent), Some(true));
        assert_eq!(note(1200, Answer::Refused), None);
    }
}
