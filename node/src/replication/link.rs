//! The streams between nodes over gRPC: the server on the bus port, and a replica's connection to its primary.
//!
//! A shell: messages become events, events are queued in order, and the queue's bound is the streams' back-pressure.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_net::bus::{Bus, Rights, caller_of, refusal};
use keyward_proto::bus::Peer;
use keyward_proto::format;
use keyward_proto::ids::{NodeId, Term};
use keyward_proto::peer::{Complaints, Trouble};
use keyward_proto::rpc;
use keyward_proto::rpc::node_control_server::{NodeControl, NodeControlServer};
use keyward_proto::rpc::replication_client::ReplicationClient;
use keyward_proto::rpc::replication_server::{Replication, ReplicationServer};
use keyward_proto::rpc::{follow_request, follow_response};
use keyward_replication::core::messages::{Closed, Event, Hello, LinkId, UplinkId};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::applier::Applier;
use super::sender::Outbox;
use super::shared::Engine;
use super::task::Input;
use super::wire;
use crate::clock;

/// How often a stream that is not read for now tells that.
const HELD_UP_EVERY: Duration = Duration::from_millis(100);
/// Messages towards one replica that may wait; each holds up to 256 KiB.
const OUTBOX_LEN: usize = 4;
/// What may be on its way without the receiver having read it. Beacons wait behind that, so it is no more than a network
/// takes that is fast or far away, 400 Mbit/s at 40 ms for one.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// An entry may be as large as a value (512 MiB), a transaction larger.
const MESSAGE_BYTES_MAX: usize = 2 << 30;
/// A hello names the terms of a log and the slots that are there.
const FOLLOWER_BYTES_MAX: usize = 4 << 20;
const FRAME_BYTES: u32 = 1 << 20;
/// A peer that answers no ping of HTTP/2 for so long is gone, though its kernel has not said so: what waits for an answer
/// must not wait for ever. Streams that are in use notice earlier, by the rules of the core.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_PATIENCE: Duration = Duration::from_secs(4);

/// Where messages that other nodes publish go.
pub type Deliver = Arc<dyn Fn(rpc::PublishRequest) + Send + Sync>;

/// What the bus port serves.
#[derive(Clone)]
struct Services {
    inputs: mpsc::Sender<Input>,
    deliver: Deliver,
    next_link: Arc<AtomicU64>,
}

/// Serves the bus port until `inputs` has no receiver or the task is dropped.
pub(crate) async fn serve(
    (bus, listener): (&Bus, TcpListener),
    inputs: mpsc::Sender<Input>,
    deliver: Deliver,
) -> Result<(), tonic::transport::Error> {
    let ended = inputs.clone();
    let services = Services { inputs, deliver, next_link: Arc::new(AtomicU64::new(1)) };
    // What followers send is small; what is published may be as large as a value.
    let replication = ReplicationServer::new(services.clone()).max_decoding_message_size(FOLLOWER_BYTES_MAX);
    let control = NodeControlServer::new(services).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_PATIENCE))
        .layer(Rights)
        .add_service(replication)
        .add_service(control)
        .serve_with_incoming_shutdown(bus.incoming(listener), async move {
            ended.closed().await;
        })
        .await
}

fn stopping() -> Status {
    Status::unavailable("the node is ending")
}

