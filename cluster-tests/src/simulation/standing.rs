//! Runs with a single fault that stays: with a majority of everybody connected, the shard has to serve again within a
//! bound, and not only once the fault is over.
//!
//! A disk that hangs or crawls is such a fault: its node is alive and answers, so silence gives it away to nobody. Among
//! other faults this is not to be seen, for there anything may take longer.

use std::sync::Arc;

use keyward_proto::ids::Term;
use keyward_proto::topology::Topology;
use keyward_replication::core::requests::{ANSWER_LIMIT, Rotation};
use rand::Rng;

use super::disk::Persistence;
use super::story::tell;
use super::world::{SimEvent, World};
use super::{FAULTS_END, NODES, Nanos, SENTINELS, ms, network};

/// Of so many seeds one has each of these faults.
const EVERY: u64 = 16;
/// Of so many seeds one has a disk that hangs or crawls.
const EVERY_DISK: u64 = 24;
/// A large value takes 0.4 s.
const NARROW_BYTES_PER_SECOND: u64 = 20_000;
const NARROW_APPEND_BYTES: usize = 512;
/// Before that, with the first fault of other runs, the primary hands over: so there is a topology that is over.
const FAULT_AT: Nanos = ms(1600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The primary hangs, and the sentinel that the others ask first is cut off from the rest, with an old topology.
    OutdatedSentinel,
    /// A replica and the sentinel that the primary asks first are silent: their machine is gone.
    ReplicaWithSentinel,
    Disk(DiskFault),
    /// Streams between nodes carry so little that a large value takes longer than anybody may be silent.
    NarrowLines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiskFault {
    PrimaryHangs,
    ReplicaHangs,
    /// Whatever it does takes it most of a second.
    PrimaryCrawls,
    ReplicaCrawls,
    /// All do.
    AllCrawl,
}

const DISK_FAULTS: [DiskFault; 5] = [
    DiskFault::PrimaryHangs,
    DiskFault::ReplicaHangs,
    DiskFault::PrimaryCrawls,
    DiskFault::ReplicaCrawls,
    DiskFault::AllCrawl,
];

impl Fault {
    /// Without an acknowledged write so long at most. To what the rules need clients add the time until they have found
    /// the primary, and packets that are late.
    fn bound(self) -> Nanos {
        match self {
            // Grace, a question to the nodes, a lease that has to end; then a client's patience.
            Fault::OutdatedSentinel => ms(3000),
            // Half a lease, the wait for the first sentinel.
            Fault::ReplicaWithSentinel => ms(1500),
            // So long it may hold clients up, then a hand-off, and the removal of who was the primary.
            Fault::Disk(DiskFault::PrimaryHangs | DiskFault::ReplicaHangs) => ms(3500),
            // What is written now and then is paid back.
            Fault::Disk(DiskFault::PrimaryCrawls | DiskFault::ReplicaCrawls) => ms(5000),
            Fault::Disk(DiskFault::AllCrawl) => FAULTS_END,
            // Some large values one after another.
            Fault::NarrowLines => ms(2500),
        }
    }
}

#[derive(Debug)]
pub(super) struct Standing {
    fault: Fault,
    /// As it was before the hand-off.
    old: Option<Arc<Topology>>,
    stands: bool,
    /// Whose disk is slow, if it is one; the term and the version of the in-sync set when it became slow.
    slow: Option<usize>,
    began: (Term, u64),
    /// When a write was last acknowledged, or the fault began.
    last_write: Nanos,
}

impl Standing {
    pub(super) fn of(seed: u64) -> Option<Standing> {
        let fault = match (seed % EVERY, seed % EVERY_DISK) {
            (5, _) => Fault::OutdatedSentinel,
            (11, _) => Fault::ReplicaWithSentinel,
            (13, _) => Fault::NarrowLines,
            (_, 2) => Fault::Disk(DISK_FAULTS[(seed / EVERY_DISK % DISK_FAULTS.len() as u64) as usize]),
            _ => return None,
        };
        let began = (Term::ZERO, 0);
        Some(Standing { fault, old: None, stands: false, slow: None, began, last_write: 0 })
    }

    /// There has to be a disk, and what it has not taken has to matter.
    pub(super) fn persistence(&self, drawn: Persistence) -> Persistence {
        match (self.fault, drawn) {
            (Fault::Disk(_), Persistence::Memory) => Persistence::Always,
            _ => drawn,
        }
    }
}

impl World {
    /// As by default.
    pub(super) fn prepare(&mut self) {
        self.request_limit = ANSWER_LIMIT;
        if self.standing.as_ref().is_some_and(|standing| standing.fault == Fault::NarrowLines) {
            self.append_bytes = NARROW_APPEND_BYTES;
        }
    }

    /// In the place of one fault after another.
    pub(super) fn stand(&mut self) {
        let now = self.now;
        let is_whole = self.is_whole();
        let Some(standing) = &mut self.standing else { return };
        if standing.fault == Fault::NarrowLines && !is_whole {
            return self.at(ms(20), SimEvent::Fault);
        }
        if now < FAULT_AT && !matches!(standing.fault, Fault::Disk(_) | Fault::NarrowLines) {
            standing.old = Some(Arc::clone(&self.register.topology));
            self.at(FAULT_AT - now, SimEvent::Fault);
            return self.request_handoff(None);
        }
        (standing.stands, standing.last_write) = (true, now);
        let (fault, old) = (standing.fault, standing.old.clone());
        self.at(FAULTS_END - now, SimEvent::Fault);
        let Some(primary) = self.leader() else { return };
        // All ask the same sentinel first, as they do that have the same configuration.
        let first = self.machines[primary].rotation.current();
        for machine in &mut self.machines {
            machine.rotation = Rotation::starting_at(first, SENTINELS);
        }
        let until = FAULTS_END - now;
        self.note_begin();
        match fault {
            Fault::OutdatedSentinel => {
                tell!("FAULT sentinel {first} is cut off from the others, with an old view");
                self.sentinels[first].view = old.expect("there was a hand-off");
                for other in (0..SENTINELS).filter(|other| *other != first) {
                    self.network.cut_both(network::sentinel(first), network::sentinel(other));
                }
                self.pause_node(primary, until);
            }
            Fault::ReplicaWithSentinel => {
                tell!("FAULT sentinel {first} stands still");
                self.sentinels[first].paused_until = FAULTS_END;
                self.pause_node((primary + 1) % NODES, until);
            }
            Fault::Disk(fault) => self.slow_disk(fault, primary),
            Fault::NarrowLines => {
                tell!("FAULT the lines between nodes carry {NARROW_BYTES_PER_SECOND} bytes per second");
                self.network.bytes_per_second = Some(NARROW_BYTES_PER_SECOND);
            }
        }
    }

    /// Before that, nobody can be expected to stay in sync.
    fn is_whole(&self) -> bool {
        self.register.shard().is_some_and(|shard| {
            shard.primary.is_some() && shard.in_sync.len() == NODES && shard.restarted.is_empty()
        })
    }

    fn note_begin(&mut self) {
        if let (Some(standing), Some(shard)) = (&mut self.standing, self.register.shard()) {
            standing.began = (shard.term, shard.in_sync_version);
        }
    }

    fn slow_disk(&mut self, fault: DiskFault, primary: usize) {
        let replica = (primary + self.rng.random_range(1..NODES)) % NODES;
        let pace = self.rng.random_range(ms(700)..ms(950));
        let (nodes, hangs) = match fault {
            DiskFault::PrimaryHangs => (vec![primary], true),
            DiskFault::ReplicaHangs => (vec![replica], true),
            DiskFault::PrimaryCrawls => (vec![primary], false),
            DiskFault::ReplicaCrawls => (vec![replica], false),
            DiskFault::AllCrawl => ((0..NODES).collect(), false),
        };
        tell!("FAULT {fault:?}: the disk of {nodes:?} takes {} ms for everything", pace / ms(1));
        for node in &nodes {
            let disk = &mut self.machines[*node].disk;
            if hangs {
                disk.stalled_until = FAULTS_END;
            } else {
                disk.pace = pace;
            }
        }
        if let Some(standing) = &mut self.standing {
            standing.slow = (nodes.len() == 1).then_some(nodes[0]);
        }
    }

    /// The fault is about to end: who held everybody up has given way, once, and nobody where all are alike.
    pub(super) fn check_who_gave_way(&self) {
        let (Some(standing), Some(shard)) = (&self.standing, self.register.shard()) else { return };
        let fault = standing.fault;
        if !matches!(fault, Fault::Disk(_) | Fault::NarrowLines) || !standing.stands {
            return;
        }
        let (term, version) = standing.began;
        match standing.slow {
            None => assert_eq!(
                (shard.term, shard.in_sync_version),
                (term, version),
                "invariant 10: somebody gave way though all are alike ({fault:?})"
            ),
            Some(node) => {
                assert!(
                    !shard.in_sync.contains(&self.machines[node].id),
                    "invariant 10: node {node} is in sync though its disk holds everybody up ({fault:?})"
                );
                assert!(
                    shard.term.get() <= term.get() + 1,
                    "invariant 10: the primary changed again and again"
                );
            }
        }
    }

    /// A write was acknowledged.
    pub(super) fn note_write(&mut self) {
        let now = self.now;
        let Some(standing) = self.standing.as_mut().filter(|standing| standing.stands) else { return };
        let (fault, since) = (standing.fault, standing.last_write);
        standing.last_write = now;
        if now < FAULTS_END {
            assert!(
                now - since <= fault.bound(),
                "invariant 10: no write for {} ms while {fault:?} stood",
                (now - since) / ms(1)
            );
        } else {
            standing.stands = false;
            assert!(since + fault.bound() >= FAULTS_END, "invariant 10: no write until {fault:?} was over");
        }
    }
}
