//! Transactions: MULTI, DISCARD, WATCH, UNWATCH. EXEC itself is in [`crate::execute`].

pub(crate) mod conditions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::CommandError;
use crate::command::spec::{
    ACCESS, ALLOW_BUSY, Begin, FAST, Find, Group, KeySpec, LOADING, NEVER_QUEUED, NO_MULTI, NOSCRIPT, RO,
    SKIP_COMMANDLOG, STALE, Scope, family,
};
use crate::io::session::Transaction;

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 5] = family(Group::Transactions, [
    DISCARD, EXEC, MULTI, UNWATCH, WATCH,
]);

/// `MULTI`
const MULTI: ServerCommand = plain(
    "multi",
    multi,
    1,
    NOSCRIPT | LOADING | STALE | FAST | NO_MULTI | ALLOW_BUSY | NEVER_QUEUED,
    "1.2.0",
);
fn multi(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.session.transaction = Some(Transaction::default());
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `EXEC [IFEQ key value | IFNE key value | NX key | XX key ...]`: the executor calls this outside of a transaction only.
const EXEC: ServerCommand =
    plain("exec", exec, -1, NOSCRIPT | LOADING | STALE | SKIP_COMMANDLOG | NEVER_QUEUED, "1.2.0")
        .key_spec(KeySpec { flags: RO | ACCESS, begin: Begin::Unknown, find: Find::Unknown })
        .search(conditions::search)
        .scope(Scope::Transaction);
fn exec(_ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    Err(CommandError::err("EXEC without MULTI"))
}

/// `DISCARD`
const DISCARD: ServerCommand =
    plain("discard", discard, 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY | NEVER_QUEUED, "2.0.0");
fn discard(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    if ctx.session.transaction.take().is_none() {
        return Err(CommandError::err("DISCARD without MULTI"));
    }
    ctx.session.unwatch(ctx.keys);
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `WATCH key [key ...]`: a key that has expired already counts as missing.
const WATCH: ServerCommand = plain(
    "watch",
    watch,
    -2,
    NOSCRIPT | LOADING | STALE | FAST | NO_MULTI | ALLOW_BUSY | NEVER_QUEUED,
    "2.2.0",
)
.keys(1, -1, 1, RO);
fn watch(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    for key in args.iter().skip(1) {
        let db_key = (ctx.session.db, key.into());
        if ctx.session.watched.contains_key(&db_key) {
            continue;
        }
        // Its deletion is no change that the transaction has to fear.
        ctx.keys.expire_if_due(key);
        let existed = ctx.keys.exists(key);
        let flag = Arc::clone(&ctx.session.watch_flag);
        let slot = keyward_proto::slot::Slot::of(key);
        let client_id = ctx.session.client.id;
        ctx.keys.with_slot(slot, |state| state.watch(db_key.clone(), client_id, flag));
        if ctx.session.watched.is_empty() {
            ctx.session.watched_in = ctx.session.generation;
        }
        ctx.session.watched.insert(db_key, existed);
    }
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `UNWATCH`
const UNWATCH: ServerCommand =
    plain("unwatch", unwatch, 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, "2.2.0");
fn unwatch(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.session.unwatch(ctx.keys);
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}
