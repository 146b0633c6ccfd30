//! Snapshots of the whole keyspace at one index of the write log, for whoever writes them somewhere: BGSAVE and SAVE
//! ([`save`]), a client ([`download`]), the base file of an AOF rewrite, a full sync.
//!
//! How a snapshot is taken while commands go on is told in [`keyward_store::snapshot`]; here is the thread that
//! drives the walk. One snapshot runs at a time. Whoever asks while none runs, and all who ask while one does, share
//! the next one: [`Snapshots::request`] gives a [`Stream`] whose first message is the [`Beginning`] and whose others
//! are [`Chunk`]s of RDB records.
//!
//! Bounded: a stream holds a few chunks; while it is full the walk waits, and only what writers have to save
//! meanwhile takes memory. Records that writers saved leave before the walk goes on. A stream that is dropped leaves
//! the snapshot; when the last one has left, the walk ends without writing records.

#![allow(clippy::disallowed_methods, reason = "a shell")]

pub mod download;
pub mod rules;
pub mod save;
pub mod saves;
pub mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_proto::ids::Position;
use keyward_replication::gate::GateState;
use keyward_replication::reply::{Fate, ReplyCondition};
use keyward_store::access::AccessClock;
use keyward_store::entry::{Entry, ValueRef};
use keyward_store::rdb::Compression;
use keyward_store::rdb::record::{self, Access};
use keyward_store::rdb::value::pieces;
use keyward_store::snapshot::large::Element;
use keyward_store::snapshot::{Encode, Form, PieceLimit, Records, Walk};
use keyward_store::types;
use keyward_store::types::quicklist::Node;
use keyward_store::types::stream::StreamNode;
use tokio::sync::mpsc;

use crate::clock;
use crate::config::Settings;
use crate::process;
use crate::server::Server;
pub use stream::{AtBeginning, Beginning, Chunk, Progress, SnapshotError, Snapshots, Stream};
use stream::{Consumer, InFlight, Message};

/// Bytes of records of one chunk, about.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait in a stream.
const STREAM_LEN: usize = 4;
/// The longest pause of the walk after a chunk.
const BREATH_MAX: Duration = Duration::from_millis(2);
/// What a snapshot holds is committed within this, or whoever wants it does not get it.
const SETTLED_PATIENCE: Duration = Duration::from_secs(5);
const SETTLED_POLL: Duration = Duration::from_millis(2);
/// What the walk does under one lock: some tens of microseconds.
const PIECE: PieceLimit = PieceLimit { entries: 256, bytes: 32 << 10 };

impl Snapshots {
    /// Asks for a snapshot that begins after this call.
    ///
    /// For the base file of an AOF rewrite: `at_beginning` is told the position X of the snapshot while no command
    /// runs, so everything up to X belongs to the base, and every entry after X, none of which is in the log of a
    /// primary yet, to the new incremental file. (A replica's log may hold entries beyond X that are not committed
    /// and so not applied: they belong to the new incremental file too.) Until the new base is complete the old files
    /// stay valid, and if the stream ends with an error nothing has changed.
    pub fn request(&self, server: &Arc<Server>, at_beginning: AtBeginning) -> Stream {
        let (sender, messages) = mpsc::channel(STREAM_LEN);
        let mut waiting = self.waiting.lock();
        waiting.consumers.push(Consumer { messages: sender, at_beginning });
        if !waiting.has_thread {
            let server = Arc::clone(server);
            let spawned = std::thread::Builder::new().name("snapshot".into()).spawn(move || run(&server));
            match spawned {
                Ok(_) => waiting.has_thread = true,
                // The streams say so: nobody sends to them.
                Err(error) => {
                    tracing::warn!(%error, "no thread for a snapshot");
                    waiting.consumers.clear();
                }
            }
        }
        Stream { messages, ended: false }
    }

    pub fn progress(&self, server: &Server) -> Progress {
        if !self.waiting.lock().has_thread {
            return Progress::default();
        }
        Progress {
            keys_done: self.keys_done.load(Ordering::Relaxed),
            keys_total: self.keys_total.load(Ordering::Relaxed),
            bytes: self.bytes(server),
            peak_bytes: self.peak_bytes.load(Ordering::Relaxed),
        }
    }

    fn bytes(&self, server: &Server) -> usize {
        server.keyspace.cow.held_bytes() + self.in_flight.load(Ordering::Relaxed)
    }
}

