//! What an entry's payload holds: effects, each `[u16 LE slot][u16 LE db][u32 LE length][RESP command]`.
//!
//! Slot 0xFFFF marks an effect on the whole keyspace (FLUSHALL, FLUSHDB, SWAPDB, barriers).

use bytes::{Bytes, BytesMut};
use keyward_proto::resp::reply::write_command;
use keyward_proto::slot::Slot;

use super::{CHUNK_BYTES, LENGTH_BYTES};

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

/// No entry gets longer: it would not fit into one message to a replica, and takes its memory several times over. What
/// would be longer is refused before it is executed.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// Collects the effects of one entry.
#[derive(Debug, Default, Clone)]
pub struct EffectBuffer {
    /// Empty, or a frame: room for its length, and the payload.
    bytes: Vec<u8>,
    /// The effects that have built a value last.
    built: Option<Built>,
}

/// Effects that replace a key's value by another one, and touch nothing else.
#[derive(Debug, Clone)]
struct Built {
    key: Box<[u8]>,
    db: u16,
    start: usize,
    end: usize,
}

/// The effects would be longer than an entry may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl EffectBuffer {
    pub fn new() -> Self {
        EffectBuffer::default()
    }

    pub fn push(&mut self, slot: Option<Slot>, db: u16, command: &[u8]) {
        self.push_with(slot, db, |bytes| bytes.extend_from_slice(command));
    }

    /// Adds an effect whose RESP command `write` appends to the buffer, without a copy in between.
    pub fn push_with(&mut self, slot: Option<Slot>, db: u16, write: impl FnOnce(&mut Vec<u8>)) {
        self.begin();
        let header = self.bytes.len();
        self.bytes.extend_from_slice(&slot.map_or(WHOLE_KEYSPACE, Slot::number).to_le_bytes());
        self.bytes.extend_from_slice(&db.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        let start = self.bytes.len();
        write(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).expect("an effect is smaller than 4 GiB");
        self.bytes[header + 4..start].copy_from_slice(&length.to_le_bytes());
    }

    /// Adds the effects that put a new value under `key`, in place of another one if it `replaces` one: `build` emits
    /// the commands that build it where nothing is. If the effects just before have done the same for the key, they are
    /// left out: nobody sees what they do.
    ///
    /// # Errors
    /// The entry would become longer than `len_max`; nothing is added.
    pub fn push_value(
        &mut self,
        slot: Slot,
        db: u16,
        key: &[u8],
        replaces: bool,
        len_max: usize,
        build: impl FnOnce(&mut dyn FnMut(&[&[u8]])),
    ) -> Result<(), TooLong> {
        self.begin();
        let end = self.bytes.len();
        let again = self.built.take().filter(|b| b.end == end && b.db == db && *b.key == *key);
        let start = again.as_ref().map_or(end, |b| b.start);
        let (mut encoded, mut len) = (BytesMut::new(), start);
        let mut commands = EffectBuffer { bytes: Vec::new(), built: None };
        let mut emit = |command: &[&[u8]]| {
            encoded.clear();
            write_command(&mut encoded, command);
            len = len.saturating_add(HEADER_BYTES + encoded.len());
            if len <= len_max {
                commands.push(Some(slot), db, &encoded);
            }
        };
        if replaces {
            emit(&[b"DEL", key]);
        }
        build(&mut emit);
        self.built = again;
        if len_max < len {
            return Err(TooLong);
        }
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(commands.as_payload());
        self.built = Some(Built { key: key.into(), db, start, end: self.bytes.len() });
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Drops the effects that were added since there were so many bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.built = None;
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.built = None;
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= LENGTH_BYTES
    }

    pub fn as_payload(&self) -> &[u8] {
        self.bytes.get(LENGTH_BYTES..).unwrap_or_default()
    }

    /// A long payload in its frame, as it goes into the log: nobody waits for it to be copied there.
    pub fn take_long(&mut self) -> Option<Bytes> {
        if self.bytes.len() < CHUNK_BYTES {
            return None;
        }
        let length = u32::try_from(self.as_payload().len()).expect("an entry is smaller than 4 GiB");
        self.bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.built = None;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.shrink_to_fit();
        Some(Bytes::from(bytes))
    }

    #[inline]
    fn begin(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(buffer: &EffectBuffer) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", " ");
        effects(buffer.as_payload()).map(|e| text(e.command)).collect()
    }

    #[test]
    fn a_value_that_is_replaced_at_once_is_not_built() {
        let slot = Slot::of(b"k");
        let mut buffer = EffectBuffer::new();
        buffer.push(Some(slot), 0, b"first ");
        let push = |buffer: &mut EffectBuffer, db, key: &[u8], replaces, value: &[u8]| {
            buffer.push_value(slot, db, key, replaces, 1000, |emit| emit(&[b"SET", key, value])).unwrap();
        };
        push(&mut buffer, 0, b"k", false, b"1");
        push(&mut buffer, 0, b"k", true, b"2");
        assert_eq!(commands(&buffer), ["first ", "*2 $3 DEL $1 k ", "*3 $3 SET $1 k $1 2 "]);
        push(&mut buffer, 1, b"k", false, b"3");
        push(&mut buffer, 0, b"k", true, b"4");
        buffer.push(Some(slot), 0, b"reads k");
        push(&mut buffer, 0, b"k", true, b"5");
        let last: Vec<String> = commands(&buffer).split_off(3);
        assert_eq!(
            last,
            [
                "*3 $3 SET $1 k $1 3 ",
                "*2 $3 DEL $1 k ",
                "*3 $3 SET $1 k $1 4 ",
                "reads k",
                "*2 $3 DEL $1 k ",
                "*3 $3 SET $1 k $1 5 "
            ]
        );
    }

    #[test]
    fn a_value_that_is_too_long_adds_nothing() {
        let slot = Slot::of(b"k");
        let mut buffer = EffectBuffer::new();
        buffer.push_value(slot, 0, b"k", false, 1000, |emit| emit(&[b"SET", b"k", b"1"])).unwrap();
        let too_long = buffer.push_value(slot, 0, b"k", true, 1000, |emit| {
            (0..11).for_each(|_| emit(&[b"APPEND", b"k", &[b'x'; 100]]));
        });
        assert_eq!(too_long, Err(TooLong));
        assert_eq!(commands(&buffer), ["*3 $3 SET $1 k $1 1 "]);
    }
}
