//! Who serves a slot, as this node knows it: the topology, laid out for one lookup per command.

use std::sync::Arc;

use keyward_proto::ids::{NodeId, ShardId};
use keyward_proto::slot::{SLOT_COUNT, Slot};
use keyward_proto::topology::{Node, Shard, SlotRange, Topology, Transport};

use crate::config::{EndpointType, Settings};

/// See the module documentation. Immutable: a new topology makes a new one.
#[derive(Debug, Default)]
pub struct Routing {
    pub topology: Arc<Topology>,
    pub me: Option<NodeId>,
    pub my_shard: Option<ShardId>,
    /// Index into `shards` for each slot; `NOBODY` where it has no owner. Empty without a topology.
    owners: Box<[u16]>,
    shards: Vec<ShardId>,
    /// Every slot has an owner with a primary.
    pub covered: bool,
    my_slots: Vec<SlotRange>,
}

const NOBODY: u16 = u16::MAX;

/// Who has to execute a command on a slot.
#[derive(Debug, PartialEq)]
pub enum Owner<'a> {
    /// The shard of this node.
    Mine,
    /// Another shard, with its primary if it has one.
    Other(Option<&'a Node>),
    Nobody,
}

impl Routing {
    pub fn new(topology: Arc<Topology>, me: NodeId) -> Self {
        let my_shard = topology.nodes.get(&me).and_then(|n| n.shard.clone());
        let shards: Vec<ShardId> = topology.shards.keys().cloned().collect();
        let mut owners = vec![NOBODY; usize::from(SLOT_COUNT)].into_boxed_slice();
        let (mut covered, mut owned) = (true, 0);
        for (number, shard) in (0..NOBODY).zip(topology.shards.values()) {
            covered &= shard.primary.is_some() || shard.slots.is_empty();
            for range in &shard.slots {
                owners[range.first.index()..=range.last.index()].fill(number);
                owned += usize::from(range.last.number() - range.first.number()) + 1;
            }
        }
        // The topology gives no slot to two shards.
        covered &= owned == usize::from(SLOT_COUNT);
        let my_slots =
            my_shard.as_ref().and_then(|s| topology.shards.get(s)).map_or_else(Vec::new, |s| s.slots.clone());
        Routing { my_shard, me: Some(me), owners, shards, covered, my_slots, topology }
    }

    #[inline]
    pub fn owner(&self, slot: Slot) -> Owner<'_> {
        let Some(shard) = self.owners.get(slot.index()).and_then(|o| self.shards.get(usize::from(*o))) else {
            return Owner::Nobody;
        };
        if self.my_shard.as_ref() == Some(shard) {
            return Owner::Mine;
        }
        Owner::Other(self.topology.shards.get(shard).and_then(|s| self.primary_of(s)))
    }

    /// Whose slot this is.
    pub fn owning_shard(&self, slot: Slot) -> Option<&Shard> {
        let number = usize::from(*self.owners.get(slot.index())?);
        self.topology.shards.get(self.shards.get(number)?)
    }

    pub fn primary_of(&self, shard: &Shard) -> Option<&Node> {
        self.topology.nodes.get(shard.primary.as_ref()?)
    }

    pub fn my_shard(&self) -> Option<&Shard> {
        self.topology.shards.get(self.my_shard.as_ref()?)
    }

    /// The primary of this node's shard, which may be this node.
    pub fn my_primary(&self) -> Option<&Node> {
        self.primary_of(self.my_shard()?)
    }

    pub fn my_node(&self) -> Option<&Node> {
        self.topology.nodes.get(self.me.as_ref()?)
    }

    pub fn my_slots(&self) -> &[SlotRange] {
        &self.my_slots
    }
}

/// The address of a node in INFO and ROLE.
pub fn host(node: &Node, settings: &Settings) -> String {
    if settings.preferred_endpoint == EndpointType::Hostname && !node.hostname.is_empty() {
        node.hostname.clone()
    } else {
        node.host.clone()
    }
}

/// `host:port` of a node in redirections of a client that is connected like this, by
/// `cluster-preferred-endpoint-type`.
pub fn endpoint(node: &Node, settings: &Settings, transport: Transport) -> String {
    let port = node.reachable_port(transport);
    if settings.preferred_endpoint == EndpointType::Unknown {
        return format!(":{port}");
    }
    let host = if settings.preferred_endpoint == EndpointType::Hostname {
        if node.hostname.is_empty() { "?" } else { &node.hostname }
    } else {
        &node.host
    };
    format!("{host}:{port}")
}
