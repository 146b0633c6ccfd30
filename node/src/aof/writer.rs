//! The thread that writes the log to disk.
//!
//! It takes whatever was appended since it last looked, makes one batch of it, writes it with one call, under
//! `appendfsync always` syncs it with another, and then says how far the log is on disk: that is what replies wait
//! for. So one write and one sync serve all clients that wait, and no I/O thread ever waits for the disk.
//!
//! **When the disk fails.** A write that fails leaves the file as it was before (what was written halfway is cut off);
//! after a sync that fails nobody knows what the disk has, so the file is cut to what was synced before, and the rest
//! is taken from memory again: it is pinned there until a sync has succeeded. Either is tried again, again and
//! again; meanwhile writes are refused, and nothing that waits for the disk is acknowledged. Before that, files that
//! are only kept for replicas make room.
//!
//! **When the log turns back** (entries that were never committed are dropped after a failover, or a full sync begins)
//! the file is cut likewise, before anything that follows is written.
//!
//! Invariants:
//! - what is reported as written or durable is in whole batches of a file that the manifest names, or the base that
//!   will make it so is still missing and nothing counts as durable;
//! - the entries of the files are those of the log, without a gap.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position, ShardId, Term};
use keyward_proto::time::Monotonic;

use super::directory::Directory;
use super::file::{CutError, Incremental, Mark};
use super::format::{Encoder, Head, head_line, shard_line};
use super::history::{History, Segment};
use super::manifest::{AofFile, Manifest};
use super::sync::{Job, Syncer};
use super::{Aof, Order, REWRITE_PIN, rewrite};
use crate::clock;
use crate::config::Fsync;
use crate::execute::UNWRITTEN_BYTES_MAX;
use crate::gate::DiskState;
use crate::log::{Rewind, Slice, frames};
use crate::server::Server;

/// Bytes of entries in a batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// The name under which the log keeps what is not synced; replicas' streams count up from zero.
const PIN: u64 = u64::MAX;
/// A failed write or sync is tried again after this.
const RETRY: Duration = Duration::from_millis(200);
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A sync that takes longer is counted as delayed.
const SYNC_DELAYED: Duration = Duration::from_secs(2);
/// What is committed is noted in the file at the latest so long after the last entry.
const NOTE_COMMIT_AFTER: Duration = Duration::from_millis(100);
/// The thread looks after itself so often, whatever happens.
const IDLE: Duration = Duration::from_millis(500);

/// What the thread does next.
enum Next {
    Again,
    /// Something happens, or at the latest after this.
    Wait(Duration),
    End,
}

/// What was found in the log.
enum Found {
    Rewound(Rewind),
    Entries(Slice),
    /// The history belongs to another shard than the file says.
    Shard(Option<ShardId>),
    /// The entries are not in memory any more.
    Lost,
}

/// See the module documentation.
pub(super) struct Writer {
    pub(super) server: Arc<Server>,
    pub(super) directory: Directory,
    pub(super) manifest: Manifest,
    pub(super) current: Incremental,
    /// Base and files add up to the keyspace.
    pub(super) complete: bool,
    pub(super) encoder: Encoder,
    /// The last entry in the file.
    pub(super) written: LogIndex,
    pub(super) syncer: Arc<Syncer>,
    /// The syncer works, or what it has done was not looked at yet.
    pub(super) is_syncing: bool,
    /// When it began, until it is counted as delayed.
    pub(super) sync_started_at: Option<Monotonic>,
    pub(super) synced_at: Monotonic,
    pub(super) retry_at: Option<Monotonic>,
    pub(super) noted_commit: LogIndex,
    pub(super) noted_shard: Option<ShardId>,
    pub(super) wrote_at: Monotonic,
    pub(super) stopping: bool,
    /// Entries were lost: writes are refused until a base stands for them.
    pub(super) lost: bool,
    pub(super) rewrite: Option<Rewrite>,
    /// Files before the current one that no manifest names.
    pub(super) unlisted: Vec<AofFile>,
}

