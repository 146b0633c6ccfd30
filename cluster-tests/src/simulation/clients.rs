//! Clients, and what a connection of `keyward-node` does with their commands: it asks the gate, executes, and holds the
//! reply in the real [`ReplyQueue`].
//!
//! A client runs one operation at a time and writes down when it asked and what it was told. What it is not told in
//! time, or when a connection breaks, has an unknown outcome.

use keyward_node::gate::GateState;
use keyward_node::reply::{self, OutcomeUnknown, Read, ReplyCondition, ReplyQueue};
use keyward_proto::topology::Topology;
use rand::Rng;
use rand::rngs::StdRng;

use super::invariants::Expectation;
use super::keyspace::{SLOTS, Values, Write, payload};
use super::messages::Message;
use super::network;
use super::node::{Process, commit_at_once};
use super::story::detail;
use super::world::{Happening, World};
use super::{CLIENTS, CLIENTS_END, FAULTS_END, NODES, Nanos, ms};

const TIMEOUT: Nanos = ms(600);
/// A command that may not execute now is tried again by the connection after this.
const STALL: Nanos = ms(10);
const STALLS_MAX: u32 = 50;

/// One command, or several in a MULTI on the keys of one slot. Writes come before reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    /// SET of its number, INCR, RPUSH of its number; `None`: it only reads.
    pub(super) write: Option<Write>,
    pub(super) get: bool,
    pub(super) get_counter: bool,
    /// LRANGE 0 -1
    pub(super) range: bool,
    /// How often a connection has put it off.
    stalls: u32,
}

impl Operation {
    fn random(rng: &mut StdRng, number: u64) -> Operation {
        let write = |set, increment, append| Some(Write { number, set, increment, append });
        let read = Operation { write: None, get: false, get_counter: false, range: false, stalls: 0 };
        match rng.random_range(0..10) {
            0 => Operation { write: write(true, false, false), ..read },
            1 => Operation { write: write(false, true, false), ..read },
            2 | 3 => Operation { write: write(false, false, true), ..read },
            4 => Operation { get: true, ..read },
            5 => Operation { get_counter: true, ..read },
            6 | 7 => Operation { range: true, ..read },
            8 => Operation { write: write(true, true, true), ..read },
            _ => Operation {
                write: write(true, false, true),
                get: true,
                get_counter: true,
                range: true,
                ..read
            },
        }
    }

    /// What a reply tells of the slot's values after the operation.
    fn seen(&self, values: Values) -> Seen {
        let writes = |has: fn(&Write) -> bool| self.write.as_ref().is_some_and(has);
        Seen {
            register: self.get.then_some(values.register),
            counter: (self.get_counter || writes(|w| w.increment)).then_some(values.counter),
            list_len: (self.range || writes(|w| w.append)).then_some(values.list_len),
            list: self.range.then_some(values.list_hash),
        }
    }
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) register: Option<Option<u64>>,
    pub(super) counter: Option<u64>,
    pub(super) list_len: Option<u64>,
    pub(super) list: Option<u64>,
}

impl Seen {
    /// Whether these values would have given this reply.
    pub(super) fn fits(&self, values: &Values) -> bool {
        self.register.is_none_or(|r| r == values.register)
            && self.counter.is_none_or(|c| c == values.counter)
            && self.list_len.is_none_or(|l| l == values.list_len)
            && self.list.is_none_or(|l| l == values.list_hash)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Reply {
    Done(Seen),
    /// MOVED, CLUSTERDOWN, NOREPLICAS, a refused connection: not executed. With the primary, where it is known.
    NotExecuted(Option<usize>),
    /// The connection was closed: nobody knows.
    Closed,
}

/// A client's connection, as a node has it.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Executed, and its reply not yet looked at: the process may stand still in between.
    executed: Vec<(ReplyCondition, Executed)>,
    held: ReplyQueue<Executed>,
    /// The client's last operation.
    number: u64,
}

impl Connection {
    pub(super) fn is_idle(&self) -> bool {
        self.executed.is_empty() && self.held.is_empty()
    }
}

/// What a reply tells.
#[derive(Debug)]
struct Executed {
    number: u64,
    seen: Seen,
    slot: usize,
    expected: Expectation,
    /// What the reply reveals of the slot's history.
    journal: Vec<Write>,
}

impl reply::Held for Executed {
    fn len_bytes(&self) -> usize {
        0
    }
}

/// An operation in a client's notes.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) client: usize,
    pub(super) slot: usize,
    pub(super) operation: Operation,
    pub(super) invoked: Nanos,
    pub(super) returned: Option<(Nanos, Seen)>,
    /// It was told that nothing was done.
    pub(super) is_void: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    /// The number of the operation that runs, and its place in the notes.
    current: Option<(u64, usize)>,
    /// Where it thinks that the primary is.
    primary: usize,
}

