//! What subscribers of the Sentinel API are told: channel and message, in Sentinel's words.
//!
//! Derived by each sentinel from the topology as it applies it, so that all of them tell the same story.

use std::collections::BTreeMap;

use keyward_proto::ids::{NodeId, ShardId};
use keyward_proto::topology::{Node, Topology, Transport};

use crate::rules::health::{Health, Hosts, Liveness};

/// One message for the subscribers of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub channel: &'static str,
    pub message: String,
    /// Who is told: the ports in the message are those for clients that are connected in this way.
    pub transport: Transport,
}

/// Remembers what was told, to tell the difference.
#[derive(Debug, Default)]
pub(crate) struct EventFeed {
    shards: BTreeMap<ShardId, Announced>,
    sentinels: BTreeMap<u64, String>,
    hosts: Hosts,
    transport: Transport,
}

#[derive(Debug, Default)]
struct Announced {
    /// `ip port` of the last primary, kept while there is none.
    primary: String,
    replicas: BTreeMap<NodeId, String>,
}

impl EventFeed {
    pub(crate) fn new(hosts: Hosts, transport: Transport) -> Self {
        EventFeed { hosts, transport, ..EventFeed::default() }
    }

    fn event(&self, channel: &'static str, message: String) -> Event {
        Event { channel, message, transport: self.transport }
    }

    /// What happened since the last call.
    pub(crate) fn step(&mut self, topology: &Topology, health: &Health) -> Vec<Event> {
        let mut events = Vec::new();
        let (hosts, transport) = (self.hosts, self.transport);
        let event = |channel, message| Event { channel, message, transport };
        let address =
            |node: &Node| format!("{} {}", health.client_host(node, hosts), node.reachable_port(transport));
        let quorum = topology.sentinels.len() / 2 + 1;
        for (name, shard) in topology.named_shards() {
            let told = self.shards.entry(shard.id.clone()).or_default();
            if let Some(primary) = shard.primary.as_ref().and_then(|id| topology.nodes.get(id)) {
                let now = address(primary);
                if told.primary.is_empty() {
                    let message = format!("master {name} {now} quorum {quorum}");
                    events.push(event("+monitor", message));
                } else if told.primary != now {
                    let old = format!("master {name} {}", told.primary);
                    events.push(event("+failover-end", old));
                    let message = format!("{name} {} {now}", told.primary);
                    events.push(event("+switch-master", message));
                    told.replicas.clear();
                }
                told.primary = now;
            }
            let mut replicas = BTreeMap::new();
            for node in topology.members(&shard.id).filter(|n| shard.primary.as_ref() != Some(&n.id)) {
                let now = address(node);
                if told.replicas.get(&node.id) != Some(&now) && !told.primary.is_empty() {
                    let message = format!("{} @ {name} {}", instance("slave", &now), told.primary);
                    events.push(event("+slave", message));
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
            let now = format!("{} {}", sentinel.host, sentinel.client_port(self.transport));
            if self.sentinels.insert(*id, now.clone()).as_ref() == Some(&now) {
                continue;
            }
            for (name, shard) in topology.named_shards() {
                let primary = self.shards.get(&shard.id).map(|t| t.primary.clone()).unwrap_or_default();
                let message =
                    format!("sentinel {} {now} @ {name} {primary}", sentinel_run_id(*id, &sentinel.name));
                events.push(self.event("+sentinel", message));
            }
        }
        self.sentinels.retain(|id, _| topology.sentinels.contains_key(id));
    }

    /// A node went down or came back, as this sentinel sees it.
    fn node_changed(
        &self,
        topology: &Topology,
        health: &Health,
        id: &NodeId,
        liveness: Liveness,
    ) -> Vec<Event> {
        let Some((name, shard)) = topology
            .named_shards()
            .into_iter()
            .find(|(_, s)| topology.nodes.get(id).is_some_and(|n| n.shard.as_ref() == Some(&s.id)))
        else {
            return Vec::new();
        };
        let Some(node) = topology.nodes.get(id) else { return Vec::new() };
        let port = node.reachable_port(self.transport);
        let address = format!("{} {port}", health.client_host(node, self.hosts));
        let primary = self.shards.get(&shard.id).map(|t| t.primary.clone()).unwrap_or_default();
        let is_primary = shard.primary.as_ref() == Some(id) || primary == address;
        if !is_primary {
            let message = format!("{} @ {name} {primary}", instance("slave", &address));
            let channel = match liveness {
                Liveness::Down => "+sdown",
                Liveness::Up => "-sdown",
            };
            return vec![self.event(channel, message)];
        }
        let message = format!("master {name} {address}");
        if liveness == Liveness::Up {
            return ["-sdown", "-odown"].map(|channel| self.event(channel, message.clone())).into();
        }
        let quorum = topology.sentinels.len() / 2 + 1;
        let objective = format!("{message} #quorum {quorum}/{quorum}");
        vec![self.event("+sdown", message), self.event("+odown", objective)]
    }
}

/// What subscribers are told of nodes that went down or came back.
pub(crate) fn of_nodes(
    topology: &Topology,
    health: &Health,
    hosts: Hosts,
    transport: Transport,
    changes: &[(NodeId, Liveness)],
) -> Vec<Event> {
    if changes.is_empty() {
        return Vec::new();
    }
    let mut feed = EventFeed::new(hosts, transport);
    feed.step(topology, health);
    changes.iter().flat_map(|(id, liveness)| feed.node_changed(topology, health, id, *liveness)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failover::tests::{id, topology};

    #[test]
    fn a_node_that_goes_down_is_told_as_sentinel_tells_it() {
        let (mut topology, health) = (topology(), Health::default());
        for n in 1..=3 {
            topology.nodes.get_mut(&id(n)).unwrap().host = format!("h{n}");
        }
        let tell = |n, liveness| -> Vec<String> {
            let events =
                of_nodes(&topology, &health, Hosts::Addresses, Transport::Plain, &[(id(n), liveness)]);
            events.into_iter().map(|e| format!("{} {}", e.channel, e.message)).collect()
        };
        let replica = "slave h2:7000 h2 7000 @ mymaster h1 7000";
        assert_eq!(tell(2, Liveness::Down), [format!("+sdown {replica}")]);
        assert_eq!(tell(2, Liveness::Up), [format!("-sdown {replica}")]);
        let primary = "master mymaster h1 7000";
        assert_eq!(
            tell(1, Liveness::Down),
            [format!("+sdown {primary}"), format!("+odown {primary} #quorum 1/1")]
        );
        assert_eq!(tell(1, Liveness::Up), [format!("-sdown {primary}"), format!("-odown {primary}")]);
        assert_eq!(of_nodes(&topology, &health, Hosts::Addresses, Transport::Plain, &[]), []);
        topology.nodes.get_mut(&id(2)).unwrap().tls_port = 8000;
        let events =
            of_nodes(&topology, &health, Hosts::Addresses, Transport::Tls, &[(id(2), Liveness::Down)]);
        let told: Vec<_> = events.iter().map(|e| (e.transport, e.message.as_str())).collect();
        // The primary has no port with TLS.
        assert_eq!(told, [(Transport::Tls, "slave h2:8000 h2 8000 @ mymaster h1 7000")]);
    }
}
