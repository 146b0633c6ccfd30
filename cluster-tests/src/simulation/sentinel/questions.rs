//! Questions to nodes, directly and through the other sentinels: who is asked when is decided by the real
//! `keyward_sentinel::rules::inquiry`.

use keyward_sentinel::rules::coordinator;
use keyward_sentinel::rules::failover::Answer;
use keyward_sentinel::rules::inquiry::{self, Route};

use super::raft_id;
use crate::simulation::messages::{Asking, Message, Question};
use crate::simulation::network;
use crate::simulation::world::{SimEvent, World};
use crate::simulation::{NODES, Nanos, SENTINELS, WAIT_MIN};

impl World {
    /// Puts a question to a node, or asks another sentinel to.
    pub(super) fn put(&mut self, sentinel: usize, asking: Asking, question: inquiry::Question) {
        let node = (0..NODES).find(|node| self.machines[*node].id == question.node);
        let node = node.expect("the topology has no other nodes");
        let (run, from) = (self.sentinels[sentinel].run, network::sentinel(sentinel));
        let route = question.route;
        let question = Question { sentinel, run, asking, question };
        match route {
            Route::Direct => self.send_message(from, node, Message::Question(question)),
            Route::Through(other) => {
                let other = (0..SENTINELS).find(|s| raft_id(*s) == other).expect("there are no others");
                self.send_message(from, network::sentinel(other), Message::AskNode { node, question });
            }
        }
    }

    /// Another sentinel wants to know.
    pub(in crate::simulation) fn asked_to_pass_on(
        &mut self,
        sentinel: usize,
        node: usize,
        question: Question,
    ) {
        let s = &self.sentinels[sentinel];
        if !s.is_up {
            return;
        }
        let (from, asked) = (network::sentinel(sentinel), &question.question);
        if inquiry::to_pass_on(&s.view, &asked.node, asked.incarnation).is_some() {
            return self.send_message(from, node, Message::Question(question));
        }
        let to = network::sentinel(question.sentinel);
        self.send_message(from, to, Message::State { question, node, answer: Answer::Silent });
    }

    /// A node's answer arrives at whoever has asked it, or through it at whoever wants to know.
    pub(in crate::simulation) fn state_told(
        &mut self,
        sentinel: usize,
        node: usize,
        question: Question,
        answer: Answer,
    ) {
        let s = &mut self.sentinels[sentinel];
        if !s.is_up {
            return;
        }
        if sentinel != question.sentinel {
            let (from, to) = (network::sentinel(sentinel), network::sentinel(question.sentinel));
            return self.send_message(from, to, Message::State { question, node, answer });
        }
        let Question { run, asking, question, .. } = question;
        if s.run != run {
            return;
        }
        match asking {
            Asking::Probe => _ = s.probed.insert(question.node, answer),
            Asking::Coordinator(shard) => {
                self.coordinate(sentinel, coordinator::Event::Answered(shard, question, answer));
            }
            Asking::Removal(id) => {
                self.removal_step(sentinel, id, inquiry::Event::Answered(question, answer));
            }
        }
    }

    // ------------------------------------------------------------------ time

    /// The sentinel is woken at the next of its deadlines.
    pub(super) fn wake_sentinel(&mut self, sentinel: usize) {
        let (now, s) = (self.now, &mut self.sentinels[sentinel]);
        let removals = s.removals.values().filter_map(|removal| removal.inquiry.next_deadline());
        let Some(deadline) = s.coordinator.next_deadline().into_iter().chain(removals).min() else { return };
        let wait = Nanos::try_from(deadline.since(s.clock.read(now)).as_nanos()).expect("soon");
        let (at, run) = (now + wait.max(WAIT_MIN), s.run);
        if at < s.wake_at {
            s.wake_at = at;
            self.at(at - now, SimEvent::SentinelTick { sentinel, run });
        }
    }

    pub(in crate::simulation) fn sentinel_tick(&mut self, sentinel: usize, run: u64) {
        let (now, s) = (self.now, &mut self.sentinels[sentinel]);
        if s.run != run {
            return;
        }
        if now < s.paused_until {
            s.wake_at = s.paused_until;
            let wait = s.paused_until - now;
            return self.at(wait, SimEvent::SentinelTick { sentinel, run });
        }
        s.wake_at = Nanos::MAX;
        for id in s.removals.keys().copied().collect::<Vec<_>>() {
            self.removal_step(sentinel, id, inquiry::Event::Tick);
        }
        self.coordinate(sentinel, coordinator::Event::Tick);
    }
}
