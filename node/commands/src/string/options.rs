//! The options that SET, GETEX and MSETEX share.

use keyward_proto::resp::Args;

use crate::expiry::{Base, TimeArgument, Unit};
use crate::{CommandError, Cursor};

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

/// The options that name a time.
const TIMES: [(&str, Unit, Base); 4] = [
    ("ex", Unit::Seconds, Base::Now),
    ("px", Unit::Milliseconds, Base::Now),
    ("exat", Unit::Seconds, Base::Epoch),
    ("pxat", Unit::Milliseconds, Base::Epoch),
];

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
        let mut rest = Cursor::new(args, first);
        while !rest.is_at_end() {
            options.read(&mut rest, command)?;
        }
        Ok(options)
    }

    /// One option.
    fn read(&mut self, rest: &mut Cursor<'a>, command: Optioned) -> Result<(), CommandError> {
        let (stores, sets) = (command != Optioned::GetEx, command == Optioned::Set);
        if stores && rest.word("nx") {
            return self.set_condition(Condition::Missing);
        }
        if stores && rest.word("xx") {
            return self.set_condition(Condition::Present);
        }
        if sets && rest.word("get") {
            self.get = true;
            return Ok(());
        }
        if stores && rest.word("keepttl") {
            return self.set_expiry(ExpiryOption::Keep);
        }
        if !stores && rest.word("persist") {
            return self.set_expiry(ExpiryOption::Persist);
        }
        if sets && let Some(comparison) = rest.value_of("ifeq") {
            return self.set_condition(Condition::Equal(comparison));
        }
        for (word, unit, base) in TIMES {
            if let Some(text) = rest.value_of(word) {
                return self.set_expiry(ExpiryOption::Time(TimeArgument { unit, base, text }));
            }
        }
        Err(CommandError::Syntax)
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
