//! When a reply may leave: what the promise rests on that no acknowledged write is lost and no read is stale.
//!
//! A command is executed at once, but what it has seen or done may still vanish with this node. So its reply comes with
//! a [`ReplyCondition`], which says what has to be true first:
//! - the log is committed up to the last entry that the reply tells of: its own, or that of a write which it has read;
//! - the lease was seen to be valid *after* the execution, so that no other node had executed anything by then;
//! - both in the generation of the gate in which it was executed. A later history may reach the same index with
//!   other entries, so after the end of a generation only its last commit index counts.
//!
//! [`ReplyQueue`] holds the replies of one connection in their order until then. If it can not be known any more
//! whether the first one is true, the connection ends: its client does not learn the outcome, as after a crash.
//!
//! Pure: the time is an argument, and a function of it where most callers need none. The simulation's nodes hold their
//! replies with this very code.

use std::collections::VecDeque;

use keyward_proto::ids::LogIndex;
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::resp::Output;
use keyward_proto::time::Monotonic;

use crate::gate::{Gate, Released};

/// What has to be true before a reply, or a message, leaves. The default waits for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplyCondition {
    depends_on: LogIndex,
    needs_lease: bool,
    generation: u64,
}

/// What a command has read of the keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Slots; the last entry that wrote to one of them.
    Slots(LogIndex),
    /// A count of keys, which any entry may have changed.
    Counts,
}

/// What is to be done with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Leaves,
    Waits,
    /// Its generation is over, and nobody knows whether what it says is true.
    Unknown,
}

impl ReplyCondition {
    /// For what is about to be executed. The generation is read from the gate *before* its state: the state closes
    /// first, so whoever then finds it open is still in this generation.
    #[inline]
    pub fn new(generation: u64) -> ReplyCondition {
        ReplyCondition { depends_on: LogIndex::ZERO, needs_lease: false, generation }
    }

    /// As [`ReplyCondition::new`], for what tells of the entry at `index`.
    pub fn of_entry(index: LogIndex, generation: u64) -> ReplyCondition {
        ReplyCondition { depends_on: index, needs_lease: false, generation }
    }

    /// The last entry that has to be committed.
    #[inline]
    pub fn depends_on(&self) -> LogIndex {
        self.depends_on
    }

    /// The command has appended this entry.
    #[inline]
    pub fn wrote(&mut self, index: LogIndex) {
        self.depends_on = self.depends_on.max(index);
    }

    /// The command has read this: what is not committed may vanish, so the reply waits for it. `log_end` is the index
    /// of the last entry of the log.
    #[inline]
    pub fn read(&mut self, read: Read, log_end: impl FnOnce() -> LogIndex) {
        if mutation::is_on(Mutation::ReadsNotGated) {
            return;
        }
        let index = match read {
            Read::Slots(last_write) => last_write,
            Read::Counts => log_end(),
        };
        self.depends_on = self.depends_on.max(index);
    }

    /// The command has executed as one of the primary: it is true only if no other node was primary by then.
    #[inline]
    pub fn require_lease(&mut self) {
        self.needs_lease = true;
    }

    /// Something else leaves together with it.
    #[inline]
    pub fn join(&mut self, other: ReplyCondition) {
        if other.waits_for_nothing() {
            return;
        }
        // The generation of what waits for nothing is no matter.
        if self.waits_for_nothing() {
            *self = other;
            return;
        }
        self.depends_on = self.depends_on.max(other.depends_on);
        self.needs_lease |= other.needs_lease;
        self.generation = self.generation.min(other.generation);
    }

    fn waits_for_nothing(&self) -> bool {
        !self.needs_lease && self.depends_on == LogIndex::ZERO
    }

    /// What is left of it after a look at the lease. The lease was valid after the execution, so what was read was true
    /// then, whenever the reply leaves. The generation is read last: if it is still the same, so was the lease's.
    #[inline]
    #[must_use]
    pub fn observed(self, gate: &Gate, now: impl FnOnce() -> Monotonic) -> ReplyCondition {
        let seen = self.needs_lease && gate.lease_valid(now()) && gate.generation() == self.generation;
        ReplyCondition { needs_lease: self.needs_lease && !seen, ..self }
    }

    /// Whether it is met.
    #[inline]
    pub fn fate(self, gate: &Gate, now: impl FnOnce() -> Monotonic) -> Fate {
        let ReplyCondition { depends_on, needs_lease, generation } = self.observed(gate, now);
        let (index, otherwise) = match gate.released(generation) {
            Released::UpTo(index) => (index, Fate::Waits),
            Released::Ended(index) => (index, Fate::Unknown),
        };
        if !needs_lease && depends_on <= index { Fate::Leaves } else { otherwise }
    }
}

