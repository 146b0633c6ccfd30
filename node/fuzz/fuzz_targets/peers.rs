//! What a member of the shard may say that is broken or taken over, as a replica to its primary and as a primary to its
//! replica: whatever terms, positions, times and bytes come, the core goes on, and its invariants hold.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::ids::{Incarnation, LogIndex, NodeId, Position, ShardId, Term};
use keyward_proto::slot::Slot;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::{Absent, Detection, Node, Shard, SlotRange, Topology};
use keyward_replication::core::Config;
use keyward_replication::core::messages::{
    Ack, Action, Append, Chunk, Closed, Event, Hello, LinkId, SnapshotPart, Start, SyncKind, UplinkId,
};
use keyward_replication::core::node_core::NodeCore;
use keyward_replication::core::received::{Resume, SlotSet};
use keyward_replication::log::{TermStart, WriteLog, is_history};
use libfuzzer_sys::fuzz_target;

const TERM: u64 = 5;
const ENTRIES: u64 = 20;

/// What is to be said, drawn from the input; zeros when that is at its end.
struct Draws<'a>(&'a [u8]);

impl Draws<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// Mostly about what is true here.
    fn number(&mut self, near: u64) -> u64 {
        match self.byte() {
            0..=99 => near,
            100..=149 => near.wrapping_add(u64::from(self.byte())),
            150..=199 => near.wrapping_sub(u64::from(self.byte())),
            200..=209 => 0,
            210..=219 => u64::MAX,
            _ => u64::from_be_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn term(&mut self) -> Term {
        Term::new(self.number(TERM))
    }

    fn index(&mut self) -> LogIndex {
        LogIndex::new(self.number(ENTRIES))
    }

    fn position(&mut self) -> Position {
        Position::new(self.number(TERM), self.number(ENTRIES))
    }

    fn time(&mut self, now: Monotonic) -> Monotonic {
        Monotonic::from_nanos(self.number(now.as_nanos()))
    }

    fn duration(&mut self) -> Duration {
        Duration::from_nanos(self.number(100_000_000))
    }

    fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    fn hello(&mut self) -> Hello {
        let sender = 1 + self.byte() % 4;
        let terms = usize::from(self.byte() % 4);
        Hello {
            node: NodeId::from_random([sender; 20]),
            incarnation: Incarnation::new(self.number(1)),
            shard: shard_id(),
            term: self.term(),
            last: self.position(),
            applied: self.index(),
            terms: (0..terms).map(|_| TermStart { term: self.term(), first_index: self.index() }).collect(),
            needs_full_sync: self.flag(),
            takes_parts: self.flag(),
            resume: self.flag().then(|| Resume { from: self.position(), done: SlotSet::default() }),
        }
    }

    fn ack(&mut self, now: Monotonic) -> Ack {
        Ack {
            term: self.term(),
            held: self.index(),
            sent_at: self.time(now),
            applied: self.index(),
            consistent: self.flag(),
            lease: self.duration(),
        }
    }

    fn start(&mut self) -> Start {
        let sync = match self.byte() % 3 {
            0 => SyncKind::Partial(self.position()),
            1 => SyncKind::Full,
            _ => SyncKind::Resume(self.position()),
        };
        Start { term: self.term(), sync, lease: self.duration(), grace: self.duration() }
    }

    fn append(&mut self, now: Monotonic) -> Append {
        let mut entries = Vec::new();
        let count = self.byte() % 4;
        for _ in 0..count {
            entries.extend(8_u32.to_le_bytes());
            entries.extend(b"an entry");
        }
        if self.byte() % 4 == 0 && !entries.is_empty() {
            let at = usize::from(self.byte()) % entries.len();
            entries[at] = self.byte();
        }
        Append {
            term: self.term(),
            previous: self.position(),
            entries_term: self.term(),
            count: self.number(u64::from(count)),
            entries: entries.into(),
            rest_bytes: if self.flag() { self.number(10) } else { 0 },
            commit: self.index(),
            sent_at: self.time(now),
            unheard: self.duration(),
            lease: self.duration(),
        }
    }

    fn chunk(&mut self, now: Monotonic) -> Chunk {
        let parts = usize::from(self.byte() % 4);
        Chunk {
            term: self.term(),
            sent_at: self.time(now),
            from: self.position(),
            parts: (0..parts)
                .map(|_| SnapshotPart {
                    slot: Slot::new(u16::from(self.byte())).expect("there are more slots"),
                    index: self.index(),
                    payload: Bytes::from_static(b"records"),
                    is_last: self.flag(),
                })
                .collect(),
            end: self.flag().then(|| self.index()),
        }
    }
}

fn shard_id() -> ShardId {
    ShardId::from_random([9; 20])
}

fn node(n: u8) -> Node {
    Node {
        id: NodeId::from_random([n; 20]),
        incarnation: Incarnation::new(1),
        start_nonce: u64::from(n),
        host: "127.0.0.1".into(),
        port: u16::from(n),
        bus_port: 10_000 + u16::from(n),
        tls_port: 0,
        hostname: String::new(),
        zone: String::new(),
        replica_priority: 100,
        shard: Some(shard_id()),
        cluster_enabled: true,
        program_version: String::new(),
        registered_last: Position::ZERO,
        detection: Detection::default(),
        holding: None,
        databases: None,
    }
}

/// Three members, of which this one leads.
fn topology(primary: u8) -> Topology {
    let nodes: BTreeMap<_, _> = (1..=3).map(node).map(|node| (node.id.clone(), node)).collect();
    let shard = Shard {
        id: shard_id(),
        slots: vec![SlotRange { first: Slot::new(0).expect("it is the first"), last: Slot::new(16_383).expect("it is the last") }],
        term: Term::new(TERM),
        primary: Some(NodeId::from_random([primary; 20])),
        in_sync: nodes.keys().cloned().collect(),
        restarted: BTreeSet::new(),
        in_sync_version: 1,
        previous_primary_gone: true,
        predecessor_gone: true,
        handoff_position: Position::ZERO,
        absent: Absent::default(),
    };
    Topology { history: 1, version: 1, nodes, shards: BTreeMap::from([(shard.id.clone(), shard)]), ..Topology::default() }
}

/// The core of node 1, with a log of the term before, and what its shell does at once.
struct Shell {
    core: NodeCore,
    log: WriteLog,
    now: Monotonic,
    uplink: Option<UplinkId>,
    /// How often the keyspace was cleared.
    epoch: u64,
}

impl Shell {
    fn new(primary: u8) -> Shell {
        let now = Monotonic::from_nanos(1_000_000_000_000);
        let mut log = WriteLog::new(1 << 16);
        log.set_shard(Some(shard_id()));
        for _ in 0..ENTRIES {
            log.append(Term::new(TERM - 1), b"before");
        }
        let applied = log.last().index;
        let (me, incarnation) = (NodeId::from_random([1; 20]), Incarnation::new(1));
        let core = NodeCore::new(Config::default(), me, incarnation, &log, applied, now);
        let mut shell = Shell { core, log, now, uplink: None, epoch: 0 };
        shell.step(Event::TopologyChanged(Arc::new(topology(primary))));
        // The promises of the term before have ended.
        for _ in 0..40 {
            shell.pass(Duration::from_millis(50));
        }
        shell
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.step(Event::Tick);
    }

    fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.core.step(self.now, event, &mut self.log, &mut actions);
            for action in actions {
                match action {
                    Action::Quiesce(id) => events.push(Event::Quiesced(id)),
                    Action::ApplyUpTo { index, .. } => events.push(Event::Applied { epoch: self.epoch, index }),
                    Action::FinishSnapshot { from, .. } => {
                        events.push(Event::Applied { epoch: self.epoch, index: from });
                    }
                    Action::ClearKeyspace { epoch } => self.epoch = epoch,
                    Action::Connect { uplink, .. } => self.uplink = Some(uplink),
                    Action::Disconnect(uplink) if self.uplink == Some(uplink) => self.uplink = None,
                    _ => {}
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    let mut shell = Shell::new(1 + draws.byte() % 2);
    while !draws.0.is_empty() {
        let now = shell.now;
        let link = LinkId(u64::from(draws.byte() % 3));
        let uplink = shell.uplink.unwrap_or(UplinkId(u64::from(draws.byte() % 3)));
        let event = match draws.byte() % 10 {
            0 | 1 => {
                let hello = draws.hello();
                // As the shell refuses it.
                if !is_history(&hello.terms, hello.last) {
                    continue;
                }
                Event::HelloReceived(link, hello)
            }
            2 | 3 => Event::AckReceived(link, draws.ack(now)),
            4 => Event::StartReceived(uplink, draws.start()),
            5 | 6 => Event::AppendReceived(uplink, draws.append(now)),
            7 => Event::ChunkReceived(uplink, draws.chunk(now)),
            8 => match draws.byte() % 4 {
                0 => Event::LinkClosed(link),
                1 => Event::UplinkClosed(uplink, Closed::Broken),
                2 => Event::RejectReceived(uplink),
                _ => Event::UplinkHeldUp(uplink),
            },
            _ => {
                shell.pass(Duration::from_millis(u64::from(draws.byte())));
                continue;
            }
        };
        shell.step(event);
    }
    shell.pass(Duration::from_secs(1));
    shell.log.check_invariants();
});
