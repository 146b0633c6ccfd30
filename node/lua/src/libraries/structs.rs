//! `struct`: values as bytes, by a format.

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::numbers;
use crate::REFERENCES_MAX;
use crate::raised::{bad_argument, error};

const INTEGER_BYTES_MAX: usize = 32;
/// Of C on the machines that Valkey runs on.
const ALIGNMENT_MAX: usize = 16;
const VALUES_MAX: usize = 7900;

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    table.raw_set("unpack", lua.create_function(|lua, args: MultiValue| unpack(lua, &args))?)?;
    table.raw_set("size", lua.create_function(|lua, args: MultiValue| size(lua, &args))?)?;
    Ok(table)
}

/// What a letter of the format stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signed,
    Unsigned,
    Padding,
    Float,
    Double,
    /// With its length known elsewhere if that is zero.
    Chars,
    Terminated,
    /// It changes how what follows is read.
    Control,
}

/// Which byte of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    const NATIVE: Order = if cfg!(target_endian = "little") { Order::Little } else { Order::Big };
}

struct Format<'a> {
    lua: &'a Lua,
    function: &'static str,
    rest: &'a [u8],
    order: Order,
    align: usize,
}

/// A letter and what belongs to it.
struct Item {
    kind: Kind,
    size: usize,
    /// Bytes left out before it.
    padding: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, function: &'static str, text: &'a [u8]) -> Format<'a> {
        Format { lua, function, rest: text, order: Order::NATIVE, align: 1 }
    }

    /// The number that follows, if there is one.
    fn number(&mut self) -> mlua::Result<Option<usize>> {
        let len = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(len);
        self.rest = rest;
        let append = |value: usize, byte: &u8| {
            let value = value.checked_mul(10)?.checked_add(usize::from(byte - b'0'))?;
            (value <= i32::MAX as usize).then_some(value)
        };
        let value =
            digits.iter().try_fold(0, append).ok_or_else(|| error(self.lua, "integral size overflow"))?;
        Ok((0 < len).then_some(value))
    }

    fn integer_size(&mut self, default: usize) -> mlua::Result<usize> {
        let size = self.number()?.unwrap_or(default);
        if INTEGER_BYTES_MAX < size {
            let text = format!("integral size {size} is larger than limit of {INTEGER_BYTES_MAX}");
            return Err(error(self.lua, text));
        }
        Ok(size)
    }

    /// The next letter; `total`: the bytes so far, by which it is aligned.
    fn next(&mut self, total: usize) -> mlua::Result<Option<Item>> {
        let Some((&letter, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let (kind, size) = match letter {
            b'b' => (Kind::Signed, 1),
            b'B' => (Kind::Unsigned, 1),
            b'h' => (Kind::Signed, 2),
            b'H' => (Kind::Unsigned, 2),
            b'l' => (Kind::Signed, 8),
            b'L' | b'T' => (Kind::Unsigned, 8),
            b'i' => (Kind::Signed, self.integer_size(4)?),
            b'I' => (Kind::Unsigned, self.integer_size(4)?),
            b'f' => (Kind::Float, 4),
            b'd' => (Kind::Double, 8),
            b'x' => (Kind::Padding, 1),
            b'c' => (Kind::Chars, self.number()?.unwrap_or(1)),
            b's' => (Kind::Terminated, 0),
            other => {
                self.control(other)?;
                (Kind::Control, 0)
            }
        };
        let padding = match kind {
            Kind::Signed | Kind::Unsigned | Kind::Float | Kind::Double if 1 < size => {
                let align = size.min(self.align);
                (align - (total & (align - 1))) & (align - 1)
            }
            _ => 0,
        };
        Ok(Some(Item { kind, size, padding }))
    }

    fn control(&mut self, letter: u8) -> mlua::Result<()> {
        match letter {
            b' ' => {}
            b'>' => self.order = Order::Big,
            b'<' => self.order = Order::Little,
            b'!' => {
                let align = self.number()?.unwrap_or(ALIGNMENT_MAX);
                if align == 0 || !align.is_power_of_two() {
                    return Err(error(self.lua, format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            other => {
                let text = format!("invalid format option '{}'", char::from(other));
                return Err(bad_argument(self.lua, 1, self.function, &text));
            }
        }
        Ok(())
    }
}

fn pack(lua: &Lua, args: MultiValue) -> mlua::Result<LuaString> {
    let text = numbers::text(lua, args.front(), 1, "pack")?;
    let mut format = Format::new(lua, "pack", &text);
    let mut out: Vec<u8> = Vec::new();
    let mut at = 2;
    while let Some(item) = format.next(out.len())? {
        out.resize(out.len() + item.padding, 0);
        let value = Some(args.get(at - 1).unwrap_or(&Value::Nil));
        match item.kind {
            Kind::Control => continue,
            Kind::Padding => {
                out.push(0);
                continue;
            }
            Kind::Signed | Kind::Unsigned => {
                let number = numbers::number(lua, value, at, "pack")?;
                put_integer(&mut out, whole(number), item.size, format.order);
            }
            Kind::Float => {
                let number = numbers::number(lua, value, at, "pack")? as f32;
                put(&mut out, &number.to_le_bytes(), format.order);
            }
            Kind::Double => {
                let number = numbers::number(lua, value, at, "pack")?;
                put(&mut out, &number.to_le_bytes(), format.order);
            }
            Kind::Chars | Kind::Terminated => {
                let text = numbers::text(lua, value, at, "pack")?;
                let len = if item.size == 0 { text.len() } else { item.size };
                if text.len() < len {
                    return Err(bad_argument(lua, at + 1, "pack", "string too short"));
                }
                out.extend_from_slice(&text[..len]);
                if item.kind == Kind::Terminated {
                    out.push(0);
                }
            }
        }
        at += 1;
    }
    lua.create_string(out)
}

/// The bits of a number as a whole one, also of those that only fit without a sign.
fn whole(number: f64) -> u64 {
    if number < 0.0 { (number as i64).cast_unsigned() } else { number as u64 }
}

fn put(out: &mut Vec<u8>, little: &[u8], order: Order) {
    if order == Order::Little {
        out.extend_from_slice(little);
    } else {
        out.extend(little.iter().rev());
    }
}

/// Bytes beyond the eighth are zero.
fn put_integer(out: &mut Vec<u8>, value: u64, size: usize, order: Order) {
    let mut bytes = [0; INTEGER_BYTES_MAX];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    put(out, &bytes[..size], order);
}

fn size(lua: &Lua, args: &MultiValue) -> mlua::Result<f64> {
    let text = numbers::text(lua, args.front(), 1, "size")?;
    let mut format = Format::new(lua, "size", &text);
    let mut total = 0usize;
    while let Some(item) = format.next(total)? {
        let has_size = item.kind != Kind::Terminated && (item.kind != Kind::Chars || 0 < item.size);
        if !has_size {
            let letter = if item.kind == Kind::Terminated { "s" } else { "c0" };
            return Err(bad_argument(lua, 1, "size", &format!("option '{letter}' has no fixed size")));
        }
        total = total.saturating_add(item.padding).saturating_add(item.size);
    }
    Ok(total as f64)
}

fn unpack(lua: &Lua, args: &MultiValue) -> mlua::Result<MultiValue> {
    let text = numbers::text(lua, args.front(), 1, "unpack")?;
    let data = numbers::text(lua, args.get(1), 2, "unpack")?;
    let position = match args.get(2) {
        None | Some(Value::Nil) => 1.0,
        value => numbers::number(lua, value, 3, "unpack")?,
    };
    let mut at = match position as i64 {
        position @ 1.. => usize::try_from(position - 1).unwrap_or(usize::MAX),
        ..0 => usize::MAX,
        0 => return Err(bad_argument(lua, 3, "unpack", "offset must be 1 or greater")),
    };
    let mut format = Format::new(lua, "unpack", &text);
    let (mut found, mut texts) = (MultiValue::new(), 0);
    let short = || bad_argument(lua, 2, "unpack", "data string too short");
    while let Some(item) = format.next(at)? {
        at = at.checked_add(item.padding).ok_or_else(short)?;
        let rest = data.get(at..).ok_or_else(short)?;
        let bytes = rest.get(..item.size).ok_or_else(short)?;
        let is_text = matches!(item.kind, Kind::Chars | Kind::Terminated);
        texts += usize::from(is_text);
        if VALUES_MAX < found.len() || REFERENCES_MAX < texts {
            return Err(error(lua, "stack overflow (too many results)"));
        }
        at += item.size;
        let value = match item.kind {
            Kind::Control | Kind::Padding => continue,
            Kind::Signed | Kind::Unsigned => Value::Number(integer(bytes, format.order, item.kind)),
            Kind::Float => Value::Number(f64::from(f32::from_bits(unsigned(bytes, format.order) as u32))),
            Kind::Double => Value::Number(f64::from_bits(unsigned(bytes, format.order))),
            Kind::Chars if item.size == 0 => {
                let len = match found.pop_back() {
                    Some(Value::Number(len)) => len,
                    _ => return Err(error(lua, "format 'c0' needs a previous size")),
                };
                let bytes = rest.get(..len as usize).filter(|_| 0.0 <= len).ok_or_else(short)?;
                at += bytes.len();
                Value::String(lua.create_string(bytes)?)
            }
            Kind::Chars => Value::String(lua.create_string(bytes)?),
            Kind::Terminated => {
                let end = rest.iter().position(|b| *b == 0);
                let end = end.ok_or_else(|| error(lua, "unfinished string in data"))?;
                at += end + 1;
                Value::String(lua.create_string(&rest[..end])?)
            }
        };
        found.push_back(value);
    }
    found.push_back(Value::Number(at.saturating_add(1) as f64));
    Ok(found)
}

fn unsigned(bytes: &[u8], order: Order) -> u64 {
    let append = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    match order {
        Order::Little => bytes.iter().rev().fold(0, append),
        Order::Big => bytes.iter().fold(0, append),
    }
}

fn integer(bytes: &[u8], order: Order, kind: Kind) -> f64 {
    let value = unsigned(bytes, order);
    if kind == Kind::Unsigned {
        return value as f64;
    }
    let shift = 64u32.saturating_sub(8 * bytes.len() as u32);
    if 64 <= shift {
        return 0.0;
    }
    ((value << shift).cast_signed() >> shift) as f64
}
