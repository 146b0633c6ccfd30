//! Intersection, union and difference of sets: as a reply, as a number, or stored under another key.

use std::collections::HashSet;

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_i64;

use crate::spec::{ACCESS, DENYOOM, OW, RO, UPDATE};
use crate::store::{Effect, store_result};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_positive, read, write,
};
use keyward_store::events::EventClass;
use keyward_store::keys::Keys;
use keyward_store::types::{Element, Set, SetLimits, SetRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

/// `SINTER key [key ...]`
pub(super) const SINTER: DataCommand = read("sinter", sinter, -2, 0, "1.0.0")
    .keys(1, -1, 1, RO | ACCESS)
    .tips(&["nondeterministic_output_order"]);
fn sinter(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply(ctx, args, Operation::Intersection)
}

/// `SUNION key [key ...]`
pub(super) const SUNION: DataCommand = read("sunion", sunion, -2, 0, "1.0.0")
    .keys(1, -1, 1, RO | ACCESS)
    .tips(&["nondeterministic_output_order"]);
fn sunion(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply(ctx, args, Operation::Union)
}

/// `SDIFF key [key ...]`
pub(super) const SDIFF: DataCommand =
    read("sdiff", sdiff, -2, 0, "1.0.0").keys(1, -1, 1, RO | ACCESS).tips(&["nondeterministic_output_order"]);
fn sdiff(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply(ctx, args, Operation::Difference)
}

/// `SINTERSTORE destination key [key ...]`
pub(super) const SINTERSTORE: DataCommand =
    write("sinterstore", sinterstore, -3, DENYOOM, "1.0.0").key(1, OW | UPDATE).keys(2, -1, 1, RO | ACCESS);
fn sinterstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    store(ctx, args, Operation::Intersection, "sinterstore")
}

/// `SUNIONSTORE destination key [key ...]`
pub(super) const SUNIONSTORE: DataCommand =
    write("sunionstore", sunionstore, -3, DENYOOM, "1.0.0").key(1, OW | UPDATE).keys(2, -1, 1, RO | ACCESS);
fn sunionstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    store(ctx, args, Operation::Union, "sunionstore")
}

/// `SDIFFSTORE destination key [key ...]`
pub(super) const SDIFFSTORE: DataCommand =
    write("sdiffstore", sdiffstore, -3, DENYOOM, "1.0.0").key(1, OW | UPDATE).keys(2, -1, 1, RO | ACCESS);
fn sdiffstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    store(ctx, args, Operation::Difference, "sdiffstore")
}

/// `SINTERCARD numkeys key [key ...] [LIMIT limit]`
pub(super) const SINTERCARD: DataCommand =
    read("sintercard", sintercard, -3, 0, "7.0.0").counted_keys(1, 1, RO | ACCESS);
fn sintercard(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key_count = parse_positive(args.at(1), "numkeys should be greater than 0")?;
    if args.len() - 2 < key_count {
        return Err(CommandError::err("Number of keys can't be greater than number of args"));
    }
    let mut limit = 0;
    let mut options = Cursor::new(args, 2 + key_count);
    while let Some(value) = options.value_of("limit") {
        let value = parse_i64(value).and_then(|v| usize::try_from(v).ok());
        limit = value.ok_or_else(|| CommandError::err("LIMIT can't be negative"))?;
    }
    options.finish()?;
    let sets = sets_at(ctx.keys, args.iter().skip(2).take(key_count))?;
    let mut count = 0;
    combine(Operation::Intersection, &sets, &mut |_| {
        count += 1;
        count != limit
    });
    ctx.out.len(count);
    Ok(Outcome::Reply)
}

fn reply(ctx: &mut DataContext<'_, '_>, args: Args<'_>, operation: Operation) -> CommandResult {
    let sets = sets_at(ctx.keys, args.iter().skip(1))?;
    let integers = |set: &Option<SetRef<'_>>| matches!(set, None | Some(SetRef::Intset(_)));
    if operation == Operation::Union && sets.iter().all(integers) {
        // In ascending order, as in Valkey.
        let mut result = Set::new(SetLimits { intset_entries: usize::MAX, ..SetLimits::default() });
        combine(operation, &sets, &mut |member| {
            result.insert(member);
            true
        });
        ctx.out.set(result.len());
        result.as_ref().iter().for_each(|member| ctx.out.bulk(&member));
        return Ok(Outcome::Reply);
    }
    let start = ctx.out.deferred();
    let mut count = 0;
    combine(operation, &sets, &mut |member| {
        ctx.out.bulk(member);
        count += 1;
        true
    });
    ctx.out.finish_set(start, count);
    Ok(Outcome::Reply)
}

