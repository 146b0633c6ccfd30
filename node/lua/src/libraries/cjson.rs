//! `cjson`: JSON. Neither direction recurses, so no depth that a script sets takes more of the stack.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Function, LightUserData, Lua, MultiValue, Table, Value};

use super::numbers;
use crate::REFERENCES_MAX;
use crate::raised::{bad_argument, error};

/// What a script may set.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth_max: i64,
    decode_depth_max: i64,
    precision: i64,
    keep_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: bool,
}

/// What becomes of numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refused,
    Written,
    Null,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1000,
            decode_depth_max: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refused,
            decode_invalid: true,
        }
    }
}

type Shared = Rc<RefCell<Config>>;

/// One value and one key for each level.
const DEPTH_MAX: usize = REFERENCES_MAX / 2;

pub(super) fn table(lua: &Lua, config: &Shared, next: &Function) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    table.raw_set("null", Value::LightUserData(LightUserData(std::ptr::null_mut())))?;
    let (own, iterate) = (Rc::clone(config), next.clone());
    table.raw_set(
        "encode",
        lua.create_function(move |lua, args| encode(lua, &own.borrow(), &iterate, &args))?,
    )?;
    let own = Rc::clone(config);
    table.raw_set("decode", lua.create_function(move |lua, args| decode(lua, &own.borrow(), &args))?)?;
    add_options(lua, &table, config)?;
    let next = next.clone();
    let new = move |lua: &Lua, _: MultiValue| self::table(lua, &Shared::default(), &next);
    table.raw_set("new", lua.create_function(new)?)?;
    Ok(table)
}

fn add_options(lua: &Lua, table: &Table, config: &Shared) -> mlua::Result<()> {
    let own = Rc::clone(config);
    let sparse = move |lua: &Lua, args: MultiValue| {
        check_count(lua, &args, "encode_sparse_array", 3)?;
        let mut config = own.borrow_mut();
        if let Some(value) = boolean(lua, &args, 1, "encode_sparse_array")? {
            config.sparse_convert = value;
        }
        if let Some(value) = integer(lua, &args, 2, "encode_sparse_array", (0, i64::from(i32::MAX)))? {
            config.sparse_ratio = value;
        }
        if let Some(value) = integer(lua, &args, 3, "encode_sparse_array", (0, i64::from(i32::MAX)))? {
            config.sparse_safe = value;
        }
        Ok((config.sparse_convert, config.sparse_ratio, config.sparse_safe))
    };
    table.raw_set("encode_sparse_array", lua.create_function(sparse)?)?;
    let int_max = i64::from(i32::MAX);
    number_option(lua, table, config, "encode_max_depth", (1, int_max), |c| &mut c.encode_depth_max)?;
    number_option(lua, table, config, "decode_max_depth", (1, int_max), |c| &mut c.decode_depth_max)?;
    number_option(lua, table, config, "encode_number_precision", (1, 14), |c| &mut c.precision)?;
    bool_option(lua, table, config, "encode_keep_buffer", |c| &mut c.keep_buffer)?;
    bool_option(lua, table, config, "decode_invalid_numbers", |c| &mut c.decode_invalid)?;
    let own = Rc::clone(config);
    let invalid = move |lua: &Lua, args: MultiValue| {
        check_count(lua, &args, "encode_invalid_numbers", 1)?;
        let mut config = own.borrow_mut();
        match args.front() {
            None | Some(Value::Nil) => {}
            Some(Value::String(text)) => {
                config.encode_invalid = match &*text.as_bytes() {
                    b"off" => Invalid::Refused,
                    b"on" => Invalid::Written,
                    b"null" => Invalid::Null,
                    other => {
                        let text = format!("invalid option '{}'", String::from_utf8_lossy(other));
                        return Err(bad_argument(lua, 1, "encode_invalid_numbers", &text));
                    }
                };
            }
            Some(_) => {
                let on = boolean(lua, &args, 1, "encode_invalid_numbers")?;
                config.encode_invalid = if on == Some(true) { Invalid::Written } else { Invalid::Refused };
            }
        }
        Ok(match config.encode_invalid {
            Invalid::Refused => Value::Boolean(false),
            Invalid::Written => Value::Boolean(true),
            Invalid::Null => Value::String(lua.create_string("null")?),
        })
    };
    table.raw_set("encode_invalid_numbers", lua.create_function(invalid)?)
}

