//! Counters for INFO. Each executing thread has its own, so that counting shares no cache line; readers add them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::time::Monotonic;
use parking_lot::Mutex;

use crate::command::table::{ROWS, Row};
use crate::observe::histogram::{Histogram, Times};

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

    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What one thread has counted.
#[derive(Debug, Default)]
pub struct ThreadStats {
    pub commands: Counter,
    pub connections: Counter,
    pub rejected_connections: Counter,
    pub reads: Counter,
    pub writes: Counter,
    pub net_in_bytes: Counter,
    pub net_out_bytes: Counter,
    pub keyspace_hits: Counter,
    pub keyspace_misses: Counter,
    pub expired_keys: Counter,
    /// Of hashes.
    pub expired_fields: Counter,
    pub evicted_keys: Counter,
    pub evicted_clients: Counter,
    /// Calls of the expiry cycle that ended because their time was up.
    pub expire_time_cap_reached: Counter,
    pub expire_nanos: Counter,
    pub error_replies: Counter,
    pub query_buffer_disconnections: Counter,
    pub output_buffer_disconnections: Counter,
    /// Modifications of keys, for `rdb_changes_since_last_save`.
    pub changes: Counter,
    /// Calls, rejected calls and failed calls of each command and subcommand, by its number.
    per_command: Box<[CommandCounters]>,
    /// Error replies by their code. Uncontended: one thread writes, INFO reads.
    errors: Mutex<BTreeMap<Box<str>, u64>>,
}

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandCounters {
    pub calls: Counter,
    pub rejected: Counter,
    pub failed: Counter,
    /// Brief commands of a batch are timed together; each of them gets the same share.
    pub nanos: Counter,
    /// How many took how long.
    pub(crate) times: Times,
}

/// Microseconds, ascending: upper ends of the classes in which the times of calls are counted. Each is four times the one
/// before.
pub const TIME_BOUNDS: [u64; 12] =
    [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304];

/// The class of a time.
fn time_class(nanos: u64) -> usize {
    let micros = nanos.div_ceil(1000).max(1);
    // Two bits for each class.
    let bits = (u64::BITS - (micros - 1).leading_zeros()) as usize;
    bits.div_ceil(2).min(TIME_BOUNDS.len())
}

impl CommandCounters {
    /// So many calls took so many nanoseconds each.
    #[inline]
    pub fn add_time(&self, calls: u64, nanos: u64) {
        self.nanos.add(calls * nanos);
        self.times.add(calls, nanos);
    }
}

impl ThreadStats {
    fn new() -> Self {
        let per_command = ROWS.iter().map(|_| CommandCounters::default()).collect();
        ThreadStats { per_command, ..ThreadStats::default() }
    }

    /// Counters of a command or subcommand.
    #[inline]
    pub fn command(&self, row: &'static Row) -> Option<&CommandCounters> {
        self.per_command.get(row.id.index())
    }

    /// An error reply with this text.
    pub fn count_error(&self, text: &str) {
        self.error_replies.add(1);
        let code = text.split(' ').next().unwrap_or_default();
        let mut errors = self.errors.lock();
        match errors.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                errors.insert(code.into(), 1);
            }
        }
    }

    fn reset(&self) {
        for counter in [
            &self.commands,
            &self.connections,
            &self.rejected_connections,
            &self.reads,
            &self.writes,
            &self.net_in_bytes,
            &self.net_out_bytes,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.expired_keys,
            &self.expired_fields,
            &self.evicted_keys,
            &self.evicted_clients,
            &self.expire_time_cap_reached,
            &self.expire_nanos,
            &self.error_replies,
            &self.query_buffer_disconnections,
            &self.output_buffer_disconnections,
        ] {
            counter.reset();
        }
        for c in &self.per_command {
            c.calls.reset();
            c.rejected.reset();
            c.failed.reset();
            c.nanos.reset();
            c.times.reset();
        }
        self.errors.lock().clear();
    }
}

/// How late the tasks of the control runtime come to run: beacons are as late.
#[derive(Debug, Default)]
pub struct ControlDelay {
    /// Microseconds.
    last: AtomicU64,
    max: AtomicU64,
    /// Delays of more than [`ControlDelay::BOUND`].
    exceeded: AtomicU64,
    /// When one was last told of; nanoseconds, as of [`Monotonic`]. Zero: never.
    told_at: AtomicU64,
}

