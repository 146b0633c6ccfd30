//! Replication: PacificA with the sentinels as its configuration manager.
//!
//! Pure, tested alone and in the deterministic simulation of `cluster-tests`, for which the core is public:
//! - `node_core.rs`: the role of a node, from the topology; `primary.rs` with `membership.rs` (the in-sync set) and
//!   `handoff.rs`; `replica.rs`; `local.rs`, what both share
//! - `lease.rs`, `progress.rs` (the commit tracker), `contact.rs`, `wakefulness.rs`
//! - `stream.rs` and `full_sync.rs`: what a primary sends to one replica; `received.rs`: what a replica has of it
//! - `messages.rs`: events, actions and the messages between nodes
//!
//! Shells:
//! - `task.rs`: the task that owns the core; `handle.rs`: what the rest of the node sees of it
//! - `link.rs`: gRPC streams; `wire.rs`: their messages; `sender.rs`: a task per replica
//! - `applier.rs`: the thread that applies committed entries, as `applying.rs` says
//!
//! Architecture invariant: the cores know neither gRPC nor a clock nor a task. The shells know no rule about terms
//! or indexes.

mod applier;
pub mod applying;
#[cfg(test)]
mod grpc_tests;
mod handle;
mod link;
mod sender;
mod shared;
pub(crate) mod task;
pub(crate) mod wire;

pub use full_sync::{SlotSnapshot, SnapshotEnded};
pub use handle::{Demand, Options, Replication};
pub use keyward_replication::core::{Config, ConfigError, ReplicationAck};
pub use keyward_replication::core::{full_sync, messages, node_core, received, requests, stream};
pub use link::Deliver;
pub use messages::{HandoffError, SnapshotPart};
pub use node_core::{LinkStatus, RoleStatus, Status};
pub use received::SlotSet;
pub use shared::{Engine, LargeSlots, LogHistory, Shared};
