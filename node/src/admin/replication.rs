//! REPLCONF and SYNC, as far as a client uses them that wants the database as a file. Replication itself is gRPC.

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{ADMIN, ALLOW_BUSY, LOADING, NO_ASYNC_LOADING, NO_MULTI, NOSCRIPT, STALE, Scope};
use crate::command::{CommandError, ascii_eq, parse_i64_arg};

/// `REPLCONF [option value ...]`
pub(super) const REPLCONF: ServerCommand =
    plain("replconf", replconf, -1, ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY, "3.0.0");
fn replconf(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let mut wanted = ctx.session.download;
    wanted.follows = true;
    for at in (1..args.len()).step_by(2) {
        let (option, value) = (args.at(at), args.at(at + 1));
        let is = |name: &str| ascii_eq(option, name);
        if is("capa") {
            wanted.eof |= ascii_eq(value, "eof");
        } else if is("rdb-only") {
            wanted.rdb_only = match parse_i64_arg(value)? {
                0 => false,
                1 => true,
                _ => return Err(CommandError::err("value is out of range, value must between 0 and 1")),
            };
        } else if is("rdb-filter-only") {
            wanted.functions_only = match value {
                b"" => false,
                b"functions" => true,
                other => {
                    return Err(CommandError::quoting("Unsupported rdb-filter-only option: ", other, ""));
                }
            };
        } else if is("listening-port") {
            parse_i64_arg(value)?;
        } else if !is("ip-address") && !is("version") {
            return Err(CommandError::quoting("Unrecognized REPLCONF option: ", option, ""));
        }
    }
    ctx.session.download = wanted;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `SYNC`: a read of all keys.
pub(super) const SYNC: ServerCommand =
    plain("sync", sync, 1, NO_ASYNC_LOADING | ADMIN | NO_MULTI | NOSCRIPT, "1.0.0").scope(Scope::Walk);
fn sync(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    if !ctx.session.download.is_file() {
        return Err(CommandError::err(
            "this node replicates to nodes of its own kind only; for the database as a file send \
             'REPLCONF capa eof rdb-only 1' first",
        ));
    }
    Ok(ServerOutcome::Download)
}
