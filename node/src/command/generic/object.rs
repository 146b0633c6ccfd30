//! OBJECT: how a value is represented.
//!
//! Values have representations of their own here; OBJECT ENCODING names the one that Valkey would choose for a value
//! of this size, with Valkey's limits. Differs from Valkey: a collection that has shrunk gets its compact name back.

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;

use crate::command::{CommandError, CommandResult, Ctx, Outcome};
use crate::keyspace::entry::{Entry, ValueRef};
use crate::server::Server;

const HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Print this help.",
];

/// `OBJECT HELP`
pub(in crate::command) fn object_help(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    ctx.out.array(HELP.len());
    HELP.iter().for_each(|line| ctx.out.simple(line));
    Ok(Outcome::Reply)
}

/// `OBJECT REFCOUNT key`
pub(in crate::command) fn object_refcount(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.get(args.at(2)) {
        Some(_) => ctx.out.integer(1),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `OBJECT IDLETIME key`
pub(in crate::command) fn object_idletime(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    let clock = ctx.keys.access;
    match ctx.keys.get(args.at(2)) {
        Some(entry) => ctx.out.integer(i64::from(clock.wrapping_sub(entry.access()) & 0xff_ffff)),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `OBJECT FREQ key`: access frequencies are not tracked.
pub(in crate::command) fn object_freq(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    if ctx.keys.get(args.at(2)).is_some() {
        return Err(CommandError::err(
            "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.out.null();
    Ok(Outcome::Reply)
}

/// `OBJECT ENCODING key`
pub(in crate::command) fn object_encoding(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.get(args.at(2)) {
        Some(entry) => ctx.out.bulk_str(encoding(entry, ctx.server)),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

fn encoding(entry: &Entry, server: &Server) -> &'static str {
    let limit =
        |name: &str| server.with_config(|config| config.text(name).parse::<usize>()).unwrap_or(usize::MAX);
    match entry.value() {
        ValueRef::String(value) => string_encoding(entry, value),
        ValueRef::List(list) => {
            let fill = server.with_config(|config| config.text("list-max-listpack-size").parse());
            let bytes = list.iter().map(listpack_element_len);
            if fits_one_listpack(bytes, list.len(), fill.unwrap_or(-2)) { "listpack" } else { "quicklist" }
        }
        ValueRef::Set(set) => {
            if set.len() <= limit("set-max-intset-entries") && set.iter().all(|m| parse_i64(m).is_some()) {
                return "intset";
            }
            let longest = limit("set-max-listpack-value");
            let compact =
                set.len() <= limit("set-max-listpack-entries") && set.iter().all(|m| m.len() <= longest);
            if compact { "listpack" } else { "hashtable" }
        }
        ValueRef::Hash(hash) => {
            let longest = limit("hash-max-listpack-value");
            let compact = hash.len() <= limit("hash-max-listpack-entries")
                && hash.iter().all(|(name, value)| name.len() <= longest && value.len() <= longest);
            if compact { "listpack" } else { "hashtable" }
        }
        ValueRef::SortedSet(set) => {
            let longest = limit("zset-max-listpack-value");
            let compact = !set.has_shrunk()
                && set.len() <= limit("zset-max-listpack-entries")
                && set.iter().all(|(m, _)| m.len() <= longest);
            if compact { "listpack" } else { "skiplist" }
        }
    }
}

/// An integer; or a string that shares one allocation of at most 128 bytes with its key; or a buffer of its own.
fn string_encoding(entry: &Entry, value: &[u8]) -> &'static str {
    /// What of the 128 bytes is left for key, value and expiry.
    const EMBEDDED_LEN_MAX: usize = 113;
    if entry.is_raw() {
        return "raw";
    }
    if parse_i64(value).is_some() {
        return "int";
    }
    let key_len = entry.key().len();
    let key_header = if key_len < 32 { 0 } else { 2 };
    let expiry = if entry.expire_at().is_some() { 8 } else { 0 };
    if key_len + key_header + expiry + value.len() <= EMBEDDED_LEN_MAX { "embstr" } else { "raw" }
}

/// Bytes that an element takes in a listpack.
fn listpack_element_len(element: &[u8]) -> usize {
    let len = match parse_i64(element) {
        Some(0..=127) => 1,
        Some(-4096..=4095) => 2,
        Some(-32_768..=32_767) => 3,
        Some(-8_388_608..=8_388_607) => 4,
        Some(-2_147_483_648..=2_147_483_647) => 5,
        Some(_) => 9,
        None => {
            let header = match element.len() {
                ..64 => 1,
                64..4096 => 2,
                _ => 5,
            };
            header + element.len()
        }
    };
    // The length once more, for walking backwards, seven bits to a byte.
    let back = match len {
        ..128 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    len + back
}

/// `fill` as in `list-max-listpack-size`: a number of elements, or a class of sizes if negative.
fn fits_one_listpack(elements: impl Iterator<Item = usize>, len: usize, fill: i64) -> bool {
    const HEADER_LEN: usize = 7;
    const SAFE_LEN_MAX: usize = 8192;
    let (len_max, bytes_max) = match fill {
        0.. => (usize::try_from(fill).unwrap_or(usize::MAX).max(1), SAFE_LEN_MAX),
        -4..0 => (usize::MAX, 2048 << fill.unsigned_abs()),
        _ => (usize::MAX, 65_536),
    };
    let mut bytes = HEADER_LEN;
    len <= len_max
        && elements.into_iter().all(|element| {
            bytes += element;
            bytes <= bytes_max
        })
}
