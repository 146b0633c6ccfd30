//! What SCAN, CLUSTERSCAN, HSCAN, SSCAN and ZSCAN share, and the bound of random choices with repetition.

use keyward_proto::glob;
use keyward_proto::resp::{Args, ReplyWriter};
use keyward_proto::slot::{Slot, hash_tag};

use crate::{CommandError, Cursor, ascii_eq, parse_i64_arg};
use keyward_store::entry::Entry;
use keyward_store::table::ScanPosition;

/// Most elements in the reply to a request for random elements that may repeat: the collection sets no bound.
/// Differs from Valkey, which goes on until memory is full.
const REPEATED_LEN_MAX: usize = 16 << 20;
/// Longest such reply.
const REPEATED_BYTES_MAX: usize = 256 << 20;

/// What a scan returns of what it visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanOptions<'a> {
    /// `None`: everything matches.
    pattern: Option<&'a [u8]>,
    /// About how many elements to visit.
    pub count: usize,
    /// SCAN ... TYPE.
    pub type_name: Option<&'static str>,
    /// HSCAN ... NOVALUES.
    pub(crate) no_values: bool,
    /// ZSCAN ... NOSCORES.
    pub(crate) no_scores: bool,
}

/// Which command scans: they share all options but these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    Keys,
    Hash,
    Other,
    SortedSet,
}

/// What TYPE may name; the types that are not there yet match no key.
const TYPE_NAMES: &[&str] = &["string", "list", "set", "zset", "hash", "stream"];

impl<'a> ScanOptions<'a> {
    /// Reads `[MATCH pattern] [COUNT count] [TYPE type] [NOVALUES] [NOSCORES]` from argument `first` on.
    pub(crate) fn parse(args: Args<'a>, first: usize, scanned: Scanned) -> Result<Self, CommandError> {
        ScanOptions::parse_with(args, first, scanned, |_| Ok(false))
    }

    /// As [`ScanOptions::parse`], with options that `further` knows: whether it has read one.
    ///
    /// # Errors
    /// An option is wrong, or there is no such option.
    pub fn parse_with(
        args: Args<'a>,
        first: usize,
        scanned: Scanned,
        mut further: impl FnMut(&mut Cursor<'a>) -> Result<bool, CommandError>,
    ) -> Result<Self, CommandError> {
        let mut options =
            ScanOptions { pattern: None, count: 10, type_name: None, no_values: false, no_scores: false };
        let mut rest = Cursor::new(args, first);
        while !rest.is_at_end() {
            if let Some(value) = rest.value_of("count") {
                let count = parse_i64_arg(value)?;
                options.count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
                if options.count == 0 {
                    return Err(CommandError::Syntax);
                }
            } else if let Some(value) = rest.value_of("match") {
                options.pattern = (value != b"*").then_some(value);
            } else if scanned == Scanned::Keys
                && let Some(value) = rest.value_of("type")
            {
                let known = TYPE_NAMES.iter().copied().find(|name| ascii_eq(value, name));
                let unknown = || CommandError::quoting("unknown type name '", value, "'");
                options.type_name = Some(known.ok_or_else(unknown)?);
            } else if rest.word("novalues") {
                if scanned != Scanned::Hash {
                    return Err(CommandError::err("NOVALUES option can only be used in HSCAN"));
                }
                options.no_values = true;
            } else if rest.word("noscores") {
                if scanned != Scanned::SortedSet {
                    return Err(CommandError::err("NOSCORES option can only be used in ZSCAN"));
                }
                options.no_scores = true;
            } else if !further(&mut rest)? {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// The slot of all keys that may match, if the pattern decides that.
    pub fn slot(&self) -> Option<Slot> {
        let pattern = self.pattern?;
        let tag = hash_tag(pattern);
        let open = pattern.iter().position(|byte| *byte == b'{').filter(|_| tag.len() < pattern.len());
        let decides = open.map_or(pattern, |open| &pattern[..=open + tag.len()]);
        let is_plain = !decides.iter().any(|byte| b"*?[\\".contains(byte));
        is_plain.then(|| Slot::of(pattern))
    }

    /// Whether SCAN shows a key.
    pub fn shows(&self, entry: &Entry, now: i64) -> bool {
        let has_type = self.type_name.is_none_or(|name| entry.value().type_name() == name);
        has_type && is_live(entry, now) && self.matches(entry.key())
    }

    /// Whether a key, field or member passes MATCH.
    #[inline]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| pattern == b"*" || glob::matches(pattern, name))
    }
}

pub(crate) fn is_live(entry: &Entry, now: i64) -> bool {
    entry.expire_at().is_none_or(|at| now <= at)
}

/// The cursor as C's `strtoull` reads it: leading spaces and a sign are accepted.
///
/// # Errors
/// `ERR invalid cursor`
pub fn parse_cursor(argument: &[u8]) -> Result<u64, CommandError> {
    let invalid = || CommandError::err("invalid cursor");
    let text = argument.trim_ascii_start();
    // As strtoul, which reads a negative number as its complement.
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let value = digits
        .iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(*digit - b'0')));
    match value {
        // A negative number that fits 64 bits is one, and refused; a smaller one is read as its complement.
        Some(v) if negative && v <= 1 << 63 => Err(invalid()),
        Some(v) if negative => Ok(v.wrapping_neg()),
        Some(v) => Ok(v),
        None => Err(invalid()),
    }
}

/// How far one call walks over a collection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    start: u64,
    /// About how many elements to visit.
    count: usize,
}