fn number_option(
    lua: &Lua,
    table: &Table,
    config: &Shared,
    name: &'static str,
    range: (i64, i64),
    field: fn(&mut Config) -> &mut i64,
) -> mlua::Result<()> {
    let own = Rc::clone(config);
    let run = move |lua: &Lua, args: MultiValue| {
        check_count(lua, &args, name, 1)?;
        let mut config = own.borrow_mut();
        if let Some(value) = integer(lua, &args, 1, name, range)? {
            *field(&mut config) = value;
        }
        Ok(*field(&mut config))
    };
    table.raw_set(name, lua.create_function(run)?)
}

fn bool_option(
    lua: &Lua,
    table: &Table,
    config: &Shared,
    name: &'static str,
    field: fn(&mut Config) -> &mut bool,
) -> mlua::Result<()> {
    let own = Rc::clone(config);
    let run = move |lua: &Lua, args: MultiValue| {
        check_count(lua, &args, name, 1)?;
        let mut config = own.borrow_mut();
        if let Some(value) = boolean(lua, &args, 1, name)? {
            *field(&mut config) = value;
        }
        Ok(*field(&mut config))
    };
    table.raw_set(name, lua.create_function(run)?)
}

fn check_count(lua: &Lua, args: &MultiValue, function: &str, max: usize) -> mlua::Result<()> {
    if args.len() <= max {
        return Ok(());
    }
    Err(bad_argument(lua, max + 1, function, "found too many arguments"))
}

fn integer(
    lua: &Lua,
    args: &MultiValue,
    at: usize,
    function: &str,
    (min, max): (i64, i64),
) -> mlua::Result<Option<i64>> {
    if matches!(args.get(at - 1), None | Some(Value::Nil)) {
        return Ok(None);
    }
    let value = numbers::number(lua, args.get(at - 1), at, function)? as i64;
    if (min..=max).contains(&value) {
        return Ok(Some(value));
    }
    Err(bad_argument(lua, at, function, &format!("expected integer between {min} and {max}")))
}

fn boolean(lua: &Lua, args: &MultiValue, at: usize, function: &str) -> mlua::Result<Option<bool>> {
    match args.get(at - 1) {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Boolean(value)) => Ok(Some(*value)),
        Some(Value::String(text)) if *text.as_bytes() == *b"on" => Ok(Some(true)),
        Some(Value::String(text)) if *text.as_bytes() == *b"off" => Ok(Some(false)),
        Some(Value::String(text)) => {
            let text = format!("invalid option '{}'", text.to_string_lossy());
            Err(bad_argument(lua, at, function, &text))
        }
        other => {
            let got = crate::raised::type_name(other);
            Err(bad_argument(lua, at, function, &format!("string expected, got {got}")))
        }
    }
}

/// A table of which some is written.
enum Open {
    Array {
        table: Table,
        len: i64,
        next: i64,
    },
    /// With the key that was written last.
    Object {
        table: Table,
        key: Value,
        first: bool,
    },
}

struct Encoder<'a> {
    lua: &'a Lua,
    config: &'a Config,
    out: Vec<u8>,
}

fn encode(lua: &Lua, config: &Config, next: &Function, args: &MultiValue) -> mlua::Result<mlua::LuaString> {
    if args.len() != 1 {
        return Err(bad_argument(lua, 1, "encode", "expected 1 argument"));
    }
    let mut encoder = Encoder { lua, config, out: Vec::new() };
    let mut open: Vec<Open> = Vec::new();
    let mut value = Some(args[0].clone());
    loop {
        if let Some(value) = value.take()
            && let Some(table) = encoder.scalar(value)?
        {
            let depth = open.len() + 1;
            if encoder.config.encode_depth_max < depth as i64 || DEPTH_MAX < depth {
                return Err(error(lua, format!("Cannot serialise, excessive nesting ({depth})")));
            }
            open.push(encoder.begin(table)?);
        }
        match open.last_mut() {
            None => return lua.create_string(&encoder.out),
            Some(innermost) => value = encoder.step(innermost, next)?,
        }
        if value.is_none() {
            open.pop();
        }
    }
}

