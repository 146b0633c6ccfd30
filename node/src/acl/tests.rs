//! What rules make of a user, and what that may do.

use keyward_proto::resp::Args;
use keyward_proto::resp::request::split_words;

use super::log::{Context, Log, Refusal};
use super::*;
use crate::command::find::lookup_effect;

fn made(rules: &str) -> Result<Users, String> {
    let mut users = Users::default();
    let words = rules.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes);
    let rules = rules_of(words).map_err(|open| format!("open: {}", String::from_utf8_lossy(open)))?;
    let set = users.set(b"u", &rules, Channels::None);
    set.map_err(|(rule, why)| format!("{}: {}", String::from_utf8_lossy(rule), why.text()))?;
    Ok(users)
}

fn described(rules: &str) -> String {
    let users = made(rules).unwrap_or_else(|why| panic!("{rules}: {why}"));
    String::from_utf8(users.get(b"u").unwrap().describe()).unwrap()
}

/// Rules and what they come to; a description makes the same user again.
#[test]
fn rules_are_described_in_their_shortest_form() {
    let p1 = "#f64551fcd6f07823cb87971cfb91446425da18286b3ab1ef935e0cbd7a69f68a";
    for (rules, expected) in [
        ("", "off resetchannels -@all"),
        ("on nopass ~* &* +@all", "on nopass ~* &* +@all"),
        ("ON AllKeys AllChannels ALLCOMMANDS", "on ~* &* +@all"),
        ("~a ~b ~a %R~c %W~c %w~d", "off ~a ~b ~c %W~d resetchannels -@all"),
        ("%R", "off %R~ resetchannels -@all"),
        ("~* resetkeys ~x", "off ~x resetchannels -@all"),
        ("&a &b &a", "off resetchannels &a &b -@all"),
        (">p1 >p1 >p2 <p2", &format!("off {p1} resetchannels -@all")),
        ("nopass >p1", &format!("off {p1} resetchannels -@all")),
        (">p1 nopass", "off nopass resetchannels -@all"),
        (">p1 resetpass", "off resetchannels -@all"),
        ("+get +set +get", "off resetchannels -@all +set +get"),
        ("+GET|A +get|a", "off resetchannels -@all +get|a"),
        ("+get|a +get", "off resetchannels -@all +get"),
        ("+config -config|get", "off resetchannels -@all +config -config|get"),
        ("+config|get +config|set +@read +config", "off resetchannels -@all +@read +config"),
        ("+@read -@write +@READ", "off resetchannels -@all -@write +@read"),
        ("+get +@all -set", "off resetchannels +@all -set"),
        ("+@all -get -@all", "off resetchannels -@all"),
        ("db=3,1,3", "off resetchannels db=1,3 -@all"),
        ("db=1 db=+02", "off resetchannels db=2 -@all"),
        ("resetdbs", "off resetchannels resetdbs -@all"),
        ("db=1 alldbs", "off resetchannels -@all"),
        ("(~a  +get )", "off resetchannels -@all (~a resetchannels -@all +get)"),
        (
            "on +get ~a (+set ~b) (&c)",
            "on ~a resetchannels -@all +get (~b resetchannels -@all +set) (resetchannels &c -@all)",
        ),
        ("on nopass +@all ~* (+get) db=1 reset", "off resetchannels -@all"),
        ("(+get) clearselectors", "off resetchannels -@all"),
        ("skip-sanitize-payload sanitize-payload", "off resetchannels -@all"),
    ] {
        assert_eq!(described(rules), *expected, "{rules}");
        assert_eq!(described(expected), *expected);
    }
}

