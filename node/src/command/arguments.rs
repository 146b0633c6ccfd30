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
