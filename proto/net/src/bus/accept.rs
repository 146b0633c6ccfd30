//! The side that is called.
//!
//! What a stranger can take: a connection until the handshake is over, for [`PATIENCE`] at most, within [`STRANGERS`]. Who
//! comes when there are too many takes the place of who is silent for longest, so nobody who cannot prove anything keeps
//! out who can, unless hundreds of connections come within the milliseconds that a handshake takes.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use keyward_proto::bus::handshake::{CLAIM_HEAD_BYTES, claim_body_bytes, greeting, judge, refusal};
use keyward_proto::bus::{Peer, Secrets};
use keyward_proto::crowd::CrowdLimits;
use keyward_proto::peer::{Complaints, Trouble};
use parking_lot::Mutex;
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::encryption::{Encryption, certificate_names};
use super::line::Line;
use super::{Bus, Caller, set_options};
use crate::clock::monotonic;
use crate::crowd::{Displaced, Visitors};
use crate::tls::failures::{ALERT, is_hello};

/// A handshake takes two messages of each side.
const PATIENCE: Duration = Duration::from_secs(2);
const STRANGERS: CrowdLimits = CrowdLimits { all: 512, of_one_host: 32 };
/// Proven connections that nobody has taken yet.
const WAITING_MAX: usize = 64;
/// After an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection, and who is at its other end.
#[derive(Debug)]
pub struct Accepted {
    line: Line,
    caller: Caller,
}

impl Bus {
    /// Connections of those who have proven themselves, for as long as the result is kept; call it on a runtime.
    pub fn incoming(&self, listener: TcpListener) -> ReceiverStream<io::Result<Accepted>> {
        let (accepted, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(accept(self.clone(), listener, accepted));
        ReceiverStream::new(receiver)
    }
}

/// What was said of handshakes that failed; held for a few lines at a time.
#[derive(Debug, Clone, Default)]
struct Refusals(Arc<Mutex<Complaints>>);

impl Refusals {
    fn tell(&self, ip: IpAddr, words: &str) {
        if self.0.lock().is_due(monotonic(), &Trouble::Says(words.to_owned())) {
            tracing::warn!("a connection from {ip} to the bus port is refused: {words}");
        }
    }
}

async fn accept(bus: Bus, listener: TcpListener, accepted: mpsc::Sender<io::Result<Accepted>>) {
    let (mut strangers, refusals) = (Visitors::new(STRANGERS), Refusals::default());
    loop {
        let (stream, address) = tokio::select! {
            connection = listener.accept() => match connection {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, "accept on the bus port");
                    sleep(PAUSE).await;
                    continue;
                }
            },
            () = accepted.closed() => return,
        };
        let ip = address.ip().to_canonical();
        let (bus, accepted, told) = (bus.clone(), accepted.clone(), refusals.clone());
        let displaced = strangers.spawn(ip, |visit| async move {
            let result = timeout(PATIENCE, bus.receive(stream, address)).await;
            match result {
                Ok(Ok(connection)) => {
                    drop(visit);
                    // Nobody takes it: the server ends.
                    _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err(Unwelcome::Refused(words))) => told.tell(ip, words),
                Ok(Err(Unwelcome::Broken(error))) => tracing::debug!(%ip, %error, "a handshake broke off"),
                Err(_) => told.tell(ip, "it says nothing"),
            }
        });
        if displaced == Displaced::Another {
            refusals.tell(ip, "others have not proven anything yet, and the oldest of them made room for it");
        }
    }
}

enum Unwelcome {
    Refused(&'static str),
    Broken(io::Error),
}

impl From<io::Error> for Unwelcome {
    fn from(error: io::Error) -> Unwelcome {
        Unwelcome::Broken(error)
    }
}

const EXPOSED: &str = "this process has no cluster secret (cluster-secret-file, or tls-cluster) and serves its own machine only";

impl Bus {
    async fn receive(&self, stream: TcpStream, address: SocketAddr) -> Result<Accepted, Unwelcome> {
        set_options(&stream)?;
        let mut line = match &self.0.encryption {
            Some(encryption) => Line::Encrypted(Box::new(encrypt(encryption, stream).await?)),
            None => Line::Plain(stream),
        };
        let peer = match self.secrets() {
            Some(secrets) => prove(&mut line, &secrets).await?,
            None if address.ip().to_canonical().is_loopback() => Peer::Local,
            None => return Err(Unwelcome::Refused(EXPOSED)),
        };
        Ok(Accepted { line, caller: Caller { peer, address } })
    }
}

/// The begin of TLS. It says itself what was wrong with a certificate.
async fn encrypt(encryption: &Encryption, mut stream: TcpStream) -> Result<TlsStream<TcpStream>, Unwelcome> {
    let mut first = [0; 2];
    if stream.peek(&mut first).await? == first.len() && !is_hello(&first) {
        // Whoever wonders what is spoken here sees it by this; what it has sent is taken, so that it does.
        _ = stream.read(&mut [0; 1024]).await?;
        stream.write_all(&ALERT).await?;
        return Err(Unwelcome::Refused("it does not speak TLS (tls-cluster)"));
    }
    encryption.accept(stream).await.map_err(|error| {
        tracing::debug!(%error, "a handshake of TLS failed");
        Unwelcome::Refused("its certificate is not of this cluster, or it has another version of TLS")
    })
}

/// The server's part of the handshake.
async fn prove(stream: &mut Line, secrets: &Secrets) -> Result<Peer, Unwelcome> {
    let nonce = rand::rng().random();
    stream.write_all(&greeting(&nonce)).await?;
    stream.flush().await?;
    let mut head = [0; CLAIM_HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    if head == *b"PR" {
        // The begin of HTTP/2: a process without a secret. It has got the greeting for an answer.
        let words = "it has no cluster secret (cluster-secret-file, KEYWARD_CLUSTER_SECRET)";
        stream.write_all(&refusal(words)).await?;
        stream.flush().await?;
        return Err(Unwelcome::Refused(words));
    }
    let mut body = vec![0; claim_body_bytes(head)];
    stream.read_exact(&mut body).await?;
    let verdict = judge(&nonce, head, &body, secrets);
    if let (Line::Encrypted(stream), Ok(claimed)) = (&mut *stream, &verdict.peer)
        && !certificate_names(stream, claimed)
    {
        let words = "its certificate names somebody else";
        stream.write_all(&refusal(words)).await?;
        stream.flush().await?;
        return Err(Unwelcome::Refused(words));
    }
    stream.write_all(&verdict.bytes).await?;
    stream.flush().await?;
    verdict.peer.map(Peer::Proven).map_err(Unwelcome::Refused)
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.line.is_write_vectored()
    }
}
