//! Streams: nodes as they are in memory, then what is remembered of the stream, then its groups with their consumers.
//!
//! Three versions: 2 has what is remembered of entries that are gone, 3 when a consumer was last active. The last is
//! written.

use std::sync::Arc;

use super::group::COUNT_MAX;
use super::node;
use super::{Group, Stream, StreamId, StreamNode, UNKNOWN};
use crate::entry::Value;
use crate::rdb::output::{push_len, push_length, push_text};
use crate::rdb::value::{Loaded, listpack};
use crate::rdb::{Compression, Input, RdbError, type_byte as t};
use crate::types::collection::{Body, Codec, Encoding};
use crate::types::listpack::Listpack;

const ID_LEN: usize = 16;
const TIME_LEN: usize = 8;

pub(crate) static CODEC: Codec = Codec {
    encodings: &[
        Encoding { type_byte: t::STREAM, name: "stream", body: Body::Elements },
        Encoding { type_byte: t::STREAM_2, name: "stream, version 2", body: Body::Elements },
        Encoding { type_byte: t::STREAM_3, name: "stream, version 3", body: Body::Elements },
    ],
    load: |type_byte, input, _| load(type_byte, input),
    skip,
};

pub(super) fn save_body(stream: &Stream, compression: Compression, out: &mut Vec<u8>) {
    push_len(stream.nodes.len(), out);
    for (id, list) in &stream.nodes {
        push_node(*id, list, compression, out);
    }
    push_rest(stream, compression, out);
}

/// Appends a node.
fn push_node(id: StreamId, list: &Listpack, compression: Compression, out: &mut Vec<u8>) {
    push_text(&id.to_bytes(), Compression::None, out);
    push_text(list.as_bytes(), compression, out);
}

/// As [`push_node`].
pub(crate) fn push_shared(node: &StreamNode, compression: Compression, out: &mut Vec<u8>) {
    push_node(node.id, &node.list, compression, out);
}

/// Appends what follows the nodes.
pub(crate) fn push_rest(stream: &Stream, compression: Compression, out: &mut Vec<u8>) {
    push_length(stream.len, out);
    for id in [stream.last_id, stream.first_id, stream.max_deleted_id] {
        push_parts(id, out);
    }
    push_length(stream.entries_added, out);
    push_len(stream.groups.len(), out);
    for (name, group) in &stream.groups {
        push_text(name, compression, out);
        push_group(group, compression, out);
    }
}

fn push_parts(id: StreamId, out: &mut Vec<u8>) {
    push_length(id.ms, out);
    push_length(id.seq, out);
}

fn push_group(group: &Group, compression: Compression, out: &mut Vec<u8>) {
    push_parts(group.last_id, out);
    push_length(group.entries_read.cast_unsigned(), out);
    push_len(group.pending_len(), out);
    for (id, pending) in group.pending(StreamId::ZERO, StreamId::MAX) {
        out.extend(id.to_bytes());
        out.extend(pending.delivered_at.to_le_bytes());
        push_length(pending.deliveries, out);
    }
    push_len(group.consumers().len(), out);
    for (name, consumer) in group.consumers() {
        push_text(name, compression, out);
        out.extend(consumer.seen_at.to_le_bytes());
        out.extend(consumer.active_at.to_le_bytes());
        push_len(consumer.pending().len(), out);
        consumer.pending().for_each(|id| out.extend(id.to_bytes()));
    }
}

