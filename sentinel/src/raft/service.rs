//! Receives openraft's messages from the other sentinels.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use keyward_proto::rpc;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use super::Raft;

/// Empty until the sentinel knows that it may take part: see [`crate::bootstrap`].
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
pub struct RaftService {
    pub raft: RaftCell,
}

impl RaftService {
    fn raft(&self) -> Result<&Raft, Status> {
        self.raft.get().ok_or_else(|| Status::unavailable("this sentinel is still starting"))
    }
}

fn decode<T: DeserializeOwned>(request: Request<rpc::RaftMessage>) -> Result<T, Status> {
    serde_json::from_slice(&request.into_inner().payload).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn encode<T: Serialize>(result: &T) -> Result<Response<rpc::RaftMessage>, Status> {
    let payload = serde_json::to_vec(result).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Response::new(rpc::RaftMessage { payload: Bytes::from(payload) }))
}

#[tonic::async_trait]
impl rpc::raft_server::Raft for RaftService {
    async fn append_entries(
        &self,
        request: Request<rpc::RaftMessage>,
    ) -> Result<Response<rpc::RaftMessage>, Status> {
        encode(&self.raft()?.append_entries(decode(request)?).await)
    }

    async fn vote(&self, request: Request<rpc::RaftMessage>) -> Result<Response<rpc::RaftMessage>, Status> {
        encode(&self.raft()?.vote(decode(request)?).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<rpc::RaftMessage>,
    ) -> Result<Response<rpc::RaftMessage>, Status> {
        encode(&self.raft()?.install_snapshot(decode(request)?).await)
    }
}
