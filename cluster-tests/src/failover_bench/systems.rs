//! The systems that are measured, with what differs between them.
#![allow(clippy::disallowed_methods, reason = "a shell: runs processes and waits for them")]

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keyward_proto::topology::FastFailover;
use tempfile::TempDir;

use super::probes::SAME_SLOT;
use crate::cluster::{Cluster, Mode};
use crate::hosts::Hosts;
use crate::processes::{Server, free_port, wait_until};
use crate::programs;
use crate::resp_client::{Connection, Frame};

const ANSWER_DEADLINE: Duration = Duration::from_millis(300);
const NODES: usize = 3;
/// valkey-cli would wait for ever.
const CREATE_SECONDS: &str = "40";
const CREATE_TRIES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// What its nodes take a refused connection for.
    Keyward { fast_failover: FastFailover },
    /// Three primaries with a replica each, `cluster-node-timeout` in milliseconds.
    ValkeyCluster { node_timeout: u32 },
    /// One primary, two replicas, three sentinels; `down-after-milliseconds`.
    ValkeySentinel { down_after: u32 },
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            System::Keyward { fast_failover } => {
                write!(f, "Keyward, fast-failover {}", fast_failover.word())
            }
            System::ValkeyCluster { node_timeout } => {
                write!(f, "Valkey Cluster, node-timeout {node_timeout}")
            }
            System::ValkeySentinel { down_after } => write!(f, "Valkey Sentinel, down-after {down_after}"),
        }
    }
}

/// Running processes of one system. Fields are dropped in this order: the hosts go last.
#[derive(Debug)]
pub(super) struct Group {
    system: System,
    pub(super) nodes: Vec<Server>,
    sentinels: Vec<Server>,
    cli: Option<PathBuf>,
    pub(super) hosts: Hosts,
}

