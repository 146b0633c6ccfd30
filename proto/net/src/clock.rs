//! The monotonic clock, and the wall clock, for certificates, expiry and what people read. The first is asked for from the kernel without the C library,
//! so that nothing preloaded can touch what leases depend on.

use std::time::{Duration, SystemTime};

use keyward_proto::time::{Monotonic, UnixMillis};
use rustix::time::{ClockId, clock_gettime};

/// Seconds since the Unix epoch, for what is valid by the wall clock.
pub fn unix_seconds() -> i64 {
    since_epoch(1, |_| 0)
}

/// The wall clock, in milliseconds.
#[inline]
pub fn unix_millis() -> UnixMillis {
    UnixMillis(since_epoch(1000, Duration::subsec_millis))
}

/// The wall clock, in microseconds.
#[inline]
pub fn unix_micros() -> i64 {
    since_epoch(1_000_000, Duration::subsec_micros)
}

/// The wall clock in units of which a second has so many; negative before 1970.
#[inline]
#[allow(clippy::disallowed_methods, reason = "a shell")]
fn since_epoch(per_second: i64, of_last_second: impl Fn(&Duration) -> u32) -> i64 {
    let count = |time: Duration| {
        time.as_secs().cast_signed().wrapping_mul(per_second).wrapping_add(of_last_second(&time).into())
    };
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => count(after),
        Err(before) => -count(before.duration()),
    }
}

/// CLOCK_BOOTTIME: counts suspend, so that a machine that slept knows that its leases have run out.
#[inline]
pub fn monotonic() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Monotonic::from_nanos(seconds * 1_000_000_000 + nanos)
}
