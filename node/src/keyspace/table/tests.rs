//! The table against a set, through all its sizes, and what a saving table gives.

use std::collections::BTreeSet;

use super::buckets::tag_of;
use super::*;
use crate::keyspace::entry::thin::ThinBytes;

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
    let mut len = 0;
    for view in [Some(table.view()), table.growing().map(Growing::view)].into_iter().flatten() {
        let mut passed_on = vec![0u64; view.len];
        for (index, bucket) in view.made.iter().enumerate() {
            for (place, element) in bucket.entries.iter().enumerate() {
                let Some(element) = element else {
                    assert_eq!(bucket.tag(place), 0);
                    continue;
                };
                len += 1;
                let hash = hash_of(element);
                assert_eq!(bucket.tag(place), tag_of(hash));
                let mut passed = view.home(hash);
                while passed != index {
                    passed_on[passed] += 1;
                    passed = (passed + 1) % view.len;
                }
            }
        }
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
