//! Second starts: every state in which a directory may be found, then a start, more writes, `kill -9`, another start, a
//! rewrite, and once more. Everything acknowledged is there each time, or the start is refused with one clear line and
//! nothing is touched. What another program has left is given to the real Valkey as well: where that starts, Keyward
//! has no key less, unless it says so by refusing.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster_tests::processes::{Server, free_port, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::{Connection, encode};
use rustix::process::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const AOF: [&str; 2] = ["--appendonly", "yes"];
const MANIFEST: &str = "appendonlydir/appendonly.aof.manifest";
const INCREMENT: &str = "appendonlydir/appendonly.aof.1.incr.aof";

type Keys = BTreeSet<String>;

/// What a start is to do with a directory.
enum Outcome {
    /// It serves exactly these keys.
    Serves(Keys),
    /// It ends with a line that has these words.
    Refuses(&'static str),
}

use Outcome::{Refuses, Serves};

/// A state of a directory.
struct Way {
    name: String,
    dir: TempDir,
    directives: Vec<&'static str>,
    outcome: Outcome,
}

fn way(name: impl Into<String>, dir: TempDir, directives: &[&'static str], outcome: Outcome) -> Way {
    Way { name: name.into(), dir, directives: directives.to_vec(), outcome }
}

fn keyward() -> PathBuf {
    programs::keyward("keyward-node").unwrap()
}

fn spawn(program: &Path, dir: TempDir, directives: &[&str]) -> Server {
    Server::spawn_on(program, free_port(), dir, |port, dir| {
        let (port, dir) = (port.to_string(), dir.display().to_string());
        let own = ["--port", &port, "--dir", &dir, "--save", "", "--appendonly", "no"];
        own.iter().chain(directives).map(|word| (*word).to_owned()).collect()
    })
    .unwrap()
}

/// Runs a program in a directory, has it do something, ends it by `kill -9`, and gives back the directory.
fn after(program: &Path, dir: TempDir, directives: &[&str], act: impl FnOnce(&mut Connection)) -> TempDir {
    let mut server = spawn(program, dir, directives);
    server.wait_until_answering().unwrap();
    let mut connection = connect(&server);
    act(&mut connection);
    server.kill();
    copy_of(server.dir())
}

fn connect(server: &Server) -> Connection {
    Connection::connect(&server.addr()).expect("a started server listens")
}

fn copy_of(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for (name, bytes) in files(dir) {
        write(&copy, &name, &bytes);
    }
    copy
}

fn write(dir: &TempDir, name: &str, bytes: &[u8]) {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn read(dir: &TempDir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path().join(name)).unwrap()
}

/// The files of a directory and those of its `appendonlydir`.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["", "appendonlydir/"] {
        let Ok(entries) = std::fs::read_dir(dir.join(folder)) else { continue };
        for entry in entries.map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let name = format!("{folder}{}", entry.file_name().to_string_lossy());
            // It may have been renamed meanwhile.
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            found.insert(name, bytes);
        }
    }
    found.remove("log");
    found
}

/// Sets keys to themselves; each has been acknowledged when this returns.
fn set(connection: &mut Connection, prefix: &str, count: usize) -> Keys {
    let keys: Keys = (0..count).map(|i| format!("{prefix}:{i:04}")).collect();
    for key in &keys {
        let reply = connection.call(&["SET", key, key]).unwrap();
        assert_eq!(reply.raw, "+OK\r\n", "{key}");
    }
    keys
}

fn keys(connection: &mut Connection) -> Keys {
    let names = connection.call(&["KEYS", "*"]).unwrap();
    let names: Keys = names.items.iter().map(|name| name.string()).collect();
    for name in &names {
        assert_eq!(connection.call(&["GET", name]).unwrap().string(), *name);
    }
    names
}

fn info_has(connection: &mut Connection, lines: &[&str]) -> bool {
    let info = connection.call(&["INFO", "persistence"]).unwrap().string();
    lines.iter().all(|line| info.contains(line))
}

const SETTLED: [&str; 3] =
    ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"];

