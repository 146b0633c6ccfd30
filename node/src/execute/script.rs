//! Scripts and functions: what they call is executed under the locks of their declared keys, its effects are one entry of
//! the log, as those of a transaction.
//!
//! Outside cluster mode a script may use keys that it has not declared, and nobody can know before which. So a script that
//! may write runs with the world stopped when it runs for the first time ([`Manner::Unknown`]), and always if it has used
//! others than its own keys once ([`Manner::Wild`]): nobody else holds a slot then but for moments, and it takes what it
//! turns out to need. All others run in parallel. One of them that needs another slot after all begins again with the
//! world stopped, if it has changed nothing; if it has, it takes the slot where that cannot end in a deadlock, waits for
//! it a moment otherwise, and then fails.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyward_lua::{Abort, Host, LogLevel, ScriptError};
use keyward_proto::resp::number::parse_i64;
use keyward_proto::resp::{Args, Output, Version};
use keyward_proto::slot::Slot;
use keyward_replication::gate::{DiskState, GateState};
use keyward_store::keys::Keys;

use super::Executor;
use super::admit::{Access, Candidate, Patience, SAVE_FAILED, Verdict, misconf};
use super::call::missing_of;
use super::eviction::Room;
use super::progress::{Progress, Running};
use super::timing::{Call, Caller};
use crate::acl::log::Context;
use crate::admin::{ServerOutcome, ServerResult, check_protected};
use crate::command::CommandError;
use crate::command::keys_of::visit_slots;
use crate::command::spec::{self, Scope};
use crate::command::table::{self, Row};
use crate::io::session::Session;
use crate::scripts;
use crate::scripts::cache::{self, Conduct, Manner, Origin, Script};
use crate::scripts::engine::{Engine, Watch};
use crate::scripts::flags::ScriptFlags;
use crate::scripts::libraries::{self, Found};
use crate::scripts::runs::{self, Run, What};

/// For so long a script that has written waits for a slot that another one holds, which may wait for one of its own.
const OUT_OF_ORDER_MAX: Duration = Duration::from_millis(200);
/// Calls of commands after which a script looks at the time.
const CALLS_BETWEEN_LOOKS: u32 = 64;
/// Arguments of a running function that others are shown.
const ARGUMENTS_SHOWN: usize = 32;

const NO_SCRIPT: &str = "NOSCRIPT No matching script.";
const NOT_ALLOWED: &str = "This Valkey command is not allowed from script";

/// What is executed.
#[derive(Debug)]
enum Callable {
    Script(Arc<Script>),
    Function(Found),
}

/// A request that runs a script.
#[derive(Debug)]
struct Request<'a> {
    callable: Callable,
    keys: Vec<&'a [u8]>,
    args: Vec<&'a [u8]>,
    /// By the command's name: EVAL_RO and its like.
    is_ro: bool,
    room: Room,
}

impl Request<'_> {
    fn flags(&self) -> ScriptFlags {
        match &self.callable {
            Callable::Script(script) => script.flags,
            Callable::Function(found) => found.function().flags,
        }
    }

    fn conduct(&self) -> &Conduct {
        match &self.callable {
            Callable::Script(script) => &script.conduct,
            Callable::Function(found) => &found.function().conduct,
        }
    }

    fn may_write(&self) -> bool {
        !self.is_ro && !self.flags().has(ScriptFlags::NO_WRITES)
    }

    /// What others see of it while it runs.
    fn shown(&self, args: Args<'_>, since: keyward_proto::time::Monotonic) -> runs::Running {
        match &self.callable {
            Callable::Script(_) => {
                runs::Running { what: What::Script, name: String::new(), command: Vec::new(), since }
            }
            Callable::Function(found) => runs::Running {
                what: What::Function,
                name: found.function().name.clone(),
                command: args.iter().take(ARGUMENTS_SHOWN).map(<[u8]>::to_vec).collect(),
                since,
            },
        }
    }
}

/// Who else may run meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Run,
    Stopped,
}

/// How a run has ended.
#[derive(Debug)]
enum Ended {
    With(ServerResult),
    /// It needs what it may not take while others run, and has changed nothing.
    Again,
}

