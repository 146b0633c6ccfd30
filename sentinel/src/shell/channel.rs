//! gRPC channels: how the sentinel reaches other processes.
//!
//! Names are resolved at each connection, never kept: a process may come back at another address.

use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// `host:port` with the options that every connection gets; `None` when it is not an address.
pub fn endpoint(address: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(
        endpoint
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_millis(1000))
            .keep_alive_timeout(Duration::from_millis(1000))
            .keep_alive_while_idle(true),
    )
}

/// A channel that connects when it is first used and again whenever the connection is lost.
pub fn lazy(address: &str) -> Option<Channel> {
    endpoint(address).map(|e| e.connect_lazy())
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
