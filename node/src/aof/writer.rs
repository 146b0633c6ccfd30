//! Writes the log to disk.
//!
//! What is done, and when, is decided by the core ([`keyward_replication::disk_log`]); this carries it out with files, syncs and
//! the manifest, and tells the rest of the node what follows. The log's lock is held while the core looks and is told,
//! never while the disk works. So one write and one sync serve all clients that wait. By which thread it is done is the
//! business of [`super::shared_writer`].
//!
//! **When the disk is full** the files that are only kept for replicas make room before a write is refused.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::time::Monotonic;
use keyward_replication::disk_log::{
    self, Action, Batch, Begin, Conditions, DiskLog, Done, Failure, FileNumber, Note, Remedy, RewriteId, Step,
};
use keyward_replication::gate::DiskState;
use keyward_replication::log::{Rewind, WriteLog};

use super::Aof;
use super::directory::Directory;
use super::file::Incremental;
use super::format::{Encoder, Head, head_line, shard_line};
use super::manifest::{AofFile, BaseFacts, Manifest};
use super::replaced;
use super::rewrites::RewriteFlags;
use super::segments::{History, Segment};
use super::state::WriterRequest;
use super::sync::Syncer;
use crate::clock;
use crate::execute::UNWRITTEN_BYTES_MAX;
use crate::server::Server;

/// Bytes of entries in a batch, about.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// A sync that takes longer is counted as delayed.
const SYNC_DELAYED: Duration = Duration::from_secs(2);

/// What is left to do by the writer's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtOnce {
    Done,
    More,
}

/// What the thread does next.
pub(super) enum Next {
    Again,
    /// Something happens, or at the latest after this.
    Wait(Duration),
    End,
}

/// See the module documentation.
pub(super) struct Writer {
    pub(super) server: Arc<Server>,
    pub(super) directory: Directory,
    pub(super) manifest: Manifest,
    pub(super) core: DiskLog,
    current: Incremental,
    encoder: Encoder,
    begun: Option<Begun>,
    syncer: Arc<Syncer>,
    /// The file of the last sync in the background.
    syncing: FileNumber,
    /// When it began, until it is counted as delayed.
    sync_started_at: Option<Monotonic>,
    rewrite: Option<Rewrite>,
    next_rewrite: u64,
    /// Files before the current one that no manifest names.
    pub(super) unlisted: Vec<AofFile>,
    /// A buffer.
    notes: Vec<Note>,
}

/// The file that a rotation has begun.
struct Begun {
    file: Incremental,
    encoder: Encoder,
    follows: LogIndex,
}

/// The rewrite that is under way.
struct Rewrite {
    id: RewriteId,
    shared: Arc<RewriteFlags>,
    /// The snapshot, as soon as it is written.
    base: Option<(AofFile, BaseFacts)>,
}

/// When the manifest names a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Now,
    /// Together with the base that it follows.
    WithBase,
}

