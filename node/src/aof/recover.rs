//! Loads the files of the write log at the start of a node.
//!
//! One thread reads, checks and splits; several apply, each the slots that fall to it, so that the order within a slot
//! is that of the file. What concerns several slots waits until all have caught up (a barrier).
//!
//! **What is applied.** A node alone applies everything. With sentinels an entry is applied only if a later batch says
//! that it was committed; the entries behind that go into the write log, where the shard's next primary decides about
//! them. What was written without a term (by a node alone, or by Valkey) has no other copy: it counts as committed.
//!
//! **What is cut.** Only the last file may end in the middle of something. Bytes that were never synced are cut off,
//! with a line in the log; damage elsewhere stops the start.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_proto::resp::Args;

use super::directory::Directory;
use super::file::BatchSpan;
use super::format::{BatchHead, Entries, Head, Piece, classify, parse_entries};
use super::manifest::{AofFile, Manifest};
use super::reader::{Fault, FaultKind, FileReader, Record};
use crate::clients::Client;
use crate::clock;
use crate::execute::{Executor, Touched, touched};
use crate::keyspace::DbIndex;
use crate::log::EffectBuffer;
use crate::rdb::file::has_magic;
use crate::rdb_load;
use crate::server::Server;
use crate::session::Session;

/// Chunks that may wait for a thread.
const QUEUE_LEN: usize = 8;

/// How a node goes on after loading.
#[derive(Debug)]
pub struct Recovered {
    pub manifest: Manifest,
    /// The last file can be continued: this many of its bytes are whole.
    pub resume: Option<Resume>,
    /// Up to where the keyspace contains the log.
    pub applied: LogIndex,
    /// Entries that were applied or put into the log.
    pub entries: u64,
}

/// The last incremental file.
#[derive(Debug)]
pub struct Resume {
    pub file: AofFile,
    pub len: u64,
    /// Batches whose entries are not all known to be committed.
    pub batches: VecDeque<BatchSpan>,
    /// Before its first entry.
    pub follows: LogIndex,
}

/// What a file was found to hold.
struct FileEnd {
    /// Bytes that are whole.
    len: u64,
    /// Those that may have to be taken back.
    batches: VecDeque<BatchSpan>,
    /// A writer can go on behind them.
    annotated: bool,
    follows: LogIndex,
}

/// Commands that were read together.
struct Chunk {
    bytes: Vec<u8>,
    entries: Entries,
    ops: Vec<Op>,
    now: i64,
}

/// A command to be applied.
struct Op {
    request: usize,
    db: DbIndex,
    index: LogIndex,
    touched: Touched,
}

impl Chunk {
    fn args(&self, op: &Op) -> Args<'_> {
        self.entries.batch.args(&self.bytes, op.request)
    }
}

enum Work {
    Apply(Arc<Chunk>, Vec<u32>),
    /// Answers when everything before is done.
    Barrier(SyncSender<()>),
}

/// What went wrong in a thread that applies; the first counts.
#[derive(Debug, Default)]
struct Failure {
    happened: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Failure {
    fn set(&self, reason: String) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.happened.store(true, Ordering::Release);
    }

    fn take(&self) -> Result<(), String> {
        if !self.happened.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(reason.unwrap_or_default())
    }
}

/// One thread's means to apply commands.
struct Applier {
    executor: Executor,
    session: Session,
}

impl Applier {
    fn new(server: &Arc<Server>) -> Applier {
        Applier {
            executor: Executor::new(Arc::clone(server)),
            session: Session::new(Client::detached(), true),
        }
    }

    fn apply(&mut self, chunk: &Chunk, op: &Op) -> Result<(), String> {
        let args = chunk.args(op);
        self.executor.apply_loaded(&mut self.session, &op.touched, op.db, op.index, chunk.now, args)
    }

