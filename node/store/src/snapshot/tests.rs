//! The snapshot against a model: whatever happens between its steps, its records are the keyspace of its beginning.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::entry::{NewValue, ValueRef};
use crate::keys::{Expiry, KeySettings, Keys, Logging, Now};
use crate::lazyfree::Cause;
use crate::rdb::value::pieces;
use crate::rdb::{Compression, record};
use crate::types::Pair;
use crate::types::quicklist::Fill;
use crate::types::{End, Limits, StreamLimits, stream};

const DBS: DbIndex = 3;
/// Few keys, so that they meet; the tags make some slots large.
const KEYS: u32 = 400;

/// Whatever has more elements, or bytes, is saved in pieces.
const SMALL: usize = 6;

/// Records as in a file, but nearly everything counts as large.
struct Records6;

impl Encode for Records6 {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>) {
        record::save(entry.key(), entry.value(), entry.expire_at(), None, Compression::None, out);
    }

    fn form(&self, entry: &Entry) -> Form {
        match entry.value() {
            value if pieces::elements(value) <= SMALL => Form::Small,
            ValueRef::String(_) => Form::LongString,
            _ => Form::LargeCollection,
        }
    }

    fn encode_string_piece(
        &self,
        entry: &Entry,
        at: Option<usize>,
        _bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let ValueRef::String(string) = entry.value() else { unreachable!("only strings") };
        if at.is_none() {
            record::save_head(entry.key(), entry.value(), entry.expire_at(), None, Compression::None, out);
        }
        pieces::save_string_piece(string, at, 20, out)
    }

    fn encode_head(&self, entry: &Entry, out: &mut Vec<u8>) {
        record::save_head(entry.key(), entry.value(), entry.expire_at(), None, Compression::None, out);
        pieces::save_count(entry.value(), out);
    }

    fn encode_element(&self, element: Element<'_>, out: &mut Vec<u8>) {
        pieces::save_element(element, Compression::None, out);
    }

    fn encode_node(&self, node: &Node, out: &mut Vec<u8>) {
        pieces::save_node(node, Compression::None, out);
    }

    fn encode_stream_node(&self, node: &StreamNode, out: &mut Vec<u8>) {
        pieces::save_stream_node(node, Compression::None, out);
    }

    fn encode_end(&self, stream: &Stream, out: &mut Vec<u8>) {
        pieces::save_end(stream, Compression::None, out);
    }
}

