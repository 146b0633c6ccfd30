//! Appends replies to an output buffer, in the protocol version that the connection has negotiated.

use bytes::{BufMut, Bytes, BytesMut};

use super::number::format_double;
use super::output::{Filled, is_shared};

/// The protocol that a connection speaks: RESP2 until HELLO 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

/// The type byte, a number of up to 20 characters and the line's end.
const HEADER_BYTES_MAX: usize = 24;
/// So much is moved to make room for a header before it; a longer rest gets a chunk of its own instead.
const MOVED_BYTES_MAX: usize = 4 << 10;

/// Writes one reply after another. Aggregates are a header followed by their elements.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    /// What is written to; of an output its open chunk.
    out: &'a mut BytesMut,
    /// The other chunks of an output.
    filled: Option<&'a mut Filled>,
    version: Version,
}

/// Where the header of an aggregate goes whose length is not known yet.
#[derive(Debug)]
#[must_use]
pub struct Deferred(usize);

impl<'a> ReplyWriter<'a> {
    pub fn new(out: &'a mut BytesMut, version: Version) -> Self {
        ReplyWriter { out, filled: None, version }
    }

    #[inline]
    pub(super) fn to_output(open: &'a mut BytesMut, filled: &'a mut Filled, version: Version) -> Self {
        ReplyWriter { out: open, filled: Some(filled), version }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// HELLO: its own reply is in the new version already.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    pub fn is_resp3(&self) -> bool {
        self.version == Version::Resp3
    }

    /// Bytes in the buffer so far.
    pub fn position(&self) -> usize {
        self.filled.as_ref().map_or(0, |filled| filled.len_bytes()) + self.out.len()
    }

    /// Drops what was written since `position`.
    pub fn rewind(&mut self, position: usize) {
        match &mut self.filled {
            Some(filled) => filled.truncate(self.out, position),
            None => self.out.truncate(position),
        }
    }

    /// Whether the output's limit is exceeded: whatever is written is dropped.
    pub fn is_full(&self) -> bool {
        self.filled.as_ref().is_some_and(|filled| filled.is_exceeded())
    }

    /// Makes room for some more bytes. False: they are not to be written.
    #[inline]
    fn reserve(&mut self, needed: usize) -> bool {
        needed <= self.out.capacity() - self.out.len() || self.grow(needed)
    }

    #[cold]
    fn grow(&mut self, needed: usize) -> bool {
        match &mut self.filled {
            Some(filled) => filled.make_room(self.out, needed),
            None => {
                self.out.reserve(needed);
                true
            }
        }
    }

    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A simple string; it must not contain a line break.
    pub fn simple(&mut self, text: &str) {
        if self.reserve(text.len() + 3) {
            self.out.put_u8(b'+');
            self.line(text.as_bytes());
        }
    }