/// Waits until everything acknowledged from now on is kept.
fn wait_until_kept(connection: &mut Connection) {
    let lines = [&SETTLED[..], &["aof_enabled:1"]].concat();
    assert!(wait_until(PATIENCE, || info_has(connection, &lines)));
}

fn rewrite(connection: &mut Connection) {
    connection.call(&["BGREWRITEAOF"]).unwrap();
    assert!(wait_until(PATIENCE, || info_has(connection, &SETTLED)));
}

fn check(way: Way) {
    let Way { name, dir, directives, outcome } = way;
    let before = files(dir.path());
    let is_aof = directives.contains(&"--appendonly");
    let mut server = spawn(&keyward(), dir, &directives);
    let started = server.wait_until_answering();
    let mut expected = match outcome {
        Serves(keys) => keys,
        Refuses(words) => {
            let error = started.expect_err(&name);
            let line = error.lines().find(|line| line.contains(words));
            assert!(line.is_some(), "{name}: {error}");
            assert!(!error.contains("panicked"), "{name}: {error}");
            // A single file may have been moved into the directory, as Valkey does.
            let after = files(server.dir());
            let is_kept = |bytes: &Vec<u8>| after.values().any(|other| other == bytes);
            assert!(before.values().all(is_kept), "{name}: a start that is refused changes no data");
            return;
        }
    };
    if let Err(error) = started {
        panic!("{name}: {error}");
    }
    for round in 0..3 {
        let mut connection = connect(&server);
        assert_eq!(keys(&mut connection), expected, "{name}, start {round}: {}", server.log_end());
        if is_aof {
            wait_until_kept(&mut connection);
        }
        expected.extend(set(&mut connection, &format!("round{round}"), 3));
        if is_aof && round == 1 {
            rewrite(&mut connection);
            expected.extend(set(&mut connection, "rewritten", 3));
        }
        if !is_aof {
            assert_eq!(connection.call(&["SAVE"]).unwrap().raw, "+OK\r\n");
        }
        server.restart().unwrap();
        server.wait_until_answering().unwrap_or_else(|error| panic!("{name}, after round {round}: {error}"));
    }
    assert_eq!(keys(&mut connect(&server)), expected, "{name}: {}", server.log_end());
    let log = server.log();
    assert!(!log.contains("panicked"), "{name}: {log}");
}

/// What Valkey makes of another program's directory: its keys, or that it does not start.
fn keys_of_valkey(dir: &Path, directives: &[&str]) -> Option<Keys> {
    let program = programs::valkey_or_skip("second starts of Valkey")?.join("valkey-server");
    let mut server = spawn(&program, copy_of(dir), directives);
    server.wait_until_answering().ok()?;
    Some(keys(&mut connect(&server)))
}

fn check_all(ways: Vec<Way>) {
    assert!(!ways.is_empty());
    ways.into_iter().for_each(check);
}

/// As [`check`], for what another program has left: Valkey must not have more.
fn check_foreign(way: Way) {
    if let (Some(theirs), Serves(ours)) = (keys_of_valkey(way.dir.path(), &way.directives), &way.outcome) {
        assert!(theirs.is_subset(ours), "{}: Valkey has {theirs:?}", way.name);
    }
    check(way);
}

// ---------------------------------------------------------------------- Keyward's own log

/// A directory with ten keys in its log; each is a batch of its own.
fn own(directives: &[&str]) -> (TempDir, Keys) {
    let mut expected = Keys::new();
    let dir = after(&keyward(), TempDir::new().unwrap(), directives, |connection| {
        expected = set(connection, "k", 10);
    });
    (dir, expected)
}

/// The same with a base and a file behind it.
fn own_rewritten() -> (TempDir, Keys) {
    let mut expected = Keys::new();
    let dir = after(&keyward(), TempDir::new().unwrap(), &AOF, |connection| {
        expected = set(connection, "before", 10);
        rewrite(connection);
        expected.extend(set(connection, "k", 10));
    });
    (dir, expected)
}

fn without_last(mut keys: Keys) -> Keys {
    keys.pop_last();
    keys
}

