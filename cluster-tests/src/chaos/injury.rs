//! What is done to processes and hosts, and how it is undone. Processes by the numbers of their hosts.
#![allow(clippy::disallowed_methods, reason = "a shell: signals processes and waits for them")]

use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::delay::Delay;
use crate::disks::{self, FailingCalls};
use crate::hosts::Cut;

#[derive(Debug)]
pub(super) enum Injury {
    /// By SIGKILL; started again at the end.
    Kill(Vec<usize>),
    Stop(Vec<usize>),
    Cut(Vec<Cut>),
    Delay {
        milliseconds: RangeInclusive<u64>,
        seed: u64,
    },
    FullDisk(usize),
    FailingSync(usize),
    // These are over when they have been brought about.
    HandOff {
        to: usize,
    },
    RollingRestart,
    ClockJump {
        node: usize,
        ahead: u64,
    },
    ReplaceSentinel(usize),
    MoveEverything,
}

/// What has to be undone.
#[derive(Debug)]
enum Wound {
    None,
    Killed(Vec<usize>),
    Stopped(Vec<usize>),
    Cut,
    /// Undone by being dropped.
    Delayed(#[expect(dead_code, reason = "it delays while it lives")] Delay),
    FullDisk(usize),
    FailingCalls(#[expect(dead_code, reason = "calls fail while it lives")] FailingCalls),
}

/// Brings injuries about, lets them last, and undoes them, also if one of them fails. The cluster may still have to
/// heal afterwards.
///
/// # Errors
/// The first thing that failed.
pub(super) fn inflict(injuries: Vec<Injury>, cluster: &mut Cluster, lasting: Duration) -> Result<(), String> {
    let mut wounds = Vec::new();
    let mut result = Ok(());
    for injury in merge_cuts(injuries) {
        match injury.begin(cluster) {
            Ok(wound) => wounds.push(wound),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if result.is_ok() {
        thread::sleep(lasting);
    }
    for wound in wounds.into_iter().rev() {
        let healed = wound.heal(cluster);
        result = result.and(healed);
    }
    result
}

/// The rules of all cuts are made, and removed, at once.
fn merge_cuts(injuries: Vec<Injury>) -> Vec<Injury> {
    let (mut cuts, mut others) = (Vec::new(), Vec::new());
    for injury in injuries {
        match injury {
            Injury::Cut(more) => cuts.extend(more),
            other => others.push(other),
        }
    }
    if !cuts.is_empty() {
        others.insert(0, Injury::Cut(cuts));
    }
    others
}

impl Injury {
    fn begin(self, cluster: &mut Cluster) -> Result<Wound, String> {
        match self {
            Injury::Kill(hosts) => {
                // All signals first: they are to die at once.
                hosts.iter().for_each(|host| cluster.process(*host).signal(Signal::KILL));
                hosts.iter().for_each(|host| cluster.process(*host).kill());
                Ok(Wound::Killed(hosts))
            }
            Injury::Stop(hosts) => {
                hosts.iter().for_each(|host| cluster.process(*host).signal(Signal::STOP));
                Ok(Wound::Stopped(hosts))
            }
            Injury::Cut(cuts) => cluster.hosts.cut(&cuts).map(|()| Wound::Cut),
            Injury::Delay { milliseconds, seed } => {
                Delay::start(&cluster.hosts, milliseconds, seed).map(Wound::Delayed)
            }
            Injury::FullDisk(node) => {
                if !cluster.nodes[node].has_own_disk() {
                    return Err("the node has no disk of its own".into());
                }
                disks::fill(cluster.nodes[node].dir()).map(|()| Wound::FullDisk(node))
            }
            Injury::FailingSync(node) => {
                FailingCalls::syncs(cluster.nodes[node].pid()).map(Wound::FailingCalls)
            }
            Injury::HandOff { to } => {
                // A refusal (a replica that has just fallen behind) is an outcome as well.
                drop(cluster.ask(to, &["CLUSTER", "FAILOVER"]));
                Ok(Wound::None)
            }
            Injury::RollingRestart => {
                for node in 0..cluster.nodes.len() {
                    cluster.nodes[node].terminate();
                    cluster.nodes[node].restart()?;
                    cluster.wait_until_healed()?;
                }
                Ok(Wound::None)
            }
            Injury::ClockJump { node, ahead } => {
                cluster.nodes[node].kill();
                cluster.hosts.set_clock(node, ahead);
                let Cluster { nodes, hosts, .. } = cluster;
                nodes[node].move_to(hosts, node);
                nodes[node].restart().map(|()| Wound::None)
            }
            Injury::ReplaceSentinel(host) => {
                let sentinel = cluster.process(host);
                sentinel.wipe()?;
                sentinel.restart().map(|()| Wound::None)
            }
            Injury::MoveEverything => cluster.move_everything().map(|()| Wound::None),
        }
    }
}

impl Wound {
    fn heal(self, cluster: &mut Cluster) -> Result<(), String> {
        match self {
            Wound::None | Wound::Delayed(_) | Wound::FailingCalls(_) => Ok(()),
            Wound::Killed(hosts) => hosts.iter().try_for_each(|host| cluster.process(*host).restart()),
            Wound::Stopped(hosts) => {
                hosts.iter().for_each(|host| cluster.process(*host).signal(Signal::CONT));
                Ok(())
            }
            Wound::Cut => cluster.hosts.heal(),
            Wound::FullDisk(node) => disks::free(cluster.nodes[node].dir()),
        }
    }
}
