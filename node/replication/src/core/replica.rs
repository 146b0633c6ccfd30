//! The role of a replica of one primary in one term.
//!
//! It keeps a stream to the primary, appends what it gets, applies what is committed, and grants leases. When the
//! primary is silent or deaf for `grace` (`contact.rs`), or its process is known to be dead, an electable replica asks
//! the sentinels for another one and meanwhile acknowledges nothing of this term. A stream that is silent for so long is
//! closed and opened again.
//!
//! Invariants:
//! - only committed entries are applied, but those that a full sync's slots may contain already: with too few members
//!   nothing is committed before this node is one. Until they are committed nobody may read here;
//! - nothing that is applied, or about to be, is truncated;
//! - a lease is recorded before the acknowledgement that grants it leaves;
//! - `consistent` is acknowledged only while the keyspace and the log are a prefix of the primary's history: not from
//!   the begin of a full sync until everything that its slots may contain is applied. If the stream ends
//!   before all slots have arrived, the next one brings those that are missing; if it ends later, or the term does, the
//!   full sync starts again.

use std::time::Duration;

use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::slot::SLOT_COUNT;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::FastFailover;

use super::assembly::Assembly;
use super::config::beacon_interval;
use super::contact::Contact;
use super::local::Local;
use super::messages::{
    Ack, Action, Append, Chunk, Closed, Hello, Outcome, Request, RequestId, Start, SyncKind, UplinkId,
};
use super::received::Received;
use crate::log::WriteLog;

/// How long a stream may be silent that is being opened or brings a full sync. Not longer: it may be dead, too.
const PATIENCE_IN_GRACES: u32 = 4;
/// Pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// Pause between two requests for a failover.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A replica whose disk is so far behind takes no more entries until it has caught up.
/// More than what the largest value needs.
const UNWRITTEN_BYTES_MAX: u64 = 640 << 20;

/// The stream to the primary.
#[derive(Debug)]
enum Uplink {
    Disconnected {
        retry_at: Monotonic,
    },
    /// The hello is on its way.
    Connecting(UplinkId),
    /// Snapshot chunks arrive.
    FullSync(UplinkId),
    /// The snapshot is applied or about to be; its slots are of different moments until everything up to
    /// `consistent` is applied.
    CatchingUp {
        id: UplinkId,
        consistent: LogIndex,
    },
    Streaming(UplinkId),
}

/// How long things last on a stream. Leases, and so beacons, are as long as the *primary's*; of the two nodes' graces
/// the longer one counts, for the primary may speak more rarely than this node would.
#[derive(Debug, Clone, Copy)]
struct Timing {
    lease: Duration,
    grace: Duration,
}

impl Timing {
    fn of(start: &Start, local: &Local) -> Timing {
        Timing { lease: start.lease, grace: local.config.grace.max(start.grace) }
    }

    fn beacon_interval(self) -> Duration {
        beacon_interval(self.lease)
    }

    /// More than a beacon was missed, and not for a moment only.
    fn missed_after(self) -> Duration {
        (self.beacon_interval() * 2).max(self.grace / 6)
    }

    /// A primary that has heard no acknowledgement for so long may hear the next one.
    fn echo_patience(self) -> Duration {
        (self.beacon_interval() * 3 / 2).max(self.grace / 8)
    }
}

#[derive(Debug)]
pub(crate) struct Replica {
    primary: NodeId,
    /// Of the primary's process.
    incarnation: Option<Incarnation>,
    term: Term,
    uplink: Uplink,
    /// Of a full sync that is running or broke off.
    received: Option<Received>,
    /// Of entries that come in parts on this stream.
    assembly: Assembly,
    failed_attempts: u32,
    timing: Timing,
    contact: Contact,
    acked_at: Monotonic,
    /// This process of the primary has once answered at its address.
    linked: bool,
    /// When the last stream was opened.
    opened_at: Monotonic,
    /// From then on its silence counts: it was begun, or read again.
    listens_since: Monotonic,
    /// The kernel at its address has refused the last connection since then.
    dead: bool,
    asking: Option<RequestId>,
    ask_at: Monotonic,
    /// Acknowledgements are withheld until then: a failover was asked for.
    withheld_until: Monotonic,
    /// Up to where it has acknowledged that it holds the log.
    acked_held: LogIndex,
    /// Too much waits to be applied, as was seen then.
    is_behind: bool,
    looked_behind_at: Monotonic,
    /// The primary's clock, from its last message.
    sent_at: Monotonic,
    /// The lease that it asked for with that; zero: none in particular.
    asked_lease: Duration,
}

