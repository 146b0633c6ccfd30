//! Who this sentinel is in the Raft group, decided once and then kept in its directory.
//!
//! A founder's Raft ID is its position in `--initial`. A sentinel whose directory is empty may be a founder at the
//! first start, or one that lost its disk: the latter must not vote again under its old ID, because it no longer
//! knows what it promised. So an empty one first asks the others, and needs a majority of the group (itself
//! included) that is just as fresh, or a group with a leader that has never heard of it. If the group knows its
//! name, it joins under a new ID and takes the old one's place.
#![allow(clippy::disallowed_methods, reason = "shell: asks the other sentinels until they answer")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyward_proto::rpc;
use keyward_proto::rpc::admin_reply::Outcome;
use keyward_proto::rpc::admin_request::Command;
use keyward_proto::topology::names::host_port;
use openraft::BasicNode;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::config::Founder;
use crate::shell::control::admin;
use crate::shell::raft::network::Network;
use crate::shell::raft::store::{StateMachine, Store};
use crate::shell::raft::{self, Raft, RaftId};
use crate::shell::sentinel::Sentinel;

const KEY: &str = "identity";
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);

/// Kept in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    id: RaftId,
    name: String,
    is_founder: bool,
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

/// Starts Raft under the right ID; waits for the other sentinels where it must.
///
/// # Errors
/// [`BootstrapError`]
pub(crate) async fn start_raft(
    sentinel: &Arc<Sentinel>,
    store: Store,
    machine: StateMachine,
) -> Result<(), BootstrapError> {
    let given = &sentinel.config.options.name;
    let stored: Option<Stored> = store.read(KEY).map_err(|e| BootstrapError::Store(e.to_string()))?;
    let identity = match stored {
        Some(stored) if stored.name != *given => {
            return Err(BootstrapError::OtherName { stored: stored.name, given: given.clone() });
        }
        Some(stored) => stored,
        None => {
            let identity = find_identity(sentinel).await;
            store.write(KEY, &identity).map_err(|e| BootstrapError::Store(e.to_string()))?;
            identity
        }
    };
    let fatal = |e: &dyn std::fmt::Display| BootstrapError::Raft(e.to_string());
    let config = Arc::new(raft::config().validate().map_err(|e| fatal(&e))?);
    let network = Network { addresses: Arc::new(sentinel.config.initial_addresses()) };
    let raft = Raft::new(identity.id, config, network, store, machine).await.map_err(|e| fatal(&e))?;
    let initialized = raft.is_initialized().await.map_err(|e| fatal(&e))?;
    sentinel.id.get_or_init(|| identity.id);
    sentinel.raft.set(raft.clone());
    info!(id = identity.id, "the sentinel {} takes part", identity.name);
    if identity.is_founder && !initialized {
        let members: BTreeMap<RaftId, BasicNode> =
            sentinel.config.initial_addresses().into_iter().map(|(id, a)| (id, BasicNode::new(a))).collect();
        if let Err(e) = raft.initialize(members).await {
            // Another founder was faster.
            debug!(reason = %e, "the group is founded already");
        }
    }
    if !identity.is_founder {
        let sentinel = sentinel.clone();
        tokio::spawn(async move { become_voter(&sentinel, identity.id).await });
    }
    Ok(())
}

async fn find_identity(sentinel: &Sentinel) -> Stored {
    let name = sentinel.config.options.name.clone();
    let founders = &sentinel.config.founders;
    let majority = founders.len() / 2 + 1;
    let mut told = false;
    loop {
        let others = founders.iter().filter(|f| f.name != name);
        let answers = join_all(others.map(|f| ask(sentinel, f))).await;
        let answers: Vec<(String, rpc::SentinelIdentity)> = answers.into_iter().flatten().collect();
        if let Some((address, _)) = answers.iter().find(|(_, a)| a.known.contains(&name)) {
            if let Some(id) = join(sentinel, address).await {
                return Stored { id, name, is_founder: false };
            }
        } else if majority <= 1 + answers.iter().filter(|(_, a)| a.is_fresh || a.has_leader).count() {
            let id = founders.iter().find(|f| f.name == name).map(|f| f.id);
            return Stored { id: id.expect("the configuration lists this sentinel"), name, is_founder: true };
        }
        if !told {
            info!("empty directory: waiting for a majority of the sentinels to say whether the group exists");
            told = true;
        }
        sleep(PAUSE).await;
    }
}

async fn ask(sentinel: &Sentinel, founder: &Founder) -> Option<(String, rpc::SentinelIdentity)> {
    let who = &format!("the sentinel {}", founder.name);
    let address = host_port(&founder.host, founder.bus_port);
    let Some(mut client) = sentinel.control_client(&address) else {
        sentinel.reach.failed(who, &address, None);
        return None;
    };
    let request = crate::rules::admin::request(Command::Identity(rpc::IdentityCommand {}));
    let reply = match timeout(ANSWER_LIMIT, client.admin(request)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(status)) => {
            sentinel.reach.failed(who, &address, Some(status));
            return None;
        }
        Err(_) => {
            sentinel.reach.failed(who, &address, None);
            return None;
        }
    };
    sentinel.reach.answered(who, &address);
    match reply.into_inner().outcome {
        Some(Outcome::Identity(identity)) => Some((address, identity)),
        _ => None,
    }
}

/// A new ID from the leader, through any sentinel.
async fn join(sentinel: &Sentinel, through: &str) -> Option<RaftId> {
    let own = sentinel.own_address();
    let address = host_port(&own.host, own.bus_port);
    let request = crate::rules::admin::request(Command::Join(rpc::JoinCommand { name: own.name, address }));
    let reply = sentinel.control_client(through)?.admin(request).await.ok()?.into_inner();
    let Some(Outcome::Joined(id)) = reply.outcome else { return None };
    warn!(id, "the group knows this sentinel, but its directory is empty: joining under a new ID");
    Some(id)
}

async fn become_voter(sentinel: &Sentinel, id: RaftId) {
    loop {
        let metrics = sentinel.metrics();
        if metrics.is_some_and(|m| m.membership_config.membership().voter_ids().any(|voter| voter == id)) {
            return;
        }
        if sentinel.leader().is_some() {
            let name = sentinel.config.options.name.clone();
            let command = Command::Promote(rpc::PromoteCommand { sentinel_id: id, name });
            match admin::at_leader(sentinel, command, Duration::from_secs(5))
                .await
                .map(crate::rules::admin::done)
            {
                Ok(Ok(_)) => info!(id, "this sentinel votes"),
                Ok(Err(reason)) => warn!("this sentinel cannot vote yet: {reason}"),
                Err(status) => warn!("this sentinel cannot vote yet: {}", status.message()),
            }
        }
        sleep(PAUSE).await;
    }
}
