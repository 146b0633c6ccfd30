//! What a client is to receive, in its order: replies and messages that have to wait until what they tell of is certain
//! ([`ReplyQueue`]), and those that only the socket holds up. Pure; the simulation's connections have one, too.

use keyward_proto::resp::Output;
use keyward_proto::time::Monotonic;
use keyward_replication::gate::Gate;
use keyward_replication::reply::{Fate, OutcomeUnknown, ReplyCondition, ReplyQueue};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Outbox {
    /// May leave, but the socket has not taken it.
    pub ready: Output,
    held: ReplyQueue<Output>,
}

/// What became of something that a client is to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It leaves as soon as the socket takes it, or with what it comes behind.
    Ready,
    /// The client is to be woken when the gate changes.
    Held,
}

impl Outbox {
    /// Bytes that have not left.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.ready.len() + self.held.len_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.held.is_empty()
    }

    /// Whether something waits for the gate.
    #[inline]
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a reply leaves at once: nothing waits for the gate before it, and it need not wait itself.
    #[inline]
    pub fn lets_pass(&self, condition: ReplyCondition, gate: &Gate, now: impl FnOnce() -> Monotonic) -> bool {
        self.held.lets_pass(condition, gate, now)
    }

    pub fn hold(&mut self, condition: ReplyCondition, reply: Output) {
        self.held.hold(condition, reply);
    }

    /// Puts what `write` writes behind everything else; it has no condition of its own.
    pub fn put(&mut self, write: impl FnOnce(&mut Output)) {
        if self.held.is_empty() {
            write(&mut self.ready);
        } else {
            self.held.append(write);
        }
    }

    /// As [`Outbox::put`], for what has a condition.
    pub fn put_under(
        &mut self,
        condition: ReplyCondition,
        gate: &Gate,
        now: impl FnOnce() -> Monotonic,
        write: impl FnOnce(&mut Output),
    ) -> Put {
        if condition.fate(gate, now) == Fate::Leaves {
            self.put(write);
            return Put::Ready;
        }
        let mut message = Output::default();
        write(&mut message);
        self.hold(condition, message);
        Put::Held
    }

    /// Makes ready what need not wait any more.
    ///
    /// # Errors
    /// The first that waits never may leave: the connection is to be closed. What is ready is true.
    pub fn release(&mut self, gate: &Gate, now: impl Fn() -> Monotonic) -> Result<(), OutcomeUnknown> {
        let ready = &mut self.ready;
        let leave = |mut reply: Output| {
            if ready.is_empty() {
                *ready = reply;
            } else {
                ready.append(&mut reply);
            }
        };
        self.held.release(gate, now, leave)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::{LogIndex, Term};
    use keyward_replication::gate::{GateState, GateView};

    use super::*;

    fn now() -> Monotonic {
        Monotonic::ZERO
    }

    /// A primary's gate at this commit index.
    fn gate(generation: u64, commit: u64) -> Gate {
        let gate = Gate::replicated();
        let view = GateView {
            state: GateState::Primary,
            term: Term::new(1),
            commit: LogIndex::new(commit),
            lease_until: Monotonic::from_nanos(u64::MAX),
            writable: true,
            generation,
            ended_commit: LogIndex::new(commit),
            ended_terms: 0,
            auto_commit: false,
            sending_term: Term::new(1),
        };
        gate.publish(&view, Monotonic::ZERO);
        gate
    }

    fn text(output: &Output) -> String {
        String::from_utf8(output.to_vec()).unwrap()
    }

    #[test]
    fn everything_leaves_in_its_order() {
        let gate = gate(1, 10);
        let of_entry = |index| ReplyCondition::of_entry(LogIndex::new(index), 1);
        let mut outbox = Outbox::default();
        let mut put = |index, word: &str| {
            let put =
                outbox.put_under(of_entry(index), &gate, now, |out| out.extend_from_slice(word.as_bytes()));
            (put, text(&outbox.ready))
        };
        assert_eq!(put(10, "a"), (Put::Ready, "a".into()));
        assert_eq!(put(11, "b"), (Put::Held, "a".into()));
        assert_eq!(put(1, "c"), (Put::Ready, "a".into()), "it does not overtake");
        assert_eq!(put(12, "d"), (Put::Held, "a".into()));
        outbox.put(|out| out.extend_from_slice(b"e"));
        assert_eq!((outbox.len_bytes(), outbox.holds(), outbox.is_empty()), (5, true, false));
        for (commit, left) in [(10, "a"), (11, "abc"), (12, "abcde")] {
            gate.advance_commit(LogIndex::new(commit));
            outbox.release(&gate, now).unwrap();
            assert_eq!(text(&outbox.ready), left);
        }
        assert!(!outbox.holds() && !outbox.is_empty());
        outbox.clear();
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_may_have_been_lost_ends_the_connection() {
        let mut outbox = Outbox::default();
        let write = |word: &'static [u8]| move |out: &mut Output| out.extend_from_slice(word);
        let gate = gate(1, 10);
        outbox.put_under(ReplyCondition::of_entry(LogIndex::new(10), 0), &gate, now, write(b"a"));
        outbox.put_under(ReplyCondition::of_entry(LogIndex::new(11), 0), &gate, now, write(b"b"));
        assert_eq!(outbox.release(&gate, now), Err(OutcomeUnknown));
        assert_eq!(text(&outbox.ready), "a");
    }
}
