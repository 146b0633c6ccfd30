//! What the write log on disk does: a pure core, events in and actions out.
//!
//! A shell (a thread with files, or the simulation with a virtual disk) asks for the next [`Action`], carries it out and
//! says how that ended; it holds the log's lock for the asking and the telling, never for the doing. The core reads what
//! the log has, and reports to it what is *written* and what is *durable* (`log/disk.rs`): that is what replies wait for.
//!
//! - **Batches.** Whatever was appended is written as one batch, so one write and one sync serve all who wait. If nothing
//!   but a write is due it may be done by whoever has appended ([`DiskLog::next_write`]).
//! - **Durable** is what `appendfsync` demands: synced under `always`, else written; nothing while there is no base.
//! - **Rewrite.** A snapshot begins at a log index. The log goes on in a file that follows exactly that index and repeats
//!   what the file before has beyond it. Once the snapshot is written and what it contains is committed, it is adopted:
//!   the base and the files since are the data.
//! - **Turning back.** Entries that were never committed are cut off before anything else is written. If files before
//!   the current one have some of them, or the log begins elsewhere, a new file is begun that awaits a base.
//! - **Failures.** A write that fails leaves the file as it was. After a sync that fails nobody knows what the disk has,
//!   so the file is cut to what was synced before, and the rest is taken from memory again, where it is pinned until it
//!   is synced. Either is tried again; meanwhile nothing that waits for the disk is acknowledged.
//!
//! Not here: bytes, names, manifests and how they are replaced; which superfluous files are kept for replicas.
//!
//! Invariants, checked by [`DiskLog::check_invariants`]:
//! - what is reported as written or durable is in whole batches of a file that counts, or a base is missing and nothing
//!   is durable;
//! - the entries of the files are those of the log, without a gap: a file begins where the one before ends, or earlier.

mod loading;
mod log_file;
mod messages;
pub mod platter;
#[cfg(test)]
mod tests;

use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position, ShardId};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

use crate::log::{Rewind, Slice, WriteLog};
pub use loading::{Base, Breach, Chain, Settled, Stamp};
pub use log_file::{BatchSpan, Cut, FileNumber, LogFile, Mark};
pub use messages::{
    Action, Batch, Begin, Conditions, Done, Failure, Fsync, Head, Note, Remedy, RewriteId, Step, head_of,
};

/// Under this name the log keeps what is not synced; replicas' streams count up from zero.
const WRITER_PIN: u64 = u64::MAX;
/// Under this one what follows a snapshot, until the file that follows it has begun.
const REWRITE_PIN: u64 = u64::MAX - 1;
/// What an appender writes itself takes no longer than it takes to wake somebody else.
const AT_ONCE_BYTES_MAX: usize = 256 << 10;
/// A failed write or sync is tried again after this.
const RETRY: Duration = Duration::from_millis(200);
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// What is committed is noted in the file at the latest so long after the last entry.
const NOTE_COMMIT_AFTER: Duration = Duration::from_millis(100);
/// The shell looks again so often, whatever happens.
const IDLE: Duration = Duration::from_millis(500);
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The rewrite that is under way.
#[derive(Debug)]
struct Rewrite {
    id: RewriteId,
    /// Its snapshot contains the log up to here.
    at: Position,
    /// Whose history that was.
    shard: Option<ShardId>,
    /// The file that follows the snapshot, when it is in use.
    rotated: Option<FileNumber>,
    /// The snapshot is written. A small one may be before the rotation, which may have had to wait for the disk.
    is_written: bool,
}

