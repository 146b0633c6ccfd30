//! Where lines of the log go: standard error, `logfile`, and the system's log. Their form is that of
//! [`keyward_net::logging`].
//!
//! The file is opened for each line, as Valkey does: whoever rotates it needs to tell nobody.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use keyward_net::logging::{Lines, LogForm};
use keyward_replication::gate::GateState;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogLevel, Settings, Syslog};

/// Where the system's log listens.
const SYSTEM_LOG: &str = "/dev/log";
/// A longer line reaches the system's log without its end.
const SYSTEM_LINE_MAX: usize = 4096;

/// `log-format` and `log-timestamp-format`.
static FORM: LazyLock<LogForm> = LazyLock::new(LogForm::default);
/// What the lines say of this node's role.
static IS_REPLICA: AtomicBool = AtomicBool::new(false);

/// Changes the level; set once.
static SET_LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging; RUST_LOG refines what `loglevel` says.
pub fn start(settings: &Settings) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(settings.loglevel));
    set_form(settings);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer(settings))
        .with_ansi(false)
        // A line that cannot be written, because the disk is full, is to be lost: telling of it would panic.
        .log_internal_errors(false)
        .event_format(Lines::new(&FORM, role))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    let set = move |filter| {
        if let Err(error) = handle.reload(filter) {
            tracing::warn!(%error, "the level of the log stays");
        }
    };
    if SET_LEVEL.set(Box::new(set)).is_ok() {
        builder.init();
    }
}

/// As the settings are now.
pub(crate) fn set_form(settings: &Settings) {
    FORM.set(settings.log_format, settings.log_timestamp_format);
}

/// From now on lines say this of the node.
pub(crate) fn set_role(state: GateState) {
    IS_REPLICA.store(state.is_replica(), Ordering::Relaxed);
}

fn role() -> &'static str {
    if IS_REPLICA.load(Ordering::Relaxed) { "replica" } else { "primary" }
}

/// CONFIG SET loglevel.
pub(crate) fn set_level(loglevel: LogLevel) {
    if let Some(set) = SET_LEVEL.get() {
        set(filter(loglevel));
    }
}

fn filter(loglevel: LogLevel) -> EnvFilter {
    EnvFilter::new(match loglevel {
        LogLevel::Debug => "debug",
        LogLevel::Verbose | LogLevel::Notice => "info",
        LogLevel::Warning => "warn",
        LogLevel::Nothing => "off",
    })
}

fn writer(settings: &Settings) -> BoxMakeWriter {
    let file = settings.log_file();
    let system = settings.syslog().and_then(System::open);
    if file.is_none() && system.is_none() {
        return BoxMakeWriter::new(io::stderr);
    }
    BoxMakeWriter::new(Sinks { file, system: system.map(Arc::new) })
}

/// Where a line goes, if not only to standard error.
#[derive(Debug)]
struct Sinks {
    /// `None`: standard error.
    file: Option<PathBuf>,
    system: Option<Arc<System>>,
}

impl<'a> MakeWriter<'a> for Sinks {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sinks: self, level: Level::INFO, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { sinks: self, level: *meta.level(), text: Vec::new() }
    }
}

/// One event; written as a whole when it is complete.
#[derive(Debug)]
struct Line<'a> {
    sinks: &'a Sinks,
    level: Level,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.text.is_empty() {
            // It was counted instead.
            return;
        }
        let written = match &self.sinks.file {
            Some(path) => File::options()
                .append(true)
                .create(true)
                .open(path)
                .and_then(|mut file| file.write_all(&self.text)),
            None => io::stderr().write_all(&self.text),
        };
        let system = self.sinks.system.as_ref();
        let sent = system.map(|system| system.send(self.level, &self.text));
        // There is no other place to tell of a failure, and the next line may succeed.
        drop((written, sent));
    }
}

/// The system's log.
#[derive(Debug)]
struct System {
    socket: UnixDatagram,
    syslog: Syslog,
}

impl System {
    fn open(syslog: Syslog) -> Option<System> {
        let socket = UnixDatagram::unbound().ok()?;
        // A log that does not keep up must not hold up clients.
        socket.set_nonblocking(true).ok()?;
        Some(System { socket, syslog })
    }

    fn send(&self, level: Level, text: &[u8]) -> io::Result<usize> {
        let severity = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 5,
            _ => 7,
        };
        let priority = self.syslog.facility * 8 + severity;
        let mut message = format!("<{priority}>{}[{}]: ", self.syslog.ident, std::process::id()).into_bytes();
        let text = text.trim_ascii_end();
        message.extend_from_slice(&text[..text.len().min(SYSTEM_LINE_MAX)]);
        self.socket.send_to(&message, SYSTEM_LOG)
    }
}
