//! Taking elements off an end of a list: LPOP, RPOP, LMPOP, and BLPOP, BRPOP, BLMPOP, which wait for one.
//!
//! Whatever the command was, its effect is LPOP or RPOP of one list.

use keyward_proto::resp::Args;

use super::{elements_removed, parse_end, popped_event};
use crate::spec::{ACCESS, BLOCKING, DELETE, FAST, RW};
use crate::{
    Block, CommandError, CommandResult, Cursor, DataCommand, DataContext, OnTimeout, Outcome, parse_count,
    parse_positive, parse_timeout, write,
};
use keyward_store::types::End;

/// `LPOP key [count]`
pub(super) const LPOP: DataCommand = write("lpop", lpop, -2, FAST, "1.0.0").key(1, RW | ACCESS | DELETE);
fn lpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    pop(ctx, args, End::Left)
}

/// `RPOP key [count]`
pub(super) const RPOP: DataCommand = write("rpop", rpop, -2, FAST, "1.0.0").key(1, RW | ACCESS | DELETE);
fn rpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    pop(ctx, args, End::Right)
}

fn pop(ctx: &mut DataContext<'_, '_>, args: Args<'_>, end: End) -> CommandResult {
    if args.len() > 3 {
        return Err(CommandError::WrongArity(ctx.spec.name.into()));
    }
    let key = args.at(1);
    let count = args.get(2).map(parse_count).transpose()?;
    let Some(mut list) = ctx.keys.list_mut(key)? else {
        match count {
            Some(_) => ctx.out.null_array(),
            None => ctx.out.null(),
        }
        return Ok(Outcome::Reply);
    };
    if count == Some(0) {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    }
    let elements = list.as_ref().at_end(end, count.unwrap_or(1));
    let popped = elements.len();
    if count.is_some() {
        ctx.out.array(popped);
    }
    elements.for_each(|element| ctx.out.bulk(&element));
    list.drop_at_end(end, popped);
    ctx.keys.propagate(key, args);
    elements_removed(ctx.keys, key, popped_event(end));
    Ok(Outcome::Reply)
}

/// `LMPOP numkeys key [key ...] LEFT|RIGHT [COUNT count]`
pub(super) const LMPOP: DataCommand =
    write("lmpop", lmpop, -4, 0, "7.0.0").counted_keys(1, 1, RW | ACCESS | DELETE);
fn lmpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let request = MultiPop::parse(args, 1)?;
    if !request.run(ctx)? {
        ctx.out.null_array();
    }
    Ok(Outcome::Reply)
}

/// `BLMPOP timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]`
pub(super) const BLMPOP: DataCommand =
    write("blmpop", blmpop, -5, BLOCKING, "7.0.0").counted_keys(2, 1, RW | ACCESS | DELETE);
fn blmpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let request = MultiPop::parse(args, 2)?;
    let timeout_ms = parse_timeout(args.at(1), ctx.keys.now)?;
    if request.run(ctx)? {
        return Ok(Outcome::Reply);
    }
    Ok(wait_for(request.keys(), timeout_ms))
}

/// The request of LMPOP and BLMPOP.
#[derive(Debug)]
struct MultiPop<'a> {
    args: Args<'a>,
    first_key: usize,
    key_count: usize,
    end: End,
    count: usize,
}

impl<'a> MultiPop<'a> {
    /// `numkeys` is the position of that argument.
    fn parse(args: Args<'a>, numkeys: usize) -> Result<Self, CommandError> {
        let key_count = parse_positive(args.at(numkeys), "numkeys should be greater than 0")?;
        let first_key = numkeys + 1;
        let mut options = Cursor::new(args, first_key.saturating_add(key_count));
        let end = parse_end(options.take().ok_or(CommandError::Syntax)?)?;
        let count = options.value_of("count");
        let count = count.map(|value| parse_positive(value, "count should be greater than 0")).transpose()?;
        options.finish()?;
        Ok(MultiPop { args, first_key, key_count, end, count: count.unwrap_or(1) })
    }

    fn keys(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.args.iter().skip(self.first_key).take(self.key_count)
    }

    /// Pops from the first list that is there; whether there was one.
    fn run(&self, ctx: &mut DataContext<'_, '_>) -> Result<bool, CommandError> {
        for key in self.keys() {
            let Some(mut list) = ctx.keys.list_mut(key)? else { continue };
            let elements = list.as_ref().at_end(self.end, self.count);
            let popped = elements.len();
            ctx.out.array(2);
            ctx.out.bulk(key);
            ctx.out.array(popped);
            elements.for_each(|element| ctx.out.bulk(&element));
            list.drop_at_end(self.end, popped);
            ctx.keys.propagate_as(key, &[pop_command(self.end), key, popped.to_string().as_bytes()]);
            elements_removed(ctx.keys, key, popped_event(self.end));
            return Ok(true);
        }
        Ok(false)
    }
}

/// `BLPOP key [key ...] timeout`
pub(super) const BLPOP: DataCommand =
    write("blpop", blpop, -3, BLOCKING, "2.0.0").keys(1, -2, 1, RW | ACCESS | DELETE);
fn blpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    blocking_pop(ctx, args, End::Left)
}

/// `BRPOP key [key ...] timeout`
pub(super) const BRPOP: DataCommand =
    write("brpop", brpop, -3, BLOCKING, "2.0.0").keys(1, -2, 1, RW | ACCESS | DELETE);
fn brpop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    blocking_pop(ctx, args, End::Right)
}

fn blocking_pop(ctx: &mut DataContext<'_, '_>, args: Args<'_>, end: End) -> CommandResult {
    let timeout_at = args.len() - 1;
    let timeout_ms = parse_timeout(args.at(timeout_at), ctx.keys.now)?;
    let keys = || args.iter().take(timeout_at).skip(1);
    for key in keys() {
        let Some(element) = ctx.keys.list_mut(key)?.and_then(|mut list| list.pop(end)) else { continue };
        ctx.out.array(2);
        ctx.out.bulk(key);
        ctx.out.bulk(&element);
        ctx.keys.propagate_as(key, &[pop_command(end), key]);
        elements_removed(ctx.keys, key, popped_event(end));
        return Ok(Outcome::Reply);
    }
    Ok(wait_for(keys(), timeout_ms))
}

fn wait_for<'a>(keys: impl Iterator<Item = &'a [u8]>, timeout_ms: u64) -> Outcome {
    let keys = keys.map(Into::into).collect();
    let null = OnTimeout::NullArray;
    Outcome::Block(Block::new(keys, timeout_ms, null, null))
}

pub(super) fn pop_command(end: End) -> &'static [u8] {
    match end {
        End::Left => b"LPOP",
        End::Right => b"RPOP",
    }
}
