//! How far the loading of the data at the start is: for INFO and for lines in the log.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::time::Monotonic;

use crate::clock;
use crate::supervision::{self, State};

/// Between two lines in the log.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Written by whoever loads, read by INFO.
#[derive(Debug, Default)]
pub struct Loading {
    /// Seconds since the Unix epoch; zero: nothing is being loaded.
    started_at: AtomicI64,
    /// The same moment, in nanoseconds as of [`Monotonic`].
    started: AtomicU64,
    total_bytes: AtomicU64,
    loaded_bytes: AtomicU64,
    /// Nanoseconds, as of [`Monotonic`].
    told: AtomicU64,
}

/// As INFO shows it.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Seconds since the Unix epoch.
    pub started_at: i64,
    pub total_bytes: u64,
    pub loaded_bytes: u64,
    pub eta_seconds: i64,
}

impl Loading {
    /// Files of so many bytes are to be loaded.
    pub fn begin(&self, total_bytes: u64) {
        let now = clock::monotonic().as_nanos();
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.loaded_bytes.store(0, Ordering::Relaxed);
        self.told.store(now, Ordering::Relaxed);
        self.started.store(now, Ordering::Relaxed);
        self.started_at.store((clock::unix_millis().0 / 1000).max(1), Ordering::Release);
    }

    /// So many bytes more are loaded.
    pub fn advance(&self, bytes: u64) {
        self.loaded_bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = clock::monotonic();
        if now.since(Monotonic::from_nanos(self.told.load(Ordering::Relaxed))) < TELL_EVERY {
            return;
        }
        self.told.store(now.as_nanos(), Ordering::Relaxed);
        if let Some(progress) = self.progress() {
            let Progress { total_bytes, loaded_bytes, eta_seconds, .. } = progress;
            tracing::info!(loaded_bytes, total_bytes, eta_seconds, "loading");
            let percent = (loaded_bytes.saturating_mul(100)).checked_div(total_bytes).unwrap_or(0);
            supervision::notify(State::Loading { percent });
        }
    }

    pub fn end(&self) {
        self.started_at.store(0, Ordering::Release);
    }

    /// `None`: nothing is being loaded.
    pub fn progress(&self) -> Option<Progress> {
        let started_at = self.started_at.load(Ordering::Acquire);
        if started_at == 0 {
            return None;
        }
        let (total, loaded) =
            (self.total_bytes.load(Ordering::Relaxed), self.loaded_bytes.load(Ordering::Relaxed));
        let started = Monotonic::from_nanos(self.started.load(Ordering::Relaxed));
        let elapsed = u64::try_from(clock::monotonic().since(started).as_millis()).unwrap_or(u64::MAX);
        let left_millis = elapsed.saturating_mul(total.saturating_sub(loaded)).checked_div(loaded);
        Some(Progress {
            started_at,
            total_bytes: total,
            loaded_bytes: loaded,
            eta_seconds: left_millis.map_or(1, |ms| i64::try_from(ms / 1000).unwrap_or(i64::MAX)),
        })
    }
}

/// For INFO: what the last load has found.
#[derive(Debug, Default)]
pub struct LastLoad {
    pub keys: AtomicU64,
    pub expired: AtomicU64,
}
