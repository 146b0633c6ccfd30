//! A node's end of a client's connection, as `io/connection.rs` of `keyward-node` without the socket: batches are executed,
//! replies held in the [`Outbox`], and requests that have to wait tried again. The executor, the outbox, how long a
//! request waits and how a wait ends are the real ones.

use std::time::Duration;

use bytes::Bytes;
use keyward_node::blocking::{Ending, Look, Served};
use keyward_node::execute::Stop;
use keyward_node::io::outbox::Outbox;
use keyward_node::io::session::Session;
use keyward_node::io::wait::{Answer, GatePatience, Outcome, Surroundings, Wait};
use keyward_proto::ids::Position;
use keyward_proto::resp::{Batch, Limits, Output, RequestReader};
use keyward_replication::gate::GateState;
use keyward_replication::reply::{OutcomeUnknown, ReplyCondition};
use rand::Rng;

use super::invariants::Expectation;
use super::messages::Reply;
use super::node::Process;
use super::operations::{Operation, Told};
use super::story::detail;
use super::world::{SimEvent, World};
use super::{CLIENTS, FAULTS_END, Nanos, ms};

/// A command that may not execute now is tried again after this; the gate may have changed.
const STALL: Nanos = ms(10);
/// How long it waits for that.
const GRACE: Duration = Duration::from_millis(500);

/// One operation of a client.
#[derive(Debug)]
pub(super) struct Connection {
    client: usize,
    slot: usize,
    session: Session,
    /// Requests that are not executed yet.
    input: Bytes,
    /// Executed, and the lease not yet looked at: the process may stand still in between.
    executed: Vec<(ReplyCondition, Output)>,
    /// What is ready in it has left.
    outbox: Outbox,
    wait: Option<Wait>,
    patience: GatePatience,
    /// What the replies have to show of the slot's history, and what they do.
    expected: Expectation,
    seen: Position,
}

impl Connection {
    pub(super) fn is_idle(&self) -> bool {
        self.executed.is_empty() && !self.outbox.holds()
    }

    /// All that there was to execute is executed, and all replies have left.
    fn is_complete(&self) -> bool {
        self.input.is_empty() && self.wait.is_none() && self.is_idle()
    }

    /// A wait has ended.
    fn answer(&mut self, answer: Answer) {
        let (reply, _) = answer.into_reply(&mut self.session);
        self.executed.extend(reply.map(|Served { reply, condition }| (condition, reply)));
    }
}

impl World {
    /// Requests have arrived.
    pub(super) fn command(&mut self, node: usize, client: usize, number: u64, slot: usize, requests: Bytes) {
        let expected = self.invariants.expectation(slot);
        let has_power = self.machines[node].has_power();
        let Some(process) = self.machines[node].process() else {
            if has_power {
                self.reply(node, client, number, Reply::Refused);
            }
            return;
        };
        let connection = process.connect(client, slot, requests, expected);
        process.connections.insert(number, connection);
        self.execute(node, number);
    }

    /// A request that could not be executed is tried again.
    pub(super) fn retry(&mut self, node: usize, run: u64, number: u64) {
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        if machine.process().is_none_or(|p| p.run != run || !p.connections.contains_key(&number)) {
            return;
        }
        if self.now < paused_until {
            return self.at(paused_until - self.now, SimEvent::Retry { node, run, number });
        }
        if let Some(process) = machine.process() {
            process.look_at_gate(number);
        }
        self.execute(node, number);
    }

    fn execute(&mut self, node: usize, number: u64) {
        let now = self.now;
        let Some(process) = self.machines[node].process() else { return };
        let run = process.run;
        let Some(connection) = process.connections.get(&number) else { return };
        let expected = self.invariants.expectation(connection.slot);
        let process = self.machines[node].process().expect("it runs");
        match process.execute(number, Late::No) {
            None => {}
            Some(Stop::NotNow) => return self.at(STALL, SimEvent::Retry { node, run, number }),
            Some(Stop::Blocked(blocked, timeout)) => {
                let connection = process.connections.get_mut(&number).expect("it is there");
                connection.wait = Some(Wait::Keys(blocked));
                let timeout = timeout.expect("no client waits for ever");
                let timeout = Nanos::try_from(timeout.as_nanos()).expect("soon");
                self.at(timeout, SimEvent::WaitTimeout { node, run, number });
            }
            Some(stop) => panic!("no operation stops with {stop:?}"),
        }
        let connection = self.machines[node].process().expect("it runs").connections.get_mut(&number);
        connection.expect("it is there").expected = expected;
        self.executed(node, number);
        if now < FAULTS_END && self.rng.random_bool(0.001) {
            // The process stands still between execution and reply.
            let pause = self.rng.random_range(ms(1)..ms(1500));
            self.pause_node(node, pause);
            return;
        }
        self.after_step(node);
    }

