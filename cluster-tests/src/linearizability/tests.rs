//! The checker on histories of which the answer is known.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use StringOperation::{CompareAndSet, Get, Incr, Set};

/// (client, operation, invoked, returned with a reply)
type Line<O> = (usize, O, u64, Option<(u64, Reply)>);

fn calls<O>(lines: Vec<Line<O>>) -> Vec<Call<O, Reply>> {
    lines
        .into_iter()
        .map(|(client, operation, invoked, returned)| Call { client, operation, invoked, returned })
        .collect()
}

fn string(lines: Vec<Line<StringOperation>>) -> bool {
    match check::<StringModel>(&calls(lines)) {
        Verdict::Linearizable => true,
        Verdict::Violation(story) => {
            assert!(story.contains("=>"), "{story}");
            false
        }
        Verdict::Undecided => panic!("undecided"),
    }
}

fn ok(at: u64) -> Option<(u64, Reply)> {
    Some((at, Reply::Ok))
}

fn value(at: u64, value: i64) -> Option<(u64, Reply)> {
    Some((at, Reply::Value(value)))
}

#[test]
fn a_read_sees_the_last_write() {
    assert!(string(vec![(0, Set(1), 0, ok(1)), (1, Get, 2, value(3, 1))]));
    assert!(!string(vec![(0, Set(1), 0, ok(1)), (0, Set(2), 2, ok(3)), (1, Get, 4, value(5, 1))]), "stale");
    assert!(!string(vec![(0, Set(1), 0, ok(1)), (1, Get, 2, Some((3, Reply::Nil)))]), "lost");
    assert!(!string(vec![(0, Get, 0, value(1, 7))]), "from nowhere");
}

#[test]
fn concurrent_operations_may_take_either_order_but_only_one() {
    let write =
        |read: i64| vec![(0, Set(1), 0, ok(10)), (1, Set(2), 0, ok(10)), (2, Get, 11, value(12, read))];
    assert!(string(write(1)) && string(write(2)));
    let mut both = write(1);
    both.push((2, Get, 13, value(14, 2)));
    assert!(!string(both), "the two writes cannot change places between the reads");
    let during = |first: i64, second: i64| {
        let begin = vec![(0, Set(1), 0, ok(1)), (0, Set(2), 2, ok(20))];
        let reads = vec![(1, Get, 5, value(6, first)), (1, Get, 7, value(8, second))];
        string([begin, reads].concat())
    };
    assert!(during(1, 1) && during(1, 2) && during(2, 2));
    assert!(!during(2, 1), "a read that goes back");
}

#[test]
fn an_unanswered_write_may_take_effect_late_or_never_but_once() {
    let reads = |values: &[i64]| {
        let mut lines = vec![(0, Set(1), 0, ok(1)), (1, Set(2), 2, None), (2, Set(3), 10, ok(11))];
        let at = |i: usize| 20 + 2 * i as u64;
        lines.extend(values.iter().enumerate().map(|(i, v)| (3, Get, at(i), value(at(i) + 1, *v))));
        string(lines)
    };
    assert!(reads(&[3]) && reads(&[2]) && reads(&[3, 2]) && reads(&[3, 3, 2, 2]));
    assert!(!reads(&[1]) && !reads(&[2, 3]) && !reads(&[3, 2, 3]));
}

#[test]
fn increments_are_counted_once_each() {
    let integer = |at: u64, n: i64| Some((at, Reply::Integer(n)));
    assert!(string(vec![
        (0, Incr, 0, integer(9, 2)),
        (1, Incr, 0, integer(9, 1)),
        (0, Get, 10, value(11, 2))
    ]));
    assert!(!string(vec![(0, Incr, 0, integer(9, 1)), (1, Incr, 0, integer(9, 1))]), "twice the same");
    assert!(string(vec![(0, Incr, 0, None), (1, Incr, 5, integer(9, 2))]), "the unanswered one took effect");
    assert!(string(vec![(0, Incr, 0, None), (1, Incr, 5, integer(9, 1))]), "or it did not");
    assert!(!string(vec![(0, Incr, 6, None), (1, Incr, 0, integer(5, 2))]), "not before it was invoked");
}

#[test]
fn a_compare_and_set_that_succeeds_found_what_it_expected() {
    let begin = (0, Set(1), 0, ok(1));
    assert!(string(vec![begin.clone(), (1, CompareAndSet(Some(1), 2), 2, ok(3)), (0, Get, 4, value(5, 2))]));
    assert!(!string(vec![begin.clone(), (1, CompareAndSet(Some(9), 2), 2, ok(3))]));
    let two = vec![(1, CompareAndSet(Some(1), 2), 2, ok(9)), (2, CompareAndSet(Some(1), 3), 2, ok(9))];
    assert!(!string([vec![begin.clone()], two].concat()), "only one of two can win");
    let refused = (1, CompareAndSet(Some(1), 2), 2, Some((3, Reply::Nil)));
    assert!(string(vec![begin, refused, (0, Get, 4, value(5, 1))]));
}

