//! What all threads see of SAVE and BGSAVE: which one runs, which is wanted, how the last one ended. Who writes:
//! [`super::save`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyward_proto::time::Monotonic;
use parking_lot::Mutex;

use crate::config::Settings;

/// Why a save cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyRunning;

/// What BGSAVE CANCEL found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    Running,
    Scheduled,
    Nothing,
}

/// Who asked for a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SAVE, or the end of the process.
    Foreground,
    /// BGSAVE, or a rule.
    Background,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) since: Monotonic,
    pub(super) cancelled: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) struct State {
    /// A cancelled one does not count: its thread removes what it has written.
    pub(super) running: Option<Running>,
    pub(super) last_id: u64,
    pub(super) is_scheduled: bool,
    /// Seconds since the Unix epoch, for who asks.
    pub(super) last_save: i64,
    /// The same moment, for the rules.
    pub(super) saved_at: Monotonic,
    pub(super) last_try: Monotonic,
    pub(super) last_background_failed: bool,
    pub(super) last_background_seconds: i64,
    pub(super) saves: u64,
    pub(super) last_cow_bytes: usize,
    /// Modifications of keys that the last save contains.
    pub(super) saved_changes: u64,
}

/// The saves of a node.
#[derive(Debug)]
pub struct Saves {
    pub(super) state: Mutex<State>,
    /// The last save in the background has failed.
    pub(super) failed: AtomicBool,
}

/// What INFO tells.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    pub changes_since_last_save: u64,
    pub background_running: bool,
    pub last_save: i64,
    pub last_background_ok: bool,
    /// -1: none yet.
    pub last_background_seconds: i64,
    /// -1: none runs.
    pub current_background_seconds: i64,
    pub saves: u64,
    pub last_cow_bytes: usize,
}

impl State {
    /// Whether there was one of this kind.
    fn cancel(&mut self, kind: Kind) -> bool {
        let running = self.running.take_if(|r| r.kind == kind);
        running.is_some_and(|r| {
            r.cancelled.store(true, Ordering::Relaxed);
            true
        })
    }
}

impl Saves {
    /// `now`: seconds since the Unix epoch, and the same moment. What a node holds at its start counts as saved.
    pub fn new(now: i64, started_at: Monotonic) -> Saves {
        let state = State {
            running: None,
            last_id: 0,
            is_scheduled: false,
            last_save: now,
            saved_at: started_at,
            last_try: started_at,
            last_background_failed: false,
            last_background_seconds: -1,
            saves: 0,
            last_cow_bytes: 0,
            saved_changes: 0,
        };
        Saves { state: Mutex::new(state), failed: AtomicBool::new(false) }
    }

    pub fn last_save(&self) -> i64 {
        self.state.lock().last_save
    }

    pub fn is_running(&self) -> bool {
        self.state.lock().running.is_some()
    }

    /// Whether writes are to be refused if `stop-writes-on-bgsave-error` is set.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// `changes`: of all that the node has executed.
    pub fn info(&self, changes: u64, now: Monotonic) -> Info {
        let state = self.state.lock();
        let running = state.running.as_ref().filter(|r| r.kind == Kind::Background);
        let seconds = |r: &Running| i64::try_from(now.since(r.since).as_secs()).unwrap_or(i64::MAX);
        Info {
            changes_since_last_save: changes.saturating_sub(state.saved_changes),
            background_running: running.is_some(),
            last_save: state.last_save,
            last_background_ok: !state.last_background_failed,
            last_background_seconds: state.last_background_seconds,
            current_background_seconds: running.map_or(-1, seconds),
            saves: state.saves,
            last_cow_bytes: state.last_cow_bytes,
        }
    }

    /// A save in the background, as soon as none runs.
    pub fn schedule(&self) {
        self.state.lock().is_scheduled = true;
    }

    /// BGSAVE CANCEL.
    pub fn cancel(&self) -> Cancelled {
        let mut state = self.state.lock();
        if state.cancel(Kind::Background) {
            return Cancelled::Running;
        }
        if std::mem::take(&mut state.is_scheduled) { Cancelled::Scheduled } else { Cancelled::Nothing }
    }

    /// The process ends, or does not end after all: a save of this kind is not wanted any more.
    pub fn abort(&self, kind: Kind) {
        self.state.lock().cancel(kind);
    }

    /// All keys of the keyspace were deleted at once: what a running save writes is worth nothing, and by the rules
    /// the empty keyspace is saved instead.
    pub fn flushed(&self, settings: &Settings) {
        if !settings.save_points.is_empty() {
            let mut state = self.state.lock();
            state.cancel(Kind::Background);
            state.is_scheduled = true;
        }
    }
}
