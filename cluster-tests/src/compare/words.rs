//! What random commands are made of: few keys and members, so that commands meet on them, and numbers and
//! strings from the edges of what Valkey parses.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// One command's arguments.
pub type Args = Vec<Vec<u8>>;

/// Scripts for `$script`: of keys, values, conversions and errors. A number that a script sets is no `int` in Valkey but
/// the longer `embstr`; with a letter behind it there is no difference.
const SCRIPTS: &[&str] = &[
    "return 1",
    "return {1, 2.7, 'x', true, false, {3}}",
    "return {KEYS, ARGV, #KEYS, #ARGV}",
    "return redis.call('SET', KEYS[1], ARGV[1] .. 'x')",
    "return redis.call('GET', KEYS[1])",
    "return {redis.pcall('GET', KEYS[1])}",
    "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "return redis.pcall('LPUSH', KEYS[1], ARGV[1], 'b')",
    "return redis.call('LRANGE', KEYS[1], 0, -1)",
    "return redis.call('TYPE', KEYS[1])",
    "return redis.call('HSETEX', KEYS[1], 'EX', 1000, 'FIELDS', 2, 'a', ARGV[1], 'b', 1)",
    "return redis.call('HPERSIST', KEYS[1], 'FIELDS', 3, 'a', 'b', 'c')",
    "return {redis.pcall('HGETEX', KEYS[1], 'EX', 0, 'FIELDS', 1, 'a'), redis.pcall('HLEN', KEYS[1])}",
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
    "for i = 1, 5 do redis.call('RPUSH', KEYS[1], i) end return redis.call('LLEN', KEYS[1])",
    "redis.call('SET', KEYS[1], 'x') return redis.call('LPUSH', KEYS[1], 'y')",
    "local ok, e = pcall(redis.call, 'LPUSH', KEYS[1]) return {ok, e}",
    "redis.setresp(3) return {redis.pcall('ZSCORE', KEYS[1], 'a'), redis.pcall('HGET', KEYS[1], 'f')}",
    "redis.setresp(3) return true",
    "return {double = 1.5}",
    "return {map = {a = {set = {b = true}}}}",
    "return {err = 'MY error'}",
    "return {ok = 'fine'}",
    "return redis.error_reply(ARGV[1])",
    "return redis.status_reply('a')",
    "return redis.sha1hex(ARGV[1])",
    "return nosuch",
    "nosuch = 1",
    "error(ARGV[1])",
    "error({err = ARGV[1]})",
    "return 1 +",
    "return redis.call('NOSUCH')",
    "return redis.call('EVAL', 'return 1', 0)",
    "return redis.call('BLPOP', KEYS[1], 0)",
    "return redis.call('PUBLISH', 'c', 'm')",
    "redis.call('SELECT', 1) return redis.call('EXISTS', KEYS[1])",
    "return redis.call('SET', 'undeclared', ARGV[1] .. 'x')",
    "redis.call('SET', KEYS[1], 'v') redis.call('DEL', 'undeclared') return redis.call('EXISTS', KEYS[1])",
    "return cjson.decode(cjson.encode({a = {1, 2, ARGV[1]}})).a",
    "return cjson.decode(ARGV[1])",
    "return cmsgpack.pack({1, 2.5, ARGV[1]})",
    "return {cmsgpack.unpack(ARGV[1])}",
    "return struct.pack('>I2s', 7, ARGV[1])",
    "return bit.band(255, #ARGV[1])",
    "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])",
    "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 'v')",
    "#!lua\nreturn redis.call('SET', KEYS[1], 'v')",
    "#!lua flags=nosuch\nreturn 1",
];

