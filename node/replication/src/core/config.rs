//! What an operator chooses: how long leases last, and what counts as committed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// When an entry is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ReplicationAck {
    /// When every member of the in-sync set holds it.
    #[default]
    InSync,
    /// At once, as in Valkey: a failover may lose acknowledged writes.
    Async,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("grace ({grace:?}) must be longer than lease ({lease:?})")]
    GraceTooShort { lease: Duration, grace: Duration },
    #[error("lease ({0:?}) must be between 20 ms and 10 s")]
    LeaseOutOfRange(Duration),
}

/// The longest is waited for by whoever follows a primary that may still live.
const LEASES: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(10);

/// How often a primary speaks that is given leases of this length.
pub(crate) fn beacon_interval(lease: Duration) -> Duration {
    lease / 10
}

/// Checked by [`Config::check`] before anything runs with it.
#[derive(Debug, Clone)]
pub struct Config {
    pub lease: Duration,
    pub grace: Duration,
    pub replication_ack: ReplicationAck,
    /// `None`: half of the shard's nodes, rounded up.
    pub min_in_sync: Option<usize>,
    /// How long a hand-off waits for commands that run, and then for its target.
    pub handoff_timeout: Duration,
    /// A replica acknowledges nothing more while so much that is committed waits to be applied: it takes memory, and time
    /// when the replica becomes the primary.
    pub unapplied_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            lease: Duration::from_millis(100),
            grace: Duration::from_millis(500),
            replication_ack: ReplicationAck::InSync,
            min_in_sync: None,
            handoff_timeout: Duration::from_secs(5),
            unapplied_bytes_max: 64 << 20,
        }
    }
}

impl Config {
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.grace <= self.lease {
            return Err(ConfigError::GraceTooShort { lease: self.lease, grace: self.grace });
        }
        if !LEASES.contains(&self.lease) {
            return Err(ConfigError::LeaseOutOfRange(self.lease));
        }
        Ok(())
    }

    /// How long clients are held up for a command that began just before a hand-off closed the gate. Then they go on, and
    /// the hand-off waits for it first.
    pub(crate) fn handoff_pause(&self) -> Duration {
        self.grace / 10
    }

    /// How long clients wait for an in-sync set that has become too small since their command was executed.
    pub fn short_patience(&self) -> Duration {
        self.grace * 4
    }

    /// How often a primary speaks when it has nothing to say.
    pub fn beacon_interval(&self) -> Duration {
        beacon_interval(self.lease)
    }

    /// A primary asks for longer leases than configured where its replicas are far away, up to this.
    pub fn longest_lease(&self) -> Duration {
        self.lease.max(self.grace * 4 / 5)
    }

    /// Ends of the log that are so far apart are compared with what a replica holds: whoever has reached the older one
    /// is about to catch up.
    pub(crate) fn mark_interval(&self, round_trip: Duration) -> Duration {
        round_trip.min(self.grace / 2).max(self.grace / 12)
    }

    /// The age of a member's acknowledgements at which its removal is proposed. Suspicion goes by the grace: a short lease
    /// makes reads wait while a member is silent, but nobody leaves for a stall that is over soon. A stall of this very
    /// process does not count: see `stall_detector.rs`.
    pub fn suspect_after(&self) -> Duration {
        self.grace * 2 / 5
    }

    /// What takes a node so long, though little is to be written, holds clients up.
    pub(crate) fn slow_after(&self) -> Duration {
        self.grace / 2
    }

    /// Who has held clients up for so long gives way: see `lagging.rs`.
    pub(crate) fn lag_patience(&self) -> Duration {
        self.grace * 4
    }

    /// A member has to learn of a term and to connect first.
    pub(crate) fn suspect_unconnected_after(&self) -> Duration {
        self.grace * 4 / 5
    }

    /// A gap between two ticks that was a stall, and how long it takes to read what has come meanwhile.
    pub(crate) fn stall(&self) -> (Duration, Duration) {
        (self.grace / 5, self.grace / 25)
    }

    /// Two clocks that move apart by so much between two readings may have stood still for longer than leases can bear.
    pub(crate) fn clock_tolerance(&self) -> Duration {
        self.lease / 8
    }
}
