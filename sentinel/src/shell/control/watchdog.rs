//! What a sentinel does without being asked: it looks after the nodes and the other sentinels, tells subscribers,
//! and, if it leads, replaces primaries whose process is gone and places new nodes.
//!
//! Replicas complain about their primary long before the watchdog looks; it is there for what nobody complains
//! about: every replica down too, a restarted shard, a lost member.
#![allow(clippy::disallowed_methods, reason = "shell: looks at the clock and asks over the network")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyward_net::clock::monotonic as now;
use keyward_proto::ids::{NodeId, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::topology::{Shape, Shard, Topology};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::{admin, failover};
use crate::rules::coordinator::{Request, Settlement};
use crate::rules::events::EventFeed;
use crate::rules::failover::Trigger;
use crate::rules::health::SentinelHealth;
use crate::rules::placement;
use crate::rules::topology::TopologyCommand;
use crate::shell::probe;
use crate::shell::raft::RaftId;
use crate::shell::sentinel::Sentinel;

const PERIOD: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_millis(400);
/// How often a shard without a primary is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Steps of placement at a time; the watchdog goes on later.
const PLACEMENT_STEPS_MAX: usize = 1000;

/// Why a shard still waits for a primary; `None`: it does not.
type Waiting = (ShardId, Option<String>);

/// Asks all nodes and sentinels, again and again.
pub(crate) async fn probe_all(sentinel: Arc<Sentinel>) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let down_after = Duration::from_millis(sentinel.config.options.down_after_milliseconds);
    loop {
        tick.tick().await;
        let topology = sentinel.current();
        sentinel.connections.follow(&topology);
        let nodes = probe::ask_all(&sentinel.connections, &topology, ANSWER_LIMIT);
        let addresses = topology
            .nodes
            .values()
            .map(|node| async { (node.id.clone(), resolve(&node.host, node.port).await) });
        let sentinels =
            topology.sentinels.keys().map(|id| async { (*id, sentinel_answers(&sentinel, *id).await) });
        let (nodes, addresses, sentinels) = tokio::join!(nodes, join_all(addresses), join_all(sentinels));
        let mut changes = Vec::new();
        {
            let mut health = sentinel.health.lock();
            for (id, report) in nodes {
                if let Some(is_down) = health.note_node(now(), down_after, &id, report.answer, report.status)
                {
                    changes.push((id.clone(), is_down));
                }
            }
            for (id, address) in addresses {
                if let Some(node) = health.nodes.get_mut(&id)
                    && address.is_some()
                {
                    node.address = address;
                }
            }
            for (id, answers) in sentinels {
                let known = health.sentinels.get(&id).map(|s| s.answered_at);
                let answered_at = if answers { now() } else { known.unwrap_or_else(now) };
                health.sentinels.insert(id, SentinelHealth { answers, answered_at });
            }
            health.sentinels.retain(|id, _| topology.sentinels.contains_key(id));
            health.note_topology(&topology);
        }
        tell_down(&sentinel, &topology, changes);
        sentinel.probed.notify_one();
    }
}

async fn resolve(host: &str, port: u16) -> Option<std::net::IpAddr> {
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    let found = timeout(ANSWER_LIMIT, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
    let mut addresses: Vec<_> = found.map(|a| a.ip().to_canonical()).collect();
    addresses.sort_by_key(|ip| ip.is_ipv6());
    addresses.first().copied()
}

/// Whether another sentinel answers now.
pub(crate) async fn sentinel_answers(sentinel: &Sentinel, id: RaftId) -> bool {
    if id == sentinel.id() {
        return true;
    }
    let Some(address) = sentinel.address_of(id) else { return false };
    let who = format!("the sentinel {}", sentinel.name_of(id));
    let Some(mut client) = sentinel.control_client(&address) else {
        sentinel.reach.failed(&who, &address, None);
        return false;
    };
    let request = admin::request(Command::Identity(rpc::IdentityCommand {}));
    match timeout(ANSWER_LIMIT, client.admin(request)).await {
        Ok(Ok(_)) => {
            sentinel.reach.answered(&who, &address);
            return true;
        }
        Ok(Err(status)) => sentinel.reach.failed(&who, &address, Some(status)),
        Err(_) => sentinel.reach.failed(&who, &address, None),
    }
    false
}

fn tell_down(sentinel: &Sentinel, topology: &Topology, changes: Vec<(NodeId, bool)>) {
    if changes.is_empty() {
        return;
    }
    let health = sentinel.health.lock().clone();
    let mut feed = EventFeed::new(sentinel.config.options.announce_hostnames);
    feed.step(topology, &health);
    for (id, is_down) in changes {
        if is_down {
            info!("the node {} is down", topology.node_name(&id));
        } else {
            info!("the node {} is up", topology.node_name(&id));
        }
        for event in feed.node_down_changed(topology, &health, &id, is_down) {
            // Nobody may be listening.
            drop(sentinel.events.send(event));
        }
    }
}

/// Tells subscribers of each change of the topology.
pub(crate) async fn tell_changes(sentinel: Arc<Sentinel>) {
    let mut topology = sentinel.topology.clone();
    let mut feed = EventFeed::new(sentinel.config.options.announce_hostnames);
    loop {
        let current = topology.borrow_and_update().clone();
        sentinel.health.lock().note_topology(&current);
        let health = sentinel.health.lock().clone();
        for event in feed.step(&current, &health) {
            // Nobody may be listening.
            drop(sentinel.events.send(event));
        }
        if topology.changed().await.is_err() {
            return;
        }
    }
}

/// What the leader does about what was found, and about every change of the topology.
pub(crate) async fn react(sentinel: Arc<Sentinel>) {
    let mut topology = sentinel.topology.clone();
    let mut waiting: BTreeMap<ShardId, String> = BTreeMap::new();
    let (results, mut reasons) = mpsc::channel::<Waiting>(64);
    loop {
        let current = topology.borrow_and_update().clone();
        announce(&sentinel, &current).await;
        if sentinel.is_leader() {
            for shard in without_primary(&sentinel, &current) {
                let (sentinel, results) = (sentinel.clone(), results.clone());
                tokio::spawn(fail_over(sentinel, shard.id.clone(), shard.term, results));
            }
            place(&sentinel).await;
        }
        while let Ok((shard, reason)) = reasons.try_recv() {
            note_waiting(&mut waiting, &current, shard, reason);
        }
        let is_waiting = current.shards.values().any(|s| s.primary.is_none());
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = sentinel.probed.notified() => {}
            () = sleep(RETRY), if is_waiting => {}
        }
    }
}

