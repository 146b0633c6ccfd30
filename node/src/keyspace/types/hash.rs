//! A map from fields to values.

use crate::keyspace::table::{Keyed, Table, hash_of};

#[derive(Debug)]
struct Field {
    name: Box<[u8]>,
    value: Box<[u8]>,
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

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|f| (&*f.name, &*f.value))
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(hash_of(name), name).map(|f| &*f.value)
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
}
