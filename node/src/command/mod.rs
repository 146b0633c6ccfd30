//! Commands: one function each, grouped by family, beside each what is known of it ([`spec`]); [`table`] has them all.
//!
//! A command reads its arguments, works on [`Ctx::keys`], and writes its reply to [`Ctx::out`]. It is synchronous and
//! does no I/O. It returns `Err` before it has written any part of a reply and before it has changed anything.
//! The caller ([`crate::execute`]) has checked arity, authentication, slot ownership and role, and holds the locks of
//! the slots of the keys that the row names.

mod arguments;
pub(crate) mod cluster;
mod connection;
mod error;
mod expiry;
mod generic;
mod hash;
mod list;
mod pubsub;
pub mod rename;
mod scan;
mod server;
mod set;
mod sorted_set;
pub mod spec;
mod string;
pub mod table;
mod transactions;

pub use arguments::{
    ascii_eq, index_range, parse_count, parse_f64_arg, parse_i32_arg, parse_i64_arg, parse_positive,
    parse_signed_count, parse_timeout,
};
pub use error::CommandError;

use keyward_proto::resp::{Args, ReplyWriter};
use rand::rngs::SmallRng;

use crate::keyspace::keys::Keys;
use crate::server::Server;
use crate::session::Session;
use spec::{Command, Flags, READONLY, WRITE};
use table::Row;

/// What a command works with.
#[derive(Debug)]
pub struct Ctx<'a, 'k> {
    pub keys: &'a mut Keys<'k>,
    pub out: ReplyWriter<'a>,
    pub session: &'a mut Session,
    pub server: &'a Server,
    pub rng: &'a mut SmallRng,
    /// The row of the running command (of the subcommand, if it has one).
    pub row: &'static Row,
}

/// What the connection does after a command.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is written.
    Reply,
    /// Nothing was there; wait for one of these keys.
    Block(Block),
    /// WAIT: answer with the number of replicas that have the client's last write.
    WaitReplicas { replicas: u64, timeout_ms: u64 },
    /// DEBUG SLEEP and its like: this reply after this time.
    Sleep(std::time::Duration, &'static [u8]),
    /// CLUSTER FAILOVER, SHUTDOWN: the connection awaits the answer of another part of the server.
    Await(Request),
    /// SYNC: the database as a file, instead of a reply.
    Download,
    /// The reply is written; close the connection after it.
    Close,
}

/// What another part of the server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Failover { force: bool, takeover: bool },
    Shutdown(crate::shutdown::Options),
    Save,
}

/// How long to wait for which keys.
#[derive(Debug)]
pub struct Block {
    pub keys: Vec<Box<[u8]>>,
    /// Zero: for ever.
    pub timeout_ms: u64,
    pub on_timeout: OnTimeout,
}

/// The reply when the time is up, and inside MULTI at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    Null,
    NullArray,
}

/// What every command returns.
pub type CommandResult = Result<Outcome, CommandError>;

/// A command's function.
pub type Handler = fn(&mut Ctx<'_, '_>, Args<'_>) -> CommandResult;

/// A command that works on keys.
pub(crate) type DataCommand = Command<Handler>;
/// A command that concerns the server or the session.
pub(crate) type ServerCommand = Command<Handler>;

/// A command that reads keys.
const fn read(
    name: &'static str,
    run: Handler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> DataCommand {
    Command::new(name, run, arity, READONLY | flags, since)
}

/// A command that changes keys.
const fn write(
    name: &'static str,
    run: Handler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> DataCommand {
    Command::new(name, run, arity, WRITE | flags, since)
}

/// A command that does neither.
const fn plain(
    name: &'static str,
    run: Handler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> DataCommand {
    Command::new(name, run, arity, flags, since)
}

/// A command that only has subcommands; it is never called.
const fn container(name: &'static str, flags: Flags, since: &'static str) -> DataCommand {
    plain(name, no_subcommand, -2, flags, since).categories(0)
}

fn no_subcommand(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::WrongArity(ctx.row.name.into()))
}

/// The reply of a container's HELP: usage lines, each followed by its explanation.
fn help(ctx: &mut Ctx<'_, '_>, lines: &[&str]) -> CommandResult {
    let container = ctx.row.name.split('|').next().unwrap_or_default().to_uppercase();
    ctx.out.array(lines.len() + 3);
    ctx.out.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for line in lines {
        ctx.out.simple(line);
    }
    ctx.out.simple("HELP");
    ctx.out.simple("    Print this help.");
    Ok(Outcome::Reply)
}
