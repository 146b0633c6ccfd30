//! A list of byte strings with fast ends: one listpack; beyond `list-max-listpack-size` a chain of them
//! ([`quicklist`]). A chain that has shrunk to half of that becomes one listpack again, as in Valkey.

mod collection;
mod keys;
pub mod quicklist;
pub(crate) mod rdb;

use either::Either;

use super::Element;
use super::buffer::Buffer;
use super::listpack::{self, Listpack, ListpackRef};
use quicklist::{Fill, Quicklist};

use crate::entry::{Compact, Entry, Value, ValueRef};

/// One of a list's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Left,
    Right,
}

/// Where an element is put, next to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// A list for reading.
#[derive(Debug, Clone, Copy)]
pub enum ListRef<'a> {
    Listpack(ListpackRef<'a>),
    Quicklist(&'a Quicklist),
}

impl<'a> ListRef<'a> {
    pub fn len(self) -> usize {
        match self {
            ListRef::Listpack(list) => list.len(),
            ListRef::Quicklist(list) => list.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        match self {
            ListRef::Listpack(list) => list.is_empty(),
            ListRef::Quicklist(list) => list.is_empty(),
        }
    }

    /// Whether it is in its compact form.
    pub fn is_compact(self) -> bool {
        matches!(self, ListRef::Listpack(_))
    }

    pub fn iter(self) -> impl DoubleEndedIterator<Item = Element<'a>> + ExactSizeIterator + 'a {
        self.range(0, self.len())
    }

    /// The elements from `start` up to but not including `end`, which are within the list.
    pub fn range(
        self,
        start: usize,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = Element<'a>> + ExactSizeIterator + 'a {
        match self {
            ListRef::Listpack(list) => Either::Left(list.range(start, end)),
            ListRef::Quicklist(list) => Either::Right(list.range(start, end)),
        }
    }

    pub fn get(self, index: usize) -> Option<Element<'a>> {
        match self {
            ListRef::Listpack(list) => list.get(index),
            ListRef::Quicklist(list) => list.get(index),
        }
    }

    /// The up to `count` elements at an end, the outermost first.
    pub fn at_end(self, end: End, count: usize) -> impl ExactSizeIterator<Item = Element<'a>> + 'a {
        let len = self.len();
        let count = count.min(len);
        match end {
            End::Left => Either::Left(self.range(0, count)),
            End::Right => Either::Right(self.range(len - count, len).rev()),
        }
    }
}

/// A list for changing it.
#[derive(Debug)]
pub struct ListMut<'a> {
    entry: &'a mut Entry,
    fill: Fill,
}

impl<'a> ListMut<'a> {
    /// The entry holds a list.
    pub(crate) fn new(entry: &'a mut Entry, fill: Fill) -> Self {
        ListMut { entry, fill }
    }

    pub fn as_ref(&self) -> ListRef<'_> {
        match self.entry.value() {
            ValueRef::List(list) => list,
            other => unreachable!("a list is expected, not {other:?}"),
        }
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    /// Makes it a chain if it would be too large for one listpack with these elements, which are about to be added.
    pub fn prepare<'b>(&mut self, elements: impl Iterator<Item = &'b [u8]>) {
        let ListRef::Listpack(list) = self.as_ref() else { return };
        let (mut count, mut bytes) = (list.len(), list.as_bytes().len());
        for element in elements {
            count += 1;
            bytes += element.len();
        }
        if self.fill.is_exceeded(bytes, count) {
            let list = Listpack::trusted(list.as_bytes().to_vec());
            let mut chain = Quicklist::new(self.fill);
            chain.push_listpack(list);
            self.entry.set_boxed(Box::new(chain));
        }
    }

    /// Makes a chain that has become small one listpack again; elements were removed or replaced.
    pub fn shrink(&mut self) {
        let ListRef::Quicklist(chain) = self.as_ref() else { return };
        if let Some(list) = chain.as_small(self.fill) {
            let bytes = list.as_bytes().to_vec();
            self.entry.set_compact(Compact::List, &bytes);
        }
    }

    /// Adds an element for which the list is prepared.
    pub fn push(&mut self, end: End, element: &[u8]) {
        if let Some(chain) = self.entry.boxed_mut::<Quicklist>() {
            return chain.push(end, element);
        }
        let mut tail = self.compact();
        match end {
            End::Left => listpack::push_front(&mut tail, element),
            End::Right => listpack::push_back(&mut tail, element),
        }
    }

    fn compact(&mut self) -> impl Buffer {
        self.entry.compact_mut(Compact::List).expect("a list that is no chain is a listpack")
    }

    pub fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let element = self.as_ref().at_end(end, 1).next()?.into();
        self.drop_at_end(end, 1);
        Some(element)
    }

    /// Drops up to `count` elements from an end.
    pub fn drop_at_end(&mut self, end: End, count: usize) {
        if let Some(chain) = self.entry.boxed_mut::<Quicklist>() {
            return chain.drop_at_end(end, count);
        }
        let mut tail = self.compact();
        let list = ListpackRef::trusted(tail.bytes());
        let count = count.min(list.len());
        let at = list.offset(if end == End::Left { 0 } else { list.len() - count });
        listpack::remove(&mut tail, at, count);
    }

    /// Replaces the element at an index below the length by one for which the list is prepared.
    pub fn set(&mut self, index: usize, element: &[u8]) {
        if let Some(chain) = self.entry.boxed_mut::<Quicklist>() {
            chain.set(index, element);
        } else {
            let mut tail = self.compact();
            let at = ListpackRef::trusted(tail.bytes()).offset(index);
            listpack::replace(&mut tail, at, element);
        }
        self.shrink();
    }

    /// Inserts an element, for which the list is prepared, before or after the one at an index below the length.
    pub fn insert(&mut self, index: usize, side: Side, element: &[u8]) {
        if let Some(chain) = self.entry.boxed_mut::<Quicklist>() {
            return chain.insert(index, side, element);
        }
        let mut tail = self.compact();
        let at = ListpackRef::trusted(tail.bytes()).offset(index + usize::from(side == Side::After));
        listpack::insert(&mut tail, at, [element]);
    }

    /// Removes up to `count` elements equal to `element`, searching from an end; returns how many.
    pub fn remove_equal(&mut self, end: End, element: &[u8], count: usize) -> usize {
        if let Some(chain) = self.entry.boxed_mut::<Quicklist>() {
            return chain.remove_equal(end, element, count);
        }
        quicklist::remove_equal(&mut self.compact(), end, element, count)
    }
}

/// A list that has no key yet.
#[derive(Debug)]
pub struct List {
    value: Value,
    fill: Fill,
}

impl Default for List {
    fn default() -> Self {
        List::new(Fill::default())
    }
}

impl List {
    pub fn new(fill: Fill) -> Self {
        List { value: Value::compact(Compact::List, &listpack::EMPTY), fill }
    }

    pub fn as_mut(&mut self) -> ListMut<'_> {
        ListMut::new(self.value.entry(), self.fill)
    }

    pub fn as_ref(&self) -> ListRef<'_> {
        match self.value.as_ref() {
            ValueRef::List(list) => list,
            other => unreachable!("a list is expected, not {other:?}"),
        }
    }

    pub fn push_back(&mut self, element: &[u8]) {
        let mut list = self.as_mut();
        list.prepare([element].into_iter());
        list.push(End::Right, element);
    }

    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }
}

impl From<Quicklist> for List {
    fn from(chain: Quicklist) -> Self {
        let fill = chain.fill();
        List { value: Value::boxed(Box::new(chain)), fill }
    }
}

impl From<List> for Value {
    fn from(list: List) -> Self {
        list.value
    }
}

#[cfg(test)]
mod tests;
