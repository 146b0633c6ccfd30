//! SLOWLOG and COMMANDLOG: the latest commands that were slow, or large, or had large replies.

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::command::spec::{ADMIN, LOADING, STALE};
use crate::command::{CommandError, ascii_eq};
use crate::observe::commandlog::Kind;

/// Entries that SLOWLOG GET shows if it is not told how many.
const DEFAULT_COUNT: usize = 10;

const ALL_NODES: &str = "request_policy:all_nodes";
const GET_TIPS: [&str; 2] = [ALL_NODES, "nondeterministic_output"];
const LEN_TIPS: [&str; 3] = [ALL_NODES, "response_policy:agg_sum", "nondeterministic_output"];
const RESET_TIPS: [&str; 2] = [ALL_NODES, "response_policy:all_succeeded"];

fn kind(word: &[u8]) -> Result<Kind, CommandError> {
    match word {
        w if ascii_eq(w, "slow") => Ok(Kind::Slow),
        w if ascii_eq(w, "large-request") => Ok(Kind::LargeRequest),
        w if ascii_eq(w, "large-reply") => Ok(Kind::LargeReply),
        _ => Err(CommandError::err("type should be one of the following: slow, large-request, large-reply")),
    }
}

/// How many entries; -1 means all.
fn count(word: &[u8]) -> Result<usize, CommandError> {
    match parse_i64(word).filter(|count| -1 <= *count) {
        Some(count) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        None => Err(CommandError::err("count should be greater than or equal to -1")),
    }
}

fn write_latest(ctx: &mut ServerContext<'_, '_>, kind: Kind, count: usize) -> ServerResult {
    let entries = ctx.server.command_logs.latest(kind, count);
    let out = &mut ctx.out;
    out.array(entries.len());
    for entry in entries {
        out.array(6);
        out.integer(i64::try_from(entry.id).unwrap_or(i64::MAX));
        out.integer(entry.unix_seconds);
        out.integer(i64::try_from(entry.amount).unwrap_or(i64::MAX));
        out.array(entry.args.len());
        entry.args.iter().for_each(|arg| out.bulk(arg));
        out.bulk_str(&entry.address);
        out.bulk(&entry.client_name);
    }
    Ok(ServerOutcome::Reply)
}

fn write_len(ctx: &mut ServerContext<'_, '_>, kind: Kind) -> ServerResult {
    ctx.out.len(ctx.server.command_logs.len(kind));
    Ok(ServerOutcome::Reply)
}

fn reset(ctx: &mut ServerContext<'_, '_>, kind: Kind) -> ServerResult {
    ctx.server.command_logs.reset(kind);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `SLOWLOG <GET [count] | HELP | LEN | RESET>`
pub(super) const SLOWLOG: ServerCommand = container("slowlog", 0, "2.2.12");

/// `SLOWLOG GET [count]`
pub(super) const SLOWLOG_GET: ServerCommand =
    plain("slowlog|get", slowlog_get, -2, ADMIN | LOADING | STALE, "2.2.12").tips(&GET_TIPS);
fn slowlog_get(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if 3 < args.len() {
        let before = "unknown subcommand or wrong number of arguments for '";
        return Err(CommandError::quoting(before, args.at(1), "'. Try SLOWLOG HELP."));
    }
    let count = args.get(2).map_or(Ok(DEFAULT_COUNT), count)?;
    write_latest(ctx, Kind::Slow, count)
}

/// `SLOWLOG LEN`
pub(super) const SLOWLOG_LEN: ServerCommand =
    plain("slowlog|len", slowlog_len, 2, ADMIN | LOADING | STALE, "2.2.12").tips(&LEN_TIPS);
fn slowlog_len(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    write_len(ctx, Kind::Slow)
}

/// `SLOWLOG RESET`
pub(super) const SLOWLOG_RESET: ServerCommand =
    plain("slowlog|reset", slowlog_reset, 2, ADMIN | LOADING | STALE, "2.2.12").tips(&RESET_TIPS);
fn slowlog_reset(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    reset(ctx, Kind::Slow)
}

/// `SLOWLOG HELP`
pub(super) const SLOWLOG_HELP: ServerCommand =
    plain("slowlog|help", slowlog_help, 2, LOADING | STALE, "6.2.0");
fn slowlog_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "GET [<count>]",
            "    Show the latest <count> commands that were slow (10 if not given, -1 for all): number, time in",
            "    seconds, microseconds that it took, arguments, address and name of the client.",
            "LEN",
            "    Count the commands that are kept.",
            "RESET",
            "    Forget them.",
        ],
    )
}

/// `COMMANDLOG <GET count type | HELP | LEN type | RESET type>`
pub(super) const COMMANDLOG: ServerCommand = container("commandlog", 0, "8.1.0");

/// `COMMANDLOG GET count <slow | large-request | large-reply>`
pub(super) const COMMANDLOG_GET: ServerCommand =
    plain("commandlog|get", commandlog_get, 4, ADMIN | LOADING | STALE, "8.1.0").tips(&GET_TIPS);
fn commandlog_get(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let count = count(args.at(2))?;
    let kind = kind(args.at(3))?;
    write_latest(ctx, kind, count)
}

/// `COMMANDLOG LEN <slow | large-request | large-reply>`
pub(super) const COMMANDLOG_LEN: ServerCommand =
    plain("commandlog|len", commandlog_len, 3, ADMIN | LOADING | STALE, "8.1.0").tips(&LEN_TIPS);
fn commandlog_len(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    write_len(ctx, kind(args.at(2))?)
}

/// `COMMANDLOG RESET <slow | large-request | large-reply>`
pub(super) const COMMANDLOG_RESET: ServerCommand =
    plain("commandlog|reset", commandlog_reset, 3, ADMIN | LOADING | STALE, "8.1.0").tips(&RESET_TIPS);
fn commandlog_reset(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    reset(ctx, kind(args.at(2))?)
}

/// `COMMANDLOG HELP`
pub(super) const COMMANDLOG_HELP: ServerCommand =
    plain("commandlog|help", commandlog_help, 2, LOADING | STALE, "8.1.0");
fn commandlog_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "GET <count> <type>",
            "    Show the latest <count> commands of a type (-1 for all): number, time in seconds, microseconds",
            "    (slow) or bytes (large-request, large-reply), arguments, address and name of the client.",
            "LEN <type>",
            "    Count the commands of a type that are kept.",
            "RESET <type>",
            "    Forget the commands of a type.",
        ],
    )
}
