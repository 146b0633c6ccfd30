//! The task that feeds one replica's stream: a snapshot if one is due, then the log, for ever.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyward_proto::ids::{LogIndex, Position, Term};
use keyward_proto::rpc::FollowResponse;
use keyward_proto::rpc::follow_response::Message;
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_replication::core::Config;
use keyward_replication::core::full_sync::{SlotReader, SnapshotSender};
use keyward_replication::core::full_sync::{SlotSnapshot, SnapshotEnded};
use keyward_replication::core::messages::{Append, Chunk, LinkId, SnapshotPart, Start, SyncKind};
use keyward_replication::core::received::Resume;
use keyward_replication::core::stream::LogStream;
use keyward_replication::log::Slice;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinError;
use tonic::Status;

use super::shared::{Engine, LargeSlots, LogHistory, Shared};
use super::wire;
use crate::clock;
use crate::control;

/// A replica that takes nothing of a full sync for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a stream's messages go; bounded, so that a slow replica stops its sender.
pub(crate) type Outbox = mpsc::Sender<Result<FollowResponse, Status>>;

/// Where one replica's messages go, and how large they may be.
#[derive(Clone)]
pub(crate) struct Outlet {
    pub(crate) outbox: Outbox,
    /// Of entries in one message, at most.
    pub(crate) append_bytes: usize,
}

/// What the replication task tells a sender.
pub(crate) struct Signals {
    /// There may be something to send.
    pub(crate) wake: Arc<Notify>,
    /// When the replica was last heard: nanoseconds of the monotonic clock.
    pub(crate) heard_at: Arc<AtomicU64>,
}

/// Woken for new entries, which are kept for it, as long as this lives.
struct Reader<'a> {
    shared: &'a Shared,
    signals: Signals,
    id: u64,
}

impl Reader<'_> {
    /// Tells the stream what its next message says; the log is locked, so that the term is not over. `None` if it is.
    fn prepare(&self, stream: &mut LogStream, term: Term) -> Option<LogIndex> {
        if self.shared.sending_term() != term {
            return None;
        }
        stream.heard(Monotonic::from_nanos(self.signals.heard_at.load(Ordering::Relaxed)));
        stream.ask_for_lease(self.shared.lease());
        Some(self.shared.gate.commit_index())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.shared.remove_reader(&self.signals.wake);
        self.shared.log.lock().unpin(self.id);
    }
}

/// Runs until the replica is gone, the term is over, or the log has been trimmed beyond what the replica needs.
pub(crate) async fn run(
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    (link, start, resume): (LinkId, Start, Option<Resume>),
    config: &Config,
    Outlet { outbox: out, append_bytes }: Outlet,
    signals: Signals,
) {
    shared.add_reader(Arc::clone(&signals.wake));
    let reader = Reader { shared: &shared, signals, id: link.0 };
    let keyspace_bytes = engine.memory_bytes();
    let begin = {
        let mut log = shared.log.lock();
        let begin = log.last();
        let from = resume.as_ref().map_or(begin.index, |r| r.from.index);
        match start.sync {
            SyncKind::Partial(_) => log.pin(link.0, from),
            SyncKind::Full | SyncKind::Resume(_) => log.pin_for_keyspace(link.0, from, keyspace_bytes),
        }
        begin
    };
    if out.send(Ok(wire::response(Message::Start(wire::encode_start(start))))).await.is_err() {
        return;
    }
    let after = match start.sync {
        SyncKind::Partial(from) => from.index,
        SyncKind::Full | SyncKind::Resume(_) => {
            let snapshot = match resume {
                Some(resume) => SnapshotSender::resume(start.term, resume),
                None => SnapshotSender::new(start.term, begin),
            };
            match send_snapshot(&shared, &engine, snapshot, config.grace, &out).await {
                Some(snapshot) => snapshot.from().index,
                None => return,
            }
        }
    };
    let stream = LogStream::new(start.term, after, config.beacon_interval(), append_bytes);
    let Some(stream) = send_history(&reader, &engine, stream, start.term, &out).await else { return };
    send_log(&reader, stream, start.term, &out).await;
}

