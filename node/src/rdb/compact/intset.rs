//! The intset: `bytes of an integer u32, number u32, integers` in ascending order, all little-endian.

use crate::rdb::{Input, RdbError};

const BAD: RdbError = RdbError::Corrupt("an intset is damaged");

/// The integers of an intset that takes all these bytes; ascending, so that none is there twice.
pub(in crate::rdb) fn integers(bytes: &[u8]) -> Result<Vec<i64>, RdbError> {
    let mut input = Input::new(bytes);
    let width = u32::from_le_bytes(input.array().map_err(|_| BAD)?) as usize;
    let count = u32::from_le_bytes(input.array().map_err(|_| BAD)?) as usize;
    if !matches!(width, 2 | 4 | 8) || width.checked_mul(count) != Some(input.len()) {
        return Err(BAD);
    }
    let mut integers = Vec::with_capacity(count);
    while !input.is_empty() {
        let integer = match width {
            2 => i64::from(i16::from_le_bytes(input.array()?)),
            4 => i64::from(i32::from_le_bytes(input.array()?)),
            _ => i64::from_le_bytes(input.array()?),
        };
        if integers.last().is_some_and(|last| integer <= *last) {
            return Err(BAD);
        }
        integers.push(integer);
    }
    Ok(integers)
}
