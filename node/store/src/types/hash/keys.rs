//! How a command gets at the hash of a key.

use super::{HashMut, HashRef};
use crate::entry::{Compact, ValueRef, ValueType};
use crate::keys::{Keys, WrongType};

impl Keys<'_> {
    /// The hash at a key. Counted as a hit or a miss.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn hash(&self, key: &[u8]) -> Result<Option<HashRef<'_>>, WrongType> {
        self.typed(key, |value| match value {
            ValueRef::Hash(hash) => Some(hash),
            _ => None,
        })
    }

    /// The hash at a key, for changing it.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn hash_mut(&mut self, key: &[u8]) -> Result<Option<HashMut<'_>>, WrongType> {
        let limits = self.limits.hash;
        let entry = self.typed_mut(key, ValueType::Hash)?;
        Ok(entry.map(|entry| HashMut::new(entry, limits)))
    }

    /// As [`Keys::hash_mut`]; an empty one is created. An empty one must not stay: see [`Keys::remove_if_empty`].
    ///
    /// # Errors
    /// The key holds another type.
    pub fn hash_or_new(&mut self, key: &[u8]) -> Result<HashMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::Hash);
        Ok(self.hash_mut(key)?.expect("it was just created"))
    }
}
