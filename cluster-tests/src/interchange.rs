//! Generated data of every type and encoding, and whole keyspaces to compare after it went from one server to another.
#![allow(clippy::disallowed_methods, reason = "a shell: reads the clock")]

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::resp_client::{Connection, Frame};

/// Databases that the data is spread over.
const DATABASES: u32 = 3;
/// Commands sent before their replies are read.
const PIPELINE: usize = 200;

/// A key as a client sees it: type, encoding, expiry, content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub type_name: String,
    pub encoding: String,
    /// Milliseconds since the Unix epoch, -1 for none.
    pub expires_at: i64,
    pub content: Vec<Vec<u8>>,
}

/// Keys by database and name.
pub type Keyspace = BTreeMap<(u32, Vec<u8>), Key>;

type Command = Vec<Vec<u8>>;

/// A string of one of the kinds that encodings treat differently.
fn element(rng: &mut SmallRng, kind: u32, index: usize) -> Vec<u8> {
    match kind {
        // Small integers, integers of every width, integers beyond 64 bits and near misses.
        0 => format!("{}", index as i64 - 50).into_bytes(),
        1 => {
            let shift = rng.random_range(0..64);
            format!("{}", rng.random::<i64>() >> shift).into_bytes()
        }
        2 => format!("0{index}").into_bytes(),
        3 => format!("{index}.5e3").into_bytes(),
        4 => format!("member:{index}").into_bytes(),
        5 => {
            let len = rng.random_range(0..40);
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            bytes.extend_from_slice(&index.to_le_bytes());
            bytes
        }
        6 => format!("{index} {}", "compressible ".repeat(rng.random_range(1..60))).into_bytes(),
        _ => {
            let len = rng.random_range(60..400);
            let mut bytes = format!("{index}:").into_bytes();
            bytes.extend((0..len).map(|_| rng.random::<u8>()));
            bytes
        }
    }
}

/// Sizes around the limits of the compact encodings.
const SIZES: [usize; 9] = [1, 2, 10, 100, 128, 129, 512, 513, 1500];

/// The commands that fill a server, the same for each seed but for the points in time.
pub fn commands(seed: u64) -> Vec<Command> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis();
    let mut commands = Vec::new();
    let word = |text: &str| text.as_bytes().to_vec();
    for db in 0..DATABASES {
        commands.push(vec![word("SELECT"), word(&db.to_string())]);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for i in 0..120 {
            let kind = rng.random_range(0..8);
            keys.push([b"string:", &*element(&mut rng, kind, i)].concat());
            let kind = rng.random_range(0..8);
            let value = element(&mut rng, kind, i);
            commands.push(vec![word("SET"), keys[keys.len() - 1].clone(), value]);
        }
        for kind in 0..8 {
            for size in SIZES {
                if kind > 5 && size > 200 {
                    continue;
                }
                for type_name in ["list", "set", "hash", "zset"] {
                    let key = format!("{type_name}:{kind}:{size}").into_bytes();
                    commands.extend(collection(&mut rng, type_name, &key, kind, size));
                    keys.push(key);
                }
            }
        }
        for (i, key) in keys.into_iter().enumerate().filter(|(i, _)| i % 4 == 0) {
            let at = now + 3_600_000 + (i as u128) * 1_234;
            commands.push(vec![word("PEXPIREAT"), key, word(&at.to_string())]);
        }
    }
    commands
}

/// The commands that make hashes of which fields expire, far from now: small and large ones, some with a time for every
/// field. Redis knows none of them.
pub fn volatile_hashes() -> Vec<Command> {
    let mut commands = Vec::new();
    for size in SIZES {
        let fields: Vec<String> = (0..size).map(|i| format!("field:{i}")).collect();
        let key = format!("volatile:{size}").into_bytes();
        for (i, piece) in fields.chunks(50).enumerate() {
            let mut command = words("HSET", &key, &[]);
            command.extend(
                piece.iter().flat_map(|field| [field.clone().into_bytes(), format!("v{i}").into_bytes()]),
            );
            commands.push(command);
            // Of some pieces no field has a time, of others each has.
            let time = (9_000_000_000_000 + i as u64 * 7919 % 40 * 1_000_003).to_string();
            let timed = if i % 3 == 2 { &piece[..1] } else { piece };
            let mut command = words("HPEXPIREAT", &key, &[&time, "FIELDS", &timed.len().to_string()]);
            command.extend(timed.iter().map(|field| field.clone().into_bytes()));
            commands.push(command);
        }
        commands.push(words("HPERSIST", &key, &["FIELDS", "1", &fields[size / 2]]));
    }
    commands.push(words("HSETEX", b"forever", &["PXAT", "9223372036854775807", "FIELDS", "1", "f", "v"]));
    commands
}

