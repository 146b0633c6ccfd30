//! Starts a sentinel and stops it: sockets, services, tasks.
#![allow(clippy::disallowed_methods, reason = "shell: spawns the tasks")]

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keyward_net::bus::{Bus, Rights};
use keyward_net::flight::Keeping;
use keyward_net::observe;
use keyward_net::tls::TlsError;
use keyward_proto::bus::Identity;
use keyward_proto::bus::exposure::{self, Exposed};
use keyward_proto::bus::rights::Role;
use keyward_proto::rpc::control_server::ControlServer;
use keyward_proto::rpc::raft_server::RaftServer;
use keyward_proto::topology::names::host_port;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::config::Config;
use crate::rules::admin_token::AdminToken;
use crate::rules::leadership::LeaderStory;
use crate::shell::bootstrap::{self, BootstrapError};
use crate::shell::channel;
use crate::shell::control::{ControlService, failover, watchdog};
use crate::shell::flight::Flight;
use crate::shell::metrics::Metrics;
use crate::shell::page;
use crate::shell::proposals;
use crate::shell::raft::network::MESSAGE_BYTES_MAX;
use crate::shell::raft::service::RaftService;
use crate::shell::raft::store::{OpenError, StateMachine, Store};
use crate::shell::resp::{self as resp_server, Door, Tls};
use crate::shell::sentinel::Sentinel;

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// Why a sentinel could not start or go on; one line.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot read the store: {0}")]
    Store(#[from] crate::shell::raft::store::StoreError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("Failed to configure TLS. {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    TakePart(#[from] channel::TakePartError),
    #[error(transparent)]
    Exposed(#[from] Exposed),
    #[error("{0:?} is no name for a sentinel: it has 1 to 64 characters")]
    Name(String),
    #[error("http-admin-token-file {0}: {1}")]
    Token(String, String),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("the bus stopped: {0}")]
    Bus(#[from] tonic::transport::Error),
}

/// Who this sentinel is to the others, and what it proves that with.
fn take_part(config: &Config) -> Result<Bus, RunError> {
    let options = &config.options;
    let me = Identity::new(Role::Sentinel, &options.name);
    let me = me.ok_or_else(|| RunError::Name(options.name.clone()))?;
    let bus = channel::bus(me, &options.bus, &options.tls)?;
    if bus.is_open() {
        let hosts = config.founders.iter().map(|founder| founder.host.as_str());
        exposure::check(hosts.chain([config.announce_host.as_str()]))?;
    }
    Ok(bus)
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, RunError> {
    let address = host_port(host, port);
    TcpListener::bind(&address).await.map_err(|source| RunError::Listen { address, source })
}

/// Opens the ports for clients.
async fn doors(config: &Config) -> Result<(Vec<Door>, Option<Arc<Tls>>), RunError> {
    let options = &config.options;
    let (mut doors, mut tls) = (Vec::new(), None);
    if options.tls_port != 0 || options.encrypts_page() {
        tls = Some(Arc::new(Tls::start(config)?));
    }
    if options.port != 0 {
        doors.push(Door::Plain(listen(&options.bind, options.port).await?));
    }
    if let Some(tls) = tls.as_ref().filter(|_| options.tls_port != 0) {
        doors.push(Door::Tls(listen(&options.bind, options.tls_port).await?, Arc::clone(tls)));
    }
    Ok((doors, tls))
}

/// The port for the page, its encryption, and the token of those who may act there.
async fn page_door(config: &Config, tls: Option<&Arc<Tls>>) -> Result<Option<PageDoor>, RunError> {
    let options = &config.options;
    if options.http_port == 0 {
        return Ok(None);
    }
    let token = match options.http_admin_token_file.clone().or_else(token_file_of_environment) {
        Some(file) => Some(read_token(&file)?),
        None => None,
    };
    let listener = listen(&options.bind, options.http_port).await?;
    let tls = tls.filter(|_| options.encrypts_page()).cloned();
    Ok(Some(PageDoor { listener, tls, token }))
}

fn token_file_of_environment() -> Option<PathBuf> {
    std::env::var_os("KEYWARD_HTTP_ADMIN_TOKEN_FILE").filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn read_token(file: &Path) -> Result<AdminToken, RunError> {
    let wrong = |reason: &dyn Display| RunError::Token(file.display().to_string(), reason.to_string());
    let text = std::fs::read(file).map_err(|error| wrong(&error))?;
    AdminToken::parse(&text).map_err(|reason| wrong(&reason))
}

#[derive(Debug)]
struct PageDoor {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    token: Option<AdminToken>,
}

/// Thousands of nodes and clients need more open files than many systems allow at first.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "the limit of open files stays as it is");
    }
}

/// Runs until `shutdown` is ready.
///
/// # Errors
/// [`RunError`]
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let dir = std::path::absolute(&config.options.dir).unwrap_or_else(|_| config.options.dir.clone());
    info!(
        port = config.options.port,
        tls_port = config.options.tls_port,
        bus_port = config.bus_port,
        "keyward-sentinel {} starts: PID {}, folder {}, sentinel {} of {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        dir.display(),
        config.options.name,
        config.founders.len()
    );
    allow_open_files();
    let bus = take_part(&config)?;
    let store = Store::open(&config.options.dir)?;
    let keeping = Keeping { dir, files_max: config.options.flight_recorder_files };
    let flight = Arc::new(Flight::new(&config.options.name, &keeping));
    flight.recordings.keep_on_panic();
    let machine = StateMachine::open(store.clone(), flight.clone())?;
    let listener = listen(&config.options.bind, config.bus_port).await?;
    let (doors, tls) = doors(&config).await?;
    let questions = match config.options.metrics_port {
        0 => None,
        port => Some(listen(&config.options.bind, port).await?),
    };
    let page_door = page_door(&config, tls.as_ref()).await?;
    let (proposals, waiting) = mpsc::channel(proposals::WAITING_MAX);
    let (primary_changes, requests) = mpsc::channel(failover::REQUESTS_MAX);
    let sentinel = Arc::new(Sentinel::new(config, bus, flight, machine.watch(), proposals, primary_changes));
    let mut tasks = JoinSet::new();
    tasks.spawn(sentinel.flight.recordings.clone().keep());
    tasks.spawn(proposals::commit(sentinel.clone(), waiting));
    tasks.spawn(failover::coordinate(sentinel.clone(), requests));
    tasks.spawn(watchdog::probe_all(sentinel.clone()));
    tasks.spawn(watchdog::tell_changes(sentinel.clone()));
    tasks.spawn(watchdog::react(sentinel.clone()));
    tasks.spawn(resp_server::serve(sentinel.clone(), doors));
    if let Some(tls) = tls {
        tasks.spawn(resp_server::reload(sentinel.clone(), tls));
    }
    if let Some(listener) = questions {
        tasks.spawn(observe::serve(listener, Arc::new(Metrics(sentinel.clone()))));
    }
    if let Some(PageDoor { listener, tls, token }) = page_door {
        tasks.spawn(page::serve(sentinel.clone(), listener, tls, token));
    }
    let mut bus = tokio::spawn(serve_bus(sentinel.clone(), listener));
    let result = tokio::select! {
        result = run_raft(&sentinel, store, machine) => result,
        stopped = &mut bus => stopped.unwrap_or(Ok(())),
        () = shutdown => Ok(()),
    };
    info!("sentinel stops");
    tasks.shutdown().await;
    if let Some(raft) = sentinel.raft.get()
        && timeout(SHUTDOWN_LIMIT, raft.shutdown()).await.is_err()
    {
        warn!("Raft did not stop in time");
    }
    bus.abort();
    result
}

/// Ends only when Raft cannot go on, for example because the disk failed.
async fn run_raft(sentinel: &Arc<Sentinel>, store: Store, machine: StateMachine) -> Result<(), RunError> {
    bootstrap::start_raft(sentinel, store, machine).await?;
    let Some(raft) = sentinel.raft.get() else { return Ok(()) };
    let mut metrics = raft.metrics();
    let mut story = LeaderStory::default();
    loop {
        let current = metrics.borrow_and_update().clone();
        if let Err(fatal) = current.running_state {
            return Err(BootstrapError::Raft(fatal.to_string()).into());
        }
        sentinel.flight.leads(&current);
        if let Some(line) = story.step(current.id, current.current_leader, |id| sentinel.name_of(id)) {
            info!(term = current.current_term, "{line}");
        }
        if metrics.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn serve_bus(sentinel: Arc<Sentinel>, listener: TcpListener) -> Result<(), RunError> {
    let raft = RaftService::new(sentinel.raft.clone());
    let raft = RaftServer::new(raft)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = sentinel.bus.incoming(listener);
    let control = ControlServer::new(ControlService { sentinel });
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .layer(Rights)
        .add_service(raft)
        .add_service(control)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