/// Libraries for `$library`: few names of libraries and functions, so that they clash, and what is refused.
const LIBRARIES: &[&str] = &[
    "#!lua name=one\nredis.register_function('f', function(keys, args) return {keys, args} end)",
    "#!lua name=one\nredis.register_function('g', function(keys, args) return redis.call('SET', keys[1], args[1] .. 'x') end)",
    "#!lua name=two\nredis.register_function('f', function() return 'two' end)",
    "#!lua name=two\nredis.register_function{function_name='r', callback=function(keys) return redis.call('GET', \
     keys[1]) end, flags={'no-writes'}, description='reads'}",
    "#!lua name=ONE\nserver.register_function('F', function() return redis.error_reply('MY error') end)",
    "#!lua name=two\nlocal function w(keys) return redis.call('LPUSH', keys[1], 'a') end redis.register_function('g', w)",
    "#!lua name=three\nredis.register_function{function_name='o', callback=function() return nosuch end, \
     flags={'allow-oom', 'no-cluster', 'allow-stale', 'allow-cross-slot-keys'}}",
    "#!lua name=three\nredis.register_function('e', function() error({err = 'MY error'}) end)",
    "#!lua name=three\nredis.register_function('f-1', function() end)",
    "#!lua name=three\nredis.register_function('f', 1)",
    "#!lua name=three\nredis.register_function('f')",
    "#!lua name=three\nredis.register_function{function_name='f', callback=function() end, flags={'nosuch'}}",
    "#!lua name=three\nredis.register_function{function_name='f'}",
    "#!lua name=three\nredis.register_function('s', function() end) redis.register_function('s', function() end)",
    "#!lua name=three\nredis.call('PING')",
    "#!lua name=three\nreturn 1",
    "#!lua name=three\nnosuch()",
    "#!lua name=three\nx = 1",
    "#!lua name=three\nreturn 1 +",
    "#!lua name=a-b\nreturn 1",
    "#!lua name=\nreturn 1",
    "#!lua name=a name=b\nreturn 1",
    "#!lua nosuch=a\nreturn 1",
    "#!lua\nreturn 1",
    "#!nosuch name=a\nreturn 1",
    "#!lua name=a",
    "return 1",
];

/// Key types by the first letter of their keys: string, number, hash, list, set, sorted set, bitmap,
/// hyperloglog, geo set, stream.
const TYPES: &str = "snhltzbpgx";

const MEMBERS: &[&[u8]] =
    &[b"a", b"b", b"c", b"d", b"e", b"1", b"2", b"10", b"", b"hello world", b"-5", b"\xff\x00\r\n", b"A"];

const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"10",
    b"hello",
    b"hello world",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"12345678901234567890123",
    b" 1",
    b"1 ",
    b"+1",
    b"01",
    b"-0",
    b"1.5",
    b"3.0e3",
    b"inf",
    b"-inf",
    b"nan",
    b"0x10",
    b"1e400",
    b"\xff\x00\r\n",
    b"ohmytext",
    b"mynewtext",
    b"value-of-exactly-44-bytes-aaaaaaaaaaaaaaaaaa",
    b"value-of-exactly-45-bytes-aaaaaaaaaaaaaaaaaaa",
    b"a value that is longer than sixty-four bytes, which is where lists and hashes change their encoding",
];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "7",
    "10",
    "-10",
    "100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "1.5",
    "abc",
    "",
    " 1",
    "01",
    "-0",
    "4294967296",
    "1e3",
];

const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "1.5",
    "-2.25",
    "0.1",
    "0.2",
    "3.0e3",
    "1e10",
    "-1e-5",
    "5.0e-324",
    "1.7976931348623157e308",
    "1e17",
    "123456789.123456789",
    "inf",
    "-inf",
    "+inf",
    "nan",
    "abc",
    "",
    " 1",
    "1 ",
    "0x10",
    "1e400",
    "-0",
    "infinity",
    "1e-7",
    "100000000000000000000",
    "3.14159265358979",
    "1.0",
];

const SCORES: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "2",
    "3",
    "10",
    "-2.5",
    "1e10",
    "inf",
    "-inf",
    "0.1",
    "1e-7",
    "1e20",
    "9007199254740993",
    "-0",
    "3.3333333333333335",
];

/// Small numbers that positions, counts and offsets are about.
const INDEXES: &[&str] =
    &["0", "1", "2", "-1", "-2", "3", "5", "-5", "100", "-100", "0", "1", "-1", "abc", "9223372036854775807"];

/// Where Valkey cuts a larger index to 32 bits and so changes an element that nobody meant (LSET): Keyward does not.
const NEAR_INDEXES: &[&str] =
    &["0", "1", "2", "-1", "-2", "3", "5", "-5", "100", "-100", "0", "1", "-1", "abc"];

const COUNTS: &[&str] = &["0", "1", "2", "3", "10", "1000", "-1", "1", "2", "abc", "", "9223372036854775807"];

const SCORE_BOUNDS: &[&str] = &[
    "-inf", "+inf", "inf", "0", "1", "2", "3", "(1", "(2", "-1", "1.5", "(inf", "(-inf", "abc", "nan", "(",
    "10",
];

const LEX_BOUNDS: &[&[u8]] =
    &[b"-", b"+", b"[a", b"(a", b"[c", b"(c", b"[", b"(", b"a", b"", b"[b", b"[\xff", b"[hello", b"(z"];

const PATTERNS: &[&[u8]] = &[
    b"*", b"?", b"a*", b"*1", b"[a-c]*", b"[^a]*", b"h?llo*", b"\\*", b"", b"s*", b"*{a}*", b"[", b"[a",
    b"a", b"**b",
];

