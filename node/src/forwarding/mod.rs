//! `forwarding-port`: clients that know nothing of clusters, at any node. What they ask is passed on to the node that has
//! the key, as long as the connection lasts, whoever that is by then; so one address serves all of them.
//!
//! - [`conversation`]: what goes where, in which order, and what is tried again; pure. [`kind`]: what a request means for
//!   that. [`frames`]: where a reply ends
//! - here: sockets. Connections to nodes are this client's own, so sessions, transactions and commands that block are those
//!   of the nodes
//!
//! All of it runs on a thread of its own: no thread that executes commands waits for another node.

#![allow(clippy::disallowed_methods, reason = "a shell")]

mod conversation;
mod frames;
mod kind;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use keyward_net::duplex::{self, Duplex};
use keyward_net::tls::TlsAcceptor;
use keyward_proto::ids::NodeId;
use keyward_proto::resp::reply::write_command;
use keyward_proto::resp::{Batch, Limits, ProtocolError, ReplyWriter, RequestReader, Version};
use keyward_proto::slot::Slot;
use keyward_proto::topology::{Node, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock;
use crate::config::Settings;
use crate::io::accept::{Refusal, accepted, prepare, protected};
use crate::routing::{Owner, Routing};
use crate::server::Server;
use conversation::{Action, Closed, Conversation, Routes};
use kind::Kind;

/// Requests of one read that are looked at together.
const BATCH_MAX: usize = 128;
const READ_BYTES: usize = 16 << 10;
/// Answers of nodes that wait to be looked at, for each client.
const HEARD_MAX: usize = 4;
/// So much may wait for a client, or for the nodes that it asks, before less is read from the other side.
const WAITING_BYTES_MAX: usize = 1 << 20;
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take for what it gets at the end of its connection.
const LAST_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether the nodes lead that a client belongs to, or waits for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What clients of the forwarding ports share.
struct Forwarder {
    server: Arc<Server>,
    clients: AtomicUsize,
}

/// Serves both ports on a thread of its own for as long as the process lives.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn start(
    server: &Arc<Server>,
    plain: Vec<std::net::TcpListener>,
    encrypted: Vec<std::net::TcpListener>,
) -> io::Result<()> {
    if plain.is_empty() && encrypted.is_empty() {
        return Ok(());
    }
    let forwarder = Arc::new(Forwarder { server: Arc::clone(server), clients: AtomicUsize::new(0) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("forwarding".into()).spawn(move || {
        runtime.block_on(async {
            let doors = plain.into_iter().map(|listener| (listener, Transport::Plain));
            for (listener, transport) in doors.chain(encrypted.into_iter().map(|l| (l, Transport::Tls))) {
                match TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::spawn(Arc::clone(&forwarder).accept(listener, transport))),
                    Err(error) => tracing::error!(%error, "can't accept connections to forward"),
                }
            }
            std::future::pending::<()>().await;
        });
    })?;
    Ok(())
}

impl Forwarder {
    async fn accept(self: Arc<Self>, listener: TcpListener, transport: Transport) {
        loop {
            let Some((socket, peer)) = accepted(&listener).await else { continue };
            tokio::spawn(Arc::clone(&self).receive(socket, peer, transport));
        }
    }

    async fn receive(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, transport: Transport) {
        let settings = self.server.settings();
        let others = self.clients.fetch_add(1, Ordering::Relaxed);
        let refusal =
            if settings.maxclients <= others { Some(Refusal::TooMany) } else { protected(&settings, peer) };
        let served = self.serve(socket, transport, refusal).await;
        self.clients.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "a forwarded connection ended");
        }
    }

    async fn serve(
        &self,
        socket: TcpStream,
        transport: Transport,
        refusal: Option<Refusal>,
    ) -> io::Result<()> {
        let socket = TcpStream::from_std(prepare(socket, &self.server.settings())?)?;
        let mut client: Box<dyn Duplex> = match transport {
            Transport::Plain => Box::new(socket),
            Transport::Tls => {
                let material =
                    self.server.tls.material().ok_or_else(|| io::Error::other("no certificate is loaded"))?;
                let acceptor = TlsAcceptor::from(Arc::clone(material.client_facing()));
                Box::new(timeout(HANDSHAKE_LIMIT, acceptor.accept(socket)).await??)
            }
        };
        if let Some(refusal) = refusal {
            client.write_all(refusal.text().as_bytes()).await?;
        } else {
            Exchange::new(&self.server).run(&mut client).await?;
        }
        client.shutdown().await
    }
}

/// The topology, by which requests find their place.
struct Places {
    routing: Arc<Routing>,
    settings: Arc<Settings>,
}

impl Routes for Places {
    fn place(&self, slot: Option<Slot>) -> Option<NodeId> {
        let node = match slot.filter(|_| self.settings.cluster_enabled).map(|slot| self.routing.owner(slot)) {
            Some(Owner::Other(node)) => node,
            Some(Owner::Nobody) => None,
            Some(Owner::Mine) | None => self.routing.my_primary(),
        };
        node.map(|node| node.id.clone())
    }

    fn is_single(&self) -> bool {
        self.routing.topology.shards.len() <= 1
    }

