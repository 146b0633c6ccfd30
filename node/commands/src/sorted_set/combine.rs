//! Unions, intersections and differences of sorted sets and sets: ZUNION, ZINTER, ZDIFF, their STORE forms, and
//! ZINTERCARD. A member of a plain set has the score 1.
//!
//! `ZUNION numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`

use std::collections::HashMap;

use keyward_proto::resp::Args;
use keyward_proto::resp::number::parse_f64;

use super::{Scores, store};
use crate::spec::{ACCESS, DENYOOM, OW, RO, UPDATE};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, ascii_eq, parse_count,
    parse_i64_arg, read, write,
};
use keyward_store::entry::{Entry, ValueRef};
use keyward_store::keys::Keys;
use keyward_store::types::{Element, SetRef, SortedSet, SortedSetRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Reply,
    Store,
    Count,
}

/// How the scores of a member in several sets become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// A sum of both infinities is zero.
    #[inline]
    fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => nan_as_zero(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if a < b {
                    b
                } else {
                    a
                }
            }
        }
    }
}

#[inline]
fn nan_as_zero(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

/// A set that takes part.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Missing,
    Set(SetRef<'a>),
    SortedSet(SortedSetRef<'a>),
}

impl<'a> Source<'a> {
    fn find(keys: &'a Keys<'_>, key: &[u8]) -> Result<Self, CommandError> {
        match keys.read(key).map(Entry::value) {
            None => Ok(Source::Missing),
            Some(ValueRef::Set(set)) => Ok(Source::Set(set)),
            Some(ValueRef::SortedSet(set)) => Ok(Source::SortedSet(set)),
            Some(_) => Err(CommandError::WrongType),
        }
    }

    fn len(&self) -> usize {
        match self {
            Source::Missing => 0,
            Source::Set(set) => set.len(),
            Source::SortedSet(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Missing => None,
            Source::Set(set) => set.contains(member).then_some(1.0),
            Source::SortedSet(set) => set.score(member),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (Element<'a>, f64)> + 'a> {
        match self {
            Source::Missing => Box::new(std::iter::empty()),
            Source::Set(set) => Box::new(set.iter().map(|member| (member, 1.0))),
            Source::SortedSet(set) => Box::new(set.iter()),
        }
    }
}

/// The arguments, with the sets found.
#[derive(Debug)]
struct Combination<'a> {
    operation: Operation,
    /// With their weights.
    sources: Vec<(Source<'a>, f64)>,
    aggregate: Aggregate,
    scores: Scores,
    /// Of ZINTERCARD; zero: none.
    limit: usize,
}

impl<'a> Combination<'a> {
    /// Reads from `numkeys`, which is at `number`, on. As in Valkey the types of the keys are checked before the
    /// options.
    fn parse(
        keys: &'a Keys<'_>,
        command: &str,
        args: Args<'_>,
        number: usize,
        operation: Operation,
        purpose: Use,
    ) -> Result<Self, CommandError> {
        let count = key_count(command, args, number)?;
        let first = number + 1;
        let mut sources = (first..first + count)
            .map(|at| Ok((Source::find(keys, args.at(at))?, 1.0)))
            .collect::<Result<Vec<_>, CommandError>>()?;
        let (mut aggregate, mut scores, mut limit) = (Aggregate::Sum, Scores::Without, 0);
        let weighs = operation != Operation::Difference && purpose != Use::Count;
        let mut options = Cursor::new(args, first + count);
        while !options.is_at_end() {
            if weighs && let Some(weights) = options.values_of("weights", count) {
                for ((_, weight), text) in sources.iter_mut().zip(weights) {
                    *weight =
                        parse_f64(text).ok_or_else(|| CommandError::err("weight value is not a float"))?;
                }
            } else if weighs && let Some(word) = options.value_of("aggregate") {
                aggregate = match word {
                    word if ascii_eq(word, "sum") => Aggregate::Sum,
                    word if ascii_eq(word, "min") => Aggregate::Min,
                    word if ascii_eq(word, "max") => Aggregate::Max,
                    _ => return Err(CommandError::Syntax),
                };
            } else if purpose == Use::Reply && options.word("withscores") {
                scores = Scores::With;
            } else if purpose == Use::Count
                && let Some(text) = options.value_of("limit")
            {
                limit = parse_count(text).map_err(|_| CommandError::err("LIMIT can't be negative"))?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(Combination { operation, sources, aggregate, scores, limit })
    }

    /// The members of the result, each once, in no order.
    fn members(mut self) -> Vec<(Element<'a>, f64)> {
        if self.operation != Operation::Difference {
            // From the smallest on: this is also the order in which scores are added.
            self.sources.sort_by_key(|(source, _)| source.len());
        }
        match self.operation {
            Operation::Union => self.union(),
            Operation::Intersection => self.intersection().collect(),
            Operation::Difference => self.difference(),
        }
    }

    fn union(&self) -> Vec<(Element<'a>, f64)> {
        let mut members: Vec<(Element<'_>, f64)> = Vec::new();
        let mut found: HashMap<Element<'_>, usize, foldhash::fast::RandomState> = HashMap::default();
        for (source, weight) in &self.sources {
            for (member, score) in source.iter() {
                let score = nan_as_zero(weight * score);
                let at = *found.entry(member).or_insert(members.len());
                match members.get_mut(at) {
                    Some((_, sum)) => *sum = self.aggregate.apply(*sum, score),
                    None => members.push((member, score)),
                }
            }
        }
        members
    }

    /// The sources are sorted by length.
    fn intersection(&self) -> impl Iterator<Item = (Element<'a>, f64)> {
        let (first, others) = self.sources.split_first().expect("numkeys is at least 1");
        let (source, weight) = *first;
        source.iter().filter_map(move |(member, score)| {
            others
                .iter()
                .try_fold(nan_as_zero(weight * score), |sum, (other, weight)| {
                    Some(self.aggregate.apply(sum, other.score(&member)? * weight))
                })
                .map(|score| (member, score))
        })
    }

    fn difference(&self) -> Vec<(Element<'a>, f64)> {
        let (first, others) = self.sources.split_first().expect("numkeys is at least 1");
        let is_elsewhere = |member: &[u8]| others.iter().any(|(other, _)| other.score(member).is_some());
        first.0.iter().filter(|(member, _)| !is_elsewhere(member)).collect()
    }
}

fn key_count(command: &str, args: Args<'_>, number: usize) -> Result<usize, CommandError> {
    let count = parse_i64_arg(args.at(number))?;
    if count < 1 {
        return Err(CommandError::err(format!("at least 1 input key is needed for '{command}' command")));
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if args.len() - number - 1 < count { Err(CommandError::Syntax) } else { Ok(count) }
}

fn sorted(mut members: Vec<(Element<'_>, f64)>) -> Vec<(Element<'_>, f64)> {
    members.sort_unstable_by(|a, b| {
        a.1.partial_cmp(&b.1).expect("scores are not NaN").then_with(|| a.0.cmp(&b.0))
    });
    members
}

fn reply(ctx: &mut DataContext<'_, '_>, args: Args<'_>, operation: Operation) -> CommandResult {
    let combination = Combination::parse(ctx.keys, ctx.spec.name, args, 1, operation, Use::Reply)?;
    let scores = combination.scores;
    let members = sorted(combination.members());
    scores.write_header(&mut ctx.out, members.len());
    members.into_iter().for_each(|member| scores.write(&mut ctx.out, member));
    Ok(Outcome::Reply)
}

fn store_result(
    ctx: &mut DataContext<'_, '_>,
    args: Args<'_>,
    operation: Operation,
    event: &'static str,
) -> CommandResult {
    let combination = Combination::parse(ctx.keys, ctx.spec.name, args, 2, operation, Use::Store)?;
    let count = combination.sources.len();
    let members = sorted(combination.members());
    let mut result = SortedSet::new(ctx.keys.limits().sorted_set);
    let longest = members.iter().map(|(member, _)| member.len()).max();
    result.as_mut().prepare(members.len(), longest.unwrap_or_default());
    for (member, score) in members {
        result.insert(&member, score);
    }
    store(ctx, args, args.at(1), args.iter().skip(3).take(count), result, event)
}

/// See the module documentation.
pub(super) const ZUNION: DataCommand = read("zunion", zunion, -3, 0, "6.2.0").counted_keys(1, 1, RO | ACCESS);
fn zunion(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply(ctx, args, Operation::Union)
}

/// `ZINTER`, with the arguments of ZUNION.
pub(super) const ZINTER: DataCommand = read("zinter", zinter, -3, 0, "6.2.0").counted_keys(1, 1, RO | ACCESS);
fn zinter(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply(ctx, args, Operation::Intersection)
}

/// `ZDIFF numkeys key [key ...] [WITHSCORES]`
pub(super) const ZDIFF: DataCommand = read("zdiff", zdiff, -3, 0, "6.2.0").counted_keys(1, 1, RO | ACCESS);
fn zdiff(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    reply(ctx, args, Operation::Difference)
}

/// `ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM | MIN | MAX]`
pub(super) const ZUNIONSTORE: DataCommand = write("zunionstore", zunionstore, -4, DENYOOM, "2.0.0")
    .key(1, OW | UPDATE)
    .counted_keys(2, 1, RO | ACCESS);
fn zunionstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    store_result(ctx, args, Operation::Union, "zunionstore")
}

/// `ZINTERSTORE`, with the arguments of ZUNIONSTORE.
pub(super) const ZINTERSTORE: DataCommand = write("zinterstore", zinterstore, -4, DENYOOM, "2.0.0")
    .key(1, OW | UPDATE)
    .counted_keys(2, 1, RO | ACCESS);
fn zinterstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    store_result(ctx, args, Operation::Intersection, "zinterstore")
}

/// `ZDIFFSTORE destination numkeys key [key ...]`
pub(super) const ZDIFFSTORE: DataCommand =
    write("zdiffstore", zdiffstore, -4, DENYOOM, "6.2.0").key(1, OW | UPDATE).counted_keys(2, 1, RO | ACCESS);
fn zdiffstore(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    store_result(ctx, args, Operation::Difference, "zdiffstore")
}

/// `ZINTERCARD numkeys key [key ...] [LIMIT limit]`
pub(super) const ZINTERCARD: DataCommand =
    read("zintercard", zintercard, -3, 0, "7.0.0").counted_keys(1, 1, RO | ACCESS);
fn zintercard(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let mut combination =
        Combination::parse(ctx.keys, ctx.spec.name, args, 1, Operation::Intersection, Use::Count)?;
    combination.sources.sort_by_key(|(source, _)| source.len());
    let limit = if combination.limit == 0 { usize::MAX } else { combination.limit };
    ctx.out.len(combination.intersection().take(limit).count());
    Ok(Outcome::Reply)
}
