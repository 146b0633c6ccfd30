//! Clients that wait for a key (BLPOP and its like).
//!
//! A command that finds nothing leaves a [`Waiter`] in the slots of its keys, under the same locks under which it
//! found nothing. Whoever later pushes to such a key executes the waiting command in the name of its client, right
//! after the command that pushed and before anything else on that connection: first come, first served, as in
//! Valkey. The waiter's state decides between being served and giving up (timeout, CLIENT UNBLOCK, disconnect):
//! exactly one of them wins.

use std::sync::Arc;

use bytes::Bytes;
use keyward_proto::resp::Version;
use keyward_proto::resp::request::OwnedArgs;
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
    Served(Served),
    /// Given up, or its reply is taken.
    Over,
}

/// What a waiter gets.
#[derive(Debug)]
pub struct Served {
    pub reply: Bytes,
    /// The reply leaves when this index is committed.
    pub depends_on: u64,
    /// The lease was not seen to be valid after the execution.
    pub needs_lease: bool,
    /// Of the gate, when the command was executed.
    pub generation: u64,
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
                *state = State::Served(served);
                self.wake.notify_one();
                false
            }
            None => true,
        }
    }

    /// The reply, if there is one by now.
    pub fn take_reply(&self) -> Option<Served> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Served(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Over) {
            State::Served(served) => Some(served),
            State::Waiting | State::Over => None,
        }
    }

    /// Stops waiting; returns the reply if it was just served.
    pub fn give_up(&self) -> Option<Served> {
        match std::mem::replace(&mut *self.state.lock(), State::Over) {
            State::Served(served) => Some(served),
            State::Waiting | State::Over => None,
        }
    }
}
