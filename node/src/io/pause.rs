//! CLIENT PAUSE, and what else holds all clients back for a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keyward_proto::time::Monotonic;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Which commands wait while clients are paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseMode {
    All,
    Write,
}

/// CLIENT PAUSE and DEBUG SLEEP: until when which commands wait.
#[derive(Debug, Default)]
pub struct Pause {
    /// Nanoseconds, as of [`Monotonic`]; zero: no pause.
    until: AtomicU64,
    /// [`PauseMode::Write`].
    writes_only: AtomicBool,
    /// Wakes the paused connections when the pause ends early.
    waiting: Mutex<Vec<Arc<Notify>>>,
}

impl Pause {
    /// A pause that is there is neither shortened nor made weaker.
    pub fn extend(&self, now: Monotonic, until: Monotonic, mode: PauseMode) {
        let mut one_at_a_time = self.waiting.lock();
        let (current, current_mode) = self.state();
        let active = now < current;
        if !active {
            // Those that waited for an earlier pause have noticed its end by themselves.
            one_at_a_time.clear();
        }
        let weak = mode == PauseMode::Write && (!active || current_mode == PauseMode::Write);
        self.writes_only.store(weak, Ordering::Release);
        let until = if active { until.max(current) } else { until };
        self.until.store(until.as_nanos(), Ordering::Release);
    }

    pub fn end(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock();
            self.until.store(0, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        for connection in waiting {
            connection.notify_one();
        }
    }

    /// Wakes this connection if the pause ends early.
    pub fn add_waiting(&self, connection: Arc<Notify>) {
        let mut waiting = self.waiting.lock();
        if self.until.load(Ordering::Acquire) == 0 {
            connection.notify_one();
        } else {
            waiting.push(connection);
        }
    }

    /// Until when which commands have to wait, if some have.
    #[inline]
    pub fn applies(&self, now: Monotonic) -> Option<(Monotonic, PauseMode)> {
        (now < self.until()).then(|| self.state())
    }

    pub fn is_over(&self, now: Monotonic) -> bool {
        self.until() <= now
    }

    /// Until when commands wait, or have waited, and which.
    pub fn state(&self) -> (Monotonic, PauseMode) {
        let is_weak = self.writes_only.load(Ordering::Acquire);
        (self.until(), if is_weak { PauseMode::Write } else { PauseMode::All })
    }

    #[inline]
    fn until(&self) -> Monotonic {
        Monotonic::from_nanos(self.until.load(Ordering::Acquire))
    }
}
