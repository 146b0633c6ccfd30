//! Users and their rights are those of the real Valkey: the same rules make the same users, which may do the same, and what
//! is refused is told and logged alike.
//!
//! Random users, rules and requests go to both servers; and a few stories are told by example. `KEYWARD_ACL_SEED=n` gives
//! the random ones another seed, `KEYWARD_ACL_ROUNDS=n` their number.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::Duration;

use cluster_tests::processes::Server;
use cluster_tests::programs;
use cluster_tests::resp_client::{Connection, Frame};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Both servers with an administrator and a user's connection at each.
struct Pair {
    ours: Side,
    theirs: Side,
}

struct Side {
    server: Server,
    admin: Connection,
    user: Connection,
    version: u8,
}

impl Side {
    fn new(server: Server) -> Side {
        let connect = || Connection::connect(&server.addr()).unwrap();
        let (admin, user) = (connect(), connect());
        Side { server, admin, user, version: 2 }
    }

    /// Another connection of the user.
    fn come_again(&mut self) {
        self.user = Connection::connect(&self.server.addr()).unwrap();
        let version = self.version.to_string();
        self.user.call(&["HELLO", &version, "AUTH", "u", "p"]).unwrap();
    }
}

impl Pair {
    fn start(dir: &Path, flags: &[&str]) -> Pair {
        let ours = Side::new(Server::keyward(flags).unwrap());
        Pair { ours, theirs: Side::new(Server::valkey(dir, flags).unwrap()) }
    }

    fn both(&mut self) -> [&mut Side; 2] {
        [&mut self.ours, &mut self.theirs]
    }

    /// What both answer; the request is told where they differ.
    #[track_caller]
    fn same(&mut self, what: &str, mut ask: impl FnMut(&mut Side) -> Frame) -> Frame {
        let (mine, real) = (ask(&mut self.ours), ask(&mut self.theirs));
        assert_eq!(shown(&mine), shown(&real), "{what}");
        mine
    }

    #[track_caller]
    fn admin(&mut self, request: &str) -> Frame {
        let words = words(request);
        self.same(request, |side| side.admin.call(&words).unwrap())
    }

    #[track_caller]
    fn user(&mut self, request: &str) -> Frame {
        let words = words(request);
        self.same(request, |side| side.user.call(&words).unwrap())
    }

    /// The user of both comes again; whether it can.
    fn come_again(&mut self, version: u8) {
        for side in self.both() {
            side.version = version;
            side.come_again();
        }
    }
}

/// Without what differs between any two servers: in an entry of ACL LOG the line of the client, and times.
fn shown(frame: &Frame) -> String {
    const OWN: &[&str] = &["age-seconds", "client-info", "timestamp-created", "timestamp-last-updated"];
    let is_entry = frame.items.first().is_some_and(|first| first.text() == b"count");
    match frame.items.is_empty() {
        true => frame.to_string(),
        false if is_entry => {
            let pairs = frame.items.chunks(2).filter(|pair| !OWN.contains(&&*pair[0].string()));
            pairs.map(|pair| format!("{} {}\n", pair[0].string(), pair[1])).collect()
        }
        false => {
            let items: Vec<String> = frame.items.iter().map(shown).collect();
            format!("{}[{}]", char::from(frame.kind()), items.join(" "))
        }
    }
}

/// Words, with quotes where there are spaces.
fn words(request: &str) -> Vec<Vec<u8>> {
    keyward_proto::resp::request::split_words(request.as_bytes()).unwrap()
}

