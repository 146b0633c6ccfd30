//! The monotonic clock of a simulated process: it starts anywhere, runs a little too fast or too slow, and jumps forward
//! by a little, but never goes back, and it counts the time in which its process stood still (CLOCK_BOOTTIME).
//!
//! How far clocks may run apart is the assumption on which leases rest: within one lease no two clocks may differ by
//! more than a quarter of it. Rates of up to 4 % apart and a jump of at most a twelfth of the shortest lease within a
//! second use up half of that.
//!
//! A machine may also be halted, so that its clock stands still. No lease can bear that; but the wall clock has gone on
//! when the machine goes on, and reading both is the first thing that it does. A machine of which no clock has gone on is
//! outside of what can be noticed.

use keyward_proto::time::Monotonic;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Nanos, ms};

/// Between two jumps of one clock.
const JUMP_PAUSE: Nanos = ms(1000);

#[derive(Debug)]
pub(super) struct Clock {
    /// Speed, in thousandths.
    rate: u64,
    offset: Nanos,
    jumped_at: Nanos,
    /// It stands still since.
    halted_at: Option<Nanos>,
}

impl Clock {
    pub(super) fn new(rng: &mut StdRng) -> Clock {
        let (rate, offset) = (rng.random_range(980..=1020), rng.random_range(1 << 36..1 << 40));
        Clock { rate, offset, jumped_at: 0, halted_at: None }
    }

    pub(super) fn read(&self, now: Nanos) -> Monotonic {
        let now = self.halted_at.map_or(now, |at| at.min(now));
        Monotonic::from_nanos(self.offset + now / 1000 * self.rate)
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted_at.is_some()
    }

    pub(super) fn halt(&mut self, now: Nanos) {
        self.halted_at.get_or_insert(now);
    }

    /// It goes on from where it stood.
    pub(super) fn go_on(&mut self, now: Nanos) {
        if let Some(at) = self.halted_at.take() {
            self.offset -= (now / 1000 - at / 1000) * self.rate;
        }
    }

    /// Forward, by less than `most`.
    pub(super) fn jump(&mut self, now: Nanos, most: Nanos, rng: &mut StdRng) {
        if self.jumped_at + JUMP_PAUSE < now {
            self.jumped_at = now;
            self.offset += rng.random_range(0..most);
        }
    }
}
