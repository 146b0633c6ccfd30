//! The I/O threads: each runs its own single-threaded runtime, owns its connections, and executes their commands.
//!
//! A listener accepts on the control runtime and hands new connections to the threads in turn. Beside its
//! connections a thread has one task that wakes those whose replies are held when the gate changes.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{self, Rc};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use bytes::Bytes;
use keyward_net::stream::Stream;
use keyward_net::tls::ServerConnection;
use keyward_proto::resp::{Batch, Output};
use keyward_replication::gate::Subscriber;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::acl::User;
use crate::admin::Request;
use crate::config::Settings;
use crate::execute::Executor;
use crate::io::clients::Client;
use crate::io::connection::{self, Connection};
use crate::io::meanwhile;
use crate::io::pass::{self, Pass};
use crate::io::pulse::Pulse;
use crate::io::session::Session;
use crate::server::Server;
use crate::stats::ThreadStats;

/// Wakes the task of a thread that looks after held replies.
struct GateChanged(Notify);

impl Wake for GateChanged {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// Bytes that one read may bring.
const READ_BYTES: usize = 64 << 10;
/// New connections that may wait for their thread.
const ACCEPTED_MAX: usize = 1024;
/// Requests to the control runtime that may wait.
const REQUESTS_MAX: usize = 64;

/// Something that a connection asks the control runtime for; the reply goes to the client.
#[derive(Debug)]
pub struct ControlRequest {
    pub request: Request,
    pub answer: oneshot::Sender<Bytes>,
    /// Wakes the connection when the answer is there.
    pub wake: Arc<Notify>,
}

/// What the connections of a thread share.
pub struct IoThread {
    server: Arc<Server>,
    pub executor: RefCell<Executor>,
    pub stats: Arc<ThreadStats>,
    pub input: RefCell<Box<[u8]>>,
    pub output: RefCell<Output>,
    pub batch: RefCell<Batch>,
    settings: RefCell<(u64, Arc<Settings>)>,
    pub(super) pass: Pass,
    subscriber: Arc<Subscriber>,
    /// Connections that hold replies, to look at when the gate changes.
    holders: RefCell<Vec<rc::Weak<RefCell<Connection>>>>,
    /// Clients to wake when the gate changes: a request of theirs was not admitted.
    gate_waiters: RefCell<Vec<Arc<Client>>>,
    /// Blocked clients, to wake when the node stops being a primary; may hold some that are not blocked any more.
    blocked: RefCell<Vec<Weak<Client>>>,
    generation: Cell<u64>,
    gate_events: Cell<u64>,
    control: mpsc::Sender<ControlRequest>,
    /// By the clients' numbers.
    pub(super) connections: RefCell<BTreeMap<u64, rc::Weak<RefCell<Connection>>>>,
    accepted: RefCell<mpsc::Receiver<Accepted>>,
}

impl std::fmt::Debug for IoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoThread")
    }
}

impl IoThread {
    pub fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn server_arc(&self) -> &Arc<Server> {
        &self.server
    }

    /// Takes the new connections that are there.
    pub(super) fn accept_ready(self: &Rc<Self>) {
        loop {
            let accepted = self.accepted.borrow_mut().try_recv();
            match accepted {
                Ok(accepted) => self.accept(accepted),
                Err(_) => return,
            }
        }
    }

    fn accept(self: &Rc<Self>, Accepted { socket, connection, client, user }: Accepted) {
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                let stream = match connection {
                    None => Stream::Plain(socket),
                    Some(connection) => Stream::encrypted(socket, *connection),
                };
                let ended_terms = self.server.shared.gate.ended_terms();
                let mut session = Session { ended_terms, ..Session::new(client) };
                match &user {
                    Some(user) => session.authenticate(user),
                    None => session.forget_user(&self.settings()),
                }
                tokio::task::spawn_local(connection::serve(connection::begin(stream, self, session)));
            }
            Err(error) => {
                tracing::warn!(%error, "a new connection was lost");
                self.server.clients.remove(client.id);
            }
        }
    }

    pub fn settings(&self) -> Arc<Settings> {
        let mut settings = self.settings.borrow_mut();
        let version = self.server.version();
        if settings.0 != version {
            *settings = (version, self.server.settings());
        }
        Arc::clone(&settings.1)
    }

    /// Looks at the settings as of the last call of [`IoThread::settings`], which comes before each batch.
    #[inline]
    pub fn read_settings<R>(&self, read: impl FnOnce(&Settings) -> R) -> R {
        read(&self.settings.borrow().1)
    }

    pub fn count_read(&self, client: &Client, bytes: usize) {
        client.net_in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.stats.net_in_bytes.add(bytes as u64);
        self.stats.reads.add(1);
    }

    pub fn count_written(&self, client: &Client, bytes: usize) {
        client.net_out_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.stats.net_out_bytes.add(bytes as u64);
        self.stats.writes.add(1);
    }

    /// This connection, which calls this once, holds replies until the gate changes.
    pub(super) fn add_holder(&self, connection: rc::Weak<RefCell<Connection>>) {
        self.holders.borrow_mut().push(connection);
        if self.subscriber.wait_for_commit() {
            self.pass.note_holder();
        }
    }

    /// Wakes this client when the gate changes.
    pub fn add_gate_waiter(&self, client: &Arc<Client>) {
        self.gate_waiters.borrow_mut().push(Arc::clone(client));
    }

    /// Looks which held replies may leave by now: they do at the end of the pass.
    pub(super) fn release_held(&self) {
        for connection in self.holders.take().iter().filter_map(rc::Weak::upgrade) {
            connection.borrow_mut().look_at_gate();
        }
    }

    /// How often the gate or the routing has changed: a request that was not admitted is tried again after that.
    pub fn gate_events(&self) -> u64 {
        self.gate_events.get()
    }

    /// Wakes this client when the node stops being a primary.
    pub fn add_blocked(&self, client: &Arc<Client>) {
        if self.server.shared.gate.is_standalone() {
            return;
        }
        let mut blocked = self.blocked.borrow_mut();
        if blocked.len() == blocked.capacity() {
            blocked.retain(|c| c.upgrade().is_some_and(|c| c.waiter.lock().is_some()));
        }
        blocked.push(Arc::downgrade(client));
    }

    /// Asks the control runtime.
    pub fn request(&self, request: Request, wake: Arc<Notify>) -> oneshot::Receiver<Bytes> {
        let (answer, receiver) = oneshot::channel();
        if self.control.try_send(ControlRequest { request, answer, wake }).is_err() {
            tracing::warn!("too many requests wait for the control runtime");
        }
        receiver
    }

    fn wake_holders(&self) {
        self.gate_events.set(self.gate_events.get() + 1);
        for client in self.gate_waiters.take() {
            client.wake.notify_one();
        }
        self.release_held();
        let generation = self.server.shared.gate.generation();
        if self.generation.replace(generation) != generation {
            for client in self.blocked.take().iter().filter_map(Weak::upgrade) {
                client.wake.notify_one();
            }
        }
        self.server.tell_of_ended_terms();
    }
}

