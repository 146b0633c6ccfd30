//! The incremental file that is being written: what of it is whole, what of it is on the disk, and how it is cut.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use keyward_proto::ids::{LogIndex, Term};

use super::format::{Annotation, Encoder, MARK, parse_annotation, prefix_bytes};
use super::manifest::AofFile;

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

/// A point of the file, and the log's index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub bytes: u64,
    pub index: LogIndex,
}

/// Why the file cannot be cut where the log was.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("files before this one have entries behind that one")]
    BeforeBegin,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// See the module documentation.
#[derive(Debug)]
pub struct Incremental {
    pub name: AofFile,
    pub file: Arc<File>,
    /// Bytes that are whole. What lies behind was written halfway.
    len: u64,
    /// There may be bytes behind `len`.
    dirty: bool,
    /// The log's index before the first entry.
    pub follows: LogIndex,
    /// The files before this one have the log up to here, too, and nothing is cut out of those.
    pub repeats: LogIndex,
    /// What is known to be on the disk.
    pub synced: Mark,
    /// Batches whose entries are not all committed: they may have to be taken back.
    batches: VecDeque<BatchSpan>,
}

impl Incremental {
    /// A file whose first `len` bytes are whole and on the disk, up to entry `last`.
    pub fn new(
        name: AofFile,
        file: File,
        len: u64,
        follows: LogIndex,
        last: LogIndex,
        batches: VecDeque<BatchSpan>,
    ) -> Incremental {
        let synced = Mark { bytes: len, index: last };
        Incremental {
            name,
            file: Arc::new(file),
            len,
            dirty: true,
            follows,
            repeats: follows,
            synced,
            batches,
        }
    }

