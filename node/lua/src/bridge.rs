//! The way from a script to its host and back, on Lua's own stack: `redis.call`, `redis.pcall`, and the call of a script.
//!
//! *Why it is `unsafe`.* It is what scripts spend their time with. `mlua`'s safe functions copy each word and each value
//! once more and guard each step against Lua's errors, which leave by `longjmp`; a small script took three times as long
//! with them.
//!
//! *Why it is sound.* `longjmp` must not pass over a frame that has something to drop. Lua raises errors here for three
//! reasons only: no memory, a full stack, and because it is asked to. The bound of the memory is lifted while values are
//! made ([`Unlimited`]), and what might not fit is refused before; the stack is asked for room; and it is asked to by
//! [`call`], [`pcall`] and [`enter`] alone, which hold nothing. What is borrowed of Lua's strings lies on the stack of the
//! running function, so it is not collected.
#![allow(unsafe_code, reason = "see the module documentation")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int};

use keyward_proto::resp::Version;
use keyward_proto::resp::number::{format_double, parse_f64_unbounded};
use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, Table, Value};
use scoped_tls_hkt::{ReborrowMut, scoped_thread_local};

use crate::host::Host;
use crate::limit::Unlimited;
use crate::raised::Raised;

pub(crate) const NOT_STRINGS: &str = "ERR Command arguments must be strings or integers";
pub(crate) const NO_ARGUMENTS: &str = "ERR Please specify at least one argument for this call";
const TOO_LARGE: &[u8] = b"not enough memory";

/// A string with its place in a table, besides its text.
const STRING_BYTES: usize = 48;
/// A table with two fields and their strings.
const TABLE_BYTES: usize = 256;
/// The place of an element in a table, and of a key.
const ELEMENT_BYTES: usize = 16;
const NODE_BYTES: usize = 40;

scoped_thread_local!(
    /// The script that runs on this thread.
    static mut RUNNING: for<'a> Surroundings<'a>
);

thread_local! {
    /// What is about to be raised as an error of Rust.
    static RAISED: RefCell<Option<Raised>> = const { RefCell::new(None) };
}

/// What a script runs with.
pub(crate) struct Surroundings<'a> {
    pub(crate) host: &'a mut (dyn Host + 'a),
    /// Its interpreter.
    pub(crate) lua: &'a Lua,
    /// The protocol of the replies to what it calls.
    pub(crate) version: &'a Cell<Version>,
    pub(crate) keys: &'a [&'a [u8]],
    pub(crate) args: &'a [&'a [u8]],
}

impl<'a, 'b: 'a> ReborrowMut<'a> for Surroundings<'b> {
    type Result = Surroundings<'a>;

    fn reborrow_mut(&'a mut self) -> Surroundings<'a> {
        Surroundings { host: &mut *self.host, ..*self }
    }
}

impl Surroundings<'_> {
    pub(crate) fn run<R>(self, script: impl FnOnce() -> R) -> R {
        RUNNING.set(self, script)
    }
}

/// Calls the host of the script that runs on this thread.
pub(crate) fn with_host<R>(f: impl FnOnce(&mut dyn Host) -> R) -> R {
    RUNNING.with(|running| f(running.host))
}

/// How a function gets its keys and arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    Nothing,
    /// As `KEYS` and `ARGV`.
    Globals,
    Arguments,
}

const GIVEN: [Given; 3] = [Given::Nothing, Given::Globals, Given::Arguments];

/// The functions of this module, as Lua has them.
pub(crate) struct Functions {
    pub(crate) call: Function,
    pub(crate) pcall: Function,
    enter: Function,
}

impl Functions {
    /// `globals`: where a script's `KEYS` and `ARGV` go; `handler` sees each error where it is raised.
    pub(crate) fn new(lua: &Lua, globals: &Table, handler: &Function) -> mlua::Result<Functions> {
        let raise = lua.create_function(|_, ()| -> mlua::Result<()> {
            let raised = RAISED.take().unwrap_or_else(|| Raised::Text(TOO_LARGE.to_vec()));
            Err(raised.into())
        })?;
        // SAFETY: each takes what is on the stack as what it knows of, and leaves itself.
        unsafe {
            Ok(Functions {
                call: lua.exec_raw(&raise, |state| ffi::lua_pushcclosure(state, call, 1))?,
                pcall: lua.exec_raw(&raise, |state| ffi::lua_pushcclosure(state, pcall, 1))?,
                enter: lua.exec_raw((globals, handler), |state| ffi::lua_pushcclosure(state, enter, 2))?,
            })
        }
    }

    /// Calls a function within [`Surroundings`] and returns what it has returned; `Err`: the value that ended it.
    pub(crate) fn enter(&self, function: &Function, given: Given) -> mlua::Result<Result<Value, Value>> {
        let (has_ended, value): (bool, Value) = self.enter.call((function, given as u8))?;
        Ok(if has_ended { Ok(value) } else { Err(value) })
    }
}

