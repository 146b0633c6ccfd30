//! Commands of the group server: the keyspace as a whole ([`keyspace`]), INFO ([`info`]), COMMAND ([`commands`],
//! [`docs`]), CONFIG ([`config`]), MEMORY ([`memory`]), DEBUG ([`debug`]), saving ([`persistence`]), SYNC
//! ([`replication`]),
//! and small ones ([`process`]).

#[cfg(test)]
mod tests;

mod commands;
mod config;
mod debug;
mod docs;
mod info;
mod keyspace;
mod memory;
mod overview;
mod persistence;
mod process;
mod replication;

use crate::command::ServerCommand;
use crate::command::spec::{Group, family};
use commands::{
    COMMAND, COMMAND_COUNT, COMMAND_GETKEYS, COMMAND_GETKEYSANDFLAGS, COMMAND_HELP, COMMAND_INFO,
    COMMAND_LIST,
};
use config::{CONFIG, CONFIG_GET, CONFIG_HELP, CONFIG_RESETSTAT, CONFIG_REWRITE, CONFIG_SET};
use debug::DEBUG;
use docs::COMMAND_DOCS;
use info::INFO;
use keyspace::{DBSIZE, FLUSHALL, FLUSHDB, SWAPDB};
use memory::{
    MEMORY, MEMORY_DOCTOR, MEMORY_HELP, MEMORY_MALLOC_STATS, MEMORY_PURGE, MEMORY_STATS, MEMORY_USAGE,
};
use persistence::{BGREWRITEAOF, BGSAVE, LASTSAVE, SAVE};
use process::{LOLWUT, ROLE, SHUTDOWN, TIME};
use replication::{REPLCONF, SYNC};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 37] = family(Group::Server, [
    BGREWRITEAOF, BGSAVE, COMMAND, COMMAND_COUNT, COMMAND_DOCS, COMMAND_GETKEYS, COMMAND_GETKEYSANDFLAGS,
    COMMAND_HELP, COMMAND_INFO, COMMAND_LIST, CONFIG, CONFIG_GET, CONFIG_HELP, CONFIG_RESETSTAT,
    CONFIG_REWRITE, CONFIG_SET, DBSIZE, DEBUG, FLUSHALL, FLUSHDB, INFO, LASTSAVE, LOLWUT, MEMORY,
    MEMORY_DOCTOR, MEMORY_HELP, MEMORY_MALLOC_STATS, MEMORY_PURGE, MEMORY_STATS, MEMORY_USAGE, REPLCONF,
    ROLE, SAVE, SHUTDOWN, SWAPDB, SYNC, TIME,
]);
