//! One client's connection: bytes in, batches executed, replies out.
//!
//! The connection is a task on the thread that executes its commands. It reads into a buffer of the thread and executes
//! every complete request; the replies are written at the end of the thread's [pass](super::pass). Only what is left over
//! (half a request, replies that the socket did not take) is kept in buffers of its own, so an idle client costs little
//! memory.
//!
//! **Held replies.** With replication, replies wait in the [`Outbox`] until what they tell of is certain. If it may
//! have been lost the connection is closed: the outcome is unknown, as after a crash.
//!
//! **Stalls.** A request that has to wait (blocking command, no lease, pause) stalls the connection: it goes on
//! reading up to a bound, so that it notices a disconnect, but executes nothing until the stall is over. What ends it
//! is decided by [`super::wait`]; what is read and executed while much waits for the client, by [`super::flow`].
//!
//! **Strangers.** Who has to authenticate may send only small requests. They are executed one at a time, so that the
//! one behind AUTH is looked at under the limits that hold then; and when authentication is lost, what has come of a
//! large request is looked at again.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::{self, Rc};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use keyward_net::stream::Stream;
use keyward_net::tls::failures::{ALERT, is_hello};
use keyward_proto::resp::{Batch, Limits, Output, ProtocolError, ReplyWriter, RequestReader, Version};
use keyward_replication::reply::ReplyCondition;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::clients::Client;
use super::flow::{Backlog, Backpressure, Bounds, Phase};
use super::outbox::{Outbox, Put};
use super::pass::DEFERRED_BYTES_MAX;
use super::session::{ReplyMode, Session};
use super::threads::IoThread;
use super::wait::{Afterwards, Answer, GatePatience, Outcome, REPLICAS_POLL, Surroundings, Wait};
use crate::blocking::{Blocked, Ending, Look, Served};
use crate::clock;
use crate::execute::{BatchEnd, Meanwhile, Patience, Stop};
use crate::snapshot::download::{Download, Next};

/// Requests executed before replies are written and other connections get their turn.
const BATCH_MAX: usize = 128;
/// Pieces of output that one call writes.
const WRITTEN_PIECES: usize = 64;
/// How long a connection waits at least for the end of CLIENT PAUSE.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How much of a file waits for a client that reads it.
const DOWNLOAD_OUTPUT_BYTES: usize = 1 << 20;
/// A client that has sent this part of an argument gets room for all of it.
const BELIEVED_PART: usize = 64;

/// Why nothing is executed at the moment.
enum Stall {
    Wait(Wait),
    Await(oneshot::Receiver<Bytes>),
    /// SYNC: the file is sent as the client reads it.
    Download(Download),
}

/// One client's connection. Its task borrows it only while it is polled, so that between two polls the thread can serve it
/// otherwise.
pub(super) struct Connection {
    me: rc::Weak<RefCell<Connection>>,
    stream: Stream,
    thread: Rc<IoThread>,
    client: Arc<Client>,
    session: Session,
    reader: RequestReader,
    /// Bytes that are not executed yet.
    input: BytesMut,
    outbox: Outbox,
    /// It is among those that write at the end of the pass.
    writes_in_pass: bool,
    /// The socket takes nothing at the moment: its task writes when it does.
    awaits_socket: bool,
    /// It is among those that are looked at when the gate changes.
    is_holder: bool,
    stall: Option<Stall>,
    /// End of the stall's patience.
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Of the first request in `input`.
    patience: GatePatience,
    backpressure: Backpressure,
    /// Close when all replies have left.
    closing: bool,
    /// The client may be sending still, and shall be able to read why the connection ends.
    lingers: bool,
    /// The client has left: replies go nowhere.
    gone: bool,
}

/// What woke the connection.
#[derive(Debug, Clone, Copy)]
struct Awake {
    received: usize,
    end_of_stream: bool,
    why: Look,
}

