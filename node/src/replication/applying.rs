//! What is applied to the keyspace next, and in which order: committed entries, and full syncs.
//!
//! Orders are carried out as they come; entries are read from the log up to the target, which only clearing takes back.
//! What commands have executed is not applied again. Pure but for what the [`Engine`] does: the thread around it is in
//! `applier.rs`, and the simulation's nodes apply with this code, too.

use std::collections::VecDeque;
use std::sync::Arc;

use keyward_proto::entry::frames;
use keyward_proto::ids::LogIndex;
use keyward_replication::core::messages::SnapshotPart;
use keyward_replication::core::received::SlotSet;

use super::shared::{Engine, Shared};

/// Bytes of entries between two reports.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub enum ApplierRequest {
    Clear { epoch: u64 },
    KeepSlots(SlotSet),
    Snapshot(Vec<SnapshotPart>),
    Finish { from: LogIndex, indexes: Arc<[LogIndex]> },
    ForgetSlotIndexes,
}

/// What the keyspace contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub epoch: u64,
    pub index: LogIndex,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Work {
    Request(ApplierRequest),
    /// Entries up to this one.
    Entries(LogIndex),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Applying {
    queue: VecDeque<ApplierRequest>,
    target: LogIndex,
    /// Commands have executed up to here since the last target.
    executed: LogIndex,
    applied: Applied,
}

impl Applying {
    /// The keyspace contains the log up to `applied`.
    pub fn new(applied: LogIndex) -> Applying {
        Applying {
            queue: VecDeque::new(),
            target: applied,
            executed: applied,
            applied: Applied { epoch: 0, index: applied },
        }
    }

    pub fn request(&mut self, request: ApplierRequest) {
        if matches!(request, ApplierRequest::Clear { .. }) {
            self.queue.clear();
            self.target = LogIndex::ZERO;
            self.executed = LogIndex::ZERO;
        }
        self.queue.push_back(request);
    }

    /// Entries up to `index` are committed; those up to `after` were executed here if they were not committed before.
    pub fn apply_up_to(&mut self, after: LogIndex, index: LogIndex) {
        if self.target < after {
            self.executed = after;
        }
        self.target = index;
    }

    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Orders that wait.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// What is to be done next; its result goes to [`Applying::done`].
    pub fn next_work(&mut self) -> Option<Work> {
        self.applied.index = self.applied.index.max(self.executed);
        let request = self.queue.pop_front();
        request.map(Work::Request).or_else(|| self.has_entries().then_some(Work::Entries(self.target)))
    }

    /// False: nothing could be done, because the entries are not in the log any more, and a clearing is on its way.
    pub fn done(&mut self, applied: Applied) -> bool {
        let is_stuck = self.applied == applied && self.queue.is_empty() && self.has_entries();
        self.applied = applied;
        !is_stuck
    }

    fn has_entries(&self) -> bool {
        self.applied.index < self.target
    }
}

impl Work {
    /// Returns what the keyspace contains afterwards.
    ///
    /// # Errors
    /// An entry that cannot be applied, and why: nothing more may be.
    pub fn carry_out(
        self,
        applied: Applied,
        shared: &Shared,
        engine: &dyn Engine,
    ) -> Result<Applied, String> {
        match self {
            Work::Request(request) => carry_out(request, applied, engine),
            Work::Entries(target) => apply_entries(applied, target, shared, engine),
        }
    }
}

fn carry_out(request: ApplierRequest, applied: Applied, engine: &dyn Engine) -> Result<Applied, String> {
    Ok(match request {
        ApplierRequest::Clear { epoch } => {
            engine.set_slot_indexes(None);
            engine.clear();
            Applied { epoch, index: LogIndex::ZERO }
        }
        ApplierRequest::KeepSlots(slots) => {
            engine.keep_slots(&slots);
            applied
        }
        ApplierRequest::Snapshot(parts) => {
            for part in parts.iter().filter(|p| !p.payload.is_empty()) {
                engine.apply_snapshot(part.slot, &part.payload)?;
            }
            applied
        }
        ApplierRequest::Finish { from, indexes } => {
            engine.set_slot_indexes(Some(indexes));
            Applied { index: from, ..applied }
        }
        ApplierRequest::ForgetSlotIndexes => {
            engine.set_slot_indexes(None);
            applied
        }
    })
}

/// Some entries after `applied`, none beyond `target`.
fn apply_entries(
    applied: Applied,
    target: LogIndex,
    shared: &Shared,
    engine: &dyn Engine,
) -> Result<Applied, String> {
    let next = applied.index.next();
    let slice = {
        let mut log = shared.log.lock();
        // A full sync may have reset the log meanwhile; its clearing comes next.
        if log.last().index < next {
            return Ok(applied);
        }
        log.read_from(next, READ_BYTES)
    };
    let Ok(slice) = slice else { return Ok(applied) };
    let mut index = applied.index;
    for payload in frames(&slice.bytes) {
        if index == target {
            break;
        }
        index = index.next();
        engine.apply(index, payload).map_err(|reason| format!("entry {index}: {reason}"))?;
    }
    Ok(Applied { index, ..applied })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(index: u64) -> LogIndex {
        LogIndex::new(index)
    }

    fn next(applying: &mut Applying) -> String {
        match applying.next_work() {
            None => "nothing".to_owned(),
            Some(Work::Request(request)) => format!("{request:?}"),
            Some(Work::Entries(target)) => format!("{} to {target}", applying.applied().index.next()),
        }
    }

    #[test]
    fn what_was_executed_is_not_applied_again() {
        let mut applying = Applying::new(index(10));
        assert_eq!(next(&mut applying), "nothing");
        applying.apply_up_to(index(10), index(12));
        assert_eq!(next(&mut applying), "11 to 12");
        assert!(applying.done(Applied { epoch: 0, index: index(12) }));
        // It was primary up to 20 and is a replica again.
        applying.apply_up_to(index(20), index(25));
        assert_eq!(next(&mut applying), "21 to 25");
        assert!(applying.done(Applied { epoch: 0, index: index(25) }));
        assert_eq!(next(&mut applying), "nothing");
    }

    #[test]
    fn a_clearing_takes_back_what_was_to_be_done() {
        let mut applying = Applying::new(index(10));
        applying.request(ApplierRequest::ForgetSlotIndexes);
        applying.apply_up_to(index(10), index(12));
        applying.request(ApplierRequest::Clear { epoch: 1 });
        assert_eq!(next(&mut applying), "Clear { epoch: 1 }");
        assert!(applying.done(Applied { epoch: 1, index: LogIndex::ZERO }));
        assert_eq!(next(&mut applying), "nothing");
        applying.apply_up_to(LogIndex::ZERO, index(3));
        assert_eq!(next(&mut applying), "1 to 3");
        assert!(!applying.done(Applied { epoch: 1, index: LogIndex::ZERO }), "the log does not have them");
    }
}
