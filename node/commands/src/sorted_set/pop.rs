//! Taking the lowest or highest members: ZPOPMIN, ZPOPMAX, ZMPOP and their blocking forms.

use keyward_proto::resp::Args;

use super::after_removal;
use crate::args::parse_positive;
use crate::spec::{ACCESS, BLOCKING, DELETE, FAST, RW};
use crate::{
    Block, CommandError, CommandResult, Cursor, DataCommand, DataContext, OnTimeout, Outcome, parse_count,
    parse_timeout, write,
};
use keyward_store::types::SortedSetMut;

/// The end from which members are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn command(self) -> &'static [u8] {
        match self {
            End::Min => b"ZPOPMIN",
            End::Max => b"ZPOPMAX",
        }
    }

    fn event(self) -> &'static str {
        match self {
            End::Min => "zpopmin",
            End::Max => "zpopmax",
        }
    }
}

/// The shape of a reply: what surrounds the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `member score member score ...`
    Flat,
    /// `[[member score] ...]`
    Pairs,
    /// `key member score`
    KeyAndFlat,
    /// `[key [[member score] ...]]`
    KeyAndPairs,
}

/// `ZPOPMIN key [count]`
pub(super) const ZPOPMIN: DataCommand =
    write("zpopmin", zpopmin, -2, FAST, "5.0.0").key(1, RW | ACCESS | DELETE);
fn zpopmin(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    pop_one_key(ctx, args, End::Min)
}

/// `ZPOPMAX key [count]`
pub(super) const ZPOPMAX: DataCommand =
    write("zpopmax", zpopmax, -2, FAST, "5.0.0").key(1, RW | ACCESS | DELETE);
fn zpopmax(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    pop_one_key(ctx, args, End::Max)
}

fn pop_one_key(ctx: &mut DataContext<'_, '_>, args: Args<'_>, end: End) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let key = args.at(1);
    let count = args.get(2).map(parse_count).transpose()?;
    let Some(set) = ctx.keys.sorted_set_mut(key)? else {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    if count == Some(0) {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    }
    let shape = if count.is_some() && ctx.out.is_resp3() { Shape::Pairs } else { Shape::Flat };
    let taken = take(set, end, count.unwrap_or(1));
    write_taken(ctx, key, &taken, shape);
    ctx.keys.propagate(key, args);
    after_removal(ctx, key, end.event());
    Ok(Outcome::Reply)
}

/// `ZMPOP numkeys key [key ...] MIN | MAX [COUNT count]`
pub(super) const ZMPOP: DataCommand =
    write("zmpop", zmpop, -4, 0, "7.0.0").counted_keys(1, 1, RW | ACCESS | DELETE);
fn zmpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let MultiPop { keys, end, count, count_text } = MultiPop::parse(args, 1)?;
    if !pop_first(ctx, keys, end, count, &[count_text], Shape::KeyAndPairs)? {
        ctx.out.null_array();
    }
    Ok(Outcome::Reply)
}

/// `BZMPOP timeout numkeys key [key ...] MIN | MAX [COUNT count]`
pub(super) const BZMPOP: DataCommand =
    write("bzmpop", bzmpop, -5, BLOCKING, "7.0.0").counted_keys(2, 1, RW | ACCESS | DELETE);
fn bzmpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let MultiPop { keys, end, count, count_text } = MultiPop::parse(args, 2)?;
    let timeout_ms = parse_timeout(args.at(1), ctx.keys.now)?;
    if pop_first(ctx, keys.clone(), end, count, &[count_text], Shape::KeyAndPairs)? {
        return Ok(Outcome::Reply);
    }
    Ok(wait(keys, timeout_ms))
}

/// `BZPOPMIN key [key ...] timeout`
pub(super) const BZPOPMIN: DataCommand =
    write("bzpopmin", bzpopmin, -3, FAST | BLOCKING, "5.0.0").keys(1, -2, 1, RW | ACCESS | DELETE);
fn bzpopmin(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    blocking_pop(ctx, args, End::Min)
}

/// `BZPOPMAX key [key ...] timeout`
pub(super) const BZPOPMAX: DataCommand =
    write("bzpopmax", bzpopmax, -3, FAST | BLOCKING, "5.0.0").keys(1, -2, 1, RW | ACCESS | DELETE);
