//! What one client does after a reply finds, on another client's connection, what the reply speaks of: the message
//! before whatever that connection is asked next, and the end of one that was killed. Both are served by different
//! I/O threads.
#![allow(clippy::unwrap_used, reason = "a test")]

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
