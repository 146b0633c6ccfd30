//! The course of a failover: whom to ask, how long to wait, what to do when the shard changes meanwhile.
//!
//! The changes of one shard's primary run one after another, failovers as well as hand-offs; those of different shards
//! at once, and what they decide shares Raft entries. A failover asks the in-sync set, which contains the primary, and
//! waits for all of them, or no longer than [`STRAGGLER_LIMIT`] once [`Case::is_decidable`]. What is decided is
//! proposed. A member may restart between its answer and the commit: then the change is refused, and everybody is
//! asked again, for no answer outlives its question.
//!
//! Why that is safe stands in [`super::failover`]: the change is compared with the shard's term when it is applied.
//!
//! Architecture invariant: no clock, no socket; the shell is [`crate::shell::control::failover`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::{ShardId, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;

use super::failover::{self, Answer, Answers, Case, Decision, Handoff, Trigger};
use super::health::Health;
use super::inquiry::{self, ANSWER_LIMIT, Inquiry, Question, other_sentinels};
use super::topology::{PrimaryChange, RaftId, Refusal};

/// Once a safe choice is there, how long to wait for a better one.
const STRAGGLER_LIMIT: Duration = Duration::from_millis(15);
/// How often everybody is asked.
const ATTEMPTS_MAX: usize = 3;
/// A proposal without an answer is given up: it is unknown what becomes of it.
pub(crate) const PROPOSAL_LIMIT: Duration = Duration::from_millis(2000);
/// Requests that wait for one shard. Nodes repeat theirs every now and then, and few can have one.
const WAITING_MAX: usize = 64;

/// Identifies a request. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// That a shard should have another primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Failover { shard: ShardId, term: Term, trigger: Trigger },
    Handoff(Handoff),
}

impl Request {
    pub fn shard(&self) -> &ShardId {
        match self {
            Request::Failover { shard, .. } => shard,
            Request::Handoff(handoff) => &handoff.shard,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Requested(Ticket, Request),
    /// What became of a question.
    Answered(ShardId, Question, Answer),
    /// What became of a proposal.
    Decided(ShardId, ProposalId, Result<(), Refusal>),
    /// It is unknown what becomes of a proposal.
    Undecided(ShardId, ProposalId),
    /// The clock moved; the shell also sends one at each deadline.
    Tick,
}

/// Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalId(u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Ask(ShardId, Question),
    Propose(Proposal),
    /// For the log: a proposal was refused because the shard has changed, so everybody is asked again.
    AskAgain(ShardId, Refusal),
    Settle(Ticket, Settlement),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub id: ProposalId,
    pub change: PrimaryChange,
    /// As it was when the members were asked.
    pub topology: Arc<Topology>,
    /// What they answered; nothing at a hand-off.
    pub answers: Answers,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Replaced(Box<Replaced>),
    /// A hand-off that was committed before, though its answer was lost.
    CarriedOut,
    /// The primary stays: it is well.
    Kept {
        reason: String,
        asked: Duration,
    },
    Refused {
        reason: String,
    },
    /// The watchdog does not wait while another change of the shard is under way.
    Busy,
    Unknown,
}

/// A settlement as whoever asked is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(String),
    /// Whoever asked has to ask again.
    Unknown(&'static str),
}

impl Settlement {
    /// Whether only the group's leader may say it, as of now: that something is *not* done rests on a topology, and one
    /// that is cut off from the others has an old one. It would refuse for as long as it is asked, while whoever asks
    /// could have turned to those that decide. What is done was committed, whoever says so.
    pub fn needs_leadership(&self) -> bool {
        match self {
            Settlement::Replaced(_) | Settlement::CarriedOut | Settlement::Unknown => false,
            Settlement::Kept { .. } | Settlement::Refused { .. } | Settlement::Busy => {
                !mutation::is_on(Mutation::OldRefusalCounts)
            }
        }
    }

    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Settlement::Replaced(_) | Settlement::CarriedOut => Outcome::Done,
            Settlement::Kept { reason, .. } | Settlement::Refused { reason } => Outcome::Refused(reason),
            Settlement::Busy => Outcome::Refused("another change of the shard's primary is under way".into()),
            Settlement::Unknown => Outcome::Unknown("it is unknown whether the change was committed"),
        }
    }
}

