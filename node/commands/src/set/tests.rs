//! Replies and effects of set commands.

use std::collections::BTreeSet;

use crate::testing::{TestKeyspace, check, check_on};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn members_come_and_go() {
    check(&[
        ("SADD s a b a", ":2\r\n"),
        ("SADD s a", ":0\r\n"),
        ("SMISMEMBER s a x", "*2\r\n:1\r\n:0\r\n"),
        ("SMISMEMBER none a", "*1\r\n:0\r\n"),
        ("SISMEMBER s b", ":1\r\n"),
        ("SMOVE s t a", ":1\r\n"),
        ("SMOVE s t a", ":0\r\n"),
        ("SMOVE t t a", ":1\r\n"),
        ("SMEMBERS t", "*1\r\n$1\r\na\r\n"),
        ("SREM s b x", ":1\r\n"),
        ("SCARD s", ":0\r\n"),
        ("SET string v", "+OK\r\n"),
        ("SMOVE none string a", ":0\r\n"),
        ("SMOVE t string a", WRONG_TYPE),
        ("SMOVE t string x", WRONG_TYPE),
        ("SADD string a", WRONG_TYPE),
        ("SINTER none string", WRONG_TYPE),
        ("SSCAN t 0", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n"),
        ("SSCAN t 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN\r\n"),
    ]);
}

#[test]
fn algebra() {
    check(&[
        ("SADD a 1 2 3", ":3\r\n"),
        ("SADD b 2 3 4", ":3\r\n"),
        ("SADD c 3", ":1\r\n"),
        ("SINTER a b c", "*1\r\n$1\r\n3\r\n"),
        ("SINTER a none", "*0\r\n"),
        ("SINTERCARD 2 a b", ":2\r\n"),
        ("SINTERCARD 2 a b LIMIT 1", ":1\r\n"),
        ("SINTERCARD 2 a b LIMIT 0", ":2\r\n"),
        ("SINTERCARD 3 a b", "-ERR Number of keys can't be greater than number of args\r\n"),
        ("SDIFF a b", "*1\r\n$1\r\n1\r\n"),
        ("SDIFF none a", "*0\r\n"),
        ("SUNIONSTORE d a b c none", ":4\r\n"),
        ("SDIFFSTORE d d a", ":1\r\n"),
        ("SMEMBERS d", "*1\r\n$1\r\n4\r\n"),
        ("SINTERSTORE d a none", ":0\r\n"),
        ("SCARD d", ":0\r\n"),
        ("SET d string", "+OK\r\n"),
        ("SUNIONSTORE d c", ":1\r\n"),
        ("SUNION d none", "*1\r\n$1\r\n3\r\n"),
    ]);
}

#[test]
fn random_members() {
    check(&[
        ("SADD s a", ":1\r\n"),
        ("SRANDMEMBER s", "$1\r\na\r\n"),
        ("SRANDMEMBER s -3", "*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n"),
        ("SRANDMEMBER s 3", "*1\r\n$1\r\na\r\n"),
        ("SRANDMEMBER none 3", "*0\r\n"),
        (
            "SRANDMEMBER s -9223372036854775807",
            "-ERR value is out of range, the reply would be too large\r\n",
        ),
        ("SPOP s 0", "*0\r\n"),
        ("SPOP s 5", "*1\r\n$1\r\na\r\n"),
        ("SPOP s", "$-1\r\n"),
        ("SPOP s -1", "-ERR value is out of range, must be positive\r\n"),
        ("SPOP s 1 2", "-ERR syntax error\r\n"),
    ]);
    let mut keyspace = TestKeyspace::new().resp3();
    check_on(
        &mut keyspace,
        &[("SADD s a", ":1\r\n"), ("SPOP s 1", "~1\r\n$1\r\na\r\n"), ("SPOP s 1", "~0\r\n")],
    );
}

#[test]
fn replicas_hold_the_same_members() {
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "SADD a 1 2 3 4 5 6 7 8 9",
        "SADD b 7 8 9 10 11",
        "SADD {a}2 1 2 20",
        "SPOP a",
        "SPOP a 3",
        "SPOP b 100",
        "SADD b 1 2 3 4 5 6 7 8",
        "SMOVE a b 1",
        "SMOVE a b 2",
        "SMOVE b a 3",
        "SUNIONSTORE c a b",
        "SINTERSTORE {a}3 a {a}2",
        "SDIFFSTORE d a none",
        "SDIFFSTORE d none a",
        "SADD c 1 2 3",
        "SREM c 5 nothing",
    ] {
        keyspace.run(request);
    }
    let mut replica = keyspace.replica();
    for key in ["a", "b", "c", "d", "{a}2", "{a}3"] {
        let request = format!("SMEMBERS {key}");
        let members = |reply: String| reply.split("\r\n").map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(members(keyspace.run(&request)), members(replica.run(&request)), "{key}");
    }
}

#[test]
fn effects_name_what_chance_chose() {
    let mut keyspace = TestKeyspace::replicated();
    for request in
        ["SADD s a", "SADD s a", "SPOP s", "SADD t a b", "SPOP t 2", "SUNIONSTORE u none", "SPOP t"]
    {
        keyspace.run(request);
    }
    assert_eq!(keyspace.effects(), ["SADD s a", "SREM s a", "SADD t a b", "DEL t"]);
}
