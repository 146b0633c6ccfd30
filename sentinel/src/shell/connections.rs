//! Connections to nodes that are kept open from one question to the next.
//!
//! A question takes the node's connection out and gives it back when it has been answered over it; whoever comes
//! meanwhile makes one of his own. So a connection that has failed, or over which an answer is missing, is never used
//! again: after a partition an old one may wait long before it sends anything, while a new one works at once.
//!
//! One is kept for a node's address and the start of its process that the topology has; when the node moves, restarts
//! or leaves, it is closed. What a kept connection proves, and what not, is said in [`crate::shell::probe`].
#![allow(clippy::disallowed_methods, reason = "shell: connects over the network")]

use std::collections::BTreeMap;

use keyward_proto::ids::{Incarnation, NodeId};
use keyward_proto::rpc::node_control_client::NodeControlClient;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{Node, Topology};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

use crate::rules::failover::Answer;
use crate::shell::channel::{endpoint, is_refused};

pub type NodeClient = NodeControlClient<Channel>;

/// Connections that may be under way at a time. When many nodes are silent at once the questions to the others must
/// not wait for them long: those have their connections.
const CONNECTING_MAX: usize = 512;

/// What a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    bus_port: u16,
    incarnation: Incarnation,
}

impl Place {
    fn of(node: &Node) -> Self {
        Place { host: node.host.clone(), bus_port: node.bus_port, incarnation: node.incarnation }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Connections {
    /// Idle ones, one a node. Held for a few lines at a time.
    kept: Mutex<BTreeMap<NodeId, (Place, NodeClient)>>,
    connecting: Semaphore,
}

impl Default for Connections {
    fn default() -> Self {
        Connections { kept: Mutex::default(), connecting: Semaphore::new(CONNECTING_MAX) }
    }
}

impl Connections {
    /// The idle connection to this node, if it leads to where the node is now.
    pub fn take(&self, node: &Node) -> Option<NodeClient> {
        let (place, client) = self.kept.lock().remove(&node.id)?;
        (place == Place::of(node)).then_some(client)
    }

    /// For the next question. This one has been answered over it.
    pub fn keep(&self, node: &Node, client: NodeClient) {
        self.kept.lock().insert(node.id.clone(), (Place::of(node), client));
    }

    /// Closes those of nodes that have left or moved.
    pub fn follow(&self, topology: &Topology) {
        self.kept
            .lock()
            .retain(|id, (place, _)| topology.nodes.get(id).is_some_and(|node| *place == Place::of(node)));
    }

    /// A new connection to a node's bus port.
    ///
    /// # Errors
    /// The answer that the failed connection amounts to.
    pub async fn connect(&self, node: &Node) -> Result<NodeClient, Answer> {
        let _permit = self.connecting.acquire().await.expect("the semaphore is never closed");
        let Some(endpoint) = endpoint(&host_port(&node.host, node.bus_port)) else {
            return Err(Answer::Silent);
        };
        match endpoint.connect().await {
            Ok(channel) => Ok(NodeClient::new(channel)),
            Err(e) if is_refused(&e) => Err(Answer::Refused),
            Err(_) => Err(Answer::Silent),
        }
    }
}
