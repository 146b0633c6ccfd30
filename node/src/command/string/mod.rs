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

pub(super) use get_set::{delifeq, get, getdel, getex, getset, psetex, set, setex, setnx};
pub(super) use increment::{decr, decrby, incr, incrby, incrbyfloat};
pub(super) use lcs::lcs;
pub(super) use multiple::{mget, mset, msetex, msetnx};
pub(super) use range::{append, getrange, setrange, strlen, substr};

#[cfg(test)]
mod tests;
