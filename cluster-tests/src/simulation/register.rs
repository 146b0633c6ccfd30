//! What the sentinels agree on: one register that holds the topology and changes by committed commands.
//!
//! Raft is not simulated. What it gives is modelled as what it is: commands take effect one after another, each at one
//! moment between its proposal and its answer, or never; a command without an answer may have taken effect. How a
//! command changes the topology is the real `keyward_sentinel::rules::topology`. That openraft keeps its promise over our store
//! is shown elsewhere: by openraft's own tests, by its suite for stores, and by the chaos tests on real processes.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId};
use keyward_proto::topology::{Detection, Holding, SentinelAddress, Shape, Shard, Topology};
use keyward_sentinel::rules::formation::Arrivals;
use keyward_sentinel::rules::placement;
use keyward_sentinel::rules::topology::{Outcome, Refusal, Registration, TopologyCommand, apply};

use super::sentinel::raft_id;
use super::story::tell;
use super::{NODES, SENTINELS};

#[derive(Debug)]
pub(super) struct Register {
    pub(super) topology: Arc<Topology>,
    /// As it was before its last change.
    pub(super) earlier: Arc<Topology>,
    /// The Raft index of the last command, whether it changed anything or not.
    index: u64,
    /// Counts how often the sentinels have lost what they had agreed on.
    pub(super) epoch: u64,
}

pub(super) fn registration(
    node: usize,
    id: &NodeId,
    run: u64,
    last: Position,
    log_shard: Option<ShardId>,
    follows: Incarnation,
    detection: Detection,
) -> TopologyCommand {
    TopologyCommand::RegisterNode(Registration {
        start_nonce: run,
        follows,
        host: format!("node-{node}"),
        port: u16::try_from(node).expect("few nodes"),
        bus_port: u16::try_from(node).expect("few nodes"),
        cluster_enabled: true,
        last,
        detection,
        holding: Some(Holding { shard: log_shard, slots: None }),
        databases: Some(1),
        ..Registration::new(id.clone())
    })
}

impl Register {
    /// One shard of all nodes, formed by the real placement.
    pub(super) fn new(nodes: &[(NodeId, Detection)]) -> Register {
        let shape =
            Shape { shards: 1, replicas_per_shard: NODES as u32 - 1, primary_name: "mymaster".into() };
        let mut register = Register {
            topology: Arc::new(Topology { shape, ..Topology::default() }),
            earlier: Arc::default(),
            index: 0,
            epoch: 0,
        };
        for (number, (id, detection)) in nodes.iter().enumerate() {
            // The processes that the world starts with.
            let run = number as u64 + 1;
            register
                .commit(registration(number, id, run, Position::ZERO, None, Incarnation::ZERO, *detection))
                .expect("never refused");
        }
        register.announce_sentinels();
        let random = || ShardId::from_random([7; 20]);
        while let Some(command) =
            placement::next(&register.topology, &BTreeSet::new(), Arrivals::Expected, random)
        {
            register.commit(command).expect("placement proposes what fits");
        }
        register
    }

    fn announce_sentinels(&mut self) {
        for sentinel in 0..SENTINELS {
            let (name, host) = (format!("s{sentinel}"), format!("sentinel-{sentinel}"));
            let address = SentinelAddress { name, host, port: 26379, bus_port: 36379, tls_port: 0 };
            let command = TopologyCommand::AnnounceSentinel { id: raft_id(sentinel), address };
            self.commit(command).expect("never refused");
        }
    }

    /// The sentinels have lost what they had agreed on. Raft would count from the beginning; here the numbers go on, so
    /// that no two incarnations are the same.
    pub(super) fn forget(&mut self) {
        self.epoch += 1;
        self.topology = Arc::new(Topology { shape: self.topology.shape.clone(), ..Topology::default() });
        self.announce_sentinels();
        self.earlier = Arc::clone(&self.topology);
    }

    /// The next command takes effect.
    pub(super) fn commit(&mut self, command: TopologyCommand) -> Result<Outcome, Refusal> {
        self.index += 1;
        let text = format!("{command:?}");
        let mut topology = Topology::clone(&self.topology);
        let result = apply(&mut topology, self.index, command);
        match &result {
            Ok(_) if topology.version < self.index => {
                tell!("NOTHING CHANGED {}: {text}: {result:?}", self.index)
            }
            Ok(_) => {
                self.earlier = std::mem::replace(&mut self.topology, Arc::new(topology));
                if let Some(Shard {
                    term,
                    primary,
                    in_sync,
                    restarted,
                    in_sync_version,
                    previous_primary_gone,
                    ..
                }) = self.topology.shards.values().next()
                {
                    tell!(
                        "COMMITTED {}: {text} => term {term}, primary {primary:?}, in sync {in_sync:?} (version {in_sync_version}), restarted {restarted:?}, previous gone {previous_primary_gone}",
                        self.index
                    );
                }
            }
            Err(refusal) => tell!("REFUSED {}: {text}: {refusal}", self.index),
        }
        result
    }

    /// `None` while the sentinels have forgotten it.
    pub(super) fn shard(&self) -> Option<&Shard> {
        self.topology.shards.values().next()
    }

    pub(super) fn incarnation(&self, node: &NodeId) -> Incarnation {
        self.topology.nodes.get(node).map_or(Incarnation::ZERO, |node| node.incarnation)
    }
}