/// An action's outcome, with the system's error.
type Outcome = Result<Done, (Step, io::Error)>;

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Writer {
    /// Goes on in `current`, of which `core` knows what is in it.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn new(
        server: &Arc<Server>,
        directory: Directory,
        manifest: Manifest,
        current: Incremental,
        core: DiskLog,
    ) -> io::Result<Writer> {
        Ok(Writer {
            server: Arc::clone(server),
            directory,
            manifest,
            core,
            current,
            encoder: Encoder::default(),
            begun: None,
            syncer: Syncer::start()?,
            syncing: FileNumber(0),
            sync_started_at: None,
            rewrite: None,
            next_rewrite: 0,
            unlisted: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Before the first step.
    pub(super) fn start(&mut self) {
        self.with_core(|core, log, conditions, notes| core.start(log, conditions, notes));
    }

    /// After [`Next::End`].
    pub(super) fn close(&mut self) {
        self.with_core(|core, log, _, notes| core.close(log, notes));
        self.syncer.stop();
    }

    fn aof(&self) -> &Aof {
        &self.server.aof
    }

    /// Runs the core under the log's lock, and afterwards tells what follows.
    fn with_core<T>(
        &mut self,
        run: impl FnOnce(&mut DiskLog, &mut WriteLog, &Conditions, &mut Vec<Note>) -> T,
    ) -> T {
        let conditions = conditions(&self.server);
        let mut notes = std::mem::take(&mut self.notes);
        let result = run(&mut self.core, &mut self.server.shared.log.lock(), &conditions, &mut notes);
        notes.drain(..).for_each(|note| self.tell(note));
        self.notes = notes;
        result
    }

    /// Writes what was appended, called by whoever did that, if it is short and nothing else is due.
    pub(super) fn write_appended(&mut self) -> AtOnce {
        let was_synced = self.core.file().is_synced();
        let now = clock::monotonic();
        let action = self
            .with_core(|core, log, conditions, _| core.next_write(now, log, conditions).ok_or(log.last()));
        match action {
            Ok(Action::Write(batch)) => {
                let outcome = self.write(&batch);
                // A failure is the thread's business, and the first write after a sync sets the time of the next.
                let thread_is_needed = outcome.is_err() || was_synced;
                let last = batch.slice.last().index;
                self.completed(&Action::Write(batch), outcome);
                let is_last = self.server.shared.log.lock().last().index <= last;
                if is_last && !thread_is_needed { AtOnce::Done } else { AtOnce::More }
            }
            Err(last) if last.index <= self.core.last() => AtOnce::Done,
            Ok(_) | Err(_) => AtOnce::More,
        }
    }

    pub(super) fn step(&mut self) -> Next {
        for request in self.aof().take_requests() {
            self.answer(request);
        }
        let now = clock::monotonic();
        self.look_after_sync(now);
        let action = self.with_core(|core, log, conditions, notes| core.next(now, log, conditions, notes));
        let outcome = match &action {
            Action::Wait(time) => return Next::Wait(*time),
            Action::End => return Next::End,
            Action::StartSync(file) => {
                self.start_sync(now, *file);
                return Next::Again;
            }
            Action::Write(batch) => self.write(batch),
            Action::WriteAndSync(batch) => self.write(batch).and_then(|done| self.sync().map(|_| done)),
            Action::WriteShard { at, shard } => {
                let written = self.current.append(*at, shard_line(shard.as_ref()).as_bytes());
                let done = self.done(shard_line(shard.as_ref()).len() as u64);
                written.map(|()| done).map_err(writing).and_then(|done| self.sync().map(|_| done))
            }
            Action::Sync => self.sync(),
            Action::Cut(cut) => self.current.cut(cut, &mut self.encoder).map(|bytes| self.done(bytes)),
            Action::Shorten { at } => {
                self.encoder.forget_db();
                self.current.forget_unsynced(*at).map(|()| self.done(0)).map_err(writing)
            }
            Action::BeginFile(begin, head) => self.begin_file(*begin, head).map_err(writing),
            Action::Repeat(batch) => self.repeat(batch).map_err(writing),
            Action::Switch { awaits_base } => {
                let naming = if *awaits_base { Naming::WithBase } else { Naming::Now };
                self.sync().and_then(|_| self.switch(naming).map_err(writing))
            }
            Action::Adopt { rewrite, first } => self.adopt(*rewrite, *first).map_err(writing),
        };
        self.completed(&action, outcome);
        Next::Again
    }

    fn completed(&mut self, action: &Action, outcome: Outcome) {
        let result = outcome.map_err(|(step, error)| Failure { step, remedy: self.remedy(action, &error) });
        let now = clock::monotonic();
        self.with_core(|core, log, conditions, notes| core.completed(now, result, log, conditions, notes));
        self.aof().counters.current_bytes.store(self.core.file().bytes(), Ordering::Relaxed);
    }

    fn answer(&mut self, request: WriterRequest) {
        match request {
            WriterRequest::Stop => self.core.stop(),
            WriterRequest::Rotate { stamp, rewrite } => {
                let id = RewriteId(self.next_rewrite);
                self.next_rewrite += 1;
                self.with_core(|core, log, _, notes| core.begin_rewrite(id, stamp, log, notes));
                self.rewrite = Some(Rewrite { id, shared: rewrite, base: None });
            }
            WriterRequest::Adopt { base, facts, rewrite } => match &mut self.rewrite {
                Some(current) if Arc::ptr_eq(&current.shared, &rewrite) => {
                    current.base = Some((base, facts));
                    let id = current.id;
                    self.with_core(|core, _, _, notes| core.base_written(id, notes));
                }
                Some(_) | None => rewrite.given_up.store(true, Ordering::Release),
            },
            WriterRequest::GiveUp { rewrite } => {
                let found = self.rewrite.as_ref().filter(|r| Arc::ptr_eq(&r.shared, &rewrite));
                match found.map(|r| r.id) {
                    Some(id) => self.with_core(|core, log, _, notes| core.rewrite_failed(id, log, notes)),
                    None => rewrite.given_up.store(true, Ordering::Release),
                }
            }
        }
    }

    /// Tells the rest of the node.
    fn tell(&mut self, note: Note) {
        let shared = &self.server.shared;
        match note {
            Note::Published { durable } => self.tell_published(durable),
            Note::Failing => shared.gate.set_disk(DiskState::Failed),
            Note::EntriesLost => self.tell_failure(
                "the write log has dropped entries that are not on disk: it counts again when a new base is written",
            ),
            Note::Recovered => {
                tracing::warn!("the write log is written again: writes are accepted");
                self.aof().set_error(None);
                shared.gate.set_disk(DiskState::Healthy);
            }
            Note::TurnedBack(Rewind::To(index)) => {
                tracing::info!(%index, "entries that were never committed are removed from the disk");
            }
            Note::TurnedBack(Rewind::All) => {}
            Note::NeedsBase => self.aof().require_base(),
            Note::RewriteGivenUp(id) => self.end_rewrite(id, |shared| &shared.given_up),
            Note::RewriteDone(id) => {
                self.aof().note_base();
                self.end_rewrite(id, |shared| &shared.done);
            }
        }
    }

    fn end_rewrite(&mut self, id: RewriteId, flag: fn(&RewriteFlags) -> &std::sync::atomic::AtomicBool) {
        if let Some(rewrite) = self.rewrite.take_if(|r| r.id == id) {
            flag(&rewrite.shared).store(true, Ordering::Release);
        }
    }

    fn tell_published(&self, durable: LogIndex) {
        let shared = &self.server.shared;
        let gate = &shared.gate;
        if gate.disk() == DiskState::Lagging && shared.log.lock().unwritten_bytes() < UNWRITTEN_BYTES_MAX / 2
        {
            tracing::warn!("the disk has caught up with the write log");
            gate.set_disk(DiskState::Healthy);
        }
        if !gate.is_standalone() {
            shared.durable_advanced();
        } else if self.core.is_complete() {
            gate.set_standalone_commit(durable);
        }
    }

    fn tell_failure(&self, text: &str) {
        self.aof().set_error(Some(text.to_owned()));
        self.server.shared.gate.set_disk(DiskState::Failed);
    }

    // ------------------------------------------------------------------ writing

    fn done(&self, bytes: u64) -> Done {
        Done { file: FileNumber(self.current.name.seq), bytes }
    }

    fn write(&mut self, batch: &Batch) -> Outcome {
        let bytes = self.encoder.encode(&batch.slice, batch.commit, batch.synced);
        self.current.append(batch.at, bytes).map_err(writing)?;
        let bytes = bytes.len() as u64;
        Ok(self.done(bytes))
    }

    fn sync(&mut self) -> Outcome {
        self.current.file.sync_data().map(|()| self.done(0)).map_err(|error| (Step::Sync, error))
    }

    // ------------------------------------------------------------------ syncing in the background

    fn start_sync(&mut self, now: Monotonic, file: FileNumber) {
        debug_assert_eq!(file.0, self.current.name.seq);
        (self.syncing, self.sync_started_at) = (file, Some(now));
        self.aof().counters.pending_syncs.store(1, Ordering::Relaxed);
        self.syncer.submit(Arc::clone(&self.current.file), std::thread::current());
    }

    /// Takes note of a sync that has ended, or takes long.
    fn look_after_sync(&mut self, now: Monotonic) {
        if let Some(result) = self.syncer.take_done() {
            self.sync_started_at = None;
            self.aof().counters.pending_syncs.store(0, Ordering::Relaxed);
            // A file that was left is no concern any more.
            let is_current = self.syncing == self.core.file().number();
            let tell = |error| if is_current { self.tell_error("fsync", &error) } else { Remedy::None };
            let result = result.map_err(tell);
            self.with_core(|core, log, _, notes| core.sync_ended(now, result, log, notes));
        }
        if let Some(started) = self.sync_started_at
            && SYNC_DELAYED <= now.since(started)
        {
            self.sync_started_at = None;
            self.aof().counters.delayed_syncs.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("syncing the write log takes long: the disk is busy");
        }
    }

    // ------------------------------------------------------------------ failures

    /// What can be done about an action that has failed; tells it where nobody else does.
    fn remedy(&mut self, action: &Action, error: &io::Error) -> Remedy {
        match action {
            Action::Shorten { .. } => {
                tracing::error!(%error, "the write log can't be cut to what was synced");
                Remedy::None
            }
            Action::Adopt { .. } => {
                tracing::warn!(%error, "the new base of the write log can't be put in place");
                Remedy::None
            }
            Action::BeginFile(Begin::Rotation, _) | Action::Repeat(_) | Action::Switch { .. } => {
                self.begun = None;
                let remedy = self.give_up_history(error);
                if remedy == Remedy::None {
                    tracing::warn!(%error, "the write log can't go on in a new file");
                }
                remedy
            }
            Action::Sync | Action::WriteAndSync(_) | Action::WriteShard { .. } => {
                self.tell_error("write or fsync", error)
            }
            Action::Cut(_) | Action::BeginFile(Begin::Anew, _) => self.tell_error("cut", error),
            Action::Write(_) | Action::Wait(_) | Action::StartSync(_) | Action::End => {
                self.tell_error("write", error)
            }
        }
    }

    /// The log can't be written.
    fn tell_error(&mut self, what: &str, error: &io::Error) -> Remedy {
        self.encoder.forget_db();
        let remedy = self.give_up_history(error);
        if remedy == Remedy::None {
            let text = rustix_text(error);
            if self.aof().status().error.as_deref() != Some(&text) {
                tracing::error!(%error, what, "the write log can't be written: writes are refused until it can");
            }
            self.aof().set_error(Some(text));
        }
        remedy
    }

    /// On a full disk the files that are kept for replicas make room for the log.
    fn give_up_history(&mut self, error: &io::Error) -> Remedy {
        if error.kind() != io::ErrorKind::StorageFull {
            return Remedy::None;
        }
        let first = self.manifest.incremental.first().map_or(self.current.name.seq, |file| file.seq);
        self.set_history(|history| history.trim(first, 0));
        let kept = std::mem::take(&mut self.manifest.kept);
        if kept.is_empty() {
            return self.give_up_replaced();
        }
        tracing::warn!(
            files = kept.len(),
            "the disk is full: what was kept of the log for replicas is deleted"
        );
        self.manifest.history.extend(kept);
        self.directory.delete_files(&mut self.manifest);
        Remedy::RoomMade
    }

    // ------------------------------------------------------------------ other files

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
    fn begin_file(&mut self, begin: Begin, head: &Head) -> io::Result<Done> {
        let mut name = self.manifest.next_incremental(self.directory.prefix());
        if name.seq <= self.current.name.seq {
            name = AofFile::incremental(self.directory.prefix(), self.current.name.seq + 1);
        }
        let (next, bytes) = create_incremental(&self.directory, name, head)?;
        let done = Done { file: FileNumber(next.name.seq), bytes };
        match begin {
            Begin::Rotation => {
                let follows = head.follows.index;
                self.begun = Some(Begun { file: next, encoder: Encoder::default(), follows });
            }
            Begin::Anew => {
                next.file.sync_data()?;
                self.begun = None;
                let segment = Segment::new(&next.name, head.follows.index);
                self.set_history(|history| *history = History::new(vec![segment]));
                self.leave(next);
                self.encoder.forget_db();
            }
        }
        Ok(done)
    }

    fn repeat(&mut self, batch: &Batch) -> io::Result<Done> {
        let Begun { file: next, encoder, .. } = self.begun.as_mut().ok_or_else(not_begun)?;
        let bytes = encoder.encode(&batch.slice, batch.commit, batch.synced);
        next.append(batch.at, bytes)?;
        Ok(Done { file: FileNumber(next.name.seq), bytes: bytes.len() as u64 })
    }

    /// Goes on in the file that was begun. What comes before a file is on the disk when the file counts: the one in use is
    /// synced already.
    fn switch(&mut self, naming: Naming) -> io::Result<Done> {
        let Begun { file: next, encoder, follows } = self.begun.take().ok_or_else(not_begun)?;
        next.file.sync_data()?;
        if naming == Naming::Now {
            let mut manifest = self.manifest.clone();
            manifest.own_from.get_or_insert(next.name.seq);
            manifest.incremental.push(next.name.clone());
            self.directory.write_manifest(&manifest)?;
            self.manifest = manifest;
        }
        let bytes = self.core.file().bytes();
        self.aof().counters.earlier_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.encoder = encoder;
        self.set_history(|history| history.push(Segment::new(&next.name, follows), bytes));
        let done = Done { file: FileNumber(next.name.seq), bytes: 0 };
        self.leave(next);
        Ok(done)
    }

    /// The base is written and synced: from now on it and the files from `first` on are the data.
    fn adopt(&mut self, rewrite: RewriteId, first: FileNumber) -> io::Result<Done> {
        let found = self.rewrite.as_ref().filter(|r| r.id == rewrite).and_then(|r| r.base.clone());
        let (base, facts) = found.ok_or_else(not_begun)?;
        // Nobody follows a node alone.
        let bytes_max = match self.server.shared.gate.is_standalone() {
            true => 0,
            // Never more than what is left beside it: the log itself needs room to grow.
            false => self.server.settings().backlog_disk_bytes.min(self.directory.available_bytes()),
        };
        let mut history = self.aof().history.lock().clone();
        history.trim(first.0, bytes_max);
        let manifest = self.manifest.adopted(
            base,
            facts,
            AofFile::incremental(self.directory.prefix(), first.0),
            history.before(first.0).cloned().collect(),
            &self.unlisted,
        );
        self.keep_replaced();
        self.directory.write_manifest(&manifest)?;
        self.server.shared.log.lock().forget_replaced();
        self.manifest = manifest;
        self.set_history(|kept| *kept = history);
        self.unlisted.clear();
        self.directory.delete_files(&mut self.manifest);
        let counters = &self.server.aof.counters;
        counters.base_bytes.store(facts.bytes, Ordering::Relaxed);
        counters.earlier_bytes.store(0, Ordering::Relaxed);
        counters.rewritten_bytes.store(facts.bytes + self.core.file().bytes(), Ordering::Relaxed);
        Ok(self.done(0))
    }
}

impl Writer {
    /// Before the manifest is replaced: the files of a history that is older than what takes their place.
    fn keep_replaced(&self) {
        let Some(replaced) = self.server.shared.log.lock().replaced_longer().cloned() else { return };
        let shard = replaced.shard.map(|shard| shard.to_string()).unwrap_or_default();
        let (directory, position) = (self.directory.replaced(), replaced.last);
        match self.directory.keep_replaced(&self.manifest) {
            Ok(replaced::Outcome::Kept) => {
                tracing::warn!(
                    directory = %directory.display(), %position, shard,
                    "a full sync has replaced a log that is longer than its source's, or of another shard: the files \
                     are kept for a day. To go back to them end the node and put them in the place of its directory"
                );
                self.aof().replaced.begin();
            }
            Ok(replaced::Outcome::LessThanKept) => {
                tracing::info!(%position, shard, "what a full sync replaces is not kept: more is kept already");
            }
            Ok(replaced::Outcome::NothingThere) => {}
            Err(error) => tracing::error!(%error, "the files that a full sync replaces can't be kept"),
        }
    }

    /// On a full disk what was kept of a replaced history goes before a write is refused.
    fn give_up_replaced(&self) -> Remedy {
        if !self.directory.replaced().is_dir() {
            return Remedy::None;
        }
        match self.directory.forget_replaced() {
            Ok(()) => {
                tracing::warn!("the disk is full: what a full sync had replaced is deleted");
                Remedy::RoomMade
            }
            Err(error) => {
                tracing::warn!(%error, "what a full sync has replaced can't be deleted");
                Remedy::None
            }
        }
    }
}

/// What the core has to know of the node.
pub(super) fn conditions(server: &Server) -> Conditions {
    let gate = &server.shared.gate;
    let fsync = server.settings().appendfsync;
    Conditions { fsync, commit: gate.commit_index(), is_standalone: gate.is_standalone() }
}

fn writing(error: io::Error) -> (Step, io::Error) {
    (Step::Write, error)
}

fn not_begun() -> io::Error {
    io::Error::other("a rewrite that was given up")
}

/// The head of a file that begins now.
pub(super) fn head_of(server: &Server, follows: Position) -> Head {
    disk_log::head_of(&server.shared.log.lock(), follows)
}

/// A new incremental file with its head, and the head's bytes. Nothing of it is synced, and the manifest does not name
/// it yet.
pub(super) fn create_incremental(
    directory: &Directory,
    name: AofFile,
    head: &Head,
) -> io::Result<(Incremental, u64)> {
    let file = directory.create_file(&name.name)?;
    let mut incremental = Incremental::new(name, file);
    let line = head_line(head);
    incremental.append(0, line.as_bytes())?;
    Ok((incremental, line.len() as u64))
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
    use keyward_proto::ids::Term;
    use keyward_replication::disk_log::{LogFile, Stamp};

    /// With its first file, which is empty.
    fn begun(server: &Arc<Server>, directory: &Directory) -> Writer {
        let first = AofFile::incremental("a", 1);
        let head = Head { follows: Position::ZERO, shard: None, terms: Vec::new(), awaits_base: false };
        let (current, bytes) = create_incremental(directory, first.clone(), &head).unwrap();
        let manifest = Manifest { incremental: vec![first], ..Manifest::default() };
        directory.write_manifest(&manifest).unwrap();
        let file = LogFile::begun(FileNumber(1), LogIndex::ZERO, bytes);
        let core = DiskLog::new(clock::monotonic(), BATCH_BYTES, file, LogIndex::ZERO, None);
        Writer::new(server, directory.clone(), manifest, current, core).unwrap()
    }

    /// The writer may have waited for the disk while a small snapshot was written: both orders are there at once.
    #[test]
    fn a_base_that_is_written_before_the_files_are_changed_is_put_in_place() {
        let node = TestNode::new();
        let server = node.executor.server();
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        server.shared.log.lock().attach_disk();
        let mut writer = begun(server, &directory);
        let rewrite = Arc::new(RewriteFlags::default());
        let base = AofFile { name: "a.1.base.rdb".into(), seq: 1 };
        let facts = BaseFacts { bytes: 0, checksum: 0, keys: 0 };
        server.aof.requests.lock().extend([
            WriterRequest::Rotate {
                stamp: Stamp { at: Position::ZERO, shard: None },
                rewrite: Arc::clone(&rewrite),
            },
            WriterRequest::Adopt { base: base.clone(), facts, rewrite: Arc::clone(&rewrite) },
        ]);
        for _ in 0..5 {
            let _next = writer.step();
        }
        assert!(rewrite.done.load(Ordering::Acquire) && !rewrite.given_up.load(Ordering::Acquire));
        let manifest = directory.read_manifest().unwrap().unwrap();
        assert_eq!((manifest.base, manifest.incremental), (Some(base), vec![AofFile::incremental("a", 2)]));
        assert!(!directory.path_of("a.1.incr.aof").exists());
    }

    /// After a full sync from a source whose history is shorter the old files may be the only ones that have theirs.
    #[test]
    fn a_longer_log_that_a_full_sync_has_replaced_is_kept_until_it_is_safe() {
        for (by, is_kept) in
            [(Position { term: Term::new(1), index: LogIndex::new(1) }, true), (ahead(), false)]
        {
            let node = TestNode::new();
            let server = node.executor.server();
            let folder = tempfile::tempdir().unwrap();
            let directory = Directory::new(folder.path(), "a");
            {
                let mut log = server.shared.log.lock();
                log.keep_entries();
                log.attach_disk();
                (0..3).for_each(|_| {
                    log.append_unexecuted(Term::new(1), b"entry");
                });
            }
            let mut writer = begun(server, &directory);
            let steps = |writer: &mut Writer| {
                for _ in 0..8 {
                    let _next = writer.step();
                }
            };
            steps(&mut writer);
            server.shared.log.lock().replace(by, None);
            steps(&mut writer);
            let before = std::fs::read(directory.manifest_path()).unwrap();
            assert!(!directory.replaced().exists(), "nothing is replaced yet");
            let rewrite = Arc::new(RewriteFlags::default());
            let base = AofFile { name: "a.1.base.rdb".into(), seq: 1 };
            let facts = BaseFacts { bytes: 0, checksum: 0, keys: 0 };
            server.aof.requests.lock().extend([
                WriterRequest::Rotate { stamp: Stamp { at: by, shard: None }, rewrite: Arc::clone(&rewrite) },
                WriterRequest::Adopt { base, facts, rewrite: Arc::clone(&rewrite) },
            ]);
            steps(&mut writer);
            assert!(rewrite.done.load(Ordering::Acquire));
            assert!(!directory.path_of("a.1.incr.aof").exists());
            let kept = Directory::new(directory.replaced(), "a").read_manifest().unwrap();
            let names = kept.map(|kept| kept.files().map(|file| file.name.clone()).collect::<Vec<_>>());
            assert_eq!(names, is_kept.then(|| vec!["a.1.incr.aof".to_owned()]), "{before:?}");
            assert_eq!(directory.replaced().join("a.1.incr.aof").exists(), is_kept);
        }
    }

    /// Where the source is that a replica was away from for too long.
    fn ahead() -> Position {
        Position { term: Term::new(1), index: LogIndex::new(9) }
    }
}
