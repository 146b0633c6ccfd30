//! CLIENT subcommands that concern the session itself, and those that pause or wake others.

use std::time::Duration;

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::blocking::Unblock;
use crate::command::spec::{ADMIN, ALLOW_BUSY, LOADING, NO_MULTI, NOSCRIPT, SENTINEL, STALE};
use crate::command::{CommandError, ascii_eq, parse_i64_arg};
use crate::io::pause::PauseMode;
use crate::io::session::ReplyMode;

/// `CLIENT subcommand`
pub(super) const CLIENT: ServerCommand = container("client", SENTINEL, "2.4.0");

/// `CLIENT ID`
pub(super) const CLIENT_ID: ServerCommand =
    plain("client|id", client_id, 2, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | SENTINEL, "5.0.0");
fn client_id(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.integer(i64::try_from(ctx.session.client.id).unwrap_or(i64::MAX));
    Ok(ServerOutcome::Reply)
}

/// `CLIENT GETNAME`
pub(super) const CLIENT_GETNAME: ServerCommand =
    plain("client|getname", client_getname, 2, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | SENTINEL, "2.6.9");
fn client_getname(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    let description = ctx.session.client.description.lock();
    ctx.out.optional_bulk((!description.name.is_empty()).then_some(&*description.name));
    drop(description);
    Ok(ServerOutcome::Reply)
}

