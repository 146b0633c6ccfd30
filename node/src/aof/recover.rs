//! Loads the files of the write log at the start of a node.
//!
//! One thread reads, checks and splits; several apply, each the slots that fall to it, so that the order within a slot
//! is that of the file. What concerns several slots waits until all have caught up (a barrier).
//!
//! **What is applied.** A node alone applies everything. With sentinels an entry is applied only if a later batch says
//! that it was committed; the entries behind that go into the write log, where the shard's next primary decides about
//! them. What was written without a term (by a node alone, or by Valkey) has no other copy: it counts as committed.
//!
//! **What is cut.** Only the last file may end in the middle of something. Bytes that were never synced are cut off, on
//! the disk too, with a line in the log; damage elsewhere stops the start, and so does a gap between two files.
//!
//! **What is refused.** Whatever an RDB file could not hold, or would be refused in one: a log that was loaded can be
//! rewritten, and what was written loads. Errors name file and offset.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_replication::disk_log::{Base, BatchSpan, Chain, Settled};
use keyward_store::DbIndex;
use keyward_store::effects::EffectBuffer;
use keyward_store::rdb::file::{Trust, has_magic};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::directory::Directory;
use super::format::{BatchHead, Entries, Head, Piece, STAMP, classify, parse_entries, parse_stamp};
use super::leftovers;
use super::manifest::{AofFile, BaseFacts, Manifest};
use super::reader::{Fault, FaultKind, FileReader, Record, Verdict};
use crate::clock;
use crate::command::ascii_eq;
use crate::command::touched::{Touched, touched};
use crate::execute::Executor;
use crate::io::clients::Client;
use crate::io::session::Session;
use crate::rdb_load;
use crate::server::Server;

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
    /// Files that no manifest names and nobody needs.
    pub leftovers: Vec<String>,
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
    /// The last entry of the files before it.
    pub repeats: LogIndex,
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
    /// More bytes follow in the file that are of no use.
    torn: bool,
}

/// Commands that were read together.
struct Chunk {
    /// Where they come from.
    path: Arc<Path>,
    /// Of the first byte in that file.
    at: u64,
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

    /// An error with the place of the request that caused it.
    fn located(&self, request: usize, error: impl fmt::Display) -> String {
        located(&self.path, self.at + self.entries.batch.bounds(request).0 as u64, error)
    }
}

fn located(path: &Path, at: u64, error: impl fmt::Display) -> String {
    format!("'{}', offset {at}: {error}", path.display())
}

/// A command that names a database which there is not.
fn beyond_databases(args: Args<'_>, databases: DbIndex) -> Option<String> {
    let named: &[usize] = match args.at(0) {
        name if ascii_eq(name, "swapdb") && args.len() == 3 => &[1, 2],
        name if ascii_eq(name, "move") && args.len() == 3 => &[2],
        _ => return None,
    };
    let is_beyond = |at: &&usize| parse_i64(args.at(**at)).is_some_and(|n| i64::from(databases) <= n);
    named.iter().find(is_beyond)?;
    let words: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
    Some(words.join(" "))
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
            executor: Executor::new(Arc::clone(server), SmallRng::from_os_rng()),
            session: Session::new(Client::detached()),
        }
    }

    fn apply(&mut self, chunk: &Chunk, op: &Op) -> Result<(), String> {
        let args = chunk.args(op);
        let applied =
            self.executor.apply_loaded(&mut self.session, &op.touched, op.db, op.index, chunk.now, args);
        applied.map_err(|e| chunk.located(op.request, e))
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
    /// What a file may end in the middle of is cut off, where it has no checksums.
    load_truncated: bool,
    /// Databases that there are.
    databases: DbIndex,
    /// The file that is being read.
    path: Arc<Path>,
    /// What the files come to.
    chain: Chain,
    /// Commands that are not committed, oldest first, with the first that is not applied.
    pending: VecDeque<(Arc<Chunk>, usize)>,
    db: DbIndex,
    applied_ops: u64,
}

/// Loads everything that the manifest names. The keyspace is empty and nothing is served.
///
/// # Errors
/// What the operator has to know; the keyspace is of no use then.
pub fn load(server: &Arc<Server>, directory: &Directory, manifest: Manifest) -> Result<Recovered, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failure = Failure::default();
    let alone = server.shared.gate.is_standalone();
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
            load_truncated: server.settings().aof_load_truncated,
            // What a shard has agreed on is loaded whatever this node's settings are.
            databases: if alone { server.settings().databases() } else { DbIndex::MAX },
            path: Path::new("").into(),
            chain: if alone { Chain::alone(Base::None) } else { Chain::of_a_shard(Base::None) },
            pending: VecDeque::new(),
            db: 0,
            applied_ops: 0,
        };
        loader.load_all(directory, manifest)
    })
}