impl Replica {
    pub(crate) fn start(now: Monotonic, local: &Local, primary: NodeId) -> Replica {
        Replica {
            incarnation: local.incarnation_of(&primary),
            primary,
            term: local.term,
            uplink: Uplink::Disconnected { retry_at: now },
            received: None,
            assembly: Assembly::default(),
            failed_attempts: 0,
            timing: Timing { lease: local.config.lease, grace: local.config.grace },
            contact: Contact::new(now),
            acked_at: Monotonic::ZERO,
            linked: false,
            opened_at: now,
            listens_since: now,
            dead: false,
            asking: None,
            ask_at: Monotonic::ZERO,
            withheld_until: Monotonic::ZERO,
            acked_held: LogIndex::ZERO,
            is_behind: false,
            looked_behind_at: now,
            sent_at: Monotonic::ZERO,
            asked_lease: Duration::ZERO,
        }
    }

    pub(crate) fn primary(&self) -> &NodeId {
        &self.primary
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    pub(crate) fn silence(&self, now: Monotonic) -> Duration {
        now.since(self.contact.heard_at())
    }

    /// More than a beacon was missed, here or there.
    pub(crate) fn is_cut_off(&self, now: Monotonic, local: &Local) -> bool {
        self.timing.missed_after() <= local.stalls.silence(self.contact.mutual_at(), now)
    }

    /// A stream is up.
    pub(crate) fn is_linked(&self) -> bool {
        matches!(self.uplink, Uplink::Streaming(_) | Uplink::CatchingUp { .. } | Uplink::FullSync(_))
    }

    /// When the stream was opened that is up.
    pub(crate) fn opened_at(&self) -> Option<Monotonic> {
        self.is_linked().then_some(self.opened_at)
    }

    pub(crate) fn in_full_sync(&self) -> bool {
        matches!(self.uplink, Uplink::CatchingUp { .. } | Uplink::FullSync(_))
    }

    /// Of the full sync that is running: slots that have arrived, and bytes.
    pub(crate) fn full_sync_progress(&self) -> Option<(usize, u64)> {
        let received = || self.received.as_ref().map_or((0, 0), Received::progress);
        match self.uplink {
            Uplink::FullSync(_) => Some(received()),
            Uplink::CatchingUp { .. } => Some((usize::from(SLOT_COUNT), received().1)),
            Uplink::Disconnected { .. } | Uplink::Connecting(_) | Uplink::Streaming(_) => None,
        }
    }

    fn uplink_id(&self) -> Option<UplinkId> {
        match &self.uplink {
            Uplink::Disconnected { .. } => None,
            Uplink::Connecting(id) | Uplink::Streaming(id) | Uplink::FullSync(id) => Some(*id),
            Uplink::CatchingUp { id, .. } => Some(*id),
        }
    }

    fn is_current(&self, id: UplinkId) -> bool {
        self.uplink_id() == Some(id)
    }

    /// The role ends.
    pub(crate) fn stop(&self, out: &mut Vec<Action>) {
        if let Some(id) = self.uplink_id() {
            out.push(Action::Disconnect(id));
        }
    }

    /// The topology changed, but neither the term nor the primary.
    pub(crate) fn on_topology(&mut self, now: Monotonic, local: &Local) {
        let incarnation = local.incarnation_of(&self.primary);
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.linked = false;
            self.dead = false;
        }
        if let Uplink::Disconnected { retry_at } = &mut self.uplink {
            *retry_at = now;
        }
    }

