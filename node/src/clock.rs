//! The node's clocks; cores take the time as an argument, and an executor gets a [`Clock`], which in the
//! simulation is that of its world.
//!
//! The wall clock is read through the C library, where `libfaketime` gets between in the chaos tests: it may jump by
//! any amount at any time, and nothing but expiry and what people read may depend on it. Everything else goes by the
//! monotonic clock. That the two move apart is how a machine learns that it was halted ([`both`]).
#![allow(clippy::disallowed_methods, reason = "a shell: reads the clocks")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub use keyward_net::clock::{monotonic, unix_micros, unix_millis};
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_replication::core::clock_watch::Clocks;

/// Two readings within this are of one moment.
const ONE_MOMENT: Duration = Duration::from_millis(1);
const READINGS_MAX: u32 = 3;

/// Tells the time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    Virtual(Arc<VirtualClock>),
}

/// Stands still until it is set.
#[derive(Debug, Default)]
pub struct VirtualClock {
    nanos: AtomicU64,
    unix_millis: AtomicI64,
}

impl VirtualClock {
    pub fn set(&self, monotonic: Monotonic, unix: UnixMillis) {
        self.nanos.store(monotonic.as_nanos(), Ordering::Relaxed);
        self.unix_millis.store(unix.0, Ordering::Relaxed);
    }
}

impl Clock {
    #[inline]
    pub fn monotonic(&self) -> Monotonic {
        match self {
            Clock::System => monotonic(),
            Clock::Virtual(clock) => Monotonic::from_nanos(clock.nanos.load(Ordering::Relaxed)),
        }
    }

    #[inline]
    pub fn unix_millis(&self) -> UnixMillis {
        match self {
            Clock::System => unix_millis(),
            Clock::Virtual(clock) => UnixMillis(clock.unix_millis.load(Ordering::Relaxed)),
        }
    }

    /// The wall clock, in microseconds.
    pub fn unix_micros(&self) -> i64 {
        match self {
            Clock::System => unix_micros(),
            Clock::Virtual(_) => self.unix_millis().0.saturating_mul(1000),
        }
    }
}

/// Both clocks at one moment: whoever is interrupted between the two readings takes them again.
pub(crate) fn both() -> Clocks {
    let mut attempts = 0;
    loop {
        let (before, wall_micros, after) = (monotonic(), unix_micros(), monotonic());
        attempts += 1;
        if after.since(before) < ONE_MOMENT || attempts == READINGS_MAX {
            return Clocks { monotonic: after, wall_micros };
        }
    }
}

/// How long until `deadline`; zero if it has passed.
pub fn until(deadline: Monotonic) -> Duration {
    deadline.since(monotonic())
}
