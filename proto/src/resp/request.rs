//! Finds complete commands in a connection's receive buffer.
//!
//! Arguments stay where they are: a [`Batch`] holds spans into the buffer, in two vectors that are reused, so a
//! request costs no allocation. A request that is not complete yet keeps its progress in the [`RequestReader`],
//! so that a large one is not scanned again each time more of it arrives.
//!
//! Inline commands (a line of words) are unquoted into a side buffer of the batch.

use std::fmt;

use super::number::parse_i64;

/// What a stranger may send. Reaching a limit is a [`ProtocolError`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `proto-max-bulk-len`
    pub bulk_len_max: usize,
    /// Arguments of one command. Valkey has no other limit; what a request may take in all is for the caller to bound.
    pub args_max: usize,
    /// Before AUTH, where a password is set: 10 arguments of 16 KiB, as in Valkey.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bulk_len_max: 512 << 20, args_max: i32::MAX as usize, authenticated: true }
    }
}

/// What a request needs at most for an argument of usual length beside its bytes.
const ARGUMENT_OVERHEAD_BYTES: usize = 16;

/// Longest inline command and longest length line.
pub const INLINE_MAX: usize = 64 * 1024;
/// A longer line is refused even if all of it is there; how much more than [`INLINE_MAX`] gets through in Valkey is a
/// matter of how it comes.
const LINE_MAX: usize = INLINE_MAX + (16 << 10);
/// Spans above this many are given back when they are done with: few requests have as many arguments.
const KEPT_SPANS: usize = 64 * 1024;
/// The same for what each connection keeps.
const KEPT_PARTIAL_SPANS: usize = 1024;

/// The peer broke the protocol: it gets this text as an error, then the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolError {
    InvalidMultibulkLength,
    InvalidBulkLength,
    InvalidCrlf,
    UnauthenticatedMultibulkLength,
    UnauthenticatedBulkLength,
    ExpectedDollar(u8),
    TooBigMultibulkCount,
    TooBigBulkCount,
    TooBigInline,
    UnbalancedQuotes,
}

impl ProtocolError {
    /// The text of the error reply: it quotes a byte as it was received.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            ProtocolError::ExpectedDollar(byte) => {
                [b"ERR Protocol error: expected '$', got '", [*byte].as_slice(), b"'"].concat()
            }
            other => format!("ERR {other}").into_bytes(),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::InvalidMultibulkLength => f.write_str("invalid multibulk length"),
            ProtocolError::InvalidBulkLength => f.write_str("invalid bulk length"),
            ProtocolError::InvalidCrlf => f.write_str("invalid CRLF in request"),
            ProtocolError::UnauthenticatedMultibulkLength => f.write_str("unauthenticated multibulk length"),
            ProtocolError::UnauthenticatedBulkLength => f.write_str("unauthenticated bulk length"),
            ProtocolError::ExpectedDollar(byte) => write!(f, "expected '$', got '{}'", char::from(*byte)),
            ProtocolError::TooBigMultibulkCount => f.write_str("too big mbulk count string"),
            ProtocolError::TooBigBulkCount => f.write_str("too big bulk count string"),
            ProtocolError::TooBigInline => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
        }
    }
}

impl std::error::Error for ProtocolError {}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    first_span: usize,
    span_count: usize,
    /// The whole request in the receive buffer.
    raw: Span,
    inline: bool,
}

