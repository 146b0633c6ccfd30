//! Tests of scripts, as a client sees them.

use crate::testing::{TestNode, check, check_on};

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

const BUSY: &str =
    "-BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
const ENDLESS: &str = "EVAL \"while true do end\" 0";

fn aborted() -> String {
    format!("-EXECABORT Transaction discarded because of: {}", &BUSY[1..])
}

/// Runs these requests on a thread of their own, and calls `act` with another client once a script takes too long. The
/// last reply.
#[allow(clippy::disallowed_methods, reason = "needs a thread that does not come back")]
fn while_busy(requests: &[&str], act: impl FnOnce(&mut TestNode)) -> String {
    let mut node = TestNode::with_arguments(&["--busy-reply-threshold", "1"]);
    let mut other = node.another_client();
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || requests.iter().map(|request| node.run(request)).last());
        let is_busy = |other: &TestNode| other.executor.server().scripts.runs.is_busy();
        while !is_busy(&other) {
            std::thread::yield_now();
        }
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&mut other)));
        assert_eq!(other.run("SCRIPT KILL"), "+OK\r\n", "only the other client ends it");
        acted.unwrap();
        runs.join().unwrap().unwrap()
    })
}

#[test]
fn who_waits_for_a_long_script_is_told_so() {
    let reply = while_busy(&[ENDLESS], |other| {
        check_on(
            other,
            &[
                ("GET a", BUSY),
                ("PING", BUSY),
                ("FLUSHALL", BUSY),
                ("EVAL \"return 1\" 0", BUSY),
                ("SHUTDOWN", BUSY),
                ("SHUTDOWN ABORT", "-ERR No shutdown in progress.\r\n"),
                ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
                ("SELECT 1", "+OK\r\n"),
                ("CLIENT GETNAME", "$-1\r\n"),
                ("WATCH a", BUSY),
                ("MULTI", "+OK\r\n"),
                ("CLIENT ID", "+QUEUED\r\n"),
                ("SET a 1", BUSY),
                ("EXEC", &aborted()),
            ],
        );
    });
    assert_eq!(reply, "-ERR Script killed by user with SCRIPT KILL. script: on @user_script:1.\r\n");
}

#[test]
fn an_endless_script_in_a_transaction_can_be_ended() {
    let requests = ["MULTI", "SET a 1", ENDLESS, "EXEC"];
    let reply = while_busy(&requests, |other| assert_eq!(other.run("GET a"), BUSY));
    assert!(reply.starts_with("*2\r\n+OK\r\n-ERR Script killed by user with SCRIPT KILL."), "{reply}");
}

/// One that reads only runs beside others, who wait for nothing but its keys.
#[test]
fn who_needs_other_keys_than_a_long_script_does_not_wait() {
    let endless = "EVAL_RO \"redis.call('get', KEYS[1]) while true do end\" 1 a";
    let reply = while_busy(&[endless], |other| {
        check_on(
            other,
            &[
                ("SET b 1", "+OK\r\n"),
                ("GET a", BUSY),
                ("MGET b a", BUSY),
                ("MGET b c", "*2\r\n$1\r\n1\r\n$-1\r\n"),
                ("KEYS *", BUSY),
                ("FLUSHALL", BUSY),
                ("MULTI", "+OK\r\n"),
                ("SET a 1", "+QUEUED\r\n"),
                ("EXEC", &aborted()),
                ("EVAL_RO \"return 1\" 1 a", BUSY),
                ("GET b", "$1\r\n1\r\n"),
            ],
        );
    });
    assert!(reply.starts_with("-ERR Script killed by user with SCRIPT KILL."), "{reply}");
}

