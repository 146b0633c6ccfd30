//! The faults, and how each is brought about and ended.
#![allow(clippy::disallowed_methods, reason = "a shell: signals processes and waits for them")]

use std::fmt;
use std::thread;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::hosts::Cut;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    KillPrimary,
    KillReplica,
    /// Primary and leading sentinel.
    KillPrimaryAndSentinel,
    /// Every node at once, as when the power fails.
    KillAll,
    PausePrimary,
    PauseReplica,
    PauseSentinels,
    HandOff,
    /// Every node in turn, by SIGTERM.
    RollingRestart,
    /// The primary reaches no other host.
    IsolatePrimary,
    /// The primary reaches the replicas, but no sentinel.
    IsolatePrimaryFromSentinels,
    /// The primary can send to the other hosts but receives nothing from them.
    DeafPrimary,
    /// The other hosts hear the primary, but nothing from one replica reaches anybody.
    MuteReplica,
    /// A replica reaches no other host.
    IsolateReplica,
    /// Three of ten packets between hosts are lost.
    Loss,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::KillPrimary,
        Fault::KillReplica,
        Fault::KillPrimaryAndSentinel,
        Fault::KillAll,
        Fault::PausePrimary,
        Fault::PauseReplica,
        Fault::PauseSentinels,
        Fault::HandOff,
        Fault::RollingRestart,
        Fault::IsolatePrimary,
        Fault::IsolatePrimaryFromSentinels,
        Fault::DeafPrimary,
        Fault::MuteReplica,
        Fault::IsolateReplica,
        Fault::Loss,
    ];

    /// Whether the data survives it only on disk.
    pub fn needs_persistence(self) -> bool {
        self == Fault::KillAll
    }

    /// Whether it needs a network of its own.
    pub fn cuts_network(self) -> bool {
        matches!(
            self,
            Fault::IsolatePrimary
                | Fault::IsolatePrimaryFromSentinels
                | Fault::DeafPrimary
                | Fault::MuteReplica
                | Fault::IsolateReplica
                | Fault::Loss
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillPrimary => "kill -9 of the primary",
            Fault::KillReplica => "kill -9 of a replica",
            Fault::KillPrimaryAndSentinel => "kill -9 of primary and leading sentinel",
            Fault::KillAll => "kill -9 of all nodes",
            Fault::PausePrimary => "SIGSTOP of the primary",
            Fault::PauseReplica => "SIGSTOP of a replica",
            Fault::PauseSentinels => "SIGSTOP of all sentinels",
            Fault::HandOff => "hand-off",
            Fault::RollingRestart => "rolling restart",
            Fault::IsolatePrimary => "primary isolated",
            Fault::IsolatePrimaryFromSentinels => "primary without sentinels",
            Fault::DeafPrimary => "primary hears nobody",
            Fault::MuteReplica => "replica heard by nobody",
            Fault::IsolateReplica => "replica isolated",
            Fault::Loss => "30 % packet loss",
        })
    }
}

/// Brings a fault about, lets it last, ends it. The cluster may still have to heal afterwards.
///
/// # Errors
/// What kept the fault from happening.
pub fn inject(fault: Fault, cluster: &mut Cluster, rng: &mut SmallRng) -> Result<(), String> {
    let lasting = Duration::from_millis(rng.random_range(200..2500));
    let primary = cluster.wait_until_whole()?;
    let replica = (primary + rng.random_range(1..cluster.nodes.len())) % cluster.nodes.len();
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    match fault {
        Fault::KillPrimary => restart_after(cluster, &[primary], lasting),
        Fault::KillReplica => restart_after(cluster, &[replica], lasting),
        Fault::KillAll => restart_after(cluster, &all, lasting),
        Fault::KillPrimaryAndSentinel => {
            let leader = cluster.leading_sentinel().ok_or("no sentinel says that it leads")?;
            cluster.sentinels[leader].kill();
            restart_after(cluster, &[primary], lasting)?;
            cluster.sentinels[leader].restart()
        }
        Fault::PausePrimary => pause(cluster, primary, lasting),
        Fault::PauseReplica => pause(cluster, replica, lasting),
        Fault::PauseSentinels => {
            cluster.sentinels.iter().for_each(|s| s.signal(Signal::STOP));
            thread::sleep(lasting);
            cluster.sentinels.iter().for_each(|s| s.signal(Signal::CONT));
            Ok(())
        }
        Fault::HandOff => {
            // A refusal (a replica that has just fallen behind) is an outcome as well.
            drop(cluster.ask(replica, &["CLUSTER", "FAILOVER"]));
            Ok(())
        }
        Fault::RollingRestart => {
            for node in all {
                cluster.nodes[node].terminate();
                cluster.nodes[node].restart()?;
                cluster.wait_until_whole()?;
            }
            Ok(())
        }
        Fault::IsolatePrimary => cut(cluster, &[Cut::Host(primary)], lasting),
        Fault::IsolateReplica => cut(cluster, &[Cut::Host(replica)], lasting),
        Fault::IsolatePrimaryFromSentinels => {
            let nodes = cluster.nodes.len();
            let cuts: Vec<Cut> = (0..cluster.sentinels.len())
                .map(|sentinel| Cut::Between(primary, nodes + sentinel))
                .collect();
            cut(cluster, &cuts, lasting)
        }
        Fault::DeafPrimary => cut(cluster, &[Cut::To(primary)], lasting),
        Fault::MuteReplica => cut(cluster, &[Cut::From(replica)], lasting),
        Fault::Loss => cut(cluster, &[Cut::Loss(30)], lasting),
    }
}

fn restart_after(cluster: &mut Cluster, nodes: &[usize], lasting: Duration) -> Result<(), String> {
    nodes.iter().for_each(|&node| cluster.nodes[node].kill());
    thread::sleep(lasting);
    nodes.iter().try_for_each(|&node| cluster.nodes[node].restart())
}

fn pause(cluster: &Cluster, node: usize, lasting: Duration) -> Result<(), String> {
    cluster.nodes[node].signal(Signal::STOP);
    thread::sleep(lasting);
    cluster.nodes[node].signal(Signal::CONT);
    Ok(())
}

fn cut(cluster: &Cluster, cuts: &[Cut], lasting: Duration) -> Result<(), String> {
    cluster.hosts.cut(cuts)?;
    thread::sleep(lasting);
    cluster.hosts.heal()
}
