//! MEMORY USAGE: what a key takes.

use keyward_proto::resp::Args;

use crate::command::{CommandError, CommandResult, Ctx, Outcome, ascii_eq, help, parse_i64_arg};
use crate::keyspace::entry::{Entry, ValueRef};

/// Elements looked at by default; the rest is taken to be like them.
const SAMPLES: usize = 5;
/// What a collection needs per element beside its bytes: pointers, lengths, the allocator's rounding.
const ELEMENT_OVERHEAD_BYTES: usize = 32;

/// `MEMORY USAGE key [SAMPLES count]`
pub(in crate::command) fn memory_usage(ctx: &mut Ctx<'_, '_>, args: Args<'_>) -> CommandResult {
    let mut samples = SAMPLES;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        if !ascii_eq(word, "SAMPLES") || at + 1 == args.len() {
            return Err(CommandError::Syntax);
        }
        samples = match parse_i64_arg(args.at(at + 1))? {
            0 => usize::MAX,
            count => usize::try_from(count).map_err(|_| CommandError::Syntax)?,
        };
        at += 2;
    }
    match ctx.keys.get(args.at(2)) {
        Some(entry) => ctx.out.len(usage(entry, samples)),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

fn usage(entry: &Entry, samples: usize) -> usize {
    let value = match entry.value() {
        ValueRef::String(v) if entry.is_raw() => v.len(),
        ValueRef::String(_) => 0,
        ValueRef::List(v) => estimate(v.len(), samples, v.iter().map(|e| e.len())),
        ValueRef::Set(v) => estimate(v.len(), samples, v.iter().map(|m| m.len())),
        ValueRef::Hash(v) => estimate(v.len(), samples, v.iter().map(|(f, v)| f.len() + v.len())),
        ValueRef::SortedSet(v) => {
            estimate(v.len(), samples, v.iter().map(|(m, _)| m.len() + size_of::<f64>()))
        }
    };
    entry.allocation_len() + size_of::<Entry>() + value
}

fn estimate(len: usize, samples: usize, sizes: impl Iterator<Item = usize>) -> usize {
    let (count, sum) = sizes.take(samples).fold((0, 0), |(n, sum), size| (n + 1, sum + size));
    len * ELEMENT_OVERHEAD_BYTES + sum * len / count.max(1)
}

/// `MEMORY HELP`
pub(in crate::command) fn memory_help(ctx: &mut Ctx<'_, '_>, _args: Args<'_>) -> CommandResult {
    help(
        ctx,
        &[
            "USAGE <key> [SAMPLES <count>]",
            "    Return the bytes that <key> and its value take; of a collection <count> elements are",
            "    looked at (default: 5; 0: all).",
        ],
    )
}