const COMMANDS: &[&str] = &[
    "get",
    "set",
    "del",
    "mget",
    "mset",
    "append",
    "incr",
    "copy",
    "move",
    "select",
    "swapdb",
    "flushall",
    "keys",
    "scan",
    "dbsize",
    "ping",
    "echo",
    "exists",
    "type",
    "rename",
    "sort",
    "sort_ro",
    "lpush",
    "lpop",
    "zunionstore",
    "zrangestore",
    "xadd",
    "xreadgroup",
    "bitfield",
    "eval",
    "publish",
    "spublish",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "config",
    "config|get",
    "config|set",
    "client",
    "client|id",
    "acl",
    "acl|whoami",
    "object",
    "object|help",
    "function",
    "function|load",
    "script|load",
    "watch",
    "multi",
    "exec",
    "discard",
    "info",
    "cluster|info",
    "memory|usage",
    "getex",
    "setex",
    "geosearchstore",
    "lmpop",
    "select|0",
    "select|1",
    "set|a1",
    "get|r1",
    "config|nope",
    "nope",
    "nope|x",
    "getdel",
    "time",
    "command",
    "command|count",
    "pubsub|numsub",
];
const PATTERNS: &[&str] = &["*", "a*", "r*", "w?", "a1", "[ar]1", "x", "", "a\\*", "news.*", "news.1"];

fn pick<'a>(random: &mut SmallRng, from: &[&'a str]) -> &'a str {
    from.choose(random).unwrap()
}

fn any_case(random: &mut SmallRng, word: &str) -> String {
    if random.random_ratio(1, 12) { word.to_uppercase() } else { word.to_owned() }
}

/// A rule of a set of rights.
fn right(random: &mut SmallRng) -> String {
    const CATEGORIES: &[&str] = &[
        "all",
        "read",
        "write",
        "keyspace",
        "string",
        "list",
        "fast",
        "slow",
        "admin",
        "dangerous",
        "connection",
        "transaction",
        "scripting",
        "pubsub",
        "blocking",
        "stream",
        "nope",
        "",
    ];
    const ACCESS: &[&str] = &["~", "~", "%R~", "%W~", "%RW~", "%r~", "%X~", "%~", "%"];
    const DATABASES: &[&str] =
        &["0", "1", "0,1", "2,0,2", "-1", "x", "", "1,", "99", "+1", " 1", "0x1", "1 "];
    const WORDS: &[&str] = &[
        "allkeys",
        "resetkeys",
        "allchannels",
        "resetchannels",
        "alldbs",
        "resetdbs",
        "allcommands",
        "nocommands",
        "&*",
        "~*",
        "+@all",
        "-@all",
        "nope",
    ];
    let sign = pick(random, &["+", "+", "+", "-"]);
    let rule = match random.random_range(0..16) {
        0..6 => format!("{sign}{}", pick(random, COMMANDS)),
        6..8 => format!("{sign}@{}", pick(random, CATEGORIES)),
        8..11 => format!("{}{}", pick(random, ACCESS), pick(random, PATTERNS)),
        11..13 => format!("&{}", pick(random, PATTERNS)),
        13 => format!("db={}", pick(random, DATABASES)),
        _ => pick(random, WORDS).to_owned(),
    };
    any_case(random, &rule)
}

/// A rule of a user.
fn rule(random: &mut SmallRng) -> String {
    const WORDS: &[&str] = &[
        "on",
        "off",
        "nopass",
        "resetpass",
        "reset",
        "clearselectors",
        "sanitize-payload",
        "skip-sanitize-payload",
        ">p",
        ">q",
        "<p",
        "<q",
        "#abc",
        "!abc",
        "",
        "(",
        ")",
        "(on)",
        "()",
    ];
    match random.random_range(0..20) {
        0..14 => right(random),
        14..17 => {
            let count = random.random_range(1..5);
            let rights: Vec<String> = (0..count).map(|_| right(random)).collect();
            format!("({})", rights.join(" "))
        }
        _ => pick(random, WORDS).to_owned(),
    }
}

