//! The write log on disk, on real processes: what was acknowledged survives the end of all nodes at once, and a node
//! that restarts goes on where it was instead of getting everything anew.
#![allow(clippy::disallowed_methods, reason = "measures times")]

use std::sync::Mutex;
use std::time::Instant;

use cluster_tests::cluster::{Cluster, HEAL_DEADLINE, Mode};
use cluster_tests::processes::{Server, wait_until};
use cluster_tests::resp_client::Connection;
use cluster_tests::writers::{OnError, Writers};

/// One at a time: two clusters on a small machine would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs the body on a fresh cluster whose nodes write their log to disk.
fn with_cluster(appendfsync: &str, body: impl FnOnce(&mut Cluster) -> Result<(), String>) {
    with_cluster_of(&["--appendfsync", appendfsync], body);
}

/// The same, with these directives besides.
fn with_cluster_of(directives: &[&str], body: impl FnOnce(&mut Cluster) -> Result<(), String>) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let args = [&["--save", "", "--appendonly", "yes"], directives].concat();
    let mut cluster = Cluster::start(Mode::Cluster, &args).expect("the cluster starts");
    if let Err(error) = body(&mut cluster) {
        panic!("{error}\n{}", cluster.describe());
    }
}

fn wait_for_writes(writers: &Writers, more: usize) -> Result<(), String> {
    let before = writers.acknowledged();
    if wait_until(HEAL_DEADLINE, || before + more < writers.acknowledged()) {
        return Ok(());
    }
    Err("the writers do not get on".into())
}

/// Bytes of the log in memory that a few hundred writes exceed.
const SMALL_BACKLOG: &str = "16384";

/// Makes a node rewrite its log, and waits for the end.
fn rewrite(cluster: &Cluster, node: usize) -> Result<(), String> {
    cluster.ask(node, &["BGREWRITEAOF"]).ok_or("no answer to BGREWRITEAOF")?;
    let is_over = || {
        let info = cluster.ask(node, &["INFO", "persistence"]).map(|reply| reply.string());
        info.is_some_and(|info| {
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_last_bgrewrite_status:ok")
        })
    };
    if wait_until(HEAL_DEADLINE, is_over) { Ok(()) } else { Err("a rewrite does not end well".into()) }
}

