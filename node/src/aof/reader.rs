//! Reads a file of the write log front to back: annotated batches, and the plain commands that Valkey writes.
//!
//! Nothing is handed out that is not whole: a batch has passed its checksum, commands are whole entries. What is
//! wrong is a [`Fault`] with its place. Whether that is a torn tail or damage is a question of its own
//! ([`FileReader::judge`]): bytes that were never synced may be lost or garbled by a crash, bytes that a later batch
//! says were synced may not. Another program's commands have no checksums: they may end in the middle, and nothing
//! else. It may also have gone on behind a batch that a crash had torn; then the fault lies before what it added.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use keyward_proto::ids::ShardId;
use keyward_store::DbIndex;

use super::format::{
    Annotation, BatchHead, Entries, Head, LINE_BYTES_MAX, MARK, Piece, classify, parse_annotation,
    parse_entries,
};

/// Bytes of plain commands that are handed out at once, about.
const WINDOW_BYTES: usize = 1 << 20;
/// How much of what follows a torn batch is looked at for commands of another program.
const CONTINUATION_BYTES_MAX: u64 = 64 << 20;
/// Valkey's own annotation (`aof-timestamp-enabled`).
const TIMESTAMP: &[u8] = b"#TS:";

/// What comes next in a file.
#[derive(Debug)]
pub enum Record {
    Head(Head),
    Shard(Option<ShardId>),
    Batch(BatchHead, Vec<u8>),
    /// Commands without annotations.
    Plain(Vec<u8>, Entries),
    End,
}

/// Where and why a file cannot be read further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The first byte that belongs to nothing whole.
    pub at: u64,
    pub reason: String,
    pub kind: FaultKind,
}

impl Fault {
    pub fn malformed(at: u64, reason: &str) -> Fault {
        Fault { at, reason: reason.to_owned(), kind: FaultKind::Malformed }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The file ends in the middle of something.
    Truncated,
    /// The bytes are not what they should be.
    Malformed,
    /// The system does not give them.
    Unreadable,
}

/// What to make of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A crash has left the last bytes incomplete: what Keyward had not synced.
    TornBatch,
    /// The same of commands without checksums: what comes before the fault can be used.
    TornCommand,
    /// Data is missing or wrong that was there; why it must have been.
    Damaged(String),
    /// Another program has gone on behind a batch that was torn.
    Continued,
}

/// See the module documentation.
#[derive(Debug)]
pub struct FileReader {
    input: File,
    /// Bytes of the file.
    len: u64,
    /// Unread bytes, from `start` on; the first of them is at `at` in the file.
    window: Vec<u8>,
    start: usize,
    at: u64,
    /// Annotations were seen: what follows is held to their rules.
    annotated: bool,
    /// What was read last are commands without annotations.
    ends_plain: bool,
}

impl FileReader {
    /// # Errors
    /// The system's.
    pub fn new(mut input: File) -> io::Result<FileReader> {
        let len = input.metadata()?.len();
        input.seek(SeekFrom::Start(0))?;
        Ok(FileReader {
            input,
            len,
            window: Vec::new(),
            start: 0,
            at: 0,
            annotated: false,
            ends_plain: false,
        })
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.len
    }

    pub fn is_annotated(&self) -> bool {
        self.annotated
    }

    /// Whether a writer of annotated batches may go on behind what was read.
    pub fn can_be_continued(&self) -> bool {
        self.annotated && !self.ends_plain
    }