/// The complete commands of a receive buffer; reused from read to read.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<Span>,
    requests: Vec<Request>,
    inline: Vec<u8>,
    /// Before which requests an empty one came (`*0`, an empty line), in ascending order.
    empty_before: Vec<usize>,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The arguments of request number `index`; `buffer` is what was parsed.
    #[inline]
    pub fn args<'a>(&'a self, buffer: &'a [u8], index: usize) -> Args<'a> {
        let request = &self.requests[index];
        let spans = &self.spans[request.first_span..request.first_span + request.span_count];
        if request.inline {
            Args { buffer: &self.inline, source: Source::Spans(spans), raw: None }
        } else {
            let raw = &buffer[request.raw.start..request.raw.start + request.raw.len];
            Args { buffer, source: Source::Spans(spans), raw: Some(raw) }
        }
    }

    /// Where request number `index` lies in the buffer: its first byte and the one behind it.
    pub fn bounds(&self, index: usize) -> (usize, usize) {
        let raw = self.requests[index].raw;
        (raw.start, raw.start + raw.len)
    }

    /// Where the bytes of requests end that come before number `index`, which may be the length of the batch, but not zero
    /// of an empty one.
    pub fn start_of(&self, index: usize) -> usize {
        if index < self.len() { self.bounds(index).0 } else { self.bounds(index - 1).1 }
    }

    /// Whether an empty request came right before request number `index`; before the end of the batch for its length.
    pub fn has_empty_before(&self, index: usize) -> bool {
        self.empty_before.binary_search(&index).is_ok()
    }

    fn push_empty(&mut self) {
        if self.empty_before.last() != Some(&self.requests.len()) {
            self.empty_before.push(self.requests.len());
        }
    }

    /// Gives the memory of unusually long requests back.
    pub fn shrink(&mut self) {
        if KEPT_SPANS < self.spans.capacity() || INLINE_MAX < self.inline.capacity() {
            *self = Batch::default();
        }
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.spans.shrink_to(KEPT_SPANS);
        self.requests.clear();
        self.inline.clear();
        self.empty_before.clear();
    }
}

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Spans(&'a [Span]),
    Slices(&'a [&'a [u8]]),
}

/// The arguments of one command, its name first. Never empty where a reader made it.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buffer: &'a [u8],
    source: Source<'a>,
    raw: Option<&'a [u8]>,
}

impl<'a> Args<'a> {
    /// Arguments that do not come from a receive buffer.
    pub fn from_slices(slices: &'a [&'a [u8]]) -> Self {
        Args { buffer: &[], source: Source::Slices(slices), raw: None }
    }

    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a command has at least its name")]
    pub fn len(&self) -> usize {
        match self.source {
            Source::Spans(spans) => spans.len(),
            Source::Slices(slices) => slices.len(),
        }
    }

    /// Panics beyond the end; arity is checked before a command runs.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        match self.source {
            Source::Spans(spans) => {
                let span = &spans[index];
                &self.buffer[span.start..span.start + span.len]
            }
            Source::Slices(slices) => slices[index],
        }
    }

    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        (index < self.len()).then(|| self.at(index))
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + use<'a> {
        let args = *self;
        (0..self.len()).map(move |i| args.at(i))
    }

    /// The request as the client sent it, if that is a RESP array of bulk strings.
    #[inline]
    pub fn raw(&self) -> Option<&'a [u8]> {
        self.raw
    }

    /// About how long the request is as a RESP array.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        match self.raw {
            Some(raw) => raw.len(),
            None => self.iter().map(|arg| arg.len() + ARGUMENT_OVERHEAD_BYTES).sum(),
        }
    }

    /// Copies, for a command that outlives its receive buffer (MULTI, blocking).
    pub fn to_owned(&self) -> OwnedArgs {
        let mut bytes = Vec::with_capacity(self.iter().map(<[u8]>::len).sum());
        let mut spans = Vec::with_capacity(self.len());
        for arg in self.iter() {
            spans.push(Span { start: bytes.len(), len: arg.len() });
            bytes.extend_from_slice(arg);
        }
        OwnedArgs { bytes: bytes.into(), spans: spans.into() }
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|a| String::from_utf8_lossy(a).into_owned())).finish()
    }
}

/// A command kept for later: one allocation for all its bytes.
#[derive(Debug, Clone)]
pub struct OwnedArgs {
    bytes: Box<[u8]>,
    spans: Box<[Span]>,
}

impl OwnedArgs {
    pub fn as_args(&self) -> Args<'_> {
        Args { buffer: &self.bytes, source: Source::Spans(&self.spans), raw: None }
    }

    /// Bytes that it keeps.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }
}

/// Progress within a request that is not complete yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Between requests.
    Idle,
    /// `remaining` arguments to come; the next one has this length if its header was read.
    Multibulk { remaining: usize, bulk_len: Option<usize> },
}

