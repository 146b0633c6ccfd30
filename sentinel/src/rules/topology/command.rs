//! The closed list of ways in which the topology changes: what Raft entries carry.
//!
//! New fields need a serde default: entries written by an older program must still be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId, Term};
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{
    DEFAULT_PRIORITY, Detection, Holding, SentinelAddress, Shape, SlotRange, Topology,
};
use serde::{Deserialize, Serialize};

use crate::rules::formation::Obstacle;
use crate::rules::registration::Disagreement;

/// What one Raft entry carries: commands of requests that were ready at the same time, carried out in their order,
/// each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub commands: Vec<TopologyCommand>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopologyCommand {
    /// A node process started, or repeats itself.
    RegisterNode(Registration),
    /// A process says that it will register with data, as soon as it has loaded it.
    AnnounceLoading {
        node: NodeId,
        host: String,
        port: u16,
    },
    /// The first shards, all at once.
    FormShards {
        shards: Vec<NewShard>,
        #[serde(default)]
        consent: Consent,
        /// A random number: see `Topology::history`.
        #[serde(default)]
        history: u64,
    },
    /// A spare node becomes a member of a shard (not yet in sync).
    AssignNode {
        node: NodeId,
        shard: ShardId,
    },
    /// A primary changes its in-sync set.
    ChangeInSync {
        shard: ShardId,
        primary: NodeId,
        term: Term,
        in_sync_version: u64,
        change: InSyncChange,
        /// The last entry that the primary knows to be committed.
        #[serde(default)]
        committed: Position,
    },
    /// A failover or a hand-off.
    ReplacePrimary(PrimaryChange),
    ForgetNode {
        node: NodeId,
    },
    /// A sentinel tells where clients reach it; it takes the place of the one that had its name.
    AnnounceSentinel {
        id: u64,
        address: SentinelAddress,
    },
    /// The sentinels that are left after one was replaced: entries of older programs.
    SetSentinels {
        sentinels: BTreeMap<u64, SentinelAddress>,
    },
    SetShape {
        shape: Shape,
    },
    /// An operator's `min-in-sync` for all shards; `None`: each primary goes by its own setting again.
    SetMinInSync {
        nodes: Option<u32>,
    },
}

/// What a node says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub id: NodeId,
    /// Tells two starts apart; a repeated registration of one start keeps its incarnation.
    pub start_nonce: u64,
    /// The incarnation that this start follows; compared with the registered one, so that a request of an earlier
    /// start that arrives late changes nothing.
    #[serde(default)]
    pub follows: Incarnation,
    pub host: String,
    pub port: u16,
    pub bus_port: u16,
    #[serde(default)]
    pub tls_port: u16,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub zone: String,
    pub replica_priority: u32,
    pub cluster_enabled: bool,
    #[serde(default)]
    pub program_version: String,
    /// What it still holds.
    pub last: Position,
    #[serde(default)]
    pub detection: Detection,
    #[serde(default)]
    pub holding: Option<Holding>,
    #[serde(default)]
    pub databases: Option<u16>,
    /// Nodes that do not answer the sentinel that passes this on: nobody has to agree with them.
    #[serde(default)]
    pub absent: BTreeSet<NodeId>,
}

impl Registration {
    /// Of a node that says nothing else of itself.
    pub fn new(id: NodeId) -> Registration {
        Registration {
            id,
            start_nonce: 0,
            follows: Incarnation::ZERO,
            host: String::new(),
            port: 0,
            bus_port: 0,
            tls_port: 0,
            hostname: String::new(),
            zone: String::new(),
            replica_priority: DEFAULT_PRIORITY,
            cluster_enabled: false,
            program_version: String::new(),
            last: Position::ZERO,
            detection: Detection::default(),
            holding: None,
            databases: None,
            absent: BTreeSet::new(),
        }
    }

    /// For the log.
    pub(crate) fn describe(&self) -> String {
        format!("the node {} has joined, it holds {}", host_port(&self.host, self.port), self.last)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewShard {
    pub id: ShardId,
    pub slots: Vec<SlotRange>,
    pub primary: NodeId,
    /// Later than any of what its primary holds.
    #[serde(default = "first_term")]
    pub term: Term,
}

fn first_term() -> Term {
    Term::new(1)
}

/// Whether somebody has looked at what the nodes hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consent {
    /// Nobody: what nodes hold has to leave no choice.
    #[default]
    None,
    /// An operator wants what is furthest.
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InSyncChange {
    /// Members, or nodes that are eligible: what these hold is about to be replaced.
    Remove(BTreeSet<NodeId>),
    /// With fewer members the primary commits nothing, from now on.
    Minimum(u32),
    /// A node that has caught up in this incarnation.
    Add { node: NodeId, incarnation: Incarnation },
}

impl InSyncChange {
    /// For the log.
    pub fn describe(&self, topology: &Topology) -> String {
        match self {
            InSyncChange::Remove(nodes) => format!("without {}", topology.node_names(nodes)),
            InSyncChange::Add { node, .. } => format!("with {}", topology.node_name(node)),
            InSyncChange::Minimum(nodes) => format!("with at least {nodes} in sync at each commit"),
        }
    }
}

/// One shard's next primary; compared with the shard's term when it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryChange {
    pub shard: ShardId,
    pub expected_term: Term,
    pub node: NodeId,
    /// A subset of the present set that contains `node`; only that if it is not in there.
    pub in_sync: BTreeSet<NodeId>,
    /// No earlier primary can serve any more: leases need not be waited for.
    pub previous_primary_gone: bool,
    /// The old primary cannot serve any more; those before it perhaps.
    #[serde(default)]
    pub predecessor_gone: bool,
    /// Where the old primary stopped, at a hand-off.
    #[serde(default)]
    pub handoff_position: Position,
    /// At a hand-off, compared with the shard's: a primary that gives up waiting for the outcome has its set
    /// changed first, and then the hand-off can never take effect.
    #[serde(default)]
    pub expected_in_sync_version: Option<u64>,
    /// The operator accepts that writes may be lost: `node` need not be in sync.
    #[serde(default)]
    pub takeover: bool,
    /// After all who held everything have restarted: what nodes outside the in-sync set have answered.
    #[serde(default)]
    pub witnesses: BTreeMap<NodeId, Witness>,
}

/// What a process holds, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    pub incarnation: Incarnation,
    /// Zero if its keyspace is not whole.
    pub held: Position,
}

