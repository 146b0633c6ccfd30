//! The rules of replication, without a clock, a socket or a task. ARCHITECTURE.md, "Replication and failover".
//!
//! - [`log`]: the write log; [`gate`]: what may execute and which replies may leave
//! - [`disk_log`]: what the log on disk does: batches, written and durable, rewrites, turning back
//! - [`reply`]: when a reply may leave
//! - [`recorder`]: what a node remembers of its last minutes
//! - [`core`]: leases, commit, membership, hand-off, full and partial resync
//!
//! Architecture invariant: nothing in here knows Tokio, gRPC or a clock; time is an argument. What is proven here, by unit
//! tests, by scenarios and by the simulation of `cluster-tests`, is what the program runs.

pub mod core;
pub mod disk_log;
pub mod gate;
pub mod log;
pub mod recorder;
pub mod reply;