    pub(crate) fn on_start(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &mut WriteLog,
        id: UplinkId,
        start: &Start,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.uplink, Uplink::Connecting(current) if current == id) {
            return;
        }
        if start.term != self.term {
            self.reconnect(now, out);
            return;
        }
        self.linked = true;
        self.opened_at = now;
        self.dead = false;
        self.failed_attempts = 0;
        self.contact.heard(now);
        self.timing = Timing::of(start, local);
        match start.sync {
            SyncKind::Full => {
                self.received = None;
                local.end_generation(local.commit);
                local.keyspace.clear(out);
                local.commit = LogIndex::ZERO;
                self.uplink = Uplink::FullSync(id);
            }
            SyncKind::Resume(from) => match &self.received {
                Some(received) if received.from() == from => {
                    out.push(Action::KeepSlots(received.resume().done));
                    self.uplink = Uplink::FullSync(id);
                }
                Some(_) | None => self.sync_afresh(now, out),
            },
            SyncKind::Partial(from) if is_own_prefix(local, log, from) => {
                let forgets = mutation::is_on(Mutation::TruncateToKnownCommit);
                log.truncate_after(if forgets { local.untruncatable() } else { from.index });
                self.uplink = Uplink::Streaming(id);
                self.acknowledge(now, local, log, Monotonic::ZERO, out);
            }
            // It takes this node for another, or history was lost on an operator's demand: start afresh.
            SyncKind::Partial(_) => {
                local.keyspace.needs_full_sync = true;
                self.reconnect(now, out);
            }
        }
    }

    pub(crate) fn on_append(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &mut WriteLog,
        id: UplinkId,
        mut append: Append,
        out: &mut Vec<Action>,
    ) {
        if !self.is_current(id) {
            return;
        }
        if UNWRITTEN_BYTES_MAX < log.unwritten_bytes() {
            // Rather than fill the memory with what the disk does not take.
            self.reconnect(now, out);
            return;
        }
        let in_order = matches!(self.uplink, Uplink::Streaming(_) | Uplink::CatchingUp { .. })
            && append.term == self.term
            && append.entries_term <= append.term
            && append.previous == log.last();
        if !in_order || self.assembly.take_in(&mut append).is_err() {
            self.reconnect(now, out);
            return;
        }
        if mutation::is_on(Mutation::AcknowledgeBeforeAppend) && append.count > 0 {
            let held = LogIndex::new(append.previous.index.get() + append.count);
            let (applied, sent_at) = (local.keyspace.applied, append.sent_at);
            let lease = self.timing.lease;
            let ack = Ack { term: self.term, held, sent_at, applied, consistent: true, lease };
            out.push(Action::SendAck(id, ack));
            (append.count, append.entries) = (0, bytes::Bytes::new());
        }
        let count = append.count;
        if log.append_received(append.entries_term, append.previous, count, append.entries).is_err() {
            self.reconnect(now, out);
            return;
        }
        self.contact.heard_with_echo(now, append.unheard, self.timing.echo_patience());
        local.commit = local.commit.max(append.commit.min(log.last().index));
        let applicable = match self.uplink {
            _ if mutation::is_on(Mutation::ApplyBeforeCommit) => log.last().index,
            Uplink::CatchingUp { consistent, .. } => local.commit.max(consistent.min(log.last().index)),
            _ => local.commit,
        };
        local.keyspace.apply_up_to(applicable, out);
        (self.sent_at, self.asked_lease) = (append.sent_at, append.lease);
        let beacon_due = self.timing.beacon_interval() / 2 <= now.since(self.acked_at);
        // Entries that are still on their way to this node's disk are acknowledged when they are there.
        let holds_all = self.held(local, log) == log.last().index;
        if (count > 0 && holds_all) || beacon_due {
            self.acknowledge(now, local, log, append.sent_at, out);
        }
    }

    pub(crate) fn on_chunk(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &mut WriteLog,
        id: UplinkId,
        chunk: Chunk,
        out: &mut Vec<Action>,
    ) {
        if !self.is_current(id) {
            return;
        }
        if !matches!(self.uplink, Uplink::FullSync(_)) || chunk.term != self.term {
            self.reconnect(now, out);
            return;
        }
        let from = chunk.from;
        let received = self.received.get_or_insert_with(|| Received::new(from));
        if received.from() != from {
            return self.sync_afresh(now, out);
        }
        self.contact.heard(now);
        chunk.parts.iter().for_each(|part| received.note(part));
        if !chunk.parts.is_empty() {
            out.push(Action::ApplySnapshot(chunk.parts));
        }
        if let Some(consistent) = chunk.end {
            let Some(indexes) = self.received.take().and_then(Received::into_indexes) else {
                return self.sync_afresh(now, out);
            };
            out.push(Action::FinishSnapshot { from: from.index, indexes });
            log.replace(from, local.shard.clone());
            local.keyspace.target = from.index;
            self.uplink = Uplink::CatchingUp { id, consistent };
        }
        self.acknowledge(now, local, log, chunk.sent_at, out);
    }

    /// This node itself does not read the stream for now: that is not the primary's silence.
    pub(crate) fn on_held_up(&mut self, now: Monotonic, id: UplinkId) {
        if self.is_current(id) {
            self.listens_since = now;
        }
    }

    /// What has arrived of a full sync is of no use: it starts again.
    fn sync_afresh(&mut self, now: Monotonic, out: &mut Vec<Action>) {
        self.received = None;
        self.reconnect(now, out);
    }

    /// Promises first, acknowledges then.
    fn acknowledge(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        sent_at: Monotonic,
        out: &mut Vec<Action>,
    ) {
        let Some(id) = self.uplink_id() else { return };
        if now < self.withheld_until || local.keeps_away(now) {
            return;
        }
        let lease = self.asked_lease.max(self.timing.lease);
        if sent_at > Monotonic::ZERO {
            local.giver.promise(now, self.term, lease);
        }
        self.acked_at = now;
        self.contact.acknowledged(now);
        let consistent = !local.keyspace.needs_full_sync || mutation::is_on(Mutation::MemberBeforeCaughtUp);
        let held = if consistent { self.held(local, log) } else { LogIndex::ZERO };
        self.acked_held = self.acked_held.max(held);
        out.push(Action::SendAck(
            id,
            Ack { term: self.term, held, sent_at, applied: local.keyspace.applied, consistent, lease },
        ));
    }

    /// What it may say that it holds. It is as slow as it applies: the primary waits for it, or goes on without it.
    fn held(&self, local: &Local, log: &WriteLog) -> LogIndex {
        let held = local.held(log);
        if self.is_behind { held.min(self.acked_held) } else { held }
    }

    /// Not with every message: to count takes its time.
    fn look_behind(&mut self, now: Monotonic, local: &Local, log: &WriteLog) {
        if now.since(self.looked_behind_at) < self.timing.beacon_interval() {
            return;
        }
        self.looked_behind_at = now;
        let max = local.config.unapplied_bytes_max;
        // What is not committed waits for others, and for this very acknowledgement.
        let unapplied = || log.bytes_after(local.keyspace.applied) - log.bytes_after(local.commit);
        self.is_behind =
            max < log.bytes() as u64 && local.keyspace.applied < local.commit && max < unapplied();
    }

    /// More of the log is on this node's disk.
    pub(crate) fn on_durable(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        out: &mut Vec<Action>,
    ) {
        if matches!(self.uplink, Uplink::Streaming(_)) {
            self.acknowledge(now, local, log, self.sent_at, out);
        }
    }

    /// The other side does not serve this term.
    pub(crate) fn on_reject(&mut self, now: Monotonic, id: UplinkId, out: &mut Vec<Action>) {
        if self.is_current(id) {
            self.reconnect(now, out);
        }
    }

    pub(crate) fn on_uplink_closed(&mut self, now: Monotonic, id: UplinkId, why: Closed) {
        if !self.is_current(id) {
            return;
        }
        let streamed = self.is_linked();
        self.dead = why == Closed::Refused && self.linked;
        // A stream that just broke is tried again at once: the answer tells whether the process is dead.
        let pause = if streamed { Duration::ZERO } else { self.back_off() };
        self.uplink = Uplink::Disconnected { retry_at: now + pause };
    }

    fn reconnect(&mut self, now: Monotonic, out: &mut Vec<Action>) {
        self.stop(out);
        let pause = self.back_off();
        self.uplink = Uplink::Disconnected { retry_at: now + pause };
    }

    fn back_off(&mut self) -> Duration {
        self.failed_attempts += 1;
        RECONNECT.saturating_mul(1 << self.failed_attempts.min(6)).min(RECONNECT_MAX) / 2
    }

    pub(crate) fn on_answer(&mut self, now: Monotonic, local: &Local, id: RequestId, outcome: &Outcome) {
        if self.asking != Some(id) {
            return;
        }
        self.asking = None;
        self.ask_at = now + ASK_AGAIN;
        self.withheld_until = match outcome {
            // The topology will tell; if it does not, somebody else is to be asked.
            Outcome::Accepted => now + local.config.grace,
            // The primary stays: if it speaks again it is supported again.
            Outcome::Refused(_) | Outcome::Unknown => Monotonic::ZERO,
        };
    }

    pub(crate) fn settle(
        &mut self,
        now: Monotonic,
        local: &mut Local,
        log: &WriteLog,
        out: &mut Vec<Action>,
    ) {
        if let Uplink::CatchingUp { id, consistent } = self.uplink
            && consistent <= local.keyspace.applied
        {
            local.keyspace.needs_full_sync = false;
            out.push(Action::ForgetSlotIndexes);
            self.uplink = Uplink::Streaming(id);
            self.acknowledge(now, local, log, Monotonic::ZERO, out);
        }
        self.look_behind(now, local, log);
        if self.is_stream_silent(now, local) {
            self.reconnect(now, out);
        }
        self.ask_for_failover(now, local, out);
        if let Uplink::Disconnected { retry_at } = self.uplink
            && retry_at <= now
            && log.unwritten_bytes() <= UNWRITTEN_BYTES_MAX
        {
            self.connect(now, local, log, out);
        }
    }

    fn connect(&mut self, now: Monotonic, local: &mut Local, log: &WriteLog, out: &mut Vec<Action>) {
        let (Some(node), Some(shard)) = (local.topology.nodes.get(&self.primary), local.shard.clone()) else {
            self.uplink = Uplink::Disconnected { retry_at: now + RECONNECT_MAX };
            return;
        };
        let (host, port) = (node.host.clone(), node.bus_port);
        let uplink = local.uplink_id();
        let hello = Hello {
            node: local.me.clone(),
            incarnation: local.incarnation,
            shard,
            term: self.term,
            last: log.last(),
            applied: local.untruncatable(),
            terms: log.terms().to_vec(),
            needs_full_sync: local.keyspace.needs_full_sync,
            takes_parts: true,
            resume: self.received.as_ref().map(Received::resume),
        };
        self.uplink = Uplink::Connecting(uplink);
        self.assembly = Assembly::default();
        self.listens_since = now;
        out.push(Action::Connect { uplink, host, port, hello: Box::new(hello) });
    }

    /// A stream on which nothing comes is as good as none, whatever the kernel knows of it: the primary may have closed
    /// it long ago, and only this side waits.
    fn is_stream_silent(&self, now: Monotonic, local: &Local) -> bool {
        let heard_at = self.stream_heard_at();
        let is_silent = |patience| patience <= local.stalls.silence(heard_at, now);
        self.stream_patience().is_some_and(is_silent) && !mutation::is_on(Mutation::SilentStreamKept)
    }

    fn stream_heard_at(&self) -> Monotonic {
        self.contact.heard_at().max(self.listens_since)
    }

    /// How long the stream may be silent, if there is one.
    fn stream_patience(&self) -> Option<Duration> {
        match self.uplink {
            Uplink::Disconnected { .. } => None,
            Uplink::Streaming(_) | Uplink::CatchingUp { .. } => Some(self.timing.grace),
            // The primary may have to wait for a slot, or for the sentinels before it may begin.
            Uplink::Connecting(_) | Uplink::FullSync(_) => Some(self.timing.grace * PATIENCE_IN_GRACES),
        }
    }

    /// Whether the sentinels may make this node the primary.
    fn is_electable(local: &Local) -> bool {
        let member = |s: &keyward_proto::topology::Shard| {
            s.in_sync.contains(&local.me) && !s.restarted.contains(&local.me)
        };
        !local.keyspace.needs_full_sync && local.shard().is_some_and(member)
    }

    fn ask_for_failover(&mut self, now: Monotonic, local: &mut Local, out: &mut Vec<Action>) {
        if self.asking.is_some() || now < self.ask_at || !Self::is_electable(local) {
            return;
        }
        let dead = self.dead && local.topology.fast_failover() != FastFailover::No;
        let silent = self.timing.grace <= local.stalls.silence(self.contact.mutual_at(), now);
        let Some(shard) = local.shard.clone().filter(|_| dead || silent) else { return };
        let id = local.request_id();
        self.asking = Some(id);
        self.withheld_until = now + local.config.grace;
        out.push(Action::Ask(id, Request::Failover { shard, term: self.term, primary_dead: dead }));
    }

    pub(crate) fn next_deadline(&self, now: Monotonic, local: &Local) -> Option<Monotonic> {
        let retry_at = match self.uplink {
            Uplink::Disconnected { retry_at } => Some(retry_at),
            Uplink::Connecting(_)
            | Uplink::FullSync(_)
            | Uplink::CatchingUp { .. }
            | Uplink::Streaming(_) => None,
        };
        let silent_at = local.stalls.silent_at(self.contact.mutual_at(), self.timing.grace);
        let ask_at = self.asking.is_none().then_some(self.ask_at);
        let closes_at = self.stream_patience().map(|p| local.stalls.silent_at(self.stream_heard_at(), p));
        retry_at.into_iter().chain([silent_at]).chain(ask_at).chain(closes_at).filter(|at| *at > now).min()
    }

    pub(crate) fn check_invariants(&self, local: &Local, log: &WriteLog) {
        assert!(self.term <= local.term);
        assert!(log.last().term <= self.term, "entries of a later term than the primary's");
        if !local.keyspace.needs_full_sync {
            assert!(local.commit <= log.last().index, "commit beyond the log");
            assert!(!self.in_full_sync());
        }
    }
}

