//! The ziplist, from Redis 2.4 to 6.2: `total bytes u32, offset of the last entry u32, entries u16, entries, 0xff`.
//!
//! An entry is the length of the one before it (one byte, or 254 and four bytes), an encoding, the value.

use super::END;
use crate::rdb::input::Digits;
use crate::rdb::{Input, RdbError, Text};

const HEADER_LEN: usize = 10;
/// This number of entries says that it is not known.
const MANY: u16 = u16::MAX;
/// The length of the previous entry follows in four bytes.
const LONG_PREVIOUS: u8 = 254;
const BAD: RdbError = RdbError::Corrupt("a ziplist is damaged");

/// The elements of a ziplist that takes all these bytes.
pub(crate) fn elements(bytes: &[u8]) -> Result<impl Iterator<Item = Result<Text<'_>, RdbError>>, RdbError> {
    let mut input = Input::new(bytes);
    let total = u32::from_le_bytes(input.array().map_err(|_| BAD)?);
    let last = u32::from_le_bytes(input.array().map_err(|_| BAD)?);
    let count = u16::from_le_bytes(input.array().map_err(|_| BAD)?);
    if total as usize != bytes.len() || bytes.len() <= HEADER_LEN || bytes.last() != Some(&END) {
        return Err(BAD);
    }
    let body = Input::new(&bytes[HEADER_LEN..bytes.len() - 1]);
    let left = (count != MANY).then_some(usize::from(count));
    Ok(Entries { body, left, offset: HEADER_LEN, previous: 0, last: last as usize })
}

struct Entries<'a> {
    body: Input<'a>,
    /// By the header; `None` if it does not know.
    left: Option<usize>,
    /// Of the next entry.
    offset: usize,
    /// Length of the entry before it.
    previous: usize,
    /// Offset of the last entry, by the header.
    last: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Text<'a>, RdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = if self.body.is_empty() { self.end()? } else { self.entry() };
        if entry.is_err() {
            (self.body, self.left, self.last) = (Input::new(&[]), None, self.offset - self.previous);
        }
        Some(entry.map_err(|_| BAD))
    }
}

impl<'a> Entries<'a> {
    /// What the header says must be true at the end.
    fn end(&mut self) -> Option<Result<Text<'a>, RdbError>> {
        let is_right = self.left.unwrap_or(0) == 0 && self.last == self.offset - self.previous;
        (!is_right).then_some(Err(BAD))
    }

    fn entry(&mut self) -> Result<Text<'a>, RdbError> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(BAD)?;
        }
        let before = self.body.len();
        let previous = match self.body.byte()? {
            END => return Err(BAD),
            LONG_PREVIOUS => u32::from_le_bytes(self.body.array()?) as usize,
            short => usize::from(short),
        };
        if previous != self.previous {
            return Err(BAD);
        }
        let value = value(&mut self.body)?;
        self.previous = before - self.body.len();
        self.offset += self.previous;
        Ok(value)
    }
}

fn value<'a>(body: &mut Input<'a>) -> Result<Text<'a>, RdbError> {
    let number = |value: i64| Text::Number(Digits::new(value));
    let first = body.byte()?;
    Ok(match first {
        0x00..=0x3f => Text::Slice(body.take(usize::from(first))?),
        0x40..=0x7f => {
            let len = u16::from_be_bytes([first & 0x3f, body.byte()?]);
            Text::Slice(body.take(usize::from(len))?)
        }
        0x80 => {
            let len = u32::from_be_bytes(body.array()?);
            Text::Slice(body.take(len as usize)?)
        }
        0xc0 => number(i64::from(i16::from_le_bytes(body.array()?))),
        0xd0 => number(i64::from(i32::from_le_bytes(body.array()?))),
        0xe0 => number(i64::from_le_bytes(body.array()?)),
        0xf0 => number(int24(body.array()?)),
        0xfe => number(i64::from(i8::from_le_bytes(body.array()?))),
        0xf1..=0xfd => number(i64::from(first & 0x0f) - 1),
        _ => return Err(BAD),
    })
}

fn int24(bytes: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, bytes[0], bytes[1], bytes[2]]) >> 8)
}