impl World {
    /// A client begins its next operation.
    pub(super) fn client(&mut self, client: usize) {
        if CLIENTS_END < self.now || self.clients[client].current.is_some() {
            return;
        }
        if self.rng.random_bool(0.03) {
            self.clients[client].primary = self.rng.random_range(0..NODES);
        }
        let slot = self.rng.random_range(0..SLOTS);
        let number = self.next_operation;
        self.next_operation += 1;
        let operation = Operation::random(&mut self.rng, number);
        self.clients[client].current = Some((number, self.history.len()));
        self.history.push(Record {
            client,
            slot,
            operation,
            invoked: self.now,
            returned: None,
            is_void: false,
        });
        let node = self.clients[client].primary;
        self.send_message(
            network::client(client),
            node,
            Message::Command { client, number, slot, operation },
        );
        self.at(TIMEOUT, Happening::ClientTimeout { client, number });
    }

    fn next_operation_of(&mut self, client: usize) {
        self.clients[client].current = None;
        let quiet = self.rng.random_bool(0.02);
        let pause = self.rng.random_range(ms(1)..if quiet { ms(500) } else { ms(30) });
        self.at(pause, Happening::Client { client });
    }

    pub(super) fn client_timeout(&mut self, client: usize, number: u64) {
        if self.clients[client].current.is_some_and(|(current, _)| current == number) {
            self.clients[client].primary = self.rng.random_range(0..NODES);
            self.next_operation_of(client);
        }
    }

    pub(super) fn replied(&mut self, client: usize, number: u64, reply: Reply) {
        let Some((current, at)) = self.clients[client].current.filter(|(current, _)| *current == number)
        else {
            return;
        };
        debug_assert_eq!(current, number);
        let record = &mut self.history[at];
        match reply {
            Reply::Done(seen) => {
                record.returned = Some((self.now, seen));
                self.counts.last_reply_at = self.now;
                if record.operation.write.is_some() {
                    self.counts.writes += 1;
                } else {
                    self.counts.reads += 1;
                }
            }
            Reply::NotExecuted(primary) => {
                record.is_void = true;
                self.clients[client].primary = primary.unwrap_or_else(|| self.rng.random_range(0..NODES));
            }
            Reply::Closed => self.clients[client].primary = self.rng.random_range(0..NODES),
        }
        self.next_operation_of(client);
    }

    fn reply(&mut self, node: usize, client: usize, number: u64, reply: Reply) {
        self.send_message(node, network::client(client), Message::Reply { number, reply });
    }

    // ------------------------------------------------------------------ at a node

    /// A command has arrived.
    pub(super) fn command(
        &mut self,
        node: usize,
        client: usize,
        number: u64,
        slot: usize,
        operation: Operation,
    ) {
        let now = self.now;
        let clock = self.machines[node].clock.read(now);
        let refused = self.machines[node].has_power();
        let Some(process) = self.machines[node].process() else {
            if refused {
                self.reply(node, client, number, Reply::NotExecuted(None));
            }
            return;
        };
        let is_write = operation.write.is_some();
        let primary = primary_of(process.core.topology());
        match process.gate.state() {
            GateState::Primary if process.gate.lease_valid(clock) => {
                if is_write && !process.gate.writable() {
                    return self.reply(node, client, number, Reply::NotExecuted(None));
                }
                let generation = process.gate.generation();
                self.execute(node, generation, client, number, slot, operation);
                if now < FAULTS_END && self.rng.random_bool(0.001) {
                    // The process stands still between execution and reply.
                    let pause = self.rng.random_range(ms(1)..ms(1500));
                    self.pause_node(node, pause);
                    return;
                }
                self.after_step(node);
            }
            GateState::Primary | GateState::Holding if operation.stalls < STALLS_MAX => {
                let stalls = operation.stalls + 1;
                let message =
                    Message::Command { client, number, slot, operation: Operation { stalls, ..operation } };
                self.at(STALL, Happening::Deliver { from: node, to: node, message: Box::new(message) });
            }
            GateState::Replica => self.reply(node, client, number, Reply::NotExecuted(primary)),
            _ => self.reply(node, client, number, Reply::NotExecuted(None)),
        }
    }

