//! Conversations, with nodes that answer what the test says.

use std::cell::RefCell;

use super::conversation::{Action, Closed, Conversation, Routes};
use super::kind::Kind;
use bytes::{Bytes, BytesMut};
use keyward_proto::ids::NodeId;
use keyward_proto::resp::reply::write_command;
use keyward_proto::resp::{Args, Batch, Limits, RequestReader};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use std::collections::BTreeMap;

/// Slots below 8192 are served by the first of these nodes, the others by the second, if there is one.
#[derive(Default)]
struct Shards(RefCell<Vec<u8>>);

fn node(n: u8) -> NodeId {
    NodeId::from_random([n; 20])
}

impl Routes for Shards {
    fn place(&self, slot: Option<Slot>) -> Option<NodeId> {
        let shards = self.0.borrow();
        let at = usize::from(1 < shards.len() && slot.is_some_and(|slot| 8192 <= slot.number()));
        shards.get(at).map(|n| node(*n))
    }

    fn is_single(&self) -> bool {
        self.0.borrow().len() <= 1
    }

    fn leads(&self, place: &NodeId) -> bool {
        self.0.borrow().iter().any(|n| node(*n) == *place)
    }
}

/// A client, and what has become of what it has sent.
struct Talk {
    core: Conversation,
    shards: Shards,
    now: Monotonic,
    /// What each node has been sent and has not answered.
    sent: BTreeMap<u8, String>,
    got: String,
    ended: bool,
}

impl Talk {
    fn new(shards: &[u8]) -> Talk {
        Talk {
            core: Conversation::new(),
            shards: Shards(RefCell::new(shards.to_vec())),
            now: Monotonic::from_nanos(1_000_000_000),
            sent: BTreeMap::new(),
            got: String::new(),
            ended: false,
        }
    }

    fn perform(&mut self, mut actions: Vec<Action>) {
        self.core.go_on(&self.shards, self.now, &mut actions);
        for action in actions {
            let number = |place: &NodeId| (1..9).find(|n| node(*n) == *place).unwrap();
            match action {
                Action::Connect(place) => _ = self.sent.insert(number(&place), String::new()),
                Action::Send(place, bytes) => {
                    let sent = self.sent.get_mut(&number(&place)).expect("it is connected");
                    let (mut reader, mut batch) = (RequestReader::default(), Batch::default());
                    reader.parse(&bytes, &Limits::default(), 9, &mut batch).1.unwrap();
                    let args = batch.args(&bytes, 0);
                    let words: Vec<_> =
                        args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
                    sent.push_str(&format!("{};", words.join(" ")));
                }
                Action::Disconnect(place) => _ = self.sent.remove(&number(&place)),
                Action::ToClient(bytes) => {
                    self.got.push_str(&String::from_utf8_lossy(&bytes).replace("\r\n", ";"))
                }
                Action::End => self.ended = true,
            }
        }
    }

    /// The client sends these requests at once.
    fn ask(&mut self, requests: &[&str]) {
        let mut actions = Vec::new();
        for request in requests {
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let mut bytes = BytesMut::new();
            write_command(&mut bytes, &words);
            self.core.request(Kind::of(Args::from_slices(&words)), bytes.freeze(), &mut actions);
        }
        self.perform(actions);
    }

    /// A node has been sent this, and answers.
    fn answer(&mut self, n: u8, expected: &str, replies: &str) {
        let sent = self.sent.get_mut(&n).unwrap_or_else(|| panic!("no connection to {n}"));
        assert_eq!(std::mem::take(sent), expected, "to node {n}");
        let mut actions = Vec::new();
        self.core.received(&node(n), replies.replace(';', "\r\n").as_bytes(), self.now, &mut actions);
        self.perform(actions);
    }

    fn close(&mut self, n: u8, how: Closed) {
        self.sent.remove(&n);
        let mut actions = Vec::new();
        self.core.closed(&node(n), how, self.now, &mut actions);
        self.perform(actions);
    }