#[test]
fn rules_are_refused_and_change_nothing() {
    let mut users = made("on ~a").unwrap();
    let rules: Vec<Rule<'_>> = vec![b"off".into(), b"nope".into()];
    assert!(users.set(b"u", &rules, Channels::None).is_err());
    assert!(users.get(b"u").unwrap().is_on());
    for (rules, expected) in [
        ("on nope", "nope: Syntax error"),
        ("+nope", "+nope: Unknown command or category name in ACL"),
        ("+@nope", "+@nope: Unknown command or category name in ACL"),
        ("+config|nope", "+config|nope: Unknown command or category name in ACL"),
        ("-get|a", "-get|a: Unknown command or category name in ACL"),
        ("+get|", "+get|: Syntax error"),
        ("+config|get|a", "+config|get|a: Allowing first-arg of a subcommand is not supported"),
        ("+", "+: Unknown command or category name in ACL"),
        ("%~a", "%~a: Syntax error"),
        ("%RR~a", "%RR~a: Syntax error"),
        ("%X~a", "%X~a: Syntax error"),
        (
            "#abc",
            "#abc: The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters",
        ),
        ("<a", "<a: The password you are trying to remove from the user does not exist"),
        ("db=", "db=: Syntax error"),
        ("db=1,,2", "db=1,,2: Syntax error"),
        ("db=-1", "db=-1: The provided database ID is out of range"),
        ("db=99999999999", "db=99999999999: The provided database ID is out of range"),
        ("(on)", "(on): Syntax error"),
        ("((~a))", "((~a)): Syntax error"),
        ("(~a)x", "open: (~a)x"),
        ("(~a +get ) (db=0", "open: (db=0"),
    ] {
        assert_eq!(made(rules).map(drop).unwrap_err(), expected, "{rules}");
    }
    assert!(made("~* ~a").unwrap_err().contains("'allkeys' flag"));
    assert!(made("&* &a").unwrap_err().contains("'allchannels' flag"));
}

#[test]
fn a_request_is_allowed_by_one_set_of_rights() {
    use Denied::{Channel, Command, Database, Key};
    let check = |rules: &str, cases: &[(&str, Result<(), Denied>)]| {
        let users = made(rules).unwrap();
        for (request, expected) in cases {
            let words = split_words(request.as_bytes()).unwrap();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let args = Args::from_slices(&words);
            let row = lookup_effect(args).unwrap();
            assert_eq!(
                users.get(b"u").unwrap().check(row, args, Place { db: 0, databases: 16 }),
                *expected,
                "{rules}: {request}"
            );
        }
    };
    check("+get", &[("get a", Err(Key(1))), ("set a b", Err(Command)), ("auth x", Ok(())), ("quit", Ok(()))]);
    check(
        "+@all ~a* %R~r* %W~w* &news.*",
        &[
            ("mget a1 r1", Ok(())),
            ("mget a1 w1", Err(Key(2))),
            ("set w1 x", Ok(())),
            ("set w1 x GET", Err(Key(1))),
            ("incr w1", Err(Key(1))),
            ("del r1", Err(Key(1))),
            ("exists w1", Ok(())),
            ("exists x", Err(Key(1))),
            ("copy r1 w1", Ok(())),
            ("copy w1 r1", Err(Key(1))),
            ("bitfield w1 get u8 0", Err(Key(1))),
            ("bitfield r1 get u8 0", Ok(())),
            ("bitfield r1 set u8 0 1", Err(Key(1))),
            ("zunionstore w1 2 r1 w2", Err(Key(4))),
            ("sort a1 store r1", Err(Key(3))),
            ("eval x 1 r1", Err(Key(3))),
            ("subscribe news.a", Ok(())),
            ("subscribe news.a other", Err(Channel(2))),
            ("psubscribe news.*", Ok(())),
            ("psubscribe news.a", Err(Channel(1))),
            ("ssubscribe x", Err(Channel(1))),
            ("spublish news.x m", Ok(())),
            ("publish x m", Err(Channel(1))),
            ("unsubscribe x", Ok(())),
        ],
    );
    check(
        "+@all ~* db=1",
        &[
            ("get a", Err(Database(0))),
            ("select 1", Ok(())),
            ("select 2", Err(Database(1))),
            ("copy a b db 2", Err(Database(4))),
            ("copy a b db 1", Err(Database(0))),
            ("copy a b x db 2", Err(Database(0))),
            ("move a 2", Err(Database(2))),
            ("swapdb 1 2", Err(Database(2))),
            ("swapdb 1 1", Ok(())),
            ("select 99", Ok(())),
            ("select x", Ok(())),
            ("exec", Ok(())),
            ("flushall", Err(Database(0))),
            ("keys *", Err(Database(0))),
            ("ping", Ok(())),
            ("cluster info", Ok(())),
        ],
    );
    check("+select|0 +config|get", &[("select 0", Ok(())), ("SELECT 1", Err(Command))]);
    check("+@all -@dangerous", &[("config get a", Err(Command)), ("keys *", Err(Command)), ("ping", Ok(()))]);
    check(
        "+get ~a (+get ~b db=3) (+set ~b)",
        &[
            ("get a", Ok(())),
            ("get b", Err(Key(1))),
            ("set b x", Ok(())),
            ("set a x", Err(Key(1))),
            ("del a", Err(Command)),
        ],
    );
}

