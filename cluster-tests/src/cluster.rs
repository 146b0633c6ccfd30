//! A cluster of real processes, on the loopback address or on hosts of their own: sentinels, nodes, and questions about
//! their state.
//!
//! A node's role is asked from the node itself. One that is stopped or gone has none; questions to it end after
//! a short deadline.
#![allow(clippy::disallowed_methods, reason = "a shell: runs processes and waits for them")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::hosts::Hosts;
use crate::processes::{Server, free_port, wait_until};
use crate::programs;
use crate::resp_client::{Connection, Frame};

/// How long a healthy server takes to answer a question, at most.
const ANSWER_DEADLINE: Duration = Duration::from_millis(300);

/// How long a cluster may take to become whole again after a fault has ended.
pub const HEAL_DEADLINE: Duration = Duration::from_secs(30);

/// A cluster's processes. They end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    sentinel_program: PathBuf,
    pub sentinels: Vec<Server>,
    pub nodes: Vec<Server>,
    /// Nodes first, then sentinels. Goes last: its processes end before it is taken down.
    pub hosts: Hosts,
}

/// Nodes and sentinels.
const NODES: usize = 3;
const SENTINELS: usize = 3;
/// A host for each.
pub const HOSTS: usize = NODES + SENTINELS;

/// A string key with its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// How clients see a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One shard, Sentinel API.
    Replicated,
    /// Cluster API.
    Cluster,
}

impl Cluster {
    /// Three sentinels and one shard of three nodes, all in sync; `node_args` are added to each node's.
    pub fn start(mode: Mode, node_args: &[&str]) -> Result<Self, String> {
        Self::start_on(Hosts::Loopback, mode, node_args)
    }

    /// The same, each process on a host of its own if there are [`HOSTS`] of them.
    pub fn start_on(hosts: Hosts, mode: Mode, node_args: &[&str]) -> Result<Self, String> {
        let sentinel_program = programs::keyward("keyward-sentinel")?;
        let sentinels = start_sentinels(&hosts, &sentinel_program)?;
        let buses: Vec<String> = sentinels.iter().map(Server::bus_addr).collect();
        let program = programs::keyward("keyward-node")?;
        let enabled = if mode == Mode::Cluster { "yes" } else { "no" };
        let mut nodes = Vec::new();
        for host in 0..NODES {
            let node = Server::spawn_at(&hosts, host, &program, free_port(), folder()?, |port, dir| {
                let (port, dir, buses) = (port.to_string(), dir.to_string_lossy(), buses.join(","));
                let address = hosts.address(host);
                let own = [
                    ["--port", &port],
                    ["--dir", &dir],
                    ["--sentinels", &buses],
                    ["--cluster-enabled", enabled],
                    ["--bind", &address],
                    ["--protected-mode", "no"],
                ];
                own.as_flattened().iter().chain(node_args).map(|arg| (*arg).to_owned()).collect()
            })?;
            nodes.push(node);
        }
        let mut cluster = Self { sentinel_program, sentinels, nodes, hosts };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// Waits until one node is primary and all others are in sync with it; says which one.
    pub fn wait_until_whole(&mut self) -> Result<usize, String> {
        self.wait_for_replicas(self.nodes.len() - 1)
    }

    /// Waits until one node is primary with so many replicas in sync; says which one.
    pub fn wait_for_replicas(&mut self, replicas: usize) -> Result<usize, String> {
        let mut primary = None;
        wait_until(HEAL_DEADLINE, || {
            primary = self.primary().filter(|_| self.in_sync() == 1 + replicas);
            primary.is_some()
        });
        primary.ok_or_else(|| format!("no primary with {replicas} replicas in sync:\n{}", self.describe()))
    }

    /// The node that says it is the primary, of several the one which serves.
    pub fn primary(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|&node| {
            let role = self.ask(node, &["ROLE"]);
            role.is_some_and(|role| role.items.first().is_some_and(|word| word.text() == b"master"))
        })
    }

    /// Waits until another node than `old` is primary and answers a write.
    pub fn wait_for_other_primary(&self, old: usize) -> Result<usize, String> {
        let mut primary = None;
        wait_until(HEAL_DEADLINE, || {
            primary = self.primary().filter(|&node| node != old && self.accepts_writes(node));
            primary.is_some()
        });
        primary.ok_or_else(|| format!("no other primary than node {old}:\n{}", self.describe()))
    }

    pub fn accepts_writes(&self, node: usize) -> bool {
        self.ask(node, &["SET", "{probe}:written", "1"]).is_some_and(|reply| reply.text() == b"OK")
    }

    /// Members of the in-sync set as the sentinels have it, the primary included. A member that has restarted
    /// and not caught up does not count.
    pub fn in_sync(&self) -> usize {
        let report = self.status().unwrap_or_default();
        let nodes =
            report["shards"].as_array().into_iter().flatten().filter_map(|shard| shard["nodes"].as_array());
        nodes.flatten().filter(|node| node["in_sync"] == true && node["restarted"] != true).count()
    }

    /// What the first sentinel that answers reports.
    fn status(&self) -> Option<Value> {
        self.sentinels.iter().find_map(|sentinel| {
            let bus = sentinel.bus_addr();
            let output =
                Command::new(&self.sentinel_program).args(["status", "--json", "--sentinel", &bus]).output();
            serde_json::from_slice(&output.ok()?.stdout).ok()
        })
    }

