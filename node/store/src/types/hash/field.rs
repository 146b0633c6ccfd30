//! A field of a large hash: name, value and perhaps a time in one allocation.

use super::Pair;
use crate::entry::thin::{FieldBytes, ThinBytes, TimedBytes};
use crate::table::Keyed;
use crate::types::tree::Ordered;

/// Length of the name (seven bits to a byte, the lowest first), name, value; with a time if it expires.
#[derive(Debug, Clone)]
pub struct Field(FieldBytes);

impl Field {
    /// `expire_at` is in milliseconds since the Unix epoch.
    pub(super) fn new(name: &[u8], value: &[u8], expire_at: Option<i64>) -> Self {
        let mut header = [0; 5];
        let (mut rest, mut len) = (name.len(), 0);
        while rest >= 0x80 {
            header[len] = rest as u8 | 0x80;
            rest >>= 7;
            len += 1;
        }
        header[len] = rest as u8;
        let parts = [&header[..=len], name, value];
        Field(match expire_at {
            None => ThinBytes::new(parts).into(),
            Some(at) => TimedBytes::of_parts(parts, at).into(),
        })
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        split(&self.0).1
    }

    pub fn pair(&self) -> Pair<'_> {
        let (name, value) = split(&self.0);
        (name.into(), value.into())
    }

    /// Milliseconds since the Unix epoch.
    #[inline]
    pub fn expire_at(&self) -> Option<i64> {
        self.0.time()
    }

    /// Whether it has no time before `since`.
    #[inline]
    pub(super) fn is_live(&self, since: i64) -> bool {
        self.expire_at().is_none_or(|at| since <= at)
    }

    pub(super) fn timed(&self) -> Option<TimedField> {
        self.0.timed().map(TimedField)
    }
}

impl Keyed for Field {
    #[inline]
    fn key(&self) -> &[u8] {
        split(&self.0).0
    }
}

#[inline]
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut len, mut shift) = (0, 0);
    for (i, byte) in bytes.iter().enumerate() {
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return bytes[i + 1..].split_at(len);
        }
        shift += 7;
    }
    unreachable!("a field begins with the length of its name")
}

/// A field that has a time, by which fields are ordered; it is the one of the table.
#[derive(Debug, Clone)]
pub(super) struct TimedField(TimedBytes);

impl TimedField {
    #[inline]
    pub(super) fn expire_at(&self) -> i64 {
        self.0.number()
    }

    pub(super) fn name(&self) -> &[u8] {
        split(self.0.bytes()).0
    }
}

impl Ordered for TimedField {
    #[inline]
    fn is_before(&self, other: &Self) -> bool {
        let (a, b) = (self.expire_at(), other.expire_at());
        a < b || a == b && self.name() < other.name()
    }
}
