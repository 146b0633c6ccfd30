//! Whether a recorded history is linearizable: whether every operation can be given a moment between its invocation
//! and its reply such that a single copy of the data, executing them one after another, gives these replies.
//!
//! The search is that of Wing and Gong, with Lowe's memory of configurations (which operations are done, and the
//! state that they led to), as in "Testing for linearizability" (Concurrency and Computation, 2017). An operation
//! without a reply may have taken effect at any time after its invocation, or never. The libraries for this
//! (`stateright`, `todc-utils`) know no such operations or keep no memory, and would not end on our histories.
//!
//! Pure: no clock, no I/O.

mod models;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

pub use models::{ListModel, ListOperation, QueueModel, QueueOperation, Reply, StringModel, StringOperation};

/// Configurations that are looked at before the search gives up.
const CONFIGURATIONS_MAX: usize = 2_000_000;

/// What a single copy of the data does.
pub trait Model {
    type State: Clone + Eq + Hash + Debug + Default;
    type Operation: Debug;
    type Reply: Debug;

    /// The state after `operation`; `None` if it cannot have answered with `reply`. Without a reply every answer is
    /// possible.
    fn step(
        state: &Self::State,
        operation: &Self::Operation,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State>;
}

/// One operation of a client on one object.
#[derive(Debug, Clone)]
pub struct Call<O, R> {
    /// Who called; only shown.
    pub client: usize,
    pub operation: O,
    /// Nanoseconds since the history began, as `returned`.
    pub invoked: u64,
    /// When the reply came, and the reply; `None`: the outcome is unknown.
    pub returned: Option<(u64, R)>,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// With the operations around the first one that does not fit, a line each.
    Violation(String),
    /// The search was given up.
    Undecided,
}

/// A call or a reply in the list of what is not placed yet.
#[derive(Debug, Clone, Copy)]
struct Event {
    call: usize,
    is_return: bool,
}

/// Doubly linked list over events, so that a call can be taken out and put back in constant time. Index 0 is the head.
#[derive(Debug)]
struct Events {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each call: where its invocation and its reply are in the list; a zero: no reply.
    at: Vec<(usize, usize)>,
}

impl Events {
    fn new<O, R>(calls: &[Call<O, R>]) -> Self {
        let mut moments = Vec::new();
        for (call, c) in calls.iter().enumerate() {
            moments.push((c.invoked, false, call));
            moments.extend(c.returned.as_ref().map(|(returned, _)| (*returned, true, call)));
        }
        // At the same moment an invocation comes first: the two calls count as concurrent.
        moments.sort_unstable();
        let head = Event { call: usize::MAX, is_return: false };
        let events: Vec<Event> = std::iter::once(head)
            .chain(moments.iter().map(|&(_, is_return, call)| Event { call, is_return }))
            .collect();
        let len = events.len();
        let mut at = vec![(0, 0); calls.len()];
        for (i, event) in events.iter().enumerate().skip(1) {
            let place = &mut at[event.call];
            *(if event.is_return { &mut place.1 } else { &mut place.0 }) = i;
        }
        // The end is 0 as well: the list is a ring through the head.
        let next = (1..=len).map(|i| i % len).collect();
        let previous = (0..len).map(|i| (i + len - 1) % len).collect();
        Events { events, next, previous, at }
    }

    fn unlink(&mut self, i: usize) {
        let (previous, next) = (self.previous[i], self.next[i]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    /// Undoes the last `unlink` that is not undone yet.
    fn relink(&mut self, i: usize) {
        let (previous, next) = (self.previous[i], self.next[i]);
        self.next[previous] = i;
        self.previous[next] = i;
    }

    fn take(&mut self, call: usize) {
        let (invocation, reply) = self.at[call];
        self.unlink(invocation);
        if reply != 0 {
            self.unlink(reply);
        }
    }

    fn put_back(&mut self, call: usize) {
        let (invocation, reply) = self.at[call];
        if reply != 0 {
            self.relink(reply);
        }
        self.relink(invocation);
    }
}

/// Checks the history of one object. The order of `calls` does not matter.
pub fn check<M: Model>(calls: &[Call<M::Operation, M::Reply>]) -> Verdict {
    check_within::<M>(calls, CONFIGURATIONS_MAX)
}

/// As [`check`], with another limit to the configurations that are looked at.
pub fn check_within<M: Model>(calls: &[Call<M::Operation, M::Reply>], configurations_max: usize) -> Verdict {
    let mut events = Events::new(calls);
    let mut state = M::State::default();
    let mut done = vec![0_u64; calls.len().div_ceil(64)];
    let mut missing = calls.iter().filter(|c| c.returned.is_some()).count();
    let mut seen: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut placed: Vec<(usize, M::State)> = Vec::new();
    // The largest number of replies that fitted, and the call whose reply came then without having been placed.
    let mut furthest = (usize::MAX, 0);
    let mut at = events.next[0];
    while missing > 0 {
        let event = events.events[at];
        if at != 0 && !event.is_return {
            let call = &calls[event.call];
            let reply = call.returned.as_ref().map(|(_, reply)| reply);
            // What has neither an answer nor an effect need not be placed.
            let placeable = |after: &M::State| reply.is_some() || *after != state;
            if let Some(after) = M::step(&state, &call.operation, reply).filter(placeable) {
                let bit = 1 << (event.call % 64);
                done[event.call / 64] |= bit;
                if seen.insert((done.clone(), after.clone())) {
                    if seen.len() > configurations_max {
                        return Verdict::Undecided;
                    }
                    placed.push((event.call, std::mem::replace(&mut state, after)));
                    events.take(event.call);
                    missing -= usize::from(reply.is_some());
                    at = events.next[0];
                    continue;
                }
                done[event.call / 64] &= !bit;
            }
            at = events.next[at];
            continue;
        }
        // A reply came before its call could be placed: what was placed last is wrong.
        if at != 0 && missing < furthest.0 {
            furthest = (missing, event.call);
        }
        let Some((call, before)) = placed.pop() else {
            return Verdict::Violation(describe(calls, furthest.1));
        };
        state = before;
        done[call / 64] &= !(1 << (call % 64));
        missing += usize::from(calls[call].returned.is_some());
        events.put_back(call);
        at = events.next[events.at[call].0];
    }
    Verdict::Linearizable
}

/// The calls that overlap with one, or are close to it in time.
fn describe<O: Debug, R: Debug>(calls: &[Call<O, R>], center: usize) -> String {
    const AROUND: usize = 8;
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|&i| calls[i].invoked);
    let place = order.iter().position(|&i| i == center).unwrap_or(0);
    let mut lines = Vec::new();
    for &i in &order[place.saturating_sub(AROUND)..(place + AROUND).min(order.len())] {
        let Call { client, operation, invoked, returned } = &calls[i];
        let (mark, begin) = (if i == center { "=>" } else { "  " }, *invoked as f64 / 1e6);
        lines.push(match returned {
            Some((end, reply)) => {
                format!(
                    "{mark} {begin:.3}-{:.3} ms, client {client}: {operation:?} -> {reply:?}",
                    *end as f64 / 1e6
                )
            }
            None => format!("{mark} {begin:.3}- ms, client {client}: {operation:?} -> no answer"),
        });
    }
    lines.join("\n")
}
