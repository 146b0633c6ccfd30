//! The monotonic clock, and the wall clock for certificates. The first is asked for from the kernel without the C library,
//! so that nothing preloaded can touch what leases depend on.

use std::time::SystemTime;

use keyward_proto::time::Monotonic;
use rustix::time::{ClockId, clock_gettime};

/// Seconds since the Unix epoch, for what is valid by the wall clock.
#[allow(clippy::disallowed_methods, reason = "a shell")]
pub fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// CLOCK_BOOTTIME: counts suspend, so that a machine that slept knows that its leases have run out.
#[inline]
pub fn monotonic() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Monotonic::from_nanos(seconds * 1_000_000_000 + nanos)
}
