//! Publish and subscribe: channels, patterns, and shard channels, which belong to a slot in cluster mode.
//!
//! A confirmation leaves in order with the messages: what was published before an unsubscription is sent before its
//! confirmation, and nothing after it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use keyward_proto::resp::Args;

use super::{CommandError, CommandResult, Ctx, Outcome, help};
use crate::pubsub::Kind;
use crate::session::Subscriptions;

/// `SUBSCRIBE channel [channel ...]`
pub(super) fn subscribe(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    subscribe_to(ctx, Kind::Channel, "subscribe", args)
}

/// `PSUBSCRIBE pattern [pattern ...]`
pub(super) fn psubscribe(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    subscribe_to(ctx, Kind::Pattern, "psubscribe", args)
}

/// `SSUBSCRIBE shardchannel [shardchannel ...]`
pub(super) fn ssubscribe(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    subscribe_to(ctx, Kind::Sharded, "ssubscribe", args)
}

/// `UNSUBSCRIBE [channel [channel ...]]`
pub(super) fn unsubscribe(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    unsubscribe_from(ctx, Kind::Channel, "unsubscribe", args)
}

/// `PUNSUBSCRIBE [pattern [pattern ...]]`
pub(super) fn punsubscribe(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    unsubscribe_from(ctx, Kind::Pattern, "punsubscribe", args)
}

/// `SUNSUBSCRIBE [shardchannel [shardchannel ...]]`
pub(super) fn sunsubscribe(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    unsubscribe_from(ctx, Kind::Sharded, "sunsubscribe", args)
}

fn names(subscriptions: &mut Subscriptions, kind: Kind) -> &mut BTreeSet<Box<[u8]>> {
    match kind {
        Kind::Channel => &mut subscriptions.channels,
        Kind::Pattern => &mut subscriptions.patterns,
        Kind::Sharded => &mut subscriptions.sharded,
    }
}

/// What a confirmation counts: shard channels are counted by themselves.
fn count(subscriptions: &Subscriptions, kind: Kind) -> usize {
    match kind {
        Kind::Channel | Kind::Pattern => subscriptions.channels.len() + subscriptions.patterns.len(),
        Kind::Sharded => subscriptions.sharded.len(),
    }
}

fn confirm(ctx: &mut Ctx<'_, '_>, kind: Kind, word: &str, name: Option<&[u8]>) {
    if !ctx.session.in_exec {
        let session = &mut *ctx.session;
        for push in session.client.take_pushes() {
            session.pushed = push.depends_on.max(session.pushed);
            ctx.out.shared(&push.message);
        }
    }
    ctx.out.push(3);
    ctx.out.bulk_str(word);
    ctx.out.optional_bulk(name);
    ctx.out.len(count(&ctx.session.subscriptions, kind));
}

fn subscribe_to(ctx: &mut Ctx<'_, '_>, kind: Kind, word: &str, args: Args<'_>) -> CommandResult {
    for name in args.iter().skip(1) {
        if names(&mut ctx.session.subscriptions, kind).insert(name.into()) {
            // Before the registry has it, so that no message is pushed before its confirmation.
            confirm(ctx, kind, word, Some(name));
            ctx.server.pubsub.subscribe(kind, name, &ctx.session.client, ctx.session.version);
        } else {
            confirm(ctx, kind, word, Some(name));
        }
    }
    ctx.session.describe();
    Ok(Outcome::Reply)
}

fn unsubscribe_from(ctx: &mut Ctx<'_, '_>, kind: Kind, word: &str, args: Args<'_>) -> CommandResult {
    let named: Vec<Box<[u8]>> = if args.len() == 1 {
        names(&mut ctx.session.subscriptions, kind).iter().cloned().collect()
    } else {
        args.iter().skip(1).map(Into::into).collect()
    };
    if named.is_empty() {
        confirm(ctx, kind, word, None);
    }
    for name in named {
        if names(&mut ctx.session.subscriptions, kind).remove(&name) {
            ctx.server.pubsub.unsubscribe(kind, &name, ctx.session.client.id);
        }
        confirm(ctx, kind, word, Some(&name));
    }
    ctx.session.describe();
    Ok(Outcome::Reply)
}

/// `PUBLISH channel message`
pub(super) fn publish(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    publish_to(ctx, false, args)
}

/// `SPUBLISH shardchannel message`
pub(super) fn spublish(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    publish_to(ctx, true, args)
}

fn publish_to(ctx: &mut Ctx<'_, '_>, sharded: bool, args: Args<'_>) -> CommandResult {
    let (channel, message) = (args.at(1), args.at(2));
    ctx.out.len(ctx.server.publish(channel, message, sharded));
    Ok(Outcome::Reply)
}

/// `PUBSUB CHANNELS [pattern]`
pub(super) fn pubsub_channels(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    active(ctx, false, args)
}

/// `PUBSUB SHARDCHANNELS [pattern]`
pub(super) fn pubsub_shardchannels(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    active(ctx, true, args)
}

fn active(ctx: &mut Ctx<'_, '_>, sharded: bool, args: Args<'_>) -> CommandResult {
    if 3 < args.len() {
        let before = "unknown subcommand or wrong number of arguments for '";
        return Err(CommandError::quoting(before, args.at(1), "'. Try PUBSUB HELP."));
    }
    let channels = ctx.server.pubsub.active(sharded, args.get(2));
    ctx.out.array(channels.len());
    channels.iter().for_each(|channel| ctx.out.bulk(channel));
    Ok(Outcome::Reply)
}

/// `PUBSUB NUMPAT`
pub(super) fn pubsub_numpat(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    ctx.out.len(ctx.server.pubsub.pattern_count());
    Ok(Outcome::Reply)
}

/// `PUBSUB NUMSUB [channel [channel ...]]`
pub(super) fn pubsub_numsub(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    subscriber_counts(ctx, false, args)
}

/// `PUBSUB SHARDNUMSUB [shardchannel [shardchannel ...]]`
pub(super) fn pubsub_shardnumsub(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    subscriber_counts(ctx, true, args)
}

fn subscriber_counts(ctx: &mut Ctx<'_, '_>, sharded: bool, args: Args<'_>) -> CommandResult {
    ctx.out.array((args.len() - 2) * 2);
    for channel in args.iter().skip(2) {
        ctx.out.bulk(channel);
        ctx.out.len(ctx.server.pubsub.subscriber_count(sharded, channel));
    }
    Ok(Outcome::Reply)
}

/// `PUBSUB HELP`
pub(super) fn pubsub_help(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    help(
        ctx,
        &[
            "CHANNELS [<pattern>]",
            "    Return the channels that have subscribers (and match <pattern>).",
            "NUMPAT",
            "    Return the number of patterns with subscribers.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers of these channels, patterns left out.",
            "SHARDCHANNELS [<pattern>]",
            "    Return the shard channels that have subscribers (and match <pattern>).",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers of these shard channels.",
        ],
    )
}
