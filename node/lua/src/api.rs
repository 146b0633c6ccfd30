//! `redis.*`, which is `server.*`, too.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use keyward_proto::resp::Version;
use keyward_proto::resp::number::format_double;
use mlua::{FromLua, Lua, MultiValue, Table, Value, Variadic};
use sha1::{Digest, Sha1};

use crate::bridge::{NO_ARGUMENTS, NOT_STRINGS, with_host, written};
use crate::host::LogLevel;
use crate::interpreter::Kind;
use crate::libraries::{Registered, register};
use crate::raised::{error_table, reply};
use crate::reply::up_to_nul;

const REPL_NONE: i64 = 0;
const REPL_AOF: i64 = 1;
const REPL_REPLICA: i64 = 2;
const REPL_ALL: i64 = 3;

const LEVELS: [(&str, LogLevel); 4] = [
    ("LOG_DEBUG", LogLevel::Debug),
    ("LOG_VERBOSE", LogLevel::Verbose),
    ("LOG_NOTICE", LogLevel::Notice),
    ("LOG_WARNING", LogLevel::Warning),
];

/// The versions that scripts are told: of the server that we are taken for.
const VERSION: &str = "9.1.2";
const VERSION_NUMBER: i64 = 0x0009_0102;
const OLD_VERSION: &str = "7.2.4";
const OLD_VERSION_NUMBER: i64 = 0x0007_0204;

/// All but `call` and `pcall`.
pub(crate) fn table(lua: &Lua, kind: Kind, version: &Rc<Cell<Version>>) -> mlua::Result<Table> {
    let api = lua.create_table()?;
    add_calls(lua, &api)?;
    add_constants(&api)?;
    api.raw_set("sha1hex", lua.create_function(sha1hex)?)?;
    api.raw_set("error_reply", lua.create_function(error_reply)?)?;
    api.raw_set("status_reply", lua.create_function(status_reply)?)?;
    api.raw_set("set_repl", lua.create_function(set_repl)?)?;
    let version = Rc::clone(version);
    api.raw_set("setresp", lua.create_function(move |_, args: MultiValue| setresp(&version, &args))?)?;
    if kind == Kind::Eval {
        api.raw_set("replicate_commands", lua.create_function(|_, ()| Ok(true))?)?;
        api.raw_set("breakpoint", lua.create_function(|_, ()| Ok(false))?)?;
        api.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    }
    Ok(api)
}

/// What a library sees while it is loaded.
pub(crate) fn loading_table(lua: &Lua, registered: &Rc<RefCell<Vec<Registered>>>) -> mlua::Result<Table> {
    let api = lua.create_table()?;
    add_constants(&api)?;
    let registered = Rc::clone(registered);
    let function =
        lua.create_function(move |lua, args: MultiValue| register(lua, &mut registered.borrow_mut(), args))?;
    api.raw_set("register_function", function)?;
    Ok(api)
}

fn add_constants(api: &Table) -> mlua::Result<()> {
    for (number, (name, _)) in LEVELS.iter().enumerate() {
        api.raw_set(*name, number)?;
    }
    for (name, number) in [
        ("REPL_NONE", REPL_NONE),
        ("REPL_AOF", REPL_AOF),
        ("REPL_SLAVE", REPL_REPLICA),
        ("REPL_REPLICA", REPL_REPLICA),
        ("REPL_ALL", REPL_ALL),
        ("REDIS_VERSION_NUM", OLD_VERSION_NUMBER),
        ("VALKEY_VERSION_NUM", VERSION_NUMBER),
    ] {
        api.raw_set(name, number)?;
    }
    api.raw_set("REDIS_VERSION", OLD_VERSION)?;
    api.raw_set("VALKEY_VERSION", VERSION)?;
    api.raw_set("SERVER_NAME", "valkey")
}

fn sha1hex(lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    if args.len() != 1 {
        return Err(reply("ERR wrong number of arguments"));
    }
    let text = match Word::from_lua(args[0].clone(), lua)? {
        Word::Text(text) => text,
        Word::Other => Vec::new(),
    };
    let digest = Sha1::digest(text);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Value::String(lua.create_string(hex)?))
}

