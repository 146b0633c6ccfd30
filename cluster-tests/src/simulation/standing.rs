//! Runs with a single fault that stays: with a majority of everybody connected, the shard has to serve again within a
//! bound, and not only once the fault is over.

use std::sync::Arc;

use keyward_proto::topology::Topology;
use keyward_replication::core::requests::{ANSWER_LIMIT, Rotation};

use super::story::tell;
use super::world::{SimEvent, World};
use super::{FAULTS_END, NODES, Nanos, SENTINELS, ms, network};

/// Of so many seeds one has each of these faults.
const EVERY: u64 = 16;
/// Before that, with the first fault of other runs, the primary hands over: so there is a topology that is over.
const FAULT_AT: Nanos = ms(1600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The primary hangs, and the sentinel that the others ask first is cut off from the rest, with an old topology.
    OutdatedSentinel,
    /// A replica and the sentinel that the primary asks first are silent: their machine is gone.
    ReplicaWithSentinel,
}

impl Fault {
    /// Without an acknowledged write so long at most. To what the rules need clients add the time until they have found
    /// the primary, and packets that are late.
    fn bound(self) -> Nanos {
        match self {
            // Grace, a question to the nodes, a lease that has to end; then a client's patience.
            Fault::OutdatedSentinel => ms(3000),
            // Half a lease, the wait for the first sentinel.
            Fault::ReplicaWithSentinel => ms(1500),
        }
    }
}

#[derive(Debug)]
pub(super) struct Standing {
    fault: Fault,
    /// As it was before the hand-off.
    old: Option<Arc<Topology>>,
    stands: bool,
    /// When a write was last acknowledged, or the fault began.
    last_write: Nanos,
}

impl Standing {
    pub(super) fn of(seed: u64) -> Option<Standing> {
        let fault = match seed % EVERY {
            5 => Fault::OutdatedSentinel,
            11 => Fault::ReplicaWithSentinel,
            _ => return None,
        };
        Some(Standing { fault, old: None, stands: false, last_write: 0 })
    }
}

impl World {
    /// As by default.
    pub(super) fn prepare(&mut self) {
        self.request_limit = ANSWER_LIMIT;
    }

    /// In the place of one fault after another.
    pub(super) fn stand(&mut self) {
        let now = self.now;
        let Some(standing) = &mut self.standing else { return };
        if now < FAULT_AT {
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
