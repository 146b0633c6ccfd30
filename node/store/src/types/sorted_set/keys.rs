//! How a command gets at the sorted set of a key.

use super::{SortedSetMut, SortedSetRef};
use crate::entry::{Compact, ValueRef, ValueType};
use crate::keys::{Keys, WrongType};

impl Keys<'_> {
    /// The sorted set at a key. Counted as a hit or a miss.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn sorted_set(&self, key: &[u8]) -> Result<Option<SortedSetRef<'_>>, WrongType> {
        self.typed(key, |value| match value {
            ValueRef::SortedSet(sorted_set) => Some(sorted_set),
            _ => None,
        })
    }

    /// The sorted set at a key, for changing it.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn sorted_set_mut(&mut self, key: &[u8]) -> Result<Option<SortedSetMut<'_>>, WrongType> {
        let limits = self.limits.sorted_set;
        let entry = self.typed_mut(key, ValueType::SortedSet)?;
        Ok(entry.map(|entry| SortedSetMut::new(entry, limits)))
    }

    /// As [`Keys::sorted_set_mut`]; an empty one is created. An empty one must not stay: see [`Keys::remove_if_empty`].
    ///
    /// # Errors
    /// The key holds another type.
    pub fn sorted_set_or_new(&mut self, key: &[u8]) -> Result<SortedSetMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::SortedSet);
        Ok(self.sorted_set_mut(key)?.expect("it was just created"))
    }
}
