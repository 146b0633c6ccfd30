//! Questions to nodes, directly and through the other sentinels; as `keyward_sentinel::indirect`.

use std::sync::Arc;

use keyward_proto::ids::NodeId;
use keyward_sentinel::failover::Answer;

use super::Sentinel;
use crate::simulation::messages::{Message, Question};
use crate::simulation::network::{self, Endpoint};
use crate::simulation::story::detail;
use crate::simulation::world::{Happening, World};
use crate::simulation::{NODES, Nanos, SENTINELS, ms};

/// As in `keyward_sentinel::indirect`.
const DIRECT_LIMIT: Nanos = ms(40);

impl Sentinel {
    fn waits_for(&self, task: u64, node: &NodeId) -> bool {
        self.removals.get(&task).is_some_and(|removal| removal.waits_for(node))
            || self
                .running
                .as_ref()
                .is_some_and(|(running, failover)| *running == task && failover.waits_for(node))
    }
}

/// The process that was meant has answered: all that counts when it comes through another sentinel.
fn is_meant(question: &Question, answer: &Answer) -> bool {
    matches!(answer, Answer::Status(state) if state.incarnation == question.incarnation)
}

impl World {
    /// Asks these nodes, and soon through the others those that have not answered.
    pub(super) fn ask_nodes(&mut self, sentinel: usize, task: u64, nodes: &[NodeId]) {
        let s = &self.sentinels[sentinel];
        let (run, view) = (s.run, Arc::clone(&s.view));
        for node in (0..NODES).filter(|n| nodes.contains(&self.machines[*n].id)).collect::<Vec<_>>() {
            let incarnation = view.nodes[&self.machines[node].id].incarnation;
            let question = Question { sentinel, run, task, incarnation };
            self.send_message(network::sentinel(sentinel), node, Message::Question(question));
            self.at(DIRECT_LIMIT, Happening::AskOthers { node, question });
        }
    }

    pub(in crate::simulation) fn ask_others(&mut self, node: usize, question: Question) {
        let s = &self.sentinels[question.sentinel];
        if self.now < s.paused_until {
            let wait = s.paused_until - self.now;
            return self.at(wait, Happening::AskOthers { node, question });
        }
        if s.run != question.run || !s.is_up || !s.waits_for(question.task, &self.machines[node].id) {
            return;
        }
        detail!("sentinel {} asks node {node} through the others", question.sentinel);
        for other in (0..SENTINELS).filter(|other| *other != question.sentinel) {
            let (from, to) = (network::sentinel(question.sentinel), network::sentinel(other));
            self.send_message(from, to, Message::AskNode { node, question });
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
        let known = s.view.nodes.get(&self.machines[node].id).map(|n| n.incarnation);
        if s.is_up && known == Some(question.incarnation) {
            self.send_message(network::sentinel(sentinel), node, Message::Question(question));
        }
    }

    /// A node's answer arrives at whoever has asked it, or through him at whoever wants to know.
    pub(in crate::simulation) fn state_told(
        &mut self,
        from: Endpoint,
        sentinel: usize,
        node: usize,
        question: Question,
        answer: Answer,
        cut_off: bool,
    ) {
        let is_passed_on = sentinel != question.sentinel || NODES <= from;
        if is_passed_on && !is_meant(&question, &answer) {
            return;
        }
        if sentinel == question.sentinel {
            return self.told(sentinel, question.run, question.task, node, answer, cut_off);
        }
        if self.sentinels[sentinel].is_up {
            let (from, to) = (network::sentinel(sentinel), network::sentinel(question.sentinel));
            self.send_message(from, to, Message::State { question, node, answer, cut_off });
        }
    }
}
