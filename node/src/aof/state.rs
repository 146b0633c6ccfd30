//! What all threads see of the log on disk: what its writer is asked for and how it does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keyward_proto::time::Monotonic;
use keyward_replication::disk_log::Stamp;
use parking_lot::{Condvar, Mutex};

use super::keeping::Keeping;
use super::manifest::{AofFile, BaseFacts};
use super::rewrites::{RewriteFlags, Rewrites};
use super::segments::History;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum WriterRequest {
    /// Write and sync what is left, then end.
    Stop,
    /// Go on in a new file behind this entry: a snapshot contains the log up to there.
    Rotate { stamp: Stamp, rewrite: Arc<RewriteFlags> },
    /// The snapshot is in this file: it and the files since the rotation are the data.
    Adopt { base: AofFile, facts: BaseFacts, rewrite: Arc<RewriteFlags> },
    /// There will be no such snapshot.
    GiveUp { rewrite: Arc<RewriteFlags> },
}

/// For INFO. Written by the writer.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of the incremental file that is being written.
    pub current_bytes: AtomicU64,
    /// Of the incremental files before it, since the base.
    pub earlier_bytes: AtomicU64,
    pub base_bytes: AtomicU64,
    /// All of them after the last rewrite, or at the start.
    pub rewritten_bytes: AtomicU64,
    pub pending_syncs: AtomicU64,
    pub delayed_syncs: AtomicU64,
}

impl Counters {
    /// Of base and incremental files.
    pub fn total_bytes(&self) -> u64 {
        let parts = [&self.base_bytes, &self.earlier_bytes, &self.current_bytes];
        parts.iter().map(|p| p.load(Ordering::Relaxed)).sum()
    }
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
    pub(super) requests: Mutex<VecDeque<WriterRequest>>,
    pub(super) status: Mutex<Status>,
    /// The writer has ended.
    pub(super) stopped: Condvar,
    pub(super) rewrite: Mutex<Rewrites>,
    /// Held while the writer is started or ended.
    pub(super) switching: Mutex<()>,
    /// The next attempt to leave the role of the primary is not made before.
    pub(super) handoff_after: Mutex<Monotonic>,
    pub counters: Counters,
    pub(super) replaced: Keeping,
    /// What of the log can be read from the files. Written by the writer.
    pub(super) history: Mutex<History>,
}

impl Aof {
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub(super) fn take_requests(&self) -> VecDeque<WriterRequest> {
        std::mem::take(&mut *self.requests.lock())
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        self.status.lock().error = error;
    }

    /// Nothing on the disk counts until a rewrite has ended.
    pub(super) fn require_base(&self) {
        self.rewrite.lock().base_is_missing = true;
    }

    pub(super) fn note_base(&self) {
        self.rewrite.lock().base_is_missing = false;
    }

    pub(super) fn note_stopped(&self) {
        self.status.lock().enabled = false;
        self.stopped.notify_all();
    }
}
