//! Files and payloads go both ways between Keyward, the real Valkey and Debian's Redis 7.0: the same keys are there
//! afterwards, with the same types, contents, expiries and encodings.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::cluster::{Cluster, Mode, Shape};
use cluster_tests::hosts::Hosts;
use cluster_tests::interchange::{
    Encodings, Keyspace, commands, copy_by_dump, differences, fields, keyspace, run, volatile_hashes,
};
use cluster_tests::processes::{Server, free_port, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use tempfile::TempDir;

const SEED: u64 = 7;

fn connect(server: &Server) -> Connection {
    Connection::connect(&server.addr()).expect("a started server listens")
}

fn filled(server: &Server) -> (Connection, Keyspace) {
    let mut connection = connect(server);
    run(&mut connection, &commands(SEED)).unwrap();
    let keyspace = keyspace(&mut connection).unwrap();
    (connection, keyspace)
}

#[track_caller]
fn assert_same(expected: &Keyspace, found: &Keyspace, encodings: Encodings) {
    let lines = differences(expected, found, encodings);
    assert!(lines.is_empty(), "{} differ:\n{}", lines.len(), lines[..lines.len().min(20)].join("\n"));
}

fn redis(extra: &[&str]) -> Option<Server> {
    let program = programs::redis_or_skip("interchange with Redis 7.0")?;
    Some(Server::alone(&program, extra).unwrap())
}

fn valkey(extra: &[&str]) -> Option<Server> {
    let dir = programs::valkey_or_skip("interchange with Valkey")?;
    Some(Server::valkey(&dir, extra).unwrap())
}

/// Starts a program on a copy of a file.
fn with_file(program: &Path, file: &Path) -> Result<Server, String> {
    with_file_and(program, file, &[])
}

fn with_file_and(program: &Path, file: &Path, extra: &[&str]) -> Result<Server, String> {
    let dir = TempDir::new().unwrap();
    std::fs::copy(file, dir.path().join("dump.rdb")).unwrap();
    Server::alone_in(program, dir, extra)
}

fn save(connection: &mut Connection, server: &Server) -> PathBuf {
    run(connection, &[vec![b"SAVE".to_vec()]]).unwrap();
    server.dir().join("dump.rdb")
}

fn load_theirs(theirs: &Server, encodings: Encodings) {
    let (mut connection, expected) = filled(theirs);
    let file = save(&mut connection, theirs);
    let ours = with_file(&programs::keyward("keyward-node").unwrap(), &file).unwrap();
    assert_same(&expected, &keyspace(&mut connect(&ours)).unwrap(), encodings);
    assert_right(&file);
}

#[track_caller]
fn assert_right(file: &Path) {
    let check = std::process::Command::new(programs::keyward("keyward-node").unwrap())
        .arg("check-rdb")
        .arg(file)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && report.contains("The file is right"), "{report}");
}

#[test]
fn files_of_valkey_are_loaded() {
    let Some(theirs) = valkey(&[]) else { return };
    load_theirs(&theirs, Encodings::Compared);
}

#[test]
fn files_of_valkey_without_compression_and_compact_encodings_are_loaded() {
    let limits = [
        "--hash-max-listpack-entries",
        "0",
        "--zset-max-listpack-entries",
        "0",
        "--set-max-listpack-entries",
        "0",
        "--set-max-intset-entries",
        "0",
        "--list-max-listpack-size",
        "3",
    ];
    let plain = ["--rdbcompression", "no", "--rdbchecksum", "no", "--maxmemory-policy", "allkeys-lfu"];
    let Some(theirs) = valkey(&[&limits[..], &plain].concat()) else { return };
    let (mut connection, expected) = filled(&theirs);
    let file = save(&mut connection, &theirs);
    // With other limits the encodings would be others, and a listpack keeps no negative zero.
    let ours = with_file_and(&programs::keyward("keyward-node").unwrap(), &file, &limits).unwrap();
    assert_same(&expected, &keyspace(&mut connect(&ours)).unwrap(), Encodings::Compared);
}

#[test]
fn files_of_redis_are_loaded() {
    let Some(theirs) = redis(&[]) else { return };
    load_theirs(&theirs, Encodings::Ignored);
}

#[test]
fn files_of_keyward_are_loaded_by_valkey_and_redis() {
    let ours = Server::keyward(&[]).unwrap();
    let (mut connection, expected) = filled(&ours);
    let file = save(&mut connection, &ours);
    let valkey = programs::valkey_or_skip("interchange with Valkey").map(|dir| dir.join("valkey-server"));
    let redis = programs::redis_or_skip("interchange with Redis 7.0");
    for (program, encodings) in [(valkey, Encodings::Compared), (redis, Encodings::Ignored)] {
        let Some(program) = program else { continue };
        let theirs = with_file(&program, &file).unwrap();
        assert_same(&expected, &keyspace(&mut connect(&theirs)).unwrap(), encodings);
    }
    let again = with_file(&programs::keyward("keyward-node").unwrap(), &file).unwrap();
    assert_same(&expected, &keyspace(&mut connect(&again)).unwrap(), Encodings::Compared);
}

