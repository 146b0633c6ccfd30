//! The options that SET, GETEX and MSETEX share.

use keyward_proto::resp::Args;

use crate::expiry::{Base, TimeArgument, Unit};
use crate::{CommandError, ascii_eq};

/// When the value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    Always,
    /// NX
    Missing,
    /// XX
    Present,
    /// IFEQ
    Equal(&'a [u8]),
}

/// What happens to the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiryOption<'a> {
    Unspecified,
    /// KEEPTTL
    Keep,
    /// PERSIST
    Persist,
    /// EX, PX, EXAT, PXAT
    Time(TimeArgument<'a>),
}

/// Which command has the options: they share all but a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Optioned {
    Set,
    GetEx,
    MSetEx,
}

/// See the module documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    pub condition: Condition<'a>,
    pub expiry: ExpiryOption<'a>,
    /// SET ... GET
    pub get: bool,
}

impl<'a> Options<'a> {
    /// Reads the options from argument `first` on.
    pub(super) fn parse(args: Args<'a>, first: usize, command: Optioned) -> Result<Self, CommandError> {
        let mut options =
            Options { condition: Condition::Always, expiry: ExpiryOption::Unspecified, get: false };
        let mut at = first;
        while let Some(word) = args.get(at) {
            at += options.read(word, args.get(at + 1), command)?;
        }
        Ok(options)
    }

    /// One option; the number of arguments that it takes.
    fn read(
        &mut self,
        word: &[u8],
        value: Option<&'a [u8]>,
        command: Optioned,
    ) -> Result<usize, CommandError> {
        let stores = command != Optioned::GetEx;
        if stores && ascii_eq(word, "nx") {
            self.set_condition(Condition::Missing)?;
            return Ok(1);
        }
        if stores && ascii_eq(word, "xx") {
            self.set_condition(Condition::Present)?;
            return Ok(1);
        }
        if command == Optioned::Set && ascii_eq(word, "get") {
            self.get = true;
            return Ok(1);
        }
        if stores && ascii_eq(word, "keepttl") {
            self.set_expiry(ExpiryOption::Keep)?;
            return Ok(1);
        }
        if !stores && ascii_eq(word, "persist") {
            self.set_expiry(ExpiryOption::Persist)?;
            return Ok(1);
        }
        let value = value.ok_or(CommandError::Syntax)?;
        if command == Optioned::Set && ascii_eq(word, "ifeq") {
            self.set_condition(Condition::Equal(value))?;
            return Ok(2);
        }
        let (unit, base) = match word {
            _ if ascii_eq(word, "ex") => (Unit::Seconds, Base::Now),
            _ if ascii_eq(word, "px") => (Unit::Milliseconds, Base::Now),
            _ if ascii_eq(word, "exat") => (Unit::Seconds, Base::Epoch),
            _ if ascii_eq(word, "pxat") => (Unit::Milliseconds, Base::Epoch),
            _ => return Err(CommandError::Syntax),
        };
        self.set_expiry(ExpiryOption::Time(TimeArgument { unit, base, text: value }))?;
        Ok(2)
    }

    /// NX and XX may be repeated; no two conditions go together.
    fn set_condition(&mut self, new: Condition<'a>) -> Result<(), CommandError> {
        let repeated = new == self.condition && !matches!(new, Condition::Equal(_));
        if self.condition != Condition::Always && !repeated {
            return Err(CommandError::Syntax);
        }
        self.condition = new;
        Ok(())
    }

    fn set_expiry(&mut self, new: ExpiryOption<'a>) -> Result<(), CommandError> {
        let same_kind = match (self.expiry, new) {
            (ExpiryOption::Time(old), ExpiryOption::Time(new)) => {
                (old.unit, old.base) == (new.unit, new.base)
            }
            (old, new) => old == ExpiryOption::Unspecified || old == new,
        };
        if !same_kind {
            return Err(CommandError::Syntax);
        }
        self.expiry = new;
        Ok(())
    }
}
