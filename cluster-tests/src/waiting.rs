//! Waiting for a condition, which is how tests wait here.
#![allow(clippy::disallowed_methods, reason = "a shell: sleeps between two looks")]

use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(2);

/// Waits until `condition` holds; `false` at the deadline.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if end <= Instant::now() {
            return false;
        }
        thread::sleep(POLL);
    }
}
