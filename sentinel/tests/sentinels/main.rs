//! Groups of sentinels in one process, with nodes that are fake, over real sockets. One program: each would compile the
//! consensus once more.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "the tests spawn servers and wait with deadlines")]

mod group;
mod harness;
mod questions;
mod sentinel_api;
