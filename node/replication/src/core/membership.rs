//! How a primary keeps its in-sync set: removal of silent members, addition of replicas that have caught up.
//!
//! A change is a compare-and-set on the set's version, decided by the sentinels; one is under way at a time. An
//! unanswered proposal may take effect at any later time, so it stands until its outcome is *known*: the topology has
//! a later version of the set, or the process to be added is not the node's current one any more, or the only attempt
//! ever made was refused. Until then the member to be removed and the node to be added both count.
//!
//! A joining node counts already before its addition is proposed: commit stands still at what it holds, for the short
//! time until it holds everything committed. Only then is the proposal sent, so that no committed entry is missing
//! in a node at the moment when it becomes electable. As nothing can take the proposal back, a node that dies meanwhile
//! holds the shard up until the sentinels answer; so none begins to join before they have carried something out a
//! moment ago: without sentinels what is served goes on.
//!
//! The sentinels are told below how many members nothing is committed (`Minimum`): whoever leaves such a set may be
//! chosen. It is also what they are asked to confirm before a node joins. Any other change may take its place at any
//! time, for it is compared with the same version.

use std::collections::BTreeSet;
use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Shard;

use super::config::ReplicationAck;
use super::local::Local;
use super::messages::{Action, LinkId, Outcome, Request, RequestId, Suspicion};
use super::primary::{Link, LinkPhase, Primary};
use crate::log::WriteLog;

/// First pause before a request is repeated; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// After a refusal or a failed join nothing is proposed for so long.
const COOL_DOWN: Duration = Duration::from_millis(100);

/// When to repeat a request after so many attempts.
pub(crate) fn retry_after(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << attempts.min(8)).min(RETRY_MAX)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Remove(BTreeSet<NodeId>),
    Minimum(u32),
    Add(NodeId, Incarnation),
}

/// A change of the in-sync set whose outcome is not known.
#[derive(Debug)]
pub(crate) struct Proposal {
    change: Change,
    version: u64,
    attempts: u32,
    in_flight: Option<RequestId>,
    retry_at: Monotonic,
}

impl Proposal {
    fn new(change: Change, version: u64) -> Self {
        Proposal { change, version, attempts: 0, in_flight: None, retry_at: Monotonic::ZERO }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn added(&self) -> Option<&NodeId> {
        match &self.change {
            Change::Add(node, _) => Some(node),
            Change::Remove(_) | Change::Minimum(_) => None,
        }
    }

    fn into_removed(self) -> Option<BTreeSet<NodeId>> {
        if let Change::Remove(nodes) = self.change { Some(nodes) } else { None }
    }

    fn is_minimum(&self) -> bool {
        matches!(self.change, Change::Minimum(_))
    }

    pub(crate) fn retry_at(&self) -> Option<Monotonic> {
        self.in_flight.is_none().then_some(self.retry_at)
    }
}

/// A replica that counts because its addition is or will be proposed.
#[derive(Debug)]
pub(crate) struct Joining {
    node: NodeId,
    incarnation: Incarnation,
    link: LinkId,
    since: Monotonic,
}

impl Joining {
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }
}

impl Primary {
    /// Drops a proposal whose outcome the topology tells.
    pub(super) fn resolve_proposal(&mut self, local: &Local, shard: &Shard) {
        let Some(proposal) = &self.proposal else { return };
        let decided = proposal.version < shard.in_sync_version;
        let obsolete = match &proposal.change {
            Change::Add(node, incarnation) => local.incarnation_of(node) != Some(*incarnation),
            Change::Remove(_) | Change::Minimum(_) => false,
        };
        if decided || obsolete {
            self.drop_proposal();
        }
    }

    fn drop_proposal(&mut self) {
        if let Some(Proposal { change: Change::Add(..), .. }) = self.proposal.take() {
            self.stop_joining();
        }
    }

    fn stop_joining(&mut self) {
        assert!(
            self.proposal.as_ref().is_none_or(|p| p.added().is_none()),
            "an addition may yet take effect"
        );
        self.joining = None;
        self.progress.set_joining(None);
    }