    fn leads(&self, place: &NodeId) -> bool {
        self.routing.topology.shards.values().any(|shard| shard.primary.as_ref() == Some(place))
    }
}

/// What a connection to a node brings.
enum News {
    Bytes(BytesMut),
    Closed(Closed),
}

/// The same, and from which of the connections to which node.
struct Heard {
    place: NodeId,
    number: u64,
    news: News,
}

/// A connection to a node. Its task ends with this.
struct Wire {
    number: u64,
    out: mpsc::UnboundedSender<Bytes>,
    /// Bytes that wait to be sent.
    waiting_bytes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One client, and its connections to nodes.
struct Exchange<'a> {
    server: &'a Arc<Server>,
    talk: Conversation,
    actions: Vec<Action>,
    reader: RequestReader,
    batch: Batch,
    /// Of the client; not looked at yet.
    input: BytesMut,
    /// For the client.
    output: BytesMut,
    wires: BTreeMap<NodeId, Wire>,
    next_wire: u64,
    /// Less waits to be sent to a node.
    fewer: Arc<Notify>,
    heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    ends: bool,
    /// The client sends nothing more. What it has asked for is answered, unless it may have left a command that waits.
    has_finished: bool,
    may_wait: bool,
}

impl Exchange<'_> {
    fn new(server: &Arc<Server>) -> Exchange<'_> {
        Exchange {
            server,
            talk: Conversation::new(),
            actions: Vec::new(),
            reader: RequestReader::default(),
            batch: Batch::default(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            wires: BTreeMap::new(),
            next_wire: 0,
            fewer: Arc::default(),
            heard: mpsc::channel(HEARD_MAX),
            ends: false,
            has_finished: false,
            may_wait: false,
        }
    }

    async fn run(&mut self, client: &mut Box<dyn Duplex>) -> io::Result<()> {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        loop {
            self.advance();
            if self.ends || self.has_finished && (self.may_wait || self.talk.is_idle()) {
                return timeout(LAST_LIMIT, to_client.write_all(&self.output)).await?;
            }
            let reads = !self.has_finished
                && !self.talk.is_full()
                && self.output.len() < WAITING_BYTES_MAX
                && self.outgoing_bytes() < WAITING_BYTES_MAX;
            let listens = self.output.len() < WAITING_BYTES_MAX;
            let look = match self.talk.deadline() {
                Some(at) => Some(clock::until(at)),
                None => (self.talk.is_bound() || !self.talk.is_idle()).then_some(LOOK_EVERY),
            };
            self.input.reserve(READ_BYTES);
            tokio::select! {
                read = from_client.read_buf(&mut self.input), if reads => {
                    self.has_finished = read? == 0;
                }
                written = to_client.write(&self.output), if !self.output.is_empty() => {
                    self.output.advance(written?);
                    if self.output.is_empty() {
                        to_client.flush().await?;
                    }
                }
                Some(heard) = self.heard.1.recv(), if listens => self.hear(heard),
                () = self.fewer.notified() => {}
                () = tokio::time::sleep(look.unwrap_or(Duration::MAX)), if look.is_some() => {}
            }
        }
    }

    /// Does everything that can be done without waiting.
    fn advance(&mut self) {
        let settings = self.server.settings();
        let places = Places { routing: self.server.routing(), settings };
        loop {
            let taken = self.take_requests(&places.settings);
            self.talk.go_on(&places, clock::monotonic(), &mut self.actions);
            let done = self.perform(&places);
            if taken == 0 && done == 0 {
                break;
            }
        }
    }

    /// Looks at what has come of the client; returns how many requests that were.
    fn take_requests(&mut self, settings: &Settings) -> usize {
        // A stranger sends only small requests, and one at a time: the one behind AUTH may be another's.
        let stranger = settings.users.ask_strangers() && !self.talk.is_set_up();
        if self.ends || self.input.is_empty() || self.talk.is_full() || stranger && !self.talk.is_idle() {
            return 0;
        }
        let limits = Limits {
            bulk_len_max: settings.proto_max_bulk_len,
            authenticated: !stranger,
            ..Limits::default()
        };
        let batch_max = if stranger { 1 } else { BATCH_MAX };
        let (parsed, result) = self.reader.parse(&self.input, &limits, batch_max, &mut self.batch);
        for number in 0..self.batch.len() {
            let args = self.batch.args(&self.input, number);
            let words: Vec<&[u8]> = args.iter().collect();
            let mut bytes = BytesMut::new();
            write_command(&mut bytes, &words);
            self.may_wait |= kind::may_wait(args);
            self.talk.request(Kind::of(args), bytes.freeze(), &mut self.actions);
        }
        self.input.advance(parsed);
        let wanted = self.reader.wanted_len();
        if settings.query_buffer_limit < self.input.len().max(wanted) {
            tracing::warn!("closed: query buffer limit reached by a client that is forwarded");
            self.ends = true;
        }
        if let Err(error) = result {
            self.input.clear();
            self.talk.answer_last(protocol_error(&error), &mut self.actions);
        }
        self.batch.len()
    }

    /// What waits to be sent to nodes.
    fn outgoing_bytes(&self) -> usize {
        self.wires.values().map(|wire| wire.waiting_bytes.load(Ordering::Relaxed)).sum()
    }

    fn hear(&mut self, Heard { place, number, news }: Heard) {
        if self.wires.get(&place).is_none_or(|wire| wire.number != number) {
            return;
        }
        let now = clock::monotonic();
        match news {
            News::Bytes(bytes) => self.talk.received(&place, &bytes, now, &mut self.actions),
            News::Closed(how) => {
                self.wires.remove(&place);
                self.talk.closed(&place, how, now, &mut self.actions);
            }
        }
    }

    /// Returns how much there was to do.
    fn perform(&mut self, places: &Places) -> usize {
        let actions = std::mem::take(&mut self.actions);
        for action in &actions {
            match action {
                Action::Connect(place) => self.connect(place, places),
                Action::Send(place, bytes) => {
                    if let Some(wire) = self.wires.get(place) {
                        wire.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
                        // If it has ended, that is heard.
                        drop(wire.out.send(bytes.clone()));
                    }
                }
                Action::Disconnect(place) => drop(self.wires.remove(place)),
                Action::ToClient(bytes) => self.output.extend_from_slice(bytes),
                Action::End => self.ends = true,
            }
        }
        let done = actions.len();
        self.actions = actions;
        self.actions.clear();
        done
    }

    fn connect(&mut self, place: &NodeId, places: &Places) {
        let number = self.next_wire;
        self.next_wire += 1;
        let (out, requests) = mpsc::unbounded_channel();
        let (heard, place) = (self.heard.0.clone(), place.clone());
        let (server, fewer) = (Arc::clone(self.server), Arc::clone(&self.fewer));
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        let node = places.routing.topology.nodes.get(&place).cloned();
        let settings = Arc::clone(&places.settings);
        let wire_of = place.clone();
        let task = tokio::spawn(async move {
            let connected = match node {
                Some(node) => reach(&server, &settings, &node).await,
                None => Err(io::Error::other("the node is not known any more")),
            };
            let how = match connected {
                Ok(stream) => {
                    let told = carry(stream, requests, (&waiting, &fewer), |bytes| {
                        let heard = heard.clone();
                        let place = place.clone();
                        async move { heard.send(Heard { place, number, news: News::Bytes(bytes) }).await.is_ok() }
                    });
                    if let Err(error) = told.await {
                        tracing::debug!(node = %place, %error, "a connection of forwarding was lost");
                    }
                    Closed::Lost
                }
                Err(error) => {
                    tracing::debug!(node = %place, %error, "can't forward to a node");
                    Closed::NeverConnected
                }
            };
            drop(heard.send(Heard { place, number, news: News::Closed(how) }).await);
        });
        self.wires.insert(wire_of, Wire { number, out, waiting_bytes, task });
    }
}

