//! Handshakes, on threads of their own.
//!
//! A handshake is about a millisecond of arithmetic, and anybody may begin one. So it runs neither on a thread that
//! executes commands nor beside what keeps promises to other processes, but on threads of a lower priority: a flood of
//! handshakes takes what the others leave, and waits itself. Only a connection that has shaken hands is given to whoever
//! serves it. So many handshakes may be under way, and each may last so long: half of one costs little, but not nothing.
#![allow(clippy::disallowed_methods, reason = "shell: threads, and a time limit")]

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use rustls::{ServerConfig, ServerConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Handshakes under way. One of them may hold up to 64 KB that its client has sent.
const UNDER_WAY_MAX: usize = 1024;
/// How long one may last, with the time in which it waits for others.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How much lower than others the priority of these threads is: they get a third of what another thread gets.
const NICENESS: i32 = 5;

/// A connection that has shaken hands.
#[derive(Debug)]
pub struct Shaken {
    pub socket: TcpStream,
    pub connection: ServerConnection,
}

/// Room for one handshake; given back when it is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "dropping it is its use")] OwnedSemaphorePermit);

/// What a thread is to do.
struct Job {
    socket: TcpStream,
    config: Arc<ServerConfig>,
    shaken: oneshot::Sender<io::Result<Shaken>>,
    room: Room,
}

/// The threads. They end with this.
#[derive(Debug)]
pub struct Handshakes {
    threads: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
    rooms: Arc<Semaphore>,
}

impl Handshakes {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// The system refuses one.
    pub fn start(threads: usize) -> io::Result<Handshakes> {
        let start = |number: usize| {
            let (sender, receiver) = mpsc::channel(UNDER_WAY_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new()
                .name(format!("tls-{number}"))
                .spawn(move || run(&runtime, receiver))?;
            Ok(sender)
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        let rooms = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Ok(Handshakes { threads, next: AtomicUsize::new(0), rooms })
    }

    /// Waits until one more may be under way. Whoever accepts connections asks first: others wait in the kernel.
    pub async fn room(&self) -> Room {
        Room(Arc::clone(&self.rooms).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        UNDER_WAY_MAX.saturating_sub(self.rooms.available_permits())
    }

    /// Shakes hands with a client. Whoever drops this ends the connection.
    ///
    /// # Errors
    /// Why that has failed; the client has been told if it can be. `TimedOut`: it took too long.
    pub async fn shake(
        &self,
        socket: TcpStream,
        config: Arc<ServerConfig>,
        room: Room,
    ) -> io::Result<Shaken> {
        let (shaken, result) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let ended = |_| io::Error::other("the thread for handshakes has ended");
        let job = Job { socket, config, shaken, room };
        self.threads[number].send(job).await.map_err(|_| io::Error::other("too many handshakes wait"))?;
        result.await.map_err(ended)?
    }
}

fn run(runtime: &tokio::runtime::Runtime, mut jobs: mpsc::Receiver<Job>) {
    if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::debug!(%error, "the thread for handshakes has the priority of others");
    }
    runtime.block_on(async {
        while let Some(job) = jobs.recv().await {
            tokio::spawn(work(job));
        }
    });
}

async fn work(Job { socket, config, mut shaken, room }: Job) {
    let result = tokio::select! {
        biased;
        () = shaken.closed() => return,
        result = timeout(HANDSHAKE_LIMIT, shake(socket, config)) => result,
    };
    let result = result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    drop(room);
    if shaken.send(result).is_err() {
        tracing::trace!("nobody waits for a handshake any more");
    }
}

async fn shake(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Shaken> {
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let (socket, connection) = TlsAcceptor::from(config).accept(socket).await?.into_inner();
    Ok(Shaken { socket: socket.into_std()?, connection })
}
