//! The keyspace as replication sees it: entries of the log are applied to it, slots are read for a full sync.
//!
//! An entry is applied under all its slots' locks, so that a reader on a replica sees a transaction whole. During a
//! full sync each slot was read at an index of its own; effects up to that index are already in the slot and are
//! skipped. That is sound because an effect touches one slot only (ARCHITECTURE.md, "Why effects touch one slot"); the few effects on the
//! whole keyspace are applied slot by slot for the same reason.
//!
//! The payload of a slot in a full sync is groups of a database (two bytes), whether the group goes on in the next one
//! (one byte), a length (four bytes, little endian) and so many bytes of RDB records. A large value thus takes several
//! groups, in messages of bounded size. A group of a database that cannot be has the libraries of functions.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyward_proto::entry::{Effect, effects, frames, is_well_formed};
use keyward_proto::ids::LogIndex;
use keyward_proto::resp::{Args, Batch, Limits, RequestReader};
use keyward_proto::slot::Slot;
use keyward_replication::core::full_sync::{SlotSnapshot, SnapshotEnded};
use keyward_replication::core::messages::SnapshotPart;
use keyward_replication::core::received::SlotSet;
use keyward_replication::log::Slice;
use keyward_replication::reply::ReplyCondition;
use keyward_store::DbIndex;
use keyward_store::entry::Entry;
use keyward_store::keys::Keys;
use keyward_store::rdb::{Compression, payload, record};
use keyward_store::tracking::Changes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;

use crate::aof::history::HistoryReader;
use crate::command::ascii_eq;
use crate::command::find::lookup_effect;
use crate::execute::Executor;
use crate::io::clients::Client;
use crate::io::session::Session;
use crate::replication::{Engine, Figures, LargeSlots, LogHistory, Shared};
use crate::scripts::copy_libraries;
use crate::scripts::libraries::{self, Libraries};
use crate::server::Server;
use crate::snapshot::Stream;
use crate::tracking::Cause;

/// A slot whose records take more is too large to be read under one lock.
const SLOT_BYTES_MAX: usize = 256 << 10;
/// Bytes of records in one group; a message holds only a few.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// The libraries of functions, in the payload of the slot to which they belong: no database has this number.
const LIBRARIES: DbIndex = DbIndex::MAX;
/// A slot with more keys is not even tried.
const SLOT_KEYS_MAX: usize = 4096;

/// See the module documentation.
#[derive(Debug)]
pub struct KeyspaceEngine {
    server: Arc<Server>,
    /// Used by the one thread that applies; a lock because `Engine` is shared.
    applier: Mutex<Applier>,
}

#[derive(Debug)]
struct Applier {
    executor: Executor,
    session: Session,
    batch: Batch,
    slot_indexes: Option<Arc<[LogIndex]>>,
    /// Records of a full sync that go on in the next group.
    fragments: Vec<u8>,
}

impl KeyspaceEngine {
    pub fn new(server: Arc<Server>, rng: SmallRng) -> Self {
        let applier = Applier {
            executor: Executor::new(Arc::clone(&server), rng),
            session: Session::new(Client::detached()),
            batch: Batch::default(),
            slot_indexes: None,
            fragments: Vec::new(),
        };
        KeyspaceEngine { server, applier: Mutex::new(applier) }
    }
}

impl Applier {
    /// Whether an effect is not yet in its slot.
    fn is_due(&self, slot: Slot, index: LogIndex) -> bool {
        self.slot_indexes.as_ref().is_none_or(|read_at| read_at[slot.index()] < index)
    }

    fn apply(&mut self, server: &Server, index: LogIndex, payload: &[u8]) -> Result<(), String> {
        let due: Vec<Effect<'_>> =
            effects(payload).filter(|e| e.slot.is_none_or(|slot| self.is_due(slot, index))).collect();
        if due.is_empty() {
            return Ok(());
        }
        if let Some(whole) = due.iter().find(|e| e.slot.is_none())
            && self.slot_indexes.is_some()
        {
            assert_eq!(due.len(), 1, "an effect on the whole keyspace is an entry of its own");
            return self.apply_whole_by_slot(server, index, whole);
        }
        let slots: Option<Vec<Slot>> = due.iter().map(|e| e.slot).collect();
        self.apply_effects(slots, index, &due)
    }

