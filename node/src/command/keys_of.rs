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

pub(crate) fn slots_of(row: &Row, args: Args<'_>) -> Vec<Slot> {
    let mut slots = Vec::new();
    visit_slots(row, args, &mut |slot| slots.push(slot));
    slots
}
