//! DEBUG: the few subcommands that tests and tools of Valkey need.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_proto::resp::Args;
use keyward_proto::resp::number::{parse_f64, parse_i64};
use keyward_proto::slot::Slot;
use keyward_store::DbIndex;
use keyward_store::digest::Digest;
use keyward_store::table::hash_of;

use crate::admin::{
    Request, ServerCommand, ServerContext, ServerOutcome, ServerResult, help, inspect, plain,
};
use crate::command::CommandError;
use crate::command::spec::{ADMIN, LOADING, NOSCRIPT, PROTECTED, STALE};
use crate::config::{Settings, parse_memory};
use crate::io::pause::PauseMode;
use crate::reload::{Options, refusal};

/// Nobody could end it earlier.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

const NOT_ALLOWED: &str = "DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can \
                           run it from a local connection, otherwise you need to set this option in the \
                           configuration file, and then restart the server.";

/// Switches of Valkey's own machinery, with how many arguments they take: there is nothing here that they could change, and
/// who sets them wants nothing else.
const SWITCHES: [(&str, usize); 19] = [
    ("AOF-FLUSH-SLEEP", 1),
    ("CHANGE-REPL-ID", 0),
    ("CLIENT-ENFORCE-REPLY-LIST", 1),
    ("CLOSE-CLUSTER-LINK-ON-PACKET-DROP", 1),
    ("DELAY-RDB-CLIENT-FREE-SECOND", 1),
    ("DELAY-RDB-CLIENT-FREE-SECONDS", 1),
    ("DICT-RESIZING", 1),
    ("DISABLE-CLUSTER-RANDOM-PING", 1),
    ("DISABLE-CLUSTER-RECONNECTION", 1),
    ("DROP-CLUSTER-PACKET-FILTER", 1),
    ("FORCE-FREE-PRIMARY-ASYNC", 1),
    ("HASHTABLE-CAN-ABORT-SHRINK", 1),
    ("LEAK", 1),
    ("PAUSE-AFTER-FORK", 1),
    ("PAUSE-CRON", 1),
    ("REPLYBUFFER", 2),
    ("SET-DISABLE-DENY-SCRIPTS", 1),
    ("SET-SKIP-CHECKSUM-VALIDATION", 1),
    ("SLOTMIGRATION", 2),
];

/// The largest size that QUICKLIST-PACKED-THRESHOLD takes.
const PACKED_BYTES_MAX: u64 = 4 << 30;

/// Whether a client may use DEBUG: `enable-debug-command`.
pub(super) fn check_address(settings: &Settings, address: &str) -> Result<(), CommandError> {
    if settings.allows_debug(address) { Ok(()) } else { Err(CommandError::err(NOT_ALLOWED)) }
}

/// `DEBUG <DIGEST | DIGEST-VALUE key [key ...] | SLEEP seconds | SET-ACTIVE-EXPIRE 0|1 | ERROR text | PROTOCOL type | LOG text | RELOAD ... | OBJECT key | POPULATE count | ... | HELP>`
///
/// SLEEP holds up everybody who sends a command, as a server does that is stuck, and expiry and eviction with them.
///
/// Differs from Valkey: nothing else is held up by SLEEP, so heartbeats go on and there is no failover; replication,
/// timeouts of blocked clients and what is published meanwhile go on as well.
pub(super) const DEBUG: ServerCommand =
    plain("debug", debug, -2, ADMIN | NOSCRIPT | LOADING | STALE | PROTECTED, "1.0.0");
