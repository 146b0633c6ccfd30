//! SLOWLOG, COMMANDLOG, LATENCY and MONITOR, as clients see them.

use crate::testing::{TestNode, check};

/// The words of the entries of a log, latest first.
fn noted(node: &mut TestNode, kind: crate::observe::commandlog::Kind) -> Vec<String> {
    let entries = node.executor.server().command_logs.latest(kind, usize::MAX);
    let words = |args: &[Box<[u8]>]| String::from_utf8(args.join(&b' ')).unwrap();
    entries.iter().map(|entry| words(&entry.args)).collect()
}

#[test]
fn mistakes_are_answered_as_by_valkey() {
    check(&[
        ("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1\r\n"),
        ("SLOWLOG GET x", "-ERR count should be greater than or equal to -1\r\n"),
        (
            "SLOWLOG get 1 2",
            "-ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.\r\n",
        ),
        ("SLOWLOG LEN", ":0\r\n"),
        ("SLOWLOG GET", "*0\r\n"),
        ("COMMANDLOG GET 1", "-ERR wrong number of arguments for 'commandlog|get' command\r\n"),
        (
            "COMMANDLOG LEN foo",
            "-ERR type should be one of the following: slow, large-request, large-reply\r\n",
        ),
        ("COMMANDLOG RESET large-reply", "+OK\r\n"),
        ("LATENCY LATEST", "*0\r\n"),
        ("LATENCY HISTORY foo", "*0\r\n"),
        ("LATENCY GRAPH foo", "-ERR No samples available for event 'foo'\r\n"),
        ("LATENCY RESET foo", ":0\r\n"),
        ("LATENCY HISTOGRAM nosuch", "*0\r\n"),
    ]);
}

#[test]
fn what_is_slow_is_noted_with_what_it_calls() {
    use crate::observe::commandlog::Kind;
    let mut node = TestNode::new();
    node.run("CLIENT SETNAME me");
    node.run("CONFIG SET slowlog-log-slower-than 0");
    node.run("SLOWLOG RESET");
    for request in [
        "SET k v",
        "GET",
        "LPUSH k x",
        "AUTH secret",
        "MULTI",
        "GET k",
        "EXEC",
        "EVAL \"return redis.call('get', 'k')\" 1 k",
        "CONFIG SET requirepass '' slowlog-log-slower-than -1",
    ] {
        node.run(request);
    }
    node.run("PING");
    let expect = [
        "EVAL return redis.call('get', 'k') 1 k",
        "get k",
        "GET k",
        "MULTI",
        "AUTH (redacted)",
        "LPUSH k x",
        "SET k v",
        "SLOWLOG RESET",
    ];
    assert_eq!(noted(&mut node, Kind::Slow), expect);
    assert!(node.run("SLOWLOG GET 1").starts_with("*1\r\n*6\r\n:"));
    assert!(node.run("SLOWLOG GET 1").ends_with("\r\n$11\r\n127.0.0.1:1\r\n$2\r\nme\r\n"));
}

#[test]
fn what_is_large_is_noted() {
    use crate::observe::commandlog::Kind;
    let mut node = TestNode::new();
    node.run("CONFIG SET commandlog-request-larger-than 60 commandlog-reply-larger-than 12");
    node.run("COMMANDLOG RESET large-request");
    // As they come, they have 59 and 60 bytes.
    node.run(&format!("SET k {}", "x".repeat(32)));
    node.run(&format!("SET k {}", "y".repeat(33)));
    node.run("GET k");
    assert_eq!(noted(&mut node, Kind::LargeRequest), [format!("SET k {}", "y".repeat(33))]);
    assert_eq!(noted(&mut node, Kind::LargeReply), ["GET k"]);
    node.run("COMMANDLOG RESET large-reply");
    assert_eq!(node.run("COMMANDLOG LEN large-reply"), ":0\r\n");
}

