//! What the flight recorder of a node remembers: what its core was told, what followed from it, and how it stood after.
//! Format and bounds are those of [`keyward_proto::flight`].
//!
//! The recorder stands beside the core: it reads events, actions and the gate's view, and nothing depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyward_proto::flight::{Absorbed, FlightRecorder, Header, Occasion, Recorded, Recording, words};
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use serde::{Deserialize, Serialize};

use crate::core::messages::{Action, Event, LinkId, UplinkId};
use crate::core::node_core::NodeCore;
use crate::core::{Config, ReplicationAck};
use crate::gate::{GateState, GateView};

/// One thing that happened at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The process began with what its disk remembers.
    Started { node: NodeId, incarnation: Incarnation, last: Position, applied: LogIndex, config: Times },
    /// The sentinels have changed something about its shard.
    Topology(ShardView),
    /// What it is to clients, and in which term.
    State { state: GateState, term: Term, writable: Writable },
    /// How far its log goes and how much of it is committed. What a primary may serve ends with its lease.
    Progress { last: Position, commit: LogIndex, lease_until: Monotonic, steps: u64 },
    /// Entries or beacons of its primary.
    Appends { uplink: u64, messages: u64, end: LogIndex, commit: LogIndex },
    /// Parts of a full sync.
    Chunks { uplink: u64, messages: u64, parts: u64 },
    /// What it has acknowledged.
    AcksSent { uplink: u64, messages: u64, held: LogIndex },
    /// What a replica has acknowledged.
    Acks { link: u64, messages: u64, held: LogIndex },
    /// Any other event, in words.
    Heard(String),
    /// Any other action, in words.
    Did(String),
}

/// Whether a primary takes writes: enough members are in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writable {
    Yes,
    No,
}

/// What leases are made of, and when an entry is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub lease: Duration,
    pub grace: Duration,
    pub replication_ack: ReplicationAck,
}

/// The part of the topology that concerns one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardView {
    pub version: u64,
    pub history: u64,
    /// `None`: a spare.
    pub shard: Option<ShardPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPart {
    pub id: ShardId,
    pub name: String,
    pub term: Term,
    pub primary: Option<NodeId>,
    pub in_sync: BTreeSet<NodeId>,
    pub restarted: BTreeSet<NodeId>,
    pub in_sync_version: u64,
    /// Its nodes, as people know them.
    pub nodes: BTreeMap<NodeId, String>,
}

impl ShardView {
    fn of(topology: &Topology, me: &NodeId) -> ShardView {
        let shard = topology.shard_of(me).map(|shard| ShardPart {
            id: shard.id.clone(),
            name: topology.shard_name(&shard.id),
            term: shard.term,
            primary: shard.primary.clone(),
            in_sync: shard.in_sync.clone(),
            restarted: shard.restarted.clone(),
            in_sync_version: shard.in_sync_version,
            nodes: topology.members(&shard.id).map(|node| (node.id.clone(), node.address())).collect(),
        });
        ShardView { version: topology.version, history: topology.history, shard }
    }

    /// The term and its primary.
    fn leads(&self) -> Option<(Term, Option<&NodeId>)> {
        self.shard
            .as_ref()
            .filter(|shard| shard.term > Term::ZERO)
            .map(|shard| (shard.term, shard.primary.as_ref()))
    }
}

impl keyward_proto::flight::Record for Record {
    fn bytes(&self) -> usize {
        match self {
            Record::Topology(ShardView { shard: Some(shard), .. }) => {
                // An identifier and a name each.
                200 + 100 * (shard.nodes.len() + shard.in_sync.len() + shard.restarted.len())
            }
            Record::Heard(words) | Record::Did(words) => words.len(),
            _ => 0,
        }
    }

    fn absorb(&mut self, next: &Record) -> Absorbed {
        if !self.is_counted() || !next.is_counted() {
            return Absorbed::Barrier;
        }
        match (self, next) {
            (
                Record::Appends { uplink, messages, end, commit },
                Record::Appends { uplink: of, end: to, commit: up_to, .. },
            ) if uplink == of => {
                (*messages, *end, *commit) = (*messages + 1, *to, *up_to);
                Absorbed::Yes
            }
            (Record::Chunks { uplink, messages, parts }, Record::Chunks { uplink: of, parts: more, .. })
                if uplink == of =>
            {
                (*messages, *parts) = (*messages + 1, *parts + more);
                Absorbed::Yes
            }
            (Record::AcksSent { uplink, messages, held }, Record::AcksSent { uplink: of, held: to, .. })
                if uplink == of =>
            {
                (*messages, *held) = (*messages + 1, *to);
                Absorbed::Yes
            }
            (Record::Acks { link, messages, held }, Record::Acks { link: of, held: to, .. })
                if link == of =>
            {
                (*messages, *held) = (*messages + 1, *to);
                Absorbed::Yes
            }
            // The log of another term is another history.
            (
                Record::Progress { last, commit, lease_until, steps },
                Record::Progress { last: to, commit: up_to, lease_until: until, .. },
            ) if last.term == to.term => {
                (*last, *commit, *lease_until, *steps) = (*to, *up_to, *until, *steps + 1);
                Absorbed::Yes
            }
            _ => Absorbed::No,
        }
    }
}

