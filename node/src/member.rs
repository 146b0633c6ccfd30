//! A node's life as a member of a shard: it joins with its ID, hands its role over when asked, and leaves in order.
//!
//! The ID lives in the file `node-id` of the data directory. A node without its directory is a new node.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use keyward_net::bus::{Bus, Encryption, SecretSource};
use keyward_net::flight::Keeping;
use keyward_proto::bus::{Identity, exposure};
use keyward_proto::ids::{LogIndex, NodeId};
use keyward_proto::peer::split_address;
use keyward_proto::resp::{ReplyWriter, Version};
use keyward_proto::rpc::PublishRequest;
use keyward_proto::slot::Slot;
use keyward_proto::topology::{Detection, SlotRange};
use keyward_replication::core::Config;
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::gate::GateState;
use keyward_replication::reply::ReplyCondition;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::admin::Request;
use crate::config::Settings;
use crate::control;
use crate::engine::KeyspaceEngine;
use crate::io::threads::ControlRequest;
use crate::message::ChannelKind;
use crate::pubsub::To;
use crate::relay;
use crate::replication::{Demand, Options, Replication};
use crate::routing::Routing;
use crate::sentinels::{Announce, Sentinels};
use crate::server::Server;
use crate::snapshot::saves::Kind;

const ID_FILE: &str = "node-id";
/// A demanded failover is over, or has failed, within this.
const FAILOVER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node that has handed over goes on redirecting its clients.
const LINGER: Duration = Duration::from_millis(300);
/// How long an ending primary tries to hand over.
const LEAVE_PATIENCE: Duration = Duration::from_secs(8);

