//! Ranges by rank, score and name: ZRANGE with its older forms, ZRANGESTORE, ZCOUNT, ZLEXCOUNT, ZREMRANGEBY*.

use std::ops::{Bound, Range};

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_f64_unbounded;

use super::{Scores, after_removal, store};
use crate::args::index_range;
use crate::spec::{ACCESS, DELETE, DENYOOM, FAST, OW, RO, RW, UPDATE};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read, write,
};
use keyward_store::types::{Direction, LexBound, LexRange, ScoreRange, SortedSet, SortedSetRef};

/// What the two ends of a range mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// The ends of a range.
#[derive(Debug, Clone, Copy)]
enum Ends<'a> {
    Rank { start: i64, stop: i64 },
    Score(ScoreRange),
    Lex(LexRange<'a>),
}

impl<'a> Ends<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Self, CommandError> {
        match by {
            By::Rank => Ok(Ends::Rank { start: parse_i64_arg(min)?, stop: parse_i64_arg(max)? }),
            By::Score => {
                let range = score_bound(min).zip(score_bound(max)).map(|(min, max)| ScoreRange { min, max });
                range.map(Ends::Score).ok_or_else(|| CommandError::err("min or max is not a float"))
            }
            By::Lex => {
                let range = lex_bound(min).zip(lex_bound(max)).map(|(min, max)| LexRange { min, max });
                range
                    .map(Ends::Lex)
                    .ok_or_else(|| CommandError::err("min or max not valid string range item"))
            }
        }
    }

    /// The indexes in ascending order, without the first `skipped` of a range of scores or names in this direction.
    fn indexes(&self, set: SortedSetRef<'_>, direction: Direction, skipped: usize) -> Range<usize> {
        match self {
            Ends::Score(range) => {
                let range = set.score_range(range);
                let skipped = skipped.min(range.len());
                match direction {
                    Direction::Forward => range.start + skipped..range.end,
                    Direction::Reverse => range.start..range.end - skipped,
                }
            }
            Ends::Lex(range) => set.lex_range(range, direction, skipped),
            Ends::Rank { start, stop } => {
                let len = set.len();
                let range = index_range(*start, *stop, len);
                match direction {
                    Direction::Forward => range,
                    Direction::Reverse => len - range.end..len - range.start,
                }
            }
        }
    }
}

/// `1.5`, `(1.5`, `-inf`. As in Valkey, which reads a C string: what follows a zero byte is ignored, and nothing
/// is zero.
fn score_bound(text: &[u8]) -> Option<Bound<f64>> {
    let number = |text: &[u8]| {
        let text = text.split(|b| *b == 0).next().unwrap_or_default();
        if text.is_empty() { Some(0.0) } else { parse_f64_unbounded(text) }
    };
    match text {
        [b'(', rest @ ..] => number(rest).map(Bound::Excluded),
        _ => number(text).map(Bound::Included),
    }
}

/// `[name`, `(name`, `-`, `+`
fn lex_bound(text: &[u8]) -> Option<LexBound<'_>> {
    match text {
        [b'-'] | [b'-', 0, ..] => Some(LexBound::Lowest),
        [b'+'] | [b'+', 0, ..] => Some(LexBound::Highest),
        [b'[', name @ ..] => Some(LexBound::Included(name)),
        [b'(', name @ ..] => Some(LexBound::Excluded(name)),
        _ => None,
    }
}

/// A range with the options of ZRANGE and its older forms.
#[derive(Debug)]
struct Query<'a> {
    ends: Ends<'a>,
    direction: Direction,
    scores: Scores,
    /// LIMIT: members to skip, and the most to return (all if negative).
    offset: i64,
    limit: i64,
}

/// What becomes of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Reply,
    Store,
}

/// What the command's name says already.
#[derive(Debug, Clone, Copy)]
struct Form {
    by: Option<By>,
    direction: Option<Direction>,
}

