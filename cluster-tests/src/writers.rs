//! Clients that write while a test injects faults, and remember what was acknowledged.
//!
//! Each writer owns its keys and writes growing numbers to them, one command at a time. Then a key must hold at
//! least the last acknowledged number and at most the last one that was tried: an answer that never came leaves
//! the outcome open, an acknowledgement does not. Errors are counted by what they say.
//!
//! [`Probe`] asks every node directly, without a client library between, and tells how long none of them took
//! a write.
#![allow(clippy::disallowed_methods, reason = "a shell: runs clients and measures time")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use tokio::runtime::Runtime;

use crate::cluster::KeyValue;
use crate::resp_client::Connection;

/// Keys of one writer. Different hash slots, so that all writers together reach every part of the slot range.
const KEYS_PER_WRITER: u64 = 500;

const RESPONSE_DEADLINE: Duration = Duration::from_secs(1);
/// The library's client sometimes stops asking anybody when all its connections broke at once: then a new one goes on.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What one writer knows of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    acknowledged: u64,
    tried: u64,
}

type Ledger = BTreeMap<String, Written>;

/// What a writer's client library does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Hands it to the writer at once, redirections too: a write is sent once, so its outcome is known or it is not.
    Report,
    /// Follows redirections and tries again, as it does for any application.
    Retry,
}

/// Errors that writers have seen, by their first words.
pub type Errors = BTreeMap<String, u64>;

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(Ledger, Errors)>>,
    acknowledged_at: Arc<Mutex<Vec<Instant>>>,
}

/// What all writers together know at the end.
#[derive(Debug)]
pub struct History {
    ledger: Ledger,
    pub acknowledged: u64,
    /// Keys whose last write got no acknowledgement.
    pub unknown: u64,
    pub errors: Errors,
}

impl Writers {
    /// Starts `count` writers, each with a cluster client of its own.
    pub fn start(urls: &[String], count: usize, on_error: OnError) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(text)?;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged_at = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for writer in 0..count {
            let builder = ClusterClientBuilder::new(urls.to_vec())
                .connection_timeout(RESPONSE_DEADLINE)
                .response_timeout(RESPONSE_DEADLINE);
            let client = match on_error {
                OnError::Report => builder.retries(0),
                OnError::Retry => builder,
            };
            let client = client.build().map_err(text)?;
            let connection = runtime.block_on(client.get_async_connection()).map_err(text)?;
            tasks.push(runtime.spawn(write(
                writer,
                client,
                connection,
                stop.clone(),
                acknowledged_at.clone(),
            )));
        }
        Ok(Self { runtime, stop, tasks, acknowledged_at })
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged_at.lock().expect("no writer panics").len()
    }

    /// The longest time since `start` in which no client had a write acknowledged.
    pub fn longest_gap(&self, start: Instant) -> Duration {
        longest_gap(&self.acknowledged_at.lock().expect("no writer panics"), start)
    }

    /// Stops all writers.
    pub fn stop(self) -> Result<History, String> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut ledger, mut errors) = (Ledger::new(), Errors::new());
        let mut unknown = 0;
        for task in self.tasks {
            let (mut of_writer, seen) = self.runtime.block_on(task).map_err(text)?;
            ledger.append(&mut of_writer);
            for (error, times) in seen {
                *errors.entry(error).or_default() += times;
            }
        }
        for written in ledger.values() {
            unknown += u64::from(written.acknowledged < written.tried);
        }
        let acknowledged = self.acknowledged_at.lock().expect("no writer panics").len() as u64;
        Ok(History { ledger, acknowledged, unknown, errors })
    }
}

impl History {
    /// Says which acknowledged writes are missing from `strings`, and which values were never written.
    pub fn check(&self, strings: &[KeyValue]) -> Result<(), String> {
        let found: BTreeMap<&[u8], u64> = strings
            .iter()
            .filter_map(|(key, value)| Some((key.as_slice(), std::str::from_utf8(value).ok()?.parse().ok()?)))
            .collect();
        let wrong: Vec<String> = self
            .ledger
            .iter()
            .filter_map(|(key, written)| {
                let value = found.get(key.as_bytes()).copied().unwrap_or(0);
                let right = written.acknowledged <= value && value <= written.tried;
                (!right).then(|| format!("{key} is {value}, wanted {written:?}"))
            })
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} of {} keys are wrong: {}",
            wrong.len(),
            self.ledger.len(),
            wrong[..wrong.len().min(5)].join("; ")
        ))
    }
}

