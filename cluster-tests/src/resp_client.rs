//! A small blocking RESP2/RESP3 client that keeps each reply's exact bytes.
//!
//! Comparing two servers byte by byte needs what an ordinary client throws away: how the reply was written.
//! A [`Frame`] is one reply with its bytes and, for aggregates, its parts, each with its own bytes.
//! What a server sends unasked (RESP3 pushes; in RESP2 the arrays of pub/sub) is kept apart from the replies.

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;

/// How long a reply may take before it counts as missing.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(5);

/// Nesting deeper than this is no reply of a sane server.
const DEPTH_MAX: usize = 32;

/// One complete RESP value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The exact bytes, type byte and line ends included.
    pub raw: Bytes,
    /// The parts of an aggregate; of a map keys and values in turn; empty for everything else.
    pub items: Vec<Self>,
}

impl Frame {
    /// The type byte, such as `+`, `-`, `:`, `$`, `*`, `%`, `~`, `>`, `,`, `#`, `_`.
    pub fn kind(&self) -> u8 {
        self.raw[0]
    }

    pub fn is_error(&self) -> bool {
        matches!(self.kind(), b'-' | b'!')
    }

    pub fn is_null(&self) -> bool {
        matches!(self.raw.as_ref(), b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
    }

    /// The content of a line or bulk value; of an aggregate, its header.
    pub fn text(&self) -> &[u8] {
        let line_end =
            self.raw.windows(2).position(|pair| pair == b"\r\n").expect("a frame has a first line");
        match self.kind() {
            b'$' | b'=' | b'!' if !self.is_null() => &self.raw[line_end + 2..self.raw.len() - 2],
            _ => &self.raw[1..line_end],
        }
    }

    /// [`Self::text`] for printing and for fields known to be text.
    pub fn string(&self) -> String {
        String::from_utf8_lossy(self.text()).into_owned()
    }

    pub fn integer(&self) -> Option<i64> {
        std::str::from_utf8(self.text()).ok()?.parse().ok()
    }
}

/// Printed as the bytes are, with escapes.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.raw.escape_ascii())
    }
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// Nothing, or an unfinished reply, within [`REPLY_DEADLINE`].
    Late,
    /// The server closed the connection.
    Closed,
    /// Bytes that are no RESP.
    Garbage(String),
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => write!(f, "(no reply)"),
            Self::Closed => write!(f, "(connection closed)"),
            Self::Garbage(what) => write!(f, "(no RESP: {what})"),
        }
    }
}

pub type Reply = Result<Frame, NoReply>;

/// Splits the first complete frame off the buffer; `None` when more bytes are needed.
pub fn split_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some(end) = frame_end(buffer, 0, 0)? else { return Ok(None) };
    let raw = buffer.split_to(end).freeze();
    let (frame, parsed) = build(&raw, 0);
    debug_assert_eq!(parsed, end);
    Ok(Some(frame))
}

/// The first line of the frame at `start`: its content, and where it ends.
fn header(bytes: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(start + 1..)?;
    let length = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..length], start + 1 + length + 2))
}

fn count(line: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    text.parse().map_err(|_| format!("{text:?} is no length"))
}

fn part_count(kind: u8, line: &[u8]) -> Result<usize, String> {
    let parts = usize::try_from(count(line)?).unwrap_or(0);
    Ok(if matches!(kind, b'%' | b'|') { 2 * parts } else { parts })
}

fn frame_end(bytes: &[u8], start: usize, depth: usize) -> Result<Option<usize>, String> {
    if DEPTH_MAX < depth {
        return Err("nested too deeply".into());
    }
    let Some(&kind) = bytes.get(start) else { return Ok(None) };
    if !b"+-:_#,($=!*%~>|".contains(&kind) {
        return Err(format!("{:?} starts no frame", char::from(kind)));
    }
    let Some((line, mut end)) = header(bytes, start) else { return Ok(None) };
    match kind {
        b'$' | b'=' | b'!' => {
            if let Ok(length) = usize::try_from(count(line)?) {
                end += length + 2;
            }
            Ok((end <= bytes.len()).then_some(end))
        }
        b'*' | b'%' | b'~' | b'>' | b'|' => {
            for _ in 0..part_count(kind, line)? {
                let Some(next) = frame_end(bytes, end, depth + 1)? else { return Ok(None) };
                end = next;
            }
            Ok(Some(end))
        }
        _ => Ok(Some(end)),
    }
}

/// Builds the frame at `start` of bytes that [`frame_end`] found complete.
fn build(raw: &Bytes, start: usize) -> (Frame, usize) {
    let kind = raw[start];
    let (line, mut end) = header(raw, start).expect("a complete frame has a first line");
    let mut items = Vec::new();
    match kind {
        b'$' | b'=' | b'!' => {
            if let Ok(length) = usize::try_from(count(line).expect("checked")) {
                end += length + 2;
            }
        }
        b'*' | b'%' | b'~' | b'>' | b'|' => {
            for _ in 0..part_count(kind, line).expect("checked") {
                let (item, next) = build(raw, end);
                items.push(item);
                end = next;
            }
        }
        _ => {}
    }
    (Frame { raw: raw.slice(start..end), items }, end)
}

/// The first word of the arrays that RESP2 sends unasked.
const PUBSUB_WORDS: [&[u8]; 9] = [
    b"message",
    b"pmessage",
    b"smessage",
    b"subscribe",
    b"unsubscribe",
    b"psubscribe",
    b"punsubscribe",
    b"ssubscribe",
    b"sunsubscribe",
];

