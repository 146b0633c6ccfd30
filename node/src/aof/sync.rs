//! The thread that syncs the file once a second, so that the writer does not have to wait for the disk.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::Thread;

use parking_lot::{Condvar, Mutex};

use super::file::Mark;

/// What is to be synced, up to where.
#[derive(Debug)]
pub struct Job {
    pub file: Arc<File>,
    pub mark: Mark,
    /// Unparked when it is done.
    pub waiting: Thread,
}

/// A finished job.
#[derive(Debug)]
pub struct Done {
    pub file: Arc<File>,
    pub mark: Mark,
    pub result: io::Result<()>,
}

#[derive(Debug, Default)]
struct State {
    job: Option<Job>,
    done: Option<Done>,
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

    pub fn is_busy(&self) -> bool {
        self.state.lock().busy
    }

    /// The caller has seen that nothing is being synced.
    pub fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        assert!(!state.busy, "one job at a time");
        state.busy = true;
        state.job = Some(job);
        self.work.notify_one();
    }

    pub fn take_done(&self) -> Option<Done> {
        self.state.lock().done.take()
    }

    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.work.notify_one();
    }

    fn run(&self) {
        loop {
            let Job { file, mark, waiting } = {
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
            state.done = Some(Done { file, mark, result });
            state.busy = false;
            drop(state);
            waiting.unpark();
        }
    }
}
