//! Hashes: fields with their values in any order, each field once.

use crate::entry::Compact;
use crate::rdb::compact::{ODD, for_each_pair, has_duplicates, ziplist, zipmap};
use crate::rdb::output::{push_len, push_text};
use crate::rdb::value::{Loaded, listpack, not_empty};
use crate::rdb::{Compression, Input, RdbError, Text, type_byte as t};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::{Element, Hash, HashLimits, HashRef};

/// The expiry of a field that has none.
const NO_EXPIRY: i64 = -1;
const TWICE: RdbError = RdbError::Corrupt("a hash has a field twice");

pub(crate) static CODEC: Codec = Codec {
    encodings: &[
        Encoding { type_byte: t::HASH, name: "hash", body: Body::Elements },
        Encoding { type_byte: t::HASH_ZIPMAP, name: "hash as zipmap", body: Body::OneString },
        Encoding { type_byte: t::HASH_ZIPLIST, name: "hash as ziplist", body: Body::OneString },
        Encoding { type_byte: t::HASH_LISTPACK, name: "hash as listpack", body: Body::OneString },
        Encoding { type_byte: t::HASH_2, name: "hash with expiring fields", body: Body::Elements },
    ],
    load: |type_byte, input, limits| load(type_byte, input, limits.hash),
    skip,
};

pub(super) fn type_byte(hash: HashRef<'_>) -> u8 {
    match hash {
        HashRef::Listpack(_) => t::HASH_LISTPACK,
        HashRef::Table(_) => t::HASH,
    }
}

pub(super) fn save_body(hash: HashRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    if let HashRef::Listpack(list) = hash {
        return push_text(list.as_bytes(), compression, out);
    }
    push_len(hash.len(), out);
    for (field, value) in hash.iter() {
        push_text(&field, compression, out);
        push_text(&value, compression, out);
    }
}

fn load(type_byte: u8, input: &mut Input<'_>, limits: HashLimits) -> Result<Loaded<'static>, RdbError> {
    if type_byte == t::HASH_LISTPACK {
        return load_listpack(input.text()?, limits);
    }
    let mut hash = Hash::new(limits);
    let mut set = |field: &[u8], value: &[u8]| if hash.set(field, value) { Ok(()) } else { Err(TWICE) };
    match type_byte {
        t::HASH_ZIPMAP => {
            for (field, value) in zipmap::pairs(&input.text()?)? {
                set(field, value)?;
            }
        }
        t::HASH_ZIPLIST => for_each_pair(ziplist::elements(&input.text()?)?, |f, v| set(&f, &v))?,
        _ => {
            for _ in 0..input.count()? {
                let (field, value) = (input.text()?, input.text()?);
                if type_byte == t::HASH_2 && i64::from_le_bytes(input.array()?) != NO_EXPIRY {
                    let name = "hash with fields that expire";
                    return Err(RdbError::Unsupported { number: type_byte, name });
                }
                set(&field, &value)?;
            }
        }
    }
    not_empty(hash.len())?;
    Ok(Loaded::Collection(hash.into()))
}

fn load_listpack(text: Text<'_>, limits: HashLimits) -> Result<Loaded<'static>, RdbError> {
    let list = listpack(text)?;
    let elements: Vec<Element<'_>> = list.iter().collect();
    not_empty(elements.len())?;
    if !elements.len().is_multiple_of(2) {
        return Err(ODD);
    }
    if has_duplicates(elements.iter().step_by(2).map(|field| &**field).collect()) {
        return Err(TWICE);
    }
    let longest = elements.iter().map(|e| e.len()).max().unwrap_or(0);
    if limits.allow_listpack(elements.len() / 2, longest, list.as_bytes().len()) {
        return Ok(Loaded::Compact(Compact::Hash, list.into_bytes()));
    }
    let mut hash = Hash::new(limits);
    hash.as_mut().prepare(elements.iter().map(|e| &**e));
    for pair in elements.chunks_exact(2) {
        hash.set(&pair[0], &pair[1]);
    }
    Ok(Loaded::Collection(hash.into()))
}

fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        input.skip_text()?;
        input.skip_text()?;
        if type_byte == t::HASH_2 {
            input.take(size_of::<i64>())?;
        }
    }
    Ok(())
}
