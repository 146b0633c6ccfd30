//! New connections: who is let in, and the way to the thread that serves them.
//!
//! A connection to the TLS port shakes hands before a thread gets it, on threads of its own
//! ([`keyward_net::tls::handshakes`]). It is a client from the beginning: it counts for `maxclients`, and CLIENT LIST
//! and CLIENT KILL know it.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyward_net::linger::linger;
use keyward_net::stream::Stream;
use keyward_net::tls::handshakes::{HANDSHAKE_LIMIT, Room};
use keyward_net::tls::{Handshakes, Shaken};
use keyward_proto::crowd::{Crowd, CrowdLimits, Visitor};
use keyward_proto::topology::Transport;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock;
use crate::config::Settings;
use crate::io::clients::{Client, Clients};
use crate::io::threads::{Accepted, ThreadHandle};
use crate::server::Server;
use crate::stats::ThreadStats;

/// Refused clients that are given the time to read why; others are cut off.
const REFUSALS_MAX: usize = 16;
/// Of the administrators' port: who comes when there are more takes the place of the oldest.
const ADMINISTRATORS: CrowdLimits = CrowdLimits { all: 16, of_one_host: 8 };

/// Where new connections go.
#[derive(Debug)]
pub(crate) struct Entrance {
    server: Arc<Server>,
    threads: Vec<ThreadHandle>,
    /// Whose turn it is.
    next: AtomicUsize,
    handshakes: Handshakes,
    refusals: Arc<Semaphore>,
    /// Of all listeners: held for counting one connection.
    stats: Mutex<Arc<ThreadStats>>,
    /// Held while one is let in.
    administrators: Mutex<Administrators>,
}

/// Who came by the administrators' port.
#[derive(Debug)]
struct Administrators {
    crowd: Crowd,
    clients: BTreeMap<Visitor, Arc<Client>>,
}

impl Administrators {
    /// Lets it in, and ends whoever has to go for it.
    fn enter(&mut self, host: IpAddr, client: Arc<Client>, clients: &Clients) {
        let gone: Vec<Visitor> =
            self.clients.iter().filter(|(_, c)| clients.get(c.id).is_none()).map(|(v, _)| *v).collect();
        for visitor in gone {
            self.crowd.leave(visitor);
            self.clients.remove(&visitor);
        }
        let (visitor, displaced) = self.crowd.enter(host);
        if let Some(displaced) = displaced.and_then(|displaced| self.clients.remove(&displaced)) {
            tracing::info!(
                client = displaced.address,
                "closed: too many connections to admin-port, this was the oldest"
            );
            displaced.kill();
        }
        self.clients.insert(visitor, client);
    }
}

/// By which port a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Clients,
    Administrators,
}

/// Why a client is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooMany,
    /// Without a password only clients on this host are served.
    Protected,
}

impl Refusal {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Refusal::TooMany => "-ERR max number of clients reached\r\n",
            Refusal::Protected => {
                "-DENIED Keyward is running in protected mode: no password is set, so only clients on this host are \
                 served. Set a password with requirepass, or protected-mode no if every host that reaches this port \
                 is trusted.\r\n"
            }
        }
    }
}

impl Entrance {
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn new(server: &Arc<Server>, threads: Vec<ThreadHandle>) -> io::Result<Arc<Entrance>> {
        // Half as many as serve clients, so that a flood of handshakes leaves these their processors.
        let handshakes = Handshakes::start(threads.len() / 2)?;
        Ok(Arc::new(Entrance {
            server: Arc::clone(server),
            threads,
            next: AtomicUsize::new(0),
            handshakes,
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            stats: Mutex::new(server.stats.add_thread()),
            administrators: Mutex::new(Administrators {
                crowd: Crowd::new(ADMINISTRATORS),
                clients: BTreeMap::new(),
            }),
        }))
    }