/// Whether the log may be cut at `from`: it has that very entry, and nothing applied or committed lies beyond.
fn is_own_prefix(local: &Local, log: &WriteLog, from: Position) -> bool {
    from.index <= log.last().index
        && local.untruncatable() <= from.index
        && log.term_at(from.index) == Some(from.term)
        && log.first_index() <= from.index.next()
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::ShardId;

    use super::*;

    /// What is committed and not applied has a bound; what is not committed waits for nothing but acknowledgements.
    #[test]
    fn a_replica_acknowledges_no_faster_than_it_applies() {
        let term = Term::new(1);
        let config = super::super::Config { unapplied_bytes_max: 1000, ..Default::default() };
        let me = NodeId::from_random([1; 20]);
        let mut local = Local::new(config, me, Incarnation::new(1), Monotonic::ZERO);
        (local.shard, local.term) = (Some(ShardId::from_random([9; 20])), term);
        let mut log = WriteLog::new(1 << 20);
        let mut replica = Replica::start(Monotonic::ZERO, &local, NodeId::from_random([2; 20]));
        replica.uplink = Uplink::Streaming(UplinkId(1));
        let mut now = Monotonic::ZERO;
        let mut held_after = |local: &mut Local, log: &mut WriteLog, applied: u64, commit: u64| {
            now = now + Duration::from_millis(50);
            let frame: Vec<u8> = [600u32.to_le_bytes().as_slice(), &[0; 600]].concat();
            local.keyspace.applied = LogIndex::new(applied);
            let append = Append {
                term,
                previous: log.last(),
                entries_term: term,
                count: 1,
                entries: frame.into(),
                rest_bytes: 0,
                commit: LogIndex::new(commit),
                sent_at: now,
                unheard: Duration::ZERO,
                lease: Duration::ZERO,
            };
            let mut out = Vec::new();
            replica.on_append(now, local, log, UplinkId(1), append, &mut out);
            replica.settle(now, local, log, &mut out);
            let mut acks = out.iter().filter_map(|action| match action {
                Action::SendAck(_, ack) => Some(ack.held.get()),
                _ => None,
            });
            acks.next_back().unwrap()
        };
        assert_eq!(held_after(&mut local, &mut log, 0, 0), 1);
        assert_eq!(held_after(&mut local, &mut log, 0, 0), 2);
        assert_eq!(held_after(&mut local, &mut log, 0, 0), 3, "nothing is committed");
        assert_eq!(held_after(&mut local, &mut log, 0, 3), 4, "that is seen now");
        assert_eq!(held_after(&mut local, &mut log, 0, 3), 4);
        assert_eq!(held_after(&mut local, &mut log, 1, 4), 4);
        assert_eq!(held_after(&mut local, &mut log, 3, 4), 4, "seen at the next look");
        assert_eq!(held_after(&mut local, &mut log, 3, 4), 8, "it has caught up");
    }

    /// What clients were told of what is emptied now, wait for in it, or watch, is over.
    #[test]
    fn a_full_sync_ends_the_generation() {
        let id = |n| NodeId::from_random([n; 20]);
        let mut local =
            Local::new(super::super::Config::default(), id(1), Incarnation::new(1), Monotonic::ZERO);
        (local.shard, local.term, local.commit) =
            (Some(ShardId::from_random([9; 20])), Term::new(1), LogIndex::new(7));
        let (mut log, mut out) = (WriteLog::new(1 << 20), Vec::new());
        let mut replica = Replica::start(Monotonic::ZERO, &local, id(2));
        replica.uplink = Uplink::Connecting(UplinkId(1));
        let (lease, grace) = (local.config.lease, local.config.grace);
        let start = Start { term: Term::new(1), sync: SyncKind::Full, lease, grace };
        replica.on_start(Monotonic::ZERO, &mut local, &mut log, UplinkId(1), &start, &mut out);
        assert_eq!((local.generation, local.ended_commit), (1, LogIndex::new(7)));
        assert_eq!((local.ended_terms, local.commit), (0, LogIndex::ZERO), "it was no primary");
    }
}
