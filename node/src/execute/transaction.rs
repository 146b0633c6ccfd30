//! MULTI: commands are queued, then all executed under all their locks, their effects as one entry of the log.

use keyward_proto::ids::LogIndex;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, Output};
use keyward_proto::slot::Slot;
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbIndex;
use keyward_store::events::Event;
use keyward_store::keys::Keys;

use super::Executor;
use super::eviction::Room;
use super::progress::{Progress, Running};
use super::timing::{Call, Caller};
use crate::acl::log::Context;
use crate::acl::{self, Denied};
use crate::admin::transactions::conditions;
use crate::admin::{ServerOutcome, ServerResult, write_synced};
use crate::command::CommandError;
use crate::command::keys_of::visit_locks;
use crate::command::spec::{self, Scope};
use crate::command::table::{self, Row};
use crate::config::Settings;
use crate::io::session::{Session, Transaction};
use crate::server::Server;
use crate::stats::ThreadStats;

impl Executor {
    /// EXEC: all commands under all their locks, their effects as one entry. `args`: its own, with its conditions.
    pub(super) fn execute_transaction<'k>(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut Running,
        progress: &mut Progress,
    ) -> ServerResult {
        if let Err(error) = conditions::check(args) {
            return Err(rejected(session, args, keys, error));
        }
        let Some(transaction) = session.transaction.take() else {
            return Err(CommandError::err("EXEC without MULTI"));
        };
        session.describe();
        if transaction.aborted {
            session.unwatch(keys);
            session.describe();
            return Err(CommandError::coded("EXECABORT Transaction discarded because of previous errors."));
        }
        let whole = transaction
            .commands
            .iter()
            .any(|(r, _)| matches!(r.scope, Scope::World | Scope::Walk | Scope::Script));
        if whole {
            let has_script = transaction.commands.iter().any(|(row, _)| row.scope == Scope::Script);
            let room = if has_script { self.make_room(keys, progress) } else { Room::Left };
            let executed = self.execute_alone(keys, guard, |this, keys| {
                keys.lock_all();
                this.run_transaction(session, args, &transaction, keys, out, progress, room)
            });
            return if guard.is_some() { executed } else { Err(self.busy_for(session)) };
        }
        let mut slots: Vec<Slot> = session.watched.keys().map(|(_, key)| Slot::of(key)).collect();
        for (row, args) in &transaction.commands {
            let args = args.as_args();
            visit_locks(row, args, &mut |slot| slots.push(slot));
        }
        conditions::visit_slots(args, &mut |slot| slots.push(slot));
        let runs = &self.server.scripts.runs;
        if !keys.lock_visited_unless(|visit| slots.into_iter().for_each(visit), || runs.is_busy()) {
            return Err(self.busy_for(session));
        }
        self.run_transaction(session, args, &transaction, keys, out, progress, Room::Left)
    }

    /// The transaction would have to wait for a script.
    #[cold]
    fn busy_for(&self, session: &mut Session) -> CommandError {
        session.unwatch_later();
        session.describe();
        exec_aborted(&self.busy().to_string())
    }

    /// `room`: for its scripts, which are no commands that need memory, but may call some.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    fn run_transaction<'k>(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        transaction: &Transaction,
        keys: &mut Keys<'k>,
        out: &mut Output,
        progress: &mut Progress,
        room: Room,
    ) -> ServerResult {
        let expired = session.watched.iter().any(|((db, key), existed)| {
            keys.db = *db;
            *existed && !keys.exists(key)
        });
        keys.db = session.db;
        let holds = conditions::all_hold(args, keys);
        let failed = session.watch_failed() || expired;
        session.unwatch(keys);
        session.describe();
        let failed = match holds {
            Ok(holds) => failed || !holds,
            Err(error) => {
                self.commit(session, keys, progress);
                return Err(error);
            }
        };
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
            let begun = self.begin_inner_call(row);
            let result = match (self.check_queued(session, row, args), row.scope) {
                (Err(error), _) => Err(error),
                (Ok(()), Scope::None) => self.call(session, row, args, keys, out),
                (Ok(()), Scope::Script) => {
                    self.execute_locked_script(session, row, args, keys, out, progress, room)
                }
                (Ok(()), Scope::Keys | Scope::Walk | Scope::World | Scope::Transaction) => {
                    self.call_locked(session, row, args, keys, out, progress)
                }
            };
            self.count_call(row, &result);
            let (request_bytes, reply_bytes) = (self.timing.request_bytes, out.len().saturating_sub(header));
            let caller = Caller::Client;
            let call = Call { row, args, begun, request_bytes, reply_bytes, caller };
            self.look_back(session, &call, &result);
            let confirmed = result.is_ok() && row.has(spec::SUBSCRIPTION);
            match result.map(|outcome| self.without_waiting(session, outcome, out)) {
                Ok(ServerOutcome::Reply) => {}
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
        self.commit_with_messages(session, keys, progress);
        Ok(end)
    }

    /// The user may have lost since MULTI the right to what it has queued.
    fn check_queued(&self, session: &Session, row: &'static Row, args: Args<'_>) -> Result<(), CommandError> {
        let Some(user) = &session.rights else { return Ok(()) };
        user.check(row, args, session.place(&self.settings)).map_err(|denied| {
            self.server.refusals.deny(&self.server, session, Context::Multi, denied, row, args);
            acl::refusal_in_transaction(denied)
        })
    }

    /// As [`Executor::commit`], of commands that may have published messages.
    pub(super) fn commit_with_messages<'k>(
        &mut self,
        session: &mut Session,
        keys: &mut Keys<'k>,
        progress: &mut Progress,
    ) {
        keys.finish();
        let events = if session.published.is_empty() { Vec::new() } else { keys.take_events() };
        self.append_effects(session, keys, progress);
        self.publish_messages(session, events, progress.condition.depends_on());
        keys.unlock();
    }

    /// A transaction or a script does not wait: the reply is how it is now. Other outcomes are given back.
    pub(super) fn without_waiting(
        &self,
        session: &Session,
        outcome: ServerOutcome,
        out: &mut Output,
    ) -> ServerOutcome {
        let mut writer = out.writer(session.version);
        match outcome {
            ServerOutcome::Sleep(_, reply) => writer.raw(reply),
            ServerOutcome::WaitDisk { .. } => {
                write_synced(&mut writer, self.server.has_synced(session.last_write).into());
            }
            ServerOutcome::WaitReplicas { .. } => {
                writer.len(self.server.replicas_holding(session.last_write));
            }
            other => return other,
        }
        ServerOutcome::Reply
    }

    /// Messages tell of the transaction that publishes them: they leave with it, or not at all. Its events stand between
    /// them as they came.
    fn publish_messages(&self, session: &mut Session, events: Vec<Event>, depends_on: LogIndex) {
        let condition = ReplyCondition::of_entry(depends_on, self.moment.generation);
        let publish = |event: Event| self.server.publish_event(&event, condition, &self.settings);
        let mut events = events.into_iter();
        let mut told = 0;
        for (behind, message) in session.published.drain(..) {
            events.by_ref().take(behind - told).for_each(publish);
            told = behind;
            self.server.publish_committed(message, session.client.id, condition);
        }
        events.for_each(publish);
    }
}

