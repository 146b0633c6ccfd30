//! Threads that wait for no command.
//!
//! A command may hold its slots for as long as it takes, and keep the world from being stopped. Whoever keeps what a
//! node has promised to others (beacons, acknowledgements, new connections) must not wait for that, or a long command
//! looks like a dead node. Such a thread says so once, and taking one of these locks on it is a fault that every build
//! with debug assertions finds; release builds know nothing of it.

#[cfg(debug_assertions)]
use std::cell::Cell;

#[cfg(debug_assertions)]
thread_local! {
    static WAITS_FOR_NO_COMMAND: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread takes no lock that a command may hold.
pub fn wait_for_no_command() {
    #[cfg(debug_assertions)]
    WAITS_FOR_NO_COMMAND.set(true);
}

/// While `f` runs nothing else depends on this thread: it may wait.
pub fn while_waiting<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(debug_assertions)]
    let before = WAITS_FOR_NO_COMMAND.replace(false);
    let result = f();
    #[cfg(debug_assertions)]
    WAITS_FOR_NO_COMMAND.set(before);
    result
}

/// Before a lock is taken that a command may hold.
#[inline]
#[track_caller]
pub fn may_wait_for_command() {
    #[cfg(debug_assertions)]
    assert!(
        !WAITS_FOR_NO_COMMAND.get(),
        "a thread that keeps a node's promises waits for a lock that a command may hold"
    );
}

#[cfg(test)]
mod tests;
