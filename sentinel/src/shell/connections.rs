//! Connections to nodes that are kept open from one question to the next.
//!
//! A question takes the node's connection out and gives it back when it has been answered over it; whoever comes
//! meanwhile makes one of his own. So a connection that has failed, or over which an answer is missing, is never used
//! again: after a partition an old one may wait long before it sends anything, while a new one works at once.
//!
//! One is kept for a node's address and the start of its process that the topology has; when the node moves, restarts
//! or leaves, it is closed. What a kept connection proves, and what not, is said in [`crate::shell::probe`].
#![allow(clippy::disallowed_methods, reason = "shell: connects over the network")]

use keyward_net::bus::Bus;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use keyward_proto::topology::names::host_port;
use keyward_proto::topology::{Node, Topology};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

use crate::rules::failover::Answer;
use crate::rules::kept::Kept;
use crate::shell::channel::{endpoint, is_refused};

pub type NodeClient = NodeControlClient<Channel>;

/// Connections that may be under way at a time. When many nodes are silent at once the questions to the others must
/// not wait for them long: those have their connections.
const CONNECTING_MAX: usize = 512;

/// See the module documentation.
#[derive(Debug)]
pub struct Connections {
    bus: Bus,
    /// Held for a line at a time.
    kept: Mutex<Kept<NodeClient>>,
    connecting: Semaphore,
}

impl Connections {
    pub fn new(bus: Bus) -> Connections {
        Connections { bus, kept: Mutex::default(), connecting: Semaphore::new(CONNECTING_MAX) }
    }

    /// The idle connection to this node, if it leads to where the node is now.
    pub fn take(&self, node: &Node) -> Option<NodeClient> {
        self.kept.lock().take(node)
    }

    /// For the next question. This one has been answered over it.
    pub fn keep(&self, node: &Node, client: NodeClient) {
        self.kept.lock().keep(node, client);
    }

    /// Closes those of nodes that have left or moved.
    pub fn follow(&self, topology: &Topology) {
        self.kept.lock().follow(topology);
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
        match self.bus.connect(&endpoint).await {
            Ok(channel) => Ok(NodeClient::new(channel)),
            Err(e) if is_refused(&e) => Err(Answer::Refused),
            Err(_) => Err(Answer::Silent),
        }
    }
}