    /// Accepts connections for ever.
    pub(crate) fn open(self: &Arc<Self>, listener: TcpListener, transport: Transport) -> JoinHandle<()> {
        let entrance = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                match transport {
                    Transport::Plain => {
                        if let Some((socket, peer)) = accepted(&listener).await {
                            entrance.take(socket, peer, Lane::Clients);
                        }
                    }
                    Transport::Tls => {
                        let room = entrance.handshakes.room().await;
                        if let Some((socket, peer)) = accepted(&listener).await {
                            entrance.take_encrypted(socket, peer, room);
                        }
                    }
                }
            }
        })
    }

    /// Accepts administrators for ever. They are clients like all others, but `maxclients` does not count for them.
    pub(crate) fn open_for_administrators(self: &Arc<Self>, listener: TcpListener) {
        let entrance = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Some((socket, peer)) = accepted(&listener).await {
                    entrance.take(socket, peer, Lane::Administrators);
                }
            }
        });
    }

    fn take(&self, socket: TcpStream, peer: SocketAddr, lane: Lane) {
        let settings = self.server.settings();
        if let Some(refusal) = refuse(&self.server, &settings, peer, lane) {
            self.stats.lock().rejected_connections.add(1);
            if let Err(error) = socket.try_write(refusal.text().as_bytes()) {
                tracing::debug!(%error, %peer, "refused");
            } else if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                tokio::spawn(let_read(socket, permit));
            }
            return;
        }
        self.stats.lock().connections.add(1);
        let Ok(socket) = prepare(socket, &settings) else { return };
        let client = self.add_client(&socket, peer, Transport::Plain);
        if lane == Lane::Administrators {
            self.server.clients.note_administrator(&client);
            let host = peer.ip().to_canonical();
            self.administrators.lock().enter(host, Arc::clone(&client), &self.server.clients);
        }
        self.hand_over(Accepted { socket, connection: None, client, user: None });
    }

    fn take_encrypted(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, room: Room) {
        let settings = self.server.settings();
        let refusal = refuse(&self.server, &settings, peer, Lane::Clients);
        match refusal {
            // To read why it would have to shake hands first, which costs more than to serve it.
            Some(Refusal::TooMany) => return self.stats.lock().rejected_connections.add(1),
            Some(Refusal::Protected) => self.stats.lock().rejected_connections.add(1),
            None => self.stats.lock().connections.add(1),
        }
        let Ok(socket) = prepare(socket, &settings) else { return };
        let client = self.add_client(&socket, peer, Transport::Tls);
        let entrance = Arc::clone(self);
        tokio::spawn(async move {
            let shaken = tokio::select! {
                shaken = entrance.shake(socket, room) => shaken,
                () = killed(&client) => Err(io::Error::other("it was killed")),
            };
            match shaken {
                Ok(shaken) => {
                    entrance.server.tls.note_handshake();
                    entrance.greet(shaken, client, refusal).await;
                }
                Err(error) => {
                    entrance.server.tls.note_failure(&client.address, &explained(&error));
                    entrance.server.clients.remove(client.id);
                }
            }
        });
    }

    async fn shake(&self, socket: std::net::TcpStream, room: Room) -> io::Result<Shaken> {
        let material =
            self.server.tls.material().ok_or_else(|| io::Error::other("no certificate is loaded"))?;
        self.handshakes.shake(socket, Arc::clone(material.client_facing()), room).await
    }

    /// After the handshake.
    async fn greet(&self, shaken: Shaken, client: Arc<Client>, refusal: Option<Refusal>) {
        let Shaken { socket, connection } = shaken;
        if let Some(refusal) = refusal {
            if let Ok(socket) = TcpStream::from_std(socket) {
                let mut stream = Stream::encrypted(socket, connection);
                let told = async {
                    stream.write_all(refusal.text().as_bytes()).await?;
                    stream.flush().await
                };
                if let Ok(Ok(())) = timeout(HANDSHAKE_LIMIT, told).await {
                    stream.linger().await;
                }
            }
            self.server.clients.remove(client.id);
            return;
        }
        let settings = self.server.settings();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let user = certificate.and_then(|c| self.server.tls.user_of(&settings, c));
        self.hand_over(Accepted { socket, connection: Some(Box::new(connection)), client, user });
    }

    fn add_client(
        &self,
        socket: &std::net::TcpStream,
        peer: SocketAddr,
        transport: Transport,
    ) -> Arc<Client> {
        let local = socket.local_addr().map_or_else(|_| String::new(), |a| a.to_string());
        self.server.clients.add(peer.to_string(), local, transport, clock::monotonic())
    }

    /// To the threads in turn.
    fn hand_over(&self, accepted: Accepted) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        if let Err(accepted) = self.threads[number].send(accepted) {
            self.server.clients.remove(accepted.client.id);
        }
    }
}

