//! A node: the real cores, and around them what shells do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use keyward_proto::entry::frames;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_replication::core::full_sync::{SlotReader, SnapshotSender};
use keyward_replication::core::full_sync::{SlotSnapshot, SnapshotEnded};
use keyward_replication::core::messages::{LinkId, QuiesceId, Request, RequestId, SnapshotPart, UplinkId};
use keyward_replication::core::node_core::NodeCore;
use keyward_replication::core::stream::LogStream;
use keyward_replication::disk_log::platter::Platter;
use keyward_replication::disk_log::{DiskLog, Fsync, RewriteId};
use keyward_replication::gate::{Gate, GateState};
use keyward_replication::log::WriteLog;
use keyward_replication::reply::{Fate, ReplyCondition};

/// What a node serves: the writes in their order, all in slot 0.
pub(crate) type Keys = Vec<String>;

/// A host with its disk.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) process: Option<Process>,
    /// A connection to it is neither accepted nor refused.
    pub(crate) is_gone: bool,
    /// `None`: the log is in memory only.
    pub(crate) fsync: Option<Fsync>,
    pub(crate) platter: Platter<Keys>,
    /// The disk does nothing by itself.
    pub(crate) is_disk_stopped: bool,
    pub(crate) hears_sentinels: bool,
    /// The process stands still.
    pub(crate) is_paused: bool,
    /// When the last command ends that runs.
    pub(crate) command_until: Monotonic,
    /// Answers for those who wait for commands, and when.
    pub(crate) quiet: Vec<(Monotonic, QuiesceId)>,
}

pub(crate) struct Process {
    pub(crate) run: u64,
    pub(crate) core: NodeCore,
    pub(crate) log: WriteLog,
    pub(crate) gate: Gate,
    pub(crate) keys: Keys,
    pub(crate) applied: LogIndex,
    /// The last write to the one slot that there is.
    pub(crate) written: LogIndex,
    pub(crate) epoch: u64,
    pub(crate) indexes: Option<Arc<[LogIndex]>>,
    pub(crate) held: Vec<Held>,
    pub(crate) senders: BTreeMap<LinkId, Sender>,
    pub(crate) heard: BTreeMap<LinkId, Monotonic>,
    /// The streams by which replicas follow, and the one by which this node does.
    pub(crate) links: BTreeMap<LinkId, u64>,
    pub(crate) uplinks: BTreeMap<UplinkId, u64>,
    pub(crate) requests: Vec<(RequestId, Request)>,
    pub(crate) disk: Option<DiskLog>,
    /// A snapshot that shall be the base.
    pub(crate) rewrite: Option<(RewriteId, Keys)>,
    pub(crate) next_rewrite: u64,
}

pub(crate) enum Sender {
    Snapshot(Box<SnapshotSender>),
    Log(LogStream),
}

/// A reply that waits.
pub(crate) struct Held {
    pub(crate) what: String,
    pub(crate) condition: ReplyCondition,
}

impl Host {
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }
}

impl Process {
    /// Why nothing is executed now.
    pub(crate) fn objection(&self, now: Monotonic) -> Option<String> {
        match self.gate.state() {
            GateState::Primary if !self.gate.lease_valid(now) => Some("no lease".into()),
            GateState::Primary => None,
            state => Some(format!("{state:?}").to_lowercase()),
        }
    }

    /// A command executes: its reply waits, each on a connection of its own.
    pub(crate) fn hold(&mut self, what: String, now: Monotonic, depend: impl FnOnce(&mut ReplyCondition)) {
        let mut condition = ReplyCondition::new(self.gate.generation());
        condition.require_lease();
        depend(&mut condition);
        self.held.push(Held { what, condition: condition.observed(&self.gate, || now) });
    }

    /// Replies that may leave, and those whose connection is closed.
    pub(crate) fn release_replies(&mut self, now: Monotonic, out: &mut Vec<String>, name: &str) {
        let gate = &self.gate;
        self.held.retain_mut(|held| {
            held.condition = held.condition.observed(gate, || now);
            let what = &held.what;
            match held.condition.fate(gate, || now) {
                Fate::Waits => return true,
                Fate::Leaves => out.push(format!("{name}: the reply of {what} leaves")),
                Fate::Unknown => {
                    out.push(format!("{name}: the outcome of {what} is unknown, its connection is closed"));
                }
            }
            false
        });
    }

    /// As `Shared::commit_at_once`.
    pub(crate) fn commit_at_once(&mut self) {
        if self.gate.auto_commits() {
            self.gate.advance_commit(self.log.last().index.min(self.log.durable()));
        }
    }

    pub(crate) fn apply(&mut self, target: LogIndex) {
        while self.applied < target {
            let slice = self.log.read_from(self.applied.next(), 1 << 16).unwrap();
            for payload in frames(&slice.bytes) {
                let index = self.applied.next();
                if target < index {
                    break;
                }
                let is_contained = self.indexes.as_ref().is_some_and(|indexes| index <= indexes[0]);
                if !is_contained && !payload.is_empty() {
                    self.keys.push(String::from_utf8_lossy(payload).into_owned());
                    self.written = index;
                }
                self.applied = index;
            }
        }
    }

    pub(crate) fn apply_parts(&mut self, parts: &[SnapshotPart]) {
        for part in parts.iter().filter(|part| part.slot.number() == 0) {
            let text = String::from_utf8_lossy(&part.payload).into_owned();
            self.keys = text.split_whitespace().map(str::to_owned).collect();
            self.written = part.index;
        }
    }
}

/// The keyspace as a full sync reads it: everything is in slot 0.
pub(crate) struct Slots<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) last: LogIndex,
}

impl SlotReader for Slots<'_> {
    fn read(&mut self, slot: Slot) -> Option<SlotSnapshot> {
        let payload = if slot.number() == 0 { Bytes::from(self.keys.join(" ")) } else { Bytes::new() };
        Some(SlotSnapshot { index: self.last, payload })
    }

    fn read_large(&mut self, _: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
        Ok(Vec::new())
    }

    fn last_index(&self) -> LogIndex {
        self.last
    }
}