async fn fail_over(sentinel: Arc<Sentinel>, shard: ShardId, term: Term, results: mpsc::Sender<Waiting>) {
    let request = Request::Failover { shard: shard.clone(), term, trigger: Trigger::Watchdog };
    let reason = match failover::request(&sentinel, request).await {
        Ok(Settlement::Busy) => return,
        Ok(Settlement::Replaced(_) | Settlement::CarriedOut) => None,
        Ok(Settlement::Kept { reason, .. } | Settlement::Refused { reason }) => Some(reason),
        Ok(Settlement::Unknown) => Some("it is unknown whether the change was committed".into()),
        Err(status) => Some(status.message().to_owned()),
    };
    // The receiver lives as long as this sentinel; a full queue loses a log line.
    drop(results.try_send((shard, reason)));
}

fn note_waiting(
    waiting: &mut BTreeMap<ShardId, String>,
    topology: &Topology,
    shard: ShardId,
    reason: Option<String>,
) {
    let Some(reason) = reason else {
        waiting.remove(&shard);
        return;
    };
    if waiting.get(&shard) != Some(&reason) {
        warn!("no failover of {} yet: {}", topology.shard_name(&shard), topology.with_names(&reason));
        waiting.insert(shard, reason);
    }
}

fn without_primary<'a>(sentinel: &Sentinel, topology: &'a Topology) -> Vec<&'a Shard> {
    let health = sentinel.health.lock();
    topology.shards.values().filter(|shard| health.needs_primary(topology, shard)).collect()
}

/// Tells the group where clients reach this sentinel, if it does not know.
async fn announce(sentinel: &Sentinel, topology: &Topology) {
    let own = sentinel.own_address();
    if sentinel.raft.get().is_none() || topology.sentinels.get(&sentinel.id()) == Some(&own) {
        return;
    }
    if let Err(status) = admin::announce(sentinel, own).await {
        debug!(reason = status.message(), "cannot announce this sentinel yet");
    }
}

/// Before there are shards, the leader's options are the wanted shape.
async fn settle_shape(sentinel: &Sentinel, topology: &Topology) {
    let options = &sentinel.config.options;
    let shape = Shape {
        shards: options.shards,
        replicas_per_shard: options.replicas,
        primary_name: options.primary_name.clone(),
    };
    if !topology.shards.is_empty() || topology.shape == shape {
        return;
    }
    match sentinel.propose(TopologyCommand::SetShape { shape }).await {
        Ok(Ok(_)) => {}
        Ok(Err(refusal)) => warn!("the number of shards and replicas is refused: {refusal}"),
        Err(status) => info!("the number of shards and replicas cannot be settled yet: {}", status.message()),
    }
}

/// Forms shards and assigns spare nodes until nothing is left to do.
pub(crate) async fn place(sentinel: &Sentinel) {
    let _one_at_a_time = sentinel.placement.lock().await;
    settle_shape(sentinel, &sentinel.current()).await;
    let lost = sentinel.health.lock().lost(now());
    let commands = placement::all(
        &sentinel.current(),
        &lost,
        || ShardId::from_random(rand::random()),
        PLACEMENT_STEPS_MAX,
    );
    let placed = commands.into_iter().map(|command| async move {
        let result = sentinel.propose(command.clone()).await;
        let what = command.describe(&sentinel.current());
        match result {
            Ok(Ok(_)) => info!("{what}"),
            Ok(Err(refusal)) => info!("not done: {what}: {refusal}"),
            Err(status) => info!("cannot be done now: {what}: {}", status.message()),
        }
    });
    join_all(placed).await;
}