/// Keys by which SORT compares, or which it shows.
const SORT_PATTERNS: &[&str] =
    &["s*", "n*", "h*->a", "h*->1", "h*->", "*", "l*", "nosort", "n1", "#", "*->*", "", "x*y"];

const TTL_SECONDS: &[&str] = &[
    "100",
    "1000",
    "100000",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775",
    "-9223372036854775808",
    "abc",
    "1.5",
    "",
    "500",
];

const TTL_MILLISECONDS: &[&str] =
    &["100000", "1000000", "0", "-1", "9223372036854775807", "-9223372036854775808", "abc", "500000", ""];

/// The years 2100 and 2200, and moments that have passed.
const AT_SECONDS: &[&str] = &[
    "4102444800",
    "7258118400",
    "1",
    "0",
    "-1",
    "1000000000",
    "9223372036854775807",
    "abc",
    "9223372036854775",
];

const AT_MILLISECONDS: &[&str] =
    &["4102444800000", "7258118400000", "1", "0", "-1", "1000000000000", "9223372036854775807", "abc"];

const CHANNELS: &[&[u8]] = &[b"ch1", b"ch2", b"{a}ch", b"news.art", b"", b"\xff\x00"];

const CHANNEL_PATTERNS: &[&[u8]] = &[b"ch*", b"*", b"news.?rt", b"{a}*", b"[", b"ch[12]"];

const DATABASES: &[&str] =
    &["0", "1", "2", "15", "0", "1", "16", "-1", "abc", "", "1.5", "9223372036854775808"];

/// Refused, or waited for a moment only.
const TIMEOUTS: &[&str] =
    &["0.001", "0.002", ".001", "1e-3", "-1", "abc", "", "inf", "nan", "1e400", "99999999999999999999"];

const TIMEOUT_MILLISECONDS: &[&str] = &["1", "2", "-1", "abc", "", "1.5"];

const STREAM_IDS: &[&str] = &[
    "1-1",
    "1-2",
    "2-1",
    "3-0",
    "5",
    "0",
    "0-0",
    "0-1",
    "7-*",
    "100-1",
    "-",
    "+",
    "$",
    "(1-1",
    "(2",
    "1-",
    "abc",
    "",
    "18446744073709551615-18446744073709551615",
    "18446744073709551615",
    "18446744073709551616-1",
    "1-1-1",
    "10-0",
];

const BIT_OFFSETS: &[&str] =
    &["0", "1", "7", "8", "9", "15", "100", "1000", "-1", "4294967296", "abc", "", "9223372036854775807"];

const BITFIELD_TYPES: &[&str] =
    &["u8", "i8", "u4", "i5", "u63", "i64", "u64", "i65", "u1", "i1", "u0", "x8", "u16"];

const BITFIELD_OFFSETS: &[&str] =
    &["0", "1", "#0", "#1", "#2", "100", "7", "-1", "#-1", "abc", "#", "9223372036854775807"];

const LONGITUDES: &[&str] =
    &["13.361389", "15.087269", "0", "-0.5", "2.35", "179.99", "-180", "181", "abc", "13.4", "nan"];

const LATITUDES: &[&str] =
    &["38.115556", "37.502669", "0", "51.5", "48.85", "85.05", "-86", "abc", "52.5", "38.2"];

const RADII: &[&str] = &["0", "1", "100", "200", "1000", "5000", "100000", "-1", "abc", "166274.1516", "0.5"];

/// Strings that no parser of a number, option or bound should take, and that make no command wait.
pub(super) const ODD: &[&[u8]] = &[
    b"",
    b"abc",
    b"1.5",
    b"-1",
    b" 1",
    b"nan",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"\xff\x00\r\n",
    b"*",
    b"WITHSCORES",
    b"COUNT",
];

/// Fills the holes of one template.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The first key of the template, which `$same` repeats.
    first_key: Option<Vec<u8>>,
}

