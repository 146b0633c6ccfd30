//! Recordings of several processes, read as one incident: its story, whether it kept the invariants, and as a scenario.
//!
//! - `story`: all processes by one clock, a line each
//! - `checks`: the invariants, as far as recordings show them
//! - `scenario`: what the scripts of `node/replication/testdata` would have to do
//!
//! Clocks: processes of one machine have the same monotonic clock. Of several machines the wall clocks are taken for equal,
//! so what happened within their difference may be told in another order, and leases are not compared.

mod checks;
mod scenario;
mod story;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use keyward_proto::flight::{Header, Record, Recorded, Recording, RecordingError};
use keyward_proto::ids::NodeId;
use keyward_proto::time::Monotonic;
use keyward_proto::topology::Topology;
use keyward_replication::recorder::{self as node, ShardView};
use keyward_sentinel::rules::recorder as sentinel;
use keyward_sentinel::rules::topology::apply_batch;

pub use checks::violations;
pub use scenario::scenario;
pub use story::{Span, story};

/// All that one process has left, of several starts perhaps.
#[derive(Debug, Clone)]
pub struct Flight<R> {
    /// Of the latest recording.
    pub header: Header,
    pub records: Vec<Recorded<R>>,
}

/// What several processes have recorded.
#[derive(Debug, Clone, Default)]
pub struct Incident {
    pub nodes: Vec<Flight<node::Record>>,
    pub sentinels: Vec<Flight<sentinel::Record>>,
    names: Names,
    /// By the first eight digits, as values are shown.
    short: Names,
}

/// Digits of an identifier in values as they are shown.
const SHORT: usize = 8;

/// Identifiers, and what people call them.
type Names = BTreeMap<String, String>;

impl Incident {
    /// Each file's name and text.
    ///
    /// # Errors
    /// Which file is no recording, and why.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Incident, String> {
        let (mut nodes, mut sentinels) = (Vec::new(), Vec::new());
        for (name, text) in files {
            let wrong = |error: RecordingError| format!("{name}: no recording: {error}");
            match Recording::parse(text, "node") {
                Ok(recording) => nodes.push(recording),
                Err(RecordingError::Program(_)) => {
                    sentinels.push(Recording::parse(text, "sentinel").map_err(wrong)?);
                }
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(Incident::new(nodes, sentinels))
    }

    pub fn new(nodes: Vec<Recording<node::Record>>, sentinels: Vec<Recording<sentinel::Record>>) -> Incident {
        let (nodes, sentinels) = (by_process(nodes), by_process(sentinels));
        let mut incident = Incident { nodes, sentinels, ..Incident::default() };
        incident.names = names(&incident);
        let long = incident.names.iter().filter(|(id, _)| id.len() == 40);
        incident.short = long.map(|(id, name)| (id[..SHORT].to_owned(), name.clone())).collect();
        incident
    }

    fn headers(&self) -> impl Iterator<Item = &Header> {
        self.nodes.iter().map(|f| &f.header).chain(self.sentinels.iter().map(|f| &f.header))
    }

    /// All processes ran under one kernel: their clocks are one.
    fn one_clock(&self) -> bool {
        let mut boots = self.headers().map(|header| &header.boot);
        boots.next().is_none_or(|first| !first.is_empty() && boots.all(|boot| boot == first))
    }

    /// A process's time as all have it, in nanoseconds.
    fn time(&self, header: &Header, at: Monotonic) -> i128 {
        let at = i128::from(at.as_nanos());
        if self.one_clock() {
            return at;
        }
        i128::from(header.wall.0) * 1_000_000 - i128::from(header.at.as_nanos()) + at
    }

    fn name<'a>(&'a self, node: &'a NodeId) -> &'a str {
        self.name_of(node.as_str())
    }
}

/// Of the recordings of one process later ones have more: of earlier ones only what later ones have forgotten is taken.
fn by_process<R: Record>(mut recordings: Vec<Recording<R>>) -> Vec<Flight<R>> {
    recordings.sort_by_key(|recording| recording.header.wall.0);
    let mut flights: BTreeMap<String, Flight<R>> = BTreeMap::new();
    for Recording { header, records } in recordings {
        match flights.get_mut(&header.id) {
            Some(flight) => {
                let begin = records.first().map(|record| record.at);
                flight.records.retain(|earlier| begin.is_none_or(|begin| earlier.at < begin));
                flight.records.extend(records);
                flight.header = header;
            }
            None => _ = flights.insert(header.id.clone(), Flight { header, records }),
        }
    }
    flights.into_values().collect()
}

fn names(incident: &Incident) -> Names {
    let mut names = Names::new();
    for flight in &incident.nodes {
        names.insert(flight.header.id.clone(), flight.header.name.clone());
        for recorded in &flight.records {
            if let node::Record::Topology(ShardView { shard: Some(shard), .. }) = &recorded.record {
                names.extend(shard.nodes.iter().map(|(id, name)| (id.to_string(), name.clone())));
                names.insert(shard.id.to_string(), shard.name.clone());
            }
        }
    }
    for flight in &incident.sentinels {
        let mut topology = None;
        for recorded in &flight.records {
            match &recorded.record {
                sentinel::Record::Knows(known) => {
                    topology.iter().for_each(|before| add_names(before, &mut names));
                    topology = Some((**known).clone());
                }
                sentinel::Record::Applied { raft_index, batch } => {
                    if let Some(topology) = &mut topology {
                        apply_batch(topology, *raft_index, batch.clone());
                    }
                }
                sentinel::Record::Leader { .. } | sentinel::Record::Heard(_) | sentinel::Record::Did(_) => {}
            }
        }
        // Of those that were forgotten meanwhile the nodes' own words tell, if anybody's.
        topology.iter().for_each(|known| add_names(known, &mut names));
    }
    names
}

fn add_names(topology: &Topology, names: &mut Names) {
    names.extend(topology.nodes.values().map(|node| (node.id.to_string(), node.address())));
    names.extend(topology.shards.keys().map(|id| (id.to_string(), topology.shard_name(id))));
    names.extend(topology.sentinels.iter().map(|(id, of)| (id.to_string(), of.name.clone())));
}
