//! How a command gets at the list of a key.

use super::{ListMut, ListRef};
use crate::entry::{Compact, ValueRef, ValueType};
use crate::keys::{Keys, WrongType};

impl Keys<'_> {
    /// The list at a key. Counted as a hit or a miss.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn list(&self, key: &[u8]) -> Result<Option<ListRef<'_>>, WrongType> {
        self.typed(key, |value| match value {
            ValueRef::List(list) => Some(list),
            _ => None,
        })
    }

    /// The list at a key, for changing it.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn list_mut(&mut self, key: &[u8]) -> Result<Option<ListMut<'_>>, WrongType> {
        let limits = self.limits.list;
        let entry = self.typed_mut(key, ValueType::List)?;
        Ok(entry.map(|entry| ListMut::new(entry, limits)))
    }

    /// As [`Keys::list_mut`]; an empty one is created. An empty one must not stay: see [`Keys::remove_if_empty`].
    ///
    /// # Errors
    /// The key holds another type.
    pub fn list_or_new(&mut self, key: &[u8]) -> Result<ListMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::List);
        Ok(self.list_mut(key)?.expect("it was just created"))
    }
}