/// A sync in the background.
#[derive(Debug)]
struct Syncing {
    file: FileNumber,
    /// What is on the disk when it succeeds; `None`: the file was cut meanwhile.
    mark: Option<Mark>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct DiskLog {
    batch_bytes: usize,
    file: LogFile,
    /// The file that a rotation has begun, with the shard in its head.
    begun: Option<(LogFile, Option<ShardId>)>,
    /// Base and files add up to the keyspace.
    is_complete: bool,
    /// What the shell is doing.
    doing: Option<Action>,
    /// Why, if entries are being taken back.
    turning: Option<Rewind>,
    syncing: Option<Syncing>,
    synced_at: Monotonic,
    wrote_at: Monotonic,
    retry_at: Option<Monotonic>,
    /// A sync has failed, and the file was not cut yet.
    must_shorten: bool,
    noted_commit: LogIndex,
    noted_shard: Option<ShardId>,
    is_stopping: bool,
    has_ended: bool,
    rewrite: Option<Rewrite>,
}

impl DiskLog {
    /// Goes on in `file`, which with the files before it and the base has the whole log. `noted_commit` is what it says
    /// of the commit index, `noted_shard` whose history it is.
    pub fn new(
        now: Monotonic,
        batch_bytes: usize,
        file: LogFile,
        noted_commit: LogIndex,
        noted_shard: Option<ShardId>,
    ) -> DiskLog {
        DiskLog {
            batch_bytes,
            file,
            begun: None,
            is_complete: true,
            doing: None,
            turning: None,
            syncing: None,
            synced_at: now,
            wrote_at: now,
            retry_at: None,
            must_shorten: false,
            noted_commit,
            noted_shard,
            is_stopping: false,
            has_ended: false,
            rewrite: None,
        }
    }

    /// As [`DiskLog::new`], for a file before which there is no base yet.
    pub fn without_base(
        now: Monotonic,
        batch_bytes: usize,
        file: LogFile,
        noted_shard: Option<ShardId>,
    ) -> DiskLog {
        let noted_commit = file.end.index;
        DiskLog { is_complete: false, ..DiskLog::new(now, batch_bytes, file, noted_commit, noted_shard) }
    }

    /// Up to where the files have the log.
    pub fn last(&self) -> LogIndex {
        self.file.end.index
    }

