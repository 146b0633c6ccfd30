//! All entries as they were at one moment, while they go on changing: a snapshot without fork and without a copy.
//!
//! Every entry carries an [`SnapshotMark`], one of two values, of which one is current. Outside a snapshot all entries have
//! the current one. A snapshot begins by making the other one current, with the world stopped for just that: from
//! then on an entry with the old mark is one that is not saved yet. [`Walk`] visits the slots piece by piece, one
//! lock at a time, saves each entry of the old mark as a record and gives it the current one. Whoever changes or
//! removes an entry of the old mark first has its record saved, once ([`CopyOnWrite::save_old`]); new entries are
//! born with the current mark. After the walk all entries have the current mark again, so nothing is to be reset.
//! A large collection is saved in pieces, with the lock given back in between, and may change meanwhile ([`large`]); a
//! long string, too, but who changes that before it is complete saves it as a whole. Tables that are emptied as a whole
//! are handed to the walk ([`CopyOnWrite::keep_taken`]).
//!
//! Invariants: the mark changes only while no command runs; without a running snapshot no entry has the old mark;
//! a record is written exactly once for each entry of the beginning.

pub mod large;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use keyward_proto::slot::{SLOT_COUNT, Slot};
use parking_lot::{Mutex, MutexGuard};

use super::entry::{Entry, SnapshotMark};
use super::table::{ScanPosition, Table, hash_of};
use super::types::quicklist::Node;
use super::types::stream::{Stream, StreamNode};
use super::{DbIndex, Keyspace, SlotState};
use large::{Element, LargeValues};

/// Parts into which the records of writers are divided by slot, so that threads seldom meet at one lock.
const SIDES: usize = 16;

/// How an entry is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// At once.
    Small,
    /// In pieces; whoever changes it saves it as a whole.
    LongString,
    /// In pieces, while it goes on changing.
    LargeCollection,
}

/// Writes entries as records: key, value and expiry as one string of bytes.
pub trait Encode: Send + Sync {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>);

    fn form(&self, entry: &Entry) -> Form;

    /// Writes a part of the record of a long string, which has not changed in between: from the beginning with `None`;
    /// returns where to go on, `None` after the last part.
    fn encode_string_piece(
        &self,
        entry: &Entry,
        at: Option<usize>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize>;

    /// Writes what stands before the elements of a large collection; they follow in any order, or node by node.
    fn encode_head(&self, entry: &Entry, out: &mut Vec<u8>);

    fn encode_element(&self, element: Element<'_>, out: &mut Vec<u8>);

    fn encode_node(&self, node: &Node, out: &mut Vec<u8>);

    fn encode_stream_node(&self, node: &StreamNode, out: &mut Vec<u8>);

    /// Writes what follows the nodes of a stream.
    fn encode_end(&self, stream: &Stream, out: &mut Vec<u8>);
}

/// Shared by the walk and those who save what they are about to change.
pub type Encoder = Arc<dyn Encode>;

/// Records of entries of one database.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Records {
    pub db: DbIndex,
    pub keys: u64,
    pub bytes: Vec<u8>,
    /// The last record goes on in the next records, which are of the same database.
    pub goes_on: bool,
    /// Where records of another slot begin.
    slots: Vec<(Slot, usize)>,
}

impl Records {
    fn add(&mut self, slot: Slot, encoder: &Encoder, entry: &Entry) {
        self.begin(slot);
        encoder.encode(entry, &mut self.bytes);
        self.keys += 1;
    }

    fn begin(&mut self, slot: Slot) {
        if self.slots.last().is_none_or(|(last, _)| *last != slot) {
            self.slots.push((slot, self.bytes.len()));
        }
    }

    /// The records by slot; a slot may come several times.
    pub fn by_slot(&self) -> impl Iterator<Item = PartOfSlot<'_>> {
        let ends = self.slots.iter().skip(1).map(|(_, begin)| *begin).chain([self.bytes.len()]);
        self.slots.iter().zip(ends).map(|((slot, begin), end)| PartOfSlot {
            slot: *slot,
            bytes: &self.bytes[*begin..end],
            goes_on: self.goes_on && end == self.bytes.len(),
        })
    }
}

