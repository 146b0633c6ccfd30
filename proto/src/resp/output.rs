//! Bytes on their way out: chunks that do not move any more, and the one that is written to.
//!
//! A long reply grows by chunks, so it is never copied as a whole and takes little more than its own length. What many
//! clients receive (a published message) is one allocation that all of them share. Who writes to the socket gets slices
//! of all of it.
//!
//! An output may have a limit. What goes beyond it is dropped together with what was there before: a client that may
//! not have so much is closed, so nobody will see it. Writing goes on without an effect; who writes much can ask
//! ([`ReplyWriter::is_full`]) and stop.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::reply::{ReplyWriter, Version};

/// Chunks are about as long at most, unless a single value is longer.
pub const CHUNK_BYTES: usize = 256 << 10;
/// A value from here on gets a chunk of its own, if it does not fit into the open one.
const OWN_CHUNK_BYTES_MIN: usize = CHUNK_BYTES / 4;
/// Chunks for whose list memory is kept.
const KEPT_CHUNKS: usize = 64;
/// An open chunk below this is copied rather than given away.
const COPIED_BYTES_MAX: usize = 16 << 10;
/// Shorter ones are cheaper to copy than to share.
const SHARED_BYTES_MIN: usize = 1 << 10;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Output {
    filled: Filled,
    open: BytesMut,
}

/// All but the chunk that is written to.
#[derive(Debug)]
pub(super) struct Filled {
    chunks: VecDeque<Bytes>,
    /// Of all chunks.
    len_bytes: usize,
    limit_bytes: usize,
    exceeded: bool,
}

impl Default for Filled {
    fn default() -> Self {
        Filled { chunks: VecDeque::new(), len_bytes: 0, limit_bytes: usize::MAX, exceeded: false }
    }
}

impl Output {
    /// Writes replies to the end.
    #[inline]
    pub fn writer(&mut self, version: Version) -> ReplyWriter<'_> {
        ReplyWriter::to_output(&mut self.open, &mut self.filled, version)
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.filled.len_bytes + self.open.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is about as much as fits into one chunk, or more.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.filled.len_bytes != 0 || CHUNK_BYTES <= self.open.len()
    }

    /// Drops everything, and with it a limit; keeps the memory of one chunk.
    #[inline]
    pub fn clear(&mut self) {
        self.open.clear();
        if self.filled.len_bytes != 0 || self.filled.exceeded || CHUNK_BYTES < self.open.capacity() {
            *self = Output::default();
        }
        self.filled.limit_bytes = usize::MAX;
    }

    /// From now on no more than `limit_bytes` may be in here.
    #[inline]
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.filled.limit_bytes = limit_bytes;
    }

    /// Whether more was written than the limit allows.
    #[inline]
    pub fn is_exceeded(&self) -> bool {
        self.filled.exceeded || self.filled.limit_bytes < self.len()
    }

    pub fn truncate(&mut self, len: usize) {
        self.filled.truncate(&mut self.open, len);
    }

    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.writer(Version::default()).raw(bytes);
    }

    /// Appends bytes that others may hold too.
    pub fn push_shared(&mut self, bytes: &Bytes) {
        self.writer(Version::default()).shared(bytes);
    }

    /// Takes out all bytes; room that is left stays here.
    pub fn split(&mut self) -> Output {
        let filled = Filled {
            chunks: std::mem::take(&mut self.filled.chunks),
            len_bytes: std::mem::take(&mut self.filled.len_bytes),
            ..Filled::default()
        };
        Output { filled, open: self.open.split() }
    }

    /// Appends what is in `other`, which is empty then. Few bytes are copied, so that they keep no large buffer and are
    /// written together.
    pub fn append(&mut self, other: &mut Output) {
        let is_short = other.open.len() < COPIED_BYTES_MAX.max(other.open.capacity() / 2);
        if other.filled.len_bytes == 0 && is_short {
            self.extend_from_slice(&other.open);
            other.open.clear();
            return;
        }
        self.filled.fill(&mut self.open);
        self.filled.len_bytes += std::mem::take(&mut other.filled.len_bytes);
        self.filled.chunks.append(&mut other.filled.chunks);
        self.filled.fill(&mut other.open);
    }

    /// The same bytes, in a small buffer if they are few.
    #[must_use]
    pub fn compact(mut self) -> Output {
        let mut compact = Output::default();
        compact.append(&mut self);
        compact
    }

    /// The bytes from the front on, as many as there are slices for; returns how many slices are used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.filled.chunks.iter().map(|chunk| &**chunk);
        let all = chunks.chain((!self.open.is_empty()).then_some(&*self.open));
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// The bytes, if they are in one piece.
    #[inline]
    pub fn as_one_slice(&self) -> Option<&[u8]> {
        (self.filled.len_bytes == 0).then_some(&*self.open)
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.filled.chunks.iter().map(|chunk| &**chunk).chain([&*self.open]).collect::<Vec<_>>().concat()
    }

    /// Drops bytes at the front.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.filled.chunks.front_mut() {
            let len = first.len();
            if count < len {
                first.advance(count);
                self.filled.len_bytes -= count;
                return;
            }
            self.filled.chunks.pop_front();
            self.filled.len_bytes -= len;
            count -= len;
        }
        self.open.advance(count);
    }

    /// Gives memory back that is not needed, if there is more than this.
    pub fn shrink(&mut self, kept_bytes: usize) {
        if self.is_empty()
            && (kept_bytes < self.open.capacity() || KEPT_CHUNKS < self.filled.chunks.capacity())
        {
            *self = Output::default();
        }
    }
}