const REQUESTS: &[&str] = &[
    "get a1",
    "get r1",
    "get x",
    "set a1 v",
    "set w1 v",
    "set w1 v GET",
    "set a1",
    "del a1 r1",
    "mget a1 r1 x",
    "mset a1 1 w1 2",
    "append w1 v",
    "incr a1",
    "copy a1 w1",
    "copy a1 w1 DB 1",
    "copy a1 w1 DB 99",
    "copy a1 w1 REPLACE DB 2",
    "copy a1 w1 nope DB 1",
    "copy a1 w1 DB 1 DB 0",
    "move a1 1",
    "move a1 x",
    "select 0",
    "select 1",
    "select 99",
    "select x",
    "swapdb 0 1",
    "swapdb 1 1",
    "swapdb 0 99",
    "flushall",
    "flushdb",
    "keys *",
    "scan 0",
    "dbsize",
    "randomkey",
    "ping",
    "echo x",
    "exists w1",
    "exists a1 w1 x",
    "type r1",
    "ttl w1",
    "rename a1 w1",
    "sort a1",
    "sort a1 by x* get r*",
    "sort a1 store w1",
    "sort_ro a1 get #",
    "lpush w1 v",
    "lpop w1",
    "lmpop 2 a1 w1 left",
    "blpop a1 r1 0",
    "zunionstore w1 2 r1 a1",
    "zunionstore w1 x r1",
    "zunionstore w1 9 r1",
    "zrangestore w1 r1 0 1",
    "geosearchstore w1 r1 frommember x byradius 1 m",
    "xadd w1 * f v",
    "xreadgroup group g c streams a1 r1 > >",
    "xread streams a1 0",
    "bitfield r1 get u8 0",
    "bitfield w1 set u8 0 1",
    "bitfield a1 overflow sat get u8 0",
    "eval x 1 r1",
    "eval x 0",
    "eval x z r1",
    "fcall f 1 a1",
    "publish news.1 m",
    "publish x m",
    "spublish news.1 m",
    "subscribe news.1",
    "subscribe news.1 x",
    "psubscribe news.*",
    "psubscribe *",
    "ssubscribe a1",
    "unsubscribe x",
    "config get x",
    "config set x y",
    "config nope",
    "config",
    "client id",
    "client getname",
    "acl whoami",
    "acl list",
    "object help",
    "object encoding r1",
    "function load x",
    "function list",
    "script load x",
    "script exists x",
    "watch a1 x",
    "unwatch",
    "multi",
    "exec",
    "discard",
    "info",
    "cluster info",
    "cluster countkeysinslot 1",
    "memory usage a1",
    "memory doctor",
    "getex a1",
    "getex a1 persist",
    "getdel w1",
    "setex w1 1 v",
    "time",
    "lastsave",
    "command count",
    "command getkeys get x",
    "pubsub numsub x",
    "wait 0 0",
    "restore w1 0 x",
    "dump r1",
    "hello",
    "auth x",
    "reset",
    "quit",
    "save",
    "debug sleep 0",
    "lolwut",
    "nope",
    "get",
    "pfcount r1 a1",
    "pfmerge w1 r1",
    "hset w1 f v",
    "sintercard 2 r1 a1",
    "zdiff 1 r1",
    "hgetall r1",
    "lcs r1 a1",
    "msetex 1 w1 v",
    "bitop and w1 r1 a1",
    "smove a1 w1 m",
    "rpoplpush a1 w1",
    "lmove a1 w1 left left",
    "touch w1",
    "unlink w1",
    "expire w1 1",
    "persist a1",
    "object freq w1",
    "setnx w1 v",
    "getset a1 v",
    "strlen w1",
    "getrange w1 0 1",
    "xinfo stream r1",
    "xgroup create w1 g 0",
    "xinfo help",
    "zadd w1 1 m",
    "zscore r1 m",
    "keys",
    "lolwut version 5",
    "role",
    "waitaof 0 0 0",
    "readonly",
    "asking",
    "pubsub channels",
    "slaveof",
];

fn set_user(random: &mut SmallRng, name: &str) -> Vec<String> {
    let count = random.random_range(0..9);
    let mut request: Vec<String> = ["acl", "setuser", name].map(str::to_owned).into();
    request.extend((0..count).map(|_| rule(random)));
    request
}

