//! The table against a set, through all its sizes, and what a saving table gives.

use std::collections::BTreeSet;

use super::buckets::{REACH, tag_of};
use super::*;
use crate::entry::thin::ThinBytes;

thread_local! {
    /// Buckets that this thread has looked at, in all tables.
    pub(super) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Buckets looked at by `f`.
fn steps(f: impl FnOnce()) -> u64 {
    STEPS.set(0);
    f();
    STEPS.get()
}

impl Keyed for Box<[u8]> {
    fn key(&self) -> &[u8] {
        self
    }
}

fn key(i: u32) -> Box<[u8]> {
    format!("key:{i}").into_bytes().into()
}

fn insert(table: &mut Table<Box<[u8]>>, i: u32) {
    table.insert_new(hash_of(&key(i)), key(i));
}

fn scan_all(
    table: &mut Table<Box<[u8]>>,
    mut between: impl FnMut(&mut Table<Box<[u8]>>),
) -> BTreeSet<Box<[u8]>> {
    let (mut seen, mut position) = (BTreeSet::new(), Some(0));
    while let Some(p) = position {
        position = table.scan(p, &mut |e| {
            seen.insert(e.clone());
        });
        between(table);
    }
    seen
}

#[test]
fn holds_what_was_inserted_at_every_size() {
    let mut table = Table::default();
    for i in 0..30_000 {
        insert(&mut table, i);
        assert!(table.get(hash_of(&key(i / 2)), &key(i / 2)).is_some());
    }
    assert_eq!(table.iter().count(), 30_000);
    for i in (0..30_000).filter(|i| i % 7 != 0) {
        assert!(table.remove(hash_of(&key(i)), &key(i)).is_some());
        assert!(table.remove(hash_of(&key(i)), &key(i)).is_none());
    }
    assert_eq!(table.len(), table.iter().count());
    assert!((0..30_000).all(|i| table.get(hash_of(&key(i)), &key(i)).is_some() == (i % 7 == 0)));
}

#[test]
fn scan_returns_what_is_there_throughout_while_the_table_grows_and_shrinks() {
    let mut table = Table::default();
    (0..5_000).for_each(|i| insert(&mut table, i));
    let mut next = 5_000;
    let seen = scan_all(&mut table, |t| {
        if next < 20_000 {
            (next..next + 50).for_each(|i| insert(t, i));
            next += 50;
        }
    });
    assert!((0..5_000).all(|i| seen.contains(&key(i))));
    let mut gone = 100;
    let seen = scan_all(&mut table, |t| {
        if gone < 20_000 {
            (gone..gone + 100).for_each(|i| drop(t.remove(hash_of(&key(i)), &key(i))));
            gone += 100;
        }
    });
    assert!((0..100).all(|i| seen.contains(&key(i))));
}

#[test]
fn scan_mut_reaches_every_element_of_a_growing_table() {
    let mut table = Table::default();
    (0..5_000).for_each(|i| insert(&mut table, i));
    let (mut seen, mut position, mut next) = (BTreeSet::new(), Some(0), 5_000);
    while let Some(p) = position {
        position = table.scan_mut(p, &mut |e| {
            seen.insert(e.clone());
        });
        if next < 20_000 {
            (next..next + 50).for_each(|i| insert(&mut table, i));
            next += 50;
        }
    }
    assert!((0..5_000).all(|i| seen.contains(&key(i))));
}

/// Panics if an element lies where it is not looked for, or a bucket counts wrongly.
fn check(table: &Table<Box<[u8]>>) {
    let (mut len, order) = (0, table.order());
    let views = [Some(table.view()), table.growing().map(Growing::view)];
    let mut passed_on: Vec<Vec<u64>> = views.iter().map(|v| vec![0; v.map_or(0, |v| v.len)]).collect();
    let mut note = |view: usize, hash: u64, places: usize| {
        let counts = &mut passed_on[view];
        let home = index_of(hash, counts.len());
        let len = counts.len();
        (0..places).for_each(|i| counts[(home + i) % len] += 1);
    };
    for (number, view) in views.iter().enumerate() {
        let Some(view) = view else { continue };
        for (index, bucket) in view.made.iter().enumerate() {
            for (place, element) in bucket.entries.iter().enumerate() {
                let Some(element) = element else {
                    assert_eq!(bucket.tag(place), 0);
                    continue;
                };
                len += 1;
                let hash = order.hash_of(element);
                assert_eq!(bucket.tag(place), tag_of(hash));
                let passed = (index + view.len - view.home(hash)) % view.len;
                assert!(passed < REACH);
                note(number, hash, passed);
            }
        }
    }
    for ((hash, _), element) in table.extra.iter().flat_map(|extra| &extra.crowd) {
        len += 1;
        assert_eq!(*hash, order.hash_of(element));
        let moved = table.growing().is_some_and(|g| table.view().home(*hash) < g.moved);
        note(usize::from(moved), *hash, REACH);
    }
    for (view, passed_on) in views.into_iter().flatten().zip(passed_on) {
        for (bucket, passed_on) in view.made.iter().zip(passed_on) {
            assert!(bucket.passed_on() == passed_on || bucket.passed_on() == 0xff);
        }
    }
    assert_eq!(len, table.len());
}

#[test]
fn behaves_as_a_set_under_random_edits() {
    let (mut state, mut present) = (9u64, BTreeSet::new());
    let mut table = Table::default();
    for step in 0..200_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Phases of growing and of shrinking, through sizes at which resizing is done step by step.
        let (i, growing) = ((state >> 40) as u32 % 20_000, step / 50_000 % 2 == 0);
        let (hash, key) = (hash_of(&key(i)), key(i));
        if (state >> 30) % 4 > 0 && growing {
            if present.insert(i) {
                table.insert_new(hash, key);
            }
        } else {
            assert_eq!(table.remove(hash, &key).is_some(), present.remove(&i));
        }
        if step % 5_000 == 0 {
            check(&table);
            assert_eq!(table.iter().count(), present.len());
            assert!(present.iter().all(|i| table.get(hash_of(&self::key(*i)), &self::key(*i)).is_some()));
            assert_eq!(scan_all(&mut table, |_| ()).len(), present.len());
        }
    }
}