#[test]
fn own_logs_with_a_torn_tail() {
    let (dir, expected) = own(&AOF);
    let log = read(&dir, INCREMENT);
    let mut ways = Vec::new();
    for cut in [1, 2, 9, 30, 60] {
        let copy = copy_of(dir.path());
        write(&copy, INCREMENT, &log[..log.len() - cut]);
        ways.push(way(format!("{cut} bytes torn off"), copy, &AOF, Serves(without_last(expected.clone()))));
    }
    for (name, tail) in [
        ("zeros", vec![0; 4096]),
        ("half a batch", log[log.len() - 90..log.len() - 20].to_vec()),
        ("half an annotation", b"#KW log t=0 i=1".to_vec()),
        ("garbage", vec![0xa5; 100]),
    ] {
        let copy = copy_of(dir.path());
        write(&copy, INCREMENT, &[&log[..], &tail].concat());
        ways.push(way(format!("{name} behind the end"), copy, &AOF, Serves(expected.clone())));
    }
    ways.push(way("whole", dir, &AOF, Serves(expected)));
    check_all(ways);
}

#[test]
fn own_logs_that_were_damaged() {
    let always = [&AOF[..], &["--appendfsync", "always"]].concat();
    let (dir, _) = own(&always);
    let log = read(&dir, INCREMENT);
    let mut ways = Vec::new();
    for at in [log.len() / 3, log.len() / 2, log.len() * 2 / 3] {
        let copy = copy_of(dir.path());
        let mut garbled = log.clone();
        garbled[at] ^= 1;
        write(&copy, INCREMENT, &garbled);
        ways.push(way(format!("garbled at {at}"), copy, &always, Refuses("is damaged at offset")));
    }
    let (dir, _) = own_rewritten();
    let manifest = String::from_utf8(read(&dir, MANIFEST)).unwrap();
    let lines: Vec<&str> = manifest.split_inclusive('\n').collect();
    assert!(3 <= lines.len(), "{manifest}");
    for kept in 1..lines.len() {
        let copy = copy_of(dir.path());
        write(&copy, MANIFEST, lines[..kept].concat().as_bytes());
        let name = format!("{kept} lines of the manifest");
        ways.push(way(name, copy, &AOF, Refuses("the manifest is not as it was written")));
    }
    let copy = copy_of(dir.path());
    write(&copy, MANIFEST, b"");
    ways.push(way("an empty manifest", copy, &AOF, Refuses("the manifest names no file")));
    let copy = copy_of(dir.path());
    std::fs::remove_file(copy.path().join(MANIFEST)).unwrap();
    ways.push(way("no manifest", copy, &AOF, Refuses("there is no manifest that names it")));
    let second = "appendonlydir/appendonly.aof.2.incr.aof";
    for bytes in [&b""[..], b"#KW head t="] {
        let copy = copy_of(dir.path());
        write(&copy, second, bytes);
        ways.push(way("an increment without its begin", copy, &AOF, Refuses("has lost its beginning")));
    }
    let copy = copy_of(dir.path());
    std::fs::remove_file(copy.path().join(second)).unwrap();
    ways.push(way("an increment is gone", copy, &AOF, Refuses("can't open")));
    // An older manifest.
    let copy = copy_of(dir.path());
    write(&copy, "appendonlydir/appendonly.aof.3.incr.aof", &command(&["SET", "lost", "lost"]));
    ways.push(way("an increment that is not named", copy, &AOF, Refuses("does not name it")));
    // Other names.
    let renamed = [&AOF[..], &["--appendfilename", "other.aof"]].concat();
    ways.push(way(
        "another appendfilename",
        dir,
        &renamed,
        Refuses("set 'appendfilename' to 'appendonly.aof'"),
    ));
    check_all(ways);
}

const BASES: [&str; 2] =
    ["appendonlydir/appendonly.aof.1.base.rdb", "appendonlydir/appendonly.aof.2.base.rdb"];

