//! Clients: each runs one operation at a time and writes down when it asked and what it was told. What it is not told in
//! time, or when the connection breaks, has an unknown outcome.
//!
//! Connections stay open between operations, whatever becomes of the node meanwhile: one to each node that the client
//! takes for the primary, and one to each for reads that any node may answer. Outside cluster mode a client asks for the
//! role when it connects, as those do that know sentinels, and never again.

use keyward_proto::ids::Term;
use rand::Rng;

use super::keyspace::SLOTS;
use super::messages::{Afterwards, Message, Reply};
use super::network;
use super::operations::{Answer, Operation, Told};
use super::world::{SimEvent, World};
use super::{CLIENTS, CLIENTS_END, FAULTS_END, NODES, Nanos, ms};

const TIMEOUT: Nanos = ms(600);
/// So many clients keep what they have watched until the same node is the primary again.
const PATIENT: usize = 3;

/// An operation in a client's notes.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) client: usize,
    pub(super) slot: usize,
    pub(super) operation: Operation,
    pub(super) invoked: Nanos,
    pub(super) returned: Option<(Nanos, Vec<Answer>)>,
    /// It was told that nothing was done.
    pub(super) is_void: bool,
}

/// A client's connection, by the number of the operation that has opened it.
pub(super) type ConnectionId = u64;

/// What a client has watched, and what it has read then.
#[derive(Debug)]
struct Watched {
    node: usize,
    slot: usize,
    value: Answer,
    /// It is not replaced before the node is the primary again, after another one, or this time has come.
    patience: Option<(Term, Nanos)>,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    /// The number of the operation that runs, and where.
    current: Option<(u64, usize)>,
    /// Where it thinks that the primary is.
    primary: usize,
    connections: [Option<ConnectionId>; NODES],
    /// Those on which it has said READONLY.
    readers: [Option<ConnectionId>; NODES],
    /// Its next operation is to replace that.
    watched: Option<Watched>,
}

impl Client {
    fn connection(&mut self, node: usize, operation: &Operation) -> &mut Option<ConnectionId> {
        let connections = if operation.is_for_any_node() { &mut self.readers } else { &mut self.connections };
        &mut connections[node]
    }
}

impl World {
    /// A client begins its next operation.
    pub(super) fn client(&mut self, client: usize) {
        if CLIENTS_END < self.now || self.clients[client].current.is_some() {
            return;
        }
        if self.waits_for_the_same_primary(client) {
            return self.at(ms(20), SimEvent::Client { client });
        }
        let number = self.next_number();
        let (node, slot, operation) = self.next_operation(client, number);
        let (requests, patience) = (operation.requests(slot), TIMEOUT + operation.wait());
        let open = self.clients[client].connection(node, &operation);
        let connection = *open.get_or_insert(number);
        self.clients[client].current = Some((number, node));
        self.note(client, slot, operation);
        let message = Message::Command { client, number, connection, slot, requests };
        self.send_message(network::client(client), node, message);
        self.at(patience, SimEvent::ClientTimeout { client, number });
    }

    fn next_operation(&mut self, client: usize, number: u64) -> (usize, usize, Operation) {
        if let Some(Watched { node, slot, value, .. }) = self.clients[client].watched.take() {
            return (node, slot, Operation::replace(&value, number));
        }
        let slot = self.rng.random_range(0..SLOTS);
        if self.rng.random_bool(0.02) {
            return (self.clients[client].primary, slot, Operation::set_large(number));
        }
        if self.standing.is_some() || CLIENTS_END - ms(1000) < self.now {
            // How long nothing is written is measured: nobody waits for a node that is down, or for ever. And at the end
            // all might wait for each other.
            let primary = self.clients[client].primary;
            return loop {
                let operation = Operation::random(&mut self.rng, number);
                if !operation.waits() {
                    break (primary, slot, operation);
                }
            };
        }
        if self.rng.random_bool(0.15) {
            let node = self.rng.random_range(0..NODES);
            return (node, slot, Operation::read_anywhere(&mut self.rng));
        }
        if self.rng.random_bool(0.03) {
            self.clients[client].primary = self.rng.random_range(0..NODES);
        }
        (self.clients[client].primary, slot, Operation::random(&mut self.rng, number))
    }

