//! The write log on disk: `appendonly yes`. DESIGN sections 5 and 8.
//!
//! - [`manifest`] and [`format`] (pure): what the files say; [`directory`], [`file`], [`reader`]: the files
//! - [`recover`]: loading them at the start
//! - [`writer`]: the thread that writes; [`sync`]: the one that syncs once a second
//!
//! [`Aof`] is what the rest of the node sees: it starts and ends the writer and tells how it does. That a reply leaves
//! only when the log is on disk is not decided here but by the gate: alone the commit index is what is on disk; with
//! sentinels this node counts as holding an entry from then on.

#![allow(clippy::disallowed_methods, reason = "a shell")]

pub mod directory;
pub mod file;
pub mod format;
pub mod manifest;
pub mod reader;
pub mod recover;
pub mod sync;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position};
use parking_lot::{Condvar, Mutex};

use crate::clock;
use crate::config::Settings;
use crate::server::Server;
use directory::Directory;
use file::Incremental;
use manifest::Manifest;
use recover::{Recovered, Resume};
use sync::Syncer;
use writer::{Writer, create_incremental};

/// How long an ending node waits for its disk.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What the writer is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    /// Write and sync what is left, then end.
    Stop,
}

/// For INFO. Written by the writer.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of the incremental file that is being written.
    pub current_bytes: AtomicU64,
    pub pending_syncs: AtomicU64,
    pub delayed_syncs: AtomicU64,
    rewrite_wanted: AtomicBool,
}

/// How the writer does.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub enabled: bool,
    /// Why writing fails, in the system's words.
    pub error: Option<String>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Aof {
    orders: Mutex<VecDeque<Order>>,
    status: Mutex<Status>,
    /// The writer has ended.
    stopped: Condvar,
    pub counters: Counters,
}

impl Aof {
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    fn take_orders(&self) -> VecDeque<Order> {
        std::mem::take(&mut *self.orders.lock())
    }

    fn set_error(&self, error: Option<String>) {
        self.status.lock().error = error;
    }

    fn request_rewrite(&self) {
        self.counters.rewrite_wanted.store(true, Ordering::Release);
    }

    fn note_stopped(&self) {
        self.status.lock().enabled = false;
        self.stopped.notify_all();
    }

    /// Writes and syncs what is left, and ends the writer. Blocks.
    pub fn stop(&self, server: &Server) {
        let mut status = self.status.lock();
        if !status.enabled {
            return;
        }
        self.orders.lock().push_back(Order::Stop);
        server.shared.wake_disk_writer();
        while status.enabled {
            if self.stopped.wait_for(&mut status, STOP_PATIENCE).timed_out() {
                tracing::error!("the write log could not be brought to disk in time");
                return;
            }
        }
    }
}

/// Loads what the disk has and begins to write to it. Returns up to where the keyspace contains the log. Blocks.
///
/// # Errors
/// One line for the operator: the node must not start.
pub fn start(server: &Arc<Server>, settings: &Settings) -> Result<LogIndex, String> {
    let directory = Directory::new(&settings.append_dirname, &settings.append_filename);
    start_in(server, settings, directory)
}

fn start_in(server: &Arc<Server>, settings: &Settings, directory: Directory) -> Result<LogIndex, String> {
    let recovered = match directory.read_manifest()? {
        Some(manifest) => load(server, settings, &directory, manifest)?,
        None => {
            Recovered { manifest: Manifest::default(), resume: None, applied: LogIndex::ZERO, entries: 0 }
        }
    };
    let applied = recovered.applied;
    let writer = prepare(server, directory, recovered)
        .map_err(|e| format!("can't write to the directory '{}': {e}", settings.append_dirname))?;
    let last = writer.written;
    let shared = &server.shared;
    shared.set_applied(applied);
    {
        let mut log = shared.log.lock();
        log.attach_disk();
        if shared.gate.is_alone() {
            // Nobody but the writer reads it.
            log.set_capacity_bytes(0);
        }
    }
    if shared.gate.is_alone() {
        shared.gate.set_alone_commit(last);
        shared.gate.set_logs(true);
    }
    server.aof.status.lock().enabled = true;
    std::thread::Builder::new()
        .name("aof".into())
        .spawn(move || writer.run())
        .map_err(|e| format!("can't start a thread: {e}"))?;
    Ok(applied)
}

fn load(
    server: &Arc<Server>,
    settings: &Settings,
    directory: &Directory,
    manifest: Manifest,
) -> Result<Recovered, String> {
    let started = clock::monotonic();
    let bytes = manifest.files().map(|f| directory.path_of(&f.name).metadata().map_or(0, |m| m.len())).sum();
    server.loading.begin(bytes);
    let recovered = recover::load(server, directory, manifest, settings.aof_load_truncated)?;
    server.loading.end();
    let time = clock::monotonic().since(started);
    let last = server.shared.log.lock().last();
    tracing::info!(bytes, entries = recovered.entries, applied = %recovered.applied, %last, ?time, "the write log is loaded");
    Ok(recovered)
}

/// Opens the file to go on with, or a new one.
fn prepare(server: &Arc<Server>, directory: Directory, recovered: Recovered) -> io::Result<Writer> {
    directory.create()?;
    let Recovered { mut manifest, resume, applied, .. } = recovered;
    let (last, shard, terms) = {
        let log = server.shared.log.lock();
        (log.last(), log.shard().cloned(), log.terms().to_vec())
    };
    let current = match resume {
        Some(resume) => go_on(&directory, resume, last)?,
        None => {
            let current = create_incremental(&directory, &manifest, last, shard.as_ref(), &terms)?;
            manifest.incremental.push(current.name.clone());
            directory.write_manifest(&manifest)?;
            current
        }
    };
    directory.delete_history(&mut manifest)?;
    let now = clock::monotonic();
    Ok(Writer {
        server: Arc::clone(server),
        directory,
        manifest,
        written: last.index,
        current,
        complete: true,
        encoder: Default::default(),
        syncer: Syncer::start()?,
        sync_started_at: None,
        synced_at: now,
        retry_at: None,
        noted_commit: applied,
        noted_shard: shard,
        wrote_at: now,
        stopping: false,
    })
}

/// The last file, without what a crash has left behind its last whole batch.
fn go_on(directory: &Directory, resume: Resume, last: Position) -> io::Result<Incremental> {
    let Resume { file: name, len, batches, follows } = resume;
    let file = directory.open(&name.name)?;
    file.set_len(len)?;
    // What the last process wrote may not have reached the disk: from now on it counts as being there.
    file.sync_all()?;
    Ok(Incremental::new(name, file, len, follows, last.index, batches))
}
