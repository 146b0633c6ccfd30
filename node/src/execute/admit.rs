//! Whether a command may run here and now: the checks that need no lock.
//!
//! One function of what is known when the command is about to run ([`Checks`], [`Candidate`]); it changes nothing and
//! reads no clock, so that a table can test it and the simulation's nodes ask it, too. The checks come in Valkey's order,
//! because a client is told of the first that fails:
//! 1. what the session allows: inside MULTI, to its user, with subscriptions;
//! 2. whether the data is there, the slot is this node's, the node is the primary, its lease is valid, and enough
//!    nodes are in sync;
//! 3. whether what is written gets to the disk;
//! 4. CLIENT PAUSE.
//!
//! Arity and authentication come before (`find.rs`), memory after (`eviction.rs`): making room for a command has effects.

use std::time::Duration;

use keyward_proto::resp::Args;
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Shard;
use keyward_replication::gate::{DiskState, Gate, GateState};

use super::Stop;
use crate::acl::Denied;
use crate::admin::ServerOutcome;
use crate::blocking::Blocked;
use crate::command::CommandError;
use crate::command::keys_of::visit_slots;
use crate::command::spec::{self, Flags, Scope};
use crate::command::table::Row;
use crate::config::Settings;
use crate::io::pause::{Pause, PauseMode};
use crate::io::session::Session;
use crate::routing::{Owner, Routing, endpoint};

pub(super) const SAVE_FAILED: &str = "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to \
                           disk. Commands that may modify the data set are disabled, because this instance is \
                           configured to report errors during writes if RDB snapshotting fails \
                           (stop-writes-on-bgsave-error option). Please check the Valkey logs for details about the \
                           RDB error.";

/// What was read when the batch began. Whoever changes the gate waits for the batch to end before relying on it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub(super) now: Monotonic,
    pub(super) state: GateState,
    /// The gate's generation, read before its state.
    pub(super) generation: u64,
    /// Of this node's terms as a primary, read after the state.
    pub(super) ended_terms: u64,
    /// Whether writes may run, as far as this node's disk is concerned.
    pub(super) disk: DiskState,
    /// The database could not be saved, and then writes are refused.
    pub(super) save_failed: bool,
}

impl Moment {
    #[inline]
    pub(super) fn look_at(&mut self, gate: &Gate) {
        self.generation = gate.generation();
        self.state = gate.state();
        self.ended_terms = gate.ended_terms();
        self.disk = gate.disk();
    }

    /// What a command's outcome stops.
    #[inline]
    pub(super) fn stop(&self, session: &Session, outcome: ServerOutcome) -> Option<Stop> {
        if let ServerOutcome::Reply = outcome { None } else { self.stop_for(session, outcome) }
    }

    #[cold]
    fn stop_for(&self, session: &Session, outcome: ServerOutcome) -> Option<Stop> {
        let timeout = |ms| (ms > 0).then(|| Duration::from_millis(ms));
        match outcome {
            ServerOutcome::Reply => None,
            ServerOutcome::Close => Some(Stop::Close),
            ServerOutcome::Sleep(time, reply) => Some(Stop::Sleep(time, reply)),
            ServerOutcome::Await(request) => Some(Stop::Await(request)),
            ServerOutcome::Download => Some(Stop::Download),
            ServerOutcome::WaitReplicas { replicas, timeout_ms } => Some(Stop::WaitReplicas {
                written: session.last_write,
                replicas,
                timeout: timeout(timeout_ms),
            }),
            ServerOutcome::WaitDisk { replicas, timeout_ms } => {
                Some(Stop::WaitDisk { written: session.last_write, replicas, timeout: timeout(timeout_ms) })
            }
            // `execute` has registered the waiter.
            ServerOutcome::Block(block) => {
                let waiter = session.client.waiter.lock().clone();
                waiter.map(|waiter| {
                    let blocked = Blocked::new(waiter, block.on_timeout, self.generation);
                    Stop::Blocked(blocked, timeout(block.timeout_ms))
                })
            }
        }
    }

    /// Whether the gate is still in the generation that was seen.
    pub fn is_of(&self, gate: &Gate) -> bool {
        self.generation == gate.generation()
    }

    /// Before the first batch.
    pub(super) const NONE: Moment = Moment {
        now: Monotonic::ZERO,
        state: GateState::Loading,
        generation: 0,
        ended_terms: 0,
        disk: DiskState::Healthy,
        save_failed: false,
    };
}

/// What the checks look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks<'a> {
    pub(super) moment: &'a Moment,
    pub(super) gate: &'a Gate,
    pub(super) pause: &'a Pause,
    pub(super) settings: &'a Settings,
    pub(super) routing: &'a Routing,
}

/// A command that is about to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) session: &'a Session,
    pub(super) row: &'static Row,
    pub(super) args: Args<'a>,
    pub(super) patience: Patience,
}

/// Whether a command that may not run now may wait for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Patience {
    #[default]
    Left,
    /// It has waited as long as it may.
    Exhausted,
}

/// What a command does to the slots of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// What to do with a command.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Run(Basis),
    /// It is queued for EXEC.
    Queue,
    /// It is tried again when the gate changes.
    Wait,
    /// CLIENT PAUSE until this time.
    Pause(Monotonic),
    /// The client takes this node for the primary that it was: its connection ends.
    Leave,
    Refuse(CommandError),
    /// Its user may not do that.
    Deny(Denied),
    /// The write log does not get to the disk, for a reason that only who writes it knows.
    RefuseForDisk,
}