/// The second base with a file behind it, and the first one, which had the same place before.
fn own_rewritten_twice(directives: &[&str]) -> (TempDir, Keys, Vec<u8>) {
    let (dir, mut expected) = own_rewritten();
    let older = read(&dir, BASES[0]);
    let dir = after(&keyward(), dir, directives, |connection| {
        expected.extend(set(connection, "large", 300));
        rewrite(connection);
        expected.extend(set(connection, "last", 3));
    });
    (dir, expected, older)
}

/// A disk may have lost the blocks of a base, or its name. What follows it is whole and would be loaded: hundreds of keys would be
/// missing, and nobody would know.
#[test]
fn own_bases_that_are_not_the_one() {
    let unchecked = [&AOF[..], &["--rdbchecksum", "no"]].concat();
    let (dir, expected, older) = own_rewritten_twice(&unchecked);
    let base = read(&dir, BASES[1]);
    let manifest = String::from_utf8(read(&dir, MANIFEST)).unwrap();
    let unsigned: String = manifest.split_inclusive('\n').skip(1).collect();
    assert!(manifest.starts_with("#KW manifest ") && !unsigned.contains('#'), "{manifest}");
    if let Some(theirs) = keys_of_valkey(dir.path(), &AOF) {
        assert_eq!(theirs, expected, "Valkey passes over what it does not know");
    }
    let mut no_end = base.clone();
    no_end[base.len() - 100..].fill(0);
    let mut no_middle = base.clone();
    no_middle[base.len() / 3..][..64].fill(0);
    let not_the_one = "is not the base that the manifest names";
    let mut ways = Vec::new();
    for (name, bytes, signed, hand_made) in [
        ("empty", vec![], not_the_one, "does not say what it contains"),
        ("zeros", vec![0; base.len()], not_the_one, ""),
        ("its end is zeros", no_end, not_the_one, ""),
        ("its middle is zeros", no_middle, "can't load", ""),
        ("cut off", base[..base.len() / 2].to_vec(), not_the_one, "can't load"),
        ("the one before", older, not_the_one, "is that of 0.10"),
    ] {
        for (manifest, words) in [(&manifest, signed), (&unsigned, hand_made)] {
            if !words.is_empty() {
                let copy = copy_of(dir.path());
                write(&copy, BASES[1], &bytes);
                write(&copy, MANIFEST, manifest.as_bytes());
                ways.push(way(format!("base: {name}: {words}"), copy, &unchecked, Refuses(words)));
            }
        }
    }
    write(&dir, MANIFEST, unsigned.as_bytes());
    ways.push(way("a manifest without its first line", dir, &unchecked, Serves(expected)));
    check_all(ways);
}

#[test]
fn what_a_rewrite_leaves_behind_is_in_nobodys_way() {
    let (dir, expected) = own_rewritten();
    let folder = "appendonlydir/appendonly.aof";
    write(&dir, "appendonlydir/temp-rewriteaof-bg-77.aof", b"REDIS0010\xfa");
    write(&dir, "appendonlydir/temp-appendonly.aof.manifest", b"file appen");
    write(&dir, "temp-77-1.rdb", b"REDIS0010\xfa");
    write(&dir, "temp-77.rdb", b"REDIS0010\xfa");
    write(&dir, &format!("{folder}.2.base.rdb"), &read(&dir, &format!("{folder}.1.base.rdb")));
    // The next file has what the one in use has, too.
    write(&dir, &format!("{folder}.3.incr.aof"), &read(&dir, &format!("{folder}.2.incr.aof")));
    write(&dir, &format!("{folder}.4.incr.aof"), b"");
    let mut server = spawn(&keyward(), copy_of(dir.path()), &AOF);
    server.wait_until_answering().unwrap();
    let names = || files(server.dir()).into_keys().collect::<Vec<String>>();
    let kept = ["1.base.rdb", "2.incr.aof", "manifest"].map(|name| format!("{folder}.{name}"));
    let others = ["temp-77.rdb".to_owned()];
    let left = [&kept[..], &others].concat();
    // A manifest that is just being written has another name first.
    wait_until(PATIENCE, || names() == left);
    assert_eq!(names(), left, "what is Keyward's own is deleted");
    check_all(vec![way("leftovers", dir, &AOF, Serves(expected))]);
}

