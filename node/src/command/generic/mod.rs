//! Commands of the group generic: a file per family.
//!
//! - [`keyspace`]: which keys there are, and deleting them
//! - [`dump`]: values as bytes, for other servers too
//! - [`expire`]: setting and reading expiries
//! - [`relocate`]: the same value under another key or in another database
//! - [`object`]: how a value is represented
//! - [`wait`]: waiting for replicas

mod dump;
mod expire;
mod keyspace;
mod object;
mod relocate;
mod wait;

pub(super) use dump::{dump, restore};
pub(super) use expire::{expire, expireat, expiretime, persist, pexpire, pexpireat, pexpiretime, pttl, ttl};
pub(super) use keyspace::{del, exists, keys, randomkey, scan, touch, type_, unlink};
pub(super) use object::{object_encoding, object_freq, object_help, object_idletime, object_refcount};
pub(super) use relocate::{copy, move_, rename, renamenx};
pub(super) use wait::{wait, waitaof};

#[cfg(test)]
mod tests;
