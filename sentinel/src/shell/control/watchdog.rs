//! What a sentinel does without being asked: it looks after the nodes and the other sentinels, tells subscribers,
//! and, if it leads, replaces primaries whose process is gone and places new nodes.
//!
//! Replicas complain about their primary long before the watchdog looks; it is there for what nobody complains
//! about: every replica down too, a restarted shard, a lost member.
#![allow(clippy::disallowed_methods, reason = "shell: looks at the clock and asks over the network")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyward_net::clock::monotonic as now;
use keyward_proto::ids::{NodeId, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::rpc::control_client::ControlClient;
use keyward_proto::topology::{Shard, Topology};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use super::{admin, failover};
use crate::rules::admin::{remembered, request, timeline_mark};
use crate::rules::coordinator::{Request, Settlement};
use crate::rules::events::{self, EventFeed};
use crate::rules::failover::Trigger;
use crate::rules::formation;
use crate::rules::health::{Liveness, Round, another_password, preferred};
use crate::rules::placement;
use crate::rules::topology::TopologyCommand;
use crate::rules::waiting::Waiting;
use crate::shell::probe;
use crate::shell::raft::RaftId;
use crate::shell::sentinel::{Sentinel, wall_millis};

const PERIOD: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_millis(400);
/// How often a shard without a primary is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Steps of placement at a time; the watchdog goes on later.
const PLACEMENT_STEPS_MAX: usize = 1000;

/// What became of an attempt to give a shard a primary.
type Attempted = (ShardId, Result<Settlement, String>);

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
        let round = Round { nodes, addresses, sentinels };
        let changes = sentinel.health.lock().note_round(now(), down_after, &topology, round);
        tell_down(&sentinel, &topology, &changes);
        {
            let health = sentinel.health.lock();
            sentinel.remember(|timeline| timeline.served(&health));
        }
        let strangers = sentinel.health.lock().new_strangers(&topology);
        for (id, primary) in strangers {
            let primary = format!("its primary {}", topology.node_name(&primary));
            warn!("the node {} has {}", topology.node_name(&id), another_password(&primary));
        }
        sentinel.probed.notify_one();
    }
}