#[test]
fn a_kill_in_the_middle_of_a_rewrite() {
    let mut server = spawn(&keyward(), TempDir::new().unwrap(), &AOF);
    server.wait_until_answering().unwrap();
    let mut connection = connect(&server);
    let mut expected = Keys::new();
    // Large enough for a rewrite to take a while.
    let value = "x".repeat(2000);
    for i in 0..3000 {
        connection.send(&["RPUSH", "large", &format!("{i}{value}")]);
    }
    for _ in 0..3000 {
        assert!(!connection.reply().unwrap().is_error());
    }
    for round in 0..12_usize {
        connection.call(&["BGREWRITEAOF"]).unwrap();
        // The rewrite is at another point each time.
        expected.extend(set(&mut connection, &format!("round{round}"), round * round));
        server.restart().unwrap();
        server.wait_until_answering().unwrap();
        connection = connect(&server);
        let names = connection.call(&["KEYS", "round*"]).unwrap();
        let names: Keys = names.items.iter().map(|name| name.string()).collect();
        assert_eq!(names, expected, "round {round}: {}", server.log_end());
        assert_eq!(connection.call(&["LLEN", "large"]).unwrap().integer(), Some(3000));
    }
    rewrite(&mut connection);
    let names = files(server.dir()).into_keys().collect::<Vec<_>>();
    assert_eq!(names.len(), 3, "a manifest, a base, a file behind it: {names:?}");
}

#[test]
fn appendonly_switched_on_and_off() {
    let on_and_off = |connection: &mut Connection, value: &str| {
        connection.call(&["CONFIG", "SET", "appendonly", value]).unwrap();
        let line = if value == "yes" { "aof_enabled:1" } else { "aof_enabled:0" };
        let lines = [&SETTLED[..], &[line]].concat();
        assert!(wait_until(PATIENCE, || info_has(connection, &lines)));
    };
    let mut expected = Keys::new();
    let dir = after(&keyward(), TempDir::new().unwrap(), &[], |connection| {
        expected.extend(set(connection, "off", 3));
        for round in 0..3 {
            on_and_off(connection, "yes");
            expected.extend(set(connection, &format!("on{round}"), 3));
            on_and_off(connection, "no");
            expected.extend(set(connection, &format!("off{round}"), 3));
        }
        on_and_off(connection, "yes");
        expected.extend(set(connection, "at-last", 3));
    });
    let mut ways = vec![way("switched on", dir, &AOF, Serves(expected))];
    // Killed before the first base was there: only what was saved before was promised.
    let mut expected = Keys::new();
    let dir = after(&keyward(), TempDir::new().unwrap(), &[], |connection| {
        expected = set(connection, "saved", 3);
        connection.call(&["SAVE"]).unwrap();
        connection.call(&["CONFIG", "SET", "appendonly", "yes"]).unwrap();
    });
    ways.push(way("switched on and killed", dir, &AOF, Serves(expected)));
    check_all(ways);
}

// ---------------------------------------------------------------------- RDB files

#[test]
fn rdb_files() {
    let mut expected = Keys::new();
    let dir = after(&keyward(), TempDir::new().unwrap(), &[], |connection| {
        expected = set(connection, "k", 10);
        connection.call(&["SAVE"]).unwrap();
        set(connection, "not-saved", 3);
    });
    let copy = copy_of(dir.path());
    let foreign = |version: &[u8], body: &[u8]| {
        let dir = TempDir::new().unwrap();
        write(&dir, "dump.rdb", &[version, b"\xfa\x04name\x05value\xfe\0", body, &[0xff], &[0; 8]].concat());
        dir
    };
    let key = b"\0\x01k\x01k";
    // Four kilobytes of a hash with a field that expires, as Redis 7.4 has it.
    let hash = [&b"\x18\x01h"[..], &[1; 8], b"\x01\x02\x01f\x01v"].concat();
    let relaxed = ["--rdb-version-check", "relaxed"];
    let one: Keys = ["k".to_owned()].into();
    check_all(vec![
        way("RDB only", dir, &[], Serves(expected.clone())),
        way("RDB, then appendonly", copy, &AOF, Serves(expected)),
        way("RDB 12, strict", foreign(b"REDIS0012", key), &[], Refuses("rdb-version-check relaxed")),
        way("RDB 12", foreign(b"REDIS0012", key), &relaxed, Serves(one.clone())),
        way("RDB of a later Valkey", foreign(b"VALKEY099", key), &relaxed, Serves(one)),
        way(
            "RDB 12 with a type that is not there",
            foreign(b"REDIS0012", &[&key[..], &hash].concat()),
            &relaxed,
            Refuses(
                "hash with fields that expire, of Redis 7.4 or later (type 24), at byte 28, key \"h\" of database 0",
            ),
        ),
        way(
            "an empty file",
            {
                let dir = TempDir::new().unwrap();
                write(&dir, "dump.rdb", b"");
                dir
            },
            &[],
            Refuses("can't load 'dump.rdb'"),
        ),
    ]);
}