/// How a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A value is on the stack.
    Value,
    /// An error reply is on the stack.
    Error,
    /// [`RAISED`] is to be raised.
    Raised,
}

/// `redis.call`
unsafe extern "C-unwind" fn call(state: *mut lua_State) -> c_int {
    // SAFETY: nothing here has to be dropped.
    unsafe {
        match execute(state) {
            Outcome::Value => 1,
            Outcome::Error => ffi::lua_error(state),
            Outcome::Raised => raise(state),
        }
    }
}

/// `redis.pcall`
unsafe extern "C-unwind" fn pcall(state: *mut lua_State) -> c_int {
    // SAFETY: nothing here has to be dropped.
    unsafe {
        match execute(state) {
            Outcome::Value | Outcome::Error => 1,
            Outcome::Raised => raise(state),
        }
    }
}

/// The function that raises is the first upvalue.
unsafe fn raise(state: *mut lua_State) -> c_int {
    // SAFETY: the caller has nothing to drop.
    unsafe {
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_call(state, 0, 0);
    }
    0
}

/// An argument, as it lies on the stack or was made of a number.
enum Word<'a> {
    Text(&'a [u8]),
    Number(String),
}

/// Executes the command whose words are the arguments, and leaves its reply as the last value.
unsafe fn execute(state: *mut lua_State) -> Outcome {
    RUNNING.with(|Surroundings { host, lua, version, .. }| {
        // SAFETY: the state is the running function's, and the strings stay on its stack.
        let words = unsafe { words(state) };
        let words = match &words {
            Ok(words) => words,
            Err(error) => {
                let reply = format!("-{error}\r\n");
                // SAFETY: as below.
                return unsafe { push_reply(state, lua, reply.as_bytes()) };
            }
        };
        let texts: Vec<&[u8]> = words.iter().map(Word::text).collect();
        let mut outcome = Outcome::Raised;
        // SAFETY: the state is the running function's, of the interpreter `lua`.
        let mut take = |reply: &[u8]| outcome = unsafe { push_reply(state, lua, reply) };
        match host.call(&texts, version.get(), &mut take) {
            Ok(()) => outcome,
            Err(abort) => {
                RAISED.replace(Some(Raised::Abort(abort)));
                Outcome::Raised
            }
        }
    })
}

impl Word<'_> {
    fn text(&self) -> &[u8] {
        match self {
            Word::Text(text) => text,
            Word::Number(text) => text.as_bytes(),
        }
    }
}

/// The arguments of the running function; `Err`: what is wrong with them.
unsafe fn words<'a>(state: *mut lua_State) -> Result<Vec<Word<'a>>, &'static str> {
    // SAFETY: the indexes are those of the arguments; a string's bytes stay where they are as long as it is on the stack,
    // and neither question changes the value, since a number is not asked for its text.
    unsafe {
        let count = ffi::lua_gettop(state);
        if count == 0 {
            return Err(NO_ARGUMENTS);
        }
        (1..=count)
            .map(|at| match ffi::lua_type(state, at) {
                ffi::LUA_TSTRING => Ok(Word::Text(text_at(state, at))),
                ffi::LUA_TNUMBER => Ok(Word::Number(written(ffi::lua_tonumber(state, at)))),
                _ => Err(NOT_STRINGS),
            })
            .collect()
    }
}

/// The bytes of a string.
unsafe fn text_at<'a>(state: *mut lua_State, at: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: the caller has seen that a string is there.
    unsafe {
        let start = ffi::lua_tolstring(state, at, &raw mut len);
        if start.is_null() { &[] } else { std::slice::from_raw_parts(start.cast(), len) }
    }
}

/// A number as an argument; minus zero is zero.
pub(crate) fn written(number: f64) -> String {
    if number == 0.0 { "0".into() } else { format_double(number) }
}

/// Leaves a reply as a value, if there is room for it.
unsafe fn push_reply(state: *mut lua_State, lua: &Lua, reply: &[u8]) -> Outcome {
    let Some(_unlimited) = Unlimited::for_bytes(lua, bytes_of(reply)) else {
        RAISED.replace(Some(Raised::Text(TOO_LARGE.to_vec())));
        return Outcome::Raised;
    };
    // SAFETY: the bound of the memory is lifted.
    unsafe { Reader { state, bytes: reply }.push() };
    if reply.first() == Some(&b'-') { Outcome::Error } else { Outcome::Value }
}