/// Splits a byte stream into commands.
#[derive(Debug)]
pub struct RequestReader {
    progress: Progress,
    /// Where parsing goes on in the buffer.
    position: usize,
    /// Start of the incomplete request.
    start: usize,
    partial: Vec<Span>,
}

impl Default for RequestReader {
    fn default() -> Self {
        RequestReader { progress: Progress::Idle, position: 0, start: 0, partial: Vec::new() }
    }
}

impl RequestReader {
    /// Fills `batch` with the complete requests at the front of `buffer`, at most `requests_max`.
    ///
    /// Returns how many bytes they take: the caller executes them, drops these bytes from the front, and calls
    /// again when there are more. On an error the requests before it are in the batch.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
        requests_max: usize,
        batch: &mut Batch,
    ) -> (usize, Result<(), ProtocolError>) {
        batch.clear();
        let mut consumed = 0;
        let mut result = Ok(());
        while batch.requests.len() < requests_max && self.position < buffer.len() {
            match self.parse_one(buffer, limits, batch) {
                Ok(true) => consumed = self.position,
                Ok(false) => break,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        // The caller drops the consumed bytes: positions move along.
        self.position -= consumed;
        self.start = self.start.saturating_sub(consumed);
        for span in &mut self.partial {
            span.start -= consumed;
        }
        (consumed, result)
    }

    /// What it keeps of a request that is not complete yet, beside the buffer.
    pub fn memory_bytes(&self) -> usize {
        self.partial.capacity() * size_of::<Span>()
    }

    /// How long the buffer should at least be to hold the argument that is arriving.
    pub fn wanted_len(&self) -> usize {
        match self.progress {
            Progress::Multibulk { bulk_len: Some(len), .. } => self.position + len + 2,
            Progress::Multibulk { bulk_len: None, .. } | Progress::Idle => 0,
        }
    }

    fn parse_one(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
        batch: &mut Batch,
    ) -> Result<bool, ProtocolError> {
        if self.progress == Progress::Idle {
            if limits.authenticated
                && let Some(end) = parse_plain(&buffer[self.position..], limits, self.position, batch)
            {
                self.position = end;
                return Ok(true);
            }
            self.start = self.position;
            if buffer[self.position] != b'*' {
                return self.parse_inline(buffer, batch);
            }
            let Some((line, next)) = line_at(buffer, self.position) else {
                return too_long(buffer, self.position, ProtocolError::TooBigMultibulkCount);
            };
            let count = parse_i64(length_in(line)?).ok_or(ProtocolError::InvalidMultibulkLength)?;
            if i64::try_from(limits.args_max).is_ok_and(|max| count > max) || count > i64::from(i32::MAX) {
                return Err(ProtocolError::InvalidMultibulkLength);
            }
            if count > 10 && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedMultibulkLength);
            }
            self.position = next;
            let Ok(remaining @ 1..) = usize::try_from(count) else {
                batch.push_empty();
                return Ok(true);
            };
            self.partial.clear();
            self.progress = Progress::Multibulk { remaining, bulk_len: None };
        }
        let Progress::Multibulk { mut remaining, mut bulk_len } = self.progress else { return Ok(false) };
        while remaining > 0 {
            let len = match bulk_len {
                Some(len) => len,
                None => {
                    let Some((line, next)) = line_at(buffer, self.position) else {
                        self.progress = Progress::Multibulk { remaining, bulk_len };
                        return too_long(buffer, self.position, ProtocolError::TooBigBulkCount);
                    };
                    if line[0] != b'$' {
                        return Err(ProtocolError::ExpectedDollar(line[0]));
                    }
                    let len = parse_i64(length_in(line)?)
                        .and_then(|len| usize::try_from(len).ok())
                        .filter(|len| *len <= limits.bulk_len_max)
                        .ok_or(ProtocolError::InvalidBulkLength)?;
                    if len > 16384 && !limits.authenticated {
                        return Err(ProtocolError::UnauthenticatedBulkLength);
                    }
                    self.position = next;
                    bulk_len = Some(len);
                    len
                }
            };
            let Some(end) = buffer.get(self.position + len..self.position + len + 2) else { break };
            if end != b"\r\n" {
                return Err(ProtocolError::InvalidCrlf);
            }
            self.partial.push(Span { start: self.position, len });
            self.position += len + 2;
            bulk_len = None;
            remaining -= 1;
        }
        if remaining > 0 {
            self.progress = Progress::Multibulk { remaining, bulk_len };
            return Ok(false);
        }
        self.progress = Progress::Idle;
        let first_span = batch.spans.len();
        batch.spans.append(&mut self.partial);
        self.partial.shrink_to(KEPT_PARTIAL_SPANS);
        batch.requests.push(Request {
            first_span,
            span_count: batch.spans.len() - first_span,
            raw: Span { start: self.start, len: self.position - self.start },
            inline: false,
        });
        Ok(true)
    }

    fn parse_inline(&mut self, buffer: &[u8], batch: &mut Batch) -> Result<bool, ProtocolError> {
        let rest = &buffer[self.position..];
        // As in Valkey a line ends at a NUL, too, and that one never becomes complete.
        let newline = memchr::memchr2(b'\n', 0, rest).filter(|end| rest[*end] == b'\n' && *end <= LINE_MAX);
        let Some(newline) = newline else {
            return too_long(buffer, self.position, ProtocolError::TooBigInline);
        };
        let line = rest[..newline].strip_suffix(b"\r").unwrap_or(&rest[..newline]);
        let first_span = batch.spans.len();
        let mut words = Words { line, position: 0 };
        while let Some(span) = words.next(&mut batch.inline)? {
            batch.spans.push(span);
        }
        let raw = Span { start: self.position, len: newline + 1 };
        self.position += newline + 1;
        let span_count = batch.spans.len() - first_span;
        if span_count > 0 {
            batch.requests.push(Request { first_span, span_count, raw, inline: true });
        } else if line.is_empty() {
            // One of spaces counts as nothing at all, as in Valkey.
            batch.push_empty();
        }
        Ok(true)
    }
}

