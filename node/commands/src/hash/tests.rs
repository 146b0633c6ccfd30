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

/// 2024-01-01, as the keyspace of the tests has it.
const NOW: i64 = 1_704_067_200_000;
const NUMFIELDS: &str = "-ERR numfields should be greater than 0 and match the provided number of fields\r\n";
const SYNTAX: &str = "-ERR syntax error\r\n";
const NOT_INTEGER: &str = "-ERR value is not an integer or out of range\r\n";

#[test]
fn fields_get_times() {
    check(&[
        ("HSET h a 1 b 2 c 3", ":3\r\n"),
        ("HEXPIRE h 100 FIELDS 2 a x", "*2\r\n:1\r\n:-2\r\n"),
        ("HTTL h FIELDS 3 a b x", "*3\r\n:100\r\n:-1\r\n:-2\r\n"),
        ("HPTTL h FIELDS 1 a", "*1\r\n:100000\r\n"),
        ("HEXPIRETIME h FIELDS 1 a", "*1\r\n:1704067300\r\n"),
        ("HPEXPIRETIME h FIELDS 2 a b", "*2\r\n:1704067300000\r\n:-1\r\n"),
        ("HEXPIRE h 50 NX FIELDS 3 a b x", "*3\r\n:0\r\n:1\r\n:-2\r\n"),
        ("HPEXPIRE h 50000 XX FIELDS 2 a c", "*2\r\n:1\r\n:0\r\n"),
        ("HEXPIRE h 50 GT FIELDS 2 a c", "*2\r\n:0\r\n:0\r\n"),
        ("HEXPIREAT h 1704067260 LT FIELDS 2 a c", "*2\r\n:0\r\n:1\r\n"),
        ("HPEXPIREAT h 1704067261500 XX GT FIELDS 2 a a", "*2\r\n:1\r\n:0\r\n"),
        ("HTTL h FIELDS 1 a", "*1\r\n:62\r\n"),
        ("OBJECT ENCODING h", "$9\r\nhashtable\r\n"),
        ("HPERSIST h FIELDS 3 a a x", "*3\r\n:1\r\n:-1\r\n:-2\r\n"),
        ("HEXPIRE none 10 FIELDS 2 a b", "*2\r\n:-2\r\n:-2\r\n"),
        ("HTTL none FIELDS 1 a", "*1\r\n:-2\r\n"),
        ("HPERSIST none FIELDS 1 a", "*1\r\n:-2\r\n"),
        ("HPEXPIREAT h 9223372036854775807 FIELDS 1 a", "*1\r\n:1\r\n"),
        ("HEXPIRETIME h FIELDS 1 a", "*1\r\n:9223372036854776\r\n"),
        ("HPTTL h FIELDS 1 a", "*1\r\n:9223370332787575807\r\n"),
    ]);
}

#[test]
fn a_time_that_has_passed_deletes_fields() {
    check(&[
        ("HSET h a 1 b 2 c 3", ":3\r\n"),
        ("HEXPIRE h 0 FIELDS 3 a a x", "*3\r\n:2\r\n:-2\r\n:-2\r\n"),
        ("OBJECT ENCODING h", "$8\r\nlistpack\r\n"),
        ("HPEXPIREAT h 1 XX FIELDS 1 b", "*1\r\n:0\r\n"),
        ("HGETEX h PXAT 1 FIELDS 2 b b", "*2\r\n$1\r\n2\r\n$-1\r\n"),
        ("HSETEX h EX 0 FIELDS 2 c 4 d 5", ":1\r\n"),
        ("EXISTS h", ":0\r\n"),
        ("HSETEX h EX 0 FIELDS 1 c 4", ":1\r\n"),
        ("EXISTS h", ":0\r\n"),
    ]);
}

