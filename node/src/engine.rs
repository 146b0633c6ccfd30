//! The keyspace as replication sees it: entries of the log are applied to it, slots are read for a full sync.
//!
//! An entry is applied under all its slots' locks, so that a reader on a replica sees a transaction whole. During a
//! full sync each slot was read at an index of its own; effects up to that index are already in the slot and are
//! skipped. That is sound because an effect touches one slot only (DESIGN section 4, rule 2); the few effects on the
//! whole keyspace are applied slot by slot for the same reason.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use keyward_proto::ids::LogIndex;
use keyward_proto::resp::reply::write_command;
use keyward_proto::resp::{Args, Batch, Limits, RequestReader};
use keyward_proto::slot::Slot;
use parking_lot::Mutex;

use crate::clients::Client;
use crate::command::ascii_eq;
use crate::execute::Executor;
use crate::keyspace::{DbIndex, rebuild};
use crate::log::{Effect, EffectBuffer, effects};
use crate::replication::{Engine, Shared, SlotSnapshot};
use crate::server::Server;
use crate::session::Session;

/// Bytes of effects in one part of a slot's snapshot, unless a single effect is larger.
const PART_BYTES: usize = 128 << 10;

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
    reader: RequestReader,
    batch: Batch,
    slot_indexes: Option<Arc<[LogIndex]>>,
}

impl KeyspaceEngine {
    pub fn new(server: Arc<Server>) -> Self {
        let applier = Applier {
            executor: Executor::new(Arc::clone(&server)),
            session: Session::new(Client::detached(), true),
            reader: RequestReader::default(),
            batch: Batch::default(),
            slot_indexes: None,
        };
        KeyspaceEngine { server, applier: Mutex::new(applier) }
    }
}

impl Applier {
    /// Whether an effect is not yet in its slot.
    fn is_due(&self, slot: Slot, index: LogIndex) -> bool {
        self.slot_indexes.as_ref().is_none_or(|read_at| read_at[slot.index()] < index)
    }

    fn apply(&mut self, server: &Server, index: LogIndex, payload: &[u8]) {
        let due: Vec<Effect<'_>> =
            effects(payload).filter(|e| e.slot.is_none_or(|slot| self.is_due(slot, index))).collect();
        if due.is_empty() {
            return;
        }
        if let Some(whole) = due.iter().find(|e| e.slot.is_none())
            && self.slot_indexes.is_some()
        {
            assert_eq!(due.len(), 1, "an effect on the whole keyspace is an entry of its own");
            return self.apply_whole_by_slot(server, index, whole);
        }
        let slots: Option<Vec<Slot>> = due.iter().map(|e| e.slot).collect();
        self.apply_effects(slots, index, &due);
    }

    /// Applies effects under their slots' locks; `None`: those of all slots.
    fn apply_effects(&mut self, slots: Option<Vec<Slot>>, index: LogIndex, due: &[Effect<'_>]) {
        let Applier { executor, session, reader, batch, .. } = self;
        executor.apply_locked(session, slots, index, |apply| {
            for effect in due {
                *reader = RequestReader::default();
                let limits = Limits { bulk_len_max: usize::MAX, args_max: usize::MAX, authenticated: true };
                let (parsed, result) = reader.parse(effect.command, &limits, 1, batch);
                // The log is checked when it is received; a command that cannot be applied would make this replica
                // differ from its primary for ever, so the process ends and a full sync follows.
                assert!(
                    result.is_ok() && parsed == effect.command.len() && batch.len() == 1,
                    "an effect is a command"
                );
                apply(effect.db, batch.args(effect.command, 0));
            }
        });
    }

    /// FLUSHALL, FLUSHDB and SWAPDB, in the slots that were read before them.
    fn apply_whole_by_slot(&mut self, server: &Server, index: LogIndex, effect: &Effect<'_>) {
        let limits = Limits::default();
        self.reader = RequestReader::default();
        let (_, result) = self.reader.parse(effect.command, &limits, 1, &mut self.batch);
        assert!(result.is_ok() && self.batch.len() == 1, "an effect is a command");
        let args = self.batch.args(effect.command, 0);
        let name = args.at(0);
        let cow = &server.keyspace.cow;
        for slot in Slot::all().filter(|slot| self.is_due(*slot, index)) {
            let mut state = server.keyspace.lock(slot);
            if ascii_eq(name, "flushall") {
                drop(cow.keep_taken(slot, state.take_tables(None)));
            } else if ascii_eq(name, "flushdb") {
                drop(cow.keep_taken(slot, state.take_tables(Some(effect.db))));
            } else if let Some((a, b)) = swapdb_arguments(args).filter(|_| ascii_eq(name, "swapdb")) {
                state.swap_dbs(a, b);
            } else {
                panic!("an effect on the whole keyspace that is not known: {args:?}");
            }
            state.last_write = index.get();
        }
    }
}

fn swapdb_arguments(args: Args<'_>) -> Option<(DbIndex, DbIndex)> {
    let number =
        |i| keyward_proto::resp::number::parse_i64(args.get(i)?).and_then(|n| DbIndex::try_from(n).ok());
    Some((number(1)?, number(2)?))
}

impl Engine for KeyspaceEngine {
    fn apply(&self, index: LogIndex, payload: &[u8]) {
        let mut applier = self.applier.lock();
        let _batch = applier.executor.enter();
        applier.apply(&self.server, index, payload);
        self.server.shared.set_applied(index);
    }

