//! A group of consumers: up to where it has read, and what of that is pending.
//!
//! Invariant: each pending entry is the group's and exactly one consumer's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StreamId;

/// Of entries read: they cannot be told.
pub const UNKNOWN: i64 = -1;
/// No count grows beyond this: requests and effects name counts as signed numbers.
///
/// Differs from Valkey, where they become negative.
pub(super) const COUNT_MAX: u64 = i64::MAX as u64;

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The last entry that was delivered as new.
    pub last_id: StreamId,
    /// How many entries had been added up to that one, or [`UNKNOWN`].
    pub entries_read: i64,
    pending: BTreeMap<StreamId, Pending>,
    /// What is pending in the order of its deliveries. Only claiming by idle time asks for that, so it is made for the
    /// first claim.
    by_time: Option<BTreeSet<(i64, StreamId)>>,
    consumers: BTreeMap<Arc<[u8]>, Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub consumer: Arc<[u8]>,
    /// Milliseconds since the Unix epoch.
    pub delivered_at: i64,
    pub deliveries: u64,
}

impl Pending {
    /// Deliveries, with so many more.
    pub fn deliveries_with(&self, more: u64) -> u64 {
        self.deliveries.saturating_add(more).min(COUNT_MAX)
    }
}

/// Who reads in a group.
#[derive(Debug, Clone, Default)]
pub struct Consumer {
    /// When it last asked for something.
    pub seen_at: i64,
    /// When it last got something; negative: never.
    pub active_at: i64,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// The entries that it has not acknowledged.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = StreamId> {
        self.pending.iter().copied()
    }

    /// As [`Consumer::pending`], from this ID on.
    pub fn pending_from(&self, start: StreamId) -> impl DoubleEndedIterator<Item = StreamId> {
        self.pending.range(start..).copied()
    }
}

impl Group {
    pub(super) fn new(last_id: StreamId, entries_read: i64) -> Self {
        Group { last_id, entries_read, ..Group::default() }
    }

    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// What is pending of the IDs from `start` to `end`.
    pub fn pending(
        &self,
        start: StreamId,
        end: StreamId,
    ) -> impl DoubleEndedIterator<Item = (StreamId, &Pending)> {
        let last = if start <= end { end } else { start };
        self.pending.range(start..=last).map(|(id, pending)| (*id, pending)).filter(move |(id, _)| *id <= end)
    }

    pub fn pending_at(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// Whatever is pending is kept in the order of its deliveries, too, from now on.
    pub fn order_by_time(&mut self) {
        let by_time = || self.pending.iter().map(|(id, pending)| (pending.delivered_at, *id)).collect();
        self.by_time.get_or_insert_with(by_time);
    }

    /// What is pending with the times of its deliveries, the earliest first. Empty before [`Group::order_by_time`].
    pub fn pending_by_time(&self) -> impl Iterator<Item = (i64, StreamId)> {
        self.by_time.iter().flatten().copied()
    }

    pub(super) fn is_ordered_by_time(&self) -> bool {
        self.by_time.is_some()
    }

    pub fn consumers(&self) -> impl ExactSizeIterator<Item = (&Arc<[u8]>, &Consumer)> {
        self.consumers.iter()
    }

    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    pub fn consumer_mut(&mut self, name: &[u8]) -> Option<&mut Consumer> {
        self.consumers.get_mut(name)
    }

    /// Whether there was none of this name.
    pub fn create_consumer(&mut self, name: &[u8], seen_at: i64, active_at: i64) -> bool {
        let is_new = !self.consumers.contains_key(name);
        if is_new {
            self.consumers.insert(name.into(), Consumer { seen_at, active_at, ..Consumer::default() });
        }
        is_new
    }

    /// A consumer goes, with all that is pending for it: how much that was, if it was there.
    pub fn delete_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let consumer = self.consumers.remove(name)?;
        for id in &consumer.pending {
            self.remove_pending(*id);
        }
        Some(consumer.pending.len())
    }

    /// The entry is pending for this consumer, which is there, and for no other.
    pub fn deliver(&mut self, id: StreamId, consumer: &[u8], delivered_at: i64, deliveries: u64) {
        let Some((name, _)) = self.consumers.get_key_value(consumer) else { return };
        let deliveries = deliveries.min(COUNT_MAX);
        let new = Pending { consumer: Arc::clone(name), delivered_at, deliveries };
        let old = self.pending.insert(id, new);
        if let Some(by_time) = &mut self.by_time {
            if let Some(old) = &old {
                by_time.remove(&(old.delivered_at, id));
            }
            by_time.insert((delivered_at, id));
        }
        if let Some(old) = old
            && *old.consumer != *consumer
            && let Some(owner) = self.consumers.get_mut(&old.consumer)
        {
            owner.pending.remove(&id);
        }
        if let Some(owner) = self.consumers.get_mut(consumer) {
            owner.pending.insert(id);
        }
    }

    /// Nothing is pending of this entry any more; whether it was.
    pub fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.remove_pending(id) else { return false };
        if let Some(owner) = self.consumers.get_mut(&pending.consumer) {
            owner.pending.remove(&id);
        }
        true
    }

    fn remove_pending(&mut self, id: StreamId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if let Some(by_time) = &mut self.by_time {
            by_time.remove(&(pending.delivered_at, id));
        }
        Some(pending)
    }
}
