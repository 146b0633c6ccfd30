//! DEBUG DIGEST and DIGEST-VALUE: 20 bytes by which tests compare keyspaces, the same that Valkey shows.

use sha1::{Digest as _, Sha1};

use crate::entry::{Entry, ValueRef};
use crate::types::collection::Collection;

const LEN: usize = 20;
/// What is added for a key that expires, whenever that is.
const EXPIRES: &[u8] = b"!!expire!!";

/// See the module documentation. Zero: of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest([u8; LEN]);

impl Digest {
    /// Adds what has no order.
    pub fn add(&mut self, bytes: &[u8]) {
        let hash = Sha1::digest(bytes);
        self.0.iter_mut().zip(hash).for_each(|(byte, more)| *byte ^= more);
    }

    /// Adds what comes behind all that was added before.
    pub fn append(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Adds all that was added to another one, which has no order among such.
    pub fn add_digest(&mut self, other: Digest) {
        self.add(&other.0);
    }

    /// What was added to another one with [`Digest::add_digest`], as it is.
    pub fn join(&mut self, other: Digest) {
        self.0.iter_mut().zip(other.0).for_each(|(byte, more)| *byte ^= more);
    }

    /// Of an entry's value.
    pub fn of_value(entry: &Entry) -> Digest {
        let mut digest = Digest::default();
        digest.append_value(entry);
        digest
    }

    /// Of an entry with its key.
    pub fn of_entry(entry: &Entry) -> Digest {
        let mut digest = Digest::default();
        digest.append(entry.key());
        digest.append_value(entry);
        digest
    }

    fn append_value(&mut self, entry: &Entry) {
        let value = entry.value();
        self.append(&value.collection().map_or(0, Collection::type_number).to_be_bytes());
        match value {
            ValueRef::String(bytes) => self.append(bytes),
            _ => value.collection().expect("it is no string").digest(self),
        }
        if entry.expire_at().is_some() {
            self.add(EXPIRES);
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
