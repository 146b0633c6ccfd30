//! Tells silence of others from sleep of one's own.
//!
//! A process that was stopped, swapped out or starved finds on waking that everybody seems to have been silent,
//! although their messages lie unread in its sockets. So the time in which it stood still is subtracted from silence. The
//! count goes on where it was: a process that stalls again and again has to notice, too, that somebody is gone. Only for
//! a moment after a stall, until what lies in its sockets is read, silence counts from the end of it.
//!
//! A stall is a gap between two ticks that is far longer than their interval.

use std::collections::VecDeque;
use std::time::Duration;

use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

/// So many stalls are remembered; what lies further back counts as listened.
const STALLS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct StallDetector {
    stall: Duration,
    settling: Duration,
    ticked_at: Monotonic,
    /// From, until; ascending.
    stalls: VecDeque<(Monotonic, Monotonic)>,
}

impl StallDetector {
    /// Ticks further apart than `stall` mean that the process stood still; within `settling` after that it has read what
    /// had come meanwhile.
    pub(crate) fn new(stall: Duration, settling: Duration, now: Monotonic) -> Self {
        StallDetector { stall, settling, ticked_at: now, stalls: VecDeque::new() }
    }

    pub(crate) fn tick(&mut self, now: Monotonic) {
        if now.since(self.ticked_at) > self.stall {
            if self.stalls.len() == STALLS_MAX {
                self.stalls.pop_front();
            }
            self.stalls.push_back((self.ticked_at, now));
        }
        self.ticked_at = self.ticked_at.max(now);
    }

    pub(crate) fn ticked_at(&self) -> Monotonic {
        self.ticked_at
    }

    /// When the last stall ended.
    fn awake_since(&self) -> Monotonic {
        self.stalls.back().map_or(Monotonic::ZERO, |(_, until)| *until)
    }

    /// For how long the process has stood still since `heard`.
    fn stood_still(&self, heard: Monotonic) -> Duration {
        self.stalls
            .iter()
            .rev()
            .take_while(|(_, until)| heard < *until)
            .map(|(from, until)| until.since(heard.max(*from)))
            .sum()
    }

    /// How long somebody last heard at `heard` has been silent while this process listened.
    pub(crate) fn silence(&self, heard: Monotonic, now: Monotonic) -> Duration {
        let awake = now.since(heard.max(self.awake_since()));
        if awake < self.settling || mutation::is_on(Mutation::StallRestartsSilence) {
            return awake;
        }
        now.since(heard).saturating_sub(self.stood_still(heard))
    }

    /// When somebody last heard at `heard` will have been silent for `duration`.
    pub(crate) fn silent_at(&self, heard: Monotonic, duration: Duration) -> Monotonic {
        let counted = heard + self.stood_still(heard) + duration;
        let settled = heard.max(self.awake_since()) + self.settling.min(duration);
        counted.max(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn detector() -> StallDetector {
        StallDetector::new(millis(100), millis(20), at(0))
    }

    /// It ticks every 10 ms while it is awake.
    fn listen(detector: &mut StallDetector, from: u64, until: u64) {
        (from..=until).step_by(10).for_each(|now| detector.tick(at(now)));
    }

    #[test]
    fn a_stall_of_ones_own_is_not_silence_of_others() {
        let mut awake = detector();
        listen(&mut awake, 0, 80);
        assert_eq!(awake.silence(at(10), at(80)), millis(70));
        awake.tick(at(2000));
        assert_eq!(awake.silence(at(10), at(2010)), millis(10), "what has come meanwhile is not read yet");
        assert_eq!(awake.silence(at(10), at(2020)), millis(90), "the count goes on where it was");
        assert_eq!(awake.silence(at(2005), at(2050)), millis(45));
    }

    #[test]
    fn who_stalls_again_and_again_notices_silence() {
        let mut awake = detector();
        let mut found = None;
        // 270 ms awake, 130 ms halted.
        for round in 0..10 {
            let begin = round * 400;
            for now in (begin..=begin + 270).step_by(10) {
                awake.tick(at(now));
                if found.is_none() && millis(500) <= awake.silence(at(0), at(now)) {
                    found = Some(now);
                }
            }
        }
        assert_eq!(found, Some(630));
    }

    #[test]
    fn when_silence_will_have_lasted_is_when_it_has() {
        let mut awake = detector();
        listen(&mut awake, 0, 80);
        assert_eq!(awake.silent_at(at(10), millis(500)), at(510));
        awake.tick(at(300));
        let due = awake.silent_at(at(10), millis(500));
        assert_eq!(due, at(730), "220 ms of it were a stall");
        assert_eq!(awake.silence(at(10), due), millis(500));
        assert_eq!(awake.silent_at(at(10), millis(75)), at(320), "not before what came is read");
    }

    #[test]
    fn stalls_are_remembered_to_a_bound() {
        let mut awake = detector();
        (1..=1000).for_each(|n| awake.tick(at(n * 200)));
        assert_eq!(awake.stalls.len(), STALLS_MAX);
        assert_eq!(awake.silence(at(200_000), at(200_030)), millis(30));
    }
}
