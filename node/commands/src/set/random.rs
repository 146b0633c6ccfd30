//! Random members: SPOP and SRANDMEMBER.
//!
//! SPOP's effect names the members, as SREM; DEL if it took them all.

use std::collections::HashSet;

use keyward_proto::resp::Args;
use rand::RngCore;

use super::members_removed;
use crate::spec::{ACCESS, DELETE, FAST, RO, RW};
use crate::{
    CommandError, CommandResult, DataCommand, DataContext, Outcome, parse_count, parse_signed_count, read,
    scan, write,
};
use keyward_store::effects::TooLong;
use keyward_store::rebuild::PIECE_LEN_MAX;
use keyward_store::types::SetMut;

/// `SPOP key [count]`
pub(super) const SPOP: DataCommand =
    write("spop", spop, -2, FAST, "1.0.0").key(1, RW | ACCESS | DELETE).tips(&["nondeterministic_output"]);
fn spop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    match args.get(2) {
        None => pop_one(ctx, args.at(1)),
        Some(count) if args.len() == 3 => pop_many(ctx, args.at(1), parse_count(count)?),
        Some(_) => Err(CommandError::Syntax),
    }
}

fn pop_one(ctx: &mut DataContext<'_, '_>, key: &[u8]) -> CommandResult {
    let rng = &mut *ctx.rng;
    let set = ctx.keys.set_mut(key)?;
    let Some(member) = set.and_then(|mut set| set.take_random(|| rng.next_u64())) else {
        ctx.out.null();
        return Ok(Outcome::Reply);
    };
    ctx.keys.propagate_as(key, &[b"SREM", key, &member]);
    members_removed(ctx.keys, key, "spop");
    ctx.out.bulk(&member);
    Ok(Outcome::Reply)
}

fn pop_many(ctx: &mut DataContext<'_, '_>, key: &[u8], count: usize) -> CommandResult {
    let rng = &mut *ctx.rng;
    let room = ctx.keys.entry_room();
    let Some(mut set) = ctx.keys.set_mut(key)?.filter(|_| count > 0) else {
        ctx.out.set(0);
        return Ok(Outcome::Reply);
    };
    let left = set.len().saturating_sub(count);
    let popped = if left * KEEP_FACTOR <= count && left > 0 {
        check_effect(room, set.as_ref().iter().map(|member| member.len()))?;
        take_all_but(&mut set, left, || rng.next_u64())
    } else {
        let sample = set.as_ref().sample(count, || rng.next_u64());
        let popped: Vec<Box<[u8]>> = sample.into_iter().map(Into::into).collect();
        check_effect(room, popped.iter().map(|member| member.len()))?;
        for member in &popped {
            set.remove(member);
        }
        popped
    };
    ctx.out.set(popped.len());
    popped.iter().for_each(|member| ctx.out.bulk(member));
    if set.is_empty() {
        ctx.keys.propagate_as(key, &[b"DEL", key]);
    } else {
        for members in popped.chunks(PIECE_LEN_MAX) {
            let mut effect: Vec<&[u8]> = vec![b"SREM", key];
            effect.extend(members.iter().map(|m| &**m));
            ctx.keys.propagate_as(key, &effect);
        }
    }
    members_removed(ctx.keys, key, "spop");
    Ok(Outcome::Reply)
}

/// Checks that members of these lengths can be named in an effect.
fn check_effect(room: Option<usize>, lens: impl Iterator<Item = usize>) -> Result<(), CommandError> {
    match room {
        Some(room) if room < lens.map(|len| len + NAMED_OVERHEAD_BYTES).sum() => Err(TooLong.into()),
        Some(_) | None => Ok(()),
    }
}

/// What a member needs in an effect beside its bytes, with its share of the command.
const NAMED_OVERHEAD_BYTES: usize = 16;

/// Where the members that go are this many times those that stay, the set is built anew from those.
const KEEP_FACTOR: usize = 5;

/// Takes all but `left` random members.
fn take_all_but(set: &mut SetMut<'_>, left: usize, random: impl FnMut() -> u64) -> Vec<Box<[u8]>> {
    let sample = set.as_ref().sample(left, random);
    let kept: HashSet<&[u8], foldhash::fast::RandomState> = sample.iter().map(|member| &**member).collect();
    let all = set.as_ref().iter();
    let popped = all.filter(|member| !kept.contains(&**member)).map(Into::into).collect();
    let kept: Vec<Box<[u8]>> = sample.into_iter().map(Into::into).collect();
    set.retain_only(&kept);
    popped
}

/// `SRANDMEMBER key [count]`
pub(super) const SRANDMEMBER: DataCommand =
    read("srandmember", srandmember, -2, 0, "1.0.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn srandmember(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let rng = &mut *ctx.rng;
    let count = match args.get(2) {
        None => {
            let set = ctx.keys.set(key)?;
            let member = set.and_then(|set| set.random(|| rng.next_u64()));
            ctx.out.optional_bulk(member.as_deref());
            return Ok(Outcome::Reply);
        }
        Some(count) if args.len() == 3 => parse_signed_count(count)?,
        Some(_) => return Err(CommandError::Syntax),
    };
    let Some(set) = ctx.keys.set(key)? else {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    let distance = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if 0 <= count {
        let members = set.sample(distance, || rng.next_u64());
        ctx.out.array(members.len());
        members.into_iter().for_each(|member| ctx.out.bulk(&member));
        return Ok(Outcome::Reply);
    }
    scan::check_repeated_len(distance)?;
    ctx.out.array(distance);
    let members = set.repeated(distance, || rng.next_u64());
    scan::write_repeated(&mut ctx.out, members, |out, member| out.bulk(&member))?;
    Ok(Outcome::Reply)
}
