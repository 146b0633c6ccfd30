//! Loads RDB files into the keyspace with all cores: `dump.rdb` at the start, and the base of an AOF.
//!
//! One thread reads the file and finds the records ([`keyward_store::rdb::file::Reader`]); others decode them and insert them
//! under the locks of their slots. The channel between them is short, so that memory stays bounded and a chunk is
//! still in a cache when it is decoded. Whoever calls keeps clients away until the load has succeeded: after an error
//! the keyspace holds a part of the file, which must not be served.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use keyward_proto::slot::{SLOT_COUNT, Slot};
use keyward_store::entry::Entry;
use keyward_store::keys::{KeySettings, Keys};
use keyward_store::rdb::file::{Chunk, Facts, FileError, Reader, RecordName, Span, Trust};
use keyward_store::rdb::record::Record;
use keyward_store::rdb::{RdbError, VersionCheck};
use keyward_store::table::hash_of;
use keyward_store::{DbIndex, Keyspace};
use parking_lot::Mutex;

use crate::clock;
use crate::config::Settings;
use crate::loading::Loading;
use crate::server::Server;

/// Keys whose buckets are being brought into the cache at the same time.
const BATCH_LEN: usize = 32;
/// A hint of more keys than one in so many bytes of the file is not believed.
const BYTES_PER_KEY_MIN: u64 = 16;

/// How to load a file.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub trust: Trust,
    pub versions: VersionCheck,
    /// Databases that there are.
    pub databases: DbIndex,
    /// Milliseconds since the Unix epoch; keys that have expired before are dropped. `None`: all are kept, since the
    /// log that follows says when they go.
    pub expire_before: Option<i64>,
    pub keys: KeySettings,
    /// Threads that decode.
    pub threads: usize,
    pub existing: Existing,
}

/// What becomes of a key that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The file is damaged, or is loaded where it should not be.
    Refused,
    Replaced,
}

/// What was loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    pub facts: Facts,
    pub keys: u64,
    /// Dropped because they have expired.
    pub expired: u64,
    /// Collections without elements, passed over.
    pub empty: u64,
    /// Where it ends in the file.
    pub bytes: u64,
}

/// Loads `dbfilename`, if it is there, into the empty keyspace of a node that serves nothing yet.
///
/// # Errors
/// One line for the operator.
pub fn load_dump(server: &Server, settings: &Settings) -> Result<(), String> {
    load_dump_over(server, settings, Existing::Refused)
}

/// As [`load_dump`], of a node that serves nothing now.
///
/// # Errors
/// One line for the operator.
pub fn load_dump_over(server: &Server, settings: &Settings, existing: Existing) -> Result<(), String> {
    let path = Path::new(&settings.dbfilename);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("can't open '{}': {error}", path.display())),
    };
    let metadata = file.metadata().map_err(|e| format!("can't read '{}': {e}", path.display()))?;
    // Of a pipe it is not known.
    let total = metadata.is_file().then_some(metadata.len());
    tracing::info!(file = %path.display(), bytes = total, "loading");
    let start = Instant::now();
    server.loading.begin(total.unwrap_or(0));
    let options = Options { existing, ..Options::new(settings, Some(clock::unix_millis().0)) };
    let loaded = load(&server.keyspace, file, total, options, &server.loading);
    server.loading.end();
    let loaded = loaded.map_err(|error| {
        format!(
            "can't load '{}': {error}. Nothing was loaded. Restore the file from a copy, or move it away to start \
             empty; 'keyward-node check-rdb FILE' tells more",
            path.display()
        )
    })?;
    for module in &loaded.facts.modules {
        tracing::warn!(module, "the file holds data of a module, which was passed over");
    }
    let Loaded { keys, expired, empty, facts, bytes: _ } = loaded;
    server.last_load.keys.store(keys, Ordering::Relaxed);
    server.last_load.expired.store(expired, Ordering::Relaxed);
    let shared = server.shared_self().ok_or("the node is ending")?;
    crate::scripts::replace_libraries(&shared, facts.functions)?;
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(keys, expired, empty, milliseconds, "loaded");
    Ok(())
}

impl Options {
    pub fn new(settings: &Settings, expire_before: Option<i64>) -> Self {
        let trust = if settings.rdb_checksum { Trust::Verify } else { Trust::Ignore };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            trust,
            versions: settings.rdb_version_check,
            databases: settings.databases(),
            expire_before,
            keys: settings.keys,
            threads,
            existing: Existing::Refused,
        }
    }
}