    /// Bytes that are whole.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// # Errors
    /// The system's; nothing of `bytes` counts as written then.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.dirty {
            self.file.set_len(self.len)?;
        }
        self.dirty = true;
        (&*self.file).write_all(bytes)?;
        self.dirty = false;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// As [`Incremental::append`], for a batch with entries; up to `commit` none will be taken back.
    ///
    /// # Errors
    /// The system's.
    pub fn append_batch(
        &mut self,
        bytes: &[u8],
        term: Term,
        first: LogIndex,
        count: u64,
        commit: LogIndex,
    ) -> io::Result<()> {
        let at = self.len;
        self.append(bytes)?;
        while self.batches.front().is_some_and(|b| b.last() <= commit) {
            self.batches.pop_front();
        }
        let span = BatchSpan { term, first, count, at, bytes: bytes.len() as u64 };
        if count > 0 && commit < span.last() {
            self.batches.push_back(span);
        }
        Ok(())
    }

    /// Forgets everything behind what is known to be on the disk: a sync has failed, so nobody knows what is there.
    ///
    /// # Errors
    /// The system's.
    pub fn cut_to_synced(&mut self) -> io::Result<()> {
        let Mark { bytes, index } = self.synced;
        self.dirty = true;
        self.len = bytes;
        self.batches.retain(|b| b.last() <= index);
        self.file.set_len(bytes)?;
        self.dirty = false;
        Ok(())
    }

    /// Removes the entries after `index`, on the disk too.
    ///
    /// # Errors
    /// See [`CutError`].
    pub fn cut_after(&mut self, index: LogIndex, encoder: &mut Encoder) -> Result<(), CutError> {
        if index < self.follows.max(self.repeats) {
            return Err(CutError::BeforeBegin);
        }
        encoder.forget_db();
        while let Some(batch) = self.batches.back().copied().filter(|b| index < b.last()) {
            let kept = (index.get() + 1).saturating_sub(batch.first.get());
            let rest = self.read_prefix(&batch, kept)?;
            self.batches.pop_back();
            self.len = batch.at;
            self.dirty = true;
            self.file.set_len(batch.at)?;
            self.dirty = false;
            if kept > 0 {
                let bytes = encoder.wrap(batch.term, batch.first, kept, LogIndex::ZERO, 0, &rest);
                self.append_batch(bytes, batch.term, batch.first, kept, LogIndex::ZERO)?;
            }
        }
        self.file.sync_data()?;
        self.synced = Mark { bytes: self.len, index };
        Ok(())
    }

    /// The bytes of a batch's first `count` entries, as they are in the file.
    fn read_prefix(&self, batch: &BatchSpan, count: u64) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a batch was changed in the file");
        let mut bytes = vec![0; usize::try_from(batch.bytes).map_err(|_| damaged())?];
        self.file.read_exact_at(&mut bytes, batch.at)?;
        let line = memchr::memchr(b'\n', &bytes).ok_or_else(damaged)?;
        let text =
            bytes[..line].strip_suffix(b"\r").and_then(|l| l.strip_prefix(MARK)).ok_or_else(damaged)?;
        let Some(Annotation::Batch(head)) = parse_annotation(text) else { return Err(damaged()) };
        let body = &bytes[line + 1..];
        if !head.verifies(body) {
            return Err(damaged());
        }
        let end = prefix_bytes(body, count).ok_or_else(damaged)?;
        Ok(body[..end].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::slot::Slot;

    use super::*;
    use crate::aof::reader::{FileReader, Record};
    use crate::log::{EffectBuffer, WriteLog};

    fn entries(count: u64) -> WriteLog {
        let mut log = WriteLog::new(1 << 20);
        for i in 0..count {
            let mut entry = EffectBuffer::default();
            let command = format!("*2\r\n$4\r\nINCR\r\n$1\r\n{i}\r\n");
            entry.push(Some(Slot::of(b"x")), u16::try_from(i % 2).unwrap(), command.as_bytes());
            log.append(Term::new(1), entry.as_payload());
        }
        log
    }

    fn indexes(file: &Incremental) -> Vec<(u64, u64)> {
        let mut reader = FileReader::new(file.file.try_clone().unwrap()).unwrap();
        let mut found = Vec::new();
        loop {
            match reader.read().unwrap() {
                Record::Batch(head, _) => found.push((head.first.get(), head.count)),
                Record::End => return found,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn entries_are_taken_back_wherever_they_are() {
        for index in 2..=9 {
            let folder = tempfile::tempdir().unwrap();
            let directory = crate::aof::directory::Directory::new(folder.path(), "a");
            let file = directory.create_file("a").unwrap();
            let name = AofFile { name: "a".into(), seq: 1 };
            let (first, mut log, mut encoder) = (LogIndex::new(1), entries(9), Encoder::default());
            let mut file = Incremental::new(name, file, 0, LogIndex::ZERO, LogIndex::ZERO, VecDeque::new());
            // Three batches of three.
            let bytes = log.read_from(first, 1 << 20).unwrap().bytes;
            let frame = bytes.len() / 9;
            for batch in 0..3 {
                let mut slice = log.read_from(LogIndex::new(1 + 3 * batch), 3 * frame).unwrap();
                slice.count = 3;
                let bytes = encoder.encode(&slice, LogIndex::new(2), 0).to_vec();
                file.append_batch(&bytes, slice.term, slice.first, 3, LogIndex::new(2)).unwrap();
            }
            assert_eq!(indexes(&file), [(1, 3), (4, 3), (7, 3)]);
            file.repeats = LogIndex::new(index + 1);
            assert!(matches!(file.cut_after(LogIndex::new(index), &mut encoder), Err(CutError::BeforeBegin)));
            file.repeats = LogIndex::new(index);
            file.cut_after(LogIndex::new(index), &mut encoder).unwrap();
            let found = indexes(&file);
            assert_eq!(found.iter().map(|(_, n)| n).sum::<u64>(), index);
            assert_eq!(file.size(), file.file.metadata().unwrap().len());
            let slice = log.read_from(LogIndex::new(index), frame).unwrap();
            let bytes = encoder.encode(&slice, LogIndex::new(2), 0).to_vec();
            file.append_batch(&bytes, slice.term, slice.first, 1, LogIndex::new(2)).unwrap();
            assert_eq!(indexes(&file).len(), found.len() + 1);
        }
    }
}
