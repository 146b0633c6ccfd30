//! Executes commands: finds the row, checks whether the command may run here and now, locks its slots, calls it,
//! and hands its effects to the write log.
//!
//! Synchronous, and the same for a client's request, a command of a transaction, a waiting command that is served,
//! and an entry of the log that a replica applies. The order within one command:
//! 1. checks that need no lock (arity, authentication, role, slot ownership, lease);
//! 2. lock the slots of its keys, call its function;
//! 3. append its effects to the log under these locks, so that the log's order is the order of execution per slot;
//! 4. unlock; serve clients that waited for what it pushed; publish keyspace events.

mod eviction;
mod expiry;

pub use eviction::Eviction;
pub use expiry::ExpiryCycle;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_commands::{DataContext, DataLimits};
use keyward_proto::ids::LogIndex;
use keyward_proto::resp::{Args, Batch, Output, Version};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use parking_lot::RawMutex;
use parking_lot::lock_api::ArcMutexGuard;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::admin::cluster;
use crate::admin::{Request, ServerContext, ServerOutcome, ServerResult};
use crate::blocking::{self, Served, Waiter};
use crate::clock;
use crate::command::spec::{self, Flags, Scope};
use crate::command::table::{self, Handler, Row};
use crate::command::{Block, CommandError, OnTimeout};
use crate::config::Settings;
use crate::gate::{DiskState, GateState};
use crate::keyspace::access::AccessClock;
use crate::keyspace::keys::{Keys, Mode};
use crate::keyspace::{DbKey, world};
use crate::lookahead::{Lookahead, Planned};
use crate::process;
use crate::pubsub::Kind;
use crate::routing::{Owner, Routing, endpoint};
use crate::server::Server;
use crate::session::{ReplyMode, Session, Transaction};
use crate::stats::ThreadStats;

const SAVE_FAILED: &str = "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to \
                           disk. Commands that may modify the data set are disabled, because this instance is \
                           configured to report errors during writes if RDB snapshotting fails \
                           (stop-writes-on-bgsave-error option). Please check the Valkey logs for details about the \
                           RDB error.";

/// Writes are held back while more of the write log than this waits for the disk.
pub const UNWRITTEN_BYTES_MAX: u64 = 64 << 20;

/// Called commands for which memory is kept.
const CALLED_KEPT: usize = 1 << 10;