/// Where a file stands among the others.
#[derive(Debug, Clone, Copy)]
struct Place {
    is_last: bool,
    /// Keyward has begun it, so it has at least its first line.
    must_begin: bool,
}

impl Loader<'_> {
    fn load_all(mut self, directory: &Directory, manifest: Manifest) -> Result<Recovered, String> {
        let last_file = manifest.files().last().cloned();
        let mut resume = None;
        let mut torn = None;
        for file in manifest.files() {
            let path = directory.path_of(&file.name);
            self.path = path.as_path().into();
            let is_last = Some(file) == last_file.as_ref();
            let opened =
                directory.open(&file.name).map_err(|e| format!("can't open '{}': {e}", path.display()))?;
            let is_base = manifest.base.as_ref() == Some(file);
            let mut from = 0;
            if is_base {
                self.chain.set_base(unstamped(&manifest, 0));
                check_base(&opened, &path, manifest.base_facts)?;
            }
            if is_base && begins_as_rdb(&opened) {
                let size = opened.metadata().map_or(0, |metadata| metadata.len());
                let same = opened.try_clone().map_err(|e| format!("can't read '{}': {e}", path.display()))?;
                from = self.load_base(same, &path, &manifest)?;
                // A file from before there were directories goes on with commands.
                if from == size {
                    continue;
                }
            }
            self.db = 0;
            let must_begin = !is_base && manifest.own_from.is_some_and(|from| from <= file.seq);
            let place = Place { is_last, must_begin };
            let before = self.chain.last().index;
            let end = self.load_file(opened, &path, from, place)?;
            self.barrier()?;
            let FileEnd { len, batches, annotated, follows, torn: is_torn } = end;
            if is_torn {
                torn = Some((file.name.clone(), len));
            }
            if is_last && !is_base && annotated {
                let repeats = before.max(follows);
                resume = Some(Resume { file: file.clone(), len, batches, follows, repeats });
            }
        }
        let Settled { applied, continues } = self.settle()?;
        let resume = resume.filter(|_| continues);
        let leftovers = leftovers::beside(directory, &manifest, self.chain.last())?;
        if let Some((name, len)) = torn {
            // Another file may follow this one from now on, and then it has to be whole.
            let cut = directory.open(&name).and_then(|file| {
                file.set_len(len)?;
                file.sync_all()
            });
            cut.map_err(|e| {
                format!("can't cut '{}' off at offset {len}: {e}", directory.path_of(&name).display())
            })?;
        }
        Ok(Recovered { manifest, resume, applied, entries: self.chain.entries(), leftovers })
    }

    /// Returns where what the file holds as RDB ends.
    fn load_base(&mut self, file: File, path: &Path, manifest: &Manifest) -> Result<u64, String> {
        let facts = manifest.base_facts;
        let size = file.metadata().map_err(|e| format!("can't read '{}': {e}", path.display()))?.len();
        // When a key goes is said by the log behind the base.
        let mut options = rdb_load::Options::new(&self.server.settings(), None);
        options.databases = self.databases;
        if facts.is_some() {
            options.trust = Trust::Verify;
        }
        let loaded = rdb_load::load(&self.server.keyspace, file, Some(size), options, &self.server.loading);
        let loaded = loaded.map_err(|error| {
            format!(
                "can't load '{}': {error}. Restore the directory from a copy; a node of a cluster can also start without \
                 its appendonlydir: it gets everything from the shard's primary",
                path.display()
            )
        })?;
        let keys = loaded.keys + loaded.expired + loaded.empty;
        if let Some(facts) = facts.filter(|facts| facts.keys != keys) {
            return Err(not_the_base(path, &format!("it has {keys} keys instead of {}", facts.keys)));
        }
        let stamp = loaded.facts.aux.iter().find(|(name, _)| name == STAMP.as_bytes());
        let stamp = stamp.and_then(|(_, text)| parse_stamp(text));
        self.chain.set_base(stamp.map_or_else(|| unstamped(manifest, keys), Base::Stamped));
        crate::scripts::replace_libraries(self.server, loaded.facts.functions)?;
        Ok(loaded.bytes)
    }

    /// Makes the log what the files say.
    fn settle(&self) -> Result<Settled, String> {
        self.failure.take()?;
        let settled = self.chain.settle(&mut self.server.shared.log.lock());
        let has_a_say = |(chunk, next): &(Arc<Chunk>, usize)| settled.applied < chunk.ops[*next].index;
        assert!(self.pending.iter().all(has_a_say), "everything that counts is applied");
        Ok(settled)
    }

    fn load_file(&mut self, file: File, path: &Path, from: u64, place: Place) -> Result<FileEnd, String> {
        let unreadable = |e: std::io::Error| format!("can't read '{}': {e}", path.display());
        let mut reader = FileReader::new(file).map_err(unreadable)?;
        reader.move_to(from).map_err(unreadable)?;
        let mut batches = VecDeque::new();
        let mut follows = self.chain.last().index;
        let loading = &self.server.loading;
        loop {
            let at = reader.at();
            let at_record = |e: String| located(path, at, e);
            match reader.read() {
                Ok(Record::End) | Err(_) if place.must_begin && at == 0 => return Err(headless(path)),
                Ok(Record::End) => break,
                Ok(Record::Head(head)) => {
                    self.head(&head).map_err(at_record)?;
                    follows = head.follows.index;
                }
                Ok(Record::Shard(shard)) => self.server.shared.log.lock().set_shard(shard),
                Ok(Record::Batch(head, body)) => {
                    let body_at = reader.at() - body.len() as u64;
                    self.batch(&head, body, at, body_at)?;
                    if head.count > 0 {
                        let BatchHead { term, first, count, .. } = head;
                        batches.push_back(BatchSpan { term, first, count, at, bytes: reader.at() - at });
                    }
                    let commit = self.chain.commit();
                    while batches.front().is_some_and(|b: &BatchSpan| b.last() <= commit) {
                        batches.pop_front();
                    }
                }
                Ok(Record::Plain(bytes, entries)) => {
                    let begins = reader.at() - bytes.len() as u64;
                    self.plain_commands(bytes, entries, begins)?;
                }
                Err(fault) => {
                    let annotated = reader.can_be_continued();
                    self.cut(&mut reader, &fault, path, place)?;
                    return Ok(FileEnd { len: fault.at, batches, annotated, follows, torn: true });
                }
            }
            loading.advance(reader.at() - at);
            self.failure.take()?;
        }
        let annotated = reader.can_be_continued();
        Ok(FileEnd { len: reader.at(), batches, annotated, follows, torn: false })
    }

    /// Decides about what cannot be read: a torn tail goes, anything else ends the start.
    fn cut(&self, reader: &mut FileReader, fault: &Fault, path: &Path, place: Place) -> Result<(), String> {
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
        if !place.is_last {
            return Err(damaged("another file follows this one"));
        }
        let verdict = reader.judge(fault, Some(self.db)).map_err(|e| format!("can't read '{name}': {e}"))?;
        match verdict {
            Verdict::Damaged(why) => return Err(damaged(&why)),
            Verdict::Continued => return Err(continued(path, at)),
            Verdict::TornCommand if !self.load_truncated => {
                return Err(damaged("set aof-load-truncated yes to start with what comes before"));
            }
            Verdict::TornCommand | Verdict::TornBatch => {}
        }
        tracing::warn!(
            file = %name, offset = at, bytes = size, reason,
            "the write log ends in the middle of something: that is cut off"
        );
        Ok(())
    }

    fn head(&mut self, head: &Head) -> Result<(), String> {
        self.chain.head(head, &mut self.server.shared.log.lock()).map_err(|breach| breach.to_string())?;
        self.dispatch_committed()
    }

    /// `at`, `body_at`: where the batch and its commands begin in the file.
    fn batch(&mut self, head: &BatchHead, body: Vec<u8>, at: u64, body_at: u64) -> Result<(), String> {
        let first = Position { term: head.term, index: head.first };
        let fits = self.chain.batch(first, head.count, head.commit, &self.server.shared.log.lock());
        if head.count == 0 && body.is_empty() {
            return self.dispatch_committed();
        }
        let entries = parse_entries(&body);
        if entries.error.is_some() || entries.bytes != body.len() || entries.count != head.count {
            return Err(located(&self.path, at, "a batch does not hold what it says"));
        }
        fits.map_err(|breach| located(&self.path, at, breach))?;
        self.add(body, entries, Some(head), body_at)?;
        self.dispatch_committed()
    }

    fn plain_commands(&mut self, bytes: Vec<u8>, entries: Entries, at: u64) -> Result<(), String> {
        self.chain.plain(entries.count);
        self.add(bytes, entries, None, at)?;
        self.chain.plain_ended();
        self.dispatch_committed()
    }

    /// Queues a chunk's commands, and puts its entries into the log. `head`: `None` for plain commands. `at`: where they
    /// begin in the file.
    fn add(
        &mut self,
        bytes: Vec<u8>,
        entries: Entries,
        head: Option<&BatchHead>,
        at: u64,
    ) -> Result<(), String> {
        let path = Arc::clone(&self.path);
        let mut chunk = Chunk { path, at, bytes, entries, ops: Vec::new(), now: clock::unix_millis().0 };
        let term = head.map_or(Term::ZERO, |h| h.term);
        let mut index = head.map_or(self.chain.last().index.next(), |h| h.first);
        let (mut in_multi, mut first_op) = (false, 0);
        let mut payload = EffectBuffer::new();
        for request in 0..chunk.entries.requests {
            let args = chunk.entries.batch.args(&chunk.bytes, request);
            if u32::MAX as usize <= args.raw().map_or(0, <[u8]>::len)
                && args.iter().any(|arg| u32::try_from(arg.len()).is_err())
            {
                return Err(chunk.located(request, "an argument of 4 GiB or more"));
            }
            if let Some(beyond) = beyond_databases(args, self.databases) {
                let reason = format!("{beyond}: the log has more databases than 'databases' allows");
                return Err(chunk.located(request, reason));
            }
            let ends = match classify(args).map_err(|e| chunk.located(request, e))? {
                Piece::Select(db) if self.databases <= db => {
                    let reason = format!("SELECT {db}: the log has more databases than 'databases' allows");
                    return Err(chunk.located(request, reason));
                }
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
                    let touched = touched(args).map_err(|e| chunk.located(request, e))?;
                    chunk.ops.push(Op { request, db: self.db, index, touched });
                    !in_multi
                }
            };
            if !ends {
                continue;
            }
            // What a rewrite has written twice is taken once.
            if self.chain.entry(Position { term, index }) {
                if head.is_some() {
                    self.log_entry(term, &chunk, first_op, &mut payload)?;
                }
            } else {
                chunk.ops.truncate(first_op);
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
        payload: &mut EffectBuffer,
    ) -> Result<(), String> {
        if !self.chain.is_history() {
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
            let end = next + chunk.ops[next..].partition_point(|op| op.index <= self.chain.commit());
            self.dispatch(&chunk, next, end)?;
            if end < chunk.ops.len() {
                self.pending.push_front((chunk, end));
                break;
            }
        }
        if self.chain.is_history() {
            self.server.shared.log.lock().release(self.chain.commit());
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

/// A base that does not say what it is. Keyward writes none any more, and says so in its manifests.
fn unstamped(manifest: &Manifest, keys: u64) -> Base {
    match (manifest.own_from, manifest.base_facts) {
        (Some(_), None) => Base::Earlier { keys },
        _ => Base::Unstamped { keys },
    }
}

/// Whether it can be the base that Keyward has written.
fn check_base(file: &File, path: &Path, facts: Option<BaseFacts>) -> Result<(), String> {
    let Some(facts) = facts else { return Ok(()) };
    match Directory::objection_to_base(file, facts) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(not_the_base(path, &reason)),
        Err(error) => Err(format!("can't read '{}': {error}", path.display())),
    }
}

fn not_the_base(path: &Path, reason: &str) -> String {
    format!(
        "'{}' is not the base that the manifest names: {reason}. Keys would be missing. Make a backup of the directory; then \
         restore it from a copy. A node of a cluster can also start without its appendonlydir: it gets everything from the \
         shard's primary",
        path.display()
    )
}

/// A file that was begun and has no begin.
fn headless(path: &Path) -> String {
    format!(
        "'{}' has lost its beginning, and whatever it held: Keyward makes no empty file. Make a backup of the directory; \
         then restore it, or, to start with what the files before it hold, remove its line and the first one, which begins \
         with '#', from the manifest. A node of a cluster can also start without its appendonlydir",
        path.display()
    )
}

/// Another program did not see that a batch was torn.
fn continued(path: &Path, at: u64) -> String {
    let name = path.display();
    format!(
        "'{name}' has a batch at offset {at} that a crash has cut off, and commands behind it of another program, which has \
         gone on with the file since. Let that program load the directory and rewrite it (BGREWRITEAOF) before this one \
         does; or run 'keyward-node check-aof --fix {name}', which cuts off everything from there on"
    )
}

/// Whatever it is called.
fn begins_as_rdb(file: &File) -> bool {
    let mut begin = [0; 8];
    file.read_exact_at(&mut begin, 0).is_ok() && has_magic(&begin)
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::ShardId;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::aof::format::{Encoder, head_line};
    use crate::testing::TestNode;
    use keyward_replication::log::WriteLog;

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
        let head = Head { follows: Position::ZERO, shard, terms: Vec::new(), awaits_base: false };
        let mut bytes = head_line(&head).into_bytes();
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

    use keyward_proto::entry::frames;
    use keyward_replication::log::Slice;

    /// Loads files one behind the other. What a torn one is cut to is checked.
    fn load_files(node: &TestNode, files: &[&[u8]], is_signed: bool) -> Result<Recovered, String> {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        let mut manifest = Manifest { own_from: is_signed.then_some(1), ..Manifest::default() };
        for (seq, bytes) in (1..).zip(files) {
            let file = AofFile::incremental("a", seq);
            std::fs::write(directory.path_of(&file.name), bytes).unwrap();
            manifest.incremental.push(file);
        }
        let recovered = load(node.executor.server(), &directory, manifest.clone())?;
        // What is on the disk now is whole: more may follow it.
        let again = TestNode::with_arguments(&["--aof-load-truncated", "no"]);
        load(again.executor.server(), &directory, manifest.clone())?;
        for file in manifest.files() {
            let report =
                crate::aof::check::check(&directory.path_of(&file.name), crate::aof::check::Mode::Report);
            assert!(report.1, "{}", report.0);
        }
        Ok(recovered)
    }

    fn load_bytes(node: &TestNode, bytes: &[u8]) -> Result<Recovered, String> {
        load_files(node, &[bytes], false)
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

    /// A command as a client sends it.
    fn command(words: &[&str]) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        let words: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
        keyward_proto::resp::reply::write_command(&mut out, &words);
        out.to_vec()
    }

    #[test]
    fn what_an_rdb_file_could_not_hold_is_refused_with_its_place() {
        let before = command(&["SET", "a", "1"]);
        for (words, why) in [
            (&["SELECT", "16"][..], "SELECT 16: the log has more databases than 'databases' allows"),
            (&["SELECT", "70000"], "SELECT of a database that cannot be"),
            (&["SELECT", "-1"], "SELECT of a database that cannot be"),
            (&["SWAPDB", "0", "16"], "SWAPDB 0 16: the log has more databases than 'databases' allows"),
            (&["MOVE", "a", "16"], "MOVE a 16: the log has more databases than 'databases' allows"),
            (&["SET", "a"], "wrong number of arguments"),
            (&["NOSUCH", "s", "v"], "unknown command"),
            (&["LPUSH", "a", "x"], "WRONGTYPE"),
        ] {
            let bytes = [before.clone(), command(words)].concat();
            let error = load_bytes(&TestNode::new(), &bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(error.contains("a.1.incr.aof'"), "{error}");
            assert!(error.contains(&format!("offset {}: ", before.len())), "{error}");
        }
        let mut node = TestNode::new();
        load_bytes(&node, &[command(&["SELECT", "15"]), before].concat()).unwrap();
        node.run("SELECT 15");
        assert_eq!(node.run("GET a"), "$1\r\n1\r\n");
    }

    #[test]
    fn a_gap_between_files_stops_the_start() {
        let (bytes, ends) = file(0, 0, |_| 0);
        let at = |index| Head {
            follows: Position::new(0, index),
            shard: None,
            terms: Vec::new(),
            awaits_base: false,
        };
        let second = |index| crate::aof::format::head_line(&at(index)).into_bytes();
        load_files(&TestNode::new(), &[&bytes, &second(6)], true).unwrap();
        for first in [&bytes[..ends[2]], &bytes[..ends[0]], &bytes[..ends[1] + 5], b""] {
            let error = load_files(&TestNode::new(), &[first, &second(6)], false).unwrap_err();
            assert!(error.contains("the file follows 0.6") || error.contains("damaged"), "{error}");
        }
        let error = load_files(&TestNode::new(), &[&second(6)], true).unwrap_err();
        assert!(error.contains("names nothing that comes before it"), "{error}");
    }

    #[test]
    fn a_file_that_keyward_began_is_never_empty() {
        let (bytes, ends) = file(0, 0, |_| 0);
        for end in 0..ends[0] {
            let error = load_files(&TestNode::new(), &[&bytes, &bytes[..end]], true).unwrap_err();
            assert!(error.contains("a.2.incr.aof' has lost its beginning"), "{error}");
        }
        // Valkey's may be.
        load_files(&TestNode::new(), &[&bytes, b""], false).unwrap();
    }

    #[test]
    fn damage_in_what_another_program_added_stops_the_start() {
        let (bytes, _) = file(0, 0, |_| 0);
        let added =
            [command(&["SELECT", "0"]), command(&["SET", "a", "1"]), command(&["SET", "b", "2"])].concat();
        for at in 1..added.len() {
            let mut garbled = added.clone();
            garbled[at] = b'~';
            let all = [&bytes[..], &garbled].concat();
            let mut node = TestNode::new();
            match load_bytes(&node, &all) {
                // A value was changed, or a key: commands have no checksums.
                Ok(_) => assert_eq!(list(&mut node), 6),
                Err(error) => assert!(!error.contains("cut off, and"), "{error}"),
            }
        }
    }

    #[test]
    fn a_torn_batch_that_another_program_has_gone_on_behind_stops_the_start() {
        let (bytes, ends) = file(0, 0, |_| 0);
        let added = [command(&["SELECT", "0"]), command(&["SET", "added", "1"])].concat();
        for end in ends[2] + 1..bytes.len() {
            // What Valkey does: it keeps whole commands and comments.
            let torn = &bytes[ends[2]..end];
            let line = torn.iter().position(|b| *b == b'\n').map_or(torn.len(), |at| at + 1);
            let entries = parse_entries(&torn[line..]);
            let kept = &bytes[..ends[2] + line + entries.bytes];
            let mut node = TestNode::new();
            let result = load_bytes(&node, &[kept, &added, &added].concat());
            let error = result.map(|_| node.run("GET added")).unwrap_err();
            assert!(error.contains("another program"), "{end}: {error}");
        }
    }

    #[test]
    fn files_that_no_manifest_names_stop_the_start_if_they_hold_data() {
        let (bytes, ends) = file(0, 0, |_| 0);
        let head = |index, awaits_base| {
            let follows = Position::new(0, index);
            crate::aof::format::head_line(&Head { follows, shard: None, terms: Vec::new(), awaits_base })
        };
        let dump = keyward_store::rdb::file::Writer::new(Vec::new()).unwrap().finish().unwrap();
        let rest = &bytes[ends[1]..];
        for (name, content, is_leftover) in [
            ("a.2.incr.aof", &b""[..], true),
            ("a.2.incr.aof", head(6, false).as_bytes(), true),
            ("a.2.incr.aof", &[head(2, false).as_bytes(), rest].concat(), true),
            ("a.2.incr.aof", &[head(7, true).as_bytes(), rest].concat(), true),
            ("a.2.incr.aof", &bytes, true),
            ("a.2.incr.aof", &command(&["SET", "a", "1"]), false),
            ("a.2.incr.aof", &command(&["SET", "a", "1"])[..9], true),
            ("a.1.base.rdb", &dump, true),
            ("a.1.base.aof", &command(&["SET", "a", "1"]), true),
            ("a.2.incr.aof.bak", b"x", true),
            ("temp-rewriteaof-bg-1.aof", &dump, true),
            ("temp-a.manifest", b"x", true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let directory = Directory::new(folder.path(), "a");
            let first = AofFile::incremental("a", 1);
            std::fs::write(directory.path_of(&first.name), &bytes).unwrap();
            std::fs::write(directory.path_of(name), content).unwrap();
            directory.write_manifest(&Manifest { incremental: vec![first], ..Manifest::default() }).unwrap();
            let node = TestNode::new();
            let manifest = directory.read_manifest().unwrap().unwrap();
            let result = load(node.executor.server(), &directory, manifest);
            assert_eq!(result.is_ok(), is_leftover, "{name}: {result:?}");
            match result {
                Ok(recovered) => {
                    let is_known = AofFile::named("a", name).is_some() || name.starts_with("temp-rewrite");
                    assert_eq!(recovered.leftovers, if is_known { vec![name.to_owned()] } else { vec![] });
                }
                Err(error) => assert!(error.contains(name) && error.contains("does not name it"), "{error}"),
            }
            // Without the manifest all of it would be lost.
            std::fs::remove_file(directory.manifest_path()).unwrap();
            let error = leftovers::without_manifest(&directory).unwrap_err();
            assert!(error.contains("there is no manifest that names it"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        assert_eq!(leftovers::without_manifest(&directory), Ok(vec![]));
        std::fs::write(directory.path_of("a.1.incr.aof"), head(7, true)).unwrap();
        assert_eq!(leftovers::without_manifest(&directory), Ok(vec!["a.1.incr.aof".into()]));
        std::fs::write(directory.path_of("b.manifest"), "x").unwrap();
        assert!(leftovers::without_manifest(&directory).unwrap_err().contains("set 'appendfilename' to 'b'"));
    }

    /// Also for who looks for more: whatever the bytes are, they are loaded or refused, and what was loaded can be
    /// rewritten to a base that loads.
    fn load_anything(seed: u64, files: &[&[u8]]) {
        let node = TestNode::new();
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        let mut manifest = Manifest { own_from: seed.is_multiple_of(2).then_some(1), ..Manifest::default() };
        for (seq, bytes) in (1..).zip(files) {
            let file = AofFile::incremental("a", seq);
            std::fs::write(directory.path_of(&file.name), bytes).unwrap();
            let report =
                crate::aof::check::check(&directory.path_of(&file.name), crate::aof::check::Mode::Report);
            assert!(!report.0.is_empty());
            manifest.incremental.push(file);
        }
        let server = node.executor.server();
        if load(server, &directory, manifest).is_err() {
            return;
        }
        let mut writer = keyward_store::rdb::file::Writer::new(Vec::new()).unwrap();
        let mut stream = server.snapshots.request(server, Box::new(|_| {}));
        stream.begin().unwrap();
        while let Some(chunk) = stream.next_chunk().unwrap() {
            for records in &chunk.records {
                writer.records(records.db, &records.bytes).unwrap();
            }
        }
        let base = writer.finish().unwrap();
        let again = TestNode::new();
        let options = rdb_load::Options::new(&again.executor.server().settings(), None);
        let (keyspace, loading) = (&again.executor.server().keyspace, &again.executor.server().loading);
        let loaded = rdb_load::load(keyspace, &base[..], Some(base.len() as u64), options, loading);
        assert!(loaded.is_ok(), "seed {seed}: {loaded:?}");
    }

    #[test]
    fn damaged_files_are_refused_or_can_be_rewritten() {
        let (first, _) = file(0, 0, |at| at);
        let plain = [
            &["SELECT", "3"][..],
            &["MULTI"],
            &["ZADD", "z", "1.5", "a", "-inf", "b"],
            &["HSET", "h", "f", "v"],
            &["EXEC"],
            &["PEXPIREAT", "h", "9223372036854775807"],
            &["SADD", "s", "1", "2", "x"],
            &["SET", "e", "x", "PX", "100000"],
            &["COPY", "z", "y", "DB", "15"],
            &["MOVE", "s", "9"],
            &["SWAPDB", "0", "3"],
            &["SETRANGE", "r", "5", "x"],
            &["INCRBYFLOAT", "f", "1e300"],
        ];
        let plain: Vec<u8> = plain.iter().flat_map(|words| command(words)).collect();
        for seed in 0..400 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut files = [first.clone(), plain.clone(), [&first[..], &plain].concat()];
            for bytes in &mut files {
                for _ in 0..rng.random_range(0..3) {
                    let at = rng.random_range(0..bytes.len());
                    match rng.random_range(0..5) {
                        0 => bytes[at] ^= 1 << rng.random_range(0..8),
                        1 => bytes[at] = b"0129-*$#\r\n"[rng.random_range(0..10)],
                        2 => bytes.truncate(at + 1),
                        3 => drop(bytes.splice(at..at, b"99999999".iter().copied())),
                        _ => drop(bytes.drain(at..(at + 9).min(bytes.len() - 1).max(at))),
                    }
                }
            }
            let from = rng.random_range(0..files.len());
            let files: Vec<&[u8]> = files[from..].iter().map(Vec::as_slice).collect();
            load_anything(seed, &files);
        }
    }
}
