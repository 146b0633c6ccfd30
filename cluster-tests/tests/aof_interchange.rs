//! Append-only files go both ways between Keyward, the real Valkey and Debian's Redis 7.0, with data of every type: in
//! base and incremental files, from before and after a rewrite, and in the single files of earlier versions.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::interchange::{
    Encodings, Keyspace, commands, differences, fields, keyspace, run, volatile_hashes,
};
use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;
use tempfile::TempDir;

const AOF: [&str; 2] = ["--appendonly", "yes"];
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(server: &Server) -> Connection {
    Connection::connect(&server.addr()).expect("a started server listens")
}

/// Whether a zero keeps its sign depends on the encoding that a sorted set had when the score was set, in Valkey too.
fn without_signs(keyspace: &Keyspace) -> Keyspace {
    let mut keyspace = keyspace.clone();
    for text in keyspace.values_mut().filter(|key| key.type_name == "zset").flat_map(|key| &mut key.content) {
        if text == b"Some(-0.0)" {
            *text = b"Some(0.0)".to_vec();
        }
    }
    keyspace
}

#[track_caller]
fn assert_same(expected: &Keyspace, found: &Keyspace) {
    let lines = differences(&without_signs(expected), &without_signs(found), Encodings::Ignored);
    assert!(lines.is_empty(), "{} differ:\n{}", lines.len(), lines[..lines.len().min(20)].join("\n"));
}

/// The programs whose files are exchanged, as far as they are there.
fn others() -> Vec<PathBuf> {
    let valkey = programs::valkey_or_skip("interchange with Valkey").map(|dir| dir.join("valkey-server"));
    let redis = programs::redis_or_skip("interchange with Redis 7.0");
    valkey.into_iter().chain(redis).collect()
}

fn keyward() -> PathBuf {
    programs::keyward("keyward-node").unwrap()
}

fn rewrite(connection: &mut Connection) {
    connection.call(&["BGREWRITEAOF"]).unwrap();
    assert!(wait_until(PATIENCE, || {
        let info = connection.call(&["INFO", "persistence"]).unwrap().string();
        info.contains("aof_rewrite_in_progress:0")
            && info.contains("aof_rewrite_scheduled:0")
            && info.contains("aof_last_bgrewrite_status:ok")
    }));
}

/// Data before and after a rewrite, and transactions, of which the files have the commands.
fn filled(server: &Server) -> (Connection, Keyspace) {
    let mut connection = connect(server);
    run(&mut connection, &commands(11)).unwrap();
    rewrite(&mut connection);
    run(&mut connection, &commands(12)).unwrap();
    for words in [
        &["SELECT", "1"][..],
        &["MULTI"],
        &["SET", "t:a", "1"],
        &["INCRBY", "t:a", "41"],
        &["SELECT", "2"],
        &["RPUSH", "t:l", "a", "b"],
        &["EXEC"],
        &["LMOVE", "t:l", "t:m", "LEFT", "RIGHT"],
        &["SET", "t:e", "x", "EX", "5000"],
        &["GETEX", "t:e", "PERSIST"],
        &["SADD", "t:s", "1", "2", "3"],
        &["SPOP", "t:s"],
        &["SELECT", "0"],
        &["DEL", "t:none", "string:0"],
        &["SWAPDB", "0", "1"],
    ] {
        let reply = connection.call(words).unwrap();
        assert!(!reply.is_error(), "{words:?}: {reply}");
    }
    let keyspace = keyspace(&mut connection).unwrap();
    (connection, keyspace)
}