/// Why nothing more may be executed for the client for now.
#[derive(Debug)]
pub enum Stop {
    /// The node may not execute now (no lease, hand-off, change of term): try again when the gate changes, at most
    /// until `grace` has passed.
    NotNow,
    /// CLIENT PAUSE until this time.
    Paused(Monotonic),
    /// The command waits for keys; it goes on with the next request.
    Blocked {
        waiter: Arc<Waiter>,
        timeout: Option<Duration>,
        on_timeout: OnTimeout,
    },
    /// WAIT.
    WaitReplicas {
        index: u64,
        replicas: u64,
        timeout: Option<Duration>,
    },
    /// This reply after this time.
    Sleep(Duration, &'static [u8]),
    Await(Request),
    Download,
    Close,
}

/// How far a batch came.
#[derive(Debug)]
pub struct BatchEnd {
    /// The request with which it goes on; the number of requests if all are executed.
    pub next: usize,
    /// Without a reason to stop, the caller goes on at once with what is left.
    pub stop: Option<Stop>,
    /// The replies leave when this index is committed.
    pub depends_on: u64,
    /// A reply is only true while this node is the primary: check the lease before it leaves.
    pub needs_lease: bool,
    /// Something was appended to the log.
    pub appended: bool,
}

/// Executes commands on one thread.
#[derive(Debug)]
pub struct Executor {
    server: Arc<Server>,
    gate: world::Gate,
    pub stats: Arc<ThreadStats>,
    settings: Arc<Settings>,
    routing: Arc<Routing>,
    version: u64,
    /// When the batch began.
    now: Monotonic,
    /// The gate's state when the batch began. Whoever changes it waits for the batch to end before relying on it.
    state: GateState,
    /// The database could not be saved, and then writes are refused. Of the same moment.
    save_failed: bool,
    /// Whether writes may run, as far as this node's disk is concerned; of the same moment.
    disk: DiskState,
    /// The gate was given back in the middle of the batch.
    reopened: bool,
    rng: SmallRng,
    lookahead: Lookahead,
    /// The commands that the running batch has called, to share its time among them.
    called: Vec<&'static Row>,
    /// Zero: no limit.
    maxmemory: usize,
    /// What the settings say to commands.
    limits: DataLimits,
    evictor: eviction::Evictor,
    expirer: expiry::Expirer,
}

/// The thread's gate while it executes a batch; given back while the world is stopped.
type GateGuard = Option<ArcMutexGuard<RawMutex, ()>>;

/// What a batch accumulates.
#[derive(Debug, Default)]
struct Progress {
    depends_on: u64,
    needs_lease: bool,
    appended: bool,
}

impl Executor {
    pub fn new(server: Arc<Server>) -> Self {
        Executor {
            gate: server.world.add_gate(),
            stats: server.stats.add_thread(),
            settings: server.settings(),
            routing: server.routing(),
            version: 0,
            now: Monotonic::ZERO,
            state: GateState::Loading,
            save_failed: false,
            disk: DiskState::Healthy,
            reopened: false,
            rng: SmallRng::from_os_rng(),
            lookahead: Lookahead::default(),
            called: Vec::new(),
            maxmemory: 0,
            limits: server.settings().data_limits(),
            evictor: eviction::Evictor::default(),
            expirer: expiry::Expirer::default(),
            server,
        }
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub fn settings(&mut self) -> &Settings {
        self.refresh();
        &self.settings
    }

    #[inline]
    fn refresh(&mut self) {
        let version = self.server.version();
        if version != self.version {
            self.settings = self.server.settings();
            self.routing = self.server.routing();
            self.maxmemory = self.settings.maxmemory;
            self.limits = self.settings.data_limits();
            self.version = version;
        }
    }

    /// Executes the requests of `batch` from `first` on, up to the end, a reason to stop, or a command that stopped the
    /// world: the caller goes on with [`BatchEnd::next`]. Replies are appended to `out`.
    ///
    /// `waited`: the first request was stopped before and has waited as long as it may.
    pub fn run_batch(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        first: usize,
        waited: bool,
        out: &mut Output,
    ) -> BatchEnd {
        self.refresh();
        let server = Arc::clone(&self.server);
        let mut guard: GateGuard = Some(self.gate.lock_arc());
        let (now, start) = (clock::unix_millis().0, clock::monotonic());
        session.client.note_interaction(start);
        self.now = start;
        self.state = server.shared.gate.state();
        self.disk = server.shared.gate.disk();
        let mode = mode_of(self.state);
        let mut keys = Keys::new(
            &server.keyspace,
            mode,
            server.shared.gate.logs(),
            now,
            AccessClock::new(start, self.settings.lfu),
            self.settings.notify_keyspace_events,
        );
        self.configure(&mut keys);
        let mut progress = Progress::default();
        let mut stop = None;
        let mut next = first;
        self.lookahead.clear();
        while next < batch.len() {
            let args = batch.args(buffer, next);
            keys.db = session.db;
            keys.no_touch = session.no_touch;
            let planned = self.lookahead.get(&server.keyspace, session.db, batch, buffer, next);
            let waited = waited && next == first;
            if session.reply_mode != ReplyMode::On {
                if batch.has_empty_before(next) {
                    session.note_empty_request();
                }
                session.begin_request();
            }
            stop = self.run(session, args, planned, waited, &mut keys, out, &mut guard, &mut progress);
            if matches!(stop, Some(Stop::NotNow | Stop::Paused(_))) {
                break;
            }
            next += 1;
            // Stopping the world opened this thread's gate: the node's role may have changed. And what has been written
            // leaves before more of it is made.
            if stop.is_some() || std::mem::take(&mut self.reopened) || out.is_long() {
                break;
            }
            if out.is_exceeded() {
                break;
            }
        }
        self.count_time(start);
        process::note_memory(&server.memory);
        let (hits, misses, expired) = keys.take_counts();
        self.stats.commands.add((next - first) as u64);
        session.client.commands.fetch_add((next - first) as u64, Ordering::Relaxed);
        if hits + misses + expired > 0 {
            self.stats.keyspace_hits.add(hits);
            self.stats.keyspace_misses.add(misses);
            self.stats.expired_keys.add(expired);
        }
        let Progress { depends_on, needs_lease, appended } = progress;
        BatchEnd { next, stop, depends_on, needs_lease, appended }
    }

    /// Lets what the settings say hold for the commands that follow.
    #[inline]
    fn configure(&mut self, keys: &mut Keys<'_>) {
        let settings = &self.settings;
        self.save_failed = self.server.saves.has_failed()
            && settings.stop_writes_on_bgsave_error
            && !settings.save_points.is_empty();
        keys.limits = settings.limits;
        keys.set_event_classes(settings.notify_keyspace_events);
        keys.set_access_clock(AccessClock::new(self.now, settings.lfu));
        if settings.lfu.is_some() {
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
        waited: bool,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut GateGuard,
        progress: &mut Progress,
    ) -> Option<Stop> {
        let start = out.len();
        // It has left out by itself what CLIENT REPLY leaves out.
        let mut mutes_itself = false;
        let found = match planned.row {
            Some(row)
                if row.accepts(args.len())
                    && (!session.must_authenticate(&self.settings) || row.has(spec::NO_AUTH)) =>
            {
                Ok(row)
            }
            Some(_) | None => self.find(session, args),
        };
        let result = match found {
            Ok(row) => {
                session.client.set_last_command(row);
                let mut admission = self.admit(session, row, args, waited, progress);
                if self.maxmemory != 0
                    && let Ok(admitted) = &admission
                    && needs_memory(session, row, admitted)
                    && !self.make_room(keys, progress)
                {
                    admission = Err(CommandError::OutOfMemory);
                }
                match admission {
                    Ok(Admission::Execute) => {
                        let result = self.execute(session, row, args, planned, keys, out, guard, progress);
                        self.count_call(row, result.is_err());
                        mutes_itself = result.is_ok()
                            && (row.scope == Scope::Transaction || row.has(spec::SUBSCRIPTION));
                        result
                    }
                    Ok(Admission::Queue) => queue(session, row, args, out),
                    Ok(Admission::Stop(stop)) => return Some(stop),
                    Err(e) => {
                        if let Some(counters) = self.stats.command(row) {
                            counters.rejected.add(1);
                        }
                        Err(rejected(session, args, keys, e))
                    }
                }
            }
            Err(_) if is_http(args) => {
                self.server.warn_of_http(self.now, &session.client.address);
                session.client.kill();
                // As in Valkey what was answered in the same batch is not sent.
                out.clear();
                return Some(Stop::Close);
            }
            Err(e) => Err(rejected(session, args, keys, e)),
        };
        let stop = match result {
            Ok(ServerOutcome::Reply) => None,
            Ok(ServerOutcome::Close) => Some(Stop::Close),
            Ok(ServerOutcome::Sleep(time, reply)) => Some(Stop::Sleep(time, reply)),
            Ok(ServerOutcome::Await(request)) => Some(Stop::Await(request)),
            Ok(ServerOutcome::Download) => Some(Stop::Download),
            Ok(ServerOutcome::WaitReplicas { replicas, timeout_ms }) => {
                let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
                Some(Stop::WaitReplicas { index: session.last_write, replicas, timeout })
            }
            // `execute` has registered the waiter.
            Ok(ServerOutcome::Block(block)) => {
                let timeout = (block.timeout_ms > 0).then(|| Duration::from_millis(block.timeout_ms));
                let waiter = session.client.waiter.lock().clone();
                waiter.map(|waiter| Stop::Blocked { waiter, timeout, on_timeout: block.on_timeout })
            }
            Err(e) => {
                self.stats.count_error(&e.to_string());
                out.truncate(start);
                out.writer(session.version).error(e.to_bytes());
                None
            }
        };
        session.stall_is_muted = session.is_muted();
        if session.stall_is_muted && !mutes_itself {
            out.truncate(start);
        }
        if session.reply_mode == ReplyMode::Skip {
            session.reply_mode = ReplyMode::On;
        }
        if !session.subscriptions.is_empty() {
            // What the command published to its own client comes right behind its reply.
            for push in session.client.take_pushes() {
                session.pushed = push.depends_on.max(session.pushed);
                out.push_shared(&push.message);
            }
        }
        progress.depends_on = progress.depends_on.max(session.pushed);
        stop
    }

    /// A call for `commandstats`; its time is added at the end of the batch.
    #[inline]
    fn count_call(&mut self, row: &'static Row, failed: bool) {
        if let Some(counters) = self.stats.command(row) {
            counters.calls.add(1);
            if failed {
                counters.failed.add(1);
            }
        }
        self.called.push(row);
    }

    /// Shares the time of a batch among the commands that were called in it.
    fn count_time(&mut self, start: Monotonic) {
        let count = self.called.len() as u64;
        if count == 0 {
            return;
        }
        let elapsed = clock::monotonic().since(start).as_nanos();
        let share = u64::try_from(elapsed).unwrap_or(u64::MAX) / count;
        for row in self.called.drain(..) {
            if let Some(counters) = self.stats.command(row) {
                counters.nanos.add(share);
            }
        }
        // A transaction may have called many.
        if CALLED_KEPT < self.called.capacity() {
            self.called = Vec::new();
        }
    }

    /// The row of a command or of its subcommand, with the arity checked. Who has to authenticate learns nothing else.
    #[inline]
    fn find(&self, session: &Session, args: Args<'_>) -> Result<&'static Row, CommandError> {
        let found = lookup(args);
        if session.must_authenticate(&self.settings)
            && !found.as_ref().is_ok_and(|row| row.has(spec::NO_AUTH))
        {
            return Err(CommandError::coded("NOAUTH Authentication required."));
        }
        let row = found.map_err(|error| self.instead(args).unwrap_or(error))?;
        if !row.accepts(args.len()) {
            return Err(CommandError::WrongArity(row.name.into()));
        }
        Ok(row)
    }

    /// The error of what the sentinels do here: it names how.
    #[cold]
    fn instead(&self, args: Args<'_>) -> Option<CommandError> {
        let (command, subcommand) = (args.at(0), args.get(1));
        if command.eq_ignore_ascii_case(b"replicaof") || command.eq_ignore_ascii_case(b"slaveof") {
            return Some(CommandError::err(
                "REPLICAOF is not supported: a node follows the primary that the sentinels name; start it with \
                 '--sentinels HOST:BUS-PORT,...'",
            ));
        }
        if command.eq_ignore_ascii_case(b"failover") {
            return Some(CommandError::err(
                "FAILOVER is not supported: use 'keyward-sentinel failover SHARD', or SENTINEL FAILOVER at a sentinel",
            ));
        }
        let text =
            subcommand.filter(|_| command.eq_ignore_ascii_case(b"cluster")).and_then(cluster::instead)?;
        Some(if self.settings.cluster_enabled {
            CommandError::err(text)
        } else {
            CommandError::err("This instance has cluster support disabled")
        })
    }

    /// Whether a command may run here and now.
    #[inline]
    fn admit(
        &self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        waited: bool,
        progress: &mut Progress,
    ) -> Result<Admission, CommandError> {
        let in_transaction = session.transaction.is_some();
        if in_transaction && row.has(spec::NO_MULTI) {
            return Err(CommandError::err(format!(
                "Command '{}' not allowed inside a transaction",
                row.name
            )));
        }
        if session.only_subscription_commands() && !row.has(spec::SUBSCRIPTION | spec::FOR_SUBSCRIBERS) {
            return Err(CommandError::err(format!(
                "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                row.name
            )));
        }
        let gate = &self.server.shared.gate;
        if gate.is_alone() {
            if self.state == GateState::Loading && !row.has(spec::LOADING) {
                return Err(loading());
            }
        } else if let Some(admission) = self.admit_replicated(session, row, args, waited, progress)? {
            return Ok(admission);
        }
        if self.disk != DiskState::Healthy
            && let Some(admission) = self.admit_without_disk(session, row, waited)?
        {
            return Ok(admission);
        }
        if self.save_failed
            && self.state == GateState::Primary
            && (is_write(session, row) || row.has(spec::HEALTH_CHECK))
        {
            return Err(CommandError::coded(SAVE_FAILED));
        }
        if let Some(until) = self.server.pause.applies(self.now, may_replicate(session, row)) {
            return Ok(Admission::Stop(Stop::Paused(until)));
        }
        session.asking = false;
        if in_transaction && !row.has(spec::NEVER_QUEUED) {
            return Ok(Admission::Queue);
        }
        Ok(Admission::Execute)
    }

    /// While the write log does not get to the disk, nothing is added to it: refused if writing fails, held back if
    /// the disk is only slow. PING tells of a failure, too, as in Valkey.
    #[cold]
    fn admit_without_disk(
        &self,
        session: &Session,
        row: &'static Row,
        waited: bool,
    ) -> Result<Option<Admission>, CommandError> {
        let is_write = is_write(session, row);
        if self.state != GateState::Primary || !(is_write || row.has(spec::HEALTH_CHECK)) {
            return Ok(None);
        }
        match self.disk {
            DiskState::Healthy => Ok(None),
            DiskState::Lagging if !is_write => Ok(None),
            DiskState::Lagging if !waited => Ok(Some(Admission::Stop(Stop::NotNow))),
            DiskState::Lagging => {
                Err(misconf("the disk is too slow: too much of the write log waits to be written"))
            }
            DiskState::Failed => Err(misconf(&self.server.disk_error())),
        }
    }

    /// The checks of a node with sentinels; `None`: go on.
    fn admit_replicated(
        &self,
        session: &Session,
        row: &'static Row,
        args: Args<'_>,
        waited: bool,
        progress: &mut Progress,
    ) -> Result<Option<Admission>, CommandError> {
        let gate = &self.server.shared.gate;
        let executes =
            row.scope == Scope::Transaction && session.transaction.as_ref().is_some_and(|t| !t.aborted);
        if !(executes || matches!(row.scope, Scope::Keys | Scope::Walk | Scope::World)) {
            // PING, too: a node that has not joined yet, or lacks data, is not ready.
            if self.state == GateState::Loading && !row.has(spec::LOADING) {
                return Err(loading());
            }
            // Shard channels belong to slots; a replica serves their subscribers too.
            if self.settings.cluster_enabled && row.has(spec::PUBSUB) && !row.keys().is_empty() {
                let known = self.check_slots(session, row, args, row.has(spec::MAY_REPLICATE))?;
                return if known { Ok(None) } else { not_now(waited) };
            }
            return Ok(None);
        }
        let is_write = is_write(session, row);
        if self.settings.cluster_enabled {
            let known = self.check_slots(session, row, args, is_write)?;
            if !known {
                return not_now(waited);
            }
        }
        if session.transaction.is_some() && !executes {
            // Queued now; the role is checked when it executes, writes also now, as in Valkey.
            if is_write && self.state == GateState::Replica {
                return Err(CommandError::ReadOnly);
            }
            return Ok(None);
        }
        match self.state {
            GateState::Primary => {
                if !gate.lease_valid(clock::monotonic()) {
                    return not_now(waited);
                }
                if is_write && !gate.writable() {
                    return Err(CommandError::NoReplicas);
                }
                progress.needs_lease = true;
                Ok(None)
            }
            GateState::Holding => not_now(waited),
            GateState::Replica => {
                if is_write {
                    return Err(CommandError::ReadOnly);
                }
                Ok(None)
            }
            GateState::NoPrimary => {
                if is_write {
                    return Err(CommandError::ReadOnly);
                }
                if !self.settings.serve_stale_data {
                    return Err(CommandError::MasterDown);
                }
                Ok(None)
            }
            GateState::Loading => {
                if row.has(spec::LOADING) {
                    return Ok(None);
                }
                Err(loading())
            }
        }
    }

    /// Cluster mode: one slot per command, and this node serves it. False: who serves it is about to be known.
    fn check_slots(
        &self,
        session: &Session,
        row: &Row,
        args: Args<'_>,
        is_write: bool,
    ) -> Result<bool, CommandError> {
        let mut slot: Option<Slot> = None;
        let mut crossed = false;
        let mut visit = |this: Slot| {
            crossed |= slot.is_some_and(|s| s != this);
            slot = Some(this);
        };
        match &session.transaction {
            Some(t) if row.scope == Scope::Transaction => {
                t.commands.iter().for_each(|(row, args)| visit_slots(row, args.as_args(), &mut visit));
            }
            Some(_) | None => visit_slots(row, args, &mut visit),
        }
        let Some(slot) = slot else { return Ok(true) };
        if crossed {
            return Err(CommandError::CrossSlot);
        }
        let moved =
            |node| CommandError::Moved { slot: slot.number(), address: endpoint(node, &self.settings) };
        match self.routing.owner(slot) {
            Owner::Nobody => Err(CommandError::SlotNotServed),
            Owner::Other(Some(node)) => Err(moved(node)),
            Owner::Other(None) => Err(CommandError::ClusterDown),
            Owner::Mine
                if self.settings.require_full_coverage
                    && !self.routing.covered
                    && !self.mine_only_uncovered() =>
            {
                Err(CommandError::ClusterDown)
            }
            Owner::Mine => match self.state {
                GateState::Primary | GateState::Holding => Ok(true),
                GateState::Loading => Ok(true),
                GateState::Replica | GateState::NoPrimary => {
                    if (session.readonly || row.has(spec::PUBSUB)) && !is_write {
                        return Ok(true);
                    }
                    match self.routing.my_primary() {
                        Some(node) if Some(&node.id) != self.routing.me.as_ref() => Err(moved(node)),
                        // This node has ceased to serve or is about to: the topology or the gate follows.
                        Some(_) | None => Ok(false),
                    }
                }
            },
        }
    }

    /// The only shard without a primary is this node's own: its gate decides.
    fn mine_only_uncovered(&self) -> bool {
        let mut without =
            self.routing.topology.shards.values().filter(|s| s.primary.is_none() && !s.slots.is_empty());
        without.all(|s| Some(&s.id) == self.routing.my_shard.as_ref())
    }

    /// Locks, calls, appends, unlocks, serves waiters.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    #[inline]
    fn execute<'k>(
        &mut self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        planned: Planned,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut GateGuard,
        progress: &mut Progress,
    ) -> ServerResult {
        let result = match row.scope {
            Scope::None => return self.call(session, row, args, keys, out),
            Scope::Walk => self.call_locked(session, row, args, keys, out, progress),
            Scope::Keys => {
                if let Some(key) = planned.key {
                    keys.set_known_hash(args.at(key.at), key.hash);
                    keys.lock_one(key.slot);
                } else {
                    keys.lock_visited(|visit| visit_slots(row, args, visit));
                }
                self.call_locked(session, row, args, keys, out, progress)
            }
            Scope::World => self.with_world_stopped(guard, |this| {
                this.require_same_state()?;
                keys.set_logging(this.server.shared.gate.logs());
                keys.lock_all();
                this.call_locked(session, row, args, keys, out, progress)
            }),
            Scope::Transaction => self.execute_transaction(session, keys, out, guard, progress),
        };
        self.after(keys, progress);
        result
    }

    /// Calls a command's function under its locks, then appends its effects and unlocks.
    #[inline]
    fn call_locked<'k>(
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
                let mut out = out.writer(session.version);
                block.in_transaction.write(&mut out);
                result = Ok(ServerOutcome::Reply);
            } else {
                register_waiter(session, row, args, block, keys);
            }
        }
        if !session.in_exec {
            self.commit(session, keys, progress);
        }
        result
    }

