//! The snapshot against a model: whatever happens between its steps, its records are the keyspace of its beginning.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::keyspace::entry::NewValue;
use crate::keyspace::keys::{Expiry, Keys, Mode};
use crate::keyspace::rebuild::rebuild;
use crate::keyspace::types::End;
use crate::notify::EventClasses;

const DBS: DbIndex = 3;
/// Few keys, so that they meet; the tags make some slots large.
const KEYS: u32 = 400;

/// The commands that build the entry, behind their length.
fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut text = Vec::new();
    rebuild(entry, &mut |words| {
        words.iter().for_each(|word| {
            text.extend_from_slice(word);
            text.push(b' ');
        });
    });
    out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&text);
}

/// Some entries count as large and take several pieces.
struct Text;

impl Encode for Text {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>) {
        encode(entry, out);
    }

    fn is_large(&self, entry: &Entry) -> bool {
        entry.key().len().is_multiple_of(3)
    }

    fn encode_piece(
        &self,
        entry: &Entry,
        at: Option<usize>,
        _bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let at = at.unwrap_or(0);
        let mut record = Vec::new();
        encode(entry, &mut record);
        let next = record.len().min(at + 20);
        out.extend_from_slice(&record[at..next]);
        (next < record.len()).then_some(next)
    }
}

fn decode(records: &Records, found: &mut Vec<(DbIndex, Vec<u8>)>) {
    let mut rest = &records.bytes[..];
    let before = found.len();
    while let Some((len, more)) = rest.split_first_chunk::<4>() {
        let (record, more) = more.split_at(u32::from_le_bytes(*len) as usize);
        found.push((records.db, record.to_vec()));
        rest = more;
    }
    assert_eq!(records.keys, (found.len() - before) as u64);
}

fn contents(space: &Keyspace) -> Vec<(DbIndex, Vec<u8>)> {
    let mut all = Vec::new();
    for slot in Slot::all() {
        for (db, table) in space.lock(slot).dbs() {
            for entry in table.iter() {
                let mut bytes = Vec::new();
                encode(entry, &mut bytes);
                all.push((db, bytes[4..].to_vec()));
            }
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
    let mut keys = Keys::new(space, Mode::Primary, false, now, EventClasses::default());
    keys.db = rng.random_range(0..DBS);
    let (key, other) = (key(rng), key(rng));
    let value = rng.random_range(0..1_000_000u32).to_string();
    let value = value.as_bytes();
    match rng.random_range(0..1000) {
        0 => {
            for slot in Slot::all() {
                let db = (value[0] > b'5').then_some(keys.db);
                let mut state = space.lock(slot);
                let taken = state.take_tables(db);
                drop(space.cow.keep_taken(slot, taken));
            }
            return;
        }
        1..=2 => {
            let (a, b) = (keys.db, (keys.db + 1) % DBS);
            Slot::all().for_each(|slot| space.lock(slot).swap_dbs(a, b));
            return space.cow.swap_dbs(a, b);
        }
        _ => keys.lock_many([Slot::of(&key), Slot::of(&other)]),
    }
    match rng.random_range(0..10) {
        0..=2 => keys.insert(&key, NewValue::Bytes(value), Expiry::Keep),
        3 => keys.insert(&key, NewValue::Bytes(&value.repeat(300)), Expiry::At(now + 200)),
        4 => keys.set_expire_at(&key, Some(now + i64::from(value[0]))),
        5 => {
            if let Some(Ok(mut list)) = keys.remove_live(&key).map(|_| keys.list_or_new(&key)) {
                list.push(End::Right, value);
            }
        }
        6 => {
            if let Ok(Some(mut list)) = keys.list_mut(&key) {
                list.push(End::Right, value);
            }
        }
        7 => {
            if keys.hash(&key).is_ok()
                && let Ok(mut hash) = keys.hash_or_new(&key)
            {
                hash.set(value, value);
            }
        }
        8 if key != other => {
            if let Some(entry) = keys.remove_live(&key) {
                keys.insert_entry(entry.renamed(&other));
            }
        }
        _ => drop(keys.remove(&key)),
    }
    keys.finish();
    keys.unlock();
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let space = Keyspace::default();
    let mut now = 1_000;
    (0..2_000).for_each(|_| change(&space, now, &mut rng));
    for snapshot in 0..4 {
        let expected = contents(&space);
        let mut walk = Walk::begin(&space, Arc::new(Text));
        let limit = PieceLimit { entries: rng.random_range(1..20), bytes: rng.random_range(1..500) };
        let (mut out, mut found) = (Vec::new(), Vec::new());
        let (mut more, mut rounds) = (true, 0);
        while more {
            if rng.random_bool(0.3) && walk.slots_walked().is_multiple_of(64) && rounds < 100 {
                (now, rounds) = (now + 1, rounds + 1);
                (0..rng.random_range(0..40)).for_each(|_| change(&space, now, &mut rng));
            }
            if snapshot == 2 && walk.slots_walked() == 9_000 {
                walk.discard(&space);
            }
            more = walk.step(&space, limit, &mut out);
            walk.take_saved(&space, &mut out);
            out.drain(..).for_each(|records| decode(&records, &mut found));
        }
        walk.end(&space);
        assert_eq!(space.cow.held_bytes(), 0);
        if snapshot != 2 {
            found.sort();
            assert!(found == expected, "seed {seed}, snapshot {snapshot}");
        }
        let epoch = space.cow.epoch();
        for slot in Slot::all() {
            assert!(space.lock(slot).dbs().flat_map(|(_, t)| t.iter()).all(|e| e.epoch() == epoch));
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
    let mut keys = Keys::new(&space, Mode::Primary, false, 0, EventClasses::default());
    for i in 0..1_000 {
        let key = format!("{{t}}{i}");
        keys.lock_one(Slot::of(b"t"));
        keys.insert(key.as_bytes(), NewValue::Bytes(&[b'v'; 100]), Expiry::None);
        keys.unlock();
    }
    let mut walk = Walk::begin(&space, Arc::new(Text));
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
