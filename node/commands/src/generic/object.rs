//! OBJECT: how a value is represented.
//!
//! OBJECT ENCODING uses Valkey's names also where something else serves in the same place: `skiplist` is a tree.

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;

use crate::spec::{LOADING, RO, STALE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, container, plain, read};
use keyward_store::entry::{Entry, ValueRef};
use keyward_store::types::Collection;

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

/// `OBJECT subcommand`
pub(super) const OBJECT: DataCommand = container("object", 0, "2.2.3");

/// `OBJECT HELP`
pub(super) const OBJECT_HELP: DataCommand = plain("object|help", object_help, 2, LOADING | STALE, "6.2.0");
fn object_help(ctx: &mut DataContext<'_, '_>, _args: Args<'_>) -> CommandResult {
    ctx.out.array(HELP.len());
    HELP.iter().for_each(|line| ctx.out.simple(line));
    Ok(Outcome::Reply)
}

/// `OBJECT REFCOUNT key`
pub(super) const OBJECT_REFCOUNT: DataCommand =
    read("object|refcount", object_refcount, 3, 0, "2.2.3").key(2, RO).tips(&["nondeterministic_output"]);
fn object_refcount(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.get(args.at(2)) {
        Some(_) => ctx.out.integer(1),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `OBJECT IDLETIME key`
pub(super) const OBJECT_IDLETIME: DataCommand =
    read("object|idletime", object_idletime, 3, 0, "2.2.3").key(2, RO).tips(&["nondeterministic_output"]);
fn object_idletime(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let clock = ctx.keys.access_clock();
    match ctx.keys.get(args.at(2)) {
        Some(_) if clock.is_lfu() => {
            return Err(CommandError::err(
                "An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                 between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(entry) => ctx.out.integer(i64::from(clock.idle_seconds(entry.access()))),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `OBJECT FREQ key`
pub(super) const OBJECT_FREQ: DataCommand =
    read("object|freq", object_freq, 3, 0, "4.0.0").key(2, RO).tips(&["nondeterministic_output"]);
fn object_freq(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let clock = ctx.keys.access_clock();
    match ctx.keys.get(args.at(2)) {
        Some(_) if !clock.is_lfu() => {
            return Err(CommandError::err(
                "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(entry) => ctx.out.integer(i64::from(clock.frequency(entry.access()))),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `OBJECT ENCODING key`
pub(super) const OBJECT_ENCODING: DataCommand =
    read("object|encoding", object_encoding, 3, 0, "2.2.3").key(2, RO).tips(&["nondeterministic_output"]);
fn object_encoding(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.get(args.at(2)) {
        Some(entry) => ctx.out.bulk_str(encoding(entry)),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// As OBJECT ENCODING names it.
pub fn encoding(entry: &Entry) -> &'static str {
    match entry.value() {
        ValueRef::String(value) => string_encoding(entry, value),
        value => value.collection().map_or("raw", Collection::encoding),
    }
}

/// An integer; or a string that shares one allocation of at most 128 bytes with its key; or a buffer of its own.
fn string_encoding(entry: &Entry, value: &[u8]) -> &'static str {
    /// What of the 128 bytes is left for key, value and expiry.
    const EMBEDDED_LEN_MAX: usize = 113;
    if entry.is_raw() {
        return "raw";
    }
    if !entry.is_not_integer() && parse_i64(value).is_some() {
        return "int";
    }
    let key_len = entry.key().len();
    let key_header = if key_len < 32 { 0 } else { 2 };
    let expiry = if entry.expire_at().is_some() { 8 } else { 0 };
    if key_len + key_header + expiry + value.len() <= EMBEDDED_LEN_MAX { "embstr" } else { "raw" }
}
