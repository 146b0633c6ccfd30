//! A cluster of real processes, on the loopback address or on hosts of their own: sentinels, nodes, and questions about
//! their state.
//!
//! A node's role is asked from the node itself. One that is stopped or gone has none; questions to it end after
//! a short deadline.
#![allow(clippy::disallowed_methods, reason = "a shell: runs processes and waits for them")]

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::disks::{FailingCalls, folder, small_disk};
use crate::hosts::Hosts;
use crate::processes::{CLUSTER_SECRET, SECRET_VARIABLE, Server, free_port, wait_until};
use crate::programs;
use crate::resp_client::{Connection, Frame};
use crate::wall_clocks::WallClocks;

/// How long a healthy server takes to answer a question, at most.
const ANSWER_DEADLINE: Duration = Duration::from_millis(300);

/// How long a cluster may take to become whole again after a fault has ended.
pub const HEAL_DEADLINE: Duration = Duration::from_secs(30);

/// A cluster's processes. They end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    sentinel_program: PathBuf,
    shape: Shape,
    pub sentinels: Vec<Server>,
    pub nodes: Vec<Server>,
    /// Where clients find the nodes. A lock, because these may move while clients are running.
    pub node_addrs: Arc<RwLock<Vec<String>>>,
    /// Of the nodes, if these are not simply the machine's.
    wall_clocks: Option<WallClocks>,
    /// Nodes first, then sentinels. Goes last: its processes end before it is taken down.
    pub hosts: Hosts,
}

/// How many shards of how many nodes; sentinels are always three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub shards: usize,
    pub nodes_per_shard: usize,
}

impl Shape {
    pub const ONE_BY_THREE: Shape = Shape { shards: 1, nodes_per_shard: 3 };
    pub const THREE_BY_TWO: Shape = Shape { shards: 3, nodes_per_shard: 2 };

    pub fn nodes(self) -> usize {
        self.shards * self.nodes_per_shard
    }

    /// A host for each process.
    pub fn hosts(self) -> usize {
        self.nodes() + SENTINELS
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.shards, self.nodes_per_shard)
    }
}

/// The nodes of one shard, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardNodes {
    pub primary: usize,
    pub replicas: Vec<usize>,
    /// Ranges of slots.
    pub slots: Vec<RangeInclusive<u16>>,
}

const SENTINELS: usize = 3;
/// Of a shard with two replicas, a host for each process.
pub const HOSTS: usize = 3 + SENTINELS;
/// Room on a node's own disk.
const DISK_MEBIBYTES: u32 = 384;

