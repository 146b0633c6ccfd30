//! Tests of the write log.

use bytes::Bytes;
use keyward_proto::entry::frames;
use keyward_proto::ids::{LogIndex, Position, ShardId, Term};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn index(i: u64) -> LogIndex {
    LogIndex::new(i)
}

fn starts(list: &[(u64, u64)]) -> Vec<TermStart> {
    list.iter().map(|&(term, first)| TermStart { term: Term::new(term), first_index: index(first) }).collect()
}

#[test]
fn a_long_entry_is_appended_as_it_is() {
    let mut log = WriteLog::new(64 << 20);
    let payload = vec![b'x'; LONG_BYTES];
    let mut frame = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    frame.extend_from_slice(&payload);
    let frame = Bytes::from(frame);
    log.append(Term::new(1), b"");
    let address = frame.as_ptr();
    assert_eq!(log.append_frame(Term::new(1), frame), LogIndex::new(2));
    log.append(Term::new(1), b"");
    log.check_invariants();
    let slice = log.read_from(LogIndex::new(2), 1).unwrap();
    assert_eq!((slice.count, slice.bytes.as_ptr()), (1, address));
    assert_eq!(frames(&slice.bytes).collect::<Vec<_>>(), [payload]);
    assert_eq!(log.read_from(LogIndex::new(3), 1).unwrap().count, 1);
}

#[test]
fn an_entry_is_synced_when_the_disk_has_kept_that_very_entry() {
    let mut log = WriteLog::new(1 << 20);
    let position = |term, i| Position { term: Term::new(term), index: index(i) };
    assert!(!log.has_synced(Position::ZERO), "nothing is written to disk");
    log.attach_disk();
    log.append(Term::new(1), b"a");
    let bytes = log.unwritten_bytes();
    assert!(log.set_written(index(1), bytes) && log.set_durable(index(1)));
    assert!(log.has_synced(Position::ZERO) && !log.has_synced(position(1, 1)));
    log.set_synced(index(1));
    assert!(log.has_synced(position(1, 1)) && !log.has_synced(position(2, 1)));
    log.truncate_after(index(0));
    log.append(Term::new(2), b"b");
    assert!(!log.has_synced(position(2, 1)));
}

#[test]
fn an_entry_is_told_from_one_of_another_term_at_its_index() {
    let mut log = WriteLog::new(1 << 20);
    log.append(Term::new(1), b"a");
    log.append(Term::new(1), b"written, and lost");
    log.truncate_after(index(1));
    log.append(Term::new(2), b"b");
    let position = |term, i| Position { term: Term::new(term), index: index(i) };
    assert!(log.has(Position::ZERO) && log.has(position(1, 1)) && log.has(position(2, 2)));
    assert!(!log.has(position(1, 2)) && !log.has(position(2, 3)));
}

#[test]
fn a_reader_gets_entries_of_one_term_without_gaps() {
    let mut log = WriteLog::new(1 << 20);
    for i in 0..200u64 {
        log.append(Term::new(if i < 100 { 1 } else { 3 }), format!("entry {i}").as_bytes());
    }
    let mut next = 1;
    while next <= 200 {
        let slice = log.read_from(index(next), 100).expect("held");
        assert_eq!(slice.first, index(next));
        assert_eq!(slice.previous.index, index(next - 1));
        let payloads: Vec<_> = frames(&slice.bytes).collect();
        assert_eq!(payloads.len() as u64, slice.count);
        for payload in payloads {
            assert_eq!(payload, format!("entry {}", next - 1).as_bytes());
            next += 1;
        }
        log.check_invariants();
    }
    let end = log.read_from(index(201), 100).expect("the end");
    assert_eq!((end.count, end.previous), (0, Position::new(3, 200)));
    assert_eq!(log.terms(), starts(&[(1, 1), (3, 101)]));
}