pub(super) fn queue(
    session: &mut Session,
    row: &'static Row,
    args: Args<'_>,
    settings: &Settings,
    out: &mut Output,
) -> ServerResult {
    let Some(transaction) = &mut session.transaction else {
        return Err(CommandError::err("EXEC without MULTI"));
    };
    if row.name == "select" {
        let db = args.get(1).and_then(parse_i64).and_then(|db| DbIndex::try_from(db).ok());
        transaction.db = db.filter(|db| *db < settings.databases()).or(transaction.db);
    }
    let args = args.to_owned();
    transaction.len_bytes += args.bytes_len();
    transaction.commands.push((row, args));
    session.describe();
    out.writer(session.version).simple("QUEUED");
    Ok(ServerOutcome::Reply)
}

/// What a client is told whose user may not do what it has asked for.
#[cold]
pub(super) fn deny(
    server: &Server,
    session: &Session,
    denied: Denied,
    row: &'static Row,
    args: Args<'_>,
) -> CommandError {
    let context = if session.transaction.is_some() { Context::Multi } else { Context::TopLevel };
    server.refusals.deny(server, session, context, denied, row, args)
}

/// As [`rejected`], of a command that is known: it is counted.
#[cold]
pub(super) fn refuse(
    stats: &ThreadStats,
    session: &mut Session,
    row: &'static Row,
    args: Args<'_>,
    keys: &mut Keys<'_>,
    error: CommandError,
) -> CommandError {
    if let Some(counters) = stats.command(row) {
        counters.rejected.add(1);
    }
    rejected(session, args, keys, error)
}

/// A command was refused before it ran: its transaction will fail. A refused EXEC fails it at once, and says so.
pub(super) fn rejected(
    session: &mut Session,
    args: Args<'_>,
    keys: &mut Keys<'_>,
    error: CommandError,
) -> CommandError {
    if table::find(args.at(0)).is_none_or(|row| row.scope != Scope::Transaction) {
        if let Some(transaction) = &mut session.transaction {
            transaction.aborted = true;
        }
        return error;
    }
    session.transaction = None;
    session.unwatch(keys);
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