fn debug(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    check_address(&ctx.server.settings(), &ctx.session.client.address)?;
    let name = args.at(1).to_ascii_uppercase();
    match (name.as_slice(), args.len()) {
        (b"SLEEP", 3) => {
            let seconds = parse_f64(args.at(2)).filter(|s| 0.0 < *s).unwrap_or(0.0);
            let time = Duration::try_from_secs_f64(seconds)
                .map_err(|_| CommandError::err("value is out of range"))?
                .min(SLEEP_MAX);
            let now = ctx.server.clock.monotonic();
            ctx.server.pause.extend(now, now + time, PauseMode::All);
            Ok(ServerOutcome::Sleep(time, b"+OK\r\n"))
        }
        (b"SET-ACTIVE-EXPIRE", 3) => {
            let on = parse_i64(args.at(2)).unwrap_or(0) != 0;
            ctx.server.active_expire.store(on, Ordering::Relaxed);
            ctx.out.ok();
            Ok(ServerOutcome::Reply)
        }
        (b"ERROR", 3) => Err(CommandError::coded(String::from_utf8_lossy(args.at(2)).into_owned())),
        (b"LOG", 3) => {
            tracing::warn!("DEBUG LOG: {}", String::from_utf8_lossy(args.at(2)));
            ctx.out.ok();
            Ok(ServerOutcome::Reply)
        }
        (b"PROTOCOL", 3) => protocol(ctx, args.at(2)),
        (b"DIGEST", 2) => debug_digest(ctx),
        (b"DIGEST-VALUE", 2..) => digest_value(ctx, args),
        (b"RELOAD", 2..) => reload(ctx, args),
        (b"LOADAOF", 2) => Err(CommandError::err(LOADAOF)),
        (b"REPLICATE", 3..) => Err(CommandError::err(REPLICATE)),
        (b"OBJECT", 3 | 4) => inspect::object(ctx, args),
        (b"SDSLEN", 3) => inspect::sdslen(ctx, args.at(2)),
        (b"LISTPACK", 3) => inspect::structure(ctx, args.at(2), "listpack"),
        (b"QUICKLIST", 3 | 4) => inspect::structure(ctx, args.at(2), "quicklist"),
        (b"HTSTATS", 3 | 4) => inspect::table_stats(ctx, args),
        (b"HTSTATS-KEY", 3 | 4) => inspect::table_stats_of_key(ctx, args.at(2)),
        (b"POPULATE", 3..=5) => inspect::populate(ctx, args),
        (b"QUICKLIST-PACKED-THRESHOLD", 3) => packed_threshold(ctx, args.at(2)),
        (b"STRUCTSIZE", 2) => {
            ctx.out.simple(&format!("bits:{} ", usize::BITS));
            Ok(ServerOutcome::Reply)
        }
        (name, len) if SWITCHES.contains(&(&*String::from_utf8_lossy(name), len - 2)) => {
            ctx.out.ok();
            Ok(ServerOutcome::Reply)
        }
        (b"HELP", 2) => debug_help(ctx),
        _ => {
            let before = "unknown subcommand or wrong number of arguments for '";
            Err(CommandError::quoting(before, args.at(1), "'. Try DEBUG HELP."))
        }
    }
}

const LOADAOF: &str = "DEBUG LOADAOF is not available: the log is read at the start. DEBUG RELOAD saves and loads the \
                       database; 'keyward-node check-aof' reads a log";
const REPLICATE: &str = "DEBUG REPLICATE is not available: replicas never have other data than their primary";

fn reload(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let unknown = "DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.";
    let options = Options::parse(args).ok_or_else(|| CommandError::err(unknown))?;
    if ctx.session.in_exec {
        return Err(CommandError::err("DEBUG RELOAD is not possible in a transaction"));
    }
    match refusal(ctx.server, options) {
        Some(why) => Err(CommandError::err(why)),
        None => Ok(ServerOutcome::Await(Request::Reload(options))),
    }
}

