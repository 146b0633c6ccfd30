//! The only place that reads a clock; cores take the time as an argument.

use std::time::Duration;

use keyward_proto::time::{Monotonic, UnixMillis};
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME: counts suspend, so that a machine that slept knows that its leases have run out.
pub fn monotonic() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Monotonic::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// The wall clock, in milliseconds.
pub fn unix_millis() -> UnixMillis {
    let time = clock_gettime(ClockId::Realtime);
    UnixMillis(time.tv_sec * 1000 + time.tv_nsec / 1_000_000)
}

/// The wall clock, in microseconds.
pub fn unix_micros() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// How long until `deadline`; zero if it has passed.
pub fn until(deadline: Monotonic) -> Duration {
    deadline.since(monotonic())
}
