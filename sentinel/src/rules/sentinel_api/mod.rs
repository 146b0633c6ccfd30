//! The Sentinel API: what clients of the client port ask for and get, in the reply shapes of Valkey 9.1's Sentinel
//! (<https://valkey.io/topics/sentinel/>).
//!
//! - [`conversation`]: a connection, from its first byte to its last
//! - [`request`]: finds commands in what a client sent
//! - [`command`]: a session and what each command does to it
//! - [`subcommand`], [`info`]: SENTINEL and INFO
//! - [`instances`]: the field lists that describe primaries, replicas and sentinels
//!
//! The sockets are the shell's: [`crate::shell::resp`].
//!
//! Differs from Valkey: what Sentinel is configured with at run time (MONITOR, REMOVE, SET) comes from the topology
//! here and is refused; QUIT and RESET are understood.

pub(crate) mod command;
pub(crate) mod conversation;
pub(crate) mod info;
pub(crate) mod instances;
pub(crate) mod request;
pub(crate) mod subcommand;