impl Filled {
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Makes room for some more bytes in the open chunk. False: they are too many, and are not to be written.
    pub(super) fn make_room(&mut self, open: &mut BytesMut, needed: usize) -> bool {
        if self.limit_bytes < self.len_bytes + open.len() + needed {
            self.exceeded = true;
            self.chunks = VecDeque::new();
            self.len_bytes = 0;
        }
        if self.exceeded {
            open.clear();
            if needed <= CHUNK_BYTES {
                open.reserve(needed);
            }
            return needed <= open.capacity();
        }
        if open.len() + needed <= CHUNK_BYTES {
            open.reserve(needed);
        } else {
            self.fill(open);
            *open = BytesMut::with_capacity(if needed < OWN_CHUNK_BYTES_MIN { CHUNK_BYTES } else { needed });
        }
        true
    }

    /// The open chunk is complete.
    fn fill(&mut self, open: &mut BytesMut) {
        if !open.is_empty() {
            self.len_bytes += open.len();
            self.chunks.push_back(std::mem::take(open).freeze());
        }
    }

    /// Appends bytes that others may hold too.
    pub(super) fn push_shared(&mut self, open: &mut BytesMut, bytes: &Bytes) {
        if self.limit_bytes < self.len_bytes + open.len() + bytes.len() {
            self.make_room(open, bytes.len());
        } else if !self.exceeded {
            self.fill(open);
            self.len_bytes += bytes.len();
            self.chunks.push_back(bytes.clone());
        }
    }

    pub(super) fn truncate(&mut self, open: &mut BytesMut, len: usize) {
        if self.exceeded {
            return;
        }
        open.truncate(len.saturating_sub(self.len_bytes));
        while len < self.len_bytes
            && let Some(last) = self.chunks.back_mut()
        {
            let start = self.len_bytes - last.len();
            if start < len {
                last.truncate(len - start);
                self.len_bytes = len;
            } else {
                self.chunks.pop_back();
                self.len_bytes = start;
            }
        }
    }

