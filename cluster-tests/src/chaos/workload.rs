//! Clients that work on a few keys of each kind and record what they did, for the checker.
//!
//! The client is our own, not a library: it knows of each request whether it was refused (an error reply: nothing was
//! executed), answered, or left without an answer. A library that sends a request again or reports a redirection as
//! a failure would blur that, and every unknown outcome makes a history weaker.
//!
//! Keys are used for a short while and then replaced by the next generation: a history of some hundred operations is
//! checked in milliseconds, one of a hundred thousand never.
#![allow(clippy::disallowed_methods, reason = "a shell: runs clients and measures time")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::linearizability::{
    Call, ListModel, ListOperation, Reply, StringModel, StringOperation, Verdict, check,
};
use crate::resp_client::{Connection, Frame};

/// How long keys are in use.
const GENERATION: Duration = Duration::from_millis(1500);
/// Keys of each kind that are in use at a time.
const KEYS: u64 = 3;
/// Between two operations of one client.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a client waits for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);

/// What a request led to.
#[derive(Debug)]
enum Outcome {
    Answered(Frame),
    /// Not executed.
    Refused,
    Unknown,
}

/// A connection to whichever node serves.
#[derive(Debug)]
struct ClusterClient {
    addrs: Vec<String>,
    at: String,
    connection: Option<Connection>,
    next: usize,
}

impl ClusterClient {
    fn new(addrs: Vec<String>) -> Self {
        ClusterClient { at: addrs[0].clone(), addrs, connection: None, next: 0 }
    }

    /// Another node next time.
    fn move_on(&mut self) {
        self.connection = None;
        self.next = (self.next + 1) % self.addrs.len();
        self.at.clone_from(&self.addrs[self.next]);
    }

    fn connected(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() {
            match Connection::connect_within(&self.at, ANSWER_DEADLINE) {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => self.move_on(),
            }
        }
        self.connection.as_mut()
    }

    fn call(&mut self, command: &[&str]) -> Outcome {
        let Some(connection) = self.connected() else { return Outcome::Refused };
        match connection.call(command) {
            Ok(reply) if reply.is_error() => {
                let text = reply.string();
                match text.strip_prefix("MOVED ").and_then(|rest| rest.split(' ').nth(1)) {
                    Some(addr) => {
                        self.connection = None;
                        self.at = addr.to_owned();
                    }
                    // Loading, or without a lease: perhaps another node is better off.
                    None => self.move_on(),
                }
                Outcome::Refused
            }
            Ok(reply) => Outcome::Answered(reply),
            Err(_) => {
                self.move_on();
                Outcome::Unknown
            }
        }
    }

    /// WATCH, GET, and in a transaction SET, if the value is the expected one: whether it was set; `Err(true)` if that
    /// is not known, `Err(false)` if it was certainly not.
    fn compare_and_set(&mut self, key: &str, expected: Option<i64>, value: i64) -> Result<bool, bool> {
        let answered = |outcome| match outcome {
            Outcome::Answered(frame) => Ok(frame),
            Outcome::Refused | Outcome::Unknown => Err(false),
        };
        answered(self.call(&["WATCH", key]))?;
        let found = answered(self.call(&["GET", key]))?;
        if found.integer().filter(|_| !found.is_null()) != expected {
            answered(self.call(&["UNWATCH"]))?;
            return Ok(false);
        }
        answered(self.call(&["MULTI"]))?;
        answered(self.call(&["SET", key, &value.to_string()]))?;
        match self.call(&["EXEC"]) {
            Outcome::Answered(reply) => Ok(!reply.is_null()),
            Outcome::Refused => Err(false),
            Outcome::Unknown => Err(true),
        }
    }
}

type StringCall = Call<StringOperation, Reply>;
type ListCall = Call<ListOperation, Reply>;

/// What all clients did, by key.
#[derive(Debug, Default)]
pub struct Histories {
    strings: BTreeMap<String, Vec<StringCall>>,
    lists: BTreeMap<String, Vec<ListCall>>,
}

/// One answered operation.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Since the begin.
    pub at: Duration,
    pub latency: Duration,
    pub is_write: bool,
}

/// What the checks found.
#[derive(Debug, Default)]
pub struct Findings {
    pub keys: usize,
    pub operations: usize,
    pub unknown: usize,
    /// Key and story of each history that is not linearizable.
    pub violations: Vec<(String, String)>,
    pub undecided: Vec<String>,
}

