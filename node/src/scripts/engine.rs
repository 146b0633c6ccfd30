//! A thread's interpreters. They are made when the thread runs its first script, belong to it alone, and hold what it has
//! compiled; what all threads know of scripts is elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keyward_commands::CommandError;
use keyward_lua::{Abort, Compiled, Interpreter, Kind, LoadError};
use keyward_proto::time::Monotonic;

use super::cache::{Conduct, Script, Sha};
use super::flags::{self, ScriptFlags};
use super::libraries::{Found, FunctionInfo, Library};
use super::runs::Run;
use crate::server::Server;

/// Compiled scripts that a thread keeps; with more it begins anew.
const COMPILED_MAX: usize = 1 << 10;
/// A library may take so long to say which functions it has.
const LOADING_MAX: Duration = Duration::from_millis(500);

thread_local! {
    static ENGINE: RefCell<Option<Box<Engine>>> = const { RefCell::new(None) };
}

/// See the module documentation.
#[derive(Debug)]
pub struct Engine {
    /// Of the server whose scripts these are.
    scripts_id: u64,
    pub run: Arc<Run>,
    /// What the scripts of this thread are asked now and then.
    watch: Rc<Watch>,
    eval: Option<Scripts>,
    functions: Option<Functions>,
}

/// The interpreter of EVAL.
#[derive(Debug)]
struct Scripts {
    interpreter: Interpreter,
    flushes: u64,
    compiled: BTreeMap<Sha, Compiled>,
}

/// The interpreter of FCALL.
#[derive(Debug)]
struct Functions {
    interpreter: Interpreter,
    version: u64,
    loaded: BTreeMap<u64, Vec<Compiled>>,
}

/// Decides whether what runs may go on.
#[derive(Debug)]
pub(crate) struct Watch {
    server: Arc<Server>,
    run: Arc<Run>,
    /// What runs.
    state: Cell<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A script that began in this generation of the gate.
    Script { generation: u64 },
    /// A library that says what it has, until this time.
    Library { until: Monotonic },
    /// A library that was loaded before, here or elsewhere.
    Trusted,
}

/// For how long a library may run when it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    Limited,
    /// It was loaded before.
    Unlimited,
}

impl Watch {
    /// # Errors
    /// It has to end.
    pub(crate) fn may_go_on(&self) -> Result<(), Abort> {
        let now = self.server.clock.monotonic();
        let generation = match self.state.get() {
            State::Trusted => return Ok(()),
            State::Library { until } if until < now => return Err(Abort("FUNCTION LOAD timeout".into())),
            State::Library { .. } => return Ok(()),
            State::Script { generation } => generation,
        };
        let runs = &self.server.scripts.runs;
        if let Some(elapsed) = self.run.check_time(runs, now, self.server.settings().busy_reply_threshold) {
            tracing::warn!(
                milliseconds = elapsed.as_millis(),
                "a script takes long: other clients are told that the node is busy; SCRIPT KILL and FUNCTION KILL end it"
            );
        }
        if self.run.is_busy() {
            crate::io::meanwhile::look(now);
        }
        if self.run.is_killed() {
            let by = if self.run.is_function() { "FUNCTION" } else { "SCRIPT" };
            return Err(Abort(format!("Script killed by user with {by} KILL.").into()));
        }
        // What it has read may belong to another history, and whoever changes the role waits for it.
        if !self.run.has_written() && self.server.shared.gate.generation() != generation {
            return Err(Abort("Script ended: this node has another role now.".into()));
        }
        Ok(())
    }
}

impl Engine {
    /// This thread's, for as long as a script runs.
    pub fn take(server: &Arc<Server>) -> Box<Engine> {
        let kept = ENGINE.with(RefCell::take).filter(|engine| engine.scripts_id == server.scripts.id);
        kept.unwrap_or_else(|| {
            let run = server.scripts.runs.add_thread();
            let watch = Rc::new(Watch {
                server: Arc::clone(server),
                run: Arc::clone(&run),
                state: Cell::new(State::Trusted),
            });
            Box::new(Engine { scripts_id: server.scripts.id, run, watch, eval: None, functions: None })
        })
    }

    /// Keeps it for the thread's next script.
    pub fn keep(self: Box<Engine>) {
        let eval = self.eval.as_ref().map_or(0, |e| e.interpreter.used_memory());
        let functions = self.functions.as_ref().map_or(0, |f| f.interpreter.used_memory());
        self.run.eval_bytes.store(eval, Ordering::Relaxed);
        self.run.function_bytes.store(functions, Ordering::Relaxed);
        ENGINE.with(|engine| engine.replace(Some(self)));
    }

    /// The generation of the gate to which what is about to run belongs.
    pub fn begin(&self, generation: u64) {
        self.watch.state.set(State::Script { generation });
    }

    /// What a script that calls much is asked, too.
    pub(crate) fn watch(&self) -> Rc<Watch> {
        Rc::clone(&self.watch)
    }

