//! SAVE, BGSAVE and the `save` rules: a snapshot written to `dbfilename`.
//!
//! The file is written under a temporary name, synced, and renamed, so that `dbfilename` is always a complete one.
//! One save runs at a time, on a thread of its own. Whoever asked for it in the foreground (SAVE, the end of the
//! process) waits for the thread; commands go on in the meantime.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use keyward_proto::VALKEY_VERSION;
use keyward_store::rdb::file::{Ending, Writer};
use keyward_store::rdb::{Checksum, VERSION};
use tokio::sync::oneshot;

use super::rules::{self, Situation};
use super::saves::{AlreadyRunning, Kind, Running, Saves};
use super::{Beginning, SETTLED_PATIENCE, Settled, Stream, wait_for};
use crate::aof::format::{STAMP, Stamp, stamp_text};
use crate::aof::manifest::BaseFacts;
use crate::aof::replaced::keep_dump;
use crate::clock;
use crate::config::Settings;
use crate::process;
use crate::server::Server;

/// With `rdb-save-incremental-fsync`: bytes between two syncs, so that the last one has little left to do.
const SYNC_BYTES: usize = 4 << 20;
const BUFFER_BYTES: usize = 64 << 10;

impl Saves {
    /// Regularly: begins what is scheduled, or due by a rule.
    pub fn tick(&self, server: &Arc<Server>) {
        let now = clock::monotonic();
        let settings = server.settings();
        {
            let state = self.state.lock();
            if state.running.is_some() || !server.is_complete() {
                return;
            }
            let changes = server.stats.sum(|t| &t.changes).saturating_sub(state.saved_changes);
            let situation = Situation {
                since_save: now.since(state.saved_at),
                since_try: now.since(state.last_try),
                last_try_failed: state.last_background_failed,
                changes,
            };
            let rule = rules::due(&settings.save_points, situation);
            if let Some(rule) = rule {
                tracing::info!(changes = rule.changes, seconds = rule.seconds, "saving by a rule");
            }
            if rule.is_none() && !state.is_scheduled {
                return;
            }
        }
        if self.start(server, Kind::Background).is_err() {
            tracing::debug!("somebody else was faster");
        }
    }

    /// Begins a save; the result comes through the receiver.
    ///
    /// # Errors
    /// One is running.
    pub fn start(
        &self,
        server: &Arc<Server>,
        kind: Kind,
    ) -> Result<oneshot::Receiver<Result<(), String>>, AlreadyRunning> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let id = {
            let mut state = self.state.lock();
            if state.running.is_some() {
                return Err(AlreadyRunning);
            }
            state.last_id += 1;
            let (id, since) = (state.last_id, clock::monotonic());
            state.running = Some(Running { id, kind, since, cancelled: Arc::clone(&cancelled) });
            state.last_try = since;
            if kind == Kind::Background {
                state.is_scheduled = false;
            }
            id
        };
        let (answer, result) = oneshot::channel();
        let thread = Arc::clone(server);
        let spawned = std::thread::Builder::new().name("save".into()).spawn(move || {
            process::run_in_background();
            let stream = thread.snapshots.request(&thread, Box::new(|_| {}));
            if kind == Kind::Foreground {
                thread.snapshots.hurry();
            }
            let written = write(&thread, stream, id, &cancelled);
            let result = thread.saves.finish(&thread, id, written);
            if answer.send(result).is_err() {
                tracing::debug!("nobody waits for the save");
            }
        });
        if let Err(error) = spawned {
            // The receiver says so: its sender is gone.
            drop(self.finish(server, id, Err(Failure::Io(error))));
        }
        Ok(result)
    }

    fn finish(&self, server: &Server, id: u64, written: Result<Written, Failure>) -> Result<(), String> {
        let now = clock::monotonic();
        let mut state = self.state.lock();
        let Some(running) = state.running.take_if(|r| r.id == id) else {
            tracing::info!("a save was cancelled");
            return Err("the save was cancelled".into());
        };
        let kind = running.kind;
        let elapsed = now.since(running.since);
        if kind == Kind::Background {
            state.last_background_seconds = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
        }
        state.last_cow_bytes = server.snapshots.peak_bytes();
        match written {
            Ok(Written { beginning, facts: BaseFacts { bytes, .. } }) => {
                state.saved_changes = beginning.changes;
                state.last_save = clock::unix_millis().0 / 1000;
                state.saved_at = now;
                state.last_background_failed = false;
                state.saves += 1;
                self.failed.store(false, Ordering::Relaxed);
                tracing::info!(
                    bytes,
                    keys = beginning.keys,
                    cow_bytes = state.last_cow_bytes,
                    pause_us = beginning.pause.as_micros(),
                    ms = elapsed.as_millis(),
                    "the database is saved"
                );
                Ok(())
            }
            Err(failure) => {
                let text = failure.to_string();
                tracing::warn!(error = text, "saving failed");
                if kind == Kind::Background {
                    state.last_background_failed = true;
                    self.failed.store(true, Ordering::Relaxed);
                }
                Err(text)
            }
        }
    }
}

/// What a file is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Dump,
    /// With what it contains, known as soon as the snapshot begins; `None`: there is no log.
    AofBase(Option<&'a OnceLock<Stamp>>),
}

impl Purpose<'_> {
    fn is_base(self) -> bool {
        matches!(self, Purpose::AofBase(_))
    }

    fn stamp(self) -> Option<String> {
        match self {
            Purpose::AofBase(Some(stamp)) => stamp.get().map(stamp_text),
            Purpose::AofBase(None) | Purpose::Dump => None,
        }
    }
}

