//! Replies and effects of the group generic.

use std::collections::BTreeSet;

use crate::testing::{TestKeyspace, check, check_on};

const OK: &str = "+OK\r\n";

#[test]
fn keys_are_deleted_and_counted() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("MSET a 1 b 2 {t}1 x {t}2 x", OK),
            ("EXISTS a a b none", ":3\r\n"),
            ("TOUCH a none", ":1\r\n"),
            ("TYPE a", "+string\r\n"),
            ("TYPE none", "+none\r\n"),
            ("DEL a none b b", ":2\r\n"),
            ("UNLINK {t}1 {t}2", ":2\r\n"),
            ("DEL a", ":0\r\n"),
            ("RANDOMKEY", "$-1\r\n"),
        ],
    );
    assert_eq!(keyspace.effects()[4..], ["DEL a", "DEL b", "UNLINK {t}1 {t}2"]);
}

#[test]
fn expiry_conditions() {
    let unsupported = "-ERR Unsupported option foo\r\n";
    let nx = "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n";
    check(&[
        ("SET a 1", OK),
        ("EXPIRE a 100 XX", ":0\r\n"),
        ("EXPIRE a 100 GT", ":0\r\n"),
        ("EXPIRE a 100 LT", ":1\r\n"),
        ("EXPIRE a 50 NX", ":0\r\n"),
        ("EXPIRE a 50 GT", ":0\r\n"),
        ("EXPIRE a 200 GT XX", ":1\r\n"),
        ("TTL a", ":200\r\n"),
        ("EXPIRE a x foo", unsupported),
        ("EXPIRE a 1 NX GT foo", unsupported),
        ("EXPIRE a 1 NX GT", nx),
        ("EXPIRE a 1 LT GT", "-ERR GT and LT options at the same time are not compatible\r\n"),
        ("EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command\r\n"),
        ("PEXPIREAT a 33177117420499", ":1\r\n"),
        ("EXPIRETIME a", ":33177117420\r\n"),
        ("PEXPIRETIME a", ":33177117420499\r\n"),
        ("PERSIST a", ":1\r\n"),
        ("PERSIST a", ":0\r\n"),
        ("TTL a", ":-1\r\n"),
        ("TTL none", ":-2\r\n"),
        ("EXPIRE a -1", ":1\r\n"),
        ("EXISTS a", ":0\r\n"),
        ("EXPIRE a 1", ":0\r\n"),
    ]);
}

#[test]
fn expiry_effects_are_absolute() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[("SET a 1", OK), ("EXPIREAT a 99999999999 NX", ":1\r\n"), ("PEXPIREAT a 1", ":1\r\n")],
    );
    assert_eq!(keyspace.effects(), ["SET a 1", "PEXPIREAT a 99999999999000", "DEL a"]);
    check_on(&mut keyspace, &[("SET a 1", OK), ("PEXPIRE a 1000000", ":1\r\n")]);
    assert!(keyspace.effects()[1].starts_with("PEXPIREAT a "));
}

#[test]
fn rename_within_a_slot_is_one_effect() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("MSET {t}a 1 {t}b 2", OK),
            ("RENAME {t}a {t}b", OK),
            ("RENAME {t}a {t}b", "-ERR no such key\r\n"),
            ("RENAME {t}b {t}b", OK),
            ("RENAMENX {t}b {t}b", ":0\r\n"),
            ("RENAMENX {t}b {t}c", ":1\r\n"),
            ("COPY {t}c {t}d", ":1\r\n"),
            ("COPY {t}c {t}d", ":0\r\n"),
        ],
    );
    let effects = ["RENAME {t}a {t}b", "RENAME {t}b {t}c", "COPY {t}c {t}d DB 0 REPLACE"];
    assert_eq!(keyspace.effects()[1..], effects);
    assert_eq!(keyspace.run("GET {t}d"), "$1\r\n1\r\n");
}

