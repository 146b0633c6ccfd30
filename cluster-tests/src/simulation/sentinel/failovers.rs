//! Failovers: members are asked, the rules decide, the change is proposed; as `keyward_sentinel::control::failover`.

use std::sync::Arc;

use keyward_node::replication::messages::Outcome as Answered;
use keyward_proto::ids::{NodeId, Term};
use keyward_proto::topology::{Shard, Topology};
use keyward_sentinel::failover::removal::Contact;
use keyward_sentinel::failover::{Answer, Answers, Case, Decision, Trigger};
use keyward_sentinel::topology::{Outcome, Refusal, TopologyCommand};

use super::{ANSWER_LIMIT, ATTEMPTS_MAX, Call, PROBE, PROPOSAL_LIMIT, Purpose, STRAGGLER_LIMIT};
use crate::simulation::story::{detail, tell};
use crate::simulation::world::{Happening, World};

/// As in `keyward_sentinel::control::failover`.
#[derive(Debug)]
pub(super) struct Failover {
    term: Term,
    trigger: Trigger,
    attempts: u32,
    /// As it was when the members were asked.
    topology: Arc<Topology>,
    settled: bool,
    answers: Answers,
    is_decidable: bool,
    is_proposed: bool,
    /// Who waits for the answer.
    origin: Option<Call>,
}

impl Failover {
    fn shard(&self) -> &Shard {
        self.topology.shards.values().next().expect("the only shard")
    }

    pub(super) fn waits_for(&self, node: &NodeId) -> bool {
        !self.is_proposed && !self.answers.contains_key(node)
    }

    fn case(&self) -> Case<'_> {
        Case { topology: &self.topology, shard: self.shard(), trigger: &self.trigger, settled: self.settled }
    }
}

impl World {
    /// One failover after another.
    pub(super) fn next_failover(&mut self, sentinel: usize) {
        while self.sentinels[sentinel].running.is_none() {
            let Some((term, trigger, origin)) = self.sentinels[sentinel].waiting.pop_front() else { return };
            self.sentinels[sentinel].next_task += 1;
            let task = self.sentinels[sentinel].next_task;
            let topology = Arc::clone(&self.sentinels[sentinel].view);
            let failover = Failover {
                term,
                trigger,
                attempts: 0,
                topology,
                settled: false,
                answers: Answers::new(),
                is_decidable: false,
                is_proposed: false,
                origin,
            };
            self.sentinels[sentinel].running = Some((task, failover));
            self.ask_members(sentinel);
        }
    }

    fn end_failover(&mut self, sentinel: usize, outcome: Option<Answered>) {
        let Some((_, failover)) = self.sentinels[sentinel].running.take() else { return };
        if let (Some(origin), Some(outcome)) = (failover.origin, outcome) {
            self.answer(sentinel, origin, outcome);
        }
        self.next_failover(sentinel);
    }

    /// An attempt begins.
    fn ask_members(&mut self, sentinel: usize) {
        let (now, s) = (self.now, &mut self.sentinels[sentinel]);
        let run = s.run;
        let Some((task, failover)) = &mut s.running else { return };
        let task = *task;
        failover.attempts += 1;
        failover.topology = Arc::clone(&s.view);
        failover.settled = s.health.is_settled(s.clock.read(now), failover.shard());
        failover.answers.clear();
        (failover.is_decidable, failover.is_proposed) = (false, false);
        let shard = failover.shard().id.clone();
        let opened =
            Case::open(&failover.topology, &shard, failover.term, &failover.trigger, failover.settled);
        let members: Vec<NodeId> = match opened {
            Ok(case) => case.questions().map(|n| n.id.clone()).collect(),
            Err(refusal) => return self.end_failover(sentinel, Some(Answered::Refused(refusal.to_string()))),
        };
        detail!("sentinel {sentinel} asks {members:?} because of {:?}", failover.trigger);
        let attempt = failover.attempts;
        self.ask_nodes(sentinel, task, &members);
        self.at(ANSWER_LIMIT, Happening::AnswersDue { sentinel, run, task, attempt });
    }

