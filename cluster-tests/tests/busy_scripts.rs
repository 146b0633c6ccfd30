//! Scripts that do not end, on a real node: its clients are told that it is busy, on the script's own I/O thread and on
//! others, over connections that were there and over new ones, and one of them ends the script or the node.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use cluster_tests::processes::Server;
use cluster_tests::resp_client::Connection;
use cluster_tests::waiting::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const BUSY: &str = "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const KILLED: &str = "ERR Script killed by user with SCRIPT KILL.";
/// Alone the first time, beside others that do not need its key from then on.
const ENDLESS: [&str; 4] = ["EVAL", "redis.call('get', KEYS[1]) while true do end", "1", "a"];
/// Connections that are there: the threads have them in turn.
const CLIENTS: usize = 4;

fn node(io_threads: &str) -> Server {
    Server::keyward(&["--save", "", "--io-threads", io_threads, "--busy-reply-threshold", "100"]).unwrap()
}

fn connect(node: &Server) -> Connection {
    Connection::connect_within(&node.addr(), PATIENCE).unwrap()
}

fn call(connection: &mut Connection, words: &[&str]) -> String {
    connection.call(words).unwrap().string()
}

/// Who has to wait for the script is told so, whoever it is.
fn check_busy(node: &Server, clients: &mut [Connection]) {
    assert!(wait_until(PATIENCE, || call(&mut connect(node), &["GET", "a"]) == BUSY), "it is busy");
    for client in clients {
        assert_eq!(call(client, &["GET", "a"]), BUSY);
    }
    for _ in 0..CLIENTS {
        assert_eq!(call(&mut connect(node), &["GET", "a"]), BUSY);
    }
}

/// Each request on a connection of its own, one after the other; the first of them ends the script.
fn end(node: &Server, words: &[&str]) -> Vec<String> {
    (0..CLIENTS).map(|_| call(&mut connect(node), words)).collect()
}

#[test]
fn an_endless_script_is_ended_by_another_client() {
    for io_threads in ["1", "2"] {
        let node = node(io_threads);
        let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| connect(&node)).collect();
        for client in clients.iter_mut().skip(CLIENTS / 2) {
            client.call(&["HELLO", "3"]).unwrap();
        }
        for before in [&[][..], &["MULTI"]] {
            for version in ["2", "3"] {
                let mut caller = connect(&node);
                caller.call(&["HELLO", version]).unwrap();
                for word in before {
                    caller.call(&[word]).unwrap();
                }
                caller.send(&ENDLESS);
                if !before.is_empty() {
                    assert_eq!(caller.reply().unwrap().string(), "QUEUED");
                    caller.send(&["EXEC"]);
                }
                check_busy(&node, &mut clients);
                let replies = end(&node, &["SCRIPT", "KILL"]);
                assert_eq!(replies[0], "OK", "{replies:?} {version} {before:?} {io_threads}");
                let reply = caller.reply().unwrap();
                let reply = reply.items.first().unwrap_or(&reply).string();
                assert!(reply.starts_with(KILLED), "{reply}");
                for client in &mut clients {
                    assert_eq!(call(client, &["SET", "a", "1"]), "OK");
                }
                assert_eq!(call(&mut caller, &["GET", "a"]), "1");
                assert_eq!(
                    call(&mut caller, &["SCRIPT", "KILL"]),
                    "NOTBUSY No scripts in execution right now."
                );
            }
        }
    }
}

#[test]
fn a_script_that_has_written_ends_with_the_node() {
    for io_threads in ["1", "2"] {
        let mut node = node(io_threads);
        let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| connect(&node)).collect();
        let mut caller = connect(&node);
        caller.send(&["EVAL", "redis.call('set', KEYS[1], 1) while true do end", "1", "a"]);
        check_busy(&node, &mut clients);
        for reply in end(&node, &["SCRIPT", "KILL"]) {
            assert!(reply.starts_with("UNKILLABLE "), "{reply}");
        }
        assert_eq!(call(&mut clients[0], &["SHUTDOWN"]), BUSY);
        clients[1].send(&["SHUTDOWN", "NOSAVE"]);
        assert!(wait_until(PATIENCE, || !node.is_running()), "it ends");
    }
}

#[test]
fn a_client_that_leaves_is_let_go_beside_an_endless_script() {
    let node = node("1");
    let mut caller = connect(&node);
    caller.send(&ENDLESS);
    check_busy(&node, &mut []);
    let mut client = connect(&node);
    assert_eq!(call(&mut client, &["QUIT"]), "OK");
    assert!(client.reply().is_err(), "the connection is closed");
    assert_eq!(call(&mut connect(&node), &["SCRIPT", "KILL"]), "OK");
}
