//! PING, ECHO, SELECT, RESET, QUIT.

use keyward_proto::resp::{Args, Version};

use crate::command::{CommandError, CommandResult, Ctx, Outcome, parse_i32_arg};
use crate::execute;
use crate::session::ReplyMode;

/// `ECHO message`
pub(in crate::command) fn echo(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.bulk(args.at(1));
    Ok(Outcome::Reply)
}

/// `PING [message]`: a client of RESP2 that has subscriptions gets the shape of a message.
pub(in crate::command) fn ping(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
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
    Ok(Outcome::Reply)
}

/// `QUIT`
pub(in crate::command) fn quit(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    ctx.out.ok();
    Ok(Outcome::Close)
}

/// `SELECT index`
pub(in crate::command) fn select(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    let index = parse_i32_arg(args.at(1))?;
    ctx.session.db = u16::try_from(index)
        .ok()
        .filter(|db| *db < ctx.server.settings().databases)
        .ok_or_else(|| CommandError::err("DB index is out of range"))?;
    ctx.session.describe();
    ctx.out.ok();
    Ok(Outcome::Reply)
}

/// `RESET`: the session is as new, except for the library's name and version.
pub(in crate::command) fn reset(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    let session = &mut *ctx.session;
    session.transaction = None;
    execute::unwatch(session, ctx.keys);
    ctx.server.pubsub.end(session);
    session.db = 0;
    session.version = Version::Resp2;
    session.authenticated = ctx.server.settings().requirepass.is_empty();
    if session.reply_mode == ReplyMode::Off {
        session.reply_mode = ReplyMode::On;
    }
    session.readonly = false;
    session.asking = false;
    session.no_touch = false;
    session.download = Default::default();
    {
        let mut description = session.client.description.lock();
        description.name = Box::default();
        description.no_evict = false;
    }
    session.describe();
    ctx.out.simple("RESET");
    Ok(Outcome::Reply)
}
