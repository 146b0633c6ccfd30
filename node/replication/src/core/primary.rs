//! The role of a primary in one term.
//!
//! It starts by recovering: it applies its whole log, appends a no-op of the new term, and waits until no earlier
//! primary can hold a lease. Then it serves, until another term begins. Meanwhile it keeps the in-sync set honest:
//! members that are silent are proposed for removal, replicas that have caught up for addition (`membership.rs`),
//! who is alive and holds everybody up gives way (`lagging.rs`), and it can hand its role over (`handoff.rs`).
//!
//! Invariants:
//! - the counted members (`progress.rs`) are a superset of the shard's in-sync set as the sentinels know it, because
//!   only this primary proposes additions, one at a time, and counts the node before the proposal leaves;
//! - a full sync starts only to a node that is not counted, nor eligible: what the sentinels may choose must not vanish;
//! - with fewer members than `min-in-sync`, its own number or the one that the sentinels know if that is larger, nothing
//!   is committed: they count on it (`keyward_sentinel::rules::topology::absent`);
//! - an acknowledgement counts only if it comes over a live link, for this term, from the process that the topology
//!   knows, and if that process is consistent.

use std::collections::{BTreeMap, BTreeSet};

use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Shard;

use super::handoff::Handoff;
use super::lagging::Lagging;
use super::lease::{LeaseHolder, promise};
use super::local::Local;
use super::membership::{Joining, Proposal};
use super::messages::{Ack, Action, Hello, LinkId, Start, SyncKind};
use super::progress::Progress;
use super::received::Resume;
use crate::log::WriteLog;

#[derive(Debug)]
pub(crate) enum Phase {
    /// Until the log up to `tail` is applied and `serve_at` has come.
    Recovering {
        tail: LogIndex,
        serve_at: Monotonic,
    },
    Serving,
    /// Once the commands that ran have ended, nothing is executed any more, reads included.
    HandingOff(Handoff),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkPhase {
    /// Needs a full sync that may not begin yet.
    Waiting,
    FullSync,
    Streaming,
}

/// A replica's stream.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) phase: LinkPhase,
    pub(crate) opened_at: Monotonic,
    pub(crate) held: LogIndex,
    pub(crate) applied: LogIndex,
    pub(crate) consistent: bool,
    /// What the replica has of a full sync that broke off.
    pub(crate) resume: Option<Resume>,
}

#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) term: Term,
    pub(crate) started_at: Monotonic,
    pub(crate) phase: Phase,
    pub(crate) progress: Progress,
    pub(crate) holder: LeaseHolder,
    pub(crate) links: BTreeMap<LinkId, Link>,
    /// Members whose stream broke and has not come back.
    pub(crate) broken: BTreeSet<NodeId>,
    /// Members that have lost their memory since they were added.
    pub(crate) restarted: BTreeSet<NodeId>,
    /// Nodes outside the set that the sentinels may choose.
    pub(crate) eligible: BTreeSet<NodeId>,
    /// With fewer members nothing is committed, as the sentinels know it.
    pub(crate) known_minimum: Option<u32>,
    /// Since when entries wait for members that there are not.
    short_since: Option<Monotonic>,
    pub(crate) in_sync_version: u64,
    pub(crate) proposal: Option<Proposal>,
    pub(crate) joining: Option<Joining>,
    /// When the sentinels last carried something out.
    pub(crate) confirmed_at: Option<Monotonic>,
    /// No new proposal before.
    pub(crate) propose_after: Monotonic,
    /// Ends of the log at the last two marks: whoever has reached the older one lags by no more than one or two round trips.
    pub(crate) marks: [LogIndex; 2],
    pub(crate) marked_at: Monotonic,
    pub(crate) lagging: Lagging,
}