impl Record {
    /// It happens all the time.
    fn is_counted(&self) -> bool {
        matches!(
            self,
            Record::Appends { .. }
                | Record::Chunks { .. }
                | Record::AcksSent { .. }
                | Record::Acks { .. }
                | Record::Progress { .. }
        )
    }
}

/// The flight recorder of a node.
#[derive(Debug)]
pub struct Recorder {
    me: NodeId,
    flight: FlightRecorder<Record>,
    /// What the last records of the kind have said.
    view: Option<ShardView>,
    state: Option<(GateState, Term, Writable)>,
    progress: (Position, LogIndex, Monotonic),
    /// Kept apart from the records, so that they are there however much has happened since.
    started: Record,
}

/// How the core stands after a step.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    pub core: &'a NodeCore,
    pub view: &'a GateView,
    pub last: Position,
}

impl Recorder {
    /// For a core that begins with this.
    pub fn new(
        now: Monotonic,
        (me, incarnation): (NodeId, Incarnation),
        config: &Config,
        (last, applied): (Position, LogIndex),
    ) -> Recorder {
        let Config { lease, grace, replication_ack, .. } = *config;
        let config = Times { lease, grace, replication_ack };
        let started = Record::Started { node: me.clone(), incarnation, last, applied, config };
        let mut flight = FlightRecorder::default();
        flight.add(now, started.clone());
        Recorder {
            me,
            flight,
            view: None,
            state: None,
            progress: (last, LogIndex::ZERO, Monotonic::ZERO),
            started,
        }
    }

    pub fn node(&self) -> &NodeId {
        &self.me
    }

    /// Before the core takes an event.
    pub fn heard(&mut self, now: Monotonic, event: &Event) {
        let record = match event {
            // What follows from them is in what comes after.
            Event::Tick | Event::TopologyChanged(_) | Event::Applied { .. } | Event::DurableAdvanced => {
                return;
            }
            Event::AppendReceived(uplink, append) => Record::Appends {
                uplink: uplink.0,
                messages: 1,
                end: LogIndex::new(append.previous.index.get().saturating_add(append.count)),
                commit: append.commit,
            },
            Event::ChunkReceived(uplink, chunk) => {
                Record::Chunks { uplink: uplink.0, messages: 1, parts: chunk.parts.len() as u64 }
            }
            Event::AckReceived(LinkId(link), ack) => {
                Record::Acks { link: *link, messages: 1, held: ack.held }
            }
            event => Record::Heard(words(event)),
        };
        self.flight.add(now, record);
    }

    /// After the core has taken it; before its actions are carried out.
    pub fn did(&mut self, now: Monotonic, standing: Standing<'_>, actions: &[Action]) -> Occasion {
        let Standing { core, view, last } = standing;
        let mut occasion = Occasion::Nothing;
        let topology = core.topology();
        if self
            .view
            .as_ref()
            .is_none_or(|view| view.version != topology.version || view.history != topology.history)
        {
            let view = ShardView::of(topology, &self.me);
            let is_other = self.view.as_ref().is_none_or(|known| known.shard != view.shard);
            if is_other {
                let led = self.view.as_ref().and_then(ShardView::leads);
                if led.is_some() && led != view.leads() {
                    occasion = Occasion::Failover;
                }
                self.flight.add(now, Record::Topology(view.clone()));
            }
            self.view = Some(view);
        }
        let writable = if view.writable { Writable::Yes } else { Writable::No };
        let state = (view.state, view.term, writable);
        if self.state != Some(state) {
            let (state, term, writable) = state;
            self.flight.add(now, Record::State { state, term, writable });
        }
        let progress = (last, view.commit, view.lease_until);
        if self.progress != progress || self.state != Some(state) {
            let (last, commit, lease_until) = progress;
            self.flight.add(now, Record::Progress { last, commit, lease_until, steps: 1 });
        }
        (self.state, self.progress) = (Some(state), progress);
        for action in actions {
            self.act(now, action);
        }
        occasion
    }

    fn act(&mut self, now: Monotonic, action: &Action) {
        let record = match action {
            Action::ApplyUpTo { .. } | Action::ApplySnapshot(_) => return,
            Action::FinishSnapshot { from, .. } => Record::Did(format!("FinishSnapshot {{ from: {from} }}")),
            Action::SendAck(UplinkId(uplink), ack) => {
                Record::AcksSent { uplink: *uplink, messages: 1, held: ack.held }
            }
            action => Record::Did(words(action)),
        };
        self.flight.add(now, record);
    }

    /// What is remembered now.
    pub fn recording(&self, header: Header) -> Recording<Record> {
        let mut recording = self.flight.recording(header);
        if 0 < recording.header.dropped
            && let Some(first) = recording.records.first().cloned()
        {
            // Whoever reads it wants to know who this is and what it takes for its shard.
            let known = self.view.clone().map(Record::Topology).filter(|_| !has_topology(&recording));
            for record in known.into_iter().chain([self.started.clone()]) {
                recording.records.insert(0, Recorded { record, ..first.clone() });
            }
        }
        recording
    }
}

fn has_topology(recording: &Recording<Record>) -> bool {
    recording.records.iter().any(|recorded| matches!(recorded.record, Record::Topology(_)))
}
