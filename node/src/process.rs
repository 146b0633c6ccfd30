//! What the system knows about this process: memory, CPU time. Values for INFO.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::cell::Cell;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tikv_jemalloc_ctl::thread::{self, ThreadLocal};
use tikv_jemalloc_ctl::{Access, AsName, epoch, stats};

use crate::config::OomScore;
use crate::memory::{Noted, UsedMemory};

/// Bytes, as the allocator and the kernel count them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// What the program has asked for.
    pub allocated: usize,
    /// In pages that hold at least one allocation.
    pub active: usize,
    pub resident: usize,
    /// As the kernel sees it.
    pub rss: usize,
    /// Of the machine.
    pub total_system: usize,
}

/// CPU time of this process, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

/// Files that are open besides clients' connections: listeners, the log, files being written, other nodes.
const RESERVED_FILES: u64 = 96;

/// How many of so many clients the system lets this process serve. Raises the limit of open files as far as it takes
/// and is allowed: many systems give much less than that at first.
pub fn clients_allowed(wanted: usize) -> usize {
    let files = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(RESERVED_FILES);
    let clients = allow_open_files(files).saturating_sub(RESERVED_FILES);
    usize::try_from(clients).unwrap_or(usize::MAX).min(wanted)
}

/// The limit in the end.
fn allow_open_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let set = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_ok();
    match (limit.current, limit.maximum) {
        (None, _) => wanted,
        (Some(current), _) if wanted <= current => wanted,
        // Who may raise the upper bound as well, does.
        (_, maximum) if set(Some(wanted), maximum.map(|most| most.max(wanted))) => wanted,
        (_, Some(maximum)) if set(Some(maximum), Some(maximum)) => maximum,
        (Some(current), _) => current,
    }
}

/// How readily the kernel ends this process when memory runs out: `oom-score-adj`.
#[derive(Debug, Default)]
pub(crate) struct OomScoreOfProcess {
    /// What it was before this program changed it.
    at_start: Option<i32>,
    current: Option<i32>,
}

impl OomScoreOfProcess {
    /// To be called now and then: the score depends on the role. `None`: as it was at the start.
    pub(crate) fn apply(&mut self, score: Option<OomScore>) {
        const FILE: &str = "/proc/self/oom_score_adj";
        if score.is_none() && self.current.is_none() {
            return;
        }
        let read = || std::fs::read_to_string(FILE).ok()?.trim().parse().ok();
        let at_start = *self.at_start.get_or_insert_with(|| read().unwrap_or(0));
        let wanted = match score {
            None => at_start,
            Some(OomScore::Relative(score)) => (at_start + score).clamp(-1000, 1000),
            Some(OomScore::Absolute(score)) => score.clamp(-1000, 1000),
        };
        if self.current.replace(wanted) != Some(wanted)
            && let Err(error) = std::fs::write(FILE, wanted.to_string())
        {
            tracing::warn!(%error, wanted, "oom-score-adj is refused by the system");
        }
    }
}

/// How much more polite a thread in the background is than others: the kernel gives it about a third of what it gives
/// a thread that serves clients, and runs one of those as soon as there is something to do.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 5;

/// The calling thread works in the background: threads that serve clients come first where cores are few. It still
/// gets its share on a machine that is busy all the time, so whoever waits for one of its locks does not wait for long.
pub fn run_in_background() {
    // Linux, other than POSIX, sets this for one thread.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICE) {
        tracing::debug!(%error, "a thread in the background has the priority of others");
    }
}

/// What the allocator and the system say; the allocator as of the last call of [`allocated`].
pub fn memory() -> Memory {
    static TOTAL_SYSTEM: OnceLock<usize> = OnceLock::new();
    let resident = stats::resident::read().unwrap_or(0);
    Memory {
        allocated: in_use(),
        active: stats::active::read().unwrap_or(0),
        resident,
        rss: kilobytes("/proc/self/status", "VmRSS:").unwrap_or(resident),
        total_system: *TOTAL_SYSTEM.get_or_init(|| kilobytes("/proc/meminfo", "MemTotal:").unwrap_or(0)),
    }
}