impl Encoder<'_> {
    fn refused(&self, value: &Value, why: &str) -> mlua::Error {
        let kind = crate::raised::type_name(Some(value));
        error(self.lua, format!("Cannot serialise {kind}: {why}"))
    }

    /// Writes a value, unless it is a table.
    fn scalar(&mut self, value: Value) -> mlua::Result<Option<Table>> {
        match value {
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Integer(number) => self.number(number as f64)?,
            Value::Number(number) => self.number(number)?,
            Value::Boolean(value) => {
                self.out.extend_from_slice(if value { b"true" } else { b"false" });
            }
            Value::Table(table) => return Ok(Some(table)),
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => self.out.extend_from_slice(b"null"),
            other => return Err(self.refused(&other, "type not supported")),
        }
        Ok(None)
    }

    fn number(&mut self, number: f64) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.config.encode_invalid {
                Invalid::Refused => {
                    return Err(self.refused(&Value::Number(number), "must not be NaN or Inf"));
                }
                Invalid::Null => {
                    self.out.extend_from_slice(b"null");
                    return Ok(());
                }
                Invalid::Written => {}
            }
        }
        let text = numbers::general(number, self.config.precision as usize);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for &byte in text {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'/' => self.out.extend_from_slice(b"\\/"),
                8 => self.out.extend_from_slice(b"\\b"),
                9 => self.out.extend_from_slice(b"\\t"),
                10 => self.out.extend_from_slice(b"\\n"),
                12 => self.out.extend_from_slice(b"\\f"),
                13 => self.out.extend_from_slice(b"\\r"),
                0..32 | 127 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }

    fn begin(&mut self, table: Table) -> mlua::Result<Open> {
        match self.array_len(&table)? {
            Some(len) if 0 < len => {
                self.out.push(b'[');
                Ok(Open::Array { table, len, next: 1 })
            }
            Some(_) | None => {
                self.out.push(b'{');
                Ok(Open::Object { table, key: Value::Nil, first: true })
            }
        }
    }

    /// The greatest key of a table that is an array; `None`: it is an object.
    fn array_len(&self, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut max, mut items) = (0i64, 0i64);
        for pair in table.pairs::<Value, Value>() {
            match pair?.0 {
                Value::Integer(key) if 0 < key => {
                    max = max.max(key);
                    items += 1;
                }
                _ => return Ok(None),
            }
        }
        let Config { sparse_convert, sparse_ratio, sparse_safe, .. } = *self.config;
        let is_sparse = 0 < sparse_ratio && items.saturating_mul(sparse_ratio) < max && sparse_safe < max;
        if !is_sparse {
            return Ok(Some(max));
        }
        if sparse_convert {
            return Ok(None);
        }
        Err(error(self.lua, "Cannot serialise table: excessively sparse array"))
    }

    /// Writes what comes before the next value; `None`: the table is at its end.
    fn step(&mut self, open: &mut Open, iterate: &Function) -> mlua::Result<Option<Value>> {
        match open {
            Open::Array { len, next, .. } if *len < *next => {
                self.out.push(b']');
                Ok(None)
            }
            Open::Array { table, next, .. } => {
                if 1 < *next {
                    self.out.push(b',');
                }
                let value = table.raw_get(*next)?;
                *next += 1;
                Ok(Some(value))
            }
            Open::Object { table, key, first } => {
                let last = std::mem::replace(key, Value::Nil);
                let (next, value): (Value, Value) = iterate.call((&*table, last))?;
                if next.is_nil() {
                    self.out.push(b'}');
                    return Ok(None);
                }
                if !std::mem::take(first) {
                    self.out.push(b',');
                }
                self.key(&next)?;
                *key = next;
                Ok(Some(value))
            }
        }
    }

    fn key(&mut self, key: &Value) -> mlua::Result<()> {
        match key {
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Integer(_) | Value::Number(_) => {
                self.out.push(b'"');
                let number =
                    if let Value::Integer(n) = key { *n as f64 } else { key.as_f64().unwrap_or(0.0) };
                self.number(number)?;
                self.out.push(b'"');
            }
            other => return Err(self.refused(other, "table key must be a number or string")),
        }
        self.out.push(b':');
        Ok(())
    }
}

