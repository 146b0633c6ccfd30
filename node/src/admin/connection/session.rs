//! PING, ECHO, SELECT, RESET, QUIT.

use keyward_proto::resp::{Args, Version};

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, plain};
use crate::command::spec::{
    ALLOW_BUSY, FAST, FOR_SUBSCRIBERS, HEALTH_CHECK, LOADING, NEVER_QUEUED, NO_AUTH, NOSCRIPT, SENTINEL,
    STALE,
};
use crate::command::{CommandError, parse_i32_arg};
use crate::io::session::ReplyMode;

/// `ECHO message`
pub(super) const ECHO: ServerCommand = plain("echo", echo, 2, LOADING | STALE | FAST, "1.0.0");
fn echo(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    ctx.out.bulk(args.at(1));
    Ok(ServerOutcome::Reply)
}

/// `PING [message]`: a client of RESP2 that has subscriptions gets the shape of a message.
pub(super) const PING: ServerCommand =
    plain("ping", ping, -1, FAST | SENTINEL | FOR_SUBSCRIBERS | HEALTH_CHECK, "1.0.0")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]);
fn ping(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    if 2 < args.len() {
        return Err(CommandError::WrongArity("ping".into()));
    }
    match args.get(1) {
        message if ctx.session.only_subscription_commands() => {
            ctx.out.array(2);
            ctx.out.bulk_str("pong");
            ctx.out.bulk(message.unwrap_or_default());
        }
        Some(message) => ctx.out.bulk(message),
        None => ctx.out.simple("PONG"),
    }
    Ok(ServerOutcome::Reply)
}

/// `QUIT`
pub(super) const QUIT: ServerCommand = plain(
    "quit",
    quit,
    -1,
    ALLOW_BUSY | NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | NEVER_QUEUED | FOR_SUBSCRIBERS,
    "1.0.0",
);
fn quit(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.ok();
    Ok(ServerOutcome::Close)
}

/// `SELECT index`
pub(super) const SELECT: ServerCommand =
    plain("select", select, 2, ALLOW_BUSY | LOADING | STALE | FAST, "1.0.0");
fn select(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    let index = parse_i32_arg(args.at(1))?;
    ctx.session.db = u16::try_from(index)
        .ok()
        .filter(|db| *db < ctx.server.settings().databases())
        .ok_or_else(|| CommandError::err("DB index is out of range"))?;
    ctx.session.describe();
    ctx.out.ok();
    Ok(ServerOutcome::Reply)
}

/// `RESET`: the session is as new, except for the library's name and version.
pub(super) const RESET: ServerCommand = plain(
    "reset",
    reset,
    1,
    NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY | NEVER_QUEUED | FOR_SUBSCRIBERS,
    "6.2.0",
);
fn reset(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    super::tracking::end(ctx);
    let session = &mut *ctx.session;
    session.transaction = None;
    session.unwatch(ctx.keys);
    ctx.server.pubsub.end(session);
    session.db = 0;
    session.version = Version::Resp2;
    session.forget_user(&ctx.server.settings());
    if session.reply_mode == ReplyMode::Off {
        session.reply_mode = ReplyMode::On;
    }
    session.readonly = false;
    session.asking = false;
    session.no_touch = false;
    if std::mem::take(&mut session.is_monitor) {
        ctx.server.end_monitoring(&session.client);
    }
    session.download = Default::default();
    {
        let mut description = session.client.description.lock();
        description.name = Box::default();
        description.no_evict = false;
        description.tracking_broken = false;
    }
    session.describe();
    ctx.out.simple("RESET");
    Ok(ServerOutcome::Reply)
}
