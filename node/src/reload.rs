//! DEBUG RELOAD: the database is saved to `dbfilename` and loaded from there, or only loaded, for tests and tools.
//!
//! Meanwhile all clients wait, as in Valkey: the pause comes before the snapshot begins, so nothing is written between what
//! is saved and what is loaded. Only for a node alone: what replicas hold follows the write log and nothing else.

use std::sync::Arc;
use std::time::Duration;

use keyward_proto::resp::Args;
use keyward_proto::slot::Slot;
use keyward_replication::reply::ReplyCondition;
use keyward_store::tracking::Changes;

use crate::command::ascii_eq;
use crate::control::blocking;
use crate::io::pause::PauseMode;
use crate::rdb_load::{self, Existing};
use crate::scripts::libraries::Libraries;
use crate::server::Server;
use crate::snapshot::saves::Kind;
use crate::tracking::Cause;

/// Nobody waits for longer.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What is done of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    saves: bool,
    flushes: bool,
    merges: bool,
}

impl Options {
    /// The words behind `DEBUG RELOAD`; `None` if one is not known.
    pub(crate) fn parse(args: Args<'_>) -> Option<Options> {
        let mut options = Options { saves: true, flushes: true, merges: false };
        for word in args.iter().skip(2) {
            match word {
                w if ascii_eq(w, "NOSAVE") => options.saves = false,
                w if ascii_eq(w, "NOFLUSH") => options.flushes = false,
                w if ascii_eq(w, "MERGE") => options.merges = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Why it is not done.
pub(crate) fn refusal(server: &Server, options: Options) -> Option<&'static str> {
    if !server.shared.gate.is_standalone() {
        return Some(
            "DEBUG RELOAD is for a node alone: with sentinels what a node holds follows the write log, and nothing \
             may come into it beside that",
        );
    }
    let same = options.saves && options.flushes;
    if server.settings().appendonly && !same {
        return Some(
            "with appendonly yes DEBUG RELOAD may only save and load: what else it loads would not be in the log",
        );
    }
    if server.saves.is_running() {
        return Some("Background save already in progress");
    }
    None
}

/// Carries it out.
///
/// # Errors
/// What has failed, for the client.
pub(crate) async fn reload(server: &Arc<Server>, options: Options) -> Result<(), String> {
    let now = server.clock.monotonic();
    server.pause.extend(now, now + PAUSE_MAX, PauseMode::All);
    let result = save_and_load(server, options).await;
    server.pause.end();
    result
}

async fn save_and_load(server: &Arc<Server>, options: Options) -> Result<(), String> {
    if options.saves {
        let running = || "Background save already in progress".to_owned();
        let saved = server.saves.start(server, Kind::Foreground).map_err(|_| running())?;
        saved.await.unwrap_or_else(|_| Err("the save was cancelled".into()))?;
    }
    let server = Arc::clone(server);
    let loaded = blocking(move || load(&server, options)).await;
    loaded.unwrap_or_else(|error| Err(format!("the load has broken off: {error}")))
}

fn load(server: &Server, options: Options) -> Result<(), String> {
    let stopped = server.world.stop_unless(|| server.scripts.runs.is_busy());
    let Some(_stopped) = stopped else { return Err("a script is running".into()) };
    if options.flushes {
        flush(server);
    }
    let existing = if options.merges { Existing::Replaced } else { Existing::Refused };
    rdb_load::load_dump_over(server, &server.settings(), existing)?;
    let cause = Cause { client: None, condition: ReplyCondition::default() };
    server.tell_changes(&Changes { keys: Vec::new(), flushed: true }, cause);
    Ok(())
}

/// The world is stopped.
fn flush(server: &Server) {
    let keyspace = &server.keyspace;
    for slot in Slot::all() {
        let mut state = keyspace.lock(slot);
        state.mark_watchers_of_existing(|_| true);
        let tables = keyspace.cow.keep_taken(slot, state.take_tables(slot, None, &keyspace.counts));
        state.next_expiry = 0;
        state.forget_readers(&keyspace.tracking);
        drop(state);
        drop(tables);
    }
    server.scripts.change_libraries(Libraries::clear);
}