#[tonic::async_trait]
impl Replication for Services {
    type FollowStream = ReceiverStream<Result<rpc::FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<rpc::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (outbox, responses) = mpsc::channel(OUTBOX_LEN);
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let peer = caller_of(request.extensions())?.peer.clone();
        tokio::spawn(read_link((link, peer), request.into_inner(), outbox, self.inputs.clone()));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// Turns a replica's messages into events until its stream ends, or this side closes it.
async fn read_link(
    (link, peer): (LinkId, Peer),
    mut requests: Streaming<rpc::FollowRequest>,
    outbox: Outbox,
    inputs: mpsc::Sender<Input>,
) {
    let first = requests.message().await.ok().flatten().and_then(|m| m.message);
    let Some(follow_request::Message::Hello(hello)) = first else { return };
    let refuse = |words: String| {
        tracing::warn!("refused a replica: {words}");
        _ = outbox.try_send(Ok(wire::rejection(Term::ZERO, &words)));
    };
    let hello = match wire::parse_hello(hello) {
        Ok(hello) => hello,
        Err(error) => return refuse(error.to_string()),
    };
    if let Err(denied) = peer.speaks_for(hello.node.as_str(), "a stream") {
        return refuse(denied.to_string());
    }
    let node = hello.node.clone();
    let closed = outbox.downgrade();
    if inputs.send(Input::LinkOpened(link, Box::new(hello), outbox)).await.is_err() {
        return;
    }
    loop {
        let message = match requests.message().await {
            Ok(Some(message)) => message.message,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%node, %error, "a replica's stream broke");
                break;
            }
        };
        let Some(follow_request::Message::Ack(ack)) = message else { break };
        if closed.upgrade().is_none()
            || inputs.send(Input::Core(Event::AckReceived(link, wire::parse_ack(ack)))).await.is_err()
        {
            return;
        }
    }
    report(&inputs, Event::LinkClosed(link)).await;
}

async fn report(inputs: &mpsc::Sender<Input>, event: Event) {
    if inputs.send(Input::Core(event)).await.is_err() {
        tracing::debug!("the replication task has ended");
    }
}

#[tonic::async_trait]
impl NodeControl for Services {
    async fn status(&self, _: Request<rpc::StatusRequest>) -> Result<Response<rpc::NodeStatus>, Status> {
        let (answer, status) = oneshot::channel();
        self.inputs.send(Input::NodeStatus(answer)).await.map_err(|_| stopping())?;
        status.await.map(Response::new).map_err(|_| stopping())
    }

    async fn publish(
        &self,
        request: Request<Streaming<rpc::PublishRequest>>,
    ) -> Result<Response<rpc::PublishReply>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            (self.deliver)(message);
        }
        Ok(Response::new(rpc::PublishReply {}))
    }

    async fn start_handoff(
        &self,
        request: Request<rpc::StartHandoffRequest>,
    ) -> Result<Response<rpc::ChangeReply>, Status> {
        let request = request.into_inner();
        let target = match request.target.as_str() {
            "" => None,
            id => Some(NodeId::parse(id).ok_or_else(|| Status::invalid_argument("malformed node ID"))?),
        };
        let (answer, result) = oneshot::channel();
        let term = Term::new(request.term);
        self.inputs
            .send(Input::Handoff { term: Some(term), target, answer })
            .await
            .map_err(|_| stopping())?;
        let result = result.await.map_err(|_| stopping())?;
        let reason = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        Ok(Response::new(rpc::ChangeReply { accepted: result.is_ok(), reason, update: None, challenge: 0 }))
    }
}

/// The address for a connection; a bare IPv6 address gets its brackets.
pub(crate) fn endpoint(
    host: &str,
    port: u16,
    connect_timeout: Duration,
) -> Result<Endpoint, tonic::transport::Error> {
    let uri = if host.contains(':') && !host.starts_with('[') {
        format!("http://[{host}]:{port}")
    } else {
        format!("http://{host}:{port}")
    };
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// Whether the kernel at the other end said that nobody listens there.
fn is_refused(error: &tonic::transport::Error) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Says why this node does not follow a primary, but not each time that it tries.
fn complain(complaints: &Mutex<Complaints>, host: &str, port: u16, why: String) {
    let trouble = Trouble::Says(why);
    if complaints.lock().is_due(clock::monotonic(), &trouble) {
        tracing::warn!("this node does not follow the primary at {host}:{port}: {trouble}");
    }
}

/// A replica's side of one stream: where to, and what to say first.
pub(crate) struct Uplink {
    pub(crate) bus: Bus,
    pub(crate) id: UplinkId,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) hello: Hello,
    pub(crate) connect_timeout: Duration,
    /// What was said of primaries that this node does not follow.
    pub(crate) complaints: Arc<Mutex<Complaints>>,
    /// The hello is put in front of them.
    pub(crate) requests: (mpsc::Sender<rpc::FollowRequest>, mpsc::Receiver<rpc::FollowRequest>),
}

