//! Replication: PacificA with the sentinels as its configuration manager.
//!
//! The rules are the crate `keyward-replication`. Here are their shells:
//! - `task.rs`: the task that owns the core; `handle.rs`: what the rest of the node sees of it
//! - `link.rs`: gRPC streams; `wire.rs`: their messages; `sender.rs`: a task per replica
//! - `news.rs`: what is worth a line of the log
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
mod news;
mod quiescing;
mod sender;
mod shared;
pub(crate) mod task;
pub(crate) mod wire;

pub use handle::{Demand, Options, Replication};
pub use link::Deliver;
pub use shared::{DiskWriter, Engine, Figures, LargeSlots, LogHistory, Shared};
#[cfg(fuzzing)]
pub use wire::read_any_message;