#[test]
fn a_crowd_with_one_hash_is_found_and_removed() {
    let mut table = Table::default();
    let hash = |i: u32| if i < 400 { 5 << 32 | 7 } else { hash_of(&key(i)) };
    // Only as many as fit before the table grows: it would hash the keys itself.
    table.resize(100);
    (0..550).for_each(|i| table.insert_new(hash(i), key(i)));
    assert!((0..550).all(|i| table.get(hash(i), &key(i)).is_some()));
    assert!(table.get(5 << 32 | 7, b"missing").is_none());
    (0..400).for_each(|i| assert!(table.remove(hash(i), &key(i)).is_some()));
    assert!((400..550).all(|i| table.get(hash(i), &key(i)).is_some()) && table.len() == 150);
}

#[test]
fn every_number_of_buckets_has_a_larger_one() {
    for (buckets, next) in
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (5, 6), (6, 8), (7, 8), (11, 12), (12, 16)]
    {
        assert_eq!(larger(buckets), next);
    }
    assert!((0..10_000).all(|buckets| buckets < larger(buckets)));
}

#[test]
fn a_small_table_does_not_keep_the_size_that_it_once_needed() {
    let sizes: Vec<usize> = std::iter::successors(Some(1), |n| Some(larger(*n))).take(9).collect();
    assert!(sizes.windows(2).all(|pair| smaller(pair[1]) == pair[0]), "{sizes:?}");
    let mut table = Table::default();
    (0..40).for_each(|i| insert(&mut table, i));
    let grown = table.buckets().1;
    (4..40).for_each(|i| drop(table.remove(hash_of(&key(i)), &key(i))));
    assert_eq!((grown, table.buckets().1), (8, 1));
    assert!((0..4).all(|i| table.get(hash_of(&key(i)), &key(i)).is_some()));
}

#[test]
fn random_elements_are_spread() {
    let mut table = Table::default();
    (0..100).for_each(|i| insert(&mut table, i));
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state ^ (state >> 29)
    };
    let seen: BTreeSet<_> = (0..5_000).filter_map(|_| table.random(&mut random).cloned()).collect();
    assert_eq!(seen.len(), 100);
}

