//! A key with its value, expiry and access clock as one byte string: what a file holds of it, one behind the other.
//!
//! [`save`] needs nothing but the entry, so a snapshot encodes a key while it holds the slot's lock and the writer of
//! a file only concatenates.

use super::value::{self, Loaded};
use super::{Compression, Input, RdbError, Text, opcode, output};
use crate::entry::ValueRef;
use crate::types::Limits;

/// Valkey's own word for a key that does not expire.
const NO_EXPIRY: i64 = -1;

/// What the eviction policy knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    IdleSeconds(u64),
    /// The logarithmic counter of LFU.
    Frequency(u8),
}

/// What stands before a value; the value itself is not read yet.
#[derive(Debug)]
pub struct Record<'a> {
    /// Milliseconds since the Unix epoch.
    pub expire_at: Option<i64>,
    pub access: Option<Access>,
    pub type_byte: u8,
    pub key: Text<'a>,
    body: Input<'a>,
}

/// Appends a record.
pub fn save(
    key: &[u8],
    value: ValueRef<'_>,
    expire_at: Option<i64>,
    access: Option<Access>,
    compression: Compression,
    out: &mut Vec<u8>,
) {
    save_head(key, value, expire_at, access, compression, out);
    value::save_body(value, compression, out);
}

/// Appends what stands before the body of the value.
pub fn save_head(
    key: &[u8],
    value: ValueRef<'_>,
    expire_at: Option<i64>,
    access: Option<Access>,
    compression: Compression,
    out: &mut Vec<u8>,
) {
    if let Some(at) = expire_at {
        out.push(opcode::EXPIRE_MILLIS);
        out.extend_from_slice(&at.to_le_bytes());
    }
    match access {
        Some(Access::IdleSeconds(seconds)) => {
            out.push(opcode::IDLE);
            output::push_length(seconds, out);
        }
        Some(Access::Frequency(frequency)) => out.extend([opcode::FREQ, frequency]),
        None => {}
    }
    out.push(value::type_byte(value));
    output::push_text(key, compression, out);
}

/// Reads records that stand one behind the other, with their values; ends at the first that is damaged.
pub fn load_all<'a>(
    bytes: &'a [u8],
    limits: &'a Limits,
) -> impl Iterator<Item = Result<(Record<'a>, Loaded<'a>), RdbError>> {
    let mut input = Input::new(bytes);
    let mut damaged = false;
    std::iter::from_fn(move || {
        if damaged || input.is_empty() {
            return None;
        }
        let loaded = Record::read_head(&mut input)
            .and_then(|record| Ok((value::load_body(record.type_byte, &mut input, limits)?, record)));
        damaged = loaded.is_err();
        Some(loaded.map(|(value, record)| (record, value)))
    })
}

impl<'a> Record<'a> {
    /// Reads the head of a record that takes all these bytes.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn open(bytes: &'a [u8]) -> Result<Record<'a>, RdbError> {
        Record::read_head(&mut Input::new(bytes))
    }

    /// Reads the head of a record; the input is left behind the key.
    pub(super) fn read_head(input: &mut Input<'a>) -> Result<Record<'a>, RdbError> {
        let (mut expire_at, mut access) = (None, None);
        loop {
            match input.byte()? {
                opcode::EXPIRE_MILLIS => {
                    expire_at = Some(i64::from_le_bytes(input.array()?)).filter(|at| *at != NO_EXPIRY);
                }
                opcode::EXPIRE_SECONDS => {
                    expire_at = Some(i64::from(i32::from_le_bytes(input.array()?)) * 1000);
                }
                opcode::IDLE => access = Some(Access::IdleSeconds(input.number()?)),
                opcode::FREQ => access = Some(Access::Frequency(input.byte()?)),
                type_byte if type_byte < opcode::SLOT_IMPORT => {
                    let key = input.text()?;
                    return Ok(Record { expire_at, access, type_byte, key, body: input.clone() });
                }
                _ => return Err(RdbError::Corrupt("an expiry or access clock without a key")),
            }
        }
    }

    /// The value without its type, and nothing else.
    pub(super) fn body(&self) -> &'a [u8] {
        self.body.rest()
    }

    /// Reads the value.
    ///
    /// # Errors
    /// Whatever is wrong with it; [`RdbError::Empty`] if it is a collection without elements.
    pub fn value(&self, limits: &Limits) -> Result<Loaded<'a>, RdbError> {
        let mut body = self.body.clone();
        let loaded = value::load_body(self.type_byte, &mut body, limits)?;
        if body.is_empty() { Ok(loaded) } else { Err(RdbError::Corrupt("bytes follow the value")) }
    }
}