/// The usual request, complete and with few and short arguments, at the cost of a look at each byte of its headers.
/// Returns the position behind it; `None`, with nothing changed, for every other request, good or bad.
#[inline]
fn parse_plain(rest: &[u8], limits: &Limits, start: usize, batch: &mut Batch) -> Option<usize> {
    let (count, mut at) = plain_length(rest, b'*')?;
    let first_span = batch.spans.len();
    for _ in 0..count {
        let argument = rest.get(at..).and_then(|header| plain_length(header, b'$'));
        let Some((len, header_len)) = argument.filter(|(len, header_len)| {
            let end = at + header_len + len;
            *len <= limits.bulk_len_max && rest.get(end..end + 2) == Some(b"\r\n")
        }) else {
            batch.spans.truncate(first_span);
            return None;
        };
        batch.spans.push(Span { start: start + at + header_len, len });
        at += header_len + len + 2;
    }
    batch.requests.push(Request {
        first_span,
        span_count: count,
        raw: Span { start, len: at },
        inline: false,
    });
    Some(start + at)
}

/// A header with a length of one to three digits, and how long it is. A count of zero is not plain, nor is a length
/// of zero with more digits.
#[inline]
fn plain_length(header: &[u8], kind: u8) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
    match *header {
        [first, a, b'\r', b'\n', ..] if first == kind && digit(a) < 10 && (kind == b'$' || a != b'0') => {
            Some((digit(a), 4))
        }
        [first, a @ b'1'..=b'9', b, b'\r', b'\n', ..] if first == kind && digit(b) < 10 => {
            Some((digit(a) * 10 + digit(b), 5))
        }
        [first, a @ b'1'..=b'9', b, c, b'\r', b'\n', ..]
            if first == kind && digit(b) < 10 && digit(c) < 10 =>
        {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 6))
        }
        _ => None,
    }
}

fn too_long(buffer: &[u8], start: usize, error: ProtocolError) -> Result<bool, ProtocolError> {
    if buffer.len() - start > INLINE_MAX { Err(error) } else { Ok(false) }
}