/// Between two attempts to read the files; a batch that is being written may be met in between.
const HISTORY_PAUSE: Duration = Duration::from_millis(10);
/// So often in a row the files may give nothing new.
const HISTORY_ATTEMPTS: u32 = 5;

/// How often the files were opened again without giving anything new.
#[derive(Debug, Default)]
struct Attempts {
    sent: LogIndex,
    failed: u32,
}

impl Attempts {
    /// The files have ended, and what is sent is this.
    fn may_open_again(&mut self, sent: LogIndex) -> bool {
        if self.sent < sent {
            *self = Attempts { sent, failed: 0 };
        }
        self.failed += 1;
        self.failed < HISTORY_ATTEMPTS
    }
}

/// Sends what is on the disk only, until the log in memory goes on from there. `None` if that ends the stream.
async fn send_history(
    reader: &Reader<'_>,
    engine: &Arc<dyn Engine>,
    mut stream: LogStream,
    term: Term,
    out: &Outbox,
) -> Option<LogStream> {
    let shared = reader.shared;
    let mut history: Option<Box<dyn LogHistory>> = None;
    let mut attempts = Attempts::default();
    while stream.sent().next() < shared.log.lock().first_index() {
        let (engine, next, opened) = (Arc::clone(engine), stream.sent().next(), history.take());
        let read = control::blocking(move || {
            let mut history = opened.or_else(|| engine.read_history(next)).ok_or("the files were deleted")?;
            let slice = history.read()?;
            Ok::<_, String>((history, slice))
        });
        // A slow disk is not silence.
        let read = meanwhile(read, stream.beacon(), out, || beacon_only(reader, &mut stream, term));
        let (slice, now) = match read.await? {
            Ok((opened, slice)) => {
                history = Some(opened);
                (slice, clock::monotonic())
            }
            // The files were opened a while ago, and the log in memory has gone on since.
            Err(_) if attempts.may_open_again(stream.sent()) => {
                tokio::time::sleep(HISTORY_PAUSE).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(error, "the write log on disk does not give what a replica needs");
                shared.log.lock().set_first_on_disk(None);
                return None;
            }
        };
        let append = {
            let mut log = shared.log.lock();
            let commit = reader.prepare(&mut stream, term)?;
            let is_beacon_due = stream.wake_at(commit) <= now;
            match slice {
                Some(slice) if log.agrees_with(&slice) => Some(stream.append(now, slice, commit)),
                Some(slice) => {
                    tracing::warn!(first = %slice.first, "the write log on disk is of another history");
                    log.set_first_on_disk(None);
                    return None;
                }
                None if is_beacon_due => {
                    let index = stream.sent();
                    let previous = Position { term: log.term_at(index)?, index };
                    Some(stream.append(now, Slice::empty(previous), commit))
                }
                None => None,
            }
        };
        if let Some(append) = append {
            send_append(append, out).await?;
        }
        while let Some(part) = next_part(reader, &mut stream, term)? {
            send_append(part, out).await?;
        }
    }
    Some(stream)
}

/// A message with more of the entries that were begun, if some were. `None` if the term is over.
fn next_part(reader: &Reader<'_>, stream: &mut LogStream, term: Term) -> Option<Option<Append>> {
    let _log = reader.shared.log.lock();
    let commit = reader.prepare(stream, term)?;
    Some(stream.next_part(clock::monotonic(), commit))
}

/// The result of what has to wait; every so often while it does something is said, if there is anything to say.
async fn meanwhile<R>(
    read: impl Future<Output = Result<R, JoinError>>,
    every: Duration,
    out: &Outbox,
    mut say: impl FnMut() -> Option<Message>,
) -> Option<R> {
    tokio::pin!(read);
    loop {
        match tokio::time::timeout(every, &mut read).await {
            Ok(read) => return read.ok(),
            Err(_) => {
                if let Some(message) = say() {
                    out.send(Ok(wire::response(message))).await.ok()?;
                }
            }
        }
    }
}

