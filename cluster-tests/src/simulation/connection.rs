//! A node's end of a client's connection, as `io/connection.rs` of `keyward-node` without the socket: batches are executed,
//! replies held in the [`Outbox`], and requests that have to wait tried again. The executor, the outbox, how long a
//! request waits and how a wait ends are the real ones.

use std::time::Duration;

use bytes::Bytes;
use keyward_node::blocking::{Ending, Look, Served};
use keyward_node::execute::{Moment, Stop};
use keyward_node::io::outbox::Outbox;
use keyward_node::io::session::Session;
use keyward_node::io::wait::{self, Answer, GatePatience, Outcome, Surroundings, Wait};
use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::resp::{Batch, Limits, Output, RequestReader};
use keyward_proto::topology::Transport;
use keyward_replication::gate::GateState;
use keyward_replication::reply::{OutcomeUnknown, ReplyCondition};
use rand::Rng;

use super::clients::ConnectionId;
use super::invariants::Expectation;
use super::keyspace::SLOTS;
use super::messages::{Afterwards, Reply};
use super::node::{Mode, Process};
use super::operations::{Operation, Told};
use super::story::detail;
use super::world::{SimEvent, World};
use super::{CLIENTS, FAULTS_END, Nanos, ms};

/// A command that may not execute now is tried again after this; the gate may have changed.
const STALL: Nanos = ms(10);
/// How long it waits for that.
const GRACE: Duration = Duration::from_millis(500);

/// Requests of a client that have arrived at a node.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) client: usize,
    pub(super) number: u64,
    pub(super) connection: ConnectionId,
    pub(super) slot: usize,
    pub(super) requests: Bytes,
}

/// One operation of a client.
#[derive(Debug)]
pub(super) struct Connection {
    client: usize,
    /// `None`: nobody uses it again.
    id: Option<ConnectionId>,
    slot: usize,
    /// Any node may answer.
    reads_anywhere: bool,
    session: Session,
    /// Requests that are not executed yet.
    input: Bytes,
    /// Executed, and the lease not yet looked at: the process may stand still in between.
    executed: Vec<(ReplyCondition, Output)>,
    /// What is ready in it has left.
    outbox: Outbox,
    wait: Option<Wait>,
    patience: GatePatience,
    /// The node closes it when all replies have left.
    closing: bool,
    /// What the replies have to show of the slot's history, and what they do.
    expected: Expectation,
    seen: Position,
}

impl Connection {
    pub(super) fn is_idle(&self) -> bool {
        self.executed.is_empty() && !self.outbox.holds()
    }

    /// The generation in which its wait for a key began, if it waits.
    pub(super) fn waits_since(&self) -> Option<u64> {
        match &self.wait {
            Some(Wait::Keys(blocked)) => Some(blocked.generation()),
            _ => None,
        }
    }

    /// The slot of the queue for which it waits.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// All that there was to execute is executed, and all replies have left.
    fn is_complete(&self) -> bool {
        self.input.is_empty() && self.wait.is_none() && self.is_idle()
    }

    /// A wait has ended.
    fn answer(&mut self, answer: Answer) {
        let (reply, afterwards) = answer.into_reply(&mut self.session);
        self.executed.extend(reply.map(|Served { reply, condition, .. }| (condition, reply)));
        if afterwards == wait::Afterwards::Closes {
            (self.closing, self.input) = (true, Bytes::new());
        }
    }
}

