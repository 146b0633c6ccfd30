//! Who may say what over the bus ports, where nodes and sentinels talk to each other.
//!
//! Whoever opens a connection first proves that it knows the cluster's secret, and says who it is ([`handshake`]); what it
//! may call then depends on that ([`rights`]). Until the proof nothing but its few bytes is read or kept. Without a secret
//! only processes of the same machine are let in, and may do all ([`exposure`]).
//!
//! The other side is known by its connection from then on: what arrives over it is not proven again. Whoever can write into
//! other people's connections is kept out by TLS alone.

pub mod exposure;
pub mod handshake;
pub mod rights;
pub mod secret;

pub use rights::{Identity, Peer};
pub use secret::Secrets;
