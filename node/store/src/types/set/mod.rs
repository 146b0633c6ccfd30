//! A set of byte strings: an intset while all members are integers and few, a listpack in the order of insertion
//! while they are few and short, else a table. As in Valkey a larger form is kept, but for results of commands.

mod collection;
pub mod intset;
mod keys;
pub(crate) mod rdb;

use std::collections::HashSet;

use either::Either;
use keyward_proto::resp::number::parse_i64;

use super::buffer::Buffer;
use intset::IntsetRef;

use super::listpack::{self, ListpackRef};
use super::{Element, fits_compact, random};
use crate::entry::thin::ThinBytes;
use crate::entry::{Compact, Entry, Value, ValueRef};
use crate::table::{ScanPosition, Table, hash_of};

/// An intset never has more integers. Differs from Valkey, which allows 2^30.
const INTSET_LEN_MAX: usize = 1 << 20;

/// `set-max-intset-entries`, `set-max-listpack-entries` and `-value`: larger sets are tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetLimits {
    pub intset_entries: usize,
    pub listpack_entries: usize,
    pub listpack_value: usize,
}

impl Default for SetLimits {
    fn default() -> Self {
        SetLimits { intset_entries: 512, listpack_entries: 128, listpack_value: 64 }
    }
}

impl SetLimits {
    fn intset_len_max(&self) -> usize {
        self.intset_entries.min(INTSET_LEN_MAX)
    }

    /// Whether so many integers may be an intset.
    pub fn allow_intset(&self, count: usize) -> bool {
        count <= self.intset_len_max()
    }

    /// Whether a listpack of so many members and bytes, with members of at most this length, may be a set.
    pub fn allow_listpack(&self, count: usize, longest: usize, bytes: usize) -> bool {
        count <= self.listpack_entries && longest <= self.listpack_value && fits_compact(bytes, 0)
    }
}

/// The members of a large set.
pub type MemberTable = Table<ThinBytes>;

/// A set for reading.
#[derive(Debug, Clone, Copy)]
pub enum SetRef<'a> {
    Listpack(ListpackRef<'a>),
    Intset(IntsetRef<'a>),
    Table(&'a MemberTable),
}

fn text(member: &ThinBytes) -> Element<'_> {
    (&**member).into()
}

impl<'a> SetRef<'a> {
    pub fn len(self) -> usize {
        match self {
            SetRef::Listpack(list) => list.len(),
            SetRef::Intset(integers) => integers.len(),
            SetRef::Table(table) => table.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        match self {
            SetRef::Listpack(list) => list.is_empty(),
            SetRef::Intset(integers) => integers.is_empty(),
            SetRef::Table(table) => table.is_empty(),
        }
    }

    /// Whether it is in a compact form.
    pub fn is_compact(self) -> bool {
        !matches!(self, SetRef::Table(_))
    }

    pub fn iter(self) -> impl Iterator<Item = Element<'a>> + 'a {
        match self {
            SetRef::Listpack(list) => Either::Left(Either::Left(list.iter())),
            SetRef::Intset(integers) => Either::Left(Either::Right(integers.iter().map(Element::from))),
            SetRef::Table(table) => Either::Right(table.iter().map(text)),
        }
    }

    pub fn contains(self, member: &[u8]) -> bool {
        match self {
            SetRef::Listpack(list) => list.find(member, 1).is_some(),
            SetRef::Intset(integers) => parse_i64(member).is_some_and(|value| integers.contains(value)),
            SetRef::Table(table) => table.get(hash_of(member), member).is_some(),
        }
    }

    /// A random member.
    pub fn random(self, mut random: impl FnMut() -> u64) -> Option<Element<'a>> {
        match self {
            _ if self.is_empty() => None,
            SetRef::Listpack(list) => list.get(random::below(list.len(), random())),
            SetRef::Intset(integers) => integers.get(random::below(integers.len(), random())).map(Into::into),
            SetRef::Table(table) => table.random(random).map(text),
        }
    }

    /// `count` different random members, or all if there are fewer.
    pub fn sample(self, count: usize, random: impl FnMut() -> u64) -> Vec<Element<'a>> {
        match self {
            SetRef::Table(table) => random::sample(table, count, random).into_iter().map(text).collect(),
            SetRef::Listpack(_) | SetRef::Intset(_) => {
                random::sample_of(self.iter().collect(), count, random)
            }
        }
    }

    /// `count` random members, each chosen independently.
    pub fn repeated(
        self,
        count: usize,
        random: impl FnMut() -> u64 + 'a,
    ) -> impl Iterator<Item = Element<'a>> + 'a {
        match self {
            SetRef::Table(table) => Either::Left(random::repeated(table, count, random).map(text)),
            SetRef::Listpack(_) | SetRef::Intset(_) => {
                Either::Right(random::repeated_of(self.iter().collect(), count, random))
            }
        }
    }

    /// Visits some members from `position` on; returns where to go on, `None` at the end. A compact set is one step.
    pub fn scan(self, position: ScanPosition, visit: &mut dyn FnMut(Element<'a>)) -> Option<ScanPosition> {
        match self {
            SetRef::Table(table) => table.scan(position, &mut |m| visit(text(m))),
            SetRef::Listpack(_) | SetRef::Intset(_) => {
                self.iter().for_each(visit);
                None
            }
        }
    }
}

/// A set for changing it.
#[derive(Debug)]
pub struct SetMut<'a> {
    entry: &'a mut Entry,
    limits: SetLimits,
}

