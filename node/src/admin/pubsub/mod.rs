//! Publish and subscribe: channels, patterns, and shard channels, which belong to a slot in cluster mode.
//!
//! A confirmation leaves in order with the messages: what was published before an unsubscription is sent before its
//! confirmation, and nothing after it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use keyward_proto::resp::Args;
use keyward_replication::reply::ReplyCondition;

use crate::admin::{ServerCommand, ServerContext, ServerOutcome, ServerResult, container, help, plain};
use crate::command::spec::{
    FAST, Flags, Group, LOADING, MAY_REPLICATE, NOSCRIPT, NOT_KEY, SENTINEL, STALE, SUBSCRIPTION, Scope,
    family,
};
use crate::command::{CommandError, spec};
use crate::io::session::Subscriptions;
use crate::message::{ChannelKind, Message};
use crate::pubsub::{Kind, To};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [ServerCommand; 15] = family(Group::Pubsub, [
    PSUBSCRIBE, PUBLISH, PUBSUB, PUBSUB_CHANNELS, PUBSUB_HELP, PUBSUB_NUMPAT, PUBSUB_NUMSUB,
    PUBSUB_SHARDCHANNELS, PUBSUB_SHARDNUMSUB, PUNSUBSCRIBE, SPUBLISH, SSUBSCRIBE, SUBSCRIBE,
    SUNSUBSCRIBE, UNSUBSCRIBE,
]);

/// The flags of all commands that change subscriptions.
const SUBSCRIBING: Flags = spec::PUBSUB | NOSCRIPT | LOADING | STALE | SUBSCRIPTION;

/// `PUBSUB subcommand`
const PUBSUB: ServerCommand = container("pubsub", 0, "2.8.0");

/// `SUBSCRIBE channel [channel ...]`
const SUBSCRIBE: ServerCommand = plain("subscribe", subscribe, -2, SUBSCRIBING | SENTINEL, "2.0.0");
fn subscribe(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    subscribe_to(ctx, Kind::Channel, "subscribe", args)
}

/// `PSUBSCRIBE pattern [pattern ...]`
const PSUBSCRIBE: ServerCommand = plain("psubscribe", psubscribe, -2, SUBSCRIBING | SENTINEL, "2.0.0");
fn psubscribe(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    subscribe_to(ctx, Kind::Pattern, "psubscribe", args)
}

/// `SSUBSCRIBE shardchannel [shardchannel ...]`
const SSUBSCRIBE: ServerCommand =
    plain("ssubscribe", ssubscribe, -2, SUBSCRIBING, "7.0.0").keys(1, -1, 1, NOT_KEY).scope(Scope::None);
fn ssubscribe(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    subscribe_to(ctx, Kind::Sharded, "ssubscribe", args)
}

/// `UNSUBSCRIBE [channel [channel ...]]`
const UNSUBSCRIBE: ServerCommand = plain("unsubscribe", unsubscribe, -1, SUBSCRIBING | SENTINEL, "2.0.0");
fn unsubscribe(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    unsubscribe_from(ctx, Kind::Channel, "unsubscribe", args)
}

/// `PUNSUBSCRIBE [pattern [pattern ...]]`
const PUNSUBSCRIBE: ServerCommand = plain("punsubscribe", punsubscribe, -1, SUBSCRIBING | SENTINEL, "2.0.0");
fn punsubscribe(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    unsubscribe_from(ctx, Kind::Pattern, "punsubscribe", args)
}

/// `SUNSUBSCRIBE [shardchannel [shardchannel ...]]`
const SUNSUBSCRIBE: ServerCommand =
    plain("sunsubscribe", sunsubscribe, -1, SUBSCRIBING, "7.0.0").keys(1, -1, 1, NOT_KEY).scope(Scope::None);
