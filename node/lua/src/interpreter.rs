//! An interpreter: compiles scripts, runs them, and says what went wrong.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use keyward_proto::resp::{ReplyWriter, Version};
use mlua::chunk::ChunkMode;
use mlua::{Error, Function, HookTriggers, Lua, LuaOptions, RegistryKey, StdLib, Table, Value, VmState};

use crate::INSTRUCTIONS;
use crate::api;
use crate::bridge::{Functions, Given, Surroundings};
use crate::host::{Abort, Host};
use crate::libraries::random::Random;
use crate::libraries::{self, Registered};
use crate::limit;
use crate::raised::{self, Raised};
use crate::reply::{self, Words};

/// An interpreter that holds more after a script gives back at once what nobody uses any more.
const COLLECT_BYTES_MIN: usize = 32 << 20;

/// What an interpreter is for: functions see a little less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Eval,
    Function,
}

/// A script or function in the interpreter that has compiled it.
#[derive(Debug)]
pub struct Compiled(RegistryKey);

/// Why a script has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptError {
    /// The error reply, with its code and the place of the error.
    Failed(Vec<u8>),
    /// The host has ended it.
    Aborted(Vec<u8>),
}

/// What an error was, and where.
#[derive(Debug, Default)]
struct Failure {
    text: Vec<u8>,
    place: Option<String>,
    aborted: bool,
}

/// See the module documentation. It belongs to one thread.
pub struct Interpreter {
    lua: Lua,
    kind: Kind,
    /// The global variables.
    globals: Table,
    /// Of the table in front of them: whether it shows them, or what a library sees while it is loaded.
    switch: Table,
    loading: Table,
    functions: Functions,
    loadstring: Function,
    failure: Rc<RefCell<Option<Failure>>>,
    words: Words,
    configs: libraries::Configs,
    registered: Rc<RefCell<Vec<Registered>>>,
    version: Rc<Cell<Version>>,
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Interpreter({:?})", self.kind)
    }
}

