//! EVAL and its like, and what there is of scripts: SCRIPT.

use keyward_proto::resp::Args;

use functions::{
    FUNCTION, FUNCTION_DELETE, FUNCTION_DUMP, FUNCTION_FLUSH, FUNCTION_HELP, FUNCTION_KILL, FUNCTION_LIST,
    FUNCTION_LOAD, FUNCTION_RESTORE, FUNCTION_STATS,
};

use super::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain, write};
use crate::command::spec::{
    ACCESS, ALLOW_BUSY, Flags, Group, KeyFlags, LOADING, MAY_REPLICATE, NO_MANDATORY_KEYS, NOSCRIPT,
    READONLY, RO, RW, SKIP_MONITOR, STALE, Scope, UPDATE, family,
};
use crate::command::{CommandError, ascii_eq};
use crate::scripts;
use crate::scripts::cache::{self, Origin};
use crate::scripts::runs::{Kill, What};

#[cfg(test)]
mod function_tests;
mod functions;
#[cfg(test)]
mod tests;

/// The commands of the group scripting.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 24] = family(Group::Scripting, [
    EVAL, EVAL_RO, EVALSHA, EVALSHA_RO, FCALL, FCALL_RO, FUNCTION, FUNCTION_DELETE, FUNCTION_DUMP, FUNCTION_FLUSH,
    FUNCTION_HELP, FUNCTION_KILL, FUNCTION_LIST, FUNCTION_LOAD, FUNCTION_RESTORE, FUNCTION_STATS, SCRIPT, SCRIPT_DEBUG, SCRIPT_EXISTS, SCRIPT_FLUSH, SCRIPT_HELP, SCRIPT_KILL,
    SCRIPT_LOAD, SCRIPT_SHOW,
]);

const WRITES: Flags = NOSCRIPT | SKIP_MONITOR | MAY_REPLICATE | NO_MANDATORY_KEYS | STALE;
const READS: Flags = NOSCRIPT | SKIP_MONITOR | NO_MANDATORY_KEYS | STALE | READONLY;
const ANY: KeyFlags = RW | ACCESS | UPDATE;
const READ: KeyFlags = RO | ACCESS;

/// What the executor runs by itself.
const fn runs(name: &'static str, flags: Flags, keys: KeyFlags, since: &'static str) -> ServerCommand {
    plain(name, run_by_executor, -3, flags, since).counted_keys(2, 1, keys).scope(Scope::Script)
}

/// The executor never calls this.
fn run_by_executor(_ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    Err(CommandError::err("a script runs in the executor"))
}

/// `EVAL script numkeys [key [key ...]] [arg [arg ...]]`
const EVAL: ServerCommand = runs("eval", WRITES, ANY, "2.6.0");
/// `EVALSHA sha1 numkeys [key [key ...]] [arg [arg ...]]`
const EVALSHA: ServerCommand = runs("evalsha", WRITES, ANY, "2.6.0");
/// `EVAL_RO script numkeys [key [key ...]] [arg [arg ...]]`
const EVAL_RO: ServerCommand = runs("eval_ro", READS, READ, "7.0.0");
/// `EVALSHA_RO sha1 numkeys [key [key ...]] [arg [arg ...]]`
const EVALSHA_RO: ServerCommand = runs("evalsha_ro", READS, READ, "7.0.0");

/// `FCALL function numkeys [key [key ...]] [arg [arg ...]]`
const FCALL: ServerCommand = runs("fcall", WRITES, ANY, "7.0.0");
/// `FCALL_RO function numkeys [key [key ...]] [arg [arg ...]]`
const FCALL_RO: ServerCommand = runs("fcall_ro", READS, READ, "7.0.0");

const SCRIPT: ServerCommand = container("script", 0, "2.6.0");