/// Commands of [`Connection::fill`] that are sent before their replies are read.
const FILL_PIPELINE: usize = 500;

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    subscriber: bool,
    /// What came unasked, oldest first.
    pub pushes: VecDeque<Frame>,
}

impl Connection {
    pub fn connect(addr: &str) -> std::io::Result<Self> {
        Self::connect_within(addr, REPLY_DEADLINE)
    }

    /// Connects with a deadline for that and for each reply.
    pub fn connect_within(addr: &str, deadline: Duration) -> std::io::Result<Self> {
        let addr = addr.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
        let stream = TcpStream::connect_timeout(&addr, deadline)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        // Thousands of short connections: closing by reset leaves no port waiting.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(Self { stream, buffer: BytesMut::new(), subscriber: false, pushes: VecDeque::new() })
    }

    /// On this connection RESP2's pub/sub arrays are pushes.
    pub fn as_subscriber(mut self) -> Self {
        self.subscriber = true;
        self
    }

    pub fn set_deadline(&mut self, deadline: Duration) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(deadline))
    }

    /// Sends one command without waiting. A failure shows when the reply is read.
    pub fn send(&mut self, args: &[impl AsRef<[u8]>]) {
        let mut out = Vec::new();
        encode(args, &mut out);
        self.send_raw(&out);
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // The peer may have closed the connection; reading then says so.
        drop(self.stream.write_all(bytes));
    }

    /// The next reply; pushes before it are put aside.
    pub fn reply(&mut self) -> Reply {
        loop {
            let frame = self.frame()?;
            if self.is_push(&frame) {
                self.pushes.push_back(frame);
            } else {
                return Ok(frame);
            }
        }
    }

    /// Reads until `count` pushes were put aside.
    pub fn read_pushes(&mut self, count: usize) -> Result<(), NoReply> {
        while self.pushes.len() < count {
            let frame = self.frame()?;
            self.pushes.push_back(frame);
        }
        Ok(())
    }

    /// Sends a command and reads its reply.
    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Reply {
        self.send(args);
        self.reply()
    }

    /// Sends `count` commands in pipelines; an error reply ends it, in words.
    pub fn fill<A: AsRef<[u8]>>(
        &mut self,
        count: usize,
        command: impl Fn(usize) -> Vec<A>,
    ) -> Result<(), String> {
        for start in (0..count).step_by(FILL_PIPELINE) {
            let batch = start..(start + FILL_PIPELINE).min(count);
            let mut out = Vec::new();
            batch.clone().for_each(|i| encode(&command(i), &mut out));
            self.send_raw(&out);
            for _ in batch {
                let reply = self.reply().map_err(|error| error.to_string())?;
                if reply.is_error() {
                    return Err(reply.to_string());
                }
            }
        }
        Ok(())
    }

    /// Whether something is there to be read within `wait`.
    pub fn has_reply(&mut self, wait: Duration) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let peeked = self.stream.set_read_timeout(Some(wait)).and_then(|()| self.stream.peek(&mut [0]));
        self.stream.set_read_timeout(Some(REPLY_DEADLINE)).expect("an open socket takes a timeout");
        peeked.is_ok()
    }

    /// Waits for bytes beyond those that are here, at most so long.
    pub fn await_more(&mut self, wait: Duration) {
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.set_read_timeout(Some(wait)).and_then(|()| self.stream.read(&mut chunk));
        self.buffer.extend_from_slice(&chunk[..read.unwrap_or(0)]);
        self.stream.set_read_timeout(Some(REPLY_DEADLINE)).expect("an open socket takes a timeout");
    }

    fn is_push(&self, frame: &Frame) -> bool {
        match frame.kind() {
            b'>' => true,
            b'*' if self.subscriber => {
                frame.items.first().is_some_and(|item| PUBSUB_WORDS.contains(&item.text()))
            }
            _ => false,
        }
    }

    fn frame(&mut self) -> Reply {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(frame) = split_frame(&mut self.buffer).map_err(NoReply::Garbage)? {
                return Ok(frame);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(NoReply::Closed),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.buffer.advance(self.buffer.len());
                    return Err(NoReply::Late);
                }
                Err(_) => return Err(NoReply::Closed),
            }
        }
    }
}

/// Writes a command as RESP.
pub fn encode(args: &[impl AsRef<[u8]>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_all(bytes: &[u8]) -> Vec<String> {
        let mut buffer = BytesMut::from(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = split_frame(&mut buffer).unwrap() {
            frames.push(format!("{frame} ({} parts)", frame.items.len()));
        }
        frames
    }

    #[test]
    fn frames_of_both_protocols_are_split_where_they_end() {
        let bytes = b"+OK\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n*-1\r\n%1\r\n+k\r\n,1.5\r\n>2\r\n+x\r\n_\r\n=7\r\ntxt:abc\r\n$-1\r\n";
        assert_eq!(
            split_all(bytes),
            [
                r"+OK\r\n (0 parts)",
                r"$3\r\na\r\n\r\n (0 parts)",
                r"*2\r\n:1\r\n*-1\r\n (2 parts)",
                r"%1\r\n+k\r\n,1.5\r\n (2 parts)",
                r">2\r\n+x\r\n_\r\n (2 parts)",
                r"=7\r\ntxt:abc\r\n (0 parts)",
                r"$-1\r\n (0 parts)",
            ]
        );
    }

    #[test]
    fn every_proper_prefix_of_a_frame_is_incomplete() {
        let bytes = b"*2\r\n$3\r\nabc\r\n%1\r\n:1\r\n#t\r\n";
        for length in 0..bytes.len() {
            assert!(split_all(&bytes[..length]).is_empty());
        }
        assert_eq!(split_all(bytes).len(), 1);
    }
}
