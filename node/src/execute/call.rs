//! Calls a command's function: locks its slots, appends its effects to the log under these locks, and does what follows
//! once they are free.

use std::sync::Arc;

use keyward_commands::DataContext;
use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::resp::{Args, Output};
use keyward_proto::slot::Slot;
use keyward_replication::gate::{DiskState, GateState};
use keyward_replication::reply::{Read, ReplyCondition};
use keyward_store::keys::{Keys, Mode};

use super::lookahead::Planned;
use super::progress::{Progress, Running, logging};
use super::waiters::register_waiter;
use super::{Executor, UNWRITTEN_BYTES_MAX};
use crate::admin::{ServerContext, ServerOutcome, ServerResult};
use crate::command::CommandError;
use crate::command::keys_of::visit_slots;
use crate::command::spec::{self, NamedKeys, Scope};
use crate::command::table::{self, Handler, Row};
use crate::io::session::Session;
use crate::tracking::Cause;

/// So often the slots that a command's values name are looked for.
const NAMING_ATTEMPTS: usize = 3;

/// The slots that a request's values name and that are not locked.
pub(super) fn missing_of(keys: &Keys<'_>, named: NamedKeys, args: Args<'_>) -> Vec<Slot> {
    let mut missing = Vec::new();
    (named.visit)(keys, args, &mut |slot| {
        if !keys.holds(slot) {
            missing.push(slot);
        }
    });
    missing
}

/// The client keeps what it reads here, under the locks under which it has read it.
#[cold]
fn note_reader(session: &Session, row: &Row, args: Args<'_>, keys: &mut Keys<'_>) {
    let visited = row.visit_keys(args, &mut |at, _| keys.note_reader(args.at(at), session.client.id));
    // A request that names its keys wrongly has read none.
    visited.unwrap_or_default();
}

