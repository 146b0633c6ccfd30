//! What is measured. A case makes what it needs on an empty server, and then runs commands whose cost grows with it: all
//! of them together touch some of the elements a bounded number of times, so that they take time in proportion to the
//! number of elements, or less. A new command is a new row.

use super::client::Client;

type Step = fn(&mut Client, usize);

/// See the module documentation.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// What has to be there.
    pub prepare: Step,
    /// What is measured.
    pub run: Step,
}

const fn case(name: &'static str, prepare: Step, run: Step) -> Case {
    Case { name, prepare, run }
}

/// Calls of a command that is to be cheap whatever there is.
const CALLS: usize = 300;

fn names(prefix: &str, len: usize) -> Vec<String> {
    (0..len).map(|i| format!("{prefix}{i:07}")).collect()
}

/// Names with a value each, in turn.
fn pairs(prefix: &str, len: usize) -> Vec<String> {
    (0..len).flat_map(|i| [format!("{prefix}{i:07}"), format!("value:{i}")]).collect()
}

/// Scores with a name each, in turn. The scores are in no order.
fn scored(len: usize) -> Vec<String> {
    (0..len).flat_map(|i| [format!("{}", i * 7919 % len), format!("member:{i:07}")]).collect()
}

fn nothing(_: &mut Client, _: usize) {}

fn set(client: &mut Client, len: usize) {
    client.call_in_parts("SADD k", &names("member:", len), 1);
}

/// Another one, which has half of the members of the first.
fn two_sets(client: &mut Client, len: usize) {
    set(client, len);
    client.call_in_parts("SADD l", &names("member:", len / 2), 1);
    client.call_in_parts("SADD l", &names("other:", len / 2), 1);
}

fn integers(client: &mut Client, len: usize) {
    let words: Vec<String> = (0..len).map(|i| (i * 7919 % len).to_string()).collect();
    client.call_in_parts("SADD k", &words, 1);
}

fn hash(client: &mut Client, len: usize) {
    client.call_in_parts("HSET k", &pairs("field:", len), 2);
}

/// Its fields expire at times in no order.
fn volatile_hash(client: &mut Client, len: usize) {
    hash(client, len);
    for (i, fields) in names("field:", len).chunks(100).enumerate() {
        let time = 100_000_000 + i * 7919 % len;
        client.call_with(&format!("HPEXPIRE k {time} FIELDS {}", fields.len()), fields);
    }
}

fn sorted_set(client: &mut Client, len: usize) {
    client.call_in_parts("ZADD k", &scored(len), 2);
}

fn two_sorted_sets(client: &mut Client, len: usize) {
    sorted_set(client, len);
    client.call_in_parts("ZADD l", &scored(len / 2), 2);
}

/// All scores are the same.
fn names_in_order(client: &mut Client, len: usize) {
    let words: Vec<String> =
        (0..len).flat_map(|i| ["0".to_owned(), format!("member:{:07}", i * 7919 % len)]).collect();
    client.call_in_parts("ZADD k", &words, 2);
}

fn list(client: &mut Client, len: usize) {
    client.call_in_parts("RPUSH k", &names("element:", len), 1);
}

fn stream(client: &mut Client, len: usize) {
    each(client, "XADD k {} field value", &ids(len));
}

/// A stream of which a consumer has read all.
fn read_stream(client: &mut Client, len: usize) {
    stream(client, len);
    client.call("XGROUP CREATE k g 0");
    client.call("XREADGROUP GROUP g alice STREAMS k >");
}

fn ids(len: usize) -> Vec<String> {
    (1..=len).map(|ms| format!("{ms}-1")).collect()
}

fn keys(client: &mut Client, len: usize) {
    client.call_in_parts("MSET", &pairs("key:", len), 2);
}

/// Keys that are all in one slot.
fn keys_of_a_slot(client: &mut Client, len: usize) {
    client.call_in_parts("MSET", &pairs("{t}key:", len), 2);
}

fn keys_with_expiry(client: &mut Client, len: usize) {
    names("key:", len).iter().for_each(|key| client.queue(&format!("SET {key} v EX 100000")));
    client.finish();
}

/// Places with their names, over some square degrees.
fn placed(len: usize) -> Vec<String> {
    let degrees = |i: usize| format!("{}", (i % 10_007) as f64 / 1000.0);
    let place = |i| [degrees(i * 7919), degrees(i * 104_729), format!("place:{i:07}")];
    (0..len).flat_map(place).collect()
}

fn places(client: &mut Client, len: usize) {
    client.call_in_parts("GEOADD k", &placed(len), 3);
}

/// A string of so many bytes whose bits are all zero but the last one.
fn bits(client: &mut Client, len: usize) {
    client.call(&format!("SETBIT k {} 1", 8 * len - 1));
}

fn numbers(len: usize) -> Vec<String> {
    (0..len).map(|i| i.to_string()).collect()
}

fn calls(client: &mut Client, command: &str) {
    (0..CALLS).for_each(|_| client.queue(command));
    client.finish();
}

/// A command for each name, `{}` in it replaced.
fn each(client: &mut Client, command: &str, names: &[impl AsRef<[u8]>]) {
    for name in names {
        client.queue(&command.replace("{}", &String::from_utf8_lossy(name.as_ref())));
    }
    client.finish();
}

