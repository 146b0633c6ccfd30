//! Sends openraft's messages to another sentinel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_net::bus::Bus;
use keyward_net::reach::Reach;
use keyward_proto::format::{self, FORMAT};
use keyward_proto::rpc::RaftMessage;
use keyward_proto::rpc::raft_client::RaftClient;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::transport::Channel;

use super::bounds::{self, Says};
use super::{RaftId, TypeConfig};
use crate::config::Founder;
use crate::rules::founding::address;
use crate::shell::channel;

/// What the others are called in the log.
const WHO: &str = "another sentinel";
/// A snapshot chunk or a batch of entries fits with room to spare.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Makes the clients. Addresses given at start win over those in the log: they may have changed since.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub bus: Bus,
    pub founders: Arc<Vec<Founder>>,
    /// To say what another sentinel is refused for.
    pub reach: Arc<Reach>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: RaftId, node: &BasicNode) -> Peer {
        let address = address(&node.addr, &self.founders);
        let reach = Arc::clone(&self.reach);
        Peer {
            target,
            client: channel::endpoint(&address).map(|e| client(self.bus.connect_lazy(&e))),
            address,
            reach,
        }
    }
}

fn client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// One other sentinel. The channel reconnects, and resolves the name anew, whenever it has to.
#[derive(Debug)]
pub(crate) struct Peer {
    target: RaftId,
    address: String,
    client: Option<RaftClient<Channel>>,
    reach: Arc<Reach>,
}

type Failure<E> = RPCError<RaftId, BasicNode, RaftError<RaftId, E>>;

#[derive(Debug, Clone, Copy)]
enum Method {
    AppendEntries,
    Vote,
    InstallSnapshot,
}

impl Peer {
    async fn call<Request, Response, E>(
        &self,
        method: Method,
        own_term: u64,
        request: Request,
    ) -> Result<Response, Failure<E>>
    where
        Request: Serialize,
        Response: DeserializeOwned + Says,
        E: std::error::Error + DeserializeOwned,
    {
        let Some(mut client) = self.client.clone() else {
            let reason = io::Error::other(format!("{} is not an address", self.address));
            return Err(RPCError::Unreachable(Unreachable::new(&reason)));
        };
        let payload = serde_json::to_vec(&request).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        let message = RaftMessage { payload: Bytes::from(payload), target: self.target, format: FORMAT };
        let reply = match method {
            Method::AppendEntries => client.append_entries(message).await,
            Method::Vote => client.vote(message).await,
            Method::InstallSnapshot => client.install_snapshot(message).await,
        };
        let reply = reply.and_then(|reply| understood(reply.into_inner()));
        let payload = reply.map_err(|status| {
            if status.code() == tonic::Code::FailedPrecondition {
                self.reach.failed(WHO, &self.address, Some(status.clone()));
            }
            match status.code() {
                tonic::Code::Unavailable => RPCError::Unreachable(Unreachable::new(&status)),
                _ => RPCError::Network(NetworkError::new(&status)),
            }
        })?;
        let result: Result<Response, RaftError<RaftId, E>> = serde_json::from_slice(&payload)
            .map_err(|e| RPCError::Network(NetworkError::from(AnyError::new(&e))))?;
        let answer = result.map_err(|e| RPCError::RemoteError(RemoteError::new(self.target, e)))?;
        let said = bounds::check_term(own_term, answer.term().unwrap_or_default());
        said.map_err(|words| RPCError::Network(NetworkError::from(AnyError::error(words))))?;
        Ok(answer)
    }
}

/// What another sentinel says, if its format is one that this program knows.
///
/// # Errors
/// It is not, in words for both logs.
pub(super) fn understood(message: RaftMessage) -> Result<Bytes, Status> {
    let agreed = format::agree(message.format);
    agreed.map(|_| message.payload).map_err(|foreign| Status::failed_precondition(foreign.to_string()))
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, RPCError<RaftId, BasicNode, RaftError<RaftId>>> {
        self.call(Method::AppendEntries, request.vote.leader_id.term, request).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<RaftId>, Failure<InstallSnapshotError>> {
        self.call(Method::InstallSnapshot, request.vote.leader_id.term, request).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<RaftId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, RPCError<RaftId, BasicNode, RaftError<RaftId>>> {
        self.call(Method::Vote, request.vote.leader_id.term, request).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}
