//! Reading arguments: the checks and errors that many commands share.

use keyward_proto::resp::number::{parse_f64, parse_i64};

use super::CommandError;

/// Whether an argument is this word, in any case.
#[inline]
pub fn ascii_eq(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
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
pub fn parse_count(argument: &[u8]) -> Result<usize, CommandError> {
    let value = parse_i64(argument).and_then(|v| usize::try_from(v).ok());
    value.ok_or_else(|| CommandError::err("value is out of range, must be positive"))
}

/// The timeout of a blocking command, in seconds with a fraction: milliseconds, zero for ever.
///
/// # Errors
/// `ERR timeout is not a float or out of range`, `is negative`, `is out of range` (the end lies beyond 2^63 ms).
pub fn parse_timeout(argument: &[u8], now: i64) -> Result<u64, CommandError> {
    let seconds =
        parse_f64(argument).ok_or_else(|| CommandError::err("timeout is not a float or out of range"))?;
    let milliseconds = (seconds * 1000.0).ceil();
    if 9_223_372_036_854_775_807.0 < milliseconds {
        return Err(CommandError::err("timeout is out of range"));
    }
    #[allow(clippy::cast_possible_truncation, reason = "checked above; a cast saturates at the lower end")]
    match milliseconds as i64 {
        ..0 => Err(CommandError::err("timeout is negative")),
        ms if i64::MAX - now < ms => Err(CommandError::err("timeout is out of range")),
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