#[test]
fn a_pattern_that_is_compared_at_once_matches_what_it_is() {
    for (pattern, keys) in [
        ("a*", &[("a", true), ("ab", true), ("ba", false)][..]),
        ("ab", &[("ab", true), ("abc", false), ("a", false)]),
        ("*", &[("x", true)]),
        ("a*b", &[("ab", true), ("axb", true), ("axc", false)]),
        ("a[0-9]*", &[("a1", true), ("ax", false)]),
        ("\\\\*", &[("*", true), ("x", false)]),
    ] {
        let users = made(&format!("&{}", pattern.replace("\\\\", "\\"))).unwrap();
        for (key, expected) in keys {
            assert_eq!(users.get(b"u").unwrap().allows_channel(key.as_bytes()), *expected, "{pattern} {key}");
        }
    }
}

#[test]
fn passwords_are_rotated_with_two_at_once() {
    let mut users = made("on >old >new").unwrap();
    let admits = |users: &Users, password: &[u8]| users.get(b"u").unwrap().admits(password);
    assert!(admits(&users, b"old") && admits(&users, b"new") && !admits(&users, b""));
    users.set(b"u", &[b"<old".as_slice().into()], Channels::None).unwrap();
    assert!(!admits(&users, b"old") && admits(&users, b"new"));
    users.set(b"u", &[b"off".as_slice().into()], Channels::None).unwrap();
    assert!(!admits(&users, b"new"));
    users.set(b"u", &[b"nopass".as_slice().into(), b"on".as_slice().into()], Channels::None).unwrap();
    assert!(admits(&users, b"anything"));
}

#[test]
fn another_user_of_the_same_name_is_not_the_same() {
    let mut users = made("on").unwrap();
    let number = |users: &Users| users.get(b"u").unwrap().number();
    let first = number(&users);
    users.set(b"u", &[b"off".as_slice().into()], Channels::None).unwrap();
    assert_eq!(number(&users), first);
    assert!(users.delete(b"u") && !users.delete(b"u"));
    users.set(b"u", &[], Channels::None).unwrap();
    let second = number(&users);
    assert_ne!(second, first);
    let loaded = file::parse(b"user u on\nuser v on\n", "f", Channels::None).unwrap();
    users.replace(&loaded);
    assert_eq!(number(&users), second);
    assert!(users.get(b"v").unwrap().number() > second);
}

#[test]
fn a_file_is_read_as_a_whole_or_not_at_all() {
    let read = |text: &str| file::parse(text.as_bytes(), "f", Channels::None);
    let users = read("\n  user a on  +get\r\nuser default on +ping (~x  +get)\n").unwrap();
    let text = String::from_utf8(file::text_of(&users)).unwrap();
    assert_eq!(
        text,
        "user a on resetchannels -@all +get\nuser default on resetchannels -@all +ping (~x resetchannels -@all +get)\n"
    );
    assert_eq!(file::text_of(&read(&text).unwrap()), text.as_bytes());
    let told = read("# c\nuser\nuser a b\nuser a on\nuser c (~x\n").unwrap_err();
    assert_eq!(
        told,
        "f:1 should start with user keyword followed by the username. f:2 should start with user keyword followed by \
         the username. f:3: Syntax error. WARNING: Duplicate user 'a' found on line 4. f:5: Unmatched parenthesis in \
         selector definition.WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
    );
}

#[test]
fn the_same_refusal_counts_for_a_minute() {
    let refusal = |object: &str| Refusal {
        reason: "key",
        context: Context::TopLevel,
        object: object.into(),
        username: b"u".to_vec(),
        client: Vec::new(),
    };
    let mut log = Log::default();
    for (object, now) in [("a", 0), ("b", 1), ("a", 60_000), ("b", 60_002)] {
        log.add(refusal(object), now, 3);
    }
    let shown = |log: &Log| -> Vec<(Vec<u8>, u64, u64, i64, i64)> {
        let entry = |e: &log::Entry| (e.refusal.object.clone(), e.count, e.id, e.created_at, e.updated_at);
        log.latest(9).map(entry).collect()
    };
    let (a, b) = (b"a".to_vec(), b"b".to_vec());
    let all = [(b.clone(), 1, 2, 60_002, 60_002), (a.clone(), 2, 0, 0, 60_000), (b, 1, 1, 1, 1)];
    assert_eq!(shown(&log), all);
    log.add(refusal("c"), 60_003, 2);
    assert_eq!(log.latest(1).next().unwrap().refusal.object, b"c");
    assert_eq!(shown(&log).len(), 2);
    log.reset();
    assert_eq!(shown(&log), []);
}
