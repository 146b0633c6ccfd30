//! Collects the effects of a command or transaction: the payload of its entry in the write log.

use bytes::{Bytes, BytesMut};
use keyward_proto::entry::{EFFECT_HEADER_BYTES, LENGTH_BYTES, LONG_BYTES, WHOLE_KEYSPACE};
use keyward_proto::resp::reply::write_command;
use keyward_proto::slot::Slot;

/// No entry gets longer: it would not fit into one message to a replica, and takes its memory several times over. What
/// would be longer is refused before it is executed.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// Where a value is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Vacant,
    /// In place of another value.
    Occupied,
}

impl Place {
    /// The place that holds this.
    pub fn of<T>(holds: Option<T>) -> Place {
        if holds.is_some() { Place::Occupied } else { Place::Vacant }
    }
}

/// What becomes of a value that is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    Stays,
    Moves,
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the effects are longer than an entry may be")]
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

    /// Adds the effects that put a new value under `key`: `build` emits the commands that build it where nothing is. If the effects just before have done the same for the key, they are
    /// left out: nobody sees what they do.
    ///
    /// # Errors
    /// The entry would become longer than `len_max`; nothing is added.
    pub fn push_value(
        &mut self,
        slot: Slot,
        db: u16,
        key: &[u8],
        place: Place,
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
            len = len.saturating_add(EFFECT_HEADER_BYTES + encoded.len());
            if len <= len_max {
                commands.push(Some(slot), db, &encoded);
            }
        };
        if place == Place::Occupied {
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
        if self.bytes.len() < LONG_BYTES {
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
    use keyward_proto::entry::{Effect, effects, frames, is_well_formed};

    use super::*;

    fn commands(buffer: &EffectBuffer) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", " ");
        effects(buffer.as_payload()).map(|e| text(e.command)).collect()
    }

    #[test]
    fn effects_come_back_as_they_went_in() {
        let mut buffer = EffectBuffer::new();
        buffer.push(Slot::new(7), 3, b"*1\r\n$4\r\nPING\r\n");
        buffer.push(None, 0, b"x");
        assert!(is_well_formed(buffer.as_payload()));
        assert!(!is_well_formed(&buffer.as_payload()[..5]));
        let all: Vec<_> = effects(buffer.as_payload()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], Effect { slot: Slot::new(7), db: 3, command: b"*1\r\n$4\r\nPING\r\n" });
        assert_eq!(all[1].slot, None);
    }

    #[test]
    fn a_long_payload_is_taken_in_its_frame() {
        let mut buffer = EffectBuffer::new();
        buffer.push(Slot::new(7), 0, &vec![b'x'; LONG_BYTES]);
        let payload = buffer.as_payload().to_vec();
        let frame = buffer.take_long().unwrap();
        assert!(buffer.is_empty());
        assert_eq!(frames(&frame).collect::<Vec<_>>(), [payload]);
        buffer.push(Slot::new(7), 0, b"short");
        assert_eq!(buffer.take_long(), None);
    }

    #[test]
    fn a_value_that_is_replaced_at_once_is_not_built() {
        let slot = Slot::of(b"k");
        let mut buffer = EffectBuffer::new();
        buffer.push(Some(slot), 0, b"first ");
        let push = |buffer: &mut EffectBuffer, db, key: &[u8], place, value: &[u8]| {
            buffer.push_value(slot, db, key, place, 1000, |emit| emit(&[b"SET", key, value])).unwrap();
        };
        push(&mut buffer, 0, b"k", Place::Vacant, b"1");
        push(&mut buffer, 0, b"k", Place::Occupied, b"2");
        assert_eq!(commands(&buffer), ["first ", "*2 $3 DEL $1 k ", "*3 $3 SET $1 k $1 2 "]);
        push(&mut buffer, 1, b"k", Place::Vacant, b"3");
        push(&mut buffer, 0, b"k", Place::Occupied, b"4");
        buffer.push(Some(slot), 0, b"reads k");
        push(&mut buffer, 0, b"k", Place::Occupied, b"5");
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
        buffer.push_value(slot, 0, b"k", Place::Vacant, 1000, |emit| emit(&[b"SET", b"k", b"1"])).unwrap();
        let too_long = buffer.push_value(slot, 0, b"k", Place::Occupied, 1000, |emit| {
            (0..11).for_each(|_| emit(&[b"APPEND", b"k", &[b'x'; 100]]));
        });
        assert_eq!(too_long, Err(TooLong));
        assert_eq!(commands(&buffer), ["*3 $3 SET $1 k $1 1 "]);
    }
}