/// The line from `start` to a CR and the byte behind that, and the position behind it; `None` if it has not come yet.
#[inline]
fn line_at(buffer: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let rest = buffer.get(start..)?;
    // Length lines are a few bytes long: a loop beats a search.
    let end = rest.iter().take(32).position(|b| *b == b'\r').or_else(|| memchr::memchr(b'\r', rest))?;
    let line = rest.get(..end + 2).filter(|_| end <= LINE_MAX)?;
    Some((line, start + end + 2))
}

/// The length in a line of [`line_at`]. Whether that ends as it should is looked at first.
#[inline]
fn length_in(line: &[u8]) -> Result<&[u8], ProtocolError> {
    match line {
        [_, length @ .., b'\r', b'\n'] => Ok(length),
        _ => Err(ProtocolError::InvalidCrlf),
    }
}

/// Splits a line into words the way a shell would: quotes, escapes. Shared by inline commands and conf files.
///
/// As in Valkey, vertical tab and form feed are spaces before a word but part of a word that they follow, quotes may
/// begin and end in the middle of a word, and a quote that ends the line is not escaped: `"C:\"`.
///
/// Differs from Valkey: a byte 0xff is kept, Valkey loses it.
struct Words<'a> {
    line: &'a [u8],
    position: usize,
}

