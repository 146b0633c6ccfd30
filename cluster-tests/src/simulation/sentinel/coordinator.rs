//! The real coordinator of failovers: its questions and proposals go over the simulated network.

use keyward_replication::core::messages::Outcome as Answered;
use keyward_sentinel::rules::coordinator::{Action, Event, Observed, Proposal, Request, Settlement, Ticket};
use keyward_sentinel::rules::topology::TopologyCommand;

use super::{Call, Purpose, raft_id};
use crate::simulation::messages::Asking;
use crate::simulation::story::{detail, tell};
use crate::simulation::world::World;

impl World {
    /// Whoever has called gets an answer.
    pub(super) fn request_primary(&mut self, sentinel: usize, request: Request, call: Option<Call>) {
        let s = &mut self.sentinels[sentinel];
        s.tickets += 1;
        let ticket = Ticket(s.tickets);
        s.waiting.extend(call.map(|call| (ticket, call)));
        self.coordinate(sentinel, Event::Requested(ticket, request));
    }

    pub(super) fn coordinate(&mut self, sentinel: usize, event: Event) {
        let (now, s, mut actions) = (self.now, &mut self.sentinels[sentinel], Vec::new());
        let view = Observed { me: raft_id(sentinel), topology: &s.view, health: &s.health };
        s.coordinator.step(s.clock.read(now), view, event, &mut actions);
        s.coordinator.check_invariants();
        for action in actions {
            detail!("sentinel {sentinel} -> {action:?}");
            self.act_for_primary(sentinel, action);
        }
        self.wake_sentinel(sentinel);
    }

    fn act_for_primary(&mut self, sentinel: usize, action: Action) {
        match action {
            Action::Ask(shard, question) => self.put(sentinel, Asking::Coordinator(shard), question),
            Action::Propose(Proposal { id, change, answers, .. }) => {
                tell!("sentinel {sentinel} decides on {answers:?}: {change:?}");
                let purpose = Purpose::Primary { shard: change.shard.clone(), id };
                self.propose(sentinel, TopologyCommand::ReplacePrimary(change), purpose);
            }
            Action::AskAgain(_, refusal) => tell!("sentinel {sentinel} asks again: {refusal}"),
            Action::Settle(ticket, settlement) => self.settle(sentinel, ticket, settlement),
        }
    }

    fn settle(&mut self, sentinel: usize, ticket: Ticket, settlement: Settlement) {
        let needs_leadership = settlement.needs_leadership();
        let outcome = match settlement {
            Settlement::Replaced(_) | Settlement::CarriedOut => Some(Answered::Accepted),
            Settlement::Kept { reason, .. } | Settlement::Refused { reason } => {
                tell!("sentinel {sentinel} refuses another primary: {reason}");
                Some(Answered::Refused(reason))
            }
            // Whoever waits finds out by itself.
            Settlement::Busy | Settlement::Unknown => None,
        };
        match self.sentinels[sentinel].waiting.remove(&ticket).zip(outcome) {
            Some((call, outcome)) if needs_leadership => self.confirm(sentinel, call, outcome),
            Some((call, outcome)) => self.answer(sentinel, call, outcome),
            None => {}
        }
    }
}
