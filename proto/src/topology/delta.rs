//! What has changed between two versions of the topology: thousands of nodes follow it, and most changes are small.
//!
//! A delta fits one base only, named by its [`Key`]. Versions alone would not do: sentinels that lost their stores
//! begin again with low versions, but another history.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{LoadingNode, Node, SentinelAddress, Shape, Shard, Topology};
use crate::ids::{NodeId, ShardId};

/// Names one state of one history of the topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub version: u64,
    /// The first shard.
    pub shard: ShardId,
    /// See [`Topology::history`].
    #[serde(default)]
    pub history: u64,
}

impl Topology {
    /// `None` as long as there are no shards.
    pub fn key(&self) -> Option<Key> {
        let shard = self.shards.keys().next()?.clone();
        Some(Key { version: self.version, shard, history: self.history })
    }
}

/// Leads from `base` to another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    pub base: Key,
    pub version: u64,
    pub shape: Option<Shape>,
    /// New ones, and those that are different.
    pub nodes: Vec<Node>,
    pub gone_nodes: BTreeSet<NodeId>,
    /// New ones, and those that are different.
    pub shards: Vec<Shard>,
    pub gone_shards: BTreeSet<ShardId>,
    pub sentinels: Option<BTreeMap<u64, SentinelAddress>>,
    #[serde(default)]
    pub loading: Option<BTreeMap<NodeId, LoadingNode>>,
    /// As it is now.
    #[serde(default)]
    pub min_in_sync: Option<u32>,
}

impl Delta {
    /// `None` if `base` has no key.
    pub fn between(base: &Topology, next: &Topology) -> Option<Delta> {
        // A base and what follows it are of one history.
        let Topology { version, shape, nodes, shards, sentinels, history: _, loading, min_in_sync } = next;
        Some(Delta {
            base: base.key()?,
            version: *version,
            shape: (base.shape != *shape).then(|| shape.clone()),
            nodes: changed(&base.nodes, nodes),
            gone_nodes: gone(&base.nodes, nodes),
            shards: changed(&base.shards, shards),
            gone_shards: gone(&base.shards, shards),
            sentinels: (base.sentinels != *sentinels).then(|| sentinels.clone()),
            loading: (base.loading != *loading).then(|| loading.clone()),
            min_in_sync: *min_in_sync,
        })
    }

    /// `None` if it does not fit.
    pub fn apply(self, base: &Topology) -> Option<Topology> {
        if base.key()? != self.base {
            return None;
        }
        let mut topology = base.clone();
        topology.version = self.version;
        topology.shape = self.shape.unwrap_or(topology.shape);
        topology.nodes.retain(|id, _| !self.gone_nodes.contains(id));
        topology.nodes.extend(self.nodes.into_iter().map(|node| (node.id.clone(), node)));
        topology.shards.retain(|id, _| !self.gone_shards.contains(id));
        topology.shards.extend(self.shards.into_iter().map(|shard| (shard.id.clone(), shard)));
        topology.sentinels = self.sentinels.unwrap_or(topology.sentinels);
        topology.loading = self.loading.unwrap_or(topology.loading);
        topology.min_in_sync = self.min_in_sync;
        Some(topology)
    }
}

fn changed<K: Ord, V: PartialEq + Clone>(base: &BTreeMap<K, V>, next: &BTreeMap<K, V>) -> Vec<V> {
    next.iter().filter(|(key, value)| base.get(key) != Some(value)).map(|(_, value)| value.clone()).collect()
}

fn gone<K: Ord + Clone, V>(base: &BTreeMap<K, V>, next: &BTreeMap<K, V>) -> BTreeSet<K> {
    base.keys().filter(|key| !next.contains_key(key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, Position, Term};

    fn id(n: u8) -> NodeId {
        NodeId::from_random([n; 20])
    }

    fn node(n: u8, incarnation: u64) -> Node {
        Node {
            incarnation: Incarnation::new(incarnation),
            start_nonce: 1,
            host: "h".into(),
            port: 1,
            bus_port: 2,
            shard: Some(ShardId::from_random([1; 20])),
            cluster_enabled: true,
            ..Node::new(id(n))
        }
    }

    fn shard(n: u8, term: u64) -> Shard {
        Shard {
            id: ShardId::from_random([n; 20]),
            slots: Topology::even_ranges(2),
            term: Term::new(term),
            primary: None,
            in_sync: BTreeSet::new(),
            restarted: BTreeSet::new(),
            in_sync_version: 1,
            previous_primary_gone: true,
            predecessor_gone: true,
            handoff_position: Position::ZERO,
            absent: Default::default(),
        }
    }

    fn topology(version: u64, nodes: &[(u8, u64)], shards: &[(u8, u64)]) -> Topology {
        let nodes = nodes.iter().map(|(n, i)| (id(*n), node(*n, *i))).collect();
        let shards = shards.iter().map(|(n, term)| shard(*n, *term)).map(|s| (s.id.clone(), s)).collect();
        Topology { version, nodes, shards, ..Topology::default() }
    }

    #[test]
    fn a_delta_leads_from_its_base_to_the_next_version_with_what_changed() {
        let base = topology(5, &[(1, 1), (2, 2), (3, 3)], &[(1, 1), (2, 1)]);
        let mut next = topology(9, &[(1, 1), (2, 7), (4, 8)], &[(1, 2), (3, 1)]);
        next.shape.replicas_per_shard = 7;
        let delta = Delta::between(&base, &next).unwrap();
        assert_eq!(delta.nodes.iter().map(|n| n.id.clone()).collect::<Vec<_>>(), [id(2), id(4)]);
        assert_eq!(delta.gone_nodes, BTreeSet::from([id(3)]));
        assert_eq!((delta.shards.len(), delta.gone_shards.len()), (2, 1));
        let text = serde_json::to_string(&delta).unwrap();
        let delta: Delta = serde_json::from_str(&text).unwrap();
        assert_eq!(delta.apply(&base), Some(next));
    }

    #[test]
    fn a_delta_fits_no_other_version_and_no_other_history() {
        let base = topology(5, &[(1, 1)], &[(1, 1)]);
        let delta = Delta::between(&base, &topology(6, &[(1, 1)], &[(1, 2)])).unwrap();
        for other in
            [topology(4, &[(1, 1)], &[(1, 1)]), topology(5, &[(1, 1)], &[(2, 1)]), Topology::default()]
        {
            assert_eq!(delta.clone().apply(&other), None);
        }
        assert_eq!(Delta::between(&Topology::default(), &base), None);
    }
}