    fn clear(&self) {
        let applier = self.applier.lock();
        let _batch = applier.executor.enter();
        self.server.set_complete(false);
        self.server.shared.set_applied(LogIndex::ZERO);
        for slot in Slot::all() {
            let mut state = self.server.keyspace.lock(slot);
            let tables = self.server.keyspace.cow.keep_taken(slot, state.take_tables(None));
            state.next_expiry = 0;
            state.last_write = 0;
            drop(state);
            drop(tables);
        }
    }

    fn apply_snapshot(&self, slot: Slot, payload: &[u8]) {
        let due: Vec<Effect<'_>> = effects(payload).collect();
        let mut applier = self.applier.lock();
        let _batch = applier.executor.enter();
        applier.apply_effects(Some(vec![slot]), LogIndex::ZERO, &due);
    }

    fn set_slot_indexes(&self, indexes: Option<Arc<[LogIndex]>>) {
        let mut applier = self.applier.lock();
        let _batch = applier.executor.enter();
        match &indexes {
            // Beyond this, entries follow.
            Some(read_at) => {
                self.server.shared.set_applied(read_at.iter().min().copied().unwrap_or(LogIndex::ZERO));
            }
            None => self.server.set_complete(true),
        }
        applier.slot_indexes = indexes;
    }

    fn snapshot_slot(&self, slot: Slot, shared: &Shared) -> SlotSnapshot {
        let state = self.server.keyspace.lock(slot);
        let index = shared.log.lock().last().index;
        let mut parts = Vec::new();
        let mut part = EffectBuffer::default();
        let mut command = BytesMut::new();
        for (db, table) in state.dbs() {
            for entry in table.iter() {
                rebuild::rebuild(entry, &mut |words| {
                    command.clear();
                    write_command(&mut command, words);
                    part.push(Some(slot), db, &command);
                    if PART_BYTES <= part.as_payload().len() {
                        parts.push(Bytes::copy_from_slice(part.as_payload()));
                        part.clear();
                    }
                });
            }
        }
        if !part.is_empty() {
            parts.push(Bytes::copy_from_slice(part.as_payload()));
        }
        SlotSnapshot { index, parts }
    }

    fn key_count(&self) -> u64 {
        Slot::all()
            .map(|s| self.server.keyspace.lock(s).dbs().map(|(_, t)| t.len() as u64).sum::<u64>())
            .sum()
    }

    fn quiesce(&self) {
        self.server.world.quiesce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNode;

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
        let snapshot = KeyspaceEngine::new(Arc::clone(&server)).snapshot_slot(slot, &server.shared);
        assert_eq!(snapshot.index, LogIndex::new(2));
        let mut copy = TestNode::new();
        let engine = KeyspaceEngine::new(Arc::clone(copy.executor.server()));
        snapshot.parts.iter().for_each(|part| engine.apply_snapshot(slot, part));
        assert_eq!(keys(&mut copy), keys(&mut source));
        engine.clear();
        assert_eq!(keys(&mut copy), "");
    }

    #[test]
    fn effects_that_a_slot_snapshot_holds_are_skipped() {
        let mut copy = TestNode::new();
        let engine = KeyspaceEngine::new(Arc::clone(copy.executor.server()));
        let mut buffer = EffectBuffer::default();
        let slot = Slot::of(b"k");
        buffer.push(Some(slot), 0, b"*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$1\r\nx\r\n");
        let mut indexes = vec![LogIndex::ZERO; 16384];
        indexes[slot.index()] = LogIndex::new(5);
        engine.set_slot_indexes(Some(indexes.into()));
        engine.apply(LogIndex::new(5), buffer.as_payload());
        assert_eq!(keys(&mut copy), "");
        engine.apply(LogIndex::new(6), buffer.as_payload());
        assert_ne!(keys(&mut copy), "");
        // A FLUSHALL from before the slot was read does not empty it; a later one does.
        let mut flush = EffectBuffer::default();
        flush.push(None, 0, b"*1\r\n$8\r\nFLUSHALL\r\n");
        engine.apply(LogIndex::new(4), flush.as_payload());
        assert_ne!(keys(&mut copy), "");
        engine.apply(LogIndex::new(7), flush.as_payload());
        assert_eq!(keys(&mut copy), "");
    }
}