impl Interpreter {
    /// `seed`: for `math.random`; `may_go_on` is asked every [`INSTRUCTIONS`] instructions of a script.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(
        kind: Kind,
        seed: u32,
        may_go_on: impl Fn() -> Result<(), Abort> + 'static,
    ) -> Result<Interpreter, String> {
        Interpreter::build(kind, seed, may_go_on).map_err(|error| error.to_string())
    }

    fn build(
        kind: Kind,
        seed: u32,
        may_go_on: impl Fn() -> Result<(), Abort> + 'static,
    ) -> mlua::Result<Interpreter> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))?;
        let (random, configs) = (Random::new(seed), libraries::Configs::default());
        let registered: Rc<RefCell<Vec<Registered>>> = Rc::default();
        let version: Rc<Cell<Version>> = Rc::default();
        let api = api::table(&lua, kind, &version)?;
        let host = lua.create_table()?;
        host.raw_set("api", &api)?;
        host.raw_set("loading", api::loading_table(&lua, &registered)?)?;
        host.raw_set("unwrap", lua.create_function(unwrap)?)?;
        host.raw_set("soften", lua.create_function(raised::as_value)?)?;
        random.register(&lua, &host)?;
        host.raw_set("libraries", libraries::tables(&lua, &configs)?)?;
        let prelude = lua.load(include_str!("prelude.lua")).set_name("=(prelude)").into_function()?;
        let made: Table = prelude.call(host)?;
        lua.set_globals(made.raw_get::<Table>("globals")?)?;
        lua.set_type_metatable::<mlua::LuaString>(Some(made.raw_get("strings")?));
        let failure: Rc<RefCell<Option<Failure>>> = Rc::default();
        let noted = Rc::clone(&failure);
        let handler = lua.create_function(move |lua, error: Value| {
            *noted.borrow_mut() = Some(note(lua, &error));
            Ok(())
        })?;
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(INSTRUCTIONS), move |_, _| {
            may_go_on().map(|()| VmState::Continue).map_err(|abort| Raised::Abort(abort).into())
        })?;
        let globals: Table = made.raw_get("real")?;
        let functions = Functions::new(&lua, &globals, &handler)?;
        api.raw_set("call", &functions.call)?;
        api.raw_set("pcall", &functions.pcall)?;
        let interpreter = Interpreter {
            kind,
            globals,
            switch: made.raw_get("switch")?,
            loading: made.raw_get("loading")?,
            functions,
            loadstring: made.raw_get("loadstring")?,
            failure,
            words: Words::new(&lua)?,
            configs,
            registered,
            version,
            lua,
        };
        interpreter.lua.gc_collect()?;
        limit::set(&interpreter.lua)?;
        Ok(interpreter)
    }

    /// Bytes that Lua holds.
    pub fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Compiles a script.
    ///
    /// # Errors
    /// What is wrong with it, as Lua says it.
    pub fn compile(&self, source: &[u8]) -> Result<Compiled, Vec<u8>> {
        let name = match self.kind {
            Kind::Eval => "@user_script",
            Kind::Function => "@user_function",
        };
        self.compile_named(source, name).map_err(|error| match error {
            Error::SyntaxError { message, .. } if message.contains(char::REPLACEMENT_CHARACTER) => {
                self.syntax_error(source, name).unwrap_or(message.into_bytes())
            }
            Error::SyntaxError { message, .. } => message.into_bytes(),
            other => raised::of_lua(&other).into_bytes(),
        })
    }

    /// The message with its bytes as they are, which `mlua` makes characters of. `None`: Lua has no room for it.
    fn syntax_error(&self, source: &[u8], name: &str) -> Option<Vec<u8>> {
        if source.first() == Some(&27) {
            return None;
        }
        let source = self.lua.create_string(source).ok()?;
        let (_, message): (Value, mlua::LuaString) = self.loadstring.call((source, name)).ok()?;
        Some(message.as_bytes().to_vec())
    }

    fn compile_named(&self, source: &[u8], name: &str) -> mlua::Result<Compiled> {
        let mut text = Vec::with_capacity(source.len() + 1);
        // Precompiled code is never loaded: a blank before it makes it text.
        if source.first() == Some(&27) {
            text.push(b' ');
        }
        text.extend_from_slice(source);
        let function = self.lua.load(text).set_name(name).set_mode(ChunkMode::Text).into_function()?;
        Ok(Compiled(self.lua.create_registry_value(function)?))
    }

    /// Forgets what nobody can call any more.
    pub fn forget(&self, compiled: Compiled) {
        if self.lua.remove_registry_value(compiled.0).is_err() {
            debug_assert!(false, "a script of another interpreter");
        }
        self.lua.expire_registry_values();
    }

    /// Runs a script with its keys and arguments as global variables; its reply goes to `out`.
    ///
    /// # Errors
    /// It has failed, and nothing is written.
    pub fn eval(
        &self,
        script: &Compiled,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        out: &mut ReplyWriter<'_>,
    ) -> Result<(), ScriptError> {
        let running = Surroundings { host, lua: &self.lua, version: &self.version, keys, args };
        self.run(running, out, script, Given::Globals)
    }

    /// Runs a function of a library.
    ///
    /// # Errors
    /// It has failed, and nothing is written.
    pub fn fcall(
        &self,
        function: &Compiled,
        keys: &[&[u8]],
        args: &[&[u8]],
        host: &mut dyn Host,
        out: &mut ReplyWriter<'_>,
    ) -> Result<(), ScriptError> {
        let running = Surroundings { host, lua: &self.lua, version: &self.version, keys, args };
        self.run(running, out, function, Given::Arguments)
    }

    /// Loads a library: what it registers. Their functions can be called in this interpreter from then on.
    ///
    /// # Errors
    /// Lua's words, or those of what it calls.
    pub fn load_library(&self, source: &[u8]) -> Result<Vec<Registered>, LoadError> {
        let script = self.compile(source).map_err(LoadError::Compile)?;
        self.registered.borrow_mut().clear();
        let result = self.registering(&script);
        self.forget(script);
        let registered = std::mem::take(&mut *self.registered.borrow_mut());
        result.map(|()| registered).map_err(LoadError::Run)
    }

    fn registering(&self, script: &Compiled) -> Result<(), Vec<u8>> {
        let run = || {
            self.switch.raw_set("__index", &self.loading)?;
            let function: Function = self.lua.registry_value(&script.0)?;
            let result = self.protected(&function, Given::Nothing);
            self.switch.raw_set("__index", &self.globals)?;
            result
        };
        match run() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.failure.take().unwrap_or_default().text),
            Err(error) => Err(raised::of_lua(&error).into_bytes()),
        }
    }

    /// What a function returns; `None`: its failure is noted.
    fn protected(&self, function: &Function, given: Given) -> mlua::Result<Option<Value>> {
        self.failure.replace(None);
        let ended = match self.functions.enter(function, given)? {
            Ok(value) => return Ok(Some(value)),
            Err(ended) => ended,
        };
        if self.failure.borrow().is_none() {
            // The handler itself had no room.
            let text = match &ended {
                Value::String(text) => text.as_bytes().to_vec(),
                _ => b"not enough memory".to_vec(),
            };
            let text = [b"ERR ".as_slice(), &text].concat();
            self.failure.replace(Some(Failure { text, ..Failure::default() }));
        }
        Ok(None)
    }

    fn run(
        &self,
        running: Surroundings<'_>,
        out: &mut ReplyWriter<'_>,
        compiled: &Compiled,
        given: Given,
    ) -> Result<(), ScriptError> {
        self.configs.reset();
        self.version.set(Version::Resp2);
        let start = out.position();
        let result = running.run(|| {
            let function: Function = self.lua.registry_value(&compiled.0)?;
            let Some(value) = self.protected(&function, given)? else { return Ok(false) };
            reply::write(&self.words, self.version.get(), value, out)?;
            Ok(true)
        });
        if COLLECT_BYTES_MIN < self.lua.used_memory() {
            // What goes wrong here goes wrong for the next script again.
            self.lua.gc_collect().unwrap_or_default();
        }
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failure.take().unwrap_or_default().into_error()),
            Err(error) => {
                out.rewind(start);
                Err(ScriptError::Failed(format!("ERR {}", raised::of_lua(&error)).into_bytes()))
            }
        }
    }
}

