//! The scripts that run just now. Each thread has a place here; others see what it runs and since when, and may ask it to
//! stop. A script looks at its place now and then, and notes there when it has taken too long: from then on other clients
//! are told that the server is busy.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use keyward_proto::time::Monotonic;
use parking_lot::Mutex;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Script,
    Function,
}

/// What a client is told of a function that runs.
#[derive(Debug, Clone)]
pub struct Running {
    pub what: What,
    pub name: String,
    pub command: Vec<Vec<u8>>,
    pub since: Monotonic,
}

/// A thread's place.
#[derive(Debug, Default)]
pub struct Run {
    running: Mutex<Option<Running>>,
    /// It has taken longer than it may without others hearing of it.
    busy: AtomicBool,
    wrote: AtomicBool,
    killed: AtomicBool,
    /// What its interpreters hold.
    pub eval_bytes: AtomicUsize,
    pub function_bytes: AtomicUsize,
}

/// All places.
#[derive(Debug, Default)]
pub struct Runs {
    places: Mutex<Vec<Weak<Run>>>,
    busy: AtomicU32,
    /// Of them, those that run functions.
    busy_functions: AtomicU32,
}

/// How asking a script to stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    Done,
    NotBusy,
    /// What runs is of the other kind.
    Other,
    /// It has written.
    Unkillable,
}

impl Runs {
    /// A place for a thread that will run scripts.
    pub fn add_thread(&self) -> Arc<Run> {
        let run = Arc::new(Run::default());
        let mut places = self.places.lock();
        places.retain(|place| place.strong_count() > 0);
        places.push(Arc::downgrade(&run));
        run
    }

    fn all(&self) -> Vec<Arc<Run>> {
        self.places.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether some script has taken too long.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) != 0
    }

    /// What those are told that are held up.
    pub fn busy_error(&self) -> &'static str {
        if self.busy_functions.load(Ordering::Relaxed) != 0 {
            "BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        } else {
            "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
    }

    /// Asks what has taken too long to stop.
    pub fn kill(&self, what: What) -> Kill {
        let mut outcome = Kill::NotBusy;
        for run in self.all() {
            let running = run.running.lock();
            let Some(running) = running.as_ref().filter(|_| run.busy.load(Ordering::Relaxed)) else {
                continue;
            };
            if run.wrote.load(Ordering::Relaxed) {
                if outcome != Kill::Done {
                    outcome = Kill::Unkillable;
                }
            } else if running.what != what {
                if outcome == Kill::NotBusy {
                    outcome = Kill::Other;
                }
            } else {
                run.killed.store(true, Ordering::Relaxed);
                outcome = Kill::Done;
            }
        }
        outcome
    }

    /// What has run for the longest time, of what others may see.
    pub fn longest(&self, what: What) -> Option<Running> {
        let running = |run: Arc<Run>| run.running.lock().clone().filter(|running| running.what == what);
        self.all().into_iter().filter_map(running).min_by_key(|running| running.since)
    }

    /// Bytes of the interpreters of scripts, and of functions.
    pub fn interpreter_bytes(&self) -> (usize, usize) {
        let runs = self.all();
        let sum = |of: fn(&Run) -> &AtomicUsize| runs.iter().map(|run| of(run).load(Ordering::Relaxed)).sum();
        (sum(|run| &run.eval_bytes), sum(|run| &run.function_bytes))
    }
}

impl Run {
    pub fn begin(&self, running: Running) {
        self.wrote.store(false, Ordering::Relaxed);
        self.killed.store(false, Ordering::Relaxed);
        *self.running.lock() = Some(running);
    }

    /// The script has ended.
    pub fn end(&self, runs: &Runs) {
        let running = self.running.lock().take();
        if self.busy.swap(false, Ordering::Relaxed) {
            if running.is_some_and(|running| running.what == What::Function) {
                runs.busy_functions.fetch_sub(1, Ordering::Relaxed);
            }
            runs.busy.fetch_sub(1, Ordering::Release);
        }
    }

    /// From now on it is not stopped any more.
    pub fn note_write(&self) {
        self.wrote.store(true, Ordering::Relaxed);
    }

    pub fn has_written(&self) -> bool {
        self.wrote.load(Ordering::Relaxed)
    }

    pub fn is_function(&self) -> bool {
        self.running.lock().as_ref().is_some_and(|running| running.what == What::Function)
    }

    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Looks at the time. For how long it has run, if it has taken too long only now; with a threshold of zero nothing
    /// takes too long.
    pub fn check_time(&self, runs: &Runs, now: Monotonic, threshold: Duration) -> Option<Duration> {
        if threshold.is_zero() || self.busy.load(Ordering::Relaxed) {
            return None;
        }
        let running = self.running.lock();
        let running = running.as_ref()?;
        let elapsed = now.since(running.since);
        if elapsed < threshold {
            return None;
        }
        if running.what == What::Function {
            runs.busy_functions.fetch_add(1, Ordering::Relaxed);
        }
        self.busy.store(true, Ordering::Relaxed);
        runs.busy.fetch_add(1, Ordering::Release);
        Some(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_run_for_the_threshold_takes_too_long() {
        let (runs, at) = (Runs::default(), |ms: u64| Monotonic::from_nanos(ms * 1_000_000));
        let run = runs.add_thread();
        run.begin(Running { what: What::Function, name: String::new(), command: Vec::new(), since: at(100) });
        let check = |now, threshold| run.check_time(&runs, at(now), Duration::from_millis(threshold));
        assert_eq!(check(10_000, 0), None, "zero: never");
        assert_eq!((check(109, 10), runs.is_busy(), runs.kill(What::Function)), (None, false, Kill::NotBusy));
        assert_eq!((check(110, 10), runs.is_busy()), (Some(Duration::from_millis(10)), true));
        assert_eq!(check(111, 10), None, "it is told once");
        assert!(runs.busy_error().contains("FUNCTION KILL"));
        assert_eq!((runs.kill(What::Script), run.is_killed()), (Kill::Other, false));
        assert_eq!((runs.kill(What::Function), run.is_killed()), (Kill::Done, true));
        run.end(&runs);
        assert_eq!((runs.is_busy(), runs.kill(What::Function)), (false, Kill::NotBusy));
        assert!(runs.busy_error().contains("SCRIPT KILL"));
    }
}
