//! Hashes: fields with their values in any order, each field once; with times if one of them has one.

use crate::entry::Compact;
use crate::rdb::compact::{ODD, for_each_pair, has_duplicates, ziplist, zipmap};
use crate::rdb::output::{push_len, push_text};
use crate::rdb::value::{Loaded, listpack, not_empty};
use crate::rdb::{Compression, Input, RdbError, Text, type_byte as t};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::hash::Field;
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

/// Whether the fields of a large hash are saved with their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    With,
    Without,
}

impl Times {
    /// As the hash is to be saved.
    pub(crate) fn of(hash: HashRef<'_>) -> Times {
        match hash {
            HashRef::Volatile(volatile, _) if volatile.timed_len() != 0 => Times::With,
            HashRef::Listpack(_) | HashRef::Table(_) | HashRef::Volatile(..) => Times::Without,
        }
    }
}

pub(super) fn type_byte(hash: HashRef<'_>) -> u8 {
    match (hash, Times::of(hash)) {
        (HashRef::Listpack(_), _) => t::HASH_LISTPACK,
        (_, Times::Without) => t::HASH,
        (_, Times::With) => t::HASH_2,
    }
}

pub(super) fn save_body(hash: HashRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    let fields = match hash {
        HashRef::Listpack(list) => return push_text(list.as_bytes(), compression, out),
        HashRef::Table(fields) => fields,
        HashRef::Volatile(volatile, _) => volatile.fields(),
    };
    let times = Times::of(hash);
    push_len(fields.len(), out);
    fields.iter().for_each(|field| push_field(field, times, compression, out));
}

/// Appends a field.
pub(crate) fn push_field(field: &Field, times: Times, compression: Compression, out: &mut Vec<u8>) {
    let (name, value) = field.pair();
    push_text(&name, compression, out);
    push_text(&value, compression, out);
    if times == Times::With {
        out.extend_from_slice(&field.expire_at().unwrap_or(NO_EXPIRY).to_le_bytes());
    }
}

fn load(type_byte: u8, input: &mut Input<'_>, limits: HashLimits) -> Result<Loaded<'static>, RdbError> {
    if type_byte == t::HASH_LISTPACK {
        return load_listpack(input.text()?, limits);
    }
    let mut hash = Hash::new(limits);
    let set = |hash: &mut Hash, field: &[u8], value: &[u8]| hash.set(field, value).then_some(()).ok_or(TWICE);
    match type_byte {
        t::HASH_ZIPMAP => {
            for (field, value) in zipmap::pairs(&input.text()?)? {
                set(&mut hash, field, value)?;
            }
        }
        t::HASH_ZIPLIST => for_each_pair(ziplist::elements(&input.text()?)?, |f, v| set(&mut hash, &f, &v))?,
        _ => {
            for _ in 0..input.count()? {
                let (field, value) = (input.text()?, input.text()?);
                let expire_at = if type_byte == t::HASH_2 { time(input)? } else { None };
                let is_new = match expire_at {
                    Some(at) => hash.set_until(&field, &value, at),
                    None => hash.set(&field, &value),
                };
                is_new.then_some(()).ok_or(TWICE)?;
            }
        }
    }
    not_empty(hash.len())?;
    Ok(Loaded::Collection(hash.into()))
}

/// When a field expires.
fn time(input: &mut Input<'_>) -> Result<Option<i64>, RdbError> {
    match i64::from_le_bytes(input.array()?) {
        NO_EXPIRY => Ok(None),
        at if at < 0 => Err(RdbError::Corrupt("a field of a hash expires before there was time")),
        at => Ok(Some(at)),
    }
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
