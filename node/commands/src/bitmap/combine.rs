//! BITOP: strings combined bit by bit.

use keyward_proto::resp::Args;

use crate::spec::{ACCESS, DENYOOM, OW, RO, UPDATE};
use crate::{CommandError, CommandResult, DataCommand, DataContext, Outcome, ascii_eq, write};
use keyward_store::effects::Place;
use keyward_store::entry::{NewValue, Value, ValueRef};
use keyward_store::events::EventClass;
use keyward_store::keys::{Expiry, Keys};
use keyward_store::lazyfree::Cause;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

/// `BITOP AND | OR | XOR | NOT destkey key [key ...]`: the length of the result, that of the longest string.
pub(super) const BITOP: DataCommand =
    write("bitop", bitop, -4, DENYOOM, "2.6.0").key(2, OW | UPDATE).keys(3, -1, 1, RO | ACCESS);
fn bitop(ctx: &mut DataContext<'_, '_>, args: Args<'_>) -> CommandResult {
    let operation = Operation::parse(args.at(1))?;
    if operation == Operation::Not && args.len() != 4 {
        return Err(CommandError::err("BITOP NOT must be called with a single source key."));
    }
    let destination = args.at(2);
    let result = combined(ctx.keys, operation, args)?;
    if result.is_empty() {
        delete(ctx.keys, destination);
        ctx.out.len(0);
        return Ok(Outcome::Reply);
    }
    let keys = &mut *ctx.keys;
    if args.iter().skip(3).all(|key| keys.same_slot(destination, key)) {
        keys.propagate(destination, args);
    } else {
        keys.propagate_value(destination, Place::Occupied, ValueRef::String(&result), None)?;
    }
    ctx.out.len(result.len());
    keys.insert(destination, NewValue::Value(Value::raw(result)), Expiry::None);
    keys.modified(destination);
    keys.notify(EventClass::String, "set", destination);
    Ok(Outcome::Reply)
}

fn delete(keys: &mut Keys<'_>, key: &[u8]) {
    if let Some(entry) = keys.remove_live(key) {
        keys.discard(entry, Cause::Replaced);
        keys.propagate_as(key, &[b"DEL", key]);
        keys.notify(EventClass::Generic, "del", key);
    }
}

impl Operation {
    fn parse(word: &[u8]) -> Result<Operation, CommandError> {
        const WORDS: [(&str, Operation); 4] = [
            ("and", Operation::And),
            ("or", Operation::Or),
            ("xor", Operation::Xor),
            ("not", Operation::Not),
        ];
        let found = WORDS.into_iter().find(|(name, _)| ascii_eq(word, name));
        found.map(|(_, operation)| operation).ok_or(CommandError::Syntax)
    }

    fn apply(self, a: u8, b: u8) -> u8 {
        match self {
            Operation::And => a & b,
            Operation::Or => a | b,
            Operation::Xor => a ^ b,
            Operation::Not => !a,
        }
    }

    /// Takes the bytes of another string in; zeros follow it.
    fn take_in(self, result: &mut [u8], other: &[u8]) {
        let (common, rest) = result.split_at_mut(other.len());
        common.iter_mut().zip(other).for_each(|(a, b)| *a = self.apply(*a, *b));
        if self == Operation::And {
            rest.fill(0);
        }
    }
}

/// A missing key is an empty string.
fn combined(keys: &Keys<'_>, operation: Operation, args: Args<'_>) -> Result<Vec<u8>, CommandError> {
    let strings: Result<Vec<&[u8]>, CommandError> =
        args.iter().skip(3).map(|key| Ok(keys.string(key)?.unwrap_or_default())).collect();
    let strings = strings?;
    let Some((first, others)) = strings.split_first() else { return Ok(Vec::new()) };
    let len = strings.iter().map(|string| string.len()).max().unwrap_or(0);
    let mut result = Vec::with_capacity(len);
    result.extend_from_slice(first);
    result.resize(len, 0);
    if operation == Operation::Not {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    others.iter().for_each(|other| operation.take_in(&mut result, other));
    Ok(result)
}
