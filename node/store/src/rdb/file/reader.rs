//! Reads a file in chunks of whole records, which may then be decoded anywhere, in parallel.
//!
//! A record larger than a chunk makes that chunk as large as needed, but memory only grows as bytes arrive: a length
//! in the file is never believed. Where the size of the file is known, a length that exceeds it is an error at once.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use super::super::split::{BadPiece, Piece, next_piece, skip_unsupported};
use super::super::value::foreign::Dialect;
use super::super::value::type_name;
use super::super::{Checksum, FOREIGN_VERSIONS, Input, RdbError, VersionCheck, is_known_version};
use super::{CHECKSUM_SINCE, MAGIC_LEN, MAGIC_REDIS, MAGIC_VALKEY};
use crate::DbIndex;

/// Bytes read at a time: small enough to stay in a processor's cache until they are decoded.
const CHUNK_LEN: u64 = 256 << 10;
/// Aux fields kept; further ones are passed over.
const AUX_MAX: usize = 64;

/// Whether the checksum at the end is compared: `rdbchecksum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Verify,
    Ignore,
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct FileError {
    pub kind: FileErrorKind,
    /// Of the piece in which it was found.
    pub offset: u64,
    pub record: Option<RecordName>,
}

#[derive(Debug)]
pub enum FileErrorKind {
    Read(io::Error),
    Format(RdbError),
}

/// Which record is meant.
#[derive(Debug)]
pub struct RecordName {
    pub db: DbIndex,
    pub key: Vec<u8>,
    pub type_byte: u8,
}

impl FileError {
    pub fn new(error: RdbError, offset: u64, record: Option<RecordName>) -> Self {
        FileError { kind: FileErrorKind::Format(error), offset, record }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FileErrorKind::Read(error) => write!(f, "can't read it: {error}")?,
            FileErrorKind::Format(error) => write!(f, "{error}")?,
        }
        write!(f, ", at byte {}", self.offset)?;
        if let Some(RecordName { db, key, type_byte }) = &self.record {
            write!(f, ", key \"{}\" of database {db}", key.escape_ascii())?;
            if let Some(name) = type_name(*type_byte) {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for FileError {}

/// What a file says beside its records; complete when the last chunk has been read.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub version: u32,
    pub aux: Vec<(Vec<u8>, Vec<u8>)>,
    /// Sources of function libraries.
    pub functions: Vec<Vec<u8>>,
    /// Modules whose data was passed over.
    pub modules: Vec<String>,
    /// Keys of database 0, by the hint in the file.
    pub keys_hint: u64,
    /// `None`: the file has none.
    pub checksum: Option<u64>,
}

/// Where a record lies in a chunk.
#[derive(Debug, Clone)]
pub struct Span {
    pub range: Range<usize>,
    pub db: DbIndex,
}

/// Whole records.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    pub spans: Vec<Span>,
    /// Of the first byte in the file.
    offset: u64,
}

impl Chunk {
    pub fn record(&self, span: &Span) -> &[u8] {
        &self.bytes[span.range.clone()]
    }

    /// Where a record lies in the file.
    pub fn offset_of(&self, span: &Span) -> u64 {
        self.offset + span.range.start as u64
    }
}

/// A record of a type that is not supported.
#[derive(Debug)]
pub struct Skipped {
    pub record: RecordName,
    pub name: &'static str,
    /// In the file.
    pub offset: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Of all that `inner` gives, if it is known.
    total: Option<u64>,
    /// Read and not part of a chunk yet.
    buffer: Vec<u8>,
    /// Of `buffer` in the file.
    offset: u64,
    db: DbIndex,
    checksum: Checksum,
    trust: Trust,
    dialect: Dialect,
    /// `Some`: records that are not supported are noted here instead of being an error.
    skipped: Option<Vec<Skipped>>,
    facts: Facts,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the magic. `total`: how many bytes `inner` has, if that is known.
    ///
    /// # Errors
    /// It is no RDB file, or of an unknown version.
    pub fn new(inner: R, total: Option<u64>, trust: Trust, check: VersionCheck) -> Result<Self, FileError> {
        let mut reader = Reader {
            inner,
            total,
            buffer: Vec::new(),
            offset: 0,
            db: 0,
            checksum: Checksum::default(),
            trust,
            dialect: Dialect::Valkey,
            skipped: None,
            facts: Facts::default(),
            ended: false,
        };
        reader.fill(MAGIC_LEN)?;
        let version = version(&reader.buffer, check).map_err(|e| FileError::new(e, 0, None))?;
        reader.facts.version = version;
        reader.dialect = if FOREIGN_VERSIONS.contains(&version) { Dialect::Redis } else { Dialect::Valkey };
        reader.consume(MAGIC_LEN);
        Ok(reader)
    }

