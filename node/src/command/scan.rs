//! Cursor and options of SCAN, HSCAN, SSCAN and ZSCAN.

use keyward_proto::resp::Args;

use super::{CommandError, ascii_eq, parse_i64_arg};
use keyward_proto::glob;

/// What a scan returns of what it visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScanOptions<'a> {
    /// `None`: everything matches.
    pattern: Option<&'a [u8]>,
    /// About how many elements to visit.
    pub count: usize,
    /// SCAN ... TYPE.
    pub type_name: Option<&'a [u8]>,
    /// HSCAN ... NOVALUES.
    pub no_values: bool,
    /// ZSCAN ... NOSCORES.
    pub no_scores: bool,
}

/// Which command scans: they share all options but these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    Keys,
    Hash,
    Other,
    SortedSet,
}

impl<'a> ScanOptions<'a> {
    /// Reads `[MATCH pattern] [COUNT count] [TYPE type] [NOVALUES] [NOSCORES]` from argument `first` on.
    pub(super) fn parse(args: Args<'a>, first: usize, scanned: Scanned) -> Result<Self, CommandError> {
        let mut options =
            ScanOptions { pattern: None, count: 10, type_name: None, no_values: false, no_scores: false };
        let mut at = first;
        while let Some(word) = args.get(at) {
            match args.get(at + 1) {
                Some(value) if ascii_eq(word, "count") => {
                    let count = parse_i64_arg(value)?;
                    options.count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
                    if options.count == 0 {
                        return Err(CommandError::Syntax);
                    }
                    at += 2;
                }
                Some(value) if ascii_eq(word, "match") => {
                    options.pattern = (value != b"*").then_some(value);
                    at += 2;
                }
                Some(value) if ascii_eq(word, "type") && scanned == Scanned::Keys => {
                    options.type_name = Some(value);
                    at += 2;
                }
                Some(_) | None if ascii_eq(word, "novalues") => {
                    if scanned != Scanned::Hash {
                        return Err(CommandError::err("NOVALUES option can only be used in HSCAN"));
                    }
                    options.no_values = true;
                    at += 1;
                }
                Some(_) | None if ascii_eq(word, "noscores") => {
                    if scanned != Scanned::SortedSet {
                        return Err(CommandError::err("NOSCORES option can only be used in ZSCAN"));
                    }
                    options.no_scores = true;
                    at += 1;
                }
                Some(_) | None => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }

    /// Whether a key, field or member passes MATCH.
    #[inline]
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

/// The cursor as C's `strtoull` reads it: leading spaces and a sign are accepted.
pub(super) fn parse_cursor(argument: &[u8]) -> Result<u64, CommandError> {
    let invalid = || CommandError::err("invalid cursor");
    let text = argument.trim_ascii_start();
    let digits = match text {
        [b'+', digits @ ..] => digits,
        _ => text,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let value = digits
        .iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(*digit - b'0')));
    value.ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors() {
        for (text, expect) in [
            ("0", Some(0)),
            ("+12", Some(12)),
            (" 007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("", None),
            ("+", None),
            ("1 ", None),
        ] {
            assert_eq!(parse_cursor(text.as_bytes()).ok(), expect, "{text:?}");
        }
    }
}