pub(crate) async fn accepted(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "can't accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Ends when the client is killed.
async fn killed(client: &Client) {
    while !client.is_killed() {
        client.wake.notified().await;
    }
}

/// Why a handshake has failed, in words for those that operators will meet.
fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            format!("the handshake was not done within {} seconds", HANDSHAKE_LIMIT.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "the client left before the handshake was done".to_owned(),
        io::ErrorKind::InvalidData if error.to_string().contains("InvalidContentType") => {
            "what came is not TLS: does the client use TLS?".to_owned()
        }
        _ => error.to_string(),
    }
}

/// What a refused client has already sent would otherwise reset the connection before it reads why.
async fn let_read(mut stream: TcpStream, permit: OwnedSemaphorePermit) {
    linger(&mut stream).await;
    drop(permit);
}

pub(crate) fn prepare(stream: TcpStream, settings: &Settings) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    if let Some(time) = settings.tcp_keepalive {
        let keepalive = socket2::TcpKeepalive::new().with_time(time).with_interval(time / 3).with_retries(3);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(stream)
}

fn refuse(server: &Server, settings: &Settings, peer: SocketAddr, lane: Lane) -> Option<Refusal> {
    if lane == Lane::Clients && settings.maxclients <= server.clients.len_without_administrators() {
        return Some(Refusal::TooMany);
    }
    protected(settings, peer)
}

/// Whether `protected-mode` keeps this host out.
pub(crate) fn protected(settings: &Settings, peer: SocketAddr) -> Option<Refusal> {
    let open = settings.protected_mode && settings.users.default_user().has_no_password();
    let loopback = match peer.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    };
    (open && !loopback).then_some(Refusal::Protected)
}

/// Listens at this port on all `bind` addresses; zero is not "any port" but none.
///
/// # Errors
/// One line for the operator.
pub(crate) fn listen_all(settings: &Settings, port: u16) -> Result<Vec<std::net::TcpListener>, String> {
    let mut listeners = Vec::new();
    for address in settings.bind.iter().filter(|_| port != 0) {
        listeners.extend(listen(address, port, settings.tcp_backlog)?);
    }
    Ok(listeners)
}

/// Listens on one `bind` word; one with a leading `-` may be missing on this host.
fn listen(address: &str, port: u16, backlog: i32) -> Result<Option<std::net::TcpListener>, String> {
    let (address, optional) = match address.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (address, false),
    };
    let ip = match address {
        "*" => "0.0.0.0",
        "::*" => "::",
        other => other,
    };
    match bind(ip, port, backlog) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if optional => {
            tracing::debug!(address, %error, "optional address is not available");
            Ok(None)
        }
        Err(error) => Err(format!("can't listen on {address}:{port}: {error}")),
    }
}

/// A listening socket for the runtime.
///
/// # Errors
/// The system's.
pub(crate) fn bind(ip: &str, port: u16, backlog: i32) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let ip: IpAddr = ip.parse().map_err(|_| io::Error::other("not an IP address"))?;
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
