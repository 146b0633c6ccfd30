//! Keyward's control plane.

pub mod channel;
pub mod failover;
pub mod raft;
pub mod topology;
