//! CONFIG: reading and changing directives at run time.

use std::collections::BTreeMap;

use keyward_proto::resp::Args;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::command::spec::{ADMIN, LOADING, NOSCRIPT, STALE};
use crate::command::{CommandError, ascii_eq};
use crate::config::{self, Config};

/// `CONFIG subcommand`
pub(super) const CONFIG: ServerCommand = container("config", 0, "2.0.0");

/// `CONFIG GET parameter [parameter ...]`: glob patterns; every directive once, an exact name as the client wrote it.
pub(super) const CONFIG_GET: ServerCommand =
    plain("config|get", config_get, -3, ADMIN | NOSCRIPT | LOADING | STALE, "2.0.0");
fn config_get(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let server = ctx.server;
    server.with_config(|config| {
        let mut found: BTreeMap<&str, (&[u8], &str)> = BTreeMap::new();
        for pattern in args.iter().skip(2) {
            for (name, value) in config.matching(pattern) {
                let shown = if ascii_eq(pattern, name) { pattern } else { name.as_bytes() };
                found.entry(name).or_insert((shown, value));
            }
        }
        ctx.out.map(found.len());
        for (name, value) in found.values() {
            ctx.out.bulk(name);
            ctx.out.bulk_str(value);
        }
    });
    Ok(ServerOutcome::Reply)
}

/// `CONFIG SET parameter value [parameter value ...]`: all of them, or none.
pub(super) const CONFIG_SET: ServerCommand =
    plain("config|set", config_set, -4, ADMIN | NOSCRIPT | LOADING | STALE, "2.0.0")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn config_set(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    if let Some(name) = args.iter().skip(2).step_by(2).find(|name| std::str::from_utf8(name).is_err()) {
        let before = "Unknown option or number of arguments for CONFIG SET - '";
        return Err(CommandError::quoting(before, name, "'"));
    }
    // Differs from Valkey: text has to be UTF-8. Whatever else is not fails as what it is not, a number for example.
    let refused = |at: &usize| {
        std::str::from_utf8(args.at(*at)).is_err()
            && config::is_text(&String::from_utf8_lossy(args.at(at - 1)))
    };
    if let Some(at) = (3..args.len()).step_by(2).find(refused) {
        let name = String::from_utf8_lossy(args.at(at - 1));
        return Err(CommandError::err(format!(
            "CONFIG SET failed (possibly related to argument '{name}') - the value is not valid UTF-8"
        )));
    }
    let words: Vec<String> = args.iter().skip(2).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    let pairs: Vec<(String, String)> = words.chunks(2).map(|p| (p[0].clone(), p[1].clone())).collect();
    ctx.server.configure(&pairs).map_err(CommandError::err)?;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CONFIG RESETSTAT`
pub(super) const CONFIG_RESETSTAT: ServerCommand =
    plain("config|resetstat", config_resetstat, 2, ADMIN | NOSCRIPT | LOADING | STALE, "2.0.0")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn config_resetstat(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.server.reset_stats();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CONFIG REWRITE`
pub(super) const CONFIG_REWRITE: ServerCommand =
    plain("config|rewrite", config_rewrite, 2, ADMIN | NOSCRIPT | LOADING | STALE, "2.8.0")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn config_rewrite(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.server.with_config(Config::rewrite).map_err(CommandError::err)?;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CONFIG HELP`
pub(super) const CONFIG_HELP: ServerCommand = plain("config|help", config_help, 2, LOADING | STALE, "5.0.0");
fn config_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "GET <pattern> [<pattern> ...]",
            "    Return the directives that match, with their values.",
            "RESETSTAT",
            "    Set the counters of INFO to zero.",
            "REWRITE",
            "    Write what is in force to the conf file.",
            "SET <directive> <value> [<directive> <value> ...]",
            "    Change directives: all of them, or none.",
        ],
    )
}