/// What a text is made of.
#[derive(Debug, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Text(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(what) => what,
        }
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    /// Where the last token began, or what was wrong with it.
    begin: usize,
    invalid_numbers: bool,
}

/// A table that is being read.
enum Reading {
    Array(Table, i64),
    Object(Table, Vec<u8>),
}

fn decode(lua: &Lua, config: &Config, args: &MultiValue) -> mlua::Result<Value> {
    if args.len() != 1 {
        return Err(bad_argument(lua, 1, "decode", "expected 1 argument"));
    }
    let text = numbers::text(lua, args.front(), 1, "decode")?;
    if matches!(text.as_slice(), [0, _, ..] | [_, 0, ..]) {
        return Err(error(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder { lua, text: &text, at: 0, begin: 0, invalid_numbers: config.decode_invalid };
    let depth_max = usize::try_from(config.decode_depth_max).unwrap_or(usize::MAX).min(DEPTH_MAX);
    decoder.document(depth_max)
}

impl Decoder<'_> {
    fn unexpected(&self, expected: &str, found: &Token) -> mlua::Error {
        let text = format!("Expected {expected} but found {} at character {}", found.name(), self.begin + 1);
        error(self.lua, text)
    }

    fn document(&mut self, depth_max: usize) -> mlua::Result<Value> {
        let mut open: Vec<Reading> = Vec::new();
        let mut token = self.token();
        loop {
            let mut value = match token {
                Token::Text(text) => Value::String(self.lua.create_string(text)?),
                Token::Number(number) => Value::Number(number),
                Token::Boolean(value) => Value::Boolean(value),
                Token::Null => Value::LightUserData(LightUserData(std::ptr::null_mut())),
                Token::ObjectBegin | Token::ArrayBegin => {
                    if depth_max <= open.len() {
                        let (depth, at) = (open.len() + 1, self.at);
                        let text =
                            format!("Found too many nested data structures ({depth}) at character {at}");
                        return Err(error(self.lua, text));
                    }
                    let table = self.lua.create_table()?;
                    let is_array = token == Token::ArrayBegin;
                    token = self.token();
                    match (is_array, &token) {
                        (true, Token::ArrayEnd) | (false, Token::ObjectEnd) => Value::Table(table),
                        (true, _) => {
                            open.push(Reading::Array(table, 1));
                            continue;
                        }
                        (false, _) => {
                            let key = self.key(token)?;
                            open.push(Reading::Object(table, key));
                            token = self.token();
                            continue;
                        }
                    }
                }
                other => return Err(self.unexpected("value", &other)),
            };
            // Puts the value where it belongs, and closes what ends behind it.
            loop {
                let Some(innermost) = open.last_mut() else {
                    let end = self.token();
                    return if end == Token::End { Ok(value) } else { Err(self.unexpected("the end", &end)) };
                };
                let behind = match innermost {
                    Reading::Array(table, next) => {
                        table.raw_set(*next, value)?;
                        *next += 1;
                        self.token()
                    }
                    Reading::Object(table, key) => {
                        table.raw_set(self.lua.create_string(&*key)?, value)?;
                        self.token()
                    }
                };
                match (innermost, behind) {
                    (Reading::Array(table, _), Token::ArrayEnd)
                    | (Reading::Object(table, _), Token::ObjectEnd) => {
                        value = Value::Table(table.clone());
                        open.pop();
                    }
                    (Reading::Array(..), Token::Comma) => break,
                    (Reading::Object(_, key), Token::Comma) => {
                        let next = self.token();
                        *key = self.key(next)?;
                        break;
                    }
                    (Reading::Array(..), other) => {
                        return Err(self.unexpected("comma or array end", &other));
                    }
                    (Reading::Object(..), other) => {
                        return Err(self.unexpected("comma or object end", &other));
                    }
                }
            }
            token = self.token();
        }
    }

    /// A key that has begun with this token, and the colon behind it.
    fn key(&mut self, token: Token) -> mlua::Result<Vec<u8>> {
        let Token::Text(key) = token else { return Err(self.unexpected("object key string", &token)) };
        let colon = self.token();
        if colon == Token::Colon { Ok(key) } else { Err(self.unexpected("colon", &colon)) }
    }

    fn token(&mut self) -> Token {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.begin = self.at;
        let Some(&byte) = self.text.get(self.at).filter(|byte| **byte != 0) else { return Token::End };
        let single = match byte {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => {
                let refused = !self.invalid_numbers && self.is_invalid_number();
                return if refused { Token::Error("invalid number") } else { self.number() };
            }
            _ => return self.word(),
        };
        self.at += 1;
        single
    }

    fn word(&mut self) -> Token {
        let rest = &self.text[self.at..];
        for (word, token) in [
            (b"true".as_slice(), Token::Boolean(true)),
            (b"false", Token::Boolean(false)),
            (b"null", Token::Null),
        ] {
            if rest.starts_with(word) {
                self.at += word.len();
                return token;
            }
        }
        let may_be_number = matches!(rest.first(), Some(b'+' | b'i' | b'I' | b'n' | b'N'));
        if may_be_number && self.invalid_numbers && self.is_invalid_number() {
            return self.number();
        }
        Token::Error("invalid token")
    }

    fn is_invalid_number(&self) -> bool {
        let rest = &self.text[self.at..];
        if rest.first() == Some(&b'+') {
            return true;
        }
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        match rest {
            [b'0', b'x' | b'X' | b'0'..=b'9', ..] => true,
            [byte, ..] if *byte <= b'9' => false,
            [a, b, c, ..] => {
                let word = [a, b, c].map(u8::to_ascii_lowercase);
                word == *b"inf" || word == *b"nan"
            }
            _ => false,
        }
    }

    fn number(&mut self) -> Token {
        match numbers::read(&self.text[self.at..]) {
            Some((value, len)) => {
                self.at += len;
                Token::Number(value)
            }
            None => Token::Error("invalid number"),
        }
    }

    fn wrong(&mut self, what: &'static str) -> Token {
        self.begin = self.at;
        Token::Error(what)
    }

    fn string(&mut self) -> Token {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let Some(&byte) = self.text.get(self.at) else { return self.wrong("unexpected end of string") };
            match byte {
                0 => return self.wrong("unexpected end of string"),
                b'"' => break,
                b'\\' => {
                    let plain = match self.text.get(self.at + 1) {
                        Some(b'u') => match self.unicode_escape(&mut text) {
                            Some(()) => continue,
                            None => return self.wrong("invalid unicode escape code"),
                        },
                        Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
                        Some(b'b') => 8,
                        Some(b'f') => 12,
                        Some(b'n') => 10,
                        Some(b'r') => 13,
                        Some(b't') => 9,
                        Some(_) | None => return self.wrong("invalid escape code"),
                    };
                    text.push(plain);
                    self.at += 2;
                }
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Token::Text(text)
    }

    /// Four digits behind `\u`.
    fn code_unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |value, byte| Some(value * 16 + (*byte as char).to_digit(16)?))
    }

    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let (mut code, mut len) = (self.code_unit(self.at)?, 6);
        if (0xD800..0xE000).contains(&code) {
            // Of a pair the first half comes first, and the second must follow.
            let low = (code < 0xDC00).then(|| self.code_unit(self.at + 6))??;
            if !(0xDC00..0xE000).contains(&low) {
                return None;
            }
            code = 0x1_0000 + ((code & 0x3FF) << 10) + (low & 0x3FF);
            len = 12;
        }
        let char = char::from_u32(code)?;
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += len;
        Some(())
    }
}
