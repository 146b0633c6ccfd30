//! Saves a large value piece by piece, so that nobody has to wait for it all: strings, quicklists, tables, skiplists.
//!
//! The value must not change between the pieces. Together they are what [`super::save_body`] writes, but for the order
//! of members, and a string is not compressed.

use super::list::push_node_of;
use super::{Compression, ValueRef, push_text};
use crate::keyspace::types::{HashRef, ListRef, SetRef, SortedSetRef};
use crate::rdb::output::push_len;

/// Elements of a value that can be saved in pieces, bytes of a string; zero of a compact value.
pub fn elements(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::String(bytes) => bytes.len(),
        ValueRef::List(list @ ListRef::Quicklist(_)) => list.len(),
        ValueRef::Set(set @ SetRef::Table(_)) => set.len(),
        ValueRef::Hash(hash @ HashRef::Table(_)) => hash.len(),
        ValueRef::SortedSet(set @ SortedSetRef::Skiplist(_)) => set.len(),
        ValueRef::List(_) | ValueRef::Set(_) | ValueRef::Hash(_) | ValueRef::SortedSet(_) => 0,
    }
}

/// Appends a piece of about `bytes` bytes of the body, the first one with `None`; returns where the next one goes on,
/// `None` after the last.
pub fn save_piece(
    value: ValueRef<'_>,
    at: Option<usize>,
    bytes: usize,
    compression: Compression,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let len = match value {
        ValueRef::List(ListRef::Quicklist(chain)) => chain.nodes().len(),
        _ => elements(value),
    };
    if at.is_none() {
        push_len(len, out);
    }
    let (at, end) = (at.unwrap_or(0), out.len() + bytes);
    // Tables are walked in the order of the hashes, which are numbers of 32 bits.
    let mut position = u32::try_from(at).ok();
    let is_full = |out: &Vec<u8>| end <= out.len();
    match value {
        ValueRef::String(string) => {
            let next = len.min(at + bytes);
            out.extend_from_slice(&string[at..next]);
            return (next < len).then_some(next);
        }
        ValueRef::List(ListRef::Quicklist(chain)) => {
            let mut next = at;
            for node in chain.nodes().skip(at) {
                if is_full(out) {
                    break;
                }
                push_node_of(node, compression, out);
                next += 1;
            }
            return (next < len).then_some(next);
        }
        ValueRef::Set(set) => {
            while let Some(from) = position.filter(|_| !is_full(out)) {
                position = set.scan(from, &mut |member| push_text(&member, compression, out));
            }
        }
        ValueRef::Hash(hash) => {
            while let Some(from) = position.filter(|_| !is_full(out)) {
                position = hash.scan(from, &mut |(field, value)| {
                    push_text(&field, compression, out);
                    push_text(&value, compression, out);
                });
            }
        }
        ValueRef::SortedSet(set) => {
            while let Some(from) = position.filter(|_| !is_full(out)) {
                position = set.scan(from, &mut |member, score| {
                    push_text(member, compression, out);
                    out.extend_from_slice(&score.to_le_bytes());
                });
            }
        }
        ValueRef::List(ListRef::Listpack(_)) => unreachable!("a compact list is saved at once"),
    }
    position.map(|position| position as usize)
}