impl Group {
    pub(super) fn start(system: System, hosts: Hosts) -> Result<Self, String> {
        match system {
            System::Keyward { fast_failover } => {
                let args = ["--save", "", "--appendonly", "no", "--fast-failover", fast_failover.word()];
                let Cluster { nodes, sentinels, hosts, .. } = Cluster::start_on(hosts, Mode::Cluster, &args)?;
                Ok(Group { system, nodes, sentinels, cli: None, hosts })
            }
            System::ValkeyCluster { node_timeout } => {
                let timeout = node_timeout.to_string();
                let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout];
                let mut group = Group::valkeys(system, hosts, 2 * NODES, &args)?;
                // With a short node timeout its nodes do not always find together.
                for _ in 1..CREATE_TRIES {
                    if group.create_cluster().is_ok() {
                        return Ok(group);
                    }
                    for node in &mut group.nodes {
                        node.wipe()?;
                        node.restart()?;
                        node.wait_until_answering()?;
                    }
                }
                group.create_cluster()?;
                Ok(group)
            }
            System::ValkeySentinel { down_after } => {
                let mut group = Group::valkeys(system, hosts, NODES, &[])?;
                group.start_sentinels(down_after)?;
                Ok(group)
            }
        }
    }

    fn valkeys(system: System, hosts: Hosts, count: usize, args: &[&str]) -> Result<Self, String> {
        let dir = programs::valkey()?;
        let program = dir.join("valkey-server");
        let mut nodes = Vec::new();
        for host in 0..count {
            let node = Server::spawn_at(&hosts, host, &program, free_port(), folder()?, |port, dir| {
                let (port, dir, address) = (port.to_string(), dir.to_string_lossy(), hosts.address(host));
                let own = [
                    ["--port", &port],
                    ["--dir", &dir],
                    ["--bind", &address],
                    ["--protected-mode", "no"],
                    ["--save", ""],
                    ["--appendonly", "no"],
                ];
                own.as_flattened().iter().chain(args).map(|arg| (*arg).to_owned()).collect()
            })?;
            nodes.push(node);
        }
        let mut group =
            Group { system, nodes, sentinels: Vec::new(), cli: Some(dir.join("valkey-cli")), hosts };
        group.nodes.iter_mut().try_for_each(Server::wait_until_answering)?;
        Ok(group)
    }

    fn create_cluster(&mut self) -> Result<(), String> {
        let cli = self.cli.as_ref().ok_or("valkey-cli is missing")?;
        let mut args: Vec<String> =
            [CREATE_SECONDS, &cli.to_string_lossy(), "--cluster", "create"].map(str::to_owned).into();
        args.extend(self.addrs());
        args.extend(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned));
        let output = Command::new("timeout").args(&args).output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("timeout {}: {}", args.join(" "), String::from_utf8_lossy(&output.stdout)))
    }

    fn start_sentinels(&mut self, down_after: u32) -> Result<(), String> {
        let (host, port) = (self.hosts.address(0), self.nodes[0].port().to_string());
        for replica in 1..NODES {
            self.ask(replica, &["REPLICAOF", &host, &port]).ok_or("a replica does not answer")?;
        }
        let program = programs::valkey()?.join("valkey-server");
        for number in 0..3 {
            let dir = folder()?;
            let at = free_port();
            let conf = dir.path().join("sentinel.conf");
            let text = format!(
                "port {at}\nbind {}\nprotected-mode no\nsentinel monitor mymaster {host} {port} 2\n\
                 sentinel down-after-milliseconds mymaster {down_after}\n",
                self.hosts.address(NODES + number)
            );
            fs::write(&conf, text).map_err(|e| e.to_string())?;
            let args = |_: u16, _: &Path| vec![conf.to_string_lossy().into_owned(), "--sentinel".into()];
            let mut sentinel = Server::spawn_at(&self.hosts, NODES + number, &program, at, dir, args)?;
            sentinel.wait_until_answering()?;
            self.sentinels.push(sentinel);
        }
        Ok(())
    }

    pub(super) fn addrs(&self) -> Vec<String> {
        self.nodes.iter().map(Server::addr).collect()
    }

    fn ask(&self, node: usize, command: &[&str]) -> Option<Frame> {
        ask(&self.nodes[node], command)
    }

    /// Whether a node is the primary that serves the probes' keys.
    fn is_primary(&self, node: usize) -> bool {
        let role = self.ask(node, &["ROLE"]);
        role.is_some_and(|role| role.items.first().is_some_and(|word| word.text() == b"master"))
            && self.ask(node, &["GET", SAME_SLOT]).is_some_and(|reply| !reply.is_error())
    }

    /// Whether another node than `old` (the wanted one, if one is) is primary.
    pub(super) fn other_primary(&self, old: usize, wanted: Option<usize>) -> bool {
        (0..self.nodes.len()).any(|n| n != old && wanted.is_none_or(|w| w == n) && self.is_primary(n))
    }

    /// Waits until the keys have one primary and all replicas follow; says which node is the primary.
    pub(super) fn wait_until_whole(&self, deadline: Duration) -> Result<usize, String> {
        let mut primary = None;
        let whole = wait_until(deadline, || {
            let primaries: Vec<usize> = (0..self.nodes.len()).filter(|n| self.is_primary(*n)).collect();
            primary = (primaries.len() == 1).then(|| primaries[0]);
            primary.is_some_and(|primary| self.is_followed(primary))
        });
        match primary {
            Some(primary) if whole => Ok(primary),
            Some(_) | None => Err(format!("{} is not whole:\n{}", self.system, self.describe())),
        }
    }

    fn is_followed(&self, primary: usize) -> bool {
        let replicas = if matches!(self.system, System::ValkeyCluster { .. }) { 1 } else { NODES - 1 };
        let info = self.ask(primary, &["INFO", "replication"]).map_or(String::new(), |info| info.string());
        let online = info.lines().filter(|line| line.contains("state=online")).count();
        // Sentinels fail over only to replicas that they know, and only if they know each other.
        let known = |sentinel: &Server| {
            let fields = ask(sentinel, &["SENTINEL", "PRIMARY", "mymaster"])
                .map_or(Vec::new(), |reply| reply.items.iter().map(Frame::string).collect());
            let field =
                |name: &str| fields.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
            let flags = field("flags").unwrap_or_default();
            field("num-slaves").as_deref() == Some("2")
                && field("num-other-sentinels").as_deref() == Some("2")
                && !flags.contains("down")
                && !flags.contains("failover")
        };
        let sentinel_ready = match self.system {
            System::ValkeySentinel { .. } => self.sentinels.iter().all(known),
            System::Keyward { .. } | System::ValkeyCluster { .. } => true,
        };
        online == replicas && sentinel_ready
    }

    /// Hands the role over to a replica; says to which, if that is known.
    pub(super) fn hand_off(&self, primary: usize) -> Result<Option<usize>, String> {
        let refused = |reply: Option<Frame>| {
            Err(format!("hand-off: {}", reply.map_or("no answer".into(), |reply| reply.to_string())))
        };
        if let System::ValkeySentinel { .. } = self.system {
            // Only through a sentinel: the others would take a role that changed without them for a failure.
            return match ask(&self.sentinels[0], &["SENTINEL", "FAILOVER", "mymaster", "COORDINATED"]) {
                Some(reply) if !reply.is_error() => Ok(None),
                other => refused(other),
            };
        }
        let info = self.ask(primary, &["INFO", "replication"]).map_or(String::new(), |info| info.string());
        let follows = |node: usize| {
            let port = format!("port={},", self.nodes[node].port());
            let host = format!("ip={},", self.hosts.address(node));
            info.lines().any(|line| line.contains(&port) && line.contains(&host))
        };
        let target = (0..self.nodes.len())
            .find(|n| *n != primary && follows(*n))
            .ok_or_else(|| format!("nobody follows the primary:\n{info}"))?;
        match self.ask(target, &["CLUSTER", "FAILOVER"]) {
            Some(reply) if !reply.is_error() => Ok(Some(target)),
            other => refused(other),
        }
    }

    /// The numbers in a set, from its primary.
    pub(super) fn members(&self, key: &str) -> Result<HashSet<u64>, String> {
        let mut found = None;
        wait_until(super::HEAL_DEADLINE, || {
            let primary = (0..self.nodes.len()).find(|n| self.is_primary(*n));
            let reply = primary.and_then(|primary| self.ask(primary, &["SMEMBERS", key]));
            found = reply.filter(|reply| !reply.is_error());
            found.is_some()
        });
        let reply = found.ok_or_else(|| format!("nobody answers SMEMBERS {key}"))?;
        let numbers = reply.items.iter().filter_map(|item| item.integer().and_then(|n| n.try_into().ok()));
        Ok(numbers.collect())
    }

    /// Everything that nodes and sentinels have logged.
    pub(super) fn logs(&self) -> Vec<String> {
        let read = |server: &Server| fs::read(server.dir().join("log")).unwrap_or_default();
        self.nodes
            .iter()
            .chain(&self.sentinels)
            .map(|server| String::from_utf8_lossy(&read(server)).into_owned())
            .collect()
    }

    pub(super) fn describe(&self) -> String {
        let one = |server: &Server| format!("{}:\n{}", server.addr(), server.log_end());
        self.nodes.iter().chain(&self.sentinels).map(one).collect::<Vec<_>>().join("\n")
    }
}

fn ask(server: &Server, command: &[&str]) -> Option<Frame> {
    Connection::connect_within(&server.addr(), ANSWER_DEADLINE).ok()?.call(command).ok()
}

fn folder() -> Result<TempDir, String> {
    TempDir::new().map_err(|error| error.to_string())
}