    fn run(mut self, work: &Receiver<Work>, failure: &Failure) {
        while let Ok(next) = work.recv() {
            match next {
                Work::Apply(chunk, ops) => {
                    for at in ops {
                        if let Err(reason) = self.apply(&chunk, &chunk.ops[at as usize]) {
                            failure.set(reason);
                            break;
                        }
                    }
                }
                Work::Barrier(done) => {
                    if done.send(()).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Where the files' history is.
struct Loader<'a> {
    server: &'a Arc<Server>,
    workers: Vec<SyncSender<Work>>,
    failure: &'a Failure,
    own: Applier,
    /// Without sentinels: everything is applied.
    alone: bool,
    /// What a file may end in the middle of is cut off, where it has no checksums.
    load_truncated: bool,
    last: Position,
    commit: LogIndex,
    /// Something was loaded that has no place in a shard's history.
    plain: u64,
    has_base: bool,
    entries: u64,
    /// Commands behind `commit`, oldest first, with the first that is not applied.
    pending: VecDeque<(Arc<Chunk>, usize)>,
    db: DbIndex,
    applied_ops: u64,
}

/// Loads everything that the manifest names. The keyspace is empty and nothing is served.
///
/// # Errors
/// What the operator has to know; the keyspace is of no use then.
pub fn load(
    server: &Arc<Server>,
    directory: &Directory,
    manifest: Manifest,
    load_truncated: bool,
) -> Result<Recovered, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failure = Failure::default();
    let alone = server.shared.gate.is_alone();
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for number in 0..threads {
            let (sender, receiver) = sync_channel(QUEUE_LEN);
            let failure = &failure;
            std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn_scoped(scope, move || Applier::new(server).run(&receiver, failure))
                .map_err(|e| format!("can't start a thread: {e}"))?;
            workers.push(sender);
        }
        let loader = Loader {
            server,
            workers,
            failure: &failure,
            own: Applier::new(server),
            alone,
            load_truncated,
            last: Position::ZERO,
            commit: LogIndex::ZERO,
            plain: 0,
            has_base: false,
            entries: 0,
            pending: VecDeque::new(),
            db: 0,
            applied_ops: 0,
        };
        loader.load_all(directory, manifest)
    })
}

impl Loader<'_> {
    fn load_all(mut self, directory: &Directory, manifest: Manifest) -> Result<Recovered, String> {
        let last_file = manifest.files().last().cloned();
        let mut resume = None;
        for file in manifest.files() {
            let path = directory.path_of(&file.name);
            let is_last = Some(file) == last_file.as_ref();
            let opened =
                directory.open(&file.name).map_err(|e| format!("can't open '{}': {e}", path.display()))?;
            let is_base = manifest.base.as_ref() == Some(file);
            let mut from = 0;
            if is_base && begins_as_rdb(&opened) {
                let size = opened.metadata().map_or(0, |metadata| metadata.len());
                let same = opened.try_clone().map_err(|e| format!("can't read '{}': {e}", path.display()))?;
                from = self.load_base(same, &path)?;
                // A file from before there were directories goes on with commands.
                if from == size {
                    continue;
                }
            }
            self.db = 0;
            let FileEnd { len, batches, annotated, follows } =
                self.load_file(opened, &path, from, is_last)?;
            self.barrier()?;
            if is_last && !is_base && annotated {
                resume = Some(Resume { file: file.clone(), len, batches, follows });
            }
        }
        let (applied, resumes) = self.settle(resume.is_some())?;
        let resume = resume.filter(|_| resumes);
        Ok(Recovered { manifest, resume, applied, entries: self.entries })
    }

    /// Returns where what the file holds as RDB ends.
    fn load_base(&mut self, file: File, path: &Path) -> Result<u64, String> {
        let size = file.metadata().map_err(|e| format!("can't read '{}': {e}", path.display()))?.len();
        // When a key goes is said by the log behind the base.
        let options = rdb_load::Options::new(&self.server.settings(), None);
        let loaded = rdb_load::load(&self.server.keyspace, file, Some(size), options, &self.server.loading);
        let loaded = loaded.map_err(|error| {
            format!(
                "can't load '{}': {error}. Restore the directory from a copy; a node of a cluster can also start without \
                 its appendonlydir: it gets everything from the shard's primary",
                path.display()
            )
        })?;
        self.has_base |= loaded.keys > 0;
        *self.server.functions.lock() = loaded.facts.functions;
        Ok(loaded.bytes)
    }

    /// Makes the log what the files say. Returns up to where the keyspace contains it, and whether the last file can be
    /// continued.
    fn settle(&mut self, annotated: bool) -> Result<(LogIndex, bool), String> {
        self.failure.take()?;
        let mut log = self.server.shared.log.lock();
        let has_data = self.has_base || self.entries > 0;
        if self.alone || self.plain > 0 {
            // What a node writes on its own has no term.
            assert!(self.pending.is_empty(), "everything is applied");
            let index = self.last.index.max(LogIndex::new(u64::from(has_data)));
            let position = Position { term: Term::ZERO, index };
            let continues = self.last == position && self.plain == 0;
            log.reset(position);
            if self.alone {
                log.set_shard(None);
            }
            return Ok((index, annotated && continues));
        }
        if self.has_base && self.last == Position::ZERO {
            // A base from elsewhere, and nothing behind it.
            log.reset(Position::new(0, 1));
            return Ok((LogIndex::new(1), false));
        }
        let applied = self.commit.min(self.last.index);
        assert_eq!(log.last(), self.last, "the log has the files' entries");
        log.release(applied);
        Ok((applied, annotated))
    }

