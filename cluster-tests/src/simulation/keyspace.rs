//! What the clients' keys hold: a model of it, for the checker of histories, and what the real keyspace of a node has.
//!
//! A few slots, in each a register, a counter, two lists, a key with an expiry, and a stream with one group. What is set
//! and appended is the number of the operation, so no two writes are alike. How the model changes is read from the effects in the write log.

use bytes::Bytes;
use keyward_node::engine::KeyspaceEngine;
use keyward_node::replication::{Engine, Shared};
use keyward_node::server::Server;
use keyward_proto::entry::{Effect, effects};
use keyward_proto::ids::LogIndex;
use keyward_proto::resp::{Batch, Limits, RequestReader};
use keyward_proto::slot::Slot;
use keyward_replication::core::full_sync::SlotReader;
use keyward_replication::core::full_sync::{SlotSnapshot, SnapshotEnded};
use keyward_replication::core::messages::SnapshotPart;
use keyward_store::entry::ValueRef;
use keyward_store::types::{Stream, StreamId};

pub(super) const SLOTS: usize = 3;
/// The hash tags of their keys.
pub(super) const TAGS: [&str; SLOTS] = ["a", "b", "c"];
/// A slot whose records take more is too large to be read under one lock, if its number is even.
const LARGE_BYTES: usize = 120;
/// How many elements of the long list are read.
pub(super) const TAIL_LEN: usize = 8;

/// One of the keys of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Register,
    Counter,
    /// Only ever grows; its end is read.
    List,
    /// Pushed to and popped from.
    Queue,
    /// Has an expiry.
    Volatile,
    /// Added to, delivered from, acknowledged.
    Stream,
}

impl Key {
    const ALL: [Key; 6] = [Key::Register, Key::Counter, Key::List, Key::Queue, Key::Volatile, Key::Stream];

    pub(super) fn name(self, slot: usize) -> String {
        format!("{{{}}}{self:?}", TAGS[slot])
    }

    fn parse(name: &[u8]) -> Option<(usize, Key)> {
        let all = || (0..SLOTS).flat_map(|slot| Key::ALL.map(|key| (slot, key)));
        all().find(|(slot, key)| key.name(*slot).as_bytes() == name)
    }
}

pub(super) fn slot_of(number: usize) -> Slot {
    Slot::of(TAGS[number].as_bytes())
}

fn number_of(slot: Slot) -> Option<usize> {
    (0..SLOTS).find(|number| slot_of(*number) == slot)
}

/// What an effect does to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Set(u64),
    Increment,
    Append(u64),
    Push(u64),
    Pop,
    SetVolatile(u64),
    /// The time of the volatile key has passed.
    Expire,
    Enqueue(u64),
    /// The next entry becomes pending.
    Deliver,
    /// The entry that was delivered last is done.
    Acknowledge,
    /// The group is made, or one of its consumers was seen.
    Nothing,
}

/// The changes of an entry, and the slot that they are in; none at the begin of a term.
pub(super) fn changes(payload: &[u8]) -> Option<(usize, Vec<Change>)> {
    let mut found: Option<(usize, Vec<Change>)> = None;
    for effect in effects(payload) {
        let (slot, change) = change_of(&effect);
        let (first, changes) = found.get_or_insert_with(|| (slot, Vec::new()));
        assert_eq!(*first, slot, "an operation is about one slot");
        changes.push(change);
    }
    found
}

fn change_of(effect: &Effect<'_>) -> (usize, Change) {
    let mut batch = Batch::default();
    let parsed = RequestReader::default().parse(effect.command, &Limits::default(), 1, &mut batch);
    assert!(parsed.1.is_ok() && batch.len() == 1, "an effect is a command");
    let args = batch.args(effect.command, 0);
    let name = args.at(0).to_ascii_lowercase();
    let (slot, key) = Key::parse(args.at(1 + usize::from(name == b"xgroup"))).expect("one of the keys");
    assert_eq!(effect.slot, Some(slot_of(slot)), "an effect names the slot of its key");
    let value = || args.get(2).map_or(0, parse_number);
    let change = match (name.as_slice(), key) {
        (b"set", Key::Register) => Change::Set(value()),
        (b"incr", Key::Counter) => Change::Increment,
        (b"rpush", Key::List) => Change::Append(value()),
        (b"rpush", Key::Queue) => Change::Push(value()),
        (b"lpop", Key::Queue) => Change::Pop,
        (b"set", Key::Volatile) => Change::SetVolatile(value()),
        (b"del", Key::Volatile) => Change::Expire,
        (b"xadd", Key::Stream) => Change::Enqueue(parse_number(args.at(args.len() - 1))),
        // Without an entry it notes that a consumer was there.
        (b"xclaim", Key::Stream) if args.at(5) == b"0-0" => Change::Nothing,
        (b"xclaim", Key::Stream) => Change::Deliver,
        (b"xack", Key::Stream) => Change::Acknowledge,
        (b"xgroup", Key::Stream) => Change::Nothing,
        _ => panic!("no operation has the effect {args:?}"),
    };
    (slot, change)
}