impl Walk {
    /// Over all of a small collection, whatever the cursor is: so it is in Valkey, and it may have been larger when the
    /// scan began.
    pub(crate) const WHOLE: Walk = Walk { start: 0, count: usize::MAX };

    /// From `cursor` on, until about COUNT elements are visited.
    pub(crate) fn from(cursor: u64, options: &ScanOptions<'_>) -> Walk {
        Walk { start: cursor, count: options.count }
    }

    /// Calls `scan` with one position after the other and the number of visited elements, which it raises; returns the
    /// next cursor, zero at the end.
    pub(crate) fn run(self, mut scan: impl FnMut(ScanPosition, &mut usize) -> Option<ScanPosition>) -> u64 {
        let mut visited = 0;
        let mut next = ScanPosition::try_from(self.start).ok();
        while let Some(position) = next {
            next = scan(position, &mut visited);
            if self.count <= visited {
                break;
            }
        }
        next.map_or(0, u64::from)
    }
}

/// The reply of a scan: the next cursor, and what was found.
pub(crate) fn reply<T: AsRef<[u8]>>(out: &mut ReplyWriter<'_>, next: u64, found: &[T]) {
    out.array(2);
    out.bulk_str(&next.to_string());
    out.array(found.len());
    found.iter().for_each(|element| out.bulk(element.as_ref()));
}

/// Checks a number of random elements that may repeat.
///
/// # Errors
/// The reply would be longer than any sensible one.
pub(crate) fn check_repeated_len(count: usize) -> Result<(), CommandError> {
    if REPEATED_LEN_MAX < count { Err(too_large()) } else { Ok(()) }
}

/// Writes random elements that may repeat, after their header.
///
/// # Errors
/// The reply would be longer than any sensible one; what was written has to be dropped.
pub(crate) fn write_repeated<T>(
    out: &mut ReplyWriter<'_>,
    elements: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut ReplyWriter<'_>, T),
) -> Result<(), CommandError> {
    let start = out.position();
    for element in elements {
        write(out, element);
        if out.is_full() {
            break;
        }
        if REPEATED_BYTES_MAX < out.position() - start {
            return Err(too_large());
        }
    }
    Ok(())
}

fn too_large() -> CommandError {
    CommandError::err("value is out of range, the reply would be too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_may_decide_the_slot() {
        for (pattern, like) in [
            ("{b}?", Some("b")),
            ("x{b}*", Some("b")),
            ("b", Some("b")),
            ("{b", Some("{b")),
            ("{}b", Some("{}b")),
            ("{b?}", None),
            ("*{b}", None),
            ("[x]{b}", None),
            ("\\x", None),
            ("b*", None),
        ] {
            let pattern = Some(pattern.as_bytes());
            let options =
                ScanOptions { pattern, count: 10, type_name: None, no_values: false, no_scores: false };
            assert_eq!(options.slot(), like.map(|like| Slot::of(like.as_bytes())), "{options:?}");
        }
    }

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