// ---------------------------------------------------------------------- what other programs leave

fn command(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(words, &mut out);
    out
}

/// The commands of an AOF as Valkey writes them, in pieces that count as a whole or not at all, with the keys that
/// each sets.
fn plain() -> Vec<(Vec<u8>, Vec<&'static str>)> {
    let set = |key: &'static str| (command(&["SET", key, key]), vec![key]);
    let all = [&["MULTI"][..], &["SET", "c", "c"], &["SET", "d", "d"], &["EXEC"]];
    let transaction = (all.iter().flat_map(|words| command(words)).collect(), vec!["c", "d"]);
    vec![
        (command(&["SELECT", "0"]), vec![]),
        set("a"),
        set("b"),
        transaction,
        set("long-name-of-a-key"),
        set("z"),
    ]
}

/// The bytes and keys of all pieces that lie before an offset.
fn before(offset: usize) -> Keys {
    let mut end = 0;
    let whole = plain().into_iter().take_while(|(bytes, _)| {
        end += bytes.len();
        end <= offset
    });
    whole.flat_map(|(_, keys)| keys).map(str::to_owned).collect()
}

fn plain_bytes() -> Vec<u8> {
    plain().into_iter().flat_map(|(bytes, _)| bytes).collect()
}

fn foreign(log: &[u8]) -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir, MANIFEST, b"file appendonly.aof.1.incr.aof seq 1 type i\n");
    write(&dir, INCREMENT, log);
    dir
}

#[test]
fn foreign_logs_with_a_torn_end() {
    let log = plain_bytes();
    // Inside a length, a name, a value, a line's end, a transaction, at the begin of one.
    let in_transaction = plain().iter().take(3).map(|(bytes, _)| bytes.len()).sum::<usize>();
    let places = [1, 2, 6, 24, 30, 44, in_transaction + 3, in_transaction + 20, in_transaction + 70];
    let places = places.into_iter().chain([log.len() - 26, log.len() - 2, log.len() - 1, log.len()]);
    for end in places {
        let name = format!("{end} of {} bytes", log.len());
        check_foreign(way(name, foreign(&log[..end]), &AOF, Serves(before(end))));
    }
    let strict = [&AOF[..], &["--aof-load-truncated", "no"]].concat();
    let refuses = Refuses("set aof-load-truncated yes to start with what comes before");
    check(way("aof-load-truncated no", foreign(&log[..log.len() - 2]), &strict, refuses));
    let whole = before(log.len());
    check_foreign(way("whole, aof-load-truncated no", foreign(&log), &strict, Serves(whole)));
}

