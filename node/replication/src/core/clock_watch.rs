//! Whether this machine's clocks have stood still.
//!
//! A lease is measured by a clock that counts suspend. But when a hypervisor halts a virtual machine, or brings back a
//! snapshot of one, that clock may stand still with it; the primary then takes a lease for valid that has ended long ago
//! for everybody else. What gives it away is a second clock that is put right meanwhile: the wall clock. So both are
//! read together whenever the core has something to do, at the latest at each beacon, and if they have moved apart by
//! more than leases can bear, no lease counts that rests on an earlier beacon: the next one is acknowledged within a
//! round trip.
//!
//! Which of the two has jumped does not matter. A wall clock that is set by an hour looks the same, and costs a round
//! trip as well. As long as *no* clock of the machine has been put right, nothing in it can tell that it was halted.

use std::time::Duration;

use keyward_proto::time::Monotonic;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    pub monotonic: Monotonic,
    /// Microseconds since the Unix epoch.
    pub wall_micros: i64,
}

impl Clocks {
    /// How far the wall clock is ahead, in microseconds.
    fn offset(self) -> i64 {
        let monotonic = i64::try_from(self.monotonic.as_nanos() / 1000).unwrap_or(i64::MAX);
        self.wall_micros.wrapping_sub(monotonic)
    }
}

#[derive(Debug)]
pub(crate) struct ClockWatch {
    tolerance: Duration,
    seen: Option<Clocks>,
}

impl ClockWatch {
    /// Clocks that move apart by more than `tolerance` between two readings have not both gone on.
    pub(crate) fn new(tolerance: Duration) -> Self {
        ClockWatch { tolerance, seen: None }
    }

    /// By how much they have moved apart since they were last read, if that is too much.
    pub(crate) fn read(&mut self, clocks: Clocks) -> Option<Duration> {
        let before = self.seen.replace(clocks)?;
        let apart = Duration::from_micros(clocks.offset().abs_diff(before.offset()));
        (self.tolerance < apart).then_some(apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    /// The watch is shown readings, in milliseconds: which of them tell that a clock was halted or set.
    fn told(readings: &[(u64, i64)]) -> Vec<bool> {
        let mut watch = ClockWatch::new(Duration::from_millis(12));
        let read = |(monotonic, wall): &(u64, i64)| Clocks {
            monotonic: Monotonic::from_nanos(monotonic * 1_000_000),
            wall_micros: wall * 1000,
        };
        readings.iter().map(|reading| watch.read(read(reading)).is_some()).collect()
    }

    #[test]
    fn clocks_that_go_on_together_tell_nothing() {
        assert_eq!(told(&[(0, 5000), (10, 5010), (2000, 7003), (2010, 7008)]), [false; 4]);
    }

    #[test]
    fn a_clock_that_stood_still_is_told_once_the_other_is_right() {
        assert_eq!(
            told(&[(0, 5000), (10, 5010), (20, 5020), (30, 8030), (40, 8040)]),
            [false, false, false, true, false]
        );
    }

    #[test]
    fn a_wall_clock_that_is_set_is_told_once_in_either_direction() {
        let readings =
            [(0, 0), (10, DAY_MS + 10), (20, DAY_MS + 20), (30, 30), (40, -DAY_MS), (50, 10 - DAY_MS)];
        assert_eq!(told(&readings), [false, true, false, true, true, false]);
        assert_eq!(told(&[(0, i64::MIN / 1000), (10, i64::MAX / 1000)]), [false, true]);
    }
}
