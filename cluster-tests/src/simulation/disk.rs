//! A virtual disk with a node's write log on it, and the writer of `keyward_node::aof` in virtual time.
//!
//! The log's own bookkeeping (written, durable, rewinds) is the real one of `keyward_node::log`. The files are modelled
//! as what they add up to: a base, and batches of entries behind it, each with the commit index that it notes. A killed
//! process loses nothing that it has written; a power failure also loses or tears what is not synced, from any batch on,
//! which the real reader finds by its checksums and cuts off. Bytes, manifests and checksums are not simulated: the
//! node's own tests cover them.

use bytes::Bytes;
use keyward_node::log::{Rewind, TermStart, WriteLog, frames};
use keyward_proto::ids::{LogIndex, Position, ShardId, Term};
use rand::Rng;
use rand::rngs::StdRng;

use super::keyspace::Keyspace;
use super::{Nanos, ms};

/// Bytes of entries in a batch, about.
const BATCH_BYTES: usize = 256;
const SYNC_EVERY: Nanos = ms(1000);
const NOTE_COMMIT_AFTER: Nanos = ms(100);
/// The name under which the log keeps what is not synced.
const PIN: u64 = u64::MAX;

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

#[derive(Debug, Clone)]
struct Batch {
    term: Term,
    first: LogIndex,
    payloads: Vec<Bytes>,
    commit: LogIndex,
}

impl Batch {
    /// The last entry, of this batch or before it.
    fn last(&self) -> LogIndex {
        LogIndex::new(self.first.get() + self.payloads.len() as u64 - 1)
    }
}

/// Base and incremental files.
#[derive(Debug, Clone, Default)]
struct Files {
    base: Keyspace,
    follows: Position,
    terms: Vec<TermStart>,
    shard: Option<ShardId>,
    batches: Vec<Batch>,
    /// The batches that a power failure leaves.
    synced: usize,
}

impl Files {
    fn last(&self) -> LogIndex {
        self.batches.iter().rev().find(|b| !b.payloads.is_empty()).map_or(self.follows.index, Batch::last)
    }

    /// Removes the entries after `index`.
    fn cut_after(&mut self, index: LogIndex) {
        while let Some(batch) = self.batches.pop() {
            if batch.last() <= index {
                self.batches.push(batch);
                break;
            }
            if batch.first <= index {
                let count = usize::try_from(index.get() + 1 - batch.first.get()).expect("a small batch");
                let payloads = batch.payloads[..count].to_vec();
                self.batches.push(Batch { payloads, ..batch });
                break;
            }
        }
        self.synced = self.synced.min(self.batches.len());
    }
}

/// A snapshot that will be the base.
#[derive(Debug)]
struct Rewrite {
    keyspace: Keyspace,
    at: Position,
    terms: Vec<TermStart>,
    ready_at: Nanos,
}

/// What survives a process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What the manifest names.
    named: Files,
    /// Files before which there is no base yet; the writer goes on in these.
    unnamed: Option<Files>,
    /// Nothing is written or synced before.
    pub(super) stalled_until: Nanos,
}

/// What a process remembers of its disk.
#[derive(Debug)]
pub(super) struct Writer {
    persistence: Persistence,
    written: LogIndex,
    /// Up to where this node has said that it holds the log.
    promised: LogIndex,
    synced_index: LogIndex,
    noted_commit: LogIndex,
    wrote_at: Nanos,
    synced_at: Nanos,
    rewrite: Option<Rewrite>,
}

/// What a node is when its process starts.
pub(super) struct Recovered {
    pub(super) log: WriteLog,
    pub(super) keyspace: Keyspace,
    pub(super) applied: LogIndex,
}

impl Disk {
    pub(super) fn empty(&mut self) {
        self.named = Files::default();
        self.unnamed = None;
    }

    /// The machine's power fails. What is not synced is lost from some batch on. True if anything is.
    pub(super) fn lose_power(&mut self, rng: &mut StdRng) -> bool {
        self.unnamed = None;
        let files = &mut self.named;
        let (before, synced) = (files.last(), files.synced.min(files.batches.len()));
        files.batches.truncate(rng.random_range(synced..=files.batches.len()));
        files.last() < before
    }

