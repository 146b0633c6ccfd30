//! Entries that follow each other, in one listpack, in Valkey's format:
//!
//! ```text
//! head:  live entries | deleted entries | number of fields | the fields' names ... | 0
//! entry: flags | ms - head's | seq - head's | [number of fields | name | value ...] or [value ...] | length
//! ```
//!
//! The head's ID is the node's key in the index: that of its first entry when the node was made. An entry with the head's
//! fields, in their order, has only values. The last element of an entry is the number of its other elements, for walking
//! backwards. A deleted entry only gets a flag; its node goes when none is left that lives.
//!
//! Invariant: the listpack is one of this shape. What comes from outside enters through [`check`].

use super::StreamId;
use crate::types::Element;
use crate::types::listpack::{self, Listpack, ListpackRef, Stored};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// Elements of an entry before its fields: flags and the two parts of its ID.
const LEAD_LEN: usize = 3;

/// A node for reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeRef<'a> {
    id: StreamId,
    list: ListpackRef<'a>,
    /// The names of the head.
    names_at: usize,
    names: usize,
    /// The first entry.
    first_at: usize,
}

fn integer(list: ListpackRef<'_>, at: usize) -> i64 {
    match list.stored_at(at) {
        Stored::Integer(value) => value,
        Stored::Bytes(_) => unreachable!("a node's numbers are numbers"),
    }
}

fn skip(list: ListpackRef<'_>, at: usize, count: usize) -> usize {
    (0..count).fold(at, |at, _| list.next(at))
}

impl<'a> NodeRef<'a> {
    pub(super) fn new(id: StreamId, list: &'a Listpack) -> Self {
        let list = list.as_ref();
        let count_at = skip(list, list.start(), 2);
        let names = integer(list, count_at) as usize;
        let names_at = list.next(count_at);
        let first_at = list.next(skip(list, names_at, names));
        NodeRef { id, list, names_at, names, first_at }
    }

    /// Entries that are not deleted.
    pub(super) fn live(self) -> u64 {
        integer(self.list, self.list.start()) as u64
    }

    fn deleted(self) -> u64 {
        integer(self.list, self.list.next(self.list.start())) as u64
    }

    pub(super) fn entries(self) -> Entries<'a> {
        Entries { node: self, front: self.first_at, back: self.list.end() }
    }

    /// The names of the fields of an entry are those of the head.
    fn has_names<'b>(self, mut names: impl ExactSizeIterator<Item = &'b [u8]>) -> bool {
        if names.len() != self.names {
            return false;
        }
        let mut at = self.names_at;
        names.all(|name| {
            let is_same = self.list.element_at(at) == name;
            at = self.list.next(at);
            is_same
        })
    }

    /// The entry whose flags are at `at`.
    fn entry(self, at: usize) -> Entry<'a> {
        let list = self.list;
        let (ms_at, flags) = (list.next(at), integer(list, at));
        let seq_at = list.next(ms_at);
        let ms = self.id.ms.wrapping_add(integer(list, ms_at).cast_unsigned());
        let seq = self.id.seq.wrapping_add(integer(list, seq_at).cast_unsigned());
        let fields_at = list.next(seq_at);
        let (is_deleted, id) = (flags & DELETED != 0, StreamId { ms, seq });
        if flags & SAME_FIELDS != 0 {
            let (names_at, len) = (Some(self.names_at), self.names);
            return Entry { id, list, at, is_deleted, names_at, fields_at, len };
        }
        let len = integer(list, fields_at) as usize;
        Entry { id, list, at, is_deleted, names_at: None, fields_at: list.next(fields_at), len }
    }
}

/// An entry of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub id: StreamId,
    list: ListpackRef<'a>,
    /// Its flags.
    at: usize,
    pub(super) is_deleted: bool,
    /// Where the names are if they are not between the values.
    names_at: Option<usize>,
    fields_at: usize,
    len: usize,
}

