//! How the rewrites of the log on disk are going, for INFO and for who begins one. Who does the work:
//! [`super::rewrite`].

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use keyward_proto::time::Monotonic;

/// After a failure the next one by itself does not begin earlier; the time doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Why a rewrite does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Background append only file rewriting already in progress")]
    AlreadyRunning,
}

/// What INFO tells.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    pub running: bool,
    pub scheduled: bool,
    /// -1: none yet.
    pub last_seconds: i64,
    /// -1: none runs.
    pub current_seconds: i64,
    pub last_ok: bool,
    pub count: u64,
    pub failures_in_a_row: u64,
}

/// The rewrites of a node.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    running: Option<Monotonic>,
    pub(super) wanted: bool,
    last_seconds: Option<i64>,
    last_failed: bool,
    count: u64,
    failures_in_a_row: u32,
    not_before: Monotonic,
}

impl Rewrites {
    pub(super) fn info(&self, now: Monotonic) -> Info {
        let seconds = |since: Monotonic| i64::try_from(now.since(since).as_secs()).unwrap_or(i64::MAX);
        Info {
            running: self.running.is_some(),
            scheduled: self.wanted && self.running.is_none(),
            last_seconds: self.last_seconds.unwrap_or(-1),
            current_seconds: self.running.map_or(-1, seconds),
            last_ok: !self.last_failed,
            count: self.count,
            failures_in_a_row: u64::from(self.failures_in_a_row),
        }
    }

    /// Whether one may begin by itself.
    pub(super) fn may_begin(&self, now: Monotonic) -> bool {
        self.running.is_none() && self.not_before <= now
    }

    /// # Errors
    /// One is running.
    pub(super) fn begin(&mut self, now: Monotonic) -> Result<(), Refused> {
        if self.running.is_some() {
            return Err(Refused::AlreadyRunning);
        }
        self.running = Some(now);
        self.wanted = false;
        self.count += 1;
        Ok(())
    }

    pub(super) fn succeeded(&mut self, now: Monotonic) {
        if self.end(now) {
            self.last_failed = false;
            self.failures_in_a_row = 0;
        }
    }

    pub(super) fn failed(&mut self, now: Monotonic) {
        if self.end(now) {
            self.last_failed = true;
            let pause = RETRY_FIRST.saturating_mul(1 << self.failures_in_a_row.min(12)).min(RETRY_MAX);
            self.failures_in_a_row += 1;
            self.not_before = now + pause;
        }
    }

    /// Whether one was running.
    fn end(&mut self, now: Monotonic) -> bool {
        let Some(since) = self.running.take() else { return false };
        self.last_seconds = Some(i64::try_from(now.since(since).as_secs()).unwrap_or(i64::MAX));
        true
    }
}

/// One rewrite, as its thread and the writer know it.
#[derive(Debug, Default)]
pub(super) struct RewriteFlags {
    /// The writer could not go on where the snapshot begins, or the log has turned back behind it.
    pub(super) given_up: AtomicBool,
    /// The manifest names the new base.
    pub(super) done: AtomicBool,
}
