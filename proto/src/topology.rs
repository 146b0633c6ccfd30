//! The topology: nodes, shards, slot ownership. Sentinels agree on it through Raft; nodes route by it.
//!
//! - [`delta`]: what has changed between two versions
//! - [`names`]: what people call shards and nodes
//! - [`detection`]: what counts as dead, and how long leases last
//!
//! These are plain values. The rules by which they change are the sentinels' (`keyward_sentinel::rules::topology`).

pub mod delta;
pub mod detection;
pub mod names;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, NodeId, Position, ShardId, Term};
use crate::slot::{SLOT_COUNT, Slot};
pub use detection::{Detection, FastFailover};

/// Everything that the sentinels agree on. Serialized as JSON on the wire and in snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Raft index of the last change.
    pub version: u64,
    pub shape: Shape,
    pub nodes: BTreeMap<NodeId, Node>,
    pub shards: BTreeMap<ShardId, Shard>,
    /// RESP addresses of the sentinels, by Raft node ID.
    #[serde(default)]
    pub sentinels: BTreeMap<u64, SentinelAddress>,
    /// Names the history that began when the shards were formed; zero before. Sentinels that have lost their stores
    /// begin another one, and its versions and incarnations say nothing about those of this one.
    #[serde(default)]
    pub history: u64,
    /// Processes that have data on their disks and will register when it is loaded.
    #[serde(default)]
    pub loading: BTreeMap<NodeId, LoadingNode>,
    /// `min-in-sync` of all shards, as an operator has set it; `None`: each primary goes by its own.
    #[serde(default)]
    pub min_in_sync: Option<u32>,
}

/// A process that has said that it will come, and with data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadingNode {
    pub host: String,
    pub port: u16,
}

/// What a node held when it registered, apart from the position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Whose write log it is; `None`: nobody's, as that of a node alone or of Valkey.
    pub shard: Option<ShardId>,
    /// The first and the last slot with a key.
    pub slots: Option<SlotRange>,
}

/// What the operator wants; placement works towards it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub shards: u32,
    pub replicas_per_shard: u32,
    /// Name of the (first) shard in the Sentinel API.
    pub primary_name: String,
}

impl Shape {
    /// A primary and its replicas.
    pub fn nodes_per_shard(&self) -> usize {
        usize::try_from(self.replicas_per_shard).unwrap_or(usize::MAX).saturating_add(1)
    }
}

