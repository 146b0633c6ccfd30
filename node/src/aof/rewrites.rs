//! How the rewrites of the log on disk are going, for INFO and for who begins one. Who does the work:
//! [`super::rewrite`].

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use keyward_proto::time::Monotonic;
use keyward_replication::disk_log::Stamp;

/// After a failure the next one by itself does not begin earlier; the time doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// As long as a base is missing this node counts for nothing.
const RETRY_MISSING_MAX: Duration = Duration::from_secs(30);

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
    pub base_is_missing: bool,
}

/// The rewrites of a node.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    running: Option<Monotonic>,
    /// Nothing on the disk counts until there is a base. Stays until one is in place, however many rewrites fail.
    pub(super) base_is_missing: bool,
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
            scheduled: self.base_is_missing && self.running.is_none(),
            last_seconds: self.last_seconds.unwrap_or(-1),
            current_seconds: self.running.map_or(-1, seconds),
            last_ok: !self.last_failed,
            count: self.count,
            failures_in_a_row: u64::from(self.failures_in_a_row),
            base_is_missing: self.base_is_missing,
        }
    }

    /// Whether one begins by itself, if there is a reason.
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
            let longest = if self.base_is_missing { RETRY_MISSING_MAX } else { RETRY_MAX };
            let pause = RETRY_FIRST.saturating_mul(1 << self.failures_in_a_row.min(12)).min(longest);
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
    /// What its snapshot contains, as soon as it has begun.
    pub(super) stamp: OnceLock<Stamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_secs(seconds)
    }

    /// It used to be tried once: the replica stayed out of sync until somebody called BGREWRITEAOF.
    #[test]
    fn a_missing_base_is_tried_again_until_it_is_there() {
        let mut rewrites = Rewrites { base_is_missing: true, ..Rewrites::default() };
        let mut now = at(100);
        for failures in 1..=20 {
            assert!(rewrites.may_begin(now), "after {failures} failures");
            rewrites.begin(now).unwrap();
            assert!(!rewrites.may_begin(now), "one at a time");
            rewrites.failed(now);
            assert_eq!(rewrites.info(now).failures_in_a_row, failures);
            assert!(rewrites.base_is_missing && !rewrites.may_begin(now), "not at once");
            now = now + RETRY_MISSING_MAX;
        }
        rewrites.begin(now).unwrap();
        rewrites.base_is_missing = false;
        rewrites.succeeded(now);
        assert!(rewrites.may_begin(now));
    }

    #[test]
    fn one_that_is_only_worth_it_waits_longer_each_time() {
        let mut rewrites = Rewrites::default();
        for _ in 0..20 {
            rewrites.begin(at(0)).unwrap();
            rewrites.failed(at(0));
        }
        assert!(!rewrites.may_begin(at(0) + RETRY_MISSING_MAX) && rewrites.may_begin(at(0) + RETRY_MAX));
    }
}