fn parse_number(text: &[u8]) -> u64 {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// The values of a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Values {
    pub(super) register: Option<u64>,
    pub(super) counter: u64,
    pub(super) list_len: u64,
    /// The last elements of the list.
    pub(super) tail: Vec<u64>,
    pub(super) queue: Vec<u64>,
    pub(super) volatile: Option<u64>,
    /// What the group has not been given yet.
    pub(super) stream: Vec<u64>,
    pub(super) pending: u64,
}

impl Values {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Set(value) => self.register = Some(value),
            Change::Increment => self.counter += 1,
            Change::Append(value) => {
                self.list_len += 1;
                self.tail.push(value);
                if TAIL_LEN < self.tail.len() {
                    self.tail.remove(0);
                }
            }
            Change::Push(value) => self.queue.push(value),
            Change::Pop => drop(self.queue.remove(0)),
            Change::SetVolatile(value) => self.volatile = Some(value),
            Change::Expire => self.volatile = None,
            Change::Enqueue(value) => self.stream.push(value),
            Change::Deliver => {
                self.stream.remove(0);
                self.pending += 1;
            }
            Change::Acknowledge => self.pending -= 1,
            Change::Nothing => {}
        }
    }
}

/// What the keyspace of a node has in the slots, as it is; panics if it has anything else.
pub(super) fn contents(server: &Server) -> [Values; SLOTS] {
    let mut found: [Values; SLOTS] = Default::default();
    let mut keys = 0;
    for (number, values) in found.iter_mut().enumerate() {
        let state = server.keyspace.lock(slot_of(number));
        for entry in state.dbs().flat_map(|(_, table)| table.iter()) {
            keys += 1;
            let (slot, key) = Key::parse(entry.key()).expect("one of the keys");
            assert_eq!(slot, number, "a key is in its slot");
            match (key, entry.value()) {
                (Key::Register, ValueRef::String(value)) => values.register = Some(parse_number(value)),
                (Key::Counter, ValueRef::String(value)) => values.counter = parse_number(value),
                (Key::Volatile, ValueRef::String(value)) => values.volatile = Some(parse_number(value)),
                (Key::List, ValueRef::List(list)) => {
                    values.list_len = list.len() as u64;
                    let skip = list.len().saturating_sub(TAIL_LEN);
                    values.tail = list.iter().skip(skip).map(|e| parse_number(&e)).collect();
                }
                (Key::Queue, ValueRef::List(list)) => {
                    values.queue = list.iter().map(|e| parse_number(&e)).collect();
                }
                (Key::Stream, ValueRef::Stream(stream)) => {
                    (values.stream, values.pending) = undelivered(stream);
                }
                (key, value) => panic!("{key:?} holds {value:?}"),
            }
        }
    }
    assert_eq!(server.keyspace.counts.keys(), keys, "a node has other keys");
    found
}

/// What a stream's group has not been given yet, and how much of the rest is pending.
fn undelivered(stream: &Stream) -> (Vec<u64>, u64) {
    let group = stream.group(b"g");
    let start = group.map_or(StreamId::ZERO, |group| group.last_id.next().expect("not the last ID"));
    let entries = stream.range(start, StreamId::MAX);
    let left = entries.map(|entry| parse_number(&entry.fields().next().expect("it has a field").1)).collect();
    (left, group.map_or(0, |group| group.pending_len() as u64))
}

/// The slots as they are on disk or on their way.
#[derive(Debug, Clone, Default)]
pub(super) struct Image([Bytes; SLOTS]);

impl Image {
    pub(super) fn of(engine: &KeyspaceEngine, shared: &Shared) -> Image {
        Image(std::array::from_fn(|number| {
            engine.read_slot(slot_of(number), shared).expect("no slot is large").payload
        }))
    }

    pub(super) fn load(&self, engine: &KeyspaceEngine) {
        for (number, payload) in self.0.iter().enumerate() {
            engine.apply_snapshot(slot_of(number), payload).expect("a slot of this program");
        }
    }
}

/// The slots of a primary, for a full sync.
pub(super) struct SlotsReader<'a> {
    pub(super) engine: &'a KeyspaceEngine,
    pub(super) shared: &'a Shared,
    /// Parts of large slots that are still to be sent.
    pub(super) large: &'a mut Option<Vec<SnapshotPart>>,
}

impl SlotReader for SlotsReader<'_> {
    fn read(&mut self, slot: Slot) -> Option<SlotSnapshot> {
        let snapshot = self.engine.read_slot(slot, self.shared).expect("no slot is really large");
        let may_be_large = number_of(slot).is_some_and(|number| number.is_multiple_of(2));
        (!may_be_large || snapshot.payload.len() <= LARGE_BYTES).then_some(snapshot)
    }

    /// All of one moment; each with an end of its own, so that a stream may break before it.
    fn read_large(&mut self, slots: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
        let (engine, shared) = (self.engine, self.shared);
        let large = self.large.get_or_insert_with(|| {
            let parts = slots.iter().flat_map(|&slot| {
                let SlotSnapshot { index, payload } =
                    engine.read_slot(slot, shared).expect("no slot is really large");
                let part = |payload, is_last| SnapshotPart { slot, index, payload, is_last };
                [part(Bytes::new(), true), part(payload, false)]
            });
            parts.collect()
        });
        Ok(large.pop().into_iter().collect())
    }

    fn last_index(&self) -> LogIndex {
        self.shared.log.lock().last().index
    }
}
