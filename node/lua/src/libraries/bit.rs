//! `bit`: operations on 32 bits.

use mlua::{Lua, MultiValue, Table};

use super::numbers::number;

/// A number's lowest 32 bits, rounded to an integer as the processor does it.
fn bits(lua: &Lua, args: &MultiValue, at: usize, function: &str) -> mlua::Result<u32> {
    let value = number(lua, args.get(at - 1), at, function)?;
    Ok(wrapped(value))
}

fn wrapped(value: f64) -> u32 {
    // Added to this number, a whole one has its lowest bits where the sum has its own.
    const SHIFTER: f64 = 6_755_399_441_055_744.0;
    (value + SHIFTER).to_bits() as u32
}

/// Bits are shown as a signed number.
fn shown(bits: u32) -> f64 {
    f64::from(bits.cast_signed())
}

pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    one(lua, &table, "tobit", |x| x)?;
    one(lua, &table, "bnot", |x| !x)?;
    one(lua, &table, "bswap", u32::swap_bytes)?;
    all(lua, &table, "band", |a, b| a & b)?;
    all(lua, &table, "bor", |a, b| a | b)?;
    all(lua, &table, "bxor", |a, b| a ^ b)?;
    shift(lua, &table, "lshift", |x, n| x << n)?;
    shift(lua, &table, "rshift", |x, n| x >> n)?;
    shift(lua, &table, "arshift", |x, n| (x.cast_signed() >> n).cast_unsigned())?;
    shift(lua, &table, "rol", u32::rotate_left)?;
    shift(lua, &table, "ror", u32::rotate_right)?;
    table.raw_set("tohex", lua.create_function(tohex)?)?;
    Ok(table)
}

fn one(lua: &Lua, table: &Table, name: &'static str, f: fn(u32) -> u32) -> mlua::Result<()> {
    let run = move |lua: &Lua, args: MultiValue| Ok(shown(f(bits(lua, &args, 1, name)?)));
    table.raw_set(name, lua.create_function(run)?)
}

fn all(lua: &Lua, table: &Table, name: &'static str, f: fn(u32, u32) -> u32) -> mlua::Result<()> {
    let run = move |lua: &Lua, args: MultiValue| {
        let first = bits(lua, &args, 1, name)?;
        let join = |so_far, at| bits(lua, &args, at, name).map(|next| f(so_far, next));
        (2..=args.len()).try_fold(first, join).map(shown)
    };
    table.raw_set(name, lua.create_function(run)?)
}

fn shift(lua: &Lua, table: &Table, name: &'static str, f: fn(u32, u32) -> u32) -> mlua::Result<()> {
    let run = move |lua: &Lua, args: MultiValue| {
        let (x, n) = (bits(lua, &args, 1, name)?, bits(lua, &args, 2, name)?);
        Ok(shown(f(x, n & 31)))
    };
    table.raw_set(name, lua.create_function(run)?)
}

/// Up to eight digits; in upper case if the number of digits is negative.
fn tohex(lua: &Lua, args: MultiValue) -> mlua::Result<String> {
    let x = bits(lua, &args, 1, "tohex")?;
    let digits = if args.len() < 2 { 8 } else { bits(lua, &args, 2, "tohex")?.cast_signed() };
    let width = usize::try_from(digits.unsigned_abs().min(8)).unwrap_or(8);
    let text = if digits < 0 { format!("{x:08X}") } else { format!("{x:08x}") };
    Ok(text[8 - width..].to_owned())
}
