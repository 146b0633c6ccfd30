//! A value as RDB has it: a byte for type and encoding, then the body. A module for each of Keyward's types.
//!
//! A compact collection is saved by copying its bytes, in a form that Redis 7.0 knows, and loaded by copying them once
//! they have been checked and if they are within the limits for compact collections here. Loading knows all encodings
//! that Valkey and Redis have ever written for these types. A new type is one more module, with its lines in the
//! functions of this one.

pub mod foreign;
mod hash;
mod list;
pub mod pieces;
mod set;
mod sorted_set;

use self::foreign::Dialect;
use super::output::push_text;
use super::{Compression, Input, RdbError, Text, type_byte as t};
use crate::entry::{Compact, Entry, INLINE_LEN_MAX, NewValue, Value, ValueRef};
use crate::types::Limits;
use crate::types::listpack::Listpack;

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
    match value {
        ValueRef::String(_) => t::STRING,
        ValueRef::List(_) => t::LIST_QUICKLIST_2,
        ValueRef::Set(set) => set::type_byte(set),
        ValueRef::Hash(hash) => hash::type_byte(hash),
        ValueRef::SortedSet(set) => sorted_set::type_byte(set),
    }
}

/// Appends what follows the type byte; in a record the key stands between them.
pub fn save_body(value: ValueRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    match value {
        ValueRef::String(bytes) => push_text(bytes, compression, out),
        ValueRef::List(list) => list::save_body(list, compression, out),
        ValueRef::Set(set) => set::save_body(set, compression, out),
        ValueRef::Hash(hash) => hash::save_body(hash, compression, out),
        ValueRef::SortedSet(set) => sorted_set::save_body(set, compression, out),
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
    match type_byte {
        t::STRING => input.text().map(Loaded::String),
        t::LIST | t::LIST_ZIPLIST | t::LIST_QUICKLIST | t::LIST_QUICKLIST_2 => {
            list::load(type_byte, input, limits.list)
        }
        t::SET | t::SET_INTSET | t::SET_LISTPACK => set::load(type_byte, input, limits.set),
        t::HASH | t::HASH_ZIPMAP | t::HASH_ZIPLIST | t::HASH_LISTPACK | t::HASH_2 => {
            hash::load(type_byte, input, limits.hash)
        }
        t::ZSET | t::ZSET_2 | t::ZSET_ZIPLIST | t::ZSET_LISTPACK => {
            sorted_set::load(type_byte, input, limits.sorted_set)
        }
        _ => Err(unsupported(type_byte)),
    }
}

/// Passes over the body of a value of this type. What is in it is not looked at more than its end demands.
///
/// # Errors
/// As for [`load_body`].
pub fn skip_body(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    match type_byte {
        // Compact encodings are one string.
        t::STRING
        | t::LIST_ZIPLIST
        | t::SET_INTSET
        | t::SET_LISTPACK
        | t::HASH_ZIPMAP
        | t::HASH_ZIPLIST
        | t::HASH_LISTPACK
        | t::ZSET_ZIPLIST
        | t::ZSET_LISTPACK => input.skip_text(),
        t::LIST | t::LIST_QUICKLIST | t::LIST_QUICKLIST_2 => list::skip(type_byte, input),
        t::SET => set::skip(input),
        t::HASH | t::HASH_2 => hash::skip(type_byte, input),
        t::ZSET | t::ZSET_2 => sorted_set::skip(type_byte, input),
        _ => Err(unsupported(type_byte)),
    }
}

/// Type and encoding in words.
pub fn type_name(type_byte: u8) -> Option<&'static str> {
    Some(match type_byte {
        t::STRING => "string",
        t::LIST => "list",
        t::LIST_ZIPLIST => "list as ziplist",
        t::LIST_QUICKLIST => "list as quicklist of ziplists",
        t::LIST_QUICKLIST_2 => "list as quicklist",
        t::SET => "set",
        t::SET_INTSET => "set as intset",
        t::SET_LISTPACK => "set as listpack",
        t::HASH => "hash",
        t::HASH_ZIPMAP => "hash as zipmap",
        t::HASH_ZIPLIST => "hash as ziplist",
        t::HASH_LISTPACK => "hash as listpack",
        t::HASH_2 => "hash with expiring fields",
        t::ZSET => "zset with scores as text",
        t::ZSET_2 => "zset",
        t::ZSET_ZIPLIST => "zset as ziplist",
        t::ZSET_LISTPACK => "zset as listpack",
        _ => return None,
    })
}

fn unsupported(type_byte: u8) -> RdbError {
    foreign::unsupported(type_byte, Dialect::Valkey)
}

/// A collection must not be empty: RDB has no such values.
fn not_empty(len: usize) -> Result<(), RdbError> {
    if len == 0 { Err(RdbError::Empty) } else { Ok(()) }
}

/// Reads a listpack; every length in it is checked.
fn listpack(text: Text<'_>) -> Result<Listpack, RdbError> {
    Listpack::from_bytes(text.into_vec()).map_err(|_| RdbError::Corrupt("a listpack is damaged"))
}
