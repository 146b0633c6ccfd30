//! The limit of open files: a node raises it as far as it may, and serves no more clients than it allows.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use cluster_tests::processes::Server;
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