impl Histories {
    fn append(&mut self, other: Histories) {
        for (key, mut calls) in other.strings {
            self.strings.entry(key).or_default().append(&mut calls);
        }
        for (key, mut calls) in other.lists {
            self.lists.entry(key).or_default().append(&mut calls);
        }
    }

    /// Checks each key's history.
    pub fn check(&self) -> Findings {
        let mut findings = Findings::default();
        for (key, calls) in &self.strings {
            findings.add(key, calls, check::<StringModel>(calls));
        }
        for (key, calls) in &self.lists {
            findings.add(key, calls, check::<ListModel>(calls));
        }
        findings
    }
}

impl Findings {
    fn add<O, R>(&mut self, key: &str, calls: &[Call<O, R>], verdict: Verdict) {
        self.keys += 1;
        self.operations += calls.len();
        self.unknown += calls.iter().filter(|call| call.returned.is_none()).count();
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Violation(story) => self.violations.push((key.to_owned(), story)),
            Verdict::Undecided => self.undecided.push(key.to_owned()),
        }
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Workload {
    begin: Instant,
    addrs: Vec<String>,
    stop: Arc<AtomicBool>,
    served: Arc<Mutex<Vec<Served>>>,
    clients: Vec<JoinHandle<Histories>>,
}

impl Workload {
    /// Starts `clients` clients of a cluster whose nodes have these addresses.
    pub fn start(begin: Instant, addrs: Vec<String>, clients: usize, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(Mutex::new(Vec::new()));
        // Each value is written once, so that a read tells which write it saw.
        let values = Arc::new(AtomicI64::new(1));
        let clients = (0..clients)
            .map(|number| {
                let mut worker = Worker {
                    number,
                    begin,
                    client: ClusterClient::new(addrs.clone()),
                    rng: SmallRng::seed_from_u64(seed.wrapping_add(number as u64)),
                    values: values.clone(),
                    served: served.clone(),
                    histories: Histories::default(),
                };
                let stop = stop.clone();
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        worker.work();
                        thread::sleep(PAUSE);
                    }
                    worker.histories
                })
            })
            .collect();
        Workload { begin, addrs, stop, served, clients }
    }

    /// Answered operations so far.
    pub fn served(&self) -> Vec<Served> {
        self.served.lock().expect("no client panics").clone()
    }

    /// Stops the clients and reads every key once more, from the healed cluster.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn finish(self) -> Result<(Histories, Vec<Served>), String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut histories = Histories::default();
        let number = self.clients.len();
        for client in self.clients {
            histories.append(client.join().map_err(|_| "a client panicked")?);
        }
        let mut reader = Worker {
            number,
            begin: self.begin,
            client: ClusterClient::new(self.addrs),
            rng: SmallRng::seed_from_u64(0),
            values: Arc::default(),
            served: Arc::default(),
            histories: Histories::default(),
        };
        let strings = histories.strings.keys().map(|key| (key, false));
        for (key, is_list) in strings.chain(histories.lists.keys().map(|key| (key, true))) {
            let end = Instant::now() + ANSWER_DEADLINE * 4;
            let read = |reader: &mut Worker| {
                if is_list {
                    reader.list(key, ListOperation::Read)
                } else {
                    reader.string(key, StringOperation::Get)
                }
            };
            while !read(&mut reader) {
                if end < Instant::now() {
                    return Err(format!("{key} cannot be read from the healed cluster"));
                }
                thread::sleep(PAUSE);
            }
        }
        histories.append(reader.histories);
        let served = std::mem::take(&mut *self.served.lock().expect("no client panics"));
        Ok((histories, served))
    }
}

/// One client.
#[derive(Debug)]
struct Worker {
    number: usize,
    begin: Instant,
    client: ClusterClient,
    rng: SmallRng,
    values: Arc<AtomicI64>,
    served: Arc<Mutex<Vec<Served>>>,
    histories: Histories,
}

