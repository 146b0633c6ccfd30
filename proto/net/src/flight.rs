//! Where the flight recorder's recordings go: files in a folder of their own, of which the latest are kept.
//!
//! They are made some time after a failover (so that what follows is in them), on SIGUSR1, and when the program panics.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use keyward_proto::flight::{FORMAT, Header, Record, Recording};
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::clock::{monotonic, unix_micros, unix_millis};

/// What follows a failover is of interest, too.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Between two files: what happens meanwhile is in the next one.
const PAUSE: Duration = Duration::from_secs(8);
/// A recorder is held for an instant, unless its holder has panicked.
const PATIENCE: Duration = Duration::from_millis(100);
const EXTENSION: &str = "flight";
/// Of the kernel since it has started: clocks of processes that have the same one are one.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Makes a recording's text, and says why it was made; `None`: nothing is recorded.
pub type Make = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where recordings are kept, and how many.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// A folder in it is made when it is needed.
    pub dir: PathBuf,
    /// More are deleted, from the oldest on; with zero none is written.
    pub files_max: usize,
}

/// The recordings of this process.
pub struct Flights {
    folder: PathBuf,
    files_max: usize,
    make: Make,
    occasion: Notify,
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Flights {
    pub fn new(keeping: &Keeping, make: Make) -> Arc<Flights> {
        let Keeping { dir, files_max } = keeping;
        Arc::new(Flights { folder: dir.join("flight"), files_max: *files_max, make, occasion: Notify::new() })
    }

    /// What is remembered now.
    pub fn text(&self, why: &str) -> Option<String> {
        (self.make)(why)
    }

    /// Something has happened that is to be kept.
    pub fn occasion(&self) {
        self.occasion.notify_one();
    }

    /// Writes files on each occasion and signal, until the task is dropped.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(self.keep_of_failovers(), self.keep_if_asked());
    }

    async fn keep_of_failovers(self: &Arc<Self>) {
        loop {
            self.occasion.notified().await;
            sleep(AFTERMATH).await;
            self.write_aside("failover").await;
            sleep(PAUSE).await;
        }
    }

    async fn keep_if_asked(self: &Arc<Self>) {
        let mut asked = match signal(SignalKind::user_defined1()) {
            Ok(asked) => asked,
            Err(error) => return tracing::warn!(%error, "SIGUSR1 cannot be handled"),
        };
        while asked.recv().await.is_some() {
            self.write_aside("asked").await;
        }
    }

    /// On a thread that may wait for the disk.
    async fn write_aside(self: &Arc<Self>, why: &'static str) {
        let flights = Arc::clone(self);
        if let Err(error) = tokio::task::spawn_blocking(move || flights.write_and_tell(why)).await {
            tracing::debug!(%error, "the runtime ends");
        }
    }

    /// If this process panics, it leaves a recording: that of whoever calls this first.
    pub fn keep_on_panic(self: &Arc<Self>) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let (flights, told) = (Arc::clone(self), std::panic::take_hook());
            std::panic::set_hook(Box::new(move |panic| {
                told(panic);
                flights.write_and_tell("panic");
            }));
        });
    }

    fn write_and_tell(&self, why: &str) {
        if self.files_max == 0 {
            return;
        }
        let Some(text) = self.text(why) else { return };
        let path = self.folder.join(format!("{:016}-{why}.{EXTENSION}", unix_micros()));
        match self.write(&path, &text) {
            Ok(()) => tracing::info!("what happened lately is in {} ({why})", path.display()),
            Err(error) => tracing::warn!("{}: {error}: what happened lately is not written", path.display()),
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        // Room is made before, so that there are never more.
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
            .collect();
        files.sort_unstable();
        let too_many = (files.len() + 1).saturating_sub(self.files_max);
        files.iter().take(too_many).try_for_each(std::fs::remove_file)?;
        std::fs::write(path, text)
    }
}

/// Whose recordings are made.
#[derive(Debug, Clone)]
pub struct Subject {
    /// `node` or `sentinel`.
    pub program: &'static str,
    pub version: &'static str,
    pub id: String,
    /// For people.
    pub name: String,
}

impl Subject {
    /// Makes recordings of what `recorder` remembers; `None`: nothing yet. Whoever holds it may have panicked.
    pub fn made_of<T, R>(
        self,
        recorder: Arc<Mutex<T>>,
        recording: impl Fn(&T, Header) -> Option<Recording<R>> + Send + Sync + 'static,
    ) -> Make
    where
        T: Send + 'static,
        R: Record,
    {
        Box::new(move |why| {
            let header = header(&self, why);
            // It is free again before the text is made of it.
            let made = recording(&*recorder.try_lock_for(PATIENCE)?, header)?;
            Some(made.text())
        })
    }
}

/// Of a recording that is made now.
fn header(of: &Subject, why: &str) -> Header {
    Header {
        keyward_flight: FORMAT,
        program: of.program.to_owned(),
        version: of.version.to_owned(),
        id: of.id.clone(),
        name: of.name.clone(),
        // Without it nobody takes its times for those of another process.
        boot: std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default(),
        at: monotonic(),
        wall: unix_millis(),
        why: why.to_owned(),
        dropped: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(dir: &Path, files_max: usize) -> Keeping {
        Keeping { dir: dir.to_owned(), files_max }
    }

    #[test]
    fn the_latest_files_are_kept_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let flights =
            Flights::new(&keeping(dir.path(), 3), Box::new(|why| Some(format!("made for {why}\n"))));
        let folder = dir.path().join("flight");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("0000-notes.txt"), "of an operator").unwrap();
        for n in 0..5 {
            flights.write(&folder.join(format!("{n}-failover.flight")), "x").unwrap();
        }
        flights.write_and_tell("asked");
        let mut found: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found[..1], ["0000-notes.txt"]);
        assert_eq!(found[2..], ["3-failover.flight", "4-failover.flight"]);
        assert!(found[1].ends_with("-asked.flight"), "{found:?}");
        assert_eq!(std::fs::read_to_string(folder.join(&found[1])).unwrap(), "made for asked\n");
    }

    #[tokio::test]
    async fn who_asks_right_after_a_failover_does_not_take_its_file_away() {
        let dir = tempfile::tempdir().unwrap();
        let flights = Flights::new(&keeping(dir.path(), 3), Box::new(|why| Some(why.to_owned())));
        let kept = tokio::spawn(Arc::clone(&flights).keep());
        flights.occasion();
        sleep(Duration::from_millis(100)).await;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
        let found = || std::fs::read_dir(dir.path().join("flight")).map_or(0, Iterator::count);
        for _ in 0..300 {
            sleep(Duration::from_millis(100)).await;
            if found() == 2 {
                break;
            }
        }
        assert_eq!(found(), 2, "one for who asked, one of the failover");
        kept.abort();
    }

    #[test]
    fn who_panics_leaves_a_recording() {
        let dir = tempfile::tempdir().unwrap();
        Flights::new(&keeping(dir.path(), 3), Box::new(|why| Some(format!("{why}\n")))).keep_on_panic();
        assert!(std::thread::spawn(|| panic!("of this test")).join().is_err());
        let found = std::fs::read_dir(dir.path().join("flight")).unwrap().next().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(found.path()).unwrap(), "panic\n");
    }

    #[test]
    fn without_files_and_without_records_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        Flights::new(&keeping(dir.path(), 0), Box::new(|_| Some("x".into()))).write_and_tell("asked");
        Flights::new(&keeping(dir.path(), 3), Box::new(|_| None)).write_and_tell("asked");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
