//! The faults: what each does to which processes.
//!
//! A fault is made of injuries (`injury.rs`), which are brought about together, last for a while, and are ended
//! together; so two faults can happen at once.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::injury::Injury;
use crate::cluster::{Cluster, ShardNodes};
use crate::hosts::Cut;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    KillPrimary,
    KillReplica,
    /// Primary and leading sentinel.
    KillPrimaryAndSentinel,
    /// Every process at once, as when the power fails.
    PowerLoss,
    PausePrimary,
    PauseReplica,
    PauseSentinels,
    HandOff,
    /// Every node in turn, by SIGTERM.
    RollingRestart,
    /// The primary reaches no other host.
    IsolatePrimary,
    /// A replica reaches no other host.
    IsolateReplica,
    /// The leading sentinel reaches no other host.
    IsolateSentinel,
    /// The primary reaches the replicas, but no sentinel.
    IsolatePrimaryFromSentinels,
    /// The primary reaches the sentinels, but none of its replicas.
    IsolatePrimaryFromReplicas,
    /// The primary with one sentinel on one side, everybody else on the other.
    Split,
    /// As Split, but one host reaches both sides.
    Bridge,
    /// The primary can send to the other hosts but receives nothing from them.
    DeafPrimary,
    /// The primary receives, but nothing from it reaches anybody.
    MutePrimary,
    /// A replica can send to the other hosts but receives nothing from them.
    DeafReplica,
    /// The other hosts reach a replica, but nothing from it reaches anybody.
    MuteReplica,
    /// Of a hundred packets between hosts 10 to 50 are lost.
    Loss,
    /// Packets between hosts take 50 to 500 ms.
    Delay,
    /// A node comes back with another monotonic clock, as after a reboot or on another machine.
    NewMonotonicClock,
    /// The wall clock of the running primary is wrong by up to a day, in either direction.
    WallClockOfPrimary,
    /// The same for a replica.
    WallClockOfReplica,
    /// The same for every node of the shard, each by another amount.
    WallClocksOfShard,
    /// The disk of a node takes no more.
    FullDisk,
    /// Every sync of a node's files fails.
    FailingSync,
    /// The disk of a node hangs, or takes most of a second for everything.
    SlowDisk,
    /// The primary stands still for 130 ms of each 400.
    StutterPrimary,
    /// All replicas do, each at other moments.
    StutterReplicas,
    /// Values of 10 to 60 MB are written.
    LargeValues,
    /// New connections to the primary's bus are refused though it lives, and it may reach no sentinel.
    RefusePrimary,
    /// A node restarts, and nobody is told that its connections have ended.
    HalfOpen,
    /// All sentinels lose their disks; an operator lets them go on with what the nodes have.
    LoseSentinels,
    /// A sentinel loses its disk and joins as a new one.
    ReplaceSentinel,
    /// Every process ends and comes back at another address.
    MoveEverything,
}

/// By how many seconds a wall clock is wrong at most.
const WRONG_MAX: i64 = 24 * 60 * 60;

fn wrong_by(rng: &mut SmallRng) -> i64 {
    rng.random_range(-WRONG_MAX..=WRONG_MAX)
}

