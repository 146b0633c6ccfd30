//! What a primary sends over one replica's stream, and when.
//!
//! Entries leave at once; a commit index that moved leaves with the next entries, or alone if there are none; and a
//! beacon leaves when nothing else did for an interval. Every message carries the time of its sending, which its
//! acknowledgement turns into a lease, and for how long the replica has not been heard: see `contact.rs`.

use std::time::Duration;

use keyward_proto::ids::{LogIndex, Term};
use keyward_proto::time::Monotonic;

use super::messages::Append;
use crate::log::{Slice, Trimmed, WriteLog};

/// A commit index travels alone only if nothing was sent for so long: under load it leaves with the next entries.
const COMMIT_DELAY: Duration = Duration::from_millis(1);
/// Entries of one message, about.
const APPEND_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub struct LogStream {
    term: Term,
    next: LogIndex,
    beacon: Duration,
    commit_sent: LogIndex,
    sent_at: Monotonic,
    /// When the replica was last heard, if that is known.
    heard_at: Option<Monotonic>,
    /// Asked for with each message.
    lease: Duration,
}

impl LogStream {
    /// Sends what follows `after`.
    pub fn new(term: Term, after: LogIndex, beacon: Duration) -> Self {
        LogStream {
            term,
            next: after.next(),
            beacon,
            commit_sent: LogIndex::ZERO,
            sent_at: Monotonic::ZERO,
            heard_at: None,
            lease: Duration::ZERO,
        }
    }

    /// An acknowledgement of the replica was received at this moment.
    pub fn heard(&mut self, at: Monotonic) {
        self.heard_at = Some(at);
    }

    /// Between two messages at most.
    pub fn beacon(&self) -> Duration {
        self.beacon
    }

    /// From now on leases of this length are asked for.
    pub fn ask_for_lease(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// The next message with entries, or one that is due without; `None` if nothing is due.
    pub fn next_append(
        &mut self,
        now: Monotonic,
        log: &mut WriteLog,
        commit: LogIndex,
    ) -> Result<Option<Append>, Trimmed> {
        let slice = log.read_from(self.next, APPEND_BYTES)?;
        if slice.count == 0 && now < self.wake_at(commit) {
            return Ok(None);
        }
        Ok(Some(self.append(now, slice, commit)))
    }

    /// The message with these entries, which follow those that were sent.
    pub fn append(&mut self, now: Monotonic, slice: Slice, commit: LogIndex) -> Append {
        assert_eq!(slice.previous.index, self.sent(), "entries follow those that were sent");
        let last = slice.last();
        assert!(last.term <= self.term, "entries of a later term in the name of term {}", self.term);
        self.next = last.index.next();
        self.commit_sent = self.commit_sent.max(commit);
        self.sent_at = now;
        Append {
            term: self.term,
            previous: slice.previous,
            entries_term: slice.term,
            count: slice.count,
            entries: slice.bytes,
            commit,
            sent_at: now,
            unheard: self.heard_at.map_or(Duration::ZERO, |at| now.since(at)),
            lease: self.lease,
        }
    }

    /// Everything up to here has been sent.
    pub fn sent(&self) -> LogIndex {
        LogIndex::new(self.next.get() - 1)
    }

    /// When a message is due though there are no entries.
    pub fn wake_at(&self, commit: LogIndex) -> Monotonic {
        self.sent_at + if commit > self.commit_sent { COMMIT_DELAY } else { self.beacon }
    }
}
