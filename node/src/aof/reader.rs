//! Reads a file of the write log front to back: annotated batches, and the plain commands that Valkey writes.
//!
//! Nothing is handed out that is not whole: a batch has passed its checksum, commands are whole entries. What is
//! wrong is a [`Fault`] with its place. Whether that is a torn tail or damage is a question of its own
//! ([`FileReader::damage_after`]): bytes that were never synced may be lost or garbled by a crash, bytes that a later
//! batch says were synced may not.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::format::{
    Annotation, BatchHead, Entries, Head, LINE_BYTES_MAX, MARK, parse_annotation, parse_entries,
};
use keyward_proto::ids::ShardId;

/// Bytes of plain commands that are handed out at once, about.
const WINDOW_BYTES: usize = 1 << 20;
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
}

impl FileReader {
    /// # Errors
    /// The system's.
    pub fn new(mut input: File) -> io::Result<FileReader> {
        let len = input.metadata()?.len();
        input.seek(SeekFrom::Start(0))?;
        Ok(FileReader { input, len, window: Vec::new(), start: 0, at: 0, annotated: false })
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

    /// Where behind `at` the first batch begins which says that the bytes at `at` were synced; `None`: they are the
    /// begin of a torn tail.
    ///
    /// # Errors
    /// The system's.
    pub fn damage_after(&mut self, at: u64) -> io::Result<Option<u64>> {
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
