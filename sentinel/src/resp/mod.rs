//! The Sentinel API.
pub mod server;
