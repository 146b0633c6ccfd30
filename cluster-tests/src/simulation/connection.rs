//! A node's end of a client's connection, as `io/connection.rs` of `keyward-node` without the socket: batches are executed,
//! replies held in the [`ReplyQueue`], and requests that have to wait tried again. The executor, the queue and how a wait
//! ends are the real ones.

use bytes::Bytes;
use keyward_node::blocking::{Blocked, Ending, Look, Served};
use keyward_node::execute::{Patience, Stop};
use keyward_node::io::session::Session;
use keyward_proto::ids::Position;
use keyward_proto::resp::{Batch, Limits, Output, RequestReader};
use keyward_replication::gate::GateState;
use keyward_replication::reply::{OutcomeUnknown, ReplyCondition, ReplyQueue};
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
/// How long it waits for that, as `grace`.
const STALL_MAX: Nanos = ms(500);

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
    held: ReplyQueue<Output>,
    /// Replies that have left.
    sent: Vec<u8>,
    blocked: Option<Blocked>,
    /// Since when its first request may not execute.
    stalled_at: Option<Nanos>,
    /// What the replies have to show of the slot's history, and what they do.
    expected: Expectation,
    seen: Position,
}

impl Connection {
    pub(super) fn is_idle(&self) -> bool {
        self.executed.is_empty() && self.held.is_empty()
    }

    /// All that there was to execute is executed, and all replies have left.
    fn is_complete(&self) -> bool {
        self.input.is_empty() && self.blocked.is_none() && self.is_idle()
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
        self.execute(node, number);
    }

    fn execute(&mut self, node: usize, number: u64) {
        let now = self.now;
        let Some(process) = self.machines[node].process() else { return };
        let run = process.run;
        let Some(connection) = process.connections.get_mut(&number) else { return };
        let waited = connection.stalled_at.map_or(0, |since| now - since);
        let patience = if waited < STALL_MAX { Patience::Left } else { Patience::Exhausted };
        let expected = self.invariants.expectation(connection.slot);
        let process = self.machines[node].process().expect("it runs");
        match process.execute(number, patience, Late::No) {
            None => {}
            Some(Stop::NotNow) => {
                let connection = process.connections.get_mut(&number).expect("it is there");
                connection.stalled_at.get_or_insert(now);
                self.at(STALL, SimEvent::Retry { node, run, number });
                return;
            }
            Some(Stop::Blocked(blocked, timeout)) => {
                let connection = process.connections.get_mut(&number).expect("it is there");
                connection.blocked = Some(blocked);
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
            let Some(blocked) = &connection.blocked else { continue };
            if let Some(Ending::Served(reply)) = blocked.end(Look::Woken, state) {
                served.push((*waiting, reply));
            }
        }
        for (waiting, Served { reply, condition }) in served {
            let log = process.log();
            let index = condition.depends_on();
            let position = Position { term: log.term_at(index).expect("just appended"), index };
            drop(log);
            self.invariants.belongs_to(position, waiting);
            let connection = process.connections.get_mut(&waiting).expect("it waits");
            (connection.blocked, connection.seen) = (None, after);
            connection.expected = self.invariants.expectation(connection.slot);
            connection.executed.push((condition, reply));
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
        let stop = process.execute(number, Patience::Left, Late::Yes);
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
        let waiting: Vec<u64> =
            process.connections.iter().filter(|(_, c)| c.blocked.is_some()).map(|(n, _)| *n).collect();
        waiting.into_iter().for_each(|number| process.look_at_wait(number, Look::Woken));
        let Process { connections, server, .. } = process;
        let gate = &server.shared.gate;
        let term = gate.term();
        let mut ended = Vec::new();
        for (number, connection) in connections.iter_mut() {
            for (condition, reply) in connection.executed.drain(..) {
                connection.held.hold(condition.observed(gate, || clock), reply);
            }
            let sent = &mut connection.sent;
            let released = connection.held.release(gate, || clock, |reply| sent.extend(reply.to_vec()));
            if let Err(OutcomeUnknown) = released {
                ended.push((*number, Err(OutcomeUnknown)));
            } else if connection.is_complete() {
                ended.push((*number, Ok(())));
            }
        }
        for (number, outcome) in ended {
            let process = self.machines[node].process().expect("it runs");
            let Some(connection) = process.disconnect(number) else { continue };
            let Connection { client, slot, sent, expected, seen, .. } = connection;
            let reply = match outcome {
                Ok(()) => {
                    let told = self.history[usize::try_from(number).expect("few")].operation.told(&sent);
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
            session: Session::new(client_of_server, true),
            input: requests,
            executed: Vec::new(),
            held: ReplyQueue::default(),
            sent: Vec::new(),
            blocked: None,
            stalled_at: None,
            expected,
            seen: Position::default(),
        }
    }

    fn disconnect(&mut self, number: u64) -> Option<Connection> {
        let mut connection = self.connections.remove(&number)?;
        if let Some(blocked) = &connection.blocked {
            blocked.waiter.give_up();
            self.executor.forget_waiter(&blocked.waiter);
        }
        self.executor.end_session(&mut connection.session);
        self.server.clients.remove(connection.session.client.id);
        Some(connection)
    }

    /// Executes what there is to execute; why it stopped before the end.
    fn execute(&mut self, number: u64, patience: Patience, late: Late) -> Option<Stop> {
        let connection = self.connections.get_mut(&number).expect("it is there");
        let input = connection.input.clone();
        let (mut batch, mut out) = (Batch::default(), Output::default());
        let (_, parsed) = RequestReader::default().parse(&input, &Limits::default(), usize::MAX, &mut batch);
        assert!(parsed.is_ok(), "clients write RESP");
        let mut next = 0;
        let mut stop = None;
        while next < batch.len() && stop.is_none() {
            let session = &mut connection.session;
            let end = match late {
                Late::No => self.executor.run_batch(session, &batch, &input, next, patience, &mut out),
                Late::Yes => self.executor.run_admitted(self.open, session, &batch, &input, &mut out),
            };
            if end.appended {
                self.server.shared.notify_appended();
            }
            if next < end.next {
                connection.stalled_at = None;
            }
            next = end.next;
            if !out.is_empty() {
                connection.executed.push((end.condition, out.split()));
            }
            stop = end.stop;
            if let Some(Stop::Blocked(blocked, _)) = &mut stop {
                let clock = &self.server.clock;
                let condition = end.condition.observed(&self.server.shared.gate, || clock.monotonic());
                blocked.found_nothing_under(condition);
            }
        }
        connection.input =
            if next < batch.len() { input.slice(batch.bounds(next).0..) } else { Bytes::new() };
        stop
    }

    /// Ends a wait if it is over. Who was served has been seen to by whoever has served it.
    fn look_at_wait(&mut self, number: u64, look: Look) {
        let state = self.server.shared.gate.state();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Some(blocked) = &connection.blocked else { return };
        let Some(ending) = blocked.end(look, state) else { return };
        self.executor.forget_waiter(&blocked.waiter);
        connection.blocked = None;
        match ending {
            Ending::Served(_) => panic!("it was served by nobody"),
            Ending::Nothing(Served { reply, condition }) => connection.held.hold(condition, reply),
            Ending::Unblocked(error) | Ending::Demoted(error) => {
                let mut reply = Output::default();
                reply.writer(connection.session.version).error(error);
                connection.held.hold(ReplyCondition::default(), reply);
            }
        }
    }
}