    /// Puts some bytes before what begins at `at`.
    pub(super) fn insert(&mut self, open: &mut BytesMut, at: usize, bytes: &[u8]) {
        if self.exceeded {
            return;
        }
        if let Some(start) = at.checked_sub(self.len_bytes) {
            let rest = open.split_off(start.min(open.len()));
            self.fill(open);
            self.len_bytes += bytes.len();
            self.chunks.push_back(Bytes::copy_from_slice(bytes));
            *open = rest;
            return;
        }
        let (mut start, mut index) = (0, 0);
        while let Some(chunk) = self.chunks.get_mut(index) {
            if at < start + chunk.len() {
                let rest = chunk.split_off(at - start);
                self.chunks.insert(index + 1, rest);
                self.chunks.insert(index + 1, Bytes::copy_from_slice(bytes));
                self.len_bytes += bytes.len();
                return;
            }
            start += chunk.len();
            index += 1;
        }
    }
}

/// Whether a message is long enough to be shared.
pub(super) fn is_shared(bytes: &Bytes) -> bool {
    SHARED_BYTES_MIN <= bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(output: &Output) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = output.slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        assert_eq!(bytes.len(), output.len());
        assert_eq!(bytes, output.to_vec());
        bytes
    }

    #[test]
    fn a_long_reply_is_in_chunks_and_the_same() {
        let values: Vec<Vec<u8>> = [10, 1000, 70_000, 3, 100_000, 300_000, 1, 200_000, 5]
            .iter()
            .map(|len| vec![b'x'; *len])
            .collect();
        let mut plain = BytesMut::new();
        let mut output = Output::default();
        let write = |mut writer: ReplyWriter<'_>| {
            let start = writer.deferred();
            let inner = writer.position();
            values.iter().for_each(|value| writer.bulk(value));
            writer.rewind(inner + 90_000);
            writer.integer(12);
            writer.rewind(inner + 50);
            let second = writer.deferred();
            values.iter().for_each(|value| writer.bulk(value));
            writer.finish_array(second, 7);
            writer.finish_array(start, values.len());
            writer.ok();
        };
        write(ReplyWriter::new(&mut plain, Version::Resp2));
        write(output.writer(Version::Resp2));
        assert!(output.is_long());
        assert_eq!(bytes_of(&output), plain);
        let longest = output.filled.chunks.iter().map(Bytes::len).max();
        assert!(longest <= Some(300_000 + 64), "{longest:?}");
        let mut end = Output::default();
        end.extend_from_slice(b"a");
        end.append(&mut output);
        assert!(output.is_empty());
        end.advance(1 + 70_000);
        assert_eq!(bytes_of(&end), plain[70_000..]);
        end.advance(plain.len() - 70_000);
        assert!(end.is_empty());
    }

    #[test]
    fn beyond_its_limit_everything_is_dropped() {
        let mut output = Output::default();
        output.set_limit(1 << 20);
        let mut writer = output.writer(Version::Resp2);
        let mut len_max = 0;
        for _ in 0..100 {
            let start = writer.deferred();
            writer.bulk(&[b'x'; 100_000]);
            writer.finish_array(start, 1);
            writer.shared(&Bytes::from(vec![b'y'; 5000]));
            len_max = writer.position().max(len_max);
        }
        assert!(writer.is_full());
        assert!(len_max <= 1 << 20, "{len_max}");
        writer.rewind(500_000);
        writer.bulk(&vec![b'x'; 10 << 20]);
        assert!(output.is_exceeded());
        assert!(output.len() <= CHUNK_BYTES && output.open.capacity() <= CHUNK_BYTES);
        output.clear();
        assert!(!output.is_exceeded() && output.is_empty());
        output.set_limit(10);
        output.extend_from_slice(b"12345678901");
        assert!(output.is_exceeded(), "within one chunk");
    }

    #[test]
    fn a_message_is_shared_unless_it_is_short() {
        let message = Bytes::from(vec![b'm'; 5000]);
        let mut outputs = [Output::default(), Output::default()];
        for output in &mut outputs {
            output.extend_from_slice(b"before");
            output.push_shared(&message);
            output.push_shared(&Bytes::from_static(b"short"));
        }
        for output in &outputs {
            assert_eq!(bytes_of(output), [b"before", &message[..], b"short"].concat());
            assert_eq!(output.filled.chunks[1].as_ptr(), message.as_ptr());
        }
    }
}
