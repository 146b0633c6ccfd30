//! A virtual disk with a node's write log on it, and what the thread of `keyward_node::aof` does with it in virtual time.
//!
//! What is written, synced, cut and adopted, and what counts as durable, is decided by the real core
//! (`keyward_replication::disk_log`). Modelled is the platter: what is left of it when processes are killed or the power fails,
//! syncs that take their time or fail, writes that fail, and when a rewrite is ready.

use bytes::Bytes;
use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::time::Monotonic;
use keyward_replication::disk_log::platter::{BaseFault, Loaded, Platter};
use keyward_replication::disk_log::{
    Action, Breach, Conditions, DiskLog, FileNumber, Fsync, LogFile, Note, RewriteId, Stamp,
};
use keyward_replication::log::{Rewind, WriteLog};
use rand::Rng;
use rand::rngs::StdRng;

use super::keyspace::Image;
use super::{Nanos, ms};

/// Bytes of entries in a batch, about.
const BATCH_BYTES: usize = 256;

/// How a shard keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// `appendonly no`
    Memory,
    /// `appendfsync always`
    Always,
    /// `appendfsync everysec`
    EverySecond,
    /// `appendfsync no`
    Never,
}

/// What survives a process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) platter: Platter<Image>,
    /// Nothing is written or synced before.
    pub(super) stalled_until: Nanos,
    /// Whatever it does takes it so long.
    pub(super) pace: Nanos,
}

/// What a process remembers of its disk.
#[derive(Debug)]
pub(super) struct Writer {
    core: DiskLog,
    fsync: Fsync,
    /// Up to where this node has said that it holds the log.
    promised: LogIndex,
    /// The sync in the background: how many records of which file it takes, and when it ends.
    syncing: Option<(FileNumber, usize, Nanos)>,
    rewrite: Option<Rewrite>,
    wants_base: bool,
    next_rewrite: u64,
}

/// A snapshot that will be the base.
#[derive(Debug)]
struct Rewrite {
    id: RewriteId,
    image: Image,
    ready_at: Nanos,
    is_written: bool,
}

/// What a node is when its process starts.
pub(super) struct Recovered {
    pub(super) log: WriteLog,
    pub(super) base: Image,
    /// Committed entries that follow it.
    pub(super) entries: Vec<(LogIndex, Bytes)>,
    pub(super) applied: LogIndex,
    /// To go on with.
    pub(super) file: LogFile,
}

impl Disk {
    pub(super) fn empty(&mut self) {
        self.platter = Platter::default();
    }

    /// The machine's power fails. What is not synced is lost from some batch on.
    pub(super) fn lose_power(&mut self, persistence: Persistence, rng: &mut StdRng) {
        let may_be_before = persistence == Persistence::Never;
        assert!(may_be_before || !self.platter.has_unsynced_before(), "a file was left unsynced");
        self.platter.lose_power(|unsynced| rng.random_range(0..=unsynced));
    }

    /// As [`Disk::lose_power`], and the base was not on the disk, though its sync has succeeded.
    pub(super) fn lose_base(&mut self, persistence: Persistence, rng: &mut StdRng) {
        self.lose_power(persistence, rng);
        let fault = if rng.random_bool(0.5) { BaseFault::Empty } else { BaseFault::Older };
        self.platter.lose_base(fault);
    }

    /// What a process starts with: entries are applied up to the last commit index that was noted.
    ///
    /// # Errors
    /// It does not start: the disk has lost more than the end of the log.
    pub(super) fn recover(&mut self, capacity_bytes: usize) -> Result<Recovered, Breach> {
        match self.platter.load(capacity_bytes) {
            Ok(Loaded { log, base, entries, applied, file }) => {
                Ok(Recovered { log, base, entries, applied, file })
            }
            Err(breach) => {
                assert!(self.platter.is_damaged(), "what was written is not one log: {breach}");
                Err(breach)
            }
        }
    }
}

impl Writer {
    /// For a log that was just recovered.
    pub(super) fn new(
        now: Nanos,
        persistence: Persistence,
        log: &mut WriteLog,
        applied: LogIndex,
        file: LogFile,
    ) -> Writer {
        log.attach_disk();
        let fsync = match persistence {
            Persistence::Always => Fsync::Always,
            Persistence::EverySecond => Fsync::EverySecond,
            Persistence::Memory | Persistence::Never => Fsync::No,
        };
        let shard = log.shard().cloned();
        Writer {
            core: DiskLog::new(Monotonic::from_nanos(now), BATCH_BYTES, file, applied, shard),
            fsync,
            promised: log.last().index,
            syncing: None,
            rewrite: None,
            wants_base: false,
            next_rewrite: 0,
        }
    }