/// Records of a slot.
#[derive(Debug, Clone, Copy)]
pub struct PartOfSlot<'a> {
    pub slot: Slot,
    pub bytes: &'a [u8],
    /// The last record goes on in the next records.
    pub goes_on: bool,
}

/// How much [`Walk::step`] does under one lock.
#[derive(Debug, Clone, Copy)]
pub struct PieceLimit {
    /// Entries that are looked at.
    pub entries: usize,
    /// Bytes of records, unless a single one is larger.
    pub bytes: usize,
}

/// What writers saved of the entries of some slots.
#[derive(Default)]
struct Side {
    /// None while no snapshot runs, or while one only ends its walk.
    encoder: Option<Encoder>,
    records: BTreeMap<DbIndex, Records>,
    /// Databases that SWAPDB has renamed since the beginning: what they are now, and what they were.
    renamed: BTreeMap<DbIndex, DbIndex>,
    /// How often it has.
    swaps: u64,
}

impl Side {
    /// What the database was called when the snapshot began.
    fn original(&self, db: DbIndex) -> DbIndex {
        self.renamed.get(&db).copied().unwrap_or(db)
    }
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

/// A table that was taken out of the keyspace before the walk reached it.
#[derive(Debug)]
struct Taken {
    slot: Slot,
    db: DbIndex,
    table: Table<Entry>,
    position: ScanPosition,
}

/// The part of a snapshot that those who change the keyspace see.
#[derive(Debug, Default)]
pub struct CopyOnWrite {
    mark: AtomicU8,
    /// Locked after a slot, never before.
    sides: [Mutex<Side>; SIDES],
    /// Slots below this are saved; `SLOT_COUNT` without a snapshot. Changes under the lock of the slot that it passes.
    walked: AtomicUsize,
    taken: Mutex<VecDeque<Taken>>,
    /// Locked after a slot or a side, never before.
    large: Mutex<LargeValues>,
    /// Bytes in `sides`.
    held_bytes: AtomicUsize,
    /// Bytes that writers have saved since the beginning.
    saved_bytes: AtomicUsize,
}

impl CopyOnWrite {
    #[inline]
    pub fn mark(&self) -> SnapshotMark {
        // Whoever executes has passed a gate that was closed while this changed.
        SnapshotMark::from_bits(self.mark.load(Ordering::Relaxed))
    }

    fn side(&self, slot: Slot) -> MutexGuard<'_, Side> {
        self.sides[slot.index() % SIDES].lock()
    }

    /// Saves what an entry has been so far, before its first change. The slot is locked.
    #[cold]
    pub fn save_old(&self, slot: Slot, db: DbIndex, entry: &mut Entry) {
        entry.set_mark(self.mark());
        let mut side = self.side(slot);
        let original = side.original(db);
        let Side { encoder: Some(encoder), records, .. } = &mut *side else { return };
        if encoder.form(entry) == Form::LargeCollection {
            return self.begin_large(slot, (db, original), entry, encoder);
        }
        let records = records.entry(original).or_default();
        let before = records.bytes.len();
        records.add(slot, encoder, entry);
        let added = records.bytes.len() - before;
        self.held_bytes.fetch_add(added, Ordering::Relaxed);
        self.saved_bytes.fetch_add(added, Ordering::Relaxed);
    }

    /// Takes what the running snapshot needs of tables that were taken out of a slot; the rest is to be dropped. The
    /// slot is still locked.
    pub fn keep_taken(&self, slot: Slot, mut tables: Vec<(DbIndex, Table<Entry>)>) -> Vec<Table<Entry>> {
        self.keep_from_tables(slot, &mut tables);
        let is_saved = slot.index() < self.walked.load(Ordering::Relaxed);
        let side = self.side(slot);
        if is_saved || side.encoder.is_none() {
            return tables.into_iter().map(|(_, table)| table).collect();
        }
        let kept = |(db, table)| Taken { slot, db: side.original(db), table, position: 0 };
        self.taken.lock().extend(tables.into_iter().map(kept));
        Vec::new()
    }

