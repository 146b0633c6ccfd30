//! Walks over the keyspace: counts, RANDOMKEY, SCAN.

use std::collections::BTreeMap;

use keyward_proto::slot::{SLOT_COUNT, Slot};
use rand::Rng;

use super::{Held, Keys};
use crate::DbIndex;
use crate::counts::Count;
use crate::entry::Entry;
use crate::table::ScanPosition;

/// How far a step over a slot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There are no keys.
    Empty,
    Next(ScanPosition),
    End,
}

impl Keys<'_> {
    /// Number of keys of a database, expired ones that still take memory included.
    pub fn len(&mut self, db: DbIndex) -> usize {
        self.counted = true;
        let len = self.space.counts.of(db).keys + self.pending.keys(db);
        usize::try_from(len).unwrap_or(0)
    }

    pub fn is_empty(&mut self, db: DbIndex) -> bool {
        self.len(db) == 0
    }

    /// What each database has, with what the running transaction has changed.
    pub fn counts_of_all(&mut self) -> BTreeMap<DbIndex, Count> {
        self.recount_volatile();
        self.space.counts.all_with(&self.pending)
    }

    /// A key of the database that has not expired, nearly every one as likely as any other: slots are drawn, and one
    /// of them by its number of keys. Where that finds too few keys, all slots take part.
    pub fn random_key(&mut self, rng: &mut impl Rng) -> Option<Box<[u8]>> {
        const DRAWN: usize = 32;
        const ATTEMPTS: usize = 100;
        let db = self.db;
        let drawn: Vec<Slot> =
            (0..DRAWN).filter_map(|_| Slot::new(rng.random_range(0..SLOT_COUNT))).collect();
        let mut counts = self.counts(drawn.into_iter());
        if counts.len() < DRAWN / 2 {
            counts = self.counts(Slot::all());
        }
        let total: usize = counts.iter().map(|(_, n)| n).sum();
        if total == 0 {
            return None;
        }
        let expiration = self.expiration();
        let live = |e: &&Entry| !expiration.has_expired(e.expire_at());
        for _ in 0..ATTEMPTS {
            let mut place = rng.random_range(0..total);
            let (slot, _) = counts.iter().find(|(_, n)| {
                let here = place < *n;
                place = place.saturating_sub(*n);
                here
            })?;
            let key = self.with_slot(*slot, |state| {
                let entry = state.table(db)?.random(|| rng.random())?;
                live(&entry).then(|| Box::from(entry.key()))
            });
            if key.is_some() {
                return key;
            }
        }
        // Most keys have expired: the first live one will do.
        Slot::all().find_map(|slot| {
            self.with_slot(slot, |state| state.table(db)?.iter().find(live).map(|e| e.key().into()))
        })
    }

    /// The slots among these that hold keys, and how many.
    fn counts(&mut self, slots: impl Iterator<Item = Slot>) -> Vec<(Slot, usize)> {
        let db = self.db;
        let mut counts = Vec::new();
        for slot in slots {
            if !self.is_empty_slot(slot) {
                let len = self.with_slot(slot, |state| state.key_count(db));
                counts.extend((len > 0).then_some((slot, len)));
            }
        }
        counts
    }

    /// One step of a SCAN of a database: visits a bucket, or passes over empty slots. `None` at the end.
    pub fn scan(&mut self, cursor: u64, visit: &mut dyn FnMut(&Entry)) -> Option<u64> {
        let (mut number, mut position) = ((cursor >> 32) as u16, cursor as ScanPosition);
        while number < SLOT_COUNT {
            match self.scan_slot(Slot::new(number)?, position, visit) {
                Step::Empty => {}
                Step::Next(next) => return Some(u64::from(number) << 32 | u64::from(next)),
                Step::End => {
                    let next = number + 1;
                    return (next < SLOT_COUNT).then(|| u64::from(next) << 32);
                }
            }
            number += 1;
            position = 0;
        }
        None
    }

    /// One step of a SCAN of a slot: visits a bucket. Positions are those of this process's hashes.
    pub fn scan_slot(&mut self, slot: Slot, position: ScanPosition, visit: &mut dyn FnMut(&Entry)) -> Step {
        if self.is_empty_slot(slot) {
            return Step::Empty;
        }
        let db = self.db;
        self.with_slot(slot, |state| match state.table(db) {
            Some(table) if !table.is_empty() => table.scan(position, visit).map_or(Step::End, Step::Next),
            Some(_) | None => Step::Empty,
        })
    }

    /// Whether it is known without a look at the slot that it has no key of the database.
    pub(super) fn is_empty_slot(&mut self, slot: Slot) -> bool {
        // What the running transaction has changed is counted later.
        let known = self.db == 0 && matches!(self.held, Held::None);
        let empty = known && self.space.counts.of_slot(slot) == 0;
        // The last key's deletion may not be committed yet.
        self.counted |= empty;
        empty
    }
}
