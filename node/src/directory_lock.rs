//! A process's claim on its data directory (`dir`), whatever it keeps there: two that write into one directory destroy
//! each other's files without noticing.
//!
//! The lock is one on the directory itself. So it needs no file, ends with the process however that ends, and works
//! where nothing can be written. File systems that lock only what is open for writing (NFS) get a file for it.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// For file systems that lock no directories.
const LOCK_FILE: &str = "keyward.lock";

/// The directory is this process's as long as this lives.
#[derive(Debug)]
pub struct DirectoryLock {
    /// `None`: the file system has no locks.
    file: Option<File>,
}

impl DirectoryLock {
    /// Whether the file system keeps others out.
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }

    /// # Errors
    /// One line for the operator: another process has it.
    pub fn take(directory: &Path) -> Result<DirectoryLock, String> {
        let on_directory = File::open(directory).map_err(TryLockError::Error).and_then(lock);
        let result = match on_directory {
            Err(TryLockError::Error(_)) => {
                let file = directory.join(LOCK_FILE);
                let opened =
                    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file);
                opened.map_err(TryLockError::Error).and_then(lock)
            }
            decided => decided,
        };
        match result {
            Ok(file) => Ok(DirectoryLock { file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(refusal(directory)),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    %error,
                    directory = %directory.display(),
                    "the data directory can't be locked here: no other process may use it"
                );
                Ok(DirectoryLock { file: None })
            }
        }
    }
}

fn lock(file: File) -> Result<File, TryLockError> {
    file.try_lock().map(|()| file)
}

fn refusal(directory: &Path) -> String {
    let shown = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let of = |path: &Path| holder(&locks, &path.metadata().ok()?);
    let holder = of(directory).or_else(|| of(&directory.join(LOCK_FILE)));
    let process = holder.map_or_else(|| "another process".into(), |pid| format!("the process {pid}"));
    format!(
        "the directory '{}' is in use by {process}: end that one first, or give each node a 'dir' of its own",
        shown.display()
    )
}

/// Who holds a lock on a file, if the kernel says so: `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`.
fn holder(locks: &str, file: &Metadata) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let found = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, place, ..] if place == wanted => pid.parse().ok(),
            _ => None,
        }
    });
    // Of another namespace.
    found.filter(|pid| *pid > 0)
}

/// Whether another process has claimed a directory, for tools that change files in it.
///
/// # Errors
/// The system's.
pub fn is_in_use(directory: &Path) -> io::Result<bool> {
    match lock(File::open(directory)?) {
        Ok(_) | Err(TryLockError::Error(_)) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(folder.path()).unwrap();
        assert!(is_in_use(folder.path()).unwrap());
        let error = DirectoryLock::take(folder.path()).unwrap_err();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(error.contains("is in use by") && error.lines().count() == 1, "{error}");
        drop(first);
        assert!(!is_in_use(folder.path()).unwrap());
        DirectoryLock::take(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn the_kernel_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().metadata().unwrap();
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        let line = |kind, pid, inode| {
            format!("1: {kind}  ADVISORY  WRITE {pid} {major:02x}:{minor:02x}:{inode} 0 EOF\n")
        };
        let inode = file.ino();
        let locks = [line("POSIX", 5, inode), line("FLOCK", 6, inode + 1), line("FLOCK", 7, inode)].concat();
        assert_eq!(holder(&locks, &file), Some(7));
        assert_eq!(holder(&line("FLOCK", 0, inode), &file), None);
        assert_eq!(holder("", &file), None);
    }
}