    /// Applies effects under their slots' locks; `None`: those of all slots.
    fn apply_effects(
        &mut self,
        slots: Option<Vec<Slot>>,
        index: LogIndex,
        due: &[Effect<'_>],
    ) -> Result<(), String> {
        let Applier { executor, session, batch, .. } = self;
        executor.apply_locked(session, slots, index, |apply| {
            for effect in due {
                apply(effect.db, command_of(effect, batch)?)?;
            }
            Ok(())
        })
    }

    /// FLUSHALL, FLUSHDB and SWAPDB, in the slots that were read before them.
    fn apply_whole_by_slot(
        &mut self,
        server: &Server,
        index: LogIndex,
        effect: &Effect<'_>,
    ) -> Result<(), String> {
        let mut batch = Batch::default();
        let args = command_of(effect, &mut batch)?;
        let name = args.at(0);
        let (cow, counts) = (&server.keyspace.cow, &server.keyspace.counts);
        for slot in Slot::all().filter(|slot| self.is_due(*slot, index)) {
            let mut state = server.keyspace.lock(slot);
            if ascii_eq(name, "flushall") {
                drop(cow.keep_taken(slot, state.take_tables(slot, None, counts)));
            } else if ascii_eq(name, "flushdb") {
                drop(cow.keep_taken(slot, state.take_tables(slot, Some(effect.db), counts)));
            } else if let Some((a, b)) = swapdb_arguments(args).filter(|_| ascii_eq(name, "swapdb")) {
                state.swap_dbs(slot, a, b, counts);
            } else {
                return Err(format!("`{}` is not known", String::from_utf8_lossy(name)));
            }
            state.last_write = index;
        }
        Ok(())
    }
}

fn swapdb_arguments(args: Args<'_>) -> Option<(DbIndex, DbIndex)> {
    let number =
        |i| keyward_proto::resp::number::parse_i64(args.get(i)?).and_then(|n| DbIndex::try_from(n).ok());
    Some((number(1)?, number(2)?))
}

impl KeyspaceEngine {
    fn clear_slot(&self, slot: Slot) {
        let keyspace = &self.server.keyspace;
        let mut state = keyspace.lock(slot);
        let tables = keyspace.cow.keep_taken(slot, state.take_tables(slot, None, &keyspace.counts));
        state.next_expiry = 0;
        state.last_write = LogIndex::ZERO;
        state.forget_readers(&keyspace.tracking);
        if slot == libraries::SLOT {
            self.server.scripts.change_libraries(Libraries::clear);
        }
        drop(state);
        drop(tables);
    }
}

/// All libraries of functions, as records; empty if there are none.
fn library_records(server: &Server) -> Vec<u8> {
    let mut records = Vec::new();
    for source in server.scripts.sources() {
        payload::push_function(&source, Compression::None, &mut records);
    }
    records
}

/// Parts of a slot's payload, with bytes that may be too many for one.
fn pieces<'a>(db: DbIndex, bytes: &'a [u8], goes_on: GoesOn) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let count = bytes.len().div_ceil(GROUP_BYTES_MAX);
    bytes.chunks(GROUP_BYTES_MAX).enumerate().map(move |(number, records)| {
        let goes_on = number + 1 < count || goes_on == GoesOn::Later;
        let mut payload = Vec::with_capacity(records.len() + 8);
        Group { db, goes_on, records }.push(&mut payload);
        payload
    })
}

/// Whether what is behind the last of some bytes belongs to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    Later,
    No,
}

/// The command that an effect is. What a client could send was checked when it did.
fn command_of<'a>(effect: &Effect<'a>, batch: &'a mut Batch) -> Result<Args<'a>, String> {
    let limits = Limits { bulk_len_max: usize::MAX, args_max: usize::MAX, authenticated: true };
    let (parsed, result) = RequestReader::default().parse(effect.command, &limits, 1, batch);
    if result.is_err() || parsed != effect.command.len() || batch.len() != 1 {
        return Err("that is no command".into());
    }
    Ok(batch.args(effect.command, 0))
}

