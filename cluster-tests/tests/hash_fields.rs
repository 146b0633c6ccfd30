//! Fields of hashes that expire, on real processes: every node of a shard has their times, also one that comes later;
//! only the primary deletes what has expired, and the next one does after a failover.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::interchange::{fields, run, volatile_hashes};
use cluster_tests::processes::Server;
use cluster_tests::resp_client::Connection;
use cluster_tests::waiting::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const NO_FILES: [&str; 6] = ["--save", "", "--appendonly", "no", "--repl-backlog-size", "16kb"];

fn connect(server: &Server) -> Connection {
    Connection::connect_within(&server.addr(), PATIENCE).unwrap()
}

fn call(connection: &mut Connection, line: &str) -> String {
    connection.call(&line.split(' ').collect::<Vec<_>>()).unwrap().to_string()
}

/// Every node comes to hold what the primary holds.
fn all_hold_the_same(cluster: &Cluster, primary: usize) {
    let expected = fields(&mut connect(&cluster.nodes[primary])).unwrap();
    for node in &cluster.nodes {
        let holds_all = || fields(&mut connect(node)).is_ok_and(|found| found == expected);
        assert!(wait_until(PATIENCE, holds_all), "{}", cluster.describe());
    }
}

#[test]
fn every_node_of_a_shard_has_the_times() {
    let mut cluster = Cluster::start(Mode::Replicated, &NO_FILES).unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    let replica = (primary + 1) % cluster.nodes.len();
    let mut connection = connect(&cluster.nodes[primary]);
    run(&mut connection, &volatile_hashes()).unwrap();
    all_hold_the_same(&cluster, primary);
    // It comes back empty, and gets everything in a full sync: the log in memory does not reach back.
    cluster.nodes[replica].kill();
    for i in 0..300 {
        call(
            &mut connection,
            &format!("HSETEX volatile:1500 PX {} FIELDS 1 late:{i} {}", 1_000_000 + i, "x".repeat(1000)),
        );
    }
    cluster.nodes[replica].restart().unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    let log = cluster.nodes[replica].log();
    assert!(log.contains("the full sync is complete"), "{log}");
    all_hold_the_same(&cluster, primary);
    // What expires goes from all of them, and with its last field the hash.
    let mut connection = connect(&cluster.nodes[primary]);
    call(&mut connection, "HSETEX gone PX 50 FIELDS 2 a 1 b 2");
    call(&mut connection, "HPEXPIRE volatile:513 50 FIELDS 2 field:400 field:401");
    for node in &cluster.nodes {
        let mut connection = connect(node);
        let len = call(&mut connect(&cluster.nodes[primary]), "HLEN volatile:513");
        let is_gone = || {
            call(&mut connection, "EXISTS gone").contains('0')
                && call(&mut connection, "HLEN volatile:513").contains("511")
        };
        assert!(wait_until(PATIENCE, is_gone), "{len} {}", cluster.describe());
    }
    // The next primary deletes what expires later.
    call(&mut connection, "HSETEX later PX 3000 FIELDS 2 a 1 b 2");
    call(&mut connection, "WAIT 2 1000");
    cluster.nodes[primary].kill();
    let next = cluster.wait_for_other_primary(primary).unwrap();
    assert!(wait_until(PATIENCE, || cluster.accepts_writes(next)), "{}", cluster.describe());
    let mut connection = connect(&cluster.nodes[next]);
    assert!(wait_until(PATIENCE, || call(&mut connection, "EXISTS later").contains('0')));
    let others = cluster.nodes.iter().enumerate().filter(|(i, _)| *i != primary);
    for (_, node) in others {
        let mut connection = connect(node);
        assert!(wait_until(PATIENCE, || call(&mut connection, "EXISTS later").contains('0')));
        assert!(call(&mut connection, "HPEXPIRETIME volatile:10 FIELDS 1 field:0").contains("9000000000000"));
    }
}
