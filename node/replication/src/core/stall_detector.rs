//! Tells silence of others from sleep of one's own.
//!
//! A process that was stopped, swapped out or starved finds on waking that everybody seems to have been silent,
//! although their messages lie unread in its sockets. Silence is therefore counted only from the end of the last
//! stall. A stall is a gap between two ticks that is far longer than their interval.

use std::time::Duration;

use keyward_proto::time::Monotonic;

#[derive(Debug)]
pub(crate) struct StallDetector {
    stall: Duration,
    ticked_at: Monotonic,
    awake_since: Monotonic,
}

impl StallDetector {
    /// Ticks further apart than `stall` mean that the process stood still.
    pub(crate) fn new(stall: Duration, now: Monotonic) -> Self {
        StallDetector { stall, ticked_at: now, awake_since: now }
    }

    pub(crate) fn tick(&mut self, now: Monotonic) {
        if now.since(self.ticked_at) > self.stall {
            self.awake_since = now;
        }
        self.ticked_at = self.ticked_at.max(now);
    }

    pub(crate) fn ticked_at(&self) -> Monotonic {
        self.ticked_at
    }

    /// How long somebody last heard at `heard` has been silent while this process listened.
    pub(crate) fn silence(&self, heard: Monotonic, now: Monotonic) -> Duration {
        now.since(heard.max(self.awake_since))
    }

    /// When somebody last heard at `heard` will have been silent for `duration`.
    pub(crate) fn silent_at(&self, heard: Monotonic, duration: Duration) -> Monotonic {
        heard.max(self.awake_since) + duration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_of_ones_own_is_not_silence_of_others() {
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let mut awake = StallDetector::new(Duration::from_millis(100), at(0));
        awake.tick(at(40));
        assert_eq!(awake.silence(at(10), at(80)), Duration::from_millis(70));
        awake.tick(at(2000));
        assert_eq!(awake.silence(at(10), at(2010)), Duration::from_millis(10));
    }
}
