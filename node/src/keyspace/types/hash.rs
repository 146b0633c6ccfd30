//! A map from fields to values.

use super::random;
use crate::keyspace::table::{Keyed, ScanPosition, Table, hash_of};

/// A field's name and value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

#[derive(Debug)]
struct Field {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Field {
    fn pair(&self) -> Pair<'_> {
        (&self.name, &self.value)
    }
}

impl Keyed for Field {
    fn key(&self) -> &[u8] {
        &self.name
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Hash(Table<Field>);

impl Hash {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Pair<'_>> {
        self.0.iter().map(Field::pair)
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(hash_of(name), name).map(|f| &*f.value)
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// Whether the field is new.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        let hash = hash_of(name);
        if let Some(field) = self.0.get_mut(hash, name) {
            field.value = value.into();
            return false;
        }
        self.0.insert_new(hash, Field { name: name.into(), value: value.into() });
        true
    }

    /// Removes a field; returns its value.
    pub fn remove(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        self.0.remove(hash_of(name), name).map(|f| f.value)
    }

    /// A random field with its value.
    pub fn random(&self, random: impl FnMut() -> u64) -> Option<Pair<'_>> {
        self.0.random(random).map(Field::pair)
    }

    /// `count` different random fields, or all if there are fewer.
    pub fn sample(&self, count: usize, random: impl FnMut() -> u64) -> Vec<Pair<'_>> {
        random::sample(&self.0, count, random).into_iter().map(Field::pair).collect()
    }

    /// `count` random fields, each chosen independently.
    pub fn repeated<'a>(
        &'a self,
        count: usize,
        random: impl FnMut() -> u64 + 'a,
    ) -> impl Iterator<Item = Pair<'a>> + 'a {
        random::repeated(&self.0, count, random).map(Field::pair)
    }

    /// Visits some fields from `position` on; returns where to go on, `None` at the end.
    pub fn scan<'a>(
        &'a self,
        position: ScanPosition,
        visit: &mut dyn FnMut(Pair<'a>),
    ) -> Option<ScanPosition> {
        self.0.scan(position, &mut |f| visit(f.pair()))
    }

    /// Whether it has at most so many fields, and no field or value is longer than this.
    pub fn is_within(&self, len_max: usize, element_len_max: usize) -> bool {
        self.len() <= len_max
            && self.iter().all(|(n, v)| n.len() <= element_len_max && v.len() <= element_len_max)
    }
}
