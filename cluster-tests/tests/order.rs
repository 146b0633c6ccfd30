//! What one client does after a reply finds, on another client's connection, what the reply speaks of: the message
//! before whatever that connection is asked next, and the end of one that was killed. Both are served by different
//! I/O threads.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use cluster_tests::processes::Server;
use cluster_tests::resp_client::{Connection, NoReply};

const ROUNDS: usize = 300;

fn start() -> Server {
    Server::keyward(&["--io-threads", "3", "--notify-keyspace-events", "KEA"]).unwrap()
}

#[test]
fn a_message_is_there_before_the_reply_of_what_published_it() {
    let server = start();
    let connect = || Connection::connect(&server.addr()).unwrap();
    let mut publisher = connect();
    let mut subscribers: Vec<Connection> = (0..3).map(|_| connect()).collect();
    for subscriber in &mut subscribers {
        for (command, channel) in [("SUBSCRIBE", "a"), ("SSUBSCRIBE", "s"), ("SUBSCRIBE", "__keyspace@0__:k")]
        {
            subscriber.call(&[command, channel]).unwrap();
        }
    }
    for round in 0..ROUNDS {
        let number = round.to_string();
        let channel = match round % 4 {
            0 => {
                publisher.call(&["PUBLISH", "a", &number]).unwrap();
                "a"
            }
            1 => {
                publisher.call(&["SPUBLISH", "s", &number]).unwrap();
                "s"
            }
            2 => {
                publisher.call(&["RPUSH", "k", &number]).unwrap();
                "__keyspace@0__:k"
            }
            _ => {
                publisher.call(&["MULTI"]).unwrap();
                publisher.call(&["PUBLISH", "a", &number]).unwrap();
                publisher.call(&["EXEC"]).unwrap();
                "a"
            }
        };
        subscribers.iter_mut().for_each(|subscriber| subscriber.send(&["PING"]));
        for subscriber in &mut subscribers {
            let message = subscriber.reply().unwrap();
            assert_eq!(message.items[1].string(), channel, "round {round}: {message}");
            let pong = subscriber.reply().unwrap();
            assert_eq!(pong.items[0].string(), "pong", "round {round}: {pong}");
        }
    }
}

#[test]
fn a_killed_client_executes_nothing_after_the_reply() {
    let server = start();
    let mut killer = Connection::connect(&server.addr()).unwrap();
    for round in 0..ROUNDS {
        let mut victim = Connection::connect(&server.addr()).unwrap();
        let id = victim.call(&["CLIENT", "ID"]).unwrap().string();
        assert_eq!(killer.call(&["CLIENT", "KILL", "ID", &id]).unwrap().integer(), Some(1));
        victim.send(&["INCR", "executed"]);
        assert_eq!(victim.reply().unwrap_err(), NoReply::Closed, "round {round}");
        assert!(killer.call(&["CLIENT", "LIST", "ID", &id]).unwrap().text().is_empty());
    }
    assert!(killer.call(&["GET", "executed"]).unwrap().is_null());
}

/// Replies are written at the end of a pass over all connections: a connection may end before.
#[test]
fn whoever_leaves_gets_what_it_has_asked_for_before() {
    let server = start();
    let long = "x".repeat(40_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{long}\r\n", long.len());
    let got = format!("+OK\r\n${}\r\n{long}\r\n", long.len());
    let cases = [
        ("PING\r\n".to_owned(), "+PONG\r\n".to_owned()),
        ("PING\r\nQUIT\r\n".to_owned(), "+PONG\r\n+OK\r\n".to_owned()),
        ("PING\r\nCLIENT KILL TYPE normal SKIPME no\r\nPING\r\n".to_owned(), "+PONG\r\n:1\r\n".to_owned()),
        (
            "PING\r\n*x\r\n".to_owned(),
            "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n".to_owned(),
        ),
        (format!("{set}GET k\r\nPING\r\n"), format!("{got}+PONG\r\n")),
        ("SUBSCRIBE a\r\n".to_owned(), "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n".to_owned()),
        ("BLPOP nothing 0\r\n".to_owned(), String::new()),
    ];
    for _ in 0..20 {
        for (sent, expected) in &cases {
            let mut stream = TcpStream::connect(server.addr()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(sent.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut received = String::new();
            stream.read_to_string(&mut received).unwrap();
            assert_eq!(&received, expected, "{:.60}", sent);
        }
    }
}
