//! Entries, nodes and groups, and what of them is refused.

use super::*;
use crate::rdb::value::{self, Loaded};
use crate::rdb::{Compression, RdbError, type_byte as t};
use crate::types::{Collection, Limits};

const LIMITS: StreamLimits = StreamLimits { node_bytes: 4096, node_entries: 10 };

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId::new(ms, seq)
}

/// Entries 1-0 to `len`-0, each third one with other fields.
fn stream(len: u64) -> Stream {
    let mut stream = Stream::default();
    for ms in 1..=len {
        let value = ms.to_string();
        let fields: &[&[u8]] = match ms % 3 {
            0 => &[b"f", b"x", b"other", value.as_bytes()],
            _ => &[b"f", value.as_bytes()],
        };
        stream.append(id(ms, 0), fields, LIMITS);
    }
    stream
}

fn ids<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<u64> {
    entries.map(|entry| entry.id.ms).collect()
}

#[test]
fn entries_are_found_from_both_ends() {
    let stream = stream(35);
    assert_eq!((stream.len(), stream.node_count(), stream.last_id()), (35, 4, id(35, 0)));
    assert_eq!(ids(stream.range(id(9, 0), id(12, 5))), [9, 10, 11, 12]);
    assert_eq!(ids(stream.range_backwards(id(9, 1), id(12, 0))), [12, 11, 10]);
    assert_eq!(ids(stream.range(id(5, 1), id(3, 0))), [0; 0]);
    assert_eq!(ids(stream.range_backwards(id(40, 0), id(50, 0))), [0; 0]);
    let mut backwards = ids(stream.range_backwards(StreamId::ZERO, StreamId::MAX));
    backwards.reverse();
    assert_eq!(backwards, ids(stream.iter()));
    let fields: Vec<String> =
        stream.get(id(33, 0)).unwrap().fields().map(|(n, v)| format!("{n:?}{v:?}")).collect();
    assert_eq!(fields, ["\"f\"\"x\"", "\"other\"\"33\""]);
    assert!(stream.get(id(33, 1)).is_none());
}

#[test]
fn deleted_entries_are_passed_over() {
    let mut stream = stream(25);
    assert!(stream.delete(id(1, 0)) && stream.delete(id(12, 0)) && !stream.delete(id(12, 0)));
    assert_eq!((stream.len(), stream.first_id(), stream.max_deleted_id()), (23, id(2, 0), id(12, 0)));
    assert_eq!(ids(stream.range(id(10, 0), id(14, 0))), [10, 11, 13, 14]);
    // A node goes with its last entry.
    for ms in 11..=20 {
        stream.delete(id(ms, 0));
    }
    assert_eq!((stream.node_count(), ids(stream.range(id(10, 0), id(22, 0)))), (2, vec![10, 21, 22]));
    for ms in 1..=25 {
        stream.delete(id(ms, 0));
    }
    assert_eq!((stream.len(), stream.node_count(), stream.first_id()), (0, 0, StreamId::ZERO));
    assert_eq!((stream.last_id(), stream.entries_added()), (id(25, 0), 25));
}

#[test]
fn trimming_is_exact_or_by_nodes() {
    for (keep, precision, removed) in [
        (Keep::Last(13), Precision::Exact, 12),
        (Keep::Last(13), Precision::Nodes(0), 10),
        (Keep::Last(0), Precision::Nodes(15), 10),
        (Keep::Last(0), Precision::Nodes(0), 25),
        (Keep::Last(99), Precision::Exact, 0),
        (Keep::From(id(13, 1)), Precision::Exact, 13),
        (Keep::From(id(13, 1)), Precision::Nodes(0), 10),
        (Keep::From(StreamId::MAX), Precision::Exact, 25),
    ] {
        let mut stream = stream(25);
        assert_eq!(stream.trim(keep, precision), removed, "{keep:?} {precision:?}");
        let left: Vec<u64> = (removed + 1..=25).collect();
        assert_eq!(ids(stream.iter()), left);
        assert_eq!(stream.first_id().ms, left.first().copied().unwrap_or(0));
    }
}

