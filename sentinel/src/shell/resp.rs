//! Accepts clients of the Sentinel API, and sends events to those that subscribe.
#![allow(clippy::disallowed_methods, reason = "shell: a task per connection")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use keyward_net::clock::{monotonic as now, unix_seconds};
use keyward_net::http;
use keyward_net::stream::Stream;
use keyward_net::tls::failures::{ALERT, is_hello};
use keyward_net::tls::handshakes::Room;
use keyward_net::tls::{HandshakeFailures, Handshakes, Material, Shaken, TlsError};
use keyward_proto::ids::ShardId;
use keyward_proto::resp::{HTTP_WARNING, HttpWarnings};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Transport;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::rules::admin::done;
use crate::rules::sentinel_api::command::{AfterReply, Session};
use crate::rules::sentinel_api::conversation::{Admission, Conversation, Step, TOO_MANY, admit};
use crate::rules::sentinel_api::instances::View;
use crate::shell::control::{ADMIN_LIMIT, admin};
use crate::shell::sentinel::Sentinel;

/// A subscriber that does not read is disconnected.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Counters {
    open: AtomicUsize,
    accepted: AtomicU64,
    commands: AtomicU64,
    /// Held for a line.
    http_warnings: Mutex<HttpWarnings>,
    /// Of clients that use TLS at the port without.
    misplaced: Mutex<HandshakeFailures>,
    started: Monotonic,
}

/// Where clients connect.
#[derive(Debug)]
pub(crate) enum Door {
    Plain(TcpListener),
    Tls(TcpListener, Arc<Tls>),
}

/// Certificates, and the threads that shake hands.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Held for a look.
    material: Mutex<Arc<Material>>,
    handshakes: Handshakes,
    failures: Mutex<HandshakeFailures>,
}

impl Tls {
    /// # Errors
    /// One line for the operator.
    pub(crate) fn start(config: &Config) -> Result<Tls, TlsError> {
        let handshakes =
            Handshakes::start(1).map_err(|e| TlsError(format!("no thread for handshakes: {e}")))?;
        Ok(Tls { material: Mutex::new(load(config)?), handshakes, failures: Mutex::default() })
    }

    fn note_failure(&self, peer: SocketAddr, error: &io::Error) {
        if let Some(untold) = self.failures.lock().note(now()) {
            warn!(%peer, untold, "Error accepting a client connection: {error}");
        }
    }
}

fn load(config: &Config) -> Result<Arc<Material>, TlsError> {
    Material::load(config.options.tls.options(), unix_seconds()).map(Arc::new)
}

/// Loads certificates anew when their files have changed, for ever.
pub(crate) async fn reload(sentinel: Arc<Sentinel>, tls: Arc<Tls>) {
    let every = sentinel.config.options.tls.tls_auto_reload_interval;
    if every == 0 {
        return;
    }
    let mut refused = String::new();
    loop {
        sleep(Duration::from_secs(every)).await;
        if !tls.material.lock().clone().files_have_changed() {
            continue;
        }
        match load(&sentinel.config) {
            Ok(material) => {
                info!(serial = material.server_certificate().serial, "TLS certificates are loaded anew");
                *tls.material.lock() = material;
                refused.clear();
            }
            Err(error) if error.0 != refused => {
                warn!("TLS certificates have changed and are not used, those of before are: {error}");
                refused = error.0;
            }
            Err(_) => {}
        }
    }
}

/// Serves until the task is dropped.
pub(crate) async fn serve(sentinel: Arc<Sentinel>, doors: Vec<Door>) {
    let counters = Arc::new(Counters {
        open: AtomicUsize::new(0),
        accepted: AtomicU64::new(0),
        commands: AtomicU64::new(0),
        http_warnings: Mutex::default(),
        misplaced: Mutex::default(),
        started: now(),
    });
    let mut open = tokio::task::JoinSet::new();
    for door in doors {
        open.spawn(accept(sentinel.clone(), counters.clone(), door));
    }
    while open.join_next().await.is_some() {}
}