    /// An error with its code, e.g. `ERR no such key`. Line breaks become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        if self.reserve(text.len() + 3) {
            self.out.put_u8(b'-');
            for &b in text {
                self.out.put_u8(if b == b'\r' || b == b'\n' { b' ' } else { b });
            }
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Bytes that are a reply already.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.reserve(bytes.len()) {
            self.out.extend_from_slice(bytes);
        }
    }

    /// As [`ReplyWriter::raw`], without a copy if they are many.
    pub fn shared(&mut self, bytes: &Bytes) {
        match &mut self.filled {
            Some(filled) if is_shared(bytes) => filled.push_shared(self.out, bytes),
            Some(_) | None => self.raw(bytes),
        }
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A count.
    #[inline]
    pub fn len(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if !self.reserve(bytes.len() + HEADER_BYTES_MAX + 2) {
            return;
        }
        // Headers of a fixed size are written without a call.
        let digit = |n: usize| b'0' + (n % 10) as u8;
        match bytes.len() {
            len @ 0..10 => self.out.extend_from_slice(&[b'$', digit(len), b'\r', b'\n']),
            len @ 10..100 => self.out.extend_from_slice(&[b'$', digit(len / 10), digit(len), b'\r', b'\n']),
            len => self.length(b'$', len),
        }
        self.line(bytes);
    }

    pub fn bulk_str(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// `$-1` or `_`.
    #[inline]
    pub fn null(&mut self) {
        self.raw(if self.is_resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// `*-1` or `_`.
    pub fn null_array(&mut self) {
        self.raw(if self.is_resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    pub fn optional_bulk(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// A double, a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        if self.is_resp3() {
            if self.reserve(text.len() + 3) {
                self.out.put_u8(b',');
                self.line(text.as_bytes());
            }
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// `#t`, `#f`; an integer in RESP2.
    pub fn boolean(&mut self, value: bool) {
        let bytes: &[u8] = match (self.version, value) {
            (Version::Resp3, true) => b"#t\r\n",
            (Version::Resp3, false) => b"#f\r\n",
            (Version::Resp2, true) => b":1\r\n",
            (Version::Resp2, false) => b":0\r\n",
        };
        self.raw(bytes);
    }

    /// Text with a three-letter format; a bulk string in RESP2.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3);
        if self.is_resp3() {
            if self.reserve(text.len() + HEADER_BYTES_MAX + 6) {
                self.length(b'=', text.len() + 4);
                self.out.extend_from_slice(format.as_bytes());
                self.out.put_u8(b':');
                self.line(text);
            }
        } else {
            self.bulk(text);
        }
    }

    pub fn array(&mut self, len: usize) {
        self.length(b'*', len);
    }

    /// A map of `pairs`; an array of twice the length in RESP2.
    pub fn map(&mut self, pairs: usize) {
        if self.is_resp3() { self.length(b'%', pairs) } else { self.length(b'*', pairs * 2) }
    }

    pub fn set(&mut self, len: usize) {
        self.length(if self.is_resp3() { b'~' } else { b'*' }, len);
    }

    /// An out-of-band message; an array in RESP2.
    pub fn push(&mut self, len: usize) {
        self.length(if self.is_resp3() { b'>' } else { b'*' }, len);
    }

    /// An aggregate whose length is known only after its elements: see [`ReplyWriter::finish_array`].
    pub fn deferred(&mut self) -> Deferred {
        Deferred(self.position())
    }

    pub fn finish_array(&mut self, start: Deferred, len: usize) {
        self.insert_header(start, b'*', len);
    }

    pub fn finish_set(&mut self, start: Deferred, len: usize) {
        self.insert_header(start, if self.is_resp3() { b'~' } else { b'*' }, len);
    }

    pub fn finish_map(&mut self, start: Deferred, pairs: usize) {
        if self.is_resp3() {
            self.insert_header(start, b'%', pairs);
        } else {
            self.insert_header(start, b'*', pairs * 2);
        }
    }

    fn insert_header(&mut self, start: Deferred, kind: u8, len: usize) {
        self.finish(start, |out| out.length(kind, len));
    }

    /// Puts what `write` writes before what was written since `start`.
    pub fn finish(&mut self, start: Deferred, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        if self.is_full() {
            return;
        }
        let mut header = BytesMut::with_capacity(HEADER_BYTES_MAX);
        write(&mut ReplyWriter::new(&mut header, self.version));
        let filled_len = self.filled.as_ref().map_or(0, |filled| filled.len_bytes());
        match (start.0.checked_sub(filled_len), &mut self.filled) {
            (Some(at), None) => insert(self.out, at, &header),
            (Some(at), Some(_)) if self.out.len() - at <= MOVED_BYTES_MAX => insert(self.out, at, &header),
            (_, Some(filled)) => filled.insert(self.out, start.0, &header),
            (None, None) => {}
        }
    }

    fn length(&mut self, kind: u8, len: usize) {
        self.header(kind, i64::try_from(len).unwrap_or(i64::MAX));
    }

    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        if !self.reserve(HEADER_BYTES_MAX) {
            return;
        }
        self.out.put_u8(kind);
        if let 0..=9 = value {
            self.out.extend_from_slice(&[b'0' + (value as u8), b'\r', b'\n']);
        } else {
            self.line(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    #[inline]
    fn line(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Inserts a few bytes.
fn insert(out: &mut BytesMut, at: usize, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out[at..].rotate_right(bytes.len());
}

/// Appends a command as an array of bulk strings: how effects and requests to peers are written.
pub fn write_command(out: &mut BytesMut, args: &[&[u8]]) {
    let mut writer = ReplyWriter::new(out, Version::Resp2);
    writer.array(args.len());
    for arg in args {
        writer.bulk(arg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, write: impl Fn(&mut ReplyWriter<'_>), expect: &str) {
        let mut out = BytesMut::from(&b"before"[..]);
        write(&mut ReplyWriter::new(&mut out, version));
        assert_eq!(std::str::from_utf8(&out).unwrap(), format!("before{expect}"));
    }

    #[test]
    fn both_versions() {
        check(Version::Resp2, |w| w.map(2), "*4\r\n");
        check(Version::Resp3, |w| w.map(2), "%2\r\n");
        check(Version::Resp2, |w| w.null(), "$-1\r\n");
        check(Version::Resp3, |w| w.double(1.5), ",1.5\r\n");
        check(Version::Resp2, |w| w.double(3.0), "$1\r\n3\r\n");
        check(Version::Resp3, |w| w.verbatim("txt", b"hi"), "=6\r\ntxt:hi\r\n");
        check(Version::Resp2, |w| w.integer(-12), ":-12\r\n");
    }

    #[test]
    fn a_deferred_header_lands_before_its_elements() {
        let write = |w: &mut ReplyWriter<'_>| {
            let start = w.deferred();
            (0..12).for_each(|i| w.integer(i));
            w.finish_array(start, 12);
        };
        check(
            Version::Resp2,
            write,
            "*12\r\n:0\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n:9\r\n:10\r\n:11\r\n",
        );
    }
}