    fn load_file(&mut self, file: File, path: &Path, from: u64, is_last: bool) -> Result<FileEnd, String> {
        let unreadable = |e: std::io::Error| format!("can't read '{}': {e}", path.display());
        let mut reader = FileReader::new(file).map_err(unreadable)?;
        reader.move_to(from).map_err(unreadable)?;
        let mut batches = VecDeque::new();
        let mut ends_plain = false;
        let mut follows = self.last.index;
        let loading = &self.server.loading;
        loop {
            let at = reader.at();
            let at_record = |e: String| format!("'{}', offset {at}: {e}", path.display());
            match reader.read() {
                Ok(Record::End) => break,
                Ok(Record::Head(head)) => {
                    self.head(&head).map_err(at_record)?;
                    follows = head.follows.index;
                }
                Ok(Record::Shard(shard)) => self.server.shared.log.lock().set_shard(shard),
                Ok(Record::Batch(head, body)) => {
                    self.batch(&head, body).map_err(at_record)?;
                    if head.count > 0 {
                        let BatchHead { term, first, count, .. } = head;
                        batches.push_back(BatchSpan { term, first, count, at, bytes: reader.at() - at });
                    }
                    let commit = self.commit;
                    while batches.front().is_some_and(|b: &BatchSpan| b.last() <= commit) {
                        batches.pop_front();
                    }
                    ends_plain = false;
                }
                Ok(Record::Plain(bytes, entries)) => {
                    self.plain_commands(bytes, entries).map_err(at_record)?;
                    ends_plain = true;
                }
                Err(fault) => {
                    self.cut(&mut reader, &fault, path, is_last)?;
                    let annotated = reader.is_annotated() && !ends_plain;
                    return Ok(FileEnd { len: fault.at, batches, annotated, follows });
                }
            }
            loading.advance(reader.at() - at);
            self.failure.take()?;
        }
        let annotated = reader.is_annotated() && !ends_plain;
        Ok(FileEnd { len: reader.at(), batches, annotated, follows })
    }

    /// Decides about what cannot be read: a torn tail goes, anything else ends the start.
    fn cut(&self, reader: &mut FileReader, fault: &Fault, path: &Path, is_last: bool) -> Result<(), String> {
        let (name, at, reason) = (path.display(), fault.at, &fault.reason);
        let size = reader.size() - at;
        let damaged = |what: &str| {
            format!(
                "'{name}' is damaged at offset {at}: {reason} ({what}). Make a backup of the directory; then restore it, \
                 or run 'keyward-node check-aof --fix {name}', which cuts off the {size} bytes from there on. A node of a \
                 cluster can also start without its appendonlydir: it gets everything from the shard's primary"
            )
        };
        if fault.kind == FaultKind::Unreadable {
            return Err(format!("can't read '{name}' at offset {at}: {reason}"));
        }
        if !is_last {
            return Err(damaged("another file follows this one"));
        }
        if reader.is_annotated() {
            let proof = reader.damage_after(at).map_err(|e| format!("can't read '{name}': {e}"))?;
            if let Some(proof) = proof {
                return Err(damaged(&format!(
                    "by what stands at offset {proof} these bytes were safe on the disk"
                )));
            }
        } else if fault.kind == FaultKind::Malformed {
            return Err(damaged("commands are expected here"));
        } else if !self.load_truncated {
            return Err(damaged("set aof-load-truncated yes to start with what comes before"));
        }
        tracing::warn!(
            file = %name, offset = at, bytes = size, reason,
            "the write log ends in the middle of something: cut off"
        );
        Ok(())
    }

