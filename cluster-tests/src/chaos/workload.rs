//! Clients that work on a few keys of each kind and record what they did, for the checker.
//!
//! Registers (SET, GET), counters (INCR), compare-and-set by WATCH and MULTI, lists (RPUSH, LPOP, LRANGE), and queues
//! of two lists (RPUSH, LMOVE, BLPOP), which count as one object. Some of the keys expire, but not before wall clocks
//! that are a day ahead have come back.
//!
//! Keys are used for a short while and then replaced by the next generation: a history of some hundred operations is
//! checked in milliseconds, one of a hundred thousand never. Every other client is impatient, so that what is measured
//! is how long the servers are away and not how long clients wait for one of them.
#![allow(clippy::disallowed_methods, reason = "a shell: runs clients and measures time")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyward_proto::slot::Slot;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::client::{ClusterClient, Outcome, Refusal};
use crate::linearizability::{
    Call, ListModel, ListOperation, QueueModel, QueueOperation, Reply, StringModel, StringOperation, Verdict,
    check,
};
use crate::resp_client::Frame;
use crate::slots::slot_of;

/// How long keys are in use.
const GENERATION: Duration = Duration::from_millis(1500);
/// Keys of each kind that are in use at a time.
const KEYS: u64 = 3;
/// Between two operations of one client.
const PAUSE: Duration = Duration::from_millis(2);
/// How long clients wait for an answer, one after the other.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1500), Duration::from_millis(200)];
/// How long the last read of a key may take: a long run leaves thousands of keys.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// When keys expire, if they do: 30 days, in milliseconds.
const EXPIRE_MS: &str = "2592000000";
/// How often counters and lists that were changed are given an expiry.
const EXPIRED_CHANGES: f64 = 0.3;
/// BLPOP waits so long, in seconds.
const BLOCK_SECONDS: &str = "0.05";

type StringCall = Call<StringOperation, Reply>;
type ListCall = Call<ListOperation, Reply>;
type QueueCall = Call<QueueOperation, Reply>;

/// What all clients did, by key.
#[derive(Debug, Default)]
pub struct Histories {
    strings: BTreeMap<String, Vec<StringCall>>,
    lists: BTreeMap<String, Vec<ListCall>>,
    queues: BTreeMap<String, Vec<QueueCall>>,
}

/// What became of an operation, for the report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Answered,
    Refused(Refusal),
    Unanswered,
}