/// What it watches is in slots that the script may have: they hear later that it does not watch them any more.
#[test]
fn a_transaction_with_watched_keys_fails_beside_a_long_script() {
    let mut node = TestNode::with_arguments(&["--busy-reply-threshold", "1"]);
    let (mut other, mut third) = (node.another_client(), node.another_client());
    check_on(&mut other, &[("WATCH a", "+OK\r\n"), ("MULTI", "+OK\r\n")]);
    #[allow(clippy::disallowed_methods, reason = "needs a thread that does not come back")]
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || node.run(ENDLESS));
        while !other.executor.server().scripts.runs.is_busy() {
            std::thread::yield_now();
        }
        let replies = [other.run("EXEC"), other.run("GET a"), other.run("UNWATCH")];
        assert_eq!(third.run("SCRIPT KILL"), "+OK\r\n");
        assert_eq!(replies, [aborted(), BUSY.into(), "+OK\r\n".into()]);
        runs.join().unwrap();
    });
    check_on(&mut other, &[("WATCH b", "+OK\r\n"), ("SET a 1", "+OK\r\n")]);
    check_on(&mut other, &[("MULTI", "+OK\r\n"), ("EXEC", "*0\r\n")]);
}

#[test]
fn a_script_that_has_written_is_not_ended() {
    let mut node = TestNode::with_arguments(&["--busy-reply-threshold", "1"]);
    let mut other = node.another_client();
    let script = "EVAL \"redis.call('set', 'a', 1) local began = redis.call('time')[1] \
                  while redis.call('time')[1] - began < 2 do end\" 0";
    #[allow(clippy::disallowed_methods, reason = "needs a thread that does not come back")]
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || node.run(script));
        while !other.executor.server().scripts.runs.is_busy() {
            std::thread::yield_now();
        }
        let reply = other.run("SCRIPT KILL");
        assert!(reply.starts_with("-UNKILLABLE Sorry the script already executed write commands"), "{reply}");
        assert_eq!(runs.join().unwrap(), "$-1\r\n");
    });
    assert_eq!(other.run("GET a"), "$1\r\n1\r\n");
}

/// What it has read may belong to another history, and whoever changes the role waits for it.
#[test]
fn a_long_script_ends_with_the_role_of_its_node() {
    let mut node = TestNode::replicated();
    let other = node.another_client();
    #[allow(clippy::disallowed_methods, reason = "needs a thread that does not come back")]
    std::thread::scope(|scope| {
        let runs = scope.spawn(move || node.run(ENDLESS));
        while other.executor.server().scripts.runs.longest(crate::scripts::runs::What::Script).is_none() {
            std::thread::yield_now();
        }
        other.publish(keyward_replication::gate::GateState::Replica, 1);
        let reply = runs.join().unwrap();
        assert!(reply.starts_with("-ERR Script ended: this node has another role now."), "{reply}");
    });
}

/// A script that says that it writes is a write already when it is queued.
#[test]
fn a_replica_queues_no_script_that_says_it_writes() {
    const READ_ONLY: &str = "-READONLY You can't write against a read only replica.\r\n";
    const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    let mut node = TestNode::replicated();
    let library = "#!lua name=l\nredis.register_function('w', function() return 1 end)\n\
                   redis.register_function{function_name='r', callback=function() return 1 end, flags={'no-writes'}}";
    assert_eq!(node.run_words(&[b"FUNCTION", b"LOAD", library.as_bytes()]), "$1\r\nl\r\n");
    let sha = node.run("SCRIPT LOAD \"#!lua\\nreturn 1\"");
    let by_sha = format!("EVALSHA {} 0", &sha[5..45]);
    node.publish(keyward_replication::gate::GateState::Replica, 0);
    for (request, is_refused) in [
        ("EVAL \"#!lua\\nreturn 1\" 0", true),
        ("EVAL_RO \"#!lua\\nreturn 1\" 0", true),
        (&by_sha, true),
        ("FCALL w 0", true),
        ("FCALL_RO w 0", true),
        ("FCALL r 0", false),
        ("EVAL \"#!lua flags=no-writes\\nreturn 1\" 0", false),
        ("EVAL \"return 1\" 0", false),
    ] {
        let (queued, executed) =
            if is_refused { (READ_ONLY, ABORTED) } else { ("+QUEUED\r\n", "*1\r\n:1\r\n") };
        check_on(&mut node, &[("MULTI", "+OK\r\n"), (request, queued), ("EXEC", executed)]);
        if is_refused {
            assert_eq!(node.run(request), READ_ONLY, "{request}");
        }
    }
}