impl Primary {
    /// Begins the term of `local`.
    pub(crate) fn start(
        now: Monotonic,
        local: &mut Local,
        log: &mut WriteLog,
        shard: &Shard,
        out: &mut Vec<Action>,
    ) -> Primary {
        assert_eq!(shard.primary.as_ref(), Some(&local.me));
        assert_eq!(shard.term, local.term);
        let tail = log.append_unexecuted(local.term, &[]);
        local.keyspace.apply_up_to(tail, out);
        let serve_at = now.max(leases_end(now, local, shard));
        let committed = if mutation::is_on(Mutation::TrustOwnTail) { tail } else { local.commit };
        let mut primary = Primary {
            term: local.term,
            started_at: now,
            phase: Phase::Recovering { tail, serve_at },
            progress: Progress::new(local.config.replication_ack, committed),
            holder: LeaseHolder::new(local.config.lease, local.config.longest_lease()),
            links: BTreeMap::new(),
            broken: BTreeSet::new(),
            restarted: BTreeSet::new(),
            eligible: BTreeSet::new(),
            known_minimum: None,
            short_since: None,
            in_sync_version: 0,
            proposal: None,
            joining: None,
            confirmed_at: None,
            propose_after: Monotonic::ZERO,
            marks: [tail; 2],
            marked_at: now,
            lagging: Lagging::new(now),
        };
        primary.on_topology(now, local, shard, out);
        primary
    }

    /// The shard has changed within this term.
    pub(crate) fn on_topology(
        &mut self,
        now: Monotonic,
        local: &Local,
        shard: &Shard,
        out: &mut Vec<Action>,
    ) {
        assert_eq!(shard.term, self.term);
        assert_eq!(shard.primary.as_ref(), Some(&local.me));
        self.restarted = shard.restarted.clone();
        for node in &self.restarted {
            self.progress.forget(node);
        }
        self.resolve_proposal(local, shard);
        self.in_sync_version = shard.in_sync_version;
        self.close_silent_links(now, local, shard, out);
        self.progress.set_in_sync(shard.in_sync.iter().filter(|n| **n != local.me).cloned().collect());
        self.eligible = shard.absent.eligible.clone();
        self.known_minimum = shard.absent.min_in_sync;
        self.progress.require(self.minimum(local), self.in_sync_len());
        let counted: BTreeSet<&NodeId> = self.progress.counted().collect();
        self.broken.retain(|n| counted.contains(n));
    }

    /// Who was removed because it is not heard may not know that its stream is dead: it is told, if that is possible, and
    /// opens another one.
    fn close_silent_links(&mut self, now: Monotonic, local: &Local, shard: &Shard, out: &mut Vec<Action>) {
        let removed = self.progress.in_sync().difference(&shard.in_sync);
        let removed: BTreeSet<&NodeId> = removed.filter(|n| self.is_silent(n, now, local)).collect();
        let links = self.links.iter().filter(|(_, link)| removed.contains(&link.node));
        let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
        for id in links {
            self.links.remove(&id);
            out.push(Action::CloseLink(id));
        }
    }

    pub(crate) fn on_hello(
        &mut self,
        now: Monotonic,
        local: &Local,
        log: &WriteLog,
        link: LinkId,
        hello: &Hello,
        out: &mut Vec<Action>,
    ) {
        if let Some(reason) = self.objection(local, hello) {
            out.push(Action::Reject { link, term: self.term, reason });
            return;
        }
        let older: Vec<LinkId> =
            self.links.iter().filter(|(_, l)| l.node == hello.node).map(|(id, _)| *id).collect();
        for id in older {
            self.links.remove(&id);
            out.push(Action::CloseLink(id));
        }
        self.broken.remove(&hello.node);
        let phase = match partial_sync_from(log, hello) {
            Some(from) => {
                out.push(Action::StartLink(link, self.start_message(local, SyncKind::Partial(from)), None));
                LinkPhase::Streaming
            }
            None => LinkPhase::Waiting,
        };
        self.links.insert(
            link,
            Link {
                node: hello.node.clone(),
                incarnation: hello.incarnation,
                phase,
                opened_at: now,
                held: LogIndex::ZERO,
                applied: hello.applied,
                consistent: false,
                // What it has is of this history if it came in this term.
                resume: hello.resume.clone().filter(|_| hello.term == self.term),
            },
        );
    }

