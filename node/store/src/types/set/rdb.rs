//! Sets: members in any order, each once.

use super::intset::Intset;
use crate::entry::Compact;
use crate::rdb::compact::has_duplicates;
use crate::rdb::output::{push_len, push_text};
use crate::rdb::value::{Loaded, listpack, not_empty};
use crate::rdb::{Compression, Input, RdbError, Text, type_byte as t};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::{Element, Set, SetLimits, SetRef};

const TWICE: RdbError = RdbError::Corrupt("a set has a member twice");

pub(crate) static CODEC: Codec = Codec {
    encodings: &[
        Encoding { type_byte: t::SET, name: "set", body: Body::Elements },
        Encoding { type_byte: t::SET_INTSET, name: "set as intset", body: Body::OneString },
        Encoding { type_byte: t::SET_LISTPACK, name: "set as listpack", body: Body::OneString },
    ],
    load: |type_byte, input, limits| load(type_byte, input, limits.set),
    skip: |_, input| skip(input),
};

/// A listpack is saved as a plain set: Redis 7.0 knows no other.
pub(super) fn type_byte(set: SetRef<'_>) -> u8 {
    match set {
        SetRef::Intset(_) => t::SET_INTSET,
        SetRef::Listpack(_) | SetRef::Table(_) => t::SET,
    }
}

pub(super) fn save_body(set: SetRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    if let SetRef::Intset(integers) = set {
        return push_text(integers.as_bytes(), compression, out);
    }
    push_len(set.len(), out);
    set.iter().for_each(|member| push_text(&member, compression, out));
}

fn load(type_byte: u8, input: &mut Input<'_>, limits: SetLimits) -> Result<Loaded<'static>, RdbError> {
    match type_byte {
        t::SET => load_plain(input, limits),
        t::SET_INTSET => load_intset(input.text()?, limits),
        _ => load_listpack(input.text()?, limits),
    }
}

fn load_plain(input: &mut Input<'_>, limits: SetLimits) -> Result<Loaded<'static>, RdbError> {
    let count = input.count()?;
    not_empty(count)?;
    let mut set = Set::new(limits);
    for i in 0..count {
        let member = input.text()?;
        if i == 0 {
            set.as_mut().prepare(&member, count);
        }
        if !set.insert(&member) {
            return Err(TWICE);
        }
    }
    Ok(Loaded::Collection(set.into()))
}

fn load_intset(text: Text<'_>, limits: SetLimits) -> Result<Loaded<'static>, RdbError> {
    let integers =
        Intset::from_bytes(text.into_vec()).map_err(|_| RdbError::Corrupt("an intset is damaged"))?;
    let count = integers.as_ref().len();
    not_empty(count)?;
    if limits.allow_intset(count) {
        return Ok(Loaded::Compact(Compact::Intset, integers.into_bytes()));
    }
    rebuilt(integers.as_ref().iter().map(Element::from), count, limits)
}

fn load_listpack(text: Text<'_>, limits: SetLimits) -> Result<Loaded<'static>, RdbError> {
    let list = listpack(text)?;
    let members: Vec<Element<'_>> = list.iter().collect();
    not_empty(members.len())?;
    if has_duplicates(members.iter().map(|m| &**m).collect()) {
        return Err(TWICE);
    }
    let (count, longest) = (members.len(), members.iter().map(|m| m.len()).max().unwrap_or(0));
    if limits.allow_listpack(count, longest, list.as_bytes().len()) {
        return Ok(Loaded::Compact(Compact::Set, list.into_bytes()));
    }
    rebuilt(members.into_iter(), count, limits)
}

/// Beyond the limits of a compact form.
fn rebuilt<'a>(
    members: impl Iterator<Item = Element<'a>>,
    count: usize,
    limits: SetLimits,
) -> Result<Loaded<'static>, RdbError> {
    let mut set = Set::new_listpack(limits);
    let mut members = members.peekable();
    if let Some(first) = members.peek() {
        set.as_mut().prepare(first, count);
    }
    for member in members {
        set.insert(&member);
    }
    Ok(Loaded::Collection(set.into()))
}

fn skip(input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        input.skip_text()?;
    }
    Ok(())
}