/// Users are made alike or refused alike, look alike, and may do the same in any database.
#[test]
fn random_rules_make_the_same_users() {
    let Some(dir) = programs::valkey_or_skip("random rules of users") else { return };
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let (seed, rounds) = (setting("KEYWARD_ACL_SEED", 1), setting("KEYWARD_ACL_ROUNDS", 300));
    let mut pair = Pair::start(&dir, &[]);
    let mut random = SmallRng::seed_from_u64(seed);
    let missing = [
        "migrate",
        "failover",
        "replicaof",
        "psync",
        "monitor",
        "slowlog",
        "latency",
        "module",
        "commandlog",
        "slaveof",
    ];
    for round in 0..rounds {
        let name = pick(&mut random, &["u", "v"]);
        if round % 7 == 0 {
            pair.admin(&format!("acl deluser {name}"));
        }
        let request = set_user(&mut random, name);
        let mut tell = vec![format!("seed {seed}, round {round}: {request:?}")];
        pair.same(&tell[0], |side| side.admin.call(&request).unwrap());
        for look in ["acl list".to_owned(), format!("acl getuser {name}")] {
            tell.truncate(1);
            tell.push(look.clone());
            pair.same(&tell.join("\n"), |side| side.admin.call(&words(&look)).unwrap());
        }
        let listed = pair.ours.admin.call(&["acl", "list"]).unwrap().to_string();
        pair.admin(&format!("select {}", random.random_range(0..3)));
        for _ in 0..25 {
            let asked = pick(&mut random, REQUESTS);
            if missing.iter().any(|name| asked.starts_with(name)) {
                continue;
            }
            let request = format!("acl dryrun {name} {asked}");
            let what = format!("{}\n{listed}\n{request}", tell[0]);
            pair.same(&what, |side| side.admin.call(&words(&request)).unwrap());
        }
    }
}

/// Requests that change nothing of the connection but for MULTI, and do not end or block it.
fn may_be_sent(request: &str) -> bool {
    const NOT: &[&str] = &[
        "subscribe",
        "psubscribe",
        "ssubscribe",
        "unsubscribe",
        "quit",
        "reset",
        "hello",
        "info",
        "acl list",
        "time",
        "lastsave",
        "lolwut",
        "client id",
        "save",
        "debug",
        "config get",
        "command",
        "memory",
        "role",
        "scan",
        "randomkey",
        "object help",
        "xinfo help",
        "slaveof",
        "xadd",
        "script load",
        "waitaof",
        "wait",
        "function",
        "dump",
        "restore",
        "blpop",
        "cluster",
        "asking",
        "readonly",
        "config set",
        "flushall",
        "fcall",
        "eval x",
        "auth x",
        "swapdb",
        "expire",
        "getex",
        "setex",
        "msetex",
        "object freq",
        "keys",
        "copy",
        "move",
        "rename",
    ];
    !NOT.iter().any(|name| request.starts_with(name))
}

/// A connected user's requests are allowed or refused alike, alone, in transactions and in scripts, while its rights
/// change; and ACL LOG says the same.
#[test]
fn random_requests_are_refused_alike() {
    let Some(dir) = programs::valkey_or_skip("random requests of users") else { return };
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let (seed, rounds) = (setting("KEYWARD_ACL_SEED", 1), setting("KEYWARD_ACL_ROUNDS", 100));
    let mut pair = Pair::start(&dir, &[]);
    let mut random = SmallRng::seed_from_u64(seed);
    for round in 0..rounds {
        let version = random.random_range(2..4);
        pair.admin("acl log reset");
        pair.admin("flushall");
        pair.admin("acl setuser u reset on nopass +@all -select ~* &*");
        pair.come_again(version);
        let mut story = vec![format!("seed {seed}, round {round}, RESP{version}")];
        for _ in 0..30 {
            let rules: Vec<String> = (0..3).map(|_| right(&mut random)).collect();
            let request = match random.random_range(0..12) {
                0..2 => {
                    let mut request = words("acl setuser u");
                    request.extend(rules.iter().map(|rule| rule.clone().into_bytes()));
                    story.push(format!("rules {rules:?}"));
                    pair.same(&story.join("\n"), |side| side.admin.call(&request).unwrap());
                    continue;
                }
                2 => "multi".to_owned(),
                3 => "exec".to_owned(),
                4 => {
                    let call = pick(&mut random, &["call", "pcall"]);
                    let words: Vec<String> =
                        pick(&mut random, REQUESTS).split(' ').map(|word| format!("'{word}'")).collect();
                    let code = format!("return server.{call}({})", words.join(","));
                    if may_be_sent(&words.join(" ").replace('\'', "")) {
                        format!("eval \"{code}\" 0")
                    } else {
                        continue;
                    }
                }
                5 => {
                    let words: Vec<String> =
                        pick(&mut random, REQUESTS).split(' ').map(|word| format!("'{word}'")).collect();
                    if words[0].contains("slaveof") || words[0].contains("nope") {
                        continue;
                    }
                    format!("eval \"return server.acl_check_cmd({})\" 0", words.join(","))
                }
                6 => pick(&mut random, &["auth u x", "auth nobody x", "auth default x", "acl whoami"])
                    .to_owned(),
                _ => pick(&mut random, REQUESTS).to_owned(),
            };
            let sent = words(&request);
            if !request.starts_with("eval \"") && !request.starts_with("auth ") && !may_be_sent(&request) {
                continue;
            }
            story.push(request);
            pair.same(&story.join("\n"), |side| side.user.call(&sent).unwrap());
        }
        pair.same(&story.join("\n"), |side| side.admin.call(&["ACL", "LOG", "100"]).unwrap());
    }
}

