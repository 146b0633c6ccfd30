//! Reading arguments: options one after the other ([`Cursor`]), and the checks and errors that many commands share.

use std::ops::Range;

use keyward_proto::resp::number::{parse_f64, parse_i64};
use keyward_proto::resp::{Args, LongDouble};

use crate::CommandError;

/// Whether an argument is this word, in any case.
#[inline]
pub fn ascii_eq(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// Reads the options behind a command's fixed arguments: words in any case, some with values.
///
/// Each question names what may come next and reads it if it does; what no question knows is an error of the command.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    args: Args<'a>,
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at argument `first`.
    #[inline]
    pub fn new(args: Args<'a>, first: usize) -> Self {
        Cursor { args, at: first, end: args.len() }
    }

    /// Over these arguments, as if no others followed.
    pub fn within(args: Args<'a>, range: Range<usize>) -> Self {
        Cursor { args, at: range.start, end: range.end }
    }

    #[inline]
    pub fn is_at_end(&self) -> bool {
        self.end <= self.at
    }

    /// Which argument comes next.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many arguments are left.
    #[inline]
    pub fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    /// What comes next, without reading it.
    #[inline]
    pub fn peek(&self) -> Option<&'a [u8]> {
        if self.is_at_end() { None } else { self.args.get(self.at) }
    }

    #[inline]
    pub fn take(&mut self) -> Option<&'a [u8]> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    /// What comes next, if it is such an argument.
    pub fn take_if(&mut self, is_one: impl FnOnce(&[u8]) -> bool) -> Option<&'a [u8]> {
        self.peek().filter(|next| is_one(next))?;
        self.take()
    }

    /// Whether this word comes next.
    #[inline]
    pub fn word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|next| ascii_eq(next, word));
        self.at += usize::from(found);
        found
    }

    /// The value behind this word, if both come next.
    #[inline]
    pub fn value_of(&mut self, word: &str) -> Option<&'a [u8]> {
        let value = self.args.get(self.at.saturating_add(1)).filter(|_| 2 <= self.left())?;
        if !self.word(word) {
            return None;
        }
        self.at += 1;
        Some(value)
    }

    /// So many values behind this word, if all come next.
    pub fn values_of(
        &mut self,
        word: &str,
        count: usize,
    ) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        if self.left() <= count || !self.word(word) {
            return None;
        }
        let values = self.args.iter().skip(self.at).take(count);
        self.at += count;
        Some(values)
    }

    /// # Errors
    /// `ERR syntax error` if something is left.
    pub fn finish(&self) -> Result<(), CommandError> {
        if self.is_at_end() { Ok(()) } else { Err(CommandError::Syntax) }
    }
}

/// # Errors
/// `ERR value is not an integer or out of range`
#[inline]
pub fn parse_i64_arg(argument: &[u8]) -> Result<i64, CommandError> {
    parse_i64(argument).ok_or(CommandError::NotInteger)
}

/// # Errors
/// `ERR value is not a valid float`
pub fn parse_f64_arg(argument: &[u8]) -> Result<f64, CommandError> {
    parse_f64(argument).ok_or(CommandError::NotFloat)
}

/// A count that must not be negative.
///
/// # Errors
/// `ERR value is out of range, must be positive`
pub(crate) fn parse_count(argument: &[u8]) -> Result<usize, CommandError> {
    let value = parse_i64(argument).and_then(|v| usize::try_from(v).ok());
    value.ok_or_else(|| CommandError::err("value is out of range, must be positive"))
}

