//! Leases: what keeps an old primary from serving once another may serve. ARCHITECTURE.md, invariant 2.
//!
//! A beacon carries the time at which it was sent, by the primary's clock. A replica that acknowledges it promises
//! to support no other primary for a quarter longer than a lease after it *received* it; the echo gives the primary a
//! lease until `lease` after it *sent* it. As nothing is received before it is sent, the lease has ended before the
//! promise ends, no two clocks are compared, and their rates may differ by what the quarter allows.
//!
//! How long a lease lasts is the primary's matter, which says it with each beacon: a promise lasts as long as *that* lease
//! needs, whatever the replica itself is configured with, and its acknowledgement repeats it. It is short, because the
//! next primary waits for it, but some round trips long: else a primary whose replicas are far away would never serve.
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

/// A lease lasts at least for so many round trips, so that it is renewed long before it ends.
const ROUND_TRIPS: u32 = 3;
/// A round trip counts as a part of the smoothed one: one stall does not make leases long.
const SMOOTHING: u32 = 8;

/// What a process has acknowledged.
#[derive(Debug, Clone, Copy)]
struct Grant {
    incarnation: Incarnation,
    /// Of the latest beacon.
    sent_at: Monotonic,
    /// When an acknowledgement was received last, of whatever beacon.
    heard_at: Monotonic,
    until: Monotonic,
    /// From beacons to their acknowledgements, smoothed.
    round_trip: Duration,
}

/// The primary's side.
#[derive(Debug)]
pub(crate) struct LeaseHolder {
    shortest: Duration,
    longest: Duration,
    /// Beacons that were sent before give no lease: since then this machine may have stood still, with its clock.
    valid_from: Monotonic,
    grants: BTreeMap<NodeId, Grant>,
}

impl LeaseHolder {
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Self {
        LeaseHolder { shortest, longest, valid_from: Monotonic::ZERO, grants: BTreeMap::new() }
    }

    /// An acknowledgement, received at `now`, of what was sent at `sent_at`: the replica grants a lease from then on.
    pub(crate) fn record(
        &mut self,
        now: Monotonic,
        node: &NodeId,
        incarnation: Incarnation,
        sent_at: Monotonic,
        lease: Duration,
    ) {
        let until = if self.valid_from <= sent_at { sent_at + lease } else { Monotonic::ZERO };
        let round_trip = now.since(sent_at);
        match self.grants.get_mut(node) {
            Some(grant) if grant.incarnation == incarnation => {
                if grant.sent_at < sent_at {
                    let before = grant.round_trip * (SMOOTHING - 1);
                    grant.round_trip = (before + round_trip.min(self.longest)) / SMOOTHING;
                    grant.sent_at = sent_at;
                }
                grant.heard_at = now;
                grant.until = grant.until.max(until);
            }
            Some(grant) if grant.incarnation > incarnation => {}
            Some(_) | None => {
                let grant = Grant { incarnation, sent_at, heard_at: now, until, round_trip: Duration::ZERO };
                self.grants.insert(node.clone(), grant);
            }
        }
    }

    /// Of the replica that is furthest away.
    pub(crate) fn round_trip(&self) -> Duration {
        self.grants.values().map(|grant| grant.round_trip).max().unwrap_or_default()
    }

    /// What is asked for: long enough for replicas that are far away.
    pub(crate) fn lease(&self) -> Duration {
        (self.round_trip() * ROUND_TRIPS).clamp(self.shortest, self.longest)
    }

    /// When the newest beacon that `node` has acknowledged was sent.
    pub(crate) fn acknowledged(&self, node: &NodeId) -> Option<Monotonic> {
        self.grants.get(node).map(|g| g.sent_at)
    }

    /// When an acknowledgement of `node` was received last.
    pub(crate) fn heard_at(&self, node: &NodeId) -> Option<Monotonic> {
        self.grants.get(node).map(|g| g.heard_at)
    }

    /// Until when a lease of `node` is held.
    pub(crate) fn until(&self, node: &NodeId) -> Monotonic {
        self.grants.get(node).map_or(Monotonic::ZERO, |grant| grant.until)
    }