#[test]
fn tiny_segments_are_gathered_for_a_lagging_reader() {
    let mut log = WriteLog::new(1 << 20);
    for i in 1..=50 {
        log.append(Term::new(1), b"abc");
        assert_eq!(log.read_from(index(i), 1000).expect("held").count, 1);
    }
    assert_eq!(log.read_from(index(1), 1000).expect("held").count, 50);
}

#[test]
fn the_ring_drops_only_released_entries() {
    let mut log = WriteLog::new(3 * LONG_BYTES);
    let payload = vec![0; 100_000];
    for _ in 0..100 {
        log.append(Term::new(1), &payload);
    }
    assert_eq!(log.first_index(), index(1), "nothing is committed");
    log.release(index(60));
    assert!(log.first_index() > index(40) && log.first_index() <= index(61));
    log.release(index(100));
    assert!(log.bytes() <= 3 * LONG_BYTES + LONG_BYTES);
    assert!(log.read_from(index(1), 10).is_err());
    log.check_invariants();
}

#[test]
fn what_a_reader_has_pinned_stays() {
    let mut log = WriteLog::new(1000);
    log.pin(7, index(20));
    for i in 1..=100 {
        log.append(Term::new(1), &[0; 100]);
        log.read_from(index(i), 1).expect("held");
        log.release(index(i));
    }
    assert_eq!(log.first_index(), index(21));
    log.unpin(7);
    assert!(log.first_index() > index(90));
    log.check_invariants();
}

/// A full sync of much takes long, and must not begin for ever anew.
#[test]
fn who_reads_a_large_keyspace_first_has_more_kept() {
    let payload = vec![0; 4 << 20];
    let fill = |log: &mut WriteLog| {
        for _ in 0..100 {
            let written = log.append(Term::new(1), &payload);
            log.release(written);
        }
    };
    let mut log = WriteLog::new(1000);
    log.pin_for_keyspace(7, index(0), 0);
    fill(&mut log);
    assert!(log.read_from(index(1), 1).is_err(), "400 MB are too much for a small keyspace");

    let mut log = WriteLog::new(1000);
    log.pin_for_keyspace(7, index(0), 1 << 30);
    fill(&mut log);
    log.read_from(index(1), 1).expect("held");
    // While it reads what was kept it does not lose it.
    log.pin(7, index(10));
    fill(&mut log);
    log.read_from(index(11), 1).expect("held");
    // Then it is a reader like any other.
    log.pin(7, index(190));
    log.append(Term::new(1), &payload);
    log.pin(7, index(191));
    fill(&mut log);
    assert!(log.read_from(index(192), 1).is_err());
    log.check_invariants();
}

#[test]
fn without_readers_only_the_index_advances() {
    let mut log = WriteLog::new(1 << 20);
    log.keep_no_entries();
    log.append(Term::new(1), b"abc");
    assert_eq!((log.last(), log.bytes(), log.first_index()), (Position::new(1, 1), 0, index(2)));
    log.keep_entries();
    log.append(Term::new(1), b"abc");
    assert_eq!(log.read_from(index(2), 10).expect("held").count, 1);
    log.check_invariants();
}

#[test]
fn received_entries_must_follow() {
    let mut primary = WriteLog::new(1 << 20);
    let mut replica = WriteLog::new(1 << 20);
    for i in 0..100u64 {
        primary.append(Term::new(2), &i.to_le_bytes());
    }
    let slice = primary.read_from(index(1), 1 << 20).expect("held");
    let gap = replica.append_received(slice.term, Position::new(1, 5), slice.count, slice.bytes.clone());
    assert!(matches!(gap, Err(AppendError::Gap { .. })));
    let wrong = replica.append_received(slice.term, Position::ZERO, 7, slice.bytes.clone());
    assert_eq!(wrong, Err(AppendError::Malformed));
    let torn = replica.append_received(slice.term, Position::ZERO, 1, Bytes::from_static(&[9, 0, 0, 0, 1]));
    assert_eq!(torn, Err(AppendError::Malformed));
    replica.append_received(slice.term, slice.previous, slice.count, slice.bytes).expect("follows");
    assert_eq!(replica.last(), primary.last());
    assert_eq!(replica.read_from(index(70), 20).expect("held").previous, Position::new(2, 69));
    replica.check_invariants();
}

