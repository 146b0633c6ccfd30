//! `ZRANDMEMBER key [count [WITHSCORES]]`

use keyward_proto::resp::Args;
use rand::Rng;
use rand::seq::index;

use super::Scores;
use crate::args::parse_signed_count;
use crate::scan::{check_repeated_len, write_repeated};
use crate::spec::{ACCESS, RO};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, read};

/// See the module documentation.
pub(super) const ZRANDMEMBER: DataCommand =
    read("zrandmember", zrandmember, -2, 0, "6.2.0").key(1, RO | ACCESS).tips(&["nondeterministic_output"]);
fn zrandmember(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let Some(count) = args.get(2) else {
        let set = ctx.keys.sorted_set(args.at(1))?;
        let random = set.and_then(|set| set.get(ctx.rng.random_range(0..set.len())));
        ctx.out.optional_bulk(random.as_ref().map(|(member, _)| &**member));
        return Ok(Outcome::Reply);
    };
    let (count, scores) = parse(args, count)?;
    let Some(set) = ctx.keys.sorted_set(args.at(1))? else {
        ctx.out.array(0);
        return Ok(Outcome::Reply);
    };
    let out = &mut ctx.out;
    let len = set.len();
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 {
        check_repeated_len(wanted)?;
        scores.write_header(out, wanted);
        let members = (0..wanted).filter_map(|_| set.get(ctx.rng.random_range(0..len)));
        write_repeated(out, members, |out, member| scores.write(out, member))?;
    } else if len <= wanted {
        scores.write_header(out, len);
        set.iter().rev().for_each(|member| scores.write(out, member));
    } else {
        scores.write_header(out, wanted);
        for at in index::sample(ctx.rng, len, wanted) {
            if let Some(member) = set.get(at) {
                scores.write(out, member);
            }
        }
    }
    Ok(Outcome::Reply)
}

fn parse(args: Args<'_>, count: &[u8]) -> Result<(i64, Scores), CommandError> {
    let count = parse_signed_count(count)?;
    let scores = match args.get(3) {
        None => Scores::Without,
        Some(word) if args.len() == 4 && ascii_eq(word, "withscores") => Scores::With,
        Some(_) => return Err(CommandError::Syntax),
    };
    let doubled_overflows = scores == Scores::With && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count);
    if doubled_overflows {
        return Err(CommandError::err("value is out of range"));
    }
    Ok((count, scores))
}
