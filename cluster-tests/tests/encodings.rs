//! Up to which size a collection is compact is the user's choice (`hash-max-listpack-entries` and its like): it holds
//! on whatever way a value comes into a node, not only where a client writes it. On real processes: a start from the
//! write log and from an RDB file, the log and a full sync on replicas, CONFIG SET while they run.
#![allow(clippy::unwrap_used, reason = "a test")]

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::Server;
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;

const FOUR: [&str; 10] = [
    "--hash-max-listpack-entries",
    "4",
    "--list-max-listpack-size",
    "4",
    "--set-max-intset-entries",
    "4",
    "--set-max-listpack-entries",
    "4",
    "--zset-max-listpack-entries",
    "4",
];

/// Keys with three elements, and with five.
const KEYS: [&str; 10] = ["h3", "h5", "l3", "l5", "i3", "i5", "s3", "s5", "z3", "z5"];
const BY_FOUR: [&str; 10] = [
    "listpack",
    "hashtable",
    "listpack",
    "quicklist",
    "intset",
    "hashtable",
    "listpack",
    "hashtable",
    "listpack",
    "skiplist",
];

fn call(node: &Server, words: &[impl AsRef<[u8]>]) -> String {
    let reply = Connection::connect(&node.addr()).unwrap().call(words).unwrap();
    assert!(!reply.is_error(), "{}", reply.string());
    reply.string()
}

/// Writes the keys, with this prefix.
fn write(node: &Server, prefix: &str) {
    let put = |key: &str, command: &str, element: fn(usize) -> Vec<String>| {
        let len = key[1..].parse().unwrap();
        // One by one: the form changes on the way.
        for at in 0..len {
            let words = [vec![command.to_owned(), format!("{prefix}{key}")], element(at)].concat();
            call(node, &words);
        }
    };
    for key in KEYS {
        match &key[..1] {
            "h" => put(key, "HSET", |at| vec![format!("f{at}"), "v".to_owned()]),
            "l" => put(key, "RPUSH", |at| vec![format!("e{at}")]),
            "i" => put(key, "SADD", |at| vec![at.to_string()]),
            "s" => put(key, "SADD", |at| vec![format!("m{at}")]),
            _ => put(key, "ZADD", |at| vec![at.to_string(), format!("m{at}")]),
        }
    }
    // Whoever has this has what is before it in the log.
    call(node, &["SET", &format!("{prefix}end"), "v"]);
}

fn encodings(node: &Server, prefix: &str) -> Vec<String> {
    KEYS.map(|key| call(node, &["OBJECT", "ENCODING", &format!("{prefix}{key}")])).to_vec()
}

fn restarts_with_the_same(directives: &[&str], before_the_end: &[&str]) {
    let mut node = Server::keyward(&[&FOUR, directives].concat()).unwrap();
    write(&node, "");
    assert_eq!(encodings(&node, ""), BY_FOUR);
    if !before_the_end.is_empty() {
        call(&node, before_the_end);
    }
    node.restart().unwrap();
    node.wait_until_answering().unwrap();
    assert_eq!(encodings(&node, ""), BY_FOUR);
}

#[test]
fn a_start_from_the_write_log_leaves_them() {
    restarts_with_the_same(&["--appendonly", "yes", "--appendfsync", "always"], &[]);
}

#[test]
fn a_start_from_an_rdb_file_leaves_them() {
    restarts_with_the_same(&[], &["SAVE"]);
}

#[test]
fn a_replica_has_those_of_its_settings() {
    let args = [&FOUR, ["--save", "", "--appendonly", "no"].as_slice()].concat();
    let mut cluster = Cluster::start(Mode::Replicated, &args).unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    let replica = (primary + 1) % cluster.nodes.len();
    write(&cluster.nodes[primary], "a");
    cluster.wait_until_converged().unwrap();
    assert_eq!(encodings(&cluster.nodes[replica], "a"), BY_FOUR, "through the log");

    call(&cluster.nodes[replica], &["CONFIG", "SET", "hash-max-listpack-entries", "2"]);
    write(&cluster.nodes[primary], "b");
    cluster.wait_until_converged().unwrap();
    let mut changed = BY_FOUR.map(str::to_owned);
    changed[0] = "hashtable".into();
    assert_eq!(encodings(&cluster.nodes[replica], "b"), changed, "after CONFIG SET");

    // It has written nothing to disk, so it begins with nothing.
    cluster.nodes[replica].restart().unwrap();
    cluster.nodes[replica].wait_until_answering().unwrap();
    cluster.wait_until_whole().unwrap();
    cluster.wait_until_converged().unwrap();
    for prefix in ["a", "b"] {
        assert_eq!(encodings(&cluster.nodes[replica], prefix), BY_FOUR, "through a full sync");
    }
}

/// DEBUG DIGEST, by which tests and tools compare keyspaces.
#[test]
fn digests_are_those_of_valkey() {
    let Some(dir) = programs::valkey_or_skip("digests") else { return };
    let allowed = ["--enable-debug-command", "yes"];
    let servers = [Server::keyward(&allowed).unwrap(), Server::valkey(&dir, &allowed).unwrap()];
    let mut clients = servers.each_ref().map(|server| Connection::connect(&server.addr()).unwrap());
    let mut both = |words: &[String]| {
        let [ours, theirs] = clients.each_mut().map(|client| client.call(words).unwrap().to_string());
        assert_eq!(ours, theirs, "{words:?}");
        ours
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let many = |head: &str, each: &dyn Fn(usize) -> String| {
        words(&(0..300).fold(head.to_owned(), |text, n| format!("{text} {}", each(n))))
    };
    assert!(both(&words("DEBUG DIGEST")).contains(&"0".repeat(40)));
    let requests = [
        words("SET string value"),
        words("SET number 12"),
        words("SET expires x EX 1000"),
        many("RPUSH list", &|n| n.to_string()),
        words("SADD numbers 1 2 3"),
        many("SADD members", &|n| format!("m{n}")),
        many("ZADD scores", &|n| format!("{} m{n}", n as f64 / 3.0)),
        words("ZADD limits inf a -inf b 1e300 c -0.0 d 0.1 e"),
        many("HSET hash", &|n| format!("f{n} {n}")),
        words("HSET small a 1 b 2"),
        words("HPEXPIRE small 1000000 FIELDS 1 a"),
        words("XADD stream 1-1 a b c d"),
        words("XADD stream 2-5 a z"),
        words("XGROUP CREATE stream group 0"),
        words("SETBIT bits 77 1"),
        words("PFADD visitors a b c"),
        words("SELECT 3"),
        words("SET other 1"),
        words("SELECT 0"),
    ];
    for request in requests {
        both(&request);
        both(&words("DEBUG DIGEST"));
    }
    both(&words(
        "DEBUG DIGEST-VALUE string number expires list numbers members scores limits hash small stream nothing",
    ));
    both(&words("DEBUG DIGEST-VALUE"));
}
