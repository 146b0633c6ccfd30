use std::collections::BTreeMap;
use std::ops::Bound;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// The simplest sorted set there is.
#[derive(Default)]
struct Model(BTreeMap<Vec<u8>, f64>);

impl Model {
    fn sorted(&self) -> Vec<(&[u8], f64)> {
        let mut all: Vec<(&[u8], f64)> = self.0.iter().map(|(n, s)| (&**n, *s)).collect();
        all.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then(a.0.cmp(b.0)));
        all
    }
}

fn same<'a, 'b>(
    found: impl Iterator<Item = (Element<'a>, f64)>,
    expect: impl IntoIterator<Item = &'b (&'b [u8], f64)>,
) -> bool {
    let mut expect = expect.into_iter();
    let same =
        |(name, score): (Element<'a>, f64)| expect.next().is_some_and(|(n, s)| *name == **n && score == *s);
    found.map(same).collect::<Vec<_>>().iter().all(|same| *same) && expect.next().is_none()
}

fn check(set: &SortedSet, model: &Model) {
    let (set, expect) = (set.as_ref(), model.sorted());
    assert_eq!(set.len(), expect.len());
    assert!(same(set.iter(), &expect));
    assert!(same(set.iter().rev(), expect.iter().rev()));
    if let SortedSetRef::Skiplist(large) = set {
        large.in_order.check();
        assert_eq!(large.by_name.len(), expect.len());
    }
}

/// Names of one to three bytes and scores of a few values, so that both often meet again.
fn run(seed: u64, names: u32, scores: i32, operations: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut owned, mut model) = (SortedSet::default(), Model::default());
    let name = |rng: &mut SmallRng| format!("{:x}", rng.random_range(0..names)).into_bytes();
    let score = |rng: &mut SmallRng| f64::from(rng.random_range(-scores..=scores)) / 2.0;
    for operation in 0..operations {
        // Phases of growing and of shrinking.
        let growing = (operation / (operations / 6 + 1)).is_multiple_of(2);
        let mut set = owned.as_mut();
        match rng.random_range(0..10) {
            0..4 if growing => {
                let (n, s) = (name(&mut rng), score(&mut rng));
                assert_eq!(set.insert(&n, s), model.0.insert(n, s).is_none());
            }
            0..4 => {
                let n = name(&mut rng);
                assert_eq!(set.remove(&n), model.0.remove(&n));
            }
            4 => {
                let n = name(&mut rng);
                assert_eq!(set.as_ref().score(&n), model.0.get(&n).copied());
                let rank = model.sorted().iter().position(|(m, _)| *m == n);
                assert_eq!(set.as_ref().rank(&n).map(|(rank, _)| rank), rank);
            }
            5 => {
                let bound = |rng: &mut SmallRng| match rng.random_range(0..3) {
                    0 => Bound::Included(score(rng)),
                    1 => Bound::Excluded(score(rng)),
                    _ => Bound::Unbounded,
                };
                let range = ScoreRange { min: bound(&mut rng), max: bound(&mut rng) };
                let expect: Vec<_> = model.sorted();
                let expect: Vec<_> = expect
                    .iter()
                    .filter(|(_, s)| range.is_above_min(*s) && range.is_below_max(*s))
                    .copied()
                    .collect();
                let set = set.as_ref();
                assert!(same(set.range(set.score_range(&range)), &expect));
            }
            6 if scores == 0 => {
                let (a, b) = (name(&mut rng), name(&mut rng));
                let range = match rng.random_range(0..3) {
                    0 => LexRange { min: LexBound::Included(&a), max: LexBound::Excluded(&b) },
                    1 => LexRange { min: LexBound::Excluded(&a), max: LexBound::Highest },
                    _ => LexRange { min: LexBound::Lowest, max: LexBound::Included(&b) },
                };
                let expect = model.sorted();
                let expect: Vec<_> = expect
                    .iter()
                    .filter(|(n, _)| range.is_above_min(n) && range.is_below_max(n))
                    .copied()
                    .collect();
                let set = set.as_ref();
                for direction in [Direction::Forward, Direction::Reverse] {
                    let found = set.lex_range(&range, direction, 0);
                    assert!(same(set.range(found), &expect));
                    let skipped = expect.len() / 2;
                    let found = set.lex_range(&range, direction, skipped);
                    let rest = match direction {
                        Direction::Forward => &expect[skipped..],
                        Direction::Reverse => &expect[..expect.len() - skipped],
                    };
                    assert!(same(set.range(found), rest));
                }
            }
            6 | 7 if !set.is_empty() => {
                let start = rng.random_range(0..set.len());
                let end = rng.random_range(start..=set.len());
                let expect = model.sorted()[start..end].to_vec();
                assert!(same(set.as_ref().range(start..end), &expect));
                let first = set.as_ref().get(start);
                assert_eq!(first.as_ref().map(|(n, _)| &**n), model.sorted().get(start).map(|(n, _)| *n));
            }
            8 if !growing && !set.is_empty() && rng.random_ratio(1, 4) => {
                let start = rng.random_range(0..set.len());
                let end = rng.random_range(start..=set.len().min(start + 40));
                let gone: Vec<Vec<u8>> = model.sorted()[start..end].iter().map(|(n, _)| n.to_vec()).collect();
                set.remove_range(start..end);
                for n in &gone {
                    model.0.remove(n);
                }
            }
            _ => {}
        }
        if operation % 64 == 0 {
            check(&owned, &model);
        }
    }
    check(&owned, &model);
}