    /// Two databases have changed places. All slots are locked.
    pub fn swap_dbs(&self, a: DbIndex, b: DbIndex) {
        for side in &self.sides {
            let mut side = side.lock();
            let (was_a, was_b) = (side.original(a), side.original(b));
            side.renamed.extend([(a, was_b), (b, was_a)]);
            side.swaps += 1;
        }
        self.large.lock().swap_dbs(a, b);
    }

    /// Bytes of records that writers have saved and that were not yet taken by the walk.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of records that writers have saved since the beginning.
    pub fn saved_bytes(&self) -> usize {
        self.saved_bytes.load(Ordering::Relaxed)
    }
}

/// The walk of one snapshot over the keyspace.
pub struct Walk {
    mark: SnapshotMark,
    /// None: nobody wants the records any more, the walk only ends in order.
    encoder: Option<Encoder>,
    next: Option<Slot>,
    /// Within the next slot.
    db: DbIndex,
    position: ScanPosition,
    swaps: u64,
    /// Long strings of the next slot, which come after the others, each in several pieces. They keep the old mark
    /// until they are saved as a whole: who changes one in the middle saves it himself.
    long: Vec<(DbIndex, Box<[u8]>)>,
    /// Of the last of them: where its record goes on, and what there is of it.
    partial: Option<(Option<usize>, Vec<u8>)>,
    /// The large collection of which a part was given: no other record comes before its end.
    open: Option<u64>,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("next", &self.next).field("db", &self.db).finish_non_exhaustive()
    }
}

impl Walk {
    /// Begins a snapshot: it is of this moment. No command runs, nor another snapshot.
    pub fn begin(space: &Keyspace, encoder: Encoder) -> Walk {
        let cow = &space.cow;
        let mark = cow.mark().other();
        cow.mark.store(mark.bits(), Ordering::Relaxed);
        cow.walked.store(0, Ordering::Relaxed);
        cow.saved_bytes.store(0, Ordering::Relaxed);
        for side in &cow.sides {
            let mut side = side.lock();
            assert!(side.encoder.is_none() && side.records.is_empty(), "one snapshot runs at a time");
            *side = Side { encoder: Some(Arc::clone(&encoder)), ..Side::default() };
        }
        Walk {
            mark,
            encoder: Some(encoder),
            next: Slot::new(0),
            db: 0,
            position: 0,
            swaps: 0,
            long: Vec::new(),
            partial: None,
            open: None,
        }
    }

    /// Nobody wants the records any more. The walk has to be ended nevertheless.
    pub fn discard(&mut self, space: &Keyspace) {
        self.encoder = None;
        (self.db, self.position) = (0, 0);
        self.long.clear();
        (self.partial, self.open) = (None, None);
        for side in &space.cow.sides {
            side.lock().encoder = None;
        }
        space.cow.discard_large(space);
        space.cow.taken.lock().clear();
        self.take_saved(space, &mut Vec::new());
    }

    /// Whether everything is saved, but for what [`Walk::take_saved`] and [`Walk::step`] still give.
    pub fn is_over(&self) -> bool {
        self.next.is_none()
    }

    /// The slot that is to be visited next, the number of slots after the last.
    pub fn slots_walked(&self) -> u16 {
        self.next.map_or(SLOT_COUNT, Slot::number)
    }

    /// Whether tables that were taken out of the keyspace are still to be saved.
    pub fn has_taken(&self, space: &Keyspace) -> bool {
        !space.cow.taken.lock().is_empty()
    }

    /// Moves what writers have saved to `out`.
    pub fn take_saved(&mut self, space: &Keyspace, out: &mut Vec<Records>) {
        if self.open.is_some() {
            return;
        }
        for side in &space.cow.sides {
            let records = std::mem::take(&mut side.lock().records);
            for (db, records) in records {
                space.cow.held_bytes.fetch_sub(records.bytes.len(), Ordering::Relaxed);
                out.push(Records { db, ..records });
            }
        }
    }

