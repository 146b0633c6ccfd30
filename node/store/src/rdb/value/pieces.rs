//! Saves a large value piece by piece, so that nobody has to wait for it all: strings, quicklists, tables, skiplists,
//! streams.
//!
//! Together the pieces are what [`super::save_body`] writes, but for the order of members, and a string is not
//! compressed. Of a collection that goes on changing they are what it was when its saving began
//! ([`crate::snapshot`]).

use super::{Compression, ValueRef, push_text};
use crate::rdb::output::push_len;
use crate::snapshot::large::Element;
use crate::types::Collection;
use crate::types::hash::rdb::push_field;
use crate::types::list::quicklist::Node;
use crate::types::list::rdb::push_node_of;
use crate::types::stream::{Stream, StreamNode, rdb};

/// Elements of a value that can be saved in pieces, bytes of a string; zero of a compact value.
pub fn elements(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::String(bytes) => bytes.len(),
        _ => value.collection().map_or(0, Collection::pieces),
    }
}

/// Appends what stands before the elements of a collection: how many there are, or nodes of them.
pub fn save_count(value: ValueRef<'_>, out: &mut Vec<u8>) {
    push_len(value.collection().map_or(0, Collection::saved_count), out);
}

/// Appends a node of a list.
pub fn save_node(node: &Node, compression: Compression, out: &mut Vec<u8>) {
    push_node_of(node, compression, out);
}

/// Appends a node of a stream.
pub fn save_stream_node(node: &StreamNode, compression: Compression, out: &mut Vec<u8>) {
    rdb::push_shared(node, compression, out);
}

/// Appends what follows the nodes of a stream.
pub fn save_end(stream: &Stream, compression: Compression, out: &mut Vec<u8>) {
    rdb::push_rest(stream, compression, out);
}

/// Appends an element of a set, hash or sorted set.
pub fn save_element(element: Element<'_>, compression: Compression, out: &mut Vec<u8>) {
    match element {
        Element::Member(member) => push_text(member, compression, out),
        Element::Field(field, times) => push_field(field, times, compression, out),
        Element::Scored(member) => {
            push_text(member.name(), compression, out);
            out.extend_from_slice(&member.score().to_le_bytes());
        }
    }
}

/// Appends a piece of about `bytes` bytes of a string's body, the first one with `None`; returns where the next one
/// goes on, `None` after the last. The string must not change between the pieces.
pub fn save_string_piece(string: &[u8], at: Option<usize>, bytes: usize, out: &mut Vec<u8>) -> Option<usize> {
    if at.is_none() {
        push_len(string.len(), out);
    }
    let at = at.unwrap_or(0);
    let next = string.len().min(at + bytes);
    out.extend_from_slice(&string[at..next]);
    (next < string.len()).then_some(next)
}