/// On what basis a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// What it answers is true wherever it runs.
    Anywhere,
    /// This node is the primary and holds the lease: its reply is to be checked for that once more.
    Lease,
}

impl From<CommandError> for Verdict {
    fn from(error: CommandError) -> Verdict {
        Verdict::Refuse(error)
    }
}

impl Checks<'_> {
    /// `lease_now`: the time at which the lease has to be valid. It is read when it is needed, so after the command
    /// has arrived.
    #[inline]
    pub(super) fn admit(&self, candidate: &Candidate<'_>, lease_now: impl FnOnce() -> Monotonic) -> Verdict {
        self.check(candidate, lease_now).unwrap_or_else(|verdict| verdict)
    }

    /// `Err`: the first check that fails.
    #[inline]
    fn check(
        &self,
        candidate: &Candidate<'_>,
        lease_now: impl FnOnce() -> Monotonic,
    ) -> Result<Verdict, Verdict> {
        let Candidate { session, row, .. } = *candidate;
        let in_transaction = session.transaction.is_some();
        if in_transaction && row.has(spec::NO_MULTI) {
            return Err(not_inside_multi(row).into());
        }
        if let Some(user) = &session.rights {
            user.check(row, candidate.args, session.place(self.settings)).map_err(Verdict::Deny)?;
        }
        if session.only_subscription_commands() && !row.has(spec::SUBSCRIPTION | spec::FOR_SUBSCRIBERS) {
            return Err(only_with_subscriptions(row).into());
        }
        if session.is_monitor && row.has(spec::WRITE | spec::READONLY | spec::MAY_REPLICATE) {
            return Err(CommandError::err("Replica can't interact with the keyspace").into());
        }
        let basis = if self.gate.is_standalone() {
            self.check_loaded(session, row)?;
            Basis::Anywhere
        } else {
            self.check_replicated(candidate, lease_now)?
        };
        if self.moment.disk != DiskState::Healthy {
            self.check_disk(candidate)?;
        }
        if self.moment.save_failed
            && self.moment.state == GateState::Primary
            && (is_write(session, row) || row.has(spec::HEALTH_CHECK))
        {
            return Err(CommandError::coded(SAVE_FAILED).into());
        }
        if let Some((until, mode)) = self.pause.applies(self.moment.now)
            && (mode == PauseMode::All || may_replicate(session, row))
        {
            return Err(Verdict::Pause(until));
        }
        let queues = in_transaction && !row.has(spec::NEVER_QUEUED);
        Ok(if queues { Verdict::Queue } else { Verdict::Run(basis) })
    }

    /// Only what needs no data runs before the data is there; EXEC needs what the commands need that it executes.
    #[inline]
    fn check_loaded(&self, session: &Session, row: &Row) -> Result<(), Verdict> {
        if self.moment.state != GateState::Loading {
            return Ok(());
        }
        let mut queued = session.transaction.iter().flat_map(|t| &t.commands);
        let executes_others = row.scope == Scope::Transaction && queued.any(|(r, _)| !r.has(spec::LOADING));
        if row.has(spec::LOADING) && !executes_others { Ok(()) } else { Err(CommandError::Loading.into()) }
    }

    /// While the write log does not get to the disk, nothing is added to it: refused if writing fails, held back if
    /// the disk is only slow. PING tells of a failure, too, as in Valkey.
    #[cold]
    fn check_disk(&self, candidate: &Candidate<'_>) -> Result<(), Verdict> {
        let is_write = is_write(candidate.session, candidate.row);
        if self.moment.state != GateState::Primary || !(is_write || candidate.row.has(spec::HEALTH_CHECK)) {
            return Ok(());
        }
        match (self.moment.disk, candidate.patience) {
            (DiskState::Healthy, _) => Ok(()),
            (DiskState::Lagging, _) if !is_write => Ok(()),
            (DiskState::Lagging, Patience::Left) => Err(Verdict::Wait),
            (DiskState::Lagging, Patience::Exhausted) => {
                let reason = "the disk is too slow: too much of the write log waits to be written";
                Err(misconf(reason).into())
            }
            (DiskState::Failed, _) => Err(Verdict::RefuseForDisk),
        }
    }

    /// The checks of a node with sentinels.
    fn check_replicated(
        &self,
        candidate: &Candidate<'_>,
        lease_now: impl FnOnce() -> Monotonic,
    ) -> Result<Basis, Verdict> {
        let Candidate { session, row, patience, .. } = *candidate;
        let executes =
            row.scope == Scope::Transaction && session.transaction.as_ref().is_some_and(|t| !t.aborted);
        if !(executes || matches!(row.scope, Scope::Keys | Scope::Walk | Scope::World | Scope::Script)) {
            // PING, too: a node that has not joined yet, or lacks data, is not ready.
            self.check_loaded(session, row)?;
            // Shard channels belong to slots; a replica serves their subscribers too.
            if self.settings.cluster_enabled && row.has(spec::PUBSUB) && !row.keys().is_empty() {
                let access = if row.has(spec::MAY_REPLICATE) { Access::Write } else { Access::Read };
                self.check_slots(candidate, access)?;
            }
            return Ok(Basis::Anywhere);
        }
        let is_write = is_write(session, row);
        if self.settings.cluster_enabled {
            self.check_slots(candidate, if is_write { Access::Write } else { Access::Read })?;
        }
        if session.transaction.is_some() && !executes {
            // Queued now; the role is checked when it executes, writes also now, as in Valkey.
            self.check_loaded(session, row)?;
            if is_write && matches!(self.moment.state, GateState::Replica | GateState::InDoubt) {
                return Err(CommandError::ReadOnly.into());
            }
            return Ok(Basis::Anywhere);
        }
        match self.moment.state {
            GateState::Primary if !self.gate.lease_valid(lease_now()) => Err(not_now(patience)),
            GateState::Primary if is_write && !self.gate.writable() => Err(CommandError::NoReplicas.into()),
            GateState::Primary => Ok(Basis::Lease),
            GateState::Holding | GateState::Undecided => Err(not_now(patience)),
            GateState::Replica | GateState::NoPrimary | GateState::InDoubt if is_write => {
                Err(CommandError::ReadOnly.into())
            }
            GateState::Replica | GateState::NoPrimary | GateState::InDoubt if self.is_misled(session) => {
                Err(Verdict::Leave)
            }
            GateState::InDoubt => Err(not_yet_known(patience)),
            GateState::NoPrimary if !self.settings.serve_stale_data => Err(CommandError::MasterDown.into()),
            GateState::Replica | GateState::NoPrimary => Ok(Basis::Anywhere),
            GateState::Loading => self.check_loaded(session, row).map(|()| Basis::Anywhere),
        }
    }

    /// Cluster mode: one slot per command, and this node serves it.
    pub(super) fn check_slots(&self, candidate: &Candidate<'_>, access: Access) -> Result<(), Verdict> {
        let Candidate { session, row, args, patience } = *candidate;
        let mut slot: Option<Slot> = None;
        let mut crossed = false;
        let mut visit = |this: Slot| {
            crossed |= slot.is_some_and(|s| s != this);
            slot = Some(this);
        };
        match &session.transaction {
            Some(t) if row.scope == Scope::Transaction => {
                t.commands.iter().for_each(|(row, args)| visit_slots(row, args.as_args(), &mut visit));
                visit_slots(row, args, &mut visit);
            }
            Some(_) | None => visit_slots(row, args, &mut visit),
        }
        let Some(slot) = slot else { return Ok(()) };
        if crossed {
            return Err(CommandError::CrossSlot.into());
        }
        let moved = |node| {
            let address = endpoint(node, self.settings, session.client.transport);
            Verdict::from(CommandError::Moved { slot: slot.number(), address })
        };
        match self.routing.owner(slot) {
            Owner::Nobody => Err(CommandError::SlotNotServed.into()),
            Owner::Other(Some(node)) => Err(moved(node)),
            Owner::Other(None) => Err(self.down(self.routing.owning_shard(slot)).into()),
            Owner::Mine
                if self.settings.require_full_coverage
                    && !self.routing.covered
                    && !self.mine_only_uncovered() =>
            {
                Err(CommandError::ClusterDown.into())
            }
            Owner::Mine => match self.moment.state {
                GateState::Primary | GateState::Holding | GateState::Undecided | GateState::Loading => Ok(()),
                GateState::Replica | GateState::NoPrimary | GateState::InDoubt => {
                    if (session.readonly || row.has(spec::PUBSUB)) && access == Access::Read {
                        return Ok(());
                    }
                    match self.routing.my_primary() {
                        Some(node) if Some(&node.id) != self.routing.me.as_ref() => Err(moved(node)),
                        // This node has ceased to serve or is about to: the topology or the gate follows.
                        Some(_) => Err(not_now(patience)),
                        None if patience == Patience::Exhausted => {
                            Err(self.down(self.routing.my_shard()).into())
                        }
                        None => Err(Verdict::Wait),
                    }
                }
            },
        }
    }

    /// Outside cluster mode nothing else tells a client that the node has another role than when it connected.
    #[cold]
    fn is_misled(&self, session: &Session) -> bool {
        !self.settings.cluster_enabled
            && session.has_outlived_a_term(self.moment.ended_terms)
            && !session.may_outlive_a_term(self.settings)
    }

    /// Nobody serves the slot.
    fn down(&self, shard: Option<&Shard>) -> CommandError {
        match shard.filter(|shard| shard.primary.is_none()) {
            Some(shard) => {
                let why = self.routing.topology.why_no_primary(shard);
                CommandError::coded(format!("CLUSTERDOWN The cluster is down: {why}"))
            }
            None => CommandError::ClusterDown,
        }
    }

    /// The only shard without a primary is this node's own: its gate decides.
    fn mine_only_uncovered(&self) -> bool {
        let mut without =
            self.routing.topology.shards.values().filter(|s| s.primary.is_none() && !s.slots.is_empty());
        without.all(|s| Some(&s.id) == self.routing.my_shard.as_ref())
    }
}

