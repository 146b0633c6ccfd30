//! The write log: the one ordered list of a node's effects.
//!
//! A primary copies its own entries into the open chunk; a replica keeps the received bytes as they are. Readers
//! (the senders to replicas, the AOF writer) get slices of the same memory: nothing is copied for them, except
//! that neighbouring tiny segments are gathered for a reader that lags.
//!
//! What an entry is: [`keyward_proto::entry`].
//!
//! Invariants, checked by [`WriteLog::check_invariants`]:
//! - indexes are contiguous and terms never fall;
//! - all entries of one segment have one term;
//! - an entry is dropped only when it was released (committed and applied) and the ring is full, and, if the log is
//!   also written to disk, when it has been written there: see [`disk`].
//!
//! Pure: no clock, no lock, no task.

mod disk;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use keyward_proto::entry::{LENGTH_BYTES, LONG_BYTES, frames};
use keyward_proto::ids::{LogIndex, Position, ShardId, Term};

use disk::Disk;
pub use disk::Rewind;

/// Every so many entries a segment notes a byte offset, so that a reader can start in its middle.
const OFFSET_STRIDE: u64 = 64;
/// Segments below this size are gathered with their neighbours when they are read.
const GATHER_BYTES: usize = 16 << 10;
/// Bytes that a segment costs beside its entries.
const SEGMENT_OVERHEAD: usize = 128;
/// Beyond its capacity the ring keeps so much for readers that lag; then they have to start afresh.
const PINNED_BYTES_MAX: usize = 256 << 20;

/// What is kept for a reader.
#[derive(Debug, Clone, Copy)]
struct Pin {
    /// Up to here it has read.
    index: LogIndex,
    /// Not if the ring had more than this beyond its capacity.
    bytes_max: usize,
}

/// The first index that a log knows of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermStart {
    pub term: Term,
    pub first_index: LogIndex,
}

/// Whether terms may be those of a log that ends at `last`: in order, and the last one is the last entry's.
pub fn is_history(terms: &[TermStart], last: Position) -> bool {
    terms.windows(2).all(|w| w[0].term < w[1].term && w[0].first_index < w[1].first_index)
        && terms.last().is_none_or(|t| t.term == last.term && t.first_index <= last.index)
}

/// Consecutive entries of one term, as they go over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The entry before the first.
    pub previous: Position,
    /// Of all entries in here.
    pub term: Term,
    pub first: LogIndex,
    pub count: u64,
    /// Framed entries: see [`frames`].
    pub bytes: Bytes,
}

impl Slice {
    /// No entries after this one.
    pub fn empty(previous: Position) -> Slice {
        Slice { previous, term: previous.term, first: previous.index.next(), count: 0, bytes: Bytes::new() }
    }

    /// The last entry; `previous` if there is none.
    pub fn last(&self) -> Position {
        match self.count {
            0 => self.previous,
            count => Position { term: self.term, index: LogIndex::new(self.first.get() + count - 1) },
        }
    }

    /// The entries up to `index`.
    pub fn up_to(self, index: LogIndex) -> Slice {
        if self.last().index <= index || self.count == 0 {
            return self;
        }
        let count = (index.get() + 1).saturating_sub(self.first.get());
        let kept = frames(&self.bytes).take(usize::try_from(count).unwrap_or(usize::MAX));
        let bytes: usize = kept.map(|frame| LENGTH_BYTES + frame.len()).sum();
        Slice { count, bytes: self.bytes.slice(..bytes), ..self }
    }
}

/// The wanted entry has left the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the write log begins at {first}")]
pub struct Trimmed {
    pub first: LogIndex,
}

/// Why received entries do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("entries follow {previous}, but the log ends at {last}")]
    Gap { previous: Position, last: Position },
    #[error("entries of term {term} after term {last}")]
    OldTerm { term: Term, last: Term },
    #[error("malformed entry frames")]
    Malformed,
}

/// Framed entries of one term that no longer change.
#[derive(Debug)]
struct Segment {
    term: Term,
    first: u64,
    count: u64,
    bytes: Bytes,
    /// Byte offset of every [`OFFSET_STRIDE`]th entry but the first.
    offsets: Vec<u32>,
}

