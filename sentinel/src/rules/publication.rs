//! The topology as nodes are told it: whole to those who know nothing, as a delta to those who know a recent version.
//!
//! Encoded once for all who need the same. Bounded: [`HISTORY_LEN`] versions are remembered; whoever knows only an
//! older one, or that of another history, gets the whole.
//!
//! Architecture invariant: no clock, no socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyward_proto::ids::ShardId;
use keyward_proto::rpc;
use keyward_proto::topology::Topology;
use keyward_proto::topology::delta::{Delta, Key};
use serde::Serialize;

/// An empty update is sent after so long without a change, so that a dead stream is noticed.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(2);
/// Versions that deltas may begin with.
const HISTORY_LEN: usize = 16;

#[derive(Debug, Default)]
pub struct Publications {
    /// The versions that somebody was told, the newest last.
    history: VecDeque<Published>,
}

#[derive(Debug)]
struct Published {
    topology: Arc<Topology>,
    whole: Option<Bytes>,
    /// From earlier versions.
    deltas: Vec<(Key, Bytes)>,
}

impl Publications {
    /// What to tell somebody who knows `known`; empty if that is all. `current` may be told to others from now on.
    pub fn update(&mut self, known: Option<&Key>, current: &Arc<Topology>) -> rpc::TopologyUpdate {
        let key = current.key();
        if known.is_some() && known == key.as_ref() {
            return rpc::TopologyUpdate::default();
        }
        if self.history.back().is_none_or(|told| *told.topology != **current) {
            if self.history.len() == HISTORY_LEN {
                self.history.pop_front();
            }
            let topology = Arc::clone(current);
            self.history.push_back(Published { topology, whole: None, deltas: Vec::new() });
        }
        let Some((newest, earlier)) = self.history.make_contiguous().split_last_mut() else {
            return rpc::TopologyUpdate::default();
        };
        let base =
            known.and_then(|key| earlier.iter().find(|told| told.topology.key().as_ref() == Some(key)));
        match known.zip(base) {
            Some((known, base)) => rpc::TopologyUpdate {
                delta: newest.delta_from(known, &base.topology),
                topology: Bytes::new(),
            },
            None => rpc::TopologyUpdate { topology: newest.whole(), delta: Bytes::new() },
        }
    }
}

impl Published {
    fn whole(&mut self) -> Bytes {
        self.whole.get_or_insert_with(|| encode(&*self.topology)).clone()
    }

    fn delta_from(&mut self, key: &Key, base: &Topology) -> Bytes {
        if let Some((_, bytes)) = self.deltas.iter().find(|(known, _)| known == key) {
            return bytes.clone();
        }
        let bytes = Delta::between(base, &self.topology).map(|delta| encode(&delta)).unwrap_or_default();
        self.deltas.push((key.clone(), bytes.clone()));
        bytes
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("a topology has only string and number keys"))
}

/// The key in a request; `None` if it is none.
pub fn known(key: Option<&rpc::TopologyKey>) -> Option<Key> {
    let key = key?;
    Some(Key { version: key.version, shard: ShardId::parse(&key.shard_id)?, history: key.history })
}

#[cfg(test)]
mod tests {
    use keyward_proto::topology::Shape;

    use super::*;
    use crate::rules::topology::{Consent, NewShard, TopologyCommand, apply};

    fn topology() -> Topology {
        let mut topology = Topology::default();
        let registration = crate::rules::topology::Registration {
            start_nonce: 1,
            host: "h".into(),
            port: 1,
            bus_port: 2,
            cluster_enabled: true,
            ..crate::rules::topology::Registration::new(keyward_proto::ids::NodeId::from_random([1; 20]))
        };
        let shards = vec![NewShard {
            id: ShardId::from_random([1; 20]),
            slots: Topology::even_ranges(1),
            primary: registration.id.clone(),
            term: keyward_proto::ids::Term::new(1),
        }];
        apply(&mut topology, 1, TopologyCommand::RegisterNode(registration)).unwrap();
        apply(&mut topology, 2, TopologyCommand::FormShards { shards, consent: Consent::None, history: 7 })
            .unwrap();
        topology
    }

    fn next(topology: &Topology) -> Topology {
        let mut next = topology.clone();
        let replicas_per_shard = topology.shape.replicas_per_shard + 1;
        let shape = Shape { replicas_per_shard, ..topology.shape.clone() };
        apply(&mut next, topology.version + 1, TopologyCommand::SetShape { shape }).unwrap();
        next
    }

    #[test]
    fn who_knows_nothing_gets_all_and_who_knows_all_gets_nothing() {
        let mut publications = Publications::default();
        let current = Arc::new(topology());
        let update = publications.update(None, &current);
        assert_eq!(serde_json::from_slice::<Topology>(&update.topology).unwrap(), *current);
        assert!(update.delta.is_empty());
        let nothing = publications.update(current.key().as_ref(), &current);
        assert_eq!(nothing, rpc::TopologyUpdate::default());
    }

    #[test]
    fn who_knows_a_recent_version_gets_what_changed() {
        let mut publications = Publications::default();
        let first = Arc::new(topology());
        publications.update(None, &first);
        let mut current = Arc::clone(&first);
        for told in 2..=HISTORY_LEN {
            current = Arc::new(next(&current));
            let update = publications.update(first.key().as_ref(), &current);
            assert!(update.topology.is_empty(), "after {told} versions");
            let delta: Delta = serde_json::from_slice(&update.delta).unwrap();
            assert_eq!(delta.apply(&first).as_ref(), Some(&*current));
        }
        current = Arc::new(next(&current));
        let update = publications.update(first.key().as_ref(), &current);
        assert!(update.delta.is_empty() && !update.topology.is_empty(), "the first version is forgotten");
    }
}
