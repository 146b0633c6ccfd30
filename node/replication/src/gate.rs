//! What the I/O threads ask before they execute a command and before a reply leaves.
//!
//! Atomics only: the replication task is the one writer, every I/O thread reads. The order of the writes is what
//! makes the reads safe:
//! - becoming primary: term and commit index first, then the state, so that whoever sees `Primary` sees its term;
//! - ceasing to be primary: the state first, then (after the engine has quiesced) everything else;
//! - a new generation is published *before* any commit index of a later history. [`Gate::released`] loads the commit
//!   index first and the generation after it, so a reply of an ended generation never leaves because a later history
//!   has reached the same index (invariant 1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::task::Waker;
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use parking_lot::RwLock;

/// What an I/O thread may do with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum GateState {
    /// May execute while the lease is valid.
    Primary = 0,
    /// Redirects, or reads where the client asked for it.
    Replica = 1,
    /// A primary that does not serve yet, or hands over: commands wait for the end of that.
    Holding = 2,
    /// The shard has no primary.
    NoPrimary = 3,
    /// The keyspace is not complete: loading, or a full sync runs.
    Loading = 4,
    /// A replica, of a primary or of none, that was the primary: its keyspace holds what may never have been committed.
    /// Nobody reads it until a stream has shown that it is in the history, or a full sync has replaced it.
    InDoubt = 5,
    /// Between two roles: commands wait for the next one. It calls itself a replica: whoever looks for the primary now is
    /// not to stay.
    Undecided = 6,
}

impl GateState {
    /// Of a primary, or of none: what a client wrote here is nothing to wait for.
    pub fn is_replica(self) -> bool {
        matches!(self, GateState::Replica | GateState::InDoubt | GateState::NoPrimary)
    }

    /// The keyspace may hold what was never committed, and what becomes of that is not known.
    pub fn is_in_doubt(self) -> bool {
        matches!(self, GateState::InDoubt | GateState::Undecided)
    }

    fn from_u8(value: u8) -> GateState {
        match value {
            0 => GateState::Primary,
            1 => GateState::Replica,
            2 => GateState::Holding,
            4 => GateState::Loading,
            5 => GateState::InDoubt,
            6 => GateState::Undecided,
            _ => GateState::NoPrimary,
        }
    }
}

/// Which of a generation's replies may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Those up to this index; the others go on waiting.
    UpTo(LogIndex),
    /// The generation is over: those up to this index leave, then a connection that still holds replies is closed,
    /// because their outcome is unknown.
    Ended(LogIndex),
}

/// Whether the write log gets to this node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DiskState {
    /// It does, or nobody asked for it.
    Healthy = 0,
    /// So much waits for the disk that writes have to wait, too.
    Lagging = 1,
    /// Writing fails: writes are refused.
    Failed = 2,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Gate {
    alone: bool,
    /// Effects are appended to the log. Always with sentinels; alone while the log is written to disk. Changed only
    /// while the world is stopped, or before anything is served.
    logs: AtomicBool,
    /// Written by whoever writes the log to disk, and by an appender that finds it lagging.
    disk: AtomicU8,
    state: AtomicU8,
    term: AtomicU64,
    commit: AtomicU64,
    generation: AtomicU64,
    /// The commit index with which the generation before the current one ended.
    ended_commit: AtomicU64,
    ended_terms: AtomicU64,
    lease_until: AtomicU64,
    writable: AtomicBool,
    /// Appending is committing: no other node has to hold the entries. Changed only under the log's lock.
    auto_commit: AtomicBool,
    /// A lock because it is written only at start; held for the few wake-ups.
    subscribers: RwLock<Vec<Arc<Subscriber>>>,
}

/// An I/O thread, as the gate sees it.
#[derive(Debug)]
pub struct Subscriber {
    waker: Waker,
    /// It holds replies until more is committed.
    waits: AtomicBool,
}

