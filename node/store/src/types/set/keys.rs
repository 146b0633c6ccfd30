//! How a command gets at the set of a key.

use super::{SetMut, SetRef};
use crate::entry::{Compact, ValueRef, ValueType};
use crate::keys::{Keys, WrongType};

impl Keys<'_> {
    /// The set at a key. Counted as a hit or a miss.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn set(&self, key: &[u8]) -> Result<Option<SetRef<'_>>, WrongType> {
        self.typed(key, |value| match value {
            ValueRef::Set(set) => Some(set),
            _ => None,
        })
    }

    /// The set at a key, for changing it.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn set_mut(&mut self, key: &[u8]) -> Result<Option<SetMut<'_>>, WrongType> {
        let limits = self.limits.set;
        let entry = self.typed_mut(key, ValueType::Set)?;
        Ok(entry.map(|entry| SetMut::new(entry, limits)))
    }

    /// As [`Keys::set_mut`]; an empty one is created. An empty one must not stay: see [`Keys::remove_if_empty`].
    ///
    /// # Errors
    /// The key holds another type.
    pub fn set_or_new(&mut self, key: &[u8]) -> Result<SetMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::Intset);
        Ok(self.set_mut(key)?.expect("it was just created"))
    }
}
