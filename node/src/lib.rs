//! Keyward's data server. A code map, in the order in which a request passes:
//!
//! - [`io`]: the I/O threads, one client's bytes in and out, its session; the connected clients
//! - [`execute`]: checks, locks, calls a command, appends its effects
//! - [`command`]: all commands by name; [`admin`]: the server's own, those on keys are `keyward-commands`
//! - [`keyward_store`]: the keyspace, a crate of its own; [`rdb_load`]: an RDB file into it
//! - [`keyward_replication`]: the rules of the log, of replies and of replication, a crate of their own
//! - [`aof`]: the shell of the write log on disk; [`loading`]: how far loading it is
//! - [`engine`]: the keyspace as replication sees it; [`relay`]: published messages for other nodes
//! - `forwarding`: clients that know nothing of clusters, at any node
//! - [`member`]: joining a shard, handing over, leaving
//! - [`snapshot`]: snapshots of the keyspace, SAVE and BGSAVE
//! - [`replication`]: the shells of replication: tasks, gRPC, the thread that applies
//! - [`blocking`], [`pubsub`], [`message`], [`stats`]: what connections share
//! - `metrics`: what is shown over HTTP
//! - [`scripts`]: which scripts and functions there are, and which of them run
//! - [`memory`], [`lazyfree`]: how much memory is in use, and freeing what takes long to free
//! - [`config`], [`routing`], [`server`]: what all threads share; [`cli`]: subcommands beside serving
//! - `control`: the control runtime, on which nothing waits for a command; [`cron`]: what happens by itself
//! - [`tls`]: the certificates in force
//! - [`directory_lock`]: one process for a data directory
//! - [`logging`], [`supervision`]: the log, the process in the background and under systemd
//!
//! Architecture invariant: only the shells ([`aof`], [`cli`], [`clock`], [`directory_lock`], [`io`], [`loading`],
//! [`logging`], [`process`], [`rdb_load`], [`lazyfree`], [`shutdown`], [`snapshot`], [`supervision`], [`tls`], and those of [`replication`])
//! read a clock, spawn a task or touch a socket.

mod acl;
pub mod admin;
pub mod aof;
pub mod blocking;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
mod control;
pub mod cron;
pub mod directory_lock;
pub mod ending;
pub mod engine;
pub mod execute;
mod forwarding;
pub mod io;
pub mod lazyfree;
pub mod loading;
pub mod logging;
pub mod member;
pub mod memory;
pub mod message;
mod metrics;
pub(crate) mod observe;
pub mod process;
pub mod pubsub;
pub mod rdb_load;
pub mod refusals;
pub mod relay;
mod reload;
pub mod replication;
pub mod routing;
pub mod run;
pub mod scripts;
pub mod sentinels;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod stats;
pub mod supervision;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod tracking;
