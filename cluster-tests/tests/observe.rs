//! Who looks on sees the same as at the real Valkey: monitors, clients that keep values themselves, the slow log. And
//! DEBUG RELOAD gives back what there was.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::Server;
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::waiting::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

fn connect(server: &Server) -> Connection {
    Connection::connect_within(&server.addr(), PATIENCE).unwrap()
}

fn call(connection: &mut Connection, line: &str) -> String {
    connection.call(&line.split(' ').collect::<Vec<_>>()).unwrap().to_string()
}

/// Both servers, if the real one is there.
fn both(what: &str) -> Option<[Server; 2]> {
    let dir = programs::valkey_or_skip(what)?;
    let options = ["--enable-debug-command", "yes"];
    Some([Server::keyward(&options).unwrap(), Server::valkey(&dir, &options).unwrap()])
}

/// What a monitor is shown of these requests, without times and addresses.
fn shown(server: &Server, requests: &[&str]) -> Vec<String> {
    let (mut monitor, mut client) = (connect(server), connect(server));
    assert_eq!(call(&mut monitor, "MONITOR"), "+OK\\r\\n");
    for request in requests {
        call(&mut client, request);
    }
    call(&mut client, "ECHO the-end");
    let mut lines = Vec::new();
    loop {
        let line = monitor.reply().unwrap().string();
        let (_, rest) = line.split_once(' ').unwrap();
        let (origin, command) = rest.split_once("] ").unwrap();
        let origin = if origin.ends_with(" lua") { origin } else { &origin[..origin.find(' ').unwrap()] };
        if command.contains("the-end") {
            return lines;
        }
        lines.push(format!("{origin}] {command}"));
    }
}

#[test]
fn a_monitor_is_shown_what_valkeys_is() {
    let Some([ours, theirs]) = both("MONITOR") else { return };
    let requests = [
        "SET k v",
        "set quote\"d\\ \u{7}\r\u{e9} x",
        "GET",
        "nosuch a",
        "LPUSH k x",
        "SELECT 3",
        "MULTI",
        "GET k",
        "SELECT 1",
        "SET k 1",
        "EXEC",
        "EXEC",
        "EVAL redis.call('SELECT',2)return(redis.call('GET','k')) 0",
        "EVAL return(redis.call('nosuch')) 0",
        "EVALSHA ff 0",
        "EVAL_RO return(1) x",
        "MULTI",
        "EVAL return(redis.call('GET','k')) 1 k",
        "EXEC",
        "AUTH secret",
        "HELLO 3 AUTH default secret SETNAME me",
        "HELLO 2",
        "CONFIG SET requirepass secret2",
        "CONFIG SET requirepass ",
        "CONFIG GET save",
        "CLIENT SETNAME me",
        "CLIENT LIST",
        "SLOWLOG LEN",
        "DEBUG SLEEP 0",
        "BLPOP nosuch 0.01",
        "WAIT 0 0",
        "COMMAND COUNT",
        "OBJECT HELP",
        "SUBSCRIBE a",
        "UNSUBSCRIBE a",
        "RESET",
    ];
    let (mine, real) = (shown(&ours, &requests), shown(&theirs, &requests));
    assert!(20 < real.len(), "{real:?}");
    assert_eq!(mine, real);
}

/// Who reads, in which protocol and mode, and what the other one does then.
const TRACKED: &[(&str, &str, &[&str])] = &[
    ("HELLO 3", "", &["SET k 1", "SET k 2", "DEL k", "FLUSHALL"]),
    ("HELLO 3", "", &["MULTI", "SET k 1", "DEL k", "SET x 1", "EXEC"]),
    ("HELLO 3", "", &["EVAL redis.call('SET','k',1)redis.call('SET','x',1) 2 k x"]),
    ("HELLO 3", "", &["RENAME k k2", "MOVE x 3", "LPUSH k a", "PEXPIRE k 100000", "PERSIST k"]),
    ("HELLO 3", "", &["SWAPDB 0 1", "SELECT 1", "SET k 1", "FLUSHDB"]),
    ("HELLO 3", "NOLOOP", &["SET k 1"]),
    ("HELLO 3", "OPTIN", &["SET k 1", "SET x 1"]),
    ("HELLO 3", "OPTOUT", &["SET k 1", "SET x 1"]),
    ("HELLO 3", "BCAST", &["SET a 1", "MSET b 1 c 2", "SET k 1", "FLUSHALL"]),
    ("HELLO 3", "BCAST PREFIX k PREFIX y", &["SET a 1", "SET k1 1", "SET y 1", "FLUSHDB"]),
    ("HELLO 2", "", &["SET k 1", "FLUSHALL"]),
];

/// What a reader receives, each push with all of its bytes.
fn heard(server: &Server, (protocol, options, changes): (&str, &str, &[&str])) -> Vec<String> {
    let (mut reader, mut writer) = (connect(server), connect(server));
    call(&mut writer, "FLUSHALL");
    call(&mut writer, "MSET k 0 x 0");
    call(&mut reader, protocol);
    let mut received = Vec::new();
    for request in
        [format!("CLIENT TRACKING ON {options}").trim(), "CLIENT TRACKINGINFO", "MGET k x", "SET own 1"]
    {
        received.push(call(&mut reader, request));
    }
    call(&mut reader, "CLIENT CACHING YES");
    call(&mut reader, "CLIENT CACHING NO");
    call(&mut reader, "GET k");
    for change in changes {
        call(&mut writer, change);
        received.push((*change).to_owned());
        // What has come with or before this reply was told of the change.
        call(&mut reader, "PING");
        received.extend(reader.pushes.drain(..).map(|push| push.to_string()));
    }
    received
}