#[test]
fn a_sleep_is_an_event() {
    let mut node = TestNode::with_arguments(&["--enable-debug-command", "yes"]);
    node.run("CONFIG SET latency-monitor-threshold 5");
    node.run("DEBUG SLEEP 0.02");
    assert_eq!(node.executor.server().latency.of(b"command").unwrap().max_millis, 20);
    assert_eq!(noted(&mut node, crate::observe::commandlog::Kind::Slow), ["DEBUG SLEEP 0.02"]);
}

#[test]
fn calls_are_in_the_histogram() {
    let mut node = TestNode::new();
    for _ in 0..3 {
        node.run("GET k");
    }
    let shown = node.run("LATENCY HISTOGRAM get");
    assert!(shown.starts_with("*2\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n*"));
    assert!(node.run("INFO latencystats").contains("latency_percentiles_usec_get:p50="));
    node.run("CONFIG SET latency-tracking no");
    assert!(!node.run("INFO latencystats").contains("get"));
}

/// What a monitor has been shown, without the times.
fn shown(monitor: &TestNode) -> Vec<String> {
    let pushes = monitor.session.client.take_pushes();
    let line = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let lines = pushes.iter().map(|push| line(&push.message));
    lines.map(|line| line.trim_end().split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn a_monitor_sees_what_is_executed() {
    let mut node = TestNode::with_arguments(&["--enable-debug-command", "yes"]);
    let mut monitor = node.another_client();
    assert_eq!(monitor.run("MONITOR"), "+OK\r\n");
    assert_eq!(monitor.run("MONITOR"), "");
    for request in [
        "SET k v",
        "GET",
        "nosuch",
        "CONFIG GET save",
        "DEBUG SLEEP 0",
        "LPUSH k x",
        "AUTH secret",
        "MULTI",
        "SELECT 1",
        "GET k",
        "EXEC",
        "EVAL \"return redis.call('GET', KEYS[1])\" 1 k",
    ] {
        node.run(request);
    }
    let expect = [
        r#"[0 127.0.0.1:1] "SET" "k" "v""#,
        r#"[0 127.0.0.1:1] "LPUSH" "k" "x""#,
        r#"[0 127.0.0.1:1] "AUTH" "(redacted)""#,
        r#"[0 127.0.0.1:1] "MULTI""#,
        r#"[1 127.0.0.1:1] "SELECT" "1""#,
        r#"[1 127.0.0.1:1] "GET" "k""#,
        r#"[1 127.0.0.1:1] "EXEC""#,
        r#"[1 127.0.0.1:1] "EVAL" "return redis.call('GET', KEYS[1])" "1" "k""#,
        r#"[1 lua] "GET" "k""#,
    ];
    assert_eq!(shown(&monitor), expect);
    let ping = monitor.run("PING");
    assert!(ping.starts_with("+PONG\r\n+") && ping.ends_with("[0 127.0.0.1:1] \"PING\"\r\n"), "{ping}");
    assert_eq!(monitor.run("GET k"), "-ERR Replica can't interact with the keyspace\r\n");
    assert!(node.run("CLIENT LIST").contains(" flags=O "));
    assert_eq!(monitor.run("RESET"), "+RESET\r\n");
    node.run("PING");
    assert_eq!((shown(&monitor), monitor.run("GET k").as_str()), (Vec::new(), "$1\r\nv\r\n"));
    assert_eq!(node.run("EVAL \"return redis.call('monitor')\" 0").split(' ').next(), Some("-ERR"));
    node.run("MULTI");
    node.run("MONITOR");
    let refused = "*1\r\n-ERR MONITOR isn't allowed for DENY BLOCKING client\r\n";
    assert_eq!(node.run("EXEC"), refused);
}

#[test]
fn a_monitor_that_does_not_read_is_closed() {
    let mut node = TestNode::with_arguments(&["--client-output-buffer-limit", "normal", "100", "0", "0"]);
    let mut monitor = node.another_client();
    monitor.run("MONITOR");
    for _ in 0..3 {
        node.run("ECHO 0123456789");
    }
    assert!(monitor.session.client.is_killed());
}
