//! What sentinels propose, and what becomes of it.

use std::sync::Arc;

use keyward_proto::ids::ShardId;
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::topology::Topology;
use keyward_replication::core::messages::{Outcome as Answered, RequestId};
use keyward_sentinel::rules::coordinator::{Event, ProposalId};
use keyward_sentinel::rules::leadership::is_current;
use keyward_sentinel::rules::topology::{InSyncChange, Outcome, Refusal, TopologyCommand};
use rand::Rng;

use super::{Call, Sentinel};
use crate::simulation::messages::Message;
use crate::simulation::world::{SimEvent, World};
use crate::simulation::{FAULTS_END, SENTINELS, ms, network};

/// Whom a proposal's result concerns.
#[derive(Debug, Clone)]
pub(in crate::simulation) enum Purpose {
    Registration {
        node: usize,
        run: u64,
    },
    Change {
        node: usize,
        run: u64,
        id: RequestId,
    },
    Primary {
        shard: ShardId,
        id: ProposalId,
    },
    /// Carried out twice: nobody waits for the second answer.
    Again,
}

/// A refusal that waits for the others to confirm that this sentinel leads.
#[derive(Debug)]
pub(in crate::simulation) struct Confirmation {
    sentinel: usize,
    run: u64,
    call: Call,
    outcome: Answered,
    /// What it rests on.
    view: Arc<Topology>,
}

/// A command on its way into the register.
#[derive(Debug)]
pub(in crate::simulation) struct Proposal {
    pub(in crate::simulation) sentinel: usize,
    run: u64,
    /// Of the register.
    epoch: u64,
    command: TopologyCommand,
    purpose: Purpose,
}

impl World {
    /// It reaches no other sentinel, or none reaches it.
    pub(in crate::simulation) fn is_isolated(&self, sentinel: usize) -> bool {
        let me = network::sentinel(sentinel);
        let mut others = (0..SENTINELS).filter(|other| *other != sentinel).map(network::sentinel);
        others.all(|other| self.network.is_cut(me, other) || self.network.is_cut(other, me))
    }

    /// A sentinel refuses; what that rests on has to be confirmed by the others.
    pub(super) fn refuse(&mut self, sentinel: usize, call: Call, reason: String) {
        let outcome = Answered::Refused(reason);
        if mutation::is_on(Mutation::OldRefusalCounts) {
            return self.answer(sentinel, call, outcome);
        }
        self.confirm(sentinel, call, outcome);
    }

    pub(super) fn confirm(&mut self, sentinel: usize, call: Call, outcome: Answered) {
        if self.is_isolated(sentinel) {
            return;
        }
        let delay =
            (self.latency() + self.latency()).max(self.register_frozen_until.saturating_sub(self.now));
        let Sentinel { run, view, .. } = &self.sentinels[sentinel];
        let confirmation = Confirmation { sentinel, run: *run, call, outcome, view: Arc::clone(view) };
        self.at(delay, SimEvent::Confirmed(Box::new(confirmation)));
    }

    /// Not if it is cut off, or has decided on what is over: then it would begin again, and whoever asks goes on to the
    /// next one meanwhile.
    pub(in crate::simulation) fn confirmed(&mut self, confirmation: Confirmation) {
        let Confirmation { sentinel, run, call, outcome, view } = confirmation;
        let s = &self.sentinels[sentinel];
        if s.run != run || !s.is_up || self.is_isolated(sentinel) {
            return;
        }
        if self.now < s.paused_until {
            let wait = s.paused_until - self.now;
            let again = Confirmation { sentinel, run, call, outcome, view };
            return self.at(wait, SimEvent::Confirmed(Box::new(again)));
        }
        let Some(shard) = self.register.shard().map(|shard| shard.id.clone()) else { return };
        if is_current(&view, &self.register.topology, &shard) {
            self.answer(sentinel, call, outcome);
        }
    }

