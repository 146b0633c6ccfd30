//! The Cluster API (<https://valkey.io/topics/cluster-spec/>), answered from the topology that the sentinels publish.
//!
//! Differs from Valkey: nodes do not gossip, so the failure fields are those of the topology (a replica outside its
//! shard's in-sync set shows as `fail?`), an epoch is a shard's term, and slots and membership are changed through
//! the sentinels only. Links are the streams of replication. Who has none to a node takes the sentinels' word for it:
//! its pong is what they last said of the topology.

use std::fmt::Write;

use keyward_proto::ids::NodeId;
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Node, Shard, Transport};
use keyward_replication::core::node_core::{LinkStatus, RoleStatus};
use keyward_store::entry::Entry;

use super::cluster_scan::CLUSTERSCAN;
use crate::admin::{Request, ServerCommand, ServerContext, ServerOutcome, ServerResult, container, plain};
use crate::clock::Clock;
use crate::command::spec::{
    ADMIN, FAST, Group, LOADING, NO_ASYNC_LOADING, NOSCRIPT, STALE, Scope, category, family,
};
use crate::command::{CommandError, ascii_eq, parse_i64_arg};
use crate::config::{EndpointType, Settings};
use crate::routing::Routing;
use crate::server::Server;

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 21] = family(Group::Cluster, [
    ASKING, CLUSTER, CLUSTER_COUNT_FAILURE_REPORTS, CLUSTER_COUNTKEYSINSLOT, CLUSTER_FAILOVER,
    CLUSTER_GETKEYSINSLOT, CLUSTER_HELP, CLUSTER_INFO, CLUSTER_KEYSLOT, CLUSTER_LINKS, CLUSTER_MYID,
    CLUSTER_MYSHARDID, CLUSTER_NODES, CLUSTER_REPLICAS, CLUSTER_RESET, CLUSTER_SHARDS, CLUSTER_SLAVES,
    CLUSTER_SLOTS, CLUSTERSCAN, READONLY, READWRITE,
]);

pub(super) fn require_cluster(ctx: &ServerContext<'_, '_>) -> Result<(), CommandError> {
    if ctx.server.settings().cluster_enabled {
        return Ok(());
    }
    Err(CommandError::err("This instance has cluster support disabled"))
}

/// Whether a node serves its role now, as far as the topology tells.
fn is_healthy(shard: &Shard, node: &Node) -> bool {
    shard.in_sync.contains(&node.id) && !shard.restarted.contains(&node.id)
}

fn is_primary(shard: &Shard, node: &Node) -> bool {
    shard.primary.as_ref() == Some(&node.id)
}

/// Primary first, then the replicas by their IDs.
fn ordered_members<'a>(routing: &'a Routing, shard: &'a Shard) -> Vec<&'a Node> {
    let mut members: Vec<&Node> = routing.topology.members(&shard.id).collect();
    members.sort_by_key(|n| !is_primary(shard, n));
    members
}

/// The address by which clients are told to reach a node.
fn write_endpoint(out: &mut ReplyWriter<'_>, node: &Node, settings: &Settings) {
    match settings.preferred_endpoint {
        EndpointType::Unknown => out.null(),
        EndpointType::Ip => out.bulk_str(&node.host),
        EndpointType::Hostname if node.hostname.is_empty() => out.bulk_str("?"),
        EndpointType::Hostname => out.bulk_str(&node.hostname),
    }
}

/// `CLUSTER subcommand`
const CLUSTER: ServerCommand = container("cluster", 0, "3.0.0");

/// `CLUSTER SLOTS`
const CLUSTER_SLOTS: ServerCommand =
    plain("cluster|slots", cluster_slots, 2, LOADING | STALE, "3.0.0").tips(&["nondeterministic_output"]);
