//! The keyspace as a whole: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;
use keyward_proto::slot::Slot;
use keyward_store::keys::Mode;
use keyward_store::table::Table;
use keyward_store::{DbIndex, DbKey};

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, read, write};
use crate::command::spec::{ALL_DBS, FAST, Scope, category};
use crate::command::{CommandError, ascii_eq};

/// `DBSIZE`
pub(super) const DBSIZE: ServerCommand = read("dbsize", dbsize, 1, FAST, "1.0.0")
    .categories(category::KEYSPACE)
    .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
    .scope(Scope::Walk);
fn dbsize(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let len = ctx.keys.len(ctx.session.db);
    ctx.out.len(len);
    Ok(ServerOutcome::Reply)
}

/// `FLUSHALL [ASYNC | SYNC]`
pub(super) const FLUSHALL: ServerCommand = write("flushall", flushall, -1, ALL_DBS, "1.0.0")
    .categories(category::DANGEROUS | category::KEYSPACE)
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
    .scope(Scope::World);
fn flushall(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    check_flush_options(args)?;
    flush(ctx, None);
    ctx.server.saves.flushed(&ctx.server.settings());
    ctx.keys.propagate_whole(&[b"FLUSHALL"]);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `FLUSHDB [ASYNC | SYNC]`
pub(super) const FLUSHDB: ServerCommand = write("flushdb", flushdb, -1, 0, "1.0.0")
    .categories(category::DANGEROUS | category::KEYSPACE)
    .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
    .scope(Scope::World);
fn flushdb(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    check_flush_options(args)?;
    flush(ctx, Some(ctx.session.db));
    ctx.keys.propagate_whole(&[b"FLUSHDB"]);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// Differs from Valkey: memory is always freed in the background, so that the world is stopped for a moment only.
fn check_flush_options(args: Args<'_>) -> Result<(), CommandError> {
    match args.get(1) {
        None => Ok(()),
        Some(word) if args.len() == 2 && (ascii_eq(word, "SYNC") || ascii_eq(word, "ASYNC")) => Ok(()),
        Some(_) => Err(CommandError::Syntax),
    }
}

fn flush(ctx: &mut ServerContext<'_, '_>, db: Option<DbIndex>) {
    let (mut tables, mut kept) = (Vec::new(), 0);
    let keyspace = &ctx.server.keyspace;
    let mut waited_for: Vec<DbKey> = Vec::new();
    for slot in Slot::all() {
        let taken = ctx.keys.with_slot(slot, |state| {
            state.mark_watchers_of_existing(|watched| db.is_none_or(|db| db == watched));
            waited_for.extend(state.waiting_keys().filter(|(of, _)| db.is_none_or(|db| db == *of)).cloned());
            let taken = keyspace.cow.keep_taken(slot, state.take_tables(slot, db, &keyspace.counts));
            kept += state.dbs().map(|(_, table)| table.len()).sum::<usize>();
            taken
        });
        tables.extend(taken);
    }
    ctx.keys.note_flushed();
    signal_all(ctx, waited_for);
    let flushed: usize = tables.iter().map(Table::len).sum();
    let memory = &ctx.server.memory;
    let data = memory.used().saturating_sub(memory.startup() + memory.not_counted());
    // Nearly all of the data is keys; those that are flushed take their part of it.
    let bytes = data / (flushed + kept).max(1) * flushed;
    ctx.server.lazyfree.free_tables(tables, bytes);
}

/// Something has happened with these keys: they may be gone, too.
fn signal_all(ctx: &mut ServerContext<'_, '_>, keys: Vec<DbKey>) {
    for (db, key) in keys {
        ctx.keys.db = db;
        ctx.keys.signal_ready(&key);
    }
    ctx.keys.db = ctx.session.db;
}

/// `SWAPDB index1 index2`
pub(super) const SWAPDB: ServerCommand = write("swapdb", swapdb, 3, FAST, "4.0.0")
    .categories(category::DANGEROUS | category::KEYSPACE)
    .scope(Scope::World);
fn swapdb(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    // An effect is applied whatever this node's settings are.
    let is_effect = ctx.keys.mode() == Mode::Apply;
    if ctx.server.settings().cluster_enabled && !is_effect {
        return Err(CommandError::err("SWAPDB is not allowed in cluster mode"));
    }
    let parse = |at: usize, text: &'static str| {
        let index = parse_i64(args.at(at)).and_then(|n| i32::try_from(n).ok());
        index.ok_or_else(|| CommandError::err(text))
    };
    let (a, b) = (parse(1, "invalid first DB index")?, parse(2, "invalid second DB index")?);
    let databases = ctx.server.settings().databases();
    let in_range = |n: i32| {
        let db = DbIndex::try_from(n).ok().filter(|db| is_effect || *db < databases);
        db.ok_or_else(|| CommandError::err("DB index is out of range"))
    };
    let (a, b) = (in_range(a)?, in_range(b)?);
    if a != b {
        let mut waited_for: Vec<DbKey> = Vec::new();
        ctx.keys.recount_volatile();
        for slot in Slot::all() {
            ctx.keys.with_slot(slot, |state| {
                state.mark_watchers_of_existing(|db| db == a || db == b);
                state.swap_dbs(slot, a, b, &ctx.server.keyspace.counts);
                state.mark_watchers_of_existing(|db| db == a || db == b);
                waited_for.extend(state.waiting_keys().filter(|(db, _)| *db == a || *db == b).cloned());
            });
        }
        ctx.server.keyspace.cow.swap_dbs(a, b);
        signal_all(ctx, waited_for);
        ctx.keys.propagate_whole(&[b"SWAPDB", args.at(1), args.at(2)]);
    }
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}
