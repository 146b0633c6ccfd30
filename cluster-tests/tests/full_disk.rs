//! A disk that is full: a small file system of its own under the write log of a real process. Writes are refused, or
//! another node takes over; reads go on, nothing that was acknowledged is lost, and it recovers by itself.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use cluster_tests::cluster::{Cluster, HEAL_DEADLINE, Mode};
use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::writers::{OnError, Writers};
use tempfile::TempDir;

/// One at a time: the machine is small.
static ALONE: Mutex<()> = Mutex::new(());

/// A file system of a few megabytes in a folder; it goes when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a line that says so, where nothing may be mounted.
    fn mount(folder: &Path, size: &str) -> Option<SmallDisk> {
        fs::create_dir_all(folder).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).status();
        if !mounted.is_ok_and(|status| status.success()) {
            #[expect(clippy::print_stderr, reason = "says what was not tested")]
            {
                eprintln!("skipped: no file system can be mounted here");
            }
            return None;
        }
        Some(SmallDisk(folder.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    /// The sizes of the files that the manifest names as superfluous.
    fn kept_files(&self) -> Vec<u64> {
        let manifest = fs::read_to_string(self.0.join("appendonly.aof.manifest")).unwrap_or_default();
        let names = manifest
            .lines()
            .filter(|line| line.ends_with("type h"))
            .filter_map(|line| line.split(' ').nth(1));
        names.filter_map(|name| fs::metadata(self.0.join(name)).ok()).map(|file| file.len()).collect()
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "what was mounted can be unmounted");
    }
}

/// With little patience: what waits for the disk is answered when that has space.
fn connect(node: &Server) -> Connection {
    Connection::connect_within(&node.addr(), Duration::from_millis(500)).unwrap()
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn call(connection: &mut Connection, words: &[&str]) -> String {
    connection.call(words).map(|reply| reply.string()).unwrap()
}

/// A node alone refuses writes while its disk is full, a rewrite that finds no space included, and goes on when there
/// is space.
fn refuses_and_recovers(appendfsync: &str) {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("appendonlydir"), "3m") else { return };
    let program = programs::keyward("keyward-node").unwrap();
    let directives = ["--appendonly", "yes", "--appendfsync", appendfsync];
    let mut node = Server::alone_in(&program, dir, &directives).unwrap();
    let mut connection = connect(&node);
    let mut acknowledged = Vec::new();
    let value = "v".repeat(2_000);
    for round in 0..3 {
        for number in 0..400 {
            let key = format!("k{round}:{number}");
            match connection.call(&["SET", &key, &value]) {
                Ok(reply) if reply.string() == "OK" => acknowledged.push(key),
                Ok(_) => {}
                // It waits for the disk.
                Err(_) => connection = connect(&node),
            }
            if number == 100 {
                disk.fill();
            }
            if number == 200 && round == 1 {
                call(&mut connection, &["BGREWRITEAOF"]);
            }
        }
        let refused = call(&mut connection, &["SET", "refused", "x"]);
        assert!(refused.starts_with("MISCONF Errors writing to the AOF file: No space left"), "{refused}");
        assert_eq!(call(&mut connection, &["GET", &acknowledged[0]]), value);
        let info = call(&mut connection, &["INFO", "persistence"]);
        assert!(info.contains("aof_last_write_status:err"), "{info}");
        if round == 2 {
            // Also for a process that starts while it is full.
            node.restart().unwrap();
            node.wait_until_answering().unwrap();
            connection = connect(&node);
            for key in &acknowledged {
                assert_eq!(call(&mut connection, &["GET", key]), value, "{key} with a full disk");
            }
        }
        disk.empty();
        let is_well =
            || connect(&node).call(&["SET", "again", "x"]).is_ok_and(|reply| reply.string() == "OK");
        assert!(wait_until(HEAL_DEADLINE, is_well));
        assert_eq!(call(&mut connection, &["EXISTS", "refused"]), "0");
        // The files get smaller, so that there is space for the next round.
        call(&mut connection, &["BGREWRITEAOF"]);
        assert!(wait_until(HEAL_DEADLINE, || {
            let info = call(&mut connection, &["INFO", "persistence"]);
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_last_bgrewrite_status:ok")
        }));
        node.restart().unwrap();
        node.wait_until_answering().unwrap();
        connection = connect(&node);
        for key in &acknowledged {
            assert_eq!(call(&mut connection, &["GET", key]), value, "{key} in round {round}");
        }
        for key in acknowledged.drain(..) {
            call(&mut connection, &["DEL", &key]);
        }
        call(&mut connection, &["BGREWRITEAOF"]);
    }
}