impl Executor {
    /// EVAL, FCALL and their like, outside a transaction.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    pub(super) fn execute_script<'k>(
        &mut self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        keys: &mut Keys<'k>,
        out: &mut Output,
        guard: &mut Running,
        progress: &mut Progress,
    ) -> ServerResult {
        self.show_script(session, row, args);
        // A slot may be a busy script's.
        if matches!(row.name, "fcall" | "fcall_ro") && self.server.scripts.runs.is_busy() {
            return Err(self.busy());
        }
        let room = self.make_room(keys, progress);
        let mut request = self.script_request(row, args, keys)?;
        request.room = room;
        self.check_start(&request)?;
        let mut others = match request.conduct().get() {
            Manner::Tame => Others::Run,
            Manner::Unknown if !request.may_write() => Others::Run,
            Manner::Unknown | Manner::Wild => Others::Stopped,
        };
        loop {
            let ended = match others {
                Others::Run => {
                    let runs = &self.server.scripts.runs;
                    if !keys.lock_visited_unless(|visit| visit_slots(row, args, visit), || runs.is_busy()) {
                        return Err(self.busy());
                    }
                    self.run_script(session, args, &request, keys, out, progress, others)
                }
                Others::Stopped => self.execute_alone(keys, guard, |this, keys| {
                    keys.note_stopped();
                    keys.lock_visited(|visit| visit_slots(row, args, visit));
                    Ok(this.run_script(session, args, &request, keys, out, progress, others))
                })?,
            };
            match ended {
                Ended::With(result) => return result,
                Ended::Again => others = Others::Stopped,
            }
        }
    }

    /// As [`Executor::execute_script`], in a transaction: the world is stopped, and all slots are locked.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    pub(super) fn execute_locked_script<'k>(
        &mut self,
        session: &mut Session,
        row: &'static Row,
        args: Args<'_>,
        keys: &mut Keys<'k>,
        out: &mut Output,
        progress: &mut Progress,
        room: Room,
    ) -> ServerResult {
        self.show_script(session, row, args);
        let mut request = self.script_request(row, args, keys)?;
        request.room = room;
        self.check_start(&request)?;
        match self.run_script(session, args, &request, keys, out, progress, Others::Stopped) {
            Ended::With(result) => result,
            Ended::Again => Err(CommandError::err("the script has to be run again")),
        }
    }

    fn script_request<'a>(
        &self,
        row: &'static Row,
        args: Args<'a>,
        keys: &mut Keys<'_>,
    ) -> Result<Request<'a>, CommandError> {
        let is_function = matches!(row.name, "fcall" | "fcall_ro");
        let is_sha = matches!(row.name, "evalsha" | "evalsha_ro");
        let no_script = || CommandError::coded(NO_SCRIPT);
        let found = if is_function {
            // What it replies depends on the last change of the libraries.
            let known = &self.server.scripts.libraries;
            let found = keys.with_slot(libraries::SLOT, |_| known.lock().find(args.at(1)));
            Some(found.ok_or_else(|| CommandError::err("Function not found"))?)
        } else {
            None
        };
        let sha = if is_sha { Some(cache::parse_sha(args.at(1)).ok_or_else(no_script)?) } else { None };
        let count = parse_i64(args.at(2)).ok_or_else(|| {
            if is_function {
                CommandError::err("Bad number of keys provided")
            } else {
                CommandError::NotInteger
            }
        })?;
        if (args.len() - 3) as i64 <= count && (args.len() - 3) as i64 != count {
            return Err(CommandError::err("Number of keys can't be greater than number of args"));
        }
        let count =
            usize::try_from(count).map_err(|_| CommandError::err("Number of keys can't be negative"))?;
        let callable = match (found, sha) {
            (Some(found), _) => Callable::Function(found),
            (None, Some(sha)) => {
                Callable::Script(self.server.scripts.cache.lock().get(&sha).ok_or_else(no_script)?)
            }
            (None, None) => Callable::Script(scripts::load(&self.server, args.at(1), Origin::Eval)?),
        };
        let mut rest = args.iter().skip(3);
        let keys = rest.by_ref().take(count).collect();
        let is_ro = row.name.ends_with("_ro");
        Ok(Request { callable, keys, args: rest.collect(), is_ro, room: Room::Left })
    }

    /// What a script that is about to be queued says of itself, as far as it is known now.
    fn queued_flags(&self, row: &Row, args: Args<'_>) -> Option<ScriptFlags> {
        let scripts = &self.server.scripts;
        match row.name {
            "eval" | "eval_ro" => scripts::flags::of_script(args.at(1)).ok().map(|(flags, _)| flags),
            "evalsha" | "evalsha_ro" => {
                let script = cache::parse_sha(args.at(1)).and_then(|sha| scripts.cache.lock().get(&sha));
                script.map(|script| script.flags)
            }
            "fcall" | "fcall_ro" => {
                scripts.libraries.lock().find(args.at(1)).map(|found| found.function().flags)
            }
            _ => None,
        }
    }

    /// Whether a script that is about to be queued would be refused where memory is short.
    pub(super) fn queued_script_needs_memory(&self, row: &Row, args: Args<'_>) -> bool {
        self.queued_flags(row, args).is_some_and(ScriptFlags::needs_memory)
    }

    /// What is refused before it is queued: a command that the settings do not let this client use, and a script.
    pub(super) fn check_to_queue(
        &self,
        session: &Session,
        row: &Row,
        args: Args<'_>,
    ) -> Result<(), CommandError> {
        check_protected(row, &self.settings, &session.client.address)?;
        self.check_queued_script(row, args)
    }

    /// A script that is about to be queued and says that it may write is refused where a write would be.
    fn check_queued_script(&self, row: &Row, args: Args<'_>) -> Result<(), CommandError> {
        if row.scope != Scope::Script
            || !self.queued_flags(row, args).is_some_and(ScriptFlags::says_it_writes)
        {
            return Ok(());
        }
        match self.moment.state {
            GateState::Replica | GateState::InDoubt => Err(CommandError::ReadOnly),
            GateState::Primary => self.check_disk_for_writes(),
            GateState::Holding | GateState::Undecided | GateState::NoPrimary | GateState::Loading => Ok(()),
        }
    }

    /// What a script has said of itself may forbid that it runs here and now. One that has said nothing is judged by what
    /// it does.
    fn check_start(&self, request: &Request<'_>) -> Result<(), CommandError> {
        let flags = request.flags();
        if request.room == Room::Exhausted && flags.needs_memory() {
            return Err(CommandError::OutOfMemory);
        }
        if flags.says_it_writes() {
            self.check_writes()?;
        }
        if flags.has(ScriptFlags::NO_CLUSTER) && self.settings.cluster_enabled {
            return Err(CommandError::err("Can not run script on cluster, 'no-cluster' flag is set."));
        }
        if flags.says_it_writes() && request.is_ro {
            return Err(CommandError::err("Can not execute a script with write flag using *_ro command."));
        }
        Ok(())
    }

    /// Whether commands of a script may write here and now; who calls them was admitted as a reader.
    fn check_writes(&self) -> Result<(), CommandError> {
        let gate = &self.server.shared.gate;
        if self.moment.state != GateState::Primary {
            return Err(CommandError::ReadOnly);
        }
        self.check_disk_for_writes()?;
        if !gate.is_standalone() && !gate.writable() { Err(CommandError::NoReplicas) } else { Ok(()) }
    }

    fn check_disk_for_writes(&self) -> Result<(), CommandError> {
        if self.moment.disk == DiskState::Failed {
            return Err(misconf(&self.server.disk_error()));
        }
        if self.moment.save_failed { Err(CommandError::coded(SAVE_FAILED)) } else { Ok(()) }
    }

    /// Runs a script under the locks of its keys, then appends its effects and unlocks; in a transaction, which does that
    /// for all of its commands, it only runs.
    #[allow(clippy::too_many_arguments, reason = "the parts of a batch, borrowed separately")]
    fn run_script<'k>(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        request: &Request<'_>,
        keys: &mut Keys<'k>,
        out: &mut Output,
        progress: &mut Progress,
        others: Others,
    ) -> Ended {
        let server = Arc::clone(&self.server);
        let mut engine = Engine::take(&server);
        engine.begin(self.moment.generation);
        let run = Arc::clone(&engine.run);
        let watch = engine.watch();
        let kept = (session.db, session.version, session.in_exec);
        session.in_exec = true;
        let mut host = ScriptHost {
            slot: request.keys.first().map(|key| Slot::of(key)),
            is_read_only: !request.may_write(),
            may_cross: request.flags().has(ScriptFlags::SILENT)
                || request.flags().has(ScriptFlags::ALLOW_CROSS_SLOT),
            refuses_memory: request.room == Room::Exhausted && !request.flags().has(ScriptFlags::ALLOW_OOM),
            dirty: keys.dirty(),
            published: session.published.len(),
            executor: self,
            session,
            keys,
            progress,
            others,
            out: Output::default(),
            run: &run,
            watch,
            calls: 0,
            is_wild: false,
            again: false,
        };
        run.begin(request.shown(args, server.clock.monotonic()));
        let start = out.len();
        let mut writer = out.writer(kept.1);
        let result = match &request.callable {
            Callable::Script(script) => engine.cached(script).map(|(interpreter, compiled)| {
                interpreter.eval(compiled, &request.keys, &request.args, &mut host, &mut writer)
            }),
            Callable::Function(found) => engine.function(found).map(|(interpreter, compiled)| {
                interpreter.fcall(compiled, &request.keys, &request.args, &mut host, &mut writer)
            }),
        };
        let (is_wild, again) = (host.is_wild, host.again);
        run.end(&server.scripts.runs);
        engine.keep();
        (session.db, session.version, session.in_exec) = kept;
        keys.db = session.db;
        if is_wild {
            request.conduct().note_wild();
        } else {
            request.conduct().note_tame();
        }
        if !session.in_exec {
            self.commit_with_messages(session, keys, progress);
        }
        if again {
            out.truncate(start);
            return Ended::Again;
        }
        Ended::With(match result {
            Ok(Ok(())) => Ok(ServerOutcome::Reply),
            Ok(Err(ScriptError::Failed(text) | ScriptError::Aborted(text))) => {
                out.truncate(start);
                match String::from_utf8(text) {
                    Ok(text) => Err(CommandError::coded(text)),
                    Err(bytes) => {
                        out.writer(session.version).error(bytes.as_bytes());
                        Ok(ServerOutcome::Reply)
                    }
                }
            }
            Err(error) => Err(error),
        })
    }
}

