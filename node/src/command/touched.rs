//! What an effect touches, before it is applied: so it can go to the thread that applies to its slots.

use keyward_proto::resp::Args;
use keyward_proto::slot::Slot;

use super::CommandError;
use super::find::lookup_effect;
use super::keys_of::visit_slots;
use super::spec::{Group, Scope};
use crate::scripts::libraries;

/// What a command in a file of the write log touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touched {
    One(Slot),
    Several(Vec<Slot>),
    WholeKeyspace,
}

/// What a command touches that is to be applied.
///
/// # Errors
/// Why it cannot be applied.
pub(crate) fn touched(args: Args<'_>) -> Result<Touched, String> {
    let row = lookup_effect(args).map_err(|e| e.to_string())?;
    if !row.accepts(args.len()) {
        return Err(CommandError::WrongArity(row.name.into()).to_string());
    }
    if row.scope == Scope::World && row.group == Group::Scripting {
        return Ok(Touched::One(libraries::SLOT));
    }
    if row.scope == Scope::World {
        return Ok(Touched::WholeKeyspace);
    }
    if row.scope != Scope::Keys {
        return Err(format!("'{}' is no command that changes keys", row.name));
    }
    let mut one = None;
    let mut several = Vec::new();
    visit_slots(row, args, &mut |slot| {
        if one.is_none() {
            one = Some(slot);
        } else if one != Some(slot) {
            several.push(slot);
        }
    });
    match one {
        None => Err(format!("'{}' names no key", row.name)),
        Some(slot) if several.is_empty() => Ok(Touched::One(slot)),
        Some(slot) => {
            several.push(slot);
            Ok(Touched::Several(several))
        }
    }
}
