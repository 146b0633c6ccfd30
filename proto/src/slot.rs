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
        Slot(crc16(hash_tag(key)) % SLOT_COUNT)
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

/// `CRC_TABLES[n][b]`: the CRC16 of byte `b` with `n` zero bytes behind it.
static CRC_TABLES: [[u16; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[n - 1][byte];
            tables[n][byte] = crc << 8 ^ tables[0][(crc >> 8) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

/// CRC16 (XMODEM), eight bytes at a step: their table lookups do not wait for one another. Every command computes it.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let (steps, rest) = bytes.as_chunks::<8>();
    let mut crc = 0u16;
    for step in steps {
        let [high, low] = crc.to_be_bytes();
        crc = CRC_TABLES[7][usize::from(step[0] ^ high)]
            ^ CRC_TABLES[6][usize::from(step[1] ^ low)]
            ^ CRC_TABLES[5][usize::from(step[2])]
            ^ CRC_TABLES[4][usize::from(step[3])]
            ^ CRC_TABLES[3][usize::from(step[4])]
            ^ CRC_TABLES[2][usize::from(step[5])]
            ^ CRC_TABLES[1][usize::from(step[6])]
            ^ CRC_TABLES[0][usize::from(step[7])];
    }
    for byte in rest {
        let [high, low] = crc.to_be_bytes();
        crc = u16::from(low) << 8 ^ CRC_TABLES[0][usize::from(byte ^ high)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn the_crc_is_that_of_an_independent_implementation_for_every_length() {
        let mut rng = StdRng::seed_from_u64(1);
        for len in (0..600).chain(0..100) {
            let bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            assert_eq!(crc16(&bytes), crc16::State::<crc16::XMODEM>::calculate(&bytes), "{bytes:?}");
        }
    }

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
