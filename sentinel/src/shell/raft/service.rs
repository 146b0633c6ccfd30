//! Receives openraft's messages from the other sentinels.
//!
//! A sentinel that lost its directory comes back at its old address under a new ID, while the group may still send to
//! the old one. What it answered in that one's name would count as that one's vote and that one's log, which it has
//! not: so messages for another ID are refused.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use keyward_proto::format::FORMAT;
use keyward_proto::rpc;
use openraft::Vote;
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use super::bounds::{self, Incoming};
use super::network::understood;
use super::{Raft, RaftId, TypeConfig};

/// Empty until the sentinel knows that it may take part: see [`crate::shell::bootstrap`].
#[derive(Clone, Default)]
pub struct RaftCell(Arc<OnceLock<Raft>>);

impl RaftCell {
    pub fn get(&self) -> Option<&Raft> {
        self.0.get()
    }

    /// Keeps the first that is given.
    pub fn set(&self, raft: Raft) {
        self.0.get_or_init(|| raft);
    }
}

impl fmt::Debug for RaftCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftCell").field("started", &self.0.get().is_some()).finish()
    }
}

/// The gRPC service `Raft`.
#[derive(Debug, Clone)]
pub(crate) struct RaftService {
    raft: RaftCell,
    /// Held while a part is looked at.
    incoming: Arc<Mutex<Incoming>>,
}

impl RaftService {
    pub(crate) fn new(raft: RaftCell) -> RaftService {
        RaftService { raft, incoming: Arc::default() }
    }

    /// The group's member, if the message is for it, and what it says.
    fn open<T: DeserializeOwned>(&self, request: Request<rpc::RaftMessage>) -> Result<(&Raft, T), Status> {
        let message = request.into_inner();
        let raft = self.raft.get().ok_or_else(|| Status::unavailable("this sentinel is still starting"))?;
        let own = raft.metrics().borrow().id;
        if message.target != own {
            return Err(Status::unavailable(format!("this is sentinel {own}, not {}", message.target)));
        }
        let decoded = serde_json::from_slice(&understood(message)?);
        decoded.map(|message| (raft, message)).map_err(|e| Status::invalid_argument(e.to_string()))
    }
}

fn check_term(raft: &Raft, vote: &Vote<RaftId>) -> Result<(), Status> {
    let own = raft.metrics().borrow().current_term;
    bounds::check_term(own, vote.leader_id.term).map_err(Status::invalid_argument)
}

fn encode<T: Serialize>(result: &T) -> Result<Response<rpc::RaftMessage>, Status> {
    let payload = serde_json::to_vec(result).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Response::new(rpc::RaftMessage { payload: Bytes::from(payload), target: 0, format: FORMAT }))
}

#[tonic::async_trait]
impl rpc::raft_server::Raft for RaftService {
    async fn append_entries(
        &self,
        request: Request<rpc::RaftMessage>,
    ) -> Result<Response<rpc::RaftMessage>, Status> {
        let (raft, request): (_, AppendEntriesRequest<TypeConfig>) = self.open(request)?;
        check_term(raft, &request.vote)?;
        encode(&raft.append_entries(request).await)
    }

    async fn vote(&self, request: Request<rpc::RaftMessage>) -> Result<Response<rpc::RaftMessage>, Status> {
        let (raft, request): (_, VoteRequest<RaftId>) = self.open(request)?;
        check_term(raft, &request.vote)?;
        encode(&raft.vote(request).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<rpc::RaftMessage>,
    ) -> Result<Response<rpc::RaftMessage>, Status> {
        let (raft, request): (_, InstallSnapshotRequest<TypeConfig>) = self.open(request)?;
        check_term(raft, &request.vote)?;
        self.incoming.lock().add(&request).map_err(Status::invalid_argument)?;
        encode(&raft.install_snapshot(request).await)
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::rpc::{Message, RaftMessage};

    use super::*;

    /// What a sentinel of format 2 has sent.
    const VOTE: &[u8] = include_bytes!("../../../../proto/testdata/format_2/raft_vote.bin");

    #[test]
    fn the_format_before_is_understood_and_one_that_is_too_new_refused_in_words() {
        let vote = RaftMessage::decode(VOTE).unwrap();
        assert_eq!((vote.target, vote.format), (7, 2));
        let payload = understood(vote.clone()).unwrap();
        let request: openraft::raft::VoteRequest<u64> = serde_json::from_slice(&payload).unwrap();
        assert_eq!(request.vote.leader_id.term, 3);
        // To a program of that format it is the same message, but for the number.
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(RaftMessage { payload: again.into(), ..vote.clone() }.encode_to_vec(), VOTE);
        let refused = understood(RaftMessage { format: FORMAT + 2, ..vote }).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        let words = format!("it is of format {} and this program of format {FORMAT}", FORMAT + 2);
        assert!(refused.message().starts_with(&words), "{refused}");
    }
}