#[test]
fn rename_across_slots_rebuilds_the_value() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("RPUSH a x y", ":2\r\n"),
            ("SET b 1", OK),
            ("PEXPIREAT a 99999999999999", ":1\r\n"),
            ("RENAME a b", OK),
            ("COPY b c", ":1\r\n"),
            ("PEXPIRETIME c", ":99999999999999\r\n"),
        ],
    );
    let effects = [
        "DEL a",
        "DEL b",
        "RPUSH b x y",
        "PEXPIREAT b 99999999999999",
        "RPUSH c x y",
        "PEXPIREAT c 99999999999999",
    ];
    assert_eq!(keyspace.effects()[3..], effects);
}

#[test]
fn move_and_copy_between_databases() {
    let same = "-ERR source and destination objects are the same\r\n";
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("SET a 1", OK),
            ("MOVE a 0", same),
            ("MOVE a 99", "-ERR DB index is out of range\r\n"),
            ("MOVE a x", "-ERR value is not an integer or out of range\r\n"),
            ("MOVE a 3", ":1\r\n"),
            ("MOVE a 3", ":0\r\n"),
            ("SET a 2", OK),
            ("MOVE a 3", ":0\r\n"),
            ("COPY a a", same),
            ("COPY a a DB 3", ":0\r\n"),
            ("COPY a b DB 3 REPLACE", ":1\r\n"),
            ("EXISTS b", ":0\r\n"),
        ],
    );
    let mut replica = keyspace.replica();
    for keyspace in [&mut keyspace, &mut replica] {
        check_on(keyspace, &[("SELECT 3", OK), ("MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n")]);
    }
}

fn scanned(keyspace: &mut TestKeyspace, options: &str) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let reply = keyspace.run(&format!("SCAN {cursor} {options}"));
        let lines: Vec<&str> = reply.split("\r\n").collect();
        cursor = lines[2].to_owned();
        keys.extend(lines[4..].iter().skip(1).step_by(2).map(|k| (*k).to_owned()));
        if cursor == "0" {
            return keys;
        }
    }
}

#[test]
fn scan_finds_every_key_once() {
    let mut keyspace = TestKeyspace::new();
    assert_eq!(scanned(&mut keyspace, ""), [""; 0]);
    for i in 0..500 {
        keyspace.run(&format!("SET key:{i} x"));
        keyspace.run(&format!("SET {{tag}}:{i} x"));
    }
    keyspace.run("RPUSH list x");
    keyspace.run("SET gone x PXAT 1");
    let keys = scanned(&mut keyspace, "COUNT 7");
    assert_eq!(keys.len(), 1001);
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1001);
    assert_eq!(scanned(&mut keyspace, "MATCH key:1?9").len(), 10);
    assert_eq!(scanned(&mut keyspace, "TYPE LIST COUNT 100000"), ["list"]);
    let unknown = "-ERR unknown type name 'x'\r\n";
    check_on(&mut keyspace, &[("SCAN 0 TYPE x", unknown), ("SCAN x", "-ERR invalid cursor\r\n")]);
    check_on(&mut keyspace, &[("KEYS {tag}:77", "*1\r\n$8\r\n{tag}:77\r\n")]);
    assert_eq!(keyspace.run("KEYS *").matches('$').count(), 1001);
    let drawn: BTreeSet<String> = (0..200).map(|_| keyspace.run("RANDOMKEY")).collect();
    assert!(100 < drawn.len());
}

#[test]
fn encodings_are_valkeys_names() {
    let (int, embstr, raw) = ("$3\r\nint\r\n", "$6\r\nembstr\r\n", "$3\r\nraw\r\n");
    let long = "x".repeat(113);
    check(&[
        ("SET k 12", OK),
        ("OBJECT ENCODING k", int),
        ("SET k 012", OK),
        ("OBJECT ENCODING k", embstr),
        (&format!("SET k {}", &long[1..]), OK),
        ("OBJECT ENCODING k", embstr),
        (&format!("SET k {long}"), OK),
        ("OBJECT ENCODING k", raw),
        ("SET k 1", OK),
        ("APPEND k 2", ":2\r\n"),
        ("OBJECT ENCODING k", raw),
        ("COPY k c", ":1\r\n"),
        ("OBJECT ENCODING c", raw),
        ("RPUSH l x", ":1\r\n"),
        ("OBJECT ENCODING l", "$8\r\nlistpack\r\n"),
        (&format!("RPUSH l {}", "x".repeat(9000)), ":2\r\n"),
        ("OBJECT ENCODING l", "$9\r\nquicklist\r\n"),
        ("OBJECT REFCOUNT k", ":1\r\n"),
        ("OBJECT IDLETIME k", ":0\r\n"),
        ("OBJECT ENCODING none", "$-1\r\n"),
    ]);
}