impl Executor {
    /// Locks, calls, appends, unlocks, serves waiters.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    #[inline]
    pub(super) fn execute<'k>(
        &mut self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        planned: Planned,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut Running,
        progress: &mut Progress,
    ) -> ServerResult {
        let result = match row.scope {
            Scope::None => return self.call(session, row, args, keys, out),
            // A slot may be a busy script's, and it takes one after the other.
            Scope::Walk if self.server.scripts.runs.is_busy() => return Err(self.busy()),
            Scope::Walk => self.call_locked(session, row, args, keys, out, progress),
            Scope::Keys => {
                let runs = &self.server.scripts.runs;
                let is_locked = if let Some(key) = planned.key {
                    keys.set_known_hash(args.at(key.at), key.hash);
                    keys.lock_one_unless(key.slot, || runs.is_busy())
                } else if let Some(named) = row.named_keys(args) {
                    self.lock_named(row, args, named, keys)
                } else {
                    keys.lock_visited_unless(|visit| visit_slots(row, args, visit), || runs.is_busy())
                };
                if !is_locked {
                    return Err(self.busy());
                }
                self.call_locked(session, row, args, keys, out, progress)
            }
            Scope::World => self.execute_alone(keys, guard, |this, keys| {
                keys.lock_all();
                this.call_locked(session, row, args, keys, out, progress)
            }),
            Scope::Transaction => self.execute_transaction(session, args, keys, out, guard, progress),
            Scope::Script => self.execute_script(session, row, args, keys, out, guard, progress),
        };
        self.after(keys, progress);
        result
    }

    /// Locks the slots of a command that reads keys which only the values of its own keys name. If one of them is not free
    /// it begins again, since slots are waited for in ascending order; all are locked if the names change that fast. `false`: who has one of them is not to be waited for.
    fn lock_named(&self, row: &'static Row, args: Args<'_>, named: NamedKeys, keys: &mut Keys<'_>) -> bool {
        let runs = &self.server.scripts.runs;
        let mut found: Vec<Slot> = Vec::new();
        for _ in 0..NAMING_ATTEMPTS {
            let all = |visit: &mut dyn FnMut(Slot)| {
                found.iter().copied().for_each(&mut *visit);
                visit_slots(row, args, visit);
            };
            if !keys.lock_visited_unless(all, || runs.is_busy()) {
                return false;
            }
            let mut missing = missing_of(keys, named, args);
            if missing.is_empty() || keys.try_lock_many(&mut missing) {
                return true;
            }
            found.append(&mut missing);
            keys.unlock();
        }
        keys.lock_visited_unless(|visit| Slot::all().for_each(visit), || runs.is_busy())
    }

    /// Calls a command's function under its locks, then appends its effects and unlocks.
    #[inline]
    pub(super) fn call_locked<'k>(
        &mut self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        keys: &mut Keys<'k>,
        out: &mut Output,
        progress: &mut Progress,
    ) -> ServerResult {
        let fits = if row.has(spec::WRITE) { keys.check_entry(|| args.bytes_len()) } else { Ok(()) };
        let mut result = match fits {
            Ok(()) => self.call(session, row, args, keys, out),
            Err(too_long) => Err(too_long.into()),
        };
        if let Ok(ServerOutcome::Block(block)) = &result {
            if session.in_exec {
                block.in_transaction.write(&mut out.writer(session.version));
                result = Ok(ServerOutcome::Reply);
            } else {
                register_waiter(session, row, args, block, keys);
            }
        }
        if let Some(tracking) = &session.tracking
            && row.has(spec::READONLY)
            && tracking.remembers()
        {
            note_reader(session, row, args, keys);
        }
        if !session.in_exec {
            self.commit(session, keys, progress);
        }
        result
    }

    /// Appends the effects of what has run under the held locks, and unlocks.
    #[inline]
    pub(super) fn commit<'k>(&mut self, session: &mut Session, keys: &mut Keys<'k>, progress: &mut Progress) {
        self.append_effects(session, keys, progress);
        keys.unlock();
    }

    /// As [`Executor::commit`], with the locks kept.
    #[inline]
    pub(super) fn append_effects<'k>(
        &mut self,
        session: &mut Session,
        keys: &mut Keys<'k>,
        progress: &mut Progress,
    ) {
        keys.finish();
        let counted = keys.take_counted();
        if keys.is_logging() {
            if let Some(written) = self.append(keys) {
                session.last_write = written;
                progress.appended = true;
                progress.condition.wrote(written.index);
            }
            // Alone, with a disk that fails, reads wait for nothing: no other node can know better.
            if keys.mode() == Mode::Primary
                && (self.moment.disk != DiskState::Failed || !self.server.shared.gate.is_standalone())
            {
                let read = if counted { Read::Counts } else { Read::Slots(keys.last_write()) };
                progress.condition.read(read, || self.server.shared.log.lock().last().index);
            }
        } else if keys.mode() == Mode::Replica
            && !self.server.shared.gate.is_standalone()
            && !mutation::is_on(Mutation::ReplicaReadsNotGated)
        {
            // Mostly it is committed. But this thread may have seen a replica, and the applier be at work already on what a
            // new primary takes over, which may vanish with it.
            let read = if counted { Read::Counts } else { Read::Slots(keys.last_write()) };
            progress.condition.read(read, || self.server.executed_position().index);
        }
        // Before anybody can see what they tell of.
        if keys.has_events() {
            self.publish_events(keys, progress.condition.depends_on());
        }
        if keys.has_changes() {
            self.tell_changes(Some(session.client.id), keys, progress.condition.depends_on());
        }
    }

    #[cold]
    fn publish_events(&self, keys: &mut Keys<'_>, depends_on: LogIndex) {
        let condition = ReplyCondition::of_entry(depends_on, self.moment.generation);
        for event in keys.take_events() {
            self.server.publish_event(&event, condition, &self.settings);
        }
    }

    /// Clients that keep values themselves hear of a change with the write that made it.
    #[cold]
    fn tell_changes(&self, client: Option<u64>, keys: &mut Keys<'_>, depends_on: LogIndex) {
        let condition = ReplyCondition::of_entry(depends_on, self.moment.generation);
        self.server.tell_changes(&keys.take_changes(), Cause { client, condition });
    }

    /// Appends the effects of what has run, if there are any; returns where.
    #[inline]
    fn append(&self, keys: &mut Keys<'_>) -> Option<Position> {
        let shared = &self.server.shared;
        let term = shared.gate.term();
        let index = keys.commit_effects(|effects| {
            let long = effects.take_long();
            let mut log = shared.log.lock();
            let index = match long {
                Some(frame) => log.append_frame(term, frame),
                None => log.append(term, effects.as_payload()),
            };
            let lags = UNWRITTEN_BYTES_MAX < log.unwritten_bytes();
            drop(log);
            if lags {
                shared.gate.note_lag();
            }
            index
        })?;
        Some(Position { term, index })
    }

    #[inline]
    pub(super) fn call<'k>(
        &mut self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        keys: &mut Keys<'k>,
        out: &mut Output,
    ) -> ServerResult {
        let version = session.version;
        if keys.is_logging() {
            keys.command = table::name_for_effects(row);
        }
        let (out, spec) = (out.writer(version), row.spec());
        let result = match row.handler {
            Handler::Data(run) => {
                let (rng, limits) = (&mut self.rng, &self.limits);
                let reads_all_keys = match &session.rights {
                    None => true,
                    Some(user) => {
                        !row.has_named_keys() || user.reads_all_keys(row, args, session.place(&self.settings))
                    }
                };
                run(&mut DataContext { keys, out, rng, limits, spec, reads_all_keys }, args)
                    .map(ServerOutcome::from)
            }
            Handler::Server(run) => {
                run(&mut ServerContext { keys, out, session, server: &self.server, spec }, args)
            }
        };
        if row.scope == Scope::None && self.server.version() != self.version {
            // CONFIG SET: what follows in the batch is executed under the new settings.
            self.refresh();
            session.follow(&self.settings, self.version);
            keys.reconfigure(&self.settings.keys, self.moment.now);
            self.note_settings(keys);
        }
        result
    }

    /// What follows a command once its locks are free.
    #[inline]
    pub(super) fn after<'k>(&mut self, keys: &mut Keys<'k>, progress: &mut Progress) {
        let dirty = keys.take_dirty();
        if dirty > 0 {
            self.stats.changes.add(dirty);
        }
        if self.reopened && self.require_same_state().is_err() {
            // The node is not what it was when the command ran: clients that wait are sent away by their connections.
            drop(keys.take_ready());
        }
        if keys.has_lazyfree() {
            self.free(keys);
        }
        self.serve_ready(keys, progress);
    }

    /// Serves the clients that wait for keys with which something has happened.
    #[inline]
    pub(super) fn serve_ready<'k>(&mut self, keys: &mut Keys<'k>, progress: &mut Progress) {
        while keys.has_ready() {
            for key in keys.take_ready() {
                self.serve_waiters(&key, keys, progress);
            }
        }
    }

    /// Executes something while no other thread does, if the node's role is still the one in which it was admitted.
    pub(super) fn execute_alone<'k, R>(
        &mut self,
        keys: &mut Keys<'k>,
        guard: &mut Running,
        execute: impl FnOnce(&mut Self, &mut Keys<'k>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        self.with_world_stopped(guard, |this| {
            this.require_same_state()?;
            keys.set_logging(logging(&this.server.shared.gate));
            execute(this, keys)
        })
    }

    /// The batch ends with the command, whether the world could be stopped or not: if a script takes too long to be waited
    /// for, the thread stays at its safepoint.
    fn with_world_stopped<R>(
        &mut self,
        guard: &mut Running,
        f: impl FnOnce(&mut Self) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        let server = Arc::clone(&self.server);
        *guard = None;
        self.reopened = true;
        let stopped = server.world.stop_unless(|| server.scripts.runs.is_busy());
        let Some(stopped) = stopped else { return Err(self.busy()) };
        let result = f(self);
        *guard = stopped.end_with_batch(&self.safepoint);
        result
    }

    /// What is told to who would have to wait for a script.
    #[cold]
    pub(super) fn busy(&self) -> CommandError {
        CommandError::coded(self.server.scripts.runs.busy_error())
    }

    /// While the world was being stopped this thread was at a safepoint, so the node's role may have changed, and more
    /// than once.
    fn require_same_state(&self) -> Result<(), CommandError> {
        let gate = &self.server.shared.gate;
        let is_same = gate.generation() == self.moment.generation && gate.state() == self.moment.state;
        if is_same { Ok(()) } else { Err(CommandError::ClusterDown) }
    }

    /// Appends the effects of what the node did by itself under the held locks, and unlocks. The index, if there were
    /// any.
    pub(super) fn commit_own(&self, keys: &mut Keys<'_>) -> Option<LogIndex> {
        let index = self.append(keys).map(|written| written.index);
        self.publish_events(keys, index.unwrap_or_default());
        if keys.has_changes() {
            self.tell_changes(None, keys, index.unwrap_or_default());
        }
        keys.unlock();
        self.stats.changes.add(keys.take_dirty());
        index
    }

    /// Whether keys may expire or be evicted without a command that asks for it: their effects are writes. Within a batch.
    pub(super) fn acts_by_itself(&mut self) -> bool {
        self.look_at_gate();
        self.moment.state == GateState::Primary
            && self.server.shared.gate.lease_valid(self.clock.monotonic())
            && self.moment.disk == DiskState::Healthy
    }

    /// Drops large values that were deleted or replaced, here or in the background. No slot is locked.
    pub(super) fn free(&self, keys: &mut Keys<'_>) {
        for garbage in keys.take_lazyfree() {
            if self.settings.frees_lazily(garbage.cause) {
                self.server.lazyfree.free(garbage.entry);
            }
        }
    }
}