impl Default for Shape {
    fn default() -> Self {
        Shape { shards: 1, replicas_per_shard: 2, primary_name: "mymaster".into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelAddress {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub bus_port: u16,
    /// For clients with TLS; zero: none. Equal to `port`: there is no other.
    #[serde(default)]
    pub tls_port: u16,
}

impl SentinelAddress {
    /// The port that a client is told that is connected in this way.
    pub fn client_port(&self, transport: Transport) -> u16 {
        if transport == Transport::Tls && self.tls_port != 0 { self.tls_port } else { self.port }
    }
}

/// `replica-priority`, unless a node says another.
pub const DEFAULT_PRIORITY: u32 = 100;

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub incarnation: Incarnation,
    /// Identifies the process start that was given this incarnation.
    pub start_nonce: u64,
    /// IP address or name at which clients and nodes reach it.
    pub host: String,
    pub port: u16,
    pub bus_port: u16,
    /// For clients with TLS; zero: none. Equal to `port`: there is no other.
    #[serde(default)]
    pub tls_port: u16,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub zone: String,
    pub replica_priority: u32,
    /// `None`: a spare.
    pub shard: Option<ShardId>,
    pub cluster_enabled: bool,
    #[serde(default)]
    pub program_version: String,
    /// What it held when it registered.
    pub registered_last: Position,
    #[serde(default)]
    pub detection: Detection,
    /// What that was; `None`: a program that is older does not say.
    #[serde(default)]
    pub holding: Option<Holding>,
    /// Numbered databases; `None`: a program that is older does not say.
    #[serde(default)]
    pub databases: Option<u16>,
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    #[default]
    Plain,
    Tls,
}

impl Node {
    /// The port for clients that are connected in this way, as Valkey names it; zero: there is none.
    pub fn client_port(&self, transport: Transport) -> u16 {
        match transport {
            Transport::Tls => self.tls_port,
            Transport::Plain if self.port == self.tls_port => 0,
            Transport::Plain => self.port,
        }
    }

    /// As [`Node::client_port`], but if there is none the other: a client that is told of no port at all can do nothing.
    pub fn reachable_port(&self, transport: Transport) -> u16 {
        match self.client_port(transport) {
            0 => self.port,
            port => port,
        }
    }

    /// One of which nothing else is known.
    pub fn new(id: NodeId) -> Node {
        Node {
            id,
            incarnation: Incarnation::ZERO,
            start_nonce: 0,
            host: String::new(),
            port: 0,
            bus_port: 0,
            tls_port: 0,
            hostname: String::new(),
            zone: String::new(),
            replica_priority: DEFAULT_PRIORITY,
            shard: None,
            cluster_enabled: false,
            program_version: String::new(),
            registered_last: Position::ZERO,
            detection: Detection::default(),
            holding: None,
            databases: None,
        }
    }
}

/// The nodes that hold the same slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub id: ShardId,
    /// Inclusive, ascending, disjoint ranges.
    pub slots: Vec<SlotRange>,
    pub term: Term,
    /// The primary of `term`; `None` while the shard waits for members that are down.
    pub primary: Option<NodeId>,
    /// Nodes that must hold an entry before it is committed. Contains the primary.
    pub in_sync: BTreeSet<NodeId>,
    /// Members of `in_sync` that have restarted since they were added: they may have lost entries, so they are
    /// not electable unless every member is in here.
    pub restarted: BTreeSet<NodeId>,
    /// Grows with each change of `in_sync`: what changes are compared with.
    pub in_sync_version: u64,
    /// The sentinels know that no earlier primary can serve any more (the previous one's process is dead, or it has
    /// handed over; or the present one has served): a new primary need not wait for the leases that it granted.
    pub previous_primary_gone: bool,
    /// The same of the primary of the last term alone: what was promised to it need not be kept, what was promised to
    /// those before it has to be, by whoever gave it.
    #[serde(default)]
    pub predecessor_gone: bool,
    /// The position of the old primary at a hand-off, zero otherwise.
    #[serde(default)]
    pub handoff_position: Position,
    #[serde(default)]
    pub absent: Absent,
}

/// What a shard's nodes outside the in-sync set hold, as far as it is known: who leads depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// With fewer members that have not restarted the primary commits nothing: its word, which binds it and those after
    /// it until the sentinels have another number. `None`: nobody has given it.
    #[serde(default)]
    pub min_in_sync: Option<u32>,
    /// Nodes that left the in-sync set, and have not restarted, since it last had so many members: nothing has been
    /// committed since, so they hold everything that is.
    #[serde(default)]
    pub eligible: BTreeSet<NodeId>,
    /// Where each node outside stood when it left, or when it registered since: at least.
    #[serde(default)]
    pub stood_at: BTreeMap<NodeId, Position>,
    /// The present primary comes from outside the in-sync set: what it has promised itself says nothing of leases that
    /// earlier primaries may have, so it waits for as long as these can last.
    #[serde(default)]
    pub gave_no_lease: bool,
    /// What the shard's primaries have told of their commit index.
    #[serde(default)]
    pub committed: Position,
}

/// First and last slot of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotRange {
    pub first: Slot,
    pub last: Slot,
}

impl SlotRange {
    pub fn contains(&self, slot: Slot) -> bool {
        self.first <= slot && slot <= self.last
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: SlotRange) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub fn iter(&self) -> impl Iterator<Item = Slot> + use<> {
        (self.first.number()..=self.last.number()).filter_map(Slot::new)
    }
}

impl Shard {
    /// Members that hold everything that was committed: no acknowledged write is missing in any of them.
    pub fn whole_members(&self) -> impl Iterator<Item = &NodeId> {
        self.in_sync.difference(&self.restarted)
    }

    /// So few members are whole that the primary has promised to commit nothing.
    pub fn is_short(&self) -> bool {
        let count = u32::try_from(self.whole_members().count()).unwrap_or(u32::MAX);
        self.absent.min_in_sync.is_some_and(|min| count < min)
    }
}