async fn accept(sentinel: Arc<Sentinel>, counters: Arc<Counters>, door: Door) {
    let (listener, tls) = match door {
        Door::Plain(listener) => (listener, None),
        Door::Tls(listener, tls) => (listener, Some(tls)),
    };
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let room = match &tls {
            Some(tls) => Some(tls.handshakes.room().await),
            None => None,
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                warn!(error = %e, "cannot accept a client");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (sentinel, counters) = (sentinel.clone(), counters.clone());
        let encryption = tls.clone().zip(room);
        connections.spawn(async move {
            let open = counters.open.fetch_add(1, Ordering::Relaxed);
            let ended = match encryption {
                None => converse(&sentinel, &counters, Stream::Plain(stream), peer, open).await,
                Some((tls, room)) => match shake(&tls, stream, room).await {
                    Ok(stream) => converse(&sentinel, &counters, stream, peer, open).await,
                    Err(error) => {
                        tls.note_failure(peer, &error);
                        Ok(())
                    }
                },
            };
            if let Err(e) = ended {
                debug!(%peer, error = %e, "client disconnected");
            }
            counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl http::Door for Tls {
    async fn open(&self, socket: TcpStream) -> io::Result<Stream> {
        let peer = socket.peer_addr()?;
        let room = self.handshakes.room().await;
        shake(self, socket, room).await.inspect_err(|error| self.note_failure(peer, error))
    }
}

async fn shake(tls: &Tls, stream: TcpStream, room: Room) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    let config = tls.material.lock().client_facing().clone();
    let Shaken { socket, connection } = tls.handshakes.shake(stream.into_std()?, config, room).await?;
    Ok(Stream::encrypted(TcpStream::from_std(socket)?, connection))
}

async fn converse(
    sentinel: &Arc<Sentinel>,
    counters: &Counters,
    mut stream: Stream,
    peer: SocketAddr,
    open: usize,
) -> io::Result<()> {
    let admission = admit(open);
    if admission != Admission::Served {
        stream.write_all(TOO_MANY).await?;
        if admission == Admission::Refused {
            stream.linger().await;
        }
        return Ok(());
    }
    let transport = match &stream {
        Stream::Plain(socket) => {
            socket.set_nodelay(true)?;
            Transport::Plain
        }
        Stream::Tls(_) => Transport::Tls,
    };
    let id = counters.accepted.fetch_add(1, Ordering::Relaxed) + 1;
    let password = sentinel.config.options.requirepass.as_deref();
    let mut conversation = Conversation::new(Session::new(id, peer.to_string(), transport, now(), password));
    let (mut events, mut output) = (sentinel.events.subscribe(), BytesMut::new());
    loop {
        tokio::select! {
            read = stream.read_buf(&mut conversation.input) => if read? == 0 {
                stream.say_goodbye();
                return Ok(());
            } else if transport == Transport::Plain && is_hello(&conversation.input) {
                return refuse_hello(counters, stream, peer).await;
            },
            event = events.recv() => match event {
                Ok(event) => conversation.deliver(&event, &mut output),
                Err(broadcast::error::RecvError::Lagged(missed)) if conversation.is_subscribed() => {
                    warn!(%peer, missed, "a subscriber is too slow");
                    return Ok(());
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
        loop {
            let execute = |session: &mut Session, args: &[Bytes], output: &mut BytesMut| {
                execute(sentinel, counters, session, args, output)
            };
            let step = conversation.step(&mut output, execute);
            match step {
                Step::FailOver(shard) => {
                    tokio::spawn(fail_over(sentinel.clone(), shard));
                }
                Step::Http => {
                    warn_of_http(counters, peer);
                    return Ok(());
                }
                Step::Send => send(&mut stream, &mut output).await?,
                Step::Wait => {
                    send(&mut stream, &mut output).await?;
                    break;
                }
                Step::Close => {
                    send(&mut stream, &mut output).await?;
                    stream.linger().await;
                    return Ok(());
                }
            }
        }
    }
}

/// A client that uses TLS at the port without is told in its own words.
async fn refuse_hello(counters: &Counters, mut stream: Stream, peer: SocketAddr) -> io::Result<()> {
    if let Some(untold) = counters.misplaced.lock().note(now()) {
        warn!(%peer, untold, "Error accepting a client connection: it uses TLS at the port without TLS");
    }
    stream.write_all(&ALERT).await?;
    stream.linger().await;
    Ok(())
}

fn warn_of_http(counters: &Counters, peer: SocketAddr) {
    if counters.http_warnings.lock().is_due(now()) {
        warn!(%peer, "{HTTP_WARNING}");
    }
}

/// Sends what has been written so far.
async fn send(stream: &mut Stream, output: &mut BytesMut) -> io::Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    let sent = async {
        stream.write_all(output).await?;
        stream.flush().await
    };
    timeout(WRITE_LIMIT, sent).await.map_err(io::Error::from)??;
    output.clear();
    Ok(())
}

fn execute(
    sentinel: &Sentinel,
    counters: &Counters,
    session: &mut Session,
    args: &[Bytes],
    output: &mut BytesMut,
) -> AfterReply {
    let commands_total = counters.commands.fetch_add(1, Ordering::Relaxed);
    let topology = sentinel.current();
    let options = &sentinel.config.options;
    let health = sentinel.health.lock();
    let view = View {
        topology: &topology,
        health: &health,
        now: now(),
        own_id: sentinel.id(),
        own_name: &options.name,
        port: sentinel.config.main_port(),
        transport: session.transport(),
        has_leader: sentinel.leader().is_some(),
        hosts: options.announce_hostnames,
        down_after: Duration::from_millis(options.down_after_milliseconds),
        failover_in_progress: sentinel.changes_primary.load(Ordering::Relaxed),
        started: counters.started,
        connections: counters.open.load(Ordering::Relaxed),
        process_id: std::process::id(),
        connections_total: counters.accepted.load(Ordering::Relaxed),
        commands_total,
    };
    session.execute(&view, options.requirepass.as_deref(), args, output)
}

/// SENTINEL FAILOVER answers at once; the outcome is in the log and in the events.
async fn fail_over(sentinel: Arc<Sentinel>, shard: ShardId) {
    let command = rpc::FailoverCommand { shard: shard.to_string(), target: String::new() };
    let command = admin_request::Command::Failover(command);
    match admin::at_leader(&sentinel, command, ADMIN_LIMIT).await.map(done) {
        Ok(Ok(_)) => {}
        Ok(Err(reason)) => warn!(%shard, reason, "SENTINEL FAILOVER failed"),
        Err(status) => warn!(%shard, reason = status.message(), "SENTINEL FAILOVER failed"),
    }
}