/// What a running script reaches.
struct ScriptHost<'a, 'k> {
    executor: &'a mut Executor,
    session: &'a mut Session,
    keys: &'a mut Keys<'k>,
    progress: &'a mut Progress,
    others: Others,
    out: Output,
    run: &'a Arc<Run>,
    watch: Rc<Watch>,
    calls: u32,
    /// In cluster mode, that of its first key.
    slot: Option<Slot>,
    is_read_only: bool,
    may_cross: bool,
    refuses_memory: bool,
    /// When it began.
    dirty: u64,
    published: usize,
    /// It has used a key that it was not given.
    is_wild: bool,
    again: bool,
}

/// Why a command is not executed.
enum Refused {
    Error(CommandError),
    Script(Abort),
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Refused {
        Refused::Error(error)
    }
}

impl Host for ScriptHost<'_, '_> {
    fn call(&mut self, args: &[&[u8]], version: Version, read: &mut dyn FnMut(&[u8])) -> Result<(), Abort> {
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS_BETWEEN_LOOKS) {
            self.watch.may_go_on()?;
        }
        self.out.clear();
        self.session.version = version;
        match self.execute(Args::from_slices(args)) {
            Ok(()) => {}
            Err(Refused::Script(abort)) => return Err(abort),
            Err(Refused::Error(error)) => {
                self.executor.stats.count_error(&error.to_string());
                self.out.clear();
                self.out.writer(version).error(error.to_bytes());
            }
        }
        match self.out.as_one_slice() {
            Some(bytes) => read(bytes),
            None => read(&self.out.to_vec()),
        }
        Ok(())
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        match level {
            LogLevel::Debug => tracing::debug!("script: {text}"),
            LogLevel::Verbose => tracing::debug!("script: {text}"),
            LogLevel::Notice => tracing::info!("script: {text}"),
            LogLevel::Warning => tracing::warn!("script: {text}"),
        }
    }

    fn may_call(&mut self, args: &[&[u8]]) -> Option<bool> {
        let row = table::find(args.first()?)?;
        let row = match args.get(1) {
            Some(name) if row.has_subcommands() => table::find_subcommand(row, name)?,
            Some(_) | None => row,
        };
        let Some(user) = &self.session.rights else { return Some(true) };
        Some(user.check(row, Args::from_slices(args), self.session.place(&self.executor.settings)).is_ok())
    }
}

