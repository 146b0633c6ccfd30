//! The thread that applies to the keyspace what replication decides: committed entries, and full syncs.
//!
//! A thread of its own, so that a large entry delays neither an acknowledgement nor a lease. Orders are carried out
//! as they come; entries are read from the log up to the target, which only clearing takes back.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::VecDeque;
use std::sync::Arc;

use keyward_proto::ids::LogIndex;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::messages::SnapshotPart;
use super::received::SlotSet;
use super::shared::{Engine, Shared};
use crate::log::frames;

/// Bytes of entries between two reports.
const READ_BYTES: usize = 256 << 10;
/// Orders that may wait; the reader of the stream stops at that number of chunks.
const QUEUE_LEN_MAX: usize = 16;

#[derive(Debug)]
pub(crate) enum Order {
    Clear { epoch: u64 },
    KeepSlots(SlotSet),
    Snapshot(Vec<SnapshotPart>),
    Finish { from: LogIndex, indexes: Arc<[LogIndex]> },
    ForgetSlotIndexes,
}

/// What the keyspace contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) epoch: u64,
    pub(crate) index: LogIndex,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Order>,
    target: LogIndex,
    /// Commands have executed up to here since the last target.
    executed: LogIndex,
    applied: Applied,
    stopped: bool,
}

#[derive(Debug)]
pub(crate) struct Applier {
    /// Held by the thread only between two pieces of work.
    state: Mutex<State>,
    work: Condvar,
    /// The thread has applied something.
    pub(crate) progress: Arc<Notify>,
    room: Notify,
}

impl Applier {
    /// Starts the thread; the keyspace contains the log up to `applied`.
    pub(crate) fn start(
        shared: Arc<Shared>,
        engine: Arc<dyn Engine>,
        applied: LogIndex,
    ) -> std::io::Result<Arc<Applier>> {
        let state = State {
            queue: VecDeque::new(),
            target: applied,
            executed: applied,
            applied: Applied { epoch: 0, index: applied },
            stopped: false,
        };
        let applier = Arc::new(Applier {
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Arc::new(Notify::new()),
            room: Notify::new(),
        });
        let thread = Arc::clone(&applier);
        std::thread::Builder::new().name("apply".into()).spawn(move || thread.run(&shared, &*engine))?;
        Ok(applier)
    }

    pub(crate) fn order(&self, order: Order) {
        let mut state = self.state.lock();
        if matches!(order, Order::Clear { .. }) {
            state.queue.clear();
            state.target = LogIndex::ZERO;
            state.executed = LogIndex::ZERO;
        }
        state.queue.push_back(order);
        self.work.notify_one();
    }

    pub(crate) fn apply_up_to(&self, after: LogIndex, index: LogIndex) {
        let mut state = self.state.lock();
        if state.target < after {
            state.executed = after;
        }
        state.target = index;
        self.work.notify_one();
    }

    pub(crate) fn applied(&self) -> Applied {
        self.state.lock().applied
    }

    /// Waits until another chunk may be queued.
    pub(crate) async fn room(&self) {
        while self.state.lock().queue.len() >= QUEUE_LEN_MAX {
            self.room.notified().await;
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.work.notify_one();
    }

    fn run(&self, shared: &Shared, engine: &dyn Engine) {
        loop {
            let (order, applied, target) = {
                let mut state = self.state.lock();
                loop {
                    if state.stopped {
                        return;
                    }
                    state.applied.index = state.applied.index.max(state.executed);
                    if !state.queue.is_empty() || state.applied.index < state.target {
                        break;
                    }
                    self.work.wait(&mut state);
                }
                (state.queue.pop_front(), state.applied, state.target)
            };
            let applied = match order {
                Some(order) => carry_out(order, applied, engine),
                None => apply_entries(applied, target, shared, engine),
            };
            self.report(applied);
        }
    }

    fn report(&self, applied: Applied) {
        let mut state = self.state.lock();
        if state.applied == applied && state.queue.is_empty() && applied.index < state.target {
            // The entries are not in the log any more: a clearing is on its way.
            self.work.wait_for(&mut state, std::time::Duration::from_millis(10));
        }
        state.applied = applied;
        drop(state);
        self.progress.notify_one();
        self.room.notify_one();
    }
}

fn carry_out(order: Order, applied: Applied, engine: &dyn Engine) -> Applied {
    match order {
        Order::Clear { epoch } => {
            engine.set_slot_indexes(None);
            engine.clear();
            Applied { epoch, index: LogIndex::ZERO }
        }
        Order::KeepSlots(slots) => {
            engine.keep_slots(&slots);
            applied
        }
        Order::Snapshot(parts) => {
            for part in parts.iter().filter(|p| !p.payload.is_empty()) {
                engine.apply_snapshot(part.slot, &part.payload);
            }
            applied
        }
        Order::Finish { from, indexes } => {
            engine.set_slot_indexes(Some(indexes));
            Applied { index: from, ..applied }
        }
        Order::ForgetSlotIndexes => {
            engine.set_slot_indexes(None);
            applied
        }
    }
}

/// Some entries after `applied`, none beyond `target`.
fn apply_entries(applied: Applied, target: LogIndex, shared: &Shared, engine: &dyn Engine) -> Applied {
    let next = applied.index.next();
    let slice = {
        let mut log = shared.log.lock();
        // A full sync may have reset the log meanwhile; its clearing comes next.
        if log.last().index < next {
            return applied;
        }
        log.read_from(next, READ_BYTES)
    };
    let Ok(slice) = slice else { return applied };
    let mut index = applied.index;
    for payload in frames(&slice.bytes) {
        if index == target {
            break;
        }
        index = index.next();
        engine.apply(index, payload);
    }
    Applied { index, ..applied }
}
