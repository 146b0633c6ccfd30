//! A snapshot as its consumer reads it, and what all threads see of snapshots: who waits for one, how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyward_proto::ids::Position;
use keyward_replication::reply::ReplyCondition;
use keyward_store::snapshot::Records;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// The moment of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// Everything up to this entry of the write log is in the snapshot, and nothing after it.
    pub position: Position,
    /// What has to be true before anybody is shown what it holds.
    pub condition: ReplyCondition,
    /// Modifications of keys until then: see `rdb_changes_since_last_save`.
    pub changes: u64,
    /// Keys, about.
    pub keys: u64,
    /// The version of RDB in which all of it can be written.
    pub rdb_version: u32,
    /// How long commands were held up for it.
    pub pause: Duration,
}

/// A part of a snapshot.
#[derive(Debug)]
pub struct Chunk {
    /// Records of some entries, by database. In no order; no entry comes twice. A large one may go on in the next
    /// chunk: see [`Records::goes_on`].
    pub records: Vec<Records>,
    /// After this chunk all records of the slots below this number have been given, or of more slots.
    pub slots_done: u16,
    pub(super) _in_flight: InFlight,
}

/// Bytes of chunks that some stream still holds.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicUsize>, usize);

impl InFlight {
    pub(super) fn new(counter: &Arc<AtomicUsize>, bytes: usize) -> InFlight {
        counter.fetch_add(bytes, Ordering::Relaxed);
        InFlight(Arc::clone(counter), bytes)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Why a snapshot ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the keyspace is not complete: a full sync or the loading of a file is running")]
    Incomplete,
    #[error("the snapshot's thread has ended")]
    Ended,
}

#[derive(Debug)]
pub(super) enum Message {
    Begin(Beginning),
    Chunk(Arc<Chunk>),
    End,
    Refused(SnapshotError),
}

/// The snapshot, as its consumer reads it.
#[derive(Debug)]
pub struct Stream {
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) ended: bool,
}

impl Stream {
    /// Waits for the snapshot to begin. To be called first, once. Blocks.
    ///
    /// # Errors
    /// There will be no snapshot.
    pub fn begin(&mut self) -> Result<Beginning, SnapshotError> {
        match self.messages.blocking_recv() {
            Some(Message::Begin(beginning)) => Ok(beginning),
            Some(Message::Refused(error)) => Err(error),
            Some(Message::Chunk(_) | Message::End) | None => Err(SnapshotError::Ended),
        }
    }

    /// The next chunk, `None` after the last. Blocks.
    ///
    /// # Errors
    /// The snapshot is incomplete and will stay so.
    pub fn next_chunk(&mut self) -> Result<Option<Arc<Chunk>>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        match self.messages.blocking_recv() {
            Some(Message::Chunk(chunk)) => Ok(Some(chunk)),
            Some(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            Some(Message::Refused(error)) => Err(error),
            Some(Message::Begin(_)) | None => Err(SnapshotError::Ended),
        }
    }
}

/// Called while the world is stopped, with the position of the snapshot: no later entry is in the log yet. Must not
/// wait for anything.
pub type AtBeginning = Box<dyn FnOnce(Position) + Send>;

pub(super) struct Consumer {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) at_beginning: AtBeginning,
}

/// Asks for snapshots, and tells of the running one.
#[derive(Default)]
pub struct Snapshots {
    pub(super) waiting: Mutex<Waiting>,
    /// Bytes in streams.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// Most bytes that the snapshot has taken at a time, since its beginning.
    pub(super) peak_bytes: AtomicUsize,
    pub(super) keys_done: AtomicUsize,
    pub(super) keys_total: AtomicUsize,
    /// Somebody waits for the end: the walk takes no breath.
    pub(super) hurries: AtomicBool,
    /// Microseconds for which the last beginning held up commands.
    pub(super) pause_micros: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) consumers: Vec<Consumer>,
    /// The thread is there and will look at `consumers` again.
    pub(super) has_thread: bool,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshots")
    }
}

/// What INFO tells of the running snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub keys_done: usize,
    pub keys_total: usize,
    /// Bytes that the snapshot takes now: old values that writers had to save, and chunks that wait.
    pub bytes: usize,
    pub peak_bytes: usize,
}

impl Snapshots {
    /// The running or the next snapshot goes as fast as it can, at the cost of commands on a machine with few cores.
    pub fn hurry(&self) {
        self.hurries.store(true, Ordering::Relaxed);
    }

    /// Most bytes that the running or the last snapshot has taken at a time.
    pub fn peak_bytes(&self) -> usize {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Microseconds for which the last beginning of a snapshot held up commands.
    pub fn pause_micros(&self) -> usize {
        self.pause_micros.load(Ordering::Relaxed)
    }
}
