//! What is known of a stream, its groups and their consumers: XINFO.

use keyward_proto::resp::{Args, ReplyWriter};
use keyward_store::types::StreamId;
use keyward_store::types::stream::{Consumer, Entry, Group, Stream, UNKNOWN};

use super::group::no_group;
use super::idempotence;
use super::range::{write_entries, write_entry};
use super::write_id;
use crate::spec::{ACCESS, LOADING, RO, STALE, category};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, container, parse_i64_arg, plain,
    read,
};

const HELP: &[&str] = &[
    "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CONSUMERS <key> <groupname>",
    "    Show consumers of <groupname>.",
    "GROUPS <key>",
    "    Show the stream consumer groups.",
    "STREAM <key> [FULL [COUNT <count>]",
    "    Show information about the stream.",
    "HELP",
    "    Print this help.",
];

/// `XINFO subcommand`
pub(super) const XINFO: DataCommand = container("xinfo", 0, "5.0.0");

/// `XINFO HELP`
pub(super) const XINFO_HELP: DataCommand =
    plain("xinfo|help", help, 2, LOADING | STALE, "5.0.0").categories(category::STREAM);
fn help(ctx: &mut DataContext<'_, '_>, _args: Args<'_>) -> CommandResult {
    ctx.out.array(HELP.len());
    HELP.iter().for_each(|line| ctx.out.simple(line));
    Ok(Outcome::Reply)
}

/// `XINFO STREAM key [FULL [COUNT count]]`
pub(super) const XINFO_STREAM: DataCommand = read("xinfo|stream", stream, -3, 0, "5.0.0").key(2, RO | ACCESS);
fn stream(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    // As in Valkey the key comes first.
    let stream = ctx.keys.stream(args.at(2))?.ok_or(CommandError::NoSuchKey)?;
    let full = parse_full(args)?;
    let out = &mut ctx.out;
    let produced = idempotence::info(stream).map_or(0, |fields| fields.len());
    out.map(produced + if full.is_some() { 9 } else { 10 });
    write_overview(stream, out);
    match full {
        Some(count) => write_full(stream, count, out),
        None => {
            out.bulk_str("groups");
            out.len(stream.group_count());
            out.bulk_str("first-entry");
            write_entry_or_null(stream.iter().next(), out);
            out.bulk_str("last-entry");
            write_entry_or_null(stream.last(), out);
        }
    }
    Ok(Outcome::Reply)
}

/// How many entries of each kind are wanted, if all is to be told.
fn parse_full(args: Args<'_>) -> Result<Option<usize>, CommandError> {
    const COUNT: usize = 10;
    let mut options = Cursor::new(args, 3);
    if options.is_at_end() {
        return Ok(None);
    }
    let syntax = || {
        let before = "unknown subcommand or wrong number of arguments for '";
        CommandError::quoting(before, args.at(1), "'. Try XINFO HELP.")
    };
    if !options.word("full") {
        return Err(syntax());
    }
    if options.is_at_end() {
        return Ok(Some(COUNT));
    }
    let count = options.value_of("count").filter(|_| options.is_at_end()).ok_or_else(syntax)?;
    Ok(Some(match parse_i64_arg(count)? {
        0 => usize::MAX,
        count => usize::try_from(count).unwrap_or(COUNT),
    }))
}

fn write_overview(stream: &Stream, out: &mut ReplyWriter<'_>) {
    out.bulk_str("length");
    out.integer(stream.len().cast_signed());
    out.bulk_str("radix-tree-keys");
    out.len(stream.node_count());
    out.bulk_str("radix-tree-nodes");
    out.len(stream.radix_tree_nodes());
    for (name, id) in
        [("last-generated-id", stream.last_id()), ("max-deleted-entry-id", stream.max_deleted_id())]
    {
        out.bulk_str(name);
        write_id(out, id);
    }
    out.bulk_str("entries-added");
    out.integer(stream.entries_added().cast_signed());
    out.bulk_str("recorded-first-entry-id");
    write_id(out, stream.first_id());
    idempotence::write_info(stream, out);
}

fn write_entry_or_null(entry: Option<Entry<'_>>, out: &mut ReplyWriter<'_>) {
    match entry {
        Some(entry) => write_entry(out, &entry),
        None => out.null(),
    }
}