    fn objection(&self, local: &Local, hello: &Hello) -> Option<&'static str> {
        let node = local.topology.nodes.get(&hello.node);
        if hello.node == local.me || Some(&hello.shard) != local.shard.as_ref() {
            Some("another shard")
        } else if node.is_none_or(|n| n.shard != local.shard) {
            Some("not a node of this shard")
        } else if node.is_some_and(|n| n.incarnation > hello.incarnation) {
            Some("an earlier process of this node")
        } else if hello.term < self.term {
            Some("an earlier term")
        } else if self.term < hello.term {
            Some("a term that this node has not heard of yet")
        } else {
            None
        }
    }

    fn start_message(&self, local: &Local, sync: SyncKind) -> Start {
        Start { term: self.term, sync, lease: local.config.lease, grace: local.config.grace }
    }

    pub(crate) fn on_ack(
        &mut self,
        now: Monotonic,
        local: &Local,
        log: &WriteLog,
        id: LinkId,
        ack: &Ack,
        out: &mut Vec<Action>,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if ack.term != self.term || ack.held > log.last().index || ack.sent_at > now {
            self.on_link_closed(id);
            out.push(Action::CloseLink(id));
            return;
        }
        link.applied = ack.applied;
        link.consistent = ack.consistent && link.phase != LinkPhase::Waiting;
        if link.consistent {
            link.held = link.held.max(ack.held);
            link.phase = LinkPhase::Streaming;
        }
        if local.incarnation_of(&link.node) != Some(link.incarnation) {
            return;
        }
        let from_receipt = mutation::is_on(Mutation::LeaseFromReceipt) && ack.sent_at > Monotonic::ZERO;
        let sent_at = if from_receipt { now } else { ack.sent_at };
        let lease = if ack.lease.is_zero() { local.config.lease } else { ack.lease };
        self.holder.record(now, &link.node, link.incarnation, sent_at, lease);
        if link.consistent && !self.restarted.contains(&link.node) {
            self.progress.acknowledge(&link.node, link.incarnation, link.held);
        }
    }

    pub(crate) fn on_link_closed(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id)
            && self.progress.counted().any(|n| *n == link.node)
        {
            self.broken.insert(link.node);
        }
    }

    /// Everything executed while appending was committing has been committed by the I/O threads.
    pub(crate) fn absorb_auto_commits(&mut self, local: &Local, log: &WriteLog) {
        if self.progress.auto_commits() {
            self.progress.advance(local.held(log));
        }
    }

    /// After each event: whatever has become possible or due.
    pub(crate) fn settle(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &mut WriteLog,
        out: &mut Vec<Action>,
    ) {
        if let Phase::Recovering { tail, serve_at } = self.phase
            && tail <= local.keyspace.applied
            && serve_at <= now
        {
            self.phase = Phase::Serving;
        }
        if local.config.mark_interval(self.holder.round_trip()) <= now.since(self.marked_at) {
            self.marks = [self.marks[1], log.last().index];
            self.marked_at = now;
        }
        self.progress.advance(local.held(log));
        self.start_full_syncs(local, log, out);
        self.settle_lagging(now, local, log, out);
        self.settle_membership(now, local, log, out);
        self.settle_handoff(now, local, log, out);
        local.commit = local.commit.max(self.progress.commit());
    }

    /// Commands are executed.
    pub(crate) fn serves(&self) -> bool {
        match &self.phase {
            Phase::Recovering { .. } => false,
            Phase::Serving => true,
            Phase::HandingOff(handoff) => handoff.is_awaiting_commands(),
        }
    }

    /// Writes are accepted.
    pub(crate) fn is_writable(&self, local: &Local) -> bool {
        !self.progress.is_short() && local.min_in_sync() <= self.in_sync_len()
    }

    /// Whether clients have waited long enough for entries that too few members hold.
    pub(crate) fn gives_replies_up(&mut self, now: Monotonic, local: &Local, log: &WriteLog) -> bool {
        let waits = self.progress.is_short() && self.progress.commit() < log.last().index && self.serves();
        if !waits {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert(now);
        let is_over = local.config.short_patience() <= now.since(since);
        if is_over {
            self.short_since = Some(now);
        }
        is_over
    }

    /// A full sync empties a node, so it must not be a member, nor about to become one, nor one that may be chosen.
    fn start_full_syncs(&mut self, local: &Local, log: &WriteLog, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Recovering { .. }) {
            return;
        }
        let full = self.start_message(local, SyncKind::Full);
        for (id, link) in &mut self.links {
            let is_eligible = self.eligible.contains(&link.node);
            let is_member = is_eligible || self.progress.counted().any(|n| *n == link.node);
            if link.phase == LinkPhase::Waiting && (!is_member || mutation::is_on(Mutation::FullSyncOfMember))
            {
                link.phase = LinkPhase::FullSync;
                self.progress.forget(&link.node);
                // The slots that it has need the log from there on.
                let resume = link.resume.take().filter(|r| {
                    log.first_index() <= r.from.index.next() && log.term_at(r.from.index) == Some(r.from.term)
                });
                let start = match &resume {
                    Some(resume) => Start { sync: SyncKind::Resume(resume.from), ..full },
                    None => full,
                };
                out.push(Action::StartLink(*id, start, resume));
            }
        }
    }

    pub(crate) fn lease_until(&self) -> Monotonic {
        self.holder.until_all(self.progress.counted())
    }

    /// With fewer members nothing is committed.
    pub(crate) fn minimum(&self, local: &Local) -> usize {
        local.minimum(self.known_minimum)
    }

    /// Members that hold what they have acknowledged, with the primary.
    pub(crate) fn in_sync_len(&self) -> usize {
        1 + self.progress.in_sync().difference(&self.restarted).count()
    }

    pub(crate) fn next_deadline(&self, now: Monotonic) -> Option<Monotonic> {
        let serve_at = match &self.phase {
            Phase::Recovering { serve_at, .. } => Some(*serve_at),
            Phase::HandingOff(handoff) => Some(handoff.next_deadline()),
            Phase::Serving => None,
        };
        let retry_at = self.proposal.as_ref().and_then(Proposal::retry_at);
        serve_at.into_iter().chain(retry_at).chain([self.propose_after]).filter(|at| *at > now).min()
    }

    pub(crate) fn check_invariants(&self, local: &Local, log: &WriteLog) {
        assert_eq!(self.term, log.last().term, "all entries after a primary's start are its own");
        assert!(self.term <= local.term);
        assert!(self.progress.commit() <= log.last().index);
        if let Some(proposal) = &self.proposal {
            assert!(proposal.version() == self.in_sync_version, "an older proposal's outcome is known");
            if let Some(node) = proposal.added() {
                assert!(self.progress.counted().any(|n| n == node), "a proposed member counts");
            }
        }
        if let Some(joining) = &self.joining {
            assert!(self.progress.counted().any(|n| n == joining.node()));
        }
        for link in self.links.values() {
            assert!(
                link.phase != LinkPhase::FullSync || !self.progress.in_sync().contains(&link.node),
                "a full sync runs to the member {:?}",
                link.node
            );
        }
        let mut nodes: Vec<&NodeId> = self.links.values().map(|l| &l.node).collect();
        nodes.sort();
        assert!(nodes.windows(2).all(|w| w[0] != w[1]), "one link per node");
    }
}

