//! Replies of MULTI, EXEC, WATCH, and what fails a transaction.

use crate::testing::{TestNode, check};

const QUEUED: &str = "+QUEUED\r\n";

#[test]
fn a_transaction_replies_with_all_its_replies() {
    check(&[
        ("MULTI", "+OK\r\n"),
        ("SET a 1", QUEUED),
        ("INCR a", QUEUED),
        ("LPUSH a x", QUEUED),
        ("EXEC", "*3\r\n+OK\r\n:2\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
    ]);
}

#[test]
fn an_error_while_queueing_aborts() {
    for wrong in ["NOSUCH", "GET", "MULTI", "WATCH a", "CLIENT REPLY OFF"] {
        let mut node = TestNode::new();
        node.run("MULTI");
        assert!(node.run(wrong).starts_with("-ERR "), "{wrong}");
        assert_eq!(node.run("SET a 1"), QUEUED);
        let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        assert_eq!(node.run("EXEC"), aborted, "{wrong}");
        assert_eq!(node.run("GET a"), "$-1\r\n");
    }
    check(&[
        ("MULTI", "+OK\r\n"),
        (
            "EXEC a",
            "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
        ),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ]);
}

/// Whether a transaction fails after `change` by another client.
fn fails_after(before: &str, change: &str) -> bool {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    node.run(before);
    node.run("WATCH a");
    other.run(change);
    node.run("MULTI");
    node.run("PING");
    match node.run("EXEC").as_str() {
        "*-1\r\n" => true,
        "*1\r\n+PONG\r\n" => false,
        reply => panic!("{reply}"),
    }
}

#[test]
fn a_watched_key_that_changes_fails_the_transaction() {
    assert!(fails_after("PING", "SET a 1"));
    assert!(fails_after("SET a 1", "DEL a"));
    assert!(fails_after("SET a 1", "FLUSHALL"));
    assert!(fails_after("SET a 1", "SWAPDB 0 1"));
    assert!(!fails_after("SET a 1", "SET b 1"));
    assert!(!fails_after("PING", "FLUSHALL"), "the key did not exist before either");
    assert!(!fails_after("PING", "DEL a"));
}

/// What it held in another generation, nobody has compared with what it holds now.
#[test]
fn a_watch_ends_with_its_generation() {
    for (watched_in, executed_in, reply) in [(1, 1, "*1\r\n+PONG\r\n"), (1, 2, "*-1\r\n")] {
        let mut node = TestNode::replicated();
        node.begin_generation(watched_in);
        node.run("WATCH a");
        node.begin_generation(executed_in);
        node.run("WATCH b");
        node.run("MULTI");
        node.run("PING");
        assert_eq!(node.run("EXEC"), reply);
        node.run("MULTI");
        assert_eq!(node.run("EXEC"), "*0\r\n", "the watch is over");
    }
}

#[test]
fn unwatch_forgets() {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    for forget in ["UNWATCH", "DISCARD", "EXEC"] {
        node.run("WATCH a");
        if forget != "UNWATCH" {
            node.run("MULTI");
        }
        node.run(forget);
        other.run("SET a 1");
        node.run("MULTI");
        assert_eq!(node.run("EXEC"), "*0\r\n", "{forget}");
    }
}

/// Keys are counted when the transaction is over, but its own commands know them.
#[test]
fn a_transaction_counts_what_it_has_changed() {
    check(&[
        ("SET a 1", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET b 1", QUEUED),
        ("DBSIZE", QUEUED),
        ("FLUSHALL", QUEUED),
        ("DBSIZE", QUEUED),
        ("RANDOMKEY", QUEUED),
        ("SET c 1", QUEUED),
        ("RANDOMKEY", QUEUED),
        ("DBSIZE", QUEUED),
        ("RENAME c d", QUEUED),
        ("INFO keyspace", QUEUED),
        (
            "EXEC",
            "*10\r\n+OK\r\n:2\r\n+OK\r\n:0\r\n$-1\r\n+OK\r\n$1\r\nc\r\n:1\r\n+OK\r\n\
             $71\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,keys_with_volatile_items=0\r\n\r\n",
        ),
        ("DBSIZE", ":1\r\n"),
        ("KEYS *", "*1\r\n$1\r\nd\r\n"),
        ("RANDOMKEY", "$1\r\nd\r\n"),
    ]);
}

/// Of Valkey 9.2.
#[test]
fn a_transaction_may_have_conditions() {
    for (conditions, executes) in [
        ("IFEQ a 1", true),
        ("IFEQ a 2", false),
        ("IFEQ none 1", false),
        ("ifne a 2", true),
        ("IFNE a 1", false),
        ("IFNE none 1", true),
        ("NX none", true),
        ("NX a", false),
        ("NX l", false),
        ("XX a", true),
        ("XX l", true),
        ("XX none", false),
        ("NX none XX a IFEQ a 1 IFNE a 2", true),
        ("NX none XX a IFEQ a 2 IFNE a 2", false),
        ("IFEQ nx xx XX a", false),
        ("NX past", true),
    ] {
        let mut node = TestNode::new();
        node.run("SET a 1");
        node.run("SET past 1 PXAT 1");
        node.run("RPUSH l x");
        node.run("MULTI");
        node.run("SET b 1");
        let reply = if executes { "*1\r\n+OK\r\n" } else { "*-1\r\n" };
        assert_eq!(node.run(&format!("EXEC {conditions}")), reply, "{conditions}");
        assert_eq!(node.run("EXISTS b"), if executes { ":1\r\n" } else { ":0\r\n" }, "{conditions}");
        assert_eq!(node.run("EXEC"), "-ERR EXEC without MULTI\r\n", "{conditions}");
    }
}

#[test]
fn what_is_no_condition_of_a_transaction_is_refused() {
    const ARITY: &str = "wrong number of arguments for 'exec' command\r\n";
    let aborted = format!("-EXECABORT Transaction discarded because of: {ARITY}");
    for words in ["a", "IFEQ a", "NX", "NX a XX", "IFEQ a 1 2"] {
        let mut node = TestNode::new();
        assert_eq!(node.run(&format!("EXEC {words}")), aborted);
        node.run("MULTI");
        assert_eq!(node.run(&format!("EXEC {words}")), aborted);
        assert_eq!(node.run("EXEC"), "-ERR EXEC without MULTI\r\n");
    }
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    check(&[
        ("EXEC NX a", "-ERR EXEC without MULTI\r\n"),
        ("RPUSH l x", ":1\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET b 1", QUEUED),
        ("EXEC IFNE l x", wrong_type),
        ("EXISTS b", ":0\r\n"),
        ("MULTI", "+OK\r\n"),
        ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n"),
        ("EXEC NX none", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
    ]);
}

#[test]
fn conditions_and_watches_go_together() {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    for (change, reply) in [("SET b 1", "*1\r\n+PONG\r\n"), ("SET a 1", "*-1\r\n")] {
        node.run("WATCH a");
        other.run(change);
        node.run("MULTI");
        node.run("PING");
        assert_eq!(node.run("EXEC IFEQ b 1"), reply);
    }
}