    /// Saves a piece: of a large collection, if the saving of one has begun, or of a table that was taken out of the
    /// keyspace, else of the next slot. False if there was nothing left to do.
    pub fn step(&mut self, space: &Keyspace, limit: PieceLimit, out: &mut Vec<Records>) -> bool {
        let large = self.open.or_else(|| space.cow.large.lock().first());
        if let (Some(id), Some(encoder)) = (large, &self.encoder) {
            let more = space.cow.step_large(space, id, limit.bytes, encoder, |slot, db| {
                let records = records_of(out, db);
                records.begin(slot);
                &mut records.bytes
            });
            self.open = more.then_some(id);
            if let Some(records) = out.last_mut() {
                records.goes_on = more;
                records.keys += u64::from(!more);
            }
            return true;
        }
        let taken = space.cow.taken.lock().pop_front();
        match (taken, self.next) {
            (Some(taken), _) => self.step_taken(space, taken, limit, out),
            (None, Some(slot)) => self.step_slot(space, slot, limit, out),
            (None, None) => return false,
        }
        true
    }

    /// A table that nobody else sees.
    fn step_taken(&self, space: &Keyspace, mut taken: Taken, limit: PieceLimit, out: &mut Vec<Records>) {
        debug_assert!(self.next.is_none_or(|next| next <= taken.slot), "tables of saved slots are not kept");
        let records = records_of(out, taken.db);
        let mut piece = Piece::new(self, taken.slot, limit);
        let mut large: Vec<Box<[u8]>> = Vec::new();
        let mut next = Some(taken.position);
        while let Some(position) = next.filter(|_| !piece.is_full()) {
            next = taken.table.scan_mut(position, &mut |entry| match piece.form(entry) {
                Form::LargeCollection => large.push(entry.key().into()),
                Form::LongString | Form::Small => piece.save(entry, records),
            });
        }
        for key in large {
            if let (Some(entry), Some(encoder)) = (taken.table.remove(hash_of(&key), &key), &self.encoder) {
                space.cow.own_large(taken.slot, taken.db, entry, encoder);
            }
        }
        if let Some(position) = next {
            taken.position = position;
            space.cow.taken.lock().push_front(taken);
        }
    }

    fn step_slot(&mut self, space: &Keyspace, slot: Slot, limit: PieceLimit, out: &mut Vec<Records>) {
        let mut state = space.lock(slot);
        let originals = {
            let side = space.cow.side(slot);
            if side.swaps != self.swaps {
                // Other tables are in these databases now; what was saved of them is marked.
                (self.swaps, self.db, self.position) = (side.swaps, 0, 0);
                self.long.clear();
                self.partial = None;
            }
            side.renamed.clone()
        };
        if let Some((db, _)) = self.long.last().filter(|_| self.db == DbIndex::MAX) {
            let records = records_of(out, originals.get(db).copied().unwrap_or(*db));
            self.step_long(&mut state, slot, limit, records);
            if !self.long.is_empty() {
                return MutexGuard::unlock_fair(state);
            }
            return self.pass(space, slot);
        }
        let mut piece = Piece::new(self, slot, limit);
        let (mut at_db, mut at) = (self.db, self.position);
        while let Some((db, table)) = state.next_table_mut(at_db) {
            if piece.is_full() {
                (self.db, self.position) = (at_db, at);
                self.long.append(&mut piece.long);
                // Whoever waits for this slot goes first.
                return MutexGuard::unlock_fair(state);
            }
            if db != at_db {
                (at_db, at) = (db, 0);
            }
            let original = originals.get(&db).copied().unwrap_or(db);
            let records = records_of(out, original);
            let mut visit = |entry: &mut Entry| piece.visit(&space.cow, (db, original), entry, records);
            match (table.scan_mut(at, &mut visit), db.checked_add(1)) {
                (Some(position), _) => at = position,
                (None, Some(db)) => (at_db, at) = (db, 0),
                (None, None) => break,
            }
        }
        self.long.append(&mut piece.long);
        if self.long.is_empty() && space.cow.large.lock().is_empty() {
            self.pass(space, slot);
        } else {
            // Behind all databases: now the large ones.
            (self.db, self.position) = (DbIndex::MAX, 0);
        }
    }

