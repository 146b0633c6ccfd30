//! Clients that speak HTTP: a web page can have a browser send a request to any port, and its lines would be commands.
//! They are closed, and told of in the log, though not each time.

use std::time::Duration;

use crate::time::Monotonic;

/// What the log says of it.
pub const HTTP_WARNING: &str = "possible SECURITY ATTACK: closed a connection that sent POST or Host:, as a web page does \
                                that has a browser send commands to this port";
const INTERVAL: Duration = Duration::from_secs(60);

/// Whether a request of this name is a line of HTTP.
pub fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// When [`HTTP_WARNING`] was last said.
#[derive(Debug, Default)]
pub struct HttpWarnings {
    last: Option<Monotonic>,
}

impl HttpWarnings {
    /// Whether it is to be said now.
    pub fn is_due(&mut self, now: Monotonic) -> bool {
        let is_due = self.last.is_none_or(|last| INTERVAL <= now.since(last));
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_of_once_a_minute() {
        let mut warnings = HttpWarnings::default();
        let due: Vec<u64> =
            (0..130).filter(|s| warnings.is_due(Monotonic::ZERO + Duration::from_secs(*s))).collect();
        assert_eq!(due, [0, 60, 120]);
    }
}
