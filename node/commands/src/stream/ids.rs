//! Reading the IDs of entries, and writing them.

use keyward_proto::resp::ReplyWriter;
use keyward_proto::resp::number::parse_i64;
use keyward_store::types::StreamId;

use crate::CommandError;

/// No ID is longer.
const ID_LEN_MAX: usize = 127;

const INVALID: &str = "Invalid stream ID specified as stream command argument";

/// An ID in a request: it may leave its second part open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Whole(StreamId),
    /// `ms-*`
    AnySeq(u64),
}

/// A number as C's `strtoull` reads it, which accepts more than what is written that way.
fn parse_u64(text: &[u8]) -> Option<u64> {
    if let Some(value) = parse_i64(text) {
        return u64::try_from(value).ok();
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte))?;
    let (is_negative, digits) = match text.get(start..)? {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if is_negative { value.wrapping_neg() } else { value })
}

/// An ID, whose second part may be `*` or missing.
fn parse(argument: &[u8], missing_seq: u64) -> Option<Given> {
    if argument.len() > ID_LEN_MAX {
        return None;
    }
    // What is behind a NUL is not looked at.
    let text = argument.split(|byte| *byte == 0).next()?;
    let Some(dash) = text.iter().position(|byte| *byte == b'-') else {
        return Some(Given::Whole(StreamId::new(parse_u64(text)?, missing_seq)));
    };
    let (ms, seq) = (parse_u64(&text[..dash])?, &text[dash + 1..]);
    if seq == b"*" {
        return Some(Given::AnySeq(ms));
    }
    Some(Given::Whole(StreamId::new(ms, parse_u64(seq)?)))
}

pub(super) fn invalid() -> CommandError {
    CommandError::err(INVALID)
}

/// An ID; without a second part that is zero.
///
/// # Errors
/// `ERR Invalid stream ID specified as stream command argument`
pub(super) fn parse_id(argument: &[u8]) -> Result<StreamId, CommandError> {
    whole(argument, 0).ok_or_else(invalid)
}

fn whole(argument: &[u8], missing_seq: u64) -> Option<StreamId> {
    match parse(argument, missing_seq)? {
        Given::Whole(id) => Some(id),
        Given::AnySeq(_) => None,
    }
}

/// As [`parse_id`], but the second part may be `*`.
pub(super) fn parse_given(argument: &[u8]) -> Result<Given, CommandError> {
    parse(argument, 0).ok_or_else(invalid)
}

/// An end of a range, and whether it is itself left out; a missing second part is `missing_seq`.
fn parse_bound(argument: &[u8], missing_seq: u64) -> Result<(StreamId, bool), CommandError> {
    match argument {
        b"-" => Ok((StreamId::ZERO, false)),
        b"+" => Ok((StreamId::MAX, false)),
        [b'(', id @ ..] if !id.is_empty() => whole(id, missing_seq).map(|id| (id, true)).ok_or_else(invalid),
        id => whole(id, missing_seq).map(|id| (id, false)).ok_or_else(invalid),
    }
}

/// The first ID of a range.
///
/// # Errors
/// It is none, or nothing is larger.
pub(super) fn parse_start(argument: &[u8]) -> Result<StreamId, CommandError> {
    match parse_bound(argument, 0)? {
        (id, false) => Ok(id),
        (id, true) => id.next().ok_or_else(|| CommandError::err("invalid start ID for the interval")),
    }
}

/// The last ID of a range.
///
/// # Errors
/// It is none, or nothing is smaller.
pub(super) fn parse_end(argument: &[u8]) -> Result<StreamId, CommandError> {
    match parse_bound(argument, u64::MAX)? {
        (id, false) => Ok(id),
        (id, true) => id.previous().ok_or_else(|| CommandError::err("invalid end ID for the interval")),
    }
}

/// The text of an ID, without an allocation of its own for each.
#[derive(Default)]
pub(super) struct IdText(Vec<u8>);

impl IdText {
    pub(super) fn of(&mut self, id: StreamId) -> &[u8] {
        let mut number = itoa::Buffer::new();
        self.0.clear();
        self.0.extend_from_slice(number.format(id.ms).as_bytes());
        self.0.push(b'-');
        self.0.extend_from_slice(number.format(id.seq).as_bytes());
        &self.0
    }
}

/// Writes an ID.
pub(super) fn write_id(out: &mut ReplyWriter<'_>, id: StreamId) {
    out.bulk(IdText::default().of(id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_c_reads_numbers() {
        let id = |ms, seq| Some(StreamId::new(ms, seq));
        for (text, expect) in [
            (&b"5"[..], id(5, 0)),
            (b"5-3", id(5, 3)),
            (b"007-1", id(7, 1)),
            (b" +5-1", id(5, 1)),
            (b"5--1", None),
            (b"5--01", id(5, u64::MAX)),
            (b"18446744073709551615", id(u64::MAX, 0)),
            (b"18446744073709551616", None),
            (b"5\0x", id(5, 0)),
            (b"5-", None),
            (b"-5", None),
            (b"", None),
            (b"5-*", None),
        ] {
            assert_eq!(whole(text, 0), expect, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(parse_given(b"5-*"), Ok(Given::AnySeq(5)));
        assert_eq!(parse_end(b"5"), Ok(StreamId::new(5, u64::MAX)));
        assert!(parse_end(b"(0-0").is_err() && parse_start(b"(").is_err());
    }
}
