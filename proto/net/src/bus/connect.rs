//! The side that opens a connection.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use keyward_proto::bus::handshake::{
    CLAIM_HEAD_BYTES, Claiming, Failure, GREETING_BYTES, MAGIC, VERDICT_HEAD_BYTES, verdict_body_bytes,
};
use keyward_proto::peer::split_address;
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use super::line::Line;
use super::{Bus, set_options};

impl Bus {
    /// Connects, and proves who this is. The name is resolved now; the endpoint's limit of time holds for all of it.
    ///
    /// # Errors
    /// As gRPC says it; [`refusal`] has the other side's words.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(Connector(self.clone())).await
    }

    /// Connects when it is first used, and again whenever the connection is lost.
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(Connector(self.clone()))
    }

    async fn open(&self, uri: &Uri) -> io::Result<Line> {
        let address = uri.authority().map(|a| a.as_str()).and_then(split_address);
        let (host, port) = address.ok_or_else(|| io::Error::other("not host:port"))?;
        let stream = TcpStream::connect((host, port)).await?;
        set_options(&stream)?;
        let mut line = match &self.0.encryption {
            Some(encryption) => Line::Encrypted(Box::new(encryption.connect(host, stream).await?)),
            None => Line::Plain(stream),
        };
        self.introduce(&mut line).await?;
        Ok(line)
    }

    /// The client's part of the handshake.
    async fn introduce(&self, stream: &mut Line) -> io::Result<()> {
        let Some(secrets) = self.secrets() else { return Ok(()) };
        let refused = |failure: Failure| io::Error::new(io::ErrorKind::PermissionDenied, failure);
        let mut greeting = [0; GREETING_BYTES];
        // Of another server the first few bytes tell, and there may be no more.
        let (start, rest) = greeting.split_at_mut(CLAIM_HEAD_BYTES);
        stream.read_exact(start).await?;
        if !MAGIC.starts_with(start) {
            return Err(refused(Failure::NoGreeting));
        }
        stream.read_exact(rest).await?;
        let nonce = rand::rng().random();
        let (claim, claiming) = Claiming::answer(&greeting, &self.0.me, &nonce, &secrets).map_err(refused)?;
        stream.write_all(&claim).await?;
        stream.flush().await?;
        let mut head = [0; VERDICT_HEAD_BYTES];
        stream.read_exact(&mut head).await?;
        let mut body = vec![0; verdict_body_bytes(head)];
        stream.read_exact(&mut body).await?;
        claiming.conclude(head, &body).map_err(refused)
    }
}

/// Why the other side of a connection did not want it, or was not wanted, in words.
pub fn refusal(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Some(failure.to_string());
        }
        // `io::Error` shows what is in it as itself.
        let inner = error.downcast_ref::<io::Error>().and_then(|io| io.get_ref());
        if let Some(failure) = inner.and_then(|inner| inner.downcast_ref::<Failure>()) {
            return Some(failure.to_string());
        }
        let alert = error.downcast_ref::<rustls::Error>().or(inner.and_then(|inner| inner.downcast_ref()));
        if let Some(alert) = alert {
            return Some(format!("no connection by TLS (tls-cluster): {alert}"));
        }
        next = error.source();
    }
    None
}

/// What gRPC opens its connections with.
#[derive(Clone)]
struct Connector(Bus);

impl Service<Uri> for Connector {
    type Response = TokioIo<Line>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Line>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let bus = self.0.clone();
        Box::pin(async move { bus.open(&uri).await.map(TokioIo::new) })
    }
}
