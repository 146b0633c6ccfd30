//! An element from the end of one list to the end of another, or of the same: LMOVE, RPOPLPUSH, and BLMOVE and
//! BRPOPLPUSH, which wait for it.

use keyward_proto::resp::Args;

use super::pop::pop_command;
use super::{elements_removed, parse_end, popped_event, pushed_event};
use crate::spec::{ACCESS, BLOCKING, DELETE, DENYOOM, INSERT, RW};
use crate::{
    Block, CommandError, CommandResult, DataCommand, DataContext, OnTimeout, Outcome, parse_timeout, write,
};
use keyward_store::events::EventClass;
use keyward_store::types::End;

/// `LMOVE source destination LEFT|RIGHT LEFT|RIGHT`
pub(super) const LMOVE: DataCommand =
    write("lmove", lmove, 5, DENYOOM, "6.2.0").key(1, RW | ACCESS | DELETE).key(2, RW | INSERT);
fn lmove(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    move_now(ctx, Transfer::parse(args)?)
}

/// `RPOPLPUSH source destination`
pub(super) const RPOPLPUSH: DataCommand =
    write("rpoplpush", rpoplpush, 3, DENYOOM, "1.2.0").key(1, RW | ACCESS | DELETE).key(2, RW | INSERT);
fn rpoplpush(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    move_now(ctx, Transfer::right_to_left(args))
}

/// `BLMOVE source destination LEFT|RIGHT LEFT|RIGHT timeout`
pub(super) const BLMOVE: DataCommand =
    write("blmove", blmove, 6, DENYOOM | BLOCKING, "6.2.0").key(1, RW | ACCESS | DELETE).key(2, RW | INSERT);
fn blmove(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let transfer = Transfer::parse(args)?;
    let timeout_ms = parse_timeout(args.at(5), ctx.keys.now)?;
    move_or_wait(ctx, transfer, timeout_ms)
}

/// `BRPOPLPUSH source destination timeout`
pub(super) const BRPOPLPUSH: DataCommand = write("brpoplpush", brpoplpush, 4, DENYOOM | BLOCKING, "2.2.0")
    .key(1, RW | ACCESS | DELETE)
    .key(2, RW | INSERT);
fn brpoplpush(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let timeout_ms = parse_timeout(args.at(3), ctx.keys.now)?;
    move_or_wait(ctx, Transfer::right_to_left(args), timeout_ms)
}

fn move_now(ctx: &mut DataContext<'_, '_>, transfer: Transfer<'_>) -> CommandResult {
    if !transfer.run(ctx)? {
        ctx.out.null();
    }
    Ok(Outcome::Reply)
}

fn move_or_wait(ctx: &mut DataContext<'_, '_>, transfer: Transfer<'_>, timeout_ms: u64) -> CommandResult {
    if transfer.run(ctx)? {
        return Ok(Outcome::Reply);
    }
    let keys = vec![transfer.source.into()];
    // Where it may not wait the answer is that of LMOVE; only the end of a wait is a null array.
    let (on_timeout, in_transaction) = (OnTimeout::NullArray, OnTimeout::Null);
    Ok(Outcome::Block(Block::new(keys, timeout_ms, on_timeout, in_transaction)))
}

/// What is to be moved.
#[derive(Debug, Clone, Copy)]
struct Transfer<'a> {
    source: &'a [u8],
    destination: &'a [u8],
    from: End,
    to: End,
}

impl<'a> Transfer<'a> {
    fn parse(args: Args<'a>) -> Result<Self, CommandError> {
        let (from, to) = (parse_end(args.at(3))?, parse_end(args.at(4))?);
        Ok(Transfer { source: args.at(1), destination: args.at(2), from, to })
    }

    fn right_to_left(args: Args<'a>) -> Self {
        Transfer { source: args.at(1), destination: args.at(2), from: End::Right, to: End::Left }
    }

    /// Whether there was an element to move.
    fn run(&self, ctx: &mut DataContext<'_, '_>) -> Result<bool, CommandError> {
        let Transfer { source, destination, from, to } = *self;
        let keys = &mut *ctx.keys;
        if keys.list_mut(source)?.is_none() {
            return Ok(false);
        }
        // The type of the destination is checked before anything is taken.
        keys.list_mut(destination)?;
        let Some(element) = keys.list_mut(source)?.and_then(|mut list| list.pop(from)) else {
            return Ok(false);
        };
        // The same list if both keys are one, even if it has just become empty.
        let mut list = keys.list_or_new(destination)?;
        list.prepare(std::iter::once(&*element));
        list.push(to, &element);
        ctx.out.bulk(&element);
        if keys.same_slot(source, destination) {
            keys.propagate_as(source, &[b"LMOVE", source, destination, end_word(from), end_word(to)]);
        } else {
            keys.propagate_as(source, &[pop_command(from), source]);
            keys.propagate_as(destination, &[push_command(to), destination, &element]);
        }
        keys.modified(destination);
        keys.notify(EventClass::List, pushed_event(to), destination);
        keys.signal_ready(destination);
        elements_removed(keys, source, popped_event(from));
        Ok(true)
    }
}

fn end_word(end: End) -> &'static [u8] {
    match end {
        End::Left => b"LEFT",
        End::Right => b"RIGHT",
    }
}

fn push_command(end: End) -> &'static [u8] {
    match end {
        End::Left => b"LPUSH",
        End::Right => b"RPUSH",
    }
}
