//! The report that all viewers of the page see: made about once a second, and at once when something has happened, as long
//! as somebody looks on.
//!
//! It is what the leader has heard in its own rounds of questions; this sentinel asks the leader for it once, for all its
//! viewers. Somebody who is slow misses reports; they are not kept for him.
#![allow(clippy::disallowed_methods, reason = "shell: waits with deadlines")]

use std::time::Duration;

use axum::body::Bytes;
use keyward_net::clock::monotonic as now;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::time::Monotonic;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};

use crate::rules::pace::pace;
use crate::shell::control::admin;
use crate::shell::sentinel::Sentinel;

/// If the leader has not answered by then, this sentinel says what it knows.
const LEADER_LIMIT: Duration = Duration::from_millis(700);
/// For somebody who wants the first report.
const FIRST_LIMIT: Duration = Duration::from_secs(3);
/// So long after the last question for one report they are made.
const WANTED_FOR: Duration = Duration::from_secs(5);

const BEFORE: &[u8] = b"event: status\ndata: ";
const AFTER: &[u8] = b"\n\n";

/// A report.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// As an event; the JSON in it has no line breaks.
    frame: Bytes,
}

impl Snapshot {
    fn new(json: &[u8]) -> Snapshot {
        Snapshot { frame: [BEFORE, json, AFTER].concat().into() }
    }

    pub(super) fn json(&self) -> Bytes {
        self.frame.slice(BEFORE.len()..self.frame.len() - AFTER.len())
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// `None` while nobody looks on.
    latest: watch::Sender<Option<Snapshot>>,
    /// When somebody last asked for one. Held for a line.
    wanted_at: Mutex<Option<Monotonic>>,
    wanted: Notify,
}

impl Snapshots {
    /// Makes them for ever.
    pub(super) async fn refresh(&self, sentinel: &Sentinel) {
        let (mut topology, mut remembered) = (sentinel.topology.clone(), sentinel.remembered.subscribe());
        loop {
            if !self.is_watched() {
                self.latest.send_replace(None);
                self.wanted.notified().await;
            }
            topology.mark_unchanged();
            remembered.mark_unchanged();
            let json = report(sentinel).await;
            self.latest.send_replace(Some(Snapshot::new(&json)));
            let pace = pace(json.len());
            sleep(pace.least).await;
            tokio::select! {
                () = sleep(pace.usual) => {}
                changed = topology.changed() => if changed.is_err() { return },
                changed = remembered.changed() => if changed.is_err() { return },
            }
        }
    }

    fn is_watched(&self) -> bool {
        let wanted_at = *self.wanted_at.lock();
        0 < self.latest.receiver_count() || wanted_at.is_some_and(|at| now().since(at) < WANTED_FOR)
    }

    /// One, as soon as there is one.
    pub(super) async fn latest(&self) -> Option<Snapshot> {
        *self.wanted_at.lock() = Some(now());
        self.wanted.notify_one();
        let mut latest = self.latest.subscribe();
        let found = timeout(FIRST_LIMIT, latest.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// One after the other, as events, beginning with the latest.
    pub(super) fn frames(&self) -> impl Stream<Item = Bytes> + use<> {
        let latest = self.latest.subscribe();
        self.wanted.notify_one();
        WatchStream::new(latest).filter_map(|snapshot| Some(snapshot?.frame))
    }
}

/// The leader's words; if it does not say anything, those of this sentinel.
async fn report(sentinel: &Sentinel) -> Bytes {
    let command = Command::Status(rpc::StatusCommand { recent: true });
    match admin::at_leader(sentinel, command, LEADER_LIMIT).await.map(|reply| reply.outcome) {
        Ok(Some(Outcome::Status(json))) => json,
        Ok(_) | Err(_) => admin::recent_status(sentinel).json().into(),
    }
}