    fn breaks_the_protocol(&mut self) {
        let mut actions = Vec::new();
        self.core.answer_last(Bytes::from_static(b"-ERR Protocol error\r\n"), &mut actions);
        self.perform(actions);
    }

    fn pass(&mut self, millis: u64) {
        self.now = Monotonic::from_nanos(self.now.as_nanos() + millis * 1_000_000);
        self.perform(Vec::new());
    }

    fn gets(&mut self, expected: &str) {
        assert_eq!(std::mem::take(&mut self.got), expected);
        assert!(!self.ended, "the connection has ended");
    }
}

// `a` is in slot 15495, `b` in 3300.

#[test]
fn replies_come_in_the_order_of_the_requests() {
    let mut talk = Talk::new(&[1, 2]);
    talk.ask(&["GET a", "GET b", "PING", "SET a 1"]);
    talk.answer(1, "GET b;PING;", "$1;x;+PONG;");
    talk.gets("");
    talk.answer(2, "GET a;SET a 1;", "$-1;");
    talk.gets("$-1;$1;x;+PONG;");
    talk.answer(2, "", "+OK;");
    talk.gets("+OK;");
}

#[test]
fn what_was_refused_is_asked_of_who_leads_then() {
    let mut talk = Talk::new(&[1]);
    talk.ask(&["SET a 1", "GET a"]);
    talk.answer(1, "SET a 1;GET a;", "-READONLY You can't write against a read only replica.;");
    talk.gets("");
    // Not before it is known what became of the second.
    talk.shards.0.replace(vec![3]);
    talk.pass(10);
    assert!(!talk.sent.contains_key(&3));
    talk.answer(1, "", "-MOVED 15495 host:6379;");
    talk.pass(10);
    talk.answer(3, "SET a 1;GET a;", "+OK;$1;1;");
    talk.gets("+OK;$1;1;");
}

#[test]
fn nothing_is_executed_after_what_came_behind_it() {
    let mut talk = Talk::new(&[1]);
    talk.ask(&["SET a 1", "SET a 2"]);
    talk.answer(1, "SET a 1;SET a 2;", "-LOADING it loads;+OK;");
    talk.pass(10);
    talk.gets("-LOADING it loads;+OK;");
    assert_eq!(talk.sent[&1], "");
}

#[test]
fn patience_has_an_end() {
    let mut talk = Talk::new(&[]);
    talk.ask(&["GET a"]);
    for _ in 0..600 {
        talk.pass(10);
    }
    talk.gets("-CLUSTERDOWN The cluster is down;");
    let mut talk = Talk::new(&[1]);
    talk.ask(&["GET a"]);
    for _ in 0..600 {
        talk.pass(10);
        if talk.sent.get(&1).is_some_and(|sent| !sent.is_empty()) {
            talk.answer(1, "GET a;", "-MASTERDOWN it waits;");
        }
    }
    talk.gets("-MASTERDOWN it waits;");
    // A primary that has too few replicas may have them in a moment, or has lost them.
    let mut talk = Talk::new(&[1]);
    talk.ask(&["SET a 1"]);
    for _ in 0..5 {
        talk.answer(1, "SET a 1;", "-NOREPLICAS Not enough good replicas to write.;");
        talk.gets("");
        talk.pass(10);
    }
    talk.answer(1, "SET a 1;", "+OK;");
    talk.gets("+OK;");
    talk.ask(&["SET a 1"]);
    talk.answer(1, "SET a 1;", "-NOREPLICAS Not enough good replicas to write.;");
    talk.pass(1000);
    talk.answer(1, "SET a 1;", "-NOREPLICAS Not enough good replicas to write.;");
    talk.gets("-NOREPLICAS Not enough good replicas to write.;");
}

#[test]
fn who_cannot_be_reached_has_executed_nothing_and_who_is_lost_may_have() {
    let mut talk = Talk::new(&[1]);
    talk.ask(&["INCR a"]);
    talk.close(1, Closed::NeverConnected);
    talk.shards.0.replace(vec![2]);
    talk.pass(10);
    talk.answer(2, "INCR a;", ":1;");
    talk.gets(":1;");
    // Nothing is under way.
    talk.close(2, Closed::Lost);
    talk.pass(10);
    talk.ask(&["INCR a"]);
    assert_eq!(talk.sent[&2], "INCR a;");
    talk.close(2, Closed::Lost);
    assert!(talk.ended);
}