#[test]
fn behaves_as_the_model() {
    for seed in 0..4 {
        run(seed, 90, 5, 4_000);
        run(seed, 2_000, 3, 8_000);
        run(seed, 4_000, 0, 8_000);
        run(seed, 4_000, 100_000, 8_000);
    }
}

#[test]
fn a_large_tree_grows_and_shrinks_in_every_order() {
    const LEN: u32 = 20_000;
    let mut rng = SmallRng::seed_from_u64(7);
    for order in 0..3 {
        let mut keys: Vec<u32> = (0..LEN).collect();
        match order {
            0 => {}
            1 => keys.reverse(),
            _ => (1..keys.len()).rev().for_each(|i| keys.swap(i, rng.random_range(0..=i))),
        }
        let mut set = SortedSet::default();
        for key in &keys {
            assert!(set.insert(&key.to_be_bytes(), f64::from(key / 3)));
        }
        for key in (0..LEN).step_by(37) {
            assert_eq!(set.as_ref().rank(&key.to_be_bytes()), Some((key as usize, f64::from(key / 3))));
        }
        let SortedSetRef::Skiplist(large) = set.as_ref() else { panic!("the set is large") };
        large.in_order.check();
        for (i, key) in keys.iter().enumerate() {
            assert!(set.as_mut().remove(&key.to_be_bytes()).is_some());
            if i % 1_000 == 0
                && let SortedSetRef::Skiplist(large) = set.as_ref()
            {
                large.in_order.check();
            }
        }
        assert!(set.is_empty() && set.as_ref().iter().next().is_none());
    }
}

#[test]
fn a_small_set_grows_large_by_number_or_by_a_long_name() {
    let mut set = SortedSet::default();
    for i in 0..SortedSetLimits::default().entries {
        set.insert(format!("{i}").as_bytes(), 1.0);
    }
    assert!(set.as_ref().is_compact());
    set.insert(b"0", 2.0);
    assert!(set.as_ref().is_compact());
    set.insert(b"another", 1.0);
    assert!(!set.as_ref().is_compact());
    assert_eq!(set.len(), SortedSetLimits::default().entries + 1);

    let mut set = SortedSet::default();
    set.insert(&[b'x'; 64], 1.0);
    assert!(set.as_ref().is_compact());
    set.insert(&[b'x'; 64 + 1], 1.0);
    assert!(!set.as_ref().is_compact());
}

#[test]
fn a_scan_visits_every_member() {
    let mut set = SortedSet::default();
    for i in 0..10_000u32 {
        set.insert(&i.to_be_bytes(), f64::from(i));
    }
    let mut seen = BTreeMap::new();
    let mut position = Some(0);
    while let Some(at) = position {
        position = set.as_ref().scan(at, &mut |name, score| {
            seen.insert(name.to_vec(), score);
        });
    }
    assert_eq!(seen.len(), 10_000);
}

#[test]
fn the_negative_zero_is_equal_to_zero() {
    let mut set = SortedSet::default();
    set.insert(b"b", 0.0);
    set.insert(b"a", -0.0);
    assert!(set.as_ref().iter().map(|(n, _)| n).eq([b"a", b"b"].map(|n| Element::from(&n[..]))));
    assert_eq!(set.as_ref().score(b"a").map(f64::to_bits), Some(0));
}
