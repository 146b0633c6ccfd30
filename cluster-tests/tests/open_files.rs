//! The limit of open files: a node raises it as far as it may, and serves no more clients than it allows; administrators
//! get in all the same.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::Duration;

use cluster_tests::processes::{Server, free_port, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;

/// A node alone that a shell starts with this limit.
fn start(limit: &str) -> Server {
    let node = programs::keyward("keyward-node").unwrap().display().to_string();
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    let args = |port: u16, dir: &Path| {
        let own = ["-c", &script, &node, "--save", "", "--appendonly", "no", "--port", &port.to_string()];
        let dir = ["--dir".to_owned(), dir.display().to_string()];
        own.map(str::to_owned).into_iter().chain(dir).collect()
    };
    Server::start(Path::new("/bin/sh"), args).unwrap()
}

fn maxclients(connection: &mut Connection) -> usize {
    let reply = connection.call(&["CONFIG", "GET", "maxclients"]).unwrap();
    reply.items[1].string().parse().unwrap()
}

#[test]
fn a_low_limit_is_raised() {
    let node = start("-S -n 128");
    let mut clients: Vec<Connection> = (0..300).map(|_| Connection::connect(&node.addr()).unwrap()).collect();
    assert!(clients.iter_mut().all(|client| client.call(&["PING"]).unwrap().string() == "PONG"));
    assert_eq!(maxclients(&mut clients[0]), 10_000);
}

#[test]
fn what_cannot_be_raised_bounds_the_clients() {
    let node = start("-n 256");
    let mut client = Connection::connect(&node.addr()).unwrap();
    let most = maxclients(&mut client);
    if most == 10_000 {
        // A privileged process raises the upper bound as well.
        return;
    }
    assert_eq!(most, 160);
    let refused = client.call(&["CONFIG", "SET", "maxclients", "161"]).unwrap().string();
    assert!(refused.ends_with("number of clients, try with 160"), "{refused}");
    assert_eq!(client.call(&["CONFIG", "SET", "maxclients", "100"]).unwrap().string(), "OK");
    assert_eq!(client.call(&["CONFIG", "SET", "maxclients", "160"]).unwrap().string(), "OK");
}

#[test]
fn administrators_get_in_however_many_clients_there_are() {
    let port = free_port();
    let node = Server::keyward(&["--admin-port", &port.to_string(), "--maxclients", "20"]).unwrap();
    let admin = format!("127.0.0.1:{port}");
    let connect = |address: &str| Connection::connect(address).unwrap();
    let mut clients = Vec::new();
    let is_full = || {
        let mut client = connect(&node.addr());
        let answer = client.call(&["PING"]).map(|reply| reply.string());
        clients.push(client);
        answer.is_ok_and(|words| words.contains("max number of clients reached"))
    };
    assert!(wait_until(Duration::from_secs(30), is_full));
    // Also if somebody holds all places of theirs: the oldest go.
    let mut silent: Vec<Connection> = (0..40).map(|_| connect(&admin)).collect();
    let mut administrator = connect(&admin);
    assert_eq!(administrator.call(&["PING"]).unwrap().string(), "PONG");
    let shown = administrator.call(&["INFO", "clients"]).unwrap().string();
    let connected =
        shown.lines().find_map(|line| line.strip_prefix("connected_clients:")).unwrap().to_owned();
    assert!(connected.parse::<usize>().unwrap() <= 20 + 16, "{connected}");
    assert!(silent[0].call(&["PING"]).is_err(), "it made room");
    assert_eq!(silent[39].call(&["PING"]).unwrap().string(), "PONG");
    // It makes room for clients, and they do not count for them.
    assert_eq!(administrator.call(&["CONFIG", "SET", "maxclients", "30"]).unwrap().string(), "OK");
    assert_eq!(connect(&node.addr()).call(&["PING"]).unwrap().string(), "PONG");
    let killed = administrator.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
    assert!(!killed.is_error(), "{killed:?}");
    assert!(wait_until(Duration::from_secs(30), || {
        connect(&node.addr()).call(&["PING"]).is_ok_and(|reply| reply.string() == "PONG")
    }));
}