fn sunsubscribe(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
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

fn confirm(ctx: &mut ServerContext<'_, '_>, kind: Kind, word: &str, name: Option<&[u8]>) {
    if !ctx.session.in_exec {
        let session = &mut *ctx.session;
        for push in session.client.take_pushes() {
            session.pushed.join(push.condition);
            ctx.out.shared(&push.message);
        }
    }
    ctx.out.push(3);
    ctx.out.bulk_str(word);
    ctx.out.optional_bulk(name);
    ctx.out.len(count(&ctx.session.subscriptions, kind));
}

fn subscribe_to(ctx: &mut ServerContext<'_, '_>, kind: Kind, word: &str, args: Args<'_>) -> ServerResult {
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
    Ok(ServerOutcome::Reply)
}

fn unsubscribe_from(ctx: &mut ServerContext<'_, '_>, kind: Kind, word: &str, args: Args<'_>) -> ServerResult {
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
    Ok(ServerOutcome::Reply)
}

/// `PUBLISH channel message`
const PUBLISH: ServerCommand =
    plain("publish", publish, 3, spec::PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE | SENTINEL, "2.0.0");
fn publish(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    publish_to(ctx, ChannelKind::Global, args)
}

/// `SPUBLISH shardchannel message`
const SPUBLISH: ServerCommand =
    plain("spublish", spublish, 3, spec::PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE, "7.0.0")
        .key(1, NOT_KEY)
        .scope(Scope::None);
fn spublish(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    publish_to(ctx, ChannelKind::Shard, args)
}

fn publish_to(ctx: &mut ServerContext<'_, '_>, kind: ChannelKind, args: Args<'_>) -> ServerResult {
    let (channel, message) = (args.at(1), args.at(2));
    let receivers = if ctx.session.in_exec {
        // The others get it when what the transaction does is in the log, and see it when that is committed.
        let own = To::Only(ctx.session.client.id);
        let behind = ctx.keys.events_len();
        ctx.session.published.push((behind, Message::new(channel, message, kind)));
        ctx.server.publish_here((channel, message), kind, own, ReplyCondition::default())
    } else {
        ctx.server.publish(channel, message, kind)
    };
    ctx.out.len(receivers);
    Ok(ServerOutcome::Reply)
}

/// `PUBSUB CHANNELS [pattern]`
const PUBSUB_CHANNELS: ServerCommand =
    plain("pubsub|channels", pubsub_channels, -2, spec::PUBSUB | LOADING | STALE, "2.8.0");
fn pubsub_channels(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    active(ctx, ChannelKind::Global, args)
}

/// `PUBSUB SHARDCHANNELS [pattern]`
const PUBSUB_SHARDCHANNELS: ServerCommand =
    plain("pubsub|shardchannels", pubsub_shardchannels, -2, spec::PUBSUB | LOADING | STALE, "7.0.0");
fn pubsub_shardchannels(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    active(ctx, ChannelKind::Shard, args)
}

fn active(ctx: &mut ServerContext<'_, '_>, kind: ChannelKind, args: Args<'_>) -> ServerResult {
    if 3 < args.len() {
        let before = "unknown subcommand or wrong number of arguments for '";
        return Err(CommandError::quoting(before, args.at(1), "'. Try PUBSUB HELP."));
    }
    let channels = ctx.server.pubsub.active(kind, args.get(2));
    ctx.out.array(channels.len());
    channels.iter().for_each(|channel| ctx.out.bulk(channel));
    Ok(ServerOutcome::Reply)
}

/// `PUBSUB NUMPAT`
const PUBSUB_NUMPAT: ServerCommand =
    plain("pubsub|numpat", pubsub_numpat, 2, spec::PUBSUB | LOADING | STALE, "2.8.0");
fn pubsub_numpat(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
    ctx.out.len(ctx.server.pubsub.pattern_count());
    Ok(ServerOutcome::Reply)
}

/// `PUBSUB NUMSUB [channel [channel ...]]`
const PUBSUB_NUMSUB: ServerCommand =
    plain("pubsub|numsub", pubsub_numsub, -2, spec::PUBSUB | LOADING | STALE, "2.8.0");
fn pubsub_numsub(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    subscriber_counts(ctx, ChannelKind::Global, args)
}

/// `PUBSUB SHARDNUMSUB [shardchannel [shardchannel ...]]`
const PUBSUB_SHARDNUMSUB: ServerCommand =
    plain("pubsub|shardnumsub", pubsub_shardnumsub, -2, spec::PUBSUB | LOADING | STALE, "7.0.0");
fn pubsub_shardnumsub(ctx: &mut ServerContext<'_, '_>, args: Args<'_>) -> ServerResult {
    subscriber_counts(ctx, ChannelKind::Shard, args)
}

fn subscriber_counts(ctx: &mut ServerContext<'_, '_>, kind: ChannelKind, args: Args<'_>) -> ServerResult {
    ctx.out.array((args.len() - 2) * 2);
    for channel in args.iter().skip(2) {
        ctx.out.bulk(channel);
        ctx.out.len(ctx.server.pubsub.subscriber_count(kind, channel));
    }
    Ok(ServerOutcome::Reply)
}

/// `PUBSUB HELP`
const PUBSUB_HELP: ServerCommand = plain("pubsub|help", pubsub_help, 2, LOADING | STALE, "6.2.0");
fn pubsub_help(ctx: &mut ServerContext<'_, '_>, _args: Args<'_>) -> ServerResult {
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
