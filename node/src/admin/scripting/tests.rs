//! Tests of scripts, as a client sees them.

use crate::testing::{TestNode, check};

#[test]
fn scripts_use_keys_and_arguments() {
    check(&[
        ("EVAL \"return {KEYS[1], ARGV[1]}\" 1 k a", "*2\r\n$1\r\nk\r\n$1\r\na\r\n"),
        ("EVAL \"return redis.call('set', KEYS[1], ARGV[1])\" 1 k 7", "+OK\r\n"),
        ("EVAL \"return redis.call('incr', KEYS[1])\" 1 k", ":8\r\n"),
        ("EVAL \"return redis.call('incr', 'undeclared')\" 0", ":1\r\n"),
        ("EVAL \"return redis.call('dbsize')\" 0", ":2\r\n"),
        ("EVAL \"redis.call('flushall') return redis.call('dbsize')\" 0", ":0\r\n"),
        ("EVAL \"return 1\" -1", "-ERR Number of keys can't be negative\r\n"),
        ("EVAL \"return 1\" 1", "-ERR Number of keys can't be greater than number of args\r\n"),
        ("EVAL \"return 1\" x", "-ERR value is not an integer or out of range\r\n"),
    ]);
}

#[test]
fn scripts_are_known_by_their_hashes() {
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let mut node = TestNode::new();
    assert_eq!(node.run(&format!("EVALSHA {sha} 0")), "-NOSCRIPT No matching script.\r\n");
    assert_eq!(node.run("SCRIPT LOAD \"return 1\""), format!("$40\r\n{sha}\r\n"));
    assert_eq!(node.run(&format!("EVALSHA {} 0", sha.to_uppercase())), ":1\r\n");
    assert_eq!(node.run(&format!("EVALSHA_RO {sha} 0")), ":1\r\n");
    assert_eq!(node.run(&format!("SCRIPT EXISTS {sha} x")), "*2\r\n:1\r\n:0\r\n");
    assert_eq!(node.run(&format!("SCRIPT SHOW {sha}")), "$8\r\nreturn 1\r\n");
    assert_eq!(node.run("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(node.run(&format!("EVALSHA {sha} 0")), "-NOSCRIPT No matching script.\r\n");
    assert_eq!(node.run("SCRIPT KILL"), "-NOTBUSY No scripts in execution right now.\r\n");
}

#[test]
fn the_effects_of_a_script_are_one_entry() {
    let mut node = TestNode::replicated();
    let script = "redis.call('set', KEYS[1], 1) redis.call('set', KEYS[2], 2, 'EX', 100) return redis.call('incr', KEYS[1])";
    node.run(&format!("EVAL \"{script}\" 2 a b"));
    let log = node.executor.server().shared.log.lock().last().index;
    assert_eq!(log.get(), 1);
    let effects = node.effects();
    assert_eq!(effects.len(), 3, "{effects:?}");
    assert_eq!(node.run("EVAL \"return redis.call('get', KEYS[1])\" 1 a"), "$1\r\n2\r\n");
    assert!(node.effects().is_empty());
}

#[test]
fn read_only_scripts_do_not_write() {
    let text = "ERR Write commands are not allowed from read-only scripts. script: on @user_script:";
    let mut node = TestNode::new();
    for request in [
        "EVAL_RO \"return redis.call('set', 'a', 1)\" 0",
        "EVAL \"#!lua flags=no-writes\\nreturn redis.call('set', 'a', 1)\" 0",
        "EVAL_RO \"return redis.call('publish', 'a', 1)\" 0",
    ] {
        let reply = node.run(request);
        assert!(reply.starts_with(&format!("-{text}")), "{request}: {reply}");
    }
    assert_eq!(node.run("EVAL_RO \"return redis.call('get', 'a')\" 0"), "$-1\r\n");
    assert_eq!(
        node.run("EVAL_RO \"#!lua\\nreturn 1\" 0"),
        "-ERR Can not execute a script with write flag using *_ro command.\r\n"
    );
}

#[test]
fn a_script_that_was_tame_may_become_wild() {
    let mut node = TestNode::new();
    let script =
        "if ARGV[1] == 'w' then redis.call('set', 'other', 1) end return redis.call('incr', KEYS[1])";
    for (argument, reply) in [("t", ":1\r\n"), ("t", ":2\r\n"), ("w", ":3\r\n"), ("t", ":4\r\n")] {
        assert_eq!(node.run(&format!("EVAL \"{script}\" 1 k {argument}")), reply);
    }
    let late = "redis.call('incr', KEYS[1]) if ARGV[1] == 'w' then redis.call('incr', 'other') end return 1";
    for argument in ["t", "w", "t"] {
        assert_eq!(node.run(&format!("EVAL \"{late}\" 1 k {argument}")), ":1\r\n");
    }
    assert_eq!(node.run("MGET k other"), "*2\r\n$1\r\n7\r\n$1\r\n2\r\n");
}

#[test]
fn in_transactions_scripts_are_part_of_it() {
    let mut node = TestNode::replicated();
    node.run("MULTI");
    assert_eq!(node.run("EVAL \"return redis.call('incr', 'a')\" 0"), "+QUEUED\r\n");
    node.run("EVAL \"return nosuch\" 0");
    node.run("INCR a");
    let reply = node.run("EXEC");
    assert!(reply.starts_with("*3\r\n:1\r\n-ERR user_script:1: Script attempted"), "{reply}");
    assert!(reply.ends_with(":2\r\n"), "{reply}");
    assert_eq!(node.executor.server().shared.log.lock().last().index.get(), 1);
}

#[test]
fn a_selected_database_is_left_again() {
    check(&[
        ("EVAL \"redis.call('select', 1) return redis.call('set', 'a', 1)\" 0", "+OK\r\n"),
        ("GET a", "$-1\r\n"),
        ("EVAL \"redis.call('select', 1) return redis.call('get', 'a')\" 0", "$1\r\n1\r\n"),
    ]);
}
