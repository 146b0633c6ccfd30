//! What the cores consume and produce: closed enums, and the messages of the stream between primary and replica.
//!
//! The order of the actions of one step is meaningful: a shell carries them out in turn. The gate's view of a step
//! (see [`super::node_core::NodeCore::view`]) is published before its actions.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;

use super::received::{Resume, SlotSet};
use crate::log::TermStart;

/// A replica's stream, at the primary. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// The stream to the primary, at the replica. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UplinkId(pub u64);

/// A request to the sentinels. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The first message of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub shard: ShardId,
    pub term: Term,
    pub last: Position,
    /// Everything up to here is, or is about to be, in the replica's keyspace: it cannot be truncated.
    pub applied: LogIndex,
    pub terms: Vec<TermStart>,
    pub needs_full_sync: bool,
    /// It puts entries together that come in parts.
    pub takes_parts: bool,
    /// What it has of a full sync of this term that broke off.
    pub resume: Option<Resume>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    pub term: Term,
    pub held: LogIndex,
    /// The primary's clock; zero: echoes nothing.
    pub sent_at: Monotonic,
    pub applied: LogIndex,
    pub consistent: bool,
    /// The lease that this gives, from `sent_at` on. Zero: as long as [`Start`] said.
    pub lease: Duration,
}

/// The primary's answer to a [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub term: Term,
    pub sync: SyncKind,
    pub lease: Duration,
    pub grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// The log follows from here; what the replica has beyond is dropped.
    Partial(Position),
    /// A snapshot comes first.
    Full,
    /// The slots come that the replica has not received yet; the log goes on from here.
    Resume(Position),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub term: Term,
    pub previous: Position,
    pub entries_term: Term,
    pub count: u64,
    /// Or a part of them: see `assembly.rs`.
    pub entries: Bytes,
    /// Of the same entries so much follows, in the next messages.
    pub rest_bytes: u64,
    pub commit: LogIndex,
    pub sent_at: Monotonic,
    /// How long the primary has received no acknowledgement of this replica.
    pub unheard: Duration,
    /// The lease that the primary asks for. Zero: as long as [`Start`] said.
    pub lease: Duration,
}

/// A slot, or a part of one, as it was at `index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPart {
    pub slot: Slot,
    pub index: LogIndex,
    /// Only the engine knows what is in it.
    pub payload: Bytes,
    /// The slot is complete with this part.
    pub is_last: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub term: Term,
    pub sent_at: Monotonic,
    /// Where the log goes on: the primary's last position when the sync began.
    pub from: Position,
    pub parts: Vec<SnapshotPart>,
    /// On the last chunk the primary's last index: up to there all slots are of one history.
    pub end: Option<LogIndex>,
}

impl Chunk {
    /// Nothing yet: reading a slot takes its time.
    pub fn empty(term: Term, sent_at: Monotonic, from: Position) -> Chunk {
        Chunk { term, sent_at, from, parts: Vec::new(), end: None }
    }
}

/// Why a stream or a connection attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The kernel at the address answered that nobody listens.
    Refused,
    Broken,
}

/// What the sentinels said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// By whoever decides: this very attempt has not taken and will not take effect.
    Refused(String),
    /// No answer: it may take effect, now or later.
    Unknown,
}

/// What a node asks the sentinels for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `committed`: the last entry that is known to be.
    Remove {
        shard: ShardId,
        term: Term,
        version: u64,
        nodes: BTreeSet<NodeId>,
        committed: Position,
    },
    /// With fewer members nothing is committed.
    Minimum {
        shard: ShardId,
        term: Term,
        version: u64,
        nodes: u32,
    },
    Add {
        shard: ShardId,
        term: Term,
        version: u64,
        node: NodeId,
        incarnation: Incarnation,
    },
    Failover {
        shard: ShardId,
        term: Term,
        primary_dead: bool,
    },
    Handoff {
        shard: ShardId,
        term: Term,
        version: u64,
        target: NodeId,
        last: Position,
    },
}

impl Request {
    /// For the log.
    pub fn describe(&self, topology: &Topology) -> String {
        match self {
            Request::Remove { shard, nodes, .. } => format!(
                "asking the sentinels to let {} go on without {}",
                topology.shard_name(shard),
                topology.node_names(nodes)
            ),
            Request::Minimum { shard, nodes, .. } => format!(
                "telling the sentinels that {} commits nothing with fewer than {nodes} nodes in sync",
                topology.shard_name(shard)
            ),
            Request::Add { shard, node, .. } => format!(
                "asking the sentinels to count {} as in sync in {}",
                topology.node_name(node),
                topology.shard_name(shard)
            ),
            Request::Failover { shard, primary_dead, .. } => format!(
                "asking the sentinels for another primary of {}: {}",
                topology.shard_name(shard),
                if *primary_dead {
                    "nobody listens at its address any more"
                } else {
                    "nothing is heard of it"
                }
            ),
            Request::Handoff { shard, target, .. } => format!(
                "asking the sentinels to make {} the primary of {}",
                topology.node_name(target),
                topology.shard_name(shard)
            ),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Accepted => f.write_str("the sentinels agree"),
            Outcome::Refused(reason) => write!(f, "the sentinels do not agree: {reason}"),
            Outcome::Unknown => f.write_str("no sentinel has answered in time"),
        }
    }
}

