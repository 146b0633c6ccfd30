//! While a script takes longer than `busy-reply-threshold`: who has to wait for it is told that the node is busy. What
//! needs neither the world nor a slot runs nevertheless, above all what ends the script.
//!
//! It uses nothing of an [`Executor`](super::Executor): on the script's own thread that is in use.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keyward_proto::resp::{Args, Batch, Output};
use keyward_replication::reply::ReplyCondition;
use keyward_store::keys::{Keys, Now};

use super::Stop;
use super::admit::{Candidate, Checks, Moment, Patience, Verdict, misconf};
use super::progress::{BatchEnd, Muting, settle};
use super::transaction::{deny, queue, refuse, rejected};
use crate::admin::{ServerContext, ServerResult};
use crate::command::CommandError;
use crate::command::find::find;
use crate::command::spec::{self, Scope};
use crate::command::table::{Handler, Row};
use crate::config::Settings;
use crate::io::session::Session;
use crate::observe::monitor::Origin;
use crate::routing::Routing;
use crate::server::Server;
use crate::stats::ThreadStats;

/// See the module documentation.
#[derive(Debug)]
pub struct Meanwhile<'a> {
    server: &'a Arc<Server>,
    stats: &'a ThreadStats,
    settings: Arc<Settings>,
    /// Of these settings, or before them.
    version: u64,
    routing: Arc<Routing>,
    moment: Moment,
}

impl<'a> Meanwhile<'a> {
    #[cold]
    pub fn new(server: &'a Arc<Server>, stats: &'a ThreadStats) -> Meanwhile<'a> {
        let mut moment = Moment { now: server.clock.monotonic(), ..Moment::NONE };
        moment.look_at(&server.shared.gate);
        let version = server.version();
        Meanwhile { server, stats, settings: server.settings(), version, routing: server.routing(), moment }
    }

    /// As [`Executor::run_batch`](super::Executor::run_batch).
    pub fn run_batch(
        &self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        first: usize,
        patience: Patience,
        out: &mut Output,
    ) -> BatchEnd {
        session.client.note_interaction(self.moment.now);
        if !session.follow(&self.settings, self.version) {
            return BatchEnd::of_ended_user(session, self.moment.generation, first);
        }
        session.locks_no_slots = true;
        let mut stop = None;
        let mut next = first;
        while next < batch.len() {
            let patience = if next == first { patience } else { Patience::Left };
            if batch.has_empty_before(next) {
                session.note_empty_request();
            }
            session.begin_request();
            stop = self.run(session, batch.args(buffer, next), patience, out);
            if matches!(stop, Some(Stop::NotNow | Stop::Paused(_))) {
                break;
            }
            next += 1;
            if stop.is_some() || out.is_long() || out.is_exceeded() {
                break;
            }
        }
        session.locks_no_slots = false;
        self.stats.commands.add((next - first) as u64);
        session.client.commands.fetch_add((next - first) as u64, Ordering::Relaxed);
        let condition = ReplyCondition::new(self.moment.generation);
        BatchEnd { next, stop, condition, appended: false }
    }

    fn run(
        &self,
        session: &mut Session,
        args: Args<'_>,
        patience: Patience,
        out: &mut Output,
    ) -> Option<Stop> {
        let start = out.len();
        let now = Now { wall: self.server.clock.unix_millis(), monotonic: self.moment.now };
        let mut keys = Keys::replica(&self.server.keyspace, &self.settings.keys, now);
        keys.db = session.db;
        let result = match find(&self.settings, session, args) {
            Ok(row) => match self.judge(session, row, args, patience) {
                Verdict::Run(_) => self.call(session, row, args, &mut keys, out),
                Verdict::Queue => queue(session, row, args, &self.settings, out),
                Verdict::Wait => return Some(Stop::NotNow),
                Verdict::Pause(until) => return Some(Stop::Paused(until)),
                Verdict::Leave => return Some(Stop::Close),
                Verdict::Refuse(error) => Err(refuse(self.stats, session, row, args, &mut keys, error)),
                Verdict::Deny(denied) => {
                    let error = deny(self.server, session, denied, row, args);
                    Err(refuse(self.stats, session, row, args, &mut keys, error))
                }
                Verdict::RefuseForDisk => {
                    let error = misconf(&self.server.disk_error());
                    Err(refuse(self.stats, session, row, args, &mut keys, error))
                }
            },
            Err(error) => Err(rejected(session, args, &mut keys, error)),
        };
        settle(&self.moment, self.stats, session, result, (start, Muting::AsAll), out)
    }

    /// Whether it runs although the node is busy.
    fn judge(&self, session: &Session, row: &'static Row, args: Args<'_>, patience: Patience) -> Verdict {
        let checks = Checks {
            moment: &self.moment,
            gate: &self.server.shared.gate,
            pause: &self.server.pause,
            settings: &self.settings,
            routing: &self.routing,
        };
        let candidate = Candidate { session, row, args, patience };
        let verdict = checks.admit(&candidate, || self.moment.now);
        let is_refused = matches!(
            verdict,
            Verdict::Refuse(_) | Verdict::Deny(_) | Verdict::RefuseForDisk | Verdict::Leave
        );
        // Differs from Valkey, where WATCH runs.
        let needs_slots = row.scope != Scope::None;
        let waits = !row.has(spec::ALLOW_BUSY) || needs_slots;
        if waits && !is_refused { self.busy().into() } else { verdict }
    }

    fn busy(&self) -> CommandError {
        CommandError::coded(self.server.scripts.runs.busy_error())
    }

    fn call(
        &self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        keys: &mut Keys<'_>,
        out: &mut Output,
    ) -> ServerResult {
        session.client.set_last_command(row);
        let (out, spec) = (out.writer(session.version), row.spec());
        let result = match row.handler {
            Handler::Server(run) => {
                run(&mut ServerContext { keys, out, session, server: self.server, spec }, args)
            }
            Handler::Data(_) => Err(self.busy()),
        };
        if self.server.monitors.are_there() && !row.has(spec::SKIP_MONITOR) {
            let limit = self.settings.output_limits.normal.hard_bytes;
            let from = (session.db, Origin::Client(&session.client.address));
            self.server.monitors.show(row, args, from, self.server.clock.unix_micros(), limit);
        }
        if let Some(counters) = self.stats.command(row) {
            counters.calls.add(1);
            if result.is_err() {
                counters.failed.add(1);
            }
        }
        result
    }
}