/// Records of one database.
struct Group<'a> {
    db: DbIndex,
    goes_on: bool,
    records: &'a [u8],
}

impl Group<'_> {
    fn push(&self, payload: &mut Vec<u8>) {
        let len = u32::try_from(self.records.len()).expect("a group is bounded");
        payload.extend_from_slice(&self.db.to_le_bytes());
        payload.push(u8::from(self.goes_on));
        payload.extend_from_slice(&len.to_le_bytes());
        payload.extend_from_slice(self.records);
    }
}

/// The groups of a payload, which a program of this version has written.
fn groups(mut payload: &[u8]) -> impl Iterator<Item = Group<'_>> {
    std::iter::from_fn(move || {
        let (db, rest) = payload.split_first_chunk::<2>()?;
        let (goes_on, rest) = rest.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (records, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        payload = rest;
        Some(Group { db: DbIndex::from_le_bytes(*db), goes_on: *goes_on != 0, records })
    })
}

fn save_record(entry: &Entry, out: &mut Vec<u8>) {
    record::save(entry.key(), entry.value(), entry.expire_at(), None, Compression::None, out);
}

/// Large slots out of a snapshot of the whole keyspace.
struct LargeSlotsStream {
    server: Arc<Server>,
    stream: Stream,
    slots: BTreeSet<Slot>,
    /// Of the snapshot, once it has begun.
    index: Option<LogIndex>,
    ended: bool,
}

impl LargeSlots for LargeSlotsStream {
    fn next_parts(&mut self) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
        let part = |slot, index, payload: Vec<u8>, is_last| SnapshotPart {
            slot,
            index,
            payload: payload.into(),
            is_last,
        };
        let index = match self.index {
            Some(index) => index,
            None => {
                let index = self.stream.begin().map_err(|_| SnapshotEnded)?.position.index;
                self.index = Some(index);
                // What has changed since then is applied once more.
                let records = library_records(&self.server);
                if self.slots.contains(&libraries::SLOT) && !records.is_empty() {
                    let payloads = pieces(LIBRARIES, &records, GoesOn::No);
                    return Ok(payloads
                        .map(|payload| part(libraries::SLOT, index, payload, false))
                        .collect());
                }
                index
            }
        };
        let part = |slot, payload, is_last| part(slot, index, payload, is_last);
        while !self.ended {
            let Some(chunk) = self.stream.next_chunk().map_err(|_| SnapshotEnded)? else {
                self.ended = true;
                return Ok(self.slots.iter().map(|slot| part(*slot, Vec::new(), true)).collect());
            };
            let mut parts: Vec<SnapshotPart> = Vec::new();
            for records in &chunk.records {
                for part_of in records.by_slot().filter(|part_of| self.slots.contains(&part_of.slot)) {
                    let goes_on = if part_of.goes_on { GoesOn::Later } else { GoesOn::No };
                    let payloads = pieces(records.db, part_of.bytes, goes_on);
                    parts.extend(payloads.map(|payload| part(part_of.slot, payload, false)));
                }
            }
            if !parts.is_empty() {
                return Ok(parts);
            }
        }
        Ok(Vec::new())
    }
}

impl LogHistory for HistoryReader {
    fn read(&mut self) -> Result<Option<Slice>, String> {
        HistoryReader::read(self)
    }
}

impl Engine for KeyspaceEngine {
    fn apply(&self, index: LogIndex, payload: &[u8]) -> Result<(), String> {
        let mut applier = self.applier.lock();
        let _batch = applier.executor.enter();
        applier.apply(&self.server, index, payload)?;
        self.server.shared.set_applied(index);
        Ok(())
    }

