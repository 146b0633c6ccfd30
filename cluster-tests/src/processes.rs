//! Real server processes for tests: started on a free loopback port with a folder of their own, waited for
//! until they answer, and ended by their process id when the value is dropped, also while a test panics.
//!
//! A start is tried on another port when the first one turns out to be taken. What a server prints goes to
//! `log` in its folder; its end is part of the error when a start fails.
#![allow(clippy::disallowed_methods, reason = "a shell: runs processes and waits for them")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::disks::Folder;
use crate::hosts::Hosts;
use crate::programs;
use crate::resp_client::Connection;
pub use crate::waiting::wait_until;
use crate::wall_clocks::remove_leftovers;

const START_DEADLINE: Duration = Duration::from_secs(20);
const START_TRIES: usize = 3;
const POLL: Duration = Duration::from_millis(2);

/// A port that nobody listens on, and whose neighbour 10000 above (the bus) is free as well.
///
/// From below the range that the kernel gives to outgoing connections, so that none of those takes it before
/// the server does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 2_700;
    // From there on each once: a server that has been given a port may not listen on it yet.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..COUNT)));
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
    panic!("no free port on the loopback address");
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// One running server and its folder.
#[derive(Debug)]
pub struct Server {
    /// Words that put it on its host.
    prefix: Vec<String>,
    program: PathBuf,
    args: Vec<String>,
    host: String,
    port: u16,
    child: Child,
    dir: Folder,
}

impl Server {
    /// Starts `program` with the arguments that `args` makes from port and folder; waits for its `PONG`.
    pub fn start(program: &Path, args: impl Fn(u16, &Path) -> Vec<String>) -> Result<Self, String> {
        let mut failure = String::new();
        for _ in 0..START_TRIES {
            let dir = TempDir::new().map_err(|error| error.to_string())?;
            let port = free_port();
            match Self::start_on(program, port, dir, &args) {
                Ok(server) => return Ok(server),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Starts on a given port, which other processes may already know; does not wait.
    pub fn spawn_on(
        program: &Path,
        port: u16,
        dir: TempDir,
        args: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Result<Self, String> {
        Self::spawn_at(&Hosts::Loopback, 0, program, port, dir, args)
    }

    /// Starts on one of several hosts, on a given port; does not wait.
    pub fn spawn_at(
        hosts: &Hosts,
        host: usize,
        program: &Path,
        port: u16,
        dir: impl Into<Folder>,
        args: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Result<Self, String> {
        let dir = dir.into();
        let (prefix, program, args) = (hosts.prefix(host), program.to_owned(), args(port, dir.path()));
        let child = spawn(&prefix, &program, &args, dir.path()).map_err(|error| error.to_string())?;
        Ok(Self { prefix, program, args, host: hosts.address(host), port, child, dir })
    }

    /// Its host has another address, or clock: what is started from now on has it.
    pub fn move_to(&mut self, hosts: &Hosts, host: usize) {
        self.prefix = hosts.prefix(host);
        self.host = hosts.address(host);
    }

    fn start_on(
        program: &Path,
        port: u16,
        dir: TempDir,
        args: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Result<Self, String> {
        let mut server = Self::spawn_on(program, port, dir, args)?;
        server.wait_until_answering()?;
        Ok(server)
    }

    /// `keyward-node` alone: no sentinels, no persistence; `extra` flags last.
    pub fn keyward(extra: &[&str]) -> Result<Self, String> {
        Self::start(&programs::keyward("keyward-node")?, |port, dir| alone(port, dir, extra))
    }

    /// The real `valkey-server` alone, without persistence; `extra` flags last.
    pub fn valkey(dir: &Path, extra: &[&str]) -> Result<Self, String> {
        Self::start(&dir.join("valkey-server"), |port, dir| alone(port, dir, extra))
    }

    /// Any server of this kind alone, without persistence; `extra` flags last.
    pub fn alone(program: &Path, extra: &[&str]) -> Result<Self, String> {
        Self::start(program, |port, dir| alone(port, dir, extra))
    }

    /// As [`Self::alone`], in a folder that holds what the server is to load.
    pub fn alone_in(program: &Path, dir: TempDir, extra: &[&str]) -> Result<Self, String> {
        Self::start_on(program, free_port(), dir, |port, dir| alone(port, dir, extra))
    }

    /// Waits until the server answers PING with PONG.
    pub fn wait_until_answering(&mut self) -> Result<(), String> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            if self.answers() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("{} ended with {status}: {}", self.program.display(), self.log_end()));
            }
            if end <= Instant::now() {
                return Err(format!("{} does not answer: {}", self.program.display(), self.log_end()));
            }
            thread::sleep(POLL);
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut connection) = Connection::connect(&self.addr()) else { return false };
        connection.call(&["PING"]).is_ok_and(|reply| reply.raw.as_ref() == b"+PONG\r\n")
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// `host:port` for other nodes and sentinels, where both programs have it by default.
    pub fn bus_addr(&self) -> String {
        format!("{}:{}", self.host, self.port + 10_000)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child that was not waited for can be signalled");
    }

    /// Asks the process to end by SIGTERM, and waits until it has; after [`START_DEADLINE`] it is killed.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        if !wait_until(START_DEADLINE, || matches!(self.child.try_wait(), Ok(Some(_)))) {
            self.kill();
        }
    }

    /// Ends the process as `kill -9` would, and waits until it is gone.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Starts the process again, same arguments, same port, same folder; does not wait until it answers.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let child = spawn(&self.prefix, &self.program, &self.args, self.dir.path());
        self.child = child.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Removes everything from the folder of a process that has ended, but for what it printed.
    pub fn wipe(&mut self) -> Result<(), String> {
        self.kill();
        for entry in fs::read_dir(self.dir()).map_err(|e| e.to_string())?.flatten() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = match (entry.file_name().to_str(), is_dir) {
                (Some("log"), _) => Ok(()),
                (_, true) => fs::remove_dir_all(entry.path()),
                (_, false) => fs::remove_file(entry.path()),
            };
            removed.map_err(|e| format!("{}: {e}", entry.path().display()))?;
        }
        Ok(())
    }