/// Registers with the sentinels and replicates from then on. The keyspace contains what the disk remembers of the log
/// up to `applied`.
///
/// # Errors
/// One line for the operator.
pub async fn join(
    server: &Arc<Server>,
    settings: &Settings,
    listener: TcpListener,
    Member { id: node_id, bus }: Member,
    applied: LogIndex,
) -> Result<(), String> {
    tracing::info!(node = %node_id, "joining: asking the sentinels {}", settings.sentinels.join(" "));
    let announce = announce(settings, &node_id);
    let config = config(settings);
    let counts = &server.keyspace.counts;
    let mut slots = Slot::all().filter(|slot| counts.of_slot(*slot) > 0);
    let held_slots = slots.next().map(|first| SlotRange { first, last: slots.last().unwrap_or(first) });
    let sentinels = settings.sentinels.clone();
    let keeping = keeping(settings);
    let options = Options { bus: bus.clone(), config, announce, sentinels, applied, held_slots, keeping };
    let applying = Arc::clone(server);
    let engine = control::blocking(move || KeyspaceEngine::new(applying, SmallRng::from_os_rng())).await;
    let engine = Arc::new(engine.map_err(|e| format!("can't start: {e}"))?);
    let subscribers = Arc::clone(server);
    let deliver = Arc::new(move |message: PublishRequest| {
        let PublishRequest { channel, payload, sharded } = message;
        let kind = if sharded { ChannelKind::Shard } else { ChannelKind::Global };
        subscribers.publish_here((&channel, &payload), kind, To::All, ReplyCondition::default());
    });
    let replication = {
        let runtime = control::replication_runtime(server).map_err(|e| format!("can't start: {e}"))?;
        let listener = listener.into_std();
        let _in_runtime = runtime.enter();
        let listener = listener.and_then(TcpListener::from_std).map_err(|e| format!("can't start: {e}"))?;
        Replication::start(options, listener, Arc::clone(&server.shared), engine, deliver)
            .map_err(|e| e.to_string())?
    };
    replication.flights().keep_on_panic();
    let mut topology = replication.topology();
    if server.replication.set(replication).is_err()
        || server.relay.set(relay::start(Arc::clone(server), bus)).is_err()
    {
        return Err("a node joins once".into());
    }
    let server = Arc::clone(server);
    tokio::spawn(async move {
        loop {
            let newest = Arc::clone(&topology.borrow_and_update());
            server.set_routing(Routing::new(newest, node_id.clone()));
            if topology.changed().await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Where the flight recorder's files go; CONFIG SET dir does not move them.
fn keeping(settings: &Settings) -> Keeping {
    let dir = std::path::absolute(".").unwrap_or_default();
    Keeping { dir, files_max: settings.flight_recorder_files }
}

fn config(settings: &Settings) -> Config {
    Config {
        lease: settings.lease,
        grace: settings.grace,
        replication_ack: settings.replication_ack,
        min_in_sync: (settings.min_in_sync > 0).then_some(settings.min_in_sync),
        ..Config::default()
    }
}

/// How this node presents itself.
fn announce(settings: &Settings, node_id: &NodeId) -> Announce {
    let or = |announced: u16, own: u16| if announced == 0 { own } else { announced };
    Announce {
        node_id: node_id.clone(),
        host: settings.announce_ip.clone(),
        port: or(settings.announce_port, settings.main_port()),
        bus_port: or(settings.announce_bus_port, settings.bus_port().unwrap_or(0)),
        tls_port: if settings.tls_port == 0 { 0 } else { or(settings.announce_tls_port, settings.tls_port) },
        hostname: settings.announce_hostname.clone(),
        zone: settings.zone.clone(),
        replica_priority: settings.replica_priority,
        cluster_enabled: settings.cluster_enabled,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        databases: settings.databases(),
        detection: Detection {
            lease_millis: u64::try_from(config(settings).longest_lease().as_millis()).unwrap_or(u64::MAX),
            fast_failover: settings.fast_failover,
        },
    }
}

/// Tells the sentinels that this node has data and loads it: a node that loads much registers last, and no shard is to
/// form without it.
pub fn announce_loading(settings: &Settings, member: &Member) -> AbortHandle {
    let announce = announce(settings, &member.id);
    let sentinels = Sentinels::new(settings.sentinels.clone(), member.bus.clone());
    tokio::spawn(async move { sentinels.announce_loading(&announce).await }).abort_handle()
}

/// Who this node is to the others.
#[derive(Debug, Clone)]
pub struct Member {
    id: NodeId,
    bus: Bus,
}

/// Reads the node's ID, or makes one, and finds the secret by which the others let it in.
///
/// # Errors
/// One line for the operator: there is none, and others are to be reached elsewhere.
pub fn identity(settings: &Settings) -> Result<Member, String> {
    let file = Some(settings.cluster_secret_file.as_str()).filter(|path| !path.is_empty()).map(Path::new);
    let source = SecretSource::find(file, |name| std::env::var(name).ok()).map_err(|e| e.to_string())?;
    let encryption = settings.encrypts_bus().then(|| Encryption::load(settings.tls_options()));
    let encryption = encryption.transpose().map_err(|e| format!("tls-cluster: {e}"))?;
    if source.is_none() && encryption.is_none() {
        let sentinels =
            settings.sentinels.iter().map(|a| split_address(a).map_or(a.as_str(), |(host, _)| host));
        let announced = Some(settings.announce_ip.as_str()).filter(|ip| !ip.is_empty());
        exposure::check(sentinels.chain(announced)).map_err(|e| e.to_string())?;
    }
    let id = node_id()?;
    let bus = Bus::encrypted(Identity::node(&id), source, encryption);
    Ok(Member { id, bus })
}

fn node_id() -> Result<NodeId, String> {
    let here = std::env::current_dir().map_or_else(|_| ".".into(), |d| d.display().to_string());
    let failed = |what: &str, e: std::io::Error| format!("can't {what} '{here}/{ID_FILE}': {e}");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(ID_FILE)
        .map_err(|e| failed("open", e))?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| failed("read", e))?;
    if text.trim().is_empty() {
        let id = NodeId::from_random(rand::rng().random());
        writeln!(file, "{id}").and_then(|()| file.sync_all()).map_err(|e| failed("write", e))?;
        return Ok(id);
    }
    NodeId::parse(text.trim()).ok_or_else(|| {
        format!("'{here}/{ID_FILE}' holds no node ID: restore it, or remove it to join as a new node")
    })
}

/// Does what a client asked for and answers it.
pub async fn answer(server: Arc<Server>, request: ControlRequest) {
    let result = match request.request {
        Request::Failover { force, takeover } => {
            let demand = match (force, takeover) {
                (_, true) => Demand::Takeover,
                (true, false) => Demand::Force,
                (false, false) => Demand::Handoff,
            };
            match tokio::time::timeout(FAILOVER_PATIENCE, failover(&server, demand)).await {
                Ok(result) => result,
                Err(_) => Err("the failover did not end in time".into()),
            }
        }
        Request::Shutdown(options) => {
            // There is only a reply if the process does not end.
            server.shutdown.request(options).await;
            Err("Errors trying to SHUTDOWN. Check logs.".into())
        }
        Request::Save => save(&server).await,
        Request::Reload(options) => crate::reload::reload(&server, options).await,
    };
    let mut out = BytesMut::new();
    let mut writer = ReplyWriter::new(&mut out, Version::Resp2);
    match result {
        Ok(()) => writer.ok(),
        Err(text) => writer.error(format!("ERR {text}")),
    }
    if request.answer.send(out.freeze()).is_ok() {
        request.wake.notify_one();
    }
}

async fn save(server: &Arc<Server>) -> Result<(), String> {
    let running = || "Background save already in progress".to_owned();
    let result = server.saves.start(server, Kind::Foreground).map_err(|_| running())?;
    result.await.unwrap_or_else(|_| Err("the save was cancelled".into()))
}

/// Returns once this node serves as the primary.
async fn failover(server: &Server, demand: Demand) -> Result<(), String> {
    let replication = server.replication.get().ok_or("this node has no sentinels")?;
    replication.request_failover(demand).await?;
    while server.shared.gate.state() != GateState::Primary {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Hands the role of the primary over before the process ends.
pub async fn leave(server: &Server) {
    let Some(replication) = server.replication.get() else { return };
    if !matches!(replication.status().role, RoleStatus::Primary { .. }) {
        return;
    }
    match tokio::time::timeout(LEAVE_PATIENCE, replication.handoff(None)).await {
        Ok(Ok(())) => {
            tracing::info!("handed over");
            // Held replies and redirections leave.
            tokio::time::sleep(LINGER).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, "ends as primary, without a hand-off"),
        Err(_) => tracing::warn!("ends as primary: the hand-off did not end in time"),
    }
}
