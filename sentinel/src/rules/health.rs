//! What this sentinel has seen of the nodes and the other sentinels: for its leader's decisions, and for clients.
//!
//! Nothing of it is agreed upon, stored, or needed for safety.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use keyward_proto::ids::NodeId;
use keyward_proto::rpc;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{FastFailover, Node, Shard, Topology};

use crate::rules::failover::Answer;
use crate::rules::formation::Arrivals;
use crate::rules::node_report::Report;
use crate::rules::topology::RaftId;

/// A spare node stands in for one that has not answered for so long.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// And after so long it is forgotten, once it is replaced.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// The first shards form of fewer nodes than are wanted if no other has come for so long.
const ARRIVALS_OVER_AFTER: Duration = Duration::from_secs(2);

/// Whether the marks of two nodes' passwords tell that they differ; zero: a program that does not say.
pub(crate) fn passwords_differ(one: u32, other: u32) -> bool {
    ![one, other].contains(&0) && one != other
}

/// What a replica has that clients of its shard could not use after a failover.
pub(crate) fn another_password(than: &str) -> String {
    format!(
        "another password (requirepass) than {than}: after a failover it would refuse the shard's clients"
    )
}

/// How clients are told where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hosts {
    #[default]
    Addresses,
    /// Its host name, if it has one.
    Names,
}

#[derive(Debug, Clone, Default)]
pub struct Health {
    pub nodes: BTreeMap<NodeId, NodeHealth>,
    /// Whether the other sentinels answer.
    pub sentinels: BTreeMap<RaftId, SentinelHealth>,
    /// How many nodes there are, and since when.
    arrived: Option<(usize, Monotonic)>,
    /// Replicas of which it was said that their password is not their primary's.
    strangers: BTreeSet<NodeId>,
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

impl NodeHealth {
    fn note_status(&mut self, now: Monotonic, status: rpc::NodeStatus) {
        if status.role != self.role {
            self.role.clone_from(&status.role);
            self.role_since = now;
        }
        self.status = Some(status);
    }
}

/// What a round of questions to everybody has brought.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub nodes: BTreeMap<NodeId, Report>,
    /// What their host names resolve to.
    pub addresses: Vec<(NodeId, Option<IpAddr>)>,
    /// Whether the sentinels answer.
    pub sentinels: Vec<(RaftId, bool)>,
}

/// What has become of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    Up,
    Down,
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Liveness::Up => "up",
            Liveness::Down => "down",
        })
    }
}

