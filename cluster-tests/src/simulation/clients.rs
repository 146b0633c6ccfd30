//! Clients: each runs one operation at a time, on a connection of its own, and writes down when it asked and what it was
//! told. What it is not told in time, or when the connection breaks, has an unknown outcome.

use rand::Rng;

use super::keyspace::SLOTS;
use super::messages::{Message, Reply};
use super::network;
use super::operations::{Answer, Operation, Told};
use super::world::{SimEvent, World};
use super::{CLIENTS, CLIENTS_END, NODES, Nanos, ms};

const TIMEOUT: Nanos = ms(600);

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

#[derive(Debug, Default)]
pub(super) struct Client {
    /// The number of the operation that runs.
    current: Option<u64>,
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
        let number = self.next_number();
        let operation = Operation::random(&mut self.rng, number);
        let (requests, patience) = (operation.requests(slot), TIMEOUT + operation.wait());
        self.clients[client].current = Some(number);
        self.note(client, slot, operation);
        let node = self.clients[client].primary;
        let message = Message::Command { client, number, slot, requests };
        self.send_message(network::client(client), node, message);
        self.at(patience, SimEvent::ClientTimeout { client, number });
    }

    /// The number that the next operation to be noted gets.
    pub(super) fn next_number(&self) -> u64 {
        self.history.len() as u64
    }

    pub(super) fn note(&mut self, client: usize, slot: usize, operation: Operation) {
        let invoked = self.now;
        self.history.push(Record { client, slot, operation, invoked, returned: None, is_void: false });
    }

    fn next_operation_of(&mut self, client: usize) {
        self.clients[client].current = None;
        let quiet = self.rng.random_bool(0.02);
        let pause = self.rng.random_range(ms(1)..if quiet { ms(500) } else { ms(30) });
        self.at(pause, SimEvent::Client { client });
    }

    pub(super) fn client_timeout(&mut self, client: usize, number: u64) {
        if self.clients[client].current == Some(number) {
            self.clients[client].primary = self.rng.random_range(0..NODES);
            self.next_operation_of(client);
        }
    }

    pub(super) fn replied(&mut self, client: usize, number: u64, reply: Reply) {
        if self.clients[client].current != Some(number) {
            return;
        }
        let record = &mut self.history[usize::try_from(number).expect("few operations")];
        match reply {
            Reply::Answered(Told::Answers(answers)) => {
                record.returned = Some((self.now, answers));
                self.counts.last_reply_at = self.now;
                if record.operation.only_reads() {
                    self.counts.reads += 1;
                } else {
                    self.counts.writes += 1;
                }
            }
            Reply::Answered(Told::NotExecuted(primary)) => {
                record.is_void = true;
                self.clients[client].primary = primary.unwrap_or_else(|| self.rng.random_range(0..NODES));
            }
            Reply::Refused => {
                record.is_void = true;
                self.clients[client].primary = self.rng.random_range(0..NODES);
            }
            Reply::Closed => self.clients[client].primary = self.rng.random_range(0..NODES),
        }
        self.next_operation_of(client);
    }

    /// What a node sends to a client, or to nobody.
    pub(super) fn reply(&mut self, node: usize, client: usize, number: u64, reply: Reply) {
        if client < CLIENTS {
            self.send_message(node, network::client(client), Message::Reply { number, reply });
        }
    }
}
