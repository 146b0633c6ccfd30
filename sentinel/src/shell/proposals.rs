//! Commands on their way into the Raft log: whatever is waiting when the last entry is done goes into the next one.
//!
//! So the number of entries depends on how long Raft takes for one, and not on how many shards fail or how many nodes
//! start together. Bounded: [`WAITING_MAX`] commands wait, further ones wait for their place; an entry carries
//! [`BATCH_MAX`].
#![allow(clippy::disallowed_methods, reason = "shell: waits with a deadline")]

use std::sync::Arc;

use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::Status;

use crate::rules::coordinator::PROPOSAL_LIMIT;
use crate::rules::topology::{Batch, Outcome, Refusal, TopologyCommand};
use crate::shell::sentinel::Sentinel;

/// Commands in one entry at most.
pub const BATCH_MAX: usize = 1024;
/// Commands that may wait.
pub(crate) const WAITING_MAX: usize = 4096;

/// What became of a command; the outer error says that this is unknown.
pub type Answer = Result<Result<Outcome, Refusal>, Status>;

#[derive(Debug)]
pub struct Proposal {
    command: TopologyCommand,
    reply: oneshot::Sender<Answer>,
}

impl Proposal {
    pub fn new(command: TopologyCommand) -> (Proposal, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Proposal { command, reply }, answer)
    }
}

/// Writes one entry after another, until nobody can propose any more.
pub async fn commit(sentinel: Arc<Sentinel>, mut waiting: mpsc::Receiver<Proposal>) {
    let mut proposals = Vec::new();
    while 0 < waiting.recv_many(&mut proposals, BATCH_MAX).await {
        // Those who have given up will try again.
        proposals.retain(|p| !p.reply.is_closed());
        let (commands, replies): (Vec<_>, Vec<_>) = proposals.drain(..).map(|p| (p.command, p.reply)).unzip();
        if commands.is_empty() {
            continue;
        }
        let mut results = write(&sentinel, Batch { commands }).await.map(Vec::into_iter);
        for reply in replies {
            let result = match &mut results {
                Ok(results) => results.next().ok_or_else(|| Status::internal("a command got no result")),
                Err(status) => Err(status.clone()),
            };
            // Whoever asked may have given up meanwhile.
            drop(reply.send(result));
        }
    }
}

async fn write(sentinel: &Sentinel, batch: Batch) -> Result<Vec<Result<Outcome, Refusal>>, Status> {
    match timeout(PROPOSAL_LIMIT, sentinel.raft()?.client_write(batch)).await {
        Ok(Ok(response)) => Ok(response.data.results),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Err(Status::unavailable("this sentinel is not the leader"))
        }
        Ok(Err(e)) => Err(Status::internal(e.to_string())),
        Err(_) => Err(Status::unavailable("no majority of the sentinels answers")),
    }
}