impl ScriptHost<'_, '_> {
    fn execute(&mut self, args: Args<'_>) -> Result<(), Refused> {
        let row = self.find(args)?;
        if let Err(refused) = self.check(row, args) {
            if let Some(counters) = self.executor.stats.command(row) {
                counters.rejected.add(1);
            }
            return Err(refused);
        }
        self.lock(row, args)?;
        self.keys.db = self.session.db;
        let out = &mut self.out;
        let executor = &mut *self.executor;
        let begun = executor.begin_inner_call(row);
        let result = match row.scope {
            Scope::None => executor.call(self.session, row, args, self.keys, out),
            Scope::Keys | Scope::Walk | Scope::World | Scope::Transaction | Scope::Script => {
                executor.call_locked(self.session, row, args, self.keys, out, self.progress)
            }
        };
        executor.count_call(row, &result);
        let caller = Caller::Script;
        let call = Call { row, args, begun, request_bytes: 0, reply_bytes: out.len(), caller };
        executor.look_back(self.session, &call, &result);
        if row.has(spec::WRITE) {
            self.run.note_write();
        }
        match executor.without_waiting(self.session, result?, out) {
            ServerOutcome::Reply | ServerOutcome::Block(_) => Ok(()),
            _ => Err(CommandError::err(NOT_ALLOWED).into()),
        }
    }