impl<'a> Entry<'a> {
    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: an entry has fields.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Names and values, in the order in which they were given.
    pub fn fields(&self) -> impl Iterator<Item = (Element<'a>, Element<'a>)> + use<'a> {
        let Entry { list, names_at, fields_at, len, .. } = *self;
        let (mut name_at, mut at) = (names_at, fields_at);
        (0..len).map(move |_| {
            let name = match &mut name_at {
                Some(name_at) => {
                    let name = list.element_at(*name_at);
                    *name_at = list.next(*name_at);
                    name
                }
                None => {
                    let name = list.element_at(at);
                    at = list.next(at);
                    name
                }
            };
            let value = list.element_at(at);
            at = list.next(at);
            (name, value)
        })
    }

    /// Behind its last element.
    fn end(&self) -> usize {
        let fields = if self.names_at.is_some() { self.len } else { 2 * self.len };
        skip(self.list, self.fields_at, fields + 1)
    }
}

/// The entries of a node, deleted ones, too, from both ends.
#[derive(Debug, Clone)]
pub(super) struct Entries<'a> {
    node: NodeRef<'a>,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.front >= self.back {
            return None;
        }
        let entry = self.node.entry(self.front);
        self.front = entry.end();
        Some(entry)
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let list = self.node.list;
        let len_at = list.previous(self.back);
        let len = integer(list, len_at);
        self.back = (0..len).fold(len_at, |at, _| list.previous(at));
        Some(self.node.entry(self.back))
    }
}

/// `stream-node-max-bytes` and `stream-node-max-entries`; zero: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    pub node_bytes: usize,
    pub node_entries: u64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        StreamLimits { node_bytes: 4096, node_entries: 100 }
    }
}

/// No node has more bytes, and an entry with more cannot be stored.
pub const NODE_BYTES_MAX: usize = 1 << 30;

impl StreamLimits {
    /// Whether a node is too full for an entry of so many bytes.
    pub(super) fn is_full(&self, node: NodeRef<'_>, added: usize) -> bool {
        let bytes_max = match self.node_bytes {
            0 => NODE_BYTES_MAX,
            bytes => bytes.min(NODE_BYTES_MAX),
        };
        node.list.as_bytes().len().saturating_add(added) >= bytes_max
            || self.node_entries != 0 && self.node_entries <= node.live() + node.deleted()
    }
}

/// A node whose head has the names of these fields, names and values in turn, without an entry.
pub(super) fn new(fields: &[&[u8]]) -> Listpack {
    let names = fields.iter().step_by(2).map(|name| Stored::Bytes(name));
    let counts = [0, 0, fields.len() as i64 / 2].map(Stored::Integer);
    let mut list = Listpack::default();
    listpack::extend(list.buffer(), counts.into_iter().chain(names).chain([Stored::Integer(0)]));
    list
}

/// Appends an entry that is later than all others.
pub(super) fn append(node_id: StreamId, list: &mut Listpack, id: StreamId, fields: &[&[u8]]) {
    let node = NodeRef::new(node_id, list);
    let (len, live) = (fields.len() / 2, node.live() as i64);
    let has_same = node.has_names(fields.iter().step_by(2).copied());
    let diff = |a: u64, b: u64| Stored::Integer(a.wrapping_sub(b).cast_signed());
    let flags = Stored::Integer(if has_same { SAME_FIELDS } else { 0 });
    let lead = [flags, diff(id.ms, node_id.ms), diff(id.seq, node_id.seq)];
    let buffer = list.buffer();
    if has_same {
        let values = fields.iter().skip(1).step_by(2).map(|value| Stored::Bytes(value));
        let tail = Stored::Integer((LEAD_LEN + len) as i64);
        listpack::extend(buffer, lead.into_iter().chain(values).chain([tail]));
    } else {
        let all = fields.iter().map(|text| Stored::Bytes(text));
        let (count, tail) = (Stored::Integer(len as i64), (LEAD_LEN + 1 + fields.len()) as i64);
        let lead = lead.into_iter().chain([count]);
        listpack::extend(buffer, lead.chain(all).chain([Stored::Integer(tail)]));
    }
    let at = list.as_ref().start();
    listpack::replace_integer(list.buffer(), at, live + 1);
}