impl<'a> SetMut<'a> {
    /// The entry holds a set.
    pub(crate) fn new(entry: &'a mut Entry, limits: SetLimits) -> Self {
        SetMut { entry, limits }
    }

    pub fn as_ref(&self) -> SetRef<'_> {
        match self.entry.value() {
            ValueRef::Set(set) => set,
            other => unreachable!("a set is expected, not {other:?}"),
        }
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        self.as_ref().contains(member)
    }

    /// Gives it the form for a command that adds `count` members, of which this is the first: a set that is still
    /// empty gets the smallest in which they may all fit, another one becomes a table if they do not.
    pub fn prepare(&mut self, first: &[u8], count: usize) {
        let is_new = self.is_empty();
        let limits = self.limits;
        match self.as_ref() {
            SetRef::Table(_) => {}
            _ if is_new => {
                if parse_i64(first).is_some() && count <= limits.intset_len_max() {
                    self.entry.set_compact(Compact::Intset, &intset::EMPTY);
                } else if count <= limits.listpack_entries {
                    self.entry.set_compact(Compact::Set, &listpack::EMPTY);
                } else {
                    self.table();
                }
            }
            SetRef::Listpack(_) if limits.listpack_entries < count => drop(self.table()),
            SetRef::Intset(_) if limits.intset_len_max() < count => drop(self.table()),
            SetRef::Listpack(_) | SetRef::Intset(_) => {}
        }
    }

    /// Makes room for so many members in a set that is empty and will have at least so many.
    pub fn reserve(&mut self, len: usize) {
        if self.limits.intset_len_max().max(self.limits.listpack_entries) < len {
            self.table().reserve(len);
        }
    }

    /// Whether the member is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        let limits = self.limits;
        if let Some(mut tail) = self.entry.compact_mut(Compact::Set) {
            let list = ListpackRef::trusted(tail.bytes());
            if list.find(member, 1).is_some() {
                return false;
            }
            if list.len() < limits.listpack_entries
                && member.len() <= limits.listpack_value
                && fits_compact(tail.bytes().len(), member.len())
            {
                listpack::push_back(&mut tail, member);
                return true;
            }
        }
        if let Some(mut tail) = self.entry.compact_mut(Compact::Intset) {
            if let Some(value) = parse_i64(member) {
                let new = intset::insert(&mut tail, value);
                if new && limits.intset_len_max() < IntsetRef::trusted(tail.bytes()).len() {
                    self.table();
                }
                return new;
            }
            if self.integers_fit_listpack(member) {
                self.integers_to_listpack(member);
                return true;
            }
        }
        let (hash, table) = (hash_of(member), self.table());
        let new = table.get(hash, member).is_none();
        if new {
            table.insert_new(hash, ThinBytes::new([member]));
        }
        new
    }

    /// Whether the integers and a new member that is none may become a listpack.
    fn integers_fit_listpack(&self, member: &[u8]) -> bool {
        let SetRef::Intset(integers) = self.as_ref() else { return false };
        let digits = |at: usize| integers.get(at).map_or(0, |value| Element::from(value).len());
        let len = integers.len();
        let longest = digits(0).max(digits(len.saturating_sub(1)));
        len < self.limits.listpack_entries
            && member.len().max(longest) <= self.limits.listpack_value
            && fits_compact(len * (longest + 2), member.len())
    }

    fn integers_to_listpack(&mut self, member: &[u8]) {
        let mut list = listpack::Listpack::default();
        self.as_ref().iter().for_each(|integer| list.push_back(&integer));
        list.push_back(member);
        self.entry.set_compact(Compact::Set, list.as_bytes());
    }

    /// Whether the member was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        if let Some(mut tail) = self.entry.compact_mut(Compact::Set) {
            let found = ListpackRef::trusted(tail.bytes()).find(member, 1);
            if let Some((_, at)) = found {
                listpack::remove(&mut tail, at, 1);
            }
            return found.is_some();
        }
        if let Some(mut tail) = self.entry.compact_mut(Compact::Intset) {
            return parse_i64(member).is_some_and(|value| intset::remove(&mut tail, value));
        }
        self.table().remove(hash_of(member), member).is_some()
    }

    /// Removes a random member.
    pub fn take_random(&mut self, random: impl FnMut() -> u64) -> Option<Box<[u8]>> {
        let member: Box<[u8]> = self.as_ref().random(random)?.into();
        self.remove(&member);
        Some(member)
    }

    /// Keeps these members only, in the most compact form to which adding them one by one leads, or that the set has
    /// already: what is left where most are taken away.
    pub fn retain_only(&mut self, members: &[Box<[u8]>]) {
        if self.entry.boxed::<MemberTable>().is_some_and(|table| table.saving().is_some()) {
            return self.remove_others(members);
        }
        let form = match self.as_ref() {
            SetRef::Listpack(_) => Compact::Set,
            _ if members.first().is_some_and(|first| parse_i64(first).is_some()) => Compact::Intset,
            SetRef::Intset(_) => Compact::Intset,
            SetRef::Table(_) => Compact::Set,
        };
        let empty: &[u8] = if form == Compact::Set { &listpack::EMPTY } else { &intset::EMPTY };
        self.entry.set_compact(form, empty);
        for member in members {
            self.insert(member);
        }
    }

    /// A table that a snapshot is saving stays what it is.
    fn remove_others(&mut self, members: &[Box<[u8]>]) {
        let kept: HashSet<&[u8]> = members.iter().map(|member| &**member).collect();
        let others: Vec<Box<[u8]>> =
            self.as_ref().iter().filter(|member| !kept.contains(&**member)).map(Into::into).collect();
        for member in &others {
            self.remove(member);
        }
    }

    /// The table; a compact set is converted.
    fn table(&mut self) -> &mut MemberTable {
        if self.as_ref().is_compact() {
            let mut table = MemberTable::with_own_order();
            for member in self.as_ref().iter() {
                table.insert_new(hash_of(&member), ThinBytes::new([&member]));
            }
            self.entry.set_boxed(Box::new(table));
        }
        self.entry.boxed_mut().expect("it is a table")
    }
}