/// What an applied command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Changed,
    Unchanged,
    Registered { incarnation: Incarnation },
}

/// Why a command was not carried out; the topology is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    UnknownNode(NodeId),
    UnknownShard(ShardId),
    ShardsExist,
    AlreadyAssigned(NodeId),
    NotAMember(NodeId),
    NotThePrimary(NodeId),
    StaleTerm {
        current: Term,
    },
    StaleInSync {
        current: u64,
    },
    EmptyChange,
    PrimaryCannotLeave,
    NotInSync(NodeId),
    AlreadyInSync(NodeId),
    Restarted(NodeId),
    StaleIncarnation {
        current: Incarnation,
    },
    NotASubset,
    AlreadyPrimary(NodeId),
    NotTheFurthest(NodeId),
    PrimaryMayServe(NodeId),
    StillPrimary(NodeId),
    LastCandidate(NodeId),
    Formation(Obstacle),
    HoldsOther(NodeId),
    Disagrees(Disagreement),
    /// Another process with this node's identity answers at its address.
    StillRuns(NodeId),
    Invalid(String),
}

impl TopologyCommand {
    /// For the log, where nobody wants to read IDs.
    pub fn describe(&self, topology: &Topology) -> String {
        let slots = |ranges: &[SlotRange]| {
            let ranges: Vec<String> = ranges.iter().map(|r| format!("{}-{}", r.first, r.last)).collect();
            ranges.join(" ")
        };
        match self {
            TopologyCommand::FormShards { shards, .. } => {
                let shard = |s: &NewShard| {
                    format!("{} leads slots {}", topology.node_name(&s.primary), slots(&s.slots))
                };
                format!("the shards form: {}", shards.iter().map(shard).collect::<Vec<_>>().join(", "))
            }
            TopologyCommand::AssignNode { node, shard } => {
                format!("{} becomes a member of {}", topology.node_name(node), topology.shard_name(shard))
            }
            TopologyCommand::AnnounceLoading { host, port, .. } => {
                format!("the node {} loads data, and joins then", host_port(host, *port))
            }
            TopologyCommand::ForgetNode { node } => {
                format!(
                    "{} has not answered for long and is replaced: it is forgotten",
                    topology.node_name(node)
                )
            }
            other => format!("{other:?}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownNode(node) => write!(f, "node {node} is not registered"),
            Refusal::UnknownShard(shard) => write!(f, "there is no shard {shard}"),
            Refusal::ShardsExist => f.write_str("the shards are formed already"),
            Refusal::AlreadyAssigned(node) => write!(f, "node {node} belongs to a shard already"),
            Refusal::NotAMember(node) => write!(f, "node {node} is not a member of the shard"),
            Refusal::NotThePrimary(node) => write!(f, "node {node} is not the primary of the shard"),
            Refusal::StaleTerm { current } => write!(f, "the shard is at term {current}"),
            Refusal::StaleInSync { current } => write!(f, "the in-sync set is at version {current}"),
            Refusal::EmptyChange => f.write_str("nothing to change"),
            Refusal::PrimaryCannotLeave => f.write_str("a primary cannot leave its own in-sync set"),
            Refusal::NotInSync(node) => write!(f, "node {node} is not in the in-sync set"),
            Refusal::AlreadyInSync(node) => write!(f, "node {node} is in the in-sync set already"),
            Refusal::Restarted(node) => write!(f, "node {node} has restarted and has not caught up"),
            Refusal::StaleIncarnation { current } => write!(f, "the node is at incarnation {current}"),
            Refusal::NotASubset => {
                f.write_str("the new in-sync set is not a subset that contains the primary")
            }
            Refusal::AlreadyPrimary(node) => write!(f, "node {node} is the primary already"),
            Refusal::NotTheFurthest(node) => {
                write!(f, "another node of the shard holds more than node {node}, or has held more")
            }
            Refusal::PrimaryMayServe(node) => {
                write!(f, "node {node} is not in sync, and an earlier primary may still serve")
            }
            Refusal::StillPrimary(node) => write!(f, "node {node} is a primary: fail over first"),
            Refusal::LastCandidate(node) => {
                write!(f, "node {node} may hold the only copy of a shard that has no primary")
            }
            Refusal::Formation(obstacle) => write!(f, "{obstacle}"),
            Refusal::Disagrees(disagreement) => write!(f, "{disagreement}"),
            Refusal::StillRuns(node) => write!(
                f,
                "the node {node} still runs at its address: if this data folder is a copy of that node's, remove its file \
                 node-id, and this will be another node"
            ),
            Refusal::HoldsOther(node) => write!(f, "node {node} holds data that is not of this shard"),
            Refusal::Invalid(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Refusal {}
