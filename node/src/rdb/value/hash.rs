//! Hashes: fields with their values in any order, each field once.

use super::super::compact::{for_each_pair, listpack, ziplist, zipmap};
use super::super::output::{push_len, push_text};
use super::super::{Compression, Input, RdbError, type_byte as t};
use super::not_empty;
use crate::keyspace::types::{Hash, HashRef};

/// The expiry of a field that has none.
const NO_EXPIRY: i64 = -1;

pub(super) fn save_body(hash: HashRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    push_len(hash.len(), out);
    for (field, value) in hash.iter() {
        push_text(&field, compression, out);
        push_text(&value, compression, out);
    }
}

pub(super) fn load(type_byte: u8, input: &mut Input<'_>) -> Result<Hash, RdbError> {
    let mut hash = Hash::default();
    let mut set = |field: &[u8], value: &[u8]| {
        if hash.set(field, value) { Ok(()) } else { Err(RdbError::Corrupt("a hash has a field twice")) }
    };
    match type_byte {
        t::HASH | t::HASH_2 => {
            for _ in 0..input.count()? {
                let (field, value) = (input.text()?, input.text()?);
                if type_byte == t::HASH_2 && i64::from_le_bytes(input.array()?) != NO_EXPIRY {
                    return Err(RdbError::Refused("fields of a hash that expire are not supported"));
                }
                set(&field, &value)?;
            }
        }
        t::HASH_ZIPMAP => {
            for (field, value) in zipmap::pairs(&input.text()?)? {
                set(field, value)?;
            }
        }
        t::HASH_ZIPLIST => for_each_pair(ziplist::elements(&input.text()?)?, |f, v| set(&f, &v))?,
        _ => for_each_pair(listpack::elements(&input.text()?)?, |f, v| set(&f, &v))?,
    }
    not_empty(hash.len())?;
    Ok(hash)
}

pub(super) fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        input.skip_text()?;
        input.skip_text()?;
        if type_byte == t::HASH_2 {
            input.take(size_of::<i64>())?;
        }
    }
    Ok(())
}