/// `SCRIPT DEBUG <YES | SYNC | NO>`
///
/// Differs from Valkey: there is no debugger.
const SCRIPT_DEBUG: ServerCommand = plain("script|debug", script_debug, -3, NOSCRIPT, "3.2.0");
fn script_debug(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if ascii_eq(args.at(2), "NO") {
        ctx.out.ok();
        return Ok(ServerOutcome::Reply);
    }
    if ascii_eq(args.at(2), "YES") || ascii_eq(args.at(2), "SYNC") {
        return Err(CommandError::err("the debugger of scripts is not available in this version"));
    }
    Err(CommandError::err("Use SCRIPT DEBUG YES/SYNC/NO"))
}

/// `SCRIPT EXISTS sha1 [sha1 ...]`
const SCRIPT_EXISTS: ServerCommand = plain("script|exists", script_exists, -3, NOSCRIPT | STALE, "2.6.0")
    .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"]);
fn script_exists(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let cache = ctx.server.scripts.cache.lock();
    ctx.out.array(args.len() - 2);
    for sha in args.iter().skip(2) {
        let exists = cache::parse_sha(sha).is_some_and(|sha| cache.has(&sha));
        ctx.out.integer(exists.into());
    }
    Ok(ServerOutcome::Reply)
}

/// `SCRIPT FLUSH [ASYNC | SYNC]`
const SCRIPT_FLUSH: ServerCommand = plain("script|flush", script_flush, -2, NOSCRIPT | STALE, "2.6.0")
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn script_flush(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let is_known = args.get(2).is_none_or(|word| ascii_eq(word, "SYNC") || ascii_eq(word, "ASYNC"));
    if !is_known || 3 < args.len() {
        return Err(CommandError::err("SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    ctx.server.scripts.flush();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `SCRIPT KILL`
const SCRIPT_KILL: ServerCommand = plain("script|kill", script_kill, 2, NOSCRIPT | ALLOW_BUSY, "2.6.0")
    .tips(&["request_policy:all_shards", "response_policy:one_succeeded"]);
fn script_kill(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    kill(ctx, What::Script)
}

/// Asks what has taken too long to end.
fn kill(ctx: &mut ServerContext<'_, '_>, what: What) -> ServerResult {
    let runs = &ctx.server.scripts.runs;
    match runs.kill(what) {
        Kill::Done => ctx.out.ok(),
        Kill::NotBusy => {
            return Err(CommandError::coded("NOTBUSY No scripts in execution right now."));
        }
        Kill::Other => return Err(CommandError::coded(runs.busy_error())),
        Kill::Unkillable => {
            return Err(CommandError::coded(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                 the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            ));
        }
    }
    Ok(ServerOutcome::Reply)
}

/// `SCRIPT LOAD script`
const SCRIPT_LOAD: ServerCommand = plain("script|load", script_load, 3, NOSCRIPT | STALE, "2.6.0")
    .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn script_load(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let server = ctx.server.shared_self().ok_or_else(|| CommandError::err("the node is ending"))?;
    let script = scripts::load(&server, args.at(2), Origin::Load)?;
    ctx.out.bulk_str(&cache::hex(&script.sha));
    Ok(ServerOutcome::Reply)
}

/// `SCRIPT SHOW sha1`
const SCRIPT_SHOW: ServerCommand = plain("script|show", script_show, 3, NOSCRIPT | STALE, "8.0.0");
fn script_show(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let sha = cache::parse_sha(args.at(2));
    let script = sha.and_then(|sha| ctx.server.scripts.cache.lock().get(&sha));
    let script = script.ok_or_else(|| CommandError::coded("NOSCRIPT No matching script."))?;
    ctx.out.bulk(&script.source);
    Ok(ServerOutcome::Reply)
}

/// `SCRIPT HELP`
const SCRIPT_HELP: ServerCommand = plain("script|help", script_help, 2, LOADING | STALE, "5.0.0");
fn script_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "DEBUG (YES|SYNC|NO)",
            "    There is no debugger; NO is accepted.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Tell which scripts are known.",
            "FLUSH [ASYNC|SYNC]",
            "    Forget all scripts.",
            "KILL",
            "    End a script that takes too long and has not written.",
            "LOAD <script>",
            "    Remember a script without running it.",
            "SHOW <sha1>",
            "    Show the text of a script.",
        ],
    )
}
