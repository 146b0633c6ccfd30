//! The bus: gRPC between nodes and sentinels, over connections whose both ends know the cluster's secret.
//!
//! The rules are those of [`keyward_proto::bus`].
//! - `secrets`: where the secret comes from, and that it may change
//! - `connect`: the side that opens a connection
//! - `accept`: the side that is called, and how much strangers can take of it
//! - `encryption` and `line`: TLS, and a connection with or without it
//! - `rights`: the look at each call before its message is decoded

mod accept;
mod connect;
mod encryption;
mod line;
mod rights;
mod secrets;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::bus::{Identity, Peer, Secrets};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::tls::TlsOptions;

pub use accept::Accepted;
pub use connect::refusal;
pub use encryption::Encryption;
pub use rights::{Rights, caller_of, denied};
pub use secrets::{SecretError, SecretSource};

/// A kernel that answers nothing any more is found out by probes: between two, and in all.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBES: u32 = 2;

/// How one process takes part: who it is, and what it proves that with.
#[derive(Debug, Clone)]
pub struct Bus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: Identity,
    source: Option<SecretSource>,
    encryption: Option<Encryption>,
}

impl Bus {
    /// Without a secret only this machine is served.
    pub fn new(me: Identity, source: Option<SecretSource>) -> Bus {
        Bus::encrypted(me, source, None)
    }

    /// With encryption a secret is not needed: certificates prove what it does.
    pub fn encrypted(me: Identity, source: Option<SecretSource>, encryption: Option<Encryption>) -> Bus {
        Bus(Arc::new(Inner { me, source, encryption }))
    }

    /// What new connections are encrypted with, if they are.
    pub fn use_tls(&self, options: TlsOptions) {
        if let Some(encryption) = &self.0.encryption {
            encryption.use_options(options);
        }
    }

    /// Whether whoever reaches it may do all.
    pub fn is_open(&self) -> bool {
        self.0.source.is_none() && self.0.encryption.is_none()
    }

    /// What both sides of a connection prove to know; `None`: nothing.
    fn secrets(&self) -> Option<Secrets> {
        let without = || self.0.encryption.as_ref().map(|_| Secrets::of_certificates());
        self.0.source.as_ref().map(SecretSource::current).or_else(without)
    }
}

/// Who is at the other end of a connection; among the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: Peer,
    pub address: SocketAddr,
}

/// Messages leave at once, and a dead machine is noticed.
fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    let probes = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY).with_retries(PROBES);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&probes)
}