impl Segment {
    fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// Where entry `index` begins; the end of the bytes for the index after the last.
    fn offset_of(&self, index: u64) -> usize {
        debug_assert!(self.first <= index && index <= self.first + self.count);
        let nth = index - self.first;
        let stride = usize::try_from(nth / OFFSET_STRIDE).expect("segments are small");
        let (mut at, skip) = match stride.checked_sub(1).and_then(|i| self.offsets.get(i)) {
            Some(&offset) => (offset as usize, nth % OFFSET_STRIDE),
            None => (0, nth),
        };
        for _ in 0..skip {
            at += frame_bytes(&self.bytes[at..]);
        }
        at
    }
}

fn frame_bytes(bytes: &[u8]) -> usize {
    let length: [u8; LENGTH_BYTES] = bytes[..LENGTH_BYTES].try_into().expect("four bytes");
    LENGTH_BYTES + u32::from_le_bytes(length) as usize
}

/// The entries that a primary is adding; becomes a [`Segment`] when it is read or full.
#[derive(Debug, Default)]
struct OpenChunk {
    term: Term,
    first: u64,
    count: u64,
    bytes: BytesMut,
    offsets: Vec<u32>,
}

/// The end of a history that a full sync has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub last: Position,
    pub shard: Option<ShardId>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct WriteLog {
    capacity_bytes: usize,
    /// Off while nobody reads: only the index advances.
    keeps_entries: bool,
    /// Before the first entry that is held.
    base: LogIndex,
    last: Position,
    /// The last entry that this node has executed itself before it appended it.
    executed: LogIndex,
    terms: Vec<TermStart>,
    segments: VecDeque<Segment>,
    open: OpenChunk,
    /// Bytes of `segments`, with their overhead.
    segment_bytes: usize,
    /// Entries up to here may be dropped.
    released: LogIndex,
    /// Readers that still need what follows an index; see [`WriteLog::pin`].
    pins: BTreeMap<u64, Pin>,
    /// `None`: the log is not written to disk.
    disk: Option<Disk>,
    /// Whose history this is; `None` while the node has written on its own only.
    shard: Option<ShardId>,
    noted_commit: Option<LogIndex>,
    /// What the files may still have, until there is a base of the new history.
    replaced: Option<Replaced>,
}

