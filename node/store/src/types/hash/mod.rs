//! A map from fields to values: a listpack of fields and values in turn, in the order of their creation; beyond the
//! limits a table. A table stays one, as in Valkey.

mod collection;
mod keys;
pub(crate) mod rdb;

use either::Either;

use super::buffer::Buffer;
use super::listpack::{self, ListpackRef};
use super::{Element, fits_compact, random};
use crate::entry::thin::ThinBytes;
use crate::entry::{Compact, Entry, Value};
use crate::table::{Keyed, ScanPosition, Table, hash_of};

/// A field's name and value.
pub type Pair<'a> = (Element<'a>, Element<'a>);

/// `hash-max-listpack-entries` and `-value`: larger hashes are tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashLimits {
    pub entries: usize,
    pub value: usize,
}

impl Default for HashLimits {
    fn default() -> Self {
        HashLimits { entries: 512, value: 64 }
    }
}

impl HashLimits {
    /// Whether a listpack of so many fields and bytes, with names and values of at most this length, may be a hash.
    pub fn allow_listpack(&self, fields: usize, longest: usize, bytes: usize) -> bool {
        fields <= self.entries && longest <= self.value && fits_compact(bytes, 0)
    }
}

/// Name and value in one allocation: length of the name (seven bits to a byte, the lowest first), name, value.
#[derive(Debug, Clone)]
pub struct Field(ThinBytes);

impl Field {
    fn new(name: &[u8], value: &[u8]) -> Self {
        let mut header = [0; 5];
        let (mut rest, mut len) = (name.len(), 0);
        while rest >= 0x80 {
            header[len] = rest as u8 | 0x80;
            rest >>= 7;
            len += 1;
        }
        header[len] = rest as u8;
        Field(ThinBytes::new([&header[..=len], name, value]))
    }

    #[inline]
    fn split(&self) -> (&[u8], &[u8]) {
        let bytes: &[u8] = &self.0;
        let (mut len, mut shift) = (0, 0);
        for (i, byte) in bytes.iter().enumerate() {
            len |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return bytes[i + 1..].split_at(len);
            }
            shift += 7;
        }
        unreachable!("a field begins with the length of its name")
    }

    pub fn pair(&self) -> Pair<'_> {
        let (name, value) = self.split();
        (name.into(), value.into())
    }
}

impl Keyed for Field {
    #[inline]
    fn key(&self) -> &[u8] {
        self.split().0
    }
}

/// The fields of a large hash.
pub type FieldTable = Table<Field>;

/// A hash for reading.
#[derive(Debug, Clone, Copy)]
pub enum HashRef<'a> {
    /// Fields and values in turn.
    Listpack(ListpackRef<'a>),
    Table(&'a FieldTable),
}

impl<'a> HashRef<'a> {
    pub fn len(self) -> usize {
        match self {
            HashRef::Listpack(list) => list.len() / 2,
            HashRef::Table(table) => table.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        match self {
            HashRef::Listpack(list) => list.is_empty(),
            HashRef::Table(table) => table.is_empty(),
        }
    }

    /// Whether it is in its compact form.
    pub fn is_compact(self) -> bool {
        matches!(self, HashRef::Listpack(_))
    }

    pub fn iter(self) -> impl Iterator<Item = Pair<'a>> + 'a {
        match self {
            HashRef::Listpack(list) => Either::Left(pairs(list)),
            HashRef::Table(table) => Either::Right(table.iter().map(Field::pair)),
        }
    }

    pub fn get(self, name: &[u8]) -> Option<Element<'a>> {
        match self {
            HashRef::Listpack(list) => {
                let (_, at) = list.find(name, 2)?;
                Some(list.element_at(list.next(at)))
            }
            HashRef::Table(table) => table.get(hash_of(name), name).map(|f| f.split().1.into()),
        }
    }

    pub fn contains(self, name: &[u8]) -> bool {
        match self {
            HashRef::Listpack(list) => list.find(name, 2).is_some(),
            HashRef::Table(table) => table.get(hash_of(name), name).is_some(),
        }
    }

    /// A random field with its value.
    pub fn random(self, mut random: impl FnMut() -> u64) -> Option<Pair<'a>> {
        match self {
            HashRef::Listpack(list) if list.is_empty() => None,
            HashRef::Listpack(list) => {
                let at = list.offset(2 * random::below(self.len(), random()));
                Some((list.element_at(at), list.element_at(list.next(at))))
            }
            HashRef::Table(table) => table.random(random).map(Field::pair),
        }
    }

    /// `count` different random fields, or all if there are fewer.
    pub fn sample(self, count: usize, random: impl FnMut() -> u64) -> Vec<Pair<'a>> {
        match self {
            HashRef::Listpack(list) => random::sample_of(pairs(list).collect(), count, random),
            HashRef::Table(table) => {
                random::sample(table, count, random).into_iter().map(Field::pair).collect()
            }
        }
    }

    /// `count` random fields, each chosen independently.
    pub fn repeated(
        self,
        count: usize,
        random: impl FnMut() -> u64 + 'a,
    ) -> impl Iterator<Item = Pair<'a>> + 'a {
        match self {
            HashRef::Listpack(list) => {
                Either::Left(random::repeated_of(pairs(list).collect(), count, random))
            }
            HashRef::Table(table) => Either::Right(random::repeated(table, count, random).map(Field::pair)),
        }
    }

    /// Visits some fields from `position` on; returns where to go on, `None` at the end. A compact hash is one step.
    pub fn scan(self, position: ScanPosition, visit: &mut dyn FnMut(Pair<'a>)) -> Option<ScanPosition> {
        match self {
            HashRef::Listpack(list) => {
                pairs(list).for_each(visit);
                None
            }
            HashRef::Table(table) => table.scan(position, &mut |f| visit(f.pair())),
        }
    }
}

