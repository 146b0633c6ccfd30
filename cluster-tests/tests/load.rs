//! The load generator's own counts, checked against a real Valkey with a replica.

use std::time::Duration;

use cluster_tests::load::{Command, Load, fill};
use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;

#[test]
fn each_set_is_counted_and_each_pipeline_waits_for_a_replica() {
    let Some(dir) = programs::valkey_or_skip("load generator") else { return };
    let primary = Server::valkey(&dir, &[]).unwrap();
    let port = primary.port().to_string();
    let _replica = Server::valkey(&dir, &["--replicaof", "127.0.0.1", &port]).unwrap();
    let mut connection = Connection::connect(&primary.addr()).unwrap();
    assert!(wait_until(Duration::from_secs(30), || {
        connection.call(&["INFO", "replication"]).unwrap().string().contains("state=online")
    }));

    fill(&primary.addr(), 2500, 10).unwrap();
    assert_eq!(connection.call(&["DBSIZE"]).unwrap().integer(), Some(2500));

    let load = Load {
        command: Command::Set,
        connections: 5,
        pipeline: 16,
        requests: 8000,
        value_len: 64,
        keys: 2500,
        wait_for_replicas: Some(1),
    };
    let measured = load.run(&primary.addr()).unwrap();
    assert_eq!((measured.requests, measured.failures, measured.latencies.len()), (8000, 0, 500));
    assert!(measured.latency(0.5) <= measured.latency(0.99));
    assert_eq!(connection.call(&["STRLEN", "key:000000000000"]).unwrap().integer(), Some(64));
}