    fn head(&mut self, head: &Head) -> Result<(), String> {
        let Head { follows, shard, terms } = head;
        let mut log = self.server.shared.log.lock();
        if self.entries == 0 && self.last == Position::ZERO {
            log.reset(*follows);
            log.restore_terms(terms.clone());
            self.commit = self.commit.max(follows.index);
            self.last = *follows;
        } else if follows.term == Term::ZERO && self.last.index <= follows.index {
            // The node has gone on alone: all that came before is its own.
            drop(log);
            self.commit = follows.index;
            self.dispatch_committed()?;
            log = self.server.shared.log.lock();
            log.reset(*follows);
            self.last = *follows;
            self.plain = 0;
        } else if !self.alone && log.term_at(follows.index) != Some(follows.term) {
            return Err(format!("the file follows {follows}, but the one before it ends at {}", self.last));
        }
        log.set_shard(shard.clone());
        Ok(())
    }

    fn batch(&mut self, head: &BatchHead, body: Vec<u8>) -> Result<(), String> {
        self.commit =
            self.commit.max(if self.alone || head.term == Term::ZERO { head.last() } else { head.commit });
        if head.count == 0 && body.is_empty() {
            return self.dispatch_committed();
        }
        let entries = parse_entries(&body);
        if entries.error.is_some() || entries.bytes != body.len() || entries.count != head.count {
            return Err("a batch does not hold what it says".into());
        }
        let next = self.last.index.next();
        if next < head.first || head.term < self.last.term {
            return Err(format!("entries of {}.{} follow {}", head.term, head.first, self.last));
        }
        self.add(body, entries, Some(head))?;
        self.dispatch_committed()
    }

    fn plain_commands(&mut self, bytes: Vec<u8>, entries: Entries) -> Result<(), String> {
        self.plain += entries.count;
        self.add(bytes, entries, None)?;
        self.commit = self.last.index;
        self.dispatch_committed()
    }

    /// Queues a chunk's commands, and puts its entries into the log. `head`: `None` for plain commands.
    fn add(&mut self, bytes: Vec<u8>, entries: Entries, head: Option<&BatchHead>) -> Result<(), String> {
        let mut chunk = Chunk { bytes, entries, ops: Vec::new(), now: clock::unix_millis().0 };
        let term = head.map_or(Term::ZERO, |h| h.term);
        let mut index = head.map_or(self.last.index.next(), |h| h.first);
        let (mut in_multi, mut first_op) = (false, 0);
        let mut payload = EffectBuffer::new();
        for request in 0..chunk.entries.requests {
            let args = chunk.entries.batch.args(&chunk.bytes, request);
            let ends = match classify(args)? {
                Piece::Select(db) => {
                    self.db = db;
                    false
                }
                Piece::Multi => {
                    in_multi = true;
                    false
                }
                Piece::Exec => {
                    in_multi = false;
                    true
                }
                Piece::NoOp => true,
                Piece::Comment | Piece::Annotation => false,
                Piece::Command => {
                    let touched = touched(args)?;
                    chunk.ops.push(Op { request, db: self.db, index, touched });
                    !in_multi
                }
            };
            if !ends {
                continue;
            }
            // What a rewrite has written twice is taken once.
            if index <= self.last.index {
                chunk.ops.truncate(first_op);
            } else {
                self.log_entry(term, &chunk, first_op, head.is_some(), &mut payload)?;
                self.last = Position { term, index };
                self.entries += 1;
            }
            first_op = chunk.ops.len();
            index = index.next();
        }
        if !chunk.ops.is_empty() {
            self.pending.push_back((Arc::new(chunk), 0));
        }
        Ok(())
    }

    /// With sentinels the log remembers the entry, for replicas that need no more than the newest ones.
    fn log_entry(
        &self,
        term: Term,
        chunk: &Chunk,
        first_op: usize,
        annotated: bool,
        payload: &mut EffectBuffer,
    ) -> Result<(), String> {
        if self.alone || !annotated || self.plain > 0 {
            return Ok(());
        }
        payload.clear();
        for op in &chunk.ops[first_op..] {
            let slot = match &op.touched {
                Touched::One(slot) => Some(*slot),
                Touched::WholeKeyspace => None,
                Touched::Several(_) => return Err("an effect on several slots".into()),
            };
            let command = chunk.args(op).raw().ok_or("an inline command")?;
            payload.push(slot, op.db, command);
        }
        let mut log = self.server.shared.log.lock();
        log.append_unexecuted(term, payload.as_payload());
        Ok(())
    }