impl Topology {
    /// How many members of the in-sync set a commit takes unless an operator has said it: half of the shard's nodes,
    /// rounded up. Nodes beyond the wanted shape are replaced ones that may never come back, and do not count.
    pub fn default_min_in_sync(&self, shard: &ShardId) -> usize {
        self.members(shard).count().min(self.shape.nodes_per_shard()).div_ceil(2)
    }

    /// For clients of a shard without a primary: what would help.
    pub fn why_no_primary(&self, shard: &Shard) -> String {
        let holders: BTreeSet<&NodeId> = shard.whole_members().chain(&shard.absent.eligible).collect();
        let (who, ids) = match holders.is_empty() {
            false => ("one of those that hold everything", holders),
            true => ("the furthest", self.members(&shard.id).map(|node| &node.id).collect()),
        };
        format!(
            "the shard has no primary and waits for {who} ({}); after CLUSTER FAILOVER TAKEOVER another node goes on, \
             without what it lacks",
            self.node_names(ids)
        )
    }

    /// The shard that a node belongs to.
    pub fn shard_of(&self, node: &NodeId) -> Option<&Shard> {
        self.shards.get(self.nodes.get(node)?.shard.as_ref()?)
    }

    /// What a refused connection proves: the most careful of what the registered nodes were told, so that all sentinels
    /// and nodes follow one value.
    pub fn fast_failover(&self) -> FastFailover {
        self.nodes.values().map(|node| node.detection.fast_failover).min().unwrap_or_default()
    }

    /// All nodes assigned to a shard, in order of their IDs.
    pub fn members<'a>(&'a self, shard: &'a ShardId) -> impl Iterator<Item = &'a Node> + 'a {
        self.nodes.values().filter(move |n| n.shard.as_ref() == Some(shard))
    }

    pub fn owner(&self, slot: Slot) -> Option<&Shard> {
        self.shards.values().find(|s| s.slots.iter().any(|r| r.contains(slot)))
    }

    /// Splits all slots evenly into `parts` ranges, as Valkey's tools do.
    pub fn even_ranges(parts: u32) -> Vec<SlotRange> {
        let parts = u64::from(parts.clamp(1, u32::from(SLOT_COUNT)));
        let total = u64::from(SLOT_COUNT);
        (0..parts)
            .filter_map(|i| {
                let first = u16::try_from(i * total / parts).ok()?;
                let last = u16::try_from((i + 1) * total / parts - 1).ok()?;
                Some(SlotRange { first: Slot::new(first)?, last: Slot::new(last)? })
            })
            .collect()
    }

    /// Panics when the value contradicts itself (ARCHITECTURE.md, invariants 6 and 7).
    pub fn check_invariants(&self) {
        let mut owned = vec![false; usize::from(SLOT_COUNT)];
        for shard in self.shards.values() {
            for slot in shard.slots.iter().flat_map(SlotRange::iter) {
                assert!(!std::mem::replace(&mut owned[slot.index()], true), "slot {slot} has two owners");
            }
            if let Some(primary) = &shard.primary {
                assert!(shard.in_sync.contains(primary), "the primary {primary} is outside its in-sync set");
                assert!(!shard.restarted.contains(primary), "the primary {primary} counts as restarted");
            }
            assert!(shard.restarted.is_subset(&shard.in_sync), "restarted nodes outside the in-sync set");
            let Absent { eligible, stood_at, .. } = &shard.absent;
            assert!(eligible.is_empty() || shard.is_short(), "what eligible nodes hold may be outdated");
            for id in eligible.iter().chain(stood_at.keys()) {
                assert!(!shard.in_sync.contains(id), "node {id} is both inside and outside the in-sync set");
                let is_member = self.nodes.get(id).is_some_and(|n| n.shard.as_ref() == Some(&shard.id));
                assert!(
                    is_member,
                    "node {id} is outside the in-sync set of a shard that it does not belong to"
                );
            }
            for id in &shard.in_sync {
                let node = self.nodes.get(id).expect("members of an in-sync set are registered");
                assert_eq!(node.shard.as_ref(), Some(&shard.id), "node {id} is in sync with another shard");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_ranges_cover_every_slot_once() {
        for parts in [1, 2, 3, 7, 1000] {
            let ranges = Topology::even_ranges(parts);
            assert_eq!(ranges.len(), parts as usize);
            assert_eq!(ranges.iter().map(|r| r.iter().count()).sum::<usize>(), usize::from(SLOT_COUNT));
        }
    }
}