impl<'a> Query<'a> {
    /// Reads `min max` at `first` and the options behind them.
    fn parse(args: Args<'a>, first: usize, form: Form, purpose: Use) -> Result<Self, CommandError> {
        let Form { mut by, mut direction } = form;
        let mut scores = Scores::Without;
        let (mut offset, mut limit) = (0, -1);
        let mut options = Cursor::new(args, first + 2);
        while !options.is_at_end() {
            if purpose == Use::Reply && options.word("withscores") {
                scores = Scores::With;
            } else if let Some(mut values) = options.values_of("limit", 2) {
                offset = values.next().map_or(Ok(0), parse_i64_arg)?;
                limit = values.next().map_or(Ok(-1), parse_i64_arg)?;
            } else if direction.is_none() && options.word("rev") {
                direction = Some(Direction::Reverse);
            } else if by.is_none() && options.word("bylex") {
                by = Some(By::Lex);
            } else if by.is_none() && options.word("byscore") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, direction) = (by.unwrap_or(By::Rank), direction.unwrap_or(Direction::Forward));
        if by == By::Rank && limit != -1 {
            return Err(CommandError::err(
                "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if by == By::Lex && scores == Scores::With {
            return Err(CommandError::err(
                "syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (min, max) = match (by, direction) {
            (By::Score | By::Lex, Direction::Reverse) => (first + 1, first),
            _ => (first, first + 1),
        };
        let ends = Ends::parse(by, args.at(min), args.at(max))?;
        Ok(Query { ends, direction, scores, offset, limit })
    }

    /// The indexes in ascending order of what is returned.
    fn indexes(&self, set: SortedSetRef<'_>) -> Range<usize> {
        let skipped = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let range = self.ends.indexes(set, self.direction, skipped);
        let count = usize::try_from(self.limit).map_or(range.len(), |limit| limit.min(range.len()));
        match self.direction {
            Direction::Forward => range.start..range.start + count,
            Direction::Reverse => range.end - count..range.end,
        }
    }
}

const RANGE: Form = Form { by: None, direction: None };

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
pub(super) const ZRANGE: DataCommand = read("zrange", zrange, -4, 0, "1.2.0").key(1, RO | ACCESS);
fn zrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply_range(ctx, args, RANGE)
}

/// `ZREVRANGE key start stop [WITHSCORES]`
pub(super) const ZREVRANGE: DataCommand = read("zrevrange", zrevrange, -4, 0, "1.2.0").key(1, RO | ACCESS);
fn zrevrange(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply_range(ctx, args, Form { by: Some(By::Rank), direction: Some(Direction::Reverse) })
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
pub(super) const ZRANGEBYSCORE: DataCommand =
    read("zrangebyscore", zrangebyscore, -4, 0, "1.0.5").key(1, RO | ACCESS);
fn zrangebyscore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply_range(ctx, args, Form { by: Some(By::Score), direction: Some(Direction::Forward) })
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub(super) const ZREVRANGEBYSCORE: DataCommand =
    read("zrevrangebyscore", zrevrangebyscore, -4, 0, "2.2.0").key(1, RO | ACCESS);
fn zrevrangebyscore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply_range(ctx, args, Form { by: Some(By::Score), direction: Some(Direction::Reverse) })
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
pub(super) const ZRANGEBYLEX: DataCommand =
    read("zrangebylex", zrangebylex, -4, 0, "2.8.9").key(1, RO | ACCESS);
fn zrangebylex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply_range(ctx, args, Form { by: Some(By::Lex), direction: Some(Direction::Forward) })
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
pub(super) const ZREVRANGEBYLEX: DataCommand =
    read("zrevrangebylex", zrevrangebylex, -4, 0, "2.8.9").key(1, RO | ACCESS);
fn zrevrangebylex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply_range(ctx, args, Form { by: Some(By::Lex), direction: Some(Direction::Reverse) })
}

fn reply_range(ctx: &mut DataContext<'_, '_>, args: Args<'_>, form: Form) -> CommandResult {
    let query = Query::parse(args, 2, form, Use::Reply)?;
    let Some(set) = ctx.keys.sorted_set(args.at(1))? else {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    let range = query.indexes(set);
    let (scores, out) = (query.scores, &mut ctx.out);
    scores.write_header(out, range.len());
    let members = set.range(range);
    match query.direction {
        Direction::Forward => members.for_each(|member| scores.write(out, member)),
        Direction::Reverse => members.rev().for_each(|member| scores.write(out, member)),
    }
    Ok(Outcome::Reply)
}

/// `ZRANGESTORE dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]`
pub(super) const ZRANGESTORE: DataCommand =
    write("zrangestore", zrangestore, -5, DENYOOM, "6.2.0").key(1, OW | UPDATE).key(2, RO | ACCESS);
fn zrangestore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let query = Query::parse(args, 3, RANGE, Use::Store)?;
    let (destination, source) = (args.at(1), args.at(2));
    let mut result = SortedSet::new(ctx.keys.limits().sorted_set);
    let mut range = 0..0;
    if let Some(set) = ctx.keys.sorted_set(source)? {
        range = query.indexes(set);
        if matches!(query.ends, Ends::Rank { .. }) {
            result.as_mut().prepare(range.len(), 0);
        }
        for (member, score) in set.range(range.clone()) {
            result.insert(&member, score);
        }
    }
    let sources = std::iter::once(source);
    if by_rank_is_safer(&query.ends) && !range.is_empty() {
        let (start, stop) = rank_texts(&range);
        let effect: [&[u8]; 5] = [b"ZRANGESTORE", destination, source, start.as_bytes(), stop.as_bytes()];
        store(ctx, Args::from_slices(&effect), destination, sources, result, "zrangestore")
    } else {
        store(ctx, args, destination, sources, result, "zrangestore")
    }
}

/// Whether an effect should name ranks instead of the ends of the range. What a range of names means for members of
/// different scores depends on the representation, which a replica need not have in common with its primary.
fn by_rank_is_safer(ends: &Ends<'_>) -> bool {
    matches!(ends, Ends::Lex(_))
}

/// The first and the last index of a range that is not empty.
fn rank_texts(range: &Range<usize>) -> (String, String) {
    (range.start.to_string(), (range.end - 1).to_string())
}

/// `ZCOUNT key min max`
pub(super) const ZCOUNT: DataCommand = read("zcount", zcount, 4, FAST, "2.0.0").key(1, RO | ACCESS);
fn zcount(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    count(ctx, args, By::Score)
}

/// `ZLEXCOUNT key min max`
pub(super) const ZLEXCOUNT: DataCommand = read("zlexcount", zlexcount, 4, FAST, "2.8.9").key(1, RO | ACCESS);
fn zlexcount(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    count(ctx, args, By::Lex)
}

fn count(ctx: &mut DataContext<'_, '_>, args: Args<'_>, by: By) -> CommandResult {
    let ends = Ends::parse(by, args.at(2), args.at(3))?;
    let set = ctx.keys.sorted_set(args.at(1))?;
    ctx.out.len(set.map_or(0, |set| ends.indexes(set, Direction::Forward, 0).len()));
    Ok(Outcome::Reply)
}

/// `ZREMRANGEBYRANK key start stop`
pub(super) const ZREMRANGEBYRANK: DataCommand =
    write("zremrangebyrank", zremrangebyrank, 4, 0, "2.0.0").key(1, RW | DELETE);
fn zremrangebyrank(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    remove_range(ctx, args, By::Rank, "zremrangebyrank")
}

/// `ZREMRANGEBYSCORE key min max`
pub(super) const ZREMRANGEBYSCORE: DataCommand =
    write("zremrangebyscore", zremrangebyscore, 4, 0, "1.2.0").key(1, RW | DELETE);
fn zremrangebyscore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    remove_range(ctx, args, By::Score, "zremrangebyscore")
}

/// `ZREMRANGEBYLEX key min max`
pub(super) const ZREMRANGEBYLEX: DataCommand =
    write("zremrangebylex", zremrangebylex, 4, 0, "2.8.9").key(1, RW | DELETE);
fn zremrangebylex(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    remove_range(ctx, args, By::Lex, "zremrangebylex")
}

fn remove_range(ctx: &mut DataContext<'_, '_>, args: Args<'_>, by: By, event: &'static str) -> CommandResult {
    let key = args.at(1);
    let ends = Ends::parse(by, args.at(2), args.at(3))?;
    let range = match ctx.keys.sorted_set_mut(key)? {
        Some(mut set) => {
            let range = ends.indexes(set.as_ref(), Direction::Forward, 0);
            set.remove_range(range.clone());
            range
        }
        None => 0..0,
    };
    if !range.is_empty() {
        if by_rank_is_safer(&ends) {
            let (start, stop) = rank_texts(&range);
            ctx.keys.propagate_as(key, &[b"ZREMRANGEBYRANK", key, start.as_bytes(), stop.as_bytes()]);
        } else {
            ctx.keys.propagate(key, args);
        }
        after_removal(ctx, key, event);
    }
    ctx.out.len(range.len());
    Ok(Outcome::Reply)
}
