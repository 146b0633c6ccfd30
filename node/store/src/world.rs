//! Stopping the world: for what concerns the whole keyspace (FLUSHALL, SWAPDB, a change of role).
//!
//! The moments between two batches of a thread are its *safepoints*. Each thread that executes commands has a lock that it
//! holds but at its safepoints: one uncontended lock operation per batch, nothing shared. Whoever stops the world takes
//! all these locks; then no command is running and none can start. Invariant: a thread that stops the world is at a
//! safepoint of its own, and only one thread stops it at a time, so there is no deadlock.

use std::sync::Arc;

use parking_lot::lock_api::ArcMutexGuard;
use parking_lot::{Mutex, RawMutex};

use crate::patience::may_wait_for_command;

/// Locked while its thread executes a batch.
pub type Safepoint = Arc<Mutex<()>>;

/// Of all threads.
#[derive(Debug, Default)]
pub struct World {
    /// The lock makes stopping exclusive.
    safepoints: Mutex<Vec<Safepoint>>,
}

/// While it lives no thread executes a command.
#[must_use]
pub struct Stopped<'a> {
    _batches: Vec<ArcMutexGuard<RawMutex, ()>>,
    _exclusive: parking_lot::MutexGuard<'a, Vec<Safepoint>>,
}

impl std::fmt::Debug for Stopped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopped")
    }
}

impl World {
    /// For a thread that will execute commands.
    pub fn add_thread(&self) -> Safepoint {
        may_wait_for_command();
        let safepoint = Safepoint::default();
        self.safepoints.lock().push(Arc::clone(&safepoint));
        safepoint
    }

    /// Waits until no thread executes a command and keeps it so. The caller is at a safepoint.
    pub fn stop(&self) -> Stopped<'_> {
        may_wait_for_command();
        let safepoints = self.safepoints.lock();
        Stopped { _batches: safepoints.iter().map(Mutex::lock_arc).collect(), _exclusive: safepoints }
    }

    /// Returns when every batch that was running at the time of the call is finished. Nobody is stopped for it: while
    /// it waits for a long command the others go on.
    pub fn quiesce(&self) {
        may_wait_for_command();
        let safepoints = self.safepoints.lock().clone();
        for safepoint in safepoints {
            drop(safepoint.lock());
        }
    }
}