    pub(in crate::simulation) fn told(
        &mut self,
        sentinel: usize,
        run: u64,
        task: u64,
        node: usize,
        answer: Answer,
        cut_off: bool,
    ) {
        let id = self.machines[node].id.clone();
        let s = &mut self.sentinels[sentinel];
        if s.run != run || !s.is_up {
            return;
        }
        if task == PROBE {
            s.probed.insert(id, answer);
            return;
        }
        if let (Some(removal), Answer::Status(state)) = (s.removals.get_mut(&task), &answer) {
            let is_current = s.view.nodes[&id].incarnation == state.incarnation;
            removal.contacts.insert(id, Contact { usable: state.usable && is_current, cut_off });
            return;
        }
        let Some((_, failover)) =
            s.running.as_mut().filter(|(running, f)| *running == task && !f.is_proposed)
        else {
            return;
        };
        failover.answers.entry(id).or_insert(answer);
        let (attempt, case) = (failover.attempts, failover.case());
        if case.is_complete(&failover.answers) {
            return self.decide(sentinel);
        }
        if !failover.is_decidable && case.is_decidable(&failover.answers) {
            failover.is_decidable = true;
            self.at(STRAGGLER_LIMIT, Happening::Decide { sentinel, run, task, attempt });
        }
    }

    /// Who has not answered counts as silent.
    pub(in crate::simulation) fn answers_due(&mut self, sentinel: usize, run: u64, task: u64, attempt: u32) {
        if !self.is_under_way(sentinel, run, task, attempt) {
            return;
        }
        if let Some((_, failover)) = &mut self.sentinels[sentinel].running {
            let asked: Vec<NodeId> = failover.case().questions().map(|n| n.id.clone()).collect();
            for id in asked {
                failover.answers.entry(id).or_insert(Answer::Silent);
            }
        }
        self.decide(sentinel);
    }

    pub(in crate::simulation) fn straggler_limit(
        &mut self,
        sentinel: usize,
        run: u64,
        task: u64,
        attempt: u32,
    ) {
        if self.is_under_way(sentinel, run, task, attempt) {
            self.decide(sentinel);
        }
    }

    fn is_under_way(&self, sentinel: usize, run: u64, task: u64, attempt: u32) -> bool {
        let s = &self.sentinels[sentinel];
        s.run == run
            && s.running
                .as_ref()
                .is_some_and(|(running, f)| *running == task && f.attempts == attempt && !f.is_proposed)
    }

    fn decide(&mut self, sentinel: usize) {
        let s = &mut self.sentinels[sentinel];
        let run = s.run;
        let Some((task, failover)) = &mut s.running else { return };
        let (task, attempt) = (*task, failover.attempts);
        let decision = failover.case().decide(&failover.answers);
        tell!("sentinel {sentinel} decides on {:?}: {decision:?}", failover.answers);
        match decision {
            Decision::Replace(change) => {
                failover.is_proposed = true;
                let command = TopologyCommand::ReplacePrimary(change);
                self.propose(sentinel, command, Purpose::Failover { task });
                self.at(PROPOSAL_LIMIT, Happening::GiveUp { sentinel, run, task, attempt });
            }
            Decision::Keep { reason } | Decision::Wait { reason } => {
                self.end_failover(sentinel, Some(Answered::Refused(reason)));
            }
        }
    }

    pub(super) fn failover_answered(&mut self, sentinel: usize, task: u64, result: Result<Outcome, Refusal>) {
        let s = &mut self.sentinels[sentinel];
        let Some((_, failover)) = s.running.as_mut().filter(|(running, _)| *running == task) else { return };
        match result.err() {
            None => self.end_failover(sentinel, Some(Answered::Accepted)),
            Some(refusal @ Refusal::StaleTerm { .. }) => {
                self.end_failover(sentinel, Some(Answered::Refused(refusal.to_string())));
            }
            Some(_) if failover.attempts < ATTEMPTS_MAX => self.ask_members(sentinel),
            Some(_) => {
                let reason = "the shard keeps changing: try again".to_owned();
                self.end_failover(sentinel, Some(Answered::Refused(reason)));
            }
        }
    }

    /// No answer to a proposal: whoever waits for it finds out by itself.
    pub(in crate::simulation) fn give_up(&mut self, sentinel: usize, run: u64, task: u64, attempt: u32) {
        let s = &self.sentinels[sentinel];
        let waits = s.run == run
            && s.running.as_ref().is_some_and(|(running, f)| *running == task && f.attempts == attempt);
        if waits {
            self.end_failover(sentinel, None);
        }
    }
}
