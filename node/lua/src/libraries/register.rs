//! `redis.register_function`, in both of its forms.

use mlua::{Function, Lua, MultiValue, Table, Value};

use crate::interpreter::Compiled;
use crate::raised::reply;

/// What a library has registered.
#[derive(Debug)]
pub struct Registered {
    pub name: Vec<u8>,
    pub description: Option<Vec<u8>>,
    /// As they were given.
    pub flags: Vec<Vec<u8>>,
    pub function: Compiled,
}

/// Functions that one library may register.
const FUNCTIONS_MAX: usize = 10_000;

fn error(text: &str) -> mlua::Error {
    reply(format!("ERR {text}"))
}

pub(crate) fn register(lua: &Lua, registered: &mut Vec<Registered>, args: MultiValue) -> mlua::Result<()> {
    if registered.len() == FUNCTIONS_MAX {
        return Err(error("too many functions in a library"));
    }
    let args: Vec<Value> = args.into_iter().collect();
    let function = match args.as_slice() {
        [Value::Table(named)] => named_arguments(lua, named)?,
        [_] => {
            return Err(error(
                "calling server.register_function with a single argument is only applicable to Lua table \
                 (representing named arguments).",
            ));
        }
        [name, callback] => {
            let name = text(name)
                .ok_or_else(|| error("first argument to server.register_function must be a string"))?;
            let Value::Function(callback) = callback else {
                return Err(error("second argument to server.register_function must be a function"));
            };
            made(lua, name, callback)?
        }
        _ => return Err(error("wrong number of arguments to server.register_function")),
    };
    registered.push(function);
    Ok(())
}

fn made(lua: &Lua, name: Vec<u8>, callback: &Function) -> mlua::Result<Registered> {
    let function = Compiled::of(lua, callback)?;
    Ok(Registered { name, description: None, flags: Vec::new(), function })
}

fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

fn named_arguments(lua: &Lua, named: &Table) -> mlua::Result<Registered> {
    let (mut name, mut callback, mut description, mut flags) = (None, None, None, Vec::new());
    for pair in named.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let key = text(&key)
            .ok_or_else(|| error("named argument key given to server.register_function is not a string"))?;
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => {
                name = Some(text(&value).ok_or_else(|| must_be("function_name", "a string"))?);
            }
            b"description" => {
                description = Some(text(&value).ok_or_else(|| must_be("description", "a string"))?);
            }
            b"callback" => {
                let Value::Function(function) = value else { return Err(must_be("callback", "a function")) };
                callback = Some(function);
            }
            b"flags" => {
                let Value::Table(table) = value else {
                    return Err(error(
                        "flags argument to server.register_function must be a table representing function flags",
                    ));
                };
                flags = flags_of(&table)?;
            }
            _ => return Err(error("unknown argument given to server.register_function")),
        }
    }
    let name = name.ok_or_else(|| error("server.register_function must get a function name argument"))?;
    let callback = callback.ok_or_else(|| error("server.register_function must get a callback argument"))?;
    Ok(Registered { description, flags, ..made(lua, name, &callback)? })
}

fn must_be(argument: &str, what: &str) -> mlua::Error {
    error(&format!("{argument} argument given to server.register_function must be {what}"))
}

fn flags_of(table: &Table) -> mlua::Result<Vec<Vec<u8>>> {
    const NAMES: [&[u8]; 5] =
        [b"no-writes", b"allow-oom", b"allow-stale", b"no-cluster", b"allow-cross-slot-keys"];
    let known = |value: Value| {
        let flag = text(&value).map(|flag| flag.to_ascii_lowercase());
        flag.filter(|flag| NAMES.contains(&flag.as_slice())).ok_or_else(|| error("unknown flag given"))
    };
    table.sequence_values::<Value>().take(64).map(|value| known(value?)).collect()
}
