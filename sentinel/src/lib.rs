//! Keyward's control plane. Sentinels form one Raft group that holds the topology: nodes, shards, primaries.
//!
//! Pure rules:
//! - [`topology`]: the state machine: which command changes what, and what is refused
//! - [`failover`]: who becomes primary, given what the nodes answer
//! - [`publication`]: the topology as nodes are told it
//! - [`health`], [`events`]: what is known of the nodes, and what subscribers are told
//! - [`status`]: what operators are shown
//!
//! Shells:
//! - [`raft`]: openraft, its durable store and its messages
//! - [`bootstrap`]: who this sentinel is in the group
//! - [`control`]: the gRPC service for nodes and operators, the failover, the watchdog
//! - [`resp`]: the Sentinel API for clients
//! - [`proposals`]: commands on their way into the Raft log
//! - [`probe`], [`indirect`]: questions to nodes, directly and through other sentinels
//! - [`connections`], [`channel`], [`clock`]: connections and time; [`reach`]: why there is none
//! - [`sentinel`], [`runtime`], [`config`], [`cli`]: putting it together
//!
//! Architecture invariant: steady replication needs none of this; nodes ask only when something changes.

pub mod bootstrap;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
pub mod control;
pub mod events;
pub mod failover;
pub mod health;
pub mod indirect;
pub mod probe;
pub mod proposals;
pub mod publication;
pub mod raft;
pub mod reach;
pub mod resp;
pub mod runtime;
pub mod sentinel;
pub mod status;
pub mod topology;
