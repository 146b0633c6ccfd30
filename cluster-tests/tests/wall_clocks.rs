//! Wall clocks of running nodes that jump by a day: what may depend on them does, and nothing else.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode, Shape};
use cluster_tests::hosts::Hosts;
use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::wall_clocks::WallClocks;

const DAY: i64 = 24 * 60 * 60;
const DEADLINE: Duration = Duration::from_secs(10);

/// A node alone, with a wall clock of its own; `None` where `libfaketime` is missing.
fn node(extra: &[&str]) -> Option<(WallClocks, Server)> {
    let clocks = match WallClocks::new(1) {
        Ok(clocks) => clocks,
        Err(reason) => {
            println!("left out: {reason}");
            return None;
        }
    };
    let (program, first) = clocks.start_with(0, &programs::keyward("keyward-node").expect("it is built"));
    let server = Server::start(&program, |port, dir| {
        let (port, dir) = (port.to_string(), dir.to_string_lossy());
        let own = ["--port", &port, "--dir", &dir, "--appendonly", "no"];
        let args = own.iter().chain(extra).map(|arg| (*arg).to_owned());
        first.iter().cloned().chain(args).collect()
    });
    Some((clocks, server.expect("it starts")))
}

/// Sets the clock, and waits until the node has it.
fn jump(clocks: &WallClocks, client: &mut Connection, from: i64, to: i64) {
    let time = |client: &mut Connection| {
        client.call(&["TIME"]).expect("an answer").items[0].integer().expect("seconds")
    };
    let before = time(client) - from;
    clocks.set(0, to).expect("a file can be written");
    assert!(
        wait_until(DEADLINE, || (time(client) - before - to).abs() < 60),
        "the clock does not jump to {to} s"
    );
}

fn call(client: &mut Connection, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    String::from_utf8_lossy(&client.call(&words).expect("an answer").raw).into_owned()
}

fn integer(client: &mut Connection, command: &str) -> i64 {
    let words: Vec<&str> = command.split(' ').collect();
    let reply = client.call(&words).expect("an answer");
    reply.integer().unwrap_or_else(|| panic!("{command}: {reply}"))
}

/// A number out of a text of `name:number` lines or `name=number` words.
fn field(client: &mut Connection, command: &str, name: &str) -> i64 {
    let words: Vec<&str> = command.split(' ').collect();
    let text = client.call(&words).expect("an answer").string();
    let value =
        text.split(['\r', '\n', ' ']).find_map(|word| word.strip_prefix(name)?.strip_prefix([':', '=']));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{command} has no {name}: {text}"))
}

#[test]
fn a_wall_clock_that_jumps_decides_about_expiry_and_nothing_else() {
    // Idle clients are closed and changes saved after an hour: a day must not pass for that.
    let Some((clocks, server)) = node(&["--timeout", "3600", "--save", "3600 1"]) else { return };
    let mut client = Connection::connect(&server.addr()).unwrap();
    let mut idle = Connection::connect(&server.addr()).unwrap();
    call(&mut idle, "PING");
    call(&mut client, "SET month v EX 2592000");
    call(&mut client, "SET hour v EX 3600");
    call(&mut client, "SET forever v");
    let saved_at = integer(&mut client, "LASTSAVE");
    let mut at = 0;
    for to in [DAY, -DAY, 0] {
        jump(&clocks, &mut client, at, to);
        at = to;
        // What is done regularly goes on being done.
        call(&mut client, "SET soon v PX 50");
        assert!(wait_until(DEADLINE, || integer(&mut client, "DBSIZE") == 2), "at {to} s");
        let left = integer(&mut client, "TTL month");
        assert!((30 * DAY - to - left).abs() < 60, "{left} at {to} s");
        assert_eq!(call(&mut client, "EXISTS forever month hour"), ":2\r\n", "at {to} s");
        assert!(field(&mut client, "INFO server", "uptime_in_seconds") < 60);
        assert!(field(&mut client, "CLIENT INFO", "age") < 60);
        assert!(integer(&mut client, "OBJECT IDLETIME forever") < 60);
        assert_eq!(call(&mut idle, "PING"), "+PONG\r\n");
        assert_eq!(integer(&mut client, "LASTSAVE"), saved_at);
    }
}

#[test]
fn a_pause_ends_though_the_wall_clock_goes_back() {
    let Some((clocks, server)) = node(&["--save", ""]) else { return };
    let mut client = Connection::connect(&server.addr()).unwrap();
    call(&mut client, "CLIENT PAUSE 300 WRITE");
    jump(&clocks, &mut client, 0, -DAY);
    assert_eq!(call(&mut client, "SET a 1"), "+OK\r\n");
}

#[test]
fn saves_go_on_though_the_wall_clock_goes_back() {
    let Some((clocks, server)) = node(&["--save", "1 1"]) else { return };
    let mut client = Connection::connect(&server.addr()).unwrap();
    jump(&clocks, &mut client, 0, -DAY);
    call(&mut client, "SET a 1");
    let saved =
        |client: &mut Connection| field(client, "INFO persistence", "rdb_changes_since_last_save") == 0;
    assert!(wait_until(DEADLINE, || saved(&mut client)), "{}", server.log_end());
}

/// The clock of the new primary is a day ahead of the old one's, or behind it.
#[test]
fn a_failover_to_a_node_with_another_wall_clock_loses_no_key() {
    let clocks = match WallClocks::new(3) {
        Ok(clocks) => clocks,
        Err(reason) => return println!("left out: {reason}"),
    };
    let args = ["--save", "", "--appendonly", "yes"];
    let mut cluster =
        Cluster::start_shaped(Hosts::Loopback, Mode::Replicated, Shape::ONE_BY_THREE, Some(clocks), &args)
            .unwrap();
    let old = cluster.wait_until_whole().unwrap();
    let others = (0..3).filter(|node| *node != old);
    let wrong: Vec<(usize, i64)> = others.zip([DAY, -DAY]).collect();
    cluster.set_wall_clocks(&wrong).unwrap();
    for (node, ahead) in &wrong {
        let is_seen = |seen: i64| (seen - ahead).abs() < 60;
        assert!(wait_until(DEADLINE, || cluster.wall_clock_ahead(*node).is_some_and(is_seen)));
    }
    assert!(cluster.wall_clock_ahead(old).is_some_and(|ahead| ahead.abs() < 60));
    assert_eq!(cluster.ask(old, &["SET", "month", "v", "EX", "2592000"]).unwrap().text(), b"OK");
    cluster.nodes[old].kill();
    let new = cluster.wait_for_other_primary(old).unwrap();
    assert_eq!(cluster.ask(new, &["GET", "month"]).unwrap().text(), b"v");
    cluster.nodes[old].restart().unwrap();
    cluster.wait_until_whole().unwrap();
    assert!(1 <= cluster.wait_until_converged().unwrap());
}