    /// The file that is being written.
    pub fn file(&self) -> &LogFile {
        &self.file
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    // ------------------------------------------------------------------ events

    /// Before anything else: tells the log where its disk is.
    pub fn start(&self, log: &mut WriteLog, conditions: &Conditions, notes: &mut Vec<Note>) {
        self.publish(0, log, conditions, notes);
    }

    /// What is left is written and synced, whatever `appendfsync` says; then it ends.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// After the end.
    pub fn close(&mut self, log: &mut WriteLog, notes: &mut Vec<Note>) {
        self.give_up_rewrite(log, notes);
        log.unpin(WRITER_PIN);
    }

    /// A snapshot begins that contains the log up to `at`: what follows is kept in memory for the file that follows it.
    /// Called under the same lock as what determines `at`.
    pub fn keep_for_rewrite(log: &mut WriteLog, at: LogIndex) {
        log.pin(REWRITE_PIN, at);
    }

    /// That snapshot becomes the base; an earlier one does not any more.
    pub fn begin_rewrite(&mut self, id: RewriteId, stamp: Stamp, log: &mut WriteLog, notes: &mut Vec<Note>) {
        let Stamp { at, shard } = stamp;
        if self.rewrite.is_some() {
            self.give_up_rewrite(log, notes);
            Self::keep_for_rewrite(log, at.index);
        }
        self.rewrite = Some(Rewrite { id, at, shard, rotated: None, is_written: false });
    }

    /// The snapshot is on the disk.
    pub fn base_written(&mut self, id: RewriteId, notes: &mut Vec<Note>) {
        match &mut self.rewrite {
            Some(rewrite) if rewrite.id == id => rewrite.is_written = true,
            Some(_) | None => notes.push(Note::RewriteGivenUp(id)),
        }
    }

    /// There will be no snapshot.
    pub fn rewrite_failed(&mut self, id: RewriteId, log: &mut WriteLog, notes: &mut Vec<Note>) {
        if self.rewrite.as_ref().is_some_and(|r| r.id == id) {
            self.give_up_rewrite(log, notes);
        }
    }

    /// A sync in the background has ended.
    pub fn sync_ended(
        &mut self,
        now: Monotonic,
        result: Result<(), Remedy>,
        log: &mut WriteLog,
        notes: &mut Vec<Note>,
    ) {
        let Some(Syncing { file, mark }) = self.syncing.take() else { return };
        // A file that is not written any more was synced when it was left.
        if file != self.file.number {
            return;
        }
        match result {
            Err(remedy) => self.fail_sync(now, remedy, log, notes),
            Ok(()) => {
                if let Some(mark) = mark.filter(|mark| self.file.synced.bytes <= mark.bytes) {
                    self.file.synced = mark;
                    log.pin(WRITER_PIN, mark.index);
                    self.publish_synced(log);
                }
            }
        }
    }

    // ------------------------------------------------------------------ what is done next

    /// What is to be done now.
    pub fn next(
        &mut self,
        now: Monotonic,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) -> Action {
        assert!(self.doing.is_none(), "one action at a time");
        let action = self.choose(now, log, conditions, notes);
        let is_answered = !matches!(action, Action::Wait(_) | Action::StartSync(_) | Action::End);
        self.doing = is_answered.then(|| action.clone());
        action
    }

    /// What whoever has appended may write at once instead of waiting for [`DiskLog::next`]: a batch that is small and need
    /// not be synced, if nothing else is to be done before. It is answered as any action.
    pub fn next_write(
        &mut self,
        now: Monotonic,
        log: &mut WriteLog,
        conditions: &Conditions,
    ) -> Option<Action> {
        if !self.only_writes(now, log, conditions) {
            return None;
        }
        let slice = log.read_from(self.last().next(), AT_ONCE_BYTES_MAX).ok()?;
        if slice.count == 0 || AT_ONCE_BYTES_MAX < slice.bytes.len() {
            return None;
        }
        let action = Action::Write(self.batch(slice, conditions));
        self.doing = Some(action.clone());
        Some(action)
    }

    /// Whether writing what was appended is all that there is to do.
    fn only_writes(&self, now: Monotonic, log: &WriteLog, conditions: &Conditions) -> bool {
        let is_sync_due = match conditions.fsync {
            Fsync::Always => true,
            // A write may have to wait for a sync that is under way.
            Fsync::EverySecond => {
                self.syncing.is_some() || (!self.file.is_synced() && SYNC_EVERY <= now.since(self.synced_at))
            }
            Fsync::No => self.syncing.is_some(),
        };
        // The file that follows its snapshot is in use, and the snapshot is being written.
        let goes_on = |rewrite: &Rewrite| rewrite.rotated.is_some() && !rewrite.is_written;
        let is_idle = self.doing.is_none() && !self.has_ended && !self.is_stopping;
        let is_whole = !self.must_shorten && self.retry_at.is_none() && !log.has_rewind();
        is_idle
            && is_whole
            && !is_sync_due
            && self.rewrite.as_ref().is_none_or(goes_on)
            && log.shard() == self.noted_shard.as_ref()
    }

    fn choose(
        &mut self,
        now: Monotonic,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) -> Action {
        if self.has_ended {
            return Action::End;
        }
        if std::mem::take(&mut self.must_shorten) {
            return Action::Shorten { at: self.file.end.bytes };
        }
        if let Some(at) = self.retry_at.filter(|at| now < *at && !self.is_stopping) {
            return Action::Wait(at.since(now));
        }
        let chosen = self
            .start_sync(now, conditions)
            .or_else(|| self.turn_back(log, conditions, notes))
            .or_else(|| self.rotate(log, conditions, notes))
            .or_else(|| self.adopt(conditions));
        if let Some(action) = chosen {
            return action;
        }
        if log.shard() != self.noted_shard.as_ref() {
            return Action::WriteShard { at: self.file.end.bytes, shard: log.shard().cloned() };
        }
        let Ok(slice) = log.read_from(self.last().next(), self.batch_bytes) else {
            return self.begin_behind_lost(now, log, notes);
        };
        match self.up_to_rotation(slice) {
            slice if slice.count > 0 => self.write(slice, conditions),
            end => self.idle(now, &end, conditions),
        }
    }

    /// The next file begins behind this entry.
    fn up_to_rotation(&self, slice: Slice) -> Slice {
        match &self.rewrite {
            Some(Rewrite { at, rotated: None, .. }) if self.syncing.is_none() => slice.up_to(at.index),
            Some(_) | None => slice,
        }
    }

    fn write(&self, slice: Slice, conditions: &Conditions) -> Action {
        let batch = self.batch(slice, conditions);
        match conditions.fsync {
            Fsync::Always => Action::WriteAndSync(batch),
            Fsync::EverySecond | Fsync::No => Action::Write(batch),
        }
    }

    fn batch(&self, slice: Slice, conditions: &Conditions) -> Batch {
        let synced = match conditions.fsync {
            Fsync::No => self.file.end.bytes,
            Fsync::Always | Fsync::EverySecond => self.file.synced.bytes,
        };
        Batch { at: self.file.end.bytes, commit: conditions.commit.min(slice.last().index), synced, slice }
    }

    /// Everything is written.
    fn idle(&self, now: Monotonic, end: &Slice, conditions: &Conditions) -> Action {
        if self.is_stopping {
            return if self.syncing.is_some() { Action::Wait(WAIT_MIN) } else { Action::Sync };
        }
        let mut wait = IDLE;
        // So that after a restart nothing that was committed has to wait for the others.
        if !conditions.is_standalone && self.noted_commit < conditions.commit.min(self.last()) {
            let due = self.wrote_at + NOTE_COMMIT_AFTER;
            if due <= now {
                return Action::Write(self.batch(Slice::empty(end.previous), conditions));
            }
            wait = due.since(now);
        }
        if self.retry_at.is_some() {
            // Nothing is left to be written: what failed was a sync, or a note.
            return Action::Sync;
        }
        if conditions.fsync == Fsync::EverySecond && !self.file.is_synced() {
            wait = wait.min((self.synced_at + SYNC_EVERY).since(now));
        }
        Action::Wait(wait.max(WAIT_MIN))
    }

    fn start_sync(&mut self, now: Monotonic, conditions: &Conditions) -> Option<Action> {
        let is_due = conditions.fsync == Fsync::EverySecond
            && self.retry_at.is_none()
            && self.syncing.is_none()
            && !self.file.is_synced()
            && SYNC_EVERY <= now.since(self.synced_at);
        is_due.then(|| {
            self.synced_at = now;
            self.syncing = Some(Syncing { file: self.file.number, mark: Some(self.file.end) });
            Action::StartSync(self.file.number)
        })
    }

    // ------------------------------------------------------------------ turning back

    /// Entries that the files may have are not in the log any more.
    fn turn_back(
        &mut self,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) -> Option<Action> {
        let rewind = log.take_rewind()?;
        // It may repeat what is gone.
        self.begun = None;
        let is_gone = |at: Position| match rewind {
            Rewind::To(index) => index < at.index,
            Rewind::All => true,
        };
        if self.rewrite.as_ref().is_some_and(|r| is_gone(r.at)) {
            self.give_up_rewrite(log, notes);
        }
        let action = match rewind {
            Rewind::To(index) if self.last() <= index => {
                log.retract_disk(self.last());
                self.publish(0, log, conditions, notes);
                return None;
            }
            Rewind::To(index) => self.file.cut_after(index).map(Action::Cut),
            Rewind::All => None,
        };
        self.turning = Some(rewind);
        notes.push(Note::TurnedBack(rewind));
        Some(action.unwrap_or_else(|| self.begin_anew(log, notes)))
    }

    /// A new file before which there is no base yet: nothing in it counts until there is one.
    fn begin_anew(&mut self, log: &mut WriteLog, notes: &mut Vec<Note>) -> Action {
        // The file that would follow its snapshot is left, with entries that are gone.
        if self.rewrite.as_ref().is_some_and(|r| r.rotated.is_some()) {
            self.give_up_rewrite(log, notes);
        }
        let index = log.written();
        let follows = Position { term: log.term_at(index).unwrap_or_default(), index };
        Action::BeginFile(Begin::Anew, Head { awaits_base: true, ..head_of(log, follows) })
    }

    /// Neither the files nor the memory have some entries, as after a failed sync of more than memory keeps. The keyspace has
    /// them, so a base is all that is needed.
    fn begin_behind_lost(&mut self, now: Monotonic, log: &mut WriteLog, notes: &mut Vec<Note>) -> Action {
        notes.push(Note::EntriesLost);
        if self.is_stopping {
            self.has_ended = true;
            return Action::Wait(RETRY);
        }
        self.retry_at = Some(now + RETRY);
        self.turning = Some(Rewind::All);
        let index = LogIndex::new(log.first_index().get() - 1);
        let follows = Position { term: log.term_at(index).unwrap_or_default(), index };
        Action::BeginFile(Begin::Anew, Head { awaits_base: true, ..head_of(log, follows) })
    }

    // ------------------------------------------------------------------ rewriting

    /// Goes on in a new file that follows the snapshot. What the current one has beyond that (entries that are not
    /// applied yet, on a replica) is in both: whoever loads them takes it once.
    fn rotate(
        &mut self,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) -> Option<Action> {
        let rewrite = self.rewrite.as_ref().filter(|r| r.rotated.is_none() && r.at.index <= self.last())?;
        // A sync that fails is told once, to whoever waits for it: nobody would ask about a file that was left.
        if self.retry_at.is_some() || self.syncing.is_some() {
            return None;
        }
        let Some((next, _)) = &self.begun else {
            // If the shard is another one since, the file says so behind what it repeats.
            let shard = rewrite.shard.clone();
            let head = Head { awaits_base: !self.is_complete, shard, ..head_of(log, rewrite.at) };
            return Some(Action::BeginFile(Begin::Rotation, head));
        };
        if next.end.index == self.last() {
            return Some(Action::Switch { awaits_base: !self.is_complete });
        }
        let Ok(slice) = log.read_from(next.end.index.next(), self.batch_bytes) else {
            self.give_up_rewrite(log, notes);
            return None;
        };
        let slice = slice.up_to(self.last());
        let commit = conditions.commit.min(slice.last().index);
        Some(Action::Repeat(Batch { at: next.end.bytes, slice, commit, synced: 0 }))
    }

    fn adopt(&self, conditions: &Conditions) -> Option<Action> {
        let rewrite = self.rewrite.as_ref()?;
        let first = rewrite.rotated.filter(|_| rewrite.is_written)?;
        // What a primary executed might yet be taken back. Without a base it has to do: nothing that such a node executes
        // is committed before it has one, and if it is taken back after all, a full sync is due.
        let may_stand = !self.is_complete || conditions.are_settled(rewrite.at.index);
        may_stand.then_some(Action::Adopt { rewrite: rewrite.id, first })
    }

    fn give_up_rewrite(&mut self, log: &mut WriteLog, notes: &mut Vec<Note>) {
        if let Some(rewrite) = self.rewrite.take() {
            self.begun = None;
            notes.push(Note::RewriteGivenUp(rewrite.id));
            if !self.is_complete {
                notes.push(Note::NeedsBase);
            }
            log.unpin(REWRITE_PIN);
        }
    }

    // ------------------------------------------------------------------ what was done

    /// How the last action has ended.
    pub fn completed(
        &mut self,
        now: Monotonic,
        result: Result<Done, Failure>,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) {
        let action = self.doing.take().expect("an answer to an action");
        match result {
            Ok(done) => self.succeeded(now, action, done, log, conditions, notes),
            Err(failure) => self.failed(now, &action, failure, log, conditions, notes),
        }
    }

    fn succeeded(
        &mut self,
        now: Monotonic,
        action: Action,
        done: Done,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) {
        match action {
            Action::Write(batch) => {
                self.wrote(now, &batch, done.bytes, conditions);
                if batch.slice.count == 0 {
                    return;
                }
                self.recovered(notes);
                self.publish(batch.slice.bytes.len() as u64, log, conditions, notes);
            }
            Action::WriteAndSync(batch) => {
                self.wrote(now, &batch, done.bytes, conditions);
                self.synced(now);
                self.recovered(notes);
                self.publish(batch.slice.bytes.len() as u64, log, conditions, notes);
            }
            Action::WriteShard { shard, .. } => {
                self.file.append(done.bytes);
                self.synced(now);
                self.noted_shard = shard;
            }
            Action::Sync => {
                self.synced(now);
                self.has_ended = self.is_stopping;
                self.recovered(notes);
                self.publish(0, log, conditions, notes);
            }
            Action::Cut(cut) => {
                if let Some(Rewind::To(index)) = self.turning.take() {
                    self.void_sync();
                    self.file.was_cut(&cut, index, done.bytes);
                    self.turned_back(log, conditions, notes);
                }
            }
            Action::BeginFile(Begin::Anew, head) => {
                self.turning = None;
                self.file = LogFile::begun(done.file, head.follows.index, done.bytes);
                self.is_complete = false;
                self.noted_shard = head.shard;
                notes.push(Note::NeedsBase);
                self.turned_back(log, conditions, notes);
            }
            Action::BeginFile(Begin::Rotation, head) => self.begin_repeating(done, head),
            Action::Repeat(batch) => {
                if let Some((next, _)) = &mut self.begun {
                    next.append_batch(&batch.slice, done.bytes, conditions.settled(&batch.slice));
                }
            }
            Action::Switch { .. } => self.switched(log, conditions, notes),
            Action::Adopt { rewrite, first } => self.adopted(rewrite, first, log, conditions, notes),
            Action::Shorten { .. } | Action::Wait(_) | Action::StartSync(_) | Action::End => {}
        }
    }

    fn wrote(&mut self, now: Monotonic, batch: &Batch, bytes: u64, conditions: &Conditions) {
        self.noted_commit = batch.commit;
        if batch.slice.count == 0 {
            return self.file.append(bytes);
        }
        self.file.append_batch(&batch.slice, bytes, conditions.settled(&batch.slice));
        self.wrote_at = now;
    }

    fn synced(&mut self, now: Monotonic) {
        self.file.sync();
        self.synced_at = now;
    }

    fn turned_back(&mut self, log: &mut WriteLog, conditions: &Conditions, notes: &mut Vec<Note>) {
        self.noted_commit = self.noted_commit.min(self.last());
        log.retract_disk(self.last());
        self.publish(0, log, conditions, notes);
    }

    fn begin_repeating(&mut self, done: Done, head: Head) {
        let mut next = LogFile::begun(done.file, head.follows.index, done.bytes);
        if mutation::is_on(Mutation::AdoptedBaseLosesBatch) {
            // As if the snapshot contained whatever is written.
            next.end.index = self.last();
        }
        self.begun = Some((next, head.shard));
    }

    fn switched(&mut self, log: &mut WriteLog, conditions: &Conditions, notes: &mut Vec<Note>) {
        let Some((mut next, shard)) = self.begun.take() else { return };
        next.sync();
        next.repeats = self.last();
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.rotated = Some(next.number);
        }
        (self.file, self.noted_shard) = (next, shard);
        log.unpin(REWRITE_PIN);
        self.publish(0, log, conditions, notes);
    }

