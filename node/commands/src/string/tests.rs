//! Replies and effects of the group string.

use crate::testing::{TestKeyspace, check, check_on};

const OK: &str = "+OK\r\n";
const SYNTAX: &str = "-ERR syntax error\r\n";
const NULL: &str = "$-1\r\n";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn set_options() {
    check(&[
        ("SET a 1 XX", NULL),
        ("SET a 1 NX", OK),
        ("SET a 2 NX", NULL),
        ("SET a 2 NX GET", "$1\r\n1\r\n"),
        ("SET a 2 IFEQ 3", NULL),
        ("SET a 2 IFEQ 1", OK),
        ("SET a 3 GET", "$1\r\n2\r\n"),
        ("SET a 3 NX XX", SYNTAX),
        ("SET a 3 IFEQ 3 IFEQ 3", SYNTAX),
        ("SET a 3 EX 10 KEEPTTL", SYNTAX),
        ("SET a 3 EX", SYNTAX),
        ("SET a 3 EX x", "-ERR value is not an integer or out of range\r\n"),
        ("SET a 3 PX 0", "-ERR invalid expire time in 'set' command\r\n"),
        ("SET a 3 EX 100", OK),
        ("SET a 4 KEEPTTL", OK),
        ("TTL a", ":100\r\n"),
        ("SET a 5 PXAT 1", OK),
        ("EXISTS a", ":0\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("SET l 1 GET", WRONG_TYPE),
        ("SET l 1 IFEQ 1", WRONG_TYPE),
        ("SET l 1", OK),
    ]);
}

/// Of Redis 8.4. The digests are of other programs: of its manual, and of Dragonfly's.
#[test]
fn values_are_compared_first() {
    const DIGEST: &str = "-ERR must be exactly 16 hexadecimal characters\r\n";
    check(&[
        ("SET a 1 IFNE 1", OK),
        ("SET a 1 IFNE 1", NULL),
        ("SET a 2 IFNE 1", NULL),
        ("SET a 2 IFNE 3 GET", "$1\r\n1\r\n"),
        ("SET a 2 IFNE 3 XX", SYNTAX),
        ("SET a 2 IFNE 3 IFNE 3", SYNTAX),
        ("SET a 2 IFNE", SYNTAX),
        ("SET a test", OK),
        ("DIGEST a", "$16\r\n9ec9f7918d7dfc40\r\n"),
        ("SET a hello", OK),
        ("DIGEST a", "$16\r\n9555e8555c62dcfd\r\n"),
        ("DIGEST none", NULL),
        ("SET a 1 IFDEQ 9ec9f7918d7dfc40", NULL),
        ("SET a test IFDEQ 9555E8555C62DCFD", OK),
        ("SET a 1 IFDNE 9ec9f7918d7dfc40", NULL),
        ("SET a 1 IFDNE 9555e8555c62dcfd", OK),
        ("SET none 1 IFDEQ 9ec9f7918d7dfc40", NULL),
        ("SET a 1 IFDEQ 9ec9f7918d7dfc4", DIGEST),
        ("SET a 1 IFDEQ +ec9f7918d7dfc40", DIGEST),
        ("SET none 1 IFDNE 9ec9f7918d7dfc40", OK),
        ("DELEX a IFEQ 2", ":0\r\n"),
        ("DELEX a IFNE 1", ":0\r\n"),
        ("DELEX a IFEQ 1 IFEQ 1", SYNTAX),
        ("DELEX a IFEQ", SYNTAX),
        ("DELEX a NX", SYNTAX),
        ("DELEX a IFDEQ 1", DIGEST),
        ("DELEX a IFEQ 1", ":1\r\n"),
        ("DELEX a IFNE 1", ":0\r\n"),
        ("SET a test", OK),
        ("DELEX a IFDNE 9ec9f7918d7dfc40", ":0\r\n"),
        ("DELEX a IFDEQ 9ec9f7918d7dfc40", ":1\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("DIGEST l", WRONG_TYPE),
        ("SET l 1 IFNE 1", WRONG_TYPE),
        ("SET l 1 IFDNE 9ec9f7918d7dfc40", WRONG_TYPE),
        ("DELEX l IFNE 1", WRONG_TYPE),
        ("DELEX l", ":1\r\n"),
        ("DELEX l", ":0\r\n"),
    ]);
}

#[test]
fn set_effects_are_unconditional() {
    let mut keyspace = TestKeyspace::replicated();
    for (request, effects) in [
        ("SET a 1", vec!["SET a 1"]),
        ("SET a 2 NX", vec![]),
        ("SET a 2 XX GET", vec!["SET a 2"]),
        ("SET a 3 IFEQ 2 PXAT 99999999999999", vec!["SET a 3 PXAT 99999999999999"]),
        ("SET a 4 KEEPTTL", vec!["SET a 4 KEEPTTL"]),
        ("SETNX b 1", vec!["SET b 1"]),
        ("GETSET b 2", vec!["SET b 2"]),
        ("GETEX b EXAT 99999999999", vec!["PEXPIREAT b 99999999999000"]),
        ("GETEX b PERSIST", vec!["PERSIST b"]),
        ("GETEX b PERSIST", vec![]),
        ("GETEX b EXAT 1", vec!["DEL b"]),
        ("SET a 5 PXAT 1", vec!["DEL a"]),
        ("SET a 5 PXAT 1", vec![]),
        ("SET a 5", vec!["SET a 5"]),
        ("SET a 5 IFNE 5", vec![]),
        ("SET a 6 IFNE 7", vec!["SET a 6"]),
        ("DELEX a IFNE 6", vec![]),
        ("DELEX a IFNE 5", vec!["DEL a"]),
        ("SET a 5 IFDNE 9ec9f7918d7dfc40 PXAT 99999999999999", vec!["SET a 5 PXAT 99999999999999"]),
        ("DELIFEQ a 4", vec![]),
        ("DELIFEQ a 5", vec!["DEL a"]),
        ("GETDEL a", vec![]),
    ] {
        keyspace.run(request);
        assert_eq!(keyspace.effects(), effects, "{request}");
    }
    keyspace.run("SETEX a 100 1");
    let effects = keyspace.effects();
    assert!(matches!(&effects[..], [one] if one.starts_with("SET a 1 PXAT ")), "{effects:?}");
}

#[test]
fn several_keys() {
    let mut keyspace = TestKeyspace::replicated();
    check_on(
        &mut keyspace,
        &[
            ("MSET a 1 b 2 a 3", OK),
            ("MGET a b c", "*3\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n"),
            ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
            ("MSETNX c 1 a 2", ":0\r\n"),
            ("MSETNX c 1 d 2", ":1\r\n"),
            ("MSETEX 0 a 1", "-ERR invalid numkeys value or out of range\r\n"),
            ("MSETEX 2 a 1 XX", SYNTAX),
            ("MSETEX 2 a 1 new 2 XX", ":0\r\n"),
            ("MSETEX 1 a 7 XX PXAT 99999999999999", ":1\r\n"),
            ("MSETEX 1 a 8 KEEPTTL", ":1\r\n"),
        ],
    );
    let effects = [
        "SET a 1",
        "SET b 2",
        "SET a 3",
        "SET c 1",
        "SET d 2",
        "SET a 7 PXAT 99999999999999",
        "SET a 8 KEEPTTL",
    ];
    assert_eq!(keyspace.effects(), effects);
    check_on(&mut keyspace, &[("MSET {t}a 1 {t}b 2", OK)]);
    assert_eq!(keyspace.effects(), ["MSET {t}a 1 {t}b 2"]);
}

#[test]
fn numbers() {
    check(&[
        ("INCR n", ":1\r\n"),
        ("DECRBY n 11", ":-10\r\n"),
        ("INCRBY n 9223372036854775807", ":9223372036854775797\r\n"),
        ("INCRBY n 11", "-ERR increment or decrement would overflow\r\n"),
        ("DECRBY n -9223372036854775808", "-ERR decrement would overflow\r\n"),
        ("SET s \" 1\"", OK),
        ("INCR s", "-ERR value is not an integer or out of range\r\n"),
        ("INCRBYFLOAT s 1", "-ERR value is not a valid float\r\n"),
        ("INCRBYFLOAT f 0.1", "$3\r\n0.1\r\n"),
        ("INCRBYFLOAT f 0.2", "$3\r\n0.3\r\n"),
        ("INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity\r\n"),
        ("INCRBYFLOAT f -3e-1", "$1\r\n0\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("INCR l", WRONG_TYPE),
        ("INCRBYFLOAT l x", WRONG_TYPE),
    ]);
    let mut keyspace = TestKeyspace::replicated();
    check_on(&mut keyspace, &[("INCRBYFLOAT f 1.5", "$3\r\n1.5\r\n"), ("INCR n", ":1\r\n")]);
    assert_eq!(keyspace.effects(), ["SET f 1.5 KEEPTTL", "INCR n"]);
}

#[test]
fn parts_of_strings() {
    check(&[
        ("APPEND a he", ":2\r\n"),
        ("APPEND a llo", ":5\r\n"),
        ("SETRANGE a 7 !", ":8\r\n"),
        ("GET a", "$8\r\nhello\0\0!\r\n"),
        ("SETRANGE a 1 \"\"", ":8\r\n"),
        ("SETRANGE none 1 \"\"", ":0\r\n"),
        ("EXISTS none", ":0\r\n"),
        ("SETRANGE a -1 x", "-ERR offset is out of range\r\n"),
        ("SETRANGE a 536870912 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"),
        (
            "SETRANGE a 9223372036854775807 x",
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        ),
        ("GETRANGE a 0 4", "$5\r\nhello\r\n"),
        ("SUBSTR a -1 -1", "$1\r\n!\r\n"),
        ("STRLEN a", ":8\r\n"),
        ("STRLEN none", ":0\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("APPEND l x", WRONG_TYPE),
        ("SETRANGE l 0 \"\"", WRONG_TYPE),
        ("GETRANGE l 0 1", WRONG_TYPE),
    ]);
}

#[test]
fn longest_common_subsequence() {
    check(&[
        ("MSET a ohmytext b mynewtext", OK),
        ("LCS a b", "$6\r\nmytext\r\n"),
        ("LCS a b LEN", ":6\r\n"),
        (
            "LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
            "*4\r\n$7\r\nmatches\r\n*1\r\n*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n$3\r\nlen\r\n:6\r\n",
        ),
        ("LCS a none", "$0\r\n\r\n"),
        ("LCS a b IDX LEN", "-ERR If you want both the length and indexes, please just use IDX.\r\n"),
        ("LCS a b MINMATCHLEN", SYNTAX),
        ("RPUSH l x", ":1\r\n"),
        ("LCS a l", "-ERR The specified keys must contain string values\r\n"),
        ("SETRANGE a 100000 x", ":100001\r\n"),
        ("SETRANGE b 100000 x", ":100001\r\n"),
        ("LCS a b", "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len\r\n"),
    ]);
}

/// What a replica holds after the effects is what the primary holds.
#[test]
fn a_replica_follows() {
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "MSET a 1 b 2 c 3",
        "SET d x PX 1",
        "MSETEX 2 e 1 f 2 PXAT 1",
        "SET e y KEEPTTL",
        "INCRBYFLOAT f 0.25",
        "APPEND a 2",
        "SETRANGE b 3 x",
        "GETDEL c",
        "MSETNX g 1 h 2",
    ] {
        keyspace.run(request);
    }
    let mut replica = keyspace.replica();
    for key in ["a", "b", "c", "e", "f", "g", "h"] {
        let (get, ttl) = (format!("GET {key}"), format!("PEXPIRETIME {key}"));
        assert_eq!((replica.run(&get), replica.run(&ttl)), (keyspace.run(&get), keyspace.run(&ttl)), "{key}");
    }
}
