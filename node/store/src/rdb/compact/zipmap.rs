//! The zipmap, small hashes before Redis 2.6: `fields u8, entries, 0xff`.
//!
//! An entry is the length of the field (one byte, or 254 and four bytes), the field, the length of the value, a number
//! of unused bytes, the value, the unused bytes. From 254 fields on their number is not known.

use super::END;
use crate::rdb::{Input, RdbError};

const LONG: u8 = 254;
const BAD: RdbError = RdbError::Corrupt("a zipmap is damaged");

/// A field and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The pairs of a zipmap that takes all these bytes.
pub(crate) fn pairs(bytes: &[u8]) -> Result<Vec<Pair<'_>>, RdbError> {
    let (Some((count, _)), Some(END)) = (bytes.split_first(), bytes.last().copied()) else { return Err(BAD) };
    if bytes.len() < 2 {
        return Err(BAD);
    }
    let mut body = Input::new(&bytes[1..bytes.len() - 1]);
    let mut pairs = Vec::new();
    while !body.is_empty() {
        pairs.push(entry(&mut body).map_err(|_| BAD)?);
    }
    if *count < LONG && pairs.len() != usize::from(*count) {
        return Err(BAD);
    }
    Ok(pairs)
}

fn entry<'a>(body: &mut Input<'a>) -> Result<Pair<'a>, RdbError> {
    let len = length(body)?;
    let field = body.take(len)?;
    let len = length(body)?;
    let unused = usize::from(body.byte()?);
    let value = body.take(len)?;
    body.take(unused)?;
    Ok((field, value))
}

fn length(body: &mut Input<'_>) -> Result<usize, RdbError> {
    match body.byte()? {
        END => Err(BAD),
        LONG => Ok(u32::from_le_bytes(body.array()?) as usize),
        short => Ok(usize::from(short)),
    }
}
