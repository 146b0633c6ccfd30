//! A set of byte strings.

use keyward_proto::resp::number::parse_i64;

use super::random;
use crate::keyspace::table::{Keyed, ScanPosition, Table, hash_of};

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

    /// Whether the member was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.0.remove(hash_of(member), member).is_some()
    }

    /// A random member.
    pub fn random(&self, random: impl FnMut() -> u64) -> Option<&[u8]> {
        self.0.random(random).map(|m| &**m)
    }

    /// Removes a random member.
    pub fn take_random(&mut self, random: impl FnMut() -> u64) -> Option<Box<[u8]>> {
        let member: Box<[u8]> = self.random(random)?.into();
        self.remove(&member);
        Some(member)
    }

    /// `count` different random members, or all if there are fewer.
    pub fn sample(&self, count: usize, random: impl FnMut() -> u64) -> Vec<&[u8]> {
        random::sample(&self.0, count, random).into_iter().map(|m| &**m).collect()
    }

    /// `count` random members, each chosen independently.
    pub fn repeated<'a>(
        &'a self,
        count: usize,
        random: impl FnMut() -> u64 + 'a,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        random::repeated(&self.0, count, random).map(|m| &**m)
    }

    /// Visits some members from `position` on; returns where to go on, `None` at the end.
    pub fn scan<'a>(
        &'a self,
        position: ScanPosition,
        visit: &mut dyn FnMut(&'a [u8]),
    ) -> Option<ScanPosition> {
        self.0.scan(position, &mut |m| visit(m))
    }

    /// Whether it has at most so many members, and none is longer than this.
    pub fn is_within(&self, len_max: usize, member_len_max: usize) -> bool {
        self.len() <= len_max && self.iter().all(|m| m.len() <= member_len_max)
    }

    /// Whether it has at most so many members, and all are integers.
    pub fn is_integers_within(&self, len_max: usize) -> bool {
        self.len() <= len_max && self.iter().all(|m| parse_i64(m).is_some())
    }
}