    /// Appends the effects of what has run under the held locks, and unlocks.
    #[inline]
    fn commit<'k>(&mut self, session: &mut Session, keys: &mut Keys<'k>, progress: &mut Progress) {
        keys.finish();
        let counted = keys.take_counted();
        if keys.is_logging() {
            if let Some(index) = self.append(keys) {
                session.last_write = index;
                progress.appended = true;
                progress.depends_on = progress.depends_on.max(index);
            }
            // A read of what is not committed waits for that. Alone, with a disk that fails, it does not: no other
            // node can know better, and reads go on.
            if keys.mode() == Mode::Primary
                && (self.disk != DiskState::Failed || !self.server.shared.gate.is_alone())
            {
                progress.depends_on = progress.depends_on.max(keys.last_write());
                if counted {
                    let last = self.server.shared.log.lock().last().index.get();
                    progress.depends_on = progress.depends_on.max(last);
                }
            }
        }
        // Before anybody can see what they tell of.
        if keys.has_events() {
            self.publish_events(keys, progress.depends_on);
        }
        keys.unlock();
    }

    #[cold]
    fn publish_events(&self, keys: &mut Keys<'_>, depends_on: u64) {
        for event in keys.take_events() {
            self.server.publish_event(&event, depends_on, &self.settings);
        }
    }

    /// Appends the effects of what has run, if there are any; returns their index.
    #[inline]
    fn append(&self, keys: &mut Keys<'_>) -> Option<u64> {
        let shared = &self.server.shared;
        let term = shared.gate.term();
        keys.commit_effects(|effects| {
            let long = effects.take_long();
            let mut log = shared.log.lock();
            let index = match long {
                Some(frame) => log.append_frame(term, frame),
                None => log.append(term, effects.as_payload()),
            };
            let index = index.get();
            let lags = UNWRITTEN_BYTES_MAX < log.unwritten_bytes();
            drop(log);
            if lags {
                shared.gate.note_lag();
            }
            index
        })
    }

    #[inline]
    fn call<'k>(
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
                run(&mut DataContext { keys, out, rng, limits, spec }, args).map(ServerOutcome::from)
            }
            Handler::Server(run) => {
                run(&mut ServerContext { keys, out, session, server: &self.server, spec }, args)
            }
        };
        if row.scope == Scope::None && self.server.version() != self.version {
            // CONFIG SET: what follows in the batch is executed under the new settings.
            self.refresh();
            self.configure(keys);
        }
        result
    }

    /// What follows a command once its locks are free.
    #[inline]
    fn after<'k>(&mut self, keys: &mut Keys<'k>, progress: &mut Progress) {
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
        while keys.has_ready() {
            for key in keys.take_ready() {
                self.serve_waiters(&key, keys, progress);
            }
        }
    }

    fn with_world_stopped<R>(&mut self, guard: &mut GateGuard, f: impl FnOnce(&mut Self) -> R) -> R {
        let server = Arc::clone(&self.server);
        *guard = None;
        let stopped = server.world.stop();
        let result = f(self);
        drop(stopped);
        *guard = Some(self.gate.lock_arc());
        self.reopened = true;
        result
    }

    /// While the world was being stopped this thread's gate was open, so the node's role may have changed.
    fn require_same_state(&self) -> Result<(), CommandError> {
        if self.server.shared.gate.state() == self.state { Ok(()) } else { Err(CommandError::ClusterDown) }
    }

    // ------------------------------------------------------------------ transactions

    /// EXEC: all commands under all their locks, their effects as one entry.
    fn execute_transaction<'k>(
        &mut self,
        session: &mut Session,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut GateGuard,
        progress: &mut Progress,
    ) -> ServerResult {
        let Some(transaction) = session.transaction.take() else {
            return Err(CommandError::err("EXEC without MULTI"));
        };
        session.describe();
        if transaction.aborted {
            unwatch(session, keys);
            session.describe();
            return Err(CommandError::coded("EXECABORT Transaction discarded because of previous errors."));
        }
        let whole = transaction.commands.iter().any(|(r, _)| matches!(r.scope, Scope::World | Scope::Walk));
        if whole {
            return self.with_world_stopped(guard, |this| {
                this.require_same_state()?;
                keys.set_logging(this.server.shared.gate.logs());
                keys.lock_all();
                this.run_transaction(session, &transaction, keys, out, progress)
            });
        }
        let mut slots: Vec<Slot> = session.watched.keys().map(|(_, key)| Slot::of(key)).collect();
        for (row, args) in &transaction.commands {
            let args = args.as_args();
            slots.extend(slots_of(row, args));
        }
        keys.lock_many(slots);
        self.run_transaction(session, &transaction, keys, out, progress)
    }

    fn run_transaction<'k>(
        &mut self,
        session: &mut Session,
        transaction: &Transaction,
        keys: &mut Keys<'k>,
        out: &mut Output,
        progress: &mut Progress,
    ) -> ServerResult {
        let expired = session.watched.iter().any(|((db, key), existed)| {
            keys.db = *db;
            *existed && !keys.exists(key)
        });
        let failed = session.watch_failed() || expired;
        unwatch(session, keys);
        session.describe();
        let header = out.len();
        if failed {
            self.commit(session, keys, progress);
            out.writer(session.version).null_array();
        } else {
            session.in_exec = true;
            out.writer(session.version).array(transaction.commands.len());
        }
        if session.is_muted() {
            out.truncate(header);
        }
        if failed {
            return Ok(ServerOutcome::Reply);
        }
        let mut end = ServerOutcome::Reply;
        for (row, args) in &transaction.commands {
            keys.db = session.db;
            let start = out.len();
            let args = args.as_args();
            let result = match row.scope {
                Scope::None => self.call(session, row, args, keys, out),
                Scope::Keys | Scope::Walk | Scope::World | Scope::Transaction => {
                    self.call_locked(session, row, args, keys, out, progress)
                }
            };
            self.count_call(row, result.is_err());
            let confirmed = result.is_ok() && row.has(spec::SUBSCRIPTION);
            match result {
                Ok(ServerOutcome::Reply) => {}
                // A transaction does not wait.
                Ok(ServerOutcome::Sleep(_, reply)) => out.writer(session.version).raw(reply),
                Ok(ServerOutcome::WaitReplicas { .. }) => {
                    let count = self.server.replicas_holding(session.last_write);
                    out.writer(session.version).len(count);
                }
                Ok(other) => end = other,
                Err(e) => {
                    self.stats.count_error(&e.to_string());
                    out.truncate(start);
                    out.writer(session.version).error(e.to_bytes());
                }
            }
            if session.is_muted() && !confirmed {
                out.truncate(start);
            }
        }
        session.in_exec = false;
        self.commit(session, keys, progress);
        Ok(end)
    }

    // ------------------------------------------------------------------ waiting clients

    /// Executes the commands that wait for a key, in their order, as long as they find something.
    fn serve_waiters<'k>(&mut self, key: &DbKey, keys: &mut Keys<'k>, progress: &mut Progress) {
        let slot = Slot::of(&key.1);
        let waiters = keys.with_slot(slot, |state| state.waiters(key));
        for waiter in waiters.into_iter().filter_map(blocking::downcast) {
            let still_waiting = waiter.try_serve(|| self.serve(&waiter, key, keys, progress));
            if !still_waiting {
                for key in &waiter.keys {
                    keys.with_slot(Slot::of(&key.1), |state| state.remove_waiter(key, &waiter));
                }
            }
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
        let client = self.server.clients.get(waiter.client_id)?;
        let mut session = Session::new(client, true);
        session.version = waiter.version;
        session.db = waiter.keys.first()?.0;
        session.in_exec = true;
        let args = waiter.args.as_args();
        let db = std::mem::replace(&mut keys.db, session.db);
        keys.lock_many(slots_of(waiter.row, args));
        // A key that got another type than the command waits for does not wake it.
        let ready = keys.get(&key.1).is_some_and(|e| e.value().group() == waiter.row.group.name());
        let mut out = Output::default();
        let result = if ready {
            self.call(&mut session, waiter.row, args, keys, &mut out)
        } else {
            Ok(ServerOutcome::Reply)
        };
        let mut own = Progress::default();
        self.commit(&mut session, keys, &mut own);
        keys.db = db;
        progress.appended |= own.appended;
        match result {
            Ok(ServerOutcome::Reply) if ready => {}
            // Still nothing for it.
            Ok(_) => return None,
            Err(e) => {
                out.clear();
                out.writer(waiter.version).error(e.to_bytes());
            }
        }
        // The thread's gate is closed, so the generation is that of the execution.
        let gate = &self.server.shared.gate;
        let needs_lease = !gate.lease_valid(clock::monotonic());
        Some(Served { reply: out, depends_on: own.depends_on, needs_lease, generation: gate.generation() })
    }

    /// A client that waited gave up: it leaves all queues.
    pub fn forget_waiter(&self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            self.server.keyspace.lock(Slot::of(&key.1)).remove_waiter(key, waiter);
        }
    }

    /// Ends the subscriptions to shard channels whose slots this shard does not have any more; writes what the client
    /// is told.
    pub fn drop_lost_shard_channels(&mut self, session: &mut Session, out: &mut Output) {
        self.refresh();
        if !self.settings.cluster_enabled {
            return;
        }
        let lost = |channel: &[u8]| self.routing.owner(Slot::of(channel)) != Owner::Mine;
        let channels: Vec<Box<[u8]>> =
            session.subscriptions.sharded.iter().filter(|c| lost(c)).cloned().collect();
        for channel in channels {
            session.subscriptions.sharded.remove(&channel);
            self.server.pubsub.unsubscribe(Kind::Sharded, &channel, session.client.id);
            let mut writer = out.writer(session.version);
            writer.push(3);
            writer.bulk_str("sunsubscribe");
            writer.bulk(&channel);
            writer.len(session.subscriptions.sharded.len());
        }
        session.describe();
    }

    /// Ends a session: its watches and subscriptions are removed.
    pub fn end_session(&self, session: &mut Session) {
        for key in std::mem::take(&mut session.watched).into_keys() {
            self.server.keyspace.lock(Slot::of(&key.1)).unwatch(&key, session.client.id);
        }
        self.server.pubsub.end(session);
    }

    // ------------------------------------------------------------------ the log's effects

    /// Until the guard is dropped nobody stops the world. For changes that no batch makes.
    pub fn enter(&self) -> ArcMutexGuard<RawMutex, ()> {
        self.gate.lock_arc()
    }

    /// Applies one effect from a file: as [`Executor::apply_locked`], but what cannot be applied is an error. Expiry
    /// times that a foreign file has as durations count from `now`.
    ///
    /// # Errors
    /// What the command is and why it cannot be applied.
    pub fn apply_loaded(
        &mut self,
        session: &mut Session,
        touched: &Touched,
        db: u16,
        index: LogIndex,
        now: i64,
        args: Args<'_>,
    ) -> Result<(), String> {
        let server = Arc::clone(&self.server);
        let events = crate::notify::EventClasses::default();
        let clock = AccessClock::new(clock::monotonic(), self.settings.lfu);
        let mut keys = Keys::new(&server.keyspace, Mode::Apply, false, now, clock, events);
        keys.limits = self.settings.limits;
        let row = lookup_effect(args).map_err(|e| e.to_string())?;
        match touched {
            Touched::One(slot) => keys.lock_one(*slot),
            Touched::Several(slots) => keys.lock_many(slots.iter().copied()),
            Touched::WholeKeyspace => keys.lock_all(),
        }
        (keys.db, session.db) = (db, db);
        let mut out = Output::default();
        let result = self.call(session, row, args, &mut keys, &mut out);
        keys.set_last_write(index.get());
        keys.unlock();
        self.free(&mut keys);
        result.map(drop).map_err(|e| format!("{}: {e}", row.name.to_uppercase()))
    }

    /// Applies effects of the log: no checks, no expiry, no effects of their own. `run` is called once with all
    /// locks held (those of all slots for `None`) and calls what it is given for each effect. The caller has entered.
    ///
    /// Panics on an effect that this version does not know: going on would make this node differ from its primary.
    pub fn apply_locked(
        &mut self,
        session: &mut Session,
        slots: Option<Vec<Slot>>,
        index: LogIndex,
        run: impl FnOnce(&mut dyn FnMut(u16, Args<'_>)),
    ) {
        let server = Arc::clone(&self.server);
        self.refresh();
        let clock = AccessClock::new(clock::monotonic(), self.settings.lfu);
        let events = crate::notify::EventClasses::default();
        let mut keys = Keys::new(&server.keyspace, Mode::Apply, false, 0, clock, events);
        keys.limits = self.settings.limits;
        keys.seed_random(self.rng.random());
        match slots {
            Some(slots) => keys.lock_many(slots),
            None => keys.lock_all(),
        }
        let mut out = Output::default();
        run(&mut |db, args| {
            (keys.db, session.db) = (db, db);
            out.clear();
            let row = lookup_effect(args).unwrap_or_else(|e| panic!("the log has {args:?}: {e}"));
            if let Err(e) = self.call(session, row, args, &mut keys, &mut out) {
                panic!("an effect failed: {args:?}: {e}");
            }
        });
        keys.set_last_write(index.get());
        keys.unlock();
        self.free(&mut keys);
    }

    /// Appends the effects of what the node did by itself under the held locks, and unlocks. The index, if there were
    /// any.
    fn commit_own(&self, keys: &mut Keys<'_>) -> Option<u64> {
        let index = self.append(keys);
        self.publish_events(keys, index.unwrap_or(0));
        keys.unlock();
        self.stats.changes.add(keys.take_dirty());
        index
    }

    /// Whether keys may expire or be evicted without a command that asks for it: their effects are writes. The thread's
    /// gate is held.
    fn acts_by_itself(&self) -> bool {
        let gate = &self.server.shared.gate;
        gate.state() == GateState::Primary
            && gate.lease_valid(clock::monotonic())
            && gate.disk() == DiskState::Healthy
    }

    /// Drops large values that were deleted or replaced, here or in the background. No slot is locked.
    fn free(&self, keys: &mut Keys<'_>) {
        for garbage in keys.take_lazyfree() {
            if self.settings.frees_lazily(garbage.cause) {
                self.server.reclaim.free(garbage.entry);
            }
        }
    }
}

/// What to do with a command that passed the checks.
#[derive(Debug)]
enum Admission {
    Execute,
    Queue,
    Stop(Stop),
}

/// Whether a command is refused when memory is short.
fn needs_memory(session: &Session, row: &Row, admitted: &Admission) -> bool {
    match admitted {
        Admission::Stop(_) => false,
        Admission::Execute if row.scope == Scope::Transaction => {
            let transaction = session.transaction.as_ref();
            transaction.is_some_and(|t| t.commands.iter().any(|(r, _)| r.has(spec::DENYOOM)))
        }
        Admission::Execute | Admission::Queue => row.has(spec::DENYOOM),
    }
}

/// The first words of an HTTP request that are no commands: a web page may have a browser send any body to any port.
#[cold]
fn is_http(args: Args<'_>) -> bool {
    args.at(0).eq_ignore_ascii_case(b"post") || args.at(0).eq_ignore_ascii_case(b"host:")
}

/// What a command in a file of the write log touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    One(Slot),
    Several(Vec<Slot>),
    WholeKeyspace,
}