#[test]
fn fields_and_times_are_set_at_once() {
    check(&[
        ("HSETEX h XX EX 10 FIELDS 1 a 1", ":0\r\n"),
        ("HSETEX h FXX EX 10 FIELDS 1 a 1", ":0\r\n"),
        ("HSETEX h NX EX 10 FIELDS 1 a 1", ":1\r\n"),
        ("HSETEX h NX EX 10 FIELDS 1 a 2", ":0\r\n"),
        ("HSETEX h FNX PX 20000 FIELDS 2 b 1 a 2", ":0\r\n"),
        ("HSETEX h XX FNX PX 20000 FIELDS 2 b 1 c 2", ":1\r\n"),
        ("HSETEX h FXX KEEPTTL FIELDS 2 a 5 b 6", ":1\r\n"),
        ("HSETEX h FIELDS 2 c 7 d 8", ":1\r\n"),
        ("HTTL h FIELDS 4 a b c d", "*4\r\n:10\r\n:20\r\n:-1\r\n:-1\r\n"),
        ("HGETEX h FIELDS 3 a x d", "*3\r\n$1\r\n5\r\n$-1\r\n$1\r\n8\r\n"),
        ("HGETEX h PERSIST FIELDS 2 a d", "*2\r\n$1\r\n5\r\n$1\r\n8\r\n"),
        ("HGETEX h EXAT 1704067205 FIELDS 2 b x", "*2\r\n$1\r\n6\r\n$-1\r\n"),
        ("HTTL h FIELDS 4 a b c d", "*4\r\n:-1\r\n:5\r\n:-1\r\n:-1\r\n"),
        ("HGETEX none EX 10 FIELDS 2 a b", "*2\r\n$-1\r\n$-1\r\n"),
        ("HSETEX e FIELDS 1 a 1", ":1\r\n"),
        ("OBJECT ENCODING e", "$8\r\nlistpack\r\n"),
    ]);
}

#[test]
fn what_is_wrong_is_said_in_valkeys_order() {
    let invalid = |command: &str| format!("-ERR invalid expire time in '{command}' command\r\n");
    check(&[
        ("SET s v", "+OK\r\n"),
        ("HEXPIRE s 10 FIELDS 1 a", WRONG_TYPE),
        ("HEXPIRE s x FIELDS 1 a", NOT_INTEGER),
        ("HEXPIRE s x FIELDS 2 a", NUMFIELDS),
        ("HEXPIRE s 10 FIELDS x a", NOT_INTEGER),
        ("HEXPIRE s 10 FIELDS 0 a", NUMFIELDS),
        ("HEXPIRE s 10 FIELDS -1 a", NUMFIELDS),
        ("HEXPIRE s 10 FIELDZ 1 a", NUMFIELDS),
        ("HEXPIRE s 10 NX FIELDS 1", NUMFIELDS),
        ("HEXPIRE s 10 FIELDS 1 a NX", NUMFIELDS),
        ("HEXPIRE s 10 FOO FIELDS 1 a", "-ERR Unsupported option FOO\r\n"),
        (
            "HEXPIRE s 10 NX GT FIELDS x a",
            "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n",
        ),
        ("HEXPIRE s -1 FIELDS 1 a", &invalid("hexpire")),
        ("HPEXPIRE s 9223372036854775807 FIELDS 1 a", &invalid("hpexpire")),
        ("HEXPIREAT s 9223372036854776 FIELDS 1 a", &invalid("hexpireat")),
        ("HTTL s FIELDS 1 a", WRONG_TYPE),
        ("HTTL s FIELDS 2 a", SYNTAX),
        ("HTTL s FOO x a", SYNTAX),
        ("HTTL s FIELDS x a", NOT_INTEGER),
        ("HPERSIST s FIELDS 2 a", NUMFIELDS),
        ("HPERSIST s FOO x a", SYNTAX),
        ("HSETEX s NX EX 10 FIELDS 1 a 1", WRONG_TYPE),
        ("HSETEX s EX x FIELDS 2 a 1", NUMFIELDS),
        ("HSETEX s EX x FIELDS 1 a 1", WRONG_TYPE),
        ("HSETEX none XX EX x FIELDS 1 a 1", ":0\r\n"),
        ("HSETEX none FXX EX x FIELDS 1 a 1", NOT_INTEGER),
        ("HSETEX none EX -1 FIELDS 1 a 1", &invalid("hsetex")),
        ("HSETEX s EX 10 FIELDS 1 a 1 b", NUMFIELDS),
        ("HSETEX s EX 10 FIELDS 9223372036854775807 a 1", NUMFIELDS),
        ("HSETEX s EX 10 FIELDZ 1 a 1", NUMFIELDS),
        ("HSETEX s EX FIELDS 1 a 1", SYNTAX),
        ("HSETEX s EX 10 PX 10 FIELDS 1 a 1", SYNTAX),
        ("HSETEX s KEEPTTL EX 10 FIELDS 1 a 1", SYNTAX),
        ("HSETEX s PERSIST FIELDS 1 a 1", SYNTAX),
        ("HSETEX s NX XX FIELDS 1 a 1", SYNTAX),
        ("HSETEX s FNX FXX FIELDS 1 a 1", SYNTAX),
        ("HGETEX s PXAT 1 FIELDS 1 a", WRONG_TYPE),
        ("HGETEX s KEEPTTL FIELDS 1 a", SYNTAX),
        ("HGETEX s PERSIST EX 10 FIELDS 1 a", SYNTAX),
        ("HGETEX s EX -1 FIELDS 1 a", WRONG_TYPE),
        ("HGETEX none EX -1 FIELDS 1 a", &invalid("hgetex")),
        ("HGETEX s FIELDS 1 a EX 10", NUMFIELDS),
    ]);
}

