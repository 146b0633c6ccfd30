//! What is done to processes and hosts, and how it is undone. Processes by the numbers of their hosts.
#![allow(clippy::disallowed_methods, reason = "a shell: signals processes and waits for them")]

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::large_values::LargeValues;
use crate::cluster::Cluster;
use crate::delay::Delay;
use crate::disks::{self, FailingCalls};
use crate::hosts::Cut;
use crate::processes::wait_until;

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
    /// Whatever a node does to its log on disk takes so long.
    SlowDisk(usize, Duration),
    /// Stopped for 130 ms of each 400.
    Stutter(Vec<usize>),
    /// New connections to the bus of a node.
    Refuse(usize),
    /// Of 10 to 60 MB.
    LargeValues {
        seed: u64,
    },
    /// Of these nodes, by so many seconds; back at the end.
    WallClocks(Vec<(usize, i64)>),
    // These are over when they have been brought about.
    HandOff {
        to: usize,
    },
    RollingRestart,
    NewMonotonicClock {
        node: usize,
        ahead: u64,
    },
    ReplaceSentinel(usize),
    LoseSentinels,
    /// By SIGKILL, and started again at once.
    Restart(Vec<usize>),
    MoveEverything,
}

/// How long nodes go on after all sentinels have lost what they knew.
const SERVED_WITHOUT: Duration = Duration::from_millis(300);

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
    WallClocks(Vec<usize>),
    Stuttering(Arc<AtomicBool>, JoinHandle<()>),
    Refused(usize),
    LargeValues(LargeValues),
}

/// Brings injuries about, lets them last, and undoes them, also if one of them fails. The cluster may still have to
/// heal afterwards.
///
/// # Errors
/// The first thing that failed.
pub(super) fn inflict(injuries: Vec<Injury>, cluster: &mut Cluster, lasting: Duration) -> Result<(), String> {
    let mut wounds = Vec::new();
    let mut result = Ok(());
    for injury in in_order(injuries) {
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

/// Clocks go wrong first, while every node can be asked for the time. The rules of all cuts are made, and removed, at
/// once. What is looked at when all is well again ends last, and so begins first.
fn in_order(injuries: Vec<Injury>) -> Vec<Injury> {
    let (mut clocks, mut cuts, mut others, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for injury in injuries {
        match injury {
            Injury::WallClocks(more) => clocks.extend(more),
            Injury::Cut(more) => cuts.extend(more),
            large @ Injury::LargeValues { .. } => values.push(large),
            other => others.push(other),
        }
    }
    let clocks = (!clocks.is_empty()).then_some(Injury::WallClocks(clocks));
    let cuts = (!cuts.is_empty()).then_some(Injury::Cut(cuts));
    values.into_iter().chain(clocks).chain(cuts).chain(others).collect()
}

/// A process that stutters stands still so long, so often.
const STUTTER_STILL: Duration = Duration::from_millis(130);
const STUTTER_PERIOD: Duration = Duration::from_millis(400);

fn stutter(pids: &[Pid], stop: &AtomicBool) {
    let signal = |signal| {
        for pid in pids {
            // One that has ended meanwhile is not waited for yet.
            _ = kill_process(*pid, signal);
        }
    };
    while !stop.load(Ordering::Relaxed) {
        signal(Signal::STOP);
        thread::sleep(STUTTER_STILL);
        signal(Signal::CONT);
        thread::sleep(STUTTER_PERIOD - STUTTER_STILL);
    }
}

/// How long a clock may take to be seen as wrong.
const JUMP_DEADLINE: Duration = Duration::from_secs(5);
/// By how many seconds that may be missed: it is asked for at one moment and compared at another.
const JUMP_TOLERANCE: i64 = 5;

/// Lets wall clocks jump, and sees to it that clients notice.
fn jump(cluster: &Cluster, clocks: &[(usize, i64)]) -> Result<(), String> {
    cluster.set_wall_clocks(clocks)?;
    for (node, ahead) in clocks {
        let is_seen = |seen: i64| seen.abs_diff(*ahead) <= JUMP_TOLERANCE.unsigned_abs();
        if !wait_until(JUMP_DEADLINE, || cluster.wall_clock_ahead(*node).is_some_and(is_seen)) {
            return Err(format!("the wall clock of node {node} does not jump by {ahead} s"));
        }
    }
    Ok(())
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
            Injury::SlowDisk(node, each) => cluster.slow_disk(node, each).map(Wound::FailingCalls),
            Injury::Stutter(hosts) => {
                let pids = hosts.iter().map(|host| cluster.process(*host).pid());
                let pids: Vec<Pid> = pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect();
                let stop = Arc::new(AtomicBool::new(false));
                let is_over = stop.clone();
                Ok(Wound::Stuttering(stop, thread::spawn(move || stutter(&pids, &is_over))))
            }
            Injury::Refuse(node) => {
                let bus = cluster.nodes[node].port() + 10_000;
                cluster.hosts.refuse(node, bus).map(|()| Wound::Refused(node))
            }
            Injury::LargeValues { seed } => {
                Ok(Wound::LargeValues(LargeValues::start(cluster.node_addrs.clone(), seed)))
            }
            Injury::WallClocks(clocks) => {
                let wound = Wound::WallClocks(clocks.iter().map(|(node, _)| *node).collect());
                if let Err(error) = jump(cluster, &clocks) {
                    return wound.heal(cluster).and(Err(error));
                }
                Ok(wound)
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
            Injury::NewMonotonicClock { node, ahead } => {
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
            Injury::LoseSentinels => cluster.lose_sentinels(SERVED_WITHOUT).map(|()| Wound::None),
            Injury::Restart(hosts) => {
                hosts.iter().try_for_each(|host| cluster.process(*host).restart()).map(|()| Wound::None)
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
            Wound::Stuttering(stop, thread) => {
                stop.store(true, Ordering::Relaxed);
                thread.join().map_err(|_| "the thread that stops processes panicked".to_owned())
            }
            Wound::Refused(node) => cluster.hosts.admit(node),
            Wound::LargeValues(values) => values.end(),
            Wound::WallClocks(nodes) => {
                cluster.set_wall_clocks(&nodes.iter().map(|node| (*node, 0)).collect::<Vec<_>>())
            }
        }
    }
}
