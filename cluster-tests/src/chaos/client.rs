//! A cluster client that knows of each request what became of it.
//!
//! It is our own, not a library: a library that sends a request again, or reports a redirection as a failure, blurs
//! whether a request was refused (nothing was executed), answered, or left without an answer, and every unknown outcome
//! makes a history weaker.
#![allow(clippy::disallowed_methods, reason = "a shell: runs a client")]

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use keyward_proto::slot::Slot;

use crate::resp_client::{Connection, Frame};
use crate::slots::slot_of;

/// Why a request was certainly not executed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Another node serves the slot.
    Redirected,
    /// The first word of an error.
    Error(String),
    NotConnected,
}

/// What a request led to.
#[derive(Debug)]
pub enum Outcome {
    Answered(Frame),
    Refused(Refusal),
    /// No answer: it may have been executed, or may yet be.
    Unknown,
}

/// Connections to whichever nodes serve.
#[derive(Debug)]
pub struct ClusterClient {
    /// Of all nodes; they may move.
    addrs: Arc<RwLock<Vec<String>>>,
    patience: Duration,
    connections: BTreeMap<String, Connection>,
    owners: BTreeMap<Slot, String>,
    next: usize,
}

impl ClusterClient {
    /// Waits no longer than `patience` for an answer.
    pub fn new(addrs: Arc<RwLock<Vec<String>>>, patience: Duration) -> Self {
        ClusterClient { addrs, patience, connections: BTreeMap::new(), owners: BTreeMap::new(), next: 0 }
    }

    /// Where the key was last found, or any node.
    fn addr(&self, slot: Slot) -> String {
        self.owners.get(&slot).cloned().unwrap_or_else(|| {
            let addrs = self.addrs.read().expect("nobody panics with this lock");
            addrs[self.next % addrs.len()].clone()
        })
    }

    /// Another node next time.
    fn leave(&mut self, slot: Slot, addr: &str) {
        self.connections.remove(addr);
        self.owners.remove(&slot);
        self.next += 1;
    }

    pub fn call(&mut self, key: &str, command: &[&str]) -> Outcome {
        let slot = slot_of(key.as_bytes());
        let addr = self.addr(slot);
        if !self.connections.contains_key(&addr) {
            match Connection::connect_within(&addr, self.patience) {
                Ok(connection) => drop(self.connections.insert(addr.clone(), connection)),
                Err(_) => {
                    self.leave(slot, &addr);
                    return Outcome::Refused(Refusal::NotConnected);
                }
            }
        }
        let connection = self.connections.get_mut(&addr).expect("just connected");
        match connection.call(command) {
            Ok(reply) if reply.is_error() => Outcome::Refused(self.on_error(slot, &addr, &reply.string())),
            Ok(reply) => Outcome::Answered(reply),
            Err(_) => {
                self.leave(slot, &addr);
                Outcome::Unknown
            }
        }
    }

    fn on_error(&mut self, slot: Slot, addr: &str, text: &str) -> Refusal {
        let mut words = text.split(' ');
        match (words.next().unwrap_or_default(), words.nth(1)) {
            ("MOVED", Some(to)) => {
                self.owners.insert(slot, to.to_owned());
                Refusal::Redirected
            }
            // Loading, or without a lease: perhaps another node is better off.
            (word, _) => {
                self.leave(slot, addr);
                Refusal::Error(word.to_owned())
            }
        }
    }

    /// WATCH, GET, and in a transaction SET, if the value is the expected one: `+OK` or nil if it was refused.
    pub fn compare_and_set(&mut self, key: &str, expected: Option<i64>, value: i64) -> Outcome {
        let outcome = self.watch_and_set(key, expected, value);
        if !matches!(outcome, Outcome::Answered(_)) {
            // One may still watch, or be inside the transaction; which, a redirection has made us forget.
            self.connections.clear();
        }
        outcome
    }

    fn watch_and_set(&mut self, key: &str, expected: Option<i64>, value: i64) -> Outcome {
        // Before EXEC nothing is executed, whatever happens.
        let refused = |outcome| match outcome {
            Outcome::Unknown => Outcome::Refused(Refusal::NotConnected),
            other => other,
        };
        let value = value.to_string();
        let mut steps: Vec<&[&str]> = Vec::new();
        let (watch, get) = (["WATCH", key], ["GET", key]);
        steps.extend([watch.as_slice(), &get]);
        let mut found = None;
        for step in steps {
            match refused(self.call(key, step)) {
                Outcome::Answered(frame) => found = Some(frame),
                other => return other,
            }
        }
        let found = found.and_then(|frame| frame.integer().filter(|_| !frame.is_null()));
        if found != expected {
            // A nil, as from a transaction that was given up: nothing was set.
            return match refused(self.call(key, &["UNWATCH"])) {
                Outcome::Answered(_) => Outcome::Answered(null()),
                other => other,
            };
        }
        for step in [["MULTI"].as_slice(), &["SET", key, &value]] {
            match refused(self.call(key, step)) {
                Outcome::Answered(_) => {}
                other => return other,
            }
        }
        match self.call(key, &["EXEC"]) {
            Outcome::Answered(reply) if reply.items.iter().any(Frame::is_error) => Outcome::Unknown,
            other => other,
        }
    }
}

fn null() -> Frame {
    Frame { raw: bytes::Bytes::from_static(b"*-1\r\n"), items: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_transaction_that_is_redirected_is_left_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
            let mut request = [0; 256];
            for reply in ["+OK\r\n", "$-1\r\n", "+OK\r\n", "-MOVED 1 127.0.0.1:1\r\n"] {
                assert_ne!(stream.read(&mut request).expect("a request"), 0);
                stream.write_all(reply.as_bytes()).expect("the client reads");
            }
            match stream.read(&mut request) {
                Ok(received) => received == 0,
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
            }
        });
        let mut client = ClusterClient::new(Arc::new(RwLock::new(vec![addr])), Duration::from_secs(10));
        let outcome = client.compare_and_set("key", None, 1);
        assert!(matches!(outcome, Outcome::Refused(Refusal::Redirected)), "{outcome:?}");
        assert!(server.join().expect("no panic"), "the connection that is inside MULTI stays open");
    }
}
