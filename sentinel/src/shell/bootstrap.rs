//! Brings this sentinel into its Raft group: the shell of [`crate::rules::founding`].
#![allow(clippy::disallowed_methods, reason = "shell: asks the other sentinels until they answer")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::topology::names::host_port;
use openraft::BasicNode;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tracing::{debug, info};

use crate::config::Founder;
use crate::rules::admin::{done, presence, request};
use crate::rules::founding::{Newcomer, Presence, Step, raft_id};
use crate::shell::raft::network::Network;
use crate::shell::raft::store::{StateMachine, Store};
use crate::shell::raft::{self, Raft, RaftId};
use crate::shell::sentinel::Sentinel;

const KEY: &str = "identity";
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// The leader answers when the newcomer has the log and votes.
const JOIN_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Kept in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    id: RaftId,
    name: String,
}

/// Why the sentinel cannot take part; one line.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("the directory belongs to sentinel {stored}, not {given}")]
    OtherName { stored: String, given: String },
    #[error("the store failed: {0}")]
    Store(String),
    #[error("Raft failed: {0}")]
    Raft(String),
}

/// Starts Raft under the directory's ID, and has this sentinel become a voter.
///
/// # Errors
/// [`BootstrapError`]
pub(crate) async fn start_raft(
    sentinel: &Arc<Sentinel>,
    store: Store,
    machine: StateMachine,
) -> Result<(), BootstrapError> {
    let identity = identity(&sentinel.config.options.name, &store)?;
    let fatal = |e: &dyn Display| BootstrapError::Raft(e.to_string());
    let config = Arc::new(raft::config().validate().map_err(|e| fatal(&e))?);
    let founders = Arc::new(sentinel.config.founders.clone());
    let network = Network { bus: sentinel.bus.clone(), founders, reach: Arc::clone(&sentinel.reach) };
    let raft = Raft::new(identity.id, config, network, store, machine).await.map_err(|e| fatal(&e))?;
    sentinel.id.get_or_init(|| identity.id);
    sentinel.raft.set(raft);
    info!(id = identity.id, "the sentinel {} takes part", identity.name);
    let sentinel = sentinel.clone();
    tokio::spawn(async move { become_voter(&sentinel).await });
    Ok(())
}

fn identity(given: &str, store: &Store) -> Result<Stored, BootstrapError> {
    let failed = |e: &dyn Display| BootstrapError::Store(e.to_string());
    match store.read::<Stored>(KEY).map_err(|e| failed(&e))? {
        Some(stored) if stored.name != given => {
            Err(BootstrapError::OtherName { stored: stored.name, given: given.to_owned() })
        }
        Some(stored) => Ok(stored),
        None => {
            let identity = Stored { id: raft_id(rand::random()), name: given.to_owned() };
            store.write(KEY, &identity).map_err(|e| failed(&e))?;
            Ok(identity)
        }
    }
}

/// Ends when it is one.
async fn become_voter(sentinel: &Sentinel) {
    let newcomer = Newcomer {
        name: &sentinel.config.options.name,
        id: sentinel.id(),
        founders: &sentinel.config.founders,
    };
    let mut told = String::new();
    loop {
        let waits = match step(sentinel, &newcomer).await {
            Ok(Step::Done) => return,
            Ok(Step::Found(members)) => found(sentinel, members).await.err(),
            Ok(Step::Join { through }) => join(sentinel, &through).await.err(),
            Ok(Step::Wait(reason)) => Some(reason),
            Err(status) => Some(status.message().to_owned()),
        };
        if let Some(reason) = waits
            && reason != told
        {
            info!("this sentinel does not vote yet: {reason}");
            told = reason;
        }
        sleep(PAUSE).await;
    }
}

async fn step(sentinel: &Sentinel, newcomer: &Newcomer<'_>) -> Result<Step, Status> {
    let others = newcomer.founders.iter().filter(|f| f.name != newcomer.name);
    let answers = join_all(others.map(|f| ask(sentinel, f))).await.into_iter().flatten().collect();
    // Looked at last: what it is now, and not before it asked.
    let (holds, members) = sentinel.group().await?;
    Ok(newcomer.step(members.standing(newcomer.id, holds), &answers))
}

async fn found(sentinel: &Sentinel, members: BTreeMap<RaftId, String>) -> Result<(), String> {
    info!("all of --initial have answered, and none is in a group: this sentinel founds one");
    let nodes: BTreeMap<RaftId, BasicNode> =
        members.into_iter().map(|(id, member)| (id, BasicNode::new(member))).collect();
    let raft = sentinel.raft().map_err(|status| status.message().to_owned())?;
    raft.initialize(nodes).await.map_err(|e| e.to_string())
}

async fn ask(sentinel: &Sentinel, founder: &Founder) -> Option<(String, Presence)> {
    let who = &format!("the sentinel {}", founder.name);
    let address = host_port(&founder.host, founder.bus_port);
    let failed = |status| sentinel.reach.failed(who, &address, status);
    let Some(mut client) = sentinel.control_client(&address) else {
        failed(None);
        return None;
    };
    match timeout(ANSWER_LIMIT, client.admin(request(Command::Identity(rpc::IdentityCommand {})))).await {
        Ok(Ok(reply)) => {
            sentinel.reach.answered(who, &address);
            Some((founder.name.clone(), presence(reply.into_inner())?))
        }
        Ok(Err(status)) => {
            failed(Some(status));
            None
        }
        Err(_) => {
            failed(None);
            None
        }
    }
}

/// Asks the leader, through the first that passes it on.
async fn join(sentinel: &Sentinel, through: &[String]) -> Result<(), String> {
    let own = sentinel.own_address();
    let address = host_port(&own.host, own.bus_port);
    let command = rpc::JoinCommand { name: own.name, address, sentinel_id: sentinel.id() };
    let mut reason = String::new();
    for founder in sentinel.config.founders.iter().filter(|f| through.contains(&f.name)) {
        let Some(mut client) = sentinel.control_client(&host_port(&founder.host, founder.bus_port)) else {
            continue;
        };
        let join = client.admin(request(Command::Join(command.clone())));
        reason = match timeout(JOIN_LIMIT, join).await {
            Ok(Ok(reply)) => return done(reply.into_inner()).map(|_| debug!("taken in by the group")),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "the group's leader does not answer".into(),
        };
    }
    Err(reason)
}