/// A change that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// As it was before.
    pub topology: Arc<Topology>,
    pub change: PrimaryChange,
    /// Until the members had answered, and until the change was committed.
    pub asked: Duration,
    pub total: Duration,
}

/// What a step looks at.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// This sentinel.
    pub me: RaftId,
    /// As it is applied here.
    pub topology: &'a Arc<Topology>,
    pub health: &'a Health,
}

/// The changes of primaries that this sentinel is asked for.
#[derive(Debug, Default)]
pub struct Coordinator {
    shards: BTreeMap<ShardId, Changes>,
    /// When time alone changes something, for each shard where it does.
    deadlines: BTreeSet<(Monotonic, ShardId)>,
    proposals: u64,
}

/// Those of one shard.
#[derive(Debug, Default)]
struct Changes {
    waiting: VecDeque<(Ticket, Request)>,
    running: Option<Running>,
    inquiry: Inquiry,
    /// Its entry in `deadlines`.
    deadline: Option<Monotonic>,
}

#[derive(Debug)]
struct Running {
    ticket: Ticket,
    request: Request,
    attempts: usize,
    /// When the attempt began, and the topology as it was then.
    began_at: Monotonic,
    topology: Arc<Topology>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Asking {
        /// When a decision that is safe is taken.
        decide_at: Option<Monotonic>,
    },
    Proposed {
        id: ProposalId,
        change: PrimaryChange,
        asked: Duration,
        until: Monotonic,
    },
}

impl Coordinator {
    pub fn step(&mut self, now: Monotonic, view: Observed<'_>, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Requested(ticket, request) => {
                let id = request.shard().clone();
                self.with(&id, now, view, out, |changes, out| changes.requested(ticket, request, out));
            }
            Event::Answered(id, question, answer) => {
                let event = inquiry::Event::Answered(question, answer);
                self.with(&id, now, view, out, |changes, out| changes.inquire(&id, now, event, out));
            }
            Event::Decided(id, proposal, result) => {
                self.with(&id, now, view, out, |changes, out| {
                    changes.decided(now, proposal, result, view, out)
                });
            }
            Event::Undecided(id, proposal) => {
                self.with(&id, now, view, out, |changes, out| changes.undecided(proposal, out));
            }
            Event::Tick => {
                while let Some((_, id)) = self.deadlines.first().filter(|(at, _)| *at <= now).cloned() {
                    let tick = inquiry::Event::Tick;
                    self.with(&id, now, view, out, |changes, out| changes.inquire(&id, now, tick, out));
                }
            }
        }
    }

    /// Lets something happen to a shard, and what follows from it.
    fn with(
        &mut self,
        id: &ShardId,
        now: Monotonic,
        view: Observed<'_>,
        out: &mut Vec<Action>,
        happen: impl FnOnce(&mut Changes, &mut Vec<Action>),
    ) {
        let changes = self.shards.entry(id.clone()).or_default();
        happen(changes, out);
        changes.advance(now, view, &mut self.proposals, out);
        let deadline = changes.next_deadline();
        if changes.deadline != deadline {
            let before = std::mem::replace(&mut changes.deadline, deadline);
            before.map(|at| self.deadlines.remove(&(at, id.clone())));
            deadline.map(|at| self.deadlines.insert((at, id.clone())));
        }
        if changes.running.is_none() && !view.topology.shards.contains_key(id) {
            self.shards.remove(id);
        }
    }

    /// When time alone changes something.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whether no shard's primary is about to change.
    pub fn is_idle(&self) -> bool {
        self.shards.values().all(|changes| changes.running.is_none())
    }

    /// Drops requests that wait for their turn though nobody waits for their outcome any more.
    pub(crate) fn withdraw(&mut self, shard: &ShardId, is_withdrawn: impl Fn(Ticket) -> bool) {
        if let Some(changes) = self.shards.get_mut(shard) {
            changes.waiting.retain(|(ticket, _)| !is_withdrawn(*ticket));
        }
    }

    /// # Panics
    /// When one does not hold.
    pub fn check_invariants(&self) {
        for (id, changes) in &self.shards {
            assert!(
                changes.running.is_some() || changes.waiting.is_empty(),
                "{id}: a request waits for nothing"
            );
            assert!(changes.running.is_none() || changes.deadline.is_some(), "{id}: it would wait for ever");
            assert!(changes.waiting.len() <= WAITING_MAX);
        }
        assert_eq!(self.deadlines.len(), self.shards.values().filter(|c| c.deadline.is_some()).count());
    }
}

