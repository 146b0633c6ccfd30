//! Starts a node and runs it until it is asked to end.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyward_net::observe;
use keyward_proto::ids::LogIndex;
use keyward_proto::topology::Transport;
use rand::Rng;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{AbortHandle, JoinHandle};

use crate::admin::Request;
use crate::clock;
use crate::config::{Config, Settings};
use crate::control;
use crate::directory_lock::DirectoryLock;
use crate::io::accept::{Entrance, bind, listen_all};
use crate::metrics::Metrics;
use crate::server::Server;
use crate::supervision::{self, PidFile, State};

/// At the end what runs still on a thread of its own is given this time.
const LEFT_OVER_MAX: Duration = Duration::from_secs(5);

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
        tls_port = settings.tls_port,
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
    // Asks for a recording; whoever has none yet must not end of it.
    let _asked = signal(SignalKind::user_defined1()).map_err(|e| format!("can't handle SIGUSR1: {e}"))?;
    let mut tls_changes = server.tls.start(&settings)?;
    let plain = listen_all(&settings, settings.port)?;
    let encrypted = listen_all(&settings, settings.tls_port)?;
    if plain.is_empty() && encrypted.is_empty() {
        return Err("Configured to not listen anywhere, exiting.".into());
    }
    let _pid_file = PidFile::write(&settings);
    if settings.sentinels.is_empty() {
        server.shared.gate.begin_standalone_loading();
    }
    let (threads, mut requests) = crate::io::threads::start(&server, settings.io_threads)
        .map_err(|e| format!("can't start I/O threads: {e}"))?;
    let entrance =
        Entrance::new(&server, threads).map_err(|e| format!("can't start threads for TLS: {e}"))?;
    open(&entrance, plain, Transport::Plain)?;
    let mut tls_doors = open(&entrance, encrypted, Transport::Tls)?;
    tokio::spawn(crate::tls::reload(Arc::clone(&server)));
    crate::cron::start(&server).map_err(|e| format!("can't start: {e}"))?;
    tokio::spawn(control::watch(Arc::clone(&server)));
    let beside = |port: u16, directive: &str| {
        bind(first_ip(&settings), port, settings.tcp_backlog)
            .and_then(TcpListener::from_std)
            .map_err(|e| format!("can't listen on port {port} ({directive}): {e}"))
    };
    if settings.admin_port != 0 {
        entrance.open_for_administrators(beside(settings.admin_port, "admin-port")?);
    }
    if settings.metrics_port != 0 {
        let listener = beside(settings.metrics_port, "metrics-port")?;
        tokio::spawn(observe::serve(listener, Arc::new(Metrics(Arc::clone(&server)))));
    }
    let (forwarding, encrypted) = (settings.forwarding_port, settings.forwarding_tls_port);
    crate::forwarding::start(&server, listen_all(&settings, forwarding)?, listen_all(&settings, encrypted)?)
        .map_err(|e| format!("can't start the thread for forwarding: {e}"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("can't handle SIGTERM: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("can't handle SIGINT: {e}"))?;
    let mut later = Vec::new();
    {
        let mut loading = std::pin::pin!(load_and_join(&server, &settings));
        loop {
            tokio::select! {
                joined = &mut loading => break joined?,
                _ = terminate.recv() => return ended_while_loading(),
                _ = interrupt.recv() => return ended_while_loading(),
                Some(asked) = requests.recv() => match asked.request {
                    Request::Shutdown(_) => return ended_while_loading(),
                    _ => later.push(asked),
                },
            }
        }
    }
    for request in later {
        tokio::spawn(crate::member::answer(Arc::clone(&server), request));
    }
    tracing::info!(port = settings.port, io_threads = settings.io_threads, "ready to accept connections");
    supervision::notify(State::Ready("Ready to accept connections"));
    loop {
        let options = tokio::select! {
            _ = terminate.recv() => server.settings().shutdown_on_sigterm,
            _ = interrupt.recv() => server.settings().shutdown_on_sigint,
            options = server.shutdown.requested() => options,
            Some(listeners) = tls_changes.recv() => {
                tls_doors.iter().for_each(JoinHandle::abort);
                tls_doors = open(&entrance, listeners, Transport::Tls)?;
                continue;
            }
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

/// What is on the disk stays as it is: nothing was served yet.
fn ended_while_loading() -> Result<(), String> {
    tracing::info!("asked to end before it served anything");
    supervision::notify(State::Stopping);
    Ok(())
}

/// Accepts connections from now on.
fn open(
    entrance: &Arc<Entrance>,
    listeners: Vec<std::net::TcpListener>,
    transport: Transport,
) -> Result<Vec<JoinHandle<()>>, String> {
    let open = |listener| Ok(entrance.open(TcpListener::from_std(listener)?, transport));
    let opened: std::io::Result<_> = listeners.into_iter().map(open).collect();
    opened.map_err(|e| format!("can't accept connections: {e}"))
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

/// Other ports than that of clients are on the first of the `bind` addresses.
fn first_ip(settings: &Settings) -> &str {
    match settings.bind.first().map_or("*", |a| a.trim_start_matches('-')) {
        "*" => "0.0.0.0",
        address => address,
    }
}

fn bus_listener(settings: &Settings) -> Result<TcpListener, String> {
    let ip = first_ip(settings);
    // Sentinels are configured, and with them there is one.
    let port = settings.bus_port().unwrap_or(0);
    bind(ip, port, settings.tcp_backlog)
        .and_then(TcpListener::from_std)
        .map_err(|e| format!("can't listen on {ip}:{port} (bus-port): {e}"))
}
