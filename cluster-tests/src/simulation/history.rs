//! What the clients wrote down, and whether a single copy of the data could have answered like that.
//!
//! A slot is one object, so that a transaction on several keys of it is one operation. What became of the operations
//! without an answer is known at the end: those that are not in the journal on which all nodes agree had no effect, and
//! are left out. If somebody has seen one of them nevertheless, the history without it is not linearizable.

use std::collections::BTreeSet;

use super::clients::{Operation, Record, Seen};
use super::keyspace::{SLOTS, Values, Write};
use crate::linearizability::{Call, Model, Verdict, check_within};

/// Configurations that are looked at for one slot.
const CONFIGURATIONS_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct SlotModel;

impl Model for SlotModel {
    type State = Values;
    type Operation = Operation;
    type Reply = Seen;

    fn step(state: &Values, operation: &Operation, reply: Option<&Seen>) -> Option<Values> {
        let mut after = *state;
        if let Some(write) = operation.write {
            after.apply(write);
        }
        reply.is_none_or(|seen| seen.fits(&after)).then_some(after)
    }
}

/// What the checker found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Checked {
    pub(super) calls: usize,
    /// Slots for which the search was given up.
    pub(super) undecided: usize,
}

/// Panics if the history of a slot is not linearizable.
pub(super) fn check(records: &[Record], journals: [&[Write]; SLOTS]) -> Checked {
    let mut checked = Checked::default();
    for (slot, journal) in journals.into_iter().enumerate() {
        let executed: BTreeSet<u64> = journal.iter().map(|w| w.number).collect();
        let took_effect = |r: &&Record| {
            r.returned.is_some() || r.operation.write.is_some_and(|w| executed.contains(&w.number))
        };
        let calls: Vec<Call<Operation, Seen>> = records
            .iter()
            .filter(|r| r.slot == slot && !r.is_void)
            .filter(took_effect)
            .map(|r| Call {
                client: r.client,
                operation: r.operation,
                invoked: r.invoked,
                returned: r.returned,
            })
            .collect();
        checked.calls += calls.len();
        match check_within::<SlotModel>(&calls, CONFIGURATIONS_MAX) {
            Verdict::Linearizable => {}
            Verdict::Undecided => checked.undecided += 1,
            Verdict::Violation(story) => panic!("the history of slot {slot} is not linearizable:\n{story}"),
        }
        for record in records.iter().filter(|r| r.slot == slot && r.is_void) {
            let effect = record.operation.write.filter(|w| executed.contains(&w.number));
            assert!(effect.is_none(), "a client was told that {effect:?} was not executed");
        }
    }
    checked
}