fn not_now(patience: Patience) -> Verdict {
    match patience {
        Patience::Left => Verdict::Wait,
        Patience::Exhausted => Verdict::Refuse(CommandError::ClusterDown),
    }
}

/// As Valkey's replicas that do not serve what may be stale; what clients then do is what is right here: they ask another
/// node, or again.
fn not_yet_known(patience: Patience) -> Verdict {
    match patience {
        Patience::Left => Verdict::Wait,
        Patience::Exhausted => Verdict::Refuse(CommandError::MasterDown),
    }
}

/// Whether a command is refused when memory is short.
pub(super) fn needs_memory(session: &Session, row: &Row, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Wait
        | Verdict::Pause(_)
        | Verdict::Leave
        | Verdict::Refuse(_)
        | Verdict::Deny(_)
        | Verdict::RefuseForDisk => false,
        Verdict::Run(_) => has_flags(session, row, spec::DENYOOM),
        Verdict::Queue => row.has(spec::DENYOOM),
    }
}

fn is_write(session: &Session, row: &Row) -> bool {
    has_flags(session, row, spec::WRITE)
}

/// What CLIENT PAUSE WRITE holds back.
fn may_replicate(session: &Session, row: &Row) -> bool {
    has_flags(session, row, spec::WRITE | spec::MAY_REPLICATE)
}