/// Why a hand-off did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoffError {
    #[error("this node is not a serving primary")]
    NotPrimary,
    #[error("another hand-off is running")]
    Busy,
    #[error("no in-sync replica can take over")]
    NoTarget,
    #[error("the target did not catch up in time")]
    Timeout,
    #[error("a command runs for too long; a script is ended by SCRIPT KILL")]
    LongCommand,
    #[error("refused by the sentinels: {0}")]
    Refused(String),
    #[error("another node became primary")]
    Superseded,
    #[error("the replication task has ended")]
    Stopped,
}

/// Identifies a wait for the commands that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuiesceId(pub u64);

/// Identifies who waits for a hand-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandoffToken(pub u64);

impl HandoffToken {
    /// Nobody: a primary hands over by itself.
    pub const OWN: HandoffToken = HandoffToken(u64::MAX);
}

#[derive(Debug)]
pub enum Event {
    /// The clock moved; the shell also sends one at each deadline.
    Tick,
    TopologyChanged(Arc<Topology>),
    /// Always after the topology that came with the answer.
    RequestAnswered(RequestId, Outcome),
    /// Every command has ended that an I/O thread was inside of when this was asked for.
    Quiesced(QuiesceId),
    /// The keyspace contains the log up to here; `epoch` counts the keyspace's clearings.
    Applied {
        epoch: u64,
        index: LogIndex,
    },
    /// An entry cannot be applied: the keyspace differs from the shard's from now on.
    ApplyFailed,
    /// This node's disk holds more of the log.
    DurableAdvanced,
    HandoffRequested(HandoffToken, Option<NodeId>),
    HelloReceived(LinkId, Hello),
    AckReceived(LinkId, Ack),
    LinkClosed(LinkId),
    StartReceived(UplinkId, Start),
    AppendReceived(UplinkId, Append),
    ChunkReceived(UplinkId, Chunk),
    /// What the stream brings next has to wait until this node has applied what it has brought before.
    UplinkHeldUp(UplinkId),
    /// The other side is no primary of this term. A later one reaches this node through the topology.
    RejectReceived(UplinkId),
    UplinkClosed(UplinkId, Closed),
}

/// Why a member is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// The sentinels know it no more, or another process with its identity.
    Replaced,
    /// It has restarted, and may have lost what was not on its disk.
    Restarted,
    /// A hand-off to it has failed.
    HandoffFailed,
    /// The log does not reach back to where it stands.
    NeedsFullSync,
    /// It follows no longer: its stream has ended.
    Disconnected,
    /// It has not connected since the term began, for so long.
    NeverConnected(Duration),
    /// Nothing was heard of it for so long.
    Silent(Duration),
    /// It acknowledges, but the last beacon that it has acknowledged was sent so long ago.
    FarBehind(Duration),
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspicion::Replaced => f.write_str("the sentinels do not know this process of it any more"),
            Suspicion::Restarted => f.write_str("it has restarted"),
            Suspicion::HandoffFailed => f.write_str("a hand-off to it has failed"),
            Suspicion::NeedsFullSync => f.write_str("it needs a full sync"),
            Suspicion::Disconnected => f.write_str("its stream has ended"),
            Suspicion::NeverConnected(time) => {
                write!(f, "it has not connected within {} ms", time.as_millis())
            }
            Suspicion::Silent(time) => write!(f, "nothing was heard of it for {} ms", time.as_millis()),
            Suspicion::FarBehind(time) => write!(f, "what it acknowledges is {} ms old", time.as_millis()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wait for the commands that I/O threads are inside of; answered by [`Event::Quiesced`].
    Quiesce(QuiesceId),
    /// Apply entries of the log in order; answered by [`Event::Applied`]. Up to `after` the keyspace contains them, or
    /// was told to.
    ApplyUpTo {
        after: LogIndex,
        index: LogIndex,
    },
    /// Drop everything that is not yet applied, then the keyspace.
    ClearKeyspace {
        epoch: u64,
    },
    /// Drop all slots but these: a full sync goes on.
    KeepSlots(SlotSet),
    ApplySnapshot(Vec<SnapshotPart>),
    /// The snapshot is complete: entries follow from `from`, filtered by slot.
    FinishSnapshot {
        from: LogIndex,
        indexes: Arc<[LogIndex]>,
    },
    /// No entry is to be filtered any more.
    ForgetSlotIndexes,
    /// Open a stream to the primary and say hello.
    Connect {
        uplink: UplinkId,
        host: String,
        port: u16,
        hello: Box<Hello>,
    },
    SendAck(UplinkId, Ack),
    Disconnect(UplinkId),
    /// Answer the hello; then send the log, after a snapshot if it is a full sync.
    StartLink(LinkId, Start, Option<Resume>),
    Reject {
        link: LinkId,
        term: Term,
        reason: &'static str,
    },
    CloseLink(LinkId),
    Ask(RequestId, Request),
    HandoffEnded(HandoffToken, Result<(), HandoffError>),
    /// A member of the in-sync set is to be removed.
    Suspects(NodeId, Suspicion),
    /// This node, or a member of the in-sync set, is alive and has held clients up for so long, lately: it gives way.
    HoldsUp(NodeId, Duration),
    /// The sentinels know a later process with this node's identity: this one has to end.
    Superseded,
    /// The sentinels do not know this node's shard: they have lost what they had agreed on. It goes on as if there were
    /// none.
    Forgotten,
    /// After that they go on with the shard in a later term, of which this process is no part: it serves no more.
    LeftBehind,
}
