//! What people call shards and nodes: the names of the Sentinel API, and addresses rather than IDs.

use super::{Node, Shard, Topology};
use crate::ids::{NodeId, ShardId};

/// `host:port`, with brackets around an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
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
        shards.sort_by_key(|s| (s.slots.first().map(|r| r.first), s.id.clone()));
        let base = &self.shape.primary_name;
        let name = |number: usize| if number == 1 { base.clone() } else { format!("{base}-{number}") };
        (1..).zip(shards).map(|(number, shard)| (name(number), shard)).collect()
    }

    /// `mymaster`; the beginning of its ID if it is not known.
    pub fn shard_name(&self, id: &ShardId) -> String {
        let named = self.named_shards().into_iter().find(|(_, shard)| shard.id == *id);
        named.map_or_else(|| format!("shard {id:?}"), |(name, _)| name)
    }

    /// `127.0.0.1:6379`; the beginning of its ID if it is not known.
    pub fn node_name(&self, id: &NodeId) -> String {
        self.nodes.get(id).map_or_else(|| format!("node {id:?}"), Node::address)
    }

    /// [`Self::node_name`] of several, `none` of none.
    pub fn node_names<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> String {
        let names: Vec<String> = ids.into_iter().map(|id| self.node_name(id)).collect();
        if names.is_empty() { "none".into() } else { names.join(" ") }
    }
}
