//! The replication cores: PacificA with the sentinels as its configuration manager. ARCHITECTURE.md, "Replication and failover".
//!
//! - [`node_core`]: the role of a node, from the topology; `primary` with `membership` (the in-sync set) and `handoff`;
//!   `replica`; `local`, what both share
//! - `lease`, `progress` (the commit tracker), `contact`, `stall_detector`, [`clock_watch`]
//! - [`stream`] and [`full_sync`]: what a primary sends to one replica; `assembly` and [`received`]: what a replica has
//!   of it
//! - [`requests`]: which sentinel is asked for a change, and when the next one
//! - [`messages`]: events, actions and the messages between nodes; [`config`]: the times of which leases are made

mod assembly;
pub mod clock_watch;
pub mod config;
mod contact;
pub mod full_sync;
mod handoff;
mod lagging;
mod lease;
mod local;
mod membership;
pub mod messages;
pub mod node_core;
mod primary;
mod progress;
pub mod received;
mod replica;
pub mod requests;
mod stall_detector;
pub mod stream;

pub use config::{Config, ConfigError, ReplicationAck};