/// A message without entries. `None` if the term is over.
fn beacon_only(reader: &Reader<'_>, stream: &mut LogStream, term: Term) -> Option<Message> {
    let shared = reader.shared;
    let log = shared.log.lock();
    let commit = reader.prepare(stream, term)?;
    let index = stream.sent();
    let previous = Position { term: log.term_at(index)?, index };
    let append = stream.append(clock::monotonic(), Slice::empty(previous), commit);
    Some(Message::Append(wire::encode_append(append)))
}

/// `None` if the replica is gone.
async fn send_append(append: Append, out: &Outbox) -> Option<()> {
    out.send(Ok(wire::response(Message::Append(wire::encode_append(append))))).await.ok()
}

/// `None` if the replica is gone or the term is over.
async fn send_snapshot(
    shared: &Arc<Shared>,
    engine: &Arc<dyn Engine>,
    mut snapshot: SnapshotSender,
    silence_max: Duration,
    out: &Outbox,
) -> Option<SnapshotSender> {
    let (term, from) = (snapshot.term(), snapshot.from());
    let mut reader = Slots { shared: Arc::clone(shared), engine: Arc::clone(engine), large: None };
    loop {
        // Reading takes its time; beacons to the others must not wait for it.
        let read = control::blocking(move || {
            let chunk = snapshot.next_chunk(clock::monotonic(), &mut reader);
            (chunk, snapshot, reader)
        });
        let empty = || wire::encode_chunk(Chunk::empty(term, clock::monotonic(), from));
        let read = meanwhile(read, silence_max, out, || Some(Message::Snapshot(empty())));
        let (chunk, snapshot_back, reader_back) = read.await?;
        (snapshot, reader) = (snapshot_back, reader_back);
        if shared.sending_term() != term {
            return None;
        }
        match chunk {
            Ok(None) => return Some(snapshot),
            // A replica that takes nothing for so long must not hold up whoever shares the snapshot.
            Ok(Some(chunk)) => {
                let message = Ok(wire::response(Message::Snapshot(wire::encode_chunk(chunk))));
                tokio::time::timeout(PATIENCE, out.send(message)).await.ok()?.ok()?;
            }
            Err(error) => {
                tracing::warn!(%error, "a full sync breaks off");
                return None;
            }
        }
    }
}

/// The slots of the engine.
struct Slots {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    large: Option<Box<dyn LargeSlots>>,
}

impl SlotReader for Slots {
    fn read(&mut self, slot: Slot) -> Option<SlotSnapshot> {
        self.engine.read_slot(slot, &self.shared)
    }

    fn read_large(&mut self, slots: &[Slot]) -> Result<Vec<SnapshotPart>, SnapshotEnded> {
        self.large.get_or_insert_with(|| self.engine.read_large_slots(slots)).next_parts()
    }

    fn last_index(&self) -> LogIndex {
        self.shared.log.lock().last().index
    }
}

async fn send_log(reader: &Reader<'_>, mut stream: LogStream, term: Term, out: &Outbox) {
    let shared = reader.shared;
    loop {
        let now = clock::monotonic();
        let (next, wake_at) = {
            let mut log = shared.log.lock();
            // Under this lock a term that is over cannot be mistaken for the one that goes on.
            let Some(commit) = reader.prepare(&mut stream, term) else { return };
            let next = stream.next_append(now, &mut log, commit);
            log.pin(reader.id, stream.sent());
            (next, stream.wake_at(commit))
        };
        match next {
            Ok(Some(append)) => {
                if send_append(append, out).await.is_none() {
                    return;
                }
            }
            Ok(None) => {
                tokio::select! {
                    () = reader.signals.wake.notified() => {}
                    () = tokio::time::sleep(clock::until(wake_at)) => {}
                    () = out.closed() => return,
                }
            }
            Err(trimmed) => {
                tracing::warn!(%trimmed, "a replica is too far behind: its stream ends, a full sync follows");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_give_something_new_are_opened_as_often_as_it_takes() {
        let mut attempts = Attempts::default();
        assert!((1..100).all(|sent| attempts.may_open_again(LogIndex::new(sent))));
        let more = (0..10).take_while(|_| attempts.may_open_again(LogIndex::new(99))).count();
        assert_eq!(more, HISTORY_ATTEMPTS as usize - 2, "and a few times for nothing");
        assert!(attempts.may_open_again(LogIndex::new(100)));
    }
}
