//! Carries published messages to the subscribers of other nodes, over one gRPC stream per peer.
//!
//! Best effort, as pub/sub is: a peer that cannot be reached, or does not keep up, misses messages. In cluster mode
//! a message goes to every node, a sharded one to the nodes of its shard; otherwise to the nodes of the shard.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::ids::NodeId;
use keyward_proto::rpc::PublishRequest;
use keyward_proto::rpc::node_control_client::NodeControlClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::server::Server;

/// Messages that may wait in a queue, and their bytes; further ones are dropped.
const QUEUE_MAX: usize = 4096;
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Messages on their way into a peer's stream.
const STREAM_MAX: usize = 64;
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// A published message on its way to the peers.
#[derive(Debug, Clone)]
pub struct Message {
    pub channel: Bytes,
    pub payload: Bytes,
    pub sharded: bool,
}

impl Message {
    fn len_bytes(&self) -> usize {
        self.channel.len() + self.payload.len()
    }
}

/// A message in a queue: it counts there as long as this lives.
#[derive(Debug)]
struct Queued {
    message: Message,
    queue_bytes: Arc<AtomicUsize>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queue_bytes.fetch_sub(self.message.len_bytes(), Ordering::Relaxed);
    }
}

/// The end of a queue at which messages are left; bounded in messages and in bytes.
#[derive(Debug, Clone)]
struct Queue {
    sender: mpsc::Sender<Queued>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    fn new() -> (Queue, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Queue { sender, bytes: Arc::default() }, receiver)
    }

    /// False: too much waits, and the message is dropped. One message may be longer than all may be together.
    fn push(&self, message: Message) -> bool {
        let len_bytes = message.len_bytes();
        let before = self.bytes.fetch_add(len_bytes, Ordering::Relaxed);
        let queued = Queued { message, queue_bytes: Arc::clone(&self.bytes) };
        let fits = before == 0 || before + len_bytes <= QUEUE_BYTES_MAX;
        fits && self.sender.try_send(queued).is_ok()
    }
}

/// Where I/O threads leave messages.
#[derive(Debug, Clone)]
pub struct Bus(Queue);

impl Bus {
    /// Starts the task that distributes messages; call it on the control runtime.
    pub fn start(server: Arc<Server>) -> Bus {
        let (queue, receiver) = Queue::new();
        tokio::spawn(distribute(server, receiver));
        Bus(queue)
    }

    /// Queues a message for all peers.
    pub fn publish(&self, channel: &[u8], payload: &[u8], sharded: bool) {
        let message = Message {
            channel: Bytes::copy_from_slice(channel),
            payload: Bytes::copy_from_slice(payload),
            sharded,
        };
        if !self.0.push(message) {
            tracing::debug!("a message for other nodes was dropped: too many wait");
        }
    }
}

async fn distribute(server: Arc<Server>, mut messages: mpsc::Receiver<Queued>) {
    // Keyed by address too: a node that moved gets a new stream.
    let mut peers: BTreeMap<(NodeId, String), Queue> = BTreeMap::new();
    let mut version = 0;
    while let Some(queued) = messages.recv().await {
        let message = &queued.message;
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
                let (queue, receiver) = Queue::new();
                tokio::spawn(send_to(address, receiver));
                queue
            });
            if !peer.push(message.clone()) {
                tracing::debug!(node = %node.id, "a message was dropped: the peer does not keep up");
            }
        }
    }
}

/// Sends messages to one peer until nobody has any more for it.
async fn send_to(address: String, mut messages: mpsc::Receiver<Queued>) {
    while !messages.is_closed() {
        let (sender, receiver) = mpsc::channel::<Queued>(STREAM_MAX);
        let requests = ReceiverStream::new(receiver).map(|queued| {
            let Message { channel, payload, sharded } = queued.message.clone();
            PublishRequest { channel, payload, sharded }
        });
        let call = async {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
            let channel = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(1)).connect().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_bounded_in_bytes_and_in_messages() {
        let message = |len: usize| Message {
            channel: Bytes::from_static(b"c"),
            payload: Bytes::from(vec![b'x'; len]),
            sharded: false,
        };
        let (queue, mut receiver) = Queue::new();
        assert!(queue.push(message(QUEUE_BYTES_MAX + 1)), "the only one");
        assert!(!queue.push(message(0)));
        drop(receiver.try_recv().unwrap());
        assert!((0..4).all(|_| queue.push(message(QUEUE_BYTES_MAX / 4 - 1))));
        assert!(!queue.push(message(0)));
        (0..4).for_each(|_| drop(receiver.try_recv().unwrap()));
        assert!((0..QUEUE_MAX).all(|_| queue.push(message(0))));
        assert!(!queue.push(message(0)));
        assert_eq!(queue.bytes.load(Ordering::Relaxed), QUEUE_MAX);
        drop(receiver);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
