//! Several nodes are asked how they are, each of them also through the other sentinels (as SWIM does).
//!
//! The network may be cut in part: the leading sentinel reaches the primary alone, say, while the replicas reach the
//! other sentinels. Without their answers it would have the replicas removed, and could choose none of them. So a node
//! that does not answer soon, or whose connection breaks, is asked through every other sentinel as well.
//!
//! Only a node's *status* counts when it comes this way, of the process that the topology has. It is an answer that is
//! a little older, and whatever is decided on answers is compared with the topology when it takes effect. That a
//! connection was refused elsewhere is no proof of death, nor is another process there: the other sentinel may have an
//! older topology, with an address where the node no longer is, or another route. A primary's leases are held to be
//! over on such a proof, so this sentinel's own new connection has to give it. Silence on all ways remains silence.
//!
//! Architecture invariant: no clock, no socket; the shell is [`crate::shell::questions`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyward_proto::ids::{Incarnation, NodeId};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Node, Topology};

use super::failover::{Answer, Answers};
use super::topology::RaftId;

/// How long nodes may take to answer before something is decided.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(150);
/// How long a node's own answer is waited for before the other sentinels are asked.
const DIRECT_LIMIT: Duration = Duration::from_millis(40);

/// The way on which a node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    Direct,
    Through(RaftId),
}

/// A question to one node, on one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Which of an [`Inquiry`]'s rounds it belongs to.
    pub round: u64,
    pub node: NodeId,
    /// The process that is meant.
    pub incarnation: Incarnation,
    pub route: Route,
    /// An answer after that is of no use.
    pub until: Monotonic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`Answer::Silent`] if there was none; through another sentinel also if the node did not give it one.
    Answered(Question, Answer),
    /// The clock moved; the shell also sends one at each deadline.
    Tick,
}

/// Through whom `me` may ask.
pub fn other_sentinels(topology: &Topology, me: RaftId) -> impl Iterator<Item = RaftId> {
    topology.sentinels.keys().copied().filter(move |id| *id != me)
}

/// Whom to ask on behalf of another sentinel: only the process that is known here as it is there.
pub fn to_pass_on<'a>(topology: &'a Topology, node: &NodeId, incarnation: Incarnation) -> Option<&'a Node> {
    topology.nodes.get(node).filter(|node| node.incarnation == incarnation)
}

/// Round after round of questions. No answer of one round counts in the next.
#[derive(Debug, Default)]
pub struct Inquiry {
    round: u64,
    others: Vec<RaftId>,
    /// When the others are asked about who has not answered.
    others_at: Monotonic,
    until: Monotonic,
    /// Who has not answered.
    unheard: BTreeMap<NodeId, Asked>,
    answers: Answers,
}

#[derive(Debug)]
struct Asked {
    incarnation: Incarnation,
    /// Ways on which an answer may still come.
    open: BTreeSet<Route>,
    through_others: bool,
}

