//! Which sentinel a node asks for a change, and when it asks the next one.
//!
//! Any sentinel takes any request, but it may be cut off or gone, and clients wait for what becomes of it. So a request
//! goes to the next sentinel as well if there is no answer soon, and at once if nobody is left who might answer. What
//! that makes of the answers is [`Kind::is_settled_by`]. Whether it is safe to *repeat* a request is the node core's
//! decision, because an attempt without an answer may still take effect.
//!
//! A sentinel that is cut off from the others refuses by a topology that is over. A refusal that rests on an older one
//! than this node knows is no answer: the next sentinel is asked.
//!
//! Architecture invariant: no clock, no socket; the shell is the program's `sentinels.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

use super::messages::{Outcome, Request};

/// How long one sentinel may take: it may have to ask the shard's nodes before it answers.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(1500);
/// How long a request gives one sentinel before it goes to another one as well.
pub const NEXT_AFTER: Duration = Duration::from_millis(200);

/// Between two attempts to register, or to follow the topology.
pub const RETRY: Duration = Duration::from_millis(200);

/// What several answers to one request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May be made by anybody at any time: whatever is answered counts.
    Complaint,
    /// Of the in-sync set, or a hand-off.
    Change,
}

impl Kind {
    pub fn of(request: &Request) -> Kind {
        match request {
            Request::Failover { .. } => Kind::Complaint,
            Request::Remove { .. }
            | Request::Add { .. }
            | Request::Minimum { .. }
            | Request::Handoff { .. } => Kind::Change,
        }
    }

    /// Whether an answer to one of `attempts` attempts settles the request.
    ///
    /// A change that was accepted has happened, whoever says so. One that was refused may still happen as long as
    /// another attempt is open: a primary counts who is to join, and does not serve while it may have handed over.
    fn is_settled_by(self, outcome: &Outcome, attempts: usize) -> bool {
        match (self, outcome) {
            (_, Outcome::Unknown) => false,
            (Kind::Complaint, _) | (Kind::Change, Outcome::Accepted) => true,
            (Kind::Change, Outcome::Refused(_)) => attempts == 1,
        }
    }
}

/// What an answer rests on, compared with the topology that this node knows when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    Current,
    /// The sentinel has not heard of what this node has.
    Older,
}

impl Basis {
    /// By the versions of both topologies, as far as there are any.
    pub fn of(answered: Option<u64>, known: Option<u64>) -> Basis {
        match (answered, known) {
            (Some(answered), Some(known)) if answered < known => Basis::Older,
            _ => Basis::Current,
        }
    }

    /// What an answer is worth.
    pub fn weigh(self, outcome: Outcome) -> Outcome {
        match (self, outcome) {
            (Basis::Older, Outcome::Refused(_)) if !mutation::is_on(Mutation::OldRefusalCounts) => {
                Outcome::Unknown
            }
            (_, outcome) => outcome,
        }
    }
}

/// Which sentinel is asked first: always the same, until it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    current: usize,
    count: usize,
}

impl Rotation {
    /// Of so many sentinels.
    pub fn new(count: usize) -> Rotation {
        Rotation::starting_at(0, count)
    }

    pub fn starting_at(first: usize, count: usize) -> Rotation {
        assert!(0 < count, "a node without sentinels asks nobody");
        Rotation { current: first % count, count }
    }

    pub fn current(&self) -> usize {
        self.current
    }

    /// This one has failed. If another one is current by now, it stays so.
    pub fn leave(&mut self, sentinel: usize) {
        if self.current == sentinel {
            self.current = (sentinel + 1) % self.count;
        }
    }

