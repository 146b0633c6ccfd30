//! An entry of the write log, as nodes send it to each other and keep it on disk.
//!
//! Frame of an entry: `[u32 LE length][payload]`; an empty payload is a no-op (the start of a term). A payload holds
//! effects, each `[u16 LE slot][u16 LE db][u32 LE length][RESP command]`; slot 0xFFFF marks an effect on the whole
//! keyspace (FLUSHALL, FLUSHDB, SWAPDB, barriers).

use crate::slot::Slot;

/// Bytes of an entry's length field.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of what stands before an effect's command.
pub const EFFECT_HEADER_BYTES: usize = 8;

/// An entry of so many bytes or more lies in memory of its own; shorter ones share buffers of this size.
pub const LONG_BYTES: usize = 1 << 20;

/// The slot number of an effect on the whole keyspace.
pub const WHOLE_KEYSPACE: u16 = u16::MAX;

/// One effect of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect<'a> {
    /// `None`: the whole keyspace.
    pub slot: Option<Slot>,
    pub db: u16,
    /// A RESP command.
    pub command: &'a [u8],
}

/// The payloads of framed entries. Ends early at a torn frame: received frames were checked when they were appended.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (payload, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = tail;
        Some(payload)
    })
}

/// The effects of a payload. Ends early at a torn or unknown effect: see [`is_well_formed`].
pub fn effects(payload: &[u8]) -> impl Iterator<Item = Effect<'_>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (effect, tail) = split_effect(rest)?;
        rest = tail;
        Some(effect)
    })
}

/// Whether a payload consists of whole effects.
pub fn is_well_formed(payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some((_, tail)) = split_effect(rest) {
        rest = tail;
    }
    rest.is_empty()
}

fn split_effect(bytes: &[u8]) -> Option<(Effect<'_>, &[u8])> {
    let (header, tail) = bytes.split_first_chunk::<EFFECT_HEADER_BYTES>()?;
    let number = u16::from_le_bytes([header[0], header[1]]);
    let db = u16::from_le_bytes([header[2], header[3]]);
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let (command, tail) = tail.split_at_checked(length)?;
    let slot = match number {
        WHOLE_KEYSPACE => None,
        number => Some(Slot::new(number)?),
    };
    Some((Effect { slot, db, command }, tail))
}
