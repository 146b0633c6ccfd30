//! How long commands take, and which of them are told of: in INFO, by SLOWLOG and COMMANDLOG, by the latency monitor.
//!
//! Reading the clock takes as long as a tenth of a GET in a pipeline. So brief commands (what is quick whatever it works
//! on) are timed together, by the readings around them; every other command has readings of its own. Where commands of
//! less than a millisecond are to be noted all are timed by themselves.

use std::time::Duration;

use keyward_proto::resp::{Args, Batch};
use keyward_proto::time::Monotonic;

use super::Executor;
use crate::admin::{ServerOutcome, ServerResult};
use crate::command::find::find;
use crate::command::spec;
use crate::command::table::Row;
use crate::config::Settings;
use crate::io::session::Session;
use crate::observe::commandlog::{Kind, Noted};
use crate::observe::latency::Sample;
use crate::observe::monitor::Origin;
use crate::observe::shown::visible;
use crate::server::Server;

/// Called commands for which memory is kept.
const CALLED_KEPT: usize = 1 << 10;
/// To note commands that are quicker than this all are timed by themselves.
const TOGETHER_MAX: Duration = Duration::from_millis(1);

/// Which commands are looked at more closely, as of the settings. Nanoseconds and bytes; the largest number: none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    /// All commands are timed by themselves.
    each: bool,
    slow_nanos: u64,
    latency_nanos: u64,
    request_bytes: usize,
    reply_bytes: usize,
    monitored: bool,
}

impl Attention {
    pub(super) fn of(settings: &Settings, server: &Server) -> Attention {
        let limits = &settings.commandlog;
        let nanos = |micros: u64| micros.saturating_mul(1000);
        let slow_nanos = limits.slow_micros.filter(|_| limits.slow_kept != 0).map_or(u64::MAX, nanos);
        let latency_nanos = match settings.latency_threshold_millis {
            0 => u64::MAX,
            millis => nanos(millis.saturating_mul(1000)),
        };
        Attention {
            each: u128::from(slow_nanos) < TOGETHER_MAX.as_nanos(),
            slow_nanos,
            latency_nanos,
            request_bytes: limits.request_bytes.unwrap_or(usize::MAX),
            reply_bytes: limits.reply_bytes.unwrap_or(usize::MAX),
            monitored: server.monitors.are_there(),
        }
    }
}

/// The clock's readings in a batch, and what has been called since the last.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) attention: Attention,
    /// Since `mark`.
    called: Vec<&'static Row>,
    mark: Monotonic,
    /// The first request of the batch that began after `mark`.
    first: usize,
    /// The running request.
    pub(super) request: usize,
    /// Its length, for the commands of a transaction, too.
    pub(super) request_bytes: usize,
}

/// A command that was called, as others see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) row: &'static Row,
    pub(super) args: Args<'a>,
    pub(super) begun: Begin,
    pub(super) request_bytes: usize,
    pub(super) reply_bytes: usize,
    pub(super) caller: Caller,
}

/// Where a call began; the time of brief ones is that of the last reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    at: Monotonic,
    /// Calls that were not timed then.
    called: usize,
}

/// Who calls a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller {
    Client,
    Script,
}

impl Timing {
    pub(super) fn new(server: &Server) -> Timing {
        Timing {
            attention: Attention::of(&server.settings(), server),
            called: Vec::new(),
            mark: Monotonic::ZERO,
            first: 0,
            request: 0,
            request_bytes: 0,
        }
    }

    /// A batch begins with this request.
    #[inline]
    pub(super) fn begin(&mut self, now: Monotonic, request: usize) {
        (self.mark, self.first, self.request) = (now, request, request);
    }

    /// A client's command begins. If it has readings of its own, one has just been made.
    #[inline]
    pub(super) fn begin_call(&self) -> Begin {
        Begin { at: self.mark, called: self.called.len() }
    }

    /// Whether a command has readings of its own.
    #[inline]
    pub(super) fn measures(&self, row: &Row) -> bool {
        self.attention.each || !row.is_brief()
    }

    /// Whether there is more to do for a call than to count it.
    #[inline]
    fn looks_at(&self, call: &Call<'_>) -> bool {
        self.measures(call.row)
            || self.attention.request_bytes <= call.request_bytes
            || self.attention.reply_bytes <= call.reply_bytes
            || self.attention.monitored
    }
}

impl Executor {
    /// A call for `commandstats`; its time is added later.
    #[inline]
    pub(super) fn count_call<T, E>(&mut self, row: &'static Row, result: &Result<T, E>) {
        if let Some(counters) = self.stats.command(row) {
            counters.calls.add(1);
            if result.is_err() {
                counters.failed.add(1);
            }
        }
        self.timing.called.push(row);
    }

    /// Before request number `next`, or at the end of the batch: the time since the last reading is that of the brief
    /// commands that were called since then.
    #[inline]
    pub(super) fn share_time(&mut self, session: &Session, batch: &Batch, buffer: &[u8], next: usize) {
        let timing = &mut self.timing;
        let count = timing.called.len() as u64;
        if count == 0 {
            timing.first = next;
            return;
        }
        let now = self.clock.monotonic();
        let elapsed = nanos(now.since(timing.mark));
        let first = timing.first;
        (timing.mark, timing.first) = (now, next);
        let share = elapsed / count;
        for same in timing.called.chunk_by(|a, b| std::ptr::eq(*a, *b)) {
            if let Some(counters) = self.stats.command(same[0]) {
                counters.add_time(same.len() as u64, share);
            }
        }
        timing.called.clear();
        // A transaction may have called many.
        if CALLED_KEPT < timing.called.capacity() {
            timing.called = Vec::new();
        }
        if timing.attention.slow_nanos.min(timing.attention.latency_nanos) <= elapsed {
            self.note_slow_stretch(session, batch, buffer, first..next, elapsed);
        }
    }

