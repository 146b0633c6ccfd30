//! Accepts clients of the Sentinel API, and sends events to those that subscribe.
#![allow(clippy::disallowed_methods, reason = "shell: a task per connection")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use keyward_net::clock::monotonic as now;
use keyward_net::linger::linger;
use keyward_proto::ids::ShardId;
use keyward_proto::resp::{ReplyWriter, Version};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request;
use keyward_proto::time::Monotonic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::rules::sentinel_api::command::{AfterReply, Session};
use crate::rules::sentinel_api::instances::View;
use crate::rules::sentinel_api::request::{Requests, is_http};
use crate::shell::control::{ADMIN_LIMIT, admin};
use crate::shell::sentinel::Sentinel;

const CONNECTIONS_MAX: usize = 10_000;
/// Refused clients that are given the time to read why; others are cut off.
const REFUSALS_MAX: usize = 16;
/// A subscriber that does not read is disconnected.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Replies to a pipeline are sent in pieces of about this size.
const REPLY_BYTES: usize = 256 * 1024;
/// Clients that speak HTTP are told of in the log no more often than this.
const HTTP_WARNING_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Counters {
    open: AtomicUsize,
    accepted: AtomicU64,
    commands: AtomicU64,
    /// When a client that speaks HTTP was last told of; nanoseconds, as of [`Monotonic`]. Zero: never.
    http_warned_at: AtomicU64,
    started: Monotonic,
}

impl Counters {
    fn warn_of_http(&self, peer: SocketAddr) {
        let (now, last) = (now(), self.http_warned_at.load(Ordering::Relaxed));
        if last != 0 && now.since(Monotonic::from_nanos(last)) < HTTP_WARNING_INTERVAL {
            return;
        }
        self.http_warned_at.store(now.as_nanos().max(1), Ordering::Relaxed);
        warn!(
            %peer,
            "possible SECURITY ATTACK: closed a connection that sent POST or Host:, as a web page does that has a \
             browser send commands to this port"
        );
    }
}

/// Serves until the task is dropped.
pub(crate) async fn serve(sentinel: Arc<Sentinel>, listener: TcpListener) {
    let counters = Arc::new(Counters {
        open: AtomicUsize::new(0),
        accepted: AtomicU64::new(0),
        commands: AtomicU64::new(0),
        http_warned_at: AtomicU64::new(0),
        started: now(),
    });
    let mut connections = tokio::task::JoinSet::new();
    loop {
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
        connections.spawn(async move {
            let open = counters.open.fetch_add(1, Ordering::Relaxed);
            if let Err(e) = converse(&sentinel, &counters, stream, peer, open).await {
                debug!(%peer, error = %e, "client disconnected");
            }
            counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn converse(
    sentinel: &Arc<Sentinel>,
    counters: &Counters,
    mut stream: TcpStream,
    peer: SocketAddr,
    open: usize,
) -> io::Result<()> {
    if CONNECTIONS_MAX <= open {
        stream.write_all(b"-ERR max number of clients reached\r\n").await?;
        // It counts as open until then, so that there are not many.
        if open < CONNECTIONS_MAX + REFUSALS_MAX {
            linger(&mut stream).await;
        }
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let id = counters.accepted.fetch_add(1, Ordering::Relaxed) + 1;
    let needs_password = sentinel.config.options.requirepass.is_some();
    let mut session = Session::new(id, peer.to_string(), now(), needs_password);
    let mut events = sentinel.events.subscribe();
    let (mut requests, mut input, mut output) = (Requests::default(), BytesMut::new(), BytesMut::new());
    loop {
        tokio::select! {
            read = stream.read_buf(&mut input) => if read? == 0 { return Ok(()) },
            event = events.recv() => {
                match event {
                    Ok(event) => session.deliver(&event, &mut output),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        if session.is_subscribed() {
                            warn!(%peer, missed, "a subscriber is too slow");
                            return Ok(());
                        }
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                }
            }
        }
        let mut close = false;
        while !close {
            match requests.next(&mut input, session.is_authenticated()) {
                Ok(None) => break,
                Ok(Some(args)) if is_http(&args) => {
                    counters.warn_of_http(peer);
                    return Ok(());
                }
                Ok(Some(args)) => close = answer(sentinel, counters, &mut session, &args, &mut output),
                Err(e) => {
                    ReplyWriter::new(&mut output, Version::Resp2).error(e.to_bytes());
                    close = true;
                }
            }
            if REPLY_BYTES < output.len() {
                send(&mut stream, &mut output).await?;
            }
        }
        send(&mut stream, &mut output).await?;
        if close {
            linger(&mut stream).await;
            return Ok(());
        }
    }
}

/// Sends what has been written so far.
async fn send(stream: &mut TcpStream, output: &mut BytesMut) -> io::Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    timeout(WRITE_LIMIT, stream.write_all(output)).await.map_err(io::Error::from)??;
    output.clear();
    Ok(())
}

/// Whether the connection is to be closed.
fn answer(
    sentinel: &Arc<Sentinel>,
    counters: &Counters,
    session: &mut Session,
    args: &[bytes::Bytes],
    output: &mut BytesMut,
) -> bool {
    let commands_total = counters.commands.fetch_add(1, Ordering::Relaxed);
    let topology = sentinel.current();
    let options = &sentinel.config.options;
    let after = {
        let health = sentinel.health.lock();
        let view = View {
            topology: &topology,
            health: &health,
            now: now(),
            own_id: sentinel.id(),
            own_name: &options.name,
            port: options.port,
            has_leader: sentinel.leader().is_some(),
            announce_hostnames: options.announce_hostnames,
            down_after: Duration::from_millis(options.down_after_milliseconds),
            failover_in_progress: sentinel.changes_primary.load(Ordering::Relaxed),
            started: counters.started,
            connections: counters.open.load(Ordering::Relaxed),
            process_id: std::process::id(),
            connections_total: counters.accepted.load(Ordering::Relaxed),
            commands_total,
        };
        session.execute(&view, options.requirepass.as_deref(), args, output)
    };
    match after {
        AfterReply::Nothing => false,
        AfterReply::Close => true,
        AfterReply::FailOver(shard) => {
            tokio::spawn(fail_over(sentinel.clone(), shard));
            false
        }
    }
}

/// SENTINEL FAILOVER answers at once; the outcome is in the log and in the events.
async fn fail_over(sentinel: Arc<Sentinel>, shard: ShardId) {
    let command = rpc::FailoverCommand { shard: shard.to_string(), target: String::new() };
    let command = admin_request::Command::Failover(command);
    match admin::at_leader(&sentinel, command, ADMIN_LIMIT).await.map(admin::done) {
        Ok(Ok(_)) => {}
        Ok(Err(reason)) => warn!(%shard, reason, "SENTINEL FAILOVER failed"),
        Err(status) => warn!(%shard, reason = status.message(), "SENTINEL FAILOVER failed"),
    }
}
