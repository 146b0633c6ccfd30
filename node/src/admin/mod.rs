//! Commands that concern the server, a client's session or the whole keyspace; those on keys are in `keyward-commands`.
//!
//! - [`connection`]: who the client is, what it does with its session, CLIENT; [`transactions`]: MULTI and its like
//! - [`cluster`]: the Cluster API; [`cluster_scan`]: CLUSTERSCAN; [`pubsub`]: messages
//! - [`acl`]: users and their rights
//! - [`command`] with [`docs`]: COMMAND; [`config`]: CONFIG; [`info`] and [`memory`]: INFO and MEMORY, from [`overview`]
//! - [`keyspace`]: DBSIZE, FLUSHALL, SWAPDB; [`persistence`]: saving; [`replication`]: SYNC; [`wait`]: WAIT
//! - [`scripting`]: EVAL, SCRIPT
//! - [`commandlog`]: SLOWLOG and COMMANDLOG; [`latency`]: LATENCY; [`monitor`]: MONITOR; [`debug`] with [`inspect`]: DEBUG; [`module`]: MODULE; [`process`]: small ones

mod acl;
pub(crate) mod cluster;
mod cluster_scan;
mod command;
mod commandlog;
mod config;
pub(crate) mod connection;
mod debug;
mod docs;
mod info;
mod inspect;
mod keyspace;
mod latency;
mod memory;
mod module;
mod monitor;
mod overview;
mod persistence;
mod process;
mod pubsub;
mod replication;
mod scripting;
#[cfg(test)]
mod tests;
pub(crate) mod transactions;
mod wait;

use keyward_commands::spec::{Command, CommandSpec, Flags, Group, PROTECTED, READONLY, WRITE, family};
use keyward_commands::{Block, CommandError, Outcome};
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::keys::Keys;

use crate::command::table::Row;
use crate::config::Settings;
use crate::io::session::Session;
use crate::server::Server;
use command::{
    COMMAND, COMMAND_COUNT, COMMAND_GETKEYS, COMMAND_GETKEYSANDFLAGS, COMMAND_HELP, COMMAND_INFO,
    COMMAND_LIST,
};
use commandlog::{
    COMMANDLOG, COMMANDLOG_GET, COMMANDLOG_HELP, COMMANDLOG_LEN, COMMANDLOG_RESET, SLOWLOG, SLOWLOG_GET,
    SLOWLOG_HELP, SLOWLOG_LEN, SLOWLOG_RESET,
};
use config::{CONFIG, CONFIG_GET, CONFIG_HELP, CONFIG_RESETSTAT, CONFIG_REWRITE, CONFIG_SET};
use debug::DEBUG;
use docs::COMMAND_DOCS;
use info::INFO;
use keyspace::{DBSIZE, FLUSHALL, FLUSHDB, SWAPDB};
use latency::{
    LATENCY, LATENCY_DOCTOR, LATENCY_GRAPH, LATENCY_HELP, LATENCY_HISTOGRAM, LATENCY_HISTORY, LATENCY_LATEST,
    LATENCY_RESET,
};
use memory::{
    MEMORY, MEMORY_DOCTOR, MEMORY_HELP, MEMORY_MALLOC_STATS, MEMORY_PURGE, MEMORY_STATS, MEMORY_USAGE,
};
use module::{MODULE, MODULE_HELP, MODULE_LIST, MODULE_LOAD, MODULE_LOADEX, MODULE_UNLOAD};
use monitor::MONITOR;
use persistence::{BGREWRITEAOF, BGSAVE, LASTSAVE, SAVE};
use process::{LOLWUT, ROLE, SHUTDOWN, TIME};
use replication::{REPLCONF, SYNC};
pub(crate) use wait::write_synced;
use wait::{WAIT, WAITAOF};

/// Before a command is queued: whether the settings let a client with this address use it.
pub(crate) fn check_protected(row: &Row, settings: &Settings, address: &str) -> Result<(), CommandError> {
    if !row.has(PROTECTED) {
        return Ok(());
    }
    let check = if *row.name == *DEBUG.spec.name { debug::check_address } else { module::check_address };
    check(settings, address)
}

/// What a server command works with.
#[derive(Debug)]
pub struct ServerContext<'a, 'k> {
    pub keys: &'a mut Keys<'k>,
    pub out: ReplyWriter<'a>,
    pub session: &'a mut Session,
    pub server: &'a Server,
    /// Of the running command (of the subcommand, if it has one).
    pub spec: &'static CommandSpec,
}

