use crate::testing::{TestKeyspace, check, check_on};

#[test]
fn zadd_and_its_options() {
    check(&[
        ("ZADD z 1 a 2 b 3 c", ":3\r\n"),
        ("ZADD z NX 9 a 4 d", ":1\r\n"),
        ("ZADD z XX CH 5 a 6 e", ":1\r\n"),
        ("ZADD z GT CH 4 a 7 b", ":1\r\n"),
        ("ZADD z LT CH 4 a 8 b", ":1\r\n"),
        ("ZADD z INCR 2.5 a", "$3\r\n6.5\r\n"),
        ("ZADD z NX INCR 2.5 a", "$-1\r\n"),
        ("ZADD z XX INCR 1 nobody", "$-1\r\n"),
        ("ZADD none XX 1 a", ":0\r\n"),
        ("ZINCRBY z -1 nobody", "$2\r\n-1\r\n"),
        ("ZADD z NX XX 1 a", "-ERR XX and NX options at the same time are not compatible\r\n"),
        ("ZADD z GT LT 1 a", "-ERR GT, LT, and/or NX options at the same time are not compatible\r\n"),
        ("ZADD z INCR 1 a 2 b", "-ERR INCR option supports a single increment-element pair\r\n"),
        ("ZADD z 1 a 2", "-ERR syntax error\r\n"),
        ("ZADD z 1 a x b", "-ERR value is not a valid float\r\n"),
        ("ZADD z inf i", ":1\r\n"),
        ("ZINCRBY z -inf i", "-ERR resulting score is not a number (NaN)\r\n"),
        ("ZRANGE z 0 -1", "*6\r\n$6\r\nnobody\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\ni\r\n"),
        ("SET s x", "+OK\r\n"),
        ("ZADD s 1 a", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
    ]);
}

#[test]
fn ranges() {
    check(&[
        ("ZADD z 1 a 2 b 3 c", ":3\r\n"),
        ("ZRANGE z -2 -1 WITHSCORES", "*4\r\n$1\r\nb\r\n$1\r\n2\r\n$1\r\nc\r\n$1\r\n3\r\n"),
        ("ZRANGE z 0 0 REV", "*1\r\n$1\r\nc\r\n"),
        ("ZRANGE z (1 +inf BYSCORE LIMIT 1 5", "*1\r\n$1\r\nc\r\n"),
        ("ZRANGE z (3 1 BYSCORE REV LIMIT 0 1", "*1\r\n$1\r\nb\r\n"),
        ("ZRANGE z [b + BYLEX", "*2\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ("ZREVRANGEBYLEX z (c -", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"),
        ("ZRANGEBYSCORE z -inf 2 LIMIT -1 2", "*0\r\n"),
        (
            "ZRANGE z 0 1 LIMIT 0 1",
            "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX\r\n",
        ),
        (
            "ZRANGE z - + BYLEX WITHSCORES",
            "-ERR syntax error, WITHSCORES not supported in combination with BYLEX\r\n",
        ),
        ("ZRANGEBYSCORE z a b", "-ERR min or max is not a float\r\n"),
        ("ZRANGEBYLEX z a b", "-ERR min or max not valid string range item\r\n"),
        ("ZCOUNT z (1 3", ":2\r\n"),
        ("ZLEXCOUNT z - (c", ":2\r\n"),
        ("ZRANK z c WITHSCORE", "*2\r\n:2\r\n$1\r\n3\r\n"),
        ("ZREVRANK z c", ":0\r\n"),
        ("ZRANK z x WITHSCORE", "*-1\r\n"),
        ("ZREMRANGEBYSCORE z 2 (3", ":1\r\n"),
        ("ZREMRANGEBYRANK z 0 -1", ":2\r\n"),
        ("ZCARD z", ":0\r\n"),
    ]);
}

#[test]
fn scores_are_pairs_in_resp3() {
    check_on(
        &mut TestKeyspace::new().resp3(),
        &[
            ("ZADD z 1.5 a", ":1\r\n"),
            ("ZRANGE z 0 -1 WITHSCORES", "*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"),
            ("ZRANDMEMBER z -2 WITHSCORES", "*2\r\n*2\r\n$1\r\na\r\n,1.5\r\n*2\r\n$1\r\na\r\n,1.5\r\n"),
            ("ZUNION 1 z WITHSCORES", "*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"),
            ("ZRANK z a WITHSCORE", "*2\r\n:0\r\n,1.5\r\n"),
            ("ZSCAN z 0", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$3\r\n1.5\r\n"),
            ("ZSCAN z 99999999999", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$3\r\n1.5\r\n"),
            ("ZMPOP 2 none z MIN", "*2\r\n$1\r\nz\r\n*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"),
            ("ZADD z 2 b 3 c", ":2\r\n"),
            ("ZPOPMAX z", "*2\r\n$1\r\nc\r\n,3\r\n"),
            ("ZPOPMIN z 1", "*1\r\n*2\r\n$1\r\nb\r\n,2\r\n"),
            ("ZPOPMIN z 1", "*0\r\n"),
            ("ZMPOP 1 z MAX", "_\r\n"),
        ],
    );
}

#[test]
fn combinations() {
    check(&[
        ("ZADD a 1 x 2 y", ":2\r\n"),
        ("ZADD b 10 y 20 z", ":2\r\n"),
        (
            "ZUNION 2 a b WITHSCORES",
            "*6\r\n$1\r\nx\r\n$1\r\n1\r\n$1\r\ny\r\n$2\r\n12\r\n$1\r\nz\r\n$2\r\n20\r\n",
        ),
        ("ZINTER 2 a b WEIGHTS 2 3 AGGREGATE MAX WITHSCORES", "*2\r\n$1\r\ny\r\n$2\r\n30\r\n"),
        ("ZDIFF 2 a b", "*1\r\n$1\r\nx\r\n"),
        ("ZINTERCARD 2 a b LIMIT 1", ":1\r\n"),
        ("ZUNIONSTORE b 2 a b", ":3\r\n"),
        ("ZSCORE b y", "$2\r\n12\r\n"),
        ("ZDIFFSTORE b 1 none", ":0\r\n"),
        ("ZCARD b", ":0\r\n"),
        ("ZUNION 0 a", "-ERR at least 1 input key is needed for 'zunion' command\r\n"),
        ("ZUNION 3 a b", "-ERR syntax error\r\n"),
        ("ZUNION 2 a b WEIGHTS 1", "-ERR syntax error\r\n"),
        ("ZUNION 1 a WEIGHTS x", "-ERR weight value is not a float\r\n"),
        ("ZINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative\r\n"),
        ("ZADD i inf m", ":1\r\n"),
        ("ZADD j -inf m", ":1\r\n"),
        ("ZUNION 2 i j WITHSCORES", "*2\r\n$1\r\nm\r\n$1\r\n0\r\n"),
        ("ZUNION 1 i WEIGHTS 0 WITHSCORES", "*2\r\n$1\r\nm\r\n$1\r\n0\r\n"),
    ]);
}

#[test]
fn blocking_pops_answer_at_once_if_they_can() {
    check(&[
        ("ZADD z 1 a 2 b 3 c", ":3\r\n"),
        ("BZPOPMIN none z 0", "*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n"),
        (
            "BZMPOP 0 2 none z MAX COUNT 5",
            "*2\r\n$1\r\nz\r\n*2\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n",
        ),
        ("BZPOPMAX none -1", "-ERR timeout is negative\r\n"),
        ("BZMPOP 0 0 none MAX", "-ERR numkeys should be greater than 0\r\n"),
    ]);
}

#[track_caller]
fn check_effects(steps: &[(&str, &[&str])]) {
    let mut keyspace = TestKeyspace::replicated();
    for (request, effects) in steps {
        let reply = keyspace.run(request);
        assert!(!reply.starts_with('-'), "{request}: {reply}");
        assert_eq!(keyspace.effects(), *effects, "{request}");
    }
}

#[test]
fn effects_are_deterministic_and_on_one_slot() {
    check_effects(&[
        ("ZADD {s}z 1 a 2 b 3 c 4 d 5 e", &["ZADD {s}z 1 a 2 b 3 c 4 d 5 e"]),
        ("ZADD {s}z 1 a", &[]),
        ("ZADD {s}z NX 7 a", &[]),
        ("ZINCRBY {s}z 0.1 a", &["ZINCRBY {s}z 0.1 a"]),
        ("ZREM {s}z nobody", &[]),
        ("ZMPOP 2 none {s}z MAX COUNT 2", &["ZPOPMAX {s}z 2"]),
        ("BZPOPMIN {s}z 0", &["ZPOPMIN {s}z"]),
        ("ZUNIONSTORE {s}d 1 {s}z WEIGHTS 2", &["ZUNIONSTORE {s}d 1 {s}z WEIGHTS 2"]),
        ("ZUNIONSTORE other 1 {s}z WEIGHTS 0.1", &["DEL other", "ZADD other 0.2 b 0.30000000000000004 c"]),
        ("ZRANGESTORE other {s}z 0 0", &["DEL other", "ZADD other 2 b"]),
        ("ZRANGESTORE other {s}z 5 9", &["DEL other"]),
        ("ZRANGESTORE other {s}z 5 9", &[]),
        ("ZREMRANGEBYSCORE {s}z 0 2", &["ZREMRANGEBYSCORE {s}z 0 2"]),
        ("ZREMRANGEBYLEX {s}z [x +", &[]),
        ("ZADD {s}l 0 a 0 b 0 c 0 d", &["ZADD {s}l 0 a 0 b 0 c 0 d"]),
        ("ZRANGESTORE {s}d {s}l + (a BYLEX REV LIMIT 1 2", &["ZRANGESTORE {s}d {s}l 1 2"]),
        ("ZRANGESTORE {s}d {s}l [x + BYLEX", &["DEL {s}d"]),
        ("ZREMRANGEBYLEX {s}l (a (d", &["ZREMRANGEBYRANK {s}l 1 2"]),
    ]);
}

#[test]
fn a_replica_holds_the_same_scores() {
    let mut keyspace = TestKeyspace::replicated();
    for i in 0..300 {
        keyspace.run(&format!("ZADD z {} m{i}", f64::from(i) / 7.0));
        keyspace.run(&format!("ZINCRBY z 0.1 m{}", i / 2));
    }
    keyspace.run("ZADD z -0 zero inf most -inf least");
    keyspace.run("ZUNIONSTORE elsewhere 2 z z WEIGHTS 0.3 -7");
    let mut replica = keyspace.replica();
    for request in ["ZRANGE z 0 -1 WITHSCORES", "ZRANGE elsewhere 0 -1 WITHSCORES"] {
        assert_eq!(replica.run(request), keyspace.run(request));
    }
}
