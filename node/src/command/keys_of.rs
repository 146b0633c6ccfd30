//! The slots that a command touches.

use keyward_proto::resp::Args;
use keyward_proto::slot::Slot;

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