/// What the connection does after a command.
#[derive(Debug)]
pub enum ServerOutcome {
    /// The reply is written.
    Reply,
    /// Nothing was there; wait for one of these keys.
    Block(Block),
    /// WAIT: answer with the number of replicas that have the client's last write.
    WaitReplicas { replicas: u64, timeout_ms: u64 },
    /// WAITAOF: answer whether the client's last write is synced here; and on so many replicas, of which nobody knows.
    WaitDisk { replicas: u64, timeout_ms: u64 },
    /// DEBUG SLEEP and its like: this reply after this time.
    Sleep(std::time::Duration, &'static [u8]),
    /// CLUSTER FAILOVER, SHUTDOWN: the connection awaits the answer of another part of the server.
    Await(Request),
    /// SYNC: the database as a file, instead of a reply.
    Download,
    /// The reply is written; close the connection after it.
    Close,
}

impl From<Outcome> for ServerOutcome {
    #[inline]
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Reply => ServerOutcome::Reply,
            Outcome::Block(block) => ServerOutcome::Block(block),
        }
    }
}

/// What another part of the server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Failover {
        force: bool,
        takeover: bool,
    },
    Shutdown(crate::shutdown::Options),
    Save,
    /// DEBUG RELOAD.
    Reload(crate::reload::Options),
}

/// What every server command returns.
pub(crate) type ServerResult = Result<ServerOutcome, CommandError>;

/// A server command's function.
pub(crate) type ServerHandler = fn(&mut ServerContext<'_, '_>, Args<'_>) -> ServerResult;

/// A command that concerns the server or the session.
pub(crate) type ServerCommand = Command<ServerHandler>;

/// The commands of the group server.
#[rustfmt::skip]
const SERVER: [ServerCommand; 62] = family(Group::Server, [
    BGREWRITEAOF, BGSAVE, COMMAND, COMMAND_COUNT, COMMAND_DOCS, COMMAND_GETKEYS, COMMAND_GETKEYSANDFLAGS,
    COMMAND_HELP, COMMAND_INFO, COMMAND_LIST, CONFIG, CONFIG_GET, CONFIG_HELP, CONFIG_RESETSTAT,
    CONFIG_REWRITE, CONFIG_SET, DBSIZE, DEBUG, FLUSHALL, FLUSHDB, INFO, LASTSAVE, LOLWUT, MEMORY,
    MEMORY_DOCTOR, MEMORY_HELP, MEMORY_MALLOC_STATS, MEMORY_PURGE, MEMORY_STATS, MEMORY_USAGE, REPLCONF,
    ROLE, SAVE, SHUTDOWN, SWAPDB, SYNC, TIME, COMMANDLOG, COMMANDLOG_GET, COMMANDLOG_HELP, COMMANDLOG_LEN,
    COMMANDLOG_RESET, LATENCY, LATENCY_DOCTOR, LATENCY_GRAPH, LATENCY_HELP, LATENCY_HISTOGRAM, LATENCY_HISTORY,
    LATENCY_LATEST, LATENCY_RESET, MODULE, MODULE_HELP, MODULE_LIST, MODULE_LOAD,
    MODULE_LOADEX, MODULE_UNLOAD, MONITOR, SLOWLOG, SLOWLOG_GET, SLOWLOG_HELP, SLOWLOG_LEN, SLOWLOG_RESET,
]);

/// The commands of the group generic that concern the server.
const GENERIC: [ServerCommand; 2] = family(Group::Generic, [WAIT, WAITAOF]);

/// All server commands, a list for each group.
pub(crate) const FAMILIES: [&[ServerCommand]; 8] = [
    &acl::COMMANDS,
    &cluster::COMMANDS,
    &connection::COMMANDS,
    &GENERIC,
    &pubsub::COMMANDS,
    &scripting::COMMANDS,
    &SERVER,
    &transactions::COMMANDS,
];

/// A command that reads keys.
const fn read(
    name: &'static str,
    run: ServerHandler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> ServerCommand {
    Command::new(name, run, arity, READONLY | flags, since)
}

/// A command that changes keys.
const fn write(
    name: &'static str,
    run: ServerHandler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> ServerCommand {
    Command::new(name, run, arity, WRITE | flags, since)
}

/// A command that does neither.
const fn plain(
    name: &'static str,
    run: ServerHandler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> ServerCommand {
    Command::new(name, run, arity, flags, since)
}

/// A command that only has subcommands; it is never called.
const fn container(name: &'static str, flags: Flags, since: &'static str) -> ServerCommand {
    plain(name, no_subcommand, -2, flags, since).categories(0)
}

fn no_subcommand(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    Err(CommandError::WrongArity(ctx.spec.name.into()))
}

/// The reply of a container's HELP: usage lines, each followed by its explanation.
fn help(ctx: &mut ServerContext<'_, '_>, lines: &[&str]) -> ServerResult {
    let container = ctx.spec.name.split('|').next().unwrap_or_default().to_uppercase();
    ctx.out.array(lines.len() + 3);
    ctx.out.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for line in lines {
        ctx.out.simple(line);
    }
    ctx.out.simple("HELP");
    ctx.out.simple("    Print this help.");
    Ok(ServerOutcome::Reply)
}