    /// Passes over records of types that are not supported, as far as their ends are known, instead of ending at the
    /// first; [`Reader::take_skipped`] gives them.
    pub fn skip_unsupported(&mut self) {
        self.skipped = Some(Vec::new());
    }

    /// What was passed over since the last call.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        self.skipped.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What the file says of itself, as far as it has been read.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Bytes of the file that have been handed over.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next records; `None` behind the last one, with the checksum verified.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let mut wanted = CHUNK_LEN as usize;
        loop {
            let rest = if self.fill_if_there(wanted)? { Rest::Follows } else { Rest::None };
            let (split, needed) = self.split(rest)?;
            if self.ended || 0 < split.len {
                return Ok(Some(self.take_chunk(split)?));
            }
            // Not even one piece is complete. Doubled, so that a large one is not looked at too often.
            wanted = needed.max(self.buffer.len() * 2);
        }
    }

    /// Bytes behind the end of the file that have been read, and the rest: an old AOF goes on there.
    pub fn into_rest(self) -> (Vec<u8>, R) {
        (self.buffer, self.inner)
    }

    /// Finds the whole pieces in the buffer, and how many bytes the one behind them needs at least.
    fn split(&mut self, rest: Rest) -> Result<(Split, usize), FileError> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.split_bytes(&buffer, rest);
        self.buffer = buffer;
        result
    }

    fn split_bytes(&mut self, buffer: &[u8], rest: Rest) -> Result<(Split, usize), FileError> {
        let mut input = Input::new(buffer);
        let mut split = Split::default();
        while !self.ended {
            split.len = buffer.len() - input.len();
            let offset = self.offset + split.len as u64;
            match self.next_piece(&mut input, offset) {
                Ok(None) => {}
                Ok(Some(Piece::Record)) => {
                    let range = split.len..buffer.len() - input.len();
                    split.spans.push(Span { range, db: self.db });
                }
                Ok(Some(piece)) => self.note(piece).map_err(|e| FileError::new(e, offset, None))?,
                Err(BadPiece { error: RdbError::Truncated { missing }, record }) => {
                    if rest == Rest::None || self.is_beyond_end(buffer.len(), missing) {
                        let error = RdbError::Truncated { missing };
                        return Err(self.error(BadPiece { error, record }, offset));
                    }
                    let needed = usize::try_from(missing).unwrap_or(usize::MAX);
                    return Ok((split, buffer.len().saturating_add(needed)));
                }
                Err(bad) => return Err(self.error(bad, offset)),
            }
        }
        split.len = buffer.len() - input.len();
        Ok((split, 0))
    }

    /// `None`: a record that is not supported was passed over.
    fn next_piece<'a>(&mut self, input: &mut Input<'a>, offset: u64) -> Result<Option<Piece<'a>>, BadPiece> {
        let bad = match next_piece(input, self.dialect) {
            Ok(piece) => return Ok(Some(piece)),
            Err(bad) => bad,
        };
        match (&mut self.skipped, &bad.error) {
            (Some(skipped), RdbError::Unsupported { name, .. }) => {
                let (key, type_byte) = skip_unsupported(input, self.dialect)?;
                skipped.push(Skipped { record: RecordName { db: self.db, key, type_byte }, name, offset });
                Ok(None)
            }
            _ => Err(bad),
        }
    }

    fn error(&self, bad: BadPiece, offset: u64) -> FileError {
        let record = bad.record.map(|(key, type_byte)| RecordName { db: self.db, key, type_byte });
        FileError::new(bad.error, offset, record)
    }

    fn is_beyond_end(&self, buffered: usize, missing: u64) -> bool {
        let end = (self.offset + buffered as u64).saturating_add(missing);
        self.total.is_some_and(|total| total < end)
    }

    fn note(&mut self, piece: Piece<'_>) -> Result<(), RdbError> {
        match piece {
            Piece::Record | Piece::SlotInfo => {}
            Piece::Aux(name, value) => {
                if self.facts.aux.len() < AUX_MAX {
                    self.facts.aux.push((name.into_vec(), value.into_vec()));
                }
            }
            Piece::SelectDb(number) => {
                self.db = DbIndex::try_from(number)
                    .map_err(|_| RdbError::Corrupt("the number of a database is too large"))?;
            }
            Piece::ResizeDb { keys, .. } => {
                if self.db == 0 {
                    self.facts.keys_hint = keys;
                }
            }
            Piece::Function(source) => self.facts.functions.push(source.into_vec()),
            Piece::ModuleAux(name) => {
                if self.facts.modules.len() < AUX_MAX && !self.facts.modules.contains(&name) {
                    self.facts.modules.push(name);
                }
            }
            Piece::End => self.ended = true,
        }
        Ok(())
    }

    /// Cuts the split records off the buffer; behind the last one reads the checksum.
    fn take_chunk(&mut self, split: Split) -> Result<Chunk, FileError> {
        let rest = self.buffer.split_off(split.len);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let offset = self.offset;
        self.checksum.update(&bytes);
        self.offset += bytes.len() as u64;
        if self.ended && CHECKSUM_SINCE <= self.facts.version {
            self.verify()?;
        }
        Ok(Chunk { bytes, spans: split.spans, offset })
    }

    fn verify(&mut self) -> Result<(), FileError> {
        let computed = self.checksum.value();
        let offset = self.offset;
        self.fill(size_of::<u64>())?;
        let stored = Input::new(&self.buffer).array().map(u64::from_le_bytes);
        let stored = stored.map_err(|e| FileError::new(e, offset, None))?;
        self.consume(size_of::<u64>());
        self.facts.checksum = (stored != 0).then_some(stored);
        if self.trust == Trust::Verify && stored != 0 && stored != computed {
            return Err(FileError::new(RdbError::Corrupt("the checksum is wrong"), offset, None));
        }
        Ok(())
    }

    /// Reads until the buffer has at least so many bytes.
    fn fill(&mut self, len: usize) -> Result<(), FileError> {
        if self.fill_if_there(len)? {
            return Ok(());
        }
        let missing = (len - self.buffer.len()) as u64;
        Err(FileError::new(RdbError::Truncated { missing }, self.offset, None))
    }

    /// Reads until the buffer has at least so many bytes; false if `inner` has fewer.
    fn fill_if_there(&mut self, len: usize) -> Result<bool, FileError> {
        let missing = len.saturating_sub(self.buffer.len()) as u64;
        if missing == 0 {
            return Ok(true);
        }
        // More than this grows with what arrives, whatever was asked for.
        self.buffer.reserve(missing.min(CHUNK_LEN) as usize);
        let read = self.inner.by_ref().take(missing).read_to_end(&mut self.buffer);
        let offset = self.offset + self.buffer.len() as u64;
        let read = read.map_err(|e| FileError { kind: FileErrorKind::Read(e), offset, record: None })? as u64;
        Ok(read == missing)
    }

    fn consume(&mut self, len: usize) {
        self.checksum.update(&self.buffer[..len]);
        self.buffer.drain(..len);
        self.offset += len as u64;
    }
}

/// Whether more of the file comes behind what has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Follows,
    None,
}

/// What of a buffer is whole.
#[derive(Default)]
struct Split {
    spans: Vec<Span>,
    len: usize,
}

fn version(magic: &[u8], check: VersionCheck) -> Result<u32, RdbError> {
    let digits = magic.strip_prefix(MAGIC_REDIS).or_else(|| magic.strip_prefix(MAGIC_VALKEY));
    let version: u32 = digits
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or(RdbError::Corrupt("it does not begin as an RDB file does"))?;
    // The magic changed with the version.
    let is_right = magic.starts_with(MAGIC_VALKEY) == (FOREIGN_VERSIONS.end <= version) && 0 < version;
    match check {
        _ if !is_right => Err(RdbError::UnknownVersion(version)),
        VersionCheck::Strict if !is_known_version(version) => Err(RdbError::ForeignVersion(version)),
        VersionCheck::Strict | VersionCheck::Relaxed => Ok(version),
    }
}
