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
        let since = self.since();
        self.typed(key, |value| match value {
            ValueRef::Hash(hash) => Some(hash.seen(since)),
            _ => None,
        })
    }

    /// A hash as it is seen now: without the fields that have expired.
    #[must_use]
    pub fn seen<'h>(&self, hash: HashRef<'h>) -> HashRef<'h> {
        hash.seen(self.since())
    }

    /// The hash at a key, for changing it, but for giving times to fields of one that has none.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn hash_mut(&mut self, key: &[u8]) -> Result<Option<HashMut<'_>>, WrongType> {
        let (limits, since) = (self.limits.hash, self.since());
        let entry = self.typed_mut(key, ValueType::Hash)?;
        Ok(entry.map(|entry| HashMut::seen(entry, limits, since)))
    }

    /// As [`Keys::hash_mut`], also for giving times to fields.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn volatile_hash_mut(&mut self, key: &[u8]) -> Result<Option<HashMut<'_>>, WrongType> {
        self.note_volatile(key);
        self.hash_mut(key)
    }

    /// As [`Keys::hash_mut`]; an empty one is created. An empty one must not stay: see [`Keys::remove_if_empty`].
    ///
    /// # Errors
    /// The key holds another type.
    pub fn hash_or_new(&mut self, key: &[u8]) -> Result<HashMut<'_>, WrongType> {
        self.create_if_missing(key, Compact::Hash);
        Ok(self.hash_mut(key)?.expect("it was just created"))
    }

    /// As [`Keys::hash_or_new`], also for giving times to fields.
    ///
    /// # Errors
    /// The key holds another type.
    pub fn volatile_hash_or_new(&mut self, key: &[u8]) -> Result<HashMut<'_>, WrongType> {
        self.note_volatile(key);
        self.hash_or_new(key)
    }
}
