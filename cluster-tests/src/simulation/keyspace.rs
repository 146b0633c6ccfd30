//! What the engine of a simulated node holds: few slots, each with a register, a counter and a list, and the journal of
//! all writes that it has seen. The journal is what the invariants compare; clients see the values.

use bytes::Bytes;
use keyward_node::replication::full_sync::SlotReader;
use keyward_node::replication::{SlotSnapshot, SnapshotEnded, SnapshotPart};
use keyward_proto::ids::LogIndex;
use keyward_proto::slot::Slot;

pub(super) const SLOTS: usize = 3;
const WRITE_BYTES: usize = 9;
/// A slot with a longer journal is too large to be read under one lock, if its number is even.
const LARGE_LEN: usize = 3;

/// The writes of one command or transaction. What it sets and appends is its number, so no two are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) number: u64,
    pub(super) set: bool,
    pub(super) increment: bool,
    pub(super) append: bool,
}

impl Write {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.push(u8::from(self.set) | u8::from(self.increment) << 1 | u8::from(self.append) << 2);
    }

    fn decode(bytes: &[u8]) -> Write {
        let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let has = |bit: u8| bytes[8] & 1 << bit != 0;
        Write { number, set: has(0), increment: has(1), append: has(2) }
    }
}

/// An entry's payload.
pub(super) fn payload(slot: usize, write: Write) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(slot).expect("few slots")];
    write.encode(&mut bytes);
    bytes
}

/// `None`: the begin of a term.
pub(super) fn parse(payload: &[u8]) -> Option<(usize, Write)> {
    let (slot, write) = payload.split_first()?;
    Some((usize::from(*slot), Write::decode(write)))
}

/// The values of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Values {
    pub(super) register: Option<u64>,
    pub(super) counter: u64,
    pub(super) list_len: u64,
    /// Stands for the list's elements in their order.
    pub(super) list_hash: u64,
}

impl Values {
    pub(super) fn apply(&mut self, write: Write) {
        if write.set {
            self.register = Some(write.number);
        }
        self.counter += u64::from(write.increment);
        if write.append {
            self.list_len += 1;
            self.list_hash =
                (self.list_hash ^ (write.number + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotState {
    pub(super) journal: Vec<Write>,
    pub(super) values: Values,
    /// The log's index at the last write.
    pub(super) written: LogIndex,
}

impl SlotState {
    fn apply(&mut self, index: LogIndex, write: Write) {
        self.journal.push(write);
        self.values.apply(write);
        self.written = index;
    }

    fn encode(writes: &[Write]) -> Bytes {
        let mut bytes = Vec::with_capacity(writes.len() * WRITE_BYTES);
        writes.iter().for_each(|w| w.encode(&mut bytes));
        Bytes::from(bytes)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keyspace {
    pub(super) slots: [SlotState; SLOTS],
}

impl Keyspace {
    pub(super) fn apply(&mut self, index: LogIndex, payload: &[u8]) {
        if let Some((slot, write)) = parse(payload) {
            self.slots[slot].apply(index, write);
        }
    }

    pub(super) fn apply_part(&mut self, part: &SnapshotPart) {
        let Some(slot) = self.slots.get_mut(part.slot.index()) else { return };
        part.payload.chunks(WRITE_BYTES).for_each(|w| slot.apply(part.index, Write::decode(w)));
    }

    pub(super) fn keep(&mut self, is_kept: impl Fn(Slot) -> bool) {
        for slot in Slot::all().take(SLOTS).filter(|s| !is_kept(*s)) {
            self.slots[slot.index()] = SlotState::default();
        }
    }

    pub(super) fn journals(&self) -> [&[Write]; SLOTS] {
        std::array::from_fn(|slot| &self.slots[slot].journal[..])
    }
}

/// The slots of a primary, for a full sync.
pub(super) struct SlotsReader<'a> {
    pub(super) keyspace: &'a Keyspace,
    pub(super) last: LogIndex,
    /// Parts of large slots that are still to be sent.
    pub(super) large: &'a mut Option<Vec<SnapshotPart>>,
}

impl SlotReader for SlotsReader<'_> {
    fn read(&mut self, slot: Slot) -> Option<SlotSnapshot> {
        let journal = self.keyspace.slots.get(slot.index()).map_or(&[][..], |s| &s.journal);
        let is_large = LARGE_LEN < journal.len() && slot.number().is_multiple_of(2);
        (!is_large).then(|| SlotSnapshot { index: self.last, payload: SlotState::encode(journal) })
    }

    fn read_large(&mut self, slots: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
        let large = self.large.get_or_insert_with(|| {
            let mut parts = Vec::new();
            for &slot in slots {
                let journal = &self.keyspace.slots[slot.index()].journal;
                let (first, second) = journal.split_at(journal.len() / 2);
                let part = |writes, is_last| SnapshotPart {
                    slot,
                    index: self.last,
                    payload: SlotState::encode(writes),
                    is_last,
                };
                parts.extend([part(second, true), part(first, false)]);
            }
            parts
        });
        Ok(large.pop().into_iter().collect())
    }

    fn last_index(&self) -> LogIndex {
        self.last
    }
}
