//! Clocks, sockets, tasks and disks around the [`rules`](crate::rules). Nothing is decided here.

pub mod bootstrap;
pub mod channel;
pub mod cli;
pub mod connections;
pub mod control;
pub mod probe;
pub mod proposals;
pub mod questions;
pub mod raft;
pub mod resp;
pub mod runtime;
pub mod sentinel;