    /// # Errors
    /// A [`Fault`]; the reader stays where it is.
    pub fn read(&mut self) -> Result<Record, Fault> {
        loop {
            self.fill(LINE_BYTES_MAX)?;
            let window = &self.window[self.start..];
            match window.first() {
                None => return Ok(Record::End),
                Some(b'#') => {}
                Some(b'*') => return self.plain(),
                Some(byte) => {
                    return Err(self.malformed(&format!("expected '*' or '#', got byte 0x{byte:02x}")));
                }
            }
            let line_max = window.len().min(LINE_BYTES_MAX);
            let Some(end) = memchr::memchr(b'\n', &window[..line_max]) else {
                if line_max < LINE_BYTES_MAX {
                    return Err(self.truncated("the file ends inside an annotation"));
                }
                return Err(self.malformed("a line that is too long"));
            };
            let line = window[..end].strip_suffix(b"\r").unwrap_or(&window[..end]);
            let Some(text) = line.strip_prefix(MARK) else {
                // A damaged mark must not make plain commands of what the checksum protects.
                if self.annotated && !line.starts_with(TIMESTAMP) {
                    return Err(self.malformed("a comment that is not known"));
                }
                self.consume(end + 1);
                continue;
            };
            let annotation = parse_annotation(text);
            match annotation {
                None => return Err(self.malformed("a damaged annotation")),
                Some(Annotation::Head(head)) => {
                    self.annotated = true;
                    self.consume(end + 1);
                    return Ok(Record::Head(head));
                }
                Some(Annotation::Shard(shard)) => {
                    self.annotated = true;
                    self.consume(end + 1);
                    return Ok(Record::Shard(shard));
                }
                Some(Annotation::Batch(head)) => {
                    self.annotated = true;
                    return self.batch(head, end + 1);
                }
            }
        }
    }

    fn batch(&mut self, head: BatchHead, line_bytes: usize) -> Result<Record, Fault> {
        let left = self.len.saturating_sub(self.at + line_bytes as u64);
        let body_bytes = match usize::try_from(head.body_bytes) {
            Ok(bytes) if head.body_bytes <= left => bytes,
            _ => return Err(self.truncated("the file ends inside a batch")),
        };
        self.fill(line_bytes + body_bytes)?;
        let body_start = self.start + line_bytes;
        let Some(body) = self.window.get(body_start..body_start + body_bytes) else {
            return Err(self.truncated("the file ends inside a batch"));
        };
        if !head.verifies(body) {
            return Err(self.malformed("the checksum of a batch is wrong"));
        }
        let body = body.to_vec();
        self.consume(line_bytes + body_bytes);
        self.ends_plain = false;
        Ok(Record::Batch(head, body))
    }

    fn plain(&mut self) -> Result<Record, Fault> {
        let mut wanted = WINDOW_BYTES;
        loop {
            self.fill(wanted)?;
            let window = &self.window[self.start..];
            let is_all = self.at + window.len() as u64 == self.len;
            let mut entries = parse_entries(window);
            if entries.bytes > 0 {
                let bytes = window[..entries.bytes].to_vec();
                // What follows is looked at again.
                entries.error = None;
                self.consume(entries.bytes);
                self.ends_plain = true;
                return Ok(Record::Plain(bytes, entries));
            }
            if let Some(reason) = &entries.error {
                return Err(self.malformed(reason));
            }
            if entries.annotation {
                return Err(self.malformed("a transaction that does not end"));
            }
            if is_all {
                return Err(self.truncated("the file ends inside a command or a transaction"));
            }
            wanted = window.len().saturating_mul(2);
        }
    }

