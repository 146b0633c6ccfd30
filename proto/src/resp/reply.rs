//! Appends replies to an output buffer, in the protocol version that the connection has negotiated.

use bytes::{BufMut, BytesMut};

use super::number::format_double;

/// The protocol that a connection speaks: RESP2 until HELLO 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

/// Writes one reply after another. Aggregates are a header followed by their elements.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: &'a mut BytesMut,
    version: Version,
}

/// Where the header of an aggregate goes whose length is not known yet.
#[derive(Debug)]
#[must_use]
pub struct Deferred(usize);

impl<'a> ReplyWriter<'a> {
    pub fn new(out: &'a mut BytesMut, version: Version) -> Self {
        ReplyWriter { out, version }
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
        self.out.len()
    }

    /// Drops what was written since `position`.
    pub fn rewind(&mut self, position: usize) {
        self.out.truncate(position);
    }

    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; it must not contain a line break.
    pub fn simple(&mut self, text: &str) {
        self.out.put_u8(b'+');
        self.line(text.as_bytes());
    }

    /// An error with its code, e.g. `ERR no such key`. Line breaks become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.out.put_u8(b'-');
        for &b in text.as_ref() {
            self.out.put_u8(if b == b'\r' || b == b'\n' { b' ' } else { b });
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Bytes that are a reply already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
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
        self.out.reserve(bytes.len() + 24);
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
        self.out.extend_from_slice(if self.is_resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// `*-1` or `_`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.is_resp3() { b"_\r\n" } else { b"*-1\r\n" });
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
            self.out.put_u8(b',');
            self.line(text.as_bytes());
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
        self.out.extend_from_slice(bytes);
    }

    /// Text with a three-letter format; a bulk string in RESP2.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3);
        if self.is_resp3() {
            self.length(b'=', text.len() + 4);
            self.out.extend_from_slice(format.as_bytes());
            self.out.put_u8(b':');
            self.line(text);
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
        Deferred(self.out.len())
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
        let end = self.out.len();
        self.length(kind, len);
        let header_len = self.out.len() - end;
        self.out[start.0..].rotate_right(header_len);
    }

    fn length(&mut self, kind: u8, len: usize) {
        self.header(kind, i64::try_from(len).unwrap_or(i64::MAX));
    }

    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
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
