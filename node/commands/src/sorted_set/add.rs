//! `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]` and ZINCRBY.

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DENYOOM, FAST, RW, UPDATE};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_f64_arg, write};
use keyward_store::events::EventClass;
use keyward_store::types::SortedSetMut;

/// See the module documentation.
pub(super) const ZADD: DataCommand = write("zadd", zadd, -4, DENYOOM | FAST, "1.2.0").key(1, RW | UPDATE);
pub(crate) fn zadd(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    add(ctx, args, Options::default())
}

/// `ZINCRBY key increment member`: ZADD with INCR. As in Valkey it reads ZADD's options, for which its arity has no
/// room.
pub(super) const ZINCRBY: DataCommand =
    write("zincrby", zincrby, 4, DENYOOM | FAST, "1.2.0").key(1, RW | ACCESS | UPDATE);
fn zincrby(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    add(ctx, args, Options { increment: true, ..Options::default() })
}

#[derive(Debug, Default, Clone, Copy)]
struct Options {
    /// NX: only members that are not there.
    only_new: bool,
    /// XX: only members that are there.
    only_existing: bool,
    /// GT: no lower score.
    only_greater: bool,
    /// LT: no higher score.
    only_less: bool,
    /// CH: the reply counts changes of score too.
    count_changes: bool,
    /// INCR
    increment: bool,
}

impl Options {
    /// Reads options from argument 2 on; returns where the scores begin.
    fn parse(&mut self, args: Args<'_>) -> usize {
        let mut options = Cursor::new(args, 2);
        loop {
            let option = if options.word("nx") {
                &mut self.only_new
            } else if options.word("xx") {
                &mut self.only_existing
            } else if options.word("gt") {
                &mut self.only_greater
            } else if options.word("lt") {
                &mut self.only_less
            } else if options.word("ch") {
                &mut self.count_changes
            } else if options.word("incr") {
                &mut self.increment
            } else {
                return options.position();
            };
            *option = true;
        }
    }

    fn check(&self, pairs: usize) -> Result<(), CommandError> {
        if self.only_new && self.only_existing {
            return Err(CommandError::err("XX and NX options at the same time are not compatible"));
        }
        if self.only_new && (self.only_greater || self.only_less) || self.only_greater && self.only_less {
            return Err(CommandError::err("GT, LT, and/or NX options at the same time are not compatible"));
        }
        if self.increment && pairs > 1 {
            return Err(CommandError::err("INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The score that a member gets; `None` if the options leave it as it is.
    fn score(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, CommandError> {
        let Some(old) = old else { return Ok((!self.only_existing).then_some(given)) };
        if self.only_new {
            return Ok(None);
        }
        let new = if self.increment { old + given } else { given };
        if new.is_nan() {
            return Err(CommandError::err("resulting score is not a number (NaN)"));
        }
        let refused = self.only_less && old <= new || self.only_greater && new <= old;
        Ok((!refused).then_some(new))
    }
}

/// What ZADD did.
#[derive(Debug, Default)]
struct Done {
    added: usize,
    changed: usize,
    /// The score of the last member that the options did not leave alone.
    score: Option<f64>,
}

fn add(ctx: &mut DataContext<'_, '_>, args: Args<'_>, mut options: Options) -> CommandResult {
    let key = args.at(1);
    let first = options.parse(args);
    let rest = args.len() - first;
    if rest == 0 || !rest.is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    options.check(rest / 2)?;
    let scores =
        (first..args.len()).step_by(2).map(|at| parse_f64_arg(args.at(at))).collect::<Result<Vec<_>, _>>()?;

    let set = if options.only_existing {
        ctx.keys.sorted_set_mut(key)?
    } else {
        Some(ctx.keys.sorted_set_or_new(key)?)
    };
    let done = match set {
        Some(mut set) => {
            let longest = (first + 1..args.len()).step_by(2).map(|at| args.at(at).len()).max();
            set.prepare(rest / 2, longest.unwrap_or_default());
            apply(set, &options, scores, args, first)?
        }
        None => Done::default(),
    };
    if done.added + done.changed > 0 {
        ctx.keys.modified(key);
        ctx.keys.propagate(key, args);
        ctx.keys.notify(EventClass::SortedSet, if options.increment { "zincr" } else { "zadd" }, key);
    }
    if done.added > 0 {
        ctx.keys.signal_ready(key);
    }
    match done.score {
        Some(score) if options.increment => ctx.out.double(score),
        None if options.increment => ctx.out.null(),
        Some(_) | None if options.count_changes => ctx.out.len(done.added + done.changed),
        Some(_) | None => ctx.out.len(done.added),
    }
    Ok(Outcome::Reply)
}

/// Fails only for INCR, which has one member: nothing is changed then.
fn apply(
    mut set: SortedSetMut<'_>,
    options: &Options,
    scores: Vec<f64>,
    args: Args<'_>,
    first: usize,
) -> Result<Done, CommandError> {
    let mut done = Done::default();
    for (i, given) in scores.into_iter().enumerate() {
        let member = args.at(first + 2 * i + 1);
        let old = set.as_ref().score(member);
        let Some(new) = options.score(old, given)? else { continue };
        done.score = Some(new);
        match old {
            None => done.added += 1,
            Some(old) if old != new => done.changed += 1,
            Some(_) => continue,
        }
        set.insert(member, new);
    }
    Ok(done)
}