#[test]
fn divergence_is_the_end_of_the_last_common_term() {
    let check = |ours: &[(u64, u64)], our_last, theirs: &[(u64, u64)], their_last, expected| {
        let common = WriteLog::divergence(&starts(ours), our_last, &starts(theirs), their_last);
        assert_eq!(common, index(expected), "{ours:?} {theirs:?}");
    };
    check(&[], Position::ZERO, &[], Position::ZERO, 0);
    check(&[(1, 1)], Position::new(1, 9), &[], Position::ZERO, 0);
    check(&[(1, 1)], Position::new(1, 9), &[(1, 1)], Position::new(1, 12), 9);
    check(&[(1, 1), (3, 6)], Position::new(3, 9), &[(1, 1), (2, 8)], Position::new(2, 20), 5);
    check(&[(1, 1), (2, 6)], Position::new(2, 9), &[(1, 1)], Position::new(1, 7), 5);
    check(&[(2, 100)], Position::new(2, 150), &[(2, 10)], Position::new(2, 50), 50);
    check(&[(0, 1)], Position::new(0, 5), &[(0, 1)], Position::new(0, 5), 0);
}

#[test]
fn random_histories_stay_consistent() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut log = WriteLog::new(2000);
        let mut model: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut released = 0;
        let mut term = 1;
        for _ in 0..200 {
            match rng.random_range(0..10) {
                0..5 => {
                    let payload = vec![rng.random(); rng.random_range(0..50)];
                    log.append(Term::new(term), &payload);
                    model.push((term, payload));
                }
                5 if !model.is_empty() => {
                    released = rng.random_range(released..=model.len());
                    log.release(index(released as u64));
                }
                6 if rng.random_bool(0.3) => {
                    let keep = rng.random_range(released..=model.len());
                    model.truncate(keep);
                    log.truncate_after(index(keep as u64));
                    term += 1;
                }
                7 => term += u64::from(rng.random_bool(0.2)),
                _ => {
                    let next = rng.random_range(1..=model.len() + 1);
                    let read = log.read_from(index(next as u64), rng.random_range(1..200));
                    let Ok(slice) = read else {
                        assert!(next <= released, "only released entries are trimmed, seed {seed}");
                        continue;
                    };
                    for (i, payload) in frames(&slice.bytes).enumerate() {
                        assert_eq!(model[next - 1 + i], (slice.term.get(), payload.to_vec()), "seed {seed}");
                    }
                }
            }
            log.check_invariants();
            assert_eq!(log.last().index.get() as usize, model.len());
            assert_eq!(log.last().term.get(), model.last().map_or(0, |e| e.0));
        }
    }
}