async fn write(
    writer: usize,
    client: ClusterClient,
    mut connection: ClusterConnection,
    stop: Arc<AtomicBool>,
    acknowledged_at: Arc<Mutex<Vec<Instant>>>,
) -> (Ledger, Errors) {
    let (mut ledger, mut errors) = (Ledger::new(), Errors::new());
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("writer:{writer}:{}", number % KEYS_PER_WRITER);
        let written = ledger.entry(key.clone()).or_default();
        written.tried = number;
        let mut command = redis::cmd("SET");
        let reply = command.arg(&key).arg(number).query_async::<String>(&mut connection);
        match tokio::time::timeout(STUCK_AFTER, reply).await {
            Ok(Ok(_)) => {
                written.acknowledged = number;
                acknowledged_at.lock().expect("no writer panics").push(Instant::now());
            }
            Err(_) => {
                *errors.entry("stuck".to_owned()).or_default() += 1;
                if let Ok(another) = client.get_async_connection().await {
                    connection = another;
                }
            }
            Ok(Err(error)) => {
                *errors.entry(summary(&error)).or_default() += 1;
                // A refused connection fails at once: leave the processor to the servers.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    (ledger, errors)
}

/// An error's code, or its kind if the server sent none.
fn summary(error: &redis::RedisError) -> String {
    error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned)
}

/// One thread per node that writes to it all the time.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    served_at: Arc<Mutex<Vec<Instant>>>,
}

impl Probe {
    const DEADLINE: Duration = Duration::from_millis(500);
    const PAUSE: Duration = Duration::from_millis(1);

    pub fn start(addrs: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served_at = Arc::new(Mutex::new(Vec::new()));
        let threads = addrs
            .into_iter()
            .map(|addr| {
                let (stop, served_at) = (stop.clone(), served_at.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        Self::ask(&addr, &stop, &served_at);
                        thread::sleep(Self::PAUSE);
                    }
                })
            })
            .collect();
        Self { stop, threads, served_at }
    }

    /// Writes until the node does not take it.
    fn ask(addr: &str, stop: &AtomicBool, served_at: &Mutex<Vec<Instant>>) {
        let Ok(mut connection) = Connection::connect_within(addr, Self::DEADLINE) else { return };
        while !stop.load(Ordering::Relaxed) {
            match connection.call(&["SET", "{probe}:served", "1"]) {
                Ok(reply) if reply.text() == b"OK" => {
                    served_at.lock().expect("no probe panics").push(Instant::now());
                }
                Ok(_) => {}
                Err(_) => return,
            }
            thread::sleep(Self::PAUSE);
        }
    }

    /// The longest time since `start` in which no node took a write.
    pub fn longest_gap(&self, start: Instant) -> Duration {
        longest_gap(&self.served_at.lock().expect("no probe panics"), start)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// The longest time between two neighbours of which the later one is after `start`; what lies between the last
/// one and now counts as well.
fn longest_gap(moments: &[Instant], start: Instant) -> Duration {
    let mut moments = moments.to_vec();
    moments.push(Instant::now());
    moments.sort();
    moments.windows(2).filter(|pair| start < pair[1]).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_acknowledged_write_is_named_and_an_unknown_one_is_not() {
        let key = |acknowledged, tried| Written { acknowledged, tried };
        let ledger = BTreeMap::from([("a".to_owned(), key(5, 5)), ("b".to_owned(), key(5, 7))]);
        let history = History { ledger, acknowledged: 2, unknown: 1, errors: Errors::new() };
        let strings = |a: &str, b: &str| [(b"a".to_vec(), a.into()), (b"b".to_vec(), b.into())];
        assert_eq!(history.check(&strings("5", "6")), Ok(()));
        assert!(history.check(&strings("4", "5")).unwrap_err().contains("a is 4"));
        assert!(history.check(&strings("5", "8")).unwrap_err().contains("b is 8"));
    }

    #[test]
    fn the_longest_gap_counts_from_the_last_moment_before_the_start() {
        let now = Instant::now();
        let at = |ms| now - Duration::from_millis(1000) + Duration::from_millis(ms);
        let gap = longest_gap(&[at(0), at(100), at(400), at(990)], at(150));
        assert!(gap.abs_diff(Duration::from_millis(590)) < Duration::from_millis(5), "{gap:?}");
    }
}