    /// What was watched is to outlive roles.
    fn waits_for_the_same_primary(&self, client: usize) -> bool {
        let Some(Watched { node, patience: Some((term, until)), .. }) = self.clients[client].watched else {
            return false;
        };
        let leads_again = self.register.shard().is_some_and(|shard| {
            term < shard.term && shard.primary.as_ref() == Some(&self.machines[node].id)
        });
        self.standing.is_none() && self.now < until.min(FAULTS_END) && !leads_again
    }

    /// The number that the next operation to be noted gets.
    pub(super) fn next_number(&self) -> u64 {
        self.history.len() as u64
    }

    pub(super) fn note(&mut self, client: usize, slot: usize, operation: Operation) {
        let invoked = self.now;
        self.history.push(Record { client, slot, operation, invoked, returned: None, is_void: false });
    }

    fn rest(&mut self, client: usize) {
        self.clients[client].current = None;
        let quiet = self.rng.random_bool(0.02);
        let pause = self.rng.random_range(ms(1)..if quiet { ms(500) } else { ms(30) });
        self.at(pause, SimEvent::Client { client });
    }

    pub(super) fn client_timeout(&mut self, client: usize, number: u64) {
        if let Some((current, node)) = self.clients[client].current
            && current == number
        {
            self.disconnect(client, node, number);
            self.clients[client].primary = self.rng.random_range(0..NODES);
            self.rest(client);
        }
    }

    /// A client closes its connection to a node, or finds it closed.
    fn disconnect(&mut self, client: usize, node: usize, number: u64) {
        let record = &self.history[usize::try_from(number).expect("few operations")];
        *self.clients[client].connection(node, &record.operation) = None;
    }

    pub(super) fn replied(&mut self, client: usize, number: u64, reply: Reply) {
        let Some((_, node)) = self.clients[client].current.filter(|(current, _)| *current == number) else {
            return;
        };
        if !matches!(reply, Reply::Answered(_, Afterwards::Open)) {
            self.disconnect(client, node, number);
        }
        let record = &mut self.history[usize::try_from(number).expect("few operations")];
        match reply {
            Reply::Answered(Told::Answers(answers), afterwards) => {
                if record.operation.watches() && afterwards == Afterwards::Open {
                    let value = answers[0].clone();
                    let term = self.register.shard().map(|shard| shard.term);
                    // The others write meanwhile.
                    let waits = client < PATIENT && self.now < FAULTS_END && self.rng.random_bool(0.4);
                    let patience = term.filter(|_| waits).map(|term| (term, self.now + ms(3000)));
                    self.clients[client].watched = Some(Watched { node, slot: record.slot, value, patience });
                }
                record.returned = Some((self.now, answers));
                if record.operation.is_for_any_node() {
                    self.counts.reads_anywhere += 1;
                    return self.rest(client);
                }
                self.counts.last_reply_at = self.now;
                if record.operation.only_reads() {
                    self.counts.reads += 1;
                } else {
                    self.counts.writes += 1;
                    self.note_write();
                }
            }
            Reply::Answered(Told::NotExecuted(_), _) if record.operation.is_for_any_node() => {
                record.is_void = true;
            }
            Reply::Answered(Told::NotExecuted(primary), _) => {
                record.is_void = true;
                self.clients[client].primary = primary.unwrap_or_else(|| self.rng.random_range(0..NODES));
            }
            Reply::Refused => {
                record.is_void = true;
                self.clients[client].primary = self.rng.random_range(0..NODES);
            }
            Reply::Closed => self.clients[client].primary = self.rng.random_range(0..NODES),
        }
        self.rest(client);
    }

    /// What a node sends to a client, or to nobody.
    pub(super) fn reply(&mut self, node: usize, client: usize, number: u64, reply: Reply) {
        if client < CLIENTS {
            self.send_message(node, network::client(client), Message::Reply { number, reply });
        }
    }
}
