//! Errors that functions written in Rust raise. They reach Lua as userdata; `prelude.lua` turns them into what functions in
//! C would have raised wherever a script can see one.

use std::fmt;

use mlua::{Error, Lua, Table, Value};

use crate::host::Abort;

/// See the module documentation.
#[derive(Debug, Clone)]
pub(crate) enum Raised {
    /// A text, which begins with the place of the call.
    Text(Vec<u8>),
    /// A table with this as its `err`.
    Reply(Vec<u8>),
    Abort(Abort),
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raised::Text(text) | Raised::Reply(text) => f.write_str(&String::from_utf8_lossy(text)),
            Raised::Abort(Abort(text)) => f.write_str(text),
        }
    }
}

impl std::error::Error for Raised {}

impl From<Raised> for Error {
    fn from(raised: Raised) -> Error {
        Error::external(raised)
    }
}

/// An error as functions in C raise it: the text behind the place of the call.
pub(crate) fn error(lua: &Lua, text: impl AsRef<[u8]>) -> Error {
    let mut whole = place(lua).unwrap_or_default().into_bytes();
    whole.extend_from_slice(text.as_ref());
    Raised::Text(whole).into()
}

/// A table with an error reply.
pub(crate) fn reply(text: impl Into<Vec<u8>>) -> Error {
    Raised::Reply(text.into()).into()
}

/// Where the running function was called.
fn place(lua: &Lua) -> Option<String> {
    lua.inspect_stack(1, |frame| {
        let line = frame.current_line()?;
        Some(format!("{}:{line}: ", frame.source().short_src?))
    })?
}

/// What is wrong with an argument, as Lua's own functions say it.
pub(crate) fn bad_argument(lua: &Lua, number: usize, function: &str, what: &str) -> Error {
    error(lua, format!("bad argument #{number} to '{function}' ({what})"))
}

/// The name of a value's type in such an error.
pub(crate) fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "no value",
        Some(Value::Error(_) | Value::UserData(_) | Value::LightUserData(_)) => "userdata",
        Some(Value::Integer(_)) => "number",
        Some(value) => value.type_name(),
    }
}

/// What Rust's error is for a script; of one that ends the script, itself.
pub(crate) fn as_value(lua: &Lua, value: Value) -> mlua::Result<(Value, bool)> {
    let Value::Error(error) = &value else { return Ok((value, false)) };
    match error.downcast_ref::<Raised>() {
        Some(Raised::Text(text)) => Ok((Value::String(lua.create_string(text)?), false)),
        Some(Raised::Reply(text)) => Ok((Value::Table(error_table(lua, text)?), false)),
        Some(Raised::Abort(_)) => Ok((value, true)),
        None => {
            let text = of_lua(error);
            Ok((Value::String(lua.create_string(text)?), false))
        }
    }
}

/// The text of an error that is none of ours: of the memory that is at its end, or of a conversion.
pub(crate) fn of_lua(error: &Error) -> String {
    match error {
        Error::MemoryError(_) => "not enough memory".into(),
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => of_lua(cause),
        Error::RuntimeError(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How a script sees an error reply.
pub(crate) fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(text)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}
