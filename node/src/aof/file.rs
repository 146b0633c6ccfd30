//! An incremental file: bytes are added behind what is whole, and its end is cut.
//!
//! What of it is whole and what is on the disk is known by the core ([`keyward_replication::disk_log`]), which says where to write.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use keyward_proto::ids::LogIndex;
use keyward_replication::disk_log::{BatchSpan, Cut, Step};

use super::format::{Annotation, Encoder, MARK, parse_annotation, prefix_bytes};
use super::manifest::AofFile;

/// See the module documentation.
#[derive(Debug)]
pub struct Incremental {
    pub name: AofFile,
    pub file: Arc<File>,
    /// There may be bytes behind what is whole.
    dirty: bool,
    /// The entries of a batch that was cut off and whose beginning is not written again yet, with where it began.
    cut_off: Option<(u64, Vec<u8>)>,
}

impl Incremental {
    pub fn new(name: AofFile, file: File) -> Incremental {
        Incremental { name, file: Arc::new(file), dirty: true, cut_off: None }
    }

    /// Adds bytes behind the first `at`, which are whole.
    ///
    /// # Errors
    /// The system's; nothing of `bytes` counts as written then.
    pub fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.dirty {
            self.file.set_len(at)?;
        }
        self.dirty = true;
        (&*self.file).write_all(bytes)?;
        self.dirty = false;
        Ok(())
    }

    /// What lies behind the first `at` bytes goes.
    ///
    /// # Errors
    /// The system's; then the next write does it.
    pub fn shorten(&mut self, at: u64) -> io::Result<()> {
        self.dirty = true;
        self.file.set_len(at)?;
        self.dirty = false;
        Ok(())
    }

    /// As [`Incremental::shorten`], after a sync that has failed: nothing of it is on the disk for sure, nor what was cut off.
    ///
    /// # Errors
    /// The system's; then the next write does it.
    pub fn forget_unsynced(&mut self, at: u64) -> io::Result<()> {
        self.cut_off = None;
        self.shorten(at)
    }

    /// Removes the end of the file, on the disk too. Returns how many bytes were written again. If it fails it may be
    /// repeated.
    ///
    /// # Errors
    /// The system's, and which step it was.
    pub fn cut(&mut self, cut: &Cut, encoder: &mut Encoder) -> Result<u64, (Step, io::Error)> {
        let bytes = self.remove_end(cut, encoder).map_err(|error| (Step::Write, error))?;
        self.file.sync_data().map_err(|error| (Step::Sync, error))?;
        self.cut_off = None;
        Ok(bytes)
    }

    fn remove_end(&mut self, cut: &Cut, encoder: &mut Encoder) -> io::Result<u64> {
        encoder.forget_db();
        let Some((batch, count)) = &cut.kept else {
            self.shorten(cut.at)?;
            return Ok(0);
        };
        let body = match self.cut_off.take().filter(|(at, _)| *at == cut.at) {
            Some((_, body)) => body,
            None => self.read_body(batch)?,
        };
        let (_, body) = self.cut_off.insert((cut.at, body));
        let rest = &body[..prefix_bytes(body, *count).ok_or_else(damaged)?];
        let bytes = encoder.wrap(batch.term, batch.first, *count, LogIndex::ZERO, 0, rest);
        self.dirty = true;
        self.append(cut.at, bytes)?;
        Ok(bytes.len() as u64)
    }

    /// The bytes of a batch's entries, as they are in the file.
    fn read_body(&self, batch: &BatchSpan) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(batch.bytes).map_err(|_| damaged())?];
        self.file.read_exact_at(&mut bytes, batch.at)?;
        let line = memchr::memchr(b'\n', &bytes).ok_or_else(damaged)?;
        let text =
            bytes[..line].strip_suffix(b"\r").and_then(|l| l.strip_prefix(MARK)).ok_or_else(damaged)?;
        let Some(Annotation::Batch(head)) = parse_annotation(text) else { return Err(damaged()) };
        let body = bytes.split_off(line + 1);
        if head.verifies(&body) { Ok(body) } else { Err(damaged()) }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a batch was changed in the file")
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::Term;
    use keyward_proto::slot::Slot;

    use super::*;
    use crate::aof::reader::{FileReader, Record};
    use keyward_replication::log::WriteLog;
    use keyward_store::effects::EffectBuffer;

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
        for index in 2..=9_u64 {
            let folder = tempfile::tempdir().unwrap();
            let directory = crate::aof::directory::Directory::new(folder.path(), "a");
            let file = directory.create_file("a").unwrap();
            let name = AofFile { name: "a".into(), seq: 1 };
            let (first, mut log, mut encoder) = (LogIndex::new(1), entries(9), Encoder::default());
            let mut file = Incremental::new(name, file);
            // Three batches of three.
            let bytes = log.read_from(first, 1 << 20).unwrap().bytes;
            let frame = bytes.len() / 9;
            let (mut at, mut spans) = (0, Vec::new());
            for batch in 0..3 {
                let mut slice = log.read_from(LogIndex::new(1 + 3 * batch), 3 * frame).unwrap();
                slice.count = 3;
                let bytes = encoder.encode(&slice, LogIndex::new(2), 0).to_vec();
                file.append(at, &bytes).unwrap();
                let bytes = bytes.len() as u64;
                spans.push(BatchSpan { term: slice.term, first: slice.first, count: 3, at, bytes });
                at += bytes;
            }
            assert_eq!(indexes(&file), [(1, 3), (4, 3), (7, 3)]);
            let cut = match spans.iter().find(|span| index < span.last().get()) {
                Some(span) => {
                    let count = index + 1 - span.first.get();
                    Cut { at: span.at, kept: (count > 0).then_some((*span, count)) }
                }
                None => Cut { at, kept: None },
            };
            let added = file.cut(&cut, &mut encoder).unwrap();
            let found = indexes(&file);
            assert_eq!(found.iter().map(|(_, n)| n).sum::<u64>(), index);
            let end = cut.at + added;
            assert_eq!(end, file.file.metadata().unwrap().len());
            let slice = log.read_from(LogIndex::new(index), frame).unwrap();
            let bytes = encoder.encode(&slice, LogIndex::new(2), 0).to_vec();
            file.append(end, &bytes).unwrap();
            assert_eq!(indexes(&file).len(), found.len() + 1);
        }
    }
}