impl ControlDelay {
    /// The default lease.
    pub const BOUND: Duration = Duration::from_millis(100);
    const TELL_EVERY: Duration = Duration::from_secs(10);

    /// One caller. True if it is to be told of.
    pub fn note(&self, delay: Duration, now: Monotonic) -> bool {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.last.store(micros, Ordering::Relaxed);
        self.max.fetch_max(micros, Ordering::Relaxed);
        if delay <= Self::BOUND {
            return false;
        }
        self.exceeded.fetch_add(1, Ordering::Relaxed);
        let told_at = self.told_at.load(Ordering::Relaxed);
        let tells = told_at == 0 || Self::TELL_EVERY <= now.since(Monotonic::from_nanos(told_at));
        if tells {
            self.told_at.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
        tells
    }

    /// Microseconds now and at most, and how often it was more than the bound.
    pub fn figures(&self) -> [u64; 3] {
        [&self.last, &self.max, &self.exceeded].map(|figure| figure.load(Ordering::Relaxed))
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.max.store(0, Ordering::Relaxed);
        self.exceeded.store(0, Ordering::Relaxed);
    }
}

/// The counters of all threads.
#[derive(Debug, Default)]
pub struct Stats {
    threads: Mutex<Vec<Arc<ThreadStats>>>,
    pub rates: Rates,
    /// AUTH and HELLO with a wrong password.
    pub auth_failures: AtomicU64,
}

/// What is known of one command.
#[derive(Debug, Clone)]
pub struct CommandTotals {
    pub name: &'static str,
    pub calls: u64,
    pub rejected: u64,
    pub failed: u64,
    pub nanos: u64,
    pub(crate) times: Histogram,
}

impl CommandTotals {
    /// How many calls took how long, by class: see [`TIME_BOUNDS`].
    pub fn time_counts(&self) -> [u64; TIME_BOUNDS.len() + 1] {
        let mut counts = [0; TIME_BOUNDS.len() + 1];
        for (nanos, count) in self.times.classes() {
            counts[time_class(nanos)] += count;
        }
        counts
    }
}

impl Stats {
    pub fn add_thread(&self) -> Arc<ThreadStats> {
        let stats = Arc::new(ThreadStats::new());
        self.threads.lock().push(Arc::clone(&stats));
        stats
    }

    pub fn sum(&self, counter: impl Fn(&ThreadStats) -> &Counter) -> u64 {
        self.threads.lock().iter().map(|t| counter(t).get()).sum()
    }

    /// The commands and subcommands that were called.
    pub fn per_command(&self) -> Vec<CommandTotals> {
        let threads = self.threads.lock();
        let of_each = |row: &'static Row| threads.iter().filter_map(move |t| t.command(row));
        let sum = |row, f: fn(&CommandCounters) -> &Counter| of_each(row).map(|c| f(c).get()).sum();
        let times = |row| {
            let mut sum = Histogram::default();
            of_each(row).for_each(|c| sum.add(&c.times));
            sum
        };
        ROWS.iter()
            .map(|r| CommandTotals {
                name: r.name,
                calls: sum(r, |c| &c.calls),
                rejected: sum(r, |c| &c.rejected),
                failed: sum(r, |c| &c.failed),
                nanos: sum(r, |c| &c.nanos),
                times: times(r),
            })
            .filter(|c: &CommandTotals| 0 < c.calls + c.rejected + c.failed)
            .collect()
    }

    /// Error replies by code, in alphabetical order.
    pub fn errors(&self) -> BTreeMap<Box<str>, u64> {
        let mut sum = BTreeMap::new();
        for thread in self.threads.lock().iter() {
            for (code, count) in thread.errors.lock().iter() {
                *sum.entry(code.clone()).or_default() += count;
            }
        }
        sum
    }

