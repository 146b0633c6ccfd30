//! Commands of the group generic: a file per family.
//!
//! - [`keyspace`]: which keys there are, and deleting them
//! - [`dump`]: values as bytes, for other servers too
//! - [`expire`]: setting and reading expiries
//! - [`relocate`]: the same value under another key or in another database
//! - [`object`]: how a value is represented
//! - [`sort`]: elements in the order of themselves or of other keys

mod dump;
mod expire;
mod keyspace;
mod object;
mod relocate;
mod sort;

use crate::DataCommand;
use crate::spec::{Group, family};
use dump::{DUMP, RESTORE, RESTORE_ASKING};
use expire::{EXPIRE, EXPIREAT, EXPIRETIME, PERSIST, PEXPIRE, PEXPIREAT, PEXPIRETIME, PTTL, TTL};
use keyspace::{DEL, EXISTS, KEYS, RANDOMKEY, SCAN, TOUCH, TYPE, UNLINK};
pub use object::encoding;
use object::{OBJECT, OBJECT_ENCODING, OBJECT_FREQ, OBJECT_HELP, OBJECT_IDLETIME, OBJECT_REFCOUNT};
use relocate::{COPY, MOVE, RENAME, RENAMENX};
use sort::{SORT, SORT_RO};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 32] = family(Group::Generic, [
    COPY, DEL, DUMP, EXISTS, EXPIRE, EXPIREAT, EXPIRETIME, KEYS, MOVE, OBJECT, OBJECT_ENCODING,
    OBJECT_FREQ, OBJECT_HELP, OBJECT_IDLETIME, OBJECT_REFCOUNT, PERSIST, PEXPIRE, PEXPIREAT, PEXPIRETIME,
    PTTL, RANDOMKEY, RENAME, RENAMENX, RESTORE, RESTORE_ASKING, SCAN, SORT, SORT_RO, TOUCH, TTL, TYPE, UNLINK,
]);

#[cfg(test)]
mod tests;