#[test]
fn what_acl_says_is_what_valkey_says() {
    let Some(dir) = programs::valkey_or_skip("ACL by example") else { return };
    let mut pair = Pair::start(&dir, &[]);
    for version in [2, 3] {
        pair.same("hello", |side| {
            side.admin.call(&["HELLO", &version.to_string()]).unwrap();
            side.admin.call(&["PING"]).unwrap()
        });
        for request in [
            "acl setuser \"a b\"",
            "acl setuser u +get (~a",
            "acl setuser u (~a +get ) (db=0)",
            "acl getuser u",
            "acl getuser nobody",
            "acl users",
            "acl whoami",
            "acl cat",
            "acl cat nope",
            "acl cat read x",
            "acl genpass 0",
            "acl genpass 4097",
            "acl genpass x",
            "acl genpass 1 2",
            "acl log",
            "acl log reset",
            "acl log x",
            "acl log -1",
            "acl log 1 2",
            "acl dryrun nobody get x",
            "acl dryrun u nope x",
            "acl dryrun u get",
            "acl dryrun u get a",
            "acl dryrun u get b",
            "acl dryrun u config nope",
            "acl deluser default",
            "acl deluser u u nobody",
            "acl nope",
            "acl",
            "acl setuser",
            "acl list x",
            "auth x",
            "auth a b",
            "auth a b c",
            "client list user nobody",
            "client kill user nobody",
            "config set acllog-max-len -1",
            "config set acl-pubsub-default x",
            "config set aclfile x",
            "config get acl*",
            "acl log",
        ] {
            pair.admin(request);
        }
    }
    for category in categories(&mut pair) {
        let ask = |connection: &mut Connection| {
            let names = connection.call(&["ACL", "CAT", &category]).unwrap();
            names.items.iter().map(Frame::string).collect::<std::collections::BTreeSet<_>>()
        };
        let (mine, real) = (ask(&mut pair.ours.admin), ask(&mut pair.theirs.admin));
        let known = names(&mut pair.ours.admin);
        let missing: Vec<_> = real.difference(&mine).filter(|name| known.contains(*name)).collect();
        assert!(missing.is_empty(), "{category}: {missing:?}");
    }
    let generated = |side: &mut Side| side.admin.call(&["ACL", "GENPASS", "9"]).unwrap().string();
    assert_eq!([generated(&mut pair.ours).len(), generated(&mut pair.theirs).len()], [3, 3]);
    assert_ne!(pair.ours.admin.call(&["ACL", "GENPASS"]), pair.ours.admin.call(&["ACL", "GENPASS"]));
}

fn categories(pair: &mut Pair) -> Vec<String> {
    pair.theirs.admin.call(&["ACL", "CAT"]).unwrap().items.iter().map(Frame::string).collect()
}

