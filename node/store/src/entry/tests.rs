use super::*;
use crate::types::{End, Hash, List, Set, SortedSet};

fn string(entry: &Entry) -> &[u8] {
    match entry.value() {
        ValueRef::String(s) => s,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_string_survives_every_change_of_layout() {
    let mut e = Entry::new(b"key", NewValue::Bytes(b"value"), None, 7);
    for (bytes, expire) in
        [(5, None), (5, Some(1)), (900, Some(2)), (0, None), (5000, Some(3)), (3, Some(3)), (1025, None)]
    {
        let bytes = vec![b'x'; bytes];
        e.set_bytes(&bytes);
        e.set_expire_at(expire);
        assert_eq!((e.key(), string(&e), e.expire_at(), e.access()), (&b"key"[..], &bytes[..], expire, 7));
    }
    e.set_bytes(b"abc");
    e.raw_mut().extend_from_slice(b"def");
    e.set_expire_at(Some(9));
    assert_eq!(string(&e), b"abcdef");
    let e = e.renamed(b"another key");
    assert_eq!((e.key(), string(&e), e.expire_at()), (&b"another key"[..], &b"abcdef"[..], Some(9)));
}

#[test]
fn values_of_every_type_replace_one_another() {
    let new: [fn() -> NewValue<'static>; 7] = [
        || NewValue::Bytes(b"short"),
        || NewValue::Bytes(&[b'x'; 2000]),
        || NewValue::Value(List::default().into()),
        || NewValue::Value(Set::default().into()),
        || NewValue::Value(Hash::default().into()),
        || NewValue::Value(SortedSet::default().into()),
        || NewValue::Value(Value::raw(b"raw".to_vec())),
    ];
    for (from, to) in (0..49).map(|i| (i / 7, i % 7)) {
        let mut e = Entry::new(b"key", new[from](), Some(1), 7);
        e.set_expire_at(None);
        e.set_value(new[to]());
        let expected = Entry::new(b"key", new[to](), None, 7);
        assert_eq!(format!("{:?}", e.value()), format!("{:?}", expected.value()));
        e.set_expire_at(Some(5));
        let e = e.renamed(b"k");
        assert_eq!(format!("{:?}", e.value()), format!("{:?}", expected.value()));
        assert_eq!((e.key(), e.expire_at(), e.access()), (&b"k"[..], Some(5), 7));
        assert_eq!(e.is_raw(), expected.is_raw());
    }
}

#[test]
fn an_entry_is_a_pointer() {
    assert_eq!(size_of::<Option<Entry>>(), 8);
    assert_eq!(HEADER_LEN, 12);
}

/// Every operation on every kind of value, in random order: what memory checkers are to look at.
#[test]
fn entries_keep_key_value_and_expiry_through_random_changes() {
    use crate::types::{HashLimits, HashMut, HashRef, ListMut, SetLimits, SetMut};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[derive(Debug, Clone, PartialEq)]
    enum Model {
        String(Vec<u8>),
        Hash(std::collections::BTreeMap<Vec<u8>, Vec<u8>>),
        Set(std::collections::BTreeSet<Vec<u8>>),
        List(std::collections::VecDeque<Vec<u8>>),
    }
    fn model_of(entry: &Entry) -> Model {
        match entry.value() {
            ValueRef::String(bytes) => Model::String(bytes.to_vec()),
            ValueRef::Hash(hash) => Model::Hash(hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect()),
            ValueRef::Set(set) => Model::Set(set.iter().map(|m| m.to_vec()).collect()),
            ValueRef::List(list) => Model::List(list.iter().map(|e| e.to_vec()).collect()),
            ValueRef::SortedSet(_) | ValueRef::Stream(_) => panic!("none is made"),
        }
    }
    let limits = HashLimits { entries: 30, value: 64 };
    let set_limits = SetLimits { intset_entries: 30, listpack_entries: 20, listpack_value: 64 };
    for seed in 0..6 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut entry = Entry::new(b"key", NewValue::Bytes(b""), None, 7);
        let (mut model, mut key, mut expire) = (Model::String(Vec::new()), b"key".to_vec(), None);
        for step in 0..400 {
            let mut bytes = |max: usize| -> Vec<u8> {
                let (len, byte) = (rng.random_range(0..max), rng.random_range(b'0'..b'z'));
                vec![byte; len]
            };
            let (short, long) = (bytes(12), bytes(1500));
            match (rng.random_range(0..12), &mut model) {
                (0, _) => {
                    expire = rng.random::<bool>().then(|| rng.random());
                    entry.set_expire_at(expire);
                }
                (1, _) => {
                    key = bytes_of(&mut rng, 40);
                    entry = entry.renamed(&key);
                }
                (2, _) => {
                    let copy = NewValue::Value(entry.copied_value());
                    let not_integer = entry.is_not_integer() && !entry.is_raw();
                    entry.set_value(copy);
                    assert_eq!(entry.is_not_integer(), not_integer);
                }
                (3, _) if step % 4 == 0 => {
                    entry.set_value(NewValue::Empty(
                        [Compact::Hash, Compact::Intset, Compact::List][step % 3],
                    ));
                    model = model_of(&entry);
                }
                (4 | 5, Model::String(_)) => {
                    let value = if rng.random() { &short } else { &long };
                    entry.set_bytes(value);
                    model = Model::String(value.clone());
                }
                (6, Model::String(string)) => {
                    entry.raw_mut().extend_from_slice(&short);
                    string.extend_from_slice(&short);
                }
                (7, Model::String(_)) => entry.set_not_integer(),
                (4, Model::Hash(hash)) => {
                    assert_eq!(
                        HashMut::new(&mut entry, limits).remove(&short).is_some(),
                        hash.remove(&short).is_some()
                    );
                }
                (_, Model::Hash(hash)) => {
                    let value = if rng.random_range(0..60) == 0 { long } else { key.clone() };
                    let new = HashMut::new(&mut entry, limits).set(&short, &value);
                    assert_eq!(new, hash.insert(short, value).is_none());
                }
                (4, Model::Set(set)) => {
                    assert_eq!(SetMut::new(&mut entry, set_limits).remove(&short), set.remove(&short));
                }
                (_, Model::Set(set)) => {
                    let member =
                        if step % 50 == 0 { short } else { rng.random_range(0..90).to_string().into() };
                    let new = SetMut::new(&mut entry, set_limits).insert(&member);
                    assert_eq!(new, set.insert(member));
                }
                (4..7, Model::List(list)) => {
                    let popped = ListMut::new(&mut entry, Default::default()).pop(End::Left);
                    assert_eq!(popped.map(Vec::from), list.pop_front());
                }
                (_, Model::List(list)) => {
                    let mut edit = ListMut::new(&mut entry, Default::default());
                    edit.prepare(std::iter::once(&long[..]));
                    edit.push(End::Right, &long);
                    list.push_back(long);
                }
                _ => {}
            }
            assert_eq!(model_of(&entry), model, "seed {seed} step {step}");
            assert_eq!((entry.key(), entry.expire_at(), entry.access()), (&key[..], expire, 7));
            if let ValueRef::Hash(HashRef::Listpack(list)) = entry.value() {
                assert!(list.len() <= 60);
            }
        }
    }
}

fn bytes_of(rng: &mut impl rand::Rng, max: usize) -> Vec<u8> {
    (0..rng.random_range(0..max)).map(|_| rng.random()).collect()
}
