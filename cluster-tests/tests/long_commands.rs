//! What takes long at a healthy shard of real processes (a command under its slot's lock) changes neither its primary nor
//! its in-sync set, and other clients' writes go on.
#![allow(clippy::disallowed_methods, reason = "measures times")]

use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::resp_client::Connection;
use cluster_tests::writers::{OnError, Writers};

/// How long a command keeps a slot, at least.
const LONG: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(30);

/// What is held up by a command is held up each time; a machine that stalls also changes the set, now and then.
const ATTEMPTS: usize = 3;

/// The body is given a connection to the primary, and what it does must change nothing.
fn nothing_changes(body: impl Fn(&mut Connection) -> Result<(), String>) {
    let mut cluster =
        Cluster::start(Mode::Cluster, &["--save", "", "--appendonly", "no"]).expect("the cluster starts");
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        result = check(&mut cluster, &body);
        if result.is_ok() {
            return;
        }
    }
    result.unwrap_or_else(|error| panic!("{error}\n{}", cluster.describe()));
}

fn check(cluster: &mut Cluster, body: impl Fn(&mut Connection) -> Result<(), String>) -> Result<(), String> {
    let primary = cluster.wait_until_whole()?;
    let before = cluster.changes();
    let mut connection =
        Connection::connect_within(&cluster.nodes[primary].addr(), PATIENCE).map_err(|e| e.to_string())?;
    // Once with nothing else to do: then the thread that would be held up is the one that drives the sockets.
    body(&mut connection)?;
    let writers = Writers::start(&cluster.urls(), 2, OnError::Report)?;
    body(&mut connection)?;
    let (acknowledged, after) = (writers.acknowledged(), cluster.changes());
    let history = writers.stop()?;
    if before.is_none() || before != after {
        return Err(format!("term and version of the in-sync set: {before:?} before, {after:?} after"));
    }
    // Who shares a thread with a long command may wait longer than a client does.
    println!("{acknowledged} writes of others, errors: {:?}", history.errors);
    if acknowledged == 0 || history.errors.keys().any(|error| error != "Io") {
        return Err(format!("{acknowledged} writes of others, errors: {:?}", history.errors));
    }
    let primary = cluster.wait_until_whole()?;
    history.check(&cluster.strings(primary)?)
}

fn call(connection: &mut Connection, words: &[&str]) -> Result<String, String> {
    let reply = connection.call(words).map_err(|e| format!("{words:?}: {e}"))?;
    if reply.is_error() { Err(format!("{words:?}: {reply}")) } else { Ok(reply.string()) }
}

/// Keeps the slot of `{long}` for at least so long: a transaction of many searches.
fn hold_slot(connection: &mut Connection, time: Duration) -> Result<Duration, String> {
    let elements: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let words: Vec<&str> =
        ["RPUSH", "{long}list"].into_iter().chain(elements.iter().map(String::as_str)).collect();
    call(connection, &words)?;
    let mut search = |count: u32| -> Result<Duration, String> {
        call(connection, &["MULTI"])?;
        for _ in 0..count {
            call(connection, &["LPOS", "{long}list", "none"])?;
        }
        let started = Instant::now();
        call(connection, &["EXEC"])?;
        Ok(started.elapsed())
    };
    let mut count = 50;
    loop {
        let held = search(count)?;
        if time <= held {
            return Ok(held);
        }
        count = count.saturating_mul(
            u32::try_from(time.as_millis() / (1 + held.as_millis())).unwrap_or(1).clamp(2, 20),
        );
    }
}

#[test]
fn a_command_that_holds_a_slot_fails_nobody_over() {
    nothing_changes(|connection| {
        let held = hold_slot(connection, LONG)?;
        println!("the slot was held for {held:?}");
        call(connection, &["DEL", "{long}list"]).map(drop)
    });
}

/// Some connections share their thread with whoever runs long.
fn connection_of_another_thread(addr: &str) -> Result<Connection, String> {
    for _ in 0..20 {
        let mut connection = Connection::connect_within(addr, PATIENCE).map_err(|e| e.to_string())?;
        connection.send(&["PING"]);
        if connection.has_reply(Duration::from_millis(500)) {
            connection.reply().map_err(|e| e.to_string())?;
            return Ok(connection);
        }
    }
    Err("all threads run long".into())
}

/// It is for the script to end, and others are served until then.
#[test]
fn a_hand_off_behind_an_endless_script_holds_nobody_up() {
    let args = ["--save", "", "--io-threads", "2", "--busy-reply-threshold", "100"];
    let mut cluster = Cluster::start(Mode::Cluster, &args).expect("the cluster starts");
    let primary = cluster.wait_until_whole().unwrap();
    let addr = cluster.nodes[primary].addr();
    let mut caller = Connection::connect_within(&addr, PATIENCE).unwrap();
    // Alone the first time, beside others that do not need its key from then on.
    let script =
        |how| ["EVAL", "redis.call('get', KEYS[1]) while ARGV[1] == 'endless' do end", "1", "a", how];
    assert!(!caller.call(&script("short")).unwrap().is_error());
    caller.send(&script("endless"));
    assert!(!caller.has_reply(Duration::from_secs(1)), "it runs");
    let mut other = connection_of_another_thread(&addr).unwrap();
    let target = (0..3).find(|node| *node != primary).unwrap();
    let mut operator = Connection::connect_within(&cluster.nodes[target].addr(), PATIENCE).unwrap();
    operator.send(&["CLUSTER", "FAILOVER"]);
    for _ in 0..100 {
        assert_eq!(call(&mut other, &["SET", "b", "1"]), Ok("OK".into()), "{}", cluster.describe());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(call(&mut other, &["SCRIPT", "KILL"]), Ok("OK".into()));
    assert!(caller.reply().unwrap().is_error());
    assert_eq!(cluster.wait_for_other_primary(primary), Ok(target), "{}", cluster.describe());
}
