//! A set of byte strings.

use crate::keyspace::table::{Keyed, Table, hash_of};

impl Keyed for Box<[u8]> {
    fn key(&self) -> &[u8] {
        self
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Set(Table<Box<[u8]>>);

impl Set {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|m| &**m)
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        self.0.get(hash_of(member), member).is_some()
    }

    /// Whether the member is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        let hash = hash_of(member);
        let new = self.0.get(hash, member).is_none();
        if new {
            self.0.insert_new(hash, member.into());
        }
        new
    }
}
