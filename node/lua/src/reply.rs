//! What a script returns becomes a reply. It may return tables as deep as it likes, so nothing here recurses.

use keyward_proto::resp::{ReplyWriter, Version};
use mlua::{Lua, LuaString, Table, Value};

use crate::REFERENCES_MAX;

/// Names of fields, made once.
#[derive(Debug)]
pub(crate) struct Words {
    err: LuaString,
    ok: LuaString,
    double: LuaString,
    map: LuaString,
    set: LuaString,
    big_number: LuaString,
    verbatim: LuaString,
    string: LuaString,
    format: LuaString,
}

impl Words {
    pub(crate) fn new(lua: &Lua) -> mlua::Result<Words> {
        let word = |text: &str| lua.create_string(text);
        Ok(Words {
            err: word("err")?,
            ok: word("ok")?,
            double: word("double")?,
            map: word("map")?,
            set: word("set")?,
            big_number: word("big_number")?,
            verbatim: word("verbatim_string")?,
            string: word("string")?,
            format: word("format")?,
        })
    }
}

/// An aggregate of which some is written.
enum Open {
    Array {
        table: Table,
        len: usize,
        next: usize,
        start: usize,
    },
    /// What is left, the last first.
    Pairs(Vec<Value>),
}

/// What a table is as a reply.
enum Shape {
    Scalar,
    Array(Table),
    Map(Table),
    Set(Table),
}

/// Writes what a script has returned. `version`: that of `redis.setresp`, by which null and false differ.
pub(crate) fn write(
    words: &Words,
    version: Version,
    value: Value,
    out: &mut ReplyWriter<'_>,
) -> mlua::Result<()> {
    let mut open: Vec<Open> = Vec::new();
    let mut next = Some(value);
    loop {
        if let Some(value) = next.take() {
            if REFERENCES_MAX < open.len() {
                out.error("ERR reached lua stack limit");
            } else if let Some(entered) = write_one(words, version, value, out)? {
                open.push(entered);
            }
        }
        let Some(innermost) = open.last_mut() else { return Ok(()) };
        next = innermost.next(out)?;
        if next.is_none() {
            open.pop();
        }
    }
}

impl Open {
    fn next(&mut self, out: &mut ReplyWriter<'_>) -> mlua::Result<Option<Value>> {
        match self {
            Open::Pairs(values) => Ok(values.pop()),
            Open::Array { table, len, next, start } => {
                if *len < *next {
                    return Ok(None);
                }
                let value: Value = table.raw_get(*next)?;
                if value.is_nil() {
                    // The length counts a hole: an array ends before it.
                    out.rewind(*start);
                    *len = *next - 1;
                    *next = 1;
                    out.array(*len);
                    return self.next(out);
                }
                *next += 1;
                Ok(Some(value))
            }
        }
    }
}

/// Writes a value; of an aggregate only its beginning.
fn write_one(
    words: &Words,
    version: Version,
    value: Value,
    out: &mut ReplyWriter<'_>,
) -> mlua::Result<Option<Open>> {
    match value {
        Value::String(text) => out.bulk(&text.as_bytes()),
        Value::Integer(number) => out.integer(number),
        Value::Number(number) => out.integer(integer(number)),
        Value::Boolean(value) if version == Version::Resp3 => out.boolean(value),
        Value::Boolean(true) => out.integer(1),
        Value::Table(table) => return write_table(words, table, out),
        _ => out.null(),
    }
    Ok(None)
}

/// As C converts it on the machines that Valkey runs on: what does not fit is the smallest number.
fn integer(number: f64) -> i64 {
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    if fits { number as i64 } else { i64::MIN }
}