/// The entry as a text that does not depend on its form.
fn text(entry: &Entry) -> Vec<u8> {
    let show = |element: &[u8]| String::from_utf8_lossy(element).into_owned();
    let value = match entry.value() {
        ValueRef::String(string) => show(string),
        ValueRef::List(list) => list.iter().map(|e| show(&e)).collect::<Vec<_>>().join(","),
        ValueRef::Set(set) => {
            set.iter().map(|e| show(&e)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
        }
        ValueRef::Hash(hash) => {
            let field = |(name, value): Pair<'_>| (show(&name), (show(&value), hash.expire_at(&name)));
            format!("{:?}", hash.iter().map(field).collect::<BTreeMap<_, _>>())
        }
        ValueRef::SortedSet(set) => {
            set.iter().map(|(m, score)| format!("{}={score}", show(&m))).collect::<Vec<_>>().join(",")
        }
        ValueRef::Stream(stream) => {
            let entry = |e: stream::Entry<'_>| format!("{}={:?}", e.id, e.fields().collect::<Vec<_>>());
            let entries = stream.iter().map(entry).collect::<String>();
            format!("{entries} {:?}", stream.groups().collect::<Vec<_>>())
        }
    };
    format!("{} {:?} {} {value}", show(entry.key()), entry.expire_at(), entry.value().type_name())
        .into_bytes()
}

/// What a consumer makes of the records: those that go on are put together.
#[derive(Default)]
struct Reader {
    fragments: Vec<u8>,
    keys: u64,
    found: Vec<(DbIndex, Vec<u8>)>,
}

impl Reader {
    fn read(&mut self, records: &Records) {
        assert_eq!(records.by_slot().map(|part| part.bytes.len()).sum::<usize>(), records.bytes.len());
        self.fragments.extend_from_slice(&records.bytes);
        self.keys += records.keys;
        if records.goes_on {
            return;
        }
        for loaded in record::load_all(&std::mem::take(&mut self.fragments), &Limits::default()) {
            let (record, value) = loaded.unwrap();
            let entry = value.into_entry(&record.key, record.expire_at, 0);
            self.found.push((records.db, text(&entry)));
        }
        assert_eq!(self.keys, self.found.len() as u64);
    }
}

fn contents(space: &Keyspace) -> Vec<(DbIndex, Vec<u8>)> {
    let mut all = Vec::new();
    for slot in Slot::all() {
        for (db, table) in space.lock(slot).dbs() {
            all.extend(table.iter().map(|entry| (db, text(entry))));
        }
    }
    all.sort();
    all
}

fn key(rng: &mut SmallRng) -> Vec<u8> {
    let n = rng.random_range(0..KEYS);
    if n.is_multiple_of(4) { format!("k{n}") } else { format!("{{{}}}k{n}", n % 3) }.into_bytes()
}

/// One random change, as commands make them.
fn change(space: &Keyspace, now: i64, rng: &mut SmallRng) {
    let mut settings = KeySettings::default();
    settings.limits.hash.entries = 3;
    settings.limits.sorted_set.entries = 3;
    settings.limits.set.listpack_entries = 3;
    settings.limits.set.intset_entries = 3;
    settings.limits.list = Fill::new(3);
    let mut keys = Keys::primary(space, &settings, Now::at(now), Logging::Off);
    keys.db = rng.random_range(0..DBS);
    let (key, other) = (key(rng), key(rng));
    let value = rng.random_range(0..1_000_000u32).to_string();
    let value = value.as_bytes();
    match rng.random_range(0..1000) {
        0 => {
            for slot in Slot::all() {
                let db = (value[0] > b'5').then_some(keys.db);
                let mut state = space.lock(slot);
                let taken = state.take_tables(slot, db, &space.counts);
                drop(space.cow.keep_taken(slot, taken));
            }
            return;
        }
        1..=2 => {
            let (a, b) = (keys.db, (keys.db + 1) % DBS);
            Slot::all().for_each(|slot| space.lock(slot).swap_dbs(slot, a, b, &space.counts));
            return space.cow.swap_dbs(a, b);
        }
        _ => keys.lock_many([Slot::of(&key), Slot::of(&other)]),
    }
    let count = if rng.random_bool(0.1) { rng.random_range(10..60) } else { rng.random_range(1..4) };
    let mut member = || format!("m{}", rng.random_range(0..80u32)).into_bytes();
    let members: Vec<Vec<u8>> = (0..count).map(|_| member()).collect();
    let dropped = |keys: &mut Keys<'_>, key: &[u8]| {
        if let Some(entry) = keys.remove_live(key) {
            keys.discard(entry, Cause::Deleted);
        }
    };
    match rng.random_range(0..32) {
        0 => keys.insert(&key, NewValue::Bytes(value), Expiry::Keep),
        1 => keys.insert(&key, NewValue::Bytes(&value.repeat(300)), Expiry::At(now + 200)),
        2 => keys.set_expire_at(&key, Some(now + i64::from(value[0]))),
        3..=6 => {
            if let Ok(mut list) = keys.list_or_new(&key) {
                members.iter().for_each(|member| list.push(End::Right, member));
            }
        }
        7..=8 => {
            if let Ok(Some(mut list)) = keys.list_mut(&key) {
                list.drop_at_end(End::Left, count);
            }
        }
        9..=11 => {
            if let Ok(mut hash) = keys.hash_or_new(&key) {
                for member in &members {
                    hash.set(member, value);
                }
            }
        }
        12 => {
            if let Ok(Some(mut hash)) = keys.hash_mut(&key) {
                for member in &members {
                    hash.remove(member);
                }
            }
        }
        27..=29 => {
            if let Ok(mut hash) = keys.volatile_hash_or_new(&key) {
                for member in &members {
                    let at = now + i64::from(value[0] % 20);
                    hash.put(member, value, [Expiry::At(at), Expiry::Keep][usize::from(value[0] % 3 == 0)]);
                }
            }
        }
        30 => {
            if let Ok(Some(mut hash)) = keys.hash_mut(&key) {
                members.iter().for_each(|member| hash.set_time(member, None));
            }
        }
        31 => keys.expire_fields(&key, 5),
        13..=15 => {
            if let Ok(mut set) = keys.set_or_new(&key) {
                for member in &members {
                    set.insert(member);
                }
            }
        }
        16 => {
            if let Ok(Some(mut set)) = keys.set_mut(&key) {
                for member in &members {
                    set.remove(member);
                }
            }
        }
        17 => {
            if let Ok(Some(mut set)) = keys.set_mut(&key) {
                let first: Option<Box<[u8]>> = set.as_ref().iter().next().map(Into::into);
                set.retain_only(first.as_slice());
            }
        }
        18..=20 => {
            if let Ok(mut set) = keys.sorted_set_or_new(&key) {
                for member in &members {
                    set.insert(member, f64::from(value[0]));
                }
            }
        }
        21 => {
            if let Ok(Some(mut set)) = keys.sorted_set_mut(&key) {
                set.remove_range(0..count.min(set.len()));
            }
        }
        23..=25 => change_stream(&mut keys, &key, &members),
        22 if key != other => {
            if let Some(entry) = keys.remove_live(&key) {
                keys.insert_entry(entry.renamed(&other));
            }
        }
        _ => dropped(&mut keys, &key),
    }
    keys.remove_if_empty(&key);
    keys.finish();
    keys.unlock();
}