    /// The topology that came with the answer has been taken in before.
    pub(super) fn on_proposal_answered(&mut self, now: Monotonic, id: RequestId, outcome: &Outcome) {
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.in_flight == Some(id)) else { return };
        proposal.in_flight = None;
        proposal.retry_at = now + retry_after(proposal.attempts);
        match outcome {
            Outcome::Refused(_) if proposal.attempts == 1 => {
                self.drop_proposal();
                self.propose_after = now + COOL_DOWN;
            }
            Outcome::Accepted => {
                self.confirmed_at = Some(now);
                if proposal.is_minimum() {
                    self.drop_proposal();
                }
            }
            Outcome::Refused(_) | Outcome::Unknown => {}
        }
    }

    pub(super) fn settle_membership(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        out: &mut Vec<Action>,
    ) {
        self.propose_removal(now, local, out);
        self.settle_joining(now, local, log);
        self.propose_minimum(now, local);
        self.send_proposal(now, local, log, out);
    }

    fn propose_removal(&mut self, now: Monotonic, local: &Local, out: &mut Vec<Action>) {
        let is_free = |p: &Proposal| p.is_minimum() || p.in_flight.is_none() && p.added().is_none();
        if !self.proposal.as_ref().is_none_or(is_free) {
            return;
        }
        let in_sync = self.progress.in_sync().iter();
        let suspicions: Vec<(NodeId, Suspicion)> =
            in_sync.filter_map(|n| Some((n.clone(), self.suspicion(n, now, local)?))).collect();
        let suspects = suspicions.iter().map(|(node, _)| node).chain(self.to_be_emptied());
        let mut suspects: BTreeSet<NodeId> = suspects.cloned().collect();
        suspects.extend(self.lagging_members(&suspects, local));
        match &self.proposal {
            Some(proposal) if proposal.is_minimum() && suspects.is_empty() => {}
            // Withdrawn: should an attempt take effect after all, the topology will tell.
            Some(_) if suspects.is_empty() => self.proposal = None,
            Some(Proposal { change: Change::Remove(nodes), .. }) if *nodes == suspects => {}
            None if suspects.is_empty() || now < self.propose_after => {}
            Some(_) | None => {
                // A node that is only about to join gives way; its addition has not been proposed.
                self.stop_joining();
                let known = self.proposal.take().and_then(Proposal::into_removed).unwrap_or_default();
                let new = suspicions.into_iter().filter(|(node, _)| !known.contains(node));
                out.extend(new.map(|(node, suspicion)| Action::Suspects(node, suspicion)));
                self.proposal = Some(Proposal::new(Change::Remove(suspects), self.in_sync_version));
            }
        }
    }

    /// An eligible node needs a full sync, so it will not hold what it holds: one after another, for the others may yet
    /// be needed.
    fn to_be_emptied(&self) -> Option<&NodeId> {
        let in_full_sync = self.links.values().any(|l| l.phase == LinkPhase::FullSync);
        let waiting = self.links.values().filter(|l| l.phase == LinkPhase::Waiting && !in_full_sync);
        waiting.map(|l| &l.node).find(|n| self.eligible.contains(*n))
    }

    /// Keeps the sentinels' number right.
    fn propose_minimum(&mut self, now: Monotonic, local: &Local) {
        let minimum = local.commit_minimum();
        let serves = self.serves() && self.propose_after <= now;
        if serves && self.known_minimum != Some(minimum) && self.proposal.is_none() {
            self.proposal = Some(Proposal::new(Change::Minimum(minimum), self.in_sync_version));
        }
    }

    /// Whether commits and leases must not wait for this member any longer.
    pub(super) fn suspicion(&self, node: &NodeId, now: Monotonic, local: &Local) -> Option<Suspicion> {
        let Some(incarnation) = local.incarnation_of(node) else { return Some(Suspicion::Replaced) };
        if self.restarted.contains(node) {
            return Some(Suspicion::Restarted);
        }
        if self.handoff_gave_up_on(node) {
            return Some(Suspicion::HandoffFailed);
        }
        let link = self.links.values().find(|l| l.node == *node && l.incarnation == incarnation);
        match link.map(|l| (l.phase, l.opened_at)) {
            Some((LinkPhase::Waiting | LinkPhase::FullSync, _)) => Some(Suspicion::NeedsFullSync),
            Some((LinkPhase::Streaming, opened_at)) => self.silence(node, opened_at, now, local),
            None if self.broken.contains(node) => Some(Suspicion::Disconnected),
            None => {
                // It has to learn of this term and to connect first.
                let silence = local.stalls.silence(self.started_at, now);
                let is_late = local.config.suspect_unconnected_after() <= silence;
                is_late.then_some(Suspicion::NeverConnected(silence))
            }
        }
    }

    /// Its stream is there, and what is sent over it is not acknowledged.
    pub(super) fn is_silent(&self, node: &NodeId, now: Monotonic, local: &Local) -> bool {
        let link = self.links.values().find(|l| l.node == *node);
        link.is_some_and(|l| self.silence(node, l.opened_at, now, local).is_some())
    }

    /// What a slow line has not carried yet cannot be acknowledged: whoever acknowledges anything is alive. But what was
    /// sent must not be on its way for so long that it gives no lease.
    fn silence(
        &self,
        node: &NodeId,
        opened_at: Monotonic,
        now: Monotonic,
        local: &Local,
    ) -> Option<Suspicion> {
        let since = |at: Option<Monotonic>| local.stalls.silence(at.unwrap_or_default().max(opened_at), now);
        let (heard, acknowledged) =
            (since(self.holder.heard_at(node)), since(self.holder.acknowledged(node)));
        if local.config.suspect_after() <= heard {
            return Some(Suspicion::Silent(heard));
        }
        (local.config.grace <= acknowledged).then_some(Suspicion::FarBehind(acknowledged))
    }

    fn settle_joining(&mut self, now: Monotonic, local: &Local, log: &WriteLog) {
        if self.proposal.as_ref().is_some_and(|p| !p.is_minimum()) {
            return;
        }
        let Some(joining) = &self.joining else {
            self.begin_joining(now, local);
            return;
        };
        let link = self.links.get(&joining.link);
        let goes_on = self.serves()
            && link.is_some_and(|l| self.may_join(l, now, local))
            && now.since(joining.since) < local.config.suspect_after();
        if !goes_on {
            self.stop_joining();
            self.propose_after = now + COOL_DOWN;
            return;
        }
        let caught_up = match local.config.replication_ack {
            ReplicationAck::InSync => self.progress.commit() <= self.progress.held(&joining.node),
            ReplicationAck::Async => true,
        };
        if caught_up && now < self.holder.until(&joining.node) {
            assert!(self.progress.commit() <= log.last().index);
            let change = Change::Add(joining.node.clone(), joining.incarnation);
            self.proposal = Some(Proposal::new(change, self.in_sync_version));
        }
    }

    fn begin_joining(&mut self, now: Monotonic, local: &Local) {
        if !self.serves() || now < self.propose_after {
            return;
        }
        let candidate =
            self.links.iter().find(|(_, l)| self.marks[0] <= l.held && self.may_join(l, now, local));
        let Some((&id, link)) = candidate else { return };
        let joining =
            Joining { node: link.node.clone(), incarnation: link.incarnation, link: id, since: now };
        // Not without the sentinels: a node that dies while it joins would hold up everything.
        if !self.is_confirmed(now, local) {
            return;
        }
        self.progress.set_joining(Some(joining.node.clone()));
        self.joining = Some(joining);
    }

    /// Whether the sentinels have carried something out a moment ago; if not they are asked to.
    pub(super) fn is_confirmed(&mut self, now: Monotonic, local: &Local) -> bool {
        let is_confirmed = self.confirmed_at.is_some_and(|at| now.since(at) < local.config.grace);
        if !is_confirmed && self.proposal.is_none() {
            let minimum = Change::Minimum(local.commit_minimum());
            self.proposal = Some(Proposal::new(minimum, self.in_sync_version));
        }
        is_confirmed
    }

    fn may_join(&self, link: &Link, now: Monotonic, local: &Local) -> bool {
        let heard = self.holder.acknowledged(&link.node).unwrap_or_default();
        link.consistent
            && link.phase == LinkPhase::Streaming
            && !self.progress.in_sync().contains(&link.node)
            && local.incarnation_of(&link.node) == Some(link.incarnation)
            && self.lagging.keeps_up(&link.node, now)
            && now.since(heard) < local.config.suspect_after()
    }

    fn send_proposal(&mut self, now: Monotonic, local: &mut Local, log: &WriteLog, out: &mut Vec<Action>) {
        let Some(shard) = local.shard.clone() else { return };
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.in_flight.is_none() && p.retry_at <= now)
        else {
            return;
        };
        let (term, version) = (self.term, proposal.version);
        let request = match proposal.change.clone() {
            Change::Remove(nodes) => {
                let committed = Local::position(log, self.progress.commit()).unwrap_or_default();
                Request::Remove { shard, term, version, nodes, committed }
            }
            Change::Minimum(nodes) => Request::Minimum { shard, term, version, nodes },
            Change::Add(node, incarnation) => Request::Add { shard, term, version, node, incarnation },
        };
        if let (Change::Remove(nodes), true) =
            (&proposal.change, mutation::is_on(Mutation::RemovalBeforeCommit))
        {
            self.progress.set_in_sync(self.progress.in_sync().difference(nodes).cloned().collect());
        }
        let id = local.request_id();
        proposal.in_flight = Some(id);
        proposal.attempts += 1;
        out.push(Action::Ask(id, request));
    }
}