/// What a command touches that is to be applied.
///
/// # Errors
/// Why it cannot be applied.
pub fn touched(args: Args<'_>) -> Result<Touched, String> {
    let row = lookup_effect(args).map_err(|e| e.to_string())?;
    if !row.accepts(args.len()) {
        return Err(CommandError::WrongArity(row.name.into()).to_string());
    }
    if row.scope == Scope::World {
        return Ok(Touched::WholeKeyspace);
    }
    if row.scope != Scope::Keys {
        return Err(format!("'{}' is no command that changes keys", row.name));
    }
    let mut one = None;
    let mut several = Vec::new();
    visit_slots(row, args, &mut |slot| {
        if one.is_none() {
            one = Some(slot);
        } else if one != Some(slot) {
            several.push(slot);
        }
    });
    match one {
        None => Err(format!("'{}' names no key", row.name)),
        Some(slot) if several.is_empty() => Ok(Touched::One(slot)),
        Some(slot) => {
            several.push(slot);
            Ok(Touched::Several(several))
        }
    }
}

/// Visits the slots of a command's keys. None if its arguments contradict its key specification: such a command finds
/// that out by itself, with an error of its own, before it touches a key.
fn visit_slots(row: &Row, args: Args<'_>, visit: &mut dyn FnMut(Slot)) {
    if row.visit_keys(args, &mut |at, _| visit(Slot::of(args.at(at)))).is_err() {
        tracing::trace!(command = row.name, "arguments without keys");
    }
}

