//! What a replica has of a full sync, so that it goes on where it broke off.
//!
//! A slot is complete with its last part; what has come of the others is dropped when the stream breaks. The log goes
//! on from where the first stream began, so the slots that are complete lose nothing: for each of them the entries up
//! to its own index are skipped. Only within one term: then the primary is the same process, with the same history.

use std::sync::Arc;

use keyward_proto::ids::{LogIndex, Position};
use keyward_proto::slot::{SLOT_COUNT, Slot};

use super::messages::SnapshotPart;

const BITS: usize = 8;

/// Some of the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u8]>);

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet(vec![0; usize::from(SLOT_COUNT) / BITS].into())
    }
}

impl SlotSet {
    pub fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / BITS] |= 1 << (slot.index() % BITS);
    }

    pub fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / BITS] & 1 << (slot.index() % BITS) != 0
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `None` if it is not a bit for each slot.
    pub fn from_bytes(bytes: &[u8]) -> Option<SlotSet> {
        (bytes.len() == usize::from(SLOT_COUNT) / BITS).then(|| SlotSet(bytes.into()))
    }
}

/// Where a full sync that broke off may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Where the log goes on.
    pub from: Position,
    pub done: SlotSet,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Received {
    from: Position,
    /// At which index each complete slot was read.
    indexes: Vec<Option<LogIndex>>,
    slots: usize,
    bytes: u64,
}

impl Received {
    pub fn new(from: Position) -> Received {
        Received { from, indexes: vec![None; usize::from(SLOT_COUNT)], slots: 0, bytes: 0 }
    }

    pub fn from(&self) -> Position {
        self.from
    }

    pub fn note(&mut self, part: &SnapshotPart) {
        self.bytes += part.payload.len() as u64;
        if part.is_last && self.indexes[part.slot.index()].replace(part.index).is_none() {
            self.slots += 1;
        }
    }

    pub fn resume(&self) -> Resume {
        let mut done = SlotSet::default();
        Slot::all().filter(|slot| self.indexes[slot.index()].is_some()).for_each(|slot| done.insert(slot));
        Resume { from: self.from, done }
    }

    /// The index of every slot; `None` if some are missing.
    pub fn into_indexes(self) -> Option<Arc<[LogIndex]>> {
        self.indexes.into_iter().collect::<Option<Vec<LogIndex>>>().map(Arc::from)
    }

    /// Complete slots and bytes so far.
    pub fn progress(&self) -> (usize, u64) {
        (self.slots, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_slot_is_done_with_its_last_part() {
        let slot = Slot::new(9).unwrap();
        let part = |is_last| SnapshotPart {
            slot,
            index: LogIndex::new(5),
            payload: Bytes::from_static(b"xy"),
            is_last,
        };
        let mut received = Received::new(Position::new(1, 4));
        received.note(&part(false));
        assert_eq!(received.progress(), (0, 2));
        assert_eq!(received.resume().done, SlotSet::default());
        received.note(&part(true));
        assert_eq!(received.progress(), (1, 4));
        let done = received.resume().done;
        assert!(Slot::all().all(|s| done.contains(s) == (s == slot)));
        assert_eq!(SlotSet::from_bytes(done.as_bytes()), Some(done));
        assert_eq!(SlotSet::from_bytes(&[0; 3]), None);
        assert_eq!(received.into_indexes(), None);
    }
}
