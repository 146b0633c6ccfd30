//! The write log on disk: `appendonly yes`. ARCHITECTURE.md, "The write log on disk".
//!
//! - [`manifest`] and [`format`] (pure): what the files say; [`directory`], [`file`], [`reader`]: the files
//! - [`recover`]: loading them at the start; [`history`]: reading them for replicas
//! - `leftovers`: files that no manifest names
//! - `replaced`: what a full sync has replaced is kept for a while
//! - [`rewrite`]: a new base; [`check`]: `keyward-node check-aof`
//! - [`writer`]: the thread that writes; [`sync`]: the one that syncs once a second
//!
//! [`Aof`] is what the rest of the node sees ([`state`], [`rewrites`], [`segments`]): it starts and ends the writer and tells how it does. That a reply leaves
//! only when the log is on disk is not decided here but by the gate: alone the commit index is what is on disk; with
//! sentinels this node counts as holding an entry from then on.

#![allow(clippy::disallowed_methods, reason = "a shell")]

pub mod check;
pub mod directory;
pub mod file;
pub mod format;
pub mod history;
mod keeping;
mod leftovers;
pub mod manifest;
pub mod reader;
pub mod recover;
pub(crate) mod replaced;
pub mod rewrite;
pub mod rewrites;
pub mod segments;
mod shared_writer;
pub mod state;
pub mod sync;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position};
use keyward_replication::disk_log::{DiskLog, FileNumber, LogFile, Mark};
use keyward_replication::gate::{DiskState, GateState};

use crate::clock;
use crate::config::Settings;
use crate::rdb_load;
use crate::server::Server;
use directory::Directory;
use file::Incremental;
use format::Head;
use history::HistoryReader;
use manifest::{AofFile, Manifest};
use recover::{Recovered, Resume};
use rewrites::Refused;
use segments::{History, Segment};
use shared_writer::SharedWriter;
use state::WriterRequest;
pub use state::{Aof, Status};
use writer::{BATCH_BYTES, Writer, create_incremental, head_of};

/// Between two attempts of a primary with a failing disk to hand over: each holds up reads for a moment.
const HANDOFF_EVERY: Duration = Duration::from_secs(5);
/// How long an ending node waits for its disk.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

impl Aof {
    /// The log from an entry on, from the files; `None` if they do not have it.
    pub fn read_history(&self, server: &Server, next: LogIndex) -> Option<HistoryReader> {
        self.history.lock().read_from(next, directory(&server.settings()))
    }

    fn request(&self, server: &Server, request: WriterRequest) {
        self.requests.lock().push_back(request);
        server.shared.wake_disk_writer();
    }

    pub fn rewrite_info(&self) -> rewrites::Info {
        self.rewrite.lock().info(clock::monotonic())
    }

    /// BGREWRITEAOF.
    ///
    /// # Errors
    /// One is running.
    pub fn begin_rewrite(&self, server: &Arc<Server>) -> Result<(), Refused> {
        self.rewrite.lock().begin(clock::monotonic())?;
        rewrite::start(server, directory(&server.settings()));
        Ok(())
    }

    /// Regularly: begins a rewrite that is needed, or due by `auto-aof-rewrite-*`; lets another node be the primary if
    /// this one's disk fails.
    pub fn tick(&self, server: &Arc<Server>) {
        let settings = server.settings();
        self.leave_primary_role(server);
        replaced::tick(server, &directory(&settings));
        if !self.status().enabled || !server.is_complete() {
            return;
        }
        let (total, before) =
            (self.counters.total_bytes(), self.counters.rewritten_bytes.load(Ordering::Relaxed));
        let limit = u128::from(before.max(1)) * u128::from(100 + settings.auto_aof_rewrite_percentage) / 100;
        let grown = settings.auto_aof_rewrite_percentage > 0
            && settings.auto_aof_rewrite_min_bytes < total
            && limit <= u128::from(total);
        let due = {
            let state = self.rewrite.lock();
            (state.base_is_missing || grown) && state.may_begin(clock::monotonic())
        };
        if due {
            tracing::info!(bytes = total, bytes_before = before, "rewriting the write log");
            if let Err(error) = self.begin_rewrite(server) {
                tracing::debug!(%error, "somebody else was faster");
            }
        }
    }