/// Why a library is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    Compile(Vec<u8>),
    Run(Vec<u8>),
}

impl Failure {
    fn into_error(self) -> ScriptError {
        let mut text = reply::up_to_nul(&self.text).to_vec();
        if let Some(place) = self.place {
            text.extend_from_slice(format!(" script: on {place}.").as_bytes());
        }
        if self.aborted { ScriptError::Aborted(text) } else { ScriptError::Failed(text) }
    }
}

/// What a script is told of an error that it has caught; one that ends it is raised again.
fn unwrap(lua: &Lua, value: Value) -> mlua::Result<Value> {
    match raised::as_value(lua, value)? {
        (Value::Error(error), true) => Err(*error),
        (value, _) => Ok(value),
    }
}

/// What an error that nobody has caught comes to. Called where it was raised.
fn note(lua: &Lua, error: &Value) -> Failure {
    let mut aborted = false;
    let text = match error {
        Value::Error(error) => match error.downcast_ref::<Raised>() {
            Some(Raised::Text(text)) => [b"ERR ".as_slice(), text].concat(),
            Some(Raised::Reply(text)) => text.clone(),
            Some(Raised::Abort(Abort(text))) => {
                aborted = true;
                format!("ERR {text}").into_bytes()
            }
            None => format!("ERR {}", raised::of_lua(error)).into_bytes(),
        },
        Value::Table(table) => match table.raw_get::<Value>("err") {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            Ok(_) | Err(_) => b"ERR unknown error".to_vec(),
        },
        Value::String(text) => [b"ERR ".as_slice(), &text.as_bytes()].concat(),
        Value::Nil => b"ERR nil".to_vec(),
        other => format!("ERR {}", other.to_string().unwrap_or_default()).into_bytes(),
    };
    Failure { text, place: place(lua), aborted }
}

/// The innermost line of a script.
fn place(lua: &Lua) -> Option<String> {
    (1..8).find_map(|level| {
        lua.inspect_stack(level, |frame| {
            let line = frame.current_line()?;
            let source = frame.source().source?;
            (source != "=(prelude)").then(|| format!("{source}:{line}"))
        })?
    })
}

impl Compiled {
    pub(crate) fn of(lua: &Lua, function: &Function) -> mlua::Result<Compiled> {
        lua.create_registry_value(function).map(Compiled)
    }
}
