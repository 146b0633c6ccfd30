//! Conversions between the cores' messages and those of gRPC. What a peer sends is checked here: an identifier that
//! does not parse or a slot that does not exist ends the stream.

use std::time::Duration;

use bytes::Bytes;
use keyward_proto::format::{self, FORMAT, Foreign};
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::rpc;
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_replication::core::messages::{
    Ack, Append, Chunk, Hello, Request, SnapshotPart, Start, SyncKind,
};
use keyward_replication::core::node_core::{RoleStatus, Status};
use keyward_replication::core::received::{Resume, SlotSet};
use keyward_replication::log::{TermStart, is_history};

use super::shared::Figures;

/// A peer's message makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(&'static str);

/// Why a replica's first message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Objection {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

fn position(p: Option<rpc::Position>) -> Position {
    p.map_or(Position::ZERO, Position::from)
}

pub(crate) fn parse_hello(m: rpc::FollowHello) -> Result<Hello, Objection> {
    format::agree(m.format)?;
    let terms: Vec<TermStart> = m
        .terms
        .iter()
        .map(|t| TermStart { term: Term::new(t.term), first_index: LogIndex::new(t.first_index) })
        .collect();
    let last = position(m.last);
    if !is_history(&terms, last) {
        return Err(Malformed("list of terms").into());
    }
    Ok(Hello {
        node: NodeId::parse(&m.node_id).ok_or(Malformed("node ID"))?,
        incarnation: Incarnation::new(m.incarnation),
        shard: ShardId::parse(&m.shard_id).ok_or(Malformed("shard ID"))?,
        term: Term::new(m.term),
        last,
        applied: LogIndex::new(m.applied_index),
        terms,
        needs_full_sync: m.needs_full_sync,
        // What a newer program sends is looked through by an older one: it has to see whole entries.
        takes_parts: FORMAT <= m.format,
        resume: match m.resume_from {
            None => None,
            from @ Some(_) => Some(Resume {
                from: position(from),
                done: SlotSet::from_bytes(&m.resume_slots).ok_or(Malformed("set of slots"))?,
            }),
        },
    })
}

pub(crate) fn encode_hello(h: Hello) -> rpc::FollowHello {
    rpc::FollowHello {
        node_id: h.node.to_string(),
        incarnation: h.incarnation.get(),
        shard_id: h.shard.to_string(),
        term: h.term.get(),
        last: Some(h.last.into()),
        applied_index: h.applied.get(),
        terms: h
            .terms
            .iter()
            .map(|t| rpc::TermStart { term: t.term.get(), first_index: t.first_index.get() })
            .collect(),
        needs_full_sync: h.needs_full_sync,
        resume_from: h.resume.as_ref().map(|r| r.from.into()),
        resume_slots: h.resume.map_or_else(Bytes::new, |r| Bytes::copy_from_slice(r.done.as_bytes())),
        format: FORMAT,
    }
}

pub(crate) fn parse_ack(m: rpc::AppendAck) -> Ack {
    Ack {
        term: Term::new(m.term),
        held: LogIndex::new(m.held_index),
        sent_at: Monotonic::from_nanos(m.sent_at),
        applied: LogIndex::new(m.applied_index),
        consistent: m.consistent,
        lease: Duration::from_nanos(m.lease_nanos),
    }
}