    fn find(&self, args: Args<'_>) -> Result<&'static Row, CommandError> {
        let row =
            table::find(args.at(0)).ok_or_else(|| CommandError::err("Unknown command called from script"))?;
        let row = match args.get(1) {
            Some(name) if row.has_subcommands() => {
                table::find_subcommand(row, name).ok_or_else(|| unknown_subcommand(args))?
            }
            Some(_) | None => row,
        };
        if row.accepts(args.len()) {
            Ok(row)
        } else {
            Err(CommandError::err("Wrong number of args calling command from script"))
        }
    }

    fn check(&mut self, row: &'static Row, args: Args<'_>) -> Result<(), Refused> {
        if row.has(spec::NOSCRIPT) || matches!(row.scope, Scope::Transaction | Scope::Script) {
            return Err(CommandError::err(NOT_ALLOWED).into());
        }
        self.check_rights(row, args)?;
        if self.refuses_memory && row.has(spec::DENYOOM) && !self.run.has_written() {
            return Err(CommandError::OutOfMemory.into());
        }
        if self.is_read_only && row.has(spec::WRITE | spec::MAY_REPLICATE) {
            let text = "Write commands are not allowed from read-only scripts.";
            return Err(CommandError::err(text).into());
        }
        if row.has(spec::WRITE) {
            self.executor.check_writes()?;
        }
        if self.executor.settings.cluster_enabled {
            self.check_slots(row, args)?;
        }
        Ok(())
    }

    /// A script may do what the user of its client may.
    fn check_rights(&self, row: &'static Row, args: Args<'_>) -> Result<(), CommandError> {
        let Some(user) = &self.session.rights else { return Ok(()) };
        user.check(row, args, self.session.place(&self.executor.settings)).map_err(|denied| {
            let server = &self.executor.server;
            let told = server.refusals.deny(server, self.session, Context::Script, denied, row, args);
            let reason = told.to_bytes();
            let reason = reason.strip_prefix(b"NOPERM ").unwrap_or(&reason);
            CommandError::coded_bytes(&[b"ERR ACL failure in script: ", reason])
        })
    }

    /// Cluster mode: a script may use what this node serves, and keys of one slot unless it has said otherwise.
    fn check_slots(&mut self, row: &'static Row, args: Args<'_>) -> Result<(), CommandError> {
        const ONE_SLOT: &str = "Script attempted to access keys that do not hash to the same slot";
        let access = if row.has(spec::WRITE) { Access::Write } else { Access::Read };
        let candidate = Candidate { session: self.session, row, args, patience: Patience::Exhausted };
        match self.executor.checks().check_slots(&candidate, access) {
            Ok(()) => {}
            Err(Verdict::Refuse(CommandError::CrossSlot)) => return Err(CommandError::err(ONE_SLOT)),
            Err(Verdict::Refuse(CommandError::ClusterDown)) => {
                return Err(CommandError::err(
                    "Script attempted to execute a command while the cluster is down",
                ));
            }
            Err(_) => {
                return Err(CommandError::err(
                    "Script attempted to access a non local key in a cluster node",
                ));
            }
        }
        let mut used = None;
        visit_slots(row, args, &mut |slot| used = Some(slot));
        let Some(slot) = used else { return Ok(()) };
        let first = *self.slot.get_or_insert(slot);
        if first == slot || self.may_cross { Ok(()) } else { Err(CommandError::err(ONE_SLOT)) }
    }

    /// Takes the locks that the command needs, or ends the script, which then begins again.
    fn lock(&mut self, row: &'static Row, args: Args<'_>) -> Result<(), Refused> {
        match row.scope {
            Scope::None => return Ok(()),
            Scope::Walk | Scope::World => self.is_wild = true,
            Scope::Keys | Scope::Transaction | Scope::Script => {}
        }
        if self.others == Others::Stopped && row.scope == Scope::World {
            self.is_wild = true;
            self.keys.lock_rest();
            return Ok(());
        }
        let mut missing: Vec<Slot> = Vec::new();
        visit_slots(row, args, &mut |slot| {
            if !self.keys.holds(slot) {
                missing.push(slot);
            }
        });
        self.lock_missing(missing, row)?;
        match row.named_keys(args) {
            Some(named) => self.lock_missing(missing_of(self.keys, named, args), row),
            None => Ok(()),
        }
    }

    fn lock_missing(&mut self, mut missing: Vec<Slot>, row: &'static Row) -> Result<(), Refused> {
        let walks = matches!(row.scope, Scope::World | Scope::Walk);
        if missing.is_empty() && !walks {
            return Ok(());
        }
        self.is_wild = true;
        if self.others == Others::Stopped {
            self.keys.lock_more(missing);
            return Ok(());
        }
        if self.keys.dirty() == self.dirty && self.session.published.len() == self.published {
            self.again = true;
            return Err(Refused::Script(Abort("the script begins again".into())));
        }
        if walks {
            return Err(Refused::Script(too_late()));
        }
        missing.sort_unstable();
        for slot in missing {
            let in_order = self.keys.highest_held().is_none_or(|highest| highest < slot);
            while !self.keys.try_lock_more(slot, OUT_OF_ORDER_MAX) {
                if !in_order {
                    return Err(Refused::Script(too_late()));
                }
                self.watch.may_go_on().map_err(Refused::Script)?;
            }
        }
        Ok(())
    }
}

fn unknown_subcommand(args: Args<'_>) -> CommandError {
    let container = String::from_utf8_lossy(args.at(0)).to_uppercase();
    CommandError::quoting("unknown subcommand '", args.at(1), format!("'. Try {container} HELP."))
}

/// Differs from Valkey, where one script runs at a time.
fn too_late() -> Abort {
    Abort(
        "Script used a key that it was not given after it had written others, while another client used that key; \
         from now on it runs alone"
            .into(),
    )
}