impl WriteLog {
    /// A log that drops released entries beyond `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Self {
        WriteLog {
            capacity_bytes,
            keeps_entries: true,
            base: LogIndex::ZERO,
            last: Position::ZERO,
            executed: LogIndex::ZERO,
            terms: Vec::new(),
            segments: VecDeque::new(),
            open: OpenChunk::default(),
            segment_bytes: 0,
            released: LogIndex::ZERO,
            pins: BTreeMap::new(),
            disk: None,
            shard: None,
            noted_commit: None,
            replaced: None,
        }
    }

    /// The shard whose history this is.
    pub fn shard(&self) -> Option<&ShardId> {
        self.shard.as_ref()
    }

    /// What the files say was committed, if they know: not all of their base need have been.
    pub fn noted_commit(&self) -> Option<LogIndex> {
        self.noted_commit
    }

    pub fn note_commit(&mut self, index: LogIndex) {
        self.noted_commit = Some(index);
    }

    pub fn set_shard(&mut self, shard: Option<ShardId>) {
        self.shard = shard;
    }

    /// What the log says is the history of no shard any more, but this node's own, without terms. Entries after `applied`
    /// stay: nobody else has a say whether they were.
    pub fn disown(&mut self, applied: LogIndex) {
        assert!(
            self.base <= applied && applied <= self.last.index,
            "a part of the log is neither here nor applied"
        );
        self.seal();
        let tail: Vec<Bytes> = self
            .segments
            .iter()
            .filter(|s| applied.get() < s.last())
            .map(|s| s.bytes.slice(s.offset_of(s.first.max(applied.get() + 1))..))
            .collect();
        self.reset(Position { term: Term::ZERO, index: applied });
        for payload in tail.iter().flat_map(|bytes| frames(bytes)) {
            self.append_unexecuted(Term::ZERO, payload);
        }
        self.shard = None;
    }

    /// From now on entries are kept for readers.
    pub fn keep_entries(&mut self) {
        self.keeps_entries = true;
    }

    /// Nobody reads entries any more: a node alone without AOF needs none of them.
    pub fn keep_no_entries(&mut self) {
        self.keeps_entries = false;
        self.drop_entries();
    }

    pub fn set_capacity_bytes(&mut self, bytes: usize) {
        self.capacity_bytes = bytes;
        self.trim();
    }

    /// The last entry, (0, 0) if there never was one.
    #[inline]
    pub fn last(&self) -> Position {
        self.last
    }

    /// The last entry that this node has executed before it appended it; what it received is applied elsewhere.
    pub fn executed(&self) -> LogIndex {
        self.executed
    }

    /// The first entry that can still be read; one after the last if there is none.
    pub fn first_index(&self) -> LogIndex {
        self.base.next()
    }

    /// Where each known term begins, ascending.
    pub fn terms(&self) -> &[TermStart] {
        &self.terms
    }

    /// The term of an entry, as far back as the terms are known.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::ZERO {
            return Some(Term::ZERO);
        }
        if index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|t| t.first_index <= index);
        after.checked_sub(1).map(|i| self.terms[i].term)
    }

    /// Whether this very entry is in the history: another term may have another one at its index.
    pub fn has(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// Whether entries that were read elsewhere are of this history.
    pub fn agrees_with(&self, slice: &Slice) -> bool {
        self.has(slice.previous) && self.has(slice.last())
    }

    /// Bytes held, with the overhead of their segments.
    pub fn bytes(&self) -> usize {
        self.segment_bytes + self.open.bytes.len()
    }

    /// As [`WriteLog::bytes`], with the room that is left in the open chunk.
    pub fn allocated_bytes(&self) -> usize {
        self.segment_bytes + self.open.bytes.capacity()
    }

    /// Entries up to `index` are committed and applied: they may be dropped.
    pub fn release(&mut self, index: LogIndex) {
        self.released = index.min(self.last.index).min(self.written());
        self.trim();
    }

    /// `reader` has read up to `index`: what follows is kept for it, within a limit, even if the ring is full. Used by
    /// a full sync, which needs the log from its begin, and by whoever writes the log to disk.
    pub fn pin(&mut self, reader: u64, index: LogIndex) {
        // What more was allowed is taken back when it is needed no more.
        let is_small = self.bytes() <= self.capacity_bytes.saturating_add(PINNED_BYTES_MAX);
        let kept = self.pins.get(&reader).filter(|_| !is_small);
        let bytes_max = kept.map_or(PINNED_BYTES_MAX, |pin| pin.bytes_max);
        self.pins.insert(reader, Pin { index, bytes_max });
    }

    /// As [`WriteLog::pin`], with a limit of `bytes` if that is more, for who reads a keyspace of so many bytes first: its
    /// time grows with them, and so does what is written meanwhile. With a fixed limit it would begin for ever anew.
    pub fn pin_for_keyspace(&mut self, reader: u64, index: LogIndex, bytes: usize) {
        self.pins.insert(reader, Pin { index, bytes_max: bytes.max(PINNED_BYTES_MAX) });
    }

    pub fn unpin(&mut self, reader: u64) {
        self.pins.remove(&reader);
        self.trim();
    }

    /// Appends an entry that this node has executed; it is copied.
    #[inline]
    pub fn append(&mut self, term: Term, payload: &[u8]) -> LogIndex {
        let index = self.append_unexecuted(term, payload);
        self.executed = index;
        index
    }

    /// As [`WriteLog::append`], without a copy: see [`EffectBuffer::take_long`].
    pub fn append_frame(&mut self, term: Term, frame: Bytes) -> LogIndex {
        debug_assert_eq!(frame_bytes(&frame), frame.len());
        let index = self.advance(term);
        if self.keeps_entries {
            self.seal();
            self.count_unwritten(frame.len());
            self.push_segment(Segment {
                term,
                first: index.get(),
                count: 1,
                bytes: frame,
                offsets: Vec::new(),
            });
            self.trim();
        } else {
            self.base = index;
        }
        self.executed = index;
        index
    }

    /// Appends an entry that is still to be applied, and others before it: the begin of a term, or what a disk has.
    #[inline]
    pub fn append_unexecuted(&mut self, term: Term, payload: &[u8]) -> LogIndex {
        let index = self.advance(term);
        if self.keeps_entries {
            self.copy_into_chunk(term, index, payload);
            self.count_unwritten(LENGTH_BYTES + payload.len());
        } else {
            self.base = index;
        }
        index
    }

    /// Makes room in the order for one more entry.
    #[inline]
    fn advance(&mut self, term: Term) -> LogIndex {
        assert!(term >= self.last.term, "append of term {term} after term {}", self.last.term);
        let index = self.last.index.next();
        if self.terms.last().is_none_or(|t| t.term != term) {
            self.begin_term(term, index);
        }
        self.last = Position { term, index };
        index
    }

    fn copy_into_chunk(&mut self, term: Term, index: LogIndex, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("an entry is smaller than 4 GiB");
        let needed = LENGTH_BYTES + payload.len();
        if self.open.bytes.capacity() - self.open.bytes.len() < needed {
            self.seal();
            self.open.bytes = BytesMut::with_capacity(needed.max(LONG_BYTES));
            self.trim();
        } else if self.open.term != term {
            self.seal();
        }
        let open = &mut self.open;
        if open.count == 0 {
            open.term = term;
            open.first = index.get();
        } else if open.count.is_multiple_of(OFFSET_STRIDE) {
            open.offsets
                .push(u32::try_from(open.bytes.len()).expect("several entries share less than 4 GiB"));
        }
        open.bytes.put_u32_le(length);
        open.bytes.put_slice(payload);
        open.count += 1;
    }

    /// Makes a segment of what the open chunk holds; the rest of its buffer stays in use.
    fn seal(&mut self) {
        if self.open.count == 0 {
            return;
        }
        let segment = Segment {
            term: self.open.term,
            first: self.open.first,
            count: std::mem::take(&mut self.open.count),
            bytes: self.open.bytes.split().freeze(),
            offsets: std::mem::take(&mut self.open.offsets),
        };
        self.push_segment(segment);
    }

    fn push_segment(&mut self, segment: Segment) {
        self.segment_bytes += segment.bytes.len() + SEGMENT_OVERHEAD;
        self.segments.push_back(segment);
    }

    /// Appends entries that a primary sent; their bytes are kept, not copied.
    pub fn append_received(
        &mut self,
        term: Term,
        previous: Position,
        count: u64,
        frames: Bytes,
    ) -> Result<Position, AppendError> {
        if previous != self.last {
            return Err(AppendError::Gap { previous, last: self.last });
        }
        if count == 0 {
            return if frames.is_empty() { Ok(self.last) } else { Err(AppendError::Malformed) };
        }
        if term < self.last.term {
            return Err(AppendError::OldTerm { term, last: self.last.term });
        }
        let offsets = frame_offsets(&frames, count).ok_or(AppendError::Malformed)?;
        self.seal();
        let first = self.last.index.next();
        if self.terms.last().is_none_or(|t| t.term != term) {
            self.begin_term(term, first);
        }
        self.last = Position { term, index: LogIndex::new(first.get() + count - 1) };
        self.count_unwritten(frames.len());
        self.push_segment(Segment { term, first: first.get(), count, bytes: frames, offsets });
        self.trim();
        Ok(self.last)
    }

    fn begin_term(&mut self, term: Term, first_index: LogIndex) {
        self.terms.push(TermStart { term, first_index });
        // What lies before the ring is of use only to tell that a full sync is due.
        while self.terms.len() > MAX_TERMS && self.terms[1].first_index <= self.base {
            self.terms.remove(0);
        }
    }

    /// Entries from `next` on, of one term, about `max_bytes` at most but at least one entry; an empty slice at
    /// the end of the log.
    pub fn read_from(&mut self, next: LogIndex, max_bytes: usize) -> Result<Slice, Trimmed> {
        let trimmed = Trimmed { first: self.first_index() };
        if next <= self.base {
            return Err(trimmed);
        }
        assert!(next <= self.last.index.next(), "read from {next} beyond the end {}", self.last);
        let before = LogIndex::new(next.get() - 1);
        let previous = Position { term: self.term_at(before).ok_or(trimmed)?, index: before };
        if next > self.last.index {
            return Ok(Slice { previous, term: self.last.term, first: next, count: 0, bytes: Bytes::new() });
        }
        self.seal();
        let at = self.segments.partition_point(|s| s.last() < next.get());
        let segment = &self.segments[at];
        let start = segment.offset_of(next.get());
        let available = segment.bytes.len() - start;
        let (count, bytes) = if available > max_bytes {
            cut(segment, next.get(), start, max_bytes)
        } else if available >= GATHER_BYTES || at + 1 == self.segments.len() {
            (segment.last() - next.get() + 1, segment.bytes.slice(start..))
        } else {
            self.gather(at, next.get(), start, max_bytes)
        };
        Ok(Slice { previous, term: self.segments[at].term, first: next, count, bytes })
    }

    /// Copies neighbouring small segments of one term together.
    fn gather(&self, at: usize, next: u64, start: usize, max_bytes: usize) -> (u64, Bytes) {
        let first = &self.segments[at];
        let mut count = first.last() - next + 1;
        let mut together = BytesMut::from(&first.bytes[start..]);
        for segment in self.segments.iter().skip(at + 1) {
            if segment.term != first.term || together.len() + segment.bytes.len() > max_bytes {
                break;
            }
            together.extend_from_slice(&segment.bytes);
            count += segment.count;
        }
        (count, together.freeze())
    }

    /// Drops everything after `index`: entries that were never committed.
    pub fn truncate_after(&mut self, index: LogIndex) {
        if index >= self.last.index {
            return;
        }
        assert!(index >= self.base, "truncation to {index} before the ring's begin {}", self.first_index());
        assert!(index >= self.released, "truncation to {index} below released entries ({})", self.released);
        self.seal();
        while let Some(segment) = self.segments.back_mut() {
            if segment.last() <= index.get() {
                break;
            }
            self.segment_bytes -= segment.bytes.len() + SEGMENT_OVERHEAD;
            if segment.first > index.get() {
                self.segments.pop_back();
                continue;
            }
            let end = segment.offset_of(index.get() + 1);
            segment.bytes.truncate(end);
            segment.count = index.get() - segment.first + 1;
            segment.offsets.retain(|&offset| (offset as usize) < end);
            self.segment_bytes += segment.bytes.len() + SEGMENT_OVERHEAD;
        }
        self.executed = self.executed.min(index);
        self.terms.retain(|t| t.first_index <= index);
        self.last = Position { term: self.terms.last().map_or(Term::ZERO, |t| t.term), index };
        self.rewind_disk(Rewind::To(index));
    }

    /// Empties the log; the next entry follows `position`.
    pub fn reset(&mut self, position: Position) {
        self.last = position;
        self.executed = LogIndex::ZERO;
        self.released = position.index;
        self.terms.clear();
        if position.index > LogIndex::ZERO {
            self.terms.push(TermStart { term: position.term, first_index: position.index });
        }
        self.drop_entries();
        self.rewind_disk(Rewind::All);
    }

    /// A full sync puts the history of `shard`, up to `position`, in the place of this one.
    pub fn replace(&mut self, position: Position, shard: Option<ShardId>) {
        let replaced = Replaced { last: self.last, shard: self.shard.take() };
        // One that was broken off has replaced nothing in the files yet.
        self.replaced.get_or_insert(replaced);
        self.reset(position);
        self.shard = shard;
    }

    /// The history before, if what replaces it is not as old: of another shard, or short of its end. Its files may be the
    /// only ones that have it: sentinels that had lost their state, or an operator, may have chosen the wrong source.
    pub fn replaced_longer(&self) -> Option<&Replaced> {
        let is_as_old = |r: &Replaced| {
            let Replaced { last, shard } = r;
            *shard == self.shard && last.term <= self.last.term && last.index <= self.last.index
        };
        self.replaced.as_ref().filter(|r| r.last.index > LogIndex::ZERO && !is_as_old(r))
    }

    /// The files are those of the new history.
    pub fn forget_replaced(&mut self) {
        self.replaced = None;
    }

    /// Takes over the list of terms that a disk or a snapshot remembers, for a log without entries.
    pub fn restore_terms(&mut self, terms: Vec<TermStart>) {
        assert_eq!(self.base, self.last.index, "terms are restored into an empty log");
        assert!(is_history(&terms, self.last));
        if !terms.is_empty() {
            self.terms = terms;
        }
    }

    fn drop_entries(&mut self) {
        self.segments.clear();
        self.segment_bytes = 0;
        self.open = OpenChunk::default();
        self.base = self.last.index;
    }

    /// Drops the oldest whole segments while the ring is too large and they are released.
    fn trim(&mut self) {
        while self.bytes() > self.capacity_bytes {
            let beyond = self.bytes() - self.capacity_bytes;
            let unread = self.pins.values().filter(|pin| beyond <= pin.bytes_max).map(|pin| pin.index).min();
            let limit = unread.map_or(self.released, |unread| self.released.min(unread));
            match self.segments.front() {
                Some(segment) if segment.last() <= limit.get() => {
                    self.base = LogIndex::new(segment.last());
                    self.segment_bytes -= segment.bytes.len() + SEGMENT_OVERHEAD;
                    self.segments.pop_front();
                }
                _ => break,
            }
        }
    }

    /// The last index up to which two histories are the same. Entries with the same (term, index) have the same
    /// history before them, so for a common term it is the smaller of its two ends. Term 0 is what nodes wrote on
    /// their own: never common.
    pub fn divergence(
        ours: &[TermStart],
        our_last: Position,
        theirs: &[TermStart],
        their_last: Position,
    ) -> LogIndex {
        let end_of = |terms: &[TermStart], i: usize, last: Position| match terms.get(i + 1) {
            Some(next) => next.first_index.get() - 1,
            None => last.index.get(),
        };
        let mut common = 0;
        for (i, our) in ours.iter().enumerate().filter(|(_, t)| t.term > Term::ZERO) {
            if let Some(j) = theirs.iter().position(|t| t.term == our.term) {
                common = common.max(end_of(ours, i, our_last).min(end_of(theirs, j, their_last)));
            }
        }
        LogIndex::new(common)
    }

    /// Panics if the log contradicts itself.
    pub fn check_invariants(&self) {
        let mut next = self.base.get() + 1;
        for segment in &self.segments {
            assert_eq!(segment.first, next, "segments are contiguous");
            assert!(segment.count > 0);
            assert_eq!(segment.offset_of(segment.first + segment.count), segment.bytes.len());
            assert_eq!(self.term_at(LogIndex::new(segment.first)), Some(segment.term));
            assert_eq!(self.term_at(LogIndex::new(segment.last())), Some(segment.term));
            next = segment.last() + 1;
        }
        if self.open.count > 0 {
            assert_eq!(self.open.first, next, "the open chunk follows the segments");
            next += self.open.count;
        }
        assert_eq!(next, self.last.index.get() + 1, "entries reach to the last index");
        assert!(self.terms.windows(2).all(|w| w[0].term < w[1].term && w[0].first_index < w[1].first_index));
        assert!(self.released <= self.last.index);
        self.check_disk();
        let bytes: usize = self.segments.iter().map(|s| s.bytes.len() + SEGMENT_OVERHEAD).sum();
        assert_eq!(bytes, self.segment_bytes);
    }
}

