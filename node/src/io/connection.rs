//! One client's connection: bytes in, batches executed, replies out.
//!
//! The connection is a task on the thread that executes its commands. It reads into a buffer of the thread, executes
//! every complete request, and writes all replies at once; only what is left over (half a request, replies that the
//! socket did not take) is kept in buffers of its own, so an idle client costs little memory.
//!
//! **Held replies.** With replication, replies wait in a [`ReplyQueue`] until what they tell of is certain. If it may
//! have been lost the connection is closed: the outcome is unknown, as after a crash.
//!
//! **Stalls.** A request that has to wait (blocking command, no lease, pause) stalls the connection: it goes on
//! reading up to a bound, so that it notices a disconnect, but executes nothing until the stall is over.
//!
//! **Strangers.** Who has to authenticate may send only small requests. They are executed one at a time, so that the
//! one behind AUTH is looked at under the limits that hold then; and when authentication is lost, what has come of a
//! large request is looked at again.

#![allow(clippy::disallowed_methods, reason = "a shell")]

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use keyward_net::linger::linger;
use keyward_proto::ids::LogIndex;
use keyward_proto::resp::{Batch, Limits, Output, ProtocolError, ReplyWriter, RequestReader, Version};
use keyward_proto::time::Monotonic;
use keyward_replication::reply::{Fate, ReplyCondition, ReplyQueue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::blocking::{Blocked, Ending, Look, Served};
use crate::clock;
use crate::config::OutputLimit;
use crate::execute::{Patience, Stop};
use crate::io::clients::Client;
use crate::io::session::{ReplyMode, Session};
use crate::io::threads::IoThread;
use crate::snapshot::download::{Download, Next};

/// Requests executed before replies are written and other connections get their turn.
const BATCH_MAX: usize = 128;
/// Nothing more is executed for a client while so much waits for it: it has to read first.
const OUTPUT_PAUSE_BYTES: usize = 1 << 20;
/// How much a client may send ahead that does not read. Then it is executed after all, because a client may read
/// nothing before it has sent everything.
const UNREAD_INPUT_BYTES: usize = 32 << 20;
/// A client that does not read its replies is not read from beyond this.
const OUTPUT_BYTES_MAX: usize = 256 << 20;
/// What may wait for a client that has not authenticated.
const STRANGER_OUTPUT_BYTES_MAX: usize = 1 << 10;
/// What `client-output-buffer-limit` does not count: so much fits into the fixed buffer that a client has in Valkey.
const UNCOUNTED_OUTPUT_BYTES: usize = 16 << 10;
/// How much a stalled client may send ahead.
const STALLED_INPUT_BYTES: usize = 1 << 20;
/// Pieces of output that one call writes.
const WRITTEN_PIECES: usize = 64;
/// How often WAIT looks at what the replicas hold.
const WAIT_POLL: Duration = Duration::from_millis(1);
/// How long a connection waits at least for the end of CLIENT PAUSE.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How much of a file waits for a client that reads it.
const DOWNLOAD_OUTPUT_BYTES: usize = 1 << 20;
/// Buffers above this are given back when they are empty.
const KEPT_BUFFER_BYTES: usize = 64 << 10;

/// Why nothing is executed at the moment.
enum Stall {
    /// No lease, hand-off, change of term: tried again after each event of the thread beyond this one.
    NotNow {
        seen: u64,
    },
    Paused,
    Blocked(Blocked),
    /// Looked at again and again: acknowledgements do not wake connections.
    WaitReplicas {
        index: LogIndex,
        replicas: u64,
        deadline: Option<Monotonic>,
    },
    /// With the reply that ends it.
    Sleep(&'static [u8]),
    Await(oneshot::Receiver<Bytes>),
    /// SYNC: the file is sent as the client reads it.
    Download(Download),
}

struct Connection {
    stream: TcpStream,
    thread: Rc<IoThread>,
    client: Arc<Client>,
    session: Session,
    reader: RequestReader,
    /// Bytes that are not executed yet.
    input: BytesMut,
    /// Replies that may leave but that the socket has not taken.
    output: Output,
    held: ReplyQueue<Output>,
    stall: Option<Stall>,
    /// End of the stall's patience.
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Until when the first request in `input` may wait for the gate.
    waits_until: Option<Monotonic>,
    /// Of the first request in `input`.
    patience: Patience,
    /// Requests wait in `input` until the client has read.
    paused: bool,
    /// Close when all replies have left.
    closing: bool,
    /// The client may be sending still, and shall be able to read why the connection ends.
    lingers: bool,
    /// The client has left: replies go nowhere.
    gone: bool,
}

/// What woke the connection.
#[derive(Debug, Default, Clone, Copy)]
struct Woken {
    received: usize,
    end_of_stream: bool,
    timer: bool,
}

/// Serves a client until it leaves, is killed, or breaks the protocol.
pub async fn serve(stream: TcpStream, thread: Rc<IoThread>, client: Arc<Client>, authenticated: bool) {
    client.fd.store(stream.as_raw_fd(), Ordering::Relaxed);
    let session = Session::new(Arc::clone(&client), authenticated);
    let mut connection = Connection {
        stream,
        thread,
        client,
        session,
        reader: RequestReader::default(),
        input: BytesMut::new(),
        output: Output::default(),
        held: ReplyQueue::default(),
        stall: None,
        timer: None,
        waits_until: None,
        patience: Patience::Left,
        paused: false,
        closing: false,
        lingers: false,
        gone: false,
    };
    let ended = connection.run().await;
    if let Err(error) = &ended {
        tracing::trace!(client = connection.client.id, %error, "connection ended");
        connection.closing |= error.kind() == io::ErrorKind::ConnectionAborted;
    }
    connection.execute_unread();
    connection.end_session();
    let stays = ended.is_ok() && !connection.client.is_killed();
    if stays && (connection.lingers || !connection.input.is_empty()) {
        linger(&mut connection.stream).await;
    }
    connection.thread.server().clients.remove(connection.client.id);
}

/// How many bytes may wait for a client.
fn output_bytes_max(limit: OutputLimit) -> usize {
    match limit.hard_bytes {
        0 => usize::MAX,
        limit => limit.saturating_add(UNCOUNTED_OUTPUT_BYTES),
    }
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        let wake = Arc::clone(&self.client.wake);
        let mut notified = Box::pin(wake.notified());
        loop {
            let woken = std::future::poll_fn(|cx| self.poll(cx, notified.as_mut(), &wake)).await?;
            if self.client.is_killed() || self.gone {
                return Ok(());
            }
            if woken.end_of_stream && woken.received == 0 {
                return Ok(());
            }
            self.check_stall(woken.timer)?;
            self.take_pushes();
            self.drop_lost_shard_channels();
            self.execute();
            if self.gone {
                return Ok(());
            }
            self.release()?;
            self.flush()?;
            if self.closing && self.output.is_empty() && self.held.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for input, room for output, a wake-up, or the end of a stall. Input is executed here at once, straight
    /// from the thread's buffer, if none is left over from before.
    fn poll<'n>(
        &mut self,
        cx: &mut Context<'_>,
        mut notified: Pin<&mut tokio::sync::futures::Notified<'n>>,
        wake: &'n tokio::sync::Notify,
    ) -> Poll<io::Result<Woken>> {
        let mut woken = Woken::default();
        let mut ready = false;
        while notified.as_mut().poll(cx).is_ready() {
            notified.set(wake.notified());
            ready = true;
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
            woken.timer = true;
            ready = true;
        }
        if !self.output.is_empty() {
            while let Poll::Ready(written) = self.poll_write(cx) {
                let written = written?;
                self.thread.count_written(&self.client, written);
                self.output.advance(written);
                if self.output.is_empty() {
                    ready = true;
                    break;
                }
            }
            ready |= self.ends_pause();
        }
        if self.reads() {
            let thread = Rc::clone(&self.thread);
            let mut scratch = thread.input.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                result?;
                let received = buffer.filled().len();
                woken.received = received;
                woken.end_of_stream = received == 0;
                ready = true;
                self.thread.count_read(&self.client, received);
                // Whoever caused this client to send something may have had a reply before: what that reply speaks of,
                // a message to this client or its end, comes first.
                if self.client.is_killed() {
                    return Poll::Ready(Ok(woken));
                }
                self.take_pushes();
                if self.input.is_empty() && self.stall.is_none() && !self.closing && !self.pauses() {
                    let received = buffer.filled();
                    let consumed = self.execute_buffer(received);
                    self.input.extend_from_slice(&received[consumed..]);
                } else {
                    self.input.extend_from_slice(buffer.filled());
                }
                self.check_query_buffer_limit();
            }
        }
        if ready { Poll::Ready(Ok(woken)) } else { Poll::Pending }
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
        match self.output.as_one_slice() {
            Some(bytes) => stream.poll_write(cx, bytes),
            None => {
                let mut slices = [IoSlice::new(&[]); WRITTEN_PIECES];
                let count = self.output.slices(&mut slices);
                stream.poll_write_vectored(cx, &slices[..count])
            }
        }
    }

    fn reads(&self) -> bool {
        let input_max = if self.stall.is_some() { STALLED_INPUT_BYTES } else { usize::MAX };
        self.input.len() < input_max && self.waiting_bytes() < OUTPUT_BYTES_MAX && !self.closing
    }

    /// Bytes of replies and messages that have not left.
    fn waiting_bytes(&self) -> usize {
        self.output.len() + self.held.len_bytes()
    }

    /// Whether the client has to read before more is executed for it. Up to a limit that the operator has set it need
    /// not: it is closed there.
    fn is_paused(&self) -> bool {
        let waiting = self.waiting_bytes();
        if waiting < OUTPUT_PAUSE_BYTES {
            return false;
        }
        let limit = self.output_limit();
        let allowed = if limit.hard_bytes == 0 { limit.soft_bytes } else { output_bytes_max(limit) };
        let sent_max = self.thread.read_settings(|s| s.query_buffer_limit / 2).min(UNREAD_INPUT_BYTES);
        allowed < waiting && (self.input.len() < sent_max || OUTPUT_BYTES_MAX <= waiting)
    }

    /// As [`Connection::is_paused`]; remembers that requests wait for the end of that.
    fn pauses(&mut self) -> bool {
        let pauses = self.is_paused();
        self.paused |= pauses;
        pauses
    }

    /// Whether requests have waited for the client to read, and it has.
    fn ends_pause(&mut self) -> bool {
        let ends = self.paused && !self.is_paused();
        self.paused &= !ends;
        ends
    }

    fn output_limit(&self) -> OutputLimit {
        let subscribes = !self.session.subscriptions.is_empty();
        self.thread
            .read_settings(|s| if subscribes { s.output_limits.pubsub } else { s.output_limits.normal })
    }

    /// Executes what is left over from earlier reads.
    fn execute(&mut self) {
        if self.input.is_empty() || self.stall.is_some() || self.closing || self.pauses() {
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
            // Once half of an argument is there the rest is believed, so that it is not moved again.
            let (len, wanted) = (self.input.len(), self.reader.wanted_len());
            if len < wanted && wanted <= 2 * len {
                self.input.reserve(wanted - len);
            }
        }
    }

    /// The client has left without reading. What it had sent counts, as if its replies had not been waited for.
    fn execute_unread(&mut self) {
        self.drop_replies();
        while self.paused && !self.client.is_killed() {
            self.paused = false;
            self.execute();
        }
    }

    /// The client has left: what it was to receive is dropped, and all that comes.
    fn drop_replies(&mut self) {
        self.gone = true;
        self.output = Output::default();
        self.held.clear();
    }

    /// Executes complete requests at the front of `buffer` until there are no more or one has to wait. Returns how
    /// many bytes are done with.
    fn execute_buffer(&mut self, buffer: &[u8]) -> usize {
        let thread = Rc::clone(&self.thread);
        let mut batch = thread.batch.borrow_mut();
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
            let (parsed, result) = self.reader.parse(rest, &limits, batch_max, &mut batch);
            let (done, stopped) = self.execute_batch(&batch, rest, parsed);
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
            if batch.len() < batch_max || self.client.is_killed() || self.pauses() {
                batch.shrink();
                return consumed;
            }
        }
    }

    /// Executes a parsed batch; returns the bytes that are done with, and whether execution has to stop.
    fn execute_batch(&mut self, batch: &Batch, buffer: &[u8], parsed: usize) -> (usize, bool) {
        let thread = Rc::clone(&self.thread);
        let mut out = thread.output.borrow_mut();
        let mut first = 0;
        while first < batch.len() {
            out.clear();
            out.set_limit(output_bytes_max(self.output_limit()).saturating_sub(self.waiting_bytes()));
            let patience = std::mem::take(&mut self.patience);
            let end = thread.executor.borrow_mut().run_batch(
                &mut self.session,
                batch,
                buffer,
                first,
                patience,
                &mut out,
            );
            if end.appended {
                thread.server().shared.notify_appended();
            }
            if out.is_exceeded() {
                out.clear();
                self.close_slow_reader();
                return (parsed, true);
            }
            let condition = end.condition.observed(&thread.server().shared.gate, clock::monotonic);
            self.emit(&mut out, condition);
            out.clear();
            if !matches!(end.stop, Some(Stop::NotNow)) || end.next > first {
                self.waits_until = None;
            }
            // What follows in the buffer is parsed again when it is its turn.
            let done =
                if end.next < batch.len() { batch.bounds(end.next).0 } else { batch.bounds(end.next - 1).1 };
            if let Some(stop) = end.stop {
                self.reader = RequestReader::default();
                self.begin_stall(stop, condition);
                return (done, true);
            }
            assert!(first < end.next, "a batch that need not wait goes on");
            first = end.next;
            if first < batch.len() && (self.client.is_killed() || self.pauses()) {
                self.reader = RequestReader::default();
                return (done, true);
            }
        }
        (parsed, false)
    }

    /// Sends replies, or holds them.
    fn emit(&mut self, out: &mut Output, condition: ReplyCondition) {
        if out.is_empty() || self.gone {
            return;
        }
        if !self.held.lets_pass(condition, &self.thread.server().shared.gate, clock::monotonic) {
            self.hold(out.split(), condition);
            return;
        }
        let written = if self.output.is_empty() {
            match self.try_write(out) {
                Ok(written) => {
                    self.thread.count_written(&self.client, written);
                    if written == out.len() {
                        return;
                    }
                    out.advance(written);
                    self.output.append(out);
                    Ok(())
                }
                Err(error) => Err(error),
            }
        } else {
            self.output.append(out);
            self.write_output()
        };
        match written {
            Ok(()) => self.note_output(),
            // The rest of what it had sent is executed nevertheless.
            Err(error) => {
                tracing::trace!(client = self.client.id, %error, "it has left");
                self.drop_replies();
            }
        }
    }

    /// Writes what the socket takes of what waits.
    fn write_output(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.try_write(&self.output)? {
                0 => break,
                written => {
                    self.thread.count_written(&self.client, written);
                    self.output.advance(written);
                }
            }
        }
        Ok(())
    }

    /// Writes what the socket takes now, which may be nothing.
    fn try_write(&self, output: &Output) -> io::Result<usize> {
        let written = match output.as_one_slice() {
            Some(bytes) => self.stream.try_write(bytes),
            None => {
                let mut slices = [IoSlice::new(&[]); WRITTEN_PIECES];
                let count = output.slices(&mut slices);
                self.stream.try_write_vectored(&slices[..count])
            }
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    fn hold(&mut self, reply: Output, condition: ReplyCondition) {
        self.held.hold(condition, reply);
        self.thread.add_holder(&self.client);
        self.check_output_limit();
    }

    fn note_output(&mut self) {
        self.client.output_buffer_len.store(self.waiting_bytes(), Ordering::Relaxed);
        self.check_output_limit();
    }

    fn check_output_limit(&mut self) {
        let is_stranger = self.thread.read_settings(|settings| self.session.must_authenticate(settings));
        let limit =
            if is_stranger { STRANGER_OUTPUT_BYTES_MAX } else { output_bytes_max(self.output_limit()) };
        if limit < self.waiting_bytes() {
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

    /// Moves held replies that may leave to the output.
    fn release(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let output = &mut self.output;
        let leave = |mut reply: Output| {
            if output.is_empty() {
                *output = reply;
            } else {
                output.append(&mut reply);
            }
        };
        self.held
            .release(&self.thread.server().shared.gate, clock::monotonic, leave)
            .map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e))?;
        if !self.held.is_empty() {
            self.thread.add_holder(&self.client);
        }
        Ok(())
    }

    /// Messages for the client; one that tells of a write is held until the write is committed.
    fn take_pushes(&mut self) {
        for push in self.client.take_pushes() {
            let fate = push.condition.fate(&self.thread.server().shared.gate, clock::monotonic);
            if fate == Fate::Leaves {
                if !self.held.append(|last| last.push_shared(&push.message)) {
                    self.output.push_shared(&push.message);
                }
                self.note_output();
            } else {
                let mut message = Output::default();
                message.push_shared(&push.message);
                self.hold(message, push.condition);
            }
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
            self.send_after_held(&out.to_vec());
        }
    }

    /// Sends bytes in order with the held replies.
    fn send_after_held(&mut self, bytes: &[u8]) {
        if !self.held.append(|last| last.extend_from_slice(bytes)) {
            self.output.extend_from_slice(bytes);
        }
        self.note_output();
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_output()?;
        self.output.shrink(KEPT_BUFFER_BYTES);
        if self.ends_pause() {
            self.client.wake.notify_one();
        }
        self.client.output_buffer_len.store(self.waiting_bytes(), Ordering::Relaxed);
        self.client.query_buffer_len.store(self.input.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Differs from Valkey: the connection is also closed if CLIENT REPLY leaves the error out.
    fn protocol_error(&mut self, error: &ProtocolError) {
        if self.session.reply_mode == ReplyMode::On {
            let mut out = BytesMut::new();
            ReplyWriter::new(&mut out, Version::Resp2).error(error.to_bytes());
            self.send_after_held(&out);
        }
        self.closing = true;
        self.lingers = true;
    }

    // ------------------------------------------------------------------ stalls

    fn begin_stall(&mut self, stop: Stop, condition: ReplyCondition) {
        let grace = self.thread.settings().grace;
        let (stall, patience) = match stop {
            Stop::Close => {
                self.closing = true;
                return;
            }
            Stop::NotNow => {
                self.thread.add_holder(&self.client);
                let now = clock::monotonic();
                let until = *self.waits_until.get_or_insert(now + grace);
                (Stall::NotNow { seen: self.thread.gate_events() }, Some(until.since(now)))
            }
            Stop::Paused(until) => {
                self.thread.server().pause.add_waiting(Arc::clone(&self.client.wake));
                (Stall::Paused, Some(clock::until(until).max(PAUSE_MIN)))
            }
            Stop::Blocked(mut blocked, timeout) => {
                self.client.description.lock().blocked = true;
                self.thread.add_blocked(&self.client);
                blocked.found_nothing_under(condition);
                (Stall::Blocked(blocked), timeout)
            }
            Stop::WaitReplicas { index, replicas, timeout } => {
                let deadline = timeout.map(|t| clock::monotonic() + t);
                (Stall::WaitReplicas { index, replicas, deadline }, Some(WAIT_POLL))
            }
            Stop::Sleep(time, reply) => (Stall::Sleep(reply), Some(time)),
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
        self.timer = patience.map(|p| Box::pin(tokio::time::sleep(p)));
        // What may have happened between the check and now is looked at once more.
        self.client.wake.notify_one();
    }

    /// Ends the stall if what it waited for has come or its time is up.
    fn check_stall(&mut self, timer: bool) -> io::Result<()> {
        let Some(stall) = &mut self.stall else { return Ok(()) };
        let over = match stall {
            Stall::NotNow { seen } => {
                if timer {
                    self.patience = Patience::Exhausted;
                }
                timer || *seen != self.thread.gate_events()
            }
            Stall::Paused => timer || self.thread.server().pause.is_over(clock::monotonic()),
            Stall::Sleep(reply) => {
                let reply = *reply;
                if timer {
                    self.answer_stall(reply);
                }
                timer
            }
            Stall::Blocked(blocked) => {
                let look = if timer { Look::TimeIsUp } else { Look::Woken };
                let Some(ending) = blocked.end(look, self.thread.server().shared.gate.state()) else {
                    return Ok(());
                };
                if !matches!(ending, Ending::Served(_)) {
                    self.thread.executor.borrow().forget_waiter(&blocked.waiter);
                }
                self.end_wait(ending);
                true
            }
            Stall::WaitReplicas { index, replicas, deadline } => {
                let holding = self.thread.server().replicas_holding(*index) as u64;
                let over = *replicas <= holding || deadline.is_some_and(|d| d <= clock::monotonic());
                if over {
                    let mut out = BytesMut::new();
                    ReplyWriter::new(&mut out, self.session.version).integer(holding as i64);
                    self.answer_stall(&out);
                } else if timer {
                    self.timer = Some(Box::pin(tokio::time::sleep(WAIT_POLL)));
                }
                over
            }
            // What the client was owed before comes first.
            Stall::Download(_) if !self.held.is_empty() => false,
            Stall::Download(download) => {
                let mut over = false;
                while !over && self.output.len() < DOWNLOAD_OUTPUT_BYTES {
                    match download.take() {
                        Next::Piece(bytes) => self.output.push_shared(&bytes),
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
            Stall::Await(answer) => match answer.try_recv() {
                Ok(reply) => {
                    self.answer_stall(&reply);
                    true
                }
                Err(oneshot::error::TryRecvError::Empty) => false,
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(io::Error::other("the answer will not come"));
                }
            },
        };
        if over {
            self.end_stall();
        }
        Ok(())
    }

    fn end_wait(&mut self, ending: Ending) {
        match ending {
            Ending::Served(served) => {
                self.session.last_write = self.session.last_write.max(served.condition.depends_on());
                self.answer_wait(served);
            }
            Ending::Nothing(nothing) => self.answer_wait(nothing),
            Ending::Unblocked(error) => self.answer_stall_with_error(error),
            Ending::Demoted(error) => {
                self.answer_stall_with_error(error);
                self.closing = true;
            }
        }
        *self.client.waiter.lock() = None;
        self.client.description.lock().blocked = false;
    }

    fn answer_wait(&mut self, Served { reply, condition }: Served) {
        if !self.session.stall_is_muted {
            self.hold(reply, condition);
        }
    }

    fn answer_stall_with_error(&mut self, error: &str) {
        let mut out = BytesMut::new();
        ReplyWriter::new(&mut out, self.session.version).error(error);
        self.answer_stall(&out);
    }

    /// The reply that ends a stall, unless CLIENT REPLY leaves it out.
    fn answer_stall(&mut self, reply: &[u8]) {
        if !self.session.stall_is_muted {
            self.send_after_held(reply);
        }
    }

    fn end_stall(&mut self) {
        self.stall = None;
        self.timer = None;
        // Requests may be waiting in the input.
        self.client.wake.notify_one();
    }

    fn end_session(&mut self) {
        if let Some(Stall::Blocked(Blocked { waiter, .. })) = &self.stall {
            waiter.give_up();
            self.thread.executor.borrow().forget_waiter(waiter);
        }
        self.thread.executor.borrow().end_session(&mut self.session);
    }
}
