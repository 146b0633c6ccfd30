//! A snapshot as an RDB file that a client reads from its connection: SYNC after `REPLCONF rdb-only 1`, as
//! `valkey-cli --rdb` asks for it, or SYNC alone, as `valkey-cli --cluster backup` does. The file comes between a mark
//! of 40 bytes and its repetition, for nobody knows its length before; who does not understand that is told the length,
//! for which the file is first written to the disk, and gets empty lines meanwhile.
//!
//! A thread writes the file into a queue, from which the connection takes as much as its client reads. Bounded: the
//! queue holds [`QUEUE_LEN`] pieces, and a client that takes none for [`PATIENCE`] loses its connection, as a snapshot
//! that does not go on costs memory with every write.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use keyward_proto::time::Monotonic;
use rand::Rng;
use rand::distr::Alphanumeric;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TryRecvError, error::TrySendError};

use super::save::{Failure, Purpose, write_file};
use super::{SETTLED_PATIENCE, Settled, wait_for};
use crate::io::session::SyncOptions;
use crate::server::Server;
use crate::{clock, process};

const PIECE_BYTES: usize = 64 << 10;
const QUEUE_LEN: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two empty lines for a client that waits for the length.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How often a full queue is looked at.
const FULL_POLL: Duration = Duration::from_millis(2);

#[derive(Debug)]
enum Message {
    Piece(Bytes),
    End,
}

/// The file on its way. Dropping it ends the thread.
#[derive(Debug)]
pub struct Download {
    messages: mpsc::Receiver<Message>,
}

/// What there is to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Piece(Bytes),
    NotYet,
    End,
    /// The file will not be completed; the log says why.
    Broken,
}

impl Download {
    /// `wake` is notified of each piece.
    pub fn start(server: &Arc<Server>, wanted: SyncOptions, wake: Arc<Notify>) -> Download {
        let (sender, messages) = mpsc::channel(QUEUE_LEN);
        let server = Arc::clone(server);
        let spawned = std::thread::Builder::new().name("download".into()).spawn(move || {
            process::run_in_background();
            let mut queue = Queue { messages: sender, wake, piece: BytesMut::new() };
            match run(&server, wanted, &mut queue) {
                Ok(bytes) => tracing::info!(bytes, "a client has read the database as a file"),
                Err(error) => {
                    tracing::warn!(%error, "a client that reads the database as a file is given up")
                }
            }
            // Without an end this tells the connection, too.
            let wake = Arc::clone(&queue.wake);
            drop(queue);
            wake.notify_one();
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to send the database as a file");
        }
        Download { messages }
    }

    pub fn take(&mut self) -> Next {
        match self.messages.try_recv() {
            Ok(Message::Piece(bytes)) => Next::Piece(bytes),
            Ok(Message::End) => Next::End,
            Err(TryRecvError::Empty) => Next::NotYet,
            Err(TryRecvError::Disconnected) => Next::Broken,
        }
    }
}

fn run(server: &Arc<Server>, wanted: SyncOptions, queue: &mut Queue) -> Result<u64, Failure> {
    let mut stream = server.snapshots.request(server, Box::new(|_| {}));
    let beginning = match stream.begin() {
        Ok(beginning) => beginning,
        Err(error) => {
            queue.write_all(format!("-ERR {error}\r\n").as_bytes())?;
            queue.end()?;
            return Err(error.into());
        }
    };
    // Nothing can be taken back of what has left.
    if wait_for(server, &beginning, SETTLED_PATIENCE) != Settled::True {
        queue.write_all(format!("-ERR {}\r\n", Failure::NotSettled).as_bytes())?;
        queue.end()?;
        return Err(Failure::NotSettled);
    }
    let functions = server.scripts.sources();
    let keys = if wanted.functions_only { None } else { Some((&beginning, &mut stream)) };
    let (settings, cancelled) = (server.settings(), AtomicBool::new(false));
    if !wanted.eof {
        let mut file = Unnamed { file: unnamed_file()?, queue, said: clock::monotonic() };
        let mut out = BufWriter::with_capacity(PIECE_BYTES, &mut file);
        write_file(&mut out, &settings, keys, &functions, &cancelled, Purpose::Dump)?;
        out.flush()?;
        drop(out);
        return file.send();
    }
    let mark: String = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect();
    queue.write_all(format!("$EOF:{mark}\r\n").as_bytes())?;
    let file = write_file(&mut *queue, &settings, keys, &functions, &cancelled, Purpose::Dump)?;
    queue.write_all(mark.as_bytes())?;
    queue.end()?;
    Ok(file.bytes)
}

/// Goes away with its last handle, whatever happens to this process.
fn unnamed_file() -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("temp-sync-{}-{}.rdb", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&name)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}

/// The file whose length has to be known before it is sent.
struct Unnamed<'a> {
    file: File,
    queue: &'a mut Queue,
    /// When the client last got an empty line.
    said: Monotonic,
}

impl Write for Unnamed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = clock::monotonic();
        if self.said + SIGN_OF_LIFE <= now {
            self.said = now;
            self.queue.write_all(b"\n")?;
            self.queue.flush()?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Unnamed<'_> {
    fn send(mut self) -> Result<u64, Failure> {
        let bytes = self.file.stream_position()?;
        self.file.rewind()?;
        self.queue.write_all(format!("${bytes}\r\n").as_bytes())?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let len = self.file.read(&mut piece)?;
            if len == 0 {
                break;
            }
            self.queue.write_all(&piece[..len])?;
        }
        self.queue.end()?;
        Ok(bytes)
    }
}

/// Collects what is written into pieces.
struct Queue {
    messages: mpsc::Sender<Message>,
    wake: Arc<Notify>,
    piece: BytesMut,
}

impl Queue {
    fn send(&mut self, message: Message) -> io::Result<()> {
        let deadline = clock::monotonic() + PATIENCE;
        let mut message = message;
        loop {
            message = match self.messages.try_send(message) {
                Ok(()) => {
                    self.wake.notify_one();
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "it has left"));
                }
                Err(TrySendError::Full(message)) => message,
            };
            if deadline <= clock::monotonic() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read"));
            }
            std::thread::sleep(FULL_POLL);
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Message::End)
    }
}

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if PIECE_BYTES <= self.piece.len() {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        if piece.is_empty() { Ok(()) } else { self.send(Message::Piece(piece)) }
    }
}