/// What the values of a reply take at most. The lines of a text count as if they were values.
fn bytes_of(reply: &[u8]) -> usize {
    let mut start = 0;
    let mut bytes = reply.len() + STRING_BYTES;
    for end in memchr::memchr_iter(b'\n', reply) {
        let count = || {
            let count = std::str::from_utf8(&reply[start + 1..end]).ok().and_then(|n| n.trim().parse().ok());
            count.unwrap_or(0).min(reply.len())
        };
        bytes += match reply[start] {
            b'$' | b':' | b'_' | b'#' => STRING_BYTES,
            // A table's nodes are up to twice as many as its keys.
            b'%' | b'~' => TABLE_BYTES + 2 * NODE_BYTES * count(),
            b'*' => TABLE_BYTES + ELEMENT_BYTES * count(),
            b'+' | b'-' | b',' | b'(' | b'=' => TABLE_BYTES,
            _ => 0,
        };
        start = end + 1;
        if start == reply.len() {
            break;
        }
    }
    bytes
}

/// The bytes of a reply, from the front. All of this requires that the bound of the memory is lifted. No length is believed
/// that the bytes do not bear out.
struct Reader<'a> {
    state: *mut lua_State,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let end = memchr::memchr(b'\r', self.bytes).unwrap_or(self.bytes.len());
        let (line, rest) = self.bytes.split_at(end);
        self.bytes = rest.get(2..).unwrap_or_default();
        line
    }

    fn integer(&mut self) -> i64 {
        std::str::from_utf8(self.line()).ok().and_then(|text| text.parse().ok()).unwrap_or(-1)
    }

    /// So many bytes and the line's end.
    fn bulk(&mut self, len: usize) -> &'a [u8] {
        let (bulk, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest.get(2..).unwrap_or_default();
        bulk
    }

    /// Leaves one value on the stack, which has room for it.
    unsafe fn push(&mut self) {
        let state = self.state;
        let kind = self.bytes.split_first().map(|(kind, rest)| {
            self.bytes = rest;
            *kind
        });
        // SAFETY: each arm leaves one value; aggregates ask for the room that they need.
        unsafe {
            match kind {
                Some(b'$') => match usize::try_from(self.integer()) {
                    Ok(len) => push_text(state, self.bulk(len)),
                    Err(_) => ffi::lua_pushboolean(state, 0),
                },
                Some(b':') => ffi::lua_pushnumber(state, self.integer() as f64),
                Some(b'+') => {
                    let line = self.line();
                    self.push_tagged(c"ok", |this| push_text(this.state, line));
                }
                Some(b'-') => self.push_error(),
                Some(b'*') => match usize::try_from(self.integer()) {
                    Ok(len) => self.push_array(len),
                    Err(_) => ffi::lua_pushboolean(state, 0),
                },
                Some(b'#') => {
                    let is_true = self.line() == b"t";
                    ffi::lua_pushboolean(state, c_int::from(is_true));
                }
                Some(b',') => {
                    let number = parse_f64_unbounded(self.line()).unwrap_or(f64::NAN);
                    self.push_tagged(c"double", |this| ffi::lua_pushnumber(this.state, number));
                }
                Some(b'(') => {
                    let line = self.line();
                    self.push_tagged(c"big_number", |this| push_text(this.state, line));
                }
                Some(b'=') => self.push_tagged(c"verbatim_string", |this| this.push_verbatim()),
                Some(b'%') => {
                    let pairs = self.integer();
                    self.push_tagged(c"map", |this| this.push_pairs(pairs, |this| this.push()));
                }
                Some(b'~') => {
                    let len = self.integer();
                    self.push_tagged(c"set", |this| {
                        this.push_pairs(len, |this| ffi::lua_pushboolean(this.state, 1));
                    });
                }
                Some(_) => {
                    self.line();
                    ffi::lua_pushnil(state);
                }
                None => ffi::lua_pushnil(state),
            }
        }
    }

    /// How a script sees an error reply.
    unsafe fn push_error(&mut self) {
        let line = self.line();
        // SAFETY: as for `push_tagged`.
        unsafe {
            self.push_tagged(c"err", |this| push_text(this.state, line));
            ffi::lua_pushboolean(self.state, 1);
            ffi::lua_setfield(self.state, -2, c"ignore_error_stats_update".as_ptr());
        }
    }

    /// A table with one field.
    unsafe fn push_tagged(&mut self, tag: &'static CStr, push: impl FnOnce(&mut Self)) {
        // SAFETY: a new table has no metatable, so that setting a field runs no code.
        unsafe {
            if !self.has_room() {
                return ffi::lua_pushnil(self.state);
            }
            ffi::lua_createtable(self.state, 0, 2);
            push(self);
            ffi::lua_setfield(self.state, -2, tag.as_ptr());
        }
    }

    unsafe fn push_array(&mut self, len: usize) {
        // SAFETY: a table lies below the value.
        unsafe {
            if !self.has_room() {
                return ffi::lua_pushnil(self.state);
            }
            let len = len.min(self.bytes.len());
            ffi::lua_createtable(self.state, c_int::try_from(len).unwrap_or(0), 0);
            for at in 1..=len {
                if self.bytes.is_empty() {
                    return;
                }
                self.push();
                ffi::lua_rawseti(self.state, -2, at as ffi::lua_Integer);
            }
        }
    }

    /// A table with what follows as its keys.
    unsafe fn push_pairs(&mut self, count: i64, push_value: impl Fn(&mut Self)) {
        // SAFETY: a table lies below key and value; nil and NaN are no keys.
        unsafe {
            if !self.has_room() {
                return ffi::lua_pushnil(self.state);
            }
            let count = usize::try_from(count).unwrap_or(0).min(self.bytes.len());
            ffi::lua_createtable(self.state, 0, c_int::try_from(count).unwrap_or(0));
            for _ in 0..count {
                if self.bytes.is_empty() {
                    return;
                }
                self.push();
                push_value(self);
                if ffi::lua_type(self.state, -2) == ffi::LUA_TNIL {
                    ffi::lua_pop(self.state, 2);
                } else {
                    ffi::lua_rawset(self.state, -3);
                }
            }
        }
    }

    unsafe fn push_verbatim(&mut self) {
        let len = usize::try_from(self.integer()).unwrap_or(0);
        let bulk = self.bulk(len);
        let (format, text) = (bulk.get(..3).unwrap_or_default(), bulk.get(4..).unwrap_or_default());
        // SAFETY: as for `push_tagged`.
        unsafe {
            if !self.has_room() {
                return ffi::lua_pushnil(self.state);
            }
            ffi::lua_createtable(self.state, 0, 2);
            push_text(self.state, format);
            ffi::lua_setfield(self.state, -2, c"format".as_ptr());
            push_text(self.state, text);
            ffi::lua_setfield(self.state, -2, c"string".as_ptr());
        }
    }

    /// For a table, a key, a value, and a name while a field is set.
    unsafe fn has_room(&self) -> bool {
        // SAFETY: it grows the stack, or says that it is full.
        unsafe { ffi::lua_checkstack(self.state, 5) != 0 }
    }
}