pub(crate) fn encode_ack(a: Ack) -> rpc::AppendAck {
    rpc::AppendAck {
        term: a.term.get(),
        held_index: a.held.get(),
        sent_at: a.sent_at.as_nanos(),
        applied_index: a.applied.get(),
        consistent: a.consistent,
        lease_nanos: nanos(a.lease),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn encode_start(s: Start) -> rpc::StreamStart {
    let (from, full_sync, resumed) = match s.sync {
        SyncKind::Partial(from) => (from, false, false),
        SyncKind::Full => (Position::ZERO, true, false),
        SyncKind::Resume(from) => (from, true, true),
    };
    rpc::StreamStart {
        term: s.term.get(),
        from: Some(from.into()),
        full_sync,
        resumed,
        lease_nanos: nanos(s.lease),
        grace_nanos: nanos(s.grace),
        format: FORMAT,
    }
}

pub(crate) fn parse_start(m: rpc::StreamStart) -> Result<Start, Foreign> {
    format::agree(m.format)?;
    Ok(Start {
        term: Term::new(m.term),
        sync: match (m.full_sync, m.resumed) {
            (false, _) => SyncKind::Partial(position(m.from)),
            (true, false) => SyncKind::Full,
            (true, true) => SyncKind::Resume(position(m.from)),
        },
        lease: Duration::from_nanos(m.lease_nanos),
        grace: Duration::from_nanos(m.grace_nanos),
    })
}

pub(crate) fn parse_append(m: rpc::Append) -> Append {
    Append {
        term: Term::new(m.term),
        previous: position(m.previous),
        entries_term: Term::new(m.entries_term),
        count: m.count,
        entries: m.entries,
        rest_bytes: m.rest_bytes,
        commit: LogIndex::new(m.commit_index),
        sent_at: Monotonic::from_nanos(m.sent_at),
        unheard: Duration::from_nanos(m.unheard_nanos),
        lease: Duration::from_nanos(m.lease_nanos),
    }
}

pub(crate) fn encode_append(a: Append) -> rpc::Append {
    rpc::Append {
        term: a.term.get(),
        previous: Some(a.previous.into()),
        entries_term: a.entries_term.get(),
        count: a.count,
        entries: a.entries,
        rest_bytes: a.rest_bytes,
        commit_index: a.commit.get(),
        sent_at: a.sent_at.as_nanos(),
        unheard_nanos: nanos(a.unheard),
        lease_nanos: nanos(a.lease),
    }
}

pub(crate) fn parse_chunk(m: rpc::SnapshotChunk) -> Result<Chunk, Malformed> {
    let part = |p: rpc::SnapshotPart| {
        let slot = u16::try_from(p.slot).ok().and_then(Slot::new)?;
        let index = LogIndex::new(p.index);
        Some(SnapshotPart { slot, index, payload: p.payload, is_last: p.complete })
    };
    let parts: Option<Vec<SnapshotPart>> = m.parts.into_iter().map(part).collect();
    let (from, end) = (position(m.from), LogIndex::new(m.consistent_index));
    if m.last && end < from.index {
        return Err(Malformed("end of a snapshot"));
    }
    Ok(Chunk {
        term: Term::new(m.term),
        sent_at: Monotonic::from_nanos(m.sent_at),
        from,
        parts: parts.ok_or(Malformed("slot"))?,
        end: m.last.then_some(end),
    })
}

pub(crate) fn encode_chunk(c: Chunk) -> rpc::SnapshotChunk {
    let slots_done = c.parts.last().map_or(0, |p| u32::from(p.slot.number()) + 1);
    let part = |p: SnapshotPart| rpc::SnapshotPart {
        slot: u32::from(p.slot.number()),
        index: p.index.get(),
        payload: p.payload,
        complete: p.is_last,
    };
    rpc::SnapshotChunk {
        term: c.term.get(),
        sent_at: c.sent_at.as_nanos(),
        parts: c.parts.into_iter().map(part).collect(),
        slots_done,
        last: c.end.is_some(),
        from: Some(c.from.into()),
        consistent_index: c.end.map_or(0, LogIndex::get),
    }
}

pub(crate) fn follow_hello(hello: Hello) -> rpc::FollowRequest {
    rpc::FollowRequest { message: Some(rpc::follow_request::Message::Hello(encode_hello(hello))) }
}

pub(crate) fn follow_ack(ack: Ack) -> rpc::FollowRequest {
    rpc::FollowRequest { message: Some(rpc::follow_request::Message::Ack(encode_ack(ack))) }
}

pub(crate) fn response(message: rpc::follow_response::Message) -> rpc::FollowResponse {
    rpc::FollowResponse { message: Some(message) }
}

pub(crate) fn rejection(term: Term, reason: &str) -> rpc::FollowResponse {
    let rejected = rpc::FollowRejected { term: term.get(), reason: reason.to_owned() };
    response(rpc::follow_response::Message::Rejected(rejected))
}

/// A request to the sentinels as one of the three messages.
#[derive(Debug, Clone)]
pub(crate) enum ControlRequest {
    ChangeInSync(rpc::ChangeInSyncRequest),
    Failover(rpc::FailoverRequest),
    Handoff(rpc::HandoffRequest),
}

impl ControlRequest {
    /// From a node that knows this topology.
    pub(crate) fn with_known(self, known: Option<rpc::TopologyKey>) -> ControlRequest {
        match self {
            ControlRequest::ChangeInSync(r) => {
                ControlRequest::ChangeInSync(rpc::ChangeInSyncRequest { known, ..r })
            }
            ControlRequest::Failover(r) => ControlRequest::Failover(rpc::FailoverRequest { known, ..r }),
            ControlRequest::Handoff(r) => ControlRequest::Handoff(rpc::HandoffRequest { known, ..r }),
        }
    }
}

/// `silence`: since this node heard its primary.
pub(crate) fn control_request(me: &NodeId, request: Request, silence: Duration) -> ControlRequest {
    let change = |shard: ShardId, term: Term, version: u64| rpc::ChangeInSyncRequest {
        shard_id: shard.to_string(),
        primary: me.to_string(),
        term: term.get(),
        in_sync_version: version,
        ..Default::default()
    };
    match request {
        Request::Remove { shard, term, version, nodes, committed } => {
            let remove = nodes.iter().map(NodeId::to_string).collect();
            let committed = Some(committed.into());
            let change = rpc::ChangeInSyncRequest { remove, committed, ..change(shard, term, version) };
            ControlRequest::ChangeInSync(change)
        }
        Request::Minimum { shard, term, version, nodes } => {
            let minimum = Some(rpc::MinimumInSync { nodes });
            let change = rpc::ChangeInSyncRequest { minimum, ..change(shard, term, version) };
            ControlRequest::ChangeInSync(change)
        }
        Request::Add { shard, term, version, node, incarnation } => {
            ControlRequest::ChangeInSync(rpc::ChangeInSyncRequest {
                add: node.to_string(),
                add_incarnation: incarnation.get(),
                ..change(shard, term, version)
            })
        }
        Request::Failover { shard, term, primary_dead } => ControlRequest::Failover(rpc::FailoverRequest {
            shard_id: shard.to_string(),
            term: term.get(),
            reporter: me.to_string(),
            primary_dead,
            silent_nanos: nanos(silence),
            ..Default::default()
        }),
        Request::Handoff { shard, term, version, target, last } => {
            ControlRequest::Handoff(rpc::HandoffRequest {
                shard_id: shard.to_string(),
                primary: me.to_string(),
                term: term.get(),
                target: target.to_string(),
                last: Some(last.into()),
                in_sync_version: version,
                ..Default::default()
            })
        }
    }
}

/// What a sentinel asks for before it decides.
pub(crate) fn node_status(
    status: &Status,
    me: &NodeId,
    incarnation: Incarnation,
    shard: Option<&ShardId>,
    keys: u64,
    figures: Figures,
    takeover: Option<Duration>,
) -> rpc::NodeStatus {
    let (role, silent_nanos, leases) = match &status.role {
        RoleStatus::None => ("none", 0, Vec::new()),
        RoleStatus::Primary { leases, .. } => ("primary", 0, leases.iter().map(NodeId::to_string).collect()),
        RoleStatus::Replica { silence, .. } => ("replica", nanos(*silence), Vec::new()),
    };
    let cut_off = matches!(status.role, RoleStatus::Replica { cut_off: true, .. });
    rpc::NodeStatus {
        node_id: me.to_string(),
        incarnation: incarnation.get(),
        shard_id: shard.map(ShardId::to_string).unwrap_or_default(),
        role: role.to_owned(),
        term: status.term.get(),
        last: Some(status.last.into()),
        commit_index: status.commit.get(),
        applied_index: status.applied.get(),
        consistent: status.consistent,
        silent_nanos,
        leases,
        topology_version: status.topology_version,
        keys,
        loading: !status.consistent,
        cut_off,
        password_mark: figures.password_mark,
        memory_bytes: figures.memory_bytes,
        memory_max_bytes: figures.memory_max_bytes,
        commands_per_second: figures.commands_per_second,
        takeover_nanos: takeover.map(nanos),
    }
}

/// For the fuzz target `messages`: what may come on either side of a stream.
#[cfg(fuzzing)]
pub fn read_any_message(bytes: &[u8]) {
    use rpc::{Message, follow_request, follow_response};

    match rpc::FollowRequest::decode(bytes).ok().and_then(|request| request.message) {
        Some(follow_request::Message::Hello(hello)) => {
            if let Ok(hello) = parse_hello(hello) {
                drop(encode_hello(hello).encode_to_vec());
            }
        }
        Some(follow_request::Message::Ack(ack)) => drop(encode_ack(parse_ack(ack)).encode_to_vec()),
        None => {}
    }
    match rpc::FollowResponse::decode(bytes).ok().and_then(|response| response.message) {
        Some(follow_response::Message::Start(start)) => {
            if let Ok(start) = parse_start(start) {
                drop(encode_start(start).encode_to_vec());
            }
        }
        Some(follow_response::Message::Append(append)) => {
            let append = parse_append(append);
            for payload in keyward_proto::entry::frames(&append.entries) {
                keyward_proto::entry::effects(payload).for_each(drop);
            }
            drop(encode_append(append).encode_to_vec());
        }
        Some(follow_response::Message::Snapshot(chunk)) => {
            if let Ok(chunk) = parse_chunk(chunk) {
                drop(encode_chunk(chunk).encode_to_vec());
            }
        }
        Some(follow_response::Message::Rejected(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::rpc::Message;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// What a program of format 2 has sent.
    const HELLO: &[u8] = include_bytes!("../../../proto/testdata/format_2/follow_hello.bin");
    const START: &[u8] = include_bytes!("../../../proto/testdata/format_2/stream_start.bin");

    /// Some bytes changed, some cut off, some inserted.
    fn damaged(bytes: &[u8], rng: &mut SmallRng) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..=bytes.len());
            match rng.random_range(0..4) {
                0 if at < bytes.len() => bytes[at] = rng.random(),
                1 => bytes.insert(at, rng.random()),
                2 if rng.random_bool(0.2) => bytes.truncate(at),
                _ if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn damaged_messages_are_refused_or_are_others() {
        let mut rng = SmallRng::seed_from_u64(14);
        let chunk = Chunk {
            parts: vec![SnapshotPart {
                slot: Slot::new(7).unwrap(),
                index: LogIndex::new(5),
                payload: Bytes::from_static(b"payload"),
                is_last: true,
            }],
            end: Some(LogIndex::new(9)),
            ..Chunk::empty(Term::new(3), Monotonic::from_nanos(4), Position::new(3, 9))
        };
        let chunk = encode_chunk(chunk).encode_to_vec();
        let mut read = [0; 3];
        for _ in 0..20_000 {
            let hello = rpc::FollowHello::decode(&*damaged(HELLO, &mut rng));
            read[0] += usize::from(hello.is_ok_and(|hello| parse_hello(hello).is_ok()));
            let start = rpc::StreamStart::decode(&*damaged(START, &mut rng));
            read[1] += usize::from(start.is_ok_and(|start| parse_start(start).is_ok()));
            let chunk = rpc::SnapshotChunk::decode(&*damaged(&chunk, &mut rng));
            read[2] += usize::from(chunk.is_ok_and(|chunk| parse_chunk(chunk).is_ok()));
        }
        assert!(read.iter().all(|count| (1..20_000).contains(count)), "{read:?}");
    }

    #[test]
    fn the_format_before_is_understood() {
        let hello = parse_hello(rpc::FollowHello::decode(HELLO).unwrap()).unwrap();
        assert_eq!(
            (hello.last, hello.applied, hello.terms.len()),
            (Position::new(3, 9), LogIndex::new(8), 2)
        );
        let start = parse_start(rpc::StreamStart::decode(START).unwrap()).unwrap();
        assert_eq!(start.sync, SyncKind::Partial(Position::new(3, 9)));
        // To a program of that format it is the same message, but for the number.
        let again = rpc::FollowHello { format: 2, ..encode_hello(hello) };
        assert_eq!(again.encode_to_vec(), HELLO);
        assert_eq!(rpc::StreamStart { format: 2, ..encode_start(start) }.encode_to_vec(), START);
    }

    #[test]
    fn a_format_that_is_too_new_is_refused_in_words() {
        let hello = rpc::FollowHello { format: FORMAT + 2, ..rpc::FollowHello::decode(HELLO).unwrap() };
        let words = parse_hello(hello).unwrap_err().to_string();
        assert!(words.starts_with("it is of format 5 and this program of format 3"), "{words}");
        let start = rpc::StreamStart { format: FORMAT + 2, ..rpc::StreamStart::decode(START).unwrap() };
        assert!(parse_start(start).is_err());
    }
}
