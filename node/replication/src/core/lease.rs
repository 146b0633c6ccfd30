//! Leases: what keeps an old primary from serving once another may serve. ARCHITECTURE.md, invariant 2.
//!
//! A beacon carries the time at which it was sent, by the primary's clock. A replica that acknowledges it promises
//! to support no other primary for a quarter longer than a lease after it *received* it; the echo gives the primary a
//! lease until `lease` after it *sent* it. As nothing is received before it is sent, the lease has ended before the
//! promise ends, no two clocks are compared, and their rates may differ by what the quarter allows.
//!
//! How long a lease lasts is the primary's matter, which tells it at the begin of a stream: a promise lasts as long as
//! *that* lease needs, whatever the replica itself is configured with.
//!
//! The primary serves only while it holds a lease from *every* member that may be elected in its place. The new
//! primary is one of them, so it is enough that it waits for its own promises: to the primary of the last term, unless
//! that one is known to be gone, and to those before it, which that does not concern. Nobody else has to know how old
//! leases are.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId, Term};
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
    /// Beacons that were sent before give no lease: since then this machine may have stood still, with its clock.
    valid_from: Monotonic,
    grants: BTreeMap<NodeId, Grant>,
}

impl LeaseHolder {
    pub(crate) fn new(lease: Duration) -> Self {
        LeaseHolder { lease, valid_from: Monotonic::ZERO, grants: BTreeMap::new() }
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
        let sent_at = self.acknowledged(node).filter(|sent_at| self.valid_from <= *sent_at);
        sent_at.map_or(Monotonic::ZERO, |sent_at| sent_at + self.lease)
    }

    /// What was sent before gives no lease any more.
    pub(crate) fn forget_before(&mut self, now: Monotonic) {
        self.valid_from = now;
    }

    /// Until when leases of all `members` are held: for ever if there are none.
    pub(crate) fn until_all<'a>(&self, members: impl Iterator<Item = &'a NodeId>) -> Monotonic {
        members.map(|m| self.until(m)).min().unwrap_or(Monotonic::from_nanos(u64::MAX))
    }
}

/// How long a lease of this length is promised for.
pub(crate) fn promise(lease: Duration) -> Duration {
    if mutation::is_on(Mutation::GraceShorterThanLease) { lease / 4 } else { lease + lease / 4 }
}

/// The replica's side.
#[derive(Debug)]
pub(crate) struct LeaseGiver {
    started_at: Monotonic,
    /// Until when no other primary is supported than that of the term. Those that have ended may be gone.
    promises: BTreeMap<Term, Monotonic>,
}

impl LeaseGiver {
    /// Of a process that has just started.
    pub(crate) fn new(now: Monotonic) -> Self {
        LeaseGiver { started_at: now, promises: BTreeMap::new() }
    }

    /// Before an acknowledgement of a beacon of the primary of `term`, received at `now`.
    pub(crate) fn promise(&mut self, now: Monotonic, term: Term, lease: Duration) {
        self.promises.retain(|of, until| *of == term || now < *until);
        let until = self.promises.entry(term).or_default();
        *until = (*until).max(now + promise(lease));
    }

    /// Until when primaries of terms before `from` were promised that no other is supported. An earlier process of this
    /// node may have promised something to whoever is granted leases of up to `longest`, just before it ended.
    pub(crate) fn promised_until(&self, from: Term, longest: Duration) -> Monotonic {
        let given = self.promises.range(..from).map(|(_, until)| *until);
        given.chain([self.started_at + promise(longest)]).max().unwrap_or_default()
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
        for lease in [20, 100, 400, 10_000].map(Duration::from_millis) {
            for delay in [0, 1, 50, 1000] {
                let mut holder = LeaseHolder::new(lease);
                let mut giver = LeaseGiver::new(Monotonic::ZERO);
                giver.promise(ms(20_000 + delay), Term::new(1), lease);
                holder.record(&node(1), Incarnation::new(1), ms(20_000));
                // Whatever this node would be granted itself.
                let promised = giver.promised_until(Term::new(2), Duration::from_millis(20));
                assert!(holder.until(&node(1)) + lease / 8 < promised);
            }
        }
    }

    #[test]
    fn promises_to_earlier_primaries_are_kept_when_the_last_one_is_gone() {
        let (mut giver, short) = (LeaseGiver::new(Monotonic::ZERO), Duration::from_millis(20));
        giver.promise(ms(1000), Term::new(4), Duration::from_millis(400));
        giver.promise(ms(1100), Term::new(5), Duration::from_millis(2000));
        assert_eq!(giver.promised_until(Term::new(6), short), ms(3600));
        assert_eq!(giver.promised_until(Term::new(5), short), ms(1500), "that of term 5 is gone");
        giver.promise(ms(1600), Term::new(5), Duration::from_millis(2000));
        assert_eq!(giver.promises.len(), 1, "what has ended is forgotten");
    }

    #[test]
    fn an_earlier_process_may_have_promised_the_longest_lease_of_the_shard() {
        let giver = LeaseGiver::new(ms(500));
        assert_eq!(giver.promised_until(Term::new(2), Duration::from_secs(8)), ms(10_500));
    }

    #[test]
    fn after_its_clock_stood_still_a_primary_needs_leases_from_later_beacons() {
        let mut holder = LeaseHolder::new(Duration::from_millis(400));
        holder.record(&node(1), Incarnation::new(1), ms(100));
        holder.forget_before(ms(120));
        assert_eq!(holder.until(&node(1)), Monotonic::ZERO);
        holder.record(&node(1), Incarnation::new(1), ms(110));
        assert_eq!(holder.until(&node(1)), Monotonic::ZERO, "sent before");
        assert_eq!(holder.acknowledged(&node(1)), Some(ms(110)), "it is heard nevertheless");
        holder.record(&node(1), Incarnation::new(1), ms(120));
        assert_eq!(holder.until(&node(1)), ms(520));
    }
}