    /// A piece of the last long string.
    fn step_long(&mut self, state: &mut SlotState, slot: Slot, limit: PieceLimit, records: &mut Records) {
        let Some((db, key)) = self.long.last() else { return };
        let entry = state.table_mut(*db).get_mut(hash_of(key), key).filter(|e| e.mark() != self.mark);
        let (Some(entry), Some(encoder)) = (entry, &self.encoder) else {
            // It was changed, and saved before that.
            self.partial = None;
            self.long.pop();
            return;
        };
        let (at, mut record) = self.partial.take().unwrap_or_default();
        let next = encoder.encode_string_piece(entry, at, limit.bytes, &mut record);
        if next.is_some() {
            self.partial = Some((next, record));
            return;
        }
        entry.set_mark(self.mark);
        records.begin(slot);
        records.bytes.append(&mut record);
        records.keys += 1;
        self.long.pop();
    }

    /// The slot is saved; its lock is held.
    fn pass(&mut self, space: &Keyspace, slot: Slot) {
        (self.db, self.position) = (0, 0);
        self.next = Slot::new(slot.number() + 1);
        space.cow.walked.store(usize::from(self.slots_walked()), Ordering::Relaxed);
    }

    /// Ends the snapshot. Everything was saved and taken.
    pub fn end(self, space: &Keyspace) {
        assert!(self.next.is_none() && space.cow.taken.lock().is_empty(), "the walk is not over");
        assert!(space.cow.large.lock().is_empty(), "large collections are not saved");
        for side in &space.cow.sides {
            let mut side = side.lock();
            assert!(side.records.is_empty(), "records were not taken");
            *side = Side::default();
        }
    }
}

/// What one step does.
struct Piece {
    slot: Slot,
    mark: SnapshotMark,
    encoder: Option<Encoder>,
    limit: PieceLimit,
    entries: usize,
    bytes: usize,
    /// Long strings, left for later.
    long: Vec<(DbIndex, Box<[u8]>)>,
}

impl Piece {
    fn new(walk: &Walk, slot: Slot, limit: PieceLimit) -> Piece {
        Piece {
            slot,
            mark: walk.mark,
            encoder: walk.encoder.clone(),
            limit,
            entries: 0,
            bytes: 0,
            long: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.limit.entries <= self.entries || self.limit.bytes <= self.bytes
    }

    /// How an entry is to be saved that may be saved already.
    fn form(&self, entry: &Entry) -> Form {
        match &self.encoder {
            Some(encoder) if entry.mark() != self.mark => encoder.form(entry),
            Some(_) | None => Form::Small,
        }
    }

    /// Saves an entry of the database `db`, which was called `original`, or begins to, or leaves it for later.
    fn visit(
        &mut self,
        cow: &CopyOnWrite,
        (db, original): (DbIndex, DbIndex),
        entry: &mut Entry,
        records: &mut Records,
    ) {
        match (self.form(entry), &self.encoder) {
            (Form::LongString, _) => {
                self.entries += 1;
                self.long.push((db, entry.key().into()));
            }
            (Form::LargeCollection, Some(encoder)) => {
                self.entries += 1;
                entry.set_mark(self.mark);
                cow.begin_large(self.slot, (db, original), entry, encoder);
            }
            (Form::LargeCollection, None) | (Form::Small, _) => self.save(entry, records),
        }
    }

    fn save(&mut self, entry: &mut Entry, records: &mut Records) {
        self.entries += 1;
        if entry.mark() == self.mark {
            return;
        }
        entry.set_mark(self.mark);
        if let Some(encoder) = &self.encoder {
            let before = records.bytes.len();
            records.add(self.slot, encoder, entry);
            self.bytes += records.bytes.len() - before;
        }
    }
}

/// Where records of this database are added.
fn records_of(out: &mut Vec<Records>, db: DbIndex) -> &mut Records {
    if out.last().is_none_or(|last| last.db != db) {
        out.push(Records { db, ..Records::default() });
    }
    out.last_mut().expect("one was just pushed, or is there")
}

#[cfg(test)]
mod tests;