    /// A primary whose disk fails hands over, if a replica in sync is fit for it. Otherwise it goes on refusing writes.
    fn leave_primary_role(&self, server: &Arc<Server>) {
        let gate = &server.shared.gate;
        let (Some(replication), GateState::Primary, DiskState::Failed) =
            (server.replication.get(), gate.state(), gate.disk())
        else {
            return;
        };
        let now = clock::monotonic();
        {
            let mut after = self.handoff_after.lock();
            if now < *after {
                return;
            }
            *after = now + HANDOFF_EVERY;
        }
        let replication = Arc::clone(replication);
        tokio::spawn(async move {
            tracing::warn!("the disk of this primary fails: it hands over");
            if let Err(error) = replication.handoff(None).await {
                tracing::warn!(%error, "no hand-off: writes are refused until the disk works again");
            }
        });
    }

    /// CONFIG SET appendonly: starts or ends the writer, on a thread of its own, since both take their time.
    pub fn switch(&self, server: &Arc<Server>) {
        let server = Arc::clone(server);
        let spawned = std::thread::Builder::new().name("aof-switch".into()).spawn(move || {
            let _one_at_a_time = server.aof.switching.lock();
            let settings = server.settings();
            match (settings.appendonly, server.aof.status().enabled) {
                (true, false) => match begin_at_runtime(&server, &settings) {
                    Ok(()) => tracing::info!(
                        "the write log is written to disk from now on, as soon as it has a base"
                    ),
                    Err(error) => tracing::error!(%error, "the write log can't be written to disk"),
                },
                (false, true) => end_at_runtime(&server),
                (true, true) | (false, false) => {}
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to change 'appendonly'");
        }
    }

    /// Writes and syncs what is left, and ends the writer. Blocks.
    pub fn stop(&self, server: &Server) {
        let mut status = self.status.lock();
        if !status.enabled {
            return;
        }
        self.request(server, WriterRequest::Stop);
        while status.enabled {
            if self.stopped.wait_for(&mut status, STOP_PATIENCE).timed_out() {
                tracing::error!("the write log could not be brought to disk in time");
                return;
            }
        }
    }
}

/// Whether there are files with something in them: known before they are loaded.
pub fn has_data(settings: &Settings) -> bool {
    directory(settings).has_data()
}

/// Loads what the disk has and begins to write to it. Returns up to where the keyspace contains the log. Blocks.
///
/// # Errors
/// One line for the operator: the node must not start.
pub fn start(server: &Arc<Server>, settings: &Settings) -> Result<LogIndex, String> {
    start_in(server, settings, directory(settings))
}

/// The write log has been off so far: what was saved without it is where it begins.
///
/// Differs from Valkey, which starts empty then.
fn has_dump(server: &Server, settings: &Settings) -> Result<bool, String> {
    rdb_load::load_dump(server, settings)?;
    Ok(server.last_load.keys.load(Ordering::Relaxed) > 0)
}

fn directory(settings: &Settings) -> Directory {
    Directory::new(&settings.append_dirname, &settings.append_filename)
}

fn start_in(server: &Arc<Server>, settings: &Settings, directory: Directory) -> Result<LogIndex, String> {
    look_for_replaced(server, &directory)?;
    let recovered = match directory.read_manifest()? {
        Some(manifest) => load(server, &directory, manifest)?,
        None => {
            let leftovers = leftovers::without_manifest(&directory)?;
            delete(&directory, &leftovers)
                .map_err(|e| format!("can't delete what a rewrite has left: {e}"))?;
            if server.shared.gate.is_standalone() && has_dump(server, settings)? {
                begin_at_runtime(server, settings)?;
                return Ok(LogIndex::ZERO);
            }
            let applied = LogIndex::ZERO;
            Recovered {
                manifest: Manifest::default(),
                resume: None,
                applied,
                entries: 0,
                leftovers: Vec::new(),
            }
        }
    };
    let applied = recovered.applied;
    let writer = prepare(server, directory, recovered)
        .map_err(|e| format!("can't write to the directory '{}': {e}", settings.append_dirname))?;
    let last = writer.core.last();
    let shared = &server.shared;
    server.note_loaded(applied);
    {
        let first_on_disk = server.aof.history.lock().first();
        let mut log = shared.log.lock();
        log.attach_disk();
        log.set_first_on_disk(first_on_disk);
        if shared.gate.is_standalone() {
            // Nobody but the writer reads it.
            log.set_capacity_bytes(0);
        }
    }
    if shared.gate.is_standalone() {
        shared.gate.set_standalone_commit(last);
        shared.gate.begin_logging();
    }
    count_bytes(server, &writer);
    spawn(server, writer).map_err(|e| format!("can't start a thread: {e}"))?;
    Ok(applied)
}

fn look_for_replaced(server: &Server, directory: &Directory) -> Result<(), String> {
    let found = directory.look_for_replaced();
    if found.map_err(|e| format!("can't remove what is left in '{}': {e}", directory.path().display()))? {
        tracing::warn!(directory = %directory.replaced().display(), "what a full sync has replaced is kept there");
        server.aof.replaced.begin();
    }
    Ok(())
}

fn count_bytes(server: &Server, writer: &Writer) {
    let size = |name: &str| writer.directory.path_of(name).metadata().map_or(0, |m| m.len());
    let base = writer.manifest.base.as_ref().map_or(0, |f| size(&f.name));
    let all: u64 = writer.manifest.incremental.iter().map(|f| size(&f.name)).sum();
    let (counters, current) = (&server.aof.counters, writer.core.file().bytes());
    counters.base_bytes.store(base, Ordering::Relaxed);
    counters.earlier_bytes.store(all.saturating_sub(current), Ordering::Relaxed);
    counters.current_bytes.store(current, Ordering::Relaxed);
    counters.rewritten_bytes.store(base + all, Ordering::Relaxed);
}

fn spawn(server: &Server, writer: Writer) -> io::Result<()> {
    server.aof.requests.lock().clear();
    server.aof.status.lock().enabled = true;
    let writer = SharedWriter::new(writer);
    let spawned = std::thread::Builder::new().name("aof".into()).spawn(move || writer.run());
    if spawned.is_err() {
        server.aof.note_stopped();
    }
    spawned.map(drop)
}

/// Begins to write the log of a node that serves. It counts when the first base is written.
fn begin_at_runtime(server: &Arc<Server>, settings: &Settings) -> Result<(), String> {
    let directory = directory(settings);
    let manifest = match directory.read_manifest()? {
        Some(manifest) => manifest,
        None => {
            leftovers::without_manifest(&directory)?;
            Manifest::default()
        }
    };
    let shared = &server.shared;
    let position = {
        let _stopped = server.world.stop();
        let mut log = shared.log.lock();
        log.keep_entries();
        log.attach_disk_without_base();
        if shared.gate.is_standalone() {
            log.set_capacity_bytes(0);
            shared.gate.begin_logging();
        }
        log.last()
    };
    let writer = prepare_at(server, directory, manifest, position);
    // Before it is enabled: who sees that it is, and that no rewrite is due, relies on the base.
    server.aof.require_base();
    let begun = writer.and_then(|writer| spawn(server, writer)).map_err(|e| e.to_string());
    if begun.is_err() {
        detach(server);
    }
    begun
}

fn end_at_runtime(server: &Server) {
    server.aof.stop(server);
    detach(server);
    tracing::info!("the write log is not written to disk any more");
}

/// The log is in memory only.
fn detach(server: &Server) {
    let shared = &server.shared;
    {
        let _stopped = server.world.stop();
        shared.log.lock().detach_disk();
        if shared.gate.is_standalone() {
            shared.gate.end_logging();
            shared.log.lock().keep_no_entries();
        }
    }
    if shared.gate.is_standalone() {
        shared.gate.set_standalone_commit(LogIndex::new(u64::MAX));
    }
    server.aof.note_base();
    server.aof.set_error(None);
    shared.gate.set_disk(DiskState::Healthy);
    shared.durable_advanced();
}

/// A writer whose first file follows `position`; the manifest does not name it until there is a base.
fn prepare_at(
    server: &Arc<Server>,
    directory: Directory,
    manifest: Manifest,
    position: Position,
) -> io::Result<Writer> {
    directory.create()?;
    let unlisted = directory.unlisted(&manifest)?;
    let head = Head { awaits_base: true, ..head_of(server, position) };
    let seq = manifest.next_incremental(directory.prefix()).seq;
    let seq = unlisted.iter().map(|(_, file)| file.seq + 1).fold(seq, u64::max);
    let name = AofFile::incremental(directory.prefix(), seq);
    let (current, bytes) = create_incremental(&directory, name, &head)?;
    current.file.sync_data()?;
    let segment = Segment::new(&current.name, position.index);
    *server.aof.history.lock() = History::new(vec![segment]);
    let file = LogFile::begun(FileNumber(seq), position.index, bytes);
    let core = DiskLog::without_base(clock::monotonic(), BATCH_BYTES, file, head.shard);
    let mut writer = Writer::new(server, directory, manifest, current, core)?;
    // The base will stand for them, too.
    writer.unlisted = unlisted.into_iter().map(|(_, file)| file).collect();
    Ok(writer)
}

fn load(server: &Arc<Server>, directory: &Directory, manifest: Manifest) -> Result<Recovered, String> {
    let started = clock::monotonic();
    let bytes = manifest.files().map(|f| directory.path_of(&f.name).metadata().map_or(0, |m| m.len())).sum();
    server.loading.begin(bytes);
    let recovered = recover::load(server, directory, manifest)?;
    server.loading.end();
    let time = clock::monotonic().since(started);
    let last = server.shared.log.lock().last();
    tracing::info!(bytes, entries = recovered.entries, applied = %recovered.applied, %last, ?time, "the write log is loaded");
    Ok(recovered)
}

/// Removes what a rewrite has left that did not end.
fn delete(directory: &Directory, leftovers: &[String]) -> io::Result<()> {
    for name in leftovers {
        tracing::info!(file = name, "left behind by a rewrite that did not end: deleted");
        std::fs::remove_file(directory.path_of(name))?;
    }
    Ok(())
}

/// Opens the file to go on with, or a new one.
fn prepare(server: &Arc<Server>, directory: Directory, recovered: Recovered) -> io::Result<Writer> {
    directory.create()?;
    let Recovered { mut manifest, resume, applied, leftovers, .. } = recovered;
    delete(&directory, &leftovers)?;
    let last = server.shared.log.lock().last();
    let head = head_of(server, last);
    let mut history = None;
    let (current, file) = match resume {
        Some(resume) => {
            let (current, file) = go_on(&directory, resume, last)?;
            if !server.shared.gate.is_standalone() {
                let first = manifest.incremental.first().map_or(0, |file| file.seq);
                let segment = Segment::new(&current.name, file.follows());
                let mut found = History::found(&directory, &manifest, segment);
                found.trim(first, server.settings().backlog_disk_bytes);
                manifest.kept = found.before(first).cloned().collect();
                manifest.history.retain(|file| !manifest.kept.contains(file));
                history = Some(found);
            }
            (current, file)
        }
        None => {
            let name = manifest.next_incremental(directory.prefix());
            let (current, bytes) = create_incremental(&directory, name, &head)?;
            current.file.sync_data()?;
            manifest.own_from.get_or_insert(current.name.seq);
            manifest.incremental.push(current.name.clone());
            directory.write_manifest(&manifest)?;
            let file = LogFile::begun(FileNumber(current.name.seq), last.index, bytes);
            (current, file)
        }
    };
    let segment = || Segment::new(&current.name, file.follows());
    *server.aof.history.lock() = history.unwrap_or_else(|| History::new(vec![segment()]));
    // The manifest may go on naming them: a full disk must not keep a node from starting.
    directory.delete_files(&mut manifest);
    let core = DiskLog::new(clock::monotonic(), BATCH_BYTES, file, applied, head.shard);
    Writer::new(server, directory, manifest, current, core)
}

/// The last file, without what a crash has left behind its last whole batch.
fn go_on(directory: &Directory, resume: Resume, last: Position) -> io::Result<(Incremental, LogFile)> {
    let Resume { file: name, len, batches, follows, repeats } = resume;
    let file = directory.open(&name.name)?;
    file.set_len(len)?;
    // What the last process wrote may not have reached the disk: from now on it counts as being there.
    file.sync_all()?;
    let end = Mark { bytes: len, index: last.index };
    let number = FileNumber(name.seq);
    Ok((Incremental::new(name, file), LogFile::resumed(number, follows, repeats, end, batches)))
}
