//! Where a cluster's processes run: all on the loopback address, or each in a network namespace of its own, joined by
//! a bridge on which packets can be dropped and delayed.
//!
//! Namespaces, bridge and rules are made by `ip` and `nft` (which needs root, if only of a user namespace), named after
//! this process, and removed
//! when the value is dropped. The test itself stays outside and reaches every host: a cut between hosts leaves clients
//! connected to both sides, which is what tempts a store to lie.
//!
//! Each host knows all hosts by name (`host0` ...), from a file that lies over `/etc/hosts`. Processes find each other by
//! these names, so that every address can change.
#![allow(clippy::disallowed_methods, reason = "a shell: runs programs")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Packets to be dropped. Hosts by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// From and to this host.
    Host(usize),
    Between(usize, usize),
    From(usize),
    To(usize),
    /// From and to this host, but only what tells that a connection has ended: the other side does not learn of it.
    Endings(usize),
    /// Of a hundred packets between any hosts, so many.
    Loss(u32),
}

/// See the module documentation.
#[derive(Debug)]
pub enum Hosts {
    Loopback,
    Namespaces(Network),
}

/// A bridge with network namespaces.
#[derive(Debug)]
pub struct Network {
    tag: String,
    /// Second and third byte of the addresses.
    subnet: (u32, u32),
    count: usize,
    /// How often every address has changed.
    generation: usize,
    /// Seconds by which the monotonic clocks of a host's processes are ahead of this machine's.
    clocks: Vec<u64>,
    /// With the file of the hosts' names.
    names: TempDir,
}

/// Addresses 1 to 9 are those of the hosts at first, 11 to 19 after the first change, and so on.
const HOSTS_MAX: usize = 9;
const GENERATIONS: usize = 25;