    /// Processor time that the process used so far, all threads, in user and kernel mode.
    pub fn cpu_time(&self) -> Duration {
        process_cpu_time(self.pid()).unwrap_or_default()
    }

    /// The last lines that the server printed.
    pub fn log_end(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Everything that the server printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The server's own folder.
    /// What its flight recorder has written.
    pub fn recordings(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir().join("flight"));
        entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether its folder is on a small disk of its own.
    pub fn has_own_disk(&self) -> bool {
        self.dir.can_be_filled()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// SIGKILL also ends a stopped process. An error says that the process has been waited for already.
fn end(child: &mut Child) {
    if child.kill().is_ok() {
        child.wait().expect("a killed child can be waited for");
        remove_leftovers(child.id());
    }
}

/// What the processes of every cluster here prove to each other.
pub const CLUSTER_SECRET: &str = "the secret of the clusters of tests";
pub const SECRET_VARIABLE: &str = "KEYWARD_CLUSTER_SECRET";

fn spawn(prefix: &[String], program: &Path, args: &[String], dir: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut words =
        prefix.iter().map(OsStr::new).chain([program.as_os_str()]).chain(args.iter().map(OsStr::new));
    let first = words.next().expect("the program, if nothing else");
    let mut command = Command::new(first);
    // What the machine's user has set for servers of their own.
    for name in ["VALKEY_PASSWORD", "VALKEY_PASSWORD_FILE", "NOTIFY_SOCKET", "KEYWARD_CLUSTER_SECRET_FILE"] {
        command.env_remove(name);
    }
    command.env(SECRET_VARIABLE, CLUSTER_SECRET);
    command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

fn alone(port: u16, dir: &Path, extra: &[&str]) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let port = port.to_string();
    let own = ["--port", &port, "--dir", &dir, "--save", "", "--appendonly", "no"];
    own.iter().chain(extra).map(|arg| (*arg).to_owned()).collect()
}

/// User and system time of a process from `/proc/PID/stat`, whose unit is a hundredth of a second on Linux.
fn process_cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may itself hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