/// What hashes of the first database hold: key, field, value and its time, -1 for none.
pub fn fields(connection: &mut Connection) -> Result<Vec<(String, String, String, i64)>, String> {
    let mut fields = Vec::new();
    for key in names(connection, 0)? {
        let all = run(connection, &[words("HGETALL", &key, &[])])?.remove(0);
        let texts: Vec<String> = all.items.iter().map(Frame::string).collect();
        for pair in texts.chunks_exact(2) {
            let command = words("HPEXPIRETIME", &key, &["FIELDS", "1", &pair[0]]);
            let time = run(connection, &[command])?.remove(0).items.remove(0).integer();
            let key = String::from_utf8_lossy(&key).into_owned();
            fields.push((key, pair[0].clone(), pair[1].clone(), time.unwrap_or(i64::MIN)));
        }
    }
    fields.sort();
    Ok(fields)
}

fn collection(rng: &mut SmallRng, type_name: &str, key: &[u8], kind: u32, size: usize) -> Vec<Command> {
    let name = match type_name {
        "list" => "RPUSH",
        "set" => "SADD",
        "hash" => "HSET",
        _ => "ZADD",
    };
    let scores = ["0", "-1.5", "inf", "-inf", "1e300", "3", "0.1", "-0", "1000000"];
    let mut commands = Vec::new();
    let elements: Vec<usize> = (0..size).collect();
    for piece in elements.chunks(100) {
        let mut command = vec![name.as_bytes().to_vec(), key.to_vec()];
        for index in piece {
            let text = element(rng, kind, *index);
            match type_name {
                "hash" => {
                    let value_kind = rng.random_range(0..6);
                    let value = element(rng, value_kind, *index);
                    command.extend([text, value]);
                }
                "zset" => {
                    let score = scores[rng.random_range(0..scores.len())];
                    command.extend([score.as_bytes().to_vec(), text]);
                }
                _ => command.push(text),
            }
        }
        commands.push(command);
    }
    commands
}

/// Sends commands, which all must succeed.
pub fn run(connection: &mut Connection, commands: &[Command]) -> Result<Vec<Frame>, String> {
    let mut replies = Vec::with_capacity(commands.len());
    for piece in commands.chunks(PIPELINE) {
        piece.iter().for_each(|command| connection.send(command));
        for command in piece {
            let reply = connection.reply().map_err(|e| e.to_string())?;
            if reply.is_error() {
                let name = command.iter().take(2).map(|w| w.escape_ascii().to_string());
                return Err(format!("{}: {reply}", name.collect::<Vec<_>>().join(" ")));
            }
            replies.push(reply);
        }
    }
    Ok(replies)
}

/// All names of keys of a database.
fn names(connection: &mut Connection, db: u32) -> Result<Vec<Vec<u8>>, String> {
    let commands =
        [vec![b"SELECT".to_vec(), db.to_string().into_bytes()], vec![b"KEYS".to_vec(), b"*".to_vec()]];
    let replies = run(connection, &commands)?;
    Ok(replies[1].items.iter().map(|name| name.text().to_vec()).collect())
}

/// Runs one command, made from the key's name, for each of the keys.
fn for_each(
    connection: &mut Connection,
    names: &[Vec<u8>],
    command: impl Fn(usize, &[u8]) -> Command,
) -> Result<Vec<Frame>, String> {
    let commands: Vec<Command> = names.iter().enumerate().map(|(i, name)| command(i, name)).collect();
    run(connection, &commands)
}

fn words(name: &str, key: &[u8], rest: &[&str]) -> Command {
    let first = name.split(' ').map(|w| w.as_bytes().to_vec());
    first.chain([key.to_vec()]).chain(rest.iter().map(|w| w.as_bytes().to_vec())).collect()
}

