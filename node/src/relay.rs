//! Carries published messages to the subscribers of other nodes, over one gRPC stream per peer.
//!
//! Best effort, as pub/sub is: a peer that cannot be reached, or does not keep up, misses messages. In cluster mode
//! a message goes to every node, a sharded one to the nodes of its shard; otherwise to the nodes of the shard.

#![allow(clippy::disallowed_methods, reason = "a shell")]

pub mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keyward_net::bus::Bus;
use keyward_proto::ids::NodeId;
use keyward_proto::rpc::PublishRequest;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use keyward_replication::reply::{Fate, ReplyCondition};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::clock;
use crate::message::{ChannelKind, Message};
use crate::server::Server;
use queue::{Queue, Queued, Relay};

/// Messages on their way into a peer's stream.
const STREAM_MAX: usize = 64;
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
/// How often it is looked whether a transaction is committed that has published.
const COMMIT_POLL: Duration = Duration::from_millis(1);

/// Starts the task that distributes messages; call it on the control runtime.
pub fn start(server: Arc<Server>, bus: Bus) -> Relay {
    let (queue, receiver) = Queue::new();
    tokio::spawn(distribute(server, bus, receiver));
    Relay(queue)
}

async fn distribute(server: Arc<Server>, bus: Bus, mut messages: mpsc::Receiver<Queued>) {
    // Keyed by address too: a node that moved gets a new stream.
    let mut peers: BTreeMap<(NodeId, String), Queue> = BTreeMap::new();
    let mut version = 0;
    while let Some(queued) = messages.recv().await {
        if !may_leave(&server, queued.condition).await {
            tracing::info!("a message of a transaction whose outcome is not known is not passed on");
            continue;
        }
        let message = &queued.message;
        let routing = server.routing();
        if routing.topology.version != version {
            version = routing.topology.version;
            let address_of =
                |id: &NodeId| routing.topology.nodes.get(id).map(|n| format!("{}:{}", n.host, n.bus_port));
            peers.retain(|(id, address), _| address_of(id).as_ref() == Some(address));
        }
        let everywhere = server.settings().cluster_enabled && message.kind == ChannelKind::Global;
        for node in routing.topology.nodes.values() {
            if routing.me.as_ref() == Some(&node.id) || !(everywhere || node.shard == routing.my_shard) {
                continue;
            }
            let address = format!("{}:{}", node.host, node.bus_port);
            let peer = peers.entry((node.id.clone(), address.clone())).or_insert_with(|| {
                let (queue, receiver) = Queue::new();
                tokio::spawn(send_to(bus.clone(), address, receiver));
                queue
            });
            if !peer.push(message.clone(), ReplyCondition::default()) {
                tracing::debug!(node = %node.id, "a message was dropped: the peer does not keep up");
            }
        }
    }
}

/// Waits until what a message tells of is committed; false: nobody knows any more whether it will be. Messages behind it
/// wait, too, so that they keep their order.
async fn may_leave(server: &Server, condition: ReplyCondition) -> bool {
    loop {
        match condition.fate(&server.shared.gate, clock::monotonic) {
            Fate::Leaves => return true,
            Fate::Unknown => return false,
            Fate::Waits => tokio::time::sleep(COMMIT_POLL).await,
        }
    }
}

/// Sends messages to one peer until nobody has any more for it.
async fn send_to(bus: Bus, address: String, mut messages: mpsc::Receiver<Queued>) {
    while !messages.is_closed() {
        let (sender, receiver) = mpsc::channel::<Queued>(STREAM_MAX);
        let requests = ReceiverStream::new(receiver).map(|queued| {
            let Message { channel, payload, kind } = queued.message.clone();
            PublishRequest { channel, payload, sharded: kind == ChannelKind::Shard }
        });
        let call = async {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
            let channel = bus.connect(&endpoint.connect_timeout(Duration::from_secs(1))).await;
            let mut client = NodeControlClient::new(channel.map_err(|e| e.to_string())?);
            client.publish(requests).await.map(|_| ()).map_err(|e| e.to_string())
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
