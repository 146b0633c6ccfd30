//! The log's entries that files on disk still have, for replicas that are further behind than memory reaches:
//! `repl-backlog-disk-size`.
//!
//! [`History`] is the list of files that together have the log without a gap up to its end: those that the manifest
//! names, and before them files that a rewrite has made superfluous, as far as they are kept. A file that does not
//! follow the one before it begins the list anew. [`HistoryReader`] reads them from an entry on and makes of the
//! commands what the log had in memory.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use keyward_proto::ids::{LogIndex, Position};
use keyward_replication::log::Slice;
use keyward_store::DbIndex;
use keyward_store::effects::EffectBuffer;

use super::directory::Directory;
use super::format::{BatchHead, Piece, classify, parse_entries};
use super::manifest::{AofFile, Manifest};
use super::reader::{FileReader, Record};
use super::segments::{History, Segment};
use crate::command::touched::{Touched, touched};

/// Bytes of entries that are given at once, about.
const SLICE_BYTES: usize = 256 << 10;

/// See the module documentation.
#[derive(Debug)]
pub struct HistoryReader {
    directory: Directory,
    /// Not opened yet.
    files: VecDeque<AofFile>,
    file: Option<FileReader>,
    /// The database that the file has selected.
    db: DbIndex,
    /// The last entry that was read.
    position: Position,
    /// The first that is wanted.
    next: LogIndex,
    ready: VecDeque<Slice>,
}

impl History {
    /// The files of a directory that lead to `current`, which goes on with what its manifest names.
    pub fn found(directory: &Directory, manifest: &Manifest, current: Segment) -> History {
        let mut segments = VecDeque::from([current]);
        let mut older: Vec<&AofFile> = manifest.incremental.iter().chain(&manifest.history).collect();
        older.sort_by_key(|file| std::cmp::Reverse(file.seq));
        for file in older {
            let next = &segments[0];
            let is_incremental = *file == AofFile::incremental(directory.prefix(), file.seq);
            if !is_incremental || next.file.seq <= file.seq {
                continue;
            }
            let segment = segment_of(directory, file);
            match segment {
                Some(s) if s.follows <= next.follows && s.file.seq + 1 == next.file.seq => {
                    segments.push_front(s);
                }
                Some(_) | None => break,
            }
        }
        History { segments: segments.into() }
    }

    /// Reads from the entry `next` on; `None` if the files begin after it.
    pub fn read_from(&self, next: LogIndex, directory: Directory) -> Option<HistoryReader> {
        let after = self.segments.partition_point(|segment| segment.follows < next);
        let begin = after.checked_sub(1)?;
        let files = self.segments[begin..].iter().map(|segment| segment.file.clone()).collect();
        Some(HistoryReader {
            directory,
            files,
            file: None,
            db: 0,
            position: Position::ZERO,
            next,
            ready: VecDeque::new(),
        })
    }
}

/// A file that says which entry it follows.
fn segment_of(directory: &Directory, file: &AofFile) -> Option<Segment> {
    let opened = std::fs::File::open(directory.path_of(&file.name)).and_then(FileReader::new);
    let mut reader = opened.ok()?;
    match reader.read() {
        Ok(Record::Head(head)) => {
            Some(Segment { file: file.clone(), follows: head.follows.index, bytes: reader.size() })
        }
        _ => None,
    }
}

