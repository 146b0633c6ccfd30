//! MEMORY: what a key takes, where the memory goes, and what to do about it.

use keyward_proto::resp::Args;
use keyward_store::usage::usage_bytes;

use super::overview::{Overview, excess, ratio};
use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain, read};
use crate::command::spec::{LOADING, RO, STALE};
use crate::command::{CommandError, Cursor, parse_i64_arg};
use crate::process;

/// Elements looked at by default; the rest is taken to be like them.
const SAMPLES: usize = 5;

/// `MEMORY subcommand`
pub(super) const MEMORY: ServerCommand = container("memory", 0, "4.0.0");

/// `MEMORY USAGE key [SAMPLES count]`
pub(super) const MEMORY_USAGE: ServerCommand = read("memory|usage", memory_usage, -3, 0, "4.0.0").key(2, RO);
fn memory_usage(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mut samples = SAMPLES;
    let mut options = Cursor::new(args, 3);
    while let Some(count) = options.value_of("SAMPLES") {
        samples = match parse_i64_arg(count)? {
            0 => usize::MAX,
            count => usize::try_from(count).map_err(|_| CommandError::Syntax)?,
        };
    }
    options.finish()?;
    match ctx.keys.get(args.at(2)) {
        Some(entry) => ctx.out.len(usage_bytes(entry, samples)),
        None => ctx.out.null(),
    }
    Ok(ServerOutcome::Reply)
}

/// A value of MEMORY STATS.
enum Figure {
    Bytes(usize),
    Signed(i64),
    Ratio(f64),
    /// Of one database.
    Tables(usize),
}

/// `MEMORY STATS`
pub(super) const MEMORY_STATS: ServerCommand = plain("memory|stats", memory_stats, 2, 0, "4.0.0").tips(&[
    "nondeterministic_output",
    "request_policy:all_shards",
    "response_policy:special",
]);
fn memory_stats(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    use Figure::{Bytes, Ratio, Signed, Tables};
    let o = Overview::of(ctx);
    let m = &o.memory;
    let names: Vec<String> = o.tables.iter().map(|(db, _)| format!("db.{db}")).collect();
    let mut figures: Vec<(&str, Figure)> = vec![
        ("peak.allocated", Bytes(o.peak)),
        ("total.allocated", Bytes(o.used)),
        ("startup.allocated", Bytes(o.startup)),
        ("replication.backlog", Bytes(o.log)),
        ("replicas.repl.buffer", Bytes(0)),
        ("clients.slaves", Bytes(0)),
        ("clients.normal", Bytes(o.clients)),
        ("cluster.links", Bytes(0)),
        ("cluster.slot_import", Bytes(0)),
        ("cluster.slot_export", Bytes(0)),
        ("aof.buffer", Bytes(0)),
        ("lua.caches", Bytes(ctx.server.scripts.figures().cached_bytes)),
        ("functions.caches", Bytes(ctx.server.scripts.figures().library_bytes)),
    ];
    figures.extend(names.iter().zip(&o.tables).map(|(name, (_, bytes))| (name.as_str(), Tables(*bytes))));
    figures.extend([
        ("overhead.db.hashtable.lut", Bytes(o.tables.iter().map(|(_, bytes)| bytes).sum())),
        ("overhead.db.hashtable.rehashing", Bytes(0)),
        ("overhead.total", Bytes(o.overhead())),
        ("db.dict.rehashing.count", Bytes(0)),
        ("keys.count", Bytes(o.keys)),
        ("keys.bytes-per-key", Bytes((o.used - o.startup).checked_div(o.keys).unwrap_or(0))),
        ("dataset.bytes", Bytes(o.dataset())),
        ("dataset.percentage", Ratio(o.dataset_percentage())),
        ("peak.percentage", Ratio(o.peak_percentage())),
        ("allocator.allocated", Bytes(m.allocated)),
        ("allocator.active", Bytes(m.active)),
        ("allocator.resident", Bytes(m.resident)),
        ("allocator.muzzy", Bytes(0)),
        ("allocator-fragmentation.ratio", Ratio(ratio(m.active, m.allocated))),
        ("allocator-fragmentation.bytes", Signed(excess(m.active, m.allocated))),
        ("allocator-rss.ratio", Ratio(ratio(m.resident, m.active))),
        ("allocator-rss.bytes", Signed(excess(m.resident, m.active))),
        ("rss-overhead.ratio", Ratio(ratio(m.rss, m.resident))),
        ("rss-overhead.bytes", Signed(excess(m.rss, m.resident))),
        ("fragmentation", Ratio(ratio(m.rss, o.used))),
        ("fragmentation.bytes", Signed(excess(m.rss, o.used))),
    ]);
    ctx.out.map(figures.len());
    for (name, figure) in figures {
        ctx.out.bulk_str(name);
        match figure {
            Bytes(bytes) => ctx.out.len(bytes),
            Signed(bytes) => ctx.out.integer(bytes),
            Ratio(ratio) => ctx.out.double(ratio),
            Tables(bytes) => {
                ctx.out.map(2);
                ctx.out.bulk_str("overhead.hashtable.main");
                ctx.out.len(bytes);
                // Expiries are in the entries.
                ctx.out.bulk_str("overhead.hashtable.expires");
                ctx.out.len(0);
            }
        }
    }
    Ok(ServerOutcome::Reply)
}

