//! The process among others: in the background, with its ID in a file, watched by systemd.

use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::config::{Config, Settings, Supervision};

/// Set for the process in the background by the one that starts it.
const DETACHED: &str = "KEYWARD_DETACHED";
/// Where the process ID goes if `daemonize` is set and `pidfile` is not.
const PID_FILE: &str = "/var/run/keyward-node.pid";
/// While the data is loaded, systemd is asked to wait for so long after each sign of life.
const EXTEND_MICROS: u64 = 30_000_000;

/// Who wants to know how the process is.
static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

#[derive(Debug)]
struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// `daemonize`: starts the program again in the background, and is done. `false`: this is the process that serves.
///
/// # Errors
/// It cannot be started.
pub fn detach(
    config: &Config,
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<String>,
) -> io::Result<bool> {
    if !settings.daemonize || is_supervised(settings, variable) {
        return Ok(false);
    }
    if variable(DETACHED).is_some() {
        rustix::process::setsid()?;
        return Ok(false);
    }
    let stdin = if config.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let (Some(text), Some(mut pipe)) = (&config.stdin, child.stdin.take()) {
        pipe.write_all(text)?;
    }
    Ok(true)
}

/// Whether systemd is told how the process is.
fn is_supervised(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) -> bool {
    let asked = matches!(settings.supervised, Supervision::Systemd | Supervision::Auto);
    asked && variable("NOTIFY_SOCKET").is_some()
}

/// Finds who is to be told, for [`notify`].
pub fn start(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) {
    if !is_supervised(settings, variable) {
        if settings.supervised == Supervision::Systemd {
            tracing::warn!("supervised systemd: there is no NOTIFY_SOCKET, so nobody is told");
        }
        return;
    }
    let Some(name) = variable("NOTIFY_SOCKET") else { return };
    match connect(&name) {
        Ok(supervisor) => {
            if SUPERVISOR.set(supervisor).is_err() {
                tracing::debug!("systemd is told already");
            }
        }
        Err(error) => tracing::warn!(%error, name, "systemd cannot be told how the process is"),
    }
}

fn connect(name: &str) -> io::Result<Supervisor> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(Supervisor { socket, address })
}

/// What is told to systemd. See <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>.
#[derive(Debug, Clone, Copy)]
pub enum State<'a> {
    Loading { percent: u64 },
    Ready(&'a str),
    Stopping,
}

pub fn is_active() -> bool {
    SUPERVISOR.get().is_some()
}

pub fn notify(state: State<'_>) {
    let Some(supervisor) = SUPERVISOR.get() else { return };
    let text = match state {
        State::Loading { percent } => {
            format!("STATUS=Loading the data: {percent} %\nEXTEND_TIMEOUT_USEC={EXTEND_MICROS}\n")
        }
        State::Ready(status) => format!("STATUS={status}\nREADY=1\n"),
        State::Stopping => "STATUS=Ending\nSTOPPING=1\n".to_owned(),
    };
    if let Err(error) = supervisor.socket.send_to_addr(text.as_bytes(), &supervisor.address) {
        tracing::warn!(%error, "systemd was not told: {}", text.trim_end());
    }
}

/// The file with the process ID, until the value is dropped.
#[derive(Debug)]
pub struct PidFile(Option<PathBuf>);

impl PidFile {
    /// If the configuration asks for one. A node without it serves all the same.
    pub fn write(settings: &Settings) -> PidFile {
        let default = || settings.daemonize.then(|| PathBuf::from(PID_FILE));
        let Some(path) = settings.pid_file().or_else(default) else { return PidFile(None) };
        match write_pid(&path) {
            Ok(()) => PidFile(Some(path)),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the process ID is in no file");
                PidFile(None)
            }
        }
    }
}

fn write_pid(path: &Path) -> io::Result<()> {
    std::fs::write(path, format!("{}\n", std::process::id()))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, file = %path.display(), "the file with the process ID stays");
        }
    }
}