/// What a queue holds.
pub trait Held {
    fn len_bytes(&self) -> usize;
}

impl Held for Output {
    fn len_bytes(&self) -> usize {
        self.len()
    }
}

/// The generation of a reply that waits has ended: its connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the term ended: outcome unknown")]
pub struct OutcomeUnknown;

/// The replies of one connection that wait, in their order. See the module's documentation.
#[derive(Debug)]
pub struct ReplyQueue<R> {
    held: VecDeque<(ReplyCondition, R)>,
    len_bytes: usize,
}

impl<R> Default for ReplyQueue<R> {
    fn default() -> Self {
        ReplyQueue { held: VecDeque::new(), len_bytes: 0 }
    }
}

impl<R: Held> ReplyQueue<R> {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of all that waits.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether a new reply leaves at once: nothing waits before it, and its condition is met.
    #[inline]
    pub fn lets_pass(&self, condition: ReplyCondition, gate: &Gate, now: impl FnOnce() -> Monotonic) -> bool {
        self.held.is_empty() && condition.fate(gate, now) == Fate::Leaves
    }

    pub fn hold(&mut self, condition: ReplyCondition, reply: R) {
        self.len_bytes += reply.len_bytes();
        self.held.push_back((condition, reply));
    }

    /// Lets `add` append to the last reply what waits for nothing itself but must not overtake. False: nothing waits.
    pub fn append(&mut self, add: impl FnOnce(&mut R)) -> bool {
        let Some((_, last)) = self.held.back_mut() else { return false };
        let before = last.len_bytes();
        add(last);
        self.len_bytes += last.len_bytes() - before;
        true
    }

    /// Gives the replies that may leave now to `leave`, up to the first that may not.
    ///
    /// # Errors
    /// That one never may: the connection is to be closed. What has been given to `leave` is true.
    pub fn release(
        &mut self,
        gate: &Gate,
        now: impl Fn() -> Monotonic,
        mut leave: impl FnMut(R),
    ) -> Result<(), OutcomeUnknown> {
        while let Some((condition, _)) = self.held.front() {
            match condition.fate(gate, &now) {
                Fate::Leaves => {}
                Fate::Waits => return Ok(()),
                Fate::Unknown => return Err(OutcomeUnknown),
            }
            if let Some((_, reply)) = self.held.pop_front() {
                self.len_bytes -= reply.len_bytes();
                leave(reply);
            }
        }
        Ok(())
    }

