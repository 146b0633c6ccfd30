use super::*;
use crate::keyspace::types::{Hash, List, Set, SortedSet};

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
