//! Handshakes that fail: anybody can make as many as he likes, so they are counted, and told of now and then.

use std::time::Duration;

use keyward_proto::time::Monotonic;

/// Between two lines of the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// Which of the failures are told.
#[derive(Debug, Default)]
pub struct HandshakeFailures {
    told_at: Option<Monotonic>,
    untold: u64,
}

impl HandshakeFailures {
    /// One has failed. If it is to be told, how many have not been since the last that was.
    pub fn note(&mut self, now: Monotonic) -> Option<u64> {
        if self.told_at.is_some_and(|told_at| now.since(told_at) < INTERVAL) {
            self.untold += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// What a client with TLS is told that has come to a port without: a fatal alert, "handshake failure".
pub const ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];

/// Whether a connection begins as that of a client with TLS does. No command begins so.
#[inline]
pub fn is_hello(first: &[u8]) -> bool {
    first.starts_with(&[22, 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_counted() {
        let mut failures = HandshakeFailures::default();
        let told: Vec<(u64, u64)> = (0..25)
            .filter_map(|s| Some((s, failures.note(Monotonic::ZERO + Duration::from_secs(s))?)))
            .collect();
        assert_eq!(told, [(0, 0), (10, 9), (20, 9)]);
    }
}