/// Members with what comes before them in a reply that has both in turn: scores first.
fn turned(words: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    words.chunks(2).flat_map(|pair| pair.iter().rev().cloned()).collect()
}

/// The payload of DUMP is not text.
fn restore(client: &mut Client) {
    let payload = client.read("DUMP k");
    client.call_with("RESTORE copy 0", &payload);
}

fn subscribe(client: &mut Client, command: &str, names: &[String]) {
    client.call_for_each(command, names, names.len());
}

/// See the module documentation.
pub const CASES: &[Case] = &[
    // Sets, filled in the order of another table.
    case("SADD of what SMEMBERS shows", set, |c, _| {
        let members = c.read("SMEMBERS k");
        c.call_in_parts("SADD copy", &members, 1);
    }),
    case("SADD of what SSCAN shows, set by set", set, |c, _| {
        let members = c.scan("SSCAN k");
        for (i, part) in members.chunks(members.len().div_ceil(8).max(1)).enumerate() {
            c.call_in_parts(&format!("SADD copy:{i}"), part, 1);
        }
    }),
    case("SADD of what SMEMBERS showed, after DEL", set, |c, _| {
        let members = c.read("SMEMBERS k");
        c.call("DEL k");
        c.call_in_parts("SADD k", &members, 1);
    }),
    case("SREM of what SSCAN shows, SADD of others", set, |c, n| {
        let members = c.scan("SSCAN k");
        c.call_in_parts("SREM k", &members[..n * 9 / 10], 1);
        c.call_in_parts("SADD k", &names("other:", n), 1);
        c.call_in_parts("SMISMEMBER k", &members, 1);
    }),
    case("SMOVE of what SMEMBERS shows", set, |c, _| {
        let members = c.read("SMEMBERS k");
        each(c, "SMOVE k other {}", &members);
    }),
    case("SUNIONSTORE", two_sets, |c, _| c.call("SUNIONSTORE d k l")),
    case("SINTERSTORE", two_sets, |c, _| c.call("SINTERSTORE d k l")),
    case("SDIFFSTORE", two_sets, |c, _| c.call("SDIFFSTORE d k l")),
    case("SUNION", two_sets, |c, _| c.call("SUNION k l")),
    case("SINTER", two_sets, |c, _| c.call("SINTER k l")),
    case("SDIFF", two_sets, |c, _| c.call("SDIFF k l")),
    case("SINTERCARD", two_sets, |c, _| c.call("SINTERCARD 2 k l")),
    case("COPY of a set", set, |c, _| c.call("COPY k copy")),
    case("DUMP and RESTORE of a set", set, |c, _| restore(c)),
    case("SADD", nothing, |c, n| c.call_with("SADD k", &names("member:", n))),
    case("SADD of integers", nothing, integers),
    case("SREM", set, |c, n| c.call_with("SREM k", &names("member:", n))),
    case("SMISMEMBER", set, |c, n| c.call_with("SMISMEMBER k", &names("member:", n))),
    case("SPOP with a count", set, |c, n| c.call(&format!("SPOP k {}", n / 2))),
    case("SPOP", set, |c, n| each(c, "SPOP k", &names("", n))),
    case("SRANDMEMBER with a count", set, |c, n| {
        c.call(&format!("SRANDMEMBER k {}", n / 4));
        c.call(&format!("SRANDMEMBER k -{n}"));
    }),
    case("SCARD", set, |c, _| calls(c, "SCARD k")),
    case("DEL of a set", set, |c, _| c.call("DEL k")),
    case("SISMEMBER", set, |c, n| each(c, "SISMEMBER k {}", &names("member:", n))),
    // Hashes.
    case("HSET of what HGETALL shows", hash, |c, _| {
        let fields = c.read("HGETALL k");
        c.call_in_parts("HSET copy", &fields, 2);
    }),
    case("HSET of what HSCAN shows, hash by hash", hash, |c, n| {
        let fields = c.scan("HSCAN k");
        for (i, part) in fields.chunks(2 * n.div_ceil(8)).enumerate() {
            c.call_in_parts(&format!("HSET copy:{i}"), part, 2);
        }
    }),
    case("HDEL of what HKEYS shows, HSET of others", hash, |c, n| {
        let fields = c.read("HKEYS k");
        c.call_in_parts("HDEL k", &fields[..n * 9 / 10], 1);
        c.call_in_parts("HSET k", &pairs("other:", n), 2);
    }),
    case("HINCRBY of what HKEYS shows", hash, |c, _| {
        let fields = c.read("HKEYS k");
        each(c, "HINCRBY copy {} 1", &fields);
    }),
    case("HGETALL", hash, |c, _| c.call("HGETALL k")),
    case("HKEYS and HVALS", hash, |c, _| {
        c.call("HKEYS k");
        c.call("HVALS k");
    }),
    case("HSCAN", hash, |c, _| drop(c.scan("HSCAN k"))),
    case("HMGET", hash, |c, n| c.call_with("HMGET k", &names("field:", n))),
    case("HSET", nothing, |c, n| c.call_with("HSET k", &pairs("field:", n))),
    case("HDEL", hash, |c, n| c.call_with("HDEL k", &names("field:", n))),
    case("HRANDFIELD with a count", hash, |c, n| {
        c.call(&format!("HRANDFIELD k {}", n / 4));
        c.call(&format!("HRANDFIELD k -{n} WITHVALUES"));
    }),
    case("COPY of a hash", hash, |c, _| c.call("COPY k copy")),
    case("DUMP and RESTORE of a hash", hash, |c, _| restore(c)),
    case("HLEN", hash, |c, _| calls(c, "HLEN k")),
    case("UNLINK of a hash", hash, |c, _| c.call("UNLINK k")),
    case("HGET, HEXISTS and HSTRLEN", hash, |c, n| {
        each(c, "HGET k {}", &names("field:", n));
        each(c, "HEXISTS k {}", &names("field:", n));
        each(c, "HSTRLEN k {}", &names("field:", n));
    }),
    case("HMSET", nothing, |c, n| c.call_with("HMSET k", &pairs("field:", n))),
    case("HSETNX and HINCRBYFLOAT", nothing, |c, n| {
        each(c, "HSETNX k {} 1", &names("field:", n));
        each(c, "HINCRBYFLOAT k {} 1.5", &names("field:", n));
    }),
    case("HGETDEL", hash, |c, n| {
        let fields = names("field:", n);
        c.call_with(&format!("HGETDEL k FIELDS {n}"), &fields);
    }),
    case("HSETEX", nothing, |c, n| {
        let pairs = pairs("field:", n);
        c.call_with(&format!("HSETEX k EX 1000 FIELDS {n}"), &pairs);
        c.call_with(&format!("HSETEX k KEEPTTL FIELDS {n}"), &pairs);
    }),
    case("HSETEX of one field after the other", nothing, |c, n| {
        for (i, field) in names("field:", n).iter().enumerate() {
            c.queue(&format!("HSETEX k EX {} FIELDS 1 {field} v", 1000 + i * 7919 % n));
        }
        c.finish();
    }),
    case("HEXPIRE of one field", hash, |c, _| {
        for _ in 0..CALLS {
            c.queue("HEXPIRE k 1000 FIELDS 1 field:0000000");
            c.queue("HPERSIST k FIELDS 1 field:0000000");
        }
        c.finish();
    }),
    case("HEXPIRE, HPEXPIRE, HEXPIREAT and HPEXPIREAT", hash, |c, n| {
        let fields = names("field:", n);
        let commands =
            ["HEXPIRE k 1000", "HPEXPIRE k 2000000", "HEXPIREAT k 9999999999", "HPEXPIREAT k 9999999999999"];
        for command in commands {
            c.call_with(&format!("{command} FIELDS {n}"), &fields);
        }
    }),
    case("HTTL, HPTTL, HEXPIRETIME, HPEXPIRETIME and HPERSIST", volatile_hash, |c, n| {
        let fields = names("field:", n);
        for command in ["HTTL", "HPTTL", "HEXPIRETIME", "HPEXPIRETIME", "HPERSIST"] {
            c.call_with(&format!("{command} k FIELDS {n}"), &fields);
        }
    }),
    case("HGETEX", volatile_hash, |c, n| {
        let fields = names("field:", n);
        c.call_with(&format!("HGETEX k EX 1000 FIELDS {n}"), &fields);
        c.call_with(&format!("HGETEX k PERSIST FIELDS {n}"), &fields);
        c.call_with(&format!("HGETEX k EX 0 FIELDS {n}"), &fields);
    }),
    case("HSET, HDEL and HGETALL of fields with times", volatile_hash, |c, n| {
        c.call("HGETALL k");
        c.call_with("HSET k", &pairs("field:", n / 2));
        c.call_with("HDEL k", &names("field:", n));
    }),
    case("COPY, DUMP and RESTORE of a hash with times", volatile_hash, |c, _| {
        c.call("COPY k other");
        restore(c);
    }),
    case("UNLINK of a hash with times", volatile_hash, |c, _| c.call("UNLINK k")),
    // Sorted sets.
    case("ZADD of what ZSCAN shows", sorted_set, |c, _| {
        let members = turned(c.scan("ZSCAN k"));
        c.call_in_parts("ZADD copy", &members, 2);
    }),
    case("ZREM of what ZSCAN shows, ZADD of others", sorted_set, |c, n| {
        let members: Vec<Vec<u8>> = c.scan("ZSCAN k").into_iter().step_by(2).collect();
        c.call_in_parts("ZREM k", &members[..n * 9 / 10], 1);
        c.call_in_parts(
            "ZADD k",
            &pairs("1.5", n).into_iter().map(String::into_bytes).collect::<Vec<_>>(),
            2,
        );
    }),
    case("SADD of what ZSCAN shows", sorted_set, |c, _| {
        let members: Vec<Vec<u8>> = c.scan("ZSCAN k").into_iter().step_by(2).collect();
        c.call_in_parts("SADD copy", &members, 1);
    }),
    case("ZADD", nothing, |c, n| c.call_with("ZADD k", &scored(n))),
    case("ZADD of other scores", sorted_set, |c, n| {
        let words: Vec<String> =
            (0..n).flat_map(|i| [(i * 104_729 % n).to_string(), format!("member:{i:07}")]).collect();
        c.call_in_parts("ZADD k", &words, 2);
    }),
    case("ZINCRBY", sorted_set, |c, n| each(c, "ZINCRBY k 5 {}", &names("member:", n))),
    case("ZRANGE", sorted_set, |c, _| c.call("ZRANGE k 0 -1 WITHSCORES")),
    case("ZRANGE REV", sorted_set, |c, _| c.call("ZRANGE k 0 -1 REV")),
    case("ZRANGEBYSCORE", sorted_set, |c, _| c.call("ZRANGEBYSCORE k -inf +inf WITHSCORES")),
    case("ZRANGEBYSCORE with a LIMIT", sorted_set, |c, n| {
        calls(c, &format!("ZRANGEBYSCORE k -inf +inf LIMIT {} 5", n / 2));
    }),
    case("ZRANGEBYLEX", names_in_order, |c, _| c.call("ZRANGEBYLEX k - +")),
    case("ZLEXCOUNT and ZREMRANGEBYLEX", names_in_order, |c, _| {
        calls(c, "ZLEXCOUNT k [member:0000001 +");
        c.call("ZREMRANGEBYLEX k - +");
    }),
    case("ZCOUNT", sorted_set, |c, n| calls(c, &format!("ZCOUNT k 5 {}", n / 2))),
    case("ZRANK", sorted_set, |c, n| each(c, "ZRANK k {}", &names("member:", n))),
    case("ZMSCORE", sorted_set, |c, n| c.call_with("ZMSCORE k", &names("member:", n))),
    case("ZREM", sorted_set, |c, n| c.call_with("ZREM k", &names("member:", n))),
    case("ZREMRANGEBYRANK", sorted_set, |c, n| c.call(&format!("ZREMRANGEBYRANK k 0 {}", n / 2))),
    case("ZREMRANGEBYSCORE", sorted_set, |c, n| c.call(&format!("ZREMRANGEBYSCORE k 0 {}", n / 2))),
    case("ZPOPMIN with a count", sorted_set, |c, n| c.call(&format!("ZPOPMIN k {}", n / 2))),
    case("ZPOPMAX", sorted_set, |c, n| each(c, "ZPOPMAX k", &names("", n))),
    case("ZRANDMEMBER with a count", sorted_set, |c, n| {
        c.call(&format!("ZRANDMEMBER k {}", n / 4));
        c.call(&format!("ZRANDMEMBER k -{n}"));
    }),
    case("ZUNIONSTORE", two_sorted_sets, |c, _| c.call("ZUNIONSTORE d 2 k l")),
    case("ZINTERSTORE", two_sorted_sets, |c, _| c.call("ZINTERSTORE d 2 k l")),
    case("ZDIFFSTORE", two_sorted_sets, |c, _| c.call("ZDIFFSTORE d 2 k l")),
    case("ZUNION", two_sorted_sets, |c, _| c.call("ZUNION 2 k l WITHSCORES")),
    case("ZINTER", two_sorted_sets, |c, _| c.call("ZINTER 2 k l")),
    case("ZDIFF", two_sorted_sets, |c, _| c.call("ZDIFF 2 k l")),
    case("ZINTERCARD", two_sorted_sets, |c, _| c.call("ZINTERCARD 2 k l")),
    case("ZUNIONSTORE of sets", two_sets, |c, _| c.call("ZUNIONSTORE d 2 k l")),
    case("ZRANGESTORE", sorted_set, |c, _| c.call("ZRANGESTORE d k 0 -1")),
    case("COPY of a sorted set", sorted_set, |c, _| c.call("COPY k copy")),
    case("DUMP and RESTORE of a sorted set", sorted_set, |c, _| restore(c)),
    case("ZSCORE and ZREVRANK", sorted_set, |c, n| {
        each(c, "ZSCORE k {}", &names("member:", n));
        each(c, "ZREVRANK k {}", &names("member:", n));
    }),
    case("ZREVRANGE and ZREVRANGEBYSCORE", sorted_set, |c, _| {
        c.call("ZREVRANGE k 0 -1");
        c.call("ZREVRANGEBYSCORE k +inf -inf");
    }),
    case("ZREVRANGEBYLEX", names_in_order, |c, _| c.call("ZREVRANGEBYLEX k + -")),
    case("ZMPOP", sorted_set, |c, n| c.call(&format!("ZMPOP 1 k MAX COUNT {}", n / 2))),
    case("ZCARD", sorted_set, |c, _| calls(c, "ZCARD k")),
    case("BZPOPMIN and BZPOPMAX of many keys", nothing, |c, n| {
        for command in ["BZPOPMIN", "BZPOPMAX"] {
            c.call("ZADD last 1 member");
            let mut words = names("key:", n);
            words.extend(["last".to_owned(), "0".to_owned()]);
            c.call_with(command, &words);
        }
    }),
    // Lists.
    case("RPUSH", nothing, |c, n| c.call_with("RPUSH k", &names("element:", n))),
    case("LPUSH, one by one", nothing, |c, n| each(c, "LPUSH k {}", &names("element:", n))),
    case("LRANGE", list, |c, _| c.call("LRANGE k 0 -1")),
    case("LRANGE in the middle", list, |c, n| calls(c, &format!("LRANGE k {} {}", n / 2, n / 2 + 5))),
    case("LINDEX in the middle", list, |c, n| calls(c, &format!("LINDEX k {}", n / 2))),
    case("LSET in the middle", list, |c, n| calls(c, &format!("LSET k {} other", n / 2))),
    case("LREM", list, |c, n| {
        c.call("LREM k 0 missing");
        c.call(&format!("LREM k 0 element:{:07}", n / 2));
    }),
    case("LREM of equal elements", nothing, |c, n| {
        c.call_in_parts("RPUSH k", &vec!["same"; n], 1);
        c.call("LREM k 0 same");
    }),
    case("LINSERT", list, |c, n| {
        (0..10).for_each(|_| c.call(&format!("LINSERT k BEFORE element:{:07} new", n / 2)))
    }),
    case("LPOS", list, |c, _| c.call("LPOS k missing COUNT 0")),
    case("LTRIM", list, |c, n| c.call(&format!("LTRIM k {} {}", n / 4, n / 2))),
    case("LPOP with a count", list, |c, n| c.call(&format!("LPOP k {}", n / 2))),
    case("RPOP, one by one", list, |c, n| each(c, "RPOP k", &names("", n))),
    case("LMOVE", list, |c, n| each(c, "LMOVE k other LEFT RIGHT", &names("", n))),
    case("COPY of a list", list, |c, _| c.call("COPY k copy")),
    case("DUMP and RESTORE of a list", list, |c, _| restore(c)),
    case("BLPOP of many keys", nothing, |c, n| {
        c.call("RPUSH last element");
        let mut words = names("key:", n);
        words.extend(["last".to_owned(), "0".to_owned()]);
        c.call_with("BLPOP", &words);
    }),
    case("BRPOP of many keys", nothing, |c, n| {
        c.call("RPUSH last element");
        let mut words = names("key:", n);
        words.extend(["last".to_owned(), "0".to_owned()]);
        c.call_with("BRPOP", &words);
    }),
    case("LMPOP", list, |c, n| c.call(&format!("LMPOP 1 k RIGHT COUNT {}", n / 2))),
    case("RPOPLPUSH", list, |c, n| each(c, "RPOPLPUSH k other", &names("", n))),
    case("LPUSHX, RPUSHX and LLEN", list, |c, n| {
        each(c, "LPUSHX k {}", &names("element:", n));
        each(c, "RPUSHX k {}", &names("element:", n));
        calls(c, "LLEN k");
    }),
    // Strings and keys.
    case("SET, one by one", nothing, |c, n| each(c, "SET {} v", &names("key:", n))),
    case("GET, one by one", keys, |c, n| each(c, "GET {}", &names("key:", n))),
    case("MSET", nothing, |c, n| c.call_with("MSET", &pairs("key:", n))),
    case("MSETNX", nothing, |c, n| c.call_with("MSETNX", &pairs("key:", n))),
    case("MGET", keys, |c, n| c.call_with("MGET", &names("key:", n))),
    case("MSET of one slot", nothing, |c, n| c.call_with("MSET", &pairs("{t}key:", n))),
    case("MGET of one slot", keys_of_a_slot, |c, n| c.call_with("MGET", &names("{t}key:", n))),
    case("DEL", keys, |c, n| c.call_with("DEL", &names("key:", n))),
    case("UNLINK", keys, |c, n| c.call_with("UNLINK", &names("key:", n))),
    case("EXISTS", keys, |c, n| c.call_with("EXISTS", &names("key:", n))),
    case("TOUCH", keys, |c, n| c.call_with("TOUCH", &names("key:", n))),
    case("APPEND", nothing, |c, n| each(c, "APPEND k {}", &names("part:", n))),
    case("SETRANGE and GETRANGE", nothing, |c, n| {
        (0..n).for_each(|i| c.queue(&format!("SETRANGE k {} 0123456789", 10 * i)));
        (0..n).for_each(|i| c.queue(&format!("GETRANGE k {} {}", 10 * i, 10 * i + 5)));
        c.finish();
    }),
    case("LCS", nothing, |c, n| {
        // Its cost is the product of both lengths.
        c.call(&format!("MSET {{t}}a {} {{t}}b abc", "x".repeat(n)));
        c.call("LCS {t}a {t}b LEN");
    }),
    case("EXPIRE and PERSIST", keys, |c, n| {
        each(c, "EXPIRE {} 10000", &names("key:", n));
        each(c, "PERSIST {}", &names("key:", n));
    }),
    case("RENAME", keys, |c, n| each(c, "RENAME {} other:{}", &names("key:", n))),
    case("SET of what SCAN shows, in another database", keys, |c, _| {
        let keys = c.scan("SCAN");
        c.call("SELECT 1");
        each(c, "SET {} v", &keys);
    }),
    case("SET of what SCAN shows, in another database, one slot", keys_of_a_slot, |c, _| {
        let keys = c.scan("SCAN");
        c.call("SELECT 1");
        each(c, "SET {} v", &keys);
    }),
    case("SET of what KEYS showed, after FLUSHDB, one slot", keys_of_a_slot, |c, _| {
        let keys = c.read("KEYS *");
        c.call("FLUSHDB");
        each(c, "SET {} v", &keys);
    }),
    case("DEL of what SCAN shows, SET of others, one slot", keys_of_a_slot, |c, n| {
        let keys = c.scan("SCAN");
        c.call_in_parts("DEL", &keys[..n * 9 / 10], 1);
        c.call_in_parts("MSET", &pairs("{t}other:", n), 2);
    }),
    case("COPY to another database in SCAN's order, one slot", keys_of_a_slot, |c, _| {
        let keys = c.scan("SCAN");
        each(c, "COPY {} {} DB 1", &keys);
    }),
    case("MOVE in SCAN's order, one slot", keys_of_a_slot, |c, _| {
        let keys = c.scan("SCAN");
        each(c, "MOVE {} 1", &keys);
    }),
    case("SADD of what SCAN shows, one slot", keys_of_a_slot, |c, _| {
        let keys = c.scan("SCAN");
        c.call_in_parts("SADD {t}", &keys, 1);
    }),
    case("KEYS", keys, |c, _| c.call("KEYS *")),
    case("SCAN", keys, |c, _| drop(c.scan("SCAN"))),
    case("SCAN of one slot", keys_of_a_slot, |c, _| drop(c.scan("SCAN"))),
    case("DBSIZE", keys, |c, _| calls(c, "DBSIZE")),
    case("INFO", keys_with_expiry, |c, _| calls(c, "INFO")),
    case("INFO everything", keys, |c, _| calls(c, "INFO everything")),
    case("RANDOMKEY", keys, |c, _| calls(c, "RANDOMKEY")),
    case("RANDOMKEY of one slot", keys_of_a_slot, |c, _| calls(c, "RANDOMKEY")),
    case("MEMORY STATS", keys, |c, _| calls(c, "MEMORY STATS")),
    case("FLUSHALL", keys, |c, _| c.call("FLUSHALL")),
    case("FLUSHDB ASYNC", keys_of_a_slot, |c, _| c.call("FLUSHDB ASYNC")),
    case("SWAPDB", keys, |c, _| c.call("SWAPDB 0 1")),
    case("SETNX, SETEX, PSETEX and GETSET", nothing, |c, n| {
        each(c, "SETNX {} v", &names("key:", n));
        each(c, "SETEX {} 10000 v", &names("key:", n));
        each(c, "PSETEX {} 10000000 v", &names("key:", n));
        each(c, "GETSET {} v", &names("key:", n));
    }),
    case("GETEX and GETDEL", keys, |c, n| {
        each(c, "GETEX {} EX 10000", &names("key:", n));
        each(c, "GETDEL {}", &names("key:", n));
    }),
    case("INCR, INCRBY, DECR, DECRBY and INCRBYFLOAT", nothing, |c, n| {
        for command in ["INCR {}", "INCRBY {} 5", "DECR {}", "DECRBY {} 5", "INCRBYFLOAT {} 1.5"] {
            each(c, command, &names("key:", n));
        }
    }),
    case("STRLEN, TYPE, TTL, PTTL, EXPIRETIME, PEXPIRETIME and OBJECT", keys_with_expiry, |c, n| {
        let readers = [
            "STRLEN {}",
            "TYPE {}",
            "TTL {}",
            "PTTL {}",
            "EXPIRETIME {}",
            "PEXPIRETIME {}",
            "OBJECT ENCODING {}",
        ];
        readers.iter().for_each(|command| each(c, command, &names("key:", n)));
    }),
    case("EXPIREAT, PEXPIRE and PEXPIREAT", keys, |c, n| {
        each(c, "EXPIREAT {} 99999999999", &names("key:", n));
        each(c, "PEXPIRE {} 99999999999", &names("key:", n));
        each(c, "PEXPIREAT {} 99999999999999", &names("key:", n));
    }),
    case("RENAMENX", keys, |c, n| each(c, "RENAMENX {} other:{}", &names("key:", n))),
    case("SUBSTR", keys, |c, n| each(c, "SUBSTR {} 0 2", &names("key:", n))),
    case("SORT", list, |c, _| c.call("SORT k ALPHA DESC LIMIT 5 10")),
    case("SORT with GET and STORE", integers, |c, _| c.call("SORT k GET # GET none* STORE d")),
    case(
        "SORT_RO by other keys",
        |c, n| {
            integers(c, n);
            c.call_in_parts(
                "MSET",
                &numbers(n).iter().flat_map(|i| [format!("w{i}"), i.clone()]).collect::<Vec<_>>(),
                2,
            );
        },
        |c, _| c.call("SORT_RO k BY w*"),
    ),
    case("MEMORY USAGE", set, |c, _| calls(c, "MEMORY USAGE k")),
    case("SAVE", keys, |c, _| c.call("SAVE")),
    // Bitmaps.
    case("SETBIT and GETBIT", nothing, |c, n| {
        each(c, "SETBIT k {} 1", &numbers(n));
        each(c, "GETBIT k {}", &numbers(n));
    }),
    case("BITCOUNT and BITPOS", bits, |c, _| {
        c.call("BITCOUNT k");
        c.call("BITCOUNT k 1 -2 BIT");
        c.call("BITPOS k 1");
    }),
    case("BITOP", bits, |c, _| {
        for operation in ["AND", "OR", "XOR"] {
            c.call(&format!("BITOP {operation} {{t}}d k k k"));
        }
        c.call("BITOP NOT {t}d k");
    }),
    case("BITFIELD and BITFIELD_RO", nothing, |c, n| {
        each(c, "BITFIELD k INCRBY u13 {} 7", &numbers(n));
        each(c, "BITFIELD_RO k GET i13 {}", &numbers(n));
    }),
    // HyperLogLogs.
    case("PFADD and PFCOUNT", nothing, |c, n| {
        c.call_with("PFADD k", &names("member:", n));
        each(c, "PFADD k {}", &names("other:", n));
        calls(c, "PFCOUNT k");
    }),
    case("PFMERGE", nothing, |c, n| {
        c.call_with("PFADD k", &names("member:", n));
        c.call_with("PFMERGE {t}d", &vec!["{t}k"; n / 100]);
        c.call_with("PFCOUNT", &vec!["k"; n / 100]);
    }),
    // Places.
    case("GEOADD, GEOPOS, GEOHASH and GEODIST", nothing, |c, n| {
        c.call_in_parts("GEOADD k", &placed(n), 3);
        each(c, "GEOPOS k {}", &names("place:", n));
        each(c, "GEOHASH k {}", &names("place:", n));
        each(c, "GEODIST k {} place:0000000", &names("place:", n));
    }),
    case("GEOSEARCH and GEOSEARCHSTORE", places, |c, _| {
        c.call("GEOSEARCH k FROMLONLAT 5 5 BYRADIUS 3000 km ASC WITHDIST");
        c.call("GEOSEARCH k FROMLONLAT 5 5 BYBOX 3000 3000 km COUNT 10");
        c.call("GEOSEARCHSTORE d k FROMLONLAT 5 5 BYRADIUS 3000 km");
    }),
    case("GEORADIUS, GEORADIUS_RO, GEORADIUSBYMEMBER and GEORADIUSBYMEMBER_RO", places, |c, _| {
        c.call("GEORADIUS k 5 5 3000 km");
        c.call("GEORADIUS_RO k 5 5 3000 km DESC");
        c.call("GEORADIUSBYMEMBER k place:0000000 3000 km STORE d");
        c.call("GEORADIUSBYMEMBER_RO k place:0000000 3000 km COUNT 5 ANY");
    }),
    // Streams.
    case("XADD", nothing, |c, n| each(c, "XADD k {} field value", &ids(n))),
    case("XADD that trims", nothing, |c, n| each(c, "XADD k MAXLEN ~ 1000 {} field value", &ids(n))),
    case("XRANGE, XREVRANGE and XREAD", stream, |c, _| {
        c.call("XRANGE k - +");
        c.call("XREVRANGE k + -");
        c.call("XREAD STREAMS k 0");
    }),
    case("XRANGE and XREVRANGE in the middle", stream, |c, n| {
        calls(c, &format!("XRANGE k {} + COUNT 5", n / 2));
        calls(c, &format!("XREVRANGE k {} - COUNT 5", n / 2));
    }),
    case("XDEL", stream, |c, n| each(c, "XDEL k {}", &ids(n))),
    case("XTRIM and XLEN", stream, |c, n| {
        c.call(&format!("XTRIM k MAXLEN {}", n / 2));
        calls(c, "XLEN k");
    }),
    case("XSETID and XINFO", stream, |c, n| {
        calls(c, &format!("XSETID k {n}-1"));
        calls(c, "XINFO STREAM k");
    }),
    case("XREADGROUP and XACK", stream, |c, n| {
        c.call("XGROUP CREATE k g 0");
        c.call("XREADGROUP GROUP g alice STREAMS k >");
        c.call("XREADGROUP GROUP g alice STREAMS k 0");
        each(c, "XACK k g {}", &ids(n));
    }),
    case("XGROUP with many groups and consumers", nothing, |c, n| {
        each(c, "XGROUP CREATE k {} 0 MKSTREAM", &names("group:", n / 10));
        each(c, "XGROUP CREATECONSUMER k group:0000000 {}", &names("consumer:", n / 10));
        each(c, "XGROUP DELCONSUMER k group:0000000 {}", &names("consumer:", n / 10));
        each(c, "XGROUP DESTROY k {}", &names("group:", n / 10));
    }),
    case("XPENDING", read_stream, |c, n| {
        calls(c, "XPENDING k g");
        calls(c, &format!("XPENDING k g {} + 5", n / 2));
    }),
    case("XCLAIM", read_stream, |c, n| each(c, "XCLAIM k g bob 0 {}", &ids(n))),
    case("XAUTOCLAIM", read_stream, |c, n| c.call(&format!("XAUTOCLAIM k g bob 0 0 COUNT {n} JUSTID"))),
    case("COPY of a stream", read_stream, |c, _| c.call("COPY k copy")),
    case("DUMP and RESTORE of a stream", read_stream, |c, _| restore(c)),
    // Transactions.
    case("WATCH and UNWATCH", keys, |c, n| {
        c.call_with("WATCH", &names("key:", n));
        c.call("UNWATCH");
    }),
    case("WATCH, one by one, and EXEC", nothing, |c, n| {
        each(c, "WATCH {}", &names("key:", n));
        ["MULTI", "SET k v", "EXEC"].iter().for_each(|command| c.call(command));
    }),
    case("SET of keys that are watched, one slot", nothing, |c, n| {
        let keys = names("{t}key:", n);
        c.other().call_with("WATCH", &keys);
        each(c, "SET {} v", &keys);
    }),
    case("WATCH of one key by many clients", nothing, |c, n| {
        (0..clients_for(n)).for_each(|_| c.other().call("WATCH k"));
        c.call("SET k v");
    }),
    case("MULTI with many commands", nothing, |c, n| {
        c.call("MULTI");
        each(c, "SET {} v", &names("key:", n));
        c.call("EXEC");
    }),
    case("MULTI with many commands, DISCARD", nothing, |c, n| {
        c.call("MULTI");
        each(c, "SET {} v", &names("key:", n));
        c.call("DISCARD");
    }),
    case("MULTI with many commands on a slot", nothing, |c, n| {
        c.call("MULTI");
        each(c, "RPUSH {t}list {}", &names("element:", n));
        c.call("EXEC");
    }),
    // Publish and subscribe.
    case("SUBSCRIBE and UNSUBSCRIBE", nothing, |c, n| {
        let names = names("channel:", n);
        let other = c.other();
        subscribe(other, "SUBSCRIBE", &names);
        subscribe(other, "UNSUBSCRIBE", &names);
    }),
    case("SUBSCRIBE, one by one, and the end of the client", nothing, |c, n| {
        let other = c.other();
        names("channel:", n).iter().for_each(|name| other.queue(&format!("SUBSCRIBE {name}")));
        other.finish();
        other.call("QUIT");
    }),
    case("PSUBSCRIBE and PUNSUBSCRIBE", nothing, |c, n| {
        let names = names("pattern:*:", n);
        let other = c.other();
        subscribe(other, "PSUBSCRIBE", &names);
        subscribe(other, "PUNSUBSCRIBE", &names);
    }),
    case("SSUBSCRIBE and SUNSUBSCRIBE", nothing, |c, n| {
        let (names, other) = (names("channel:", n), c.other());
        subscribe(other, "SSUBSCRIBE", &names);
        subscribe(other, "SUNSUBSCRIBE", &names);
    }),
    case(
        "SPUBLISH past many channels",
        |c, n| subscribe(c.other(), "SSUBSCRIBE", &names("channel:", n)),
        |c, _| calls(c, "SPUBLISH channel message"),
    ),
    case(
        "PUBLISH past many patterns",
        |c, n| subscribe(c.other(), "PSUBSCRIBE", &names("pattern:*:", n)),
        |c, _| {
            (0..10).for_each(|_| c.call("PUBLISH channel message"));
        },
    ),
    case(
        "PUBLISH past many channels",
        |c, n| subscribe(c.other(), "SUBSCRIBE", &names("channel:", n)),
        |c, _| {
            calls(c, "PUBLISH channel message");
        },
    ),
    case(
        "PUBSUB CHANNELS and NUMSUB",
        |c, n| subscribe(c.other(), "SUBSCRIBE", &names("channel:", n)),
        |c, n| {
            c.call("PUBSUB CHANNELS");
            c.call_with("PUBSUB NUMSUB", &names("channel:", n));
        },
    ),
    // Scripts.
    case("EVAL that counts", nothing, |c, n| {
        let script = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i end return n";
        c.call_with("EVAL", &[script, "0", &n.to_string()]);
    }),
    // Clients.
    case(
        "CLIENT LIST",
        |c, n| (0..clients_for(n)).for_each(|_| c.other().call("PING")),
        |c, _| {
            (0..10).for_each(|_| c.call("CLIENT LIST"));
        },
    ),
    case(
        "INFO with many clients",
        |c, n| (0..clients_for(n)).for_each(|_| c.other().call("PING")),
        |c, _| {
            calls(c, "INFO clients");
        },
    ),
    case("connections that come and go", nothing, |c, n| {
        (0..clients_for(n)).for_each(|_| c.other().call("PING"));
    }),
];

/// As many as a process may have beside others.
fn clients_for(len: usize) -> usize {
    (len / 50).min(4_000)
}

/// Commands without a case: what they cost does not grow, or they do the same as others that have one.
pub const WITHOUT_CASE: &[&str] = &[
    "acl",
    "asking",
    "auth",
    "bgrewriteaof",
    "bgsave",
    "blmove",
    "blmpop",
    "brpoplpush",
    "bzmpop",
    "cluster",
    "clusterscan",
    "command",
    "commandlog",
    "config",
    "debug",
    "delex",
    "delifeq",
    "digest",
    "echo",
    "eval_ro",
    "evalsha",
    "evalsha_ro",
    "fcall",
    "fcall_ro",
    "function",
    "hello",
    "lastsave",
    "latency",
    "lolwut",
    "module",
    "monitor",
    "msetex",
    "pfdebug",
    "pfselftest",
    "ping",
    "quit",
    "readonly",
    "readwrite",
    "replconf",
    "reset",
    "restore-asking",
    "role",
    "script",
    "select",
    "shutdown",
    "slowlog",
    "sync",
    "time",
    "wait",
    "waitaof",
    "xackdel",
    "xcfgset",
    "xdelex",
];