/// The rewrite that is under way.
pub(super) struct Rewrite {
    /// Its snapshot contains the log up to here.
    at: Position,
    shared: Arc<rewrite::Shared>,
    /// The file that follows the snapshot.
    rotated: Option<AofFile>,
    /// The snapshot, as soon as it is written: with its bytes. A small one may be before the writer has got to the
    /// rotation, since it may have had to wait for the disk.
    base: Option<(AofFile, u64)>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("written", &self.written).finish_non_exhaustive()
    }
}

impl Writer {
    /// Goes on in `current`, which has the log up to `written`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn new(
        server: &Arc<Server>,
        directory: Directory,
        manifest: Manifest,
        current: Incremental,
        written: LogIndex,
        shard: Option<ShardId>,
    ) -> io::Result<Writer> {
        let now = clock::monotonic();
        Ok(Writer {
            server: Arc::clone(server),
            directory,
            manifest,
            current,
            complete: true,
            encoder: Encoder::default(),
            written,
            syncer: Syncer::start()?,
            is_syncing: false,
            sync_started_at: None,
            synced_at: now,
            retry_at: None,
            noted_commit: written,
            noted_shard: shard,
            wrote_at: now,
            stopping: false,
            lost: false,
            rewrite: None,
            unlisted: Vec::new(),
        })
    }

    pub(super) fn run(mut self) {
        self.server.shared.set_disk_writer(Some(std::thread::current()));
        self.publish(0);
        loop {
            match self.step() {
                Next::Again => {}
                Next::Wait(time) => std::thread::park_timeout(time),
                Next::End => break,
            }
        }
        self.give_up_rewrite();
        self.server.shared.set_disk_writer(None);
        self.server.shared.log.lock().unpin(PIN);
        self.syncer.stop();
        self.aof().note_stopped();
    }

    pub(super) fn aof(&self) -> &Aof {
        &self.server.aof
    }

    fn policy(&self) -> Fsync {
        self.server.settings().appendfsync
    }

    fn step(&mut self) -> Next {
        for order in self.aof().take_orders() {
            self.obey(order);
        }
        let now = clock::monotonic();
        if let Some(at) = self.retry_at
            && now < at
            && !self.stopping
        {
            return Next::Wait(at.since(now));
        }
        if let Err(error) = self.look_after_sync(now) {
            return self.fail_sync(now, &error);
        }
        if let Some(at) = self.rotation_due() {
            if let Err(error) = self.rotate(at)
                && !self.made_room(&error)
            {
                tracing::warn!(%error, "the write log can't go on in a new file");
                self.give_up_rewrite();
            }
            return Next::Again;
        }
        self.adopt_if_ready();
        match self.look() {
            Found::Rewound(rewind) => self.rewind(rewind),
            Found::Shard(shard) => self.note_shard(shard),
            Found::Entries(slice) if slice.count > 0 => self.write(now, &slice),
            Found::Entries(end) => self.idle(now, &end),
            Found::Lost => {
                self.retry_at = Some(now + RETRY);
                self.tell_failure(
                    "the write log has dropped entries that are not on disk: BGREWRITEAOF is due",
                );
                Next::Again
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop => self.stopping = true,
            Order::Rotate { at, rewrite } => {
                self.give_up_rewrite();
                self.rewrite = Some(Rewrite { at, shared: rewrite, rotated: None, base: None });
            }
            Order::Adopt { base, bytes, rewrite } => match &mut self.rewrite {
                Some(current) if Arc::ptr_eq(&current.shared, &rewrite) => current.base = Some((base, bytes)),
                Some(_) | None => rewrite.given_up.store(true, Ordering::Release),
            },
        }
    }

    /// Puts the new base in place, if it is written and the file that follows it has begun.
    fn adopt_if_ready(&mut self) {
        let ready = self.rewrite.take_if(|r| r.rotated.is_some() && r.base.is_some());
        let Some(Rewrite { shared, rotated: Some(first), base: Some((base, bytes)), .. }) = ready else {
            return;
        };
        match self.adopt(first, base, bytes) {
            Ok(()) => shared.done.store(true, Ordering::Release),
            Err(error) => {
                tracing::warn!(%error, "the new base of the write log can't be put in place");
                shared.given_up.store(true, Ordering::Release);
            }
        }
    }

    /// The log's news, in the order in which they have to be dealt with.
    fn look(&mut self) -> Found {
        let mut log = self.server.shared.log.lock();
        if let Some(rewind) = log.take_rewind() {
            return Found::Rewound(rewind);
        }
        if log.shard() != self.noted_shard.as_ref() {
            return Found::Shard(log.shard().cloned());
        }
        match log.read_from(self.written.next(), BATCH_BYTES) {
            // The next file begins behind this entry.
            Ok(slice) => Found::Entries(match &self.rewrite {
                Some(Rewrite { at, rotated: None, .. }) if !self.is_syncing => up_to(slice, at.index),
                Some(_) | None => slice,
            }),
            Err(_) => Found::Lost,
        }
    }

    // ------------------------------------------------------------------ writing

    fn write(&mut self, now: Monotonic, slice: &Slice) -> Next {
        let last = slice.last().index;
        let commit = self.server.shared.gate.commit_index();
        // Alone there is nobody who could take an entry back.
        let settled = if slice.term == Term::ZERO { last } else { commit };
        let synced = match self.policy() {
            // Nobody will say when it is on disk: what is found damaged later is taken for damage.
            Fsync::No => self.current.size(),
            Fsync::Always | Fsync::EverySecond => self.current.synced.bytes,
        };
        let bytes = self.encoder.encode(slice, commit.min(last), synced);
        if let Err(error) = self.current.append_batch(bytes, slice.term, slice.first, slice.count, settled) {
            return self.fail(now, "write", &error);
        }
        self.written = last;
        self.noted_commit = commit.min(last);
        self.wrote_at = now;
        if self.policy() == Fsync::Always
            && let Err(error) = self.sync_now()
        {
            return self.fail_sync(now, &error);
        }
        self.recovered();
        self.publish(slice.bytes.len() as u64);
        Next::Again
    }

    fn idle(&mut self, now: Monotonic, end: &Slice) -> Next {
        if self.stopping {
            return self.end(now);
        }
        let gate = &self.server.shared.gate;
        let commit = gate.commit_index().min(self.written);
        let mut wait = IDLE;
        if !gate.is_alone() && self.noted_commit < commit {
            let due = self.wrote_at + NOTE_COMMIT_AFTER;
            if due <= now {
                return self.note_commit(now, end, commit);
            }
            wait = due.since(now);
        }
        if self.policy() == Fsync::EverySecond && self.current.synced.bytes < self.current.size() {
            wait = wait.min((self.synced_at + SYNC_EVERY).since(now));
        }
        if self.retry_at.is_some() {
            // Nothing is left to be written: what failed was a sync, or a note.
            if let Err(error) = self.sync_now() {
                return self.fail_sync(now, &error);
            }
            self.recovered();
            self.publish(0);
        }
        Next::Wait(wait.max(Duration::from_millis(1)))
    }

    /// So that after a restart nothing that was committed has to wait for the others.
    fn note_commit(&mut self, now: Monotonic, end: &Slice, commit: LogIndex) -> Next {
        let position = Position { term: end.previous.term, index: self.written };
        let bytes = self.encoder.encode(&Slice::empty(position), commit, self.current.synced.bytes);
        if let Err(error) = self.current.append(bytes) {
            return self.fail(now, "write", &error);
        }
        self.noted_commit = commit;
        Next::Again
    }

    fn note_shard(&mut self, shard: Option<ShardId>) -> Next {
        let line = shard_line(shard.as_ref());
        let written = self.current.append(line.as_bytes()).and_then(|()| self.sync_now());
        match written {
            Ok(()) => {
                self.noted_shard = shard;
                Next::Again
            }
            Err(error) => self.fail(clock::monotonic(), "write", &error),
        }
    }

    /// Tells the rest of the node how far the log is on disk; `bytes` of frames more than before.
    fn publish(&mut self, bytes: u64) {
        let shared = &self.server.shared;
        let policy = self.policy();
        let mut log = shared.log.lock();
        if !log.set_written(self.written, bytes) {
            // The log has turned back meanwhile.
            return;
        }
        let durable = match policy {
            _ if !self.complete => LogIndex::ZERO,
            Fsync::Always => self.current.synced.index,
            Fsync::EverySecond | Fsync::No => self.written,
        };
        log.set_durable(durable);
        let kept = if policy == Fsync::No { self.written } else { self.current.synced.index };
        log.pin(PIN, kept);
        if shared.gate.is_alone() {
            log.release(self.written);
        }
        let lag = log.unwritten_bytes();
        drop(log);
        if lag < UNWRITTEN_BYTES_MAX / 2 && shared.gate.disk() == DiskState::Lagging {
            tracing::warn!("the disk has caught up with the write log");
            shared.gate.set_disk(DiskState::Healthy);
        }
        if !shared.gate.is_alone() {
            shared.durable_advanced();
        } else if self.complete {
            shared.gate.set_alone_commit(durable);
        }
        self.aof().counters.current_bytes.store(self.current.size(), Ordering::Relaxed);
    }

    // ------------------------------------------------------------------ syncing

    fn mark(&self) -> Mark {
        Mark { bytes: self.current.size(), index: self.written }
    }

    fn sync_now(&mut self) -> io::Result<()> {
        let mark = self.mark();
        self.current.file.sync_data()?;
        self.current.synced = mark;
        self.synced_at = clock::monotonic();
        Ok(())
    }

    /// Takes note of a sync that has ended, and begins one that is due.
    fn look_after_sync(&mut self, now: Monotonic) -> io::Result<()> {
        if let Some(done) = self.syncer.take_done() {
            (self.is_syncing, self.sync_started_at) = (false, None);
            self.aof().counters.pending_syncs.store(0, Ordering::Relaxed);
            // A file that is not written any more was synced by itself.
            if Arc::ptr_eq(&done.file, &self.current.file) {
                done.result?;
                if self.current.synced.index <= done.mark.index && done.mark.bytes <= self.current.size() {
                    self.current.synced = done.mark;
                    self.server.shared.log.lock().pin(PIN, done.mark.index);
                }
            }
        }
        if let Some(started) = self.sync_started_at
            && SYNC_DELAYED <= now.since(started)
        {
            self.sync_started_at = None;
            self.aof().counters.delayed_syncs.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("syncing the write log takes long: the disk is busy");
        }
        let due = self.policy() == Fsync::EverySecond
            && self.retry_at.is_none()
            && self.current.synced.bytes < self.current.size()
            && SYNC_EVERY <= now.since(self.synced_at)
            && !self.is_syncing;
        if due {
            self.synced_at = now;
            (self.is_syncing, self.sync_started_at) = (true, Some(now));
            self.aof().counters.pending_syncs.store(1, Ordering::Relaxed);
            let (file, mark) = (Arc::clone(&self.current.file), self.mark());
            self.syncer.submit(Job { file, mark, waiting: std::thread::current() });
        }
        Ok(())
    }

    // ------------------------------------------------------------------ failures

    fn fail(&mut self, now: Monotonic, what: &str, error: &io::Error) -> Next {
        self.encoder.forget_db();
        if self.made_room(error) {
            return Next::Again;
        }
        self.retry_at = Some(now + RETRY);
        let text = rustix_text(error);
        if self.aof().status().error.as_deref() != Some(&text) {
            tracing::error!(%error, what, "the write log can't be written: writes are refused until it can");
        }
        self.tell_failure(&text);
        if self.stopping {
            return Next::End;
        }
        Next::Again
    }

    /// On a full disk the files that are kept for replicas make room for the log; whether there were any.
    fn made_room(&mut self, error: &io::Error) -> bool {
        if error.kind() != io::ErrorKind::StorageFull {
            return false;
        }
        let first = self.manifest.incremental.first().map_or(self.current.name.seq, |file| file.seq);
        self.set_history(|history| history.trim(first, 0));
        let kept = std::mem::take(&mut self.manifest.kept);
        if kept.is_empty() {
            return false;
        }
        tracing::warn!(
            files = kept.len(),
            "the disk is full: what was kept of the log for replicas is deleted"
        );
        self.manifest.history.extend(kept);
        self.directory.delete_files(&mut self.manifest);
        true
    }

    fn tell_failure(&self, text: &str) {
        self.aof().set_error(Some(text.to_owned()));
        self.server.shared.gate.set_disk(DiskState::Failed);
    }

    /// What was written since the last sync may be lost, and another sync would not tell: it is written again.
    fn fail_sync(&mut self, now: Monotonic, error: &io::Error) -> Next {
        let next = self.fail(now, "fsync", error);
        if let Err(error) = self.current.cut_to_synced() {
            tracing::error!(%error, "the write log can't be cut to what was synced");
        }
        self.written = self.current.synced.index;
        self.server.shared.log.lock().retract_disk(self.written);
        next
    }

    fn recovered(&mut self) {
        if self.retry_at.take().is_some() && !self.lost {
            tracing::warn!("the write log is written again: writes are accepted");
            self.aof().set_error(None);
            self.server.shared.gate.set_disk(DiskState::Healthy);
        }
    }

    /// The last entries are on disk, whatever `appendfsync` says.
    fn end(&mut self, now: Monotonic) -> Next {
        while self.syncer.is_busy() {
            std::thread::sleep(Duration::from_millis(1));
        }
        match self.sync_now() {
            Ok(()) => Next::End,
            Err(error) => {
                self.fail(now, "fsync", &error);
                Next::End
            }
        }
    }

    // ------------------------------------------------------------------ turning back

    fn rewind(&mut self, rewind: Rewind) -> Next {
        if let Some(rewrite) = &self.rewrite
            && (rewind == Rewind::All || matches!(rewind, Rewind::To(index) if index < rewrite.at.index))
        {
            self.give_up_rewrite();
        }
        let result = match rewind {
            Rewind::To(index) if self.written <= index => Ok(()),
            Rewind::To(index) => {
                self.written = index;
                self.noted_commit = self.noted_commit.min(index);
                match self.current.cut_after(index, &mut self.encoder) {
                    Ok(()) => {
                        tracing::info!(%index, "entries that were never committed are removed from the disk");
                        Ok(())
                    }
                    Err(CutError::BeforeBegin) => self.begin_anew_where_the_log_is(),
                    Err(CutError::Io(error)) => Err(error),
                }
            }
            Rewind::All => self.begin_anew_where_the_log_is(),
        };
        match result {
            Ok(()) => {
                self.server.shared.log.lock().retract_disk(self.written);
                self.publish(0);
                Next::Again
            }
            Err(error) => {
                // Until this has succeeded nothing may be added to the file.
                self.server.shared.log.lock().remember_rewind(rewind);
                self.fail(clock::monotonic(), "cut", &error)
            }
        }
    }

    fn begin_anew_where_the_log_is(&mut self) -> io::Result<()> {
        let position = {
            let log = self.server.shared.log.lock();
            let index = log.written();
            Position { term: log.term_at(index).unwrap_or_default(), index }
        };
        self.begin_anew(position)
    }

    /// A new file before which there is no base yet: nothing in it counts until there is one.
    fn begin_anew(&mut self, follows: Position) -> io::Result<()> {
        let next = self.create_next(follows, true)?;
        self.set_history(|history| *history = History::new(vec![Segment::new(&next)]));
        self.leave(next);
        self.complete = false;
        self.written = follows.index;
        self.noted_commit = self.noted_commit.min(follows.index);
        self.encoder.forget_db();
        self.aof().request_rewrite();
        Ok(())
    }

    /// What can be read from the files is something else now.
    fn set_history(&self, change: impl FnOnce(&mut History)) {
        let mut history = self.aof().history.lock();
        change(&mut history);
        self.server.shared.log.lock().set_first_on_disk(history.first());
    }

    /// Goes on in another file. One that no manifest names is deleted when there is a base.
    fn leave(&mut self, next: Incremental) {
        let left = std::mem::replace(&mut self.current, next);
        if !self.manifest.incremental.contains(&left.name) {
            self.unlisted.push(left.name);
        }
    }

    /// The file after the current one; no manifest names it yet.
    fn create_next(&mut self, follows: Position, awaits_base: bool) -> io::Result<Incremental> {
        let head = head_of(&self.server, follows, awaits_base);
        let mut name = self.manifest.next_incremental(self.directory.prefix());
        if name.seq <= self.current.name.seq {
            name = AofFile::incremental(self.directory.prefix(), self.current.name.seq + 1);
        }
        let created = create_incremental(&self.directory, name, &head)?;
        self.noted_shard = head.shard;
        Ok(created)
    }

    // ------------------------------------------------------------------ rewriting

    fn give_up_rewrite(&mut self) {
        if let Some(rewrite) = self.rewrite.take() {
            rewrite.shared.given_up.store(true, Ordering::Release);
            self.server.shared.log.lock().unpin(REWRITE_PIN);
        }
    }

    /// The current file has everything that the snapshot contains.
    fn rotation_due(&self) -> Option<Position> {
        let rewrite = self.rewrite.as_ref().filter(|r| r.rotated.is_none() && r.at.index <= self.written)?;
        // A sync that fails is told once, to whoever waits for it: nobody would ask about a file that was left.
        (self.retry_at.is_none() && !self.is_syncing).then_some(rewrite.at)
    }

    /// Goes on in a new file that follows `at`. What the current one has beyond that (entries that are not applied
    /// yet, on a replica) is in both: whoever loads them takes it once.
    fn rotate(&mut self, at: Position) -> io::Result<()> {
        let mut next = self.create_next(at, !self.complete)?;
        let mut encoder = Encoder::default();
        let mut written = at.index;
        while written < self.written {
            let slice = {
                let mut log = self.server.shared.log.lock();
                let slice = log.read_from(written.next(), BATCH_BYTES);
                up_to(slice.map_err(|e| io::Error::other(e.to_string()))?, self.written)
            };
            let commit = self.server.shared.gate.commit_index();
            let last = slice.last().index;
            let bytes = encoder.encode(&slice, commit.min(last), 0);
            next.append_batch(bytes, slice.term, slice.first, slice.count, commit)?;
            written = last;
        }
        // What comes before a file is on the disk when the file counts.
        self.current.file.sync_data()?;
        next.file.sync_data()?;
        next.synced = Mark { bytes: next.size(), index: self.written };
        next.repeats = self.written;
        if self.complete {
            let mut manifest = self.manifest.clone();
            manifest.own_from.get_or_insert(next.name.seq);
            manifest.incremental.push(next.name.clone());
            self.directory.write_manifest(&manifest)?;
            self.manifest = manifest;
        }
        let counters = &self.server.aof.counters;
        counters.earlier_bytes.fetch_add(self.current.size(), Ordering::Relaxed);
        self.encoder = encoder;
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.rotated = Some(next.name.clone());
        }
        let bytes = self.current.size();
        self.set_history(|history| history.push(Segment::new(&next), bytes));
        self.leave(next);
        self.server.shared.log.lock().unpin(REWRITE_PIN);
        self.publish(0);
        Ok(())
    }

    /// The base is written and synced: from now on it and the files from `first` on are the data.
    fn adopt(&mut self, first: AofFile, base: AofFile, bytes: u64) -> io::Result<()> {
        let old = std::mem::take(&mut self.manifest);
        let (kept, gone): (Vec<AofFile>, Vec<AofFile>) =
            old.incremental.iter().cloned().partition(|f| first.seq <= f.seq);
        // Nobody follows a node alone.
        let is_alone = self.server.shared.gate.is_alone();
        let bytes_max = match is_alone {
            true => 0,
            // Never more than what is left beside it: the log itself needs room to grow.
            false => self.server.settings().backlog_disk_bytes.min(self.directory.available_bytes()),
        };
        let mut history = self.aof().history.lock().clone();
        history.trim(first.seq, bytes_max);
        let mut manifest = Manifest {
            base: Some(base),
            incremental: kept,
            history: old.history.clone(),
            kept: history.before(first.seq).cloned().collect(),
            own_from: Some(first.seq),
        };
        if !manifest.incremental.contains(&first) {
            manifest.incremental.push(first);
        }
        let left = gone.into_iter().chain(self.unlisted.iter().cloned()).chain(old.kept.iter().cloned());
        let superfluous = left.chain(old.base.iter().cloned());
        // One that was left behind may have had the name of a new one.
        let superfluous: Vec<AofFile> = superfluous.filter(|file| !manifest.names(&file.name)).collect();
        manifest.history.extend(superfluous);
        if let Err(error) = self.directory.write_manifest(&manifest) {
            self.manifest = old;
            return Err(error);
        }
        self.manifest = manifest;
        self.set_history(|kept| *kept = history);
        if self.manifest.incremental.len() == 1 {
            self.current.repeats = self.current.follows;
        }
        self.unlisted.clear();
        self.complete = true;
        self.directory.delete_files(&mut self.manifest);
        let counters = &self.server.aof.counters;
        counters.base_bytes.store(bytes, Ordering::Relaxed);
        counters.earlier_bytes.store(0, Ordering::Relaxed);
        counters.rewritten_bytes.store(bytes + self.current.size(), Ordering::Relaxed);
        self.server.shared.log.lock().set_disk_gates(true);
        if std::mem::take(&mut self.lost) {
            self.retry_at = Some(clock::monotonic());
        }
        self.recovered();
        self.publish(0);
        Ok(())
    }
}

