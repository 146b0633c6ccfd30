//! A full sync, as the primary sends it: slot by slot, each read under its own lock, then the log.
//!
//! The slots are of different moments. That is mended by the log: it follows from the position at which the snapshot
//! *began*, and the replica skips for each slot what was executed before that slot was read. So nothing is held still
//! and no copy of the keyspace is made. The keyspace is of one moment again when the replica has applied everything
//! up to where the log was when the last slot was read.

use std::collections::VecDeque;

use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;

use super::messages::{Chunk, ChunkEnd, SnapshotPart};
use super::shared::SlotSnapshot;

/// Effects of one chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
/// Slots of one chunk at most, so that many empty slots do not hold up a beacon.
const CHUNK_PARTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct SnapshotSender {
    term: Term,
    from: Position,
    /// The slot to be read next, `None` after the last.
    next: Option<Slot>,
    /// Parts of slots that were read and do not fit into the last chunk.
    pending: VecDeque<SnapshotPart>,
    ended: bool,
}

impl SnapshotSender {
    /// `from`: the end of the log now.
    pub(crate) fn new(term: Term, from: Position) -> Self {
        SnapshotSender { term, from, next: Slot::new(0), pending: VecDeque::new(), ended: false }
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// Where the log goes on after the snapshot.
    pub(crate) fn from(&self) -> Position {
        self.from
    }

    /// The next chunk; `None` after the last. `last_index` is asked once, after the last slot was read.
    pub(crate) fn next_chunk(
        &mut self,
        now: Monotonic,
        mut read: impl FnMut(Slot) -> SlotSnapshot,
        last_index: impl FnOnce() -> LogIndex,
    ) -> Option<Chunk> {
        if self.ended {
            return None;
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES && parts.len() < CHUNK_PARTS {
            let Some(part) = self.next_part(&mut read) else { break };
            bytes += part.effects.len();
            parts.push(part);
        }
        self.ended = self.next.is_none() && self.pending.is_empty();
        let end = self.ended.then(|| ChunkEnd { from: self.from, consistent: last_index() });
        Some(Chunk { term: self.term, sent_at: now, parts, end })
    }

    fn next_part(&mut self, read: &mut impl FnMut(Slot) -> SlotSnapshot) -> Option<SnapshotPart> {
        if let Some(part) = self.pending.pop_front() {
            return Some(part);
        }
        let slot = self.next?;
        self.next = Slot::new(slot.number() + 1);
        let SlotSnapshot { index, parts } = read(slot);
        assert!(self.from.index <= index, "slot {slot} is of index {index}, before the snapshot's begin");
        let mut parts = parts.into_iter().map(|effects| SnapshotPart { slot, index, effects });
        let first = parts.next().unwrap_or(SnapshotPart { slot, index, effects: bytes::Bytes::new() });
        self.pending.extend(parts);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use keyward_proto::slot::SLOT_COUNT;

    use super::*;

    #[test]
    fn every_slot_is_sent_once_and_the_last_chunk_says_so() {
        let mut sender = SnapshotSender::new(Term::new(2), Position::new(2, 10));
        let mut parts = Vec::new();
        let mut end = None;
        while let Some(chunk) = sender.next_chunk(
            Monotonic::ZERO,
            |slot| SlotSnapshot {
                index: LogIndex::new(11),
                parts: if slot.number() == 5 {
                    vec![Bytes::from(vec![0; CHUNK_BYTES]); 3]
                } else {
                    Vec::new()
                },
            },
            || LogIndex::new(12),
        ) {
            assert!(end.is_none());
            parts.extend(chunk.parts);
            end = chunk.end;
        }
        assert_eq!(parts.len(), usize::from(SLOT_COUNT) + 2);
        assert!(parts.is_sorted_by_key(|p| p.slot));
        assert_eq!(end, Some(ChunkEnd { from: Position::new(2, 10), consistent: LogIndex::new(12) }));
    }
}