fn load(type_byte: u8, input: &mut Input<'_>) -> Result<Loaded<'static>, RdbError> {
    let mut stream = Stream::default();
    for _ in 0..input.count()? {
        load_node(&mut stream, input)?;
    }
    let len = input.number()?;
    if len != stream.len {
        return Err(RdbError::Corrupt("a stream has another number of entries than it says"));
    }
    let last_entry = stream.last_id;
    stream.last_id = load_parts(input)?;
    if stream.last_id < last_entry {
        return Err(RdbError::Corrupt("a stream has an entry behind its last"));
    }
    if type_byte == t::STREAM {
        stream.entries_added = len;
    } else {
        // The first one is known from the nodes.
        load_parts(input)?;
        stream.max_deleted_id = load_parts(input)?;
        stream.entries_added = input.number()?.min(COUNT_MAX);
    }
    // What is rebuilt by commands and its effects rest on these.
    if stream.last_id < stream.max_deleted_id {
        return Err(RdbError::Corrupt("a stream has deleted an entry behind its last"));
    }
    if stream.entries_added < len {
        return Err(RdbError::Corrupt("a stream has more entries than were added"));
    }
    stream.find_first();
    for _ in 0..input.count()? {
        let name = input.text()?;
        let group = load_group(type_byte, &stream, input)?;
        if stream.groups.insert((*name).into(), group).is_some() {
            return Err(RdbError::Corrupt("a stream has a group twice"));
        }
    }
    Ok(Loaded::Collection(Value::boxed(Box::new(stream))))
}

fn load_node(stream: &mut Stream, input: &mut Input<'_>) -> Result<(), RdbError> {
    let id: [u8; ID_LEN] = (*input.text()?)
        .try_into()
        .map_err(|_| RdbError::Corrupt("a stream has a node whose ID is no ID"))?;
    let (id, list) = (StreamId::from_bytes(id), listpack(input.text()?)?);
    let checked = node::check(id, &list).ok_or(RdbError::Corrupt("a stream has a damaged node"))?;
    if !stream.nodes.is_empty() && id <= stream.last_id {
        return Err(RdbError::Corrupt("the nodes of a stream are not in order"));
    }
    stream.len += checked.live;
    stream.last_id = checked.last_id;
    stream.nodes.insert(id, Arc::new(list));
    Ok(())
}

fn load_parts(input: &mut Input<'_>) -> Result<StreamId, RdbError> {
    Ok(StreamId { ms: input.number()?, seq: input.number()? })
}

fn load_raw_id(input: &mut Input<'_>) -> Result<StreamId, RdbError> {
    input.array().map(StreamId::from_bytes)
}

fn load_group(type_byte: u8, stream: &Stream, input: &mut Input<'_>) -> Result<Group, RdbError> {
    let last_id = load_parts(input)?;
    let entries_read = match type_byte {
        t::STREAM => stream.estimated_position(last_id),
        _ => input.number()?.cast_signed(),
    };
    if entries_read < UNKNOWN {
        return Err(RdbError::Corrupt("a group has read a negative number of entries"));
    }
    let mut pending: Vec<(StreamId, i64, u64)> = Vec::new();
    for _ in 0..input.count()? {
        let (id, at) = (load_raw_id(input)?, i64::from_le_bytes(input.array()?));
        if id == StreamId::ZERO || pending.last().is_some_and(|(last, ..)| id <= *last) {
            return Err(RdbError::Corrupt("what is pending in a group is not in order"));
        }
        pending.push((id, at, input.number()?));
    }
    let mut group = Group::new(last_id, entries_read);
    for _ in 0..input.count()? {
        load_consumer(type_byte, &mut group, &pending, input)?;
    }
    if group.pending_len() != pending.len() {
        return Err(RdbError::Corrupt("an entry is pending for nobody"));
    }
    Ok(group)
}

fn load_consumer(
    type_byte: u8,
    group: &mut Group,
    pending: &[(StreamId, i64, u64)],
    input: &mut Input<'_>,
) -> Result<(), RdbError> {
    let name = input.text()?;
    let seen_at = i64::from_le_bytes(input.array()?);
    let active_at = if type_byte == t::STREAM_3 { i64::from_le_bytes(input.array()?) } else { seen_at };
    if !group.create_consumer(&name, seen_at, active_at) {
        return Err(RdbError::Corrupt("a group has a consumer twice"));
    }
    for _ in 0..input.count()? {
        let id = load_raw_id(input)?;
        let found = pending.binary_search_by_key(&id, |(id, ..)| *id).ok();
        let (_, at, count) = found
            .and_then(|at| pending.get(at))
            .ok_or(RdbError::Corrupt("a consumer has a pending entry that the group has not"))?;
        if group.pending_at(id).is_some() {
            return Err(RdbError::Corrupt("an entry is pending for two consumers"));
        }
        group.deliver(id, &name, *at, *count);
    }
    Ok(())
}

fn skip(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    for _ in 0..input.count()? {
        input.skip_text()?;
        input.skip_text()?;
    }
    // Length and last ID; later the first one, the last that was deleted, and the entries ever added.
    for _ in 0..if type_byte == t::STREAM { 3 } else { 8 } {
        input.number()?;
    }
    for _ in 0..input.count()? {
        input.skip_text()?;
        skip_group(type_byte, input)?;
    }
    Ok(())
}

fn skip_group(type_byte: u8, input: &mut Input<'_>) -> Result<(), RdbError> {
    // The last ID that was delivered; later the entries read.
    for _ in 0..if type_byte == t::STREAM { 2 } else { 3 } {
        input.number()?;
    }
    for _ in 0..input.count()? {
        input.take(ID_LEN + TIME_LEN)?;
        input.number()?;
    }
    for _ in 0..input.count()? {
        input.skip_text()?;
        input.take(if type_byte == t::STREAM_3 { 2 * TIME_LEN } else { TIME_LEN })?;
        for _ in 0..input.count()? {
            input.take(ID_LEN)?;
        }
    }
    Ok(())
}