/// A counter of INFO's section Stats.
fn counter(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let info = cluster.ask(node, &["INFO", "stats"]).map(|reply| reply.string()).unwrap_or_default();
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

fn full_syncs(cluster: &Cluster) -> u64 {
    (0..cluster.nodes.len()).map(|node| counter(cluster, node, "sync_full")).sum()
}

/// All nodes end at the same moment, as when the power of a rack fails; nothing that was acknowledged may be missing.
fn kill_all_under_load(appendfsync: &str, times: usize) {
    with_cluster(appendfsync, |cluster| {
        let writers = Writers::start(&cluster.urls(), 4, OnError::Report)?;
        for _ in 0..times {
            wait_for_writes(&writers, 300)?;
            let start = Instant::now();
            cluster.nodes.iter_mut().for_each(Server::kill);
            for node in &mut cluster.nodes {
                node.restart()?;
            }
            cluster.wait_until_whole()?;
            println!(
                "appendfsync {appendfsync}: whole again {:?} after the end of all nodes",
                start.elapsed()
            );
            if full_syncs(cluster) > 0 {
                return Err("a node with its data was sent everything anew".into());
            }
        }
        wait_for_writes(&writers, 100)?;
        let history = writers.stop()?;
        cluster.wait_until_converged()?;
        let primary = cluster.wait_until_whole()?;
        history.check(&cluster.strings(primary)?)?;
        println!("  {} writes acknowledged, none lost", history.acknowledged);
        Ok(())
    });
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_everysec() {
    kill_all_under_load("everysec", 3);
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_always() {
    kill_all_under_load("always", 2);
}

#[test]
fn a_restarted_node_goes_on_where_it_was() {
    with_cluster("everysec", |cluster| {
        let writers = Writers::start(&cluster.urls(), 4, OnError::Retry)?;
        for round in 0..4 {
            wait_for_writes(&writers, 300)?;
            let primary = cluster.wait_until_whole()?;
            // Twice a replica, twice the primary itself.
            let node = if round < 2 { (primary + 1) % 3 } else { primary };
            cluster.nodes[node].restart()?;
            cluster.wait_until_whole()?;
        }
        if full_syncs(cluster) > 0 {
            return Err("a node with its data was sent everything anew".into());
        }
        let history = writers.stop()?;
        cluster.wait_until_converged()?;
        let primary = cluster.wait_until_whole()?;
        history.check(&cluster.strings(primary)?)
    });
}

/// A node that has lost its data gets it in a full sync; with a base of its own it counts as a member again, and then
/// it goes on where it was like any other.
#[test]
fn a_full_sync_ends_with_a_base_on_disk() {
    let directives = ["--repl-backlog-size", SMALL_BACKLOG, "--repl-backlog-disk-size", "0"];
    with_cluster_of(&directives, |cluster| {
        let writers = Writers::start(&cluster.urls(), 2, OnError::Retry)?;
        wait_for_writes(&writers, 1000)?;
        let primary = cluster.wait_until_whole()?;
        rewrite(cluster, primary)?;
        // What the primary has neither in memory nor on disk cannot be sent as a part of the log.
        let node = (primary + 1) % 3;
        cluster.nodes[node].kill();
        let folder = cluster.nodes[node].dir().join("appendonlydir");
        std::fs::remove_dir_all(&folder).map_err(|e| e.to_string())?;
        cluster.nodes[node].restart()?;
        // The others may still take it for the one that ended.
        if !wait_until(HEAL_DEADLINE, || 0 < full_syncs(cluster)) {
            return Err("there was no full sync".into());
        }
        cluster.wait_until_whole()?;
        wait_for_writes(&writers, 100)?;
        let before = full_syncs(cluster);
        cluster.nodes[node].restart()?;
        cluster.wait_until_whole()?;
        if full_syncs(cluster) != before {
            return Err("a node with its data was sent everything anew".into());
        }
        cluster.nodes.iter_mut().for_each(Server::kill);
        for node in &mut cluster.nodes {
            node.restart()?;
        }
        cluster.wait_until_whole()?;
        let history = writers.stop()?;
        cluster.wait_until_converged()?;
        let primary = cluster.wait_until_whole()?;
        history.check(&cluster.strings(primary)?)
    });
}

/// A node that comes back when the others have forgotten in memory what it lacks gets it from their disks, also what
/// they keep there only for it.
#[test]
fn what_memory_has_no_more_comes_from_the_disk() {
    with_cluster_of(&["--repl-backlog-size", SMALL_BACKLOG], |cluster| {
        let writers = Writers::start(&cluster.urls(), 4, OnError::Retry)?;
        wait_for_writes(&writers, 300)?;
        let primary = cluster.wait_until_whole()?;
        let node = (primary + 1) % 3;
        for rewrites in 0..3 {
            cluster.nodes[node].kill();
            for _ in 0..rewrites {
                wait_for_writes(&writers, 1000)?;
                rewrite(cluster, primary)?;
            }
            wait_for_writes(&writers, 1000)?;
            cluster.nodes[node].restart()?;
            cluster.wait_until_whole()?;
        }
        if full_syncs(cluster) > 0 {
            return Err("a node with its data was sent everything anew".into());
        }
        // The files that are kept are found again by a process that starts.
        cluster.nodes[node].kill();
        wait_for_writes(&writers, 1000)?;
        rewrite(cluster, primary)?;
        wait_for_writes(&writers, 1000)?;
        cluster.nodes[primary].restart()?;
        cluster.wait_for_replicas(1)?;
        wait_for_writes(&writers, 1000)?;
        cluster.nodes[node].restart()?;
        cluster.wait_until_whole()?;
        if full_syncs(cluster) > 0 {
            return Err("a node with its data was sent everything anew, after a failover".into());
        }
        let history = writers.stop()?;
        cluster.wait_until_converged()?;
        let primary = cluster.wait_until_whole()?;
        history.check(&cluster.strings(primary)?)
    });
}

/// A rewrite under load, then the end of the process: base and files since make up everything.
#[test]
fn a_rewrite_under_load_loses_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut node = Server::keyward(&["--appendonly", "yes"]).expect("the node starts");
    let call = |connection: &mut Connection, words: &[&str]| {
        connection.call(words).map(|reply| reply.string()).map_err(|e| e.to_string())
    };
    let run = |node: &mut Server| -> Result<(), String> {
        let mut connection = Connection::connect(&node.addr()).map_err(|e| e.to_string())?;
        let mut number = 0;
        for round in 0..3 {
            call(&mut connection, &["BGREWRITEAOF"])?;
            for _ in 0..3000 {
                number += 1;
                let (key, value) = (format!("k{}", number % 500), number.to_string());
                call(&mut connection, &["RPUSH", &key, &value])?;
            }
            if !wait_until(HEAL_DEADLINE, || {
                let info = call(&mut connection, &["INFO", "persistence"]).unwrap_or_default();
                info.contains("aof_rewrite_in_progress:0") && info.contains("aof_last_bgrewrite_status:ok")
            }) {
                return Err(format!("rewrite {round} does not end well"));
            }
        }
        node.restart()?;
        node.wait_until_answering()?;
        let mut connection = Connection::connect(&node.addr()).map_err(|e| e.to_string())?;
        let mut found = 0;
        for key in 0..500 {
            let length = call(&mut connection, &["LLEN", &format!("k{key}")])?;
            found += length.parse::<u64>().map_err(|e| e.to_string())?;
        }
        let files = std::fs::read_dir(node.dir().join("appendonlydir")).map_err(|e| e.to_string())?.count();
        if found != number || files != 3 {
            return Err(format!("{found} of {number} elements, {files} files"));
        }
        Ok(())
    };
    if let Err(error) = run(&mut node) {
        panic!("{error}\n{}", node.log_end());
    }
}
