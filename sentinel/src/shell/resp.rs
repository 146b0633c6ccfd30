//! Accepts clients of the Sentinel API, and sends events to those that subscribe.
#![allow(clippy::disallowed_methods, reason = "shell: a task per connection")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use keyward_net::clock::monotonic as now;
use keyward_net::linger::linger;
use keyward_proto::ids::ShardId;
use keyward_proto::resp::{HTTP_WARNING, HttpWarnings};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request;
use keyward_proto::time::Monotonic;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

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
    started: Monotonic,
}

/// Serves until the task is dropped.
pub(crate) async fn serve(sentinel: Arc<Sentinel>, listener: TcpListener) {
    let counters = Arc::new(Counters {
        open: AtomicUsize::new(0),
        accepted: AtomicU64::new(0),
        commands: AtomicU64::new(0),
        http_warnings: Mutex::default(),
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
    let admission = admit(open);
    if admission != Admission::Served {
        stream.write_all(TOO_MANY).await?;
        if admission == Admission::Refused {
            linger(&mut stream).await;
        }
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let id = counters.accepted.fetch_add(1, Ordering::Relaxed) + 1;
    let password = sentinel.config.options.requirepass.as_deref();
    let mut conversation = Conversation::new(Session::new(id, peer.to_string(), now(), password));
    let (mut events, mut output) = (sentinel.events.subscribe(), BytesMut::new());
    loop {
        tokio::select! {
            read = stream.read_buf(&mut conversation.input) => if read? == 0 { return Ok(()) },
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
                    linger(&mut stream).await;
                    return Ok(());
                }
            }
        }
    }
}

fn warn_of_http(counters: &Counters, peer: SocketAddr) {
    if counters.http_warnings.lock().is_due(now()) {
        warn!(%peer, "{HTTP_WARNING}");
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
        port: options.port,
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
