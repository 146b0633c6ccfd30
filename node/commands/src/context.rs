//! What a command works with, and what it returns.

use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::DbIndex;
use keyward_store::keys::Keys;
use keyward_store::rdb::Compression;
use rand::rngs::SmallRng;

use crate::CommandError;
use crate::spec::{Command, CommandSpec, Flags, READONLY, WRITE};

/// What a command works with.
#[derive(Debug)]
pub struct DataContext<'a, 'k> {
    pub keys: &'a mut Keys<'k>,
    pub out: ReplyWriter<'a>,
    pub rng: &'a mut SmallRng,
    pub limits: &'a DataLimits,
    /// Of the running command (of the subcommand, if it has one).
    pub spec: &'static CommandSpec,
    /// Whether the user may read keys that only values name.
    pub reads_all_keys: bool,
}

/// What the configuration says to commands; up to where collections are compact is with the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataLimits {
    /// `proto-max-bulk-len`: bytes of a string.
    pub string_bytes_max: usize,
    /// Number of databases.
    pub databases: DbIndex,
    /// Of what DUMP returns.
    pub compression: Compression,
    /// `hll-sparse-max-bytes`
    pub hll_sparse_bytes_max: usize,
    /// Whether all keys of a request have to be in one slot.
    pub cluster: bool,
}

/// What a command has come to.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is written.
    Reply,
    /// Nothing was there; wait for one of these keys.
    Block(Block),
}

/// How long to wait for which keys.
#[derive(Debug)]
pub struct Block {
    pub keys: Vec<Box<[u8]>>,
    /// Zero: for ever.
    pub timeout_ms: u64,
    /// The reply when the time is up.
    pub on_timeout: OnTimeout,
    /// The reply in a transaction, which does not wait.
    pub in_transaction: OnTimeout,
    /// What is executed when something came, if that is not the request itself.
    pub instead: Option<Vec<Box<[u8]>>>,
    /// It is executed again also when the key is gone or has another type: it has an error then.
    pub ends_without_key: bool,
    /// It is executed again after so long, whether something came or not.
    pub again_ms: Option<u64>,
}

impl Block {
    /// The request itself is executed again when a key has something of its type.
    pub fn new(
        keys: Vec<Box<[u8]>>,
        timeout_ms: u64,
        on_timeout: OnTimeout,
        in_transaction: OnTimeout,
    ) -> Block {
        let (instead, ends_without_key, again_ms) = (None, false, None);
        Block { keys, timeout_ms, on_timeout, in_transaction, instead, ends_without_key, again_ms }
    }
}

/// How a reply says that nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    Null,
    NullArray,
}

impl OnTimeout {
    pub fn write(self, out: &mut ReplyWriter<'_>) {
        match self {
            OnTimeout::Null => out.null(),
            OnTimeout::NullArray => out.null_array(),
        }
    }
}

/// What every command returns.
pub type CommandResult = Result<Outcome, CommandError>;

/// A command's function.
pub type DataHandler = fn(&mut DataContext<'_, '_>, Args<'_>) -> CommandResult;

/// A command that works on keys.
pub type DataCommand = Command<DataHandler>;

/// A command that reads keys.
pub(crate) const fn read(
    name: &'static str,
    run: DataHandler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> DataCommand {
    Command::new(name, run, arity, READONLY | flags, since)
}

/// A command that changes keys.
pub(crate) const fn write(
    name: &'static str,
    run: DataHandler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> DataCommand {
    Command::new(name, run, arity, WRITE | flags, since)
}

/// A command that does neither.
pub(crate) const fn plain(
    name: &'static str,
    run: DataHandler,
    arity: i32,
    flags: Flags,
    since: &'static str,
) -> DataCommand {
    Command::new(name, run, arity, flags, since)
}

/// A command that only has subcommands; it is never called.
pub(crate) const fn container(name: &'static str, flags: Flags, since: &'static str) -> DataCommand {
    plain(name, no_subcommand, -2, flags, since).categories(0)
}

fn no_subcommand(ctx: &mut DataContext<'_, '_>, _args: Args<'_>) -> CommandResult {
    Err(CommandError::WrongArity(ctx.spec.name.into()))
}
