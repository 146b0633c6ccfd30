//! How long a start with data takes: the same RDB file, written by Valkey, loaded by Valkey and by Keyward in turn.

#![allow(clippy::disallowed_methods, reason = "a shell: measures time")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::processes::Server;
use crate::programs;
use crate::resp_client::Connection;

/// Filling and saving takes longer than a reply may.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
pub struct Settings {
    pub keys: usize,
    pub value_len: usize,
    pub rounds: usize,
}

/// Of one start.
#[derive(Debug, Clone, Copy)]
struct Start {
    wall: Duration,
    cpu: Duration,
}

/// Measures, and returns a Markdown table.
///
/// # Errors
/// A server does not start or does not answer.
pub fn run(settings: &Settings) -> Result<String, String> {
    let valkey = programs::valkey()?.join("valkey-server");
    let keyward = programs::keyward("keyward-node")?;
    let folder = TempDir::new().map_err(|e| e.to_string())?;
    let file = write_file(&valkey, settings, folder.path())?;
    let bytes = std::fs::metadata(&file).map_err(|e| e.to_string())?.len();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        theirs.push(start_with(&valkey, &file, settings.keys)?);
        ours.push(start_with(&keyward, &file, settings.keys)?);
    }
    let mut table = format!(
        "{} keys with values of {} bytes, a file of {} MB; median of {}\n\n\
         | | valkey-server | keyward-node | ratio |\n|---|---|---|---|\n",
        settings.keys,
        settings.value_len,
        bytes / 1_000_000,
        settings.rounds
    );
    for (name, value) in [("until it answers", wall as fn(&Start) -> Duration), ("processor time", cpu)] {
        let (theirs, ours) = (median(&theirs, value), median(&ours, value));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        let line = writeln!(table, "| {name} | {theirs:.2?} | {ours:.2?} | {ratio:.2} |");
        line.map_err(|e| e.to_string())?;
    }
    Ok(table)
}

fn wall(start: &Start) -> Duration {
    start.wall
}

fn cpu(start: &Start) -> Duration {
    start.cpu
}

fn median(starts: &[Start], value: fn(&Start) -> Duration) -> Duration {
    let mut values: Vec<Duration> = starts.iter().map(value).collect();
    values.sort();
    values[values.len() / 2]
}

/// Has Valkey make the keys and save them.
fn write_file(valkey: &Path, settings: &Settings, folder: &Path) -> Result<PathBuf, String> {
    let server = Server::alone(valkey, &["--enable-debug-command", "yes"])?;
    let mut connection = Connection::connect_within(&server.addr(), PATIENCE).map_err(|e| e.to_string())?;
    let (keys, len) = (settings.keys.to_string(), settings.value_len.to_string());
    for command in [vec!["DEBUG", "POPULATE", &keys, "key", &len], vec!["SAVE"]] {
        let reply = connection.call(&command).map_err(|e| format!("{command:?}: {e}"))?;
        if reply.is_error() {
            return Err(format!("{command:?}: {reply}"));
        }
    }
    let file = folder.join("dump.rdb");
    std::fs::copy(server.dir().join("dump.rdb"), &file).map_err(|e| e.to_string())?;
    Ok(file)
}

fn start_with(program: &Path, file: &Path, keys: usize) -> Result<Start, String> {
    let dir = TempDir::new().map_err(|e| e.to_string())?;
    // A copy, so that the file is in the page cache for both.
    std::fs::copy(file, dir.path().join("dump.rdb")).map_err(|e| e.to_string())?;
    let begin = Instant::now();
    let server = Server::alone_in(program, dir, &[])?;
    let wall = begin.elapsed();
    let mut connection = Connection::connect(&server.addr()).map_err(|e| e.to_string())?;
    let size = connection.call(&["DBSIZE"]).map_err(|e| e.to_string())?;
    if size.integer() != i64::try_from(keys).ok() {
        return Err(format!("{} has loaded {size}", program.display()));
    }
    Ok(Start { wall, cpu: server.cpu_time() })
}
