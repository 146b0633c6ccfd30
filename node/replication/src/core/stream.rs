//! What a primary sends over one replica's stream, and when.
//!
//! Entries leave at once; a commit index that moved leaves with the next entries, or alone if there are none; and a
//! beacon leaves when nothing else did for an interval. Every message carries the time of its sending, which its
//! acknowledgement turns into a lease, and for how long the replica has not been heard: see `contact.rs`. Large entries
//! leave in parts, for the same reason: see `assembly.rs`.

use std::time::Duration;

use keyward_proto::ids::{LogIndex, Term};
use keyward_proto::mutation::{self, Mutation};
use keyward_proto::time::Monotonic;

use super::messages::Append;
use crate::log::{Slice, Trimmed, WriteLog};

/// While entries are on their way a commit index travels alone only if nothing was sent for so long: under load it leaves
/// with the next ones.
const COMMIT_DELAY: Duration = Duration::from_millis(1);
/// Entries of one message, at most.
pub const APPEND_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub struct LogStream {
    term: Term,
    next: LogIndex,
    /// Entries that were begun to be sent, without what was sent of them.
    rest: Option<Slice>,
    beacon: Duration,
    append_bytes: usize,
    commit_sent: LogIndex,
    sent_at: Monotonic,
    /// When the replica was last heard, if that is known.
    heard_at: Option<Monotonic>,
    /// Asked for with each message.
    lease: Duration,
}

impl LogStream {
    /// Sends what follows `after`, in messages with up to `append_bytes` of entries.
    pub fn new(term: Term, after: LogIndex, beacon: Duration, append_bytes: usize) -> Self {
        LogStream {
            term,
            next: after.next(),
            rest: None,
            beacon,
            append_bytes,
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
        if let Some(part) = self.next_part(now, commit) {
            return Ok(Some(part));
        }
        let slice = log.read_from(self.next, self.append_bytes.min(APPEND_BYTES))?;
        if slice.count == 0 && now < self.wake_at(commit) {
            return Ok(None);
        }
        Ok(Some(self.append(now, slice, commit)))
    }

    /// The message with more of the entries that were begun, if some were.
    pub fn next_part(&mut self, now: Monotonic, commit: LogIndex) -> Option<Append> {
        let rest = self.rest.take()?;
        Some(self.part(now, rest, commit))
    }

    /// The message with these entries, or the first part of them. They follow those that were sent.
    pub fn append(&mut self, now: Monotonic, slice: Slice, commit: LogIndex) -> Append {
        assert_eq!(slice.previous.index, self.sent(), "entries follow those that were sent");
        let last = slice.last();
        assert!(last.term <= self.term, "entries of a later term in the name of term {}", self.term);
        assert!(self.rest.is_none(), "entries that were begun come first");
        self.part(now, slice, commit)
    }

    fn part(&mut self, now: Monotonic, mut slice: Slice, commit: LogIndex) -> Append {
        let is_whole = slice.bytes.len() <= self.append_bytes || mutation::is_on(Mutation::LargeEntriesInOne);
        let length = if is_whole { slice.bytes.len() } else { self.append_bytes };
        let entries = slice.bytes.split_to(length);
        let Slice { previous, term, count, .. } = slice;
        let rest_bytes = slice.bytes.len() as u64;
        if slice.bytes.is_empty() {
            self.next = slice.last().index.next();
        } else {
            self.rest = Some(slice);
        }
        self.commit_sent = self.commit_sent.max(commit);
        self.sent_at = now;
        Append {
            term: self.term,
            previous,
            entries_term: term,
            count,
            entries,
            rest_bytes,
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

    /// When a message is due though there are no entries. A commit index that is all there is to say is said at once: who
    /// has the reply to a write may read from the replica next. As long as entries are on their way another one follows.
    pub fn wake_at(&self, commit: LogIndex) -> Monotonic {
        match commit > self.commit_sent {
            true if self.sent() <= commit => self.sent_at,
            true => self.sent_at + COMMIT_DELAY,
            false => self.sent_at + self.beacon,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::assembly::Assembly;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn large_entries_leave_in_parts_each_of_which_is_a_beacon() {
        let term = Term::new(1);
        let mut log = WriteLog::new(1 << 20);
        log.append(term, b"small");
        log.append(term, &[7; 1000]);
        log.append(term, b"small again");
        let mut stream = LogStream::new(term, LogIndex::ZERO, Duration::from_millis(10), 300);
        let (mut assembly, mut received, mut sent) =
            (Assembly::default(), WriteLog::new(1 << 20), Vec::new());
        for ms in 1..=6 {
            let next = stream.next_append(at(ms), &mut log, LogIndex::new(ms)).unwrap();
            let mut append = next.expect("there is more");
            assert_eq!((append.sent_at, append.commit), (at(ms), LogIndex::new(ms)));
            assert!(append.entries.len() <= 300);
            sent.push((append.rest_bytes, stream.sent().get()));
            assembly.take_in(&mut append).unwrap();
            let Append { entries_term, previous, count, entries, .. } = append;
            received.append_received(entries_term, previous, count, entries).unwrap();
        }
        assert_eq!(sent, [(0, 1), (704, 1), (404, 1), (104, 1), (0, 2), (0, 3)]);
        assert_eq!(received.last(), log.last());
        let all = |log: &mut WriteLog| log.read_from(LogIndex::new(2), 1 << 20).unwrap();
        assert_eq!(all(&mut received).bytes, all(&mut log).bytes);
    }
}