    /// CONFIG RESETSTAT. A count that happens at the same moment may survive.
    pub fn reset(&self) {
        for thread in self.threads.lock().iter() {
            thread.reset();
        }
        self.auth_failures.store(0, Ordering::Relaxed);
    }
}

/// Samples over which a rate is averaged.
const RATE_SAMPLES: usize = 16;

/// `instantaneous_...`: commands and bytes per second, from samples that are taken regularly.
#[derive(Debug, Default)]
pub struct Rates(Mutex<RateSamples>);

#[derive(Debug, Default)]
struct RateSamples {
    /// Time, and commands, bytes in and bytes out until then.
    last: Option<(Monotonic, [u64; 3])>,
    per_second: [[u64; 3]; RATE_SAMPLES],
    next: usize,
}

impl Rates {
    pub fn sample(&self, now: Monotonic, stats: &Stats) {
        let totals =
            [stats.sum(|t| &t.commands), stats.sum(|t| &t.net_in_bytes), stats.sum(|t| &t.net_out_bytes)];
        let mut samples = self.0.lock();
        if let Some((then, before)) = samples.last.replace((now, totals)) {
            let elapsed = u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX).max(1);
            let at = samples.next;
            for i in 0..totals.len() {
                samples.per_second[at][i] = totals[i].saturating_sub(before[i]) * 1000 / elapsed;
            }
            samples.next = (at + 1) % RATE_SAMPLES;
        }
    }

    /// Commands, bytes in and bytes out per second.
    pub fn per_second(&self) -> [u64; 3] {
        let samples = self.0.lock();
        let average = |i: usize| samples.per_second.iter().map(|s| s[i]).sum::<u64>() / RATE_SAMPLES as u64;
        [average(0), average(1), average(2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_of_control_tasks_is_shown_and_told_now_and_then() {
        let delay = ControlDelay::default();
        let told = |millis, seconds: u64| {
            delay.note(Duration::from_millis(millis), Monotonic::from_nanos(seconds * 1_000_000_000))
        };
        assert!(!told(3, 1));
        assert!(told(101, 2));
        assert!(!told(150, 3));
        assert!(told(120, 12));
        assert!(!told(2, 13));
        assert_eq!(delay.figures(), [2000, 150_000, 3]);
        delay.reset();
        assert_eq!(delay.figures(), [2000, 0, 0]);
    }
    use crate::command::table;

    #[test]
    fn subcommands_are_counted_by_themselves() {
        let stats = Stats::default();
        let thread = stats.add_thread();
        let config = table::find(b"config").unwrap();
        let get = table::find_subcommand(config, b"get").unwrap();
        thread.command(get).unwrap().calls.add(2);
        thread.command(table::find(b"zscore").unwrap()).unwrap().failed.add(1);
        let totals = stats.per_command();
        let names: Vec<_> = totals.iter().map(|t| (t.name, t.calls, t.failed)).collect();
        assert_eq!(names, [("zscore", 0, 1), ("config|get", 2, 0)]);
    }

    #[test]
    fn times_are_counted_in_classes() {
        for (micros, class) in
            [(0, 0), (1, 0), (2, 1), (4, 1), (5, 2), (16, 2), (4_194_304, 11), (4_194_305, 12)]
        {
            assert_eq!(time_class(micros * 1000), class, "{micros}");
        }
        assert_eq!((time_class(1001), time_class(u64::MAX)), (1, 12));
        for (class, bound) in TIME_BOUNDS.into_iter().enumerate() {
            assert_eq!(time_class(bound * 1000), class);
        }
        let stats = Stats::default();
        let (one, other) = (stats.add_thread(), stats.add_thread());
        let get = table::find(b"get").unwrap();
        for thread in [&one, &other] {
            thread.command(get).unwrap().calls.add(3);
            thread.command(get).unwrap().add_time(3, 5000);
        }
        let totals = &stats.per_command()[0];
        let counts = totals.time_counts();
        assert_eq!((totals.nanos, counts[2], counts.iter().sum::<u64>()), (30_000, 6, 6));
    }

    #[test]
    fn a_rate_is_the_average_of_its_samples() {
        let (stats, rates) = (Stats::default(), Rates::default());
        let thread = stats.add_thread();
        for now in 0..=16 {
            thread.commands.add(5);
            rates.sample(Monotonic::from_nanos(now * 100_000_000), &stats);
        }
        assert_eq!(rates.per_second()[0], 50);
    }
}
