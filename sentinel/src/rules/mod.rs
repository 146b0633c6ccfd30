//! What is decided here, without a clock, a socket or a task: the time and what others say are arguments.
//!
//! The simulation runs the same code, and each deliberate bug that it has to find is in here.

pub(crate) mod admin;
pub(crate) mod admin_token;
pub(crate) mod backup;
pub mod coordinator;
pub(crate) mod events;
pub mod failover;
pub mod formation;
pub(crate) mod founding;
pub mod health;
pub mod in_sync;
pub mod inquiry;
pub(crate) mod kept;
pub mod leadership;
pub(crate) mod lookup;
pub mod node_report;
pub(crate) mod pace;
pub mod placement;
pub mod publication;
pub mod recorder;
pub mod registration;
pub(crate) mod removal;
pub(crate) mod sentinel_api;
pub mod status;
pub(crate) mod timeline;
pub mod topology;
pub(crate) mod waiting;