impl Words<'_> {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Span>, ProtocolError> {
        let line = self.line;
        let is_space = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
        let ends_word = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0);
        while line.get(self.position).is_some_and(is_space) {
            self.position += 1;
        }
        if line.get(self.position).is_none_or(|b| *b == 0) {
            return Ok(None);
        }
        let start = out.len();
        while let Some(&b) = line.get(self.position) {
            if ends_word(&b) {
                break;
            }
            self.position += 1;
            match b {
                b'"' => self.double_quoted(out)?,
                b'\'' => self.single_quoted(out)?,
                _ => out.push(b),
            }
        }
        Ok(Some(Span { start, len: out.len() - start }))
    }

    fn double_quoted(&mut self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        loop {
            let rest = self.line.get(self.position..).unwrap_or_default();
            match rest {
                [b'\\', b'"'] => {
                    out.push(b'\\');
                    self.position += 2;
                    return Ok(());
                }
                [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    out.push(hex_value(*high) * 16 + hex_value(*low));
                    self.position += 4;
                }
                [b'\\', escaped, ..] => {
                    out.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => *other,
                    });
                    self.position += 2;
                }
                [b'"', ..] => {
                    self.position += 1;
                    return Ok(());
                }
                [b, ..] => {
                    out.push(*b);
                    self.position += 1;
                }
                [] => return Err(ProtocolError::UnbalancedQuotes),
            }
        }
    }

    fn single_quoted(&mut self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        loop {
            let rest = self.line.get(self.position..).unwrap_or_default();
            match rest {
                [b'\\', b'\''] => {
                    out.push(b'\\');
                    self.position += 2;
                    return Ok(());
                }
                [b'\\', b'\'', ..] => {
                    out.push(b'\'');
                    self.position += 2;
                }
                [b'\'', ..] => {
                    self.position += 1;
                    return Ok(());
                }
                [b, ..] => {
                    out.push(*b);
                    self.position += 1;
                }
                [] => return Err(ProtocolError::UnbalancedQuotes),
            }
        }
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// Splits a line of a conf file or an inline command into words.
///
/// # Errors
/// [`ProtocolError::UnbalancedQuotes`]
pub fn split_words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut out = Vec::new();
    let mut words = Words { line, position: 0 };
    let mut result = Vec::new();
    while let Some(span) = words.next(&mut out)? {
        result.push(out[span.start..span.start + span.len].to_vec());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(input: &[u8], step: usize) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut reader = RequestReader::default();
        let mut batch = Batch::default();
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            let (consumed, result) = reader.parse(&buffer, &Limits::default(), 1000, &mut batch);
            for i in 0..batch.len() {
                let args = batch.args(&buffer, i);
                if let Some(raw) = args.raw() {
                    assert_eq!(raw.first(), Some(&b'*'));
                }
                found.push(args.iter().map(<[u8]>::to_vec).collect());
            }
            buffer.drain(..consumed);
            result?;
        }
        Ok(found)
    }

    #[test]
    fn finds_the_same_commands_however_the_bytes_arrive() {
        let input =
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\nPING \"a b\\x41\" 'c'\r\n\r\n*1\r\n$4\r\nPING\r\nSET a b\n";
        let whole = parse_all(input, input.len()).unwrap();
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[1], vec![b"PING".to_vec(), b"a bA".to_vec(), b"c".to_vec()]);
        for step in 1..input.len() {
            assert_eq!(parse_all(input, step).unwrap(), whole, "in pieces of {step}");
        }
    }

    #[test]
    fn errors_in_valkeys_words() {
        let check = |input: &[u8], text: &str| {
            assert_eq!(parse_all(input, 7).unwrap_err().to_string(), format!("Protocol error: {text}"));
        };
        check(b"*x\r\n", "invalid multibulk length");
        check(b"*2147483648\r\n", "invalid multibulk length");
        check(b"*1\r\n:1\r\n", "expected '$', got ':'");
        check(b"*1\r\n$-1\r\n", "invalid bulk length");
        check(b"*1\r\n$999999999\r\n", "invalid bulk length");
        check(b"SET \"a\r\n", "unbalanced quotes in request");
        check(b"SET 'a\r\n", "unbalanced quotes in request");
        check(&[b'a'; 70000], "too big inline request");
        check(&[&b"*1\r\n"[..], &[b'a'; 70000]].concat(), "too big bulk count string");
        check(&[&b"*"[..], &[b'1'; 70000]].concat(), "too big mbulk count string");
        // A line that has come at once, too.
        let mut batch = Batch::default();
        for (start, error) in [("", ProtocolError::TooBigInline), ("*", ProtocolError::TooBigMultibulkCount)]
        {
            let input = format!("{start}{}\r\n", "1".repeat(90_000));
            let result = RequestReader::default().parse(input.as_bytes(), &Limits::default(), 9, &mut batch);
            assert_eq!(result, (0, Err(error)));
        }
        assert_eq!(
            ProtocolError::ExpectedDollar(0xff).to_bytes(),
            b"ERR Protocol error: expected '$', got '\xff'"
        );
    }

    #[test]
    fn every_line_and_argument_ends_with_cr_lf() {
        for input in [
            &b"*1\r\n$4\r\nPINGxx"[..],
            b"*1\r\n$4\r\nPING\rx",
            b"*1\r\n$4\r\nPING\n\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nvalue12345",
            b"*1\rx$4\r\nPING\r\n",
            b"*1\r\n$4\rxPING\r\n",
            // Looked at before the number is.
            b"*x\rx",
            b"*0\rx",
            b"*1\r\n$-1\rx",
            b"*1\r\n$x\rx",
        ] {
            for step in 1..=input.len() {
                assert_eq!(
                    parse_all(input, step),
                    Err(ProtocolError::InvalidCrlf),
                    "{input:?} in pieces of {step}"
                );
            }
            let mut long = b"*2\r\n$4\r\nECHO\r\n$1000\r\n".to_vec();
            long.extend([b'x'; 1000]);
            long.extend(b"\rx");
            assert_eq!(parse_all(&long, long.len()), Err(ProtocolError::InvalidCrlf));
        }
        // A line is looked at when all of it is there, its first byte before its end.
        assert_eq!(parse_all(b"*1\r\nI\n", 100), Ok(vec![]));
        assert_eq!(parse_all(b"*1\r\n\r", 100), Ok(vec![]));
        assert_eq!(parse_all(b"*1\r\n\rx", 100), Err(ProtocolError::ExpectedDollar(b'\r')));
        assert_eq!(parse_all(b"*1\r\nI\rx", 100), Err(ProtocolError::ExpectedDollar(b'I')));
        // Half of it may be still to come.
        assert_eq!(parse_all(b"*1\r\n$4\r\nPING\r", 100), Ok(vec![]));
        assert_eq!(parse_all(b"*1\r\n$4\r", 100), Ok(vec![]));
    }

    #[test]
    fn more_than_a_million_arguments() {
        const COUNT: usize = (1 << 20) + 1;
        let mut input = format!("*{COUNT}\r\n").into_bytes();
        input.extend(b"$1\r\na\r\n".repeat(COUNT));
        let (mut reader, mut batch) = (RequestReader::default(), Batch::default());
        let half = input.len() / 2;
        assert_eq!(reader.parse(&input[..half], &Limits::default(), 128, &mut batch), (0, Ok(())));
        assert!(COUNT / 2 * 16 <= reader.memory_bytes() + 16);
        assert_eq!(reader.parse(&input, &Limits::default(), 128, &mut batch), (input.len(), Ok(())));
        assert_eq!(batch.args(&input, 0).len(), COUNT);
        // Neither the connection nor its thread keeps as much for ever.
        assert!(reader.memory_bytes() <= KEPT_PARTIAL_SPANS * 16);
        assert_eq!(reader.parse(b"", &Limits::default(), 128, &mut batch), (0, Ok(())));
        assert!(batch.spans.capacity() <= KEPT_SPANS);
    }

    #[test]
    fn words_are_split_as_in_valkey() {
        let check = |line: &[u8], words: &[&[u8]]| {
            assert_eq!(split_words(line).unwrap(), words, "{}", line.escape_ascii());
        };
        check(b"PING \"a\"b", &[b"PING", b"ab"]);
        check(b"PING 'a'b\"c\"", &[b"PING", b"abc"]);
        check(b"PING a\"b c\"d", &[b"PING", b"ab cd"]);
        check(b"PING\x0ba\x0cb", &[b"PING\x0ba\x0cb"]);
        check(b"\x0b\x0cPING \x0b a", &[b"PING", b"a"]);
        check(b"PING \"a\"\x0b", &[b"PING", b"a\x0b"]);
        check(b"PING\ra\tb", &[b"PING", b"a", b"b"]);
        check(b" \x0b\x0c\t", &[]);
        check(b"ECHO \"C:\\\"", &[b"ECHO", b"C:\\"]);
        check(b"ECHO '\\\\'", &[b"ECHO", b"\\\\"]);
        check(b"ECHO \"\\\"b\\\"\"", &[b"ECHO", b"\"b\""]);
        assert_eq!(split_words(b"ECHO \"a\\\" "), Err(ProtocolError::UnbalancedQuotes));
        check(b"a\0b c", &[b"a"]);
        check(b"a \0b", &[b"a"]);
        check(b"\"\"", &[b""]);
    }

    #[test]
    fn an_inline_request_with_a_nul_never_ends() {
        assert_eq!(parse_all(b"PING a\0b\r\nPING\r\n", 100), Ok(vec![]));
        let mut long = b"PING a\0b\r\n".to_vec();
        long.extend([b'\n'; 70000]);
        assert_eq!(parse_all(&long, 1000), Err(ProtocolError::TooBigInline));
    }

    #[test]
    fn empty_requests_are_noted() {
        let mut batch = Batch::default();
        let mut check = |input: &[u8], expected: &[usize]| {
            let (consumed, result) =
                RequestReader::default().parse(input, &Limits::default(), 10, &mut batch);
            assert_eq!((consumed, result), (input.len(), Ok(())));
            let found: Vec<usize> = (0..=batch.len()).filter(|i| batch.has_empty_before(*i)).collect();
            assert_eq!(found, expected, "{}", input.escape_ascii());
        };
        check(b"PING\r\n", &[]);
        check(b"*0\r\nPING\r\n\r\n\n*-1\r\nPING\r\n", &[0, 1]);
        check(b"PING\r\n*0\r\n", &[1]);
        check(b"*-5\r\n", &[0]);
        check(b"PING\r\n \r\n\t\n", &[]);
    }

    #[test]
    fn a_stranger_may_not_send_much() {
        let limits = Limits { authenticated: false, ..Limits::default() };
        let mut batch = Batch::default();
        let (_, result) = RequestReader::default().parse(b"*11\r\n", &limits, 1, &mut batch);
        assert_eq!(result, Err(ProtocolError::UnauthenticatedMultibulkLength));
        let (_, result) = RequestReader::default().parse(b"*1\r\n$20000\r\n", &limits, 1, &mut batch);
        assert_eq!(result, Err(ProtocolError::UnauthenticatedBulkLength));
    }
}
