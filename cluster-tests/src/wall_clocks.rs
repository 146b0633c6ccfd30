//! Wall clocks of running nodes that can be made to jump, by `libfaketime` (Debian's package `faketime`).
//!
//! The library is preloaded and looks into a file of the node at each reading of the clock; it gets between because
//! nodes read the wall clock through the C library. Their monotonic clock, on which leases depend, they ask for from the
//! kernel, and that of everything else in the process is left alone: a wall clock can be set by anybody, a monotonic
//! one by nobody.
#![allow(clippy::disallowed_methods, reason = "a shell: reads and writes files")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The variant for programs with several threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// See the module documentation. Nodes by number.
#[derive(Debug)]
pub struct WallClocks {
    library: PathBuf,
    /// A file for each node, not in its own folder, which may be on a disk that is full.
    files: TempDir,
}

impl WallClocks {
    /// All of them are right at first.
    ///
    /// # Errors
    /// The library is missing.
    pub fn new(nodes: usize) -> Result<Self, String> {
        let library = library().ok_or("libfaketime is not installed")?;
        let clocks = WallClocks { library, files: TempDir::new().map_err(|e| e.to_string())? };
        (0..nodes).try_for_each(|node| clocks.set(node, 0))?;
        Ok(clocks)
    }

    /// The program and the first words of its arguments by which `program` runs with the clock of this node. Only that
    /// process has the library, not those that start it.
    pub fn start_with(&self, node: usize, program: &Path) -> (PathBuf, Vec<String>) {
        let words = [
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file(node).display()),
            // A cache would last for one to two seconds, as long as a fault.
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
            program.to_string_lossy().into_owned(),
        ];
        ("env".into(), words.into())
    }

    /// From now on the clock is so many seconds ahead of this machine's.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, node: usize, ahead: i64) -> Result<(), String> {
        let (file, new) = (self.file(node), self.files.path().join("new"));
        // By renaming: the library must never find half a number.
        fs::write(&new, format!("{ahead:+}\n"))
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|e| format!("{}: {e}", file.display()))
    }

    fn file(&self, node: usize) -> PathBuf {
        self.files.path().join(node.to_string())
    }
}

/// Where distributions put it: `/usr/lib/faketime`, or below a folder for the machine's architecture.
fn library() -> Option<PathBuf> {
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = |root: &PathBuf| fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = roots.iter().flat_map(|root| std::iter::once(root.clone()).chain(below(root)));
    folders.map(|folder| folder.join("faketime").join(LIBRARY)).find(|library| library.is_file())
}

/// The library shares memory under a name with the process's number, and removes it when the process ends, unless that
/// was killed. In this order: the library passes over what another has left, but not over the first alone.
pub(crate) fn remove_leftovers(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // Mostly there is none.
        drop(fs::remove_file(Path::new("/dev/shm").join(name)));
    }
}
