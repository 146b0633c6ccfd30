//! Sorted sets: members with their scores, each member once. A score is eight bytes; in the oldest form, and in
//! compact collections, it is text.

use keyward_proto::resp::number::parse_f64_unbounded;

use super::super::compact::{for_each_pair, listpack, ziplist};
use super::super::output::{push_len, push_text};
use super::super::{Compression, Input, RdbError, type_byte as t};
use super::not_empty;
use crate::keyspace::types::{SortedSet, SortedSetRef};

/// Instead of the length of a score's text.
const NAN: u8 = 253;
const INFINITY: u8 = 254;
const NEGATIVE_INFINITY: u8 = 255;
const BAD_SCORE: RdbError = RdbError::Corrupt("a score is not a number");

pub(super) fn save_body(set: SortedSetRef<'_>, compression: Compression, out: &mut Vec<u8>) {
    push_len(set.len(), out);
    for (member, score) in set.iter() {
        push_text(&member, compression, out);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

pub(super) fn load(type_byte: u8, input: &mut Input<'_>) -> Result<SortedSet, RdbError> {
    let mut set = SortedSet::default();
    let mut insert = |member: &[u8], score: f64| {
        if score.is_nan() {
            return Err(BAD_SCORE);
        }
        if set.insert(member, score) {
            Ok(())
        } else {
            Err(RdbError::Corrupt("a sorted set has a member twice"))
        }
    };
    match type_byte {
        t::ZSET | t::ZSET_2 => {
            for _ in 0..input.count()? {
                let member = input.text()?;
                let score = if type_byte == t::ZSET_2 {
                    f64::from_le_bytes(input.array()?)
                } else {
                    text_score(input)?
                };
                insert(&member, score)?;
            }
        }
        t::ZSET_ZIPLIST => {
            for_each_pair(ziplist::elements(&input.text()?)?, |member, score| {
                insert(&member, parse(&score)?)
            })?;
        }
        _ => for_each_pair(listpack::elements(&input.text()?)?, |member, score| {
            insert(&member, parse(&score)?)
        })?,
    }
    not_empty(set.len())?;
    Ok(set)
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

pub(super) fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
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
