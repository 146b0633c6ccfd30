//! Executes the requests of a batch one after the other, and collects what their replies depend on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keyward_proto::resp::{Args, Batch, Output, is_http};
use keyward_replication::gate::GateState;
use keyward_store::keys::{KeyCounts, Keys, Now};
use keyward_store::world;
use rand::Rng;

use super::admit::{Basis, Candidate, Checks, Moment, Patience, Verdict, misconf, needs_memory};
use super::eviction::Room;
use super::lookahead::Planned;
use super::meanwhile::Meanwhile;
use super::progress::{BatchEnd, Muting, Progress, Running, logging, settle};
use super::timing::{Call, Caller};
use super::transaction::{deny, queue, refuse, rejected};
use super::{Executor, Stop};
use crate::command::CommandError;
use crate::command::find::find;
use crate::command::spec::{self, Scope};
use crate::io::session::{ReplyMode, Session};
use crate::process;
use crate::server::Server;

impl Executor {
    /// Executes the requests of `batch` from `first` on, up to the end, a reason to stop, or a command that stopped the
    /// world: the caller goes on with [`BatchEnd::next`]. Replies are appended to `out`.
    ///
    /// `patience`: of the first request, if it was stopped before.
    pub fn run_batch(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        first: usize,
        patience: Patience,
        out: &mut Output,
    ) -> BatchEnd {
        self.refresh();
        let runs = &self.server.scripts.runs;
        let guard = world::begin_batch(&self.safepoint, || runs.is_busy());
        if guard.is_none() {
            return Meanwhile::new(&self.server, &self.stats)
                .run_batch(session, batch, buffer, first, patience, out);
        }
        self.look_at_gate();
        if session.followed != self.version && !session.follow(&self.settings, self.version) {
            return BatchEnd::of_ended_user(session, self.moment.generation, first);
        }
        let admit = |this: &Executor, candidate: &Candidate<'_>| {
            this.checks().admit(candidate, || this.clock.monotonic())
        };
        self.run_requests(guard, session, batch, buffer, (first, patience), out, admit)
    }

    /// As [`Executor::run_batch`], for requests that were admitted when the gate was like this; it may have changed since
    /// then, and whoever has changed it waits for their end. Only a simulation can tell when that happens.
    pub fn run_admitted(
        &mut self,
        moment: Moment,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        out: &mut Output,
    ) -> BatchEnd {
        self.refresh();
        let guard = Some(self.safepoint.lock_arc());
        self.moment = moment;
        let basis = if moment.state == GateState::Primary { Basis::Lease } else { Basis::Anywhere };
        let admit = |_: &Executor, _: &Candidate<'_>| Verdict::Run(basis);
        self.run_requests(guard, session, batch, buffer, (0, Patience::Left), out, admit)
    }

    /// How the gate is.
    pub fn moment(&mut self) -> Moment {
        self.look_at_gate();
        self.moment
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    #[inline]
    fn run_requests(
        &mut self,
        mut guard: Running,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        (first, patience): (usize, Patience),
        out: &mut Output,
        admit: impl Fn(&Executor, &Candidate<'_>) -> Verdict,
    ) -> BatchEnd {
        let server = Arc::clone(&self.server);
        let now = self.now();
        let start = now.monotonic;
        session.client.note_interaction(start);
        self.moment.now = start;
        session.generation = self.moment.generation;
        let mut keys = self.keys_of_clients(&server, now);
        self.note_settings(&mut keys);
        let mut progress = Progress::new(self.moment.generation);
        let mut stop = None;
        let mut next = first;
        self.lookahead.clear();
        self.timing.begin(start, first);
        while next < batch.len() {
            let args = batch.args(buffer, next);
            keys.db = session.db;
            keys.no_touch = session.no_touch;
            let planned = self.lookahead.get(&server.keyspace, session.db, batch, buffer, next);
            self.timing.request = next;
            let (begin, end) = batch.bounds(next);
            self.timing.request_bytes = end - begin;
            if planned.row.is_none_or(|row| self.timing.measures(row)) {
                self.share_time(session, batch, buffer, next);
            }
            let patience = if next == first { patience } else { Patience::Left };
            if session.reply_mode != ReplyMode::On {
                if batch.has_empty_before(next) {
                    session.note_empty_request();
                }
                session.begin_request();
            }
            stop =
                self.run(session, args, planned, patience, &mut keys, out, &mut guard, &mut progress, &admit);
            if matches!(stop, Some(Stop::NotNow | Stop::Paused(_))) {
                break;
            }
            next += 1;
            // Stopping the world made a safepoint in the batch: the node's role may have changed. And what has been written
            // leaves before more of it is made.
            if stop.is_some() || std::mem::take(&mut self.reopened) || out.is_long() {
                break;
            }
            if out.is_exceeded() {
                break;
            }
        }
        self.share_time(session, batch, buffer, next);
        process::note_memory(&server.memory);
        let counts = keys.take_counts();
        self.stats.commands.add((next - first) as u64);
        session.client.commands.fetch_add((next - first) as u64, Ordering::Relaxed);
        if counts != KeyCounts::default() {
            self.stats.keyspace_hits.add(counts.hits);
            self.stats.keyspace_misses.add(counts.misses);
            self.stats.expired_keys.add(counts.expired_keys);
            self.stats.expired_fields.add(counts.expired_fields);
        }
        let Progress { condition, appended } = progress;
        BatchEnd { next, stop, condition, appended }
    }

    /// Within a batch: who closes the gate waits for its end before relying on that.
    #[inline]
    pub(super) fn look_at_gate(&mut self) {
        self.moment.look_at(&self.server.shared.gate);
    }

    /// The time, by both clocks.
    #[inline]
    pub(super) fn now(&self) -> Now {
        Now { wall: self.clock.unix_millis(), monotonic: self.clock.monotonic() }
    }

    /// The keyspace as the clients of this batch see it.
    #[inline]
    pub(super) fn keys_of_clients<'k>(&self, server: &'k Server, now: Now) -> Keys<'k> {
        let (space, settings) = (&server.keyspace, &self.settings.keys);
        match self.moment.state {
            GateState::Primary => Keys::primary(space, settings, now, logging(&server.shared.gate)),
            GateState::Replica
            | GateState::Holding
            | GateState::Undecided
            | GateState::NoPrimary
            | GateState::Loading
            | GateState::InDoubt => Keys::replica(space, settings, now),
        }
    }

    /// What else the settings say to the commands that follow.
    #[inline]
    pub(super) fn note_settings(&mut self, keys: &mut Keys<'_>) {
        let settings = &self.settings;
        self.moment.save_failed = self.server.saves.has_failed()
            && settings.stop_writes_on_bgsave_error
            && !settings.save_points.is_empty();
        if settings.keys.lfu.is_some() {
            keys.seed_random(self.rng.random());
        }
    }

    /// One request of a client. `Some` if the batch has to stop; nothing was done for `NotNow` and `Paused`.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    fn run<'k>(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        planned: Planned,
        patience: Patience,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut Running,
        progress: &mut Progress,
        admit: &impl Fn(&Executor, &Candidate<'_>) -> Verdict,
    ) -> Option<Stop> {
        let start = out.len();
        let mut muting = Muting::AsAll;
        let found = match planned.row {
            Some(row)
                if row.accepts(args.len())
                    && (!session.must_authenticate(&self.settings) || row.has(spec::NO_AUTH)) =>
            {
                Ok(row)
            }
            Some(_) | None => find(&self.settings, session, args),
        };
        let result = match found {
            Ok(row) => {
                session.client.set_last_command(row);
                let mut verdict = admit(self, &Candidate { session, row, args, patience });
                if self.maxmemory != 0
                    && (needs_memory(session, row, &verdict)
                        || (matches!(verdict, Verdict::Queue) && self.queued_script_needs_memory(row, args)))
                    && self.make_room(keys, progress) == Room::Exhausted
                {
                    verdict = Verdict::Refuse(CommandError::OutOfMemory);
                }
                if matches!(verdict, Verdict::Queue)
                    && let Err(error) = self.check_to_queue(session, row, args)
                {
                    verdict = Verdict::Refuse(error);
                }
                match verdict {
                    Verdict::Run(basis) => {
                        session.asking = false;
                        if basis == Basis::Lease {
                            progress.condition.require_lease();
                        }
                        let begun = self.timing.begin_call();
                        let result = self.execute(session, row, args, planned, keys, out, guard, progress);
                        self.count_call(row, &result);
                        // Replies that are too long for the client are dropped, and those before with them.
                        let (request_bytes, reply_bytes) =
                            (self.timing.request_bytes, out.len().saturating_sub(start));
                        let caller = Caller::Client;
                        let call = Call { row, args, begun, request_bytes, reply_bytes, caller };
                        self.look_back(session, &call, &result);
                        if session.tracking.is_some() {
                            session.end_caching(row);
                        }
                        if result.is_ok() && (row.scope == Scope::Transaction || row.has(spec::SUBSCRIPTION))
                        {
                            muting = Muting::ByItself;
                        }
                        result
                    }
                    Verdict::Queue => {
                        session.asking = false;
                        queue(session, row, args, &self.settings, out)
                    }
                    Verdict::Wait => return Some(Stop::NotNow),
                    Verdict::Pause(until) => return Some(Stop::Paused(until)),
                    Verdict::Leave => return Some(Stop::Close),
                    Verdict::Refuse(error) => Err(refuse(&self.stats, session, row, args, keys, error)),
                    Verdict::Deny(denied) => {
                        let error = deny(&self.server, session, denied, row, args);
                        Err(refuse(&self.stats, session, row, args, keys, error))
                    }
                    Verdict::RefuseForDisk => {
                        let error = misconf(&self.server.disk_error());
                        Err(refuse(&self.stats, session, row, args, keys, error))
                    }
                }
            }
            Err(_) if is_http(args.at(0)) => {
                self.server.clients.warn_of_http(self.moment.now, &session.client.address);
                session.client.kill();
                // As in Valkey what was answered in the same batch is not sent.
                out.clear();
                return Some(Stop::Close);
            }
            Err(e) => Err(rejected(session, args, keys, e)),
        };
        let stop = settle(&self.moment, &self.stats, session, result, (start, muting), out);
        if session.may_get_pushes() {
            // What the command published to its own client comes right behind its reply.
            for push in session.client.take_pushes() {
                session.pushed.join(push.condition);
                out.push_shared(&push.message);
            }
        }
        progress.condition.join(std::mem::take(&mut session.pushed));
        stop
    }

    #[inline]
    pub(super) fn checks(&self) -> Checks<'_> {
        Checks {
            moment: &self.moment,
            gate: &self.server.shared.gate,
            pause: &self.server.pause,
            settings: &self.settings,
            routing: &self.routing,
        }
    }
}
