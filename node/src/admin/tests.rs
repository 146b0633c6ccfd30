//! The keyspace as a whole, CONFIG, COMMAND.

use crate::execute::Stop;
use crate::testing::{TestNode, check};

#[test]
fn a_flush_reaches_replicas() {
    let mut node = TestNode::replicated();
    for request in ["SET a 1", "SELECT 1", "SET b 1", "FLUSHDB", "SET c 1"] {
        node.run(request);
    }
    let mut replica = node.replica();
    assert_eq!(replica.run("DBSIZE"), ":1\r\n");
    replica.run("SELECT 1");
    assert_eq!((replica.run("DBSIZE"), replica.run("EXISTS c")), (":1\r\n".into(), ":1\r\n".into()));
    node.effects();
    node.run("FLUSHALL ASYNC");
    assert_eq!(node.effects(), ["FLUSHALL"]);
    node.run("SWAPDB 0 1");
    assert_eq!(node.effects(), ["SWAPDB 0 1"]);
}

#[test]
fn swapdb_exchanges_keys_and_expiries() {
    let mut node = TestNode::new();
    node.run("SET a 1 PX 100000");
    node.run("SWAPDB 0 1");
    assert_eq!(node.run("DBSIZE"), ":0\r\n");
    assert!(node.run("INFO keyspace").contains("db1:keys=1,expires=1,"));
}

/// It may hold what was never committed.
#[test]
fn a_node_in_doubt_counts_and_saves_nothing() {
    use keyward_replication::gate::GateState;
    let mut node = TestNode::replicated();
    node.run("SET k v");
    assert!(node.run("INFO keyspace").contains("db0:keys=1"));
    for (state, generation) in [(GateState::Undecided, 1), (GateState::InDoubt, 2)] {
        node.publish(state, generation);
        assert_eq!(node.run("INFO keyspace"), "$12\r\n# Keyspace\r\n\r\n", "{state:?}");
        for request in ["SAVE", "BGSAVE", "BGSAVE SCHEDULE"] {
            assert!(node.run(request).starts_with("-MASTERDOWN "), "{state:?} {request}");
        }
    }
    assert!(node.run("SYNC").starts_with("-MASTERDOWN "));
}

#[test]
fn debug_sleep_holds_up_everybody() {
    let mut node = TestNode::with_arguments(&["--enable-debug-command", "yes"]);
    let mut other = node.another_client();
    assert_eq!(other.run("PING"), "+PONG\r\n");
    node.run("DEBUG SLEEP 1000");
    assert!(matches!(node.stop, Some(Stop::Sleep(time, b"+OK\r\n")) if time.as_secs() == 1000));
    for request in ["PING", "GET a", "HELLO 3"] {
        assert_eq!(other.run(request), "");
        assert!(matches!(other.stop, Some(Stop::Paused(_))), "{request}");
    }
}

#[test]
fn config_set_is_seen_by_config_get() {
    check(&[
        ("CONFIG SET client-query-buffer-limit 2mb timeout 7", "+OK\r\n"),
        (
            "CONFIG GET client-query-buffer-limit TIMEOUT",
            "*4\r\n$25\r\nclient-query-buffer-limit\r\n$7\r\n2097152\r\n$7\r\nTIMEOUT\r\n$1\r\n7\r\n",
        ),
        ("CONFIG SET slowlog-max-len 5", "+OK\r\n"),
        (
            "CONFIG GET *slow*len",
            "*4\r\n$33\r\ncommandlog-slow-execution-max-len\r\n$1\r\n5\r\n$15\r\nslowlog-max-len\r\n$1\r\n5\r\n",
        ),
    ]);
}

#[test]
fn command_finds_the_keys_of_a_request() {
    check(&[
        ("COMMAND GETKEYS MSET a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYSANDFLAGS SET a 1", "*1\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n"),
        ("COMMAND GETKEYSANDFLAGS SET a 1 GET", "*1\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+update\r\n"),
        ("COMMAND GETKEYS PING", "-ERR The command has no key arguments\r\n"),
        ("COMMAND GETKEYS ZUNIONSTORE d 0 a", "-ERR Invalid arguments specified for command\r\n"),
        ("COMMAND INFO nosuch", "*1\r\n$-1\r\n"),
    ]);
}

#[test]
fn replconf_says_what_sync_shall_send() {
    check(&[
        ("REPLCONF", "+OK\r\n"),
        ("REPLCONF capa", "-ERR syntax error\r\n"),
        ("REPLCONF foo bar", "-ERR Unrecognized REPLCONF option: foo\r\n"),
        ("REPLCONF rdb-only x", "-ERR value is not an integer or out of range\r\n"),
        ("REPLCONF rdb-only 2", "-ERR value is out of range, value must between 0 and 1\r\n"),
        ("REPLCONF rdb-filter-only bad", "-ERR Unsupported rdb-filter-only option: bad\r\n"),
        ("REPLCONF listening-port 7000 ip-address 1.2.3.4 CAPA eof capa psync2", "+OK\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SYNC", "-ERR Command 'sync' not allowed inside a transaction\r\n"),
    ]);
}

#[test]
fn sync_follows_nobody() {
    for introduction in ["REPLCONF listening-port 7000", "REPLCONF capa eof capa psync2"] {
        let mut node = TestNode::new();
        node.run(introduction);
        assert!(node.run("SYNC").starts_with("-ERR this node replicates to nodes of its own kind only"));
    }
}