/// Whether a command has one of these flags; EXEC has those of what is queued.
#[inline]
fn has_flags(session: &Session, row: &Row, flags: Flags) -> bool {
    if row.scope == Scope::Transaction {
        return session.transaction.as_ref().is_some_and(|t| t.commands.iter().any(|(r, _)| r.has(flags)));
    }
    row.has(flags)
}

#[cold]
fn not_inside_multi(row: &Row) -> CommandError {
    CommandError::err(format!("Command '{}' not allowed inside a transaction", row.name))
}

#[cold]
fn only_with_subscriptions(row: &Row) -> CommandError {
    CommandError::err(format!(
        "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        row.name
    ))
}

pub(super) fn misconf(reason: &str) -> CommandError {
    CommandError::coded(format!("MISCONF Errors writing to the AOF file: {reason}"))
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::{LogIndex, Term};
    use keyward_proto::resp::reply::write_command;
    use keyward_proto::resp::request::split_words;
    use keyward_proto::resp::{Batch, Limits, RequestReader};

    use super::*;
    use crate::acl::{Channels, Users};
    use crate::command::table;
    use crate::config::Config;
    use crate::io::clients::Client;
    use crate::io::session::Transaction;
    use crate::testing::two_shards;
    use keyward_replication::gate::GateView;

    const LEASE_END: u64 = 100;

    /// A node as the checks see it.
    struct Seen {
        moment: Moment,
        gate: Gate,
        pause: Pause,
        settings: Settings,
        routing: Routing,
        session: Session,
        patience: Patience,
        lease_now: u64,
    }

    fn settings(arguments: &[&str]) -> Settings {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        Config::from_arguments(&arguments).unwrap().settings().unwrap()
    }

    /// Of a primary with a lease.
    fn gate(writable: bool) -> Gate {
        let gate = Gate::replicated();
        let view = GateView {
            state: GateState::Primary,
            term: Term::new(1),
            commit: LogIndex::ZERO,
            lease_until: Monotonic::from_nanos(LEASE_END),
            writable,
            generation: 0,
            ended_commit: LogIndex::ZERO,
            ended_terms: 0,
            auto_commit: false,
            sending_term: Term::new(1),
        };
        gate.publish(&view, Monotonic::ZERO);
        gate
    }

    /// A node with sentinels, in this state, with a lease.
    fn seen(state: GateState) -> Seen {
        Seen {
            moment: Moment { state, ..Moment::NONE },
            gate: gate(true),
            pause: Pause::default(),
            settings: settings(&["--sentinels", "localhost:1"]),
            routing: Routing::default(),
            session: Session::new(Client::detached()),
            patience: Patience::Left,
            lease_now: LEASE_END - 1,
        }
    }

    fn alone() -> Seen {
        Seen { gate: Gate::standalone(), settings: settings(&[]), ..seen(GateState::Primary) }
    }

    fn without_lease() -> Seen {
        Seen { lease_now: LEASE_END, ..seen(GateState::Primary) }
    }

    fn with(mut seen: Seen, change: impl FnOnce(&mut Seen)) -> Seen {
        change(&mut seen);
        seen
    }

    fn row(request: &str) -> (&'static Row, Vec<u8>) {
        let mut buffer = bytes::BytesMut::new();
        let words = split_words(request.as_bytes()).unwrap();
        write_command(&mut buffer, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let row = table::find(&words[0]).unwrap();
        (row, buffer.to_vec())
    }

    fn with_args<R>(request: &str, f: impl FnOnce(&'static Row, Args<'_>) -> R) -> R {
        let (row, buffer) = row(request);
        let mut batch = Batch::default();
        RequestReader::default().parse(&buffer, &Limits::default(), 1, &mut batch).1.unwrap();
        f(row, batch.args(&buffer, 0))
    }

    /// Inside MULTI, with these commands queued.
    fn in_multi(mut seen: Seen, queued: &[&str]) -> Seen {
        let commands = queued.iter().map(|q| with_args(q, |row, args| (row, args.to_owned()))).collect();
        seen.session.transaction = Some(Transaction { commands, ..Transaction::default() });
        seen
    }

    impl Seen {
        fn checks(&self) -> Checks<'_> {
            Checks {
                moment: &self.moment,
                gate: &self.gate,
                pause: &self.pause,
                settings: &self.settings,
                routing: &self.routing,
            }
        }
    }

    fn verdict(seen: &Seen, request: &str) -> String {
        let checks = seen.checks();
        let verdict = with_args(request, |row, args| {
            let candidate = Candidate { session: &seen.session, row, args, patience: seen.patience };
            checks.admit(&candidate, || Monotonic::from_nanos(seen.lease_now))
        });
        shown(verdict)
    }

    fn shown(verdict: Verdict) -> String {
        match verdict {
            Verdict::Run(Basis::Anywhere) => "run".to_owned(),
            Verdict::Run(Basis::Lease) => "run with the lease".to_owned(),
            Verdict::Queue => "queue".to_owned(),
            Verdict::Wait => "wait".to_owned(),
            Verdict::Pause(_) => "pause".to_owned(),
            Verdict::Leave => "leave".to_owned(),
            Verdict::Refuse(error) => {
                error.to_string().split([' ', ',']).take(2).collect::<Vec<_>>().join(" ")
            }
            Verdict::Deny(denied) => format!("{denied:?}"),
            Verdict::RefuseForDisk => "the disk".to_owned(),
        }
    }

    /// What is special about a node, and its verdicts on requests.
    type Case<'a> = (&'a str, Seen, &'a [(&'a str, &'a str)]);

    #[track_caller]
    fn check(cases: &[Case<'_>]) {
        for (what, seen, requests) in cases {
            for (request, expected) in *requests {
                assert_eq!(verdict(seen, request), *expected, "{what}: {request}");
            }
        }
    }

    #[test]
    fn what_a_node_executes_depends_on_its_role() {
        use GateState::{Holding, InDoubt, Loading, NoPrimary, Primary, Replica};
        let exhausted = |seen| with(seen, |s| s.patience = Patience::Exhausted);
        let no_stale = with(seen(NoPrimary), |s| s.settings.serve_stale_data = false);
        let unwritable = || with(seen(Primary), |s| s.gate = gate(false));
        check(&[
            ("alone", alone(), &[("SET k v", "run"), ("GET k", "run"), ("PING", "run")]),
            (
                "alone, loading",
                with(alone(), |s| s.moment.state = Loading),
                &[("GET k", "LOADING Valkey"), ("PING", "LOADING Valkey"), ("INFO", "run")],
            ),
            (
                "primary",
                seen(Primary),
                &[("SET k v", "run with the lease"), ("DBSIZE", "run with the lease"), ("PING", "run")],
            ),
            ("no lease", without_lease(), &[("SET k v", "wait"), ("GET k", "wait"), ("PING", "run")]),
            ("no lease for long", exhausted(without_lease()), &[("GET k", "CLUSTERDOWN The")]),
            (
                "too few in sync",
                unwritable(),
                &[
                    ("SET k v", "NOREPLICAS Not"),
                    ("GET k", "run with the lease"),
                    ("FLUSHALL", "NOREPLICAS Not"),
                ],
            ),
            (
                "too few in sync, no lease",
                with(unwritable(), |s| s.lease_now = LEASE_END),
                &[("SET k v", "wait")],
            ),
            ("hand-off", seen(Holding), &[("SET k v", "wait"), ("GET k", "wait"), ("PING", "run")]),
            ("replica", seen(Replica), &[("SET k v", "READONLY You"), ("GET k", "run"), ("PING", "run")]),
            ("no primary", seen(NoPrimary), &[("SET k v", "READONLY You"), ("GET k", "run")]),
            ("no stale data", no_stale, &[("SET k v", "READONLY You"), ("GET k", "MASTERDOWN Link")]),
            ("loading", seen(Loading), &[("SET k v", "LOADING Valkey"), ("PING", "LOADING Valkey")]),
            (
                "a former primary with what nobody may have committed",
                seen(InDoubt),
                &[("SET k v", "READONLY You"), ("GET k", "wait"), ("DBSIZE", "wait"), ("PING", "run")],
            ),
            ("the same, for long", exhausted(seen(InDoubt)), &[("GET k", "MASTERDOWN Link")]),
        ]);
    }

    #[test]
    fn outside_cluster_mode_who_has_outlived_a_term_is_not_served_as_by_a_primary() {
        use GateState::{InDoubt, Primary, Replica, Undecided};
        let outlived = |seen| with(seen, |s| s.moment.ended_terms = 1);
        let in_cluster = |seen| {
            with(seen, |s| {
                s.settings = settings(&["--sentinels", "localhost:1", "--cluster-enabled", "yes"]);
            })
        };
        check(&[
            (
                "it was the primary",
                outlived(seen(Replica)),
                &[("GET k", "leave"), ("DBSIZE", "leave"), ("SET k v", "READONLY You"), ("PING", "run")],
            ),
            ("in doubt", outlived(seen(InDoubt)), &[("GET k", "leave"), ("SET k v", "READONLY You")]),
            ("its next role is not decided", outlived(seen(Undecided)), &[("GET k", "wait")]),
            ("it is the primary again", outlived(seen(Primary)), &[("GET k", "run with the lease")]),
            ("a transaction", outlived(in_multi(seen(Replica), &["GET k"])), &[("EXEC", "leave")]),
            (
                "a reader of replicas",
                with(outlived(seen(Replica)), |s| s.session.readonly = true),
                &[("GET k", "run")],
            ),
            (
                "in cluster mode it is redirected, or has said READONLY",
                in_cluster(outlived(seen(Replica))),
                &[("DBSIZE", "run"), ("GET k", "CLUSTERDOWN Hash")],
            ),
        ]);
    }

    #[test]
    fn subscribers_outlive_a_term_unless_they_wait_for_keyspace_events() {
        for (events, channels, patterns, resp3, outlives) in [
            ("", &[][..], &[][..], false, false),
            ("", &["news"][..], &[][..], false, true),
            ("", &["news"][..], &[][..], true, false),
            ("", &["__keyevent@0__:set"][..], &["*"][..], false, true),
            ("KEA", &["news"][..], &["n*"][..], false, true),
            ("KEA", &["__keyevent@0__:set"][..], &[][..], false, false),
            ("KEA", &[][..], &["*"][..], false, false),
        ] {
            let settings = settings(&["--notify-keyspace-events", events]);
            let mut session = Session::new(Client::detached());
            if resp3 {
                session.version = keyward_proto::resp::Version::Resp3;
            }
            session.subscriptions.channels.extend(channels.iter().map(|c| Box::from(c.as_bytes())));
            session.subscriptions.patterns.extend(patterns.iter().map(|c| Box::from(c.as_bytes())));
            assert_eq!(session.may_outlive_a_term(&settings), outlives, "{events} {channels:?} {patterns:?}");
        }
    }

    #[test]
    fn rights_are_looked_at_before_the_data_is_there() {
        let of_user = |rules: &[&str], seen| {
            with(seen, |s| {
                let mut users = Users::default();
                let rules: Vec<_> = rules.iter().map(|rule| rule.as_bytes().into()).collect();
                users.set(b"u", &rules, Channels::None).unwrap();
                s.session.authenticate(users.get(b"u").unwrap());
            })
        };
        let reader = &["+get", "+watch", "~a*", "(+set ~b)"];
        check(&[
            (
                "a reader",
                of_user(reader, seen(GateState::Loading)),
                &[
                    ("GET a1", "LOADING Valkey"),
                    ("GET b", "Key(1)"),
                    ("SET a1 x", "Key(1)"),
                    ("DEL a1", "Command"),
                    ("PUBLISH c m", "Command"),
                    ("AUTH x", "run"),
                ],
            ),
            (
                "in MULTI",
                of_user(reader, in_multi(alone(), &[])),
                &[("GET a1", "queue"), ("GET b", "Key(1)"), ("WATCH b", "ERR Command")],
            ),
            ("everything", of_user(&["+@all", "~*", "&*"], alone()), &[("DEL a1", "run")]),
        ]);
    }

    #[test]
    fn a_transaction_is_queued_whatever_the_lease_and_executed_as_what_is_in_it() {
        use GateState::{Loading, Primary, Replica};
        let aborted = |seen| with(seen, |s| s.session.transaction.as_mut().unwrap().aborted = true);
        check(&[
            (
                "queueing",
                in_multi(without_lease(), &[]),
                &[("SET k v", "queue"), ("PING", "queue"), ("WATCH k", "ERR Command"), ("DISCARD", "run")],
            ),
            ("a write", in_multi(seen(Primary), &["SET k v"]), &[("EXEC", "run with the lease")]),
            ("no lease", in_multi(without_lease(), &["GET k"]), &[("EXEC", "wait")]),
            ("aborted", aborted(in_multi(without_lease(), &["GET k"])), &[("EXEC", "run")]),
            (
                "on a replica",
                in_multi(seen(Replica), &["GET k"]),
                &[("SET k v", "READONLY You"), ("GET k", "queue"), ("EXEC", "run")],
            ),
            (
                "loading",
                in_multi(seen(Loading), &["SET k v"]),
                &[("GET k", "LOADING Valkey"), ("EXEC", "LOADING Valkey"), ("DISCARD", "run")],
            ),
            (
                "loading, alone",
                with(in_multi(alone(), &["GET k"]), |s| s.moment.state = Loading),
                &[("EXEC", "LOADING Valkey")],
            ),
            ("loading, nothing queued", in_multi(seen(Loading), &[]), &[("EXEC", "run")]),
            ("a write on a replica", in_multi(seen(Replica), &["SET k v"]), &[("EXEC", "READONLY You")]),
            ("on a replica, alone", in_multi(alone(), &["SET k v"]), &[("EXEC", "run")]),
        ]);
    }

    #[test]
    fn the_first_check_that_fails_is_told() {
        use GateState::{Loading, Primary};
        let subscribed = |seen| with(seen, |s| s.session.subscriptions.channels.extend([Box::from(*b"c")]));
        let disk = |seen, disk| with(seen, |s| s.moment.disk = disk);
        let unsaved = |seen| with(seen, |s| s.moment.save_failed = true);
        let paused = |seen| {
            with(seen, |s| s.pause.extend(Monotonic::ZERO, Monotonic::from_nanos(1), PauseMode::Write))
        };
        check(&[
            (
                "subscribed before all else",
                subscribed(seen(Loading)),
                &[("GET k", "ERR Can't"), ("PING", "LOADING Valkey"), ("SUBSCRIBE c", "run")],
            ),
            (
                "the role before the disk",
                disk(without_lease(), DiskState::Failed),
                &[("SET k v", "wait"), ("PING", "the disk"), ("GET k", "wait")],
            ),
            (
                "a disk that fails",
                unsaved(disk(seen(Primary), DiskState::Failed)),
                &[("SET k v", "the disk"), ("PING", "the disk"), ("GET k", "run with the lease")],
            ),
            (
                "a disk that lags",
                disk(seen(Primary), DiskState::Lagging),
                &[("SET k v", "wait"), ("PING", "run"), ("GET k", "run with the lease")],
            ),
            (
                "a disk that has lagged for long",
                with(disk(alone(), DiskState::Lagging), |s| s.patience = Patience::Exhausted),
                &[("SET k v", "MISCONF Errors")],
            ),
            (
                "saving has failed, before a pause",
                paused(unsaved(alone())),
                &[("SET k v", "MISCONF Valkey"), ("PING", "MISCONF Valkey"), ("GET k", "run")],
            ),
            (
                "a pause of writes",
                paused(seen(Primary)),
                &[("SET k v", "pause"), ("PUBLISH c m", "pause"), ("GET k", "run with the lease")],
            ),
            (
                "a pause before queueing",
                paused(in_multi(alone(), &[])),
                &[("SET k v", "pause"), ("GET k", "queue")],
            ),
        ]);
    }

    /// Commands that need neither role nor lease, by what they show instead of keys. Whoever adds a command either gives it
    /// a scope, so that it waits where keys may not be seen, or says here that it shows none.
    const SHOW_NO_KEYS: [(&str, &[&str]); 8] = [
        (
            "users and their rights",
            &[
                "acl|cat",
                "acl|deluser",
                "acl|dryrun",
                "acl|genpass",
                "acl|getuser",
                "acl|help",
                "acl|list",
                "acl|load",
                "acl|log",
                "acl|save",
                "acl|setuser",
                "acl|users",
                "acl|whoami",
            ],
        ),
        (
            "the session's own",
            &[
                "asking",
                "auth",
                "client|caching",
                "client|capa",
                "client|getname",
                "client|getredir",
                "client|import-source",
                "client|tracking",
                "client|trackinginfo",
                "client|id",
                "client|info",
                "client|no-evict",
                "client|no-touch",
                "client|reply",
                "client|setinfo",
                "client|setname",
                "discard",
                "echo",
                "hello",
                "multi",
                "ping",
                "quit",
                "readonly",
                "readwrite",
                "replconf",
                "reset",
                "select",
                "unwatch",
                "wait",
                "waitaof",
            ],
        ),
        (
            "what clients have sent, and how long it took",
            &[
                "module|help",
                "module|list",
                "module|load",
                "module|loadex",
                "module|unload",
                "monitor",
                "commandlog|get",
                "commandlog|help",
                "commandlog|len",
                "commandlog|reset",
                "latency|doctor",
                "latency|graph",
                "latency|help",
                "latency|histogram",
                "latency|history",
                "latency|latest",
                "latency|reset",
                "slowlog|get",
                "slowlog|help",
                "slowlog|len",
                "slowlog|reset",
            ],
        ),
        (
            "clients and the process",
            &[
                "client|kill",
                "client|list",
                "client|pause",
                "client|unblock",
                "client|unpause",
                "config|get",
                "config|resetstat",
                "config|rewrite",
                "config|set",
                "debug",
                "lastsave",
                "lolwut",
                "memory|malloc-stats",
                "memory|purge",
                "pfselftest",
                "role",
                "script|debug",
                "function|kill",
                "script|kill",
                "shutdown",
                "time",
            ],
        ),
        (
            "figures: INFO leaves out those of keys while the node is in doubt",
            &["info", "memory|doctor", "memory|stats"],
        ),
        (
            "messages: those of a transaction leave with it",
            &[
                "psubscribe",
                "publish",
                "pubsub|channels",
                "pubsub|numpat",
                "pubsub|numsub",
                "pubsub|shardchannels",
                "pubsub|shardnumsub",
                "punsubscribe",
                "spublish",
                "ssubscribe",
                "subscribe",
                "sunsubscribe",
                "unsubscribe",
            ],
        ),
        (
            "the topology, and what is known of commands",
            &[
                "client|help",
                "cluster|count-failure-reports",
                "cluster|failover",
                "cluster|help",
                "cluster|info",
                "cluster|keyslot",
                "cluster|links",
                "cluster|myid",
                "cluster|myshardid",
                "cluster|nodes",
                "cluster|replicas",
                "cluster|reset",
                "cluster|shards",
                "cluster|slaves",
                "cluster|slots",
                "command|count",
                "command|docs",
                "command|getkeys",
                "command|getkeysandflags",
                "command|help",
                "command|info",
                "command|list",
                "config|help",
                "memory|help",
                "object|help",
                "pubsub|help",
                "script|exists",
                "script|flush",
                "function|help",
                "function|stats",
                "script|help",
                "script|load",
                "script|show",
                "xgroup|help",
                "xinfo|help",
            ],
        ),
        (
            "files of its own: in doubt none, and a base of the log waits for the commit",
            &["bgrewriteaof", "bgsave", "save"],
        ),
    ];

    /// No command shows a key, or that there is one, where it may not be seen; also none that will be added.
    #[test]
    fn whatever_reads_or_writes_keys_waits_where_they_may_not_be_seen() {
        use GateState::{Holding, InDoubt, Loading, NoPrimary, Primary, Replica, Undecided};
        let verdict_of = |row: &'static Row, seen: &Seen| {
            let checks = seen.checks();
            with_args("PING", |_, args| {
                let candidate = Candidate { session: &seen.session, row, args, patience: seen.patience };
                shown(checks.admit(&candidate, || Monotonic::from_nanos(seen.lease_now)))
            })
        };
        let mut unknown = Vec::new();
        let mut listed: Vec<&str> = SHOW_NO_KEYS.iter().flat_map(|(_, names)| *names).copied().collect();
        for row in table::ROWS.iter().filter(|row| !row.has_subcommands() || row.scope != Scope::None) {
            if row.scope == Scope::None {
                match listed.iter().position(|name| *name == row.name) {
                    Some(at) => drop(listed.swap_remove(at)),
                    None => unknown.push(row.name),
                }
                assert!(!row.has(spec::WRITE), "{} writes keys, and has no scope", row.name);
                continue;
            }
            let queued = if row.scope == Scope::Transaction { vec!["GET k"] } else { Vec::new() };
            let node = |state| if queued.is_empty() { seen(state) } else { in_multi(seen(state), &queued) };
            let exhausted = |seen| with(seen, |s| s.patience = Patience::Exhausted);
            let writes = row.has(spec::WRITE);
            let of_replicas = |read| if writes { "READONLY You" } else { read };
            for (state, expected) in [
                (Primary, "run with the lease"),
                (Holding, "wait"),
                (Undecided, "wait"),
                (InDoubt, of_replicas("wait")),
                (Replica, of_replicas("run")),
                (NoPrimary, of_replicas("run")),
                (
                    Loading,
                    if writes || !row.has(spec::LOADING) || row.scope == Scope::Transaction {
                        "LOADING Valkey"
                    } else {
                        "run"
                    },
                ),
            ] {
                assert_eq!(verdict_of(row, &node(state)), expected, "{} {state:?}", row.name);
            }
            let late = verdict_of(row, &exhausted(node(InDoubt)));
            assert_eq!(late, of_replicas("MASTERDOWN Link"), "{}", row.name);
            let cut_off = with(node(Primary), |s| s.lease_now = LEASE_END);
            assert_eq!(verdict_of(row, &cut_off), "wait", "{} without a lease", row.name);
        }
        assert_eq!(unknown, Vec::<&str>::new(), "which keys do they show? See SHOW_NO_KEYS");
        assert_eq!(listed, Vec::<&str>::new(), "not in the table, or with a scope");
    }

    /// See [`two_shards`].
    fn in_cluster(state: GateState, me: u8, third: Option<u8>) -> Seen {
        Seen {
            settings: settings(&["--sentinels", "localhost:1", "--cluster-enabled", "yes"]),
            routing: two_shards(me, third),
            ..seen(state)
        }
    }

    #[test]
    fn in_a_cluster_the_owner_of_the_slot_executes() {
        use GateState::{Primary, Replica};
        let readonly = |seen| with(seen, |s| s.session.readonly = true);
        // Slot::of(b"b") is 3300, of b"a" 15495.
        check(&[
            (
                "the owner",
                in_cluster(Primary, 1, Some(3)),
                &[
                    ("GET b", "run with the lease"),
                    ("GET a", "MOVED 15495"),
                    ("MGET a b", "CROSSSLOT Keys"),
                    ("SPUBLISH a m", "MOVED 15495"),
                    ("PING", "run"),
                ],
            ),
            (
                "a replica",
                in_cluster(Replica, 2, Some(3)),
                &[("GET b", "MOVED 3300"), ("SET b v", "MOVED 3300"), ("SSUBSCRIBE b", "run")],
            ),
            (
                "a replica that may be read",
                readonly(in_cluster(Replica, 2, Some(3))),
                &[("GET b", "run"), ("SET b v", "MOVED 3300")],
            ),
            (
                "without a lease: shard channels are no data",
                with(in_cluster(Primary, 1, Some(3)), |s| s.lease_now = LEASE_END),
                &[("SSUBSCRIBE b", "run"), ("SPUBLISH b m", "run"), ("GET b", "wait")],
            ),
            ("a primary that was one", in_cluster(Replica, 1, Some(3)), &[("GET b", "wait")]),
            (
                "a shard without a primary",
                in_cluster(Primary, 1, None),
                &[("GET b", "CLUSTERDOWN The"), ("GET a", "CLUSTERDOWN The")],
            ),
            (
                "its own shard without a primary",
                in_cluster(Primary, 3, None),
                &[("GET a", "run with the lease"), ("GET b", "MOVED 3300")],
            ),
            (
                "a transaction",
                in_multi(in_cluster(Primary, 1, Some(3)), &["GET b", "SET b v"]),
                &[("EXEC", "run with the lease"), ("GET a", "MOVED 15495")],
            ),
            (
                "a transaction across slots",
                in_multi(in_cluster(Primary, 1, Some(3)), &["GET b", "GET a"]),
                &[("EXEC", "CROSSSLOT Keys")],
            ),
            (
                "a transaction with conditions",
                in_multi(in_cluster(Primary, 1, Some(3)), &["GET b"]),
                &[("EXEC NX b IFEQ b v", "run with the lease"), ("EXEC XX a", "CROSSSLOT Keys")],
            ),
        ]);
    }
}