/// The result in the form that Valkey gives it.
fn result_of(operation: Operation, sets: &[Option<SetRef<'_>>], limits: SetLimits) -> Set {
    let smallest = sets.iter().flatten().min_by_key(|set| set.len());
    let mut result = match (operation, smallest) {
        (Operation::Intersection, Some(SetRef::Listpack(_) | SetRef::Table(_))) => Set::new_listpack(limits),
        _ => Set::new(limits),
    };
    if operation == Operation::Difference && removing_is_cheaper(sets) {
        let (first, others) = sets.split_at(1);
        for member in first.iter().flatten().flat_map(|set| set.iter()) {
            result.insert(&member);
        }
        for member in others.iter().flatten().flat_map(|set| set.iter()) {
            result.remove(&member);
        }
        return result;
    }
    if operation == Operation::Union {
        result.as_mut().reserve(sets.iter().flatten().map(|set| set.len()).max().unwrap_or(0));
        // The result knows which members it has.
        for member in sets.iter().flatten().flat_map(|set| set.iter()) {
            result.insert(&member);
        }
        return result;
    }
    combine(operation, sets, &mut |member| {
        result.insert(member);
        true
    });
    if operation == Operation::Intersection { result.into_intset_if_possible() } else { result }
}

/// Whether Valkey computes a difference by removing from a copy of the first set: it shows in the result's form.
fn removing_is_cheaper(sets: &[Option<SetRef<'_>>]) -> bool {
    let Some(Some(first)) = sets.first() else { return false };
    let present = || sets.iter().flatten();
    present().map(|set| set.len()).sum::<usize>() < present().count() * first.len() / 2
}

fn store(
    ctx: &mut DataContext<'_, '_>,
    args: Args<'_>,
    operation: Operation,
    event: &'static str,
) -> CommandResult {
    let destination = args.at(1);
    let keys = &mut *ctx.keys;
    let sets = sets_at(keys, args.iter().skip(2))?;
    let result = result_of(operation, &sets, keys.limits().set);
    let effect = Effect::of(keys, args, destination, args.iter().skip(2));
    store_result(ctx, destination, (result.len(), result.into()), effect, (EventClass::Set, event))
}

/// All types are checked, also where another set is missing and the result is known.
fn sets_at<'k, 'a>(
    keys: &'k Keys<'_>,
    names: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Option<SetRef<'k>>>, CommandError> {
    names.map(|name| Ok(keys.set(name)?)).collect()
}

/// Visits each member of the result once, as long as `visit` asks for more; whether it saw them all.
fn combine(operation: Operation, sets: &[Option<SetRef<'_>>], visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let present = || sets.iter().copied().flatten();
    match operation {
        Operation::Intersection if sets.iter().any(Option::is_none) => true,
        Operation::Intersection => {
            let mut sets: Vec<SetRef<'_>> = present().collect();
            sets.sort_by_key(|set| set.len());
            let Some((smallest, others)) = sets.split_first() else { return true };
            smallest.iter().filter(|m| others.iter().all(|set| set.contains(m))).all(|m| visit(&m))
        }
        Operation::Union => {
            let mut seen: HashSet<Element<'_>, foldhash::fast::RandomState> = HashSet::default();
            let single = present().count() == 1;
            present().flat_map(SetRef::iter).filter(|m| single || seen.insert(*m)).all(|m| visit(&m))
        }
        Operation::Difference => {
            let Some((Some(first), others)) = sets.split_first() else { return true };
            let mut others: Vec<SetRef<'_>> = others.iter().copied().flatten().collect();
            // The largest excludes most.
            others.sort_by_key(|set| std::cmp::Reverse(set.len()));
            first.iter().filter(|m| !others.iter().any(|set| set.contains(m))).all(|m| visit(&m))
        }
    }
}