/// A set that has no key yet; at first an intset.
#[derive(Debug)]
pub struct Set {
    value: Value,
    limits: SetLimits,
}

impl Default for Set {
    fn default() -> Self {
        Set::new(SetLimits::default())
    }
}

impl Set {
    pub fn new(limits: SetLimits) -> Self {
        Set { value: Value::compact(Compact::Intset, &intset::EMPTY), limits }
    }

    /// At first a listpack.
    pub fn new_listpack(limits: SetLimits) -> Self {
        Set { value: Value::compact(Compact::Set, &listpack::EMPTY), limits }
    }

    pub fn as_mut(&mut self) -> SetMut<'_> {
        SetMut::new(self.value.entry(), self.limits)
    }

    pub fn as_ref(&self) -> SetRef<'_> {
        match self.value.as_ref() {
            ValueRef::Set(set) => set,
            other => unreachable!("a set is expected, not {other:?}"),
        }
    }

    /// Whether the member is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        self.as_mut().insert(member)
    }

    /// Whether the member was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.as_mut().remove(member)
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    /// Makes it an intset if all members are integers and there are not too many.
    pub fn into_intset_if_possible(self) -> Self {
        let fits = self.len() <= self.limits.intset_len_max();
        if !fits || !self.as_ref().iter().all(|member| parse_i64(&member).is_some()) {
            return self;
        }
        let mut integers = Set::new(self.limits);
        for member in self.as_ref().iter() {
            integers.insert(&member);
        }
        integers
    }
}

impl From<Set> for Value {
    fn from(set: Set) -> Self {
        set.value
    }
}