/// The thread: takes snapshots as long as somebody waits for one.
fn run(server: &Arc<Server>) {
    process::run_in_background();
    let snapshots = &server.snapshots;
    loop {
        {
            let mut waiting = snapshots.waiting.lock();
            if waiting.consumers.is_empty() {
                waiting.has_thread = false;
                return;
            }
        }
        take(server);
    }
}

/// As of any reply that has read the keyspace: the snapshot of a primary is true if it held the lease afterwards, and
/// what is in it is committed. With the world stopped.
fn condition(server: &Server, position: Position) -> ReplyCondition {
    let gate = &server.shared.gate;
    // Alone, no other node can know better, whatever becomes of the disk.
    if gate.is_standalone() {
        return ReplyCondition::default();
    }
    let mut condition = ReplyCondition::of_entry(position.index, gate.generation());
    if gate.state() == GateState::Primary {
        condition.require_lease();
    }
    condition
}

/// Waits until what a snapshot holds may be shown. Blocks.
fn wait_for(server: &Server, beginning: &Beginning, patience: Duration) -> Settled {
    let end = clock::monotonic() + patience;
    loop {
        match beginning.condition.fate(&server.shared.gate, clock::monotonic) {
            Fate::Leaves => return Settled::True,
            Fate::Unknown => return Settled::Unknown,
            Fate::Waits if end <= clock::monotonic() => return Settled::NotYet,
            Fate::Waits => std::thread::sleep(SETTLED_POLL),
        }
    }
}

/// Whether what a snapshot holds is what the shard has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    True,
    /// The node has changed its role meanwhile.
    Unknown,
    NotYet,
}

/// One snapshot, for all who wait.
fn take(server: &Arc<Server>) {
    let snapshots = &server.snapshots;
    // Only a hint, so the world need not be stopped for it.
    let keys = server.keyspace.counts.keys();
    let started = clock::monotonic();
    let stopped = server.world.stop();
    let waiting = std::mem::take(&mut snapshots.waiting.lock().consumers);
    if !server.is_complete() {
        drop(stopped);
        let refused = |c: Consumer| c.messages.blocking_send(Message::Refused(SnapshotError::Incomplete));
        waiting.into_iter().for_each(|consumer| drop(refused(consumer)));
        return;
    }
    let position = server.executed_position();
    let condition = condition(server, position);
    let changes = server.stats.sum(|t| &t.changes);
    let encoder = Arc::new(RecordEncoder::new(&server.settings()));
    let mut walk = Walk::begin(&server.keyspace, encoder);
    let mut consumers: Vec<mpsc::Sender<Message>> = Vec::new();
    for consumer in waiting {
        (consumer.at_beginning)(position);
        consumers.push(consumer.messages);
    }
    drop(stopped);
    let pause = clock::monotonic().since(started);
    let micros = usize::try_from(pause.as_micros()).unwrap_or(usize::MAX);
    snapshots.pause_micros.store(micros, Ordering::Relaxed);
    snapshots.keys_total.store(keys, Ordering::Relaxed);
    snapshots.keys_done.store(0, Ordering::Relaxed);
    snapshots.peak_bytes.store(0, Ordering::Relaxed);
    let rdb_version = server.keyspace.rdb_version();
    let beginning = Beginning { position, condition, changes, keys: keys as u64, rdb_version, pause };
    send(&mut consumers, || Message::Begin(beginning));
    let mut started = clock::monotonic();
    while let Some(chunk) = next_chunk(server, &mut walk) {
        let worked = clock::monotonic().since(started);
        let bytes = snapshots.bytes(server);
        snapshots.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
        let chunk = Arc::new(chunk);
        send(&mut consumers, || Message::Chunk(Arc::clone(&chunk)));
        if consumers.is_empty() {
            walk.discard(&server.keyspace);
        }
        if !snapshots.hurries.load(Ordering::Relaxed) {
            // Half of a core at most: the others may be few, and commands come first.
            std::thread::sleep(worked.min(BREATH_MAX));
        }
        started = clock::monotonic();
    }
    walk.end(&server.keyspace);
    snapshots.hurries.store(false, Ordering::Relaxed);
    send(&mut consumers, || Message::End);
}

/// Collections with so many elements are saved in pieces.
const LARGE_ELEMENTS: usize = 1024;
/// Strings with so many bytes are saved in pieces, and are not compressed.
const LARGE_STRING: usize = 128 << 10;

