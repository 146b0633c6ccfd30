//! The options that SET, GETEX and MSETEX share.

use std::fmt;

use keyward_proto::resp::Args;
use twox_hash::XxHash3_64;

use crate::expiry::ExpiryOption;
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
    /// IFNE
    NotEqual(&'a [u8]),
    /// IFDEQ
    DigestEqual(Digest),
    /// IFDNE
    DigestNotEqual(Digest),
}

impl<'a> Condition<'a> {
    /// The conditions on the value.
    pub(super) fn read(rest: &mut Cursor<'a>) -> Result<Option<Self>, CommandError> {
        if let Some(comparison) = rest.value_of("ifeq") {
            return Ok(Some(Condition::Equal(comparison)));
        }
        if let Some(comparison) = rest.value_of("ifne") {
            return Ok(Some(Condition::NotEqual(comparison)));
        }
        if let Some(digest) = rest.value_of("ifdeq") {
            return Digest::parse(digest).map(|digest| Some(Condition::DigestEqual(digest)));
        }
        if let Some(digest) = rest.value_of("ifdne") {
            return Digest::parse(digest).map(|digest| Some(Condition::DigestNotEqual(digest)));
        }
        Ok(None)
    }

    /// Whether it holds for a string, or for a key that is not there.
    pub(super) fn holds_for(&self, value: Option<&[u8]>) -> bool {
        match self {
            Condition::Always => true,
            Condition::Missing => value.is_none(),
            Condition::Present => value.is_some(),
            Condition::Equal(comparison) => value == Some(comparison),
            Condition::NotEqual(comparison) => value != Some(comparison),
            Condition::DigestEqual(digest) => value.map(Digest::of) == Some(*digest),
            Condition::DigestNotEqual(digest) => value.map(Digest::of) != Some(*digest),
        }
    }
}

/// Of a string, in place of its value: XXH3 of 64 bits, without a seed, as Redis 8.4 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn of(value: &[u8]) -> Digest {
        Digest(XxHash3_64::oneshot(value))
    }

    fn parse(text: &[u8]) -> Result<Digest, CommandError> {
        let text =
            str::from_utf8(text).ok().filter(|t| t.len() == 16 && t.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        number.map(Digest).ok_or_else(|| CommandError::err("must be exactly 16 hexadecimal characters"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
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
            return self.expiry.set(ExpiryOption::Keep);
        }
        if !stores && rest.word("persist") {
            return self.expiry.set(ExpiryOption::Persist);
        }
        if sets && let Some(condition) = Condition::read(rest)? {
            return self.set_condition(condition);
        }
        self.expiry.set(ExpiryOption::time(rest)?)
    }

    /// NX and XX may be repeated; no two conditions go together.
    fn set_condition(&mut self, new: Condition<'a>) -> Result<(), CommandError> {
        let repeated = new == self.condition && matches!(new, Condition::Missing | Condition::Present);
        if self.condition != Condition::Always && !repeated {
            return Err(CommandError::Syntax);
        }
        self.condition = new;
        Ok(())
    }
}
