//! Writes a file piece by piece. What it is given last is what it holds last: nothing is kept back but a checksum.

use std::io::{self, Write};

use super::super::output::{push_length, push_text};
use super::super::{Checksum, Compression, FOREIGN_VERSIONS, VERSION, opcode};
use super::{MAGIC_REDIS, MAGIC_VALKEY};
use crate::DbIndex;

/// What a finished file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub bytes: u64,
    /// Its last eight bytes; zero: it has none.
    pub checksum: u64,
}

/// See the module documentation. The file is complete when [`Writer::finish`] has returned.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    /// `None`: `rdbchecksum no`, the file ends with zeros.
    checksum: Option<Checksum>,
    /// Of the record that was written last.
    db: Option<DbIndex>,
    len: u64,
    piece: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file. `inner` should be buffered.
    ///
    /// # Errors
    /// Those of `inner`, here and in all other functions.
    pub fn new(inner: W) -> io::Result<Self> {
        Writer::of_version(VERSION, inner, Some(Checksum::default()))
    }

    /// As [`Writer::new`], but the file ends without a checksum.
    ///
    /// # Errors
    /// Those of `inner`.
    pub fn without_checksum(inner: W) -> io::Result<Self> {
        Writer::of_version(VERSION, inner, None)
    }

    /// Begins a file of this version, with a checksum that has just begun or without one: see [`Keyspace::rdb_version`](crate::Keyspace::rdb_version).
    ///
    /// # Errors
    /// Those of `inner`.
    pub fn of_version(version: u32, inner: W, checksum: Option<Checksum>) -> io::Result<Self> {
        let mut writer = Writer { inner, checksum, db: None, len: 0, piece: Vec::new() };
        if FOREIGN_VERSIONS.end <= version {
            writer.piece.extend_from_slice(MAGIC_VALKEY);
            writer.piece.extend_from_slice(format!("{version:03}").as_bytes());
        } else {
            writer.piece.extend_from_slice(MAGIC_REDIS);
            writer.piece.extend_from_slice(format!("{version:04}").as_bytes());
        }
        writer.write_piece()?;
        Ok(writer)
    }

    /// A fact about the file. Readers pass over those that they do not know.
    pub fn aux(&mut self, name: &str, value: &[u8]) -> io::Result<()> {
        self.piece.push(opcode::AUX);
        push_text(name.as_bytes(), Compression::None, &mut self.piece);
        push_text(value, Compression::None, &mut self.piece);
        self.write_piece()
    }

    /// The source of a function library.
    pub fn function(&mut self, source: &[u8]) -> io::Result<()> {
        self.piece.push(opcode::FUNCTION);
        push_text(source, Compression::Lzf, &mut self.piece);
        self.write_piece()
    }

    /// How many keys follow of a database, and how many of them have an expiry: a hint for who loads the file.
    pub fn resize_db(&mut self, db: DbIndex, keys: u64, expires: u64) -> io::Result<()> {
        self.select_db(db);
        self.piece.push(opcode::RESIZE_DB);
        push_length(keys, &mut self.piece);
        push_length(expires, &mut self.piece);
        self.write_piece()
    }

    /// One or more records of a database, as [`super::super::record::save`] makes them.
    pub fn records(&mut self, db: DbIndex, records: &[u8]) -> io::Result<()> {
        if self.db != Some(db) {
            self.select_db(db);
            self.write_piece()?;
        }
        self.write(records)
    }

    fn select_db(&mut self, db: DbIndex) {
        self.piece.push(opcode::SELECT_DB);
        push_length(u64::from(db), &mut self.piece);
        self.db = Some(db);
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a file has a magic.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the file. `inner` is neither flushed nor synced.
    pub fn finish(self) -> io::Result<W> {
        self.end().map(|(inner, _)| inner)
    }

    /// As [`Writer::finish`], and tells how it ends.
    pub fn end(mut self) -> io::Result<(W, Ending)> {
        self.piece.push(opcode::EOF);
        self.write_piece()?;
        let checksum = self.checksum.take().map_or(0, |checksum| checksum.value());
        self.write(&checksum.to_le_bytes())?;
        Ok((self.inner, Ending { bytes: self.len, checksum }))
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let mut piece = std::mem::take(&mut self.piece);
        let result = self.write(&piece);
        piece.clear();
        self.piece = piece;
        result
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.len += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}
