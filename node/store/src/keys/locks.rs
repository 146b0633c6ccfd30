//! Which slots are locked for the running command, and the way from a key to its slot.

use std::time::Duration;

use keyward_proto::ids::LogIndex;
use keyward_proto::slot::Slot;
use parking_lot::MutexGuard;

use super::Keys;
use crate::slots::SlotState;

/// Which slots are locked for the running command.
#[derive(Debug, Default)]
pub(super) enum Held<'a> {
    #[default]
    None,
    One(Slot, MutexGuard<'a, SlotState>),
    /// In slot order.
    Many(Vec<(Slot, MutexGuard<'a, SlotState>)>),
}

impl<'a> Keys<'a> {
    /// Locks the one slot of a command.
    #[inline]
    pub fn lock_one(&mut self, slot: Slot) {
        debug_assert!(matches!(self.held, Held::None));
        self.held = Held::One(slot, self.space.lock(slot));
    }

    /// As [`Keys::lock_one`], unless `gives_up` says meanwhile that who has the slot is not to be waited for. Whether it is
    /// locked.
    #[inline]
    #[must_use]
    pub fn lock_one_unless(&mut self, slot: Slot, gives_up: impl Fn() -> bool) -> bool {
        debug_assert!(matches!(self.held, Held::None));
        let Some(state) = self.space.lock_unless(slot, gives_up) else { return false };
        self.held = Held::One(slot, state);
        true
    }

    /// Locks several slots, in ascending order whatever the order of `slots` is.
    pub fn lock_many(&mut self, slots: impl IntoIterator<Item = Slot>) {
        self.lock_visited(|visit| slots.into_iter().for_each(visit));
    }

    /// Locks the slots that `visit_all` names. What this needs is kept for the next command of the batch.
    pub fn lock_visited(&mut self, visit_all: impl FnOnce(&mut dyn FnMut(Slot))) {
        let locked = self.lock_visited_unless(visit_all, || false);
        debug_assert!(locked, "it does not give up");
    }

    /// As [`Keys::lock_visited`], unless `gives_up` says meanwhile that who has one of the slots is not to be waited for.
    /// Whether they are locked; else none is.
    #[must_use]
    pub fn lock_visited_unless(
        &mut self,
        visit_all: impl FnOnce(&mut dyn FnMut(Slot)),
        gives_up: impl Fn() -> bool,
    ) -> bool {
        debug_assert!(matches!(self.held, Held::None));
        let mut slots = std::mem::take(&mut self.spare_slots);
        visit_all(&mut |slot| slots.push(slot));
        slots.sort_unstable();
        slots.dedup();
        let is_locked = match slots[..] {
            [slot] => self.lock_one_unless(slot, gives_up),
            _ => {
                let mut states = std::mem::take(&mut self.spare_states);
                let locked = slots.iter().map_while(|s| Some((*s, self.space.lock_unless(*s, &gives_up)?)));
                states.extend(locked);
                let is_complete = states.len() == slots.len();
                if is_complete {
                    self.held = Held::Many(states);
                } else {
                    states.clear();
                    self.spare_states = states;
                }
                is_complete
            }
        };
        slots.clear();
        self.spare_slots = slots;
        is_locked
    }

    /// The world has been stopped, and another thread may have done so before this one.
    pub fn note_stopped(&mut self) {
        self.mark = self.space.cow.mark();
    }

    /// Locks all slots; the world is stopped.
    pub fn lock_all(&mut self) {
        debug_assert!(matches!(self.held, Held::None));
        self.note_stopped();
        self.held = Held::Many(Slot::all().map(|s| (s, self.space.lock(s))).collect());
    }

    /// Whether this slot is locked.
    pub fn holds(&self, slot: Slot) -> bool {
        match &self.held {
            Held::None => false,
            Held::One(held, _) => *held == slot,
            Held::Many(states) => states.binary_search_by_key(&slot, |(s, _)| *s).is_ok(),
        }
    }

    /// Locks more slots, for a script that turns out to need them. The caller knows that nobody who holds one of them waits
    /// for another one: the world is stopped.
    pub fn lock_more(&mut self, mut slots: Vec<Slot>) {
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| !self.holds(*slot));
        let more = slots.into_iter().map(|slot| (slot, self.space.lock(slot))).collect();
        self.add_held(more);
    }

    /// Locks one more slot, if nobody else has it for so long; then it needs no order.
    pub fn try_lock_more(&mut self, slot: Slot, patience: Duration) -> bool {
        if self.holds(slot) {
            return true;
        }
        let Some(state) = self.space.try_lock_for(slot, patience) else { return false };
        self.add_held(vec![(slot, state)]);
        true
    }

    /// Locks more slots, if nobody else has any of them; then it needs no order. Whether they are locked.
    #[must_use]
    pub fn try_lock_many(&mut self, slots: &mut Vec<Slot>) -> bool {
        slots.sort_unstable();
        slots.dedup();
        let try_lock = |slot: &Slot| Some((*slot, self.space.try_lock_for(*slot, Duration::ZERO)?));
        let Some(more) = slots.iter().map(try_lock).collect() else { return false };
        self.add_held(more);
        true
    }

    /// Locks what is not locked yet; the world is stopped.
    pub fn lock_rest(&mut self) {
        self.lock_more(Slot::all().collect());
    }

    /// The highest slot that is locked.
    pub fn highest_held(&self) -> Option<Slot> {
        match &self.held {
            Held::None => None,
            Held::One(slot, _) => Some(*slot),
            Held::Many(states) => states.last().map(|(slot, _)| *slot),
        }
    }

    fn add_held(&mut self, mut more: Vec<(Slot, MutexGuard<'a, SlotState>)>) {
        let mut states = self.take_held();
        states.append(&mut more);
        states.sort_unstable_by_key(|(slot, _)| *slot);
        self.held = Held::Many(states);
    }

    fn take_held(&mut self) -> Vec<(Slot, MutexGuard<'a, SlotState>)> {
        match std::mem::take(&mut self.held) {
            Held::None => std::mem::take(&mut self.spare_states),
            Held::One(slot, state) => {
                let mut states = std::mem::take(&mut self.spare_states);
                states.push((slot, state));
                states
            }
            Held::Many(states) => states,
        }
    }

    #[inline]
    pub fn unlock(&mut self) {
        if !self.volatile.get_mut().is_empty() {
            self.recount_volatile();
        }
        if !self.pending.is_empty() {
            self.publish_counts();
        }
        if let Held::Many(mut states) = std::mem::take(&mut self.held) {
            states.clear();
            self.spare_states = states;
        }
        self.walked = LogIndex::ZERO;
    }

    pub(super) fn publish_counts(&mut self) {
        let counts = &self.space.counts;
        match &self.held {
            Held::None => {}
            Held::One(slot, state) => counts.set_slot(*slot, state.key_count(0)),
            Held::Many(states) => {
                states.iter().for_each(|(slot, state)| counts.set_slot(*slot, state.key_count(0)));
            }
        }
        self.pending.publish(counts);
    }

    pub(super) fn slot_of(&self, key: &[u8]) -> Slot {
        match &self.held {
            Held::One(slot, _) => {
                debug_assert_eq!(*slot, Slot::of(key), "a command touches a key outside its slot");
                *slot
            }
            Held::None | Held::Many(_) => Slot::of(key),
        }
    }

    /// Panics if the key's slot is not locked: the command's key positions are wrong.
    #[inline]
    pub(super) fn state(&self, key: &[u8]) -> &SlotState {
        match &self.held {
            Held::One(_, state) => state,
            Held::Many(states) => {
                let slot = Slot::of(key);
                let at = states.binary_search_by_key(&slot, |(s, _)| *s).expect("the key's slot is locked");
                &states[at].1
            }
            Held::None => panic!("access to a key without its slot's lock"),
        }
    }

    #[inline]
    pub(super) fn state_mut(&mut self, key: &[u8]) -> &mut SlotState {
        match &mut self.held {
            Held::One(_, state) => state,
            Held::Many(states) => {
                let slot = Slot::of(key);
                let at = states.binary_search_by_key(&slot, |(s, _)| *s).expect("the key's slot is locked");
                &mut states[at].1
            }
            Held::None => panic!("access to a key without its slot's lock"),
        }
    }

    /// Whether all keys of the command are in one slot, so that the request may be its own effect.
    pub fn is_one_slot(&self) -> bool {
        matches!(self.held, Held::One(..))
    }

    /// Whether two keys share a slot, so that one effect may touch both.
    pub fn same_slot(&self, a: &[u8], b: &[u8]) -> bool {
        matches!(self.held, Held::One(..)) || Slot::of(a) == Slot::of(b)
    }

    /// Runs `f` on a slot's state, for commands that walk the keyspace without holding it (SCAN, DBSIZE): the lock
    /// is taken for the call unless the running transaction holds it already.
    pub fn with_slot<R>(&mut self, slot: Slot, f: impl FnOnce(&mut SlotState) -> R) -> R {
        let walked = &mut self.walked;
        let f = |state: &mut SlotState| {
            *walked = state.last_write.max(*walked);
            f(state)
        };
        match &mut self.held {
            Held::One(held, state) if *held == slot => f(state),
            Held::Many(states) => match states.binary_search_by_key(&slot, |(s, _)| *s) {
                Ok(at) => f(&mut states[at].1),
                Err(_) => f(&mut self.space.lock(slot)),
            },
            Held::None | Held::One(..) => f(&mut self.space.lock(slot)),
        }
    }
}
