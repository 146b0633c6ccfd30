//! The thread that syncs the file once a second, so that the writer does not have to wait for the disk.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::Thread;

use parking_lot::{Condvar, Mutex};

/// What is to be synced.
#[derive(Debug)]
struct Job {
    file: Arc<File>,
    /// Unparked when it is done.
    waiting: Thread,
}

#[derive(Debug, Default)]
struct State {
    job: Option<Job>,
    done: Option<io::Result<()>>,
    busy: bool,
    stopped: bool,
}

/// At most one job at a time.
#[derive(Debug, Default)]
pub struct Syncer {
    state: Mutex<State>,
    work: Condvar,
}

impl Syncer {
    /// # Errors
    /// The system refuses a thread.
    pub fn start() -> io::Result<Arc<Syncer>> {
        let syncer = Arc::new(Syncer::default());
        let thread = Arc::clone(&syncer);
        std::thread::Builder::new().name("aof-sync".into()).spawn(move || thread.run())?;
        Ok(syncer)
    }

    /// The caller has seen that nothing is being synced. `waiting` is unparked when it is done.
    pub fn submit(&self, file: Arc<File>, waiting: Thread) {
        let mut state = self.state.lock();
        assert!(!state.busy, "one job at a time");
        state.busy = true;
        state.job = Some(Job { file, waiting });
        self.work.notify_one();
    }

    pub fn take_done(&self) -> Option<io::Result<()>> {
        self.state.lock().done.take()
    }

    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.work.notify_one();
    }

    fn run(&self) {
        loop {
            let Job { file, waiting } = {
                let mut state = self.state.lock();
                loop {
                    if let Some(job) = state.job.take() {
                        break job;
                    }
                    if state.stopped {
                        return;
                    }
                    self.work.wait(&mut state);
                }
            };
            let result = file.sync_data();
            let mut state = self.state.lock();
            state.done = Some(result);
            state.busy = false;
            drop(state);
            waiting.unpark();
        }
    }
}