fn bzpopmax(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    blocking_pop(ctx, args, End::Max)
}

fn blocking_pop(ctx: &mut DataContext<'_, '_>, args: Args<'_>, end: End) -> CommandResult {
    let last = args.len() - 1;
    let timeout_ms = parse_timeout(args.at(last), ctx.keys.now)?;
    let keys = (1..last).map(move |at| args.at(at));
    if pop_first(ctx, keys.clone(), end, 1, &[], Shape::KeyAndFlat)? {
        return Ok(Outcome::Reply);
    }
    Ok(wait(keys, timeout_ms))
}

fn wait<'a>(keys: impl Iterator<Item = &'a [u8]>, timeout_ms: u64) -> Outcome {
    let keys = keys.map(Into::into).collect();
    let null = OnTimeout::NullArray;
    Outcome::Block(Block::new(keys, timeout_ms, null, null))
}

/// The arguments of ZMPOP and BZMPOP.
struct MultiPop<'a, K> {
    keys: K,
    end: End,
    count: usize,
    /// As it was given, for the effect.
    count_text: &'a [u8],
}

impl<'a> MultiPop<'a, ()> {
    /// Reads from `numkeys`, which is at `number`, on.
    fn parse(
        args: Args<'a>,
        number: usize,
    ) -> Result<MultiPop<'a, impl Iterator<Item = &'a [u8]> + Clone>, CommandError> {
        let key_count = parse_positive(args.at(number), "numkeys should be greater than 0")?;
        let mut options = Cursor::new(args, key_count.saturating_add(number + 1));
        let end_at = options.position();
        let end = if options.word("min") {
            End::Min
        } else if options.word("max") {
            End::Max
        } else {
            return Err(CommandError::Syntax);
        };
        let count_text = match options.value_of("count") {
            Some(count) => count,
            None if options.is_at_end() => b"1",
            None => return Err(CommandError::Syntax),
        };
        let count = parse_positive(count_text, "count should be greater than 0")?;
        options.finish()?;
        let keys = (number + 1..end_at).map(move |at| args.at(at));
        Ok(MultiPop { keys, end, count, count_text })
    }
}

/// Pops from the first key that exists; whether there was one. The effect is ZPOPMIN or ZPOPMAX with `effect_args`.
fn pop_first<'a>(
    ctx: &mut DataContext<'_, '_>,
    keys: impl Iterator<Item = &'a [u8]>,
    end: End,
    count: usize,
    effect_args: &[&[u8]],
    shape: Shape,
) -> Result<bool, CommandError> {
    for key in keys {
        let Some(set) = ctx.keys.sorted_set_mut(key)? else { continue };
        let taken = take(set, end, count);
        write_taken(ctx, key, &taken, shape);
        let mut effect: Vec<&[u8]> = vec![end.command(), key];
        effect.extend(effect_args);
        ctx.keys.propagate_as(key, &effect);
        after_removal(ctx, key, end.event());
        return Ok(true);
    }
    Ok(false)
}

/// Removes up to `count` members from an end.
fn take(mut set: SortedSetMut<'_>, end: End, count: usize) -> Vec<(Box<[u8]>, f64)> {
    let len = set.len();
    let count = count.min(len);
    let range = match end {
        End::Min => 0..count,
        End::Max => len - count..len,
    };
    let mut taken: Vec<_> = set.as_ref().range(range.clone()).map(|(m, score)| (m.into(), score)).collect();
    if end == End::Max {
        taken.reverse();
    }
    set.remove_range(range);
    taken
}

fn write_taken(ctx: &mut DataContext<'_, '_>, key: &[u8], taken: &[(Box<[u8]>, f64)], shape: Shape) {
    let out = &mut ctx.out;
    match shape {
        Shape::Flat => out.array(taken.len() * 2),
        Shape::Pairs => out.array(taken.len()),
        Shape::KeyAndFlat => {
            out.array(taken.len() * 2 + 1);
            out.bulk(key);
        }
        Shape::KeyAndPairs => {
            out.array(2);
            out.bulk(key);
            out.array(taken.len());
        }
    }
    for (member, score) in taken {
        if matches!(shape, Shape::Pairs | Shape::KeyAndPairs) {
            out.array(2);
        }
        out.bulk(member);
        out.double(*score);
    }
}