fn pairs<'a>(list: ListpackRef<'a>) -> impl Iterator<Item = Pair<'a>> + 'a {
    let mut elements = list.iter();
    std::iter::from_fn(move || Some((elements.next()?, elements.next()?)))
}

/// A hash for changing it.
#[derive(Debug)]
pub struct HashMut<'a> {
    entry: &'a mut Entry,
    limits: HashLimits,
}

impl<'a> HashMut<'a> {
    /// The entry holds a hash.
    pub(crate) fn new(entry: &'a mut Entry, limits: HashLimits) -> Self {
        HashMut { entry, limits }
    }

    pub fn as_ref(&self) -> HashRef<'_> {
        match self.entry.value() {
            crate::entry::ValueRef::Hash(hash) => hash,
            other => unreachable!("a hash is expected, not {other:?}"),
        }
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    pub fn get(&self, name: &[u8]) -> Option<Element<'_>> {
        self.as_ref().get(name)
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.as_ref().contains(name)
    }

    /// Makes it a table if that is what a hash with these fields and values in turn needs, about to be set all at
    /// once.
    pub fn prepare<'b>(&mut self, elements: impl Iterator<Item = &'b [u8]>) {
        let (mut count, mut longest, mut sum) = (0, 0, 0);
        for element in elements {
            count += 1;
            longest = element.len().max(longest);
            sum += element.len();
        }
        let Some(tail) = self.entry.compact_mut(Compact::Hash) else { return };
        let fits = fits_compact(tail.bytes().len(), sum);
        if self.limits.entries < count / 2 || self.limits.value < longest || !fits {
            self.table();
        }
    }

    /// Whether the field is new.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        if let Some(mut tail) = self.entry.compact_mut(Compact::Hash)
            && name.len().max(value.len()) <= self.limits.value
            && fits_compact(tail.bytes().len(), name.len() + value.len())
        {
            let list = ListpackRef::trusted(tail.bytes());
            let (end, len) = (list.end(), list.len() / 2);
            let found = list.find(name, 2).map(|(_, at)| list.next(at));
            match found {
                Some(at) => listpack::replace(&mut tail, at, value),
                None => listpack::insert(&mut tail, end, [name, value]),
            }
            // The limit may have been lowered, so it is looked at also where no field is new.
            if self.limits.entries < len + usize::from(found.is_none()) {
                self.table();
            }
            return found.is_none();
        }
        let (hash, table) = (hash_of(name), self.table());
        if let Some(field) = table.get_mut(hash, name) {
            *field = Field::new(name, value);
            return false;
        }
        table.insert_new(hash, Field::new(name, value));
        true
    }

    /// Removes a field; returns its value.
    pub fn remove(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        if let Some(mut tail) = self.entry.compact_mut(Compact::Hash) {
            let list = ListpackRef::trusted(tail.bytes());
            let (_, at) = list.find(name, 2)?;
            let value = list.element_at(list.next(at)).into();
            listpack::remove(&mut tail, at, 2);
            return Some(value);
        }
        self.table().remove(hash_of(name), name).map(|f| f.split().1.into())
    }

    /// The table; a listpack is converted.
    fn table(&mut self) -> &mut FieldTable {
        if let HashRef::Listpack(list) = self.as_ref() {
            let mut table = FieldTable::with_own_order();
            for (name, value) in pairs(list) {
                table.insert_new(hash_of(&name), Field::new(&name, &value));
            }
            self.entry.set_boxed(Box::new(table));
        }
        self.entry.boxed_mut().expect("it is a table")
    }
}

/// A hash that has no key yet.
#[derive(Debug)]
pub struct Hash {
    value: Value,
    limits: HashLimits,
}

impl Default for Hash {
    fn default() -> Self {
        Hash::new(HashLimits::default())
    }
}

impl Hash {
    pub fn new(limits: HashLimits) -> Self {
        Hash { value: Value::compact(Compact::Hash, &listpack::EMPTY), limits }
    }

    pub fn as_mut(&mut self) -> HashMut<'_> {
        HashMut::new(self.value.entry(), self.limits)
    }

    /// Whether the field is new.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.as_mut().set(name, value)
    }

    pub fn len(&mut self) -> usize {
        self.as_mut().len()
    }

    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }
}

impl From<Hash> for Value {
    fn from(hash: Hash) -> Self {
        hash.value
    }
}
