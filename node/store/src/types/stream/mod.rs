//! A stream: a log of entries, each with an ID and fields, and the groups of consumers that read it.
//!
//! Entries lie in listpacks ([`node`]), up to some hundred in each, which an ordered index finds by the ID of their first
//! entry. Nodes are shared with whoever keeps what the stream was (a snapshot), until one of the two changes them. Where
//! nodes begin is decided as in Valkey, but nothing that is replicated depends on it.
//!
//! Beside its entries a stream remembers IDs and counts of entries that are gone: they decide which IDs may come, and
//! what of a group's progress is known.

mod collection;
mod group;
mod id;
mod keys;
mod node;
pub(crate) mod rdb;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::listpack::Listpack;
use group::COUNT_MAX;
pub use group::{Consumer, Group, Pending, UNKNOWN};
pub use id::StreamId;
use node::NodeRef;
pub use node::{Entry, NODE_BYTES_MAX, StreamLimits};

/// Groups in which commands keep something. Other programs know them as groups like any other.
pub const HIDDEN_GROUPS: [&[u8]; 2] = [b"keyward:idmp:iids", b"keyward:idmp:order"];

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    nodes: BTreeMap<StreamId, Arc<Listpack>>,
    /// Entries that are not deleted.
    len: u64,
    /// Of the first entry; zero without one.
    first_id: StreamId,
    /// The largest that was given; the next one is larger.
    last_id: StreamId,
    /// The largest that was deleted by its ID.
    max_deleted_id: StreamId,
    /// Entries that were ever added.
    entries_added: u64,
    groups: BTreeMap<Box<[u8]>, Group>,
}

/// A listpack of a stream as it was at a moment.
#[derive(Debug, Clone)]
pub struct StreamNode {
    id: StreamId,
    list: Arc<Listpack>,
}

/// Which entries XTRIM and its like leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The last ones, so many of them.
    Last(u64),
    /// Those from this ID on.
    From(StreamId),
}

/// How exactly a stream is trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Exact,
    /// Whole nodes only, and no more entries than this; zero: any number.
    Nodes(u64),
}

impl Stream {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    // ------------------------------------------------------------------ entries

    /// Adds an entry whose ID is larger than the last one. `fields`: names and values in turn.
    pub fn append(&mut self, id: StreamId, fields: &[&[u8]], limits: StreamLimits) {
        debug_assert!(self.last_id < id && !fields.is_empty() && fields.len().is_multiple_of(2));
        let bytes = fields.iter().map(|text| text.len()).sum();
        let last = self
            .nodes
            .last_entry()
            .filter(|last| !limits.is_full(NodeRef::new(*last.key(), last.get()), bytes));
        match last {
            Some(mut last) => {
                let node_id = *last.key();
                node::append(node_id, Arc::make_mut(last.get_mut()), id, fields);
            }
            None => {
                let mut list = node::new(fields);
                node::append(id, &mut list, id, fields);
                self.nodes.insert(id, Arc::new(list));
            }
        }
        if self.len == 0 {
            self.first_id = id;
        }
        self.len += 1;
        self.entries_added = (self.entries_added + 1).min(COUNT_MAX);
        self.last_id = id;
    }

    /// The entries with these IDs and those between them.
    pub fn range(&self, start: StreamId, end: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let first = self.nodes.range(..=start).next_back().map_or(start, |(id, _)| *id);
        self.nodes
            .range(first..)
            .take_while(move |(id, _)| **id <= end)
            .flat_map(|(id, list)| NodeRef::new(*id, list).entries())
            .skip_while(move |entry| entry.id < start)
            .take_while(move |entry| entry.id <= end)
            .filter(|entry| !entry.is_deleted)
    }

