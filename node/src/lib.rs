//! Keyward's data server. A code map, in the order in which a request passes:
//!
//! - [`io`]: the I/O threads; [`connection`]: one client's bytes in and out; [`session`]: its state
//! - [`execute`]: checks, locks, calls a command, appends its effects; [`lookahead`]: prefetches for the next ones
//! - [`command`]: all commands by name; [`admin`]: the server's own, those on keys are `keyward-commands`
//! - [`keyspace`]: slots, tables, entries and value types
//! - [`rdb`]: values and keyspaces as files and payloads; [`rdb_load`]: a file into the keyspace
//! - [`log`]: the write log; [`gate`]: what may execute and which replies may leave
//! - [`aof`]: the write log on disk (what it does is decided by [`disk_log`]); [`loading`]: how far loading it is
//! - [`engine`]: the keyspace as replication sees it; [`relay`]: published messages for other nodes
//! - [`member`]: joining a shard, handing over, leaving
//! - [`snapshot`]: snapshots of the keyspace, SAVE and BGSAVE
//! - [`replication`]: leases, commit, full and partial resync
//! - [`blocking`], [`pubsub`], [`notify`], [`clients`], [`stats`]: what connections share
//! - [`memory`], [`reclaim`]: how much memory is in use, and freeing what takes long to free
//! - [`config`], [`routing`], [`server`]: what all threads share; [`cli`]: subcommands beside serving
//! - [`directory_lock`]: one process for a data directory
//! - [`logging`], [`supervision`]: the log, the process in the background and under systemd
//!
//! Architecture invariant: only the shells ([`aof`], [`cli`], [`clock`], [`directory_lock`], [`io`], [`connection`], [`loading`],
//! [`logging`], [`process`], [`rdb_load`], [`reclaim`], [`shutdown`], [`snapshot`], [`supervision`], and those of [`replication`])
//! read a clock, spawn a task or touch a socket.

pub mod admin;
pub mod aof;
pub mod blocking;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod command;
pub mod config;
pub mod connection;
pub mod cron;
pub mod directory_lock;
pub mod ending;
pub mod engine;
pub mod execute;
pub mod io;
pub mod loading;
pub mod logging;
pub mod member;
pub mod memory;
pub mod process;
pub mod pubsub;
pub mod rdb_load;
pub mod reclaim;
pub mod relay;
pub mod replication;
pub mod routing;
pub mod run;
pub mod sentinels;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod snapshot;
pub mod stats;
pub mod supervision;
#[cfg(test)]
pub(crate) mod testing;

pub use keyward_replication::{disk_log, gate, reply};
pub use keyward_store::{self as keyspace, events as notify, rdb};

pub mod log {
    pub use keyward_proto::entry::*;
    pub use keyward_replication::log::*;
    pub use keyward_store::effects::*;
}
