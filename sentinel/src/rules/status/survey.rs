//! A sentinel's report, of what it knows and what it was answered.

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{NodeId, Position};
use keyward_proto::rpc;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{Node, SentinelAddress, Shard, Topology};

use super::{NodeStatus, SentinelStatus, ShardStatus, StatusReport};
use crate::config::Founder;
use crate::rules::events::sentinel_run_id;
use crate::rules::failover::{Answer, waits_for};
use crate::rules::formation;
use crate::rules::node_report::Report;
use crate::rules::timeline::Change;
use crate::rules::topology::RaftId;

#[derive(Debug)]
pub(crate) struct Survey<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) reports: &'a BTreeMap<NodeId, Report>,
    /// See [`members`].
    pub(crate) members: &'a BTreeMap<RaftId, SentinelAddress>,
    /// Which of them answer.
    pub(crate) answering: &'a BTreeSet<RaftId>,
    /// Who reports, and who leads as far as it knows.
    pub(crate) me: RaftId,
    pub(crate) leader: Option<RaftId>,
}

/// Whose report it is, and what else it has.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) teller: String,
    pub(crate) at_millis: u64,
    pub(crate) timeline: Vec<Change>,
}

impl Survey<'_> {
    /// If the reporter leads a majority, it is what all agree on.
    pub(crate) fn report(&self, told: Told) -> StatusReport {
        let Survey { topology, reports, members, answering, .. } = *self;
        let majority = self.leader == Some(self.me) && members.len() / 2 < answering.len();
        let sentinels = members.iter().map(|(id, s)| SentinelStatus {
            id: *id,
            name: s.name.clone(),
            run_id: sentinel_run_id(*id, &s.name),
            address: if s.port == 0 { "-".into() } else { host_port(&s.host, s.port) },
            bus_address: host_port(&s.host, s.bus_port),
            leader: majority && self.leader == Some(*id),
            up: answering.contains(id),
        });
        let shards = topology.named_shards().into_iter().map(|(name, shard)| ShardStatus {
            id: shard.id.to_string(),
            name,
            slots: shard.slots.iter().map(|r| format!("{}-{}", r.first, r.last)).collect(),
            term: shard.term.get(),
            in_sync_version: shard.in_sync_version,
            primary: shard.primary.as_ref().map(ToString::to_string),
            waits: waits(topology, shard, reports),
            nodes: topology.members(&shard.id).map(|node| node_status(node, Some(shard), reports)).collect(),
        });
        let spares = topology.nodes.values().filter(|n| n.shard.is_none());
        let obstacle = formation::obstacle(topology).filter(|_| topology.shards.is_empty());
        let held_back = formation::held_back(topology);
        StatusReport {
            version: topology.version,
            sentinels: sentinels.collect(),
            shards: shards.collect(),
            spares: spares.map(|node| node_status(node, None, reports)).collect(),
            obstacle: obstacle.map(|o| topology.with_names(&o.to_string())),
            held_back: held_back.iter().map(|(_, text)| topology.with_names(text)).collect(),
            majority,
            teller: told.teller,
            told_at_millis: told.at_millis,
            timeline: told.timeline,
            ..StatusReport::default()
        }
        .judged()
    }
}

/// The sentinels of the group, also those that have never said where they are: their port for clients is zero.
pub(crate) fn members(topology: &Topology, founders: &[Founder]) -> BTreeMap<RaftId, SentinelAddress> {
    let mut members = topology.sentinels.clone();
    for founder in founders {
        if members.values().any(|member| member.name == founder.name) {
            continue;
        }
        let (name, host) = (founder.name.clone(), founder.host.clone());
        let address = SentinelAddress { name, host, port: 0, bus_port: founder.bus_port, tls_port: 0 };
        members.entry(founder.id).or_insert(address);
    }
    members
}

/// Empty if there is a primary, or will be.
fn waits(topology: &Topology, shard: &Shard, reports: &BTreeMap<NodeId, Report>) -> String {
    let answers = reports.iter().map(|(id, report)| (id.clone(), report.answer.clone())).collect();
    let answers_now = |id: &NodeId| matches!(reports.get(id).map(|r| &r.answer), Some(Answer::Status(_)));
    let is_served = shard.primary.as_ref().is_some_and(answers_now);
    let may_fail_over = shard.primary.is_some() && shard.whole_members().any(answers_now);
    if is_served || may_fail_over {
        return String::new();
    }
    topology.with_names(&waits_for(topology, shard, &answers))
}

fn node_status(node: &Node, shard: Option<&Shard>, reports: &BTreeMap<NodeId, Report>) -> NodeStatus {
    let status_of = |id: &NodeId| reports.get(id).and_then(|r| r.status.as_ref());
    let own = status_of(&node.id);
    let last_of = |s: &rpc::NodeStatus| Position::from(s.last.unwrap_or_default());
    let primary = shard.and_then(|s| s.primary.as_ref());
    let lag = match (primary.and_then(status_of), own) {
        (Some(primary), Some(own)) => {
            Some(last_of(primary).index.get().saturating_sub(last_of(own).index.get()))
        }
        _ => None,
    };
    let role = match shard {
        None => "spare",
        Some(_) if primary == Some(&node.id) => "primary",
        Some(_) => "replica",
    };
    let state = match reports.get(&node.id).map(|r| &r.answer) {
        Some(Answer::Status(_)) if own.is_some_and(|s| s.loading) => "loading",
        Some(Answer::Status(_)) => "up",
        Some(Answer::Refused) => "down",
        Some(Answer::Silent) | None => "silent",
    };
    NodeStatus {
        id: node.id.to_string(),
        address: node.address(),
        bus_address: host_port(&node.host, node.bus_port),
        zone: node.zone.clone(),
        incarnation: node.incarnation.get(),
        role: role.into(),
        in_sync: shard.is_some_and(|s| s.in_sync.contains(&node.id)),
        restarted: shard.is_some_and(|s| s.restarted.contains(&node.id)),
        state: state.into(),
        last: own.map(|s| last_of(s).to_string()).unwrap_or_default(),
        commit_index: own.map(|s| s.commit_index).unwrap_or_default(),
        lag,
        keys: own.map(|s| s.keys).unwrap_or_default(),
        password_mark: own.map(|s| s.password_mark).unwrap_or_default(),
        memory_bytes: own.map(|s| s.memory_bytes).filter(|bytes| *bytes > 0),
        memory_max_bytes: own.map(|s| s.memory_max_bytes).unwrap_or_default(),
        commands_per_second: own.and_then(|s| s.commands_per_second),
    }
}