    /// A sentinel proposes a command. It takes effect later, or never.
    pub(in crate::simulation) fn propose(
        &mut self,
        sentinel: usize,
        command: TopologyCommand,
        purpose: Purpose,
    ) {
        let isolated = (0..SENTINELS)
            .filter(|&other| other != sentinel)
            .all(|other| self.network.is_cut(network::sentinel(sentinel), network::sentinel(other)));
        // Beside a standing fault nothing else goes wrong.
        let lost = match (isolated, self.standing.is_some()) {
            (true, true) => 1.0,
            (true, false) => 0.8,
            (false, true) => 0.0,
            (false, false) => 0.03,
        };
        if self.rng.random_bool(lost) && self.now < FAULTS_END {
            return;
        }
        let slow = if self.standing.is_some() { 0.1 } else { self.slow_proposals };
        let slow = if self.rng.random_bool(slow) { self.rng.random_range(0..ms(400)) } else { 0 };
        let twice = self.rng.random_bool(0.03);
        let arrival = (self.now + self.latency() + self.latency() + slow)
            .max(self.sentinels[sentinel].proposals_until)
            .max(self.register_frozen_until);
        self.sentinels[sentinel].proposals_until = arrival;
        let (run, epoch) = (self.sentinels[sentinel].run, self.register.epoch);
        let delay = arrival - self.now;
        self.proposals_under_way += 1;
        if twice {
            self.proposals_under_way += 1;
            let again = Proposal { sentinel, run, epoch, command: command.clone(), purpose: Purpose::Again };
            let later = delay + self.rng.random_range(0..ms(300));
            self.at(later, SimEvent::Commit(Box::new(again)));
        }
        let proposal = Proposal { sentinel, run, epoch, command, purpose };
        self.at(delay, SimEvent::Commit(Box::new(proposal)));
    }

    /// A command takes effect.
    pub(in crate::simulation) fn commit(&mut self, proposal: Proposal) {
        self.proposals_under_way -= 1;
        let Proposal { sentinel, run, epoch, command, purpose } = proposal;
        if epoch != self.register.epoch {
            return;
        }
        let before = Arc::clone(&self.register.topology);
        let result = self.register.commit(command.clone());
        if before.version < self.register.topology.version {
            if let TopologyCommand::FormShards { shards, .. } = &command {
                self.invariants.adopted(self.register.topology.nodes[&shards[0].primary].registered_last);
            }
            let term = |topology: &Topology| topology.shards.values().next().map(|shard| shard.term);
            let is_later = self.register.shard().is_some_and(|shard| Some(shard.term) != term(&before));
            self.counts.later_terms += u64::from(is_later);
            self.committed(&before, &command);
        }
        let delay = self.latency();
        self.at(delay, SimEvent::Committed { sentinel, run, purpose, result });
        for other in 0..SENTINELS {
            self.spread_to(other);
        }
    }

    /// The invariants and the world take note of a change.
    fn committed(&mut self, before: &Topology, command: &TopologyCommand) {
        self.invariants.committed(before, command, &self.register, &self.machines);
        let added = match command {
            TopologyCommand::FormShards { shards, .. } => shards.first().map(|shard| &shard.primary),
            TopologyCommand::ChangeInSync { change: InSyncChange::Add { node, .. }, .. } => Some(node),
            // After a full restart the history is what the chosen one has.
            TopologyCommand::ReplacePrimary(change) => Some(&change.node),
            _ => None,
        };
        if let Some(machine) = self.machines.iter_mut().find(|m| Some(&m.id) == added) {
            // A process that has died meanwhile has taken with it what it was added for.
            let incarnation = self.register.incarnation(&machine.id);
            machine.intact |= machine.running().is_some_and(|p| p.incarnation == incarnation);
        }
    }
    pub(in crate::simulation) fn proposal_answered(
        &mut self,
        sentinel: usize,
        run: u64,
        purpose: Purpose,
        result: Result<Outcome, Refusal>,
    ) {
        let topology = Arc::clone(&self.register.topology);
        let (now, s) = (self.now, &mut self.sentinels[sentinel]);
        if s.run != run || !s.is_up {
            return;
        }
        if now < s.paused_until {
            let wait = s.paused_until - now;
            return self.at(wait, SimEvent::Committed { sentinel, run, purpose, result });
        }
        s.see(&topology);
        match purpose {
            Purpose::Again => {}
            Purpose::Registration { node, run } => {
                let message = match result {
                    Ok(Outcome::Registered { incarnation }) => {
                        Message::Registered { run, incarnation, topology }
                    }
                    Err(Refusal::StaleIncarnation { current }) => {
                        Message::RegisterAgain { run, follows: current }
                    }
                    other => unreachable!("a registration: {other:?}"),
                };
                self.send_message(network::sentinel(sentinel), node, message);
            }
            Purpose::Change { node, run, id } => {
                let refusal = result.err();
                let outcome = refusal.map_or(Answered::Accepted, |r| Answered::Refused(r.to_string()));
                self.answer(sentinel, (node, run, id), outcome);
            }
            Purpose::Primary { shard, id } => {
                self.coordinate(sentinel, Event::Decided(shard, id, result.map(|_| ())));
            }
        }
    }
}