pub(crate) struct Written {
    pub(crate) beginning: Beginning,
    pub(crate) facts: BaseFacts,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cancelled")]
    Cancelled,
    #[error("what the snapshot holds is not committed, or the node has changed its role")]
    NotSettled,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Snapshot(#[from] super::SnapshotError),
}

/// Removes from the working directory, which is this process's alone, what saves have left that did not end.
pub fn remove_unfinished() {
    let names = fs::read_dir(".").into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter(|name| name.to_str().is_some_and(is_unfinished)) {
        match fs::remove_file(&name) {
            Ok(()) => {
                tracing::info!(file = %name.display(), "left behind by a save that did not end: deleted")
            }
            Err(error) => {
                tracing::warn!(%error, file = %name.display(), "can't remove what is left of a save")
            }
        }
    }
}

fn unfinished(process: u32, id: u64) -> String {
    format!("temp-{process}-{id}.rdb")
}

/// Valkey's own have one number.
fn is_unfinished(name: &str) -> bool {
    let numbers = name.strip_prefix("temp-").and_then(|rest| rest.strip_suffix(".rdb")?.split_once('-'));
    numbers.is_some_and(|(process, id)| process.parse::<u32>().is_ok() && id.parse::<u64>().is_ok())
}

/// Writes the snapshot to its file.
fn write(server: &Server, stream: Stream, id: u64, cancelled: &AtomicBool) -> Result<Written, Failure> {
    let settings = server.settings();
    let temporary = PathBuf::from(unfinished(std::process::id(), id));
    let functions = server.scripts.sources();
    let written = write_to(&temporary, &settings, stream, &functions, cancelled, Purpose::Dump);
    let renamed = written.and_then(|written| {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Failure::Cancelled);
        }
        match wait_for(server, &written.beginning, SETTLED_PATIENCE) {
            Settled::True => {}
            Settled::Unknown => return Err(Failure::NotSettled),
            // It may be all that can be saved of a shard that does not go on.
            Settled::NotYet => tracing::warn!(
                position = %written.beginning.position,
                "what is saved is not committed, or this node is not sure to be the primary: it may never have been"
            ),
        }
        if server.saves.state.lock().saves == 0 {
            keep_dump(server, &settings, written.facts.bytes);
        }
        fs::rename(&temporary, &settings.dbfilename)?;
        // The name, too, has to survive a crash of the machine.
        File::open(".")?.sync_all()?;
        Ok(written)
    });
    if renamed.is_err()
        && let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %temporary.display(), "can't remove what is left of a save");
    }
    renamed
}

/// Writes the snapshot to a new file, and syncs it.
pub(crate) fn write_to(
    path: &Path,
    settings: &Settings,
    mut stream: Stream,
    functions: &[Vec<u8>],
    cancelled: &AtomicBool,
    purpose: Purpose<'_>,
) -> Result<Written, Failure> {
    let beginning = stream.begin()?;
    let file = Synced { file: File::create(path)?, unsynced: 0, incremental: settings.rdb_incremental_fsync };
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let keys = Some((&beginning, &mut stream));
    let facts = write_file(&mut file, settings, keys, functions, cancelled, purpose)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.file.sync_all()?;
    Ok(Written { beginning, facts })
}

/// Writes a file: functions, and the keys of a snapshot that has begun. Returns what it is then.
pub(crate) fn write_file(
    out: impl Write,
    settings: &Settings,
    keys: Option<(&Beginning, &mut Stream)>,
    functions: &[Vec<u8>],
    cancelled: &AtomicBool,
    purpose: Purpose<'_>,
) -> Result<BaseFacts, Failure> {
    // A base that is damaged is a keyspace with holes below a log that is not.
    let has_checksum = settings.rdb_checksum || purpose.is_base();
    let version = keys.as_ref().map_or(VERSION, |(beginning, _)| beginning.rdb_version);
    let mut writer = Writer::of_version(version, out, has_checksum.then(Checksum::default))?;
    for (name, value) in facts(purpose) {
        writer.aux(name, value.as_bytes())?;
    }
    if let Some(stamp) = purpose.stamp() {
        writer.aux(STAMP, stamp.as_bytes())?;
    }
    let mut keys_written = 0;
    for source in functions {
        writer.function(source)?;
    }
    if let Some((beginning, stream)) = keys {
        // Nearly all keys are in the first database, as a rule; whoever loads the file makes room for them at once.
        writer.resize_db(0, beginning.keys, 0)?;
        while let Some(chunk) = stream.next_chunk()? {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Failure::Cancelled);
            }
            for records in &chunk.records {
                writer.records(records.db, &records.bytes)?;
                keys_written += records.keys;
            }
        }
    }
    let (_, Ending { bytes, checksum }) = writer.end()?;
    Ok(BaseFacts { bytes, checksum, keys: keys_written })
}

/// What a file says of where it comes from.
fn facts(purpose: Purpose<'_>) -> [(&'static str, String); 5] {
    [
        ("valkey-ver", VALKEY_VERSION.to_owned()),
        ("redis-bits", "64".to_owned()),
        ("ctime", (clock::unix_millis().0 / 1000).to_string()),
        ("used-mem", process::allocated().to_string()),
        ("aof-base", u8::from(purpose.is_base()).to_string()),
    ]
}

/// A file that is synced now and then while it is written.
struct Synced {
    file: File,
    unsynced: usize,
    incremental: bool,
}

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.incremental && SYNC_BYTES <= self.unsynced {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
