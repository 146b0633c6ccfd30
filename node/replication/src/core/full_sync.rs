//! A full sync, as the primary sends it: slot by slot, each read under its own lock, then the log.
//!
//! The slots are of different moments. That is mended by the log: it follows from the position at which the sync
//! *began*, and the replica skips for each slot what was executed before that slot was read. So nothing is held still,
//! no old value is kept for a slow replica, and a sync that broke off goes on with the slots that are missing. The
//! keyspace is of one moment again when the replica has applied everything up to where the log was when the last slot
//! was read.
//!
//! A slot that is too large to be read under one lock waits until all others are sent. Then one snapshot of the
//! keyspace gives all of these, in pieces, all of the snapshot's moment.

use std::collections::VecDeque;

use bytes::Bytes;
use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;

use super::messages::{Chunk, SnapshotPart};
use super::received::{Resume, SlotSet};

/// Payload of one chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
/// Slots of one chunk at most, so that many empty slots do not hold up a beacon.
const CHUNK_PARTS: usize = 1024;

/// A slot as it was at one log index.
#[derive(Debug, Clone, Default)]
pub struct SlotSnapshot {
    /// The log's last index at that moment.
    pub index: LogIndex,
    /// What rebuilds the slot; only the engine knows what is in it.
    pub payload: Bytes,
}

/// The source of large slots has ended before its end: the stream ends, and the replica asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of large slots has ended")]
pub struct SnapshotEnded;

/// Gives the slots.
pub trait SlotReader {
    /// A slot as it is now; `None` if it is too large.
    fn read(&mut self, slot: Slot) -> Option<SlotSnapshot>;
    /// Parts of these slots, which are too large to be read at once; empty after the last.
    fn read_large(&mut self, slots: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded>;
    /// Where the log ends.
    fn last_index(&self) -> LogIndex;
}

#[derive(Debug)]
pub struct SnapshotSender {
    term: Term,
    from: Position,
    /// What the replica has already.
    done: SlotSet,
    /// The slot to be read next, `None` after the last.
    next: Option<Slot>,
    /// Too large to be read at once.
    large: Vec<Slot>,
    /// Parts that were read and do not fit into the last chunk.
    pending: VecDeque<SnapshotPart>,
    ended: bool,
}

impl SnapshotSender {
    /// `from`: the end of the log now.
    pub fn new(term: Term, from: Position) -> Self {
        SnapshotSender::resume(term, Resume { from, done: SlotSet::default() })
    }

    /// Goes on with a sync that broke off.
    pub fn resume(term: Term, resume: Resume) -> Self {
        SnapshotSender {
            term,
            from: resume.from,
            done: resume.done,
            next: Slot::new(0),
            large: Vec::new(),
            pending: VecDeque::new(),
            ended: false,
        }
    }

    pub fn term(&self) -> Term {
        self.term
    }

    /// Where the log goes on after the snapshot.
    pub fn from(&self) -> Position {
        self.from
    }

    /// The next chunk; `None` after the last.
    pub fn next_chunk(
        &mut self,
        now: Monotonic,
        reader: &mut dyn SlotReader,
    ) -> Result<Option<Chunk>, SnapshotEnded> {
        if self.ended {
            return Ok(None);
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES && parts.len() < CHUNK_PARTS {
            let Some(part) = self.next_part(reader)? else {
                self.ended = true;
                break;
            };
            assert!(self.from.index <= part.index, "slot {} was read before the sync began", part.slot);
            bytes += part.payload.len();
            parts.push(part);
        }
        let end = self.ended.then(|| reader.last_index());
        Ok(Some(Chunk { term: self.term, sent_at: now, from: self.from, parts, end }))
    }

    fn next_part(&mut self, reader: &mut dyn SlotReader) -> Result<Option<SnapshotPart>, SnapshotEnded> {
        loop {
            if let Some(part) = self.pending.pop_front() {
                return Ok(Some(part));
            }
            let Some(slot) = self.next else { break };
            self.next = Slot::new(slot.number() + 1);
            if self.done.contains(slot) {
                continue;
            }
            match reader.read(slot) {
                Some(SlotSnapshot { index, payload }) => {
                    return Ok(Some(SnapshotPart { slot, index, payload, is_last: true }));
                }
                None => self.large.push(slot),
            }
        }
        if !self.large.is_empty() {
            self.pending = reader.read_large(&self.large)?.into();
        }
        Ok(self.pending.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::slot::SLOT_COUNT;

    use super::*;

    /// Slot 5 is large and comes in three parts.
    struct Slots {
        large_parts: u8,
    }

    impl SlotReader for Slots {
        fn read(&mut self, slot: Slot) -> Option<SlotSnapshot> {
            let payload = Bytes::from(vec![0; usize::from(slot.number() == 7) * CHUNK_BYTES]);
            (slot.number() != 5).then(|| SlotSnapshot { index: LogIndex::new(11), payload })
        }

        fn read_large(&mut self, slots: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
            assert_eq!(slots, [Slot::new(5).unwrap()]);
            self.large_parts += 1;
            let part = SnapshotPart {
                slot: slots[0],
                index: LogIndex::new(12),
                payload: Bytes::from(vec![0; CHUNK_BYTES]),
                is_last: self.large_parts == 3,
            };
            Ok(if self.large_parts <= 3 { vec![part] } else { Vec::new() })
        }

        fn last_index(&self) -> LogIndex {
            LogIndex::new(13)
        }
    }

    fn send(mut sender: SnapshotSender) -> Vec<SnapshotPart> {
        let mut slots = Slots { large_parts: 0 };
        let (mut parts, mut end) = (Vec::new(), None);
        while let Some(chunk) = sender.next_chunk(Monotonic::ZERO, &mut slots).unwrap() {
            assert!(end.is_none());
            assert_eq!(chunk.from, Position::new(2, 10));
            parts.extend(chunk.parts);
            end = chunk.end;
        }
        assert_eq!(end, Some(LogIndex::new(13)));
        parts
    }

    #[test]
    fn every_slot_is_sent_once_and_the_last_chunk_says_so() {
        let parts = send(SnapshotSender::new(Term::new(2), Position::new(2, 10)));
        assert_eq!(parts.len(), usize::from(SLOT_COUNT) + 2);
        let last: Vec<Slot> = parts.iter().filter(|p| p.is_last).map(|p| p.slot).collect();
        assert_eq!(last.len(), usize::from(SLOT_COUNT));
        assert_eq!(last.last().unwrap().number(), 5);
    }

    #[test]
    fn a_sync_goes_on_with_what_is_missing() {
        let mut done = SlotSet::default();
        Slot::all().filter(|s| ![3, 5].contains(&s.number())).for_each(|s| done.insert(s));
        let resume = Resume { from: Position::new(2, 10), done };
        let parts = send(SnapshotSender::resume(Term::new(2), resume));
        assert_eq!(parts.iter().map(|p| p.slot.number()).collect::<Vec<_>>(), [3, 5, 5, 5]);
    }
}
