//! What `keyward-node` and `keyward-sentinel` must agree on.
//!
//! - [`slot`]: hash slots and hash tags
//! - [`glob`]: patterns of channel and key names
//! - [`bus`]: who may say what over the bus ports, and how that is proven
//! - [`conf_kind`]: what a file is that was given as a configuration and is none
//! - [`crowd`]: who makes room when too many are there that are not known yet
//! - [`flight`]: what a process remembers of its last minutes, and the file that shows it
//! - [`ids`]: identifiers and log positions
//! - [`entry`]: an entry of the write log, as nodes send and keep it
//! - [`format`](mod@format): of what processes say and keep, and which ones understand each other
//! - [`time`]: the two kinds of time
//! - [`mutation`]: deliberate bugs for the simulation, never in a release build
//! - [`peer`]: what is said when another process is not reached
//! - [`topology`]: who serves a slot, at which version
//! - [`resp`]: the request reader and the reply writer of the Redis protocol
//! - `rpc`: generated gRPC messages, clients and servers (feature `rpc`)
//!
//! Architecture invariant: nothing in here reads a clock, opens a socket or spawns a task.

pub mod bus;
pub mod conf_kind;
pub mod crowd;
pub mod entry;
pub mod flight;
pub mod format;
pub mod glob;
pub mod ids;
pub mod mutation;
pub mod peer;
pub mod repeats;
pub mod resp;
#[cfg(feature = "rpc")]
pub mod rpc;
pub mod slot;
pub mod time;
pub mod topology;

/// The version whose behaviour clients may expect.
pub const VALKEY_VERSION: &str = "9.1.2";
/// The last version of Redis that Valkey names.
pub const REDIS_VERSION: &str = "7.2.4";
