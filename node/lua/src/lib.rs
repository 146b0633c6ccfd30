//! Scripts: stock Lua 5.1, and around it what Valkey's scripts see. Nothing here knows keys, clients or the server; a
//! script reaches them through its [`Host`], which executes one command and returns the reply's bytes.
//!
//! - [`Interpreter`]: compiles and runs scripts and libraries of functions; `prelude.lua` is the sandbox
//! - [`bridge`]: calls a script, and calls the host for it; [`reply`]: what a script returns becomes a reply
//! - [`api`]: the rest of `redis.*`; [`raised`]: errors, and how a script is ended that may not catch it
//! - [`libraries`]: `cjson`, `cmsgpack`, `bit`, `struct`, and random numbers
//!
//! *What is bounded*: an interpreter's memory ([`limit`]), the depth of what is converted, and time by whoever
//! is asked every [`INSTRUCTIONS`] instructions. Lua keeps what Rust holds of it on a stack of [`REFERENCES_MAX`] places,
//! so nothing is held here for each of many values.

mod api;
mod bridge;
mod host;
#[cfg(test)]
mod hostile_tests;
mod interpreter;
mod libraries;
mod limit;
mod raised;
mod reply;
#[cfg(test)]
mod tests;

pub use host::{Abort, Host, LogLevel};
pub use interpreter::{Compiled, Interpreter, Kind, LoadError, ScriptError};
pub use libraries::Registered;
pub use limit::MEMORY_BYTES_MAX;

/// How often it is asked whether a script may go on.
pub const INSTRUCTIONS: u32 = 100_000;

/// Values of Lua that Rust may hold at a time; stock Lua has place for 8000 in all.
const REFERENCES_MAX: usize = 6000;
