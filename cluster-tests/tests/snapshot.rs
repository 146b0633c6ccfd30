//! BGSAVE under a load of transactions: the file is of one moment, and the real Valkey loads it.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "the test writes from several threads")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cluster_tests::processes::{Server, wait_until};
use cluster_tests::programs;
use cluster_tests::resp_client::Connection;

const PAIRS: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(60);

fn call(connection: &mut Connection, words: &[&str]) -> String {
    connection.call(words).unwrap().string()
}

/// Writes both keys of a pair in one transaction, and what else a snapshot may meet.
fn write(addr: &str, writer: usize, ended: &AtomicBool) {
    let mut connection = Connection::connect(addr).unwrap();
    let mut round = 0usize;
    while !ended.load(Ordering::Relaxed) {
        round += 1;
        let value = round.to_string();
        for pair in (writer..PAIRS).step_by(3) {
            let (a, b) = (format!("a{pair}"), format!("b{pair}"));
            for words in [vec!["MULTI"], vec!["SET", &a, &value], vec!["HSET", &b, "f", &value], vec!["EXEC"]]
            {
                call(&mut connection, &words);
            }
            if pair % 100 == writer {
                let other = format!("other{writer}");
                call(&mut connection, &["SET", &other, &value, "PX", "5"]);
                call(&mut connection, &["RPUSH", &format!("list{writer}"), &value]);
                call(&mut connection, &["RENAME", &format!("list{writer}"), &format!("moved{writer}")]);
                call(&mut connection, &["DEL", &format!("moved{writer}")]);
            }
        }
    }
}

/// The pairs of a server, which are all there and each of one round.
fn check_pairs(addr: &str) -> BTreeMap<usize, String> {
    let mut connection = Connection::connect(addr).unwrap();
    (0..PAIRS)
        .map(|pair| {
            let a = call(&mut connection, &["GET", &format!("a{pair}")]);
            let b = call(&mut connection, &["HGET", &format!("b{pair}"), "f"]);
            assert_eq!(a, b, "pair {pair}");
            (pair, a)
        })
        .collect()
}

fn loads(program: &Path, dump: &Path) -> Server {
    Server::start(program, |port, dir| {
        fs::copy(dump, dir.join("dump.rdb")).unwrap();
        ["--port", &port.to_string(), "--dir", &dir.to_string_lossy(), "--save", "", "--appendonly", "no"]
            .map(str::to_owned)
            .to_vec()
    })
    .unwrap()
}

#[test]
fn a_save_under_load_is_of_one_moment() {
    let server = Server::keyward(&["--io-threads", "2"]).unwrap();
    let mut admin = Connection::connect(&server.addr()).unwrap();
    for pair in 0..PAIRS {
        call(&mut admin, &["SET", &format!("a{pair}"), "0"]);
        call(&mut admin, &["HSET", &format!("b{pair}"), "f", "0"]);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (addr, ended) = (server.addr(), Arc::clone(&ended));
            thread::spawn(move || write(&addr, writer, &ended))
        })
        .collect();
    let dump = server.dir().join("dump.rdb");
    for _ in 0..3 {
        assert_eq!(call(&mut admin, &["BGSAVE"]), "Background saving started");
        assert!(wait_until(DEADLINE, || {
            call(&mut admin, &["INFO", "persistence"]).contains("rdb_bgsave_in_progress:0")
        }));
        let info = call(&mut admin, &["INFO", "persistence"]);
        assert!(info.contains("rdb_last_bgsave_status:ok"), "{info}");
        let node = programs::keyward("keyward-node").unwrap();
        let checked = Command::new(node).arg("check-rdb").arg(&dump).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        if let Some(dir) = programs::valkey_or_skip("save under load") {
            let copy = loads(&dir.join("valkey-server"), &dump);
            check_pairs(&copy.addr());
        }
    }
    ended.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|w| w.join().unwrap());
    // Nothing is written or expires any more: what a SAVE contains is what is there.
    let lasting = (2 * PAIRS).to_string();
    assert!(wait_until(DEADLINE, || call(&mut admin, &["DBSIZE"]) == lasting));
    assert_eq!(call(&mut admin, &["SAVE"]), "OK");
    assert!(call(&mut admin, &["INFO", "persistence"]).contains("rdb_changes_since_last_save:0"));
    if let Some(dir) = programs::valkey_or_skip("save under load") {
        let copy = loads(&dir.join("valkey-server"), &dump);
        assert_eq!(check_pairs(&copy.addr()), check_pairs(&server.addr()));
    }
    let left: Vec<_> =
        fs::read_dir(server.dir()).unwrap().filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| name.starts_with("temp-")), "{left:?}");
}

#[test]
fn rules_failures_and_the_end_of_the_process() {
    let mut server = Server::keyward(&["--save", "1 3"]).unwrap();
    let mut admin = Connection::connect(&server.addr()).unwrap();
    let dump = server.dir().join("dump.rdb");
    assert_eq!(call(&mut admin, &["CONFIG", "GET", "save"]), "2");
    call(&mut admin, &["MSET", "a", "1", "b", "2", "c", "3"]);
    assert!(wait_until(DEADLINE, || dump.exists()));
    assert!(wait_until(DEADLINE, || {
        call(&mut admin, &["INFO", "persistence"]).contains("rdb_changes_since_last_save:0")
    }));
    // A directory in the place of the file: the save fails, and writes are refused.
    fs::remove_file(&dump).unwrap();
    fs::create_dir(&dump).unwrap();
    fs::write(dump.join("x"), "x").unwrap();
    assert_eq!(call(&mut admin, &["BGSAVE"]), "Background saving started");
    assert!(wait_until(DEADLINE, || {
        call(&mut admin, &["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
    }));
    assert!(call(&mut admin, &["SET", "a", "2"]).starts_with("MISCONF Valkey is configured to save RDB"));
    assert!(call(&mut admin, &["PING"]).starts_with("MISCONF"));
    assert_eq!(call(&mut admin, &["GET", "a"]), "1");
    assert_eq!(call(&mut admin, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]), "OK");
    assert_eq!(call(&mut admin, &["SET", "a", "2"]), "OK");
    assert_eq!(call(&mut admin, &["SHUTDOWN"]), "ERR Errors trying to SHUTDOWN. Check logs.");
    assert_eq!(call(&mut admin, &["SET", "a", "3"]), "OK");
    fs::remove_dir_all(&dump).unwrap();
    assert!(admin.call(&["SHUTDOWN", "SAVE"]).is_err());
    assert!(wait_until(DEADLINE, || !server.is_running()));
    assert!(dump.is_file());
    if let Some(dir) = programs::valkey_or_skip("save at the end") {
        let copy = loads(&dir.join("valkey-server"), &dump);
        let mut copy = Connection::connect(&copy.addr()).unwrap();
        assert_eq!(call(&mut copy, &["GET", "a"]), "3");
    }
}