/// Loads a file of `total` bytes, if that is known, into an empty keyspace.
///
/// # Errors
/// What is wrong with the file first. The keyspace then holds a part of it.
pub fn load<R: Read>(
    keyspace: &Keyspace,
    inner: R,
    total: Option<u64>,
    options: Options,
    progress: &Loading,
) -> Result<Loaded, FileError> {
    let mut reader = Reader::new(inner, total, options.trust, options.versions)?;
    let work = Work::new(keyspace, options);
    let (sender, receiver) = sync_channel(options.threads * 2);
    let receiver = Mutex::new(receiver);
    let read = std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| work.run(&receiver));
        }
        // The sender goes with this call, so that the workers end.
        read_chunks(&mut reader, total, &work, sender, progress)
    });
    // What a worker has found lies before what the reader has found.
    match work.error.into_inner() {
        Some(error) => return Err(error),
        None => read?,
    }
    Ok(Loaded {
        facts: reader.facts().clone(),
        keys: work.keys.into_inner(),
        expired: work.expired.into_inner(),
        empty: work.empty.into_inner(),
        bytes: reader.offset(),
    })
}

fn read_chunks<R: Read>(
    reader: &mut Reader<R>,
    total: Option<u64>,
    work: &Work<'_>,
    sender: SyncSender<Chunk>,
    progress: &Loading,
) -> Result<(), FileError> {
    let mut reserved = false;
    let mut before = 0;
    while let Some(chunk) = reader.next_chunk()? {
        if !std::mem::replace(&mut reserved, true) {
            let keys_max = total.unwrap_or(0) / BYTES_PER_KEY_MIN;
            reserve(work.keyspace, reader.facts().keys_hint.min(keys_max));
        }
        // The workers have ended only if one has found an error.
        if work.failed.load(Ordering::Relaxed) || sender.send(chunk).is_err() {
            return Ok(());
        }
        progress.advance(reader.offset() - before);
        before = reader.offset();
    }
    Ok(())
}

/// Makes room for so many keys in the first database: growing step by step costs more than inserting.
fn reserve(keyspace: &Keyspace, keys: u64) {
    let per_slot = keys as f64 / f64::from(SLOT_COUNT);
    // Most slots have at most this many: keys fall into slots at random.
    let per_slot = (per_slot + 2.0 * per_slot.sqrt()) as usize;
    for slot in Slot::all().take_while(|_| per_slot > 1) {
        keyspace.reserve(slot, per_slot);
    }
}

/// What the threads that decode share.
#[derive(Debug)]
struct Work<'a> {
    keyspace: &'a Keyspace,
    options: Options,
    keys: AtomicU64,
    expired: AtomicU64,
    empty: AtomicU64,
    failed: AtomicBool,
    /// The one that lies first in the file of those that were found.
    error: Mutex<Option<FileError>>,
}

impl<'a> Work<'a> {
    fn new(keyspace: &'a Keyspace, options: Options) -> Self {
        Work {
            keyspace,
            options,
            keys: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            empty: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    fn run(&self, receiver: &Mutex<Receiver<Chunk>>) {
        loop {
            let received = receiver.lock().recv();
            let Ok(chunk) = received else { return };
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.load_chunk(&chunk) {
                self.failed.store(true, Ordering::Relaxed);
                let mut first = self.error.lock();
                if first.as_ref().is_none_or(|first| error.offset < first.offset) {
                    *first = Some(error);
                }
            }
        }
    }

    fn load_chunk(&self, chunk: &Chunk) -> Result<(), FileError> {
        let keys = Keys::apply(self.keyspace, &self.options.keys, clock::monotonic());
        let mut decoded = Vec::with_capacity(BATCH_LEN);
        let mut counts = Counts::default();
        for spans in chunk.spans.chunks(BATCH_LEN) {
            for span in spans {
                decoded.extend(self.decode(chunk, span, &keys, &mut counts)?);
            }
            for key in &decoded {
                self.keyspace.prefetch_insertion(key.slot, key.span.db, key.hash);
            }
            for key in decoded.drain(..) {
                let Decoded { span, slot, hash, entry } = key;
                if self.options.existing == Existing::Replaced {
                    self.keyspace.remove_unlogged(slot, span.db, hash, entry.key());
                }
                if !self.keyspace.insert_loaded(slot, span.db, hash, entry) {
                    return Err(error(chunk, span, RdbError::Corrupt("a key is there twice")));
                }
                counts.keys += 1;
            }
        }
        self.keys.fetch_add(counts.keys, Ordering::Relaxed);
        self.expired.fetch_add(counts.expired, Ordering::Relaxed);
        self.empty.fetch_add(counts.empty, Ordering::Relaxed);
        Ok(())
    }

    /// `None`: the key has expired or is empty.
    fn decode<'c>(
        &self,
        chunk: &'c Chunk,
        span: &'c Span,
        keys: &Keys<'_>,
        counts: &mut Counts,
    ) -> Result<Option<Decoded<'c>>, FileError> {
        if self.options.databases <= span.db {
            let refused = RdbError::Refused("the file has more databases than 'databases' allows");
            return Err(error(chunk, span, refused));
        }
        let record = Record::open(chunk.record(span)).map_err(|e| error(chunk, span, e))?;
        let value = match record.value(keys.limits()) {
            Ok(value) => value,
            Err(RdbError::Empty) => {
                counts.empty += 1;
                return Ok(None);
            }
            Err(e) => return Err(error(chunk, span, e)),
        };
        if let (Some(at), Some(now)) = (record.expire_at, self.options.expire_before)
            && at < now
        {
            counts.expired += 1;
            return Ok(None);
        }
        if u32::try_from(record.key.len()).is_err() {
            return Err(error(chunk, span, RdbError::Refused("a key of 4 GiB or more")));
        }
        let (slot, hash) = (Slot::of(&record.key), hash_of(&record.key));
        let mut entry = value.into_entry(&record.key, record.expire_at, keys.access_of(record.access));
        entry.set_mark(self.keyspace.cow.mark());
        Ok(Some(Decoded { span, slot, hash, entry }))
    }
}

