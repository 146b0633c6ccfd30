//! Replies and effects of hash commands.

use std::collections::BTreeSet;

use crate::testing::{TestKeyspace, check, check_on};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn fields_are_set_read_and_deleted() {
    check(&[
        ("HSET h a 1 b 2", ":2\r\n"),
        ("HSET h a 3 c 4", ":1\r\n"),
        ("HSET h a", "-ERR wrong number of arguments for 'hset' command\r\n"),
        ("HMSET h a 1 b", "-ERR wrong number of arguments for 'hmset' command\r\n"),
        ("HSETNX h a 9", ":0\r\n"),
        ("HSETNX h d 9", ":1\r\n"),
        ("HMGET h a x d", "*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n9\r\n"),
        ("HSTRLEN h a", ":1\r\n"),
        ("HEXISTS h x", ":0\r\n"),
        ("HDEL h b c x", ":2\r\n"),
        ("HLEN h", ":2\r\n"),
        ("HGETDEL h FIELDS 2 a a", "*2\r\n$1\r\n3\r\n$-1\r\n"),
        (
            "HGETDEL h FIELDS 2 a",
            "-ERR numfields should be greater than 0 and match the provided number of fields\r\n",
        ),
        ("HDEL h d", ":1\r\n"),
        ("HGETALL h", "*0\r\n"),
        ("HLEN h", ":0\r\n"),
        ("SET s v", "+OK\r\n"),
        ("HSET s a 1", WRONG_TYPE),
        ("HGETDEL s FIELDS 1 a", WRONG_TYPE),
    ]);
}

#[test]
fn numbers() {
    check(&[
        ("HINCRBY h n 5", ":5\r\n"),
        ("HINCRBY h n -7", ":-2\r\n"),
        ("HINCRBYFLOAT h n 2.1", "$3\r\n0.1\r\n"),
        ("HINCRBYFLOAT h n 0.2", "$3\r\n0.3\r\n"),
        ("HINCRBY h n 1", "-ERR hash value is not an integer\r\n"),
        ("HINCRBYFLOAT h n inf", "-ERR value is NaN or Infinity\r\n"),
        ("HINCRBYFLOAT h n x", "-ERR value is not a valid float\r\n"),
        ("HSET h m 9223372036854775807 t text", ":2\r\n"),
        ("HINCRBY h m 1", "-ERR increment or decrement would overflow\r\n"),
        ("HINCRBYFLOAT h t 1", "-ERR hash value is not a float\r\n"),
        ("HINCRBYFLOAT none f nan", "-ERR value is not a valid float\r\n"),
        ("HLEN none", ":0\r\n"),
    ]);
}

#[test]
fn a_scan_returns_every_field_of_a_large_hash() {
    let mut keyspace = TestKeyspace::new();
    let names: Vec<String> = (0..2_000).map(|i| format!("f{i}")).collect();
    for name in &names {
        keyspace.run(&format!("HSET h {name} v"));
    }
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let reply = keyspace.run(&format!("HSCAN h {cursor} COUNT 50 NOVALUES"));
        let mut words = reply.split("\r\n").filter(|w| !w.starts_with(['*', '$']) && !w.is_empty());
        cursor = words.next().unwrap().to_owned();
        seen.extend(words.map(str::to_owned));
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, names.into_iter().collect());
    assert!((20..60).contains(&calls), "{calls}");
}

#[test]
fn a_small_hash_is_scanned_in_one_call() {
    check(&[
        ("HSET h a 1", ":1\r\n"),
        ("HSCAN h 77 COUNT 1", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n"),
        ("HSCAN h 0 NOVALUES MATCH a*", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n"),
        ("HSCAN h 0 MATCH b*", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ("HSCAN h x", "-ERR invalid cursor\r\n"),
        ("HSCAN none 5 COUNT x", "*2\r\n$1\r\n0\r\n*0\r\n"),
    ]);
}

#[test]
fn random_fields() {
    let mut keyspace = TestKeyspace::new();
    check_on(
        &mut keyspace,
        &[
            ("HSET h a 1", ":1\r\n"),
            ("HRANDFIELD h", "$1\r\na\r\n"),
            ("HRANDFIELD h 5 WITHVALUES", "*2\r\n$1\r\na\r\n$1\r\n1\r\n"),
            ("HRANDFIELD h -2 WITHVALUES", "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n1\r\n"),
            ("HRANDFIELD h 0", "*0\r\n"),
            ("HRANDFIELD none -3", "*0\r\n"),
            ("HRANDFIELD h -4611686018427387904 WITHVALUES", "-ERR value is out of range\r\n"),
            (
                "HRANDFIELD h -9223372036854775807",
                "-ERR value is out of range, the reply would be too large\r\n",
            ),
        ],
    );
    assert_eq!(keyspace.resp3().run("HRANDFIELD h 5 WITHVALUES"), "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n");
}

#[test]
fn effects() {
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "HSET h a 1 b 2",
        "HSETNX h a 2",
        "HINCRBY h a 5",
        "HINCRBYFLOAT h b 0.5",
        "HDEL h x",
        "HGETDEL h FIELDS 2 x b",
        "HGETDEL h FIELDS 1 x",
        "HDEL h a",
    ] {
        keyspace.run(request);
    }
    assert_eq!(
        keyspace.effects(),
        ["HSET h a 1 b 2", "HINCRBY h a 5", "HSET h b 2.5", "HDEL h b", "HDEL h a"]
    );
}
