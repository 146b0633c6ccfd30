//! Confirmations, messages and their order.

use std::sync::Arc;

use keyward_proto::time::Monotonic;
use keyward_replication::reply::Fate;

use crate::io::clients::Push;
use crate::testing::{TestNode, check};

#[test]
fn confirmations_count_subscriptions() {
    check(&[
        (
            "SUBSCRIBE a b",
            "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n",
        ),
        ("SSUBSCRIBE s", "*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n"),
        ("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        (
            "GET a",
            "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context\r\n",
        ),
        ("UNSUBSCRIBE a", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n"),
        ("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n"),
        ("SUNSUBSCRIBE", "*3\r\n$12\r\nsunsubscribe\r\n$1\r\ns\r\n:0\r\n"),
        ("PUNSUBSCRIBE", "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n"),
        ("PING", "+PONG\r\n"),
    ]);
}

#[test]
fn a_message_to_oneself_follows_the_reply() {
    let mut node = TestNode::new().resp3();
    node.run("SUBSCRIBE a");
    let message = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n";
    assert_eq!(node.run("PUBLISH a x"), format!(":1\r\n{message}"));
    node.run("MULTI");
    node.run("PUBLISH a x");
    assert_eq!(node.run("EXEC"), format!("*1\r\n:1\r\n{message}"));
}

#[test]
fn a_message_precedes_the_end_of_its_subscription() {
    let mut node = TestNode::new();
    let mut publisher = node.another_client();
    node.run("PSUBSCRIBE a*");
    assert_eq!(publisher.run("PUBLISH ab x"), ":1\r\n");
    assert_eq!(
        node.run("PUNSUBSCRIBE"),
        "*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\nab\r\n$1\r\nx\r\n*3\r\n$12\r\npunsubscribe\r\n$2\r\na*\r\n:0\r\n"
    );
    assert_eq!(publisher.run("PUBLISH ab x"), ":0\r\n");
}

#[test]
fn confirmations_are_sent_even_without_replies() {
    let mut node = TestNode::new();
    assert_eq!(node.run("CLIENT REPLY OFF"), "");
    assert_eq!(node.run("PING"), "");
    assert_eq!(node.run("SUBSCRIBE a"), "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
}

#[test]
fn a_killed_subscriber_is_none() {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    node.run("SUBSCRIBE a");
    node.run("PSUBSCRIBE a*");
    assert_eq!(other.run("PUBLISH a x"), ":2\r\n");
    assert_eq!(other.run(&format!("CLIENT KILL ID {}", node.session.client.id)), ":1\r\n");
    for (request, reply) in [
        ("PUBLISH a x", ":0\r\n"),
        ("PUBSUB NUMSUB a", "*2\r\n$1\r\na\r\n:0\r\n"),
        ("PUBSUB CHANNELS", "*0\r\n"),
        ("PUBSUB NUMPAT", ":0\r\n"),
    ] {
        assert_eq!(other.run(request), reply, "{request}");
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_counted() {
    let limit = ["--client-output-buffer-limit", "pubsub 32kb 0 0"];
    let mut node = TestNode::with_arguments(&limit);
    let mut other = node.another_client();
    node.run("SUBSCRIBE a");
    let publish = format!("PUBLISH a {}", "x".repeat(20_000));
    assert_eq!(other.run(&publish), ":1\r\n");
    assert!(!node.session.client.is_killed());
    assert_eq!(other.run(&publish), ":1\r\n");
    assert!(node.session.client.is_killed());
    assert_eq!(other.run(&publish), ":0\r\n");
    let stats = |node: &mut TestNode| node.run("INFO stats");
    assert!(stats(&mut other).contains("client_output_buffer_limit_disconnections:1\r\n"));
    other.run("CONFIG RESETSTAT");
    assert!(stats(&mut other).contains("client_output_buffer_limit_disconnections:0\r\n"));
}

#[test]
fn reset_ends_all_subscriptions() {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    node.run("SUBSCRIBE a");
    node.run("PSUBSCRIBE b*");
    assert_eq!(other.run("PUBSUB NUMSUB a"), "*2\r\n$1\r\na\r\n:1\r\n");
    assert_eq!(node.run("RESET"), "+RESET\r\n");
    assert_eq!(other.run("PUBSUB NUMSUB a"), "*2\r\n$1\r\na\r\n:0\r\n");
    assert_eq!(other.run("PUBSUB NUMPAT"), ":0\r\n");
}

/// Whoever got the message could act on it before anybody could read what it tells of, or although nobody ever will.
#[test]
fn what_a_transaction_publishes_waits_for_its_commit() {
    let mut node = TestNode::replicated();
    let mut reader = node.another_client();
    let mut own = node.another_client().resp3();
    reader.run("SUBSCRIBE a");
    reader.run("PSUBSCRIBE a*");
    own.run("SUBSCRIBE a");
    let message = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n";
    for request in ["MULTI", "SET k v", "PUBLISH a x", "SPUBLISH k y"] {
        own.run(request);
    }
    assert_eq!(
        own.run("EXEC"),
        format!("*3\r\n+OK\r\n:3\r\n:0\r\n{message}"),
        "its own, once, with the reply"
    );
    let pushes = Vec::from(reader.session.client.take_pushes());
    let index = node.executor.server().shared.log.lock().last().index;
    assert_eq!(index.get(), 1);
    let waits_for =
        |pushes: &[Push]| pushes.iter().map(|p| p.condition.depends_on().get()).collect::<Vec<_>>();
    assert_eq!(waits_for(&pushes), [1, 1]);
    let server = Arc::clone(node.executor.server());
    let gate = &server.shared.gate;
    let fate = |pushes: &[Push]| pushes[0].condition.fate(gate, || Monotonic::ZERO);
    assert_eq!(fate(&pushes), Fate::Waits);
    node.run("PUBLISH a y");
    assert_eq!(waits_for(&Vec::from(reader.session.client.take_pushes())), [0, 0], "it tells of nothing");
    node.begin_generation(1);
    assert_eq!(fate(&pushes), Fate::Unknown, "nobody knows whether the transaction will be committed");
}

#[test]
fn messages_and_events_of_a_transaction_come_in_its_order() {
    let mut node = TestNode::with_arguments(&["--notify-keyspace-events", "EA"]);
    let mut reader = node.another_client();
    reader.run("PSUBSCRIBE *");
    for request in ["MULTI", "SET k v", "PUBLISH a x", "LPUSH l v", "DEL k", "PUBLISH a y", "EXEC"] {
        node.run(request);
    }
    let pushes = reader.session.client.take_pushes();
    let last = |push: &Push| String::from_utf8_lossy(&push.message).split("\r\n").nth(6).map(str::to_owned);
    let seen: Vec<String> = pushes.iter().filter_map(last).collect();
    assert_eq!(seen, ["__keyevent@0__:set", "a", "__keyevent@0__:lpush", "__keyevent@0__:del", "a"]);
}
