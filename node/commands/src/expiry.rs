//! Expiry arguments: how SET, GETEX, MSETEX and the EXPIRE family name a point in time.

use crate::{CommandError, parse_i64_arg};

/// The unit of a time argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
}

/// What a time argument counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Now,
    Epoch,
}

/// A time argument that is not read yet: Valkey reads it after all options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeArgument<'a> {
    pub unit: Unit,
    pub base: Base,
    pub text: &'a [u8],
}

impl TimeArgument<'_> {
    /// Milliseconds since the Unix epoch; the argument must be positive.
    ///
    /// # Errors
    /// `ERR value is not an integer or out of range`, `ERR invalid expire time in 'set' command`
    pub(crate) fn positive_millis(&self, now: i64, command: &str) -> Result<i64, CommandError> {
        let value = parse_i64_arg(self.text)?;
        let millis = if 0 < value { self.millis_of(value, now) } else { None };
        millis.ok_or_else(|| CommandError::invalid_expire(command))
    }

    /// As [`TimeArgument::positive_millis`] for EXPIRE and its like, which accept times that have passed.
    pub(crate) fn any_millis(&self, now: i64, command: &str) -> Result<i64, CommandError> {
        let value = parse_i64_arg(self.text)?;
        self.millis_of(value, now).ok_or_else(|| CommandError::invalid_expire(command))
    }

    fn millis_of(&self, value: i64, now: i64) -> Option<i64> {
        let millis = match self.unit {
            Unit::Seconds => value.checked_mul(1000)?,
            Unit::Milliseconds => value,
        };
        match self.base {
            Base::Now => millis.checked_add(now),
            Base::Epoch => Some(millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_checked() {
        let time = |unit, base, text: &'static str| TimeArgument { unit, base, text: text.as_bytes() };
        let (seconds, millis) = (Unit::Seconds, Unit::Milliseconds);
        for (argument, positive, any) in [
            (time(seconds, Base::Now, "2"), Some(2100), Some(2100)),
            (time(millis, Base::Now, "-50"), None, Some(50)),
            (time(seconds, Base::Epoch, "2"), Some(2000), Some(2000)),
            (time(millis, Base::Epoch, "9223372036854775807"), Some(i64::MAX), Some(i64::MAX)),
            (time(millis, Base::Now, "9223372036854775807"), None, None),
            (time(seconds, Base::Epoch, "-9223372036854775"), None, Some(-9_223_372_036_854_775_000)),
            (time(seconds, Base::Epoch, "9223372036854776"), None, None),
            (time(seconds, Base::Epoch, "x"), None, None),
        ] {
            assert_eq!(argument.positive_millis(100, "set").ok(), positive, "{argument:?}");
            assert_eq!(argument.any_millis(100, "set").ok(), any, "{argument:?}");
        }
    }
}
