//! A connection that a program makes as a client of another, encrypted or not.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::{Material, PeerNames, ServerName, TlsConnector};

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Shakes hands as a client with a process of this cluster, which is reached by `host`.
///
/// # Errors
/// The certificates cannot be used, or the other side does not agree.
pub async fn encrypt(socket: TcpStream, host: &str, material: &Material) -> io::Result<Box<dyn Duplex>> {
    let config = material.peer_client(PeerNames::Unchecked, &[]).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, socket).await?))
}
