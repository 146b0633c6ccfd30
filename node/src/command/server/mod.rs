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

pub(super) use commands::{
    command, command_count, command_getkeys, command_getkeysandflags, command_help, command_info,
    command_list,
};
pub(super) use config::{config_get, config_help, config_resetstat, config_rewrite, config_set};
pub(super) use debug::debug;
pub(super) use docs::command_docs;
pub(super) use info::info;
pub(super) use keyspace::{dbsize, flushall, flushdb, swapdb};
pub(super) use memory::{
    memory_doctor, memory_help, memory_malloc_stats, memory_purge, memory_stats, memory_usage,
};
pub(super) use persistence::{bgrewriteaof, bgsave, lastsave, save};
pub(super) use process::{lolwut, role, shutdown, time};
pub(super) use replication::{replconf, sync};
