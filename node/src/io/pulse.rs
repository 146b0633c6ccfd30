//! Whether the I/O threads make steps: each is asked now and then, and answers when it comes to run.
//!
//! A thread that does not answer executes a long command, or hangs: that cannot be told from outside, and long commands
//! are legitimate. So it is shown in INFO and told in the log, and nothing else follows. (A hand-off would not help: it has
//! to wait for the thread, which may yet append to the log.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::time::Monotonic;
use tokio::sync::Notify;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A thread that has not answered for so long is shown as still.
const STILL_AFTER: Duration = Duration::from_secs(1);
/// It is told of for the first time, and then whenever it has lasted twice as long.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// Of one thread.
#[derive(Debug, Default)]
pub struct Pulse {
    /// When it was asked what it has not answered yet; zero: nothing.
    asked_at: AtomicU64,
    wake: Notify,
}

impl Pulse {
    /// Answers for ever, on the thread whose pulse this is.
    pub(super) async fn answer(&self) {
        loop {
            self.wake.notified().await;
            self.asked_at.store(0, Ordering::Relaxed);
        }
    }

    fn ask(&self, now: Monotonic) {
        self.asked_at.store(now.as_nanos().max(1), Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// For how long it has not answered.
    fn still_for(&self, now: Monotonic) -> Duration {
        match self.asked_at.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            asked_at => now.since(Monotonic::from_nanos(asked_at)),
        }
    }
}

/// How many of these threads are still, and for how many microseconds the one has been that is it for longest.
pub(crate) fn still<'a>(pulses: impl Iterator<Item = &'a Pulse>, now: Monotonic) -> [u64; 2] {
    pulses.map(|pulse| pulse.still_for(now)).filter(|still| STILL_AFTER <= *still).fold(
        [0, 0],
        |[count, longest], still| {
            [count + 1, longest.max(u64::try_from(still.as_micros()).unwrap_or(u64::MAX))]
        },
    )
}

/// What is to be told of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    StandsStill(Duration),
    /// After so long.
    GoesOn(Duration),
}

/// Whoever asks a thread.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    asked_at: Monotonic,
    longest: Duration,
    told: Duration,
}

impl Asker {
    pub(crate) fn look(&mut self, pulse: &Pulse, now: Monotonic) -> Option<News> {
        let still = pulse.still_for(now);
        if still.is_zero() {
            if ASK_EVERY <= now.since(self.asked_at) {
                self.asked_at = now;
                pulse.ask(now);
            }
            let (longest, told) = (std::mem::take(&mut self.longest), std::mem::take(&mut self.told));
            return (!told.is_zero()).then_some(News::GoesOn(longest));
        }
        self.longest = still;
        let is_news = TELL_AFTER.max(self.told * 2) <= still;
        is_news.then(|| {
            self.told = still;
            News::StandsStill(still)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_thread_that_stands_still_is_told_of_now_and_then() {
        let (pulse, mut asker) = (Pulse::default(), Asker::default());
        let mut told = Vec::new();
        for ms in (1000..40_000).step_by(100) {
            let comes_to_run = !(2000..30_000).contains(&ms);
            if comes_to_run {
                pulse.asked_at.store(0, Ordering::Relaxed);
            }
            let seconds = |still: Duration| still.as_secs();
            told.extend(asker.look(&pulse, at(ms)).map(|news| match news {
                News::StandsStill(still) => ("still", seconds(still)),
                News::GoesOn(still) => ("goes on", seconds(still)),
            }));
            let [count, micros] = still([&pulse].into_iter(), at(ms));
            assert_eq!(count == 1, 1_000_000 <= micros);
            assert_eq!(count == 1, (3_000..30_000).contains(&ms), "at {ms} ms");
        }
        assert_eq!(told, [("still", 5), ("still", 10), ("still", 20), ("goes on", 27)]);
    }
}