fn protocol_error(error: &ProtocolError) -> Bytes {
    let mut out = BytesMut::new();
    ReplyWriter::new(&mut out, Version::Resp2).error(error.to_bytes());
    out.freeze()
}

/// Connects to the port for clients of a node; encrypted if the cluster is, or if the node has no other port.
async fn reach(server: &Server, settings: &Settings, node: &Node) -> io::Result<Box<dyn Duplex>> {
    let transport =
        if settings.encrypts_bus() || node.port == node.tls_port { Transport::Tls } else { Transport::Plain };
    let address = (node.host.as_str(), node.reachable_port(transport));
    let socket = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await??;
    let socket = TcpStream::from_std(prepare(socket, settings)?)?;
    match transport {
        Transport::Plain => Ok(Box::new(socket)),
        Transport::Tls => {
            let material =
                server.tls.material().ok_or_else(|| io::Error::other("no certificate is loaded"))?;
            timeout(CONNECT_LIMIT, duplex::encrypt(socket, &node.host, &material)).await?
        }
    }
}

/// Carries bytes both ways until one side ends.
async fn carry<F: Future<Output = bool>>(
    stream: Box<dyn Duplex>,
    mut requests: mpsc::UnboundedReceiver<Bytes>,
    (waiting, fewer): (&AtomicUsize, &Notify),
    hear: impl Fn(BytesMut) -> F,
) -> io::Result<()> {
    let (mut from_node, mut to_node) = tokio::io::split(stream);
    let sends = async {
        let mut bytes = BytesMut::new();
        while let Some(request) = requests.recv().await {
            bytes.extend_from_slice(&request);
            while bytes.len() < READ_BYTES
                && let Ok(request) = requests.try_recv()
            {
                bytes.extend_from_slice(&request);
            }
            to_node.write_all(&bytes).await?;
            to_node.flush().await?;
            waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
            fewer.notify_one();
            bytes.clear();
        }
        Ok(())
    };
    let receives = async {
        loop {
            let mut bytes = BytesMut::with_capacity(READ_BYTES);
            if from_node.read_buf(&mut bytes).await? == 0 || !hear(bytes).await {
                return Ok(());
            }
        }
    };
    tokio::select! {
        sent = sends => sent,
        received = receives => received,
    }
}