    /// Has at least `bytes` unread bytes in the window, or all that are left.
    fn fill(&mut self, bytes: usize) -> Result<(), Fault> {
        let have = self.window.len() - self.start;
        if bytes <= have {
            return Ok(());
        }
        if self.start > 0 {
            self.window.drain(..self.start);
            self.start = 0;
        }
        let left = self.len.saturating_sub(self.at + have as u64);
        let more = (bytes.max(WINDOW_BYTES) - have) as u64;
        let read = Read::by_ref(&mut self.input).take(more.min(left)).read_to_end(&mut self.window);
        match read {
            Ok(_) => Ok(()),
            Err(error) => Err(Fault { at: self.at, reason: error.to_string(), kind: FaultKind::Unreadable }),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.at += bytes as u64;
    }

    fn truncated(&self, reason: &str) -> Fault {
        Fault { at: self.at, reason: reason.to_owned(), kind: FaultKind::Truncated }
    }

    fn malformed(&self, reason: &str) -> Fault {
        Fault::malformed(self.at, reason)
    }

    /// What to make of a fault that [`FileReader::read`] has returned. `db`: the database that is selected there, if it
    /// is known. The reader is of no use afterwards.
    ///
    /// # Errors
    /// The system's.
    pub fn judge(&mut self, fault: &Fault, db: Option<DbIndex>) -> io::Result<Verdict> {
        let begins_plain = self.window.get(self.start) == Some(&b'*');
        if !self.annotated || self.ends_plain || begins_plain {
            return Ok(match fault.kind {
                FaultKind::Truncated => Verdict::TornCommand,
                FaultKind::Malformed | FaultKind::Unreadable => {
                    Verdict::Damaged("commands are expected here".into())
                }
            });
        }
        if let Some(proof) = self.damage_after(fault.at)? {
            let reason = format!("by what stands at offset {proof} these bytes were safe on the disk");
            return Ok(Verdict::Damaged(reason));
        }
        Ok(if self.is_continued(fault.at, db)? { Verdict::Continued } else { Verdict::TornBatch })
    }

    /// Whether commands follow the torn batch at `at` that do not belong to it: it does not end where it says, and there
    /// are more than it has, or one selects the database that is selected, which Keyward does at the begin of a batch
    /// only and others where they go on.
    fn is_continued(&mut self, at: u64, mut db: Option<DbIndex>) -> io::Result<bool> {
        self.move_to(at)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.input).take(CONTINUATION_BYTES_MAX).read_to_end(&mut bytes)?;
        let line_max = bytes.len().min(LINE_BYTES_MAX);
        let Some(end) = memchr::memchr(b'\n', &bytes[..line_max]) else { return Ok(false) };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        if let Some(command) = memchr::memchr(b'*', line).filter(|_| line.starts_with(b"#")) {
            // Behind an annotation that was cut off in its line, and not one whose line's end was garbled.
            let cut = &line[..command];
            return Ok(cut.ends_with(b"\r") || !cut.contains(&b'\r'));
        }
        let Some(text) = line.strip_prefix(MARK) else { return Ok(false) };
        let Some(Annotation::Batch(head)) = parse_annotation(text) else { return Ok(false) };
        let body = &bytes[end + 1..];
        let behind = usize::try_from(head.body_bytes).ok().and_then(|len| body.get(len..));
        if behind.is_some_and(|rest| rest.is_empty() || rest.starts_with(MARK)) {
            return Ok(false);
        }
        let entries = parse_entries(body);
        if head.count < entries.count {
            return Ok(true);
        }
        for request in 0..entries.requests {
            if let Ok(Piece::Select(selected)) = classify(entries.batch.args(body, request)) {
                if request > 0 && db == Some(selected) {
                    return Ok(true);
                }
                db = Some(selected);
            }
        }
        Ok(false)
    }

    /// Where behind `at` the first batch begins which says that the bytes at `at` were synced; `None`: they are the
    /// begin of a torn tail.
    ///
    /// # Errors
    /// The system's.
    fn damage_after(&mut self, at: u64) -> io::Result<Option<u64>> {
        let mut next = at + 1;
        while let Some(candidate) = self.find_mark(next)? {
            self.move_to(candidate)?;
            if let Ok(Record::Batch(head, _)) = self.read()
                && at < head.synced
            {
                return Ok(Some(candidate));
            }
            next = candidate + 1;
        }
        Ok(None)
    }

    /// What is read next stands there.
    ///
    /// # Errors
    /// The system's.
    pub fn move_to(&mut self, at: u64) -> io::Result<()> {
        self.input.seek(SeekFrom::Start(at))?;
        self.window.clear();
        (self.start, self.at) = (0, at);
        Ok(())
    }

    /// The first place from `from` on where a batch's annotation may begin.
    fn find_mark(&mut self, from: u64) -> io::Result<Option<u64>> {
        const PATTERN: &[u8] = b"#KW log ";
        self.move_to(from)?;
        let mut window = Vec::new();
        let mut at = from;
        loop {
            let read = Read::by_ref(&mut self.input).take(WINDOW_BYTES as u64).read_to_end(&mut window)?;
            if let Some(found) = memchr::memmem::find(&window, PATTERN) {
                return Ok(Some(at + found as u64));
            }
            if read == 0 {
                return Ok(None);
            }
            let kept = window.len().min(PATTERN.len() - 1);
            at += (window.len() - kept) as u64;
            window.drain(..window.len() - kept);
        }
    }
}