impl HistoryReader {
    /// The next entries; `None` if only entries were read that are not wanted. Blocks.
    ///
    /// # Errors
    /// Why the files give no more.
    pub fn read(&mut self) -> Result<Option<Slice>, String> {
        if let Some(slice) = self.ready.pop_front() {
            return Ok(Some(slice));
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let next = self.files.pop_front().ok_or("the files end before the log in memory begins")?;
                let opened = self.directory.open(&next.name).and_then(FileReader::new);
                let opened = opened.map_err(|e| format!("can't read '{}': {e}", next.name))?;
                self.db = 0;
                self.file.insert(opened)
            }
        };
        match file.read().map_err(|fault| format!("offset {}: {}", fault.at, fault.reason))? {
            Record::Head(head) if self.position == Position::ZERO => self.position = head.follows,
            Record::Head(head) if self.position.index < head.follows.index => {
                return Err(format!(
                    "a file follows {}, the one before ends at {}",
                    head.follows, self.position
                ));
            }
            Record::Head(_) | Record::Shard(_) => {}
            Record::Batch(head, body) => self.add(&head, &body)?,
            Record::Plain(..) => return Err("commands that belong to no history".into()),
            Record::End => self.file = None,
        }
        Ok(self.ready.pop_front())
    }

    fn add(&mut self, head: &BatchHead, body: &[u8]) -> Result<(), String> {
        let entries = parse_entries(body);
        if entries.error.is_some() || entries.count != head.count {
            return Err("a batch does not hold what it says".into());
        }
        let (mut index, mut in_multi) = (head.first, false);
        let mut payload = EffectBuffer::new();
        let (mut frames, mut count, mut previous) = (BytesMut::new(), 0, self.position);
        for request in 0..entries.requests {
            let args = entries.batch.args(body, request);
            // What a rewrite has written twice is taken once.
            let is_wanted = self.next <= index && self.position.index < index;
            let ends = match classify(args)? {
                Piece::Select(db) => {
                    self.db = db;
                    false
                }
                Piece::Multi => {
                    in_multi = true;
                    false
                }
                Piece::Exec => {
                    in_multi = false;
                    true
                }
                Piece::NoOp => true,
                Piece::Comment | Piece::Annotation => false,
                Piece::Command => {
                    if is_wanted {
                        let slot = match touched(args)? {
                            Touched::One(slot) => Some(slot),
                            Touched::WholeKeyspace => None,
                            Touched::Several(_) => return Err("an effect on several slots".into()),
                        };
                        payload.push(slot, self.db, args.raw().ok_or("an inline command")?);
                    }
                    !in_multi
                }
            };
            if !ends {
                continue;
            }
            if self.position.index.next() < index {
                return Err(format!("entry {index} follows {}", self.position));
            }
            if self.position.index < index {
                self.position = Position { term: head.term, index };
            }
            if is_wanted {
                let bytes = payload.as_payload();
                frames.put_u32_le(u32::try_from(bytes.len()).map_err(|_| "an entry of 4 GiB")?);
                frames.put_slice(bytes);
                count += 1;
                payload.clear();
            } else {
                previous = self.position;
            }
            index = index.next();
            if SLICE_BYTES <= frames.len() || (count > 0 && head.last() < index) {
                let first = previous.index.next();
                let bytes = frames.split().freeze();
                self.ready.push_back(Slice { previous, term: head.term, first, count, bytes });
                (count, previous) = (0, self.position);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::ids::Term;
    use keyward_proto::slot::Slot;

    use super::*;
    use crate::aof::format::{Encoder, Head, head_line};
    use keyward_replication::log::WriteLog;

    fn file(seq: u64) -> AofFile {
        AofFile::incremental("a", seq)
    }

    fn segment(seq: u64, follows: u64, bytes: u64) -> Segment {
        Segment { file: file(seq), follows: LogIndex::new(follows), bytes }
    }

    #[test]
    fn the_newest_files_are_kept() {
        let all = || {
            History::new(vec![segment(3, 0, 100), segment(4, 10, 50), segment(5, 20, 50), segment(6, 30, 0)])
        };
        for (limit, first) in [(1000, 3), (200, 3), (199, 4), (100, 4), (99, 5), (50, 5), (49, 6), (0, 6)] {
            let mut history = all();
            history.trim(6, limit);
            assert_eq!(history.segments[0].file.seq, first, "{limit}");
        }
        let mut history = all();
        history.trim(5, 0);
        assert_eq!((history.first(), history.before(5).count()), (Some(LogIndex::new(21)), 0));
        assert!(history.read_from(LogIndex::new(20), Directory::new("x", "a")).is_none());
    }

    /// Entries of several databases, terms and kinds, in three files of which one repeats the end of the one before.
    #[test]
    fn files_give_what_the_log_had() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "a");
        let mut log = WriteLog::new(1 << 30);
        for i in 0..300u64 {
            let mut entry = EffectBuffer::default();
            let term = Term::new(1 + i / 120);
            if i % 7 > 0 {
                let value = "v".repeat(if i % 50 == 0 { 300_000 } else { 5 });
                let command = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n{value}\r\n", value.len());
                entry.push(Some(Slot::of(b"a")), (i / 20 % 3) as u16, command.as_bytes());
            }
            if i % 5 == 0 {
                entry.push(None, 0, b"*1\r\n$8\r\nFLUSHALL\r\n");
            }
            log.append(term, entry.as_payload());
        }
        let mut segments = Vec::new();
        for (seq, from, to) in [(1, 1, 100), (2, 81, 200), (3, 201, 300)] {
            let before = LogIndex::new(from - 1);
            let follows = Position { term: log.term_at(before).unwrap(), index: before };
            let head = Head { follows, shard: None, terms: log.terms().to_vec(), awaits_base: false };
            let mut bytes = head_line(&head).into_bytes();
            let mut encoder = Encoder::default();
            let mut next = LogIndex::new(from);
            while next.get() <= to {
                let slice = log.read_from(next, 3_000).unwrap();
                bytes.extend_from_slice(encoder.encode(&slice, LogIndex::ZERO, 0));
                next = slice.last().index.next();
            }
            std::fs::write(directory.path_of(&file(seq).name), bytes).unwrap();
            segments.push(segment(seq, from - 1, 0));
        }
        let history = History::new(segments);
        for from in [1, 2, 81, 99, 150, 201, 299, 300] {
            let mut reader = history.read_from(LogIndex::new(from), directory.clone()).unwrap();
            let mut position = Position {
                term: log.term_at(LogIndex::new(from - 1)).unwrap(),
                index: LogIndex::new(from - 1),
            };
            while position.index < log.last().index {
                let Some(slice) = reader.read().unwrap() else { continue };
                assert_eq!(slice.previous, position, "from {from}");
                assert_eq!(slice.first, position.index.next());
                let expected = log.read_from(slice.first, usize::MAX).unwrap();
                assert_eq!(expected.term, slice.term);
                assert!(expected.bytes.starts_with(&slice.bytes), "from {from}");
                position = slice.last();
            }
            assert_eq!(position, log.last());
            assert!((0..9).any(|_| reader.read().is_err()), "nothing follows");
        }
    }
}