/// A key on its way into its slot.
struct Decoded<'c> {
    span: &'c Span,
    slot: Slot,
    hash: u64,
    entry: Entry,
}

#[derive(Default)]
struct Counts {
    keys: u64,
    expired: u64,
    empty: u64,
}

fn error(chunk: &Chunk, span: &Span, error: RdbError) -> FileError {
    let record = Record::open(chunk.record(span)).ok().map(|record| RecordName {
        db: span.db,
        key: record.key.to_vec(),
        type_byte: record.type_byte,
    });
    FileError::new(error, chunk.offset_of(span), record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use keyward_store::entry::{NewValue, ValueRef};
    use keyward_store::rdb::file::Writer;
    use keyward_store::rdb::{Compression, record};
    use keyward_store::types::List;

    fn record(key: &str, value: NewValue<'_>, expire_at: Option<i64>) -> Vec<u8> {
        let entry = Entry::new(key.as_bytes(), value, expire_at, 0);
        let mut out = Vec::new();
        record::save(entry.key(), entry.value(), expire_at, None, Compression::Lzf, &mut out);
        out
    }

    fn file(records: impl IntoIterator<Item = (DbIndex, Vec<u8>)>) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.resize_db(0, 100_000, 0).unwrap();
        for (db, record) in records {
            writer.records(db, &record).unwrap();
        }
        writer.finish().unwrap()
    }

    fn load_file(file: &[u8]) -> Result<(Keyspace, Loaded), String> {
        let keyspace = Keyspace::default();
        let options = Options {
            trust: Trust::Verify,
            versions: VersionCheck::Strict,
            databases: 16,
            expire_before: Some(1000),
            keys: Config::default().settings().unwrap().keys,
            threads: 3,
            existing: Existing::Refused,
        };
        let loaded = load(&keyspace, file, Some(file.len() as u64), options, &Loading::default());
        loaded.map(|loaded| (keyspace, loaded)).map_err(|e| e.to_string())
    }

    #[test]
    fn many_keys_are_loaded_by_several_threads() {
        let value = |i: u32| format!("value {i}").into_bytes();
        let records = (0..100_000).map(|i| {
            let expire_at = (i % 10 == 0).then_some(if i % 20 == 0 { 999 } else { 2000 });
            ((i % 4) as DbIndex, record(&format!("key:{i}"), NewValue::Bytes(&value(i)), expire_at))
        });
        let (keyspace, loaded) = load_file(&file(records)).unwrap();
        assert_eq!((loaded.keys, loaded.expired, loaded.empty), (95_000, 5_000, 0));
        let mut with_expiry = 0;
        for i in 0..100_000 {
            let key = format!("key:{i}");
            let state = keyspace.lock(Slot::of(key.as_bytes()));
            let table = state.table((i % 4) as DbIndex);
            let entry = table.and_then(|t| t.get(hash_of(key.as_bytes()), key.as_bytes()));
            match entry.map(|e| (e.value(), e.expire_at())) {
                None => assert_eq!(i % 20, 0),
                Some((ValueRef::String(bytes), expire_at)) => {
                    assert_eq!((bytes, expire_at.is_some()), (&value(i)[..], i % 10 == 0));
                }
                Some(other) => panic!("{other:?}"),
            }
            with_expiry += state.expires_count((i % 4) as DbIndex).min(1);
        }
        assert!(with_expiry > 0);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let a = || record("a", NewValue::Bytes(b"1"), None);
        let check = |file: &[u8], expect: &str| assert_eq!(load_file(file).unwrap_err(), expect);
        check(
            &file([(0, a()), (0, a())]),
            "a key is there twice, at byte 23, key \"a\" of database 0, string",
        );
        check(
            &file([(16, a())]),
            "the file has more databases than 'databases' allows, at byte 20, key \"a\" of database 16, string",
        );
        let mut damaged = file([(0, a())]);
        let end = damaged.len() - 1;
        damaged[end] ^= 1;
        check(&damaged, "the checksum is wrong, at byte 24");
        check(&damaged[..15], "it ends too early, at byte 11");
    }

    #[test]
    fn empty_collections_are_passed_over() {
        let empty = record("l", NewValue::Value(List::default().into()), None);
        let (_, loaded) =
            load_file(&file([(0, empty), (0, record("s", NewValue::Bytes(b""), None))])).unwrap();
        assert_eq!((loaded.keys, loaded.empty), (1, 1));
    }
}
