//! The recording writers themselves, against one real Valkey in cluster mode: what was acknowledged is found, a
//! write that is taken away is missed, and the time of a stopped server is measured.
#![allow(clippy::disallowed_methods, reason = "measures times")]

use std::time::{Duration, Instant};

use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::writers::{OnError, Probe, Writers};
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn acknowledged_writes_are_found_and_a_missing_one_is_missed() {
    let Some(dir) = programs::valkey_or_skip("recording writers") else { return };
    let valkey = Server::valkey(&dir, &["--cluster-enabled", "yes"]).unwrap();
    let mut connection = Connection::connect(&valkey.addr()).unwrap();
    let assigned = connection.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).unwrap();
    assert_eq!(assigned.text(), b"OK");
    assert!(wait_until(DEADLINE, || connection.call(&["SET", "k", "v"]).unwrap().text() == b"OK"));

    let writers = Writers::start(&[format!("redis://{}", valkey.addr())], 2, OnError::Report).unwrap();
    let probe = Probe::start(vec![valkey.addr()]);
    assert!(wait_until(DEADLINE, || 500 < writers.acknowledged()));

    let start = Instant::now();
    valkey.signal(Signal::STOP);
    assert!(wait_until(DEADLINE, || Duration::from_millis(100) < start.elapsed()));
    valkey.signal(Signal::CONT);
    let before = writers.acknowledged();
    assert!(wait_until(DEADLINE, || before + 500 < writers.acknowledged()));
    let (nodes, clients) = (probe.longest_gap(start), writers.longest_gap(start));
    assert!(
        Duration::from_millis(90) < nodes && Duration::from_millis(90) < clients,
        "{nodes:?} {clients:?}"
    );
    drop(probe);

    let history = writers.stop().unwrap();
    let mut strings = Vec::new();
    for key in connection.call(&["KEYS", "writer:*"]).unwrap().items {
        let value = connection.call(&[b"GET", key.text()]).unwrap();
        strings.push((key.text().to_vec(), value.text().to_vec()));
    }
    assert_eq!(history.check(&strings), Ok(()));
    strings.pop();
    assert!(history.check(&strings).is_err());
}
