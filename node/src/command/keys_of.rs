//! What a request touches: the slots of its keys, and what happens to each key.

use keyward_proto::resp::Args;
use keyward_proto::slot::Slot;

use super::ascii_eq;
use super::spec::{self, KeyFlags};
use super::table::Row;

/// Visits the slots of a command's keys. None if its arguments contradict its key specification: such a command finds
/// that out by itself, with an error of its own, before it touches a key.
pub(crate) fn visit_slots(row: &Row, args: Args<'_>, visit: &mut dyn FnMut(Slot)) {
    if row.visit_keys(args, &mut |at, _| visit(Slot::of(args.at(at)))).is_err() {
        tracing::trace!(command = row.name, "arguments without keys");
    }
}

/// Visits the slots that have to be locked for a command of a transaction: those of its keys, or all if it reads keys that
/// only their values name, as these may change before it is its turn.
pub(crate) fn visit_locks(row: &Row, args: Args<'_>, visit: &mut dyn FnMut(Slot)) {
    if row.named_keys(args).is_some() {
        Slot::all().for_each(visit);
    } else {
        visit_slots(row, args, visit);
    }
}

/// Where a command's options decide what happens to the key (SET, BITFIELD), what this request does.
#[inline]
pub(crate) fn actual_flags(flags: KeyFlags, args: Args<'_>) -> KeyFlags {
    if flags & spec::VARIABLE_FLAGS == 0 { flags } else { flags_by_options(flags, args) }
}

fn flags_by_options(flags: KeyFlags, args: Args<'_>) -> KeyFlags {
    if ascii_eq(args.at(0), "bitfield") {
        let reads = only_gets(args);
        return if reads { spec::RO | spec::ACCESS } else { flags & !spec::VARIABLE_FLAGS };
    }
    let reads = args.iter().skip(3).any(|word| ascii_eq(word, "GET"));
    if reads { spec::RW | spec::ACCESS | spec::UPDATE } else { spec::OW | spec::UPDATE }
}

/// Whether the steps of a BITFIELD change nothing.
fn only_gets(args: Args<'_>) -> bool {
    let mut at = 2;
    while let Some(step) = args.get(at) {
        let len = match step {
            get if ascii_eq(get, "get") => 3,
            overflow if ascii_eq(overflow, "overflow") => 2,
            _ => return false,
        };
        at += len;
        if args.len() < at {
            return false;
        }
    }
    true
}