fn names(connection: &mut Connection) -> std::collections::BTreeSet<String> {
    connection.call(&["COMMAND", "LIST"]).unwrap().items.iter().map(Frame::string).collect()
}

#[test]
fn the_default_user_and_requirepass_are_one() {
    let Some(dir) = programs::valkey_or_skip("requirepass and the default user") else { return };
    let mut pair = Pair::start(&dir, &[]);
    for (who, request) in [
        ('a', "acl setuser default >pw"),
        ('a', "config get requirepass"),
        ('n', "ping"),
        ('u', "auth x"),
        ('u', "hello"),
        ('u', "auth pw"),
        ('u', "ping"),
        ('a', "acl setuser default nopass"),
        ('n', "ping"),
        ('a', "config set requirepass foo"),
        ('a', "acl getuser default"),
        ('n', "ping"),
        ('u', "auth foo"),
        ('a', "config set requirepass foo"),
        ('a', "acl setuser default >bar"),
        ('a', "config set requirepass foo"),
        ('a', "acl list"),
        ('a', "config set requirepass \"\""),
        ('a', "acl list"),
        ('a', "acl setuser default off"),
        ('n', "ping"),
        ('u', "auth x"),
        ('u', "auth default x"),
        ('u', "hello"),
        ('a', "ping"),
        ('a', "acl setuser default on"),
        ('u', "ping"),
        ('a', "acl setuser v on nopass +@all ~a db=0"),
        ('u', "auth v x"),
        ('u', "acl whoami"),
        ('u', "reset"),
        ('u', "acl whoami"),
        ('a', "acl setuser default -ping"),
        ('u', "ping"),
        ('a', "acl setuser default reset"),
        ('a', "ping"),
        ('u', "auth v x"),
        ('u', "acl list"),
        ('n', "ping"),
    ] {
        match who {
            'a' => drop(pair.admin(request)),
            'n' => {
                for side in pair.both() {
                    side.user = Connection::connect(&side.server.addr()).unwrap();
                }
                pair.user(request);
            }
            _ => drop(pair.user(request)),
        }
    }
}

#[test]
fn connections_end_whose_users_are_gone_or_hear_too_much() {
    let Some(dir) = programs::valkey_or_skip("connections of users") else { return };
    let mut pair = Pair::start(&dir, &[]);
    let is_open = |side: &mut Side| {
        if let Err(error) = side.user.set_deadline(Duration::from_secs(10)) {
            panic!("{error}");
        }
        side.user.call(&["PING"]).is_ok()
    };
    for (subscribe, change, stays) in [
        ("ping", "acl deluser u", false),
        ("ping", "acl setuser u off", true),
        ("ping", "acl setuser u -@all", true),
        ("subscribe a", "acl setuser u resetchannels &b", false),
        ("subscribe a", "acl setuser u resetchannels &a", true),
        ("psubscribe a*", "acl setuser u resetchannels &a", false),
        ("psubscribe a*", "acl setuser u resetchannels &a*", true),
        ("ssubscribe a", "acl setuser u resetchannels", false),
        ("ssubscribe a", "acl setuser u resetchannels (+@all &a)", true),
    ] {
        pair.admin("acl setuser u reset on nopass +@all ~* &*");
        pair.come_again(2);
        pair.user(subscribe);
        pair.admin(change);
        let open = pair.both().map(is_open);
        assert_eq!(open, [stays, stays], "{subscribe}; {change}");
    }
    // One that deletes itself hears that it is done.
    pair.admin("acl setuser u reset on nopass +@all ~* &*");
    pair.come_again(2);
    pair.user("acl deluser u");
    assert_eq!(pair.both().map(is_open), [false, false]);
}

