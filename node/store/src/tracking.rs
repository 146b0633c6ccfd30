//! Which clients have read which keys, for those that keep values themselves and are told when these change
//! (<https://valkey.io/topics/client-side-caching/>).
//!
//! A slot remembers it, so reading and remembering are one step under its lock, and nobody changes a key between them. As
//! in Valkey keys of all databases are one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Numbers of clients.
pub type Readers = BTreeSet<u64>;

/// What all slots remember together.
#[derive(Debug, Default)]
pub struct TrackingCounts {
    keys: AtomicUsize,
    /// Pairs of a key and a client.
    readers: AtomicUsize,
    /// Somebody is told of changes of keys whether or not it has read them.
    broadcasts: AtomicBool,
}

impl TrackingCounts {
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// Whoever changes keys learns of it with the next key.
    pub fn set_broadcasts(&self, on: Broadcasts) {
        self.broadcasts.store(on == Broadcasts::On, Ordering::Release);
    }

    #[inline]
    pub fn broadcasts(&self) -> bool {
        self.broadcasts.load(Ordering::Acquire)
    }
}

/// See [`TrackingCounts::set_broadcasts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broadcasts {
    On,
    Off,
}

/// The keys of a slot that clients have read.
#[derive(Debug, Default)]
pub(crate) struct ReadKeys(BTreeMap<Box<[u8]>, Readers>);

impl ReadKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, key: &[u8], client: u64, counts: &TrackingCounts) {
        let readers = match self.0.get_mut(key) {
            Some(readers) => readers,
            None => {
                counts.keys.fetch_add(1, Ordering::Relaxed);
                self.0.entry(key.into()).or_default()
            }
        };
        if readers.insert(client) {
            counts.readers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Who has read a key; they have to read it again to be told again.
    pub(crate) fn take(&mut self, key: &[u8], counts: &TrackingCounts) -> Readers {
        let readers = self.0.remove(key).unwrap_or_default();
        if !readers.is_empty() {
            counts.keys.fetch_sub(1, Ordering::Relaxed);
            counts.readers.fetch_sub(readers.len(), Ordering::Relaxed);
        }
        readers
    }

    /// Any of the keys.
    pub(crate) fn take_one(&mut self, counts: &TrackingCounts) -> Option<Changed> {
        let key = self.0.keys().next()?.clone();
        let readers = self.take(&key, counts);
        Some(Changed { key, readers })
    }

    pub(crate) fn clear(&mut self, counts: &TrackingCounts) {
        while self.take_one(counts).is_some() {}
    }
}

/// A key has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub key: Box<[u8]>,
    /// Who had read it.
    pub readers: Readers,
}

/// What a command has changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    pub keys: Vec<Changed>,
    /// A database was emptied: this concerns all keys.
    pub flushed: bool,
}

impl Changes {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_told_once() {
        let (mut keys, counts) = (ReadKeys::default(), TrackingCounts::default());
        keys.add(b"a", 1, &counts);
        keys.add(b"a", 2, &counts);
        keys.add(b"a", 2, &counts);
        keys.add(b"b", 1, &counts);
        assert_eq!((counts.keys(), counts.readers()), (2, 3));
        assert_eq!(keys.take(b"a", &counts), Readers::from([1, 2]));
        assert_eq!(keys.take(b"a", &counts), Readers::new());
        assert_eq!((counts.keys(), counts.readers()), (1, 1));
        keys.clear(&counts);
        assert_eq!((counts.keys(), counts.readers(), keys.is_empty()), (0, 0, true));
    }
}