    /// As [`Stream::range`], the last one first.
    pub fn range_backwards(&self, start: StreamId, end: StreamId) -> impl Iterator<Item = Entry<'_>> {
        self.nodes
            .range(..=end)
            .rev()
            .flat_map(|(id, list)| NodeRef::new(*id, list).entries().rev())
            .skip_while(move |entry| end < entry.id)
            .take_while(move |entry| start <= entry.id)
            .filter(|entry| !entry.is_deleted)
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.range(StreamId::ZERO, StreamId::MAX)
    }

    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    pub fn last(&self) -> Option<Entry<'_>> {
        self.range_backwards(StreamId::ZERO, StreamId::MAX).next()
    }

    /// Deletes an entry; whether it was there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((&node_id, list)) = self.nodes.range_mut(..=id).next_back() else { return false };
        if !NodeRef::new(node_id, list).entries().any(|entry| entry.id == id && !entry.is_deleted) {
            return false;
        }
        if NodeRef::new(node_id, list).live() == 1 {
            self.nodes.remove(&node_id);
        } else {
            node::delete(node_id, Arc::make_mut(list), |entry| id < entry.id, |entry| entry.id == id);
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if self.first_id == id {
            self.find_first();
        }
        true
    }

    fn find_first(&mut self) {
        let first = self.iter().next().map(|entry| entry.id);
        self.first_id = first.unwrap_or_default();
    }

    /// Removes entries from the beginning; how many.
    pub fn trim(&mut self, keep: Keep, precision: Precision) -> u64 {
        let mut removed = 0;
        while let Some(first) = self.nodes.first_entry() {
            let node = NodeRef::new(*first.key(), first.get());
            let live = node.live();
            let is_done = matches!(keep, Keep::Last(len) if self.len <= len);
            let is_too_much = matches!(precision, Precision::Nodes(max) if max != 0 && max < removed + live);
            if is_done || is_too_much {
                break;
            }
            let is_whole = match keep {
                Keep::Last(len) => len <= self.len - live,
                Keep::From(id) => node.entries().next_back().is_none_or(|last| last.id < id),
            };
            if is_whole {
                first.remove();
                self.len -= live;
                removed += live;
                continue;
            }
            if precision == Precision::Exact {
                removed += self.trim_first_node(keep);
            }
            break;
        }
        if removed > 0 || self.len == 0 {
            self.find_first();
        }
        removed
    }

    /// Marks entries of the first node as deleted.
    fn trim_first_node(&mut self, keep: Keep) -> u64 {
        let Some(mut first) = self.nodes.first_entry() else { return 0 };
        let id = *first.key();
        let list = Arc::make_mut(first.get_mut());
        let removed = match keep {
            Keep::Last(len) => {
                let mut left = self.len - len;
                node::delete(
                    id,
                    list,
                    |_| false,
                    |_| {
                        let wants = left > 0;
                        left -= u64::from(wants);
                        wants
                    },
                )
            }
            Keep::From(from) => node::delete(id, list, |entry| from <= entry.id, |_| true),
        };
        self.len -= removed;
        removed
    }

    /// XSETID: what is remembered of entries that are gone.
    pub fn set_ids(
        &mut self,
        last_id: StreamId,
        entries_added: Option<u64>,
        max_deleted_id: Option<StreamId>,
    ) {
        self.last_id = last_id;
        self.entries_added = entries_added.unwrap_or(self.entries_added);
        self.max_deleted_id = max_deleted_id.unwrap_or(self.max_deleted_id);
    }

    // ------------------------------------------------------------------ nodes

    /// How many listpacks it has.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many nodes Valkey's radix tree would have for these listpacks: one for each of them, for each place where
    /// their IDs part, and for each run of bytes in between.
    pub fn radix_tree_nodes(&self) -> usize {
        let keys: Vec<u128> = self.nodes.keys().map(|id| u128::from_be_bytes(id.to_bytes())).collect();
        if keys.is_empty() { 1 } else { tree_nodes(&keys, 0) }
    }

    /// The nodes as they are now.
    pub(crate) fn frozen(&self) -> VecDeque<StreamNode> {
        self.nodes.iter().map(|(id, list)| StreamNode { id: *id, list: Arc::clone(list) }).collect()
    }

    // ------------------------------------------------------------------ groups

    /// Those that clients are shown.
    pub fn groups(&self) -> impl Iterator<Item = (&[u8], &Group)> {
        let groups = self.groups.iter().map(|(name, group)| (&**name, group));
        groups.filter(|(name, _)| !HIDDEN_GROUPS.contains(name))
    }

    pub fn group_count(&self) -> usize {
        let hidden = HIDDEN_GROUPS.iter().filter(|name| self.groups.contains_key(**name));
        self.groups.len() - hidden.count()
    }

    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.groups.get_mut(name)
    }

    /// Whether there was none of this name.
    pub fn create_group(&mut self, name: &[u8], last_id: StreamId, entries_read: i64) -> bool {
        let is_new = !self.groups.contains_key(name);
        if is_new {
            self.groups.insert(name.into(), Group::new(last_id, entries_read));
        }
        is_new
    }

    /// Whether there was one.
    pub fn destroy_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    /// Whether an entry from this ID on was deleted, as far as is known.
    fn has_gaps_from(&self, start: StreamId) -> bool {
        let max = self.max_deleted_id;
        self.len != 0 && max != StreamId::ZERO && self.first_id <= max && start <= max
    }

    /// How many entries had been added when this one had been, if that can be told.
    pub fn estimated_position(&self, id: StreamId) -> i64 {
        let (added, len) = (self.entries_added.cast_signed(), self.len.cast_signed());
        if added == 0 {
            return 0;
        }
        if self.len == 0 && id <= self.last_id {
            return added;
        }
        if id != StreamId::ZERO && id < self.max_deleted_id {
            return UNKNOWN;
        }
        if self.last_id <= id {
            return if id == self.last_id { added } else { UNKNOWN };
        }
        if self.max_deleted_id == StreamId::ZERO || self.max_deleted_id < self.first_id {
            if id < self.first_id {
                return added.wrapping_sub(len);
            }
            if id == self.first_id {
                return added.wrapping_sub(len).wrapping_add(1);
            }
        }
        UNKNOWN
    }

    /// Entries that a group has not read yet, if that can be told.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let added = self.entries_added.cast_signed();
        if added == 0 {
            return Some(0);
        }
        if group.entries_read != UNKNOWN && !self.has_gaps_from(group.last_id) {
            return Some(added.wrapping_sub(group.entries_read));
        }
        match self.estimated_position(group.last_id) {
            UNKNOWN => None,
            position => Some(added.wrapping_sub(position)),
        }
    }

    /// What `entries_read` of a group becomes when it has read the entry `id` after all before it.
    pub fn entries_read_after(&self, group_last: StreamId, entries_read: i64, id: StreamId) -> i64 {
        if entries_read != UNKNOWN && self.first_id <= group_last && !self.has_gaps_from(group_last) {
            return entries_read.saturating_add(1);
        }
        if self.entries_added == 0 {
            return entries_read;
        }
        self.estimated_position(id)
    }

    pub fn set_group_position(&mut self, name: &[u8], last_id: StreamId, entries_read: i64) {
        if let Some(group) = self.groups.get_mut(name) {
            (group.last_id, group.entries_read) = (last_id, entries_read);
        }
    }
}

/// Nodes below a prefix of so many bytes that all these keys have; they are in ascending order.
fn tree_nodes(keys: &[u128], depth: u32) -> usize {
    const BYTES: u32 = u128::BITS / 8;
    let [first, .., last] = keys else { return 1 + usize::from(depth < BYTES) };
    let parts_at = (first ^ last).leading_zeros() / 8;
    let prefix = |key: &u128| key >> (8 * (BYTES - 1 - parts_at));
    let below = keys.chunk_by(|a, b| prefix(a) == prefix(b));
    usize::from(depth < parts_at) + 1 + below.map(|keys| tree_nodes(keys, parts_at + 1)).sum::<usize>()
}

#[cfg(test)]
mod tests;
