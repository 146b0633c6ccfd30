//! What the clients wrote down, and whether a single copy of the data could have answered like that.
//!
//! A slot is one object, so that a transaction on several keys of it is one operation. What became of the operations
//! without an answer is known at the end: those that are not in the journal on which all nodes agree had no effect, and
//! are left out. If somebody has seen one of them nevertheless, the history without it is not linearizable.

use std::collections::BTreeSet;

use super::clients::Record;
use super::invariants::Entry;
use super::keyspace::{Change, SLOTS, Values};
use super::operations::{Answer, Operation};
use super::{CLIENTS, Nanos, ms};
use crate::linearizability::{Call, Model, Verdict, check_within};

/// Configurations that are looked at for one slot.
const CONFIGURATIONS_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct SlotModel;

/// What changes a slot.
#[derive(Debug)]
pub(super) enum Deed {
    Operation(Operation),
    /// A node has deleted a key whose time has passed.
    Expire,
}

impl Model for SlotModel {
    type State = Values;
    type Operation = Deed;
    type Reply = Vec<Answer>;

    fn step(state: &Values, deed: &Deed, told: Option<&Vec<Answer>>) -> Option<Values> {
        let mut after = state.clone();
        match deed {
            Deed::Operation(operation) if told.is_some_and(|told| operation.was_in_vain(told)) => Some(after),
            Deed::Operation(operation) => {
                let answers = operation.execute(&mut after);
                told.is_none_or(|told| *told == answers).then_some(after)
            }
            Deed::Expire => {
                after.apply(Change::Expire);
                Some(after)
            }
        }
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
pub(super) fn check(records: &[Record], histories: &[Vec<&Entry>; SLOTS]) -> Checked {
    let mut checked = Checked::default();
    for (slot, history) in histories.iter().enumerate() {
        let executed: BTreeSet<u64> = history.iter().filter_map(|entry| entry.operation).collect();
        let of_slot = || (0..).zip(records).filter(|(_, r)| r.slot == slot);
        let anywhere = |(_, r): &(u64, &Record)| r.operation.is_for_any_node();
        check_reads_anywhere(of_slot().filter(anywhere).map(|(_, r)| r), history);
        let of_slot = || of_slot().filter(|found| !anywhere(found));
        let took_effect = |(number, r): &(u64, &Record)| r.returned.is_some() || executed.contains(number);
        let mut calls: Vec<Call<Deed, Vec<Answer>>> = of_slot()
            .filter(|(_, r)| !r.is_void)
            .filter(took_effect)
            .map(|(_, r)| Call {
                client: r.client,
                operation: Deed::Operation(r.operation.clone()),
                invoked: r.invoked,
                returned: r.returned.clone(),
            })
            .collect();
        checked.calls += calls.len();
        let expirations = history.iter().filter(|entry| entry.changes.contains(&Change::Expire));
        calls.extend(expirations.map(|entry| expiration(entry.appended_at)));
        match check_within::<SlotModel>(&calls, CONFIGURATIONS_MAX) {
            Verdict::Linearizable => {}
            Verdict::Undecided => checked.undecided += 1,
            Verdict::Violation(story) => panic!("the history of slot {slot} is not linearizable:\n{story}"),
        }
        for (number, record) in of_slot().filter(|(_, r)| r.is_void) {
            let operation = &record.operation;
            assert!(
                !executed.contains(&number),
                "a client was told that {number}, {operation:?}, was not executed"
            );
        }
    }
    checked
}

/// What a replica answers may be old, but it was true: all of it at one point of the history.
fn check_reads_anywhere<'a>(records: impl Iterator<Item = &'a Record>, history: &[&Entry]) {
    let mut states = vec![Values::default()];
    for entry in history {
        let mut values = states.last().expect("the first is there").clone();
        entry.changes.iter().for_each(|change| values.apply(*change));
        states.push(values);
    }
    for Record { slot, operation, returned, invoked, .. } in records {
        let Some((_, answers)) = returned else { continue };
        let was_true = states.iter().any(|values| operation.execute(&mut values.clone()) == *answers);
        assert!(
            was_true,
            "a reader of slot {slot} was told at {} ms what is not in its history: {answers:?}",
            invoked / ms(1)
        );
    }
}

fn expiration(at: Nanos) -> Call<Deed, Vec<Answer>> {
    Call { client: CLIENTS, operation: Deed::Expire, invoked: at, returned: None }
}