#[test]
fn a_bucket_of_pointers_is_a_cache_line() {
    assert_eq!(size_of::<Bucket<Box<u8>>>(), 64);
}

/// Whatever is added, removed and changed between the pieces: they are the table of the beginning.
#[test]
fn what_is_saved_is_the_table_of_the_beginning() {
    let mut state = 3u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let element = |name: u64, version: u64| ThinBytes::new([format!("{name}:{version:06}").as_bytes()]);
    struct Versioned(ThinBytes);
    impl Keyed for Versioned {
        fn key(&self) -> &[u8] {
            self.0.split_at(self.0.len() - 7).0
        }
    }
    impl Clone for Versioned {
        fn clone(&self) -> Self {
            Versioned(self.0.clone())
        }
    }
    for (len, changes) in [(10, 5), (3_000, 50), (20_000, 200), (20_000, 3_000)] {
        let mut table: Table<Versioned> = Table::default();
        let set = |table: &mut Table<Versioned>, name: u64, version: u64| {
            let new = Versioned(element(name, version));
            let hash = hash_of(new.key());
            match table.get_mut(hash, new.key()) {
                Some(old) => *old = new,
                None => table.insert_new(hash, new),
            }
        };
        (0..len).for_each(|name| set(&mut table, name, 0));
        let text = |e: &Versioned| e.0.to_vec();
        let expected: BTreeSet<Vec<u8>> = table.iter().map(text).collect();
        table.begin_saving(7);
        let (mut saved, mut version) = (Vec::new(), 0);
        loop {
            for _ in 0..random(changes) {
                version += 1;
                let name = random(2 * len);
                // Phases of growing and of shrinking.
                if version / 2_000 % 2 == 1 && random(4) > 0 {
                    let key = name.to_string().into_bytes();
                    table.remove(hash_of(&key), &key);
                } else {
                    set(&mut table, name, version);
                }
            }
            let mut left = random(40);
            let more = table.save_some(&mut |e| {
                saved.push(text(e));
                left = left.saturating_sub(1);
                left > 0
            });
            if !more {
                break;
            }
        }
        assert_eq!(saved.len(), expected.len());
        assert!(saved.into_iter().collect::<BTreeSet<_>>() == expected);
        assert!(table.end_saving().is_some() && table.saving().is_none());
    }
}

/// Two slots, or a collection and one that it is read into, or one that is emptied and filled again.
#[derive(Clone, Copy, Debug)]
enum Filled {
    Slot,
    Collection,
}

fn filled_from(kind: Filled, from: &Table<Box<[u8]>>, count: usize) -> (Table<Box<[u8]>>, u64) {
    let mut table = match kind {
        Filled::Slot => Table::default(),
        Filled::Collection => Table::with_own_order(),
    };
    let steps = steps(|| {
        for element in from.iter().take(count) {
            let hash = hash_of(element);
            if table.get(hash, element).is_none() {
                table.insert_new(hash, element.clone());
            }
        }
    });
    (table, steps)
}

/// A table with so many elements, in the order in which it has them.
fn source(kind: Filled, len: u32) -> Table<Box<[u8]>> {
    let mut table = match kind {
        Filled::Slot => Table::default(),
        Filled::Collection => Table::with_own_order(),
    };
    (0..len).for_each(|i| insert(&mut table, i));
    table
}

/// A search and an insertion look at a few buckets, and at no more in a table of a hundred times as many elements.
#[test]
fn filling_a_table_in_the_order_of_another_takes_no_more_steps_per_element_when_it_is_large() {
    for len in [2_000, 20_000, 200_000] {
        let source = source(Filled::Collection, len);
        let (table, steps) = filled_from(Filled::Collection, &source, len as usize);
        assert!(steps < 12 * u64::from(len), "{len}: {steps}");
        // Only the beginning of the other one: no crowd either.
        let (part, steps) = filled_from(Filled::Collection, &source, len as usize / 20);
        assert!(steps < 12 * u64::from(len / 20), "{len}: {steps}");
        for table in [table, part] {
            assert!(table.crowd_len() * 1_000 < table.len(), "{} of {}", table.crowd_len(), table.len());
        }
    }
}