impl Inquiry {
    /// A new round. `others` are the other sentinels; whoever is silent for `limit` is silent.
    pub fn begin<'a>(
        &mut self,
        now: Monotonic,
        limit: Duration,
        nodes: impl IntoIterator<Item = &'a Node>,
        others: impl IntoIterator<Item = RaftId>,
        out: &mut Vec<Question>,
    ) {
        self.end();
        self.round += 1;
        self.others = others.into_iter().collect();
        (self.others_at, self.until) = (now + DIRECT_LIMIT.min(limit), now + limit);
        if !mutation::is_on(Mutation::StaleAnswerCounts) {
            self.answers.clear();
        }
        for node in nodes {
            if self.answers.contains_key(&node.id) {
                continue;
            }
            let (open, incarnation) = (BTreeSet::from([Route::Direct]), node.incarnation);
            self.unheard.insert(node.id.clone(), Asked { incarnation, open, through_others: false });
            out.push(self.question(&node.id, incarnation, Route::Direct));
        }
    }

    /// Nothing that is still to come counts.
    pub fn end(&mut self) {
        self.unheard.clear();
    }

    pub fn step(&mut self, now: Monotonic, event: Event, out: &mut Vec<Question>) {
        match event {
            Event::Answered(question, answer) => self.answered(question, answer, out),
            Event::Tick if self.until <= now => {
                let silent = std::mem::take(&mut self.unheard);
                self.answers.extend(silent.into_keys().map(|id| (id, Answer::Silent)));
            }
            Event::Tick if self.others_at <= now => {
                let unheard: Vec<NodeId> = self.unheard.keys().cloned().collect();
                unheard.iter().for_each(|id| self.ask_others(id, out));
            }
            Event::Tick => {}
        }
    }

    fn answered(&mut self, question: Question, answer: Answer, out: &mut Vec<Question>) {
        let Question { round, node, route, .. } = question;
        let Some(asked) = self.unheard.get_mut(&node).filter(|_| round == self.round) else { return };
        if !asked.open.remove(&route) {
            return;
        }
        if asked.counts(route, &answer) {
            self.unheard.remove(&node);
            self.answers.insert(node, answer);
            return;
        }
        self.ask_others(&node, out);
        if self.unheard.get(&node).is_some_and(|asked| asked.open.is_empty()) {
            self.unheard.remove(&node);
            self.answers.insert(node, Answer::Silent);
        }
    }

    /// Once.
    fn ask_others(&mut self, node: &NodeId, out: &mut Vec<Question>) {
        let Some(asked) = self.unheard.get_mut(node).filter(|asked| !asked.through_others) else { return };
        asked.through_others = true;
        asked.open.extend(self.others.iter().copied().map(Route::Through));
        let incarnation = asked.incarnation;
        out.extend(self.others.iter().map(|other| self.question(node, incarnation, Route::Through(*other))));
    }

    fn question(&self, node: &NodeId, incarnation: Incarnation, route: Route) -> Question {
        Question { round: self.round, node: node.clone(), incarnation, route, until: self.until }
    }

    /// What has been answered in this round; who is not in here has not been heard of yet.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// When time alone changes something; `None` when all have answered.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        if self.unheard.is_empty() {
            return None;
        }
        let all_asked = self.others.is_empty() || self.unheard.values().all(|asked| asked.through_others);
        Some(if all_asked { self.until } else { self.others_at })
    }
}

impl Asked {
    /// Whether an answer that came this way is one.
    fn counts(&self, route: Route, answer: &Answer) -> bool {
        match (route, answer) {
            (_, Answer::Silent) | (Route::Through(_), Answer::Refused) => false,
            (Route::Direct, Answer::Refused | Answer::Status(_)) => true,
            (Route::Through(_), Answer::Status(state)) => state.incarnation == self.incarnation,
        }
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::{Position, Term};

    use super::super::failover::{NodeState, Role};
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_millis(millis)
    }

    fn node(n: u8) -> Node {
        Node {
            incarnation: Incarnation::new(7),
            cluster_enabled: true,
            ..Node::new(NodeId::from_random([n; 20]))
        }
    }

    fn status(incarnation: u64) -> Answer {
        Answer::Status(NodeState {
            incarnation: Incarnation::new(incarnation),
            role: Role::Replica,
            term: Term::new(1),
            last: Position::ZERO,
            usable: true,
            leases: BTreeSet::new(),
            cut_off: false,
        })
    }

    /// Of one node, by sentinel 1 of three.
    fn begin() -> (Inquiry, Vec<Question>) {
        let (mut inquiry, mut out) = (Inquiry::default(), Vec::new());
        inquiry.begin(at(0), ANSWER_LIMIT, [&node(1)], [2, 3], &mut out);
        (inquiry, out)
    }

    fn tick(inquiry: &mut Inquiry, millis: u64) -> Vec<Route> {
        let mut out = Vec::new();
        inquiry.step(at(millis), Event::Tick, &mut out);
        out.into_iter().map(|question| question.route).collect()
    }

