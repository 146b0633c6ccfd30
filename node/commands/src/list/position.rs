//! LPOS: where elements are.

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, RO};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_count, parse_signed_count,
    read,
};
use keyward_store::types::{Element, ListRef};

/// `LPOS key element [RANK rank] [COUNT count] [MAXLEN len]`
pub(super) const LPOS: DataCommand = read("lpos", lpos, -3, 0, "6.0.6").key(1, RO | ACCESS);
fn lpos(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let search = Search::parse(args)?;
    let list = ctx.keys.list(args.at(1))?;
    let found = list.map_or_else(Vec::new, |list| search.run(list, args.at(2)));
    match (search.count, &found[..]) {
        (Some(_), found) => {
            ctx.out.array(found.len());
            found.iter().for_each(|index| ctx.out.len(*index));
        }
        (None, [index, ..]) => ctx.out.len(*index),
        (None, []) => ctx.out.null(),
    }
    Ok(Outcome::Reply)
}

#[derive(Debug)]
struct Search {
    /// Matches to pass over.
    skip: usize,
    from_end: bool,
    /// `None`: one, and the reply is no array.
    count: Option<usize>,
    /// How many elements to look at.
    len_max: usize,
}

impl Search {
    fn parse(args: Args<'_>) -> Result<Self, CommandError> {
        let mut search = Search { skip: 0, from_end: false, count: None, len_max: usize::MAX };
        let mut options = Cursor::new(args, 3);
        while !options.is_at_end() {
            if let Some(value) = options.value_of("rank") {
                let rank = parse_signed_count(value)?;
                let distance = usize::try_from(rank.unsigned_abs()).unwrap_or(usize::MAX);
                search.skip = distance.checked_sub(1).ok_or_else(|| {
                    CommandError::err(
                        "RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                         negative to start from the end of the list",
                    )
                })?;
                search.from_end = rank < 0;
            } else if let Some(value) = options.value_of("count") {
                let count = parse_count(value);
                search.count = Some(count.map_err(|_| CommandError::err("COUNT can't be negative"))?);
            } else if let Some(value) = options.value_of("maxlen") {
                let len = parse_count(value).map_err(|_| CommandError::err("MAXLEN can't be negative"))?;
                search.len_max = if len == 0 { usize::MAX } else { len };
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(search)
    }

    /// Indexes of matches, in the order in which they are found.
    fn run(&self, list: ListRef<'_>, element: &[u8]) -> Vec<usize> {
        let count = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let matching = |(_, candidate): &(usize, Element<'_>)| **candidate == *element;
        let indexed = list.iter().enumerate();
        if self.from_end {
            let matches = indexed.rev().take(self.len_max).filter(matching);
            matches.skip(self.skip).take(count).map(|(i, _)| i).collect()
        } else {
            let matches = indexed.take(self.len_max).filter(matching);
            matches.skip(self.skip).take(count).map(|(i, _)| i).collect()
        }
    }
}
