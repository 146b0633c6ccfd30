//! gRPC channels: how the sentinel reaches other processes.
//!
//! Names are resolved at each connection, never kept: a process may come back at another address.

use std::error::Error;
use std::io;
use std::time::Duration;

use keyward_net::bus::{Bus, Encryption, SecretError, SecretSource};
use keyward_net::tls::TlsError;
use keyward_proto::bus::Identity;
use tonic::transport::Endpoint;

use crate::config::{BusArguments, TlsArguments};

/// `host:port` with the options that every connection gets; `None` when it is not an address.
pub fn endpoint(address: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(
        endpoint
            .connect_timeout(Duration::from_millis(500))
            .http2_keep_alive_interval(Duration::from_millis(1000))
            .keep_alive_timeout(Duration::from_millis(1000))
            .keep_alive_while_idle(true),
    )
}

/// Why this process cannot take part in the cluster; one line.
#[derive(Debug, thiserror::Error)]
pub enum TakePartError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("tls-cluster: {0}")]
    Tls(#[from] TlsError),
}

/// The part of `me` in the cluster.
///
/// # Errors
/// [`TakePartError`]
pub(crate) fn bus(me: Identity, bus: &BusArguments, tls: &TlsArguments) -> Result<Bus, TakePartError> {
    let variable = |name: &str| std::env::var(name).ok();
    let source = SecretSource::find(bus.cluster_secret_file.as_deref(), variable)?;
    let encryption = bus.encrypts().then(|| Encryption::load(tls.options())).transpose()?;
    Ok(Bus::encrypted(me, source, encryption))
}

/// Whether a kernel refused the connection: nobody listens there any more.
pub fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        next = error.source();
    }
    false
}
