//! BGREWRITEAOF: a new base, so that the incremental files before it are not needed any more.
//!
//! 1. A snapshot begins at a log index. The writer is told of it while no command runs, and goes on in a new
//!    incremental file that follows exactly this index.
//! 2. The snapshot is written to a file of its own and synced, while everything goes on.
//! 3. When what the snapshot contains is committed (what a primary executed might yet be taken back) or there is no
//!    base yet, the writer puts a manifest in place that names the new base and the files since; the others are deleted.
//!
//! Until step 3 the old files stay valid and complete; whatever goes wrong before it leaves nothing but a file more.
//!
//! With `appendonly no` there is no writer: the snapshot becomes the base of a directory without incremental files, as
//! in Valkey.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyward_proto::ids::Position;
use keyward_replication::disk_log::{DiskLog, Stamp};

use super::directory::Directory;
use super::leftovers;
use super::manifest::{AofFile, Manifest};
use super::rewrites::RewriteFlags;
use super::state::WriterRequest;
use crate::clock;
use crate::process;
use crate::server::Server;
use crate::snapshot::save::{Purpose, write_to};

/// What the snapshot contains is committed within this, or the rewrite is given up.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Begins a rewrite on a thread of its own; `begin` of the state was called.
pub(super) fn start(server: &Arc<Server>, directory: Directory) {
    let thread = Arc::clone(server);
    let spawned =
        std::thread::Builder::new().name("aof-rewrite".into()).spawn(move || run(&thread, &directory));
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a rewrite of the write log");
        server.aof.rewrite.lock().failed(clock::monotonic());
    }
}

fn run(server: &Arc<Server>, directory: &Directory) {
    process::run_in_background();
    let started = clock::monotonic();
    let temporary = directory.unfinished_base();
    let result = if server.aof.status().enabled {
        sync_current(directory);
        write_base(server, directory, &temporary)
    } else {
        write_base_only(server, directory, &temporary)
    };
    let now = clock::monotonic();
    match &result {
        Ok(bytes) => {
            let ms = now.since(started).as_millis();
            tracing::info!(bytes, ms, "the write log is rewritten");
        }
        Err(error) => {
            tracing::warn!(error, "the write log could not be rewritten");
            if let Err(error) = std::fs::remove_file(&temporary)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, file = %temporary.display(), "can't remove what is left of a rewrite");
            }
        }
    }
    let mut rewrites = server.aof.rewrite.lock();
    match result {
        Ok(_) => rewrites.succeeded(now),
        Err(_) => rewrites.failed(now),
    }
}

/// Returns the base's size once it counts.
fn write_base(server: &Arc<Server>, directory: &Directory, temporary: &Path) -> Result<u64, String> {
    let shared = Arc::new(RewriteFlags::default());
    let written = try_write_base(server, directory, temporary, &shared);
    if written.is_err() {
        server.aof.request(server, WriterRequest::GiveUp { rewrite: shared });
    }
    written
}

fn try_write_base(
    server: &Arc<Server>,
    directory: &Directory,
    temporary: &Path,
    shared: &Arc<RewriteFlags>,
) -> Result<u64, String> {
    let at_beginning = {
        let (server, shared) = (Arc::clone(server), Arc::clone(shared));
        move |position: Position| {
            let shard = {
                let mut log = server.shared.log.lock();
                DiskLog::keep_for_rewrite(&mut log, position.index);
                log.shard().cloned()
            };
            let stamp = Stamp { at: position, shard };
            shared.stamp.get_or_init(|| stamp.clone());
            server.aof.request(&server, WriterRequest::Rotate { stamp, rewrite: shared });
        }
    };
    let stream = server.snapshots.request(server, Box::new(at_beginning));
    let cancelled = &shared.given_up;
    let functions = server.scripts.sources();
    let purpose = Purpose::AofBase(Some(&shared.stamp));
    let written = write_to(temporary, &server.settings(), stream, &functions, cancelled, purpose);
    let facts = written.map_err(|e| e.to_string())?.facts;
    let base = name_base(directory, temporary).map_err(|e| format!("can't rename the new base: {e}"))?;
    let path = directory.path_of(&base.name);
    server.aof.request(server, WriterRequest::Adopt { base, facts, rewrite: Arc::clone(shared) });
    let adopted = wait_for_writer(server, shared);
    if adopted.is_err()
        && let Err(error) = std::fs::remove_file(&path)
    {
        tracing::warn!(%error, file = %path.display(), "can't remove a base that is of no use");
    }
    adopted.map(|()| facts.bytes)
}

