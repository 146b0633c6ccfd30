//! Leases: what keeps an old primary from serving once another may serve. ARCHITECTURE.md, invariant 2.
//!
//! A beacon carries the time at which it was sent, by the primary's clock. A replica that acknowledges it promises
//! to support no other primary until `grace` after it *received* it; the echo gives the primary a lease until
//! `lease` after it *sent* it. As grace > lease and nothing is received before it is sent, the lease has ended
//! before the promise ends, and no two clocks are compared.
//!
//! The primary serves only while it holds a lease from *every* member that may be elected in its place. The new
//! primary is one of them, so it is enough that it waits for its own promise.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

/// The latest beacon that a process has acknowledged.
#[derive(Debug, Clone, Copy)]
struct Grant {
    incarnation: Incarnation,
    sent_at: Monotonic,
}

/// The primary's side.
#[derive(Debug)]
pub(crate) struct LeaseHolder {
    lease: Duration,
    grants: BTreeMap<NodeId, Grant>,
}

impl LeaseHolder {
    pub(crate) fn new(lease: Duration) -> Self {
        LeaseHolder { lease, grants: BTreeMap::new() }
    }

    /// An acknowledgement of what was sent at `sent_at`.
    pub(crate) fn record(&mut self, node: &NodeId, incarnation: Incarnation, sent_at: Monotonic) {
        match self.grants.get_mut(node) {
            Some(grant) if grant.incarnation == incarnation => grant.sent_at = grant.sent_at.max(sent_at),
            Some(grant) if grant.incarnation > incarnation => {}
            Some(_) | None => {
                self.grants.insert(node.clone(), Grant { incarnation, sent_at });
            }
        }
    }

    /// When the newest beacon that `node` has acknowledged was sent.
    pub(crate) fn acknowledged(&self, node: &NodeId) -> Option<Monotonic> {
        self.grants.get(node).map(|g| g.sent_at)
    }

    /// Until when a lease of `node` is held.
    pub(crate) fn until(&self, node: &NodeId) -> Monotonic {
        self.acknowledged(node).map_or(Monotonic::ZERO, |sent_at| sent_at + self.lease)
    }

    /// Until when leases of all `members` are held: for ever if there are none.
    pub(crate) fn until_all<'a>(&self, members: impl Iterator<Item = &'a NodeId>) -> Monotonic {
        members.map(|m| self.until(m)).min().unwrap_or(Monotonic::from_nanos(u64::MAX))
    }
}

/// The replica's side.
#[derive(Debug)]
pub(crate) struct LeaseGiver {
    grace: Duration,
    /// No other primary is supported before. Never falls, except when the primary is known to be gone.
    promised_until: Monotonic,
}

impl LeaseGiver {
    /// An earlier process of this node may have promised something just before it ended.
    pub(crate) fn new(grace: Duration, now: Monotonic) -> Self {
        LeaseGiver { grace, promised_until: now + grace }
    }

    /// The primary may have a longer grace configured than this node.
    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// Before an acknowledgement of a beacon received at `now`.
    pub(crate) fn promise(&mut self, now: Monotonic) {
        let is_short = mutation::is_on(Mutation::GraceShorterThanLease);
        let grace = if is_short { self.grace / 4 } else { self.grace };
        self.promised_until = self.promised_until.max(now + grace);
    }

    pub(crate) fn promised_until(&self) -> Monotonic {
        self.promised_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_random([n; 20])
    }

    #[test]
    fn the_oldest_grant_of_the_members_decides() {
        let mut holder = LeaseHolder::new(Duration::from_millis(400));
        let (a, b) = (node(1), node(2));
        assert_eq!(holder.until_all([].into_iter()).as_nanos(), u64::MAX);
        holder.record(&a, Incarnation::new(1), ms(100));
        assert_eq!(holder.until_all([&a, &b].into_iter()), Monotonic::ZERO, "none from b");
        holder.record(&b, Incarnation::new(1), ms(50));
        holder.record(&b, Incarnation::new(1), ms(20));
        assert_eq!(holder.until_all([&a, &b].into_iter()), ms(450), "an older echo takes nothing away");
        assert_eq!(holder.until_all([&a].into_iter()), ms(500));
    }

    #[test]
    fn another_process_of_a_node_starts_without_a_grant() {
        let mut holder = LeaseHolder::new(Duration::from_millis(400));
        holder.record(&node(1), Incarnation::new(1), ms(100));
        holder.record(&node(1), Incarnation::new(2), Monotonic::ZERO);
        holder.record(&node(1), Incarnation::new(1), ms(300));
        assert_eq!(holder.acknowledged(&node(1)), Some(Monotonic::ZERO));
    }

    #[test]
    fn every_lease_ends_before_its_promise() {
        let (lease, grace) = (Duration::from_millis(400), Duration::from_millis(500));
        for delay in [0, 1, 50, 1000] {
            let mut holder = LeaseHolder::new(lease);
            let mut giver = LeaseGiver::new(grace, Monotonic::ZERO);
            giver.promise(ms(1000 + delay));
            holder.record(&node(1), Incarnation::new(1), ms(1000));
            assert!(holder.until(&node(1)) < giver.promised_until());
        }
    }
}
