//! Commands of the group sorted set (<https://valkey.io/commands/?group=sorted-set>): adding, removing and asking for
//! single members. The other families: `pop`, `random`, `range`, `combine` (unions and their like).

mod add;
mod combine;
mod pop;
mod random;
mod range;
#[cfg(test)]
mod tests;

use keyward_proto::resp::number::{format_double, format_double_17};
use keyward_proto::resp::{Args, ReplyWriter};

use crate::scan::{ScanOptions, Scanned, parse_cursor};
use crate::spec::{ACCESS, DELETE, FAST, Group, RO, RW, family};
use crate::store::{Effect, store_result};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, read, write};
pub(crate) use add::zadd;
use add::{ZADD, ZINCRBY};
use combine::{ZDIFF, ZDIFFSTORE, ZINTER, ZINTERCARD, ZINTERSTORE, ZUNION, ZUNIONSTORE};
use keyward_store::events::EventClass;
use keyward_store::types::{Element, SortedSet, SortedSetRef};
use pop::{BZMPOP, BZPOPMAX, BZPOPMIN, ZMPOP, ZPOPMAX, ZPOPMIN};
use random::ZRANDMEMBER;
use range::{
    ZCOUNT, ZLEXCOUNT, ZRANGE, ZRANGEBYLEX, ZRANGEBYSCORE, ZRANGESTORE, ZREMRANGEBYLEX, ZREMRANGEBYRANK,
    ZREMRANGEBYSCORE, ZREVRANGE, ZREVRANGEBYLEX, ZREVRANGEBYSCORE,
};

/// The commands of the group.
#[rustfmt::skip]
pub(super) const COMMANDS: [DataCommand; 35] = family(Group::SortedSet, [
    BZMPOP, BZPOPMAX, BZPOPMIN, ZADD, ZCARD, ZCOUNT, ZDIFF, ZDIFFSTORE, ZINCRBY, ZINTER, ZINTERCARD,
    ZINTERSTORE, ZLEXCOUNT, ZMPOP, ZMSCORE, ZPOPMAX, ZPOPMIN, ZRANDMEMBER, ZRANGE, ZRANGEBYLEX,
    ZRANGEBYSCORE, ZRANGESTORE, ZRANK, ZREM, ZREMRANGEBYLEX, ZREMRANGEBYRANK, ZREMRANGEBYSCORE,
    ZREVRANGE, ZREVRANGEBYLEX, ZREVRANGEBYSCORE, ZREVRANK, ZSCAN, ZSCORE, ZUNION, ZUNIONSTORE,
]);

/// `ZCARD key`
const ZCARD: DataCommand = read("zcard", zcard, 2, FAST, "1.2.0").key(1, RO);
fn zcard(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    ctx.out.len(ctx.keys.sorted_set(args.at(1))?.map_or(0, SortedSetRef::len));
    Ok(Outcome::Reply)
}

/// `ZSCORE key member`
const ZSCORE: DataCommand = read("zscore", zscore, 3, FAST, "1.2.0").key(1, RO | ACCESS);
fn zscore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    match ctx.keys.sorted_set(args.at(1))?.and_then(|set| set.score(args.at(2))) {
        Some(score) => ctx.out.double(score),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `ZMSCORE key member [member ...]`
const ZMSCORE: DataCommand = read("zmscore", zmscore, -3, FAST, "6.2.0").key(1, RO | ACCESS);
fn zmscore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let set = ctx.keys.sorted_set(args.at(1))?;
    ctx.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        match set.and_then(|set| set.score(member)) {
            Some(score) => ctx.out.double(score),
            None => ctx.out.null(),
        }
    }
    Ok(Outcome::Reply)
}

/// `ZRANK key member [WITHSCORE]`
const ZRANK: DataCommand = read("zrank", zrank, -3, FAST, "2.0.0").key(1, RO | ACCESS);
fn zrank(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    rank(ctx, args, |rank, _| rank)
}

/// `ZREVRANK key member [WITHSCORE]`
const ZREVRANK: DataCommand = read("zrevrank", zrevrank, -3, FAST, "2.0.0").key(1, RO | ACCESS);
fn zrevrank(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    rank(ctx, args, |rank, len| len - 1 - rank)
}

