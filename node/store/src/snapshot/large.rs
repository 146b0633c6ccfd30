//! Large collections of a snapshot: they are saved piece by piece, as they were, while they go on changing.
//!
//! The saving of one begins when the walk meets it or when somebody is about to change it, whichever is first. From
//! then on the nodes of a list or stream are shared with the saver (who changes one copies it), and a table notes what
//! changes ([`crate::table::saving`]); either takes no time that grows with the elements' bytes. The record's head
//! (key, expiry, number of elements) is written at that moment, and what follows the nodes of a stream: its groups.
//!
//! A table is saved where it is, so it has to be found: whoever gives its entry another key, or takes it out of the
//! keyspace, says so ([`CopyOnWrite::note_moved`], [`CopyOnWrite::keep_entry`]). One that nobody needs any more
//! becomes the saver's.

use std::collections::{BTreeMap, VecDeque};

use keyward_proto::slot::Slot;

use super::{CopyOnWrite, Encoder};
use crate::entry::thin::{Member, ThinBytes};
use crate::entry::{Entry, ValueRef};
use crate::table::hash_of;
use crate::table::saving::Saving;
use crate::types::ListRef;
use crate::types::hash::Field;
use crate::types::hash::rdb::Times;
use crate::types::quicklist::Node;
use crate::types::set::MemberTable;
use crate::types::sorted_set::Skiplist;
use crate::types::stream::StreamNode;
use crate::{DbIndex, Keyspace};