    /// Hands what is committed to the threads.
    fn dispatch_committed(&mut self) -> Result<(), String> {
        while let Some((chunk, next)) = self.pending.pop_front() {
            let end = next + chunk.ops[next..].partition_point(|op| op.index <= self.commit);
            self.dispatch(&chunk, next, end)?;
            if end < chunk.ops.len() {
                self.pending.push_front((chunk, end));
                break;
            }
        }
        if !self.alone && self.plain == 0 {
            let mut log = self.server.shared.log.lock();
            log.release(self.commit);
        }
        Ok(())
    }

    fn dispatch(&mut self, chunk: &Arc<Chunk>, from: usize, to: usize) -> Result<(), String> {
        let mut shares = vec![Vec::new(); self.workers.len()];
        for at in from..to {
            match &chunk.ops[at].touched {
                Touched::One(slot) => {
                    let at = u32::try_from(at).map_err(|_| "a batch of too many commands")?;
                    shares[slot.index() % self.workers.len()].push(at);
                }
                Touched::Several(_) | Touched::WholeKeyspace => {
                    self.send(chunk, &mut shares)?;
                    self.barrier()?;
                    self.own.apply(chunk, &chunk.ops[at])?;
                }
            }
        }
        self.applied_ops += (to - from) as u64;
        self.send(chunk, &mut shares)
    }

    fn send(&self, chunk: &Arc<Chunk>, shares: &mut [Vec<u32>]) -> Result<(), String> {
        for (worker, share) in self.workers.iter().zip(shares) {
            if !share.is_empty() {
                let work = Work::Apply(Arc::clone(chunk), std::mem::take(share));
                worker.send(work).map_err(|_| "a thread that loads has ended")?;
            }
        }
        Ok(())
    }

    /// Waits until everything that was handed out is applied.
    fn barrier(&self) -> Result<(), String> {
        let (done, wait) = sync_channel(self.workers.len());
        for worker in &self.workers {
            worker.send(Work::Barrier(done.clone())).map_err(|_| "a thread that loads has ended")?;
        }
        drop(done);
        while wait.recv().is_ok() {}
        self.failure.take()
    }
}

