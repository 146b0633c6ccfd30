//! What an operator chooses: how long leases last, and what counts as committed.

use std::time::Duration;

/// When an entry is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    #[error("lease ({0:?}) must be between 20 ms and 60 s")]
    LeaseOutOfRange(Duration),
}

/// Checked by [`Config::check`] before anything runs with it.
#[derive(Debug, Clone)]
pub struct Config {
    pub lease: Duration,
    pub grace: Duration,
    pub replication_ack: ReplicationAck,
    /// `None`: half of the shard's nodes, rounded up.
    pub min_in_sync: Option<usize>,
    /// A refused connection proves that the primary's process is dead.
    pub fast_failover: bool,
    /// How long a hand-off waits for its target.
    pub handoff_timeout: Duration,
    /// A replica whose disk has taken nothing for so long, though there is something to write, acknowledges nothing.
    pub disk_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            lease: Duration::from_millis(400),
            grace: Duration::from_millis(500),
            replication_ack: ReplicationAck::InSync,
            min_in_sync: None,
            fast_failover: true,
            handoff_timeout: Duration::from_secs(5),
            disk_patience: Duration::from_secs(1),
        }
    }
}

impl Config {
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.grace <= self.lease {
            return Err(ConfigError::GraceTooShort { lease: self.lease, grace: self.grace });
        }
        let range = Duration::from_millis(20)..=Duration::from_secs(60);
        if !range.contains(&self.lease) {
            return Err(ConfigError::LeaseOutOfRange(self.lease));
        }
        Ok(())
    }

    /// How often a primary speaks when it has nothing to say.
    pub fn beacon_interval(&self) -> Duration {
        self.lease / 10
    }

    /// The age of a member's acknowledgements at which its removal is proposed. Half of the lease leaves the other
    /// half for the sentinels to commit it before the primary has to stop serving. A stall of this very process does
    /// not count: see `stall_detector.rs`.
    pub fn suspect_after(&self) -> Duration {
        self.lease / 2
    }
}
