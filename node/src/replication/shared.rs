//! What the I/O threads, the engine and the replication task share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Term};
use keyward_proto::slot::Slot;
use keyward_replication::core::full_sync::{SlotSnapshot, SnapshotEnded};
use keyward_replication::core::messages::SnapshotPart;
use keyward_replication::core::received::SlotSet;
use keyward_replication::gate::Gate;
use keyward_replication::log::{Slice, WriteLog};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

/// Slots that are too large to be read at once, all of one moment.
pub trait LargeSlots: Send {
    /// The next parts; empty after the last. Blocks.
    ///
    /// # Errors
    /// There will be no more, though parts are missing.
    fn next_parts(&mut self) -> Result<Vec<SnapshotPart>, SnapshotEnded>;
}

/// What a node tells the sentinels of itself besides replication: see [`rpc::NodeStatus`](keyward_proto::rpc::NodeStatus).
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub password_mark: u32,
    pub memory_bytes: u64,
    pub memory_max_bytes: u64,
    pub commands_per_second: Option<u64>,
}

/// The keyspace, as replication sees it.
///
/// All but `unknown_effect`, `read_slot`, `read_large_slots`, `quiesce`, `memory_bytes`, `key_count` and `figures` are
/// called by one thread, in order.
pub trait Engine: Send + Sync + 'static {
    /// A committed entry. Effects on a slot are skipped if `index` is not beyond that slot's index in the table of
    /// [`Engine::set_slot_indexes`]; an effect on the whole keyspace applies to the slots where it is.
    ///
    /// # Errors
    /// What cannot be applied: the keyspace is of no use any more.
    fn apply(&self, index: LogIndex, payload: &[u8]) -> Result<(), String>;
    /// Looks for an effect in framed entries that this program could not apply; says which. Called by any thread.
    fn unknown_effect(&self, entries: &[u8]) -> Option<String>;
    /// Empties the keyspace, before a full sync.
    fn clear(&self);
    /// Adds a part of a slot's snapshot.
    ///
    /// # Errors
    /// As [`Engine::apply`]: a record that this program cannot load.
    fn apply_snapshot(&self, slot: Slot, payload: &[u8]) -> Result<(), String>;
    /// Empties all other slots: a full sync that broke off goes on.
    fn keep_slots(&self, slots: &SlotSet);
    /// The index at which each of the 16384 slots was read in a full sync; `None` when entries are beyond all of them.
    fn set_slot_indexes(&self, indexes: Option<Arc<[LogIndex]>>);
    /// Reads a slot under its lock; `None` if it is too large for that.
    fn read_slot(&self, slot: Slot, shared: &Shared) -> Option<SlotSnapshot>;
    /// Begins to read slots that are too large, all of one moment, which is not before this call.
    fn read_large_slots(&self, slots: &[Slot]) -> Box<dyn LargeSlots>;
    fn key_count(&self) -> u64;
    /// Bytes that the keyspace takes, about.
    fn memory_bytes(&self) -> usize;
    /// See [`Figures`].
    fn figures(&self) -> Figures {
        Figures::default()
    }
    /// Entries of the log from `next` on that are not in memory any more; `None`: they are nowhere.
    fn read_history(&self, next: LogIndex) -> Option<Box<dyn LogHistory>> {
        let _nowhere = next;
        None
    }
    /// Returns when no I/O thread is inside a command that saw the gate as it was before the call. Blocks.
    fn quiesce(&self);
}

/// Entries of the log that are not in memory any more, as far as the files went when they were opened.
pub trait LogHistory: Send {
    /// The next ones; `None` if there may be more but none were found yet. Blocks.
    ///
    /// # Errors
    /// Why there are no more.
    fn read(&mut self) -> Result<Option<Slice>, String>;
}

/// What writes the log to disk.
pub trait DiskWriter: Send + Sync {
    /// Entries were appended: they are written at once, or soon. Blocks for no longer than a small write to a file.
    fn note_appended(&self);
    /// There is something to do.
    fn wake(&self);
}