/// Only files and payloads that hold such hashes are of the version that has them.
#[test]
fn hashes_with_fields_that_expire_go_both_ways() {
    let ours = Server::keyward(&[]).unwrap();
    let mut connection = connect(&ours);
    let begin = |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap()[..9]).into_owned();
    connection.call(&["HSET", "plain", "f", "v"]).unwrap();
    assert_eq!(begin(&save(&mut connection, &ours)), "REDIS0010");
    run(&mut connection, &volatile_hashes()).unwrap();
    let expected = fields(&mut connection).unwrap();
    let count = |found: &[(String, String, String, i64)]| found.iter().filter(|field| 0 < field.3).count();
    assert!(2000 < expected.len() && 1000 < count(&expected) && count(&expected) < expected.len());
    let file = save(&mut connection, &ours);
    assert_eq!(begin(&file), "VALKEY080");
    let again = with_file(&programs::keyward("keyward-node").unwrap(), &file).unwrap();
    assert_eq!(fields(&mut connect(&again)).unwrap(), expected);
    let Some(dir) = programs::valkey_or_skip("interchange with Valkey") else { return };
    let theirs = with_file(&dir.join("valkey-server"), &file).unwrap();
    let mut there = connect(&theirs);
    assert_eq!(fields(&mut there).unwrap(), expected);
    // Back from it, as a file and by payloads.
    let file = save(&mut there, &theirs);
    let back = with_file(&programs::keyward("keyward-node").unwrap(), &file).unwrap();
    assert_eq!(fields(&mut connect(&back)).unwrap(), expected);
    assert_right(&file);
    for (from, to) in [(&mut connection, &mut there), (&mut connect(&theirs), &mut connect(&ours))] {
        to.call(&["FLUSHALL"]).unwrap();
        copy_by_dump(from, to).unwrap();
        to.call(&["SELECT", "0"]).unwrap();
        assert_eq!(fields(to).unwrap(), expected);
    }
}