impl Hosts {
    /// Namespaces for `count` hosts.
    ///
    /// # Errors
    /// What `ip` or `nft` say; without root they refuse.
    pub fn namespaces(count: usize) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if HOSTS_MAX < count {
            return Err(format!("there are addresses for {HOSTS_MAX} hosts, not {count}"));
        }
        let number = (std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed)) % 0xffff;
        // Dropped, and so removed, if a step fails.
        let network = Network {
            tag: format!("kw{number:x}"),
            subnet: (64 + number / 256 % 64, number % 256),
            count,
            generation: 0,
            clocks: vec![0; count],
            names: TempDir::new().map_err(|e| e.to_string())?,
        };
        run("nft", &["--version"])?;
        let bridge = network.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{}/24", network.numbered(253)), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for host in 0..count {
            let (name, veth) = (network.namespace(host), network.veth(host));
            run("ip", &["netns", "add", &name])?;
            run("ip", &["link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            run("ip", &["link", "set", &veth, "master", &bridge, "up"])?;
            let address = format!("{}/24", network.address(host));
            run("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            run("ip", &["-n", &name, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        }
        network.write_names()?;
        Ok(Hosts::Namespaces(network))
    }

    pub fn are_namespaces(&self) -> bool {
        matches!(self, Hosts::Namespaces(_))
    }

    pub fn address(&self, host: usize) -> String {
        match self {
            Hosts::Loopback => "127.0.0.1".into(),
            Hosts::Namespaces(network) => network.address(host),
        }
    }

    /// What the other hosts call it.
    pub fn name(&self, host: usize) -> String {
        match self {
            Hosts::Loopback => "127.0.0.1".into(),
            Hosts::Namespaces(_) => format!("host{host}"),
        }
    }

    /// The address for a server to listen on.
    pub fn bind_address(&self) -> &'static str {
        match self {
            Hosts::Loopback => "127.0.0.1",
            Hosts::Namespaces(_) => "0.0.0.0",
        }
    }

    /// Words in front of a command that is to run on a host.
    pub fn prefix(&self, host: usize) -> Vec<String> {
        let Hosts::Namespaces(network) = self else { return Vec::new() };
        let net = format!("--net=/run/netns/{}", network.namespace(host));
        let mut words = ["nsenter", &net, "unshare", "--mount"].map(str::to_owned).to_vec();
        match network.clocks[host] {
            0 => {}
            ahead => {
                let ahead = ahead.to_string();
                words.extend(["--time", "--monotonic", &ahead, "--boottime", &ahead].map(str::to_owned));
            }
        }
        // By `exec`, so that the process that was started is the program itself.
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        words.extend(["sh", "-c", script, &network.names_file().to_string_lossy()].map(str::to_owned));
        words
    }

    /// Processes that start on this host from now on find its monotonic clocks so many seconds ahead of this machine's.
    pub fn set_clock(&mut self, host: usize, ahead: u64) {
        if let Hosts::Namespaces(network) = self {
            network.clocks[host] = ahead;
        }
    }

    /// Gives every host another address; its old one is gone. Names stay.
    ///
    /// # Errors
    /// On the loopback address, or what `ip` says.
    pub fn renumber(&mut self) -> Result<(), String> {
        let Hosts::Namespaces(network) = self else {
            return Err("the loopback address cannot be changed".into());
        };
        let old: Vec<String> = (0..network.count).map(|host| network.address(host)).collect();
        network.generation = (network.generation + 1) % GENERATIONS;
        for (host, old) in old.iter().enumerate() {
            let (name, new) = (network.namespace(host), network.address(host));
            run("ip", &["-n", &name, "addr", "del", &format!("{old}/24"), "dev", "eth0"])?;
            run("ip", &["-n", &name, "addr", "add", &format!("{new}/24"), "dev", "eth0"])?;
        }
        network.write_names()
    }

    /// Drops packets from now on.
    ///
    /// # Errors
    /// On the loopback address, or what `nft` says.
    pub fn cut(&self, cuts: &[Cut]) -> Result<(), String> {
        let Hosts::Namespaces(network) = self else {
            return Err("the network of the loopback address cannot be cut".into());
        };
        let veth = |host: usize| network.veth(host);
        let one_way =
            |from: &str, to: &str| format!("iifname \"{from}\" oifname \"{to}\" ether type ip drop\n");
        let mut rules = String::new();
        for cut in cuts {
            match *cut {
                Cut::Host(host) => {
                    let name = veth(host);
                    rules += &format!(
                        "iifname \"{name}\" ether type ip drop\noifname \"{name}\" ether type ip drop\n"
                    );
                }
                Cut::Between(a, b) => {
                    rules += &one_way(&veth(a), &veth(b));
                    rules += &one_way(&veth(b), &veth(a));
                }
                Cut::From(host) => rules += &format!("iifname \"{}\" ether type ip drop\n", veth(host)),
                Cut::To(host) => rules += &format!("oifname \"{}\" ether type ip drop\n", veth(host)),
                Cut::Endings(host) => {
                    let name = veth(host);
                    for direction in ["iifname", "oifname"] {
                        rules += &format!("{direction} \"{name}\" tcp flags & (fin | rst) != 0 drop\n");
                    }
                }
                Cut::Loss(percent) => {
                    rules += &format!("ether type ip numgen random mod 100 < {percent} drop\n");
                }
            }
        }
        let table = format!(
            "table bridge {} {{ chain forward {{ type filter hook forward priority 0; policy accept;\n{rules}}}\n}}\n",
            network.tag
        );
        run("nft", &[&table])
    }

    /// New connections to a port of this host are refused from now on, by what lies before it: the process lives and its
    /// connections stay.
    ///
    /// # Errors
    /// On the loopback address, or what `nft` says.
    pub fn refuse(&self, host: usize, port: u16) -> Result<(), String> {
        let Hosts::Namespaces(network) = self else {
            return Err("nobody refuses in the name of the loopback address".into());
        };
        let table = format!(
            "table inet {} {{ chain input {{ type filter hook input priority 0; policy accept;\n\
             tcp dport {port} tcp flags & (syn | ack) == syn reject with tcp reset\n}}\n}}\n",
            network.tag
        );
        network.on(host, "nft", &[&table])
    }

    /// Connections to this host are let through again.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn admit(&self, host: usize) -> Result<(), String> {
        match self {
            Hosts::Loopback => Ok(()),
            Hosts::Namespaces(network) => network.on(host, "nft", &["delete", "table", "inet", &network.tag]),
        }
    }

    /// No packets are dropped any more.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn heal(&self) -> Result<(), String> {
        match self {
            Hosts::Loopback => Ok(()),
            Hosts::Namespaces(network) => run("nft", &["delete", "table", "bridge", &network.tag]),
        }
    }
}

impl Network {
    /// The interface that every packet between hosts passes.
    pub fn bridge(&self) -> String {
        format!("{}br", self.tag)
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}n{host}", self.tag)
    }

    fn veth(&self, host: usize) -> String {
        format!("{}v{host}", self.tag)
    }

    /// Runs a program on a host to its end.
    fn on(&self, host: usize, program: &str, args: &[&str]) -> Result<(), String> {
        let net = format!("--net=/run/netns/{}", self.namespace(host));
        run("nsenter", &[&[net.as_str(), program], args].concat())
    }

    fn numbered(&self, number: usize) -> String {
        format!("10.{}.{}.{number}", self.subnet.0, self.subnet.1)
    }

    fn address(&self, host: usize) -> String {
        self.numbered(self.generation * (HOSTS_MAX + 1) + host + 1)
    }

    fn names_file(&self) -> PathBuf {
        self.names.path().join("hosts")
    }

    /// Written in place: running processes see the file, not its name.
    fn write_names(&self) -> Result<(), String> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for host in 0..self.count {
            text += &format!("{} host{host}\n", self.address(host));
        }
        fs::write(self.names_file(), &text).map_err(|e| format!("{}: {e}", self.names_file().display()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was never made cannot be removed.
        drop(run("nft", &["delete", "table", "bridge", &self.tag]));
        for host in 0..self.count {
            drop(run("ip", &["netns", "delete", &self.namespace(host)]));
        }
        drop(run("ip", &["link", "delete", &self.bridge()]));
    }
}

/// Runs a program to its end.
///
/// # Errors
/// What it says, if it fails.
pub fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