/// One operation that has ended.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Since the begin.
    pub at: Duration,
    pub latency: Duration,
    pub slot: Slot,
    pub is_write: bool,
    pub what: What,
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
        for (key, mut calls) in other.queues {
            self.queues.entry(key).or_default().append(&mut calls);
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
        for (key, calls) in &self.queues {
            findings.add(key, calls, check::<QueueModel>(calls));
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

/// What the clients have seen so far.
#[derive(Debug, Default)]
struct Sight {
    seen: Mutex<Vec<Seen>>,
    answered: AtomicUsize,
}

/// Running clients.
#[derive(Debug)]
pub struct Workload {
    begin: Instant,
    addrs: Arc<RwLock<Vec<String>>>,
    stop: Arc<AtomicBool>,
    sight: Arc<Sight>,
    clients: Vec<JoinHandle<Histories>>,
}

impl Workload {
    /// Starts `clients` clients of a cluster whose nodes have these addresses.
    pub fn start(begin: Instant, addrs: Arc<RwLock<Vec<String>>>, clients: usize, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sight = Arc::new(Sight::default());
        // Each value is written once, so that a read tells which write it saw.
        let values = Arc::new(AtomicI64::new(1));
        let clients = (0..clients)
            .map(|number| {
                let mut worker = Worker {
                    number,
                    begin,
                    client: ClusterClient::new(addrs.clone(), PATIENCE[number % PATIENCE.len()]),
                    rng: SmallRng::seed_from_u64(seed.wrapping_add(number as u64)),
                    values: values.clone(),
                    sight: sight.clone(),
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
        Workload { begin, addrs, stop, sight, clients }
    }

    /// How many operations have been answered.
    pub fn answered(&self) -> usize {
        self.sight.answered.load(Ordering::Relaxed)
    }

    /// Stops the clients and reads every key once more, from the healed cluster.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn finish(self) -> Result<(Histories, Vec<Seen>), String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut histories = Histories::default();
        let number = self.clients.len();
        for client in self.clients {
            histories.append(client.join().map_err(|_| "a client panicked")?);
        }
        let mut reader = Worker {
            number,
            begin: self.begin,
            client: ClusterClient::new(self.addrs, PATIENCE[0]),
            rng: SmallRng::seed_from_u64(0),
            values: Arc::default(),
            sight: Arc::default(),
            histories: Histories::default(),
        };
        let mut read = |key: &str, read: &mut dyn FnMut(&mut Worker) -> bool| {
            let end = Instant::now() + READ_DEADLINE;
            while !read(&mut reader) {
                if end < Instant::now() {
                    return Err(format!("{key} cannot be read from the healed cluster"));
                }
                thread::sleep(PAUSE);
            }
            Ok(())
        };
        for key in histories.strings.keys() {
            read(key, &mut |reader| reader.string(key, StringOperation::Get))?;
        }
        for key in histories.lists.keys() {
            read(key, &mut |reader| reader.list(key, ListOperation::Read))?;
        }
        for key in histories.queues.keys() {
            read(key, &mut |reader| reader.queue(key, QueueOperation::ReadFirst))?;
            read(key, &mut |reader| reader.queue(key, QueueOperation::ReadSecond))?;
        }
        histories.append(reader.histories);
        let seen = std::mem::take(&mut *self.sight.seen.lock().expect("no client panics"));
        Ok((histories, seen))
    }
}

/// What a call does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallKind {
    Read,
    Write,
}

/// One client.
#[derive(Debug)]
struct Worker {
    number: usize,
    begin: Instant,
    client: ClusterClient,
    rng: SmallRng,
    values: Arc<AtomicI64>,
    sight: Arc<Sight>,
    histories: Histories,
}

/// When a reply came and what it was; `None`: it did not come.
type Returned = Option<(u64, Reply)>;

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
        match self.rng.random_range(0..14) {
            0 | 1 => drop(self.string(&key("register", n), StringOperation::Set(value))),
            2 | 3 => drop(self.string(&key("register", n), StringOperation::Get)),
            4 => drop(self.string(&key("counter", n), StringOperation::Incr)),
            5 => drop(self.string(&key("counter", n), StringOperation::Get)),
            6 | 7 => self.compare_and_set(&key("cas", n), value),
            8 => drop(self.list(&key("list", n), ListOperation::Append(value))),
            9 if self.rng.random_bool(0.3) => drop(self.list(&key("list", n), ListOperation::Pop)),
            9 => drop(self.list(&key("list", n), ListOperation::Read)),
            10 | 11 => drop(self.queue(&key("queue", n), QueueOperation::Push(value))),
            12 => drop(self.queue(&key("queue", n), QueueOperation::Move)),
            _ => drop(self.queue(&key("queue", n), QueueOperation::Take)),
        }
    }

    /// Whether it was answered.
    fn string(&mut self, key: &str, operation: StringOperation) -> bool {
        let text;
        let command: &[&str] = match &operation {
            StringOperation::Set(value) => {
                text = value.to_string();
                if self.rng.random_bool(0.5) {
                    &["SET", key, &text, "PX", EXPIRE_MS]
                } else {
                    &["SET", key, &text]
                }
            }
            StringOperation::Incr => &["INCR", key],
            StringOperation::Get | StringOperation::CompareAndSet(..) => &["GET", key],
        };
        let kind = if operation != StringOperation::Get { CallKind::Write } else { CallKind::Read };
        let invoked = self.now();
        let outcome = self.client.call(key, command);
        let Some(returned) = self.returned(key, invoked, outcome, kind, reply_of) else { return false };
        if operation == StringOperation::Incr && returned.is_some() {
            self.let_expire(key);
        }
        self.note_string(key, operation, invoked, returned)
    }

    /// Not part of the history: it changes no value, whether it is executed or not.
    fn let_expire(&mut self, key: &str) {
        if self.rng.random_bool(EXPIRED_CHANGES) {
            drop(self.client.call(key, &["PEXPIRE", key, EXPIRE_MS]));
        }
    }

    fn note_string(
        &mut self,
        key: &str,
        operation: StringOperation,
        invoked: u64,
        returned: Returned,
    ) -> bool {
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
        let outcome = self.client.call(key, command);
        let kind = if operation != ListOperation::Read { CallKind::Write } else { CallKind::Read };
        let Some(returned) = self.returned(key, invoked, outcome, kind, reply_of) else { return false };
        let answered = returned.is_some();
        if kind == CallKind::Write && answered {
            self.let_expire(key);
        }
        let call = Call { client: self.number, operation, invoked, returned };
        self.histories.lists.entry(key.to_owned()).or_default().push(call);
        answered
    }

    /// Two lists of one slot: elements are pushed to the first, moved to the second and taken from there.
    fn queue(&mut self, key: &str, operation: QueueOperation) -> bool {
        let (first, second) = (format!("{{{key}}}:first"), format!("{{{key}}}:second"));
        let text;
        let command: &[&str] = match &operation {
            QueueOperation::Push(value) => {
                text = value.to_string();
                &["RPUSH", &first, &text]
            }
            QueueOperation::Move => &["LMOVE", &first, &second, "LEFT", "RIGHT"],
            QueueOperation::Take => &["BLPOP", &second, BLOCK_SECONDS],
            QueueOperation::ReadFirst => &["LRANGE", &first, "0", "-1"],
            QueueOperation::ReadSecond => &["LRANGE", &second, "0", "-1"],
        };
        // BLPOP answers with the key and the element.
        let reply = |frame: &Frame| match frame.items.as_slice() {
            [_, element] if operation == QueueOperation::Take => reply_of(element),
            _ => reply_of(frame),
        };
        let changes = matches!(operation, QueueOperation::Push(_) | QueueOperation::Move);
        let kind = if changes { CallKind::Write } else { CallKind::Read };
        let invoked = self.now();
        let outcome = self.client.call(&first, command);
        let Some(returned) = self.returned(&first, invoked, outcome, kind, reply) else { return false };
        let answered = returned.is_some();
        let call = Call { client: self.number, operation, invoked, returned };
        self.histories.queues.entry(key.to_owned()).or_default().push(call);
        answered
    }

    /// When a reply came and what it was; `None` if the request was refused.
    fn returned(
        &mut self,
        key: &str,
        invoked: u64,
        outcome: Outcome,
        kind: CallKind,
        reply: impl Fn(&Frame) -> Reply,
    ) -> Option<Returned> {
        let (what, returned) = match outcome {
            Outcome::Answered(frame) => (What::Answered, Some(Some((self.now(), reply(&frame))))),
            Outcome::Refused(refusal) => (What::Refused(refusal), None),
            Outcome::Unknown => (What::Unanswered, Some(None)),
        };
        if what == What::Answered {
            self.sight.answered.fetch_add(1, Ordering::Relaxed);
        }
        let at = self.begin.elapsed();
        let latency = at.saturating_sub(Duration::from_nanos(invoked));
        let mut seen = self.sight.seen.lock().expect("no client panics");
        seen.push(Seen {
            at,
            latency,
            slot: slot_of(key.as_bytes()),
            is_write: kind == CallKind::Write,
            what,
        });
        returned
    }

    fn compare_and_set(&mut self, key: &str, value: i64) {
        let invoked = self.now();
        let outcome = self.client.call(key, &["GET", key]);
        let Some(Some((at, found))) = self.returned(key, invoked, outcome, CallKind::Read, reply_of) else {
            return;
        };
        let expected = if let Reply::Value(found) = &found { Some(*found) } else { None };
        self.note_string(key, StringOperation::Get, invoked, Some((at, found)));
        let invoked = self.now();
        let outcome = self.client.compare_and_set(key, expected, value);
        let reply = |frame: &Frame| if frame.is_null() { Reply::Nil } else { Reply::Ok };
        if let Some(returned) = self.returned(key, invoked, outcome, CallKind::Write, reply) {
            let operation = StringOperation::CompareAndSet(expected, value);
            self.note_string(key, operation, invoked, returned);
        }
    }
}

/// # Panics
/// If no operation of ours can be answered so, as by `+QUEUED`.
fn reply_of(frame: &Frame) -> Reply {
    let integer = |frame: &Frame| frame.integer().unwrap_or_else(|| panic!("{frame} is no answer"));
    match frame.kind() {
        _ if frame.is_null() => Reply::Nil,
        b'+' if frame.text() == b"OK" => Reply::Ok,
        b':' => Reply::Integer(integer(frame)),
        b'*' => Reply::Values(frame.items.iter().map(integer).collect()),
        _ => Reply::Value(integer(frame)),
    }
}
