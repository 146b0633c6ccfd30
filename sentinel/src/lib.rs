//! Keyward's control plane. Sentinels form one Raft group that holds the topology: nodes, shards, primaries.
//!
//! [`rules`], pure:
//! - [`topology`](rules::topology): the state machine: which command changes what, and what is refused;
//!   [`placement`](rules::placement): which command brings it closer to the wanted shape
//! - [`coordinator`](rules::coordinator): the course of a failover: who is asked, how long, how often;
//!   [`inquiry`](rules::inquiry): asking nodes, also through the other sentinels
//! - `founding`: when a group is founded, and who is taken in; `leadership`: where a request runs
//! - [`failover`](rules::failover): who becomes primary, given what the nodes answer
//! - [`in_sync`](rules::in_sync): requests to change an in-sync set; `removal`: what a primary may do
//!   to those who could take its place
//! - [`publication`](rules::publication): the topology as nodes are told it
//! - [`health`](rules::health), [`node_report`](rules::node_report), `events`: what is known of the nodes, and what
//!   subscribers are told
//! - `sentinel_api`, [`status`](rules::status), `admin`: what clients and operators ask and are shown
//! - `timeline`: the latest changes of primaries, and how long their phases took
//! - `kept`: which connections are used again; `waiting`: shards that have no primary, and why
//!
//! [`shell`]:
//! - `raft`: openraft, its durable store and its messages;
//!   [`proposals`](shell::proposals): commands on their way into the Raft log
//! - `bootstrap`: brings this sentinel into its group
//! - `control`: the gRPC service for nodes and operators, the failover, the watchdog
//! - `resp`: the clients of the Sentinel API
//! - [`probe`](shell::probe): a question to a node; [`questions`](shell::questions): also through other sentinels
//! - [`connections`](shell::connections), [`channel`](shell::channel): connections to nodes and sentinels
//! - [`sentinel`](shell::sentinel), [`runtime`](shell::runtime), [`cli`](shell::cli), [`program`](shell::program): putting
//!   it together
//!
//! [`config`]: options.
//!
//! Architecture invariants: only [`shell`] reads a clock, spawns a task or touches a socket. Steady replication needs
//! none of this; nodes ask only when something changes.

pub mod config;
pub mod rules;
pub mod shell;
