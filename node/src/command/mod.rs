//! All commands of the program, those on keys (`keyward-commands`) and the server's own ([`crate::admin`]): numbered and
//! found by name ([`table`], [`find`]), also by other names ([`rename`]); and what they touch ([`keys_of`], [`touched`]).

pub(crate) mod find;
pub(crate) mod keys_of;
pub mod rename;
pub mod table;
pub(crate) mod touched;

pub use keyward_commands::{
    Block, CommandError, Cursor, OnTimeout, ascii_eq, parse_f64_arg, parse_i32_arg, parse_i64_arg, spec,
};
