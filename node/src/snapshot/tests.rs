//! A snapshot that is taken while threads write: it is of one moment.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use keyward_store::rdb::record::Record;

use super::*;
use crate::testing::TestNode;

/// Keys and values of a snapshot of strings.
fn read(stream: &mut Stream) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some(chunk) = stream.next_chunk().unwrap() {
        for records in &chunk.records {
            let mut file = Vec::new();
            let mut writer = keyward_store::rdb::file::Writer::without_checksum(&mut file).unwrap();
            writer.records(records.db, &records.bytes).unwrap();
            writer.finish().unwrap();
            let trust = keyward_store::rdb::file::Trust::Ignore;
            let mut reader = keyward_store::rdb::file::Reader::new(
                &file[..],
                None,
                trust,
                keyward_store::rdb::VersionCheck::Strict,
            )
            .unwrap();
            while let Some(chunk) = reader.next_chunk().unwrap() {
                for span in &chunk.spans {
                    let record = Record::open(chunk.record(span)).unwrap();
                    let key = String::from_utf8(record.key.to_vec()).unwrap();
                    let value =
                        format!("{:?}", record.value(&keyward_store::types::Limits::default()).unwrap());
                    assert!(found.insert(key, value).is_none());
                }
            }
        }
    }
    found
}

#[test]
fn a_transaction_is_in_a_snapshot_or_not() {
    let mut node = TestNode::new();
    let server = Arc::clone(node.executor.server());
    for i in 0..2_000 {
        node.run(&format!("MSET a{i} 0 b{i} 0"));
    }
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (mut node, ended) = (node.another_client(), Arc::clone(&ended));
            std::thread::spawn(move || {
                let mut round = 0;
                while !ended.load(Ordering::Relaxed) {
                    round += 1;
                    for i in (writer..2_000).step_by(2) {
                        node.run("MULTI");
                        node.run(&format!("SET a{i} {round}"));
                        node.run(&format!("SET b{i} {round}"));
                        node.run("EXEC");
                    }
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let mut stream = server.snapshots.request(&server, Box::new(|_| {}));
        // Another one that leaves does not disturb the first.
        drop(server.snapshots.request(&server, Box::new(|_| {})));
        stream.begin().unwrap();
        let found = read(&mut stream);
        assert_eq!(found.len(), 4_000);
        for i in 0..2_000 {
            assert_eq!(found[&format!("a{i}")], found[&format!("b{i}")]);
        }
    }
    ended.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|w| w.join().unwrap());
}

#[test]
fn a_snapshot_is_of_its_index() {
    let mut node = TestNode::replicated();
    let server = Arc::clone(node.executor.server());
    node.run("SET k 1");
    node.run("SET k 2");
    let (told, position) = std::sync::mpsc::channel();
    let at_beginning = Box::new(move |position: Position| told.send(position).unwrap());
    let mut stream = server.snapshots.request(&server, at_beginning);
    let beginning = stream.begin().unwrap();
    assert_eq!(position.recv().unwrap(), beginning.position);
    assert_eq!(beginning.position, server.shared.log.lock().last());
    assert_eq!(beginning.changes, 2);
    assert_eq!(read(&mut stream).len(), 1);
    // While a full sync runs there is no moment of which the keyspace is.
    server.note_incomplete();
    let mut stream = server.snapshots.request(&server, Box::new(|_| {}));
    assert_eq!(stream.begin(), Err(SnapshotError::Incomplete));
}

#[test]
fn a_slow_consumer_holds_up_the_walk_and_a_dropped_one_ends_it() {
    let mut node = TestNode::with_arguments(&["--rdbcompression", "no"]);
    let server = Arc::clone(node.executor.server());
    let value = "x".repeat(2_000);
    for i in 0..5_000 {
        node.run(&format!("SET k{i} {i}{value}"));
    }
    let mut slow = server.snapshots.request(&server, Box::new(|_| {}));
    slow.begin().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let progress = server.snapshots.progress(&server);
    assert!(progress.bytes <= (STREAM_LEN + 2) * 2 * CHUNK_BYTES, "{progress:?}");
    assert!(progress.keys_done < 4_000, "{progress:?}");
    drop(slow);
    let mut next = server.snapshots.request(&server, Box::new(|_| {}));
    next.begin().unwrap();
    assert_eq!(read(&mut next).len(), 5_000);
}

/// What has been sent, or saved under the name of the last whole file, cannot be taken back.
#[test]
fn a_snapshot_is_shown_when_what_it_holds_is_committed_and_the_lease_was_held() {
    let begin = |node: &TestNode| {
        let server = node.executor.server();
        let mut stream = server.snapshots.request(server, Box::new(|_| {}));
        stream.begin().unwrap()
    };
    let settled = |node: &TestNode, b: &Beginning| wait_for(node.executor.server(), b, Duration::ZERO);
    let mut node = TestNode::replicated();
    node.run("SET k v");
    let beginning = begin(&node);
    assert_eq!(settled(&node, &beginning), Settled::NotYet);
    node.begin_generation(1);
    assert_eq!(settled(&node, &beginning), Settled::Unknown, "another term");
    let beginning = begin(&node);
    node.executor.server().shared.gate.advance_commit(beginning.position.index);
    assert_eq!(settled(&node, &beginning), Settled::True);
    let mut alone = TestNode::new();
    alone.run("SET k v");
    assert_eq!(settled(&alone, &begin(&alone)), Settled::True);
}