/// An element of a large set, hash or sorted set.
#[derive(Debug, Clone, Copy)]
pub enum Element<'a> {
    Member(&'a ThinBytes),
    Field(&'a Field, Times),
    Scored(&'a Member),
}

/// A collection whose saving has begun.
#[derive(Debug)]
pub(super) struct Large {
    /// Where it was when the snapshot began.
    pub(super) slot: Slot,
    pub(super) db: DbIndex,
    /// What the record begins with; empty when that is given.
    pub(super) head: Vec<u8>,
    /// How the head says that the fields of a hash follow, whatever becomes of it.
    times: Times,
    rest: Rest,
}

/// Where the elements are.
#[derive(Debug)]
enum Rest {
    /// In the keyspace, in a table that goes on changing.
    InPlace { slot: Slot, db: DbIndex, key: Box<[u8]> },
    /// Nobody else has it any more.
    Owned(Entry),
    /// A list's, not yet given.
    Nodes(VecDeque<Node>),
    /// A stream's, not yet given, and what follows them.
    Stream(VecDeque<StreamNode>, Vec<u8>),
}

impl Rest {
    /// What is kept by sharing it.
    fn shared(entry: &Entry, encoder: &Encoder) -> Option<Rest> {
        match entry.value() {
            ValueRef::List(ListRef::Quicklist(chain)) => Some(Rest::Nodes(chain.frozen())),
            ValueRef::Stream(stream) => {
                let mut end = Vec::new();
                encoder.encode_end(stream, &mut end);
                Some(Rest::Stream(stream.frozen(), end))
            }
            _ => None,
        }
    }
}

/// The collections whose saving has begun and not ended, oldest first.
#[derive(Debug, Default)]
pub(super) struct LargeValues {
    last_id: u64,
    values: BTreeMap<u64, Large>,
}

impl LargeValues {
    pub(super) fn first(&self) -> Option<u64> {
        self.values.first_key_value().map(|(id, _)| *id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn begin(
        &mut self,
        (slot, db): (Slot, DbIndex),
        head: Vec<u8>,
        times: Times,
        rest: impl FnOnce(u64) -> Rest,
    ) {
        self.last_id += 1;
        let id = self.last_id;
        self.values.insert(id, Large { slot, db, head, times, rest: rest(id) });
    }

    /// Two databases have changed places.
    pub(super) fn swap_dbs(&mut self, a: DbIndex, b: DbIndex) {
        for large in self.values.values_mut() {
            if let Rest::InPlace { db, .. } = &mut large.rest {
                *db = if *db == a {
                    b
                } else if *db == b {
                    a
                } else {
                    *db
                };
            }
        }
    }
}

/// Which saving of a snapshot an entry's value takes part in.
#[inline]
pub fn saving_id(entry: &Entry) -> Option<u64> {
    if let Some(fields) = entry.fields() {
        return fields.saving().map(|saving| saving.id);
    }
    if let Some(members) = entry.boxed::<MemberTable>() {
        return members.saving().map(|saving| saving.id);
    }
    entry.boxed::<Skiplist>().and_then(|set| set.members().saving()).map(|saving| saving.id)
}

fn begin_saving(entry: &mut Entry, id: u64) {
    if let Some(fields) = entry.fields_mut() {
        fields.begin_saving(id);
    } else if let Some(members) = entry.boxed_mut::<MemberTable>() {
        members.begin_saving(id);
    } else if let Some(set) = entry.boxed_mut::<Skiplist>() {
        set.members_mut().begin_saving(id);
    }
}

/// What a table has noted, for its type; to be dropped without a lock.
#[derive(Debug)]
#[expect(dead_code, reason = "only dropped")]
enum Noted {
    Fields(Option<Saving<Field>>),
    Members(Option<Saving<ThinBytes>>),
    Scored(Option<Saving<Member>>),
    Nothing,
}

fn end_saving(entry: &mut Entry) -> Noted {
    if let Some(fields) = entry.fields_mut() {
        Noted::Fields(fields.end_saving())
    } else if let Some(members) = entry.boxed_mut::<MemberTable>() {
        Noted::Members(members.end_saving())
    } else if let Some(set) = entry.boxed_mut::<Skiplist>() {
        Noted::Scored(set.members_mut().end_saving())
    } else {
        Noted::Nothing
    }
}

fn times_of(entry: &Entry) -> Times {
    if let ValueRef::Hash(hash) = entry.value() { Times::of(hash) } else { Times::Without }
}

/// Appends elements until `end` bytes are there; whether more are to come.
fn save_some(entry: &mut Entry, times: Times, encoder: &Encoder, end: usize, out: &mut Vec<u8>) -> bool {
    let mut save = |element: Element<'_>| {
        encoder.encode_element(element, out);
        out.len() < end
    };
    if let Some(fields) = entry.fields_mut() {
        fields.save_some(&mut |field| save(Element::Field(field, times)))
    } else if let Some(members) = entry.boxed_mut::<MemberTable>() {
        members.save_some(&mut |member| save(Element::Member(member)))
    } else if let Some(set) = entry.boxed_mut::<Skiplist>() {
        set.members_mut().save_some(&mut |member| save(Element::Scored(member)))
    } else {
        false
    }
}

impl CopyOnWrite {
    /// Begins the saving of a large collection of a slot that is locked; in the database `db`, which was called
    /// `original`.
    pub(super) fn begin_large(
        &self,
        slot: Slot,
        (db, original): (DbIndex, DbIndex),
        entry: &mut Entry,
        encoder: &Encoder,
    ) {
        let mut head = Vec::new();
        encoder.encode_head(entry, &mut head);
        let (shared, times) = (Rest::shared(entry, encoder), times_of(entry));
        self.large.lock().begin((slot, original), head, times, |id| match shared {
            Some(shared) => shared,
            None => {
                begin_saving(entry, id);
                Rest::InPlace { slot, db, key: entry.key().into() }
            }
        });
    }

    /// As [`CopyOnWrite::begin_large`], of an entry that nobody else has.
    pub(super) fn own_large(&self, slot: Slot, original: DbIndex, mut entry: Entry, encoder: &Encoder) {
        let mut head = Vec::new();
        encoder.encode_head(&entry, &mut head);
        let (shared, times) = (Rest::shared(&entry, encoder), times_of(&entry));
        self.large.lock().begin((slot, original), head, times, |id| match shared {
            Some(shared) => shared,
            None => {
                begin_saving(&mut entry, id);
                Rest::Owned(entry)
            }
        });
    }

    /// An entry whose value takes part in this saving was taken out of the keyspace, and nobody needs it any more but
    /// the snapshot. `None`: the snapshot has it now.
    pub fn keep_entry(&self, id: u64, entry: Entry) -> Option<Entry> {
        match self.large.lock().values.get_mut(&id) {
            Some(large) => {
                large.rest = Rest::Owned(entry);
                None
            }
            None => Some(entry),
        }
    }

    /// The value that takes part in this saving is found under another key now, whose slot is locked.
    pub fn note_moved(&self, id: u64, slot: Slot, db: DbIndex, key: &[u8]) {
        if let Some(large) = self.large.lock().values.get_mut(&id) {
            large.rest = Rest::InPlace { slot, db, key: key.into() };
        }
    }

    /// Takes the entries whose savings go on out of tables that were taken out of this slot.
    pub(super) fn keep_from_tables(&self, slot: Slot, tables: &mut [(DbIndex, crate::table::Table<Entry>)]) {
        for large in self.large.lock().values.values_mut() {
            let Rest::InPlace { slot: in_slot, db, key } = &large.rest else { continue };
            let table = tables.iter_mut().find(|(of, _)| of == db).filter(|_| *in_slot == slot);
            if let Some(entry) = table.and_then(|(_, table)| table.remove(hash_of(key), key)) {
                large.rest = Rest::Owned(entry);
            }
        }
    }

    /// Appends a piece of this saving of about `bytes` bytes to what `out` gives for its slot and database; whether
    /// more is to come.
    pub(super) fn step_large<'a>(
        &self,
        space: &Keyspace,
        id: u64,
        bytes: usize,
        encoder: &Encoder,
        out: impl FnOnce(Slot, DbIndex) -> &'a mut Vec<u8>,
    ) -> bool {
        // A value in the keyspace is held by its slot's lock, which comes before that of the savings.
        let mut in_slot = None;
        loop {
            let mut state = in_slot.map(|slot| space.lock(slot));
            let mut values = self.large.lock();
            let Some(large) = values.values.get_mut(&id) else { return false };
            let place = match &large.rest {
                Rest::InPlace { slot, .. } => Some(*slot),
                Rest::Owned(_) | Rest::Nodes(_) | Rest::Stream(..) => None,
            };
            if place != in_slot {
                // It has moved meanwhile.
                in_slot = place;
                continue;
            }
            let out = out(large.slot, large.db);
            let end = out.len() + bytes;
            out.append(&mut large.head);
            let more = match &mut large.rest {
                Rest::Nodes(nodes) => {
                    while out.len() < end
                        && let Some(node) = nodes.pop_front()
                    {
                        encoder.encode_node(&node, out);
                    }
                    !nodes.is_empty()
                }
                Rest::Stream(nodes, rest) => {
                    while out.len() < end
                        && let Some(node) = nodes.pop_front()
                    {
                        encoder.encode_stream_node(&node, out);
                    }
                    if nodes.is_empty() {
                        out.append(rest);
                    }
                    !nodes.is_empty()
                }
                Rest::Owned(entry) => save_some(entry, large.times, encoder, end, out),
                Rest::InPlace { db, key, .. } => {
                    let table = state.as_mut().map(|state| state.table_mut(*db));
                    let entry = table.and_then(|table| table.get_mut(hash_of(key), key));
                    let entry = entry.expect("whoever moves it says so");
                    save_some(entry, large.times, encoder, end, out)
                }
            };
            if !more {
                let ended = values.values.remove(&id);
                let noted = ended.and_then(|ended| forget(ended, state.as_deref_mut()));
                // Without the locks, since it may take long.
                drop((values, state));
                drop(noted);
            }
            return more;
        }
    }

    /// Ends all savings: nobody wants them.
    pub(super) fn discard_large(&self, space: &Keyspace) {
        loop {
            let first = self.large.lock().values.first_key_value().map(|(id, large)| {
                let slot = if let Rest::InPlace { slot, .. } = &large.rest { Some(*slot) } else { None };
                (*id, slot)
            });
            let Some((id, slot)) = first else { return };
            let mut state = slot.map(|slot| space.lock(slot));
            let mut values = self.large.lock();
            let is_there = |large: &Large| match &large.rest {
                Rest::InPlace { slot: now, .. } => Some(*now) == slot,
                Rest::Owned(_) | Rest::Nodes(_) | Rest::Stream(..) => true,
            };
            if values.values.get(&id).is_some_and(is_there) {
                let ended = values.values.remove(&id);
                let noted = ended.and_then(|ended| forget(ended, state.as_deref_mut()));
                drop((values, state));
                drop(noted);
            }
        }
    }
}

/// What is left of a saving that has ended, to be dropped.
#[expect(dead_code, reason = "only dropped")]
enum Left {
    Owned(Rest),
    Noted(Noted),
}

/// The table forgets what it has noted.
fn forget(ended: Large, state: Option<&mut crate::SlotState>) -> Option<Left> {
    match ended.rest {
        rest @ (Rest::Owned(_) | Rest::Nodes(_) | Rest::Stream(..)) => Some(Left::Owned(rest)),
        Rest::InPlace { db, key, .. } => {
            let entry = state?.table_mut(db).get_mut(hash_of(&key), &key)?;
            Some(Left::Noted(end_saving(entry)))
        }
    }
}
