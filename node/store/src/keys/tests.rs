//! What a command sees of expired keys, and how much it may leave for the log.

use keyward_proto::entry::effects;
use keyward_proto::slot::Slot;

use super::*;
use crate::effects::{Original, Place};
use crate::entry::{Entry, NewValue};

/// Effects and value of a command that runs on a key which has expired but was not deleted yet.
fn run(command: impl FnOnce(&mut Keys<'_>)) -> Vec<String> {
    let space = Keyspace::default();
    let mut keys = Keys::primary(&space, &KeySettings::default(), Now::at(100), Logging::On);
    keys.lock_one(Slot::of(b"k"));
    keys.insert(b"k", NewValue::Bytes(b"old"), Expiry::At(50));
    command(&mut keys);
    keys.finish();
    let mut found = Vec::new();
    keys.commit_effects(|buffer| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", " ");
        found.extend(effects(buffer.as_payload()).map(|e| text(e.command)));
        LogIndex::new(1)
    });
    found
}

#[test]
fn what_a_command_saw_as_expired_is_deleted_before_its_effect() {
    let effects = run(|keys| {
        assert!(!keys.exists(b"k"));
        keys.propagate_as(b"{k}2", &[b"X"]);
    });
    assert_eq!(effects, ["*2 $3 DEL $1 k ", "*1 $1 X "]);
    assert_eq!(run(|keys| assert!(keys.read(b"k").is_none())), ["*2 $3 DEL $1 k "]);
}

#[test]
fn what_would_be_too_long_for_an_entry_is_refused_before_it_changes_anything() {
    let space = Keyspace::default();
    let mut keys = Keys::primary(&space, &KeySettings::default(), Now::at(0), Logging::On);
    keys.entry_bytes_max = 1000;
    keys.lock_many([Slot::of(b"a"), Slot::of(b"b")]);
    keys.insert(b"a", NewValue::Bytes(&[b'x'; 300]), Expiry::None);
    keys.propagate_as(b"b", &[b"X"]);
    for (copies, ok) in [(1, true), (2, true), (3, false)] {
        let copied = keys.propagate_copy(b"a", b"b", (0, 0), Place::Vacant, Original::Stays);
        assert_eq!(copied.is_ok(), ok, "{copies}");
        keys.propagate_as(b"b", &[b"X"]);
    }
    assert!(keys.propagate_copy(b"a", b"b", (0, 0), Place::Occupied, Original::Moves).is_err());
    assert!(keys.check_entry(|| 100).is_ok());
    assert!(keys.check_entry(|| 1000).is_err());
    let mut names = Vec::new();
    keys.commit_effects(|buffer| {
        let text = |command: &[u8]| String::from_utf8_lossy(command).into_owned();
        names.extend(
            effects(buffer.as_payload())
                .filter_map(|e| text(e.command).split("\r\n").nth(2).map(str::to_owned)),
        );
        LogIndex::new(1)
    });
    assert_eq!(names, ["X", "SET", "X", "SET", "X", "X"]);
}

#[test]
fn an_expired_value_leaves_no_expiry_to_keep() {
    let effects = run(|keys| {
        keys.insert(b"k", NewValue::Bytes(b"new"), Expiry::Keep);
        keys.propagate_as(b"k", &[b"X"]);
        assert_eq!(keys.get(b"k").and_then(Entry::expire_at), None);
    });
    assert_eq!(effects, ["*2 $3 DEL $1 k ", "*1 $1 X "]);
}

#[test]
fn who_gives_up_waiting_for_a_slot_holds_none() {
    let space = Keyspace::default();
    let (settings, [a, b]) = (KeySettings::default(), [Slot::of(b"a"), Slot::of(b"b")]);
    let taken = space.lock(a);
    let mut keys = Keys::primary(&space, &settings, Now::at(0), Logging::Off);
    assert!(!keys.lock_one_unless(a, || true));
    assert!(!keys.lock_visited_unless(|visit| [b, a].into_iter().for_each(visit), || true));
    assert!(!keys.holds(a) && !keys.holds(b));
    assert!(space.lock_unless(b, || true).is_some(), "it was given back");
    drop(taken);
    assert!(keys.lock_visited_unless(|visit| [b, a].into_iter().for_each(visit), || true));
    assert!(keys.holds(a) && keys.holds(b));
}
