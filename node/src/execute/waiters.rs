//! Clients that wait for keys: they are put into the queues of their keys, and served by whoever brings them something, or
//! by the time.

use std::sync::Arc;

use keyward_proto::resp::{Args, Output};
use keyward_proto::slot::Slot;
use keyward_replication::gate::GateState;
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbKey;
use keyward_store::keys::{Keys, Mode};
use keyward_store::world;

use super::Executor;
use super::admit::{Candidate, Patience, Verdict};
use super::progress::Progress;
use super::transaction::deny;
use crate::acl::Denied;
use crate::admin::ServerOutcome;
use crate::blocking::{self, Served, Waiter};
use crate::command::keys_of::visit_slots;
use crate::command::table::Row;
use crate::command::{Block, spec};
use crate::io::session::Session;

impl Executor {
    /// Executes the commands that wait for a key, in their order, as long as they find something.
    pub(super) fn serve_waiters<'k>(&mut self, key: &DbKey, keys: &mut Keys<'k>, progress: &mut Progress) {
        let slot = Slot::of(&key.1);
        let waiters = keys.with_slot(slot, |state| state.waiters(key));
        for waiter in waiters.into_iter().filter_map(blocking::downcast) {
            self.try_serve(&waiter, key, keys, progress);
        }
    }

    fn try_serve<'k>(
        &mut self,
        waiter: &Arc<Waiter>,
        key: &DbKey,
        keys: &mut Keys<'k>,
        progress: &mut Progress,
    ) {
        let still_waiting = waiter.try_serve(|| self.serve(waiter, key, keys, progress));
        if !still_waiting {
            for key in &waiter.keys {
                keys.with_slot(Slot::of(&key.1), |state| state.remove_waiter(key, waiter));
            }
        }
    }

    /// A client that also waits for a time: what it waits for may be there by now. Whatever keeps the node from executing
    /// that now, the client goes on waiting.
    #[cold]
    pub fn serve_by_time(&mut self, waiter: &Arc<Waiter>) {
        self.refresh();
        let runs = &self.server.scripts.runs;
        let Some(_batch) = world::begin_batch(&self.safepoint, || runs.is_busy()) else { return };
        self.look_at_gate();
        let (Some(key), Some(client)) = (waiter.keys.first(), self.server.clients.get(waiter.client_id))
        else {
            return;
        };
        let now = self.now();
        self.moment.now = now.monotonic;
        let session = Session::new(client);
        let (row, args, patience) = (waiter.row, waiter.args.as_args(), Patience::Left);
        let candidate = Candidate { session: &session, row, args, patience };
        if !matches!(self.checks().admit(&candidate, || self.clock.monotonic()), Verdict::Run(_)) {
            return;
        }
        let server = Arc::clone(&self.server);
        let mut keys = self.keys_of_clients(&server, now);
        self.note_settings(&mut keys);
        let mut progress = Progress::new(self.moment.generation);
        self.try_serve(waiter, key, &mut keys, &mut progress);
        self.after(&mut keys, &mut progress);
        if progress.appended {
            server.shared.notify_appended();
        }
    }

    /// Runs a waiting command again because `key` is ready; `None` if it goes on waiting.
    fn serve<'k>(
        &mut self,
        waiter: &Waiter,
        key: &DbKey,
        keys: &mut Keys<'k>,
        progress: &mut Progress,
    ) -> Option<Served> {
        let is_replica = keys.mode() == Mode::Replica;
        if is_replica && !waiter.row.has(spec::READONLY) {
            // It has waited at a primary, and hears of the end of that.
            return None;
        }
        let client = self.server.clients.get(waiter.client_id)?;
        let mut session = Session::new(client);
        session.version = waiter.version;
        session.db = waiter.keys.first()?.0;
        session.in_exec = true;
        let args = waiter.args.as_args();
        (session.user, session.rights) = (waiter.user, waiter.rights.clone());
        if waiter.followed != self.version {
            session.follow(&self.settings, self.version);
        }
        if let Some(user) = &session.rights
            && let Err(denied) = user.check(waiter.row, args, session.place(&self.settings))
        {
            return Some(self.refuse_waiter(&session, waiter, denied));
        }
        let db = std::mem::replace(&mut keys.db, session.db);
        keys.lock_visited(|visit| visit_slots(waiter.row, args, visit));
        // A key that got another type than the command waits for does not wake it, unless it needs the one that it had.
        let has_type = keys.get(&key.1).is_some_and(|e| e.value().group() == waiter.row.group.name());
        let ready = has_type || waiter.ends_without_key;
        let mut out = Output::default();
        let result = if ready {
            self.call(&mut session, waiter.row, args, keys, &mut out)
        } else {
            Ok(ServerOutcome::Reply)
        };
        let mut own = Progress::new(self.moment.generation);
        self.commit(&mut session, keys, &mut own);
        keys.db = db;
        progress.appended |= own.appended;
        match result {
            Ok(ServerOutcome::Reply) if ready => {}
            // Still nothing for it.
            Ok(ServerOutcome::Block(block)) => {
                waiter.set_again(block.again_ms);
                return None;
            }
            Ok(_) => return None,
            Err(e) => {
                out.clear();
                out.writer(waiter.version).error(e.to_bytes());
            }
        }
        if !is_replica {
            own.condition.require_lease();
        }
        let condition = own.condition.observed(&self.server.shared.gate, || self.clock.monotonic());
        Some(Served { reply: out, condition, written: session.last_write })
    }

    /// The user has lost the right to what it waits for.
    #[cold]
    fn refuse_waiter(&self, session: &Session, waiter: &Waiter, denied: Denied) -> Served {
        let error = deny(&self.server, session, denied, waiter.row, waiter.args.as_args());
        let mut reply = Output::default();
        reply.writer(waiter.version).error(error.to_bytes());
        Served { reply, condition: ReplyCondition::default(), written: session.last_write }
    }

    /// Clients of a replica that wait to read: something was applied to these keys.
    #[cold]
    pub(super) fn serve_readers(&mut self, ready: &[DbKey]) {
        self.look_at_gate();
        if self.moment.state != GateState::Replica {
            return;
        }
        let server = Arc::clone(&self.server);
        let mut keys = Keys::replica(&server.keyspace, &self.settings.keys, self.now());
        let mut progress = Progress::new(self.moment.generation);
        for key in ready {
            self.serve_waiters(key, &mut keys, &mut progress);
        }
    }

    /// A client that waited gave up: it leaves all queues, but for those of a busy script's slots. There whoever wants to
    /// serve it sees that it has left.
    pub fn forget_waiter(&self, waiter: &Arc<Waiter>) {
        let runs = &self.server.scripts.runs;
        for key in &waiter.keys {
            if let Some(mut state) = self.server.keyspace.lock_unless(Slot::of(&key.1), || runs.is_busy()) {
                state.remove_waiter(key, waiter);
            }
        }
    }
}

/// Puts the client into the queues of the keys, under the locks under which nothing was found.
pub(super) fn register_waiter(
    session: &Session,
    row: &'static Row,
    args: Args<'_>,
    block: &Block,
    keys: &mut Keys<'_>,
) {
    let db_keys: Vec<DbKey> = block.keys.iter().map(|k| (session.db, k.clone())).collect();
    let client = &session.client;
    let wake = Arc::clone(&client.wake);
    let args = match &block.instead {
        Some(words) => Args::from_slices(&words.iter().map(|word| &**word).collect::<Vec<_>>()).to_owned(),
        None => args.to_owned(),
    };
    let mut waiter = Waiter::new(client.id, row, args, session.version, db_keys, wake);
    waiter.ends_without_key = block.ends_without_key;
    (waiter.user, waiter.rights, waiter.followed) = (session.user, session.rights.clone(), session.followed);
    waiter.set_again(block.again_ms);
    let waiter = Arc::new(waiter);
    for key in &waiter.keys {
        keys.with_slot(Slot::of(&key.1), |state| state.add_waiter(key.clone(), waiter.clone()));
    }
    *client.waiter.lock() = Some(waiter);
}