#[test]
fn a_node_alone_refuses_writes_and_recovers_everysec() {
    refuses_and_recovers("everysec");
}

#[test]
fn a_node_alone_refuses_writes_and_recovers_always() {
    refuses_and_recovers("always");
}

/// A primary of a shard of three whose log is on a small disk; `None` where nothing may be mounted.
fn primary_on_a_small_disk(args: &[&str], size: &str) -> Option<(Cluster, usize, SmallDisk)> {
    let mut cluster = Cluster::start(Mode::Cluster, args).expect("the cluster starts");
    let node = cluster.wait_until_whole().unwrap();
    // The node starts again on a small disk with what it had.
    let folder = cluster.nodes[node].dir().join("appendonlydir");
    let aside = cluster.nodes[node].dir().join("aside");
    cluster.nodes[node].kill();
    fs::rename(&folder, &aside).unwrap();
    let disk = SmallDisk::mount(&folder, size)?;
    for file in fs::read_dir(&aside).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    cluster.nodes[node].restart().unwrap();
    cluster.wait_until_whole().unwrap();
    // It leads again, so that it is the primary's disk that fills.
    assert!(wait_until(HEAL_DEADLINE, || {
        cluster.primary() == Some(node) || {
            cluster.ask(node, &["CLUSTER", "FAILOVER"]);
            false
        }
    }));
    cluster.wait_until_whole().unwrap();
    Some((cluster, node, disk))
}

/// A primary whose disk is full hands over to a replica that is in sync, and comes back when it has space.
#[test]
fn a_primary_with_a_full_disk_hands_over() {
    let _alone = alone();
    let args = ["--save", "", "--appendonly", "yes"];
    let Some((mut cluster, node, disk)) = primary_on_a_small_disk(&args, "8m") else { return };
    let writers = Writers::start(&cluster.urls(), 4, OnError::Retry).unwrap();
    assert!(wait_until(HEAL_DEADLINE, || 500 < writers.acknowledged()));
    disk.fill();
    let other = cluster.wait_for_other_primary(node).unwrap();
    let before = writers.acknowledged();
    assert!(wait_until(HEAL_DEADLINE, || before + 500 < writers.acknowledged()), "node {other} goes on");
    disk.empty();
    cluster.wait_until_whole().unwrap();
    let history = writers.stop().unwrap();
    cluster.wait_until_converged().unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    history.check(&cluster.strings(primary).unwrap()).unwrap();
}

/// What is kept of the log for replicas never fills the disk: three times it was rewritten, and by default a gigabyte
/// may be kept.
#[test]
fn the_log_that_is_kept_for_replicas_leaves_room_for_the_log() {
    let _alone = alone();
    let args = ["--save", "", "--appendonly", "yes", "--auto-aof-rewrite-min-size", "2mb"];
    let Some((cluster, node, disk)) = primary_on_a_small_disk(&args, "12m") else { return };
    let mut connection = connect(&cluster.nodes[node]);
    let value = "x".repeat(10_000);
    let mut write = |bytes: usize| {
        for n in 0..bytes / value.len() {
            assert_eq!(call(&mut connection, &["SET", &format!("key:{}", n % 20), &value]), "OK");
        }
    };
    write(40 << 20);
    assert!(wait_until(HEAL_DEADLINE, || !disk.kept_files().is_empty()), "something is kept");
    disk.fill();
    let kept: u64 = disk.kept_files().iter().sum();
    write(usize::try_from(kept / 2).unwrap());
    assert!(!cluster.nodes[node].log().contains("it hands over"), "its disk was never full");
    disk.empty();
}
