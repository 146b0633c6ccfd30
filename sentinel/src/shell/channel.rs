//! gRPC channels: how the sentinel reaches other processes.
//!
//! Names are resolved at each connection, never kept: a process may come back at another address.

use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::transport::Endpoint;

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