const SLOTS_DIFFER: &str =
    "option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.";

#[test]
fn elements_are_sorted() {
    check(&[
        ("RPUSH l 10 2 33 1", ":4\r\n"),
        ("SORT l", "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$2\r\n10\r\n$2\r\n33\r\n"),
        ("SORT l ALPHA DESC LIMIT 1 2", "*2\r\n$1\r\n2\r\n$2\r\n10\r\n"),
        ("SORT_RO l BY nosort LIMIT -5 1", "*1\r\n$2\r\n10\r\n"),
        ("SORT l LIMIT 9223372036854775807 9223372036854775807", "*0\r\n"),
        ("MSET w_1 4 w_2 3 w_10 2 w_33 1", OK),
        ("SORT l BY w_*", "*4\r\n$2\r\n33\r\n$2\r\n10\r\n$1\r\n2\r\n$1\r\n1\r\n"),
        ("HSET h1 f x", ":1\r\n"),
        (
            "SORT l LIMIT 0 2 GET # GET h*->f GET w_* GET none",
            "*8\r\n$1\r\n1\r\n$1\r\nx\r\n$1\r\n4\r\n$-1\r\n$1\r\n2\r\n$-1\r\n$1\r\n3\r\n$-1\r\n",
        ),
        ("SORT l BY h*->f ALPHA LIMIT 3 1", "*1\r\n$1\r\n1\r\n"),
        ("SORT l BY h*->f", "-ERR One or more scores can't be converted into double\r\n"),
        ("ZADD z 1 b 2 a 0 c", ":3\r\n"),
        ("SORT z BY nosort DESC", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ("SORT z ALPHA", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ("SORT none", "*0\r\n"),
        ("SORT w_1", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
        ("SORT l LIMIT 1", "-ERR syntax error\r\n"),
        ("SORT l LIMIT x 1", "-ERR value is not an integer or out of range\r\n"),
        ("SORT_RO l STORE d", "-ERR syntax error\r\n"),
    ]);
}

#[test]
fn what_is_sorted_is_stored_as_an_effect_of_its_own() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("SADD s 3 1 2", ":3\r\n"),
            ("SORT s BY nosort STORE d", ":3\r\n"),
            ("LRANGE d 0 -1", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"),
            ("SORT s GET none* LIMIT 0 1 STORE d", ":1\r\n"),
            ("LRANGE d 0 -1", "*1\r\n$0\r\n\r\n"),
            ("SORT none STORE d", ":0\r\n"),
            ("SORT none STORE d", ":0\r\n"),
        ],
    );
    assert_eq!(keyspace.effects(), ["SADD s 3 1 2", "DEL d", "RPUSH d 1 2 3", "DEL d", "RPUSH d ", "DEL d"]);
}

#[test]
fn patterns_stay_in_a_slot_in_cluster_mode() {
    let mut keyspace = TestKeyspace::new().cluster();
    let refused = |option: &str| format!("-ERR {option} {SLOTS_DIFFER}\r\n");
    for (request, reply) in [
        ("SORT {k}l BY w*", refused("BY")),
        ("SORT {k}l BY {k*}w", refused("BY")),
        ("SORT {k}l BY {x}w*", refused("BY")),
        ("SORT kk BY *{kk}", refused("BY")),
        ("SORT kk GET {}{kk}*", refused("GET")),
        ("SORT kk GET # GET k*", refused("GET")),
        ("SORT_RO {k}l GET abc", refused("GET")),
        ("SORT {k}l BY nosort GET {k}*->f GET #", "*0\r\n".to_owned()),
        ("SORT kk BY {kk}*{zz}", "*0\r\n".to_owned()),
        ("SORT {kk BY {kk", "*0\r\n".to_owned()),
    ] {
        assert_eq!(keyspace.run(request), reply, "{request}");
    }
}
