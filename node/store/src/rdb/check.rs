//! The report of `keyward-node check-rdb`: what a file says of itself, what it holds, what of it is not supported, and
//! its first error. A file of any version is read: what is in it decides.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use super::file::{Chunk, Facts, FileError, Reader, RecordName, Skipped, Span, Trust};

use super::record::Record;
use super::value::type_name;
use super::{RdbError, VersionCheck, is_known_version};
use crate::DbIndex;
use crate::types::Limits;

/// Keys of a type that are named; the others are counted.
const KEYS_NAMED: usize = 5;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Report {
    pub facts: Facts,
    pub databases: BTreeMap<DbIndex, Keys>,
    /// Keys by type and encoding.
    pub types: BTreeMap<u8, u64>,
    /// Collections without elements, which are passed over when the file is loaded.
    pub empty: u64,
    /// Keys whose values are not supported, by type.
    pub unsupported: BTreeMap<u8, Unsupported>,
    pub error: Option<FileError>,
    /// Where it ends: an AOF may go on there with commands.
    pub bytes: u64,
}

/// Keys of one type that is not supported.
#[derive(Debug, Default)]
pub struct Unsupported {
    pub name: &'static str,
    pub count: u64,
    /// The first ones.
    pub first: Vec<Skipped>,
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
    match Reader::new(inner, total, Trust::Verify, VersionCheck::Relaxed) {
        Ok(mut reader) => {
            reader.skip_unsupported();
            report.error = read_all(&mut reader, &mut report).err();
            report.facts = reader.facts().clone();
            report.bytes = reader.offset();
        }
        Err(error) => report.error = Some(error),
    }
    report
}

fn read_all<R: Read>(reader: &mut Reader<R>, report: &mut Report) -> Result<(), FileError> {
    loop {
        let chunk = reader.next_chunk();
        reader.take_skipped().into_iter().for_each(|skipped| report.skip(skipped));
        let Some(chunk) = chunk? else { return Ok(()) };
        for span in &chunk.spans {
            report.count(&chunk, span)?;
        }
    }
}

impl Report {
    /// Whether the file can be loaded.
    pub fn is_ok(&self) -> bool {
        self.error.is_none() && self.unsupported.is_empty()
    }

    fn skip(&mut self, skipped: Skipped) {
        let unsupported = self.unsupported.entry(skipped.record.type_byte).or_default();
        unsupported.name = skipped.name;
        unsupported.count += 1;
        if unsupported.first.len() < KEYS_NAMED {
            unsupported.first.push(skipped);
        }
    }

    fn count(&mut self, chunk: &Chunk, span: &Span) -> Result<(), FileError> {
        let record =
            Record::open(chunk.record(span)).map_err(|e| FileError::new(e, chunk.offset_of(span), None))?;
        match record.value(&Limits::default()) {
            Ok(_) => {}
            Err(RdbError::Empty) => self.empty += 1,
            Err(error) => {
                let name = RecordName { db: span.db, key: record.key.to_vec(), type_byte: record.type_byte };
                let offset = chunk.offset_of(span);
                let RdbError::Unsupported { name: type_name, .. } = error else {
                    return Err(FileError::new(error, offset, Some(name)));
                };
                self.skip(Skipped { record: name, name: type_name, offset });
                return Ok(());
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
            let needs = if is_known_version(*version) { "" } else { " (needs 'rdb-version-check relaxed')" };
            writeln!(f, "RDB version {version}{needs}")?;
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
        for (type_byte, Unsupported { name, count, first }) in &self.unsupported {
            writeln!(f, "not supported: {name} (type {type_byte}): {count} keys")?;
            for Skipped { record: RecordName { db, key, .. }, offset, .. } in first {
                writeln!(f, "  key \"{}\" of database {db}, at byte {offset}", key.escape_ascii())?;
            }
            if first.len() as u64 != *count {
                writeln!(f, "  ...")?;
            }
        }
        let keys: u64 = self.unsupported.values().map(|u| u.count).sum();
        match (&self.error, checksum) {
            (Some(error), _) => write!(f, "ERROR: {error}"),
            (None, _) if keys > 0 => write!(f, "ERROR: values of types that are not supported: {keys}"),
            (None, Some(_)) => write!(f, "The file is right, its checksum too."),
            (None, None) => write!(f, "The file can be read; it has no checksum."),
        }
    }
}