#[test]
fn lists_keep_what_was_appended_in_one_order() {
    use ListOperation::{Append, Pop, Read};
    let list = |lines: Vec<Line<ListOperation>>| check::<ListModel>(&calls(lines)) == Verdict::Linearizable;
    let len = |at: u64, n: i64| Some((at, Reply::Integer(n)));
    let read = |at: u64, v: &[i64]| Some((at, Reply::Values(v.to_vec())));
    assert!(list(vec![
        (0, Append(1), 0, len(9, 2)),
        (1, Append(2), 0, len(9, 1)),
        (2, Read, 10, read(11, &[2, 1]))
    ]));
    assert!(!list(vec![
        (0, Append(1), 0, len(9, 2)),
        (1, Append(2), 0, len(9, 1)),
        (2, Read, 10, read(11, &[1, 2]))
    ]));
    assert!(!list(vec![(0, Append(1), 0, len(1, 1)), (2, Read, 10, read(11, &[]))]), "lost");
    assert!(
        !list(vec![(0, Append(1), 0, len(1, 1)), (1, Pop, 2, value(9, 1)), (2, Pop, 2, value(9, 1))]),
        "twice"
    );
}

#[test]
fn a_queue_of_two_lists_is_one_object() {
    use QueueOperation::{Move, Push, ReadSecond, Take};
    let queue =
        |lines: Vec<Line<QueueOperation>>| check::<QueueModel>(&calls(lines)) == Verdict::Linearizable;
    let moved =
        || vec![(0, Push(1), 0, Some((1, Reply::Integer(1)))), (0, Move, 2, Some((3, Reply::Value(1))))];
    let taken = |at, reply| (1, Take, at, Some((at + 50, reply)));
    assert!(queue([moved(), vec![taken(0, Reply::Value(1))]].concat()), "it waited");
    assert!(queue([moved(), vec![taken(1, Reply::Nil)]].concat()), "it came before");
    assert!(!queue([moved(), vec![taken(4, Reply::Nil)]].concat()), "lost");
    assert!(!queue([moved(), vec![taken(4, Reply::Value(1)), taken(60, Reply::Value(1))]].concat()), "twice");
    let read = |values: &[i64]| (2, ReadSecond, 90, Some((91, Reply::Values(values.to_vec()))));
    // A client that was given up may be served later, or never.
    let given_up = || [moved(), vec![(1, Take, 4, None)]].concat();
    assert!(queue([given_up(), vec![read(&[])]].concat()));
    assert!(queue([given_up(), vec![read(&[1])]].concat()));
}

/// Histories made by executing at a random moment within each call are linearizable; with one read falsified to a
/// value that nobody wrote, or one acknowledged write taken away from under later reads, they are not.
#[test]
fn random_histories_of_a_single_copy_pass_and_falsified_ones_fail() {
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        // Each client's calls follow each other; the effect is at a random moment within.
        let mut effects = Vec::new();
        for client in 0..6 {
            let mut now = rng.random_range(0..50_u64);
            for n in 0..30 {
                let (wait, work) = (rng.random_range(1..40), rng.random_range(1..40));
                let operation = match rng.random_range(0..3) {
                    0 => Set(client * 1000 + n),
                    1 => Incr,
                    _ => Get,
                };
                let effect = now + wait;
                effects.push((effect, client as usize, operation, now, effect + work, rng.random_bool(0.01)));
                now = effect + work + rng.random_range(1..20);
            }
        }
        effects.sort_by_key(|e| (e.0, e.1));
        let mut state = None;
        let mut history = Vec::new();
        for (_, client, operation, invoked, returned, unanswered) in effects {
            let reply = match &operation {
                Get => state.map_or(Reply::Nil, Reply::Value),
                Incr => Reply::Integer(state.unwrap_or(0) + 1),
                _ => Reply::Ok,
            };
            // Of those without an answer half are not executed.
            if !unanswered || rng.random_bool(0.5) {
                state = StringModel::step(&state, &operation, None).unwrap();
            }
            let returned = (!unanswered).then_some((returned, reply));
            history.push(Call { client, operation, invoked, returned });
        }
        assert_eq!(check::<StringModel>(&history), Verdict::Linearizable, "seed {seed}");
        let read = history.iter().rposition(|c| c.operation == Get && c.returned.is_some()).unwrap();
        history[read].returned.as_mut().unwrap().1 = Reply::Value(-1);
        assert!(matches!(check::<StringModel>(&history), Verdict::Violation(_)), "seed {seed}");
    }
}