impl Subscriber {
    /// The thread is woken when more is committed, once. If that is news it has to look at the commit index *after*
    /// this: what was committed before wakes nobody.
    #[inline]
    pub fn wait_for_commit(&self) -> bool {
        let is_news = !self.waits.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        is_news
    }
}

impl Gate {
    /// No sentinels: everything is committed, the lease never ends.
    pub fn standalone() -> Gate {
        let gate = Gate::replicated();
        gate.logs.store(false, Ordering::SeqCst);
        gate.state.store(GateState::Primary as u8, Ordering::SeqCst);
        gate.commit.store(u64::MAX, Ordering::SeqCst);
        gate.lease_until.store(u64::MAX, Ordering::SeqCst);
        gate.writable.store(true, Ordering::SeqCst);
        Gate { alone: true, ..gate }
    }

    /// A node with sentinels, before it knows its role.
    pub fn replicated() -> Gate {
        Gate {
            alone: false,
            logs: AtomicBool::new(true),
            disk: AtomicU8::new(DiskState::Healthy as u8),
            state: AtomicU8::new(GateState::Loading as u8),
            term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            ended_commit: AtomicU64::new(0),
            ended_terms: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            writable: AtomicBool::new(false),
            auto_commit: AtomicBool::new(false),
            subscribers: RwLock::new(Vec::new()),
        }
    }

    #[inline]
    pub fn is_standalone(&self) -> bool {
        self.alone
    }

    /// Whether effects are appended to the log.
    #[inline]
    pub fn logs(&self) -> bool {
        self.logs.load(Ordering::Acquire)
    }

    /// Alone: effects are logged from now on. Call it while the world is stopped.
    pub fn begin_logging(&self) {
        assert!(self.alone, "with sentinels effects are always logged");
        self.logs.store(true, Ordering::SeqCst);
    }

    /// Alone: effects are not logged any more. Call it while the world is stopped.
    pub fn end_logging(&self) {
        assert!(self.alone, "with sentinels effects are always logged");
        self.logs.store(false, Ordering::SeqCst);
    }

    #[inline]
    pub fn disk(&self) -> DiskState {
        match self.disk.load(Ordering::Acquire) {
            0 => DiskState::Healthy,
            1 => DiskState::Lagging,
            _ => DiskState::Failed,
        }
    }

    /// Only what writes the log to disk may call a failed disk healthy.
    pub fn set_disk(&self, state: DiskState) {
        if self.disk.swap(state as u8, Ordering::AcqRel) != state as u8 {
            self.notify();
        }
    }

