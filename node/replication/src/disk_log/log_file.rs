//! The file that is being written, in numbers: what of it is whole, what of it is on the disk, and how it is cut.
//!
//! Bytes are those of the platter; the core adds them up and never looks at them. A cut takes entries back that were
//! never committed, so only the batches with such entries are remembered.

use std::collections::VecDeque;

use keyward_proto::ids::{LogIndex, Term};

use crate::log::Slice;

/// The number of an incremental file, given by whoever makes it. A later file has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileNumber(pub u64);

/// A point of a file, and the log's index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub bytes: u64,
    pub index: LogIndex,
}

/// Where a batch is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpan {
    pub term: Term,
    pub first: LogIndex,
    pub count: u64,
    /// Of its annotation.
    pub at: u64,
    /// With the annotation.
    pub bytes: u64,
}

impl BatchSpan {
    pub fn last(&self) -> LogIndex {
        LogIndex::new(self.first.get() + self.count - 1)
    }
}

/// How a file loses its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its bytes from here on go.
    pub at: u64,
    /// Of the batch that began there this many entries come back, as a batch of their own.
    pub kept: Option<(BatchSpan, u64)>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct LogFile {
    pub(super) number: FileNumber,
    /// The log's index before its first entry.
    pub(super) follows: LogIndex,
    /// The files before this one have the log up to here, too, and nothing is cut out of those.
    pub(super) repeats: LogIndex,
    /// What is whole. Bytes behind it were written halfway.
    pub(super) end: Mark,
    /// What is known to be on the disk.
    pub(super) synced: Mark,
    /// Batches whose entries are not all committed: they may have to be taken back.
    uncommitted: VecDeque<BatchSpan>,
}

impl LogFile {
    /// A file that has nothing but its head of so many bytes. That is on the disk before the file is used: nothing would
    /// write it again.
    pub fn begun(number: FileNumber, follows: LogIndex, bytes: u64) -> LogFile {
        let end = Mark { bytes, index: follows };
        LogFile { number, follows, repeats: follows, end, synced: end, uncommitted: VecDeque::new() }
    }

    /// A file of an earlier process, all of it on the disk.
    pub fn resumed(
        number: FileNumber,
        follows: LogIndex,
        repeats: LogIndex,
        end: Mark,
        uncommitted: VecDeque<BatchSpan>,
    ) -> LogFile {
        LogFile { number, follows, repeats, end, synced: end, uncommitted }
    }

    pub fn number(&self) -> FileNumber {
        self.number
    }

    /// The log's index before its first entry.
    pub fn follows(&self) -> LogIndex {
        self.follows
    }

    /// Bytes that are whole.
    pub fn bytes(&self) -> u64 {
        self.end.bytes
    }

    pub fn is_synced(&self) -> bool {
        self.synced.bytes == self.end.bytes
    }

    /// Bytes without entries were added.
    pub(super) fn append(&mut self, bytes: u64) {
        self.end.bytes += bytes;
    }

    /// A batch was added; up to `settled` no entry will be taken back.
    pub(super) fn append_batch(&mut self, slice: &Slice, bytes: u64, settled: LogIndex) {
        while self.uncommitted.front().is_some_and(|b| b.last() <= settled) {
            self.uncommitted.pop_front();
        }
        let Slice { term, first, count, .. } = *slice;
        let span = BatchSpan { term, first, count, at: self.end.bytes, bytes };
        if count > 0 && settled < span.last() {
            self.uncommitted.push_back(span);
        }
        self.end = Mark { bytes: self.end.bytes + bytes, index: slice.last().index };
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.end;
    }

    /// A sync has failed: nobody knows what the disk has of what was written since the one before.
    pub(super) fn forget_unsynced(&mut self) {
        self.end = self.synced;
        self.uncommitted.retain(|b| b.last() <= self.synced.index);
    }

    /// How the entries after `index` are removed; `None`: files before this one have some of them.
    pub(super) fn cut_after(&self, index: LogIndex) -> Option<Cut> {
        if index < self.repeats {
            return None;
        }
        let Some(batch) = self.uncommitted.iter().find(|b| index < b.last()) else {
            return Some(Cut { at: self.end.bytes, kept: None });
        };
        let count = (index.get() + 1).saturating_sub(batch.first.get());
        Some(Cut { at: batch.at, kept: (count > 0).then_some((*batch, count)) })
    }

    /// The entries after `index` are gone, and the disk knows it; `bytes` were written again.
    pub(super) fn was_cut(&mut self, cut: &Cut, index: LogIndex, bytes: u64) {
        self.uncommitted.retain(|b| b.last() <= index);
        if let Some((batch, count)) = cut.kept {
            self.uncommitted.push_back(BatchSpan { count, bytes, ..batch });
        }
        self.end = Mark { bytes: cut.at + bytes, index };
        self.sync();
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.follows <= self.repeats, "a file repeats what follows its begin");
        assert!(self.synced.bytes <= self.end.bytes, "synced beyond the end");
        assert!(self.synced.index <= self.end.index, "synced beyond the last entry");
        let spans = self.uncommitted.iter();
        assert!(spans.clone().all(|b| b.at + b.bytes <= self.end.bytes && b.last() <= self.end.index));
        assert!(spans.clone().zip(spans.skip(1)).all(|(a, b)| a.last() < b.first && a.at < b.at));
    }
}
