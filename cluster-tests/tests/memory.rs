//! Memory limits on real processes: the allocator that counts is only there.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::load::{self, Load};
use cluster_tests::processes::{Server, wait_until};
use cluster_tests::resp_client::{Connection, Frame};

const DEADLINE: Duration = Duration::from_secs(30);
const MAXMEMORY: u64 = 24 << 20;

fn call(server: &Server, command: &[&str]) -> Frame {
    Connection::connect(&server.addr()).unwrap().call(command).unwrap()
}

fn info(server: &Server, section: &str, field: &str) -> u64 {
    let info = call(server, &["INFO", section]).string();
    info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok()).unwrap()
}

/// Sets some 60 MB of strings, more than there is room for.
fn overfill(server: &Server) {
    let load = Load {
        command: load::Command::Set,
        connections: 8,
        pipeline: 16,
        requests: 200_000,
        value_len: 300,
        keys: 1_000_000,
        wait_for_replicas: None,
    };
    let measured = load.run(&server.addr()).unwrap();
    assert_eq!(measured.failures, 0);
}

#[test]
fn used_memory_stays_within_the_limit() {
    let maxmemory = MAXMEMORY.to_string();
    let server = Server::keyward(&["--maxmemory", &maxmemory, "--io-threads", "2"]).unwrap();
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        call(&server, &["CONFIG", "SET", "maxmemory-policy", policy]);
        overfill(&server);
        let used = info(&server, "memory", "used_memory");
        // Some thousandths for what two threads have not added yet.
        assert!((MAXMEMORY * 9 / 10..MAXMEMORY * 102 / 100).contains(&used), "{policy}: {used}");
    }
    assert!(info(&server, "memory", "used_memory_peak") < MAXMEMORY * 105 / 100);
    assert!(0 < info(&server, "stats", "evicted_keys"));
    // Without an expiry nothing may be evicted, and a lower limit cannot be kept.
    call(&server, &["CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory", "10mb"]);
    assert!(call(&server, &["SET", "k", "v"]).string().starts_with("OOM "));
    assert!(!call(&server, &["GET", "k"]).is_error());
    // Now it can, without a command that needs memory.
    call(&server, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(wait_until(DEADLINE, || info(&server, "memory", "used_memory") < 10_700_000));
    assert!(!call(&server, &["SET", "k", "v"]).is_error());
}

#[test]
fn a_large_value_makes_room_though_it_is_freed_later() {
    let server = Server::keyward(&["--maxmemory-policy", "allkeys-lru"]).unwrap();
    let mut connection = Connection::connect(&server.addr()).unwrap();
    for member in 0..200_000 {
        connection.send(&["SADD", "large", &format!("member:{member:020}")]);
    }
    (0..200_000).for_each(|_| assert!(!connection.reply().unwrap().is_error()));
    for key in 0..100 {
        call(&server, &["SET", &format!("small:{key}"), "v"]);
    }
    // The large one has not been used for longer than the small ones: the clock has seconds.
    assert!(wait_until(DEADLINE, || call(&server, &["OBJECT", "IDLETIME", "large"]).integer() >= Some(2)));
    for key in 0..100 {
        call(&server, &["GET", &format!("small:{key}")]);
    }
    call(&server, &["CONFIG", "SET", "maxmemory-samples", "64", "maxmemory", "8mb"]);
    assert!(wait_until(DEADLINE, || info(&server, "memory", "used_memory") < 8_500_000));
    assert!(wait_until(DEADLINE, || info(&server, "memory", "lazyfreed_objects") == 1));
    assert_eq!(info(&server, "memory", "lazyfree_pending_objects"), 0);
    assert_eq!(call(&server, &["EXISTS", "large"]).integer(), Some(0));
    // Hardly anything else had to go: a draw may miss the large one, but not often.
    assert!(Some(80) < call(&server, &["DBSIZE"]).integer());
}

#[test]
fn clients_that_take_too_much_are_closed() {
    let server = Server::keyward(&["--maxmemory-clients", "2mb"]).unwrap();
    let mut greedy = Connection::connect(&server.addr()).unwrap();
    greedy.send_raw(b"*2\r\n$4\r\nECHO\r\n$100000000\r\n");
    greedy.send_raw(&vec![b'x'; 4 << 20]);
    assert!(wait_until(DEADLINE, || info(&server, "stats", "evicted_clients") == 1));
    assert!(greedy.reply().is_err());
}

#[test]
fn replicas_evict_what_their_primary_evicts() {
    let maxmemory = MAXMEMORY.to_string();
    let args = ["--maxmemory", &maxmemory, "--maxmemory-policy", "allkeys-lru"];
    let mut cluster = Cluster::start(Mode::Replicated, &args).unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    overfill(&cluster.nodes[primary]);
    assert!(0 < info(&cluster.nodes[primary], "stats", "evicted_keys"));
    cluster.wait_until_converged().unwrap();
    let sizes: Vec<_> = cluster.nodes.iter().map(|node| call(node, &["DBSIZE"]).integer()).collect();
    assert!(sizes.iter().all(|size| *size == sizes[primary]), "{sizes:?}");
    let replicas = || cluster.nodes.iter().enumerate().filter(|(i, _)| *i != primary).map(|(_, node)| node);
    assert!(replicas().all(|node| info(node, "stats", "evicted_keys") == 0));
}