/// `CLIENT SETNAME name`: an empty one removes it.
pub(super) const CLIENT_SETNAME: ServerCommand =
    plain("client|setname", client_setname, 3, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | SENTINEL, "2.6.9")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn client_setname(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let name = checked_name(args.at(2), "Client names")?;
    ctx.session.client.description.lock().name = name.into();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CLIENT SETINFO <LIB-NAME libname | LIB-VER libver>`
pub(super) const CLIENT_SETINFO: ServerCommand =
    plain("client|setinfo", client_setinfo, 4, ALLOW_BUSY | NOSCRIPT | LOADING | STALE | SENTINEL, "7.2.0")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]);
fn client_setinfo(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let (attribute, value) = (args.at(2), args.at(3));
    let what = String::from_utf8_lossy(attribute);
    let is_name = ascii_eq(attribute, "lib-name");
    if !is_name && !ascii_eq(attribute, "lib-ver") {
        return Err(CommandError::quoting("Unrecognized option '", attribute, "'"));
    }
    let value = checked_name(value, &what)?;
    let mut description = ctx.session.client.description.lock();
    let field = if is_name { &mut description.lib_name } else { &mut description.lib_version };
    *field = value.into();
    drop(description);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// A name that fits into a line of CLIENT LIST.
pub(super) fn checked_name<'a>(name: &'a [u8], what: &str) -> Result<&'a [u8], CommandError> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(name);
    }
    Err(CommandError::err(format!("{what} cannot contain spaces, newlines or special characters.")))
}

/// `CLIENT REPLY <ON | OFF | SKIP>`
pub(super) const CLIENT_REPLY: ServerCommand = plain(
    "client|reply",
    client_reply,
    3,
    ALLOW_BUSY | NOSCRIPT | NO_MULTI | LOADING | STALE | SENTINEL,
    "3.2.0",
);
fn client_reply(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mode = args.at(2);
    if ascii_eq(mode, "ON") {
        ctx.session.reply_mode = ReplyMode::On;
        ctx.out.ok();
    } else if ascii_eq(mode, "OFF") {
        ctx.session.reply_mode = ReplyMode::Off;
    } else if ascii_eq(mode, "SKIP") {
        if ctx.session.reply_mode != ReplyMode::Off {
            ctx.session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(ServerOutcome::Reply)
}

/// `CLIENT NO-EVICT <ON | OFF>`
pub(super) const CLIENT_NO_EVICT: ServerCommand = plain(
    "client|no-evict",
    client_no_evict,
    3,
    ALLOW_BUSY | ADMIN | NOSCRIPT | LOADING | STALE | SENTINEL,
    "7.0.0",
);
fn client_no_evict(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    ctx.session.client.description.lock().no_evict = on_or_off(args.at(2))?;
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CLIENT NO-TOUCH <ON | OFF>`
pub(super) const CLIENT_NO_TOUCH: ServerCommand =
    plain("client|no-touch", client_no_touch, 3, ALLOW_BUSY | NOSCRIPT | LOADING | STALE, "7.2.0");
fn client_no_touch(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    ctx.session.no_touch = on_or_off(args.at(2))?;
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word {
        w if ascii_eq(w, "ON") => Ok(true),
        w if ascii_eq(w, "OFF") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// `CLIENT PAUSE timeout [WRITE | ALL]`: a pause that is there is neither shortened nor made weaker.
pub(super) const CLIENT_PAUSE: ServerCommand =
    plain("client|pause", client_pause, -3, ADMIN | NOSCRIPT | LOADING | STALE | SENTINEL, "3.0.0");
fn client_pause(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let mode = match args.get(3) {
        None => PauseMode::All,
        Some(mode) if ascii_eq(mode, "ALL") => PauseMode::All,
        Some(mode) if ascii_eq(mode, "WRITE") => PauseMode::Write,
        Some(_) => return Err(CommandError::err("CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let timeout = parse_i64(args.at(2))
        .ok_or_else(|| CommandError::err("timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::err("timeout is negative"));
    }
    if timeout.checked_add(ctx.keys.now).is_none() {
        return Err(CommandError::err("timeout is out of range"));
    }
    let now = ctx.server.clock.monotonic();
    ctx.server.pause.extend(now, now + Duration::from_millis(timeout.unsigned_abs()), mode);
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CLIENT UNPAUSE`
pub(super) const CLIENT_UNPAUSE: ServerCommand =
    plain("client|unpause", client_unpause, 2, ADMIN | NOSCRIPT | LOADING | STALE | SENTINEL, "6.2.0");
fn client_unpause(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.server.pause.end();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `CLIENT UNBLOCK client-id [TIMEOUT | ERROR]`
pub(super) const CLIENT_UNBLOCK: ServerCommand =
    plain("client|unblock", client_unblock, -3, ADMIN | NOSCRIPT | LOADING | STALE | SENTINEL, "5.0.0");
fn client_unblock(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let how = match args.get(3) {
        None => Unblock::Timeout,
        Some(word) if ascii_eq(word, "TIMEOUT") => Unblock::Timeout,
        Some(word) if ascii_eq(word, "ERROR") => Unblock::Error,
        Some(_) => {
            return Err(CommandError::err("CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = parse_i64_arg(args.at(2))?;
    let client = u64::try_from(id).ok().and_then(|id| ctx.server.clients.get(id));
    ctx.out.integer(client.is_some_and(|c| c.unblock(how)).into());
    Ok(ServerOutcome::Reply)
}

/// `CLIENT HELP`
pub(super) const CLIENT_HELP: ServerCommand =
    plain("client|help", client_help, 2, LOADING | STALE | SENTINEL, "5.0.0");
fn client_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    help(
        ctx,
        &[
            "CACHING (YES|NO)",
            "    Whether what the next command reads is tracked.",
            "CAPA <capability> [<capability> ...]",
            "    Say what this connection understands: redirect.",
            "GETREDIR",
            "    Return the connection that is told in place of this one.",
            "GETNAME",
            "    Return the name of this connection.",
            "ID",
            "    Return the ID of this connection.",
            "INFO",
            "    Return what CLIENT LIST shows of this connection.",
            "KILL <ip:port>",
            "    Close the connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Close the connections for which all options hold: ID <client-id> [<client-id> ...],",
            "    TYPE (NORMAL|PRIMARY|REPLICA|PUBSUB), USER, ADDR, LADDR, IP, NAME, FLAGS, LIB-NAME, LIB-VER, DB, CAPA;",
            "    MAXAGE <seconds> and IDLE <seconds> ask for at least that much. With NOT- before the name an option",
            "    asks for the opposite (all but MAXAGE and IDLE). SKIPME (YES|NO): spare this connection (default: yes).",
            "LIST [options ...]",
            "    Describe all connections, or those for which all options hold: as for KILL (SKIPME: default no).",
            "NO-EVICT (ON|OFF)",
            "    Protect this connection from being closed for its use of memory.",
            "NO-TOUCH (ON|OFF)",
            "    Whether commands of this connection count as access to keys.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Let all commands, or those that write, wait for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Whether this connection gets replies; SKIP leaves one out.",
            "SETINFO <option> <value>",
            "    Name the client library: LIB-NAME or LIB-VER.",
            "SETNAME <name>",
            "    Give this connection a name.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
            "    Tell this connection when keys change that it has read, or that begin with a prefix.",
            "TRACKINGINFO",
            "    Say what this connection is told of.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    End the wait of a blocked client.",
            "UNPAUSE",
            "    End a pause.",
        ],
    )
}