/// Bytes that the program has asked for.
pub fn allocated() -> usize {
    if epoch::advance().is_err() {
        return 0;
    }
    in_use()
}

/// As of the last `epoch::advance`. What threads have freed and keep for their next allocations is in the allocator's
/// total, but not in use.
fn in_use() -> usize {
    // 4096 stands for all arenas together.
    let kept: usize = b"stats.arenas.4096.tcache_bytes\0".name().read().unwrap_or(0);
    stats::allocated::read().unwrap_or(0).saturating_sub(kept)
}

/// Where the allocator counts for a thread, and what of it is already in the shared figure.
struct ThreadMemory {
    allocated: ThreadLocal<u64>,
    deallocated: ThreadLocal<u64>,
    noted: Cell<Noted>,
}

impl ThreadMemory {
    fn new() -> Option<ThreadMemory> {
        let (allocated, deallocated) = (thread::allocatedp::read().ok()?, thread::deallocatedp::read().ok()?);
        let memory = ThreadMemory { allocated, deallocated, noted: Cell::default() };
        memory.noted.set(Noted::new(memory.net()));
        Some(memory)
    }

    /// Bytes that the thread has allocated less those that it has freed, ever: negative where others allocate.
    #[inline]
    fn net(&self) -> i64 {
        self.allocated.get().wrapping_sub(self.deallocated.get()).cast_signed()
    }
}

thread_local! {
    static THREAD_MEMORY: Option<ThreadMemory> = ThreadMemory::new();
}

#[inline]
fn with_thread_memory(f: impl FnOnce(&mut Noted, i64)) {
    THREAD_MEMORY.with(|memory| {
        if let Some(memory) = memory {
            let mut noted = memory.noted.get();
            f(&mut noted, memory.net());
            memory.noted.set(noted);
        }
    });
}

/// Adds what this thread has allocated and freed to the shared figure, if it is worth it. For threads that do so all
/// the time: what was allocated long before is already in the figure.
#[inline]
pub fn note_memory(used: &UsedMemory) {
    with_thread_memory(|noted, net| used.note(noted, net));
}

/// As [`note_memory`], however little it is.
pub fn note_memory_exactly(used: &UsedMemory) {
    with_thread_memory(|noted, net| used.note_all(noted, net));
}

/// What this thread has allocated until now is in the shared figure already: it notes only now and then.
pub fn begin_noting_memory() {
    with_thread_memory(|noted, net| *noted = Noted::new(net));
}

/// Gives pages that hold nothing back to the system at once, rather than some seconds after they became empty.
pub fn purge() {
    let arenas = tikv_jemalloc_ctl::arenas::narenas::read().unwrap_or(0) as usize;
    for name in [&b"arena.0.dirty_decay_ms\0"[..], &b"arena.0.muzzy_decay_ms\0"[..]] {
        let Ok(mut decay) = name.name().mib::<[usize; 3]>() else { continue };
        for arena in 0..arenas {
            decay[1] = arena;
            // Setting it to "at once" does it at once. An arena that was never used refuses: there is nothing in it.
            let Ok(before) = decay.update(0_isize) else { continue };
            if let Err(error) = decay.write(before) {
                tracing::warn!(%error, arena, "the allocator gives memory back at once from now on");
            }
        }
    }
}

/// The allocator's own report.
pub fn allocator_report() -> Vec<u8> {
    let mut report = Vec::new();
    let options = tikv_jemalloc_ctl::stats_print::Options::default();
    if let Err(error) = tikv_jemalloc_ctl::stats_print::stats_print(&mut report, options) {
        tracing::warn!(%error, "the allocator's report is incomplete");
    }
    report
}

fn kilobytes(file: &str, field: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

pub fn cpu() -> Cpu {
    // Fields 14 and 15, counted behind the program's name in parentheses; in ticks of 10 ms.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let seconds = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    Cpu { user: seconds(11), system: seconds(12) }
}

/// `Linux 6.1.0 x86_64`
pub fn system() -> String {
    let name = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    format!("{} {} {}", part(name.sysname()), part(name.release()), part(name.machine()))
}

/// Path of the program.
pub fn executable() -> String {
    std::env::current_exe().map_or_else(|_| String::new(), |p| p.display().to_string())
}