    /// The base is in place.
    fn adopted(
        &mut self,
        id: RewriteId,
        first: FileNumber,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) {
        self.rewrite = None;
        self.is_complete = true;
        if first == self.file.number {
            // No file before it counts.
            self.file.repeats = self.file.follows;
        }
        notes.push(Note::RewriteDone(id));
        log.require_disk();
        self.recovered(notes);
        self.publish(0, log, conditions, notes);
    }

    fn failed(
        &mut self,
        now: Monotonic,
        action: &Action,
        failure: Failure,
        log: &mut WriteLog,
        conditions: &Conditions,
        notes: &mut Vec<Note>,
    ) {
        match action {
            Action::Write(_) | Action::WriteAndSync(_) | Action::WriteShard { .. } | Action::Sync => {
                match failure.step {
                    Step::Write => self.fail(now, failure.remedy, notes),
                    // Nobody has said that anything of the file is on the disk, and what was written is not in memory any more.
                    Step::Sync if conditions.fsync == Fsync::No => {
                        self.fail(now, failure.remedy, notes);
                        self.must_shorten = true;
                    }
                    Step::Sync => self.fail_sync(now, failure.remedy, log, notes),
                }
            }
            // Until this has succeeded nothing may be added to the file.
            Action::Cut(_) | Action::BeginFile(Begin::Anew, _) => {
                let rewind = self.turning.take().expect("only a rewind cuts");
                log.remember_rewind(rewind);
                // What lies before the cut was to be synced with it, and the next sync would not tell.
                let loses_more = failure.step == Step::Sync
                    && conditions.fsync != Fsync::No
                    && matches!(action, Action::Cut(cut) if self.file.synced.bytes <= cut.at);
                match loses_more {
                    true => self.fail_sync(now, failure.remedy, log, notes),
                    false => self.fail(now, failure.remedy, notes),
                }
            }
            Action::BeginFile(Begin::Rotation, _) | Action::Repeat(_) | Action::Switch { .. } => {
                self.begun = None;
                if failure.remedy == Remedy::None {
                    self.give_up_rewrite(log, notes);
                }
                // The file stays in use. Under `appendfsync no` nobody has said that anything of it is on the disk.
                if failure.step == Step::Sync && conditions.fsync != Fsync::No {
                    self.fail_sync(now, failure.remedy, log, notes);
                }
            }
            Action::Adopt { .. } => self.give_up_rewrite(log, notes),
            Action::Shorten { .. } | Action::Wait(_) | Action::StartSync(_) | Action::End => {}
        }
    }