/// Which of the addresses of a name clients are told: an IPv4 one if there is one, which all of them can use.
pub(crate) fn preferred(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    addresses.map(|ip| ip.to_canonical()).min_by_key(IpAddr::is_ipv6)
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
            node.note_status(now, status);
        }
        (std::mem::replace(&mut node.is_down, is_down) != is_down).then_some(is_down)
    }

    /// Notes what a round of questions has brought; returns who went down or came back.
    pub(crate) fn note_round(
        &mut self,
        now: Monotonic,
        down_after: Duration,
        topology: &Topology,
        round: Round,
    ) -> Vec<(NodeId, Liveness)> {
        let mut changes = Vec::new();
        for (id, Report { answer, status }) in round.nodes {
            let changed = self.note_node(now, down_after, &id, answer, status);
            changes.extend(changed.map(|is_down| (id, if is_down { Liveness::Down } else { Liveness::Up })));
        }
        for (id, address) in round.addresses {
            // A name that cannot be resolved now is not another address.
            if let (Some(node), Some(_)) = (self.nodes.get_mut(&id), address) {
                node.address = address;
            }
        }
        for (id, answers) in round.sentinels {
            let known = self.sentinels.get(&id).map(|s| s.answered_at);
            let answered_at = if answers { now } else { known.unwrap_or(now) };
            self.sentinels.insert(id, SentinelHealth { answers, answered_at });
        }
        self.sentinels.retain(|id, _| topology.sentinels.contains_key(id));
        self.note_topology(topology);
        changes
    }

    /// Replicas that clients of their shard could not use after a failover, with their primaries: their password is
    /// another one. Each is told once.
    pub(crate) fn new_strangers(&mut self, topology: &Topology) -> Vec<(NodeId, NodeId)> {
        let status = |id: &NodeId| self.nodes.get(id).and_then(|node| node.status.as_ref());
        let mark = |id: &NodeId| status(id).map_or(0, |status| status.password_mark);
        let mut pairs = Vec::new();
        for shard in topology.shards.values() {
            let Some(primary) = &shard.primary else { continue };
            let differs = |node: &&Node| passwords_differ(mark(primary), mark(&node.id));
            let strangers = topology.members(&shard.id).filter(differs);
            pairs.extend(strangers.map(|node| (node.id.clone(), primary.clone())));
        }
        let known = std::mem::replace(&mut self.strangers, pairs.iter().map(|(id, _)| id.clone()).collect());
        pairs.retain(|(id, _)| !known.contains(id));
        pairs
    }

    /// What the nodes have said last. Who has missed a round of questions is no news yet, until it counts as down.
    pub(crate) fn reports(&self) -> BTreeMap<NodeId, Report> {
        let report = |(id, node): (&NodeId, &NodeHealth)| {
            let last = || node.status.clone().map(|status| Report::of(id, status));
            let is_late = node.answer == Answer::Silent && !node.is_down;
            let now = || Report { answer: node.answer.clone(), status: node.status.clone() };
            let of_answer = || match node.answer {
                Answer::Status(_) => now(),
                Answer::Refused | Answer::Silent => Report::without_status(node.answer.clone()),
            };
            (id.clone(), if is_late { last().unwrap_or_else(of_answer) } else { of_answer() })
        };
        self.nodes.iter().map(report).collect()
    }

    /// The other sentinels that have answered in the last round.
    pub(crate) fn answering(&self) -> BTreeSet<RaftId> {
        self.sentinels.iter().filter(|(_, other)| other.answers).map(|(id, _)| *id).collect()
    }

    /// What a node says of itself without being asked.
    pub(crate) fn note_report(&mut self, now: Monotonic, id: &NodeId, report: rpc::NodeStatus) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.note_status(now, report);
        }
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

    /// Notes how many nodes there are.
    pub fn note_arrivals(&mut self, now: Monotonic, topology: &Topology) {
        let count = topology.nodes.len();
        self.arrived = self.arrived.filter(|(known, _)| *known == count).or(Some((count, now)));
    }

    /// Whether more nodes are waited for before the first shards form.
    pub fn arrivals(&self, now: Monotonic) -> Arrivals {
        match self.arrived {
            Some((_, since)) if ARRIVALS_OVER_AFTER <= now.since(since) => Arrivals::Over,
            Some(_) | None => Arrivals::Expected,
        }
    }

    /// See [`LOST_AFTER`].
    pub fn lost(&self, now: Monotonic) -> BTreeSet<NodeId> {
        self.silent_for(now, LOST_AFTER)
    }

    /// See [`FORGOTTEN_AFTER`].
    pub fn long_lost(&self, now: Monotonic) -> BTreeSet<NodeId> {
        self.silent_for(now, FORGOTTEN_AFTER)
    }

    fn silent_for(&self, now: Monotonic, time: Duration) -> BTreeSet<NodeId> {
        let is_lost = |node: &NodeHealth| time <= now.since(node.answered_at);
        self.nodes.iter().filter(|(_, node)| is_lost(node)).map(|(id, _)| id.clone()).collect()
    }

    /// Nodes that do not answer.
    pub fn absent(&self) -> BTreeSet<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.is_down).map(|(id, _)| id.clone()).collect()
    }

    pub fn is_down(&self, id: &NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.is_down)
    }

    /// The address that clients are told: an IP where one is known.
    pub(crate) fn client_host(&self, node: &Node, hosts: Hosts) -> String {
        let resolved = || self.nodes.get(&node.id).and_then(|n| n.address);
        match hosts {
            Hosts::Names if !node.hostname.is_empty() => node.hostname.clone(),
            Hosts::Names => node.host.clone(),
            Hosts::Addresses => resolved().map_or_else(|| node.host.clone(), |ip| ip.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::topology::SentinelAddress;

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

    #[test]
    fn who_misses_a_round_is_shown_as_it_was_until_it_counts_as_down() {
        let (mut health, id) = (Health::default(), NodeId::from_random([1; 20]));
        let status = rpc::NodeStatus { node_id: id.to_string(), keys: 7, ..Default::default() };
        let answered = Report::of(&id, status.clone()).answer;
        let mut shown = |millis, answer, status| {
            let now = Monotonic::ZERO + Duration::from_millis(millis);
            health.note_node(now, Duration::from_secs(1), &id, answer, status);
            let report = health.reports().remove(&id).unwrap();
            (report.answer, report.status.map(|status| status.keys))
        };
        assert_eq!(shown(0, Answer::Silent, None), (Answer::Silent, None));
        assert_eq!(shown(500, answered.clone(), Some(status)), (answered.clone(), Some(7)));
        assert_eq!(shown(1000, Answer::Silent, None), (answered, Some(7)));
        assert_eq!(shown(1500, Answer::Silent, None), (Answer::Silent, None));
        assert_eq!(shown(2000, Answer::Refused, None), (Answer::Refused, None));
    }

    #[test]
    fn clients_are_told_an_address_that_all_can_use() {
        let told = |addresses: &[&str]| {
            preferred(addresses.iter().map(|a| a.parse().unwrap())).map(|ip| ip.to_string())
        };
        assert_eq!(told(&["::1", "10.0.0.1", "10.0.0.2"]).as_deref(), Some("10.0.0.1"));
        assert_eq!(told(&["::ffff:10.0.0.1"]).as_deref(), Some("10.0.0.1"));
        assert_eq!((told(&["::1"]).as_deref(), told(&[])), (Some("::1"), None));
    }

    #[test]
    fn a_round_tells_who_went_down_and_keeps_what_it_does_not_know() {
        let (mut health, id) = (Health::default(), NodeId::from_random([1; 20]));
        let mut topology = Topology::default();
        let address =
            SentinelAddress { name: "a".into(), host: "h".into(), port: 1, bus_port: 2, tls_port: 0 };
        topology.sentinels.insert(1, address);
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let mut note = |millis, answer, address, answers| {
            let now = Monotonic::ZERO + Duration::from_millis(millis);
            let round = Round {
                nodes: BTreeMap::from([(id.clone(), Report { answer, status: None })]),
                addresses: vec![(id.clone(), address)],
                sentinels: vec![(1, answers), (2, true)],
            };
            // The node is in no topology: it is forgotten at the end of the round, so all is asked before.
            let changes = health.note_round(now, Duration::from_secs(1), &topology, round);
            (changes, health.nodes.len(), health.sentinels[&1].answered_at, health.sentinels.len())
        };
        let start = Monotonic::ZERO;
        assert_eq!(
            note(0, Answer::Refused, Some(ip), true),
            (vec![(id.clone(), Liveness::Down)], 0, start, 1)
        );
        assert_eq!(note(700, Answer::Silent, None, false), (vec![], 0, start, 1));
        let now = start + Duration::from_millis(900);
        assert_eq!(note(900, Answer::Silent, None, true), (vec![], 0, now, 1));
    }

    #[test]
    fn a_replica_with_another_password_is_told_once() {
        let mut topology = crate::rules::failover::tests::topology();
        let id = crate::rules::failover::tests::id;
        topology.shards.values_mut().for_each(|shard| shard.primary = Some(id(1)));
        let mut health = Health::default();
        for (marks, told) in [
            ([5, 5, 0], None),
            ([5, 1, 5], Some(2)),
            ([5, 1, 7], Some(3)),
            ([5, 5, 7], None),
            // The primary's program is older.
            ([0, 1, 7], None),
            ([5, 5, 7], Some(3)),
        ] {
            for (n, password_mark) in (1..).zip(marks) {
                let status = rpc::NodeStatus { password_mark, ..Default::default() };
                health.note_node(Monotonic::ZERO, Duration::ZERO, &id(n), Answer::Silent, Some(status));
            }
            let pair = told.map(|n| (id(n), id(1)));
            assert_eq!(health.new_strangers(&topology), Vec::from_iter(pair), "{marks:?}");
        }
    }
}
