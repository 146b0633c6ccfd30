//! Which thread writes the log to disk: one of its own, and whoever has appended.
//!
//! An I/O thread that has appended writes itself what was appended, with one call of the system and no change of threads,
//! if the writer is free and nothing but a short write is due. Everything else (syncs, other files, failures, a disk that
//! is busy) is left to the thread. Nobody waits for the writer: who finds it taken leaves a note, and who gives it back
//! looks for notes.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use parking_lot::Mutex;

use super::writer::{AtOnce, Next, Writer};
use crate::replication::DiskWriter;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct SharedWriter {
    writer: Mutex<Writer>,
    /// Entries were appended that whoever has the writer now may not have seen.
    has_more: AtomicBool,
    thread: OnceLock<Thread>,
}

impl SharedWriter {
    pub(super) fn new(writer: Writer) -> Arc<SharedWriter> {
        Arc::new(SharedWriter {
            writer: Mutex::new(writer),
            has_more: AtomicBool::new(false),
            thread: OnceLock::new(),
        })
    }

    /// The writer's thread.
    pub(super) fn run(self: Arc<Self>) {
        self.thread.get_or_init(std::thread::current);
        let server = Arc::clone(&self.writer.lock().server);
        self.writer.lock().start();
        server.shared.set_disk_writer(Some(Arc::clone(&self) as Arc<dyn DiskWriter>));
        loop {
            self.has_more.store(false, Ordering::SeqCst);
            let next = self.writer.lock().step();
            fence(Ordering::SeqCst);
            match next {
                Next::Again => {}
                Next::Wait(_) if self.has_more.load(Ordering::SeqCst) => {}
                Next::Wait(time) => std::thread::park_timeout(time),
                Next::End => break,
            }
        }
        server.shared.set_disk_writer(None);
        self.writer.lock().close();
        server.aof.note_stopped();
    }
}

impl DiskWriter for SharedWriter {
    fn note_appended(&self) {
        self.has_more.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.has_more.load(Ordering::SeqCst) {
            let Some(mut writer) = self.writer.try_lock() else { return };
            self.has_more.store(false, Ordering::SeqCst);
            let left = writer.write_appended();
            drop(writer);
            fence(Ordering::SeqCst);
            if left == AtOnce::More {
                self.wake();
            }
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