fn slots_of(row: &Row, args: Args<'_>) -> Vec<Slot> {
    let mut slots = Vec::new();
    visit_slots(row, args, &mut |slot| slots.push(slot));
    slots
}

fn mode_of(state: GateState) -> Mode {
    match state {
        GateState::Primary => Mode::Primary,
        GateState::Replica | GateState::Holding | GateState::NoPrimary | GateState::Loading => Mode::Replica,
    }
}

pub(crate) fn loading() -> CommandError {
    CommandError::coded("LOADING Valkey is loading the dataset in memory")
}

fn misconf(reason: &str) -> CommandError {
    CommandError::coded(format!("MISCONF Errors writing to the AOF file: {reason}"))
}

fn not_now(waited: bool) -> Result<Option<Admission>, CommandError> {
    if waited { Err(CommandError::ClusterDown) } else { Ok(Some(Admission::Stop(Stop::NotNow))) }
}

fn is_write(session: &Session, row: &Row) -> bool {
    if row.scope == Scope::Transaction {
        return session
            .transaction
            .as_ref()
            .is_some_and(|t| t.commands.iter().any(|(r, _)| r.has(spec::WRITE)));
    }
    row.has(spec::WRITE)
}

/// What CLIENT PAUSE WRITE holds back.
fn may_replicate(session: &Session, row: &Row) -> bool {
    const FLAGS: Flags = spec::WRITE | spec::MAY_REPLICATE;
    if row.scope == Scope::Transaction {
        return session.transaction.as_ref().is_some_and(|t| t.commands.iter().any(|(r, _)| r.has(FLAGS)));
    }
    row.has(FLAGS)
}

