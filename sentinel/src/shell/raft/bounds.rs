//! What another sentinel may say to Raft, which takes its members' words for true: pure.
//!
//! A snapshot that cannot be read would end Raft here, and with it the sentinel; a term out of all proportion would use up
//! the numbers for all. Both are refused before Raft sees them.

use openraft::raft::{AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteResponse};

use super::state::State;
use super::{RaftId, TypeConfig};

/// Terms rise by one with each election. One that is this much higher is of a broken or hostile program, and the group
/// could never go beyond the highest number that there is.
const TERM_LEAP_MAX: u64 = 1 << 32;
/// Twenty thousand nodes take a quarter of it.
const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// # Errors
/// In words, if `theirs` cannot be where `own` is.
pub(super) fn check_term(own: u64, theirs: u64) -> Result<(), String> {
    if own.saturating_add(TERM_LEAP_MAX) < theirs {
        return Err(format!("term {theirs} cannot follow {own}"));
    }
    Ok(())
}

/// An answer that names a term.
pub(super) trait Says {
    fn term(&self) -> Option<u64>;
}

impl Says for AppendEntriesResponse<RaftId> {
    fn term(&self) -> Option<u64> {
        match self {
            AppendEntriesResponse::HigherVote(vote) => Some(vote.leader_id.term),
            _ => None,
        }
    }
}

impl Says for VoteResponse<RaftId> {
    fn term(&self) -> Option<u64> {
        let last = self.last_log_id.map(|last| last.leader_id.term);
        Some(self.vote.leader_id.term).max(last)
    }
}

impl Says for InstallSnapshotResponse<RaftId> {
    fn term(&self) -> Option<u64> {
        Some(self.vote.leader_id.term)
    }
}

/// A snapshot as it comes in parts, by the same rule as Raft puts them together: what does not continue is Raft's to refuse.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    id: String,
    bytes: Vec<u8>,
}

impl Incoming {
    /// # Errors
    /// In words, if it is complete with this part and is no snapshot of a sentinel, or is too large.
    pub(super) fn add(&mut self, part: &InstallSnapshotRequest<TypeConfig>) -> Result<(), String> {
        if part.offset == 0 {
            *self = Incoming { id: part.meta.snapshot_id.clone(), bytes: Vec::new() };
        }
        if self.id != part.meta.snapshot_id || self.bytes.len() as u64 != part.offset {
            return Ok(());
        }
        if SNAPSHOT_BYTES_MAX < self.bytes.len() + part.data.len() {
            *self = Incoming::default();
            return Err(format!("a snapshot of more than {} MB", SNAPSHOT_BYTES_MAX >> 20));
        }
        self.bytes.extend_from_slice(&part.data);
        if !part.done {
            return Ok(());
        }
        let whole = std::mem::take(self);
        let state: State =
            serde_json::from_slice(&whole.bytes).map_err(|error| format!("no snapshot: {error}"))?;
        let (meta, term) = (&part.meta, part.vote.leader_id.term);
        if state.last_applied != meta.last_log_id || state.membership != meta.last_membership {
            return Err("the snapshot is not what it is said to be".to_owned());
        }
        if meta.last_log_id.is_some_and(|last| term < last.leader_id.term) {
            return Err("the snapshot is of a later term than its sender".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, LogId, Vote};

    use super::*;

    fn state() -> State {
        let last = LogId::new(CommittedLeaderId::new(2, 7), 40);
        State { last_applied: Some(last), ..State::default() }
    }

    fn part(offset: usize, data: &[u8], done: bool) -> InstallSnapshotRequest<TypeConfig> {
        InstallSnapshotRequest {
            vote: Vote::new_committed(3, 7),
            meta: state().meta(),
            offset: offset as u64,
            data: data.to_vec(),
            done,
        }
    }

    #[test]
    fn a_snapshot_is_looked_at_when_it_is_complete() {
        let bytes = serde_json::to_vec(&state()).unwrap();
        let mut incoming = Incoming::default();
        incoming.add(&part(0, &bytes[..10], false)).unwrap();
        incoming.add(&part(10, &bytes[10..], true)).unwrap();
        assert!(incoming.bytes.is_empty());
        // One that begins anew, and parts that do not continue it, which Raft refuses.
        incoming.add(&part(0, &bytes[..10], false)).unwrap();
        incoming.add(&part(0, &bytes[..20], false)).unwrap();
        incoming.add(&part(10, b"x", true)).unwrap();
        incoming.add(&part(20, &bytes[20..], true)).unwrap();
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let bytes = serde_json::to_vec(&state()).unwrap();
        let refused = |parts: &[InstallSnapshotRequest<TypeConfig>]| {
            let mut incoming = Incoming::default();
            parts.iter().find_map(|part| incoming.add(part).err()).unwrap()
        };
        assert!(refused(&[part(0, b"garbage", true)]).starts_with("no snapshot: "));
        assert!(
            refused(&[part(0, &bytes[..9], false), part(9, b"garbage", true)]).starts_with("no snapshot: ")
        );
        // Also if something that Raft refuses comes between.
        let parts = [part(0, &bytes[..9], false), part(5, b"x", false), part(9, b"garbage", true)];
        assert!(refused(&parts).starts_with("no snapshot: "));
        let other = serde_json::to_vec(&State::default()).unwrap();
        assert_eq!(refused(&[part(0, &other, true)]), "the snapshot is not what it is said to be");
        let late = InstallSnapshotRequest { vote: Vote::new_committed(1, 7), ..part(0, &bytes, true) };
        assert_eq!(refused(&[late]), "the snapshot is of a later term than its sender");
        let large = vec![b' '; SNAPSHOT_BYTES_MAX / 2 + 1];
        let parts = [part(0, &large, false), part(large.len(), &large, false)];
        assert_eq!(refused(&parts), "a snapshot of more than 64 MB");
    }

    #[test]
    fn terms_do_not_leap() {
        check_term(3, 3 + TERM_LEAP_MAX).unwrap();
        check_term(u64::MAX, 3).unwrap();
        let words = check_term(3, u64::MAX).unwrap_err();
        assert_eq!(words, "term 18446744073709551615 cannot follow 3");
        let last_log_id = Some(LogId::new(CommittedLeaderId::new(9, 1), 1));
        let answer = VoteResponse { vote: Vote::new(4, 1), vote_granted: false, last_log_id };
        assert_eq!(answer.term(), Some(9));
        assert_eq!(AppendEntriesResponse::<RaftId>::HigherVote(Vote::new(5, 1)).term(), Some(5));
        assert_eq!(AppendEntriesResponse::<RaftId>::Success.term(), None);
    }
}