    /// Drops all that waits.
    pub fn clear(&mut self) {
        *self = ReplyQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::Term;

    use super::*;
    use crate::gate::{GateState, GateView};

    /// A primary's gate in this generation, with a lease up to 100 ns.
    fn gate(generation: u64, commit: u64, ended_commit: u64) -> Gate {
        let gate = Gate::replicated();
        let view = GateView {
            state: GateState::Primary,
            term: Term::new(generation + 1),
            commit: LogIndex::new(commit),
            lease_until: at(100),
            writable: true,
            generation,
            ended_commit: LogIndex::new(ended_commit),
            ended_terms: 0,
            auto_commit: false,
            sending_term: Term::new(generation + 1),
        };
        gate.publish(&view, Monotonic::ZERO);
        gate
    }

    fn at(nanos: u64) -> Monotonic {
        Monotonic::from_nanos(nanos)
    }

    fn condition(depends_on: u64, needs_lease: bool, generation: u64) -> ReplyCondition {
        ReplyCondition { depends_on: LogIndex::new(depends_on), needs_lease, generation }
    }

    #[test]
    fn a_reply_leaves_when_its_condition_is_met() {
        const WITHIN_LEASE: u64 = 99;
        const AFTER_LEASE: u64 = 100;
        for (what, generation, depends_on, needs_lease, now, fate) in [
            ("committed", 5, 10, false, AFTER_LEASE, Fate::Leaves),
            ("not committed", 5, 11, false, WITHIN_LEASE, Fate::Waits),
            ("the lease is valid", 5, 10, true, WITHIN_LEASE, Fate::Leaves),
            ("the lease has run out", 5, 10, true, AFTER_LEASE, Fate::Waits),
            ("committed when its generation ended", 4, 7, false, AFTER_LEASE, Fate::Leaves),
            ("a later history has reached its index", 4, 8, false, WITHIN_LEASE, Fate::Unknown),
            ("the lease is of a later generation", 4, 7, true, WITHIN_LEASE, Fate::Unknown),
            ("nobody remembers its generation", 3, 1, false, WITHIN_LEASE, Fate::Unknown),
            ("it waits for nothing", 0, 0, false, AFTER_LEASE, Fate::Leaves),
        ] {
            let condition = condition(depends_on, needs_lease, generation);
            assert_eq!(condition.fate(&gate(5, 10, 7), || at(now)), fate, "{what}");
        }
    }

    #[test]
    fn a_lease_is_seen_once() {
        let gate = gate(5, 10, 7);
        let seen = condition(10, true, 5).observed(&gate, || at(50));
        assert_eq!(seen, condition(10, false, 5));
        assert_eq!(seen.fate(&gate, || at(500)), Fate::Leaves);
        assert_eq!(condition(10, true, 5).observed(&gate, || at(100)), condition(10, true, 5));
        assert_eq!(condition(10, true, 4).observed(&gate, || at(50)), condition(10, true, 4));
    }

    #[test]
    fn a_reply_depends_on_what_was_written_and_read() {
        let end = || LogIndex::new(90);
        let mut condition = ReplyCondition::new(1);
        for (read, depends_on) in [
            (Read::Slots(LogIndex::ZERO), 0),
            (Read::Slots(LogIndex::new(20)), 20),
            (Read::Slots(LogIndex::new(10)), 20),
            (Read::Counts, 90),
        ] {
            condition.read(read, end);
            assert_eq!(condition.depends_on(), LogIndex::new(depends_on), "{read:?}");
        }
        condition.wrote(LogIndex::new(91));
        assert_eq!(condition, ReplyCondition::of_entry(LogIndex::new(91), 1));
    }

    #[test]
    fn what_leaves_together_waits_for_all() {
        for (other, joined) in [
            (ReplyCondition::default(), condition(10, false, 5)),
            (condition(0, false, 4), condition(10, false, 5)),
            (condition(12, false, 5), condition(12, false, 5)),
            (condition(3, true, 5), condition(10, true, 5)),
            (condition(3, false, 4), condition(10, false, 4)),
        ] {
            let mut condition = condition(10, false, 5);
            condition.join(other);
            assert_eq!(condition, joined, "{other:?}");
        }
        let mut condition = ReplyCondition::default();
        condition.join(ReplyCondition::of_entry(LogIndex::new(10), 5));
        assert_eq!(condition, ReplyCondition::of_entry(LogIndex::new(10), 5), "not of the first generation");
    }

    fn output(text: &str) -> Output {
        let mut output = Output::default();
        output.extend_from_slice(text.as_bytes());
        output
    }

    #[test]
    fn replies_leave_in_order_until_one_has_to_wait_or_never_may() {
        /// Index and generation of what waits; what leaves; whether the connection goes on.
        type Case<'a> = (&'a [(u64, u64)], &'a str, bool);
        let cases: [Case<'_>; 6] = [
            (&[], "", true),
            (&[(10, 5), (9, 5)], "ab", true),
            (&[(11, 5), (9, 5)], "", true),
            (&[(9, 5), (11, 5), (9, 5)], "a", true),
            (&[(7, 4), (10, 5)], "ab", true),
            (&[(7, 4), (8, 4), (10, 5)], "a", false),
        ];
        for (held, leaving, goes_on) in cases {
            let mut queue = ReplyQueue::default();
            for ((depends_on, generation), text) in held.iter().zip(["a", "b", "c"]) {
                queue.hold(condition(*depends_on, false, *generation), output(text));
            }
            let mut left = String::new();
            let push = |reply: Output| left.push_str(str::from_utf8(&reply.to_vec()).unwrap());
            let released = queue.release(&gate(5, 10, 7), || at(0), push);
            assert_eq!((left.as_str(), released.is_ok()), (leaving, goes_on), "{held:?}");
            assert_eq!(queue.len_bytes(), held.len() - leaving.len(), "{held:?}");
        }
    }

    #[test]
    fn nothing_overtakes_a_reply_that_waits() {
        let gate = gate(5, 10, 7);
        let mut queue = ReplyQueue::default();
        let now = || at(0);
        assert!(queue.lets_pass(condition(10, true, 5), &gate, now));
        assert!(!queue.lets_pass(condition(11, false, 5), &gate, now));
        assert!(!queue.append(|last: &mut Output| last.extend_from_slice(b"x")));
        queue.hold(condition(11, false, 5), output("a"));
        assert!(!queue.lets_pass(ReplyCondition::default(), &gate, now));
        assert!(queue.append(|last| last.extend_from_slice(b"xyz")));
        assert_eq!(queue.len_bytes(), 4);
        gate.advance_commit(LogIndex::new(11));
        let mut left = Vec::new();
        queue.release(&gate, now, |reply| left.extend(reply.to_vec())).unwrap();
        assert_eq!((left.as_slice(), queue.len_bytes()), (b"axyz".as_slice(), 0));
    }
}
