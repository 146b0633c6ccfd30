//! The monotonic clock, and the wall clock for certificates. The first is asked for from the kernel without the C library,
//! so that nothing preloaded can touch what leases depend on.

use std::time::{Duration, SystemTime};

use keyward_proto::time::{Monotonic, UnixMillis};
use rustix::time::{ClockId, clock_gettime};

/// Seconds since the Unix epoch, for what is valid by the wall clock.
pub fn unix_seconds() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// For what people read.
pub fn unix_millis() -> UnixMillis {
    UnixMillis(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX))
}

/// Zero before 1970.
#[allow(clippy::disallowed_methods, reason = "a shell")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// CLOCK_BOOTTIME: counts suspend, so that a machine that slept knows that its leases have run out.
#[inline]
pub fn monotonic() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Monotonic::from_nanos(seconds * 1_000_000_000 + nanos)
}