#[test]
fn a_copy_keeps_what_was() {
    let mut stream = stream(15);
    let copy = stream.clone();
    stream.delete(id(3, 0));
    stream.append(id(16, 0), &[b"f", b"v"], LIMITS);
    assert_eq!(ids(copy.iter()), (1..=15).collect::<Vec<_>>());
}

#[test]
fn nodes_of_valkeys_tree_are_counted() {
    for (nodes, expect) in [
        (&[][..], 1),
        (&[(1, 0)][..], 2),
        (&[(1, 0), (1, 1)], 4),
        (&[(1, 0), (2, 0)], 6),
        (&[(1, 0), (1, 1), (2, 0)], 8),
        (&[(1, 0), (256, 0)], 6),
    ] {
        let mut stream = Stream::default();
        for (ms, seq) in nodes {
            stream.append(id(*ms, *seq), &[b"f", b"v"], StreamLimits { node_entries: 1, ..LIMITS });
        }
        assert_eq!(stream.radix_tree_nodes(), expect, "{nodes:?}");
    }
}

#[test]
fn an_entry_is_pending_for_one_consumer() {
    let mut group = Group::default();
    assert!(group.create_consumer(b"a", 1, UNKNOWN) && !group.create_consumer(b"a", 2, 2));
    group.create_consumer(b"b", 1, UNKNOWN);
    group.deliver(id(1, 0), b"a", 5, 1);
    group.deliver(id(2, 0), b"a", 5, 1);
    group.deliver(id(1, 0), b"b", 6, 2);
    let pending = |group: &Group, name: &[u8]| group.consumer(name).unwrap().pending().collect::<Vec<_>>();
    assert_eq!((pending(&group, b"a"), pending(&group, b"b")), (vec![id(2, 0)], vec![id(1, 0)]));
    assert_eq!(group.pending_at(id(1, 0)).unwrap().deliveries, 2);
    assert!(group.acknowledge(id(1, 0)) && !group.acknowledge(id(1, 0)));
    assert_eq!((group.delete_consumer(b"a"), group.pending_len()), (Some(1), 0));
    assert_eq!(group.pending(id(2, 0), id(1, 0)).count(), 0);
}

/// With two consumers, of whom one has something pending.
fn with_group() -> Stream {
    let mut stream = stream(12);
    stream.delete(id(2, 0));
    stream.create_group(b"g", id(4, 0), UNKNOWN);
    let group = stream.group_mut(b"g").unwrap();
    group.create_consumer(b"a", 1000, 2000);
    group.create_consumer(b"b", 1000, UNKNOWN);
    group.deliver(id(2, 0), b"a", 1500, 1);
    group.deliver(id(3, 0), b"a", 1600, 7);
    stream
}

fn saved(stream: &Stream) -> Vec<u8> {
    let mut out = vec![t::STREAM_3];
    stream.save_body(Compression::None, &mut out);
    out
}

#[track_caller]
fn loaded(bytes: &[u8]) -> Result<Vec<u8>, RdbError> {
    match value::load(bytes, &Limits::default())? {
        Loaded::Collection(value) => {
            let crate::entry::ValueRef::Stream(stream) = value.as_ref() else { panic!("a stream") };
            Ok(saved(stream))
        }
        other => panic!("a stream, not {other:?}"),
    }
}

#[test]
fn what_is_saved_is_loaded() {
    for stream in [Stream::default(), stream(100), with_group()] {
        let bytes = saved(&stream);
        assert_eq!(loaded(&bytes), Ok(bytes));
    }
}

