//! HELLO, AUTH, CLIENT.

use crate::execute::Stop;
use crate::testing::{TestNode, check, check_on};

#[test]
fn hello_answers_in_the_version_that_it_sets() {
    let mut node = TestNode::new();
    assert!(node.run("HELLO 3 SETNAME joe").starts_with("%7\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n"));
    check_on(
        &mut node,
        &[
            ("CLIENT GETNAME", "$3\r\njoe\r\n"),
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n"),
            ("GET a", "_\r\n"),
        ],
    );
    assert!(node.run("HELLO 2").starts_with("*14\r\n"));
}

#[test]
fn a_password_is_asked_for_first() {
    let mut node = TestNode::with_arguments(&["--requirepass", "secret"]);
    node.session.authenticated = false;
    let refused = "-NOAUTH Authentication required.\r\n";
    check_on(
        &mut node,
        &[
            ("GET a", refused),
            ("NOSUCH", refused),
            ("GET", refused),
            ("AUTH x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("AUTH secretsecret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("AUTH joe secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("AUTH default secret", "+OK\r\n"),
            ("GET a", "$-1\r\n"),
            ("RESET", "+RESET\r\n"),
            ("GET a", refused),
        ],
    );
}

#[test]
fn who_has_not_authenticated_is_served_while_there_is_no_password() {
    let mut admin = TestNode::with_arguments(&["--requirepass", "secret"]);
    let mut node = admin.another_client();
    node.session.authenticated = false;
    let refused = "-NOAUTH Authentication required.\r\n";
    let mut set_password = |word: &str| {
        assert_eq!(admin.run(&format!("CONFIG SET requirepass \"{word}\"")), "+OK\r\n");
    };
    check_on(&mut node, &[("PING", refused)]);
    set_password("");
    check_on(&mut node, &[("PING", "+PONG\r\n")]);
    // HELLO wants the client to have authenticated, as in Valkey, not only to be served.
    assert!(node.run("HELLO").starts_with("-NOAUTH HELLO must be called"));
    check_on(&mut node, &[("MULTI", "+OK\r\n"), ("PING", "+QUEUED\r\n")]);
    set_password("secret");
    check_on(&mut node, &[("PING", refused), ("RESET", "+RESET\r\n"), ("PING", refused)]);
    set_password("");
    check_on(&mut node, &[("RESET", "+RESET\r\n")]);
    // Whoever connects, says RESET or AUTH while there is none has authenticated.
    set_password("secret");
    check_on(&mut node, &[("PING", "+PONG\r\n")]);
    set_password("other");
    check_on(
        &mut node,
        &[
            ("PING", "+PONG\r\n"),
            ("AUTH secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("PING", "+PONG\r\n"),
        ],
    );
}

#[test]
fn skip_leaves_out_one_reply() {
    check(&[
        ("CLIENT REPLY SKIP", ""),
        ("PING", ""),
        ("PING", "+PONG\r\n"),
        ("CLIENT REPLY OFF", ""),
        ("NOSUCH", ""),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("CLIENT REPLY SKIP", ""),
        ("RESET", ""),
        ("PING", "+PONG\r\n"),
        ("CLIENT REPLY OFF", ""),
        ("RESET", "+RESET\r\n"),
    ]);
}

#[test]
fn only_confirmations_of_subscriptions_pass_when_replies_are_off() {
    let confirmed = |count: u8| format!("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:{count}\r\n");
    check(&[
        ("CLIENT REPLY OFF", ""),
        ("MULTI", ""),
        ("SUBSCRIBE a", ""),
        ("PING", ""),
        ("NOSUCH", ""),
        ("EXEC", ""),
        ("MULTI", ""),
        ("GET a", ""),
        ("LPUSH l a", ""),
        ("INCR l", ""),
        ("EXEC", ""),
        ("SUBSCRIBE", ""),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("LRANGE l 0 -1", "*1\r\n$1\r\na\r\n"),
        ("CLIENT REPLY OFF", ""),
        ("MULTI", ""),
        ("PING", ""),
        ("SUBSCRIBE a", ""),
        ("GET a", ""),
        ("EXEC", &confirmed(1)),
        ("PING", ""),
        ("RESET", "+RESET\r\n"),
    ]);
    let mut node = TestNode::new();
    let mut other = node.another_client();
    check_on(&mut node, &[("WATCH w", "+OK\r\n"), ("CLIENT REPLY OFF", ""), ("MULTI", ""), ("GET w", "")]);
    check_on(&mut other, &[("SET w 1", "+OK\r\n")]);
    check_on(&mut node, &[("EXEC", ""), ("CLIENT REPLY ON", "+OK\r\n")]);
}

#[test]
fn http_ends_the_connection() {
    let words: [&[&[u8]]; 4] = [&[b"POST", b"/", b"HTTP/1.1"], &[b"post"], &[b"Host:", b"a"], &[b"HOST:"]];
    for words in words {
        for before in ["PING", "MULTI", "SUBSCRIBE a", "CLIENT REPLY OFF"] {
            let mut node = TestNode::with_arguments(&["--requirepass", "secret"]);
            for authenticated in [true, false] {
                node.session.authenticated = authenticated;
                node.run(before);
                assert_eq!(node.run_words(words), "");
                assert!(matches!(node.stop, Some(Stop::Close)) && node.session.client.is_killed());
            }
        }
    }
    check(&[("HOST:a", "-ERR unknown command 'HOST:a', with args beginning with: \r\n")]);
}

#[test]
fn filters_select_clients() {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    other.run("CLIENT SETNAME joe");
    other.run("SELECT 3");
    let mut count = |filter: &str| node.run(&format!("CLIENT LIST {filter}")).matches("id=").count();
    assert_eq!(count("NAME joe"), 1);
    assert_eq!(count("NOT-NAME joe"), 1);
    assert_eq!(count("DB 3"), 1);
    assert_eq!(count("ID 1 2 3"), 2);
    assert_eq!(count("NOT-ID 1 SKIPME yes"), 1);
    assert_eq!(count("TYPE pubsub"), 0);
    assert_eq!(count("NAME joe DB 0"), 0);
    check_on(
        &mut node,
        &[
            ("CLIENT KILL NAME joe", ":1\r\n"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL NOT-IDLE 1", "-ERR syntax error\r\n"),
        ],
    );
    assert!(other.session.client.is_killed());
}

#[test]
fn an_unknown_command_is_quoted_in_part() {
    let mut node = TestNode::new();
    let long = "a".repeat(200);
    assert_eq!(
        node.run(&format!("{long} {long} b")),
        format!("-ERR unknown command '{0}', with args beginning with: '{0}' \r\n", "a".repeat(128))
    );
}