/// Entries as records of a file.
struct RecordEncoder {
    compression: Compression,
    clock: AccessClock,
    is_lru: bool,
}

impl RecordEncoder {
    fn new(settings: &Settings) -> RecordEncoder {
        RecordEncoder {
            compression: settings.rdb_compression,
            clock: AccessClock::new(clock::monotonic(), settings.keys.lfu),
            is_lru: settings.maxmemory_policy.is_lru(),
        }
    }

    /// What stands before the value.
    fn encode_key(&self, entry: &Entry, out: &mut Vec<u8>) {
        let access = self.access(entry);
        record::save_head(entry.key(), entry.value(), entry.expire_at(), access, self.compression, out);
    }

    /// As in Valkey, what the policy does not use is not saved.
    fn access(&self, entry: &Entry) -> Option<Access> {
        match entry.access() {
            access if self.clock.is_lfu() => Some(Access::Frequency(self.clock.frequency(access))),
            access if self.is_lru => Some(Access::IdleSeconds(self.clock.idle_seconds(access).into())),
            _ => None,
        }
    }
}

impl Encode for RecordEncoder {
    fn encode(&self, entry: &Entry, out: &mut Vec<u8>) {
        // Whoever is about to change a long string waits for this.
        let compression = if self.form(entry) == Form::Small { self.compression } else { Compression::None };
        let access = self.access(entry);
        record::save(entry.key(), entry.value(), entry.expire_at(), access, compression, out);
    }

    fn form(&self, entry: &Entry) -> Form {
        let value = entry.value();
        match (value, pieces::elements(value)) {
            (ValueRef::String(_), LARGE_STRING..) => Form::LongString,
            (ValueRef::String(_), _) => Form::Small,
            (_, LARGE_ELEMENTS..) => Form::LargeCollection,
            _ => Form::Small,
        }
    }

    fn encode_string_piece(
        &self,
        entry: &Entry,
        at: Option<usize>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let ValueRef::String(string) = entry.value() else { return None };
        if at.is_none() {
            self.encode_key(entry, out);
        }
        pieces::save_string_piece(string, at, bytes, out)
    }

    fn encode_head(&self, entry: &Entry, out: &mut Vec<u8>) {
        self.encode_key(entry, out);
        pieces::save_count(entry.value(), out);
    }

    fn encode_element(&self, element: Element<'_>, out: &mut Vec<u8>) {
        pieces::save_element(element, self.compression, out);
    }

    fn encode_node(&self, node: &Node, out: &mut Vec<u8>) {
        pieces::save_node(node, self.compression, out);
    }

    fn encode_stream_node(&self, node: &StreamNode, out: &mut Vec<u8>) {
        pieces::save_stream_node(node, self.compression, out);
    }

    fn encode_end(&self, stream: &types::Stream, out: &mut Vec<u8>) {
        pieces::save_end(stream, self.compression, out);
    }
}

/// Waits for those who are slow; forgets those who are gone.
fn send(consumers: &mut Vec<mpsc::Sender<Message>>, message: impl Fn() -> Message) {
    consumers.retain(|consumer| consumer.blocking_send(message()).is_ok());
}

/// `None` after the last.
fn next_chunk(server: &Server, walk: &mut Walk) -> Option<Chunk> {
    let (space, snapshots) = (&server.keyspace, &server.snapshots);
    let slots_done = walk.slots_walked();
    let mut records: Vec<Records> = Vec::new();
    walk.take_saved(space, &mut records);
    let mut more = true;
    while more && records.iter().map(|r| r.bytes.len()).sum::<usize>() < CHUNK_BYTES {
        more = walk.step(space, PIECE, &mut records);
    }
    if !more {
        // Nothing is left that a writer could save after this.
        walk.take_saved(space, &mut records);
    }
    records.retain(|r| !r.bytes.is_empty());
    if records.is_empty() && !more {
        return None;
    }
    let keys: u64 = records.iter().map(|r| r.keys).sum();
    snapshots.keys_done.fetch_add(usize::try_from(keys).unwrap_or(0), Ordering::Relaxed);
    let bytes = records.iter().map(|r| r.bytes.capacity()).sum();
    let slots_done = if walk.has_taken(space) { 0 } else { slots_done };
    Some(Chunk { records, slots_done, _in_flight: InFlight::new(&snapshots.in_flight, bytes) })
}
