//! Freeing what takes long to free, on a thread of its own.
//!
//! The queue is bounded: when it is full, whoever has something to free does it at once. What waits in it counts as
//! freed towards `maxmemory` ([`UsedMemory::counted`]), so that eviction does not run ahead of this thread.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use keyward_store::entry::Entry;
use keyward_store::table::Table;
use keyward_store::usage::usage_bytes;

use crate::memory::UsedMemory;
use crate::process;

/// Jobs that may wait.
const QUEUE_LEN: usize = 1024;
/// Elements that are looked at to estimate the size of a value.
const SAMPLES: usize = 5;

/// What is dropped together.
#[derive(Debug)]
enum Job {
    Entry(Entry, usize),
    /// With the estimated bytes of each table.
    Tables(Vec<(Table<Entry>, usize)>),
}

/// See the module documentation.
#[derive(Debug)]
pub struct Lazyfree {
    /// The thread starts with the first job; `None`: the system has none to give.
    sender: OnceLock<Option<SyncSender<Job>>>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    memory: Arc<UsedMemory>,
    /// Objects that wait.
    pending: AtomicUsize,
    /// Objects that were freed, ever.
    freed: AtomicU64,
}

impl Lazyfree {
    pub fn new(memory: Arc<UsedMemory>) -> Lazyfree {
        let counts = Counts { memory, pending: AtomicUsize::new(0), freed: AtomicU64::new(0) };
        Lazyfree { sender: OnceLock::new(), counts: Arc::new(counts) }
    }

    /// Drops a key with its value.
    pub fn free(&self, entry: Entry) {
        let bytes = usage_bytes(&entry, SAMPLES);
        self.send(Job::Entry(entry, bytes));
    }

    /// Drops what a flush took out of the keyspace; `bytes`: about what all of it takes.
    pub fn free_tables(&self, tables: Vec<Table<Entry>>, bytes: usize) {
        let keys: usize = tables.iter().map(Table::len).sum();
        let per_key = bytes / keys.max(1);
        self.send(Job::Tables(
            tables
                .into_iter()
                .map(|table| {
                    let bytes = table.len() * per_key;
                    (table, bytes)
                })
                .collect(),
        ));
    }

    fn send(&self, job: Job) {
        self.counts.begin(&job);
        let sender = self.sender.get_or_init(|| start(&self.counts));
        let rejected = match sender {
            Some(sender) => sender.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = rejected {
            self.counts.run(job);
        }
    }

    /// `lazyfree_pending_objects`
    pub fn pending(&self) -> usize {
        self.counts.pending.load(Ordering::Relaxed)
    }

    /// `lazyfreed_objects`
    pub fn freed(&self) -> u64 {
        self.counts.freed.load(Ordering::Relaxed)
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        self.counts.freed.store(0, Ordering::Relaxed);
    }
}

impl Counts {
    fn begin(&self, job: &Job) {
        let (objects, bytes) = match job {
            Job::Entry(_, bytes) => (1, *bytes),
            Job::Tables(tables) => {
                tables.iter().fold((0, 0), |(n, sum), (table, bytes)| (n + table.len(), sum + bytes))
            }
        };
        self.pending.fetch_add(objects, Ordering::Relaxed);
        self.memory.begin_freeing(bytes);
    }

    fn run(&self, job: Job) {
        match job {
            Job::Entry(entry, bytes) => {
                drop(entry);
                self.end(1, bytes);
            }
            Job::Tables(tables) => {
                for (table, bytes) in tables {
                    let objects = table.len();
                    drop(table);
                    self.end(objects, bytes);
                }
            }
        }
    }

    fn end(&self, objects: usize, bytes: usize) {
        process::note_memory_exactly(&self.memory);
        self.memory.end_freeing(bytes);
        self.pending.fetch_sub(objects, Ordering::Relaxed);
        self.freed.fetch_add(objects as u64, Ordering::Relaxed);
    }
}

fn start(counts: &Arc<Counts>) -> Option<SyncSender<Job>> {
    let (sender, receiver): (_, Receiver<Job>) = sync_channel(QUEUE_LEN);
    let counts = Arc::clone(counts);
    let spawned = std::thread::Builder::new().name("lazyfree".into()).spawn(move || {
        process::begin_noting_memory();
        receiver.into_iter().for_each(|job| counts.run(job));
    });
    match spawned {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(%error, "memory is freed in the foreground");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyward_store::entry::NewValue;
    use keyward_store::table::hash_of;
    use std::time::{Duration, Instant};

    #[test]
    fn what_waits_counts_as_freed() {
        let memory = Arc::new(UsedMemory::default());
        let lazyfree = Lazyfree::new(Arc::clone(&memory));
        let entry = || Entry::new(b"k", NewValue::Bytes(b"value"), None, 0);
        let mut table = Table::default();
        table.insert_new(hash_of(b"k"), entry());
        lazyfree.free(entry());
        lazyfree.free_tables(vec![table], 500);
        let start = Instant::now();
        while lazyfree.pending() > 0 && start.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert_eq!((lazyfree.pending(), lazyfree.freed()), (0, 2));
        memory.correct(memory.figure(), 1000, 0);
        assert_eq!(memory.counted(), 1000);
    }
}