/// The bytes with the first `from` replaced.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn contradictions_are_refused() {
    let bytes = saved(&with_group());
    let [second, third] = [id(2, 0), id(3, 0)].map(StreamId::to_bytes);
    let consumer = [&b"\x02"[..], &second, &third].concat();
    let at = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap();
    // What a consumer has comes behind its times.
    let (head, tail) = bytes.split_at(at(&consumer));
    let with = |pending: &[u8]| [head, pending, &tail[consumer.len()..]].concat();
    for (damaged, message) in [
        (with(&[&b"\x01"[..], &second].concat()), "an entry is pending for nobody"),
        (with(&[&b"\x02"[..], &second, &second].concat()), "an entry is pending for two consumers"),
        (
            with(&[&b"\x02"[..], &second, &id(4, 0).to_bytes()].concat()),
            "a consumer has a pending entry that the group has not",
        ),
        (replaced(&bytes, b"\x01b\xe8", b"\x01a\xe8"), "a group has a consumer twice"),
        (replaced(&bytes, &third, &id(1, 9).to_bytes()), "what is pending in a group is not in order"),
        (
            replaced(&bytes, b"\x0b\x0c\0\x01\0", b"\x0c\x0c\0\x01\0"),
            "a stream has another number of entries than it says",
        ),
        (replaced(&bytes, b"\x0b\x0c\0\x01\0", b"\x0b\x0b\0\x01\0"), "a stream has an entry behind its last"),
    ] {
        assert_eq!(loaded(&damaged), Err(RdbError::Corrupt(message)));
    }
}

/// What is rebuilt by commands would be refused where they are applied.
#[test]
fn what_cannot_have_come_about_is_refused() {
    for (damage, message) in [
        (
            (|s: &mut Stream| s.max_deleted_id = id(13, 0)) as fn(&mut Stream),
            "a stream has deleted an entry behind its last",
        ),
        (|s| s.entries_added = 10, "a stream has more entries than were added"),
        (
            |s| s.group_mut(b"g").unwrap().deliver(StreamId::ZERO, b"b", 1, 1),
            "what is pending in a group is not in order",
        ),
    ] {
        let mut stream = with_group();
        damage(&mut stream);
        assert_eq!(loaded(&saved(&stream)), Err(RdbError::Corrupt(message)));
    }
}

#[test]
fn no_damage_is_a_panic() {
    let bytes = saved(&with_group());
    for at in 0..bytes.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xf4, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            if let Ok(again) = loaded(&damaged) {
                assert_eq!(loaded(&again), Ok(again), "byte {at} is {value}");
            }
        }
        assert!(loaded(&bytes[..at]).is_err());
    }
}

#[test]
fn a_node_is_checked_to_its_depths() {
    let node = |elements: &[&str]| {
        let mut list = Listpack::default();
        elements.iter().for_each(|element| list.push_back(element.as_bytes()));
        node::check(id(1, 0), &list).map(|checked| (checked.live, checked.last_id))
    };
    let head = ["1", "0", "1", "f", "0"];
    let with = |entry: &[&'static str]| node(&[&head[..], entry].concat());
    assert_eq!(with(&["2", "0", "0", "v", "4"]), Some((1, id(1, 0))));
    assert_eq!(with(&["0", "5", "-1", "1", "g", "v", "6"]), Some((1, id(6, u64::MAX))), "modulo 2^64");
    assert_eq!(with(&["0", "5", "3", "1", "g", "v", "6"]), Some((1, id(6, 3))));
    for entry in [
        &["4", "0", "0", "v", "4"][..],
        &["3", "0", "0", "v", "4"],
        &["2", "0", "0", "v", "5"],
        &["2", "0", "0", "v"],
        &["2", "0", "0"],
        &["x", "0", "0", "v", "4"],
        &["2", "-1", "0", "v", "4"],
        &["0", "0", "0", "0", "4"],
        &["0", "0", "0", "-1", "4"],
        &["0", "0", "0", "9223372036854775807", "g", "v", "6"],
        &[],
        &["2", "0", "0", "v", "4", "2", "0", "0", "v", "4"],
    ] {
        assert_eq!(with(entry), None, "{entry:?}");
    }
    assert_eq!(node(&["1", "0", "9223372036854775807", "f", "0"]), None);
    assert_eq!(node(&["0", "0", "0", "0"]), None);
}
