//! What counts as the death of a primary, and how long its leases last: what every node says of itself when it registers.
//!
//! Whoever connects to an address and is refused knows that *somebody* answered for it: the kernel of the host on which
//! the process ended, but also a firewall that rejects, a proxy without endpoints, or the host that has the address now,
//! while the process lives, serves, and holds its lease. So a refusal saves waiting for silence, and nothing else, unless
//! the operator vouches for the network.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a refused connection proves. In the order of what is risked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastFailover {
    /// Nothing: it is as good as silence.
    No,
    /// That nobody needs to wait for silence; leases are waited for.
    #[default]
    Yes,
    /// That the process is dead, and its leases with it.
    Trusted,
}

impl FastFailover {
    pub fn word(self) -> &'static str {
        match self {
            FastFailover::No => "no",
            FastFailover::Yes => "yes",
            FastFailover::Trusted => "trusted",
        }
    }
}

/// How a node detects failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detection {
    /// How long a lease lasts at most that it is given as a primary. Zero: its program does not say.
    #[serde(default)]
    pub lease_millis: u64,
    #[serde(default)]
    pub fast_failover: FastFailover,
}

impl Detection {
    /// `None`: its program does not say.
    pub fn lease(&self) -> Option<Duration> {
        (self.lease_millis != 0).then(|| Duration::from_millis(self.lease_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Topology;
    use super::*;

    #[test]
    fn whoever_says_nothing_trusts_no_refusal() {
        let detection: Detection = serde_json::from_str("{}").unwrap();
        assert_eq!((detection.fast_failover, detection.lease()), (FastFailover::Yes, None));
        assert_eq!(Topology::default().fast_failover(), FastFailover::Yes);
        assert_eq!(serde_json::to_string(&FastFailover::Trusted).unwrap(), r#""trusted""#);
    }
}
