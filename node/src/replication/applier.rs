//! The thread that applies to the keyspace what replication decides: committed entries, and full syncs.
//!
//! A thread of its own, so that a large entry delays neither an acknowledgement nor a lease. What is done next:
//! `applying.rs`.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::ids::LogIndex;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::applying::{Applied, ApplierRequest, Applying};
use super::shared::{Engine, Shared};

/// Until it is looked again for a clearing that has to come.
const STUCK_PAUSE: Duration = Duration::from_millis(10);
/// Orders that may wait; the reader of the stream stops at that number of chunks.
const QUEUE_LEN_MAX: usize = 16;

#[derive(Debug)]
struct State {
    applying: Applying,
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
        let state = State { applying: Applying::new(applied), stopped: false };
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

    pub(crate) fn request(&self, request: ApplierRequest) {
        self.state.lock().applying.request(request);
        self.work.notify_one();
    }

    pub(crate) fn apply_up_to(&self, after: LogIndex, index: LogIndex) {
        self.state.lock().applying.apply_up_to(after, index);
        self.work.notify_one();
    }

    pub(crate) fn applied(&self) -> Applied {
        self.state.lock().applying.applied()
    }

    /// Waits until another chunk may be queued.
    pub(crate) async fn room(&self) {
        while self.state.lock().applying.queue_len() >= QUEUE_LEN_MAX {
            self.room.notified().await;
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.work.notify_one();
    }

    fn run(&self, shared: &Shared, engine: &dyn Engine) {
        loop {
            let (work, applied) = {
                let mut state = self.state.lock();
                loop {
                    if state.stopped {
                        return;
                    }
                    if let Some(work) = state.applying.next_work() {
                        break (work, state.applying.applied());
                    }
                    self.work.wait(&mut state);
                }
            };
            match work.carry_out(applied, shared, engine) {
                Ok(applied) => self.report(applied),
                Err(reason) => return self.fail(shared, reason),
            }
        }
    }

    /// Nothing more is applied, ever.
    fn fail(&self, shared: &Shared, reason: String) {
        tracing::error!(
            "this node follows its primary no more and serves nothing, as it cannot apply what that did: {reason}. If its \
             program is older than the primary's, start the newer one"
        );
        shared.apply_failure.get_or_init(|| reason);
        self.progress.notify_one();
    }

    fn report(&self, applied: Applied) {
        let mut state = self.state.lock();
        if !state.applying.done(applied) {
            self.work.wait_for(&mut state, STUCK_PAUSE);
        }
        drop(state);
        self.progress.notify_one();
        self.room.notify_one();
    }
}
