//! Where a cluster's processes run: all on the loopback address, or each in a network namespace of its own, joined by
//! a bridge on which packets can be dropped.
//!
//! Namespaces, bridge and rules are made by `ip` and `nft` (which needs root), named after this process, and removed
//! when the value is dropped. The test itself stays outside and reaches every host: a cut between hosts leaves clients
//! connected to both sides, which is what tempts a store to lie.
#![allow(clippy::disallowed_methods, reason = "a shell: runs programs")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Packets to be dropped. Hosts by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// From and to this host.
    Host(usize),
    Between(usize, usize),
    From(usize),
    To(usize),
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
}

impl Hosts {
    /// Namespaces for `count` hosts.
    ///
    /// # Errors
    /// What `ip` or `nft` say; without root they refuse.
    pub fn namespaces(count: usize) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed)) % 0xffff;
        // Dropped, and so removed, if a step fails.
        let network =
            Network { tag: format!("kw{number:x}"), subnet: (64 + number / 256 % 64, number % 256), count };
        run("nft", &["--version"])?;
        let bridge = network.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{}/24", network.address(253)), "dev", &bridge])?;
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
        Ok(Hosts::Namespaces(network))
    }

    pub fn address(&self, host: usize) -> String {
        match self {
            Hosts::Loopback => "127.0.0.1".into(),
            Hosts::Namespaces(network) => network.address(host),
        }
    }

    /// Words in front of a command that is to run on a host.
    pub fn prefix(&self, host: usize) -> Vec<String> {
        match self {
            Hosts::Loopback => Vec::new(),
            // By `exec`, so that the process that was started is the program itself.
            Hosts::Namespaces(network) => {
                ["ip", "netns", "exec", &network.namespace(host)].map(str::to_owned).into()
            }
        }
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
    fn bridge(&self) -> String {
        format!("{}br", self.tag)
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}n{host}", self.tag)
    }

    fn veth(&self, host: usize) -> String {
        format!("{}v{host}", self.tag)
    }

    fn address(&self, host: usize) -> String {
        format!("10.{}.{}.{}", self.subnet.0, self.subnet.1, host + 1)
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

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