/// A command was refused before it ran: its transaction will fail. A refused EXEC fails it at once, and says so.
fn rejected(session: &mut Session, args: Args<'_>, keys: &mut Keys<'_>, error: CommandError) -> CommandError {
    if table::find(args.at(0)).is_none_or(|row| row.scope != Scope::Transaction) {
        if let Some(transaction) = &mut session.transaction {
            transaction.aborted = true;
        }
        return error;
    }
    session.transaction = None;
    unwatch(session, keys);
    session.describe();
    match error {
        CommandError::Moved { .. }
        | CommandError::CrossSlot
        | CommandError::SlotNotServed
        | CommandError::ClusterDown => error,
        CommandError::Err(text) => exec_aborted(&text),
        CommandError::WrongArity(_) => exec_aborted(error.to_string().trim_start_matches("ERR ")),
        other => exec_aborted(&other.to_string()),
    }
}

fn exec_aborted(reason: &str) -> CommandError {
    CommandError::coded(format!("EXECABORT Transaction discarded because of: {reason}"))
}

fn queue(session: &mut Session, row: &'static Row, args: Args<'_>, out: &mut Output) -> ServerResult {
    let Some(transaction) = &mut session.transaction else {
        return Err(CommandError::err("EXEC without MULTI"));
    };
    let args = args.to_owned();
    transaction.len_bytes += args.bytes_len();
    transaction.commands.push((row, args));
    session.describe();
    out.writer(session.version).simple("QUEUED");
    Ok(ServerOutcome::Reply)
}