/// The connection of a new client, known to its thread.
pub(super) fn begin(stream: Stream, thread: &Rc<IoThread>, session: Session) -> Rc<RefCell<Connection>> {
    let client = Arc::clone(&session.client);
    client.fd.store(stream.as_raw_fd(), Ordering::Relaxed);
    let id = client.id;
    let connection = Rc::new_cyclic(|me| {
        RefCell::new(Connection {
            me: rc::Weak::clone(me),
            stream,
            thread: Rc::clone(thread),
            client,
            session,
            reader: RequestReader::default(),
            input: BytesMut::new(),
            outbox: Outbox::default(),
            writes_in_pass: false,
            awaits_socket: false,
            is_holder: false,
            stall: None,
            timer: None,
            patience: GatePatience::default(),
            backpressure: Backpressure::default(),
            closing: false,
            lingers: false,
            gone: false,
        })
    });
    thread.connections.borrow_mut().insert(id, Rc::downgrade(&connection));
    connection
}

/// Serves a client until it leaves, is killed, or breaks the protocol.
pub(super) async fn serve(connection: Rc<RefCell<Connection>>) {
    let ended = run(&connection).await;
    let Ok(connection) = Rc::try_unwrap(connection) else { return };
    let mut connection = connection.into_inner();
    connection.thread.connections.borrow_mut().remove(&connection.client.id);
    if let Err(error) = &ended {
        tracing::trace!(client = connection.client.id, %error, "connection ended");
        connection.closing |= error.kind() == io::ErrorKind::ConnectionAborted;
    }
    connection.end_pass();
    connection.execute_unread();
    connection.end_session();
    let stays = ended.is_ok() && !connection.client.is_killed();
    if stays && (connection.lingers || !connection.input.is_empty()) {
        connection.stream.linger().await;
    } else {
        connection.stream.say_goodbye();
    }
    connection.thread.server().clients.remove(connection.client.id);
}

async fn run(connection: &RefCell<Connection>) -> io::Result<()> {
    let wake = Arc::clone(&connection.borrow().client.wake);
    let mut notified = Box::pin(wake.notified());
    std::future::poll_fn(|cx| connection.borrow_mut().stream.poll_begin(cx)).await?;
    loop {
        let awake =
            std::future::poll_fn(|cx| connection.borrow_mut().poll(cx, notified.as_mut(), &wake)).await?;
        if connection.borrow_mut().go_on(awake)?.is_break() {
            return Ok(());
        }
    }
}

/// How requests of a connection are executed, as [`Executor::run_batch`](crate::execute::Executor::run_batch).
trait Run: Fn(&IoThread, &mut Session, &Batch, &[u8], usize, Patience, &mut Output) -> BatchEnd + Copy {}

impl<F> Run for F where
    F: Fn(&IoThread, &mut Session, &Batch, &[u8], usize, Patience, &mut Output) -> BatchEnd + Copy
{
}

#[inline]
fn by_executor(
    thread: &IoThread,
    session: &mut Session,
    batch: &Batch,
    buffer: &[u8],
    first: usize,
    patience: Patience,
    out: &mut Output,
) -> BatchEnd {
    thread.executor.borrow_mut().run_batch(session, batch, buffer, first, patience, out)
}

/// While the executor is busy with a script.
fn meanwhile(
    thread: &IoThread,
    session: &mut Session,
    batch: &Batch,
    buffer: &[u8],
    first: usize,
    patience: Patience,
    out: &mut Output,
) -> BatchEnd {
    Meanwhile::new(thread.server_arc(), &thread.stats).run_batch(session, batch, buffer, first, patience, out)
}

/// How much may wait for a client.
fn bounds(thread: &IoThread, session: &Session) -> Bounds {
    thread.read_settings(|settings| Bounds::new(session, settings))
}

