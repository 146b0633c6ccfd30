//! Expiry arguments: how SET, GETEX, MSETEX, the EXPIRE family and their like for fields of hashes name a point in time,
//! and on which conditions it is set.

use crate::{CommandError, Cursor, ascii_eq, parse_i64_arg};

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
        self.millis(1, now, command)
    }

    /// As [`TimeArgument::positive_millis`] for fields of hashes, where zero is accepted.
    pub(crate) fn not_negative_millis(&self, now: i64, command: &str) -> Result<i64, CommandError> {
        self.millis(0, now, command)
    }

    /// As [`TimeArgument::positive_millis`] for EXPIRE and its like, which accept times that have passed.
    pub(crate) fn any_millis(&self, now: i64, command: &str) -> Result<i64, CommandError> {
        self.millis(i64::MIN, now, command)
    }

    fn millis(&self, min: i64, now: i64, command: &str) -> Result<i64, CommandError> {
        let value = parse_i64_arg(self.text)?;
        let millis = if min <= value { self.millis_of(value, now) } else { None };
        millis.ok_or_else(|| CommandError::invalid_expire(command))
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

/// What happens to an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpiryOption<'a> {
    Unspecified,
    /// KEEPTTL
    Keep,
    /// PERSIST
    Persist,
    /// EX, PX, EXAT, PXAT
    Time(TimeArgument<'a>),
}

/// The options that name a time.
const TIMES: [(&str, Unit, Base); 4] = [
    ("ex", Unit::Seconds, Base::Now),
    ("px", Unit::Milliseconds, Base::Now),
    ("exat", Unit::Seconds, Base::Epoch),
    ("pxat", Unit::Milliseconds, Base::Epoch),
];

impl<'a> ExpiryOption<'a> {
    /// Reads `EX seconds`, or its like.
    ///
    /// # Errors
    /// Something else comes next.
    pub(crate) fn time(rest: &mut Cursor<'a>) -> Result<Self, CommandError> {
        let mut times = TIMES.into_iter();
        let time = times
            .find_map(|(word, unit, base)| rest.value_of(word).map(|text| TimeArgument { unit, base, text }));
        time.map(ExpiryOption::Time).ok_or(CommandError::Syntax)
    }

    /// An option follows another one: of the same kind, the last one holds.
    ///
    /// # Errors
    /// They exclude each other.
    pub(crate) fn set(&mut self, new: Self) -> Result<(), CommandError> {
        let same_kind = match (*self, new) {
            (ExpiryOption::Time(old), ExpiryOption::Time(new)) => {
                (old.unit, old.base) == (new.unit, new.base)
            }
            (old, new) => old == ExpiryOption::Unspecified || old == new,
        };
        if !same_kind {
            return Err(CommandError::Syntax);
        }
        *self = new;
        Ok(())
    }
}

/// When an expiry is set: all that are true must hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conditions {
    /// NX: there is none.
    absent: bool,
    /// XX: there is one.
    present: bool,
    /// GT: the new one is later; what has none lives for ever.
    later: bool,
    /// LT: the new one is earlier.
    earlier: bool,
}

impl Conditions {
    /// Reads `[NX | XX | GT | LT]`.
    ///
    /// # Errors
    /// `ERR Unsupported option ...`, or that two of them exclude each other.
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Self, CommandError> {
        let mut conditions = Conditions::default();
        for word in words {
            let condition = if ascii_eq(word, "nx") {
                &mut conditions.absent
            } else if ascii_eq(word, "xx") {
                &mut conditions.present
            } else if ascii_eq(word, "gt") {
                &mut conditions.later
            } else if ascii_eq(word, "lt") {
                &mut conditions.earlier
            } else {
                return Err(CommandError::quoting("Unsupported option ", word, ""));
            };
            *condition = true;
        }
        let Conditions { absent, present, later, earlier } = conditions;
        if absent && (present || later || earlier) {
            let text = "NX and XX, GT or LT options at the same time are not compatible";
            return Err(CommandError::err(text));
        }
        if later && earlier {
            return Err(CommandError::err("GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether they hold for an expiry that was `old` and is to be `new`.
    pub(crate) fn hold(self, old: Option<i64>, new: i64) -> bool {
        let later = !self.later || old.is_some_and(|old| old < new);
        let earlier = !self.earlier || old.is_none_or(|old| new < old);
        (!self.absent || old.is_none()) && (!self.present || old.is_some()) && later && earlier
    }
}

/// As replies in seconds have it.
pub(crate) fn rounded_seconds(millis: i64) -> i64 {
    millis / 1000 + i64::from(500 <= millis % 1000)
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