    /// Does what is to be done, one action at most. `snapshot`: the keyspace and the log's index that it contains, if
    /// [`Writer::wants_snapshot`]. True if what is durable has changed.
    pub(super) fn step(
        &mut self,
        now: Nanos,
        disk: &mut Disk,
        log: &mut WriteLog,
        commit: LogIndex,
        snapshot: Option<(Image, LogIndex)>,
        rng: &mut StdRng,
    ) -> bool {
        if now < disk.stalled_until {
            return false;
        }
        let before = log.durable();
        let clock = Monotonic::from_nanos(now);
        let conditions = Conditions { fsync: self.fsync, commit, is_standalone: false };
        let mut notes = Vec::new();
        if let Some((file, records, _)) = self.syncing.take_if(|(_, _, ends_at)| *ends_at <= now) {
            let result = disk.platter.end_sync(file, records);
            self.core.sync_ended(clock, result, log, &mut notes);
        }
        self.snapshot(now, log, snapshot, &mut notes, rng);
        let current = self.core.file().number();
        if self.fsync == Fsync::No && rng.random_bool(0.01) {
            // The kernel does it some time.
            _ = disk.platter.end_sync(current, usize::MAX);
        }
        // Whoever has appended may be the one who writes.
        let at_once = rng.random_bool(0.5).then(|| self.core.next_write(clock, log, &conditions)).flatten();
        let action = at_once.unwrap_or_else(|| self.core.next(clock, log, &conditions, &mut notes));
        if let Action::StartSync(file) = action {
            let ends_at = now + rng.random_range(ms(1)..ms(50));
            self.syncing = Some((file, disk.platter.records(file), ends_at));
        }
        let base = |id| {
            let written = self.rewrite.take_if(|r| r.id == id && r.is_written);
            written.expect("the base is written").image
        };
        if let Some(result) = disk.platter.perform(current, &action, base) {
            self.core.completed(clock, result, log, &conditions, &mut notes);
            disk.stalled_until = now + disk.pace;
        }
        notes.into_iter().for_each(|note| self.note(note));
        self.core.check_invariants(log);
        log.durable() != before
    }

    /// Whether the keyspace is to become the base, if it is whole: when one is needed, and now and then.
    pub(super) fn wants_snapshot(&self, rng: &mut StdRng) -> bool {
        self.rewrite.is_none() && (self.wants_base || rng.random_bool(0.001))
    }

    /// A rewrite begins or ends.
    fn snapshot(
        &mut self,
        now: Nanos,
        log: &mut WriteLog,
        snapshot: Option<(Image, LogIndex)>,
        notes: &mut Vec<Note>,
        rng: &mut StdRng,
    ) {
        if let Some(rewrite) = &mut self.rewrite {
            if rewrite.ready_at <= now && !rewrite.is_written {
                rewrite.is_written = true;
                self.core.base_written(rewrite.id, notes);
            }
            return;
        }
        if !log.has_rewind()
            && let Some((image, index)) = snapshot
            && log.first_index() <= index.next()
            && let Some(term) = log.term_at(index)
        {
            let id = RewriteId(self.next_rewrite);
            self.next_rewrite += 1;
            self.wants_base = false;
            DiskLog::keep_for_rewrite(log, index);
            let stamp = Stamp { at: Position { term, index }, shard: log.shard().cloned() };
            self.core.begin_rewrite(id, stamp, log, notes);
            let ready_at = now + rng.random_range(ms(1)..ms(60));
            self.rewrite = Some(Rewrite { id, image, ready_at, is_written: false });
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Published { durable } => self.promised = self.promised.max(durable),
            Note::TurnedBack(Rewind::To(index)) => self.promised = self.promised.min(index),
            Note::TurnedBack(Rewind::All) => self.promised = LogIndex::ZERO,
            Note::NeedsBase => {
                self.promised = LogIndex::ZERO;
                self.wants_base = true;
            }
            Note::RewriteGivenUp(id) => {
                self.rewrite.take_if(|r| r.id == id);
            }
            Note::EntriesLost => panic!("the log has dropped entries that are not on disk"),
            Note::RewriteDone(_) | Note::Failing | Note::Recovered => {}
        }
    }

    /// Whether the disk lacks what this node has said that it holds: a sync has failed, and what was cut off then is not
    /// written again yet.
    pub(super) fn is_behind(&self, disk: &Disk) -> bool {
        self.core.is_complete() && disk.platter.last() < self.promised
    }
}
