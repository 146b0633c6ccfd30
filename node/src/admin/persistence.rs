//! Saving the database: SAVE, BGSAVE, LASTSAVE; rewriting the write log: BGREWRITEAOF.

use keyward_proto::resp::Args;

use crate::admin::{Request, ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{ADMIN, FAST, LOADING, NO_ASYNC_LOADING, NO_MULTI, NOSCRIPT, STALE, category};
use crate::command::{CommandError, ascii_eq};
use crate::snapshot::saves::{Cancelled, Kind};

fn already_running() -> CommandError {
    CommandError::err("Background save already in progress")
}

/// What would be saved may never have been. A primary without its lease saves nevertheless: it may be all that can be
/// saved of a shard that does not go on.
fn refuse_in_doubt(ctx: &ServerContext<'_, '_>) -> Result<(), CommandError> {
    if ctx.server.shared.gate.state().is_in_doubt() { Err(CommandError::MasterDown) } else { Ok(()) }
}

/// `SAVE`
///
/// Differs from Valkey: only the client that asks waits; the others are served meanwhile.
pub(super) const SAVE: ServerCommand =
    plain("save", save, 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, "1.0.0");
fn save(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    refuse_in_doubt(ctx)?;
    if ctx.server.saves.is_running() {
        return Err(already_running());
    }
    Ok(ServerOutcome::Await(Request::Save))
}

/// `BGSAVE [SCHEDULE | CANCEL]`
pub(super) const BGSAVE: ServerCommand =
    plain("bgsave", bgsave, -1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, "1.0.0");
fn bgsave(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let schedule = match (args.get(1), args.len()) {
        (None, _) => false,
        (Some(word), 2) if ascii_eq(word, "SCHEDULE") => true,
        (Some(word), 2) if ascii_eq(word, "CANCEL") => return cancel(ctx),
        (Some(_), _) => return Err(CommandError::Syntax),
    };
    refuse_in_doubt(ctx)?;
    let saves = &ctx.server.saves;
    if saves.is_running() {
        return Err(already_running());
    }
    if ctx.session.in_exec {
        // The snapshot cannot begin before the transaction has ended.
        saves.schedule();
        ctx.out.simple("Background saving scheduled");
        return Ok(ServerOutcome::Reply);
    }
    let Some(server) = ctx.server.shared_self() else { return Err(CommandError::err("the node is ending")) };
    if saves.start(&server, Kind::Background).is_err() {
        if !schedule {
            return Err(already_running());
        }
        saves.schedule();
    }
    ctx.out.simple("Background saving started");
    Ok(ServerOutcome::Reply)
}

fn cancel(ctx: &mut ServerContext<'_, '_>) -> ServerResult {
    match ctx.server.saves.cancel() {
        Cancelled::Running => ctx.out.simple("Background saving cancelled"),
        Cancelled::Scheduled => ctx.out.simple("Scheduled background saving cancelled"),
        Cancelled::Nothing => {
            return Err(CommandError::err("Background saving is currently not in progress or scheduled"));
        }
    }
    Ok(ServerOutcome::Reply)
}

/// `LASTSAVE`
pub(super) const LASTSAVE: ServerCommand = plain("lastsave", lastsave, 1, LOADING | STALE | FAST, "1.0.0")
    .categories(category::ADMIN | category::DANGEROUS)
    .tips(&["nondeterministic_output"]);
fn lastsave(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let time = ctx.server.saves.last_save();
    ctx.out.integer(time);
    Ok(ServerOutcome::Reply)
}

/// `BGREWRITEAOF`
pub(super) const BGREWRITEAOF: ServerCommand =
    plain("bgrewriteaof", bgrewriteaof, 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, "1.0.0");
fn bgrewriteaof(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let Some(server) = ctx.server.shared_self() else { return Err(CommandError::err("the node is ending")) };
    server.aof.begin_rewrite(&server).map_err(|e| CommandError::err(e.to_string()))?;
    ctx.out.simple("Background append only file rewriting started");
    Ok(ServerOutcome::Reply)
}
