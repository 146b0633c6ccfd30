//! Where the memory goes: what INFO memory and MEMORY STATS tell.

use keyward_store::DbIndex;

use crate::admin::ServerContext;
use crate::process;

/// Bytes, unless a name says otherwise.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) memory: process::Memory,
    pub(super) used: usize,
    pub(super) peak: usize,
    pub(super) startup: usize,
    /// The write log that is in memory.
    pub(super) log: usize,
    /// Clients with their buffers.
    pub(super) clients: usize,
    /// The buckets of each database that has keys.
    pub(super) tables: Vec<(DbIndex, usize)>,
    /// Number of keys.
    pub(super) keys: usize,
}

impl Overview {
    pub(super) fn of(ctx: &mut ServerContext<'_, '_>) -> Overview {
        let server = ctx.server;
        server.correct_memory();
        let used = server.memory.used();
        let counts = ctx.keys.counts_of_all();
        Overview {
            memory: process::memory(),
            used,
            peak: server.memory.peak().max(used),
            startup: server.memory.startup().min(used),
            log: server.shared.log.lock().allocated_bytes(),
            clients: server.clients.summary(server.clock.monotonic()).memory_bytes,
            tables: counts
                .iter()
                .map(|(db, count)| (*db, usize::try_from(count.bucket_bytes).unwrap_or(0)))
                .collect(),
            keys: counts.values().map(|count| count.keys()).sum(),
        }
    }

    /// What is there beside the keys and values.
    pub(super) fn overhead(&self) -> usize {
        let tables: usize = self.tables.iter().map(|(_, bytes)| bytes).sum();
        (self.startup + self.log + self.clients + tables).min(self.used)
    }

    pub(super) fn dataset(&self) -> usize {
        self.used - self.overhead()
    }

    /// Of what is used beyond the start.
    pub(super) fn dataset_percentage(&self) -> f64 {
        ratio(self.dataset(), self.used - self.startup) * 100.0
    }

    pub(super) fn peak_percentage(&self) -> f64 {
        ratio(self.used, self.peak) * 100.0
    }
}

/// Zero if there is nothing to divide by.
#[allow(clippy::cast_precision_loss, reason = "shown with a few digits")]
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `part - whole`, negative if part is the smaller.
pub(super) fn excess(part: usize, whole: usize) -> i64 {
    i64::try_from(part).unwrap_or(i64::MAX).saturating_sub(i64::try_from(whole).unwrap_or(i64::MAX))
}
