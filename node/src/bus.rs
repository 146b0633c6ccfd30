//! Carries published messages to the subscribers of other nodes, over one gRPC stream per peer.
//!
//! Best effort, as pub/sub is: a peer that cannot be reached, or does not keep up, misses messages. In cluster mode
//! a message goes to every node, a sharded one to the nodes of its shard; otherwise to the nodes of the shard.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::ids::NodeId;
use keyward_proto::rpc::PublishRequest;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::server::Server;

/// Messages that may wait for a peer; further ones are dropped.
const QUEUE_MAX: usize = 4096;
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// A published message on its way to the peers.
#[derive(Debug, Clone)]
pub struct Message {
    pub channel: Bytes,
    pub payload: Bytes,
    pub sharded: bool,
}

/// Where I/O threads leave messages.
#[derive(Debug, Clone)]
pub struct Bus(mpsc::Sender<Message>);

impl Bus {
    /// Starts the task that distributes messages; call it on the control runtime.
    pub fn start(server: Arc<Server>) -> Bus {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(distribute(server, receiver));
        Bus(sender)
    }

    /// Queues a message for all peers.
    pub fn publish(&self, channel: &[u8], payload: &[u8], sharded: bool) {
        let message = Message {
            channel: Bytes::copy_from_slice(channel),
            payload: Bytes::copy_from_slice(payload),
            sharded,
        };
        if self.0.try_send(message).is_err() {
            tracing::debug!("a message for other nodes was dropped: too many wait");
        }
    }
}

async fn distribute(server: Arc<Server>, mut messages: mpsc::Receiver<Message>) {
    // Keyed by address too: a node that moved gets a new stream.
    let mut peers: BTreeMap<(NodeId, String), mpsc::Sender<PublishRequest>> = BTreeMap::new();
    let mut version = 0;
    while let Some(message) = messages.recv().await {
        let routing = server.routing();
        if routing.topology.version != version {
            version = routing.topology.version;
            let address_of =
                |id: &NodeId| routing.topology.nodes.get(id).map(|n| format!("{}:{}", n.host, n.bus_port));
            peers.retain(|(id, address), _| address_of(id).as_ref() == Some(address));
        }
        let everywhere = server.settings().cluster_enabled && !message.sharded;
        for node in routing.topology.nodes.values() {
            if routing.me.as_ref() == Some(&node.id) || !(everywhere || node.shard == routing.my_shard) {
                continue;
            }
            let address = format!("{}:{}", node.host, node.bus_port);
            let peer = peers.entry((node.id.clone(), address.clone())).or_insert_with(|| {
                let (sender, receiver) = mpsc::channel(QUEUE_MAX);
                tokio::spawn(send_to(address, receiver));
                sender
            });
            let request = PublishRequest {
                channel: message.channel.clone(),
                payload: message.payload.clone(),
                sharded: message.sharded,
            };
            if peer.try_send(request).is_err() {
                tracing::debug!(node = %node.id, "a message was dropped: the peer does not keep up");
            }
        }
    }
}

/// Sends messages to one peer until nobody has any more for it.
async fn send_to(address: String, mut messages: mpsc::Receiver<PublishRequest>) {
    while !messages.is_closed() {
        let (sender, receiver) = mpsc::channel(64);
        let call = async {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
            let channel = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(1)).connect().await;
            let mut client = NodeControlClient::new(channel.map_err(|e| e.to_string())?);
            client.publish(ReceiverStream::new(receiver)).await.map(|_| ()).map_err(|e| e.to_string())
        };
        let forward = async {
            while let Some(message) = messages.recv().await {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            result = call => {
                if let Err(error) = result {
                    tracing::debug!(%address, %error, "messages for a peer are not delivered");
                }
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
            () = forward => {}
        }
    }
}