fn cluster_slots(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let (routing, settings) = (ctx.server.routing(), ctx.server.settings());
    if routing.topology.version == 0 {
        // It has just started and knows nobody: the client is to ask another node, or again.
        return Err(CommandError::Loading);
    }
    let transport = ctx.session.client.transport;
    let mut ranges: Vec<_> =
        routing.topology.shards.values().flat_map(|s| s.slots.iter().map(move |r| (*r, s))).collect();
    ranges.sort_by_key(|(range, _)| *range);
    ctx.out.array(ranges.len());
    for (range, shard) in ranges {
        // A shard that is about to get a primary keeps its slots: clients that are told of no node at all have nobody
        // left to ask.
        let is_listed = |node: &&Node| shard.primary.is_none() || is_healthy(shard, node);
        let members: Vec<&Node> = ordered_members(&routing, shard).into_iter().filter(is_listed).collect();
        ctx.out.array(2 + members.len());
        ctx.out.integer(i64::from(range.first.number()));
        ctx.out.integer(i64::from(range.last.number()));
        for node in members {
            ctx.out.array(4);
            write_endpoint(&mut ctx.out, node, &settings);
            ctx.out.integer(i64::from(node.reachable_port(transport)));
            ctx.out.bulk_str(node.id.as_str());
            let mut metadata: Vec<(&str, &str)> = Vec::new();
            if settings.preferred_endpoint != EndpointType::Ip {
                metadata.push(("ip", &node.host));
            }
            if settings.preferred_endpoint != EndpointType::Hostname && !node.hostname.is_empty() {
                metadata.push(("hostname", &node.hostname));
            }
            if !node.zone.is_empty() {
                metadata.push(("availability-zone", &node.zone));
            }
            ctx.out.map(metadata.len());
            for (name, value) in metadata {
                ctx.out.bulk_str(name);
                ctx.out.bulk_str(value);
            }
        }
    }
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER SHARDS`
const CLUSTER_SHARDS: ServerCommand =
    plain("cluster|shards", cluster_shards, 2, LOADING | STALE, "7.0.0").tips(&["nondeterministic_output"]);
fn cluster_shards(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let (routing, settings) = (ctx.server.routing(), ctx.server.settings());
    let offset = ctx.server.shared.log.lock().last().index.get();
    let shards = &routing.topology.shards;
    ctx.out.array(shards.len());
    for shard in shards.values() {
        ctx.out.map(3);
        ctx.out.bulk_str("slots");
        ctx.out.array(shard.slots.len() * 2);
        for range in &shard.slots {
            ctx.out.integer(i64::from(range.first.number()));
            ctx.out.integer(i64::from(range.last.number()));
        }
        ctx.out.bulk_str("nodes");
        let members = ordered_members(&routing, shard);
        ctx.out.array(members.len());
        for node in members {
            write_shard_node(&mut ctx.out, shard, node, &routing, &settings, offset);
        }
        ctx.out.bulk_str("id");
        ctx.out.bulk_str(shard.id.as_str());
    }
    Ok(ServerOutcome::Reply)
}

fn write_shard_node(
    out: &mut ReplyWriter<'_>,
    shard: &Shard,
    node: &Node,
    routing: &Routing,
    settings: &Settings,
    my_offset: u64,
) {
    let optional = [("hostname", &node.hostname), ("availability-zone", &node.zone)];
    let ports =
        [("port", node.client_port(Transport::Plain)), ("tls-port", node.client_port(Transport::Tls))];
    let ports = ports.iter().filter(|(_, port)| *port != 0);
    out.map(6 + ports.clone().count() + optional.iter().filter(|(_, v)| !v.is_empty()).count());
    out.bulk_str("id");
    out.bulk_str(node.id.as_str());
    for (name, port) in ports {
        out.bulk_str(name);
        out.integer(i64::from(*port));
    }
    out.bulk_str("ip");
    out.bulk_str(&node.host);
    out.bulk_str("endpoint");
    write_endpoint(out, node, settings);
    if !node.hostname.is_empty() {
        out.bulk_str("hostname");
        out.bulk_str(&node.hostname);
    }
    out.bulk_str("role");
    out.bulk_str(if is_primary(shard, node) { "master" } else { "replica" });
    out.bulk_str("replication-offset");
    let known = routing.me.as_ref() == Some(&node.id);
    out.integer(if known { i64::try_from(my_offset).unwrap_or(i64::MAX) } else { 0 });
    out.bulk_str("health");
    out.bulk_str(if is_healthy(shard, node) { "online" } else { "loading" });
    if !node.zone.is_empty() {
        out.bulk_str("availability-zone");
        out.bulk_str(&node.zone);
    }
}

/// A stream of replication that is open.
struct Link {
    peer: NodeId,
    opened_at: Monotonic,
    heard_at: Monotonic,
}

fn links(server: &Server) -> Vec<Link> {
    let Some(replication) = server.replication.get() else { return Vec::new() };
    match &replication.status().role {
        RoleStatus::Primary { links, .. } => {
            let link =
                |l: &LinkStatus| Link { peer: l.node.clone(), opened_at: l.opened_at, heard_at: l.heard_at };
            links.iter().map(link).collect()
        }
        RoleStatus::Replica { primary, opened_at: Some(opened_at), silence, .. } => {
            let heard_at = server.clock.monotonic() - *silence;
            vec![Link { peer: primary.clone(), opened_at: *opened_at, heard_at }]
        }
        RoleStatus::Replica { .. } | RoleStatus::None => Vec::new(),
    }
}

/// A moment on the wall clock, which is what clients are told.
fn wall_millis(clock: &Clock, at: Monotonic) -> i64 {
    let age = i64::try_from(clock.monotonic().since(at).as_millis()).unwrap_or(i64::MAX);
    clock.unix_millis().0.saturating_sub(age)
}

/// When nodes were last heard, or heard of.
struct Contacts {
    clock: Clock,
    links: Vec<Link>,
    sentinels: Option<Monotonic>,
}

impl Contacts {
    fn of(server: &Server) -> Contacts {
        let sentinels = server.replication.get().and_then(|r| r.sentinels_heard_at());
        Contacts { clock: server.clock.clone(), links: links(server), sentinels }
    }

    /// Zero: never.
    fn pong_millis(&self, node: &NodeId) -> i64 {
        let link = self.links.iter().find(|link| link.peer == *node);
        link.map(|link| link.heard_at).or(self.sentinels).map_or(0, |at| wall_millis(&self.clock, at))
    }
}

/// One line of CLUSTER NODES.
fn node_line(routing: &Routing, contacts: &Contacts, node: &Node, transport: Transport) -> String {
    let mut line = String::new();
    let me = routing.me.as_ref() == Some(&node.id);
    let shard = routing.topology.shard_of(&node.id);
    let primary = shard.is_some_and(|s| is_primary(s, node));
    let healthy = me || shard.is_some_and(|s| is_healthy(s, node));
    let mut write =
        |text: std::fmt::Arguments<'_>| line.write_fmt(text).expect("writing to a String cannot fail");
    let port = node.reachable_port(transport);
    write(format_args!("{} {}:{port}@{}", node.id, node.host, node.bus_port));
    if !node.hostname.is_empty() {
        write(format_args!(",{}", node.hostname));
    }
    write(format_args!(" {}", if me { "myself," } else { "" }));
    write(format_args!("{}", if primary || shard.is_none() { "master" } else { "slave" }));
    write(format_args!("{}", if healthy { "" } else { ",fail?" }));
    match shard.and_then(|s| s.primary.as_ref()).filter(|p| **p != node.id) {
        Some(primary) => write(format_args!(" {primary}")),
        None => write(format_args!(" -")),
    }
    let epoch = shard.map_or(0, |s| s.term.get());
    let pong = if me { 0 } else { contacts.pong_millis(&node.id) };
    write(format_args!(" 0 {pong} {epoch} {}", if healthy { "connected" } else { "disconnected" }));
    if let Some(shard) = shard.filter(|_| primary) {
        for range in &shard.slots {
            if range.first == range.last {
                write(format_args!(" {}", range.first));
            } else {
                write(format_args!(" {}-{}", range.first, range.last));
            }
        }
    }
    line
}

/// `CLUSTER NODES`
const CLUSTER_NODES: ServerCommand =
    plain("cluster|nodes", cluster_nodes, 2, LOADING | STALE, "3.0.0").tips(&["nondeterministic_output"]);
fn cluster_nodes(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let routing = ctx.server.routing();
    let (contacts, transport) = (Contacts::of(ctx.server), ctx.session.client.transport);
    let lines = routing.topology.nodes.values().map(|n| node_line(&routing, &contacts, n, transport) + "\n");
    let text: String = lines.collect();
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER INFO`
const CLUSTER_INFO: ServerCommand =
    plain("cluster|info", cluster_info, 2, LOADING | STALE, "3.0.0").tips(&["nondeterministic_output"]);
fn cluster_info(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let routing = ctx.server.routing();
    let topology = &routing.topology;
    let slots_of = |s: &Shard| s.slots.iter().map(|r| r.iter().count()).sum::<usize>();
    let assigned: usize = topology.shards.values().map(slots_of).sum();
    let served: usize = topology.shards.values().filter(|s| s.primary.is_some()).map(slots_of).sum();
    let unhealthy = topology
        .nodes
        .values()
        .filter(|n| topology.shard_of(&n.id).is_some_and(|s| !is_healthy(s, n)))
        .count();
    let current = topology.shards.values().map(|s| s.term.get()).max().unwrap_or(0);
    let mine = routing.my_shard().map_or(0, |s| s.term.get());
    let fields = [
        ("cluster_slots_assigned", assigned as u64),
        ("cluster_slots_ok", served as u64),
        ("cluster_slots_pfail", 0),
        ("cluster_slots_fail", (assigned - served) as u64),
        ("cluster_nodes_pfail", unhealthy as u64),
        ("cluster_nodes_fail", 0),
        ("cluster_voting_nodes_pfail", 0),
        ("cluster_voting_nodes_fail", 0),
        ("cluster_known_nodes", topology.nodes.len() as u64),
        ("cluster_size", topology.shards.values().filter(|s| !s.slots.is_empty()).count() as u64),
        ("cluster_current_epoch", current),
        ("cluster_my_epoch", mine),
        ("cluster_topology_version", topology.version),
    ];
    let mut text = format!("cluster_state:{}\r\n", if routing.covered { "ok" } else { "fail" });
    for (name, value) in fields {
        write!(text, "{name}:{value}\r\n").expect("writing to a String cannot fail");
    }
    ctx.out.verbatim("txt", text.as_bytes());
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER MYID`
const CLUSTER_MYID: ServerCommand = plain("cluster|myid", cluster_myid, 2, LOADING | STALE, "3.0.0");
fn cluster_myid(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    match &ctx.server.routing().me {
        Some(id) => ctx.out.bulk_str(id.as_str()),
        None => return Err(CommandError::ClusterDown),
    }
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER MYSHARDID`
const CLUSTER_MYSHARDID: ServerCommand =
    plain("cluster|myshardid", cluster_myshardid, 2, LOADING | STALE, "7.2.0")
        .tips(&["nondeterministic_output"]);
fn cluster_myshardid(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    match &ctx.server.routing().my_shard {
        Some(id) => ctx.out.bulk_str(id.as_str()),
        None => return Err(CommandError::ClusterDown),
    }
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER KEYSLOT key`
const CLUSTER_KEYSLOT: ServerCommand = plain("cluster|keyslot", cluster_keyslot, 3, STALE, "3.0.0");
fn cluster_keyslot(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    ctx.out.integer(i64::from(Slot::of(args.at(2)).number()));
    Ok(ServerOutcome::Reply)
}

fn parse_slot(argument: &[u8]) -> Option<Slot> {
    Slot::new(u16::try_from(keyward_proto::resp::number::parse_i64(argument)?).ok()?)
}

/// `CLUSTER COUNTKEYSINSLOT slot`
const CLUSTER_COUNTKEYSINSLOT: ServerCommand =
    plain("cluster|countkeysinslot", cluster_countkeysinslot, 3, STALE, "3.0.0").scope(Scope::Walk);
fn cluster_countkeysinslot(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    parse_i64_arg(args.at(2))?;
    let slot = parse_slot(args.at(2)).ok_or_else(|| CommandError::err("Invalid slot"))?;
    let count = ctx.keys.with_slot(slot, |state| state.dbs().map(|(_, t)| t.len()).sum());
    ctx.out.len(count);
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER GETKEYSINSLOT slot count`
const CLUSTER_GETKEYSINSLOT: ServerCommand =
    plain("cluster|getkeysinslot", cluster_getkeysinslot, 4, STALE, "3.0.0")
        .tips(&["nondeterministic_output"])
        .scope(Scope::Walk);
fn cluster_getkeysinslot(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    parse_i64_arg(args.at(2))?;
    let count = parse_i64_arg(args.at(3))?;
    let invalid = || CommandError::err("Invalid slot or number of keys");
    let slot = parse_slot(args.at(2)).ok_or_else(invalid)?;
    let count = usize::try_from(count).map_err(|_| invalid())?;
    let keys: Vec<Box<[u8]>> = ctx.keys.with_slot(slot, |state| {
        state.dbs().flat_map(|(_, t)| t.iter()).take(count).map(|e: &Entry| e.key().into()).collect()
    });
    ctx.out.array(keys.len());
    keys.iter().for_each(|key| ctx.out.bulk(key));
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER LINKS`: a stream carries messages both ways, so it is a link to the other node and one from it, next to each
/// other as Valkey's are.
///
/// Differs from Valkey: a stream's buffers are those of gRPC and of the write log, and not counted here.
const CLUSTER_LINKS: ServerCommand =
    plain("cluster|links", cluster_links, 2, STALE, "7.0.0").tips(&["nondeterministic_output"]);
fn cluster_links(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let links = links(ctx.server);
    ctx.out.array(2 * links.len());
    for (link, direction) in links.iter().flat_map(|link| [(link, "to"), (link, "from")]) {
        ctx.out.map(6);
        ctx.out.bulk_str("direction");
        ctx.out.bulk_str(direction);
        ctx.out.bulk_str("node");
        ctx.out.bulk_str(link.peer.as_str());
        ctx.out.bulk_str("create-time");
        ctx.out.integer(wall_millis(&ctx.server.clock, link.opened_at));
        ctx.out.bulk_str("events");
        ctx.out.bulk_str("r");
        ctx.out.bulk_str("send-buffer-allocated");
        ctx.out.integer(0);
        ctx.out.bulk_str("send-buffer-used");
        ctx.out.integer(0);
    }
    Ok(ServerOutcome::Reply)
}

fn known_node<'a>(routing: &'a Routing, argument: &[u8]) -> Result<&'a Node, CommandError> {
    let text = String::from_utf8_lossy(argument);
    let node = NodeId::parse(&text).and_then(|id| routing.topology.nodes.get(&id));
    node.ok_or_else(|| CommandError::quoting("Unknown node ", argument, ""))
}

/// `CLUSTER REPLICAS node-id`
const CLUSTER_REPLICAS: ServerCommand =
    plain("cluster|replicas", cluster_replicas, 3, ADMIN | STALE, "5.0.0").tips(&["nondeterministic_output"]);
fn cluster_replicas(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let routing = ctx.server.routing();
    let node = known_node(&routing, args.at(2))?;
    let shard = routing.topology.shard_of(&node.id);
    let Some(shard) = shard.filter(|s| is_primary(s, node)) else {
        return Err(CommandError::err("The specified node is not a master"));
    };
    let replicas: Vec<&Node> = routing.topology.members(&shard.id).filter(|n| n.id != node.id).collect();
    let contacts = Contacts::of(ctx.server);
    ctx.out.array(replicas.len());
    for replica in replicas {
        ctx.out.bulk_str(&node_line(&routing, &contacts, replica, ctx.session.client.transport));
    }
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER SLAVES node-id`
const CLUSTER_SLAVES: ServerCommand =
    plain("cluster|slaves", cluster_slaves, 3, ADMIN | STALE, "3.0.0").tips(&["nondeterministic_output"]);
fn cluster_slaves(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    cluster_replicas(ctx, args)
}

/// `CLUSTER COUNT-FAILURE-REPORTS node-id`: failures are reported to the sentinels, not to nodes.
const CLUSTER_COUNT_FAILURE_REPORTS: ServerCommand =
    plain("cluster|count-failure-reports", cluster_count_failure_reports, 3, ADMIN | STALE, "3.0.0")
        .tips(&["nondeterministic_output"]);
fn cluster_count_failure_reports(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    known_node(&ctx.server.routing(), args.at(2))?;
    ctx.out.integer(0);
    Ok(ServerOutcome::Reply)
}

/// `CLUSTER FAILOVER [FORCE | TAKEOVER]`: `OK` once this node is the primary.
const CLUSTER_FAILOVER: ServerCommand =
    plain("cluster|failover", cluster_failover, -2, NO_ASYNC_LOADING | ADMIN | STALE, "3.0.0");
fn cluster_failover(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    let (force, takeover) = match args.get(2) {
        None => (false, false),
        Some(word) if ascii_eq(word, "force") && args.len() == 3 => (true, false),
        Some(word) if ascii_eq(word, "takeover") && args.len() == 3 => (false, true),
        Some(_) => return Err(CommandError::Syntax),
    };
    let routing = ctx.server.routing();
    let Some(me) = routing.my_node() else { return Err(CommandError::ClusterDown) };
    if routing.my_shard().is_some_and(|s| is_primary(s, me)) {
        return Err(CommandError::err("You should send CLUSTER FAILOVER to a replica"));
    }
    if routing.my_primary().is_none() && !force && !takeover {
        return Err(CommandError::err("Master is down or failed, please use CLUSTER FAILOVER FORCE"));
    }
    Ok(ServerOutcome::Await(Request::Failover { force, takeover }))
}

/// `CLUSTER RESET [HARD | SOFT]`: refused.
const CLUSTER_RESET: ServerCommand =
    plain("cluster|reset", cluster_reset, -2, ADMIN | STALE | NOSCRIPT, "3.0.0");
fn cluster_reset(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    if let Some(word) = args.get(2)
        && !(args.len() == 3 && (ascii_eq(word, "hard") || ascii_eq(word, "soft")))
    {
        return Err(CommandError::Syntax);
    }
    Err(CommandError::err(
        "CLUSTER RESET is not supported: membership belongs to the sentinels; use 'keyward-sentinel remove-node'",
    ))
}

/// What to do instead of what Valkey has and the sentinels do here: the error of such a subcommand.
pub(crate) fn instead(subcommand: &[u8]) -> Option<String> {
    const SLOTS: &str = "the sentinels give out all slots when the shards form, as many as 'keyward-sentinel --shards' \
                         says, and none can be moved yet";
    const TERM: &str =
        "an epoch is the term of a shard: 'keyward-sentinel failover SHARD' begins the next one";
    let name = std::str::from_utf8(subcommand).ok()?.to_ascii_uppercase();
    let text = match name.as_str() {
        "MEET" => "a node joins by itself: start it with '--sentinels HOST:BUS-PORT,...'",
        "FORGET" => "end the node and use 'keyward-sentinel remove-node NODE'",
        "REPLICATE" => {
            "the sentinels choose the shard of a node when it joins ('keyward-sentinel --replicas'); to change who leads \
             use 'keyward-sentinel failover SHARD --to NODE', or CLUSTER FAILOVER on the replica"
        }
        "ADDSLOTS"
        | "ADDSLOTSRANGE"
        | "DELSLOTS"
        | "DELSLOTSRANGE"
        | "FLUSHSLOT"
        | "FLUSHSLOTS"
        | "SETSLOT"
        | "MIGRATESLOTS"
        | "CANCELSLOTMIGRATIONS"
        | "GETSLOTMIGRATIONS"
        | "SYNCSLOTS" => SLOTS,
        "BUMPEPOCH" | "SET-CONFIG-EPOCH" => TERM,
        "SAVECONFIG" => "there is nothing to save: the sentinels keep the topology, on their disks",
        _ => return None,
    };
    Some(format!("CLUSTER {name} is not supported: {text}"))
}

const HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COUNTKEYSINSLOT <slot>",
    "    Number of keys of a slot on this node.",
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Always 0: failures are reported to the sentinels.",
    "FAILOVER [FORCE|TAKEOVER]",
    "    Make this replica the primary: by hand-off, FORCE without the primary's help,",
    "    TAKEOVER even if it may lose acknowledged writes.",
    "GETKEYSINSLOT <slot> <count>",
    "    Some keys of a slot on this node.",
    "INFO",
    "    State of the cluster.",
    "KEYSLOT <key>",
    "    The hash slot of a key.",
    "LINKS",
    "    This node's streams of replication.",
    "MYID",
    "    This node's ID.",
    "MYSHARDID",
    "    The ID of this node's shard.",
    "NODES",
    "    All nodes with their roles and slots.",
    "REPLICAS <node-id>",
    "    The replicas of a primary.",
    "RESET",
    "    Refused: membership belongs to the sentinels.",
    "SHARDS",
    "    All shards with their nodes.",
    "SLOTS",
    "    Slot ranges with the nodes that serve them.",
    "HELP",
    "    Print this help.",
];

/// `CLUSTER HELP`
const CLUSTER_HELP: ServerCommand = plain("cluster|help", cluster_help, 2, LOADING | STALE, "5.0.0");
fn cluster_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    ctx.out.array(HELP.len());
    HELP.iter().for_each(|line| ctx.out.simple(line));
    Ok(ServerOutcome::Reply)
}

/// `READONLY`
const READONLY: ServerCommand =
    plain("readonly", readonly, 1, FAST | LOADING | STALE, "3.0.0").categories(category::CONNECTION);
fn readonly(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.session.readonly = true;
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `READWRITE`
const READWRITE: ServerCommand =
    plain("readwrite", readwrite, 1, FAST | LOADING | STALE, "3.0.0").categories(category::CONNECTION);
fn readwrite(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.session.readonly = false;
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `ASKING`
const ASKING: ServerCommand = plain("asking", asking, 1, FAST, "3.0.0").categories(category::CONNECTION);
fn asking(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    require_cluster(ctx)?;
    ctx.session.asking = true;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}
