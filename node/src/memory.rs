//! How much memory is in use, known at any time and nearly for free.
//!
//! The allocator counts per thread what it hands out and takes back; reading that is two loads. A thread adds what has
//! changed to the shared figure whenever it exceeds [`NOTED_BYTES`], so the figure lags by no more than that per
//! thread. What threads that never note anything allocate, and rounding, come in with [`UsedMemory::correct`], which
//! asks the allocator for its own total and is called every few milliseconds while `maxmemory` is set.
//!
//! Not counted towards `maxmemory`: the write log in memory (bounded by `repl-backlog-size`; counting it, the effects
//! of evictions could evict more) and values that are already on their way to be freed ([`crate::lazyfree`]).
//!
//! Pure: the counts are arguments.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use keyward_proto::time::Monotonic;

/// What a thread may keep for itself before it adds it to the shared figure.
const NOTED_BYTES: i64 = 16 << 10;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct UsedMemory {
    /// Bytes; never negative but for moments.
    used: AtomicI64,
    not_counted: AtomicUsize,
    /// Of values that are on their way to be freed.
    being_freed: AtomicUsize,
    startup: AtomicUsize,
    peak: AtomicUsize,
    /// Since when more is in use than allowed, in nanoseconds as of [`Monotonic`]; zero: not so.
    exceeded_since: AtomicU64,
    /// Nanoseconds, ever, without the current time.
    exceeded_total: AtomicU64,
}

/// What one thread has already added to the shared figure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noted(i64);

impl Noted {
    /// Everything up to `net` is in the shared figure.
    pub fn new(net: i64) -> Noted {
        Noted(net)
    }
}

impl UsedMemory {
    /// `net`: bytes that this thread has allocated less those that it has freed, ever.
    #[inline]
    pub fn note(&self, noted: &mut Noted, net: i64) {
        if (net - noted.0).abs() >= NOTED_BYTES {
            self.note_all(noted, net);
        }
    }

    /// As [`UsedMemory::note`], however little it is.
    pub fn note_all(&self, noted: &mut Noted, net: i64) {
        self.used.fetch_add(net - noted.0, Ordering::Relaxed);
        noted.0 = net;
    }

    /// The allocator's own total has been read: the shared figure follows it. `before` is [`UsedMemory::figure`] from
    /// just before, so that what threads note meanwhile is kept.
    pub fn correct(&self, before: i64, total: usize, not_counted: usize) {
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        self.used.fetch_add(total - before, Ordering::Relaxed);
        self.not_counted.store(not_counted, Ordering::Relaxed);
        self.peak.fetch_max(self.used(), Ordering::Relaxed);
    }

    pub fn figure(&self) -> i64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn used(&self) -> usize {
        usize::try_from(self.figure()).unwrap_or(0)
    }

    /// What `maxmemory` limits.
    #[inline]
    pub fn counted(&self) -> usize {
        let apart = self.not_counted.load(Ordering::Relaxed) + self.being_freed.load(Ordering::Relaxed);
        self.used().saturating_sub(apart)
    }

    pub fn not_counted(&self) -> usize {
        self.not_counted.load(Ordering::Relaxed)
    }

    /// A value of about so many bytes waits to be freed.
    pub fn begin_freeing(&self, bytes: usize) {
        self.being_freed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It has been freed, and the thread that did it has noted that.
    pub fn end_freeing(&self, bytes: usize) {
        self.being_freed.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn set_startup(&self, bytes: usize) {
        self.startup.store(bytes, Ordering::Relaxed);
    }

    /// Bytes in use once the server was set up.
    pub fn startup(&self) -> usize {
        self.startup.load(Ordering::Relaxed)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Called regularly: whether more than `limit` (zero: none) is in use at the time `now`. One caller.
    pub fn watch_limit(&self, limit: usize, now: Monotonic) {
        let since = self.exceeded_since.load(Ordering::Relaxed);
        let exceeded = limit != 0 && limit < self.counted();
        if exceeded && since == 0 {
            self.exceeded_since.store(now.as_nanos(), Ordering::Relaxed);
        } else if !exceeded && since != 0 {
            self.exceeded_total.fetch_add(now.as_nanos().saturating_sub(since), Ordering::Relaxed);
            self.exceeded_since.store(0, Ordering::Relaxed);
        }
    }

    /// For how many milliseconds more than the limit was in use, ever and this time.
    pub fn exceeded_millis(&self, now: Monotonic) -> (u64, u64) {
        let current = match self.exceeded_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.as_nanos().saturating_sub(since),
        };
        let total = self.exceeded_total.load(Ordering::Relaxed) + current;
        (total / NANOS_PER_MILLI, current / NANOS_PER_MILLI)
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        self.peak.store(self.used(), Ordering::Relaxed);
        self.exceeded_total.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_noted_together() {
        let (memory, mut noted) = (UsedMemory::default(), Noted::default());
        memory.note(&mut noted, NOTED_BYTES - 1);
        assert_eq!(memory.used(), 0);
        memory.note(&mut noted, NOTED_BYTES);
        memory.note(&mut noted, NOTED_BYTES + 5);
        assert_eq!(memory.used(), usize::try_from(NOTED_BYTES).unwrap());
        memory.note_all(&mut noted, 5);
        assert_eq!(memory.used(), 5);
    }

    #[test]
    fn the_time_above_the_limit_is_counted() {
        let memory = UsedMemory::default();
        let at = |millis: u64| Monotonic::from_nanos(millis * NANOS_PER_MILLI);
        memory.correct(0, 500, 0);
        memory.watch_limit(0, at(10));
        assert_eq!(memory.exceeded_millis(at(10)), (0, 0));
        memory.watch_limit(400, at(20));
        memory.watch_limit(400, at(30));
        assert_eq!(memory.exceeded_millis(at(50)), (30, 30));
        memory.watch_limit(600, at(60));
        assert_eq!(memory.exceeded_millis(at(90)), (40, 0));
    }

    #[test]
    fn a_correction_keeps_what_is_noted_meanwhile() {
        let (memory, mut noted) = (UsedMemory::default(), Noted::default());
        let before = memory.figure();
        memory.note_all(&mut noted, 100);
        memory.correct(before, 5000, 70);
        assert_eq!((memory.used(), memory.peak(), memory.counted()), (5100, 5100, 5030));
        memory.begin_freeing(30);
        assert_eq!(memory.counted(), 5000);
        memory.end_freeing(30);
        memory.correct(memory.figure(), 10, 70);
        assert_eq!((memory.used(), memory.peak(), memory.counted()), (10, 5100, 0));
    }
}