impl Changes {
    fn requested(&mut self, ticket: Ticket, request: Request, out: &mut Vec<Action>) {
        let is_watchdog = matches!(&request, Request::Failover { trigger: Trigger::Watchdog, .. });
        if is_watchdog && self.running.is_some() {
            out.push(Action::Settle(ticket, Settlement::Busy));
        } else if self.waiting.len() == WAITING_MAX {
            out.push(refused(ticket, "too many requests wait for the shard: try again"));
        } else {
            self.waiting.push_back((ticket, request));
        }
    }

    fn inquire(&mut self, id: &ShardId, now: Monotonic, event: inquiry::Event, out: &mut Vec<Action>) {
        let mut questions = Vec::new();
        self.inquiry.step(now, event, &mut questions);
        out.extend(questions.into_iter().map(|question| Action::Ask(id.clone(), question)));
    }

    /// Goes on as far as nothing has to be waited for.
    fn advance(&mut self, now: Monotonic, view: Observed<'_>, proposals: &mut u64, out: &mut Vec<Action>) {
        loop {
            let running = match self.running.take() {
                Some(running) => Some(running),
                None => {
                    let Some((ticket, request)) = self.waiting.pop_front() else { return };
                    self.begin(now, view, ticket, request, proposals, out)
                }
            };
            self.running = running.and_then(|running| self.proceed(now, running, proposals, out));
            if self.running.is_some() {
                return;
            }
        }
    }

    /// `None` if it is settled.
    fn begin(
        &mut self,
        now: Monotonic,
        view: Observed<'_>,
        ticket: Ticket,
        request: Request,
        proposals: &mut u64,
        out: &mut Vec<Action>,
    ) -> Option<Running> {
        let topology = Arc::clone(view.topology);
        let handoff = match &request {
            Request::Failover { .. } => None,
            Request::Handoff(handoff) if handoff.is_carried_out(&topology) => {
                out.push(Action::Settle(ticket, Settlement::CarriedOut));
                return None;
            }
            Request::Handoff(handoff) => Some(failover::hand_off(&topology, handoff)),
        };
        let phase = Phase::Asking { decide_at: None };
        let running = Running { ticket, request, attempts: 0, began_at: now, topology, phase };
        match handoff {
            None => self.attempt(now, view, running, out),
            Some(Ok(change)) => Some(running.propose(now, change, Answers::new(), proposals, out)),
            Some(Err(refusal)) => {
                out.push(refused(ticket, &refusal.to_string()));
                None
            }
        }
    }

    /// Asks everybody, unless the request is refused.
    fn attempt(
        &mut self,
        now: Monotonic,
        view: Observed<'_>,
        running: Running,
        out: &mut Vec<Action>,
    ) -> Option<Running> {
        let Request::Failover { shard, term, trigger } = &running.request else { return None };
        let topology = Arc::clone(view.topology);
        match Case::open(&topology, shard, *term, trigger) {
            Ok(case) => {
                let mut questions = Vec::new();
                let others = other_sentinels(&topology, view.me);
                self.inquiry.begin(now, ANSWER_LIMIT, case.questions(), others, &mut questions);
                out.extend(questions.into_iter().map(|question| Action::Ask(shard.clone(), question)));
            }
            Err(refusal) => {
                out.push(refused(running.ticket, &refusal.to_string()));
                return None;
            }
        }
        let (attempts, phase) = (running.attempts + 1, Phase::Asking { decide_at: None });
        Some(Running { attempts, began_at: now, topology, phase, ..running })
    }

