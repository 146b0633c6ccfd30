//! The report that the nodes' own words amount to, while no sentinel answers.

use std::collections::BTreeSet;

use keyward_proto::ids::Position;
use keyward_proto::peer::Trouble;
use keyward_proto::rpc;

use super::{NodeStatus, SentinelStatus, ShardStatus, StatusReport};

/// A node that was asked: what it is called, its bus address, and what it said.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub name: Option<String>,
    pub bus_address: String,
    pub answer: Result<rpc::NodeStatus, Trouble>,
}

/// The report that the nodes' own words amount to. `sentinels` are the addresses at which none has answered.
pub(crate) fn from_nodes(sentinels: &[String], asked: &[Asked]) -> StatusReport {
    let status = |a: &Asked| a.answer.as_ref().ok().filter(|s| !s.node_id.is_empty()).cloned();
    let ids: BTreeSet<String> =
        asked.iter().filter_map(status).map(|s| s.shard_id).filter(|id| !id.is_empty()).collect();
    let shards = ids.into_iter().map(|id| {
        let members: Vec<(&Asked, rpc::NodeStatus)> =
            asked.iter().filter_map(|a| Some((a, status(a)?))).filter(|(_, s)| s.shard_id == id).collect();
        let primary = members.iter().filter(|(_, s)| s.role == "primary").max_by_key(|(_, s)| s.term);
        let primary = primary.map(|(_, s)| s);
        let nodes = members.iter().map(|(a, s)| own_words(a, s, primary)).collect();
        let term = members.iter().map(|(_, s)| s.term).max().unwrap_or_default();
        let primary = primary.map(|s| s.node_id.clone());
        ShardStatus {
            id,
            name: String::new(),
            slots: Vec::new(),
            term,
            in_sync_version: 0,
            primary,
            waits: String::new(),
            nodes,
        }
    });
    let sentinel = |address: &String| SentinelStatus {
        id: 0,
        name: "-".into(),
        run_id: String::new(),
        address: "-".into(),
        bus_address: address.clone(),
        leader: false,
        up: false,
    };
    let others = asked.iter().filter(|a| status(a).is_none_or(|s| s.shard_id.is_empty()));
    let spares = others.map(|a| own_words(a, &status(a).unwrap_or_default(), None)).collect();
    StatusReport {
        sentinels: sentinels.iter().map(sentinel).collect(),
        shards: shards.collect(),
        spares,
        from_nodes: true,
        ..StatusReport::default()
    }
    .judged()
}

fn own_words(asked: &Asked, status: &rpc::NodeStatus, primary: Option<&rpc::NodeStatus>) -> NodeStatus {
    let last_of = |s: &rpc::NodeStatus| Position::from(s.last.unwrap_or_default());
    let is_primary = primary.is_some_and(|p| p.node_id == status.node_id);
    let state = match &asked.answer {
        Ok(status) if status.loading && !is_primary => "loading",
        Ok(_) => "up",
        Err(Trouble::Refused) => "down",
        Err(_) => "silent",
    };
    NodeStatus {
        id: status.node_id.clone(),
        address: "-".into(),
        bus_address: asked.bus_address.clone(),
        zone: String::new(),
        incarnation: status.incarnation,
        role: if status.role.is_empty() { "-".into() } else { status.role.clone() },
        // A primary holds leases of its in-sync set.
        in_sync: is_primary || primary.is_some_and(|p| p.leases.contains(&status.node_id)),
        restarted: false,
        state: state.into(),
        last: status.last.map(|_| last_of(status).to_string()).unwrap_or_default(),
        commit_index: status.commit_index,
        lag: primary.map(|p| last_of(p).index.get().saturating_sub(last_of(status).index.get())),
        keys: status.keys,
        password_mark: status.password_mark,
        memory_bytes: Some(status.memory_bytes).filter(|bytes| *bytes > 0),
        memory_max_bytes: status.memory_max_bytes,
        commands_per_second: status.commands_per_second,
    }
}