    fn interpreter(&self, kind: Kind) -> Result<Interpreter, CommandError> {
        static SEEDS: AtomicU32 = AtomicU32::new(0);
        let watch = Rc::clone(&self.watch);
        // No two of them draw the same numbers.
        let seed = SEEDS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9);
        Interpreter::new(kind, seed, move || watch.may_go_on())
            .map_err(|error| CommandError::err(format!("no interpreter: {error}")))
    }

    /// The interpreter with a script compiled in it.
    ///
    /// # Errors
    /// It cannot be compiled.
    pub fn script(&mut self, sha: &Sha, source: &[u8]) -> Result<(&Interpreter, &Compiled), CommandError> {
        let flushes = self.watch.server.scripts.flushes.load(Ordering::Acquire);
        let is_current = |eval: &Scripts| eval.flushes == flushes && eval.compiled.len() < COMPILED_MAX;
        let mut eval = match self.eval.take().filter(is_current) {
            Some(eval) => eval,
            None => {
                Scripts { interpreter: self.interpreter(Kind::Eval)?, flushes, compiled: BTreeMap::new() }
            }
        };
        let result = match eval.compiled.contains_key(sha) {
            true => Ok(()),
            false => eval.interpreter.compile(source).map(|compiled| {
                eval.compiled.insert(*sha, compiled);
            }),
        };
        let eval = self.eval.insert(eval);
        result.map_err(|text| CommandError::quoting("Error compiling script (new function): ", &text, ""))?;
        let compiled = eval.compiled.get(sha).ok_or_else(|| CommandError::err("the script is gone"))?;
        Ok((&eval.interpreter, compiled))
    }

    /// As [`Engine::script`], for one that is cached.
    ///
    /// # Errors
    /// It cannot be compiled.
    pub fn cached(&mut self, script: &Script) -> Result<(&Interpreter, &Compiled), CommandError> {
        let (_, source) = flags::of_script(&script.source)?;
        self.script(&script.sha, source)
    }

    /// The interpreter with a function loaded in it.
    ///
    /// # Errors
    /// It cannot be loaded here.
    pub fn function(&mut self, found: &Found) -> Result<(&Interpreter, &Compiled), CommandError> {
        self.load_libraries()?;
        let functions = self.functions.as_ref().ok_or_else(not_loaded)?;
        let compiled = functions.loaded.get(&found.library.id).and_then(|l| l.get(found.at));
        Ok((&functions.interpreter, compiled.ok_or_else(not_loaded)?))
    }

    /// Brings the interpreter of functions to what is known of libraries now.
    fn load_libraries(&mut self) -> Result<(), CommandError> {
        let scripts = &self.watch.server.scripts;
        let version = scripts.libraries_version.load(Ordering::Acquire);
        if self.functions.as_ref().is_some_and(|functions| functions.version == version) {
            return Ok(());
        }
        let libraries: Vec<Arc<Library>> = scripts.libraries.lock().iter().cloned().collect();
        let is_there = |id: &u64| libraries.iter().any(|library| library.id == *id);
        let mut functions = match self.functions.take().filter(|f| f.loaded.keys().all(is_there)) {
            Some(functions) => functions,
            None => {
                let interpreter = self.interpreter(Kind::Function)?;
                Functions { interpreter, version, loaded: BTreeMap::new() }
            }
        };
        functions.version = version;
        for library in &libraries {
            if functions.loaded.contains_key(&library.id) {
                continue;
            }
            let (_, source) = flags::of_library(&library.source)?;
            let before = self.watch.state.replace(State::Trusted);
            let loaded = functions.interpreter.load_library(source);
            self.watch.state.set(before);
            match loaded {
                Ok(registered) => {
                    let compiled = registered.into_iter().map(|registered| registered.function).collect();
                    functions.loaded.insert(library.id, compiled);
                }
                Err(error) => {
                    tracing::error!(
                        library = library.name,
                        ?error,
                        "a library of functions cannot be loaded"
                    );
                }
            }
        }
        self.functions = Some(functions);
        Ok(())
    }

    /// What a library's text registers, found out in an interpreter of its own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn examine(&self, source: &[u8], loading: Loading) -> Result<Library, CommandError> {
        let (name, text) = flags::of_library(source)?;
        let interpreter = self.interpreter(Kind::Function)?;
        self.watch.state.set(match loading {
            Loading::Limited => State::Library { until: self.watch.server.clock.monotonic() + LOADING_MAX },
            Loading::Unlimited => State::Trusted,
        });
        let result = interpreter.load_library(text);
        let registered = result.map_err(|error| match error {
            LoadError::Compile(text) => CommandError::quoting("Error compiling function: ", &text, ""),
            LoadError::Run(text) => CommandError::quoting("Error registering functions: ", &text, ""),
        })?;
        let mut functions: Vec<FunctionInfo> = Vec::new();
        for function in registered {
            if !flags::is_name(&function.name) {
                return Err(CommandError::err(
                    "Function names can only contain letters, numbers, or underscores(_) and must be at least one \
                     character long",
                ));
            }
            let name = String::from_utf8_lossy(&function.name).into_owned();
            if functions.iter().any(|known| known.name == name) {
                return Err(CommandError::err("Function already exists in the library"));
            }
            let mut flags = ScriptFlags::default();
            function.flags.iter().filter_map(|flag| ScriptFlags::of_name(flag)).for_each(|f| flags.add(f));
            let description = function.description;
            functions.push(FunctionInfo { name, description, flags, conduct: Conduct::default() });
        }
        if functions.is_empty() {
            return Err(CommandError::err("No functions registered"));
        }
        Ok(Library::new(name, source, functions))
    }
}

fn not_loaded() -> CommandError {
    CommandError::err("the function is not there any more")
}
