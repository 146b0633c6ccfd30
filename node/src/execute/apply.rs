//! Applies effects of the log, of a primary or out of a file, to the keyspace.

use std::sync::Arc;

use keyward_proto::ids::LogIndex;
use keyward_proto::resp::{Args, Output};
use keyward_proto::slot::Slot;
use keyward_replication::reply::ReplyCondition;
use keyward_store::keys::Keys;
use rand::Rng;

use super::Executor;
use crate::command::find::lookup_effect;
use crate::command::touched::Touched;
use crate::io::session::Session;
use crate::tracking::Cause;

impl Executor {
    /// Applies one effect from a file: as [`Executor::apply_locked`], but what cannot be applied is an error. Expiry
    /// times that a foreign file has as durations count from `now`.
    ///
    /// # Errors
    /// What the command is and why it cannot be applied.
    pub(crate) fn apply_loaded(
        &mut self,
        session: &mut Session,
        touched: &Touched,
        db: u16,
        index: LogIndex,
        now: i64,
        args: Args<'_>,
    ) -> Result<(), String> {
        let server = Arc::clone(&self.server);
        let mut keys = Keys::apply(&server.keyspace, &self.settings.keys, self.clock.monotonic());
        keys.now = now;
        let row = lookup_effect(args).map_err(|e| e.to_string())?;
        match touched {
            Touched::One(slot) => keys.lock_one(*slot),
            Touched::Several(slots) => keys.lock_many(slots.iter().copied()),
            Touched::WholeKeyspace => keys.lock_all(),
        }
        (keys.db, session.db) = (db, db);
        let mut out = Output::default();
        let result = self.call(session, row, args, &mut keys, &mut out);
        keys.set_last_write(index);
        keys.unlock();
        self.free(&mut keys);
        result.map(drop).map_err(|e| format!("{}: {e}", row.name.to_uppercase()))
    }

    /// Applies effects of the log: no checks, no expiry, no effects of their own. `run` is called once with all
    /// locks held (those of all slots for `None`) and calls what it is given for each effect. The caller has entered.
    ///
    /// # Errors
    /// An effect that cannot be applied, as one that this version does not know: the keyspace is of no use any more, for
    /// it would differ from the primary's.
    pub fn apply_locked(
        &mut self,
        session: &mut Session,
        slots: Option<Vec<Slot>>,
        index: LogIndex,
        run: impl FnOnce(&mut dyn FnMut(u16, Args<'_>) -> Result<(), String>) -> Result<(), String>,
    ) -> Result<(), String> {
        let server = Arc::clone(&self.server);
        self.refresh();
        let mut keys = Keys::apply(&server.keyspace, &self.settings.keys, self.clock.monotonic());
        keys.seed_random(self.rng.random());
        match slots {
            Some(slots) => keys.lock_many(slots),
            None => keys.lock_all(),
        }
        let mut out = Output::default();
        let result = run(&mut |db, args| {
            (keys.db, session.db) = (db, db);
            out.clear();
            let row = lookup_effect(args).map_err(|e| described(args, &e))?;
            self.call(session, row, args, &mut keys, &mut out).map(drop).map_err(|e| described(args, &e))
        });
        keys.set_last_write(index);
        if keys.has_changes() {
            let condition = ReplyCondition::of_entry(index, server.shared.gate.generation());
            server.tell_changes(&keys.take_changes(), Cause { client: None, condition });
        }
        keys.unlock();
        self.free(&mut keys);
        let ready = keys.take_ready();
        if !ready.is_empty() {
            self.serve_readers(&ready);
        }
        result
    }
}

/// The beginning of an effect, and what is wrong with it.
fn described(args: Args<'_>, error: &impl std::fmt::Display) -> String {
    let shown = |arg: &[u8]| String::from_utf8_lossy(arg.get(..32).unwrap_or(arg)).into_owned();
    let words: Vec<String> = args.iter().take(4).map(shown).collect();
    format!("`{}`: {error}", words.join(" "))
}