    /// Whether a power failure now could lose anything.
    pub(super) fn has_unsynced(&self) -> bool {
        self.named.batches[self.named.synced.min(self.named.batches.len())..]
            .iter()
            .any(|b| !b.payloads.is_empty())
    }

    /// As `keyward_node::aof::recover` does: entries are applied up to the last commit index that was noted.
    pub(super) fn recover(&mut self, capacity_bytes: usize) -> Recovered {
        self.unnamed = None;
        let files = &mut self.named;
        files.synced = files.batches.len();
        let mut log = WriteLog::new(capacity_bytes);
        log.reset(files.follows);
        log.restore_terms(files.terms.clone());
        log.set_shard(files.shard.clone());
        let mut commit = files.follows.index;
        let mut keyspace = files.base.clone();
        for batch in &files.batches {
            commit = commit.max(batch.commit);
            batch.payloads.iter().for_each(|p| {
                log.append_unexecuted(batch.term, p);
            });
        }
        let applied = commit.min(log.last().index);
        for batch in &files.batches {
            let indexes = (batch.first.get()..).map(LogIndex::new);
            let entries = indexes.zip(&batch.payloads).take_while(|(index, _)| *index <= applied);
            entries.for_each(|(index, payload)| keyspace.apply(index, payload));
        }
        log.release(applied);
        Recovered { log, keyspace, applied }
    }

    fn current(&mut self) -> &mut Files {
        self.unnamed.as_mut().unwrap_or(&mut self.named)
    }
}

impl Writer {
    /// For a log that was just recovered.
    pub(super) fn new(now: Nanos, persistence: Persistence, log: &mut WriteLog) -> Writer {
        log.attach_disk();
        let last = log.last().index;
        Writer {
            persistence,
            written: last,
            promised: last,
            synced_index: last,
            noted_commit: LogIndex::ZERO,
            wrote_at: now,
            synced_at: now,
            rewrite: None,
        }
    }

    /// Does what is to be done, one batch at most. `snapshot`: the keyspace and the log's index that it contains, if it
    /// is whole. True if what is durable has changed.
    pub(super) fn step(
        &mut self,
        now: Nanos,
        disk: &mut Disk,
        log: &mut WriteLog,
        commit: LogIndex,
        snapshot: Option<(&Keyspace, LogIndex)>,
        rng: &mut StdRng,
    ) -> bool {
        if now < disk.stalled_until {
            return false;
        }
        if let Some(rewind) = log.take_rewind() {
            self.rewind(rewind, disk, log);
            log.retract_disk(self.written);
            return self.publish(0, disk, log);
        }
        disk.current().shard = log.shard().cloned();
        self.rewrite(now, disk, log, commit, snapshot, rng);
        let slice = log.read_from(self.written.next(), BATCH_BYTES).expect("what is not written is kept");
        let commit = commit.min(slice.last().index);
        let notes = self.noted_commit < commit && self.wrote_at + NOTE_COMMIT_AFTER <= now;
        if slice.count > 0 || notes {
            let payloads: Vec<Bytes> = frames(&slice.bytes).map(Bytes::copy_from_slice).collect();
            disk.current().batches.push(Batch { term: slice.term, first: slice.first, payloads, commit });
            self.written = slice.last().index;
            self.noted_commit = commit;
            self.wrote_at = now;
        }
        let is_due = match self.persistence {
            Persistence::Always => true,
            Persistence::EverySecond => self.synced_at + SYNC_EVERY <= now,
            Persistence::Memory | Persistence::Never => rng.random_bool(0.01),
        };
        if is_due {
            let files = disk.current();
            files.synced = files.batches.len();
            self.synced_index = self.written;
            self.synced_at = now;
        }
        self.publish(slice.bytes.len() as u64, disk, log)
    }

    /// A sync fails: what was not synced before is written again.
    pub(super) fn fail_sync(&mut self, disk: &mut Disk, log: &mut WriteLog) {
        let files = disk.current();
        files.batches.truncate(files.synced);
        self.written = self.synced_index.max(files.last()).min(self.written);
        log.retract_disk(self.written);
    }

