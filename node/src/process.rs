//! What the system knows about this process: memory, CPU time. Values for INFO.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use tikv_jemalloc_ctl::{epoch, stats};

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

pub fn memory() -> Memory {
    // Without this the statistics are those of the last time; an error leaves them as they are.
    if let Err(error) = epoch::advance() {
        tracing::debug!(%error, "no new statistics from the allocator");
    }
    let resident = stats::resident::read().unwrap_or(0);
    Memory {
        allocated: stats::allocated::read().unwrap_or(0),
        active: stats::active::read().unwrap_or(0),
        resident,
        rss: kilobytes("/proc/self/status", "VmRSS:").unwrap_or(resident),
        total_system: kilobytes("/proc/meminfo", "MemTotal:").unwrap_or(0),
    }
}

/// Bytes that the program has asked for.
pub fn allocated() -> usize {
    if epoch::advance().is_err() {
        return 0;
    }
    stats::allocated::read().unwrap_or(0)
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