/// The same where both have the same order: what comes too close together lies in the crowd, and steps are bounded.
#[test]
fn filling_a_table_in_its_own_order_takes_bounded_steps() {
    for len in [2_000, 20_000, 200_000] {
        let source = source(Filled::Slot, len);
        let (table, steps) = filled_from(Filled::Slot, &source, len as usize);
        assert!(steps < 5 * REACH as u64 * u64::from(len), "{len}: {steps}");
        check(&table);
        let (part, _) = filled_from(Filled::Slot, &source, len as usize / 20);
        check(&part);
        assert_eq!(part.iter().count(), len as usize / 20);
    }
}

/// SSCAN and SREM of what it shows, then new members: what is left lies together at one end of the hashes.
#[test]
fn emptying_a_table_in_its_own_order_and_filling_it_again_takes_bounded_steps() {
    for len in [2_000_u32, 20_000, 200_000] {
        let mut table = source(Filled::Collection, len);
        let names: Vec<Box<[u8]>> = table.iter().cloned().collect();
        let (most, rest) = names.split_at(names.len() * 9 / 10);
        let steps = steps(|| {
            most.iter().for_each(|name| drop(table.remove(hash_of(name), name)));
            check(&table);
            (len..2 * len).for_each(|i| insert(&mut table, i));
        });
        assert!(steps < 6 * REACH as u64 * u64::from(len), "{len}: {steps}");
        check(&table);
        assert!(rest.iter().all(|name| table.get(hash_of(name), name).is_some()));
        assert_eq!(scan_all(&mut table, |_| ()).len(), table.len());
        names.iter().for_each(|name| drop(table.remove(hash_of(name), name)));
        (len..2 * len).for_each(|i| assert!(table.remove(hash_of(&key(i)), &key(i)).is_some()));
        assert!(table.is_empty() && table.extra.is_none());
    }
}

/// SCAN's guarantee, SCAN in place, random choice and a copy, where most elements are in the crowd.
#[test]
fn a_crowd_is_scanned_drawn_from_and_copied() {
    let source = source(Filled::Slot, 200_000);
    let (mut table, _) = filled_from(Filled::Slot, &source, 10_000);
    assert!(table.crowd_len() > 5_000, "{}", table.crowd_len());
    let names: BTreeSet<Box<[u8]>> = table.iter().cloned().collect();
    let mut next = 200_000;
    let seen = scan_all(&mut table, |t| {
        if next < 230_000 {
            (next..next + 50).for_each(|i| insert(t, i));
            next += 50;
        }
    });
    assert!(names.is_subset(&seen));
    let (mut table, _) = filled_from(Filled::Slot, &source, 10_000);
    let (mut seen, mut position) = (BTreeSet::new(), Some(0));
    while let Some(p) = position {
        position = table.scan_mut(p, &mut |e| {
            seen.insert(e.clone());
        });
    }
    assert!(seen == names);
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state ^ (state >> 29)
    };
    let drawn: BTreeSet<_> = (0..100_000).filter_map(|_| table.random(&mut random).cloned()).collect();
    assert!(drawn.len() > 9_900, "{}", drawn.len());
    let copy = table.clone();
    check(&copy);
    assert!(copy.crowd_len() < 20 && copy.iter().cloned().collect::<BTreeSet<_>>() == names);
}

/// Orders have nothing to do with each other: not even those of seeds that follow each other or are multiples.
#[test]
fn what_is_first_in_one_order_is_spread_over_every_other_one() {
    let order = |seed: u64| Order(seed.wrapping_mul(SEED_FACTOR) | 1);
    let hashes: Vec<u64> = (0..4_000).map(|i| hash_of(&key(i))).collect();
    for a in 0..40 {
        let mut first = hashes.clone();
        first.sort_by_key(|hash| order(a).of(*hash));
        first.truncate(400);
        for b in (0..40).filter(|b| *b != a) {
            let mut parts = [0; 8];
            first.iter().for_each(|hash| parts[(order(b).of(*hash) >> 61) as usize] += 1);
            assert!(parts.iter().all(|n| (15..100).contains(n)), "{a} {b}: {parts:?}");
        }
    }
}
