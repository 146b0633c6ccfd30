//! The conditions of EXEC, as in Valkey 9.2: `IFEQ key value`, `IFNE key value`, `NX key`, `XX key`. All of them must hold
//! when the transaction is executed; otherwise nothing is, and the reply is null.

use keyward_proto::resp::Args;
use keyward_proto::slot::Slot;
use keyward_store::entry::ValueRef;
use keyward_store::keys::Keys;

use crate::command::spec::{ACCESS, KeyFlags, RO};
use crate::command::{CommandError, Cursor};

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Equal(&'a [u8]),
    NotEqual(&'a [u8]),
    Missing,
    Present,
}

impl Condition<'_> {
    /// # Errors
    /// A value is asked for, and the key holds another type than a string.
    fn holds(self, keys: &Keys<'_>, key: &[u8]) -> Result<bool, CommandError> {
        let value = keys.get(key).map(|entry| entry.value());
        match (self, value) {
            (Condition::Missing, value) => Ok(value.is_none()),
            (Condition::Present, value) => Ok(value.is_some()),
            (Condition::Equal(_), None) => Ok(false),
            (Condition::NotEqual(_), None) => Ok(true),
            (Condition::Equal(wanted), Some(ValueRef::String(value))) => Ok(*value == *wanted),
            (Condition::NotEqual(unwanted), Some(ValueRef::String(value))) => Ok(*value != *unwanted),
            (Condition::Equal(_) | Condition::NotEqual(_), Some(_)) => Err(CommandError::WrongType),
        }
    }
}

/// The conditions of a request, each with its key and where that is. It ends at what is none.
struct Conditions<'a>(Cursor<'a>);

impl<'a> Conditions<'a> {
    fn of(args: Args<'a>) -> Self {
        Conditions(Cursor::new(args, 1))
    }
}

impl<'a> Iterator for Conditions<'a> {
    type Item = (usize, &'a [u8], Condition<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.0.position() + 1;
        let (key, condition) = if let Some(mut words) = self.0.values_of("ifeq", 2) {
            (words.next()?, Condition::Equal(words.next()?))
        } else if let Some(mut words) = self.0.values_of("ifne", 2) {
            (words.next()?, Condition::NotEqual(words.next()?))
        } else if let Some(key) = self.0.value_of("nx") {
            (key, Condition::Missing)
        } else {
            (self.0.value_of("xx")?, Condition::Present)
        };
        Some((at, key, condition))
    }
}

/// # Errors
/// There is something else than conditions: Valkey 9.1 knows no arguments at all, and so it is answered.
pub(crate) fn check(args: Args<'_>) -> Result<(), CommandError> {
    let mut conditions = Conditions::of(args);
    conditions.by_ref().for_each(drop);
    conditions.0.finish().map_err(|_| CommandError::WrongArity("exec".into()))
}

/// Whether all of them hold. Their slots are locked.
///
/// # Errors
/// A value is asked for, and the key holds another type than a string.
pub(crate) fn all_hold(args: Args<'_>, keys: &Keys<'_>) -> Result<bool, CommandError> {
    for (_, key, condition) in Conditions::of(args) {
        if !condition.holds(keys, key)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Their keys, for COMMAND GETKEYS.
pub(super) fn search(args: Args<'_>, visit: &mut dyn FnMut(usize, KeyFlags)) {
    Conditions::of(args).for_each(|(at, ..)| visit(at, RO | ACCESS));
}

pub(crate) fn visit_slots(args: Args<'_>, visit: &mut dyn FnMut(Slot)) {
    Conditions::of(args).for_each(|(_, key, _)| visit(Slot::of(key)));
}
