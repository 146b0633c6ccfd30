//! What an I/O thread does once for all of its connections that were ready, rather than for each of them: a *pass*.
//!
//! Connections are read and executed one after the other; what they append to the log, and what they are to receive, is
//! only noted here. The thread's last task of the pass then hands the log over to those who read it, and writes. So the
//! log on disk and the replicas get everything at once, and so do clients: who is woken by a first reply finds more.
//!
//! That task runs behind all others that were ready when the first of them had something for it, since the runtime's
//! queue is in order.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use keyward_proto::resp::Output;

use super::connection::Connection;
use super::threads::IoThread;

/// Replies longer than this are written at once: they are no small packets.
pub(super) const DEFERRED_BYTES_MAX: usize = 16 << 10;
/// Empty buffers that are kept.
const SPARE_MAX: usize = 128;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Pass {
    /// Connections with something to write.
    writers: RefCell<Vec<Weak<RefCell<Connection>>>>,
    appended: Cell<bool>,
    /// A reply is held, and what it waits for may have come before anybody would tell.
    has_holder: Cell<bool>,
    is_due: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Buffers for replies.
    spare: RefCell<Vec<Output>>,
}

impl Pass {
    /// The log has more entries.
    #[inline]
    pub(super) fn note_appended(&self) {
        self.appended.set(true);
        self.call();
    }

    /// Those that hold replies are to be looked at once.
    #[inline]
    pub(super) fn note_holder(&self) {
        self.has_holder.set(true);
        self.call();
    }

    /// This connection has something to write, which it notes here once.
    #[inline]
    pub(super) fn add_writer(&self, connection: Weak<RefCell<Connection>>) {
        self.writers.borrow_mut().push(connection);
        self.call();
    }

    #[inline]
    fn call(&self) {
        if !self.is_due.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// An empty buffer, with memory if there is one.
    #[inline]
    pub(super) fn take_spare(&self) -> Output {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    #[inline]
    pub(super) fn put_spare(&self, mut buffer: Output) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            buffer.clear();
            buffer.shrink(DEFERRED_BYTES_MAX);
            spare.push(buffer);
        }
    }

    fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_due.replace(false) {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Ends the passes of a thread, for ever.
pub(super) async fn run(thread: Rc<IoThread>) {
    let mut writers = Vec::new();
    loop {
        std::future::poll_fn(|cx| thread.pass.poll_due(cx)).await;
        let shared = &thread.server().shared;
        let committed = shared.gate.commit_index();
        if thread.pass.appended.take() {
            shared.notify_appended();
        }
        if thread.pass.has_holder.take() || committed < shared.gate.commit_index() {
            thread.release_held();
        }
        std::mem::swap(&mut writers, &mut *thread.pass.writers.borrow_mut());
        for connection in writers.drain(..).filter_map(|connection| connection.upgrade()) {
            connection.borrow_mut().end_pass();
        }
    }
}
