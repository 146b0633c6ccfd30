//! What replies, messages and effects take while they are made and while they wait, beside the real Valkey: each
//! request here asks for much more than it is long itself.
//!
//! The figures that are compared are peaks of the resident set; the bounds leave room for pages, threads and chunks, and
//! are far below what a reply takes that is built as a whole.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::{Connection, Frame, NoReply, encode};

const DEADLINE: Duration = Duration::from_secs(30);
const MEGABYTE: u64 = 1 << 20;
/// By which our peak may exceed twice Valkey's.
const SLACK: u64 = 48 * MEGABYTE;

/// Keyward and Valkey with the same arguments, each with what its process had taken at most before the measurement.
struct Measured {
    server: Server,
    peak_before: u64,
}

fn start(extra: &[&str]) -> Option<[Measured; 2]> {
    let valkey = programs::valkey_or_skip("memory of replies")?;
    let measured = |server: Server| Measured { peak_before: peak(&server), server };
    Some([Server::keyward(extra).unwrap(), Server::valkey(&valkey, extra).unwrap()].map(measured))
}

fn peak(server: &Server) -> u64 {
    let path: PathBuf = ["/proc", &server.pid().to_string(), "status"].iter().collect();
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

impl Measured {
    fn connect(&self) -> Connection {
        Connection::connect(&self.server.addr()).unwrap()
    }

    fn call(&self, command: &[&str]) -> Frame {
        self.connect().call(command).unwrap()
    }

    fn begin(&mut self) {
        self.peak_before = peak(&self.server);
    }

    fn grown(&self) -> u64 {
        peak(&self.server) - self.peak_before
    }

    fn info(&self, field: &str) -> u64 {
        let info = self.call(&["INFO", "everything"]).string();
        info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok()).unwrap()
    }

    fn used(&self) -> u64 {
        self.info("used_memory")
    }

    fn closed_readers(&self) -> u64 {
        self.info("client_output_buffer_limit_disconnections")
    }
}

#[track_caller]
fn assert_about_as_little(what: &str, [ours, theirs]: &[Measured; 2]) {
    let (ours, theirs) = (ours.grown(), theirs.grown());
    assert!(ours <= 2 * theirs + SLACK, "{what}: Keyward {ours} bytes, Valkey {theirs}");
}

/// Collections of some 4 MB each, and as much in names of keys.
fn fill(server: &Measured) {
    let long = "x".repeat(1000);
    let mut connection = server.connect();
    let mut bytes = Vec::new();
    encode(&["SET", "string", &"v".repeat(100_000)], &mut bytes);
    encode(&["HSET", "one", "field", &"v".repeat(10_000)], &mut bytes);
    encode(&["SADD", "member", &"m".repeat(10_000)], &mut bytes);
    encode(&["ZADD", "scored", "1", &"m".repeat(10_000)], &mut bytes);
    for i in 0..4000 {
        encode(&["RPUSH", "list", &long], &mut bytes);
        encode(&["HSET", "hash", &i.to_string(), &long], &mut bytes);
        encode(&["SADD", "set", &format!("{i}{long}")], &mut bytes);
        encode(&["ZADD", "zset", &i.to_string(), &format!("{i}{long}")], &mut bytes);
        encode(&["SET", &format!("key:{i}{long}"), ""], &mut bytes);
    }
    connection.send_raw(&bytes);
    (0..20_004).for_each(|_| assert!(!connection.reply().unwrap().is_error()));
}

fn request(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
    bytes
}

#[test]
fn what_exceeds_the_limit_is_cut_off_while_it_is_made() {
    let Some(mut servers) = start(&["--client-output-buffer-limit", "normal 1mb 0 0"]) else { return };
    let mut requests: Vec<(String, Vec<u8>)> = [
        "LRANGE list 0 -1",
        "HGETALL hash",
        "HVALS hash",
        "SMEMBERS set",
        "SUNION set set",
        "ZRANGE zset 0 -1 WITHSCORES",
        "HRANDFIELD one -100000 WITHVALUES",
        "SRANDMEMBER member -100000",
        "ZRANDMEMBER scored -100000",
        "HSCAN hash 0 COUNT 1000000",
        "SSCAN set 0 COUNT 1000000",
        "ZSCAN zset 0 COUNT 1000000",
        "KEYS *",
        "SCAN 0 COUNT 1000000",
    ]
    .map(|line| (line.to_owned(), request(line)))
    .into();
    requests.push(("MGET".into(), request(&format!("MGET{}", " string".repeat(2700)))));
    let transaction = [request("MULTI"), request("LRANGE list 0 -1").repeat(60), request("EXEC")];
    requests.push(("EXEC".into(), transaction.concat()));
    servers.iter().for_each(fill);
    servers.iter_mut().for_each(Measured::begin);
    for (number, (name, bytes)) in (1..).zip(&requests) {
        for server in &servers {
            let mut connection = server.connect();
            connection.send_raw(bytes);
            let end = loop {
                if let Err(end) = connection.reply() {
                    break end;
                }
            };
            assert_eq!(end, NoReply::Closed, "{name}");
            assert_eq!(server.closed_readers(), number, "{name}");
        }
    }
    assert_about_as_little("a limit of 1 MB", &servers);
}