    /// Whether the disk lacks what this node has said that it holds: a sync has failed, and what was cut off then is not
    /// written again yet.
    pub(super) fn is_behind(&self, disk: &Disk) -> bool {
        disk.unnamed.is_none() && disk.named.last() < self.promised
    }

    fn publish(&mut self, bytes: u64, disk: &Disk, log: &mut WriteLog) -> bool {
        let before = log.durable();
        if !log.set_written(self.written, bytes) {
            return false;
        }
        let durable = match self.persistence {
            _ if disk.unnamed.is_some() => LogIndex::ZERO,
            Persistence::Always => self.synced_index,
            Persistence::Memory | Persistence::EverySecond | Persistence::Never => self.written,
        };
        log.set_durable(durable);
        self.promised = self.promised.max(durable);
        log.pin(PIN, self.synced_index);
        durable != before
    }

    fn rewind(&mut self, rewind: Rewind, disk: &mut Disk, log: &WriteLog) {
        match rewind {
            Rewind::To(index) => {
                if self.rewrite.as_ref().is_some_and(|r| index < r.at.index) {
                    self.rewrite = None;
                }
                self.promised = self.promised.min(index);
                if self.written <= index {
                    return;
                }
                self.noted_commit = self.noted_commit.min(index);
                if index < disk.current().follows.index {
                    return self.begin_anew(disk, log);
                }
                self.written = index;
                self.synced_index = self.synced_index.min(index);
                disk.current().cut_after(index);
            }
            Rewind::All => {
                self.rewrite = None;
                self.begin_anew(disk, log);
            }
        }
    }

    /// A new file before which there is no base yet: nothing in it counts until there is one.
    fn begin_anew(&mut self, disk: &mut Disk, log: &WriteLog) {
        let index = log.written();
        let follows = Position { term: log.term_at(index).unwrap_or_default(), index };
        disk.unnamed = Some(Files {
            follows,
            terms: known_terms(log, follows),
            shard: log.shard().cloned(),
            ..Files::default()
        });
        self.written = index;
        self.promised = LogIndex::ZERO;
        self.synced_index = index;
        self.noted_commit = self.noted_commit.min(index);
    }

    /// A snapshot becomes the base when it is written and everything in it is committed.
    fn rewrite(
        &mut self,
        now: Nanos,
        disk: &mut Disk,
        log: &WriteLog,
        commit: LogIndex,
        snapshot: Option<(&Keyspace, LogIndex)>,
        rng: &mut StdRng,
    ) {
        let is_wanted = disk.unnamed.is_some() || rng.random_bool(0.001);
        if self.rewrite.is_none()
            && is_wanted
            && let Some((keyspace, index)) = snapshot
            && let Some(term) = log.term_at(index)
        {
            let at = Position { term, index };
            let ready_at = now + rng.random_range(ms(1)..ms(60));
            self.rewrite =
                Some(Rewrite { keyspace: keyspace.clone(), at, terms: known_terms(log, at), ready_at });
        }
        let is_ready = |r: &Rewrite| r.ready_at <= now && r.at.index <= commit && r.at.index <= self.written;
        let Some(Rewrite { keyspace, at, terms, .. }) = self.rewrite.take_if(|r| is_ready(r)) else { return };
        let files = disk.current();
        let mut batches = std::mem::take(&mut files.batches);
        let shard = files.shard.clone();
        batches.retain(|b| b.payloads.is_empty() || at.index < b.last());
        for batch in &mut batches {
            if batch.first <= at.index {
                let skip = usize::try_from(at.index.get() + 1 - batch.first.get()).expect("a small batch");
                batch.payloads.drain(..skip.min(batch.payloads.len()));
                batch.first = at.index.next();
            }
        }
        let synced = batches.len();
        disk.named = Files { base: keyspace, follows: at, terms, shard, batches, synced };
        disk.unnamed = None;
        self.synced_index = self.written;
    }
}

fn known_terms(log: &WriteLog, at: Position) -> Vec<TermStart> {
    log.terms().iter().copied().filter(|t| t.first_index <= at.index).collect()
}