fn rank(ctx: &mut DataContext<'_, '_>, args: Args<'_>, counted: fn(usize, usize) -> usize) -> CommandResult {
    if args.len() > 4 {
        return Err(CommandError::WrongArity(ctx.spec.name.into()));
    }
    let with_score = args.get(3).is_some();
    if args.get(3).is_some_and(|word| !ascii_eq(word, "withscore")) {
        return Err(CommandError::Syntax);
    }
    let set = ctx.keys.sorted_set(args.at(1))?;
    match set.and_then(|set| Some((set.rank(args.at(2))?, set.len()))) {
        Some(((rank, score), len)) => {
            if with_score {
                ctx.out.array(2);
            }
            ctx.out.len(counted(rank, len));
            if with_score {
                ctx.out.double(score);
            }
        }
        None if with_score => ctx.out.null_array(),
        None => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

/// `ZREM key member [member ...]`
const ZREM: DataCommand = write("zrem", zrem, -3, FAST, "1.2.0").key(1, RW | DELETE);
fn zrem(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let key = args.at(1);
    let set = ctx.keys.sorted_set_mut(key)?;
    let removed = set.map_or(0, |mut set| args.iter().skip(2).filter(|m| set.remove(m).is_some()).count());
    if removed > 0 {
        after_removal(ctx, key, "zrem");
        ctx.keys.propagate(key, args);
    }
    ctx.out.len(removed);
    Ok(Outcome::Reply)
}

/// Members were removed: says so, and deletes the key if none is left.
fn after_removal(ctx: &mut DataContext<'_, '_>, key: &[u8], event: &'static str) {
    ctx.keys.modified(key);
    ctx.keys.notify(EventClass::SortedSet, event, key);
    ctx.keys.remove_if_empty(key);
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count] [NOSCORES]`
///
/// As in Valkey the scores of a large set are written with 17 digits, and a small set is returned in one step.
const ZSCAN: DataCommand =
    read("zscan", zscan, -3, 0, "2.8.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn zscan(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let cursor = parse_cursor(args.at(2))?;
    let Some(set) = ctx.keys.sorted_set(args.at(1))? else {
        ctx.out.array(2);
        ctx.out.bulk(b"0");
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    let options = ScanOptions::parse(args, 3, Scanned::SortedSet)?;
    let format = if set.is_compact() { format_double } else { format_double_17 };

    let start = ctx.out.deferred();
    let writer = &mut ctx.out;
    let (mut visited, mut written) = (0, 0);
    let mut position = if set.is_compact() { Some(0) } else { u32::try_from(cursor).ok() };
    while let Some(at) = position {
        position = set.scan(at, &mut |member, score| {
            visited += 1;
            if !options.matches(member) {
                return;
            }
            writer.bulk(member);
            written += 1;
            if !options.no_scores {
                writer.bulk(format(score).as_bytes());
                written += 1;
            }
        });
        if options.count <= visited || writer.is_full() {
            break;
        }
    }
    writer.finish(start, |out| {
        out.array(2);
        out.bulk_integer(position.map_or(0, i64::from));
        out.array(written);
    });
    Ok(Outcome::Reply)
}

/// Whether a reply has the scores beside the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scores {
    With,
    Without,
}

impl Scores {
    /// The header of `len` members: with scores, pairs in RESP3 and a flat array in RESP2.
    fn write_header(self, out: &mut ReplyWriter<'_>, len: usize) {
        out.array(if self == Scores::With && !out.is_resp3() { len * 2 } else { len });
    }

    #[inline]
    fn write(self, out: &mut ReplyWriter<'_>, (member, score): (Element<'_>, f64)) {
        if self == Scores::With && out.is_resp3() {
            out.array(2);
        }
        out.bulk(&member);
        if self == Scores::With {
            out.double(score);
        }
    }
}

/// Stores the result of ZRANGESTORE, ZUNIONSTORE and their like, which was computed from the keys `sources`.
fn store<'a>(
    ctx: &mut DataContext<'_, '_>,
    args: Args<'_>,
    destination: &[u8],
    sources: impl Iterator<Item = &'a [u8]>,
    result: SortedSet,
    event: &'static str,
) -> CommandResult {
    let effect = Effect::of(ctx.keys, args, destination, sources);
    store_result(ctx, destination, (result.len(), result.into()), effect, (EventClass::SortedSet, event))
}