/// `valkey-cli --rdb` and `redis-cli --rdb`.
#[test]
fn clients_read_the_database_as_a_file() {
    let ours = Server::keyward(&[]).unwrap();
    let (mut connection, _) = filled(&ours);
    // More than is sent at a time.
    run(&mut connection, &[vec![b"SET".to_vec(), b"big".to_vec(), vec![b'x'; 3 << 20]]]).unwrap();
    let expected = keyspace(&mut connection).unwrap();
    let Some(dir) = programs::valkey_or_skip("valkey-cli --rdb") else { return };
    let file = ours.dir().join("read.rdb");
    let (host, port) = ours.addr().rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
    let read = std::process::Command::new(dir.join("valkey-cli"))
        .args(["-h", &host, "-p", &port, "--rdb"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(read.status.success(), "{read:?}");
    let theirs = with_file(&dir.join("valkey-server"), &file).unwrap();
    assert_same(&expected, &keyspace(&mut connect(&theirs)).unwrap(), Encodings::Compared);
}

/// SYNC alone: the length, the file, and the end, for nothing follows.
#[test]
fn a_plain_sync_gets_the_file_by_its_length() {
    let ours = Server::keyward(&[]).unwrap();
    let (mut connection, _) = filled(&ours);
    run(&mut connection, &[vec![b"SET".to_vec(), b"big".to_vec(), vec![b'x'; 3 << 20]]]).unwrap();
    let expected = keyspace(&mut connection).unwrap();
    let mut stream = std::net::TcpStream::connect(ours.addr()).unwrap();
    stream.write_all(b"SYNC\r\n").unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let reply = &reply[reply.iter().position(|b| *b != b'\n').unwrap()..];
    let end = reply.iter().position(|b| *b == b'\n').unwrap();
    let (line, file) = reply.split_at(end + 1);
    assert_eq!(String::from_utf8_lossy(line), format!("${}\r\n", file.len()));
    let path = ours.dir().join("synced.rdb");
    std::fs::write(&path, file).unwrap();
    let left = std::fs::read_dir(ours.dir())
        .unwrap()
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().starts_with("temp-"));
    assert_eq!(left.count(), 0);
    let again = with_file(&programs::keyward("keyward-node").unwrap(), &path).unwrap();
    assert_same(&expected, &keyspace(&mut connect(&again)).unwrap(), Encodings::Compared);
    // Who says that it is a replica would wait for more.
    for introduction in ["REPLCONF listening-port 6380", "REPLCONF capa eof capa psync2"] {
        let mut connection = connect(&ours);
        connection.call(&introduction.split(' ').collect::<Vec<_>>()).unwrap();
        let refused = connection.call(&["SYNC"]).unwrap().string();
        assert!(refused.starts_with("ERR this node replicates to nodes of its own kind only"), "{refused}");
    }
}

/// `valkey-cli --cluster backup`.
#[test]
fn a_backup_of_a_cluster_has_a_file_of_each_primary() {
    let Some(dir) = programs::valkey_or_skip("valkey-cli --cluster backup") else { return };
    let shape = Shape { shards: 2, nodes_per_shard: 1 };
    let cluster = Cluster::start_shaped(Hosts::Loopback, Mode::Cluster, shape, None, &[]).unwrap();
    for key in ["a", "b"] {
        assert!((0..2).any(|node| {
            let reply = cluster.ask(node, &["SET", key, "1"]);
            reply.is_some_and(|reply| reply.text() == b"OK")
        }));
    }
    let folder = TempDir::new().unwrap();
    let backup = std::process::Command::new(dir.join("valkey-cli"))
        .args(["--cluster", "backup", &cluster.nodes[0].addr()])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(backup.status.success(), "{backup:?}");
    let files = std::fs::read_dir(folder.path()).unwrap().flatten().map(|f| f.path());
    let (files, others): (Vec<_>, Vec<_>) =
        files.partition(|f| f.extension().is_some_and(|extension| extension == "rdb"));
    assert_eq!((files.len(), others.len()), (2, 1), "{files:?} {others:?}");
    let sizes: Vec<i64> = files
        .iter()
        .map(|file| {
            let theirs = with_file(&dir.join("valkey-server"), file).unwrap();
            connect(&theirs).call(&["DBSIZE"]).unwrap().integer().unwrap()
        })
        .collect();
    assert_eq!(sizes.iter().sum::<i64>(), 2);
}

#[test]
fn payloads_go_both_ways() {
    let ours = Server::keyward(&[]).unwrap();
    let (mut from, expected) = filled(&ours);
    for (theirs, encodings) in [(valkey(&[]), Encodings::Compared), (redis(&[]), Encodings::Ignored)] {
        let Some(theirs) = theirs else { continue };
        let mut there = connect(&theirs);
        copy_by_dump(&mut from, &mut there).unwrap();
        assert_same(&expected, &keyspace(&mut there).unwrap(), encodings);
        let back = Server::keyward(&[]).unwrap();
        let mut back = connect(&back);
        copy_by_dump(&mut there, &mut back).unwrap();
        assert_same(&expected, &keyspace(&mut back).unwrap(), encodings);
    }
}

#[test]
fn a_damaged_file_stops_the_start_with_one_line() {
    let Some(theirs) = valkey(&[]) else { return };
    let (mut connection, _) = filled(&theirs);
    let file = save(&mut connection, &theirs);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();
    let error = with_file(&programs::keyward("keyward-node").unwrap(), &file).unwrap_err();
    assert!(error.contains("can't load 'dump.rdb': ") && error.contains("Nothing was loaded."), "{error}");
}

#[test]
fn clients_are_told_that_the_data_is_being_loaded() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("dump.rdb");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let program = programs::keyward("keyward-node").unwrap();
    let args = |port: u16, dir: &Path| {
        let (port, dir) = (port.to_string(), dir.display().to_string());
        ["--port", &port, "--dir", &dir, "--save", "", "--appendonly", "no"].map(str::to_owned).to_vec()
    };
    let mut server = Server::spawn_on(&program, free_port(), dir, args).unwrap();
    // Opening it waits until the server reads.
    let mut file = std::fs::File::options().write(true).open(&pipe).unwrap();
    file.write_all(b"REDIS0011\xfa\x04name\x05value").unwrap();
    let mut connection = None;
    assert!(wait_until(Duration::from_secs(20), || {
        connection = Connection::connect(&server.addr()).ok();
        connection.is_some()
    }));
    let mut connection = connection.unwrap();
    let loading = "-LOADING Valkey is loading the dataset in memory\r\n";
    for command in [&["PING"][..], &["GET", "k"], &["SET", "k", "2"], &["MULTI"], &["SAVE"]] {
        let reply = connection.call(command).unwrap();
        let expected = if command == ["MULTI"] { "+OK\r\n" } else { loading };
        assert_eq!(reply.raw, expected, "{command:?}");
        if command == ["MULTI"] {
            connection.call(&["DISCARD"]).unwrap();
        }
    }
    assert!(wait_until(Duration::from_secs(20), || {
        let info = connection.call(&["INFO", "persistence"]).unwrap().string();
        info.contains("loading:1\r\n") && info.contains("loading_start_time:")
    }));
    // A key, and the end without a checksum.
    file.write_all(b"\0\x01k\x011\xff\0\0\0\0\0\0\0\0").unwrap();
    drop(file);
    server.wait_until_answering().unwrap();
    assert_eq!(connection.call(&["GET", "k"]).unwrap().raw, "$1\r\n1\r\n");
    let info = connection.call(&["INFO", "persistence"]).unwrap().string();
    assert!(info.contains("loading:0\r\n") && info.contains("rdb_last_load_keys_loaded:1\r\n"), "{info}");
}
