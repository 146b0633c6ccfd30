//! What people call shards and nodes: the names of the Sentinel API, and addresses rather than IDs.

use super::{Node, Shard, Topology};
use crate::ids::{NodeId, ShardId};
use crate::slot::Slot;

/// `host:port`, with brackets around an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Digits of an ID.
const ID_LEN: usize = 40;

/// What the order of the shards goes by.
fn place(shard: &Shard) -> (Option<Slot>, &ShardId) {
    (shard.slots.first().map(|range| range.first), &shard.id)
}

impl Node {
    /// Where clients find it.
    pub fn address(&self) -> String {
        host_port(&self.host, self.port)
    }
}

impl Topology {
    /// The shards in the order of their slots, with the names that clients know them by.
    pub fn named_shards(&self) -> Vec<(String, &Shard)> {
        let mut shards: Vec<&Shard> = self.shards.values().collect();
        shards.sort_by(|a, b| place(a).cmp(&place(b)));
        (1..).zip(shards).map(|(number, shard)| (self.numbered(number), shard)).collect()
    }

    fn numbered(&self, number: usize) -> String {
        let base = &self.shape.primary_name;
        if number == 1 { base.clone() } else { format!("{base}-{number}") }
    }

    /// `mymaster`; the beginning of its ID if it is not known.
    pub fn shard_name(&self, id: &ShardId) -> String {
        let Some(shard) = self.shards.get(id) else { return format!("shard {id:?}") };
        let before = self.shards.values().filter(|other| place(other) < place(shard)).count();
        self.numbered(1 + before)
    }

    /// `127.0.0.1:6379`; the beginning of its ID if it is not known.
    pub fn node_name(&self, id: &NodeId) -> String {
        self.nodes.get(id).map_or_else(|| format!("node {id:?}"), Node::address)
    }

    /// A text for people, such as the reason of a refusal, with names in the place of IDs.
    pub fn with_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if text.len() < ID_LEN {
            return text;
        }
        for node in self.nodes.values().filter(|node| !node.host.is_empty()) {
            if text.contains(node.id.as_str()) {
                text = text.replace(node.id.as_str(), &node.address());
            }
        }
        for id in self.shards.keys() {
            if text.contains(id.as_str()) {
                text = text.replace(id.as_str(), &self.shard_name(id));
            }
        }
        text
    }

    /// [`Self::node_name`] of several, `none` of none.
    pub fn node_names<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> String {
        let names: Vec<String> = ids.into_iter().map(|id| self.node_name(id)).collect();
        if names.is_empty() { "none".into() } else { names.join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, Position, Term};
    use std::collections::BTreeSet;

    #[test]
    fn ids_become_names() {
        let id = NodeId::from_random([7; 20]);
        let node = Node {
            incarnation: Incarnation::new(1),
            start_nonce: 1,
            host: "::1".into(),
            port: 6379,
            bus_port: 16379,
            ..Node::new(id.clone())
        };
        let mut topology = Topology::default();
        assert_eq!(topology.node_name(&id), "node 07070707");
        topology.nodes.insert(id.clone(), node);
        assert_eq!(topology.node_name(&id), "[::1]:6379");
        assert_eq!(topology.node_names([&id, &id]), "[::1]:6379 [::1]:6379");
        assert_eq!(topology.node_names([]), "none");
        for (n, range) in (1..).zip(Topology::even_ranges(3).into_iter().rev()) {
            let shard = Shard {
                id: ShardId::from_random([n; 20]),
                slots: vec![range],
                term: Term::new(1),
                primary: None,
                in_sync: BTreeSet::new(),
                restarted: BTreeSet::new(),
                in_sync_version: 1,
                previous_primary_gone: false,
                predecessor_gone: false,
                handoff_position: Position::ZERO,
                absent: Default::default(),
            };
            topology.shards.insert(shard.id.clone(), shard);
        }
        let named: Vec<(String, &ShardId)> =
            topology.named_shards().into_iter().map(|(name, shard)| (name, &shard.id)).collect();
        assert_eq!(named[0], ("mymaster".into(), &ShardId::from_random([3; 20])));
        assert_eq!(named[2], ("mymaster-3".into(), &ShardId::from_random([1; 20])));
        assert!(named.iter().all(|(name, id)| topology.shard_name(id) == *name));
        assert_eq!(
            topology.with_names(&format!("node {id} is not in sync")),
            "node [::1]:6379 is not in sync"
        );
    }
}
