//! Replies and effects of list commands; waiting.

use crate::testing::{TestKeyspace, check};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

#[test]
fn push_pop_and_look() {
    check(&[
        ("LPUSHX l a", ":0\r\n"),
        ("RPUSH l a b c", ":3\r\n"),
        ("LPUSH l z y", ":5\r\n"),
        ("LRANGE l 0 -1", "*5\r\n$1\r\ny\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ("LINDEX l -1", "$1\r\nc\r\n"),
        ("LINDEX l 5", "$-1\r\n"),
        ("LSET l -5 Y", "+OK\r\n"),
        ("LSET l 5 x", "-ERR index out of range\r\n"),
        ("LSET none x x", "-ERR no such key\r\n"),
        ("LPOP l", "$1\r\nY\r\n"),
        ("RPOP l 2", "*2\r\n$1\r\nc\r\n$1\r\nb\r\n"),
        ("LPOP none 2", "*-1\r\n"),
        ("LPOP l 0", "*0\r\n"),
        ("LPOP l -1", "-ERR value is out of range, must be positive\r\n"),
        ("LPOP l 1 2", "-ERR wrong number of arguments for 'lpop' command\r\n"),
        ("LTRIM l 5 9", "+OK\r\n"),
        ("LLEN l", ":0\r\n"),
        ("SET s v", "+OK\r\n"),
        ("LLEN s", WRONG_TYPE),
        ("RPUSH s v", WRONG_TYPE),
    ]);
}

#[test]
fn lpos_finds_by_rank_count_and_length() {
    check(&[
        ("RPUSH l a b c 1 2 3 c c", ":8\r\n"),
        ("LPOS l c", ":2\r\n"),
        ("LPOS l c RANK 2", ":6\r\n"),
        ("LPOS l c RANK -1", ":7\r\n"),
        ("LPOS l c COUNT 2", "*2\r\n:2\r\n:6\r\n"),
        ("LPOS l c COUNT 0 RANK -2", "*2\r\n:6\r\n:2\r\n"),
        ("LPOS l c COUNT 0 MAXLEN 7", "*2\r\n:2\r\n:6\r\n"),
        ("LPOS l x", "$-1\r\n"),
        ("LPOS l x COUNT 1", "*0\r\n"),
        ("LPOS none x COUNT 1", "*0\r\n"),
        ("LPOS l c COUNT -1", "-ERR COUNT can't be negative\r\n"),
    ]);
}

#[test]
fn lmpop_takes_the_first_list_that_is_there() {
    check(&[
        ("RPUSH b 1 2 3", ":3\r\n"),
        ("LMPOP 2 a b RIGHT COUNT 2", "*2\r\n$1\r\nb\r\n*2\r\n$1\r\n3\r\n$1\r\n2\r\n"),
        ("LMPOP 2 a b LEFT COUNT 9", "*2\r\n$1\r\nb\r\n*1\r\n$1\r\n1\r\n"),
        ("LMPOP 2 a b LEFT", "*-1\r\n"),
        ("LMPOP x a LEFT", "-ERR numkeys should be greater than 0\r\n"),
        ("LMPOP 9223372036854775807 a LEFT", "-ERR syntax error\r\n"),
        ("BLMPOP -1 1 a LEFT", "-ERR timeout is negative\r\n"),
    ]);
}

#[test]
fn effects_are_of_one_slot_and_say_what_was_done() {
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "RPUSH a 1 2 3 4 5 6 7",
        "LMPOP 2 none a LEFT COUNT 2",
        "BLPOP none a 0",
        "LMOVE a b RIGHT LEFT",
        "RPOPLPUSH {a}x {a}y",
        "RPUSH {x}1 m n",
        "BRPOPLPUSH {x}1 {x}2 0",
        "LMOVE {x}1 {x}1 LEFT RIGHT",
        "LTRIM a 0 -1",
        "LREM a 0 nothing",
        "LREM a 0 4",
        "LINSERT a BEFORE 5 new",
        "RPUSHX none 1",
    ] {
        keyspace.run(request);
    }
    let mut replica = keyspace.replica();
    assert_eq!(keyspace.effects(), Vec::<String>::new());
    for key in ["a", "b", "{x}1", "{x}2"] {
        let request = format!("LRANGE {key} 0 -1");
        assert_eq!(keyspace.run(&request), replica.run(&request));
    }
    let mut keyspace = TestKeyspace::replicated();
    for request in
        ["RPUSH a 1 2 3", "BLMPOP 0 1 a RIGHT COUNT 9", "RPUSH a 1 2", "LMOVE a b LEFT RIGHT", "BRPOP a 0"]
    {
        keyspace.run(request);
    }
    assert_eq!(
        keyspace.effects(),
        ["RPUSH a 1 2 3", "RPOP a 3", "RPUSH a 1 2", "LPOP a", "RPUSH b 1", "RPOP a"]
    );
}
