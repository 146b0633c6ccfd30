//! What commands do to keys: a function per command, and beside it a row of what is known of it.
//!
//! - [`spec`]: what is known of a command: arity, flags, key positions, categories
//! - [`context`]: what a command works with and what it returns
//! - [`args`]: reading arguments; [`error`]: the words in which a client hears of a failure
//! - [`expiry`], [`scan`]: what commands of several groups share
//! - [`bitmap`], [`generic`], [`geo`], [`hash`], [`hyperloglog`], [`list`], [`set`], [`sorted_set`],
//!   [`stream`], [`string`]: the commands, a file per family
//!
//! A command reads its arguments, works on [`DataContext::keys`], and writes its reply to [`DataContext::out`]. It is
//! synchronous and does no I/O. It returns `Err` before it has written any part of a reply and before it has changed
//! anything. The caller has checked arity, authentication, slot ownership and role, and holds the locks of the slots of
//! the keys that the row names.
//!
//! Architecture invariant: nothing in here knows the server, a client's session, a clock or a socket. Commands that
//! concern these are in `keyward-node`.

mod args;
mod bitmap;
mod context;
mod error;
mod expiry;
mod generic;
mod geo;
mod hash;
mod hyperloglog;
mod list;
pub mod scan;
mod set;
mod sorted_set;
pub mod spec;
mod store;
mod stream;
mod string;
#[cfg(test)]
mod testing;

pub use args::{Cursor, ascii_eq, parse_f64_arg, parse_i32_arg, parse_i64_arg};
pub use context::{
    Block, CommandResult, DataCommand, DataContext, DataHandler, DataLimits, OnTimeout, Outcome,
};
pub use error::CommandError;
pub use generic::encoding;

use args::{index_range, parse_count, parse_positive, parse_signed_count, parse_timeout};
use context::{container, plain, read, write};

/// All commands that work on keys, a list for each group.
pub const FAMILIES: [&[DataCommand]; 10] = [
    &bitmap::COMMANDS,
    &generic::COMMANDS,
    &geo::COMMANDS,
    &hash::COMMANDS,
    &hyperloglog::COMMANDS,
    &list::COMMANDS,
    &set::COMMANDS,
    &sorted_set::COMMANDS,
    &stream::COMMANDS,
    &string::COMMANDS,
];
