//! Hash slots: the unit of locking, ownership and reply gating.
//!
//! A key's slot is the CRC16 (XMODEM) of its hash tag, modulo 16384, as in the Valkey cluster specification
//! (<https://valkey.io/topics/cluster-spec/>).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of hash slots.
pub const SLOT_COUNT: u16 = 16384;

/// A hash slot; below [`SLOT_COUNT`] by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(u16);

impl Slot {
    /// `None` for numbers from [`SLOT_COUNT`] on.
    pub const fn new(number: u16) -> Option<Slot> {
        if number < SLOT_COUNT { Some(Slot(number)) } else { None }
    }

    /// The slot that a key belongs to.
    #[inline]
    pub fn of(key: &[u8]) -> Slot {
        Slot(crc16::State::<crc16::XMODEM>::calculate(hash_tag(key)) % SLOT_COUNT)
    }

    #[inline]
    pub const fn number(self) -> u16 {
        self.0
    }

    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// All slots in order.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOT_COUNT).map(Slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a key that decides its slot: between the first `{` and the next `}`, unless that is empty.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(0) | None => key,
        Some(len) => &rest[..len],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_the_specification() {
        assert_eq!(Slot::of(b"123456789").number(), 0x31C3);
        assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"{user1000}.followers"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
    }
}