impl Worker {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A random operation on a random key of this moment.
    fn work(&mut self) {
        let generation = self.begin.elapsed().as_millis() / GENERATION.as_millis();
        let key = |kind: &str, n: u64| format!("{kind}:{generation}:{n}");
        let n = self.rng.random_range(0..KEYS);
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        match self.rng.random_range(0..10) {
            0 | 1 => drop(self.string(&key("register", n), StringOperation::Set(value))),
            2 | 3 => drop(self.string(&key("register", n), StringOperation::Get)),
            4 => drop(self.string(&key("counter", n), StringOperation::Incr)),
            5 => drop(self.string(&key("counter", n), StringOperation::Get)),
            6 => self.compare_and_set(&key("cas", n), value),
            7 => drop(self.list(&key("list", n), ListOperation::Append(value))),
            8 => drop(self.list(&key("list", n), ListOperation::Read)),
            _ if self.rng.random_bool(0.5) => drop(self.list(&key("queue", n), ListOperation::Append(value))),
            _ => drop(self.list(&key("queue", n), ListOperation::Pop)),
        }
    }

    /// Whether it was answered.
    fn string(&mut self, key: &str, operation: StringOperation) -> bool {
        let text;
        let command: &[&str] = match &operation {
            StringOperation::Set(value) => {
                text = value.to_string();
                &["SET", key, &text]
            }
            StringOperation::Incr => &["INCR", key],
            StringOperation::Get | StringOperation::CompareAndSet(..) => &["GET", key],
        };
        let invoked = self.now();
        let outcome = self.client.call(command);
        let Some(returned) = self.returned(invoked, outcome, operation != StringOperation::Get) else {
            return false;
        };
        let answered = returned.is_some();
        let call = Call { client: self.number, operation, invoked, returned };
        self.histories.strings.entry(key.to_owned()).or_default().push(call);
        answered
    }

    fn list(&mut self, key: &str, operation: ListOperation) -> bool {
        let text;
        let command: &[&str] = match &operation {
            ListOperation::Append(value) => {
                text = value.to_string();
                &["RPUSH", key, &text]
            }
            ListOperation::Pop => &["LPOP", key],
            ListOperation::Read => &["LRANGE", key, "0", "-1"],
        };
        let invoked = self.now();
        let outcome = self.client.call(command);
        let Some(returned) = self.returned(invoked, outcome, operation != ListOperation::Read) else {
            return false;
        };
        let answered = returned.is_some();
        let call = Call { client: self.number, operation, invoked, returned };
        self.histories.lists.entry(key.to_owned()).or_default().push(call);
        answered
    }

    /// When a reply came and what it was; `None` if the request was refused.
    fn returned(&mut self, invoked: u64, outcome: Outcome, is_write: bool) -> Option<Option<(u64, Reply)>> {
        match outcome {
            Outcome::Answered(frame) => {
                self.note_served(invoked, is_write);
                Some(Some((self.now(), reply_of(&frame))))
            }
            Outcome::Refused => None,
            Outcome::Unknown => Some(None),
        }
    }

    fn note_served(&self, invoked: u64, is_write: bool) {
        let at = self.begin.elapsed();
        let latency = at.saturating_sub(Duration::from_nanos(invoked));
        self.served.lock().expect("no client panics").push(Served { at, latency, is_write });
    }

    fn compare_and_set(&mut self, key: &str, value: i64) {
        let invoked = self.now();
        let outcome = self.client.call(&["GET", key]);
        let Outcome::Answered(found) = outcome else { return };
        let expected = found.integer().filter(|_| !found.is_null());
        let read = Call {
            client: self.number,
            operation: StringOperation::Get,
            invoked,
            returned: Some((self.now(), reply_of(&found))),
        };
        self.histories.strings.entry(key.to_owned()).or_default().push(read);
        let invoked = self.now();
        let returned = match self.client.compare_and_set(key, expected, value) {
            Ok(set) => {
                self.note_served(invoked, true);
                Some((self.now(), if set { Reply::Ok } else { Reply::Nil }))
            }
            Err(true) => None,
            Err(false) => return,
        };
        let operation = StringOperation::CompareAndSet(expected, value);
        let call = Call { client: self.number, operation, invoked, returned };
        self.histories.strings.entry(key.to_owned()).or_default().push(call);
    }
}

fn reply_of(frame: &Frame) -> Reply {
    match frame.kind() {
        _ if frame.is_null() => Reply::Nil,
        b'+' => Reply::Ok,
        b':' => Reply::Integer(frame.integer().unwrap_or_default()),
        b'*' => Reply::Values(frame.items.iter().filter_map(Frame::integer).collect()),
        _ => Reply::Value(frame.integer().unwrap_or_default()),
    }
}
