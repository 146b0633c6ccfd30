//! A map from fields to values: a listpack of fields and values in turn, in the order of their creation; beyond the
//! limits, or once a field expires, a table. A table stays one, as in Valkey.
//!
//! Fields may have a time at which they expire (`volatile`). Until the primary removes one whose time has passed it is
//! still there: it counts, but nobody sees it. What is seen depends on who looks and when, so a view has the moment
//! before which times have passed for it (`since`); one that comes from an entry alone sees everything.

mod collection;
mod field;
mod keys;
pub(crate) mod rdb;
#[cfg(test)]
mod tests;
pub(crate) mod volatile;

use either::Either;

use super::buffer::Buffer;
use super::listpack::{self, ListpackRef};
use super::{Element, fits_compact, random};
use crate::entry::{Compact, Entry, Value};
use crate::keys::Expiry;
use crate::table::{ScanPosition, Table, hash_of};
pub use field::Field;
pub use volatile::VolatileTable;

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

/// The fields of a large hash.
pub type FieldTable = Table<Field>;

/// A moment before which no time has passed: everything is seen.
pub(crate) const ALWAYS: i64 = i64::MIN;

/// What a hash had of a field before it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Absent,
    /// One whose time had passed.
    Expired,
    Present,
}

/// A hash for reading.
#[derive(Debug, Clone, Copy)]
pub enum HashRef<'a> {
    /// Fields and values in turn.
    Listpack(ListpackRef<'a>),
    Table(&'a FieldTable),
    Volatile(&'a VolatileTable, Since),
}

/// Fields with a time before this, in milliseconds since the Unix epoch, are not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(pub(crate) i64);

impl<'a> HashRef<'a> {
    /// The same hash as it is seen at another moment.
    #[must_use]
    pub(crate) fn seen(self, since: i64) -> Self {
        match self {
            HashRef::Volatile(table, _) => HashRef::Volatile(table, Since(since)),
            HashRef::Listpack(_) | HashRef::Table(_) => self,
        }
    }

    /// The table of a large hash, and since when it is seen.
    #[inline]
    fn table(self) -> Either<ListpackRef<'a>, (&'a FieldTable, i64)> {
        match self {
            HashRef::Listpack(list) => Either::Left(list),
            HashRef::Table(table) => Either::Right((table, ALWAYS)),
            HashRef::Volatile(volatile, Since(since)) => Either::Right((volatile.fields(), since)),
        }
    }

    /// How many fields it has, those that have expired and are still there included.
    #[inline]
    pub fn len(self) -> usize {
        match self.table() {
            Either::Left(list) => list.len() / 2,
            Either::Right((table, _)) => table.len(),
        }
    }

    /// How many fields are seen.
    pub fn live_len(self) -> usize {
        self.len() - self.hidden_len()
    }

    /// How many fields have expired and are still there.
    pub fn hidden_len(self) -> usize {
        match self {
            HashRef::Volatile(volatile, Since(since)) => volatile.due_len(since),
            HashRef::Listpack(_) | HashRef::Table(_) => 0,
        }
    }

    /// Whether it has no field, not even one that has expired.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is in its compact form.
    pub fn is_compact(self) -> bool {
        matches!(self, HashRef::Listpack(_))
    }

    pub fn iter(self) -> impl Iterator<Item = Pair<'a>> + 'a {
        match self.table() {
            Either::Left(list) => Either::Left(pairs(list)),
            Either::Right((table, since)) => {
                Either::Right(table.iter().filter(move |field| field.is_live(since)).map(Field::pair))
            }
        }
    }

    #[inline]
    pub fn get(self, name: &[u8]) -> Option<Element<'a>> {
        match self.table() {
            Either::Left(list) => {
                let (_, at) = list.find(name, 2)?;
                Some(list.element_at(list.next(at)))
            }
            Either::Right((table, since)) => {
                table.get(hash_of(name), name).filter(|field| field.is_live(since)).map(|f| f.value().into())
            }
        }
    }

    pub fn contains(self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// When a field expires, in milliseconds since the Unix epoch, if it has a time; `None`: there is no such field.
    pub fn expire_at(self, name: &[u8]) -> Option<Option<i64>> {
        match self {
            HashRef::Volatile(volatile, Since(since)) => {
                let field = volatile.fields().get(hash_of(name), name)?;
                field.is_live(since).then(|| field.expire_at())
            }
            HashRef::Listpack(_) | HashRef::Table(_) => self.contains(name).then_some(None),
        }
    }

    /// A random field with its value.
    pub fn random(self, mut random: impl FnMut() -> u64) -> Option<Pair<'a>> {
        const DRAWN: usize = 100;
        match self.table() {
            Either::Left(list) if list.is_empty() => None,
            Either::Left(list) => {
                let at = list.offset(2 * random::below(self.len(), random()));
                Some((list.element_at(at), list.element_at(list.next(at))))
            }
            Either::Right((table, since)) => {
                let drawn = (0..DRAWN).find_map(|_| table.random(&mut random).filter(|f| f.is_live(since)));
                // Most have expired: one of the others.
                let other = || self.iter().nth(random::below(self.live_len().max(1), random()));
                drawn.map(Field::pair).or_else(other)
            }
        }
    }

    /// `count` different random fields, or all if there are fewer.
    pub fn sample(self, count: usize, random: impl FnMut() -> u64) -> Vec<Pair<'a>> {
        match self.table() {
            Either::Right((table, _)) if self.hidden_len() == 0 => {
                random::sample(table, count, random).into_iter().map(Field::pair).collect()
            }
            Either::Left(_) | Either::Right(_) => random::sample_of(self.iter().collect(), count, random),
        }
    }

    /// `count` random fields, each chosen independently.
    pub fn repeated(
        self,
        count: usize,
        random: impl FnMut() -> u64 + 'a,
    ) -> impl Iterator<Item = Pair<'a>> + 'a {
        match self.table() {
            Either::Right((table, _)) if self.hidden_len() == 0 => {
                Either::Right(random::repeated(table, count, random).map(Field::pair))
            }
            Either::Left(_) | Either::Right(_) => {
                Either::Left(random::repeated_of(self.iter().collect(), count, random))
            }
        }
    }

    /// Visits some fields from `position` on, and adds how many were looked at to `visited`; returns where to go on,
    /// `None` at the end. A compact hash is one step.
    pub fn scan(
        self,
        position: ScanPosition,
        visited: &mut usize,
        visit: &mut dyn FnMut(Pair<'a>),
    ) -> Option<ScanPosition> {
        match self.table() {
            Either::Left(list) => {
                *visited += self.len();
                pairs(list).for_each(visit);
                None
            }
            Either::Right((table, since)) => table.scan(position, &mut |field| {
                *visited += 1;
                if field.is_live(since) {
                    visit(field.pair());
                }
            }),
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
    since: i64,
}

impl<'a> HashMut<'a> {
    /// The entry holds a hash, of which everything is seen.
    pub(crate) fn new(entry: &'a mut Entry, limits: HashLimits) -> Self {
        HashMut::seen(entry, limits, ALWAYS)
    }

    /// As [`HashMut::new`], seen at a moment.
    pub(crate) fn seen(entry: &'a mut Entry, limits: HashLimits, since: i64) -> Self {
        HashMut { entry, limits, since }
    }

    pub fn as_ref(&self) -> HashRef<'_> {
        match self.entry.value() {
            crate::entry::ValueRef::Hash(hash) => hash.seen(self.since),
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

    /// Sets a field, which has no time then. Whether it is new.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.put(name, value, Expiry::None) != Before::Present
    }

    /// Sets a field and its time. With a time the hash becomes volatile: see [`crate::keys::Keys::volatile_hash_mut`].
    pub fn put(&mut self, name: &[u8], value: &[u8], expiry: Expiry) -> Before {
        if matches!(expiry, Expiry::At(_)) {
            let since = self.since;
            return self.volatile().put(name, value, expiry, since);
        }
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
            return if found.is_none() { Before::Absent } else { Before::Present };
        }
        if let Some(volatile) = self.entry.boxed_mut::<VolatileTable>() {
            return volatile.put(name, value, expiry, self.since);
        }
        let (hash, table) = (hash_of(name), self.table());
        if let Some(field) = table.get_mut(hash, name) {
            *field = Field::new(name, value, None);
            return Before::Present;
        }
        table.insert_new(hash, Field::new(name, value, None));
        Before::Absent
    }

    /// Gives a field that is there another time, or none. With a time the hash becomes volatile: see
    /// [`crate::keys::Keys::volatile_hash_mut`].
    pub fn set_time(&mut self, name: &[u8], expire_at: Option<i64>) {
        if expire_at.is_some() || self.entry.boxed::<VolatileTable>().is_some() {
            self.volatile().set_time(name, expire_at);
        }
    }

    /// Removes a field unless it has expired; returns its value.
    pub fn remove(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        if self.contains(name) { self.remove_stored(name) } else { None }
    }

    /// Removes a field, expired or not; returns its value.
    pub fn remove_stored(&mut self, name: &[u8]) -> Option<Box<[u8]>> {
        if let Some(mut tail) = self.entry.compact_mut(Compact::Hash) {
            let list = ListpackRef::trusted(tail.bytes());
            let (_, at) = list.find(name, 2)?;
            let value = list.element_at(list.next(at)).into();
            listpack::remove(&mut tail, at, 2);
            return Some(value);
        }
        let removed = match self.entry.boxed_mut::<VolatileTable>() {
            Some(volatile) => volatile.remove(name),
            None => self.table().remove(hash_of(name), name),
        };
        removed.map(|field| field.value().into())
    }

    /// Removes fields whose time has passed, the earliest first, at most `count`; returns their names.
    pub(crate) fn remove_due(&mut self, count: usize) -> Vec<Box<[u8]>> {
        let since = self.since;
        let Some(volatile) = self.entry.boxed_mut::<VolatileTable>() else { return Vec::new() };
        let due = volatile.due(since, count);
        due.iter().for_each(|name| drop(volatile.remove(name)));
        due
    }

    /// The table; a listpack is converted. It is not volatile.
    fn table(&mut self) -> &mut FieldTable {
        if let HashRef::Listpack(list) = self.as_ref() {
            let mut table = FieldTable::with_own_order();
            for (name, value) in pairs(list) {
                table.insert_new(hash_of(&name), Field::new(&name, &value, None));
            }
            self.entry.set_boxed(Box::new(table));
        }
        self.entry.boxed_mut().expect("it is a table")
    }

    /// The table with the times of its fields; another form is converted.
    fn volatile(&mut self) -> &mut VolatileTable {
        if self.entry.boxed::<VolatileTable>().is_none() {
            let table = std::mem::take(self.table());
            self.entry.set_boxed(Box::new(VolatileTable::from(table)));
        }
        self.entry.boxed_mut().expect("it is volatile")
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

    /// As [`Hash::set`], with a time.
    pub fn set_until(&mut self, name: &[u8], value: &[u8], expire_at: i64) -> bool {
        self.as_mut().put(name, value, Expiry::At(expire_at)) == Before::Absent
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