/// Reads everything that a server holds.
pub fn keyspace(connection: &mut Connection) -> Result<Keyspace, String> {
    let mut keyspace = Keyspace::new();
    for db in 0..DATABASES {
        let names = names(connection, db)?;
        let types = for_each(connection, &names, |_, key| words("TYPE", key, &[]))?;
        let encodings = for_each(connection, &names, |_, key| words("OBJECT ENCODING", key, &[]))?;
        let expiries = for_each(connection, &names, |_, key| words("PEXPIRETIME", key, &[]))?;
        let contents = for_each(connection, &names, |i, key| match &*types[i].string() {
            "list" => words("LRANGE", key, &["0", "-1"]),
            "set" => words("SMEMBERS", key, &[]),
            "hash" => words("HGETALL", key, &[]),
            "zset" => words("ZRANGE", key, &["0", "-1", "WITHSCORES"]),
            _ => words("GET", key, &[]),
        })?;
        for (i, name) in names.into_iter().enumerate() {
            let type_name = types[i].string();
            let content = in_order(&type_name, &contents[i]);
            let expires_at = expiries[i].integer().unwrap_or(i64::MIN);
            let key = Key { type_name, encoding: encodings[i].string(), expires_at, content };
            keyspace.insert((db, name), key);
        }
    }
    Ok(keyspace)
}

/// Sets and hashes have no order of their own, and Redis 7.0 writes scores with more digits.
fn in_order(type_name: &str, content: &Frame) -> Vec<Vec<u8>> {
    if content.items.is_empty() {
        return vec![content.text().to_vec()];
    }
    let mut items: Vec<Vec<u8>> = content.items.iter().map(|item| item.text().to_vec()).collect();
    match type_name {
        "set" => items.sort(),
        "hash" => {
            let mut pairs: Vec<Vec<Vec<u8>>> = items.chunks(2).map(<[Vec<u8>]>::to_vec).collect();
            pairs.sort();
            items = pairs.into_iter().flatten().collect();
        }
        "zset" => {
            for score in items.iter_mut().skip(1).step_by(2) {
                let number: Option<f64> = std::str::from_utf8(score).ok().and_then(|text| text.parse().ok());
                *score = format!("{number:?}").into_bytes();
            }
        }
        _ => {}
    }
    items
}

/// Whether encodings are compared, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encodings {
    Compared,
    Ignored,
}

/// What differs between two keyspaces, in a few lines.
pub fn differences(expected: &Keyspace, found: &Keyspace, encodings: Encodings) -> Vec<String> {
    let mut lines = Vec::new();
    let name = |(db, key): &(u32, Vec<u8>)| format!("{db}:{}", key.escape_ascii());
    for (at, key) in expected {
        match found.get(at) {
            None => lines.push(format!("{} is missing", name(at))),
            Some(other) if other.type_name != key.type_name || other.expires_at != key.expires_at => {
                let describe = |k: &Key| format!("{} until {}", k.type_name, k.expires_at);
                lines.push(format!("{}: {} became {}", name(at), describe(key), describe(other)));
            }
            Some(other) if other.content != key.content => {
                let at_first = key.content.iter().zip(&other.content).position(|(a, b)| a != b);
                let lens = (key.content.len(), other.content.len());
                lines.push(format!("{}: contents of {lens:?} differ at {at_first:?}", name(at)));
            }
            Some(other) if encodings == Encodings::Compared && other.encoding != key.encoding => {
                lines.push(format!("{}: {} became {}", name(at), key.encoding, other.encoding));
            }
            Some(_) => {}
        }
    }
    lines.extend(
        found.keys().filter(|at| !expected.contains_key(*at)).map(|at| format!("{} is new", name(at))),
    );
    lines
}

/// Copies every key by DUMP there and RESTORE here.
pub fn copy_by_dump(from: &mut Connection, to: &mut Connection) -> Result<(), String> {
    for db in 0..DATABASES {
        let names = names(from, db)?;
        let dumps = for_each(from, &names, |_, key| words("DUMP", key, &[]))?;
        let expiries = for_each(from, &names, |_, key| words("PEXPIRETIME", key, &[]))?;
        run(to, &[words("SELECT", db.to_string().as_bytes(), &[])])?;
        for_each(to, &names, |i, key| {
            let ttl = expiries[i].integer().unwrap_or(0).max(0).to_string();
            let mut command = words("RESTORE", key, &[&ttl]);
            command.extend([dumps[i].text().to_vec(), b"ABSTTL".to_vec()]);
            command
        })?;
    }
    Ok(())
}
