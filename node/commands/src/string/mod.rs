//! Commands of the group string: a file per family.
//!
//! - [`get_set`]: one key, GET and SET with all their variants
//! - [`multiple`]: MGET, MSET, MSETNX, MSETEX
//! - [`increment`]: INCR and its like, INCRBYFLOAT
//! - [`range`]: parts of a string
//! - [`lcs`]: the longest common subsequence

mod get_set;
mod increment;
mod lcs;
mod multiple;
mod options;
mod range;

use crate::DataCommand;
use crate::spec::{Group, family};
use get_set::{DELEX, DELIFEQ, DIGEST, GET, GETDEL, GETEX, GETSET, PSETEX, SET, SETEX, SETNX};
use increment::{DECR, DECRBY, INCR, INCRBY, INCRBYFLOAT};
use lcs::LCS;
use multiple::{MGET, MSET, MSETEX, MSETNX};
use range::{APPEND, GETRANGE, SETRANGE, STRLEN, SUBSTR};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 26] = family(Group::String, [
    APPEND, DECR, DECRBY, DELEX, DELIFEQ, DIGEST, GET, GETDEL, GETEX, GETRANGE, GETSET, INCR, INCRBY, INCRBYFLOAT, LCS,
    MGET, MSET, MSETEX, MSETNX, PSETEX, SET, SETEX, SETNX, SETRANGE, STRLEN, SUBSTR,
]);

#[cfg(test)]
mod tests;