fn change_stream(keys: &mut Keys<'_>, key: &[u8], members: &[Vec<u8>]) {
    let limits = StreamLimits { node_entries: 3, ..StreamLimits::default() };
    let Ok(stream) = keys.stream_or_new(key) else { return };
    for member in members {
        let id = stream.last_id().next().unwrap();
        stream.append(id, &[b"f", member], limits);
        if member.ends_with(b"7") {
            stream.delete(stream.first_id());
        }
    }
    let id = stream.first_id().max(stream::StreamId::new(0, 1));
    stream.create_group(b"g", id, stream::UNKNOWN);
    let group = stream.group_mut(b"g").unwrap();
    group.create_consumer(&members[0], 1, 2);
    group.deliver(id, &members[0], 3, 4);
    if members.len() == 3 {
        stream.trim(stream::Keep::Last(10), stream::Precision::Exact);
    }
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let space = Keyspace::default();
    let mut now = 1_000;
    (0..3_000).for_each(|_| change(&space, now, &mut rng));
    space.check_counts();
    for snapshot in 0..4 {
        let expected = contents(&space);
        let mut walk = Walk::begin(&space, Arc::new(Records6));
        let limit = PieceLimit { entries: rng.random_range(1..20), bytes: rng.random_range(1..500) };
        let (mut out, mut reader) = (Vec::new(), Reader::default());
        let (mut more, mut rounds) = (true, 0);
        while more {
            let is_due = walk.open.is_some() || walk.slots_walked().is_multiple_of(64);
            if rng.random_bool(0.3) && is_due && rounds < 200 {
                (now, rounds) = (now + 1, rounds + 1);
                (0..rng.random_range(0..40)).for_each(|_| change(&space, now, &mut rng));
            }
            if snapshot == 2 && walk.slots_walked() == 9_000 {
                walk.discard(&space);
            }
            more = walk.step(&space, limit, &mut out);
            walk.take_saved(&space, &mut out);
            out.drain(..).for_each(|records| reader.read(&records));
        }
        walk.end(&space);
        assert_eq!(space.cow.held_bytes(), 0);
        if snapshot != 2 {
            let mut found = reader.found;
            found.sort();
            assert!(found == expected, "seed {seed}, snapshot {snapshot}");
        }
        space.check_counts();
        let mark = space.cow.mark();
        for slot in Slot::all() {
            assert!(space.lock(slot).dbs().flat_map(|(_, t)| t.iter()).all(|e| e.mark() == mark));
        }
    }
}

#[test]
fn records_are_the_keyspace_of_the_beginning() {
    (0..6).for_each(run);
}

#[test]
fn a_piece_is_bounded_and_other_slots_stay_free() {
    let space = Keyspace::default();
    let mut keys = Keys::primary(&space, &KeySettings::default(), Now::at(0), Logging::Off);
    for i in 0..1_000 {
        let key = format!("{{t}}{i}");
        keys.lock_one(Slot::of(b"t"));
        keys.insert(key.as_bytes(), NewValue::Bytes(&[b'v'; 100]), Expiry::None);
        keys.unlock();
    }
    let mut walk = Walk::begin(&space, Arc::new(Records6));
    let limit = PieceLimit { entries: 50, bytes: 1 << 20 };
    let (mut total, mut pieces) = (0, 0);
    loop {
        let mut out = Vec::new();
        if !walk.step(&space, limit, &mut out) {
            break;
        }
        let keys: u64 = out.iter().map(|r| r.keys).sum();
        assert!(keys < 100, "{keys} keys in a piece");
        pieces += u64::from(keys > 0);
        total += keys;
    }
    assert_eq!(total, 1_000);
    assert!(10 <= pieces);
    walk.end(&space);
}
