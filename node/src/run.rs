//! Starts a node and runs it until it is asked to end.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyward_net::linger::linger;
use keyward_proto::ids::LogIndex;
use rand::Rng;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::clock;
use crate::config::{Config, Settings};
use crate::control;
use crate::directory_lock::DirectoryLock;
use crate::io::threads::{Accepted, ThreadHandle};
use crate::server::Server;
use crate::supervision::{self, PidFile, State};

/// At the end what runs still on a thread of its own is given this time.
const LEFT_OVER_MAX: Duration = Duration::from_secs(5);
/// Refused clients that are given the time to read why; others are cut off.
const REFUSALS_MAX: usize = 16;

/// Runs the node; returns when it has ended in order.
///
/// # Errors
/// One line for the operator.
pub fn run(mut config: Config) -> Result<(), String> {
    tell_start(&config.settings()?);
    fit_maxclients(&mut config)?;
    let settings = config.settings()?;
    if !config.renames.is_empty() {
        crate::command::table::rename(config.renames.clone())?;
    }
    let idle = config.without_effect();
    if !idle.is_empty() {
        tracing::warn!("set, but without effect in this version: {}", idle.join(", "));
    }
    std::env::set_current_dir(&settings.dir)
        .map_err(|e| format!("can't chdir to '{}': {e}", settings.dir.display()))?;
    // Before any file is touched, and until the process ends.
    let lock = DirectoryLock::take(Path::new("."))?;
    if lock.is_held() {
        crate::snapshot::save::remove_unfinished();
    }
    let run_id: String = (0..20).map(|_| format!("{:02x}", rand::rng().random::<u8>())).collect();
    let server = Server::new(config, clock::Clock::System, clock::unix_millis(), clock::monotonic(), run_id)?;
    let control = control::runtime().map_err(|e| format!("can't start: {e}"))?;
    let ended = control.block_on(run_control(server, settings));
    // What waits for a script that does not end is not waited for.
    control.shutdown_timeout(LEFT_OVER_MAX);
    ended
}

/// The first line of the log: what was started, where, as what.
fn tell_start(settings: &Settings) {
    let mode = match (settings.sentinels.is_empty(), settings.cluster_enabled) {
        (true, _) => "alone".to_owned(),
        (false, false) => format!("one shard, with the sentinels {}", settings.sentinels.join(" ")),
        (false, true) => format!("cluster mode, with the sentinels {}", settings.sentinels.join(" ")),
    };
    let dir = std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone());
    tracing::info!(
        port = settings.port,
        "keyward-node {} starts: PID {}, folder {}, {mode}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        dir.display()
    );
}

/// No more clients than the system lets this process have files open.
fn fit_maxclients(config: &mut Config) -> Result<(), String> {
    let wanted = config.settings()?.maxclients;
    let allowed = crate::process::clients_allowed(wanted);
    if allowed == wanted {
        return Ok(());
    }
    if allowed == 0 {
        return Err("the limit of open files is too low to serve anybody: raise it ('ulimit -n')".into());
    }
    tracing::warn!(
        wanted,
        allowed,
        "maxclients is reduced: the limit of open files ('ulimit -n') is too low for more"
    );
    config.reduce_maxclients(allowed);
    Ok(())
}