#[test]
fn who_does_not_read_a_pipeline_of_large_values_costs_little() {
    const REPLIES: usize = 100;
    let Some(mut servers) = start(&[]) else { return };
    let value = "v".repeat(3 << 20);
    for server in &mut servers {
        server.call(&["SET", "k", &value]);
        server.begin();
        let used = server.used();
        let mut reader = server.connect();
        let id = reader.call(&["CLIENT", "ID"]).unwrap().string();
        reader.send_raw(&request("GET k").repeat(REPLIES));
        let has_output = || {
            let line = server.call(&["CLIENT", "LIST", "ID", &id]).string();
            !(line.contains(" obl=0 ") && line.contains(" omem=0 "))
        };
        assert!(wait_until(DEADLINE, has_output));
        assert!(server.grown() < SLACK, "{} bytes", server.grown());
        assert!((0..REPLIES).all(|_| reader.reply().unwrap().text() == value.as_bytes()));
        assert!(server.grown() < SLACK, "{} bytes", server.grown());
        assert!(wait_until(DEADLINE, || server.used() < used + 4 * MEGABYTE), "{}", server.used());
    }
}

#[test]
fn a_stranger_who_does_not_read_is_closed() {
    let Some(servers) = start(&[]) else { return };
    for server in &servers {
        server.call(&["CONFIG", "SET", "requirepass", "secret"]);
        let known = || {
            let mut connection = server.connect();
            connection.call(&["AUTH", "secret"]).unwrap();
            let info = connection.call(&["INFO", "stats"]).unwrap().string();
            info.contains("client_output_buffer_limit_disconnections:1\r\n")
        };
        let pings = request("PING").repeat(10_000);
        let mut stranger = server.connect();
        assert!(wait_until(DEADLINE, || {
            stranger.send_raw(&pings);
            known()
        }));
    }
    assert_about_as_little("a stranger", &servers);
}

#[test]
fn subscribers_share_a_message() {
    const SUBSCRIBERS: usize = 50;
    const MESSAGES: usize = 10;
    let Some(mut servers) = start(&[]) else { return };
    let message = "m".repeat(1 << 20);
    for server in &mut servers {
        let mut subscribers: Vec<Connection> = (0..SUBSCRIBERS).map(|_| server.connect()).collect();
        for subscriber in &mut subscribers {
            subscriber.call(&["SUBSCRIBE", "a"]).unwrap();
        }
        server.begin();
        for _ in 0..MESSAGES {
            assert_eq!(server.call(&["PUBLISH", "a", &message]).integer(), Some(SUBSCRIBERS as i64));
        }
        for subscriber in &mut subscribers {
            for _ in 0..MESSAGES {
                assert_eq!(subscriber.reply().unwrap().items[2].text(), message.as_bytes());
            }
        }
    }
    assert_about_as_little("messages", &servers);
}

#[test]
fn what_is_only_announced_takes_nothing() {
    const CLIENTS: usize = 4;
    let server = Server::keyward(&[]).unwrap();
    let server = Measured { peak_before: 0, server };
    let used = server.used();
    let begin = b"*2\r\n$4\r\nECHO\r\n$400000000\r\nfirst";
    let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send_raw(begin));
    let arrived = format!(" qbuf={} ", begin.len());
    let waiting = || server.call(&["CLIENT", "LIST"]).string().matches(&arrived).count();
    assert!(wait_until(DEADLINE, || waiting() == clients.len()));
    assert!(server.used() < used + 4 * MEGABYTE, "{}", server.used());
}

#[test]
fn copies_in_a_transaction_take_the_last_ones_memory() {
    const COPIES: usize = 30;
    for target in ["{a}copy", "b"] {
        let Some(mut servers) = start(&["--appendonly", "yes"]) else { return };
        for server in &mut servers {
            let mut push = vec!["RPUSH", "{a}list"];
            let element = "e".repeat(100);
            push.extend(std::iter::repeat_n(&*element, 1000));
            (0..100).for_each(|_| assert!(!server.call(&push).is_error()));
            server.begin();
            let copies = request(&format!("COPY {{a}}list {target} REPLACE")).repeat(COPIES);
            let mut connection = Connection::connect_within(&server.server.addr(), DEADLINE).unwrap();
            connection.send_raw(&[request("MULTI"), copies, request("EXEC")].concat());
            (0..=COPIES).for_each(|_| assert!(!connection.reply().unwrap().is_error()));
            let replies = connection.reply().unwrap();
            assert!(replies.items.iter().all(|reply| reply.integer() == Some(1)), "{replies}");
            assert_eq!(server.call(&["LLEN", target]).integer(), Some(100_000));
        }
        assert_about_as_little(target, &servers);
    }
}

#[test]
fn what_a_client_has_sent_is_executed_although_it_reads_nothing() {
    let server = Server::keyward(&[]).unwrap();
    let server = Measured { peak_before: 0, server };
    server.call(&["SET", "k", &"v".repeat(3 << 20)]);
    // It leaves, or goes on sending: both before it has read anything.
    let mut leaves = server.connect();
    leaves.send_raw(&[request("GET k").repeat(30), request("INCR left")].concat());
    let waits = || server.call(&["CLIENT", "LIST"]).string().contains(" cmd=get ");
    assert!(wait_until(DEADLINE, waits));
    drop(leaves);
    assert!(wait_until(DEADLINE, || server.call(&["GET", "left"]).integer() == Some(1)));
    let mut sends = server.connect();
    sends.send_raw(&request("GET k").repeat(3));
    let values = request(&format!("ECHO {}", "e".repeat(1 << 20)));
    (0..40).for_each(|_| sends.send_raw(&values));
    sends.send_raw(&request("INCR sent"));
    assert!((0..43).all(|_| 1 << 20 <= sends.reply().unwrap().text().len()));
    assert_eq!(sends.reply().unwrap().integer(), Some(1));
}
