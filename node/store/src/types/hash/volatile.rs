//! A large hash of which fields expire: the table of all its fields, and those that have a time in the order of these.
//!
//! A field with a time is one allocation to which both point ([`super::field`]), so the order costs a pointer for each,
//! and finding what is due costs as much as is due. A table becomes such a hash, and such a hash a table, by moving the
//! table itself: no field is touched.
//!
//! Invariant, checked by the tests: the order has exactly the fields of the table that have a time.

use super::field::{Field, TimedField};
use super::{Before, FieldTable};
use crate::keys::Expiry;
use crate::rebuild::fits;
use crate::table::hash_of;
use crate::types::tree::{Target, Tree};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct VolatileTable {
    fields: FieldTable,
    by_time: Tree<TimedField>,
    /// Its slot counts it among the keys that have fields with a time.
    counted: bool,
}

impl From<FieldTable> for VolatileTable {
    /// None of the fields has a time.
    fn from(fields: FieldTable) -> Self {
        VolatileTable { fields, ..VolatileTable::default() }
    }
}

/// The copy shares nothing with it, and is not counted yet.
impl Clone for VolatileTable {
    fn clone(&self) -> Self {
        let mut copy = VolatileTable::from(FieldTable::with_own_order());
        copy.fields.reserve(self.fields.len());
        for field in self.fields.iter() {
            let (name, value) = field.pair();
            copy.add(hash_of(&name), Field::new(&name, &value, field.expire_at()));
        }
        copy
    }
}

impl VolatileTable {
    /// All fields, to read and to save them; they are changed by the methods of this type only.
    pub fn fields(&self) -> &FieldTable {
        &self.fields
    }

    pub(crate) fn fields_mut(&mut self) -> &mut FieldTable {
        &mut self.fields
    }

    /// Leaves it empty.
    pub(crate) fn take_fields(&mut self) -> FieldTable {
        std::mem::take(&mut self.fields)
    }

    /// How many fields have a time.
    pub(crate) fn timed_len(&self) -> usize {
        self.by_time.len()
    }

    /// How many fields have a time before this.
    pub(crate) fn due_len(&self, since: i64) -> usize {
        if self.next_due().is_none_or(|at| since <= at) {
            return 0;
        }
        self.by_time.partition_point(|field| field.expire_at() < since)
    }

    /// The earliest time.
    pub(crate) fn next_due(&self) -> Option<i64> {
        self.by_time.first().map(TimedField::expire_at)
    }

    /// Notes that it is not counted; whether it was.
    pub(crate) fn forget(&mut self) -> bool {
        std::mem::take(&mut self.counted)
    }

    /// Notes that it is counted if it has a time; whether it was before.
    pub(crate) fn recount(&mut self) -> bool {
        let is_volatile = self.timed_len() != 0;
        std::mem::replace(&mut self.counted, is_volatile)
    }

    /// Sets a field.
    pub(super) fn put(&mut self, name: &[u8], value: &[u8], expiry: Expiry, since: i64) -> Before {
        let hash = hash_of(name);
        let new = |expire_at| Field::new(name, value, expire_at);
        let at = if let Expiry::At(at) = expiry { Some(at) } else { None };
        let Some(field) = self.fields.get_mut(hash, name) else {
            self.add(hash, new(at));
            return Before::Absent;
        };
        let live = field.is_live(since);
        let at = if expiry == Expiry::Keep && live { field.expire_at() } else { at };
        let new = new(at);
        let timed = new.timed();
        let old = std::mem::replace(field, new).timed();
        self.reorder(old, timed);
        if live { Before::Present } else { Before::Expired }
    }

    /// Gives a field another time, or none.
    pub(super) fn set_time(&mut self, name: &[u8], expire_at: Option<i64>) {
        let Some(field) = self.fields.get_mut(hash_of(name), name) else { return };
        let new = Field::new(name, field.value(), expire_at);
        let timed = new.timed();
        let old = std::mem::replace(field, new).timed();
        self.reorder(old, timed);
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Field> {
        let removed = self.fields.remove(hash_of(name), name)?;
        self.reorder(removed.timed(), None);
        Some(removed)
    }

    /// The names of the first `count` fields with a time before `since`, or of fewer if they are long: they become one
    /// effect.
    pub(super) fn due(&self, since: i64, count: usize) -> Vec<Box<[u8]>> {
        let (due, mut bytes) = (self.due_len(since).min(count), 0);
        let names = self.by_time.range(0..due).map(TimedField::name).enumerate();
        let fitting = names.take_while(|(len, name)| {
            let fits = fits(*len, bytes, name.len());
            bytes += name.len();
            fits
        });
        fitting.map(|(_, name)| name.into()).collect()
    }

    /// Those that have a time, earliest first.
    pub(super) fn timed(&self) -> impl Iterator<Item = (i64, &[u8])> {
        self.by_time.range(0..self.by_time.len()).map(|field| (field.expire_at(), field.name()))
    }

    /// Adds a field that is not there.
    fn add(&mut self, hash: u64, field: Field) {
        let timed = field.timed();
        self.fields.insert_new(hash, field);
        self.reorder(None, timed);
    }

    fn reorder(&mut self, old: Option<TimedField>, new: Option<TimedField>) {
        if let Some(old) = old {
            self.by_time.remove(Target::Element(&old));
        }
        if let Some(new) = new {
            self.by_time.insert(new);
        }
    }

    /// Panics if the invariant does not hold.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.by_time.check();
        let timed = self.fields.iter().filter(|field| field.expire_at().is_some()).count();
        assert_eq!(timed, self.timed_len());
        for (at, name) in self.timed() {
            let field = self.fields.get(hash_of(name), name).expect("it is in the table");
            assert_eq!((field.expire_at(), &*field.pair().0), (Some(at), name));
        }
    }
}
