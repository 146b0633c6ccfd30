//! Fields with times: what is seen of them, and that the order of times is that of the table.

use std::collections::BTreeMap;

use super::*;
use crate::entry::{NewValue, ValueRef};

const LIMITS: HashLimits = HashLimits { entries: 8, value: 16 };

/// What a hash should hold: values and times by name.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;

fn entry() -> Entry {
    Entry::new(b"k", NewValue::Empty(Compact::Hash), None, 0)
}

fn at(entry: &mut Entry, since: i64) -> HashMut<'_> {
    HashMut::seen(entry, LIMITS, since)
}

/// All that a hash is seen to hold.
fn seen(hash: HashRef<'_>) -> Model {
    let time = |name: &[u8]| hash.expire_at(name).expect("it is seen");
    hash.iter().map(|(name, value)| (name.to_vec(), (value.to_vec(), time(&name)))).collect()
}

fn check(entry: &Entry, model: &Model, since: i64) {
    let ValueRef::Hash(hash) = entry.value() else { panic!("it is a hash") };
    if let HashRef::Volatile(volatile, _) = hash {
        volatile.check();
    }
    assert_eq!(seen(hash), *model);
    assert_eq!(hash.len(), model.len());
    let live = |time: Option<i64>| time.is_none_or(|at| since <= at);
    let expect: Model = model.clone().into_iter().filter(|(_, (_, time))| live(*time)).collect();
    let hash = hash.seen(since);
    assert_eq!(seen(hash), expect);
    assert_eq!((hash.len(), hash.live_len()), (model.len(), expect.len()));
    let mut random = 1_u64;
    let mut random = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 16
    };
    let drawn: Vec<Vec<u8>> = hash.sample(usize::MAX, &mut random).iter().map(|(n, _)| n.to_vec()).collect();
    assert_eq!(drawn.len(), expect.len());
    assert!(drawn.iter().all(|name| expect.contains_key(name)));
    assert_eq!(hash.random(&mut random).is_some(), !expect.is_empty());
    assert!(hash.repeated(5, random).all(|(name, _)| expect.contains_key(&*name)));
    let (mut found, mut position, mut visited) = (0, Some(0), 0);
    while let Some(from) = position {
        position = hash.scan(from, &mut visited, &mut |(name, _)| {
            assert!(expect.contains_key(&*name));
            found += 1;
        });
    }
    assert_eq!((found, visited), (expect.len(), model.len()));
}

#[test]
fn a_hash_holds_what_was_put_into_it() {
    let mut state = 7_u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for fields in [3, 12, 300] {
        let (mut entry, mut model) = (entry(), Model::new());
        for step in 0..2000_u64 {
            let name = format!("f{}", below(fields)).into_bytes();
            let value = format!("{step}").into_bytes();
            let time = i64::try_from(below(50)).unwrap();
            let since = i64::try_from(below(50)).unwrap();
            let is_live = |time: Option<i64>| time.is_none_or(|at| since <= at);
            let before = match model.get(&name) {
                None => Before::Absent,
                Some((_, time)) if is_live(*time) => Before::Present,
                Some(_) => Before::Expired,
            };
            let old_time = model.get(&name).and_then(|(_, time)| *time);
            let mut hash = at(&mut entry, since);
            match below(6) {
                0 => {
                    assert_eq!(hash.put(&name, &value, Expiry::At(time)), before);
                    model.insert(name, (value, Some(time)));
                }
                1 => {
                    assert_eq!(hash.put(&name, &value, Expiry::None), before);
                    model.insert(name, (value, None));
                }
                2 => {
                    assert_eq!(hash.put(&name, &value, Expiry::Keep), before);
                    let time = old_time.filter(|at| is_live(Some(*at)));
                    model.insert(name, (value, time));
                }
                3 => {
                    let removed = hash.remove(&name);
                    assert_eq!(removed.is_some(), before == Before::Present);
                    if let Some(value) = removed {
                        assert_eq!(model.remove(&name).unwrap().0, &*value);
                    }
                }
                4 if before == Before::Present => {
                    let time = (time % 2 == 0).then_some(time);
                    hash.set_time(&name, time);
                    model.get_mut(&name).unwrap().1 = time;
                }
                _ => {
                    let due = hash.remove_due(2);
                    assert!(due.len() <= 2);
                    for name in due {
                        let (_, time) = model.remove(&*name).unwrap();
                        assert!(!is_live(time));
                    }
                }
            }
            if below(20) == 0 {
                entry.recount_volatile();
            }
            check(&entry, &model, since);
        }
        let ValueRef::Hash(_) = entry.copied_value().as_ref() else { panic!("it is a hash") };
        let copy = Entry::new(b"c", NewValue::Value(entry.copied_value()), None, 0);
        drop(entry);
        check(&copy, &model, 25);
    }
}

#[test]
fn what_is_due_goes_in_the_order_of_times() {
    let mut entry = entry();
    let mut hash = at(&mut entry, 10);
    for (name, time) in [(b"a", 9), (b"b", 3), (b"c", 10), (b"d", 3), (b"e", 11)] {
        hash.put(name, b"v", Expiry::At(time));
    }
    let names = |due: Vec<Box<[u8]>>| due.concat();
    assert_eq!(names(hash.remove_due(2)), b"bd");
    assert_eq!(names(hash.remove_due(9)), b"a");
    assert_eq!(names(hash.remove_due(9)), b"");
}

/// A table of any size gets its first time, and loses its last one, without a look at the other fields.
#[test]
fn a_table_becomes_volatile_as_it_is() {
    let mut entry = entry();
    let mut hash = at(&mut entry, 0);
    for i in 0..1000 {
        hash.set(format!("f{i}").as_bytes(), b"v");
    }
    let first = |entry: &Entry| {
        let name = entry.fields().unwrap().get(hash_of(b"f7"), b"f7").map(Field::value);
        name.map(<[u8]>::as_ptr)
    };
    let before = first(&entry);
    at(&mut entry, 0).set_time(b"f1", Some(5));
    assert_eq!(entry.recount_volatile(), (false, Some(5)));
    assert_eq!((first(&entry), entry.volatile().is_some()), (before, true));
    at(&mut entry, 0).set_time(b"f1", None);
    assert_eq!(entry.recount_volatile(), (true, None));
    assert_eq!((first(&entry), entry.volatile().is_some()), (before, false));
}
