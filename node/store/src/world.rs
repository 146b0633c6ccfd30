//! Stopping the world: for what concerns the whole keyspace (FLUSHALL, SWAPDB, a change of role).
//!
//! Each thread that executes commands has a gate, a lock that it holds while it executes a batch: one uncontended
//! lock operation per batch, nothing shared. Whoever stops the world takes all gates; then no command is running
//! and none can start. Invariant: a thread that stops the world does not hold its own gate, and only one thread
//! stops it at a time, so there is no deadlock.

use std::sync::Arc;

use parking_lot::lock_api::ArcMutexGuard;
use parking_lot::{Mutex, RawMutex};

/// A thread's gate.
pub type Gate = Arc<Mutex<()>>;

/// All gates.
#[derive(Debug, Default)]
pub struct World {
    /// The lock makes stopping exclusive.
    gates: Mutex<Vec<Gate>>,
}

/// While it lives no thread executes a command.
#[must_use]
pub struct Stopped<'a> {
    _gates: Vec<ArcMutexGuard<RawMutex, ()>>,
    _exclusive: parking_lot::MutexGuard<'a, Vec<Gate>>,
}

impl std::fmt::Debug for Stopped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopped")
    }
}

impl World {
    /// A gate for a thread that will execute commands.
    pub fn add_gate(&self) -> Gate {
        let gate = Gate::default();
        self.gates.lock().push(Arc::clone(&gate));
        gate
    }

    /// Waits until no thread executes a command and keeps it so. The caller must not hold a gate.
    pub fn stop(&self) -> Stopped<'_> {
        let gates = self.gates.lock();
        Stopped { _gates: gates.iter().map(Mutex::lock_arc).collect(), _exclusive: gates }
    }

    /// Returns when every batch that was running at the time of the call is finished.
    pub fn quiesce(&self) {
        drop(self.stop());
    }
}