/// Accepted connections on their way to a thread.
#[derive(Debug, Clone)]
pub struct ThreadHandle {
    accepted: mpsc::Sender<Accepted>,
}

/// A new connection.
#[derive(Debug)]
pub struct Accepted {
    pub socket: std::net::TcpStream,
    /// With TLS, after the handshake.
    pub connection: Option<Box<ServerConnection>>,
    pub client: Arc<Client>,
    /// Whom its certificate stands for.
    pub(crate) user: Option<Arc<User>>,
}

impl ThreadHandle {
    /// Hands a connection over; gives it back if the thread cannot take it.
    ///
    /// # Errors
    /// The thread's queue is full.
    pub fn send(&self, accepted: Accepted) -> Result<(), Box<Accepted>> {
        self.accepted.try_send(accepted).map_err(|e| Box::new(e.into_inner()))
    }
}

/// Starts the threads and returns where to send connections, and the requests that they make.
///
/// # Errors
/// The system refuses a thread.
pub fn start(
    server: &Arc<Server>,
    threads: usize,
) -> std::io::Result<(Vec<ThreadHandle>, mpsc::Receiver<ControlRequest>)> {
    let (control, requests) = mpsc::channel(REQUESTS_MAX);
    let pulses: Vec<Arc<Pulse>> = (0..threads).map(|_| Arc::default()).collect();
    assert!(server.io_pulses.set(pulses.clone()).is_ok(), "the threads are started once");
    let handles = pulses
        .into_iter()
        .enumerate()
        .map(|(number, pulse)| {
            let (accepted, receiver) = mpsc::channel(ACCEPTED_MAX);
            let (server, control) = (Arc::clone(server), control.clone());
            std::thread::Builder::new()
                .name(format!("io-{number}"))
                .spawn(move || run(server, receiver, control, pulse))?;
            Ok(ThreadHandle { accepted })
        })
        .collect::<std::io::Result<_>>()?;
    Ok((handles, requests))
}

fn run(
    server: Arc<Server>,
    accepted: mpsc::Receiver<Accepted>,
    control: mpsc::Sender<ControlRequest>,
    pulse: Arc<Pulse>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system has resources for an I/O thread");
    let executor = Executor::new(Arc::clone(&server), SmallRng::from_os_rng());
    let gate_changed = Arc::new(GateChanged(Notify::new()));
    let thread = Rc::new(IoThread {
        stats: Arc::clone(&executor.stats),
        executor: RefCell::new(executor),
        input: RefCell::new(vec![0; READ_BYTES].into()),
        output: RefCell::default(),
        batch: RefCell::default(),
        settings: RefCell::new((0, server.settings())),
        pass: Pass::default(),
        subscriber: server.shared.gate.subscribe(Waker::from(Arc::clone(&gate_changed))),
        holders: RefCell::default(),
        gate_waiters: RefCell::default(),
        blocked: RefCell::default(),
        generation: Cell::new(0),
        gate_events: Cell::new(0),
        control,
        connections: RefCell::default(),
        accepted: RefCell::new(accepted),
        server,
    });
    meanwhile::register(&thread);
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::task::spawn_local(async move { pulse.answer().await });
        tokio::task::spawn_local(pass::run(Rc::clone(&thread)));
        let waker = Rc::clone(&thread);
        tokio::task::spawn_local(async move {
            loop {
                gate_changed.0.notified().await;
                waker.wake_holders();
            }
        });
        // Borrowed only while it is polled: a script that takes long lets others look.
        while let Some(accepted) = std::future::poll_fn(|cx| thread.accepted.borrow_mut().poll_recv(cx)).await
        {
            thread.accept(accepted);
        }
    });
}
