//! LCS: the longest common subsequence of two strings.

use keyward_proto::resp::{Args, ReplyWriter};

use crate::spec::{ACCESS, RO};
use crate::{CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, parse_i64_arg, read};

/// What is asked for.
#[derive(Debug, Default)]
struct Wanted {
    len: bool,
    matches: bool,
    match_len_min: u64,
    with_match_len: bool,
}

impl Wanted {
    fn parse(args: Args<'_>) -> Result<Self, CommandError> {
        let mut wanted = Wanted::default();
        let mut options = Cursor::new(args, 3);
        while !options.is_at_end() {
            if options.word("idx") {
                wanted.matches = true;
            } else if options.word("len") {
                wanted.len = true;
            } else if options.word("withmatchlen") {
                wanted.with_match_len = true;
            } else if let Some(value) = options.value_of("minmatchlen") {
                wanted.match_len_min = parse_i64_arg(value)?.max(0).unsigned_abs();
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if wanted.matches && wanted.len {
            let text = "If you want both the length and indexes, please just use IDX.";
            return Err(CommandError::err(text));
        }
        Ok(wanted)
    }
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]`
pub(super) const LCS: DataCommand = read("lcs", lcs, -3, 0, "7.0.0").keys(1, 1, 1, RO | ACCESS);
fn lcs(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    // Both keys are looked up before the type of either counts, as the statistics of misses show.
    let (a, b) = (ctx.keys.string(args.at(1)), ctx.keys.string(args.at(2)));
    let (Ok(a), Ok(b)) = (a, b) else {
        return Err(CommandError::err("The specified keys must contain string values"));
    };
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let wanted = Wanted::parse(args)?;
    let table = LengthTable::new(a, b, ctx.limits.string_bytes_max)?;
    let len = table.get(a.len(), b.len()) as usize;
    if wanted.len {
        ctx.out.len(len);
        return Ok(Outcome::Reply);
    }
    let runs = table.runs(a, b);
    if wanted.matches {
        write_matches(&mut ctx.out, &runs, &wanted, len);
        return Ok(Outcome::Reply);
    }
    let mut subsequence = Vec::with_capacity(len);
    for run in runs.iter().rev() {
        subsequence.extend_from_slice(&a[run.a..run.a + run.len]);
    }
    ctx.out.bulk(&subsequence);
    Ok(Outcome::Reply)
}

fn write_matches(out: &mut ReplyWriter<'_>, runs: &[Run], wanted: &Wanted, len: usize) {
    let long_enough = |run: &&Run| wanted.match_len_min <= run.len as u64;
    out.map(2);
    out.bulk_str("matches");
    out.array(runs.iter().filter(long_enough).count());
    for run in runs.iter().filter(long_enough) {
        out.array(if wanted.with_match_len { 3 } else { 2 });
        for start in [run.a, run.b] {
            out.array(2);
            out.len(start);
            out.len(start + run.len - 1);
        }
        if wanted.with_match_len {
            out.len(run.len);
        }
    }
    out.bulk_str("len");
    out.len(len);
}

/// Bytes that follow one another in both strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    a: usize,
    b: usize,
    len: usize,
}

/// The length of the longest common subsequence of every pair of prefixes.
struct LengthTable {
    lengths: Vec<u32>,
    width: usize,
}

impl LengthTable {
    fn new(a: &[u8], b: &[u8], bytes_max: usize) -> Result<Self, CommandError> {
        let limit = u32::MAX as usize - 1;
        if limit <= a.len() || limit <= b.len() {
            return Err(CommandError::err("String too long for LCS"));
        }
        let width = b.len() + 1;
        let cells = (a.len() + 1).checked_mul(width).filter(|n| *n <= bytes_max / size_of::<u32>());
        let cells = cells.ok_or_else(|| {
            CommandError::err("Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
        })?;
        let mut lengths = vec![0u32; cells];
        for (i, byte) in a.iter().enumerate() {
            let (above, row) = lengths[i * width..(i + 2) * width].split_at_mut(width);
            for (j, other) in b.iter().enumerate() {
                row[j + 1] = if byte == other { above[j] + 1 } else { row[j].max(above[j + 1]) };
            }
        }
        Ok(LengthTable { lengths, width })
    }

    fn get(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * self.width + j]
    }

    /// The runs of one longest common subsequence, the last one first.
    fn runs(&self, a: &[u8], b: &[u8]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        while 0 < i && 0 < j {
            if a[i - 1] == b[j - 1] {
                match runs.last_mut() {
                    Some(run) if run.a == i && run.b == j => {
                        *run = Run { a: i - 1, b: j - 1, len: run.len + 1 };
                    }
                    Some(_) | None => runs.push(Run { a: i - 1, b: j - 1, len: 1 }),
                }
                i -= 1;
                j -= 1;
            } else if self.get(i, j - 1) < self.get(i - 1, j) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        runs
    }
}