#[test]
fn who_leads_no_more_is_waited_for_a_while() {
    let mut talk = Talk::new(&[1]);
    talk.ask(&["GET a"]);
    talk.answer(1, "GET a;", "$1;x;");
    talk.gets("$1;x;");
    talk.ask(&["INCR a"]);
    talk.shards.0.replace(vec![2]);
    talk.pass(10);
    talk.pass(1900);
    talk.answer(1, "INCR a;", ":1;");
    talk.gets(":1;");
    // Nothing is under way: it is left, and nobody notices.
    talk.pass(100);
    assert!(!talk.sent.contains_key(&1));
    talk.ask(&["INCR a"]);
    assert_eq!(talk.sent[&2], "INCR a;");
    // It stands still, and another one leads: nobody knows what became of the request.
    talk.shards.0.replace(vec![3]);
    talk.pass(10);
    talk.gets("");
    talk.pass(2000);
    assert!(talk.ended);
}

#[test]
fn a_new_connection_hears_first_what_the_client_has_said_of_itself() {
    let mut talk = Talk::new(&[1, 2]);
    talk.ask(&["AUTH secret", "SELECT 1", "GET a"]);
    talk.answer(1, "AUTH secret;", "+OK;");
    talk.answer(1, "SELECT 1;", "+OK;");
    talk.answer(2, "AUTH secret;SELECT 1;GET a;", "+OK;+OK;$1;x;");
    talk.gets("+OK;+OK;$1;x;");
    talk.ask(&["SELECT 7", "GET a"]);
    talk.answer(1, "SELECT 7;", "-ERR out of range;");
    talk.answer(2, "GET a;", "$1;x;");
    talk.gets("-ERR out of range;$1;x;");
    // Of what is said again the last counts, in the place of the first.
    talk.ask(&["SELECT 2", "SELECT 3", "AUTH another", "GET a"]);
    talk.answer(1, "SELECT 2;", "+OK;");
    talk.answer(1, "SELECT 3;", "+OK;");
    talk.answer(1, "AUTH another;", "+OK;");
    talk.answer(2, "AUTH another;SELECT 3;GET a;", "+OK;+OK;$1;x;");
    talk.gets("+OK;+OK;+OK;$1;x;");
    // Who does not take it any more ends the client's connection.
    talk.close(2, Closed::Lost);
    talk.pass(10);
    talk.ask(&["GET a"]);
    talk.answer(2, "AUTH another;SELECT 3;GET a;", "-WRONGPASS no;");
    assert!(talk.ended);
}

#[test]
fn a_transaction_goes_to_the_node_of_its_first_key() {
    let mut talk = Talk::new(&[1, 2]);
    talk.ask(&["MULTI", "SET a 1", "PING", "GET b", "EXEC", "GET b"]);
    talk.gets("+OK;");
    talk.answer(1, "GET b;", "$1;b;");
    talk.answer(2, "MULTI;SET a 1;PING;GET b;EXEC;", "+OK;+QUEUED;+QUEUED;-MOVED 3300 host:1;-EXECABORT no;");
    talk.gets("+QUEUED;+QUEUED;-MOVED 3300 host:1;-EXECABORT no;$1;b;");
    talk.ask(&["WATCH a", "GET b", "MULTI"]);
    talk.answer(2, "WATCH a;", "+OK;");
    talk.answer(1, "GET b;", "$1;b;");
    talk.answer(2, "MULTI;", "+OK;");
    talk.gets("+OK;$1;b;+OK;");
    talk.ask(&["EXEC"]);
    talk.answer(2, "EXEC;", "*0;");
    talk.gets("*0;");
    // What is watched is lost with the connection.
    talk.ask(&["WATCH a"]);
    talk.answer(2, "WATCH a;", "+OK;");
    talk.close(2, Closed::Lost);
    assert!(talk.ended);
    // Where one node has everything it hears MULTI at once.
    let mut talk = Talk::new(&[1]);
    talk.ask(&["MULTI", "GET a", "DISCARD"]);
    talk.answer(1, "MULTI;GET a;DISCARD;", "+OK;+QUEUED;+OK;");
    talk.gets("+OK;+QUEUED;+OK;");
    // Who is not let in is in no transaction.
    talk.ask(&["MULTI"]);
    talk.answer(1, "MULTI;", "-NOAUTH who are you;");
    talk.ask(&["AUTH secret", "GET a"]);
    talk.answer(1, "AUTH secret;", "+OK;");
    talk.answer(1, "GET a;", "-MOVED 15495 host:1;");
    talk.shards.0.replace(vec![2]);
    talk.pass(10);
    talk.answer(2, "AUTH secret;GET a;", "+OK;$1;x;");
    talk.gets("-NOAUTH who are you;+OK;$1;x;");
}