/// Writes what the socket takes now, which may be nothing.
#[inline]
fn try_write(stream: &mut Stream, output: &Output) -> io::Result<usize> {
    let written = match output.as_one_slice() {
        Some(bytes) => stream.try_write(bytes),
        None => {
            let mut slices = [IoSlice::new(&[]); WRITTEN_PIECES];
            let count = output.slices(&mut slices);
            stream.try_write_vectored(&slices[..count])
        }
    };
    match written {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

impl Connection {
    /// Does what it was woken for.
    fn go_on(&mut self, awake: Awake) -> io::Result<ControlFlow<()>> {
        if self.client.is_killed() || self.gone {
            return Ok(ControlFlow::Break(()));
        }
        if awake.end_of_stream && awake.received == 0 {
            return Ok(ControlFlow::Break(()));
        }
        self.check_stall(awake.why)?;
        self.take_pushes();
        self.drop_lost_shard_channels();
        self.execute();
        if self.gone {
            return Ok(ControlFlow::Break(()));
        }
        self.leave_ended_term();
        self.release()?;
        self.client.query_buffer_len.store(self.input.len(), Ordering::Relaxed);
        if !self.closing {
            self.write_in_pass();
            return Ok(ControlFlow::Continue(()));
        }
        self.flush()?;
        if self.outbox.is_empty() && !self.stream.waits() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits for input, room for output, a wake-up, or the end of a stall. Input is executed here at once, straight
    /// from the thread's buffer, if none is left over from before.
    fn poll<'n>(
        &mut self,
        cx: &mut Context<'_>,
        mut notified: Pin<&mut tokio::sync::futures::Notified<'n>>,
        wake: &'n tokio::sync::Notify,
    ) -> Poll<io::Result<Awake>> {
        let mut awake = Awake { received: 0, end_of_stream: false, why: Look::Woken };
        let mut ready = false;
        while notified.as_mut().poll(cx).is_ready() {
            notified.set(wake.notified());
            ready = true;
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
            awake.why = Look::TimeIsUp;
            ready = true;
        }
        if self.stream.waits()
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            flushed?;
            ready = true;
        }
        if self.awaits_socket {
            while let Poll::Ready(written) = self.poll_write(cx) {
                let written = written?;
                self.thread.count_written(&self.client, written);
                self.outbox.ready.advance(written);
                if self.outbox.ready.is_empty() {
                    self.awaits_socket = false;
                    self.note_output();
                    ready = true;
                    break;
                }
            }
            ready |= self.has_been_read();
        }
        if self.backlog().reads(self.phase()) {
            let thread = Rc::clone(&self.thread);
            let mut scratch = thread.input.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                result?;
                let received = buffer.filled().len();
                awake.received = received;
                awake.end_of_stream = received == 0;
                ready = true;
                self.thread.count_read(&self.client, received);
                // Whoever caused this client to send something may have had a reply before: what that reply speaks of,
                // a message to this client or its end, comes first.
                if self.client.is_killed() || self.is_misplaced(buffer.filled()) {
                    return Poll::Ready(Ok(awake));
                }
                self.take_pushes();
                if self.input.is_empty() && self.executes() {
                    let received = buffer.filled();
                    let consumed = self.execute_buffer(received);
                    self.input.extend_from_slice(&received[consumed..]);
                } else {
                    self.input.extend_from_slice(buffer.filled());
                }
                self.check_query_buffer_limit();
            }
        }
        if ready { Poll::Ready(Ok(awake)) } else { Poll::Pending }
    }

    /// Whether the client uses TLS at the port that has none: its connection ends, and it is told in its own words.
    #[inline]
    fn is_misplaced(&mut self, received: &[u8]) -> bool {
        is_hello(received) && self.refuse_hello(received.len())
    }

    #[cold]
    fn refuse_hello(&mut self, received_bytes: usize) -> bool {
        let is_first = self.client.net_in_bytes.load(Ordering::Relaxed) == received_bytes as u64;
        if is_first {
            let why = "it uses TLS at the port without TLS";
            self.thread.server().tls.note_failure(&self.client.address, &why);
            self.put(&ALERT);
            self.closing = true;
            self.lingers = true;
        }
        is_first
    }

    /// What a client has sent, and what it has queued in a transaction, is bounded.
    fn check_query_buffer_limit(&self) {
        let queued = self.session.transaction.as_ref().map_or(0, |t| t.len_bytes);
        let arriving = self.input.len() + self.reader.memory_bytes();
        if self.thread.settings().query_buffer_limit < arriving + queued {
            tracing::warn!(client = self.client.id, "closed: query buffer limit reached");
            self.thread.stats.query_buffer_disconnections.add(1);
            self.client.kill();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        match self.outbox.ready.as_one_slice() {
            Some(bytes) => stream.poll_write(cx, bytes),
            None => {
                let mut slices = [IoSlice::new(&[]); WRITTEN_PIECES];
                let count = self.outbox.ready.slices(&mut slices);
                stream.poll_write_vectored(cx, &slices[..count])
            }
        }
    }

    /// What waits on both sides.
    fn backlog(&self) -> Backlog {
        Backlog { requests: self.input.len(), replies: self.waiting_bytes() }
    }

    /// Bytes of replies that have not left.
    #[inline]
    fn waiting_bytes(&self) -> usize {
        self.outbox.len_bytes() + self.stream.waiting_bytes()
    }

    fn phase(&self) -> Phase {
        match self.stall {
            _ if self.closing => Phase::Closing,
            Some(_) => Phase::Stalled,
            None => Phase::Serving,
        }
    }

    /// Whether requests are executed now.
    fn executes(&mut self) -> bool {
        self.phase() == Phase::Serving && self.may_go_on()
    }

    /// Whether so little waits for the client that more is executed for it.
    fn may_go_on(&mut self) -> bool {
        let backlog = self.backlog();
        self.backpressure.lets_execute(backlog, || bounds(&self.thread, &self.session))
    }

    /// Whether requests have waited for the client to read, and it has.
    fn has_been_read(&mut self) -> bool {
        let backlog = self.backlog();
        self.backpressure.ends(backlog, || bounds(&self.thread, &self.session))
    }

    /// Executes what is left over from earlier reads.
    fn execute(&mut self) {
        if self.input.is_empty() || !self.executes() {
            return;
        }
        let input = std::mem::take(&mut self.input);
        let consumed = self.execute_buffer(&input);
        let arrived = std::mem::replace(&mut self.input, input);
        self.input.advance(consumed);
        if self.input.is_empty() {
            self.input = arrived;
        } else {
            self.input.extend_from_slice(&arrived);
            // Once a part of an argument is there the rest is believed, so that not much is moved. Memory that is not written
            // to costs nothing.
            let (len, wanted) = (self.input.len(), self.reader.wanted_len());
            if len < wanted && wanted / BELIEVED_PART <= len {
                self.input.reserve(wanted - len);
            }
        }
    }

    /// The client has left without reading. What it had sent counts, as if its replies had not been waited for.
    fn execute_unread(&mut self) {
        self.drop_replies();
        while self.backpressure.give_up() && !self.client.is_killed() {
            self.execute();
        }
    }

    /// The client has left: what it was to receive is dropped, and all that comes.
    fn drop_replies(&mut self) {
        self.gone = true;
        self.outbox.clear();
    }

    /// Executes complete requests at the front of `buffer` until there are no more or one has to wait. Returns how
    /// many bytes are done with.
    fn execute_buffer(&mut self, buffer: &[u8]) -> usize {
        let thread = Rc::clone(&self.thread);
        let (mut batch, mut out) = (thread.batch.borrow_mut(), thread.output.borrow_mut());
        self.execute_buffer_by(by_executor, buffer, &mut batch, &mut out)
    }

    #[inline]
    fn execute_buffer_by(
        &mut self,
        run: impl Run,
        buffer: &[u8],
        batch: &mut Batch,
        out: &mut Output,
    ) -> usize {
        let thread = Rc::clone(&self.thread);
        let mut consumed = 0;
        loop {
            let rest = &buffer[consumed..];
            let settings = thread.settings();
            let stranger = self.session.must_authenticate(&settings);
            let limits = Limits {
                bulk_len_max: settings.proto_max_bulk_len,
                authenticated: !stranger,
                ..Limits::default()
            };
            let batch_max = if stranger { 1 } else { BATCH_MAX };
            let (parsed, result) = self.reader.parse(rest, &limits, batch_max, batch);
            let (done, stopped) = self.execute_batch(run, batch, rest, parsed, out);
            consumed += done;
            if stopped {
                batch.shrink();
                return consumed;
            }
            if batch.has_empty_before(batch.len()) {
                self.session.note_empty_request();
            }
            if !batch.is_empty() && self.session.must_authenticate(&thread.settings()) != stranger {
                self.reader = RequestReader::default();
                continue;
            }
            if let Err(error) = result {
                self.protocol_error(&error);
                return buffer.len();
            }
            if batch.len() < batch_max || self.client.is_killed() || !self.may_go_on() {
                batch.shrink();
                return consumed;
            }
        }
    }

    /// Executes a parsed batch; returns the bytes that are done with, and whether execution has to stop.
    #[inline]
    fn execute_batch(
        &mut self,
        run: impl Run,
        batch: &Batch,
        buffer: &[u8],
        parsed: usize,
        out: &mut Output,
    ) -> (usize, bool) {
        let thread = Rc::clone(&self.thread);
        let mut first = 0;
        while first < batch.len() {
            out.clear();
            out.set_limit(bounds(&self.thread, &self.session).room(self.backlog()));
            let patience = self.patience.take();
            let end = run(&thread, &mut self.session, batch, buffer, first, patience, out);
            if end.appended {
                thread.server().shared.commit_alone();
                thread.pass.note_appended();
            }
            if out.is_exceeded() {
                out.clear();
                self.close_slow_reader();
                return (parsed, true);
            }
            let condition = end.condition.observed(&thread.server().shared.gate, clock::monotonic);
            self.emit(out, condition);
            out.clear();
            self.patience.note(first, &end);
            // What follows in the buffer is parsed again when it is its turn.
            let done = batch.start_of(end.next);
            if let Some(stop) = end.stop {
                self.reader = RequestReader::default();
                self.begin_stall(stop, condition);
                return (done, true);
            }
            assert!(first < end.next, "a batch that need not wait goes on");
            first = end.next;
            if first < batch.len() && (self.client.is_killed() || !self.may_go_on()) {
                self.reader = RequestReader::default();
                return (done, true);
            }
        }
        (parsed, false)
    }

    /// Sends replies at the end of the pass, or holds them.
    fn emit(&mut self, out: &mut Output, condition: ReplyCondition) {
        if out.is_empty() || self.gone {
            return;
        }
        if !self.lets_pass(condition) {
            self.hold(out.split(), condition);
            return;
        }
        if self.outbox.ready.is_empty() {
            if out.len() <= DEFERRED_BYTES_MAX {
                self.outbox.ready = std::mem::replace(out, self.thread.pass.take_spare());
                self.write_in_pass();
                return;
            }
            match try_write(&mut self.stream, out) {
                Ok(written) => {
                    self.thread.count_written(&self.client, written);
                    out.advance(written);
                }
                Err(error) => return self.note_broken(&error),
            }
            if out.is_empty() && !self.stream.waits() {
                return;
            }
            self.awaits_socket = !out.is_empty();
        }
        self.outbox.ready.append(out);
        if DEFERRED_BYTES_MAX < self.outbox.ready.len() {
            self.write_now();
        }
        self.write_in_pass();
        self.note_output();
    }

    /// Whether a reply need not be held.
    #[inline]
    fn lets_pass(&self, condition: ReplyCondition) -> bool {
        let shared = &self.thread.server().shared;
        if self.outbox.lets_pass(condition, &shared.gate, clock::monotonic) {
            return true;
        }
        // What another thread has just appended may be committed, and nobody would tell.
        shared.commit_alone() && self.outbox.lets_pass(condition, &shared.gate, clock::monotonic)
    }

    /// What waits for the client is written at the end of the pass, unless its socket takes nothing.
    #[inline]
    fn write_in_pass(&mut self) {
        if !self.writes_in_pass && !self.awaits_socket && !self.outbox.ready.is_empty() {
            self.writes_in_pass = true;
            self.thread.pass.add_writer(rc::Weak::clone(&self.me));
        }
    }

    /// The end of a pass: writes what waits for the client.
    pub(super) fn end_pass(&mut self) {
        self.writes_in_pass = false;
        self.write_now();
        self.keep_little();
        let has_been_read = self.has_been_read();
        // Its task goes on with what is left to do.
        if self.awaits_socket || self.stream.waits() || self.stall.is_some() || self.closing || has_been_read
        {
            self.client.wake.notify_one();
        }
        self.note_output();
    }

    /// Writes what the socket takes of what waits; it does not matter if the client has left.
    fn write_now(&mut self) {
        if let Err(error) = self.write_output() {
            self.note_broken(&error);
        }
    }

    /// The client has left; the rest of what it had sent is executed nevertheless.
    #[cold]
    fn note_broken(&mut self, error: &io::Error) {
        tracing::trace!(client = self.client.id, %error, "it has left");
        self.drop_replies();
        self.client.wake.notify_one();
    }

    /// Gives back the memory of what was written.
    #[inline]
    fn keep_little(&mut self) {
        let left = std::mem::take(&mut self.outbox.ready);
        if left.is_empty() {
            self.thread.pass.put_spare(left);
        } else {
            self.outbox.ready = left.compact();
        }
    }

    /// Writes what the socket takes of what waits.
    fn write_output(&mut self) -> io::Result<()> {
        while !self.outbox.ready.is_empty() && !self.awaits_socket {
            match try_write(&mut self.stream, &self.outbox.ready)? {
                0 => self.awaits_socket = true,
                written => {
                    self.thread.count_written(&self.client, written);
                    self.outbox.ready.advance(written);
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, reply: Output, condition: ReplyCondition) {
        self.outbox.hold(condition, reply);
        self.add_holder();
        self.check_output_limit();
    }

    /// It is looked at when the gate changes.
    #[inline]
    fn add_holder(&mut self) {
        if !std::mem::replace(&mut self.is_holder, true) {
            self.thread.add_holder(rc::Weak::clone(&self.me));
        }
    }

    /// The gate has changed.
    pub(super) fn look_at_gate(&mut self) {
        self.is_holder = false;
        let released = self.release();
        self.write_in_pass();
        // Its task goes on with what is left to do; if that is the end, it meets the reason itself.
        if released.is_err() || (!self.outbox.holds() && (self.stall.is_some() || self.closing)) {
            self.client.wake.notify_one();
        }
    }

    fn note_output(&mut self) {
        self.client.output_buffer_len.store(self.waiting_bytes(), Ordering::Relaxed);
        self.check_output_limit();
    }

    fn check_output_limit(&mut self) {
        if bounds(&self.thread, &self.session).is_exceeded(self.backlog()) {
            self.close_slow_reader();
        }
    }

    /// More waits for the client than may.
    #[cold]
    fn close_slow_reader(&mut self) {
        if !self.client.is_killed() {
            tracing::warn!(client = self.client.id, "closed: output buffer limit reached");
            self.thread.stats.output_buffer_disconnections.add(1);
            self.client.kill();
        }
    }

    /// Makes held replies ready that may leave.
    fn release(&mut self) -> io::Result<()> {
        if !self.outbox.holds() {
            return Ok(());
        }
        self.outbox
            .release(&self.thread.server().shared.gate, clock::monotonic)
            .map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e))?;
        if self.outbox.holds() {
            self.add_holder();
        }
        Ok(())
    }

    /// Messages for the client; one that tells of a write is held until the write is committed.
    fn take_pushes(&mut self) {
        for push in self.client.take_pushes() {
            self.put_under(push.condition, |out| out.push_shared(&push.message));
        }
    }

    /// Puts what `write` writes behind everything that waits for the client; it leaves under this condition.
    fn put_under(&mut self, condition: ReplyCondition, write: impl FnOnce(&mut Output)) {
        let gate = &self.thread.server().shared.gate;
        if self.outbox.put_under(condition, gate, clock::monotonic, write) == Put::Held {
            self.add_holder();
        }
        self.note_output();
    }

    /// Outside cluster mode nothing but the end of its connection tells a client that the primary is elsewhere. What it
    /// has asked for is answered before.
    fn leave_ended_term(&mut self) {
        if self.stall.is_none() && self.thread.executor.borrow_mut().sends_away(&self.session) {
            self.closing = true;
            self.lingers = true;
        }
    }

    /// The slot of a shard channel has moved to another shard: its subscribers are told.
    fn drop_lost_shard_channels(&mut self) {
        if self.session.subscriptions.sharded.is_empty() {
            return;
        }
        let mut out = Output::default();
        self.thread.executor.borrow_mut().drop_lost_shard_channels(&mut self.session, &mut out);
        if !out.is_empty() {
            self.put(&out.to_vec());
        }
    }

    /// Puts bytes behind everything that waits for the client.
    fn put(&mut self, bytes: &[u8]) {
        self.outbox.put(|out| out.extend_from_slice(bytes));
        self.note_output();
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_output()?;
        self.client.output_buffer_len.store(self.waiting_bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Differs from Valkey: the connection is also closed if CLIENT REPLY leaves the error out.
    fn protocol_error(&mut self, error: &ProtocolError) {
        if self.session.reply_mode == ReplyMode::On {
            let mut out = BytesMut::new();
            ReplyWriter::new(&mut out, Version::Resp2).error(error.to_bytes());
            self.put(&out);
        }
        self.closing = true;
        self.lingers = true;
    }

    // ------------------------------------------------------------------ while the thread runs a script for too long

    /// Reads, answers and writes as far as that goes at once; its task does the rest once the script has ended. The
    /// runtime does not run meanwhile and knows nothing of what the socket is ready for, so the socket is asked itself.
    pub(super) fn serve_meanwhile(&mut self, input: &mut [u8], batch: &mut Batch, out: &mut Output) {
        if self.gone || self.client.is_killed() || self.release().is_err() {
            return;
        }
        if self.executes() {
            let received = self.stream.read_now(input).unwrap_or(0);
            if 0 < received {
                self.thread.count_read(&self.client, received);
                self.input.extend_from_slice(&input[..received]);
                self.check_query_buffer_limit();
                let requests = std::mem::take(&mut self.input);
                let consumed = self.execute_buffer_by(meanwhile, &requests, batch, out);
                self.input = requests;
                self.input.advance(consumed);
                self.client.wake.notify_one();
            }
        }
        // What was written may have been encrypted and not taken: the runtime does not know that the socket is ready.
        if self.stream.flush_now().is_err() {
            return;
        }
        while !self.outbox.ready.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITTEN_PIECES];
            let count = self.outbox.ready.slices(&mut slices);
            let written = self.stream.write_now(&slices[..count]).unwrap_or(0);
            if written == 0 {
                return;
            }
            self.thread.count_written(&self.client, written);
            self.outbox.ready.advance(written);
        }
        if self.closing && self.outbox.is_empty() && !self.stream.waits() {
            let ended = self.stream.shutdown_now();
            ended.unwrap_or_else(|error| tracing::trace!(client = self.client.id, %error, "it has left"));
        }
    }

    // ------------------------------------------------------------------ stalls

    fn begin_stall(&mut self, stop: Stop, condition: ReplyCondition) {
        let (stall, patience) = match stop {
            Stop::Close => {
                self.closing = true;
                return;
            }
            Stop::NotNow => {
                self.thread.add_gate_waiter(&self.client);
                let left = self.patience.left(clock::monotonic(), self.thread.settings().grace);
                (Stall::Wait(Wait::Gate { seen: self.thread.gate_events() }), Some(left))
            }
            Stop::Paused(until) => {
                self.thread.server().pause.add_waiting(Arc::clone(&self.client.wake));
                (Stall::Wait(Wait::Pause), Some(clock::until(until).max(PAUSE_MIN)))
            }
            Stop::Blocked(mut blocked, timeout) => {
                self.client.description.lock().blocked = true;
                self.thread.add_blocked(&self.client);
                blocked.found_nothing_under(condition);
                let now = clock::monotonic();
                blocked.wait_for(timeout, now);
                let next_look = blocked.next_look(now);
                (Stall::Wait(Wait::Keys(blocked)), next_look)
            }
            Stop::WaitReplicas { written, replicas, timeout } => {
                let deadline = timeout.map(|t| clock::monotonic() + t);
                let generation = self.session.generation;
                (Stall::Wait(Wait::Replicas { written, generation, replicas, deadline }), Some(REPLICAS_POLL))
            }
            Stop::WaitDisk { written, replicas, timeout } => {
                let deadline = timeout.map(|t| clock::monotonic() + t);
                let generation = self.session.generation;
                (Stall::Wait(Wait::Disk { written, generation, replicas, deadline }), Some(REPLICAS_POLL))
            }
            Stop::Sleep(time, reply) => (Stall::Wait(Wait::Time(reply)), Some(time)),
            Stop::Await(request) => {
                (Stall::Await(self.thread.request(request, self.client.wake.clone())), None)
            }
            Stop::Download => {
                let wanted = self.session.download;
                let wake = self.client.wake.clone();
                let download = {
                    let executor = self.thread.executor.borrow();
                    Download::start(executor.server(), wanted, wake)
                };
                (Stall::Download(download), None)
            }
        };
        self.stall = Some(stall);
        self.set_timer(patience);
        // What may have happened between the check and now is looked at once more.
        self.client.wake.notify_one();
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        self.timer = after.map(|after| Box::pin(tokio::time::sleep(after)));
    }

    /// Ends the stall if what it waited for has come or its time is up.
    fn check_stall(&mut self, why: Look) -> io::Result<()> {
        let is_over = match &mut self.stall {
            None => return Ok(()),
            Some(Stall::Wait(_)) => self.check_wait(why),
            // What the client was owed before comes first.
            Some(Stall::Download(_)) if self.outbox.holds() => false,
            Some(Stall::Download(download)) => {
                let mut over = false;
                while !over && self.outbox.ready.len() < DOWNLOAD_OUTPUT_BYTES {
                    match download.take() {
                        Next::Piece(bytes) => self.outbox.ready.push_shared(&bytes),
                        Next::NotYet => break,
                        Next::End => {
                            over = true;
                            self.closing |= self.session.download.ends_connection();
                        }
                        Next::Broken => return Err(io::Error::other("the file will not be completed")),
                    }
                }
                over
            }
            Some(Stall::Await(answer)) => match answer.try_recv() {
                Ok(reply) => {
                    // Unless CLIENT REPLY leaves it out.
                    if !self.session.stall_is_muted {
                        self.put(&reply);
                    }
                    true
                }
                Err(oneshot::error::TryRecvError::Empty) => false,
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(io::Error::other("the answer will not come"));
                }
            },
        };
        if is_over {
            self.end_stall();
        }
        Ok(())
    }

    /// Whether the wait is over; then what follows from that is done.
    fn check_wait(&mut self, why: Look) -> bool {
        let why = if why == Look::TimeIsUp { self.serve_by_time() } else { why };
        let Some(Stall::Wait(wait)) = &self.stall else { return false };
        let server = self.thread.server();
        let around = Surroundings {
            gate_events: self.thread.gate_events(),
            gate: &server.shared.gate,
            pause: &server.pause,
            replicas_holding: &|written| server.replicas_holding(written) as u64,
            has_synced: &|written| server.has_synced(written),
            now: &clock::monotonic,
        };
        match wait.look(why, &around) {
            Outcome::Waits => return false,
            Outcome::WaitsFor(time) => {
                self.set_timer(Some(time));
                return false;
            }
            Outcome::Retry(patience) => self.patience.retry(patience),
            Outcome::Answer(answer) => self.answer_wait(answer),
        }
        true
    }

    /// If it is not the end of a wait that has come, but a time at which it may find something: that is looked for, and
    /// the next time follows.
    fn serve_by_time(&mut self) -> Look {
        let Some(Stall::Wait(Wait::Keys(blocked))) = &self.stall else { return Look::TimeIsUp };
        if !blocked.is_only_again(clock::monotonic()) {
            return Look::TimeIsUp;
        }
        if self.thread.server().shared.gate.generation() != blocked.generation() {
            return Look::Woken;
        }
        self.thread.executor.borrow_mut().serve_by_time(&blocked.waiter);
        self.set_timer(blocked.next_look(clock::monotonic()));
        Look::Woken
    }

    fn answer_wait(&mut self, answer: Answer) {
        if let Answer::Keys(ending) = &answer {
            if !matches!(ending, Ending::Served(_)) {
                self.leave_queues();
            }
            *self.client.waiter.lock() = None;
            self.client.description.lock().blocked = false;
        }
        let (reply, afterwards) = answer.into_reply(&mut self.session);
        if let Some(Served { mut reply, condition, .. }) = reply {
            self.put_under(condition, |out| out.append(&mut reply));
        }
        self.closing |= afterwards == Afterwards::Closes;
    }

    /// Nobody shall serve the client any more that waits for keys.
    fn leave_queues(&self) {
        if let Some(Stall::Wait(Wait::Keys(Blocked { waiter, .. }))) = &self.stall {
            waiter.give_up();
            self.thread.executor.borrow().forget_waiter(waiter);
        }
    }

    fn end_stall(&mut self) {
        self.stall = None;
        self.timer = None;
        // Requests may be waiting in the input.
        self.client.wake.notify_one();
    }

    fn end_session(&mut self) {
        self.leave_queues();
        self.thread.executor.borrow().end_session(&mut self.session);
    }
}