#[test]
fn foreign_logs_that_make_no_sense() {
    let log = plain_bytes();
    let mut garbled = log.clone();
    garbled[24] = b'~';
    let more = |words: &[&str]| foreign(&[&log[..], &command(words)].concat());
    check_all(vec![
        way("garbled", foreign(&garbled), &AOF, Refuses("is damaged at offset 23")),
        way("SELECT 20", more(&["SELECT", "20"]), &AOF, Refuses("SELECT 20: the log has more databases")),
        way(
            "an unknown command",
            more(&["NOSUCH", "s", "*", "f", "v"]),
            &AOF,
            Refuses("unknown command 'NOSUCH'"),
        ),
        way("a wrong type", more(&["LPUSH", "a", "x"]), &AOF, Refuses("WRONGTYPE")),
        way("zeros", foreign(&[&log[..], &[0; 64]].concat()), &AOF, Refuses("commands are expected here")),
    ]);
    let (first, second) = log.split_at(plain().iter().take(3).map(|(bytes, _)| bytes.len()).sum());
    let two = |manifest: &str| {
        let dir = foreign(first);
        write(&dir, "appendonlydir/appendonly.aof.2.incr.aof", second);
        write(&dir, MANIFEST, manifest.as_bytes());
        dir
    };
    let lines = "file appendonly.aof.1.incr.aof seq 1 type i\nfile appendonly.aof.2.incr.aof seq 2 type i\n";
    let cut = lines.split_inclusive('\n').next().unwrap();
    check_foreign(way("two files", two(lines), &AOF, Serves(before(log.len()))));
    check(way("a manifest cut at a line", two(cut), &AOF, Refuses("does not name it")));
    let missing = two(lines);
    std::fs::remove_file(missing.path().join(MANIFEST)).unwrap();
    check(way("no manifest", missing, &AOF, Refuses("there is no manifest that names it")));
}

#[test]
fn single_files_of_earlier_versions() {
    let log = plain_bytes();
    let preamble = b"REDIS0009\xfe\0\0\x01p\x01p\xff\0\0\0\0\0\0\0\0";
    let with_preamble = |mut keys: Keys| {
        keys.insert("p".into());
        keys
    };
    let single = |parts: &[&[u8]]| {
        let dir = TempDir::new().unwrap();
        write(&dir, "appendonly.aof", &parts.concat());
        dir
    };
    let torn = log.len() - 3;
    for (name, dir, expected) in [
        ("plain", single(&[&log]), before(log.len())),
        ("plain, torn", single(&[&log[..torn]]), before(torn)),
        ("RDB only", single(&[preamble]), with_preamble(Keys::new())),
        ("RDB and commands", single(&[preamble, &log]), with_preamble(before(log.len()))),
        ("RDB and torn commands", single(&[preamble, &log[..torn]]), with_preamble(before(torn))),
    ] {
        check_foreign(way(name, dir, &AOF, Serves(expected)));
    }
    check(way("a torn RDB", single(&[&preamble[..14]]), &AOF, Refuses("it ends too early")));
}

/// Keyward's directory, then Valkey, then Keyward; Valkey's own directory; killed and torn.
#[test]
fn directories_that_valkey_has_gone_on_with() {
    let Some(dir) = programs::valkey_or_skip("second starts after Valkey") else { return };
    let valkey = dir.join("valkey-server");
    let always = [&AOF[..], &["--appendfsync", "always"]].concat();
    let (ours, from_ours) = own(&AOF);
    let (rewritten, from_rewritten) = own_rewritten();
    let empty = TempDir::new().unwrap();
    for (name, dir, before, log) in [
        ("Keyward's log", ours, from_ours, INCREMENT),
        ("Keyward's base and log", rewritten, from_rewritten, "appendonlydir/appendonly.aof.2.incr.aof"),
        ("its own", empty, Keys::new(), INCREMENT),
    ] {
        let mut expected = before;
        let dir = after(&valkey, dir, &always, |connection| {
            assert_eq!(keys(connection), expected, "{name}");
            expected.extend(set(connection, "valkey", 10));
        });
        let bytes = read(&dir, log);
        for cut in [1, 5, 20] {
            let torn = copy_of(dir.path());
            write(&torn, log, &bytes[..bytes.len() - cut]);
            check_foreign(way(
                format!("{name}, then Valkey, {cut} bytes torn off"),
                torn,
                &AOF,
                Serves(without_last(expected.clone())),
            ));
        }
        let mut garbled = bytes.clone();
        // The number of arguments of one of the last commands.
        let command = bytes[..bytes.len() - 100].windows(4).rposition(|four| four == b"*3\r\n").unwrap();
        garbled[command + 1] = b'~';
        let damaged = copy_of(dir.path());
        write(&damaged, log, &garbled);
        check(way(format!("{name}, then Valkey, damaged"), damaged, &AOF, Refuses("is damaged at offset")));
        let rewritten = after(&valkey, copy_of(dir.path()), &always, rewrite);
        check_foreign(way(format!("{name}, rewritten by Valkey"), rewritten, &AOF, Serves(expected.clone())));
        check_foreign(way(format!("{name}, then Valkey"), dir, &AOF, Serves(expected)));
    }
    // Valkey cuts a torn batch off by its own rules, here with its annotation, and goes on.
    let (dir, expected) = own(&AOF);
    let bytes = read(&dir, INCREMENT);
    write(&dir, INCREMENT, &bytes[..bytes.len() - 5]);
    let mut expected = without_last(expected);
    let dir = after(&valkey, dir, &always, |connection| expected.extend(set(connection, "valkey", 3)));
    check_foreign(way("Valkey behind a torn batch", dir, &AOF, Serves(expected)));
}