    fn fail(&mut self, now: Monotonic, remedy: Remedy, notes: &mut Vec<Note>) {
        if remedy == Remedy::RoomMade {
            return;
        }
        self.retry_at = Some(now + RETRY);
        self.has_ended = self.is_stopping;
        notes.push(Note::Failing);
    }

    /// What was written since the last sync may be lost, and another sync would not tell: it is written again.
    fn fail_sync(&mut self, now: Monotonic, remedy: Remedy, log: &mut WriteLog, notes: &mut Vec<Note>) {
        self.fail(now, remedy, notes);
        self.void_sync();
        self.file.forget_unsynced();
        self.must_shorten = true;
        log.retract_disk(self.last());
    }

    /// A sync that is under way says nothing of what the file will hold.
    fn void_sync(&mut self) {
        if let Some(syncing) = &mut self.syncing {
            syncing.mark = None;
        }
    }

    fn recovered(&mut self, notes: &mut Vec<Note>) {
        if self.retry_at.take().is_some() {
            notes.push(Note::Recovered);
        }
    }

    /// Tells the log how far it is on disk; `frame_bytes` more than before. After a rewind it is not told: the log has
    /// turned back meanwhile.
    fn publish(&self, frame_bytes: u64, log: &mut WriteLog, conditions: &Conditions, notes: &mut Vec<Note>) {
        if !log.set_written(self.last(), frame_bytes) {
            return;
        }
        let durable = match conditions.fsync {
            _ if !self.is_complete => LogIndex::ZERO,
            Fsync::Always => self.file.synced.index,
            Fsync::EverySecond | Fsync::No => self.last(),
        };
        log.set_durable(durable);
        self.publish_synced(log);
        let kept = match conditions.fsync {
            Fsync::No => self.last(),
            Fsync::Always | Fsync::EverySecond => self.file.synced.index,
        };
        log.pin(WRITER_PIN, kept);
        if conditions.is_standalone {
            log.release(self.last());
        }
        notes.push(Note::Published { durable });
    }

    fn publish_synced(&self, log: &mut WriteLog) {
        log.set_synced(if self.is_complete { self.file.synced.index } else { LogIndex::ZERO });
    }

    /// Panics if the core contradicts itself or the log.
    pub fn check_invariants(&self, log: &WriteLog) {
        self.file.check_invariants();
        if let Some((next, _)) = &self.begun {
            next.check_invariants();
            assert!(next.end.index <= self.last(), "a file repeats more than there is");
        }
        if !log.has_disk() || log.has_rewind() || self.turning.is_some() {
            return;
        }
        assert_eq!(log.written(), self.last(), "the log knows what is written");
        let counts = self.is_complete || !log.disk_gates();
        assert!(counts || log.durable() == LogIndex::ZERO, "something is durable without a base");
    }
}
