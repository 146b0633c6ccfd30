//! Counters for INFO. Each executing thread has its own, so that counting shares no cache line; readers add them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::command::table::{ROWS, Row};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        // One writer: no read-modify-write instruction is needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What one thread has counted.
#[derive(Debug, Default)]
pub struct ThreadStats {
    pub commands: Counter,
    pub connections: Counter,
    pub rejected_connections: Counter,
    pub net_in_bytes: Counter,
    pub net_out_bytes: Counter,
    pub keyspace_hits: Counter,
    pub keyspace_misses: Counter,
    pub expired_keys: Counter,
    pub error_replies: Counter,
    /// Modifications of keys, for `rdb_changes_since_last_save`.
    pub changes: Counter,
    /// Calls, rejected calls and failed calls of each command of the table; subcommands count for their container.
    per_command: Box<[CommandCounters]>,
}

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandCounters {
    pub calls: Counter,
    pub rejected: Counter,
    pub failed: Counter,
}

impl ThreadStats {
    fn new() -> Self {
        let per_command = ROWS.iter().map(|_| CommandCounters::default()).collect();
        ThreadStats { per_command, ..ThreadStats::default() }
    }

    /// Counters of a command (not of a subcommand).
    #[inline]
    pub fn command(&self, row: &'static Row) -> Option<&CommandCounters> {
        let start = ROWS.as_ptr().addr();
        let index = std::ptr::from_ref(row).addr().wrapping_sub(start) / size_of::<Row>();
        self.per_command.get(index)
    }

    fn reset(&self) {
        for counter in [
            &self.commands,
            &self.connections,
            &self.rejected_connections,
            &self.net_in_bytes,
            &self.net_out_bytes,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.expired_keys,
            &self.error_replies,
        ] {
            counter.reset();
        }
        for c in &self.per_command {
            c.calls.reset();
            c.rejected.reset();
            c.failed.reset();
        }
    }
}

/// The counters of all threads.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Vec<Arc<ThreadStats>>>);

impl Stats {
    pub fn add_thread(&self) -> Arc<ThreadStats> {
        let stats = Arc::new(ThreadStats::new());
        self.0.lock().push(Arc::clone(&stats));
        stats
    }

    pub fn sum(&self, counter: impl Fn(&ThreadStats) -> &Counter) -> u64 {
        self.0.lock().iter().map(|t| counter(t).get()).sum()
    }

    /// Name, calls, rejected and failed calls of each command that was called.
    pub fn per_command(&self) -> Vec<(&'static str, u64, u64, u64)> {
        let threads = self.0.lock();
        let sum = |row: &'static Row, f: fn(&CommandCounters) -> &Counter| -> u64 {
            threads.iter().filter_map(|t| t.command(row)).map(|c| f(c).get()).sum()
        };
        ROWS.iter()
            .map(|r| (r.name, sum(r, |c| &c.calls), sum(r, |c| &c.rejected), sum(r, |c| &c.failed)))
            .filter(|(_, calls, rejected, failed)| calls + rejected + failed > 0)
            .collect()
    }

    /// CONFIG RESETSTAT. A count that happens at the same moment may survive.
    pub fn reset(&self) {
        for thread in self.0.lock().iter() {
            thread.reset();
        }
    }
}
