//! What an entry's payload holds: effects, each `[u16 LE slot][u16 LE db][u32 LE length][RESP command]`.
//!
//! Slot 0xFFFF marks an effect on the whole keyspace (FLUSHALL, FLUSHDB, SWAPDB, barriers).

use keyward_proto::slot::Slot;

/// The slot number of an effect on the whole keyspace.
pub const WHOLE_KEYSPACE: u16 = u16::MAX;

const HEADER_BYTES: usize = 8;

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
    let (header, tail) = bytes.split_first_chunk::<HEADER_BYTES>()?;
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

/// Collects the effects of one entry.
#[derive(Debug, Default, Clone)]
pub struct EffectBuffer {
    bytes: Vec<u8>,
}

impl EffectBuffer {
    pub fn new() -> Self {
        EffectBuffer::default()
    }

    pub fn push(&mut self, slot: Option<Slot>, db: u16, command: &[u8]) {
        self.push_with(slot, db, |bytes| bytes.extend_from_slice(command));
    }

    /// Adds an effect whose RESP command `write` appends to the buffer, without a copy in between.
    pub fn push_with(&mut self, slot: Option<Slot>, db: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let header = self.bytes.len();
        self.bytes.extend_from_slice(&slot.map_or(WHOLE_KEYSPACE, Slot::number).to_le_bytes());
        self.bytes.extend_from_slice(&db.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        let start = self.bytes.len();
        write(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).expect("an effect is smaller than 4 GiB");
        self.bytes[header + 4..start].copy_from_slice(&length.to_le_bytes());
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn as_payload(&self) -> &[u8] {
        &self.bytes
    }
}
