//! What a node asks the sentinels for: the rules are the real ones, the messages are the simulated network's.

use std::sync::Arc;

use keyward_proto::topology::Topology;
use keyward_replication::core::messages::{Event, Outcome, Request, RequestId};
use keyward_replication::core::requests::{self, Action, Basis, Kind, PendingRequest};

use super::Asked;
use crate::simulation::messages::Message;
use crate::simulation::network::Endpoint;
use crate::simulation::world::{SimEvent, World};
use crate::simulation::{Nanos, WAIT_MIN, network};

impl World {
    pub(super) fn begin_request(&mut self, node: usize, run: u64, id: RequestId, request: Request) {
        let (now, limit, machine) = (self.now, self.request_limit, &mut self.machines[node]);
        let (clock, kind, mut actions) = (machine.clock.read(now), Kind::of(&request), Vec::new());
        let pending = PendingRequest::begin(clock, kind, &machine.rotation, limit, &mut actions);
        machine.asked.insert(id, Asked { request, pending });
        self.act_for_request(node, run, id, actions, None);
    }

    /// The topology is what came with an answer.
    pub(in crate::simulation) fn request_step(
        &mut self,
        node: usize,
        run: u64,
        id: RequestId,
        event: requests::Event,
        topology: Option<Arc<Topology>>,
    ) {
        let (now, machine) = (self.now, &mut self.machines[node]);
        if machine.run() != Some(run) {
            return;
        }
        if now < machine.paused_until {
            let wait = machine.paused_until - now;
            return self.at(wait, SimEvent::RequestTick { node, run, id });
        }
        let clock = machine.clock.read(now);
        let known = machine.running().map(|process| process.core.topology().version);
        let Some(asked) = machine.asked.get_mut(&id) else { return };
        let event = match event {
            requests::Event::Answered(sentinel, outcome) => {
                let answered = topology.as_ref().map(|topology| topology.version);
                let outcome = Basis::of(answered, known).weigh(outcome);
                match outcome {
                    Outcome::Unknown => machine.rotation.leave(sentinel),
                    _ => machine.rotation.prefer(sentinel),
                }
                requests::Event::Answered(sentinel, outcome)
            }
            requests::Event::Tick => requests::Event::Tick,
        };
        let mut actions = Vec::new();
        asked.pending.step(clock, event, &mut actions);
        self.act_for_request(node, run, id, actions, topology);
    }

    /// The number is sent back at once: nothing was done before that.
    pub(in crate::simulation) fn challenged(
        &mut self,
        node: usize,
        sentinel: Endpoint,
        run: u64,
        id: RequestId,
        challenge: u64,
    ) {
        let machine = &self.machines[node];
        let Some(asked) = machine.asked.get(&id).filter(|_| machine.run() == Some(run)) else { return };
        let request = asked.request.clone();
        self.asks_under_way += 1;
        self.send_message(node, sentinel, Message::Ask { node, run, id, request, challenge });
    }

    fn act_for_request(
        &mut self,
        node: usize,
        run: u64,
        id: RequestId,
        actions: Vec<Action>,
        topology: Option<Arc<Topology>>,
    ) {
        let mut topology = topology;
        for action in actions {
            match action {
                Action::Ask(sentinel) => {
                    let request = self.machines[node].asked[&id].request.clone();
                    self.asks_under_way += 1;
                    let message = Message::Ask { node, run, id, request, challenge: 0 };
                    self.send_message(node, network::sentinel(sentinel), message);
                }
                Action::GiveUp(sentinel) => self.machines[node].rotation.leave(sentinel),
                Action::Settle(outcome) => {
                    self.machines[node].asked.remove(&id);
                    if let Some(topology) = topology.take().filter(|_| outcome != Outcome::Unknown) {
                        self.step(node, run, Event::TopologyChanged(topology));
                    }
                    self.step(node, run, Event::RequestAnswered(id, outcome));
                }
            }
        }
        let (now, machine) = (self.now, &self.machines[node]);
        let deadline = machine.asked.get(&id).and_then(|asked| asked.pending.next_deadline());
        if let Some(deadline) = deadline {
            let wait = Nanos::try_from(deadline.since(machine.clock.read(now)).as_nanos()).expect("soon");
            self.at(wait.max(WAIT_MIN), SimEvent::RequestTick { node, run, id });
        }
    }
}
