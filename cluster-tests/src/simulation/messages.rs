//! What goes over the network on its own, and who it is for.

use std::sync::Arc;

use bytes::Bytes;
use keyward_proto::ids::{Incarnation, NodeId, Position, ShardId};
use keyward_proto::topology::Topology;
use keyward_replication::core::messages::{Event, Outcome as Answered, Request, RequestId};
use keyward_replication::core::node_core::RoleStatus;
use keyward_replication::core::requests;
use keyward_sentinel::rules::failover::{Answer, NodeState, Role};
use keyward_sentinel::rules::inquiry;

use super::clients::ConnectionId;
use super::connection::Arriving;
use super::network::{self, Endpoint};
use super::node::{Machine, Power};
use super::operations::Told;
use super::world::{SimEvent, World};
use super::{NODES, Nanos, SENTINELS};

/// What goes over the network on its own.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Register {
        node: usize,
        run: u64,
        last: Position,
        log_shard: Option<ShardId>,
        follows: Incarnation,
    },
    /// Nothing was done: the node is registered in another incarnation.
    RegisterAgain {
        run: u64,
        follows: Incarnation,
    },
    Registered {
        run: u64,
        incarnation: Incarnation,
        topology: Arc<Topology>,
    },
    /// On a stream that a process has opened: what comes too late for it is not for the next one.
    Topology {
        run: u64,
        topology: Arc<Topology>,
    },
    Ask {
        node: usize,
        run: u64,
        id: RequestId,
        request: Request,
        challenge: u64,
    },
    /// Nothing was done: the request is to be sent again with this number.
    Challenge {
        run: u64,
        id: RequestId,
        challenge: u64,
    },
    Answered {
        run: u64,
        id: RequestId,
        outcome: Answered,
        topology: Option<Arc<Topology>>,
    },
    Demand {
        reporter: NodeId,
    },
    /// A sentinel asks a node for its state.
    Question(Question),
    /// It asks another sentinel to ask.
    AskNode {
        node: usize,
        question: Question,
    },
    State {
        question: Question,
        node: usize,
        answer: Answer,
    },
    Command {
        client: usize,
        number: u64,
        /// The operation with which the client has opened the connection: this one, or one before.
        connection: ConnectionId,
        slot: usize,
        requests: Bytes,
    },
    Reply {
        number: u64,
        reply: Reply,
    },
}

/// What becomes of an operation.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Answered(Told, Afterwards),
    /// Nobody listens there.
    Refused,
    /// The connection was closed: nobody knows.
    Closed,
}

/// What becomes of a connection when an operation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Open,
    /// By the node.
    Closed,
}

/// What a sentinel asks a node for.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Who wants to know, and which of its processes.
    pub(super) sentinel: usize,
    pub(super) run: u64,
    pub(super) asking: Asking,
    pub(super) question: inquiry::Question,
}

/// Which of a sentinel's rules asks.
#[derive(Debug, Clone)]
pub(super) enum Asking {
    /// The watchdog.
    Probe,
    Coordinator(ShardId),
    /// By its number.
    Removal(u64),
}

/// What a node answers; as `wire::node_status` and `probe::report` translate it.
fn state_of(machine: &Machine, now: Nanos) -> Option<NodeState> {
    let process = machine.running()?;
    let status = process.core.status(machine.clock.read(now), &process.log());
    let (role, leases, cut_off) = match status.role {
        RoleStatus::None => (Role::None, Default::default(), false),
        RoleStatus::Primary { leases, .. } => (Role::Primary, leases.into_iter().collect(), false),
        RoleStatus::Replica { cut_off, .. } => (Role::Replica, Default::default(), cut_off),
    };
    Some(NodeState {
        incarnation: process.incarnation,
        role,
        term: status.term,
        last: status.last,
        usable: status.consistent,
        leases,
        cut_off,
    })
}

impl World {
    pub(super) fn send_message(&mut self, from: Endpoint, to: Endpoint, message: Message) {
        if let Message::Question(question) = &message
            && self.network.is_refused(from, to)
        {
            let (question, delay) = (question.clone(), self.latency());
            let message = Box::new(Message::State { question, node: to, answer: Answer::Refused });
            return self.at(delay, SimEvent::Deliver { from: to, to: from, message });
        }
        if self.network.is_cut(from, to) || self.is_lost() {
            return self.note_lost(&message);
        }
        let delay = self.latency();
        self.at(delay, SimEvent::Deliver { from, to, message: Box::new(message) });
    }

    /// Requests that may change who is in sync are counted while they are under way.
    fn note_lost(&mut self, message: &Message) {
        if let Message::Ask { .. } | Message::Demand { .. } = message {
            self.asks_under_way -= 1;
        }
    }

    pub(super) fn deliver(&mut self, from: Endpoint, to: Endpoint, message: Box<Message>) {
        let comes_from_the_way = matches!(&*message, Message::State { answer: Answer::Refused, .. })
            && self.network.is_refused(to, from);
        if self.network.is_cut(from, to) && !comes_from_the_way {
            return self.note_lost(&message);
        }
        let paused_until = match to {
            node if node < NODES => self.machines[node].paused_until,
            other if other < NODES + SENTINELS => self.sentinels[other - NODES].paused_until,
            _ => 0,
        };
        if self.now < paused_until {
            return self.at(paused_until - self.now, SimEvent::Deliver { from, to, message });
        }
        match *message {
            Message::Registered { run, incarnation, topology } => {
                self.registered(to, run, incarnation, topology)
            }
            Message::Topology { run, topology } => {
                if self.machines[to].run() == Some(run) {
                    self.machines[to].heard_of_sentinel = self.now;
                    self.step(to, run, Event::TopologyChanged(topology));
                }
            }
            Message::Answered { run, id, outcome, topology } => {
                let event = requests::Event::Answered(from - NODES, outcome);
                self.request_step(to, run, id, event, topology);
            }
            Message::Question(question) => self.asked_for_state(from, to, question),
            Message::AskNode { node, question } => self.asked_to_pass_on(to - NODES, node, question),
            Message::Command { client, number, connection, slot, requests } => {
                self.command(to, Arriving { client, number, connection, slot, requests });
            }
            Message::Reply { number, reply } => self.replied(to - network::client(0), number, reply),
            Message::Register { node, run, last, log_shard, follows } => {
                self.register_asked(to - NODES, node, run, last, log_shard, follows);
            }
            Message::RegisterAgain { run, follows } => self.register_again(to, from, run, follows),
            Message::Ask { node, run, id, request, challenge } => {
                self.asks_under_way -= 1;
                self.asked(to - NODES, node, run, id, request, challenge);
            }
            Message::Challenge { run, id, challenge } => self.challenged(to, from, run, id, challenge),
            Message::Demand { reporter } => {
                self.asks_under_way -= 1;
                self.demanded(to - NODES, reporter);
            }
            Message::State { question, node, answer } => {
                self.state_told(to - NODES, node, question, answer);
            }
        }
    }

    fn asked_for_state(&mut self, from: Endpoint, node: usize, question: Question) {
        let machine = &self.machines[node];
        let answer = match &machine.power {
            Power::On(_) => state_of(machine, self.now).map(Answer::Status),
            Power::Off { has_power: true } => Some(Answer::Refused),
            Power::Starting(_) | Power::Off { has_power: false } => None,
        };
        if let Some(answer) = answer {
            self.send_message(node, from, Message::State { question, node, answer });
        }
    }
}