#[test]
fn a_client_that_waited_is_served_by_its_rights_of_then() {
    let Some(dir) = programs::valkey_or_skip("clients that wait") else { return };
    let mut pair = Pair::start(&dir, &[]);
    for (change, waits) in [
        ("acl setuser u -blpop", "blpop l 0"),
        ("acl setuser u resetkeys ~m", "blpop l 0"),
        ("acl setuser u db=1", "blpop l 0"),
        ("acl setuser u +@all", "blpop l 0"),
        ("acl setuser u -@write", "bzpopmin l 0"),
    ] {
        pair.admin("flushall");
        pair.admin("acl log reset");
        pair.admin("acl setuser u reset on nopass +@all ~* &*");
        pair.come_again(3);
        for side in pair.both() {
            side.user.send(&words(waits));
        }
        for side in pair.both() {
            let blocked = |admin: &mut Connection| {
                let info = admin.call(&["INFO", "clients"]).unwrap().string();
                info.contains("blocked_clients:1")
            };
            while !blocked(&mut side.admin) {
                std::thread::yield_now();
            }
        }
        pair.admin(change);
        pair.admin(if waits.starts_with('z') || waits.starts_with("bz") {
            "zadd l 1 x"
        } else {
            "lpush l x"
        });
        pair.same(change, |side| side.user.reply().unwrap());
        pair.admin("acl log");
        pair.admin("exists l");
    }
}

#[test]
fn what_is_queued_needs_rights_to_the_database_in_which_it_will_run() {
    let Some(dir) = programs::valkey_or_skip("queued requests of users") else { return };
    let mut pair = Pair::start(&dir, &[]);
    pair.admin("acl setuser u on nopass +@all ~* &* db=1");
    pair.come_again(2);
    for request in
        ["multi", "select 1", "get a", "select 99", "get a", "exec", "get a", "multi", "select 2", "exec"]
    {
        pair.user(request);
    }
    for (change, queued) in
        [("-get", "get a"), ("resetkeys", "get a"), ("resetchannels", "publish a b"), ("db=2", "get a")]
    {
        pair.admin("acl setuser u reset on nopass +@all ~* &*");
        pair.user("multi");
        pair.user(queued);
        pair.admin(&format!("acl setuser u {change}"));
        pair.user("exec");
    }
    pair.admin("acl log");
}

#[test]
fn users_are_kept_in_files() {
    let Some(dir) = programs::valkey_or_skip("files of users") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    let path = file.to_str().unwrap().to_owned();
    std::fs::write(&file, "user default on nopass ~* &* +@all\nuser u on nopass +@all ~a* (~x +get)\n")
        .unwrap();
    let mut pair = Pair::start(&dir, &["--aclfile", &path]);
    pair.admin("acl list");
    pair.come_again(2);
    pair.user("get a");
    pair.user("get b");
    for text in [
        "nope\n",
        "user\n",
        "user a on x\n",
        "user a b\nuser a on\nuser b bad\n",
        "user a (+get\n",
        "# c\n",
        "user \"a b\" on\n",
        "user a on ~\"x y\"\n",
        "user\ta\ton\n",
        "USER a on\n",
        "  user a on  +get \r\n\nuser u on nopass +@all ~a*\n",
        "user default on nopass ~* &* +@all\nuser u on nopass -@all\nuser v off\n",
    ] {
        std::fs::write(&file, text).unwrap();
        pair.admin("acl load");
        pair.admin("acl list");
    }
    pair.user("get a");
    std::fs::write(&file, "user default on nopass ~* &* +@all\n").unwrap();
    pair.admin("acl load");
    let is_open = |side: &mut Side| side.user.call(&["PING"]).is_ok();
    assert_eq!(pair.both().map(is_open), [false, false], "the user is gone");
    pair.admin("acl setuser w on >p +get ~\"a\" (~b &c)");
    let saved = |side: &mut Side| {
        assert_eq!(side.admin.call(&["ACL", "SAVE"]).unwrap().string(), "OK");
        std::fs::read_to_string(&file).unwrap()
    };
    let [mine, real] = pair.both().map(saved);
    assert_eq!(mine, real);
    std::fs::remove_file(&file).unwrap();
    pair.admin("acl load");
    drop(pair);
    let mut pair = Pair::start(&dir, &[]);
    let refused =
        |side: &mut Side| side.admin.call(&["ACL", "LOAD"]).unwrap().to_string().replace("Keyward", "Valkey");
    let [mine, real] = pair.both().map(refused);
    assert_eq!(mine, real.replace("This instance", "This Valkey instance"));
}