/// The timeout of a blocking command, in seconds with a fraction: milliseconds, zero for ever.
///
/// # Errors
/// `ERR timeout is not a float or out of range`, `is negative`, `is out of range` (the end lies beyond 2^63 ms).
pub(crate) fn parse_timeout(argument: &[u8], now: i64) -> Result<u64, CommandError> {
    let seconds = LongDouble::parse(argument)
        .ok_or_else(|| CommandError::err("timeout is not a float or out of range"))?;
    let milliseconds = (seconds.to_f64() * 1000.0).ceil();
    if 9_223_372_036_854_775_807.0 < milliseconds {
        return Err(CommandError::err("timeout is out of range"));
    }
    #[allow(clippy::cast_possible_truncation, reason = "checked above; a cast saturates at the lower end")]
    match milliseconds as i64 {
        ..0 => Err(CommandError::err("timeout is negative")),
        ms if i64::MAX.saturating_sub(now) < ms => Err(CommandError::err("timeout is out of range")),
        ms => Ok(ms.unsigned_abs()),
    }
}

/// An integer of 32 bits.
///
/// # Errors
/// As for [`parse_i64_arg`], and a text of its own for a larger one.
pub fn parse_i32_arg(argument: &[u8]) -> Result<i32, CommandError> {
    let range = |_| {
        CommandError::err(format!("value is out of range, value must between {} and {}", i32::MIN, i32::MAX))
    };
    i32::try_from(parse_i64_arg(argument)?).map_err(range)
}

/// A count whose sign has a meaning of its own, so that its absolute value must be a count too.
///
/// # Errors
/// `ERR value is not an integer or out of range`, or the range in words.
pub(crate) fn parse_signed_count(argument: &[u8]) -> Result<i64, CommandError> {
    match parse_i64_arg(argument)? {
        i64::MIN => Err(CommandError::err(
            "value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        count => Ok(count),
    }
}

/// A count of at least one.
///
/// # Errors
/// `ERR` and `text`.
pub(crate) fn parse_positive(argument: &[u8], text: &'static str) -> Result<usize, CommandError> {
    let value = parse_i64(argument).and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
    value.ok_or_else(|| CommandError::err(text))
}

/// The elements from index `start` to `end` inclusive, negative ones counted from the end, in a sequence of `len`.
pub(crate) fn index_range(start: i64, end: i64, len: usize) -> Range<usize> {
    let resolve = |index: i64| {
        let distance = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
        if index < 0 { len.checked_sub(distance) } else { Some(distance) }
    };
    let start = resolve(start).unwrap_or(0);
    match resolve(end) {
        Some(end) if start <= end && start < len => start..end.min(len - 1) + 1,
        Some(_) | None => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_one_after_the_other() {
        let words: [&[u8]; 8] = [b"CMD", b"Limit", b"1", b"2", b"rev", b"COUNT", b"5", b"COUNT"];
        let mut options = Cursor::new(Args::from_slices(&words), 1);
        assert!(!options.word("rev") && options.value_of("count").is_none());
        assert!(options.values_of("limit", 7).is_none());
        assert_eq!(options.values_of("limit", 2).unwrap().collect::<Vec<_>>(), [b"1", b"2"]);
        assert!(options.word("REV") && !options.word("rev"));
        assert_eq!(options.value_of("count"), Some(&b"5"[..]));
        assert_eq!((options.value_of("count"), options.position()), (None, 7), "its value is missing");
        assert_eq!((options.peek(), options.finish()), (Some(&b"COUNT"[..]), Err(CommandError::Syntax)));
        assert_eq!((options.take(), options.take()), (Some(&b"COUNT"[..]), None));
        assert!(options.is_at_end() && options.finish().is_ok());
        let mut options = Cursor::within(Args::from_slices(&words), 4..6);
        assert!(options.word("rev"));
        assert_eq!((options.value_of("count"), options.take()), (None, Some(&b"COUNT"[..])));
        assert_eq!((options.take(), options.left()), (None, 0));
    }

    #[test]
    fn ranges_of_indexes() {
        for (start, end, expect) in [
            (0, -1, 0..5),
            (1, 3, 1..4),
            (-3, -2, 2..4),
            (-100, 100, 0..5),
            (3, 1, 0..0),
            (5, 9, 0..0),
            (0, -6, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(index_range(start, end, 5), expect, "{start} {end}");
        }
        assert_eq!(index_range(0, -1, 0), 0..0);
    }
}