impl World {
    /// Requests have arrived.
    pub(super) fn command(&mut self, node: usize, arriving: Arriving) {
        let Arriving { client, number, connection, slot, requests } = arriving;
        let expected = self.invariants.expectation(slot);
        let has_power = self.machines[node].has_power();
        let operation = &self.history[usize::try_from(number).expect("few")].operation;
        let (opens, reads_anywhere) = (connection == number, operation.is_for_any_node());
        let asks_for_role = self.mode == Mode::Sentinels && !reads_anywhere;
        let session = match self.machines[node].process() {
            None if !has_power => return,
            None => Err(Reply::Refused),
            Some(process) if opens && asks_for_role && !process.is_called_primary() => Err(Reply::Refused),
            Some(process) if opens => Ok(process.new_session(client)),
            Some(process) => process.sessions.remove(&connection).ok_or(Reply::Closed),
        };
        let session = match session {
            Ok(session) => session,
            Err(reply) => return self.reply(node, client, number, reply),
        };
        let connection = Connection {
            id: Some(connection),
            reads_anywhere,
            ..Connection::new(client, session, slot, requests, expected)
        };
        let process = self.machines[node].process().expect("it runs");
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
        match process.execute(number, None) {
            None => {}
            Some(Stop::Close) => {
                let connection = process.connections.get_mut(&number).expect("it is there");
                (connection.closing, connection.input) = (true, Bytes::new());
            }
            Some(Stop::NotNow) => return self.at(STALL, SimEvent::Retry { node, run, number }),
            Some(Stop::Blocked(blocked, timeout)) => {
                let connection = process.connections.get_mut(&number).expect("it is there");
                connection.wait = Some(Wait::Keys(blocked));
                // What may have happened between the check and now is looked at once more.
                process.look_at_wait(number, Look::Woken);
                if let Some(timeout) = timeout {
                    let timeout = Nanos::try_from(timeout.as_nanos()).expect("soon");
                    self.at(timeout, SimEvent::WaitTimeout { node, run, number });
                }
            }
            Some(stop) => panic!("no operation stops with {stop:?}"),
        }
        let connection = self.machines[node].process().expect("it runs").connections.get_mut(&number);
        connection.expect("it is there").expected = expected;
        self.executed(node, number);
        if now < FAULTS_END && self.standing.is_none() && self.rng.random_bool(0.001) {
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
        let gate = &process.server.shared.gate;
        let mut served = Vec::new();
        // Who was served has changed something that whoever served it has not seen.
        let mut seen = after;
        for (waiting, connection) in &mut process.connections {
            let Some(Wait::Keys(blocked)) = &connection.wait else { continue };
            // Those of an ended generation are woken by its end.
            if blocked.generation() == gate.generation()
                && let Some(Ending::Served(reply)) = blocked.end(Look::Woken, gate)
            {
                served.push((*waiting, reply));
            }
        }
        for (waiting, reply) in served {
            let log = process.log();
            let index = reply.condition.depends_on();
            let position = Position { term: log.term_at(index).expect("just appended"), index };
            let before = LogIndex::new(index.get() - 1);
            if before < seen.index {
                seen = Position { term: log.term_at(before).expect("just appended"), index: before };
            }
            drop(log);
            self.invariants.belongs_to(position, waiting);
            let connection = process.connections.get_mut(&waiting).expect("it waits");
            (connection.wait, connection.seen) = (None, position);
            connection.expected = self.invariants.expectation(connection.slot);
            connection.answer(Answer::Keys(Ending::Served(reply)));
        }
        let executed = process.server.executed_position();
        let connection = process.connections.get_mut(&number).expect("it is there");
        connection.seen = if connection.reads_anywhere { executed } else { seen };
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
    pub(super) fn late_write(&mut self, node: usize, run: u64) {
        let (now, paused_until) = (self.now, self.machines[node].paused_until);
        let Some(process) = self.machines[node].process().filter(|p| p.run == run) else { return };
        if now < paused_until {
            process.commands_until = paused_until;
            return self.at(paused_until - now, SimEvent::LateWrite { node, run });
        }
        if process.log().last().term != process.gate().term() {
            return;
        }
        let number = self.next_number();
        let operation = Operation::append(number);
        let requests = operation.requests(0);
        self.note(CLIENTS, 0, operation);
        let expected = self.invariants.expectation(0);
        let process = self.machines[node].process().expect("it runs");
        let session = process.new_session(CLIENTS);
        let connection = Connection::new(CLIENTS, session, 0, requests, expected);
        process.connections.insert(number, connection);
        // Nobody waits for the reply, but it may leave.
        let stop = process.execute(number, Some(process.open));
        assert!(stop.is_none(), "it was admitted");
        self.executed(node, number);
        self.after_step(node);
    }

    /// A read that was admitted when the node was a replica; it may have become the primary meanwhile.
    pub(super) fn late_read(&mut self, node: usize, run: u64) {
        let Some(process) = self.machines[node].process().filter(|p| p.run == run) else { return };
        let moment = process.followed;
        if !moment.is_of(process.gate()) {
            return;
        }
        let number = self.read_for_nobody(node);
        let process = self.machines[node].process().expect("it runs");
        let stop = process.execute(number, Some(moment));
        assert!(stop.is_none(), "it was admitted");
        self.executed(node, number);
        self.after_step(node);
    }

    /// Somebody looks at once at what has become of a primary.
    pub(super) fn curious_read(&mut self, node: usize, run: u64) {
        let machine = &mut self.machines[node];
        let stands_still = self.now < machine.paused_until;
        if machine.process().is_some_and(|p| p.run == run) && !stands_still {
            let number = self.read_for_nobody(node);
            self.execute(node, number);
        }
    }

    /// A read at any node, of which only the invariants look at the reply.
    fn read_for_nobody(&mut self, node: usize) -> u64 {
        let (number, slot) = (self.next_number(), self.rng.random_range(0..SLOTS));
        let operation = Operation::read_one_anywhere(&mut self.rng);
        let requests = operation.requests(slot);
        self.note(CLIENTS, slot, operation);
        let expected = self.invariants.expectation(slot);
        let process = self.machines[node].process().expect("it runs");
        let session = process.new_session(CLIENTS);
        let connection = Connection {
            reads_anywhere: true,
            ..Connection::new(CLIENTS, session, slot, requests, expected)
        };
        process.connections.insert(number, connection);
        number
    }

    /// What connections do when the gate has changed.
    fn wake_connections(&mut self, node: usize) {
        let Some(process) = self.machines[node].process() else { return };
        let gate = &process.server.shared.gate;
        let (generation, ended_terms) = (gate.generation(), gate.ended_terms());
        if std::mem::replace(&mut process.woken_in, generation) != generation {
            let waiting = process.connections.iter().filter(|(_, c)| c.waits_since().is_some());
            let waiting: Vec<u64> = waiting.map(|(number, _)| *number).collect();
            waiting.into_iter().for_each(|number| process.look_at_wait(number, Look::Woken));
        }
        if std::mem::replace(&mut process.told_of_terms, ended_terms) != ended_terms {
            // Some have sent something before they were told.
            let Process { sessions, executor, .. } = process;
            let rng = &mut self.rng;
            sessions.retain(|_, session| !executor.sends_away(session) || rng.random_bool(0.5));
        }
    }

    pub(super) fn release_replies(&mut self, node: usize) {
        self.wake_connections(node);
        let now = self.now;
        let clock = self.machines[node].clock.read(now);
        let Some(process) = self.machines[node].process() else { return };
        if process.connections.is_empty() {
            return;
        }
        let Process { connections, server, .. } = process;
        let gate = &server.shared.gate;
        let (term, gates_nothing) = (gate.term(), gate.auto_commits());
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
            let Some(connection) = process.connections.remove(&number) else { continue };
            let afterwards = match outcome {
                Ok(()) if !connection.closing && !process.executor.sends_away(&connection.session) => {
                    Afterwards::Open
                }
                Ok(()) | Err(OutcomeUnknown) => Afterwards::Closed,
            };
            let Connection {
                client,
                id,
                slot,
                outbox,
                expected,
                seen,
                reads_anywhere,
                mut session,
                wait,
                ..
            } = connection;
            if let Some(Wait::Keys(blocked)) = &wait {
                blocked.waiter.give_up();
                process.executor.forget_waiter(&blocked.waiter);
            }
            match id.filter(|_| afterwards == Afterwards::Open) {
                Some(id) => drop(process.sessions.insert(id, session)),
                None => process.end_session(&mut session),
            }
            let reply = match outcome {
                Ok(()) => {
                    let operation = &self.history[usize::try_from(number).expect("few")].operation;
                    let told = operation.told(&outbox.ready.to_vec());
                    if operation.waits() && matches!(told, Told::Answers(_)) && !gates_nothing {
                        self.invariants.read_leaves(node, slot, seen);
                    }
                    if matches!(told, Told::Answers(_)) && reads_anywhere {
                        self.invariants.read_leaves(node, slot, seen);
                    } else if matches!(told, Told::Answers(_)) {
                        let id = &self.machines[node].id;
                        self.invariants.reply_leaves(node, id, term, slot, expected, seen);
                    }
                    Reply::Answered(told, afterwards)
                }
                Err(OutcomeUnknown) => Reply::Closed,
            };
            detail!("node {node} answers {number}: {reply:?}");
            self.reply(node, client, number, reply);
        }
    }
}

impl Connection {
    fn new(
        client: usize,
        session: Session,
        slot: usize,
        requests: Bytes,
        expected: Expectation,
    ) -> Connection {
        Connection {
            client,
            id: None,
            slot,
            reads_anywhere: false,
            session,
            closing: false,
            input: requests,
            executed: Vec::new(),
            outbox: Outbox::default(),
            wait: None,
            patience: GatePatience::default(),
            expected,
            seen: Position::default(),
        }
    }
}

impl Process {
    fn new_session(&self, client: usize) -> Session {
        let address = || format!("client-{client}:1");
        let now = self.server.clock.monotonic();
        let ended_terms = self.gate().ended_terms();
        let client = self.server.clients.add(address(), address(), Transport::Plain, now);
        let mut session = Session::new(client);
        session.ended_terms = ended_terms;
        session
    }

    /// What the node calls itself.
    fn is_called_primary(&self) -> bool {
        matches!(self.gate().state(), GateState::Primary | GateState::Holding)
    }

    fn end_session(&self, session: &mut Session) {
        self.executor.end_session(session);
        self.server.clients.remove(session.client.id);
    }

    /// Executes what there is to execute; why it stopped before the end. `late`: how the gate was when the requests were
    /// admitted, which was before it changed.
    fn execute(&mut self, number: u64, late: Option<Moment>) -> Option<Stop> {
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
                None => self.executor.run_batch(session, &batch, &input, next, patience, &mut out),
                Some(moment) => self.executor.run_admitted(moment, session, &batch, &input, &mut out),
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
            gate: &server.shared.gate,
            pause: &server.pause,
            replicas_holding: &|written| server.replicas_holding(written) as u64,
            has_synced: &|written| server.has_synced(written),
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
