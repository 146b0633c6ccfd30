//! Disks that can be filled, and system calls that fail.
//!
//! A server's folder is put on a tmpfs of its own: filling that is a full disk for this server alone. Failing syncs are
//! made by `strace`, which attaches to the running process. Both need root.
#![allow(clippy::disallowed_methods, reason = "a shell: runs programs")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::hosts::run;
use crate::waiting::wait_until;

/// A tmpfs, mounted until it is dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// # Errors
    /// What `mount` says.
    pub fn new(path: &Path, mebibytes: u32) -> Result<Self, String> {
        let path = path.to_owned();
        let size = format!("size={mebibytes}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "keyward-test", &path.to_string_lossy()])?;
        Ok(Mount { path })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still have files open.
        drop(run("umount", &["--lazy", &self.path.to_string_lossy()]));
    }
}

/// A server's folder.
#[derive(Debug)]
pub struct Folder {
    // In this order: what is mounted on a folder is unmounted before the folder is removed.
    mount: Option<Mount>,
    dir: TempDir,
}

impl Folder {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn can_be_filled(&self) -> bool {
        self.mount.is_some()
    }
}

impl From<TempDir> for Folder {
    fn from(dir: TempDir) -> Self {
        Folder { mount: None, dir }
    }
}

/// A folder on the machine's disk.
///
/// # Errors
/// The system's.
pub fn folder() -> Result<Folder, String> {
    TempDir::new().map(Folder::from).map_err(|error| error.to_string())
}

/// A folder on a small disk of its own.
///
/// # Errors
/// The system's, or what `mount` says.
pub fn small_disk(mebibytes: u32) -> Result<Folder, String> {
    let Folder { dir, .. } = folder()?;
    let mount = Mount::new(dir.path(), mebibytes)?;
    Ok(Folder { mount: Some(mount), dir })
}

/// The file that takes all the room.
fn filler(dir: &Path) -> PathBuf {
    dir.join("filler")
}

/// Takes all the room that is left.
///
/// # Errors
/// If the file cannot be made; that there is no room left is none.
pub fn fill(dir: &Path) -> Result<(), String> {
    let mut file = File::create(filler(dir)).map_err(|e| e.to_string())?;
    let mut piece = vec![0; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
    Ok(())
}

/// # Errors
/// If the file cannot be removed.
pub fn free(dir: &Path) -> Result<(), String> {
    fs::remove_file(filler(dir)).map_err(|e| e.to_string())
}

/// System calls of a process fail, or take long, as long as this lives.
#[derive(Debug)]
pub struct FailingCalls {
    tracer: Child,
}

impl FailingCalls {
    /// All syncs of files fail with EIO.
    ///
    /// # Errors
    /// `strace` is missing or must not attach.
    pub fn syncs(pid: u32) -> Result<Self, String> {
        Self::start(pid, "fsync,fdatasync", "error=EIO", &[])
    }

    /// Each write to one of these files, and each sync of one, takes so long.
    ///
    /// # Errors
    /// `strace` is missing or must not attach.
    pub fn slow_files(pid: u32, files: &[PathBuf], each: Duration) -> Result<Self, String> {
        let delay = format!("delay_enter={}", each.as_micros());
        Self::start(pid, "write,writev,pwrite64,fsync,fdatasync", &delay, files)
    }

    fn start(pid: u32, calls: &str, fault: &str, files: &[PathBuf]) -> Result<Self, String> {
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}"));
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
        files.iter().for_each(|file| _ = command.arg("-P").arg(file));
        command.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        let failing = FailingCalls { tracer: command.spawn().map_err(|e| format!("strace: {e}"))? };
        if wait_until(Duration::from_secs(5), || is_traced(pid)) {
            return Ok(failing);
        }
        Err(format!("strace does not attach to process {pid}"))
    }
}

/// Whether somebody traces each thread of a process.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}

impl Drop for FailingCalls {
    fn drop(&mut self) {
        // Asked to end it detaches; killed it might leave threads stopped.
        if kill_process(Pid::from_child(&self.tracer), Signal::TERM).is_ok() {
            drop(self.tracer.wait());
        }
    }
}