#[test]
fn the_disk_follows_the_log_and_turns_back_with_it() {
    let mut log = WriteLog::new(1 << 20);
    let term = Term::new(1);
    log.append(term, b"before the disk");
    log.attach_disk();
    assert_eq!((log.written(), log.durable()), (LogIndex::new(1), LogIndex::new(1)));
    for _ in 0..4 {
        log.append(term, b"12345678");
    }
    assert_eq!(log.unwritten_bytes(), 48);
    let slice = log.read_from(LogIndex::new(2), 24).unwrap();
    assert!(log.set_written(slice.last().index, slice.bytes.len() as u64));
    assert!(log.set_durable(LogIndex::new(2)));
    assert_eq!(
        (log.written(), log.durable(), log.unwritten_bytes()),
        (LogIndex::new(3), LogIndex::new(2), 24)
    );
    // What is not written is never dropped.
    log.release(LogIndex::new(5));
    log.check_invariants();
    // What the writer reports about entries that are gone does not count.
    let mut log = WriteLog::new(1 << 20);
    log.attach_disk();
    for _ in 0..4 {
        log.append(term, b"12345678");
    }
    let slice = log.read_from(LogIndex::new(1), 1 << 20).unwrap();
    assert!(log.set_written(LogIndex::new(3), 36) && log.set_durable(LogIndex::new(3)));
    log.truncate_after(LogIndex::new(2));
    log.append(Term::new(2), b"12345678");
    assert!(!log.set_written(slice.last().index, 12) && !log.set_durable(LogIndex::new(3)));
    assert_eq!(
        (log.written(), log.durable(), log.unwritten_bytes()),
        (LogIndex::new(2), LogIndex::new(2), 12)
    );
    assert_eq!(log.take_rewind(), Some(Rewind::To(LogIndex::new(2))));
    assert!(log.set_written(LogIndex::new(3), 12));
    // A sync that failed is no rewind: the same entries are written again.
    log.retract_disk(LogIndex::new(1));
    assert_eq!(
        (log.written(), log.durable(), log.unwritten_bytes()),
        (LogIndex::new(1), LogIndex::new(1), 24)
    );
    log.reset(Position::new(2, 10));
    assert_eq!(
        (log.written(), log.durable(), log.take_rewind()),
        (LogIndex::new(10), LogIndex::ZERO, Some(Rewind::All))
    );
    log.check_invariants();
    log.detach_disk();
    assert_eq!(log.durable(), LogIndex::new(u64::MAX));
}

#[test]
fn what_belongs_to_no_shard_any_more_keeps_its_tail() {
    let mut log = WriteLog::new(1 << 20);
    for (term, payload) in [(1, "a"), (1, "b"), (2, "c"), (2, "d"), (3, "e")] {
        log.append_unexecuted(Term::new(term), payload.as_bytes());
    }
    log.attach_disk();
    log.set_shard(Some(ShardId::from_random([1; 20])));
    log.release(LogIndex::new(3));
    log.disown(LogIndex::new(3));
    log.check_invariants();
    assert_eq!((log.last(), log.shard()), (Position::new(0, 5), None));
    let tail = log.read_from(LogIndex::new(4), 1 << 20).unwrap();
    assert_eq!(frames(&tail.bytes).collect::<Vec<_>>(), [b"d", b"e"]);
    assert_eq!((tail.term, tail.previous), (Term::ZERO, Position::new(0, 3)));
    assert_eq!(
        (log.take_rewind(), log.written(), log.durable()),
        (Some(Rewind::All), LogIndex::new(3), LogIndex::ZERO)
    );
    log.disown(LogIndex::new(5));
    assert_eq!((log.last(), log.first_index()), (Position::new(0, 5), LogIndex::new(6)));
}

#[test]
fn a_history_that_is_replaced_by_a_younger_one_is_told_until_the_files_are_the_new_ones() {
    let shard = |n: u8| Some(ShardId::from_random([n; 20]));
    let at = |term, i| Position { term: Term::new(term), index: index(i) };
    for (what, of, by, is_longer) in [
        ("it has gone on", shard(1), at(2, 10), false),
        ("the same", shard(1), at(2, 5), false),
        ("of a later term, but shorter", shard(1), at(7, 4), true),
        ("of an earlier term", shard(1), at(1, 10), true),
        ("another shard's", shard(2), at(9, 100), true),
    ] {
        let mut log = WriteLog::new(1 << 20);
        log.set_shard(shard(1));
        (0..5).for_each(|_| {
            log.append(Term::new(2), b"entry");
        });
        // The first one broke off.
        log.replace(at(2, 6), shard(1));
        log.replace(by, of);
        assert_eq!(log.replaced_longer().map(|r| r.last), is_longer.then_some(at(2, 5)), "{what}");
        log.forget_replaced();
        assert_eq!(log.replaced_longer(), None, "{what}");
    }
    let mut empty = WriteLog::new(1 << 20);
    empty.replace(at(1, 1), shard(1));
    assert_eq!(empty.replaced_longer(), None, "it had nothing");
}
