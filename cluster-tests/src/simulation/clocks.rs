//! The monotonic clock of a simulated process: it starts anywhere, runs a little too fast or too slow, and jumps forward
//! by a little, but never goes back, and it counts the time in which its process stood still (CLOCK_BOOTTIME).
//!
//! How far clocks may run apart is the assumption on which leases rest: within one lease no two clocks may differ by
//! more than `grace - lease`, here 100 ms of 400. Rates of up to 4 % apart and a jump of at most 30 ms within a second
//! use up half of that. A machine that is halted so that its clock stands still, too, is outside of what leases can bear.

use keyward_proto::time::Monotonic;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Nanos, ms};

/// Between two jumps of one clock.
const JUMP_PAUSE: Nanos = ms(1000);
const JUMP_MAX: Nanos = ms(30);

#[derive(Debug)]
pub(super) struct Clock {
    /// Speed, in thousandths.
    rate: u64,
    offset: Nanos,
    jumped_at: Nanos,
}

impl Clock {
    pub(super) fn new(rng: &mut StdRng) -> Clock {
        Clock { rate: rng.random_range(980..=1020), offset: rng.random_range(1..1 << 40), jumped_at: 0 }
    }

    pub(super) fn read(&self, now: Nanos) -> Monotonic {
        Monotonic::from_nanos(self.offset + now / 1000 * self.rate)
    }

    pub(super) fn jump(&mut self, now: Nanos, rng: &mut StdRng) {
        if self.jumped_at + JUMP_PAUSE < now {
            self.jumped_at = now;
            self.offset += rng.random_range(0..JUMP_MAX);
        }
    }
}