async fn resolve(host: &str, port: u16) -> Option<IpAddr> {
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    let found = timeout(ANSWER_LIMIT, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
    preferred(found.map(|a| a.ip()))
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
    let request = request(Command::Identity(rpc::IdentityCommand {}));
    match timeout(ANSWER_LIMIT, client.admin(request)).await {
        Ok(Ok(reply)) => {
            sentinel.reach.answered(&who, &address);
            learn(sentinel, id, &reply.into_inner(), client).await;
            return true;
        }
        Ok(Err(status)) => sentinel.reach.failed(&who, &address, Some(status)),
        Err(_) => sentinel.reach.failed(&who, &address, None),
    }
    false
}

/// Asks another sentinel what it remembers of changes of primaries, if that is something else than before.
async fn learn(sentinel: &Sentinel, id: RaftId, said: &rpc::AdminReply, mut client: ControlClient<Channel>) {
    let Some(mark) = timeline_mark(said) else { return };
    if !sentinel.timeline.lock().is_news(id, mark) {
        return;
    }
    let request = request(Command::Timeline(rpc::TimelineCommand {}));
    // Otherwise the next round will.
    if let Ok(Ok(reply)) = timeout(ANSWER_LIMIT, client.admin(request)).await {
        let changes = remembered(&reply.into_inner());
        sentinel.remember(|timeline| timeline.learned(id, mark, changes));
    }
}

fn tell_down(sentinel: &Sentinel, topology: &Topology, changes: &[(NodeId, Liveness)]) {
    for (id, liveness) in changes {
        info!("the node {} is {liveness}", topology.node_name(id));
    }
    let health = sentinel.health.lock().clone();
    let hosts = sentinel.config.options.announce_hostnames;
    for transport in sentinel.config.transports() {
        for event in events::of_nodes(topology, &health, hosts, transport, changes) {
            // Nobody may be listening.
            drop(sentinel.events.send(event));
        }
    }
}

/// Tells subscribers of each change of the topology.
pub(crate) async fn tell_changes(sentinel: Arc<Sentinel>) {
    let mut topology = sentinel.topology.clone();
    let hosts = sentinel.config.options.announce_hostnames;
    let feed = |transport| EventFeed::new(hosts, transport);
    let mut feeds: Vec<EventFeed> = sentinel.config.transports().map(feed).collect();
    loop {
        let current = topology.borrow_and_update().clone();
        sentinel.remember(|timeline| timeline.observe(&current, wall_millis()));
        sentinel.health.lock().note_topology(&current);
        let health = sentinel.health.lock().clone();
        for event in feeds.iter_mut().flat_map(|feed| feed.step(&current, &health)) {
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
    let mut waiting = Waiting::default();
    let (results, mut attempted) = mpsc::channel::<Attempted>(64);
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
        while let Ok((shard, outcome)) = attempted.try_recv() {
            if let Some(line) = waiting.step(&current, &shard, outcome) {
                warn!("{line}");
            }
        }
        let is_waiting = current.shards.values().any(|s| s.primary.is_none());
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = sentinel.probed.notified() => {}
            () = sleep(RETRY), if is_waiting => {}
        }
    }
}

async fn fail_over(sentinel: Arc<Sentinel>, shard: ShardId, term: Term, results: mpsc::Sender<Attempted>) {
    let request = Request::Failover { shard: shard.clone(), term, trigger: Trigger::Watchdog };
    let outcome = failover::request(&sentinel, request).await;
    // The receiver lives as long as this sentinel; a full queue loses a log line.
    drop(results.try_send((shard, outcome.map_err(|status| status.message().to_owned()))));
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

async fn settle_shape(sentinel: &Sentinel, topology: &Topology) {
    let Some(command) = placement::shape(topology, sentinel.config.shape()) else { return };
    match sentinel.propose(command).await {
        Ok(Ok(_)) => {}
        Ok(Err(refusal)) => warn!("the number of shards and replicas is refused: {refusal}"),
        Err(status) => info!("the number of shards and replicas cannot be settled yet: {}", status.message()),
    }
}

/// Forms shards and assigns spare nodes until nothing is left to do.
pub(crate) async fn place(sentinel: &Sentinel) {
    let _one_at_a_time = sentinel.placement.lock().await;
    settle_shape(sentinel, &sentinel.current()).await;
    let topology = sentinel.current();
    let (lost, long_lost, arrivals) = {
        let mut health = sentinel.health.lock();
        health.note_arrivals(now(), &topology);
        (health.lost(now()), health.long_lost(now()), health.arrivals(now()))
    };
    tell_undecided(sentinel, &topology);
    let random = || ShardId::from_random(rand::random());
    let mut commands = placement::all(&topology, &lost, arrivals, random, PLACEMENT_STEPS_MAX);
    commands.extend(placement::to_forget(&topology, &long_lost));
    let placed = commands.into_iter().map(|command| async move {
        let before = sentinel.current();
        let result = sentinel.propose(command.clone()).await.map_err(|status| status.message().to_owned());
        let after = sentinel.current();
        // What is new has a name then, and what is gone had one before.
        let is_gone = matches!(command, TopologyCommand::ForgetNode { .. });
        info!("{}", placement::told(if is_gone { &before } else { &after }, &command, &result));
    });
    join_all(placed).await;
}

/// What an operator has to decide, once.
fn tell_undecided(sentinel: &Sentinel, topology: &Topology) {
    let mut undecided: Vec<String> =
        formation::held_back(topology).into_iter().map(|(_, text)| text).collect();
    if topology.shards.is_empty() {
        undecided.extend(formation::obstacle(topology).map(|o| format!("no shard forms: {o}")));
    }
    let mut told = sentinel.undecided.lock();
    for text in undecided.iter().filter(|text| !told.contains(text)) {
        warn!("{}", topology.with_names(text));
    }
    *told = undecided;
}