/// What a fault needs beside processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Hosts with networks, clocks and disks of their own.
    Namespaces,
    /// Data that survives on disk.
    Persistence,
    /// `iptables`, and a kernel with NFQUEUE.
    DelayedPackets,
    /// `strace`.
    Tracing,
    /// `libfaketime`.
    WallClocks,
    /// A kernel that can refuse connections in the name of a host.
    Refusals,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::KillPrimary,
        Fault::KillReplica,
        Fault::KillPrimaryAndSentinel,
        Fault::PowerLoss,
        Fault::PausePrimary,
        Fault::PauseReplica,
        Fault::PauseSentinels,
        Fault::HandOff,
        Fault::RollingRestart,
        Fault::IsolatePrimary,
        Fault::IsolateReplica,
        Fault::IsolateSentinel,
        Fault::IsolatePrimaryFromSentinels,
        Fault::IsolatePrimaryFromReplicas,
        Fault::Split,
        Fault::Bridge,
        Fault::DeafPrimary,
        Fault::MutePrimary,
        Fault::DeafReplica,
        Fault::MuteReplica,
        Fault::Loss,
        Fault::Delay,
        Fault::NewMonotonicClock,
        Fault::WallClockOfPrimary,
        Fault::WallClockOfReplica,
        Fault::WallClocksOfShard,
        Fault::FullDisk,
        Fault::FailingSync,
        Fault::SlowDisk,
        Fault::StutterPrimary,
        Fault::StutterReplicas,
        Fault::LargeValues,
        Fault::RefusePrimary,
        Fault::HalfOpen,
        Fault::LoseSentinels,
        Fault::ReplaceSentinel,
        Fault::MoveEverything,
    ];

    /// Than others: until a slow disk is given up takes some time.
    pub(super) fn lasts_longer_by(self) -> Duration {
        if self == Fault::SlowDisk { Duration::from_millis(2500) } else { Duration::ZERO }
    }

    pub fn needs(self) -> &'static [Need] {
        match self {
            Fault::KillPrimary
            | Fault::KillReplica
            | Fault::KillPrimaryAndSentinel
            | Fault::PausePrimary
            | Fault::PauseReplica
            | Fault::PauseSentinels
            | Fault::HandOff
            | Fault::RollingRestart
            | Fault::StutterPrimary
            | Fault::StutterReplicas
            | Fault::LargeValues
            | Fault::ReplaceSentinel => &[],
            Fault::PowerLoss | Fault::LoseSentinels => &[Need::Persistence],
            Fault::SlowDisk => &[Need::Persistence, Need::Tracing],
            Fault::RefusePrimary => &[Need::Namespaces, Need::Refusals],
            Fault::MoveEverything | Fault::FullDisk => &[Need::Namespaces, Need::Persistence],
            Fault::FailingSync => &[Need::Namespaces, Need::Persistence, Need::Tracing],
            Fault::Delay => &[Need::Namespaces, Need::DelayedPackets],
            Fault::IsolatePrimary
            | Fault::IsolateReplica
            | Fault::IsolateSentinel
            | Fault::IsolatePrimaryFromSentinels
            | Fault::IsolatePrimaryFromReplicas
            | Fault::Split
            | Fault::Bridge
            | Fault::DeafPrimary
            | Fault::MutePrimary
            | Fault::DeafReplica
            | Fault::MuteReplica
            | Fault::Loss
            | Fault::HalfOpen
            | Fault::NewMonotonicClock => &[Need::Namespaces],
            Fault::WallClockOfPrimary | Fault::WallClockOfReplica | Fault::WallClocksOfShard => {
                &[Need::WallClocks]
            }
        }
    }

    /// Whether `other` may happen at the same time: a fault of the network, and one of processes that only lasts; wrong
    /// clocks, and anything else.
    pub fn goes_with(self, other: Fault) -> bool {
        self.is_of_network() && other.is_of_processes()
            || other.is_of_network() && self.is_of_processes()
            || self.is_of_wall_clocks() != other.is_of_wall_clocks()
    }

    fn is_of_wall_clocks(self) -> bool {
        self.needs().contains(&Need::WallClocks)
    }

    fn is_of_network(self) -> bool {
        matches!(
            self,
            Fault::IsolatePrimary
                | Fault::IsolateReplica
                | Fault::IsolateSentinel
                | Fault::IsolatePrimaryFromSentinels
                | Fault::IsolatePrimaryFromReplicas
                | Fault::Split
                | Fault::Bridge
                | Fault::DeafPrimary
                | Fault::MutePrimary
                | Fault::DeafReplica
                | Fault::MuteReplica
                | Fault::Loss
                | Fault::Delay
                | Fault::RefusePrimary
        )
    }

    fn is_of_processes(self) -> bool {
        matches!(
            self,
            Fault::KillPrimary
                | Fault::KillReplica
                | Fault::KillPrimaryAndSentinel
                | Fault::PowerLoss
                | Fault::PausePrimary
                | Fault::PauseReplica
                | Fault::PauseSentinels
                | Fault::HandOff
                | Fault::FullDisk
                | Fault::SlowDisk
                | Fault::StutterPrimary
                | Fault::StutterReplicas
                | Fault::LargeValues
        )
    }

    /// What is done to a cluster whose shards are as given, of which one is hit.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn injuries(
        self,
        cluster: &Cluster,
        shard: &ShardNodes,
        rng: &mut SmallRng,
    ) -> Result<Vec<Injury>, String> {
        let primary = shard.primary;
        let replica = *shard.replicas.choose(rng).ok_or("the shard has no replica")?;
        let either = if rng.random_bool(0.5) { primary } else { replica };
        let nodes = cluster.nodes.len();
        let sentinels = || nodes..nodes + cluster.sentinels.len();
        let leader = || cluster.leading_sentinel().map(|i| nodes + i).ok_or("no sentinel says that it leads");
        let cuts = |cuts: Vec<Cut>| vec![Injury::Cut(cuts)];
        Ok(match self {
            Fault::KillPrimary => vec![Injury::Kill(vec![primary])],
            Fault::KillReplica => vec![Injury::Kill(vec![replica])],
            Fault::KillPrimaryAndSentinel => vec![Injury::Kill(vec![leader()?, primary])],
            Fault::PowerLoss => vec![Injury::Kill(cluster.all_hosts().collect())],
            Fault::PausePrimary => vec![Injury::Stop(vec![primary])],
            Fault::PauseReplica => vec![Injury::Stop(vec![replica])],
            Fault::PauseSentinels => vec![Injury::Stop(sentinels().collect())],
            Fault::HandOff => vec![Injury::HandOff { to: replica }],
            Fault::RollingRestart => vec![Injury::RollingRestart],
            Fault::IsolatePrimary => cuts(vec![Cut::Host(primary)]),
            Fault::IsolateReplica => cuts(vec![Cut::Host(replica)]),
            Fault::IsolateSentinel => cuts(vec![Cut::Host(leader()?)]),
            Fault::IsolatePrimaryFromSentinels => {
                cuts(sentinels().map(|sentinel| Cut::Between(primary, sentinel)).collect())
            }
            Fault::IsolatePrimaryFromReplicas => {
                cuts(shard.replicas.iter().map(|replica| Cut::Between(primary, *replica)).collect())
            }
            Fault::Split | Fault::Bridge => {
                let beside = sentinels().choose(rng).expect("there are sentinels");
                let is_left = |host: usize| host == primary || host == beside;
                let right = || cluster.all_hosts().filter(|host| !is_left(*host));
                let middle = right().choose(rng).filter(|_| self == Fault::Bridge);
                let right = right().filter(|host| Some(*host) != middle);
                cuts(
                    right
                        .flat_map(|host| [Cut::Between(primary, host), Cut::Between(beside, host)])
                        .collect(),
                )
            }
            Fault::DeafPrimary => cuts(vec![Cut::To(primary)]),
            Fault::MutePrimary => cuts(vec![Cut::From(primary)]),
            Fault::DeafReplica => cuts(vec![Cut::To(replica)]),
            Fault::MuteReplica => cuts(vec![Cut::From(replica)]),
            Fault::Loss => cuts(vec![Cut::Loss(rng.random_range(10..=50))]),
            Fault::Delay => vec![Injury::Delay { milliseconds: 50..=500, seed: rng.random() }],
            Fault::NewMonotonicClock => {
                vec![Injury::NewMonotonicClock { node: either, ahead: rng.random_range(0..10_000_000) }]
            }
            Fault::WallClockOfPrimary => vec![Injury::WallClocks(vec![(primary, wrong_by(rng))])],
            Fault::WallClockOfReplica => vec![Injury::WallClocks(vec![(replica, wrong_by(rng))])],
            Fault::WallClocksOfShard => {
                let nodes = std::iter::once(&primary).chain(&shard.replicas);
                vec![Injury::WallClocks(nodes.map(|node| (*node, wrong_by(rng))).collect())]
            }
            Fault::FullDisk => vec![Injury::FullDisk(either)],
            Fault::FailingSync => vec![Injury::FailingSync(either)],
            Fault::SlowDisk => {
                let hangs = rng.random_bool(0.5);
                let each = if hangs { 10_000 } else { rng.random_range(400..900) };
                vec![Injury::SlowDisk(either, Duration::from_millis(each))]
            }
            Fault::StutterPrimary => vec![Injury::Stutter(vec![primary])],
            Fault::StutterReplicas => {
                shard.replicas.iter().map(|replica| Injury::Stutter(vec![*replica])).collect()
            }
            Fault::LargeValues => vec![Injury::LargeValues { seed: rng.random() }],
            Fault::RefusePrimary => {
                let cut = sentinels().map(|sentinel| Cut::Between(primary, sentinel)).collect();
                let cut = rng.random_bool(0.6).then_some(Injury::Cut(cut));
                std::iter::once(Injury::Refuse(primary)).chain(cut).collect()
            }
            Fault::HalfOpen => {
                vec![Injury::Cut(vec![Cut::Endings(either)]), Injury::Restart(vec![either])]
            }
            Fault::LoseSentinels => vec![Injury::LoseSentinels],
            Fault::ReplaceSentinel => {
                vec![Injury::ReplaceSentinel(sentinels().choose(rng).expect("there are sentinels"))]
            }
            Fault::MoveEverything => vec![Injury::MoveEverything],
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillPrimary => "kill -9 of the primary",
            Fault::KillReplica => "kill -9 of a replica",
            Fault::KillPrimaryAndSentinel => "kill -9 of primary and leading sentinel",
            Fault::PowerLoss => "kill -9 of all processes",
            Fault::PausePrimary => "SIGSTOP of the primary",
            Fault::PauseReplica => "SIGSTOP of a replica",
            Fault::PauseSentinels => "SIGSTOP of all sentinels",
            Fault::HandOff => "hand-off",
            Fault::RollingRestart => "rolling restart",
            Fault::IsolatePrimary => "primary isolated",
            Fault::IsolateReplica => "replica isolated",
            Fault::IsolateSentinel => "leading sentinel isolated",
            Fault::IsolatePrimaryFromSentinels => "primary without sentinels",
            Fault::IsolatePrimaryFromReplicas => "primary without replicas",
            Fault::Split => "split, primary in the minority",
            Fault::Bridge => "split with a bridge",
            Fault::DeafPrimary => "primary hears nobody",
            Fault::MutePrimary => "primary heard by nobody",
            Fault::DeafReplica => "replica hears nobody",
            Fault::MuteReplica => "replica heard by nobody",
            Fault::Loss => "10 to 50 % packet loss",
            Fault::Delay => "50 to 500 ms delay",
            Fault::NewMonotonicClock => "restart with another monotonic clock",
            Fault::WallClockOfPrimary => "wall clock of the primary wrong",
            Fault::WallClockOfReplica => "wall clock of a replica wrong",
            Fault::WallClocksOfShard => "all wall clocks wrong",
            Fault::FullDisk => "full disk",
            Fault::FailingSync => "failing syncs",
            Fault::SlowDisk => "slow disk",
            Fault::StutterPrimary => "stuttering primary",
            Fault::StutterReplicas => "stuttering replicas",
            Fault::LargeValues => "large values",
            Fault::RefusePrimary => "primary's bus refused",
            Fault::HalfOpen => "half-open connections",
            Fault::LoseSentinels => "all sentinels without their disks",
            Fault::ReplaceSentinel => "sentinel replaced",
            Fault::MoveEverything => "every address changed",
        })
    }
}
