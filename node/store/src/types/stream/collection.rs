//! What the store asks of a stream: see [`Collection`].

use super::{Group, Stream, StreamId, rdb};
use crate::digest::Digest;
use crate::rdb::{Compression, type_byte as t};
use crate::rebuild::{Emit, PIECE_LEN_MAX};
use crate::types::collection::Collection;

/// What a node takes beside its bytes: its place in the index (which is two thirds full), counters, address and lengths.
const NODE_OVERHEAD: usize = 80;
/// What a pending entry takes: its places in the group and with its consumer.
const PENDING_BYTES: usize = 100;
/// And its place in the order of deliveries, if the group keeps that.
const PENDING_TIME_BYTES: usize = 36;
/// What a consumer or a group takes beside its name.
const READER_OVERHEAD: usize = 128;

impl Collection for &Stream {
    fn type_name(&self) -> &'static str {
        "stream"
    }

    fn group(&self) -> &'static str {
        "stream"
    }

    fn encoding(&self) -> &'static str {
        "stream"
    }

    /// A stream without entries stays.
    fn is_empty(&self) -> bool {
        false
    }

    fn allocations(&self) -> usize {
        self.nodes.len() + self.groups.values().map(|group| 1 + group.pending_len()).sum::<usize>()
    }

    fn usage_bytes(&self, samples: usize) -> usize {
        let sampled = self.nodes.values().take(samples.max(1));
        let (count, sum) = sampled.fold((0, 0), |(n, sum), list| (n + 1, sum + list.as_bytes().len()));
        let nodes = self.nodes.len();
        let groups: usize = self.groups.iter().map(|(name, group)| name.len() + group_bytes(group)).sum();
        size_of::<Stream>() + sum * nodes / count.max(1) + nodes * NODE_OVERHEAD + groups
    }

    fn rebuild(&self, key: &[u8], emit: &mut Emit<'_>) {
        rebuild_entries(self, key, emit);
        for (name, group) in &self.groups {
            rebuild_group(key, name, group, emit);
        }
    }

    fn type_number(&self) -> u32 {
        6
    }

    fn digest(&self, digest: &mut Digest) {
        for entry in self.iter() {
            digest.append(entry.id.to_string().replace('-', ".").as_bytes());
            for (name, value) in entry.fields() {
                digest.append(&name);
                digest.append(&value);
            }
        }
    }

    fn rdb_type(&self) -> u8 {
        t::STREAM_3
    }

    fn save_body(&self, compression: Compression, out: &mut Vec<u8>) {
        rdb::save_body(self, compression, out);
    }

    fn pieces(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    fn saved_count(&self) -> usize {
        self.nodes.len()
    }
}

fn group_bytes(group: &Group) -> usize {
    let consumers: usize = group.consumers().map(|(name, _)| READER_OVERHEAD + name.len()).sum();
    let in_order = if group.is_ordered_by_time() { PENDING_TIME_BYTES } else { 0 };
    READER_OVERHEAD + consumers + group.pending_len() * (PENDING_BYTES + in_order)
}

fn rebuild_entries(stream: &Stream, key: &[u8], emit: &mut Emit<'_>) {
    for entry in stream.iter() {
        let (id, fields) = (entry.id.to_string(), entry.fields().collect::<Vec<_>>());
        let texts = fields.iter().flat_map(|(name, value)| [&**name, &**value]);
        emit(&[&b"XADD"[..], key, id.as_bytes()].into_iter().chain(texts).collect::<Vec<_>>());
    }
    let last = stream.last_id();
    if stream.is_empty() {
        // There has to be a stream.
        let id = last.max(StreamId::new(0, 1)).to_string();
        emit(&[b"XADD", key, b"MAXLEN", b"=", b"0", id.as_bytes(), b"x", b"y"]);
    }
    let (last, max_deleted) = (last.to_string(), stream.max_deleted_id().to_string());
    let added = stream.entries_added().to_string();
    let added = added.as_bytes();
    let (last, max_deleted) = (last.as_bytes(), max_deleted.as_bytes());
    emit(&[b"XSETID", key, last, b"ENTRIESADDED", added, b"MAXDELETEDID", max_deleted]);
}

fn rebuild_group(key: &[u8], name: &[u8], group: &Group, emit: &mut Emit<'_>) {
    let (id, read) = (group.last_id.to_string(), group.entries_read.to_string());
    emit(&[b"XGROUP", b"CREATE", key, name, id.as_bytes(), b"ENTRIESREAD", read.as_bytes()]);
    for (consumer_name, consumer) in group.consumers() {
        let (seen, active) = (consumer.seen_at.to_string(), consumer.active_at.to_string());
        let times: [&[u8]; 4] = [b"SEEN", seen.as_bytes(), b"ACTIVE", active.as_bytes()];
        let lead: [&[u8]; 5] = [b"XCLAIM", key, name, consumer_name, b"0"];
        emit(&[&lead[..], &[&b"0-0"[..]], &times].concat());
        let mut ids = consumer.pending().filter_map(|id| Some((id, group.pending_at(id)?))).peekable();
        while let Some((id, first)) = ids.next() {
            // Those that were delivered together.
            let mut texts = vec![id.to_string()];
            let is_like = |(_, other): &(StreamId, &super::Pending)| {
                (other.delivered_at, other.deliveries) == (first.delivered_at, first.deliveries)
            };
            while texts.len() < PIECE_LEN_MAX
                && let Some((id, _)) = ids.next_if(is_like)
            {
                texts.push(id.to_string());
            }
            let (at, count) = (first.delivered_at.to_string(), first.deliveries.to_string());
            let how: [&[u8]; 6] =
                [b"TIME", at.as_bytes(), b"RETRYCOUNT", count.as_bytes(), b"FORCE", b"JUSTID"];
            let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            emit(&[&lead[..], &texts, &how, &times].concat());
        }
    }
}
