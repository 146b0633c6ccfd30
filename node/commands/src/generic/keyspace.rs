//! Which keys there are, what they are, and deleting them.

use keyward_proto::glob;
use keyward_proto::resp::Args;

use crate::scan::{ScanOptions, Scanned, is_live, parse_cursor};
use crate::{CommandResult, DataCommand, DataContext, Outcome, read, write};

use crate::spec::{DELETE, FAST, RM, RO, Scope, TOUCHES_ARBITRARY_KEYS, category};
use keyward_store::events::EventClass;
use keyward_store::lazyfree::Cause;

/// `DEL key [key ...]`
pub(super) const DEL: DataCommand = write("del", del, -2, 0, "1.0.0")
    .keys(1, -1, 1, RM | DELETE)
    .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]);
fn del(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    delete(ctx, args, Cause::Deleted)
}

/// `UNLINK key [key ...]`
pub(super) const UNLINK: DataCommand = write("unlink", unlink, -2, FAST, "4.0.0")
    .keys(1, -1, 1, RM | DELETE)
    .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]);
fn unlink(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    delete(ctx, args, Cause::Unlinked)
}

fn delete(ctx: &mut DataContext<'_, '_>, args: Args<'_>, cause: Cause) -> CommandResult {
    let one_slot = ctx.keys.is_one_slot();
    let mut count = 0;
    for key in args.iter().skip(1) {
        let Some(entry) = ctx.keys.remove_live(key) else { continue };
        ctx.keys.discard(entry, cause);
        count += 1;
        if !one_slot {
            ctx.keys.propagate_as(key, &[b"DEL", key]);
        }
        ctx.keys.notify(EventClass::Generic, "del", key);
    }
    if one_slot && count > 0 {
        ctx.keys.propagate(args.at(1), args);
    }
    ctx.out.len(count);
    Ok(Outcome::Reply)
}

/// `EXISTS key [key ...]`: a key that is named twice counts twice.
pub(super) const EXISTS: DataCommand = read("exists", exists, -2, FAST, "1.0.0")
    .keys(1, -1, 1, RO)
    .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]);
fn exists(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let count = args.iter().skip(1).filter(|key| ctx.keys.peek(key).is_some()).count();
    ctx.out.len(count);
    Ok(Outcome::Reply)
}

/// `TOUCH key [key ...]`: works for clients with NO-TOUCH too.
pub(super) const TOUCH: DataCommand = read("touch", touch, -2, FAST, "3.2.1")
    .keys(1, -1, 1, RO)
    .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]);
fn touch(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let touched = |key: &&[u8]| ctx.keys.peek(key).map(|entry| ctx.keys.touch(entry)).is_some();
    let count = args.iter().skip(1).filter(touched).count();
    ctx.out.len(count);
    Ok(Outcome::Reply)
}

/// `TYPE key`
pub(super) const TYPE: DataCommand = read("type", type_, 2, FAST, "1.0.0").key(1, RO);
fn type_(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let name = ctx.keys.peek(args.at(1)).map_or("none", |entry| entry.value().type_name());
    ctx.out.simple(name);
    Ok(Outcome::Reply)
}

/// `RANDOMKEY`
pub(super) const RANDOMKEY: DataCommand = read("randomkey", randomkey, 1, TOUCHES_ARBITRARY_KEYS, "1.0.0")
    .tips(&["request_policy:all_shards", "response_policy:special", "nondeterministic_output"])
    .scope(Scope::Walk);
fn randomkey(ctx: &mut DataContext<'_, '_>, _args: Args<'_>) -> CommandResult {
    let key = ctx.keys.random_key(ctx.rng);
    ctx.out.optional_bulk(key.as_deref());
    Ok(Outcome::Reply)
}

/// `KEYS pattern`
pub(super) const KEYS: DataCommand = read("keys", keys, 2, 0, "1.0.0")
    .categories(category::DANGEROUS | category::KEYSPACE)
    .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
    .scope(Scope::Walk);
fn keys(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let pattern = args.at(1);
    let now = ctx.keys.now;
    let start = ctx.out.deferred();
    let (mut count, mut cursor) = (0, Some(0));
    while let Some(at) = cursor
        && !ctx.out.is_full()
    {
        cursor = ctx.keys.scan(at, &mut |entry| {
            if is_live(entry, now) && (pattern == b"*" || glob::matches(pattern, entry.key())) {
                ctx.out.bulk(entry.key());
                count += 1;
            }
        });
    }
    ctx.out.finish_array(start, count);
    Ok(Outcome::Reply)
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
///
/// Differs from Valkey: the cursor's numbers mean a slot and a position in it, whatever the number of slots is.
pub(super) const SCAN: DataCommand = read("scan", scan, -2, TOUCHES_ARBITRARY_KEYS, "2.8.0")
    .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
    .scope(Scope::Walk);
fn scan(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let cursor = parse_cursor(args.at(1))?;
    let options = ScanOptions::parse(args, 2, Scanned::Keys)?;
    let now = ctx.keys.now;
    let start = ctx.out.deferred();
    let elements = &mut ctx.out;
    let (mut visited, mut count) = (0, 0);
    let mut next = Some(cursor);
    while let Some(at) = next
        && visited < options.count
        && !elements.is_full()
    {
        next = ctx.keys.scan(at, &mut |entry| {
            visited += 1;
            if options.shows(entry, now) {
                elements.bulk(entry.key());
                count += 1;
            }
        });
    }
    elements.finish(start, |out| {
        out.array(2);
        out.bulk_str(itoa::Buffer::new().format(next.unwrap_or(0)));
        out.array(count);
    });
    Ok(Outcome::Reply)
}