    /// Asks a node; `None` if it does not answer in time.
    pub fn ask(&self, node: usize, command: &[&str]) -> Option<Frame> {
        ask(&self.nodes[node], command)
    }

    /// The index of the sentinel that leads the group.
    pub fn leading_sentinel(&self) -> Option<usize> {
        let report = self.status()?;
        let leader = report["sentinels"].as_array()?.iter().find(|sentinel| sentinel["leader"] == true)?;
        (0..self.sentinels.len()).find(|&index| leader["name"] == sentinel_name(index))
    }

    /// Addresses for a cluster client.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("redis://{}", node.addr())).collect()
    }

    /// Roles and last words, for an error.
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let role = self.ask(index, &["ROLE"]).map_or("no answer".into(), |role| role.to_string());
            let info = self.ask(index, &["INFO", "replication"]).map_or(String::new(), |info| info.string());
            lines.push(format!("node {index} at {}: {role}\n{info}\n{}", node.addr(), node.log_end()));
        }
        for (index, sentinel) in self.sentinels.iter().enumerate() {
            lines.push(format!("sentinel {index} at {}:\n{}", sentinel.addr(), sentinel.log_end()));
        }
        lines.join("\n")
    }

    /// Every string and list and its value as this node has it, sorted; a list as its elements parted by spaces. Asks
    /// for READONLY first.
    pub fn strings(&self, node: usize) -> Result<Vec<KeyValue>, String> {
        let error = |error: &dyn std::fmt::Display| format!("node {node}: {error}");
        let mut connection = Connection::connect(&self.nodes[node].addr()).map_err(|e| error(&e))?;
        connection.call(&["READONLY"]).map_err(|e| error(&e))?;
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let page = connection.call(&["SCAN", &cursor, "COUNT", "1000"]).map_err(|e| error(&e))?;
            let [next, keys] = page.items.as_slice() else { return Err(error(&page)) };
            for key in &keys.items {
                connection.send(&[b"GET", key.text()]);
                connection.send(&[b"LRANGE".as_slice(), key.text(), b"0", b"-1"]);
            }
            for key in &keys.items {
                let string = connection.reply().map_err(|e| error(&e))?;
                let list = connection.reply().map_err(|e| error(&e))?;
                let elements: Vec<&[u8]> = list.items.iter().map(Frame::text).collect();
                let value = if string.is_error() { elements.join(&b' ') } else { string.text().to_vec() };
                found.push((key.text().to_vec(), value));
            }
            if next.text() == b"0" {
                break;
            }
            cursor = next.string();
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Waits until all nodes hold the same strings and lists; an error says where they differ.
    pub fn wait_until_converged(&self) -> Result<usize, String> {
        let end = Instant::now() + HEAL_DEADLINE;
        loop {
            let all: Vec<_> =
                (0..self.nodes.len()).map(|node| self.strings(node)).collect::<Result<_, _>>()?;
            if all.iter().all(|strings| *strings == all[0]) {
                return Ok(all[0].len());
            }
            if end <= Instant::now() {
                let sizes: Vec<usize> = all.iter().map(Vec::len).collect();
                let first =
                    all.iter().flatten().find(|entry| !all.iter().all(|strings| strings.contains(entry)));
                return Err(format!("the nodes hold {sizes:?} keys, and not all of them {first:?}"));
            }
        }
    }
}

fn sentinel_name(index: usize) -> String {
    format!("s{}", index + 1)
}

fn folder() -> Result<TempDir, String> {
    TempDir::new().map_err(|error| error.to_string())
}

fn ask(server: &Server, command: &[&str]) -> Option<Frame> {
    let mut connection = Connection::connect_within(&server.addr(), ANSWER_DEADLINE).ok()?;
    connection.call(command).ok()
}

/// Starts three sentinels that know each other's addresses.
fn start_sentinels(hosts: &Hosts, program: &Path) -> Result<Vec<Server>, String> {
    let ports: Vec<u16> = (0..SENTINELS).map(|_| free_port()).collect();
    let bus_port = |port: u16| port + 10_000;
    let members = ports
        .iter()
        .enumerate()
        .map(|(i, &port)| format!("{}={}:{}", sentinel_name(i), hosts.address(NODES + i), bus_port(port)));
    let initial = members.collect::<Vec<_>>().join(",");
    let mut sentinels = Vec::new();
    for (index, &port) in ports.iter().enumerate() {
        let sentinel = Server::spawn_at(hosts, NODES + index, program, port, folder()?, |port, dir| {
            let (dir, name) = (dir.to_string_lossy(), sentinel_name(index));
            let (port, bus) = (port.to_string(), bus_port(port).to_string());
            let args =
                ["--dir", &dir, "--port", &port, "--bus-port", &bus, "--name", &name, "--initial", &initial];
            args.iter().map(|arg| (*arg).to_owned()).collect()
        })?;
        sentinels.push(sentinel);
    }
    for sentinel in &mut sentinels {
        sentinel.wait_until_answering()?;
    }
    Ok(sentinels)
}
