//! A value as RDB has it: a byte for type and encoding, then the body. How, each type says in its folder.
//!
//! A compact collection is saved by copying its bytes, in a form that Redis 7.0 knows, and loaded by copying them once
//! they have been checked and if they are within the limits for compact collections here. Loading knows all encodings
//! that Valkey and Redis have ever written for these types.

pub mod foreign;
pub mod pieces;

use self::foreign::Dialect;
use super::output::push_text;
use super::{Compression, Input, RdbError, Text, type_byte as t};
use crate::entry::{Compact, Entry, INLINE_LEN_MAX, NewValue, Value, ValueRef};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::listpack::Listpack;
use crate::types::{CODECS, Collection, Limits};

/// A value that was read.
#[derive(Debug)]
pub enum Loaded<'a> {
    String(Text<'a>),
    /// A collection in a compact form, checked and within the limits.
    Compact(Compact, Vec<u8>),
    Collection(Value),
}

impl Loaded<'_> {
    pub fn into_entry(self, key: &[u8], expire_at: Option<i64>, access: u32) -> Entry {
        let bytes = match self {
            Loaded::Collection(value) => {
                return Entry::new(key, NewValue::Value(value), expire_at, access);
            }
            Loaded::Compact(form, bytes) => {
                return Entry::new(key, NewValue::Compact(form, &bytes), expire_at, access);
            }
            // A long string that has been decompressed keeps its buffer.
            Loaded::String(Text::Owned(bytes)) if INLINE_LEN_MAX < bytes.len() => {
                let value = Value::raw(bytes);
                return Entry::new(key, NewValue::Value(value), expire_at, access);
            }
            Loaded::String(bytes) => bytes,
        };
        Entry::new(key, NewValue::Bytes(&bytes), expire_at, access)
    }
}

/// Appends a value: its type byte and its body.
pub fn save(value: ValueRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    out.push(type_byte(value));
    save_body(value, compression, out);
}

/// Under which type a value is saved.
pub fn type_byte(value: ValueRef<'_>) -> u8 {
    value.collection().map_or(t::STRING, Collection::rdb_type)
}

/// Appends what follows the type byte; in a record the key stands between them.
pub fn save_body(value: ValueRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    match value {
        ValueRef::String(bytes) => push_text(bytes, compression, out),
        _ => value.collection().expect("it is no string").save_body(compression, out),
    }
}

/// Reads a value that takes all these bytes, type byte first.
///
/// # Errors
/// Whatever is wrong with them.
pub fn load<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Loaded<'a>, RdbError> {
    let mut input = Input::new(bytes);
    let type_byte = input.byte()?;
    let loaded = load_body(type_byte, &mut input, limits)?;
    if input.is_empty() { Ok(loaded) } else { Err(RdbError::Corrupt("bytes follow the value")) }
}

/// Reads the body of a value of this type.
///
/// # Errors
/// Whatever is wrong with it; [`RdbError::Empty`] if nothing else is.
pub fn load_body<'a>(type_byte: u8, input: &mut Input<'a>, limits: &Limits) -> Result<Loaded<'a>, RdbError> {
    if type_byte == t::STRING {
        return input.text().map(Loaded::String);
    }
    let (codec, _) = encoding(type_byte).ok_or_else(|| unsupported(type_byte))?;
    (codec.load)(type_byte, input, limits)
}

/// Passes over the body of a value of this type. What is in it is not looked at more than its end demands.
///
/// # Errors
/// As for [`load_body`].
pub fn skip_body(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    if type_byte == t::STRING {
        return input.skip_text();
    }
    match encoding(type_byte) {
        Some((_, Encoding { body: Body::OneString, .. })) => input.skip_text(),
        Some((codec, _)) => (codec.skip)(type_byte, input),
        None => Err(unsupported(type_byte)),
    }
}

/// Type and encoding in words.
pub fn type_name(type_byte: u8) -> Option<&'static str> {
    if type_byte == t::STRING {
        return Some("string");
    }
    encoding(type_byte).map(|(_, encoding)| encoding.name)
}

/// Who reads a type, and what it is.
fn encoding(type_byte: u8) -> Option<(&'static Codec, &'static Encoding)> {
    BY_TYPE[usize::from(type_byte)]
}

/// By their numbers, from the lists of the types: each record of a file is looked up here.
static BY_TYPE: [Option<(&Codec, &Encoding)>; 1 << u8::BITS] = {
    let mut by_type = [None; 1 << u8::BITS];
    let mut codec = 0;
    while codec < CODECS.len() {
        let mut at = 0;
        while at < CODECS[codec].encodings.len() {
            let encoding = &CODECS[codec].encodings[at];
            by_type[encoding.type_byte as usize] = Some((CODECS[codec], encoding));
            at += 1;
        }
        codec += 1;
    }
    by_type
};

fn unsupported(type_byte: u8) -> RdbError {
    foreign::unsupported(type_byte, Dialect::Valkey)
}

/// A collection must not be empty: RDB has no such values.
pub(crate) fn not_empty(len: usize) -> Result<(), RdbError> {
    if len == 0 { Err(RdbError::Empty) } else { Ok(()) }
}

/// Reads a listpack; every length in it is checked.
pub(crate) fn listpack(text: Text<'_>) -> Result<Listpack, RdbError> {
    Listpack::from_bytes(text.into_vec()).map_err(|_| RdbError::Corrupt("a listpack is damaged"))
}