/// Marks the live entries for which `wants` is true as deleted, from the first on and up to the first for which `ends` is
/// true; how many.
pub(super) fn delete(
    node_id: StreamId,
    list: &mut Listpack,
    mut ends: impl FnMut(&Entry<'_>) -> bool,
    mut wants: impl FnMut(&Entry<'_>) -> bool,
) -> u64 {
    let node = NodeRef::new(node_id, list);
    let (live, deleted) = (node.live() as i64, node.deleted() as i64);
    let found: Vec<usize> = node
        .entries()
        .take_while(|entry| !ends(entry))
        .filter(|entry| !entry.is_deleted && wants(entry))
        .map(|entry| entry.at)
        .collect();
    let count = found.len() as i64;
    for at in found {
        // As long as it was: both are flags.
        let flags = integer(list.as_ref(), at) | DELETED;
        listpack::replace_integer(list.buffer(), at, flags);
    }
    if count > 0 {
        let at = list.as_ref().start();
        listpack::replace_integer(list.buffer(), at, live - count);
        let at = list.as_ref().next(at);
        listpack::replace_integer(list.buffer(), at, deleted + count);
    }
    count.cast_unsigned()
}

/// What [`check`] has found in a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked {
    pub(super) live: u64,
    /// Of the last entry, deleted or not.
    pub(super) last_id: StreamId,
}

/// Checks a listpack from outside; what it is, if it is a node.
pub(super) fn check(node_id: StreamId, list: &Listpack) -> Option<Checked> {
    let mut walk = Walk { list: list.as_ref(), at: list.as_ref().start() };
    let (live, deleted, names) = (walk.count()?, walk.count()?, walk.count()?);
    walk.skip(names)?;
    if names == 0 || walk.integer()? != 0 {
        return None;
    }
    let (mut last_id, mut found) = (None, [0, 0]);
    while !walk.is_at_end() {
        let flags = walk.integer()?;
        if !(0..=DELETED | SAME_FIELDS).contains(&flags) {
            return None;
        }
        let ms = node_id.ms.wrapping_add(walk.integer()?.cast_unsigned());
        let seq = node_id.seq.wrapping_add(walk.integer()?.cast_unsigned());
        let id = StreamId { ms, seq };
        if id < node_id || last_id.is_some_and(|last| id <= last) {
            return None;
        }
        let len = if flags & SAME_FIELDS != 0 { LEAD_LEN + names } else { walk.own_fields()? };
        walk.skip(if flags & SAME_FIELDS != 0 { names } else { len - LEAD_LEN - 1 })?;
        if walk.count()? != len {
            return None;
        }
        found[usize::from(flags & DELETED != 0)] += 1;
        last_id = Some(id);
    }
    let is_true = found == [live, deleted] && id_is_possible(node_id);
    is_true.then_some(Checked { live: live as u64, last_id: last_id? })
}

fn id_is_possible(id: StreamId) -> bool {
    id != StreamId::ZERO
}

/// Reads a listpack of which nothing is known but that it is one.
struct Walk<'a> {
    list: ListpackRef<'a>,
    at: usize,
}

impl Walk<'_> {
    fn is_at_end(&self) -> bool {
        self.list.end() <= self.at
    }

    fn integer(&mut self) -> Option<i64> {
        if self.is_at_end() {
            return None;
        }
        let Stored::Integer(value) = self.list.stored_at(self.at) else { return None };
        self.at = self.list.next(self.at);
        Some(value)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.integer()?).ok()
    }

    /// The number of an entry's own fields: all elements that it makes, but the length.
    fn own_fields(&mut self) -> Option<usize> {
        let fields = self.count().filter(|count| *count != 0)?;
        fields.checked_mul(2)?.checked_add(LEAD_LEN + 1)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            if self.is_at_end() {
                return None;
            }
            self.at = self.list.next(self.at);
        }
        Some(())
    }
}
