//! Replies and effects of stream commands.

use crate::testing::{TestKeyspace, check, check_on};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
/// The clock of these tests, as the first ID of its millisecond.
const NOW: &str = "$15\r\n1704067200000-0\r\n";

#[test]
fn entries_have_ids_that_grow() {
    check(&[
        ("XADD s 1-1 f v", "$3\r\n1-1\r\n"),
        ("XADD s 1-* f v g w", "$3\r\n1-2\r\n"),
        (
            "XADD s 1-2 f v",
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n",
        ),
        ("XADD s 0-0 f v", "-ERR The ID specified in XADD must be greater than 0-0\r\n"),
        ("XADD s 2 f", "-ERR wrong number of arguments for 'xadd' command\r\n"),
        ("XADD none NOMKSTREAM * f v", "$-1\r\n"),
        ("XADD s * f v", NOW),
        ("XADD s * f v", "$15\r\n1704067200000-1\r\n"),
        ("XLEN s", ":4\r\n"),
        ("XLEN none", ":0\r\n"),
        ("XRANGE s - + COUNT 1", "*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("XRANGE s (1-1 1", "*1\r\n*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$1\r\nw\r\n"),
        (
            "XREVRANGE s 1 - COUNT 1",
            "*1\r\n*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$1\r\nw\r\n",
        ),
        ("XRANGE s - + COUNT 0", "*-1\r\n"),
        ("XDEL s 1-1 9-9 1-2", ":2\r\n"),
        ("XTRIM s MAXLEN 1", ":1\r\n"),
        ("XSETID s 1-1", "-ERR The ID specified in XSETID is smaller than current max_deleted_entry_id\r\n"),
        ("XSETID s 1704067200009-1 ENTRIESADDED 9", "+OK\r\n"),
        ("XADD s * f v", "$15\r\n1704067200009-2\r\n"),
        ("TYPE s", "+stream\r\n"),
        ("OBJECT ENCODING s", "$6\r\nstream\r\n"),
        ("SET k v", "+OK\r\n"),
        ("XADD k * f v", WRONG_TYPE),
        ("XREAD STREAMS k 0", WRONG_TYPE),
        ("LPUSH s v", WRONG_TYPE),
    ]);
}

#[test]
fn a_group_shares_out_what_comes() {
    let fv = "*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
    let delivered = |id: &str| format!("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n{id}\r\n{fv}");
    check(&[
        (
            "XGROUP CREATE s g $",
            "-ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.\r\n",
        ),
        ("XGROUP CREATE s g $ MKSTREAM", "+OK\r\n"),
        ("XGROUP CREATE s g $", "-BUSYGROUP Consumer Group name already exists\r\n"),
        ("XADD s 1-1 f v", "$3\r\n1-1\r\n"),
        ("XADD s 1-2 f v", "$3\r\n1-2\r\n"),
        ("XREADGROUP GROUP g a COUNT 1 STREAMS s >", &delivered("1-1")),
        ("XREADGROUP GROUP g b STREAMS s >", &delivered("1-2")),
        ("XREADGROUP GROUP g b STREAMS s >", "*-1\r\n"),
        ("XREADGROUP GROUP g b STREAMS s 0", &delivered("1-2")),
        (
            "XREADGROUP GROUP x b STREAMS s >",
            "-NOGROUP No such key 's' or consumer group 'x' in XREADGROUP with GROUP option\r\n",
        ),
        (
            "XPENDING s g",
            "*4\r\n:2\r\n$3\r\n1-1\r\n$3\r\n1-2\r\n*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n$1\r\n1\r\n",
        ),
        ("XPENDING s g - + 5 b", "*1\r\n*4\r\n$3\r\n1-2\r\n$1\r\nb\r\n:0\r\n:2\r\n"),
        ("XCLAIM s g a 0 1-2 JUSTID", "*1\r\n$3\r\n1-2\r\n"),
        ("XAUTOCLAIM s g b 0 0 COUNT 1 JUSTID", "*3\r\n$3\r\n1-2\r\n*1\r\n$3\r\n1-1\r\n*0\r\n"),
        ("XACK s g 1-1 1-1 5-5", ":1\r\n"),
        ("XDEL s 1-2", ":1\r\n"),
        ("XAUTOCLAIM s g b 0 0", "*3\r\n$3\r\n0-0\r\n*0\r\n*1\r\n$3\r\n1-2\r\n"),
        ("XGROUP DELCONSUMER s g a", ":0\r\n"),
        ("XGROUP DESTROY s g", ":1\r\n"),
        ("XACK s g 1-1", ":0\r\n"),
    ]);
}

#[test]
fn effects_need_neither_clock_nor_chance() {
    let mut keyspace = TestKeyspace::replicated();
    for (request, effects) in [
        ("XADD s * f v", &["XADD s 1704067200000-0 f v"][..]),
        ("XADD s MAXLEN ~ 0 * f v", &["XADD s MAXLEN = 0 1704067200000-1 f v"]),
        ("XADD s NOMKSTREAM MAXLEN ~ 9 LIMIT 5 * f v", &["XADD s 1704067200000-2 f v"]),
        ("XADD s MINID 9999999999999 9999999999998-1 f v", &["XADD s MAXLEN = 0 9999999999998-1 f v"]),
        ("XTRIM s MINID 5", &[]),
        ("XADD s 9999999999999-* f v", &["XADD s 9999999999999-0 f v"]),
        ("XGROUP CREATE s g $", &["XGROUP CREATE s g 9999999999999-0 ENTRIESREAD -1"]),
        (
            "XGROUP SETID s g +",
            &["XGROUP SETID s g 18446744073709551615-18446744073709551615 ENTRIESREAD -1"],
        ),
        ("XGROUP SETID s g -", &["XGROUP SETID s g 0-0 ENTRIESREAD -1"]),
        ("XGROUP CREATE s h +", &[]),
        ("XGROUP SETID s g 0", &["XGROUP SETID s g 0-0 ENTRIESREAD -1"]),
        (
            "XREADGROUP GROUP g a STREAMS s >",
            &[
                "XCLAIM s g a 0 9999999999999-0 TIME 1704067200000 RETRYCOUNT 1 FORCE JUSTID SEEN 1704067200000 ACTIVE 1704067200000 LASTID 9999999999999-0 ENTRIESREAD 5",
            ],
        ),
        ("XREADGROUP GROUP g a STREAMS s >", &[]),
        (
            "XREADGROUP GROUP g b STREAMS s 0",
            &["XCLAIM s g b 0 0-0 TIME 0 RETRYCOUNT 0 FORCE JUSTID SEEN 1704067200000 ACTIVE -1"],
        ),
        (
            "XCLAIM s g b 0 9999999999999-0 IDLE 1000",
            &[
                "XCLAIM s g b 0 9999999999999-0 TIME 1704067199000 RETRYCOUNT 2 FORCE JUSTID SEEN 1704067200000 ACTIVE 1704067200000",
            ],
        ),
        ("XACK s g 9999999999999-0 1-1", &["XACK s g 9999999999999-0 1-1"]),
        ("XTRIM s MAXLEN ~ 0", &["XTRIM s MAXLEN = 0"]),
    ] {
        keyspace.run(request);
        assert_eq!(keyspace.effects(), effects, "{request}");
    }
}

/// Whatever has happened to a stream, a replica has the same one, but for where its nodes begin.
#[test]
fn a_replica_has_the_same_stream() {
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "XADD s 1-1 f v",
        "XADD s 1-2 g v h w",
        "XADD s 2-1 f v",
        "XADD s 3-1 f v",
        "XADD s 4-1 f v",
        "XGROUP CREATE s g 0",
        "XGROUP CREATE s h 2-1 ENTRIESREAD 3",
        "XREADGROUP GROUP g a COUNT 2 STREAMS s >",
        "XREADGROUP GROUP g b COUNT 1 NOACK STREAMS s >",
        "XREADGROUP GROUP h a COUNT 1 STREAMS s >",
        "XREADGROUP GROUP g a STREAMS s 0",
        "XGROUP CREATECONSUMER s h c",
        "XCLAIM s g c 0 1-2 RETRYCOUNT 9",
        "XCLAIM s g c 0 4-1 FORCE LASTID 4-1",
        "XDEL s 1-1",
        "XAUTOCLAIM s g c 0 0 JUSTID",
        "XTRIM s MAXLEN 3",
        "COPY s t",
        "XADD s MAXLEN 2 5-* f v",
        "RENAME s u",
        "XGROUP CREATE empty g 0 MKSTREAM",
        "COPY empty {x}empty",
    ] {
        let reply = keyspace.run(request);
        assert!(!reply.starts_with('-'), "{request}: {reply}");
    }
    let mut replica = keyspace.replica();
    for key in ["t", "u", "empty", "{x}empty"] {
        let request = format!("XINFO STREAM {key} FULL COUNT 0");
        let expected = keyspace.run(&request);
        assert!(expected.contains("entries-added"), "{key}: {expected}");
        assert_eq!(replica.run(&request), expected, "{key}");
    }
}

/// They used to grow beyond what an effect can say, which ended the role of every replica.
#[test]
fn counts_end_where_effects_can_still_name_them() {
    const MOST: &str = "9223372036854775807";
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "XADD s 1-1 f v",
        &format!("XGROUP CREATE s g 1-1 ENTRIESREAD {MOST}"),
        "XADD s 2-1 f v",
        "XREADGROUP GROUP g a STREAMS s >",
        &format!("XCLAIM s g a 0 2-1 RETRYCOUNT {MOST}"),
        "XCLAIM s g b 0 2-1",
        "XREADGROUP GROUP g b STREAMS s 0",
        "XAUTOCLAIM s g a 0 0",
        &format!("XSETID s 3-1 ENTRIESADDED {MOST}"),
        "XADD s 4-1 f v",
        "COPY s {x}copy",
        "DUMP s",
    ] {
        let reply = keyspace.run(request);
        assert!(!reply.starts_with('-'), "{request}: {reply}");
    }
    let mut replica = keyspace.replica();
    for key in ["s", "{x}copy"] {
        let request = format!("XINFO STREAM {key} FULL COUNT 0");
        let expected = keyspace.run(&request);
        assert_eq!(expected.matches(MOST).count(), 4, "added, read, delivered in two places: {expected}");
        assert_eq!(replica.run(&request), expected, "{key}");
    }
}

