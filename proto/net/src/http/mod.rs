//! HTTP on a port of its own, with a bound on the number of connections, their time and what is read of them, so that such
//! a port takes nothing away from the others.
//!
//! A question is one connection. Who comes when there are too many takes the place of who has been there for longest: an
//! answer takes no time, and whoever is silent must not keep others out. Whoever answers may [`Guest::stay`], if it bounds
//! such connections itself. Who does not take what is sent to it is closed ([`Steady`](steady::Steady)).

#![allow(clippy::disallowed_methods, reason = "a shell")]

mod steady;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use keyward_proto::crowd::CrowdLimits;
use keyward_proto::topology::Transport;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::crowd::{Visit, Visitors};
use crate::stream::Stream;
use steady::Steady;

/// Connections that nobody has let stay.
const CONNECTIONS: CrowdLimits = CrowdLimits { all: 64, of_one_host: 32 };
/// For a whole connection, and for somebody who takes nothing of what is sent.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Of the first line and the headers; more is answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// How what comes in becomes a stream of bytes.
pub trait Door: Send + Sync + 'static {
    fn open(&self, socket: TcpStream) -> impl Future<Output = io::Result<Stream>> + Send;
}

/// Without encryption.
#[derive(Debug)]
pub struct PlainDoor;

impl Door for PlainDoor {
    async fn open(&self, socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        Ok(Stream::Plain(socket))
    }
}

/// Who asks: in the extensions of each request.
#[derive(Debug, Clone)]
pub struct Guest {
    pub address: IpAddr,
    pub transport: Transport,
    /// Until it may stay. Held for a line.
    visit: Arc<Mutex<Option<Visit>>>,
}

impl Guest {
    /// Neither makes room for others any more nor has to end soon.
    pub fn stay(&self) {
        drop(self.visit.lock().take());
    }

    /// Nobody between here and there can read what is said.
    pub fn is_private(&self) -> bool {
        self.transport == Transport::Tls || self.address.is_loopback()
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, door: Arc<impl Door>, routes: Router) {
    let mut open = Visitors::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                let (door, routes) = (Arc::clone(&door), routes.clone());
                _ = open.spawn(address.ip(), |visit| async move {
                    if let Err(error) = receive(&*door, socket, address, visit, routes).await {
                        tracing::debug!(%error, "a question over HTTP broke off");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept on a port for HTTP");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Whatever this waits for ends with the patience, unless the guest may stay.
async fn receive(
    door: &impl Door,
    socket: TcpStream,
    address: SocketAddr,
    visit: Visit,
    routes: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let visit = Arc::new(Mutex::new(Some(visit)));
    let answered = async {
        let stream = door.open(socket).await?;
        let transport = if matches!(stream, Stream::Plain(_)) { Transport::Plain } else { Transport::Tls };
        let address = address.ip().to_canonical();
        answer(stream, Guest { address, transport, visit: Arc::clone(&visit) }, routes).await?;
        Ok(())
    };
    let expired = async {
        sleep(PATIENCE).await;
        if visit.lock().is_none() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        answered = answered => answered,
        () = expired => Err("it took too long".into()),
    }
}

async fn answer(stream: Stream, guest: Guest, routes: Router) -> hyper::Result<()> {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(guest.clone());
        routes.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Steady::new(stream, PATIENCE)), service)
        .await
}
