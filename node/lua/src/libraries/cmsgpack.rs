//! `cmsgpack`: MessagePack.

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::numbers;
use crate::REFERENCES_MAX;
use crate::raised::{bad_argument, error};

/// Tables within tables that are packed; what is deeper becomes nil.
const NESTING_MAX: usize = 16;
/// Differs from Valkey, where Lua's stack is the bound: what is nested deeper is refused as bad.
const UNPACKED_NESTING_MAX: usize = 256;
/// Values that one call returns.
const VALUES_MAX: usize = REFERENCES_MAX;

const TOO_MANY: &str =
    "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)";
const MISSING: &str = "Missing bytes in input.";
const BAD: &str = "Bad data format in input.";

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Redis Ltd.")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    table.raw_set("unpack", lua.create_function(|lua, args: MultiValue| unpack(lua, &args))?)?;
    table.raw_set("unpack_one", lua.create_function(|lua, args: MultiValue| unpack_one(lua, &args))?)?;
    table.raw_set("unpack_limit", lua.create_function(|lua, args: MultiValue| unpack_limit(lua, &args))?)?;
    Ok(table)
}

fn pack(lua: &Lua, args: MultiValue) -> mlua::Result<LuaString> {
    if args.is_empty() {
        return Err(bad_argument(lua, 0, "pack", "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in args {
        pack_value(&mut out, value, 0)?;
    }
    lua.create_string(out)
}

fn pack_value(out: &mut Vec<u8>, value: Value, depth: usize) -> mlua::Result<()> {
    match value {
        Value::String(text) => pack_string(out, &text.as_bytes()),
        Value::Boolean(value) => out.push(if value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => pack_integer(out, number),
        Value::Number(number) => pack_number(out, number),
        Value::Table(table) if depth < NESTING_MAX => pack_table(out, &table, depth)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn pack_string(out: &mut Vec<u8>, text: &[u8]) {
    let len = text.len();
    match len {
        0..32 => out.push(0xa0 | len as u8),
        32..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        0x100..=0xffff => {
            out.push(0xda);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn pack_number(out: &mut Vec<u8>, number: f64) {
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    if fits && (number as i64) as f64 == number {
        return pack_integer(out, number as i64);
    }
    let single = number as f32;
    if f64::from(single) == number {
        out.push(0xca);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn pack_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
        -32..0 => out.push(number as u8),
        -128..-32 => out.extend_from_slice(&[0xd0, number as u8]),
        -32768..-128 => {
            out.push(0xd1);
            out.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -2_147_483_648..-32768 => {
            out.push(0xd2);
            out.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// A table whose keys are 1 to n is an array.
fn array_len(table: &Table) -> mlua::Result<Option<usize>> {
    let (mut max, mut count) = (0, 0);
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(key) if 0 < key => {
                max = max.max(key);
                count += 1;
            }
            _ => return Ok(None),
        }
    }
    Ok((max == count).then_some(count as usize))
}

fn pack_table(out: &mut Vec<u8>, table: &Table, depth: usize) -> mlua::Result<()> {
    if let Some(len) = array_len(table)? {
        pack_len(out, len, (0x90, 0xdc, 0xdd));
        for i in 1..=len {
            pack_value(out, table.raw_get(i)?, depth + 1)?;
        }
        return Ok(());
    }
    pack_len(out, table.pairs::<Value, Value>().count(), (0x80, 0xde, 0xdf));
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        pack_value(out, key, depth + 1)?;
        pack_value(out, value, depth + 1)?;
    }
    Ok(())
}

fn pack_len(out: &mut Vec<u8>, len: usize, (short, middle, long): (u8, u8, u8)) {
    match len {
        0..16 => out.push(short | len as u8),
        16..=0xffff => {
            out.push(middle);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(long);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

struct Unpacker<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, len: usize) -> mlua::Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| error(self.lua, MISSING))?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of so many bytes.
    fn unsigned(&mut self, bytes: usize) -> mlua::Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: usize) -> mlua::Result<Value> {
        let shift = 64 - 8 * bytes as u32;
        let value = (self.unsigned(bytes)? << shift).cast_signed() >> shift;
        Ok(Value::Number(value as f64))
    }

    fn string(&mut self, len: usize) -> mlua::Result<Value> {
        let bytes = self.take(len)?;
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn counted_string(&mut self, bytes: usize) -> mlua::Result<Value> {
        let len = self.unsigned(bytes)? as usize;
        self.string(len)
    }

    fn counted(&mut self, bytes: usize) -> mlua::Result<usize> {
        Ok(self.unsigned(bytes)? as usize)
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        let kind = self.take(1)?[0];
        Ok(match kind {
            0..=0x7f => Value::Number(f64::from(kind)),
            0xe0..=0xff => Value::Number(f64::from(kind.cast_signed())),
            0xa0..=0xbf => self.string(usize::from(kind & 31))?,
            0x90..=0x9f => self.array(usize::from(kind & 15), depth)?,
            0x80..=0x8f => self.map(usize::from(kind & 15), depth)?,
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => {
                let bits = self.unsigned(4)? as u32;
                Value::Number(f64::from(f32::from_bits(bits)))
            }
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xcc => Value::Number(self.unsigned(1)? as f64),
            0xcd => Value::Number(self.unsigned(2)? as f64),
            0xce => Value::Number(self.unsigned(4)? as f64),
            0xcf => Value::Number(self.unsigned(8)? as f64),
            0xd0 => self.signed(1)?,
            0xd1 => self.signed(2)?,
            0xd2 => self.signed(4)?,
            0xd3 => self.signed(8)?,
            0xc4 | 0xd9 => self.counted_string(1)?,
            0xc5 | 0xda => self.counted_string(2)?,
            0xc6 | 0xdb => self.counted_string(4)?,
            0xdc => {
                let len = self.counted(2)?;
                self.array(len, depth)?
            }
            0xdd => {
                let len = self.counted(4)?;
                self.array(len, depth)?
            }
            0xde => {
                let len = self.counted(2)?;
                self.map(len, depth)?
            }
            0xdf => {
                let len = self.counted(4)?;
                self.map(len, depth)?
            }
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(error(self.lua, BAD)),
        })
    }

    fn check_depth(&self, depth: usize) -> mlua::Result<()> {
        if depth < UNPACKED_NESTING_MAX { Ok(()) } else { Err(error(self.lua, BAD)) }
    }

    fn array(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        self.check_depth(depth)?;
        let table = self.lua.create_table()?;
        for i in 1..=len {
            let value = self.value(depth + 1)?;
            table.raw_set(i, value)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: usize, depth: usize) -> mlua::Result<Value> {
        self.check_depth(depth)?;
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
            match key {
                Value::Nil => return Err(error(self.lua, "table index is nil")),
                Value::Number(number) if number.is_nan() => {
                    return Err(error(self.lua, "table index is NaN"));
                }
                key => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}

fn unpack(lua: &Lua, args: &MultiValue) -> mlua::Result<MultiValue> {
    let text = numbers::text(lua, args.front(), 1, "unpack")?;
    Ok(values(lua, &text, usize::MAX)?.0)
}

fn unpack_one(lua: &Lua, args: &MultiValue) -> mlua::Result<MultiValue> {
    let text = numbers::text(lua, args.front(), 1, "unpack_one")?;
    let offset = option(lua, args, 2, "unpack_one", 0)?;
    some_values(lua, &text, offset, 1)
}

fn unpack_limit(lua: &Lua, args: &MultiValue) -> mlua::Result<MultiValue> {
    let text = numbers::text(lua, args.front(), 1, "unpack_limit")?;
    let limit = numbers::number(lua, args.get(1), 2, "unpack_limit")? as i64 as i32;
    let offset = option(lua, args, 3, "unpack_limit", 0)?;
    some_values(lua, &text, offset, limit)
}

fn option(lua: &Lua, args: &MultiValue, at: usize, function: &str, default: i32) -> mlua::Result<i32> {
    match args.get(at - 1) {
        None | Some(Value::Nil) => Ok(default),
        value => Ok(numbers::number(lua, value, at, function)? as i64 as i32),
    }
}

/// Up to so many values, behind the offset at which the next one begins; -1 at the end.
fn some_values(lua: &Lua, text: &[u8], offset: i32, limit: i32) -> mlua::Result<MultiValue> {
    let (Ok(from), Ok(count)) = (usize::try_from(offset), usize::try_from(limit)) else {
        let text = format!("Invalid request to unpack with offset of {offset} and limit of {}.", text.len());
        return Err(error(lua, text));
    };
    if text.len() < from {
        let text = format!("Start offset {offset} greater than input length {}.", text.len());
        return Err(error(lua, text));
    }
    if from == 0 && count == 0 {
        return Ok(values(lua, text, usize::MAX)?.0);
    }
    let (mut found, rest) = values(lua, &text[from..], count)?;
    let next = if rest == 0 { -1.0 } else { (text.len() - rest) as f64 };
    found.push_front(Value::Number(next));
    Ok(found)
}

/// Up to so many values, and how many bytes are left.
fn values(lua: &Lua, text: &[u8], limit: usize) -> mlua::Result<(MultiValue, usize)> {
    let mut unpacker = Unpacker { lua, rest: text };
    let mut found = MultiValue::new();
    while !unpacker.rest.is_empty() && found.len() < limit {
        if VALUES_MAX < found.len() {
            return Err(error(lua, TOO_MANY));
        }
        found.push_back(unpacker.value(0)?);
    }
    Ok((found, unpacker.rest.len()))
}