impl Words {
    pub(super) fn fill(&mut self, name: &str, rng: &mut SmallRng, out: &mut Args) {
        match name {
            "k" => out.push(self.any_key(rng)),
            _ if name.len() == 1 && TYPES.contains(name) => out.push(self.key_of(name, rng)),
            _ if name.starts_with('N') => self.counted_keys(&name[1..], rng, out),
            "ZW" => self.weighted_keys(rng, out),
            "same" => out.push(self.first_key.clone().expect("$same follows a key")),
            "many" => out.extend((0..rng.random_range(100..200)).map(|i| format!("member:{i}").into_bytes())),
            "manyint" => {
                out.extend((0..rng.random_range(100..600)).map(|i| format!("{}", i * 7).into_bytes()))
            }
            "manypairs" => out.extend((0..rng.random_range(60..140)).flat_map(|i| {
                [format!("{}", (i * 37) % 100).into_bytes(), format!("member:{i}").into_bytes()]
            })),
            // All scores are equal: else the result of Valkey is an accident.
            "lexkey" => out.push(pick_from(&["lex1", "lex2"], rng)),
            "manylex" => out.extend(
                (0..rng.random_range(60..140))
                    .flat_map(|i| [b"0".to_vec(), format!("member:{}", (i * 37) % 140).into_bytes()]),
            ),
            "large" => out.push(vec![b'L'; rng.random_range(3_000..20_000)]),
            "script" => out.push(pick_from(SCRIPTS, rng)),
            "library" => out.push(pick_from(LIBRARIES, rng)),
            "sha" => out.push(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db".to_vec()),
            "FIELDS" => counted(MEMBERS, 1, rng, out),
            "MEMBERPAIRS" => counted(MEMBERS, 2, rng, out),
            _ => out.push(pick(name, rng)),
        }
    }

    fn remember(&mut self, key: Vec<u8>) -> Vec<u8> {
        self.first_key.get_or_insert_with(|| key.clone());
        key
    }

    /// Mostly a key that holds the type, if it exists; sometimes one of another type.
    fn key_of(&mut self, type_letter: &str, rng: &mut SmallRng) -> Vec<u8> {
        if rng.random_bool(0.06) {
            return self.any_key(rng);
        }
        let key = match rng.random_range(0..10) {
            0..4 => format!("{type_letter}1"),
            4..6 => format!("{type_letter}2"),
            6..8 => format!("{{a}}{type_letter}3"),
            _ => format!("{{a}}{type_letter}4"),
        };
        self.remember(key.into_bytes())
    }

    fn any_key(&mut self, rng: &mut SmallRng) -> Vec<u8> {
        let key: Vec<u8> = match rng.random_range(0..30) {
            0 => b"".to_vec(),
            1 => b"\xff\x00k".to_vec(),
            2 => b"missing".to_vec(),
            _ => {
                let letter = TYPES.as_bytes()[rng.random_range(0..TYPES.len())];
                format!("{}{}", char::from(letter), rng.random_range(1..3)).into_bytes()
            }
        };
        self.remember(key)
    }

    /// A number and as many keys; sometimes the number is wrong.
    fn counted_keys(&mut self, type_letter: &str, rng: &mut SmallRng, out: &mut Args) {
        let keys = rng.random_range(1..4);
        out.push(count_word(keys, rng));
        for _ in 0..keys {
            let key = if type_letter == "k" { self.any_key(rng) } else { self.key_of(type_letter, rng) };
            out.push(key);
        }
    }

    /// Keys and perhaps WEIGHTS; sorted sets, sometimes sets.
    fn weighted_keys(&mut self, rng: &mut SmallRng, out: &mut Args) {
        let keys = rng.random_range(1..4);
        out.push(count_word(keys, rng));
        for _ in 0..keys {
            let letter = if rng.random_bool(0.2) { "t" } else { "z" };
            let key = self.key_of(letter, rng);
            out.push(key);
        }
        if rng.random_bool(0.4) {
            out.push(b"WEIGHTS".to_vec());
            let weights = if rng.random_bool(0.1) { keys + 1 } else { keys };
            out.extend((0..weights).map(|_| pick("sc", rng)));
        }
    }
}

fn count_word(count: usize, rng: &mut SmallRng) -> Vec<u8> {
    let odd = ["0", "-1", "abc", "1", "4", "9223372036854775807"];
    if rng.random_bool(0.07) { one(&odd, rng) } else { count.to_string().into_bytes() }
}

fn pick_from(texts: &[&str], rng: &mut SmallRng) -> Vec<u8> {
    texts.choose(rng).map_or_else(Vec::new, |text| text.as_bytes().to_vec())
}

/// The word FIELDS, a number, and as many groups of words; sometimes the number is wrong.
fn counted(pool: &[&[u8]], width: usize, rng: &mut SmallRng, out: &mut Args) {
    let groups = rng.random_range(1..4);
    out.push(b"FIELDS".to_vec());
    out.push(count_word(groups, rng));
    out.extend((0..groups * width).map(|_| one(pool, rng)));
}

fn one(pool: &[impl AsRef<[u8]>], rng: &mut SmallRng) -> Vec<u8> {
    pool.choose(rng).expect("no pool is empty").as_ref().to_vec()
}

fn pick(name: &str, rng: &mut SmallRng) -> Vec<u8> {
    match name {
        "v" | "pivot" => one(VALUES, rng),
        "e" => {
            if rng.random_bool(0.8) {
                one(MEMBERS, rng)
            } else {
                one(VALUES, rng)
            }
        }
        "m" | "f" => one(MEMBERS, rng),
        "mi" => rng.random_range(-3..12).to_string().into_bytes(),
        "i" => one(INTEGERS, rng),
        "small" => rng.random_range(-20..20).to_string().into_bytes(),
        "fl" => one(FLOATS, rng),
        "sc" => {
            if rng.random_bool(0.85) {
                one(SCORES, rng)
            } else {
                one(FLOATS, rng)
            }
        }
        "d" => one(INDEXES, rng),
        "near" => one(NEAR_INDEXES, rng),
        "c" => one(COUNTS, rng),
        "rc" => one(&["0", "1", "2", "3", "-1", "-3", "1000", "-9223372036854775808", "abc", ""], rng),
        "min" | "max" => one(SCORE_BOUNDS, rng),
        "lmin" | "lmax" => one(LEX_BOUNDS, rng),
        "pat" => one(PATTERNS, rng),
        "sorted" => one(SORT_PATTERNS, rng),
        "ttl" => one(TTL_SECONDS, rng),
        "pttl" => one(TTL_MILLISECONDS, rng),
        "at" => one(AT_SECONDS, rng),
        "pat_ms" => one(AT_MILLISECONDS, rng),
        "ch" => one(CHANNELS, rng),
        "chp" => one(CHANNEL_PATTERNS, rng),
        "db" => one(DATABASES, rng),
        "to" => one(TIMEOUTS, rng),
        "toms" => one(TIMEOUT_MILLISECONDS, rng),
        "cur" => {
            if rng.random_bool(0.93) {
                b"0".to_vec()
            } else {
                one(&["abc", "", "-1", "1.5"], rng)
            }
        }
        "type" => one(&["string", "list", "hash", "set", "zset", "stream", "STRING", "foo"], rng),
        "id" => one(STREAM_IDS, rng),
        "group" => one(&["g1", "g2", "missing"], rng),
        "consumer" => one(&["alice", "bob"], rng),
        "bit" => one(&["0", "1", "0", "1", "2", "-1", "abc"], rng),
        "off" => one(BIT_OFFSETS, rng),
        "bft" => one(BITFIELD_TYPES, rng),
        "bfo" => one(BITFIELD_OFFSETS, rng),
        "lon" => one(LONGITUDES, rng),
        "lat" => one(LATITUDES, rng),
        "radius" => one(RADII, rng),
        "unit" => one(&["m", "km", "ft", "mi", "KM", "foo"], rng),
        "place" => one(&["Palermo", "Catania", "London", "Paris", "nowhere"], rng),
        "cmd" => one(
            &["get", "append", "APPEND", "zadd", "nosuch", "mget", "lmove", "object", "hset", "ping"],
            rng,
        ),
        "conf" => one(CONFIG_NAMES, rng),
        // Those by which a server closes connections, when it gets to it, are set by templates of their own.
        "setting" => loop {
            let name = one(CONFIG_NAMES, rng);
            if !name.eq_ignore_ascii_case(b"timeout") && name != b"maxmemory-clients" {
                break name;
            }
        },
        "name" => one(&["alice", "bob", "", "with space", "\u{e9}", "tab\t", "x-y_z"], rng),
        _ => panic!("no words for ${name}"),
    }
}

/// Directives with the same defaults in both servers.
const CONFIG_NAMES: &[&str] = &[
    "maxmemory",
    "maxmemory-clients",
    "maxmemory-eviction-tenacity",
    "maxmemory-policy",
    "maxmemory-samples",
    "hash-max-listpack-entries",
    "hash-max-ziplist-entries",
    "hash-max-listpack-value",
    "list-max-listpack-size",
    "set-max-intset-entries",
    "set-max-listpack-*",
    "zset-max-listpack-entries",
    "zset-max-*",
    "list-compress-depth",
    "hll-sparse-max-bytes",
    "notify-keyspace-events",
    "appendfsync",
    "databases",
    "proto-max-bulk-len",
    "stream-node-max-*",
    "active-expire-effort",
    "lazyfree-lazy-*",
    "lazyfree-lazy-eviction",
    "lfu-decay-time",
    "lfu-log-factor",
    "timeout",
    "TIMEOUT",
    "nosuchdirective",
];