async fn run_control(server: Arc<Server>, settings: Settings) -> Result<(), String> {
    let mut listeners = Vec::new();
    // Port 0 is not "any port".
    for address in settings.bind.iter().filter(|_| settings.port != 0) {
        listeners.extend(listen(address, &settings)?);
    }
    if listeners.is_empty() {
        return Err("Configured to not listen anywhere, exiting.".into());
    }
    let _pid_file = PidFile::write(&settings);
    if settings.sentinels.is_empty() {
        server.shared.gate.begin_standalone_loading();
    }
    let (threads, mut requests) = crate::io::threads::start(&server, settings.io_threads)
        .map_err(|e| format!("can't start I/O threads: {e}"))?;
    for listener in listeners {
        tokio::spawn(accept(listener, Arc::clone(&server), threads.clone()));
    }
    crate::cron::start(&server).map_err(|e| format!("can't start: {e}"))?;
    tokio::spawn(control::watch(Arc::clone(&server)));
    load_and_join(&server, &settings).await?;
    tracing::info!(port = settings.port, io_threads = settings.io_threads, "ready to accept connections");
    supervision::notify(State::Ready("Ready to accept connections"));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("can't handle SIGTERM: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("can't handle SIGINT: {e}"))?;
    loop {
        let options = tokio::select! {
            _ = terminate.recv() => server.settings().shutdown_on_sigterm,
            _ = interrupt.recv() => server.settings().shutdown_on_sigint,
            options = server.shutdown.requested() => options,
            Some(request) = requests.recv() => {
                tokio::spawn(crate::member::answer(Arc::clone(&server), request));
                continue;
            }
        };
        if server.shutdown.prepare(&server, options).await.is_ok() {
            supervision::notify(State::Stopping);
            let ending = Arc::clone(&server);
            let stopped = control::blocking(move || ending.aof.stop(&ending)).await;
            return stopped.map_err(|e| format!("can't end: {e}"));
        }
    }
}

/// Loads what the disk has, and takes part in the shard. Clients are told meanwhile that the node is loading.
async fn load_and_join(server: &Arc<Server>, settings: &Settings) -> Result<(), String> {
    let alone = settings.sentinels.is_empty();
    let identity = if alone { None } else { Some(crate::member::identity(settings)?) };
    let mut applied = LogIndex::ZERO;
    if settings.appendonly {
        let announcement = identity
            .as_ref()
            .filter(|_| crate::aof::has_data(settings))
            .map(|identity| crate::member::announce_loading(settings, identity));
        let (server, settings) = (Arc::clone(server), settings.clone());
        let loaded = control::blocking(move || crate::aof::start(&server, &settings)).await;
        announcement.inspect(AbortHandle::abort);
        applied = loaded.map_err(|e| format!("can't load: {e}"))??;
    } else if alone {
        warn_of_ignored_log(settings);
        let (server, settings) = (Arc::clone(server), settings.clone());
        let loaded = control::blocking(move || crate::rdb_load::load_dump(&server, &settings)).await;
        loaded.map_err(|e| format!("can't load: {e}"))??;
    } else {
        warn_of_ignored_dump(settings);
    }
    match identity {
        Some(identity) => {
            crate::aof::replaced::look_for_dump(server, settings);
            crate::member::join(server, settings, bus_listener(settings)?, identity, applied).await
        }
        None => {
            server.shared.gate.end_standalone_loading();
            Ok(())
        }
    }
}

/// A snapshot does not know which writes were acknowledged after it: a node that started from one must not win a
/// failover. It gets its data from its shard.
fn warn_of_ignored_dump(settings: &Settings) {
    if std::path::Path::new(&settings.dbfilename).exists() {
        tracing::warn!(
            file = settings.dbfilename,
            "not loaded: a node with sentinels gets its data from its shard"
        );
    }
}

/// As in Valkey; but whoever has switched `appendonly` off by mistake finds out.
fn warn_of_ignored_log(settings: &Settings) {
    let directory = std::path::Path::new(&settings.append_dirname);
    if directory.join(format!("{}.manifest", settings.append_filename)).exists() {
        tracing::warn!(directory = settings.append_dirname, "not loaded: 'appendonly' is off");
    }
}

/// gRPC listens on the first of the `bind` addresses.
fn bus_listener(settings: &Settings) -> Result<TcpListener, String> {
    let address = settings.bind.first().map_or("*", |a| a.trim_start_matches('-'));
    let ip = if address == "*" { "0.0.0.0" } else { address };
    // Sentinels are configured, and with them there is one.
    let port = settings.bus_port().unwrap_or(0);
    bind(ip, port, settings.tcp_backlog)
        .map_err(|e| format!("can't listen on {address}:{port} (bus-port): {e}"))
}

/// Listens on one `bind` word; one with a leading `-` may be missing on this host.
fn listen(address: &str, settings: &Settings) -> Result<Option<TcpListener>, String> {
    let (address, optional) = match address.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (address, false),
    };
    let ip = match address {
        "*" => "0.0.0.0",
        "::*" => "::",
        other => other,
    };
    match bind(ip, settings.port, settings.tcp_backlog) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if optional => {
            tracing::debug!(address, %error, "optional address is not available");
            Ok(None)
        }
        Err(error) => Err(format!("can't listen on {address}:{}: {error}", settings.port)),
    }
}

fn bind(ip: &str, port: u16, backlog: i32) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let ip: std::net::IpAddr = ip.parse().map_err(|_| std::io::Error::other("not an IP address"))?;
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, server: Arc<Server>, threads: Vec<ThreadHandle>) {
    let stats = server.stats.add_thread();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    for thread in threads.iter().cycle() {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let settings = server.settings();
        if let Some(refusal) = refuse(&server, &settings, peer) {
            stats.rejected_connections.add(1);
            if let Err(error) = stream.try_write(refusal.as_bytes()) {
                tracing::debug!(%error, %peer, "refused");
            } else if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(let_read(stream, permit));
            }
            continue;
        }
        stats.connections.add(1);
        let prepared = prepare(stream, &settings);
        let Ok(stream) = prepared else { continue };
        let local = stream.local_addr().map_or_else(|_| String::new(), |a| a.to_string());
        let client = server.clients.add(peer.to_string(), local, clock::monotonic());
        let authenticated = settings.requirepass.is_empty();
        if let Err(accepted) = thread.send(Accepted { stream, client, authenticated }) {
            server.clients.remove(accepted.client.id);
        }
    }
}

/// What a refused client has already sent would otherwise reset the connection before it reads why.
async fn let_read(mut stream: tokio::net::TcpStream, permit: OwnedSemaphorePermit) {
    linger(&mut stream).await;
    drop(permit);
}

fn prepare(stream: tokio::net::TcpStream, settings: &Settings) -> std::io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    if let Some(time) = settings.tcp_keepalive {
        let keepalive = socket2::TcpKeepalive::new().with_time(time).with_interval(time / 3).with_retries(3);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(stream)
}

fn refuse(server: &Server, settings: &Settings, peer: SocketAddr) -> Option<&'static str> {
    if settings.maxclients <= server.clients.len() {
        return Some("-ERR max number of clients reached\r\n");
    }
    let open = settings.protected_mode && settings.requirepass.is_empty();
    let loopback = match peer.ip() {
        std::net::IpAddr::V4(ip) => ip.is_loopback(),
        std::net::IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    };
    (open && !loopback).then_some(
        "-DENIED Keyward is running in protected mode: no password is set, so only clients on this host are served. \
         Set a password with requirepass, or protected-mode no if every host that reaches this port is trusted.\r\n",
    )
}
