//! Replication: PacificA with the sentinels as its configuration manager. DESIGN section 6.
//!
//! Pure, tested alone and in a seeded simulation (`simulation.rs`):
//! - [`node_core`]: the role of a node, from the topology; `primary.rs` with `membership.rs` (the in-sync set) and
//!   `handoff.rs`, `replica.rs`
//! - `lease.rs`, `progress.rs` (the commit tracker), `wakefulness.rs`
//! - `stream.rs` and `full_sync.rs`: what a primary sends to one replica
//! - `messages.rs`: events, actions and the messages between nodes
//!
//! Architecture invariant: the cores know neither gRPC nor a clock nor a task. The shells know no rule about terms
//! or indexes.

mod full_sync;
mod handoff;
mod lease;
mod local;
mod membership;
mod messages;
mod node_core;
mod primary;
mod progress;
mod replica;
mod shared;
#[cfg(test)]
mod simulation;
mod stream;
mod wakefulness;

pub use messages::{HandoffError, SnapshotPart};
pub use node_core::{LinkStatus, RoleStatus, Status};
pub use shared::{Config, ConfigError, Engine, ReplicationAck, Shared, SlotSnapshot};