/// Whatever it is called.
fn begins_as_rdb(file: &File) -> bool {
    let mut begin = [0; 8];
    file.read_exact_at(&mut begin, 0).is_ok() && has_magic(&begin)
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::ShardId;

    use super::*;
    use crate::aof::format::{Encoder, head_line};
    use crate::log::WriteLog;
    use crate::testing::TestNode;

    const FILE: &str = "a.1.incr.aof";

    /// A file with three batches of two entries each, and where its batches end.
    fn file(term: u64, commit: u64, synced: impl Fn(u64) -> u64) -> (Vec<u8>, Vec<usize>) {
        let mut log = WriteLog::new(1 << 20);
        for i in 0..6 {
            let mut entry = EffectBuffer::default();
            let command = format!("*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$1\r\n{i}\r\n");
            entry.push(Some(keyward_proto::slot::Slot::of(b"l")), 0, command.as_bytes());
            if i == 3 {
                let command = "*3\r\n$3\r\nSET\r\n$1\r\nm\r\n$1\r\nx\r\n";
                entry.push(Some(keyward_proto::slot::Slot::of(b"m")), 0, command.as_bytes());
            }
            log.append(Term::new(term), entry.as_payload());
        }
        let shard = (term > 0).then(|| ShardId::from_random([1; 20]));
        let mut bytes = head_line(Position::ZERO, shard.as_ref(), &[]).into_bytes();
        let mut ends = vec![bytes.len()];
        let mut encoder = Encoder::default();
        for first in [1, 3, 5] {
            let all = log.read_from(LogIndex::new(first), 1 << 20).unwrap();
            let two: usize = frames(&all.bytes).take(2).map(|f| 4 + f.len()).sum();
            let slice = Slice { count: 2, bytes: all.bytes.slice(..two), ..all };
            let commit = LogIndex::new(commit.min(first));
            let synced = synced(bytes.len() as u64);
            bytes.extend_from_slice(encoder.encode(&slice, commit, synced));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    use crate::log::{Slice, frames};

    fn load_bytes(node: &TestNode, bytes: &[u8]) -> Result<Recovered, String> {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        std::fs::write(directory.path_of(FILE), bytes).unwrap();
        let manifest =
            Manifest { incremental: vec![AofFile { name: FILE.into(), seq: 1 }], ..Manifest::default() };
        load(node.executor.server(), &directory, manifest, true)
    }

    fn list(node: &mut TestNode) -> usize {
        let reply = node.run("LRANGE l 0 -1");
        let expect: String = (0..6).map(|i| format!("$1\r\n{i}\r\n")).collect();
        let (count, rest) = reply.split_once("\r\n").unwrap();
        assert!(expect.starts_with(rest), "{reply}");
        count[1..].parse().unwrap()
    }

    #[test]
    fn a_tail_that_is_torn_anywhere_is_cut_at_the_last_whole_batch() {
        let (bytes, ends) = file(0, 0, |_| 0);
        for end in 0..=bytes.len() {
            let mut node = TestNode::new();
            let recovered = load_bytes(&node, &bytes[..end]).unwrap();
            let whole = ends.iter().filter(|e| **e <= end).count();
            let resume = recovered.resume;
            if whole == 0 {
                // Not even the head: the next writer begins another file.
                assert!(resume.is_none());
                continue;
            }
            assert_eq!(resume.unwrap().len, ends[whole - 1] as u64, "{end}");
            assert_eq!(list(&mut node), 2 * (whole - 1), "{end}");
        }
    }

    #[test]
    fn a_garbled_byte_that_was_never_synced_is_a_torn_tail() {
        let (bytes, ends) = file(0, 0, |_| 0);
        for at in (ends[0]..bytes.len()).step_by(3) {
            let mut garbled = bytes.clone();
            garbled[at] ^= 1;
            let mut node = TestNode::new();
            load_bytes(&node, &garbled).unwrap();
            let whole = ends.iter().filter(|e| **e <= at).count();
            assert_eq!(list(&mut node), 2 * (whole - 1), "{at}");
        }
    }

    #[test]
    fn damage_to_what_was_synced_stops_the_start() {
        let (bytes, ends) = file(0, 0, |at| at);
        for at in (ends[0]..ends[2]).step_by(7) {
            let mut garbled = bytes.clone();
            garbled[at] ^= 1;
            let error = load_bytes(&TestNode::new(), &garbled).unwrap_err();
            let offset = *ends.iter().rev().find(|e| **e <= at).unwrap();
            assert!(error.contains(&format!("damaged at offset {offset}")), "{error}");
            assert!(error.contains("check-aof --fix"), "{error}");
        }
    }

    #[test]
    fn what_was_not_committed_stays_in_the_log() {
        let (bytes, _) = file(3, 4, |_| 0);
        let mut node = TestNode::replicated();
        let recovered = load_bytes(&node, &bytes).unwrap();
        assert_eq!(recovered.applied, LogIndex::new(4));
        assert_eq!(recovered.resume.unwrap().batches.len(), 1);
        assert_eq!(list(&mut node), 4);
        let server = Arc::clone(node.executor.server());
        let mut log = server.shared.log.lock();
        assert_eq!(log.last(), Position::new(3, 6));
        assert_eq!(log.read_from(LogIndex::new(5), 1 << 20).unwrap().count, 2);
        assert_eq!(log.shard(), Some(&ShardId::from_random([1; 20])));
        log.check_invariants();
        drop(log);
        // Alone it has no other copy.
        let mut node = TestNode::new();
        let recovered = load_bytes(&node, &bytes).unwrap();
        assert_eq!((recovered.applied, list(&mut node)), (LogIndex::new(6), 6));
        assert!(recovered.resume.is_none(), "a node alone writes no terms");
    }

    #[test]
    fn plain_commands_are_loaded_and_belong_to_no_history() {
        let (mut bytes, _) = file(0, 0, |_| 0);
        let plain = "*1\r\n$5\r\nMULTI\r\n*3\r\n$5\r\nRPUSH\r\n$1\r\nq\r\n$1\r\n1\r\n*1\r\n$4\r\nEXEC\r\n";
        bytes.extend_from_slice(plain.as_bytes());
        let whole = bytes.len();
        for end in whole - plain.len()..=whole {
            let mut node = TestNode::new();
            let recovered = load_bytes(&node, &bytes[..end]).unwrap();
            let expect = if end == whole { ":1\r\n" } else { ":0\r\n" };
            assert_eq!(node.run("LLEN q"), expect, "{end}");
            assert_eq!(recovered.resume.is_none(), end == whole, "{end}");
        }
        for (bad, why) in [
            ("*1\r\n$3\r\nFOO\r\n", "unknown command"),
            ("FLUSHALL\r\n", "0x46"),
            ("*1\r\n$4\r\nPING\r\n", "changes keys"),
        ] {
            let error = load_bytes(&TestNode::new(), bad.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