    /// What was sent before gives no lease any more.
    pub(crate) fn forget_before(&mut self, now: Monotonic) {
        self.valid_from = now;
        self.grants.values_mut().for_each(|grant| grant.until = Monotonic::ZERO);
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

    const LEASE: Duration = Duration::from_millis(400);

    fn record(holder: &mut LeaseHolder, node: &NodeId, incarnation: Incarnation, sent_at: Monotonic) {
        let lease = holder.lease();
        holder.record(sent_at, node, incarnation, sent_at, lease);
    }

    #[test]
    fn the_oldest_grant_of_the_members_decides() {
        let mut holder = LeaseHolder::new(LEASE, LEASE);
        let (a, b) = (node(1), node(2));
        assert_eq!(holder.until_all([].into_iter()).as_nanos(), u64::MAX);
        record(&mut holder, &a, Incarnation::new(1), ms(100));
        assert_eq!(holder.until_all([&a, &b].into_iter()), Monotonic::ZERO, "none from b");
        record(&mut holder, &b, Incarnation::new(1), ms(50));
        record(&mut holder, &b, Incarnation::new(1), ms(20));
        assert_eq!(holder.until_all([&a, &b].into_iter()), ms(450), "an older echo takes nothing away");
        assert_eq!(holder.until_all([&a].into_iter()), ms(500));
    }

    #[test]
    fn another_process_of_a_node_starts_without_a_grant() {
        let mut holder = LeaseHolder::new(LEASE, LEASE);
        record(&mut holder, &node(1), Incarnation::new(1), ms(100));
        record(&mut holder, &node(1), Incarnation::new(2), Monotonic::ZERO);
        record(&mut holder, &node(1), Incarnation::new(1), ms(300));
        assert_eq!(holder.acknowledged(&node(1)), Some(Monotonic::ZERO));
    }

    #[test]
    fn every_lease_ends_before_its_promise() {
        for lease in [20, 100, 400, 10_000].map(Duration::from_millis) {
            for delay in [0, 1, 50, 1000] {
                let mut holder = LeaseHolder::new(lease, lease);
                let mut giver = LeaseGiver::new(Monotonic::ZERO);
                giver.promise(ms(20_000 + delay), Term::new(1), lease);
                record(&mut holder, &node(1), Incarnation::new(1), ms(20_000));
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
        let mut holder = LeaseHolder::new(LEASE, LEASE);
        record(&mut holder, &node(1), Incarnation::new(1), ms(100));
        holder.forget_before(ms(120));
        assert_eq!(holder.until(&node(1)), Monotonic::ZERO);
        record(&mut holder, &node(1), Incarnation::new(1), ms(110));
        assert_eq!(holder.until(&node(1)), Monotonic::ZERO, "sent before");
        assert_eq!(holder.acknowledged(&node(1)), Some(ms(110)), "it is heard nevertheless");
        record(&mut holder, &node(1), Incarnation::new(1), ms(120));
        assert_eq!(holder.until(&node(1)), ms(520));
    }

    #[test]
    fn leases_are_some_round_trips_long_and_a_stall_makes_them_hardly_longer() {
        let mut holder = LeaseHolder::new(Duration::from_millis(100), LEASE);
        let mut acknowledge = |sent_at: u64, round_trip: u64| {
            let lease = holder.lease();
            holder.record(ms(sent_at + round_trip), &node(1), Incarnation::new(1), ms(sent_at), lease);
            (holder.lease().as_millis(), holder.until(&node(1)))
        };
        assert_eq!(acknowledge(1000, 1), (100, ms(1100)));
        (101..150).for_each(|n| assert_eq!(acknowledge(n * 10, 1).0, 100));
        assert_eq!(acknowledge(1500, 200).0, 100, "one stall");
        let far = (160..260).map(|n| acknowledge(n * 10, 100)).last().unwrap();
        assert!(295 < far.0 && ms(2590 + 295) < far.1, "{far:?}");
        assert_eq!((260..400).map(|n| acknowledge(n * 10, 900).0).last(), Some(400), "no longer than that");
    }
}
