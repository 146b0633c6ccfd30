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