/// The entries of a slice up to `index`.
fn up_to(slice: Slice, index: LogIndex) -> Slice {
    if slice.last().index <= index || slice.count == 0 {
        return slice;
    }
    let count = (index.get() + 1).saturating_sub(slice.first.get());
    let bytes: usize =
        frames(&slice.bytes).take(usize::try_from(count).unwrap_or(usize::MAX)).map(|f| 4 + f.len()).sum();
    Slice { count, bytes: slice.bytes.slice(..bytes), ..slice }
}

/// The head of a file that begins now.
pub(super) fn head_of(server: &Server, follows: Position, awaits_base: bool) -> Head {
    let log = server.shared.log.lock();
    Head { follows, shard: log.shard().cloned(), terms: log.terms().to_vec(), awaits_base }
}

/// A new incremental file with its head. Nothing of it is synced, and the manifest does not name it yet.
pub(super) fn create_incremental(
    directory: &Directory,
    name: AofFile,
    head: &Head,
) -> io::Result<Incremental> {
    let file = directory.create_file(&name.name)?;
    let index = head.follows.index;
    let mut incremental = Incremental::new(name, file, 0, index, index, Default::default());
    incremental.append(head_line(head).as_bytes())?;
    Ok(incremental)
}

/// The system's words, without Rust's addition.
fn rustix_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNode;

    /// The writer may have waited for the disk while a small snapshot was written: both orders are there at once.
    #[test]
    fn a_base_that_is_written_before_the_files_are_changed_is_put_in_place() {
        let node = TestNode::new();
        let server = node.executor.server();
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        let first = AofFile::incremental("a", 1);
        let head = Head { follows: Position::ZERO, shard: None, terms: Vec::new(), awaits_base: false };
        let current = create_incremental(&directory, first.clone(), &head).unwrap();
        let manifest = Manifest { incremental: vec![first], ..Manifest::default() };
        directory.write_manifest(&manifest).unwrap();
        server.shared.log.lock().attach_disk();
        let mut writer =
            Writer::new(server, directory.clone(), manifest, current, LogIndex::ZERO, None).unwrap();
        let rewrite = Arc::new(rewrite::Shared::default());
        let base = AofFile { name: "a.1.base.rdb".into(), seq: 1 };
        server.aof.orders.lock().extend([
            Order::Rotate { at: Position::ZERO, rewrite: Arc::clone(&rewrite) },
            Order::Adopt { base: base.clone(), bytes: 0, rewrite: Arc::clone(&rewrite) },
        ]);
        for _ in 0..3 {
            let _next = writer.step();
        }
        assert!(rewrite.done.load(Ordering::Acquire) && !rewrite.given_up.load(Ordering::Acquire));
        let manifest = directory.read_manifest().unwrap().unwrap();
        assert_eq!((manifest.base, manifest.incremental), (Some(base), vec![AofFile::incremental("a", 2)]));
        assert!(!directory.path_of("a.1.incr.aof").exists());
    }
}
