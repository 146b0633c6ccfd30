//! Sorted sets: members with their scores, each member once. A score is eight bytes; in the oldest form, and in
//! compact collections, it is text.

use keyward_proto::resp::number::parse_f64_unbounded;

use crate::entry::Compact;
use crate::rdb::compact::{ODD, for_each_pair, has_duplicates, ziplist};
use crate::rdb::output::{push_len, push_text};
use crate::rdb::value::{Loaded, listpack, not_empty};
use crate::rdb::{Compression, Input, RdbError, Text, type_byte as t};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::{Element, SortedSet, SortedSetLimits, SortedSetRef};

/// Instead of the length of a score's text.
const NAN: u8 = 253;
const INFINITY: u8 = 254;
const NEGATIVE_INFINITY: u8 = 255;
const BAD_SCORE: RdbError = RdbError::Corrupt("a score is not a number");

const TWICE: RdbError = RdbError::Corrupt("a sorted set has a member twice");

pub(crate) static CODEC: Codec = Codec {
    encodings: &[
        Encoding { type_byte: t::ZSET, name: "zset with scores as text", body: Body::Elements },
        Encoding { type_byte: t::ZSET_2, name: "zset", body: Body::Elements },
        Encoding { type_byte: t::ZSET_ZIPLIST, name: "zset as ziplist", body: Body::OneString },
        Encoding { type_byte: t::ZSET_LISTPACK, name: "zset as listpack", body: Body::OneString },
    ],
    load: |type_byte, input, limits| load(type_byte, input, limits.sorted_set),
    skip,
};

pub(super) fn type_byte(set: SortedSetRef<'_>) -> u8 {
    match set {
        SortedSetRef::Listpack(_) => t::ZSET_LISTPACK,
        SortedSetRef::Skiplist(_) => t::ZSET_2,
    }
}

pub(super) fn save_body(set: SortedSetRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    if let SortedSetRef::Listpack(list) = set {
        return push_text(list.as_bytes(), compression, out);
    }
    push_len(set.len(), out);
    for (member, score) in set.iter() {
        push_text(&member, compression, out);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

fn load(type_byte: u8, input: &mut Input<'_>, limits: SortedSetLimits) -> Result<Loaded<'static>, RdbError> {
    if type_byte == t::ZSET_LISTPACK {
        return load_listpack(input.text()?, limits);
    }
    let mut set = SortedSet::new(limits);
    if type_byte == t::ZSET_ZIPLIST {
        for_each_pair(ziplist::elements(&input.text()?)?, |member, score| {
            insert(&mut set, &member, parse(&score)?)
        })?;
    } else {
        let count = input.count()?;
        set.as_mut().prepare(count, 0);
        for _ in 0..count {
            let member = input.text()?;
            let score = match type_byte {
                t::ZSET_2 => f64::from_le_bytes(input.array()?),
                _ => text_score(input)?,
            };
            insert(&mut set, &member, score)?;
        }
    }
    not_empty(set.len())?;
    Ok(Loaded::Collection(set.into()))
}

fn insert(set: &mut SortedSet, member: &[u8], score: f64) -> Result<(), RdbError> {
    if score.is_nan() {
        return Err(BAD_SCORE);
    }
    if set.insert(member, score) { Ok(()) } else { Err(TWICE) }
}

fn load_listpack(text: Text<'_>, limits: SortedSetLimits) -> Result<Loaded<'static>, RdbError> {
    let list = listpack(text)?;
    let elements: Vec<Element<'_>> = list.iter().collect();
    not_empty(elements.len())?;
    if !elements.len().is_multiple_of(2) {
        return Err(ODD);
    }
    let members: Vec<(&[u8], f64)> = elements
        .chunks_exact(2)
        .map(|pair| Ok((&*pair[0], parse(&pair[1])?)))
        .collect::<Result<_, RdbError>>()?;
    if has_duplicates(members.iter().map(|(member, _)| *member).collect()) {
        return Err(TWICE);
    }
    let longest = members.iter().map(|(member, _)| member.len()).max().unwrap_or(0);
    let in_order = members.is_sorted_by(|a, b| a.1 < b.1 || a.1 == b.1 && a.0 < b.0);
    if in_order && limits.allow_listpack(members.len(), longest, list.as_bytes().len()) {
        return Ok(Loaded::Compact(Compact::SortedSet, list.into_bytes()));
    }
    let mut set = SortedSet::new(limits);
    set.as_mut().prepare(members.len(), longest);
    for (member, score) in members {
        set.insert(member, score);
    }
    Ok(Loaded::Collection(set.into()))
}

fn text_score(input: &mut Input<'_>) -> Result<f64, RdbError> {
    match input.byte()? {
        NAN => Err(BAD_SCORE),
        INFINITY => Ok(f64::INFINITY),
        NEGATIVE_INFINITY => Ok(f64::NEG_INFINITY),
        len => parse(input.take(usize::from(len))?),
    }
}

fn parse(text: &[u8]) -> Result<f64, RdbError> {
    parse_f64_unbounded(text).ok_or(BAD_SCORE)
}

fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        input.skip_text()?;
        let score_len = match type_byte {
            t::ZSET_2 => size_of::<f64>(),
            _ => match input.byte()? {
                NAN..=NEGATIVE_INFINITY => 0,
                len => usize::from(len),
            },
        };
        input.take(score_len)?;
    }
    Ok(())
}