    fn unknown_effect(&self, entries: &[u8]) -> Option<String> {
        let mut batch = Batch::default();
        let mut unknown = |effect: Effect<'_>| match command_of(&effect, &mut batch) {
            Ok(args) => lookup_effect(args).err().map(|error| error.to_string()),
            Err(reason) => Some(reason),
        };
        let is_torn = |payload: &[u8]| (!is_well_formed(payload)).then(|| "that is torn".to_owned());
        frames(entries)
            .find_map(|payload| is_torn(payload).or_else(|| effects(payload).find_map(&mut unknown)))
    }

    fn clear(&self) {
        // Batches that have seen a replica come to their end: they shall not find half of its keys.
        self.quiesce();
        let mut applier = self.applier.lock();
        applier.fragments.clear();
        let _batch = applier.executor.enter();
        self.server.note_incomplete();
        self.server.shared.set_applied(LogIndex::ZERO);
        Slot::all().for_each(|slot| self.clear_slot(slot));
        let changes = Changes { keys: Vec::new(), flushed: true };
        let cause = Cause { client: None, condition: ReplyCondition::default() };
        self.server.tell_changes(&changes, cause);
    }

    fn apply_snapshot(&self, slot: Slot, payload: &[u8]) -> Result<(), String> {
        let mut applier = self.applier.lock();
        let Applier { executor, fragments, .. } = &mut *applier;
        let _batch = executor.enter();
        let settings = self.server.settings();
        let now = self.server.clock.monotonic();
        let mut keys = Keys::apply(&self.server.keyspace, &settings.keys, now);
        keys.lock_one(slot);
        for group in groups(payload) {
            keys.db = group.db;
            fragments.extend_from_slice(group.records);
            if group.goes_on {
                continue;
            }
            if group.db == LIBRARIES {
                let copied = payload::load_functions(fragments).map_err(|error| error.to_string()).and_then(
                    |sources| copy_libraries(&self.server, &sources).map_err(|error| error.to_string()),
                );
                copied.map_err(|error| format!("the libraries of functions in a full sync: {error}"))?;
                fragments.clear();
                continue;
            }
            for loaded in record::load_all(fragments, &settings.keys.limits) {
                // A replica that cannot load what its primary has would differ from it for ever.
                let (record, value) =
                    loaded.map_err(|e| format!("a record of slot {slot} in a full sync: {e}"))?;
                let access = keys.access_of(record.access);
                keys.insert_entry(value.into_entry(&record.key, record.expire_at, access));
            }
            fragments.clear();
            fragments.shrink_to(GROUP_BYTES_MAX);
        }
        keys.unlock();
        Ok(())
    }

    fn keep_slots(&self, kept: &SlotSet) {
        let mut applier = self.applier.lock();
        applier.fragments.clear();
        let _batch = applier.executor.enter();
        Slot::all().filter(|slot| !kept.contains(*slot)).for_each(|slot| self.clear_slot(slot));
    }

    fn set_slot_indexes(&self, indexes: Option<Arc<[LogIndex]>>) {
        let mut applier = self.applier.lock();
        let _batch = applier.executor.enter();
        match &indexes {
            // Beyond this, entries follow.
            Some(read_at) => {
                self.server.shared.set_applied(read_at.iter().min().copied().unwrap_or(LogIndex::ZERO));
                Slot::all()
                    .zip(read_at.iter())
                    .for_each(|(slot, index)| self.server.keyspace.note_written(slot, *index));
            }
            None => self.server.note_complete(),
        }
        applier.slot_indexes = indexes;
    }

    fn read_slot(&self, slot: Slot, shared: &Shared) -> Option<SlotSnapshot> {
        let state = self.server.keyspace.lock(slot);
        let index = shared.log.lock().last().index;
        if state.dbs().map(|(_, table)| table.len()).sum::<usize>() > SLOT_KEYS_MAX {
            return None;
        }
        let (mut payload, mut records) = (Vec::new(), Vec::new());
        if slot == libraries::SLOT {
            let records = library_records(&self.server);
            if SLOT_BYTES_MAX < records.len() {
                return None;
            }
            if !records.is_empty() {
                Group { db: LIBRARIES, goes_on: false, records: &records }.push(&mut payload);
            }
        }
        for (db, table) in state.dbs() {
            records.clear();
            for entry in table.iter() {
                save_record(entry, &mut records);
                if SLOT_BYTES_MAX < payload.len() + records.len() {
                    return None;
                }
            }
            Group { db, goes_on: false, records: &records }.push(&mut payload);
        }
        Some(SlotSnapshot { index, payload: payload.into() })
    }

    fn read_large_slots(&self, slots: &[Slot]) -> Box<dyn LargeSlots> {
        let stream = self.server.snapshots.request(&self.server, Box::new(|_| {}));
        Box::new(LargeSlotsStream {
            server: Arc::clone(&self.server),
            stream,
            slots: slots.iter().copied().collect(),
            index: None,
            ended: false,
        })
    }

    fn memory_bytes(&self) -> usize {
        self.server.memory.counted()
    }

    fn key_count(&self) -> u64 {
        self.server.keyspace.counts.keys() as u64
    }

    fn figures(&self) -> Figures {
        let settings = self.server.settings();
        let [commands, _, _] = self.server.stats.rates.per_second();
        Figures {
            password_mark: settings.password_mark(),
            memory_bytes: self.server.memory.used() as u64,
            memory_max_bytes: settings.maxmemory as u64,
            commands_per_second: Some(commands),
        }
    }

    fn read_history(&self, next: LogIndex) -> Option<Box<dyn LogHistory>> {
        let reader = self.server.aof.read_history(&self.server, next)?;
        Some(Box::new(reader))
    }

    fn quiesce(&self) {
        self.server.world.quiesce();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::testing::TestNode;
    use keyward_store::effects::EffectBuffer;

    fn engine_of(server: &Arc<Server>) -> KeyspaceEngine {
        KeyspaceEngine::new(Arc::clone(server), SmallRng::seed_from_u64(1))
    }

    fn keys(node: &mut TestNode) -> String {
        let mut found: Vec<String> = Vec::new();
        for slot in Slot::all() {
            let state = node.executor.server().keyspace.lock(slot);
            for (db, table) in state.dbs() {
                found.extend(
                    table
                        .iter()
                        .map(|e| format!("{db}:{}={:?}", String::from_utf8_lossy(e.key()), e.value())),
                );
            }
        }
        found.sort();
        found.join(" ")
    }

    #[test]
    fn a_slot_snapshot_rebuilds_the_slot() {
        let mut source = TestNode::replicated();
        source.run("SET {t}a 1");
        source.run("RPUSH {t}l a b c");
        let slot = Slot::of(b"{t}");
        let server = Arc::clone(source.executor.server());
        let snapshot = engine_of(&server).read_slot(slot, &server.shared).unwrap();
        assert_eq!(snapshot.index, LogIndex::new(2));
        let mut copy = TestNode::new();
        let engine = engine_of(copy.executor.server());
        engine.apply_snapshot(slot, &snapshot.payload).unwrap();
        assert_eq!(keys(&mut copy), keys(&mut source));
        engine.clear();
        assert_eq!(keys(&mut copy), "");
    }

    #[test]
    fn a_large_slot_comes_in_parts() {
        let mut source = TestNode::replicated();
        for i in 0..3_000 {
            source.run(&format!("SET {{t}}{i} {}", "v".repeat(200)));
            source.run(&format!("SET other{i} {i}"));
            source.run(&format!("RPUSH {{t}}list {i}"));
            source.run(&format!("HSET {{t}}hash {i} {}", i * 7));
            source.run(&format!("SADD {{t}}set m{i}"));
            source.run(&format!("ZADD {{t}}zset {}.5 m{i}", i % 50));
        }
        source.run(&format!("SET {{t}}long {}", "abc".repeat(1_000_000)));
        source.run("PEXPIREAT {t}hash 99999999999999");
        let slot = Slot::of(b"t");
        let server = Arc::clone(source.executor.server());
        let engine = engine_of(&server);
        assert!(engine.read_slot(slot, &server.shared).is_none());
        let mut reader = engine.read_large_slots(&[slot]);
        let mut parts = Vec::new();
        loop {
            let more = reader.next_parts().unwrap();
            if more.is_empty() {
                break;
            }
            parts.extend(more);
        }
        assert!(parts.iter().all(|p| p.slot == slot && p.index == LogIndex::new(18_002)));
        assert!(parts.iter().filter(|p| p.is_last).count() == 1 && parts.last().unwrap().is_last);
        let mut copy = TestNode::new();
        let target = engine_of(copy.executor.server());
        parts.iter().for_each(|p| target.apply_snapshot(slot, &p.payload).unwrap());
        let mut replies = |request: &str| {
            // Members come in no order.
            let sorted = |reply: String| {
                let mut lines: Vec<String> = reply.split("\r\n").map(str::to_owned).collect();
                if !request.contains("RANGE") {
                    lines.sort();
                }
                lines
            };
            assert_eq!(sorted(copy.run(request)), sorted(source.run(request)), "{request}");
        };
        for request in [
            "LRANGE {t}list 0 -1",
            "HGETALL {t}hash",
            "PEXPIRETIME {t}hash",
            "SMEMBERS {t}set",
            "ZRANGE {t}zset 0 -1 WITHSCORES",
            "GET {t}long",
            "GET {t}77",
        ] {
            replies(request);
        }
        let others = (0..3_000).filter(|i| Slot::of(format!("other{i}").as_bytes()) == slot).count();
        assert_eq!(copy.run("DBSIZE"), format!(":{}\r\n", 3_005 + others));
        let mut kept = SlotSet::default();
        target.keep_slots(&kept);
        assert_eq!(keys(&mut copy), "");
        kept.insert(slot);
        engine.keep_slots(&kept);
        assert_ne!(keys(&mut source), "");
    }

    fn load_library(node: &mut TestNode, name: &str, comment: usize) {
        let source = format!(
            "#!lua name={name}\nredis.register_function('{name}', function() return 1 end)--{}",
            "x".repeat(comment)
        );
        node.run_words(&[b"FUNCTION", b"LOAD", source.as_bytes()]);
    }

    #[test]
    fn a_full_sync_has_the_libraries_of_functions() {
        let mut source = TestNode::replicated();
        load_library(&mut source, "one", 0);
        let slot = libraries::SLOT;
        let server = Arc::clone(source.executor.server());
        let engine = engine_of(&server);
        let small = engine.read_slot(slot, &server.shared).unwrap();
        assert_eq!(small.index, LogIndex::new(1));
        let mut copy = TestNode::new();
        load_library(&mut copy, "other", 0);
        let target = engine_of(copy.executor.server());
        target.clear();
        assert_eq!(copy.run("FCALL other 0"), "-ERR Function not found\r\n");
        target.apply_snapshot(slot, &small.payload).unwrap();
        assert_eq!(copy.run("FCALL one 0"), ":1\r\n");

        // They take several parts.
        load_library(&mut source, "two", 3 * GROUP_BYTES_MAX);
        assert!(engine.read_slot(slot, &server.shared).is_none());
        let mut reader = engine.read_large_slots(&[slot]);
        let mut parts = 0;
        loop {
            let more = reader.next_parts().unwrap();
            if more.is_empty() {
                break;
            }
            parts += more.len();
            more.iter().for_each(|part| target.apply_snapshot(slot, &part.payload).unwrap());
        }
        assert!(3 < parts, "{parts}");
        assert_eq!((copy.run("FCALL one 0"), copy.run("FCALL two 0")), (":1\r\n".into(), ":1\r\n".into()));
        assert!(target.apply_snapshot(slot, &[0xff, 0xff, 0, 2, 0, 0, 0, 245, 9]).is_err());
        target.keep_slots(&SlotSet::default());
        assert_eq!(copy.run("FUNCTION LIST"), "*0\r\n");
    }

    #[test]
    fn an_effect_of_a_newer_program_is_noticed_before_it_is_taken() {
        let node = TestNode::new();
        let engine = engine_of(node.executor.server());
        let entries = |commands: &[&str]| {
            let mut buffer = EffectBuffer::default();
            commands.iter().for_each(|command| buffer.push(Some(Slot::of(b"k")), 0, command.as_bytes()));
            let payload = buffer.as_payload();
            [&u32::try_from(payload.len()).unwrap().to_le_bytes(), payload].concat()
        };
        let (del, new) = ("*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n", "*2\r\n$7\r\nNEWDEL2\r\n$1\r\nk\r\n");
        assert_eq!(engine.unknown_effect(&entries(&[])), None);
        assert_eq!(engine.unknown_effect(&[entries(&[del, del]), entries(&[del])].concat()), None);
        let unknown = engine.unknown_effect(&[entries(&[del]), entries(&[del, new])].concat());
        assert!(unknown.as_ref().is_some_and(|words| words.contains("NEWDEL2")), "{unknown:?}");
        assert!(engine.unknown_effect(&entries(&["DEL k"])).is_some());
    }

    /// It ended the process, of one replica after the other.
    #[test]
    fn a_record_that_is_not_known_ends_a_full_sync_in_words() {
        let mut source = TestNode::replicated();
        source.run("SET {t}a 1");
        let slot = Slot::of(b"{t}");
        let server = Arc::clone(source.executor.server());
        let snapshot = engine_of(&server).read_slot(slot, &server.shared).unwrap();
        let at = snapshot.payload.iter().rposition(|b| *b == b'a').unwrap();
        // Its type stands before the key with its length.
        let mut payload = snapshot.payload.to_vec();
        payload[at - 5] = 77;
        let mut copy = TestNode::new();
        let engine = engine_of(copy.executor.server());
        let error = engine.apply_snapshot(slot, &payload).unwrap_err();
        assert!(error.starts_with(&format!("a record of slot {slot} in a full sync: ")), "{error}");
        engine.apply_snapshot(slot, &snapshot.payload).unwrap_err();
        engine.clear();
        engine.apply_snapshot(slot, &snapshot.payload).unwrap();
        assert_eq!(keys(&mut copy), keys(&mut source), "a newer program takes it");
    }

    #[test]
    fn effects_that_a_slot_snapshot_holds_are_skipped() {
        let mut copy = TestNode::new();
        let engine = engine_of(copy.executor.server());
        let mut buffer = EffectBuffer::default();
        let slot = Slot::of(b"k");
        buffer.push(Some(slot), 0, b"*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$1\r\nx\r\n");
        let mut indexes = vec![LogIndex::ZERO; 16384];
        indexes[slot.index()] = LogIndex::new(5);
        engine.set_slot_indexes(Some(indexes.into()));
        let waits_for = |slot| copy.executor.server().keyspace.lock(slot).last_write;
        assert_eq!((waits_for(slot), waits_for(Slot::of(b"other"))), (LogIndex::new(5), LogIndex::ZERO));
        engine.apply(LogIndex::new(5), buffer.as_payload()).unwrap();
        assert_eq!(keys(&mut copy), "");
        engine.apply(LogIndex::new(6), buffer.as_payload()).unwrap();
        assert_ne!(keys(&mut copy), "");
        // A FLUSHALL from before the slot was read does not empty it; a later one does.
        let mut flush = EffectBuffer::default();
        flush.push(None, 0, b"*1\r\n$8\r\nFLUSHALL\r\n");
        engine.apply(LogIndex::new(4), flush.as_payload()).unwrap();
        assert_ne!(keys(&mut copy), "");
        engine.apply(LogIndex::new(7), flush.as_payload()).unwrap();
        assert_eq!(keys(&mut copy), "");
    }

    #[test]
    fn an_effect_is_applied_whatever_the_settings_are_and_one_that_is_not_known_is_an_error() {
        let mut copy = TestNode::new();
        let engine = engine_of(copy.executor.server());
        let entry = |command: &[&[u8]], slot: Option<Slot>, db| {
            let mut out = bytes::BytesMut::new();
            keyward_proto::resp::reply::write_command(&mut out, command);
            let mut buffer = EffectBuffer::default();
            buffer.push(slot, db, &out);
            buffer
        };
        let slot = Some(Slot::of(b"k"));
        let effects = [
            entry(&[b"SET", b"k", b"x"], slot, 31),
            entry(&[b"MOVE", b"k", b"30"], slot, 31),
            entry(&[b"SWAPDB", b"30", b"3"], None, 0),
        ];
        for (index, effect) in (1..).zip(&effects) {
            engine.apply(LogIndex::new(index), effect.as_payload()).unwrap();
        }
        copy.run("SELECT 3");
        assert_eq!(copy.run("GET k"), "$1\r\nx\r\n");
        for (effect, why) in [
            (entry(&[b"FROB", b"k"], slot, 0), "`FROB k`: "),
            (entry(&[b"LPUSH", b"k", b"y"], slot, 3), "WRONGTYPE"),
        ] {
            let error = engine.apply(LogIndex::new(9), effect.as_payload()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