    fn answer(inquiry: &mut Inquiry, question: &Question, route: Route, answer: Answer) -> Vec<Route> {
        let mut out = Vec::new();
        let question = Question { route, ..question.clone() };
        inquiry.step(at(50), Event::Answered(question, answer), &mut out);
        out.into_iter().map(|question| question.route).collect()
    }

    fn answered(inquiry: &Inquiry) -> Option<&Answer> {
        inquiry.answers().values().next()
    }

    const OTHERS: [Route; 2] = [Route::Through(2), Route::Through(3)];

    #[test]
    fn a_nodes_own_answer_counts_whatever_it_is() {
        for own in [Answer::Refused, status(7), status(8)] {
            let (mut inquiry, out) = begin();
            assert_eq!(answer(&mut inquiry, &out[0], Route::Direct, own.clone()), []);
            assert_eq!((answered(&inquiry), inquiry.next_deadline()), (Some(&own), None));
        }
    }

    #[test]
    fn the_others_are_asked_soon_and_once() {
        let (mut inquiry, out) = begin();
        assert_eq!(inquiry.next_deadline(), Some(at(40)));
        assert_eq!(tick(&mut inquiry, 39), []);
        assert_eq!(tick(&mut inquiry, 40), OTHERS);
        assert_eq!(tick(&mut inquiry, 41), []);
        assert_eq!(inquiry.next_deadline(), Some(at(150)));
        assert_eq!(answer(&mut inquiry, &out[0], Route::Through(3), status(7)), []);
        assert_eq!(answered(&inquiry), Some(&status(7)));
    }

    #[test]
    fn a_connection_that_breaks_has_the_others_asked_at_once() {
        let (mut inquiry, out) = begin();
        assert_eq!(answer(&mut inquiry, &out[0], Route::Direct, Answer::Silent), OTHERS);
        for other in OTHERS {
            assert_eq!(answered(&inquiry), None);
            answer(&mut inquiry, &out[0], other, Answer::Silent);
        }
        assert_eq!(answered(&inquiry), Some(&Answer::Silent), "nobody is left who could have an answer");
    }

    #[test]
    fn only_the_status_of_the_process_that_is_meant_counts_through_others() {
        let (mut inquiry, out) = begin();
        tick(&mut inquiry, 40);
        answer(&mut inquiry, &out[0], Route::Through(2), Answer::Refused);
        answer(&mut inquiry, &out[0], Route::Through(3), status(8));
        assert_eq!(answered(&inquiry), None);
        assert_eq!(tick(&mut inquiry, 150), []);
        assert_eq!(answered(&inquiry), Some(&Answer::Silent));
    }

    #[test]
    fn an_answer_of_an_earlier_round_does_not_count() {
        let (mut inquiry, first) = begin();
        answer(&mut inquiry, &first[0], Route::Direct, Answer::Refused);
        let mut second = Vec::new();
        inquiry.begin(at(60), ANSWER_LIMIT, [&node(1)], [], &mut second);
        assert_eq!(answered(&inquiry), None);
        answer(&mut inquiry, &first[0], Route::Direct, Answer::Refused);
        assert_eq!(answered(&inquiry), None);
        answer(&mut inquiry, &second[0], Route::Direct, status(7));
        assert_eq!(answered(&inquiry), Some(&status(7)));
    }

    #[test]
    fn without_other_sentinels_only_the_node_is_asked() {
        let (mut inquiry, mut out) = (Inquiry::default(), Vec::new());
        inquiry.begin(at(0), ANSWER_LIMIT, [&node(1)], [], &mut out);
        assert_eq!(inquiry.next_deadline(), Some(at(150)));
        assert_eq!(answer(&mut inquiry, &out[0], Route::Direct, Answer::Silent), []);
        assert_eq!(answered(&inquiry), Some(&Answer::Silent));
    }
}