    /// An appender has found that too much waits for the disk.
    pub fn note_lag(&self) {
        let exchanged = self.disk.compare_exchange(
            DiskState::Healthy as u8,
            DiskState::Lagging as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if exchanged.is_ok() {
            tracing::warn!("writes wait: the disk does not keep up with the write log");
        }
    }

    /// Alone: a reply leaves when the log is on disk up to what it depends on; `u64::MAX` without a log.
    pub fn set_standalone_commit(&self, index: LogIndex) {
        assert!(self.alone, "with sentinels the replication task decides what is committed");
        if self.commit.swap(index.get(), Ordering::AcqRel) != index.get() {
            self.notify_committed();
        }
    }

    /// Alone: nothing but what needs no data is answered until the keyspace is loaded.
    pub fn begin_standalone_loading(&self) {
        self.set_standalone_state(GateState::Loading);
    }

    pub fn end_standalone_loading(&self) {
        self.set_standalone_state(GateState::Primary);
    }

    fn set_standalone_state(&self, state: GateState) {
        assert!(self.alone, "with sentinels the replication task decides the state");
        self.state.store(state as u8, Ordering::SeqCst);
        self.notify();
    }

    /// Alone without a disk: `u64::MAX`. To decide about a held reply use [`Gate::released`].
    #[inline]
    pub fn commit_index(&self) -> LogIndex {
        LogIndex::new(self.commit.load(Ordering::Acquire))
    }

    #[inline]
    pub fn state(&self) -> GateState {
        GateState::from_u8(self.state.load(Ordering::Acquire))
    }

    /// Grows whenever what clients were told or wait for may be of another history from now on: this node stops being
    /// the primary of a term, or a full sync replaces what it holds.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many terms are over in which this node was the primary. It grows before another state than `Undecided`
    /// is shown: whoever reads it *after* the state and finds it as before knows that the state is not that of a former
    /// primary.
    #[inline]
    pub fn ended_terms(&self) -> u64 {
        self.ended_terms.load(Ordering::Acquire)
    }

    /// Whether this node may execute now. Never ask before the command has arrived.
    #[inline]
    pub fn lease_valid(&self, now: Monotonic) -> bool {
        now.as_nanos() < self.lease_until.load(Ordering::Acquire) || mutation::is_on(Mutation::SkipLeaseCheck)
    }

    /// For how long this node may still execute.
    pub fn lease_margin(&self, now: Monotonic) -> Duration {
        Monotonic::from_nanos(self.lease_until.load(Ordering::Acquire)).since(now)
    }

    /// False: fewer in-sync nodes than `min-in-sync`, writes get `-NOREPLICAS`.
    #[inline]
    pub fn writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    /// The term in which entries are appended.
    #[inline]
    pub fn term(&self) -> Term {
        Term::new(self.term.load(Ordering::Acquire))
    }

    /// Which replies, executed in `generation`, may leave.
    #[inline]
    pub fn released(&self, generation: u64) -> Released {
        let commit = self.commit_index();
        let current = self.generation();
        if mutation::is_on(Mutation::ReplyBeforeCommit) {
            return Released::UpTo(LogIndex::new(u64::MAX));
        }
        if current == generation || mutation::is_on(Mutation::ReplyOfEndedTerm) {
            return Released::UpTo(commit);
        }
        let ended = self.ended_commit.load(Ordering::Acquire);
        // A generation that ended meanwhile has overwritten `ended_commit`; then the answer is not known any more.
        let known = generation + 1 == current && self.generation() == current;
        Released::Ended(if known { LogIndex::new(ended) } else { LogIndex::ZERO })
    }

    /// One per I/O thread: woken when more is committed if it waits for that, when the lease becomes valid again, and at
    /// each change of state.
    pub fn subscribe(&self, waker: Waker) -> Arc<Subscriber> {
        let subscriber = Arc::new(Subscriber { waker, waits: AtomicBool::new(false) });
        self.subscribers.write().push(Arc::clone(&subscriber));
        subscriber
    }

    /// Wakes the I/O threads.
    pub fn notify(&self) {
        for subscriber in self.subscribers.read().iter() {
            subscriber.waits.store(false, Ordering::SeqCst);
            subscriber.waker.wake_by_ref();
        }
    }

    /// More is committed: wakes the I/O threads that wait for it.
    pub fn notify_committed(&self) {
        fence(Ordering::SeqCst);
        for subscriber in self.subscribers.read().iter() {
            if subscriber.waits.load(Ordering::SeqCst) && subscriber.waits.swap(false, Ordering::SeqCst) {
                subscriber.waker.wake_by_ref();
            }
        }
    }

    #[inline]
    pub fn auto_commits(&self) -> bool {
        self.auto_commit.load(Ordering::Acquire)
    }

    /// Only under the log's lock.
    pub fn set_auto_commit(&self, view: &GateView) {
        if self.auto_commits() != view.auto_commit {
            self.auto_commit.store(view.auto_commit, Ordering::SeqCst);
        }
    }

    /// Raises the commit index.
    pub fn advance_commit(&self, commit: LogIndex) {
        self.commit.fetch_max(commit.get(), Ordering::AcqRel);
    }

    /// Shows what a step of the replication core has decided, in the order that the module's documentation gives.
    /// Wakes the I/O threads if one of them may go on.
    pub fn publish(&self, view: &GateView, now: Monotonic) {
        let state = self.state();
        // A former primary's clients see the end of its term before its next role.
        let closing = if self.ended_terms() < view.ended_terms { GateState::Undecided } else { view.state };
        if view.state != GateState::Primary && closing != state {
            self.state.store(closing as u8, Ordering::SeqCst);
        }
        self.ended_terms.store(view.ended_terms, Ordering::SeqCst);
        let generation = self.generation();
        assert!(generation <= view.generation, "generations only grow");
        if generation < view.generation {
            self.lease_until.store(0, Ordering::SeqCst);
            self.ended_commit.store(view.ended_commit.get(), Ordering::SeqCst);
            self.generation.store(view.generation, Ordering::SeqCst);
        }
        let committed = self.commit_index();
        if view.is_primary() {
            assert!(self.term() <= view.term, "terms only grow");
            self.term.store(view.term.get(), Ordering::SeqCst);
            self.advance_commit(view.commit);
        } else {
            self.commit.store(view.commit.get(), Ordering::SeqCst);
        }
        let was_valid = self.lease_valid(now);
        self.lease_until.store(view.lease_until.as_nanos(), Ordering::Release);
        let writable = self.writable.swap(view.writable, Ordering::AcqRel);
        if view.state != self.state() {
            self.state.store(view.state as u8, Ordering::SeqCst);
        }
        let news = view.state != state
            || generation < view.generation
            || writable != view.writable
            || (!was_valid && self.lease_valid(now));
        if news {
            self.notify();
        } else if committed < view.commit {
            self.notify_committed();
        }
    }
}

/// What the replication core wants the gate to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateView {
    pub state: GateState,
    pub term: Term,
    pub commit: LogIndex,
    pub lease_until: Monotonic,
    pub writable: bool,
    pub generation: u64,
    /// Of the generation before.
    pub ended_commit: LogIndex,
    pub ended_terms: u64,
    pub auto_commit: bool,
    /// The term in which this node sends its log to others; zero if it is no primary.
    pub sending_term: Term,
}

