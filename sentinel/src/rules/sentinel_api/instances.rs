//! How Sentinel describes primaries, replicas and other sentinels: lists of field names and values.

use std::time::Duration;

use keyward_proto::ids::NodeId;
use keyward_proto::resp::ReplyWriter;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Node, SentinelAddress, Shard, Topology, Transport};

use crate::rules::events::sentinel_run_id;
use crate::rules::health::{Health, Hosts};
use crate::rules::topology::RaftId;

/// What a command may look at: one moment's knowledge of this sentinel.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub topology: &'a Topology,
    pub health: &'a Health,
    pub now: Monotonic,
    pub own_id: RaftId,
    pub own_name: &'a str,
    pub port: u16,
    /// How the client is connected that asks: it is told ports to which it can connect in the same way.
    pub transport: Transport,
    pub has_leader: bool,
    pub hosts: Hosts,
    pub down_after: Duration,
    pub failover_in_progress: bool,
    pub started: Monotonic,
    pub process_id: u32,
    pub connections: usize,
    pub connections_total: u64,
    pub commands_total: u64,
}

/// A shard as the Sentinel API has it.
#[derive(Debug, Clone)]
pub(crate) struct Monitored<'a> {
    pub name: String,
    pub shard: &'a Shard,
}

impl<'a> View<'a> {
    /// Shards that clients can ask for: those that have, or had, a primary.
    pub(crate) fn monitored(&self) -> Vec<Monitored<'a>> {
        let shards = self.topology.named_shards().into_iter();
        shards.map(|(name, shard)| Monitored { name, shard }).collect()
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<Monitored<'a>> {
        self.monitored().into_iter().find(|m| m.name.as_bytes() == name)
    }

    /// The primary; while there is none the member that was, or may become, the primary.
    pub(crate) fn primary_of(&self, shard: &'a Shard) -> Option<&'a Node> {
        let id =
            shard.primary.as_ref().or_else(|| shard.restarted.first()).or_else(|| shard.in_sync.first())?;
        self.topology.nodes.get(id)
    }

    pub(crate) fn replicas_of(&self, shard: &'a Shard) -> Vec<&'a Node> {
        let primary = self.primary_of(shard).map(|n| &n.id);
        self.topology.members(&shard.id).filter(|n| Some(&n.id) != primary).collect()
    }

    pub(crate) fn host(&self, node: &Node) -> String {
        self.health.client_host(node, self.hosts)
    }

    /// Differs from Valkey, whose sentinels know one port of a node: a client with TLS is told the one for TLS.
    pub(crate) fn port(&self, node: &Node) -> u16 {
        node.reachable_port(self.transport)
    }

    pub(crate) fn quorum(&self) -> usize {
        self.topology.sentinels.len() / 2 + 1
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = (RaftId, &'a SentinelAddress)> {
        let own = self.own_id;
        self.topology.sentinels.iter().filter(move |(id, _)| **id != own).map(|(id, address)| (*id, address))
    }

    /// Sentinels that answer, this one included. One that nobody has looked at yet, just after the start, counts while there
    /// is a leader: a majority has chosen it.
    pub(crate) fn usable_sentinels(&self) -> usize {
        let answers =
            |id: &RaftId| self.health.sentinels.get(id).map_or(self.has_leader, |other| other.answers);
        1 + self.others().filter(|(id, _)| answers(id)).count()
    }

    fn millis_since(&self, then: Monotonic) -> String {
        self.now.since(then).as_millis().to_string()
    }

    /// Fields that every instance begins with.
    fn common(&self, name: String, host: String, port: u16, run_id: &str, flags: String) -> Fields {
        let mut fields = Fields::default();
        fields.add("name", name).add("ip", host).add("port", port).add("runid", run_id).add("flags", flags);
        fields.add("link-pending-commands", 0).add("link-refcount", 1).add("last-ping-sent", 0);
        fields
    }

    fn seen(&self, fields: &mut Fields, id: &NodeId) {
        let node = self.health.nodes.get(id);
        let answered = node.map_or_else(|| "0".into(), |n| self.millis_since(n.answered_at));
        fields.add("last-ok-ping-reply", &answered).add("last-ping-reply", &answered);
        if node.is_some_and(|n| n.is_down) {
            fields.add("s-down-time", &answered);
        }
    }

    fn role_reported(&self, fields: &mut Fields, id: &NodeId, expected: &str) {
        let node = self.health.nodes.get(id);
        let role = match node.map(|n| n.role.as_str()) {
            Some("primary") => "master",
            Some("replica") => "slave",
            _ => expected,
        };
        let since = node.map_or_else(|| "0".into(), |n| self.millis_since(n.role_since));
        let refreshed = node.map_or_else(|| "0".into(), |n| self.millis_since(n.answered_at));
        fields.add("down-after-milliseconds", self.down_after.as_millis());
        fields.add("info-refresh", refreshed).add("role-reported", role).add("role-reported-time", since);
    }

    pub(crate) fn primary_fields(&self, monitored: &Monitored<'a>) -> Fields {
        let shard = monitored.shard;
        let Some(node) = self.primary_of(shard) else { return Fields::default() };
        let is_down = self.health.is_down(&node.id) || shard.primary.is_none();
        let flags = if is_down { "master,s_down,o_down" } else { "master" };
        let mut fields = self.common(
            monitored.name.clone(),
            self.host(node),
            self.port(node),
            node.id.as_str(),
            flags.into(),
        );
        self.seen(&mut fields, &node.id);
        self.role_reported(&mut fields, &node.id, "master");
        fields.add("config-epoch", shard.term);
        fields.add("num-slaves", self.replicas_of(shard).len());
        fields.add("num-other-sentinels", self.others().count());
        fields.add("quorum", self.quorum()).add("failover-timeout", 180_000).add("parallel-syncs", 1);
        fields
    }

    pub(crate) fn replica_fields(&self, shard: &'a Shard, node: &Node) -> Fields {
        let is_down = self.health.is_down(&node.id);
        let flags = if is_down { "slave,s_down,disconnected" } else { "slave" };
        let (host, port) = (self.host(node), self.port(node));
        let name = format!("{host}:{port}");
        let mut fields = self.common(name, host, port, node.id.as_str(), flags.into());
        self.seen(&mut fields, &node.id);
        self.role_reported(&mut fields, &node.id, "slave");
        let status = self.health.nodes.get(&node.id).and_then(|n| n.status.as_ref());
        let silent = status.map_or(0, |s| s.silent_nanos / 1_000_000);
        let follows = !is_down && status.is_some_and(|s| s.role == "replica" && s.term == shard.term.get());
        fields.add("master-link-down-time", if follows { 0 } else { silent });
        fields.add("master-link-status", if follows { "ok" } else { "err" });
        let primary = self.primary_of(shard);
        fields.add("master-host", primary.map_or_else(|| "?".into(), |p| self.host(p)));
        fields.add("master-port", primary.map_or(0, |p| self.port(p)));
        fields.add("slave-priority", node.replica_priority);
        fields.add("slave-repl-offset", status.and_then(|s| s.last).map_or(0, |last| last.index));
        fields.add("replica-announced", 1);
        fields
    }

    pub(crate) fn sentinel_fields(&self, id: RaftId, address: &SentinelAddress) -> Fields {
        let health = self.health.sentinels.get(&id);
        let flags = if health.is_none_or(|s| s.answers) { "sentinel" } else { "s_down,sentinel" };
        let run_id = sentinel_run_id(id, &address.name);
        let mut fields = self.common(
            run_id.clone(),
            address.host.clone(),
            address.client_port(self.transport),
            &run_id,
            flags.into(),
        );
        let answered = health.map_or_else(|| "0".into(), |s| self.millis_since(s.answered_at));
        fields.add("last-ok-ping-reply", &answered).add("last-ping-reply", &answered);
        fields.add("down-after-milliseconds", self.down_after.as_millis());
        fields.add("last-hello-message", &answered).add("voted-leader", "?").add("voted-leader-epoch", 0);
        fields
    }
}

/// Field names and values in order: a map in RESP3.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn add(&mut self, name: &'static str, value: impl ToString) -> &mut Self {
        self.0.push((name, value.to_string()));
        self
    }

    pub(crate) fn write(&self, out: &mut ReplyWriter<'_>) {
        out.map(self.0.len());
        for (name, value) in &self.0 {
            out.bulk_str(name);
            out.bulk_str(value);
        }
    }
}