/// A long element has a node of its own here, too; from when on is a matter of `list-max-listpack-size` alone.
fn packed_threshold(ctx: &mut ServerContext<'_, '_>, size: &[u8]) -> ServerResult {
    let bytes = std::str::from_utf8(size).ok().and_then(parse_memory).filter(|b| *b < PACKED_BYTES_MAX);
    if bytes.is_none() {
        let text = "argument must be a memory value bigger than 1 and smaller than 4gb";
        return Err(CommandError::err(text));
    }
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// Of all databases: one behind the other, each with its number before its keys.
fn debug_digest(ctx: &mut ServerContext<'_, '_>) -> ServerResult {
    let mut dbs: BTreeMap<DbIndex, Digest> = BTreeMap::new();
    for slot in Slot::all() {
        ctx.keys.with_slot(slot, |state| {
            for (db, table) in state.dbs().filter(|(_, table)| !table.is_empty()) {
                let digest = dbs.entry(db).or_default();
                table.iter().for_each(|entry| digest.add_digest(Digest::of_entry(entry)));
            }
        });
    }
    let mut all = Digest::default();
    for (db, keys) in dbs {
        all.append(&u32::from(db).to_be_bytes());
        all.join(keys);
    }
    ctx.out.simple(&all.to_string());
    Ok(ServerOutcome::Reply)
}

fn digest_value(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let db = ctx.session.db;
    ctx.out.array(args.len() - 2);
    for key in args.iter().skip(2) {
        let digest = ctx.keys.with_slot(Slot::of(key), |state| {
            let entry = state.table(db).and_then(|table| table.get(hash_of(key), key));
            entry.map_or_else(Digest::default, Digest::of_value)
        });
        ctx.out.simple(&digest.to_string());
    }
    Ok(ServerOutcome::Reply)
}

/// A reply of each type, for client libraries.
fn protocol(ctx: &mut ServerContext<'_, '_>, kind: &[u8]) -> ServerResult {
    let out = &mut ctx.out;
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => out.bulk_str("Hello World"),
        b"integer" => out.integer(12345),
        #[allow(clippy::approx_constant, reason = "the value that clients expect")]
        b"double" => out.double(3.141),
        b"bignum" if out.is_resp3() => out.raw(b"(1234567999999999999999999999999999999\r\n"),
        b"bignum" => out.bulk_str("1234567999999999999999999999999999999"),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            (0..3).for_each(|n| out.integer(n));
        }
        b"set" => {
            out.set(3);
            (0..3).for_each(|n| out.integer(n));
        }
        b"map" => {
            out.map(3);
            for n in 0..3 {
                out.integer(n);
                out.boolean(n == 1);
            }
        }
        b"attrib" => {
            if out.is_resp3() {
                out.raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            out.bulk_str("Some real reply following the attribute");
        }
        b"push" => {
            out.push(2);
            out.bulk_str("server-cpu-usage");
            out.integer(42);
        }
        b"true" => out.boolean(true),
        b"false" => out.boolean(false),
        b"verbatim" => out.verbatim("txt", b"This is a verbatim\nstring"),
        _ => {
            return Err(CommandError::err(
                "Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(ServerOutcome::Reply)
}

fn debug_help(ctx: &mut ServerContext<'_, '_>) -> ServerResult {
    help(
        ctx,
        &[
            "DIGEST",
            "    A hash of all keys and values of this node.",
            "DIGEST-VALUE <key> [<key> ...]",
            "    Hashes of single values; zeros where there is none.",
            "ERROR <string>",
            "    Return <string> as an error.",
            "HTSTATS <dbid> [full]",
            "    Counts of the keys of a database.",
            "HTSTATS-KEY <key> [full]",
            "    The same of a value that is a table.",
            "LISTPACK <key>",
            "    Whether a value is one, with a line in the log.",
            "LOG <message>",
            "    Write a message to the server's log.",
            "OBJECT <key> [fast]",
            "    What is known of a value.",
            "POPULATE <count> [<prefix>] [<size>]",
            "    Make keys, on a node without a write log.",
            "PROTOCOL <type>",
            "    Return a value of a type: string, integer, double, bignum, null, array, set, map, attrib, push,",
            "    verbatim, true, false.",
            "QUICKLIST <key>",
            "    As LISTPACK.",
            "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
            "    Save the database and load it, on a node without sentinels. NOSAVE: load what is there. NOFLUSH: keep",
            "    the keys. MERGE: those of the file replace them.",
            "SDSLEN <key>",
            "    Lengths of a key and its string.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Whether expired keys are deleted before somebody accesses them.",
            "SLEEP <seconds>",
            "    Let everybody wait. Decimals allowed.",
        ],
    )
}