impl GateView {
    fn is_primary(&self) -> bool {
        self.sending_term > Term::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: GateState, term: u64, commit: u64, generation: u64, ended_commit: u64) -> GateView {
        GateView {
            state,
            term: Term::new(term),
            commit: LogIndex::new(commit),
            lease_until: Monotonic::from_nanos(u64::MAX),
            writable: true,
            generation,
            ended_commit: LogIndex::new(ended_commit),
            ended_terms: generation,
            auto_commit: false,
            sending_term: if state == GateState::Primary { Term::new(term) } else { Term::ZERO },
        }
    }

    #[test]
    fn a_later_history_does_not_release_replies_of_an_ended_generation() {
        let gate = Gate::replicated();
        let publish = |view: &GateView| gate.publish(view, Monotonic::ZERO);
        publish(&view(GateState::Primary, 1, 5, 0, 0));
        publish(&view(GateState::Primary, 1, 7, 0, 0));
        assert_eq!(gate.released(0), Released::UpTo(LogIndex::new(7)));
        publish(&view(GateState::Undecided, 2, 7, 1, 7));
        publish(&view(GateState::Replica, 2, 100, 1, 7));
        assert_eq!(gate.released(0), Released::Ended(LogIndex::new(7)));
        publish(&view(GateState::Primary, 3, 100, 1, 7));
        publish(&view(GateState::Holding, 4, 120, 2, 120));
        assert_eq!(gate.released(0), Released::Ended(LogIndex::ZERO));
        assert_eq!(gate.released(1), Released::Ended(LogIndex::new(120)));
    }

    #[test]
    fn alone_everything_is_committed() {
        let gate = Gate::standalone();
        assert_eq!(gate.state(), GateState::Primary);
        assert!(
            gate.lease_valid(Monotonic::from_nanos(u64::MAX - 1)) && gate.writable() && gate.is_standalone()
        );
        assert_eq!(gate.released(0), Released::UpTo(LogIndex::new(u64::MAX)));
    }
}