#[test]
fn what_the_sentinels_do_is_named() {
    let disabled = "-ERR This instance has cluster support disabled\r\n";
    check(&[
        ("CLUSTER MEET 127.0.0.1 6380", disabled),
        ("CLUSTER addslots 1", disabled),
        ("CLUSTER NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try CLUSTER HELP.\r\n"),
    ]);
    let mut node = TestNode::new();
    for command in ["REPLICAOF NO ONE", "slaveof 127.0.0.1 6379"] {
        let reply = node.run(command);
        assert!(
            reply.starts_with("-ERR REPLICAOF is not supported: ") && reply.contains("--sentinels"),
            "{reply}"
        );
    }
}

#[test]
fn wait_without_replicas() {
    check(&[
        ("WAIT 0 0", ":0\r\n"),
        ("WAIT x 0", "-ERR value is not an integer or out of range\r\n"),
        ("WAIT 1 x", "-ERR timeout is not an integer or out of range\r\n"),
        ("WAIT 1 -1", "-ERR timeout is negative\r\n"),
        ("WAITAOF 0 0 0", "*2\r\n:0\r\n:0\r\n"),
        ("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1\r\n"),
        ("WAITAOF 0 -1 0", "-ERR value is out of range, must be positive\r\n"),
        ("WAITAOF 1 0 0", "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n"),
    ]);
}

#[test]
fn debug_looks_at_values() {
    let mut node = TestNode::with_arguments(&["--enable-debug-command", "yes"]);
    for request in ["SET i 12345", "SET e hello", "RPUSH l a b c", "SADD s 1 2 3", "HSET h a 1"] {
        node.run(request);
    }
    for (request, expect) in [
        ("DEBUG OBJECT nosuch", "-ERR no such key\r\n"),
        ("DEBUG LISTPACK h", "+Listpack structure printed on stdout\r\n"),
        ("DEBUG LISTPACK s", "-ERR Not a listpack encoded object.\r\n"),
        ("DEBUG LISTPACK nosuch", "-ERR no such key\r\n"),
        ("DEBUG QUICKLIST l", "-ERR Not a quicklist encoded object.\r\n"),
        ("DEBUG SDSLEN i", "-ERR Not an sds encoded string.\r\n"),
        ("DEBUG HTSTATS 99", "-ERR Out of range database\r\n"),
        (
            "DEBUG HTSTATS-KEY h",
            "-ERR The value stored at the specified key is not represented using an hash table\r\n",
        ),
        (
            "DEBUG QUICKLIST-PACKED-THRESHOLD x",
            "-ERR argument must be a memory value bigger than 1 and smaller than 4gb\r\n",
        ),
        ("DEBUG QUICKLIST-PACKED-THRESHOLD 100b", "+OK\r\n"),
        ("DEBUG SET-DISABLE-DENY-SCRIPTS 1", "+OK\r\n"),
        ("DEBUG CHANGE-REPL-ID", "+OK\r\n"),
        (
            "DEBUG CHANGE-REPL-ID 1",
            "-ERR unknown subcommand or wrong number of arguments for 'CHANGE-REPL-ID'. Try DEBUG HELP.\r\n",
        ),
        ("DEBUG RELOAD x", "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.\r\n"),
        ("DEBUG POPULATE 3 p 10", "+OK\r\n"),
        ("GET p:1", "$10\r\nvalue:1\0\0\0\r\n"),
        ("DBSIZE", ":8\r\n"),
    ] {
        assert_eq!(node.run(request), expect, "{request}");
    }
    let object = node.run("DEBUG OBJECT i");
    assert!(object.contains(" refcount:1 encoding:int serializedlength:3 lru:"), "{object}");
    assert!(node.run("DEBUG OBJECT e").contains(" encoding:embstr serializedlength:6 lru:"));
    assert!(!node.run("DEBUG OBJECT e FAST").contains("serializedlength"));
    node.run("DEBUG RELOAD");
    assert!(matches!(node.stop, Some(Stop::Await(crate::admin::Request::Reload(_)))));
}

#[test]
fn what_is_loaded_beside_the_log_is_refused() {
    let arguments = ["--sentinels", "localhost:1", "--enable-debug-command", "yes"];
    let mut node = TestNode::with_arguments(&arguments);
    node.publish(keyward_replication::gate::GateState::Primary, 0);
    assert!(node.run("DEBUG RELOAD").starts_with("-ERR DEBUG RELOAD is for a node alone"));
    assert!(node.run("DEBUG POPULATE 1").starts_with("-ERR DEBUG POPULATE writes nothing"));
    let arguments = ["--appendonly", "yes", "--enable-debug-command", "yes"];
    let mut node = TestNode::with_arguments(&arguments);
    assert!(node.run("DEBUG RELOAD NOSAVE").starts_with("-ERR with appendonly yes DEBUG RELOAD may only"));
}

#[test]
fn there_are_no_modules() {
    check(&[
        ("MODULE LIST", "*0\r\n"),
        ("MODULE FOO", "-ERR unknown subcommand 'FOO'. Try MODULE HELP.\r\n"),
    ]);
    let mut node = TestNode::new();
    assert!(node.run("MODULE LOAD x").starts_with("-ERR MODULE command not allowed."));
    let mut node = TestNode::with_arguments(&["--enable-module-command", "yes"]);
    let refused = "-ERR Error loading the extension. Please check the server logs.\r\n";
    assert_eq!(node.run("MODULE LOADEX x"), refused);
    let unknown = "-ERR Error unloading module: no such module with that name\r\n";
    assert_eq!(node.run("MODULE UNLOAD x"), unknown);
}
