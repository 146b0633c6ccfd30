//! What keys and elements take in memory, in Keyward and in the real Valkey: the differences of `used_memory` and of
//! the resident set between an empty server and a filled one. Each measurement has two fresh processes.

use std::fmt::Write;

use crate::processes::Server;
use crate::programs;
use crate::resp_client::Connection;

/// What to fill a server with.
struct Shape {
    label: &'static str,
    /// What a figure is divided by.
    unit: &'static str,
    /// Part of the asked number of keys: large keys need not be so many.
    share: usize,
    /// The command that makes the `i`th key (or adds the `i`th element).
    command: fn(usize) -> Vec<Vec<u8>>,
}

fn text(words: std::fmt::Arguments<'_>) -> Vec<Vec<u8>> {
    words.to_string().split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// 16 bytes.
fn key(i: usize) -> String {
    format!("key:{i:012}")
}

fn with_elements(command: &str, i: usize, element: impl Fn(usize) -> String) -> Vec<Vec<u8>> {
    let elements: Vec<String> = (0..10).map(element).collect();
    text(format_args!("{command} {} {}", key(i), elements.join(" ")))
}

const SHAPES: &[Shape] = &[
    Shape {
        label: "string, 16-byte key, 16-byte value",
        unit: "key",
        share: 1,
        command: |i| text(format_args!("SET {} {i:x>16}", key(i))),
    },
    Shape {
        label: "string, 16-byte key, 64-byte value",
        unit: "key",
        share: 1,
        command: |i| text(format_args!("SET {} {i:x>64}", key(i))),
    },
    Shape {
        label: "string, 16-byte key, 16-byte value, TTL",
        unit: "key",
        share: 1,
        command: |i| text(format_args!("SET {} {i:x>16} EX 100000", key(i))),
    },
    Shape {
        label: "counter, 16-byte key",
        unit: "key",
        share: 1,
        command: |i| text(format_args!("SET {} {i}", key(i))),
    },
    Shape {
        label: "hash of 10 fields",
        unit: "key",
        share: 4,
        command: |i| with_elements("HSET", i, |e| format!("field{e} value{:05}", i % 10_000 + e)),
    },
    Shape {
        label: "sorted set of 10 members",
        unit: "key",
        share: 4,
        command: |i| with_elements("ZADD", i, |e| format!("{} member:{:05}", e * 100, i % 10_000 + e)),
    },
    Shape {
        label: "list of 10 elements",
        unit: "key",
        share: 4,
        command: |i| with_elements("RPUSH", i, |e| format!("elem:{:05}", i % 10_000 + e)),
    },
    Shape {
        label: "set of 10 integers",
        unit: "key",
        share: 4,
        command: |i| with_elements("SADD", i, |e| (i % 10_000 * 7 + e * 1000).to_string()),
    },
    Shape {
        label: "set of 10 strings",
        unit: "key",
        share: 4,
        command: |i| with_elements("SADD", i, |e| format!("member:{:05}", i % 10_000 + e)),
    },
    Shape {
        label: "large hash, 12-byte fields, 10-byte values",
        unit: "field",
        share: 1,
        command: |i| text(format_args!("HSET hash field:{i:06} {i:x>10}")),
    },
    Shape {
        label: "large hash, 16-byte fields, 16-byte values",
        unit: "field",
        share: 1,
        command: |i| text(format_args!("HSET hash {} {i:x>16}", key(i))),
    },
    Shape {
        label: "large sorted set, 14-byte members, in order",
        unit: "member",
        share: 1,
        command: |i| text(format_args!("ZADD zset {i} member:{i:07}")),
    },
    Shape {
        label: "large sorted set, 16-byte members, random scores",
        unit: "member",
        share: 1,
        command: |i| {
            let score = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            text(format_args!("ZADD zset {score} {}", key(i)))
        },
    },
    Shape {
        label: "large set, 16-byte members",
        unit: "member",
        share: 1,
        command: |i| text(format_args!("SADD set {}", key(i))),
    },
    Shape {
        label: "large list, 16-byte elements",
        unit: "element",
        share: 1,
        command: |i| text(format_args!("RPUSH list {}", key(i))),
    },
    Shape {
        label: "stream of 1,000 entries with two fields",
        unit: "entry",
        share: 1,
        command: |i| {
            text(format_args!("XADD stream:{:09} {}-0 temp 20.{} hum 6{}", i / 1000, i + 1, i % 10, i % 7))
        },
    },
    Shape {
        label: "large stream, two fields",
        unit: "entry",
        share: 1,
        command: |i| text(format_args!("XADD stream {}-0 temp 20.{} hum 6{}", i + 1, i % 10, i % 7)),
    },
    Shape {
        label: "large stream, 64-byte value",
        unit: "entry",
        share: 1,
        command: |i| text(format_args!("XADD stream {}-0 message {i:x>64}", 1_700_000_000_000 + i * 3)),
    },
    Shape {
        label: "hash of 10 fields with times",
        unit: "key",
        share: 4,
        command: |i| {
            let fields: Vec<String> =
                (0..10).map(|e| format!("field{e} value{:05}", i % 10_000 + e)).collect();
            text(format_args!("HSETEX {} EX 100000 FIELDS 10 {}", key(i), fields.join(" ")))
        },
    },
    Shape {
        label: "hash of 1,000 fields with times",
        unit: "field",
        share: 1,
        command: |i| {
            let time = 100_000 + i * 7 % 3600;
            text(format_args!(
                "HSETEX hash:{:09} EX {time} FIELDS 1 field:{:06} {i:x>16}",
                i / 1000,
                i % 1000
            ))
        },
    },
    Shape {
        label: "large hash, times within an hour",
        unit: "field",
        share: 1,
        command: |i| {
            let time = 100_000 + i * 7 % 3600;
            text(format_args!("HSETEX hash EX {time} FIELDS 1 field:{i:06} {i:x>16}"))
        },
    },
    Shape {
        label: "HyperLogLog of 100 elements",
        unit: "key",
        share: 20,
        command: |i| {
            let elements: Vec<String> = (0..100).map(|e| format!("element:{}", i * 100 + e)).collect();
            text(format_args!("PFADD {} {}", key(i), elements.join(" ")))
        },
    },
    Shape {
        label: "HyperLogLog of 5,000 elements",
        unit: "key",
        share: 1000,
        command: |i| {
            let elements: Vec<String> = (0..5000).map(|e| format!("element:{}", i * 5000 + e)).collect();
            text(format_args!("PFADD {} {}", key(i), elements.join(" ")))
        },
    },
    Shape {
        label: "bitmap of 8,000 bits",
        unit: "key",
        share: 10,
        command: |i| text(format_args!("SETBIT {} 7999 1", key(i))),
    },
    Shape {
        label: "large list of integers",
        unit: "element",
        share: 1,
        command: |i| text(format_args!("RPUSH list {i}")),
    },
];

/// Bytes for each key or element.
#[derive(Debug, Clone, Copy)]
struct Figures {
    used: f64,
    resident: f64,
}

/// A Markdown table, made with `count` keys or elements of each shape (large keys: a part of that); only those whose
/// label contains `only`.
pub fn table(count: usize, only: &str) -> Result<String, String> {
    let valkey_dir = programs::valkey()?;
    let mut table = format!(
        "Bytes per key or element of {count} ({} keys of collections).\n\n\
         | | Keyward used_memory | Valkey used_memory | Keyward RSS | Valkey RSS |\n|---|---|---|---|---|\n",
        count / 4
    );
    for shape in SHAPES.iter().filter(|shape| shape.label.contains(only)) {
        let ours = measure(&Server::keyward(&["--io-threads", "2"])?, shape, count)?;
        let theirs = measure(&Server::valkey(&valkey_dir, &[])?, shape, count)?;
        let Shape { label, unit, .. } = shape;
        writeln!(
            table,
            "| {label} (per {unit}) | {:.1} | {:.1} | {:.1} | {:.1} |",
            ours.used, theirs.used, ours.resident, theirs.resident
        )
        .map_err(|error| error.to_string())?;
    }
    Ok(table)
}

fn measure(server: &Server, shape: &Shape, count: usize) -> Result<Figures, String> {
    let count = count / shape.share;
    let mut connection = Connection::connect(&server.addr()).map_err(|error| error.to_string())?;
    let before = memory(&mut connection)?;
    connection.fill(count, shape.command)?;
    let after = memory(&mut connection)?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    Ok(Figures { used: each(before.0, after.0), resident: each(before.1, after.1) })
}

/// `used_memory` and `used_memory_rss`.
fn memory(connection: &mut Connection) -> Result<(u64, u64), String> {
    let info = connection.call(&["INFO", "memory"]).map_err(|error| error.to_string())?.string();
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = value.and_then(|value| value.trim().parse().ok());
        number.ok_or_else(|| format!("INFO memory has no {name}"))
    };
    Ok((field("used_memory")?, field("used_memory_rss")?))
}