unsafe fn push_text(state: *mut lua_State, text: &[u8]) {
    // SAFETY: Lua copies the bytes.
    unsafe {
        ffi::lua_pushlstring(state, text.as_ptr().cast::<c_char>(), text.len());
    }
}

/// Calls the function that is the first argument; the second says how it gets keys and arguments. Returns whether it has
/// ended by itself, and its value or that of the error. The upvalues are the global variables and the handler of errors.
unsafe extern "C-unwind" fn enter(state: *mut lua_State) -> c_int {
    // SAFETY: the stack of a function has room for twenty values; nothing here has to be dropped when Lua may raise an
    // error, which `lua_pcall` catches.
    unsafe {
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
        let handler = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, 1);
        let given = GIVEN.get(ffi::lua_tonumber(state, 2) as usize).copied().unwrap_or(Given::Nothing);
        let arguments = match push_given(state, given) {
            Some(arguments) => arguments,
            None => {
                ffi::lua_pushboolean(state, 0);
                ffi::lua_pushnil(state);
                return 2;
            }
        };
        let status = ffi::lua_pcall(state, arguments, 1, handler);
        ffi::lua_pushboolean(state, c_int::from(status == ffi::LUA_OK));
        ffi::lua_insert(state, -2);
        2
    }
}

/// Keys and arguments become values: how many of them are arguments of the function. `None`: there is no room for them.
unsafe fn push_given(state: *mut lua_State, given: Given) -> Option<c_int> {
    if given == Given::Nothing {
        return Some(0);
    }
    RUNNING.with(|Surroundings { lua, keys, args, .. }| {
        let bytes = keys.iter().chain(args).map(|word| word.len() + STRING_BYTES).sum::<usize>();
        let _unlimited = Unlimited::for_bytes(lua, bytes + 2 * TABLE_BYTES)?;
        // SAFETY: the bound of the memory is lifted; the table of the global variables is written past its metatable.
        unsafe {
            for (name, words) in [(c"KEYS", keys), (c"ARGV", args)] {
                if given == Given::Globals {
                    push_text(state, name.to_bytes());
                }
                ffi::lua_createtable(state, c_int::try_from(words.len()).unwrap_or(0), 0);
                for (at, word) in (1..).zip(words) {
                    push_text(state, word);
                    ffi::lua_rawseti(state, -2, at);
                }
                if given == Given::Globals {
                    ffi::lua_rawset(state, ffi::lua_upvalueindex(1));
                }
            }
        }
        Some(if given == Given::Arguments { 2 } else { 0 })
    })
}
