//! The listpack, since Redis 7.0: `total bytes u32, elements u16, elements, 0xff`.
//!
//! An element is an encoding byte (which may hold the value), the value, and the length of both written so that it
//! can be read from behind. <https://github.com/antirez/listpack/blob/master/listpack.md>

use super::END;
use crate::rdb::input::Digits;
use crate::rdb::{Input, RdbError, Text};

const HEADER_LEN: usize = 6;
/// This number of elements says that it is not known.
const MANY: u16 = u16::MAX;
const BAD: RdbError = RdbError::Corrupt("a listpack is damaged");

/// The elements of a listpack that takes all these bytes.
pub(in crate::rdb) fn elements(
    bytes: &[u8],
) -> Result<impl Iterator<Item = Result<Text<'_>, RdbError>>, RdbError> {
    let mut input = Input::new(bytes);
    let total = u32::from_le_bytes(input.array().map_err(|_| BAD)?);
    let count = u16::from_le_bytes(input.array().map_err(|_| BAD)?);
    if total as usize != bytes.len() || bytes.len() <= HEADER_LEN || bytes.last() != Some(&END) {
        return Err(BAD);
    }
    let body = Input::new(&bytes[HEADER_LEN..bytes.len() - 1]);
    let left = (count != MANY).then_some(usize::from(count));
    Ok(Elements { body, left })
}

struct Elements<'a> {
    body: Input<'a>,
    /// By the header; `None` if it does not know.
    left: Option<usize>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Text<'a>, RdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.body.is_empty() {
            return (self.left.take().is_some_and(|left| left > 0)).then_some(Err(BAD));
        }
        if let Some(left) = &mut self.left {
            let Some(fewer) = left.checked_sub(1) else {
                self.body = Input::new(&[]);
                return Some(Err(BAD));
            };
            *left = fewer;
        }
        let element = element(&mut self.body);
        if element.is_err() {
            (self.body, self.left) = (Input::new(&[]), None);
        }
        Some(element.map_err(|_| BAD))
    }
}

fn element<'a>(body: &mut Input<'a>) -> Result<Text<'a>, RdbError> {
    let before = body.len();
    let first = body.byte()?;
    let number = |value: i64| Text::Number(Digits::new(value));
    let element = match first {
        0x00..=0x7f => number(i64::from(first)),
        0x80..=0xbf => Text::Slice(body.take(usize::from(first & 0x3f))?),
        0xc0..=0xdf => {
            // 13 bits with a sign.
            let value = i16::from_be_bytes([first & 0x1f, body.byte()?]);
            number(i64::from(value << 3 >> 3))
        }
        0xe0..=0xef => {
            let len = u16::from_be_bytes([first & 0x0f, body.byte()?]);
            Text::Slice(body.take(usize::from(len))?)
        }
        0xf0 => {
            let len = u32::from_le_bytes(body.array()?);
            Text::Slice(body.take(len as usize)?)
        }
        0xf1 => number(i64::from(i16::from_le_bytes(body.array()?))),
        0xf2 => number(int24(body.array()?)),
        0xf3 => number(i64::from(i32::from_le_bytes(body.array()?))),
        0xf4 => number(i64::from_le_bytes(body.array()?)),
        _ => return Err(BAD),
    };
    skip_back_len(body, before - body.len())?;
    Ok(element)
}

pub(super) fn int24(bytes: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, bytes[0], bytes[1], bytes[2]]) >> 8)
}

/// The length of the element once more, seven bits to a byte, the lowest last; all but the first byte are marked.
fn skip_back_len(body: &mut Input<'_>, len: usize) -> Result<(), RdbError> {
    let bytes = match len {
        ..128 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut found = 0_usize;
    for (i, byte) in body.take(bytes)?.iter().enumerate() {
        if (byte & 0x80 != 0) != (i > 0) {
            return Err(BAD);
        }
        found = found << 7 | usize::from(byte & 0x7f);
    }
    if found == len { Ok(()) } else { Err(BAD) }
}
