//! The recordings of simulated nodes, if they are wanted: of each process when it ends, also by a panic. Kept for each thread.

use std::cell::RefCell;

use keyward_proto::flight::{FORMAT, Header, Recording};
use keyward_proto::ids::NodeId;
use keyward_proto::time::{Monotonic, UnixMillis};
use keyward_replication::recorder::{Record, Recorder};

thread_local! {
    static KEPT: RefCell<Option<Vec<Recording<Record>>>> = const { RefCell::new(None) };
}

/// A new run begins; until [`take`] recordings are kept.
pub(super) fn begin() {
    KEPT.set(Some(Vec::new()));
}

pub(super) fn are_wanted() -> bool {
    KEPT.with_borrow(Option::is_some)
}

/// Of the process of a node that has ended.
pub(super) fn keep(node: &NodeId, recorder: &Recorder) {
    KEPT.with_borrow_mut(|kept| {
        let Some(kept) = kept else { return };
        let header = Header {
            keyward_flight: FORMAT,
            program: "node".to_owned(),
            version: String::new(),
            id: node.to_string(),
            name: node.to_string(),
            // Machines have clocks of their own.
            boot: String::new(),
            at: Monotonic::ZERO,
            // In the order in which processes have ended.
            wall: UnixMillis(i64::try_from(kept.len()).expect("few")),
            why: "simulated".to_owned(),
            dropped: 0,
        };
        kept.push(recorder.recording(header));
    });
}

/// What was kept since the begin.
pub(super) fn take() -> Vec<Recording<Record>> {
    KEPT.take().unwrap_or_default()
}
