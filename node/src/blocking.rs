//! Clients that wait for a key (BLPOP and its like).
//!
//! A command that finds nothing leaves a [`Waiter`] in the slots of its keys, under the same locks under which it
//! found nothing. Whoever later pushes to such a key executes the waiting command in the name of its client, right
//! after the command that pushed and before anything else on that connection: first come, first served, as in
//! Valkey. The waiter's state decides between being served and giving up (timeout, CLIENT UNBLOCK, disconnect):
//! exactly one of them wins.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use keyward_proto::resp::request::OwnedArgs;
use keyward_proto::resp::{Output, Version};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::command::table::Row;
use crate::keyspace::DbKey;

/// A command that waits.
#[derive(Debug)]
pub struct Waiter {
    pub client_id: u64,
    pub row: &'static Row,
    pub args: OwnedArgs,
    pub version: Version,
    pub keys: Vec<DbKey>,
    state: Mutex<State>,
    /// Wakes the waiting connection.
    wake: Arc<Notify>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Ended(End),
    /// Given up, or its end was noticed.
    Over,
}

/// How a wait ends for which the connection is not the reason.
#[derive(Debug)]
pub enum End {
    Served(Served),
    Unblocked(Unblock),
}

/// How CLIENT UNBLOCK ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblock {
    Timeout,
    Error,
}

/// What a waiter gets.
#[derive(Debug)]
pub struct Served {
    pub reply: Output,
    /// The reply leaves when this index is committed.
    pub depends_on: u64,
    /// The lease was not seen to be valid after the execution.
    pub needs_lease: bool,
    /// Of the gate, when the command was executed.
    pub generation: u64,
}

impl keyward_store::slots::Waiter for Waiter {}

/// What waits in a slot is a [`Waiter`] of this program.
pub fn downcast(waiter: Arc<dyn keyward_store::slots::Waiter>) -> Option<Arc<Waiter>> {
    let any: Arc<dyn Any + Send + Sync> = waiter;
    any.downcast().ok()
}

impl Waiter {
    pub fn new(
        client_id: u64,
        row: &'static Row,
        args: OwnedArgs,
        version: Version,
        keys: Vec<DbKey>,
        wake: Arc<Notify>,
    ) -> Self {
        Waiter { client_id, row, args, version, keys, state: Mutex::new(State::Waiting), wake }
    }

    /// Executes the waiting command, unless the waiter has given up; `serve` returns what it got, if anything.
    /// Whether the waiter is still waiting afterwards.
    pub fn try_serve(&self, serve: impl FnOnce() -> Option<Served>) -> bool {
        let mut state = self.state.lock();
        if !matches!(*state, State::Waiting) {
            return false;
        }
        match serve() {
            Some(served) => {
                *state = State::Ended(End::Served(served));
                self.wake.notify_one();
                false
            }
            None => true,
        }
    }

    /// CLIENT UNBLOCK: from now on it is not served. Whether it was still waiting.
    pub fn unblock(&self, how: Unblock) -> bool {
        let mut state = self.state.lock();
        let waits = matches!(*state, State::Waiting);
        if waits {
            *state = State::Ended(End::Unblocked(how));
            self.wake.notify_one();
        }
        waits
    }

    /// How the wait has ended, if it has.
    pub fn take_end(&self) -> Option<End> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Ended(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Over) {
            State::Ended(end) => Some(end),
            State::Waiting | State::Over => None,
        }
    }

    /// Stops waiting; returns how the wait has just ended for another reason, if it has.
    pub fn give_up(&self) -> Option<End> {
        match std::mem::replace(&mut *self.state.lock(), State::Over) {
            State::Ended(end) => Some(end),
            State::Waiting | State::Over => None,
        }
    }
}