    fn execute(
        &mut self,
        node: usize,
        generation: u64,
        client: usize,
        number: u64,
        slot: usize,
        operation: Operation,
    ) {
        let Some(process) = self.machines[node].process() else { return };
        let mut condition = ReplyCondition::new(generation);
        condition.require_lease();
        let expected = self.invariants.expectation(slot);
        if let Some(write) = operation.write {
            let payload = payload(slot, write);
            let index = process.log.append(process.gate.term(), &payload);
            process.keyspace.apply(index, &payload);
            process.applied = index;
            condition.wrote(index);
            commit_at_once(process);
        }
        condition.read(Read::Slots(process.keyspace.slots[slot].written), || process.log.last().index);
        let state = &process.keyspace.slots[slot];
        let (seen, journal) = (operation.seen(state.values), state.journal.clone());
        let connection = process.connections.entry(client).or_default();
        connection.number = number;
        connection.executed.push((condition, Executed { number, seen, slot, expected, journal }));
        detail!(
            "node {node} executes {number} for client {client}: {operation:?} -> {seen:?}, {condition:?}"
        );
        self.watch(node);
    }

    /// A command that saw the gate open before it closed.
    pub(super) fn late_write(&mut self, node: usize) {
        let Some(process) = self.machines[node].process() else { return };
        assert_ne!(
            process.gate.state(),
            GateState::Primary,
            "the gate is closed before the threads are waited for"
        );
        if process.log.last().term != process.gate.term() {
            return;
        }
        let generation = process.open_generation;
        let number = self.next_operation;
        self.next_operation += 1;
        let write = Write { number, set: false, increment: false, append: true };
        let operation =
            Operation { write: Some(write), get: false, get_counter: false, range: false, stalls: 0 };
        let invoked = self.now;
        self.history.push(Record {
            client: CLIENTS,
            slot: 0,
            operation,
            invoked,
            returned: None,
            is_void: false,
        });
        // Nobody waits for the reply, but it may leave.
        self.execute(node, generation, CLIENTS, number, 0, operation);
    }

    pub(super) fn release_replies(&mut self, node: usize) {
        let now = self.now;
        let clock = self.machines[node].clock.read(now);
        let Some(process) = self.machines[node].process() else { return };
        let Process { connections, gate, .. } = process;
        let term = gate.term();
        let (mut leaving, mut ended) = (Vec::new(), Vec::new());
        for (client, Connection { executed, held, number }) in connections {
            for (condition, reply) in executed.drain(..) {
                held.hold(condition.observed(gate, || clock), reply);
            }
            if let Err(OutcomeUnknown) = held.release(gate, || clock, |reply| leaving.push((*client, reply)))
            {
                held.clear();
                ended.push((*client, *number));
            }
        }
        for (client, Executed { number, seen, slot, expected, journal }) in leaving {
            let id = &self.machines[node].id;
            self.invariants.reply_leaves(node, id, term, slot, expected, &journal);
            if client < CLIENTS {
                self.reply(node, client, number, Reply::Done(seen));
            }
        }
        for (client, number) in ended {
            if client < CLIENTS {
                self.reply(node, client, number, Reply::Closed);
            }
        }
    }
}

fn primary_of(topology: &Topology) -> Option<usize> {
    let primary = topology.shards.values().next()?.primary.as_ref()?;
    topology.nodes.get(primary).map(|n| usize::from(n.port))
}