fn write_table(words: &Words, table: Table, out: &mut ReplyWriter<'_>) -> mlua::Result<Option<Open>> {
    match shape(words, table, out)? {
        Shape::Scalar => Ok(None),
        Shape::Array(table) => {
            let (len, start) = (table.raw_len(), out.position());
            out.array(len);
            Ok(Some(Open::Array { table, len, next: 1, start }))
        }
        Shape::Map(table) => {
            let mut values = Vec::new();
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair?;
                values.push((key, value));
                if REFERENCES_MAX / 4 < values.len() {
                    return write_long_map(words, &table, out);
                }
            }
            out.map(values.len());
            Ok(Some(Open::Pairs(values.into_iter().rev().flat_map(|(key, value)| [value, key]).collect())))
        }
        Shape::Set(table) => {
            let mut keys = Vec::new();
            for pair in table.pairs::<Value, Value>() {
                keys.push(pair?.0);
                if REFERENCES_MAX / 2 < keys.len() {
                    return write_long_set(words, &table, out);
                }
            }
            out.set(keys.len());
            keys.reverse();
            Ok(Some(Open::Pairs(keys)))
        }
    }
}

/// Of what nobody can hold at once only what is no aggregate is written.
fn write_flat(words: &Words, value: Value, out: &mut ReplyWriter<'_>) -> mlua::Result<()> {
    let start = out.position();
    if write_one(words, Version::Resp2, value, out)?.is_some() {
        out.rewind(start);
        out.error("ERR reached lua stack limit");
    }
    Ok(())
}

fn write_long_map(words: &Words, table: &Table, out: &mut ReplyWriter<'_>) -> mlua::Result<Option<Open>> {
    out.map(table.pairs::<Value, Value>().count());
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        write_flat(words, key, out)?;
        write_flat(words, value, out)?;
    }
    Ok(None)
}

fn write_long_set(words: &Words, table: &Table, out: &mut ReplyWriter<'_>) -> mlua::Result<Option<Open>> {
    out.set(table.pairs::<Value, Value>().count());
    for pair in table.pairs::<Value, Value>() {
        write_flat(words, pair?.0, out)?;
    }
    Ok(None)
}

/// Looks for the fields that make a table something else than an array, in Valkey's order.
fn shape(words: &Words, table: Table, out: &mut ReplyWriter<'_>) -> mlua::Result<Shape> {
    if let Value::String(text) = table.raw_get(&words.err)? {
        out.error(up_to_nul(&text.as_bytes()));
        return Ok(Shape::Scalar);
    }
    if let Value::String(text) = table.raw_get(&words.ok)? {
        out.raw(&[b"+", on_one_line(up_to_nul(&text.as_bytes())).as_slice(), b"\r\n"].concat());
        return Ok(Shape::Scalar);
    }
    match table.raw_get(&words.double)? {
        Value::Number(number) => {
            out.double(number);
            return Ok(Shape::Scalar);
        }
        Value::Integer(number) => {
            out.double(number as f64);
            return Ok(Shape::Scalar);
        }
        _ => {}
    }
    if let Value::Table(map) = table.raw_get(&words.map)? {
        return Ok(Shape::Map(map));
    }
    if let Value::Table(set) = table.raw_get(&words.set)? {
        return Ok(Shape::Set(set));
    }
    if let Value::String(text) = table.raw_get(&words.big_number)? {
        let text = on_one_line(&text.as_bytes());
        if out.is_resp3() {
            out.raw(&[b"(", text.as_slice(), b"\r\n"].concat())
        } else {
            out.bulk(&text)
        }
        return Ok(Shape::Scalar);
    }
    if let Value::Table(verbatim) = table.raw_get(&words.verbatim)?
        && let Value::String(text) = verbatim.raw_get(&words.string)?
        && let Value::String(format) = verbatim.raw_get(&words.format)?
    {
        let format = format.as_bytes();
        let letter = |at: usize| format.get(at).copied().filter(u8::is_ascii_graphic).map_or(' ', char::from);
        let format: String = (0..3).map(letter).collect();
        out.verbatim(&format, &text.as_bytes());
        return Ok(Shape::Scalar);
    }
    Ok(Shape::Array(table))
}

/// Errors and states are strings as C has them.
pub(crate) fn up_to_nul(text: &[u8]) -> &[u8] {
    text.iter().position(|byte| *byte == 0).map_or(text, |end| &text[..end])
}

/// Line breaks become spaces.
fn on_one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect()
}