    /// This one has settled a request, perhaps before one that was asked earlier.
    pub fn prefer(&mut self, sentinel: usize) {
        self.current = sentinel % self.count;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What a sentinel has answered, as [`Basis::weigh`] has it; [`Outcome::Unknown`] if it failed to.
    Answered(usize, Outcome),
    /// The clock moved; the shell also sends one at each deadline.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Ask(usize),
    /// It has not answered in time: nobody waits for it any more.
    GiveUp(usize),
    /// Always the last action. A definite outcome is that of the answer which has just come.
    Settle(Outcome),
}

/// A request that is not settled.
#[derive(Debug)]
pub struct PendingRequest {
    kind: Kind,
    /// Whom it goes to first, of how many.
    first: usize,
    count: usize,
    /// See [`ANSWER_LIMIT`].
    limit: Duration,
    /// Attempts so far.
    begun: usize,
    /// Who may still answer, and until when.
    open: BTreeMap<usize, Monotonic>,
    /// When the next one is asked.
    next_at: Monotonic,
}

impl PendingRequest {
    /// Begins with the current sentinel.
    pub fn begin(
        now: Monotonic,
        kind: Kind,
        rotation: &Rotation,
        limit: Duration,
        out: &mut Vec<Action>,
    ) -> PendingRequest {
        let (first, count) = (rotation.current, rotation.count);
        let open = BTreeMap::new();
        let mut request = PendingRequest { kind, first, count, limit, begun: 0, open, next_at: now };
        request.ask_next(now, out);
        request
    }

    pub fn step(&mut self, now: Monotonic, event: Event, out: &mut Vec<Action>) {
        if let Event::Answered(sentinel, outcome) = event
            && self.open.remove(&sentinel).is_some()
            && self.kind.is_settled_by(&outcome, self.begun)
        {
            self.open.clear();
            out.push(Action::Settle(outcome));
            return;
        }
        let late: Vec<usize> =
            self.open.iter().filter(|(_, until)| **until <= now).map(|(s, _)| *s).collect();
        for sentinel in late {
            self.open.remove(&sentinel);
            out.push(Action::GiveUp(sentinel));
        }
        if self.begun < self.attempts_max() && (self.open.is_empty() || self.next_at <= now) {
            self.ask_next(now, out);
        }
        if self.open.is_empty() {
            out.push(Action::Settle(no_answer()));
        }
    }

    fn attempts_max(&self) -> usize {
        let waits = self.kind == Kind::Change && mutation::is_on(Mutation::ChangeWaits);
        if waits { 1 } else { self.count }
    }

    fn ask_next(&mut self, now: Monotonic, out: &mut Vec<Action>) {
        let sentinel = (self.first + self.begun) % self.count;
        self.begun += 1;
        self.open.insert(sentinel, now + self.limit);
        self.next_at = now + NEXT_AFTER;
        out.push(Action::Ask(sentinel));
    }

    /// When time alone changes something; `None` once it is settled.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let first = self.open.values().min().copied()?;
        Some(if self.begun < self.attempts_max() { first.min(self.next_at) } else { first })
    }
}

