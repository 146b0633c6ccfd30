//! While an I/O thread runs a script for longer than `busy-reply-threshold`, the script lets it look after its other
//! connections now and then: they are told that the node is busy, and one of them may end the script.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use keyward_proto::resp::{Batch, Output};
use keyward_proto::time::Monotonic;

use super::threads::IoThread;
use crate::clock;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The script has so many times as much of the thread as the connections.
const SHARE_OF_SCRIPT: u32 = 9;
/// Bytes that one read may bring.
const READ_BYTES: usize = 16 << 10;

thread_local! {
    static THREAD: RefCell<Weak<IoThread>> = const { RefCell::new(Weak::new()) };
    static NEXT_LOOK: Cell<Monotonic> = const { Cell::new(Monotonic::ZERO) };
}

/// This thread is an I/O thread.
pub(super) fn register(thread: &Rc<IoThread>) {
    THREAD.set(Rc::downgrade(thread));
}

/// Serves this thread's connections, but for the script's own, if it is time.
#[cold]
pub(crate) fn look(now: Monotonic) {
    if now < NEXT_LOOK.get() {
        return;
    }
    let Some(thread) = THREAD.with_borrow(Weak::upgrade) else { return };
    thread.accept_ready();
    let connections: Vec<_> = thread.connections.borrow().values().filter_map(Weak::upgrade).collect();
    let (mut input, mut batch, mut out) = (vec![0; READ_BYTES], Batch::default(), Output::default());
    for connection in connections {
        if let Ok(mut connection) = connection.try_borrow_mut() {
            connection.serve_meanwhile(&mut input, &mut batch, &mut out);
        }
    }
    let end = clock::monotonic();
    NEXT_LOOK.set(end + LOOK_EVERY.max(end.since(now) * SHARE_OF_SCRIPT));
}
