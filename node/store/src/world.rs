//! Stopping the world: for what concerns the whole keyspace (FLUSHALL, SWAPDB, a change of role).
//!
//! The moments between two batches of a thread are its *safepoints*. Each thread that executes commands has a lock that it
//! holds but at its safepoints: one uncontended lock operation per batch, nothing shared. Whoever stops the world takes
//! all these locks; then no command is running and none can start. Invariant: a thread that stops the world is at a
//! safepoint of its own, and only one thread stops it at a time, so there is no deadlock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::lock_api::ArcMutexGuard;
use parking_lot::{Mutex, RawMutex};

use crate::patience::may_wait_for_command;

/// Locked while its thread executes a batch.
pub type Safepoint = Arc<Mutex<()>>;

/// The thread to which the safepoint belongs executes a batch as long as this lives.
pub type Batch = ArcMutexGuard<RawMutex, ()>;

/// Whoever may give up waiting looks again after this time whether it should.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Locks at once or after waiting, unless `gives_up` says so meanwhile. `lock` tries for so long.
#[cold]
pub(crate) fn wait_for<G>(lock: impl Fn(Duration) -> Option<G>, gives_up: impl Fn() -> bool) -> Option<G> {
    loop {
        let locked = lock(LOOK_EVERY);
        if locked.is_some() || gives_up() {
            return locked;
        }
    }
}

/// Begins a batch, unless `gives_up` says meanwhile that the end of who has stopped the world is not to be waited for.
#[inline]
pub fn begin_batch(safepoint: &Safepoint, gives_up: impl Fn() -> bool) -> Option<Batch> {
    safepoint.try_lock_arc().or_else(|| wait_for(|patience| safepoint.try_lock_arc_for(patience), gives_up))
}

/// Of all threads.
#[derive(Debug, Default)]
pub struct World {
    /// The lock makes stopping exclusive.
    safepoints: Mutex<Vec<Safepoint>>,
}

/// While it lives no thread executes a command.
#[must_use]
pub struct Stopped<'a> {
    batches: Vec<Batch>,
    _exclusive: parking_lot::MutexGuard<'a, Vec<Safepoint>>,
}

impl std::fmt::Debug for Stopped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopped")
    }
}

impl Stopped<'_> {
    /// The others go on, and the thread that has stopped them with a batch: nobody stops the world in between.
    pub fn end_with_batch(self, safepoint: &Safepoint) -> Option<Batch> {
        self.batches.into_iter().find(|batch| Arc::ptr_eq(ArcMutexGuard::mutex(batch), safepoint))
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
        Stopped { batches: safepoints.iter().map(Mutex::lock_arc).collect(), _exclusive: safepoints }
    }

    /// As [`World::stop`], unless `gives_up` says meanwhile that what still runs is not to be waited for.
    pub fn stop_unless(&self, gives_up: impl Fn() -> bool) -> Option<Stopped<'_>> {
        may_wait_for_command();
        let safepoints = wait_for(|patience| self.safepoints.try_lock_for(patience), &gives_up)?;
        let batches = safepoints.iter().map(|safepoint| begin_batch(safepoint, &gives_up));
        Some(Stopped { batches: batches.collect::<Option<_>>()?, _exclusive: safepoints })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_leaves_the_world_as_it_was() {
        let world = World::default();
        let (mine, other) = (world.add_thread(), world.add_thread());
        let batch = other.lock_arc();
        assert!(world.stop_unless(|| true).is_none());
        assert!(begin_batch(&mine, || true).is_some(), "its safepoint is free again");
        drop(batch);
        let stopped = world.stop_unless(|| true).expect("nobody is in the way");
        assert!(begin_batch(&other, || true).is_none());
        assert!(world.stop_unless(|| true).is_none(), "one at a time");
        let batch = stopped.end_with_batch(&mine).expect("it is one of them");
        assert!(begin_batch(&other, || true).is_some(), "the others go on");
        assert!(begin_batch(&mine, || true).is_none());
        drop(batch);
    }
}