    /// Notes whose the entries are that have just been appended, and ends the waits of clients that were served.
    fn executed(&mut self, node: usize, number: u64) {
        self.watch(node);
        let process = self.machines[node].process().expect("it runs");
        let after = process.log().last();
        let state = process.gate().state();
        let mut served = Vec::new();
        for (waiting, connection) in &mut process.connections {
            let Some(Wait::Keys(blocked)) = &connection.wait else { continue };
            if let Some(Ending::Served(reply)) = blocked.end(Look::Woken, state) {
                served.push((*waiting, reply));
            }
        }
        for (waiting, reply) in served {
            let log = process.log();
            let index = reply.condition.depends_on();
            let position = Position { term: log.term_at(index).expect("just appended"), index };
            drop(log);
            self.invariants.belongs_to(position, waiting);
            let connection = process.connections.get_mut(&waiting).expect("it waits");
            (connection.wait, connection.seen) = (None, after);
            connection.expected = self.invariants.expectation(connection.slot);
            connection.answer(Answer::Keys(Ending::Served(reply)));
        }
        let connection = process.connections.get_mut(&number).expect("it is there");
        connection.seen = after;
        detail!("node {node} has executed {number}, seen {after}, waiting {:?}", connection.executed);
        self.invariants.rest_belongs_to(number);
    }

    /// Nothing has come for a client that waits.
    pub(super) fn wait_timeout(&mut self, node: usize, run: u64, number: u64) {
        let machine = &mut self.machines[node];
        let paused_until = machine.paused_until;
        let Some(process) = machine.process().filter(|p| p.run == run) else { return };
        if self.now < paused_until {
            return self.at(paused_until - self.now, SimEvent::WaitTimeout { node, run, number });
        }
        process.look_at_wait(number, Look::TimeIsUp);
        self.after_step(node);
    }

    /// A command that was admitted before the gate closed.
    pub(super) fn late_write(&mut self, node: usize) {
        let Some(process) = self.machines[node].process() else { return };
        assert_ne!(
            process.gate().state(),
            GateState::Primary,
            "the gate is closed before the threads are waited for"
        );
        if process.log().last().term != process.gate().term() {
            return;
        }
        let number = self.next_number();
        let operation = Operation::append(number);
        let requests = operation.requests(0);
        self.note(CLIENTS, 0, operation);
        let expected = self.invariants.expectation(0);
        let process = self.machines[node].process().expect("it runs");
        let connection = process.connect(CLIENTS, 0, requests, expected);
        process.connections.insert(number, connection);
        // Nobody waits for the reply, but it may leave.
        let stop = process.execute(number, Late::Yes);
        assert!(stop.is_none(), "it was admitted");
        self.executed(node, number);
    }

    pub(super) fn release_replies(&mut self, node: usize) {
        let now = self.now;
        let clock = self.machines[node].clock.read(now);
        let Some(process) = self.machines[node].process() else { return };
        if process.connections.is_empty() {
            return;
        }
        let waits = |connection: &Connection| matches!(connection.wait, Some(Wait::Keys(_)));
        let waiting: Vec<u64> =
            process.connections.iter().filter(|(_, c)| waits(c)).map(|(n, _)| *n).collect();
        waiting.into_iter().for_each(|number| process.look_at_wait(number, Look::Woken));
        let Process { connections, server, .. } = process;
        let gate = &server.shared.gate;
        let term = gate.term();
        let mut ended = Vec::new();
        for (number, connection) in connections.iter_mut() {
            for (condition, mut reply) in connection.executed.drain(..) {
                let condition = condition.observed(gate, || clock);
                connection.outbox.put_under(condition, gate, || clock, |out| out.append(&mut reply));
            }
            if let Err(OutcomeUnknown) = connection.outbox.release(gate, || clock) {
                ended.push((*number, Err(OutcomeUnknown)));
            } else if connection.is_complete() {
                ended.push((*number, Ok(())));
            }
        }
        for (number, outcome) in ended {
            let process = self.machines[node].process().expect("it runs");
            let Some(connection) = process.disconnect(number) else { continue };
            let Connection { client, slot, outbox, expected, seen, .. } = connection;
            let reply = match outcome {
                Ok(()) => {
                    let told = self.history[usize::try_from(number).expect("few")]
                        .operation
                        .told(&outbox.ready.to_vec());
                    if matches!(told, Told::Answers(_)) {
                        let id = &self.machines[node].id;
                        self.invariants.reply_leaves(node, id, term, slot, expected, seen);
                    }
                    Reply::Answered(told)
                }
                Err(OutcomeUnknown) => Reply::Closed,
            };
            detail!("node {node} answers {number}: {reply:?}");
            self.reply(node, client, number, reply);
        }
    }
}