fn write_full(stream: &Stream, count: usize, out: &mut ReplyWriter<'_>) {
    out.bulk_str("entries");
    write_entries(out, stream.iter().take(count));
    out.bulk_str("groups");
    out.array(stream.group_count());
    for (name, group) in stream.groups() {
        out.map(7);
        out.bulk_str("name");
        out.bulk(name);
        write_progress(stream, group, out);
        out.bulk_str("pel-count");
        out.len(group.pending_len());
        out.bulk_str("pending");
        out.array(count.min(group.pending_len()));
        for (id, pending) in group.pending(StreamId::ZERO, StreamId::MAX).take(count) {
            out.array(4);
            write_id(out, id);
            out.bulk(&pending.consumer);
            out.integer(pending.delivered_at);
            out.integer(pending.deliveries.cast_signed());
        }
        out.bulk_str("consumers");
        out.array(group.consumers().len());
        for (name, consumer) in group.consumers() {
            write_consumer(group, name, consumer, count, out);
        }
    }
}

/// Up to where a group has read.
fn write_progress(stream: &Stream, group: &Group, out: &mut ReplyWriter<'_>) {
    out.bulk_str("last-delivered-id");
    write_id(out, group.last_id);
    out.bulk_str("entries-read");
    write_known(Some(group.entries_read).filter(|read| *read != UNKNOWN), out);
    out.bulk_str("lag");
    write_known(stream.lag(group), out);
}

fn write_known(value: Option<i64>, out: &mut ReplyWriter<'_>) {
    match value {
        Some(value) => out.integer(value),
        None => out.null(),
    }
}

fn write_consumer(group: &Group, name: &[u8], consumer: &Consumer, count: usize, out: &mut ReplyWriter<'_>) {
    out.map(5);
    out.bulk_str("name");
    out.bulk(name);
    out.bulk_str("seen-time");
    out.integer(consumer.seen_at);
    out.bulk_str("active-time");
    out.integer(consumer.active_at);
    out.bulk_str("pel-count");
    out.len(consumer.pending().len());
    out.bulk_str("pending");
    out.array(count.min(consumer.pending().len()));
    for (id, pending) in consumer.pending().take(count).filter_map(|id| Some((id, group.pending_at(id)?))) {
        out.array(3);
        write_id(out, id);
        out.integer(pending.delivered_at);
        out.integer(pending.deliveries.cast_signed());
    }
}

/// `XINFO GROUPS key`
pub(super) const XINFO_GROUPS: DataCommand = read("xinfo|groups", groups, 3, 0, "5.0.0").key(2, RO | ACCESS);
fn groups(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let stream = ctx.keys.stream(args.at(2))?.ok_or(CommandError::NoSuchKey)?;
    let out = &mut ctx.out;
    out.array(stream.group_count());
    for (name, group) in stream.groups() {
        out.map(6);
        out.bulk_str("name");
        out.bulk(name);
        out.bulk_str("consumers");
        out.len(group.consumers().len());
        out.bulk_str("pending");
        out.len(group.pending_len());
        write_progress(stream, group, out);
    }
    Ok(Outcome::Reply)
}

/// `XINFO CONSUMERS key group`
pub(super) const XINFO_CONSUMERS: DataCommand =
    read("xinfo|consumers", consumers, 4, 0, "5.0.0").key(2, RO | ACCESS).tips(&["nondeterministic_output"]);
fn consumers(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let (key, name, now) = (args.at(2), args.at(3), ctx.keys.now);
    let stream = ctx.keys.stream(key)?.ok_or(CommandError::NoSuchKey)?;
    let group = stream.group(name).ok_or_else(|| no_group(name, key))?;
    let out = &mut ctx.out;
    out.array(group.consumers().len());
    for (name, consumer) in group.consumers() {
        let since = |at: i64| now.wrapping_sub(at).max(0);
        out.map(4);
        out.bulk_str("name");
        out.bulk(name);
        out.bulk_str("pending");
        out.len(consumer.pending().len());
        out.bulk_str("idle");
        out.integer(since(consumer.seen_at));
        out.bulk_str("inactive");
        out.integer(if consumer.active_at == UNKNOWN { UNKNOWN } else { since(consumer.active_at) });
    }
    Ok(Outcome::Reply)
}
