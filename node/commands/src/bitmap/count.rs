//! How many bits are set, and where the first one is: BITCOUNT, BITPOS.

use std::ops::Range;

use keyward_proto::resp::Args;

use super::read_bits;
use crate::spec::{ACCESS, RO};
use crate::{
    CommandError, CommandResult, Cursor, DataCommand, DataContext, Outcome, ascii_eq, parse_i64_arg, read,
};

/// Which part of a string is looked at: both ends inclusive, negative ones counted from the string's.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: i64,
    end: Option<i64>,
    in_bits: bool,
}

impl Part {
    /// `[start [end [BYTE | BIT]]]`; a wrong unit is found before a wrong end.
    fn parse(args: Args<'_>, first: usize) -> Result<Part, CommandError> {
        if first + 3 < args.len() {
            return Err(CommandError::Syntax);
        }
        let mut rest = Cursor::new(args, first);
        let start = rest.take().map(parse_i64_arg).transpose()?.unwrap_or(0);
        let end = rest.take();
        let in_bits = match rest.take() {
            Some(unit) if ascii_eq(unit, "bit") => true,
            Some(unit) if !ascii_eq(unit, "byte") => return Err(CommandError::Syntax),
            Some(_) | None => false,
        };
        Ok(Part { start, end: end.map(parse_i64_arg).transpose()?, in_bits })
    }

    /// Its bits in a string of so many bytes.
    fn bits(self, bytes: usize) -> Range<usize> {
        let unit = if self.in_bits { 1 } else { 8 };
        let len = i64::try_from(bytes * 8 / unit).unwrap_or(i64::MAX);
        let position = |p: i64| if p < 0 { p.saturating_add(len).max(0) } else { p };
        let (start, last) = (position(self.start), position(self.end.unwrap_or(-1)).min(len - 1));
        match (usize::try_from(start), usize::try_from(last)) {
            (Ok(start), Ok(last)) if start <= last => start * unit..(last + 1) * unit,
            (Ok(_) | Err(_), _) => 0..0,
        }
    }

    /// Both ends lie before the string's, in the wrong order: nothing is counted, whatever the string is.
    fn is_reversed(self) -> bool {
        self.start < 0 && self.end.is_some_and(|end| end < 0 && end < self.start)
    }
}

/// `BITCOUNT key [start [end [BYTE | BIT]]]`
pub(super) const BITCOUNT: DataCommand = read("bitcount", bitcount, -2, 0, "2.6.0").key(1, RO | ACCESS);
fn bitcount(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let part = Part::parse(args, 2)?;
    let bytes = ctx.keys.string(args.at(1))?.unwrap_or_default();
    let count = if part.is_reversed() { 0 } else { count_bits(bytes, part.bits(bytes.len())) };
    ctx.out.len(count);
    Ok(Outcome::Reply)
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`: the first bit that is so; -1 if there is none. Without an end zeros
/// follow the string.
pub(super) const BITPOS: DataCommand = read("bitpos", bitpos, -3, 0, "2.8.7").key(1, RO | ACCESS);
fn bitpos(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let bit = match parse_i64_arg(args.at(2))? {
        bit @ (0 | 1) => bit.unsigned_abs(),
        _ => return Err(CommandError::err("The bit argument must be 1 or 0.")),
    };
    let part = Part::parse(args, 3)?;
    let position = match ctx.keys.string(args.at(1))? {
        None if bit == 1 => None,
        None => Some(0),
        Some(bytes) => {
            let bits = part.bits(bytes.len());
            let behind = bit == 0 && part.end.is_none() && !bits.is_empty();
            first_bit(bytes, bits, bit).or(behind.then_some(bytes.len() * 8))
        }
    };
    ctx.out.integer(position.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)));
    Ok(Outcome::Reply)
}

/// A range of bits as the bits of its first byte if it does not begin there, whole bytes, and the bits of its last one.
fn pieces(bits: &Range<usize>) -> (Range<usize>, Range<usize>, Range<usize>) {
    let whole = bits.start.div_ceil(8)..bits.end / 8;
    if whole.end < whole.start {
        return (bits.clone(), 0..0, 0..0);
    }
    (bits.start..whole.start * 8, whole.clone(), whole.end * 8..bits.end)
}

fn count_bits(bytes: &[u8], bits: Range<usize>) -> usize {
    let (first, whole, last) = pieces(&bits);
    let single = |bits: Range<usize>| bits.filter(|at| read_bits(bytes, *at, 1) != 0).count();
    let (words, rest) = bytes[whole].as_chunks::<8>();
    let words: usize = words.iter().map(|word| u64::from_ne_bytes(*word).count_ones() as usize).sum();
    let rest: usize = rest.iter().map(|byte| byte.count_ones() as usize).sum();
    single(first) + words + rest + single(last)
}

fn first_bit(bytes: &[u8], bits: Range<usize>, bit: u64) -> Option<usize> {
    let (first, whole, last) = pieces(&bits);
    let single = |mut bits: Range<usize>| bits.find(|at| read_bits(bytes, *at, 1) == bit);
    let other = if bit == 1 { 0 } else { u8::MAX };
    let in_whole = || {
        let at = whole.start + bytes[whole.clone()].iter().position(|byte| *byte != other)?;
        single(at * 8..at * 8 + 8)
    };
    single(first).or_else(in_whole).or_else(|| single(last))
}