/// Terms that a log remembers at least; beyond, those older than the ring are forgotten.
const MAX_TERMS: usize = 1000;

/// Offsets for [`Segment::offsets`], or `None` if `bytes` is not exactly `count` frames.
fn frame_offsets(bytes: &[u8], count: u64) -> Option<Vec<u32>> {
    let mut offsets = Vec::new();
    let mut at = 0;
    for nth in 0..count {
        if nth > 0 && nth.is_multiple_of(OFFSET_STRIDE) {
            offsets.push(u32::try_from(at).ok()?);
        }
        let length = bytes.get(at..at + LENGTH_BYTES)?;
        at += LENGTH_BYTES + u32::from_le_bytes(length.try_into().ok()?) as usize;
    }
    (at == bytes.len()).then_some(offsets)
}

/// As many whole entries of a segment from `next` at byte `start` as fit into `max_bytes`, at least one.
fn cut(segment: &Segment, next: u64, start: usize, max_bytes: usize) -> (u64, Bytes) {
    let mut end = start + frame_bytes(&segment.bytes[start..]);
    let mut count = 1;
    while next + count <= segment.last() {
        let more = frame_bytes(&segment.bytes[end..]);
        if end + more - start > max_bytes {
            break;
        }
        end += more;
        count += 1;
    }
    (count, segment.bytes.slice(start..end))
}