/// Whether requests were admitted before the gate closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    No,
    Yes,
}

impl Process {
    fn connect(&self, client: usize, slot: usize, requests: Bytes, expected: Expectation) -> Connection {
        let address = || format!("client-{client}:1");
        let now = self.server.clock.monotonic();
        let client_of_server = self.server.clients.add(address(), address(), now);
        Connection {
            client,
            slot,
            session: Session::new(client_of_server),
            input: requests,
            executed: Vec::new(),
            outbox: Outbox::default(),
            wait: None,
            patience: GatePatience::default(),
            expected,
            seen: Position::default(),
        }
    }

    fn disconnect(&mut self, number: u64) -> Option<Connection> {
        let mut connection = self.connections.remove(&number)?;
        if let Some(Wait::Keys(blocked)) = &connection.wait {
            blocked.waiter.give_up();
            self.executor.forget_waiter(&blocked.waiter);
        }
        self.executor.end_session(&mut connection.session);
        self.server.clients.remove(connection.session.client.id);
        Some(connection)
    }

    /// Executes what there is to execute; why it stopped before the end.
    fn execute(&mut self, number: u64, late: Late) -> Option<Stop> {
        let connection = self.connections.get_mut(&number).expect("it is there");
        let input = connection.input.clone();
        let (mut batch, mut out) = (Batch::default(), Output::default());
        let (_, parsed) = RequestReader::default().parse(&input, &Limits::default(), usize::MAX, &mut batch);
        assert!(parsed.is_ok(), "clients write RESP");
        let mut next = 0;
        let mut stop = None;
        while next < batch.len() && stop.is_none() {
            let session = &mut connection.session;
            let patience = connection.patience.take();
            let end = match late {
                Late::No => self.executor.run_batch(session, &batch, &input, next, patience, &mut out),
                Late::Yes => self.executor.run_admitted(self.open, session, &batch, &input, &mut out),
            };
            if end.appended {
                self.server.shared.notify_appended();
            }
            connection.patience.note(next, &end);
            next = end.next;
            if !out.is_empty() {
                connection.executed.push((end.condition, out.split()));
            }
            stop = end.stop;
            let clock = &self.server.clock;
            match &mut stop {
                Some(Stop::Blocked(blocked, _)) => {
                    let condition = end.condition.observed(&self.server.shared.gate, || clock.monotonic());
                    blocked.found_nothing_under(condition);
                }
                Some(Stop::NotNow) => {
                    connection.patience.left(clock.monotonic(), GRACE);
                    connection.wait = Some(Wait::Gate { seen: 0 });
                }
                _ => {}
            }
        }
        connection.input = input.slice(batch.start_of(next)..);
        stop
    }

    /// A request has waited for the gate: it is tried again, as if the gate had changed.
    fn look_at_gate(&mut self, number: u64) {
        let now = self.server.clock.monotonic();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let is_exhausted = connection.patience.left(now, GRACE).is_zero();
        self.look_at_wait(number, if is_exhausted { Look::TimeIsUp } else { Look::Woken });
    }

    /// Ends a wait if it is over. Who was served has been seen to by whoever has served it.
    fn look_at_wait(&mut self, number: u64, look: Look) {
        let Process { server, connections, executor, .. } = self;
        let Some(connection) = connections.get_mut(&number) else { return };
        let Some(wait) = &connection.wait else { return };
        let around = Surroundings {
            gate_events: 1,
            state: server.shared.gate.state(),
            pause: &server.pause,
            replicas_holding: &|index| server.replicas_holding(index) as u64,
            now: &|| server.clock.monotonic(),
        };
        match wait.look(look, &around) {
            Outcome::Waits => return,
            Outcome::Retry(patience) => connection.patience.retry(patience),
            Outcome::Answer(Answer::Keys(Ending::Served(_))) => panic!("it was served by nobody"),
            Outcome::Answer(answer) => {
                if let Wait::Keys(blocked) = wait {
                    executor.forget_waiter(&blocked.waiter);
                }
                connection.answer(answer);
            }
            Outcome::WaitsFor(_) => panic!("no operation waits for replicas"),
        }
        connection.wait = None;
    }
}
