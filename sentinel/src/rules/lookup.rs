//! What an operator calls a shard or a node.

use keyward_proto::ids::NodeId;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{Node, Shard, Topology};

/// The shard with this name, this ID, or the only one whose ID begins so.
pub(crate) fn find_shard<'a>(topology: &'a Topology, text: &str) -> Result<&'a Shard, String> {
    let shards = topology.named_shards();
    let by_name = shards.iter().find(|(name, shard)| name == text || shard.id.as_str() == text);
    if let Some((_, shard)) = by_name {
        return Ok(shard);
    }
    let mut matching =
        shards.iter().filter(|(_, shard)| !text.is_empty() && shard.id.as_str().starts_with(text));
    match (matching.next(), matching.next()) {
        (Some((_, shard)), None) => Ok(shard),
        (Some(_), Some(_)) => Err(format!("several shards begin with {text}")),
        (None, _) => Err(format!("there is no shard {text}")),
    }
}

/// The node with this ID, this beginning of an ID, or this address.
pub(crate) fn find_node<'a>(topology: &'a Topology, text: &str) -> Result<&'a Node, String> {
    let is_meant = |node: &&Node| {
        let named = |host: &str| !host.is_empty() && host_port(host, node.port) == text;
        !text.is_empty() && node.id.as_str().starts_with(text) || named(&node.host) || named(&node.hostname)
    };
    let mut matching = topology.nodes.values().filter(is_meant);
    match (matching.next(), matching.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => Err(format!("several nodes match {text}")),
        (None, _) => Err(format!("there is no node {text}")),
    }
}

/// The process that loads its data and has not registered, by the same words, and its address.
pub(crate) fn find_loading(topology: &Topology, text: &str) -> Option<(NodeId, String)> {
    let mut loading = topology.loading.iter().map(|(id, node)| (id, host_port(&node.host, node.port)));
    let is_meant = |(id, address): &(&NodeId, String)| {
        !text.is_empty() && (id.as_str().starts_with(text) || address == text)
    };
    loading.find(is_meant).map(|(id, address)| (id.clone(), address))
}
