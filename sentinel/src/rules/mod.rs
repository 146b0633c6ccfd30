//! What is decided here, without a clock, a socket or a task: the time and what others say are arguments.
//!
//! The simulation runs the same code, and each deliberate bug that it has to find is in here.

pub mod coordinator;
pub(crate) mod events;
pub mod failover;
pub mod health;
pub mod in_sync;
pub mod inquiry;
pub(crate) mod lookup;
pub mod node_report;
pub mod placement;
pub mod publication;
pub(crate) mod removal;
pub(crate) mod sentinel_api;
pub(crate) mod status;
pub mod topology;