/// Nobody has answered: an attempt may have taken effect, or may yet.
fn no_answer() -> Outcome {
    if mutation::is_on(Mutation::SilenceIsRefusal) {
        return Outcome::Refused("nobody has answered".to_owned());
    }
    Outcome::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_millis(millis)
    }

    fn refused() -> Outcome {
        Outcome::Refused("no".into())
    }

    /// Three sentinels, of which the second is current.
    fn begin(kind: Kind) -> (PendingRequest, Vec<Action>) {
        let mut out = Vec::new();
        let rotation = Rotation::starting_at(1, 3);
        (PendingRequest::begin(at(0), kind, &rotation, ANSWER_LIMIT, &mut out), out)
    }

    fn step(request: &mut PendingRequest, millis: u64, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        request.step(at(millis), event, &mut out);
        out
    }

    #[test]
    fn whoever_waits_for_an_answer_asks_the_next_one_soon() {
        for kind in [Kind::Complaint, Kind::Change] {
            let (mut request, out) = begin(kind);
            assert_eq!(out, [Action::Ask(1)]);
            assert_eq!(step(&mut request, 199, Event::Tick), []);
            assert_eq!(step(&mut request, 200, Event::Tick), [Action::Ask(2)]);
            let accepted = step(&mut request, 250, Event::Answered(2, Outcome::Accepted));
            assert_eq!(accepted, [Action::Settle(Outcome::Accepted)]);
            assert_eq!(request.next_deadline(), None);
        }
    }

    #[test]
    fn a_refusal_that_rests_on_an_older_topology_is_no_answer() {
        let older = Basis::of(Some(6), Some(7));
        for (basis, outcome) in [
            (Basis::of(Some(7), Some(7)), refused()),
            (Basis::of(None, Some(7)), refused()),
            (older, Outcome::Unknown),
        ] {
            assert_eq!(basis.weigh(refused()), outcome);
            assert_eq!(basis.weigh(Outcome::Accepted), Outcome::Accepted);
        }
        let (mut request, _) = begin(Kind::Complaint);
        let next = step(&mut request, 10, Event::Answered(1, older.weigh(refused())));
        assert_eq!(next, [Action::Ask(2)]);
    }

    #[test]
    fn a_complaint_goes_to_the_next_when_there_is_no_answer_soon() {
        let (mut request, _) = begin(Kind::Complaint);
        assert_eq!(request.next_deadline(), Some(at(200)));
        assert_eq!(step(&mut request, 200, Event::Tick), [Action::Ask(2)]);
        assert_eq!(step(&mut request, 300, Event::Tick), []);
        let answered = step(&mut request, 350, Event::Answered(1, refused()));
        assert_eq!(answered, [Action::Settle(refused())], "whoever answers");
    }

    #[test]
    fn a_sentinel_that_fails_at_once_costs_no_time() {
        let (mut request, _) = begin(Kind::Complaint);
        assert_eq!(step(&mut request, 1, Event::Answered(1, Outcome::Unknown)), [Action::Ask(2)]);
        assert_eq!(step(&mut request, 2, Event::Answered(2, Outcome::Unknown)), [Action::Ask(0)]);
        let last = step(&mut request, 3, Event::Answered(0, Outcome::Unknown));
        assert_eq!(last, [Action::Settle(Outcome::Unknown)]);
    }

    #[test]
    fn a_refused_change_may_still_happen_while_another_attempt_is_open() {
        let (mut request, _) = begin(Kind::Change);
        assert_eq!(step(&mut request, 10, Event::Answered(1, refused())), [Action::Settle(refused())]);

        let (mut request, _) = begin(Kind::Change);
        step(&mut request, 200, Event::Tick);
        assert_eq!(step(&mut request, 210, Event::Answered(2, refused())), []);
        assert_eq!(step(&mut request, 400, Event::Tick), [Action::Ask(0)]);
        assert_eq!(step(&mut request, 410, Event::Answered(0, refused())), []);
        let accepted = step(&mut request, 420, Event::Answered(1, Outcome::Accepted));
        assert_eq!(accepted, [Action::Settle(Outcome::Accepted)]);
    }

    #[test]
    fn an_answer_after_the_limit_is_not_waited_for() {
        let (mut request, _) = begin(Kind::Change);
        step(&mut request, 200, Event::Tick);
        step(&mut request, 400, Event::Tick);
        assert_eq!(step(&mut request, 1500, Event::Tick), [Action::GiveUp(1)]);
        assert_eq!(step(&mut request, 1510, Event::Answered(1, Outcome::Accepted)), []);
        assert_eq!(request.next_deadline(), Some(at(1700)));
    }

    #[test]
    fn the_rotation_goes_on_only_from_the_sentinel_that_failed() {
        let mut rotation = Rotation::starting_at(2, 3);
        rotation.leave(1);
        assert_eq!(rotation.current(), 2);
        rotation.leave(2);
        assert_eq!(rotation.current(), 0);
        rotation.prefer(1);
        assert_eq!(rotation.current(), 1);
    }
}
