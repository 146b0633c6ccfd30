//! The libraries that scripts find beside Lua's own, and what a library of functions registers.

mod bit;
mod cjson;
mod cmsgpack;
mod numbers;
pub(crate) mod random;
mod register;
mod structs;

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Function, Lua, Table};

pub use register::Registered;
pub(crate) use register::register;

/// What scripts have set in `cjson`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configs(Rc<RefCell<cjson::Config>>);

impl Configs {
    /// Differs from Valkey: what a script sets there ends with it, as nobody could say which of the interpreters has it.
    pub(crate) fn reset(&self) {
        *self.0.borrow_mut() = cjson::Config::default();
    }
}

/// The libraries by their names. To be called before the global variables are replaced.
pub(crate) fn tables(lua: &Lua, configs: &Configs) -> mlua::Result<Table> {
    let next: Function = lua.globals().raw_get("next")?;
    let libraries = lua.create_table()?;
    libraries.raw_set("bit", bit::table(lua)?)?;
    libraries.raw_set("cjson", cjson::table(lua, &configs.0, &next)?)?;
    libraries.raw_set("cmsgpack", cmsgpack::table(lua)?)?;
    libraries.raw_set("struct", structs::table(lua)?)?;
    Ok(libraries)
}