/// A string key with its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A key with its value and what PEXPIRETIME says.
type Entry = (KeyValue, Option<i64>);

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
        Self::start_shaped(hosts, mode, Shape::ONE_BY_THREE, None, node_args)
    }

    /// Any shape, each process on a host of its own if there are [`Shape::hosts`] of them. On hosts of their own nodes
    /// also have disks of their own. Sentinels never have wall clocks of their own: the times in their logs tell when
    /// something happened.
    pub fn start_shaped(
        hosts: Hosts,
        mode: Mode,
        shape: Shape,
        wall_clocks: Option<WallClocks>,
        node_args: &[&str],
    ) -> Result<Self, String> {
        Self::start_all(hosts, mode, shape, wall_clocks, &Vec::new, node_args)
    }

    /// Three sentinels and one shard of three nodes; `sentinel_args` are asked for each sentinel.
    pub fn start_with(
        mode: Mode,
        sentinel_args: &dyn Fn() -> Vec<String>,
        node_args: &[&str],
    ) -> Result<Self, String> {
        Self::start_all(Hosts::Loopback, mode, Shape::ONE_BY_THREE, None, sentinel_args, node_args)
    }

    fn start_all(
        hosts: Hosts,
        mode: Mode,
        shape: Shape,
        wall_clocks: Option<WallClocks>,
        sentinel_args: &dyn Fn() -> Vec<String>,
        node_args: &[&str],
    ) -> Result<Self, String> {
        let sentinel_program = programs::keyward("keyward-sentinel")?;
        let sentinels = start_sentinels(&hosts, &sentinel_program, shape, sentinel_args)?;
        let bus =
            |(i, s): (usize, &Server)| format!("{}:{}", hosts.name(shape.nodes() + i), s.port() + 10_000);
        let buses = sentinels.iter().enumerate().map(bus).collect::<Vec<_>>().join(",");
        let program = programs::keyward("keyward-node")?;
        let enabled = if mode == Mode::Cluster { "yes" } else { "no" };
        let mut nodes = Vec::new();
        for host in 0..shape.nodes() {
            let dir = if hosts.are_namespaces() { small_disk(DISK_MEBIBYTES)? } else { folder()? };
            let (program, first) = match &wall_clocks {
                None => (program.clone(), Vec::new()),
                Some(clocks) => clocks.start_with(host, &program),
            };
            let node = Server::spawn_at(&hosts, host, &program, free_port(), dir, |port, dir| {
                let (port, dir) = (port.to_string(), dir.to_string_lossy());
                let own = [
                    ["--port", &port],
                    ["--dir", &dir],
                    ["--sentinels", &buses],
                    ["--cluster-enabled", enabled],
                    ["--bind", hosts.bind_address()],
                    ["--protected-mode", "no"],
                ];
                let args = own.as_flattened().iter().chain(node_args).map(|arg| (*arg).to_owned());
                first.iter().cloned().chain(args).collect()
            })?;
            nodes.push(node);
        }
        let node_addrs = Arc::new(RwLock::new(nodes.iter().map(Server::addr).collect()));
        let mut cluster = Self { sentinel_program, shape, sentinels, nodes, node_addrs, wall_clocks, hosts };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A process by the number of its host.
    pub fn process(&mut self, host: usize) -> &mut Server {
        let nodes = self.nodes.len();
        if host < nodes { &mut self.nodes[host] } else { &mut self.sentinels[host - nodes] }
    }

    /// Every process, by the number of its host.
    pub fn all_hosts(&self) -> std::ops::Range<usize> {
        0..self.nodes.len() + self.sentinels.len()
    }

    /// Ends every process, gives every host another address, and starts them again.
    pub fn move_everything(&mut self) -> Result<(), String> {
        self.all_hosts().for_each(|host| self.process(host).kill());
        self.hosts.renumber()?;
        let hosts = std::mem::replace(&mut self.hosts, Hosts::Loopback);
        self.all_hosts().for_each(|host| self.process(host).move_to(&hosts, host));
        self.hosts = hosts;
        *self.node_addrs.write().expect("no client panics") = self.nodes.iter().map(Server::addr).collect();
        self.all_hosts().try_for_each(|host| self.process(host).restart())
    }

    /// Whatever a node does to its log on disk takes so long from now on.
    ///
    /// # Errors
    /// It has none, or `strace` refuses.
    pub fn slow_disk(&self, node: usize, each: Duration) -> Result<FailingCalls, String> {
        let dir = self.nodes[node].dir().join("appendonlydir");
        let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        FailingCalls::slow_files(self.nodes[node].pid(), &files, each)
    }

    /// All sentinels lose their folders. Later the nodes are restarted with what they have, and an operator lets the
    /// sentinels go on with that.
    ///
    /// # Errors
    /// Not all nodes register, or nothing is adopted.
    pub fn lose_sentinels(&mut self, later: Duration) -> Result<(), String> {
        for sentinel in &mut self.sentinels {
            sentinel.wipe()?;
        }
        self.sentinels.iter_mut().try_for_each(Server::restart)?;
        std::thread::sleep(later);
        self.nodes.iter_mut().try_for_each(Server::restart)?;
        let all = self.nodes.len();
        let are_back = || {
            let report = self.status().unwrap_or_default();
            let spares = report["spares"].as_array();
            spares.is_some_and(|nodes| nodes.iter().filter(|node| node["state"] == "up").count() == all)
        };
        if !wait_until(HEAL_DEADLINE, are_back) {
            let report = self.status().unwrap_or_default();
            return Err(format!("the sentinels that lost their folders do not know all nodes: {report}"));
        }
        let mut said = String::new();
        let is_adopted = wait_until(HEAL_DEADLINE, || {
            let bus = self.sentinels[0].bus_addr();
            let output = self.operator().args(["adopt", "--sentinel", &bus]).output();
            let Ok(output) = output else { return false };
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success()
        });
        if is_adopted { Ok(()) } else { Err(format!("nothing is adopted: {said}")) }
    }

    /// A command to the sentinels.
    fn operator(&self) -> Command {
        let mut command = Command::new(&self.sentinel_program);
        command.env(SECRET_VARIABLE, CLUSTER_SECRET);
        command
    }

    /// Sets the wall clocks of nodes, given by their numbers, so many seconds ahead of this machine's.
    ///
    /// # Errors
    /// They have none of their own.
    pub fn set_wall_clocks(&self, ahead: &[(usize, i64)]) -> Result<(), String> {
        let clocks = self.wall_clocks.as_ref().ok_or("the nodes have no wall clocks of their own")?;
        ahead.iter().try_for_each(|(node, ahead)| clocks.set(*node, *ahead))
    }

    /// How many seconds the wall clock of a node is ahead of this machine's, as TIME tells it.
    pub fn wall_clock_ahead(&self, node: usize) -> Option<i64> {
        let seconds = self.ask(node, &["TIME"])?.items.first()?.integer()?;
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(seconds - i64::try_from(here.as_secs()).ok()?)
    }

    /// The shards with their primaries, as the sentinels have them; `None` while one has no primary.
    pub fn shards(&self) -> Option<Vec<ShardNodes>> {
        self.shards_in(&self.status()?)
    }

    fn shards_in(&self, report: &Value) -> Option<Vec<ShardNodes>> {
        let number = |node: &Value| {
            let addr = node["address"].as_str()?;
            self.nodes.iter().position(|server| server.addr() == addr)
        };
        let shard = |shard: &Value| {
            let nodes = shard["nodes"].as_array()?;
            let (primaries, replicas): (Vec<_>, Vec<_>) =
                nodes.iter().partition(|node| node["role"] == "primary");
            let replicas = replicas.into_iter().map(number).collect::<Option<Vec<_>>>()?;
            let slots = shard["slots"].as_array()?.iter().map(slot_range).collect::<Option<_>>()?;
            Some(ShardNodes { primary: number(primaries.first()?)?, replicas, slots })
        };
        report["shards"].as_array()?.iter().map(shard).collect()
    }

    /// The shards, if every node is in sync with a primary that serves, and every sentinel takes part.
    pub fn whole_shards(&self) -> Option<Vec<ShardNodes>> {
        let report = self.status()?;
        let shards = self.shards_in(&report).filter(|shards| shards.len() == self.shape.shards)?;
        let sentinels = report["sentinels"].as_array()?.iter().filter(|s| s["up"] == true).count();
        let is_whole = in_sync_in(&report) == self.nodes.len() && sentinels == self.sentinels.len();
        (is_whole && shards.iter().all(|shard| self.is_primary(shard.primary))).then_some(shards)
    }

    /// Waits until [`Self::whole_shards`] are there.
    pub fn wait_until_healed(&self) -> Result<Vec<ShardNodes>, String> {
        let mut shards = None;
        wait_until(HEAL_DEADLINE, || {
            shards = self.whole_shards();
            shards.is_some()
        });
        shards.ok_or_else(|| format!("not every shard is whole:\n{}", self.describe()))
    }

    /// Waits until every shard has a primary and all other nodes are in sync with theirs; says which node is the first
    /// shard's primary.
    pub fn wait_until_whole(&mut self) -> Result<usize, String> {
        if self.shape.shards == 1 {
            return self.wait_for_replicas(self.nodes.len() - 1);
        }
        Ok(self.wait_until_healed()?[0].primary)
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
        (0..self.nodes.len()).find(|&node| self.is_primary(node))
    }

    fn is_primary(&self, node: usize) -> bool {
        let role = self.ask(node, &["ROLE"]);
        role.is_some_and(|role| role.items.first().is_some_and(|word| word.text() == b"master"))
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
        in_sync_in(&self.status().unwrap_or_default())
    }

    /// The term of the first shard and the version of its in-sync set: whether either has changed.
    pub fn changes(&self) -> Option<(u64, u64)> {
        let report = self.status()?;
        let shard = report["shards"].as_array()?.first()?;
        Some((shard["term"].as_u64()?, shard["in_sync_version"].as_u64()?))
    }

    /// What the sentinels agree on; `None` without a majority of them.
    fn status(&self) -> Option<Value> {
        self.sentinels.iter().find_map(|sentinel| {
            let bus = sentinel.bus_addr();
            let output = self.operator().args(["status", "--json", "--sentinel", &bus]).output();
            let report: Value = serde_json::from_slice(&output.ok()?.stdout).ok()?;
            (report["majority"] == true).then_some(report)
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

    /// Writes each process's log to a file `node0.log`, `sentinel0.log` ..., and what flight recorders have written beside it.
    pub fn save_logs(&self, dir: &Path) -> Result<(), String> {
        let save = |(index, server): (usize, &Server), kind: &str| {
            let path = dir.join(format!("{kind}{index}.log"));
            std::fs::write(&path, server.log()).map_err(|e| format!("{}: {e}", path.display()))?;
            for recording in server.recordings() {
                let name = recording.file_name().unwrap_or_default().to_string_lossy();
                let path = dir.join(format!("{kind}{index}-{name}"));
                std::fs::copy(&recording, &path).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            Ok(())
        };
        self.nodes.iter().enumerate().try_for_each(|node| save(node, "node"))?;
        self.sentinels.iter().enumerate().try_for_each(|sentinel| save(sentinel, "sentinel"))
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
        Ok(self.entries(node)?.into_iter().map(|(key_value, _)| key_value).collect())
    }

    fn entries(&self, node: usize) -> Result<Vec<Entry>, String> {
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
                connection.send(&[b"PEXPIRETIME".as_slice(), key.text()]);
            }
            for key in &keys.items {
                let string = connection.reply().map_err(|e| error(&e))?;
                let list = connection.reply().map_err(|e| error(&e))?;
                let expires = connection.reply().map_err(|e| error(&e))?.integer();
                let elements: Vec<&[u8]> = list.items.iter().map(Frame::text).collect();
                let value = if string.is_error() { elements.join(&b' ') } else { string.text().to_vec() };
                found.push(((key.text().to_vec(), value), expires));
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

    /// Waits until the nodes of each shard hold the same strings and lists, with the same expiry; says how many there
    /// are, or where they differ.
    pub fn wait_until_converged(&self) -> Result<usize, String> {
        let shards = match self.shape.shards {
            1 => vec![(0..self.nodes.len()).collect()],
            _ => self.wait_until_healed()?.into_iter().map(ShardNodes::into_nodes).collect::<Vec<_>>(),
        };
        shards.iter().map(|nodes| self.wait_until_equal(nodes)).sum()
    }

    fn wait_until_equal(&self, nodes: &[usize]) -> Result<usize, String> {
        let end = Instant::now() + HEAL_DEADLINE;
        loop {
            let all: Vec<_> = nodes.iter().map(|node| self.entries(*node)).collect::<Result<_, _>>()?;
            if all.iter().all(|entries| *entries == all[0]) {
                return Ok(all[0].len());
            }
            if end <= Instant::now() {
                let sizes: Vec<usize> = all.iter().map(Vec::len).collect();
                let first =
                    all.iter().flatten().find(|entry| !all.iter().all(|entries| entries.contains(entry)));
                return Err(format!("the nodes hold {sizes:?} keys, and not all of them {first:?}"));
            }
        }
    }
}

impl ShardNodes {
    fn into_nodes(self) -> Vec<usize> {
        std::iter::once(self.primary).chain(self.replicas).collect()
    }
}

/// As `0-16383`.
fn slot_range(text: &Value) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.as_str()?.split_once('-')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn in_sync_in(report: &Value) -> usize {
    let shards = report["shards"].as_array().into_iter().flatten();
    let nodes = shards.filter_map(|shard| shard["nodes"].as_array()).flatten();
    nodes.filter(|node| node["in_sync"] == true && node["restarted"] != true).count()
}

fn sentinel_name(index: usize) -> String {
    format!("s{}", index + 1)
}

fn ask(server: &Server, command: &[&str]) -> Option<Frame> {
    let mut connection = Connection::connect_within(&server.addr(), ANSWER_DEADLINE).ok()?;
    connection.call(command).ok()
}

/// Starts three sentinels that know each other's addresses.
fn start_sentinels(
    hosts: &Hosts,
    program: &Path,
    shape: Shape,
    more_args: &dyn Fn() -> Vec<String>,
) -> Result<Vec<Server>, String> {
    let ports: Vec<u16> = (0..SENTINELS).map(|_| free_port()).collect();
    let bus_port = |port: u16| port + 10_000;
    let host = |index: usize| shape.nodes() + index;
    let members = ports
        .iter()
        .enumerate()
        .map(|(i, &port)| format!("{}={}:{}", sentinel_name(i), hosts.name(host(i)), bus_port(port)));
    let initial = members.collect::<Vec<_>>().join(",");
    let (shards, replicas) = (shape.shards.to_string(), (shape.nodes_per_shard - 1).to_string());
    let mut sentinels = Vec::new();
    for (index, &port) in ports.iter().enumerate() {
        let more = more_args();
        let sentinel = Server::spawn_at(hosts, host(index), program, port, folder()?, |port, dir| {
            let (dir, name) = (dir.to_string_lossy(), sentinel_name(index));
            let (port, bus) = (port.to_string(), bus_port(port).to_string());
            let args = [
                ["--dir", &dir],
                ["--port", &port],
                ["--bus-port", &bus],
                ["--name", &name],
                ["--initial", &initial],
                ["--shards", &shards],
                ["--replicas", &replicas],
            ];
            args.as_flattened().iter().map(|arg| (*arg).to_owned()).chain(more.iter().cloned()).collect()
        })?;
        sentinels.push(sentinel);
    }
    for sentinel in &mut sentinels {
        sentinel.wait_until_answering()?;
    }
    Ok(sentinels)
}
