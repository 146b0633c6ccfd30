//! Looks ahead in a batch: finds the rows, slots and hashes of its next requests, and has their buckets and entries
//! loaded into the caches while others are still being executed.
//!
//! With a million keys the time of a command is the time of its cache misses: slot, bucket, entry. In a pipeline they
//! overlap: all slots and buckets of a stretch of requests are asked for first, then all entries (by then the buckets
//! have come), then the requests are executed. Everything found here is used for executing or is only a hint, so
//! nothing depends on it being still true by then.

use keyward_proto::resp::Batch;
use keyward_proto::slot::Slot;
use keyward_store::table::hash_of;
use keyward_store::{DbIndex, Keyspace};

use crate::command::table::{self, Row};

/// Requests planned at a time: enough to keep the memory busy, few enough to stay in the first-level cache.
const STRETCH: usize = 32;
/// Fewer requests than this do not overlap enough to pay for the extra passes.
const PREFETCH_MIN: usize = 3;

/// What is known of a request before it is executed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    /// Its row, unless it has subcommands or is unknown.
    pub(super) row: Option<&'static Row>,
    /// Slot and hash of its only key.
    pub(super) key: Option<PlannedKey>,
}

/// See [`Planned::key`].
#[derive(Debug, Clone, Copy)]
pub(super) struct PlannedKey {
    /// Position in the arguments.
    pub(super) at: usize,
    pub(super) slot: Slot,
    pub(super) hash: u64,
}

/// The plan for a stretch of a batch; reused from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    first: usize,
    planned: Vec<Planned>,
}

impl Lookahead {
    /// Begins with a new batch.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// The plan of request number `index`; the requests of a batch are asked for in ascending order.
    #[inline]
    pub(super) fn get(
        &mut self,
        keyspace: &Keyspace,
        db: DbIndex,
        batch: &Batch,
        buffer: &[u8],
        index: usize,
    ) -> Planned {
        if let Some(planned) = self.planned.get(index.wrapping_sub(self.first)) {
            return *planned;
        }
        self.plan(keyspace, db, batch, buffer, index);
        self.planned[0]
    }

    fn plan(&mut self, keyspace: &Keyspace, db: DbIndex, batch: &Batch, buffer: &[u8], first: usize) {
        let end = batch.len().min(first + STRETCH);
        self.first = first;
        self.planned.clear();
        for index in first..end {
            let args = batch.args(buffer, index);
            let row = table::find(args.at(0)).filter(|row| !row.has_subcommands());
            let at = row.and_then(|row| row.single_key());
            let key = at.and_then(|at| Some((at, args.get(at)?))).map(|(at, key)| PlannedKey {
                at,
                slot: Slot::of(key),
                hash: hash_of(key),
            });
            self.planned.push(Planned { row, key });
        }
        if end - first < PREFETCH_MIN {
            return;
        }
        let keys = || self.planned.iter().filter_map(|p| p.key);
        keys().for_each(|key| keyspace.prefetch_bucket(key.slot, key.hash));
        keys().for_each(|key| keyspace.prefetch_entry(key.slot, db, key.hash));
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::resp::{Limits, RequestReader};

    use super::*;

    #[test]
    fn a_plan_names_what_executing_would_find() {
        let mut buffer = Vec::new();
        for i in 0..100 {
            let key = format!("{{tag{}}}{i}", i % 7);
            buffer.extend(format!("*2\r\n$3\r\nGeT\r\n${}\r\n{key}\r\n", key.len()).bytes());
            buffer.extend(
                b"*1\r\n$3\r\nGET\r\nCLIENT ID\r\nnonsense\r\n*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n",
            );
        }
        let mut batch = Batch::default();
        let parsed = RequestReader::default().parse(&buffer, &Limits::default(), 1000, &mut batch);
        assert_eq!((parsed.0, batch.len()), (buffer.len(), 500));
        let (keyspace, mut lookahead) = (Keyspace::default(), Lookahead::default());
        for index in 0..batch.len() {
            let planned = lookahead.get(&keyspace, 0, &batch, &buffer, index);
            let args = batch.args(&buffer, index);
            let row = table::find(args.at(0)).filter(|r| !r.has_subcommands());
            assert_eq!(planned.row, row);
            let key = if index % 5 == 0 { args.get(1) } else { None };
            assert_eq!(
                planned.key.map(|k| (k.at, k.slot, k.hash)),
                key.map(|k| (1, Slot::of(k), hash_of(k)))
            );
        }
    }
}