#[test]
fn what_is_known_of_a_group() {
    check_on(
        &mut TestKeyspace::new().resp3(),
        &[
            ("XADD s 1-1 f v", "$3\r\n1-1\r\n"),
            ("XADD s 2-1 f v", "$3\r\n2-1\r\n"),
            ("XGROUP CREATE s g 1-1", "+OK\r\n"),
            (
                "XINFO GROUPS s",
                "*1\r\n%6\r\n$4\r\nname\r\n$1\r\ng\r\n$9\r\nconsumers\r\n:0\r\n$7\r\npending\r\n:0\r\n\
                 $17\r\nlast-delivered-id\r\n$3\r\n1-1\r\n$12\r\nentries-read\r\n_\r\n$3\r\nlag\r\n:1\r\n",
            ),
            ("XREAD STREAMS s 1-1", "%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n2-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
            ("XREAD STREAMS s $", "_\r\n"),
            ("XGROUP CREATECONSUMER s g c", ":1\r\n"),
            (
                "XINFO CONSUMERS s g",
                "*1\r\n%4\r\n$4\r\nname\r\n$1\r\nc\r\n$7\r\npending\r\n:0\r\n$4\r\nidle\r\n:0\r\n$8\r\ninactive\r\n:-1\r\n",
            ),
            ("XINFO CONSUMERS s x", "-NOGROUP No such consumer group 'x' for key name 's'\r\n"),
            ("XINFO GROUPS none", "-ERR no such key\r\n"),
        ],
    );
}

/// Of Valkey 9.2 and Redis 8.2.
#[test]
fn entries_are_deleted_with_a_look_at_the_groups() {
    const MISMATCH: &str = "-ERR The `numids` parameter must match the number of arguments\r\n";
    const NUMBER: &str = "-ERR Number of IDs must be a positive integer\r\n";
    const SYNTAX: &str = "-ERR syntax error\r\n";
    let mut keyspace = TestKeyspace::replicated();
    for id in ["1-1", "1-2", "1-3", "1-4", "1-5"] {
        keyspace.run(&format!("XADD s {id} f v"));
    }
    for request in [
        "XGROUP CREATE s g 0",
        "XGROUP CREATE s h 0",
        "XREADGROUP GROUP g c COUNT 4 STREAMS s >",
        "XREADGROUP GROUP h c COUNT 3 STREAMS s >",
        "SET k v",
    ] {
        assert!(!keyspace.run(request).starts_with('-'), "{request}");
    }
    let mut replica = keyspace.replica();
    for (request, reply, effects) in [
        ("XDELEX none IDS 2 1-1 1-2", "*2\r\n:-1\r\n:-1\r\n", vec![]),
        ("XACKDEL none g IDS 1 1-1", "*1\r\n:-1\r\n", vec![]),
        ("XACKDEL s none IDS 1 1-1", "*1\r\n:-1\r\n", vec![]),
        ("XDELEX k IDS 1 1-1", WRONG_TYPE, vec![]),
        ("XACKDEL k g IDS 1 1-1", WRONG_TYPE, vec![]),
        ("XDELEX s IDS 0 1-1", NUMBER, vec![]),
        ("XDELEX s IDS x 1-1", NUMBER, vec![]),
        ("XDELEX s IDS 2 1-1", MISMATCH, vec![]),
        ("XDELEX s IDS 1 1-1 1-2", MISMATCH, vec![]),
        ("XDELEX s IDS 9223372036854775807 1-1", MISMATCH, vec![]),
        ("XDELEX s FOO IDS 1 1-1", SYNTAX, vec![]),
        ("XDELEX s ACKED KEEPREF IDS 1 1-1", SYNTAX, vec![]),
        ("XDELEX s ACKED ACKED ACKED", SYNTAX, vec![]),
        ("XDELEX s IDS 1 x", "-ERR Invalid stream ID specified as stream command argument\r\n", vec![]),
        // Both groups have 1-1 as pending, and 1-4 is yet to be read by one of them.
        ("XDELEX s ACKED IDS 2 1-1 1-4", "*2\r\n:2\r\n:2\r\n", vec![]),
        ("XACKDEL s g ACKED IDS 1 1-1", "*1\r\n:2\r\n", vec!["XACK s g 1-1"]),
        ("XACKDEL s g ACKED IDS 1 1-1", "*1\r\n:-1\r\n", vec![]),
        ("XACKDEL s h ACKED IDS 2 1-1 9-9", "*2\r\n:1\r\n:-1\r\n", vec!["XACK s h 1-1", "XDEL s 1-1"]),
        ("XDELEX s IDS 1 1-2", "*1\r\n:1\r\n", vec!["XDEL s 1-2"]),
        ("XPENDING s g", "*4\r\n:3\r\n$3\r\n1-2\r\n$3\r\n1-4\r\n*1\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n", vec![]),
        // What is deleted already is pending yet.
        ("XDELEX s DELREF IDS 1 1-2", "*1\r\n:-1\r\n", vec!["XACK s g 1-2", "XACK s h 1-2"]),
        ("XDELEX s IDS 1 1-3 DELREF", "*1\r\n:1\r\n", vec!["XACK s g 1-3", "XACK s h 1-3", "XDEL s 1-3"]),
        ("XACKDEL s g KEEPREF IDS 1 1-4", "*1\r\n:1\r\n", vec!["XACK s g 1-4", "XDEL s 1-4"]),
        ("XLEN s", ":1\r\n", vec![]),
        ("XINFO STREAM s FULL", "", vec![]),
    ] {
        let answer = keyspace.run(request);
        assert!(reply.is_empty() || answer == reply, "{request}: {answer}");
        assert_eq!(keyspace.effects(), effects, "{request}");
        for effect in effects {
            replica.run(effect);
        }
    }
    let whole = "XINFO STREAM s FULL";
    assert_eq!(replica.run(whole), keyspace.run(whole));
}

/// Of Redis 8.4.
#[test]
fn who_reads_with_claim_gets_what_others_have_left_first() {
    const FIELDS: &str = "*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
    let entry = |(id, idle, deliveries): &(&str, u64, u64)| {
        format!("*4\r\n${}\r\n{id}\r\n{FIELDS}:{idle}\r\n:{deliveries}\r\n", id.len())
    };
    let read = |entries: &[(&str, u64, u64)]| {
        let texts: String = entries.iter().map(entry).collect();
        format!("*1\r\n*2\r\n$1\r\ns\r\n*{}\r\n{texts}", entries.len())
    };
    let mut keyspace = TestKeyspace::replicated();
    for id in ["1-1", "1-2", "1-3", "1-4", "1-5", "1-6"] {
        keyspace.run(&format!("XADD s {id} f v"));
    }
    keyspace.run("XGROUP CREATE s g 0");
    let mut replica = keyspace.replica();
    let effect = |ids: &str, consumer: &str, passed: i64, count: u64, position: &str| {
        let at = 1_704_067_200_000 + passed;
        let (times, seen) = (format!("TIME {at} RETRYCOUNT {count}"), format!("SEEN {at} ACTIVE {at}"));
        format!("XCLAIM s g {consumer} 0 {ids} {times} FORCE JUSTID {seen}{position}")
    };
    let at = |id: &str, read: u64| format!(" LASTID {id} ENTRIESREAD {read}");
    for (pass, request, reply, effects) in [
        // Nothing is pending, so all are new.
        (
            0,
            "XREADGROUP GROUP g a COUNT 2 CLAIM 0 STREAMS s >",
            read(&[("1-1", 0, 0), ("1-2", 0, 0)]),
            vec![effect("1-1 1-2", "a", 0, 1, &at("1-2", 2))],
        ),
        (
            10,
            "XREADGROUP GROUP g b COUNT 1 STREAMS s 0",
            "*1\r\n*2\r\n$1\r\ns\r\n*0\r\n".to_owned(),
            vec![
                "XCLAIM s g b 0 0-0 TIME 0 RETRYCOUNT 0 FORCE JUSTID SEEN 1704067200010 ACTIVE -1".to_owned(),
            ],
        ),
        // What has waited for longest comes first, and new entries fill what is left of COUNT.
        (
            0,
            "XCLAIM s g a 0 1-1 JUSTID",
            "*1\r\n$3\r\n1-1\r\n".to_owned(),
            vec![effect("1-1", "a", 10, 1, "")],
        ),
        (
            5,
            "XREADGROUP GROUP g b COUNT 3 CLAIM 5 STREAMS s >",
            read(&[("1-2", 15, 1), ("1-1", 5, 1), ("1-3", 0, 0)]),
            vec![effect("1-2 1-1", "b", 15, 2, &at("1-3", 3)), effect("1-3", "b", 15, 1, &at("1-3", 3))],
        ),
        // Nothing has been pending for so long. NOACK concerns what is new only.
        (
            3,
            "XREADGROUP GROUP g a COUNT 1 NOACK CLAIM 4 STREAMS s >",
            read(&[("1-4", 0, 0)]),
            vec![format!(
                "XCLAIM s g a 0 0-0 TIME 0 RETRYCOUNT 0 FORCE JUSTID SEEN 1704067200018 ACTIVE 1704067200010{}",
                at("1-4", 4)
            )],
        ),
        (
            1,
            "XREADGROUP GROUP g a COUNT 1 NOACK CLAIM 4 STREAMS s >",
            read(&[("1-1", 4, 2)]),
            vec![effect("1-1", "a", 19, 3, "")],
        ),
        // Whoever reads what is its own already is told of nothing else.
        (
            0,
            "XREADGROUP GROUP g a COUNT 1 CLAIM 0 STREAMS s 0",
            format!("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n{FIELDS}"),
            vec![effect("1-1", "a", 19, 4, "")],
        ),
        // What does not exist any more is pending for nobody, however little is wanted.
        (0, "XDEL s 1-2 1-3", ":2\r\n".to_owned(), vec!["XDEL s 1-2 1-3".to_owned()]),
        (
            100,
            "XREADGROUP GROUP g c COUNT 1 CLAIM 100 STREAMS s >",
            read(&[("1-1", 100, 4)]),
            vec![effect("1-1", "c", 119, 5, ""), "XACK s g 1-2 1-3".to_owned()],
        ),
        (
            0,
            "XPENDING s g",
            "*4\r\n:1\r\n$3\r\n1-1\r\n$3\r\n1-1\r\n*1\r\n*2\r\n$1\r\nc\r\n$1\r\n1\r\n".to_owned(),
            vec![],
        ),
    ] {
        keyspace.pass(pass);
        replica.pass(pass);
        assert_eq!(keyspace.run(request), reply, "{request}");
        assert_eq!(keyspace.effects(), effects, "{request}");
        for effect in effects {
            replica.apply(&effect);
        }
    }
    let whole = "XINFO STREAM s FULL";
    assert_eq!(replica.run(whole), keyspace.run(whole));
}

#[test]
fn claim_is_of_readers_in_groups() {
    const SYNTAX: &str = "-ERR syntax error\r\n";
    check_on(
        &mut TestKeyspace::new().resp3(),
        &[
            ("XADD s 1-1 f v", "$3\r\n1-1\r\n"),
            ("XADD t 2-1 f v", "$3\r\n2-1\r\n"),
            ("XGROUP CREATE s g 0", "+OK\r\n"),
            ("XGROUP CREATE t g 0", "+OK\r\n"),
            (
                "XREAD CLAIM 0 STREAMS s 0",
                "-ERR The CLAIM option is only supported by XREADGROUP. You called XREAD instead.\r\n",
            ),
            ("XREADGROUP GROUP g a CLAIM x STREAMS s >", "-ERR min-idle-time is not an integer\r\n"),
            (
                "XREADGROUP GROUP g a CLAIM -1 STREAMS s >",
                "-ERR min-idle-time must be a positive integer\r\n",
            ),
            (
                "XREADGROUP GROUP g a STREAMS s > CLAIM",
                "-ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified.\r\n",
            ),
            ("XREADGROUP GROUP g a NOACK COUNT 1 CLAIM", SYNTAX),
            (
                "XREADGROUP GROUP g a STREAMS s >",
                "%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
            ),
            (
                "XREADGROUP GROUP g b CLAIM 0 STREAMS s t > >",
                "%2\r\n$1\r\ns\r\n*1\r\n*4\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n:0\r\n:1\r\n\
                 $1\r\nt\r\n*1\r\n*4\r\n$3\r\n2-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n:0\r\n:0\r\n",
            ),
            ("XREADGROUP GROUP g b CLAIM 1000 STREAMS s t > >", "_\r\n"),
        ],
    );
}

const FIRST: &str = "$15\r\n1704067200000-0\r\n";
const SECOND: &str = "$15\r\n1704067200000-1\r\n";
const THIRD: &str = "$15\r\n1704067200000-2\r\n";

/// Of Redis 8.6.
#[test]
fn what_a_producer_sends_again_is_added_once() {
    const EMPTY: &str = "-ERR a producer ID or idempotent ID is empty\r\n";
    const NOT_GENERATED: &str =
        "-ERR IDMP and IDMPAUTO can be used only with an ID that is generated: '*'\r\n";
    const SYNTAX: &str = "-ERR syntax error\r\n";
    check(&[
        ("XADD s NOMKSTREAM IDMP p i * f v", "$-1\r\n"),
        ("XADD s IDMP p i * f v", FIRST),
        ("XADD s IDMP p i * g w", FIRST),
        ("XADD s idmp q i * f v", SECOND),
        ("XADD s IDMP p i2 MAXLEN 9 * f v", THIRD),
        ("XADD s IDMPAUTO p * f v", "$15\r\n1704067200000-3\r\n"),
        ("XADD s IDMPAUTO p * f v", "$15\r\n1704067200000-3\r\n"),
        ("XADD s IDMPAUTO p * f vv", "$15\r\n1704067200000-4\r\n"),
        ("XADD s IDMPAUTO q * f v", "$15\r\n1704067200000-5\r\n"),
        ("XDEL s 1704067200000-0", ":1\r\n"),
        ("XADD s IDMP p i * f v", FIRST),
        ("XLEN s", ":5\r\n"),
        // What is remembered is no client's group.
        ("XINFO GROUPS s", "*0\r\n"),
        ("XGROUP CREATE s g $", "+OK\r\n"),
        ("XCLAIM s g c 0 1704067200000-1 FORCE JUSTID", "*1\r\n$15\r\n1704067200000-1\r\n"),
        ("XACKDEL s g ACKED IDS 1 1704067200000-1", "*1\r\n:1\r\n"),
        ("XDELEX s DELREF IDS 1 1704067200000-2", "*1\r\n:1\r\n"),
        ("XADD s IDMP p i2 * f v", THIRD),
        ("XADD s IDMP p i 5-5 f v", NOT_GENERATED),
        ("XADD s IDMPAUTO p 9999999999999-* f v", NOT_GENERATED),
        ("XADD s IDMP p i IDMPAUTO p * f v", SYNTAX),
        ("XADD s IDMP \"\" i * f v", EMPTY),
        ("XADD s IDMP p \"\" * f v", EMPTY),
        ("XADD s IDMPAUTO \"\" * f v", EMPTY),
        ("XADD s IDMP p * f v", "-ERR Invalid stream ID specified as stream command argument\r\n"),
        ("SET k v", "+OK\r\n"),
        ("XADD k IDMP p i * f v", WRONG_TYPE),
        ("XCFGSET k IDMP-MAXSIZE 5", WRONG_TYPE),
        ("XCFGSET none IDMP-MAXSIZE 5", "-ERR no such key\r\n"),
        ("XCFGSET s", SYNTAX),
        ("XCFGSET s IDMP-MAXSIZE", SYNTAX),
        ("XCFGSET s IDMP-MAXSIZE 0", "-ERR invalid maxsize\r\n"),
        ("XCFGSET s IDMP-MAXSIZE 10001", "-ERR invalid maxsize\r\n"),
        ("XCFGSET s IDMP-DURATION 86401", "-ERR invalid duration\r\n"),
        ("XCFGSET s IDMP-DURATION x", "-ERR invalid duration\r\n"),
        // Nothing is forgotten if nothing changes.
        ("XCFGSET s IDMP-DURATION 100 IDMP-MAXSIZE 100", "+OK\r\n"),
        ("XADD s IDMP p i2 * f v", THIRD),
        ("XCFGSET s IDMP-DURATION 101", "+OK\r\n"),
        ("XADD s IDMP p i2 * f v", "$15\r\n1704067200000-6\r\n"),
    ]);
}

/// The numbers of XINFO STREAM: seconds, how many of a producer, producers, IDs, ever added, duplicates.
fn remembered(keyspace: &mut TestKeyspace, key: &str) -> Vec<i64> {
    let reply = keyspace.run(&format!("XINFO STREAM {key}"));
    let lines: Vec<&str> = reply.split("\r\n").collect();
    let value = |name: &str| {
        let at = lines.iter().position(|line| *line == name)?;
        lines[at + 1].strip_prefix(':')?.parse().ok()
    };
    ["idmp-duration", "idmp-maxsize", "pids-tracked", "iids-tracked", "iids-added", "iids-duplicates"]
        .iter()
        .filter_map(|name| value(name))
        .collect()
}

#[test]
fn what_is_remembered_of_producers_is_bounded() {
    let mut keyspace = TestKeyspace::replicated();
    keyspace.run("XADD s 1-1 f v");
    assert_eq!(remembered(&mut keyspace, "s"), [0; 0]);
    assert_eq!(keyspace.run("XCFGSET s IDMP-MAXSIZE 2 IDMP-DURATION 10"), "+OK\r\n");
    assert_eq!(remembered(&mut keyspace, "s"), [10, 2, 0, 0, 0, 0]);
    for request in ["XADD s IDMP p 1 * f v", "XADD s IDMP q 1 * f v", "XADD s IDMP p 2 * f v"] {
        keyspace.run(request);
    }
    assert_eq!(remembered(&mut keyspace, "s"), [10, 2, 2, 3, 3, 0]);
    keyspace.effects();
    keyspace.pass(5_000);
    keyspace.run("XADD s IDMP p 3 * f v");
    assert_eq!(
        keyspace.effects()[1..3],
        ["XGROUP DELCONSUMER s keyward:idmp:iids 1:p1", "XACK s keyward:idmp:order 1704067200000-0",]
    );
    assert_eq!(keyspace.run("XADD s IDMP p 2 * f v"), THIRD);
    assert_eq!(remembered(&mut keyspace, "s"), [10, 2, 2, 3, 4, 1]);
    keyspace.pass(4_999);
    assert_eq!(keyspace.run("XADD s IDMP q 1 * f v"), SECOND);
    keyspace.pass(1);
    assert_eq!(keyspace.run("XADD s IDMP q 1 * f v"), "$15\r\n1704067210000-0\r\n");
    assert_eq!(remembered(&mut keyspace, "s"), [10, 2, 2, 2, 5, 2]);
    assert_eq!(keyspace.run("XCFGSET s IDMP-MAXSIZE 3"), "+OK\r\n");
    assert_eq!(remembered(&mut keyspace, "s"), [10, 3, 0, 0, 5, 2]);
}

/// A replica that becomes the primary knows what its producers have sent; so does who gets a copy.
#[test]
fn what_is_remembered_of_producers_is_replicated_and_copied() {
    let mut keyspace = TestKeyspace::replicated();
    for request in [
        "XADD s IDMP p 1 * f v",
        "XADD s IDMP p 2 * f v",
        "XADD s IDMP p 1 * f v",
        "XADD s IDMPAUTO q * f v",
        "COPY s {x}copy",
        "XADD t IDMP p 1 * f v",
        "XCFGSET t IDMP-DURATION 77",
        "XADD t IDMP p 3 * f v",
        "RENAME t u",
    ] {
        let reply = keyspace.run(request);
        assert!(!reply.starts_with('-'), "{request}: {reply}");
    }
    let dumped = keyspace.run_raw(&[b"DUMP", b"s"]);
    let header = dumped.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let restored = keyspace.run_raw(&[b"RESTORE", b"r", b"0", &dumped[header..dumped.len() - 2]]);
    assert_eq!(restored, b"+OK\r\n");
    let mut replica = keyspace.replica().promoted();
    for (key, expected) in [
        ("s", vec![100, 100, 2, 3, 3, 1]),
        ("{x}copy", vec![100, 100, 2, 3, 3, 1]),
        ("r", vec![100, 100, 2, 3, 3, 1]),
        ("u", vec![77, 100, 1, 1, 2, 0]),
    ] {
        assert_eq!(remembered(&mut keyspace, key), expected, "{key}");
        assert_eq!(remembered(&mut replica, key), expected, "{key} of a replica");
    }
    for known in [&mut keyspace, &mut replica] {
        for key in ["s", "{x}copy", "r"] {
            assert_eq!(known.run(&format!("XADD {key} IDMP p 1 * f v")), FIRST);
            assert_eq!(known.run(&format!("XADD {key} IDMP p 2 * f v")), SECOND);
            assert_eq!(known.run(&format!("XADD {key} IDMPAUTO q * f v")), THIRD);
        }
    }
}
