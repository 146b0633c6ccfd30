//! What subscribers of the Sentinel API are told: channel and message, in Sentinel's words.
//!
//! Derived by each sentinel from the topology as it applies it, so that all of them tell the same story.

use std::collections::BTreeMap;

use keyward_proto::ids::{NodeId, ShardId};
use keyward_proto::topology::{Node, Topology};

use crate::rules::health::Health;

/// One message for the subscribers of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub channel: &'static str,
    pub message: String,
}

/// Remembers what was told, to tell the difference.
#[derive(Debug, Default)]
pub(crate) struct EventFeed {
    shards: BTreeMap<ShardId, Announced>,
    sentinels: BTreeMap<u64, String>,
    announce_hostnames: bool,
}

#[derive(Debug, Default)]
struct Announced {
    /// `ip port` of the last primary, kept while there is none.
    primary: String,
    replicas: BTreeMap<NodeId, String>,
}

impl EventFeed {
    pub(crate) fn new(announce_hostnames: bool) -> Self {
        EventFeed { announce_hostnames, ..EventFeed::default() }
    }

    /// What happened since the last call.
    pub(crate) fn step(&mut self, topology: &Topology, health: &Health) -> Vec<Event> {
        let mut events = Vec::new();
        let quorum = topology.sentinels.len() / 2 + 1;
        for (name, shard) in topology.named_shards() {
            let told = self.shards.entry(shard.id.clone()).or_default();
            let address =
                |node: &Node| format!("{} {}", health.client_host(node, self.announce_hostnames), node.port);
            if let Some(primary) = shard.primary.as_ref().and_then(|id| topology.nodes.get(id)) {
                let now = address(primary);
                if told.primary.is_empty() {
                    let message = format!("master {name} {now} quorum {quorum}");
                    events.push(Event { channel: "+monitor", message });
                } else if told.primary != now {
                    let old = format!("master {name} {}", told.primary);
                    events.push(Event { channel: "+failover-end", message: old });
                    let message = format!("{name} {} {now}", told.primary);
                    events.push(Event { channel: "+switch-master", message });
                    told.replicas.clear();
                }
                told.primary = now;
            }
            let mut replicas = BTreeMap::new();
            for node in topology.members(&shard.id).filter(|n| shard.primary.as_ref() != Some(&n.id)) {
                let now = address(node);
                if told.replicas.get(&node.id) != Some(&now) && !told.primary.is_empty() {
                    let message = format!("{} @ {name} {}", instance("slave", &now), told.primary);
                    events.push(Event { channel: "+slave", message });
                }
                replicas.insert(node.id.clone(), now);
            }
            told.replicas = replicas;
        }
        self.tell_sentinels(topology, &mut events);
        events
    }

    fn tell_sentinels(&mut self, topology: &Topology, events: &mut Vec<Event>) {
        for (id, sentinel) in &topology.sentinels {
            let now = format!("{} {}", sentinel.host, sentinel.port);
            if self.sentinels.insert(*id, now.clone()).as_ref() == Some(&now) {
                continue;
            }
            for (name, shard) in topology.named_shards() {
                let primary = self.shards.get(&shard.id).map(|t| t.primary.clone()).unwrap_or_default();
                let message =
                    format!("sentinel {} {now} @ {name} {primary}", sentinel_run_id(*id, &sentinel.name));
                events.push(Event { channel: "+sentinel", message });
            }
        }
        self.sentinels.retain(|id, _| topology.sentinels.contains_key(id));
    }

    /// A node went down or came back, as this sentinel sees it.
    pub(crate) fn node_down_changed(
        &self,
        topology: &Topology,
        health: &Health,
        id: &NodeId,
        is_down: bool,
    ) -> Vec<Event> {
        let Some((name, shard)) = topology
            .named_shards()
            .into_iter()
            .find(|(_, s)| topology.nodes.get(id).is_some_and(|n| n.shard.as_ref() == Some(&s.id)))
        else {
            return Vec::new();
        };
        let Some(node) = topology.nodes.get(id) else { return Vec::new() };
        let address = format!("{} {}", health.client_host(node, self.announce_hostnames), node.port);
        let primary = self.shards.get(&shard.id).map(|t| t.primary.clone()).unwrap_or_default();
        let is_primary = shard.primary.as_ref() == Some(id) || primary == address;
        if !is_primary {
            let message = format!("{} @ {name} {primary}", instance("slave", &address));
            return vec![Event { channel: if is_down { "+sdown" } else { "-sdown" }, message }];
        }
        let message = format!("master {name} {address}");
        if !is_down {
            return ["-sdown", "-odown"].map(|channel| Event { channel, message: message.clone() }).into();
        }
        let quorum = topology.sentinels.len() / 2 + 1;
        let objective = format!("{message} #quorum {quorum}/{quorum}");
        vec![Event { channel: "+sdown", message }, Event { channel: "+odown", message: objective }]
    }
}

/// `slave ip:port ip port`
fn instance(kind: &str, address: &str) -> String {
    format!("{kind} {} {address}", address.replace(' ', ":"))
}

/// 40 hexadecimal digits that stand for a sentinel: the same on every sentinel, different for each.
pub(crate) fn sentinel_run_id(id: u64, name: &str) -> String {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64 ^ id, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut text = String::with_capacity(48);
    for _ in 0..3 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        text.push_str(&format!("{:016x}", z ^ (z >> 31)));
    }
    text.truncate(40);
    text
}