fn only_text(args: &MultiValue) -> Option<Vec<u8>> {
    match args.front() {
        Some(Value::String(text)) if args.len() == 1 => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

fn error_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_text(&args) else {
        return error_table(lua, b"ERR wrong number or type of arguments");
    };
    error_table(lua, &with_code(&text))
}

/// An error that names no code has the general one.
fn with_code(text: &[u8]) -> Vec<u8> {
    let text = up_to_nul(text);
    let is_break = |b: &u8| matches!(b, b'\r' | b'\n');
    let begin = text.iter().position(|b| !is_break(b)).unwrap_or(text.len());
    let end = text.iter().rposition(|b| !is_break(b)).map_or(begin, |at| at + 1);
    let text = &text[begin..end];
    let text = text.strip_prefix(b"-").unwrap_or(text);
    if text.contains(&b' ') { text.to_vec() } else { [b"ERR ", text].concat() }
}

fn status_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_text(&args) else {
        return error_table(lua, b"ERR wrong number or type of arguments");
    };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", lua.create_string(text)?)?;
    Ok(table)
}

fn setresp(version: &Cell<Version>, args: &MultiValue) -> mlua::Result<()> {
    if args.len() != 1 {
        return Err(reply("ERR server.setresp() requires one argument."));
    }
    version.set(match number(&args[0]) {
        Some(2) => Version::Resp2,
        Some(3) => Version::Resp3,
        Some(_) | None => return Err(reply("ERR RESP version must be 2 or 3.")),
    });
    Ok(())
}

/// Differs from Valkey: whatever a script asks for, all of its effects are replicated and kept.
fn set_repl(_lua: &Lua, args: MultiValue) -> mlua::Result<()> {
    if args.len() != 1 {
        return Err(reply("ERR server.set_repl() requires one argument."));
    }
    if (REPL_NONE..=REPL_ALL).contains(&number(&args[0]).unwrap_or(REPL_NONE)) {
        return Ok(());
    }
    Err(reply("ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."))
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Number(number) => Some(*number as i64),
        Value::String(text) => text.to_str().ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// An argument of a command.
enum Word {
    Text(Vec<u8>),
    Other,
}

impl FromLua for Word {
    fn from_lua(value: Value, _lua: &Lua) -> mlua::Result<Self> {
        Ok(match value {
            Value::String(text) => Word::Text(text.as_bytes().to_vec()),
            Value::Integer(number) => Word::Text(number.to_string().into_bytes()),
            Value::Number(number) => Word::Text(written(number).into_bytes()),
            _ => Word::Other,
        })
    }
}

/// What is wrong with the arguments, or the words.
fn words(args: &[Word]) -> Result<Vec<&[u8]>, &'static str> {
    if args.is_empty() {
        return Err(NO_ARGUMENTS);
    }
    args.iter()
        .map(|arg| if let Word::Text(text) = arg { Ok(text.as_slice()) } else { Err(NOT_STRINGS) })
        .collect()
}

fn add_calls(lua: &Lua, api: &Table) -> mlua::Result<()> {
    api.raw_set("log", lua.create_function(|_, args: MultiValue| log(&args))?)?;
    api.raw_set("acl_check_cmd", lua.create_function(|_, args: Variadic<Word>| check(&args))?)
}

fn check(args: &[Word]) -> mlua::Result<bool> {
    let words = words(args).map_err(reply)?;
    let allowed = with_host(|host| host.may_call(&words));
    allowed.ok_or_else(|| reply("ERR Invalid command passed to server.acl_check_cmd()"))
}

fn log(args: &MultiValue) -> mlua::Result<()> {
    if args.len() < 2 {
        return Err(reply("ERR server.log() requires two arguments or more."));
    }
    let (Value::Integer(_) | Value::Number(_)) = args[0] else {
        return Err(reply("ERR First argument must be a number (log level)."));
    };
    let level = number(&args[0]).and_then(|n| LEVELS.get(usize::try_from(n).ok()?));
    let Some((_, level)) = level else { return Err(reply("ERR Invalid log level.")) };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Number(number) => Some(format_double(*number).into_bytes()),
        _ => None,
    };
    let texts: Vec<Vec<u8>> = args.iter().skip(1).filter_map(text).collect();
    with_host(|host| host.log(*level, &texts.join(&b' ')));
    Ok(())
}
