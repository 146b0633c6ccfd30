//! `math.random`: the generator of `lrand48`, which goes on from script to script. Effects are replicated, not scripts, so
//! what a script draws need not be the same anywhere else.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use crate::raised::{bad_argument, type_name};

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const ADDEND: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
const LOW_BITS: u64 = 0x330E;
const FIRST_SEED: u32 = 0x1234_ABCD;
const MAX: i64 = i32::MAX as i64;

/// See the module documentation.
#[derive(Debug, Clone)]
pub(crate) struct Random(Rc<Cell<u64>>);

impl Random {
    /// With zero it begins as Valkey's.
    pub(crate) fn new(seed: u32) -> Random {
        let random = Random(Rc::default());
        random.seed(FIRST_SEED ^ seed);
        random
    }

    fn seed(&self, seed: u32) {
        self.0.set((u64::from(seed) << 16) | LOW_BITS);
    }

    /// 31 bits.
    fn next(&self) -> i64 {
        let state = (self.0.get().wrapping_mul(MULTIPLIER).wrapping_add(ADDEND)) & MASK;
        self.0.set(state);
        (state >> 17) as i64
    }

    fn next_fraction(&self) -> f64 {
        (self.next() % MAX) as f64 / MAX as f64
    }

    pub(crate) fn register(&self, lua: &Lua, host: &Table) -> mlua::Result<()> {
        let random = self.clone();
        host.raw_set("random", lua.create_function(move |lua, args| random.draw(lua, &args))?)?;
        let random = self.clone();
        let randomseed = move |lua: &Lua, args: MultiValue| {
            random.seed(integer(lua, &args, 1, "randomseed")? as u32);
            Ok(())
        };
        host.raw_set("randomseed", lua.create_function(randomseed)?)
    }

    fn draw(&self, lua: &Lua, args: &MultiValue) -> mlua::Result<f64> {
        let fraction = self.next_fraction();
        let (low, high) = match args.len() {
            0 => return Ok(fraction),
            1 => (1, integer(lua, args, 1, "random")?),
            2 => (integer(lua, args, 1, "random")?, integer(lua, args, 2, "random")?),
            _ => return Err(crate::raised::error(lua, "wrong number of arguments")),
        };
        if high < low {
            return Err(bad_argument(lua, args.len(), "random", "interval is empty"));
        }
        Ok((fraction * (high - low + 1) as f64).floor() + low as f64)
    }
}

/// A number as C makes an `int` of it.
fn integer(lua: &Lua, args: &MultiValue, number: usize, function: &str) -> mlua::Result<i64> {
    let value = args.get(number - 1);
    let found = match value {
        Some(Value::Integer(number)) => Some(*number as f64),
        Some(Value::Number(number)) => Some(*number),
        Some(Value::String(text)) => text.to_str().ok().and_then(|text| text.trim().parse().ok()),
        _ => None,
    };
    let found = found.ok_or_else(|| {
        let got = type_name(value);
        bad_argument(lua, number, function, &format!("number expected, got {got}"))
    })?;
    Ok(i64::from(found as i64 as i32))
}