/// Below this there is nothing to advise.
const DOCTOR_BYTES_MIN: usize = 5 << 20;

/// `MEMORY DOCTOR`
pub(super) const MEMORY_DOCTOR: ServerCommand = plain("memory|doctor", memory_doctor, 2, 0, "4.0.0").tips(&[
    "nondeterministic_output",
    "request_policy:all_shards",
    "response_policy:special",
]);
fn memory_doctor(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let report = doctor(&Overview::of(ctx), ctx.server.clients.len());
    ctx.out.verbatim("txt", report.as_bytes());
    Ok(ServerOutcome::Reply)
}

fn doctor(o: &Overview, clients: usize) -> String {
    if o.used < DOCTOR_BYTES_MIN {
        return "There is too little data for a diagnosis.\n".into();
    }
    let m = &o.memory;
    // An excess below this is not worth a word, whatever the ratio is.
    let matters = |part: usize, whole: usize, limit: f64| {
        limit < ratio(part, whole) && DOCTOR_BYTES_MIN < part.saturating_sub(whole)
    };
    let findings = [
        (
            matters(o.peak, o.used, 1.5),
            "Peak: memory in use was more than 1.5 times of what it is now. The process may keep memory that the \
             allocator could not give back; it is used again when the data grows.",
        ),
        (
            matters(m.rss, o.used, 1.4),
            "Resident size: the process takes more than 1.4 times of the memory that is in use. After a peak this is \
             to be expected; MEMORY PURGE gives back what can be given back.",
        ),
        (
            matters(m.active, m.allocated, 1.1),
            "Fragmentation: pages of the allocator are used for less than nine tenths. It falls as new data fills \
             the gaps.",
        ),
        (
            matters(m.resident, m.active, 1.1),
            "Allocator: it holds more than a tenth of its memory for reuse. MEMORY PURGE gives it back.",
        ),
        (
            200 << 10 < o.clients / clients.max(1),
            "Clients: their buffers take more than 200 KiB each on average. CLIENT LIST shows which; \
             client-output-buffer-limit and maxmemory-clients bound them.",
        ),
    ];
    let found: Vec<String> =
        findings.iter().filter(|(is, _)| *is).map(|(_, text)| format!(" * {text}\n")).collect();
    if found.is_empty() { "Nothing unusual was found.\n".into() } else { found.concat() }
}

/// `MEMORY PURGE`
pub(super) const MEMORY_PURGE: ServerCommand = plain("memory|purge", memory_purge, 2, LOADING, "4.0.0")
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]);
fn memory_purge(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    process::purge();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `MEMORY MALLOC-STATS`
pub(super) const MEMORY_MALLOC_STATS: ServerCommand =
    plain("memory|malloc-stats", memory_malloc_stats, 2, LOADING, "4.0.0").tips(&[
        "nondeterministic_output",
        "request_policy:all_shards",
        "response_policy:special",
    ]);
fn memory_malloc_stats(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.verbatim("txt", &process::allocator_report());
    Ok(ServerOutcome::Reply)
}

/// `MEMORY HELP`
pub(super) const MEMORY_HELP: ServerCommand = plain("memory|help", memory_help, 2, LOADING | STALE, "4.0.0");
fn memory_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "DOCTOR",
            "    Return memory problems reports.",
            "MALLOC-STATS",
            "    Return internal statistics report from the memory allocator.",
            "PURGE",
            "    Attempt to purge dirty pages for reclamation by the allocator.",
            "STATS",
            "    Return information about the memory usage of the server.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
        ],
    )
}