/// Forgets all watched keys. Locks that are held are used, others taken.
pub fn unwatch(session: &mut Session, keys: &mut Keys<'_>) {
    for key in std::mem::take(&mut session.watched).into_keys() {
        keys.with_slot(Slot::of(&key.1), |state| state.unwatch(&key, session.client.id));
    }
    session.watch_flag.store(false, Ordering::Release);
}

/// Puts the client into the queues of the keys, under the locks under which nothing was found.
fn register_waiter(session: &Session, row: &'static Row, args: Args<'_>, block: &Block, keys: &mut Keys<'_>) {
    let db_keys: Vec<DbKey> = block.keys.iter().map(|k| (session.db, k.clone())).collect();
    let client = &session.client;
    let wake = Arc::clone(&client.wake);
    let waiter = Arc::new(Waiter::new(client.id, row, args.to_owned(), session.version, db_keys, wake));
    for key in &waiter.keys {
        keys.with_slot(Slot::of(&key.1), |state| state.add_waiter(key.clone(), waiter.clone()));
    }
    *client.waiter.lock() = Some(waiter);
}

/// The row of a client's command or of its subcommand.
#[inline]
fn lookup(args: Args<'_>) -> Result<&'static Row, CommandError> {
    with_subcommand(table::find(args.at(0)), args)
}

/// The row of an effect: whatever clients call it, it has the name of the row.
#[inline]
fn lookup_effect(args: Args<'_>) -> Result<&'static Row, CommandError> {
    with_subcommand(table::find_effect(args.at(0)), args)
}

#[inline]
fn with_subcommand(row: Option<&'static Row>, args: Args<'_>) -> Result<&'static Row, CommandError> {
    let row = row.ok_or_else(|| unknown_command(args))?;
    match args.get(1) {
        Some(name) if row.has_subcommands() => {
            table::find_subcommand(row, name).ok_or_else(|| unknown_subcommand(args.at(0), name))
        }
        Some(_) | None => Ok(row),
    }
}

/// Arguments are shown up to 128 bytes in all.
fn unknown_command(args: Args<'_>) -> CommandError {
    let mut shown = c_string(args.at(0), 128).to_vec();
    shown.extend_from_slice(b"', with args beginning with: ");
    let begin = shown.len();
    for arg in args.iter().skip(1) {
        let len = shown.len() - begin;
        if 128 <= len {
            break;
        }
        let len_max = 128 - len;
        shown.push(b'\'');
        shown.extend_from_slice(c_string(arg, len_max));
        shown.extend_from_slice(b"' ");
    }
    CommandError::quoting("unknown command '", &shown, "")
}

fn unknown_subcommand(container: &[u8], name: &[u8]) -> CommandError {
    let after = format!("'. Try {} HELP.", String::from_utf8_lossy(container).to_uppercase());
    CommandError::quoting("unknown subcommand '", c_string(name, 128), after)
}

/// What C prints: up to a NUL, and no more than `len_max` bytes.
fn c_string(bytes: &[u8], len_max: usize) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end.min(len_max)]
}

/// The reply of a command whose wait is over without a result.
pub fn timeout_reply(on_timeout: OnTimeout, version: Version) -> Output {
    let mut out = Output::default();
    on_timeout.write(&mut out.writer(version));
    out
}