/// Shared by the I/O threads, which append, and the replication task, which decides.
pub struct Shared {
    /// A short critical section: reserve and copy. Taken after a slot's lock, never before.
    pub log: Mutex<WriteLog>,
    pub gate: Gate,
    /// Up to where entries that this node did not execute itself are applied to the keyspace.
    applied: AtomicU64,
    /// The term in which this node sends its log to replicas, 0 if it is not a primary. Senders read it under the
    /// log's lock, so that none sends entries of a later history in the name of an ended term.
    sending_term: AtomicU64,
    /// The lease that messages to replicas ask for, in nanoseconds.
    lease: AtomicU64,
    /// Who waits for new entries: a sender per replica. A lock because it changes only with them.
    appended: RwLock<Vec<Arc<Notify>>>,
    /// What writes the log to disk.
    disk_writer: RwLock<Option<Arc<dyn DiskWriter>>>,
    /// Replicas that were sent a snapshot, and those that went on where they were: INFO.
    pub full_syncs: AtomicU64,
    pub partial_syncs: AtomicU64,
    /// The entry that could not be applied, since when this node follows nobody.
    pub(crate) apply_failure: OnceLock<String>,
    /// For the replication task: more of the log is durable on this node's disk, or less.
    pub(crate) durable_changed: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("log", &self.log).field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(log: WriteLog, gate: Gate) -> Arc<Shared> {
        Arc::new(Shared {
            log: Mutex::new(log),
            gate,
            applied: AtomicU64::new(0),
            full_syncs: AtomicU64::new(0),
            partial_syncs: AtomicU64::new(0),
            apply_failure: OnceLock::new(),
            durable_changed: Notify::new(),
            disk_writer: RwLock::new(None),
            sending_term: AtomicU64::new(0),
            lease: AtomicU64::new(0),
            appended: RwLock::new(Vec::new()),
        })
    }

    /// After a batch of appends: wakes those who read the log.
    #[inline]
    pub fn notify_appended(&self) {
        self.commit_alone();
        for reader in self.appended.read().iter() {
            reader.notify_one();
        }
        if let Some(writer) = &*self.disk_writer.read() {
            writer.note_appended();
        }
    }

    pub fn wake_disk_writer(&self) {
        if let Some(writer) = &*self.disk_writer.read() {
            writer.wake();
        }
    }

    /// What writes the log to disk, told by [`Shared::notify_appended`].
    pub fn set_disk_writer(&self, writer: Option<Arc<dyn DiskWriter>>) {
        *self.disk_writer.write() = writer;
    }

    /// More of the log is durable, or the writer has begun anew: whoever waits for that goes on.
    pub fn durable_advanced(&self) {
        if self.gate.is_standalone() {
            return;
        }
        let before = self.gate.commit_index();
        if self.commit_alone() && before < self.gate.commit_index() {
            self.gate.notify_committed();
        }
        self.durable_changed.notify_one();
    }

    /// If no other node has to hold the entries, those that this one holds are committed. False: they have to, or there
    /// are no other nodes at all. The flag is read again under the lock under which it changes: once another node has to
    /// hold the entries, nothing is committed here any more.
    #[inline]
    pub fn commit_alone(&self) -> bool {
        if !self.gate.auto_commits() {
            return false;
        }
        let log = self.log.lock();
        let alone = self.gate.auto_commits();
        if alone {
            self.gate.advance_commit(log.last().index.min(log.durable()));
        }
        alone
    }

    /// A reader of the log, woken by [`Shared::notify_appended`].
    pub fn add_reader(&self, reader: Arc<Notify>) {
        self.appended.write().push(reader);
    }

    pub fn remove_reader(&self, reader: &Arc<Notify>) {
        self.appended.write().retain(|r| !Arc::ptr_eq(r, reader));
    }

    /// The keyspace now contains the log up to here, though no command was executed: entries of a primary or of a file
    /// were applied, or a full sync was. Called while the world cannot be stopped: see [`crate::execute::Executor::enter`].
    pub fn set_applied(&self, index: LogIndex) {
        self.applied.store(index.get(), Ordering::Release);
    }

    pub fn applied(&self) -> LogIndex {
        LogIndex::new(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_nanos(self.lease.load(Ordering::Relaxed))
    }

    pub(crate) fn set_lease(&self, lease: Duration) {
        self.lease.store(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn sending_term(&self) -> Term {
        Term::new(self.sending_term.load(Ordering::Acquire))
    }

    pub(crate) fn set_sending_term(&self, term: Term) {
        self.sending_term.store(term.get(), Ordering::Release);
    }
}