/// The writer puts the base in place when it may, or gives it up.
fn wait_for_writer(server: &Server, shared: &Arc<RewriteFlags>) -> Result<(), String> {
    let end = clock::monotonic() + COMMIT_PATIENCE;
    let mut is_late = false;
    while !shared.done.load(Ordering::Acquire) {
        if shared.given_up.load(Ordering::Acquire) {
            let reason = if is_late {
                "what the new base contains is not committed"
            } else {
                "the write log has changed meanwhile"
            };
            return Err(reason.into());
        }
        if !server.aof.status().enabled {
            return Err("the write log is not written any more".into());
        }
        if end <= clock::monotonic() && !std::mem::replace(&mut is_late, true) {
            server.aof.request(server, WriterRequest::GiveUp { rewrite: Arc::clone(shared) });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// As [`write_base`], for a node that does not write its log to disk.
fn write_base_only(server: &Arc<Server>, directory: &Directory, temporary: &Path) -> Result<u64, String> {
    directory.create().map_err(|e| format!("can't create the directory: {e}"))?;
    let stream = server.snapshots.request(server, Box::new(|_| {}));
    let functions = server.scripts.sources();
    let never = AtomicBool::new(false);
    let written = write_to(temporary, &server.settings(), stream, &functions, &never, Purpose::AofBase(None));
    let facts = written.map_err(|e| e.to_string())?.facts;
    // Whoever switches the writer on or off has the directory for himself.
    let _switching = server.aof.switching.lock();
    if server.aof.status().enabled {
        return Err("'appendonly' was switched on meanwhile".into());
    }
    let old = match directory.existing_manifest()? {
        Some(old) => old,
        None => {
            leftovers::without_manifest(directory)?;
            Manifest::default()
        }
    };
    let in_place = directory.unlisted(&old).and_then(|unlisted| {
        let base = name_base(directory, temporary)?;
        let unlisted = unlisted.into_iter().map(|(_, file)| file);
        let left = old.files().chain(&old.history).chain(&old.kept).cloned().chain(unlisted);
        let history = left.filter(|file| *file != base).collect();
        let (base, base_facts) = (Some(base), Some(facts));
        let mut manifest = Manifest { base, base_facts, history, ..Manifest::default() };
        directory.write_manifest(&manifest)?;
        directory.delete_history(&mut manifest)
    });
    in_place.map_err(|e| format!("can't put the new base in place: {e}"))?;
    Ok(facts.bytes)
}

/// The writer has to sync the file when it leaves it: the less there is to do then the shorter clients wait.
fn sync_current(directory: &Directory) {
    let manifest = directory.read_manifest().ok().flatten().unwrap_or_default();
    let synced = manifest.incremental.last().map(|file| directory.open(&file.name)?.sync_data());
    if let Some(Err(error)) = synced {
        tracing::debug!(%error, "the file in use is not synced beforehand");
    }
}

/// Gives the base the name that the next manifest will know it by.
fn name_base(directory: &Directory, temporary: &Path) -> io::Result<AofFile> {
    let manifest = directory.existing_manifest().map_err(io::Error::other)?.unwrap_or_default();
    let name = manifest.next_base(directory.prefix());
    std::fs::rename(temporary, directory.path_of(&name.name))?;
    directory.sync()?;
    Ok(name)
}
