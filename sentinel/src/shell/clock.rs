//! The clock of this process; everything else takes the time as an argument.

use std::time::Duration;

use keyward_proto::time::Monotonic;
use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspend included.
pub fn now() -> Monotonic {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    Monotonic::ZERO + seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
