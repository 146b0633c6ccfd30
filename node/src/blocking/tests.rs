//! Clients that wait, in all the ways in which a wait ends.

use std::time::Duration;

use keyward_proto::time::Monotonic;
use keyward_replication::gate::GateState;

use super::{Blocked, End, Ending, Look};
use crate::execute::Stop;
use crate::testing::{TestNode, check_on};

#[test]
fn who_waits_is_served_in_order_by_what_arrives() {
    let mut pusher = TestNode::replicated();
    let mut waiting: Vec<TestNode> = (0..3).map(|_| pusher.another_client()).collect();
    for (node, request) in waiting.iter_mut().zip(["BLPOP a q 0", "BLMOVE q r LEFT RIGHT 0", "BLPOP r 0"]) {
        assert_eq!(node.run(request), "");
    }
    assert_eq!(pusher.run("RPUSH q 1 2 3"), ":3\r\n");
    let replies: Vec<String> = waiting
        .iter()
        .map(|node| match &node.stop {
            Some(Stop::Blocked(Blocked { waiter, .. }, _)) => {
                let Some(End::Served(served)) = waiter.take_end() else { panic!("it was served") };
                String::from_utf8_lossy(&served.reply.to_vec()).into_owned()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(replies, ["*2\r\n$1\r\nq\r\n$1\r\n1\r\n", "$1\r\n2\r\n", "*2\r\n$1\r\nr\r\n$1\r\n2\r\n"]);
    assert_eq!(pusher.effects(), ["RPUSH q 1 2 3", "LPOP q", "LPOP q", "RPUSH r 2", "LPOP r"]);
    check_on(&mut pusher, &[("LRANGE q 0 -1", "*1\r\n$1\r\n3\r\n"), ("LLEN r", ":0\r\n")]);
}

/// What a node that waits has got.
#[track_caller]
fn served(node: &TestNode) -> Option<String> {
    let Some(Stop::Blocked(blocked, _)) = &node.stop else { panic!("it waits") };
    match blocked.waiter.take_end()? {
        End::Served(served) => Some(String::from_utf8_lossy(&served.reply.to_vec()).into_owned()),
        other => panic!("it is served, not {other:?}"),
    }
}

const ENTRY: &str = "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";

#[test]
fn readers_of_streams_get_what_comes_after_they_asked() {
    let mut writer = TestNode::replicated();
    writer.run("XADD s 1-0 f v");
    writer.run("XGROUP CREATE s g $");
    let requests = [
        "XREAD BLOCK 0 STREAMS t s $ $",
        "XREADGROUP GROUP g a BLOCK 0 STREAMS s >",
        "XREAD BLOCK 0 STREAMS t $",
    ];
    let mut waiting = requests.map(|_| writer.another_client());
    for (node, request) in waiting.iter_mut().zip(requests) {
        assert_eq!(node.run(request), "");
    }
    check_on(
        &mut writer,
        &[("MULTI", "+OK\r\n"), ("XADD s 1-1 f v", "+QUEUED\r\n"), ("EXEC", "*1\r\n$3\r\n1-1\r\n")],
    );
    assert_eq!(waiting.each_ref().map(served), [Some(ENTRY.into()), Some(ENTRY.into()), None]);
}

/// With CLAIM the time brings something, too.
#[test]
fn who_waits_to_claim_looks_again_when_something_may_be_due() {
    const CLAIMED: &str = "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*4\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n:";
    let mut writer = TestNode::replicated();
    let mut waiting = writer.another_client();
    for request in ["XADD s 1-1 f v", "XGROUP CREATE s g 0", "XREADGROUP GROUP g a STREAMS s >"] {
        writer.run(request);
    }
    assert_eq!(waiting.run("XREADGROUP GROUP g b BLOCK 0 CLAIM 100000 STREAMS s >"), "");
    let Some(Stop::Blocked(mut blocked, None)) = waiting.stop.take() else { panic!("it waits") };
    let now = Monotonic::from_nanos(5);
    let next = blocked.next_look(now).unwrap();
    assert!(Duration::from_secs(90) < next && next <= Duration::from_secs(100), "{next:?}");
    assert!(blocked.is_only_again(now));
    blocked.wait_for(Some(Duration::from_secs(1)), now);
    assert_eq!(blocked.next_look(now), Some(Duration::from_secs(1)));
    assert!(!blocked.is_only_again(now + Duration::from_secs(1)));
    waiting.executor.serve_by_time(&blocked.waiter);
    assert!(blocked.waiter.take_end().is_none(), "nothing is due yet");
    writer.effects();
    writer.run("XCLAIM s g c 0 1-1 IDLE 200000");
    waiting.publish(GateState::Replica, 0);
    waiting.executor.serve_by_time(&blocked.waiter);
    assert!(blocked.waiter.take_end().is_none(), "a replica claims nothing");
    waiting.publish(GateState::Primary, 0);
    waiting.executor.serve_by_time(&blocked.waiter);
    let Some(End::Served(served)) = blocked.waiter.take_end() else { panic!("it is due") };
    let reply = String::from_utf8_lossy(&served.reply.to_vec()).into_owned();
    assert!(reply.starts_with(CLAIMED), "{reply}");
    let effects = writer.effects();
    assert!(
        effects.last().is_some_and(|effect| effect.starts_with("XCLAIM s g b 0 1-1 TIME ")),
        "{effects:?}"
    );
    assert_eq!(writer.run("XADD s 1-2 f v"), "$3\r\n1-2\r\n");
    assert_eq!(writer.effects(), ["XADD s 1-2 f v"], "it waits no more");
}

#[test]
fn who_waits_for_a_group_hears_that_it_is_gone() {
    let no_group = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n";
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    for (request, error) in [
        ("DEL s", no_group),
        ("XGROUP DESTROY s g", no_group),
        ("RENAME s t", no_group),
        ("FLUSHALL", no_group),
        ("SET s v", wrong_type),
    ] {
        let mut writer = TestNode::new();
        writer.run("XGROUP CREATE s g $ MKSTREAM");
        let (mut waiting, mut reader) = (writer.another_client(), writer.another_client());
        assert_eq!(waiting.run("XREADGROUP GROUP g a BLOCK 0 STREAMS s >"), "");
        assert_eq!(reader.run("XREAD BLOCK 0 STREAMS s $"), "");
        writer.run(request);
        assert_eq!((served(&waiting).as_deref(), served(&reader)), (Some(error), None), "{request}");
    }
}

#[test]
fn at_a_replica_readers_are_served_by_what_is_applied() {
    let mut primary = TestNode::replicated();
    let mut waiting = TestNode::replicated();
    waiting.publish(GateState::Replica, 0);
    assert_eq!(waiting.run("XREAD BLOCK 0 STREAMS s $"), "");
    primary.run("XADD s 1-1 f v");
    primary.apply_effects_to(&mut waiting);
    assert_eq!(served(&waiting), Some(ENTRY.into()));
}

#[test]
fn who_was_unblocked_or_killed_is_not_served_any_more() {
    for end in ["CLIENT UNBLOCK", "CLIENT KILL ID"] {
        let mut pusher = TestNode::new();
        let mut waiting = pusher.another_client();
        assert_eq!(waiting.run("BLPOP q 0"), "");
        let id = waiting.session.client.id;
        assert_eq!(pusher.run(&format!("{end} {id}")), ":1\r\n");
        check_on(
            &mut pusher,
            &[
                (&format!("{end} {id}"), ":0\r\n"),
                ("RPUSH q 1", ":1\r\n"),
                ("LRANGE q 0 -1", "*1\r\n$1\r\n1\r\n"),
            ],
        );
    }
}

/// It used to be looked at only while the node was between two roles, and to wait for ever.
#[test]
fn a_wait_ends_with_its_generation_whenever_it_is_looked_at() {
    use GateState::{Holding, Loading, Primary, Replica, Undecided};
    for state in [Undecided, Primary, Replica, Loading] {
        let mut waiting = TestNode::replicated();
        assert_eq!(waiting.run("BLPOP q 0"), "");
        let Some(Stop::Blocked(blocked, _)) = &waiting.stop else { panic!("it waits") };
        let gate = &waiting.executor.server().shared.gate;
        waiting.publish(Holding, 0);
        assert!(blocked.end(Look::Woken, gate).is_none(), "a hand-off may fail");
        waiting.publish(state, 1);
        let ending = blocked.end(Look::Woken, gate);
        assert!(matches!(ending, Some(Ending::Demoted(_))), "{state:?}: {ending:?}");
    }
}

#[test]
fn in_a_transaction_nobody_waits() {
    for (request, reply) in [("BLPOP a 0", "*-1\r\n"), ("BLMOVE a b LEFT LEFT 0", "$-1\r\n")] {
        let mut node = TestNode::new();
        node.session.in_exec = true;
        assert_eq!(node.run(request), reply);
    }
}

#[test]
fn a_waiting_client_gets_what_another_adds() {
    let mut node = TestNode::new();
    let mut other = node.another_client();
    assert_eq!(node.run("BZPOPMIN z 0"), "");
    let Some(Stop::Blocked(Blocked { waiter, .. }, _)) = &node.stop else { panic!("it waits") };
    check_on(&mut other, &[("ZADD z 2 b 1 a", ":2\r\n"), ("ZRANGE z 0 -1", "*1\r\n$1\r\nb\r\n")]);
    let Some(End::Served(served)) = waiter.take_end() else { panic!("it was served") };
    assert_eq!(served.reply.to_vec(), b"*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n");
}

#[test]
fn a_restored_list_serves_who_waits_for_it() {
    let mut node = TestNode::new();
    node.run("RPUSH source a");
    let reply = node.run_raw(&[b"DUMP", b"source"]);
    let header = reply.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut waiting = node.another_client();
    assert_eq!(waiting.run("BLPOP l 0"), "");
    let restore: [&[u8]; 4] = [b"RESTORE", b"l", b"0", &reply[header..reply.len() - 2]];
    assert_eq!(node.run_words(&restore), "+OK\r\n");
    assert_eq!(node.run("EXISTS l"), ":0\r\n");
}