/// Connects, says hello, and turns the primary's messages into events until the stream ends.
pub(crate) async fn run_uplink(
    uplink: Uplink,
    inputs: mpsc::Sender<Input>,
    applier: Arc<Applier>,
    engine: Arc<dyn Engine>,
) {
    let id = uplink.id;
    let closed = follow(uplink, &inputs, &applier, &*engine).await;
    report(&inputs, Event::UplinkClosed(id, closed)).await;
}

async fn follow(
    uplink: Uplink,
    inputs: &mpsc::Sender<Input>,
    applier: &Applier,
    engine: &dyn Engine,
) -> Closed {
    let Uplink { bus, id, host, port, hello, connect_timeout, complaints, requests: (sender, receiver) } =
        uplink;
    let connected = match endpoint(&host, port, connect_timeout) {
        Ok(endpoint) => bus.connect(&endpoint).await,
        Err(error) => Err(error),
    };
    let channel = match connected {
        Ok(channel) => channel,
        Err(error) => {
            if let Some(words) = refusal(&error) {
                complain(&complaints, &host, port, words);
            }
            let refused = is_refused(&error);
            tracing::debug!(host, port, refused, %error, "can't connect to the primary");
            return if refused { Closed::Refused } else { Closed::Broken };
        }
    };
    if sender.try_send(wire::follow_hello(hello)).is_err() {
        return Closed::Broken;
    }
    drop(sender);
    let mut client = ReplicationClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut responses = match client.follow(ReceiverStream::new(receiver)).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            tracing::debug!(host, port, %status, "the primary does not answer");
            return Closed::Broken;
        }
    };
    let mut looks_at_effects = false;
    loop {
        let message = match responses.message().await {
            Ok(Some(message)) => message.message,
            Ok(None) => return Closed::Broken,
            Err(status) => {
                tracing::debug!(host, port, %status, "the stream from the primary broke");
                return Closed::Broken;
            }
        };
        let event = match message {
            Some(follow_response::Message::Start(start)) => {
                looks_at_effects = format::is_newer(start.format);
                match wire::parse_start(start) {
                    Ok(start) => {
                        // Of a newer program more may come that this one objects to.
                        if !looks_at_effects {
                            complaints.lock().end();
                        }
                        Event::StartReceived(id, start)
                    }
                    Err(foreign) => {
                        complain(&complaints, &host, port, foreign.to_string());
                        Event::RejectReceived(id)
                    }
                }
            }
            Some(follow_response::Message::Append(append)) => {
                let unknown = if looks_at_effects { engine.unknown_effect(&append.entries) } else { None };
                match unknown {
                    None => Event::AppendReceived(id, wire::parse_append(append)),
                    Some(effect) => {
                        let why = format!("its log has the effect {effect}: upgrade this program first");
                        complain(&complaints, &host, port, why);
                        Event::RejectReceived(id)
                    }
                }
            }
            Some(follow_response::Message::Snapshot(chunk)) => {
                while tokio::time::timeout(HELD_UP_EVERY, applier.room()).await.is_err() {
                    report(inputs, Event::UplinkHeldUp(id)).await;
                }
                match wire::parse_chunk(chunk) {
                    Ok(chunk) => Event::ChunkReceived(id, chunk),
                    Err(error) => {
                        tracing::warn!(%error, "the full sync ends");
                        return Closed::Broken;
                    }
                }
            }
            Some(follow_response::Message::Rejected(rejected)) => {
                complain(&complaints, &host, port, rejected.reason);
                Event::RejectReceived(id)
            }
            None => return Closed::Broken,
        };
        if inputs.send(Input::Core(event)).await.is_err() {
            return Closed::Broken;
        }
    }
}
