//! Libraries of functions on real processes: every node of a shard has them, also one that comes later, they outlive
//! failovers and restarts, and the files that hold them are Valkey's.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode};
use cluster_tests::processes::Server;
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use cluster_tests::waiting::wait_until;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const RDB: [&str; 4] = ["--save", "", "--appendonly", "no"];
const AOF: [&str; 4] = ["--save", "", "--appendonly", "yes"];

fn library(name: &str) -> String {
    format!(
        "#!lua name={name}\nredis.register_function{{function_name='{name}', callback=function() return '{name}' end, \
         flags={{'no-writes'}}}}"
    )
}

fn connect(server: &Server) -> Connection {
    Connection::connect_within(&server.addr(), PATIENCE).unwrap()
}

fn call(connection: &mut Connection, words: &[&str]) -> String {
    connection.call(words).unwrap().string()
}

/// Whether it has these functions and not those.
fn check(connection: &mut Connection, there: &[&str], gone: &[&str]) {
    for name in there {
        assert_eq!(call(connection, &["FCALL_RO", name, "0"]), *name);
    }
    for name in gone {
        assert_eq!(call(connection, &["FCALL_RO", name, "0"]), "ERR Function not found");
    }
}

#[test]
fn every_node_of_a_shard_has_the_functions() {
    let directives = [&RDB[..], &["--repl-backlog-size", "16kb"]].concat();
    let mut cluster = Cluster::start(Mode::Replicated, &directives).unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    let replica = (primary + 1) % cluster.nodes.len();
    let mut connection = connect(&cluster.nodes[primary]);
    for name in ["kept", "gone", "late"] {
        assert_eq!(call(&mut connection, &["FUNCTION", "LOAD", &library(name)]), name);
    }
    assert_eq!(call(&mut connection, &["FUNCTION", "DELETE", "gone"]), "OK");
    // It comes back empty, and gets everything in a full sync: the log in memory does not reach back.
    cluster.nodes[replica].kill();
    let value = "x".repeat(10_000);
    for number in 0..300 {
        call(&mut connection, &["SET", &format!("k{}", number % 10), &value]);
    }
    cluster.nodes[replica].restart().unwrap();
    let primary = cluster.wait_until_whole().unwrap();
    let log = cluster.nodes[replica].log();
    assert!(log.contains("the full sync is complete"), "{log}");
    for node in 0..cluster.nodes.len() {
        let has_all = || {
            let mut list = vec!["FUNCTION", "LIST", "LIBRARYNAME"];
            let mut count = |name| {
                list.truncate(3);
                list.push(name);
                cluster.ask(node, &list).map(|reply| (reply.is_error(), reply.items.len()))
            };
            count("*") == Some((false, 2)) && count("gone") == Some((false, 0))
        };
        assert!(wait_until(PATIENCE, has_all), "{node}: {}", cluster.describe());
        check(&mut connect(&cluster.nodes[node]), &["kept", "late"], &["gone"]);
    }
    cluster.nodes[primary].kill();
    let primary = cluster.wait_for_other_primary(primary).unwrap();
    assert!(wait_until(PATIENCE, || cluster.accepts_writes(primary)), "{}", cluster.describe());
    let mut connection = connect(&cluster.nodes[primary]);
    check(&mut connection, &["kept", "late"], &["gone"]);
    let loaded = wait_until(PATIENCE, || {
        call(&mut connection, &["FUNCTION", "LOAD", "REPLACE", &library("last")]) == "last"
    });
    assert!(loaded, "{}", cluster.describe());
}

fn spawn(program: &Path, dir: TempDir, directives: &[&str]) -> Server {
    let mut server = Server::alone_in(program, dir, directives).unwrap();
    server.wait_until_answering().unwrap();
    server
}

fn copy_of(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for name in ["dump.rdb", "appendonlydir"] {
        let from = dir.join(name);
        if from.is_file() {
            std::fs::copy(&from, copy.path().join(name)).unwrap();
        } else if from.is_dir() {
            std::fs::create_dir(copy.path().join(name)).unwrap();
            for file in std::fs::read_dir(&from).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join(name).join(file.file_name())).unwrap();
            }
        }
    }
    copy
}

#[test]
fn files_with_functions_are_valkeys() {
    let keyward = programs::keyward("keyward-node").unwrap();
    let Some(dir) = programs::valkey_or_skip("files with functions") else { return };
    let valkey = dir.join("valkey-server");
    for (writer, reader) in [(&keyward, &valkey), (&valkey, &keyward), (&keyward, &keyward)] {
        for directives in [RDB, AOF] {
            let mut server = spawn(writer, TempDir::new().unwrap(), &directives);
            let mut connection = connect(&server);
            for name in ["kept", "gone"] {
                call(&mut connection, &["FUNCTION", "LOAD", &library(name)]);
            }
            if directives == RDB {
                call(&mut connection, &["FUNCTION", "DELETE", "gone"]);
                assert_eq!(call(&mut connection, &["SAVE"]), "OK");
            } else {
                call(&mut connection, &["BGREWRITEAOF"]);
                let mut other = connect(&server);
                let has_ended =
                    || call(&mut other, &["INFO", "persistence"]).contains("aof_rewrite_in_progress:0");
                assert!(wait_until(PATIENCE, has_ended));
                call(&mut connection, &["MULTI"]);
                call(&mut connection, &["FUNCTION", "DELETE", "gone"]);
                call(&mut connection, &["FUNCTION", "LOAD", &library("late")]);
                call(&mut connection, &["EXEC"]);
                let synced =
                    || connection.call(&["WAITAOF", "1", "0", "1000"]).unwrap().items[0].integer() == Some(1);
                assert!(wait_until(PATIENCE, synced));
            }
            server.kill();
            let second = spawn(reader, copy_of(server.dir()), &directives);
            let there: &[&str] = if directives == RDB { &["kept"] } else { &["kept", "late"] };
            check(&mut connect(&second), there, &["gone"]);
        }
    }
}
