//! Clocks, sockets, tasks and disks around the [`rules`](crate::rules). Nothing is decided here.

mod backup;
pub(crate) mod bootstrap;
pub mod channel;
pub mod cli;
pub mod connections;
pub(crate) mod control;
pub mod flight;
mod metrics;
mod page;
pub mod probe;
pub mod program;
pub mod proposals;
pub mod questions;
pub(crate) mod raft;
pub(crate) mod resp;
pub mod runtime;
pub mod sentinel;