    /// One of these took long, which brief commands do if the machine has no time for the node. Which one nobody knows: the
    /// last stands for all.
    #[cold]
    fn note_slow_stretch(
        &self,
        session: &Session,
        batch: &Batch,
        buffer: &[u8],
        requests: std::ops::Range<usize>,
        elapsed: u64,
    ) {
        let last = requests.rev().map(|number| batch.args(buffer, number));
        let found = last.filter_map(|args| Some((find(&self.settings, session, args).ok()?, args)));
        if let Some((row, args)) = found.take(1).next() {
            self.note_time(session, row, args, elapsed);
        }
    }

    /// A command begins within another one.
    #[inline]
    pub(super) fn begin_inner_call(&self, row: &Row) -> Begin {
        let timing = &self.timing;
        let at = if timing.measures(row) { self.clock.monotonic() } else { timing.mark };
        Begin { at, called: timing.called.len() }
    }

    /// What is to be told of a call that has ended, the last one that was counted, if anything is.
    #[inline]
    pub(super) fn look_back(&mut self, session: &Session, call: &Call<'_>, result: &ServerResult) {
        if self.timing.looks_at(call) {
            self.look_closer(session, call, result);
        }
    }

    fn look_closer(&mut self, session: &Session, call: &Call<'_>, result: &ServerResult) {
        if self.timing.measures(call.row) {
            let took = self.measure(call, result);
            if self.timing.attention.slow_nanos.min(self.timing.attention.latency_nanos) <= took {
                self.note_time(session, call.row, call.args, took);
            }
        }
        self.look_at_call(session, call);
    }

    /// Reads the clock. Brief commands that were called within this one get an equal share of its time.
    fn measure(&mut self, call: &Call<'_>, result: &ServerResult) -> u64 {
        let now = self.clock.monotonic();
        let mut took = nanos(now.since(call.begun.at));
        if let Ok(ServerOutcome::Sleep(time, _)) = result {
            took = took.saturating_add(nanos(*time));
        }
        let timing = &mut self.timing;
        (timing.mark, timing.first) = (now, timing.request + 1);
        timing.called.pop();
        let within = timing.called.drain(call.begun.called..);
        let share = took / (within.len() as u64 + 1);
        for row in within {
            if let Some(counters) = self.stats.command(row) {
                counters.add_time(1, share);
            }
        }
        if let Some(counters) = self.stats.command(call.row) {
            counters.add_time(1, took);
        }
        took
    }

    fn look_at_call(&self, session: &Session, call: &Call<'_>) {
        let Call { row, args, .. } = *call;
        let attention = &self.timing.attention;
        if attention.request_bytes <= call.request_bytes {
            self.note_in_log(session, Kind::LargeRequest, row, args, call.request_bytes as u64);
        }
        if attention.reply_bytes <= call.reply_bytes {
            self.note_in_log(session, Kind::LargeReply, row, args, call.reply_bytes as u64);
        }
        if attention.monitored && !row.has(spec::SKIP_MONITOR) {
            let origin = match call.caller {
                Caller::Client => Origin::Client(&session.client.address),
                Caller::Script => Origin::Script,
            };
            self.show(session, row, args, origin);
        }
    }

    /// Monitors see a script before what it calls.
    pub(super) fn show_script(&self, session: &Session, row: &'static Row, args: Args<'_>) {
        if self.timing.attention.monitored {
            self.show(session, row, args, Origin::Client(&session.client.address));
        }
    }

    #[cold]
    fn show(&self, session: &Session, row: &'static Row, args: Args<'_>, origin: Origin<'_>) {
        let limit = self.settings.output_limits.normal.hard_bytes;
        let micros = self.clock.unix_micros();
        self.server.monitors.show(row, args, (session.db, origin), micros, limit);
    }

    #[cold]
    fn note_time(&self, session: &Session, row: &'static Row, args: Args<'_>, took: u64) {
        let attention = &self.timing.attention;
        if attention.slow_nanos <= took {
            self.note_in_log(session, Kind::Slow, row, args, took / 1000);
        }
        if attention.latency_nanos <= took {
            let event = if row.has(spec::FAST) { "fast-command" } else { "command" };
            let unix_seconds = self.clock.unix_micros() / 1_000_000;
            self.server.latency.note(event, Sample { unix_seconds, millis: took / 1_000_000 });
        }
    }

    #[cold]
    fn note_in_log(&self, session: &Session, kind: Kind, row: &'static Row, args: Args<'_>, amount: u64) {
        if row.has(spec::SKIP_COMMANDLOG) {
            return;
        }
        let noted = Noted {
            unix_seconds: self.clock.unix_micros() / 1_000_000,
            args: &visible(row, args),
            address: &session.client.address,
            client_name: session.client.description.lock().name.clone(),
        };
        self.server.command_logs.note(kind, amount, &self.settings.commandlog, noted);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
