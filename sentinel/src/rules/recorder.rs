//! What the flight recorder of a sentinel remembers: what the group has agreed on, who led it, and how failovers were
//! decided. Format and bounds are those of [`keyward_proto::flight`].
//!
//! The topology of which the first change is remembered is kept as well, so that all later ones can be made again.

use keyward_proto::flight::{Absorbed, FlightRecorder, Header, Occasion, Recorded, Recording, words};
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use serde::{Deserialize, Serialize};

use super::coordinator::{Action, Event, Replaced, Settlement};
use super::topology::{Batch, RaftId, TopologyCommand, apply_batch};

/// One thing that happened at a sentinel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// What it knows at the begin of the recording, or was sent whole.
    Knows(Box<Topology>),
    /// An entry of Raft's log was applied.
    Applied { raft_index: u64, batch: Batch },
    /// Who leads the group, as far as it knows.
    Leader { raft_term: u64, leader: Option<RaftId> },
    /// What happened in a failover or hand-off that it decides, in words.
    Heard(String),
    /// What it did about it.
    Did(String),
}

impl keyward_proto::flight::Record for Record {
    fn bytes(&self) -> usize {
        match self {
            // A node or a name each.
            Record::Knows(topology) => {
                500 * (topology.nodes.len() + topology.shards.len() + topology.sentinels.len())
            }
            Record::Applied { batch, .. } => batch.commands.iter().map(room).sum(),
            Record::Leader { .. } => 0,
            Record::Heard(words) | Record::Did(words) => words.len(),
        }
    }

    fn absorb(&mut self, _next: &Record) -> Absorbed {
        Absorbed::Barrier
    }
}

fn room(command: &TopologyCommand) -> usize {
    size_of::<TopologyCommand>()
        + match command {
            TopologyCommand::RegisterNode(registration) => 300 + 48 * registration.absent.len(),
            TopologyCommand::FormShards { shards, .. } => 500 * shards.len(),
            TopologyCommand::ReplacePrimary(change) => 200 * (1 + change.witnesses.len()),
            TopologyCommand::SetSentinels { sentinels } => 200 * sentinels.len(),
            _ => 200,
        }
}

/// The flight recorder of a sentinel.
#[derive(Debug, Default)]
pub struct Recorder {
    flight: FlightRecorder<Record>,
    /// Before the first record.
    base: Topology,
    leader: Option<(u64, Option<RaftId>)>,
}

impl Recorder {
    /// What the sentinel's own disk remembers, or another one has sent.
    pub fn knows(&mut self, now: Monotonic, topology: &Topology) {
        self.add(now, Record::Knows(Box::new(topology.clone())));
    }

    pub fn applied(&mut self, now: Monotonic, raft_index: u64, batch: &Batch) -> Occasion {
        let replaces = |command: &TopologyCommand| matches!(command, TopologyCommand::ReplacePrimary(_));
        self.add(now, Record::Applied { raft_index, batch: batch.clone() });
        // At the start Raft's log is applied once more, before anybody leads.
        let is_new = self.leader.is_some_and(|(_, leader)| leader.is_some());
        if is_new && batch.commands.iter().any(replaces) { Occasion::Failover } else { Occasion::Nothing }
    }

    pub fn leader(&mut self, now: Monotonic, raft_term: u64, leader: Option<RaftId>) {
        if self.leader.replace((raft_term, leader)) != Some((raft_term, leader)) {
            self.add(now, Record::Leader { raft_term, leader });
        }
    }

    /// Before the coordinator takes an event.
    pub fn heard(&mut self, now: Monotonic, event: &Event) {
        if !matches!(event, Event::Tick) {
            self.add(now, Record::Heard(words(event)));
        }
    }

    pub fn did(&mut self, now: Monotonic, action: &Action) {
        let did = match action {
            Action::Propose(proposal) => words(&proposal.change),
            Action::Settle(ticket, Settlement::Replaced(replaced)) => {
                let Replaced { change, asked, total, .. } = &**replaced;
                format!("{ticket:?} settled: {:?} leads; asked {asked:?}, in all {total:?}", change.node)
            }
            action => words(action),
        };
        self.add(now, Record::Did(did));
    }

    fn add(&mut self, now: Monotonic, record: Record) {
        for forgotten in self.flight.add(now, record) {
            match forgotten {
                Record::Knows(topology) => self.base = *topology,
                // What was refused is refused again.
                Record::Applied { raft_index, batch } => _ = apply_batch(&mut self.base, raft_index, batch),
                Record::Leader { .. } | Record::Heard(_) | Record::Did(_) => {}
            }
        }
    }

    /// What is remembered now.
    pub fn recording(&self, header: Header) -> Recording<Record> {
        let mut recording = self.flight.recording(header);
        if 0 < recording.header.dropped
            && let Some(first) = recording.records.first()
        {
            let record = Record::Knows(Box::new(self.base.clone()));
            let first = Recorded { at: first.at, until: first.at, record };
            recording.records.insert(0, first);
        }
        recording
    }
}

#[cfg(test)]
mod tests {
    use keyward_proto::time::UnixMillis;
    use keyward_proto::topology::SentinelAddress;

    use super::*;

    fn header() -> Header {
        Header {
            keyward_flight: keyward_proto::flight::FORMAT,
            program: "sentinel".into(),
            version: String::new(),
            id: "1".into(),
            name: "s1".into(),
            boot: String::new(),
            at: Monotonic::ZERO,
            wall: UnixMillis(0),
            why: "asked".into(),
            dropped: 0,
        }
    }

    #[test]
    fn a_recording_begins_with_what_its_changes_start_from() {
        let (mut recorder, mut topology) = (Recorder::default(), Topology::default());
        recorder.knows(Monotonic::ZERO, &topology);
        for index in 1..=20_000_u64 {
            let address = SentinelAddress {
                name: format!("s{}", index % 7),
                host: format!("host-{index}"),
                port: 1,
                bus_port: 2,
                tls_port: 0,
            };
            let command = TopologyCommand::AnnounceSentinel { id: 1 + index % 7, address };
            let batch = Batch { commands: vec![command] };
            recorder.applied(Monotonic::from_nanos(index), index, &batch);
            _ = apply_batch(&mut topology, index, batch);
        }
        let recording = recorder.recording(header());
        assert!(0 < recording.header.dropped && recording.records.len() < 20_000);
        let Record::Knows(mut replayed) = recording.records[0].record.clone() else { unreachable!() };
        for recorded in &recording.records[1..] {
            let Record::Applied { raft_index, batch } = recorded.record.clone() else { unreachable!() };
            _ = apply_batch(&mut replayed, raft_index, batch);
        }
        assert_eq!(*replayed, topology);
    }
}