#[test]
fn a_field_that_has_expired_is_hidden() {
    let mut keyspace = TestKeyspace::new();
    keyspace.run("HSET h a 1 b 2 c 3 d 4");
    keyspace.run("HPEXPIRE h 100 FIELDS 2 a b");
    keyspace.pass(100);
    check_on(&mut keyspace, &[("HMGET h a b", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n")]);
    keyspace.pass(1);
    check_on(
        &mut keyspace,
        &[
            ("HLEN h", ":4\r\n"),
            ("HGET h a", "$-1\r\n"),
            ("HEXISTS h a", ":0\r\n"),
            ("HSTRLEN h a", ":0\r\n"),
            ("HTTL h FIELDS 1 a", "*1\r\n:-2\r\n"),
            ("HEXPIRE h 10 FIELDS 1 a", "*1\r\n:-2\r\n"),
            ("HPERSIST h FIELDS 1 a", "*1\r\n:-2\r\n"),
            ("HGETEX h EX 10 FIELDS 1 a", "*1\r\n$-1\r\n"),
            ("HGETDEL h FIELDS 2 a c", "*2\r\n$-1\r\n$1\r\n3\r\n"),
            ("HDEL h a", ":0\r\n"),
            ("HGETALL h", "*2\r\n$1\r\nd\r\n$1\r\n4\r\n"),
            ("HKEYS h", "*1\r\n$1\r\nd\r\n"),
            ("HVALS h", "*1\r\n$1\r\n4\r\n"),
            ("HSCAN h 0", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nd\r\n$1\r\n4\r\n"),
            ("HRANDFIELD h", "$1\r\nd\r\n"),
            ("HRANDFIELD h 5", "*1\r\n$1\r\nd\r\n"),
            ("HRANDFIELD h -2", "*2\r\n$1\r\nd\r\n$1\r\nd\r\n"),
            ("HSETEX h FXX EX 10 FIELDS 1 a 1", ":0\r\n"),
            ("HDEL h d", ":1\r\n"),
            ("EXISTS h", ":1\r\n"),
            ("HGETALL h", "*0\r\n"),
            ("HRANDFIELD h", "$-1\r\n"),
            ("HRANDFIELD h -2", "*0\r\n"),
            ("RPUSH l 1", ":1\r\n"),
            ("SET w_1 x", "+OK\r\n"),
            ("SORT l BY nosort GET h->a GET w_*", "*2\r\n$-1\r\n$1\r\nx\r\n"),
        ],
    );
    keyspace.expire_fields(b"h");
    assert_eq!(keyspace.run("EXISTS h"), ":0\r\n");
}

#[test]
fn a_field_that_has_expired_is_set_anew() {
    let mut keyspace = TestKeyspace::replicated();
    for (request, reply, effects) in [
        ("HSET h a 1", ":1\r\n", &["HSET h a 1"][..]),
        ("HSETNX h a 1", ":1\r\n", &["HSET h a 1"]),
        ("HINCRBY h a 1", ":1\r\n", &["HSET h a 1"]),
        ("HINCRBYFLOAT h a 1", "$1\r\n1\r\n", &["HSET h a 1"]),
        ("HSETEX h KEEPTTL FIELDS 2 a 1 b 1", ":1\r\n", &["HSETEX h KEEPTTL FIELDS 1 b 1", "HSET h a 1"]),
        ("HSETEX h FNX FIELDS 1 a 1", ":1\r\n", &["HSET h a 1"]),
    ] {
        keyspace.run("HSETEX h PX 10 FIELDS 1 a 7");
        keyspace.run("HSETEX h PX 1000 FIELDS 1 b 7");
        keyspace.effects();
        keyspace.pass(11);
        assert_eq!(keyspace.run(request), reply, "{request}");
        assert_eq!(keyspace.effects(), effects, "{request}");
        assert_eq!(keyspace.run("HGETEX h FIELDS 1 a"), "*1\r\n$1\r\n1\r\n", "{request}");
        assert_eq!(keyspace.run("HTTL h FIELDS 1 a"), "*1\r\n:-1\r\n", "{request}");
    }
}

#[test]
fn what_changes_a_field_keeps_its_time_or_not() {
    let mut keyspace = TestKeyspace::new();
    for (request, left) in [
        ("HSET h a 1", -1),
        ("HMSET h a 1", -1),
        ("HSETNX h a 1", 10),
        ("HINCRBY h a 1", 10),
        ("HINCRBYFLOAT h a 1", 10),
        ("HSETEX h FIELDS 1 a 1", -1),
        ("HSETEX h KEEPTTL FIELDS 1 a 1", 10),
        ("HGETEX h FIELDS 1 a", 10),
        ("COPY h g", 10),
        ("RENAME g h", 10),
    ] {
        keyspace.run("HSETEX h EX 10 FIELDS 1 a 7");
        keyspace.run(request);
        assert_eq!(keyspace.run("HTTL h FIELDS 1 a"), format!("*1\r\n:{left}\r\n"), "{request}");
    }
    keyspace.run("HDEL h a");
    keyspace.run("HSET h a 1");
    assert_eq!(keyspace.run("HTTL h FIELDS 1 a"), "*1\r\n:-1\r\n");
}

#[test]
fn effects_of_times() {
    let mut keyspace = TestKeyspace::replicated();
    for (request, effects) in [
        ("HSET h a 1 b 2 c 3", vec!["HSET h a 1 b 2 c 3".to_owned()]),
        ("HEXPIRE h 10 FIELDS 3 a x b", vec![format!("HPEXPIREAT h {} FIELDS 2 a b", NOW + 10_000)]),
        ("HEXPIRE h 10 GT FIELDS 2 a b", vec![]),
        ("HPERSIST h FIELDS 3 a c x", vec!["HPERSIST h FIELDS 1 a".into()]),
        ("HGETEX h FIELDS 1 a", vec![]),
        ("HGETEX h PX 5 FIELDS 2 a x", vec![format!("HPEXPIREAT h {} FIELDS 1 a", NOW + 5)]),
        ("HGETEX h PERSIST FIELDS 3 a b c", vec!["HPERSIST h FIELDS 2 a b".into()]),
        ("HSETEX h XX FXX EX 1 FIELDS 1 a 5", vec![format!("HSETEX h PXAT {} FIELDS 1 a 5", NOW + 1000)]),
        ("HINCRBYFLOAT h a 1", vec!["HSETEX h KEEPTTL FIELDS 1 a 6".into()]),
        ("HINCRBY h a 1", vec!["HINCRBY h a 1".into()]),
        ("HSETEX h FNX EX 1 FIELDS 1 a 5", vec![]),
        ("HEXPIRE h 0 FIELDS 2 b x", vec!["HDEL h b".into()]),
        ("HSETEX h EX 0 FIELDS 2 a 1 x 1", vec!["HDEL h a".into()]),
        ("HSETEX h EX 0 FIELDS 1 x 1", vec![]),
        ("HGETEX h EX 0 FIELDS 1 c", vec!["HDEL h c".into()]),
        ("EXISTS h", vec![]),
        ("HSETEX new EX 0 FIELDS 1 x 1", vec![]),
    ] {
        keyspace.run(request);
        assert_eq!(keyspace.effects(), effects, "{request}");
    }
    keyspace.run("HSET h a 1 b 2 c 3");
    keyspace.run("HPEXPIRE h 10 FIELDS 1 b");
    keyspace.run("HPEXPIRE h 5 FIELDS 1 a");
    keyspace.effects();
    keyspace.pass(11);
    keyspace.run("HDEL h a b c");
    assert_eq!(keyspace.effects(), ["HDEL h c"]);
    keyspace.expire_fields(b"h");
    assert_eq!(
        (keyspace.effects(), keyspace.run("EXISTS h")),
        (vec!["HDEL h a b".to_owned()], ":0\r\n".into())
    );
}

/// What a replica has applied it shows as the primary does, and it deletes nothing by itself.
#[test]
fn a_replica_hides_what_has_expired() {
    let mut keyspace = TestKeyspace::replicated();
    keyspace.run("HSET h a 1 b 2");
    keyspace.run("HSETEX h PX 10 FIELDS 2 a 5 c 6");
    keyspace.run("HPEXPIRE h 20 FIELDS 1 b");
    keyspace.pass(11);
    keyspace.run("HINCRBY h c 1");
    let mut replica = keyspace.replica();
    for keyspace in [&mut keyspace, &mut replica] {
        check_on(
            keyspace,
            &[
                ("HLEN h", ":3\r\n"),
                ("HMGET h a b c", "*3\r\n$-1\r\n$1\r\n2\r\n$1\r\n1\r\n"),
                ("HPTTL h FIELDS 3 a b c", "*3\r\n:-2\r\n:9\r\n:-1\r\n"),
            ],
        );
    }
    replica.pass(100);
    check_on(&mut replica, &[("HLEN h", ":3\r\n"), ("HKEYS h", "*1\r\n$1\r\nc\r\n")]);
}