#[test]
fn who_keeps_values_hears_what_valkeys_clients_hear() {
    let Some([ours, theirs]) = both("CLIENT TRACKING") else { return };
    for scene in TRACKED {
        let (mine, real) = (heard(&ours, *scene), heard(&theirs, *scene));
        assert_eq!(mine, real, "{scene:?}");
    }
}

#[test]
fn another_client_hears_what_valkeys_does() {
    let Some([ours, theirs]) = both("CLIENT TRACKING REDIRECT") else { return };
    let heard = |server: &Server| {
        let (mut reader, mut writer) = (connect(server), connect(server));
        let mut told = connect(server).as_subscriber();
        let id = told.call(&["CLIENT", "ID"]).unwrap().integer().unwrap();
        told.send(&["SUBSCRIBE", "__redis__:invalidate"]);
        told.read_pushes(1).unwrap();
        call(&mut reader, &format!("CLIENT TRACKING ON REDIRECT {id}"));
        for request in ["SET k 1", "FLUSHALL"] {
            call(&mut reader, "GET k");
            call(&mut writer, request);
        }
        told.read_pushes(3).unwrap();
        let pushes: Vec<String> = told.pushes.iter().map(ToString::to_string).collect();
        drop(told);
        call(&mut reader, "HELLO 3");
        let broken = || {
            call(&mut reader, "GET k");
            call(&mut writer, "SET k 1");
            call(&mut reader, "CLIENT TRACKINGINFO").contains("broken_redirect")
        };
        assert!(wait_until(PATIENCE, broken));
        (pushes, reader.pushes.back().unwrap().string())
    };
    assert_eq!(heard(&ours), heard(&theirs));
}

/// A replica's clients hear of what it applies.
#[test]
fn clients_of_replicas_hear_of_changes() {
    let mut cluster = Cluster::start(Mode::Replicated, &["--save", ""]).unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    let mut writer = connect(&cluster.nodes[primary]);
    for node in (0..cluster.nodes.len()).filter(|node| *node != primary) {
        let mut reader = connect(&cluster.nodes[node]);
        call(&mut reader, "HELLO 3");
        call(&mut reader, "CLIENT TRACKING ON");
        call(&mut reader, "GET k");
        call(&mut writer, "APPEND k 1");
        reader.read_pushes(1).unwrap();
        let push = reader.pushes.pop_front().unwrap().to_string();
        assert_eq!(push, ">2\\r\\n$10\\r\\ninvalidate\\r\\n*1\\r\\n$1\\r\\nk\\r\\n");
    }
}

#[test]
fn the_slow_log_has_what_valkeys_has() {
    let Some([ours, theirs]) = both("SLOWLOG") else { return };
    let noted = |server: &Server| {
        let mut client = connect(server);
        for request in [
            "CONFIG SET slowlog-log-slower-than 0",
            "SLOWLOG RESET",
            "SET k v",
            "GET",
            "LPUSH k x",
            "MULTI",
            "GET k",
            "SET k 1",
            "EXEC",
            "EVAL redis.call('GET','k')return(redis.call('PING')) 0",
            "HELLO 2 AUTH default secret",
            "CONFIG SET requirepass  slowlog-log-slower-than -1",
            "PING",
        ] {
            call(&mut client, request);
        }
        let entries = client.call(&["SLOWLOG", "GET", "-1"]).unwrap();
        entries.items.iter().map(|entry| entry.items[3].to_string()).collect::<Vec<_>>()
    };
    let (mine, real) = (noted(&ours), noted(&theirs));
    assert!(8 < real.len(), "{real:?}");
    assert_eq!(mine, real);
}

#[test]
fn a_reload_gives_back_what_there_was() {
    let server = Server::keyward(&["--enable-debug-command", "yes", "--appendonly", "yes"]).unwrap();
    let mut client = connect(&server);
    for request in [
        "SET k v",
        "SET e v PX 10000000",
        "RPUSH l a b",
        "HSET h f v",
        "XADD x 1-1 f v",
        "SELECT 3",
        "SET o 1",
    ] {
        call(&mut client, request);
    }
    client.fill(1000, |i| vec!["SET".to_owned(), format!("key:{i}"), i.to_string()]).unwrap();
    let before = call(&mut client, "DEBUG DIGEST");
    assert_eq!(call(&mut client, "DEBUG RELOAD"), "+OK\\r\\n");
    assert_eq!(call(&mut client, "DEBUG DIGEST"), before);
    assert_eq!(call(&mut client, "SET after 1"), "+OK\\r\\n");
    let after = call(&mut client, "DEBUG DIGEST");
    // The log goes on where it was.
    drop(client);
    let mut server = server;
    server.terminate();
    server.restart().unwrap();
    server.wait_until_answering().unwrap();
    assert_eq!(call(&mut connect(&server), "DEBUG DIGEST"), after);
}

#[test]
fn a_file_is_merged() {
    let server = Server::keyward(&["--enable-debug-command", "yes", "--save", ""]).unwrap();
    let mut client = connect(&server);
    for request in ["SET old 1", "SET both saved", "SAVE", "SET both changed", "SET new 1", "DEL old"] {
        call(&mut client, request);
    }
    assert!(call(&mut client, "DEBUG RELOAD NOSAVE NOFLUSH").contains("a key is there twice"));
    assert_eq!(call(&mut client, "DEBUG RELOAD NOSAVE NOFLUSH MERGE"), "+OK\\r\\n");
    let values = call(&mut client, "MGET old both new");
    assert_eq!(values, "*3\\r\\n$1\\r\\n1\\r\\n$5\\r\\nsaved\\r\\n$1\\r\\n1\\r\\n");
    assert_eq!(call(&mut client, "DEBUG RELOAD NOSAVE"), "+OK\\r\\n");
    assert_eq!(call(&mut client, "DBSIZE"), ":2\\r\\n");
}