// ---------------------------------------------------------------------- one directory, one process

#[test]
fn a_directory_has_one_process() {
    for directives in [&[][..], &AOF] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().to_owned();
        let mut first = spawn(&keyward(), dir, directives);
        first.wait_until_answering().unwrap();
        let mut connection = connect(&first);
        let expected = set(&mut connection, "k", 3);
        let port = free_port().to_string();
        let second = std::process::Command::new(keyward())
            .args(["--port", &port, "--save", "", "--dir"])
            .arg(&path)
            .args(directives)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success(), "{error}");
        let line = error.lines().last().unwrap();
        let holder = format!("is in use by the process {}: ", first.pid());
        assert!(line.contains(&holder) && line.contains(&*path.to_string_lossy()), "{error}");
        // The tools still look at its files.
        if !directives.is_empty() {
            let report =
                std::process::Command::new(keyward()).arg("check-aof").arg(path.join(MANIFEST)).output();
            assert!(report.unwrap().status.success());
            let report = std::process::Command::new(keyward())
                .args(["check-aof", "--fix"])
                .arg(path.join(MANIFEST))
                .output();
            let report = report.unwrap();
            assert!(
                !report.status.success() && String::from_utf8_lossy(&report.stdout).contains("is in use")
            );
        }
        assert_eq!(keys(&mut connection), expected);
        // Nothing is left of the lock, however the process has ended.
        first.signal(Signal::KILL);
        first.restart().unwrap();
        first.wait_until_answering().unwrap();
    }
}

/// As a container's first process it would otherwise not be ended by the signal, and be killed when patience is over.
#[test]
fn a_node_that_loads_ends_when_it_is_asked_to() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    // It gives nothing, and has no end.
    let dump = dir.path().join("dump.rdb");
    assert!(Command::new("mkfifo").arg(&dump).status().unwrap().success());
    let _writer = std::fs::File::options().read(true).write(true).open(&dump).unwrap();
    for ending in ["SIGTERM", "SHUTDOWN"] {
        let mut node = Command::new(programs::keyward("keyward-node").unwrap())
            .args(["--port", &port.to_string(), "--dir", dir.path().to_str().unwrap()])
            .spawn()
            .unwrap();
        let loads = || {
            let connected = Connection::connect(&format!("127.0.0.1:{port}"));
            connected.is_ok_and(|mut client| {
                client.call(&["PING"]).is_ok_and(|reply| reply.string().starts_with("LOADING"))
            })
        };
        assert!(wait_until(PATIENCE, loads));
        if ending == "SIGTERM" {
            assert!(Command::new("kill").arg(node.id().to_string()).status().unwrap().success());
        } else {
            Connection::connect(&format!("127.0.0.1:{port}")).unwrap().send(&["SHUTDOWN", "NOSAVE"]);
        }
        let mut status = None;
        assert!(wait_until(PATIENCE, || {
            status = node.try_wait().unwrap();
            status.is_some()
        }));
        assert_eq!(status.unwrap().code(), Some(0), "{ending}");
    }
}