/// When nobody can hold a lease any more who was primary before. This node was a member of the in-sync set of all of them
/// that may still serve, and each needs a lease from every member: so its own promises are enough, whatever others know.
fn leases_end(now: Monotonic, local: &Local, shard: &Shard) -> Monotonic {
    let nobody_before = shard.previous_primary_gone || shard.term <= Term::ZERO.next();
    if nobody_before || mutation::is_on(Mutation::ServeBeforePromiseEnds) {
        return Monotonic::ZERO;
    }
    if shard.absent.gave_no_lease {
        // Others have promised: nobody since the primary before has ended.
        return local.promised_until(shard.term).max(now + promise(local.longest_lease()));
    }
    if !shard.predecessor_gone {
        return local.promised_until(shard.term);
    }
    if mutation::is_on(Mutation::EarlierLeasesForgotten) {
        return Monotonic::ZERO;
    }
    local.promised_until(Term::new(shard.term.get() - 1))
}

/// Where the log can go on for a replica; `None` if a full sync is due: its keyspace is unusable or contains what is
/// not in this history, or the log does not reach back far enough.
fn partial_sync_from(log: &WriteLog, hello: &Hello) -> Option<Position> {
    let common = WriteLog::divergence(log.terms(), log.last(), &hello.terms, hello.last);
    if hello.needs_full_sync || common < hello.applied || common.next() < log.oldest_index() {
        return None;
    }
    Local::position(log, common)
}
