//! Replication: PacificA with the sentinels as its configuration manager. DESIGN section 6.

mod shared;

pub use shared::{Config, ConfigError, Engine, ReplicationAck, Shared, SlotSnapshot};
