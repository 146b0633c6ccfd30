//! The report of `keyward-node check-rdb`: what a file says of itself, what it holds, and its first error.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use super::RdbError;
use super::file::{Chunk, Facts, FileError, Reader, RecordName, Span, Trust};
use super::record::Record;
use super::value::type_name;
use crate::keyspace::DbIndex;
use crate::keyspace::types::Limits;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Report {
    pub facts: Facts,
    pub databases: BTreeMap<DbIndex, Keys>,
    /// Keys by type and encoding.
    pub types: BTreeMap<u8, u64>,
    /// Collections without elements, which are passed over when the file is loaded.
    pub empty: u64,
    pub error: Option<FileError>,
}

/// Keys of a database.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub all: u64,
    pub with_expiry: u64,
}

/// Reads a whole file and decodes every value.
pub fn check(inner: impl Read, total: Option<u64>) -> Report {
    let mut report = Report::default();
    match Reader::new(inner, total, Trust::Verify) {
        Ok(mut reader) => {
            report.error = read_all(&mut reader, &mut report).err();
            report.facts = reader.facts().clone();
        }
        Err(error) => report.error = Some(error),
    }
    report
}

fn read_all<R: Read>(reader: &mut Reader<R>, report: &mut Report) -> Result<(), FileError> {
    while let Some(chunk) = reader.next_chunk()? {
        for span in &chunk.spans {
            report.count(&chunk, span)?;
        }
    }
    Ok(())
}

impl Report {
    fn count(&mut self, chunk: &Chunk, span: &Span) -> Result<(), FileError> {
        let record =
            Record::open(chunk.record(span)).map_err(|e| FileError::new(e, chunk.offset_of(span), None))?;
        match record.value(&Limits::default()) {
            Ok(_) => {}
            Err(RdbError::Empty) => self.empty += 1,
            Err(error) => {
                let name = RecordName { db: span.db, key: record.key.to_vec(), type_byte: record.type_byte };
                return Err(FileError::new(error, chunk.offset_of(span), Some(name)));
            }
        }
        let keys = self.databases.entry(span.db).or_default();
        keys.all += 1;
        keys.with_expiry += u64::from(record.expire_at.is_some());
        *self.types.entry(record.type_byte).or_default() += 1;
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { version, aux, functions, modules, checksum, .. } = &self.facts;
        if *version > 0 {
            writeln!(f, "RDB version {version}")?;
        }
        for (name, value) in aux {
            writeln!(f, "{}: {}", name.escape_ascii(), value.escape_ascii())?;
        }
        if !functions.is_empty() {
            writeln!(f, "function libraries: {}", functions.len())?;
        }
        for name in modules {
            writeln!(f, "data of the module {name}, which is passed over")?;
        }
        for (db, keys) in &self.databases {
            writeln!(f, "database {db}: {} keys, {} with an expiry", keys.all, keys.with_expiry)?;
        }
        for (type_byte, count) in &self.types {
            writeln!(f, "{}: {count}", type_name(*type_byte).unwrap_or("unknown type"))?;
        }
        if self.empty > 0 {
            writeln!(f, "empty collections, which are passed over: {}", self.empty)?;
        }
        match (&self.error, checksum) {
            (Some(error), _) => write!(f, "ERROR: {error}"),
            (None, Some(_)) => write!(f, "The file is right, its checksum too."),
            (None, None) => write!(f, "The file can be read; it has no checksum."),
        }
    }
}
