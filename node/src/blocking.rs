//! Clients that wait for a key (BLPOP and its like).
//!
//! A command that finds nothing leaves a [`Waiter`] in the slots of its keys, under the same locks under which it
//! found nothing. Whoever later pushes to such a key executes the waiting command in the name of its client, right
//! after the command that pushed and before anything else on that connection: first come, first served, as in
//! Valkey. The waiter's state decides between being served and giving up (timeout, CLIENT UNBLOCK, disconnect):
//! exactly one of them wins.
//!
//! A wait belongs to the gate's generation in which it began. That number only grows, so whenever its connection looks,
//! before or after the node has another role, it sees that the wait is over: no wake-up can come too early.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::ids::Position;
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::resp::request::OwnedArgs;
use keyward_proto::resp::{Output, Version};
use keyward_proto::time::Monotonic;
use keyward_replication::gate::{Gate, GateState};
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::acl::User;
use crate::command::OnTimeout;
use crate::command::table::Row;

/// To whoever waits when the node gets another role.
pub const FORCED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

/// A command that waits.
#[derive(Debug)]
pub struct Waiter {
    pub client_id: u64,
    pub row: &'static Row,
    pub args: OwnedArgs,
    pub version: Version,
    pub keys: Vec<DbKey>,
    /// Its user, what that may do, and as of which version of the settings: see [`Session`](crate::io::session::Session).
    pub(crate) user: u64,
    pub(crate) rights: Option<Arc<User>>,
    pub(crate) followed: u64,
    /// It is executed again also when a key is gone or has another type.
    pub ends_without_key: bool,
    /// It is executed again after so many milliseconds, whether something came or not; zero: never.
    again_ms: AtomicU64,
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

/// The connection's side of a wait. Pure; the simulation's nodes end their waits with it, too.
#[derive(Debug)]
pub struct Blocked {
    pub waiter: Arc<Waiter>,
    on_timeout: OnTimeout,
    /// Of the gate, when it began.
    generation: u64,
    /// That there was nothing may be the work of a write that is not committed.
    found_nothing: ReplyCondition,
    deadline: Option<Monotonic>,
}

/// Why a connection looks at its wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Woken,
    TimeIsUp,
}

/// What a connection does when its wait has ended.
#[derive(Debug)]
pub enum Ending {
    /// With what was waited for.
    Served(Served),
    /// With nothing.
    Nothing(Served),
    /// With an error.
    Unblocked(&'static str),
    /// With an error, and the connection is closed: the node is not any more what it was when the client asked.
    Demoted(&'static str),
}

impl Blocked {
    pub(crate) fn new(waiter: Arc<Waiter>, on_timeout: OnTimeout, generation: u64) -> Blocked {
        Blocked { waiter, on_timeout, generation, found_nothing: ReplyCondition::default(), deadline: None }
    }

    /// How long it waits at most.
    pub fn wait_for(&mut self, timeout: Option<Duration>, now: Monotonic) {
        self.deadline = timeout.map(|timeout| now + timeout);
    }

    /// When its connection looks at it again, whatever happens.
    pub fn next_look(&self, now: Monotonic) -> Option<Duration> {
        let left = self.deadline.map(|deadline| deadline.since(now));
        left.into_iter().chain(self.waiter.again_after()).min()
    }

    /// Whether, now that its time is up, it is only executed again.
    pub fn is_only_again(&self, now: Monotonic) -> bool {
        self.waiter.again_after().is_some() && self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// The gate's generation in which the wait began.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The condition of what was executed before and with the command that waits.
    pub fn found_nothing_under(&mut self, condition: ReplyCondition) {
        self.found_nothing = condition;
    }

    /// How the wait has ended, if it has. Whoever waited in vain leaves the queues of its keys afterwards.
    pub fn end(&self, look: Look, gate: &Gate) -> Option<Ending> {
        let ended = match look {
            Look::Woken => self.waiter.take_end(),
            Look::TimeIsUp => self.waiter.give_up(),
        };
        match ended {
            Some(End::Served(served)) => Some(Ending::Served(served)),
            Some(End::Unblocked(Unblock::Timeout)) => Some(self.nothing()),
            Some(End::Unblocked(Unblock::Error)) => {
                Some(Ending::Unblocked("UNBLOCKED client unblocked via CLIENT UNBLOCK"))
            }
            None if look == Look::TimeIsUp => Some(self.nothing()),
            None if self.goes_on(gate) => None,
            None => {
                self.waiter.give_up();
                Some(Ending::Demoted(FORCED))
            }
        }
    }

    fn goes_on(&self, gate: &Gate) -> bool {
        if mutation::is_on(Mutation::WaitEndsByState) {
            return matches!(gate.state(), GateState::Primary | GateState::Holding | GateState::Undecided);
        }
        gate.generation() == self.generation
    }

    fn nothing(&self) -> Ending {
        let mut reply = Output::default();
        self.on_timeout.write(&mut reply.writer(self.waiter.version));
        let is_early = mutation::is_on(Mutation::NilBeforeCommit);
        let condition = if is_early { ReplyCondition::default() } else { self.found_nothing };
        Ending::Nothing(Served { reply, condition, written: Position::ZERO })
    }
}

/// What a waiter gets.
#[derive(Debug)]
pub struct Served {
    pub reply: Output,
    pub condition: ReplyCondition,
    /// The entry that serving it has appended.
    pub written: Position,
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
        let (ends_without_key, again_ms) = (false, AtomicU64::new(0));
        let state = Mutex::new(State::Waiting);
        let (user, rights, followed) = (0, None, 0);
        Waiter {
            client_id,
            row,
            args,
            version,
            keys,
            user,
            rights,
            followed,
            ends_without_key,
            again_ms,
            state,
            wake,
        }
    }

    /// After how long it is executed again, whether something came or not.
    pub fn again_after(&self) -> Option<Duration> {
        let again = self.again_ms.load(Ordering::Relaxed);
        (again != 0).then(|| Duration::from_millis(again))
    }

    pub fn set_again(&self, again_ms: Option<u64>) {
        self.again_ms.store(again_ms.unwrap_or(0), Ordering::Relaxed);
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