/// Ends a server and starts a program on what it has left in its directory.
fn continued(mut server: Server, program: &Path) -> Server {
    server.terminate();
    let dir = TempDir::new().unwrap();
    copy_folder(&server.dir().join("appendonlydir"), &dir.path().join("appendonlydir"));
    Server::alone_in(program, dir, &AOF).unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn directories_go_there_and_back() {
    for other in others() {
        let ours = Server::alone(&keyward(), &AOF).unwrap();
        let (connection, mut expected) = filled(&ours);
        drop(connection);
        let mut server = ours;
        // Each loads what the other has left, adds to it, and leaves its own.
        for (round, program) in [&other, &keyward(), &other, &keyward()].into_iter().enumerate() {
            server = continued(server, program);
            let mut connection = connect(&server);
            assert_same(&expected, &keyspace(&mut connection).unwrap());
            if round == 2 {
                rewrite(&mut connection);
            }
            let name = format!("round:{round}");
            run(&mut connection, &[[&b"RPUSH"[..], name.as_bytes(), b"x"].map(<[u8]>::to_vec).to_vec()])
                .unwrap();
            expected = keyspace(&mut connection).unwrap();
        }
    }
}

/// In a base, in effects behind it, and in Valkey's own commands.
#[test]
fn hashes_with_fields_that_expire_go_there_and_back() {
    let Some(dir) = programs::valkey_or_skip("interchange with Valkey") else { return };
    let mut server = Server::alone(&keyward(), &AOF).unwrap();
    let mut connection = connect(&server);
    run(&mut connection, &volatile_hashes()).unwrap();
    rewrite(&mut connection);
    let change = |connection: &mut Connection, round: usize| {
        for words in [
            "HSETEX late EX 100000 FIELDS 2 a 1 b 2",
            "HSETEX late KEEPTTL FIELDS 1 b {round}",
            "HEXPIRE volatile:513 200000 NX FIELDS 3 field:100 field:101 field:{round}",
            "HPERSIST volatile:129 FIELDS 2 field:0 field:{round}",
            "HEXPIRE volatile:512 0 FIELDS 1 field:{round}",
            "HGETEX volatile:1500 EX 300000 FIELDS 2 field:7 field:{round}",
            "HSETEX volatile:2 PX 0 FIELDS 1 field:0 x",
            "HINCRBYFLOAT late a 1.5",
        ] {
            let line = words.replace("{round}", &round.to_string());
            let reply = connection.call(&line.split(' ').collect::<Vec<_>>()).unwrap();
            assert!(!reply.is_error(), "{line}: {reply}");
        }
    };
    for (round, program) in
        [dir.join("valkey-server"), keyward(), dir.join("valkey-server"), keyward()].iter().enumerate()
    {
        change(&mut connection, round);
        let expected = fields(&mut connection).unwrap();
        drop(connection);
        server = continued(server, program);
        connection = connect(&server);
        assert_eq!(fields(&mut connection).unwrap(), expected, "round {round}");
    }
}

#[test]
fn directories_of_others_are_loaded() {
    for other in others() {
        for preamble in ["yes", "no"] {
            let directives = [&AOF[..], &["--aof-use-rdb-preamble", preamble]].concat();
            let theirs = Server::alone(&other, &directives).unwrap();
            let (connection, expected) = filled(&theirs);
            drop(connection);
            let ours = continued(theirs, &keyward());
            assert_same(&expected, &keyspace(&mut connect(&ours)).unwrap());
            let again = continued(ours, &keyward());
            assert_same(&expected, &keyspace(&mut connect(&again)).unwrap());
        }
    }
}

/// What Redis before version 7 wrote: one file of commands, which may begin with an RDB file.
#[test]
fn single_files_of_earlier_versions_are_loaded() {
    for other in others() {
        for preamble in ["yes", "no"] {
            let directives = [&AOF[..], &["--aof-use-rdb-preamble", preamble]].concat();
            let mut theirs = Server::alone(&other, &directives).unwrap();
            let (connection, expected) = filled(&theirs);
            drop(connection);
            theirs.terminate();
            let folder = theirs.dir().join("appendonlydir");
            let manifest = std::fs::read_to_string(folder.join("appendonly.aof.manifest")).unwrap();
            let names = manifest.lines().filter_map(|line| line.split(' ').nth(1));
            let whole: Vec<u8> = names.flat_map(|name| std::fs::read(folder.join(name)).unwrap()).collect();
            let dir = TempDir::new().unwrap();
            std::fs::write(dir.path().join("appendonly.aof"), whole).unwrap();
            let mut ours = Server::alone_in(&keyward(), dir, &AOF).unwrap();
            assert_same(&expected, &keyspace(&mut connect(&ours)).unwrap());
            ours.restart().unwrap();
            ours.wait_until_answering().unwrap();
            assert_same(&expected, &keyspace(&mut connect(&ours)).unwrap());
        }
    }
}

/// BGREWRITEAOF with `appendonly no` leaves a directory that whoever starts with `appendonly yes` loads; `appendonly`
/// goes on and off while the server runs.
#[test]
fn the_log_is_switched_on_and_off() {
    let ours = Server::keyward(&[]).unwrap();
    let (mut connection, expected) = filled(&ours);
    for other in others().into_iter().chain([keyward()]) {
        rewrite(&mut connection);
        let dir = TempDir::new().unwrap();
        copy_folder(&ours.dir().join("appendonlydir"), &dir.path().join("appendonlydir"));
        let theirs = Server::alone_in(&other, dir, &AOF).unwrap();
        // The transaction and SWAPDB came after the rewrite in the middle of the filling, but before this one.
        assert_same(&expected, &keyspace(&mut connect(&theirs)).unwrap());
    }
    let files = std::fs::read_dir(ours.dir().join("appendonlydir")).unwrap().count();
    assert_eq!(files, 2, "a base and a manifest");
    for round in 0..3 {
        connection.call(&["CONFIG", "SET", "appendonly", "yes"]).unwrap();
        let has_begun = |connection: &mut Connection| {
            let info = connection.call(&["INFO", "persistence"]).unwrap().string();
            info.contains("aof_enabled:1")
                && info.contains("aof_rewrite_in_progress:0")
                && info.contains("aof_rewrite_scheduled:0")
                && info.contains("aof_last_bgrewrite_status:ok")
        };
        assert!(wait_until(PATIENCE, || has_begun(&mut connection)));
        connection.call(&["SET", "round", &round.to_string()]).unwrap();
        let expected = keyspace(&mut connection).unwrap();
        let dir = TempDir::new().unwrap();
        copy_folder(&ours.dir().join("appendonlydir"), &dir.path().join("appendonlydir"));
        let copy = Server::alone_in(&keyward(), dir, &AOF).unwrap();
        assert_same(&expected, &keyspace(&mut connect(&copy)).unwrap());
        connection.call(&["CONFIG", "SET", "appendonly", "no"]).unwrap();
        let has_ended = |connection: &mut Connection| {
            connection.call(&["INFO", "persistence"]).unwrap().string().contains("aof_enabled:0")
        };
        assert!(wait_until(PATIENCE, || has_ended(&mut connection)));
    }
}