    /// `None` if it is settled.
    fn proceed(
        &mut self,
        now: Monotonic,
        mut running: Running,
        proposals: &mut u64,
        out: &mut Vec<Action>,
    ) -> Option<Running> {
        let decide_at = match &running.phase {
            Phase::Proposed { until, .. } if *until <= now => {
                out.push(Action::Settle(running.ticket, Settlement::Unknown));
                return None;
            }
            Phase::Proposed { .. } => return Some(running),
            Phase::Asking { decide_at, .. } => *decide_at,
        };
        let answers = self.inquiry.answers();
        let case = running.case()?;
        if !case.is_complete(answers) && decide_at.is_none_or(|at| now < at) {
            let is_decidable = case.is_decidable(answers);
            if let Phase::Asking { decide_at: at @ None, .. } = &mut running.phase
                && is_decidable
            {
                *at = Some(now + STRAGGLER_LIMIT);
            }
            return Some(running);
        }
        match case.decide(answers) {
            Decision::Replace(change) => {
                let answers = answers.clone();
                self.inquiry.end();
                Some(running.propose(now, change, answers, proposals, out))
            }
            Decision::Keep { reason } => {
                let asked = now.since(running.began_at);
                out.push(Action::Settle(running.ticket, Settlement::Kept { reason, asked }));
                None
            }
            Decision::Wait { reason } => {
                out.push(refused(running.ticket, &reason));
                None
            }
        }
    }

    /// A proposal took effect, or was refused.
    fn decided(
        &mut self,
        now: Monotonic,
        proposal: ProposalId,
        result: Result<(), Refusal>,
        view: Observed<'_>,
        out: &mut Vec<Action>,
    ) {
        let Some(running) = self.running.take_if(|running| running.waits_for(proposal)) else { return };
        let ticket = running.ticket;
        let refusal = match result {
            Ok(()) => return out.extend(running.replaced(now)),
            Err(refusal) => refusal,
        };
        let Request::Failover { shard, .. } = &running.request else {
            return out.push(refused(ticket, &refusal.to_string()));
        };
        if matches!(refusal, Refusal::StaleTerm { .. }) {
            out.push(refused(ticket, &refusal.to_string()));
        } else if running.attempts == ATTEMPTS_MAX {
            out.push(refused(ticket, "the shard keeps changing: try again"));
        } else {
            out.push(Action::AskAgain(shard.clone(), refusal));
            self.running = self.attempt(now, view, running, out);
        }
    }

    fn undecided(&mut self, proposal: ProposalId, out: &mut Vec<Action>) {
        if let Some(running) = self.running.take_if(|running| running.waits_for(proposal)) {
            out.push(Action::Settle(running.ticket, Settlement::Unknown));
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        match &self.running.as_ref()?.phase {
            Phase::Asking { decide_at, .. } => {
                self.inquiry.next_deadline().into_iter().chain(*decide_at).min()
            }
            Phase::Proposed { until, .. } => Some(*until),
        }
    }
}

impl Running {
    fn case(&self) -> Option<Case<'_>> {
        let (Request::Failover { shard, trigger, .. }, Phase::Asking { .. }) = (&self.request, &self.phase)
        else {
            return None;
        };
        let shard = self.topology.shards.get(shard)?;
        Some(Case { topology: &self.topology, shard, trigger })
    }

    fn propose(
        self,
        now: Monotonic,
        change: PrimaryChange,
        answers: Answers,
        proposals: &mut u64,
        out: &mut Vec<Action>,
    ) -> Running {
        *proposals += 1;
        let id = ProposalId(*proposals);
        let topology = Arc::clone(&self.topology);
        out.push(Action::Propose(Proposal { id, change: change.clone(), topology, answers }));
        let (asked, until) = (now.since(self.began_at), now + PROPOSAL_LIMIT);
        Running { phase: Phase::Proposed { id, change, asked, until }, ..self }
    }

    /// The change has taken effect.
    fn replaced(self, now: Monotonic) -> Option<Action> {
        let Phase::Proposed { change, asked, .. } = self.phase else { return None };
        let total = now.since(self.began_at);
        let replaced = Replaced { topology: self.topology, change, asked, total };
        Some(Action::Settle(self.ticket, Settlement::Replaced(Box::new(replaced))))
    }

    fn waits_for(&self, proposal: ProposalId) -> bool {
        matches!(&self.phase, Phase::Proposed { id, .. } if *id == proposal)
    }
}

fn refused(ticket: Ticket, reason: &str) -> Action {
    Action::Settle(ticket, Settlement::Refused { reason: reason.to_owned() })
}

#[cfg(test)]
mod tests;
