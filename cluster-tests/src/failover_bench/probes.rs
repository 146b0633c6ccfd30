//! Steady load on a few keys that remembers every answer: writers add one number after the other to a set, readers count
//! them.
#![allow(clippy::disallowed_methods, reason = "a shell: runs clients and measures time")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::resp_client::Connection;

/// Writers, and as many readers. Their keys share a hash tag: of several shards it is one that is under test.
pub(super) const KEYS: usize = 6;
/// A node that does not answer for so long is left for another. Each writer has a deadline of its own: if all left a hung
/// node at the same moments, what is measured would be a multiple of the time between these.
const DEADLINE: Duration = Duration::from_millis(37);
const DEADLINE_STEP: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_micros(500);

/// In the same slot as the keys of all probes.
pub(super) const SAME_SLOT: &str = "{failover}";

/// A writer's key of a round.
fn key(round: usize, number: usize) -> String {
    format!("{SAME_SLOT}:{round}:{number}")
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Members of each key whose addition was acknowledged, and how many.
    acknowledged: [Mutex<Vec<u64>>; KEYS],
    counts: [AtomicU64; KEYS],
    writes_at: Mutex<Vec<Instant>>,
    reads_at: Mutex<Vec<Instant>>,
    stale: AtomicU64,
    errors: AtomicU64,
}

/// Running probes.
#[derive(Debug)]
pub(super) struct Probes {
    round: usize,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What they saw.
#[derive(Debug)]
pub(super) struct Seen {
    round: usize,
    writes_at: Vec<Instant>,
    reads_at: Vec<Instant>,
    acknowledged: Vec<Vec<u64>>,
    pub(super) stale: u64,
    pub(super) errors: u64,
}

impl Probes {
    /// Each round has keys of its own.
    pub(super) fn start(addrs: &[String], round: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..2 * KEYS)
            .map(|number| {
                let (shared, addrs) = (shared.clone(), addrs.to_vec());
                thread::spawn(move || {
                    let deadline = DEADLINE + DEADLINE_STEP * (number % KEYS) as u32;
                    let mut client = Client { addrs, at: number, connection: None, deadline };
                    let key = key(round, number % KEYS);
                    let mut next = 0;
                    while !shared.stop.load(Ordering::Relaxed) {
                        let failure = if number < KEYS {
                            write(&shared, &mut client, &key, number, &mut next).err()
                        } else {
                            read(&shared, &mut client, &key, number - KEYS).err()
                        };
                        if failure == Some(Failure::Error) {
                            shared.errors.fetch_add(1, Ordering::Relaxed);
                        }
                        thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        Probes { round, shared, threads }
    }

    pub(super) fn has_acknowledged_since(&self, moment: Instant) -> bool {
        self.shared.writes_at.lock().expect("no probe panics").last().is_some_and(|at| moment < *at)
    }

    pub(super) fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no probe panics");
        }
        let shared = &self.shared;
        let take =
            |moments: &Mutex<Vec<Instant>>| std::mem::take(&mut *moments.lock().expect("no probe panics"));
        Seen {
            round: self.round,
            writes_at: take(&shared.writes_at),
            reads_at: take(&shared.reads_at),
            acknowledged: shared
                .acknowledged
                .iter()
                .map(|added| std::mem::take(&mut *added.lock().expect("no probe panics")))
                .collect(),
            stale: shared.stale.load(Ordering::Relaxed),
            errors: shared.errors.load(Ordering::Relaxed),
        }
    }
}

impl Seen {
    pub(super) fn longest_gap_of_writes(&self, since: Instant) -> Option<Duration> {
        longest_gap(&self.writes_at, since).map(|(from, to)| to - from)
    }

    pub(super) fn longest_gap_of_reads(&self, since: Instant) -> Option<Duration> {
        longest_gap(&self.reads_at, since).map(|(from, to)| to - from)
    }

    /// How long after `since` the first write after the gap was acknowledged.
    pub(super) fn first_write_after_gap(&self, since: Instant) -> Duration {
        longest_gap(&self.writes_at, since)
            .map_or(Duration::ZERO, |(_, to)| to.saturating_duration_since(since))
    }

    /// How many acknowledged writes are missing.
    pub(super) fn lost(
        &self,
        members: impl Fn(&str) -> Result<HashSet<u64>, String>,
    ) -> Result<usize, String> {
        let mut lost = 0;
        for (number, acknowledged) in self.acknowledged.iter().enumerate() {
            let members = members(&key(self.round, number))?;
            lost += acknowledged.iter().filter(|added| !members.contains(added)).count();
        }
        Ok(lost)
    }
}

/// The neighbours that lie furthest apart, the later one after `since`.
fn longest_gap(moments: &[Instant], since: Instant) -> Option<(Instant, Instant)> {
    let mut moments = moments.to_vec();
    moments.sort_unstable();
    let pairs = moments.windows(2).map(|pair| (pair[0], pair[1])).filter(|(_, to)| since < *to);
    pairs.max_by_key(|(from, to)| *to - *from)
}

#[derive(Debug)]
struct Client {
    addrs: Vec<String>,
    at: usize,
    connection: Option<Connection>,
    deadline: Duration,
}

/// Why another node is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// This one says where to go.
    Redirected,
    Error,
}

impl Client {
    /// The number in the answer.
    fn call(&mut self, command: &[&str]) -> Result<u64, Failure> {
        if self.connection.is_none() {
            let addr = &self.addrs[self.at % self.addrs.len()];
            self.connection = Connection::connect_within(addr, self.deadline).ok();
        }
        let reply = self.connection.as_mut().and_then(|connection| connection.call(command).ok());
        let error = match reply {
            Some(reply) if !reply.is_error() => {
                return Ok(reply.integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
            }
            Some(error) => error.string(),
            None => String::new(),
        };
        self.connection = None;
        let target = error.strip_prefix("MOVED ").and_then(|rest| rest.split(' ').nth(1));
        match target.and_then(|target| self.addrs.iter().position(|addr| addr == target)) {
            Some(at) => self.at = at,
            None => self.at += 1,
        }
        Err(if target.is_some() { Failure::Redirected } else { Failure::Error })
    }
}

fn write(
    shared: &Shared,
    client: &mut Client,
    key: &str,
    number: usize,
    next: &mut u64,
) -> Result<(), Failure> {
    *next += 1;
    client.call(&["SADD", key, &next.to_string()])?;
    shared.acknowledged[number].lock().expect("no probe panics").push(*next);
    shared.counts[number].fetch_add(1, Ordering::SeqCst);
    shared.writes_at.lock().expect("no probe panics").push(Instant::now());
    Ok(())
}

fn read(shared: &Shared, client: &mut Client, key: &str, number: usize) -> Result<(), Failure> {
    let before = shared.counts[number].load(Ordering::SeqCst);
    let found = client.call(&["SCARD", key])?;
    if found < before {
        shared.stale.fetch_add(1, Ordering::Relaxed);
    }
    shared.reads_at.lock().expect("no probe panics").push(Instant::now());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_one_that_ends_after_the_fault() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let moments = [at(0), at(500), at(510), at(530), at(700), at(720)];
        assert_eq!(longest_gap(&moments, at(520)), Some((at(530), at(700))));
        assert_eq!(longest_gap(&moments, at(800)), None);
    }
}
