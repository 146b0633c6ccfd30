//! The bound of an interpreter's memory.
//!
//! It is there while a script runs. Where Lua cannot run out of memory, `mlua` need not protect each of its own steps
//! against that, and those are cheaper by far: so the bound is lifted for what is known to be small.

use mlua::Lua;

/// What one interpreter may hold: a script that wants more gets an error.
pub const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Sets the bound.
pub(crate) fn set(lua: &Lua) -> mlua::Result<()> {
    lua.set_memory_limit(MEMORY_BYTES_MAX).map(drop)
}

/// As long as this lives the bound is lifted.
pub(crate) struct Unlimited<'a>(&'a Lua);

impl<'a> Unlimited<'a> {
    /// For making values that take so many bytes; `None`: there might be no room for them.
    pub(crate) fn for_bytes(lua: &'a Lua, needed: usize) -> Option<Unlimited<'a>> {
        let fits =
            needed.saturating_add(lua.used_memory()) <= MEMORY_BYTES_MAX && lua.set_memory_limit(0).is_ok();
        fits.then_some(Unlimited(lua))
    }
}

impl Drop for Unlimited<'_> {
    fn drop(&mut self) {
        if set(self.0).is_err() {
            debug_assert!(false, "an interpreter of our own has a bound");
        }
    }
}
