//! For how long it is kept what a full sync has replaced on the disk ([`super::replaced`]). Pure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyward_proto::time::Monotonic;
use parking_lot::Mutex;

/// Since this node is in sync with its source: long enough for people to notice that it was the wrong one.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Whether something is kept, and since when this node has been in sync.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    is_kept: AtomicBool,
    in_sync_since: Mutex<Option<Monotonic>>,
}

impl Keeping {
    pub(super) fn begin(&self) {
        *self.in_sync_since.lock() = None;
        self.is_kept.store(true, Ordering::Release);
    }

    /// Whether it was kept for long enough; asked regularly.
    pub(super) fn is_over(&self, now: Monotonic, in_sync: impl FnOnce() -> bool) -> bool {
        if !self.is_kept.load(Ordering::Acquire) {
            return false;
        }
        let mut since = self.in_sync_since.lock();
        *since = in_sync().then(|| since.unwrap_or(now));
        let is_over = since.is_some_and(|since| KEPT_FOR <= now.since(since));
        if is_over {
            self.is_kept.store(false, Ordering::Release);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_a_day_in_sync() {
        let at = |hours: u64| Monotonic::ZERO + Duration::from_secs(3600 * hours);
        let keeping = Keeping::default();
        assert!(!keeping.is_over(at(100), || true), "there is nothing");
        keeping.begin();
        for (hours, in_sync, is_over) in [
            (100, false, false),
            (130, true, false),
            (153, true, false),
            (154, false, false),
            (155, true, false),
            (179, true, true),
            (200, true, false),
        ] {
            assert_eq!(keeping.is_over(at(hours), || in_sync), is_over, "{hours}");
        }
    }
}