#[test]
fn a_subscriber_belongs_to_one_node_while_that_leads() {
    let mut talk = Talk::new(&[1, 2]);
    talk.ask(&["AUTH secret", "GET a", "SUBSCRIBE news"]);
    talk.answer(1, "AUTH secret;", "+OK;");
    talk.answer(2, "AUTH secret;GET a;", "+OK;$-1;");
    talk.answer(1, "SUBSCRIBE news;", "*3;$9;subscribe;$4;news;:1;*3;");
    talk.gets("+OK;$-1;*3;$9;subscribe;$4;news;:1;*3;");
    talk.ask(&["PING", "UNSUBSCRIBE"]);
    talk.answer(1, "PING;UNSUBSCRIBE;", "$7;");
    talk.gets("$7;");
    talk.shards.0.replace(vec![3, 2]);
    talk.pass(50);
    assert!(talk.ended);
    // The replies to the setup are not for the client.
    let mut talk = Talk::new(&[1, 2]);
    talk.ask(&["AUTH secret"]);
    talk.answer(1, "AUTH secret;", "+OK;");
    talk.ask(&["SSUBSCRIBE a"]);
    talk.answer(2, "AUTH secret;SSUBSCRIBE a;", "+OK;*3;$10;ssubscribe;");
    talk.gets("+OK;*3;$10;ssubscribe;");
}

#[test]
fn pushes_are_no_replies() {
    let mut talk = Talk::new(&[1]);
    talk.ask(&["GET a"]);
    talk.answer(1, "GET a;", ">2;+invalidate;*1;$1;a;$1;x;");
    talk.gets(">2;+invalidate;*1;$1;a;$1;x;");
    // Who speaks without being asked is not understood.
    talk.answer(1, "", "+OK;");
    assert!(talk.ended);
}

#[test]
fn who_quits_gets_what_it_waits_for() {
    let mut talk = Talk::new(&[1]);
    talk.ask(&["READONLY", "GET a", "QUIT"]);
    talk.gets("+OK;");
    talk.answer(1, "GET a;", "$1;x;");
    assert_eq!((talk.got.as_str(), talk.ended), ("$1;x;+OK;", true));
    let mut talk = Talk::new(&[1]);
    talk.ask(&["GET a"]);
    talk.breaks_the_protocol();
    talk.answer(1, "GET a;", "$1;x;");
    assert_eq!((talk.got.as_str(), talk.ended), ("$1;x;-ERR Protocol error;", true));
    // Also who belongs to one node, and who would have with the request before.
    let mut talk = Talk::new(&[1]);
    talk.ask(&["SUBSCRIBE news"]);
    talk.breaks_the_protocol();
    assert_eq!((talk.got.as_str(), talk.ended), ("-ERR Protocol error;", true));
    let mut talk = Talk::new(&[]);
    talk.ask(&["SUBSCRIBE news"]);
    talk.breaks_the_protocol();
    talk.shards.0.replace(vec![1]);
    talk.pass(10);
    assert_eq!((talk.got.as_str(), talk.ended), ("-ERR Protocol error;", true));
}
